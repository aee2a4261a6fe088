"""Clocks, temperatures and throttling of the machine, beside each sample. Effects.

A sample counts as throttled where heat or a failing supply held a GPU back: hardware slowdown, thermal
slowdown by hardware or software, power brake. A card at its power limit (``power_capped``) does not: that is
how fast it is for that work, and so it will be when it serves. Idle clocks and clocks that a person set do
not either; all reasons are kept beside the sample in words.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from subcortex.hardware import Hardware
from subcortex.hardware._readings import NONSENSE

_MIB = 2**20
# NVML's own numbers, which never change; older bindings lack some of the names.
_CLOCK_SM = 1
_TEMPERATURE_GPU = 0
#: Bit → what it says, of ``nvmlClocksEventReason…``.
_REASONS = {
    0x1: "idle",
    0x2: "clocks set by a person",
    0x4: "power limit",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "heat (software)",
    0x40: "heat (hardware)",
    0x80: "power brake",
    0x100: "display clocks",
}
_POWER_CAP = 0x4
_SPOILS = 0x8 | 0x20 | 0x40 | 0x80
#: Named anew in 2023; either may be missing.
_ASK_REASONS = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
#: What NVML shows does not move faster than this.
_FRESH_S = 0.02
_CPU_FRESH_S = 1.0
_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Readings:
    """What the machine shows at one moment.

    Args:
        gpus: For each GPU: ``gpu``, ``sm_clock_mhz``, ``temperature_c``, ``power_draw_w``,
            ``memory_used_mib``, ``power_capped`` and ``clock_reasons``, as far as they are told.
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


def reasons_in_words(bits: int) -> list[str]:
    """Return what NVML's reasons for the present clocks say."""
    return [words for bit, words in _REASONS.items() if bits & bit]


class Sensors:
    """Reads the machine; a reading takes about a millisecond. No method raises.

    Args:
        hardware: Whose GPUs are read; those of a stand-in are not there to be read.
        nvml: What answers as ``pynvml`` does; pynvml itself if not given.
        cpuinfo: The kernel's file, but for tests.
    """

    def __init__(
        self, hardware: Hardware, *, nvml: ModuleType | Any | None = None, cpuinfo: Path = _CPUINFO
    ) -> None:
        self._indices = () if hardware.assumed else tuple(gpu.index for gpu in hardware.gpus)
        self._nvml = nvml
        self._handles: dict[int, Any] | None = None
        self._cpuinfo = cpuinfo
        self._cpu: tuple[float, float | None] | None = None
        self._last: tuple[float, Readings] | None = None

    def read(self) -> Readings:
        """Return what the machine shows now; within 20 ms the same again."""
        now_s = time.monotonic()
        if self._last is not None and now_s - self._last[0] < _FRESH_S:
            return self._last[1]
        gpus, throttled = [], []
        for index, handle in self._opened().items():
            facts, bits = self._gpu(index, handle)
            gpus.append(facts)
            if bits & _SPOILS:
                throttled.append(f"GPU {index}: {', '.join(reasons_in_words(bits & _SPOILS))}")
        found = Readings(tuple(gpus), self._cpu_mhz(now_s), "; ".join(throttled))
        self._last = (now_s, found)
        return found

    def memory_used_mib(self) -> dict[int, float]:
        """Return what is in use of each GPU, MiB, whoever uses it, the driver's own share included.

        GPUs that do not tell are left out.
        """
        found = {}
        for index, handle in self._opened().items():
            memory = self._ask("nvmlDeviceGetMemoryInfo", handle)
            with contextlib.suppress(*NONSENSE):
                found[index] = float(memory.used) / _MIB
        return found

    def close(self) -> None:
        """Let go of NVML; a later reading opens it again."""
        if self._handles:
            self._ask("nvmlShutdown")
        self._handles = None

    def _opened(self) -> dict[int, Any]:
        """Return each GPU's handle; empty where there are none, or where NVML does not start."""
        if self._handles is None:
            self._handles = {}
            if self._indices:
                self._open(self._handles)
        return self._handles

    def _open(self, handles: dict[int, Any]) -> None:
        if self._nvml is None:
            import pynvml

            self._nvml = pynvml
        try:
            self._nvml.nvmlInit()
        except self._nvml.NVMLError:
            return
        for index in self._indices:
            handle = self._ask("nvmlDeviceGetHandleByIndex", index)
            if handle is not None:
                handles[index] = handle

    def _ask(self, function: str, *arguments: Any) -> Any:
        """Return a function's answer, None where there is none."""
        assert self._nvml is not None
        try:
            return getattr(self._nvml, function)(*arguments)
        except (self._nvml.NVMLError, *NONSENSE):
            return None

    def _gpu(self, index: int, handle: Any) -> tuple[dict[str, Any], int]:
        memory = self._ask("nvmlDeviceGetMemoryInfo", handle)
        milliwatts = _number(self._ask("nvmlDeviceGetPowerUsage", handle))
        bits = None
        for function in _ASK_REASONS:
            if bits is None:
                bits = _number(self._ask(function, handle))
        told: dict[str, Any] = {
            "sm_clock_mhz": _number(self._ask("nvmlDeviceGetClockInfo", handle, _CLOCK_SM)),
            "temperature_c": _number(self._ask("nvmlDeviceGetTemperature", handle, _TEMPERATURE_GPU)),
            "power_draw_w": None if milliwatts is None else milliwatts / 1000,
            "memory_used_mib": None if memory is None else _number(memory.used, _MIB),
        }
        facts = {"gpu": index, **{name: value for name, value in told.items() if value is not None}}
        found = int(bits or 0)
        if found & _POWER_CAP:
            facts["power_capped"] = True
        if words := reasons_in_words(found):
            facts["clock_reasons"] = words
        return facts, found

    def _cpu_mhz(self, now_s: float) -> float | None:
        """Return the cores' mean clock, looked up once a second: a large host's file takes milliseconds."""
        if self._cpu is None or now_s - self._cpu[0] >= _CPU_FRESH_S:
            self._cpu = (now_s, _mean_mhz(self._cpuinfo))
        return self._cpu[1]


def _mean_mhz(cpuinfo: Path) -> float | None:
    try:
        clocks = re.findall(r"^cpu MHz\s*:\s*([0-9.]+)$", cpuinfo.read_text(errors="replace"), re.MULTILINE)
        found = [float(clock) for clock in clocks]
    except (OSError, ValueError):
        return None
    return round(sum(found) / len(found), 1) if found else None


def _number(value: Any, of: float = 1) -> float | None:
    """Return a number as told, parted by ``of``; None for whatever is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if of == 1 else value / of


__all__ = ["Readings", "Sensors", "reasons_in_words"]
