"""Whether files and rows still say the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from subcortex.journal.diary import Diary
from subcortex.journal.diary import session_queries as queries
from subcortex.journal.diary.session_rows import digest_of
from subcortex.journal.folder.exchange import understood
from subcortex.journal.folder.files import Found, TextFile, Unreadable, find, read
from subcortex.journal.folder.writing import Folder, Refused


@dataclass(frozen=True, slots=True)
class Drift:
    """Where files and rows have drifted apart.

    Args:
        sessions: Rows looked at, those of sessions that are over.
        files: Files found in the folder.
        without_file: Names of rows that neither a file in the folder nor their source holds.
        without_row: Paths of files that no row has.
        differing: Names of rows whose file says something else.
        unreadable: Files that could not be read, and why.
        damaged: Ids of rows whose text is no longer what its digest says.
    """

    sessions: int
    files: int
    without_file: list[str] = field(default_factory=list)
    without_row: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    @property
    def none(self) -> bool:
        """Whether all is well."""
        return not (
            self.without_file or self.without_row or self.differing or self.unreadable or self.damaged
        )


def check(diary: Diary, folder: Path) -> Drift:
    """Compare every session that is over with its file below ``folder``, and every file there with its row.

    An imported session has its file where it came from, too.

    Raises:
        JournalError: The database cannot be read.
        OSError: The folder cannot be opened.
    """
    names: set[str] = set()
    digests: dict[str, set[str]] = {}
    without_file, differing, damaged, unreadable = [], [], [], []
    looked_at = 0
    target = Folder(folder) if folder.is_dir() else None
    try:
        for record in queries.records(diary, None):
            if record.file is None:
                continue
            looked_at += 1
            names.add(record.file)
            for name in filter(None, (record.file, record.source)):
                digests.setdefault(record.digest, set()).add(PurePosixPath(name).name)
            if digest_of(record.content) != record.digest:
                damaged.append(record.id)
            try:
                there = target.read(record.file) if target else None
            except Refused as error:
                unreadable.append(Unreadable(record.file, str(error)))
                continue
            except OSError as error:
                unreadable.append(Unreadable(record.file, error.strerror or str(error)))
                continue
            digest = digest_of(there) if there is not None else _digest_at(record.source)
            if digest is None:
                without_file.append(record.file)
            elif digest != record.digest:
                differing.append(record.file)
    finally:
        if target:
            target.__exit__()
    files, without_row = 0, []
    for found in find([folder]) if target else ():
        files += 1
        file = read(found) if isinstance(found, Found) else found
        if isinstance(file, TextFile):
            reading = understood(file)
            if isinstance(reading, Unreadable):
                unreadable.append(reading)
            elif file.found.name not in names and file.found.path.name not in digests.get(
                digest_of(file.content), ()
            ):
                without_row.append(file.found.name)
        else:
            unreadable.append(file)
    return Drift(looked_at, files, without_file, without_row, differing, unreadable, damaged)


def _digest_at(source: str | None) -> str | None:
    if source is None:
        return None
    file = read(Found(Path(source), source))
    return digest_of(file.content) if isinstance(file, TextFile) else None
