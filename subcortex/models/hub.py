"""Models of the Hugging Face hub: its local cache, and a few small files over the network. Effects.

Over the network only config.json, what ModelOpt wrote beside it, and the weights' index are fetched: over
HTTPS (plain HTTP to this machine alone), within a time and a size, without redirects to other hosts.
``HF_TOKEN`` goes to the hub and nowhere else, and is in no error and no log. ``HF_ENDPOINT`` is another hub's
address; ``HF_HUB_OFFLINE`` and ``TRANSFORMERS_OFFLINE`` keep everything at home. What was fetched is kept in
the user's cache folder.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import IO
from urllib.parse import SplitResult, urlsplit

import platformdirs

from subcortex.errors import ConfigError
from subcortex.models._http import LOOPBACK, Deadline, opener

ENDPOINT = "https://huggingface.co"
MOST_CONFIG_BYTES = 2**20
#: The index of DeepSeek-V3 has 9 MB; only its first figure is wanted, but it stands where it likes.
MOST_INDEX_BYTES = 32 * 2**20
_CHUNK_BYTES = 64 * 1024
_QUANTISATION = "hf_quant_config.json"
#: Each keeps the hub's own library from the network, with one of these values.
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_YES = ("1", "ON", "YES", "TRUE")
_TOTAL_SIZE = re.compile(rb'"total_size"\s*:\s*(\d{1,18})\b')
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_FRESH_S = 24 * 3600.0
_MISSING = 404


@dataclass(frozen=True, slots=True)
class Hub:
    """A hub of models.

    Args:
        endpoint: Scheme and host; by default what ``HF_ENDPOINT`` says, else huggingface.co.
        timeout_s: Time for one file in all, from the connection to its last byte.
    """

    endpoint: str = field(default_factory=lambda: os.environ.get("HF_ENDPOINT", "").strip() or ENDPOINT)
    timeout_s: float = 20.0

    def config(self, name: str) -> bytes:
        """Return the text of a model's config.json.

        Args:
            name: ``owner/name``.

        Raises:
            ConfigError: There is none, it may not be read, the hub does not answer, its address is none, or a
                variable forbids the network.
        """
        return self._get(name, "config.json", MOST_CONFIG_BYTES)

    def quantisation(self, name: str, deadline: Deadline | None = None) -> bytes | None:
        """Return the text of the hf_quant_config.json beside a model's config.json; None without one.

        Args:
            name: ``owner/name``.
            deadline: Of it; by default it has the time of one file.

        Raises:
            ConfigError: As `config` does.
        """
        try:
            return self._get(name, _QUANTISATION, MOST_CONFIG_BYTES, deadline)
        except ConfigError as error:
            if error.details.get("status") == _MISSING:
                return None
            raise

    def stored_bytes(self, name: str) -> int | None:
        """Return the bytes of a model's weights as its index says; None without an index."""
        try:
            text = self._get(name, "model.safetensors.index.json", MOST_INDEX_BYTES)
        except ConfigError:
            return None
        found = _TOTAL_SIZE.search(text)
        return int(found[1]) if found else None

    def _get(self, name: str, file: str, most_bytes: int, deadline: Deadline | None = None) -> bytes:
        _not_forbidden(name)
        place = _checked(self.endpoint)
        url = f"{place.geturl().rstrip('/')}/{name}/resolve/main/{file}"
        request = urllib.request.Request(url, headers={"User-Agent": "subcortex", **_authorization()})  # noqa: S310
        deadline = deadline or Deadline.after(self.timeout_s)
        try:
            with opener(place, deadline).open(request, timeout=self.timeout_s) as answer:
                return b"".join(_chunks(answer, most_bytes, f"{name}/{file}"))
        except urllib.error.HTTPError as error:
            error.close()
            raise _refused(name, file, error.code) from None
        except (OSError, HTTPException, ValueError) as error:
            reason = _without_token(str(getattr(error, "reason", None) or error))[:200]
            raise ConfigError(
                f"{file} of {name} could not be fetched from {place.hostname}: {reason}",
                hint="Check the network, or download the model and give its folder.",
                file=name,
            ) from None


def offline_by() -> str | None:
    """Return the environment variable that forbids the network, None if none does."""
    return next((name for name in _OFFLINE if os.environ.get(name, "").strip().upper() in _YES), None)


def _not_forbidden(name: str) -> None:
    variable = offline_by()
    if variable:
        raise ConfigError(
            f"{name} is not asked for over the network: {variable} is set",
            hint=f"Unset {variable}, or download the model and give its folder.",
            file=name,
            variable=variable,
        )


def _checked(endpoint: str) -> SplitResult:
    """Return a hub's address taken apart; what is wrong with it may hold a password, and is not shown."""
    try:
        place = urlsplit(endpoint)
        host, secure = place.hostname, place.scheme == "https"
        sound = bool(host) and (place.port is None or place.port > 0)
    except ValueError:
        raise _no_endpoint("is no address") from None
    if not sound or not (secure or (place.scheme == "http" and host in LOOPBACK)):
        raise _no_endpoint("is not reached over HTTPS")
    if "@" in place.netloc or place.query or place.fragment or not re.fullmatch(r"[!-~]+", endpoint):
        raise _no_endpoint("has more in it than a host and a path")
    return place


def _no_endpoint(why: str) -> ConfigError:
    return ConfigError(
        f"the hub's address {why}",
        hint="Set HF_ENDPOINT to https://HOST (http:// for this machine alone), or unset it.",
        variable="HF_ENDPOINT",
    )


def _without_token(text: str) -> str:
    """Return a text without the token, which a server could have sent back."""
    token = os.environ.get("HF_TOKEN", "").strip()
    return re.sub(re.escape(token), "…", text, flags=re.IGNORECASE) if token else text


def _authorization() -> dict[str, str]:
    token = os.environ.get("HF_TOKEN", "").strip()
    if not token:
        return {}
    if not re.fullmatch(r"[\x21-\x7e]{1,500}", token):
        raise ConfigError("HF_TOKEN is no token: it has blanks or odd characters", hint="Set it again.")
    return {"Authorization": f"Bearer {token}"}


def _chunks(answer: IO[bytes], most_bytes: int, file: str) -> Iterator[bytes]:
    """Yield an answer piece by piece, up to a size."""
    total = 0
    while chunk := answer.read(_CHUNK_BYTES):
        total += len(chunk)
        if total > most_bytes:
            raise ValueError(f"{file} is larger than {most_bytes // 2**20} MiB")
        yield chunk
    if getattr(answer, "length", None):
        raise ValueError("the answer was cut short")


def _refused(name: str, file: str, status: int) -> ConfigError:
    if status in (401, 403):
        return ConfigError(
            f"the hub does not let {file} of {name} be read (HTTP {status})",
            hint="Accept the model's licence on its page, and set HF_TOKEN; or check the name.",
            file=name,
            status=status,
        )
    if status == _MISSING:
        words, hint = f"the hub has no {file} of {name} (HTTP 404)", "Check the model's name."
    else:
        words, hint = f"the hub answered HTTP {status} for {file} of {name}", "Try again later."
    return ConfigError(words, hint=hint, file=name, status=status)


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
        quantisation: Text of the hf_quant_config.json beside it; None without one, or where none is wanted.
    """

    config: bytes
    stored_bytes: int | None
    quantisation: bytes | None = None


def remembered(name: str, *, fresh_s: float | None = None) -> Fetched | None:
    """Return what was fetched before; None if nothing was, or only longer than ``fresh_s`` ago."""
    folder = _memory(name)
    with contextlib.suppress(OSError):
        if fresh_s is not None and time.time() - (folder / "config.json").stat().st_mtime > fresh_s:
            return None
        config = _own(folder / "config.json")
        if config is None:
            return None
        total = None
        with contextlib.suppress(OSError, ValueError):
            total = int((folder / "stored_bytes").read_text("ascii")[:20])
        return Fetched(config, total, _own(folder / _QUANTISATION))
    return None


def _own(path: Path) -> bytes | None:
    """Return what we have kept in a file; None if there is none, or somebody else may have written it."""
    with contextlib.suppress(OSError):
        found = path.stat()
        if found.st_uid == os.getuid() and not found.st_mode & 0o022 and found.st_size <= MOST_CONFIG_BYTES:
            return path.read_bytes()
    return None


def fetch(name: str, hub: Hub | None = None, *, lacks: Callable[[bytes], bool] | None = None) -> Fetched:
    """Return what the hub says of a model: remembered for a day, and longer while it does not answer.

    Args:
        name: ``owner/name``.
        hub: Another one than the environment's.
        lacks: Tells of a config.json whether it leaves its quantisation to a file beside it, which then is
            fetched too, in what is left of the time for one file.

    Raises:
        ConfigError: It was never fetched, and cannot be now.
    """
    known = remembered(name, fresh_s=_FRESH_S)
    if known is not None:
        return known
    hub = hub or Hub()
    try:
        deadline = Deadline.after(hub.timeout_s)
        config = hub.config(name)
        quantisation = hub.quantisation(name, deadline) if lacks and lacks(config) else None
        fetched = Fetched(config, hub.stored_bytes(name), quantisation)
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
        if fetched.quantisation is None:
            (folder / _QUANTISATION).unlink(missing_ok=True)
        else:
            _write(folder / _QUANTISATION, fetched.quantisation)
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
