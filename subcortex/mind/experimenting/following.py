"""What follows from a run's report: facts, answers, claims, session, drive. Done again, it changes nothing.

All that goes on the board and into the session is one transaction: a killed process leaves the run
``measured`` with nothing of it, or with all of it. File, starts of engines and drive come after it,
each only if it is still to be done; the run is ``settled`` last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from subcortex import hardware
from subcortex.config import Config
from subcortex.drives import Level
from subcortex.errors import InvalidRequest
from subcortex.experiments import catalogue
from subcortex.experiments.consequences.surprises import Moved as Learned
from subcortex.experiments.consequences.surprises import moved_by
from subcortex.experiments.experiment import Answer, Experiment, Inquiry
from subcortex.experiments.forms import inquiry_from_json, report_from_json
from subcortex.hardware import Hardware
from subcortex.journal.board import Gap, question_kind
from subcortex.journal.diary import Diary, board, board_queries, experiments, sessions
from subcortex.journal.diary import drives as kept
from subcortex.journal.diary import session_queries as queries
from subcortex.journal.diary.board_records import ClaimRecord, FactRecord, GapRecord, NewFact
from subcortex.journal.diary.evidence import evidence
from subcortex.journal.diary.experiment_records import RunRecord
from subcortex.journal.diary.session_records import EntryKind, SessionRecord
from subcortex.journal.sessions import DriveLevel, SessionText, compose, file_name, parse, rate, read
from subcortex.mind.agent.notebook import GAP, file_away, recorder_of, written
from subcortex.mind.boots import Predict
from subcortex.mind.experimenting import writeup
from subcortex.mind.experimenting.matching import answer_to, concerns, engine_of, is_conclusive
from subcortex.mind.experimenting.trial_boots import keep_boots
from subcortex.mind.foresight import foresight
from subcortex.mind.headings import LEARN, LEFT, MINE
from subcortex.mind.keeping import DriveKeeper, Moved
from subcortex.types import Depth

#: Whose it is to find things out, where no drive is named.
OF_FINDING_OUT = ("LEARNING", "CURIOSITY")
_REASON_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Followed:
    """What followed from a run.

    Args:
        run: As it is now, ``settled``.
        session: It was written up as.
        facts: Found out.
        answered: Questions that they closed.
        decided: Claims that they decided.
        raised: Questions that the report left.
        moved: The drive, as this call lowered it; None if it had been told before, or there is none.
        not_filed: Why the session has no file; None if it has.
    """

    run: RunRecord
    session: SessionRecord
    facts: tuple[FactRecord, ...]
    answered: tuple[GapRecord, ...]
    decided: tuple[ClaimRecord, ...]
    raised: tuple[GapRecord, ...]
    moved: Moved | None = None
    not_filed: str | None = None


def follow(
    diary: Diary,
    config: Config,
    run_id: str,
    *,
    keeper: DriveKeeper | None = None,
    experiment: Experiment | None = None,
    predict: Predict | None = None,
    look: Callable[[], Hardware] = hardware.detect,
) -> Followed:
    """Have everything follow from a run's report that is not there yet.

    Args:
        diary: The journal's database.
        config: Where sessions lie and whose drives they are.
        run_id: A run that is measured, or settled.
        keeper: The drives, if they are at hand.
        experiment: The run's, if it is not the catalogue's.
        predict: Foretells what a tier takes, so that the planner learns from the run's starts of engines.
        look: Returns the machine that they were on.

    Raises:
        InvalidRequest: There is no such run, or it has no report.
        EmergenceFailed: The drive could not be told; all else is done, and the next call tells it.
        JournalError: The database takes nothing now, or the report is a newer version's.
    """
    run = experiments.run(diary, run_id)
    if run.state not in ("measured", "settled") or run.report is None:
        raise InvalidRequest(
            f"nothing follows from the run {run.id}: it is {run.state}",
            hint="Let it come to its end first.",
            param="id",
        )
    keeper = keeper or DriveKeeper(config, diary)
    if run.session_id is None and run.state == "measured":
        level = _level(keeper, run)
        with diary.transaction():
            run = experiments.run(diary, run_id)
            if run.session_id is None:
                run = _written_up(diary, config, run, experiment or _found(run.experiment), level)
    if run.session_id is None:
        raise InvalidRequest(f"the session of the run {run.id} is gone", param="id")
    with diary.reading() as conn:
        session = queries.whole(conn, run.session_id)
    not_filed = file_away(session, config.resolve(config.journal.sessions_dir))
    moved = None
    if run.state == "measured":
        keep_boots(diary, run, predict or foresight(config), look)
        moved = _told(diary, keeper, session)
        run = experiments.settled(diary, run.id, session.id)
    return Followed(
        run,
        session,
        tuple(board_queries.facts_of(diary, session.id)),
        tuple(board_queries.closed_by(diary, session.id)),
        tuple(board_queries.decided_by(diary, session.id)),
        tuple(board_queries.gaps(diary, session_id=session.id)),
        moved,
        not_filed,
    )


def fact_of(run: RunRecord, answer: Answer) -> NewFact:
    """Return an answer as the board keeps it, with its birth certificate."""
    provenance = {
        "experiment": run.experiment,
        "run": run.id,
        "asked_of": run.subject,
        "certificate": run.provenance or {},
        "outcome": answer.outcome,
        "level": answer.level,
        "series": answer.series,
        "tier": answer.tier,
        "details": dict(answer.details),
    }
    return NewFact(
        source="measurement",
        quantity=answer.quantity,
        subject=answer.about,
        statement=answer.statement,
        provenance=provenance,
        value=answer.value,
        unit=answer.unit,
        low=answer.low,
        high=answer.high,
        n=answer.n,
        working=writeup.sentence(answer),
    )


def _found(name: str) -> Experiment | None:
    try:
        return catalogue.find(name)
    except InvalidRequest:
        return None


def _level(keeper: DriveKeeper, run: RunRecord) -> Level | None:
    """Return the drive that a run is for: its own, else the more pressed of those that want to find out."""
    levels = {level.drive: level for level in keeper.levels()}
    if run.drive is not None and run.drive in levels:
        return levels[run.drive]
    pressed = [levels[name] for name in OF_FINDING_OUT if name in levels]
    return max(pressed, key=lambda level: level.percent, default=None)


def _written_up(
    diary: Diary, config: Config, run: RunRecord, experiment: Experiment | None, level: Level | None
) -> RunRecord:
    """Put all that follows on the board, and write the session; within a transaction."""
    inquiry, report = inquiry_from_json(run.inquiry), report_from_json(run.report or {})
    raw = writeup.Raw(
        experiments.readings(diary, run.id),
        experiments.commands(diary, run.id),
        experiments.boots(diary, run.id),
    )
    before = _before(diary, run, inquiry, experiment)
    drives = [DriveLevel(level.drive, round(level.percent, 1))] if level else []
    session = sessions.open_session(
        diary,
        drives,
        origin="agent",
        topic=inquiry.question,
        pressure_before=level.pressure if level else None,
    )
    facts = [
        (answer, board.add_fact(diary, fact_of(run, answer), session_id=session.id))
        for answer in report.answers
    ]
    answered, unanswered = _answered(diary, run, before.gaps, facts, session.id)
    decided = [
        claim
        for answer, fact in facts
        if fact.value is not None and is_conclusive(answer)
        for claim in board.decide_by_fact(diary, fact.id)
    ]
    raised = _raised(diary, report.gaps, session.id)
    report = replace(report, gaps=tuple(gap.question for gap in raised))
    learned: Learned | None = moved_by(inquiry, report.answers)
    followed = writeup.Followed(answered, unanswered, decided)
    sections = [
        *writeup.opening(run, inquiry, before, raw),
        *writeup.closing(inquiry, report, raw, learned, followed),
    ]
    fields = [("Experiment", f"{run.experiment} of {run.subject}"), ("Run", run.id)]
    fields += [(GAP, run.gap_id)] if run.gap_id else []
    _end(diary, config, session, drives, run, fields, sections, len(raised))
    return experiments.written_up(diary, run.id, session.id)


def _before(diary: Diary, run: RunRecord, inquiry: Inquiry, experiment: Experiment | None) -> writeup.Before:
    claims = board_queries.claims(diary, quantity=inquiry.quantity)
    kinds = experiment.kinds if experiment else frozenset[str]()
    own = [board_queries.gap(diary, run.gap_id)] if run.gap_id else []
    engine = engine_of(inquiry.depends_on)
    asked = [*board_queries.gaps(diary, state="open"), *board_queries.gaps(diary, state="planned")]
    others = [gap for gap in asked if gap.kind in kinds and gap.id != run.gap_id]
    return writeup.Before(
        board_queries.facts(diary, quantity=inquiry.quantity, subject=inquiry.about),
        [one for one in claims if any(figure.subject == inquiry.about for figure in one.figures)],
        [gap for gap in (*own, *others) if gap.id == run.gap_id or concerns(gap, inquiry.about, engine)],
    )


def _answered(
    diary: Diary,
    run: RunRecord,
    gaps: Sequence[GapRecord],
    facts: Sequence[tuple[Answer, FactRecord]],
    session_id: str,
) -> tuple[list[GapRecord], list[tuple[GapRecord, str]]]:
    """Close the questions that were answered; return them, and those left open with why."""
    answers = [answer for answer, _ in facts]
    closed: list[GapRecord] = []
    left: list[tuple[GapRecord, str]] = []
    for gap in gaps:
        if gap.state not in ("open", "planned"):
            continue
        own = gap.id == run.gap_id
        answer = answer_to(gap, answers, engine=engine_of(run.inquiry["depends_on"]), own=own)
        if answer is None:
            doubtful = next((one for one in answers if not is_conclusive(one)), None)
            left.append((gap, writeup.inconclusive(doubtful) if doubtful else "nothing found answers it"))
            continue
        fact = next(fact for one, fact in facts if one is answer)
        closed.append(
            board.answer(diary, gap.id, writeup.sentence(answer), session_id=session_id, fact_id=fact.id)
        )
    return closed, left


def _raised(diary: Diary, questions: Sequence[str], session_id: str) -> list[Gap]:
    """Put the questions on the board that are not on it already, whatever became of them."""
    there = {gap.question for gap in board_queries.gaps(diary, limit=100_000)}
    found = [
        Gap(question, kind=question_kind(question), section=LEFT, found_by="experiment")
        for question in dict.fromkeys(" ".join(one.split()) for one in questions)
        if question not in there
    ]
    board.record(diary, session_id, found, ())
    return found


def _end(
    diary: Diary,
    config: Config,
    session: SessionRecord,
    drives: Sequence[DriveLevel],
    run: RunRecord,
    fields: Sequence[tuple[str, str]],
    sections: Sequence[tuple[str, str]],
    gaps_left: int,
) -> None:
    """End the session with its text, rated by what it left behind."""
    recorder = recorder_of(config)
    sections = [(heading, written(recorder, text)) for heading, text in sections]
    told: list[tuple[EntryKind, str | None, str]] = [("field", name, value) for name, value in fields]
    told += [("note", heading, text) for heading, text in sections]
    sessions.note_all(diary, session.id, [*told, ("experiment", None, run.id)])
    found = evidence(diary, session.id, gap_id=run.gap_id, gaps_left=gaps_left, carried=(MINE, LEARN, LEFT))
    depth, reasons = rate(found)
    assert session.at is not None
    at = session.at.astimezone().replace(tzinfo=None)
    text = compose(
        SessionText(
            at=at,
            drives=tuple(drives),
            topic=session.topic,
            fields=tuple(fields),
            sections=tuple(sections),
            depth=depth,
            depth_reason="; ".join(reasons),
            evidence_depth=depth,
            evidence_reasons=reasons,
        )
    )
    file = file_name(at, [drive.name for drive in drives])
    sessions.end(diary, session.id, text, read(parse(text), file), file=file)
    sessions.rate_by_evidence(diary, session.id, depth, reasons)


def _told(diary: Diary, keeper: DriveKeeper, session: SessionRecord) -> Moved | None:
    """Lower the session's drive by its depth, once."""
    if not session.drives or kept.was_told(diary, session.id):
        return None
    depth = session.evidence_depth or Depth.NONE
    reason = "; ".join(session.evidence_reasons)[:_REASON_CHARACTERS]
    try:
        return keeper.satisfy(session.drives[0].name, depth.value, reason=reason, session_id=session.id)
    except InvalidRequest as error:
        # Its drive is gone; on record all the same, or each start of the daemon would try again.
        kept.record(diary, session.drives[0].name, "thwarted", session_id=session.id, reason=error.message)
        return None
