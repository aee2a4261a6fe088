"""Ticks when things go wrong: engines that fail, a journal that is locked, a folder that is none, secrets."""

from __future__ import annotations

import json
import sqlite3
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from subcortex.errors import DoesNotFit, EngineFailed, JournalError, Overloaded
from subcortex.journal.board import gaps_in
from subcortex.journal.diary import Diary, board, board_queries, sessions
from subcortex.journal.diary import drives as kept
from subcortex.journal.diary import session_queries as queries
from subcortex.journal.diary.board_records import NewFact
from subcortex.journal.diary.evidence import last_thought_at
from subcortex.journal.rows import timestamp
from subcortex.mind.agent import notebook
from subcortex.mind.agent.decision import rests_until
from subcortex.mind.agent.notebook import Notebook
from subcortex.types import Depth, ThinkRequest, Thought
from tests.drives.emergence_state import drive, write
from tests.mind.agent.helpers import NOTES, Thinker, grown, imported, only, pressure, tick, whole


def held_sessions(diary: Diary) -> list[str]:
    return [found.id for found in queries.sessions(diary, limit=100) if found.kind == "session"]


def test_an_engine_that_fails_has_not_a_session_a_minute(config, diary, clock):
    only(config, "care")
    grown(config, diary, clock, 12)
    before = pressure(diary, "CARE")
    held = []
    for _ in range(61):
        outcome = tick(config, diary, Thinker(EngineFailed("deep died")))
        if outcome.did == "held":
            held.append(clock.at)
        else:
            assert outcome.reason == "the last sessions came to nothing, so these rest: CARE"
        clock.at += timedelta(minutes=1)
    # It rests five minutes, then ten, twenty, forty.
    assert [(at - held[0]) / timedelta(minutes=1) for at in held] == [0, 5, 15, 35]
    assert pressure(diary, "CARE") > before
    clock.at += timedelta(hours=4)
    assert tick(config, diary, Thinker("At last.")).depth is Depth.SHALLOW


def test_a_rest_is_bounded_and_a_clock_set_back_ends_it(config, diary, clock):
    at = datetime(2026, 3, 2, tzinfo=UTC)
    assert [(rests_until(at, n) - at) / timedelta(minutes=1) for n in (1, 2, 6, 7, 1000)] == [
        5,
        10,
        160,
        240,
        240,
    ]
    only(config, "care")
    grown(config, diary, clock, 12)
    tick(config, diary, Thinker(EngineFailed("deep died")))
    clock.at -= timedelta(days=1)
    assert tick(config, diary, Thinker("Back in time.")).did == "held"


def test_a_person_who_says_none_makes_no_drive_rest(config, diary, clock):
    only(config, "care")
    grown(config, diary, clock, 12)
    kept.record(diary, "CARE", "thwarted", reason="said by hand")
    assert tick(config, diary, Thinker("Answered.")).did == "held"


def test_one_that_rests_leaves_the_turn_to_the_next(config, diary, clock):
    grown(config, diary, clock, 12)
    assert tick(config, diary, Thinker(EngineFailed("deep died"))).drive == "CARE"
    assert tick(config, diary, Thinker("An answer.")).drive == "LEARNING"


class Locked(Thinker):
    """Answers, and lets another program lock the journal before the answer is kept."""

    def __init__(self, path: Path, *answers: str) -> None:
        super().__init__(*answers)
        self.other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)

    def __call__(self, request: ThinkRequest) -> Thought:
        thought = super().__call__(request)
        self.other.execute("BEGIN IMMEDIATE")
        return thought


def test_a_journal_that_is_locked_leaves_the_session_open_and_the_same_process_goes_on_with_it(
    config, diary, clock
):
    """`agent run` lives on after such an error; its own open session is no stranger's."""
    only(config, "care")
    grown(config, diary, clock, 12)
    with Diary.open(config.database_path, clock=clock, busy_timeout_s=0.05) as hasty:
        think = Locked(config.database_path, "Lost to the lock.")
        with pytest.raises(JournalError, match="locked"):
            tick(config, hasty, think)
        think.other.execute("ROLLBACK")
        think.other.close()
        (begun,) = sessions.open_sessions(hasty, origin="tick")

        outcome = tick(config, hasty, Thinker("Kept."))

    assert (outcome.did, outcome.session_id, outcome.depth) == ("held", begun, Depth.SHALLOW)
    assert held_sessions(diary) == [begun]
    assert "Kept." in whole(diary, outcome).text
    assert kept.levels(diary)["CARE"].thwarted == 0


def test_what_the_board_gave_goes_on_it_no_second_time(config, diary, clock):
    imported(diary)
    only(config, "learning")
    (known,) = board_queries.claims(diary, state="refuted")
    grown(config, diary, clock, 12)

    outcome = tick(config, diary, Thinker("A copy reaches 25 GB/s of PCIe 4.0 x16.", "It is all said."))

    text = whole(diary, outcome).text
    assert known.statement in text
    assert "(refuted: " in text
    claims = board_queries.claims(diary, session_id=outcome.session_id)
    assert [claim.statement for claim in claims] == ["A copy reaches 25 GB/s of PCIe 4.0 x16."]
    # The question stands in it as well, and is raised by no one but its own session.
    assert board_queries.gaps(diary, session_id=outcome.session_id) == []


def test_quiet_hours_that_begin_in_the_middle_put_off_the_second_thought(config, diary, clock):
    imported(diary)
    only(config, "learning")
    grown(config, diary, clock, 12)
    night = clock.at.astimezone().replace(hour=2, minute=1).astimezone(UTC) + timedelta(days=1)
    clock.at = night - timedelta(minutes=2)

    class Slow(Thinker):
        def __call__(self, request: ThinkRequest) -> Thought:
            clock.at += timedelta(minutes=5)
            return super().__call__(request)

    think = Slow("The first answer.")
    outcome = tick(config, diary, think)
    assert (outcome.did, outcome.reason) == ("deferred", "these are quiet hours (02:00-03:00)")
    assert len(think.requests) == 1
    (begun,) = sessions.open_sessions(diary, origin="tick")
    assert tick(config, diary).did in ("deferred", "waited")
    clock.at += timedelta(hours=1)
    looks_back = Thinker("Nothing is open.")
    outcome = tick(config, diary, looks_back)
    assert (outcome.session_id, outcome.depth) == (begun, Depth.MODERATE)
    assert "The first answer." in looks_back.requests[0].messages[0]["content"]


def test_a_daemon_that_takes_no_more_puts_off_and_thwarts_nobody(config, diary, clock):
    only(config, "care")
    grown(config, diary, clock, 12)
    outcome = tick(config, diary, Thinker(Overloaded("256 thoughts wait")))
    assert (outcome.did, outcome.reason) == ("deferred", "256 thoughts wait")
    assert [event.kind for event in kept.history(diary, "CARE")] == ["triggered"]
    assert tick(config, diary, Thinker("Now.")).session_id == outcome.session_id


def test_a_second_thought_that_fails_leaves_what_the_first_was_worth(config, diary, clock):
    imported(diary)
    only(config, "learning")
    grown(config, diary, clock, 12)
    outcome = tick(config, diary, Thinker("The first answer.", EngineFailed("deep died")))
    assert (outcome.did, outcome.depth) == ("held", Depth.SHALLOW)
    assert outcome.level_after == pytest.approx(84.0)
    text = whole(diary, outcome).text
    assert "The first answer." in text
    assert "deep died" in text


def test_an_answer_without_words_is_no_thought_that_was_had(config, diary, clock):
    only(config, "care")
    grown(config, diary, clock, 12)
    outcome = tick(config, diary, Thinker("  \n"))
    assert (outcome.did, outcome.depth) == ("held", Depth.NONE)
    assert "has no words in it" in outcome.reason


def test_a_machine_in_use_is_told_once_for_each_reason_and_not_each_minute(config, diary, clock):
    grown(config, diary, clock, 12)
    reasons = ["thoughts are at work", "a thought came in the last 60 s"] * 10
    did = [tick(config, diary, busy=reason).did for reason in reasons]
    assert did == ["deferred", "deferred", *["waited"] * 18]
    # A session is news: what holds up the next one is told again.
    tick(config, diary, Thinker("Care was had."))
    tick(config, diary, Thinker("So was learning."))
    clock.at += timedelta(hours=24)
    assert tick(config, diary, busy=reasons[0]).did == "deferred"


def test_a_drive_that_joins_those_put_off_is_put_off_on_record(config, diary, clock):
    grown(config, diary, clock, 12)
    only(config, "care")
    assert tick(config, diary, busy="thoughts are at work").did == "deferred"
    (config.drives_dir / "play.toml").write_text(
        'description = "d"\nprompt = "p"\nthreshold = 1.0\nrate_per_hour = 0.0'
    )
    from subcortex.mind.keeping import DriveKeeper

    DriveKeeper(config, diary).bump("PLAY", 1.5)
    assert tick(config, diary, busy="thoughts are at work").did == "deferred"
    assert next(event.kind for event in kept.history(diary, "PLAY")) == "deferred"


def test_while_an_agent_holds_a_session_of_its_own_no_other_begins(config, diary, clock):
    grown(config, diary, clock, 12)
    book = Notebook.begin(diary, config, str, drives=[], origin="agent")
    outcome = tick(config, diary)
    assert (outcome.did, outcome.reason) == (
        "deferred",
        "the machine is not idle: an agent holds a session of its own",
    )
    book.end()
    assert tick(config, diary).did == "held"


def thought_row(diary: Diary, number: int, at: datetime, session: str | None) -> None:
    with diary.transaction() as conn:
        conn.execute(
            "INSERT OR IGNORE INTO daemon_runs (id, started_at, pid, version)"
            " VALUES ('r', '2026-03-02T00:00:00Z', 1, '0')"
        )
        conn.execute(
            "INSERT INTO thoughts (id, run_id, status, created_at, ended_at, session, tier, model, engine,"
            " route, params, recorded)"
            " VALUES (?, 'r', 'completed', ?, ?, ?, 'deep', 'm', 'e', '{}', '{}', 'full')",
            (f"t{number:02}", timestamp(at), timestamp(at), session),
        )


def test_the_thoughts_of_ticks_are_no_sign_that_somebody_needs_the_machine(config, diary, clock):
    assert last_thought_at(diary) is None
    grown(config, diary, clock, 12)
    outcome = tick(config, diary, Thinker("Care was had."))
    asked = clock.at - timedelta(hours=1)
    thought_row(diary, 1, clock.at, outcome.session_id)
    assert last_thought_at(diary) is None
    thought_row(diary, 2, asked, "a session of an agent's")
    assert last_thought_at(diary) == asked
    # One that began earlier may end later.
    thought_row(diary, 3, asked - timedelta(minutes=9), None)
    thought_row(diary, 4, clock.at, outcome.session_id)
    assert last_thought_at(diary) == asked


def test_a_folder_that_takes_no_file_is_said_and_the_session_is_kept(config, diary, clock, tmp_path):
    (tmp_path / "sessions").write_text("no folder")
    grown(config, diary, clock, 12)
    outcome = tick(config, diary, Thinker("Kept."))
    assert outcome.did == "held"
    assert outcome.not_filed
    assert "Kept." in whole(diary, outcome).text


@pytest.mark.parametrize("step", ["note_session", "file_away"])
def test_an_agent_killed_while_its_session_ended_is_made_good(config, diary, tmp_path, monkeypatch, step):
    class Killed(BaseException):
        pass

    def killed(*_args, **_more):
        raise Killed

    book = Notebook.begin(diary, config, str, drives=[], origin="agent")
    book.note("Open question: How fast is the disk?")
    book.note("Second.")
    with monkeypatch.context() as patched:
        patched.setattr(notebook, step, killed)
        with pytest.raises(Killed):
            book.end()
    assert tick(config, diary).did == "waited"
    record = queries.session(diary, book.id)
    assert record is not None
    assert record.evidence_depth is Depth.MODERATE
    assert (tmp_path / "sessions" / str(record.file)).read_bytes() == record.content
    asked = [gap.question for gap in board_queries.gaps(diary, session_id=book.id)]
    assert asked == ["How fast is the disk?"] == [gap.question for gap in gaps_in(record.text)]


#: Lowers the drive that it is told of in the state that its configuration names.
_EMERGENCE = """#!{python}
import json, os, sys
from pathlib import Path
settings = json.loads(Path(os.environ["EMERGENCE_CONFIG"]).read_text())
file = Path(settings["paths"]["workspace"]) / settings["paths"]["state"] / "drives-state.json"
state = json.loads(file.read_text())
state["drives"][sys.argv[-2]]["pressure"] *= {{"shallow": 0.7, "moderate": 0.5}}[sys.argv[-1]]
file.write_text(json.dumps(state))
"""


@pytest.mark.parametrize("name", ["好奇心", "deep work", "Straße"])
def test_a_drive_of_any_name_is_satisfied_under_that_name(config, diary, clock, tmp_path, name):
    state = write(
        tmp_path / "state", {name: drive()}, {name: {"pressure": 30.0}}, last_tick="2999-01-01T00:00:00+00:00"
    )
    command = tmp_path / "emergence"
    command.write_text(_EMERGENCE.format(python=sys.executable))
    command.chmod(0o755)
    drives = config.drives.model_copy(update={"emergence": str(state), "emergence_command": str(command)})
    followed = config.model_copy(update={"drives": drives})

    outcome = tick(followed, diary, Thinker("A thought."))

    assert (outcome.did, outcome.drive) == ("held", name)
    assert (outcome.level_before, outcome.level_after) == (150.0, 105.0)
    kinds = [(event.drive, event.kind) for event in kept.history(diary)]
    assert kinds == [(name, "satisfied")]
    assert json.loads((state / "drives-state.json").read_text())["drives"][name]["pressure"] == 21.0


def test_a_fact_that_answers_in_a_session_makes_it_deep(config, diary):
    """Evidence counts what a session's measurement closed; its prompt and its error count for nothing."""
    imported(diary)
    (gap,) = board_queries.gaps(diary)
    book = Notebook.begin(diary, config, str, drives=[], origin="agent")
    book.trouble(ValueError("counts for nothing"))
    fact = NewFact(
        source="measurement",
        quantity="rate",
        subject="PCIe",
        statement="25 GB/s",
        provenance={"program": "test"},
        value=25.0,
        unit="GB/s",
    )
    found = board.add_fact(diary, fact, session_id=book.id)
    board.answer(diary, gap.id, "25 GB/s", session_id=book.id, fact_id=found.id)
    record = book.end()
    assert record.evidence_depth is Depth.DEEP
    assert record.evidence_reasons[0] == "0 thoughts and 0 notes"


def test_many_thoughts_are_shown_whole_as_far_as_a_file_goes_and_then_by_their_figures(config, diary):
    def tell(thought_id: str) -> str:
        return f"- deep: `{thought_id}`\n\n{'long ' * 20_000}"

    book = Notebook.begin(diary, config, tell, drives=[], origin="agent")
    for number in range(30):
        book.thought(f"{number:02}")
    record = book.end()
    assert all(f"`{number:02}`" in record.text for number in range(30))
    assert record.text.count("long long") > 9 * 9_000
    assert len(record.content) < 1_200_000


class Small(Thinker):
    """A model whose context takes so many characters."""

    def __init__(self, characters: int, *answers: str) -> None:
        super().__init__(*answers)
        self.characters = characters

    def __call__(self, request: ThinkRequest) -> Thought:
        prompt = request.messages[0]["content"]
        if len(prompt) > self.characters:
            self.requests.append(request)
            raise DoesNotFit(f"the prompt of {len(prompt)} characters does not fit")
        return super().__call__(request)


def test_a_small_context_gets_as_much_of_what_is_known_as_it_takes(config, diary, clock):
    lines = "".join(f"- PCIe 4.0 x16 carries {rate} GB/s each direction\n" for rate in range(50, 70))
    imported(diary, NOTES.replace("- PCIe 4.0 x16 carries 64 GB/s each direction\n", lines))
    only(config, "learning")
    grown(config, diary, clock, 12)
    think = Small(1000, "word " * 400, "Open question: How fast is a copy?")
    outcome = tick(config, diary, think)
    assert outcome.depth is Depth.MODERATE
    record = whole(diary, outcome)
    given = next(entry.text for entry in record.entries if entry.section == "What Was Known")
    # Twelve lines at most, halved until they fit: what the session tells is what was asked.
    assert 1 <= len(given.splitlines()) <= 6
    answered = [request for request in think.requests if len(request.messages[0]["content"]) <= 1000]
    assert len(answered) == 2
    assert given in answered[0].messages[0]["content"]
    assert "word word" in answered[1].messages[0]["content"]
    assert len(board_queries.gaps(diary, session_id=outcome.session_id)) == 1


def test_a_context_that_takes_no_question_at_all_is_an_error_that_ends_the_session(config, diary, clock):
    imported(diary)
    only(config, "learning")
    grown(config, diary, clock, 12)
    outcome = tick(config, diary, Small(10))
    assert outcome.depth is Depth.NONE
    text = whole(diary, outcome).text
    assert "How much of the bandwidth" in text
    assert "does not fit" in text
