"""The joint plan: all tiers on all GPUs at a chosen probability of fitting; pure, and in milliseconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from subcortex.errors import DoesNotFit
from subcortex.hardware import Hardware
from subcortex.vram.plan.alternatives import Alternative, alternatives
from subcortex.vram.plan.ask import EVERYTHING, USUAL, Free, TierAsk
from subcortex.vram.plan.estimator import Estimator
from subcortex.vram.plan.fit import DEFAULT_PROBABILITY, Fit, NoFit, find
from subcortex.vram.plan.result import Plan, written
from subcortex.vram.plan.shortfall import Shortfall, shortfalls
from subcortex.vram.plan.variants import Variant, Variants

__all__ = [
    "DEFAULT_PROBABILITY",
    "EVERYTHING",
    "USUAL",
    "Alternative",
    "Estimator",
    "Fit",
    "Free",
    "NoFit",
    "Plan",
    "Shortfall",
    "TierAsk",
    "Variant",
    "Variants",
    "alternatives",
    "find",
    "nearest",
    "plan",
    "refusal",
    "shortfalls",
    "unloaded",
    "written",
]


def plan(
    asks: Sequence[TierAsk],
    hardware: Hardware,
    estimator: Estimator,
    variants: Variants | None = None,
    *,
    probability: float = DEFAULT_PROBABILITY,
    swapping: bool = True,
    own_mib: Mapping[int, float] | None = None,
) -> Plan:
    """Return the joint plan of all tiers; the arguments are those of :func:`find`.

    Raises:
        DoesNotFit: Nothing fits; ``details`` has what is short where, and alternatives that do fit.
        InvalidRequest: No tiers, two of one name, or no probability.
    """
    found = find(asks, hardware, estimator, probability=probability, swapping=swapping, own_mib=own_mib)
    if isinstance(found, Fit):
        return written(found)
    others = alternatives(asks, hardware, estimator, found, variants, swapping=swapping, own_mib=own_mib)
    raise refusal(found, others)


def nearest(found: NoFit) -> str:
    """Return what to try where nothing that was planned instead fits."""
    if names := " and ".join(unloaded(found)):
        return (
            f"Serve {names} from another checkpoint (AWQ, GPTQ or FP8), or from a GGUF on llama.cpp: "
            "plan that with --engine llama.cpp."
        )
    old = [ask.name for ask in found.asks if ask.name in (found.refused or {}) and found.book.too_old(ask)]
    if old:
        names = " and ".join(old)
        return (
            f'llama.cpp runs on such cards: serve {names} from a GGUF with engine = "llama.cpp", '
            "or plan it with --engine llama.cpp."
        )
    return "Nothing that is known here would fit."


def unloaded(found: NoFit) -> list[str]:
    """Return the tiers whose weights their engine does not load as they are stored."""
    refused = [ask for ask in found.asks if ask.name in (found.refused or {})]
    return [ask.name for ask in refused if ask.engine == "vllm" and ask.shape.not_loaded]


def refusal(found: NoFit, others: Sequence[Alternative]) -> DoesNotFit:
    """Return the error that says what is short and what would fit."""
    short = shortfalls(found)
    names = ", ".join(ask.name for ask in found.asks)
    if found.refused:
        message = "; ".join(f"{name}: {why}" for name, why in found.refused.items())
    elif short:
        both = " together, though each alone does" if found.together else ""
        message = f"{names} does not fit{both} (probability {found.book.probability:g}): {short[0]}"
        message += f"; and {len(short) - 1} more" if len(short) > 1 else ""
    else:
        message = f"{names} does not fit with probability {found.book.probability:g}"
    if not found.exact:
        message += "; not every place was tried, there are too many of them"
    hint = f"This fits: {others[0].words}." if others else nearest(found)
    if others and unloaded(found):
        hint += f" {nearest(found)}"
    return DoesNotFit(
        message,
        hint=hint,
        tiers=[ask.name for ask in found.asks],
        short=[
            {
                "device": short_here.device if short_here.device >= 0 else None,
                "name": short_here.name,
                "tier": short_here.tier,
                "component": short_here.component.value,
                "short_gib": round(short_here.short_mib / 1024, 3),
                "need_mib": round(short_here.need_mib, 1),
                "budget_mib": round(short_here.budget_mib, 1),
            }
            for short_here in short
        ],
        refused=dict(found.refused or {}),
        notes={ask.name: list(ask.shape.notes) for ask in found.asks if ask.shape.notes},
        alternatives=[other.to_json() for other in others],
    )
