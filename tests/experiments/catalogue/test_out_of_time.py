"""At the end of its time every experiment tells what its samples come to, and starts nothing."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from subcortex.config import parse
from subcortex.errors import EngineFailed
from subcortex.experiments import catalogue, forms
from subcortex.experiments.catalogue.peer_trust.experiment import report_of as trusted
from subcortex.experiments.experiment import Report
from subcortex.experiments.laboratory.lab import Lab
from subcortex.experiments.laboratory.record import Reading
from subcortex.experiments.scene import Scene
from subcortex.experiments.worker.running import _done
from subcortex.hardware import load_snapshot
from tests.conftest import ROOT
from tests.experiments.harness import config_for, lab_for, scene_for

HERE = ROOT / "docs" / "evidence" / "experiments-2xh200"
RUNS = sorted((HERE / "runs").glob("*.json"))
_KNOWN = {one.name for one in fields(Reading)}


class Nothing:
    """Engines and raw data of a run whose time is over: whatever is asked of them is a fault."""

    def lent(self, *_: Any) -> Any:
        raise AssertionError("an engine was started")

    async def cool(self) -> None:
        pass

    def reading(self, reading: Reading) -> None:
        # Figures that follow from samples may be kept beside them.
        assert reading.metric.startswith("divergence")

    def command(self, words: Sequence[str], version: str | None) -> None:
        raise AssertionError(f"something was run: {words}")

    def boot(self, facts: Mapping[str, Any]) -> None:
        raise AssertionError("an engine was started")

    def progress(self, text: str, share: float | None) -> None:
        pass


def readings_of(raw: Mapping[str, Any]) -> list[Reading]:
    return [Reading(**{name: one[name] for name in one if name in _KNOWN}) for one in raw["readings"]]


def two_h200() -> Scene:
    text = (HERE / "config.toml").read_text("utf-8")
    text = text.replace('"models/', f'"{ROOT / "bench" / "shapes"}/')
    tools = {"llama-bench": Path("llama-bench"), "llama-perplexity": Path("llama-perplexity")}
    config = parse(tomllib.loads(text), HERE / "config.toml")
    return Scene(config, load_snapshot(HERE / "hardware.json"), Path("python3"), tools)


async def told(raw: Mapping[str, Any], scene: Scene, kept: Sequence[Reading]) -> tuple[Report, Report]:
    """Return what the experiment itself tells, and what its worker makes of that."""
    nothing: Any = Nothing()
    lab = Lab(scene, nothing, nothing, seconds=0.0, earlier=kept)
    inquiry = forms.inquiry_from_json(raw["run"]["inquiry"])
    experiment = catalogue.find(raw["run"]["experiment"])
    # The worker would answer for one that tried to start something.
    return await experiment.run(lab, inquiry), await _done(experiment, inquiry, lab, 30.0)


@pytest.mark.parametrize("share", [0.0, 0.15, 0.6])
@pytest.mark.parametrize("file", RUNS, ids=lambda file: file.stem)
async def test_a_run_that_was_cut_off_anywhere_has_an_answer_and_blames_nothing(
    file: Path, share: float
) -> None:
    raw = json.loads(file.read_text("utf-8"))
    readings = readings_of(raw)
    kept = readings[: max(1, int(share * len(readings)))]
    own, report = await told(raw, two_h200(), kept)
    assert report.answers[0].quantity == raw["run"]["inquiry"]["quantity"]
    assert share < 0.5 or own == report
    # Nothing failed in any of these runs but what was refused, which is among the samples.
    if not any(one.metric == "refused" for one in kept):
        # What cannot be split is arithmetic's to say.
        measured = [one for one in report.answers if one.quantity != "quantised_splits"]
        assert {one.outcome for one in measured} & {"failed"} == set()
    if share == 0.0:
        assert report.answers[0].outcome in ("inconclusive", "measured")


def test_bytes_that_were_lost_fail_a_check_that_was_cut_off() -> None:
    raw = json.loads((HERE / "runs" / "peer_trust-machine.json").read_text("utf-8"))
    whole = readings_of(raw)
    first = whole[0]
    assert trusted(two_h200(), whole).answers[0].outcome == "passed"
    cut = trusted(two_h200(), whole[:1]).answers[0]
    assert cut.outcome == "inconclusive"
    assert "time was over" in cut.statement
    lost = {**first.facts, "intact_bytes": first.facts["intact_bytes"] - 1}
    wrong = Reading(first.metric, 99.9, first.unit, first.arm, first.block, facts=lost)
    assert trusted(two_h200(), [wrong]).answers[0].outcome == "failed"


@pytest.mark.parametrize(
    ("name", "reading", "said"),
    [
        (
            "saturation",
            Reading("tpot", 0.01, "s", facts={"prompt_tokens": 64}),
            "time was over after 0 windows",
        ),
        ("load_time", Reading("load", 1.2, "s", "mapped cold", 0), "time was over"),
        ("idle_and_swap", Reading("start", 1.2, "s", "cold"), "time was over"),
        ("split_modes", Reading("generation", 9.0, "tokens/s", "1 thread", 0), "cannot be told yet"),
        ("startup", Reading("startup files", 100.0, "%", facts={"words": "well"}), "before its engine"),
        (
            "split_answers",
            Reading("next token", -1.0, "nats", "1 thread", 0, facts={"turn": 0, "top": {"a": -1.0}}),
            "before 1 thread and 2 threads had both been asked",
        ),
    ],
)
async def test_on_a_cpu_one_sample_is_no_answer_and_starts_nothing(
    folder: Path, name: str, reading: Reading, said: str
) -> None:
    scene = scene_for(config_for(folder))
    experiment = catalogue.find(name)
    inquiry = experiment.inquiries(scene)[0]
    async with lab_for(scene, seconds=0.0, earlier=[reading]) as (lab, keep):
        report = await _done(experiment, inquiry, lab, 30.0)
    first = report.answers[0]
    assert first.quantity == inquiry.quantity
    if name != "load_time":  # one start is a figure of its own
        assert first.outcome == "inconclusive"
        assert said in first.statement
    assert not keep.boots
    assert not keep.kept
    assert not keep.commands


async def test_what_measured_nothing_says_why_and_not_that_time_was_over(folder: Path) -> None:
    scene = scene_for(config_for(folder))
    experiment = catalogue.find("load_time")
    inquiry = next(iter(experiment.inquiries(scene)))

    class Vain(type(experiment)):  # type: ignore[misc]
        async def run(self, lab: Lab, inquiry: Any) -> Report:
            return Report((), noticed=("Its files could not be dropped from memory.",))

    nothing: Any = Nothing()
    lab = Lab(scene, nothing, nothing, seconds=1000.0)
    with pytest.raises(EngineFailed, match=r"load_time measured nothing: Its files could not be dropped"):
        await _done(Vain(), inquiry, lab, 1000.0)
