"""What the page and the sessions say of 2×H200 is reckoned from the raw samples, and from nothing else."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import re
from itertools import groupby
from pathlib import Path
from statistics import mean, median
from types import ModuleType
from typing import Any

import pytest

from subcortex.experiments.experiment import Answer, Report
from tests.conftest import ROOT

HERE = ROOT / "docs" / "evidence" / "experiments-2xh200"
PAGE = (HERE / "README.md").read_text("utf-8")
#: Lines of a session that quote the board, which had the seeds' questions and claims on it.
_OF_THE_BOARD = re.compile(r'- (?:Answers|Confirmed:|Refuted:|Leaves open) "')


@pytest.fixture(scope="module")
def replay() -> ModuleType:
    spec = importlib.util.spec_from_file_location("experiments_replay", HERE / "replay.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def raw(replay: ModuleType) -> dict[str, dict[str, Any]]:
    """Return each question's run; that of the 70B where there are two."""
    found: dict[str, dict[str, Any]] = {}
    for one in sorted(replay.runs(), key=lambda one: one["run"]["subject"] == "deep"):
        found[one["run"]["experiment"]] = one
    return found


def values(run: dict[str, Any], metric: str, **facts: Any) -> list[float]:
    return [
        one["value"]
        for one in run["readings"]
        if one["metric"] == metric
        and all(one.get(name, one["facts"].get(name)) == value for name, value in facts.items())
    ]


def answer(report: Report, **wanted: Any) -> Answer:
    return next(
        one for one in report.answers if all(getattr(one, name) == value for name, value in wanted.items())
    )


def test_the_page_says_what_the_samples_come_to(replay: ModuleType) -> None:
    assert replay.page(PAGE) == PAGE
    assert len(replay.found().splitlines()) > 40


def test_what_ladders_said_on_the_machine_is_told_too() -> None:
    page = PAGE.replace("\n", " ")
    said = {file.stem: file.read_text("utf-8") for file in (HERE / "on-the-machine").glob("*.md")}
    knee = re.search(r"from (\d+) at once on \((\d+) to (\d+)\)", said["saturation-deep"])
    assert knee is not None
    assert "ended at {} requests ({} to {})".format(*knee.groups()) in page
    unsure = re.search(r"anywhere from ([\d.]+) to ([\d.]+) ", said["saturation-fast-one-gpu"])
    assert unsure is not None
    assert "without a knee ({} to {})".format(*unsure.groups()) in page


def test_every_session_is_written_from_the_samples(replay: ModuleType, tmp_path: Path) -> None:
    """Each line of the committed sessions comes out of the raw data again, but for quotes of the board."""
    again = {run_of(file): file for file in replay.sessions(replay.configured(tmp_path))}
    kept = {run_of(file): file for file in (ROOT / "sessions").glob("*.md")}
    assert {one["run"]["id"] for one in replay.runs()} == set(again)
    assert set(again) <= set(kept)
    for run, file in again.items():
        made, told = sections(file), sections(kept[run])
        assert told["What I Did"] == made["What I Did"]
        noticed = [line for line in told["What I Noticed"] if not _OF_THE_BOARD.match(line)]
        assert noticed == [line for line in made["What I Noticed"] if not _OF_THE_BOARD.match(line)]
        assert told["What I Already Know"][0] == made["What I Already Know"][0]
        assert told.get("Questions Remaining") == made.get("Questions Remaining")


def run_of(file: Path) -> str:
    found = re.search(r"^\*\*Run:\*\* (\w+)$", file.read_text("utf-8"), re.MULTILINE)
    return found[1] if found else file.name


def sections(file: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in file.read_text("utf-8").splitlines():
        if line.startswith("## "):
            lines = found[line[3:]] = []
        elif line.strip():
            lines.append(line)
    return found


# The same figures, reckoned here in another way.


def test_a_token_without_peers(replay: ModuleType, raw: dict[str, dict[str, Any]]) -> None:
    run = raw["interconnect"]
    report = replay.report_of(run)
    first = report.answers[0]
    as_found, without = (values(run, "tpot", arm=arm) for arm in ("as found", "no peer path"))
    assert len(as_found) == len(without) == 8
    assert first.value == pytest.approx(median(without) / median(as_found), rel=0.005)
    assert first.low < first.value < first.high
    # Three arms, of which the last alone loses much where much is sent.
    at_64 = {
        arm: median(values(run, "tok_s_64", arm=arm)) for arm in ("as found", "NCCL only", "no peer path")
    }
    assert at_64["no peer path"] < 0.8 * at_64["as found"]
    assert at_64["NCCL only"] > 0.9 * at_64["as found"]


def test_two_models_at_once(replay: ModuleType, raw: dict[str, dict[str, Any]]) -> None:
    run = raw["joint_serving"]
    report = replay.report_of(run)
    ratio = {
        tier: median(values(run, "tpot_p50", arm="joint", tier=tier))
        / median(values(run, "tpot_p50", arm="solo", tier=tier))
        for tier in ("deep", "fast")
    }
    assert answer(report, tier="deep", quantity="speed_ratio").value == pytest.approx(ratio["deep"], rel=0.01)
    assert answer(report, tier="fast", quantity="speed_ratio").value == pytest.approx(ratio["fast"], rel=0.01)


def test_what_two_ranks_take(replay: ModuleType, raw: dict[str, dict[str, Any]]) -> None:
    run = raw["tp_overhead"]
    one, two = (
        {name: values(run, f"mib {name}", arm=arm)[0] for name in ("taken", "weights", "kv pool")}
        for arm in ("tp1", "tp2")
    )
    beyond = [arm["taken"] - arm["weights"] - arm["kv pool"] for arm in (one, two)]
    report = replay.report_of(run)
    assert answer(report, quantity="overhead").value == pytest.approx(beyond[1] - beyond[0], abs=5)
    assert answer(report, quantity="block_size").value == 16


def test_copies_arrive_and_links_are_as_fast_as_said(
    replay: ModuleType, raw: dict[str, dict[str, Any]]
) -> None:
    assert set(values(raw["peer_trust"], "intact")) == {100.0}
    peers = values(raw["machine_speed"], "peer", pair="0-1")
    said = " ".join(one.statement for one in replay.report_of(raw["machine_speed"]).answers)
    assert f"{median(peers):.0f} GB/s" in said


def test_what_sleeps_keeps_little_and_comes_back_quickly(
    replay: ModuleType, raw: dict[str, dict[str, Any]]
) -> None:
    run = raw["idle_and_swap"]
    report = replay.report_of(run)
    idle, asleep = (median(values(run, "held", arm=arm)) for arm in ("idle", "sleep_1"))
    assert answer(report, quantity="vram").value == pytest.approx(idle)
    kept = next(one for one in report.answers if one.quantity == "asleep_memory")
    assert kept.value == pytest.approx(asleep)
    assert f"{asleep / idle:.1%} of what it holds awake" in kept.statement
    # To leave and to speak again: asleep meanwhile against stopped.
    ways = answer(report, quantity="swap_time").details["ways"]
    slept = median(values(run, "sleep", arm="sleep_1")) + median(values(run, "wake to first token"))
    stopped = median(values(run, "stop")) + median(values(run, "start to first token"))
    assert ways["asleep at level 1"] == pytest.approx(slept, rel=0.01)
    assert ways["stopped"] == pytest.approx(stopped, rel=0.01)
    assert stopped > 20 * slept


def test_one_quantised_boot_over_two_ranks(replay: ModuleType, raw: dict[str, dict[str, Any]]) -> None:
    run = raw["quantisation_tp"]
    (boot,) = run["boots"]
    assert boot["settings"]["tensor_parallel_size"] == 2
    assert boot["settings"]["flags"][-2:] == ["--quantization", "fp8"]
    report = replay.report_of(run)
    weights = answer(report, quantity="weights_size")
    assert weights.value == pytest.approx(
        sum(one["components"]["weights"] for one in boot["figures"]["devices"])
    )
    whole = sum(values(raw["tp_overhead"], "mib weights", arm="tp2"))
    assert sum(one["components"]["weights"] for one in boot["figures"]["devices"]) < 0.6 * whole
    assert answer(report, quantity="tpot").value == pytest.approx(median(values(run, "tpot")))


# What the page says of waves.

Windows = list[tuple[int, float, float]]


def windows(file: str) -> Windows:
    """Return a ladder's windows, as concurrency, seconds and tok/s, in the order they were taken."""
    readings = json.loads((HERE / file).read_text("utf-8"))["readings"]
    return [
        (one["facts"]["concurrency"], one["facts"]["seconds"], one["value"])
        for one in readings
        if one["metric"] == "tok_s"
    ]


def visits(each: Windows) -> Windows:
    found = []
    for concurrency, group in groupby(each, key=lambda one: one[0]):
        row = list(group)
        seconds = sum(one[1] for one in row)
        found.append((concurrency, seconds, sum(one[1] * one[2] for one in row) / seconds))
    return found


def spread(each: Windows) -> float:
    """Return the standard deviation about the mean of the size, as a share of it, of 128 at once and more."""
    by: dict[int, list[float]] = {}
    for concurrency, _, tok_s in each:
        if concurrency >= 128:
            by.setdefault(concurrency, []).append(tok_s)
    more = [speeds for speeds in by.values() if len(speeds) > 1]
    squares = sum((one / mean(speeds) - 1) ** 2 for speeds in more for one in speeds)
    return math.sqrt(squares / sum(len(speeds) - 1 for speeds in more))


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def test_windows_shorter_than_a_wave_said_little() -> None:
    few: list[float] = []
    many: list[float] = []
    for tier in ("fast", "deep"):
        by: dict[int, list[float]] = {}
        for concurrency, _, tok_s in windows(f"short-windows/{tier}.json"):
            by.setdefault(concurrency, []).append(tok_s)
        for size, each in by.items():
            (many if size >= 128 else few).extend(one / mean(each) for one in each)
    assert f"within {percent(max(abs(one - 1) for one in few))} of" in PAGE
    assert f"{min(many):.2f} to {max(many):.2f} of it" in PAGE


def test_windows_and_visits_vary_as_the_page_says() -> None:
    deep, fast, last = (windows(f"runs/saturation-{name}.json") for name in ("deep", "fast", "fast-one-gpu"))
    page = PAGE.replace("\n", " ")
    assert f"at 128 and more vary by {percent(spread(deep))}" in page
    assert percent(spread(fast)) == percent(spread(visits(fast)))
    assert f"(`saturation-fast`: {percent(spread(fast))}, and visits" in page
    assert (
        f"windows still vary by {percent(spread(last))}, and visits by {percent(spread(visits(last)))}"
        in page
    )


def test_the_gpu_waited_for_processes_of_python() -> None:
    ladder = json.loads((HERE / "runs" / "saturation-fast-one-gpu.json").read_text("utf-8"))["readings"]
    busy = [
        (one["at_s"] - one["facts"]["seconds"], one["at_s"])
        for one in ladder
        if one["metric"] == "tok_s" and one["facts"]["concurrency"] >= 128
    ]
    with (HERE / "one-gpu-cpu.csv").open("r", encoding="utf-8", newline="") as file:
        # Each row is of the second before it.
        rows = [
            row
            for row in csv.DictReader(file)
            if any(began <= float(row["at_s"]) - 1 and float(row["at_s"]) <= ended for began, ended in busy)
        ]
    assert len(rows) > 50
    server, loop = (median(float(row[name]) for row in rows) for name in ("api_server", "engine_core"))
    words = f"API server took {server:.0%} of a core and its engine's own loop {loop:.0%}"
    assert words.replace("%", " %") in PAGE.replace("\n", " ")


def test_where_batching_saturates(replay: ModuleType) -> None:
    """The knee again, off the visits' means alone: twice as many requests bring less than 5 % there."""
    ladders = {
        run["run"]["inquiry"]["about"]: run
        for run in replay.runs()
        if run["run"]["experiment"] == "saturation"
    }
    for about, file in (("llama-3.1-8b", "fast-one-gpu"), ("llama-3.1-70b", "deep")):
        knee = answer(replay.report_of(ladders[about]), quantity="requests")
        assert knee.low is not None
        assert knee.high is not None
        by: dict[int, list[float]] = {}
        for concurrency, _, tok_s in visits(windows(f"runs/saturation-{file}.json")):
            by.setdefault(concurrency, []).append(tok_s)
        speeds = {size: mean(each) for size, each in by.items()}

        def gain(sizes: list[int], speeds: dict[int, float] = speeds) -> float:
            """Return what twice as many requests bring, of two sizes together."""
            twice = [next(more for more in sorted(speeds) if more > 1.9 * size) for size in sizes]
            return mean(speeds[size] for size in twice) / mean(speeds[size] for size in sizes) - 1

        assert gain([size for size in sorted(speeds) if size < knee.low][-2:]) > 0.05
        assert gain([size for size in sorted(speeds) if size > knee.high][:2]) < 0.05
