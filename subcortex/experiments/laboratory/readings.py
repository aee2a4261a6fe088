"""Clocks, temperatures and throttling of the machine, beside each sample. Effects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psutil

from subcortex.hardware import Hardware


@dataclass(frozen=True, slots=True)
class Readings:
    """What the machine shows at one moment.

    Args:
        gpus: For each GPU: ``sm_clock_mhz``, ``temperature_c``, ``power_draw_w``, ``memory_used_mib``.
        cpu_mhz: The host's mean clock; None where it is not told.
        throttled_for: Why a GPU holds itself back (heat, power brake), in words; empty if none does.
    """

    gpus: tuple[Mapping[str, Any], ...] = ()
    cpu_mhz: float | None = None
    throttled_for: str = ""

    def as_facts(self) -> dict[str, Any]:
        """Return it as it is kept beside a sample; what is not known is left out."""
        facts: dict[str, Any] = {"gpus": list(self.gpus)} if self.gpus else {}
        if self.cpu_mhz is not None:
            facts["cpu_mhz"] = self.cpu_mhz
        if self.throttled_for:
            facts["throttled_for"] = self.throttled_for
        return facts


class Sensors:
    """Reads the machine; a reading takes about a millisecond."""

    def __init__(self, hardware: Hardware) -> None:
        self._hardware = hardware

    def read(self) -> Readings:
        """Return what the machine shows now."""
        frequency = psutil.cpu_freq()
        return Readings(cpu_mhz=frequency.current if frequency else None)
