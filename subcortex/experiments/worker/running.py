"""One run after the other: begun, done within its time, and what it came to in the journal. Effects."""

from __future__ import annotations

import asyncio
import contextlib
import json
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import structlog

from subcortex.config import Config
from subcortex.errors import DeadlineExceeded, EngineFailed, InvalidRequest, SubcortexError
from subcortex.experiments import catalogue, forms
from subcortex.experiments.experiment import Answer, Experiment, Inquiry, Report
from subcortex.experiments.laboratory.engines import WarmEngines
from subcortex.experiments.laboratory.lab import Lab, OutOfTime
from subcortex.experiments.laboratory.record import Reading
from subcortex.experiments.laboratory.surroundings import scene_of
from subcortex.experiments.scene import Scene
from subcortex.experiments.worker.keeping import DiaryKeep
from subcortex.experiments.worker.limits import time_left_s
from subcortex.journal.diary import Diary, experiments
from subcortex.journal.diary.experiment_records import RunRecord

_log = structlog.get_logger("worker")
#: What reckoning may take once the time is over; well below what the daemon waits then.
_TELLING_S = 15.0


async def work(config: Config, run_ids: Sequence[str]) -> None:
    """Do runs in order; engines stay warm from one to the next.

    A run that fails is written down as such, and the next one begins. Cancelled, the one under way has given
    way: it goes on from its samples another time.
    """
    with Diary.open(config.database_path, durability=config.journal.durability) as diary:
        scene = await asyncio.to_thread(scene_of, config)
        async with WarmEngines.open(config) as warm:
            for run_id in run_ids:
                try:
                    run = experiments.begin(diary, run_id)
                except InvalidRequest as error:
                    # Somebody cancelled it while it waited.
                    _log.info("not begun", run=run_id, why=error.message)
                    continue
                await _one(diary, scene, warm, run)


async def _one(diary: Diary, scene: Scene, warm: WarmEngines, run: RunRecord) -> None:
    log = _log.bind(run=run.id, experiment=run.experiment, subject=run.subject, life=run.lives)
    log.info("begun")
    with DiaryKeep(diary, run.id) as keep:
        try:
            experiment = catalogue.find(run.experiment)
            inquiry = forms.inquiry_from_json(run.inquiry)
            check_same(experiment, scene, inquiry, run.digest)
            check_gates(inquiry, experiments.runs(diary, states=("measured", "settled")))
            report = await _done(experiment, inquiry, _lab(diary, scene, keep, warm, run), time_left_s(run))
            await asyncio.to_thread(keep.flush)
            provenance = provenance_of(experiment, inquiry, run.id)
            experiments.measured(diary, run.id, forms.report_to_json(report), provenance)
            log.info("measured", answers=[one.statement for one in report.answers])
        except asyncio.CancelledError:
            with contextlib.suppress(SubcortexError):
                keep.flush()
                experiments.yielded(diary, run.id, "its process was told to stop")
            log.info("gave way")
            raise
        except SubcortexError as error:
            _failed(diary, keep, run.id, error.to_wire())
            log.warning("failed", error=error.message)
        except Exception as error:
            wire = SubcortexError(
                f"{run.experiment} broke off with an error of its own: {type(error).__name__}: {error}",
                hint="The log has the whole story; the same question may be asked again.",
                traceback=traceback.format_exc()[-4000:],
            )
            _failed(diary, keep, run.id, wire.to_wire())
            log.exception("failed")


def check_same(experiment: Experiment, scene: Scene, inquiry: Inquiry, digest: str) -> None:
    """See that the machine is the one that the question was asked of, so that samples are of one machine.

    Raises:
        SubcortexError: It is not, or the experiment is not applicable any more; says what differs.
    """
    why = experiment.why_not(scene)
    if why is not None:
        raise InvalidRequest(f"{experiment.name} is not applicable here: {why}")
    asked = (inquiry.subject, inquiry.quantity, inquiry.about)
    now = [one for one in experiment.inquiries(scene) if (one.subject, one.quantity, one.about) == asked]
    if not now:
        raise InvalidRequest(
            f"{experiment.name} has no such question any more of {inquiry.subject}",
            hint="The configuration has changed since it was asked; ask again.",
        )
    if forms.digest_of(now[0], experiment.method) != digest:
        changed = ", ".join(differing(inquiry.depends_on, now[0].depends_on)) or "the way of measuring"
        raise InvalidRequest(
            f"the machine is another than when {experiment.name} was asked: {changed}",
            hint="Ask again: samples of two machines are not put together.",
        )


def check_gates(inquiry: Inquiry, done: Sequence[RunRecord]) -> None:
    """See that what had to run before found nothing that forbids this, and came to an end with it.

    Args:
        inquiry: ``after`` names what gates it.
        done: Runs with a report, the latest last.

    Raises:
        InvalidRequest: It did; says what.
    """
    for name in sorted(inquiry.after):
        last = [run for run in done if run.experiment == name and run.expired_at is None][-1:]
        for answer in forms.report_from_json(last[0].report or {}).answers if last else ():
            again = f"subcortex experiments run {name} --again"
            if answer.outcome == "failed":
                words = f"{name} forbids it: {answer.statement}"
                raise InvalidRequest(words, hint=f"Mend that, then `{again}`.")
            if answer.outcome == "inconclusive":
                words = f"{name} has not come to an end: {answer.statement}"
                raise InvalidRequest(words, hint=f"Give it more time: `{again} --minutes 10`.")


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the names that are not in both with the same value."""
    return sorted(
        name
        for name in {*one, *other}
        if name not in one or name not in other or _text(one[name]) != _text(other[name])
    )


def _text(value: Any) -> str:
    # What has been in the journal has lists where it had tuples.
    return json.dumps(value, sort_keys=True, default=str)


def provenance_of(experiment: Experiment, inquiry: Inquiry, run_id: str) -> dict[str, Any]:
    """Return the birth certificate of a run's answers."""
    made = {"experiment": experiment.name, "method": experiment.method, "run": run_id}
    return {**dict(inquiry.depends_on), **made}


async def _done(experiment: Experiment, inquiry: Inquiry, lab: Lab, limit_s: float) -> Report:
    """Return what an experiment found in its time, and at the end of it what its samples come to by then.

    Raises:
        DeadlineExceeded: Its time was over before there was any sample.
    """
    report = await _within(experiment, inquiry, lab, limit_s)
    if report is None and lab.metrics:
        # With samples and no time left it starts nothing, and tells what they come to.
        report = await _within(experiment, inquiry, lab, _TELLING_S) or Report(())
    if report is None:
        raise DeadlineExceeded(
            f"{experiment.name} was not done within {limit_s:.0f} s, and nothing was measured",
            hint="Give it more minutes.",
        )
    if not (report.answers or lab.metrics):
        why = " ".join(report.noticed) or "it does not say why."
        raise EngineFailed(f"{experiment.name} measured nothing: {why}")
    answered = any(one.quantity == inquiry.quantity for one in report.answers)
    if not report.answers or (not answered and lab.seconds_left <= 0):
        return replace(report, answers=(_unanswered(inquiry, lab), *report.answers))
    return report


async def _within(experiment: Experiment, inquiry: Inquiry, lab: Lab, limit_s: float) -> Report | None:
    """Return what an experiment found in so many seconds; None where that was not enough."""
    limit = asyncio.timeout(limit_s)
    try:
        async with limit:
            return await experiment.run(lab, inquiry)
    except OutOfTime:
        return None
    except TimeoutError:
        if not limit.expired():
            raise EngineFailed(f"{experiment.name} waited in vain for an engine or a probe") from None
        return None


def _unanswered(inquiry: Inquiry, lab: Lab) -> Answer:
    """Return that time was over before the question was answered, and what there is."""
    counts = ", ".join(f"{len(lab.readings(metric))} of {metric}" for metric in lab.metrics)
    why = "time was over, and its samples are too few" if lab.seconds_left <= 0 else "its samples are too few"
    return Answer(
        quantity=inquiry.quantity,
        about=inquiry.about,
        unit=inquiry.unit,
        outcome="inconclusive",
        statement=f"{inquiry.about}: inconclusive; {why} ({counts})",
        tier=None if inquiry.subject == "machine" else inquiry.subject,
    )


def _lab(diary: Diary, scene: Scene, keep: DiaryKeep, warm: WarmEngines, run: RunRecord) -> Lab:
    earlier = [
        Reading(one.metric, one.value, one.unit, one.arm, one.block, one.at_s, one.facts, one.readings)
        for one in experiments.readings(diary, run.id)
    ]
    return Lab(scene, keep, warm, seconds=time_left_s(run), earlier=earlier)


def _failed(diary: Diary, keep: DiaryKeep, run_id: str, error: dict[str, Any]) -> None:
    with contextlib.suppress(Exception):
        # Why it failed is told even where its samples cannot be.
        keep.flush()
    with contextlib.suppress(InvalidRequest):  # it was cancelled meanwhile
        experiments.failed(diary, run_id, error)
