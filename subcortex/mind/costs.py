"""What tiers cost: measured where the journal remembers, else as the config says."""

from __future__ import annotations

from subcortex.config import Config
from subcortex.errors import SubcortexError
from subcortex.fleet import SwapBook
from subcortex.journal import EventRecord, Reader
from subcortex.routing import CostBook
from subcortex.types import Rest, TierState

#: Changes of a tier that are read back, newest first.
_EVENTS = 400


def cost_book(config: Config) -> CostBook:
    """Return what tiers cost: measured where the journal knows, else as the config says."""
    book = CostBook()
    for tier in config.tiers:
        book.nominal(
            tier.name, ttft_s=tier.nominal_ttft_s, tpot_s=tier.nominal_tpot_s, load_s=tier.nominal_load_s
        )
    if not config.database_path.exists():
        return book
    try:
        measured = Reader.open(config.database_path).tier_costs()
    except SubcortexError:
        return book
    for tier in config.tiers:
        found = measured.get((tier.name, tier.model))
        if found:
            book.seed(tier.name, ttft_s=found.ttft_s, tpot_s=found.tpot_s, load_s=found.load_s, n=found.n)
    return book


def remember_swaps(book: SwapBook, config: Config) -> None:
    """Teach a book what swaps took the tiers in earlier lives, as far as their models are still the same."""
    if not config.database_path.exists():
        return
    for tier in config.tiers:
        try:
            with Reader.open(config.database_path) as reader:
                events = reader.events(limit=_EVENTS, tier=tier.name)
        except SubcortexError:
            continue
        slept: set[str] = set()
        for event in reversed(events):
            if event.kind == TierState.STARTING:
                slept.clear()
            if event.detail.get("model") == tier.model:
                _remember(book, tier.name, event, slept)


def _remember(book: SwapBook, tier: str, event: EventRecord, slept: set[str]) -> None:
    facts = event.detail
    was, seconds, rest = facts.get("was"), facts.get("was_for_s"), facts.get("rest")
    if not isinstance(seconds, int | float):
        return
    if event.kind == TierState.ASLEEP and was == TierState.SLEEPING and rest in tuple(Rest):
        book.left(tier, Rest(rest), seconds, first=rest not in slept)
        slept.add(rest)
    elif event.kind == TierState.READY and was == TierState.WAKING and rest in tuple(Rest):
        book.came(tier, Rest(rest), seconds)
    elif event.kind == TierState.READY and isinstance(load_s := facts.get("load_s"), int | float):
        book.came(tier, Rest.STOP, load_s)
    elif event.kind == TierState.STOPPED and was == TierState.STOPPING:
        book.left(tier, Rest.STOP, seconds)
