"""Ticks on a real journal; thoughts are answered, fail, or kill the process, as the test decides."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, timedelta
from pathlib import Path

import pytest

from subcortex.errors import EngineFailed
from subcortex.journal.diary import Diary, board_queries, sessions
from subcortex.journal.diary import drives as kept
from subcortex.journal.diary import session_queries as queries
from subcortex.journal.sessions import parse as parse_session
from subcortex.journal.sessions import read
from subcortex.mind.agent import Outcome
from subcortex.mind.board import note_session
from subcortex.types import Depth, ThinkRequest, Thought
from tests.mind.agent.helpers import Thinker, grown, pressure, tick, whole

QUESTIONS = """# Session: LEARNING
**Date:** 2026-02-22 15:08

## What I Need to Learn

1. **Load time:** How long does a cold start of the 8B take?
2. **Swap:** What does a sleeping model keep?
"""


def test_a_drive_that_is_triggered_has_a_session_and_falls_by_its_depth(config, diary, clock, tmp_path):
    assert tick(config, diary).did == "waited"
    clock.at += timedelta(hours=9)
    assert tick(config, diary).reason == "no drive is triggered"
    clock.at += timedelta(hours=3)
    think = Thinker("Somebody should be asked how they are.")

    outcome = tick(config, diary, think)

    # Both stand at 120 %, and CARE comes first by name; one thought is one thing, however it is listed.
    assert (outcome.did, outcome.drive, outcome.depth) == ("held", "CARE", Depth.SHALLOW)
    assert outcome.level_before == pytest.approx(120.0)
    assert outcome.level_after == pytest.approx(84.0)
    assert pressure(diary, "CARE") == pytest.approx(8.4)
    assert pressure(diary, "LEARNING") == pytest.approx(12.0)
    (request,) = think.requests
    assert (request.drive, request.session, request.complexity) == ("CARE", outcome.session_id, None)
    assert request.messages[0]["content"] == "Think about CARE."
    record = whole(diary, outcome)
    (file,) = (tmp_path / "sessions").iterdir()
    assert file.read_bytes() == record.content
    assert file.name.endswith("-CARE.md")
    found = read(parse_session(record.text), file.name)
    assert [(drive.name, drive.level_percent) for drive in found.drives] == [("CARE", 120.0)]
    assert found.depth is Depth.SHALLOW
    assert "Somebody should be asked how they are." in record.text
    (event,) = kept.history(diary, "CARE", limit=1)
    assert (event.kind, event.depth, event.session_id) == ("satisfied", "shallow", record.id)


def test_learning_takes_up_the_best_question_and_asks_what_is_left_open(config, diary, clock):
    seen = read(parse_session(QUESTIONS), "2026-02-22-1508-LEARNING.md")
    first = sessions.add(diary, QUESTIONS, seen, file="2026-02-22-1508-LEARNING.md", origin="import")
    note_session(diary, first.id, QUESTIONS)
    grown(config, diary, clock, 12)
    # CARE would be first; it was satisfied a moment ago.
    tick(config, diary, Thinker("Care was had."))
    think = Thinker("Reckoned: 16 GB at 2 GB/s are 8 s.", "Open question: How fast is this disk when cold?")

    outcome = tick(config, diary, think)

    assert (outcome.did, outcome.drive) == ("held", "LEARNING")
    asked, second = think.requests
    assert asked.complexity == 1.0
    assert "How long does a cold start of the 8B take?" in asked.messages[0]["content"]
    assert "16 GB at 2 GB/s" in second.messages[0]["content"]
    opened = board_queries.gaps(diary, session_id=outcome.session_id)
    assert [gap.question for gap in opened] == ["How fast is this disk when cold?"]
    # Thinking closes no gap; the next session takes up another.
    clock.at += timedelta(hours=12)
    tick(config, diary, Thinker("Care again."))
    think = Thinker()
    tick(config, diary, think)
    assert "What does a sleeping model keep?" in think.requests[0].messages[0]["content"]


def test_a_thought_that_fails_leaves_a_session_without_depth_and_the_pressure(config, diary, clock):
    grown(config, diary, clock, 12)

    outcome = tick(config, diary, Thinker(EngineFailed("deep died")))

    assert (outcome.did, outcome.depth) == ("held", Depth.NONE)
    assert pressure(diary, "CARE") == pytest.approx(12.0)
    assert kept.levels(diary)["CARE"].thwarted == 1
    assert "deep died" in whole(diary, outcome).text


def test_quiet_hours_put_drives_off_once_and_say_so_in_a_deferral(config, diary, clock, tmp_path):
    grown(config, diary, clock, 12)
    clock.at = clock.at.astimezone().replace(hour=2, minute=30).astimezone(UTC) + timedelta(days=1)

    outcome = tick(config, diary)

    assert (outcome.did, outcome.drive) == ("deferred", "CARE")
    record = whole(diary, outcome)
    assert (record.kind, [drive.name for drive in record.drives]) == ("deferral", ["CARE", "LEARNING"])
    assert "quiet hours (02:00-03:00)" in record.text
    (file,) = (tmp_path / "sessions").iterdir()
    assert file.name.endswith("-deferral.md")
    clock.at += timedelta(minutes=1)
    assert tick(config, diary).did == "waited"
    assert len(list((tmp_path / "sessions").iterdir())) == 1
    clock.at += timedelta(hours=1)
    assert tick(config, diary).did == "held"


def test_a_busy_machine_puts_off_too(config, diary, clock):
    grown(config, diary, clock, 12)
    think = Thinker()
    outcome = tick(config, diary, think, busy="thoughts are at work")
    assert outcome.did == "deferred"
    assert "thoughts are at work" in outcome.reason
    assert think.requests == []


def test_the_minimum_interval_holds_between_two_sessions(config, diary, clock):
    (config.drives_dir / "learning.toml").unlink()
    grown(config, diary, clock, 40)
    # At 200 % before and 140 % after: it asks still, but two hours are its minimum.
    assert tick(config, diary).drive == "CARE"
    clock.at += timedelta(minutes=119)
    assert tick(config, diary).reason == "no drive is triggered"
    clock.at += timedelta(minutes=1)
    assert tick(config, diary).drive == "CARE"


def test_work_done_builds_what_time_does_not(config, diary, clock):
    grown(config, diary, clock, 1)
    assert pressure(diary, "REST") == 0.0
    with diary.transaction() as conn:
        conn.execute(
            "INSERT INTO daemon_runs (id, started_at, pid, version)"
            " VALUES ('r', '2026-03-02T00:00:00Z', 1, '0')"
        )
        for number in range(30):
            at = (clock.at - timedelta(minutes=number)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            conn.execute(
                "INSERT INTO thoughts"
                " (id, run_id, status, created_at, ended_at, tier, model, engine, route, params, recorded)"
                " VALUES (?, 'r', 'completed', ?, ?, 'deep', 'm', 'e', '{}', '{}', 'full')",
                (f"t{number:02}", at, at),
            )
    tick(config, diary)
    # Thirty thoughts, each worth a tenth of an hour of its growth.
    assert pressure(diary, "REST") == pytest.approx(3.0)
    tick(config, diary)
    assert pressure(diary, "REST") == pytest.approx(3.0)


_KILLED = """
import os, signal, sys
from pathlib import Path
from tests.mind.agent.helpers import Clock, Thinker
from subcortex.config import load
from subcortex.journal.diary import Diary
from subcortex.mind.agent import Agent
from subcortex.mind.agent import tick as module

config = load(Path(sys.argv[1]), {})
clock = Clock()
clock.at = type(clock.at).fromisoformat(sys.argv[2])

class Fatal(Thinker):
    def __call__(self, request):
        if sys.argv[3] == str(len(self.requests)):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(request)

if sys.argv[3] == "settle":
    module.Agent._settle = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
with Diary.open(config.database_path, clock=clock) as diary:
    Agent(config, diary, Fatal("The first answer.", "Open question: And the second?"), lambda: None).tick()
"""


@pytest.mark.parametrize("moment", ["0", "1", "settle"])
def test_a_tick_killed_in_the_middle_is_gone_on_with_by_the_next(config, clock, tmp_path, moment):
    """Killed before its first thought, between its two, and after its session before the drive was told."""
    file = tmp_path / "config.toml"
    file.write_text(
        f'''
[daemon]
runtime_dir = "{tmp_path}/run"
[journal]
database = "{tmp_path}/journal.db"
sessions_dir = "{tmp_path}/sessions"
[drives]
dir = "{tmp_path}/drives"
emergence = "off"
[agent]
idle_s = 0
[[tiers]]
name = "deep"
engine = "llama.cpp"
model = "deep.gguf"
'''
    )
    (tmp_path / "drives" / "care.toml").unlink()
    with Diary.open(config.database_path, clock=clock) as diary:
        seen = read(parse_session(QUESTIONS), None)
        first = sessions.add(diary, QUESTIONS, seen, file="2026-02-22-1508-LEARNING.md", origin="import")
        note_session(diary, first.id, QUESTIONS)
        tick(config, diary)
        clock.at += timedelta(hours=12)
    run = [sys.executable, "-c", _KILLED, str(file), clock.at.isoformat(), moment]
    root = Path(__file__).parents[3]
    killed = subprocess.run(run, cwd=root, capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr

    with Diary.open(config.database_path, clock=clock) as diary:
        think = Thinker(*(["The first answer."] if moment == "0" else []), "Open question: And the second?")
        outcome = tick(config, diary, think)
        assert (outcome.did, outcome.drive) == (
            ("held", "LEARNING") if moment != "settle" else ("waited", None)
        )
        held = [found for found in queries.sessions(diary) if found.origin == "tick"]
        assert [s.state for s in held] == ["ended"]
        record = queries.session(diary, held[0].id)
        assert record is not None
        assert record.text.count("The first answer.") == 1
        assert record.text.count("And the second?") == 1
        assert (tmp_path / "sessions" / str(record.file)).read_bytes() == record.content
        assert [event.kind for event in kept.history(diary, "LEARNING")].count("satisfied") == 1
        assert pressure(diary, "LEARNING") == pytest.approx(6.0)
        assert len(think.requests) == {"0": 2, "1": 1, "settle": 0}[moment]


def test_two_ticks_at_once_are_one(config, diary, clock):
    grown(config, diary, clock, 12)
    inner: list[Outcome] = []

    class Nested(Thinker):
        def __call__(self, request: ThinkRequest) -> Thought:
            inner.append(tick(config, diary))
            return super().__call__(request)

    outcome = tick(config, diary, Nested("Answered."))
    assert outcome.did == "held"
    assert [found.did for found in inner] == ["elsewhere"]
    assert len(queries.sessions(diary)) == 1
