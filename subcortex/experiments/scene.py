"""The machine that experiments would run on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from subcortex.config import Config
from subcortex.hardware import Hardware


@dataclass(frozen=True, slots=True)
class Scene:
    """The machine that experiments would run on, as it was found; nothing of it runs.

    Args:
        config: Its tiers are what is measured.
        hardware: GPUs, links, host.
        python: Interpreter that has torch, for probes; None where no tier has one.
        tools: Installed programs by name (``llama-bench``, …), with their paths.
        versions: What programs say of themselves: ``torch``, ``vllm``, ``nccl``, ``llama.cpp``, ….
    """

    config: Config
    hardware: Hardware
    python: Path | None = None
    tools: Mapping[str, Path] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def on_gpus(self) -> bool:
        """Whether it is done at GPUs' scale; else on the CPU, small."""
        return bool(self.hardware.gpus)
