"""Asking for runs: by name, or whatever is worth most; nothing is measured twice. Effects."""

from __future__ import annotations

from collections.abc import Sequence

from subcortex.config import Config
from subcortex.errors import InvalidRequest
from subcortex.experiments import catalogue, forms
from subcortex.experiments.experiment import Experiment, Inquiry, Scene
from subcortex.experiments.laboratory.surroundings import scene_of
from subcortex.journal.diary import Diary, experiments
from subcortex.journal.diary.experiment_records import AskedBy, RunRecord
from subcortex.mind.experimenting.choosing import Proposal, choose
from subcortex.mind.experimenting.expiring import expire_changed, recall

#: A run may take so many times what it is expected to, and at least so long; seconds.
_PATIENCE, _LEAST_S = 3.0, 300.0


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
        again: Measure anew what is remembered.
        scene: This machine, if somebody has just looked.

    Raises:
        InvalidRequest: There is no such experiment or subject, or it is not applicable here.
        JournalError: The database cannot be written.
    """
    wanted = [catalogue.find(name) for name in names]
    seen = scene or scene_of(config)
    expire_changed(diary, seen)
    known = experiments.remembered(diary)
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
    scene: Scene | None = None,
) -> RunRecord | None:
    """Have the run that is worth most wait for the machine; None if nothing is worth asking.

    What was measured on another machine is taken back first, and what is known answers who asks it.

    Args:
        diary: The journal's database.
        config: Whose drives press, and whose tiers are measured.
        asked_by: Who wants to know.
        minutes: What it may take; None for three times what is expected.
        most_gpu_minutes: What is expected to cost more is left for another day.
        scene: This machine, if somebody has just looked.

    Raises:
        JournalError, EmergenceFailed: As ``choosing.choose``.
    """
    seen = scene or scene_of(config)
    expire_changed(diary, seen)
    proposals = choose(config, diary, seen)
    recall(diary, proposals)
    for one in proposals:
        if one.remembered is not None:
            continue
        if most_gpu_minutes is not None and one.gpu_minutes > most_gpu_minutes:
            continue
        return _proposed(diary, one, asked_by, minutes)
    return None


def _proposed(diary: Diary, one: Proposal, asked_by: AskedBy, minutes: float | None) -> RunRecord:
    gap_id = one.gaps[0].id if one.gaps else None
    return _enqueued(
        diary, one.experiment, one.inquiry, one.digest, asked_by, minutes, gap_id=gap_id, drive=one.drive
    )


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
    expected_s = inquiry.minutes * 60.0
    return experiments.enqueue(
        diary,
        experiment=experiment.name,
        subject=inquiry.subject,
        inquiry=forms.inquiry_to_json(inquiry),
        asked_by=asked_by,
        seconds=minutes * 60.0 if minutes is not None else max(_LEAST_S, _PATIENCE * expected_s),
        digest=digest,
        gap_id=gap_id,
        drive=drive,
    )
