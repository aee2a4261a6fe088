"""Boots made to measure: estimates and what came of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from subcortex.types import BootFigures, DeviceFigures
from subcortex.vram.amount import Amount
from subcortex.vram.footprint import Component, DeviceNeed, Footprint
from subcortex.vram.learning.boots import Boot, BootKey

AT = datetime(2026, 3, 1, tzinfo=UTC)
KEY = BootKey("vllm", "0.26.0", "NVIDIA H200", 1)


def boot(
    measured_mib: float,
    *,
    estimate: Amount | None = None,
    told: Amount | None = None,
    component: Component = Component.ACTIVATIONS,
    model: str = "a",
    key: BootKey = KEY,
    hour: int = 0,
    setup: dict[str, Any] | None = None,
) -> Boot:
    """A boot with one component on one device, estimated at 1000 ± 100 MiB unless said otherwise."""
    estimate = estimate or Amount(1000.0, 100.0)

    def footprint(amount: Amount) -> Footprint:
        return Footprint((DeviceNeed({component: amount}),))

    pool = component is Component.KV
    device = DeviceFigures(
        device="GPU 0",
        components={} if pool else {component.value: measured_mib},
        kv_pool_mib=measured_mib if pool else None,
    )
    return Boot(
        at=AT + timedelta(hours=hour),
        key=key,
        model=model,
        predicted=footprint(told or estimate),
        raw=footprint(estimate),
        measured=BootFigures(engine=key.engine, devices=[device]),
        setup=setup or {},
    )
