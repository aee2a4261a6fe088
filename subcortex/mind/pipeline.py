"""One thought's way: route, make room, generate, record."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import datetime

import structlog
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from subcortex.engines.protocol import GenerateRequest
from subcortex.errors import (
    Cancelled,
    ConfigError,
    DeadlineExceeded,
    DoesNotFit,
    EngineFailed,
    Overloaded,
    SubcortexError,
)
from subcortex.fleet import Lease
from subcortex.journal import Failure, ThoughtEnd
from subcortex.mind.means import Means
from subcortex.mind.saying import Saying
from subcortex.routing import Decision
from subcortex.types import Chunk, Notice, Route, ThinkRequest, Thought, ThoughtStatus, TierState

#: Receives chunks and notices as they come.
Emit = Callable[[Chunk | Notice], Awaitable[None]]

#: How often what has been said is put on disk while an answer streams, seconds.
_SAY_EVERY_S = 0.2
#: Further attempts after the first one.
_RETRIES = 2
#: An engine that asks for a longer pause than this is passed over; seconds.
_LONGEST_RETRY_S = 2.0

_log = structlog.get_logger("mind")


@dataclass(slots=True)
class Thinking:
    """The state of one thought on its way."""

    mind: Means
    request: ThinkRequest
    id: str
    created_at: datetime
    decision: Decision
    route: Route
    saying: Saying
    tier: str
    drive: str | None
    emit: Emit | None = None
    saver: asyncio.TimerHandle | None = None
    saved_tokens: int = 0

    async def answer(self) -> Thought:
        """Have the thought, falling back along the decision's order, and record how it ended.

        Raises:
            SubcortexError: As ``subcortex.think`` says.
        """
        deadline_s = self.request.deadline_s
        try:
            async with asyncio.timeout(self._left_s()):
                await self._on_any_tier()
        except TimeoutError:
            error = DeadlineExceeded(
                f"{self.tier} had said {self.saying.tokens} tokens when its {deadline_s} s were over",
                hint="Give it longer, lower max_tokens, or let the thought go to a quicker tier.",
                thought_id=self.id,
                tier=self.tier,
                text=self.saying.text[:2000],
            )
            await self._record(ThoughtStatus.FAILED, error)
            raise error from None
        except SubcortexError as error:
            closing = isinstance(error, Cancelled)
            error.details["thought_id"] = self.id
            await self._record(ThoughtStatus.INTERRUPTED if closing else ThoughtStatus.FAILED, error)
            raise
        except ConnectionError:
            # Raised by ``emit`` alone: the caller has gone away.
            self.mind.journal.complete_soon(self._end(ThoughtStatus.CANCELLED, None))
            raise
        except Exception as error:
            _log.exception("a thought failed in a way nobody foresaw", thought=self.id)
            unforeseen = EngineFailed(f"{self.tier}: {type(error).__name__}: {error}", thought_id=self.id)
            await self._record(ThoughtStatus.FAILED, unforeseen)
            raise unforeseen from error
        except asyncio.CancelledError:
            status = ThoughtStatus.INTERRUPTED if self.mind.closing else ThoughtStatus.CANCELLED
            self.mind.journal.complete_soon(self._end(status, None))
            raise
        thought = self._thought()
        await self._record(ThoughtStatus.COMPLETED, None, thought)
        return thought

    async def _on_any_tier(self) -> None:
        order = self.decision.order
        first_error: SubcortexError | None = None
        for place, tier in enumerate(order):
            last = place + 1 == len(order)
            try:
                await self._on_tier(tier, last)
            except (EngineFailed, DoesNotFit, Overloaded, ConfigError, _TooSlow) as error:
                first_error = first_error or error
                if self.saying.started:
                    raise
                if last:
                    raise (first_error if not isinstance(first_error, _TooSlow) else error) from None
                self._degrade(tier, order[place + 1], error)
            else:
                return

    def _degrade(self, tier: str, next_tier: str, error: SubcortexError) -> None:
        reason = f"{tier} could not serve: {error.message}"
        self.route.degraded = True
        self.route.degraded_reason = self.route.degraded_reason or reason
        self.route.reasons.append(f"{reason}; trying {next_tier}")

    async def _on_tier(self, tier: str, last: bool) -> None:
        """Try one tier; a remote one, or the last that is left, up to three times until its first token."""
        self.tier = self.route.tier = tier
        try:
            await self._once(tier, last)
            return
        except SubcortexError as error:
            remote = self.mind.engines[tier].kind == "remote"
            if not (last or remote) or not self._passing(error):
                raise
            # Its end may not be known yet, and trying again at once would find the same.
            await self.mind.fleet.doubted(tier)
        retrying = AsyncRetrying(
            stop=stop_after_attempt(_RETRIES),
            wait=_pause,
            retry=retry_if_exception(self._passing),
            reraise=True,
        )
        await retrying(self._once, tier, last)

    def _passing(self, error: BaseException) -> bool:
        """Return whether trying again may help, and nobody has seen a token yet."""
        if not isinstance(error, EngineFailed | Overloaded) or self.saying.started:
            return False
        soon = error.details.get("retry_after_s", 0.0) <= _LONGEST_RETRY_S
        return soon and bool(error.details.get("transient"))

    async def _once(self, tier: str, last: bool) -> None:
        patience_s = self._patience_s(tier)
        patience = asyncio.timeout(patience_s)
        try:
            async with patience:
                notifier = self._notifier(tier)
                try:
                    async with self.mind.fleet.lease(
                        tier,
                        self.request.priority,
                        patient=last,
                        deadline_s=self._left_s(),
                        wait_s=self.request.wait_s,
                    ) as lease:
                        if notifier:
                            notifier.cancel()
                        await self._generate(lease, patience)
                finally:
                    if notifier:
                        notifier.cancel()
        except TimeoutError:
            if not patience.expired():
                raise
            raise _TooSlow(
                f"no first token within the {patience_s:.1f} s that its deadline leaves it"
            ) from None

    async def _generate(self, lease: Lease, patience: asyncio.Timeout) -> None:
        saying, emit, clock = self.saying, self.emit, self.mind.clock
        saying.queued_s += lease.queued_s
        saying.load_s += lease.load_s
        saying.asked_s = clock.monotonic_s()
        self._save_later()
        try:
            async with aclosing(lease.engine.generate(self._engine_request())) as deltas:
                async for delta in deltas:
                    first = saying.first_s is None
                    text, reasoning = saying.add(delta)
                    if first and saying.first_s is not None:
                        patience.reschedule(None)
                    if emit and (text or reasoning):
                        await emit(Chunk.model_construct(text=text, reasoning=reasoning))
        finally:
            if self.saver:
                self.saver.cancel()

    def _save_later(self) -> None:
        self.saver = asyncio.get_running_loop().call_later(_SAY_EVERY_S, self._save)

    def _save(self) -> None:
        """Have what has been said so far put on disk: an engine may stall, and a daemon be killed."""
        saying = self.saying
        if saying.tokens > self.saved_tokens:
            self.saved_tokens = saying.tokens
            self.mind.journal.say(self.id, saying.text, saying.reasoning)
        self._save_later()

    def _engine_request(self) -> GenerateRequest:
        asked = self.request
        return GenerateRequest(
            messages=asked.messages,
            max_tokens=asked.max_tokens,
            temperature=asked.temperature,
            top_p=asked.top_p,
            seed=asked.seed,
            stop=asked.stop,
            response_schema=asked.response_schema,
            tools=asked.tools,
            tool_choice=asked.tool_choice,
        )

    def _left_s(self) -> float | None:
        if self.request.deadline_s is None:
            return None
        return self.request.deadline_s - (self.mind.clock.monotonic_s() - self.saying.began_s)

    def _patience_s(self, tier: str) -> float | None:
        """Return how long to wait for a first token before a tier that is ready must take over.

        None when nothing would be won by leaving: no tier left in the order can still answer in time.
        """
        left_s = self._left_s()
        if left_s is None or self.route.forced:
            return None
        order = self.decision.order
        later = order[order.index(tier) + 1 :]
        costs = [
            cost.total_s
            for cost in self.route.alternatives
            if cost.tier in later and cost.state == TierState.READY and cost.total_s < left_s
        ]
        return left_s - min(costs) if costs else None

    def _notifier(self, tier: str) -> asyncio.Task[None] | None:
        if self.emit is None or self.mind.fleet.state(tier) is TierState.READY:
            return None
        return asyncio.create_task(self._notify(tier, self.emit))

    async def _notify(self, tier: str, emit: Emit) -> None:
        heard: asyncio.Queue[str] = asyncio.Queue()
        unlisten = self.mind.fleet.listen(tier, heard.put_nowait)
        began_s = self.mind.clock.monotonic_s()
        try:
            with suppress(ConnectionError):
                await emit(Notice(text=f"waiting for {tier}"))
                while True:
                    line = await heard.get()
                    waited_s = self.mind.clock.monotonic_s() - began_s
                    await emit(Notice(text=f"loading {tier}: {line} ({waited_s:.0f} s)"))
        finally:
            unlisten()

    async def _record(
        self, status: ThoughtStatus, error: SubcortexError | None, thought: Thought | None = None
    ) -> None:
        end = self._end(status, error, thought)
        try:
            await asyncio.shield(self.mind.journal.complete(end))
        except SubcortexError as trouble:
            # The answer is worth more than its record; the journal's health says what went wrong.
            _log.error("not recorded", thought=self.id, error=trouble.message)

    def _end(
        self, status: ThoughtStatus, error: SubcortexError | None, thought: Thought | None = None
    ) -> ThoughtEnd:
        saying, engine = self.saying, self.mind.engines[self.tier]
        return ThoughtEnd(
            id=self.id,
            status=status,
            tier=self.tier,
            model=engine.model,
            engine=engine.kind,
            engine_version=engine.version,
            route=self.route,
            text=thought.text if thought else saying.text,
            reasoning=thought.reasoning if thought else (saying.reasoning or None),
            tool_calls=saying.tool_calls,
            usage=thought.usage if thought else saying.counted(),
            timing=thought.timing if thought else saying.timing(),
            finish_reason=saying.finish_reason,
            error=Failure(error.code, error.message) if error else None,
        )

    def _thought(self) -> Thought:
        saying, engine = self.saying, self.mind.engines[self.tier]
        timing = saying.timing()
        if saying.first_s is not None:
            self.mind.costs.observe(self.tier, ttft_s=saying.first_s - saying.asked_s, tpot_s=timing.tpot_s)
        return Thought.model_construct(
            id=self.id,
            created_at=self.created_at,
            text=saying.text,
            reasoning=saying.reasoning or None,
            tool_calls=saying.tool_calls,
            tier=self.tier,
            model=engine.model,
            engine=engine.kind,
            engine_version=engine.version,
            route=self.route,
            usage=saying.counted(),
            timing=timing,
            drive=self.drive,
            session=self.request.session,
            finish_reason=saying.finish_reason,
            parsed=None,
        )


def _pause(state: RetryCallState) -> float:
    """Wait as long as the engine asked for, or a random while that doubles."""
    error = state.outcome.exception() if state.outcome else None
    asked_s = error.details.get("retry_after_s", 0.0) if isinstance(error, SubcortexError) else 0.0
    return max(float(asked_s), wait_random_exponential(multiplier=0.1, max=_LONGEST_RETRY_S)(state))


class _TooSlow(SubcortexError):
    """A tier used up what the deadline leaves it; the next one takes over."""

    code = DeadlineExceeded.code
    exit_code = DeadlineExceeded.exit_code
    http_status = DeadlineExceeded.http_status
