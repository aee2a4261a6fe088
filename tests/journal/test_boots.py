"""Starts of engines: predicted before, measured after, kept whatever came."""

from __future__ import annotations

import dataclasses
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from subcortex.errors import JournalError
from subcortex.journal import BootEnd, BootRecord, BootStart, Failure, Journal, Reader
from subcortex.types import BootFigures, DeviceFigures, new_thought_id
from tests.journal.samples import AT, think, until

FIGURES = BootFigures(
    engine="vllm",
    version="0.26.0",
    devices=[DeviceFigures(device="GPU 0", components={"weights": 15360.0}, kv_pool_mib=19066.88)],
    kv_tokens=152512,
    kv_pinned=False,
    resolution_mib=10.24,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def start(**changes: Any) -> BootStart:
    base = BootStart(
        id=new_thought_id(),
        at=AT,
        tier="deep",
        engine="vllm",
        model="models/8b",
        architecture="LlamaForCausalLM",
        gpus=[("NVIDIA H200", "GPU-1"), ("NVIDIA H200", None)],
        tensor_parallel_size=2,
        setup={"context_tokens": 8192},
        predicted={"devices": [{"weights": [15360.0, 0.0]}]},
    )
    return dataclasses.replace(base, **changes)


def boots(path: Path, **filters: Any) -> list[BootRecord]:
    with Reader.open(path) as reader:
        return reader.boots(**filters)


async def test_a_prediction_is_on_disk_before_the_boot_and_whole_after_it(path: Path) -> None:
    begun = start()
    async with Journal.open(path) as journal:
        digest = journal.save_hardware({"gpus": 2})
        begun = dataclasses.replace(begun, hardware=digest)
        assert await journal.boot_began(begun) == begun.id
        (before,) = boots(path)
        assert (before.outcome, before.measured, before.ended_at) == (None, None, None)
        residuals = [{"component": "weights", "residual_mib": 3.5}]
        journal.boot_ended(BootEnd(begun.id, "ready", "vllm 0.26.0", FIGURES, residuals))
        run_id = journal.run_id
    (after,) = boots(path)
    assert after.model_dump(exclude={"measured", "ended_at"}) == {
        "id": begun.id,
        "at": AT,
        "run_id": run_id,
        "tier": "deep",
        "engine": "vllm",
        "engine_version": "vllm 0.26.0",
        "model": "models/8b",
        "architecture": "LlamaForCausalLM",
        "gpus": [("NVIDIA H200", "GPU-1"), ("NVIDIA H200", None)],
        "tensor_parallel_size": 2,
        "pipeline_parallel_size": 1,
        "setup": {"context_tokens": 8192},
        "predicted": {"devices": [{"weights": [15360.0, 0.0]}]},
        "hardware": digest,
        "outcome": "ready",
        "residuals": residuals,
        "error": None,
    }
    assert after.measured == FIGURES
    assert after.ended_at is not None
    assert after.ended_at > AT
    assert type(after).model_validate_json(after.model_dump_json()) == after


async def test_a_failed_boot_keeps_its_error_and_what_was_read_till_then(path: Path) -> None:
    begun = start(predicted=None, gpus=())
    async with Journal.open(path) as journal:
        await journal.boot_began(begun)
        failure = Failure("does_not_fit", "70b does not fit: 3.10 GiB short \udcff")
        journal.boot_ended(BootEnd(begun.id, "failed", measured=FIGURES, error=failure))
        # What comes later cannot make it another boot.
        journal.boot_ended(BootEnd(begun.id, "ready"))
    (kept,) = boots(path)
    assert (kept.outcome, kept.predicted, kept.measured) == ("failed", None, FIGURES)
    assert kept.error == Failure("does_not_fit", "70b does not fit: 3.10 GiB short \ufffd")


async def test_they_come_newest_first_by_tier_and_engine(path: Path) -> None:
    async with Journal.open(path) as journal:
        first, second, third = start(tier="fast", engine="llama.cpp"), start(), start(tier="odd'; --")
        for boot in (first, second, third):
            await journal.boot_began(boot)
    assert [boot.id for boot in boots(path)] == [third.id, second.id, first.id]
    assert [boot.id for boot in boots(path, limit=1)] == [third.id]
    assert [boot.id for boot in boots(path, engine="vllm", tier="deep")] == [second.id]
    assert [boot.id for boot in boots(path, tier="odd'; --")] == [third.id]


async def test_an_end_whose_start_is_gone_brings_it_back(path: Path) -> None:
    begun = start()
    async with Journal.open(path) as journal:
        await journal.boot_began(begun)
        conn = sqlite3.connect(path)
        conn.execute("DELETE FROM boots")
        conn.commit()
        conn.close()
        journal.boot_ended(BootEnd(begun.id, "ready"))
    (kept,) = boots(path)
    assert (kept.id, kept.outcome, kept.predicted) == (begun.id, "ready", begun.predicted)


async def test_an_end_without_a_start_harms_nothing(path: Path) -> None:
    async with Journal.open(path) as journal:
        journal.boot_ended(BootEnd("none", "ready"))
        await think(journal)
        assert str(journal.health) == "ok"
    assert boots(path) == []


async def test_a_machine_is_kept_once_however_its_keys_are_ordered(path: Path) -> None:
    async with Journal.open(path) as journal:
        first = journal.save_hardware({"gpus": [{"name": "H200"}], "cores": 2})
        again = journal.save_hardware({"cores": 2, "gpus": [{"name": "H200"}]})
        other = journal.save_hardware({"cores": 3})
    assert first == again != other
    with Reader.open(path) as reader:
        assert reader.hardware(first) == {"gpus": [{"name": "H200"}], "cores": 2}
        assert reader.hardware("none") is None
    conn = sqlite3.connect(path)
    assert conn.execute("SELECT count(*) FROM hardware_snapshots").fetchone() == (2,)
    conn.close()


async def test_the_same_boot_cannot_begin_twice(path: Path) -> None:
    begun = start()
    async with Journal.open(path) as journal:
        await journal.boot_began(begun)
        with pytest.raises(JournalError, match=begun.id):
            await journal.boot_began(begun)


async def test_a_closed_journal_takes_none(path: Path) -> None:
    async with Journal.open(path) as journal:
        pass
    with pytest.raises(JournalError, match="closed"):
        await journal.boot_began(start())
    with pytest.raises(JournalError, match="closed"):
        journal.boot_ended(BootEnd("x", "ready"))
    with pytest.raises(JournalError, match="closed"):
        journal.save_hardware({})


async def test_boots_wait_in_memory_while_another_program_holds_the_database(path: Path) -> None:
    begun = start()
    async with Journal.open(path) as journal:
        conn = sqlite3.connect(path, isolation_level=None)
        conn.execute("BEGIN IMMEDIATE")
        await journal.boot_began(begun)
        journal.boot_ended(BootEnd(begun.id, "ready", measured=FIGURES))
        await until(lambda: journal.health.held_rows == 2)
        conn.execute("ROLLBACK")
        conn.close()
        await until(lambda: journal.health.held_rows == 0)
    (kept,) = boots(path)
    assert (kept.outcome, kept.measured) == ("ready", FIGURES)
