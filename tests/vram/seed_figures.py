"""What the planner says to a claim about memory or traffic, by the project's own functions."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from math import prod
from pathlib import Path

from subcortex.hardware import Gpu
from subcortex.hardware.cards import card_for
from subcortex.hardware.links import Link, nominal_link
from subcortex.hardware.standin import parse_gpus
from subcortex.models.huggingface import from_config
from subcortex.models.shape import ModelShape, Part
from subcortex.vram import llamacpp, vllm
from subcortex.vram.amount import Amount, total
from subcortex.vram.communication import all_reduces, duration, layer_seconds, tensor_traffic
from subcortex.vram.footprint import Component
from subcortex.vram.plan.budget import HOST_MIB, gpu_budget
from subcortex.vram.setup import LlamaCppSetup, VllmSetup
from subcortex.vram.vllm.weights import rank_bytes
from tests.vram.llamacpp_cases import model_shape

GB, GIB, MIB = 10**9, 2**30, 2**20
#: The machine of seed 003, and how it runs its servers.
CARDS, HOST_RAM_MIB = "RTX 3060 Ti + GTX 1060 3GB", 16 * 1024.0
ALL_LAYERS = LlamaCppSetup(context_tokens=8192, gpu_layers=999)
ROWS = replace(ALL_LAYERS, split_mode="row", tensor_split=(8.0, 3.0))
#: Something fits, or does not, from this probability on; between, neither can be said.
SURE = 0.95
#: A model, its quantisation, how it is run, and on which cards.
Served = tuple[str, str, LlamaCppSetup, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Room:
    """Whether something fits: how probable it is, and the figures behind it."""

    probability: float
    words: str


@cache
def shape(name: str) -> ModelShape:
    """Return a model of ``bench/shapes``."""
    folder = Path(__file__).parents[2] / "bench/shapes" / name
    return from_config(json.loads((folder / "config.json").read_text("utf-8")), name)


@cache
def cards(*, display: bool = False) -> tuple[Gpu, ...]:
    """Return the cards of seed 003, with only as much free as a plan may use."""
    found = []
    for gpu in parse_gpus(CARDS):
        shown = gpu.model_copy(update={"display_active": display and gpu.index == 0})
        used = gpu.memory_total_mib - gpu_budget(shown).mib
        found.append(shown.model_copy(update={"memory_used_mib": used}))
    return tuple(found)


def usable_gib() -> float:
    """Return what may be planned of both cards together, GiB."""
    return sum(gpu.memory_free_mib for gpu in cards()) / 1024


def file_gb(model: str, quantization: str) -> float:
    """Return the tensors of a GGUF, GB."""
    return model_shape(model, quantization).weights_bytes / GB


def served(*servers: Served, display: bool = False) -> Room:
    """Return whether llama.cpp servers fit side by side, each on its cards."""
    offered, needs = cards(display=display), dict[int, list[Amount]]()
    for model, quantization, setup, indices in servers:
        on = [offered[index] for index in indices]
        devices = llamacpp.footprint(model_shape(model, quantization), setup, on).devices
        for index, need in zip(indices, devices, strict=True):
            needs.setdefault(index, []).append(need.total)
    rows = [(offered[index], total(parts)) for index, parts in sorted(needs.items())]
    return Room(
        prod(need.probability_below(gpu.memory_free_mib) for gpu, need in rows),
        "; ".join(
            f"{gpu.name}: {need.mean_mib:,.0f} ± {need.sigma_mib:,.0f} of {gpu.memory_free_mib:,.0f} MiB"
            for gpu, need in rows
        ),
    )


def best_split(model: str, quantization: str, kv_type: str = "f16") -> Room:
    """Return whether a model fits on both cards, its layers shared out as well as can be."""
    setup = replace(ALL_LAYERS, kv_type_k=kv_type, kv_type_v=kv_type)
    counts = llamacpp.best_split(model_shape(model, quantization), setup, cards())
    found = served((model, quantization, replace(setup, tensor_split=tuple(map(float, counts))), (0, 1)))
    return Room(found.probability, f"best split {counts[0]}:{counts[1]} layers. {found.words}")


def offloaded(model: str, quantization: str) -> Room:
    """Return whether a model runs with as many layers on both cards as fit, and the rest in host memory."""
    known, needs = model_shape(model, quantization), dict[tuple[int, int], Amount]()
    for first, second in product(range(len(known.layers) + 1), repeat=2):
        if not 0 < first + second <= len(known.layers) or (first and (first - 1, second) not in needs):
            continue
        split = (float(first), float(second))
        setup = replace(ALL_LAYERS, gpu_layers=first + second, tensor_split=split)
        found = llamacpp.footprint(known, setup, cards())
        if all(
            need.total.at(SURE) <= gpu.memory_free_mib
            for need, gpu in zip(found.devices, cards(), strict=True)
        ):
            mapped = llamacpp.mapped_mib(known, setup, cards())
            needs[first, second] = found.host.total + Amount(mapped)
    best = max(needs, key=sum)
    need, free = needs[best], HOST_RAM_MIB - HOST_MIB
    words = f"{best[0]} and {best[1]} of {len(known.layers)} layers on the cards"
    return Room(
        need.probability_below(free),
        f"{words}; host: {need.mean_mib:,.0f} ± {need.sigma_mib:,.0f} of {free:,.0f} MiB",
    )


def vllm_room(model: str, gpus: str, setup: VllmSetup) -> Room:
    """Return whether vLLM's pool holds one request of full length at its default share of the card."""
    known, on = shape(model), parse_gpus(gpus)
    filled = vllm.resolved(setup, known, on[0])
    need_mib = vllm.pools(known, filled)[0].request_bytes(filled.context_tokens or 0) / MIB
    ranks = vllm.estimate(known, setup, on)
    least = min(ranks, key=lambda rank: rank.pool.mean_mib)
    fits = prod(1 - rank.pool.probability_below(need_mib) for rank in ranks)
    return Room(
        fits,
        f"a GPU: weights {least.weights.mean_mib:,.0f} MiB, left for KV {least.pool.mean_mib:,.0f} ± "
        f"{least.pool.sigma_mib:,.0f}; one request of {filled.context_tokens:,} tokens {need_mib:,.0f}",
    )


def vllm_device_gib(model: str, gpus: str, setup: VllmSetup) -> float:
    """Return what vLLM takes of its first GPU, GiB."""
    return vllm.footprint(shape(model), setup, parse_gpus(gpus)).devices[0].total.mean_mib / 1024


def vllm_least_gib(model: str, gpus: str, setup: VllmSetup) -> float:
    """Return the same with a pool for one request of full length alone."""
    known, on = shape(model), parse_gpus(gpus)
    filled = vllm.resolved(setup, known, on[0])
    pool = vllm.pools(known, filled)[0].request_bytes(filled.context_tokens or 0)
    return vllm_device_gib(model, gpus, replace(setup, kv_pool_bytes=pool))


def vllm_part_gib(component: Component, model: str, gpus: str, setup: VllmSetup) -> float:
    """Return one component on vLLM's first GPU, GiB."""
    need = vllm.footprint(shape(model), setup, parse_gpus(gpus)).devices[0]
    return need.of(component).mean_mib / 1024


def kv_gib(model: str, tokens: int, requests: int = 1) -> float:
    """Return the KV cache of so many requests, GiB, at the model's own dtype."""
    known = shape(model)
    setup = vllm.resolved(VllmSetup(context_tokens=tokens), known, None)
    return vllm.pools(known, setup)[0].request_bytes(tokens) * requests / GIB


def kv_gb(model: str, tokens: int) -> float:
    """Return the KV cache of one request, GB."""
    return kv_gib(model, tokens) * GIB / GB


def kv_over_weights(model: str, tokens: int) -> float:
    """Return the KV cache of one request as a multiple of the weights."""
    return kv_gb(model, tokens) / weights_gb(model)


def kv_share(model: str, gpus: str, tokens: int, requests: int) -> float:
    """Return the share of KV in what a model takes beside its weights, %."""
    setup = VllmSetup(context_tokens=tokens, kv_pool_bytes=int(kv_gib(model, tokens, requests) * GIB))
    need = vllm.footprint(shape(model), setup, parse_gpus(gpus)).devices[0]
    beside = need.total.mean_mib - need.of(Component.WEIGHTS).mean_mib
    return 100 * need.of(Component.KV).mean_mib / beside


def parameters_gib(model: str, bytes_each: int) -> float:
    """Return a model's parameters at so many bytes each, GiB."""
    return shape(model).parameters * bytes_each / GIB


def weights_gb(model: str, tp: int = 1) -> float:
    """Return the weights of one rank, GB."""
    return rank_bytes(shape(model), VllmSetup(tensor_parallel_size=tp)) / GB


def embedding_gb(model: str, tp: int) -> float:
    """Return the embedding of one rank, GB."""
    known = shape(model)
    table = tuple(tensor for tensor in known.tensors if tensor.part is Part.EMBEDDING)
    return rank_bytes(replace(known, tensors=table), VllmSetup(tensor_parallel_size=tp)) / GB


def nvlink_gb_per_s(gpu: str) -> float:
    """Return what a card's NVLinks carry in one direction; 0 without."""
    card = card_for(gpu)
    assert card is not None
    return card.nvlink_gb_per_s


def link(gpu: str, code: str) -> Link:
    """Return the nominal link between two such cards."""
    first, second = parse_gpus(f"2x {gpu}")
    return nominal_link(first, second, code)


def messages_gb(model: str, tokens: int) -> float:
    """Return the bytes that a pass over the model has reduced over its ranks, GB, before a ring's factor."""
    known = shape(model)
    return all_reduces(known) * tensor_traffic(known, 2, tokens).message_bytes / GB


def sent_gb(model: str, tp: int, tokens: int, sequences: int) -> float:
    """Return what each rank sends for such a step, GB."""
    return tensor_traffic(shape(model), tp, tokens, sequences).sent_bytes / GB


def layer_ms(model: str, tp: int, tokens: int, way: Link) -> float:
    """Return what tensor parallelism adds to a layer, ms."""
    return layer_seconds(shape(model), tp, way, tokens).mean_s * 1e3


def token_over_reading(model: str, tp: int, gpu: str, code: str) -> float:
    """Return the traffic of one decoded token as a share of the time its weights take to be read, %."""
    card = card_for(gpu)
    assert card is not None
    reading_s = weights_gb(model, tp) / card.memory_gb_per_s
    return 100 * duration(tensor_traffic(shape(model), tp), link(gpu, code)).mean_s / reading_s
