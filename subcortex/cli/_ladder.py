"""Which two models a machine starts with: candidates from the best down, the first that the planner accepts.

Pure: it looks at nothing but the hardware that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product

from subcortex.cli import _models
from subcortex.cli._models import Model
from subcortex.errors import DoesNotFit
from subcortex.hardware import Gpu, Hardware
from subcortex.vram.llamacpp import mapped_mib
from subcortex.vram.plan import USUAL, Free, NoFit, Plan, TierAsk, find, shortfalls, written
from subcortex.vram.plan.budget import HOST_MIB
from subcortex.vram.plan.estimator import Remembered
from subcortex.vram.plan.real import Estimates
from subcortex.vram.setup import LlamaCppSetup, VllmSetup
from subcortex.vram.vllm.legality import runs_on

#: Below this a card is none for vLLM, whose own overhead is 2 to 3 GiB; from the other on its default batches
#: have room.
_LARGE_CARD_MIB, _ROOMY_CARD_MIB = 20 * 1024, 60 * 1024
#: Cards that differ by less than this share of their memory are as good as equal to tensor parallelism.
_ALIKE = 0.95
#: Requests of full length that there should be room for: vLLM's tiers, and slots of llama.cpp.
_FAST_REQUESTS, _DEEP_REQUESTS = 16, 8
#: Room for fewer is not worth a card that the fast tier has to itself.
_ENOUGH_REQUESTS = 4
#: Cards that are looked at: as many as tensor parallelism takes; of small ones as many splits as can be
#: compared in an instant.
_MOST_LARGE_CARDS, _MOST_SMALL_CARDS = 8, 6
_FAST_SLOTS, _DEEP_SLOTS, _CPU_SLOTS = 2, 1, 2
_FAST_CONTEXT_TOKENS, _DEEP_CONTEXTS_TOKENS, _CPU_CONTEXTS_TOKENS = 4096, (8192, 4096), (4096, 2048, 1024)
#: vLLM's batches on cards that are not roomy.
_SMALL_BATCH_TOKENS, _SMALL_SEQUENCES = 2048, 16
#: Models that a CPU serves at all beside a deep one on GPUs.
_ON_CPU = (_models.LLAMA_8B, _models.LLAMA_3B, _models.LLAMA_1B)
_RANKS = {"fast": 0, "deep": 1}
#: A fast model larger than this share of the deep one would be one tier too many.
_LARGEST_FAST = 0.85
#: Decoding reads all weights for every token: below so many cores 8B are not bearable as the better tier.
_CORES_FOR_8B = 8


@dataclass(frozen=True, slots=True)
class Choice:
    """Two models that the planner accepted.

    Args:
        fast, deep: The models.
        plan: The joint plan; its tiers are called ``fast`` and ``deep``.
        short: Why the fast one is not on a GPU beside the deep one; None if it is, or there is no GPU.
    """

    fast: Model
    deep: Model
    plan: Plan
    short: str | None = None


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A tier to be planned.

    Args:
        model: Of this model.
        ask: So.
        least_requests: Taken only with room for so many requests of full length.
    """

    model: Model
    ask: TierAsk
    least_requests: float = 1.0

    @property
    def key(self) -> tuple[object, ...]:
        """What tells it from others; the ask itself is slow to compare, as it has a whole shape."""
        return self.ask.name, self.model.title, self.ask.setup, self.ask.devices


_Pair = tuple[_Candidate, _Candidate]


@dataclass(frozen=True, slots=True)
class _Batches:
    """Settings of vLLM that trade room for speed."""

    context_tokens: int = 8192
    small: bool = True
    eager: bool = False


#: The better first. A context of 8192 tokens is worth more than CUDA graphs: a model of 70B is slower than
#: the launching of its kernels.
_GRAPHS = (_Batches(small=False), _Batches())
_DEEP_BATCHES = (
    *_GRAPHS,
    _Batches(eager=True),
    _Batches(context_tokens=4096),
    _Batches(context_tokens=4096, eager=True),
)


def chosen(hardware: Hardware, probability: float = 0.95) -> Choice:
    """Return the most capable pair whose joint plan fits.

    Both awake together come before taking turns, a fast model on a GPU before a larger one on the CPU.

    Args:
        hardware: The machine, with what is used of it now.
        probability: Of everything fitting, on all devices at once.

    Raises:
        DoesNotFit: Not even the smallest pair.
    """
    judge = _Judge(hardware := _looked_at(hardware), probability)
    choice = next(filter(None, (judge.first(pairs, turns=turns) for pairs, turns in _rungs(hardware))), None)
    if choice is None:
        raise DoesNotFit(
            f"not even the smallest models fit: {_short(judge.refused) or 'too little memory is free'}",
            hint="Free some memory, or take the tiny models of the source: subcortex init --offline.",
        )
    return choice


def _looked_at(hardware: Hardware) -> Hardware:
    large = any(gpu.memory_total_mib >= _LARGE_CARD_MIB for gpu in hardware.gpus)
    most = _MOST_LARGE_CARDS if large else _MOST_SMALL_CARDS
    freest = sorted(hardware.gpus, key=lambda gpu: (-gpu.memory_free_mib, gpu.index))[:most]
    return hardware.model_copy(update={"gpus": tuple(sorted(freest, key=lambda gpu: gpu.index))})


class _Judge:
    """What the planner says of pairs; a tier that does not fit alone is asked for once."""

    def __init__(self, hardware: Hardware, probability: float) -> None:
        self._hardware = hardware
        self._estimates = Remembered(Estimates(hardware))
        self._probability = probability
        self._hopeless: set[tuple[object, ...]] = set()
        #: What was refused last; and last of pairs on GPUs of which each alone would fit.
        self.refused: NoFit | None = None
        self._too_many: NoFit | None = None

    def first(self, pairs: Iterable[_Pair], *, turns: bool) -> Choice | None:
        """Return the first pair that fits: awake together, or in turns."""
        for fast, deep in pairs:
            if fast.key in self._hopeless or deep.key in self._hopeless:
                continue
            plan = self._plan(fast, deep, turns=turns)
            if plan is not None:
                apart = turns or (fast.ask.devices == () and deep.ask.devices != ())
                return Choice(fast.model, deep.model, plan, _short(self._too_many) if apart else None)
        return None

    def _plan(self, fast: _Candidate, deep: _Candidate, *, turns: bool) -> Plan | None:
        asks = [fast.ask, deep.ask]
        found = find(asks, self._hardware, self._estimates, probability=self._probability, swapping=turns)
        if isinstance(found, NoFit):
            self.refused = found
            if not found.together:
                alone = found.refused or {ask.name for ask in found.asks}
                self._hopeless |= {one.key for one in (fast, deep) if one.ask.name in alone}
            elif () not in (fast.ask.devices, deep.ask.devices):
                self._too_many = found
            return None
        plan = written(found)
        enough = plan.tiers[_RANKS["deep"]].requests >= deep.least_requests
        return plan if enough and self._pages_fit(plan, (fast, deep)) else None

    def _pages_fit(self, plan: Plan, pair: _Pair) -> bool:
        """Return whether mapped weights of tiers on the CPU stay in memory, the host's reserve included."""
        mapped = 0.0
        for candidate in pair:
            setup = candidate.ask.setup
            if candidate.ask.devices == () and isinstance(setup, LlamaCppSetup):
                mapped += mapped_mib(candidate.ask.shape, setup, ())
        return mapped <= plan.devices[-1].left_mib + HOST_MIB


def _short(found: NoFit | None) -> str | None:
    short = shortfalls(found) if found else ()
    return str(short[0]) if short else None


def _rungs(hardware: Hardware) -> Iterator[tuple[Iterator[_Pair], bool]]:
    """Yield pairs from the most capable down, and whether they may take turns."""
    for deep in (_models.LLAMA_70B_BF16, _models.LLAMA_70B_AWQ):
        equal = _equal(hardware.gpus, deep.min_capability)
        if equal:
            yield _beside_70b(deep, equal), False
    if equal:
        all_of_them = [_on_vllm("deep", deep, equal, batches) for batches in _batches(equal)]
        yield product(_on_cpu("fast", _models.LLAMA_8B), all_of_them), False
        yield product([_on_vllm("fast", _models.LLAMA_8B_AWQ, equal, _Batches())], all_of_them), True
    if hardware.gpus:
        yield from _gguf_rungs(hardware)
    yield _both_on_cpu(hardware), False


def _equal(gpus: tuple[Gpu, ...], capability: tuple[int, int]) -> tuple[Gpu, ...]:
    """Return the large cards that can run a model and are as large as the largest of them."""
    able = [gpu for gpu in gpus if runs_on(gpu) and (gpu.compute_capability or capability) >= capability]
    largest = max((gpu.memory_total_mib for gpu in able), default=0.0)
    return tuple(gpu for gpu in able if gpu.memory_total_mib >= max(_ALIKE * largest, _LARGE_CARD_MIB))


def _batches(gpus: Iterable[Gpu]) -> list[_Batches]:
    roomy = min(gpu.memory_total_mib for gpu in gpus) >= _ROOMY_CARD_MIB
    return [batches for batches in _DEEP_BATCHES if batches.small or roomy]


def _beside_70b(deep: Model, gpus: tuple[Gpu, ...]) -> Iterator[_Pair]:
    """Yield fast models on a GPU that the deep one leaves alone, else on one of its own; the larger first."""
    plain, packed = _models.LLAMA_8B_BF16, _models.LLAMA_8B_AWQ
    models = [plain] if deep.form is None else [plain, packed, _models.LLAMA_3B]
    for model in models:
        able = _equal(gpus, model.min_capability)
        if not able:
            continue
        own = able[-1]
        others = [gpu for gpu in gpus if gpu != own]
        apart = [batches for batches in _batches(gpus) if batches in _GRAPHS] if others else []
        for batches in apart:
            deep_alone = _on_vllm("deep", deep, others, batches)
            fast = _fast_beside_70b(model, [own], batches)
            yield fast, replace(deep_alone, least_requests=_ENOUGH_REQUESTS)
        for batches in _batches(gpus):
            yield _fast_beside_70b(model, able, batches), _on_vllm("deep", deep, gpus, batches)


def _fast_beside_70b(model: Model, gpus: Iterable[Gpu], batches: _Batches) -> _Candidate:
    if model.file is not None:
        return _fast_on_gpu(model)
    return _on_vllm("fast", model, gpus, _Batches(small=batches.small))


def _on_vllm(name: str, model: Model, gpus: Iterable[Gpu], batches: _Batches) -> _Candidate:
    setup = VllmSetup(
        context_tokens=batches.context_tokens,
        max_batched_tokens=_SMALL_BATCH_TOKENS if batches.small else None,
        max_sequences=_SMALL_SEQUENCES if batches.small else None,
        eager=batches.eager,
    )
    ask = TierAsk(
        name,
        model.shape,
        setup,
        batches.context_tokens,
        _FAST_REQUESTS if name == "fast" else _DEEP_REQUESTS,
        rank=_RANKS[name],
        devices=tuple(sorted(gpu.index for gpu in gpus)),
        sleepable=True,
        # Ranks of a small model would wait for one another longer than they compute.
        free=USUAL - {Free.TENSOR_PARALLEL} if name == "fast" else USUAL,
    )
    return _Candidate(model, ask)


def _gguf_rungs(hardware: Hardware) -> Iterator[tuple[Iterator[_Pair], bool]]:
    for models in ((_models.QWEN_32B,), (_models.QWEN_14B, _models.QWEN_14B_Q3), (_models.LLAMA_8B,)):
        yield _with_smaller(models, _deep_on_gpus, _fast_on_gpu), False
        yield _beside_on_cpu(models), False
        yield _in_turns(models), True
    # The card is for the quick one alone.
    slow = _models.LLAMA_8B if hardware.cores >= _CORES_FOR_8B else _models.LLAMA_3B
    yield _with_smaller((slow,), lambda model: _on_cpu("deep", model), _fast_on_gpu), False
    yield _with_smaller((_models.LLAMA_3B, _models.LLAMA_1B), _deep_on_gpus, _fast_on_gpu), False


def _with_smaller(
    models: Iterable[Model],
    deep_of: Callable[[Model], Iterable[_Candidate]],
    fast_of: Callable[[Model], _Candidate],
) -> Iterator[_Pair]:
    """Yield each deep model with the smaller ones, the largest first."""
    for model in models:
        for fast in _smaller_than(model):
            for deep in deep_of(model):
                yield fast_of(fast), deep


def _beside_on_cpu(models: Iterable[Model]) -> Iterator[_Pair]:
    for model in models:
        for small in _smaller_than(model):
            # What is neither 8B nor smaller is slow on any CPU.
            if small in _ON_CPU:
                yield from product(_on_cpu("fast", small), _deep_on_gpus(model))


def _in_turns(models: Iterable[Model]) -> Iterator[_Pair]:
    for model in models:
        if _models.LLAMA_8B in _smaller_than(model):
            yield from product([_fast_on_gpu(_models.LLAMA_8B)], _deep_on_gpus(model))


def _smaller_than(model: Model) -> list[Model]:
    most = _LARGEST_FAST * model.shape.weights_bytes
    below = _models.GGUF_LADDER[_models.GGUF_LADDER.index(model) + 1 :]
    return [small for small in below if small.shape.weights_bytes <= most]


def _deep_on_gpus(model: Model) -> list[_Candidate]:
    """Return a model on one card, or split by layers over several, as the planner sees fit."""
    return [
        _gguf("deep", model, context, _DEEP_SLOTS, LlamaCppSetup(context_tokens=context))
        for context in _DEEP_CONTEXTS_TOKENS
    ]


def _fast_on_gpu(model: Model) -> _Candidate:
    context = _FAST_CONTEXT_TOKENS
    setup = LlamaCppSetup(context_tokens=context, split_mode="none")
    return _gguf("fast", model, context, _FAST_SLOTS, setup)


def _on_cpu(name: str, model: Model) -> list[_Candidate]:
    return [
        _gguf(name, model, context, _CPU_SLOTS, LlamaCppSetup(context_tokens=context, gpu_layers=0), ())
        for context in _CPU_CONTEXTS_TOKENS
    ]


def _gguf(
    name: str,
    model: Model,
    context_tokens: int,
    slots: int,
    setup: LlamaCppSetup,
    devices: tuple[int, ...] | None = None,
) -> _Candidate:
    rank = _RANKS[name]
    return _Candidate(model, TierAsk(name, model.shape, setup, context_tokens, slots, rank, devices))


def _both_on_cpu(hardware: Hardware) -> Iterator[_Pair]:
    """Yield what a CPU can serve at a bearable speed; decoding reads all weights for every token."""
    pairs = [(_models.LLAMA_1B, _models.LLAMA_3B), (_models.QWEN_HALF_B, _models.LLAMA_1B)]
    if hardware.cores >= _CORES_FOR_8B:
        pairs.insert(0, (_models.LLAMA_1B, _models.LLAMA_8B))
    for fast, deep in pairs:
        yield from zip(_on_cpu("fast", fast), _on_cpu("deep", deep), strict=True)
