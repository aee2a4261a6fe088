"""Machines that are not this one: cards by name or size, and snapshots from a file."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from pydantic import ValidationError

from subcortex.errors import InvalidRequest
from subcortex.hardware.detect import detect
from subcortex.hardware.model import Gpu, Hardware

#: Card → memory in GiB as sold, compute capability; from NVIDIA's product pages and CUDA GPU list.
CARDS: dict[str, tuple[float, tuple[int, int]]] = {
    "GTX 1060": (3, (6, 1)),  # sold with 3 and 6 GB; without a size, the smaller one
    "GTX 1070": (8, (6, 1)),
    "GTX 1080": (8, (6, 1)),
    "GTX 1080 Ti": (11, (6, 1)),
    "GTX 1650": (4, (7, 5)),
    "GTX 1660": (6, (7, 5)),
    "RTX 2060": (6, (7, 5)),
    "RTX 2070": (8, (7, 5)),
    "RTX 2080": (8, (7, 5)),
    "RTX 2080 Ti": (11, (7, 5)),
    "RTX 3050": (8, (8, 6)),
    "RTX 3060": (12, (8, 6)),
    "RTX 3060 Ti": (8, (8, 6)),
    "RTX 3070": (8, (8, 6)),
    "RTX 3070 Ti": (8, (8, 6)),
    "RTX 3080": (10, (8, 6)),
    "RTX 3080 Ti": (12, (8, 6)),
    "RTX 3090": (24, (8, 6)),
    "RTX 3090 Ti": (24, (8, 6)),
    "RTX 4060": (8, (8, 9)),
    "RTX 4060 Ti": (8, (8, 9)),
    "RTX 4060 Ti 16GB": (16, (8, 9)),
    "RTX 4070": (12, (8, 9)),
    "RTX 4070 Ti": (12, (8, 9)),
    "RTX 4070 Ti Super": (16, (8, 9)),
    "RTX 4080": (16, (8, 9)),
    "RTX 4090": (24, (8, 9)),
    "RTX 5060 Ti 16GB": (16, (12, 0)),
    "RTX 5070": (12, (12, 0)),
    "RTX 5070 Ti": (16, (12, 0)),
    "RTX 5080": (16, (12, 0)),
    "RTX 5090": (32, (12, 0)),
    "RTX A4000": (16, (8, 6)),
    "RTX A5000": (24, (8, 6)),
    "RTX A6000": (48, (8, 6)),
    "RTX 6000 Ada": (48, (8, 9)),
    "RTX PRO 6000": (96, (12, 0)),
    "P40": (24, (6, 1)),
    "V100 16GB": (16, (7, 0)),
    "V100 32GB": (32, (7, 0)),
    "T4": (16, (7, 5)),
    "L4": (24, (8, 9)),
    "L40S": (48, (8, 9)),
    "A10": (24, (8, 6)),
    "A40": (48, (8, 6)),
    "A100": (40, (8, 0)),  # sold with 40 and 80 GB; without a size, the smaller one
    "A100 80GB": (80, (8, 0)),
    "H100": (80, (9, 0)),
    "H200": (141, (9, 0)),
    "B200": (180, (10, 0)),
}

_GROUP = re.compile(r"^(?:(\d+)\s*[x×]\s*)?(.+)$", re.IGNORECASE)
_SIZE = re.compile(r"^(\d+(?:\.\d+)?)\s*(GiB|GB|G)$", re.IGNORECASE)
_SIZED_NAME = re.compile(r"^(.*?)\s*\(?(\d+(?:\.\d+)?)\s*(?:GiB|GB|G)\)?$", re.IGNORECASE)
_MOST_GPUS = 64


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """Read cards as a person writes them.

    Args:
        text: Groups joined by ``+`` or ``,``: ``2x24GiB``, ``RTX 3060 Ti + GTX 1060``, ``2x RTX 3090``; a
            size after a name overrides the table (``GTX 1060 3GB``). GB and GiB mean the same here, as
            card makers write GB and mean GiB.

    Raises:
        InvalidRequest: Unknown card, naming the nearest; or not between 1 and 64 cards.
    """
    cards: list[tuple[str, float, tuple[int, int] | None]] = []
    for group in re.split(r"[+,]", text):
        found = _GROUP.match(group.strip())
        if not found:
            raise _unreadable(text, "an empty place between the cards")
        count = int(found[1]) if found[1] else 1
        if not 1 <= count <= _MOST_GPUS - len(cards):
            raise _unreadable(text, f"{count} cards; between 1 and {_MOST_GPUS} in all")
        cards += [_card(found[2].strip(), text)] * count
    return tuple(
        Gpu(index=i, name=name, memory_total_mib=gib * 1024, compute_capability=capability)
        for i, (name, gib, capability) in enumerate(cards)
    )


def _card(text: str, whole: str) -> tuple[str, float, tuple[int, int] | None]:
    size = _SIZE.match(text)
    if size:
        return f"{size[1]} GiB card", _positive(float(size[1]), whole), None
    known = {_key(name): name for name in CARDS}
    if _key(text) in known:
        name = known[_key(text)]
        return name, *CARDS[name]
    sized = _SIZED_NAME.match(text)
    if sized and _key(sized[1]) in known:
        name = known[_key(sized[1])]
        return f"{name} {sized[2]}GB", _positive(float(sized[2]), whole), CARDS[name][1]
    near = difflib.get_close_matches(_key(text), known, n=1)
    raise _unreadable(whole, f"no card {text!r}" + (f"; did you mean {known[near[0]]!r}?" if near else ""))


def _positive(gib: float, whole: str) -> float:
    if gib <= 0:
        raise _unreadable(whole, "a card without memory")
    return gib


def _key(name: str) -> str:
    words = re.sub(r"nvidia|geforce|rtx|gtx|tesla|generation|laptop gpu", " ", name.lower())
    return re.sub(r"[^a-z0-9]", "", words)


def _unreadable(text: str, problem: str) -> InvalidRequest:
    return InvalidRequest(
        f"cannot read the GPUs {text!r}: {problem}",
        hint='Write e.g. "2x24GiB", "RTX 3060 Ti + GTX 1060 3GB" or "2x RTX 3090".',
        param="gpus",
    )


def with_gpus(text: str) -> Hardware:
    """Return this machine with the cards of ``text`` in place of its own."""
    here = detect()
    values = {"gpus": parse_gpus(text), "assumed": True, "driver_version": None, "cuda_version": None}
    return here.model_copy(update={**values, "problem": None})


def load_snapshot(file: Path) -> Hardware:
    """Read a machine that was written with ``Hardware.model_dump_json()``.

    Raises:
        InvalidRequest: The file is not there or is no such snapshot.
    """
    try:
        return Hardware.model_validate_json(file.read_bytes())
    except OSError as error:
        raise InvalidRequest(f"cannot read {file}: {error.strerror}", hint="Name a snapshot file.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise InvalidRequest(
            f"{file} is no hardware snapshot: {where}: {first['msg']}",
            hint="`subcortex doctor --json` prints one under `hardware`.",
        ) from None
