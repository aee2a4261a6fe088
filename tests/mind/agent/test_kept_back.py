"""What the journal keeps of thoughts' texts, sessions keep, and no more."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta

from subcortex.config import Config
from subcortex.errors import EngineFailed
from subcortex.journal.diary import board_queries
from subcortex.mind.agent.notebook import Notebook
from subcortex.types import Depth
from tests.mind.agent.helpers import Thinker, grown, imported, only, tick, whole

SECRET = "sk-0123456789abcdef"


def with_policy(config: Config, policy: str) -> Config:
    journal = config.journal.model_copy(update={"record": policy, "redact": ["Hesperus"]})
    return config.model_copy(update={"journal": journal})


def everything(config: Config) -> str:
    """Return all text that the journal and the folder of sessions hold."""
    with closing(sqlite3.connect(config.database_path)) as conn:
        rows = "\n".join(conn.iterdump())
    files = [file.read_text() for file in config.journal.sessions_dir.rglob("*.md")]
    return "\n".join([rows, *files])


def test_what_the_journal_holds_back_of_thoughts_a_session_does_not_tell(config, diary, clock):
    imported(diary)
    only(config, "learning")
    secretive = with_policy(config, "none")
    grown(secretive, diary, clock, 12)
    think = Thinker("The morning star is Venus.", "Open question: Is the evening star Venus too?")
    outcome = tick(secretive, diary, think)
    assert (outcome.did, outcome.depth) == ("held", Depth.MODERATE)
    # The second thought looks back on the first while both are in memory.
    assert "morning star" in think.requests[1].messages[0]["content"]
    text = whole(diary, outcome).text
    assert "[26 characters held back]" in text
    assert "Venus" not in everything(secretive)
    assert board_queries.gaps(diary, session_id=outcome.session_id) == []
    clock.at += timedelta(hours=24)
    failed = tick(secretive, diary, Thinker(EngineFailed("it stopped at: Venus")))
    assert failed.depth is Depth.NONE
    assert "engine_failed" in whole(diary, failed).text
    assert "Venus" not in whole(diary, failed).text


def test_what_is_redacted_is_masked_in_sessions_too(config, diary, clock):
    only(config, "care")
    masked = with_policy(config, "redacted")
    grown(masked, diary, clock, 12)
    outcome = tick(masked, diary, Thinker(f"Hesperus has the key {SECRET}."))
    assert "[redacted] has the key [redacted]." in whole(diary, outcome).text
    book = Notebook.begin(diary, masked, str, drives=[], origin="agent", topic=f"T {SECRET}")
    book.note(f"N {SECRET}")
    book.field("F", f"{SECRET}")
    book.experiment(f"E {SECRET}")
    book.trouble(ValueError(f"bad {SECRET}"))
    book.end(Depth.SHALLOW, f"R {SECRET}")
    assert "bad [redacted]" in everything(masked)
    assert SECRET not in everything(masked)
