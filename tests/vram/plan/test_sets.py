"""Which sets of GPUs are tried: every unlike one, once, and without making the rest."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from subcortex.vram.plan.place import unlike


@given(st.lists(st.sampled_from("abc"), max_size=8), st.integers(0, 8))
def test_of_sets_that_are_alike_the_first_is_tried(kinds: list[str], count: int) -> None:
    gpus = [7 * place for place in range(len(kinds))]
    of = dict(zip(gpus, kinds, strict=True))
    expected: dict[tuple[str, ...], tuple[int, ...]] = {}
    for chosen in combinations(gpus, count):
        expected.setdefault(tuple(of[gpu] for gpu in chosen), chosen)
    assert list(unlike(gpus, of, count)) == list(expected.values())


def test_as_many_equal_cards_as_a_machine_may_have_are_one_set() -> None:
    # Made one by one, the sets of 32 of 64 cards would never end.
    assert list(unlike(range(64), dict.fromkeys(range(64)), 32)) == [tuple(range(32))]
