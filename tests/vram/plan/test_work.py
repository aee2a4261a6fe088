"""How much a plan does before it settles for what it has, on many unlike cards; and what it says then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from subcortex.errors import DoesNotFit
from subcortex.hardware import Gpu, Hardware
from subcortex.models.shape import ModelShape
from subcortex.vram.footprint import Footprint
from subcortex.vram.llamacpp import tensor_split_for
from subcortex.vram.plan import Fit, NoFit, TierAsk, alternatives, find, plan, refusal, written
from subcortex.vram.plan.work import MANY_GPUS, Work
from subcortex.vram.setup import LlamaCppSetup, Setup
from tests.vram.plan.toys import Simple, ask, machine, toy


class Counted(Simple):
    """Estimates that are counted."""

    asked: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        object.__setattr__(self, "asked", Counter())

    def footprint(self, shape: ModelShape, setup: Setup, gpus: Sequence[Gpu]) -> Footprint:
        self.asked["footprint"] += 1
        return super().footprint(shape, setup, gpus)

    def split(self, shape: ModelShape, setup: LlamaCppSetup, gpus: Sequence[Gpu]) -> tuple[float, ...]:
        self.asked["split"] += 1
        return super().split(shape, setup, gpus)


def unlike(count: int, gib: float = 20.0) -> Hardware:
    """Return a machine of which no two cards have the same size; the last is the largest."""
    return machine(*(gib + i / 64 for i in range(count)))


def done(asks: list[TierAsk], hardware: Hardware) -> tuple[Fit | NoFit, Counter[str]]:
    estimates = Counted()
    return find(asks, hardware, estimates), estimates.asked


@pytest.mark.parametrize("engine", ["vllm", "llama.cpp"])
def test_on_64_unlike_cards_a_large_model_finds_a_place_among_the_freest(engine: str) -> None:
    # Its eight cards could be chosen in four thousand million ways.
    found, asked = done([ask("t", 130, engine=engine)], unlike(64))
    assert isinstance(found, Fit)
    assert len(found.seats[0].gpus) in (7, 8)
    assert asked["footprint"] + asked["split"] < 2000
    assert not found.exact
    assert written(found).notes == ("Not every placement was tried: there are too many of them.",)


def test_four_tiers_on_64_unlike_cards_all_find_a_place() -> None:
    asks = [ask(f"t{i}", gib, engine="llama.cpp") for i, gib in enumerate((130, 60, 30, 8))]
    found, asked = done(asks, unlike(64))
    assert isinstance(found, Fit)
    assert asked["split"] < 1000


def test_what_does_not_fit_64_unlike_cards_is_refused_soon_and_says_that_not_all_was_tried() -> None:
    hardware, estimates = unlike(64, 2.0), Counted()
    asks = [ask(f"t{i}", 30, engine="llama.cpp") for i in range(3)]
    found = find(asks, hardware, estimates)
    assert isinstance(found, NoFit)
    assert not found.exact
    others = alternatives(asks, hardware, estimates, found, estimates)
    assert estimates.asked["footprint"] + estimates.asked["split"] < 6000
    assert "not every place was tried" in refusal(found, others).message


def test_eight_unlike_cards_are_tried_in_full() -> None:
    asks = [ask("a", 30), ask("b", 14), ask("c", 10)]
    found, _ = done(asks, unlike(8))
    assert isinstance(found, Fit)
    assert found.exact
    with pytest.raises(DoesNotFit) as caught:
        plan([ask("a", 400)], unlike(8), Simple(), Simple())
    assert "not every" not in caught.value.message


def test_a_plan_is_the_same_however_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_clock(*_: Any) -> float:
        raise AssertionError("a plan looked at a clock")

    for clock in ("monotonic", "perf_counter", "process_time", "time"):
        monkeypatch.setattr(f"time.{clock}", no_clock)
    asks = [ask("a", 130), ask("b", 30)]
    first, second = (find(asks, unlike(64), Simple()) for _ in range(2))
    monkeypatch.undo()
    assert isinstance(first, Fit)
    assert isinstance(second, Fit)
    assert [seat.gpus for seat in first.seats] == [seat.gpus for seat in second.seats]
    assert first.book.work.done == second.book.work.done


def test_equal_cards_in_unlike_use_are_one_estimate() -> None:
    cards = tuple(
        gpu.model_copy(update={"memory_used_mib": 100.0 + 7 * gpu.index}) for gpu in machine(*[24] * 8).gpus
    )
    hardware = machine(24).model_copy(update={"gpus": cards})
    found, asked = done([ask("t", 10)], hardware)
    assert isinstance(found, Fit)
    # On one card, and on all: what a tier takes at least wherever it sits.
    assert asked["footprint"] == 2


def test_on_many_cards_no_search_takes_what_those_after_it_need() -> None:
    work = Work.on(MANY_GPUS + 1)
    for _ in range(4):
        end = work.end_of_search()
        assert work.done < work.end_of_part(end, more=20) < end < work.most
        work.did(end - work.done)
    assert 0 < work.part().most < work.left


def test_on_few_cards_whoever_comes_may_do_all_that_is_left() -> None:
    work = Work.on(MANY_GPUS)
    work.did(100)
    assert work.end_of_search() == work.end_of_part(work.most, more=20) == work.most
    assert work.part().most == work.left == work.most - 100


def test_layers_are_split_over_many_cards_so_that_they_fit() -> None:
    cards = unlike(20, 6.0).gpus
    setup = LlamaCppSetup(context_tokens=4096)
    counts = tensor_split_for(toy(60, layers=80), cards, setup)
    assert sum(counts) == 81
    assert min(counts) >= 2
    assert max(counts) <= 6
