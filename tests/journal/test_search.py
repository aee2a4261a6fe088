"""Words a person types find what they mean, and are never a syntax error."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from subcortex.journal import Journal, Reader
from subcortex.journal.search import expression
from tests.journal.samples import end, start, think

THOUGHTS = {
    "tp": ("Does tensor parallelism cost VRAM?", "Yes: communication buffers.", None),
    "kv": ("KV-cache size, please", "It is 2·layers·heads; see the tensors.", "first multiply"),
    "cafe": ("Où est le café?", "Près de la gare AND the station", None),
    "nul": ("before\x00after", "hidden\x00word", None),
    "cjk": ("推論 記憶", "答え", None),
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("search") / "journal.db"

    async def fill() -> None:
        async with Journal.open(path) as journal:
            for thought_id, (prompt, answer, reasoning) in THOUGHTS.items():
                await journal.begin(start(thought_id, prompt))
                await journal.complete(end(thought_id, answer, reasoning=reasoning))
            await journal.begin(start("running", "tensor"))
            await think(journal, "a later tensor", "x", drive="PLAY")

    asyncio.run(fill())
    return path


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("tensor parallelism", {"tp"}),
        ("PARALLELISM tensor", {"tp"}),
        ('"parallelism tensor"', set()),
        ('"tensor parallelism"', {"tp"}),
        ("communication vram", {"tp"}),
        ("multiply", {"kv"}),
        ("kv-cache", {"kv"}),
        ("cache-kv", set()),
        ("cafe ou", {"cafe"}),
        ("AND", {"cafe"}),
        ("gare OR station", set()),
        ("buff*", {"tp"}),
        ("buff", set()),
        ('"buffers', {"tp"}),
        ("after", {"nul"}),
        ("hidden word", {"nul"}),
        ("記憶", {"cjk"}),
        ("", set()),
        ("   ", set()),
        ('"', set()),
        ("*** --- ()", set()),
        ("prompt:kv", set()),
        ("NEAR(tensor parallelism)", set()),
        ("tensor parallelism ???", {"tp"}),
    ],
)
def test_words_find_thoughts(path: Path, query: str, found: set[str]) -> None:
    with Reader.open(path) as reader:
        assert {record.id for record in reader.thoughts(query=query)} & set(THOUGHTS) == found


def test_search_filters_and_pages_newest_first(path: Path) -> None:
    with Reader.open(path) as reader:
        both = reader.thoughts(query="tensor*")
        assert [record.prompt for record in both][:2] == ["a later tensor", "tensor"]
        assert [record.id for record in both[2:]] == ["kv", "tp"]
        assert [record.prompt for record in reader.thoughts(query="tensor", drive="play")] == [
            "a later tensor"
        ]
        assert [record.id for record in reader.thoughts(query="tensor*", before="kv")] == ["tp"]
        assert [record.id for record in reader.thoughts(query="tensor*", limit=1, before="kv")] == ["tp"]


# FTS5's own words and signs, next to anything at all.
pieces = st.sampled_from(
    [
        '"',
        "'",
        "AND",
        "OR",
        "NOT",
        "NEAR",
        "(",
        ")",
        "*",
        "^",
        "+",
        "-",
        ":",
        "{",
        "}",
        ",",
        ".",
        " ",
        "\x00",
        "é",
    ]
)
queries = st.lists(pieces | st.text(st.characters(exclude_categories=()), max_size=5), max_size=20).map(
    "".join
)


@settings(max_examples=300, deadline=None)
@given(queries)
@example('"' * 31)
@example("a" * 100_000)
@example("a " * 100_000)
@example("\U0001f600")
@example('a"*')
@example("\x00")
@example("\ud800")
def test_nothing_typed_is_an_error(path: Path, query: str) -> None:
    with Reader.open(path) as reader:
        reader.thoughts(query=query)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["tensor", "vram", "cost", "yes"]), min_size=1), st.sampled_from("?!()-,;:"))
def test_words_that_occur_are_found_whatever_signs_stand_between(
    path: Path, words: list[str], sign: str
) -> None:
    query = f" {sign} ".join(words)
    with Reader.open(path) as reader:
        assert "tp" in {record.id for record in reader.thoughts(query=query)}


def test_an_expression_quotes_every_word() -> None:
    assert expression('kv-cache "two words" ten* OR') == '"kv-cache" AND "two words" AND "ten*"* AND "OR"'
    assert expression("!!!") is None
    assert (expression("x " * 1000) or "").count(" AND ") == 31
