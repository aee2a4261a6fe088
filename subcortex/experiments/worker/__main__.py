"""``python -m subcortex.experiments.worker --config FILE RUN_ID…``: do runs that wait in the journal.

The daemon starts it with the configuration that it serves itself (``handing``); a person may give the TOML
file. SIGTERM has the run under way give way.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import signal
import sys
from pathlib import Path

import structlog

from subcortex.config import Config
from subcortex.errors import SubcortexError
from subcortex.experiments.worker.handing import handed_over
from subcortex.experiments.worker.running import work

#: A load of a thousand requests has as many sockets; by default a process may open 1024 files.
_FILES = 16384
#: What is left of a run that was told to stop has this long to end; seconds.
_LAST_S = 0.5


def main() -> int:
    """Do the runs and return the exit code; one that failed is no failure of the worker."""
    parser = argparse.ArgumentParser(prog="subcortex-experiments-worker", description="Do experiments.")
    parser.add_argument("--config", required=True, type=Path, help="a config.toml, or what a daemon wrote")
    parser.add_argument("run_ids", nargs="+", metavar="RUN_ID")
    given = parser.parse_args()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
    _may_open(_FILES)
    try:
        asyncio.run(_until_told(handed_over(given.config), given.run_ids))
    except SubcortexError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _may_open(files: int) -> None:
    """Allow this process, and what it starts, so many open files, or as many as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = files if hard == resource.RLIM_INFINITY else min(files, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


async def _until_told(config: Config, run_ids: list[str]) -> None:
    working = asyncio.create_task(work(config, run_ids))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, _stop, working)
    try:
        await working
    except asyncio.CancelledError:
        structlog.get_logger("worker").info("stopped")


def _stop(working: asyncio.Task[None]) -> None:
    working.cancel()
    # Whoever asked wants the machine now. What would not end in time is ended by its keepers.
    asyncio.get_running_loop().call_later(_LAST_S, os._exit, 0)


if __name__ == "__main__":
    sys.exit(main())
