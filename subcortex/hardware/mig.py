"""Cards in MIG mode: seen, and not planned on. Pure.

CUDA counts a card's instances in place of the card, so neither its memory nor its index is what an engine
meets; beside such a card the indices of the others are not sure either.
"""

from __future__ import annotations

from math import floor

from subcortex.errors import InvalidRequest
from subcortex.hardware.model import Gpu, Hardware


def refuse_mig(hardware: Hardware) -> None:
    """Raise if a machine has a card in MIG mode.

    Raises:
        InvalidRequest: It has; the hint says how to plan for one of its instances.
    """
    split = [gpu for gpu in hardware.gpus if gpu.mig is not None]
    if not split:
        return
    gpu = split[0]
    raise InvalidRequest(
        f"GPU {gpu.index} ({gpu.name}) is in MIG mode with {_instances(gpu)}, which CUDA sees in place of "
        f"the card; nothing is planned on a machine with such cards ({len(split)} of {len(hardware.gpus)})",
        hint=_hint(gpu),
        param="gpus",
    )


def _instances(gpu: Gpu) -> str:
    found = gpu.mig or ()
    if not found:
        return "no instance"
    sizes = ["?" if one.memory_total_mib is None else f"{one.memory_total_mib:.0f}" for one in found]
    return f"instances of {', '.join(sizes)} MiB"


def _hint(gpu: Gpu) -> str:
    off = f"Switch it off (`nvidia-smi -i {gpu.index} -mig 0`, as root)"
    told = [one for one in gpu.mig or () if one.memory_total_mib]
    if not told:
        return f"{off}, or make instances and plan for one of them with --gpus."
    largest = max(told, key=lambda one: one.memory_total_mib or 0.0)
    # Rounded down, so that the stand-in is no larger than the instance.
    gib = floor((largest.memory_total_mib or 0.0) / 1024 * 100) / 100
    return (
        f'{off}, or plan for one instance with --gpus "{gib:g}GiB", and in its tier leave out gpus and set '
        f'env = {{ CUDA_VISIBLE_DEVICES = "{largest.uuid or "MIG-…"}" }}.'
    )
