"""What samples of collectives come to: bandwidths, latency, and what the direct path is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from subcortex.experiments.catalogue.common.figures import Median, median, written
from subcortex.experiments.experiment import Answer, Chart, Line, Outcome, Report
from subcortex.experiments.laboratory.lab import Lab
from subcortex.experiments.laboratory.record import as_sample
from subcortex.experiments.statistics import enough, kept, paired, verdict

OPERATIONS = ("all_reduce", "all_gather", "reduce_scatter", "broadcast")
#: Of an interval, as a share of its median: processes on a CPU wait for each other's turn.
_TARGET_WIDTH, _CPU_TARGET_WIDTH = 0.10, 0.30
#: Arms whose medians differ by less serve alike.
_WITHIN = 0.05
_WORDS = {
    "all_reduce": "all-reduce",
    "all_gather": "all-gather",
    "reduce_scatter": "reduce-scatter",
    "broadcast": "broadcast",
}


def bus_factor(operation: str, ranks: int) -> float:
    """Return bus over algorithm bandwidth (nccl-tests, PERFORMANCE.md): what a rank's link carries."""
    if operation == "all_reduce":
        return 2 * (ranks - 1) / ranks
    return 1.0 if operation == "broadcast" else (ranks - 1) / ranks


def gb_per_s(size: float, us: float) -> float:
    """Return bytes in microseconds as 10^9 bytes/s."""
    return size / us / 1e3


def whole_blocks(lab: Lab) -> int:
    """Return how many blocks are done from the first on, in this life and earlier ones."""
    done = {one.block for one in lab.readings("block done", how="eager")}
    return next(block for block in range(len(done) + 1) if block not in done)


def narrow(lab: Lab, sizes: Sequence[int]) -> bool:
    """Return whether the all-reduce's ends, the shortest and the longest, are known well enough."""
    target = _TARGET_WIDTH if lab.scene.on_gpus else _CPU_TARGET_WIDTH
    return all(
        enough(_values(lab, "all_reduce", size, "as_found", "eager"), target, 1.0).reason == "narrow"
        for size in (min(sizes), max(sizes))
    )


def _values(lab: Lab, operation: str, size: int, arm: str, how: str) -> list[float]:
    return list(kept(lab.samples(operation, arm=arm, bytes=size, how=how)).values)


def report(lab: Lab, about: str, ranks: int, sizes: Sequence[int], problems: Sequence[str]) -> Report:
    """Return what was found.

    Args:
        lab: With its samples.
        about: What they went over.
        ranks: How many took part.
        sizes: Bytes, of the whole vector.
        problems: What broke.
    """
    figures = _Figures(lab, ranks, sorted(sizes))
    wrong = [one for one in lab.readings("wrong") if one.value > 0]
    noticed = [f"Not all was measured: {problem}." for problem in dict.fromkeys(problems)]
    noticed += [
        f"{_WORDS[str(one.facts['check'])]} of {one.facts['bytes']} bytes ({one.arm}): "
        f"{one.value:.0f} elements came out wrong."
        for one in wrong
    ]
    answers = [_wrong(about, len(wrong), len(lab.readings("wrong")))] if wrong else []
    answers += [
        one
        for one in (
            figures.bandwidth(about, bus=True),
            figures.bandwidth(about, bus=False),
            figures.latency(about),
            _direct_path(lab, about, max(sizes)),
        )
        if one is not None
    ]
    if not answers:
        outcome: Outcome = "failed" if problems else "inconclusive"
        words = problems[0] if problems else "inconclusive; time was over before one had been timed"
        answers = [
            Answer("bus_bandwidth", about, "GB/s", outcome, f"No collective ran between {ranks}: {words}")
        ]
    return Report(tuple(answers), tuple(noticed), (), tuple(figures.charts(about)))


def _wrong(about: str, wrong: int, checked: int) -> Answer:
    return Answer(
        quantity="share",
        about=f"collectives over {about}",
        unit="%",
        outcome="failed",
        statement=f"{wrong} of {checked} collectives over {about} gave wrong results: "
        "its speed is worth nothing, and engines that use it answer nonsense.",
        value=100.0 * (checked - wrong) / checked,
        n=checked,
        series="wrong",
    )


class _Figures:
    """Medians of one run."""

    def __init__(self, lab: Lab, ranks: int, sizes: Sequence[int]) -> None:
        self._lab, self._ranks, self._sizes = lab, ranks, sizes
        self._on_gpus = lab.scene.on_gpus

    def us(self, operation: str, size: int, arm: str = "as_found", how: str = "eager") -> Median | None:
        return median(_values(self._lab, operation, size, arm, how))

    def table(self, arm: str) -> dict[str, dict[str, dict[str, float]]]:
        """Return µs, algorithm and bus bandwidth by operation and size."""
        found: dict[str, dict[str, dict[str, float]]] = {}
        for operation in OPERATIONS:
            for size in self._sizes:
                us = self.us(operation, size, arm)
                if us is not None:
                    algorithm = gb_per_s(size, us.value)
                    found.setdefault(operation, {})[str(size)] = {
                        "us": us.value,
                        "algbw_gb_per_s": algorithm,
                        "busbw_gb_per_s": algorithm * bus_factor(operation, self._ranks),
                    }
        return found

    def bandwidth(self, about: str, *, bus: bool) -> Answer | None:
        size = self._sizes[-1]
        us = self.us("all_reduce", size)
        one = bus_factor("all_reduce", self._ranks) == 1
        # Between two ranks both are the same figure, which is told once.
        if us is None or (one and not bus):
            return None
        factor = bus_factor("all_reduce", self._ranks) if bus else 1.0
        # A rate's interval is the time's, turned round.
        rate = Median(
            gb_per_s(size, us.value) * factor,
            None if us.high is None else gb_per_s(size, us.high) * factor,
            None if not us.low else gb_per_s(size, us.low) * factor,
            us.n,
        )
        kind = "bus" if bus else "algorithm"
        words = "bus bandwidth (between two, algorithm bandwidth too)" if one else f"{kind} bandwidth"
        details: dict[str, Any] = {"ranks": self._ranks, "bytes": size, "us": us.value}
        if bus:
            arms = {one.arm for one in self._lab.readings("all_reduce")}
            details["by_size"] = {arm: self.table(arm) for arm in sorted(arms)}
        return Answer(
            quantity=f"{kind}_bandwidth",
            about=about,
            unit="GB/s",
            outcome="measured",
            statement=f"All-reduce of {size // 2**20} MiB between {self._ranks} over {about}: "
            f"{rate.said('GB/s')} {words}, {written(us.value)} µs.",
            value=rate.value,
            low=rate.low,
            high=rate.high,
            n=rate.n,
            series="all_reduce",
            details=details,
        )

    def latency(self, about: str) -> Answer | None:
        size = self._sizes[0]
        eager, graph = self.us("all_reduce", size), self.us("all_reduce", size, how="graph")
        # Engines decode from graphs, where calling costs nothing.
        us = graph or eager
        if us is None:
            return None
        details: dict[str, Any] = {"bytes": size, "ranks": self._ranks, "latency_us": us.value}
        if self._on_gpus:
            gpus = [gpu.index for gpu in self._lab.scene.hardware.gpus]
            details["all_reduce"] = {"gpus": gpus, "latency_s": us.value / 1e6}
        words = f"All-reduce of {size // 2**10} KiB between {self._ranks} over {about}: {us.said('µs')}"
        if graph is not None and eager is not None:
            details |= {"graph_us": graph.value, "eager_us": eager.value}
            words += f" from a CUDA graph, {written(eager.value)} µs called from Python"
        host = self.us("all_reduce", size, "no_peer", "graph" if graph else "eager")
        if host is not None:
            details["no_peer_us"] = host.value
            words += f"; {written(host.value)} µs without the direct path"
        return Answer(
            quantity="latency",
            about=about,
            unit="µs",
            outcome="measured",
            statement=f"{words}.",
            value=us.value,
            low=us.low,
            high=us.high,
            n=us.n,
            series="all_reduce",
            details=details,
        )

    def charts(self, about: str) -> list[Chart]:
        lines = []
        for arm in sorted({one.arm for one in self._lab.readings("all_reduce")}):
            for operation, sizes in self.table(arm).items():
                if arm == "as_found" or operation == "all_reduce":
                    label = _WORDS[operation] + ("" if arm == "as_found" else f", {arm.replace('_', ' ')}")
                    points = tuple((float(size), row["busbw_gb_per_s"]) for size, row in sizes.items())
                    lines.append(Line(label, points))
        if not lines:
            return []
        title = f"Collectives between {self._ranks} over {about}"
        return [Chart(title, "bytes", "bus bandwidth, GB/s", tuple(lines), log_x=True, log_y=True)]


def _direct_path(lab: Lab, about: str, size: int) -> Answer | None:
    """Compare with the arm whose ranks may not reach each other's memory."""
    samples = [
        as_sample(one)
        for one in lab.readings("all_reduce", bytes=size, how="eager")
        if one.arm in ("as_found", "no_peer")
    ]
    pairs = paired(samples, "as_found", "no_peer")
    if len(pairs.a) < 2:
        return None
    found = verdict(pairs.a, pairs.b, within=_WITHIN, as_ratio=True)
    words = {
        "different": f"takes {written(found.estimate)} times as long without the direct path between GPUs",
        "alike": "takes as long without the direct path between GPUs",
        "inconclusive": "may or may not take longer without the direct path between GPUs",
    }[found.kind]
    low, high = found.interval.low, found.interval.high
    return Answer(
        quantity="speed_ratio",
        about=about,
        unit="x",
        outcome=found.kind,
        statement=f"All-reduce of {size // 2**20} MiB {words} "
        f"({written(low)} to {written(high)} times, n = {found.n} blocks).",
        value=found.estimate,
        low=low,
        high=high,
        n=found.n,
        level=found.interval.level,
        series="all_reduce",
        n_needed=found.n_needed,
        details={"arms": ["as_found", "no_peer"], "bytes": size},
    )
