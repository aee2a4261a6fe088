"""Thin clients of the daemon: find it or start it, send a thought, receive the answer."""

from __future__ import annotations

from subcortex.client.calls import astream, athink, openai_client, stream, think
from subcortex.client.client import Client
from subcortex.client.sessions import Session, session

__all__ = ["Client", "Session", "astream", "athink", "openai_client", "session", "stream", "think"]
