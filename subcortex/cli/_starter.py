"""Which tiers a machine starts with: a pure decision from its hardware, with the figures behind it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from subcortex.cli import _models
from subcortex.cli._models import GGUF_LADDER, Model
from subcortex.hardware import Gpu, Hardware
from subcortex.vram import Need, llamacpp_need, usable_mib, vllm_need

#: What the decision needs to be told besides the hardware.
VLLM_PYTHON = "~/.venvs/vllm/bin/python"
MODELS_FOLDER = "~/models"

_LARGE_CARD_MIB = 20 * 1024
_HOST_RESERVE_MIB = 2048
_MOST_UTILIZATION = 0.95
#: Below this size a card has no room for vLLM's own batches, so they are made smaller.
_SMALL_BATCHES_BELOW_MIB = 60 * 1024
_SMALL_BATCHES = ["--max-num-seqs", "16", "--max-num-batched-tokens", "2048"]
_VLLM_CONTEXT_TOKENS = 8192
#: Pools of KV to try for each vLLM tier, in tokens; the deep tier gets what is left besides.
_VLLM_POOLS_TOKENS = (65536, 32768, 16384, 8192)


@dataclass(frozen=True, slots=True)
class TierPlan:
    """One tier to write: its keys, why, and what to fetch for it.

    Args:
        keys: Keys of the ``[[tiers]]`` table, in the order to write them.
        why: Comment lines above it: what it is and the arithmetic.
        download: Command that fetches the model; None if it is there.
    """

    keys: dict[str, Any]
    why: list[str] = field(default_factory=list)
    download: str | None = None


@dataclass(frozen=True, slots=True)
class Starter:
    """Tiers from least to most capable, and what to say about all of them together."""

    tiers: list[TierPlan]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Placed:
    """A model on an engine: what it takes of each GPU (by index), and of the host."""

    model: Model
    engine: str
    needs: dict[int, Need]
    host: Need | None = None
    context_tokens: int = 8192
    parallel: int = 1
    flags: tuple[str, ...] = ()

    def takes_mib(self, gpu: int) -> float:
        return self.needs[gpu].total_mib if gpu in self.needs else 0.0


def testbed(folder: str) -> Starter:
    """Return the pair that comes with the source: no network, no GPU, and no general knowledge either."""
    common = {"engine": "llama.cpp", "context_tokens": 1024, "parallel": 4}
    fast = {"name": "fast", "model": f"{folder}/fast/fast.gguf", **common, "threads": 1}
    deep = {"name": "deep", "model": f"{folder}/deep/deep.gguf", **common, "threads": 2}
    note = "The project's own tiny models: they count, compare and convert units, and nothing else."
    return Starter(
        [
            TierPlan(fast, ["1.7 million parameters; answers at once."]),
            TierPlan(deep, ["9 million parameters; thinks aloud before it answers."]),
        ],
        [note],
    )


def choose(hardware: Hardware, llama_server: str = "llama-server") -> Starter:
    """Return the most capable pair of tiers that fits: on large cards vLLM, else llama.cpp, else the CPU.

    Args:
        llama_server: Path of a llama-server built for CUDA, written where GPUs are used.
    """
    for pair in (*_vllm_pairs(hardware), *_gguf_pairs(hardware)):
        if _fits(pair, hardware):
            return _starter(pair, hardware, llama_server)
    return _starter(_cpu_pair(hardware), hardware, llama_server)


def _fits(pair: tuple[_Placed, _Placed], hardware: Hardware) -> bool:
    host_mib = sum(placed.host.total_mib for placed in pair if placed.host)
    on_gpus = all(
        sum(placed.takes_mib(gpu.index) for placed in pair)
        <= usable_mib(gpu.memory_total_mib, gpu.memory_used_mib)
        for gpu in hardware.gpus
    )
    return on_gpus and host_mib <= max(0.0, hardware.host_memory_available_mib - _HOST_RESERVE_MIB)


def _vllm_pairs(hardware: Hardware) -> Iterator[tuple[_Placed, _Placed]]:
    """Yield (fast, deep) with a 70B on vLLM, the better first; all need large cards of one size.

    A fast tier on a GPU comes before a larger one on the CPU: it is there to be quick.
    """
    for deep_model, fast_models in (
        (_models.LLAMA_70B_BF16, (_models.LLAMA_8B_BF16,)),
        (_models.LLAMA_70B_AWQ, (_models.LLAMA_8B_BF16, _models.LLAMA_8B_AWQ, _models.LLAMA_3B)),
    ):
        equal = _equal(hardware.gpus, deep_model.min_capability)
        sizes = [size for size in (1, 2, 4, 8) if size <= len(equal)]
        for fast_model, size, pool in product(fast_models, sizes, _VLLM_POOLS_TOKENS):
            deep = _on_vllm(deep_model, equal[:size], pool)
            # A card that the deep tier leaves alone, if there is one.
            own = (equal[size:] or equal)[0]
            on_vllm = fast_model.file is None
            fast = (
                _on_vllm(fast_model, [own], pool)
                if on_vllm
                else _on_gpu(fast_model, {own.index: 1.0}, 4096, 2)
            )
            yield fast, deep
    equal = _equal(hardware.gpus, _models.LLAMA_70B_AWQ.min_capability)
    for size, pool in product((1, 2, 4, 8), _VLLM_POOLS_TOKENS):
        if size <= len(equal):
            yield _on_cpu(_models.LLAMA_8B), _on_vllm(_models.LLAMA_70B_AWQ, equal[:size], pool)


def _equal(gpus: tuple[Gpu, ...], capability: tuple[int, int]) -> list[Gpu]:
    """Return the large cards that can run a model and are as large as the largest of them."""
    able = [gpu for gpu in gpus if (gpu.compute_capability or capability) >= capability]
    largest = max((gpu.memory_total_mib for gpu in able), default=0.0)
    return [gpu for gpu in able if gpu.memory_total_mib >= max(0.95 * largest, _LARGE_CARD_MIB)]


def _on_vllm(model: Model, gpus: list[Gpu], kv_tokens: int) -> _Placed:
    small = min(gpu.memory_total_mib for gpu in gpus) < _SMALL_BATCHES_BELOW_MIB
    need = vllm_need(model.shape, kv_tokens=kv_tokens, tensor_parallel_size=len(gpus), small_batches=small)
    flags = tuple(_SMALL_BATCHES) if small else ()
    needs = {gpu.index: need for gpu in gpus}
    return _Placed(model, "vllm", needs, context_tokens=_VLLM_CONTEXT_TOKENS, flags=flags)


def _on_cpu(model: Model, context_tokens: int = 4096, parallel: int = 2) -> _Placed:
    need = llamacpp_need(model.shape, kv_tokens=context_tokens * parallel, on_gpu=False)
    return _Placed(model, "llama.cpp", {}, need, context_tokens, parallel)


def _gguf_pairs(hardware: Hardware) -> Iterator[tuple[_Placed, _Placed]]:
    """Yield (fast, deep) on llama.cpp, deep the largest first, on one card or split by layers over all."""
    if not hardware.gpus:
        return
    largest = max(hardware.gpus, key=lambda gpu: gpu.memory_free_mib)
    for deep_model, fast_model in product(GGUF_LADDER, GGUF_LADDER):
        # Two tiers of nearly the same model would be one tier too many.
        if fast_model.shape.weights_mib > 0.85 * deep_model.shape.weights_mib:
            continue
        for context in (8192, 4096):
            for deep in _gguf_places(deep_model, largest, hardware.gpus, context):
                for gpu in sorted(hardware.gpus, key=lambda gpu: deep.takes_mib(gpu.index)):
                    yield _on_gpu(fast_model, {gpu.index: 1.0}, 4096, 2), deep


def _gguf_places(model: Model, largest: Gpu, gpus: tuple[Gpu, ...], context: int) -> Iterator[_Placed]:
    yield _on_gpu(model, {largest.index: 1.0}, context, 1)
    if len(gpus) > 1:
        total = sum(gpu.memory_total_mib for gpu in gpus)
        yield _on_gpu(model, {gpu.index: gpu.memory_total_mib / total for gpu in gpus}, context, 1)


def _on_gpu(model: Model, shares: dict[int, float], context_tokens: int, parallel: int) -> _Placed:
    tokens = context_tokens * parallel
    needs = {gpu: llamacpp_need(model.shape, kv_tokens=tokens, share=share) for gpu, share in shares.items()}
    return _Placed(model, "llama.cpp", needs, None, context_tokens, parallel)


def _cpu_pair(hardware: Hardware) -> tuple[_Placed, _Placed]:
    """Return what a CPU can serve at a bearable speed; decoding reads all weights for every token."""
    if hardware.cores >= 8 and hardware.host_memory_available_mib >= 12 * 1024:
        return _on_cpu(_models.LLAMA_1B), _on_cpu(_models.LLAMA_8B)
    if hardware.host_memory_available_mib >= 7 * 1024:
        return _on_cpu(_models.LLAMA_1B), _on_cpu(_models.LLAMA_3B)
    return _on_cpu(_models.QWEN_HALF_B), _on_cpu(_models.LLAMA_1B)


def _starter(pair: tuple[_Placed, _Placed], hardware: Hardware, llama_server: str) -> Starter:
    fast, deep = pair
    tiers = [
        _tier_plan(name, placed, [other], hardware, llama_server)
        for name, placed, other in (("fast", fast, deep), ("deep", deep, fast))
    ]
    return Starter(tiers, _notes(pair, hardware))


def _tier_plan(
    name: str, placed: _Placed, others: Iterable[_Placed], hardware: Hardware, llama_server: str
) -> TierPlan:
    keys: dict[str, Any] = {
        "name": name,
        "engine": placed.engine,
        "model": placed.model.place(MODELS_FOLDER),
        "context_tokens": placed.context_tokens,
    }
    if placed.engine == "vllm":
        keys["python"] = VLLM_PYTHON
        keys["gpus"] = sorted(placed.needs)
        keys["tensor_parallel_size"] = len(placed.needs)
        keys["gpu_memory_utilization"] = _utilization(placed, others, hardware)
        if placed.flags:
            keys["flags"] = list(placed.flags)
    else:
        keys["parallel"] = placed.parallel
        keys |= _llamacpp_keys(placed, hardware, llama_server)
    why = [placed.model.title, *_arithmetic(placed, hardware)]
    return TierPlan(keys, why, placed.model.download(MODELS_FOLDER))


def _llamacpp_keys(placed: _Placed, hardware: Hardware, llama_server: str) -> dict[str, Any]:
    if not placed.needs:
        return {"gpus": [], "gpu_layers": 0} if hardware.gpus else {}
    keys: dict[str, Any] = {"executable": llama_server, "gpus": sorted(placed.needs), "gpu_layers": 999}
    if len(placed.needs) > 1:
        memory = {gpu.index: round(gpu.memory_total_mib / 1024) for gpu in hardware.gpus}
        keys["split_mode"] = "layer"
        keys["tensor_split"] = [memory[index] for index in sorted(placed.needs)]
    return keys


def _utilization(placed: _Placed, others: Iterable[_Placed], hardware: Hardware) -> float:
    """Return the share of each card that vLLM may take.

    The deep tier gets what the others leave, as KV. The context and the communication buffers of a
    tensor-parallel engine are taken beside the share, so they stay free.
    """
    from subcortex.vram.estimate import VLLM_COMMUNICATION_MIB, VLLM_CONTEXT_MIB

    beside = VLLM_CONTEXT_MIB + (VLLM_COMMUNICATION_MIB if len(placed.needs) > 1 else 0.0)
    totals = {gpu.index: gpu for gpu in hardware.gpus}
    neighbours = list(others)
    # The smaller of two neighbours takes what it needs and some KV; the larger one the rest.
    largest = all(placed.model.shape.weights_mib >= other.model.shape.weights_mib for other in neighbours)
    shares = []
    for index, need in placed.needs.items():
        gpu = totals[index]
        taken = sum(other.takes_mib(index) for other in neighbours)
        free = usable_mib(gpu.memory_total_mib, gpu.memory_used_mib) - taken - beside
        wanted = free if largest or not taken else need.total_mib
        shares.append(min(wanted / gpu.memory_total_mib, _MOST_UTILIZATION))
    return int(min(shares) * 100) / 100 if largest else -(-int(min(shares) * 1000) // 10) / 100


def _arithmetic(placed: _Placed, hardware: Hardware) -> list[str]:
    if placed.host:
        return [f"Host memory: {_sum(placed.host)} GiB."]
    cards = {gpu.index: gpu for gpu in hardware.gpus}
    return [
        f"GPU {index}: {_sum(need)} of {cards[index].memory_total_mib / 1024:.1f} GiB."
        for index, need in sorted(placed.needs.items())
    ]


def _sum(need: Need) -> str:
    parts = (need.weights_mib, need.kv_mib, need.overhead_mib, need.total_mib)
    weights, kv, overhead, total = (f"{part / 1024:.1f}" for part in parts)
    return f"weights {weights} + KV {kv} + overhead {overhead} = {total}"


def _notes(pair: tuple[_Placed, _Placed], hardware: Hardware) -> list[str]:
    fast, deep = pair
    notes = []
    for gpu in hardware.gpus:
        taken = fast.takes_mib(gpu.index) + deep.takes_mib(gpu.index)
        free = usable_mib(gpu.memory_total_mib, gpu.memory_used_mib) - taken
        notes.append(
            f"GPU {gpu.index}, {gpu.name}: {taken / 1024:.1f} of {gpu.memory_total_mib / 1024:.1f} GiB "
            f"planned, {max(free, 0.0) / 1024:.1f} GiB to spare."
        )
    if fast.host and deep.needs:
        both = vllm_need(_models.LLAMA_8B_AWQ.shape, kv_tokens=_VLLM_CONTEXT_TOKENS, small_batches=True)
        notes.append(
            f"The deep model leaves no room for the fast one: even an 8B in 4 bits would need {_sum(both)} "
            "GiB beside it. So the fast tier runs on the CPU, and both stay awake."
        )
    if fast.host and deep.host:
        reason = "No pair of models fits on the GPU" if hardware.gpus else "No GPU"
        notes.append(f"{reason}: small models on {hardware.cores} cores.")
    return notes
