"""What a thought on its way needs of the mind around it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from subcortex.clock import Clock
from subcortex.engines.protocol import Engine
from subcortex.fleet import Fleet
from subcortex.journal import Journal
from subcortex.routing import CostBook


@dataclass(slots=True)
class Means:
    """The rooms below, as one mind holds them; ``closing`` is set once it takes no more thoughts."""

    engines: Mapping[str, Engine]
    fleet: Fleet
    journal: Journal
    costs: CostBook
    clock: Clock
    closing: bool = False
