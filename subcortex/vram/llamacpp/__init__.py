"""llama.cpp's memory: what lies on which device, by component, and what it would refuse.

``layers`` places layers on devices, ``buffers`` counts KV and compute buffers, ``devices`` adds them up.
"""

from __future__ import annotations

from subcortex.vram.llamacpp.estimate import (
    best_split,
    footprint,
    mapped_mib,
    max_gpu_layers,
    placement,
    tensor_split_for,
)
from subcortex.vram.llamacpp.layers import HOST, Placement, layers_by_device, place

__all__ = [
    "HOST",
    "Placement",
    "best_split",
    "footprint",
    "layers_by_device",
    "mapped_mib",
    "max_gpu_layers",
    "place",
    "placement",
    "tensor_split_for",
]
