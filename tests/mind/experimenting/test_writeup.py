"""How a run is written up."""

from __future__ import annotations

from pathlib import Path

from subcortex.experiments.choice import guessed
from subcortex.experiments.laboratory.lab import PROBES
from subcortex.mind.experimenting.writeup import belief, command


def test_a_command_names_no_place_of_this_machine():
    script = str(PROBES / "machine_speed.py")
    assert command(["/opt/venv/bin/python", script, "--device", "cpu", "a b"]) == (
        "python subcortex/experiments/probes/machine_speed.py --device cpu 'a b'"
    )
    assert command(["llama-bench", "-m", str(Path("/models/x y.gguf"))]) == "llama-bench -m 'x y.gguf'"


def test_no_share_is_believed_to_be_more_than_all():
    assert belief(guessed("share", 100.0), "%").endswith("to 100 %)")
    assert not belief(guessed("share", 100.0), "x").endswith("to 100 x)")
