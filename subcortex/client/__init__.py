"""Thin clients of the daemon: find it or start it, send a thought, receive the answer."""

from __future__ import annotations

from subcortex.client.calls import astream, athink, openai_client, stream, think
from subcortex.client.client import Client

__all__ = ["Client", "astream", "athink", "openai_client", "stream", "think"]
