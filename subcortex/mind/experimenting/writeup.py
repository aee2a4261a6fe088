"""A run as an agent's session says it: what was known, asked, done and noticed, and what stays open. Pure.

Every figure in it is one of the run's record (its inquiry, report, raw samples, certificate), brought to four
digits, or stands in a sentence of the report or of the board.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import floor, log10
from pathlib import PurePosixPath
from typing import Any

from subcortex.experiments.choice import Belief
from subcortex.experiments.consequences.surprises import Moved
from subcortex.experiments.experiment import Answer, Inquiry, Report
from subcortex.journal.diary.board_records import ClaimRecord, FactRecord, GapRecord
from subcortex.journal.diary.experiment_records import (
    CommandRecord,
    ReadingRecord,
    RunRecord,
    TrialBootRecord,
)
from subcortex.mind.headings import DID, LEARN, LEFT, MINE, NOTICED

#: Of each list, so many are shown; the run's record has the rest.
_MOST = 12
_MOST_SERIES, _MOST_ARMS = 40, 16
#: Of a certificate, what tells a reader nothing.
_UNTOLD = frozenset({"newest_ns"})
#: Outcomes that are no figure, and so no surprise in bits.
_CHECKED = frozenset({"passed", "failed"})
_PACKAGE = PurePosixPath(__file__).parents[2]
_OUTCOMES = {"confirmed": "confirmed", "refuted": "refuted", "claimed": "undecided", "expired": "expired"}


@dataclass(frozen=True, slots=True)
class Before:
    """What the board said before the answer came: facts and claims on the same, and who asks."""

    facts: Sequence[FactRecord] = ()
    claims: Sequence[ClaimRecord] = ()
    gaps: Sequence[GapRecord] = ()


@dataclass(frozen=True, slots=True)
class Raw:
    """What the run left behind."""

    readings: Sequence[ReadingRecord] = ()
    commands: Sequence[CommandRecord] = ()
    boots: Sequence[TrialBootRecord] = ()


@dataclass(frozen=True, slots=True)
class Followed:
    """What followed on the board: questions answered, those left open and why, claims decided."""

    answered: Sequence[GapRecord] = ()
    unanswered: Sequence[tuple[GapRecord, str]] = ()
    decided: Sequence[ClaimRecord] = ()


def opening(run: RunRecord, inquiry: Inquiry, before: Before, raw: Raw) -> list[tuple[str, str]]:
    """Return (heading, text) of what was known, asked and done."""
    return [
        (MINE, known(inquiry, before)),
        (LEARN, asked(inquiry, before.gaps)),
        (DID, done(run, raw)),
    ]


def closing(
    inquiry: Inquiry, report: Report, raw: Raw, moved: Moved | None, followed: Followed
) -> list[tuple[str, str]]:
    """Return (heading, text) of what was noticed and what stays open; the latter only if anything does."""
    found = [(NOTICED, noticed(inquiry, report, raw, moved, followed))]
    if report.gaps:
        found.append((LEFT, "\n".join(f"{place}. {one}" for place, one in enumerate(report.gaps, 1))))
    return found


def known(inquiry: Inquiry, before: Before) -> str:
    """Return what was believed, in figures, and what the board had on it."""
    about = f"{inquiry.quantity.replace('_', ' ')} of {inquiry.about}"
    lines = [f"- Believed of the {about}: {belief(inquiry.prior, inquiry.unit)}."]
    lines += [f"- {fact.statement} (a fact of {fact.at:%Y-%m-%d})" for fact in before.facts[:_MOST]]
    lines += [f"- {one.statement} ({_OUTCOMES[one.state]})" for one in before.claims[:_MOST]]
    if not before.facts and not before.claims:
        lines.append("- The board had neither fact nor claim on it.")
    return "\n".join(lines)


def asked(inquiry: Inquiry, gaps: Sequence[GapRecord]) -> str:
    """Return the questions: the inquiry's, and those of the board that it may answer."""
    questions = list(dict.fromkeys([inquiry.question, *(gap.question for gap in gaps[:_MOST])]))
    return "\n".join(f"{place}. {one}" for place, one in enumerate(questions, 1))


def done(run: RunRecord, raw: Raw) -> str:
    """Return commands as they were run, the conditions, and how many samples of what, in which order."""
    parts = []
    if raw.commands:
        shown = Counter((command(one.words), one.version) for one in raw.commands)
        lines = []
        for (words, version), times in list(shown.items())[:_MOST]:
            told = [f"version {version}"] if version else []
            told += [f"{times} times"] if times > 1 else []
            lines += [f"# {', '.join(told)}"] if told else []
            lines.append(words)
        parts.append("```bash\n" + "\n".join(lines) + "\n```")
    booted = [one.facts for one in raw.boots if not one.facts.get("error")]
    if booted:
        parts.append("\n".join(f"- {_boot(facts)}" for facts in booted[:_MOST]))
    parts.append(
        "\n".join(f"- {line}" for line in conditions(run.provenance or {})) or "- No conditions kept."
    )
    if raw.readings:
        parts.append("\n".join(f"- {line}" for line in [*series(raw.readings), *machine(raw.readings)]))
    lives = f" in {run.lives} lives" if run.lives > 1 else ""
    # Without GPUs they are counted as if there were one.
    what = "GPU-minutes" if (run.inquiry.get("needs") or {}).get("gpus") else "minutes"
    parts.append(f"It took {figure(run.gpu_minutes)} {what}{lives}.")
    return "\n\n".join(parts)


def command(words: Sequence[str]) -> str:
    """Return a command as a reader can repeat it: where this machine keeps its programs is left out."""
    return shlex.join(_placed(word) for word in words)


def _placed(word: str) -> str:
    if not word.startswith("/"):
        return word
    path = PurePosixPath(word)
    return str(path.relative_to(_PACKAGE.parent)) if path.is_relative_to(_PACKAGE) else path.name


def noticed(inquiry: Inquiry, report: Report, raw: Raw, moved: Moved | None, followed: Followed) -> str:
    """Return the answers with intervals and n, the surprise in them, failures, and what they settled."""
    lines = [sentence(answer) for answer in report.answers]
    if moved is not None and report.answers[0].outcome not in _CHECKED:
        lines.append(surprised(moved, inquiry.unit))
    lines += list(report.noticed)
    failed = [one.facts for one in raw.boots if one.facts.get("error")]
    lines += [f"{facts.get('tier', 'An engine')} did not start: {_why(facts['error'])}" for facts in failed]
    lines += [f'Answers "{gap.question}"' for gap in followed.answered]
    lines += [f'Leaves open "{gap.question}": {why}' for gap, why in followed.unanswered]
    lines += [f'{one.state.capitalize()}: "{one.statement}"' for one in followed.decided]
    return "\n".join(f"- {line}" for line in lines)


def sentence(answer: Answer) -> str:
    """Return an answer in words, with its figures behind it where it does not have them in it."""
    told = []
    whole = answer.n is not None and f"n = {answer.n}" in answer.statement
    short = inconclusive(answer) if answer.outcome == "inconclusive" else ""
    if "inconclusive" in answer.statement:
        short = short.removeprefix("inconclusive").removeprefix("; ")
    if whole:
        return answer.statement + (f" ({short})" if short else "")
    if answer.value is not None:
        told.append(f"median {measure(answer.value, answer.unit)}")
    if answer.low is not None and answer.high is not None:
        ends = f"{figure(answer.low)} to {measure(answer.high, answer.unit)}"
        told.append(f"{figure(100 * answer.level)} % interval {ends}")
    if answer.n is not None:
        told.append(f"n = {answer.n}")
    if short:
        told.append(short)
    return f"{answer.statement.rstrip('.')} ({', '.join(told)})." if told else answer.statement


def inconclusive(answer: Answer) -> str:
    """Return what an answer that tells nothing would have taken, as far as its samples tell that."""
    if answer.n_needed is not None:
        return f"inconclusive; {answer.n_needed} blocks would settle it"
    if answer.n == 1:
        return "inconclusive; one block alone bounds nothing"
    # What says why by itself (a ladder that ended too low) is not settled by more of the same.
    if answer.low is None or "inconclusive" in answer.statement:
        return "inconclusive"
    return "inconclusive; no number of blocks within reason would settle it"


def surprised(moved: Moved, unit: str) -> str:
    """Return how far the answer lay from what was believed."""
    bits, off = moved.surprise.bits, moved.surprise.sigmas
    side = "above" if off > 0 else "below"
    return (
        f"Believed before: {belief(moved.before, unit)}; after: {belief(moved.after, unit)}. "
        f"That is {figure(abs(off))} σ {side} what was believed, and {figure(bits)} bits of surprise."
    )


def belief(held: Belief, unit: str | None) -> str:
    """Return a belief in words: its median, and the interval that holds nine of ten."""
    ends = held.interval(0.9)
    # A share is believed in as if it had no ends.
    high = min(ends.high, 100.0) if unit == "%" else ends.high
    return f"{measure(held.middle, unit)} (90 %: {figure(ends.low)} to {measure(high, unit)})"


def conditions(provenance: Mapping[str, Any], within: str = "") -> list[str]:
    """Return a certificate as lines ``name: value``; what is not known is left out."""
    lines = []
    for name, value in provenance.items():
        label = f"{within}{name.replace('_', ' ')}"
        if value is None or value in ({}, [], "") or name in _UNTOLD:
            continue
        if isinstance(value, Mapping):
            lines += conditions(value, f"{label}, ")
        elif isinstance(value, list | tuple):
            said = [words for one in value if (words := _plain(one))]
            lines += [f"{label}: {'; '.join(said)}"] if said else []
        else:
            lines.append(f"{label}: {_plain(value)}")
    return lines


def series(readings: Sequence[ReadingRecord]) -> list[str]:
    """Return how many samples there are of each metric, and in which order its arms came."""
    by: dict[str, list[ReadingRecord]] = {}
    for one in readings:
        by.setdefault(one.metric, []).append(one)
    lines = []
    for metric, found in list(by.items())[:_MOST_SERIES]:
        line = f"{metric}: {len(found)} sample{'' if len(found) == 1 else 's'}"
        order = _turns(one.arm for one in found if one.arm)
        if len(set(order)) > 1:
            more = " …" if len(order) > _MOST_ARMS else ""
            line += f", arms in the order {', '.join(order[:_MOST_ARMS])}{more}"
        lines.append(line)
    return lines


def machine(readings: Sequence[ReadingRecord]) -> list[str]:
    """Return between what clocks and temperatures the samples were taken, and how many were held back."""
    lines = []
    for key, words, unit in (
        ("sm_clock_mhz", "GPU clocks", "MHz"),
        ("temperature_c", "GPU temperatures", "°C"),
        ("power_draw_w", "GPU power", "W"),
    ):
        values = [
            gpu[key] for one in readings for gpu in one.readings.get("gpus", ()) if gpu.get(key) is not None
        ]
        lines += _range(words, values, unit)
    lines += _range(
        "CPU clock", [one.readings["cpu_mhz"] for one in readings if "cpu_mhz" in one.readings], "MHz"
    )
    for why, times in Counter(str(one.readings.get("throttled_for") or "") for one in readings).items():
        if why:
            lines.append(f"{times} of {len(readings)} samples while the machine held itself back: {why}")
    return lines


def measure(value: float, unit: str | None) -> str:
    """Return a figure with its unit."""
    return f"{figure(value)} {unit}" if unit else figure(value)


def figure(value: float) -> str:
    """Return a number to four digits, never with an exponent."""
    if value == 0:
        return "0"
    decimals = max(0, 3 - floor(log10(abs(value))))
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _range(words: str, values: Sequence[float], unit: str) -> list[str]:
    if not values:
        return []
    low, high = figure(min(values)), figure(max(values))
    return [f"{words}: {low} {unit}" if low == high else f"{words}: {low} to {high} {unit}"]


def _turns(arms: Iterable[str]) -> list[str]:
    found: list[str] = []
    for arm in arms:
        if not found or found[-1] != arm:
            found.append(arm)
    return found


def _boot(facts: Mapping[str, Any]) -> str:
    version = f", version {facts['version']}" if facts.get("version") else ""
    took = f" in {figure(facts['boot_s'])} s" if isinstance(facts.get("boot_s"), int | float) else ""
    settings = facts.get("settings") or {}
    told = ", ".join(f"{name} {_plain(value)}" for name, value in settings.items() if name != "name")
    return f"started {facts.get('tier', 'an engine')}{took}{version}: {told}"


def _why(error: Any) -> str:
    return str(error.get("message", error)) if isinstance(error, Mapping) else str(error)


def _plain(value: Any) -> str:
    if isinstance(value, bool | int):
        return str(value)
    if isinstance(value, float):
        return figure(value)
    if isinstance(value, Mapping):
        return " ".join(f"{name} {_plain(one)}" for name, one in value.items() if one is not None)
    if isinstance(value, list | tuple):
        return " ".join(map(_plain, value))
    text = str(value)
    # Where a model lies says nothing to a reader; its name does.
    return PurePosixPath(text).name if text.startswith("/") else text
