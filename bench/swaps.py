"""Two tiers that cannot both be awake: what a wake takes, and whether the ledger stays true over many swaps.

    python bench/swaps.py --config CONFIG.toml --out DIR --wakes 20 --swaps 60 --kill --json

The configuration's first tier is the fast one, its last the deep one, both lazy, with limits under `[fleet]`
so that one must rest for the other. First the deep tier is put to rest by `yield` and woken by a thought,
again and again: what its first token takes beyond the engine's own wake. Then thoughts go to the two in turn,
each a swap (the last of them by `yield`, which waits for nobody), and after each what the ledger counts is
held against what the driver shows. Then one of the deep tier's worker processes is killed. DIR gets raw.jsonl
(a line a step, as it happens), events.json and the ends of the logs.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
from _bench import arguments, finish, machine, spread

from subcortex import Client, SubcortexError
from subcortex import config as configuration
from subcortex.types import Status, ThinkRequest, Thought, TierState

_PROMPT = "Count the ways in which two models may share one GPU."
_SETTLES_S = 0.4
_AT_REST = (TierState.ASLEEP, TierState.STOPPED)


class Notes:
    """Rows as they happen: in memory, and in a file that outlives us."""

    def __init__(self, file: Path) -> None:
        self.began = time.monotonic()
        self.rows: list[dict[str, Any]] = []
        self._file = file.open("w", buffering=1)

    def add(self, what: str, **facts: Any) -> dict[str, Any]:
        row = {"at_s": round(time.monotonic() - self.began, 3), "what": what, **facts}
        self.rows.append(row)
        self._file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
        return row

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began


def driver_mib() -> list[float]:
    """Return what nvidia-smi calls used of each GPU, MiB; empty without one."""
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        out = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return [float(line) for line in out.split()]


def thought(client: Client, tier: str, tokens: int) -> Thought:
    return client.think(
        ThinkRequest(
            messages=[{"role": "user", "content": _PROMPT}],
            tier=tier,
            max_tokens=tokens,
            temperature=0.0,
            session="swaps",
        )
    )


def until(client: Client, limit_s: float, met: Any) -> Status:
    """Poll until a status meets a condition.

    Raises:
        TimeoutError: It did not in time.
    """
    end_s = time.monotonic() + limit_s
    while not met(status := client.status()):
        if time.monotonic() > end_s:
            raise TimeoutError([f"{tier.name}: {tier.state} {tier.error or ''}" for tier in status.tiers])
        time.sleep(0.05)
    return status


def states(status: Status) -> dict[str, str]:
    return {tier.name: str(tier.state) for tier in status.tiers}


def held(status: Status, before_mib: list[float]) -> dict[str, Any]:
    """Return what the ledger counts of each GPU beside what the driver shows, MiB."""
    shown = driver_mib()
    counted = [
        (device.counted_mib or 0.0) + before_mib[place]
        for place, device in enumerate(
            device for device in status.ledger.devices if device.gpu_index is not None
        )
    ]
    off = [round(one - other, 1) for one, other in zip(counted, shown, strict=True)]
    return {"counted_mib": [round(mib, 1) for mib in counted], "driver_mib": shown, "off_mib": off}


def timed(client: Client, notes: Notes, what: str, tier: str, tokens: int, **more: Any) -> dict[str, Any]:
    """Have a thought and note what it took."""
    try:
        had = thought(client, tier, tokens)
    except SubcortexError as error:
        return notes.add(what, tier=tier, error=error.code, message=error.message, **more)
    return notes.add(what, tier=tier, tokens=had.usage.completion_tokens, **had.timing.model_dump(), **more)


def workers(client: Client, tier: str) -> list[int]:
    """Return an engine's own process and those below it, the youngest last."""
    pid = next(one.pid for one in client.status().tiers if one.name == tier)
    assert pid is not None
    below = psutil.Process(pid).children(recursive=True)
    return [pid, *(one.pid for one in sorted(below, key=lambda one: one.create_time()))]


def last_wake(client: Client, tier: str) -> dict[str, Any]:
    """Return the facts of a tier's latest event of getting ready."""
    with sqlite3.connect(client.config.database_path) as conn:
        found = conn.execute(
            "select detail from events where tier = ? and kind = 'ready' order by seq desc limit 1", (tier,)
        ).fetchone()
    return dict(json.loads(found[0])) if found else {}


def run(given: Any, client: Client, notes: Notes) -> None:
    fast, deep = client.config.tiers[0].name, client.config.tiers[-1].name
    before_mib = driver_mib()
    notes.add("before", driver_mib=before_mib)
    client.start_daemon()
    for name in (deep, fast) if given.swaps else (deep,):
        timed(client, notes, "boot", name, given.tokens)
        notes.add("booted", tier=name, states=states(client.status()), **held(client.status(), before_mib))
    # One that is woken for the first time allocates what it keeps from then on.
    timed(client, notes, "warm", deep, given.tokens)
    for number in range(given.wakes):
        if notes.seconds > given.seconds:
            break
        began = time.monotonic()
        client.yield_gpus()
        status = until(client, given.limit_s, lambda now: all(tier.state in _AT_REST for tier in now.tiers))
        notes.add(
            "rested",
            number=number,
            seconds=round(time.monotonic() - began, 3),
            states=states(status),
            **held(status, before_mib),
        )
        client.resume()
        row = timed(client, notes, "wake", deep, given.tokens, number=number)
        row |= {"facts": last_wake(client, deep)}
        notes.add("woke", number=number, facts=row["facts"], **held(client.status(), before_mib))
        timed(client, notes, "awake", deep, given.tokens, number=number)
    for number in range(given.swaps):
        if notes.seconds > given.seconds:
            break
        name = (fast, deep)[number % 2]
        lent = number >= given.swaps - given.lent
        if lent:
            client.yield_gpus()
            until(client, given.limit_s, lambda now: all(tier.state in _AT_REST for tier in now.tiers))
            client.resume()
        timed(client, notes, "swap", name, given.tokens, number=number, lent=lent)
        # The ledger learns what a tier holds from a look after it has come.
        time.sleep(_SETTLES_S)
        status = client.status()
        notes.add("swapped", number=number, states=states(status), **held(status, before_mib))
    if given.kill:
        kill(given, client, notes, deep)
    notes.add("down", states=states(client.status()))


def kill(given: Any, client: Client, notes: Notes, tier: str) -> None:
    """Kill the youngest process of a ready engine, and have a thought of it as soon as can be."""
    timed(client, notes, "before kill", tier, given.tokens)
    victims = workers(client, tier)
    names = [" ".join(psutil.Process(pid).name().split()) for pid in victims]
    os.kill(victims[-1], signal.SIGKILL)
    began = notes.add("killed", tier=tier, pid=victims[-1], of=names)["at_s"]
    until(
        client,
        given.limit_s,
        lambda now: any(one.name == tier and one.state is not TierState.READY for one in now.tiers),
    )
    notes.add("noticed", tier=tier, after_s=round(notes.seconds - began, 3))
    row = timed(client, notes, "after kill", tier, given.tokens)
    notes.add("back", tier=tier, after_s=round(notes.seconds - began, 3), error=row.get("error"))


def summary(notes: Notes) -> dict[str, Any]:
    rows = notes.rows
    wakes = [row for row in rows if row["what"] == "wake" and "ttft_s" in row]
    woke = {row["number"]: row["facts"] for row in rows if row["what"] == "woke"}
    over = [
        row["ttft_s"] - woke[row["number"]]["engine_s"]
        for row in wakes
        if "engine_s" in woke.get(row["number"], {})
    ]
    off = [abs(mib) for row in rows if row["what"] in ("swapped", "rested", "woke") for mib in row["off_mib"]]
    swaps = [row for row in rows if row["what"] == "swap" and "ttft_s" in row]
    result: dict[str, Any] = {
        "n_wakes": len(wakes),
        "n_swaps": len(swaps),
        "errors": [row["error"] for row in rows if row.get("error")],
        "ledger_off_mib_max": max(off, default=None),
    }
    figures = {
        "wake_overhead_s": over,
        "wake_ttft_s": [row["ttft_s"] for row in wakes],
        "engine_wake_s": [facts["engine_s"] for facts in woke.values() if "engine_s" in facts],
        "canary_s": [facts["canary_s"] for facts in woke.values() if "canary_s" in facts],
        "awake_ttft_s": [row["ttft_s"] for row in rows if row["what"] == "awake" and "ttft_s" in row],
        "rest_s": [row["seconds"] for row in rows if row["what"] == "rested"],
        "swap_ttft_s": [row["ttft_s"] for row in swaps if not row["lent"]],
        "lent_swap_ttft_s": [row["ttft_s"] for row in swaps if row["lent"]],
        "ledger_off_mib": off,
    }
    result |= {name: spread(values) for name, values in figures.items() if values}
    result["back_after_kill_s"] = next((row["after_s"] for row in rows if row["what"] == "back"), None)
    return result


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--config", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--wakes", type=int, default=20)
    parser.add_argument("--swaps", type=int, default=60)
    parser.add_argument("--lent", type=int, default=0, help="of the swaps, so many by yield and resume")
    parser.add_argument("--kill", action="store_true", help="kill a worker of the deep tier at the end")
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=480.0, help="begin no further step after this")
    parser.add_argument("--limit-s", type=float, default=300.0)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    client = Client(configuration.load(given.config))
    notes = Notes(given.out / "raw.jsonl")
    try:
        run(given, client, notes)
    finally:
        try:
            for tier in client.config.tiers:
                (given.out / f"{tier.name}.log").write_text(client.logs(tier.name, 300))
            client.stop()
        except SubcortexError as error:
            notes.add("trouble", error=error.code, message=error.message)
        notes.add("stopped", driver_mib=driver_mib())
        with sqlite3.connect(client.config.database_path) as conn:
            conn.row_factory = sqlite3.Row
            events = [dict(row) for row in conn.execute("select * from events order by seq")]
        (given.out / "events.json").write_text(json.dumps(events, indent=1, default=str) + "\n")
        result = summary(notes) | {"machine": machine()}
        (given.out / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    finish(result, given.json)


if __name__ == "__main__":
    main()
