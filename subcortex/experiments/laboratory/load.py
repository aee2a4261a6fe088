"""Requests to a served model: one alone, or so many kept going at once. Effects."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import ceil, inf
from pathlib import Path
from statistics import median
from typing import Any

from subcortex.errors import EngineFailed, InvalidRequest
from subcortex.experiments.laboratory.engines import Served
from subcortex.experiments.laboratory.streams import Streamed, events_of, posted, streamed

#: No answer may take longer: 512 tokens at five a second, and a queue before them.
ANSWER_LIMIT_S = 300.0
#: How long until there are as many requests as are wanted; then they are made so, by force.
_SIZE_LIMIT_S = 60.0
#: How long until every request of a load has begun to be answered; what waits then waits for good.
_SETTLE_LIMIT_S = 60.0
#: As shares of the requests, how many answers end before a load has settled: since it began to change, and
#: since it is as large as it shall be. How long that is waited for.
_TURNED, _TURNED_SINCE = 0.5, 0.25
_MIXED_LIMIT_S = 20.0
_SETTLED_S = 0.25
#: How much longer than asked for a window may last.
_TURN_LIMIT_S = 60.0
_WORDS, _FEWEST_IDS = 2000, 12
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI server on a Unix socket.

    Args:
        socket: That it listens on.
        model: The name in requests.
        ids: Tokens that prompts are made of.
        extra: What else goes into each request.
    """

    socket: Path
    model: str
    ids: tuple[int, ...]
    extra: tuple[tuple[str, Any], ...] = ()

    @classmethod
    async def of(cls, served: Served) -> Endpoint:
        """Return a served model's, after asking it what words are in tokens.

        Raises:
            EngineFailed: It does not say.
        """
        text = _words(random.Random(0))  # noqa: S311 - words, no secret
        llamacpp = served.engine.kind == "llama.cpp"
        named = {"content": text} if llamacpp else {"model": served.name, "prompt": text}
        body = {**named, "add_special_tokens": False, "add_special": False} if llamacpp else named
        answer = await posted(served.socket, "/tokenize", body)
        tokens = answer.get("tokens") if isinstance(answer, dict) else None
        # The first may be the mark of a beginning.
        ids = tuple(sorted({one for one in (tokens or [])[1:] if isinstance(one, int)}))
        if len(ids) < _FEWEST_IDS:
            raise EngineFailed(
                f"the model's tokenizer makes {len(ids)} different tokens of {_WORDS} words",
                hint="A load needs prompts that differ from each other: give the model its tokenizer.",
            )
        # Old prompts would be looked up and copied, though no prompt comes twice.
        return cls(served.socket, served.name, ids, (("cache_prompt", False),) if llamacpp else ())

    def body(self, prompt: list[int], max_tokens: int) -> dict[str, Any]:
        """Return a request for so many tokens, whatever the model would say."""
        asked = {"model": self.model, "prompt": prompt, "max_tokens": max_tokens}
        return asked | {"temperature": 0, "ignore_eos": True} | dict(self.extra)


@dataclass(frozen=True, slots=True)
class Timing:
    """How one answer came.

    Args:
        ttft_s: From the request to its first token.
        tpot_s: (latency − TTFT) / (n − 1), over n generated tokens.
        latency_s: From the request to its last token.
        tokens, prompt_tokens: As the engine counts them.
        itl_s: Between reads that brought tokens, one after the other; of an answer alone.
        began_s: When the request was sent, on the monotonic clock.
    """

    ttft_s: float
    tpot_s: float
    latency_s: float
    tokens: int
    prompt_tokens: int
    itl_s: tuple[float, ...] = ()
    began_s: float = 0.0


async def answer(
    served: Served | Endpoint,
    *,
    prompt_tokens: int,
    max_tokens: int,
    seed: int | None = None,
    limit_s: float = ANSWER_LIMIT_S,
) -> Timing:
    """Ask one question alone and return how its answer came.

    Args:
        served: What to ask.
        prompt_tokens: Of the question; random words that no cache has seen.
        max_tokens: Generated, whatever the model would say; at least 2.
        seed: Of the words; None for others each time.
        limit_s: After which it has failed.

    Raises:
        InvalidRequest: Under 2 tokens.
        EngineFailed: It was refused, or broke off, or was not over in time.
    """
    _check(prompt_tokens, max_tokens)
    endpoint = served if isinstance(served, Endpoint) else await Endpoint.of(served)
    prompt = _prompt(endpoint, prompt_tokens, random.Random(seed))  # noqa: S311 - words, no secret
    found = await streamed(endpoint.socket, endpoint.body(prompt, max_tokens), limit_s=limit_s, keep=True)
    times = sorted({at_s for at_s, event in events_of(found.pieces) if event.get("choices")})
    return _timing(found, tuple(after - before for before, after in itertools.pairwise(times)))


@dataclass(frozen=True, slots=True)
class Window:
    """What so many requests at once gave for so long.

    Args:
        concurrency: Requests kept going.
        seconds: How long it was looked.
        tok_s: Tokens a second that came.
        timings: Of the answers that ended in it.
        whole: At least as many answers ended in it as there were requests.
    """

    concurrency: int
    seconds: float
    tok_s: float
    timings: tuple[Timing, ...]
    whole: bool = True


class Load:
    """A closed loop: whenever an answer ends, the next request is sent. One task uses it.

    Lengths of answers are drawn by chance, from half of the most up to it; those of each place's first from
    2 up. Were all alike, requests that once began together would end together ever after, and a window would
    see the engine read prompts and nothing else, or none at all.
    """

    def __init__(self, endpoint: Endpoint, *, prompt_tokens: int, max_tokens: int, seed: int | None) -> None:
        self._endpoint = endpoint
        self._prompt_tokens, self._max_tokens = prompt_tokens, max_tokens
        self._rng = random.Random(seed)  # noqa: S311 - words, no secret
        self._places: dict[int, asyncio.Task[None]] = {}
        self._numbers, self._wanted = itertools.count(), 0
        #: Places of which nothing was heard yet, and those whose present request is not being answered yet.
        self._silent: set[int] = set()
        self._waiting: set[int] = set()
        self._heard, self._turned = asyncio.Event(), asyncio.Event()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._events = self._answers = 0
        self._ended: list[Timing] = []
        self._done_tokens = self._done_events = 0

    @classmethod
    @asynccontextmanager
    async def on(
        cls, served: Served | Endpoint, *, prompt_tokens: int, max_tokens: int, seed: int | None = None
    ) -> AsyncIterator[Load]:
        """Give a load of no requests yet; at the end, whatever came, none is left.

        Args:
            served: What to ask.
            prompt_tokens, max_tokens: Of each request, and of an answer at the most; at least 1 and 2.
            seed: Of words and lengths; None for others each time.

        Raises:
            InvalidRequest, EngineFailed: As ``answer``.
        """
        _check(prompt_tokens, max_tokens)
        endpoint = served if isinstance(served, Endpoint) else await Endpoint.of(served)
        load = cls(endpoint, prompt_tokens=prompt_tokens, max_tokens=max_tokens, seed=seed)
        try:
            yield load
            if load._failed.done():
                load._failed.result()
        finally:
            load._wanted = 0
            await load._resize()
            if not load._failed.cancel():
                load._failed.exception()  # it was told, or something worse is being told

    @property
    def concurrency(self) -> int:
        """Requests kept going."""
        return len(self._places)

    async def keep(self, concurrency: int, *, most_s: float = inf) -> None:
        """Keep so many requests going from now on, until prompts and answers are mixed as they stay.

        A load grows by one request with each answer that ends, and shrinks by not following an answer with a
        request: many that are sent or broken off at once would go in step long after. One of nothing begins
        whole. It has settled once each request has begun to be answered, half as many answers have ended as
        there are requests, and half of those since it has its size.

        It waits a minute at most to have its size, which it then is given; a minute at most for the first
        tokens, for what is not answered by then waits in the engine's queue; and 20 s at most for answers.

        Args:
            concurrency: How many.
            most_s: To wait at the most.

        Raises:
            EngineFailed: A request failed.
        """
        if concurrency == self._wanted == len(self._places):
            return
        until_s = time.monotonic() + most_s
        self._done_tokens = self._done_events = 0
        before = self._answers
        self._wanted = concurrency
        # From nothing, or to nothing, there is nobody whose end could be waited for.
        limit_s = min(_SIZE_LIMIT_S, _left_s(until_s)) if self._places and concurrency else 0.0
        if not await self._wait(self._sized(), limit_s):
            await self._resize()
        since = self._answers
        while self._silent:
            self._heard.clear()
            if not await self._wait(self._heard.wait(), min(_SETTLE_LIMIT_S, _left_s(until_s))):
                break
        wanted = max(before + int(_TURNED * concurrency), since + int(_TURNED_SINCE * concurrency))
        await self._wait(self._turned_to(wanted), min(_MIXED_LIMIT_S, _left_s(until_s)))
        await self._wait(asyncio.sleep(_SETTLED_S), None)

    async def window(self, seconds: float, *, most_s: float = inf) -> Window:
        """Look for so long at what comes, and on until as many answers have ended as there are requests, or
        twice as many, or thrice.

        An engine under load goes in waves, of prompts and of answers: a piece of one says little of how many
        tokens come, whole ones all of it. Where nothing at all has come it looks again for so long, whatever
        the most is.

        Args:
            seconds: At the least.
            most_s: At the most; and never a minute more than at the least.

        Raises:
            EngineFailed: A request failed, now or before.
        """
        events, ended, answers, began_s = self._events, len(self._ended), self._answers, time.monotonic()
        done_tokens, done_events = self._done_tokens, self._done_events
        seconds = min(seconds, most_s)
        await self._wait(asyncio.sleep(seconds), None)
        size = len(self._places)
        turns = max(1, ceil((self._answers - answers) / size)) if size else 0
        await self._wait(self._turned_to(answers + turns * size), min(_TURN_LIMIT_S, most_s - seconds))
        whole = self._answers - answers >= size
        while self._events == events and self._places:
            # It has an end: no request is silent for longer than its own limit.
            await self._wait(asyncio.sleep(seconds), None)
        took_s = time.monotonic() - began_s
        # Engines join tokens, the more the busier they are, and add events of their own: what an event brings
        # is known from the answers that have ended, in this window or, without any, before.
        if self._done_events > done_events:
            each = (self._done_tokens - done_tokens) / (self._done_events - done_events)
        else:
            each = self._done_tokens / self._done_events if self._done_events else 1.0
        came = (self._events - events) * each
        return Window(size, took_s, came / took_s, tuple(self._ended[ended:]), whole)

    async def _sized(self) -> None:
        while len(self._places) != self._wanted:
            self._turned.clear()
            await self._turned.wait()

    async def _turned_to(self, answers: int) -> None:
        while self._answers < answers:
            self._turned.clear()
            await self._turned.wait()

    async def _go_on(self, number: int) -> None:
        try:
            first, max_tokens = True, self._rng.randint(2, self._max_tokens)
            while True:
                self._waiting.add(number)
                prompt = _prompt(self._endpoint, self._prompt_tokens, self._rng)
                body = self._endpoint.body(prompt, max_tokens)
                found = await streamed(
                    self._endpoint.socket, body, limit_s=ANSWER_LIMIT_S, on_events=self._counter(number)
                )
                self._done_tokens += found.tokens
                self._done_events += found.events
                self._answers += 1
                self._turned.set()
                if not first:
                    self._ended.append(_timing(found))
                if len(self._places) > self._wanted:
                    del self._places[number]
                    return
                if len(self._places) < self._wanted:
                    self._begin()
                first, max_tokens = False, self._rng.randint(max(2, self._max_tokens // 2), self._max_tokens)
        except Exception as error:
            if not self._failed.done():
                self._failed.set_exception(error)

    def _begin(self) -> None:
        number = next(self._numbers)
        self._silent.add(number)
        self._places[number] = asyncio.create_task(self._go_on(number))

    def _counter(self, number: int) -> Callable[[int], None]:
        def count(events: int) -> None:
            self._events += events
            self._waiting.discard(number)
            if self._silent:
                self._silent.discard(number)
                if not self._silent:
                    self._heard.set()

        return count

    async def _wait(self, what: Coroutine[Any, Any, object], limit_s: float | None) -> bool:
        """Wait for something and return whether it came; raise as soon as a request fails."""
        waiting: asyncio.Task[Any] = asyncio.create_task(what)
        try:
            await asyncio.wait({waiting, self._failed}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            if self._failed.done():
                self._failed.result()
            return waiting.done()
        finally:
            waiting.cancel()

    async def _resize(self) -> None:
        """Have as many places as are wanted, now; let go of what waits before what is being answered: the
        room of that many would be filled at once, with requests that from then on go in step."""
        while len(self._places) < self._wanted:
            self._begin()
        by_worth = sorted(self._places, key=lambda number: (number not in self._waiting, -number))
        numbers = by_worth[: len(self._places) - self._wanted]
        gone = [self._places.pop(number) for number in numbers]
        self._silent.difference_update(numbers)
        for place in gone:
            place.cancel()
        await asyncio.gather(*gone, return_exceptions=True)
        self._waiting.difference_update(numbers)


def _left_s(until_s: float) -> float:
    return max(0.0, until_s - time.monotonic())


def middle(timings: tuple[Timing, ...] | list[Timing]) -> dict[str, float]:
    """Return the medians of answers' TTFT and TPOT in seconds, and how many there were; none of none."""
    if not timings:
        return {"answers": 0}
    return {
        "answers": len(timings),
        "ttft_s": median(one.ttft_s for one in timings),
        "tpot_s": median(one.tpot_s for one in timings),
    }


def _check(prompt_tokens: int, max_tokens: int) -> None:
    if prompt_tokens < 1 or max_tokens < 2:
        raise InvalidRequest(
            f"A question of {prompt_tokens} tokens with an answer of {max_tokens} measures nothing.",
            hint="Give the question one token at least and the answer two.",
        )


def _timing(found: Streamed, itl_s: tuple[float, ...] = ()) -> Timing:
    ttft_s, latency_s = found.first_s - found.began_s, found.last_s - found.began_s
    tpot_s = (latency_s - ttft_s) / max(1, found.tokens - 1)
    return Timing(ttft_s, tpot_s, latency_s, found.tokens, found.prompt_tokens, itl_s, found.began_s)


def _prompt(endpoint: Endpoint, tokens: int, rng: random.Random) -> list[int]:
    return rng.choices(endpoint.ids, k=tokens)


def _words(rng: random.Random) -> str:
    return " ".join("".join(rng.choices(_LETTERS, k=rng.randint(2, 8))) for _ in range(_WORDS))
