"""The same words for every arm: beginnings whose next token is asked for, and a text made of them. Pure."""

from __future__ import annotations

#: Beginnings of sentences, short and long, with numbers, code and other languages among them.
BEGINNINGS: tuple[str, ...] = (
    "The capital of France is",
    "Water boils at a temperature of",
    "Two and two are four, and three and three are",
    "The quick brown fox jumps over the lazy",
    "In the beginning there was nothing but",
    "To keep the engine cool, the mechanic first",
    "She opened the letter, read it twice, and then",
    "The square root of 144 is",
    "def mean(values):\n    return sum(values) /",
    "for i in range(10):\n    print(",
    "SELECT name FROM people WHERE age >",
    '{"name": "Ada", "born": 1815, "field": "',
    "Der Zug nach Hamburg fährt heute von Gleis",
    "Le chat est assis sur le",
    "A train leaves at nine and arrives at noon, so the journey takes",
    "The three primary colours are red, yellow and",
    "After the storm the harbour was quiet, and the boats",
    "If all ravens are birds and all birds have wings, then all ravens",
    "The patient was given two tablets every",
    "Prices rose by five percent in the first year and fell by three in the",
    "Once the bread has risen, put it in the oven for",
    "Monday, Tuesday, Wednesday, Thursday,",
    "The committee could not agree on the budget because",
    "10, 20, 30, 40, 50,",
)


def long_text(characters: int) -> str:
    """Return at least so many characters, made of the beginnings, each round with another number."""
    parts: list[str] = []
    length = turn = 0
    while length < characters:
        for place, words in enumerate(BEGINNINGS):
            # Every round begins elsewhere, so that no stretch is like the one before it.
            one = f"{BEGINNINGS[(place * (2 * turn + 5)) % len(BEGINNINGS)]} {turn * 31 + place}. {words}\n"
            parts.append(one)
            length += len(one)
        turn += 1
    return "".join(parts)
