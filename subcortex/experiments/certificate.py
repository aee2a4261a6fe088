"""What a fact depends on: the machine, the engine, the model and the settings it was measured with. Pure.

A fact holds for as long as its certificate does. The certificate is known before anything is run, so its
digest is also what an answer is remembered by: the same question of the same certificate costs nothing.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from subcortex.config import LlamaCppTier, RemoteTier, Tier
from subcortex.experiments.scene import Scene
from subcortex.hardware.child import without_secrets

#: Keys of a tier that decide when it starts or what it is called, not how fast or how large it is.
_NOT_SETTINGS = {
    "name", "model", "env", "start", "start_timeout_s", "max_restarts",
    "nominal_ttft_s", "nominal_tpot_s", "nominal_load_s",
}  # fmt: skip
#: Variables that engines and probes go by.
_RELEVANT = re.compile(
    r"^(?:NCCL_|VLLM_|CUDA_|TORCH_|PYTORCH_|GGML_|LLAMA_|GLOO_|OMP_|MKL_|OPENBLAS_|KMP_|GOMP_|NVSHMEM_|HF_HOME$|"
    r"LD_PRELOAD$)"
)
#: Of these, those that only make a program talk.
_TALK = re.compile(r"LOG|DEBUG|VERBOSE|USAGE|STATS|_PORT$|_ADDR$")


@dataclass(frozen=True, slots=True)
class Files:
    """What a model's files weigh and when the newest of them was written, ns since 1970."""

    count: int
    bytes: int
    newest_ns: int


def files_of(path: Path) -> Files | None:
    """Return what lies at a path: a file, or a folder's files, those of its subfolders left out.

    None where nothing is there.
    """
    try:
        found = [path.stat()] if path.is_file() else [one.stat() for one in path.iterdir() if one.is_file()]
    except OSError:
        return None
    if not found:
        return None
    return Files(len(found), sum(one.st_size for one in found), max(one.st_mtime_ns for one in found))


def certificate(
    scene: Scene,
    *,
    tier: Tier | None = None,
    gpus: Iterable[int] | None = None,
    look: Callable[[Path], Files | None] = files_of,
    environment: Mapping[str, str] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Return what an answer depends on, as JSON can hold it (``Inquiry.depends_on``).

    Args:
        scene: The machine.
        tier: Whose engine and model are measured; None where it is the machine alone.
        gpus: Indices of the GPUs that matter; none given: the tier's, or all.
        look: Tells a model's files.
        environment: This process's variables if not given; the tier's own come on top.
        more: Whatever else the answer depends on, by name (sizes, arms).
    """
    found: dict[str, Any] = {**_machine(scene, tier, gpus), **more}
    own = {} if tier is None or isinstance(tier, RemoteTier) else tier.env
    found["environment"] = _relevant({**(os.environ if environment is None else environment), **own})
    if tier is None:
        found["versions"] = {
            name: scene.versions[name] for name in ("torch", "nccl", "cuda") if name in scene.versions
        }
        return found
    found["engine"] = {"name": tier.engine, "version": engine_version(scene, tier)}
    found["model"] = _model(scene, tier, look)
    found["settings"] = tier.model_dump(mode="json", exclude=_NOT_SETTINGS, exclude_none=True)
    return found


def digest(certificate: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a certificate, in hexadecimal; the order of its keys does not matter."""
    text = json.dumps(certificate, sort_keys=True, separators=(",", ":"), default=str)
    return sha256(text.encode()).hexdigest()


def engine_version(scene: Scene, tier: Tier) -> str | None:
    """Return what the engine of a tier says of its version, None where nobody knows."""
    versions = scene.versions
    if (own := versions.get(f"{tier.engine} of {tier.name}")) is not None:
        return own
    if isinstance(tier, LlamaCppTier):
        # A tier that an experiment made up has the program that another tier named.
        return versions.get("llama-server" if tier.executable else "xllamacpp")
    return versions.get("vllm") if tier.engine == "vllm" else None


def _machine(scene: Scene, tier: Tier | None, gpus: Iterable[int] | None) -> dict[str, Any]:
    hardware = scene.hardware
    if gpus is None and tier is not None and not isinstance(tier, RemoteTier):
        gpus = tier.gpus
    wanted = None if gpus is None else set(gpus)
    cards = [gpu for gpu in hardware.gpus if wanted is None or gpu.index in wanted]
    host = hardware.host
    found: dict[str, Any] = {
        "cpu": host.cpu_model if host else None,
        "cores": hardware.cores,
        "cpu_quota": host.cpu_quota if host else None,
    }
    if cards:
        found |= {
            "gpus": [{"index": gpu.index, "uuid": gpu.uuid, "name": gpu.name} for gpu in cards],
            "driver": hardware.driver_version,
            "driver_cuda": ".".join(map(str, hardware.cuda_version)) if hardware.cuda_version else None,
        }
    if len(cards) > 1:
        here = {gpu.index for gpu in cards}
        found["links"] = {f"{one.a}-{one.b}": one.code for one in hardware.links if {one.a, one.b} <= here}
    return found


def _relevant(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in sorted(without_secrets(environment).items())
        if _RELEVANT.search(name) and not _TALK.search(name)
    }


def _model(scene: Scene, tier: Tier, look: Callable[[Path], Files | None]) -> dict[str, Any]:
    path = scene.config.resolve(tier.model)
    files = None if isinstance(tier, RemoteTier) else look(path)
    if files is None:
        return {"name": tier.model}
    return {
        "path": str(path),
        "files": files.count,
        "bytes": files.bytes,
        "newest_ns": files.newest_ns,
    }
