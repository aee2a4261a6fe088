"""Break everything that can break, again and again, under load, and look at what is lost or left behind.

    python bench/chaos.py --faults 200 --seed 1 --json --log faults.jsonl

A real daemon with real llama.cpp engines, with real vLLM on the CPU for some of the faults, and with a
stand-in for what real engines cannot be made to show (``_chaos_standin.py``), on a machine too small for all
tiers at once. Faults are drawn by the seed (``_chaos_faults.py``), one after the other; after each, every
tier must serve again before the next: that is its recovery time, seconds.

``leaked_processes``: left after the end, or beyond those on record during the run. ``lost_thoughts``: without
an answer or a typed error within their bound (deadline and a margin, or what the documentation says).
``torn_rows``: what SQLite's own checks find, and answers that a client got and the journal has not.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from _bench import arguments, finish, machine, percentile  # noqa: E402
from _chaos_faults import FAULTS, VLLM_FAULTS, Fault  # noqa: E402
from _chaos_load import Load, Outcome  # noqa: E402
from _chaos_world import DEEP, FAST, STANDIN, VLLM, Findings, Plan, World, facts  # noqa: E402

_THREADS = 4
#: One fault in so many is vLLM's: most cost a start of half a minute.
_VLLM_EVERY = 10


def drawn(names: list[str], count: int, rng: random.Random) -> list[str]:
    """Return so many of the names in a random order, each as often as the others give or take one."""
    found: list[str] = []
    while len(found) < count:
        found += rng.sample(names, len(names))
    return found[:count]


def _heed(what: Any) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, what)


class Run:
    """What came of all faults so far."""

    def __init__(self, seed: int, log: TextIO | None, until_s: float) -> None:
        self.seed = seed
        self.until_s = until_s
        self.faults: Counter[str] = Counter()
        self.recovered_s: list[float] = []
        self.unrecovered: list[str] = []
        self.leaked: list[str] = []
        self.outcomes: list[Outcome] = []
        self.silent: list[str] = []
        self.findings: list[Findings] = []
        self._log = log

    def note(self, **what: Any) -> None:
        """Write a line to the log."""
        if self._log:
            self._log.write(json.dumps(what) + "\n")
            self._log.flush()

    def live(self, plan: Plan, kinds: dict[str, Fault], names: list[str], *, keep: bool) -> None:
        """Have the named faults in a world of their own."""
        world = World(plan)
        world.open()
        load = Load(str(world.file), lambda: list(plan.serving), plan.bound_s, str(self.seed), _THREADS)
        self.note(world=str(world.folder), serving=plan.serving)
        try:
            world.status()
            load.start()
            self.note(first=world.recovered())
            for number, name in enumerate(names):
                if time.monotonic() > self.until_s:
                    break
                self._one(world, load, number, name, kinds[name])
        finally:
            # Once more while it clears away would leave what it is to find.
            _heed(signal.SIG_IGN)
            self.silent += load.stop()
            answered = {one.id: one.text or "" for one in load.outcomes if one.id}
            found = world.close(answered)
            self.outcomes += load.outcomes
            self.findings.append(found)
            wrong = [one for one in load.outcomes if one.lost]
            self.note(end=str(world.folder), found=repr(found), lost=[repr(one) for one in wrong])
            if not keep:
                world.remove()
            _heed(signal.default_int_handler)

    def _one(self, world: World, load: Load, number: int, name: str, fault: Fault) -> None:
        rng = random.Random(f"{self.seed}/{name}/{number}")
        time.sleep(rng.uniform(0.0, 0.4))
        before = len(load.outcomes)
        began_s = time.monotonic()
        try:
            words = fault(world, rng)
        except Exception as error:
            words = f"could not be had: {type(error).__name__}: {error}"
        done_s = time.monotonic()
        wrong = world.recovered()
        took_s = time.monotonic() - done_s
        strays = world.strays()
        self.faults[name] += 1
        self.recovered_s.append(took_s)
        self.leaked += [f"during {name}: {words}" for words in strays]
        if wrong:
            self.unrecovered.append(f"{name} ({words}): {wrong}")
        self.note(
            number=number,
            fault=name,
            did=words,
            took_s=round(done_s - began_s, 2),
            recovered_s=round(took_s, 2),
            wrong=wrong,
            strays=strays,
            thoughts=len(load.outcomes) - before,
            tiers=facts(world.status()) if wrong or strays else None,
        )

    def result(self) -> dict[str, Any]:
        """Return all figures."""
        lost = [f"{one.kind}: {one.code} after {one.took_s:.1f} of {one.bound_s:.1f} s: {one.words}"
                for one in self.outcomes if one.lost]  # fmt: skip
        lost += self.silent
        leaked = self.leaked + [words for found in self.findings for words in found.leaked]
        torn = [words for found in self.findings for words in found.torn]
        events: Counter[str] = Counter()
        for found in self.findings:
            events.update(found.events)
        times = self.recovered_s or [0.0]
        return {
            "seed": self.seed,
            "faults": sum(self.faults.values()),
            "by_kind": dict(sorted(self.faults.items())),
            "leaked_processes": len(leaked),
            "lost_thoughts": len(lost),
            "torn_rows": len(torn),
            "unrecovered": len(self.unrecovered),
            "sockets_left": sum(len(found.sockets) for found in self.findings),
            "shm_left": sum(len(found.shm) for found in self.findings),
            "recovered_s_p50": round(percentile(times, 0.5), 2),
            "recovered_s_p95": round(percentile(times, 0.95), 2),
            "recovered_s_max": round(max(times), 2),
            "thoughts": len(self.outcomes),
            "answered": sum(1 for one in self.outcomes if one.id),
            "thought_s_p99": round(percentile([one.took_s for one in self.outcomes] or [0.0], 0.99), 2),
            "thought_s_max": round(max((one.took_s for one in self.outcomes), default=0.0), 2),
            "degraded": sum(1 for one in self.outcomes if one.degraded),
            "errors_by_code": dict(sorted(Counter(one.code for one in self.outcomes if one.code).items())),
            "adopted": events["adopted"],
            "restarts": events["restarts"],
            "swaps": events["swaps"],
            "woken": events["woken"],
            "what_was_wrong": {"leaked": leaked, "lost": lost, "torn": torn, "unrecovered": self.unrecovered},
        }


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=600.0, help="begin no fault after so long")
    parser.add_argument("--log", type=Path, help="write the seed and each fault here, a JSON line each")
    parser.add_argument("--vllm", type=int, help="how many of the faults are vLLM's; one in ten if not said")
    parser.add_argument("--ranks", type=int, default=1, help="vLLM's tensor_parallel_size")
    parser.add_argument("--only", nargs="*", choices=list(FAULTS), help="draw from these kinds alone")
    parser.add_argument("--keep", action="store_true", help="leave the folders with logs and database")
    given = parser.parse_args()
    vllm_python = os.environ.get("SUBCORTEX_TEST_VLLM_PYTHON") or str(ROOT / ".venv-vllm" / "bin" / "python")
    vllm = given.faults // _VLLM_EVERY if given.vllm is None else given.vllm
    rng = random.Random(given.seed)
    kinds = {**FAULTS, **VLLM_FAULTS}
    some = given.only or list(FAULTS)
    names = drawn(some, given.faults - vllm, rng)
    vllm_names = drawn(list(VLLM_FAULTS), vllm, rng)
    log = given.log.open("w") if given.log else None
    # Told to end, it still ends its daemon; who starts it in the background has it ignore the first.
    _heed(signal.default_int_handler)
    run = Run(given.seed, log, time.monotonic() + given.minutes * 60)
    run.note(seed=given.seed, faults=names + vllm_names)
    small = Plan(FAST + DEEP + STANDIN, limit_gib=1.0, serving=("fast", "deep", "odd"))
    # There is room for both here: each swap would cost a start of vLLM.
    large = Plan(
        FAST + VLLM,
        limit_gib=12.0,
        serving=("fast", "vllm"),
        bound_s=300.0,
        recovery_s=300.0,
        vllm_python=vllm_python,
        ranks=given.ranks,
    )
    # Told to end, it says what it has found so far.
    with suppress(KeyboardInterrupt):
        run.live(small, kinds, names, keep=given.keep)
        if vllm_names:
            run.live(large, kinds, vllm_names, keep=given.keep)
    result = run.result()
    run.note(result=result)
    if log:
        log.close()
    finish(result | {"machine": machine()}, given.json)


if __name__ == "__main__":
    main()
