"""``subcortex hardware``: this machine, stand-ins, snapshots; and the options that name a machine."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from subcortex.cli._hardware_options import Machine, hardware_options
from subcortex.cli._hardware_text import page
from subcortex.hardware import Hardware, Interpreter, TorchDevice, detect, load_snapshot, save_snapshot
from tests.cli.helpers import invoke, run
from tests.conftest import write_config
from tests.engines.conftest import vllm_python
from tests.hardware import nvml as fake

__all__ = ["vllm_python"]

NOTHING = Hardware(host_memory_total_mib=2048, host_memory_available_mib=1024, cores=2)


def shown(hardware: Hardware) -> str:
    return "\n".join(page(hardware))


def saved(folder: Path, hardware: Hardware) -> Path:
    file = folder / "machine.json"
    save_snapshot(hardware, file)
    return file


def lines(text: str, start: str) -> list[list[str]]:
    """Return the words of each line that begins with ``start``."""
    return [line.split() for line in text.splitlines() if line.startswith(start)]


def test_a_machine_without_gpus_says_so_in_one_line_and_shows_its_host():
    text = shown(NOTHING).splitlines()

    assert text[0] == "no NVIDIA GPU"
    assert text[2:] == [
        "host: 1024 of 2048 MiB available, swap – of – MiB free",
        "cores: – physical, – logical, 2 usable (–)",
        "CPU –, –, kernel –",
    ]


def test_gpus_their_users_and_links():
    text = shown(detect(fake.household()))

    assert "driver 570.86, CUDA up to 12.8" in text
    assert "NVIDIA GeForce RTX 3060 Ti        1500/8192  41  21/200  210/2100    405/7001" in text
    assert lines(text, "  0  4321") == [["0", "4321", "game␛[2J", "both", "900"]]
    assert lines(text, "  0  1234") == [["0", "1234", "/usr/lib/xorg/Xorg", "graphics", "–"]]
    assert "who uses GPU 1: –" in text
    assert lines(text, "GPU0") == [["GPU0", "X", "PHB"]]
    assert [" ".join(words) for words in lines(text, "0 and 1")] == [
        "0 and 1 3.9 PCIe 3 x4, nominal CNS CNS NS CNS"
    ]
    assert "  PHB: PCIe, over the CPU's host bridge" in text
    assert "SYS" not in text  # the legend has what is seen


def test_nothing_a_program_calls_itself_drives_the_terminal():
    hostile = "x\x1b]0;owned\x07\u202e\n\x9b31m"
    machine = fake.household()
    machine.names = {1234: hostile, 4321: hostile}
    machine.driver = hostile
    for card in machine.cards:
        card.answers.update(Name=hostile, UUID=hostile)
    asked = Interpreter(
        python=hostile,
        tiers=(hostile,),
        version=hostile,
        problem=hostile,
        visible_devices=hostile,
        devices=(TorchDevice(index=0, name=hostile),),
    )
    found = detect(machine).model_copy(update={"interpreters": (asked,), "problem": hostile})

    text = "".join(page(found))

    assert [letter for letter in text if not letter.isprintable()] == []


def test_what_an_interpreter_said():
    device = TorchDevice(index=0, name="NVIDIA H200", uuid="GPU-1")
    found = Interpreter(
        python="/v/bin/python",
        tiers=("fast", "deep"),
        version="3.12.3",
        torch="2.11.0+cu130",
        cuda="13.0",
        nccl="2.28.9",
        vllm="0.26.0",
        cuda_available=True,
        architectures=("sm_80", "sm_90"),
        devices=(device,),
        device_order="PCI_BUS_ID",
    )
    broken = Interpreter(python="/w/bin/python", problem="no answer within 120 s")

    text = shown(NOTHING.model_copy(update={"interpreters": (found, broken)})).splitlines()

    assert text[2:9] == [
        "/v/bin/python (tiers: fast, deep)",
        "  Python 3.12.3, torch 2.11.0+cu130, CUDA 13.0, NCCL 2.28.9, vLLM 0.26.0, "
        "flash-attn –, FlashInfer –",
        "  CUDA available: yes; built for sm_80 sm_90",
        "  CUDA_DEVICE_ORDER PCI_BUS_ID, CUDA_VISIBLE_DEVICES –",
        "  cuda:0 is NVIDIA H200, GPU-1",
        "",
        "/w/bin/python",
    ]
    assert text[9] == "  problem: no answer within 120 s"


def test_a_card_in_mig_mode_is_listed_with_what_cuda_sees():
    text = shown(detect(fake.split()))

    assert [words[:5] for words in lines(text, "  0  ")] == [["0", "NVIDIA", "H200", "629/143771", "31"]]
    told = [line for line in text.splitlines() if "MIG" in line]
    assert told == [
        "GPU 0 is in MIG mode: CUDA sees its instances, not the card; nothing is planned on it",
        "  MIG-0 is NVIDIA H200 MIG 1g, 16384 MiB",
        "  MIG-2 is NVIDIA H200 MIG 4g, 71424 MiB",
    ]


@pytest.mark.parametrize("command", [["plan", "org/model"], ["init", "--offline"]])
def test_nothing_is_planned_on_a_card_in_mig_mode(tmp_path, command):
    file = saved(tmp_path, detect(fake.split()))

    done = invoke(*command, "--hardware", file)

    assert done.exit_code == 4
    assert "GPU 0 (NVIDIA H200) is in MIG mode" in done.stderr
    assert '--gpus "69.75GiB"' in done.stderr
    assert list(tmp_path.iterdir()) == [file]


def test_what_a_card_does_not_tell_sensibly_is_said():
    machine = fake.two_h200()
    machine.cards[1].answers.update(Temperature=float("nan"), PowerUsage=-5, CudaComputeCapability=())

    text = shown(detect(machine))

    assert "GPU 1 has no usable answer for compute_capability, power_draw_w, temperature_c\n" in text
    assert "GPU 0 has no usable answer" not in text
    assert lines(text, "  1  NVIDIA")[0][3:6] == ["629/143771", "–", "–/700"]


def test_a_card_that_is_lost_is_said_beside_the_others():
    machine = fake.two_h200()
    machine.cards[0].answers["PowerUsage"] = fake.lost()

    text = shown(detect(machine))

    assert text.startswith("GPU 0 does not answer: GPU is lost\n")
    assert len(lines(text, "  1  NVIDIA")) == 1
    assert lines(text, "  0  NVIDIA") == []


def test_a_driver_in_trouble_is_said():
    text = shown(NOTHING.model_copy(update={"problem": "NVML does not start: mismatch"}))

    assert text.startswith("NVML does not start: mismatch\nno NVIDIA GPU\n")


def test_json_is_a_snapshot_of_this_machine(tmp_path):
    done = run(
        "hardware", "--json", cwd=tmp_path, env={"XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path)}
    )

    (tmp_path / "machine.json").write_text(done.stdout)
    found = load_snapshot(tmp_path / "machine.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert found.cores == len(os.sched_getaffinity(0))
    assert found.interpreters == ()  # there is no configuration


def test_saving_and_showing_a_snapshot(tmp_path):
    source = saved(tmp_path, detect(fake.two_h200()))

    done = run("hardware", "--hardware", source, "--save", tmp_path / "copy.json")

    assert done.returncode == 0
    assert done.stderr == f"wrote {tmp_path}/copy.json\n"
    assert lines(done.stdout, "GPU1 ") == [["GPU1", "NV18", "X"]]
    assert load_snapshot(tmp_path / "copy.json") == load_snapshot(source)
    assert (tmp_path / "copy.json").stat().st_mode & 0o777 == 0o600


def test_a_place_that_cannot_be_written_is_4(tmp_path):
    done = run("hardware", "--gpus", "24GiB", "--save", tmp_path / "none" / "machine.json")

    assert (done.returncode, done.stdout) == (4, "")
    assert "cannot write" in done.stderr


def test_cards_that_a_person_names():
    done = invoke("hardware", "--gpus", "2x RTX 3090 NVLink", "--json")

    found = json.loads(done.stdout)
    assert found["assumed"] is True
    assert [gpu["memory_total_mib"] for gpu in found["gpus"]] == [24576, 24576]
    assert [pair["code"] for pair in found["links"]] == ["NV4"]
    assert "assumed, not measured" in invoke("hardware", "--gpus", "2x RTX 3090 NVLink").stdout


def vllm_config(folder: Path, *tiers: str) -> Path:
    file = write_config(folder)
    for number, tier in enumerate(tiers):
        file.write_text(
            f'{file.read_text()}\n[[tiers]]\nname = "v{number}"\nengine = "vllm"\nmodel = "m"\n{tier}\n'
        )
    return file


def test_the_interpreters_of_vllm_tiers_are_asked_once_for_each_environment(folder, vllm_python):
    file = vllm_config(
        folder,
        f'python = "{vllm_python}"\ngpus = [1, 0]',
        f'python = "{sys.executable}"',
        f'python = "{sys.executable}"',
        'python = "/nowhere/python"',
    )

    done = json.loads(run("hardware", "--json", "--config", file).stdout)["interpreters"]

    assert [found["tiers"] for found in done] == [["v0"], ["v1", "v2"], ["v3"]]
    assert done[0]["torch"].startswith("2.")
    assert (done[0]["device_order"], done[0]["visible_devices"]) == ("PCI_BUS_ID", "1,0")
    assert done[1]["problem"].startswith("torch does not import")
    assert done[2]["problem"] == "cannot be run: No such file or directory"


def test_an_interpreter_is_asked_with_what_its_engine_is_started_with(folder, monkeypatch):
    file = vllm_config(
        folder,
        'python = "bin/python"\nenv = { LD_LIBRARY_PATH = "/tier/lib", HF_TOKEN = "hunter2" }',
        'python = "bin/python"\ngpus = [3]',
    )
    file.write_text(
        f'{file.read_text()}\n[[tiers]]\nname = "far"\nengine = "remote"\nmodel = "m"\n'
        'url = "http://127.0.0.1:1/v1"\napi_key_env = "ODD_NAME"\n'
    )
    (folder / "bin").mkdir()
    python = folder / "bin" / "python"
    python.write_text(f"#!/bin/sh\nenv >> {folder}/env\necho '{{}}'\n")
    python.chmod(0o755)
    for name in ("ODD_NAME", "SOME_API_KEY"):
        monkeypatch.setenv(name, "hunter2")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/mine/lib")
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    done = run("hardware", "--json", "--config", file)

    assert [found["problem"] for found in json.loads(done.stdout)["interpreters"]] == [None, None]
    seen = (folder / "env").read_text().splitlines()
    assert "hunter2" not in str(seen)
    assert [line for line in seen if line.startswith("LD_LIBRARY_PATH=")] == [
        "LD_LIBRARY_PATH=/tier/lib",
        "LD_LIBRARY_PATH=/mine/lib",
    ]
    assert {line for line in seen if line.startswith(("CUDA_DEVICE_ORDER", "CUDA_VISIBLE"))} == {
        "CUDA_DEVICE_ORDER=PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES=3",
    }
    assert sum(line.startswith(f"PATH={folder}/bin:") for line in seen) == 2


def test_engines_need_not_be_asked(folder):
    file = vllm_config(folder, f'python = "{sys.executable}"')

    done = json.loads(invoke("hardware", "--json", "--no-engines", "--config", file).stdout)

    assert done["interpreters"] == []


def test_a_configuration_that_was_named_and_is_not_there_is_3(tmp_path):
    assert invoke("hardware", "--config", tmp_path / "none.toml").exit_code == 3


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--gpus", "RTX 3091"], 4),
        (["--gpus", ""], 4),
        (["--gpus", "65x24GiB"], 4),
        (["--gpus", "24GiB" + " " * 996], 4),
        (["--gpus", "٢x24GiB"], 4),
        (["--gpus", "2x RTX 4090 NVLink"], 4),
        (["--hardware", "none.json"], 2),
        (["--gpus", "24GiB", "--hardware", __file__], 2),
        (["--hardware", __file__], 4),
    ],
)
def test_machines_that_cannot_be_understood(arguments, code):
    assert invoke("hardware", *arguments).exit_code == code
    assert invoke("init", "--offline", *arguments).exit_code == code


def test_any_command_can_be_given_a_machine(tmp_path):
    seen: list[tuple[Machine, bool]] = []

    @click.command()
    @click.option("--loud", is_flag=True)
    @hardware_options
    def command(machine: Machine, loud: bool) -> None:
        """Some command."""
        seen.append((machine, loud))

    file = saved(tmp_path, detect(fake.two_h200()))
    for arguments in ([], ["--loud", "--gpus", "2x24GiB"], ["--hardware", str(file)]):
        CliRunner().invoke(command, arguments, catch_exceptions=False)

    assert [(machine.here, loud) for machine, loud in seen] == [(True, False), (False, True), (False, False)]
    assert seen[2][0].hardware == load_snapshot(file)
    assert command.help == "Some command."


def test_a_pipe_is_no_snapshot_and_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    done = invoke("hardware", "--hardware", pipe)
    assert done.exit_code == 4
    assert "no regular file" in done.stderr
