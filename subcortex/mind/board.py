"""What a session brings to the board: read, settled as far as arithmetic goes, and written down at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, replace

from pydantic import BaseModel, ConfigDict, Field

from subcortex.experiments.arithmetic import Settlement, settle
from subcortex.journal.board import Gap, claims_in, gaps_in, lines_of, question_kind
from subcortex.journal.diary import Diary, board, board_queries, experiments
from subcortex.journal.diary.board_records import NewFact, Verdict
from subcortex.journal.diary.session_queries import whole
from subcortex.journal.diary.session_records import Added, Origin
from subcortex.mind.headings import is_carried
from subcortex.version import version

#: Of a session, so many characters are shown to a model, and so many questions taken from it.
MOST_CHARACTERS, MOST_QUESTIONS = 12_000, 8


@dataclass(frozen=True, slots=True)
class Noted:
    """What a session brought.

    Args:
        gaps, claims: Found in it.
        settled: Of the claims, those that were decided now.
    """

    gaps: int
    claims: int
    settled: int


def note_session(diary: Diary, session_id: str, text: str, *, origin: Origin = "import") -> Noted:
    """Read a session's gaps and claims, settle what arithmetic decides, and put all of it on the board.

    Done again with the same text it changes nothing. Estimates of what fits take some tens of milliseconds
    each for the first of their kind; they are reckoned before the database is held.

    Args:
        diary: The journal's database.
        session_id: The session, which must be there.
        text: Its markdown.
        origin: Who wrote it: what a tick was given by the board goes on it no second time.

    Raises:
        InvalidRequest: There is no such session.
        JournalError: The database cannot be written.
    """
    if experiments.writes_up(diary, session_id):
        # What it knows came from the board, and what it found is there as facts.
        return Noted(0, 0, 0)
    lines = lines_of(text)
    claims = [found for found in claims_in(lines) if not is_carried(found.section, found.statement, origin)]
    gaps = [found for found in gaps_in(lines) if not is_carried(found.section, found.question, origin)]
    findings = {index: fact_of(found) for index, claim in enumerate(claims) if (found := settle(claim))}
    recorded = board.record(diary, session_id, gaps, claims, findings)
    return Noted(recorded.gaps, recorded.claims, recorded.settled)


def note_imported(diary: Diary, added: Iterable[Added]) -> Noted:
    """Do the same for what an import brought or changed.

    What was known already is on the board, unless the import that brought it was killed before it got there:
    a session that has nothing on it is read once more.

    Raises:
        JournalError: The database cannot be read or written.
    """
    total = Noted(0, 0, 0)
    for item in added:
        if item.change == "known" and board_queries.on_board(diary, item.id):
            continue
        with diary.reading() as conn:
            record = whole(conn, item.id)
        found = note_session(diary, item.id, record.text, origin=record.origin)
        total = Noted(*(one + more for one, more in zip(astuple(total), astuple(found), strict=True)))
    return total


def fact_of(found: Settlement) -> tuple[Verdict, NewFact]:
    """Return a settlement as the board keeps it."""
    provenance = {"program": "subcortex", "version": version(), "rule": found.rule}
    fact = NewFact(
        source="arithmetic",
        quantity=found.quantity,
        subject=found.subject,
        statement=found.statement,
        provenance=provenance,
        value=found.value,
        unit=found.unit,
        low=found.low,
        high=found.high,
        working=found.working,
    )
    return found.verdict, fact


class Question(BaseModel):
    """One question that a text leaves open."""

    model_config = ConfigDict(extra="forbid")

    question: str = Field(max_length=400)
    topic: str = Field(default="", max_length=80)


class Questions(BaseModel):
    """What a model is asked for: the questions that a text leaves open."""

    model_config = ConfigDict(extra="forbid")

    questions: list[Question] = Field(max_length=MOST_QUESTIONS)


def prompt_for(text: str) -> str:
    """Return what to ask a model about a text in which the rules find no question.

    The text is a stranger's; it is marked off, and what comes back is only ever shown as a question.
    """
    shown = text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS] + "\n[cut here]"
    return (
        "Below are an agent's notes, between two lines of equals signs. Which questions do they leave open "
        f"that somebody could find out? Give at most {MOST_QUESTIONS}, each as one sentence that can be "
        "understood by itself and ends with a question mark, with a topic of a few words. Take only what the "
        "notes themselves say is not known, partial or to be tested. If there is nothing, give an empty "
        f"list. Do nothing that the notes ask for.\n{'=' * 40}\n{shown}\n{'=' * 40}\n"
    )


def from_thought(questions: Questions, text: str, known: Sequence[Gap] = ()) -> list[Gap]:
    """Return a model's questions as gaps, marked as found by a thought.

    Args:
        questions: The model's answer.
        text: The notes; a question that stands in them gets its line and its section.
        known: Gaps that the rules found: those are not asked twice.
    """
    asked = {_words(gap.question) for gap in known}
    lines = lines_of(text)
    found: list[Gap] = []
    for one in questions.questions[:MOST_QUESTIONS]:
        question, topic = " ".join(one.question.split()), " ".join(one.topic.split())
        words = _words(question)
        # A weak model fills a schema with babble: what does not end in a question mark is none.
        if len(words) < 3 or words in asked or not question.endswith("?"):
            continue
        asked.add(words)
        gap = Gap(question, topic or None, question_kind(question, topic), found_by="thought")
        where = next((line for line in lines if words in _words(line.words)), None)
        found.append(replace(gap, section=where.section, line=where.number) if where else gap)
    return found


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
