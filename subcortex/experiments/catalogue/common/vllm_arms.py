"""A vLLM tier at another size of tensor parallelism, so that sizes compare."""

from __future__ import annotations

import os
from typing import Any

from subcortex.config import VllmTier
from subcortex.experiments.catalogue.common.flag_words import without
from subcortex.experiments.scene import Scene

#: Left on a card beside the weights: context, activations, graphs, and a pool worth its name.
BESIDE_MIB = 12 * 1024.0
_CPU_POOL_MIB = 512
_POOL_FLAGS = ("--kv-cache-memory-bytes", "--gpu-memory-utilization")
_SLEEP_FLAGS = ("--enable-sleep-mode", "--no-enable-sleep-mode")
_SIZE_FLAGS = ("--tensor-parallel-size", "--pipeline-parallel-size")
_CPU_POOL, _CPU_CORES = "VLLM_CPU_KVCACHE_SPACE", "VLLM_CPU_OMP_THREADS_BIND"


def cores() -> list[int]:
    """Return the CPU cores that this process may use."""
    return sorted(os.sched_getaffinity(0))


def room_mib(scene: Scene) -> float:
    """Return the memory of the smallest of the first two cards, without end where there is none."""
    return min((gpu.memory_total_mib for gpu in scene.hardware.gpus[:2]), default=float("inf"))


def resized(scene: Scene, tier: VllmTier, size: int, *, weights_mib: float) -> VllmTier:
    """Return the tier on so many ranks.

    The pool is not pinned on GPUs: vLLM would skip the profiling that tells activations from the rest, and
    the pool's own size is known either way. Sleep mode is off, since memory that it gives back behind torch's
    back makes "non-torch" negative. On the CPU the pool is pinned, to as many tokens at each size.

    Args:
        scene: The machine.
        tier: As configured.
        size: Tensor-parallel ranks.
        weights_mib: Of the whole model, which one card is to hold.
    """
    flags = without(tier.flags, *_SLEEP_FLAGS, *_SIZE_FLAGS, *_POOL_FLAGS)
    changes: dict[str, Any] = {
        "tensor_parallel_size": size,
        "pipeline_parallel_size": 1,
        "sleep_mode": None,
        "nominal_load_s": None,
        "flags": flags,
    }
    if scene.on_gpus:
        there = [gpu.index for gpu in scene.hardware.gpus]
        given = [index for index in tier.gpus or () if index in there]
        changes["gpus"] = sorted([*given, *(index for index in there if index not in given)][:size])
        needed = (1.05 * weights_mib + BESIDE_MIB) / room_mib(scene)
        share = min(0.9, max(needed, tier.gpu_memory_utilization or 0.0))
        changes["gpu_memory_utilization"] = round(share, 2)
    else:
        env = {name: value for name, value in tier.env.items() if name != _CPU_POOL}
        changes["env"] = env | {
            _CPU_CORES: "|".join(map(str, cores()[:size])),
            "OMP_NUM_THREADS": "1",
        }
        # What profiling would tell of a GPU it does not tell here, and it would take most of the host.
        changes["flags"] = [*flags, _POOL_FLAGS[0], str(_CPU_POOL_MIB * 2**20 // size)]
    return tier.model_copy(update=changes)
