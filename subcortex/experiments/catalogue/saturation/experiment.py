"""Where batching saturates: how many requests at once a model's throughput grows with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from subcortex.config import LlamaCppTier
from subcortex.engines._flags import last_value
from subcortex.experiments.catalogue.common.tiers import (
    LocalTier,
    about,
    boot_s,
    gpus_of,
    local_tier,
    local_tiers,
)
from subcortex.experiments.catalogue.saturation.report import End, report
from subcortex.experiments.certificate import certificate
from subcortex.experiments.choice import NOISES, guessed
from subcortex.experiments.experiment import Experiment, Inquiry, Needs, Report
from subcortex.experiments.laboratory.aside import aside
from subcortex.experiments.laboratory.ceiling import ceiling
from subcortex.experiments.laboratory.lab import Lab
from subcortex.experiments.laboratory.load import Endpoint, Load, answer, middle
from subcortex.experiments.laboratory.record import Reading
from subcortex.experiments.saturation import Limits, Measure, Measured, next_step
from subcortex.experiments.scene import Scene


@dataclass(frozen=True, slots=True)
class Scale:
    """How large the requests are, and how long a window.

    Args:
        tokens: Of a question, and again of its answer at the most, under load.
        alone_tokens: Of an answer alone; its question is as long as under load.
        alone: How many answers alone.
        most: Requests at once at the most; no engine works on more unless its flags say so.
        window_s: Of the ladder; shorter where little time is left, but no shorter than ``least_window_s``:
            a window is to hold several steps of the engine, also one that reads the prompts of many requests.
            Of many at once it is longer: it lasts until as many answers have ended, or a multiple.
        most_s: Seconds of windows after which the ladder gives up.
        around: Requests at once where a knee is expected, for the prior.
        minutes: Of measuring.
    """

    tokens: int
    alone_tokens: int
    alone: int
    most: int
    window_s: float
    least_window_s: float
    most_s: float
    around: float
    minutes: float


ON_GPUS = Scale(
    tokens=128, alone_tokens=64, alone=7, most=1024, window_s=2.0, least_window_s=1.0, most_s=400.0,
    around=48.0, minutes=8.0,
)  # fmt: skip
ON_CPU = Scale(
    tokens=64, alone_tokens=160, alone=7, most=256, window_s=0.5, least_window_s=0.5, most_s=60.0,
    around=6.0, minutes=1.5,
)  # fmt: skip
#: Windows until a ladder to a thousand is over, and what share of the time they are: changing the size takes
#: the rest, of a 70B a third.
_WINDOWS, _MEASURING_SHARE = 80, 0.8
#: Slots that llama.cpp is started with: more than configured, so that a knee beyond those shows.
SLOTS = 16
_SEQUENCES = "--max-num-seqs"
#: What a request has besides its question and answer (the mark of a beginning), and time to stop in.
_SPARE_TOKENS, _SPARE_S = 8, 8.0
#: Seconds that the ladder asks for and that are not worth a window, as a share of one: clocks are not exact.
_CLOCKS = 0.01


class Saturation(Experiment):
    """The knee of throughput against requests at once, for each tier that runs here."""

    number: ClassVar[int] = 11
    name: ClassVar[str] = "saturation"
    question: ClassVar[str] = "From how many requests at once on does a model's throughput grow no more?"
    kinds: ClassVar[frozenset[str]] = frozenset({"saturation"})
    #: 2: lengths of answers vary. 3: windows last for whole waves; out of time, what is known is told.
    #: 4: sizes change as answers end; windows of one visit count as one.
    method: ClassVar[int] = 4

    def why_not(self, scene: Scene) -> str | None:
        """Return why there is nothing to measure."""
        return None if local_tiers(scene) else "no tier runs on this machine"

    def inquiries(self, scene: Scene) -> Sequence[Inquiry]:
        """Return one a tier."""
        return [self._inquiry(scene, tier) for tier in local_tiers(scene)]

    def _inquiry(self, scene: Scene, tier: LocalTier) -> Inquiry:
        gpus, scale, measured = gpus_of(scene, tier), scale_of(scene, tier), as_measured(scene, tier)
        return Inquiry(
            experiment=self.name,
            subject=tier.name,
            question=f"From how many requests at once on does the throughput of {about(tier)} grow no more?",
            quantity="requests",
            about=about(tier),
            unit="requests",
            prior=guessed("concurrency", scale.around),
            noise=NOISES["loaded"],
            worth=1.0,
            minutes=scale.minutes + boot_s(scene, tier, None) / 60,
            needs=Needs(gpus=len(gpus)),
            depends_on=certificate(
                scene, tier=measured, gpus=gpus, tokens=scale.tokens, most=most_of(measured, scale.most)
            ),
        )

    async def run(self, lab: Lab, inquiry: Inquiry) -> Report:
        """Ask alone first; then let the ladder say how many at once, until it knows the knee."""
        configured = local_tier(lab.scene, inquiry.subject)
        tier, scale = as_measured(lab.scene, configured), asked_scale(lab.scene, configured, inquiry)
        tokens, most = tokens_of(tier, scale), most_of(tier, scale.most)
        seen = lab.readings("tok_s")
        end = await _ended(seen, _limits(lab, scale, most))
        lacking = end is None or len(lab.readings("tpot")) < scale.alone
        if lacking and (not lab.metrics or lab.seconds_left > (_SPARE_S if seen else 0)):
            async with lab.engine(tier) as served:
                endpoint = await Endpoint.of(served)
                pool = served.figures.kv_tokens if served.figures else None
                if pool and not lab.readings("kv_tokens"):
                    lab.sample("kv_tokens", pool, "tokens")
                await _alone(lab, endpoint, tokens, alone_tokens_of(tier, scale), scale.alone)
                end = await _climbed(lab, endpoint, tokens, _limits(lab, scale, most))
        if end is None:
            windows = [as_measured_window(one) for one in lab.readings("tok_s")]
            end = await asyncio.to_thread(known, windows, _limits(lab, scale, most))
        reach = max((int(one.facts["concurrency"]) for one in lab.readings("tok_s")), default=1)
        if not lab.readings("client ceiling", concurrency=reach) and lab.seconds_left > 0:
            lab.sample("client ceiling", await ceiling(reach), "tokens/s", concurrency=reach)
        readings = [
            one
            for metric in ("tok_s", "ttft", "tpot", "client ceiling", "kv_tokens")
            for one in lab.readings(metric)
        ]
        return report(readings, configured, tier, end, most=most, tokens=tokens)


def scale_of(scene: Scene, tier: LocalTier) -> Scale:
    """Return how large a tier's requests are where it runs."""
    return ON_GPUS if gpus_of(scene, tier) else ON_CPU


def asked_scale(scene: Scene, tier: LocalTier, inquiry: Inquiry) -> Scale:
    """Return the scale that an inquiry was made at, which may be an older one's."""
    asked = {name: inquiry.depends_on[name] for name in ("tokens", "most") if name in inquiry.depends_on}
    return replace(scale_of(scene, tier), **asked)


def as_measured(scene: Scene, tier: LocalTier) -> LocalTier:
    """Return the tier as it is started: llama.cpp with more slots, each as long as a request needs."""
    if not isinstance(tier, LlamaCppTier):
        return tier
    slots = max(SLOTS, tier.parallel)
    scale = scale_of(scene, tier)
    context_tokens = max(64, scale.tokens + max(scale.tokens, scale.alone_tokens) + _SPARE_TOKENS)
    changes = {"parallel": slots, "max_concurrent": max(slots, tier.max_concurrent)}
    return tier.model_copy(update=changes | {"context_tokens": context_tokens})


def most_of(tier: LocalTier, most: int) -> int:
    """Return how many requests a tier's engine works on at once, as it is started; ``most`` at most."""
    if isinstance(tier, LlamaCppTier):
        return min(most, tier.parallel)
    given = last_value(tier.flags, _SEQUENCES)
    return min(most, int(given)) if given is not None and given.isdecimal() and int(given) > 0 else most


def limits_of(
    scale: Scale, most: int, *, left_s: float, spent_s: float, window_s: float | None = None
) -> Limits:
    """Return what the ladder may do in the time that is left.

    Args:
        scale: Of the requests.
        most: Requests at once.
        left_s: For windows and all between them.
        spent_s: Of windows in an earlier life of the run.
        window_s: That was asked of those; None without any.
    """
    measuring_s = max(0.0, _MEASURING_SHARE * left_s) + spent_s
    if window_s is None:
        window_s = min(scale.window_s, max(scale.least_window_s, measuring_s / _WINDOWS))
    return Limits(most, window_s, min(scale.most_s, measuring_s))


def _limits(lab: Lab, scale: Scale, most: int) -> Limits:
    seen = lab.readings("tok_s")
    asked = [float(one.facts.get("asked_s", one.facts["seconds"])) for one in seen]
    spent_s = sum(float(one.facts["seconds"]) for one in seen)
    left_s = lab.seconds_left - _SPARE_S
    return limits_of(scale, most, left_s=left_s, spent_s=spent_s, window_s=min(asked, default=None))


async def _ended(seen: Sequence[Reading], limits: Limits) -> End:
    """Return how the ladder has ended with what was measured before; None where it goes on."""
    step = await asyncio.to_thread(next_step, [as_measured_window(one) for one in seen], limits)
    return None if isinstance(step, Measure) else step


def tokens_of(tier: LocalTier, scale: Scale) -> int:
    """Return how many tokens a question and its answer may have, each."""
    if tier.context_tokens is None:
        return scale.tokens
    return max(2, min(scale.tokens, (tier.context_tokens - _SPARE_TOKENS) // 2))


def alone_tokens_of(tier: LocalTier, scale: Scale) -> int:
    """Return how many tokens an answer alone may have."""
    if tier.context_tokens is None:
        return scale.alone_tokens
    return max(2, min(scale.alone_tokens, tier.context_tokens - _SPARE_TOKENS - tokens_of(tier, scale)))


def known(seen: Sequence[Measured], limits: Limits) -> End:
    """Return what windows say of the knee if none is to follow; None where the ladder has not got there."""
    spent_s = sum(one.seconds for one in seen)
    step = next_step(seen, replace(limits, most_s=spent_s))
    return None if isinstance(step, Measure) else step


async def climb(
    load: Load,
    limits: Limits,
    seen: list[Measured],
    *,
    keep: Callable[[Measured, dict[str, float]], None],
    seconds_left: Callable[[], float],
) -> End:
    """Let the ladder climb a load: what it asks for is measured and added, until it stops.

    Args:
        load: Of the model.
        limits: What the ladder may do.
        seen: Windows so far; more are appended.
        keep: Told of each window as it comes, with the medians of the answers that ended in it.
        seconds_left: What is left of the time; without enough for a step it breaks off.

    Returns:
        The ladder's end; None where time was over before it.
    """
    async with aside(next_step) as reckoned:
        while True:
            # A second of arithmetic at most, and the load goes on meanwhile.
            step = await reckoned(tuple(seen), limits)
            if not isinstance(step, Measure):
                return step
            if seconds_left() <= max(step.seconds, limits.window_s) + _SPARE_S:
                return None
            await load.keep(step.concurrency, most_s=seconds_left() - _SPARE_S)
            wanted_s = step.seconds
            # A window may be longer than was asked for, so that fewer of them are enough.
            while wanted_s > _CLOCKS * limits.window_s and seconds_left() > limits.window_s + _SPARE_S:
                window = await load.window(limits.window_s, most_s=seconds_left() - _SPARE_S)
                if not window.whole and seconds_left() < limits.window_s + _SPARE_S:
                    return None  # time cut it short, and a piece says little
                wanted_s -= window.seconds
                seen.append(Measured(window.concurrency, window.seconds, window.tok_s))
                keep(seen[-1], middle(window.timings))


async def _climbed(lab: Lab, endpoint: Endpoint, tokens: int, limits: Limits) -> End:
    seen = [as_measured_window(one) for one in lab.readings("tok_s")]

    def keep(window: Measured, medians: dict[str, float]) -> None:
        facts: dict[str, Any] = {"concurrency": window.concurrency, "seconds": window.seconds}
        facts["asked_s"] = limits.window_s
        facts |= medians
        lab.sample("tok_s", window.tok_s, "tokens/s", **facts)
        lab.say(f"{window.tok_s:.0f} tok/s at {window.concurrency} at once")

    async with Load.on(endpoint, prompt_tokens=tokens, max_tokens=tokens) as load:
        return await climb(load, limits, seen, keep=keep, seconds_left=lambda: lab.seconds_left)


def as_measured_window(reading: Reading) -> Measured:
    """Return a window that was kept, as the ladder takes it."""
    return Measured(int(reading.facts["concurrency"]), float(reading.facts["seconds"]), reading.value)


async def _alone(lab: Lab, endpoint: Endpoint, tokens: int, answer_tokens: int, number: int) -> None:
    """Take answers one at a time; the first after a start is warm-up."""
    if len(lab.readings("tpot")) >= number:
        return
    await answer(endpoint, prompt_tokens=tokens, max_tokens=answer_tokens)
    for _ in range(3 * number):
        if len(lab.readings("tpot")) >= number:
            return
        found = await answer(endpoint, prompt_tokens=tokens, max_tokens=answer_tokens)
        if found.tpot_s <= 0:
            continue  # on a busy CPU it came in one piece, which says nothing of a token's time
        facts: dict[str, Any] = {"prompt_tokens": found.prompt_tokens, "tokens": found.tokens}
        lab.sample("ttft", found.ttft_s, "s", **facts)
        lab.sample("tpot", found.tpot_s, "s", **facts)
