"""Statements that a text makes, above all those with figures: what can be held against the machine. Pure.

Three kinds of line make claims: whatever stands under "What I Already Know"; lines with a figure that
measures something, tables included, where the row says of what and the column what; and lines that say
whether something fits. A line that says how large a model is *and* that it fits makes two, as one may hold
without the other. Commands, dates, schedules, boxes to tick and questions make none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from subcortex.journal.board.around import Around, Scene, Spoken, scene_of
from subcortex.journal.board.collectives import Collected, collected
from subcortex.journal.board.figures import Figure, figures_in
from subcortex.journal.board.gaps import is_gap_section, key_of
from subcortex.journal.board.lines import Line, Place, lines_of
from subcortex.journal.board.referents import FITS_NOT, filled, form_in, form_of, within
from subcortex.journal.board.subjects import Name, names_in
from subcortex.journal.board.units import UNITS

ClaimKind = Literal["statement", "figure", "fits", "result"]
#: Longer statements are cut, and no text makes more claims than that.
MOST_CHARACTERS, MOST_CLAIMS, MOST_FIGURES = 1000, 2000, 32

_KNOWN = re.compile(
    r"(?:what )?(?:i|we) (?:already )?(?:know|knew)(?: already| so far)?|(?:already )?known(?: facts)?|"
    r"what is known|facts|background knowledge"
)
_FITS = re.compile(r"\bfits?\b|\bcan serve\b", re.IGNORECASE)
_FITS_WORD = re.compile(r"\bfits?\b|\bserve\b|\bOOM\b|memory|large|big", re.IGNORECASE)
_RANKS = re.compile(r"(?:\bTP|tensor[-_ ]parallel[-_ ]size)[ ]?[= ][ ]?([1-9][0-9]?)(?![0-9])", re.IGNORECASE)
_ALONE = re.compile(r"single|alone|one gpu|each gpu", re.IGNORECASE)
_HYPOTHETIC = re.compile(r"(?:assum\w*|e\.g\.|for example|suppose|say|target\w*)[ ,:(~]{0,4}$", re.IGNORECASE)
#: Fields that say when and how a session was held, not how the world is.
_FIELD = re.compile(
    r"(?:date|time|estimated time|time spent|duration|drives?|pressure|level|threshold|depth|mode|day|goal|"
    r"satisfaction(?: depth)?|trigger(?:ed)?|timestamp|session|status|priority|deadline|prerequisites|"
    r"confidence(?: level)?[^:]{0,12}|deliverables|started|ended|next|completed|previous)[ ]{0,2}:",
    re.IGNORECASE,
)
_TIME_OF_DAY = re.compile(r"[0-9]{1,2}:[0-9]{2}")
_PRESSURE = re.compile(r"pressure[:\s]|\b[A-Z]{3,}[ ]\([0-9]{1,3}%\)")
_PLANNED = frozenset(("min", "h", "days"))
#: Counts and lengths that come up in examples more often than in claims: alone they make none in a comment.
_WEAK = frozenset(("GPUs", "requests", "layers", "heads", "tokens"))
_EXAMPLE = re.compile(r"(?:for )?example\b|e\.?g\b", re.IGNORECASE)
_COMPARED = re.compile(
    r"\b(?:than|vs\.?|versus|instead of|like|unlike)[ ]{0,2}(?:a |an |the )?$", re.IGNORECASE
)
_CALCULATED = re.compile(r"[0-9][^=]{0,60}[-+*×x/·][^=]{0,60}=[ ]{0,2}[~≈]?[ ]{0,2}[0-9]")


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that a text says.

    Args:
        statement: In the writer's words, without marks; of a table's cell, row and column and cell.
        kind: ``figure``; ``fits`` for what says whether something fits; ``result`` of a collective operation;
            ``statement`` for what has no figure.
        figures: In the order written, with quantity and subject.
        section: The heading that it stands under.
        line: Of the text, from 1; None where a thought found it.
        occurrence: From 0: which of several alike of one section it is.
        topic: The line that leads it, if there is one.
        found_by: ``rule``, ``thought``, ``person`` or ``experiment``.
        fits: What a ``fits`` claim says; None for the others.
        model, form: What it is about, in the one spelling: ``llama-3.1-8b``, ``Q4_K_M``.
        cards: On which cards.
        context_tokens: The context length that the line, its neighbours or the text's commands name.
        engine: ``vllm`` or ``llama.cpp``, where the text speaks of one alone.
        before: Lines of its block before it, the nearest last.
        leads: What leads it, the nearest first.
        collected: Of a ``result``: the operation, what goes in and what is said to come out.
    """

    statement: str
    kind: ClaimKind
    figures: tuple[Figure, ...] = ()
    section: str = ""
    line: int | None = None
    occurrence: int = 0
    topic: str | None = None
    found_by: str = "rule"
    fits: bool | None = None
    model: str | None = None
    form: str | None = None
    cards: tuple[str, ...] = ()
    context_tokens: int | None = None
    engine: str | None = None
    before: tuple[str, ...] = ()
    leads: tuple[str, ...] = ()
    collected: Collected | None = None

    def key(self, session_id: str) -> str:
        """Return what makes it the same row whenever the session is read again."""
        return key_of(f"claim {self.kind}", session_id, self.section, self.statement, self.occurrence)


def claims_in(text: str | Sequence[Line]) -> list[Claim]:
    """Return the claims of a text, in order; linear in its length."""
    lines = lines_of(text) if isinstance(text, str) else text
    seen: dict[tuple[str, str, str], int] = {}
    found: list[Claim] = []
    for claim in _raw(lines, scene_of(lines)):
        about = (
            claim.kind,
            " ".join(claim.section.lower().split()),
            " ".join(claim.statement.lower().split()),
        )
        occurrence = seen[about] = seen.get(about, -1) + 1
        found.append(replace(claim, occurrence=occurrence))
        if len(found) == MOST_CLAIMS:
            break
    return found


def _raw(lines: Sequence[Line], scene: Scene) -> Iterator[Claim]:
    spoken, ranks = Spoken(), 1
    results = collected(lines)
    for line in lines:
        if line.place in (Place.BLANK, Place.FRONT, Place.CODE):
            continue
        names = names_in(line.words)
        if line.place is Place.HEADING:
            ranks = 1
        elif told := _RANKS.search(line.words[:400]):
            ranks = min(int(told[1]), 64)
        # A heading opens a new matter: what was spoken of before it is not its subject.
        said = {} if line.place is Place.HEADING else spoken.by_kind
        around = Around(line, names, scene, {kind: name for kind, (_, name) in said.items()})
        if line.number in results:
            yield _result(around, results[line.number])
        elif line.table:
            yield from _cells(around, line.table)
        elif not _no_claim(line):
            yield from (_over(ranks, claim) for claim in _line(around))
        spoken.hear(line, names)


def _no_claim(line: Line) -> bool:
    words = line.words
    if line.place is Place.TASK or any(is_gap_section(title) for title in line.headings):
        return True
    if words.rstrip("*_ ").endswith("?") or _FIELD.match(words) or _TIME_OF_DAY.search(words[:200]):
        return True
    return line.place is Place.HEADING and not _CALCULATED.search(words[:300])


def _line(around: Around) -> Iterator[Claim]:
    line, words = around.line, around.line.words[:MOST_CHARACTERS]
    known = any(_is_known(title) for title in line.headings)
    if not known and not any(letter.isdigit() for letter in words) and not _FITS_WORD.search(words):
        return
    plain = _told(words, around)
    around = replace(around, names=tuple(name for name in around.names if not _compared(name, words)))
    figures = [told for figure in plain if _means(told := filled(figure, around), words)]
    fits = _said_to_fit(words, around, figures)
    made = _makes_a_claim(figures, line)
    if not (known or made or fits is not None):
        return
    base = _base(around, words)
    if fits is not None:
        yield replace(base, kind="fits", fits=fits, figures=_fits_figures(around, figures))
        figures = [figure for figure in figures if figure.quantity == "weights_size"][:1]
        if not figures:
            return
    if _makes_a_claim(figures, line):
        yield replace(base, kind="figure", figures=tuple(figures[:MOST_FIGURES]))
    elif known and fits is None and not words.endswith(":") and any(letter.isalpha() for letter in words):
        yield replace(base, kind="statement", figures=tuple(figures[:MOST_FIGURES]))


def _over(ranks: int, claim: Claim) -> Claim:
    """Return a claim that something fits on a card with as many of them as the text has spoken of."""
    alone = any(_ALONE.search(text[:200]) for text in (claim.statement, *claim.leads))
    if claim.kind != "fits" or len(claim.cards) != 1 or ranks == 1 or alone:
        return claim
    return replace(claim, cards=claim.cards * ranks)


def _base(around: Around, words: str) -> Claim:
    line = around.line
    return Claim(
        statement=words,
        kind="figure",
        section=line.section,
        line=line.number,
        topic=line.above[-1].rstrip(":") if line.above else None,
        model=around.model(),
        form=form_of(around),
        cards=around.cards(),
        context_tokens=_context(around),
        engine=around.scene.engine,
        before=line.before,
        leads=around.leads,
    )


def _told(words: str, around: Around) -> list[Figure]:
    """Return the figures of a line that are no part of a name and not only supposed."""
    told = []
    for figure in figures_in(words):
        inside = any(within(figure, name) for name in around.names if name.kind != "program")
        if inside or _HYPOTHETIC.search(words[max(0, figure.at - 24) : figure.at]):
            continue
        told.append(figure)
    return told[:MOST_FIGURES]


def _context(around: Around) -> int | None:
    for text in (around.line.words, *around.line.before[::-1], *around.line.above[::-1]):
        for figure in figures_in(text[:400]):
            if figure.unit == "tokens" and figure.value >= 64:
                return int(figure.value)
    return around.scene.context_tokens


def _compared(name: Name, words: str) -> bool:
    """Tell whether a name is only what something is held against: ``better than Llama 8B``."""
    return bool(_COMPARED.search(words[max(0, name.at - 24) : name.at]))


def _means(figure: Figure, words: str) -> bool:
    """Tell whether a figure says something: it has a unit, a quantity, or is what a calculation gives."""
    if figure.unit or figure.quantity:
        return True
    return words[: figure.at].rstrip(" ~≈").endswith("=")


def _fits_figures(around: Around, figures: Sequence[Figure]) -> tuple[Figure, ...]:
    """Return the figures of what is said of fitting, the memory in cards' names among them."""
    found = list(figures)
    cards = [name for name in around.names if name.kind == "card"]
    for figure in figures_in(around.line.words):
        inside = next((name for name in cards if within(figure, name)), None)
        if inside and figure.unit in ("GB", "GiB"):
            found.append(replace(figure, quantity="vram", subject=inside.name))
    return tuple(sorted(found, key=lambda figure: figure.at)[:MOST_FIGURES])


def _said_to_fit(words: str, around: Around, figures: Sequence[Figure]) -> bool | None:
    """Return what a line says of fitting: yes, no, or nothing."""
    if FITS_NOT.search(words):
        answer = False
    elif _FITS.search(words):
        answer = True
    else:
        return None
    if words.lower().startswith(("fit ", "good for")):
        return None
    named = any(name.kind in ("model", "card") for name in around.names)
    sized = any(UNITS[figure.unit].dimension == "memory" for figure in figures if figure.unit)
    return answer if named or sized else None


def _makes_a_claim(figures: Sequence[Figure], line: Line) -> bool:
    """Tell whether figures say something that could be found to be otherwise."""
    strong = [figure for figure in figures if figure.unit is not None or figure.quantity is not None]
    if line.place is Place.HEADING or _CALCULATED.search(line.words[:300]):
        return bool(strong)
    if _PRESSURE.search(line.words[:200]):
        return False
    units = {figure.unit for figure in strong}
    if not any(figure.quantity for figure in strong):
        return False
    if units <= _WEAK and (_EXAMPLE.match(line.words) or all(_bare_count(figure) for figure in strong)):
        return False
    if not strong or (units <= _PLANNED and not any(figure.quantity for figure in strong)):
        return False
    return not (line.place is Place.COMMENT and line.fenced and units <= _WEAK)


def _bare_count(figure: Figure) -> bool:
    """Tell whether a figure only says how many GPUs or requests there are in what is described."""
    return figure.unit in ("GPUs", "requests") and figure.high - figure.low <= 1


def _cells(around: Around, table: tuple[tuple[str, ...], tuple[str, ...]]) -> Iterator[Claim]:
    header, cells = table
    row = next((cell for cell in cells if cell), "")
    names = names_in(row)
    for column, cell in zip(header[1:64], cells[1:64], strict=False):
        inside = replace(around, names=(*names, *names_in(cell)))
        for figure in figures_in(cell)[:1]:
            told = filled(figure, inside, column)
            subject = told.subject or row[:120] or None
            if told.unit is None and told.quantity is None:
                continue
            base = _base(replace(inside, names=names), f"{row}: {column} {cell}"[:MOST_CHARACTERS])
            form = form_in(column) or base.form
            yield replace(base, figures=(replace(told, subject=subject),), form=form, topic=column or None)


def _result(around: Around, result: Collected) -> Claim:
    figures = tuple(
        Figure(str(value), value, value, value, None, result.operation, f"element {place}")
        for place, value in enumerate(result.said[:MOST_FIGURES])
    )
    base = _base(around, around.line.words[:MOST_CHARACTERS])
    return replace(
        base, kind="result", figures=figures, collected=result, topic=result.operation, model=None, cards=()
    )


@lru_cache(maxsize=4096)
def _is_known(heading: str) -> bool:
    """Tell whether what stands under a heading is said to be known."""
    words = "".join(letter if letter.isalnum() or letter == " " else " " for letter in heading[:120].lower())
    return bool(_KNOWN.fullmatch(" ".join(words.split())))
