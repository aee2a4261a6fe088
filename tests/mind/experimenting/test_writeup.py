"""How a run is written up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from subcortex.experiments.choice import guessed
from subcortex.experiments.experiment import Answer
from subcortex.experiments.laboratory.lab import PROBES
from subcortex.mind.experimenting.writeup import belief, command, sentence


def test_a_command_names_no_place_of_this_machine():
    script = str(PROBES / "machine_speed.py")
    assert command(["/opt/venv/bin/python", script, "--device", "cpu", "a b"]) == (
        "python subcortex/experiments/probes/machine_speed.py --device cpu 'a b'"
    )
    assert command(["llama-bench", "-m", str(Path("/models/x y.gguf"))]) == "llama-bench -m 'x y.gguf'"


def test_no_share_is_believed_to_be_more_than_all():
    assert belief(guessed("share", 100.0), "%").endswith("to 100 %)")
    assert not belief(guessed("share", 100.0), "x").endswith("to 100 x)")


def test_an_inconclusive_answer_says_once_what_it_would_have_taken():
    def told(statement: str, **known: Any) -> str:
        return sentence(Answer("speed_ratio", "a model", "x", "inconclusive", statement, **known))

    assert told(
        "A, B: inconclusive; still growing (n = 70 windows)", value=180.0, low=119.0, high=274.0, n=70
    ) == ("A, B: inconclusive; still growing (n = 70 windows)")
    assert told("1.03 times (n = 4): inconclusive", n=4, n_needed=8).endswith(
        ": inconclusive (8 blocks would settle it)"
    )
    assert "one block alone bounds nothing" in told("A runs at 0.9 times.", value=0.9, n=1)
    reach = told("A runs at 0.9 times.", value=0.9, low=0.1, high=8.0, n=5)
    assert reach.endswith("n = 5, inconclusive; no number of blocks within reason would settle it).")
