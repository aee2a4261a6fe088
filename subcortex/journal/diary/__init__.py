"""Transactions and queries on sessions, the board and drives: a module a subject, each on a ``Diary``."""

from subcortex.journal.diary.access import Diary

__all__ = ["Diary"]
