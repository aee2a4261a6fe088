"""How windows err: each by itself, and those near in time alike. Pure.

Windows that follow each other at one concurrency, a visit, count as one. An engine under load goes in waves,
of prompts and of answers, and what a window lacks at its end the next one has at its beginning: taken one by
one they would seem to vary by far more than what they come to together.

A machine's speed wanders, so visits that follow each other share an error that no number of them averages
out. Log throughput is taken to have a visit's own noise, the less the longer it was, and on top of it a drift
in time (first-order autoregressive). How large that is and how long it lasts, visits to the same concurrency
say by how far they lie apart. Every size and length that they leave possible counts, as likely as they make
it. A Kalman filter makes the errors independent; least squares then give what each concurrency yields, and
how those figures err together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf, isinf, log, sqrt
from operator import mul

#: What ten seconds are taken to vary by until repeats say otherwise, and their weight against it.
_USUAL_SHARE, _USUAL_S, _USUAL_WEIGHT = 0.03, 10.0, 2.0
#: The drift's standard deviation over that of an average visit by itself, and how likely each is beforehand.
_RATIOS = ((0.0, 0.4), (0.5, 0.15), (1.0, 0.15), (2.0, 0.15), (4.0, 0.15))
#: For how many average visits it lasts; without an end: one, and the next errs anew.
_LASTS = (0.5, 1.5, 5.0, 15.0, inf)
_NEGLIGIBLE = 0.01

Matrix = list[list[float]]


@dataclass(frozen=True, slots=True)
class Noise:
    """Of log tok/s: variance of a second by itself, variance of the drift, and seconds that it lasts.

    One that lasts without end lasts as long as its visit.
    """

    second: float
    drift: float
    lasts_s: float

    def variance(self, seconds: float) -> float:
        """Return the variance of the mean of a visit of so many seconds."""
        return self.second / seconds + self.drift * self.left(seconds)

    def left(self, seconds: float) -> float:
        """Return what share of the drift's variance the mean of so many seconds still has."""
        lasting = seconds / self.lasts_s
        return 2 * (lasting - 1 + exp(-lasting)) / lasting**2 if lasting else 1.0


@dataclass(frozen=True, slots=True)
class Yields:
    """What each concurrency yields.

    Args:
        concurrencies: Requests at once, rising.
        log_speeds: Of each, the log of tok/s.
        covariance: How those err together.
        noises: How visits may err, with the probability of each.
    """

    concurrencies: tuple[int, ...]
    log_speeds: tuple[float, ...]
    covariance: Matrix
    noises: tuple[tuple[float, Noise], ...]

    def variance(self, seconds: float) -> float:
        """Return the variance of the mean of a visit of so many seconds."""
        return sum(share * noise.variance(seconds) for share, noise in self.noises)


def yields_of(windows: Sequence[tuple[int, float, float]]) -> Yields:
    """Return what windows, as (concurrency, seconds, tok/s) in their order in time, say together."""
    visits = _visits(windows)
    sizes = sorted({one[0] for one in visits})
    mean_s = sum(one[1] for one in visits) / len(visits)
    usual = _USUAL_SHARE**2 * _USUAL_S
    found = []
    for ratio, share in _RATIOS:
        lasts = _LASTS if ratio else _LASTS[:1]
        for visits_long in lasts:
            # In units of a second's own variance, which follows.
            noise = Noise(1.0, ratio**2 / mean_s, visits_long * mean_s)
            score, unit, speeds, covariance = _fitted(visits, sizes, noise, usual)
            noise = Noise(unit, noise.drift * unit, noise.lasts_s)
            found.append((score + log(share / len(lasts)), noise, speeds, covariance))
    best = max(one[0] for one in found)
    found = [one for one in found if exp(one[0] - best) > _NEGLIGIBLE]
    total = sum(exp(one[0] - best) for one in found)
    shares = [exp(one[0] - best) / total for one in found]
    means = [
        sum(share * one[2][i] for share, one in zip(shares, found, strict=True)) for i in range(len(sizes))
    ]
    together = [
        [
            sum(
                share * (one[3][i][j] + (one[2][i] - means[i]) * (one[2][j] - means[j]))
                for share, one in zip(shares, found, strict=True)
            )
            for j in range(len(sizes))
        ]
        for i in range(len(sizes))
    ]
    noises = tuple((share, one[1]) for share, one in zip(shares, found, strict=True))
    return Yields(tuple(sizes), tuple(means), together, noises)


def _visits(windows: Sequence[tuple[int, float, float]]) -> list[tuple[int, float, float]]:
    """Return windows that follow each other at one concurrency as one."""
    found: list[tuple[int, float, float]] = []
    for concurrency, seconds, speed in windows:
        if found and found[-1][0] == concurrency:
            _, before_s, before = found.pop()
            speed = (before_s * before + seconds * speed) / (before_s + seconds)
            seconds += before_s
        found.append((concurrency, seconds, speed))
    return found


def _fitted(
    visits: Sequence[tuple[int, float, float]], sizes: Sequence[int], noise: Noise, usual: float
) -> tuple[float, float, list[float], Matrix]:
    """Return the log-likelihood of a noise, its unit, each size's log tok/s, and their covariance."""
    n, rows, logs = len(sizes), *_independent(visits, sizes, noise)
    precision = [[0.0] * n for _ in range(n)]
    right, squares = [0.0] * n, 0.0
    for row in rows:
        y = row[-1]
        squares += y * y
        for i in range(n):
            if row[i]:
                right[i] += row[i] * y
                for j in range(n):
                    precision[i][j] += row[i] * row[j]
    inverse, log_size = inverted(precision)
    speeds = [sum(map(mul, line, right)) for line in inverse]
    # What the concurrencies do not explain, besides what is usual.
    squares = max(squares - sum(map(mul, speeds, right)), 0.0) + _USUAL_WEIGHT * usual
    degrees = _USUAL_WEIGHT + len(visits) - n
    unit = squares / degrees
    score = -0.5 * (logs + log_size + degrees * log(squares))
    return score, unit, speeds, [[unit * one for one in line] for line in inverse]


def _independent(
    visits: Sequence[tuple[int, float, float]], sizes: Sequence[int], noise: Noise
) -> tuple[list[list[float]], float]:
    """Return each visit's part of each size, and its log tok/s, with errors made independent.

    Also the sum of the logs of their variances.
    """
    n = len(sizes)
    place = {size: i for i, size in enumerate(sizes)}
    # The drift in units of its own standard deviation, and the variance of what is known of it.
    expected, spread, logs = [0.0] * (n + 1), 1.0, 0.0
    before_s = 0.0
    rows = []
    for concurrency, seconds, speed in visits:
        kept = 0.0 if isinf(noise.lasts_s) else exp(-(before_s + seconds) / 2 / noise.lasts_s)
        expected = [kept * one for one in expected]
        spread = kept**2 * spread + 1 - kept**2
        before_s = seconds
        seen = sqrt(noise.drift * noise.left(seconds))
        row = [-seen * one for one in expected]
        row[place[concurrency]] += 1.0
        row[n] += log(speed)
        variance = seen**2 * spread + noise.second / seconds
        gain = seen * spread / variance
        expected = [one + gain * off for one, off in zip(expected, row, strict=True)]
        spread *= 1 - gain * seen
        logs += log(variance)
        scale = 1 / sqrt(variance)
        rows.append([scale * one for one in row])
    return rows, logs


def inverted(matrix: Sequence[Sequence[float]]) -> tuple[Matrix, float]:
    """Return the inverse of a positive definite matrix, and the log of its determinant."""
    n = len(matrix)
    left = [[*row, *(float(i == j) for j in range(n))] for i, row in enumerate(matrix)]
    size = 0.0
    for i in range(n):
        pivot = left[i][i]
        size += log(pivot)
        here = left[i] = [one / pivot for one in left[i]]
        for j in range(n):
            if j != i and (factor := left[j][i]):
                left[j] = [one - factor * other for one, other in zip(left[j], here, strict=True)]
    return [row[n:] for row in left], size
