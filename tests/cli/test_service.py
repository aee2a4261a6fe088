"""The daemon as a systemd service: the unit means what it should, and systemctl is asked the right things."""

from __future__ import annotations

import configparser
import json
import os
import shlex
import stat
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.cli import _unit
from subcortex.errors import ServiceFailed
from tests.cli.helpers import run
from tests.conftest import write_config

SYSTEMCTL = f"""#!{sys.executable}
import json, os, sys
from pathlib import Path
home = Path(os.environ["FAKE_SYSTEMD"])
with (home / "asked").open("a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
failing = home / "failing"
if failing.exists() and failing.read_text() in sys.argv:
    sys.exit("Failed to connect to bus: No medium found")
if "show" in sys.argv and (home / "shown").exists():
    print((home / "shown").read_text())
"""


class Systemd:
    """A stand-in that notes what it is asked, and the command line that meets it."""

    def __init__(self, folder: Path, config: Path) -> None:
        self.folder = folder
        self.config = config
        self.unit = folder / "xdg" / "systemd" / "user" / "subcortex.service"
        program = folder / "bin" / "systemctl"
        program.parent.mkdir()
        program.write_text(SYSTEMCTL)
        program.chmod(0o755)
        self.env = {
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "XDG_CONFIG_HOME": str(folder / "xdg"),
            "FAKE_SYSTEMD": str(folder),
        }

    def service(self, *arguments: str):
        return run("service", *arguments, "--config", self.config, env=self.env)

    def asked(self) -> list[str]:
        """Return what was asked since the last look, but for whether anybody is there."""
        file = self.folder / "asked"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        commands = [json.loads(line) for line in lines]
        assert all(command[0] == "--user" for command in commands)
        return [" ".join(command[1:]) for command in commands if "--property=Version" not in command]


@pytest.fixture
def systemd(folder: Path) -> Systemd:
    return Systemd(folder, write_config(folder))


def read(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(text)
    return parser


def test_the_unit_runs_this_interpreter_on_this_configuration(systemd: Systemd) -> None:
    done = systemd.service("install", "--print")
    assert done.returncode == 0
    unit = read(done.stdout)
    service = unit["Service"]
    command = [sys.executable, "-P", "-m", "subcortex.cli", "up", "--foreground", "--config"]
    assert shlex.split(service["ExecStart"][:1] + service["ExecStart"][2:]) == [*command, str(systemd.config)]
    assert service["ExecStart"].startswith('":/'), "no variables"
    assert service["Type"] == "notify"
    assert service["KillMode"] == "mixed"
    assert service["Restart"] == "on-failure"
    assert service["RestartPreventExitStatus"].split() == ["3", "10"]
    # Longer than a drain, a grace and the wait for what hangs in the kernel: 5, 10 and 30 s.
    assert float(service["TimeoutStopSec"]) > 45
    assert service["NoNewPrivileges"] == "yes"
    assert unit["Install"]["WantedBy"] == "default.target"
    hides_gpus_or_files = {"PrivateDevices", "MemoryDenyWriteExecute", "PrivateTmp", "ProtectHome"}
    assert not hides_gpus_or_files & set(service)
    assert systemd.asked() == []
    assert not systemd.unit.exists()


def test_a_service_does_not_end_for_want_of_thoughts_unless_told_to(systemd: Systemd, folder: Path) -> None:
    assert "Environment" not in read(systemd.service("install", "--print").stdout)["Service"]
    text = systemd.config.read_text()
    systemd.config.write_text(text.replace("idle_stop_s = 600", ""))
    service = read(systemd.service("install", "--print").stdout)["Service"]
    assert service["Environment"] == "SUBCORTEX_DAEMON__IDLE_STOP_S=0"


def test_install_and_uninstall_leave_things_as_they_were(systemd: Systemd) -> None:
    done = systemd.service("install")
    assert done.returncode == 0, done.stderr
    assert systemd.asked() == ["daemon-reload", "enable --now subcortex.service"]
    assert systemd.unit.read_text() == systemd.service("install", "--print").stdout
    assert stat.S_IMODE(systemd.unit.stat().st_mode) == 0o644
    assert "enable-linger" in done.stderr
    assert systemd.service("uninstall").returncode == 0
    assert systemd.asked() == ["disable --now subcortex.service", "daemon-reload"]
    assert list(systemd.unit.parent.iterdir()) == []
    again = systemd.service("uninstall", "--json")
    assert (again.returncode, json.loads(again.stdout)["removed"], systemd.asked()) == (0, False, [])


def test_without_now_nothing_is_started_or_stopped(systemd: Systemd) -> None:
    systemd.service("install", "--no-now")
    systemd.service("uninstall", "--no-now")
    assert systemd.asked() == [
        "daemon-reload",
        "enable subcortex.service",
        "disable subcortex.service",
        "daemon-reload",
    ]


def test_a_unit_that_has_changed_is_restarted_and_one_that_has_not_is_left_alone(systemd: Systemd) -> None:
    systemd.service("install")
    systemd.service("install")
    assert not any(asked.startswith("restart") for asked in systemd.asked())
    systemd.unit.write_text(systemd.unit.read_text().replace("RestartSec=2", "RestartSec=9"))
    systemd.service("install")
    assert systemd.asked()[-1] == "restart subcortex.service"
    assert "RestartSec=2\n" in systemd.unit.read_text()


def test_somebody_elses_unit_is_left_alone(systemd: Systemd) -> None:
    systemd.unit.parent.mkdir(parents=True)
    systemd.unit.write_text("[Service]\nExecStart=/usr/bin/true\n")
    for order in ("install", "uninstall"):
        done = systemd.service(order)
        assert done.returncode == 13
        assert "was not written by" in done.stderr
    systemd.unit.unlink()
    systemd.unit.symlink_to("/dev/null")
    assert systemd.service("install").returncode == 13
    assert systemd.unit.is_symlink()


def test_without_systemd_it_is_said_and_nothing_is_written(systemd: Systemd, folder: Path) -> None:
    (folder / "failing").write_text("--property=Version")
    for order in ("install", "status"):
        done = systemd.service(order)
        assert done.returncode == 13
        assert "no systemd answers for this user" in done.stderr
        assert "No medium found" in done.stderr
        assert "--print" in done.stderr
    systemd.env["PATH"] = str(folder / "nothing")
    wire = json.loads(systemd.service("install", "--json").stdout)["error"]
    assert (wire["code"], wire["message"]) == ("service_failed", "there is no systemctl on the PATH")
    assert not systemd.unit.exists()
    assert systemd.service("install", "--print").returncode == 0


def test_what_systemd_refuses_is_told_in_its_words(systemd: Systemd, folder: Path) -> None:
    (folder / "failing").write_text("enable")
    done = systemd.service("install")
    assert done.returncode == 13
    assert "`systemctl --user enable --now subcortex.service` exited with code 1: Failed" in done.stderr


@pytest.mark.parametrize(
    ("shown", "code", "words"),
    [
        (
            "ActiveState=active\nSubState=running\nUnitFileState=enabled\nMainPID=77",
            0,
            "active (running), pid 77;",
        ),
        ("ActiveState=failed\nSubState=failed\nUnitFileState=disabled\nMainPID=0", 1, "failed (failed); not"),
    ],
)
def test_status_tells_what_runs(systemd: Systemd, folder: Path, shown: str, code: int, words: str) -> None:
    assert systemd.service("status").stdout == "not installed: `subcortex service install`\n"
    systemd.service("install")
    (folder / "shown").write_text(shown)
    done = systemd.service("status")
    assert (done.returncode, done.stdout[: len(words)], done.stderr) == (code, words, "")
    facts = json.loads(systemd.service("status", "--json").stdout)
    assert (facts["active"], facts["enabled"], facts["current"]) == (code == 0, code == 0, True)
    systemd.unit.write_text(systemd.unit.read_text() + "# changed\n")
    assert "not what this configuration asks for" in systemd.service("status").stderr


@pytest.mark.parametrize("name", ["a\nb", "a\x1bb", "a\udcffb", "a\tb"])
def test_a_path_that_no_unit_can_hold_is_refused(name: str) -> None:
    with pytest.raises(ServiceFailed, match="cannot name"):
        _unit.command_line(["/bin/python", f"/home/{name}/config.toml"])


@given(
    st.lists(
        st.text(st.characters(min_codepoint=32, max_codepoint=126) | st.sampled_from("äß中€")), max_size=4
    )
)
def test_every_argument_arrives_as_it_is(words: list[str]) -> None:
    line = _unit.command_line(["/usr/bin/my python", *words])
    assert "\n" not in line
    # Within double quotes systemd and a shell agree on backslashes; %% is systemd's own.
    assert "%" not in line.replace("%%", "")
    assert [word.replace("%%", "%") for word in shlex.split(line)] == [":/usr/bin/my python", *words]


def test_the_folder_follows_xdg() -> None:
    assert _unit.folder({"XDG_CONFIG_HOME": "/x"}) == Path("/x/systemd/user")
    assert _unit.folder({"XDG_CONFIG_HOME": "relative"}) == Path.home() / ".config/systemd/user"
    assert _unit.folder({}) == Path.home() / ".config/systemd/user"
