"""Sessions as text: markdown to blocks and back, what is read in it, and writing a new one. No database."""

from subcortex.journal.sessions._drive_names import DriveLevel
from subcortex.journal.sessions._outline import Section
from subcortex.journal.sessions.depth import Evidence, rate
from subcortex.journal.sessions.document import Document, parse, render
from subcortex.journal.sessions.reading import Kind, Reading, Shape, read
from subcortex.journal.sessions.writing import (
    DeferralText,
    SatisfactionText,
    SessionText,
    compose,
    compose_deferral,
    compose_satisfaction,
    file_name,
    inert_body,
    plain_body,
)

__all__ = [
    "DeferralText",
    "Document",
    "DriveLevel",
    "Evidence",
    "Kind",
    "Reading",
    "SatisfactionText",
    "Section",
    "SessionText",
    "Shape",
    "compose",
    "compose_deferral",
    "compose_satisfaction",
    "file_name",
    "inert_body",
    "parse",
    "plain_body",
    "rate",
    "read",
    "render",
]
