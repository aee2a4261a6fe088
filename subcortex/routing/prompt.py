"""Numbers read off a prompt, in microseconds and with bounded work.

What is read is the ask: the last user message. Of a long one only its head and its tail are looked
at (people put the question first or last), with encoded blobs and log lines left out, since they
are long without being hard.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from subcortex.routing.words import KIND_OF, LETTER_CUES, SMALL_TALK, UNSPACED, Kind
from subcortex.types import Message

#: Characters looked at from each end of a message.
HEAD_CHARS = TAIL_CHARS = 2048
#: Messages looked at, from the end; and parts of one message, from each end.
MESSAGES_SEEN = 64
PARTS_SEEN = 16
#: Characters that stand for one word in scripts without spaces.
CHARS_A_WORD_UNSPACED = 2
#: Longest ask, in words, in which a letter standing alone is taken for one to be counted.
LETTER_ASK_WORDS = 40

# Every pattern is linear on its own: no unbounded repeat within another, and what follows one can
# never match what it repeats.
_SPACELESS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_BLOB = re.compile(r"[A-Za-z0-9+/=_-]{48,}+")
_LOG_LINE = re.compile(
    r"^[ \t]{0,8}(?:\[?\d{4}-\d\d-\d\d|\[?\d\d:\d\d:\d\d|[IWEF]\d{4} "
    r"|\[?(?:INFO|DEBUG|WARN|WARNING|ERROR|TRACE)\b|at [\w$.<>]{1,200}\(|File \"|Traceback)[^\n]*+",
    re.MULTILINE,
)
# Dates, times, links, paths and identifiers: digits and dashes with which nothing is calculated.
# Here and below a pattern starts with what is rare in prose, which makes the search for it quick.
_LINK = re.compile(r"https?://\S*+")
_PATH = re.compile(r"/(?<![\w)]/)[\w.-]{1,64}/[\w./-]*+")
_STAMP = re.compile(
    r"\d(?<!\w\w)(?:\d{3}-\d\d-\d\d(?:[T ]\d\d:\d\d)?(?::\d\d)?|\d?:\d\d(?::\d\d)?\b"
    r"|\d?/\d{1,2}/\d{4}\b|\d{0,2}(?:\.\d{1,3}){3}\b)"
)
_UUID = re.compile(r"\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F-]{22,26}")
_WORD = re.compile(r"[^\W\d_]++(?:['’-][^\W\d_]{1,32}+){0,3}")
_SPACELESS_CHARS = re.compile(f"[{_SPACELESS}]")
_UNSPACED_WORD = re.compile("|".join(sorted(map(re.escape, UNSPACED), key=len, reverse=True)))
_NUMBER = re.compile(r"\d(?:[.,]?\d)*+")
_SENTENCE_END = re.compile(r"[.!?。！？](?=\s|$|[^\x00-\x7f])")
_SIGN = re.compile(r"[\d)][ \t]{0,4}([-+*/×x·÷^%−])[ \t]{0,4}(?=[\d(])")
_LOGIC_SIGN = re.compile(r"[∑∫√≤≥∀∃⊃∧∨¬→²³]")
_CODE = re.compile(r"[{};]|[=!<>]=|=>|->|::|```|(?:def|class|import|return|function|const|lambda)(?=[ \t(])")
_LIST_ITEM = re.compile(r"^[ \t]{0,8}(?:[-*•]|\d{1,3}[.)])[ \t]", re.MULTILINE)
# A letter standing alone that someone may want counted; a and I are words unless quoted or asked for.
_LONE_LETTER = re.compile(
    r"(?<![\w'’])(?<!\d )(?:[b-hj-zB-HJ-Z](?:['’]?s)?|(?<=[\"'“‘])[aiAI](?=[\"'”’])"
    r"|(?<=[Mm]any )[aiAI](?:['’]?s)?(?= (?:are|in|is)\b)|(?<=[Ll]etter )[aiAI])(?![\w])"
)
_QUESTION_MARK = re.compile(r"[?？؟]")


@dataclass(frozen=True, slots=True)
class Features:
    """What a prompt looks like, in numbers. Counts are of the text looked at, unless they say otherwise.

    Args:
        chars: Characters of the ask, whole.
        seen_chars: Characters looked at, blobs and log lines included.
        words: Words; in scripts without spaces, two characters count as one.
        sentences: Sentences, at least 1 if there are words.
        digits: Digits in all numbers.
        numbers: Numbers.
        longest_number: Digits of the longest number.
        longest_word: Letters of the longest word.
        digit_steps: Roughly how many single-digit steps the arithmetic or sorting asked for takes.
        operators: Arithmetic and logic signs and words.
        products: Those among them that multiply, divide or worse.
        code_signs: Braces, arrows, keywords and the like.
        questions: Question marks, or question words if there are none.
        spelled_letters: Letters to go through when the ask is to count letters, else 0.
        reasoning_words: Different words that ask for reasoning (why, explain, compare, plan …).
        deep_words: Different words that ask for long reasoning (prove, derive, design, debug …).
        constraint_words: Different words that bind the answer (must, only, without, if …).
        quantity_words: Different words that relate quantities (twice, each, remaining …).
        symbolic_words: Different words of sorting, comparing, spelling and counting.
        unit_words: Different units and model terms (GiB, bits, tokens, layers …).
        steps: Words of sequence (then, next …) and list items.
        blobs: Encoded runs left out (base64, hashes).
        log_lines: Log and stack-trace lines left out.
        images: Parts of the ask that are not text.
        turns: Messages in the conversation.
        context_chars: Characters before the ask, in the messages looked at.
        tools: Tools are offered.
        schema: The answer must obey a schema.
        small_talk: Nothing but greetings and courtesies.
    """

    chars: int = 0
    seen_chars: int = 0
    words: int = 0
    sentences: int = 0
    digits: int = 0
    numbers: int = 0
    longest_number: int = 0
    longest_word: int = 0
    digit_steps: int = 0
    operators: int = 0
    products: int = 0
    code_signs: int = 0
    questions: int = 0
    spelled_letters: int = 0
    reasoning_words: int = 0
    deep_words: int = 0
    constraint_words: int = 0
    quantity_words: int = 0
    symbolic_words: int = 0
    unit_words: int = 0
    steps: int = 0
    blobs: int = 0
    log_lines: int = 0
    images: int = 0
    turns: int = 0
    context_chars: int = 0
    tools: bool = False
    schema: bool = False
    small_talk: bool = False


def features(messages: Sequence[Message], *, tools: bool = False, schema: bool = False) -> Features:
    """Read the numbers off a conversation; never fails on odd content, which counts as no text.

    Args:
        messages: Chat messages in OpenAI's shape; the last user message is the ask, or the last
            message if no user speaks among the last 64.
        tools: Tools are offered with the thought.
        schema: The answer must obey a JSON Schema.
    """
    recent = messages[-MESSAGES_SEEN:]
    ask = _place_of_ask(recent)
    if ask is None:
        return Features(turns=len(messages), tools=tools, schema=schema)
    texts, images = _parts(recent[ask].get("content"))
    chars = sum(map(len, texts))
    text = _ends(texts, chars)
    before = (_parts(message.get("content"))[0] for place, message in enumerate(recent) if place != ask)
    context_chars = sum(len(text) for texts in before for text in texts)
    return _read(text, chars, images, len(messages), context_chars, tools, schema)


def _place_of_ask(messages: Sequence[Message]) -> int | None:
    for place in range(len(messages) - 1, -1, -1):
        if messages[place].get("role") == "user":
            return place
    return len(messages) - 1 if messages else None


def _parts(content: Any) -> tuple[list[str], int]:
    """Return the texts of a message's content, and how many of its parts are not text."""
    if isinstance(content, str):
        return [content], 0
    if not isinstance(content, list):
        return [], 0
    seen = content if len(content) <= 2 * PARTS_SEEN else content[:PARTS_SEEN] + content[-PARTS_SEEN:]
    texts: list[str] = []
    others = 0
    for part in seen:
        text = part.get("text") if isinstance(part, dict) else part
        if isinstance(text, str):
            texts.append(text)
        else:
            others += 1
    return texts, others


def _ends(texts: list[str], chars: int) -> str:
    """Join texts, keeping the head and the tail of what is long, without joining the whole first."""
    if chars <= HEAD_CHARS + TAIL_CHARS:
        return "\n".join(texts)
    head: list[str] = []
    room = HEAD_CHARS
    for text in texts:
        head.append(text[:room])
        room -= len(head[-1])
        if room <= 0:
            break
    tail: list[str] = []
    room = TAIL_CHARS
    for text in reversed(texts):
        tail.append(text[-room:])
        room -= len(tail[-1])
        if room <= 0:
            break
    return "\n".join([*head, *reversed(tail)])


def _read(
    text: str, chars: int, images: int, turns: int, context_chars: int, tools: bool, schema: bool
) -> Features:
    prose, blobs = _without_blobs(text)
    prose, log_lines = _LOG_LINE.subn("", prose) if "\n" in prose else (prose, 0)
    prose = _without_names(prose)
    spelled = _WORD.findall(prose)
    lowered = [word.lower() for word in spelled]
    count, distinct = _counts(lowered)
    words = len(lowered)
    if not prose.isascii():
        words += _read_unspaced(prose, lowered, count, distinct)
        count[Kind.OPERATOR] += len(_LOGIC_SIGN.findall(prose))
    lengths = sorted((_digits_in(number) for number in _NUMBER.findall(prose)), reverse=True)
    signs = _SIGN.findall(prose)
    products = count[Kind.PRODUCT] + sum(1 for sign in signs if sign not in "+-−")
    operators = count[Kind.OPERATOR] + count[Kind.PRODUCT] + len(signs)
    return Features(
        chars=chars,
        seen_chars=len(text),
        words=words,
        sentences=max(len(_SENTENCE_END.findall(prose)), 1 if words else 0),
        digits=sum(lengths),
        numbers=len(lengths),
        longest_number=lengths[0] if lengths else 0,
        longest_word=max(map(len, spelled), default=0),
        digit_steps=_digit_steps(lengths, operators, products, distinct[Kind.SYMBOLIC]),
        operators=operators,
        products=products,
        code_signs=len(_CODE.findall(prose)),
        questions=len(_QUESTION_MARK.findall(prose)) or count[Kind.QUESTION],
        spelled_letters=_spelled_letters(prose, lowered),
        reasoning_words=distinct[Kind.REASONING],
        deep_words=distinct[Kind.DEEP],
        constraint_words=distinct[Kind.CONSTRAINT],
        quantity_words=distinct[Kind.QUANTITY],
        symbolic_words=distinct[Kind.SYMBOLIC],
        unit_words=distinct[Kind.UNIT],
        steps=count[Kind.STEP] + len(_LIST_ITEM.findall(prose)),
        blobs=blobs,
        log_lines=log_lines,
        images=images,
        turns=turns,
        context_chars=context_chars,
        tools=tools,
        schema=schema,
        small_talk=bool(lowered) and not lengths and SMALL_TALK.issuperset(lowered),
    )


def _without_blobs(text: str) -> tuple[str, int]:
    left_out = 0

    def keep_numbers(found: re.Match[str]) -> str:
        nonlocal left_out
        if found[0].isdigit():
            return found[0]
        left_out += 1
        return " "

    return _BLOB.sub(keep_numbers, text), left_out


def _without_names(prose: str) -> str:
    if "/" in prose:
        prose = _PATH.sub(" ", _LINK.sub(" ", prose))
    if prose.count("-") >= 4:
        prose = _UUID.sub(" ", prose)
    return _STAMP.sub(" ", prose)


def _counts(words: Iterable[str]) -> tuple[list[int], list[int]]:
    """Return how often each kind of word stands there, and how many different ones."""
    count, distinct = [0] * len(Kind), [0] * len(Kind)
    known: dict[str, Kind] = {}
    for word in words:
        kind = KIND_OF.get(word)
        if kind is not None:
            count[kind] += 1
            if word not in known:
                known[word] = kind
                distinct[kind] += 1
    return count, distinct


def _read_unspaced(prose: str, lowered: list[str], count: list[int], distinct: list[int]) -> int:
    """Add the words of scripts without spaces to the counts; return how many words more there are."""
    found = _UNSPACED_WORD.findall(prose)
    for word in found:
        count[UNSPACED[word]] += 1
    for word in set(found):
        distinct[UNSPACED[word]] += 1
    chars = len(_SPACELESS_CHARS.findall(prose))
    runs = sum(1 for word in lowered if _SPACELESS_CHARS.match(word))
    return max(chars // CHARS_A_WORD_UNSPACED - runs, 0)


def _digits_in(number: str) -> int:
    return len(number) - number.count(".") - number.count(",")


def _digit_steps(lengths: list[int], operators: int, products: int, symbolic: int) -> int:
    """Estimate the single-digit steps of the work asked, from the numbers' lengths (longest first).

    A product takes its factors' lengths multiplied, a sum a step a digit, a comparison half of one.
    """
    if not lengths or not (operators or symbolic):
        return 0
    if products and len(lengths) >= 2:
        pairs = min(products, len(lengths) - 1)
        return sum(lengths[i] * lengths[i + 1] for i in range(pairs)) + sum(lengths[pairs + 1 :])
    return sum(lengths) if operators else (sum(lengths) + 1) // 2


def _spelled_letters(prose: str, lowered: list[str]) -> int:
    if len(lowered) > LETTER_ASK_WORDS or LETTER_CUES.isdisjoint(lowered):
        return 0
    return sum(map(len, lowered)) if _LONE_LETTER.search(prose) else 0
