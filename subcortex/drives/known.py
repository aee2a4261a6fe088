"""The drives that thoughts may name: those of the files, and those of the Emergence state followed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from subcortex.config import Config
from subcortex.drives import emergence
from subcortex.drives.definitions import Drive, load_drives
from subcortex.errors import SubcortexError

#: Where emergence-ai looks for its configuration, below the home folder.
_SETTINGS = (".openclaw/workspace/emergence.json", ".emergence/emergence.json")
_STATE = ".openclaw/state"
#: What its configuration has where it does not say.
_STATE_OF_A_WORKSPACE = ".emergence/state"
_MOST_SETTINGS_BYTES = 2**20


def followed(config: Config, environ: Mapping[str, str] | None = None) -> Path | None:
    """Return the folder of the Emergence state to follow; None if there is none or it is off.

    ``auto`` takes the first that holds a state: ``$EMERGENCE_STATE``, the state that ``$EMERGENCE_CONFIG``
    names, and where neither is set the one of ``~/.openclaw/workspace/emergence.json`` or
    ``~/.emergence/emergence.json``, then ``~/.openclaw/state``. A folder that the configuration names is
    returned whether or not a state is there yet.
    """
    named = config.drives.emergence
    if named == "off":
        return None
    if named != "auto":
        path = config.resolve(named)
        return path.parent if path.name == emergence.DEFINITIONS_FILE else path
    environ = os.environ if environ is None else environ
    return next((folder for folder in _candidates(environ) if emergence.is_state(folder)), None)


def command(config: Config) -> str:
    """Return Emergence's program: a name to look up, or a path."""
    named = config.drives.emergence_command
    return str(config.resolve(named)) if "/" in named else named


class KnownDrives:
    """The drives by name, as they are now: a drive that appears in the state routes the next thought.

    The files are read once, the state again whenever it has changed; asking costs two looks at a file's age.
    """

    def __init__(self, config: Config, environ: Mapping[str, str] | None = None) -> None:
        """Read the files; ConfigError says what is wrong with them."""
        self.files = load_drives(config.drives_dir)
        #: Why the state that is followed could not be read last time; None if it could, or none is followed.
        self.problem: SubcortexError | None = None
        self._config = config
        self._environ = environ
        self._folder: Path | None = None
        self._seen: object = None
        self._known = self.files

    def current(self) -> dict[str, Drive]:
        """Return the drives by name; a state that cannot be read leaves those that it had before."""
        if self._folder is None:
            self._folder = followed(self._config, self._environ)
        if self._folder is None:
            return self._known
        now = emergence.signature(self._folder)
        if now == self._seen:
            return self._known
        self._seen = now
        if now == (None, None):
            # Gone, or not there yet: it may come back elsewhere.
            self._folder, self._known, self.problem = None, self.files, None
            return self._known
        try:
            self._known = emergence.merged(self.files, emergence.read(self._folder))
            self.problem = None
        except SubcortexError as error:
            self.problem = error
        return self._known


def _candidates(environ: Mapping[str, str]) -> Iterator[Path]:
    state, settings = environ.get("EMERGENCE_STATE"), environ.get("EMERGENCE_CONFIG")
    if state:
        yield Path(state).expanduser()
    if settings:
        yield from _state_of(Path(settings).expanduser())
    if state or settings:
        return
    home = Path(environ.get("HOME") or Path.home())
    for name in _SETTINGS:
        yield from _state_of(home / name)
    yield home / _STATE


def _state_of(settings: Path) -> Iterator[Path]:
    """Yield the state's folder that a configuration of Emergence names; nothing if it cannot be read."""
    try:
        if not settings.is_file() or settings.stat().st_size > _MOST_SETTINGS_BYTES:
            return
        found = json.loads(_without_comments(settings.read_text("utf-8")))
        paths = found.get("paths") or {}
        workspace = settings.parent / paths.get("workspace", ".")
        folder = workspace / paths.get("state", _STATE_OF_A_WORKSPACE)
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return
    yield folder


def _without_comments(text: str) -> str:
    """Return JSON without the comments that Emergence allows: lines of // or #, and // after a value."""
    kept = []
    for line in text.splitlines():
        if line.lstrip().startswith(("//", "#")):
            continue
        head, found, tail = line.rpartition("//")
        kept.append(head if found and '"' not in tail else line)
    return "\n".join(kept)
