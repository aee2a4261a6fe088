"""What plans and routes take from facts: the latest that count, of this model and these cards."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from subcortex.config import Config, parse
from subcortex.experiments.consequences.figures import LinkFigures, link_figures, tier_figures, with_measured
from subcortex.hardware import Gpu, GpuPair, Hardware, link_between
from subcortex.journal.diary.board_records import FactRecord
from subcortex.vram.communication import Traffic, duration

MACHINE = Hardware(
    gpus=tuple(
        Gpu(index=index, name="NVIDIA GeForce RTX 3090", uuid=f"GPU-{index}", memory_total_mib=24576)
        for index in range(3)
    ),
    links=(GpuPair(a=0, b=1, code="PHB", peer_read="OK", peer_write="OK"),),
    host_memory_total_mib=65536,
    host_memory_available_mib=65536,
    cores=8,
)


def fact(quantity: str = "bandwidth", value: float | None = None, unit: str = "s", **told: Any) -> FactRecord:
    """Return a fact; ``told`` goes into its provenance."""
    return FactRecord(
        seq=1, id="f", at=datetime(2026, 3, 2, tzinfo=UTC), source="measurement", quantity=quantity,
        subject="x", value=value, low=None, high=None, unit=unit, n=told.pop("n", 5), statement="",
        working="",
        provenance={"outcome": "measured", **told}, session_id=None, expired_at=None, expired_why=None,
    )  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> Config:
    tiers = [{"name": name, "engine": "llama.cpp", "model": f"{name}.gguf"} for name in ("fast", "deep")]
    return parse({"tiers": tiers}, tmp_path / "config.toml")


def test_the_latest_fact_of_a_figure_counts_whatever_its_unit(config):
    facts = [
        fact("tpot", 20.0, "ms", tier="deep", n=7),
        fact("tpot", 0.5, "s", tier="deep"),
        fact(
            "restart_time", 80.0, tier="deep", details={"stop_s": 9.7, "wake_1_s": 2.1, "cold_start_s": 200.0}
        ),
    ]
    found = tier_figures(facts, config)
    assert found.keys() == {"deep"}
    assert found["deep"].values == pytest.approx(
        {"tpot_s": 0.02, "restart_s": 80.0, "stop_s": 9.7, "wake_1_s": 2.1, "cold_start_s": 200.0}
    )
    assert (found["deep"].n["tpot_s"], found["deep"].start_s, found["deep"].start_n) == (7, 80.0, 5)


@pytest.mark.parametrize(
    "silent",
    [
        {"outcome": "inconclusive"},
        {"tier": "gone"},
        {"details": {"concurrency": 16}},
        {"certificate": {"model": {"path": "/models/another.gguf"}}},
        {"certificate": {"model": {"name": "another.gguf"}}},
    ],
)
def test_what_does_not_hold_for_the_tier_is_left_out(config, silent):
    assert tier_figures([fact("tpot", 20.0, "ms", **{"tier": "deep", **silent})], config) == {}


def test_an_expired_fact_counts_for_nothing(config):
    gone = replace(fact("tpot", 20.0, "ms", tier="deep"), expired_at=datetime(2026, 3, 3, tzinfo=UTC))
    assert tier_figures([gone], config) == {}


def test_the_model_that_was_measured_is_the_tiers(config):
    own = {"model": {"path": str(config.resolve("deep.gguf"))}}
    assert tier_figures([fact("tpot", 20.0, "ms", tier="deep", certificate=own)], config)["deep"].get(
        "tpot_s"
    )


def test_links_take_the_slower_direction_and_the_smallest_group():
    pairs = [{"a": 0, "b": 1, "gb_per_s": 25.0}, {"a": 1, "b": 0, "gb_per_s": 23.0}]
    reduced = [{"gpus": [0, 1, 2], "latency_s": 9e-5}, {"gpus": [0, 1], "latency_s": 4e-5}]
    found = link_figures([fact(details={"pairs": pairs}), fact(details={"all_reduce": reduced})], MACHINE)
    assert found[0, 1] == LinkFigures(23.0, 4e-5)
    assert found[0, 2] == found[1, 2] == LinkFigures(None, 9e-5)


def test_links_of_other_cards_and_nonsense_are_left_out():
    pairs = [{"a": 0, "b": 1, "gb_per_s": 25.0}]
    other = {"gpus": [{"index": 0, "uuid": "GPU-elsewhere"}]}
    same = {"gpus": [{"index": 0, "uuid": "GPU-0"}, {"index": 1, "uuid": "GPU-1"}]}
    assert link_figures([fact(details={"pairs": pairs}, certificate=other)], MACHINE) == {}
    assert (0, 1) in link_figures([fact(details={"pairs": pairs}, certificate=same)], MACHINE)
    for bad in ({"a": 0, "b": 0, "gb_per_s": 5}, {"a": 0, "b": 1, "gb_per_s": -1}, {"a": "0", "b": 1}, 7):
        assert link_figures([fact(details={"pairs": [bad], "all_reduce": bad})], MACHINE) == {}


def test_a_plan_takes_the_measured_link_for_the_promised_one():
    traffic = Traffic(messages=100, message_bytes=8192, sent_bytes=1e6)
    before = link_between(MACHINE, 0, 1)
    measured = with_measured(
        MACHINE, {(0, 1): LinkFigures(10.0, 5e-5), (1, 2): LinkFigures(4.0), (0, 9): LinkFigures(1.0)}
    )
    after = link_between(measured, 0, 1)
    assert (before.measured, after.measured, after.gb_per_s, after.peer) == (False, True, 10.0, True)
    # 100 messages of 50 µs and 1 MB at 10 GB/s, against 15 µs each and 0.8 × 31.5 GB/s.
    assert duration(traffic, before).mean_s == pytest.approx(
        100 * 15e-6 + 1e6 / (0.8 * before.gb_per_s * 1e9)
    )
    assert duration(traffic, after).mean_s == pytest.approx(100 * 50e-6 + 1e6 / 10e9)
    assert duration(traffic, after).sigma_s < 0.06 * duration(traffic, after).mean_s
    # A pair that nobody knew a code of is known now; one that is not there stays away.
    assert [(pair.a, pair.b) for pair in measured.links] == [(0, 1), (1, 2)]
    assert link_between(measured, 1, 2).gb_per_s == 4.0
