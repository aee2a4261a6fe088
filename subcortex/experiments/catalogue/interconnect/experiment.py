"""How much tensor parallelism owes to the direct path between GPUs."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

from subcortex.config import VllmTier
from subcortex.engines._flags import last_value
from subcortex.errors import DeadlineExceeded, SubcortexError
from subcortex.experiments.catalogue.common.tiers import about, boot_s, gpus_of, vllm_tiers
from subcortex.experiments.catalogue.interconnect.report import FOUND, metrics_of, report
from subcortex.experiments.certificate import certificate
from subcortex.experiments.choice import NOISES, Belief, believed
from subcortex.experiments.experiment import Experiment, Inquiry, Needs, Report
from subcortex.experiments.laboratory.lab import Lab
from subcortex.experiments.laboratory.load import Endpoint, Load, answer
from subcortex.experiments.scene import Scene
from subcortex.experiments.statistics import Interval, abba


@dataclass(frozen=True, slots=True)
class Arm:
    """One way for the GPUs to reach each other.

    Args:
        name: As samples are labelled.
        flags, env: On top of the tier's.
    """

    name: str
    flags: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()


#: All that reduces over CUDA IPC or multicast by itself: vLLM's own kernel, torch's symmetric memory and
#: FlashInfer's. NCCL_P2P_DISABLE reaches none of them.
_NCCL_FLAGS = ("--disable-custom-all-reduce",)
_NCCL_ENV = (
    ("VLLM_ALLREDUCE_USE_SYMM_MEM", "0"),
    ("VLLM_ALLREDUCE_USE_FLASHINFER", "0"),
    ("VLLM_ALLREDUCE_USE_FLASHINFER_PCIE_IPC", "0"),
    ("VLLM_USE_NCCL_SYMM_MEM", "0"),
)
ARMS = (
    Arm(FOUND),
    Arm("NCCL only", _NCCL_FLAGS, _NCCL_ENV),
    Arm(
        "no peer path",
        _NCCL_FLAGS,
        (*_NCCL_ENV, ("NCCL_P2P_DISABLE", "1"), ("NCCL_NVLS_ENABLE", "0")),
    ),
)
#: Tokens of a short and a long question, of an answer alone, and of both under load (answers at the most).
SHORT_TOKENS, LONG_TOKENS, ANSWER_TOKENS, LOAD_TOKENS = 32, 4000, 64, 128
CONCURRENCIES = (1, 16, 64)
REPEATS = 4
#: Of one request, and of several at once: too few of their steps fall into a second for a steady figure (with
#: 64 at once windows of 1 s differed by a tenth).
WINDOW_S, CROWD_WINDOW_S = 2.0, 3.0
#: Blocks of six passes and five boots; after the first only where time is left for one more.
MOST_BLOCKS = 3
#: Of a pass, beside its windows: requests alone, settling, and the engine's end.
_BESIDE_S = 23.0
_SPARE_TOKENS, _LONGER = 8, 1.2
#: To stop an engine in, and to reckon.
_SPARE_S = 10.0
_COMPILATION = "--compilation-config"
#: From as fast to twice as slow as with direct peers is nothing to be astonished at.
_PRIOR: Belief = believed(Interval(1.0, 2.5))


class Interconnect(Experiment):
    """One model at TP ≥ 2 as found, by NCCL only, and without the direct peer path."""

    number: ClassVar[int] = 3
    name: ClassVar[str] = "interconnect"
    question: ClassVar[str] = "How much slower is tensor parallelism without the direct path between GPUs?"
    kinds: ClassVar[frozenset[str]] = frozenset({"interconnect"})
    #: 2: crowds are looked at for three seconds. 3: lengths of answers vary, windows last for whole waves.
    #: 4: for whole turns.
    method: ClassVar[int] = 4

    def why_not(self, scene: Scene) -> str | None:
        """Return why there is nothing to compare."""
        if len(scene.hardware.gpus) < 2:
            return "it takes two GPUs, and processes on a CPU have one path only"
        if not _tiers(scene):
            return "no tier on vLLM has a tensor_parallel_size of 2 or more"
        return None

    def inquiries(self, scene: Scene) -> Sequence[Inquiry]:
        """Return one a tier that is split over GPUs."""
        if self.why_not(scene) is not None:
            return []
        return [self._inquiry(scene, tier) for tier in _tiers(scene)]

    def _inquiry(self, scene: Scene, tier: VllmTier) -> Inquiry:
        gpus, size = gpus_of(scene, tier), tier.tensor_parallel_size
        boots, passes = 2 * len(ARMS) - 1, 2 * len(ARMS)
        pass_s = _BESIDE_S + REPEATS * sum(map(window_s, CONCURRENCIES))
        return Inquiry(
            experiment=self.name,
            subject=tier.name,
            question=(
                f"How much slower a token is {about(tier)} at TP={size} without the direct peer path "
                "between its GPUs?"
            ),
            quantity="speed_ratio",
            about=about(tier),
            unit="x",
            prior=_PRIOR,
            noise=NOISES["served"],
            worth=1.0,
            minutes=(boots * boot_s(scene, tier, None) + passes * pass_s) / 60,
            needs=Needs(gpus=len(gpus)),
            after=frozenset({"peer_trust"}),
            depends_on=certificate(
                scene,
                tier=tier,
                gpus=gpus,
                arms={one.name: [list(one.flags), dict(one.env)] for one in ARMS},
                sizes=[SHORT_TOKENS, long_tokens(tier), ANSWER_TOKENS, LOAD_TOKENS, *CONCURRENCIES],
            ),
        )

    async def run(self, lab: Lab, inquiry: Inquiry) -> Report:
        """Measure every arm twice a block, forwards and backwards."""
        tier = lab.scene.config.tier(inquiry.subject)
        assert isinstance(tier, VllmTier), "inquiries are made of tiers on vLLM alone"
        failed: dict[str, str] = {}
        limit = asyncio.timeout(max(0.0, lab.seconds_left - _SPARE_S))
        try:
            async with limit:
                await _blocks(lab, tier, 60 * inquiry.minutes, failed)
        except TimeoutError:
            if not limit.expired():
                raise
        missing = _unfinished(lab, tier, failed)
        readings = [one for metric in (*metrics_of(CONCURRENCIES), "boot") for one in lab.readings(metric)]
        if missing and not readings:
            raise DeadlineExceeded(
                f"{about(tier)} was not up in time: nothing was measured", hint="Give it more minutes."
            )
        return report(
            readings,
            tier,
            failed,
            [one.name for one in ARMS],
            concurrencies=CONCURRENCIES,
            long_tokens=long_tokens(tier),
            missing=missing,
        )


def _tiers(scene: Scene) -> list[VllmTier]:
    return [
        tier
        for tier in vllm_tiers(scene)
        if tier.tensor_parallel_size >= 2 and len(gpus_of(scene, tier)) >= tier.tensor_parallel_size
    ]


def window_s(concurrency: int) -> float:
    """Return how long a window with so many requests at once is, seconds."""
    return WINDOW_S if concurrency == 1 else CROWD_WINDOW_S


def long_tokens(tier: VllmTier) -> int:
    """Return how long a long question is: as long as the context lets it."""
    if tier.context_tokens is None:
        return LONG_TOKENS
    return max(SHORT_TOKENS, min(LONG_TOKENS, tier.context_tokens - ANSWER_TOKENS - _SPARE_TOKENS))


def in_arm(tier: VllmTier, arm: Arm) -> VllmTier:
    """Return a tier as it is started for an arm; as found it is the very tier."""
    if not arm.flags and not arm.env:
        return tier
    flags = [*tier.flags, *arm.flags, *_unfused(tier.flags)]
    return tier.model_copy(update={"flags": flags, "env": {**tier.env, **dict(arm.env)}})


def _unfused(flags: Sequence[str]) -> list[str]:
    """Return the flag that keeps the compiler from reducing by itself, with what was given to it before."""
    given: Any = None
    with suppress(ValueError, TypeError):
        given = json.loads(last_value(flags, _COMPILATION) or "{}")
    given = dict(given) if isinstance(given, dict) else {}
    passes = given.get("pass_config")
    given["pass_config"] = {**(passes if isinstance(passes, dict) else {}), "fuse_allreduce_rms": False}
    return [_COMPILATION, json.dumps(given)]


async def _blocks(lab: Lab, tier: VllmTier, expected_s: float, failed: dict[str, str]) -> None:
    """Measure the first block, and further ones where there is time for a whole one."""
    block_s = 0.0
    for block in range(MOST_BLOCKS):
        if block and (failed or lab.seconds_left < _LONGER * block_s + _SPARE_S):
            return
        began_s = time.monotonic()
        await _block(lab, tier, block, failed)
        # A block of an earlier life took no time now, and says nothing of how long one takes.
        block_s = max(time.monotonic() - began_s, expected_s)


def _passes(lab: Lab, tier: VllmTier, block: int) -> list[_Pass]:
    arms = {one.name: one for one in ARMS}
    order = [name for number, name in abba(list(arms), block + 1) if number == block]
    return [_Pass(lab, tier, arms[name], block, place) for place, name in enumerate(order)]


def _unfinished(lab: Lab, tier: VllmTier, failed: Mapping[str, str]) -> list[str]:
    """Return the arms that the first block lacks a pass of."""
    lacking = [one.arm.name for one in _passes(lab, tier, 0) if one.missing()]
    return [name for name in dict.fromkeys(lacking) if name not in failed]


async def _block(lab: Lab, tier: VllmTier, block: int, failed: dict[str, str]) -> None:
    """Measure one block; neighbours of one arm share the engine that is still warm."""
    passes = _passes(lab, tier, block)
    for one in passes:
        name = one.arm.name
        if name in failed or not one.missing():
            continue
        if lab.seconds_left <= _SPARE_S:
            return
        lab.say(f"{about(tier)} {name}", one.place / len(passes) if not block else None)
        try:
            await one.measure()
        except SubcortexError as error:
            if name == FOUND:
                raise
            # An arm that does not start or serve is an answer; the others are measured all the same.
            failed[name] = error.message


@dataclass(frozen=True, slots=True)
class _Pass:
    """One arm at one place of a block: all metrics, ``REPEATS`` times each."""

    lab: Lab
    tier: VllmTier
    arm: Arm
    block: int
    place: int

    def missing(self) -> bool:
        return any(self._done(metric) < REPEATS for metric in metrics_of(CONCURRENCIES))

    def _done(self, metric: str) -> int:
        return len(self.lab.readings(metric, arm=self.arm.name, round=self.block, place=self.place))

    async def measure(self) -> None:
        async with self.lab.engine(in_arm(self.tier, self.arm)) as served:
            # Of a warm one too, since it tells one engine from another.
            self._keep("boot", served.boot_s, "s", 0, fresh=served.fresh)
            endpoint = await Endpoint.of(served)
            await self._alone(endpoint)
            async with Load.on(
                endpoint, prompt_tokens=self._load_tokens, max_tokens=self._load_tokens
            ) as load:
                for size in CONCURRENCIES:
                    if self._done(f"tok_s_{size}") < REPEATS:
                        await load.keep(size)
                    for repeat in range(self._done(f"tok_s_{size}"), REPEATS):
                        window = await load.window(window_s(size))
                        facts = {"concurrency": size, "seconds": window.seconds}
                        self._keep(f"tok_s_{size}", window.tok_s, "tokens/s", repeat, **facts)

    @property
    def _load_tokens(self) -> int:
        if self.tier.context_tokens is None:
            return LOAD_TOKENS
        return max(2, min(LOAD_TOKENS, (self.tier.context_tokens - _SPARE_TOKENS) // 2))

    async def _alone(self, endpoint: Endpoint) -> None:
        """Ask short and long in turn; what the first of each pays is not kept."""
        if self._done("ttft_long") >= REPEATS:
            return
        tokens = long_tokens(self.tier)
        await answer(endpoint, prompt_tokens=SHORT_TOKENS, max_tokens=ANSWER_TOKENS)
        await answer(endpoint, prompt_tokens=tokens, max_tokens=2)
        for repeat in range(self._done("ttft_long"), REPEATS):
            short = await answer(endpoint, prompt_tokens=SHORT_TOKENS, max_tokens=ANSWER_TOKENS)
            long = await answer(endpoint, prompt_tokens=tokens, max_tokens=2)
            self._keep("ttft_short", short.ttft_s, "s", repeat, prompt_tokens=short.prompt_tokens)
            self._keep("tpot", short.tpot_s, "s", repeat, tokens=short.tokens)
            self._keep("ttft_long", long.ttft_s, "s", repeat, prompt_tokens=long.prompt_tokens)

    def _keep(self, metric: str, value: float, unit: str, repeat: int, **facts: Any) -> None:
        # A repeat is a block to statistics: there and back each arm has it twice, so that drift cancels.
        self.lab.sample(
            metric,
            value,
            unit,
            arm=self.arm.name,
            block=self.block * REPEATS + repeat,
            round=self.block,
            place=self.place,
            **facts,
        )
