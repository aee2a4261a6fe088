"""What a thought waits longer for with an experiment running: one gives way, with its engines and probes.

    python bench/preemption.py --json

A daemon serves the testbed's two tiny models. A thought is had alone, and one in the midst of a running
experiment, which it interrupts; by turns, the same prompt for both, ``--thoughts`` of each. The experiment is
the real ``joint_serving``, with two engines of its own under load: a new run for each thought, which comes
once there is a sample. ``alone_ms`` and ``interrupting_ms`` are from the call of `think()` to its answer,
``added_ms`` the difference of each pair. ``within_1s`` is the share of pairs less than a second apart,
``interrupted`` how many of the thoughts had a run give way.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _bench import arguments, finish, machine, percentile

from subcortex import Client, think
from subcortex import config as configuration
from subcortex.journal.diary import Diary, experiments
from subcortex.types import TierState

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from testbed import tasks  # noqa: E402

_EXPERIMENT, _SUBJECT, _MINUTES = "joint_serving", "deep", 60.0
_LIMIT_S = 120.0
_TIER = """
[[tiers]]
name = "{name}"
engine = "llama.cpp"
model = "{model}"
context_tokens = 1024
threads = 1
"""


def spread(values: list[float]) -> dict[str, float]:
    """Return n, median, 95th percentile and the largest of a sample."""
    return {
        "n": len(values),
        "p50": round(percentile(values, 0.5), 1),
        "p95": round(percentile(values, 0.95), 1),
        "max": round(max(values), 1),
    }


def awaited(condition: Any, what: str) -> None:
    """Wait until a condition holds; RuntimeError if it never does."""
    end_s = time.monotonic() + _LIMIT_S
    while not condition():
        if time.monotonic() > end_s:
            raise RuntimeError(f"{what}: not within {_LIMIT_S:g} s")
        time.sleep(0.02)


def took_ms(client: Client, prompt: str) -> float:
    """Have a thought and return how long it took."""
    began_s = time.perf_counter()
    think(prompt, tier="fast", max_tokens=16, temperature=0.0, client=client)
    return (time.perf_counter() - began_s) * 1e3


def measure(client: Client, diary: Diary, prompts: list[str]) -> dict[str, Any]:
    """Take pairs of thoughts; which of a pair comes first changes."""
    for prompt in prompts[:3]:
        took_ms(client, prompt)
    alone: list[float] = []
    interrupting: list[float] = []
    interrupted = 0
    for place, prompt in enumerate(prompts):
        for with_run in (False, True) if place % 2 == 0 else (True, False):
            if not with_run:
                alone.append(took_ms(client, prompt))
                continue
            (run,) = client.run_experiments([_EXPERIMENT], subject=_SUBJECT, minutes=_MINUTES, again=True)
            awaited(lambda run=run: experiments.readings(diary, run.id), f"a sample of {_EXPERIMENT}")
            before = experiments.run(diary, run.id)
            interrupting.append(took_ms(client, prompt))
            # It is written down once its processes are gone, which the thought does not wait for.
            awaited(lambda run=run: experiments.run(diary, run.id).state != "running", "the end of its life")
            interrupted += before.state == "running" and experiments.run(diary, run.id).state == "yielded"
            # What goes on by itself would be there while the next thought is to be alone.
            client.cancel_experiment(run.id)
    added = [with_run - without for without, with_run in zip(alone, interrupting, strict=True)]
    return {
        "added_ms_p50": spread(added)["p50"],
        "added_ms_p95": spread(added)["p95"],
        "within_1s": round(sum(one < 1000.0 for one in added) / len(added), 3),
        "interrupted": interrupted,
        "alone_ms": spread(alone),
        "interrupting_ms": spread(interrupting),
        "added_ms": spread(added),
    }


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--thoughts", type=int, default=20, help="of each kind")
    given = parser.parse_args()
    rng = random.Random(0)
    prompts = [tasks.item(rng.randint(1, 2), rng).prompt for _ in range(max(3, given.thoughts))]
    with tempfile.TemporaryDirectory(prefix="sub-") as folder:
        tiers = (
            _TIER.format(name=name, model=ROOT / "testbed" / "models" / name / f"{name}.gguf")
            for name in ("fast", "deep")
        )
        file = Path(folder, "config.toml")
        file.write_text("[subcortex]\nversion = 1\n" + "".join(tiers))
        os.environ["SUBCORTEX_DAEMON__RUNTIME_DIR"] = folder
        os.environ["SUBCORTEX_JOURNAL__DATABASE"] = f"{folder}/journal.db"
        os.environ["SUBCORTEX_JOURNAL__SESSIONS_DIR"] = f"{folder}/sessions"
        client = Client(configuration.load(file))
        client.start_daemon()
        try:
            awaited(lambda: all(tier.state is TierState.READY for tier in client.status().tiers), "the tiers")
            with Diary.open(client.config.database_path) as diary:
                result = measure(client, diary, prompts)
        finally:
            client.stop()
    finish(result | {"machine": machine()}, given.json)


if __name__ == "__main__":
    main()
