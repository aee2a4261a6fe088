"""Gap → choice → run → fact → route and configuration → session → drive: eight experiments on this CPU.

One daemon is asked for the next one again and again, then for what `next` would take longer to come to.
Everything is looked at from outside: by the client, the command line, the journal and the sessions' files.
"""

from __future__ import annotations

import json
import re
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from subcortex.client import Client
from subcortex.config import Config, load
from subcortex.engines._processes import MARK_VARIABLE
from subcortex.experiments.forms import report_from_json
from subcortex.journal.diary import Diary, board_queries, experiments
from subcortex.journal.diary.board_records import FactRecord, GapRecord
from subcortex.journal.diary.experiment_records import RunRecord
from subcortex.mind.costs import cost_book
from subcortex.types import Message, Route, ThinkRequest, TierState
from tests.cli.helpers import invoke
from tests.conftest import MODELS, ROOT, stop, until, wait_for
from tests.experiments.harness import VLLM_PYTHON

#: A start of the deep tier is expected to take long, and takes no second.
NOMINAL_S = 20.0
CONFIG = f"""
[subcortex]
version = 1
[daemon]
runtime_dir = "run"
[journal]
database = "journal.db"
[drives]
dir = "{ROOT / "drives"}"
[[tiers]]
name = "fast"
engine = "llama.cpp"
model = "{MODELS}/fast/fast.gguf"
context_tokens = 1024
threads = 1
[[tiers]]
name = "wide"
engine = "vllm"
model = "{MODELS}/fast"
python = "{VLLM_PYTHON}"
start = "lazy"
context_tokens = 512
flags = ["--enforce-eager", "--dtype", "float32", "--max-num-seqs", "4"]
[[tiers]]
name = "deep"
engine = "llama.cpp"
model = "{MODELS}/deep/deep.gguf"
start = "lazy"
context_tokens = 1024
threads = 1
nominal_load_s = {NOMINAL_S}
"""
SESSION = """# Session: LEARNING
**Date:** 2026-02-22 15:08
**Drive:** LEARNING (137%)
**Topic:** What this machine can do

## What I Already Know

- The drives ask for more at night than by day.

## What I Need to Learn

1. **Speed:** How fast is this machine's memory?
2. **Talk:** What latency has a small all-reduce, and what bandwidth a large one?
3. **Start-up:** Do the engines here pass a check of what a start needs?
4. **Loading:** How long does deep take to load, and does the page cache help?
5. **Idle:** What memory does an idle model keep, and what a stopped one?
6. **Batching:** From how many requests at once on does throughput saturate?
7. **Same answers:** Does a split change the answers of a model?
8. **Threads:** Which threads or split modes suit llama.cpp best?
9. **Quantisation:** Can a quantized model be split over two GPUs at all?

## Depth

**Moderate** — Questions, and no answers yet.
"""
#: The experiments, and the kind of question on the board that each answers here.
KINDS = {
    "startup": "startup",
    "machine_speed": "machine_speed",
    "collectives": "collectives",
    "load_time": "load_time",
    "idle_and_swap": "idle_memory",
    "saturation": "saturation",
    "split_answers": "split_answers",
    "split_modes": "split_modes",
}
#: Those that a busy machine may leave inconclusive: then their questions stay open, and the session says why.
DOUBTFUL = {"saturation", "split_modes"}
#: So many different ones are what `next` chose; the others are asked for by name: of what, and the minutes.
FROM_NEXT = 4
BY_NAME: dict[str, tuple[str, float | None]] = {
    "split_answers": ("fast", None),
    "idle_and_swap": ("deep", None),
    "load_time": ("deep", None),
    "collectives": ("machine", 0.5),
    "saturation": ("fast", 0.5),
}
#: Wants the deep tier, if that can be up in time.
HARD = ThinkRequest(
    messages=[Message(role="user", content="Why?")], complexity=1.0, max_tokens=4, deadline_s=NOMINAL_S / 2
)


@dataclass
class Told:
    """A run as it went: who chose it, and how the drives stood before and after it."""

    run: RunRecord
    again: RunRecord
    chosen: dict[str, Any] | None
    before: dict[str, float]
    after: dict[str, float]


@dataclass
class World:
    """All that came of it; the daemon is down, and the journal is there to be read."""

    config: Config
    diary: Diary
    gaps: list[GapRecord]
    load_s: list[float]
    routes: list[Route]
    told: list[Told] = field(default_factory=list)
    suggested: list[dict[str, Any]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def of(self, experiment: str) -> Told:
        """Return the first run of an experiment."""
        return next(one for one in self.told if one.run.experiment == experiment)

    def is_answered(self, experiment: str) -> bool:
        """Return whether a run found out what was asked."""
        report = self.of(experiment).run.report
        assert report is not None
        conclusive = report_from_json(report).answers[0].outcome != "inconclusive"
        assert conclusive or experiment in DOUBTFUL
        return conclusive

    def was_answered(self, experiment: str) -> bool:
        """Return whether any run of an experiment, of whichever subject, found out what was asked."""
        reports = [one.run.report for one in self.told if one.run.experiment == experiment]
        return any(report_from_json(one).answers[0].outcome != "inconclusive" for one in reports if one)

    def raw(self, experiment: str, metric: str, arm: str) -> list[float]:
        """Return the raw samples of a run."""
        readings = experiments.readings(self.diary, self.of(experiment).run.id)
        return [one.value for one in readings if (one.metric, one.arm) == (metric, arm)]

    def facts(self, run: RunRecord) -> list[FactRecord]:
        """Return what a run left on the board, in the order of its report."""
        assert run.session_id
        return board_queries.facts_of(self.diary, run.session_id)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    folder = Path(tempfile.mkdtemp(prefix="sub-"))
    file = folder / "config.toml"
    file.write_text(CONFIG)
    (folder / "asked.md").write_text(SESSION)
    said(file, "sessions", "import", folder / "asked.md")
    config = load(file, {})
    client = Client(config)
    with Diary.open(config.database_path) as diary:
        found = World(
            config,
            diary,
            board_queries.gaps(diary),
            [cost_book(config).cost("deep").load_s],
            [],
        )
        try:
            client.start_daemon()
            until(client, lambda status: status.tiers[0].state is TierState.READY)
            found.routes.append(client.route(HARD))
            while len({one.run.experiment for one in found.told}) < FROM_NEXT:
                raise_drives(file)
                (first, *_) = said(file, "experiments", "next")
                found.told.append(asked(client, file, ["next"], chosen=first))
            for name, (subject, minutes) in BY_NAME.items():
                if name not in {one.run.experiment for one in found.told}:
                    raise_drives(file)
                    found.told.append(asked(client, file, [name], subject=subject, minutes=minutes))
            found.routes.append(client.route(HARD))
        finally:
            stop(client)
        wait_for(lambda: not any("subcortex.daemon" in one for one in processes_of(folder)))
        found.left = processes_of(folder)
        found.load_s.append(cost_book(config).cost("deep").load_s)
        found.suggested = said(file, "config", "suggest")["suggestions"]
        yield found
    shutil.rmtree(folder, ignore_errors=True)


def said(file: Path | None, *arguments: object) -> Any:
    assert file is not None
    result = invoke(*arguments, "--config", file, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def raise_drives(file: Path) -> None:
    for name in ("LEARNING", "CURIOSITY"):
        said(file, "drives", "bump", name, "30")


def levels(file: Path) -> dict[str, float]:
    return {one["drive"]: one["pressure"] for one in said(file, "drives")["drives"]}


def asked(
    client: Client, file: Path, names: list[str], *, chosen: dict[str, Any] | None = None, **options: Any
) -> Told:
    """Have one run done, ask for the very same once more, and say how the drives stood."""
    before = levels(file)
    (run,) = client.run_experiments(names, **options)
    seen = list(client.watch_experiment(run.id))[-1]
    assert seen.state == "settled", seen.error
    (again,) = client.run_experiments([run.experiment], subject=run.subject)
    if again.id != seen.id:
        # What was inconclusive is measured anew for whoever asks; here its second try is not waited for.
        client.cancel_experiment(again.id)
    return Told(seen, again, chosen, before, levels(file))


def processes_of(folder: Path) -> list[str]:
    """Return the engines, probes and workers that were started from below a folder and still live."""
    found = []
    for one in psutil.process_iter():
        try:
            own = [*one.cmdline(), one.environ().get(MARK_VARIABLE, "")]
            if one.status() != psutil.STATUS_ZOMBIE and any(str(folder) in word for word in own):
                found.append(" ".join(own))
        except psutil.Error:
            continue
    return found


def sections(text: str) -> dict[str, str]:
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def numbers(text: str) -> list[float]:
    return [float(one) for one in re.findall(r"\d+(?:\.\d+)?", text)]


def test_the_questions_of_the_session_are_of_the_kinds_that_were_asked(world: World) -> None:
    assert {gap.kind for gap in world.gaps} == {*KINDS.values(), "quantisation_tp"}
    assert {gap.state for gap in world.gaps} == {"open"}


def test_seven_and_more_were_run_and_next_ran_what_it_had_named_with_its_reasons(world: World) -> None:
    assert {one.run.experiment for one in world.told} == KINDS.keys()
    chosen = [one for one in world.told if one.chosen is not None]
    assert len({one.run.experiment for one in chosen}) == FROM_NEXT
    for one in chosen:
        first = one.chosen
        assert first is not None
        assert (first["experiment"], first["subject"]) == (one.run.experiment, one.run.subject)
        assert one.run.gap_id == (first["gaps"] or [None])[0]
        assert first["why"].endswith(" a minute.")
        assert first["bits"] > 0
        assert first["gpu_minutes"] > 0
        assert first["expects"]["low"] < first["expects"]["high"]
    first = chosen[0].chosen
    assert first is not None
    assert "with LEARNING at" in first["why"]


@pytest.mark.parametrize("name", KINDS)
def test_its_gap_is_answered_by_a_fact_with_a_birth_certificate_and_raw_samples(
    world: World, name: str
) -> None:
    run = world.of(name).run
    (asked_first,) = [gap for gap in world.gaps if gap.kind == KINDS[name]]
    gap = board_queries.gap(world.diary, asked_first.id)
    facts = world.facts(run)
    if world.is_answered(name):
        assert (gap.state, gap.closed_by) == ("answered", run.session_id)
        assert gap.fact_id in {fact.id for fact in facts}
    assert run.report is not None
    for fact, answer in zip(facts, report_from_json(run.report).answers, strict=True):
        told = (fact.quantity, fact.subject, fact.unit, fact.value, fact.low, fact.high, fact.n)
        assert told == (
            *(answer.quantity, answer.about, answer.unit),
            *(answer.value, answer.low, answer.high, answer.n),
        )
        assert (fact.source, fact.provenance["run"]) == ("measurement", run.id)
        certificate = fact.provenance["certificate"]
        assert certificate["cores"] == psutil.cpu_count()
        assert certificate["experiment"] == name
        if run.subject != "machine":
            assert certificate["model"]["path"].startswith(str(MODELS))
            assert certificate["engine"]["version"]
    readings = experiments.readings(world.diary, run.id)
    metrics = {one.metric for one in readings}
    measured = [fact for fact in facts if fact.provenance["outcome"] not in ("passed", "failed")]
    for fact in measured:
        assert fact.n is not None
        assert fact.n >= 1
    first = facts[0]
    if first in measured:
        assert first.value is not None
        # On a busy machine the half minute of the collectives may end with one block, which has no interval.
        if first.n != 1 or name != "collectives":
            assert first.low is not None
            assert first.high is not None
            assert first.low <= first.value <= first.high
        assert first.provenance["series"] in metrics
        assert len(readings) >= (first.n or 0)
    assert all(one.readings for one in readings if one.metric == first.provenance["series"])
    assert experiments.commands(world.diary, run.id) or experiments.boots(world.diary, run.id)


def test_facts_are_the_medians_of_the_raw_samples(world: World) -> None:
    for name, metric, arm, words in (
        ("load_time", "load", "mapped warm", "mapped and all of it in memory"),
        ("idle_and_swap", "held", "idle", "idle and ready"),
    ):
        fact = next(one for one in world.facts(world.of(name).run) if words in one.statement)
        raw = world.raw(name, metric, arm)
        # The first of many may be warm-up.
        assert fact.n is not None
        assert len(raw) / 2 <= fact.n <= len(raw)
        assert fact.value == pytest.approx(statistics.median(raw[-fact.n :]))


@pytest.mark.parametrize("name", KINDS)
def test_its_session_has_the_seeds_shape_and_the_reports_figures(world: World, name: str) -> None:
    run = world.of(name).run
    shown = said(world.config.source, "sessions", "show", run.session_id)
    file = world.config.resolve(world.config.journal.sessions_dir) / shown["file"]
    text = file.read_text()
    assert re.match(
        r"# Session: (LEARNING|CURIOSITY)\n\*\*Date:\*\* \d{4}-\d\d-\d\d \d\d:\d\d\n"
        r"\*\*Drive:\*\* \1 \(\d+(\.\d)?%\)\n\*\*Topic:\*\* .+\n",
        text,
    )
    parts = sections(text)
    wanted = ["What I Already Know", "What I Need to Learn", "What I Did", "What I Noticed"]
    assert [one for one in parts if one in wanted] == wanted
    assert list(parts)[-1] == "Depth"
    assert run.inquiry["question"] in parts["What I Need to Learn"]
    (gap,) = [gap for gap in world.gaps if gap.kind == KINDS[name]]
    assert gap.question in parts["What I Need to Learn"]
    assert run.report is not None
    there = numbers(parts["What I Noticed"])
    if not world.is_answered(name):
        assert "inconclusive" in parts["What I Noticed"]
        assert f'Leaves open "{gap.question}"' in parts["What I Noticed"]
    for answer in report_from_json(run.report).answers:
        assert answer.statement.rstrip(".") in parts["What I Noticed"]
        if answer.outcome == "inconclusive":
            continue
        # Seconds are told in milliseconds where they are few.
        scales = (1.0, 1000.0) if answer.unit == "s" else (1.0,)
        for figure in (answer.value, answer.low, answer.high):
            told = [pytest.approx((figure or 0.0) * scale, rel=5e-3, abs=1e-9) for scale in scales]
            assert figure is None or any(one in told for one in there), answer
        assert answer.n is None or answer.n in there


@pytest.mark.parametrize("name", KINDS)
def test_the_drive_that_wanted_to_know_is_satisfied_by_it(world: World, name: str) -> None:
    told = world.of(name)
    history = said(world.config.source, "drives", "history", "--limit", "100")
    (moved,) = [one for one in history if one["session_id"] == told.run.session_id]
    assert moved["kind"] == "satisfied"
    assert moved["drive"] in ("LEARNING", "CURIOSITY")
    assert told.after[moved["drive"]] < told.before[moved["drive"]]
    if told.run.gap_id and told.chosen:
        assert moved["drive"] == told.run.drive == "LEARNING"


@pytest.mark.parametrize("name", KINDS)
def test_asked_again_it_is_answered_from_memory(world: World, name: str) -> None:
    told = world.of(name)
    if not world.is_answered(name):
        assert (told.again.experiment, told.again.digest) == (name, told.run.digest)
        assert told.again.id != told.run.id
        return
    assert told.again == told.run
    assert told.again.lives == 1
    same = [run.id for run in experiments.runs(world.diary) if run.digest == told.run.digest]
    assert same == [told.run.id]


def test_the_route_goes_by_what_was_measured(world: World) -> None:
    before, after = world.load_s
    assert before == NOMINAL_S
    started = [*world.raw("load_time", "load", "mapped warm"), *world.raw("idle_and_swap", "start", "warm")]
    assert min(started) <= after <= max(started) < NOMINAL_S / 2
    was, now = world.routes
    waits = [next(one.wait_s for one in route.alternatives if one.tier == "deep") for route in world.routes]
    assert waits[0] == pytest.approx(NOMINAL_S, rel=0.05)
    assert min(started) <= waits[1] <= max(started)
    # As far as the deadline can tell, it was too far away; as has been measured, it is not.
    assert was.tier == "fast"
    assert now.tier == "deep"


def test_the_configuration_should_have_what_was_measured(world: World) -> None:
    found = {(one["tier"], one["key"]): one for one in world.suggested}
    load = found["deep", "nominal_load_s"]
    assert load["old"] == NOMINAL_S
    assert load["new"] == pytest.approx(world.load_s[1], rel=0.5)
    ids = {one.run.id for one in world.told}
    assert all(set(one["run_ids"]) <= ids and one["reason"] for one in world.suggested)


def test_what_was_not_found_out_stays_open(world: World) -> None:
    left = {gap.kind for gap in board_queries.gaps(world.diary, state="open") if gap.found_by == "rule"}
    assert left == {"quantisation_tp"} | {KINDS[name] for name in KINDS if not world.was_answered(name)}


def test_nothing_is_left_of_engines_and_probes(world: World) -> None:
    boots = [one for told in world.told for one in experiments.boots(world.diary, told.run.id)]
    assert len(boots) > 10
    assert world.left == []
