"""The systemd unit of the daemon: what stands in it and where it lies. Nothing here is run or written."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from subcortex.config import Config
from subcortex.errors import ConfigError, ServiceFailed

NAME = "subcortex.service"
_HEAD = "# Written by `subcortex service install`, anew each time; `systemctl --user edit` keeps changes."

# Why not more of systemd's hardening: a namespace of its own for files is refused to users on many machines;
# PrivateDevices hides the GPUs, MemoryDenyWriteExecute ends compilers of kernels, PrivateTmp and ProtectHome
# hide sockets and models.
_UNIT = """{head}
[Unit]
Description=Subcortex, local models behind one call
StartLimitIntervalSec=300
StartLimitBurst=5

[Service]
Type=notify
ExecStart={command}
{environment}# The daemon is asked alone and ends its engines in order; what is left of the group is killed.
KillMode=mixed
TimeoutStartSec=90
TimeoutStopSec=90
Restart=on-failure
RestartSec=2
# A wrong configuration, or another daemon, does not go away by trying again.
RestartPreventExitStatus=3 10
# An engine that the kernel killed for want of memory is restarted by the daemon, without ending the others.
OOMPolicy=continue
NoNewPrivileges=yes
LockPersonality=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
UMask=0077

[Install]
WantedBy=default.target
"""


def folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the user's units lie."""
    named = environ.get("XDG_CONFIG_HOME", "")
    # The rules of XDG: a relative one is passed over.
    home = Path(named) if named.startswith("/") else Path.home() / ".config"
    return home / "systemd" / "user"


def is_ours(text: str) -> bool:
    """Return whether a unit was written by us, by any version."""
    return text.startswith(_HEAD.partition(",")[0])


def rendered(config: Config) -> str:
    """Return the unit of a daemon on that configuration.

    Raises:
        ConfigError: The configuration is in no file.
        ServiceFailed: A path has characters that a unit cannot hold.
    """
    if config.source is None:
        raise ConfigError("the configuration is in no file", hint="Name one with --config.", key="source")
    # -P: the current folder is no place to import from.
    words = [
        sys.executable,
        "-P",
        "-m",
        "subcortex.cli",
        "up",
        "--foreground",
        "--config",
        str(config.source),
    ]
    environment = ""
    if "idle_stop_s" not in config.daemon.model_fields_set:
        # The default is for a daemon that the next thought starts again; a service is there to stay.
        environment = "Environment=SUBCORTEX_DAEMON__IDLE_STOP_S=0\n"
    return _UNIT.format(head=_HEAD, command=command_line(words), environment=environment)


def command_line(words: Sequence[str]) -> str:
    """Return a program and its arguments as ``ExecStart`` takes them, each to arrive as it is.

    Raises:
        ServiceFailed: One has a control character, or is not UTF-8.
    """
    # The colon before the program turns variables off: a dollar is a dollar.
    first, *others = words
    return " ".join([_quoted(f":{first}"), *map(_quoted, others)])


def _quoted(word: str) -> str:
    if not word.isprintable():
        raise ServiceFailed(
            f"a systemd unit cannot name {word!r}",
            hint="Move it to a path without line breaks, control characters and bytes that are not UTF-8.",
        )
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'
