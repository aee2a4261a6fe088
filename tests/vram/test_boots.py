"""Predicted against measured: what is compared with what, and what is left out."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from subcortex.engines._vllm_memory import read_boot
from subcortex.journal import BootRecord
from subcortex.types import BootFigures, DeviceFigures
from subcortex.vram.amount import Amount
from subcortex.vram.footprint import Component, DeviceNeed, Footprint
from subcortex.vram.learning.boots import (
    BootKey,
    Prediction,
    Residual,
    boot_from,
    footprint_from,
    footprint_json,
    residuals,
    setup_from,
    setup_json,
)
from subcortex.vram.setup import LlamaCppSetup, VllmSetup

RECORDED = Path(__file__).parents[1] / "engines" / "recorded"
CARD = DeviceNeed(
    {
        Component.WEIGHTS: Amount(15360.0),
        Component.KV: Amount(19000.0, 300.0),
        Component.ACTIVATIONS: Amount(1000.0, 200.0),
        Component.GRAPHS: Amount(900.0, 150.0),
        Component.CONTEXT: Amount(500.0, 60.0),
        Component.COMMUNICATION: Amount(0.0, 80.0),
    }
)


def recorded(name: str) -> BootFigures:
    figures = read_boot((RECORDED / name).read_text().splitlines())
    assert figures is not None
    return figures


def by_component(found: list[Residual]) -> dict[str, float]:
    return {"+".join(one.components): round(one.residual_mib, 2) for one in found}


def test_a_boot_on_an_empty_card_is_compared_part_by_part() -> None:
    found = residuals(Footprint((CARD,)), recorded("vllm-0.26-8b-tp1-memory.log"), (0.0,))
    # 139.80 GiB less 139.29 were gone before its first reading, and 0.22 went outside torch afterwards.
    # The pool was sized by what the rest left over, so it says nothing.
    assert by_component(found) == {
        "weights": 0.0,
        "activations": 126.4,
        "graphs": 103.52,
        "context+communication": round((139.8 - 139.29 + 0.22) * 1024 - 500, 2),
    }
    joint = found[-1]
    assert joint.predicted == Amount(500.0, 100.0)


def test_what_the_driver_counts_beyond_the_log_is_cached() -> None:
    figures = recorded("vllm-0.26-8b-tp1-memory.log")
    weighed = [device.model_copy(update={"taken_mib": 37563.0}) for device in figures.devices]
    found = residuals(Footprint((CARD,)), figures.model_copy(update={"devices": weighed}), (0.0,))
    (cached,) = (one.measured_mib for one in found if one.components == (Component.CACHED,))
    assert cached == pytest.approx(37563 - (15.0 + 1.1 + 0.98 + 0.22 + 18.62 + 139.8 - 139.29) * 1024)


def test_what_others_hold_is_not_the_engines() -> None:
    figures = recorded("vllm-0.26-70b-tp2-memory.log")
    both = Footprint((CARD, CARD))
    # Another engine held 36.15 GiB of the first card.
    found = residuals(both, figures, (36.15 * 1024, 0.0))
    overhead = [round(one.measured_mib) for one in found if len(one.components) == 2]
    assert overhead == [1495, 1495]
    unknown = residuals(both, figures, (None, 0.0))
    assert [one.device for one in unknown if len(one.components) == 2] == ["GPU 1"]
    assert all(len(one.components) == 1 for one in residuals(both, figures))


def llamacpp(**device: Any) -> BootFigures:
    card = DeviceFigures(
        device="CUDA0", components={"weights": 3500.0, "activations": 550.0}, kv_pool_mib=360.0, **device
    )
    return BootFigures(
        engine="llama.cpp",
        devices=[card],
        host=DeviceFigures(device="CPU", components={"mapped": 400.0, "activations": 37.0}, other_mib=None),
    )


def test_llamacpps_context_is_what_the_driver_counts_beyond_its_buffers() -> None:
    host = DeviceNeed({Component.ACTIVATIONS: Amount(30.0, 4.0), Component.CONTEXT: Amount(110.0, 30.0)})
    predicted = Footprint((CARD,), host=host)
    found = residuals(predicted, llamacpp(taken_mib=4790.0))
    assert [(one.device, "+".join(one.components), one.measured_mib) for one in found] == [
        ("CUDA0", "weights", 3500.0),
        ("CUDA0", "activations", 550.0),
        ("CUDA0", "kv", 360.0),
        ("CUDA0", "context+communication", 380.0),
        ("host", "activations", 37.0),
    ]
    without = residuals(predicted, llamacpp())
    assert [one for one in without if Component.CONTEXT in one.components] == []


def test_devices_that_cannot_be_matched_are_left_out() -> None:
    assert residuals(Footprint(()), recorded("vllm-0.26-8b-tp1-memory.log"), (0.0,)) == []
    assert residuals(Footprint((CARD,)), recorded("vllm-0.32-cpu-tp2-boot.log")) == []


@pytest.mark.parametrize(
    ("measured", "step", "inside"),
    [(1000.0, 0.0, True), (1010.0, 0.0, False), (1010.0, 20.0, True), (1016.0, 0.0, False)],
)
def test_rounding_is_no_miss(measured: float, step: float, inside: bool) -> None:
    residual = Residual("GPU 0", (Component.WEIGHTS,), Amount(1000.0, 5.0), measured)
    assert residual.inside(resolution_mib=step) is inside


def test_footprints_and_setups_come_back_from_json() -> None:
    whole = Footprint(
        (CARD, DeviceNeed({})),
        host=DeviceNeed({Component.WEIGHTS: Amount(1.5, 0.25)}),
        asleep=(Amount(2000.0, 90.0), Amount(3400.0, 90.0)),
        asleep_host=Amount(15360.0),
    )
    for footprint in (whole, Footprint(())):
        assert footprint_from(json.loads(json.dumps(footprint_json(footprint)))) == footprint
    for setup in (
        VllmSetup(tensor_parallel_size=2, context_tokens=8192, version="0.26.0"),
        LlamaCppSetup(tensor_split=(8.0, 3.0), flash_attention=True),
        LlamaCppSetup(),
    ):
        stored = setup_json(setup)
        assert json.loads(json.dumps(stored)) == stored
        assert setup_from(stored) == setup


def record(**changes: Any) -> BootRecord:
    setup = VllmSetup(gpu_memory_utilization=0.25, version="0.26.0")
    raw = Footprint((replace(CARD, components={**CARD.components, Component.CONTEXT: Amount(450.0, 90.0)}),))
    prediction = Prediction(Footprint((CARD,)), raw, setup, "LlamaForCausalLM", (0,), (0.0,))
    values: dict[str, Any] = {
        "id": "b",
        "at": datetime(2026, 3, 1, tzinfo=UTC),
        "run_id": "r",
        "tier": "fast",
        "engine": "vllm",
        "engine_version": "vllm 0.26.0",
        "model": "models/8b",
        "architecture": prediction.architecture,
        "gpus": [("NVIDIA H200", "GPU-1"), ("NVIDIA H200", "GPU-2")],
        "tensor_parallel_size": 2,
        "setup": setup_json(setup),
        "predicted": json.loads(json.dumps(prediction.to_json())),
        "outcome": "ready",
        "measured": recorded("vllm-0.26-8b-tp1-memory.log"),
    }
    return BootRecord.model_validate({**values, **changes})


def test_a_recorded_boot_can_be_learned_from() -> None:
    boot = boot_from(record())
    assert boot is not None
    assert boot.key == BootKey("vllm", "0.26.0", "NVIDIA H200", 2)
    assert (boot.model, boot.architecture) == ("models/8b", "LlamaForCausalLM")
    assert "version" not in boot.setup
    assert boot.setup["gpu_memory_utilization"] == 0.25
    told, raw = by_component(boot.told_residuals), by_component(boot.raw_residuals)
    assert raw["context+communication"] == told["context+communication"] + 50.0


def test_what_the_key_lacks_is_none_and_unlike_cards_are_both_named() -> None:
    bare = boot_from(record(engine_version=None, measured=None, gpus=[]))
    assert bare is not None
    assert bare.key == BootKey("vllm", None, None, 2)
    assert bare.raw_residuals == bare.told_residuals == []
    from_log = boot_from(record(engine_version=None))
    assert from_log is not None
    assert from_log.key.version == "0.26.0"
    mixed = boot_from(record(gpus=[("RTX 3060 Ti", None), ("GTX 1060", None)]))
    assert mixed is not None
    assert mixed.key.gpu_name == "RTX 3060 Ti + GTX 1060"


@pytest.mark.parametrize(
    "predicted",
    [
        None,
        {},
        {"footprint": {"devices": [{"weightz": [1, 2]}], "host": {}, "asleep": None}},
        {"footprint": 3},
    ],
)
def test_without_a_readable_prediction_nothing_is_learned(predicted: Any) -> None:
    assert boot_from(record(predicted=predicted)) is None
