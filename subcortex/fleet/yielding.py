"""Which GPUs are lent to somebody else: by a person's word, or because another program took them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf

from subcortex.fleet.scene import HOST, Device, Room


@dataclass(frozen=True, slots=True)
class Loan:
    """A GPU lent by a person's word, or to a part of this program (``holder``); ``device`` None lends all."""

    device: Device | None
    until_s: float = inf
    holder: str | None = None


@dataclass(frozen=True, slots=True)
class Lending:
    """What is lent, and what tells when it is given back.

    Args:
        used_mib: By other programs, at the first look at each GPU, or the least since.
        taken: GPUs that another program has taken, and when it was last seen to hold them; seconds.
    """

    loans: tuple[Loan, ...] = ()
    used_mib: Room = field(default_factory=dict)
    taken: Mapping[Device, float] = field(default_factory=dict)

    def lend(self, devices: list[Device] | None, until_s: float, holder: str | None = None) -> Lending:
        """Return it with GPUs lent by a person's word, or to ``holder``; None lends all."""
        wanted = devices if devices is not None else [None]
        fresh = tuple(Loan(device, until_s, holder) for device in wanted)
        return replace(self, loans=(*self.loans, *fresh))

    def take_back(self) -> Lending:
        """Return it with what a person lent taken back, and what others use now as what they may."""
        kept = tuple(loan for loan in self.loans if loan.holder is not None)
        return replace(self, loans=kept, taken={}, used_mib={})

    def give_back(self, holder: str) -> Lending:
        """Return it with nothing lent to that part of the program."""
        return replace(self, loans=tuple(loan for loan in self.loans if loan.holder != holder))

    def look(self, now_s: float, foreign_mib: Room, over_mib: float, back_s: float) -> Lending:
        """Return it after a look at what other programs use.

        A GPU counts as taken once they use ``over_mib`` more of it than at the least so far, and as given
        back once that has been half as much or less for ``back_s`` seconds.
        """
        used, taken = dict(self.used_mib), dict(self.taken)
        for device, mib in foreign_mib.items():
            if device == HOST:
                continue
            used[device] = min(mib, used.get(device, mib))
            more_mib = mib - used[device]
            if more_mib > (over_mib / 2 if device in taken else over_mib):
                taken[device] = now_s
            elif device in taken and now_s - taken[device] >= back_s:
                del taken[device]
        loans = tuple(loan for loan in self.loans if loan.until_s > now_s)
        return Lending(loans, used, taken)

    def why(self, devices: frozenset[Device], now_s: float, *, aside: str | None = None) -> str | None:
        """Return why whoever is on these devices must rest, None if it need not.

        Args:
            devices: GPUs.
            now_s: Time.
            aside: What is lent to this holder does not count: it is the one who asks.
        """
        for loan in self.loans:
            if aside is not None and loan.holder == aside:
                continue
            if loan.until_s > now_s and (loan.device is None or loan.device in devices):
                where = "all GPUs are" if loan.device is None else f"GPU {loan.device} is"
                if loan.holder is not None:
                    return f"{where} lent to {loan.holder}"
                return f"{where} lent (`subcortex yield --end` takes them back)"
        for device in sorted(self.taken):
            if device in devices:
                return f"another program has taken GPU {device}"
        return None

    def ends_s(self, now_s: float) -> float:
        """Return when the next loan ends, infinity if none does."""
        return min((loan.until_s for loan in self.loans if loan.until_s > now_s), default=inf)
