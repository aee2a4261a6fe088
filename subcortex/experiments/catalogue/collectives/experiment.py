"""What all-reduce and its kin cost by size: over NCCL between GPUs, over gloo between processes on a CPU."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, ClassVar

from subcortex.errors import EngineFailed
from subcortex.experiments.catalogue.collectives import report
from subcortex.experiments.catalogue.common.machine import (
    device,
    gated,
    in_instances,
    link_name,
    no_torch,
    sampled,
    visible,
)
from subcortex.experiments.certificate import certificate
from subcortex.experiments.choice import NOISES, Belief, believed, guessed
from subcortex.experiments.experiment import Experiment, Inquiry, Needs, Report
from subcortex.experiments.laboratory.lab import Lab
from subcortex.experiments.scene import Scene
from subcortex.experiments.statistics import Interval
from subcortex.hardware import slowest_link

#: Bytes: 16 KiB to 64 MiB, by factors of four on GPUs and of sixteen where a CPU has to do it all.
SIZES = tuple(2**14 * 4**power for power in range(7))
CPU_SIZES = SIZES[::2]
#: Blocks in one go of the probe, and how many goes at most.
BLOCKS, GOES = 7, 2
ARMS = ("as_found", "no_peer")
_REPEATS = 2
_LIMIT_S, _TELLING_S = 300.0, 3.0
_RANKS_ON_CPU = 2
_GPU_S, _CPU_S = 35.0, 15.0
#: What a collective reaches of a link's data sheet; above it where a switch sums on the way.
_SHARE_OF_NOMINAL = (0.4, 1.1)


class Collectives(Experiment):
    """Microseconds, algorithm and bus bandwidth of four operations, results checked."""

    number: ClassVar[int] = 2
    name: ClassVar[str] = "collectives"
    question: ClassVar[str] = "What do collective operations between GPUs cost, by size?"
    kinds: ClassVar[frozenset[str]] = frozenset({"collectives"})
    goes: ClassVar[int] = GOES
    sizes: ClassVar[tuple[int, ...]] = SIZES
    cpu_sizes: ClassVar[tuple[int, ...]] = CPU_SIZES

    def why_not(self, scene: Scene) -> str | None:
        """Return why nothing is there to talk to each other."""
        if len(scene.hardware.gpus) == 1:
            return "one GPU has nobody to talk to"
        if not scene.on_gpus and scene.hardware.cores < _RANKS_ON_CPU:
            return "two processes need two cores"
        return no_torch(scene) or in_instances(scene)

    def inquiries(self, scene: Scene) -> Sequence[Inquiry]:
        """Return one of the machine: the bus bandwidth of a large all-reduce."""
        if self.why_not(scene) is not None:
            return ()
        gpus = scene.hardware.gpus
        who = f"{len(gpus)} GPUs" if gpus else f"{_RANKS_ON_CPU} processes on the CPU"
        return [
            Inquiry(
                experiment=self.name,
                subject="machine",
                question=f"What does an all-reduce between {who} cost, by size?",
                quantity="bus_bandwidth",
                about=medium(scene),
                unit="GB/s",
                prior=_prior(scene),
                noise=NOISES["timed"],
                worth=1.0,
                minutes=(_GPU_S if gpus else _CPU_S) / 60,
                needs=Needs(gpus=len(gpus), gpu_mib=4096.0 if gpus else None, host_mib=2048.0),
                after=gated(scene),
                depends_on=certificate(scene, ranks=len(gpus) or _RANKS_ON_CPU),
            )
        ]

    async def run(self, lab: Lab, inquiry: Inquiry) -> Report:
        """Have the arms take turns until the headline figures are narrow, or there have been enough goes."""
        scene = lab.scene
        ranks = len(scene.hardware.gpus) or _RANKS_ON_CPU
        sizes = self.sizes if scene.on_gpus else self.cpu_sizes
        problems: list[str] = []
        while (first := report.whole_blocks(lab)) < BLOCKS * self.goes:
            if lab.seconds_left <= 0 and lab.metrics:
                break
            if first >= BLOCKS and (report.narrow(lab, sizes) or lab.seconds_left < _LIMIT_S / 10):
                break
            try:
                problems += await self._measured(lab, ranks, sizes, first)
            except EngineFailed as error:
                if not lab.readings("all_reduce"):
                    raise
                problems.append(error.message)
                break
            if report.whole_blocks(lab) < first + _blocks_from(first):
                # It stopped short of what it was asked for, since another block would not have fitted.
                break
        return report.report(lab, medium(scene), ranks, sizes, problems)

    async def _measured(self, lab: Lab, ranks: int, sizes: Sequence[int], first: int) -> list[str]:
        scene = lab.scene
        lab.say(f"collectives between {ranks}, from block {first} on")
        words = ["--device", device(scene), "--ranks", str(ranks), "--sizes", ",".join(map(str, sizes))]
        words += ["--arms", ",".join(ARMS if scene.on_gpus else ARMS[:1])]
        words += ["--first-block", str(first), "--blocks", str(_blocks_from(first))]
        words += ["--repeats", str(_REPEATS if scene.on_gpus else 1)]
        words += ["--seconds", f"{max(1.0, min(_LIMIT_S, lab.seconds_left) * 0.8):.0f}"]
        # What was sampled is still to be told when the run's own time is over.
        limit_s = min(_LIMIT_S, max(1.0, lab.seconds_left - _TELLING_S))
        lines = lab.probe("collectives", *words, limit_s=limit_s, env=visible(scene))
        problems = []
        for line in await sampled(lab, _kept(lab, lines)):
            if "problem" in line:
                problems.append(f"{line.get('arm', '')}: {line['problem']}")
        return problems


def _blocks_from(first: int) -> int:
    """Return how many blocks a go has that begins with this one."""
    return BLOCKS - first % BLOCKS


async def _kept(lab: Lab, lines: AsyncIterator[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    """Turn the probe's checks and ends of blocks into samples, so that a later life of the run has them."""
    async for line in lines:
        if "check" in line:
            yield {**line, "metric": "wrong", "value": line["wrong"], "unit": "elements"}
        elif "block_done" in line:
            yield {
                "metric": "block done",
                "value": 1,
                "unit": "block",
                "block": line["block_done"],
                **_how(line),
            }
        else:
            yield line


def _how(line: Mapping[str, Any]) -> dict[str, Any]:
    return {"how": line["how"], "arms": line["arms"]}


def medium(scene: Scene) -> str:
    """Return what collectives go over, as the board names it."""
    if not scene.on_gpus:
        return "gloo"
    gpus = [gpu.index for gpu in scene.hardware.gpus]
    ways = [(a, b) for a in gpus for b in gpus if a < b]
    slow = slowest_link(scene.hardware, gpus)
    names = [link_name(scene, a, b) for a, b in ways]
    # The slowest of them is what all wait for.
    if slow is not None and not slow.kind.startswith("NV"):
        names = [name for name in names if not name.startswith("NVLink")] or names
    return names[0]


def _prior(scene: Scene) -> Belief:
    slow = slowest_link(scene.hardware, [gpu.index for gpu in scene.hardware.gpus])
    if slow is None:
        return guessed("bandwidth", 1.0)
    low, high = (share * slow.gb_per_s for share in _SHARE_OF_NOMINAL)
    return believed(Interval(low, high))
