"""What was measured on this machine, as plans and routes take it. Reads the journal; changes nothing."""

from __future__ import annotations

from subcortex import hardware
from subcortex.config import Config
from subcortex.errors import SubcortexError
from subcortex.experiments.consequences.figures import link_figures, with_measured
from subcortex.hardware import Hardware
from subcortex.journal.diary import Diary, board_queries
from subcortex.journal.diary.board_records import FactRecord


def measured_facts(config: Config) -> list[FactRecord]:
    """Return the facts of measurements that can be relied on, the newest first; none without a journal."""
    if not config.database_path.exists():
        return []
    try:
        with Diary.open(config.database_path, durability=config.journal.durability) as diary:
            return board_queries.measured_facts(diary)
    except SubcortexError:
        # A plan without what was measured is worse, and better than none.
        return []


def measured_hardware(config: Config, seen: Hardware | None = None) -> Hardware:
    """Return this machine with what was measured between its GPUs.

    Args:
        config: Whose journal has it.
        seen: The machine as somebody has just seen it; None to look.
    """
    found = seen or hardware.detect()
    if len(found.gpus) < 2:
        return found
    return with_measured(found, link_figures(measured_facts(config), found))
