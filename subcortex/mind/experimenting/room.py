"""Whether an experiment finds room beside the tiers, and who would have to make it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from subcortex.config import Config, RemoteTier
from subcortex.experiments.needs import Needs
from subcortex.fleet import HOST, Seen

_MIB_A_GIB = 1024.0


@dataclass(frozen=True, slots=True)
class Shortage:
    """What stands against a run now.

    Args:
        why: In words, with the figure.
        gpus: GPUs whose tiers would have to rest; None for every tier that runs here.
    """

    why: str
    gpus: frozenset[int] | None


def gpus_of(needs: Needs, subject: str, config: Config) -> frozenset[int]:
    """Return the GPUs that a run takes, by NVML's index: its tier's own, or the first that it needs."""
    tier = next((one for one in config.tiers if one.name == subject), None)
    own = () if tier is None or isinstance(tier, RemoteTier) else tuple(tier.gpus or ())
    others = [index for index in range(needs.gpus + len(own)) if index not in own]
    return frozenset([*own, *others][: needs.gpus])


def together(several: Sequence[Needs]) -> Needs:
    """Return what must be free for runs that are done one after the other."""
    whole = any(one.gpus and one.gpu_mib is None for one in several)
    return Needs(
        gpus=max((one.gpus for one in several), default=0),
        gpu_mib=None if whole else max((one.gpu_mib or 0.0 for one in several), default=0.0),
        host_mib=max((one.host_mib for one in several), default=0.0),
        alone=any(one.alone for one in several),
    )


def shortage(needs: Needs, gpus: frozenset[int], seen: Seen, up: Sequence[str]) -> Shortage | None:
    """Return why a run finds no room as things are, None if it does.

    Args:
        needs: Of the run.
        gpus: It takes.
        seen: The machine now; a device that is not in it is taken to have room.
        up: Tiers on those GPUs that are not at rest.
    """
    for index in sorted(gpus):
        if needs.gpu_mib is None:
            if up:
                return Shortage(f"it needs all of GPU {index}, where {', '.join(up)} runs", gpus)
        elif needs.gpu_mib > seen.free.get(index, needs.gpu_mib):
            free_mib = seen.free[index]
            return Shortage(f"it needs {_gib(needs.gpu_mib)} of GPU {index}, {_gib(free_mib)} are free", gpus)
    if needs.host_mib > seen.free.get(HOST, needs.host_mib):
        free_mib = seen.free[HOST]
        return Shortage(f"it needs {_gib(needs.host_mib)} of host memory, {_gib(free_mib)} are free", None)
    return None


def _gib(mib: float) -> str:
    return f"{mib / _MIB_A_GIB:.1f} GiB"
