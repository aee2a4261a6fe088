"""Machines that are not this one: cards as a person writes them."""

from __future__ import annotations

import difflib
import re
from itertools import combinations

from subcortex.errors import InvalidRequest
from subcortex.hardware.cards import BY_KEY, CARDS, Card, NvLink, card_for, key_of
from subcortex.hardware.detect import host_alone
from subcortex.hardware.links import assumed_links
from subcortex.hardware.model import MOST_GPUS, Gpu, GpuPair, Hardware

_GROUP = re.compile(r"^(?:([0-9]{1,6})\s*[x×]\s*)?(.+)$", re.IGNORECASE)
_SIZE = re.compile(r"^([0-9]+(?:\.[0-9]+)?)\s*(GiB|GB|G)$", re.IGNORECASE)
_SIZED_NAME = re.compile(r"^(.*?)\s*\(?([0-9]+(?:\.[0-9]+)?)\s*(?:GiB|GB|G)\)?$", re.IGNORECASE)
_NVLINK = re.compile(r"^(.*?\S)\s+(?:with\s+)?NVLink$", re.IGNORECASE)
_MOST_GIB = 65536
_MOST_CHARACTERS = 1000
_SHOWN_CHARACTERS = 100


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """Read cards as a person writes them; see ``parse_machine``."""
    return parse_machine(text)[0]


def parse_machine(text: str) -> tuple[tuple[Gpu, ...], tuple[GpuPair, ...]]:
    """Read cards, and what lies between them, as a person writes them.

    Args:
        text: Groups joined by ``+`` or ``,``: ``2x24GiB``, ``RTX 3060 Ti + GTX 1060``,
            ``2x RTX 3090 NVLink``. A card has the memory that NVML reports for it; a size after its name that
            it is not sold with overrides that. GB and GiB mean the same here, as card makers write GB and
            mean GiB. ``NVLink`` after a group joins its cards, by twos where a bridge does it; all others are
            taken to talk by PCIe over the host bridge.

    Raises:
        InvalidRequest: Unknown card, naming the nearest; not between 1 and 64 cards; NVLink on cards that
            have none; more than 1000 characters; digits other than 0 to 9.
    """
    if len(text) > _MOST_CHARACTERS:
        raise _unreadable(text, f"{len(text)} characters; at most {_MOST_CHARACTERS}")
    odd = next((letter for letter in text if letter.isnumeric() and not letter.isascii()), None)
    if odd is not None:
        raise _unreadable(text, f"the digit {odd!r}; write numbers with 0 to 9")
    gpus: list[Gpu] = []
    nvlinks: dict[tuple[int, int], int] = {}
    for group in re.split(r"[+,]", text):
        found = _GROUP.match(group.strip())
        if not found:
            raise _unreadable(text, "an empty place between the cards")
        count = int(found[1]) if found[1] else 1
        if count < 1:
            raise _unreadable(text, "a group of 0 cards")
        if len(gpus) + count > MOST_GPUS:
            raise _unreadable(text, f"{len(gpus) + count} cards; at most {MOST_GPUS} in all")
        joined = _NVLINK.match(found[2])
        name, memory_mib, card = _card((joined[1] if joined else found[2]).strip(), text)
        first = len(gpus)
        capability = card.capability if card else None
        gpus += [
            Gpu(index=index, name=name, memory_total_mib=memory_mib, compute_capability=capability)
            for index in range(first, first + count)
        ]
        if joined:
            nvlinks.update(_nvlinks(card, range(first, first + count), name, text))
    return tuple(gpus), assumed_links(gpus, nvlinks)


def _card(text: str, whole: str) -> tuple[str, float, Card | None]:
    """Return a card's name, its memory in MiB, and what the table has of it."""
    size = _SIZE.match(text)
    if size:
        return f"{size[1]} GiB card", _positive(float(size[1]), whole) * 1024, None
    exact = BY_KEY.get(key_of(text))
    if exact:
        return exact.name, exact.reported_mib, exact
    sized, card = _SIZED_NAME.match(text), card_for(text)
    if sized and card:
        gib = _positive(float(sized[2]), whole)
        if gib == card.memory_gib:
            return card.name, card.reported_mib, card
        return f"{sized[1].strip()} {sized[2]}GB", gib * 1024, card
    known = {key_of(name): name for name in CARDS}
    near = difflib.get_close_matches(key_of(text), known, n=1)
    raise _unreadable(
        whole, f"no card {_clipped(text)!r}" + (f"; did you mean {known[near[0]]!r}?" if near else "")
    )


def _nvlinks(card: Card | None, indices: range, name: str, whole: str) -> dict[tuple[int, int], int]:
    """Return how many NVLinks join which cards of one group."""
    if card is None or card.nvlink is NvLink.NONE:
        what = "name the card" if card is None else f"{name} has none"
        raise _unreadable(whole, f"NVLink between {name}s: {what}")
    if len(indices) < 2:
        raise _unreadable(whole, "NVLink joins at least two cards")
    if card.nvlink is NvLink.BRIDGE:
        return {(a, a + 1): card.nvlink_links for a in indices[: len(indices) // 2 * 2 : 2]}
    links = card.nvlink_links
    if card.nvlink is NvLink.BOARD:
        links = max(1, links // (len(indices) - 1))
    return dict.fromkeys(combinations(indices, 2), links)


def _positive(gib: float, whole: str) -> float:
    if not 0 < gib <= _MOST_GIB:
        raise _unreadable(whole, f"a card of {gib:g} GiB")
    return gib


def _unreadable(text: str, problem: str) -> InvalidRequest:
    return InvalidRequest(
        f"cannot read the GPUs {_clipped(text)!r}: {problem}",
        hint='Write e.g. "2x24GiB", "RTX 3060 Ti + GTX 1060 3GB" or "2x RTX 3090 NVLink".',
        param="gpus",
    )


def _clipped(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"


def with_gpus(text: str) -> Hardware:
    """Return this machine with the cards of ``text`` in place of its own."""
    gpus, links = parse_machine(text)
    return host_alone().model_copy(update={"gpus": gpus, "links": links, "assumed": True})
