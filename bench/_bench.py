"""What every benchmark here shares: spread, versions, and one JSON object as the last line."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import subcortex


def arguments(description: str) -> argparse.ArgumentParser:
    """Return a parser that knows ``--json``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print the JSON object alone")
    return parser


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value at ``share`` (0 to 1) of the sorted values, the nearest rank."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, round(share * (len(ranked) - 1)))]


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Return n, median, quartiles, p99 and the ends of a sample."""
    return {
        "n": len(values),
        "p50": round(statistics.median(values), digits),
        "p25": round(percentile(values, 0.25), digits),
        "p75": round(percentile(values, 0.75), digits),
        "p99": round(percentile(values, 0.99), digits),
        "min": round(min(values), digits),
        "max": round(max(values), digits),
    }


def machine() -> dict[str, Any]:
    """Return what a figure depends on besides the code."""
    names = ("openai", "aiohttp", "pydantic", "xllamacpp", "vllm", "torch")
    return {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2),
        "versions": {"subcortex": subcortex.__version__} | _versions(names),
    }


def _versions(names: Sequence[str]) -> dict[str, str]:
    found = {}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def finish(result: dict[str, Any], as_json: bool) -> None:
    """Print the result: for people a line a figure first, and the JSON object last in any case."""
    if not as_json:
        for name, value in result.items():
            print(f"{name:24} {value}")
    print(json.dumps(result))
