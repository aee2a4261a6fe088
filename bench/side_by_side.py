"""Two tiers at work at once: mixed thoughts, one engine killed in the middle, everything timed.

    python bench/side_by_side.py --config CONFIG.toml --out DIR --thoughts 200 --json

Boots the configuration's tiers through the daemon, streams thoughts of mixed drives at ``--concurrency``,
kills the least capable tier's engine after two fifths of them, goes on while it restarts, and ends when all
were had with both tiers up. DIR gets raw.jsonl (a line a thought), boots.json, timeline.json, events.json,
table.md and the ends of the logs. Works on any configuration with two local tiers; docs/evidence/ has runs
on real GPUs.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

from _bench import arguments, finish, machine, percentile

from subcortex import Client, SubcortexError, Thought, astream
from subcortex import config as configuration
from subcortex.types import TierState

_DRIVES = ["LEARNING", "CURIOSITY", "MAINTENANCE", "SOCIAL", "CREATIVE", None]
_PROMPTS = [
    "hi",
    "What is 7 + 5?",
    "Thanks, that was all.",
    "Name three colours.",
    "Summarise in one line: the engine started, served and stopped.",
    "Does tensor parallelism cost VRAM beyond the weights? Explain step by step and give figures.",
    "Compare pipeline and tensor parallelism over PCIe, then say which you would choose and why.",
    "Plan an experiment that separates the cost of communication from the cost of smaller matrices.",
    "Prove that the sum of the first n odd numbers is a square, then generalise it.",
    "A 70B model has 80 layers, 8 KV heads of size 128 at 2 bytes. How much KV cache do 8192 tokens need?",
]


class Watch:
    """Seconds since the run began, and what happened when."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.timeline: list[dict[str, Any]] = []

    def note(self, what: str, **facts: Any) -> None:
        self.timeline.append({"at_s": round(time.monotonic() - self.began, 3), "what": what, **facts})
        print(json.dumps(self.timeline[-1]), flush=True)


async def until_ready(client: Client, watch: Watch, names: list[str], limit_s: float) -> None:
    """Wait until all named tiers are ready, noting each change of state or progress."""
    seen: dict[str, tuple[str, str | None]] = {}
    async with asyncio.timeout(limit_s):
        while True:
            tiers = {tier.name: tier for tier in (await asyncio.to_thread(client.status)).tiers}
            for name, tier in tiers.items():
                now = (str(tier.state), tier.progress)
                if seen.get(name) != now:
                    seen[name] = now
                    watch.note("tier", tier=name, state=now[0], progress=now[1], error=tier.error)
                if tier.state is TierState.FAILED and name in names:
                    raise RuntimeError(f"{name} failed: {tier.error}")
            if all(tiers[name].state is TierState.READY for name in names):
                return
            await asyncio.sleep(0.25)


async def one(client: Client, number: int, rng: random.Random, max_tokens: int) -> dict[str, Any]:
    """Have one streamed thought and return its row."""
    prompt, drive = rng.choice(_PROMPTS), rng.choice(_DRIVES)
    row: dict[str, Any] = {"number": number, "drive": drive, "prompt": prompt, "asked_at": time.time()}
    began, first, chunks = time.monotonic(), None, 0
    try:
        async for piece in astream(
            prompt, drive=drive, max_tokens=max_tokens, temperature=0.8, session="side-by-side", client=client
        ):
            if isinstance(piece, Thought):
                row |= {
                    "id": piece.id,
                    "tier": piece.tier,
                    "complexity": piece.route.complexity,
                    "score": piece.route.score,
                    "degraded": piece.route.degraded,
                    "why": piece.route.degraded_reason or piece.route.reasons[-1],
                    "tokens": piece.usage.completion_tokens,
                    **piece.timing.model_dump(),
                }
            else:
                first = first or time.monotonic()
                chunks += 1
        row["seen_ttft_s"] = round(first - began, 6) if first else None
        row["chunks"] = chunks
    except SubcortexError as error:
        row |= {"error": error.code, "message": error.message, "chunks": chunks}
    return row


async def batch(
    client: Client, numbers: range, rng: random.Random, concurrency: int, max_tokens: int
) -> list[dict[str, Any]]:
    """Have the thoughts of ``numbers``, ``concurrency`` at a time."""
    gate = asyncio.Semaphore(concurrency)

    async def gated(number: int) -> dict[str, Any]:
        async with gate:
            return await one(client, number, rng, max_tokens)

    return list(await asyncio.gather(*(gated(number) for number in numbers)))


def gpus() -> list[dict[str, Any]]:
    """Return memory and clocks of each GPU as nvidia-smi gives them; empty without one."""
    fields = "index,name,uuid,memory.used,memory.total,clocks.sm,temperature.gpu,driver_version"
    try:
        out = subprocess.run(
            ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    names = fields.split(",")
    return [dict(zip(names, map(str.strip, line.split(",")), strict=True)) for line in out.splitlines()]


def at(values: list[float], share: float, digits: int) -> float | None:
    """Return a percentile; None of nothing."""
    return round(percentile(values, share), digits) if values else None


def table(rows: list[dict[str, Any]], tiers: list[str]) -> tuple[dict[str, Any], str]:
    """Return the summary by phase and tier, as data and as markdown."""
    data: dict[str, Any] = {}
    lines = [
        "| phase | tier | thoughts | degraded | tokens "
        "| TTFT p50 ms | TTFT p95 ms | TPOT p50 ms | TPOT p95 ms | total p50 s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for phase in dict.fromkeys(row["phase"] for row in rows):
        for tier in tiers:
            had = [row for row in rows if row["phase"] == phase and row.get("tier") == tier]
            if not had:
                continue
            ttft = [1e3 * row["ttft_s"] for row in had if row["ttft_s"] is not None]
            tpot = [1e3 * row["tpot_s"] for row in had if row["tpot_s"] is not None]
            figures = {
                "thoughts": len(had),
                "degraded": sum(row["degraded"] for row in had),
                "tokens": sum(row["tokens"] for row in had),
                "ttft_ms_p50": at(ttft, 0.5, 1),
                "ttft_ms_p95": at(ttft, 0.95, 1),
                "tpot_ms_p50": at(tpot, 0.5, 2),
                "tpot_ms_p95": at(tpot, 0.95, 2),
                "total_s_p50": round(statistics.median(row["total_s"] for row in had), 3),
            }
            data[f"{phase}/{tier}"] = figures
            lines.append(
                f"| {phase} | {tier} | " + " | ".join(str(value) for value in figures.values()) + " |"
            )
    return data, "\n".join(lines) + "\n"


async def run(given: Any, client: Client, out: Path) -> dict[str, Any]:
    watch, rng = Watch(), random.Random(given.seed)
    names = [tier.name for tier in client.config.tiers]
    victim = names[0]
    watch.note("before", gpus=gpus())
    client.start_daemon()
    await until_ready(client, watch, names, given.limit_s)
    boots = [tier.model_dump(mode="json") for tier in client.status().tiers]
    watch.note("booted", gpus=gpus())

    first, second = given.thoughts * 2 // 5, given.thoughts * 7 // 10
    phases = (("both up", range(first)), ("one killed", range(first, second)))
    rows: list[dict[str, Any]] = []
    for phase, numbers in phases:
        if phase == "one killed":
            pid = next(tier.pid for tier in client.status().tiers if tier.name == victim)
            assert pid is not None
            # The kill lands with thoughts of this phase in flight.
            asyncio.get_running_loop().call_later(given.kill_after_s, os.kill, pid, signal.SIGKILL)
            watch.note("kill", tier=victim, pid=pid, after_s=given.kill_after_s)
        had = await batch(client, numbers, rng, given.concurrency, given.max_tokens)
        rows += [{"phase": phase, **row} for row in had]
        watch.note("phase over", phase=phase, thoughts=len(had))
    await until_ready(client, watch, names, given.limit_s)
    watch.note("back", gpus=gpus())
    had = await batch(client, range(second, given.thoughts), rng, given.concurrency, given.max_tokens)
    rows += [{"phase": "back", **row} for row in had]
    watch.note("phase over", phase="back", thoughts=len(had))
    status = client.status()
    for tier in names:
        (out / f"{tier}.log").write_text(client.logs(tier, 400))
    summary, markdown = table(rows, names)
    # Samples first: whatever happens at the end, they are kept.
    (out / "raw.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (out / "table.md").write_text(markdown)
    watch.note("down")
    client.stop()
    for _ in range(10 if gpus() else 1):
        # A driver goes on giving memory back after the process is gone.
        watch.note("stopped", mib=[gpu["memory.used"] for gpu in gpus()])
        await asyncio.sleep(1.0)
    with sqlite3.connect(client.config.database_path) as conn:
        conn.row_factory = sqlite3.Row
        events = [dict(row) for row in conn.execute("select * from events order by seq")]
        kept = dict(conn.execute("select status, count(*) from thoughts group by status").fetchall())
    for name, value in (
        ("boots.json", boots),
        ("timeline.json", watch.timeline),
        ("events.json", events),
        ("status.json", status.model_dump(mode="json")),
    ):
        (out / name).write_text(json.dumps(value, indent=1, default=str) + "\n")
    return {
        "thoughts": len(rows),
        "answered": sum("error" not in row for row in rows),
        "typed_errors": [row["error"] for row in rows if "error" in row],
        "by_tier": {name: sum(row.get("tier") == name for row in rows) for name in names},
        "degraded": sum(bool(row.get("degraded")) for row in rows),
        "boot_s": {tier["name"]: tier["load_s"] for tier in boots},
        "restarts": {tier.name: tier.restarts for tier in status.tiers},
        "journal": kept,
        "phases": summary,
        "machine": machine() | {"gpus": gpus()},
    }


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--config", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--thoughts", type=int, default=200)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kill-after-s", type=float, default=0.5)
    parser.add_argument("--limit-s", type=float, default=400.0)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    client = Client(configuration.load(given.config))
    result = asyncio.run(run(given, client, given.out))
    (given.out / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    finish(result, given.json)


if __name__ == "__main__":
    main()
