"""The worker's process as the daemon has it: started, watched, killed with all that it started. Effects."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from subcortex import paths
from subcortex.config import Config
from subcortex.engines.process import EngineProcess, reap, reap_leftovers
from subcortex.errors import EngineFailed
from subcortex.experiments.worker.handing import hand_over

#: How the worker is started; what follows are its arguments.
COMMAND = (sys.executable, "-m", "subcortex.experiments.worker")
_LEFTOVER_GRACE_S = 1.0


class Worker:
    """One worker with its engines and probes, from its start until none of them is left."""

    def __init__(self, process: EngineProcess, lab: Path) -> None:
        self._process = process
        self._lab = lab

    @classmethod
    async def start(cls, config: Config, run_ids: Sequence[str], command: Sequence[str] = COMMAND) -> Worker:
        """Start a worker on runs that wait in the journal.

        It ends with this process, however that ends: it is kept as engines are, and nobody adopts it.

        Raises:
            EngineFailed: It could not be started.
        """
        lab = lab_of(config.runtime_dir)
        folder = paths.private_folder(paths.private_folder(lab) / "worker")
        await asyncio.to_thread(reap_lab, config.runtime_dir)
        handed = folder / "config.json"
        try:
            await asyncio.to_thread(hand_over, config, handed)
        except OSError as error:
            raise EngineFailed(f"{handed} cannot be written: {error.strerror}") from error
        process = await EngineProcess.spawn(
            [*command, "--config", str(handed), *run_ids],
            env=os.environ,
            folder=folder,
            log_path=config.log_dir / "experiments" / "worker.log",
        )
        return cls(process, lab)

    async def ended(self) -> str:
        """Wait for its end and return it in words."""
        return await self._process.exited()

    async def kill(self) -> None:
        """Kill it with its engines and probes at once; returns when none is left.

        Raises:
            EngineFailed: Some would not die within 30 seconds.
        """
        # Its engines are found by their parents while those live, so all go in one look.
        await asyncio.to_thread(self._process.kill)
        await self._process.stop(0.0)
        # One that was being started at that moment has a keeper of its own, and a record.
        await asyncio.to_thread(reap_leftovers, self._lab, grace_s=0.0)

    def log_tail(self, lines: int = 30) -> str:
        """Return the end of what it said."""
        return self._process.log.tail(lines)


def lab_of(runtime_dir: Path) -> Path:
    """Return the folder of everything that experiments start, under a daemon's own."""
    return runtime_dir / "lab"


def reap_lab(runtime_dir: Path) -> list[str]:
    """End what experiments of a dead daemon left, the worker first; blocks. A sentence for each."""
    lab = lab_of(runtime_dir)
    worker = reap(lab / "worker", grace_s=_LEFTOVER_GRACE_S)
    return [*([worker] if worker else []), *reap_leftovers(lab, grace_s=_LEFTOVER_GRACE_S)]
