"""Which questions of the board an experiment's answer is an answer to. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from subcortex.experiments.experiment import Answer, Experiment, Inquiry
from subcortex.journal.board.subjects import names_in
from subcortex.journal.diary.board_records import GapRecord


def gaps_for(inquiry: Inquiry, experiment: Experiment, gaps: Iterable[GapRecord]) -> tuple[GapRecord, ...]:
    """Return the questions that an inquiry would answer: of the experiment's kinds, about nothing else."""
    return tuple(gap for gap in gaps if gap.kind in experiment.kinds and concerns(gap, inquiry.about))


def concerns(gap: GapRecord, about: str) -> bool:
    """Return whether a question may be about this: no model is named in it, or this one.

    What is said of no model (a link, a machine, a tier by its name) may be an answer to a question about any.
    """
    told = {name.name for name in names_in(about) if name.kind in ("model", "size")}
    asked = {
        name.name for name in names_in(f"{gap.topic or ''} {gap.question}") if name.kind in ("model", "size")
    }
    if not told or not asked:
        return True
    return any(set(one.split("-")) <= set(name.split("-")) for one in asked for name in told)


def answer_to(gap: GapRecord, answers: Iterable[Answer], *, own: bool = False) -> Answer | None:
    """Return the answer that closes a question; None where there is none, or it is inconclusive.

    Args:
        gap: The question.
        answers: What was found out, the one that was asked for first.
        own: The run was for this very question.
    """
    found = list(answers)
    for wanted in (gap.kind, None):
        for answer in found:
            if answer.gap_kind == wanted and (own or concerns(gap, answer.about)):
                return answer if is_conclusive(answer) else None
    return found[0] if own and found and is_conclusive(found[0]) else None


def is_conclusive(answer: Answer) -> bool:
    """Return whether it says anything: not, where two arms could not be told apart for want of samples."""
    return answer.outcome != "inconclusive"
