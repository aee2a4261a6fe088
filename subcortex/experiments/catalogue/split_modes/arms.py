"""The ways llama.cpp can be split over two GPUs, in the order of what they are worth knowing. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from subcortex.hardware import Hardware

#: Of two equal cards: the shares of the machine that the notes ask about, 8 and 3 GiB.
UNEQUAL = (8, 3)
_EVEN = (1, 1)
#: Cards whose memory differs by less are equal.
_EQUAL = 0.1
NO_SPLIT = "no split"
#: ``row`` is on its way out of llama.cpp, and ``tensor`` its successor: builds have either, or both.
_MODES = ("layer", "row", "tensor")


@dataclass(frozen=True, slots=True)
class SplitArm:
    """One way to lay a model out.

    Args:
        name: In samples and sentences.
        mode: Of ``--split-mode``.
        shares: Of ``--tensor-split``, in the order of the devices; empty without a split.
        gpus: Indices of the GPUs it may see, in the order it sees them.
    """

    name: str
    mode: str
    shares: tuple[int, ...]
    gpus: tuple[int, ...]

    def arguments(self, between: str) -> list[str]:
        """Return its flags; llama-bench writes ``/`` between shares, the other tools a comma."""
        words = ["-ngl", "99", "-sm", self.mode]
        return [*words, "-ts", between.join(map(str, self.shares))] if self.shares else words

    def environment(self, hardware: Hardware) -> dict[str, str]:
        """Return the variables that show it its GPUs alone, in its order."""
        uuids = {gpu.index: gpu.uuid for gpu in hardware.gpus}
        seen = ",".join(uuids.get(index) or str(index) for index in self.gpus)
        return {"CUDA_VISIBLE_DEVICES": seen, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def shares_of(hardware: Hardware, gpus: Sequence[int]) -> tuple[int, int]:
    """Return two cards' shares: of their memory in GiB where it differs, else 8 and 3."""
    by_index = {gpu.index: gpu.memory_total_mib for gpu in hardware.gpus}
    a, b = (by_index[index] for index in gpus[:2])
    if abs(a - b) <= _EQUAL * max(a, b):
        return UNEQUAL
    return max(1, round(a / 1024)), max(1, round(b / 1024))


def split_arms(gpus: tuple[int, int], shares: tuple[int, int]) -> list[SplitArm]:
    """Return all arms, the most worth knowing first: no split, uneven, even, then the cards the other way."""
    uneven = ",".join(map(str, shares))
    found = [SplitArm(NO_SPLIT, "none", (), gpus[:1])]
    for order, said in ((gpus, ""), (gpus[::-1], " reversed")):
        for parts, called in ((shares, uneven), (_EVEN, "even")):
            found += [SplitArm(f"{mode} {called}{said}", mode, parts, order) for mode in _MODES]
    return found


def is_forward(arm: SplitArm) -> bool:
    """Return whether an arm has the cards in their own order."""
    return list(arm.gpus) == sorted(arm.gpus)


def worth_repeating(arm: SplitArm) -> bool:
    """Return whether an arm is benched more than once: an even split is the same from either side."""
    return is_forward(arm) or len(set(arm.shares)) > 1


def hopeless(arm: SplitArm, refused: Iterable[str]) -> bool:
    """Return whether an arm need not be tried: with the cards the other way round it was refused."""
    return not is_forward(arm) and arm.name.removesuffix(" reversed") in set(refused)


def last_words(log: str, lines: int = 4) -> str:
    """Return the end of a failed tool's log, on one line; what it says of itself is left out."""
    told = [line.strip() for line in log.splitlines() if line.strip()]
    telling = [line for line in told if any(word in line.lower() for word in _TELLING)]
    return without_places(" / ".join((telling or told)[-lines:])[:600])


def without_places(words: str) -> str:
    """Return words with the names of files, and not the folders of this machine that they lie in."""
    return _FOLDERS.sub("", words)


#: The folders of an absolute path, up to the name; of a path alone, bounded.
_FOLDERS = re.compile(r"(?<![\w/.:])/(?:[\w.+@-]{1,255}/){1,40}(?=[\w.+@-])")
_TELLING = (
    "error",
    "fail",
    "not support",
    "deprecat",
    "unable",
    "out of memory",
    "exception",
    "split",
    "assert",
)


def memory_by_gpu(before: Mapping[int, float], most: Mapping[int, float]) -> dict[int, float]:
    """Return what came onto each GPU during a run, MiB."""
    return {index: max(0.0, used - before.get(index, 0.0)) for index, used in sorted(most.items())}
