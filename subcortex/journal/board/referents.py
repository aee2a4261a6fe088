"""What a figure is: the quantity that it measures, and of what, by what stands around it. Pure."""

from __future__ import annotations

import re
from dataclasses import replace

from subcortex.journal.board.around import Around
from subcortex.journal.board.figures import Figure
from subcortex.journal.board.quantities import quantity_of
from subcortex.journal.board.subjects import Name, names_in
from subcortex.journal.board.units import UNITS

#: Says that something does not fit.
FITS_NOT = re.compile(
    r"\b(?:can(?:not|['’]t| not)|won['’]t|will not|does(?:n['’]t| not)|do(?:n['’]t| not)|not) fit\b|"
    r"\bOOM\b|out of memory|too (?:large|big) (?:for|even)",
    re.IGNORECASE,
)
_GPU_NUMBER = re.compile(r"GPU[ ]?[0-9]{1,2}(?![0-9])")


def within(figure: Figure, name: Name) -> bool:
    """Tell whether a figure and a name share letters."""
    return name.at < figure.end and figure.at < name.end


def filled(figure: Figure, around: Around, column: str = "") -> Figure:
    """Return a figure with its quantity and its subject."""
    leads = (*((column,) if column else ()), *around.leads)
    words = around.line.words if not column else figure.written
    placed = figure if not column else replace(figure, at=0, end=len(figure.written))
    quantity = quantity_of(placed, words, leads)
    unit = UNITS.get(figure.unit or "")
    if quantity is None and unit is not None and unit.dimension == "memory":
        quantity = _memory_by_name(figure, around)
    if unit is not None and unit.dimension == "memory" and figure.times > 1:
        quantity = "vram"
    if quantity == "weights_size" and _after_fitting(figure, around):
        quantity = "vram"
    elif quantity == "vram" and figure.times == 1 and _nearer_model(figure, around):
        quantity = "weights_size"
    return replace(figure, quantity=quantity, subject=_subject(figure, quantity, around, column))


def _memory_by_name(figure: Figure, around: Around) -> str | None:
    """Return what bare memory is of: of a card its VRAM, of a model the size of its weights."""
    if figure.times > 1:
        return "vram"
    before = [
        name
        for name in around.names
        if name.at < figure.at and name.kind in ("model", "size", "card", "form")
    ]
    if before:
        return "vram" if before[-1].kind == "card" else "weights_size"
    return "weights_size" if around.model() else None


def _after_fitting(figure: Figure, around: Around) -> bool:
    """Tell whether memory is named after the word that says that something does not fit in it."""
    said = FITS_NOT.search(around.line.words[: figure.at])
    if said is None:
        return False
    return bool(said) and not any(
        said.end() <= name.at < figure.at for name in around.names if name.kind == "model"
    )


def _nearer_model(figure: Figure, around: Around) -> bool:
    before = [name for name in around.names if name.at < figure.at and name.kind in ("model", "form", "card")]
    return bool(before) and before[-1].kind != "card"


def _subject(figure: Figure, quantity: str | None, around: Around, column: str) -> str | None:
    if quantity in ("bandwidth", "bus_bandwidth", "algorithm_bandwidth", "communication_time"):
        return around.named("link", figure) or around.named("card", figure)
    if quantity == "vram":
        return _cards_of(figure, around)
    if quantity in ("memory", "utilisation") and (
        gpus := _GPU_NUMBER.findall(around.line.words[: figure.at])
    ):
        return str(gpus[-1])
    if quantity == "ram":
        return None
    model = around.model(figure)
    if quantity == "weights_size" and model:
        form = form_in(column) or form_of(around, figure)
        return f"{model} {form}" if form else model
    if model:
        return model
    return around.named("program", figure) or around.named("link", figure) or around.named("card", figure)


def _cards_of(figure: Figure, around: Around) -> str | None:
    """Return the card whose memory a figure is; of a sum, or of several cards, all of them."""
    inside = [name.name for name in around.names if name.kind == "card"]
    calculated = around.line.words[: figure.at].rstrip(" ~≈").endswith("=")
    if figure.times > 1 or (calculated and len(inside) != 1):
        return " + ".join(inside or around.cards() or around.scene.cards) or None
    before = [name.name for name in around.names if name.kind == "card" and name.at < figure.at]
    return (before[-1:] or inside[:1] or [" + ".join(around.cards())])[0] or around.named("card")


def form_of(around: Around, figure: Figure | None = None) -> str | None:
    """Return the quantisation that a line, or a figure in it, is about: ``Q4_K_M``."""
    inside = [name for name in around.names if name.kind == "form"]
    if figure is not None:
        inside = [name for name in inside if name.at < figure.end][-1:] or inside[:1]
    if inside:
        return inside[0].name
    if any(name.kind == "model" for name in around.names):
        return None
    for text in (*around.line.before[::-1][:4], *around.leads):
        if found := form_in(text):
            return found
    return None


def form_in(text: str) -> str | None:
    """Return the first quantisation that is named in a text."""
    return next((name.name for name in names_in(text) if name.kind == "form"), None)
