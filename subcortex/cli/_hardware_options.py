"""``--hardware FILE`` and ``--gpus CARDS``: this machine, or one that stands in for it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from subcortex.hardware import Hardware


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine that a command is about.

    Args:
        hardware: What it has.
        here: It is this one; otherwise a snapshot's, or this one's host with cards that a person named.
    """

    hardware: Hardware
    here: bool

    def to_plan_on(self) -> Hardware:
        """Return what it has, if that can be planned on.

        Raises:
            InvalidRequest: A card is in MIG mode.
        """
        from subcortex.hardware import refuse_mig

        refuse_mig(self.hardware)
        return self.hardware


def hardware_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add both options; the command gets ``machine``, a ``Machine``, in their place."""

    @functools.wraps(function)
    def command(*args: Any, snapshot: Path | None, gpus: str | None, **options: Any) -> Any:
        return function(*args, machine=resolve(snapshot, gpus), **options)

    with_gpus = click.option(
        "--gpus",
        metavar="CARDS",
        help='These GPUs in place of its own: "2x24GiB", "RTX 3060 Ti + GTX 1060 3GB", "2x RTX 3090 NVLink".',
    )
    with_snapshot = click.option(
        "--hardware",
        "snapshot",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        help="The machine in this snapshot, as `subcortex hardware --save` writes one.",
    )
    return with_snapshot(with_gpus(command))


def resolve(snapshot: Path | None, gpus: str | None) -> Machine:
    """Return the machine that was named, this one if none was.

    Raises:
        UsageError: Both were given.
        InvalidRequest: The file is no snapshot, or the text no cards.
    """
    from subcortex import hardware

    if snapshot is not None and gpus is not None:
        raise click.UsageError("give --gpus or --hardware, not both")
    if snapshot is not None:
        return Machine(hardware.load_snapshot(snapshot), here=False)
    if gpus is not None:
        return Machine(hardware.with_gpus(gpus), here=False)
    return Machine(hardware.detect(), here=True)
