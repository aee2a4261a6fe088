"""``service``: the daemon as a systemd user service."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import click

from subcortex.cli import _output
from subcortex.cli._options import common_options, load_config
from subcortex.errors import ServiceFailed

#: `enable --now` waits for the daemon's socket, `disable --now` for the end of its engines.
_LIMIT_S = 120.0
_PROPERTIES = ("LoadState", "UnitFileState", "ActiveState", "SubState", "MainPID")


@click.group("service")
def service_command() -> None:
    """Have systemd keep the daemon up, as a service of this user."""


@service_command.command("install")
@click.option("--now/--no-now", default=True, help="Start it at once (the default), or with the next login.")
@click.option("--print", "print_only", is_flag=True, help="Print the unit and change nothing.")
@common_options
def _install_command(config_file: Path | None, as_json: bool, now: bool, print_only: bool) -> None:
    """Write the unit, and have systemd start it now and with every login.

    `loginctl enable-linger` has it run from boot on, also while nobody is logged in. A daemon that is up
    already has to go first: `subcortex down`.
    """
    from subcortex.cli import _unit

    text = _unit.rendered(load_config(config_file))
    path = _unit.folder() / _unit.NAME
    if print_only:
        _output.print_json({"unit": str(path), "text": text}) if as_json else _output.say(text.rstrip("\n"))
        return
    _check_systemd()
    _check_ours(path)
    before = path.read_text("utf-8", "replace") if path.exists() else text
    _write(path, text)
    _systemctl("daemon-reload")
    _systemctl("enable", *(["--now"] if now else []), _unit.NAME)
    if now and before != text:
        # One that ran on the older unit would go on with that.
        _systemctl("restart", _unit.NAME)
    if as_json:
        _output.print_json({"unit": str(path), "started": now})
        return
    _output.say(f"{path} is written and enabled{', and the daemon is up' if now else ''}")
    _output.note("It ends with your last session; `loginctl enable-linger` has it run from boot on.")


@service_command.command("uninstall")
@click.option("--now/--no-now", default=True, help="Stop it at once (the default), or let it run on.")
@common_options
def _uninstall_command(config_file: Path | None, as_json: bool, now: bool) -> None:
    """Have systemd forget the service, and remove the unit. It is no error if there is none."""
    from subcortex.cli import _unit

    del config_file
    path = _unit.folder() / _unit.NAME
    there = path.exists() or path.is_symlink()
    if there:
        _check_ours(path)
        _check_systemd()
        _systemctl("disable", *(["--now"] if now else []), _unit.NAME)
        path.unlink(missing_ok=True)
        _systemctl("daemon-reload")
    if as_json:
        _output.print_json({"unit": str(path), "removed": there})
    else:
        _output.say(f"{path} is removed" if there else f"there is no {path}")


@service_command.command("status")
@common_options
def _status_command(config_file: Path | None, as_json: bool) -> int:
    """Say whether the service is installed, up to date and running; exit code 1 if it does not run."""
    from subcortex.cli import _unit

    path = _unit.folder() / _unit.NAME
    text = path.read_text("utf-8", "replace") if path.exists() else None
    current = text is not None and text == _unit.rendered(load_config(config_file))
    _check_systemd()
    shown = _systemctl("show", f"--property={','.join(_PROPERTIES)}", _unit.NAME)
    found = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    active = found.get("ActiveState") == "active"
    facts: dict[str, Any] = {
        "unit": str(path),
        "installed": text is not None,
        "current": current,
        "enabled": found.get("UnitFileState") == "enabled",
        "active": active,
        "state": f"{found.get('ActiveState', 'unknown')} ({found.get('SubState', 'unknown')})",
        "pid": int(found.get("MainPID") or 0) or None,
    }
    if as_json:
        _output.print_json(facts)
    elif text is None:
        _output.say("not installed: `subcortex service install`")
    else:
        login = "starts with the login" if facts["enabled"] else "not enabled"
        pid = f", pid {facts['pid']}" if facts["pid"] else ""
        _output.say(f"{facts['state']}{pid}; {login}; {path}")
        if not current:
            _output.note("The unit is not what this configuration asks for: `subcortex service install`.")
    return 0 if active else 1


def _check_systemd() -> None:
    """Raise ServiceFailed unless a systemd of this user can be asked."""
    hint = "`subcortex service install --print` prints the unit; `subcortex up` needs no systemd."
    if shutil.which("systemctl") is None:
        raise ServiceFailed("there is no systemctl on the PATH", hint=hint)
    try:
        _systemctl("show", "--property=Version")
    except ServiceFailed as error:
        raise ServiceFailed(f"no systemd answers for this user: {error.message}", hint=hint) from None


def _systemctl(*arguments: str) -> str:
    command = ["systemctl", "--user", *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, timeout=_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise ServiceFailed(
            f"`{' '.join(command)}` did not end within {_LIMIT_S:g} s",
            hint="`journalctl --user -u subcortex` has the daemon's own words.",
        ) from None
    if done.returncode != 0:
        words = done.stderr.decode("utf-8", "replace").strip()[-1000:] or "without a word why"
        raise ServiceFailed(
            f"`{' '.join(command)}` exited with code {done.returncode}: {words}",
            hint="`journalctl --user -u subcortex` has the daemon's own words.",
            exit_status=done.returncode,
        )
    return done.stdout.decode("utf-8", "replace")


def _check_ours(path: Path) -> None:
    from subcortex.cli import _unit

    if (path.exists() or path.is_symlink()) and not _unit.is_ours(path.read_text("utf-8", "replace")):
        raise ServiceFailed(
            f"{path} was not written by `subcortex service install`",
            hint="Move it away (`systemctl --user unmask subcortex` if it is masked), and try again.",
        )


def _write(path: Path, text: str) -> None:
    """Replace the unit at one stroke: systemd never reads half of one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, encoding="utf-8", delete=False) as file:
            file.write(text)
        fresh = Path(file.name)
        fresh.chmod(0o644)
        os.replace(fresh, path)  # noqa: PTH105
    except OSError as error:
        raise ServiceFailed(
            f"{path} cannot be written: {error.strerror}", hint="Mind the folder's owner and mode."
        ) from None
