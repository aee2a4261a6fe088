"""Knees that are known beforehand, and a ladder that finds them in noise and then stops."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subcortex.errors import InvalidRequest
from subcortex.experiments.saturation import (
    Curve,
    Done,
    Inconclusive,
    Limits,
    Measure,
    Measured,
    knee_of_sweep,
    next_step,
)
from subcortex.experiments.saturation._noise import inverted, yields_of

NEVER = 50.0


def sweep(speed: Callable[[int], float], most: int = 512) -> list[tuple[float, float]]:
    return [(float(c), speed(c)) for c in range(1, most + 1)]


def climb(speed: Callable[[int], float], noise: float, seed: int, limits: Limits | None = None):
    """Let the ladder climb; the windows it saw, and where it ended."""
    limits = limits or Limits()
    rng = random.Random(seed)
    seen: list[Measured] = []
    for _ in range(200):
        step = next_step(seen, limits, seed=seed)
        if not isinstance(step, Measure):
            return seen, step
        assert 1 <= step.concurrency <= limits.max_concurrency
        assert step.seconds > 0
        number = max(1, round(step.seconds / limits.window_s))
        seen += [
            Measured(
                step.concurrency,
                step.seconds / number,
                speed(step.concurrency) * math.exp(rng.gauss(0, noise)),
            )
            for _ in range(number)
        ]
    raise AssertionError("the ladder does not stop")


def hyperbola(c: int) -> float:
    return 4000 * c / (c + 4)


def roofline(c: int) -> float:
    return 100.0 * min(c, 40)


def preempted(c: int) -> float:
    return hyperbola(c) if c <= 24 else hyperbola(24) * (24 / c) ** 0.4


def stairs(c: int) -> float:
    running = min(c, 64)
    return 3000 * running / (8 * math.ceil(running / 8) + 24)


def test_knees_by_hand():
    """A hyperbola gains K / (2c + K) by doubling: 5 % at 9.5 K. A roof at 40 gains 5 % at 40 / 1.05."""
    assert knee_of_sweep(sweep(hyperbola)) == pytest.approx(9.5 * 4, rel=0.01)
    assert knee_of_sweep(sweep(roofline)) == pytest.approx(40 / 1.05, rel=0.01)
    # What the best up to 24 gives is 24/28 of the plateau; 1.05 times less is reached at 17.8.
    assert knee_of_sweep(sweep(preempted)) == pytest.approx(17.8, rel=0.01)


def test_a_sweep_that_ends_too_early_or_begins_too_late_has_no_knee():
    assert knee_of_sweep(sweep(lambda c: float(c))) is None
    assert knee_of_sweep(sweep(roofline)[:60]) is None
    assert knee_of_sweep(sweep(lambda c: 7.0)) is None
    assert knee_of_sweep([(1.0, 5.0)]) is None


def test_a_staircase_has_one_knee_whichever_of_its_steps_are_swept():
    whole = knee_of_sweep(sweep(stairs))
    corners = knee_of_sweep([(float(c), stairs(c)) for c in (1, *range(8, 513, 8))])
    assert whole is not None
    assert corners == pytest.approx(whole, rel=0.02)
    assert 40 < whole < 64


curves = st.builds(
    Curve,
    top=st.just(8.0),
    half=st.floats(math.log(2), math.log(30)),
    sharpness=st.floats(1, 12),
    rise=st.floats(0.8, 1.0),
    limit=st.one_of(st.just(NEVER), st.floats(math.log(20), math.log(100))),
    abruptness=st.floats(2, 20),
    decline=st.floats(0, 1),
)


@given(curves)
@settings(max_examples=60, deadline=None)
def test_a_curves_knee_is_that_of_its_own_dense_sweep(curve):
    steps = [i / 16 * math.log(2) for i in range(16 * 13)]
    points = [(math.exp(at), math.exp(curve.top + curve.shape(at))) for at in steps]
    swept = knee_of_sweep(points)
    if swept is not None:
        assert math.exp(curve.knee()) == pytest.approx(swept, rel=0.03)


@pytest.mark.parametrize("speed", [hyperbola, roofline, preempted, stairs])
def test_the_ladder_finds_the_knee_of_a_dense_sweep(speed):
    truth = knee_of_sweep(sweep(speed))
    assert truth is not None
    seen, end = climb(speed, 0.01, seed=3)
    assert isinstance(end, Done)
    assert end.knee == pytest.approx(truth, rel=0.15)
    assert end.interval.low <= end.knee <= end.interval.high
    # Inside a step throughput lies below the line that joins the corners: the nearest corner is on it.
    nearest = 8 * round(end.knee / 8) if speed is stairs else round(end.knee)
    assert end.tok_s == pytest.approx(speed(nearest), rel=0.06)
    assert end.tok_s_interval.holds(end.tok_s)
    # A dense sweep of eight points to a doubling, eight windows each, is 376 windows.
    assert len(seen) < 376 / 4


def test_it_goes_no_further_up_than_it_must():
    seen, _ = climb(lambda c: 100.0 * min(c, 4), 0.01, seed=1)
    assert max(one.concurrency for one in seen) <= 16


def test_what_still_grows_at_the_most_allowed_is_inconclusive():
    _, end = climb(lambda c: 50.0 * c, 0.02, seed=2, limits=Limits(max_concurrency=64))
    assert isinstance(end, Inconclusive)
    assert "still grows at 64" in end.reason


def test_without_time_it_says_what_it_knows():
    seen, end = climb(hyperbola, 0.05, seed=5, limits=Limits(most_s=500, ratio=1.05))
    assert isinstance(end, Inconclusive)
    assert "may lie anywhere" in end.reason
    assert end.interval.high > 1.05 * end.interval.low
    assert sum(one.seconds for one in seen) <= 500


def test_about_the_knee_it_goes_down_and_up_again():
    end, order = visited(roofline, lambda: 0.0)
    assert isinstance(end, Done)
    after = order[order.index(256) + 1 :]
    turn = after.index(min(after)) + 1
    down, up = after[:turn], after[turn:]
    assert down == sorted(down, reverse=True)
    assert up == sorted(up)
    # Where about the knee is has become clearer meanwhile, which takes off an end.
    assert len(down) - 2 <= len(up) <= len(down)


def visited(speed: Callable[[int], float], drift: Callable[[], float]):
    """Let the ladder climb a machine whose log speed is off by what drift says anew at each visit."""
    seen: list[Measured] = []
    order: list[int] = []
    rng = random.Random(1)
    while isinstance(step := next_step(seen), Measure):
        off = drift()
        order.append(step.concurrency)
        seen += [
            Measured(step.concurrency, 10.0, speed(step.concurrency) * math.exp(off + rng.gauss(0, 0.01)))
            for _ in range(max(1, round(step.seconds / 10)))
        ]
    return step, order


def test_what_visits_differ_by_widens_the_interval():
    """Within each visit windows agree to 1 %; visits differ by 6 %. Pooled, they would say Done too soon."""
    rng = random.Random(2)
    steady, few = visited(hyperbola, lambda: 0.0)
    wandering, many = visited(hyperbola, lambda: rng.gauss(0, 0.06))
    assert isinstance(steady, Done)
    assert isinstance(wandering, Inconclusive) or len(many) > len(few)

    def width(end: Done | Inconclusive) -> float:
        return math.log(end.interval.high / end.interval.low)

    assert width(wandering) > 1.2 * width(steady)


def test_windows_of_one_visit_say_less_together_than_windows_apart():
    rng = random.Random(3)
    alone = [(c, 10.0, math.exp(rng.gauss(0, 0.05))) for c in (8, 16, 8, 16) for _ in range(6)]
    alike = [
        (c, 10.0, math.exp(off + rng.gauss(0, 0.01)))
        for c, off in ((8, 0.04), (16, -0.03), (8, -0.04), (16, 0.05))
        for _ in range(6)
    ]

    def known(windows: list[tuple[int, float, float]]) -> float:
        """To how much the step from 8 to 16 is known: what both err by alike moves no knee."""
        (a, b), (_, c) = yields_of(windows).covariance
        return math.sqrt(a - 2 * b + c)

    # Twice twelve windows of 5 % tell it to 2 %. Of 1 % they would to 0.4 %, were it not for the visits.
    assert known(alone) == pytest.approx(0.05 * math.sqrt(2 / 12), rel=0.5)
    assert known(alike) > 0.02


def test_windows_that_make_up_for_each_other_say_what_they_come_to_together():
    """An engine in waves: what one window lacks, the next has."""
    rng = random.Random(4)
    waves: list[tuple[int, float, float]] = []
    smooth: list[tuple[int, float, float]] = []
    for concurrency in (8, 16, 32, 16, 8, 16, 32):
        speed = concurrency * math.exp(rng.gauss(0, 0.01))
        waves += [(concurrency, 10.0, speed * share) for share in (0.7, 1.3, 0.8, 1.2)]
        smooth += [(concurrency, 10.0, speed)] * 4
    together, alike = yields_of(waves), yields_of(smooth)
    assert together.log_speeds == pytest.approx(alike.log_speeds)
    assert together.variance(40.0) == pytest.approx(alike.variance(40.0))
    # Windows of different length weigh by it.
    uneven = [(8, 30.0, 90.0), (8, 10.0, 130.0), (16, 10.0, 200.0)]
    assert yields_of(uneven).log_speeds[0] == pytest.approx(math.log(100.0))


@given(st.lists(st.lists(st.floats(-3, 3), min_size=4, max_size=4), min_size=4, max_size=4))
def test_an_inverse_undoes_its_matrix(rows):
    matrix = [[sum(a * b for a, b in zip(x, y, strict=True)) + (x is y) for y in rows] for x in rows]
    inverse, log_size = inverted(matrix)
    for i, row in enumerate(matrix):
        for j in range(4):
            found = sum(row[k] * inverse[k][j] for k in range(4))
            assert found == pytest.approx(float(i == j), abs=1e-6)
    assert log_size >= -1e-9  # every eigenvalue is one at least


def test_the_same_windows_and_seed_give_the_same_step():
    seen, end = climb(roofline, 0.03, seed=4)
    assert next_step(seen, seed=4) == end


def test_the_first_step_is_one_request_and_the_second_two():
    first = next_step([])
    assert first == Measure(1, 20.0)
    assert next_step([Measured(1, 10.0, 50.0)]) == Measure(1, 10.0)
    assert next_step([Measured(1, 20.0, 50.0)]) == Measure(2, 20.0)


@pytest.mark.parametrize("broken", [(0, 10.0, 5.0), (1, 0.0, 5.0), (1, 10.0, 0.0), (1, 10.0, math.inf)])
def test_a_window_in_which_nothing_ran_is_refused(broken):
    with pytest.raises(InvalidRequest):
        next_step([Measured(*broken)])
