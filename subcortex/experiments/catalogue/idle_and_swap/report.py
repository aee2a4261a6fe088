"""What the samples of ``idle_and_swap`` come to, in words and figures. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from subcortex.experiments.catalogue.common.figures import Median, median, written
from subcortex.experiments.catalogue.common.tiers import LocalTier, about
from subcortex.experiments.experiment import Answer, Chart, Line, Report
from subcortex.experiments.laboratory.record import Reading

_STATES = (("idle", "ready"), ("sleep_1", "asleep, 1"), ("sleep_2", "asleep, 2"), ("stopped", "stopped"))
_LEVELS = (("sleep_1", "1"), ("sleep_2", "2"))
METRICS = (
    "held",
    "start",
    "start to first token",
    "ttft",
    "stop",
    "sleep",
    "wake",
    "wake to first token",
    "canary",
)
#: A first sleep this many times a later one is worth a word.
_MUCH = 2.0


@dataclass(frozen=True, slots=True)
class Found:
    """The samples of one tier, by metric and arm."""

    readings: Sequence[Reading]

    def of(self, metric: str, arm: str | None = None) -> Median | None:
        """Return the median of a metric in an arm, None without samples."""
        return median([one.value for one in self._chosen(metric, arm)])

    def fact(self, state: str, name: str) -> Any:
        """Return what is beside the last sample of memory in a state."""
        found = self._chosen("held", state)
        return found[-1].facts.get(name) if found else None

    def _chosen(self, metric: str, arm: str | None) -> list[Reading]:
        return [one for one in self.readings if one.metric == metric and arm in (None, one.arm)]


def report(
    readings: Sequence[Reading], tier: LocalTier, *, on_gpus: bool, noticed: Sequence[str] = ()
) -> Report:
    """Return the report on one tier.

    Args:
        readings: All samples of the run.
        tier: As configured.
        on_gpus: Memory is that of the cards; else of the host.
        noticed: What the run itself had to say.
    """
    found = Found(readings)
    details = _details(found)
    answers = [
        *_held(found, tier, details, on_gpus=on_gpus),
        *_times(found, tier, details),
        *_sound(found, tier),
    ]
    return Report(
        answers=tuple(answers),
        noticed=(*noticed, *_noticed(found, tier)),
        gaps=_gaps(found, tier),
        charts=tuple(_charts(found, tier, on_gpus=on_gpus)),
    )


def _details(found: Found) -> dict[str, Any]:
    """Return all figures by the names that the router and the fleet look for."""
    medians: dict[str, Median | None] = {
        "idle_mib": found.of("held", "idle"),
        "stopped_mib": found.of("held", "stopped"),
        "cold_start_s": found.of("start", "cold"),
        "restart_s": found.of("start", "warm"),
        "cold_start_ttft_s": found.of("start to first token", "cold"),
        "restart_ttft_s": found.of("start to first token", "warm"),
        "stop_s": found.of("stop"),
        "ttft_s": found.of("ttft", "awake"),
    }
    for arm, level in _LEVELS:
        medians |= {
            f"asleep_{level}_mib": found.of("held", arm),
            f"sleep_{level}_first_s": found.of("sleep", f"{arm} first"),
            f"sleep_{level}_s": found.of("sleep", arm),
            f"wake_{level}_s": found.of("wake", arm),
            f"wake_{level}_ttft_s": found.of("wake to first token", arm),
        }
    details: dict[str, Any] = {name: one.value for name, one in medians.items() if one is not None}
    for state, name in (("idle", "idle"), ("sleep_1", "asleep_1"), ("sleep_2", "asleep_2")):
        for fact, suffix in (("gpus_mib", "mib_a_gpu"), ("host_mib", "host_mib")):
            value = found.fact(state, fact)
            if value:
                details[f"{name}_{suffix}"] = value
    return details


def _held(found: Found, tier: LocalTier, details: Mapping[str, Any], *, on_gpus: bool) -> list[Answer]:
    idle = found.of("held", "idle")
    if idle is None:
        return []
    where = "of its GPUs' memory" if on_gpus else "of host memory"
    model = about(tier)
    stopped = found.of("held", "stopped")
    words = f"{model}, idle and ready, holds {idle.said('MiB')} {where}"
    if on_gpus and len(details.get("idle_mib_a_gpu", ())) > 1:
        words += f", {' and '.join(written(one) for one in details['idle_mib_a_gpu'])} MiB a GPU"
    words += f"; stopped it leaves {written(stopped.value)} MiB behind." if stopped else "."
    answers = [
        Answer(
            quantity="vram" if on_gpus else "ram",
            about=model,
            unit="MiB",
            outcome="measured",
            statement=words,
            value=idle.value,
            low=idle.low,
            high=idle.high,
            n=idle.n,
            series="held",
            tier=tier.name,
            gap_kind="idle_memory",
            details=details,
        )
    ]
    for arm, level in _LEVELS:
        asleep = found.of("held", arm)
        if asleep is None:
            continue
        host = details.get(f"asleep_{level}_host_mib")
        beside = f", and {written(host)} MiB of host memory" if host and on_gpus else ""
        share = f", {asleep.value / idle.value:.1%} of what it holds awake" if idle.value else ""
        answers.append(
            Answer(
                quantity="asleep_memory",
                about=model,
                unit="MiB",
                outcome="measured",
                statement=(
                    f"Asleep at level {level}, {model} keeps {asleep.said('MiB')} {where}{beside}{share}."
                ),
                value=asleep.value,
                low=asleep.low,
                high=asleep.high,
                n=asleep.n,
                series="held",
                tier=tier.name,
                gap_kind="idle_memory",
                details={"level": int(level)},
            )
        )
    return answers


def _times(found: Found, tier: LocalTier, details: Mapping[str, Any]) -> list[Answer]:
    model = about(tier)
    rows: list[tuple[str, Median | None, str, str]] = []
    for arm, level in _LEVELS:
        later, first = found.of("sleep", arm), found.of("sleep", f"{arm} first")
        before = f"; the first sleep of a process takes {first.said('s')}" if first and later else ""
        rows += [
            (
                "sleep_time",
                later or first,
                f"Going to sleep at level {level} takes {model} {{}}{before}.",
                "sleep",
            ),
            (
                "wake_time",
                found.of("wake to first token", arm),
                f"Waking from level {level}, {model} gives its first token after {{}}.",
                "wake to first token",
            ),
        ]
    rows += [
        ("start_time", found.of("start", "cold"), f"A cold start of {model} takes {{}}.", "start"),
        (
            "restart_time",
            found.of("start", "warm"),
            f"A start of {model} with warm caches takes {{}}.",
            "start",
        ),
        ("stop_time", found.of("stop"), f"Stopping {model} until nothing of it is left takes {{}}.", "stop"),
    ]
    answers = [
        Answer(
            quantity=quantity,
            about=model,
            unit="s",
            outcome="measured",
            statement=words.format(one.said("s")),
            value=one.value,
            low=one.low,
            high=one.high,
            n=one.n,
            series=series,
            tier=tier.name,
            gap_kind="swap_cost",
            details=details if quantity == "restart_time" else {},
        )
        for quantity, one, words, series in rows
        if one is not None
    ]
    return [*answers, *_swaps(tier, details)]


def _swaps(tier: LocalTier, details: Mapping[str, Any]) -> list[Answer]:
    """Return what it costs to go away and come back, by the cheapest way that was measured."""
    ways = {
        f"asleep at level {level}": details[f"sleep_{level}_s"] + details[f"wake_{level}_ttft_s"]
        for _, level in _LEVELS
        if f"sleep_{level}_s" in details and f"wake_{level}_ttft_s" in details
    }
    again = details.get("restart_ttft_s", details.get("cold_start_ttft_s"))
    if again is not None and "stop_s" in details:
        ways["stopped"] = details["stop_s"] + again
    if not ways:
        return []
    best = min(ways, key=lambda way: ways[way])
    rest = ", ".join(f"{written(s)} s {way}" for way, s in ways.items() if way != best)
    return [
        Answer(
            quantity="swap_time",
            about=about(tier),
            unit="s",
            outcome="measured",
            statement=(
                f"For {about(tier)} to leave and to say its first token again takes {written(ways[best])} s "
                f"if it is {best} meanwhile{f', against {rest}' if rest else ''}."
            ),
            value=ways[best],
            n=1,
            tier=tier.name,
            gap_kind="swap_cost",
            details={"ways": ways},
        )
    ]


def _sound(found: Found, tier: LocalTier) -> list[Answer]:
    """Return whether it was itself after its wakes."""
    seen = [one for one in found.readings if one.metric == "canary"]
    if not seen:
        return []
    same = [one for one in seen if one.value]
    wrong = [f" ({one.facts.get('differs')})" for one in seen if not one.value]
    return [
        Answer(
            quantity="sound_wakes",
            about=about(tier),
            unit=None,
            outcome="failed" if wrong else "passed",
            statement=(
                f"After {len(same)} of {len(seen)} wakes {about(tier)} said to a fixed prompt what it had "
                f"said before{wrong[0] if wrong else ''}."
            ),
            n=len(seen),
            series="canary",
            tier=tier.name,
            gap_kind="swap_cost",
        )
    ]


def _noticed(found: Found, tier: LocalTier) -> list[str]:
    words = []
    for arm, level in _LEVELS:
        first, later = found.of("sleep", f"{arm} first"), found.of("sleep", arm)
        if first and later and later.value and first.value > _MUCH * later.value:
            words.append(
                f"The first sleep of {about(tier)} at level {level} took {written(first.value)} s, "
                f"{first.value / later.value:.1f} times a later one ({written(later.value)} s)."
            )
    cold, warm = found.of("start", "cold"), found.of("start", "warm")
    if cold and warm and warm.value:
        words.append(
            f"A cold start of {about(tier)} took {cold.value / warm.value:.2f} times a warm one "
            f"({written(cold.value)} s and {written(warm.value)} s)."
        )
    if found.fact("idle", "host_as") == "RSS":
        words.append("Host memory is RSS: this kernel does not tell shared pages apart.")
    return words


def _gaps(found: Found, tier: LocalTier) -> tuple[str, ...]:
    if found.of("held", "sleep_1") and not found.of("wake", "sleep_2"):
        return (f"What does waking {about(tier)} from level 2 cost with weights that can be read again?",)
    return ()


def _charts(found: Found, tier: LocalTier, *, on_gpus: bool) -> list[Chart]:
    held = [(name, one.value) for state, name in _STATES if (one := found.of("held", state))]
    rows = [
        ("cold start", found.of("start", "cold")),
        ("warm start", found.of("start", "warm")),
        ("stop", found.of("stop")),
        *((f"first sleep, {level}", found.of("sleep", f"{arm} first")) for arm, level in _LEVELS),
        *((f"sleep, {level}", found.of("sleep", arm)) for arm, level in _LEVELS),
        *((f"wake, {level}", found.of("wake", arm)) for arm, level in _LEVELS),
    ]
    times = [(name, one.value) for name, one in rows if one is not None]
    what = "GPU memory" if on_gpus else "host memory"
    return [
        bars(f"{tier.name}: {what} by state", "MiB", tier.name, held),
        bars(f"{tier.name}: seconds to come and go", "s", tier.name, times),
    ]


def bars(title: str, y_label: str, label: str, rows: Sequence[tuple[str, float]]) -> Chart:
    """Return a chart of bars, one a row."""
    points = tuple((float(place), value) for place, (_, value) in enumerate(rows))
    return Chart(
        title=title,
        x_label="",
        y_label=y_label,
        lines=(Line(label, points),),
        kind="bars",
        categories=tuple(name for name, _ in rows),
    )
