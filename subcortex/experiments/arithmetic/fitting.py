"""Whether a model fits on cards, by the planner's own estimates. Pure.

A note that says "fits" says that there is a way: so it is tried as it goes in best, with layers shared out as
well as can be and without CUDA graphs, and what does not fit even so does not fit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from math import prod

from subcortex.errors import SubcortexError
from subcortex.experiments.arithmetic import known
from subcortex.experiments.arithmetic.settlement import Settlement, number, verdict_of
from subcortex.hardware import Gpu
from subcortex.hardware.standin import parse_gpus
from subcortex.journal.board.claims import Claim
from subcortex.journal.board.units import in_base
from subcortex.models.mixtures import MIXTURES
from subcortex.models.shape import ModelShape
from subcortex.vram import LlamaCppSetup, VllmSetup, llamacpp, vllm
from subcortex.vram.plan.budget import gpu_budget

#: Something fits from this probability on, and does not at what is left of 1; between, nothing is settled.
SURE = 0.95
#: Tokens of the one request that there must be room for, where nothing names another length.
LLAMACPP_TOKENS, VLLM_TOKENS = 8192, 4096
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Room:
    """How probably something fits, and the figures behind it."""

    probability: float
    words: str


def settle_fit(claim: Claim) -> Settlement | None:
    """Return whether what is said of fitting is so; None if unknown, or where it is close."""
    if claim.fits is None or not claim.cards or "offload" in claim.statement.lower():
        return None
    cards = " + ".join(claim.cards)
    if (too_large := _larger_than_cards(claim)) is not None:
        return too_large
    engine = _engine(claim)
    if claim.model is None or engine is None:
        return None
    rooms = []
    for form in _forms(claim, engine):
        found = room(claim.model, form, claim.cards, engine, claim.context_tokens)
        if found is None:
            return None
        rooms.append((form, found))
    if not rooms:
        return None
    form, best = max(rooms, key=lambda one: one[1].probability)
    if 1 - SURE < best.probability < SURE:
        return None
    fits = best.probability >= SURE
    subject = f"{claim.model} {form} on {cards}"
    return Settlement(
        verdict_of(fits == claim.fits), "fits", "fits", subject,
        f"{subject}: {'fits' if fits else 'does not fit'} on {engine}",
        f"{'fits' if fits else 'does not fit'} (p = {best.probability:.2f}, {engine}, {form}): {best.words}",
        float(fits), None,
    )  # fmt: skip


def _engine(claim: Claim) -> str | None:
    if claim.form in MIXTURES:
        return "llama.cpp"
    return claim.engine if claim.form else ("vllm" if claim.engine == "vllm" else None)


def _forms(claim: Claim, engine: str) -> tuple[str, ...]:
    if claim.form is None:
        return ("BF16",)
    if claim.form in known.PLAIN_BYTES:
        return (claim.form,) if claim.form in ("FP16", "BF16", "FP8", "INT8") else ()
    of_engine = [one for one in known.forms_of(claim.form) if (one in MIXTURES) == (engine == "llama.cpp")]
    return tuple(of_engine)


def _larger_than_cards(claim: Claim) -> Settlement | None:
    """Settle what is larger than the cards by the line's own figures: weights alone do not go in."""
    sizes = [figure for figure in claim.figures if figure.quantity == "weights_size" and figure.unit]
    try:
        gpus = parse_gpus(" + ".join(claim.cards))
    except SubcortexError:
        return None
    if not sizes:
        return None
    low = in_base(sizes[0].low, sizes[0].unit)
    total = sum(gpu.memory_total_mib for gpu in gpus) * _MIB
    if low <= total or (known.shape_of(claim.model or "") is not None and claim.form):
        return None
    cards = " + ".join(claim.cards)
    words = f"{sizes[0].written} of weights are more than the {number(total / 2**30)} GiB of {cards}"
    return Settlement(
        verdict_of(not claim.fits),
        "fits",
        "fits",
        f"{claim.model or 'it'} on {cards}",
        words,
        words,
        0.0,
        None,
    )


@cache
def room(
    model: str, form: str, cards: tuple[str, ...], engine: str, context_tokens: int | None
) -> Room | None:
    """Return how probably a model fits.

    Args:
        model: In the board's spelling.
        form: As ``known.in_form`` takes it.
        cards: By name, or by size (``24GB``), each as often as there is one.
        engine: ``vllm`` or ``llama.cpp``.
        context_tokens: Of the one request that there must be room for.
    """
    try:
        shape = known.in_form(model, form.lower() if form in ("FP8", "INT8") else form)
        gpus = tuple(_offered(gpu) for gpu in parse_gpus(" + ".join(cards)))
        if shape is None:
            return None
        return (
            _on_llamacpp(shape, gpus, context_tokens)
            if engine == "llama.cpp"
            else _on_vllm(shape, gpus, context_tokens)
        )
    except SubcortexError:
        return None


def _offered(gpu: Gpu) -> Gpu:
    """Return a card with only as much free as a plan may use of it, no display attached."""
    return gpu.model_copy(update={"memory_used_mib": gpu.memory_total_mib - gpu_budget(gpu).mib})


def _on_llamacpp(shape: ModelShape, gpus: tuple[Gpu, ...], context_tokens: int | None) -> Room | None:
    tokens = min(context_tokens or LLAMACPP_TOKENS, shape.max_context_tokens or LLAMACPP_TOKENS)
    setup, split = LlamaCppSetup(context_tokens=tokens, gpu_layers=999), ""
    if len(gpus) > 1:
        counts = llamacpp.best_split(shape, setup, gpus)
        setup = replace(setup, tensor_split=tuple(map(float, counts)))
        split = f"layers {':'.join(map(str, counts))}, "
    devices = llamacpp.footprint(shape, setup, gpus).devices
    pairs = [(gpu, need.total) for gpu, need in zip(gpus, devices, strict=True)]
    words = "; ".join(
        f"{gpu.name} {need.mean_mib:,.0f} ± {need.sigma_mib:,.0f} of {gpu.memory_free_mib:,.0f} MiB"
        for gpu, need in pairs
    )
    return Room(
        prod(need.probability_below(gpu.memory_free_mib) for gpu, need in pairs),
        f"{tokens:,} tokens, {split}{words}",
    )


def _on_vllm(shape: ModelShape, gpus: tuple[Gpu, ...], context_tokens: int | None) -> Room | None:
    ranks = len(gpus)
    if shape.heads % ranks:
        return None
    tokens = min(context_tokens or VLLM_TOKENS, shape.max_context_tokens or VLLM_TOKENS)
    setup = VllmSetup(tensor_parallel_size=ranks, context_tokens=tokens, eager=True)
    filled = vllm.resolved(setup, shape, gpus[0])
    need_mib = vllm.pools(shape, filled)[0].request_bytes(tokens) / _MIB
    found = vllm.estimate(shape, setup, gpus)
    least = min(found, key=lambda rank: rank.pool.mean_mib)
    return Room(
        prod(1 - rank.pool.probability_below(need_mib) for rank in found),
        f"a GPU: weights {least.weights.mean_mib:,.0f} MiB, left for KV {least.pool.mean_mib:,.0f} ± "
        f"{least.pool.sigma_mib:,.0f} MiB; one request of {tokens:,} tokens needs {need_mib:,.0f} MiB",
    )
