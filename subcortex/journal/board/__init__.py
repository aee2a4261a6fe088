"""What a text does not know, and what it says is so: gaps and claims, with their figures. Pure."""

from subcortex.journal.board.claims import Claim, claims_in
from subcortex.journal.board.figures import Figure, figures_in
from subcortex.journal.board.gaps import Gap, gaps_in
from subcortex.journal.board.kinds import KINDS, question_kind
from subcortex.journal.board.lines import Line, lines_of
from subcortex.journal.board.units import UNITS, Unit, comparable, in_base

__all__ = [
    "KINDS",
    "UNITS",
    "Claim",
    "Figure",
    "Gap",
    "Line",
    "Unit",
    "claims_in",
    "comparable",
    "figures_in",
    "gaps_in",
    "in_base",
    "lines_of",
    "question_kind",
]
