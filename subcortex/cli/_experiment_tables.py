"""What could be run, what of it applies here, and when it begins by itself, on the screen."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from subcortex.cli import _output
from subcortex.cli._experiment_view import belief_words, span

if TYPE_CHECKING:
    from subcortex.config import Config
    from subcortex.experiments.experiment import Experiment
    from subcortex.experiments.scene import Scene
    from subcortex.journal.diary import Diary
    from subcortex.mind.experimenting.choosing import Proposal


def proposal_lines(place: int, found: Proposal) -> list[str]:
    """Return what would be run, why, what it expects and what it costs."""
    inquiry = found.inquiry
    if found.remembered:
        cost = f"nothing: the run {found.remembered[:16]} answered it on this very machine"
    else:
        cost = span(inquiry.minutes * 60)
    if inquiry.needs.gpus:
        cost += f", {inquiry.gpu_minutes:.3g} GPU-minutes" if not found.remembered else ""
        cost += f", on {inquiry.needs.gpus} GPU{'s' if inquiry.needs.gpus > 1 else ''}"
    return [
        _inert(f"{place}. {found.experiment.name} of {inquiry.subject}"),
        *_filled("asks", inquiry.question),
        *_filled("why", found.why),
        *_filled("expects", belief_words(inquiry)),
        *_filled("costs", cost),
        *(line for gap in found.gaps[:3] for line in _filled("gap", f"{gap.id[:16]} {gap.question}")),
    ]


def proposal_json(found: Proposal) -> dict[str, Any]:
    """Return the same for a program."""
    from subcortex.experiments.forms import inquiry_to_json

    score = found.score
    return {
        "experiment": found.experiment.name,
        "subject": found.inquiry.subject,
        "question": found.inquiry.question,
        "why": found.why,
        "expects": {
            "median": found.inquiry.prior.middle,
            "low": found.expects.low,
            "high": found.expects.high,
            "level": found.expects.level,
            "unit": found.inquiry.unit,
        },
        "minutes": found.inquiry.minutes,
        "gpu_minutes": found.gpu_minutes,
        "bits": score.bits if score else None,
        "value": score.value if score else None,
        "a_minute": found.a_minute,
        "opens": found.opens,
        "remembered": found.remembered,
        "drive": found.drive,
        "gaps": [gap.id for gap in found.gaps],
        "digest": found.digest,
        "inquiry": inquiry_to_json(found.inquiry),
    }


def row_of(experiment: Experiment, scene: Scene) -> dict[str, Any]:
    """Return a row of the catalogue, and of what it would be asked here or why not."""
    why_not = experiment.why_not(scene)
    inquiries = [] if why_not is not None else list(experiment.inquiries(scene))
    return {
        "number": experiment.number,
        "name": experiment.name,
        "question": experiment.question,
        "kinds": sorted(experiment.kinds),
        "applicable": why_not is None,
        "why_not": why_not,
        "subjects": [
            {"subject": one.subject, "minutes": one.minutes, "gpu_minutes": one.gpu_minutes}
            for one in inquiries
        ],
    }


def catalogue_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the catalogue: each row with its question, and whom it would be asked of or why it is not."""
    lines = []
    for row in rows:
        lines.append(_inert(f"{row['number']:>2}  {row['name']}: {row['question']}"))
        if row["applicable"]:
            of = ", ".join(f"{one['subject']} ({span(one['minutes'] * 60)})" for one in row["subjects"])
            lines += _filled("of", of or "nothing here")
        else:
            lines += _filled("not here", str(row["why_not"]))
    return lines


def schedule_of(config: Config, diary: Diary | None) -> dict[str, Any]:
    """Return when experiments may begin by themselves, and what they have taken today.

    Raises:
        ConfigError: A window is no line of cron's.
    """
    from subcortex.journal.diary import experiments
    from subcortex.mind.experimenting.windows import next_ticks

    now = datetime.now().astimezone()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    spent = experiments.spent_gpu_minutes(diary, midnight, asked_by=("schedule", "agent")) if diary else 0.0
    section = config.experiments
    return {
        "windows": section.windows,
        "minutes_a_day": section.minutes_a_day,
        "spent_today": spent,
        "left_today": max(section.minutes_a_day - spent, 0.0),
        "next": [tick.isoformat(timespec="minutes") for tick in next_ticks(section.windows, now)],
    }


def schedule_lines(plan: dict[str, Any], config: Config) -> list[str]:
    """Return the same as lines, and which keys set it."""
    lines = [f"{'windows':11}{', '.join(plan['windows']) or 'none: nothing begins by itself'}"]
    if plan["next"]:
        lines.append(f"{'next':11}{', '.join(plan['next'])}")
    elif plan["windows"]:
        lines.append(f"{'next':11}never: no such minute comes")
    lines += [
        f"{'a day':11}{plan['minutes_a_day']:g} GPU-minutes",
        f"{'today':11}{plan['spent_today']:.3g} spent, {plan['left_today']:.3g} left",
        "",
        f"Set in [experiments] of {config.source}:",
        '  windows = ["*/10 2-5 * * *"]  # minute hour day month weekday, local time',
        f"  minutes_a_day = {plan['minutes_a_day']:g}",
    ]
    return [_inert(line) for line in lines]


def _filled(name: str, text: str) -> list[str]:
    """Return a name and its text, broken at the terminal's width."""
    width = max(_output.terminal_columns() - 14, 30)
    parts = textwrap.wrap(_inert(text), width, break_long_words=False) or [""]
    return [f"    {name if not place else '':10}{part}" for place, part in enumerate(parts)]


def _inert(text: str) -> str:
    return _output.inert_line(text)
