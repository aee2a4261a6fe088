"""The depth that a session's evidence supports. The rule is written down in docs/depth.md."""

from __future__ import annotations

from dataclasses import dataclass

from subcortex.types import Depth


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a session left behind, as counts.

    Args:
        thoughts: Thoughts that were answered.
        notes: Notes, sections and facts worked out; also experiments, whatever they found.
        gaps_measured: Gaps, of any session, closed by a fact of a measurement made in this one.
        claims_refuted: Claims refuted by such a fact.
        claims_confirmed: Claims confirmed by such a fact. Said, but no reason for depth: nothing was learnt
            that was not believed already.
        question_answered: Whether the question it was held for is answered; None if it had none.
        gaps_left: Gaps that it opened itself and that are open or planned still.
    """

    thoughts: int = 0
    notes: int = 0
    gaps_measured: int = 0
    claims_refuted: int = 0
    claims_confirmed: int = 0
    question_answered: bool | None = None
    gaps_left: int = 0


def rate(evidence: Evidence) -> tuple[Depth, tuple[str, ...]]:
    """Return the depth that ``evidence`` supports, and why it is that and not the next one."""
    measured = evidence.gaps_measured + evidence.claims_refuted
    said = evidence.thoughts + evidence.notes
    reasons = [f"{_count(evidence.thoughts, 'thought')} and {_count(evidence.notes, 'note')}"]
    if evidence.claims_confirmed:
        reasons.append(f"{_count(evidence.claims_confirmed, 'claim')} confirmed by a measurement")
    if not measured:
        if said == 0 and evidence.claims_confirmed == 0:
            return Depth.NONE, ("it left nothing behind",)
        if said + evidence.claims_confirmed == 1:
            return Depth.SHALLOW, (*reasons, "moderate takes two")
        return Depth.MODERATE, (*reasons, "no gap was closed and no claim refuted by a measurement")
    if evidence.gaps_measured:
        reasons.append(f"{_count(evidence.gaps_measured, 'gap')} closed by a measurement")
    if evidence.claims_refuted:
        reasons.append(f"{_count(evidence.claims_refuted, 'claim')} refuted by a measurement")
    if evidence.question_answered is None:
        return Depth.DEEP, (*reasons, "it had no question of its own to answer")
    if not evidence.question_answered:
        return Depth.DEEP, (*reasons, "its own question is not answered")
    if evidence.gaps_left:
        return Depth.DEEP, (*reasons, f"{_count(evidence.gaps_left, 'gap')} that it opened left open")
    return Depth.FULL, (*reasons, "its own question is answered", "it leaves no gap of its own open")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
