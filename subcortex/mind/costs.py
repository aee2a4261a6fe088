"""What tiers cost: measured where the journal remembers, else as the config says."""

from __future__ import annotations

from collections.abc import Iterable

from subcortex.config import Config
from subcortex.errors import SubcortexError
from subcortex.experiments.consequences.figures import TierFigures, tier_figures
from subcortex.fleet import SwapBook
from subcortex.journal import EventRecord, Reader
from subcortex.journal.diary.board_records import FactRecord
from subcortex.mind.experimenting.measured import measured_facts
from subcortex.routing import CostBook
from subcortex.types import Rest, TierState

#: Changes of a tier that are read back, newest first.
_EVENTS = 400
#: Measurements that a fact counts for, at most, as a seed's: it is one figure, a median of many.
_FACT_WEIGHT = 3


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
    learn_costs(book, config, measured_facts(config))
    return book


def learn_costs(book: CostBook, config: Config, facts: Iterable[FactRecord]) -> None:
    """Put what experiments measured in place of what the config says.

    A tier's own thoughts tell its usual prompts, and so count more: where there are some, a measured figure
    takes the nominal one's place; where there are none, it counts as measurements.

    Args:
        facts: Of measurements, the newest first.
    """
    for name, found in tier_figures(facts, config).items():
        ttft_s, tpot_s, load_s = found.get("ttft_s"), found.get("tpot_s"), found.start_s
        book.nominal(name, ttft_s=ttft_s, tpot_s=tpot_s, load_s=load_s)
        if book.cost(name).n == 0 and (ttft_s or tpot_s):
            n = max(found.n.get("ttft_s", 1), found.n.get("tpot_s", 1))
            book.seed(name, ttft_s=ttft_s, tpot_s=tpot_s, n=n)
        for _ in range(min(found.start_n, _FACT_WEIGHT)):
            book.observe(name, load_s=load_s)


def learn_swaps(book: SwapBook, config: Config, facts: Iterable[FactRecord]) -> None:
    """Teach a book what experiments measured of going to rest and coming back.

    Args:
        facts: Of measurements, the newest first.
    """
    for name, found in tier_figures(facts, config).items():
        for figure, rest, first in (
            ("sleep_1_first_s", Rest.SLEEP_1, True),
            ("sleep_1_s", Rest.SLEEP_1, False),
            ("sleep_2_s", Rest.SLEEP_2, False),
            ("stop_s", Rest.STOP, False),
        ):
            for seconds in _times(found, figure):
                book.left(name, rest, seconds, first=first)
        for figure, rest in (("wake_1_s", Rest.SLEEP_1), ("wake_2_s", Rest.SLEEP_2)):
            for seconds in _times(found, figure):
                book.came(name, rest, seconds)
        if found.start_s is not None:
            for _ in range(min(found.start_n, _FACT_WEIGHT)):
                book.came(name, Rest.STOP, found.start_s)


def _times(found: TierFigures, figure: str) -> list[float]:
    """Return a figure as often as it counts."""
    value = found.get(figure)
    return [] if value is None else [value] * min(found.n[figure], _FACT_WEIGHT)


def remember_swaps(book: SwapBook, config: Config) -> None:
    """Teach a book what swaps took the tiers in earlier lives, as far as their models are still the same.

    What experiments measured comes first, so that what is seen every day outvotes it in time.
    """
    if not config.database_path.exists():
        return
    learn_swaps(book, config, measured_facts(config))
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
