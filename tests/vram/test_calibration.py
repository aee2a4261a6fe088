"""What boots teach: towards the evidence, never by one alone, never twice, in no order."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.types import BootFigures, DeviceFigures
from subcortex.vram.amount import Amount
from subcortex.vram.footprint import Component, DeviceNeed, Footprint
from subcortex.vram.learning.boots import Boot, BootKey
from subcortex.vram.learning.calibration import FLOOR_MIB, Calibration, calibrate, similarity
from subcortex.vram.learning.coverage import coverage, replayed, report
from tests.vram.boot_samples import KEY, boot

ESTIMATE = Amount(1000.0, 100.0)
ACTIVATIONS, WEIGHTS = Component.ACTIVATIONS, Component.WEIGHTS
NEW = BootKey("vllm", "0.32.0", "NVIDIA H200", 1)

residual_sigmas = st.floats(-1.9, 1.9, allow_nan=False)
components = st.sampled_from([ACTIVATIONS, Component.GRAPHS, Component.CONTEXT])
boots_of_any_kind = st.lists(
    st.builds(
        boot,
        st.floats(0.0, 3000.0),
        estimate=st.builds(Amount, st.floats(0.0, 2000.0), st.sampled_from([0.0, 3.0, 40.0, 300.0])),
        component=st.sampled_from([ACTIVATIONS, WEIGHTS, Component.KV]),
        model=st.sampled_from("abcd"),
        key=st.sampled_from([KEY, NEW, replace(KEY, tensor_parallel_size=2), BootKey("llama.cpp")]),
        setup=st.sampled_from([{}, {"context_tokens": 4096}]),
    ),
    max_size=12,
)


def learned(
    boots: list[Boot], estimate: Amount = ESTIMATE, component: Component = ACTIVATIONS, **of: object
) -> Amount:
    return calibrate(boots).applied(component, estimate, KEY, **of)  # type: ignore[arg-type]


@given(st.builds(Amount, st.floats(0.0, 1e5), st.floats(0.0, 1e4)), components)
def test_without_boots_nothing_changes(estimate: Amount, component: Component) -> None:
    assert calibrate([]).applied(component, estimate, KEY, model="a") == estimate
    assert Calibration().applied(component, estimate, KEY) == estimate


def test_boots_of_another_engine_or_place_or_component_change_nothing() -> None:
    boots = [boot(1200.0, model=model, key=BootKey("llama.cpp")) for model in "abc"]
    boots += [boot(1200.0, model=model, component=Component.GRAPHS) for model in "abc"]
    assert learned(boots) == ESTIMATE
    ours = [boot(1200.0, model=model) for model in "abc"]
    assert calibrate(ours).applied(ACTIVATIONS, ESTIMATE, KEY, place="host") == ESTIMATE


@given(boots_of_any_kind, st.randoms(use_true_random=False))
def test_the_order_of_boots_is_of_no_matter(boots: list[Boot], order: random.Random) -> None:
    shuffled = order.sample(boots, len(boots))
    for component in (ACTIVATIONS, WEIGHTS, Component.KV):
        for model in (None, "a"):
            assert learned(boots, component=component, model=model) == learned(
                shuffled, component=component, model=model
            )


@given(residual_sigmas, st.integers(1, 8))
def test_the_mean_moves_towards_the_evidence_and_not_beyond(score: float, models: int) -> None:
    boots = [boot(1000.0 + 100 * score, model=str(n)) for n in range(models)]
    shift = learned(boots).mean_mib - 1000.0
    assert abs(shift) <= abs(100 * score) + 1e-9
    assert shift * score >= 0
    more = learned([*boots, boot(1000.0 + 100 * score, model="another")]).mean_mib - 1000.0
    assert abs(more) >= abs(shift) - 1e-9
    own = learned(boots, model="0").mean_mib - 1000.0
    assert abs(shift) - 1e-6 <= abs(own) <= abs(100 * score) + 1e-9


@given(residual_sigmas, st.integers(0, 10))
def test_sigma_never_grows_with_agreeing_evidence(score: float, models: int) -> None:
    boots = [boot(1000.0 + 100 * score, model=str(n)) for n in range(models)]
    before = learned(boots)
    same = learned([*boots, boot(1000.0 + 100 * score, model="one more")])
    expected = learned([*boots, boot(before.mean_mib, model="one more")])
    assert same.sigma_mib <= before.sigma_mib + 1e-9
    assert expected.sigma_mib <= before.sigma_mib + 1e-9


@given(st.lists(residual_sigmas, min_size=1, max_size=6), st.floats(0.25, 400.0))
def test_no_unit_and_no_size_matters(scores: list[float], scale: float) -> None:
    def amount(factor: float) -> Amount:
        boots = [
            boot(factor * (1000 + 100 * score), estimate=ESTIMATE.times(factor), model=str(n % 3), hour=n)
            for n, score in enumerate(scores)
        ]
        floor = FLOOR_MIB * factor
        return calibrate(boots, floor_mib=floor).applied(ACTIVATIONS, ESTIMATE.times(factor), KEY, model="1")

    one, other = amount(1.0).times(scale), amount(scale)
    assert other.mean_mib == pytest.approx(one.mean_mib)
    assert other.sigma_mib == pytest.approx(one.sigma_mib)


def test_small_models_teach_big_ones_in_units_of_sigma() -> None:
    boots = [boot(110.0, estimate=Amount(100.0, 10.0), model=model) for model in "abcdef"]
    found = learned(boots, Amount(2000.0, 300.0))
    assert found.mean_mib == pytest.approx(2000 + 300, rel=0.02)
    assert found.sigma_mib < 150


@given(st.floats(500.0, 1500.0), st.integers(2, 6))
def test_exact_repeats_of_one_model_converge_to_what_was_measured(measured: float, repeats: int) -> None:
    boots = [boot(measured, hour=hour) for hour in range(repeats)]
    found = learned(boots, model="a")
    assert found.mean_mib == pytest.approx(measured, abs=abs(measured - 1000) * 0.005 + 0.01)
    assert FLOOR_MIB <= found.sigma_mib <= 1.5 * FLOOR_MIB
    again = learned([*boots, boot(measured)], model="a")
    assert abs(again.mean_mib - measured) <= abs(found.mean_mib - measured) + 1e-9


def test_the_model_itself_counts_more_than_the_others() -> None:
    boots = [boot(1150.0, model=model) for model in "bcd"] + [boot(950.0, hour=n) for n in range(2)]
    assert learned(boots, model="a").mean_mib == pytest.approx(950.0, abs=3)
    assert learned(boots, model="e").mean_mib > 1050.0


def test_another_setup_of_the_model_counts_for_less_than_the_same() -> None:
    boots = [boot(1100.0, setup={"max_batched_tokens": 2048})]
    same = learned(boots, model="a", setup={"max_batched_tokens": 2048, "version": "0.26.0"})
    other = learned(boots, model="a", setup={"max_batched_tokens": 8192})
    assert same.mean_mib == pytest.approx(1100.0, abs=1)
    assert 1050.0 < other.mean_mib < 1095.0
    assert same.sigma_mib < other.sigma_mib < 100.0


def test_more_alike_boots_teach_more() -> None:
    keys = [
        KEY,
        replace(KEY, version="0.32.0"),
        replace(KEY, version="0.32.0", gpu_name="L4"),
        replace(KEY, version="0.32.0", gpu_name="L4", tensor_parallel_size=2),
    ]
    assert [similarity(KEY, key) for key in keys] == [1.0, 0.5, 0.25, pytest.approx(0.075)]
    found = [learned([boot(1100.0, model=model, key=key) for model in "ab"]) for key in keys]
    assert [amount.mean_mib for amount in found] == sorted((a.mean_mib for a in found), reverse=True)
    assert [amount.sigma_mib for amount in found] == sorted(amount.sigma_mib for amount in found)
    assert found[-1].mean_mib > 1000.0


@given(st.floats(-1e6, 1e6), st.integers(3, 8))
def test_one_wild_boot_moves_the_mean_little(wild: float, models: int) -> None:
    boots = [boot(1050.0, model=str(n)) for n in range(models)]
    before, after = learned(boots), learned([*boots, boot(wild, model="wild")])
    assert abs(after.mean_mib - before.mean_mib) <= 250.0 / models
    repeats = [boot(1050.0, hour=n) for n in range(models)]
    own, own_after = learned(repeats, model="a"), learned([*repeats, boot(wild)], model="a")
    assert abs(own_after.mean_mib - own.mean_mib) <= 3 * FLOOR_MIB


def test_a_first_boot_far_off_moves_two_sigma_and_leaves_doubt() -> None:
    found = learned([boot(5000.0)], model="a")
    assert found.mean_mib == pytest.approx(1200.0, abs=2)
    assert 200.0 < found.sigma_mib < 1000.0
    confirmed = learned([boot(5000.0), boot(5001.0)], model="a")
    assert confirmed.mean_mib == pytest.approx(5000.0, rel=0.01)
    assert confirmed.sigma_mib < 10.0


def test_sigma_stays_above_the_scatter_that_was_seen() -> None:
    models = [boot(mib, model=str(mib)) for mib in (700.0, 800.0, 950.0, 1050.0, 1200.0, 1300.0)]
    assert learned(models).sigma_mib > 100.0
    repeats = [boot(mib) for mib in (980.0, 1000.0, 1020.0, 1040.0, 1060.0)]
    assert learned(repeats, model="a").sigma_mib >= 25.0


EXACT = Amount(15360.0, 0.0)


def test_weights_stay_until_the_difference_is_consistent() -> None:
    def of(*measured: float, models: str = "aaa") -> list[Boot]:
        return [
            boot(mib, estimate=EXACT, component=WEIGHTS, model=model)
            for mib, model in zip(measured, models, strict=False)
        ]

    def known(boots: list[Boot], model: str) -> Amount:
        return learned(boots, EXACT, WEIGHTS, model=model)

    assert known(of(15400.0), "a") == EXACT, "one boot"
    assert known(of(15362.0, 15363.0, 15362.5), "a") == EXACT, "rounding"
    assert known(of(15400.0, 15330.0), "a") == EXACT, "contradicting"
    assert known(of(15400.0, 15404.0), "a") == Amount(15402.0, FLOOR_MIB)
    assert known(of(15400.0, 15404.0), "b") == EXACT, "one other model"
    by_three = known(of(15513.6, 15513.6, 15513.6, models="abc"), "d")
    assert by_three == Amount(pytest.approx(15513.6), FLOOR_MIB)  # type: ignore[arg-type]


def joint_boot(overhead_mib: float, model: str) -> Boot:
    need = DeviceNeed({Component.CONTEXT: Amount(460.0, 30.0), Component.COMMUNICATION: Amount(1000.0, 90.0)})
    device = DeviceFigures(
        device="GPU 0", other_mib=0.0, total_mib=143155.2, free_at_start_mib=143155.2 - overhead_mib
    )
    base = boot(0.0, model=model)
    return replace(
        base,
        raw=Footprint((need, need)),
        measured=BootFigures(engine="vllm", devices=[device, device]),
        used_before_mib=(0.0, 0.0),
    )


def test_a_figure_of_two_parts_teaches_each_by_its_variance() -> None:
    calibration = calibrate([joint_boot(1560.0, model) for model in "abcd"])
    base = joint_boot(1560.0, "e")
    after = calibration.corrected(base.raw, KEY, model="e").devices[0]
    context = after.of(Component.CONTEXT).mean_mib - 460
    communication = after.of(Component.COMMUNICATION).mean_mib - 1000
    assert communication == pytest.approx(9 * context)
    assert 80 < context + communication <= 100
    # Two ranks of a boot are one observation.
    assert {row.boots for row in report(calibration)} == {4}


def test_a_whole_footprint_is_corrected_on_every_device() -> None:
    boots = [boot(1100.0, model=model) for model in "abc"]
    need = DeviceNeed({ACTIVATIONS: ESTIMATE, WEIGHTS: EXACT})
    before = Footprint((need, need), host=need, asleep=(ESTIMATE, ESTIMATE), asleep_host=EXACT)
    after = calibrate(boots).corrected(before, KEY)
    assert after.devices[0] == after.devices[1]
    assert after.devices[0].of(ACTIVATIONS) == learned(boots)
    assert after.devices[0].of(WEIGHTS) == EXACT
    assert (after.host, after.asleep, after.asleep_host) == (need, before.asleep, EXACT)


def test_the_report_says_what_was_learned_of_what() -> None:
    boots = [boot(1100.0, model=model, hour=hour) for hour, model in enumerate("aabc")]
    boots.append(boot(300.0, model="x", component=Component.GRAPHS, key=NEW, hour=9))
    first, second = report(calibrate(boots))
    assert (first.component, first.key, first.boots, first.models) == (ACTIVATIONS, KEY, 4, 3)
    assert (first.estimated, first.residual_mib) == (ESTIMATE, 100.0)
    assert first.shift_mib == pytest.approx(learned(boots).mean_mib - 1000.0)
    assert first.last_seen == boots[3].at
    assert (second.component, second.key, second.boots) == (Component.GRAPHS, NEW, 1)


def test_coverage_counts_what_was_told_before_each_boot() -> None:
    boots = [boot(1100.0), boot(1200.0), boot(1200.0, told=Amount(1190.0, 10.0))]
    found = coverage(boots)
    assert (found.inside, found.measured) == (2, 3)
    assert found.share == pytest.approx(2 / 3)
    assert coverage([]).share is None
    assert coverage([replace(boots[0], measured=None)]).measured == 0


def test_replayed_boots_are_told_better_as_they_come() -> None:
    rng = random.Random(7)
    boots = [boot(1130.0 + rng.gauss(0, 30), model=str(n), hour=n) for n in range(40)]
    raw = [abs(one.residual_mib) for each in boots for one in each.raw_residuals]
    found, told = replayed(boots)
    late = [abs(one.residual_mib) for one in told[10:]]
    assert sum(late) / len(late) < sum(raw) / len(raw) / 3
    assert found.measured == 40
    assert found.share is not None
    assert found.share >= 0.9


@pytest.mark.parametrize("mib", [1e12, -1e12, float("inf"), float("nan")])
def test_a_damaged_figure_teaches_nothing(mib: float) -> None:
    assert learned([boot(mib)], model="a") == Amount(1000.0, 100.0)


def test_a_start_that_failed_teaches_nothing() -> None:
    failed = replace(boot(5000.0), outcome="failed")
    assert learned([failed], model="a") == Amount(1000.0, 100.0)
