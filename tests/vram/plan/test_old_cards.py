"""Cards that vLLM no longer serves: the plan leaves them to llama.cpp, as ``init`` does."""

from __future__ import annotations

import pytest

from subcortex.cli import _models
from subcortex.cli._ladder import chosen
from subcortex.errors import DoesNotFit
from subcortex.hardware import Hardware, parse_gpus
from subcortex.vram.plan import Fit, NoFit, TierAsk, find, nearest, plan
from subcortex.vram.plan.compare import options
from subcortex.vram.plan.real import Estimates
from subcortex.vram.plan.seat import Book
from subcortex.vram.setup import LlamaCppSetup, Setup, VllmSetup
from subcortex.vram.vllm.legality import runs_on


def machine(cards: str) -> Hardware:
    return Hardware(
        gpus=parse_gpus(cards), host_memory_total_mib=131072, host_memory_available_mib=120000, cores=16
    )


def tier(setup: Setup | None = None, **kwargs) -> TierAsk:
    return TierAsk("t", _models.LLAMA_1B.shape, setup or VllmSetup(), 4096, **kwargs)


@pytest.mark.parametrize(
    ("card", "has"), [("GTX 1080 Ti", "6.1"), ("P100 16GB", "6.0"), ("V100 32GB", "7.0")]
)
def test_vllm_is_refused_on_old_cards_and_llama_cpp_named(card, has):
    with pytest.raises(DoesNotFit) as caught:
        plan([tier()], machine(card), Estimates(machine(card)))
    assert f"vLLM wants compute capability 7.5, and GPU 0 ({card}) has {has}" in caught.value.message
    assert str(caught.value.hint).startswith(
        'llama.cpp runs on such cards: serve t from a GGUF with engine = "llama.cpp"'
    )
    assert isinstance(find([tier(LlamaCppSetup())], machine(card), Estimates(machine(card))), Fit)


def test_the_oldest_card_that_vllm_serves_is_turing():
    hardware = machine("RTX 2060")
    assert isinstance(find([tier()], hardware, Estimates(hardware)), Fit)


@pytest.mark.parametrize("cards", ["GTX 1080 Ti + RTX 3060", "RTX 3060 + V100 32GB"])
def test_vllm_goes_to_the_new_card_of_two(cards):
    hardware = machine(cards)
    found = find([tier()], hardware, Estimates(hardware))
    assert isinstance(found, Fit)
    (seat,) = found.seats
    assert [found.book.gpus[gpu].name for gpu in seat.gpus] == ["RTX 3060"]


def test_a_pin_to_an_old_card_and_a_split_over_one_say_why():
    hardware = machine("GTX 1080 Ti + RTX 3060")
    for ask in (tier(devices=(0,)), tier(VllmSetup(tensor_parallel_size=2), free=frozenset())):
        found = find([ask], hardware, Estimates(hardware))
        assert isinstance(found, NoFit)
        assert found.refused is not None
        assert "GPU 0 (GTX 1080 Ti) has 6.1" in found.refused["t"]
        assert "RTX 3060" not in found.refused["t"]
        assert "llama.cpp" in nearest(found)


def test_a_tier_that_wants_no_gpu_is_not_told_of_cards():
    hardware = machine("GTX 1080 Ti")
    found = find([tier(devices=())], hardware, Estimates(hardware))
    assert isinstance(found, NoFit)
    assert "capability" not in str(found.refused)


def test_layouts_on_old_cards_are_refused_in_the_comparison_too():
    hardware = machine("2x V100 32GB")
    estimates = Estimates(hardware)
    book = Book(hardware, estimates, 0.95)
    found = options(tier(), book, estimates.link_between, estimates.bandwidth_gb_per_s)
    assert [option.fits for option in found] == [False]
    assert "7.0" in str(found[0].refused)


@pytest.mark.parametrize("cards", ["8x V100 32GB", "4x Quadro RTX 8000", "2x RTX 3090 + V100 32GB"])
def test_init_and_plan_keep_to_one_rule(cards):
    hardware = machine(cards)
    choice = chosen(hardware)
    for one in choice.plan.tiers:
        if one.engine == "vllm":
            assert all(runs_on(gpu) for gpu in hardware.gpus if gpu.index in one.gpus)
    engines = {one.engine for one in choice.plan.tiers}
    assert ("vllm" in engines) == any(map(runs_on, hardware.gpus))
