"""The ladder against a dense sweep of a real engine: vLLM on this machine's CPU, one run, one boot."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any

from subcortex.config import VllmTier, parse
from subcortex.experiments.catalogue.saturation.experiment import climb
from subcortex.experiments.laboratory.engines import WarmEngines
from subcortex.experiments.laboratory.load import Endpoint, Load, answer
from subcortex.experiments.laboratory.record import Reading
from subcortex.experiments.saturation import Done, Limits, Measured, knee_of_sweep

_ROOT = Path(__file__).resolve().parents[1]
_MOST, _TOKENS, _WINDOW_S, _DENSE_WINDOWS, _DRAWS = 64, 64, 2.0, 8, 500
#: Of the sweep's windows, what the ladder may take: the goal for its time.
_SHARE = 0.25
_ENV = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "0",
    "OMP_NUM_THREADS": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


class _Nobody:
    """Takes a run's raw data and keeps none of it; windows are collected here."""

    def reading(self, reading: Reading) -> None: ...

    def command(self, words: Any, version: str | None) -> None: ...

    def boot(self, facts: Any) -> None: ...

    def progress(self, text: str, share: float | None) -> None: ...


def real(model: str, limit: int) -> dict[str, Any]:
    """Return what ladder and sweep find on the testbed's model of that name, in batches up to a limit."""
    return asyncio.run(_real(model, limit))


async def _real(model: str, limit: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="sub-") as folder:
        config = parse(
            {
                "daemon": {"runtime_dir": folder},
                "journal": {"database": f"{folder}/journal.db"},
                "tiers": [
                    {
                        "name": model,
                        "engine": "vllm",
                        "model": str(_ROOT / "testbed" / "models" / model),
                        "python": str(_ROOT / ".venv-vllm" / "bin" / "python"),
                        "context_tokens": 512,
                        "env": _ENV,
                        "flags": ["--enforce-eager", "--max-num-seqs", str(limit)],
                    }
                ],
            }
        )
        tier = config.tiers[0]
        assert isinstance(tier, VllmTier)
        async with (
            WarmEngines.open(config) as warm,
            warm.lent(tier, _Nobody(), lambda _: None) as served,
        ):
            endpoint = await Endpoint.of(served)
            for _ in range(3):
                await answer(endpoint, prompt_tokens=_TOKENS, max_tokens=_TOKENS)
            async with Load.on(endpoint, prompt_tokens=_TOKENS, max_tokens=_TOKENS) as load:
                return await _both(load) | {"limit": limit, "engine": served.engine.version}


async def _both(load: Load) -> dict[str, Any]:
    ladder: list[Measured] = []
    began_s = time.monotonic()
    end = await climb(
        load,
        Limits(_MOST, _WINDOW_S, most_s=_SHARE * len(_points()) * _DENSE_WINDOWS * _WINDOW_S),
        ladder,
        keep=lambda window, medians: None,
        seconds_left=lambda: 3600.0,
    )
    ladder_s = time.monotonic() - began_s
    assert end is not None
    await load.keep(0)
    visits, dense_s = await _swept(load)
    sweep = _means(visits)
    knee = knee_of_sweep(sweep)
    within = isinstance(end, Done) and knee is not None and abs(end.knee / knee - 1) <= 0.15
    return {
        "within_15pct": within,
        "knee_ladder": round(end.knee, 2),
        "knee_ladder_interval": [round(end.interval.low, 2), round(end.interval.high, 2)],
        "ladder_end": "done" if isinstance(end, Done) else getattr(end, "reason", ""),
        "knee_sweep": None if knee is None else round(knee, 2),
        "knee_sweep_interval": _interval(visits),
        "time_ratio": round(ladder_s / dense_s, 4),
        "ladder_s": round(ladder_s, 1),
        "dense_s": round(dense_s, 1),
        "ladder_windows": [[one.concurrency, round(one.tok_s, 1)] for one in ladder],
        "sweep": [[int(size), round(tok_s, 1)] for size, tok_s in sweep],
    }


async def _swept(load: Load) -> tuple[dict[int, list[float]], float]:
    """Measure every size, up and down again, so that drift cancels; return the visits' tok/s and the time."""
    points = _points()
    found: dict[int, list[float]] = {one: [] for one in points}
    began_s = time.monotonic()
    for size in [*points, *reversed(points)]:
        await load.keep(size)
        found[size].append(await _visited(load))
    return found, time.monotonic() - began_s


def _points() -> list[int]:
    return sorted({round(2 ** (i / 8)) for i in range(8 * 6 + 1)})


async def _visited(load: Load) -> float:
    """Return the tok/s of half of a size's windows; those that are longer than asked for are fewer."""
    tokens = seconds = 0.0
    while seconds < _DENSE_WINDOWS // 2 * _WINDOW_S * 0.99:
        window = await load.window(_WINDOW_S)
        tokens, seconds = tokens + window.tok_s * window.seconds, seconds + window.seconds
    return tokens / seconds


def _means(visits: dict[int, list[float]]) -> list[tuple[float, float]]:
    return [(float(size), sum(each) / len(each)) for size, each in visits.items()]


def _interval(visits: dict[int, list[float]]) -> Sequence[float | None]:
    """Return how well the sweep itself knows its knee: 90 %, by bootstrap over its two visits to each size.

    Windows of one visit err alike. Where a draw has no knee, that lies above all that have; an end that falls
    among them is None.
    """
    rng = random.Random(1)
    drawn = [
        knee_of_sweep([(float(size), sum(rng.choices(both, k=2)) / 2) for size, both in visits.items()])
        for _ in range(_DRAWS)
    ]
    ranked = sorted(inf if one is None else one for one in drawn)
    ends = (ranked[round(share * (len(ranked) - 1))] for share in (0.05, 0.95))
    return [None if one == inf else round(one, 2) for one in ends]
