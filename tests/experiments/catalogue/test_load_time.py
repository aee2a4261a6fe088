"""Loads timed cold and warm, mapped and read, on llama.cpp."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from subcortex.config import LlamaCppTier, VllmTier
from subcortex.errors import ConfigError
from subcortex.experiments.catalogue.common.tiers import weight_files
from subcortex.experiments.catalogue.load_time import experiment as load_time
from subcortex.experiments.catalogue.load_time import report as load_report
from subcortex.experiments.catalogue.load_time.experiment import LoadTime
from subcortex.experiments.experiment import Report
from subcortex.experiments.laboratory import pagecache
from subcortex.experiments.statistics import Sample, abba
from tests.experiments.harness import MODELS, config_for, lab_for, scene_for

TIER = LlamaCppTier(name="deep", model="deep.gguf")


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    """A model of its own: pages that another process has in use cannot be dropped."""
    return Path(shutil.copy(MODELS / "fast" / "fast.gguf", tmp_path / "fast.gguf"))


def test_dropped_pages_are_gone_and_read_ones_are_there(own_file: Path) -> None:
    pagecache.read_through([own_file])
    assert pagecache.cached_share([own_file]) == 1.0
    pagecache.drop([own_file])
    assert pagecache.cached_share([own_file]) == 0.0
    with own_file.open("rb") as stream:
        stream.read(4096)
    share = pagecache.cached_share([own_file])
    assert share is not None
    assert 0 < share <= 1
    assert own_file.read_bytes() == (MODELS / "fast" / "fast.gguf").read_bytes()


def test_of_a_file_that_is_not_there_nothing_is_known(tmp_path: Path) -> None:
    assert pagecache.cached_share([tmp_path / "none"]) is None
    (tmp_path / "empty").touch()
    assert pagecache.cached_share([tmp_path / "empty"]) is None


def test_a_split_model_is_all_of_its_parts(tmp_path: Path) -> None:
    parts = [tmp_path / f"big-{part:05d}-of-00003.gguf" for part in (1, 2, 3)]
    for file in (*parts, tmp_path / "other.gguf", tmp_path / "big.gguf"):
        file.write_bytes(b"GGUF")
    config = config_for(tmp_path)
    assert weight_files(config, LlamaCppTier(name="a", model=str(parts[0]))) == tuple(parts)
    alone = tmp_path / "big.gguf"
    assert weight_files(config, LlamaCppTier(name="a", model=str(alone))) == (alone,)
    made_up = VllmTier(name="a", model=str(MODELS / "fast"), flags=["--load-format=dummy"])
    assert weight_files(config, made_up) == ()


async def test_every_arm_is_loaded_as_it_says(
    own_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_time, "MOST_BLOCKS", 1)
    tier = {
        "name": "fast",
        "engine": "llama.cpp",
        "model": str(own_file),
        "threads": 1,
        "context_tokens": 256,
    }
    scene = scene_for(config_for(tmp_path, tier))
    (inquiry,) = LoadTime().inquiries(scene)
    async with lab_for(scene) as (lab, keep):
        report = await LoadTime().run(lab, inquiry)
    loads = [one for one in keep.kept if one.metric == "load"]
    assert [(one.block, one.arm) for one in loads] == abba(
        ["mapped cold", "mapped warm", "read cold", "read warm"], 1
    )
    # Two more were to find out which flags this build takes.
    assert len(keep.boots) == len(loads) + 2
    for one in loads:
        assert one.facts["in_memory"] == (0.0 if one.arm.endswith("cold") else 1.0)
        assert one.facts["flags"] == ["--load-mode", "mmap" if one.arm.startswith("mapped") else "none"]
    # Pages of the file count apart while it is mapped; read, they are the model's own memory.
    parts = {
        words: boot["figures"]["host"]["components"]
        for boot in keep.boots
        for words in boot["settings"]["flags"]
        if words in ("mmap", "none")
    }
    assert parts["mmap"].get("mapped", 0.0) > 1.0
    assert "mapped" not in parts["none"]
    by_arm = {one.details["arm"]: one for one in report.answers if one.quantity == "load_time"}
    assert by_arm["read warm"].n == 2
    assert report.answers[0].details["cold_start_s"] == by_arm["mapped cold"].value


async def test_a_file_that_stays_in_memory_gives_no_cold_figure(
    own_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_time, "MOST_BLOCKS", 1)
    monkeypatch.setattr(pagecache, "_AGAIN_S", 0.0)
    monkeypatch.setattr(pagecache, "drop", lambda files: None)
    tier = {
        "name": "fast",
        "engine": "llama.cpp",
        "model": str(own_file),
        "threads": 1,
        "context_tokens": 256,
    }
    scene = scene_for(config_for(tmp_path, tier))
    pagecache.read_through([own_file])
    async with lab_for(scene) as (lab, keep):
        report = await LoadTime().run(lab, LoadTime().inquiries(scene)[0])
    assert {one.arm for one in keep.kept} == {"mapped warm", "read warm"}
    assert any("100% of them stayed" in words for words in report.noticed)


@pytest.mark.parametrize("share", [0.01, 0.5])
async def test_of_a_file_that_is_cut_short_it_is_said_where_it_ends(
    own_file: Path, tmp_path: Path, share: float
) -> None:
    whole = own_file.read_bytes()
    left = whole[: int(share * len(whole))]
    own_file.write_bytes(left)
    tier = {"name": "fast", "engine": "llama.cpp", "model": str(own_file), "context_tokens": 256}
    scene = scene_for(config_for(tmp_path, tier))
    async with lab_for(scene) as (lab, keep):
        with pytest.raises(ConfigError, match=rf" at {len(left)}\n") as caught:
            await LoadTime().run(lab, LoadTime().inquiries(scene)[0])
    assert str(own_file) in caught.value.message
    assert "cut short" in (caught.value.hint or "")
    assert len(keep.boots) == 1


def test_made_up_weights_have_no_load_to_time(tmp_path: Path) -> None:
    tier = {"name": "a", "engine": "vllm", "model": str(MODELS / "fast"), "flags": ["--load-format", "dummy"]}
    scene = scene_for(config_for(tmp_path, tier))
    assert "dummy" in (LoadTime().why_not(scene) or "")
    assert list(LoadTime().inquiries(scene)) == []


def loads(cold_s: float, warm_s: float, blocks: int, noise: float = 0.01) -> list[Sample]:
    rng = random.Random(7)
    seconds = {"mapped cold": cold_s, "mapped warm": warm_s}
    return [
        Sample(seconds[arm] * (1 + rng.gauss(0, noise)) + 0.2 * place, arm, block)
        for place, (block, arm) in enumerate(abba(list(seconds), blocks))
    ]


def ratio_of(report: Report) -> tuple[str, float]:
    (found,) = [one for one in report.answers if one.quantity == "load_time_ratio"]
    assert found.value is not None
    return found.outcome, found.value


def test_a_disk_is_told_from_memory_though_starts_grow_slower() -> None:
    # Each start is 0.2 s slower than the one before, which favours neither arm.
    report = load_report.report(loads(12.0, 4.0, 4), TIER, size_mib=8192.0)
    outcome, ratio = ratio_of(report)
    assert outcome == "different"
    assert 1.8 < ratio < 3.2
    (words,) = [one for one in report.noticed if "come from disk" in one]
    assert "in 8" in words or "in 7.9" in words


def test_equal_loads_are_not_called_different() -> None:
    outcome, ratio = ratio_of(load_report.report(loads(4.0, 4.0, 6), TIER, size_mib=8192.0))
    assert outcome in ("alike", "inconclusive")
    assert ratio == pytest.approx(1.0, abs=0.03)


def test_a_block_that_was_broken_off_counts_not() -> None:
    report = load_report.report(loads(12.0, 4.0, 4)[:-1], TIER, size_mib=8192.0)
    (found,) = [one for one in report.answers if one.quantity == "load_time_ratio"]
    assert found.n == 3
