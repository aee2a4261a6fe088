"""The ladder against a dense sweep, over simulated engines whose throughput is known.

    python bench/saturation.py [--json] [--curves 200] [--seed N] [--real MODEL]

Four kinds of curve in turn: ``hyperbola`` (a batch that shares a fixed cost), ``roofline`` (a sharp knee at
the end of memory bandwidth), ``decline`` (a peak, and then preemption), ``steps`` (batches padded to sizes of
graphs, up to a batch limit). Knees lie between 4 and 100 of at most 256 requests at once. A window of 10 s
has noise of 1 to 5 %, independent of the one before, and every change of concurrency costs 5 s that count as
time.

The truth is a dense sweep without noise over every concurrency. ``within_15pct`` is the share of curves whose
knee the ladder finds within ±15 % of it; where it says that it cannot tell, it has not found it.
``time_ratio`` is all the ladders' time over that of dense sweeps of eight points to a doubling up to 256,
eight windows each. ``dense_within_15pct`` is how often such a sweep, read off with the same definition, finds
the knee itself. ``covered`` is the share of the ladder's 90 % intervals that hold the truth. Intervals are 95
%, by bootstrap over curves.

``drifting`` is the same on the first ``--drifting`` of those curves (60) where windows are not independent:
on top of the noise, log throughput wanders in time with a standard deviation of 4 % and a correlation time
of 20 s, as machines do that others share, so that windows one after the other err alike. ``wrong`` there is
the share of ladders that say they know the knee and are off by more than 15 %.

``--real fast`` (or ``deep``) lets both climb a real engine too: vLLM on this machine's CPU with that model of
the testbed, up to 64 at once, windows of 2 s and, where that takes longer, of as many answers as requests or
a multiple, in one boot. There the truth is the dense sweep itself, up and down again, with its noise;
``knee_sweep_interval`` says how well it knows its own knee. The ladder may take a quarter of the sweep's
windows. The engine works on
``--limit`` requests at once, 16 unless said otherwise: without a limit a CPU's throughput bends so softly
that a sweep up to 64 may not reach the knee.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from _bench import arguments, finish, machine, percentile, spread
from _saturation_real import real

from subcortex.experiments.saturation import Done, Limits, Measure, Measured, knee_of_sweep, next_step

MOST = 256
WINDOW_S, SETTLE_S = 10.0, 5.0
KINDS = ("hyperbola", "roofline", "decline", "steps")
_DENSE_WINDOWS = 8
_SIZES = (1, 2, 4, *range(8, MOST + 1, 8))
#: How much log throughput wanders where it does, and how long it remembers.
DRIFT, DRIFT_S = 0.04, 20.0


@dataclass(frozen=True)
class Engine:
    """A simulated engine: throughput by concurrency without noise, a window's noise, the true knee."""

    kind: str
    speed: Callable[[int], float]
    noise: float
    knee: float


def _curve(kind: str, rng: random.Random) -> Callable[[int], float]:
    plateau = math.exp(rng.uniform(math.log(50), math.log(20000)))
    if kind == "hyperbola":
        half = math.exp(rng.uniform(math.log(0.45), math.log(10)))
        return lambda c: plateau * c / (c + half)
    if kind == "roofline":
        at = math.exp(rng.uniform(math.log(4.5), math.log(100)))
        rise = rng.uniform(0.8, 1.0)
        return lambda c: plateau * min((c / at) ** rise, 1.0)
    if kind == "decline":
        half = math.exp(rng.uniform(math.log(3), math.log(40)))
        full = half * rng.uniform(1.5, 6)
        steep = rng.uniform(0.2, 0.8)
        return lambda c: plateau * c / (c + half) / (1 + (c / full) ** 6) ** (steep / 6)
    limit = rng.choice([8, 16, 24, 32, 48, 64, 96, 128])
    half = limit * rng.uniform(0.05, 1.0)

    def stepped(c: int) -> float:
        running = min(c, limit)
        size = next(size for size in _SIZES if size >= running)
        return float(plateau * running / (size + half))

    return stepped


def engine(index: int, seed: int) -> Engine:
    """Return the simulated engine of a number; its knee is in 4 to 100."""
    kind = KINDS[index % len(KINDS)]
    rng = random.Random(f"{seed} {kind} {index}")
    while True:
        speed = _curve(kind, rng)
        noise = rng.uniform(0.01, 0.05)
        knee = knee_of_sweep([(c, speed(c)) for c in range(1, 2 * MOST + 1)])
        if knee is not None and 4 <= knee <= 100:
            return Engine(kind, speed, noise, knee)


class Machine:
    """A simulated engine on a machine whose time goes on: windows, their noise, and a drift of its speed.

    Args:
        one: The engine.
        rng: Of its noise.
        drift: Standard deviation of the drift, of log tok/s; first-order autoregressive in time.
        drift_s: Its correlation time.
    """

    def __init__(self, one: Engine, rng: random.Random, drift: float = 0.0, drift_s: float = DRIFT_S) -> None:
        self.seconds = 0.0
        self._engine, self._rng, self._drift, self._drift_s = one, rng, drift, drift_s
        self._at = 0
        self._off = rng.gauss(0, drift) if drift else 0.0

    def windows(self, concurrency: int, seconds: float) -> list[Measured]:
        """Measure so long, after settling where the concurrency is another."""
        if concurrency != self._at:
            self._pass(SETTLE_S)
        self._at = concurrency
        number = max(1, round(seconds / WINDOW_S))
        found = []
        for _ in range(number):
            self._pass(seconds / number)
            off = self._off + self._rng.gauss(0, self._engine.noise)
            found.append(
                Measured(concurrency, seconds / number, self._engine.speed(concurrency) * math.exp(off))
            )
        return found

    def _pass(self, seconds: float) -> None:
        self.seconds += seconds
        if self._drift:
            kept = math.exp(-seconds / self._drift_s)
            self._off = kept * self._off + self._rng.gauss(0, self._drift * math.sqrt(1 - kept**2))


def climb(machine: Machine, seed: int, limits: Limits) -> tuple[Any, int]:
    """Let the ladder climb: its end, and how many steps it took."""
    measured: list[Measured] = []
    steps = 0
    while True:
        step = next_step(measured, limits, seed=seed)
        if not isinstance(step, Measure):
            return step, steps
        steps += 1
        measured += machine.windows(step.concurrency, step.seconds)


def dense(one: Engine, seed: int) -> tuple[float | None, float]:
    """Return the knee that a dense sweep with noise reads off, and its time."""
    swept = Machine(one, random.Random(f"{seed} dense {one.knee}"))
    points = sorted({round(2 ** (i / 8)) for i in range(8 * 8 + 1)})
    sweep = []
    for c in points:
        found = swept.windows(c, _DENSE_WINDOWS * WINDOW_S)
        sweep.append((float(c), sum(window.tok_s for window in found) / len(found)))
    # Points that fall on the same whole number are measured once; the time is of those that are.
    return knee_of_sweep(sweep), swept.seconds


def _near(found: float | None, truth: float) -> bool:
    return found is not None and abs(found / truth - 1) <= 0.15


def _interval(values: Sequence[tuple[float, float]], seed: int) -> list[float]:
    """Return the 95 % interval of Σ first / Σ second by bootstrap over curves."""
    rng = random.Random(seed)
    drawn = []
    for _ in range(1000):
        picked = rng.choices(values, k=len(values))
        drawn.append(sum(a for a, _ in picked) / sum(b for _, b in picked))
    return [round(percentile(drawn, share), 4) for share in (0.025, 0.975)]


def drifting(number: int, seed: int, limits: Limits, dense_s: float) -> dict[str, Any]:
    """Return how the ladder does on the first engines of a seed where the machine's speed wanders."""
    ends, seconds = [], 0.0
    for index in range(number):
        one = engine(index, seed)
        machine = Machine(one, random.Random(f"{seed} drifting {one.knee}"), DRIFT)
        end, _ = climb(machine, seed, limits)
        ends.append((end, one.knee))
        seconds += machine.seconds
    done = [(end, knee) for end, knee in ends if isinstance(end, Done)]
    near = sum(_near(end.knee, knee) for end, knee in done)
    return {
        "within_15pct": round(near / number, 4),
        "wrong": round((len(done) - near) / number, 4),
        "covered": round(sum(end.interval.holds(knee) for end, knee in ends) / number, 4),
        "inconclusive": number - len(done),
        "time_ratio": round(seconds / number / dense_s, 4),
        "curves": number,
        "drift": [DRIFT, DRIFT_S],
    }


def main() -> None:
    parser = arguments("The saturation ladder against a dense sweep.")
    parser.add_argument("--curves", type=int, default=200)
    parser.add_argument("--drifting", type=int, default=60, help="of those curves, again with drift")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--real", choices=("fast", "deep"), help="climb this model on vLLM as well")
    parser.add_argument("--limit", type=int, default=16, help="requests that vLLM works on at once")
    options = parser.parse_args()
    limits = Limits(max_concurrency=MOST, window_s=WINDOW_S)
    rows = []
    for index in range(max(options.curves, len(KINDS))):
        one = engine(index, options.seed)
        simulated = Machine(one, random.Random(f"{options.seed} windows {one.knee}"))
        end, steps = climb(simulated, options.seed, limits)
        swept, dense_s = dense(one, options.seed)
        rows.append((one, end, simulated.seconds, steps, swept, dense_s))
    near = [isinstance(end, Done) and _near(end.knee, one.knee) for one, end, *_ in rows]
    times = [(row[2], row[5]) for row in rows]
    finish(
        {
            "within_15pct": round(sum(near) / len(rows), 4),
            "within_15pct_interval": _interval([(float(one), 1.0) for one in near], 1),
            "time_ratio": round(sum(a for a, _ in times) / sum(b for _, b in times), 4),
            "time_ratio_interval": _interval(times, 2),
            "dense_within_15pct": round(sum(_near(row[4], row[0].knee) for row in rows) / len(rows), 4),
            "covered": round(sum(row[1].interval.holds(row[0].knee) for row in rows) / len(rows), 4),
            "inconclusive": sum(not isinstance(row[1], Done) for row in rows),
            "by_kind": {
                kind: round(
                    sum(hit for hit, row in zip(near, rows, strict=True) if row[0].kind == kind)
                    / sum(row[0].kind == kind for row in rows),
                    4,
                )
                for kind in KINDS
            },
            "ladder_s": spread([row[2] for row in rows], 0),
            "dense_s": rows[0][5],
            "steps": spread([row[3] for row in rows], 0),
            "error": spread([row[1].knee / row[0].knee - 1 for row in rows]),
            "curves": len(rows),
            "drifting": drifting(max(1, options.drifting), options.seed, limits, rows[0][5]),
            "seed": options.seed,
            "real": real(options.real, options.limit) if options.real else None,
            "machine": machine(),
        },
        options.json,
    )


if __name__ == "__main__":
    main()
