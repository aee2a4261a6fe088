"""A daemon whose disk can be filled and freed: a small file system of its own, or a limit on file sizes."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from subcortex.client import Client
from subcortex.config import load
from tests.conftest import stop, wait_for, write_config

_SIZE_MIB = 4
#: In a namespace of its own anybody may mount a file system; only what lives in there sees it.
_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount", "--")


def can_mount() -> bool:
    """Return whether this user may mount a file system in a namespace of his own."""
    tried = [*_NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return bool(shutil.which("unshare")) and not subprocess.run(tried, capture_output=True).returncode


#: What can be had here; the limit always can.
KINDS = ["limit", *(["disk"] if can_mount() else [])]


class Limited:
    """No file of the daemon grows beyond 4 KiB; if the runtime folder is to be full too, none at all."""

    def __init__(self, folder: Path, *, runtime: str = "run", **sections: str) -> None:
        self.client = Client(load(write_config(folder, **sections), {}))
        self.client.start_daemon()
        self._daemon = psutil.Process(self.client.status().daemon.pid)
        self._full_bytes = 4096 if runtime == "run" else 0
        self._free = self._daemon.rlimit(resource.RLIMIT_FSIZE)

    def fill(self) -> None:
        _pad(self.client.config.log_dir / "daemon.log")
        self._daemon.rlimit(resource.RLIMIT_FSIZE, (self._full_bytes, self._free[1]))

    def free(self) -> None:
        self._daemon.rlimit(resource.RLIMIT_FSIZE, self._free)

    def journal(self) -> Path:
        """Stop the daemon; return its database."""
        stop(self.client)
        return self.client.config.database_path

    def close(self) -> None:
        stop(self.client)


class Small:
    """Database and logs, on demand the runtime folder too, lie on a file system that really fills up."""

    def __init__(self, folder: Path, *, runtime: str = "run", **sections: str) -> None:
        inside = folder / "disk"
        inside.mkdir()
        file = write_config(folder, **sections)
        text = file.read_text().replace('database = "journal.db"', 'database = "disk/journal.db"')
        file.write_text(text.replace('runtime_dir = "run"', f'runtime_dir = "{runtime}"'))
        mount = (
            f'mount -t tmpfs -o mode=700,size={_SIZE_MIB}m tmpfs "$1" && echo mounted && exec sleep infinity'
        )
        self._holder = subprocess.Popen(
            [*_NAMESPACE, "sh", "-c", mount, "sh", str(inside)], stdout=subprocess.PIPE, text=True
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "mounted\n"
        self._disk = Path(f"/proc/{self._holder.pid}/root{inside}")
        (self._disk / "logs").mkdir(mode=0o700)
        log = (self._disk / "logs" / "daemon.log").open("ab")
        enter = [
            "nsenter",
            f"--target={self._holder.pid}",
            "--user",
            "--mount",
            "--preserve-credentials",
            "--",
        ]
        daemon = [sys.executable, "-m", "subcortex.daemon", "--config", str(file)]
        with log:
            self._daemon = subprocess.Popen([*enter, *daemon], stdout=log, stderr=log, start_new_session=True)
        ours = {"SUBCORTEX_DAEMON__RUNTIME_DIR": f"/proc/{self._holder.pid}/root{folder}/{runtime}"}
        self.client = Client(load(file, ours))
        try:
            wait_for(self.client._transport.reachable)
        except BaseException:
            self._daemon.kill()
            self._holder.kill()
            raise

    def fill(self) -> None:
        _pad(self._disk / "logs" / "daemon.log")
        size = 65536
        with (self._disk / "ballast").open("ab", buffering=0) as ballast:
            while size:
                try:
                    ballast.write(b"\0" * size)
                except OSError:
                    size //= 2
        assert shutil.disk_usage(self._disk).free == 0

    def free(self) -> None:
        (self._disk / "ballast").unlink()

    def journal(self) -> Path:
        """Stop the daemon; return a copy of its database: SQLite finds no way into a namespace."""
        stop(self.client)
        self._daemon.wait()
        copy = Path(tempfile.mkdtemp(dir=self.client.config.base_dir))
        for file in self._disk.glob("journal.db*"):
            shutil.copy(file, copy)
        return copy / "journal.db"

    def close(self) -> None:
        stop(self.client)
        self._daemon.wait()
        self._holder.kill()
        self._holder.communicate()


def _pad(log: Path) -> None:
    # What is left of a file's last page takes some lines even on a full disk, which is not what is tried.
    with log.open("ab") as file:
        file.write(b"\n" * (-file.tell() % 4096))


@contextmanager
def daemon_on(kind: str, folder: Path, **sections: str) -> Iterator[Limited | Small]:
    """Run a daemon on a disk of one of ``KINDS``."""
    made = Limited(folder, **sections) if kind == "limit" else Small(folder, **sections)
    try:
        yield made
    finally:
        made.close()
