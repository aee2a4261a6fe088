"""Charts of what was measured: as lines of text for a terminal, and as a picture that stands by itself. Pure.

Written here since nothing light does it: plotille has neither intervals nor plain ASCII and labels an axis
with ``70.8571429``, plotext takes 0.3 s to import and keeps one chart a process, pygal's pictures carry
scripts.
"""

from subcortex.experiments.charts.svg import svg
from subcortex.experiments.charts.terminal import lines_of

__all__ = ["lines_of", "svg"]
