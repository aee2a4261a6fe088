"""llama.cpp over unequal GPUs; on a machine without two, over threads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from subcortex.config import LlamaCppTier
from subcortex.experiments.catalogue.common.priors import planned
from subcortex.experiments.catalogue.common.tiers import about, gpus_of, local_tiers
from subcortex.experiments.catalogue.split_modes import run as runs
from subcortex.experiments.catalogue.split_modes.arms import (
    NO_SPLIT,
    SplitArm,
    shares_of,
    split_arms,
    worth_repeating,
)
from subcortex.experiments.catalogue.split_modes.report import measured, split_report
from subcortex.experiments.catalogue.split_modes.thread_report import (
    BATCH,
    GENERATION,
    PROMPT,
    best_threads,
    thread_counts,
    thread_report,
)
from subcortex.experiments.catalogue.split_modes.thread_sweep import how, sweep, sweep_batches
from subcortex.experiments.certificate import certificate
from subcortex.experiments.choice import NOISES, believed
from subcortex.experiments.experiment import Experiment, Inquiry, Needs, Report
from subcortex.experiments.laboratory.lab import Lab
from subcortex.experiments.laboratory.llama_output import BENCH
from subcortex.experiments.scene import Scene
from subcortex.experiments.statistics import Interval

#: A split by layers works on one GPU at a time; by rows or tensors on both, less what they tell each other.
_RATIO = Interval(0.4, 1.6, 0.9)
#: Seconds that a tool takes beside loading, and what a GiB of weights adds from a warm page cache.
_TOOL_S, _A_GIB_S = 3.0, 0.4
#: Tokens a second of a CPU for a GiB of weights.
_CPU_TOKENS_GIB_S = 10.0


class SplitModes(Experiment):
    """Speed, memory, load time and answers of llama.cpp by split; small: its threads and batches."""

    number: ClassVar[int] = 8
    name: ClassVar[str] = "split_modes"
    question: ClassVar[str] = "How does llama.cpp do over unequal GPUs?"
    kinds: ClassVar[frozenset[str]] = frozenset({"split_modes"})

    def why_not(self, scene: Scene) -> str | None:
        """Return why there is nothing to sweep."""
        tiers = _tiers(scene)
        if not tiers:
            return "no tier runs on llama.cpp here"
        if any(_over_gpus(scene, tier) or _over_threads(scene, tier) for tier in tiers):
            return None
        if len(scene.hardware.gpus) >= 2:
            return f"{BENCH} is not installed (set [experiments] tools_dir), and it does the measuring"
        return "a split needs two GPUs, and a sweep of threads two cores"

    def inquiries(self, scene: Scene) -> Sequence[Inquiry]:
        """Return one a tier on llama.cpp."""
        return [
            self._of_gpus(scene, tier) if _over_gpus(scene, tier) else self._of_threads(scene, tier)
            for tier in _tiers(scene)
            if _over_gpus(scene, tier) or _over_threads(scene, tier)
        ]

    def _of_gpus(self, scene: Scene, tier: LlamaCppTier) -> Inquiry:
        gpus = _two(scene, tier)
        arms = split_arms(gpus, shares_of(scene.hardware, gpus))
        again = sum(map(worth_repeating, arms))
        # Each is loaded for the bench and for its divergence, and most for another bench or two.
        loads = 2 * len(arms) + 1 + (runs.PASSES - 1) * again
        return Inquiry(
            experiment=self.name,
            subject=tier.name,
            question=f"How fast is {about(tier)} split by {arms[1].name} over two GPUs, against one?",
            quantity="speed_ratio",
            about=about(tier),
            unit="x",
            prior=believed(_RATIO),
            noise=NOISES["steady"],
            worth=1.0,
            minutes=loads * (_TOOL_S + _A_GIB_S * _weights_gib(scene, tier)) / 60,
            needs=Needs(gpus=2),
            depends_on=certificate(
                scene, tier=tier, gpus=gpus, arms=[arm.name for arm in arms], tool=scene.versions.get(BENCH)
            ),
        )

    def _of_threads(self, scene: Scene, tier: LlamaCppTier) -> Inquiry:
        counts = thread_counts(scene.hardware.cores)
        visit_s = (_TOOL_S + 60 * _weights_gib(scene, tier)) / _CPU_TOKENS_GIB_S
        return Inquiry(
            experiment=self.name,
            subject=tier.name,
            question=f"With how many of {scene.hardware.cores} threads is {about(tier)} fastest?",
            quantity="threads",
            about=about(tier),
            unit="threads",
            prior=believed(Interval(0.9, scene.hardware.cores + 0.1, 0.9)),
            noise=NOISES["timed"],
            worth=1.0,
            minutes=max(0.1, 8 * len(counts) * visit_s / 60),
            needs=Needs(host_mib=2048 * _weights_gib(scene, tier)),
            depends_on=certificate(scene, tier=tier, threads=counts, tool=scene.versions.get(BENCH)),
        )

    async def run(self, lab: Lab, inquiry: Inquiry) -> Report:
        """Sweep the splits, or the threads."""
        tier = lab.scene.config.tier(inquiry.subject)
        assert isinstance(tier, LlamaCppTier), "no inquiry is made of another engine's tier"
        if _over_gpus(lab.scene, tier):
            return await _over_both(lab, tier)
        counts = thread_counts(lab.scene.hardware.cores)
        now = min(tier.threads or lab.scene.hardware.cores, lab.scene.hardware.cores)
        counts = sorted({*counts, now})
        await sweep(lab, tier, counts, now)
        best, _ = best_threads(lab.readings(GENERATION), counts)
        await sweep_batches(lab, tier, best)
        readings = [one for metric in (GENERATION, PROMPT, BATCH) for one in lab.readings(metric)]
        return thread_report(readings, counts, now=now, model=about(tier), tier=tier.name, how=how(lab))


async def _over_both(lab: Lab, tier: LlamaCppTier) -> Report:
    scene = lab.scene
    gpus = _two(scene, tier)
    arms = split_arms(gpus, shares_of(scene.hardware, gpus))
    await lab.cool()
    noticed = await runs.measure(lab, scene.config.resolve(tier.model), arms)
    readings = [one for metric in runs.METRICS for one in lab.readings(metric)]
    found = measured(readings, arms)
    return split_report(
        found, model=about(tier), tier=tier.name, configured=configured(tier, arms).name, noticed=noticed
    )


def configured(tier: LlamaCppTier, arms: Sequence[SplitArm]) -> SplitArm:
    """Return the arm that a tier's configuration comes nearest to; llama.cpp itself splits by layers."""
    if tier.split_mode == "none" or (tier.gpus is not None and len(tier.gpus) < 2):
        return next(arm for arm in arms if arm.name == NO_SPLIT)
    mode = tier.split_mode or "layer"
    of_mode = [arm for arm in arms if arm.mode == mode]
    shares = tier.tensor_split
    if shares is None or len(shares) < 2 or shares[0] == shares[1]:
        return next(arm for arm in of_mode if arm.shares[0] == arm.shares[1])
    return of_mode[0]


def _tiers(scene: Scene) -> list[LlamaCppTier]:
    return [tier for tier in local_tiers(scene) if isinstance(tier, LlamaCppTier)]


def _over_gpus(scene: Scene, tier: LlamaCppTier) -> bool:
    return BENCH in scene.tools and len(_two_at_most(scene, tier)) == 2


def _over_threads(scene: Scene, tier: LlamaCppTier) -> bool:
    return scene.hardware.cores > 1 and not gpus_of(scene, tier)


def _two_at_most(scene: Scene, tier: LlamaCppTier) -> tuple[int, ...]:
    """Return the GPUs that the tools would take: the tier's, or the first ones, whatever its engine is."""
    there = [gpu.index for gpu in scene.hardware.gpus]
    wanted = there if tier.gpus is None or len(tier.gpus) < 2 else tier.gpus
    return tuple(index for index in wanted if index in there)[:2]


def _two(scene: Scene, tier: LlamaCppTier) -> tuple[int, int]:
    a, b = _two_at_most(scene, tier)
    return a, b


def _weights_gib(scene: Scene, tier: LlamaCppTier) -> float:
    found = planned(scene, tier)
    return found.weights_mib / 1024 if found else 1.0
