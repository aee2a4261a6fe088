"""What a session's thoughts are asked; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from subcortex.drives import Drive
from subcortex.journal.diary.board_records import ClaimRecord, GapRecord

#: Lines of what is known that go along with a question, and characters of a former answer.
MOST_KNOWN, MOST_CHARACTERS = 12, 6000
_WORD = re.compile(r"[^\W_]{4,}")
#: Words that say nothing of what a question is about.
_COMMON = frozenset(
    "does from have into many more much than that they this what when which will with would".split()  # noqa: SIM905
)


def about(question: str, claims: Iterable[ClaimRecord], answered: Iterable[GapRecord]) -> list[str]:
    """Return what the board knows of a question, a line each, that which shares most words with it first."""
    lines = [
        (f"{claim.statement} ({_standing(claim)})", claim.statement)
        for claim in claims
        if claim.state in ("confirmed", "refuted")
    ]
    lines += [(f"{gap.question} {gap.answer}", gap.question) for gap in answered if gap.answer]
    asked = _words(question)
    ranked = sorted(
        (
            (len(asked & _words(words)), -place, " ".join(line.split()))
            for place, (line, words) in enumerate(lines)
        ),
        reverse=True,
    )
    return list(dict.fromkeys(line for shared, _, line in ranked if shared))[:MOST_KNOWN]


def first(drive: Drive, gap: GapRecord | None, known: Sequence[str]) -> str:
    """Return the prompt that a session begins with."""
    parts = [drive.prompt.strip()]
    if gap is not None:
        topic = f" (about {gap.topic})" if gap.topic else ""
        parts.append(f"The question{topic}: {gap.question}")
        listed = "\n".join(f"- {line}" for line in known)
        parts.append(
            f"What is known of it, by figures:\n{listed}" if known else "Nothing is known of it by figures."
        )
        parts.append(
            "Work it out as far as thinking goes. Give figures with units, and say which of them are"
            " reckoned, which remembered, and what would have to be measured to be sure."
        )
    return "\n\n".join(parts)


def second(gap: GapRecord | None, answer: str) -> str:
    """Return the prompt that looks back on the first answer."""
    question = f"The question was: {gap.question}\n\n" if gap else ""
    return (
        f"{question}These are your notes:\n\n{answer[:MOST_CHARACTERS]}\n\n"
        "What do they leave open that a measurement on this machine could settle? At most three questions,"
        ' each on a line of its own that begins with "Open question:". If they leave nothing open, say so in'
        " a sentence."
    )


def _standing(claim: ClaimRecord) -> str:
    working = claim.fact.working or claim.fact.statement if claim.fact else ""
    return f"{claim.state}: {working}" if working else claim.state


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower())) - _COMMON
