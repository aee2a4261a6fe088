"""What holds of every plan, whatever the machine and the models."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from subcortex.hardware import Gpu, Hardware
from subcortex.vram.plan import Fit, Free, NoFit, TierAsk, alternatives, find, shortfalls, written
from subcortex.vram.plan.budget import HOST
from subcortex.vram.plan.place import layouts
from subcortex.vram.plan.seat import Book, Mode, Seat
from subcortex.vram.setup import VllmSetup
from tests.vram.plan.toys import Simple, ask, machine

_FEW = settings(max_examples=40, deadline=None)
_CARDS = st.sampled_from([3.0, 8.0, 12.0, 24.0, 48.0])
_CONTEXTS = st.sampled_from([1024, 4096, 8192, 32768, 131072])
_PROBABILITIES = st.floats(min_value=0.5, max_value=0.999)
_SIZES = st.sampled_from([0.5, 2.0, 5.0, 7.5, 14.0, 27.0, 40.0])


@st.composite
def machines(draw, most: int = 3) -> Hardware:
    sizes = draw(st.lists(_CARDS, min_size=1, max_size=most))
    used = draw(st.sampled_from([0.0, 600.0, 2500.0]))
    return machine(*sizes, used_mib=used, host_gib=draw(st.sampled_from([16, 256])))


@st.composite
def asked(draw, most: int = 3) -> list[TierAsk]:
    return [
        ask(
            f"t{i}",
            draw(_SIZES),
            engine=draw(st.sampled_from(["vllm", "llama.cpp"])),
            rank=i,
            context_tokens=draw(_CONTEXTS),
            concurrency=draw(st.sampled_from([1, 4, 16])),
            start=draw(st.sampled_from(["eager", "lazy"])),
        )
        for i in range(draw(st.integers(min_value=1, max_value=most)))
    ]


def with_card(hardware: Hardware, gib: float) -> Hardware:
    card = Gpu(index=len(hardware.gpus), name=f"{gib:g} GiB card", memory_total_mib=gib * 1024)
    return hardware.model_copy(update={"gpus": (*hardware.gpus, card)})


@_FEW
@given(machines(), asked(), _CARDS, st.booleans())
def test_a_card_more_never_makes_what_fitted_not_fit(hardware, asks, card, swapping):
    before = find(asks, hardware, Simple(), swapping=swapping)
    after = find(asks, with_card(hardware, card), Simple(), swapping=swapping)
    assert isinstance(after, Fit) or isinstance(before, NoFit)
    if isinstance(before, Fit) and isinstance(after, Fit):
        assert after.home.count(Mode.AWAKE) >= before.home.count(Mode.AWAKE)


@_FEW
@given(
    machines(), st.sampled_from([0.5, 5.0, 14.0]), st.lists(_CONTEXTS, min_size=2, max_size=2, unique=True)
)
def test_a_longer_context_never_needs_less(hardware, gib, contexts):
    book = Book(hardware, Simple(), 0.95)
    for engine in ("vllm", "llama.cpp"):
        short, long = (ask("t", gib, engine=engine, context_tokens=c) for c in sorted(contexts))
        for layout in layouts(book, short)[0]:
            gpus = tuple(range(layout.gpus))
            needs = [book.load(Seat(tier, gpus, layout.setup), Mode.AWAKE, 1.0) for tier in (short, long)]
            assert all(needs[0][device][0] <= needs[1][device][0] for device in needs[0])


@_FEW
@given(machines(), asked(), _PROBABILITIES, st.booleans())
def test_a_plan_stays_within_every_budget(hardware, asks, probability, swapping):
    found = find(asks, hardware, Simple(), probability=probability, swapping=swapping)
    if isinstance(found, NoFit):
        return
    plan = written(found)
    assert plan.probability >= probability
    for device in plan.devices:
        assert device.need_mib <= device.budget_mib + 1e-6
        assert device.budget_mib + device.used_mib + device.reserve_mib <= device.total_mib + 1e-6
    for swap in plan.swaps:
        limits = {device.device: device.budget_mib for device in plan.devices}
        assert all(mib <= limits[device] + 1e-6 for device, mib in swap.need_mib.items())


@_FEW
@given(machines(), asked())
def test_components_sum_to_totals(hardware, asks):
    found = find(asks, hardware, Simple())
    if isinstance(found, NoFit):
        return
    for device in written(found).devices:
        mean = sum(share.total.mean_mib for share in device.shares)
        parts = sum(part.mean_mib for share in device.shares for part in share.components.values())
        variance = sum(part.sigma_mib**2 for share in device.shares for part in share.components.values())
        assert abs(parts - mean) < 1e-6
        z = 1.6448536269514722
        assert abs(device.need_mib - (mean + z * variance**0.5)) < 1e-6


@_FEW
@given(machines(), asked(), st.lists(_PROBABILITIES, min_size=2, max_size=2))
def test_asking_for_more_certainty_never_admits_more(hardware, asks, probabilities):
    low, high = sorted(probabilities)
    sure = find(asks, hardware, Simple(), probability=high)
    unsure = find(asks, hardware, Simple(), probability=low)
    assert isinstance(unsure, Fit) or isinstance(sure, NoFit)
    if isinstance(sure, Fit) and isinstance(unsure, Fit):
        assert unsure.home.count(Mode.AWAKE) >= sure.home.count(Mode.AWAKE)


@settings(max_examples=25, deadline=None)
@given(machines(most=2), asked(most=2), st.booleans(), _PROBABILITIES)
def test_the_first_alternative_of_a_refusal_fits(hardware, asks, swapping, probability):
    estimator = Simple()
    found = find(asks, hardware, estimator, probability=probability, swapping=swapping)
    if isinstance(found, Fit):
        return
    others = alternatives(asks, hardware, estimator, found, estimator, swapping=swapping)
    losses = [other.loss for other in others]
    assert losses == sorted(losses)
    for other in others[:1]:
        again = find(other.asks, hardware, estimator, probability=probability, swapping=other.swapping)
        assert isinstance(again, Fit)
        assert written(again) == other.plan


@_FEW
@given(machines(), asked(), st.booleans())
def test_a_refusal_says_what_is_short(hardware, asks, swapping):
    found = find(asks, hardware, Simple(), swapping=swapping)
    if isinstance(found, NoFit) and not found.refused:
        short = shortfalls(found)
        assert short
        assert all(one.short_mib > 0 for one in short)


@_FEW
@given(machines(), asked(), st.randoms(use_true_random=False))
def test_the_order_of_tiers_does_not_matter(hardware, asks, random):
    first = find(asks, hardware, Simple())
    mixed = list(asks)
    random.shuffle(mixed)
    second = find(mixed, hardware, Simple())
    if isinstance(first, Fit) and isinstance(second, Fit):
        assert written(first) == written(second)
    else:
        assert type(first) is type(second)


@_FEW
@given(machines(), asked())
def test_every_tier_that_is_awake_holds_a_request_of_its_context(hardware, asks):
    found = find(asks, hardware, Simple())
    if isinstance(found, NoFit):
        return
    for tier in written(found).tiers:
        assert 1.0 <= tier.requests <= tier.wanted + 0.5
        assert tier.kv_tokens >= tier.context_tokens


@_FEW
@given(machines(), asked())
def test_every_tier_is_awake_at_rest_or_comes_by_a_swap(hardware, asks):
    found = find(asks, hardware, Simple())
    if isinstance(found, NoFit):
        return
    plan = written(found)
    resting = {tier.name for tier in plan.tiers if tier.mode is not Mode.AWAKE}
    assert resting == {swap.tier for swap in plan.swaps}
    assert len(resting) < len(plan.tiers)


def test_host_memory_is_a_device_of_its_own():
    hardware = machine(host_gib=16)
    found = find([ask("t", 5, engine="llama.cpp")], hardware, Simple())
    assert isinstance(found, Fit)
    plan = written(found)
    assert [device.device for device in plan.devices] == [HOST]
    assert plan.tiers[0].layout == "CPU"
    too_large = find([ask("t", 40, engine="llama.cpp")], hardware, Simple())
    assert isinstance(too_large, NoFit)
    assert [short.device for short in shortfalls(too_large)] == [HOST]


def test_a_pinned_layout_is_kept():
    pinned = replace(ask("t", 5), setup=VllmSetup(tensor_parallel_size=2), free=frozenset({Free.POOL}))
    found = find([pinned], machine(24, 24), Simple())
    assert isinstance(found, Fit)
    assert found.seats[0].gpus == (0, 1)
