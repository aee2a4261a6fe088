"""What samples of a machine's speed come to: answers, with every figure in their details, and charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from subcortex.experiments.catalogue.common.figures import Median, median, written
from subcortex.experiments.catalogue.common.machine import (
    CPU,
    card_name,
    host_link_gb_per_s,
    host_link_name,
    host_link_words,
    link_name,
    memory_name,
    peer_gb_per_s,
)
from subcortex.experiments.experiment import Answer, Chart, Line, Report
from subcortex.experiments.laboratory.lab import Lab
from subcortex.experiments.laboratory.record import Reading, as_sample
from subcortex.experiments.scene import Scene
from subcortex.experiments.statistics import enough, kept
from subcortex.hardware import card_for

_PART_OF = {
    "gemm": "gemm",
    "memory copy": "memory",
    "memory read": "memory",
    "host to device": "host",
    "device to host": "host",
    "peer": "peer",
    "peer both ways": "peer",
}
#: Facts that tell one series from another.
_KEYS = ("dtype", "n", "device", "pinned", "pair")
#: What engines compute in, the usual one first.
_DTYPES = ("bfloat16", "float16", "float32", "float8")
#: Two cards of one model that differ by more are not alike.
_ALIKE = 0.05

Series = Mapping[tuple[str, tuple[Any, ...]], Sequence[Reading]]


def series_of(lab: Lab) -> dict[tuple[str, tuple[Any, ...]], list[Reading]]:
    """Return the samples of a run by metric and by what was measured."""
    found: dict[tuple[str, tuple[Any, ...]], list[Reading]] = {}
    for metric in _PART_OF:
        for one in lab.readings(metric):
            found.setdefault((metric, tuple(one.facts.get(key) for key in _KEYS)), []).append(one)
    return found


def wide(lab: Lab, parts: Sequence[str], fewest: int, most: int, target_width: float) -> list[str]:
    """Return the parts to be measured, in the order given.

    Those that lack samples, and those whose headline has a wide interval and may have more samples.
    """
    seen = series_of(lab)
    there = {_PART_OF[metric] for metric, _ in seen}
    lacking = {
        _PART_OF[key[0]]
        for key, samples in seen.items()
        if len(samples) < fewest
        or (_is_headline(key, seen) and len(samples) < most and not _narrow(samples, target_width))
    }
    return [part for part in parts if part not in there or part in lacking]


def _is_headline(key: tuple[str, tuple[Any, ...]], seen: Series) -> bool:
    """Return whether a series is what an answer's value comes from, or may come from."""
    metric, facts = key
    if metric != "gemm":
        return metric in ("memory copy", "peer") or (metric == "host to device" and facts[3])
    largest = max(keys[1] for name, keys in seen if name == "gemm" and keys[0] == facts[0])
    return bool(facts[0] in ("bfloat16", "float32") and facts[1] == largest)


def _narrow(samples: Sequence[Reading], target_width: float) -> bool:
    values = kept([as_sample(one) for one in samples]).values
    return enough(values, target_width, 1.0).reason == "narrow"


def report(lab: Lab, notes: Sequence[str]) -> Report:
    """Return what was found."""
    scene, found = lab.scene, _Figures(series_of(lab))
    answers: list[Answer] = []
    noticed = [*dict.fromkeys(notes)]
    for name, devices in _cards(scene).items():
        answers += [
            one
            for one in (_memory(scene, found, name, devices), _compute(scene, found, name, devices))
            if one
        ]
        noticed += _unlike(found, name, devices)
    if scene.on_gpus:
        answers += [one for one in (_host(scene, found), _peers(scene, found)) if one]
    throttled = {one.readings["throttled_for"] for one in found.all() if one.readings.get("throttled_for")}
    noticed += [f"Held back while measuring: {why}." for why in sorted(throttled)]
    return Report(tuple(answers), tuple(noticed), (), tuple(_charts(scene, found)))


class _Figures:
    """Medians of the samples kept, by metric and facts."""

    def __init__(self, series: Series) -> None:
        self._series = series

    def all(self) -> list[Reading]:
        return [one for samples in self._series.values() for one in samples]

    def values(self, metric: str, **facts: Any) -> list[float]:
        found: list[float] = []
        for (name, keys), samples in self._series.items():
            told = dict(zip(_KEYS, keys, strict=True))
            if name == metric and all(told[key] == value for key, value in facts.items()):
                found += kept([as_sample(one) for one in samples]).values
        return found

    def median(self, metric: str, **facts: Any) -> Median | None:
        return median(self.values(metric, **facts))

    def told(self, key: str, metric: str) -> list[Any]:
        place = _KEYS.index(key)
        return sorted({keys[place] for name, keys in self._series if name == metric})

    def gemm(self, dtype: str, device: int) -> dict[int, Median]:
        """Return TFLOP/s by size."""
        by_size = ((n, self.median("gemm", dtype=dtype, n=n, device=device)) for n in self.told("n", "gemm"))
        return {n: one for n, one in by_size if one is not None}


def _cards(scene: Scene) -> dict[str, list[int]]:
    """Return the devices by name, numbered as the probe numbers them."""
    if not scene.on_gpus:
        return {CPU: [0]}
    found: dict[str, list[int]] = {}
    for place, gpu in enumerate(scene.hardware.gpus):
        found.setdefault(card_name(gpu), []).append(place)
    return found


def _memory(scene: Scene, found: _Figures, name: str, devices: Sequence[int]) -> Answer | None:
    copy = median([value for device in devices for value in found.values("memory copy", device=device)])
    if copy is None:
        return None
    read = median([value for device in devices for value in found.values("memory read", device=device)])
    details: dict[str, Any] = {"copy_gb_per_s": copy.value, "devices": _indices(scene, devices)}
    words = f"{name}: memory copies at {copy.said('GB/s')}, read and written bytes counted"
    if read is not None:
        details["read_gb_per_s"] = read.value
        words += f", and is read at {read.said('GB/s')}"
    if scene.on_gpus:
        gpu = scene.hardware.gpus[devices[0]]
        if card := card_for(gpu.name, gpu.memory_total_mib):
            details["nominal_gb_per_s"] = card.memory_gb_per_s
            share = 100 * copy.value / card.memory_gb_per_s
            words += f"; {written(share)} % of the {written(card.memory_gb_per_s)} GB/s of its data sheet"
    return _answer("bandwidth", memory_name(name), "GB/s", copy, f"{words}.", "memory copy", details)


def _compute(scene: Scene, found: _Figures, name: str, devices: Sequence[int]) -> Answer | None:
    table = {dtype: sizes for dtype in _DTYPES if (sizes := found.gemm(dtype, devices[0]))}
    if not table:
        return None
    best = {dtype: max(sizes, key=lambda n: sizes[n].value) for dtype, sizes in table.items()}
    # The first that it computes in reasonably: CPUs without the instructions crawl in 16 bits.
    fastest = max(table[dtype][best[dtype]].value for dtype in table)
    dtype = next(one for one in _DTYPES if one in table and table[one][best[one]].value >= fastest / 8)
    at = table[dtype][best[dtype]]
    details: dict[str, Any] = {
        "dtype": dtype,
        "n": best[dtype],
        "tflops": {one: {str(n): sizes[n].value for n in sizes} for one, sizes in table.items()},
        "best_tflops": {one: table[one][n].value for one, n in best.items()},
    }
    words = f"{name}: {dtype} matrix products of {best[dtype]} run at {at.said('TFLOP/s')}"
    others = [f"{one} {written(table[one][n].value)}" for one, n in best.items() if one != dtype]
    words += f"; at best {', '.join(others)}" if others else ""
    if scene.on_gpus:
        gpu = scene.hardware.gpus[devices[0]]
        card = card_for(gpu.name, gpu.memory_total_mib)
        if card is not None and card.tflops is not None:
            details["nominal_tflops"] = card.tflops
            share = 100 * at.value / card.tflops
            words += f"; {written(share)} % of the {written(card.tflops)} TFLOP/s of its data sheet"
    about = f"{dtype} matrix products on {name}"
    return _answer("compute", about, "TFLOP/s", at, f"{words}.", "gemm", details)


def _host(scene: Scene, found: _Figures) -> Answer | None:
    up = found.median("host to device", pinned=True)
    if up is None:
        return None
    gpu = scene.hardware.gpus[0]
    rows = {
        f"{metric.replace(' ', '_')}_{'pinned' if pinned else 'pageable'}_gb_per_s": one.value
        for metric in ("host to device", "device to host")
        for pinned in (True, False)
        if (one := found.median(metric, pinned=pinned)) is not None
    }
    down = rows.get("device_to_host_pinned_gb_per_s")
    paged = rows.get("host_to_device_pageable_gb_per_s")
    words = f"Host to GPU over {host_link_words(gpu)}: {up.said('GB/s')} from pinned memory"
    words += f", {written(paged)} from pageable" if paged is not None else ""
    words += f"; back {written(down)} GB/s" if down is not None else ""
    details = {**rows, "nominal_gb_per_s": host_link_gb_per_s(gpu)}
    return _answer("bandwidth", host_link_name(gpu), "GB/s", up, f"{words}.", "host to device", details)


def _peers(scene: Scene, found: _Figures) -> Answer | None:
    ways = {pair: one for pair in found.told("pair", "peer") if (one := found.median("peer", pair=pair))}
    if not ways:
        return None
    indices = [gpu.index for gpu in scene.hardware.gpus]
    rows = []
    for pair, one in ways.items():
        a, b = (indices[int(place)] for place in pair.split("-"))
        rows.append({"a": a, "b": b, "gb_per_s": one.value, "low": one.low, "high": one.high})
    slowest = min(ways, key=lambda pair: ways[pair].value)
    a, b = (indices[int(place)] for place in slowest.split("-"))
    link, nominal = link_name(scene, a, b), peer_gb_per_s(scene, a, b)
    details: dict[str, Any] = {
        "pairs": rows,
        "peer_gb_per_s": {f"{row['a']}-{row['b']}": row["gb_per_s"] for row in rows},
        "nominal_gb_per_s": nominal,
    }
    words = f"GPU {a} to GPU {b} over {link}: {ways[slowest].said('GB/s')} one way"
    both = [
        one
        for pair in found.told("pair", "peer both ways")
        if (one := found.median("peer both ways", pair=pair))
    ]
    if both:
        least = min(both, key=lambda one: one.value)
        details["both_ways_gb_per_s"] = least.value
        words += f", {written(least.value)} GB/s both ways together"
    if len(rows) > 2:
        words += f"; the slowest of {len(rows)} ways"
    return _answer("bandwidth", link, "GB/s", ways[slowest], f"{words}.", "peer", details)


def _unlike(found: _Figures, name: str, devices: Sequence[int]) -> list[str]:
    """Say where cards of one model are not alike."""
    medians = {device: one for device in devices if (one := found.median("memory copy", device=device))}
    if len(medians) < 2:
        return []
    slow, fast = (pick(medians, key=lambda device: medians[device].value) for pick in (min, max))
    if medians[slow].value >= (1 - _ALIKE) * medians[fast].value:
        return []
    return [
        f"The {name}s are not alike: memory copies at {written(medians[slow].value)} GB/s on the slowest "
        f"and at {written(medians[fast].value)} GB/s on the fastest."
    ]


def _indices(scene: Scene, devices: Sequence[int]) -> list[int]:
    return [scene.hardware.gpus[device].index for device in devices] if scene.on_gpus else []


def _answer(
    quantity: str, about: str, unit: str, found: Median, words: str, series: str, details: Mapping[str, Any]
) -> Answer:
    return Answer(
        quantity=quantity,
        about=about,
        unit=unit,
        outcome="measured",
        statement=words,
        value=found.value,
        low=found.low,
        high=found.high,
        n=found.n,
        series=series,
        details=details,
    )


def _charts(scene: Scene, found: _Figures) -> list[Chart]:
    table = {dtype: sizes for dtype in _DTYPES if (sizes := found.gemm(dtype, 0))}
    if not table:
        return []
    name = card_name(scene.hardware.gpus[0]) if scene.on_gpus else CPU
    bars = tuple(
        (float(place), max(one.value for one in sizes.values())) for place, sizes in enumerate(table.values())
    )
    return [
        Chart(
            title=f"Matrix products on {name}, best size",
            x_label="dtype",
            y_label="TFLOP/s",
            lines=(Line("GEMM", bars),),
            kind="bars",
            categories=tuple(table),
        ),
        Chart(
            title=f"Matrix products on {name} by size",
            x_label="n of n x n",
            y_label="TFLOP/s",
            lines=tuple(
                Line(dtype, tuple((float(n), one.value) for n, one in sorted(sizes.items())))
                for dtype, sizes in table.items()
            ),
            log_x=True,
        ),
    ]
