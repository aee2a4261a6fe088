"""What TP adds to memory: boots of 2×H200 as they were recorded, and two real ones on the CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from subcortex.config import VllmTier
from subcortex.engines._vllm_memory import read_boot
from subcortex.experiments.catalogue.common.flag_words import without
from subcortex.experiments.catalogue.common.vllm_arms import resized
from subcortex.experiments.catalogue.tp_overhead import report as tp_report
from subcortex.experiments.catalogue.tp_overhead.experiment import TpOverhead
from subcortex.experiments.catalogue.tp_overhead.figures import differences, of_cards, of_host
from subcortex.experiments.laboratory.lab import Lab
from subcortex.experiments.scene import Scene
from subcortex.hardware import with_gpus
from subcortex.types import BootFigures, DeviceFigures
from tests.conftest import ROOT
from tests.engines.conftest import VLLM_ENV
from tests.experiments.harness import MODELS, VLLM_PYTHON, config_for, lab_for, scene_for

EVIDENCE = ROOT / "docs" / "evidence" / "vram-h200"
SHAPES = ROOT / "bench" / "shapes"
CARD_MIB = 143771.0
GIB = 1024.0


def recorded(log: str) -> tuple[dict[str, float], dict[str, Any]]:
    """Return a recorded boot by component, and its row of figures that were read by hand's other tools."""
    row = next(one for one in json.loads((EVIDENCE / "truth.json").read_text())["boots"] if one["log"] == log)
    figures = read_boot((EVIDENCE / "lines-1" / f"{log}.log").read_text().splitlines())
    return of_cards(figures, row["used_mib"], [CARD_MIB] * row["tp"]), row


def on_h200s(tmp_path: Path, *tiers: dict[str, Any]) -> Scene:
    return Scene(config_for(tmp_path, *tiers), with_gpus("2x H200 141GB"))


def of_shape(name: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "engine": "vllm",
        "model": str(SHAPES / name),
        "flags": ["--load-format", "dummy"],
    } | more


def test_a_recorded_pair_of_boots_comes_apart_by_component() -> None:
    one, row1 = recorded("00-qwen3-30b-a3b-tp1")
    two, row2 = recorded("05-qwen3-30b-a3b-tp2")
    for found, row in ((one, row1), (two, row2)):
        ranks = row["tp"]
        assert found["weights"] == pytest.approx(row["weights_gib"] * GIB * ranks, abs=20)
        assert found["graphs"] == pytest.approx(row["cuda_graph_gib"] * GIB * ranks, abs=20)
        assert found["outside torch"] == pytest.approx(row["non_torch_gib"] * GIB * ranks, abs=20)
        assert found["taken"] == sum(row["used_mib"])
        assert found["rest"] == pytest.approx(
            sum(row["used_mib"]) - (row["weights_gib"] + row["available_kv_gib"]) * GIB * ranks, abs=30
        )
        at_start = CARD_MIB - row["free_at_start_gib"] * GIB
        assert found["before"] == pytest.approx(at_start * ranks, abs=30)
    more = differences(one, two)
    assert more["weights"] == pytest.approx((2 * 28.46 - 56.88) * GIB, abs=30)
    assert more["graphs"] == pytest.approx((2 * 0.67 - 0.8) * GIB, abs=30)
    assert more["rest"] == two["rest"] - one["rest"] > 0


def test_the_report_says_what_was_added_and_out_of_what(tmp_path: Path) -> None:
    tier = VllmTier(name="fast", model="models/qwen3-30b-a3b")
    one, two = (recorded(log)[0] for log in ("00-qwen3-30b-a3b-tp1", "05-qwen3-30b-a3b-tp2"))
    kv = {"kv a token": 100.0}
    report = tp_report.report({"tp1": one | kv, "tp2": two | kv}, {"tp1": 2, "tp2": 1}, tier, on_gpus=True)
    overhead, weights = report.answers
    assert (overhead.quantity, overhead.about, overhead.unit) == ("overhead", "qwen-3-30b-a3b", "MiB")
    assert overhead.value == pytest.approx(two["rest"] - one["rest"])
    assert overhead.n == 1
    assert "2 at TP=1 and 1 at TP=2" in overhead.statement
    assert f"CUDA graphs +{two['graphs'] - one['graphs']:.0f} MiB" in overhead.statement
    # A second GPU has a context of its own whatever it is for.
    assert f"the first's {one['rest']:.0f} MiB" in overhead.statement
    assert f"TP=2 adds {two['rest'] - 2 * one['rest']:.0f} MiB" in overhead.statement
    assert any(f"a GPU holds {two['rest'] / 2:.0f} MiB there" in words for words in report.noticed)
    assert weights.value == pytest.approx(40.96, abs=1)
    assert any("shared out" in words for words in report.noticed)
    (chart,) = report.charts
    assert "the KV pool" not in chart.categories
    assert [len(line.points) for line in chart.lines] == [len(chart.categories)] * 2


def test_without_the_drivers_word_nothing_is_made_up() -> None:
    figures = BootFigures(
        engine="vllm", devices=[DeviceFigures(device="GPU 0", components={"weights": 10.0})]
    )
    found = of_cards(figures, [], [])
    assert found == {"weights": 10.0}
    report = tp_report.report(
        {"tp1": found, "tp2": {"weights": 12.0}},
        {"tp1": 1, "tp2": 1},
        VllmTier(name="fast", model="m"),
        on_gpus=True,
    )
    assert report.answers[0].outcome == "inconclusive"
    assert report.answers[0].value is None
    assert of_host(None, 100.0, 30.0) == {"weights": 30.0, "taken": 100.0}


def test_what_only_the_first_rank_says_counts_for_all() -> None:
    first = DeviceFigures(device="GPU 0", components={"weights": 10.0, "activations": 3.0}, kv_pool_mib=5.0)
    second = DeviceFigures(device="GPU 1", components={"weights": 11.0})
    found = of_cards(BootFigures(engine="vllm", devices=[first, second]), [20.0, 22.0], [])
    assert found["weights"] == 21.0
    assert found["activations"] == 6.0
    assert found["kv pool"] == 10.0
    assert found["rest"] == 42.0 - 21.0 - 10.0


def test_the_arms_differ_in_nothing_but_their_ranks(tmp_path: Path) -> None:
    flags = [
        "--load-format",
        "dummy",
        "--kv-cache-memory-bytes",
        "1G",
        "--enable-sleep-mode",
        "--max-num-seqs=8",
    ]
    scene = on_h200s(tmp_path, of_shape("llama-3.1-8b", flags=flags, gpus=[1], sleep_mode=True))
    tier = scene.config.tiers[0]
    assert isinstance(tier, VllmTier)
    one, two = (resized(scene, tier, size, weights_mib=15316.0) for size in (1, 2))
    assert (one.gpus, two.gpus) == ([1], [0, 1])
    # A pinned pool would keep vLLM from telling what the rest is.
    assert one.flags == two.flags == ["--load-format", "dummy", "--max-num-seqs=8"]
    assert one.gpu_memory_utilization == two.gpu_memory_utilization
    assert one.sleep_mode is two.sleep_mode is None
    share = one.gpu_memory_utilization
    assert share is not None
    assert 0.15 < share < 0.3
    same = {"tensor_parallel_size", "gpus"}
    assert one.model_dump(exclude=same) == two.model_dump(exclude=same)


def test_flags_go_with_what_is_given_to_them() -> None:
    flags = ["--a", "1", "--kv-cache-memory-bytes=5", "--b", "--dtype", "float32", "-O3"]
    assert without(flags, "--kv-cache-memory-bytes", "--dtype") == ["--a", "1", "--b", "-O3"]
    assert without(flags, "--a") == flags[2:]


def test_the_smallest_model_that_fits_a_card_is_chosen(tmp_path: Path) -> None:
    tiers = [of_shape("llama-3.1-70b", tensor_parallel_size=2), of_shape("llama-3.1-8b")]
    (inquiry,) = TpOverhead().inquiries(on_h200s(tmp_path, *tiers))
    assert (inquiry.subject, inquiry.about) == ("llama-3.1-8b", "llama-3.1-8b")
    assert inquiry.needs.gpus == 2
    # The planner has seen such boots; the truth on two H200 was 5.2 GiB.
    bounds = inquiry.prior.interval()
    assert 1000 < bounds.low < bounds.high < 10000
    assert bounds.low < 5321 < bounds.high
    assert 3 < inquiry.minutes < 8


def test_it_says_what_is_missing(tmp_path: Path) -> None:
    experiment = TpOverhead()
    assert "vLLM" in (experiment.why_not(scene_for(config_for(tmp_path))) or "")
    one_card = Scene(config_for(tmp_path, of_shape("llama-3.1-8b")), with_gpus("1x H200 141GB"))
    assert "needs two" in (experiment.why_not(one_card) or "")
    small = Scene(config_for(tmp_path, of_shape("llama-3.1-70b")), with_gpus("2x RTX 4090 24GB"))
    assert "fits one GPU" in (experiment.why_not(small) or "")
    assert list(experiment.inquiries(small)) == []


@pytest.mark.vllm
async def test_two_ranks_on_the_cpu_take_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tier = {
        "name": "fast",
        "engine": "vllm",
        "model": str(MODELS / "fast"),
        "python": str(VLLM_PYTHON),
        "context_tokens": 512,
        "env": VLLM_ENV,
        "flags": ["--dtype", "float32", "--max-num-seqs", "8", "--enforce-eager"],
        "start_timeout_s": 500,
    }
    scene = scene_for(config_for(tmp_path, tier))
    (inquiry,) = TpOverhead().inquiries(scene)

    def seconds_left(lab: Lab) -> float:
        """Return too little for a third boot once two are done, however long they took."""
        return 1.0 if all(lab.readings("mib taken", arm=arm) for arm in ("tp1", "tp2")) else 900.0

    monkeypatch.setattr(Lab, "seconds_left", property(seconds_left))
    async with lab_for(scene) as (lab, keep):
        report = await TpOverhead().run(lab, inquiry)
    assert [boot["settings"]["tensor_parallel_size"] for boot in keep.boots[1:]] == [2]
    overhead = report.answers[0]
    assert overhead.outcome == "measured"
    assert overhead.value is not None
    # An interpreter with torch.
    assert 100 < overhead.value < 2000
    assert overhead.details["boots"] == {"tp1": 1, "tp2": 1}
    assert overhead.details["tp1_mib"]["kv pool"] == overhead.details["tp2_mib"]["kv pool"] == 512
    assert any("one boot" in words for words in report.noticed)
