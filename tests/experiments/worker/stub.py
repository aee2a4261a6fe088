"""The real worker with a catalogue of its own: small experiments that do what tests wait for.

Run as ``python -m tests.experiments.worker.stub`` with the worker's arguments.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from subcortex.experiments import catalogue
from subcortex.experiments.choice import Belief
from subcortex.experiments.experiment import Answer, Experiment, Inquiry, Needs, Report
from subcortex.experiments.laboratory.children import output_of
from subcortex.experiments.laboratory.lab import Lab
from subcortex.experiments.scene import Scene

#: Blocks of one sample that ``ticks`` and ``served`` take, and the seconds between two.
BLOCKS, EVERY_S = 10, 0.05


class Ticks(Experiment):
    """Counts, a block a time, and goes on where an earlier life stopped."""

    number = 90
    name: ClassVar[str] = "ticks"
    question: ClassVar[str] = "How many?"
    kinds: ClassVar[frozenset[str]] = frozenset()

    def why_not(self, scene: Scene) -> str | None:
        return None

    def inquiries(self, scene: Scene) -> Sequence[Inquiry]:
        threads = [getattr(tier, "threads", 0) for tier in scene.config.tiers]
        return [
            Inquiry(
                self.name,
                "machine",
                self.question,
                "count",
                "ticks",
                "1",
                prior=Belief(10.0, 5.0, "normal"),
                noise=1.0,
                worth=1.0,
                minutes=0.1,
                needs=Needs(alone=False),
                depends_on={"threads": threads},
            )
        ]

    async def run(self, lab: Lab, inquiry: Inquiry) -> Report:
        for block in range(BLOCKS):
            if not lab.done("tick", arm="a", block=block):
                await asyncio.sleep(EVERY_S)
                lab.sample("tick", float(block), "1", arm="a", block=block)
                lab.say(f"block {block}", (block + 1) / BLOCKS)
        found = lab.readings("tick", arm="a")
        answer = Answer("count", "ticks", "1", "measured", f"{len(found)} ticks", value=float(len(found)))
        return Report((answer,), noticed=(f"{len({one.block for one in found})} blocks",))


class Served(Ticks):
    """The same beside a warm engine of the first tier."""

    number = 91
    name = "served"

    async def run(self, lab: Lab, inquiry: Inquiry) -> Report:
        async with lab.engine(lab.scene.config.tiers[0]):
            return await super().run(lab, inquiry)


class Broken(Ticks):
    """Has a fault."""

    number = 92
    name = "broken"

    async def run(self, lab: Lab, inquiry: Inquiry) -> Report:
        lab.sample("tick", 0.0, "1")
        raise ZeroDivisionError("by nought")


class Endless(Ticks):
    """Ends when told; with samples and no time it has nothing to say."""

    number = 93
    name = "endless"

    async def run(self, lab: Lab, inquiry: Inquiry) -> Report:
        block = 0
        if lab.metrics and lab.seconds_left <= 0:
            return Report(())
        while True:
            lab.sample("tick", 0.0, "1", block=(block := block + 1))
            await asyncio.sleep(EVERY_S)


class Probing(Ticks):
    """Waits for a probe that never ends, which has a child of its own."""

    number = 94
    name = "probing"

    async def run(self, lab: Lab, inquiry: Inquiry) -> Report:
        async with lab.engine(lab.scene.config.tiers[0]):
            lab.sample("tick", 0.0, "1")
            await output_of(["sh", "-c", "sleep 321 & sleep 321"], limit_s=300.0)
        raise AssertionError("it was killed long before")


class Hungry(Ticks):
    """Needs more host memory than there is while tiers are up."""

    number = 95
    name = "hungry"

    def inquiries(self, scene: Scene) -> Sequence[Inquiry]:
        return [replace(one, needs=Needs(host_mib=4096.0)) for one in super().inquiries(scene)]


class Carded(Endless):
    """Takes a GPU, as far as anybody knows."""

    number = 96
    name = "carded"

    def inquiries(self, scene: Scene) -> Sequence[Inquiry]:
        return [replace(one, needs=Needs(gpus=1, gpu_mib=1024.0)) for one in super().inquiries(scene)]


class Silent(Ticks):
    """Takes for ever, and has no sample."""

    number = 97
    name = "silent"

    async def run(self, lab: Lab, inquiry: Inquiry) -> Report:
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")


class Patient(Ticks):
    """Goes on, where it has samples, with an engine for which there may be no time."""

    number = 98
    name = "patient"

    async def run(self, lab: Lab, inquiry: Inquiry) -> Report:
        lab.sample("tick", 0.0, "1")
        async with lab.engine(lab.scene.config.tiers[0]):
            return await Silent().run(lab, inquiry)


STUBS: tuple[Experiment, ...] = (
    *(Ticks(), Served(), Broken(), Endless()),
    *(Probing(), Hungry(), Carded(), Silent(), Patient()),
)

if __name__ == "__main__":
    from subcortex.experiments.worker.__main__ import main

    catalogue.CATALOGUE = STUBS
    sys.exit(main())
