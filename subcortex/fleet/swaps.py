"""What swaps have taken, by tier and way of resting: medians of the last few, nominal until measured."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Container
from statistics import median

from subcortex.fleet.scene import BACK_S, LEAVE_S, Swaps
from subcortex.types import Rest

#: Measurements remembered of each; few, since a page cache that fills changes them for good.
_WINDOW = 9


#: Host memory that a process pins for its first sleep, MiB a second, and what a later one copies into it.
#: vLLM 0.26 on H200: 131 GiB in 34 to 68 s, then in 2 s; 15.6 GiB in 8.6 s, then in 0.6 s.
_PIN_MIB_PER_S, _COPY_MIB_PER_S = 2400.0, 40_000.0


class SwapBook:
    """Costs of leaving and coming back; one owner, no lock.

    The first sleep of a process is told apart from later ones: it takes many times as long, since the host
    memory that weights go to is pinned then and kept.
    """

    def __init__(self) -> None:
        self._leave: dict[tuple[str, Rest, bool], deque[float]] = defaultdict(lambda: deque(maxlen=_WINDOW))
        self._back: dict[tuple[str, Rest], deque[float]] = defaultdict(lambda: deque(maxlen=_WINDOW))
        self._nominal_start_s: dict[str, float] = {}

    def nominal(self, tier: str, start_s: float) -> None:
        """Set how long a tier is expected to take from stopped to ready, until that is measured."""
        self._nominal_start_s[tier] = start_s

    def left(self, tier: str, rest: Rest, seconds: float, *, first: bool = False) -> None:
        """Learn how long a tier took to come to rest; ``first``: it was its process' first sleep."""
        if math.isfinite(seconds) and seconds >= 0:
            self._leave[tier, rest, first].append(seconds)

    def came(self, tier: str, rest: Rest, seconds: float) -> None:
        """Learn how long it took to come back from such a rest."""
        if math.isfinite(seconds) and seconds >= 0:
            self._back[tier, rest].append(seconds)

    def swaps(
        self, tier: str, answer_s: float = 1.0, *, slept: Container[Rest] = tuple(Rest), pins_mib: float = 0.0
    ) -> Swaps:
        """Return what a tier's swaps are expected to take.

        Args:
            tier: Whose.
            answer_s: What a usual thought takes it.
            slept: The kinds of sleep that its process has slept already.
            pins_mib: What its weights take of host memory at level 1.
        """
        back = dict(BACK_S)
        back[Rest.STOP] = self._nominal_start_s.get(tier, back[Rest.STOP])
        leave = {}
        for rest in Rest:
            first = rest is Rest.SLEEP_1 and rest not in slept
            nominal_s = LEAVE_S[rest]
            if rest is Rest.SLEEP_1 and pins_mib:
                nominal_s = 0.5 + pins_mib / (_PIN_MIB_PER_S if first else _COPY_MIB_PER_S)
            leave[rest] = _of(self._leave.get((tier, rest, first)), nominal_s)
        return Swaps(leave, {rest: _of(self._back.get((tier, rest)), back[rest]) for rest in Rest}, answer_s)


def _of(seen: deque[float] | None, nominal_s: float) -> float:
    return median(seen) if seen else nominal_s
