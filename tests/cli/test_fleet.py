"""up, ps, logs and down with real daemons."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import psutil
import pytest

from subcortex.cli._ps_view import ledger_lines
from subcortex.cli.logs import tail
from subcortex.types import DeviceLedger, ForeignProcess, Ledger, TierShare
from tests.cli.helpers import COMMAND, run, run_on_terminal
from tests.conftest import wait_for, write_config


@pytest.fixture
def file(folder):
    path = write_config(folder)
    yield path
    run("down", "--config", path)


def test_up_waits_for_the_tiers_and_down_ends_everything(file):
    up = run("up", "--config", file)
    ps = run("ps", "--config", file)
    status = json.loads(run("ps", "--json", "--config", file).stdout)
    down = run("down", "--config", file)

    assert up.returncode == 0
    assert up.stdout.startswith(f"daemon started: pid {status['daemon']['pid']}")
    assert "fast: ready\n" in up.stderr
    assert "deep: ready\n" in up.stderr
    assert [(tier["name"], tier["state"]) for tier in status["tiers"]] == [
        ("fast", "ready"),
        ("deep", "ready"),
    ]
    lines = ps.stdout.splitlines()[1:]
    header, *rows = lines[: lines.index("")]
    assert header.split()[:3] == ["TIER", "ENGINE", "STATE"]
    assert [row.split()[:3] for row in rows] == [
        ["fast", "llama.cpp", "ready"],
        ["deep", "llama.cpp", "ready"],
    ]
    header, *rows = lines[lines.index("") + 1 :]
    assert header.split() == ["DEVICE", "HOLDER", "PLANNED", "TAKEN", "DIFFERENCE"]
    assert rows[0].startswith("host memory  fast ")
    assert [row.split()[0] for row in rows[1:]] == ["deep", "others", "free"]
    host = status["ledger"]["devices"][-1]
    parts = sum(share["taken_mib"] for share in host["tiers"]) + host["foreign_mib"]
    assert parts + host["unexplained_mib"] == pytest.approx(host["used_mib"])
    assert down.stdout == "daemon stopped\n"
    assert run("ps", "--config", file).returncode == 9
    for process in (status["daemon"], *status["tiers"]):
        assert _ended(process["pid"])


def test_the_ledger_is_a_table_that_fits_two_cards():
    ledger = Ledger(
        devices=[
            DeviceLedger(
                name="RTX 3060 Ti",
                gpu_index=0,
                total_mib=8192,
                used_mib=7000,
                tiers=[
                    TierShare(tier="fast", planned_mib=5000, taken_mib=5100),
                    TierShare(tier="deep", planned_mib=900, taken_mib=900, assumed=True),
                    TierShare(tier="odd", taken_mib=None),
                ],
                foreign=[
                    ForeignProcess(pid=99, name="\x1b[31mgame", mib=700),
                    ForeignProcess(pid=98),
                ],
                foreign_mib=700,
                unexplained_mib=300,
                reserve_mib=640,
                plannable_mib=1000,
            ),
            DeviceLedger(name="GTX 1060", gpu_index=1, total_mib=3072, used_mib=0, plannable_mib=3072),
        ]
    )
    assert [" ".join(line.split()) for line in ledger_lines(ledger)] == [
        "",
        "DEVICE HOLDER PLANNED TAKEN DIFFERENCE",
        "GPU 0 RTX 3060 Ti fast 4.9 GiB 5.0 GiB +100 MiB",
        "deep 900 MiB ~900 MiB +0 MiB",
        "odd - ? -",
        "␛[31mgame (99) 700 MiB",
        "process (98) ?",
        "unexplained 300 MiB",
        "free 1.2 GiB of 8.0 GiB, 1000 MiB to plan with, 640 MiB kept free",
        "GPU 1 GTX 1060 free 3.0 GiB of 3.0 GiB",
    ]
    assert ledger_lines(Ledger()) == []


def _ended(pid: int) -> bool:
    # In a container nobody may collect an orphan, so a zombie counts as ended.
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_up_and_down_twice_are_no_errors(file):
    first = json.loads(run("up", "--json", "--config", file).stdout)
    again = json.loads(run("up", "--json", "--config", file).stdout)
    downs = [json.loads(run("down", "--json", "--config", file).stdout) for _ in range(2)]

    assert (first["started"], again["started"]) == (True, False)
    assert first["daemon"]["pid"] == again["daemon"]["pid"]
    assert downs == [{"stopped": True}, {"stopped": False}]


def test_a_tier_that_fails_is_named_and_the_other_serves(folder):
    file = write_config(folder, deep='env = { A = "b" }')
    file.write_text(file.read_text().replace("deep.gguf", "none.gguf"))
    try:
        up = run("up", "--config", file)
        answer = run("think", "what is 1 + 2?", "--config", file)
    finally:
        run("down", "--config", file)

    assert up.returncode != 0
    assert "tier deep failed" in up.stderr
    assert "none.gguf" in up.stderr
    assert "fast: ready" in up.stderr
    assert answer.returncode == 0


def test_a_wrong_config_is_3_and_starts_nothing(folder):
    file = write_config(folder, daemon="autostrat = true")

    done = run("up", "--config", file)

    assert done.returncode == 3
    assert "autostart" in done.stderr
    assert not (folder / "run").exists()


def test_foreground_stays_until_it_is_asked_to_stop(file):
    child = subprocess.Popen(
        [*COMMAND, "up", "--foreground", "--config", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        wait_for(lambda: run("ps", "--config", file).returncode == 0)
        second = run("up", "--foreground", "--config", file)
    finally:
        child.send_signal(signal.SIGINT)
        _, said = child.communicate()

    assert second.returncode == 10
    assert str(child.pid) in second.stderr
    assert child.returncode == 0
    assert b"Traceback" not in said


def test_on_a_terminal_each_tier_keeps_one_line(file):
    code, shown = run_on_terminal("up", "--config", file, env={"NO_COLOR": ""})

    assert code == 0
    assert "fast: ready" in shown
    assert "\x1b[1A" in shown  # moves up to redraw in place


def test_logs_show_the_end_also_when_the_daemon_is_down(folder):
    file = write_config(folder)
    (folder / "logs").mkdir()
    (folder / "logs" / "deep.log").write_bytes(b"one\ntwo \x1b[31mred\xff\nthree\n")

    done = run("logs", "deep", "-n", "2", "--config", file)
    as_json = json.loads(run("logs", "deep", "--json", "--config", file).stdout)

    assert done.stdout == "two ␛[31mred�\nthree\n"
    assert as_json["lines"] == ["one", "two \x1b[31mred�", "three"]


@pytest.mark.parametrize(
    ("tier", "said"), [("nope", "One of: fast, deep, daemon."), ("fast", "has no log yet")]
)
def test_logs_that_are_not_there(folder, tier, said):
    done = run("logs", tier, "--config", write_config(folder))

    assert done.returncode == 4
    assert said in done.stderr


def test_follow_sees_what_is_added_across_a_rotation(folder):
    file = write_config(folder)
    (folder / "logs").mkdir()
    log = folder / "logs" / "fast.log"
    log.write_text("old\n")
    child = subprocess.Popen(
        [*COMMAND, "logs", "fast", "-f", "--config", str(file)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        text=True,
    )
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "old\n"
        with log.open("a") as stream:
            stream.write("added\n")
        assert child.stdout.readline() == "added\n"
        log.rename(folder / "logs" / "fast.log.1")
        log.write_text("after rotation\n")
        assert child.stdout.readline() == "after rotation\n"
    finally:
        child.kill()
        child.stdout.close()
        child.wait()


def test_tail_reads_no_more_than_it_may_print(tmp_path):
    log = tmp_path / "log"
    log.write_text("".join(f"line {i}\n" for i in range(200_000)))

    assert tail(log, 2) == (["line 199998", "line 199999"], log.stat().st_size)
    assert tail(log, 0) == ([], log.stat().st_size)
