"""Scenes to decide on: one H200, a fast tier and a deep one that do not fit beside each other."""

from __future__ import annotations

from subcortex.fleet.scene import HOST, Scene, Swaps, TierScene, Waiter
from subcortex.fleet.schedule import Come, Go, Schedule, Stay, schedule
from subcortex.types import Rest, TierState

GPU_MIB, HOST_MIB = 140_000.0, 500_000.0
ROOM = {0: GPU_MIB, HOST: HOST_MIB}
NOW_S = 1000.0
#: Stopping takes 10 s and coming back from it 80 s; sleeping 40 s and 2 s; level 2 takes 5 s and 20 s.
SWAPS = Swaps(
    {Rest.STOP: 10.0, Rest.SLEEP_1: 40.0, Rest.SLEEP_2: 5.0},
    {Rest.STOP: 80.0, Rest.SLEEP_1: 2.0, Rest.SLEEP_2: 20.0},
    answer_s=3.0,
)
SLEEPS = {
    Rest.SLEEP_1: {0: 2_000.0, HOST: 104_000.0},
    Rest.SLEEP_2: {0: 2_000.0, HOST: 4_000.0},
}


def tier(name: str = "deep", state: TierState = TierState.STOPPED, **more) -> TierScene:
    """Return a tier of 100 000 MiB on GPU 0 that knows no sleep."""
    usual = {
        "rank": 0,
        "awake": {0: 100_000.0, HOST: 4_000.0},
        "swaps": SWAPS,
        "turns": frozenset({0}),
    }
    return TierScene(name=name, state=state, **{**usual, **more})


def ready(name: str = "fast", **more) -> TierScene:
    """Return one that has been ready and idle for long."""
    return tier(name, TierState.READY, **more)


def waiter(ago_s: float = 0.0, **more) -> Waiter:
    """Return a thought that came so long ago."""
    return Waiter(NOW_S - ago_s, **more)


def scene(*tiers: TierScene, **more) -> Scene:
    """Return the moment."""
    return Scene(NOW_S, tiers, **{"room": ROOM, **more})


def decided(*tiers: TierScene, **more) -> Schedule:
    """Return what is decided on these tiers."""
    return schedule(scene(*tiers, **more))


def goes(made: Schedule) -> list[tuple[str, Rest]]:
    """Return who is asked to leave, and how."""
    return [(move.tier, move.rest) for move in made.moves if isinstance(move, Go)]


def comes(made: Schedule) -> list[str]:
    """Return who is called in."""
    return [move.tier for move in made.moves if isinstance(move, Come)]


def stays(made: Schedule) -> list[str]:
    """Return who is called back."""
    return [move.tier for move in made.moves if isinstance(move, Stay)]
