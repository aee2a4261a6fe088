"""How long a start takes with the model's file in memory and without, mapped and read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import ClassVar

from subcortex.config import LlamaCppTier
from subcortex.errors import ConfigError, EngineFailed
from subcortex.experiments.catalogue.common.flag_words import without
from subcortex.experiments.catalogue.common.priors import planned
from subcortex.experiments.catalogue.common.tiers import (
    LocalTier,
    about,
    boot_s,
    gpus_of,
    local_tier,
    local_tiers,
    made_up,
    weight_files,
)
from subcortex.experiments.catalogue.load_time import report
from subcortex.experiments.catalogue.load_time.report import ALIKE
from subcortex.experiments.certificate import certificate
from subcortex.experiments.choice import NOISES, guessed
from subcortex.experiments.experiment import Experiment, Inquiry, Needs, Report
from subcortex.experiments.laboratory import pagecache
from subcortex.experiments.laboratory.lab import Lab
from subcortex.experiments.scene import Scene
from subcortex.experiments.statistics import abba, paired, verdict
from subcortex.models.gguf import read_gguf

#: Blocks at least and at most; a block is every arm twice.
BLOCKS, MOST_BLOCKS = 3, 6
_MMAP_FLAGS = ("--mmap", "--no-mmap", "--load-mode")
_STRATEGY = "--safetensors-load-strategy"
#: How each engine is told; llama.cpp has two spellings, of which a build takes one.
_LLAMACPP_WAYS = {
    "mapped": (["--load-mode", "mmap"], ["--mmap"]),
    "read": (["--load-mode", "none"], ["--no-mmap"]),
}
_VLLM_WAYS: dict[str, tuple[list[str], ...]] = {"mapped": ([_STRATEGY, "lazy"], [])}
#: A start that takes longer is not worth more than a block.
_LONG_START_S = 20.0


class LoadTime(Experiment):
    """Seconds from start to ready: file in memory or not, mapped or read."""

    number: ClassVar[int] = 9
    name: ClassVar[str] = "load_time"
    question: ClassVar[str] = "How long does a model take to load, and what do page cache and mmap change?"
    kinds: ClassVar[frozenset[str]] = frozenset({"load_time"})

    def why_not(self, scene: Scene) -> str | None:
        """Return why there is no load to time."""
        tiers = local_tiers(scene)
        if not tiers:
            return "no tier runs on this machine"
        if all(made_up(tier) for tier in tiers):
            return "every tier makes its weights up (--load-format dummy), so none reads a file"
        if not any(weight_files(scene.config, tier) for tier in tiers):
            return "no tier's weights are files on this machine that are known here"
        return None

    def inquiries(self, scene: Scene) -> Sequence[Inquiry]:
        """Return one a tier that reads files."""
        return [self._inquiry(scene, tier) for tier in local_tiers(scene) if weight_files(scene.config, tier)]

    def _inquiry(self, scene: Scene, tier: LocalTier) -> Inquiry:
        found = planned(scene, tier)
        start_s = boot_s(scene, tier, found.weights_mib if found else None)
        boots = len(_arms(tier)) * 2 * (BLOCKS if start_s < _LONG_START_S else 1) + 2
        return Inquiry(
            experiment=self.name,
            subject=tier.name,
            question=f"How long does {about(tier)} take to load, with its file in memory and without?",
            quantity="load_time",
            about=about(tier),
            unit="s",
            prior=guessed("time", start_s),
            noise=NOISES["timed"],
            worth=1.0,
            minutes=boots * start_s / 60,
            needs=Needs(gpus=len(gpus_of(scene, tier)), host_mib=2 * found.weights_mib if found else 0.0),
            depends_on=certificate(
                scene,
                tier=tier,
                files=[(file.name, file.stat().st_size) for file in weight_files(scene.config, tier)],
            ),
        )

    async def run(self, lab: Lab, inquiry: Inquiry) -> Report:
        """Start it again and again, the arms in an order that lets drift cancel."""
        tier = local_tier(lab.scene, inquiry.subject)
        files = weight_files(lab.scene.config, tier)
        runs = _Loads(lab, tier, files)
        await runs.all()
        size_mib = sum(file.stat().st_size for file in files) / 2**20
        return report.report(lab.samples("load"), tier, size_mib=size_mib, noticed=runs.noticed)


def _arms(tier: LocalTier) -> tuple[str, ...]:
    ways = _LLAMACPP_WAYS if isinstance(tier, LlamaCppTier) else _VLLM_WAYS
    return tuple(f"{way} {cache}" for way in ways for cache in ("cold", "warm"))


def _spellings(tier: LocalTier, way: str) -> list[list[str]]:
    """Return the flags that a start may be told to load so with, the likeliest first."""
    if not isinstance(tier, LlamaCppTier):
        return [[*without(tier.flags, _STRATEGY), *words] for words in _VLLM_WAYS[way]]
    known = _LLAMACPP_WAYS[way]
    rest = without(tier.flags, *_MMAP_FLAGS)
    # The embedded one is as new as this program; a binary may be of any age, and all know the older word.
    return [[*rest, *words] for words in (known if tier.executable is None else reversed(known))]


@dataclass
class _Loads:
    """One run of the experiment."""

    lab: Lab
    tier: LocalTier
    files: tuple[Path, ...]
    noticed: list[str] = field(default_factory=list)
    flags: dict[str, list[str]] = field(default_factory=dict)
    longest_s: float = 0.0

    async def all(self) -> None:
        """Measure block after block, until it is known well enough or time is over."""
        if self.lab.seconds_left <= 0 and self.lab.readings("load"):
            return
        arms = await self._possible()
        for block, places in groupby(abba(arms, MOST_BLOCKS), key=lambda place: place[0]):
            fewest = BLOCKS if self.longest_s < _LONG_START_S else 1
            if block >= fewest and (fewest == 1 or self._known(arms)):
                return
            done = {arm: self.lab.done("load", arm=arm, block=block) for arm in arms}
            for _, arm in places:
                if done[arm]:
                    done[arm] -= 1
                elif not await self._loaded(arm, block):
                    return

    async def _possible(self) -> tuple[str, ...]:
        """Return the arms that this engine and this system have; each way is tried once, uncounted."""
        arms = _arms(self.tier)
        for way in dict.fromkeys(arm.split()[0] for arm in arms):
            for flags in _spellings(self.tier, way):
                try:
                    await self._start(flags)
                except (ConfigError, EngineFailed) as error:
                    if not isinstance(error, ConfigError) or error.details.get("key") != "flags":
                        # No other flag would mend that; an engine does not always say that it is the file.
                        await self._see_files()
                        raise
                    refused = error.message
                else:
                    self.flags[way] = flags
                    break
            if way not in self.flags:
                self.noticed.append(f"{about(self.tier)} cannot be loaded {way}: {refused}.")
        if not self.flags:
            raise EngineFailed(f"{about(self.tier)} was not started in any way: {self.noticed[-1]}")
        cold = await self._forgotten()
        ends = ("cold", "warm") if cold else ("warm",)
        return tuple(arm for arm in arms if arm.split()[0] in self.flags and arm.endswith(ends))

    async def _see_files(self) -> None:
        """See that the files can be read as what they are.

        Raises:
            ConfigError: They cannot; names the one, and where it breaks off if it is cut short.
        """
        if self.files and self.files[0].suffix.lower() == ".gguf":
            await asyncio.to_thread(read_gguf, self.files[0])

    async def _loaded(self, arm: str, block: int) -> bool:
        """Take one sample; return whether to go on."""
        lab, (way, cache) = self.lab, arm.split()
        if lab.seconds_left < 1.5 * self.longest_s + 2:
            self.noticed.append(f"Time was over in block {block + 1}, which does not count.")
            return False
        lab.say(f"{self.tier.name}: {arm}, block {block + 1}", block / MOST_BLOCKS)
        await lab.cool()
        if cache == "cold":
            if not await self._forgotten():
                return False
        else:
            await asyncio.to_thread(pagecache.read_through, self.files)
        share = await asyncio.to_thread(pagecache.cached_share, self.files)
        seconds = await self._start(self.flags[way])
        lab.sample("load", seconds, "s", arm=arm, block=block, in_memory=share, flags=self.flags[way])
        return True

    async def _start(self, flags: list[str]) -> float:
        """Return the seconds of one start; it is stopped again at once."""
        await self.lab.cool()
        try:
            async with self.lab.engine(self.tier.model_copy(update={"flags": flags})) as served:
                self.longest_s = max(self.longest_s, served.boot_s)
                return served.boot_s
        finally:
            # A mapped file's pages cannot be dropped while it is in use.
            await self.lab.cool()

    async def _forgotten(self) -> bool:
        """Have the system forget the files, and return whether it did."""
        share = await pagecache.forget(self.files)
        if share is not None and share <= pagecache.COLD_SHARE:
            return True
        left = "nobody can tell how much of them" if share is None else f"{share:.0%} of them"
        self.noticed.append(
            f"The files of {about(self.tier)} could not be dropped from memory: {left} stayed. "
            "Perhaps another process has them in use."
        )
        return False

    def _known(self, arms: Sequence[str]) -> bool:
        """Return whether the comparison that is asked for is settled."""
        way = arms[0].split()[0]
        if f"{way} cold" not in arms:
            return True
        found = paired(self.lab.samples("load"), f"{way} warm", f"{way} cold")
        return bool(found.a) and verdict(found.a, found.b, as_ratio=True, within=ALIKE).kind != "inconclusive"
