"""Queue the runs that a file lists, and wait until none is left: ``ask.py [--ask FILE] [--follow SECONDS]``.

A line each: NAME [SUBJECT [MINUTES]]; ``-`` stands for every subject. The configuration is SUBCORTEX_CONFIG's.
"""

import argparse
import time
from pathlib import Path

from subcortex.client import Client
from subcortex.config import load
from subcortex.errors import SubcortexError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ask", type=Path)
    parser.add_argument("--follow", type=float, default=0.0)
    args = parser.parse_args()
    client = Client(load())
    for line in args.ask.read_text().splitlines() if args.ask else ():
        name, subject, minutes, *_ = [*line.split("#")[0].split(), None, None, None]
        if name is None:
            continue
        try:
            runs = client.run_experiments(
                [name],
                subject=None if subject in (None, "-") else subject,
                minutes=None if minutes is None else float(minutes),
            )
            print("asked", name, *(f"{run.subject}:{run.state}" for run in runs), flush=True)
        except SubcortexError as error:
            print("not asked", name, subject, error, flush=True)
    until_s, last = time.monotonic() + args.follow, ""
    while time.monotonic() < until_s:
        runs = client.open_experiments()
        at_work = [run for run in runs if run.state != "queued"]
        words = f"{len(runs)} left; " + "; ".join(
            f"{run.experiment} {run.subject} {run.state} {run.progress}" for run in at_work
        )
        if words != last:
            print(time.strftime("%T"), words, flush=True)
        last = words
        if not runs:
            break
        time.sleep(2)


main()
