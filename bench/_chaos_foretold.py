"""Put before the daemon's own imports by ``sitecustomize``: the stand-in is foretold to sleep.

Without a GPU nothing is: a sleeper gives back what it has of a GPU. What the stand-in holds is host memory,
of which it gives back most; and it sleeps and wakes at once, which has to be known before it is first tried.
Nothing else of the daemon is another than users have.
"""

from __future__ import annotations

from collections.abc import Mapping

from subcortex.fleet import HOST, Needs, scene
from subcortex.mind.memory import TierMemory
from subcortex.types import Rest

#: Host memory of the stand-in, MiB.
AWAKE_MIB, ASLEEP_MIB = 400.0, 60.0
SWAP_S = 0.05

_foretold = TierMemory._foretold


def foretold(self: TierMemory) -> Mapping[str, Needs]:
    """Return what is foretold, and of the tier ``odd`` what the stand-in does."""
    asleep = {HOST: ASLEEP_MIB}
    odd = Needs({HOST: AWAKE_MIB}, {Rest.SLEEP_1: asleep, Rest.SLEEP_2: asleep})
    return {name: odd if name == "odd" else needs for name, needs in _foretold(self).items()}


for rest in (Rest.SLEEP_1, Rest.SLEEP_2):
    # Changed where they are, for those who have them by name.
    scene.LEAVE_S[rest] = scene.BACK_S[rest] = SWAP_S
TierMemory._foretold = foretold  # type: ignore[method-assign]
