"""What the diary gives back of sessions: a line of a list, a whole one, a place where words were found."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from subcortex.types import Depth

Kind = Literal["session", "satisfaction", "deferral", "note"]
Origin = Literal["agent", "tick", "import"]
State = Literal["open", "ended", "interrupted"]
EntryKind = Literal["note", "thought", "experiment", "field"]
Change = Literal["new", "known", "updated"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Added(NamedTuple):
    """What came of a session that was handed in.

    Args:
        id: Of its row.
        change: ``new`` row; ``known``, the same text under the same name was there; ``updated``, an imported
            file has changed since.
        file: Its name under the folder of sessions.
    """

    id: str
    change: Change
    file: str | None

    @property
    def new(self) -> bool:
        """Whether a row was made."""
        return self.change == "new"


class SessionDrive(_Record):
    """A drive behind a session, and its level (pressure/threshold, percent) where it was written."""

    name: str
    level_percent: float | None = None


class SessionEntry(_Record):
    """Something an open session was told: a note, or the id of a thought or an experiment."""

    at: datetime
    kind: EntryKind
    section: str | None = None
    text: str


class SessionSummary(_Record):
    """A session without its text.

    Args:
        at: When it was held, UTC; None where neither text nor file name says so.
        at_written: The same as it was written.
        recorded_at: When its row was made.
        depth, depth_reason: The rating of its writer, or of a person after (``depth_by``).
        evidence_depth, evidence_reasons: The rating by what it left behind; None until it was made.
        file: Name under the folder of sessions, parts joined by ``/``; None while it is open.
        source: Path that it was imported from.
        digest: SHA-256 of the file's bytes, hex.
        not_understood: What reading the text could make nothing of, in words.
    """

    id: str
    at: datetime | None
    at_written: str | None = None
    recorded_at: datetime
    kind: Kind
    shape: str
    origin: Origin
    state: State
    ended_at: datetime | None = None
    drives: list[SessionDrive] = Field(default_factory=list)
    title: str | None = None
    topic: str | None = None
    depth: Depth | None = None
    depth_reason: str | None = None
    depth_by: Literal["writer", "person"] | None = None
    evidence_depth: Depth | None = None
    evidence_reasons: list[str] = Field(default_factory=list)
    pressure_before: float | None = None
    pressure_after: float | None = None
    file: str | None = None
    source: str | None = None
    digest: str
    not_understood: list[str] = Field(default_factory=list)

    @property
    def ratings_differ(self) -> bool:
        """Whether both ratings are there and say different things."""
        return None not in (self.depth, self.evidence_depth) and self.depth != self.evidence_depth


class SessionRecord(SessionSummary):
    """A session whole.

    Args:
        text: The markdown as it was written.
        encoding: What its file's bytes are decoded by; ``text.encode(encoding)`` is the file.
        entries: What it was told while it was open.
    """

    text: str
    encoding: str = "utf-8"
    entries: list[SessionEntry] = Field(default_factory=list)

    @property
    def content(self) -> bytes:
        """The bytes of its file."""
        return self.text.encode(self.encoding)


class SessionHit(SessionSummary):
    """A session in which words were found.

    Args:
        snippet: The text around them, as it stands there (not made safe for any screen).
        matches: Where in ``snippet`` the words are: first character, and the one after the last.
    """

    snippet: str
    matches: list[tuple[int, int]]
