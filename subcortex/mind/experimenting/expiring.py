"""Facts that this machine has outgrown, taken back; and questions that what is known already answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from subcortex.config import Config
from subcortex.experiments import catalogue
from subcortex.experiments.experiment import Experiment, Inquiry
from subcortex.experiments.forms import digest_of, inquiry_to_json, report_from_json
from subcortex.experiments.laboratory.surroundings import scene_of
from subcortex.experiments.scene import Scene
from subcortex.journal.diary import Diary, board, board_queries, experiments
from subcortex.journal.diary.board_records import FactRecord, GapRecord
from subcortex.journal.diary.experiment_records import RunRecord
from subcortex.mind.experimenting.choosing import Proposal
from subcortex.mind.experimenting.matching import answer_to, engine_of
from subcortex.mind.experimenting.measured import measured_facts
from subcortex.mind.experimenting.writeup import sentence


def expire_changed(
    diary: Diary, scene: Scene, *, among: Sequence[Experiment] | None = None
) -> list[FactRecord]:
    """Take back what was measured on another machine than this one is now; return the facts.

    A run's certificate is held against the one that its experiment would give the same question today. A
    question that is not asked here any more (a tier that is gone) tells nothing, and its facts stay; one
    whose experiment is not applicable any more is expired. While GPUs cannot be asked nothing is told.

    Args:
        diary: The journal's database.
        scene: This machine.
        among: Experiments, if not the whole catalogue.

    Raises:
        JournalError: The database takes nothing now.
    """
    if scene.hardware.problem is not None:
        return []
    by_name = {one.name: one for one in (catalogue.CATALOGUE if among is None else among)}
    today: dict[str, list[Inquiry]] = {}
    expired: list[FactRecord] = []
    for run in experiments.runs(diary, states=("measured", "settled"), limit=100_000):
        experiment = by_name.get(run.experiment)
        if experiment is None or run.expired_at is not None:
            continue
        if run.experiment not in today:
            today[run.experiment] = list(experiment.inquiries(scene))
        why = why_expired(run, experiment, experiment.why_not(scene), today[run.experiment])
        if why is not None:
            expired += _expire(diary, run, why)
    return expired


def look_back(config: Config) -> list[FactRecord]:
    """Take back what this machine has outgrown, as a daemon does once it is up.

    Looking at the machine takes seconds, and is left out where nothing was ever measured.

    Raises:
        SubcortexError: The journal takes nothing now, or the machine cannot be looked at.
    """
    if not measured_facts(config):
        return []
    scene = scene_of(config)
    with Diary.open(config.database_path, durability=config.journal.durability) as diary:
        return expire_changed(diary, scene)


def why_expired(
    run: RunRecord, experiment: Experiment, why_not: str | None, today: Iterable[Inquiry]
) -> str | None:
    """Return why a run's answers hold no more, None if they do. Pure."""
    if why_not is not None:
        return f"not applicable here any more: {why_not}"
    for inquiry in today:
        was = (run.inquiry["subject"], run.inquiry["quantity"], run.inquiry["about"])
        if was != (inquiry.subject, inquiry.quantity, inquiry.about):
            continue
        if digest_of(inquiry, experiment.method) == run.digest:
            return None
        was_then, is_now = run.inquiry["depends_on"], inquiry_to_json(inquiry)["depends_on"]
        changed = differences(was_then, is_now)
        if changed and changed == _unknown(was_then, is_now):
            # A program that did not say its version in time is no other one.
            return None
        return f"changed: {'; '.join(changed[:4]) or 'the way of measuring'}"
    return None


def differences(was: Mapping[str, Any], now: Mapping[str, Any], within: str = "") -> list[str]:
    """Return what differs between two certificates: ``driver: 580.1, now 590.2``. Pure."""
    found = []
    for name in sorted({*was, *now}):
        before, after = was.get(name), now.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, f"{within}{name} ")
        elif before != after:
            found.append(f"{within}{name}: {_shown(before)}, now {_shown(after)}")
    return found


def _unknown(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return, as ``differences`` does, the versions that were known and that nobody tells now."""
    found = []
    for name in sorted({"driver", "driver_cuda", "engine", "versions"} & set(was)):
        before, after = was[name], now.get(name)
        if isinstance(before, Mapping):
            parts = before if name == "versions" else before.keys() & {"version"}
            after = after if isinstance(after, Mapping) else {}
            lost = [part for part in sorted(parts) if before[part] is not None and after.get(part) is None]
            found += [f"{name} {part}: {_shown(before[part])}, now nothing" for part in lost]
        elif before is not None and after is None:
            found.append(f"{name}: {_shown(before)}, now nothing")
    return found


def recall(diary: Diary, proposals: Iterable[Proposal]) -> list[GapRecord]:
    """Answer the questions of the board that a remembered run answers; nothing is measured for it.

    Raises:
        JournalError: The database takes nothing now.
    """
    answered = []
    for one in proposals:
        if one.remembered is None:
            continue
        run = experiments.run(diary, one.remembered)
        if run.session_id is None or run.report is None:
            continue
        answers = report_from_json(run.report).answers
        facts = {fact.statement: fact for fact in board_queries.facts_of(diary, run.session_id)}
        for gap in one.gaps:
            answer = answer_to(gap, answers, engine=engine_of(run.inquiry["depends_on"]))
            fact = facts.get(answer.statement) if answer else None
            if answer is None or fact is None or fact.expired_at is not None:
                continue
            with diary.transaction():
                # It may have been closed since it was looked at.
                if board_queries.gap(diary, gap.id).state in ("open", "planned"):
                    answered.append(board.answer(diary, gap.id, sentence(answer), fact_id=fact.id))
    return answered


def _expire(diary: Diary, run: RunRecord, why: str) -> list[FactRecord]:
    with diary.transaction():
        own = board_queries.facts_of(diary, run.session_id) if run.session_id else []
        held = [fact for fact in own if fact.source == "measurement" and fact.expired_at is None]
        for fact in held:
            board.expire(diary, fact.id, why)
        experiments.expire(diary, run.id, why)
    return [board_queries.fact(diary, fact.id) for fact in held]


def _shown(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
