"""What is loaded before anybody asks for an experiment."""

from __future__ import annotations

import subprocess
import sys


def loaded(statement: str) -> set[str]:
    """Return the modules of this program that a statement loads, in an interpreter of its own."""
    script = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name for name in done.stdout.split() if name.startswith(("subcortex", "apscheduler"))}


def test_a_daemon_loads_neither_catalogue_nor_statistics_before_it_is_asked():
    found = loaded("import subcortex.daemon.serve")

    assert "subcortex.mind.experimenting.supervisor" in found
    assert "subcortex.experiments.experiment" not in found
    parts = ("catalogue", "choice", "laboratory", "probes", "saturation", "statistics")
    assert not [
        name for name in found if name.startswith(tuple(f"subcortex.experiments.{part}" for part in parts))
    ]
    assert "apscheduler" not in found


def test_a_thought_loads_nothing_of_experiments():
    assert not [name for name in loaded("from subcortex import think") if "experiment" in name]
