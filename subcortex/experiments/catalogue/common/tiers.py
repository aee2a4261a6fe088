"""Tiers as experiments see them: which can be measured, where they run, and what they are made of."""

from __future__ import annotations

from pathlib import Path

from subcortex.config import Config, LlamaCppTier, RemoteTier, VllmTier
from subcortex.engines._flags import last_value
from subcortex.experiments.scene import Scene
from subcortex.journal.board.subjects import model_name

LocalTier = LlamaCppTier | VllmTier
_WEIGHTS = ("*.safetensors", "*.bin")
#: Seconds from start to ready of engines seen so far, and what each GiB of weights adds.
_GPU_BOOT_S, _CPU_BOOT_S, _LLAMACPP_BOOT_S, _A_GIB_S = 80.0, 25.0, 2.0, 0.7


def local_tiers(scene: Scene) -> list[LocalTier]:
    """Return the tiers that run here, as configured."""
    return [tier for tier in scene.config.tiers if not isinstance(tier, RemoteTier)]


def vllm_tiers(scene: Scene) -> list[VllmTier]:
    """Return the tiers on vLLM."""
    return [tier for tier in scene.config.tiers if isinstance(tier, VllmTier)]


def local_tier(scene: Scene, name: str) -> LocalTier:
    """Return the tier of that name, which runs here."""
    tier = scene.config.tier(name)
    assert not isinstance(tier, RemoteTier), "no inquiry is made of a remote tier"
    return tier


def gpus_of(scene: Scene, tier: LocalTier) -> tuple[int, ...]:
    """Return the indices of the GPUs that a tier's engine takes; none where it computes on the host."""
    there = tuple(gpu.index for gpu in scene.hardware.gpus)
    if isinstance(tier, LlamaCppTier):
        # The embedded llama.cpp has no CUDA.
        if tier.executable is None or tier.gpu_layers == 0:
            return ()
        return there if tier.gpus is None else tuple(tier.gpus)
    seen = there if tier.gpus is None else tuple(tier.gpus)
    return seen[: tier.tensor_parallel_size * tier.pipeline_parallel_size] if there else ()


def about(tier: LocalTier) -> str:
    """Return the one spelling of a tier's model."""
    return model_name(tier.model) or tier.name


def made_up(tier: LocalTier) -> bool:
    """Return whether the engine makes its weights up, and so reads none."""
    return isinstance(tier, VllmTier) and last_value(tier.flags, "--load-format") == "dummy"


def weight_files(config: Config, tier: LocalTier) -> tuple[Path, ...]:
    """Return the files that a start reads weights from; none where they are made up or not on this disk."""
    if made_up(tier):
        return ()
    path = config.resolve(tier.model)
    if path.is_file():
        stem = path.name.rpartition("-of-")[0].rpartition("-")[0]
        parts = sorted(path.parent.glob(f"{stem}-*-of-*{path.suffix}")) if stem else []
        return tuple(parts) if path in parts else (path,)
    for pattern in _WEIGHTS:
        if found := sorted(path.glob(pattern)):
            return tuple(found)
    return ()


def boot_s(scene: Scene, tier: LocalTier, weights_mib: float | None) -> float:
    """Return the seconds that a start is expected to take here."""
    if tier.nominal_load_s is not None:
        return tier.nominal_load_s
    gib = (weights_mib or 0.0) / 1024
    if isinstance(tier, LlamaCppTier):
        return _LLAMACPP_BOOT_S + gib
    if gpus_of(scene, tier):
        return _GPU_BOOT_S + _A_GIB_S * gib / tier.tensor_parallel_size
    return _CPU_BOOT_S * tier.tensor_parallel_size * tier.pipeline_parallel_size
