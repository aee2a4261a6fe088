"""What listeners hear of a tier: how it stands, what became of it, and from the mind the whole story."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from subcortex.errors import EngineFailed
from subcortex.mind.changes import changed, standing
from subcortex.types import Rest, TierEvent, TierState, TierStatus
from tests.fakes import ScriptedEngine
from tests.mind.test_think import mind_of

AT = datetime(2026, 3, 1, tzinfo=UTC)


def tier(**fields) -> TierStatus:
    return TierStatus(name="deep", rank=1, engine="vllm", model="m", **fields)


def test_a_change_has_its_states_its_reason_and_the_other_facts():
    facts = {"was": "ready", "why": "fast needs GPU 0", "rest": "sleep_1"}
    event = changed(AT, "deep", "draining", facts, TierState.DRAINING)
    assert event == TierEvent(
        at=AT,
        tier="deep",
        state=TierState.DRAINING,
        was=TierState.READY,
        why="fast needs GPU 0",
        facts={"rest": "sleep_1"},
    )


def test_an_error_is_the_reason_where_none_is_given():
    assert changed(AT, "deep", "failed", {"error": "no such file"}, TierState.FAILED).why == "no such file"


def test_what_is_no_state_keeps_the_tiers_own_and_says_its_kind():
    event = changed(AT, "deep", "canary_differs", {"token": 3}, TierState.WAKING)
    assert (event.state, event.was) == (TierState.WAKING, None)
    assert event.facts == {"kind": "canary_differs", "token": 3}


def test_how_a_tier_stands_says_how_it_rests_and_what_it_waits_for():
    asleep = standing(AT, tier(state=TierState.ASLEEP, rest=Rest.SLEEP_2))
    assert (asleep.state, asleep.was, asleep.facts) == (TierState.ASLEEP, None, {"rest": "sleep_2"})
    stopped = standing(AT, tier(state=TierState.STOPPED, waits_for="fast makes room"))
    assert stopped.facts == {"waits_for": "fast makes room"}
    assert standing(AT, tier(state=TierState.FAILED, error="too large")).why == "too large"


async def test_a_listener_hears_how_things_stand_then_each_change_to_the_end(tmp_path):
    engines = {"fast": ScriptedEngine("fast.gguf"), "deep": ScriptedEngine("deep.gguf")}
    engines["deep"].starts = [None, EngineFailed("will not start")]
    async with mind_of(tmp_path, engines) as mind:
        heard: list[TierEvent] = []
        failed = asyncio.Event()

        async def listen() -> None:
            async for event in mind.events():
                heard.append(event)
                if event.state is TierState.FAILED:
                    failed.set()

        listening = asyncio.create_task(listen())
        while len(heard) < 2:
            await asyncio.sleep(0)
        engines["deep"].die("killed by signal 9")
        await asyncio.wait_for(failed.wait(), 5)
    await asyncio.wait_for(listening, 5)
    assert [(e.tier, e.state, e.was) for e in heard[:2]] == [
        ("fast", TierState.READY, None),
        ("deep", TierState.READY, None),
    ]
    states = [event.state for event in heard[2:] if event.tier == "deep"]
    assert states[0] is TierState.BACKING_OFF
    assert TierState.FAILED in states
    assert "killed by signal 9" in (heard[2].why or "")
    chain = [event for event in heard if event.tier == "deep"]
    assert [e.was for e in chain[1:]] == [e.state for e in chain[:-1]], "no change is left out"
    last = {event.tier: event.state for event in heard}
    assert last["fast"] is TierState.STOPPED, "the end is heard too"
