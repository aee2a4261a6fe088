"""What the planner believes of a tier's memory, as priors of experiments."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from subcortex.errors import SubcortexError
from subcortex.experiments.catalogue.common.tiers import LocalTier, gpus_of
from subcortex.experiments.choice import Belief, believed, guessed
from subcortex.experiments.scene import Scene
from subcortex.experiments.statistics import Interval
from subcortex.models.read import read_shape
from subcortex.models.shape import ModelShape
from subcortex.vram import Amount, Footprint, VllmSetup, vllm
from subcortex.vram.amount import total
from subcortex.vram.plan.from_config import ask_from
from subcortex.vram.plan.real import Estimates

_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Planned:
    """A tier as the planner sees it.

    Args:
        shape: Its model, in the form that its flags ask for.
        footprint: What its engine is expected to take.
    """

    shape: ModelShape
    footprint: Footprint

    @property
    def weights_mib(self) -> float:
        """All weights, held once."""
        return self.shape.weights_bytes / _MIB


def planned(scene: Scene, tier: LocalTier) -> Planned | None:
    """Return what the planner expects of a tier; None where its model cannot be read. Reads files."""
    with suppress(SubcortexError):
        path = scene.config.resolve(tier.model)
        shape = read_shape(path if path.exists() else tier.model, name=tier.model)
        ask = ask_from(tier, shape)
        by_index = {gpu.index: gpu for gpu in scene.hardware.gpus}
        gpus = tuple(by_index[index] for index in gpus_of(scene, tier) if index in by_index)
        setup = ask.setup
        if isinstance(setup, VllmSetup):
            setup = vllm.resolved(setup, ask.shape, gpus[0] if gpus else None)
        found = Estimates(scene.hardware, mapped=False).footprint(ask.shape, setup, gpus)
        return Planned(ask.shape, found)
    return None


def planned_mib(scene: Scene, tier: LocalTier) -> Interval | None:
    """Return the planner's 90 % interval of what a tier holds while it is ready, MiB.

    Of all its cards together; of the host where it computes there. None where nobody can tell.
    """
    found = planned(scene, tier)
    return None if found is None else _interval(in_all(found.footprint))


def in_all(footprint: Footprint) -> Amount:
    """Return what is held of all cards together, or of the host where there is none."""
    if not footprint.devices:
        return footprint.host.total
    return total(device.total for device in footprint.devices)


def memory_prior(amount: Amount | None) -> Belief:
    """Return the belief that an amount states, in MiB; a wide guess for none."""
    if amount is None or amount.mean_mib <= 0:
        return guessed("memory", 1024.0)
    interval = _interval(amount)
    # An estimate may be surer of itself than a unit's rounding, or reach below zero.
    low = max(interval.low, interval.high * 0.05, 0.1)
    high = max(interval.high, low * 1.001)
    return believed(Interval(low, high, interval.level))


def _interval(amount: Amount) -> Interval:
    low, high = amount.interval(0.9)
    return Interval(low, high, 0.9)
