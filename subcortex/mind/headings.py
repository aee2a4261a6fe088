"""Headings of sessions that subcortex writes itself, and what under them is no work of the session's own."""

from __future__ import annotations

import re

from subcortex.journal.diary.session_records import Origin

#: What a session that a tick holds is about, and what came of it. None is one that a gap is read from.
KNOWN, ASKED, THOUGHT, OPEN = "What Was Known", "What Was Asked", "What I Thought", "What I Noticed"
#: Where an error goes that ended a session.
TROUBLE = "What Went Wrong"
#: Where a note goes that names no section; where thoughts and experiments are listed.
NOTES, THOUGHTS, EXPERIMENTS = "Notes", "Thoughts", "Experiments"

#: What a session says that an experiment is written up as. What stands under ``LEFT`` are its gaps.
MINE, LEARN, DID = "What I Already Know", "What I Need to Learn", "What I Did"
NOTICED, LEFT = OPEN, "Questions Remaining"

_FIGURES = re.compile(r"[^,`]+, [0-9]+ tokens(?:, [0-9.]+ s)?: `[0-9a-f]+`")


def uncounted(origin: Origin) -> tuple[str, ...]:
    """Return the headings whose notes count for no depth.

    They hold what a tick was given, an error, or answers, which are counted as thoughts.
    """
    if origin == "tick":
        return (KNOWN, ASKED, THOUGHT, OPEN, TROUBLE)
    return (TROUBLE,) if origin == "agent" else ()


def is_carried(section: str | None, statement: str, origin: Origin) -> bool:
    """Return whether a line says nothing new: what the board gave, or the figures of a thought.

    Read as a claim, what is known would come back with every session that is held about it, and a claim that
    was refuted as one that says "(refuted: …)".
    """
    if origin == "tick" and section in (KNOWN, ASKED):
        return True
    return section == THOUGHTS and _FIGURES.fullmatch(statement.strip()) is not None
