"""A plan as people and programs read it: figures by device and component, flags, swaps, starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from subcortex.vram.amount import Amount
from subcortex.vram.footprint import Component
from subcortex.vram.plan.ask import TierAsk
from subcortex.vram.plan.budget import HOST, below
from subcortex.vram.plan.fit import Fit
from subcortex.vram.plan.flags import Launch, launch, setup_words
from subcortex.vram.plan.seat import Mode
from subcortex.vram.plan.states import State, likelihood, load_of

_SHORTEST_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Share:
    """What one tier has of one device; components by name, MiB; ``asleep`` is one for a sleeper."""

    tier: str
    mode: Mode
    components: Mapping[str, Amount]
    total: Amount


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """One device at rest, MiB.

    Args:
        device: GPU index, -1 for host memory.
        used_mib, reserve_mib: By others, and kept free; the budget is what is left of the total.
        need_mib: What all shares together stay below with the plan's probability.
        probability: Of this device's budget being enough.
    """

    device: int
    name: str
    total_mib: float
    used_mib: float
    reserve_mib: float
    budget_mib: float
    shares: tuple[Share, ...]
    need_mib: float
    probability: float

    @property
    def left_mib(self) -> float:
        """What nobody needs, with the plan's probability."""
        return self.budget_mib - self.need_mib


@dataclass(frozen=True, slots=True)
class TierPlan:
    """One tier.

    Args:
        model, model_note: What to write after ``--model``, and what that stands for where it is no name.
        mode: What it does at rest.
        layout: How it is spread: ``TP 2``, ``layer 5:3``, ``CPU``.
        wanted: Requests of full length asked for.
        requests: Requests of full length that there is room for.
        kv_tokens: Tokens that its pool holds.
        concurrency: Length → requests of it at once.
        notes: How the model's figures may be off, and what an engine makes of it.
    """

    name: str
    model: str
    engine: str
    start: str
    mode: Mode
    gpus: tuple[int, ...]
    layout: str
    context_tokens: int
    wanted: int
    requests: float
    kv_tokens: int
    concurrency: tuple[tuple[int, float], ...]
    launch: Launch
    model_note: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Swap:
    """How a tier that is not awake at rest comes up.

    Args:
        tier: Who comes up.
        asleep, stopped: Who makes room for it, and how.
        gpus: Where.
        moved_mib: Weights that come back: from host memory if it sleeps, from disk if it is stopped.
        need_mib: By device, what the state needs with the plan's probability.
        probability: Of the state fitting.
    """

    tier: str
    was: Mode
    asleep: tuple[str, ...]
    stopped: tuple[str, ...]
    gpus: tuple[int, ...]
    moved_mib: float
    need_mib: Mapping[int, float]
    probability: float

    def __str__(self) -> str:
        verb = "wake" if self.was is Mode.ASLEEP else "start"
        room = [f"put {', '.join(self.asleep)} to sleep"] if self.asleep else []
        room += [f"stop {', '.join(self.stopped)}"] if self.stopped else []
        where = f"GPU {', '.join(map(str, self.gpus))}" if self.gpus else "host memory"
        source = "from host memory" if self.was is Mode.ASLEEP else "from disk"
        return (
            f"to {verb} {self.tier} on {where}: {' and '.join(room)}; "
            f"{self.moved_mib / 1024:.1f} GiB of weights come {source}"
        )


@dataclass(frozen=True, slots=True)
class Start:
    """One step of starting: who, whether it is put to sleep at once, and why now."""

    tier: str
    then_sleep: bool
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The joint plan.

    Args:
        asked_probability: Least probability of everything fitting.
        probability: Of the least likely state of this plan, on all devices at once.
        exact: Every place was tried; otherwise this is the best of those that were.
    """

    asked_probability: float
    probability: float
    devices: tuple[DevicePlan, ...]
    tiers: tuple[TierPlan, ...]
    swaps: tuple[Swap, ...]
    starts: tuple[Start, ...]
    exact: bool = True
    notes: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON-ready values; MiB throughout."""
        return {
            "fits": True,
            "asked_probability": self.asked_probability,
            "probability": round(self.probability, 6),
            "exact": self.exact,
            "devices": [self._device(device) for device in self.devices],
            "tiers": [_tier(tier) for tier in self.tiers],
            "swaps": [_swap(swap) for swap in self.swaps],
            "starts": [
                {"tier": start.tier, "then_sleep": start.then_sleep, "why": start.why}
                for start in self.starts
            ],
            "notes": list(self.notes),
        }

    def _device(self, device: DevicePlan) -> dict[str, Any]:
        p = self.asked_probability
        return {
            "device": None if device.device == HOST else device.device,
            "name": device.name,
            "total_mib": round(device.total_mib, 1),
            "used_by_others_mib": round(device.used_mib, 1),
            "reserve_mib": round(device.reserve_mib, 1),
            "budget_mib": round(device.budget_mib, 1),
            "need_mib": round(device.need_mib, 1),
            "left_mib": round(device.left_mib, 1),
            "probability": round(device.probability, 6),
            "shares": [
                {
                    "tier": share.tier,
                    "mode": share.mode.value,
                    "components": {name: figures(part, p) for name, part in share.components.items()},
                    "total": figures(share.total, p),
                }
                for share in device.shares
            ],
        }


def figures(amount: Amount, probability: float) -> dict[str, float]:
    """Return mean, σ and quantile as JSON-ready values."""
    return {
        "mean_mib": round(amount.mean_mib, 1),
        "sigma_mib": round(amount.sigma_mib, 1),
        "at_probability_mib": round(amount.at(probability), 1),
    }


def _tier(tier: TierPlan) -> dict[str, Any]:
    return {
        "name": tier.name,
        "model": tier.model,
        "model_note": tier.model_note or None,
        "engine": tier.engine,
        "start": tier.start,
        "mode": tier.mode.value,
        "gpus": list(tier.gpus),
        "layout": tier.layout,
        "context_tokens": tier.context_tokens,
        "wanted_requests": tier.wanted,
        "requests": round(tier.requests, 2),
        "kv_tokens": tier.kv_tokens,
        "concurrency": [
            {"tokens": length, "requests": round(requests, 2)} for length, requests in tier.concurrency
        ],
        "arguments": list(tier.launch.arguments),
        "environment": dict(tier.launch.environment),
        "config": dict(tier.launch.keys),
        "notes": list(tier.notes),
    }


def _swap(swap: Swap) -> dict[str, Any]:
    return {
        "tier": swap.tier,
        "was": swap.was.value,
        "asleep": list(swap.asleep),
        "stopped": list(swap.stopped),
        "gpus": list(swap.gpus),
        "moved_mib": round(swap.moved_mib, 1),
        "need_mib": {
            ("host" if device == HOST else str(device)): round(mib, 1)
            for device, mib in swap.need_mib.items()
        },
        "probability": round(swap.probability, 6),
        "words": str(swap),
    }


def written(fit: Fit) -> Plan:
    """Return what was found as a plan."""
    return Plan(
        asked_probability=fit.book.probability,
        probability=fit.probability,
        devices=_devices(fit),
        tiers=tuple(_tier_plan(fit, place) for place in range(len(fit.seats))),
        swaps=tuple(_swap_plan(fit, place, state) for place, state in sorted(fit.swaps.items())),
        starts=_starts(fit),
        exact=fit.exact,
        notes=() if fit.exact else ("Not every placement was tried: there are too many of them.",),
    )


def _devices(fit: Fit) -> tuple[DevicePlan, ...]:
    load = load_of(fit.book, fit.seats, fit.home, fit.requests)
    found = []
    for device, limit in fit.book.limits.items():
        mean, variance = load.get(device, (0.0, 0.0))
        whole = Amount(mean, variance**0.5)
        found.append(
            DevicePlan(
                device,
                limit.name,
                limit.total_mib,
                limit.used_mib,
                limit.reserve_mib,
                limit.mib,
                tuple(_shares(fit, device)),
                whole.at(fit.book.probability),
                below(mean, variance, limit.mib),
            )
        )
    return tuple(found)


def _shares(fit: Fit, device: int) -> list[Share]:
    found = []
    for seat, mode, requests in zip(fit.seats, fit.home, fit.requests, strict=True):
        if mode is Mode.STOPPED or (device != HOST and device not in seat.gpus):
            continue
        made = fit.book.footprint(seat, requests)
        need = made.host if device == HOST else made.devices[seat.gpus.index(device)]
        if mode is Mode.AWAKE or device == HOST:
            parts = {part.value: need.of(part) for part in Component if need.of(part).mean_mib > 0}
        else:
            assert made.asleep is not None
            parts = {"asleep": made.asleep[seat.gpus.index(device)]}
        if mode is Mode.ASLEEP and device == HOST and made.asleep_host is not None:
            parts["asleep"] = made.asleep_host
        total = sum(parts.values(), Amount())
        if parts:
            found.append(Share(seat.ask.name, mode, parts, total))
    return found


def _tier_plan(fit: Fit, place: int) -> TierPlan:
    seat, requests = fit.seats[place], fit.requests[place]
    ask, book = seat.ask, fit.book
    lengths = [ask.context_tokens]
    while lengths[-1] // 2 >= _SHORTEST_TOKENS and len(lengths) < 6:
        lengths.append(lengths[-1] // 2)
    setup = book.at(seat, requests)
    return TierPlan(
        name=ask.name,
        model=ask.model or ask.shape.name,
        engine=ask.engine,
        start=ask.start,
        mode=fit.home[place],
        gpus=seat.gpus,
        layout=setup_words(setup, seat.gpus),
        context_tokens=ask.context_tokens,
        wanted=ask.concurrency,
        requests=book.held_requests(seat, requests),
        kv_tokens=book.tokens(seat, requests),
        concurrency=tuple((length, book.requests_of(seat, requests, length)) for length in lengths),
        launch=launch(fit, place),
        model_note=ask.model_note,
        notes=ask.shape.notes,
    )


def _swap_plan(fit: Fit, place: int, state: State) -> Swap:
    book, names = fit.book, [seat.ask.name for seat in fit.seats]
    load = load_of(book, fit.seats, state, fit.requests)
    leaving = [i for i, mode in enumerate(fit.home) if mode is Mode.AWAKE and state[i] is not Mode.AWAKE]
    seat = fit.seats[place]
    made = book.footprint(seat, 1.0)
    weights = [need.of(Component.WEIGHTS).mean_mib for need in made.devices or (made.host,)]
    return Swap(
        tier=seat.ask.name,
        was=fit.home[place],
        asleep=tuple(names[i] for i in leaving if state[i] is Mode.ASLEEP),
        stopped=tuple(names[i] for i in leaving if state[i] is Mode.STOPPED),
        gpus=seat.gpus,
        moved_mib=sum(weights),
        need_mib={
            device: Amount(mean, variance**0.5).at(book.probability)
            for device, (mean, variance) in load.items()
        },
        probability=likelihood(book, fit.seats, state, fit.requests),
    )


def _starts(fit: Fit) -> tuple[Start, ...]:
    """Return the order of starts: one at a time, as vLLM reads what is free while it starts.

    Those that start with the daemon come before those that wait for a thought. Of them sleepers come first,
    while the room they need awake is still empty; then the largest, into memory that nobody has broken up.
    """

    def order(i: int) -> tuple[bool, bool, float, str]:
        ask = fit.seats[i].ask
        return ask.start == "lazy", fit.home[i] is not Mode.ASLEEP, -ask.shape.weights_bytes, ask.name

    up = sorted((i for i in range(len(fit.seats)) if fit.home[i] is not Mode.STOPPED), key=order)
    steps: list[Start] = []
    before: TierAsk | None = None
    for i in up:
        ask, sleeps = fit.seats[i].ask, fit.home[i] is Mode.ASLEEP
        if sleeps and ask.start == "lazy":
            why = "lazy, so at the first thought, when others make room as in its swap; it sleeps afterwards"
        elif sleeps:
            why = "first, while the room that it needs awake is still empty; then it is put to sleep"
        else:
            why = _why_now(ask, before, alone=len(up) == 1)
        steps.append(Start(ask.name, sleeps, why))
        before = ask
    return tuple(steps)


def _why_now(ask: TierAsk, before: TierAsk | None, *, alone: bool) -> str:
    """Return why a tier that stays awake starts after ``before``."""
    if before is None:
        why = "alone" if alone else "the largest first, into memory that nobody has broken up"
    else:
        why = "once the one before is ready"
        if "vllm" in (ask.engine, before.engine):
            why += ": vLLM reads what is free while it starts"
    return f"{why}; lazy, so at the first thought, and its room is kept" if ask.start == "lazy" else why
