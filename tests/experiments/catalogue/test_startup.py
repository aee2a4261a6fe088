"""Start-up checks on the testbed's models, and on what is wrong with a tier."""

from pathlib import Path
from typing import Any

import pytest

from subcortex.experiments.catalogue.startup.experiment import (
    Check,
    Startup,
    files_check,
    fits_check,
    report_of,
)
from subcortex.experiments.experiment import Report
from subcortex.experiments.scene import Scene
from subcortex.hardware import detect
from tests.experiments.harness import MODELS, VLLM_PYTHON, config_for, lab_for, scene_for
from tests.hardware import nvml as made_up

VLLM: dict[str, Any] = {
    "name": "v",
    "engine": "vllm",
    "model": str(MODELS / "fast"),
    "python": str(VLLM_PYTHON),
    "context_tokens": 1024,
}


async def checked(scene: Scene, name: str) -> Report:
    (inquiry,) = [one for one in Startup().inquiries(scene) if one.subject == name]
    async with lab_for(scene, seconds=120) as (lab, _):
        return await Startup().run(lab, inquiry)


async def test_llama_cpp_passes_with_a_model_of_the_testbed(tmp_path: Path) -> None:
    report = await checked(scene_for(config_for(tmp_path)), "fast")
    (answer,) = report.answers
    assert (answer.outcome, answer.value, answer.tier) == ("passed", 100.0, "fast")
    assert {name: check["ok"] for name, check in answer.details["checks"].items()} == dict.fromkeys(
        ("files", "fits", "engine"), True
    )
    assert "xllamacpp" in answer.details["checks"]["engine"]["words"]


async def test_checks_of_an_earlier_life_are_told_when_time_is_over(tmp_path: Path) -> None:
    scene = scene_for(config_for(tmp_path))
    inquiry = Startup().inquiries(scene)[0]
    async with lab_for(scene, seconds=120) as (lab, keep):
        found = await Startup().run(lab, inquiry)
    async with lab_for(scene, seconds=0, earlier=keep.kept) as (lab, again):
        assert await Startup().run(lab, inquiry) == found
    assert again.kept == []


@pytest.mark.vllm
async def test_vllm_imports_and_its_tokenizer_gives_texts_back(tmp_path: Path) -> None:
    report = await checked(scene_for(config_for(tmp_path, VLLM)), "v")
    (answer,) = report.answers
    assert answer.outcome == "passed", answer.statement
    checks = answer.details["checks"]
    assert checks.keys() == {"files", "fits", "tokenizer", "engine"}
    assert "640" in checks["tokenizer"]["words"]
    assert checks["engine"]["words"].startswith("vllm 0.")


async def test_a_missing_model_and_interpreter_are_said(tmp_path: Path) -> None:
    broken = {**VLLM, "model": str(tmp_path / "none"), "python": str(tmp_path / "no-python")}
    report = await checked(scene_for(config_for(tmp_path, broken)), "v")
    (answer,) = report.answers
    assert (answer.outcome, answer.value) == ("failed", 0.0)
    assert str(tmp_path / "none") in answer.statement
    assert "no-python is not there" in answer.details["checks"]["engine"]["words"]


@pytest.mark.parametrize(("gpus", "fits"), [(made_up.two_h200(), True), (made_up.Nvml([]), True)])
def test_the_planner_says_whether_it_fits(tmp_path: Path, gpus: made_up.Nvml, fits: bool) -> None:
    config = config_for(tmp_path, VLLM)
    assert fits_check(Scene(config, detect(gpus)), config.tiers[0]).ok is fits  # type: ignore[arg-type]


def test_what_does_not_fit_is_short_of_something(tmp_path: Path) -> None:
    config = config_for(tmp_path, {**VLLM, "context_tokens": 2**30})
    found = fits_check(Scene(config, detect(made_up.two_h200())), config.tiers[0])  # type: ignore[arg-type]
    assert not found.ok
    assert "v" in found.words


def test_files_are_read_to_their_headers(tmp_path: Path) -> None:
    file = tmp_path / "cut.gguf"
    file.write_bytes((MODELS / "fast" / "fast.gguf").read_bytes()[:100])
    config = config_for(tmp_path, {"name": "l", "engine": "llama.cpp", "model": str(file)})
    found = files_check(Scene(config, detect(made_up.Nvml([]))), config.tiers[0])  # type: ignore[arg-type]
    assert not found.ok
    assert "cut.gguf" in found.words


def test_a_check_that_fails_is_the_answer(tmp_path: Path) -> None:
    tier = config_for(tmp_path).tiers[0]
    checks = [Check("files", True, "read"), Check("cuda", False, "torch is built for CUDA 13.0.")]
    (answer,) = report_of(tier, checks).answers  # type: ignore[arg-type]
    assert answer.statement == "fast cannot start as it should: torch is built for CUDA 13.0."
    assert answer.value == 50.0
