"""How fast this machine is: matrix products, memory, and the ways between host and GPUs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar

from subcortex.errors import EngineFailed
from subcortex.experiments.catalogue.common.machine import (
    CPU,
    card_name,
    device,
    gated,
    in_instances,
    memory_name,
    no_torch,
    sampled,
    visible,
)
from subcortex.experiments.catalogue.machine_speed import report
from subcortex.experiments.certificate import certificate
from subcortex.experiments.choice import NOISES, Belief, believed, guessed
from subcortex.experiments.experiment import Experiment, Inquiry, Needs, Report
from subcortex.experiments.laboratory.lab import Lab
from subcortex.experiments.scene import Scene
from subcortex.experiments.statistics import Interval
from subcortex.hardware import card_for

#: Samples of each figure in one go of the probe, and how many goes at most.
REPEATS, GOES = 7, 2
#: Of an interval, as a share of its median: a CPU has the rest of its machine beside it.
_TARGET_WIDTH, _CPU_TARGET_WIDTH = 0.05, 0.15
_LIMIT_S, _TELLING_S = 300.0, 3.0
_GPU_S, _PAIR_S, _START_S, _CPU_S = 8.0, 1.5, 12.0, 10.0
_GPU_MIB = 6144.0
#: What a copy within a card's memory reaches of its data sheet.
_SHARE_OF_NOMINAL = (0.65, 1.0)
_PARTS = ("gemm", "memory", "host", "peer")


class MachineSpeed(Experiment):
    """GEMM by dtype and size, memory, host and device, and the matrix of peers."""

    number: ClassVar[int] = 1
    name: ClassVar[str] = "machine_speed"
    question: ClassVar[str] = "How fast is this machine: GEMM, memory, host to device, peer to peer?"
    kinds: ClassVar[frozenset[str]] = frozenset({"machine_speed"})
    goes: ClassVar[int] = GOES

    def why_not(self, scene: Scene) -> str | None:
        """Return why nothing can be computed here."""
        return no_torch(scene) or in_instances(scene)

    def inquiries(self, scene: Scene) -> Sequence[Inquiry]:
        """Return one of the machine, which is asked first of all how fast its memory is."""
        if self.why_not(scene) is not None:
            return ()
        gpus = scene.hardware.gpus
        seconds = _START_S + _GPU_S * len(gpus) + _PAIR_S * len(gpus) ** 2 if gpus else _CPU_S
        about = card_name(gpus[0]) if gpus else CPU
        return [
            Inquiry(
                experiment=self.name,
                subject="machine",
                question=f"How fast is this machine ({len(gpus)} x {about})?"
                if gpus
                else "How fast is this machine's CPU?",
                quantity="bandwidth",
                about=memory_name(about),
                unit="GB/s",
                prior=memory_prior(scene),
                noise=NOISES["steady"],
                worth=1.0,
                minutes=seconds / 60,
                needs=Needs(
                    gpus=len(gpus), gpu_mib=_GPU_MIB if gpus else None, host_mib=2048.0 if gpus else 1024.0
                ),
                after=gated(scene),
                depends_on=certificate(scene),
            )
        ]

    async def run(self, lab: Lab, inquiry: Inquiry) -> Report:
        """Run the probe until its figures are narrow, or it has had its goes."""
        scene = lab.scene
        target = _TARGET_WIDTH if scene.on_gpus else _CPU_TARGET_WIDTH
        notes: list[str] = []
        for _ in range(self.goes):
            parts = report.wide(lab, self._parts(scene), REPEATS, REPEATS * self.goes, target)
            if not parts or (lab.seconds_left <= 0 and lab.metrics):
                break
            began_s = time.monotonic()
            try:
                notes += await self._measured(lab, parts)
            except EngineFailed as error:
                if not report.series_of(lab):
                    raise
                notes.append(f"Not all was measured: {error.message}.")
                break
            if lab.seconds_left < 1.5 * (time.monotonic() - began_s):
                break
        return report.report(lab, notes)

    async def _measured(self, lab: Lab, parts: Sequence[str]) -> list[str]:
        scene = lab.scene
        lab.say(f"measuring {', '.join(parts)}")
        words = ["--device", device(scene), "--scale", "full" if scene.on_gpus else "small"]
        words += ["--what", ",".join(parts), "--repeats", str(REPEATS)]
        if scene.on_gpus:
            words += ["--gpus", str(len(scene.hardware.gpus))]
        # What was sampled is still to be told when the run's own time is over.
        limit_s = min(_LIMIT_S, max(1.0, lab.seconds_left - _TELLING_S))
        lines = lab.probe("machine_speed", *words, limit_s=limit_s, env=visible(scene))
        return [str(one["note"]) for one in await sampled(lab, lines) if "note" in one]

    def _parts(self, scene: Scene) -> tuple[str, ...]:
        if not scene.on_gpus:
            return _PARTS[:2]
        return _PARTS if len(scene.hardware.gpus) > 1 else _PARTS[:3]


def memory_prior(scene: Scene) -> Belief:
    """Return what is believed of memory: a share of the card's data sheet, or a wide guess."""
    if not scene.on_gpus:
        return guessed("bandwidth", 20.0)
    gpu = scene.hardware.gpus[0]
    card = card_for(gpu.name, gpu.memory_total_mib)
    if card is None:
        return guessed("bandwidth", 500.0)
    low, high = (share * card.memory_gb_per_s for share in _SHARE_OF_NOMINAL)
    return believed(Interval(low, high))
