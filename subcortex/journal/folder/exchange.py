"""Files into rows and rows into files; what goes in comes out byte for byte."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from subcortex.journal.diary import Diary, sessions
from subcortex.journal.diary import session_queries as queries
from subcortex.journal.diary.session_records import Added, SessionRecord
from subcortex.journal.diary.sessions import Given
from subcortex.journal.folder.files import TextFile, Unreadable, find, read
from subcortex.journal.folder.writing import Folder, Refused
from subcortex.journal.sessions import Reading, parse, render
from subcortex.journal.sessions import read as understand

#: Sessions an import writes in one transaction, so that nobody waits long for the lock.
_BATCH = 25


@dataclass(frozen=True, slots=True)
class Survey:
    """What an import would do, counted over files.

    Args:
        files: Found, the unreadable among them.
        lossless: Whose bytes come back both from parsing and from a database.
        with_drive, with_timestamp, with_depth: In which that was found.
        kinds, shapes: How many of each.
        unreadable: Left out, and why.
        lossy: What does not come back, by path; this is a bug of ours.
    """

    files: int
    lossless: int
    with_drive: int
    with_timestamp: int
    with_depth: int
    kinds: dict[str, int]
    shapes: dict[str, int]
    unreadable: list[Unreadable]
    lossy: list[str]


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did, in files; ``added`` says of each readable one what came of it."""

    files: int
    added: list[Added] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)

    def count(self, change: str) -> int:
        """Return how many files were ``new``, ``known`` or ``updated``."""
        return sum(item.change == change for item in self.added)


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export did.

    Args:
        written: Names that were written.
        unchanged: How many were there already, the same.
        differs: Names under which something else lies; left alone.
        refused: Names that could not be written, and why.
    """

    written: list[str] = field(default_factory=list)
    unchanged: int = 0
    differs: list[str] = field(default_factory=list)
    refused: list[Unreadable] = field(default_factory=list)


def survey(paths: Sequence[Path]) -> Survey:
    """Read what an import of ``paths`` would, and say how much of it is understood; nothing is kept.

    Each file goes through parsing and back, and into a database of its own and back.

    Raises:
        JournalError: No temporary database can be made.
    """
    files, unreadable, lossy = 0, [], []
    found = {"drive": 0, "timestamp": 0, "depth": 0, "lossless": 0}
    kinds: dict[str, int] = {}
    shapes: dict[str, int] = {}
    with (
        tempfile.TemporaryDirectory(prefix="subcortex-") as folder,
        Diary.open(Path(folder) / "journal.db") as diary,
    ):
        for batch in _batches(_understood(paths, None)):
            files += len(batch)
            unreadable += [item for item in batch if isinstance(item, Unreadable)]
            items = [item for item in batch if not isinstance(item, Unreadable)]
            added = sessions.add_all(diary, (given for _, given in items))
            for (file, given), row in zip(items, added, strict=True):
                reading = given.reading
                record = queries.session(diary, row.id)
                whole = record is not None and record.content == file.content
                if whole and render(parse(file.text)) == file.text:
                    found["lossless"] += 1
                else:
                    lossy.append(str(file.found.path))
                found["drive"] += bool(reading.drives)
                found["timestamp"] += reading.at is not None
                found["depth"] += reading.depth is not None
                kinds[reading.kind] = kinds.get(reading.kind, 0) + 1
                shapes[reading.shape] = shapes.get(reading.shape, 0) + 1
    return Survey(
        files=files,
        lossless=found["lossless"],
        with_drive=found["drive"],
        with_timestamp=found["timestamp"],
        with_depth=found["depth"],
        kinds=kinds,
        shapes=shapes,
        unreadable=unreadable,
        lossy=lossy,
    )


def import_files(diary: Diary, paths: Sequence[Path], *, home: Path | None = None) -> Imported:
    """Bring files, and those below folders, into the database; the second time changes nothing.

    Args:
        home: The folder of sessions: what lies there has its name below it, and a change to the file of an
            imported session is that session's.

    Raises:
        JournalError: The database takes no writes now; what was written before stays.
    """
    files = 0
    added: list[Added] = []
    unreadable: list[Unreadable] = []
    for batch in _batches(_understood(paths, home)):
        files += len(batch)
        unreadable += [item for item in batch if isinstance(item, Unreadable)]
        added += sessions.add_all(diary, [item[1] for item in batch if not isinstance(item, Unreadable)])
    return Imported(files, added, unreadable)


def export(diary: Diary, folder: Path, *, ids: Iterable[str] | None = None, force: bool = False) -> Exported:
    """Write sessions that are over as files below ``folder``, each whole or not at all, mode 0600.

    Args:
        ids: Which; None: all.
        force: Replace files that say something else.

    Raises:
        InvalidRequest: An id is no session's.
        JournalError: The database cannot be read.
        OSError: The folder cannot be made or opened.
    """
    written: list[str] = []
    differs: list[str] = []
    refused: list[Unreadable] = []
    unchanged = 0
    with Folder(folder) as target:
        for record in queries.records(diary, ids):
            if record.file is None:
                continue
            try:
                outcome = target.write(record.file, record.content, force=force)
            except Refused as error:
                refused.append(Unreadable(record.file, str(error)))
                continue
            except OSError as error:
                refused.append(Unreadable(record.file, error.strerror or str(error)))
                continue
            if outcome == "unchanged":
                unchanged += 1
            else:
                (written if outcome == "written" else differs).append(record.file)
    return Exported(written, unchanged, differs, refused)


def understood(file: TextFile) -> Reading | Unreadable:
    """Return what a file's text says; one that breaks the reading is left out and ends no import."""
    try:
        return understand(parse(file.text), file.found.path.name)
    except Exception as error:
        return Unreadable(str(file.found.path), f"reading it fails: {type(error).__name__}: {error}")


def records_of(added: Iterable[Added], diary: Diary) -> Iterator[SessionRecord]:
    """Yield the sessions that an import made or changed."""
    return queries.records(diary, [item.id for item in added if item.change != "known"])


def _understood(paths: Sequence[Path], home: Path | None) -> Iterator[tuple[TextFile, Given] | Unreadable]:
    real_home = os.path.realpath(home) if home is not None else None
    for found in find(paths):
        if isinstance(found, Unreadable):
            yield found
            continue
        file = read(found)
        if isinstance(file, Unreadable):
            yield file
            continue
        reading = understood(file)
        if isinstance(reading, Unreadable):
            yield reading
            continue
        source = os.path.realpath(found.path)
        at_home = real_home is not None and source.startswith(real_home + os.sep)
        name = os.path.relpath(source, real_home) if at_home else file.found.name
        yield file, Given(file.text, reading, name, "import", source, file.encoding, at_home)


def _batches(
    items: Iterator[tuple[TextFile, Given] | Unreadable],
) -> Iterator[list[tuple[TextFile, Given] | Unreadable]]:
    while batch := list(islice(items, _BATCH)):
        yield batch
