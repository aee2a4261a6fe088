"""llama.cpp's memory: what lies on which device, by component, and what it would refuse.

``layers`` places layers on devices, ``buffers`` counts KV and compute buffers, ``devices`` adds them up.
"""

from __future__ import annotations

from subcortex.vram.llamacpp.estimate import (
    HOST,
    Placement,
    best_split,
    footprint,
    layers_by_device,
    mapped_mib,
    max_gpu_layers,
    place,
    placement,
    tensor_split_for,
)

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
