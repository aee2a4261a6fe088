"""llama.cpp over two GPUs: every arm benched, compared with no split, and watched. Effects."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from subcortex.errors import EngineFailed
from subcortex.experiments.catalogue.common.fixed_text import long_text
from subcortex.experiments.catalogue.split_modes.arms import (
    NO_SPLIT,
    SplitArm,
    hopeless,
    last_words,
    memory_by_gpu,
    worth_repeating,
)
from subcortex.experiments.catalogue.split_modes.report import (
    DIVERGENCE,
    GENERATION,
    LOAD,
    MEMORY,
    PROMPT,
    REFUSED,
)
from subcortex.experiments.laboratory.lab import Lab
from subcortex.experiments.laboratory.llama_output import PERPLEXITY
from subcortex.experiments.laboratory.llama_tools import bench, compare, save_base

PROMPT_TOKENS, GENERATED_TOKENS, REPETITIONS = 512, 64, 3
#: Over the arms; an even split of cards the other way round is looked at once.
PASSES = 3
#: Every second token of these is compared.
CONTEXT_TOKENS, CHUNKS = 256, 4
_CHARACTERS = 6 * CONTEXT_TOKENS * CHUNKS
METRICS = (GENERATION, PROMPT, LOAD, MEMORY, DIVERGENCE, REFUSED)
#: The first load may come from a cold disk.
_FIRST_LIMIT_S, _LIMIT_S = 180.0, 60.0
_LOOK_EVERY_S = 0.1
_OVER_S = 0.5
#: What an arm takes where none has been measured yet.
_ARM_GUESS_S = 15.0


@dataclass(slots=True)
class Watched:
    """What the cards showed while a tool ran."""

    before_mib: dict[int, float] = field(default_factory=dict)
    most_mib: dict[int, float] = field(default_factory=dict)
    clocks_mhz: list[float] = field(default_factory=list)
    hottest_c: float | None = None
    throttled_for: str = ""

    def facts(self) -> dict[str, Any]:
        """Return it as it is kept beside the samples."""
        found: dict[str, Any] = {}
        if self.clocks_mhz:
            found["sm_clock_mhz"] = median(self.clocks_mhz)
        if self.hottest_c is not None:
            found["temperature_c"] = self.hottest_c
        if self.throttled_for:
            found["throttled_for"] = self.throttled_for
        return found


@asynccontextmanager
async def watching(lab: Lab) -> AsyncIterator[Watched]:
    """Look at the cards ten times a second for as long as the block runs."""
    found = Watched(before_mib=lab.sensors.memory_used_mib())

    async def look() -> None:
        while True:
            for index, used in lab.sensors.memory_used_mib().items():
                found.most_mib[index] = max(found.most_mib.get(index, 0.0), used)
            seen = lab.sensors.read()
            for gpu in seen.gpus:
                # Idle cards among them would tell of other clocks than those that worked.
                if gpu.get("sm_clock_mhz") and "idle" not in gpu.get("clock_reasons", ()):
                    found.clocks_mhz.append(gpu["sm_clock_mhz"])
                if gpu.get("temperature_c") is not None:
                    found.hottest_c = max(found.hottest_c or 0.0, gpu["temperature_c"])
            found.throttled_for = found.throttled_for or seen.throttled_for
            await asyncio.sleep(_LOOK_EVERY_S)

    task = asyncio.create_task(look())
    try:
        yield found
    finally:
        task.cancel()
        await asyncio.wait({task})


async def measure(lab: Lab, model: Path, arms: Sequence[SplitArm]) -> list[str]:
    """Sample all arms as far as time allows, the most worth knowing first; return what was left out.

    First every arm is benched once, then compared with no split, then most are benched again, the other way
    round and back. An arm that is refused is not asked again, and neither is its reverse.
    """
    todo = _Todo(lab, model)
    for arm in arms:
        await todo.bench(arm, 0)
    if PERPLEXITY in lab.scene.tools:
        await todo.compare_all(arms)
    else:
        todo.left_out.append(f"{PERPLEXITY} is not installed, so nothing is known of the answers")
    for turn in range(1, PASSES):
        again = [arm for arm in arms if worth_repeating(arm)]
        for arm in again if turn % 2 == 0 else again[::-1]:
            await todo.bench(arm, turn)
    return todo.said()


class _Todo:
    """One run through the arms."""

    def __init__(self, lab: Lab, model: Path) -> None:
        self.left_out: list[str] = []
        self._lab = lab
        self._model = model
        #: What there was no time for, by what it was: a pass, or divergences.
        self._untimely: dict[str, list[str]] = {}
        self._longest_s = 0.0

    def said(self) -> list[str]:
        """Return what was left out, in sentences."""
        late = [f"{what}: {', '.join(dict.fromkeys(arms))}" for what, arms in self._untimely.items()]
        return [*self.left_out, *([f"Not measured for want of time: {'; '.join(late)}."] if late else [])]

    async def bench(self, arm: SplitArm, turn: int) -> None:
        """Bench an arm, unless it is done, was refused, or would not be over in time."""
        lab = self._lab
        if lab.done(GENERATION, arm=arm.name, block=turn) >= REPETITIONS or self._refused(arm):
            return
        if self._late(f"in pass {turn + 1}", arm.name):
            return
        lab.say(f"{arm.name}, pass {turn + 1} of {PASSES}")
        began_s = time.monotonic()
        try:
            async with watching(lab) as seen:
                prompt, generation = await bench(
                    lab,
                    self._model,
                    *arm.arguments("/"),
                    prompt_tokens=PROMPT_TOKENS,
                    generated_tokens=GENERATED_TOKENS,
                    repetitions=REPETITIONS,
                    limit_s=self._limit_s(),
                    env=arm.environment(lab.scene.hardware),
                )
        except EngineFailed as error:
            self._refuse(arm, error, began_s, turn)
            return
        self._took(began_s)
        if generation.backends == "CPU":
            raise EngineFailed(
                f"{lab.scene.tools['llama-bench']} was built without CUDA, so it splits nothing",
                hint="Set [experiments] tools_dir to a build with -DGGML_CUDA=ON.",
            )
        facts = {**seen.facts(), "build": generation.build}
        for metric, told in ((PROMPT, prompt), (GENERATION, generation)):
            for speed, seconds in zip(told.tokens_per_s, told.seconds, strict=True):
                lab.sample(metric, speed, "tokens/s", arm=arm.name, block=turn, seconds=seconds, **facts)
        for gpu, mib in memory_by_gpu(seen.before_mib, seen.most_mib).items():
            lab.sample(MEMORY, mib, "MiB", arm=arm.name, block=turn, gpu=gpu)

    async def compare_all(self, arms: Sequence[SplitArm]) -> None:
        """Compare every arm that ran with no split, itself first: that is the floor."""
        lab = self._lab
        missing = [arm for arm in arms if not lab.readings(DIVERGENCE, arm=arm.name)]
        missing = [arm for arm in missing if lab.readings(GENERATION, arm=arm.name)]
        if (
            not missing
            or not lab.readings(GENERATION, arm=NO_SPLIT)
            or self._late(
                "divergences", "all" if len(missing) == len(arms) else ", ".join(arm.name for arm in missing)
            )
        ):
            return
        with tempfile.TemporaryDirectory(prefix="subcortex-split-") as folder:
            text, base = Path(folder) / "text", Path(folder) / "base"
            text.write_text(long_text(_CHARACTERS))
            none = next(arm for arm in arms if arm.name == NO_SPLIT)
            try:
                await self._timed(
                    lambda: save_base(
                        lab, self._model, text, base, *none.arguments(","), context_tokens=CONTEXT_TOKENS,
                        chunks=CHUNKS, limit_s=self._limit_s(), env=none.environment(lab.scene.hardware),
                    )
                )  # fmt: skip
            except EngineFailed as error:
                self.left_out.append(f"No divergence could be measured: {_words(error)}.")
                return
            for arm in missing:
                if not self._late("divergences", arm.name):
                    await self._compare(arm, base)

    async def _compare(self, arm: SplitArm, base: Path) -> None:
        lab = self._lab
        lab.say(f"{arm.name} against no split")
        try:
            found = await self._timed(
                lambda: compare(
                    lab, self._model, base, *arm.arguments(","), context_tokens=CONTEXT_TOKENS,
                    limit_s=self._limit_s(), env=arm.environment(lab.scene.hardware),
                )
            )  # fmt: skip
        except EngineFailed as error:
            self.left_out.append(f"The divergence of {arm.name} could not be measured: {_words(error)}.")
            return
        told = found.divergence
        lab.sample(
            DIVERGENCE, told.mean_nats, "nats", arm=arm.name, error=told.mean_error_nats,
            median=told.median_nats, largest=told.largest_nats, same_top=told.same_top,
            same_top_error=told.same_top_error,
        )  # fmt: skip
        lab.sample(LOAD, found.load_s, "s", arm=arm.name)
        for one in found.memory:
            lab.sample(
                "buffers", one.total_mib, "MiB", arm=arm.name, device=one.device, model_mib=one.model_mib,
                context_mib=one.context_mib, compute_mib=one.compute_mib,
            )  # fmt: skip

    async def _timed(self, run: Callable[[], Any]) -> Any:
        began_s = time.monotonic()
        try:
            return await run()
        finally:
            self._took(began_s)

    def _took(self, began_s: float) -> None:
        self._longest_s = max(self._longest_s, time.monotonic() - began_s)

    def _limit_s(self) -> float:
        usual_s = _LIMIT_S if self._longest_s else _FIRST_LIMIT_S
        return max(1.0, min(usual_s, self._lab.seconds_left))

    def _late(self, what: str, arm: str) -> bool:
        if self._lab.seconds_left >= (self._longest_s or _ARM_GUESS_S):
            return False
        self._untimely.setdefault(what, []).append(arm)
        return True

    def _refused(self, arm: SplitArm) -> bool:
        refused = {one.arm for one in self._lab.readings(REFUSED)}
        return arm.name in refused or hopeless(arm, refused)

    def _refuse(self, arm: SplitArm, error: EngineFailed, began_s: float, turn: int) -> None:
        if self._lab.seconds_left <= _OVER_S:
            # Its limit was what was left of the run's time, not its own.
            self._untimely.setdefault(f"in pass {turn + 1}", []).append(arm.name)
            return
        self._lab.sample(
            REFUSED, time.monotonic() - began_s, "s", arm=arm.name, block=turn, words=_words(error),
            log=str(error.details.get("log_tail") or "")[-4000:],
        )  # fmt: skip


def _words(error: EngineFailed) -> str:
    """Return what failed, with the end of its log where the tool itself did."""
    said = last_words(str(error.details.get("log_tail") or "")) if "ended with" in error.message else ""
    return f"{error.message}: {said}" if said else error.message
