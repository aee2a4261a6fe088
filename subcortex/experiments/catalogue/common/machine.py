"""The machine as its own experiments see it: names of cards and links, and probes that run on all of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from math import isfinite
from typing import Any

from subcortex.experiments.laboratory.lab import Lab
from subcortex.experiments.scene import Scene
from subcortex.hardware import Gpu, card_for, link_between, nominal_link
from subcortex.hardware.links import ASSUMED_CODE
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


def memory_name(name: str) -> str:
    """Return a card's memory as the board names what a copy measured; a data sheet's figure is the card's."""
    return name if name == CPU else f"memory of {name}"


def link_name(scene: Scene, a: int, b: int) -> str:
    """Return the way between two GPUs as the board names it: ``NVLink NV18 of H200``.

    The cards and the number of links belong to the name: what was measured of one generation decides nothing
    that was said of NVLink, or of PCIe, at large.
    """
    pair = scene.hardware.pair(a, b)
    gpus = {gpu.index: gpu for gpu in scene.hardware.gpus}
    cards = " and ".join(sorted({card_name(gpus[a]), card_name(gpus[b])}))
    code = pair.code if pair is not None else ASSUMED_CODE
    if code.startswith("NV"):
        return f"NVLink {code} of {cards}"
    return f"{one_spelling('link', nominal_link(gpus[a], gpus[b], code).words)} ({code}) of {cards}"


def host_link_name(gpu: Gpu) -> str:
    """Return the way from a GPU to the host as the board names it: ``PCIe 5.0 x16 of H200 to the host``."""
    return f"{host_link_words(gpu)} of {card_name(gpu)} to the host"


def host_link_words(gpu: Gpu) -> str:
    """Return what joins a GPU to the host, in few words: ``PCIe 5.0 x16``."""
    return one_spelling("link", nominal_link(gpu, gpu, ASSUMED_CODE).words)


def host_link_gb_per_s(gpu: Gpu) -> float:
    """Return what is promised of one direction between a GPU and the host, 10^9 bytes/s."""
    return nominal_link(gpu, gpu, ASSUMED_CODE).gb_per_s


def peer_gb_per_s(scene: Scene, a: int, b: int) -> float:
    """Return what is believed of the way between two GPUs: measured, or promised."""
    return link_between(scene.hardware, a, b).gb_per_s


async def sampled(lab: Lab, lines: AsyncIterator[dict[str, Any]]) -> list[Mapping[str, Any]]:
    """Keep a probe's samples as they come, and return its other lines; what is not whole is dropped."""
    others: list[Mapping[str, Any]] = []
    async for line in lines:
        if "metric" not in line:
            others.append(line)
            continue
        facts = {name: value for name, value in line.items() if name not in _FIELDS}
        try:
            metric, value, unit = str(line["metric"]), float(line["value"]), str(line["unit"])
            block = int(line.get("block", 0))
        except (KeyError, TypeError, ValueError):
            continue
        # A time of zero by a coarse clock makes a speed without end, which is no sample.
        if isfinite(value):
            lab.sample(metric, value, unit, arm=str(line.get("arm", "")), block=block, **facts)
    return others
