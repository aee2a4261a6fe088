"""What an idle model keeps, what a sleeping one keeps, and what coming back costs."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

from subcortex.config import VllmTier
from subcortex.engines import _vllm_sleep, canary
from subcortex.engines._flags import last_named
from subcortex.engines.protocol import Canary, Engine, GenerateRequest
from subcortex.engines.wire import Wire
from subcortex.errors import EngineFailed, SubcortexError
from subcortex.experiments.catalogue.common.priors import in_all, memory_prior, planned
from subcortex.experiments.catalogue.common.tiers import (
    LocalTier,
    about,
    boot_s,
    gpus_of,
    local_tier,
    local_tiers,
    made_up,
    weight_files,
)
from subcortex.experiments.catalogue.idle_and_swap import report
from subcortex.experiments.certificate import certificate
from subcortex.experiments.choice import NOISES
from subcortex.experiments.experiment import Experiment, Inquiry, Needs, Report
from subcortex.experiments.laboratory import pagecache
from subcortex.experiments.laboratory.engines import Served
from subcortex.experiments.laboratory.lab import Lab, OutOfTime
from subcortex.experiments.laboratory.memory import Held, settled
from subcortex.experiments.scene import Scene
from subcortex.types import Message, Rest

#: Wakes of a kind, and starts of a tier that starts in moments.
REPEATS = 3
_QUICK_START_S, _QUICK_STARTS = 5.0, 4
#: Host memory for a 70B's weights is pinned within 70 s, once a process.
_SLEEP_LIMIT_S, _WAKE_LIMIT_S, _TOKEN_LIMIT_S = 150.0, 60.0, 60.0
#: What a first sleep takes where none is known: of level 1, which has to pin host memory, and of level 2,
#: which throws weights away. The next of level 1 takes a small part of it (68 s and 2.2 s, of a 70B).
_SLEEP_GUESS_S, _SLEEP_2_GUESS_S, _LATER_SHARE = 70.0, 10.0, 0.25
#: Kept for waking and a token; for a life's looks and its end; and to stop in at the very end of the time.
_WAKE_GUESS_S, _LIFE_REST_S, _LAST_S = 15.0, 20.0, 12.0
_ASKED = GenerateRequest(
    [Message(role="user", content="Say one word.")], max_tokens=2, temperature=0.0, seed=1
)
_T = TypeVar("_T")


class IdleAndSwap(Experiment):
    """Memory ready, asleep and stopped, and the seconds between them, for each tier that runs here."""

    number: ClassVar[int] = 6
    name: ClassVar[str] = "idle_and_swap"
    question: ClassVar[str] = (
        "What does an idle, a sleeping and a stopped model keep, and what does coming back cost?"
    )
    kinds: ClassVar[frozenset[str]] = frozenset({"idle_memory", "swap_cost"})

    def why_not(self, scene: Scene) -> str | None:
        """Return why there is nothing to measure."""
        if not local_tiers(scene):
            return "no tier runs on this machine"
        return None

    def inquiries(self, scene: Scene) -> Sequence[Inquiry]:
        """Return one a tier."""
        return [self._inquiry(scene, tier) for tier in local_tiers(scene)]

    def _inquiry(self, scene: Scene, tier: LocalTier) -> Inquiry:
        found, gpus = planned(scene, tier), gpus_of(scene, tier)
        start_s = boot_s(scene, tier, found.weights_mib if found else None)
        rounds_s = 2 * _SLEEP_GUESS_S if _can_sleep(scene, tier) else 5.0
        starts = 2 if start_s > _QUICK_START_S else _QUICK_STARTS
        return Inquiry(
            experiment=self.name,
            subject=tier.name,
            question=f"What does {about(tier)} keep idle, asleep, stopped, and what does coming back cost?",
            quantity="vram" if gpus else "ram",
            about=about(tier),
            unit="MiB",
            prior=memory_prior(in_all(found.footprint) if found else None),
            noise=NOISES["steady"],
            worth=1.0,
            minutes=(starts * start_s + rounds_s) / 60,
            needs=Needs(gpus=len(gpus), host_mib=found.weights_mib if found else 0.0),
            depends_on=certificate(scene, tier=tier, sleep_mode=_can_sleep(scene, tier)),
        )

    async def run(self, lab: Lab, inquiry: Inquiry) -> Report:
        """Start it cold, put it to sleep and wake it, stop it, start it again."""
        tier = local_tier(lab.scene, inquiry.subject)
        round_ = _Round(lab, tier, gpus_of(lab.scene, tier))
        with ExitStack() as stack:
            await round_.all(_as_measured(lab.scene, tier, stack))
        return report.report(
            [one for metric in report.METRICS for one in lab.readings(metric)],
            tier,
            on_gpus=bool(round_.gpus),
            noticed=round_.noticed,
        )


def _can_sleep(scene: Scene, tier: LocalTier) -> bool:
    """Return whether the tier is measured with sleep mode: vLLM has it on GPUs."""
    if not isinstance(tier, VllmTier) or last_named(tier.flags, "--no-enable-sleep-mode") is not None:
        return False
    return _vllm_sleep.enabled(tier) or (bool(gpus_of(scene, tier)) and tier.sleep_mode is not False)


def _as_measured(scene: Scene, tier: LocalTier, stack: ExitStack) -> LocalTier:
    """Return the tier with sleep mode, and a compile cache of its own that is empty at first."""
    if not isinstance(tier, VllmTier):
        return tier
    changes: dict[str, object] = {"sleep_mode": True} if _can_sleep(scene, tier) else {}
    if "VLLM_CACHE_ROOT" not in tier.env:
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="vllm-cold-", ignore_cleanup_errors=True)
        )
        changes["env"] = {**tier.env, "VLLM_CACHE_ROOT": folder}
    return tier.model_copy(update=changes)


@dataclass
class _Round:
    """One run of the experiment."""

    lab: Lab
    tier: LocalTier
    gpus: tuple[int, ...]
    noticed: list[str] = field(default_factory=list)
    before: Held = field(default_factory=Held)
    start_s: float = 0.0
    slept: bool = False

    async def all(self, tier: LocalTier) -> None:
        """Take every sample that time allows: a cold start, sleeps, a warm start, and sleep at level 2.

        In an earlier life's run that is over nothing is started.
        """
        lab = self.lab
        told = lab.readings("held", arm="idle")
        if lab.seconds_left <= (_LAST_S if told else 0) and lab.metrics:
            return
        await lab.cool()
        self.before = await settled(None, self.gpus)
        cold = not lab.readings("start", arm="cold") and await self._forgotten()
        try:
            await self._life(tier, "cold" if cold else "warm")
        except OutOfTime:
            self.noticed.append(f"{about(self.tier)}: time was over in the middle of its first start.")
            return
        while self._another_life():
            limit = asyncio.timeout(max(1.0, lab.seconds_left - _LAST_S))
            try:
                async with limit:
                    await self._life(tier, "warm")
            except SubcortexError as error:
                self.noticed.append(f"{about(self.tier)} did not start again: {error.message.rstrip('.')}.")
                return
            except (TimeoutError, OutOfTime) as error:
                if isinstance(error, TimeoutError) and not limit.expired():
                    raise
                self.noticed.append(f"{about(self.tier)}: time was over in the middle of a second start.")
                return
        if not lab.readings("start", arm="warm"):
            self.noticed.append(f"No time was left for a warm start of {about(self.tier)}.")

    def _another_life(self) -> bool:
        """Return whether one more start is wanted, and time left for it; a warm one is no slower."""
        wanted = 1 if self.start_s > _QUICK_START_S else REPEATS
        done = len(self.lab.readings("start", arm="warm"))
        return done < wanted and self.lab.seconds_left > self._life_s

    @property
    def _life_s(self) -> float:
        return self.start_s + _LIFE_REST_S

    async def _within(self, limit_s: float, doing: str, work: Awaitable[_T]) -> _T:
        """Wait so long at the most, and no longer than the run's time: what was seen is still to be told."""
        left_s = max(1.0, self.lab.seconds_left - _LAST_S)
        try:
            async with asyncio.timeout(min(limit_s, left_s)):
                return await work
        except TimeoutError:
            if left_s < limit_s:
                raise OutOfTime(f"the run's time was over before it could {doing}") from None
            raise EngineFailed(f"it did not {doing} within {limit_s:.0f} s") from None

    async def _forgotten(self) -> bool:
        """Have the system forget the model's files; return whether the start to come is a cold one."""
        files = weight_files(self.lab.scene.config, self.tier)
        if made_up(self.tier):
            return True
        share = await pagecache.forget(files) if files else None
        cold = share is not None and share <= pagecache.COLD_SHARE
        if not cold:
            left = "nobody can tell how much" if share is None else f"{share:.0%} of them"
            self.noticed.append(
                f"{about(self.tier)} has not been started cold: its files stayed in memory, {left}."
            )
        return cold

    async def _life(self, tier: LocalTier, start: str) -> None:
        """Start the engine, measure it, and stop it."""
        lab, began_s = self.lab, time.monotonic()
        self.slept = False
        try:
            async with lab.engine(tier) as served:
                self.start_s = served.boot_s
                lab.sample("start", served.boot_s, "s", arm=start)
                await self._within(_TOKEN_LIMIT_S, "answer", _first_token_s(served.engine))
                lab.sample("start to first token", time.monotonic() - began_s, "s", arm=start)
                ttft_s = await self._within(_TOKEN_LIMIT_S, "answer", _first_token_s(served.engine))
                lab.sample("ttft", ttft_s, "s", arm="awake")
                await self._look("idle", served.engine)
                if isinstance(tier, VllmTier) and _vllm_sleep.enabled(tier):
                    await self._rests(served)
        finally:
            # Asleep, or half awake, it is nothing to keep warm.
            stopped_s = time.monotonic()
            await lab.cool()
        lab.sample("stop", time.monotonic() - stopped_s, "s")
        await self._look("stopped", None)

    async def _rests(self, served: Served) -> None:
        """Go through its ways to sleep; the one that may leave it useless comes last of all."""
        sound = await served.engine.canary()
        for rest in (Rest.SLEEP_1, Rest.SLEEP_2):
            if rest is Rest.SLEEP_2 and self._another_life():
                return
            try:
                while self._another_cycle(rest):
                    await self._cycle(served, rest, sound)
            except SubcortexError as error:
                self.noticed.append(f"{about(self.tier)}, sleep {_named(rest)}: {error.message}.")
                return

    def _another_cycle(self, rest: Rest) -> bool:
        lab, done = self.lab, len(self.lab.readings("wake", arm=rest.value))
        if done >= REPEATS:
            return False
        cycle_s = self._sleep_s(rest) + _WAKE_GUESS_S
        # A third wake is worth less than a warm start.
        if done >= 2 and self._another_life() and lab.seconds_left - cycle_s <= self._life_s:
            return False
        if lab.seconds_left > cycle_s:
            return True
        self.noticed.append(
            f"{about(self.tier)}: time was over after {done} of {REPEATS} wakes from {_named(rest)}."
        )
        return False

    def _sleep_s(self, rest: Rest) -> float:
        """Return the seconds that the next sleep is expected to take."""
        if rest is Rest.SLEEP_2:
            guess_s = _SLEEP_2_GUESS_S
        else:
            first = [one.value for one in self.lab.readings("sleep", arm=f"{rest.value} first")]
            guess_s = max(first, default=_SLEEP_GUESS_S) * (_LATER_SHARE if self.slept else 1.0)
        later = [one.value for one in self.lab.readings("sleep", arm=rest.value)]
        return max(later) if later and self.slept else guess_s

    async def _cycle(self, served: Served, rest: Rest, sound: Canary | None) -> None:
        """Put it to sleep, look, wake it, and ask whether it is still itself."""
        lab, engine = self.lab, served.engine
        lab.say(f"{self.tier.name}: sleep {_named(rest)}")
        async with _bed(served, rest) as (sleep, wake):
            began_s = time.monotonic()
            await self._within(_SLEEP_LIMIT_S, "fall asleep", sleep())
            arm = rest.value if self.slept else f"{rest.value} first"
            self.slept = True
            lab.sample("sleep", time.monotonic() - began_s, "s", arm=arm)
            await self._look(rest.value, engine)
            began_s = time.monotonic()
            await self._within(_WAKE_LIMIT_S, "wake", wake())
        woken_s = time.monotonic() - began_s
        await self._within(_TOKEN_LIMIT_S, "answer", _first_token_s(engine))
        lab.sample("wake", woken_s, "s", arm=rest.value)
        lab.sample("wake to first token", time.monotonic() - began_s, "s", arm=rest.value)
        now = await engine.canary()
        if sound is None or now is None:
            return
        words = canary.differs(sound, now)
        lab.sample("canary", float(words is None), "", arm=rest.value, differs=words)
        if words is not None:
            raise EngineFailed(f"it woke and is not itself: {words}")

    async def _look(self, state: str, engine: Engine | None) -> None:
        """Keep what is held in a state: of the cards since before the start, or of the host."""
        now = await settled(engine, self.gpus)
        gpus = now.less(self.before)
        if len(gpus) < len(self.gpus):
            words = f"The driver does not tell what is in use of the GPUs of {about(self.tier)}."
            self.noticed += [] if words in self.noticed else [words]
            return
        value = sum(gpus) if self.gpus else now.host_mib
        host_as = "PSS" if now.whole else "RSS"
        self.lab.sample(
            "held", value, "MiB", arm=state, gpus_mib=list(gpus), host_mib=now.host_mib, host_as=host_as
        )


def _named(rest: Rest) -> str:
    return "level 1" if rest is Rest.SLEEP_1 else "level 2"


@asynccontextmanager
async def _bed(
    served: Served, rest: Rest
) -> AsyncIterator[tuple[Callable[[], Awaitable[None]], Callable[[], Awaitable[None]]]]:
    """Give the ways to sleep and to wake, also of a level that the engine would not be trusted with.

    Weights that were made up cannot be read again, so nobody would choose level 2 for them; what it leaves of
    the card's memory, and the refusal, are worth knowing.
    """
    engine = served.engine
    if rest in engine.rests:
        yield lambda: engine.sleep(rest), engine.wake
        return
    wire = Wire("http://engine/v1", model=served.tier.name, socket=served.socket)
    sleeper = _vllm_sleep.Sleeper(
        wire, model=engine.model, limit_s=_SLEEP_LIMIT_S, log=lambda: engine.log_tail(400)
    )
    try:
        yield lambda: sleeper.sleep(rest), lambda: sleeper.wake(rest)
    finally:
        await wire.close()


async def _first_token_s(engine: Engine) -> float:
    """Return the seconds to the first token of a short answer, and hear it out."""
    began_s, first_s = time.monotonic(), None
    async for _ in engine.generate(_ASKED):
        first_s = first_s or time.monotonic() - began_s
    if first_s is None:
        raise EngineFailed(f"{engine.model} answered without a token")
    return first_s
