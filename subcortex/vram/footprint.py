"""What an engine takes of each device, by component. Pure values; every amount is MiB, mean ± σ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from subcortex.vram.amount import Amount, total


class Component(StrEnum):
    """A part of an engine's memory on one device."""

    WEIGHTS = "weights"
    KV = "kv"
    #: The peak of one step: hidden states, logits, workspaces.
    ACTIVATIONS = "activations"
    GRAPHS = "graphs"
    #: NCCL, the custom all-reduce, and copies between stages.
    COMMUNICATION = "communication"
    #: CUDA context, loaded kernels and libraries' own buffers.
    CONTEXT = "context"
    #: What torch keeps after warm-up (sampling with real settings) beyond the peak that vLLM counted.
    CACHED = "cached"


@dataclass(frozen=True, slots=True)
class DeviceNeed:
    """What an engine takes of one device.

    Args:
        components: MiB by component; absent means none.
    """

    components: Mapping[Component, Amount] = field(default_factory=dict)

    @property
    def total(self) -> Amount:
        """All components together, MiB."""
        return total(self.components.values())

    def of(self, component: Component) -> Amount:
        """Return one component, nothing if it is absent."""
        return self.components.get(component, Amount())

    def but(self, component: Component, amount: Amount) -> DeviceNeed:
        """Return the same need with one component set."""
        return DeviceNeed({**self.components, component: amount})


@dataclass(frozen=True, slots=True)
class Footprint:
    """What an engine takes, device by device.

    Args:
        devices: One a GPU that it runs on, in the order that the engine counts them.
        host: Of host memory.
        asleep: What it keeps of each GPU while asleep (vLLM's sleep mode), None if it cannot sleep.
        asleep_host: Of host memory while asleep at level 1, where the weights go.
    """

    devices: tuple[DeviceNeed, ...]
    host: DeviceNeed = field(default_factory=DeviceNeed)
    asleep: tuple[Amount, ...] | None = None
    asleep_host: Amount | None = None
