"""What swaps have taken, by tier and way of resting: medians of the last few, nominal until measured."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from statistics import median

from subcortex.fleet.scene import BACK_S, LEAVE_S, Swaps
from subcortex.types import Rest

#: Measurements remembered of each; few, since a page cache that fills changes them for good.
_WINDOW = 9


class SwapBook:
    """Costs of leaving and coming back; one owner, no lock."""

    def __init__(self) -> None:
        self._leave: dict[tuple[str, Rest], deque[float]] = defaultdict(lambda: deque(maxlen=_WINDOW))
        self._back: dict[tuple[str, Rest], deque[float]] = defaultdict(lambda: deque(maxlen=_WINDOW))
        self._nominal_start_s: dict[str, float] = {}

    def nominal(self, tier: str, start_s: float) -> None:
        """Set how long a tier is expected to take from stopped to ready, until that is measured."""
        self._nominal_start_s[tier] = start_s

    def left(self, tier: str, rest: Rest, seconds: float) -> None:
        """Learn how long a tier took to come to rest."""
        if math.isfinite(seconds) and seconds >= 0:
            self._leave[tier, rest].append(seconds)

    def came(self, tier: str, rest: Rest, seconds: float) -> None:
        """Learn how long it took to come back from such a rest."""
        if math.isfinite(seconds) and seconds >= 0:
            self._back[tier, rest].append(seconds)

    def measured(self, tier: str) -> dict[str, float]:
        """Return what is measured of a tier, as ``leave_stop_s``, ``back_sleep_1_s``, …"""
        found = {}
        for name, book in (("leave", self._leave), ("back", self._back)):
            for rest in Rest:
                if seen := book.get((tier, rest)):
                    found[f"{name}_{rest}_s"] = median(seen)
        return found

    def swaps(self, tier: str, answer_s: float = 1.0) -> Swaps:
        """Return what a tier's swaps are expected to take."""
        back = dict(BACK_S)
        back[Rest.STOP] = self._nominal_start_s.get(tier, back[Rest.STOP])
        return Swaps(
            {rest: _of(self._leave.get((tier, rest)), LEAVE_S[rest]) for rest in Rest},
            {rest: _of(self._back.get((tier, rest)), back[rest]) for rest in Rest},
            answer_s,
        )


def _of(seen: deque[float] | None, nominal_s: float) -> float:
    return median(seen) if seen else nominal_s
