"""Where an engine's process lives: the path of its socket, and its environment."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from subcortex.config import Config, LlamaCppTier, RemoteTier, VllmTier
from subcortex.engines import _remains

#: A Unix socket's address has 108 bytes; some servers append to it while they bind.
_SOCKET_PATH_BYTES = 100


def socket_path(folder: Path) -> Path:
    """Return where an engine serves: in its own folder, or in a new one whose path is short enough."""
    path = folder / "engine.sock"
    if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES:
        return path
    return Path(tempfile.mkdtemp(prefix=_remains.SHORT_PREFIX, dir=_remains.SHORT_FOLDER)) / "engine.sock"


def environment(tier: LlamaCppTier | VllmTier, config: Config) -> dict[str, str]:
    """Return our own environment as a tier's engine gets it: its GPUs, its ``env``, nobody else's keys."""
    env = dict(os.environ)
    for other in config.tiers:
        # An engine has no use for the keys of other services.
        if isinstance(other, RemoteTier) and other.api_key_env:
            env.pop(other.api_key_env, None)
    if tier.gpus is not None:
        # In NVML's order, which the config counts in; CUDA's own puts the fastest first.
        env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, tier.gpus))
    return env | tier.env
