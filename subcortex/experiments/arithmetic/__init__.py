"""Claims that arithmetic alone decides: sizes, a cached token, sums, links, collectives, what fits. Pure.

A claim's figure is met within its own rounding (``journal/board/figures.py`` has the rule). What arithmetic
cannot tell stays claimed: a speed, an accuracy, a size whose form nobody named.
"""

from __future__ import annotations

from subcortex.experiments.arithmetic.collectives import settle_collective
from subcortex.experiments.arithmetic.equations import settle_equation
from subcortex.experiments.arithmetic.fitting import settle_fit
from subcortex.experiments.arithmetic.machines import settle_machine
from subcortex.experiments.arithmetic.models import settle_model
from subcortex.experiments.arithmetic.settlement import Settlement, Verdict
from subcortex.journal.board import Claim

__all__ = ["Settlement", "Verdict", "settle"]


def settle(claim: Claim) -> Settlement | None:
    """Return what arithmetic makes of a claim; None where it cannot tell.

    A line may be held against several rules: one that refutes it decides, else the first that confirms it.
    """
    if claim.kind == "result":
        return settle_collective(claim)
    if claim.kind == "fits":
        return settle_fit(claim)
    found = [one for rule in (settle_equation, settle_model, settle_machine) if (one := rule(claim))]
    return next((one for one in found if one.verdict == "refuted"), found[0] if found else None)
