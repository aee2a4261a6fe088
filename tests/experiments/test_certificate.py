"""What an answer depends on, and what it does not."""

from pathlib import Path
from typing import Any

import pytest

from subcortex.config import Config, parse
from subcortex.experiments.certificate import Files, certificate, digest, files_of
from subcortex.experiments.scene import Scene
from subcortex.hardware import detect
from tests.experiments.harness import MODELS
from tests.hardware import nvml as made_up

FILES = Files(3, 1000, 17)


def config_of(**changes: Any) -> Config:
    tier = {"name": "v", "engine": "vllm", "model": "/models/m", "gpus": [1], **changes}
    return parse({"tiers": [tier]})


def scene_of(config: Config, driver: str = "580.159.04", **versions: str) -> Scene:
    nvml = made_up.two_h200()
    nvml.driver = driver
    return Scene(config, detect(nvml), versions={"vllm": "0.26.0", "torch": "2.11.0", **versions})


def made(
    config: Config | None = None, files: Files | None = FILES, env: dict[str, str] | None = None, **more: Any
):
    config = config or config_of()
    scene = scene_of(config, **more)
    return certificate(scene, tier=config.tiers[0], look=lambda _: files, environment=env or {})


def test_a_certificate_names_what_was_measured_with() -> None:
    found = made(
        env={"NCCL_P2P_DISABLE": "1", "HOME": "/home/x", "VLLM_API_KEY": "secret", "NCCL_DEBUG": "INFO"}
    )
    assert [(gpu["index"], gpu["name"]) for gpu in found["gpus"]] == [(1, "NVIDIA H200")]
    assert (found["driver"], found["driver_cuda"]) == ("580.159.04", "13.0")
    assert found["engine"] == {"name": "vllm", "version": "0.26.0"}
    assert found["model"] == {"path": "/models/m", "files": 3, "bytes": 1000, "newest_ns": 17}
    assert found["environment"] == {"NCCL_P2P_DISABLE": "1"}
    assert found["settings"]["tensor_parallel_size"] == 1


@pytest.mark.parametrize(
    "other",
    [
        made(config_of(tensor_parallel_size=2)),
        made(config_of(gpus=[0])),
        made(config_of(env={"VLLM_ATTENTION_BACKEND": "X"})),
        made(driver="581.0"),
        made(vllm="0.27.0"),
        made(files=Files(3, 1000, 18)),
        made(files=None),
        made(env={"NCCL_P2P_DISABLE": "1"}),
    ],
)
def test_whatever_may_move_an_answer_changes_the_digest(other: dict[str, Any]) -> None:
    assert digest(other) != digest(made())


@pytest.mark.parametrize(
    "other",
    [
        made(config_of(name="w")),
        made(config_of(start="lazy", nominal_ttft_s=3.0, max_restarts=1)),
        made(env={"PATH": "/bin", "VLLM_LOGGING_LEVEL": "DEBUG"}),
    ],
)
def test_what_cannot_move_it_does_not(other: dict[str, Any]) -> None:
    assert digest(other) == digest(made())


def test_of_the_machine_alone_all_cards_links_and_libraries_count() -> None:
    found = certificate(scene_of(config_of()), environment={}, ranks=2)
    assert [gpu["index"] for gpu in found["gpus"]] == [0, 1]
    assert found["links"] == {"0-1": "NV18"}
    assert found["versions"] == {"torch": "2.11.0"}
    assert found["ranks"] == 2
    assert "model" not in found
    assert digest(dict(reversed(found.items()))) == digest(found)


def test_a_models_files_are_weighed(tmp_path: Path) -> None:
    found = files_of(MODELS / "fast")
    assert found is not None
    assert found.count == len(list((MODELS / "fast").iterdir()))
    assert found.bytes > (MODELS / "fast" / "fast.gguf").stat().st_size
    assert files_of(tmp_path / "none") is None
    assert files_of(tmp_path) is None
