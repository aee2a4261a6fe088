"""Questions that a text leaves open: what it says that its writer does not know. Pure.

Numbered lines and list items under "What I Need to Learn", lines headed "Open question", and what stands
under "Questions Remaining" or "Open Questions". A question with its answer beside it, a step of a plan and a
box to be ticked are no gaps: only who asks does not know.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from subcortex.journal.board.kinds import question_kind
from subcortex.journal.board.lines import Line, Place, lines_of

#: Longer questions are cut: nobody asks for so long.
MOST_CHARACTERS = 2000
#: Gaps of one text; the rest is somebody's joke.
MOST_GAPS = 500

_TO_LEARN = re.compile(
    r"(?:what )?(?:i|we)(?: still)? (?:need|have|want) to (?:learn|find out|know|understand)|"
    r"(?:need )?to learn|"
    r"what i (?:do not|don't|don’t) know(?: yet)?|(?:knowledge )?gaps|unknowns"
)
_QUESTIONS = re.compile(
    r"(?:(?:remaining|open|unanswered|outstanding|unresolved|new|further|follow-?up) questions?|"
    r"questions? (?:remaining|open|left|i (?:still )?have|for (?:later|next time)|to explore|"
    r"unanswered|raised)|"
    r"(?:what )?remains? (?:open|unanswered|unknown)|still (?:open|unclear|unknown))"
)
_HEADED = re.compile(
    r"(?:open|remaining|unanswered|outstanding|unresolved) questions?[ \t]{0,3}[:—–-][ \t]{0,3}(.*)$",
    re.IGNORECASE,
)
_TOPIC = re.compile(r"([^:?.!]{2,80}):[ \t]+(\S.*)$")
_NONE = re.compile(
    r"(?:none|nothing|n/?a|no(?: open)?(?: questions?)?|-+|—+)[ .!]*"
    r"(?:(?:yet|for now|left|remaining|today)[ .!]*)?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Gap:
    """A question that a text leaves open.

    Args:
        question: In the writer's words, without marks.
        topic: What it is about, where the writer named it before the question.
        kind: Which of the machine's questions it is; None where that cannot be told.
        section: The heading that it stands under.
        line: Of the text, from 1; None where a thought found it between the lines.
        occurrence: From 0: which of several alike of one section it is.
        found_by: ``rule``, ``thought``, ``person`` or ``experiment``.
    """

    question: str
    topic: str | None = None
    kind: str | None = None
    section: str = ""
    line: int | None = None
    occurrence: int = 0
    found_by: str = "rule"

    def key(self, session_id: str) -> str:
        """Return what makes it the same row whenever the session is read again."""
        return key_of("gap", session_id, self.section, self.question, self.occurrence)


def key_of(kind: str, session_id: str, section: str, words: str, occurrence: int) -> str:
    """Return the key of a question or a statement: it survives edits elsewhere in the text, and of spaces."""
    parts = (kind, session_id, _plain(section), _plain(words), str(occurrence))
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:32]


def gaps_in(text: str | Sequence[Line]) -> list[Gap]:
    """Return the questions that a text leaves open, in order; linear in its length."""
    lines = lines_of(text) if isinstance(text, str) else text
    seen: dict[tuple[str, str], int] = {}
    found: list[Gap] = []
    for gap in _raw(lines):
        about = (_plain(gap.section), _plain(gap.question))
        occurrence = seen[about] = seen.get(about, -1) + 1
        found.append(replace(gap, occurrence=occurrence))
        if len(found) == MOST_GAPS:
            break
    return found


def is_gap_section(heading: str) -> bool:
    """Tell whether what stands under a heading is asked, not said."""
    return _section_kind(heading) is not None


@lru_cache(maxsize=4096)
def _section_kind(heading: str) -> str | None:
    title = _title(heading)
    if _TO_LEARN.fullmatch(title):
        return "learn"
    return "questions" if _QUESTIONS.fullmatch(title) else None


def _raw(lines: Sequence[Line]) -> Iterator[Gap]:
    index = 0
    while index < len(lines):
        line = lines[index]
        headed = (
            None
            if line.place in (Place.CODE, Place.COMMENT, Place.FRONT)
            else _HEADED.match(line.words[:MOST_CHARACTERS])
        )
        inside = None if line.fenced else _section(line) or _leading(line)
        if headed and line.place is not Place.HEADING and not line.fenced:
            words, index = _joined(lines, index, headed[1])
            if asked := _gap(words, line):
                yield asked
            continue
        if inside and (line.place in (Place.NUMBERED, Place.ITEM, Place.TASK)) and _outermost(line):
            words, index = _joined(lines, index, line.words)
            if asked := _gap(words, line):
                yield asked
            continue
        if inside == "questions" and line.place is Place.PROSE:
            words, index = _paragraph(lines, index)
            if "?" in words and (asked := _gap(words, line)):
                yield asked
            continue
        index += 1


def _section(line: Line) -> str | None:
    """Return the kind of the nearest heading above a line that has one."""
    return next((kind for title in reversed(line.headings) if (kind := _section_kind(title))), None)


def _leading(line: Line) -> str | None:
    """Return "questions" where the block of a line is led by ``Open questions:`` and the like."""
    lead = line.above[0] if line.above else ""
    return "questions" if lead.endswith(":") and _QUESTIONS.fullmatch(_title(lead)) else None


def _outermost(line: Line) -> bool:
    """Tell whether an item is of its list's first level; a line that leads the block is no item."""
    return len(line.above) - (1 if line.above and line.indent == 0 else 0) <= 0 or line.indent == 0


def _joined(lines: Sequence[Line], index: int, words: str) -> tuple[str, int]:
    """Return an item's words with the lines it goes on in, and the index after them."""
    first, parts, index = lines[index], [words], index + 1
    while index < len(lines):
        line = lines[index]
        if line.place is not Place.PROSE or _HEADED.match(line.words[:100]):
            break
        if first.place is not Place.PROSE and line.indent <= first.indent and len(parts) > 3:
            break
        parts.append(line.words)
        index += 1
    return " ".join(parts), index


def _paragraph(lines: Sequence[Line], index: int) -> tuple[str, int]:
    parts = []
    while index < len(lines) and lines[index].place is Place.PROSE:
        parts.append(lines[index].words)
        index += 1
    return " ".join(parts), index


def _gap(words: str, line: Line) -> Gap | None:
    words = " ".join(words[:MOST_CHARACTERS].split()).strip()
    if len(words) < 3 or not any(letter.isalpha() for letter in words) or _NONE.fullmatch(words[:80]):
        return None
    topic, question = None, words
    if named := _TOPIC.match(words):
        topic, question = named[1].strip(), named[2]
    kind = question_kind(question, topic or "")
    return Gap(question, topic, kind, line.section, line.number)


def _title(heading: str) -> str:
    words = "".join(
        letter if letter.isalnum() or letter in " '’-" else " " for letter in heading[:120].lower()
    )
    return " ".join(words.split())


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
