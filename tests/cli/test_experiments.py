"""experiments on the command line: runs listed and shown whole, what is next, the catalogue, the schedule."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from subcortex.cli._experiment_view import answer_line, belief_words, figures, picture_file
from subcortex.config import load
from subcortex.experiments.catalogue import CATALOGUE
from subcortex.experiments.choice import Belief, believed
from subcortex.experiments.experiment import Answer, Chart, Inquiry, Line, Report
from subcortex.experiments.forms import digest_of, inquiry_to_json, report_to_json
from subcortex.experiments.laboratory.record import Reading
from subcortex.experiments.needs import Needs
from subcortex.experiments.statistics import Interval
from subcortex.journal.diary import Diary, experiments
from subcortex.journal.diary.experiment_records import RunRecord
from subcortex.mind.experimenting.following import follow
from tests.cli.helpers import invoke, run_on_terminal
from tests.cli.hostile import PAYLOAD
from tests.conftest import write_config

QUESTION = "From how many requests at once on does the throughput of fast grow no more?"
ANSWER = Answer(
    quantity="requests",
    about="fast",
    unit="requests",
    outcome="measured",
    statement="fast gains no more from 6 requests at once on",
    value=6.0,
    low=5.0,
    high=7.5,
    n=40,
    tier="fast",
    gap_kind="saturation",
    details={"knee": 6.0, "knee_low": 5.0, "knee_high": 7.5},
)
CHART = Chart(
    "Throughput of fast",
    "requests at once",
    "tok/s",
    (Line("fast", ((1, 50.0, 49.0, 52.0), (2, 95.0), (4, 170.0), (8, 200.0))),),
    log_x=True,
    marks=((6.0, "knee"),),
)
BARS = Chart(
    "Held", "", "MiB", (Line("", ((0, 100.0), (1, 20.0))),), kind="bars", categories=("idle", "asleep")
)
REPORT = Report((ANSWER,), (f"One was slow. {PAYLOAD}",), ("Why 6?",), (CHART, BARS))


def inquiry(subject: str = "fast", **more: Any) -> Inquiry:
    given: dict[str, Any] = {
        "experiment": "saturation",
        "subject": subject,
        "question": QUESTION,
        "quantity": "requests",
        "about": subject,
        "unit": "requests",
        "prior": believed(Interval(1.0, 64.0, 0.9)),
        "noise": 0.05,
        "worth": 1.0,
        "minutes": 2.0,
    }
    return Inquiry(**{**given, **more})


def enqueued(diary: Diary, asked: Inquiry) -> RunRecord:
    return experiments.enqueue(
        diary,
        experiment=asked.experiment,
        subject=asked.subject,
        inquiry=inquiry_to_json(asked),
        asked_by="person",
        seconds=360.0,
        digest=digest_of(asked, 1),
    )


def measured(diary: Diary, asked: Inquiry, report: Report = REPORT) -> RunRecord:
    """Put a run into the journal as a worker would: begun, two samples, a command, a start, its report."""
    run = experiments.begin(diary, enqueued(diary, asked).id)
    samples = [Reading("tok_s", value, "tokens/s", block=block) for block, value in enumerate((50.0, 49.5))]
    experiments.keep_readings(diary, run.id, samples)
    experiments.keep_command(diary, run.id, ["llama-bench", "-m", "a b.gguf"], "9001")
    experiments.keep_boot(diary, run.id, {"tier": asked.subject, "boot_s": 1.25, "version": "xllamacpp 1"})
    experiments.progress(diary, run.id, "half way", 0.5)
    return experiments.measured(diary, run.id, report_to_json(report), {"driver": "580"})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_config(tmp_path)


@pytest.fixture
def runs(file: Path) -> dict[str, RunRecord]:
    """One run of each kind: settled, failed with its log, running, waiting."""
    config = load(file, {})
    with Diary.open(config.database_path) as diary:
        settled = follow(diary, config, measured(diary, inquiry()).id).run
        broken = experiments.begin(diary, enqueued(diary, inquiry("deep")).id)
        wire = {
            "message": "llama-bench ended with SIGKILL",
            "hint": "More memory.",
            "details": {"log_tail": "oom"},
        }
        failed = experiments.failed(diary, broken.id, wire)
        running = experiments.begin(diary, enqueued(diary, inquiry("deep", question="Slow?")).id)
        experiments.progress(diary, running.id, f"ladder {PAYLOAD}", 0.25)
        waiting = enqueued(diary, inquiry("machine", question="Later?"))
    return {"settled": settled, "failed": failed, "running": running, "waiting": waiting}


def said(*arguments: object) -> Any:
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def shown(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    assert not set(result.output) & set("\x1b\x07\x9b\u202e")
    return result.stdout


def test_runs_are_listed_with_what_they_came_to(file, runs):
    lines = shown("experiments", "--config", file).splitlines()
    assert [line.split()[3] for line in lines[1:]] == ["settled", "failed", "running", "queued"]
    assert "fast gains no more" in lines[1]
    assert "llama-bench ended" in lines[2]
    assert "25% ladder" in lines[3]
    listed = said("experiments", "list", "--state", "failed", "--config", file)
    assert [(one["id"], one["question"]) for one in listed] == [(runs["failed"].id, QUESTION)]
    assert len(said("experiments", "list", "-n", "2", "--experiment", "saturation", "--config", file)) == 2


def test_nothing_is_said_where_there_is_nothing(file):
    result = invoke("experiments", "--config", file)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no runs yet" in result.stderr
    assert said("experiments", "list", "--config", file) == []
    assert invoke("experiments", "show", "abc", "--config", file).exit_code == 4
    assert invoke("experiments", "cancel", "abc", "--config", file).exit_code == 4


def test_a_run_is_shown_whole_with_prior_answer_surprise_and_chart(file, runs):
    run = runs["settled"]
    text = shown("experiments", "show", run.id[:20], "--config", file)
    assert text.startswith(QUESTION)
    for words in (
        "believed   8 requests, 90% between 1 and 64",
        "came       requests of fast: 6 requests, 90% between 5 and 7.5, n = 40",
        f"session    {run.session_id}",
        "- fast gains no more from 6 requests at once on",
        "1. Why 6?",
        "  llama-bench -m 'a b.gguf'  # 9001",
        "  fast: ready after 1.2 s, xllamacpp 1",
        "  2 of tok_s, tokens/s",
        "  ┊ 6: knee",
    ):
        assert words in text
    sigmas, bits = text.partition("surprise   ")[2].splitlines()[0].split(" σ below what was believed; ")
    assert 0.2 <= float(sigmas) < 0.3
    assert 1 < float(bits.removesuffix(" bits learned")) < 5
    assert "GPU-minutes" not in text


def test_without_an_id_the_latest_is_shown(file, runs):
    assert said("experiments", "show", "--config", file)["id"] == runs["waiting"].id


def test_where_there_are_no_runs_the_latest_is_none(file):
    refused = invoke("experiments", "show", "--config", file)
    assert refused.exit_code == 4
    assert "experiments next" in refused.stderr


def test_pictures_lie_beside_the_journal_or_where_they_are_wanted(file, runs, tmp_path):
    result = invoke("experiments", "show", runs["settled"].id, "--config", file)
    paths = [Path(line.partition(": ")[2]) for line in result.stderr.splitlines() if ".svg" in line]
    assert [path.parent for path in paths] == [tmp_path / "charts"] * 2
    titles = [ElementTree.parse(path).getroot().findtext("{*}title") for path in paths]
    assert titles == ["Throughput of fast", "Held"]
    wanted = tmp_path / "new" / "x.svg"
    assert (
        said("experiments", "show", runs["settled"].id, "--svg", wanted, "--config", file)["state"]
        == "settled"
    )
    assert sorted(path.name for path in wanted.parent.iterdir()) == ["x-2.svg", "x.svg"]
    (tmp_path / "file").write_text("")
    refused = invoke(
        "experiments", "show", runs["settled"].id, "--svg", tmp_path / "file" / "x", "--config", file
    )
    assert refused.exit_code == 4
    assert "cannot be written" in refused.stderr
    none = invoke("experiments", "show", runs["failed"].id, "--svg", wanted, "--config", file)
    assert "has no chart" in none.stderr


def test_a_run_for_a_program_has_all_and_raw_samples_if_asked(file, runs):
    whole = said("experiments", "show", runs["settled"].id, "--config", file)
    assert whole["report"]["answers"][0]["details"]["knee"] == 6.0
    assert whole["commands"] == [{"words": ["llama-bench", "-m", "a b.gguf"], "version": "9001"}]
    assert whole["boots"] == [{"tier": "fast", "boot_s": 1.25, "version": "xllamacpp 1"}]
    assert (whole["samples"], "readings" in whole) == (2, False)
    assert whole["surprise"]["bits"] > 1
    raw = said("experiments", "show", runs["settled"].id, "--raw", "--config", file)
    assert [one["value"] for one in raw["readings"]] == [50.0, 49.5]
    assert invoke("experiments", "show", runs["settled"].id, "--raw", "--config", file).exit_code == 2


def test_a_program_gets_times_as_iso_8601(file, runs):
    listed = said("experiments", "--config", file)
    assert {one["at"][10] for one in listed} == {"T"}
    assert datetime.fromisoformat(listed[0]["at"]).tzinfo is not None


def test_a_beginning_that_several_share_names_them(file, runs):
    refused = invoke("experiments", "show", "0", "--config", file)
    assert refused.exit_code == 4
    assert f"Write more of it: {runs['settled'].id[:16]}, " in refused.stderr


def test_a_failure_is_shown_with_its_log(file, runs):
    text = shown("experiments", "show", runs["failed"].id, "--config", file)
    assert "llama-bench ended with SIGKILL\n           More memory.\n           oom\n" in text


def test_a_terminal_without_unicode_gets_ascii(file, runs):
    code, text = run_on_terminal(
        "experiments", "show", runs["settled"].id, "--config", file, env={"PYTHONIOENCODING": "ascii"}
    )
    assert code == 0
    assert "  : 6: knee" in text
    assert text.isascii()


def test_what_is_next_says_why_and_what_it_expects_and_costs(file):
    found = said("experiments", "next", "-n", "100", "--config", file)
    assert {"saturation", "idle_and_swap"} <= {one["experiment"] for one in found}
    first = found[0]
    assert all(one["expects"]["low"] < one["expects"]["median"] <= one["expects"]["high"] for one in found)
    assert first["gpu_minutes"] > 0
    text = shown("experiments", "next", "-n", "1", "--config", file)
    assert text.startswith(f"1. {first['experiment']} of {first['subject']}\n")
    assert [line.split()[0] for line in text.splitlines() if line[4:5].strip()][1:5] == [
        "asks",
        "why",
        "expects",
        "costs",
    ]


def test_what_waits_is_not_next(file):
    before = said("experiments", "next", "-n", "100", "--config", file)
    with Diary.open(load(file, {}).database_path) as diary:
        one = before[0]
        experiments.enqueue(
            diary,
            experiment=one["experiment"],
            subject=one["subject"],
            inquiry=one["inquiry"],
            asked_by="person",
            seconds=60.0,
            digest=one["digest"],
        )
    after = said("experiments", "next", "-n", "100", "--config", file)
    assert one["digest"] not in {other["digest"] for other in after}
    assert len(after) == len(before) - 1


def test_the_catalogue_says_what_applies_here_or_why_not(file):
    rows = said("experiments", "--catalogue", "--config", file)
    assert {row["name"] for row in rows} == {one.name for one in CATALOGUE}
    assert [row["number"] for row in rows] == sorted(one.number for one in CATALOGUE)
    by = {row["name"]: row for row in rows}
    assert [one["subject"] for one in by["saturation"]["subjects"]] == ["fast", "deep"]
    assert all(row["applicable"] or row["why_not"] for row in rows)
    assert all(row["applicable"] or not row["subjects"] for row in rows)
    text = shown("experiments", "--catalogue", "--experiment", "saturation", "--config", file)
    assert text.splitlines()[0].split(":")[0].split() == ["11", "saturation"]
    assert "fast (" in text


def test_an_unknown_experiment_is_named_with_those_there_are(file):
    result = invoke("experiments", "--experiment", "saturated", "--config", file)
    assert result.exit_code == 4
    assert "saturation" in result.stderr


def test_the_schedule_says_when_and_what_is_spent(tmp_path):
    file = write_config(tmp_path)
    file.write_text(f'{file.read_text()}\n[experiments]\nwindows = ["*/10 2-5 * * *"]\nminutes_a_day = 30\n')
    config = load(file, {})
    with Diary.open(config.database_path) as diary:
        run = enqueued(diary, inquiry())
        with diary.transaction() as conn:
            conn.execute("UPDATE experiment_runs SET asked_by = 'schedule' WHERE id = ?", (run.id,))
        experiments.begin(diary, run.id)
        with diary.transaction() as conn:
            conn.execute("UPDATE experiment_runs SET gpu_minutes = 12.5")
        measured(diary, inquiry("deep"))
    plan = said("experiments", "schedule", "--config", file)
    assert plan["windows"] == ["*/10 2-5 * * *"]
    assert (plan["spent_today"], plan["left_today"]) == (12.5, 17.5)
    assert len(plan["next"]) == 3
    assert all(tick[11:13] in ("02", "03", "04", "05") for tick in plan["next"])
    text = shown("experiments", "schedule", "--config", file)
    assert "today      12.5 spent, 17.5 left" in text
    assert str(file) in text


def test_a_window_that_never_comes_is_told(tmp_path):
    file = write_config(tmp_path)
    file.write_text(f'{file.read_text()}\n[experiments]\nwindows = ["0 0 31 2 *"]\n')
    assert "next       never" in shown("experiments", "schedule", "--config", file)


def test_a_run_under_way_says_how_far_it_is(file, runs):
    text = shown("experiments", "show", runs["running"].id, "--config", file)
    assert "running: 25%  ladder" in text
    assert " of 6 min allowed, so far\n" in text


def test_starts_of_one_engine_share_a_line_and_minutes_of_gpus_are_told(file):
    config = load(file, {})
    with Diary.open(config.database_path) as diary:
        run = experiments.begin(diary, enqueued(diary, inquiry(needs=Needs(gpus=2))).id)
        for boot_s in (0.2, 3.0, 0.4):
            experiments.keep_boot(diary, run.id, {"tier": "fast", "boot_s": boot_s, "version": "vllm 1"})
        experiments.keep_boot(diary, run.id, {"tier": "fast", "error": {"message": "out of memory"}})
        with diary.transaction() as conn:
            conn.execute("UPDATE experiment_runs SET gpu_minutes = 4.0 WHERE id = ?", (run.id,))
        answers = tuple(replace(ANSWER, statement=f"answer {place}") for place in range(9))
        experiments.measured(diary, run.id, report_to_json(Report(answers)), {})
    text = shown("experiments", "show", run.id, "--config", file)
    assert "  fast: 3 starts, ready after 400 ms (200 ms to 3.0 s), vllm 1\n  fast: out of memory\n" in text
    assert "took       2 min of 6 min allowed, 4 GPU-minutes" in text
    assert "- answer 8\n" in text


def test_a_share_is_believed_up_to_the_whole_and_one_thread_is_no_threads(file):
    share = inquiry(unit="%", prior=Belief(100.0, 20.0, "normal"))
    assert belief_words(share) == "100 %, 90% between 67.1 and 100"
    one = replace(ANSWER, unit="threads", quantity="threads", value=1.0, low=1.0, high=2.0, level=0.975)
    assert figures(one) == "threads of fast: 1 thread, 97.5% between 1 and 2, n = 40"


def test_a_journals_words_name_no_folder_for_a_picture(file):
    config = load(file, {})
    with Diary.open(config.database_path) as diary:
        run = replace(enqueued(diary, inquiry()), experiment="../../elsewhere/x")
    charts = config.database_path.parent / "charts"
    assert picture_file(config, run) == charts / f"_elsewhere_x-{run.id[:16]}.svg"


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("fast: inconclusive; time was over", "fast: inconclusive; time was over"),
        ("fast grows", "inconclusive: fast grows"),
    ],
)
def test_what_kind_of_answer_it_is_is_said_once(statement, told):
    answer = Answer("requests", "fast", "requests", "inconclusive", statement)
    assert answer_line(answer) == told
