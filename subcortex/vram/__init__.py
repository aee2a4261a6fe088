"""What fits where: amounts of memory, what engines take of each device, joint plans (``vram.plan``)."""

from __future__ import annotations

from subcortex.vram.amount import Amount
from subcortex.vram.footprint import Component, DeviceNeed, Footprint
from subcortex.vram.setup import LlamaCppSetup, Setup, VllmSetup

__all__ = ["Amount", "Component", "DeviceNeed", "Footprint", "LlamaCppSetup", "Setup", "VllmSetup"]
