"""Catching an answer in the middle: its engine stands still, and only some of it is said and saved."""

from __future__ import annotations

import psutil
import pytest

from subcortex import Client, Reader, stream
from subcortex.types import ThoughtStatus, TierState
from tests.conftest import until, wait_for

#: The deep model thinks aloud about it for some two hundred tokens.
LONG = "What is 4812 * 377?"


def halfway(client: Client):
    """Return a stream whose engine stands still in the middle of an answer, and the row so far."""
    until(client, lambda status: all(tier.state is TierState.READY for tier in status.tiers))
    engine = psutil.Process(client.status().tiers[1].pid)
    reader = Reader.open(client.config.database_path)
    for _ in range(20):
        pieces = stream(LONG, tier="deep", temperature=0.0, client=client)
        next(pieces)
        engine.suspend()
        wait_for(lambda: over(reader.thoughts()[0]) or bool(said(reader.thoughts()[0])))
        row = reader.thoughts()[0]
        if not over(row):
            return pieces, row
        engine.resume()  # the answer was quicker than we were
    pytest.fail("never caught an answer in the middle")


def over(row) -> bool:
    return row.status is not ThoughtStatus.RUNNING


def said(row) -> str:
    return (row.reasoning or "") + (row.text or "")
