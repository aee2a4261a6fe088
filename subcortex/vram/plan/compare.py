"""Layouts of one model side by side over all GPUs: TP, PP, both, and copies of it (DP). Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from subcortex.hardware import Gpu
from subcortex.vram.amount import Amount
from subcortex.vram.communication import (
    Link,
    Span,
    Traffic,
    duration,
    link_name,
    pipeline_traffic,
    tensor_traffic,
    words,
)
from subcortex.vram.footprint import Component
from subcortex.vram.plan.ask import Free, TierAsk
from subcortex.vram.plan.seat import Book, Seat
from subcortex.vram.setup import LlamaCppSetup, Setup, VllmSetup

#: Share of a card's nominal bandwidth that decoding one request reaches, and the seconds that a step costs
#: besides. Through two points of the ground truth, vLLM 0.26 on H200 (4.8 TB/s), one request at a time: an 8B
#: at TP 1 (4.89 ms a token) and a 70B at TP 2 (21.06 ms, less 2.4 for its all-reduces). llama.cpp's are
#: assumed to be the same.
BANDWIDTH_SHARE, BANDWIDTH_SHARE_SIGMA = 0.83, 0.06
STEP = Span(1.1e-3, 0.4e-3)

_MIB = 2**20
_NOTHING, _AT_ONCE = Traffic(0, 0.0, 0.0), Span(0.0)


@dataclass(frozen=True, slots=True)
class GpuFigures:
    """One GPU of a layout, MiB: what it needs beside the pool, with the plan's probability, and the pool."""

    gpu: int
    name: str
    weights_mib: float
    need_mib: float
    pool_mib: float
    budget_mib: float


@dataclass(frozen=True, slots=True)
class Option:
    """One layout.

    Args:
        name: ``TP 2``, ``PP 2``, ``TP 2 × PP 2``, ``DP 2``, ``layer``, ``row``; on a part of the GPUs also
            which: ``GPU 0``, ``TP 2 on 0,1``.
        copies: Engines side by side; more than 1 under DP.
        gpus: Figures of each.
        kv_tokens: That all copies together hold; 0 if it does not fit.
        fits: One request of full length fits.
        token: Traffic of one decoded token, by the busiest rank.
        prefill: Traffic of one prompt.
        prefill_tokens: Its length.
        link: Between its GPUs, the slowest; None on one GPU or where unknown.
        token_link: What the link adds to a token.
        decode: Seconds a token for one request; None where a card's bandwidth is unknown.
        refused: Why the engine would not take it; the rest is then empty.
    """

    name: str
    copies: int
    gpus: tuple[GpuFigures, ...] = ()
    kv_tokens: int = 0
    fits: bool = False
    token: Traffic = _NOTHING
    prefill: Traffic = _NOTHING
    prefill_tokens: int = 0
    link: Link | None = None
    token_link: Span = _AT_ONCE
    prefill_link: Span = _AT_ONCE
    decode: Span | None = None
    refused: str | None = None

    @property
    def tokens_per_s(self) -> tuple[float, float] | None:
        """Decode speed of one request, tokens/s: at one σ slower, and one σ faster."""
        if self.decode is None:
            return None
        fastest = max(self.decode.mean_s - self.decode.sigma_s, self.decode.mean_s / 2)
        return 1 / (self.decode.mean_s + self.decode.sigma_s), 1 / fastest

    @property
    def link_words(self) -> str:
        """What the link makes of it, for people."""
        if self.refused:
            return self.refused
        if not self.token.messages:
            return "nothing crosses a link"
        if self.link is None:
            return "link unknown"
        share = self.token_link.mean_s / self.decode.mean_s if self.decode else 0.0
        weight = f", {share:.0%} of it" if share >= 0.005 else ""
        return f"{words(self.token_link, self.link)}{weight}"

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        speed = self.tokens_per_s
        return {
            "name": self.name,
            "copies": self.copies,
            "fits": self.fits,
            "refused": self.refused,
            "kv_tokens": self.kv_tokens,
            "gpus": [
                {
                    "gpu": figures.gpu,
                    "name": figures.name,
                    "weights_mib": round(figures.weights_mib, 1),
                    "need_mib": round(figures.need_mib, 1),
                    "pool_mib": round(figures.pool_mib, 1),
                    "budget_mib": round(figures.budget_mib, 1),
                }
                for figures in self.gpus
            ],
            "token_bytes": round(self.token.sent_bytes),
            "token_messages": self.token.messages,
            "prefill_tokens": self.prefill_tokens,
            "prefill_bytes": round(self.prefill.sent_bytes),
            "link": self.link.kind if self.link else None,
            "link_name": link_name(self.link) if self.link else None,
            "link_gb_per_s": self.link.gb_per_s if self.link else None,
            "link_measured": self.link.measured if self.link else None,
            "token_link_ms": round(self.token_link.mean_s * 1e3, 4),
            "token_link_sigma_ms": round(self.token_link.sigma_s * 1e3, 4),
            "prefill_link_ms": round(self.prefill_link.mean_s * 1e3, 3),
            "tokens_per_s": round(1 / self.decode.mean_s, 2) if self.decode else None,
            "tokens_per_s_interval": [round(end, 2) for end in speed] if speed else None,
            "words": self.link_words,
        }


LinkOf = Callable[[Sequence[Gpu]], Link | None]
BandwidthOf = Callable[[Gpu], float | None]


def options(
    ask: TierAsk,
    book: Book,
    link_of: LinkOf,
    bandwidth_of: BandwidthOf,
    *,
    prefill_tokens: int = 1024,
) -> tuple[Option, ...]:
    """Return every layout of a model over all GPUs that it may use, then over parts of them.

    The parts are one card of each kind, and of unequal cards those of the larger kinds together.

    Args:
        ask: The model; how it is spread in ``setup`` does not matter.
        book: The machine, the estimates and the probability.
        link_of: The slowest link between GPUs.
        bandwidth_of: A card's memory bandwidth, GB/s.
        prefill_tokens: Length of the prompt whose traffic is shown.
    """
    gpus = book.allowed(ask)
    if not gpus:
        return (Option("GPUs", 1, refused=book.too_old(ask) or "there is no GPU that it may use"),)
    ask = replace(ask, free=ask.free | {Free.POOL})
    found = []
    for part in [gpus, *_parts(book, gpus)]:
        for name, copies, setup in _layouts(ask, len(part)):
            where = ",".join(map(str, part))
            if part != gpus:
                name = f"GPU {where}" if len(part) == 1 else f"{name} on {where}"
            size = len(part) // copies
            why = book.refusal(ask, setup, size)
            if why is not None:
                found.append(Option(name, copies, refused=why))
                continue
            groups = [tuple(part[i * size : (i + 1) * size]) for i in range(copies)]
            engines = [
                _engine(ask, book, setup, group, link_of, bandwidth_of, prefill_tokens) for group in groups
            ]
            found.append(_together(name, engines))
    return tuple(found)


def _parts(book: Book, gpus: Sequence[int]) -> list[list[int]]:
    """Return the parts of GPUs that are worth a look of their own, the larger first."""
    kinds: dict[object, list[int]] = {}
    for gpu in sorted(gpus, key=lambda gpu: (-book.limits[gpu].mib, gpu)):
        card = book.gpus[gpu]
        kinds.setdefault((card.name, card.memory_total_mib), []).append(gpu)
    largest_first = list(kinds.values())
    together = [
        sorted(gpu for alike in largest_first[:count] for gpu in alike)
        for count in range(len(largest_first), 0, -1)
    ]
    single = [alike[:1] for alike in largest_first]
    found = [part for part in (*together, *single) if 0 < len(part) < len(gpus)]
    return [part for i, part in enumerate(found) if part not in found[:i]]


def _layouts(ask: TierAsk, count: int) -> Iterator[tuple[str, int, Setup]]:
    """Yield name, copies and setup of each way to use exactly ``count`` GPUs."""
    setup = ask.setup
    if isinstance(setup, LlamaCppSetup):
        whole = replace(setup, gpu_layers=len(ask.shape.layers) + 1, tensor_split=None, main_gpu=0)
        whole = replace(whole, parallel=1, context_tokens=ask.context_tokens)
        if count > 1:
            yield "layer", 1, replace(whole, split_mode="layer")
            yield "row", 1, replace(whole, split_mode="row")
        yield ("1 GPU" if count == 1 else f"DP {count}"), max(1, count), replace(whole, split_mode="none")
        return
    for copies in range(1, count + 1):
        if count % copies:
            continue
        size = count // copies
        for tp in range(size, 0, -1):
            if size % tp == 0:
                pp = size // tp
                names = [f"TP {tp}"] if tp > 1 else []
                names += [f"PP {pp}"] if pp > 1 else []
                names += [f"DP {copies}"] if copies > 1 else []
                spread = replace(setup, tensor_parallel_size=tp, pipeline_parallel_size=pp)
                yield " × ".join(names) or "1 GPU", copies, spread


def _engine(
    ask: TierAsk,
    book: Book,
    setup: Setup,
    gpus: tuple[int, ...],
    link_of: LinkOf,
    bandwidth_of: BandwidthOf,
    prefill_tokens: int,
) -> Option:
    seat = book.spread(ask, gpus, setup)
    figures = _figures(book, seat)
    tokens = _tokens(book, seat, figures)
    cards = [book.gpus[gpu] for gpu in gpus]
    link = link_of(cards) if len(cards) > 1 else None
    tp, pp = _ranks(setup, len(gpus))
    token = _sum(tensor_traffic(ask.shape, tp), pipeline_traffic(ask.shape, pp, tp=tp))
    prefill = _sum(
        tensor_traffic(ask.shape, tp, prefill_tokens), pipeline_traffic(ask.shape, pp, prefill_tokens, tp)
    )
    token_link = duration(token, link) if link else Span(0.0)
    prefill_link = duration(prefill, link) if link else Span(0.0)
    decode = _decode(ask, figures, cards, tp, bandwidth_of)
    if len(cards) > 1 and link is None:
        decode = None
    return Option(
        "",
        1,
        figures,
        tokens,
        tokens >= ask.context_tokens,
        token,
        prefill,
        prefill_tokens,
        link,
        token_link,
        prefill_link,
        decode + token_link if decode else None,
    )


def _figures(book: Book, seat: Seat) -> tuple[GpuFigures, ...]:
    """Return what each GPU needs beside the pool, and what that leaves for the pool."""
    made = book.footprint(seat, 1.0)
    each = book.probability ** (1 / max(1, len(seat.gpus)))
    found = []
    for gpu, need in zip(seat.gpus, made.devices, strict=True):
        limit = book.limits[gpu]
        beside = need.but(Component.KV, Amount()).total.at(each)
        weights = need.of(Component.WEIGHTS).mean_mib
        found.append(GpuFigures(gpu, limit.name, weights, beside, max(0.0, limit.mib - beside), limit.mib))
    return tuple(found)


def _tokens(book: Book, seat: Seat, figures: Sequence[GpuFigures]) -> int:
    """Return the tokens that the pools hold: the least of the stages, each by its smallest card."""
    if isinstance(seat.setup, LlamaCppSetup):
        # Of a layer split each card keeps its own layers' share of every request.
        kept = [need.of(Component.KV).mean_mib for need in book.footprint(seat, 1.0).devices]
        slots = [figure.pool_mib / mib for figure, mib in zip(figures, kept, strict=True) if mib > 0]
        return int(min(slots, default=0.0)) * seat.ask.context_tokens
    pools = book.pools(seat, seat.setup)
    ranks = len(figures) // len(pools)
    return min(
        pool.tokens(
            min(f.pool_mib for f in figures[i * ranks : (i + 1) * ranks]) * _MIB, seat.ask.context_tokens
        )
        for i, pool in enumerate(pools)
    )


def _ranks(setup: Setup, gpus: int) -> tuple[int, int]:
    """Return sizes of tensor and pipeline parallelism; llama.cpp's row and layer splits are like them."""
    if isinstance(setup, VllmSetup):
        return setup.tensor_parallel_size, setup.pipeline_parallel_size
    return (gpus, 1) if setup.split_mode in ("row", "tensor") else (1, gpus)


def _sum(one: Traffic, other: Traffic) -> Traffic:
    return Traffic(
        one.messages + other.messages,
        max(one.message_bytes, other.message_bytes),
        one.sent_bytes + other.sent_bytes,
    )


def _decode(
    ask: TierAsk, figures: Sequence[GpuFigures], cards: Sequence[Gpu], tp: int, bandwidth_of: BandwidthOf
) -> Span | None:
    """Return the seconds of reading the active weights once: stages in turn, the slowest rank of each."""
    active = ask.shape.active_bytes_per_token / max(1.0, ask.shape.weights_bytes)
    seconds = []
    for figure, card in zip(figures, cards, strict=True):
        bandwidth = bandwidth_of(card)
        if not bandwidth:
            return None
        seconds.append(figure.weights_mib * _MIB * active / (bandwidth * 1e9 * BANDWIDTH_SHARE))
    total = sum(max(seconds[i : i + tp]) for i in range(0, len(seconds), tp))
    return STEP + Span(total, total * BANDWIDTH_SHARE_SIGMA / BANDWIDTH_SHARE)


def _together(name: str, parts: Sequence[Option]) -> Option:
    """Return copies as one option: tokens of all, speed of the slowest."""
    slowest = max(parts, key=lambda part: part.decode.mean_s if part.decode else 0.0)
    return replace(
        slowest,
        name=name,
        copies=len(parts),
        gpus=tuple(figure for part in parts for figure in part.gpus),
        kv_tokens=sum(part.kv_tokens for part in parts) if all(part.fits for part in parts) else 0,
        fits=all(part.fits for part in parts),
    )
