"""What this machine has: GPUs by NVML, host memory, cores; or a stand-in for a machine elsewhere."""

from __future__ import annotations

from subcortex.hardware.detect import detect
from subcortex.hardware.model import Gpu, Hardware
from subcortex.hardware.standin import load_snapshot, parse_gpus, with_gpus

__all__ = ["Gpu", "Hardware", "detect", "load_snapshot", "parse_gpus", "with_gpus"]
