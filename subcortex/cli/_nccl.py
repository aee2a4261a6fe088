"""``doctor --nccl-debug``: one start of an engine with NCCL's and torch's own tracing."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from pathlib import Path

from subcortex.cli import _output
from subcortex.config import Config, RemoteTier
from subcortex.errors import InvalidRequest, SubcortexError

TRACING = {
    "NCCL_DEBUG": "INFO",
    "NCCL_DEBUG_SUBSYS": "INIT,ENV,GRAPH,P2P,SHM,NET",
    "TORCH_CPP_LOG_LEVEL": "INFO",
    "TORCH_DISTRIBUTED_DEBUG": "DETAIL",
}
_MOST_LINES = 60
#: Warnings, the version, what was chosen for each peer (P2P, SHM, NET), and how the start ended.
_TELLING = re.compile(
    r"NCCL WARN|NCCL version|NCCL_[A-Z_]+ set|\bvia (?:P2P|SHM|NET)|Init COMPLETE|Init START"
)
_VARYING = re.compile(r"^.*?NCCL (?:INFO|WARN) |\b(?:0x)?[0-9a-f]{6,}\b|\[\d+\]")


def trace(config: Config, name: str, *, as_json: bool) -> int:
    """Start the tier's engine with tracing, stop it, and print where its log is and what it tells.

    Returns:
        0, or the exit code of what stopped the start; its log is read either way.
    """
    from subcortex.daemon.lock import hold
    from subcortex.paths import private_folder

    try:
        tier = config.tier(name)
    except KeyError:
        names = ", ".join(tier.name for tier in config.tiers)
        raise InvalidRequest(f"there is no tier {name!r}", hint=f"One of: {names}.", param="tier") from None
    if isinstance(tier, RemoteTier):
        raise InvalidRequest(f"tier {name} is remote: its engine is not ours to start", hint="Ask its owner.")
    log = config.log_dir / f"{name}.log"
    # The daemon's own lock: two engines of one tier would fight for its socket and its memory.
    with hold(private_folder(config.runtime_dir)):
        if not as_json:
            _output.note(f"starting {name} with NCCL_DEBUG=INFO; its log is {log}")
        error = asyncio.run(_start_and_stop(config, name, quiet=as_json))
    lines = telling_lines(_read(log))
    if as_json:
        wire = error.to_wire() if error else None
        _output.print_json({"tier": name, "log": str(log), "lines": lines, "error": wire})
    else:
        for line in lines or ["no NCCL line in the log: NCCL speaks when more than one GPU works together"]:
            _output.say(_output.inert(line))
        _output.say(f"the whole log: {log}")
        if error:
            _output.print_subcortex_error(error, as_json=False)
    return error.exit_code if error else 0


async def _start_and_stop(config: Config, name: str, *, quiet: bool) -> SubcortexError | None:
    from subcortex import engines
    from subcortex.engines.protocol import Progress

    tier = config.tier(name)
    assert not isinstance(tier, RemoteTier)
    traced = tier.model_copy(update={"env": {**tier.env, **TRACING}})
    engine = engines.create(traced, config=config)
    listeners = [] if quiet else [lambda text: _output.note(_output.inert(text))]
    try:
        async with asyncio.timeout(tier.start_timeout_s):
            await engine.start(Progress(listeners=listeners))
    except SubcortexError as error:
        return error
    except TimeoutError:
        return SubcortexError(f"{name} was not ready within {tier.start_timeout_s:g} s", hint="Read its log.")
    finally:
        await engine.stop()
    return None


def _read(log: Path) -> list[str]:
    try:
        return log.read_text("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []


def telling_lines(lines: Iterable[str]) -> list[str]:
    """Return the lines of a log that say how NCCL connects the GPUs, each once."""
    kept: dict[str, str] = {}
    for line in lines:
        if _TELLING.search(line):
            kept.setdefault(_VARYING.sub("", line), line.strip())
    return list(kept.values())[:_MOST_LINES]
