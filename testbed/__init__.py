"""Two tiny language models that really answer, and the graded tasks they were trained on.

A folder of scripts apart from the package: `tasks` needs the standard library alone, the
rest needs what its own docstring names.
"""
