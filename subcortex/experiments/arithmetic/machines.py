"""Figures of cards and links that follow from standards and data sheets: memory, PCIe, NVLink. Pure."""

from __future__ import annotations

import re

from subcortex.experiments.arithmetic.settlement import Settlement, number, verdict_of
from subcortex.hardware.cards import Card, NvLink, card_for
from subcortex.hardware.links import PCIE_LANE_GB_PER_S
from subcortex.journal.board.claims import Claim
from subcortex.journal.board.figures import Figure
from subcortex.journal.board.subjects import names_in
from subcortex.journal.board.units import UNITS

_PCIE = re.compile(r"PCIe ([1-6])\.0 x(16|8|4|1)")
_GTS = {
    1: (2.5, "8b/10b"),
    2: (5.0, "8b/10b"),
    3: (8.0, "128b/130b"),
    4: (16.0, "128b/130b"),
    5: (32.0, "128b/130b"),
}
_NVLINKS = {
    NvLink.BRIDGE: "a bridge over two cards",
    NvLink.BOARD: "links on its board",
    NvLink.SWITCH: "a switch",
}
_BOTH_WAYS = re.compile(r"bidirectional|both (?:directions|ways)|duplex|aggregate", re.IGNORECASE)
_LACKS = re.compile(
    r"\b(?:don['’]t|doesn['’]t|do not|does not|no|lacks?|without|not) (?:have|support|come)?\b", re.IGNORECASE
)


def settle_machine(claim: Claim) -> Settlement | None:
    """Return what a standard or a data sheet says to a claim's figures, or to whether a card has NVLink."""
    found = [settled for figure in claim.figures if (settled := _figure(claim, figure))]
    refuted = next((one for one in found if one.verdict == "refuted"), None)
    return refuted or (found[0] if found else _nvlink(claim))


def _figure(claim: Claim, figure: Figure) -> Settlement | None:
    if figure.quantity == "bandwidth":
        return _pcie(claim, figure)
    if figure.quantity == "vram" and figure.times == 1 and figure.subject and " + " not in figure.subject:
        return _vram(figure)
    return None


def _pcie(claim: Claim, figure: Figure) -> Settlement | None:
    found = _PCIE.fullmatch(figure.subject or "")
    unit = UNITS.get(figure.unit or "")
    if not found or unit is None or unit.dimension != "bandwidth":
        return None
    generation, lanes = int(found[1]), int(found[2])
    one_way = PCIE_LANE_GB_PER_S[generation] * lanes
    both = bool(_BOTH_WAYS.search(claim.statement))
    value = one_way * (2 if both else 1) * 1e9 / unit.factor
    rate, code = _GTS.get(generation, (64.0, "242 of 256 bytes"))
    words = f"{lanes} lanes × {rate:g} GT/s, {code} coding, / 8 = {number(one_way)} GB/s in one direction"
    words += f", × 2 = {number(2 * one_way)} GB/s in both" if both else ""
    subject = figure.subject or ""
    return Settlement(
        verdict_of(figure.meets(value, figure.unit)), "link", "bandwidth", subject,
        f"{subject} carries {number(value)} {figure.unit}", f"{words}; written: {figure.written}",
        value, figure.unit,
    )  # fmt: skip


def _vram(figure: Figure) -> Settlement | None:
    card = card_for(figure.subject or "")
    if card is None or figure.unit not in ("GB", "GiB"):
        return None
    sold = _sizes(card)
    # Makers write GB and mean GiB, and so does whoever reads it off the box.
    held = any(figure.low <= size <= figure.high for size in sold)
    words = f"{figure.subject} is sold with {' or '.join(f'{size:g}' for size in sold)} GiB"
    value = next((size for size in sold if figure.low <= size <= figure.high), sold[0])
    subject, working = figure.subject or card.name, f"{words}; written: {figure.written}"
    return Settlement(verdict_of(held), "card", "vram", subject, words, working, value, figure.unit)


def _sizes(card: Card) -> list[float]:
    """Return the memory that a card is sold with, in GiB; several for a name of several cards."""
    base = re.sub(r" [0-9]+GB$", "", card.name)
    others = (card_for(f"{base} {size}GB") for size in (3, 4, 6, 8, 12, 16, 24, 32, 40, 80))
    alike = {other.memory_gib for other in others if other and re.sub(r" [0-9]+GB$", "", other.name) == base}
    return sorted({card.memory_gib} | alike, key=lambda size: (size != card.memory_gib, size))


def _nvlink(claim: Claim) -> Settlement | None:
    """Settle that a card has no NVLink, which its data sheet tells."""
    names = names_in(claim.statement)
    cards = [name for name in names if name.kind == "card"]
    if len(cards) != 1 or not any(name.name.startswith("NVLink") for name in names):
        return None
    lacks = _LACKS.search(claim.statement, cards[0].end)
    card = card_for(cards[0].name)
    if card is None or lacks is None or lacks.start() - cards[0].end > 12:
        return None
    has = card.nvlink is not NvLink.NONE
    rate = f"{card.nvlink_links} links × {card.nvlink_gb:g} GB/s = {number(card.nvlink_gb_per_s)} GB/s"
    words = f"{card.name} has no NVLink"
    if has:
        words = f"{card.name}: {_NVLINKS[card.nvlink]}, {rate} in one direction"
    return Settlement(
        verdict_of(not has), "link", "nvlink_bandwidth", card.name, words, f"{words} (data sheet)",
        card.nvlink_gb_per_s, "GB/s",
    )  # fmt: skip
