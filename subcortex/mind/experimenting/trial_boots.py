"""What experiments' starts of engines teach the planner: predicted as any other, measured as they came."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from subcortex.config import RemoteTier, Tier, VllmTier
from subcortex.errors import SubcortexError
from subcortex.hardware import Hardware
from subcortex.journal import BootEnd, BootStart
from subcortex.journal.diary import Diary, experiments, trial_boots
from subcortex.journal.diary.experiment_records import RunRecord
from subcortex.mind.boots import Predict
from subcortex.types import BootFigures
from subcortex.vram.learning.boots import residuals, setup_json

_TIERS: TypeAdapter[Tier] = TypeAdapter(Tier)


def keep_boots(diary: Diary, run: RunRecord, predict: Predict, look: Callable[[], Hardware]) -> int:
    """Put a run's starts among all starts on record; return how many are there now.

    Those that failed, told nothing of memory, or cannot be foretold teach nothing, and are left out. What
    others held of the GPUs then is not known any more, so neither is what the context took.

    Args:
        diary: The journal's database.
        run: Whose starts.
        predict: Foretells what a tier takes.
        look: Returns the machine; called if there are starts.

    Raises:
        JournalError: The database takes nothing now.
    """
    kept = 0
    boots = experiments.boots(diary, run.id)
    machine = look() if boots else None
    for place, boot in enumerate(boots):
        at = run.ended_at or diary.clock.now()
        found = as_boot(f"{run.id}{place:04x}", at, boot.facts, predict, machine)
        kept += found is not None and trial_boots.keep(diary, *found, at)
    return kept


def as_boot(
    boot_id: str, at: datetime, facts: Mapping[str, Any], predict: Predict, machine: Hardware | None
) -> tuple[BootStart, BootEnd] | None:
    """Return a start as the journal keeps those of the daemon, None if it teaches nothing."""
    if facts.get("error") or not facts.get("figures"):
        return None
    try:
        tier = _TIERS.validate_python(facts["settings"])
        figures = BootFigures.model_validate(facts["figures"])
        prediction = None if isinstance(tier, RemoteTier) else predict(tier)
    except (SubcortexError, ValidationError, OSError):
        return None
    if prediction is None or isinstance(tier, RemoteTier):
        return None
    prediction = replace(prediction, used_before_mib=(None,) * len(prediction.used_before_mib))
    cards = {gpu.index: gpu for gpu in (machine.gpus if machine else ())}
    gpus = [cards[index] for index in prediction.gpu_indices if index in cards]
    start = BootStart(
        id=boot_id,
        at=at,
        # Not the tier's own starts, whose last version and settings are looked up by its name.
        tier=f"lab-{tier.name}",
        engine=tier.engine,
        model=tier.model,
        architecture=prediction.architecture,
        gpus=[(gpu.name, gpu.uuid) for gpu in gpus],
        tensor_parallel_size=tier.tensor_parallel_size if isinstance(tier, VllmTier) else max(1, len(gpus)),
        pipeline_parallel_size=tier.pipeline_parallel_size if isinstance(tier, VllmTier) else 1,
        setup=setup_json(prediction.setup) if prediction.setup else None,
        predicted=prediction.to_json(),
    )
    compared = residuals(prediction.raw or prediction.footprint, figures, prediction.used_before_mib)
    version = facts.get("version")
    end = BootEnd(
        id=boot_id,
        outcome="ready",
        engine_version=str(version) if version else None,
        measured=figures,
        residuals=[one.to_json() for one in compared],
    )
    return start, end
