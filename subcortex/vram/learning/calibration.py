"""What past boots teach about the next estimate: residuals by component, shrunk towards none. Pure.

An estimate N(μ, σ²) of a component is a prior of its residual, N(0, σ²). It is split in two: a part that all
models share on this engine, version, card and number of ranks (the formula is off, or the card's context is
bigger), and a part of each model's own:

* **Shared**, in units of each estimate's own σ, so that a small model teaches a big one and no unit matters.
  Prior N(0, 3/4); each model's mean residual counts as one observation with variance 1/4, the share that is
  the model's own. That variance is itself estimated, as if two models had already shown 1/4, so models that
  agree narrow the next one's σ and models that scatter widen it.
* **Own**: the shared result is the prior; earlier boots of this very model are observations, with the log's
  rounding and their scatter as noise. With the same setup they count in MiB, and exact repeats converge to
  what was measured; with another setup in units of σ and with σ/2 of extra noise.

Boots of another kind count less, by the product of these:

* another version of the engine: 1/2. Formulas stay wrong in the same way, but engines change what they count
  (vLLM 0.32 adds graphs to activations and torch's leftovers to the rest);
* another card: 1/2. Context, kernels and graphs depend on it; weights, activations and KV do not;
* another number of ranks or stages: 3/10. Communication begins at two, and activations do not shrink evenly;
* another engine: 0. It is another program.

Two agreeing boots move an estimate freely; one alone at most 2 σ (it is winsorised around the weighted median
of all observations and the prior, which has the weight of one boot and a half). So one foreign program that
started in the middle of a boot cannot spoil the next plans.

What is exact (σ below the floor: weights and KV counted tensor by tensor) has no prior to shrink. It stays
until its residual is consistent: the same sign and size in two boots of the same model and setup, or relative
to the estimate in three models of exactly this kind.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import sqrt
from statistics import fmean, median
from typing import Any, Literal

from subcortex.vram.amount import Amount
from subcortex.vram.footprint import Component, DeviceNeed, Footprint
from subcortex.vram.learning.boots import Boot, BootKey, Residual
from subcortex.vram.learning.robust import clipped, consistent, spread, weighted_median

Place = Literal["gpu", "host"]

#: The least σ after learning, MiB: vLLM rounds to 0.01 GiB, and a boot is not repeated to the megabyte.
FLOOR_MIB = 5.0
_OTHER_VERSION, _OTHER_GPU, _OTHER_RANKS = 0.5, 0.5, 0.3
_OWN_SHARE = 0.25
_SHARED_SHARE = 1 - _OWN_SHARE
#: How many models' worth of scatter is assumed before any is seen.
_ASSUMED_MODELS = 2.0
#: Weight of the prior in the median, in boots; above one, so that a lone boot is not its own centre.
_PRIOR_BOOTS = 1.5
_CLIP_SIGMAS = 2.0
#: Nor may what was cut off widen the interval without bound: a foreign program may have been in it.
_DOUBT_SIGMAS = 4.0
_SCATTER_CLIP_SIGMAS = 4.0
_OTHER_SETUP_WEIGHT, _OTHER_SETUP_NOISE = 0.5, 0.5
#: No device holds more; a figure beyond it or not finite is a damaged one.
_MOST_MIB = 4 * 2**20
#: Estimates closer than this share of themselves count as exact.
_EXACT_SHARE = 0.002
_REPEATS_NEEDED, _MODELS_NEEDED = 2, 3
#: Of a setup: what is part of the key already, and what sizes the KV pool.
_NAMES = frozenset({"engine", "version"})
_POOL = frozenset({"gpu_memory_utilization", "kv_pool_bytes"})


@dataclass(frozen=True, slots=True)
class Evidence:
    """One component of one boot, the mean over its devices: estimated, and what it took beyond that, MiB."""

    at: datetime
    key: BootKey
    model: str
    setup: Mapping[str, Any]
    place: Place
    component: Component
    estimate: Amount
    residual_mib: float

    @property
    def score(self) -> float:
        """Residual in units of the estimate's σ."""
        return self.residual_mib / self.estimate.sigma_mib

    @property
    def measured_mib(self) -> float:
        """What it took."""
        return self.estimate.mean_mib + self.residual_mib


@dataclass(frozen=True, slots=True)
class Calibration:
    """What has been learned; made by ``calibrate``. Without evidence it changes nothing.

    Args:
        evidence: Of all boots.
        floor_mib: The least σ after learning, MiB.
    """

    evidence: tuple[Evidence, ...] = ()
    floor_mib: float = FLOOR_MIB
    _by_component: Mapping[tuple[Place, Component], tuple[Evidence, ...]] = field(
        default_factory=dict, repr=False
    )

    def applied(
        self,
        component: Component,
        predicted: Amount,
        key: BootKey,
        *,
        model: str | None = None,
        setup: Mapping[str, Any] | None = None,
        place: Place = "gpu",
    ) -> Amount:
        """Return an estimate corrected by what boots have shown.

        Args:
            component: Which part.
            predicted: The raw estimate of it, MiB.
            key: Where it is to run.
            model: As the config names it; its own boots count most.
            setup: As ``boots.setup_json`` gives it; ``engine`` and ``version`` are of no matter.
            place: On a GPU or in host memory.
        """
        found = self._by_component.get((place, component), ())
        kin = [(one, similarity(key, one.key)) for one in found]
        kin = [(one, weight) for one, weight in kin if weight > 0]
        if not kin:
            return predicted
        own = [one for one, weight in kin if one.model == model and one.key == key]
        others = [(one, weight) for one, weight in kin if one.model != model or one.key != key]
        asked = _deciding(setup, component)
        if self._exact(predicted):
            return self._exactly(predicted, own, others, asked)
        score, variance = self._shared(others)
        shared = Amount(
            predicted.mean_mib + score * predicted.sigma_mib, sqrt(variance) * predicted.sigma_mib
        )
        return self._own(predicted, shared, own, asked)

    def corrected(
        self, footprint: Footprint, key: BootKey, *, model: str | None = None, setup: Any = None
    ) -> Footprint:
        """Return a footprint with every component corrected; arguments as for ``applied``."""

        def need(of: DeviceNeed, place: Place) -> DeviceNeed:
            amounts = of.components.items()
            return DeviceNeed(
                {
                    part: self.applied(part, amount, key, model=model, setup=setup, place=place)
                    for part, amount in amounts
                }
            )

        return Footprint(
            devices=tuple(need(device, "gpu") for device in footprint.devices),
            host=need(footprint.host, "host"),
            asleep=footprint.asleep,
            asleep_host=footprint.asleep_host,
        )

    def _exact(self, predicted: Amount) -> bool:
        return predicted.sigma_mib <= min(self.floor_mib, _EXACT_SHARE * abs(predicted.mean_mib))

    def _exactly(
        self,
        predicted: Amount,
        own: Sequence[Evidence],
        others: Sequence[tuple[Evidence, float]],
        setup: Mapping[str, Any],
    ) -> Amount:
        repeats = [
            one.measured_mib - predicted.mean_mib
            for one in own
            if _deciding(one.setup, one.component) == setup
        ]
        if consistent(repeats, least=_REPEATS_NEEDED, floor=self.floor_mib):
            scatter = max(predicted.sigma_mib, self.floor_mib, spread(repeats))
            return Amount(predicted.mean_mib + median(repeats), scatter)
        shares: dict[str, list[float]] = defaultdict(list)
        for one, weight in others:
            if weight == 1.0 and one.estimate.mean_mib > 0 and self._exact(one.estimate):
                shares[one.model].append(one.residual_mib / one.estimate.mean_mib)
        by_model = [median(values) for values in shares.values()]
        floor = self.floor_mib / predicted.mean_mib if predicted.mean_mib > 0 else 0.0
        if predicted.mean_mib > 0 and consistent(by_model, least=_MODELS_NEEDED, floor=floor):
            scatter = max(predicted.sigma_mib, self.floor_mib, spread(by_model) * predicted.mean_mib)
            return Amount(predicted.mean_mib * (1 + median(by_model)), scatter)
        return predicted

    def _shared(self, others: Sequence[tuple[Evidence, float]]) -> tuple[float, float]:
        """Return mean and variance, in σ and σ², of the residual that a new model is expected to have."""
        by_model: dict[tuple[str, BootKey], tuple[list[float], float]] = {}
        for one, weight in others:
            if not self._exact(one.estimate) and one.estimate.sigma_mib > 0:
                by_model.setdefault((one.model, one.key), ([], weight))[0].append(one.score)
        # In a fixed order, so that rounding cannot tell in which order the boots came.
        seen = sorted((median(scores), weight) for scores, weight in by_model.values())
        centre = weighted_median([(0.0, _PRIOR_BOOTS), *seen])
        weights = sum(weight for _, weight in seen)
        pulled = sum(weight * clipped(score, centre, _CLIP_SIGMAS) for score, weight in seen)
        mean = pulled / (weights + _OWN_SHARE / _SHARED_SHARE)
        apart = [(clipped(score - mean, 0.0, _SCATTER_CLIP_SIGMAS), weight) for score, weight in seen]
        scatter = sum(weight * score**2 for score, weight in apart)
        own = (_ASSUMED_MODELS * _OWN_SHARE + scatter) / (_ASSUMED_MODELS + weights)
        return mean, 1 / (1 / _SHARED_SHARE + weights / _OWN_SHARE) + own

    def _own(
        self, predicted: Amount, shared: Amount, own: Sequence[Evidence], setup: Mapping[str, Any]
    ) -> Amount:
        """Return ``shared`` as corrected by boots of the model itself."""
        seen: list[tuple[float, bool]] = []
        for one in own:
            if _deciding(one.setup, one.component) == setup:
                seen.append((one.measured_mib, True))
            elif not self._exact(one.estimate) and one.estimate.sigma_mib > 0:
                seen.append((predicted.mean_mib + one.score * predicted.sigma_mib, False))
        if not seen:
            return shared
        seen.sort()
        weighed = [(mib, 1.0 if same else _OTHER_SETUP_WEIGHT) for mib, same in seen]
        centre = weighted_median([(shared.mean_mib, _PRIOR_BOOTS), *weighed])
        bound = _CLIP_SIGMAS * shared.sigma_mib
        if len(seen) > 2:
            bound = min(bound, 3 * max(self.floor_mib, spread([mib for mib, _ in seen])))
        pulled = [clipped(mib, centre, bound) for mib, _ in seen]
        repeat = max(self.floor_mib, spread(pulled))
        # What was cut off may have been right: it does not move the mean, and it does widen the interval.
        cut_off = median(abs(mib - near) for (mib, _), near in zip(seen, pulled, strict=True))
        doubt = max(repeat, min(cut_off, _DOUBT_SIGMAS * shared.sigma_mib))
        prior = shared.sigma_mib**2
        precision, sum_ = 1 / prior, shared.mean_mib / prior
        for mib, (_, same) in zip(pulled, seen, strict=True):
            noise = repeat**2 + (0.0 if same else (_OTHER_SETUP_NOISE * predicted.sigma_mib) ** 2)
            precision += 1 / noise
            sum_ += mib / noise
        variance = 1 / precision + doubt**2
        if doubt <= shared.sigma_mib:
            variance = min(variance, prior)
        return Amount(sum_ / precision, sqrt(variance))


def calibrate(boots: Iterable[Boot], *, floor_mib: float = FLOOR_MIB) -> Calibration:
    """Return what boots teach. Their order is of no matter; those without figures teach nothing."""
    evidence = tuple(one for boot in boots for one in _evidence(boot))
    by_component: dict[tuple[Place, Component], list[Evidence]] = defaultdict(list)
    for one in evidence:
        by_component[one.place, one.component].append(one)
    return Calibration(evidence, floor_mib, {which: tuple(found) for which, found in by_component.items()})


def similarity(key: BootKey, other: BootKey) -> float:
    """Return how much a boot of ``other`` says about ``key``, 0 to 1; the module tells the reasons."""
    if key.engine != other.engine:
        return 0.0
    weight = 1.0
    if key.version != other.version:
        weight *= _OTHER_VERSION
    if key.gpu_name != other.gpu_name:
        weight *= _OTHER_GPU
    if (key.tensor_parallel_size, key.pipeline_parallel_size) != (
        other.tensor_parallel_size,
        other.pipeline_parallel_size,
    ):
        weight *= _OTHER_RANKS
    return weight


def _evidence(boot: Boot) -> list[Evidence]:
    # Ranks of one boot are no independent observations: their mean counts once.
    parts: dict[tuple[Place, Component], list[tuple[Amount, float]]] = defaultdict(list)
    if boot.outcome == "failed":
        return []
    for residual in boot.raw_residuals:
        if not abs(residual.measured_mib) < _MOST_MIB:
            continue
        place: Place = "host" if residual.device == "host" else "gpu"
        need = boot.raw.host if place == "host" else _need_of(boot, residual)
        for component, share in _shares(residual, need):
            parts[place, component].append((need.of(component), share))
    return [
        Evidence(
            at=boot.at,
            key=boot.key,
            model=boot.model,
            setup=boot.setup,
            place=place,
            component=component,
            estimate=Amount(
                fmean(amount.mean_mib for amount, _ in seen), fmean(amount.sigma_mib for amount, _ in seen)
            ),
            residual_mib=fmean(mib for _, mib in seen),
        )
        for (place, component), seen in parts.items()
    ]


def _need_of(boot: Boot, residual: Residual) -> DeviceNeed:
    assert boot.measured is not None
    names = [device.device for device in boot.measured.devices]
    return boot.raw.devices[names.index(residual.device)]


def _shares(residual: Residual, need: DeviceNeed) -> list[tuple[Component, float]]:
    """Return what of a residual falls to each of its components: by variance, as Bayes' rule has it."""
    variances = {part: need.of(part).sigma_mib ** 2 for part in residual.components}
    in_all = sum(variances.values())
    if in_all <= 0:
        return [(residual.components[0], residual.residual_mib)]
    return [(part, residual.residual_mib * share / in_all) for part, share in variances.items() if share > 0]


def _deciding(setup: Mapping[str, Any] | None, component: Component) -> Mapping[str, Any]:
    """Return what of a setup decides a component: the size of the pool is of matter to the pool alone."""
    passing = _NAMES if component is Component.KV else _NAMES | _POOL
    return {name: value for name, value in (setup or {}).items() if name not in passing}
