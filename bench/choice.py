"""GPU-minutes until little is left to ask: our order of experiments against three others, in simulation.

    python bench/choice.py [--json] [--machines 200] [--seed N]

A machine is drawn at random: 15 gaps over the catalogue's experiments 0 to 12, how widely each answer is
really open (log-normal about the width of its kind), where a plan would switch on it and how much hangs on
that, and what each experiment really costs there, about the catalogue's usual minutes. What an answer is
worth follows: what the best plan gains over the one that would be made now, across the interval. Experiment 0
must run before those that use peers, for every order.

The scorer does not see any of that: it sees widths wrong by a factor of 1.4 and intervals off their middle by
0.3 σ, switches and what hangs on them wrong by 1.3, costs by 1.5 (one standard deviation each), and a run's
noise as its class has it, where the real one differs by 1.3.

``total uncertainty`` is Σ worth × bits still open: the entropy of each answer above what its experiment can
resolve at all, with the noise that it really has. A run leaves none of that. Minutes are counted until a
tenth is left, the last run whole.

``vs_catalogue`` is the catalogue order's minutes over ours, all machines' together; ``vs_random`` (the mean
of 20 orders a machine) and ``vs_cheapest`` (by the costs that the scorer sees) likewise. Intervals are 95 %,
by bootstrap over machines. What the ratios come to hangs on what an answer is taken to be worth, so two other
reckonings are beside them: ``figure_worth`` counts how far a plan's figure moves, whether or not anything
would be done otherwise; ``unweighted`` is the same with every bit worth the same in the uncertainty
counted, though not in the order; ``vs_best`` holds ours against the same rule with nothing hidden from it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from _bench import arguments, finish, machine, percentile, spread

from subcortex.experiments.choice import Belief, Question, bits_expected, order, worth_across

#: By experiment of the catalogue: usual GPU-minutes, what it needs, and its gaps as (width, noise) in logs.
CATALOGUE: dict[str, tuple[float, frozenset[str], tuple[tuple[float, float], ...]]] = {
    "0 peers": (0.5, frozenset(), ((0.7, 0.05),)),
    "1 machine": (3.0, frozenset({"0 peers"}), ((0.4, 0.01), (0.5, 0.01))),
    "2 collectives": (4.0, frozenset({"0 peers"}), ((0.6, 0.03),)),
    "3 links": (45.0, frozenset({"0 peers"}), ((0.8, 0.05),)),
    "4 memory of TP": (20.0, frozenset({"0 peers"}), ((0.3, 0.01),)),
    "5 together": (30.0, frozenset({"0 peers"}), ((0.5, 0.05),)),
    "6 idle and swaps": (25.0, frozenset(), ((0.4, 0.02), (0.7, 0.05))),
    "7 quantisation": (15.0, frozenset(), ((0.4, 0.03),)),
    "8 unequal": (20.0, frozenset({"0 peers"}), ((0.6, 0.03),)),
    "9 load time": (8.0, frozenset(), ((0.7, 0.1),)),
    "10 split's answer": (12.0, frozenset({"0 peers"}), ((0.7, 0.1),)),
    "11 saturation": (20.0, frozenset(), ((0.9, 0.05),)),
    "12 start-up": (2.0, frozenset(), ((0.4, 0.05),)),
}

#: What a fact is worth that changes no plan: someone reads it.
_KNOWING = 0.02


@dataclass(frozen=True)
class Machine:
    """Questions as they are, and as the scorer sees them; minutes and noise that runs really have."""

    real: tuple[Question, ...]
    seen: tuple[Question, ...]


def _off(value: float, factor: float, rng: random.Random) -> float:
    return value * math.exp(rng.gauss(0, math.log(factor)))


def _worth(prior: Belief, switch: float, share: float, counts: str) -> float:
    """Return what an answer is worth to a plan that would change at a switch, in factors.

    By ``decision`` it is what the best plan for the answer gains over the one that would be made now: nothing
    where no likely answer lies across the switch. By ``figure`` it is how far what the plan comes to moves,
    whether or not anything would be done otherwise.
    """

    def best(answer: float) -> float:
        return float(max(1.0, answer / switch) ** share)

    def gained(answer: float) -> float:
        now = (answer / switch) ** share if prior.middle > switch else 1.0
        return best(answer) / now

    outcome: Callable[[float], float] = gained if counts == "decision" else best
    return _KNOWING + worth_across(prior, outcome)


def drawn(index: int, seed: int, counts: str) -> Machine:
    """Return the machine of a number."""
    rng = random.Random(f"{seed} machine {index}")
    real, seen = [], []
    for name, (usual, needs, gaps) in CATALOGUE.items():
        minutes = _off(usual, 2.0, rng)
        expected = _off(minutes, 1.5, rng)
        for place, (width, noise) in enumerate(gaps):
            prior = Belief(0.0, _off(width, 2.0, rng), "log-normal")
            planned = Belief(rng.gauss(0, 0.3 * prior.sigma), _off(prior.sigma, 1.4, rng), "log-normal")
            # Where the plan would switch, in factors of what is believed, and how much hangs on it.
            switch, share = _off(1.0, 3.0, rng), rng.uniform(0.1, 1.0)
            one = Question(
                f"{name} {place}",
                name,
                f"{name} {place}",
                prior,
                _off(noise, 1.3, rng),
                _worth(prior, switch, share, counts),
                minutes,
                needs=needs,
            )
            real.append(one)
            seen.append(
                replace(
                    one,
                    prior=planned,
                    noise=noise,
                    worth=_worth(planned, _off(switch, 1.3, rng), _off(share, 1.3, rng), counts),
                    gpu_minutes=expected,
                )
            )
    return Machine(tuple(real), tuple(seen))


def minutes_to_a_tenth(one: Machine, names: Sequence[str], weighted: bool) -> float:
    """Return the minutes that an order takes until a tenth of the uncertainty is left."""
    left = {q.id: (q.worth if weighted else 1.0) * bits_expected(q.prior, q.noise) for q in one.real}
    target, spent = sum(left.values()) / 10, 0.0
    for name in names:
        answered = [q for q in one.real if q.experiment == name]
        spent += answered[0].gpu_minutes
        for q in answered:
            left[q.id] = 0.0
        if sum(left.values()) <= target:
            return spent
    return spent


def _allowed(names: Sequence[str]) -> list[str]:
    """Return an order with what each needs moved in front of the first that needs it."""
    found: list[str] = []
    for name in names:
        found += [one for one in (*sorted(CATALOGUE[name][1]), name) if one not in found]
    return found


def orders(one: Machine, rng: random.Random) -> dict[str, list[list[str]]]:
    """Return the orders by rule."""
    names = list(CATALOGUE)
    costs = {q.experiment: q.gpu_minutes for q in one.seen}
    return {
        "ours": [[choice.experiment for choice in order(one.seen)]],
        "best": [[choice.experiment for choice in order(one.real)]],
        "catalogue": [names],
        "cheapest": [_allowed(sorted(names, key=lambda name: costs[name]))],
        "random": [_allowed(rng.sample(names, len(names))) for _ in range(20)],
    }


def measured(
    machines: int, seed: int, *, counts: str = "decision", weighted: bool = True
) -> dict[str, list[float]]:
    """Return minutes by rule, one figure a machine."""
    result: dict[str, list[float]] = {}
    for index in range(machines):
        one = drawn(index, seed, counts)
        rng = random.Random(f"{seed} runs {index}")
        for rule, lists in orders(one, rng).items():
            minutes = [minutes_to_a_tenth(one, names, weighted) for names in lists]
            result.setdefault(rule, []).append(sum(minutes) / len(minutes))
    return result


def _of_sums(pairs: Sequence[tuple[float, float]]) -> float:
    return sum(a for a, _ in pairs) / sum(b for _, b in pairs)


def _ratio(rule: Sequence[float], ours: Sequence[float]) -> tuple[float, list[float]]:
    rng = random.Random(1)
    pairs = list(zip(rule, ours, strict=True))
    drawn_ratios = [_of_sums(rng.choices(pairs, k=len(pairs))) for _ in range(1000)]
    return round(_of_sums(pairs), 3), [round(percentile(drawn_ratios, share), 3) for share in (0.025, 0.975)]


def main() -> None:
    parser = arguments("GPU-minutes until a tenth of the uncertainty is left, by order of experiments.")
    parser.add_argument("--machines", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    number = max(options.machines, 2)
    result: dict[str, Any] = {}
    minutes = measured(number, options.seed)
    for rule in ("catalogue", "random", "cheapest", "best"):
        ratio, interval = _ratio(minutes[rule], minutes["ours"])
        result |= {f"vs_{rule}": ratio, f"vs_{rule}_interval": interval}
    plain = measured(number, options.seed, weighted=False)
    figure = measured(number, options.seed, counts="figure")
    for name, other in (("figure_worth", figure), ("unweighted", plain)):
        result[name] = {
            f"vs_{rule}": _ratio(other[rule], other["ours"]) for rule in ("catalogue", "random", "cheapest")
        }
    result["gpu_minutes"] = {rule: spread(values, 1) for rule, values in minutes.items()}
    finish(
        result | {"machines": number, "gaps": 15, "seed": options.seed, "machine": machine()}, options.json
    )


if __name__ == "__main__":
    main()
