"""Any text survives being parsed; any session composed here is read back as it was meant."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from subcortex.journal.sessions import (
    DriveLevel,
    SessionText,
    compose,
    inert_body,
    parse,
    plain_body,
    read,
    render,
)
from subcortex.journal.sessions.writing import document_of
from subcortex.types import Depth

anything = st.text(st.characters(exclude_categories=()), max_size=200)
#: Lines that mean something, so that structure meets structure.
pieces = st.sampled_from(
    """---|...|===|# a|## Depth|##|### c|```|````|~~~|``` x|<!--|-->|> ## q|drive: REST|- a|**Depth:** full
**Drive:** CARE · **Date:** 2020-01-01|**Open question:** why?|\\## x|\\\\---|\\|*Depth: full*|* * *|___|%a%b%
\t|\ufeff|text|**Satisfaction depth:** full|Satisfied CARE (full)
    ## code|   ```|Depth|-----|+++|drive = "CARE"|```markdown|**Overall depth:** full|**depth** full
- [x] full|**Full**|1. **x** y|| """.replace("\n", "|").split("|")
)
endings = st.sampled_from(["\n", "\r\n", "\r", "\n\n"])
markdown = st.lists(st.tuples(pieces | anything, endings), max_size=14).map(
    lambda lines: "".join(line + end for line, end in lines)
)
drive_names = st.from_regex(r"[A-Z][A-Z]{3,8}(_[A-Z]{2,6})?", fullmatch=True)
texts = markdown | anything
sessions = st.builds(
    SessionText,
    at=st.datetimes(
        min_value=datetime(1970, 1, 1),
        max_value=datetime(2099, 12, 31),
        timezones=st.sampled_from(
            [None, UTC, timezone(timedelta(hours=5, minutes=30)), timezone(-timedelta(hours=8))]
        ),
    ).map(lambda at: at.replace(second=0, microsecond=0)),
    drives=st.lists(
        st.builds(
            DriveLevel,
            st.sampled_from(["LEARNING", "CURIOSITY", "CARE", "NOVELTY_SEEKING"]),
            st.none() | st.integers(0, 400).map(float),
        ),
        min_size=1,
        max_size=3,
        unique_by=lambda drive: drive.name,
    ).map(tuple),
    topic=st.none() | texts,
    fields=st.lists(st.tuples(texts, texts), max_size=3).map(tuple),
    sections=st.lists(st.tuples(texts, texts), max_size=4).map(tuple),
    depth=st.sampled_from(Depth),
    depth_reason=st.none() | texts,
    evidence_depth=st.none() | st.sampled_from(Depth),
    evidence_reasons=st.lists(texts, max_size=2).map(tuple),
)


@given(anything)
def test_any_text_comes_back(text: str) -> None:
    assert render(parse(text)) == text


@given(markdown)
def test_any_markdown_comes_back_and_can_be_read(text: str) -> None:
    document = parse(text)
    assert render(document) == text
    assert parse(render(document)) == document
    reading = read(document, "2026-02-22-1508-LEARNING.md")
    assert reading.at is not None
    lines = [line for block in document.blocks for line in block.lines]
    assert all(section.heading in lines[section.first_line - 1] for section in reading.sections)


@given(sessions)
def test_a_composed_session_is_the_document_it_was_made_from(session: SessionText) -> None:
    document = document_of(session)
    assert parse(compose(session)) == document


@given(sessions)
def test_no_text_forges_what_a_session_says_of_itself(session: SessionText) -> None:
    reading = read(parse(compose(session)))
    assert reading.kind == "session"
    assert reading.at == session.at
    assert reading.drives == session.drives
    assert reading.depth is session.depth
    top = [section.heading for section in reading.sections if section.level == 2]
    assert len(top) == len(session.sections) + 1
    assert top[-1] == "Depth"
    assert sum(section.level == 1 for section in reading.sections) == 1


@given(texts)
def test_a_body_made_harmless_is_the_same_text(text: str) -> None:
    inert = inert_body(text)
    assert inert_body(plain_body(inert)) == inert
    kept = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    while kept and not kept[0].strip():
        kept.pop(0)
    while kept and not kept[-1].strip():
        kept.pop()
    assert plain_body(inert) == "\n".join(kept)


@given(st.lists(st.tuples(st.sampled_from(["Notes", "What I Noticed"]), texts), min_size=1, max_size=3))
def test_sections_come_back_with_their_text(sections: list[tuple[str, str]]) -> None:
    session = SessionText(datetime(2026, 2, 22, 15, 8), sections=tuple(sections), depth=Depth.DEEP)
    lines = compose(session).split("\n")
    starts = [s.first_line for s in read(parse(compose(session))).sections if s.level == 2]
    for (heading, text), start, end in zip(sections, starts, starts[1:], strict=False):
        assert lines[start - 1] == f"## {heading}"
        body = "\n".join(lines[start : end - 1]).strip("\n")
        assert inert_body(plain_body(body)) == inert_body(text)
