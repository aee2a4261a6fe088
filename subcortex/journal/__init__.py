"""The record of every thought: SQLite, one writer, migrations, search."""

from subcortex.journal.reader import Reader
from subcortex.journal.recorder import Recorder
from subcortex.journal.records import (
    BootEnd,
    BootRecord,
    BootStart,
    EventRecord,
    Failure,
    JournalHealth,
    Limits,
    Policy,
    ThoughtEnd,
    ThoughtRecord,
    ThoughtStart,
    TierMeasured,
)
from subcortex.journal.render import inert
from subcortex.journal.store import Journal

__all__ = [
    "BootEnd",
    "BootRecord",
    "BootStart",
    "EventRecord",
    "Failure",
    "Journal",
    "JournalHealth",
    "Limits",
    "Policy",
    "Reader",
    "Recorder",
    "ThoughtEnd",
    "ThoughtRecord",
    "ThoughtStart",
    "TierMeasured",
    "inert",
]
