"""Drives: what each is (files), the arithmetic of their pressure, and those of an Emergence state."""

from subcortex.drives.definitions import Drive, find, load_drives
from subcortex.drives.emergence import EmergenceState, read
from subcortex.drives.known import KnownDrives, followed
from subcortex.drives.pressure import BANDS, LEFT, Depth, Level, State
from subcortex.drives.reporting import Reported, report_satisfaction

__all__ = [
    "BANDS",
    "LEFT",
    "Depth",
    "Drive",
    "EmergenceState",
    "KnownDrives",
    "Level",
    "Reported",
    "State",
    "find",
    "followed",
    "load_drives",
    "read",
    "report_satisfaction",
]
