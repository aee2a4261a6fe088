"""Sessions as files: found and read without losing a byte, written whole, compared with their rows."""

from subcortex.journal.folder.check import Drift, check
from subcortex.journal.folder.exchange import Exported, Imported, Survey, export, import_files, survey
from subcortex.journal.folder.files import LARGEST_BYTES, Unreadable

__all__ = [
    "LARGEST_BYTES",
    "Drift",
    "Exported",
    "Imported",
    "Survey",
    "Unreadable",
    "check",
    "export",
    "import_files",
    "survey",
]
