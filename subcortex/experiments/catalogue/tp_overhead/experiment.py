"""What splitting a model over two GPUs adds to the memory that it takes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, ClassVar

from subcortex.config import VllmTier
from subcortex.errors import SubcortexError
from subcortex.experiments.catalogue.common.priors import planned
from subcortex.experiments.catalogue.common.tiers import about, boot_s, local_tier, vllm_tiers
from subcortex.experiments.catalogue.common.vllm_arms import BESIDE_MIB, cores, resized, room_mib
from subcortex.experiments.catalogue.tp_overhead import report
from subcortex.experiments.catalogue.tp_overhead.figures import of_cards, of_host
from subcortex.experiments.certificate import certificate
from subcortex.experiments.choice import Belief, believed, guessed
from subcortex.experiments.experiment import Experiment, Inquiry, Needs, Report
from subcortex.experiments.laboratory.engines import Served
from subcortex.experiments.laboratory.lab import Lab
from subcortex.experiments.laboratory.memory import Held, settled
from subcortex.experiments.laboratory.streams import fetched
from subcortex.experiments.scene import Scene
from subcortex.experiments.statistics import Interval, abba
from subcortex.models.shape import ModelShape
from subcortex.vram import Amount, Component, Footprint, VllmSetup, vllm
from subcortex.vram.legality import legal_tensor_parallel_sizes
from subcortex.vram.plan.from_config import ask_from
from subcortex.vram.plan.real import Estimates
from subcortex.vram.vllm.weights import rank_bytes

_ARMS = {"tp1": 1, "tp2": 2}
_MIB = 2**20
#: A figure of a boot moves by no more than vLLM's rounding on each rank.
_NOISE_MIB = 20.0
_BLOCK_SIZE = re.compile(r'^vllm:cache_config_info\{[^}\n]*\bblock_size="(\d{1,6})"', re.MULTILINE)


class TpOverhead(Experiment):
    """Boots of one model on one GPU and on two, held against each other component by component."""

    number: ClassVar[int] = 4
    name: ClassVar[str] = "tp_overhead"
    question: ClassVar[str] = "What does tensor parallelism add to the memory that a model takes?"
    kinds: ClassVar[frozenset[str]] = frozenset({"tp_overhead"})

    def why_not(self, scene: Scene) -> str | None:
        """Return why two boots cannot be compared here."""
        if not vllm_tiers(scene):
            return "no tier runs on vLLM, which alone splits a model by tensor parallelism here"
        if scene.on_gpus and len(scene.hardware.gpus) < 2:
            return "tensor parallelism over two GPUs needs two, and there is one"
        if not scene.on_gpus and len(cores()) < 2:
            return "two ranks on the CPU need two cores, and there is one"
        if _chosen(scene) is None:
            return "no vLLM tier's model both fits one GPU and can be split over two"
        return None

    def inquiries(self, scene: Scene) -> Sequence[Inquiry]:
        """Return one, of the smallest model that there is."""
        chosen = None if self.why_not(scene) else _chosen(scene)
        if chosen is None:
            return []
        tier, shape = chosen.tier, chosen.shape
        boots_s = sum(
            boot_s(
                scene,
                _arm(scene, chosen, arm),
                chosen.weights_mib,
            )
            for arm in ("tp1", "tp2", "tp1")
        )
        return [
            Inquiry(
                experiment=self.name,
                subject=tier.name,
                question=f"What does TP=2 add to the memory of {about(tier)} beyond its weights?",
                quantity="overhead",
                about=about(tier),
                unit="MiB",
                prior=_prior(scene, chosen),
                noise=_NOISE_MIB,
                worth=1.0,
                minutes=boots_s / 60 + 0.3,
                needs=Needs(
                    gpus=2 if scene.on_gpus else 0,
                    host_mib=2 * chosen.weights_mib + (0.0 if scene.on_gpus else 8192.0),
                ),
                depends_on=certificate(scene, tier=tier, weights_bytes=shape.weights_bytes, arms=list(_ARMS)),
            )
        ]

    async def run(self, lab: Lab, inquiry: Inquiry) -> Report:
        """Boot it on one, on two, and on one again, and read what each boot took."""
        tier = local_tier(lab.scene, inquiry.subject)
        assert isinstance(tier, VllmTier)
        chosen = _seen(lab.scene, tier)
        assert chosen is not None, "an inquiry is made of a model that can be read"
        noticed: list[str] = []
        await _boots(lab, chosen, noticed)
        return report.report(
            {arm: _means(lab, arm) for arm in _ARMS},
            {arm: len(lab.readings("boot", arm=arm)) for arm in _ARMS},
            tier,
            on_gpus=lab.scene.on_gpus,
            block_tokens=[int(one.value) for one in lab.readings("kv block")],
            noticed=noticed,
        )


@dataclass(frozen=True, slots=True)
class _Chosen:
    tier: VllmTier
    shape: ModelShape
    weights_mib: float


def _seen(scene: Scene, tier: VllmTier) -> _Chosen | None:
    found = planned(scene, tier)
    return _Chosen(tier, found.shape, found.weights_mib) if found else None


def _chosen(scene: Scene) -> _Chosen | None:
    """Return the tier with the smallest model that fits one card and can be split over two."""
    found = [one for tier in vllm_tiers(scene) if (one := _seen(scene, tier)) is not None]
    fitting = [
        one
        for one in found
        if 2 in legal_tensor_parallel_sizes(one.shape, 2)
        and one.weights_mib + BESIDE_MIB / 2 < room_mib(scene)
    ]
    return min(fitting, key=lambda one: one.weights_mib, default=None)


def _arm(scene: Scene, chosen: _Chosen, arm: str) -> VllmTier:
    return resized(scene, chosen.tier, _ARMS[arm], weights_mib=chosen.weights_mib)


async def _boots(lab: Lab, chosen: _Chosen, noticed: list[str]) -> None:
    """Boot in the order A B B A; the two in the middle are one boot, read twice."""
    scene, last, before = lab.scene, "", Held()
    gpus = tuple(gpu.index for gpu in scene.hardware.gpus[:2]) if scene.on_gpus else ()
    longest_s = 0.0
    for place, (block, arm) in enumerate(abba(tuple(_ARMS), 1)):
        if len(lab.readings("mib taken", arm=arm)) > place // 2:
            continue
        both = all(lab.readings("mib taken", arm=one) for one in _ARMS)
        if not both and lab.seconds_left <= 0 and lab.metrics:
            noticed.append(f"Time was over before a boot at TP={_ARMS[arm]} had been measured.")
            return
        if both and arm != last and lab.seconds_left < 1.3 * longest_s + 10:
            noticed.append(f"Time was left for one boot at TP={_ARMS[arm]} only.")
            return
        tier = _arm(scene, chosen, arm)
        if arm != last:
            await lab.cool()
            gpus = tuple(tier.gpus or ()) if scene.on_gpus else ()
            before = await settled(None, gpus)
        lab.say(f"{tier.name}: {arm}", place / 4)
        try:
            async with lab.engine(tier) as served:
                longest_s = max(longest_s, served.boot_s)
                now = await settled(served.engine, gpus)
                if arm != last:
                    lab.sample("boot", served.boot_s, "s", arm=arm, block=block)
                    if tokens_a_block := await _block_tokens(served):
                        lab.sample("kv block", tokens_a_block, "tokens", arm=arm, block=block)
                found = _components(scene, chosen, served.figures, before, now, _ARMS[arm])
                tokens = served.figures.kv_tokens if served.figures else None
        except SubcortexError as error:
            if not both:
                raise
            noticed.append(f"A boot at TP={_ARMS[arm]} failed: {error.message.rstrip('.')}.")
            return
        for name, value in found.items():
            lab.sample(f"mib {name}", value, "MiB", arm=arm, block=block)
        if tokens and "kv pool" in found:
            lab.sample("kv a token", found["kv pool"] * 1024 / tokens, "KiB", arm=arm, block=block)
        last = arm


async def _block_tokens(served: Served) -> int | None:
    """Return how many tokens a block of the KV pool holds, as the engine's metrics tell it."""
    with suppress(SubcortexError):
        told = _BLOCK_SIZE.search(await fetched(served.socket, "/metrics"))
        return int(told[1]) if told else None
    return None


def _components(
    scene: Scene, chosen: _Chosen, figures: Any, before: Held, now: Held, size: int
) -> dict[str, float]:
    if not scene.on_gpus:
        setup = VllmSetup(tensor_parallel_size=size)
        weights = sum(rank_bytes(chosen.shape, setup, rank=rank) for rank in range(size))
        return of_host(figures, now.host_mib, weights / _MIB)
    totals = {gpu.index: gpu.memory_total_mib for gpu in scene.hardware.gpus}
    free = [totals[index] - before.gpus.get(index, 0.0) for index in sorted(now.gpus)]
    return of_cards(figures, now.less(before), free)


def _means(lab: Lab, arm: str) -> Mapping[str, float]:
    names = (*report.COMPONENTS, "taken")
    found = {name: [one.value for one in lab.readings(f"mib {name}", arm=arm)] for name in names}
    found["kv a token"] = [one.value for one in lab.readings("kv a token", arm=arm)]
    return {name: fmean(values) for name, values in found.items() if values}


def _prior(scene: Scene, chosen: _Chosen) -> Belief:
    """Return what the planner expects two ranks to hold more than one, weights and pool aside."""
    with suppress(SubcortexError):
        one, two = (_beside(_footprint(scene, chosen, arm)) for arm in _ARMS)
        low, high = (two - one).interval(0.9)
        if high > low:
            return believed(Interval(low, high, 0.9), "normal")
    return replace(guessed("share", 1024.0), sigma=1024.0)


def _footprint(scene: Scene, chosen: _Chosen, arm: str) -> Footprint:
    setup = ask_from(_arm(scene, chosen, arm), chosen.shape).setup
    assert isinstance(setup, VllmSetup)
    gpus = tuple(scene.hardware.gpus[: setup.gpus])
    setup = vllm.resolved(setup, chosen.shape, gpus[0] if gpus else None)
    return Estimates(scene.hardware, mapped=False).footprint(chosen.shape, setup, gpus)


def _beside(footprint: Footprint) -> Amount:
    needs = footprint.devices or (footprint.host,)
    parts = [
        amount
        for need in needs
        for component, amount in need.components.items()
        if component not in (Component.WEIGHTS, Component.KV)
    ]
    return sum(parts, Amount())
