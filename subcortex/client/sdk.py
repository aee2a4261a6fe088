"""The OpenAI SDK over the daemon's socket; imported only by ``openai_client``."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openai import OpenAI

    from subcortex.client.client import Client


def openai_client(client: Client) -> OpenAI:
    """Return an ``openai.OpenAI`` whose requests go through ``client``'s Unix socket."""
    from openai import OpenAI

    client._ensure_daemon()
    httpx: Any = _http_library()
    transport = httpx.HTTPTransport(uds=str(client.config.socket_path))
    return OpenAI(
        base_url="http://localhost/v1",
        api_key="unused: the socket's permissions guard it",
        http_client=httpx.Client(transport=transport, timeout=None),
        max_retries=0,
    )


def _http_library() -> Any:
    # The SDK moved from httpx to httpx2 in its third major version; either comes with it, never both.
    return import_module("httpx2" if find_spec("httpx2") else "httpx")
