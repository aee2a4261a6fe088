"""What else would fit where a plan does not: each checked by planning it, ranked by what it gives up. Pure.

The order: what keeps the model's quality and the context comes first and gives up only speed (another
layout of GPUs, fewer requests at once, small batches, no CUDA graphs, swapping, layers on the host); then
what shortens the context; then what changes the answers (a smaller cache, a quantised model, a smaller
model). Among equals, what gives up less comes first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from subcortex.hardware import Hardware
from subcortex.vram.plan import changes
from subcortex.vram.plan.ask import TierAsk, in_order
from subcortex.vram.plan.estimator import Estimator, Remembered
from subcortex.vram.plan.fit import Fit, NoFit, find
from subcortex.vram.plan.result import Plan, written
from subcortex.vram.plan.seat import Mode
from subcortex.vram.plan.variants import Variant, Variants
from subcortex.vram.plan.work import Work
from subcortex.vram.setup import LlamaCppSetup, VllmSetup

_SHORTEST_TOKENS, _STEP_TOKENS = 512, 256
#: Quality given up by an 8-bit cache; a little, but answers change.
_CACHE_LOSS = 0.02
#: Speed given up, only to be compared: slots are waited for, neighbours woken, host layers read slowly.
_POOL_LOSS, _BATCHES_LOSS, _EAGER_LOSS, _SWAP_LOSS, _OFFLOAD_LOSS = 0.1, 0.15, 0.25, 0.3, 0.4


@dataclass(frozen=True, slots=True)
class Alternative:
    """Something else that fits.

    Args:
        kind: ``layout``, ``pool``, ``batches``, ``eager``, ``swap``, ``offload``, ``context``, ``cache``,
            ``quantisation`` or ``smaller``.
        words: What to do.
        gives_up: What is lost by it.
        loss: Quality, context and speed, 0 to 1 each; compared in this order.
        asks: What to plan instead.
        swapping: Whether tiers may be swapped in that plan.
        plan: The plan itself.
        changed: Names of the tiers that it runs otherwise.
    """

    kind: str
    words: str
    gives_up: str
    loss: tuple[float, float, float]
    asks: tuple[TierAsk, ...]
    swapping: bool
    plan: Plan
    changed: frozenset[str] = frozenset()

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-ready values, with the flags of each tier."""
        tiers = [
            {"name": tier.name, "model": tier.model, "model_note": tier.model_note or None}
            | {"mode": tier.mode.value, "gpus": list(tier.gpus), "context_tokens": tier.context_tokens}
            | {"arguments": list(tier.launch.arguments)}
            for tier in self.plan.tiers
        ]
        return {
            "kind": self.kind,
            "words": self.words,
            "gives_up": self.gives_up,
            "loss": dict(zip(("quality", "context", "speed"), self.loss, strict=True)),
            "probability": round(self.plan.probability, 6),
            "tiers": tiers,
        }


@dataclass(frozen=True, slots=True)
class _Case:
    """All that planning again needs."""

    asks: tuple[TierAsk, ...]
    hardware: Hardware
    estimator: Estimator
    probability: float
    swapping: bool
    own_mib: Mapping[int, float] | None
    work: Work

    def again(self, asks: Sequence[TierAsk], *, swapping: bool) -> Fit | None:
        part = self.work.part()
        if not part.most:
            return None
        found = find(
            asks,
            self.hardware,
            self.estimator,
            probability=self.probability,
            swapping=swapping,
            own_mib=self.own_mib,
            work=part,
        )
        self.work.did(part.done)
        return found if isinstance(found, Fit) else None


_Change = Callable[[TierAsk], TierAsk]


@dataclass(frozen=True, slots=True)
class _Rung:
    """What else is let go besides the change itself, and the speed it costs."""

    kind: str
    change: _Change
    swapping: bool
    speed: float
    words: str


def alternatives(
    asks: Sequence[TierAsk],
    hardware: Hardware,
    estimator: Estimator,
    refused: NoFit,
    variants: Variants | None = None,
    *,
    swapping: bool = True,
    own_mib: Mapping[int, float] | None = None,
    most: int = 6,
) -> tuple[Alternative, ...]:
    """Return what would fit instead, the least loss first.

    Args:
        asks, hardware, estimator, swapping, own_mib: As given to the plan that was refused.
        refused: What it said.
        variants: Other forms of the models; None if none are known.
        most: How many to return at most.
    """
    probability = refused.book.probability
    remembered = Remembered(estimator)
    # For all of them together; each estimate is made once, and counted in each plan that asks for it.
    work = Work.instead(len(hardware.gpus))
    case = _Case(in_order(asks), hardware, remembered, probability, swapping, own_mib, work)
    found: list[Alternative] = []
    seen: set[tuple[str, ...]] = set()
    for change in _changed_sets(case.asks, refused):
        for alternative in _for(case, change, variants):
            key = (alternative.kind, *sorted(change))
            if key not in seen:
                seen.add(key)
                turns = alternative.kind == "swap"
                everyone = frozenset(ask.name for ask in case.asks)
                found.append(replace(alternative, changed=everyone if turns else change))
    found.sort(key=lambda one: (one.loss, one.words))
    return tuple(found[:most])


def _changed_sets(asks: Sequence[TierAsk], refused: NoFit) -> list[frozenset[str]]:
    """Return which tiers to change: those at fault, or each alone and then all where they only collide."""
    names = [ask.name for ask in refused.asks]
    if not refused.together:
        return [frozenset(refused.refused or names)]
    alone = [frozenset({name}) for name in sorted(names, key=lambda name: -_weight(asks, name))]
    return [*alone, frozenset(names)]


def _weight(asks: Sequence[TierAsk], name: str) -> float:
    return next(ask.shape.weights_bytes for ask in asks if ask.name == name)


def _rungs(case: _Case, names: frozenset[str]) -> tuple[list[_Rung], tuple[_Rung, Fit] | None]:
    """Return what may be let go beside a change, and the first of it that fits without any change.

    What is let go grows from rung to rung. From the first that fits alone no change is needed, so none is
    tried there.
    """
    rungs = [
        _Rung("layout", changes.any_layout, case.swapping, 0.0, "on other GPUs"),
        _Rung("pool", changes.one_request, case.swapping, _POOL_LOSS, "with fewer requests at once"),
        _Rung("batches", changes.small_batches, case.swapping, _BATCHES_LOSS, "in small batches"),
    ]
    if any(isinstance(ask.setup, VllmSetup) for ask in case.asks if ask.name in names):
        rungs.append(
            _Rung("eager", changes.eager, case.swapping, _EAGER_LOSS, "in small batches without CUDA graphs")
        )
    if not case.swapping and len(case.asks) > 1:
        rungs.insert(0, _Rung("swap", lambda ask: ask, True, _SWAP_LOSS, "taking turns"))
        rungs.append(
            _Rung("swap", changes.eager, True, _EAGER_LOSS + _SWAP_LOSS, "in small batches and taking turns")
        )
    useful = [_Rung("", lambda ask: ask, case.swapping, 0.0, "")]
    # By what they give up, so that the first that fits gives up least.
    for rung in sorted(rungs, key=lambda rung: rung.speed):
        fit = _tried(case, names, rung.change, swapping=rung.swapping)
        if fit is not None:
            return useful, (rung, fit)
        useful.append(rung)
    return useful, None


def _for(case: _Case, names: frozenset[str], variants: Variants | None) -> Iterator[Alternative]:
    tiers = " and ".join(ask.name for ask in case.asks if ask.name in names)
    changed = [ask for ask in case.asks if ask.name in names]
    rungs, unchanged = _rungs(case, names)
    if unchanged is not None:
        yield _unchanged(*unchanged, names, tiers)
    yield from _offloaded(case, names, changed, tiers)
    yield from _shortened(case, rungs, names, changed, tiers)
    if any(changes.small_cache(ask) != ask for ask in changed):
        cache = _first(case, rungs, names, changes.small_cache)
        if cache is not None:
            fit, rung = cache
            words = f"keep the cache of {tiers} in 8 bits{_also(rung)}"
            loss = (_CACHE_LOSS, 0.0, rung.speed)
            yield _made("cache", fit, rung.swapping, loss, words, "a little precision of the cache")
    if variants is not None:
        yield from _varied(case, rungs, names, changed, variants)


def _unchanged(rung: _Rung, fit: Fit, names: frozenset[str], tiers: str) -> Alternative:
    """Return the alternative that keeps models, precision and context."""
    loss = (0.0, 0.0, rung.speed)
    if rung.kind == "layout":
        return _made("layout", fit, rung.swapping, loss, _layout_words(fit, names), "nothing")
    if rung.kind == "pool":
        words = f"let {tiers} hold as many requests as there is room for: {_requests(fit, names)}"
        return _made("pool", fit, rung.swapping, loss, words, "requests at once; more of them wait")
    if rung.kind in ("batches", "eager"):
        lost = "speed of prompts" if rung.kind == "batches" else "speed of prompts and of every token"
        return _made(rung.kind, fit, rung.swapping, loss, f"run {tiers} {rung.words}", lost)
    words = f"let tiers take turns: {'; '.join(map(str, written(fit).swaps))}"
    return _made("swap", fit, True, loss, words, "seconds at each change")


def _varied(
    case: _Case,
    rungs: Sequence[_Rung],
    names: frozenset[str],
    changed: Sequence[TierAsk],
    variants: Variants,
) -> Iterator[Alternative]:
    for kind, options in (("quantisation", variants.quantised), ("smaller", variants.smaller)):
        offered = {ask.name: list(options(ask)) for ask in changed}
        rounds = min((len(some) for some in offered.values()), default=0)
        for i in range(rounds):
            chosen = {name: some[i] for name, some in offered.items()}

            def change(ask: TierAsk, chosen: Mapping[str, Variant] = chosen) -> TierAsk:
                return chosen[ask.name].of(ask)

            found = _first(case, rungs, names, change)
            if found is None:
                continue
            fit, rung = found
            loss = max(variant.loss for variant in chosen.values())
            verb = "quantise" if kind == "quantisation" else "take a smaller model of the family"
            pairs = [
                variant.name if len(chosen) == 1 else f"{variant.name} for {name}"
                for name, variant in sorted(chosen.items())
            ]
            words = f"{verb}: {'; '.join(pairs)}{_also(rung)}"
            lost = "precision of the weights" if kind == "quantisation" else "the larger model's abilities"
            if not loss:
                words, lost = f"{'; '.join(pairs)}{_also(rung)}", "nothing"
            yield _made(kind, fit, rung.swapping, (loss, 0.0, rung.speed), words, lost)
            break


def _offloaded(
    case: _Case, names: frozenset[str], changed: Sequence[TierAsk], tiers: str
) -> Iterator[Alternative]:
    """Yield the plan with as many layers of llama.cpp on GPUs as fit, the rest on the host."""
    if not case.hardware.gpus or any(not isinstance(ask.setup, LlamaCppSetup) for ask in changed):
        return
    most = max(len(ask.shape.layers) + 1 for ask in changed)

    def change(share: int) -> _Change:
        def apply(ask: TierAsk) -> TierAsk:
            anywhere = changes.any_layout(ask)
            assert isinstance(anywhere.setup, LlamaCppSetup)
            layers = (len(ask.shape.layers) + 1) * share // most
            return replace(anywhere, setup=replace(anywhere.setup, gpu_layers=layers))

        return apply

    best = _largest(0, most - 1, lambda share: _tried(case, names, change(share), swapping=case.swapping))
    if best is not None:
        share, fit = best
        layers = [
            f"{(len(ask.shape.layers) + 1) * share // most} of {len(ask.shape.layers) + 1}" for ask in changed
        ]
        words = f"keep {' and '.join(layers)} layers of {tiers} on GPUs, the rest in host memory"
        loss = (0.0, 0.0, _OFFLOAD_LOSS + (1 - _OFFLOAD_LOSS) * (1 - share / most))
        yield _made("offload", fit, case.swapping, loss, words, "speed: host memory is read for every token")


def _shortened(
    case: _Case, rungs: Sequence[_Rung], names: frozenset[str], changed: Sequence[TierAsk], tiers: str
) -> Iterator[Alternative]:
    """Yield the plan with the longest context that fits."""
    longest = max(ask.context_tokens for ask in changed)
    steps = (longest - 1) // _STEP_TOKENS
    first = _SHORTEST_TOKENS // _STEP_TOKENS

    def change(step: int) -> _Change:
        return lambda ask: ask.with_context(min(ask.context_tokens, step * _STEP_TOKENS))

    for rung in rungs:

        def tried(step: int, rung: _Rung = rung) -> Fit | None:
            shorter = change(step)
            return _tried(case, names, lambda ask: rung.change(shorter(ask)), swapping=rung.swapping)

        best = _largest(first, steps, tried)
        if best is not None:
            step, fit = best
            tokens = step * _STEP_TOKENS
            words = f"shorten the context of {tiers} to {tokens} tokens{_also(rung)}"
            loss = (0.0, 1 - tokens / longest, rung.speed)
            yield _made("context", fit, rung.swapping, loss, words, f"context: {longest} to {tokens} tokens")
            return


def _largest(low: int, high: int, tried: Callable[[int], Fit | None]) -> tuple[int, Fit] | None:
    """Return the largest number that fits, with the plan that showed it."""
    if low > high:
        return None
    best = tried(low)
    if best is None:
        return None
    found = low
    while low < high:
        middle = (low + high + 1) // 2
        fit = tried(middle)
        if fit is None:
            high = middle - 1
        else:
            low = found = middle
            best = fit
    return found, best


def _first(
    case: _Case, rungs: Sequence[_Rung], names: frozenset[str], change: _Change
) -> tuple[Fit, _Rung] | None:
    """Return the first plan that fits with a change, and what else had to be let go for it."""
    for rung in rungs:

        def both(ask: TierAsk, rung: _Rung = rung) -> TierAsk:
            return rung.change(change(ask))

        fit = _tried(case, names, both, swapping=rung.swapping)
        if fit is not None:
            return fit, rung
    return None


def _tried(case: _Case, names: frozenset[str], change: _Change, *, swapping: bool) -> Fit | None:
    return case.again([change(ask) if ask.name in names else ask for ask in case.asks], swapping=swapping)


def _also(rung: _Rung) -> str:
    return f", {rung.words}" if rung.words else ""


def _layout_words(fit: Fit, names: frozenset[str]) -> str:
    tiers = [tier for tier in written(fit).tiers if tier.name in names]
    places = [
        f"{tier.name} on GPU {', '.join(map(str, tier.gpus))} as {tier.layout}"
        if tier.gpus
        else f"{tier.name} in host memory"
        for tier in tiers
    ]
    return f"place {'; '.join(places)}"


def _requests(fit: Fit, names: frozenset[str]) -> str:
    tiers = [tier for tier in written(fit).tiers if tier.name in names]
    return ", ".join(f"{tier.requests:.1f} of {tier.context_tokens} tokens" for tier in tiers)


def _made(
    kind: str, fit: Fit, swapping: bool, loss: tuple[float, float, float], words: str, gives_up: str
) -> Alternative:
    asleep = sum(mode is not Mode.AWAKE for mode in fit.home)
    quality, context, speed = loss
    # A plan in which somebody waits to be woken gives up more than one in which nobody does.
    speed = min(1.0, speed + (_SWAP_LOSS if asleep and speed < _SWAP_LOSS else 0.0))
    return Alternative(kind, words, gives_up, (quality, context, speed), fit.asked, swapping, written(fit))
