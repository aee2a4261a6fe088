"""Experiments on the screen: runs in a table, one run whole, its chart, and as a picture in a file."""

from __future__ import annotations

import re
import shlex
import sys
import textwrap
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from subcortex.cli import _output
from subcortex.cli._board import fields, when
from subcortex.errors import InvalidRequest, SubcortexError

if TYPE_CHECKING:
    from subcortex.config import Config
    from subcortex.experiments.experiment import Answer, Chart, Inquiry, Report
    from subcortex.journal.diary import Diary
    from subcortex.journal.diary.experiment_records import RunRecord

#: Of commands and starts, so many are shown; ``--json`` has all.
_SHOWN = 12
_WORDS = 400
_COUNTED = ("requests", "threads", "tokens", "nats")
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
    rows = [[run.id[:16], when(run.at), run.state, run.experiment, run.subject] for run in runs]
    header = ["ID", "ASKED", "STATE", "EXPERIMENT", "SUBJECT"]
    taken = max(map(len, _output.table(header, rows))) + 2
    width = max(_output.terminal_columns() - taken, 24)
    answers = [_output.clipped(_output.inert(in_a_line(run)), width) for run in runs]
    whole = [[*row, answer] for row, answer in zip(rows, answers, strict=True)]
    return _output.table((*header, "ANSWER"), whole)


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
    # Some say so themselves.
    told = re.search(rf"\b{answer.n_needed} (blocks )?would", answer.statement)
    needed = f" ({answer.n_needed} blocks would settle it)" if unsure and not told else ""
    mark = "" if answer.outcome in answer.statement else _MARKS[answer.outcome]
    return f"{mark}{answer.statement}{needed}"


def figures(answer: Answer) -> str:
    """Return an answer's figures: value, interval, unit, samples; empty without a value."""
    if answer.value is None:
        return ""
    unit = f" {_unit(answer.unit, answer.value)}" if answer.unit else ""
    between = ""
    if answer.low is not None and answer.high is not None:
        between = f", {_percent(answer.level)} between {answer.low:.4g} and {answer.high:.4g}"
    many = f", n = {answer.n}" if answer.n is not None else ""
    return f"{answer.quantity} of {answer.about}: {answer.value:.4g}{unit}{between}{many}"


def belief_words(inquiry: Inquiry) -> str:
    """Return what is believed of an answer."""
    between, middle = inquiry.expected(), inquiry.prior.middle
    ends = f"{_percent(between.level)} between {between.low:.3g} and {between.high:.3g}"
    return f"{middle:.3g} {_unit(inquiry.unit, middle)}, {ends}"


def span(seconds: float) -> str:
    """Return how long something takes, short: ``3.0 s``, ``3.4 min``."""
    return _output.seconds(seconds) if seconds < 120 else f"{seconds / 60:.3g} min"


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
        ("took", _took(run, inquiry)),
        ("believed", belief_words(inquiry) if inquiry else None),
        ("came", figures(report.answers[0]) if report and report.answers else None),
        ("surprise", _surprise_words(moved) if moved else None),
        ("session", run.session_id),
        ("expired", run.expired_why),
        ("waits" if run.state == "yielded" else "error", _error(run)),
    )
    if report is not None:
        _answers(report)
        _list("Noticed", [line for one in report.noticed for line in _wrapped("- ", one)])
        gaps = enumerate(report.gaps, 1)
        _list("Left open", [line for place, one in gaps for line in _wrapped(f"{place}. ", one)])
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


def keep_pictures(config: Config, run: RunRecord) -> None:
    """Write a run's charts beside the journal and say where; that they cannot be is a word, no error."""
    report = report_of(run)
    if report is None or not report.charts:
        return
    try:
        written = write_pictures(report.charts, picture_file(config, run))
    except InvalidRequest as error:
        # They were asked for on the screen alone.
        _output.note(error.message)
        return
    for path in written:
        _output.note(f"as a picture: {path}")


def _state(run: RunRecord) -> str:
    if run.state == "running":
        return f"running: {progress_line(run)}"
    lives = f", begun {run.lives} times" if run.lives > 1 else ""
    return f"{run.state}{lives}"


def _took(run: RunRecord, inquiry: Inquiry | None) -> str | None:
    """Return how long a run was at work, and on GPUs what that cost."""
    if run.started_at is None:
        return None
    gpus = inquiry.needs.gpus if inquiry else 0
    took = f"{span(run.gpu_minutes * 60 / max(1, gpus))} of {span(run.seconds)} allowed"
    if gpus:
        took += f", {run.gpu_minutes:.3g} GPU-minutes"
    return took if run.ended_at is not None else f"{took}, so far"


def _surprise_words(moved: dict[str, float]) -> str:
    sigmas = moved["sigmas"]
    where = f"{abs(sigmas):.2g} σ {'below' if sigmas < 0 else 'above'} what was believed"
    return f"{where if abs(sigmas) >= 0.005 else 'none, as believed'}; {moved['bits']:.2g} bits learned"


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _unit(unit: str, value: float) -> str:
    """Return a unit for a value; of one, a word without its plural's s."""
    return unit[:-1] if value == 1 and unit in _COUNTED else unit


def _error(run: RunRecord) -> str | None:
    if not run.error:
        return None
    words = [str(run.error.get("message") or ""), str(run.error.get("hint") or "")]
    tail = (run.error.get("details") or {}).get("log_tail")
    return "\n".join([*filter(None, words), *str(tail or "").splitlines()[-10:]])


def _answers(report: Report) -> None:
    lines = []
    for answer in report.answers:
        lines += _wrapped("- ", answer_line(answer))
        if said := figures(answer):
            lines += _wrapped("    ", said)
    _list("Answers", lines)


def _done(run: RunRecord, diary: Diary) -> None:
    from subcortex.journal.diary import experiments

    commands = experiments.commands(diary, run.id)
    told = list(dict.fromkeys((shlex.join(one.words), one.version) for one in commands))
    _list("Commands", [f"  {_output.clipped(words, _WORDS)}{_version(of)}" for words, of in told], _SHOWN)
    starts = _starts([one.facts for one in experiments.boots(diary, run.id)])
    _list("Starts", [f"  {line}" for line in starts], _SHOWN)
    readings = experiments.readings(diary, run.id)
    series: dict[tuple[str, str], int] = {}
    for reading in readings:
        series[reading.metric, reading.unit] = series.get((reading.metric, reading.unit), 0) + 1
    _list("Raw samples", [f"  {many} of {metric}, {unit}" for (metric, unit), many in series.items()], _SHOWN)


def _version(version: str | None) -> str:
    return f"  # {version}" if version else ""


def _starts(boots: Sequence[dict[str, Any]]) -> list[str]:
    """Return the starts of engines in lines: those of one engine that went well share one."""
    lines: list[str] = []
    took: dict[tuple[str, str], list[float]] = {}
    for facts in boots:
        tier, error, seconds = str(facts.get("tier", "engine")), facts.get("error"), facts.get("boot_s")
        if isinstance(error, dict):
            lines.append(f"{tier}: {error.get('message', 'failed')}")
        elif isinstance(seconds, int | float):
            took.setdefault((tier, str(facts.get("version") or "")), []).append(seconds)
        else:
            lines.append(f"{tier}: ready")
    return [*(_ready(*of, each) for of, each in took.items()), *lines]


def _ready(tier: str, version: str, each: Sequence[float]) -> str:
    tail = f", {version}" if version else ""
    if len(each) == 1:
        return f"{tier}: ready after {_output.seconds(each[0])}{tail}"
    ends = f"{_output.seconds(min(each))} to {_output.seconds(max(each))}"
    return f"{tier}: {len(each)} starts, ready after {_output.seconds(median(each))} ({ends}){tail}"


def _wrapped(mark: str, text: str) -> list[str]:
    """Return a mark and its text, broken at the terminal's width and indented as the mark is wide."""
    width = max(_output.terminal_columns() - len(mark), 30)
    parts = textwrap.wrap(_output.inert_line(text), width, break_long_words=False, break_on_hyphens=False)
    return [f"{' ' * len(mark) if place else mark}{part}" for place, part in enumerate(parts or [""])]


def _list(heading: str, lines: Sequence[str], most: int | None = None) -> None:
    if not lines:
        return
    _output.say()
    _output.say(heading)
    for line in lines[:most]:
        _output.say(_output.inert_line(line))
    if most is not None and len(lines) > most:
        _output.say(f"  … and {len(lines) - most} more; --json has all")


def _date(at: datetime) -> str:
    return at.astimezone().isoformat(timespec="seconds")
