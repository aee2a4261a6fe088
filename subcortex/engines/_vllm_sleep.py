"""vLLM's sleep mode: whether a tier has it, and the requests that put a server to sleep and wake it.

The routes are vLLM's development routes. They are there with ``VLLM_SERVER_DEV_MODE=1`` alone, and only the
fixed paths below are ever asked, on a socket that nobody else can reach. Level and tags are query
parameters: in a body they are passed over.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

from subcortex.config import VllmTier
from subcortex.engines._flags import last_named
from subcortex.engines.wire import Wire
from subcortex.errors import DoesNotFit, EngineFailed
from subcortex.types import Rest

DEV_MODE, FLAG = "VLLM_SERVER_DEV_MODE", "--enable-sleep-mode"
_ORIGIN = "http://engine"
_LEVELS = {Rest.SLEEP_1: 1, Rest.SLEEP_2: 2}
#: After its answer the server sleeps or is awake; how long it may take to say so.
_SETTLE_S = 30.0
_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.02, 0.5
#: The log is read a few times a second.
_LOG_DELAY_S = 0.3
_OUT_OF_MEMORY = re.compile(r"out of memory|OutOfMemoryError", re.IGNORECASE)
_ASKED_FOR = re.compile(r"Tried to allocate (?P<size>[\d.]+ [KMG]iB)")


@dataclass(frozen=True, slots=True)
class Step:
    """One request of a wake."""

    path: str
    body: dict[str, Any] | None = None


_CLEAR = Step("/reset_prefix_cache")
_FROM_HOST = (Step("/wake_up"), _CLEAR)
_FROM_DISK = (
    Step("/wake_up?tags=weights"),
    Step("/collective_rpc", {"method": "reload_weights"}),
    Step("/wake_up?tags=kv_cache"),
    _CLEAR,
)


def flag_missing(tier: VllmTier) -> bool:
    """Return whether the tier wants sleep mode and its flags do not say so."""
    return bool(tier.sleep_mode) and last_named(tier.flags, FLAG, "--no-enable-sleep-mode") is None


def enabled(tier: VllmTier) -> bool:
    """Return whether a server of this tier can be put to sleep."""
    named = last_named(tier.flags, FLAG, "--no-enable-sleep-mode")
    # Turned off by hand, its routes are not there.
    if tier.sleep_mode is False or tier.env.get(DEV_MODE, "1").strip() in ("", "0"):
        return False
    return named == FLAG if named else bool(tier.sleep_mode)


def steps_of_wake(rest: Rest | None) -> tuple[Step, ...]:
    """Return the requests that wake a server from ``rest``; None: how it sleeps is not known.

    Weights that are read again are right whichever way it slept.
    """
    return _FROM_HOST if rest is Rest.SLEEP_1 else _FROM_DISK


class Sleeper:
    """Puts one server to sleep and wakes it.

    Args:
        wire: Connection to it.
        model: Its model, for errors.
        limit_s: Seconds that going to sleep, or waking, may take.
        log: Returns all of the log's end.
    """

    def __init__(self, wire: Wire, *, model: str, limit_s: float, log: Callable[[], str]) -> None:
        self._wire = wire
        self._model = model
        self._limit_s = limit_s
        self._log = log

    async def sleep(self, rest: Rest) -> None:
        """Put it to sleep; see ``Engine.sleep``."""
        # Should a request be at work against all promises, it is answered first.
        path = f"/sleep?level={_LEVELS[rest]}&mode=wait"
        await self._within("fall asleep", self._done("fall asleep", (Step(path),), asleep=True))

    async def wake(self, rest: Rest | None) -> None:
        """Wake it from ``rest``; see ``Engine.wake``."""
        before = self._log()
        try:
            await self._within("wake", self._done("wake", steps_of_wake(rest), asleep=False))
        except EngineFailed as error:
            said = error.message
            if not _OUT_OF_MEMORY.search(said):
                await asyncio.sleep(_LOG_DELAY_S)
                said = _since(before, self._log())
            if _OUT_OF_MEMORY.search(said):
                raise self._no_room(said) from error
            raise

    async def awake(self) -> bool:
        """Return whether it says that it is awake."""
        status, body = await self._wire.get(f"{_ORIGIN}/is_sleeping")
        return status == 200 and isinstance(body, dict) and body.get("is_sleeping") is False

    async def _within(self, doing: str, work: Any) -> None:
        try:
            async with asyncio.timeout(self._limit_s):
                await work
        except TimeoutError:
            raise self._failed(f"did not {doing} within {self._limit_s:g} s") from None
        except (OSError, aiohttp.ClientError) as error:
            raise self._failed(f"broke off when told to {doing}: {error or type(error).__name__}") from error

    async def _done(self, doing: str, steps: tuple[Step, ...], *, asleep: bool) -> None:
        for step in steps:
            status, body = await self._wire.post(_ORIGIN + step.path, step.body, timeout_s=self._limit_s)
            if status != 200:
                raise self._failed(f"would not {doing}: {step.path} gave HTTP {status}: {_words(body)}")
            if step is _CLEAR and isinstance(body, dict) and body.get("success") is False:
                raise self._failed("woke, and did not drop the prefixes it remembered from before")
        await self._settled(doing, asleep=asleep)

    async def _settled(self, doing: str, *, asleep: bool) -> None:
        delay_s, waited_s = _FIRST_LOOK_S, 0.0
        while True:
            status, body = await self._wire.get(f"{_ORIGIN}/is_sleeping", timeout_s=self._limit_s)
            said = body.get("is_sleeping") if status == 200 and isinstance(body, dict) else None
            if said is asleep:
                return
            if said is None:
                raise self._failed(f"does not say whether it sleeps: HTTP {status}: {_words(body)}")
            if waited_s >= _SETTLE_S:
                raise self._failed(f"was told to {doing} and did not, without a word why")
            await asyncio.sleep(delay_s)
            waited_s += delay_s
            delay_s = min(delay_s * 1.5, _LONGEST_LOOK_S)

    def _failed(self, words: str) -> EngineFailed:
        return EngineFailed(f"vllm serving {self._model} {words}", log_tail=_tail(self._log()))

    def _no_room(self, said: str) -> DoesNotFit:
        asked = _ASKED_FOR.search(said)
        short = f": it asked for another {asked['size']}" if asked else ""
        return DoesNotFit(
            f"{self._model} cannot wake, the memory it had is taken{short}",
            hint="`subcortex ps` says who holds the GPUs' memory.",
            log_tail=_tail(self._log()),
        )


def _since(before: str, after: str) -> str:
    """Return what a log has gained; its older lines may have been dropped in the meantime."""
    last = "\n".join(before.splitlines()[-3:])
    place = after.rfind(last) if last else -1
    return after if place < 0 else after[place + len(last) :]


def _tail(log: str) -> str:
    return "\n".join(log.splitlines()[-20:])


def _words(body: Any) -> str:
    error = body.get("error", body.get("detail", body)) if isinstance(body, dict) else body
    error = error.get("message", error) if isinstance(error, dict) else error
    return str(error).strip()[:1000] or "without a word why"
