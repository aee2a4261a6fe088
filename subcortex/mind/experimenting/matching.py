"""Which questions of the board an experiment's answer is an answer to. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from subcortex.experiments.experiment import Answer, Experiment, Inquiry
from subcortex.journal.board.subjects import names_in
from subcortex.journal.diary.board_records import GapRecord

#: Engines by the names that their tiers have; a question about one is not answered by another.
ENGINES = frozenset({"vllm", "llama.cpp"})


def gaps_for(inquiry: Inquiry, experiment: Experiment, gaps: Iterable[GapRecord]) -> tuple[GapRecord, ...]:
    """Return the questions that an inquiry would answer: of the experiment's kinds, about nothing else."""
    engine = engine_of(inquiry.depends_on)
    return tuple(gap for gap in gaps if gap.kind in experiment.kinds and concerns(gap, inquiry.about, engine))


def engine_of(certificate: Mapping[str, Any]) -> str | None:
    """Return the engine that a certificate names: ``vllm``, ``llama.cpp``; None where it is the machine's."""
    engine = certificate.get("engine")
    return str(engine["name"]) if isinstance(engine, Mapping) and engine.get("name") else None


def concerns(gap: GapRecord, about: str, engine: str | None = None) -> bool:
    """Return whether a question may be about this: no other model is named in it, and no other engine.

    What is said of no model (a link, a machine, a tier by its name) may be an answer to a question about any.

    Args:
        gap: The question.
        about: What an answer is of.
        engine: Whose it is.
    """
    engines = {
        name.name.lower()
        for name in names_in(f"{gap.topic or ''} {gap.question}")
        if name.name.lower() in ENGINES
    }
    if engine in ENGINES and engines and engine not in engines:
        return False
    told = {name.name for name in names_in(about) if name.kind in ("model", "size")}
    asked = {
        name.name for name in names_in(f"{gap.topic or ''} {gap.question}") if name.kind in ("model", "size")
    }
    if not told or not asked:
        return True
    return any(set(one.split("-")) <= set(name.split("-")) for one in asked for name in told)


def answer_to(
    gap: GapRecord, answers: Iterable[Answer], *, engine: str | None = None, own: bool = False
) -> Answer | None:
    """Return the answer that closes a question; None where there is none, or it is inconclusive.

    Args:
        gap: The question.
        answers: What was found out, the one that was asked for first.
        engine: Whose they are.
        own: The run was for this very question.
    """
    found = list(answers)
    for wanted in (gap.kind, None):
        for answer in found:
            if answer.gap_kind == wanted and (own or concerns(gap, answer.about, engine)):
                return answer if is_conclusive(answer) else None
    return found[0] if own and found and is_conclusive(found[0]) else None


def is_conclusive(answer: Answer) -> bool:
    """Return whether it says anything: not, where two arms could not be told apart for want of samples."""
    return answer.outcome != "inconclusive"
