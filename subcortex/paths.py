"""Where things lie on this machine, by the XDG rules; the config may move each of them."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import platformdirs

from subcortex.errors import ConfigError

_APP = "subcortex"


def config_home() -> Path:
    """Return the folder of the user's own ``config.toml``."""
    return platformdirs.user_config_path(_APP)


def state_home() -> Path:
    """Return the folder of the database and the logs."""
    return platformdirs.user_state_path(_APP)


def runtime_home() -> Path:
    """Return the folder of the socket and the lock: ``$XDG_RUNTIME_DIR`` or a private one in /tmp."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_dir():
        return Path(runtime) / _APP
    return Path(tempfile.gettempdir()) / f"{_APP}-{os.getuid()}"


def private_folder(path: Path) -> Path:
    """Create ``path`` with mode 0700, or check that nobody else owns it or can write to it.

    Raises:
        ConfigError: The folder belongs to someone else or is open to others.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise ConfigError(
            f"the folder {path} cannot be made: {error.strerror}",
            hint="Set daemon.runtime_dir and journal.database to folders that you may write to.",
            file=str(path),
        ) from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ConfigError(
            f"{path} is not a folder of user {os.getuid()} (owner {found.st_uid})",
            hint="Remove it, or set daemon.runtime_dir to a folder of your own.",
            key="daemon.runtime_dir",
        )
    if found.st_mode & 0o077:
        path.chmod(0o700)
    return path
