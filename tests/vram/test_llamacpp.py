"""The estimate of llama.cpp's memory, held against what llama.cpp said of real shapes and of a real load."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.engines._llamacpp_memory import read_boot
from subcortex.errors import DoesNotFit, InvalidRequest
from subcortex.hardware import Gpu
from subcortex.models.shape import FullAttention, Layer, ModelShape, Recurrence
from subcortex.vram.footprint import Component, DeviceNeed
from subcortex.vram.llamacpp import (
    HOST,
    best_split,
    footprint,
    layers_by_device,
    mapped_mib,
    max_gpu_layers,
    place,
    placement,
    tensor_split_for,
)
from subcortex.vram.llamacpp.buffers import build_number, run_of
from subcortex.vram.setup import LlamaCppSetup
from tests.models.synthetic import Shape
from tests.vram.llamacpp_cases import model_shape, shape_of

_ROOT = Path(__file__).parents[2]
RECORDED: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "recorded/llamacpp/reserves.json").read_text()
)["cases"]
LLAMA = model_shape("llama-3.1-8b", "Q4_K_M")
SETUP = LlamaCppSetup(context_tokens=8192)


def gpus(*free_mib: float) -> list[Gpu]:
    return [Gpu(index=index, name="card", memory_total_mib=mib) for index, mib in enumerate(free_mib)]


def mib(need: DeviceNeed, component: Component) -> float:
    return need.of(component).mean_mib


def recorded_setup(values: dict[str, Any]) -> LlamaCppSetup:
    split = values.get("tensor_split")
    return LlamaCppSetup(**{**values, "tensor_split": tuple(split) if split else None})


def test_weights_and_kv_are_what_llama_cpp_places_on_each_device() -> None:
    for case in RECORDED:
        shape, setup = model_shape(case["model"], case["quantization"]), recorded_setup(case["setup"])
        needed = footprint(shape, setup, gpus(*case["gpus"]))
        for need, said in zip((*needed.devices, needed.host), case["said"], strict=True):
            assert mib(need, Component.KV) == pytest.approx(said["context"], abs=0.06), case
            if need is not needed.host:
                assert mib(need, Component.WEIGHTS) == pytest.approx(said["model"], abs=0.1), case
        private = mib(needed.host, Component.WEIGHTS)
        mapped = mapped_mib(shape, setup, gpus(*case["gpus"]))
        assert private + mapped == pytest.approx(case["said"][-1]["model"], abs=0.1), case


def test_compute_buffers_stay_within_what_is_told() -> None:
    above, buffers = 0, 0
    for case in RECORDED:
        shape, setup = model_shape(case["model"], case["quantization"]), recorded_setup(case["setup"])
        needed = footprint(shape, setup, gpus(*case["gpus"]))
        for need, said in zip((*needed.devices, needed.host), case["said"], strict=True):
            told = need.of(Component.ACTIVATIONS)
            buffers += said["compute"] > 0
            above += said["compute"] > told.at(0.95)
            assert abs(said["compute"] - told.mean_mib) <= max(4.5 * told.sigma_mib, 3.0), case
    assert buffers > 300
    assert above / buffers <= 0.05


def test_a_real_load_takes_what_was_told() -> None:
    file = _ROOT / "testbed/models/deep/deep.gguf"
    values = {
        "model.path": str(file),
        "n_ctx": 2048,
        "n_parallel": 2,
        "kv_unified": False,
        "verbosity": 4,
        "ui": False,
        "n_threads_http": 2,
        "cpuparams.n_threads": 1,
    }
    # Port 0 of loopback: the system picks one; nothing is asked of it.
    asked = {"socket": "127.0.0.1", "set": values, "flags": []}
    script = _ROOT / "subcortex/engines/_llamacpp_child.py"
    lines = []
    with subprocess.Popen(
        [sys.executable, "-P", str(script), json.dumps(asked)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            lines.append(line)
            if "model loaded" in line:
                break
        child.terminate()
    boot = read_boot(lines)
    assert boot is not None
    assert boot.host is not None
    figures = Shape(
        layers=8, hidden=320, intermediate=896, heads=10, kv_heads=2, head_dim=32, vocab=640, tied=True
    )
    shape = shape_of("deep", "llama", figures, "Q8_0")
    setup = LlamaCppSetup(context_tokens=2048, parallel=2, kv_unified=False)
    told = footprint(shape, setup, [])
    assert mapped_mib(shape, setup, []) == pytest.approx(boot.host.components["mapped"], abs=0.01)
    assert mib(told.host, Component.KV) == boot.host.kv_pool_mib
    low, high = told.host.of(Component.ACTIVATIONS).interval(0.9)
    assert low <= boot.host.components["activations"] <= high


@given(st.lists(st.integers(0, 40), min_size=2, max_size=6).filter(sum))
def test_whole_layers_as_proportions_give_exactly_these_layers(counts: list[int]) -> None:
    layer = Layer((FullAttention(8, 8, 64, 64),), intermediate=1024)
    shape = replace(LLAMA, layers=(layer,) * (sum(counts) - 1), tensors=())
    setup = LlamaCppSetup(context_tokens=256, tensor_split=tuple(map(float, counts)))
    assert layers_by_device(shape, setup, [1.0] * len(counts)) == tuple(counts)


@given(
    st.lists(st.floats(1.0, 200_000.0), min_size=1, max_size=5),
    st.integers(0, 40),
)
def test_the_last_layers_go_to_gpus_in_order(free: list[float], wanted: int) -> None:
    placed = place(LLAMA, replace(SETUP, gpu_layers=wanted), free)
    held = [*placed.layers, placed.output]
    assert sum(placed.counts) == min(wanted, 33)
    assert held[: 33 - min(wanted, 33)] == [HOST] * (33 - min(wanted, 33))
    assert held == sorted(held)


def test_a_split_fits_cards_of_eight_and_three_gib() -> None:
    cards = gpus(8000, 3000)
    counts = tensor_split_for(LLAMA, cards, SETUP)
    assert sum(counts) == 33
    split = replace(SETUP, tensor_split=tuple(map(float, counts)), gpu_layers=33)
    for need, card in zip(footprint(LLAMA, split, cards).devices, cards, strict=True):
        assert need.total.at(0.95) <= card.memory_free_mib
    # By free memory alone the small card is fuller: a context and buffers cost it as much as a large one.
    by_memory = footprint(LLAMA, replace(SETUP, gpu_layers=33), cards).devices
    assert by_memory[1].total.at(0.95) / 3000 > by_memory[0].total.at(0.95) / 8000 + 0.05
    assert counts[1] < layers_by_device(LLAMA, SETUP, [8000, 3000])[1]


def test_a_split_that_cannot_fit_says_how_much_is_short_and_where() -> None:
    with pytest.raises(DoesNotFit) as caught:
        tensor_split_for(model_shape("qwen2.5-32b", "Q4_K_M"), gpus(8000, 3000), SETUP)
    assert caught.value.details["component"] == "weights"
    assert caught.value.details["gpu"] in (0, 1)
    assert caught.value.details["short_gib"] > 5
    assert sum(best_split(model_shape("qwen2.5-32b", "Q4_K_M"), SETUP, gpus(8000, 3000))) == 65


@pytest.mark.parametrize("free", [2000, 3500, 5000, 6500])
def test_as_many_layers_as_fit_and_no_more(free: float) -> None:
    cards = gpus(free)
    layers = max_gpu_layers(LLAMA, SETUP, cards)
    assert placement(LLAMA, SETUP, cards).counts == (layers,)
    fits = footprint(LLAMA, SETUP, cards).devices[0].total.at(0.95)
    more = footprint(LLAMA, replace(SETUP, gpu_layers=layers + 1), cards).devices[0].total.at(0.95)
    assert fits <= free or layers == 0
    assert more > free or layers == 33


def test_llama_cpps_own_margin_leaves_fewer_layers() -> None:
    assert max_gpu_layers(LLAMA, SETUP, gpus(5000), margin_mib=1024) < max_gpu_layers(
        LLAMA, SETUP, gpus(5000)
    )
    assert max_gpu_layers(LLAMA, SETUP, gpus(300)) == 0


def test_without_a_gpu_the_host_repacks_what_it_can_and_maps_the_rest() -> None:
    host = footprint(LLAMA, SETUP, []).host
    assert mib(host, Component.WEIGHTS) == pytest.approx(3204, abs=0.1)
    assert mapped_mib(LLAMA, SETUP, []) == pytest.approx(1481.3, abs=0.1)
    unmapped = replace(SETUP, mmap=False)
    assert mib(footprint(LLAMA, unmapped, []).host, Component.WEIGHTS) == pytest.approx(4685.3, abs=0.1)
    assert mapped_mib(LLAMA, unmapped, []) == 0


def test_a_tied_head_is_held_twice() -> None:
    gemma = model_shape("gemma-3-12b", "Q4_K_M")
    setup = replace(SETUP, gpu_layers=99)
    [need] = footprint(gemma, setup, gpus(24_000)).devices
    assert mib(need, Component.WEIGHTS) == pytest.approx(6956.38, abs=0.1)
    assert mapped_mib(gemma, setup, gpus(24_000)) == pytest.approx(787.69, abs=0.02)


def test_every_visible_gpu_pays_for_a_context() -> None:
    setup = replace(SETUP, split_mode="none", main_gpu=1, gpu_layers=99)
    first, second = footprint(LLAMA, setup, gpus(24_000, 24_000)).devices
    assert set(first.components) == {Component.CONTEXT}
    assert mib(second, Component.WEIGHTS) == pytest.approx(4403.49, abs=0.02)


def test_builds_before_the_limit_reserve_logits_for_every_token() -> None:
    setup = replace(SETUP, gpu_layers=99)
    [new] = footprint(LLAMA, setup, gpus(24_000)).devices
    [old] = footprint(LLAMA, replace(setup, version="b9272-1d7ab2b94"), gpus(24_000)).devices
    # With 512 outputs the oracle says 290.52 MiB, with one 124.01.
    assert mib(new, Component.ACTIVATIONS) == pytest.approx(124.01, abs=0.1)
    assert mib(old, Component.ACTIVATIONS) == pytest.approx(290.52, abs=0.1)


@pytest.mark.parametrize(
    ("version", "build"),
    [
        ("b9272-1d7ab2b94", 9272),
        ("llama.cpp b6500", 6500),
        ("9272 (1d7ab2b)", 9272),
        ("xllamacpp 2026.10.11549", 11549),
        ("b0-unknown", None),
        (None, None),
    ],
)
def test_the_build_of_a_version(version: str | None, build: int | None) -> None:
    assert build_number(version) == build


@pytest.mark.parametrize(
    ("asked", "slots", "unified", "cells"),
    [(3000, 1, False, 3072), (3000, 3, False, 3072), (10_000, 7, False, 10_752), (300, 4, False, 1024)],
)
def test_contexts_are_padded_a_slot(asked: int, slots: int, unified: bool, cells: int) -> None:
    setup = LlamaCppSetup(context_tokens=asked, parallel=slots, kv_unified=unified)
    assert run_of(LLAMA, setup).context_tokens == cells


@pytest.mark.parametrize(
    ("setup", "param"),
    [
        (replace(SETUP, kv_type_k="q3_0"), "kv_type"),
        (replace(SETUP, kv_type_v="q8_0", flash_attention=False), "kv_type_v"),
        (replace(SETUP, tensor_split=(1.0, 2.0, 3.0)), "tensor_split"),
        (replace(SETUP, tensor_split=(1.0, -1.0)), "tensor_split"),
        (replace(SETUP, split_mode="none", main_gpu=2), "main_gpu"),
    ],
)
def test_setups_that_contradict_themselves(setup: LlamaCppSetup, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        footprint(LLAMA, replace(setup, gpu_layers=99), gpus(24_000, 24_000))
    assert caught.value.details["param"] == param


def test_a_model_of_unknown_context_needs_one() -> None:
    with pytest.raises(InvalidRequest, match="not known"):
        footprint(replace(LLAMA, max_context_tokens=0), LlamaCppSetup(), [])


def test_tensor_mode_cuts_everything_but_norms() -> None:
    setup = replace(SETUP, split_mode="tensor", gpu_layers=99)
    halves = footprint(LLAMA, setup, gpus(24_000, 24_000)).devices
    for half in halves:
        assert mib(half, Component.WEIGHTS) == pytest.approx(4403.49 / 2, rel=0.001)
        assert mib(half, Component.KV) == 512


def test_recurrent_states_are_float32_a_slot_whatever_the_context() -> None:
    state = Recurrence(4096 * 16, 4096 * 3, 2, 2, "mamba")
    mamba = ModelShape(
        "mamba", "mamba", "written", 2048, 50_000, (Layer((state,)),) * 4, (), max_context_tokens=2**20
    )
    for context in (256, 65_536):
        host = footprint(mamba, LlamaCppSetup(context_tokens=context, parallel=3), []).host
        assert mib(host, Component.KV) == pytest.approx(4 * 3 * 4096 * 19 * 4 / 2**20)
