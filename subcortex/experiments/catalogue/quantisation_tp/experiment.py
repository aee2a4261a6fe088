"""Which quantisations can be split by tensor parallelism, and what one that is booted gives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from math import log
from typing import ClassVar

from subcortex.config import VllmTier
from subcortex.engines._flags import last_value
from subcortex.errors import SubcortexError
from subcortex.experiments.catalogue.common.flag_words import without
from subcortex.experiments.catalogue.common.priors import planned
from subcortex.experiments.catalogue.common.tiers import about, boot_s, local_tier, vllm_tiers
from subcortex.experiments.catalogue.common.vllm_arms import cores, resized
from subcortex.experiments.catalogue.quantisation_tp import report
from subcortex.experiments.catalogue.quantisation_tp.splits import Splits, examples, splits
from subcortex.experiments.certificate import certificate
from subcortex.experiments.choice import NOISES, Belief
from subcortex.experiments.experiment import Experiment, Inquiry, Needs, Report
from subcortex.experiments.laboratory.engines import Served
from subcortex.experiments.laboratory.lab import Lab
from subcortex.experiments.laboratory.load import Endpoint, Load, answer
from subcortex.experiments.laboratory.memory import settled
from subcortex.experiments.scene import Scene
from subcortex.journal.board.subjects import model_name
from subcortex.models.shape import ModelShape
from subcortex.vram.vllm.legality import legal_sizes

_FLAG = ("--quantization", "fp8")
_UNQUANTISED_DTYPES = ("float32", "float")
ARMS = ("fp8", "plain")
#: Answers of one alone, and looks at a load, with each boot.
_ANSWERS, _LOOKS, _LOOK_S, _CONCURRENCY = 7, 5, 3.0, 16
#: What measuring takes beside a boot; and what is kept to stop in.
_MEASURE_S, _LAST_S = 30.0, 10.0


class QuantisationTp(Experiment):
    """What can be split by arithmetic, and one boot in FP8 that vLLM makes while it loads."""

    number: ClassVar[int] = 7
    name: ClassVar[str] = "quantisation_tp"
    question: ClassVar[str] = "Which quantisations can be split over GPUs, and what does one that is give?"
    kinds: ClassVar[frozenset[str]] = frozenset({"quantisation_tp"})
    #: 2: lengths of answers under load vary. 3: windows last for whole turns.
    method: ClassVar[int] = 3

    def why_not(self, scene: Scene) -> str | None:
        """Return why nothing is asked here."""
        if not vllm_tiers(scene):
            return "no tier runs on vLLM, which alone splits a model by tensor parallelism here"
        if not _readable(scene):
            return "no vLLM tier's model can be read here"
        return None

    def inquiries(self, scene: Scene) -> Sequence[Inquiry]:
        """Return one: the table is of all tiers, the boot of the smallest."""
        if self.why_not(scene):
            return []
        tier, shape, weights_mib = _smallest(scene)
        size = _largest(scene, shape)
        arms = [resized(scene, tier, size, weights_mib=weights_mib)] * len(ARMS)
        seconds = sum(boot_s(scene, arm, weights_mib) + _MEASURE_S for arm in arms)
        return [
            Inquiry(
                experiment=self.name,
                subject=tier.name,
                question=f"Can {about(tier)} be split over {size} ranks if quantised, and what comes of it?",
                quantity="speed_ratio",
                about=about(tier),
                unit="x",
                # A step reads half the bytes, so up to twice as fast; or slower, if kernels are poor.
                prior=Belief(log(1.3), log(1.8) / 1.645, "log-normal"),
                noise=NOISES["served"],
                worth=1.0,
                minutes=seconds / 60,
                needs=Needs(gpus=size if scene.on_gpus else 0, host_mib=2 * weights_mib),
                depends_on=certificate(scene, tier=tier, flag=list(_FLAG), size=size),
            )
        ]

    async def run(self, lab: Lab, inquiry: Inquiry) -> Report:
        """Reckon the table, boot in FP8, and boot as it is for comparison if there is time."""
        scene, tier = lab.scene, local_tier(lab.scene, inquiry.subject)
        assert isinstance(tier, VllmTier)
        table = _table(scene)
        shape, weights_mib = next((s, mib) for one, s, mib in _readable(scene) if one.name == tier.name)
        size = _largest(scene, shape)
        noticed: list[str] = []
        refused: str | None = None
        # Of the second arm it is known what the first took, boot and all.
        needed_s = (
            boot_s(scene, resized(scene, tier, size, weights_mib=weights_mib), weights_mib) + _MEASURE_S
        )
        for arm in ARMS:
            if len(lab.readings("window", arm=arm)) >= _LOOKS:
                continue
            if lab.seconds_left < needed_s + _LAST_S:
                noticed.append(
                    f"Time was over while {about(tier)} {report.FORMS[arm]} was measured."
                    if lab.readings("boot", arm=arm)
                    else f"No time was left for a boot of {about(tier)} {report.FORMS[arm]}."
                )
                break
            lab.say(f"{tier.name}: {arm} at TP={size}", ARMS.index(arm) / len(ARMS))
            began_s = time.monotonic()
            limit = asyncio.timeout(lab.seconds_left - _LAST_S)
            try:
                async with limit:
                    await _measured(lab, _arm(scene, tier, arm, size, weights_mib), arm)
                needed_s = time.monotonic() - began_s
            except TimeoutError:
                if not limit.expired():
                    raise
                noticed.append(f"Time was over while {about(tier)} {report.FORMS[arm]} was measured.")
                break
            except SubcortexError as error:
                why = error.message.partition(" [type=")[0].strip().rstrip(".")
                noticed.append(f"{about(tier)} {report.FORMS[arm]} at TP={size} failed: {why}.")
                if arm == "fp8":
                    refused = why
                # What it would be compared with says nothing by itself.
                break
        return report.report(
            {metric: lab.samples(metric) for metric in report.METRICS},
            table,
            tier,
            report.Boot(size, refused, on_gpus=scene.on_gpus, concurrency=_CONCURRENCY),
            noticed=noticed,
        )


def _readable(scene: Scene) -> list[tuple[VllmTier, ModelShape, float]]:
    found = []
    for tier in vllm_tiers(scene):
        seen = planned(scene, tier)
        if seen is not None:
            found.append((tier, seen.shape, seen.weights_mib))
    return found


def _smallest(scene: Scene) -> tuple[VllmTier, ModelShape, float]:
    return min(_readable(scene), key=lambda one: one[2])


def _table(scene: Scene) -> list[Splits]:
    """Return what can be split of the configured models, each once, and of well-known ones."""
    own = {about(tier): splits(shape, about(tier)) for tier, shape, _ in _readable(scene)}
    return [*own.values(), *(one for one in examples() if model_name(one.model) not in own)]


def _largest(scene: Scene, shape: ModelShape) -> int:
    """Return the largest legal size of tensor parallelism here, at most two."""
    there = len(scene.hardware.gpus) if scene.on_gpus else len(cores())
    return max(legal_sizes(shape, max(1, min(2, there))))


def _arm(scene: Scene, tier: VllmTier, arm: str, size: int, weights_mib: float) -> VllmTier:
    found = resized(scene, tier, size, weights_mib=weights_mib)
    flags = without(found.flags, "--quantization")
    if last_value(flags, "--dtype") in _UNQUANTISED_DTYPES:
        # No kernel takes it; both arms have to do without, or they would not compare.
        flags = [*without(flags, "--dtype"), "--dtype", "bfloat16"]
    return found.model_copy(update={"flags": [*flags, *_FLAG] if arm == "fp8" else flags})


async def _measured(lab: Lab, tier: VllmTier, arm: str) -> None:
    """Boot one arm and keep its samples."""
    await lab.cool()
    gpus = tuple(tier.gpus or ()) if lab.scene.on_gpus else ()
    before = await settled(None, gpus)
    async with lab.engine(tier) as served:
        lab.sample("boot", served.boot_s, "s", arm=arm)
        now = await settled(served.engine, gpus)
        if len(now.gpus) == len(gpus):
            lab.sample("taken", sum(now.less(before)) if gpus else now.host_mib, "MiB", arm=arm)
        for name, value in _said(served).items():
            lab.sample(name, value, "MiB", arm=arm)
        await _speeds(lab, served, arm)


def _said(served: Served) -> dict[str, float]:
    devices = served.figures.devices if served.figures else []
    weights = [one.components["weights"] for one in devices if "weights" in one.components]
    pools = [one.kv_pool_mib for one in devices if one.kv_pool_mib is not None]
    found = {}
    if weights:
        found["weights"] = sum(weights) * len(devices) / len(weights)
    if pools:
        found["kv pool"] = sum(pools) * len(devices) / len(pools)
    return found


async def _speeds(lab: Lab, served: Served, arm: str) -> None:
    context = served.tier.context_tokens if isinstance(served.tier, VllmTier) else None
    room = context or 1024
    prompt, tokens = max(8, min(128, room // 8)), max(8, min(64, room // 8))
    endpoint = await Endpoint.of(served)
    # Kernels are chosen, and some compiled, at the first.
    await answer(endpoint, prompt_tokens=prompt, max_tokens=tokens)
    for _ in range(_ANSWERS):
        timing = await answer(endpoint, prompt_tokens=prompt, max_tokens=tokens)
        lab.sample("tpot", timing.tpot_s * 1000, "ms", arm=arm)
        lab.sample("ttft", timing.ttft_s * 1000, "ms", arm=arm)
    async with Load.on(endpoint, prompt_tokens=prompt, max_tokens=4 * tokens) as load:
        await load.keep(_CONCURRENCY)
        for _ in range(_LOOKS):
            window = await load.window(_LOOK_S)
            lab.sample("window", window.tok_s, "tokens/s", arm=arm, concurrency=_CONCURRENCY)
