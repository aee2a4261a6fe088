"""Whether what one GPU copies to another arrives; all that follows goes by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from subcortex.experiments.catalogue.common.machine import (
    PEER_TRUST,
    in_instances,
    link_name,
    no_torch,
    sampled,
    visible,
)
from subcortex.experiments.certificate import certificate
from subcortex.experiments.choice import NOISES, Belief
from subcortex.experiments.experiment import Answer, Experiment, Inquiry, Needs, Outcome, Report
from subcortex.experiments.laboratory.lab import Lab
from subcortex.experiments.laboratory.record import Reading
from subcortex.experiments.scene import Scene

_LIMIT_S = 300.0
_REPEATS = 2
#: Copies of 425 MiB a pair, drawn, sent and compared on the host.
_PAIR_S, _START_S = 2.0, 15.0
_ADVICE = (
    "Switch the IOMMU off or to passthrough (iommu=pt), or PCIe's access control services, "
    "or keep engines from peer access (NCCL_P2P_DISABLE=1, --disable-custom-all-reduce)."
)


class PeerTrust(Experiment):
    """Bytes that arrive intact, of copies between every two GPUs, both ways."""

    number: ClassVar[int] = 0
    name: ClassVar[str] = PEER_TRUST
    question: ClassVar[str] = "Can GPUs be trusted to copy to each other?"
    kinds: ClassVar[frozenset[str]] = frozenset({"peer_trust"})

    def why_not(self, scene: Scene) -> str | None:
        """Return why there are no peers to try."""
        count = len(scene.hardware.gpus)
        if count < 2:
            return f"this machine has {count or 'no'} GPU{'' if count == 1 else 's'}; peers are two"
        return no_torch(scene) or in_instances(scene)

    def inquiries(self, scene: Scene) -> Sequence[Inquiry]:
        """Return one of the machine."""
        gpus = scene.hardware.gpus
        if self.why_not(scene) is not None:
            return ()
        ways = len(gpus) * (len(gpus) - 1)
        return [
            Inquiry(
                experiment=self.name,
                subject="machine",
                question=f"Do copies between the {len(gpus)} GPUs arrive intact?",
                quantity="share",
                about=self.name,
                unit="%",
                # Either all of it arrives, or a machine is set up so that much of it does not.
                prior=Belief(100.0, 10.0, "normal"),
                noise=NOISES["exact"],
                worth=1.0,
                minutes=(_START_S + ways * _REPEATS * _PAIR_S) / 60,
                needs=Needs(gpus=len(gpus), gpu_mib=2048, host_mib=2048, alone=False),
                depends_on=certificate(scene),
            )
        ]

    async def run(self, lab: Lab, inquiry: Inquiry) -> Report:
        """Copy, and compare by way of the host."""
        scene = lab.scene
        count = len(scene.hardware.gpus)
        lab.say(f"copying between {count} GPUs")
        if not _complete(lab.readings("intact"), count) and (lab.seconds_left > 0 or not lab.metrics):
            words = ("--device", "cuda", "--gpus", str(count), "--repeats", str(_REPEATS))
            limit_s = _LIMIT_S + 4.0 * count * count
            await sampled(lab, lab.probe("peer_trust", *words, limit_s=limit_s, env=visible(scene)))
        return report_of(scene, lab.readings("intact"))


def _complete(seen: Sequence[Reading], count: int) -> bool:
    """Return whether an earlier life came to the end: to the last pair of the last round."""
    last = f"{count - 1}-{count - 2}"
    return any(one.facts["pair"] == last and one.block == _REPEATS - 1 for one in seen)


def report_of(scene: Scene, seen: Sequence[Reading]) -> Report:
    """Return what copies came to.

    Args:
        scene: The machine; positions of its GPUs are the numbers in ``pair``.
        seen: Samples of ``intact``.
    """
    indices = [gpu.index for gpu in scene.hardware.gpus]
    sent = sum(int(one.facts["bytes"]) for one in seen)
    intact = sum(int(one.facts["intact_bytes"]) for one in seen)
    worst: dict[str, float] = {}
    noticed: list[str] = []
    for one in seen:
        a, b = (indices[int(place)] for place in str(one.facts["pair"]).split("-"))
        pair = f"{a}-{b}"
        worst[pair] = min(one.value, worst.get(pair, 100.0))
        if one.facts.get("unreadable_bytes"):
            wrong, of = one.facts["unreadable_bytes"], one.facts["bytes"]
            noticed.append(f"GPU {a} itself gave back {wrong} of {of} bytes wrong.")
        elif one.facts["intact_bytes"] != one.facts["bytes"]:
            noticed.append(
                f"Of {one.facts['bytes']} bytes from GPU {a} to GPU {b} over {link_name(scene, a, b)} "
                f"{one.facts['intact_bytes']} arrived, and {one.facts['untouched_bytes']} were never written."
            )
    refused = sorted({str(one.facts["pair"]) for one in seen if one.facts.get("peer_access") is False})
    if refused:
        noticed.append(
            f"CUDA has no peer access for {len(refused)} of {len(worst)} ways: copies go by the host."
        )
    trusted = bool(seen) and intact == sent and not any(one.facts.get("unreadable_bytes") for one in seen)
    share = 100.0 * intact / sent if sent else 0.0
    words = f"{intact} of {sent} bytes arrived intact in {len(seen)} copies between {len(indices)} GPUs"
    outcome: Outcome = "passed" if trusted else "failed"
    statement = f"{words}." if trusted else f"Only {words}: CUDA reported success. {_ADVICE}"
    if trusted and not _complete(seen, len(indices)):
        outcome = "inconclusive"
        statement = f"{words}: inconclusive; time was over before all ways had been tried {_REPEATS} times."
    answer = Answer(
        quantity="share",
        about=PEER_TRUST,
        unit="%",
        outcome=outcome,
        statement=statement,
        value=share,
        n=len(seen),
        series="intact",
        details={
            "intact_bytes": intact,
            "bytes": sent,
            "worst_percent": worst,
            "peer_access": not refused,
        },
    )
    return Report((answer,), tuple(dict.fromkeys(noticed)))
