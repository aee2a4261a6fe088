"""Whether a tier can start at all: its engine, its model's files, its memory, its tokenizer."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from subcortex import engines
from subcortex.config import LlamaCppTier, VllmTier
from subcortex.errors import ConfigError, EngineFailed, SubcortexError
from subcortex.experiments.catalogue.common.machine import sampled
from subcortex.experiments.catalogue.common.tiers import LocalTier, about, gpus_of, local_tier, local_tiers
from subcortex.experiments.certificate import certificate, engine_version
from subcortex.experiments.choice import NOISES, Belief
from subcortex.experiments.experiment import Answer, Experiment, Inquiry, Outcome, Report
from subcortex.experiments.laboratory.lab import Lab
from subcortex.experiments.laboratory.surroundings import tier_interpreter
from subcortex.experiments.scene import Scene
from subcortex.models.read import read_shape
from subcortex.vram.plan import Estimator, plan
from subcortex.vram.plan.from_config import ask_from
from subcortex.vram.plan.real import Estimates

_LIMIT_S = 240.0
_EXPECTED_S = {"vllm": 25.0, "llama.cpp": 3.0}
#: Before a check's name, in samples.
_METRIC = "startup "
CHECKS = ("files", "fits", "cuda", "tokenizer", "engine")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that a start needs, and what was found of it."""

    name: str
    ok: bool
    words: str


class Startup(Experiment):
    """Checks before a start, each of which passes or says why not."""

    number: ClassVar[int] = 12
    name: ClassVar[str] = "startup"
    question: ClassVar[str] = "Can each tier start: engine, CUDA, model's files, memory, tokenizer?"
    kinds: ClassVar[frozenset[str]] = frozenset({"startup"})

    def why_not(self, scene: Scene) -> str | None:
        """Return why there is nothing to check."""
        return None if local_tiers(scene) else "no tier runs on this machine"

    def inquiries(self, scene: Scene) -> Sequence[Inquiry]:
        """Return one a tier."""
        return [
            Inquiry(
                experiment=self.name,
                subject=tier.name,
                question=f"Can {tier.name} ({about(tier)} on {tier.engine}) start here?",
                quantity="startup",
                about=about(tier),
                unit="%",
                # Share of the checks that pass.
                prior=Belief(100.0, 20.0, "normal"),
                noise=NOISES["exact"],
                worth=1.0,
                minutes=_EXPECTED_S[tier.engine] / 60,
                depends_on=certificate(scene, tier=tier),
            )
            for tier in local_tiers(scene)
        ]

    async def run(self, lab: Lab, inquiry: Inquiry) -> Report:
        """Look at the model's files, the plan and the engine, one after the other."""
        tier = local_tier(lab.scene, inquiry.subject)
        if lab.seconds_left <= 0 and (before := _checked(lab)):
            return report_of(tier, before)
        lab.say(f"{tier.name}: model and memory")
        checks = [files_check(lab.scene, tier), await asyncio.to_thread(fits_check, lab.scene, tier)]
        _keep(lab, checks)
        lab.say(f"{tier.name}: engine", 0.3)
        _keep(lab, found := await _engine_checks(lab, tier))
        return report_of(tier, [*checks, *found])


def _keep(lab: Lab, checks: Sequence[Check]) -> None:
    for check in checks:
        lab.sample(f"{_METRIC}{check.name}", 100.0 if check.ok else 0.0, "%", words=check.words)


def _checked(lab: Lab) -> list[Check]:
    """Return what an earlier life of the run has checked, the latest of each."""
    last = [lab.readings(metric)[-1] for metric in lab.metrics if metric.startswith(_METRIC)]
    return [
        Check(one.metric.removeprefix(_METRIC), one.value > 0, str(one.facts.get("words", "")))
        for one in last
    ]


async def _engine_checks(lab: Lab, tier: LocalTier) -> list[Check]:
    if isinstance(tier, LlamaCppTier) and tier.executable is not None:
        version = engine_version(lab.scene, tier)
        words = f"llama-server {version}" if version else f"{tier.executable} does not answer --version"
        return [Check("engine", version is not None, words)]
    config = lab.scene.config
    python = tier_interpreter(tier, config) if isinstance(tier, VllmTier) else Path(sys.executable)
    if python is None:
        named = tier.python or tier.executable if isinstance(tier, VllmTier) else None
        return [Check("engine", False, f"{named or 'a vllm command'} is not there or cannot be run")]
    asked = ["--package", "vllm" if isinstance(tier, VllmTier) else "xllamacpp"]
    if isinstance(tier, VllmTier):
        asked += ["--cuda"] if lab.scene.on_gpus else []
        # A GGUF's tokenizer is part of it, which llama.cpp checks as it loads.
        asked += ["--tokenizer", str(_folder(lab.scene, tier))]
    try:
        lines = lab.probe(
            "startup",
            *asked,
            limit_s=_LIMIT_S,
            python=python,
            env=engines.environment(tier, config=config),
        )
        found = await sampled(lab, lines)
    except EngineFailed as error:
        return [Check("engine", False, error.message)]
    checks = [Check(str(one["check"]), bool(one["ok"]), str(one["words"])) for one in found if "check" in one]
    built = next((one.get("cuda") for one in found if one.get("check") == "cuda"), None)
    driver = lab.scene.hardware.cuda_version
    if built and driver and int(str(built).split(".")[0]) > driver[0]:
        runs = ".".join(map(str, driver))
        checks.append(Check("cuda", False, f"torch is built for CUDA {built}, and the driver runs {runs}"))
    return checks


def _folder(scene: Scene, tier: LocalTier) -> Path | str:
    path = scene.config.resolve(tier.model)
    return path if path.exists() else tier.model


def files_check(scene: Scene, tier: LocalTier) -> Check:
    """Return whether a model's files can be read, headers and all."""
    try:
        shape = read_shape(_folder(scene, tier), name=tier.model)
    except SubcortexError as error:
        return Check("files", False, error.message)
    if shape.notes and any("not there" in note for note in shape.notes):
        return Check("files", False, shape.notes[0])
    mib = shape.weights_bytes / 2**20
    size = f"{mib / 1024:.3g} GiB" if mib >= 1024 else f"{mib:.3g} MiB"
    return Check("files", True, f"{shape.architecture}, {size} of weights")


def fits_check(scene: Scene, tier: LocalTier) -> Check:
    """Return whether the planner finds room for a tier on the machine as it is, alone."""
    try:
        shape = read_shape(_folder(scene, tier), name=tier.model)
        estimates: Estimator = Estimates(scene.hardware)
        plan([ask_from(tier, shape)], scene.hardware, estimates)
    except ConfigError as error:
        return Check("fits", False, f"cannot be planned: {error.message}")
    except SubcortexError as error:
        return Check("fits", False, error.message)
    where = (
        f"GPU {', '.join(map(str, gpus_of(scene, tier)))}" if gpus_of(scene, tier) else "the host's memory"
    )
    return Check("fits", True, f"fits into {where}")


def report_of(tier: LocalTier, checks: Sequence[Check]) -> Report:
    """Return what checks came to."""
    wrong = [check for check in checks if not check.ok]
    passed = len(checks) - len(wrong)
    outcome: Outcome = "failed" if wrong else "passed"
    if not wrong and not any(check.name == "engine" for check in checks):
        outcome = "inconclusive"
        statement = (
            f"Whether {tier.name} can start is inconclusive: {passed} checks passed, and time was over "
            "before its engine was looked at."
        )
    elif wrong:
        statement = f"{tier.name} cannot start as it should: {wrong[0].words.rstrip('.')}."
    else:
        statement = f"{tier.name} can start: all {passed} checks passed."
    answer = Answer(
        quantity="startup",
        about=about(tier),
        unit="%",
        outcome=outcome,
        statement=statement,
        value=100.0 * passed / len(checks),
        n=len(checks),
        tier=tier.name,
        details={"checks": {check.name: {"ok": check.ok, "words": check.words} for check in checks}},
    )
    return Report((answer,), tuple(f"{check.name}: {check.words.rstrip('.')}." for check in checks))
