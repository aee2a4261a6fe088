"""doctor names what is missing, and how to get it."""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path

import psutil
import pytest

from subcortex.cli import _checks, _tier_checks
from subcortex.cli._models import ALL, download_command
from subcortex.cli._tier_checks import vllm_verdict
from subcortex.config import Config, load
from subcortex.hardware import Gpu, Hardware
from tests.cli import hostile
from tests.cli.helpers import run, run_on_terminal
from tests.conftest import MODELS, wait_for, write_config

CPU = Hardware(host_memory_total_mib=1000, host_memory_available_mib=1000, cores=2)
CARD = Gpu(index=0, name="RTX 3090", memory_total_mib=24576)
CUDA_12 = CPU.model_copy(update={"gpus": (CARD,), "driver_version": "570.1", "cuda_version": (12, 8)})


def checked(folder: Path, tier: str, hardware: Hardware = CPU) -> dict[str, _checks.Check]:
    """Return the checks of one tier, by what they look at."""
    config = _config(folder, tier)
    checks = _tier_checks.tier_checks(config.tiers[0], config, hardware)
    return {check.subject.split(": ")[1]: check for check in checks}


def _config(folder: Path, tier: str) -> Config:
    file = folder / "config.toml"
    file.write_text(
        f'[subcortex]\n[daemon]\nruntime_dir = "run"\n[journal]\ndatabase = "j.db"\n'
        f'[[tiers]]\nname = "t"\n{tier}\n'
    )
    return load(file, {})


def test_a_good_installation_is_0_and_every_check_is_named(folder):
    file = write_config(folder)

    done = run("doctor", "--config", file)
    report = json.loads(run("doctor", "--json", "--config", file).stdout)

    assert done.returncode == 0
    assert report["ok"] is True
    assert Hardware.model_validate(report["hardware"]).cores >= 1
    outcomes = {check["subject"]: check["outcome"] for check in report["checks"]}
    assert outcomes.keys() >= {
        "config",
        "sqlite",
        "gpus",
        "drives",
        "socket",
        "runtime folder",
        "disk (state)",
        "daemon",
    }
    assert outcomes["tier fast: model"] == outcomes["tier deep: engine"] == "ok"
    assert outcomes["tier fast: tokenizer"] == "skip"
    assert set(outcomes.values()) <= {"ok", "skip", "warn"}
    assert done.stdout.splitlines()[-1].startswith(f"{len(outcomes)} checks, 0 failed")


def test_a_missing_model_is_1_with_the_command_that_fetches_it(folder):
    file = write_config(folder)
    name = "Llama-3.2-1B-Instruct-Q4_K_M.gguf"
    file.write_text(file.read_text().replace(f"{MODELS}/fast/fast.gguf", f"models/{name}"))

    done = run("doctor", "--config", file)

    assert done.returncode == 1
    command = f"hf download bartowski/Llama-3.2-1B-Instruct-GGUF {name} --local-dir {folder}/models"
    assert f"      → {command}\n" in done.stdout


def test_a_wrong_config_still_gets_the_machine_looked_at(folder):
    report = run("doctor", "--json", "--config", write_config(folder, daemon="autostrat = 1"))

    checks = json.loads(report.stdout)["checks"]
    assert report.returncode == 1
    assert [(check["subject"], check["outcome"]) for check in checks[:2]] == [
        ("config", "fail"),
        ("sqlite", "ok"),
    ]
    assert "autostart" in checks[0]["todo"]


def test_colours_on_a_terminal_alone(folder):
    file = write_config(folder)

    assert "\x1b[32mok" in run_on_terminal("doctor", "--config", file, env={"NO_COLOR": ""})[1]
    assert "\x1b" not in run_on_terminal("doctor", "--config", file, env={"NO_COLOR": "1"})[1]


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"PK\x03\x04", "starts with b'PK"), (b"version https://git-lfs", "Git LFS pointer"), (b"", "no GGUF")],
)
def test_what_is_no_gguf(folder, content, said):
    (folder / "x.gguf").write_bytes(content)

    model = checked(folder, 'engine = "llama.cpp"\nmodel = "x.gguf"')["model"]

    assert model.outcome == "fail"
    assert said in model.message


def test_a_folder_where_a_gguf_should_be(folder):
    found = checked(folder, f'engine = "llama.cpp"\nmodel = "{MODELS}/fast"')["model"]

    assert (found.outcome, "is a folder" in found.message) == ("fail", True)


def test_a_llama_server_that_is_not_there_says_how_to_build_it(folder):
    found = checked(folder, f'engine = "llama.cpp"\nmodel = "{MODELS}/fast/fast.gguf"\nexecutable = "none"')[
        "engine"
    ]

    assert found.outcome == "fail"
    assert "GGML_CUDA=ON" in (found.todo or "")


def test_a_llama_server_tells_its_version(folder):
    server = folder / "bin" / "llama-server"
    server.parent.mkdir()
    server.write_text("#!/bin/sh\necho 'version: 7000 (abc)' >&2\n")
    server.chmod(0o755)

    found = checked(folder, 'engine = "llama.cpp"\nmodel = "m.gguf"\nexecutable = "bin/llama-server"')[
        "engine"
    ]

    assert (found.outcome, "version: 7000 (abc)" in found.message) == ("ok", True)


def test_gpus_that_are_not_here(folder):
    tier = 'engine = "llama.cpp"\nmodel = "m"\ngpus = [0, 1]'

    found = checked(folder, tier, CUDA_12)["gpus"]

    assert found.outcome == "fail"
    assert found.message == "GPU 1 is not here (GPUs: 0)"


def test_a_card_in_mig_mode_is_warned_of():
    card = Gpu(index=0, name="NVIDIA H200", memory_total_mib=143771, mig=())
    found = _checks._gpus(CUDA_12.model_copy(update={"gpus": (card,)}))

    assert (found.outcome, "in MIG mode" in found.message) == ("warn", True)
    assert "nvidia-smi -i 0 -mig 0" in (found.todo or "")


def test_an_interpreter_without_vllm(folder):
    found = checked(folder, f'engine = "vllm"\nmodel = "{MODELS}/deep"\npython = "{sys.executable}"')

    assert found["model"].outcome == "ok"
    assert found["engine"].outcome == "fail"
    assert "No module named" in found["engine"].message
    assert "pip install 'vllm>=0.22'" in (found["engine"].todo or "")


def test_vllms_interpreter_is_asked_and_its_tokenizer_tried(folder):
    """An interpreter that answers as one with vLLM would, noise on stdout included."""
    python = folder / "bin" / "python"
    python.parent.mkdir()
    answers = {
        "vllm.__version__": {"vllm": "0.26.0", "torch": "2.11.0+cu128", "cuda": "12.8"},
        "AutoTokenizer": {"same": True, "tokens": 12, "vocabulary": 600, "template": True},
    }
    script = f"#!{sys.executable}\nimport json, sys\nprint('INFO noise')\n"
    script += "".join(
        f"if {key!r} in sys.argv[2]: print({json.dumps(value)!r})\n" for key, value in answers.items()
    )
    python.write_text(script)
    python.chmod(0o755)

    found = checked(folder, f'engine = "vllm"\nmodel = "{MODELS}/deep"\npython = "bin/python"', CUDA_12)

    assert [check.outcome for check in found.values()] == ["ok", "ok", "ok"]
    assert "vLLM 0.26.0" in found["engine"].message
    assert "600 tokens" in found["tokenizer"].message


def test_an_executable_is_asked_through_the_interpreter_of_its_first_line(folder):
    command = folder / "bin" / "vllm"
    command.parent.mkdir()
    command.write_text(f"#!{sys.executable}\n")
    command.chmod(0o755)

    found = checked(folder, f'engine = "vllm"\nmodel = "{MODELS}/deep"\nexecutable = "bin/vllm"')["engine"]

    assert "No module named" in found.message
    assert sys.executable in found.message


@pytest.mark.parametrize(
    ("facts", "hardware", "outcome", "said"),
    [
        ({"vllm": "0.26.0", "cuda": "12.8"}, CUDA_12, "ok", "CUDA 12.8"),
        ({"vllm": "0.26.0", "cuda": "12.9"}, CUDA_12, "ok", "CUDA 12.9"),  # minor versions are compatible
        ({"vllm": "0.26.0", "cuda": "13.0"}, CUDA_12, "fail", "built for CUDA 13.0"),
        ({"vllm": "0.21.3", "cuda": "12.8"}, CUDA_12, "fail", "older than 0.22"),
        ({"vllm": "0.9.1", "cuda": "12.8"}, CUDA_12, "fail", "older than 0.22"),
        ({"vllm": "1.0rc1", "cuda": "12.8"}, CUDA_12, "ok", "1.0rc1"),
        ({"vllm": "0.32.0", "cuda": None}, CPU, "warn", "built for the CPU"),
        ({"vllm": "0.32.0", "cuda": None}, CUDA_12, "fail", "without CUDA"),
        ({"vllm": "0.26.0", "cuda": "12.8"}, CPU, "fail", "no GPU answers"),
    ],
)
def test_vllm_against_the_driver(facts, hardware, outcome, said):
    check = vllm_verdict("engine", {"torch": "2.11.0", **facts}, hardware, "install it")

    assert (check.outcome, said in check.message) == (outcome, True)
    assert (check.todo is None) == (outcome == "ok")


def _weights(folder: Path, *names: str, index: object = None) -> Path:
    model = folder / "model"
    model.mkdir()
    for name in ("config.json", "tokenizer.json", *names):
        (model / name).write_text("{}")
    if index is not None:
        (model / "model.safetensors.index.json").write_text(json.dumps(index))
    return model


@pytest.mark.parametrize(
    ("names", "index", "gone", "said"),
    [
        ((), None, None, "has no weights"),
        (("a.safetensors",), None, "config.json", "has no config.json"),
        (("a.safetensors",), None, "tokenizer.json", "has no tokenizer"),
        (
            ("a.safetensors",),
            {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}},
            None,
            "lacks 1 of 2",
        ),
        (("a.safetensors",), {"weight_map": []}, None, "cannot be read"),
        (("a.safetensors",), None, None, None),
    ],
)
def test_a_model_folder(folder, names, index, gone, said):
    model = _weights(folder, *names, index=index)
    if gone:
        (model / gone).unlink()

    found = checked(folder, 'engine = "vllm"\nmodel = "model"\npython = "none"')["model"]

    assert (found.outcome, (said or "") in found.message) == ("fail" if said else "ok", True)


def test_dummy_weights_need_none(folder):
    _weights(folder)

    found = checked(
        folder, 'engine = "vllm"\nmodel = "model"\npython = "none"\nflags = ["--load-format", "dummy"]'
    )

    assert found["model"].outcome == "ok"


def test_a_hub_name_is_looked_for_in_the_hubs_cache(folder, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(folder))
    tier = 'engine = "vllm"\nmodel = "some/model"\npython = "none"'

    before = checked(folder, tier)["model"]
    (folder / "hub" / "models--some--model" / "snapshots" / "abc").mkdir(parents=True)
    after = checked(folder, tier)["model"]

    assert (before.outcome, before.todo, after.outcome) == ("warn", "hf download some/model", "ok")


def test_a_key_is_asked_for_by_name_and_never_shown(folder, monkeypatch):
    with hostile.serving() as url:
        tier = (
            f'engine = "remote"\nmodel = {json.dumps(hostile.MODEL)}\nurl = "{url}"\napi_key_env = "SOME_KEY"'
        )
        monkeypatch.delenv("SOME_KEY", raising=False)
        without = checked(folder, tier)
        monkeypatch.setenv("SOME_KEY", "hunter2")
        given = checked(folder, tier)

    assert [check.outcome for check in without.values()] == ["fail"]
    assert [check.outcome for check in given.values()] == ["ok", "ok"]
    assert "hunter2" not in str(given)


def test_a_server_that_serves_something_else_or_nothing(folder):
    with hostile.serving() as url:
        other = checked(folder, f'engine = "remote"\nmodel = "gpt"\nurl = "{url}"')["url"]
    gone = checked(folder, f'engine = "remote"\nmodel = "gpt"\nurl = "{url}"')["url"]

    assert (other.outcome, gone.outcome) == ("fail", "fail")
    assert "not gpt" in other.message
    assert "refused" in gone.message


def test_a_socket_path_that_is_too_long(folder):
    config = _config(folder, 'engine = "llama.cpp"\nmodel = "m"')
    deep = config.model_copy(
        update={"daemon": config.daemon.model_copy(update={"runtime_dir": Path("x" * 120)})}
    )

    found = {check.subject: check for check in _checks.config_checks(deep)}["socket"]

    assert found.outcome == "fail"
    assert str(len(bytes(deep.socket_path))) in found.message


def test_a_runtime_folder_that_is_open_to_others(folder):
    config = _config(folder, 'engine = "llama.cpp"\nmodel = "m"')
    config.runtime_dir.mkdir(mode=0o755)
    config.runtime_dir.chmod(0o755)

    found = {check.subject: check for check in _checks.config_checks(config)}["runtime folder"]

    assert (found.outcome, found.todo) == ("warn", f"chmod 700 {config.runtime_dir}")


def test_a_sqlite_without_full_text_search(monkeypatch):
    class _Bare:
        def execute(self, *_):
            raise sqlite3.OperationalError("no such module: fts5")

        def close(self):
            return

    monkeypatch.setattr(sqlite3, "connect", lambda _: _Bare())

    found = next(_checks.machine_checks(CPU))

    assert (found.outcome, "FTS5" in found.message) == ("fail", True)


@pytest.mark.parametrize(("free_mib", "outcome"), [(100, "fail"), (1000, "warn"), (5000, "ok")])
def test_disk(folder, monkeypatch, free_mib, outcome):
    usage = type("Usage", (), {"free": free_mib * 2**20})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    config = _config(folder, 'engine = "llama.cpp"\nmodel = "m"')

    found = {check.subject: check for check in _checks.config_checks(config)}

    assert found["disk (state)"].outcome == outcome
    assert f"{free_mib / 1024:.1f} GiB" in found["disk (state)"].message


def test_a_driver_in_trouble_is_a_warning():
    broken = CPU.model_copy(update={"problem": "NVML does not start: mismatch"})

    gpus = list(_checks.machine_checks(broken))[1]

    assert (gpus.outcome, "mismatch" in gpus.message) == ("warn", True)


@pytest.mark.parametrize("model", ALL, ids=lambda model: model.title)
def test_the_command_for_each_model_puts_it_where_the_config_looks(model):
    path = Path(model.place("/models"))

    command = download_command(path)

    assert command == model.download("/models")
    assert str(path).startswith(command.split("--local-dir ")[1])


OLD = Gpu(index=0, name="GTX 1080 Ti", memory_total_mib=11264, compute_capability=(6, 1))
NEW = Gpu(index=1, name="RTX 3090", memory_total_mib=24576, compute_capability=(8, 6))


@pytest.mark.parametrize(
    ("cards", "gpus", "outcome"),
    [
        ([OLD], None, "fail"),
        ([OLD, NEW], None, "warn"),
        ([OLD, NEW], [0], "fail"),
        ([OLD, NEW], [0, 1], "fail"),
        ([OLD, NEW], [1], "ok"),
        ([NEW], None, "ok"),
    ],
)
def test_vllm_on_cards_that_it_does_not_serve(cards, gpus, outcome):
    machine = CUDA_12.model_copy(update={"gpus": tuple(cards)})
    facts = {"vllm": "0.26.0", "torch": "2.11.0", "cuda": "12.8"}

    check = vllm_verdict("engine", facts, machine, "install it", gpus)

    assert check.outcome == outcome
    if outcome != "ok":
        assert "wants compute capability 7.5, and GPU 0 (GTX 1080 Ti) has 6.1" in check.message
        assert "llama.cpp" in (check.todo or "")


def test_an_engine_is_asked_in_its_own_environment_without_secrets_and_leaves_nobody(folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hunter2")
    monkeypatch.setenv("SOME_VARIABLE", "inherited")
    server, left = folder / "llama-server", folder / "left"
    # What it leaves behind holds its output for ten minutes.
    server.write_text(
        f"#!/bin/sh\nsleep 600 &\necho $! > {left}\n"
        'echo "version: $SOME_VARIABLE $OWN $CUDA_VISIBLE_DEVICES ${HF_TOKEN:-none}" >&2\n'
    )
    server.chmod(0o755)
    own = 'gpus = [0]\nenv = {OWN = "mine"}'
    tier = f'engine = "llama.cpp"\nmodel = "m.gguf"\nexecutable = "{server}"\n{own}'

    found = checked(folder, tier, CUDA_12)["engine"]

    assert (found.outcome, "version: inherited mine 0 none" in found.message) == ("ok", True)
    wait_for(lambda: not running(int(left.read_text())))


def running(pid: int) -> bool:
    """Return whether a process is there and no zombie."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
