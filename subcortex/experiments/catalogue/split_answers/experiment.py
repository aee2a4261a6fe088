"""Does a model say the same when it is split?"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from subcortex.config import LlamaCppTier
from subcortex.errors import SubcortexError
from subcortex.experiments.catalogue.common.fixed_text import BEGINNINGS
from subcortex.experiments.catalogue.common.priors import planned
from subcortex.experiments.catalogue.common.tiers import (
    LocalTier,
    about,
    boot_s,
    gpus_of,
    local_tier,
    local_tiers,
)
from subcortex.experiments.catalogue.split_answers.report import FLOOR, NEXT, SPLIT, TURNS, places, report
from subcortex.experiments.certificate import certificate
from subcortex.experiments.choice import guessed
from subcortex.experiments.experiment import Answer, Experiment, Inquiry, Needs, Report
from subcortex.experiments.laboratory.engines import Served
from subcortex.experiments.laboratory.lab import Lab
from subcortex.experiments.laboratory.next_tokens import best, read, request
from subcortex.experiments.laboratory.streams import posted
from subcortex.experiments.scene import Scene

#: Nats, of a median over the beginnings.
_NOISE_NATS = 0.001
#: The first answer after a start may have kernels compiled for it.
_ANSWER_LIMIT_S, _ANSWER_S = 60.0, 0.15
#: Of a GPU's memory, what weights may take of one alone.
_SHARE = 0.85


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to run a model: its name in samples, and the tier that is started for it."""

    name: str
    tier: LocalTier


def arms_of(scene: Scene, tier: LocalTier) -> tuple[Arm, Arm] | None:
    """Return a tier whole and split in two; None where this machine cannot have both.

    On GPUs vLLM is split by tensors and llama.cpp by layers. On a CPU vLLM's ranks are processes with a core
    each, and llama.cpp has one thread or two.
    """
    if isinstance(tier, LlamaCppTier):
        gpus = list(gpus_of(scene, tier))[:2]
        if len(gpus) == 2:
            whole = tier.model_copy(update={"gpus": gpus[:1], "split_mode": "none", "tensor_split": None})
            split = tier.model_copy(update={"gpus": gpus, "split_mode": "layer", "tensor_split": None})
            return Arm("one GPU", whole), Arm("two GPUs", split)
        if scene.hardware.cores < 2:
            return None
        threads = [tier.model_copy(update={"threads": n}) for n in (1, 2)]
        return Arm("1 thread", threads[0]), Arm("2 threads", threads[1])
    ranks = [tier.model_copy(update={"tensor_parallel_size": n, "pipeline_parallel_size": 1}) for n in (1, 2)]
    if scene.on_gpus:
        if len(gpus_of(scene, ranks[1])) < 2:
            return None
    elif scene.hardware.cores < 2:
        return None
    else:
        ranks = [
            one.model_copy(update={"env": {**one.env, "VLLM_CPU_OMP_THREADS_BIND": cores}})
            for one, cores in zip(ranks, ("0", "0|1"), strict=True)
        ]
    return Arm("TP=1", ranks[0]), Arm("TP=2", ranks[1])


class SplitAnswers(Experiment):
    """Next-token distributions of a model whole and split, against those of the same twice."""

    number: ClassVar[int] = 10
    name: ClassVar[str] = "split_answers"
    question: ClassVar[str] = "Does a split change the answer?"
    kinds: ClassVar[frozenset[str]] = frozenset({"split_answers"})

    def why_not(self, scene: Scene) -> str | None:
        """Return why nothing can be compared."""
        tiers = local_tiers(scene)
        if not tiers:
            return "no tier runs on this machine"
        if all(arms_of(scene, tier) is None for tier in tiers):
            return "a split needs two GPUs, or two cores where there is no GPU"
        if not self.inquiries(scene):
            return "no tier's model fits on one GPU alone, so there is nothing to compare a split with"
        return None

    def inquiries(self, scene: Scene) -> Sequence[Inquiry]:
        """Return one a tier that runs whole as well as split."""
        return [found for tier in local_tiers(scene) if (found := self._inquiry(scene, tier)) is not None]

    def _inquiry(self, scene: Scene, tier: LocalTier) -> Inquiry | None:
        arms = arms_of(scene, tier)
        if arms is None:
            return None
        found = planned(scene, tier)
        weights_mib = found.weights_mib if found else None
        gpus = gpus_of(scene, arms[1].tier)
        smallest = min(
            (gpu.memory_total_mib for gpu in scene.hardware.gpus if gpu.index in gpus), default=None
        )
        if smallest is not None and weights_mib is not None and weights_mib > _SHARE * smallest:
            return None
        boots_s = sum(boot_s(scene, arm.tier, weights_mib) for arm in arms)
        return Inquiry(
            experiment=self.name,
            subject=tier.name,
            question=f"Does {about(tier)} say the same with {arms[1].name} as with {arms[0].name}?",
            quantity="divergence",
            about=about(tier),
            unit="nats",
            prior=guessed("divergence"),
            noise=_NOISE_NATS,
            worth=1.0,
            minutes=(boots_s + len(arms) * len(TURNS) * len(BEGINNINGS) * _ANSWER_S) / 60,
            needs=Needs(gpus=len(gpus), host_mib=0.0 if gpus else 2 * (weights_mib or 0.0), alone=False),
            depends_on=certificate(
                scene,
                tier=tier,
                arms=[arm.name for arm in arms],
                beginnings=hashlib.sha256("\0".join(BEGINNINGS).encode()).hexdigest()[:16],
            ),
        )

    async def run(self, lab: Lab, inquiry: Inquiry) -> Report:
        """Ask both arms for the next token of every beginning, twice."""
        tier = local_tier(lab.scene, inquiry.subject)
        arms = arms_of(lab.scene, tier)
        assert arms is not None, "no inquiry is made of a tier that cannot be split"
        for place, arm in enumerate(arms):
            if all(_missing(lab, arm, turn) == [] for turn in TURNS):
                continue
            if lab.seconds_left <= 0 and lab.metrics:
                break
            lab.say(f"{tier.name} with {arm.name}", place / len(arms))
            try:
                async with lab.engine(arm.tier) as served:
                    for turn in TURNS:
                        await _ask(lab, arm, served, turn)
            except SubcortexError as error:
                return _failed(arm, about(tier), tier.name, error)
        a, b = arms[0].name, arms[1].name
        found = places(lab.readings(NEXT), a, b)
        if not found:
            return _unasked(about(tier), tier.name, a, b)
        kept = {one.block for one in lab.readings(SPLIT)}
        for one in found:
            if one.prompt not in kept:
                lab.sample(FLOOR, one.floor_nats, "nats", arm="same", block=one.prompt)
                lab.sample(SPLIT, one.split_nats, "nats", arm="split", block=one.prompt)
        return report(found, a=a, b=b, model=about(tier), tier=tier.name)


async def _ask(lab: Lab, arm: Arm, served: Served, turn: int) -> None:
    for prompt in _missing(lab, arm, turn):
        body = request(served.name, BEGINNINGS[prompt], salt=f"{arm.name} {turn} {prompt}")
        top = read(await posted(served.socket, "/v1/completions", body, limit_s=_ANSWER_LIMIT_S))
        said = best(top)
        lab.sample(NEXT, top[said], "nats", arm=arm.name, block=prompt, turn=turn, token=said, top=top)


def _missing(lab: Lab, arm: Arm, turn: int) -> list[int]:
    """Return the beginnings that an arm has yet to be asked for."""
    done = {one.block for one in lab.readings(NEXT, arm=arm.name, turn=turn)}
    return [prompt for prompt in range(len(BEGINNINGS)) if prompt not in done]


def _unasked(model: str, tier: str, a: str, b: str) -> Report:
    """Return that time was over before both arms had been asked for one beginning twice."""
    words = f"time was over before {a} and {b} had both been asked for one beginning twice"
    return Report(
        (
            Answer(
                quantity="divergence",
                about=model,
                unit="nats",
                outcome="inconclusive",
                statement=f"{model}: inconclusive; {words}",
                tier=tier,
                gap_kind="split_answers",
            ),
        )
    )


def _failed(arm: Arm, model: str, tier: str, error: SubcortexError) -> Report:
    """Return that one arm would not run: then there is nothing to compare, and that is the answer."""
    log = str(error.details.get("log_tail") or "").strip().splitlines()
    said = (error.message, *log[-3:])
    return Report(
        (
            Answer(
                quantity="divergence",
                about=model,
                unit="nats",
                outcome="failed",
                statement=f"{model} does not run with {arm.name}: {error.message}",
                tier=tier,
                gap_kind="split_answers",
            ),
        ),
        noticed=(f"{model} with {arm.name} ended: {' / '.join(said)}",),
    )
