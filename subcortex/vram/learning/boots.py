"""A start of an engine: what was predicted of it, what it took, and the difference by component. Pure.

What is compared with what:

* ``weights``, ``activations``, ``graphs``: the engine's own figures.
* ``kv``: only where the pool was given its size. vLLM's own sizing fills what the rest leaves, so a pool's
  difference there is the negative of the others' and would be learned twice.
* ``context`` and ``communication`` together, since nobody tells them apart. vLLM: what it counts outside
  torch since its first reading, plus what was gone before that reading (the context and NCCL exist by then:
  total less free, less what others held). Others: what the driver charges its processes for, less buffers.
* ``cached``: what the driver charges vLLM for beyond all that its log adds up to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from math import isfinite
from typing import Any

from subcortex.journal import BootRecord
from subcortex.types import BootFigures, DeviceFigures
from subcortex.vram.amount import Amount, total
from subcortex.vram.footprint import Component, DeviceNeed, Footprint
from subcortex.vram.setup import LlamaCppSetup, Setup, VllmSetup

_NAMED = (Component.WEIGHTS, Component.ACTIVATIONS, Component.GRAPHS)
_OVERHEAD = (Component.CONTEXT, Component.COMMUNICATION)


@dataclass(frozen=True, slots=True)
class BootKey:
    """What residuals are learned by.

    Args:
        engine: ``vllm`` or ``llama.cpp``.
        version: The engine's, e.g. ``0.26.0``; None if unknown.
        gpu_name: As NVML names the cards; None on a machine without.
        tensor_parallel_size: Ranks (llama.cpp: GPUs that the layers are split over).
        pipeline_parallel_size: Stages.
    """

    engine: str
    version: str | None = None
    gpu_name: str | None = None
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a tier was expected to take, as it is stored before the boot.

    Args:
        footprint: What the plan counted on.
        raw: The estimate before anything learned from boots; None if that is the same. Residuals are taken
            from it: from the corrected one, they would vanish once learned, and be forgotten.
        setup: How the engine is to run.
        architecture: Of the model.
        gpu_indices: NVML's, in the engine's order.
        used_before_mib: What others hold of each of these GPUs; None where that is not known.
    """

    footprint: Footprint
    raw: Footprint | None = None
    setup: Setup | None = None
    architecture: str | None = None
    gpu_indices: tuple[int, ...] = ()
    used_before_mib: tuple[float | None, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it, the setup and architecture aside, which have places of their own."""
        return {
            "footprint": footprint_json(self.footprint),
            "raw": footprint_json(self.raw) if self.raw is not None else None,
            "gpu_indices": list(self.gpu_indices),
            "used_before_mib": list(self.used_before_mib),
        }


@dataclass(frozen=True, slots=True)
class Residual:
    """One measured difference.

    Args:
        device: As the engine names it; ``host`` for host memory.
        components: What was measured, several where they came in one figure.
        predicted: Their sum as predicted, MiB.
        measured_mib: What they took.
    """

    device: str
    components: tuple[Component, ...]
    predicted: Amount
    measured_mib: float

    @property
    def residual_mib(self) -> float:
        """Measured less predicted."""
        return self.measured_mib - self.predicted.mean_mib

    def inside(self, probability: float = 0.9, *, resolution_mib: float = 0.0) -> bool:
        """Return whether the measured lies in the predicted interval, give or take its rounding."""
        low, high = self.predicted.interval(probability)
        return low - resolution_mib / 2 <= self.measured_mib <= high + resolution_mib / 2

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {
            "device": self.device,
            "component": "+".join(self.components),
            "predicted_mib": round(self.predicted.mean_mib, 3),
            "sigma_mib": round(self.predicted.sigma_mib, 3),
            "measured_mib": round(self.measured_mib, 3),
            "residual_mib": round(self.residual_mib, 3),
        }


@dataclass(frozen=True, slots=True)
class Boot:
    """A start that is over, as the calibration learns from it.

    Args:
        at: When it began.
        predicted: What the plan counted on.
        raw: The estimate before anything learned.
        measured: What the engine said; None if nothing.
        setup: As JSON; two boots of one model with the same setup are repeats.
    """

    at: datetime
    key: BootKey
    model: str
    predicted: Footprint
    raw: Footprint
    measured: BootFigures | None = None
    architecture: str | None = None
    setup: Mapping[str, Any] = field(default_factory=dict)
    used_before_mib: tuple[float | None, ...] = ()
    outcome: str | None = "ready"

    @property
    def raw_residuals(self) -> list[Residual]:
        """Against the estimate before anything learned: what is learned from."""
        return residuals(self.raw, self.measured, self.used_before_mib) if self.measured else []

    @property
    def told_residuals(self) -> list[Residual]:
        """Against what the plan counted on: what it is judged by."""
        return residuals(self.predicted, self.measured, self.used_before_mib) if self.measured else []


def residuals(
    predicted: Footprint, measured: BootFigures, used_before_mib: Sequence[float | None] = ()
) -> list[Residual]:
    """Return the differences of one boot, device by device.

    Args:
        predicted: Device by device in the engine's order.
        measured: What the engine said.
        used_before_mib: What others held of each GPU when it started; where it is None or missing, context
            and communication of vLLM cannot be told and are left out.
    """
    found: list[Residual] = []
    if len(measured.devices) == len(predicted.devices):
        for place, (need, device) in enumerate(zip(predicted.devices, measured.devices, strict=True)):
            before = used_before_mib[place] if place < len(used_before_mib) else None
            figures = _named(device, measured)
            overhead = _overhead_mib(device, before)
            if overhead is not None:
                figures[_OVERHEAD] = overhead
                if (kept := _cached_mib(device, overhead)) is not None:
                    figures[(Component.CACHED,)] = kept
            found += _compared(device.device, need, figures)
    if measured.host is not None and predicted.host.components:
        found += _compared("host", predicted.host, _named(measured.host, measured))
    return found


def _named(device: DeviceFigures, boot: BootFigures) -> dict[tuple[Component, ...], float]:
    figures: dict[tuple[Component, ...], float] = {
        (component,): device.components[component] for component in _NAMED if component in device.components
    }
    if device.kv_pool_mib is not None and boot.kv_pinned:
        figures[(Component.KV,)] = device.kv_pool_mib
    return figures


def _overhead_mib(device: DeviceFigures, used_before_mib: float | None) -> float | None:
    """Return context and communication in MiB, None if it cannot be told."""
    if device.other_mib is not None:
        if device.total_mib is None or device.free_at_start_mib is None or used_before_mib is None:
            return None
        before = device.total_mib - device.free_at_start_mib - used_before_mib
        return device.other_mib + max(0.0, before)
    if device.taken_mib is not None and device.components:
        buffers = sum(device.components.values()) - device.components.get("mapped", 0.0)
        return max(0.0, device.taken_mib - buffers - (device.kv_pool_mib or 0.0))
    return None


def _cached_mib(device: DeviceFigures, overhead_mib: float) -> float | None:
    """Return what the driver counts beyond all that vLLM's log adds up to, MiB."""
    if device.taken_mib is None or device.other_mib is None or "activations" not in device.components:
        return None
    logged = sum(device.components.values()) + (device.kv_pool_mib or 0.0)
    return max(0.0, device.taken_mib - logged - overhead_mib)


def _compared(name: str, need: DeviceNeed, figures: Mapping[tuple[Component, ...], float]) -> list[Residual]:
    return [
        Residual(name, components, total(need.of(part) for part in components), mib)
        for components, mib in figures.items()
    ]


def footprint_json(footprint: Footprint) -> dict[str, Any]:
    """Return a footprint as JSON can hold it: ``[mean, σ]`` in MiB by component."""
    asleep, host = footprint.asleep, footprint.asleep_host
    return {
        "devices": [_need_json(need) for need in footprint.devices],
        "host": _need_json(footprint.host),
        "asleep": None if asleep is None else [_amount_json(amount) for amount in asleep],
        "asleep_host": None if host is None else _amount_json(host),
    }


def footprint_from(stored: Mapping[str, Any]) -> Footprint:
    """Return what ``footprint_json`` wrote.

    Raises:
        KeyError, TypeError, ValueError: It did not write that.
    """
    asleep, host = stored["asleep"], stored["asleep_host"]
    return Footprint(
        devices=tuple(_need_from(need) for need in stored["devices"]),
        host=_need_from(stored["host"]),
        asleep=None if asleep is None else tuple(Amount(*pair) for pair in asleep),
        asleep_host=None if host is None else Amount(*host),
    )


def setup_json(setup: Setup) -> dict[str, Any]:
    """Return a setup as JSON can hold it, its engine beside it."""
    engine = "vllm" if isinstance(setup, VllmSetup) else "llama.cpp"
    values = asdict(setup).items()
    return {"engine": engine, **{key: list(v) if isinstance(v, tuple) else v for key, v in values}}


def setup_from(stored: Mapping[str, Any]) -> Setup:
    """Return what ``setup_json`` wrote.

    Raises:
        KeyError, TypeError: It did not write that.
    """
    values = {name: value for name, value in stored.items() if name != "engine"}
    if stored["engine"] == "vllm":
        return VllmSetup(**values)
    split = values.get("tensor_split")
    return LlamaCppSetup(**{**values, "tensor_split": tuple(split) if split is not None else None})


def boot_from(record: BootRecord) -> Boot | None:
    """Return what can be learned from a recorded start; None without a readable prediction."""
    stored = record.predicted
    if stored is None:
        return None
    try:
        predicted = footprint_from(stored["footprint"])
        raw = footprint_from(stored["raw"]) if stored.get("raw") else predicted
        before = [None if mib is None else float(mib) for mib in stored.get("used_before_mib") or ()]
        key = boot_key(record)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return Boot(
        at=record.at,
        key=key,
        model=record.model,
        predicted=predicted,
        raw=raw,
        measured=record.measured,
        architecture=record.architecture,
        setup={key: value for key, value in (record.setup or {}).items() if key != "version"},
        used_before_mib=tuple(before),
        outcome=record.outcome,
    )


def boot_key(record: BootRecord) -> BootKey:
    """Return what a recorded start is learned by; of unlike cards, all names in their order."""
    version = record.engine_version or (record.measured.version if record.measured else None)
    names = list(dict.fromkeys(name for name, _ in record.gpus))
    return BootKey(
        engine=record.engine,
        version=plain_version(version),
        gpu_name=" + ".join(names) or None,
        tensor_parallel_size=record.tensor_parallel_size,
        pipeline_parallel_size=record.pipeline_parallel_size,
    )


def plain_version(version: str | None) -> str | None:
    """Return a version without the engine's name before it: ``vllm 0.26.0`` is ``0.26.0``."""
    return version.rpartition(" ")[2] or None if version else None


def _need_json(need: DeviceNeed) -> dict[str, list[float]]:
    return {component.value: _amount_json(amount) for component, amount in need.components.items()}


def _need_from(stored: Mapping[str, Any]) -> DeviceNeed:
    return DeviceNeed({Component(name): _amount_from(pair) for name, pair in stored.items()})


def _amount_from(pair: Sequence[Any]) -> Amount:
    mean, sigma = (float(value) for value in pair)
    if not (isfinite(mean) and isfinite(sigma) and sigma >= 0):
        raise ValueError(f"no amount of memory: {mean} ± {sigma}")
    return Amount(mean, sigma)


def _amount_json(amount: Amount) -> list[float]:
    return [amount.mean_mib, amount.sigma_mib]
