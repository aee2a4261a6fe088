"""Experiments on the screen: runs in a table, one run whole, its chart, and as a picture in a file."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subcortex.cli import _output
from subcortex.cli._board import fields, when
from subcortex.errors import InvalidRequest, SubcortexError

if TYPE_CHECKING:
    from subcortex.config import Config
    from subcortex.experiments.choice import Belief
    from subcortex.experiments.experiment import Answer, Chart, Inquiry, Report
    from subcortex.journal.diary import Diary
    from subcortex.journal.diary.experiment_records import RunRecord

#: Of commands and starts, so many are shown; ``--json`` has all.
_SHOWN = 12
_WORDS = 400
_MARKS = {
    "measured": "",
    "different": "differ: ",
    "alike": "alike: ",
    "inconclusive": "inconclusive: ",
    "passed": "passed: ",
    "failed": "failed: ",
}


def table(runs: Sequence[RunRecord]) -> list[str]:
    """Return runs as the lines of a table."""
    width = max(_output.terminal_columns() - 75, 24)
    rows = [
        [
            run.id[:16],
            when(run.at),
            run.state,
            run.experiment,
            run.subject,
            _output.clipped(_output.inert(in_a_line(run)), width),
        ]
        for run in runs
    ]
    return _output.table(("ID", "ASKED", "STATE", "EXPERIMENT", "SUBJECT", "ANSWER"), rows)


def in_a_line(run: RunRecord) -> str:
    """Return what a run came to, how far it is, or why it came to nothing."""
    report = report_of(run)
    if report is not None and report.answers:
        return answer_line(report.answers[0])
    if run.state == "running":
        return progress_line(run)
    if run.error:
        return str(run.error.get("message", ""))
    return "-"


def progress_line(run: RunRecord) -> str:
    """Return how far a run has come."""
    share = f"{run.share:.0%}  " if run.share is not None else ""
    return f"{share}{run.progress or 'begun'}"


def answer_line(answer: Answer) -> str:
    """Return an answer in a sentence, what kind it is before it."""
    unsure = answer.outcome == "inconclusive" and answer.n_needed is not None
    needed = f" ({answer.n_needed} blocks would settle it)" if unsure else ""
    return f"{_MARKS[answer.outcome]}{answer.statement}{needed}"


def figures(answer: Answer) -> str:
    """Return an answer's figures: value, interval, unit, samples; empty without a value."""
    if answer.value is None:
        return ""
    unit = f" {answer.unit}" if answer.unit else ""
    between = ""
    if answer.low is not None and answer.high is not None:
        between = f", {answer.level:.0%} between {answer.low:.4g} and {answer.high:.4g}"
    many = f", n = {answer.n}" if answer.n is not None else ""
    return f"{answer.quantity} of {answer.about}: {answer.value:.4g}{unit}{between}{many}"


def belief_words(prior: Belief, unit: str) -> str:
    """Return what is believed of an answer."""
    between = prior.interval()
    return f"{prior.middle:.3g} {unit}, {between.level:.0%} between {between.low:.3g} and {between.high:.3g}"


def report_of(run: RunRecord) -> Report | None:
    """Return a run's report; None if there is none, or it is another version's."""
    from subcortex.experiments.forms import report_from_json

    try:
        return report_from_json(run.report) if run.report is not None else None
    except SubcortexError:
        return None


def inquiry_of(run: RunRecord) -> Inquiry | None:
    """Return a run's question; None if it is another version's."""
    from subcortex.experiments.forms import inquiry_from_json

    try:
        return inquiry_from_json(run.inquiry)
    except SubcortexError:
        return None


def surprise_of(run: RunRecord) -> dict[str, float] | None:
    """Return the bits and sigmas by which the answer moved what was believed; None without a number."""
    from subcortex.experiments.consequences.surprises import moved_by

    inquiry, report = inquiry_of(run), report_of(run)
    moved = moved_by(inquiry, report.answers) if inquiry and report else None
    return {"bits": moved.surprise.bits, "sigmas": moved.surprise.sigmas} if moved else None


def show(run: RunRecord, diary: Diary) -> None:
    """Print a run: the question, what was believed and what came, and how it was found out."""
    inquiry, report = inquiry_of(run), report_of(run)
    _output.say(_output.inert(inquiry.question if inquiry else str(run.inquiry.get("question", ""))))
    _output.say()
    moved = surprise_of(run)
    fields(
        ("id", run.id),
        ("experiment", f"{run.experiment}, of {run.subject}"),
        ("state", _state(run)),
        ("asked by", f"{run.asked_by}, {_date(run.at)}"),
        ("question", run.gap_id),
        ("drive", run.drive),
        ("took", _took(run)),
        ("believed", belief_words(inquiry.prior, inquiry.unit) if inquiry else None),
        ("came", figures(report.answers[0]) if report and report.answers else None),
        ("surprise", f"{moved['bits']:.2g} bits, {moved['sigmas']:+.2g} sigmas off" if moved else None),
        ("session", run.session_id),
        ("expired", run.expired_why),
        ("error", _error(run)),
    )
    if report is not None:
        _answers(report)
        _list("Noticed", [f"- {one}" for one in report.noticed])
        _list("Left open", [f"{place}. {one}" for place, one in enumerate(report.gaps, 1)])
    _done(run, diary)
    for chart in report.charts if report else ():
        _output.say()
        for line in chart_lines(chart):
            _output.say(line)


def chart_lines(chart: Chart) -> list[str]:
    """Return a chart for this terminal, in ASCII where its encoding has nothing else."""
    from subcortex.experiments.charts import lines_of

    encoding = (sys.stdout.encoding or "ascii").lower().replace("-", "")
    width = min(_output.terminal_columns(), 100)
    return [_output.inert(line) for line in lines_of(chart, width, ascii_only=not encoding.startswith("utf"))]


def line_json(run: RunRecord) -> dict[str, Any]:
    """Return a run for a program, as in a list."""
    report = report_of(run)
    shown = {name: value for name, value in _output.plain(run).items() if name not in ("inquiry", "report")}
    return {
        **shown,
        "question": run.inquiry.get("question"),
        "answer": answer_line(report.answers[0]) if report and report.answers else None,
    }


def run_json(run: RunRecord, diary: Diary, *, raw: bool) -> dict[str, Any]:
    """Return a run whole for a program; with ``raw`` its samples too."""
    from subcortex.journal.diary import experiments

    readings = experiments.readings(diary, run.id)
    found = {
        **line_json(run),
        "inquiry": run.inquiry,
        "report": run.report,
        "surprise": surprise_of(run),
        "commands": experiments.commands(diary, run.id),
        "boots": [one.facts for one in experiments.boots(diary, run.id)],
        "samples": len(readings),
    }
    return {**found, "readings": readings} if raw else found


def picture_file(config: Config, run: RunRecord) -> Path:
    """Return where a run's picture goes if nobody says: a folder beside the journal."""
    # A journal may have come from elsewhere: its words name no folder.
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", run.experiment)
    return config.database_path.parent / "charts" / f"{name}-{run.id[:16]}.svg"


def write_pictures(charts: Sequence[Chart], file: Path) -> list[Path]:
    """Write charts as SVG: the first as ``file``, further ones beside it, numbered.

    Raises:
        InvalidRequest: It cannot be written.
    """
    from subcortex.experiments.charts import svg

    written = []
    for number, chart in enumerate(charts, 1):
        path = file if number == 1 else file.with_name(f"{file.stem}-{number}{file.suffix}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(svg(chart), "utf-8")
        except OSError as error:
            raise InvalidRequest(
                f"{path} cannot be written: {error.strerror or error}", hint="Name another.", param="svg"
            ) from error
        written.append(path)
    return written


def _state(run: RunRecord) -> str:
    if run.state == "running":
        return f"running: {progress_line(run)}"
    lives = f", begun {run.lives} times" if run.lives > 1 else ""
    return f"{run.state}{lives}"


def _took(run: RunRecord) -> str | None:
    if run.started_at is None:
        return None
    spent = f"{run.gpu_minutes:.2g} GPU-minutes of {run.seconds / 60:.3g} min allowed"
    if run.ended_at is None:
        return f"{spent} so far"
    return f"{_output.seconds((run.ended_at - run.started_at).total_seconds())}; {spent}"


def _error(run: RunRecord) -> str | None:
    if not run.error:
        return None
    words = [str(run.error.get("message") or ""), str(run.error.get("hint") or "")]
    tail = (run.error.get("details") or {}).get("log_tail")
    return "\n".join([*filter(None, words), *str(tail or "").splitlines()[-10:]])


def _answers(report: Report) -> None:
    lines = []
    for answer in report.answers:
        lines.append(f"- {answer_line(answer)}")
        if said := figures(answer):
            lines.append(f"    {said}")
    _list("Answers", lines)


def _done(run: RunRecord, diary: Diary) -> None:
    from subcortex.journal.diary import experiments

    commands = experiments.commands(diary, run.id)
    told = list(dict.fromkeys((shlex.join(one.words), one.version) for one in commands))
    _list("Commands", [f"  {_output.clipped(words, _WORDS)}{_version(of)}" for words, of in told])
    _list("Starts", [f"  {_boot(one.facts)}" for one in experiments.boots(diary, run.id)])
    readings = experiments.readings(diary, run.id)
    series: dict[tuple[str, str], int] = {}
    for reading in readings:
        series[reading.metric, reading.unit] = series.get((reading.metric, reading.unit), 0) + 1
    _list("Raw samples", [f"  {many} of {metric}, {unit}" for (metric, unit), many in series.items()])


def _version(version: str | None) -> str:
    return f"  # {version}" if version else ""


def _boot(facts: dict[str, Any]) -> str:
    tier = str(facts.get("tier", "engine"))
    error = facts.get("error")
    if isinstance(error, dict):
        return f"{tier}: {error.get('message', 'failed')}"
    seconds = facts.get("boot_s")
    took = _output.seconds(seconds) if isinstance(seconds, int | float) else "-"
    return f"{tier}: ready after {took}{f', {version}' if (version := facts.get('version')) else ''}"


def _list(heading: str, lines: Sequence[str]) -> None:
    if not lines:
        return
    _output.say()
    _output.say(heading)
    for line in lines[:_SHOWN]:
        _output.say(_output.inert_line(line))
    if len(lines) > _SHOWN:
        _output.say(f"  … and {len(lines) - _SHOWN} more; --json has all")


def _date(at: datetime) -> str:
    return at.astimezone().isoformat(timespec="seconds")
