"""Thoughts for two tiers of which only one fits: swaps and waits by our schedule, by arrival and by LRU.

    python bench/queueing.py [--json] [--seed N] [--thoughts N] [--skip-real]

The same random traces (arrivals independent of each other, 40 % for the deep tier, 64 to 512 tokens) are
replayed under three rules that decide which tier is up:
- ``ours``: the fleet's schedule, with ``fleet.max_wait_s`` at its default;
- ``fifo``: strictly in order of arrival; a swap whenever the next thought is the other tier's;
- ``lru``: whoever is needed has the least recently used leave as soon as that is idle; until then thoughts
  for the one that is up are served as they come. No bound, no residency.
All three swap in the same ways at the same cost, and serve up to 32 thoughts of a tier at once.

In simulation the costs are those of Llama-3.1-8B and 70B under vLLM on 2×H200: starts, weights and speed are
read from docs/evidence/think-2xh200; how long stopping, falling asleep and waking take is written here.
``loads`` are with vLLM's sleep, ``loads_stopping`` with engines that stop and start; the keys at the top are
those of the load in ``gap_s``. "real" is a shorter trace on llama.cpp with both testbed models: processes
that stop and start, and a memory that says that one fits.

``swap_ratio_X`` is X's swaps over ours (above 1: we swap less), ``mean_wait_ratio_X`` our mean wait for an
engine over X's (below 1: we wait less); medians over seeds. ``worst_wait_bound_s`` is what the design allows:
``max_wait_s``, a residency, the longest answer, the swap.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from _bench import arguments, finish, machine, spread
from _queue_rivals import Arrival, Outcome, cheapest, fifo, lru

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from _queue_live import Live  # noqa: E402

from subcortex.config import FleetSection  # noqa: E402
from subcortex.fleet.scene import HOST, Scene  # noqa: E402
from subcortex.fleet.schedule import Schedule, schedule  # noqa: E402
from subcortex.types import Rest, TierState  # noqa: E402
from testbed import tasks  # noqa: E402
from tests.fleet.world import Spec, Thought, World  # noqa: E402

_EVIDENCE = ROOT / "docs/evidence/think-2xh200"
#: Measured on the same machine: seconds to stop, for the 70B to fall asleep (level 1), and to wake.
_STOP_S, _SLEEP_DEEP_S, _WAKE_S = 10.0, 43.0, 1.7
_SEEDS, _SHARE_DEEP = 5, 0.4
#: Mean seconds between thoughts, and the load that the keys at the top are of.
_GAPS_S, _GAP_S = (600.0, 120.0, 60.0, 30.0, 15.0, 8.0, 4.0), 8.0
_MAX_WAIT_S: float = FleetSection().max_wait_s
_MIB_A_GIB = 1024.0
#: Of the real part: a swap of the testbed's models takes half a second, so all is short.
_REAL_MAX_WAIT_S, _REAL_GAP_S, _REAL_THOUGHTS, _REAL_TOKENS = 3.0, 0.12, 120, (8, 48)


@dataclass(frozen=True)
class Policy:
    """Who decides, and whether thoughts may only go in as they came."""

    decide: Callable[[Scene], Schedule]
    in_order: bool = False

    def may_enter(self, world: World, thought: Thought) -> bool:
        """Return whether a thought may go in: if order is kept, nobody who waits came before it."""
        older = (one for unit in world.units.values() for one in unit.line if one.number < thought.number)
        return not self.in_order or not any(older)


POLICIES = {"ours": Policy(schedule), "fifo": Policy(fifo, in_order=True), "lru": Policy(lru)}


def tiers(sleeps: bool) -> tuple[Spec, Spec]:
    """Return the 8B and the 70B as they were measured, on a GPU that holds one of them."""
    boots = {tier["name"]: tier["load_s"] for tier in json.loads((_EVIDENCE / "boots.json").read_text())}
    weights_gib: dict[str, float] = {}
    for event in json.loads((_EVIDENCE / "timeline.json").read_text()):
        words = str(event.get("progress") or "")
        if words.startswith("weights loaded, "):
            weights_gib[event["tier"]] = float(words.split()[2])
    fast, deep = (
        Spec(
            name,
            {0: 100_000.0, HOST: 4_000.0},
            {Rest.SLEEP_1: {0: 2_000.0, HOST: 4_000.0 + gib * _MIB_A_GIB}} if sleeps else {},
            start_s=boots[name],
            # Falling asleep copies the weights: it takes the smaller model less in proportion.
            leave_s={Rest.STOP: _STOP_S, Rest.SLEEP_1: _SLEEP_DEEP_S * gib / weights_gib["deep"]},
            wake_s={Rest.SLEEP_1: _WAKE_S},
            eager=True,
            concurrent=32,
            rank=rank,
        )
        for rank, (name, gib) in enumerate((name, weights_gib[name]) for name in ("fast", "deep"))
    )
    return fast, deep


def trace(seed: int, count: int, gap_s: float, tokens: tuple[int, int] = (64, 512)) -> list[Arrival]:
    """Return thoughts at random, at the speeds that were measured."""
    phases = json.loads((_EVIDENCE / "result.json").read_text())["phases"]
    chance, now_s, made = random.Random(seed), 0.0, []
    for _ in range(count):
        now_s += chance.expovariate(1.0 / gap_s)
        tier = "deep" if chance.random() < _SHARE_DEEP else "fast"
        length = chance.randint(*tokens)
        speed = phases[f"both up/{tier}"]
        answer_ms = speed["ttft_ms_p50"] + length * speed["tpot_ms_p50"]
        prompt = tasks.item(chance.randint(1, 3), chance).prompt
        made.append(Arrival(now_s, tier, length, answer_ms / 1e3, prompt))
    return made


def _fits(world: World) -> None:
    assert all(world.free(device) >= 0.0 for device in world.total), (
        "a rule that starts both compares nothing"
    )


def simulate(policy: Policy, specs: tuple[Spec, Spec], arrivals: list[Arrival]) -> Outcome:
    """Return the swaps and the waits of a trace under a policy."""
    room = {0: 140_000.0, HOST: 1_000_000.0}
    world = World(
        specs,
        room,
        max_wait_s=_MAX_WAIT_S,
        decide=policy.decide,
        may_enter=policy.may_enter,
        check=_fits,
    )
    # All begin alike: the fast tier is up, and each has been swapped once, so that the costs are known.
    for tier in ("fast", "deep", "fast"):
        world.think(tier, 0.1)
        world.advance(600.0)
    began_s, told = world.now_s, len(world.told)
    thoughts = []
    for arrival in arrivals:
        world.advance(began_s + arrival.at_s - world.now_s)
        thoughts.append(world.think(arrival.tier, arrival.answer_s))
    while any(thought.state != "done" for thought in thoughts):
        assert not any(thought.state in ("refused", "failed") for thought in thoughts)
        world.advance(60.0)
    swaps = sum(
        now is TierState.READY and was is not TierState.DRAINING for _, _, was, now in world.told[told:]
    )
    ways = {tier.name: (tier.swaps, cheapest(tier)) for tier in world.scene().tiers}
    swap_s = max(cost.leave_s[rest] for cost, rest in ways.values()) + max(
        cost.back_s[rest] for cost, rest in ways.values()
    )
    waits_s = [thought.waited_s(world.now_s) for thought in thoughts]
    return Outcome(swaps, waits_s, swap_s, max(arrival.answer_s for arrival in arrivals))


def compare(runs: list[dict[str, Outcome]], max_wait_s: float) -> dict[str, Any]:
    """Return the ratios over the seeds, and the worst of our waits against its bound."""
    found: dict[str, Any] = {"n": len(runs), "thoughts": len(runs[0]["ours"].waits_s)}
    for rival in ("fifo", "lru"):
        swaps = [run[rival].swaps / max(1, run["ours"].swaps) for run in runs]
        waits = [fmean(run["ours"].waits_s) / max(1e-9, fmean(run[rival].waits_s)) for run in runs]
        found |= {
            f"swap_ratio_{rival}": round(median(swaps), 3),
            f"mean_wait_ratio_{rival}": round(median(waits), 3),
            f"swap_ratio_{rival}_spread": spread(swaps),
            f"mean_wait_ratio_{rival}_spread": spread(waits),
        }
    for name in runs[0]:
        found[f"swaps_{name}"] = spread([run[name].swaps for run in runs], 1)
        found[f"mean_wait_s_{name}"] = spread([fmean(run[name].waits_s) for run in runs])
        found[f"worst_wait_s_{name}"] = round(max(max(run[name].waits_s) for run in runs), 3)
    found["worst_wait_s"] = found.pop("worst_wait_s_ours")
    # max_wait_s, a residency as long as a swap, the longest answer in flight, the swap.
    bounds = [max_wait_s + 2 * run["ours"].swap_s + run["ours"].longest_answer_s for run in runs]
    found["worst_wait_bound_s"] = round(min(bounds), 3)
    found["within_bound"] = all(
        max(run["ours"].waits_s) <= bound for run, bound in zip(runs, bounds, strict=True)
    )
    return found


def main() -> None:
    """Replay everything and print one JSON object last."""
    parser = arguments("Compare rules for which of two tiers is up.")
    parser.add_argument("--seed", type=int, default=1, help="the first of five")
    parser.add_argument("--thoughts", type=int, default=300, help="in each simulated trace")
    parser.add_argument("--skip-real", action="store_true", help="simulate only")
    given = parser.parse_args()
    seeds = range(given.seed, given.seed + _SEEDS)
    result: dict[str, Any] = {}
    loads: dict[str, dict[str, Any]] = {}
    for name, sleeps in (("loads", True), ("loads_stopping", False)):
        specs, loads[name] = tiers(sleeps), {}
        for gap_s in _GAPS_S:
            traces = [trace(seed, given.thoughts, gap_s) for seed in seeds]
            runs = [
                {key: simulate(policy, specs, arrivals) for key, policy in POLICIES.items()}
                for arrivals in traces
            ]
            loads[name][f"{gap_s:g}"] = {"gap_s": gap_s} | compare(runs, _MAX_WAIT_S)
    result |= loads["loads"][f"{_GAP_S:g}"] | loads
    if not given.skip_real:
        live = Live(("fast", "deep"), _REAL_MAX_WAIT_S)
        runs = []
        for seed in seeds:
            arrivals = trace(seed, _REAL_THOUGHTS, _REAL_GAP_S, _REAL_TOKENS)
            runs.append(
                {
                    key: live.replay(policy.decide, arrivals, in_order=policy.in_order)
                    for key, policy in POLICIES.items()
                }
            )
        result["real"] = {"gap_s": _REAL_GAP_S} | compare(runs, _REAL_MAX_WAIT_S)
    costs = [asdict(spec) | {"awake": None, "asleep": None} for spec in tiers(True)]
    result["costs"] = [
        {"tier": one["name"], "start_s": one["start_s"], "leave_s": one["leave_s"], "wake_s": one["wake_s"]}
        for one in costs
    ]
    finish(result | {"machine": machine()}, given.json)


if __name__ == "__main__":
    main()
