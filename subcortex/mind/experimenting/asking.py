"""Asking for runs: by name, or whatever is worth most; nothing is measured twice. Effects."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from subcortex.config import Config
from subcortex.errors import InvalidRequest
from subcortex.experiments import catalogue, forms
from subcortex.experiments.experiment import Experiment, Inquiry
from subcortex.experiments.laboratory.surroundings import scene_of
from subcortex.experiments.minutes import checked_minutes
from subcortex.experiments.scene import Scene
from subcortex.journal.diary import Diary, board_queries, experiments
from subcortex.journal.diary.experiment_records import AskedBy, RunRecord, RunState
from subcortex.mind.experimenting.choosing import Proposal, choose
from subcortex.mind.experimenting.expiring import expire_changed, recall

#: A run may take so many times what it is expected to, and at least so long; seconds.
_PATIENCE, _LEAST_S = 3.0, 300.0
#: Nobody but a person asks for so long what a person has cancelled.
_UNWANTED = timedelta(days=1)


def ask(
    diary: Diary,
    config: Config,
    names: Sequence[str],
    *,
    subject: str | None = None,
    minutes: float | None = None,
    again: bool = False,
    scene: Scene | None = None,
) -> list[RunRecord]:
    """Have experiments run that a person named; blocks while the machine is looked at.

    What must have run before is asked first. Runs whose answer is remembered are returned as they are.

    Args:
        diary: The journal's database.
        config: Whose tiers are measured.
        names: Of experiments in the catalogue, done in this order.
        subject: Only of this tier, or of ``machine``; None for all that they can be asked of.
        minutes: What each may take; None for three times what is expected.
        again: Measure anew what is remembered; what was inconclusive is in any case.
        scene: This machine, if somebody has just looked.

    Raises:
        InvalidRequest: There is no such experiment or subject, it is not applicable here, or it cannot be
            given so many minutes.
        JournalError: The database cannot be written.
    """
    checked_minutes(minutes)
    wanted = [catalogue.find(name) for name in names]
    seen = scene or scene_of(config)
    expire_changed(diary, seen)
    # What could not be told the last time was asked for again.
    known = experiments.remembered(diary, conclusive=True)
    found: dict[str, RunRecord] = {}
    for experiment in wanted:
        for inquiry in _inquiries(experiment, seen, subject):
            for gate, asked in [*_gates(inquiry, seen), (experiment, inquiry)]:
                digest = forms.digest_of(asked, gate.method)
                if digest in known and (gate is not experiment or not again):
                    run = experiments.run(diary, known[digest])
                else:
                    run = _enqueued(diary, gate, asked, digest, "person", minutes)
                if gate is experiment or run.state == "queued":
                    found.setdefault(run.id, run)
    return list(found.values())


def ask_next(
    diary: Diary,
    config: Config,
    asked_by: AskedBy,
    *,
    minutes: float | None = None,
    most_gpu_minutes: float | None = None,
    gap_id: str | None = None,
    drive: str | None = None,
    scene: Scene | None = None,
) -> RunRecord | None:
    """Have the run that is worth most wait for the machine; None if nothing is worth asking.

    What was measured on another machine is taken back first, and what is known answers who asks it. What a
    person has cancelled lately is asked by nobody else.

    Args:
        diary: The journal's database.
        config: Whose drives press, and whose tiers are measured.
        asked_by: Who wants to know.
        minutes: What it may take; None for three times what is expected.
        most_gpu_minutes: What is expected to cost more is left for another day, and none may take more.
        gap_id: Only what may answer this question of the board, or has to run before that.
        drive: Whose run it is, if not that of the drive which raised the question.
        scene: This machine, if somebody has just looked.

    Raises:
        InvalidRequest: There is no such question, or it cannot be given so many minutes.
        JournalError, EmergenceFailed: As ``choosing.choose``.
    """
    checked_minutes(minutes)
    if gap_id is not None:
        gap_id = board_queries.gap(diary, gap_id).id
    seen = scene or scene_of(config)
    expire_changed(diary, seen)
    proposals = choose(config, diary, seen)
    recall(diary, proposals)
    unwanted = _unwanted(diary) if asked_by != "person" else frozenset()
    for one in proposals:
        if one.remembered is not None or one.digest in unwanted:
            continue
        if gap_id is not None and gap_id not in _served(one, proposals):
            continue
        if most_gpu_minutes is not None:
            if one.gpu_minutes > most_gpu_minutes:
                continue
            minutes = min(_minutes(one.inquiry), most_gpu_minutes / max(one.inquiry.needs.gpus, 1))
        gaps = [gap.id for gap in one.gaps]
        return _enqueued(
            diary,
            one.experiment,
            one.inquiry,
            one.digest,
            asked_by,
            minutes,
            gap_id=gap_id if gap_id in gaps else next(iter(gaps), None),
            drive=drive or one.drive,
        )
    return None


def _served(one: Proposal, proposals: Sequence[Proposal]) -> set[str]:
    """Return the questions that a run is for: its own, and those of the experiment that it opens."""
    opened = [other for other in proposals if other.experiment.name == one.opens]
    return {gap.id for found in (one, *opened) for gap in found.gaps}


def _unwanted(diary: Diary) -> frozenset[str]:
    """Return what a person has cancelled lately, by digest."""
    since = diary.clock.now() - _UNWANTED
    cancelled: tuple[RunState, ...] = ("cancelled",)
    found = experiments.runs(diary, states=cancelled)
    return frozenset(run.digest for run in found if run.ended_at is not None and run.ended_at > since)


def _minutes(inquiry: Inquiry) -> float:
    """Return what a run may take where nobody says."""
    return max(_LEAST_S / 60.0, _PATIENCE * inquiry.minutes)


def _inquiries(experiment: Experiment, scene: Scene, subject: str | None) -> list[Inquiry]:
    why = experiment.why_not(scene)
    if why is not None:
        raise InvalidRequest(f"{experiment.name} is not applicable here: {why}", param="names")
    found = list(experiment.inquiries(scene))
    wanted = [one for one in found if subject in (None, one.subject)]
    if not wanted:
        subjects = ", ".join(sorted({one.subject for one in found})) or "nothing"
        raise InvalidRequest(
            f"{experiment.name} cannot be asked of {subject or 'anything here'}",
            hint=f"It can be asked of: {subjects}.",
            param="subject",
        )
    return wanted


def _gates(inquiry: Inquiry, scene: Scene) -> list[tuple[Experiment, Inquiry]]:
    """Return what must have run before; an experiment that has nothing to do here forbids nothing."""
    gates = [one for one in catalogue.CATALOGUE if one.name in inquiry.after]
    return [(gate, asked) for gate in gates if gate.why_not(scene) is None for asked in gate.inquiries(scene)]


def _enqueued(
    diary: Diary,
    experiment: Experiment,
    inquiry: Inquiry,
    digest: str,
    asked_by: AskedBy,
    minutes: float | None,
    *,
    gap_id: str | None = None,
    drive: str | None = None,
) -> RunRecord:
    return experiments.enqueue(
        diary,
        experiment=experiment.name,
        subject=inquiry.subject,
        inquiry=forms.inquiry_to_json(inquiry),
        asked_by=asked_by,
        seconds=60.0 * (minutes if minutes is not None else _minutes(inquiry)),
        digest=digest,
        gap_id=gap_id,
        drive=drive,
    )
