"""The laboratory: what an experiment works with while it runs. Effects."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from subcortex.config import Tier
from subcortex.experiments.laboratory.children import Output, lines_of, output_with_log
from subcortex.experiments.laboratory.engines import Served, WarmEngines
from subcortex.experiments.laboratory.readings import Sensors
from subcortex.experiments.laboratory.record import Keep, Reading, as_sample
from subcortex.experiments.scene import Scene
from subcortex.experiments.statistics import Sample

#: Probes lie here, each a script that a person can run by hand.
PROBES = Path(__file__).parents[1] / "probes"


class OutOfTime(Exception):
    """Something was to be started, and nothing of the run's time was left.

    No typed error: what may fail without spoiling a run is caught by type, and this says nothing of it.
    """


class Lab:
    """One run's laboratory. Experiments get it; nothing of it outlives ``open``.

    Args:
        scene: The machine.
        keep: Where raw data goes.
        warm: Engines, kept between runs of one worker.
        seconds: What the run may take.
        earlier: Samples of an earlier life of this run.
    """

    def __init__(
        self,
        scene: Scene,
        keep: Keep,
        warm: WarmEngines,
        *,
        seconds: float,
        earlier: Sequence[Reading] = (),
        sensors: Sensors | None = None,
    ) -> None:
        self.scene = scene
        self._keep = keep
        self._warm = warm
        self._began_s = time.monotonic()
        self._seconds = seconds
        self._readings = list(earlier)
        self._sensors = sensors or Sensors(scene.hardware)

    @property
    def seconds_left(self) -> float:
        """What is left of the run's time; below zero once it is over."""
        return self._seconds - (time.monotonic() - self._began_s)

    def say(self, text: str, share: float | None = None) -> None:
        """Tell how far it has come, in a few words, and as a share of the whole if that is known."""
        self._keep.progress(text, share)

    def sample(
        self, metric: str, value: float, unit: str, *, arm: str = "", block: int = 0, **facts: Any
    ) -> Reading:
        """Keep one raw sample, with the machine's clocks and temperatures as they are now."""
        seen = self._sensors.read()
        reading = Reading(
            metric, value, unit, arm, block, time.monotonic() - self._began_s, facts, seen.as_facts()
        )
        self._readings.append(reading)
        self._keep.reading(reading)
        return reading

    def readings(self, metric: str, *, arm: str | None = None, **facts: Any) -> list[Reading]:
        """Return the samples kept so far, in order, of this life and earlier ones; ``facts`` must agree."""
        return [
            one
            for one in self._readings
            if one.metric == metric
            and (arm is None or one.arm == arm)
            and all(one.facts.get(name) == value for name, value in facts.items())
        ]

    @property
    def metrics(self) -> tuple[str, ...]:
        """What there are samples of, in the order of the first of each."""
        return tuple(dict.fromkeys(one.metric for one in self._readings))

    def samples(self, metric: str, *, arm: str | None = None, **facts: Any) -> list[Sample]:
        """Return the same as statistics take them."""
        return [as_sample(one) for one in self.readings(metric, arm=arm, **facts)]

    def done(self, metric: str, *, arm: str, block: int) -> int:
        """Return how many samples of an arm in a block are kept: what a resumed run need not do again."""
        return sum(1 for one in self.readings(metric, arm=arm) if one.block == block)

    @asynccontextmanager
    async def engine(self, tier: Tier) -> AsyncIterator[Served]:
        """Serve a tier's model and give it back; one already warm with the very same settings is taken.

        Engines that are not in use make room for it first. It stays warm afterwards for whoever is next.

        Raises:
            OutOfTime: No time is left for it.
            DoesNotFit, EngineFailed, ConfigError: As ``Engine.start``; the failure is kept as a boot.
        """
        self._check_time(f"the engine of {tier.name}")
        async with self._warm.lent(tier, self._keep, self.say) as served:
            yield served

    async def cool(self) -> None:
        """Stop every engine that is not in use: for experiments that want the machine empty."""
        await self._warm.cool()

    def probe(
        self,
        name: str,
        *arguments: str,
        limit_s: float,
        python: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """Run a probe in the engine's interpreter and yield its JSON lines as they come.

        Args:
            name: The file in ``probes/``, without ``.py``.
            arguments: Of the script.
            limit_s: After that it is killed with all its children.
            python: Another interpreter than the scene's.
            env: Variables on top of this process's.

        Raises:
            OutOfTime: No time is left for it.
            EngineFailed: It ended with an error, in time or not; carries its last words.
        """
        self._check_time(f"the probe {name}")
        interpreter = python or self.scene.python
        if interpreter is None:
            raise AssertionError("an experiment that needs torch must say so in why_not")
        command = [str(interpreter), str(PROBES / f"{name}.py"), *arguments]
        self._keep.command(command, self.scene.versions.get("torch"))
        return lines_of(command, limit_s=limit_s, env=env)

    async def tool(
        self, name: str, *arguments: str, limit_s: float, env: Mapping[str, str] | None = None
    ) -> str:
        """Run an installed tool (``scene.tools``) and return what it wrote to stdout.

        Raises:
            OutOfTime: No time is left for it.
            EngineFailed: It ended with an error, or not in time; carries its last words.
        """
        return (await self.tool_with_log(name, *arguments, limit_s=limit_s, env=env)).stdout

    async def tool_with_log(
        self, name: str, *arguments: str, limit_s: float, env: Mapping[str, str] | None = None
    ) -> Output:
        """Run an installed tool and return stdout and the end of its log (stderr).

        Raises:
            OutOfTime, EngineFailed: As ``tool``.
        """
        self._check_time(name)
        command = [str(self.scene.tools[name]), *arguments]
        self._keep.command(command, self.scene.versions.get(name))
        return await output_with_log(command, limit_s=limit_s, env=env)

    def _check_time(self, what: str) -> None:
        if self.seconds_left <= 0:
            raise OutOfTime(f"no time was left to start {what}")

    @property
    def sensors(self) -> Sensors:
        """Clocks, temperatures and memory of the machine, asked directly."""
        return self._sensors


@asynccontextmanager
async def laboratory(
    scene: Scene, keep: Keep, *, seconds: float, earlier: Sequence[Reading] = ()
) -> AsyncIterator[Lab]:
    """Open a laboratory for one run; at the end every engine is stopped."""
    async with AsyncExitStack() as stack:
        warm = await stack.enter_async_context(WarmEngines.open(scene.config))
        yield Lab(scene, keep, warm, seconds=seconds, earlier=earlier)
        await asyncio.sleep(0)
