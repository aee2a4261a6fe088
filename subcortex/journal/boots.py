"""Starts of engines and machines, between records and rows; pure translation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from subcortex.journal.records import BootEnd, BootRecord, BootStart, Failure
from subcortex.journal.rows import storable, timestamp
from subcortex.types import BootFigures

INSERT_BOOT = """
INSERT INTO boots (id, at, run_id, tier, engine, model, architecture, gpus, tensor_parallel_size,
    pipeline_parallel_size, setup, predicted, hardware)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
#: For the end of a boot whose start is not in the file (any more).
RESTORE_BOOT = f"{INSERT_BOOT} ON CONFLICT (id) DO NOTHING"
#: A boot ends once: what it was predicted to take and what came are not rewritten.
UPDATE_BOOT = """
UPDATE boots SET ended_at = ?, outcome = ?, engine_version = ?, measured = ?, residuals = ?, error = ?
WHERE id = ? AND outcome IS NULL"""
INSERT_HARDWARE = """
INSERT INTO hardware_snapshots (at, digest, snapshot) VALUES (?, ?, ?) ON CONFLICT (digest) DO NOTHING"""


def start_row(start: BootStart, run_id: str) -> tuple[Any, ...]:
    """Return the parameters of ``INSERT_BOOT``."""
    return (
        start.id,
        timestamp(start.at),
        run_id,
        storable(start.tier),
        storable(start.engine),
        storable(start.model),
        start.architecture,
        _json(list(start.gpus)),
        start.tensor_parallel_size,
        start.pipeline_parallel_size,
        _json(start.setup),
        _json(start.predicted),
        start.hardware,
    )


def end_row(end: BootEnd, at: datetime) -> tuple[Any, ...]:
    """Return the parameters of ``UPDATE_BOOT``."""
    return (
        timestamp(at),
        end.outcome,
        end.engine_version,
        end.measured.model_dump_json(exclude_defaults=True) if end.measured is not None else None,
        _json(end.residuals),
        _json(list(end.error)) if end.error is not None else None,
        end.id,
    )


def hardware_row(snapshot: Mapping[str, Any], at: datetime) -> tuple[str, str, str]:
    """Return the parameters of ``INSERT_HARDWARE``; the second is the digest of what the snapshot says."""
    text = json.dumps(snapshot, sort_keys=True, separators=(",", ":"), default=str)
    return timestamp(at), hashlib.sha256(text.encode()).hexdigest()[:16], text


def readable(row: Mapping[str, Any]) -> BootRecord | None:
    """Return the record of one row; None if it is damaged or a newer program's."""
    try:
        return record_of(row)
    except (ValueError, TypeError, KeyError):
        return None


def record_of(row: Mapping[str, Any]) -> BootRecord:
    """Return the record of one row of ``boots``."""
    values = {name: row[name] for name in row if name not in ("seq", "measured", "error")}
    for name in ("gpus", "setup", "predicted", "residuals"):
        values[name] = json.loads(row[name]) if row[name] is not None else None
    measured, error = row["measured"], row["error"]
    return BootRecord(
        **values,
        measured=BootFigures.model_validate_json(measured) if measured is not None else None,
        error=Failure(*json.loads(error)) if error is not None else None,
    )


def _json(value: Any) -> str | None:
    if value is None:
        return None
    return storable(json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str))
