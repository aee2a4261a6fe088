"""The rules of plans hold with this project's own estimates, on shapes of public models."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subcortex.hardware import Hardware, parse_gpus
from subcortex.hardware.model import GpuPair
from subcortex.models.huggingface import from_config
from subcortex.models.shape import ModelShape
from subcortex.vram.amount import Amount
from subcortex.vram.plan import Fit, NoFit, TierAsk, alternatives, find, shortfalls, written
from subcortex.vram.plan.budget import HOST
from subcortex.vram.plan.compare import options
from subcortex.vram.plan.forms import quantised, smaller
from subcortex.vram.plan.real import Estimates
from subcortex.vram.plan.seat import Book, Mode
from subcortex.vram.setup import LlamaCppSetup, Setup, VllmSetup

_SHAPES = Path(__file__).parents[3] / "bench" / "shapes"
_MODELS = [
    "llama-3.2-1b",
    "llama-3.1-8b",
    "qwen3-8b-fp8",
    "gemma-3-27b-text",
    "qwen3-30b-a3b",
    "llama-3.1-70b-awq",
]
_CARDS = ["GTX 1060 3GB", "RTX 3060", "RTX 3090", "RTX A6000", "H200"]


@cache
def shape(model: str) -> ModelShape:
    return from_config(json.loads((_SHAPES / model / "config.json").read_text()), model)


def machine(cards: list[str]) -> Hardware:
    gpus = parse_gpus(" + ".join(cards)) if cards else ()
    return Hardware(gpus=gpus, host_memory_total_mib=131072, host_memory_available_mib=120000, cores=16)


def ask(name: str, model: str, engine: str = "vllm", context: int = 8192, **kwargs) -> TierAsk:
    setup: Setup = VllmSetup(context_tokens=context)
    if engine == "llama.cpp":
        setup = LlamaCppSetup(context_tokens=context)
    return TierAsk(name, shape(model), setup, context, sleepable=engine == "vllm", **kwargs)


@st.composite
def asked(draw) -> list[TierAsk]:
    return [
        ask(
            f"t{i}",
            draw(st.sampled_from(_MODELS)),
            draw(st.sampled_from(["vllm", "llama.cpp"])),
            draw(st.sampled_from([2048, 8192, 32768])),
            rank=i,
            concurrency=draw(st.sampled_from([1, 8])),
        )
        for i in range(draw(st.integers(min_value=1, max_value=2)))
    ]


_HANDS = st.lists(st.sampled_from(_CARDS), min_size=1, max_size=2)


@settings(max_examples=25, deadline=None)
@given(_HANDS, asked(), st.sampled_from(_CARDS))
def test_a_card_more_never_makes_what_fitted_not_fit(cards, asks, more):
    before = find(asks, machine(cards), Estimates(machine(cards)))
    larger = machine([*cards, more])
    after = find(asks, larger, Estimates(larger))
    assert isinstance(after, Fit) or isinstance(before, NoFit)
    if isinstance(before, Fit) and isinstance(after, Fit):
        assert after.home.count(Mode.AWAKE) >= before.home.count(Mode.AWAKE)


@settings(max_examples=25, deadline=None)
@given(_HANDS, asked(), st.booleans())
def test_plans_keep_within_budgets_and_refusals_offer_what_fits(cards, asks, swapping):
    hardware = machine(cards)
    estimates = Estimates(hardware)
    found = find(asks, hardware, estimates, swapping=swapping)
    if isinstance(found, Fit):
        plan = written(found)
        assert plan.probability >= 0.95
        assert all(device.need_mib <= device.budget_mib + 1e-6 for device in plan.devices)
        return
    assert found.refused or shortfalls(found)
    for other in alternatives(asks, hardware, estimates, found, estimates, swapping=swapping)[:1]:
        again = find(other.asks, hardware, estimates, swapping=other.swapping)
        assert isinstance(again, Fit)
        assert written(again) == other.plan


@settings(max_examples=25, deadline=None)
@given(_HANDS, asked())
def test_what_is_planned_is_what_the_estimate_says_of_the_flags(cards, asks):
    hardware = machine(cards)
    estimates = Estimates(hardware)
    found = find(asks, hardware, estimates)
    if isinstance(found, NoFit):
        return
    for seat, requests in zip(found.seats, found.requests, strict=True):
        gpus = [found.book.gpus[gpu] for gpu in seat.gpus]
        said = estimates.footprint(seat.ask.shape, found.book.at(seat, requests), gpus)
        used = found.book.footprint(seat, requests)
        assert [need.total.mean_mib for need in used.devices] == pytest.approx(
            [need.total.mean_mib for need in said.devices]
        )


@pytest.mark.parametrize("model", ["llama-3.1-8b", "deepseek-v3", "gemma-3-27b-text", "qwen3-next-80b-a3b"])
def test_a_longer_context_never_needs_less(model):
    hardware = machine(["H200"] * 8)
    book = Book(hardware, Estimates(hardware), 0.95)
    needs = []
    for context in (1024, 4096, 8192, 32768, 131072):
        seat = book.seat(ask("t", model, context=context), tuple(range(8)), VllmSetup(tensor_parallel_size=8))
        needs.append(book.request_bytes(seat))
    assert needs == sorted(needs)


def test_quantisations_run_from_the_best_to_the_smallest():
    found = quantised(ask("t", "llama-3.1-8b"))
    assert [variant.name for variant in found] == [
        "add --quantization fp8",
        "take a checkpoint of llama-3.1-8b quantised as awq",
    ]
    sizes = [variant.shape.weights_bytes for variant in found]
    assert sizes == sorted(sizes, reverse=True)
    assert [variant.loss for variant in found] == sorted(variant.loss for variant in found)


def test_smaller_relatives_are_stored_as_the_model_is():
    found = smaller(ask("t", "llama-3.1-70b-awq"))
    assert [variant.name for variant in found] == [
        "a checkpoint of meta-llama/Llama-3.1-8B-Instruct quantised as awq",
        "a checkpoint of meta-llama/Llama-3.2-3B-Instruct quantised as awq",
        "a checkpoint of meta-llama/Llama-3.2-1B-Instruct quantised as awq",
    ]
    assert {variant.model for variant in found} == {"MODEL"}


def test_fp8_is_a_flag_where_vllm_makes_it_and_a_checkpoint_where_not():
    on_gpus = quantised(ask("t", "llama-3.1-8b"))[0]
    assert (on_gpus.model, on_gpus.flags) == ("llama-3.1-8b", ("--quantization", "fp8"))
    # One scale a matrix: any size that divides its rows and columns will do.
    assert on_gpus.shape.quantisation is not None
    assert on_gpus.shape.quantisation.block is None
    on_host = quantised(ask("t", "llama-3.1-8b"), on_gpus=False)[0]
    assert on_host.name == "take a checkpoint of llama-3.1-8b quantised as fp8"
    assert on_host.flags == ()
    # Of a relative likewise, which has a name of its own.
    flagged = on_gpus.of(ask("t", "llama-3.1-8b"))
    relative = smaller(flagged)[0]
    assert relative.name == "meta-llama/Llama-3.2-3B-Instruct with --quantization fp8"
    assert relative.of(flagged).flags == ("--quantization", "fp8")
    # A checkpoint that somebody has quantised is not quantised again.
    packed = quantised(flagged)[0].of(flagged)
    assert (packed.model, packed.flags) == ("MODEL", ())


def test_a_gguf_is_named_by_its_type():
    names = {variant.name for variant in quantised(ask("t", "llama-3.1-8b", "llama.cpp"))}
    assert "take a GGUF of type Q4_K_M made of llama-3.1-8b" in names


def test_what_a_refusal_offers_can_be_pasted_and_planned():
    hardware = machine(["RTX 3090"])
    estimates = Estimates(hardware)
    tier = replace(ask("t", "gemma-3-27b-text", context=4096), model="google/gemma", flags=("--seed", "7"))
    found = find([tier], hardware, estimates)
    assert isinstance(found, NoFit)
    kinds = {
        other.kind: other.plan.tiers[0]
        for other in alternatives([tier], hardware, estimates, found, estimates)
    }
    assert kinds["quantisation"].model == "MODEL"
    assert kinds["quantisation"].model_note == "a checkpoint of google/gemma quantised as awq"
    assert "--quantization" not in kinds["quantisation"].launch.arguments
    assert kinds["quantisation"].launch.arguments[-2:] == ("--seed", "7")


@pytest.mark.parametrize(
    ("model", "cards", "layout", "measured_ms"),
    [("llama-3.1-8b", 1, "1 GPU", 4.89), ("llama-3.1-70b", 2, "TP 2", 21.06)],
)
def test_the_speed_that_was_measured_on_h200_is_within_the_interval(model, cards, layout, measured_ms):
    linked = (GpuPair(a=0, b=1, code="NV18", peer_read="OK", peer_write="OK"),) if cards > 1 else ()
    hardware = machine(["H200"] * cards).model_copy(update={"links": linked})
    estimates = Estimates(hardware)
    book = Book(hardware, estimates, 0.95)
    found = options(ask("t", model), book, estimates.link_between, estimates.bandwidth_gb_per_s)
    speed = next(option.tokens_per_s for option in found if option.name == layout)
    assert speed is not None
    assert speed[0] <= 1000 / measured_ms <= speed[1]


@pytest.mark.parametrize(
    ("mode", "cards"),
    [(Mode.AWAKE, ["H200"]), (Mode.AWAKE, ["RTX 3090"] * 2), (Mode.ASLEEP, ["H200"]), (Mode.AWAKE, [])],
)
def test_a_larger_pool_is_reckoned_as_the_estimate_itself_has_it(mode: Mode, cards: list[str]):
    """The planner shifts a load by what the pool grows; an estimate from scratch says the same."""
    hardware = machine(cards)
    book = Book(hardware, Estimates(hardware), 0.95)
    tier = ask("t", "llama-3.1-8b", concurrency=8)
    setup = VllmSetup(context_tokens=8192, tensor_parallel_size=max(1, len(cards)))
    seat = book.seat(tier, tuple(range(len(cards))), setup)
    for requests in (1.0, 1.7, 6.0):
        made = book.footprint(seat, requests)
        asleep = mode is Mode.ASLEEP and made.asleep
        gpus = asleep or [need.total for need in made.devices]
        host = made.host.total + (made.asleep_host if asleep and made.asleep_host else Amount())
        expected = {**dict(enumerate(gpus)), HOST: host}
        load = book.load(seat, mode, requests)
        assert load.keys() == expected.keys()
        for device, amount in expected.items():
            assert load[device] == pytest.approx((amount.mean_mib, amount.sigma_mib**2)), (device, requests)
