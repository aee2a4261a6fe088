"""What ps shows of sleeping tiers, of what is waited for, and of what nobody should overlook."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from subcortex.cli._ps_view import WARNING, event_line, styled_lines, yielded_words
from subcortex.cli.fleet import _crowded_out
from subcortex.types import DaemonInfo, Rest, Status, TierEvent, TierState, TierStatus, Yielded

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def tier(name="deep", state=TierState.READY, **fields) -> TierStatus:
    return TierStatus(name=name, rank=0, engine="vllm", model="m", state=state, **fields)


def view(*tiers: TierStatus, **daemon) -> list[tuple[str, str]]:
    given = {"pid": 7, "version": "1", "started_at": AT, "uptime_s": 5.0, "socket": "/s", "database": "/d"}
    return styled_lines(Status(daemon=DaemonInfo.model_validate(given | daemon), tiers=list(tiers)))


@pytest.mark.parametrize(
    ("state", "rest", "shown"),
    [
        (TierState.DRAINING, None, "draining"),
        (TierState.SLEEPING, Rest.SLEEP_1, "sleeping, level 1"),
        (TierState.ASLEEP, Rest.SLEEP_2, "asleep, level 2"),
        (TierState.WAKING, Rest.SLEEP_1, "waking, level 1"),
        (TierState.STOPPING, Rest.STOP, "stopping"),
        (TierState.BACKING_OFF, None, "backing off"),
    ],
)
def test_each_state_is_named_and_sleep_has_its_level(state, rest, shown):
    row = view(tier(state=state, rest=rest))[2][0]
    assert row.startswith(f"deep  vllm    {shown}  ")


def test_what_a_tier_waits_for_stands_under_the_table():
    waiting = tier(state=TierState.STOPPED, queued=2, waits_for="room on GPU 0: fast has 3 thoughts\x1b[2J")
    lines = [line for line, _ in view(tier("fast"), waiting)]
    assert lines[-1] == "deep waits: room on GPU 0: fast has 3 thoughts␛[2J"
    assert not [line for line in lines if line.startswith("fast waits")]


def test_a_degraded_journal_and_a_yield_have_warnings_of_their_own_below_the_header():
    held = "degraded: the disk is full (database or disk is full); 12 rows wait in memory"
    lines = view(tier(), journal=held, yielded=[Yielded(gpus=[0, 1]), Yielded()])
    assert "journal degraded," in lines[0][0]
    assert lines[1] == (f"JOURNAL {held}", WARNING)
    given = "GPUs 0, 1 left to others; all tiers rest; `subcortex yield --end` takes back"
    assert lines[2] == (f"YIELDED {given}", WARNING)
    assert [style for _, style in lines].count(WARNING) == 2
    assert WARNING not in {style for _, style in view(tier())}


def test_rows_that_were_lost_are_a_warning_after_the_trouble_is_over():
    lines = view(tier(), journal="ok; 3 rows were lost")
    assert "journal ok," in lines[0][0]
    assert lines[1] == ("JOURNAL ok; 3 rows were lost", WARNING)


def test_a_yield_says_until_when():
    tonight = datetime.now().astimezone().replace(hour=23, minute=59, second=58, microsecond=0)
    assert yielded_words(Yielded(gpus=[1], until=tonight)) == "GPU 1 left to others until 23:59:58"
    later = tonight + timedelta(days=3)
    assert yielded_words(Yielded(until=later)) == f"all tiers rest until {later:%Y-%m-%d} 23:59"


def test_an_event_is_one_harmless_line():
    event = TierEvent(
        at=AT,
        tier="deep",
        state=TierState.BACKING_OFF,
        was=TierState.READY,
        why="killed\n\x1b[31mby signal 9",
        facts={"load_s": 12.3456, "version": None, "rest": "sleep_1"},
    )
    clock = f"{AT.astimezone():%H:%M:%S}"
    assert event_line(event) == (
        f"{clock} deep: ready → backing off (load_s 12.3, rest sleep_1): killed ␛[31mby signal 9"
    )
    assert event_line(TierEvent(at=AT, tier="deep", state=TierState.ASLEEP)) == f"{clock} deep: asleep"


def test_up_leaves_off_waiting_only_where_nothing_moves_and_what_is_missing_says_why():
    up = tier("fast")
    out = tier(state=TierState.STOPPED, waits_for="fast stays")

    def crowded(*tiers: TierStatus) -> bool:
        given = {
            "pid": 7,
            "version": "1",
            "started_at": AT,
            "uptime_s": 5.0,
            "socket": "/s",
            "database": "/d",
        }
        return _crowded_out(list(tiers), Status(daemon=DaemonInfo.model_validate(given), tiers=list(tiers)))

    assert crowded(up, out)
    assert not crowded(tier("fast", TierState.STARTING), out)
    assert not crowded(tier("fast", TierState.SLEEPING), out)
    assert not crowded(up, tier(state=TierState.STOPPED))
