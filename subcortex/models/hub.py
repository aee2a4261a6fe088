"""Models of the Hugging Face hub: its local cache, and two small files over the network. Effects.

Over the network only config.json and the weights' index are fetched: over HTTPS (plain HTTP to this machine
alone), within a time and a size, without redirects to other hosts. ``HF_TOKEN`` goes to the hub and nowhere
else, and is in no error and no log. What was fetched is kept in the user's cache folder.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import platformdirs

from subcortex.errors import ConfigError

ENDPOINT = "https://huggingface.co"
MOST_CONFIG_BYTES = 2**20
#: The index of DeepSeek-V3 has 9 MB; only its first figure is wanted, but it stands where it likes.
MOST_INDEX_BYTES = 32 * 2**20
_CHUNK_BYTES = 64 * 1024
_LOCAL = ("localhost", "127.0.0.1", "::1")
_TOTAL_SIZE = re.compile(rb'"total_size"\s*:\s*(\d{1,18})\b')
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_FRESH_S = 24 * 3600.0


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows redirects within one host and scheme."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if (old.scheme, old.netloc) != (new.scheme, new.netloc):
            raise urllib.error.URLError(f"a redirect to another host, {new.hostname}, is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@dataclass(frozen=True, slots=True)
class Hub:
    """A hub of models.

    Args:
        endpoint: Scheme and host.
        timeout_s: Time for one file in all.
    """

    endpoint: str = field(default_factory=lambda: ENDPOINT)
    timeout_s: float = 20.0

    def config(self, name: str) -> bytes:
        """Return the text of a model's config.json.

        Args:
            name: ``owner/name``.

        Raises:
            ConfigError: There is none, it may not be read, or the hub does not answer.
        """
        return self._get(name, "config.json", MOST_CONFIG_BYTES)

    def stored_bytes(self, name: str) -> int | None:
        """Return the bytes of a model's weights as its index says; None without an index."""
        try:
            text = self._get(name, "model.safetensors.index.json", MOST_INDEX_BYTES)
        except ConfigError:
            return None
        found = _TOTAL_SIZE.search(text)
        return int(found[1]) if found else None

    def _get(self, name: str, file: str, most_bytes: int) -> bytes:
        url = f"{self.endpoint}/{name}/resolve/main/{file}"
        parts = urlsplit(url)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOCAL):
            raise ConfigError(f"{self.endpoint} is not reached over HTTPS", hint="Use https://.", file=name)
        request = urllib.request.Request(url, headers={"User-Agent": "subcortex", **_authorization()})  # noqa: S310
        opener = urllib.request.build_opener(_SameHost)
        deadline = time.monotonic() + self.timeout_s
        try:
            with opener.open(request, timeout=self.timeout_s) as answer:
                return b"".join(_chunks(answer, deadline, most_bytes, f"{name}/{file}"))
        except urllib.error.HTTPError as error:
            error.close()
            raise _refused(name, file, error.code) from None
        except (OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise ConfigError(
                f"{file} of {name} could not be fetched from {parts.hostname}: {str(reason)[:200]}",
                hint="Check the network, or download the model and give its folder.",
                file=name,
            ) from None


def _authorization() -> dict[str, str]:
    token = os.environ.get("HF_TOKEN", "").strip()
    if not token:
        return {}
    if not re.fullmatch(r"[\x21-\x7e]{1,500}", token):
        raise ConfigError("HF_TOKEN is no token: it has blanks or odd characters", hint="Set it again.")
    return {"Authorization": f"Bearer {token}"}


def _chunks(answer: IO[bytes], deadline: float, most_bytes: int, file: str) -> Iterator[bytes]:
    """Yield an answer piece by piece, up to a time and a size."""
    total = 0
    # One read returns what is there (``read1``), so a slow sender cannot outlast the deadline by much.
    read = getattr(answer, "read1", answer.read)
    while chunk := read(_CHUNK_BYTES):
        total += len(chunk)
        if total > most_bytes:
            raise ValueError(f"{file} is larger than {most_bytes // 2**20} MiB")
        if time.monotonic() > deadline:
            raise TimeoutError("it took too long")
        yield chunk
    if getattr(answer, "length", None):
        raise ValueError("the answer was cut short")


def _refused(name: str, file: str, status: int) -> ConfigError:
    if status in (401, 403):
        return ConfigError(
            f"the hub does not let {file} of {name} be read (HTTP {status})",
            hint="Accept the model's licence on its page, and set HF_TOKEN; or check the name.",
            file=name,
        )
    if status == 404:
        return ConfigError(
            f"the hub has no {file} of {name} (HTTP 404)", hint="Check the model's name.", file=name
        )
    return ConfigError(
        f"the hub answered HTTP {status} for {file} of {name}", hint="Try again later.", file=name
    )


def cached_folder(name: str) -> Path | None:
    """Return the snapshot of a model in the local hub cache; None if it is not there.

    The one that ``refs/main`` names, else the newest with a config.json.
    """
    for home in _caches():
        folder = home / f"models--{name.replace('/', '--')}"
        with contextlib.suppress(OSError, ValueError):
            commit = (folder / "refs" / "main").read_text("utf-8")[:64].strip()
            if _COMMIT.fullmatch(commit) and (folder / "snapshots" / commit / "config.json").is_file():
                return folder / "snapshots" / commit
        with contextlib.suppress(OSError):
            found = [(one.stat().st_mtime, one.parent) for one in folder.glob("snapshots/*/config.json")]
            if found:
                return max(found)[1]
    return None


def _caches() -> Iterator[Path]:
    """Yield where the hub's own library keeps models, by its environment variables."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            yield Path(os.environ[variable]).expanduser()
    if os.environ.get("HF_HOME"):
        yield Path(os.environ["HF_HOME"]).expanduser() / "hub"
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    yield Path(home).expanduser() / "huggingface" / "hub"


@dataclass(frozen=True, slots=True)
class Fetched:
    """What the hub says of a model.

    Args:
        config: Text of its config.json.
        stored_bytes: Bytes of its weights; None if the hub does not say.
    """

    config: bytes
    stored_bytes: int | None


def remembered(name: str, *, fresh_s: float | None = None) -> Fetched | None:
    """Return what was fetched before; None if nothing was, or only longer than ``fresh_s`` ago."""
    folder = _memory(name)
    with contextlib.suppress(OSError):
        found = (folder / "config.json").stat()
        if fresh_s is not None and time.time() - found.st_mtime > fresh_s:
            return None
        if found.st_uid != os.getuid() or found.st_mode & 0o022 or found.st_size > MOST_CONFIG_BYTES:
            return None
        config = (folder / "config.json").read_bytes()
        total = None
        with contextlib.suppress(OSError, ValueError):
            total = int((folder / "stored_bytes").read_text("ascii")[:20])
        return Fetched(config, total)
    return None


def fetch(name: str, hub: Hub | None = None) -> Fetched:
    """Return what the hub says of a model: remembered for a day, and longer while it does not answer.

    Raises:
        ConfigError: It was never fetched, and cannot be now.
    """
    known = remembered(name, fresh_s=_FRESH_S)
    if known is not None:
        return known
    hub = hub or Hub()
    try:
        fetched = Fetched(hub.config(name), hub.stored_bytes(name))
    except ConfigError:
        known = remembered(name)
        if known is not None:
            return known
        raise
    return fetched


def remember(name: str, fetched: Fetched) -> None:
    """Keep what was fetched; a folder that cannot be written to is no error."""
    with contextlib.suppress(OSError):
        folder = _memory(name)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if fetched.stored_bytes is not None:
            _write(folder / "stored_bytes", str(fetched.stored_bytes).encode())
        _write(folder / "config.json", fetched.config)


def _memory(name: str) -> Path:
    return platformdirs.user_cache_path("subcortex") / "hub" / name.replace("/", "--")


def _write(path: Path, text: bytes) -> None:
    descriptor, made = tempfile.mkstemp(dir=path.parent, suffix=".new")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
        Path(made).replace(path)
    except BaseException:
        Path(made).unlink(missing_ok=True)
        raise
