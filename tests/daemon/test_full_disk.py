"""A full disk under a real daemon: thoughts go on, ps says so, and rows come back once there is room."""

from __future__ import annotations

import os
import signal
import sqlite3
from pathlib import Path

import pytest

from subcortex import Client, Reader, think
from subcortex.types import ThoughtStatus, TierState
from tests.cli.helpers import run
from tests.conftest import until
from tests.daemon.full_disk import KINDS, Small, daemon_on

LAZY = {"deep": 'start = "lazy"'}


def ask(client: Client, n: int):
    # The deadline is for a journal that has died: nothing else here ends a thought that waits for it.
    thought = think(f"What is {n} + 5?", tier="fast", temperature=0.0, deadline=60, client=client)
    assert thought.text
    return thought


def ready(client: Client):
    return until(client, lambda status: status.tiers[0].state is TierState.READY)


def sound(database: Path) -> None:
    check = sqlite3.connect(database)
    assert check.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert check.execute("PRAGMA foreign_key_check").fetchall() == []
    check.close()


@pytest.mark.parametrize("kind", KINDS)
def test_thoughts_and_engines_go_on_and_every_row_comes_back(folder, kind):
    with daemon_on(kind, folder, **LAZY) as disk:
        client = disk.client
        victim = ready(client).tiers[0].pid
        thoughts = [ask(client, 1)]
        disk.fill()
        thoughts += [ask(client, n) for n in range(2, 12)]
        os.kill(victim, signal.SIGKILL)
        until(client, lambda s: s.tiers[0].state is TierState.READY and s.tiers[0].pid != victim)
        thoughts.append(ask(client, 12))
        assert run("logs", "fast", "--config", client.config.source).returncode in (0, 4)
        daemon = client.status().daemon
        ps = run("ps", "--config", client.config.source)
        assert daemon.journal.startswith("degraded: the disk ")
        held = int(daemon.journal.partition("; ")[2].split()[0])
        assert held >= 2 * 11, "a start and an end of each thought since"
        assert f"JOURNAL {daemon.journal}\n" in ps.stdout
        disk.free()
        until(client, lambda status: status.daemon.journal == "ok")
        assert "JOURNAL" not in run("ps", "--config", client.config.source).stdout
        after = ask(client, 13)
        database = disk.journal()
        with Reader.open(database) as reader:
            kept = {record.id: record for record in reader.thoughts(limit=100)}
            died = [event for event in reader.events(tier="fast") if event.kind == "backing_off"]
        assert len(died) == 1
        assert set(kept) == {thought.id for thought in (*thoughts, after)}
        for thought in (*thoughts, after):
            record = kept[thought.id]
            assert (record.status, record.text) == (ThoughtStatus.COMPLETED, thought.text)
        sound(database)


@pytest.mark.parametrize("kind", KINDS)
def test_beyond_the_bound_thoughts_go_on_and_what_is_lost_is_counted(folder, kind):
    with daemon_on(kind, folder, **LAZY) as disk:
        client = disk.client
        ready(client)
        before = ask(client, 1)
        disk.fill()
        # An engine never sees the session's name, but the row has it: 17 of these are more than 64 MiB.
        heavy = [
            think("hi", tier="fast", session=f"{n} {'x' * 4_000_000}", max_tokens=1, client=client)
            for n in range(17)
        ]
        lost = [ask(client, n) for n in range(2, 6)]
        journal = client.status().daemon.journal
        assert journal.startswith("degraded: the disk ")
        assert journal.endswith("; 4 rows are lost"), journal
        disk.free()
        if isinstance(disk, Small):
            # What waits is more than that disk can hold: it goes on so.
            ask(client, 6)
            assert client.status().daemon.journal.startswith("degraded: the disk is full ")
            return
        until(client, lambda status: status.daemon.journal == "ok; 4 rows are lost")
        after = ask(client, 7)
        database = disk.journal()
        with Reader.open(database) as reader:
            kept = {record.id for record in reader.thoughts(limit=100)}
            (noted,) = [event for event in reader.events() if event.kind == "rows_lost"]
        assert kept == {before.id, after.id, *(thought.id for thought in heavy)}
        assert not kept & {thought.id for thought in lost}
        assert noted.detail["rows"] == 4
        assert "the disk" in noted.detail["reason"]
        sound(database)


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_runtime_folder_keeps_new_engines_out_and_harms_no_other(folder, kind):
    """A process that is not on record could not be found after a crash, so it is not started."""
    with daemon_on(kind, folder, runtime="disk/run") as disk:
        client = disk.client
        status = until(client, lambda found: all(tier.state is TierState.READY for tier in found.tiers))
        deep = status.tiers[1].pid
        disk.fill()
        os.kill(status.tiers[0].pid or 0, signal.SIGKILL)
        status = until(client, lambda found: "cannot record" in (found.tiers[0].error or ""))
        assert status.tiers[0].state in (TierState.BACKING_OFF, TierState.FAILED)
        assert (status.tiers[1].state, status.tiers[1].pid) == (TierState.READY, deep)
        assert think("What is 7 + 5?", tier="deep", deadline=60, client=client).text
        disk.free()
        until(client, lambda found: found.tiers[0].state is TierState.READY)
        ask(client, 1)
        until(client, lambda found: found.daemon.journal == "ok")


@pytest.mark.parametrize("kind", KINDS)
def test_a_daemon_that_is_killed_on_a_full_disk_leaves_a_sound_journal(folder, kind):
    with daemon_on(kind, folder, **LAZY) as disk:
        client = disk.client
        ready(client)
        before = ask(client, 1)
        disk.fill()
        ask(client, 2)
        assert client.status().daemon.journal.startswith("degraded")
        os.kill(client.status().daemon.pid, signal.SIGKILL)
        database = disk.journal()
        sound(database)
        check = sqlite3.connect(database)
        assert check.execute("SELECT id, status FROM thoughts").fetchall() == [(before.id, "completed")]
        check.close()
