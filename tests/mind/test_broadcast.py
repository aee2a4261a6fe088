"""Everybody hears everything in order, nobody is waited for, and who falls behind is told so."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.errors import Overloaded
from subcortex.mind.broadcast import Broadcaster, Listener


async def heard(listener: Listener[int]) -> list[int]:
    return [event async for event in listener]


async def hear_into(got: list[int], listener: Listener[int]) -> None:
    async for event in listener:
        got.append(event)


async def test_each_listener_hears_all_from_when_it_came_to_the_end():
    voice: Broadcaster[int] = Broadcaster()
    voice.tell(0)
    with voice.listening() as first:
        early = asyncio.create_task(heard(first))
        await asyncio.sleep(0)
        voice.tell(1)
        with voice.listening() as second:
            voice.tell(2)
            voice.close()
            voice.tell(3)
            assert await early == [1, 2, 3]
            assert await heard(second) == [2, 3]


async def test_after_the_end_there_is_nothing_to_hear():
    voice: Broadcaster[int] = Broadcaster()
    voice.close()
    with voice.listening() as late:
        assert await heard(late) == []


async def test_who_falls_behind_hears_what_was_kept_and_then_that_it_was_cut_off():
    voice: Broadcaster[int] = Broadcaster(buffered=3)
    with voice.listening() as slow, voice.listening() as quick:
        for event in range(5):
            voice.tell(event)
            assert await anext(quick) == event
        got = [await anext(slow) for _ in range(3)]
        voice.tell(5)  # a gap in the middle would be a lie
        with pytest.raises(Overloaded, match="more than 3 events") as caught:
            await anext(slow)
        assert got == [0, 1, 2]
        assert caught.value.details["buffered"] == 3
        voice.close()
        assert await heard(quick) == [5]


async def test_being_cut_off_is_said_also_when_the_broadcast_is_over():
    voice: Broadcaster[int] = Broadcaster(buffered=1)
    with voice.listening() as slow:
        voice.tell(1)
        voice.tell(2)
        voice.close()
        assert await anext(slow) == 1
        with pytest.raises(Overloaded):
            await anext(slow)


async def test_who_has_left_is_told_nothing_more():
    voice: Broadcaster[int] = Broadcaster()
    with voice.listening() as listener:
        pass
    voice.tell(1)
    listener.end()
    assert await heard(listener) == []


@given(st.lists(st.sampled_from(["tell", "read"]), max_size=60), st.integers(1, 4))
def test_a_listener_hears_a_beginning_without_a_gap(steps, buffered):
    async def follow() -> None:
        voice: Broadcaster[int] = Broadcaster(buffered=buffered)
        told, got, unread, behind = 0, [], 0, False
        with voice.listening() as listener:
            for step in steps:
                if step == "tell":
                    voice.tell(told)
                    told += 1
                    behind = behind or unread == buffered
                    unread += not behind
                elif unread:
                    got.append(await anext(listener))
                    unread -= 1
            voice.close()
            if behind:
                with pytest.raises(Overloaded):
                    await hear_into(got, listener)
            else:
                await hear_into(got, listener)
        assert got == list(range(len(got)))
        assert behind or len(got) == told

    asyncio.run(follow())
