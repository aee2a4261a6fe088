"""The machine as its own experiments see it: names of cards and links, and probes that run on all of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from subcortex.experiments.experiment import Scene
from subcortex.experiments.laboratory.lab import Lab
from subcortex.hardware import Gpu, card_for, link_between, nominal_link
from subcortex.journal.board.subjects import one_spelling

#: What is measured where there is no GPU.
CPU = "CPU"
PEER_TRUST = "peer_trust"
_FIELDS = frozenset({"metric", "value", "unit", "arm", "block"})


def no_torch(scene: Scene) -> str | None:
    """Return that no interpreter has torch, None where one has."""
    if scene.python is None:
        return "no interpreter with torch is named (experiments.python, or python of a vLLM tier)"
    if "torch" not in scene.versions and scene.versions:
        return f"{scene.python} has no torch"
    return None


def in_instances(scene: Scene) -> str | None:
    """Return that a card is in MIG mode, where CUDA sees its instances instead; None where none is."""
    split = [gpu.index for gpu in scene.hardware.gpus if gpu.mig is not None]
    return f"GPU {split[0]} is in MIG mode" if split else None


def gated(scene: Scene) -> frozenset[str]:
    """Return what must have run before anything is sent between GPUs."""
    return frozenset({PEER_TRUST}) if len(scene.hardware.gpus) > 1 else frozenset()


def device(scene: Scene) -> str:
    """Return what probes compute on, as torch calls it."""
    return "cuda" if scene.on_gpus else "cpu"


def visible(scene: Scene) -> dict[str, str]:
    """Return the environment in which CUDA counts the GPUs in the order of the scene's."""
    if not scene.on_gpus:
        return {}
    indices = ",".join(str(gpu.index) for gpu in scene.hardware.gpus)
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": indices}


def card_name(gpu: Gpu) -> str:
    """Return a card as the board names it, e.g. ``H200``."""
    card = card_for(gpu.name, gpu.memory_total_mib)
    return one_spelling("card", card.name if card else gpu.name.removeprefix("NVIDIA "))


def link_name(scene: Scene, a: int, b: int) -> str:
    """Return the link between two GPUs as the board names it: ``NVLink``, ``PCIe 5.0 x16``."""
    pair = scene.hardware.pair(a, b)
    if pair is not None and pair.code.startswith("NV"):
        return "NVLink"
    gpus = {gpu.index: gpu for gpu in scene.hardware.gpus}
    link = nominal_link(gpus[a], gpus[b], pair.code if pair else "PHB")
    return one_spelling("link", link.words)


def host_link_name(gpu: Gpu) -> str:
    """Return the link between a GPU and the host as the board names it."""
    return one_spelling("link", nominal_link(gpu, gpu, "PHB").words)


def host_link_gb_per_s(gpu: Gpu) -> float:
    """Return what is promised of one direction between a GPU and the host, 10^9 bytes/s."""
    return nominal_link(gpu, gpu, "PHB").gb_per_s


def peer_gb_per_s(scene: Scene, a: int, b: int) -> float:
    """Return what is believed of the way between two GPUs: measured, or promised."""
    return link_between(scene.hardware, a, b).gb_per_s


async def sampled(lab: Lab, lines: AsyncIterator[dict[str, Any]]) -> list[Mapping[str, Any]]:
    """Keep a probe's samples as they come, and return its other lines."""
    others: list[Mapping[str, Any]] = []
    async for line in lines:
        if "metric" not in line:
            others.append(line)
            continue
        facts = {name: value for name, value in line.items() if name not in _FIELDS}
        lab.sample(
            str(line["metric"]),
            float(line["value"]),
            str(line["unit"]),
            arm=str(line.get("arm", "")),
            block=int(line.get("block", 0)),
            **facts,
        )
    return others
