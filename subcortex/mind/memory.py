"""What tiers need and what this machine has: the plan's predictions, corrected by what was measured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import structlog

from subcortex.config import Config, RemoteTier
from subcortex.fleet import HOST, Needs, Seen
from subcortex.fleet.scene import Device, Room
from subcortex.mind.boots import Predict
from subcortex.types import DeviceLedger, Ledger, Rest, TierState
from subcortex.vram.learning.boots import Prediction

_MIB_A_GIB = 1024.0
#: A look that is younger than this is as good as a new one, which takes a tenth of a second; seconds.
_FRESH_S = 0.5
#: How far a change of a GPU's use may lie from what is expected of a tier and count as its doing.
_BELIEVED_MIB, _BELIEVED_SHARE = 2048.0, 0.1

_log = structlog.get_logger("memory")


@dataclass(slots=True)
class TierMemory:
    """The fleet's ``Memory``.

    Args:
        predict: Foretells what a tier takes; called in a thread.
        ledger: Returns who holds what now; called in a thread.
    """

    config: Config
    predict: Predict
    ledger: Callable[[], Ledger]
    known: dict[str, Needs]
    looks: dict[str, Ledger] = field(default_factory=dict)
    latest: Ledger | None = None
    latest_s: float = 0.0

    @classmethod
    def of(cls, config: Config, predict: Predict, ledger: Callable[[], Ledger]) -> TierMemory:
        """Return it knowing nothing yet."""
        return cls(config, predict, ledger, {})

    async def prepare(self) -> None:
        """See ``Memory.prepare``."""
        self.known.update(await asyncio.to_thread(self._foretold))

    def needs(self, tier: str) -> Needs:
        """See ``Memory.needs``."""
        return self.known.get(tier, Needs())

    async def look(self) -> Seen:
        """See ``Memory.look``."""
        devices = (await self._looked()).devices
        fleet = self.config.fleet
        free, offered, foreign, holders = {}, {}, {}, {}
        for device in devices:
            number = _number(device)
            limit_gib = fleet.host_limit_gib if number == HOST else fleet.gpu_limit_gib
            ours_mib = sum(share.taken_mib or 0.0 for share in device.tiers)
            free[number] = max(0.0, device.free_mib - device.reserve_mib)
            offered[number] = free[number] + ours_mib
            if limit_gib is not None:
                offered[number] = min(offered[number], limit_gib * _MIB_A_GIB)
            foreign[number] = device.foreign_mib
            if device.foreign:
                first = device.foreign[0]
                holders[number] = f"{first.name or 'process'} ({first.pid})"
        return Seen(free, offered, foreign, holders)

    async def before(self, tier: str) -> None:
        """See ``Memory.before``."""
        fresh = self.latest is not None and time.monotonic() - self.latest_s <= _FRESH_S
        self.looks[tier] = self.latest if fresh and self.latest else await self._looked()

    async def settled(self, tier: str, state: TierState, rest: Rest | None) -> None:
        """See ``Memory.settled``."""
        now, before = await self._looked(), self.looks.pop(tier, None)
        known = self.needs(tier)
        if state is TierState.READY:
            slept = known.asleep.get(rest, {}) if rest is not None else {}
            held = {**_grown(before, now, slept, known.awake), **_held(now, tier)}
            # Host memory grows as pages are first touched; a GPU's is all taken at the start.
            awake = {**known.awake, **held}
            if HOST in held and HOST in known.awake:
                awake[HOST] = max(held[HOST], known.awake[HOST])
            self.known[tier] = replace(known, awake=awake)
        elif state is TierState.ASLEEP and rest is not None:
            expected = known.asleep.get(rest, {})
            held = {**_grown(before, now, known.awake, expected), **_held(now, tier)}
            self.known[tier] = replace(known, asleep={**known.asleep, rest: {**expected, **held}})

    async def _looked(self) -> Ledger:
        self.latest = await asyncio.to_thread(self.ledger)
        self.latest_s = time.monotonic()
        return self.latest

    def _foretold(self) -> Mapping[str, Needs]:
        found = {}
        for tier in self.config.tiers:
            if isinstance(tier, RemoteTier):
                continue
            try:
                prediction = self.predict(tier)
            except Exception as error:
                # A model that nobody can foretell may start all the same.
                _log.warning("no prediction", tier=tier.name, error=str(error))
                continue
            if prediction is not None:
                found[tier.name] = needs_of(prediction)
        return found


def needs_of(prediction: Prediction) -> Needs:
    """Return what a prediction expects of each device, awake and asleep."""
    footprint = prediction.footprint
    awake: dict[Device, float] = {HOST: footprint.host.total.mean_mib}
    for index, need in zip(prediction.gpu_indices, footprint.devices, strict=False):
        awake[index] = need.total.mean_mib
    if footprint.asleep is None:
        return Needs(awake)
    gpus = {
        index: amount.mean_mib
        for index, amount in zip(prediction.gpu_indices, footprint.asleep, strict=False)
    }
    host = footprint.asleep_host or footprint.host.total
    asleep: dict[Rest, Room] = {
        Rest.SLEEP_1: {**gpus, HOST: host.mean_mib},
        # Level 2 drops the weights: the host keeps what it has when the tier is awake.
        Rest.SLEEP_2: {**gpus, HOST: awake[HOST]},
    }
    return Needs(awake, asleep)


def _number(device: DeviceLedger) -> Device:
    return HOST if device.gpu_index is None else device.gpu_index


def _held(ledger: Ledger, tier: str) -> dict[Device, float]:
    """Return what a tier's processes were seen to hold; a device where that cannot be told is left out."""
    return {
        _number(device): share.taken_mib
        for device in ledger.devices
        for share in device.tiers
        if share.tier == tier and share.taken_mib and not share.assumed
    }


def _grown(before: Ledger | None, now: Ledger, held: Room, expected: Room) -> dict[Device, float]:
    """Return what a tier holds of its GPUs, from how their use changed while it came or went.

    For drivers that do not say who holds what. Whatever lies far from what is expected is somebody else's
    doing and not believed.
    """
    if before is None:
        return {}
    used = {_number(device): device.used_mib for device in before.devices}
    found = {}
    for device in now.devices:
        number = _number(device)
        if number == HOST or number not in expected or number not in used:
            continue
        mib = held.get(number, 0.0) + device.used_mib - used[number]
        if abs(mib - expected[number]) <= _BELIEVED_MIB + _BELIEVED_SHARE * expected[number]:
            found[number] = mib
    return found
