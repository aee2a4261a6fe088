"""What this machine has: GPUs by NVML, host memory, cores; or a stand-in for a machine elsewhere."""

from __future__ import annotations

from subcortex.hardware.cards import CARDS, Card, NvLink, card_for
from subcortex.hardware.detect import detect
from subcortex.hardware.interpreter import ask_interpreter
from subcortex.hardware.links import (
    LINK_CODES,
    PEER_CODES,
    Link,
    link_between,
    matrix,
    nominal_link,
    slowest_link,
)
from subcortex.hardware.mig import refuse_mig
from subcortex.hardware.model import (
    MOST_GPUS,
    Gpu,
    GpuPair,
    GpuProcess,
    Hardware,
    Host,
    Interpreter,
    MigInstance,
    TorchDevice,
)
from subcortex.hardware.snapshot import load_snapshot, save_snapshot
from subcortex.hardware.standin import parse_gpus, parse_machine, with_gpus

__all__ = [
    "CARDS",
    "LINK_CODES",
    "MOST_GPUS",
    "PEER_CODES",
    "Card",
    "Gpu",
    "GpuPair",
    "GpuProcess",
    "Hardware",
    "Host",
    "Interpreter",
    "Link",
    "MigInstance",
    "NvLink",
    "TorchDevice",
    "ask_interpreter",
    "card_for",
    "detect",
    "link_between",
    "load_snapshot",
    "matrix",
    "nominal_link",
    "parse_gpus",
    "parse_machine",
    "refuse_mig",
    "save_snapshot",
    "slowest_link",
    "with_gpus",
]
