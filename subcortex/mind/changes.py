"""What the fleet tells of a tier, as those hear it who listen to the mind; pure translation."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from subcortex.types import TierEvent, TierState, TierStatus

#: Facts that have a field of their own.
_OWN = {"was", "why", "error"}
_STATES = frozenset(TierState)


def standing(at: datetime, tier: TierStatus) -> TierEvent:
    """Return how a tier stands, without a state before."""
    facts = {"rest": tier.rest, "waits_for": tier.waits_for}
    return TierEvent(
        at=at,
        tier=tier.name,
        state=tier.state,
        why=tier.error,
        facts={name: str(fact) for name, fact in facts.items() if fact is not None},
    )


def changed(at: datetime, tier: str, kind: str, facts: Mapping[str, Any], state: TierState) -> TierEvent:
    """Return what the fleet told of a tier.

    Args:
        at: When it was told.
        tier: Of which tier.
        kind: The new state; or another word, of what left the tier in ``state``.
        facts: What else the fleet said.
        state: The tier's state now.
    """
    others = {name: fact for name, fact in facts.items() if name not in _OWN}
    is_state = kind in _STATES
    return TierEvent(
        at=at,
        tier=tier,
        state=TierState(kind) if is_state else state,
        was=facts.get("was"),
        why=facts.get("why") or facts.get("error"),
        facts=others if is_state else {"kind": kind, **others},
    )
