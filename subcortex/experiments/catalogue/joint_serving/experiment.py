"""Whether the most and the least capable tier can serve at once, and what each loses by it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

from subcortex.errors import SubcortexError
from subcortex.experiments.catalogue.common.tiers import (
    LocalTier,
    about,
    boot_s,
    gpus_of,
    local_tier,
    local_tiers,
)
from subcortex.experiments.catalogue.joint_serving.report import (
    JOINT,
    SOLO,
    Tenant,
    percentile,
    report,
    whole_blocks,
)
from subcortex.experiments.certificate import certificate
from subcortex.experiments.choice import NOISES, Belief, believed
from subcortex.experiments.experiment import Experiment, Inquiry, Needs, Report
from subcortex.experiments.laboratory.lab import Lab, OutOfTime
from subcortex.experiments.laboratory.load import Endpoint, Load, Timing
from subcortex.experiments.scene import Scene
from subcortex.experiments.statistics import Interval

#: Tokens of a question, and of an answer at the most. A tiny model's short one would come in one piece.
TOKENS, GPU_ANSWER_TOKENS, CPU_ANSWER_TOKENS = 64, 128, 192
#: Blocks of there and back, and seconds of each phase of one: on GPUs, and on the CPU.
BLOCKS, GPU_PHASE_S, CPU_PHASE_S = 5, 3.0, 0.8
#: Requests kept going of each tier.
GPU_CONCURRENCY, CPU_CONCURRENCY = 4, 1
#: Answers of a phase that its figures need, and the seconds that it may take for them.
FEWEST, _LONGEST_S = 4, 60.0
_PHASES = 6
#: From nothing lost to a third of the speed left is nothing to be astonished at.
_PRIOR: Belief = believed(Interval(1.0, 3.0))


class JointServing(Experiment):
    """Two tiers alone and at once: time a token, and the KV tokens that each is left with."""

    number: ClassVar[int] = 5
    name: ClassVar[str] = "joint_serving"
    question: ClassVar[str] = "Can the most and the least capable model serve at once, and how much slower?"
    kinds: ClassVar[frozenset[str]] = frozenset({"joint_serving"})
    #: 2: lengths of answers under load vary. 3: windows last for whole turns.
    method: ClassVar[int] = 3

    def why_not(self, scene: Scene) -> str | None:
        """Return why there are no two."""
        count = len(local_tiers(scene))
        return None if count > 1 else f"it takes two tiers that run on this machine; there are {count}"

    def inquiries(self, scene: Scene) -> Sequence[Inquiry]:
        """Return one, of the most capable tier beside the least."""
        if self.why_not(scene) is not None:
            return []
        deep, fast = two_of(scene)
        both = sorted({*gpus_of(scene, deep), *gpus_of(scene, fast)})
        phase_s = GPU_PHASE_S if both else CPU_PHASE_S
        measuring_s = BLOCKS * _PHASES * 1.5 * phase_s
        others = certificate(scene, tier=fast, gpus=both)
        return [
            Inquiry(
                experiment=self.name,
                subject=deep.name,
                question=(
                    f"How much slower is a token of {about(deep)} while {about(fast)} serves at the "
                    "same time?"
                ),
                quantity="speed_ratio",
                about=f"{about(deep)} beside {about(fast)}",
                unit="x",
                prior=_PRIOR,
                noise=NOISES["loaded"],
                worth=1.0,
                minutes=(boot_s(scene, deep, None) + boot_s(scene, fast, None) + measuring_s) / 60,
                needs=Needs(gpus=len(both)),
                depends_on=certificate(
                    scene,
                    tier=deep,
                    gpus=both,
                    tokens=[TOKENS, GPU_ANSWER_TOKENS, CPU_ANSWER_TOKENS],
                    beside=others,
                ),
            )
        ]

    async def run(self, lab: Lab, inquiry: Inquiry) -> Report:
        """Start one after the other; then load on one, the other and both, there and back."""
        deep = local_tier(lab.scene, inquiry.subject)
        fast = two_of(lab.scene)[1]
        on_gpus = bool(gpus_of(lab.scene, deep))
        answer_tokens = GPU_ANSWER_TOKENS if on_gpus else CPU_ANSWER_TOKENS
        concurrency = GPU_CONCURRENCY if on_gpus else CPU_CONCURRENCY
        named = [Tenant(tier.name, about(tier)) for tier in (deep, fast)]
        if not _is_left(lab, [one.tier for one in named]):
            return report(_kept(lab), named, concurrency=concurrency)
        async with AsyncExitStack() as stack:
            tenants: list[_Tenant] = []
            # In sequence: two engines that look at free memory at once take each other's for it.
            for tier in (deep, fast):
                try:
                    served = await stack.enter_async_context(lab.engine(tier))
                except SubcortexError as error:
                    if not tenants:
                        raise
                    return report(_kept(lab), named, refused=error.message)
                if served.figures is not None and served.figures.kv_tokens is not None:
                    lab.sample("kv_tokens", served.figures.kv_tokens, "tokens", tier=tier.name)
                endpoint = await Endpoint.of(served)
                load = await stack.enter_async_context(
                    Load.on(endpoint, prompt_tokens=TOKENS, max_tokens=answer_tokens)
                )
                tenants.append(_Tenant(tier, load))
            await _blocks(lab, tenants, concurrency, GPU_PHASE_S if on_gpus else CPU_PHASE_S)
        if not lab.readings("tpot_p50"):
            raise OutOfTime("no time was left for a phase after both starts")
        return report(_kept(lab), named, concurrency=concurrency)


def two_of(scene: Scene) -> tuple[LocalTier, LocalTier]:
    """Return the most and the least capable tier that run here."""
    tiers = local_tiers(scene)
    return tiers[-1], tiers[0]


@dataclass(frozen=True, slots=True)
class _Tenant:
    tier: LocalTier
    load: Load


def _kept(lab: Lab) -> list[Any]:
    return [one for metric in ("tpot_p50", "tpot_p95", "kv_tokens") for one in lab.readings(metric)]


def _is_left(lab: Lab, names: Sequence[str]) -> bool:
    """Return whether more is to be measured: two engines are not started for nothing."""
    done = len(whole_blocks(_kept(lab), names))
    return done < BLOCKS and (lab.seconds_left > 0 or not lab.metrics)


async def _blocks(lab: Lab, tenants: Sequence[_Tenant], concurrency: int, phase_s: float) -> None:
    names = [one.tier.name for one in tenants]
    numbers = [one.block for one in lab.readings("tpot_p50")]
    # One that was broken off is left as it is: half of it in another life would cancel no drift.
    number = max(numbers, default=-1) + 1
    block_s = 0.0
    for _ in range(2 * BLOCKS):
        done = len(whole_blocks(_kept(lab), names))
        if done >= BLOCKS or (block_s and lab.seconds_left < 2 * block_s):
            return
        began_s = time.monotonic()
        there = [(SOLO, [one]) for one in tenants] + [(JOINT, list(tenants))]
        for arm, busy in [*there, *reversed(there)]:
            if lab.seconds_left < phase_s:
                return
            lab.say(f"{' and '.join(one.tier.name for one in busy)} at work", done / BLOCKS)
            await _phase(lab, tenants, busy, arm, number, concurrency, phase_s)
        number += 1
        block_s = time.monotonic() - began_s


async def _phase(
    lab: Lab,
    tenants: Sequence[_Tenant],
    busy: Sequence[_Tenant],
    arm: str,
    block: int,
    concurrency: int,
    phase_s: float,
) -> None:
    """Keep the busy ones busy and the others idle; only answers that began in it count.

    Windows of two differ in length; between the end of the shorter and that of the longer both stay busy.
    """
    for one in tenants:
        if one not in busy:
            await one.load.keep(0)
    for one in busy:
        await one.load.keep(concurrency)
    began_s = time.monotonic()
    found: dict[str, list[Timing]] = {one.tier.name: [] for one in busy}
    tokens, seconds = dict.fromkeys(found, 0.0), dict.fromkeys(found, 0.0)
    while True:
        windows = await asyncio.gather(*(one.load.window(phase_s) for one in busy))
        for one, window in zip(busy, windows, strict=True):
            # On a busy CPU an answer may come in one piece, which says nothing of a token's time.
            whole = [each for each in window.timings if each.began_s >= began_s and each.tpot_s > 0]
            found[one.tier.name] += whole
            tokens[one.tier.name] += window.tok_s * window.seconds
            seconds[one.tier.name] += window.seconds
        took_s = time.monotonic() - began_s
        if all(len(each) >= FEWEST for each in found.values()) or took_s > _LONGEST_S:
            break
    for name, timings in found.items():
        each_s = [one.tpot_s for one in timings]
        if not each_s:
            continue
        facts: dict[str, Any] = {"tier": name, "answers": len(each_s), "tok_s": tokens[name] / seconds[name]}
        facts["tpots_s"] = [round(one, 6) for one in each_s]
        lab.sample("tpot_p50", percentile(each_s, 0.5), "s", arm=arm, block=block, **facts)
        lab.sample("tpot_p95", percentile(each_s, 0.95), "s", arm=arm, block=block, tier=name)
