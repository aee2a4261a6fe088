"""The configuration and the journal of the agent's tests."""

from __future__ import annotations

from tests.mind.agent.conftest import clock, config, diary

__all__ = ["clock", "config", "diary"]
