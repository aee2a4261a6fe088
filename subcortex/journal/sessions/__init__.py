"""Sessions as text: markdown to blocks and back, what is read in it, and writing a new one. No database."""

from subcortex.journal.sessions._drive_names import DriveLevel
from subcortex.journal.sessions._outline import Section
from subcortex.journal.sessions.document import Document, parse, render
from subcortex.journal.sessions.reading import Kind, Reading, Shape, read

__all__ = ["Document", "DriveLevel", "Kind", "Reading", "Section", "Shape", "parse", "read", "render"]
