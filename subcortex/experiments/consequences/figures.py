"""What plans and routes take from measured facts: figures of tiers, and of the links between GPUs. Pure.

A fact of a measurement counts here if it has not expired, told something (was not inconclusive) and, of a
tier, was measured with the model that the tier has now. Of several of one figure the latest counts. They are
read from a fact's own quantity (``ttft``, ``tpot``, ``load_time``, ``restart_time``, ``stop_time``) and from
its ``details`` by these names, seconds unless the name says otherwise:

* of a tier: ``ttft_s``, ``tpot_s``, ``load_s``, ``restart_s``, ``cold_start_s``, ``stop_s``,
  ``sleep_1_first_s``, ``sleep_1_s``, ``sleep_2_s``, ``wake_1_s``, ``wake_2_s``, ``knee`` (requests);
* of the machine: ``pairs``, a list of ``{"a": 0, "b": 1, "gb_per_s": 25.1}``, one direction each, and
  ``all_reduce``, ``{"gpus": [0, 1], "latency_s": 2e-5}`` of a few KiB, or a list of such.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from subcortex.config import Config, Tier
from subcortex.hardware import GpuPair, Hardware
from subcortex.hardware.links import ASSUMED_CODE
from subcortex.journal.board import comparable, in_base
from subcortex.journal.diary.board_records import FactRecord

_SILENT = frozenset({"inconclusive", "failed"})
#: Quantity of a fact → the figure that it is.
_QUANTITIES = {
    "ttft": "ttft_s",
    "tpot": "tpot_s",
    "load_time": "load_s",
    "restart_time": "restart_s",
    "start_time": "cold_start_s",
    "stop_time": "stop_s",
}
_NAMES = frozenset(
    {
        *("ttft_s", "tpot_s", "load_s", "restart_s", "cold_start_s", "stop_s", "knee"),
        *("sleep_1_first_s", "sleep_1_s", "sleep_2_first_s", "sleep_2_s", "wake_1_s", "wake_2_s"),
    }
)


@dataclass(frozen=True, slots=True)
class TierFigures:
    """What was measured of a tier, by the names of the module, and how many samples are behind each."""

    values: Mapping[str, float] = field(default_factory=dict)
    n: Mapping[str, int] = field(default_factory=dict)

    @property
    def start_s(self) -> float | None:
        """From stopped to ready: with warm caches if that was measured, since they are warm mostly."""
        return self.values.get(self._start)

    @property
    def start_n(self) -> int:
        """Samples behind that; 0 where it was not measured."""
        return self.n.get(self._start, 0)

    @property
    def _start(self) -> str:
        return next((name for name in ("restart_s", "load_s", "cold_start_s") if name in self.values), "")

    def get(self, name: str) -> float | None:
        """Return a figure by its name; None where nobody measured it."""
        return self.values.get(name)


@dataclass(frozen=True, slots=True)
class LinkFigures:
    """What was measured between two GPUs; ``gb_per_s`` of the slower direction, 10^9 bytes/s."""

    gb_per_s: float | None = None
    latency_s: float | None = None


def tier_figures(facts: Iterable[FactRecord], config: Config) -> dict[str, TierFigures]:
    """Return what was measured of each tier of a configuration that anything was measured of.

    Args:
        facts: Of measurements, the newest first.
        config: Whose tiers.
    """
    tiers = {tier.name: tier for tier in config.tiers}
    values: dict[str, dict[str, float]] = {}
    counts: dict[str, dict[str, int]] = {}
    for fact in facts:
        tier = tiers.get(str(fact.provenance.get("tier")))
        if tier is None or not _counts(fact) or not _same_model(fact, tier, config):
            continue
        own, n = values.setdefault(tier.name, {}), counts.setdefault(tier.name, {})
        for name, value in _figures(fact).items():
            if name not in own:
                own[name] = value
                n[name] = fact.n or 1
    return {name: TierFigures(own, counts[name]) for name, own in values.items() if own}


def link_figures(facts: Iterable[FactRecord], hardware: Hardware) -> dict[tuple[int, int], LinkFigures]:
    """Return what was measured between each two GPUs, the smaller index first.

    An all-reduce over more than two GPUs says what each two of them take part in, so it counts for them all
    where they were not measured by themselves.

    Args:
        facts: Of measurements, the newest first; those of other cards than the machine's are left out.
        hardware: The machine.
    """
    speeds: dict[tuple[int, int], float] = {}
    latencies: dict[tuple[int, int], tuple[int, float]] = {}
    for fact in facts:
        if not _counts(fact) or not _same_cards(fact, hardware):
            continue
        details = _details(fact)
        seen: dict[tuple[int, int], float] = {}
        for row in _rows(details.get("pairs")):
            pair, speed = _pair(row.get("a"), row.get("b")), _positive(row.get("gb_per_s"))
            if pair and speed:
                seen[pair] = min(speed, seen.get(pair, speed))
        speeds = {**seen, **speeds}
        for row in _rows(details.get("all_reduce")):
            gpus, latency_s = _indices(row.get("gpus")), _positive(row.get("latency_s"))
            if latency_s is None:
                continue
            for pair in ((a, b) for a in gpus for b in gpus if a < b):
                if pair not in latencies or latencies[pair][0] > len(gpus):
                    latencies[pair] = len(gpus), latency_s
    return {
        pair: LinkFigures(speeds.get(pair), latencies[pair][1] if pair in latencies else None)
        for pair in sorted({*speeds, *latencies})
    }


def with_measured(hardware: Hardware, figures: Mapping[tuple[int, int], LinkFigures]) -> Hardware:
    """Return a machine with what was measured between its GPUs; pairs that it has not are left out."""
    here = {gpu.index for gpu in hardware.gpus}
    pairs = {(pair.a, pair.b): pair for pair in hardware.links}
    for (a, b), found in figures.items():
        if {a, b} <= here:
            pair = pairs.get((a, b)) or GpuPair(a=a, b=b, code=ASSUMED_CODE)
            told = {
                "measured_gb_per_s": found.gb_per_s or pair.measured_gb_per_s,
                "measured_latency_s": found.latency_s or pair.measured_latency_s,
            }
            pairs[a, b] = pair.model_copy(update=told)
    return hardware.model_copy(update={"links": tuple(pairs[pair] for pair in sorted(pairs))})


def _counts(fact: FactRecord) -> bool:
    told = fact.provenance.get("outcome") not in _SILENT
    return fact.source == "measurement" and fact.expired_at is None and told


def _same_model(fact: FactRecord, tier: Tier, config: Config) -> bool:
    certificate = fact.provenance.get("certificate")
    model = certificate.get("model") if isinstance(certificate, Mapping) else None
    if not isinstance(model, Mapping):
        return True
    if "path" in model:
        return bool(model["path"] == str(config.resolve(tier.model)))
    return bool(model.get("name", tier.model) == tier.model)


def _same_cards(fact: FactRecord, hardware: Hardware) -> bool:
    certificate = fact.provenance.get("certificate")
    cards = _rows(certificate.get("gpus")) if isinstance(certificate, Mapping) else ()
    here = {gpu.index: gpu.uuid for gpu in hardware.gpus}
    return all(here.get(card.get("index", -1), "") == card.get("uuid") for card in cards)


def _figures(fact: FactRecord) -> dict[str, float]:
    details = _details(fact)
    found = {name: value for name in _NAMES if (value := _positive(details.get(name))) is not None}
    name = _QUANTITIES.get(fact.quantity)
    # Under load a token takes longer for being one of many: that is no cost of the tier.
    alone = details.get("concurrency", 1) == 1
    if name and alone and fact.value is not None and comparable(fact.unit, "s"):
        found[name] = in_base(fact.value, fact.unit) / in_base(1.0, "s")
    return found


def _details(fact: FactRecord) -> Mapping[str, Any]:
    details = fact.provenance.get("details")
    return details if isinstance(details, Mapping) else {}


def _rows(value: Any) -> Sequence[Mapping[str, Any]]:
    rows = value if isinstance(value, list | tuple) else [value]
    return [row for row in rows if isinstance(row, Mapping)]


def _pair(a: Any, b: Any) -> tuple[int, int] | None:
    found = _indices([a, b])
    return (found[0], found[1]) if len(found) == 2 else None


def _indices(value: Any) -> list[int]:
    if not isinstance(value, list | tuple):
        return []
    return sorted({one for one in value if isinstance(one, int) and not isinstance(one, bool) and one >= 0})


def _positive(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or value <= 0:
        return None
    return float(value)
