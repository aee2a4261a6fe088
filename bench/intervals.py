"""Whether intervals are honest: how often they cover the truth, and how often equal arms are told apart.

    python bench/intervals.py [--json] [--runs 2000] [--seed N]

Noise is simulated, so that the truth is known: normal, lognormal (σ = 0.5), heavy tails (Student's t with two
degrees of freedom) and drift (a straight line over the run, as long as the noise is wide for medians and five
times that for arms). ``coverage`` is the share of runs in which the 90 % interval of a median holds the
truth, by noise and number of samples; ``rivals`` the same for the percentile bootstrap and BCa over all kinds
of noise (1000 draws a run, a quarter of the runs). ``coverage_difference`` and ``coverage_ratio`` are of two
arms in ABBA order, by number of blocks; ``false_different`` the share of runs in which equal arms are called
different, which must stay under 0.05. ``coverage_stopped`` is of medians measured until the interval was
narrow enough: looking on the way costs some of it. Sampling errors of the shares are beside them (``se``).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from statistics import NormalDist, median
from typing import Any

from _bench import arguments, finish, machine

from subcortex.experiments.statistics import (
    Sample,
    abba,
    difference,
    enough,
    median_of,
    paired,
    ratio,
    verdict,
)

SIZES = (5, 6, 7, 8, 9, 10, 12, 15, 20, 25, 30)
BLOCKS = (3, 4, 5, 6, 7, 8, 10, 15)
_NORMAL = NormalDist()


def _heavy(rng: random.Random) -> float:
    return rng.gauss(0, 1) / math.sqrt(rng.expovariate(1))


#: Noise by name: one draw, with a median of zero.
NOISES: dict[str, Callable[[random.Random], float]] = {
    "normal": lambda rng: rng.gauss(0, 1),
    "lognormal": lambda rng: rng.lognormvariate(0, 0.5) - 1,
    "heavy": _heavy,
    "drift": lambda rng: rng.gauss(0, 1),
}


def drawn(noise: str, n: int, rng: random.Random) -> list[float]:
    """Return n samples whose true median is zero."""
    slope = 1.0 if noise == "drift" else 0.0
    return [NOISES[noise](rng) + slope * (i / (n - 1) - 0.5) for i in range(n)]


def arms(
    noise: str, blocks: int, shift: float, rng: random.Random
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return two arms' block means about 20, b above a by ``shift``; drift is five times the noise."""
    order = abba(("a", "b"), blocks)
    slope = 5.0 if noise == "drift" else 0.0
    samples = [
        Sample(20 + NOISES[noise](rng) + (shift if arm == "b" else 0) + slope * i / len(order), arm, block)
        for i, (block, arm) in enumerate(order)
    ]
    found = paired(samples, "a", "b")
    return found.a, found.b


def _share(hits: int, runs: int) -> dict[str, float]:
    share = hits / runs
    return {"share": round(share, 4), "se": round(math.sqrt(share * (1 - share) / runs), 4)}


def coverage(noise: str, n: int, runs: int, seed: int) -> int:
    """Return in how many runs the 90 % interval of n samples' median holds the truth."""
    rng = random.Random(f"{seed} {noise} {n}")
    return sum(median_of(drawn(noise, n, rng)).interval.holds(0.0) for _ in range(runs))


def compared(noise: str, blocks: int, runs: int, seed: int) -> tuple[int, int, int]:
    """Return how many intervals of differences and ratios held, and how many equal arms were told apart."""
    rng = random.Random(f"{seed} arms {noise} {blocks}")
    held = held_ratio = wrong = 0
    for _ in range(runs):
        a, b = arms(noise, blocks, 1.0, rng)
        held += difference(a, b).interval.holds(1.0)
        equal_a, equal_b = arms(noise, blocks, 0.0, rng)
        wrong += verdict(equal_a, equal_b).kind == "different"
        if min(*equal_a, *equal_b) > 0:
            held_ratio += ratio(equal_a, equal_b).interval.holds(1.0)
        else:
            held_ratio += 1
    return held, held_ratio, wrong


def stopped(noise: str, runs: int, seed: int) -> tuple[int, float]:
    """Return how often the interval held when repeating stopped by itself, and how many samples that took."""
    rng = random.Random(f"{seed} stopped {noise}")
    held, taken = 0, 0
    for _ in range(runs):
        values = [20 + NOISES[noise](rng) for _ in range(5)]
        while not enough(values, 0.06, 30 - len(values), sample_s=1).stop:
            values.append(20 + NOISES[noise](rng))
        held += median_of(values).interval.holds(20.0)
        taken += len(values)
    return held, taken / runs


def percentile_bootstrap(
    values: Sequence[float], rng: random.Random, draws: int = 1000
) -> tuple[float, float]:
    """Return the plain bootstrap's 90 % interval of a median."""
    found = sorted(median(rng.choices(values, k=len(values))) for _ in range(draws))
    return found[round(0.05 * (draws - 1))], found[round(0.95 * (draws - 1))]


def bca_bootstrap(values: Sequence[float], rng: random.Random, draws: int = 1000) -> tuple[float, float]:
    """Return the bias-corrected and accelerated bootstrap's 90 % interval of a median."""
    centre = median(values)
    found = sorted(median(rng.choices(values, k=len(values))) for _ in range(draws))
    below = sum(one < centre for one in found) + sum(one == centre for one in found) / 2
    bias = _NORMAL.inv_cdf(min(max(below / draws, 1e-4), 1 - 1e-4))
    left = [median([*values[:i], *values[i + 1 :]]) for i in range(len(values))]
    mean = sum(left) / len(left)
    squares = sum((mean - one) ** 2 for one in left)
    skew = sum((mean - one) ** 3 for one in left) / (6 * squares**1.5) if squares else 0.0
    ends = []
    for z in (_NORMAL.inv_cdf(0.05), _NORMAL.inv_cdf(0.95)):
        share = _NORMAL.cdf(bias + (bias + z) / (1 - skew * (bias + z)))
        ends.append(found[round(share * (draws - 1))])
    return ends[0], ends[1]


def _rivals(runs: int, seed: int) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, method in (("percentile", percentile_bootstrap), ("bca", bca_bootstrap)):
        row = {}
        for n in (5, 9, 15, 30):
            rng = random.Random(f"{seed} {name} {n}")
            hits = 0
            for i in range(runs):
                low, high = method(drawn(list(NOISES)[i % len(NOISES)], n, rng), rng)
                hits += low <= 0 <= high
            row[str(n)] = _share(hits, runs)
        result[name] = row
    return result


def main() -> None:
    parser = arguments("How honest intervals are, over simulated noise.")
    parser.add_argument("--runs", type=int, default=2000, help="runs by kind of noise and size")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    runs, seed = max(options.runs, 100), options.seed
    covered = {
        noise: {str(n): _share(coverage(noise, n, runs, seed), runs) for n in SIZES} for noise in NOISES
    }
    pairs = {noise: {str(n): compared(noise, n, runs, seed) for n in BLOCKS} for noise in NOISES}
    sides = [
        {noise: {n: _share(found[i], runs) for n, found in row.items()} for noise, row in pairs.items()}
        for i in range(3)
    ]
    few = max(runs // 4, 100)
    ended = {noise: stopped(noise, few, seed) for noise in NOISES if noise != "drift"}
    shares = [one["share"] for row in covered.values() for one in row.values()]
    finish(
        {
            "coverage_min": min(shares),
            "coverage_max": max(shares),
            "coverage_mean": round(sum(shares) / len(shares), 4),
            "false_different_max": max(one["share"] for row in sides[2].values() for one in row.values()),
            "coverage": covered,
            "coverage_difference": sides[0],
            "coverage_ratio": sides[1],
            "false_different": sides[2],
            "coverage_stopped": {
                noise: _share(held, few) | {"mean_n": round(n, 1)} for noise, (held, n) in ended.items()
            },
            "rivals": _rivals(few, seed),
            "runs": runs,
            "seed": seed,
            "machine": machine(),
        },
        options.json,
    )


if __name__ == "__main__":
    main()
