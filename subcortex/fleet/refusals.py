"""What a thought is told that a tier cannot take. Pure."""

from __future__ import annotations

from subcortex.errors import Cancelled, DoesNotFit, Overloaded
from subcortex.fleet.room import Seen
from subcortex.fleet.scene import HOST
from subcortex.fleet.schedule import Shortage

_LENT_RETRY_S = 30.0
_MIB_A_GIB = 1024


def stopping(tier: str) -> Cancelled:
    """The tier is being stopped."""
    return Cancelled(f"{tier} is being stopped", hint="Start it again with `subcortex up`.")


def lent(tier: str, why: str) -> Overloaded:
    """Its GPU is somebody else's for now."""
    return Overloaded(
        f"{tier} has made way: {why}",
        hint="It comes back by itself once it may.",
        tier=tier,
        retry_after_s=_LENT_RETRY_S,
    )


def never_came(tier: str, longest_s: float, why: str, retry_after_s: float) -> Overloaded:
    """The tier has not come up in as long as anybody should wait."""
    return Overloaded(
        f"{tier} has not come up in {longest_s:.0f} s: {why}",
        hint="`subcortex ps` shows who holds the memory.",
        tier=tier,
        retry_after_s=retry_after_s,
    )


def too_small(tier: str, shortage: Shortage, seen: Seen) -> DoesNotFit:
    """It fits nowhere, with all other tiers gone."""
    where = "host memory" if shortage.device == HOST else f"GPU {shortage.device}"
    holder = seen.holders.get(shortage.device)
    others_mib = seen.foreign.get(shortage.device, 0.0)
    others = f"; others hold {others_mib / _MIB_A_GIB:.1f} GiB" if others_mib >= 1 else ""
    return DoesNotFit(
        f"{tier} needs {shortage.needs_mib / _MIB_A_GIB:.1f} GiB of {where}, and "
        f"{shortage.room_mib / _MIB_A_GIB:.1f} GiB can be had{others}",
        hint=(f"End {holder}, or see" if holder else "See") + " `subcortex plan` for what would fit.",
        tier=tier,
        device=where,
        needs_mib=round(shortage.needs_mib),
        room_mib=round(shortage.room_mib),
        short_mib=round(shortage.needs_mib - shortage.room_mib),
    )
