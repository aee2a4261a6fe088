"""Every line of the seed notes that says how much memory something takes, or whether it fits, derived anew.

    python -m tests.vram.seeds > docs/seeds-vram.md

Theirs are figures and a few words of each line; ours are computed by the planner when the table is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Literal

from tests.vram.seed_figures import SURE, Room

Verdict = Literal["right", "roughly", "wrong"]
#: A figure is right within this share of what was said, which is rounded, and roughly so within that.
RIGHT, ROUGHLY = 0.05, 0.15


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of theirs, or the two ends of one, and ours."""

    low: float
    unit: str
    ours: Callable[[], float]
    high: float | None = None

    def derived(self) -> tuple[str, str, Verdict]:
        """Return theirs and ours as words, and the verdict."""
        value, high = self.ours(), self.low if self.high is None else self.high
        off = max(1 - value / self.low if self.low else float(value > 0), value / high - 1 if high else 0.0)
        verdict: Verdict = "right" if off <= RIGHT else "roughly" if off <= ROUGHLY else "wrong"
        theirs = f"{self.low:.4g}" if self.high is None else f"{self.low:g} to {self.high:g}"
        if high == inf:
            theirs = f"at least {self.low:g}"
        return f"{theirs} {self.unit}", f"{value:,.4g} {self.unit}", verdict


@dataclass(frozen=True, slots=True)
class Fits:
    """That something fits, or does not, and what we find."""

    theirs: bool
    ours: Callable[[], Room]

    def derived(self) -> tuple[str, str, Verdict]:
        """Return theirs and ours as words, and the verdict."""
        room = self.ours()
        said = "fits" if self.theirs else "does not fit"
        if 1 - SURE < room.probability < SURE:
            return said, f"fits with p = {room.probability:.2f}. {room.words}", "roughly"
        fits = room.probability >= SURE
        ours = f"{'fits' if fits else 'does not fit'}. {room.words}"
        return said, ours, "right" if fits == self.theirs else "wrong"


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that a line says.

    Args:
        seed: Number of the file.
        line: Of the file, from 1.
        words: A few of the line's own.
        asked: What it comes to.
        verdict: What became of it; the test derives it again.
        why: What is wrong with it, or what it leaves out; empty where nothing is to be said.
    """

    seed: str
    line: int
    words: str
    asked: Figure | Fits
    verdict: Verdict
    why: str = ""


_ABOUT = {
    "000": "dual RTX 3090s (beside the three asked for)",
    "001": "distributed inference, Llama-2 70B",
    "002": "vLLM's memory, Qwen3 1.7B",
    "003": "an RTX 3060 Ti and a GTX 1060 3GB with llama.cpp",
    "004": "notes on vLLM (beside the three asked for)",
}
_HEAD = """# Claims about memory, checked

Written by `python -m tests.vram.seeds > docs/seeds-vram.md`; `tests/vram/test_seeds.py` derives it again.
Each row is a line of the notes that this project began with, or one of the things that it says: theirs, what
the planner says to the same question, and where the two differ, why.

A figure is *right* within {right:.0%} of what was said and *roughly* right within {roughly:.0%}. Something
*fits* where the planner gives it {sure:.0%} or more, and does not at {unsure:.0%} or less; between, the line
is *roughly* right either way. "Of … MiB" is what may be planned of a card: its memory less the driver's share
and a margin, with no display attached. llama.cpp runs as in the notes: 8,192 tokens of context, an f16 cache,
all layers on GPUs. vLLM runs at its default share of the card, 0.9. Nothing here was measured on those cards;
what the estimates rest on is in [design/vram.md](design/vram.md).
"""


def rendered() -> str:
    """Return the page."""
    from tests.vram.seed_claims import CLAIMS

    counted = Counter(claim.verdict for claim in CLAIMS)
    parts = [_HEAD.format(right=RIGHT, roughly=ROUGHLY, sure=SURE, unsure=1 - SURE)]
    parts.append(
        f"Of {len(CLAIMS)} rows, {counted['right']} are right, {counted['roughly']} roughly, "
        f"{counted['wrong']} wrong.\n"
    )
    for seed in sorted({claim.seed for claim in CLAIMS}, key=("003", "001", "002", "000", "004").index):
        parts.append(f"## {seed}: {_ABOUT[seed]}\n")
        parts.append("| line | they say | theirs | ours | verdict | why |\n|---|---|---|---|---|---|")
        for claim in (one for one in CLAIMS if one.seed == seed):
            theirs, ours, verdict = claim.asked.derived()
            shown = f"**{verdict}**" if verdict == "wrong" else verdict
            parts.append(f"| {claim.line} | {claim.words} | {theirs} | {ours} | {shown} | {claim.why} |")
        parts.append("")
    return "\n".join(parts)


if __name__ == "__main__":
    print(rendered(), end="")
