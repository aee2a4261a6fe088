"""What fits where: memory estimates for models on GPUs."""

from __future__ import annotations

from subcortex.vram.estimate import (
    Need,
    Shape,
    kv_mib_per_token,
    llamacpp_need,
    usable_mib,
    vllm_need,
    weights_mib,
)

__all__ = ["Need", "Shape", "kv_mib_per_token", "llamacpp_need", "usable_mib", "vllm_need", "weights_mib"]
