"""What swaps took in a former life is known in the next, as long as the model is the same."""

from __future__ import annotations

from pathlib import Path

from subcortex.config import Config, parse
from subcortex.fleet import SwapBook
from subcortex.journal import Journal
from subcortex.mind.costs import remember_swaps
from subcortex.types import Rest


def config(tmp_path: Path, model: str = "models/70b") -> Config:
    tiers = [{"name": "deep", "engine": "vllm", "model": model}]
    return parse({"journal": {"database": "journal.db"}, "tiers": tiers}, tmp_path / "config.toml")


async def lived(config: Config) -> None:
    """Write down the changes of a day: two lives of a process, the first of which slept twice."""
    journal = Journal.open(config.database_path)
    for kind, facts in (
        ("starting", {"was": "stopped", "was_for_s": 1.0}),
        ("ready", {"was": "starting", "was_for_s": 96.0, "load_s": 95.0}),
        ("asleep", {"was": "sleeping", "was_for_s": 67.7, "rest": "sleep_1"}),
        ("ready", {"was": "waking", "was_for_s": 2.1, "rest": "sleep_1", "wake_s": 2.1}),
        ("asleep", {"was": "sleeping", "was_for_s": 2.0, "rest": "sleep_1"}),
        ("stopped", {"was": "stopping", "was_for_s": 9.7}),
        ("starting", {"was": "stopped", "was_for_s": 1.0}),
        ("ready", {"was": "starting", "was_for_s": 90.0, "load_s": 85.0}),
        ("asleep", {"was": "sleeping", "was_for_s": 34.3, "rest": "sleep_1"}),
    ):
        journal.event("deep", kind, model="models/70b", **facts)
    await journal.aclose()


async def test_a_first_sleep_is_told_from_later_ones(tmp_path):
    await lived(config(tmp_path))
    book = SwapBook()
    remember_swaps(book, config(tmp_path))
    fresh, slept = book.swaps("deep", slept=()), book.swaps("deep", slept={Rest.SLEEP_1})
    assert fresh.leave_s[Rest.SLEEP_1] == (67.7 + 34.3) / 2
    assert slept.leave_s[Rest.SLEEP_1] == 2.0
    assert slept.back_s == {**slept.back_s, Rest.SLEEP_1: 2.1, Rest.STOP: 90.0}
    assert slept.leave_s[Rest.STOP] == 9.7


async def test_another_model_begins_anew(tmp_path):
    await lived(config(tmp_path))
    book, fresh = SwapBook(), SwapBook()
    remember_swaps(book, config(tmp_path, "models/8b"))
    assert book.swaps("deep") == fresh.swaps("deep")


def test_without_a_journal_nothing_is_known(tmp_path):
    book = SwapBook()
    remember_swaps(book, config(tmp_path))
    assert book.swaps("deep") == SwapBook().swaps("deep")


def test_what_was_never_measured_is_foretold_from_the_weights():
    swaps = SwapBook().swaps("deep", slept=(), pins_mib=131 * 1024.0)
    assert 34 < swaps.leave_s[Rest.SLEEP_1] < 68, "as two H200 took"
    later = SwapBook().swaps("deep", slept={Rest.SLEEP_1}, pins_mib=131 * 1024.0)
    assert 2 < later.leave_s[Rest.SLEEP_1] < 5
