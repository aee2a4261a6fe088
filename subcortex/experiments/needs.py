"""What an experiment needs of the machine; apart, since a daemon looks at it before it loads any."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Needs:
    """What must be free for an experiment while it runs.

    Args:
        gpus: How many; 0 for none.
        gpu_mib: Of each; None for the whole card.
        host_mib: Host memory, where engines or large buffers live in it.
        alone: Nothing else may run, or the figures are worthless (speeds, not sizes).
    """

    gpus: int = 0
    gpu_mib: float | None = None
    host_mib: float = 0.0
    alone: bool = True
