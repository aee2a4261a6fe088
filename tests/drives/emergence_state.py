"""A state such as emergence-ai 0.4.0 writes, for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write(
    folder: Path,
    drives: dict[str, dict[str, Any]],
    state: dict[str, dict[str, Any]] | None = None,
    **more: Any,
) -> Path:
    """Write both files; ``drives`` are what each is, ``state`` what each has built up. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    put(folder / "drives.json", {"version": "1.1", "drives": drives})
    if state is not None:
        runtime = {"version": "1.1", "last_tick": "2026-02-22T15:00:00+00:00", "triggered_drives": [], **more}
        put(folder / "drives-state.json", {**runtime, "drives": state})
    return folder


def put(file: Path, value: Any) -> None:
    """Replace a file whole, as Emergence does."""
    beside = file.with_suffix(".tmp")
    beside.write_text(json.dumps(value))
    beside.rename(file)


def drive(**keys: Any) -> dict[str, Any]:
    """Return what one drive is."""
    return {
        "threshold": 20.0,
        "rate_per_hour": 2.0,
        "description": "What it is.",
        "prompt": "What to do.",
        "category": "discovered",
        "activity_driven": False,
        "min_interval_seconds": 14400,
        **keys,
    }
