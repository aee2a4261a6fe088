"""Which GPUs are lent: by word, or because somebody took them."""

from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from subcortex.fleet.scene import HOST
from subcortex.fleet.yielding import Lending

OVER_MIB, BACK_S = 2048.0, 30.0
GPU_0, GPU_1 = frozenset({0}), frozenset({1})


def look(lending: Lending, now_s: float, **foreign_mib: float) -> Lending:
    """Return it after a look; ``gpu0`` and the like name what other programs hold."""
    devices = {int(name[3:]): mib for name, mib in foreign_mib.items()}
    return lending.look(now_s, devices, OVER_MIB, BACK_S)


def test_a_gpu_is_lent_until_its_time():
    lending = Lending().lend([0], 100.0)
    assert "GPU 0 is lent" in str(lending.why(GPU_0, 99.0))
    assert lending.why(GPU_1, 99.0) is None
    assert lending.why(GPU_0, 100.0) is None
    assert lending.ends_s(0.0) == 100.0
    assert lending.ends_s(100.0) == inf


def test_all_gpus_are_lent_until_taken_back():
    lending = Lending().lend(None, inf)
    assert "all GPUs are lent" in str(lending.why(GPU_1, 1e9))
    assert lending.take_back().why(GPU_1, 0.0) is None


def test_no_gpu_named_is_none_lent():
    assert Lending().lend([], inf).loans == ()


def test_the_longest_of_two_loans_counts_and_the_next_end_is_the_sooner():
    lending = Lending().lend([0], 100.0).lend([0, 1], 50.0)
    assert lending.ends_s(0.0) == 50.0
    assert lending.why(GPU_0, 60.0) is not None
    assert lending.why(GPU_1, 60.0) is None


def test_loans_that_are_over_are_forgotten():
    assert look(Lending().lend([0], 10.0), 11.0).loans == ()


def test_what_was_there_at_the_first_look_is_not_taking():
    assert look(Lending(), 0.0, gpu0=50_000.0).why(GPU_0, 0.0) is None


def test_a_gpu_is_taken_above_the_limit_and_not_at_it():
    first = look(Lending(), 0.0, gpu0=1000.0)
    assert look(first, 1.0, gpu0=1000.0 + OVER_MIB).why(GPU_0, 1.0) is None
    taken = look(first, 1.0, gpu0=1001.0 + OVER_MIB)
    assert taken.why(GPU_0, 1.0) == "another program has taken GPU 0"
    assert taken.why(GPU_1, 1.0) is None


def test_the_least_so_far_is_what_counts_as_usual():
    lending = look(look(Lending(), 0.0, gpu0=50_000.0), 1.0, gpu0=0.0)
    assert look(lending, 2.0, gpu0=OVER_MIB + 1.0).taken == {0: 2.0}


def test_a_gpu_is_given_back_after_half_as_much_for_long_enough():
    taken = look(look(Lending(), 0.0, gpu0=0.0), 1.0, gpu0=9_000.0)
    still = look(taken, 20.0, gpu0=OVER_MIB / 2 + 1.0)
    assert still.taken == {0: 20.0}, "half the limit is what it takes, not the limit"
    assert look(still, 49.0, gpu0=OVER_MIB / 2).why(GPU_0, 49.0) is not None
    assert look(still, 50.0, gpu0=OVER_MIB / 2).why(GPU_0, 50.0) is None


def test_taking_back_leaves_others_what_they_use_now():
    taken = look(look(Lending(), 0.0, gpu0=0.0), 1.0, gpu0=9_000.0).take_back()
    assert look(taken, 2.0, gpu0=9_000.0).why(GPU_0, 2.0) is None
    assert look(look(taken, 2.0, gpu0=9_000.0), 3.0, gpu0=12_000.0).why(GPU_0, 3.0) is not None


def test_host_memory_is_nobodys_to_take():
    lending = Lending().look(0.0, {HOST: 0.0}, OVER_MIB, BACK_S)
    assert lending.look(1.0, {HOST: 1e6}, OVER_MIB, BACK_S).taken == {}


@given(st.lists(st.tuples(st.floats(0.1, 40.0), st.floats(0.0, 20_000.0)), max_size=40))
def test_taken_for_as_long_as_it_is_used_and_no_longer_than_the_pause(looks):
    lending, now_s, least_mib, used_s = Lending(), 0.0, inf, -inf
    for passed_s, mib in looks:
        now_s += passed_s
        least_mib = min(least_mib, mib)
        lending = look(lending, now_s, gpu0=mib)
        if mib - least_mib > OVER_MIB:
            assert 0 in lending.taken
        if mib - least_mib > OVER_MIB / 2:
            used_s = now_s
        if now_s - used_s >= BACK_S:
            assert 0 not in lending.taken
