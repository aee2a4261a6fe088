"""Of what a line speaks where it does not say so itself: lines above, headings, the whole text. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from subcortex.journal.board.figures import Figure
from subcortex.journal.board.lines import Line, Place
from subcortex.journal.board.subjects import Kind, Name, names_in

_GPU_NUMBER = re.compile(r"GPU[ ]?([0-9]{1,2})(?![0-9])")
_PLUS = re.compile(r"\+|\band\b|,")
_CONTEXT = re.compile(
    r"(?:ctx-size|max-model-len|max_model_len|n_ctx|context)[ =:]{1,3}([0-9]{2,7})(?![0-9.])"
)
_ENGINE = re.compile(r"vllm|llama\.cpp|llama-server|llama-cli", re.IGNORECASE)
#: Cards of one machine, as a note lists them: not more than anybody has.
_MOST_CARDS = 16


@dataclass(frozen=True, slots=True)
class Scene:
    """What a text as a whole is about.

    Args:
        cards: Of the machine it describes, in the order that it numbers them; empty if it describes none.
        models: Every model it names, in the one spelling, in order.
        context_tokens: The length that its commands ask for; None if they ask for none, or for several.
        engine: ``vllm`` or ``llama.cpp``, whichever it speaks of alone; None otherwise.
    """

    cards: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    context_tokens: int | None = None
    engine: str | None = None

    def model_of_size(self, size: str) -> str | None:
        """Return the one model of a size (``70b``) that the text names; None for none, or several."""
        found = {model for model in self.models if model.endswith(f"-{size}")}
        return found.pop() if len(found) == 1 else None


def scene_of(lines: Sequence[Line]) -> Scene:
    """Return what a text is about."""
    cards: tuple[str, ...] = ()
    models: list[str] = []
    contexts: set[int] = set()
    engines: set[str] = set()
    for line in lines:
        if line.place is Place.BLANK:
            continue
        names = names_in(line.text)
        models += [name.name for name in names if name.kind == "model" and name.name not in models]
        if not cards and line.place is not Place.CODE:
            cards = _machine(line.text, names)
        contexts.update(int(found[1]) for found in _CONTEXT.finditer(line.text[:1000]))
        engines.update(
            "vllm" if found[0].lower() == "vllm" else "llama.cpp"
            for found in _ENGINE.finditer(line.text[:1000])
        )
    return Scene(
        cards,
        tuple(models),
        contexts.pop() if len(contexts) == 1 else None,
        engines.pop() if len(engines) == 1 else None,
    )


def _machine(text: str, names: Sequence[Name]) -> tuple[str, ...]:
    """Return the cards that a line joins by ``+``: those of one machine."""
    cards = [name for name in names if name.kind == "card"]
    if not 2 <= len(cards) <= _MOST_CARDS:
        return ()
    between = [text[first.end : second.at] for first, second in pairwise(cards)]
    return tuple(card.name for card in cards) if all("+" in one and len(one) < 20 for one in between) else ()


@dataclass(slots=True)
class Spoken:
    """The names that were spoken last, for lines that name nothing: the sentence before counts.

    Kept by section: a heading of the same rank or above it begins anew.
    """

    by_kind: dict[Kind, tuple[int, str]] = field(default_factory=dict)
    depth: int = 0

    def hear(self, line: Line, names: Iterable[Name]) -> None:
        """Take in a line's names; a heading makes those of deeper ones forgotten."""
        if line.place is Place.HEADING:
            kept = len(line.headings)
            self.by_kind = {kind: said for kind, said in self.by_kind.items() if said[0] <= kept}
        depth = len(line.headings) + (1 if line.place is Place.HEADING else 0)
        for name in names:
            self.by_kind[name.kind] = (depth, name.name)

    def last(self, kind: Kind) -> str | None:
        """Return the name of a kind that was spoken last; None if none is remembered."""
        said = self.by_kind.get(kind)
        return said[1] if said else None


@dataclass(frozen=True, slots=True)
class Around:
    """Everything that may say what a line's figures are of.

    Args:
        line: The line.
        names: In it.
        scene: Of the text.
        spoken: Kind → the name spoken last before it.
    """

    line: Line
    names: tuple[Name, ...]
    scene: Scene
    spoken: dict[Kind, str]

    @property
    def leads(self) -> tuple[str, ...]:
        """What leads the line, the nearest first: lines above it, then headings."""
        return (*reversed(self.line.above), *reversed(self.line.headings))

    def named(self, kind: Kind, figure: Figure | None = None) -> str | None:
        """Return the name of a kind that a line, or one figure in it, is about."""
        inside = [name for name in self.names if name.kind == kind]
        if figure is not None:
            before = [name for name in inside if name.at < figure.end]
            inside = before[-1:] or inside[:1]
        if inside:
            return inside[0].name
        for text in self.leads:
            for name in names_in(text):
                if name.kind == kind:
                    return name.name
        return self.spoken.get(kind)

    def model(self, figure: Figure | None = None) -> str | None:
        """Return the model that a line or a figure is about; one known by its size if the text names it."""
        inside = [name for name in self.names if name.kind in ("model", "size")]
        if figure is not None and len(inside) > 1:
            inside = [name for name in inside if name.at < figure.end][-1:] or inside[:1]
        if inside:
            return self._whole(inside[0])
        for text in self.leads:
            found = [name for name in names_in(text) if name.kind in ("model", "size")]
            if found:
                return self._whole(found[0])
        return self.spoken.get("model")

    def _whole(self, name: Name) -> str:
        return (self.scene.model_of_size(name.name) if name.kind == "size" else None) or name.name

    def cards(self) -> tuple[str, ...]:
        """Return the cards that a line is about, as many times as they are meant; empty if it names none."""
        for text in (self.line.words, *self.line.before[::-1][:2], *self.leads):
            if found := self._cards_in(text):
                return found
        return ()

    def _cards_in(self, text: str) -> tuple[str, ...]:
        text = text[:400]
        if self.scene.cards:
            numbers = [int(found[1]) for found in _GPU_NUMBER.finditer(text)]
            if len(set(numbers)) == 1 and numbers[0] < len(self.scene.cards):
                return (self.scene.cards[numbers[0]],)
        cards = [name for name in names_in(text) if name.kind == "card"]
        if cards:
            times = re.search(r"([0-9]{1,2})[ ]?[x×][ ]{0,2}$", text[: cards[0].at])
            if times and len(cards) == 1:
                return (cards[0].name,) * max(1, min(int(times[1]), _MOST_CARDS))
            if (
                re.search(r"\b(?:dual|two|both)\b[^.]{0,12}$", text[: cards[0].at].lower())
                and len(cards) == 1
            ):
                return (cards[0].name,) * 2
            return tuple(card.name for card in cards)
        if sized := re.search(r"(?<![0-9.])([0-9]{1,2})[ ]?[x×][ ]{0,2}([0-9]{1,3})[ ]?Gi?B\b", text):
            return (f"{sized[2]}GB",) * max(1, min(int(sized[1]), _MOST_CARDS))
        low = text.lower()
        if self.scene.cards and re.search(r"\bsplit\b|multi-gpu|both (?:gpu|card)|across", low):
            return self.scene.cards
        return ()
