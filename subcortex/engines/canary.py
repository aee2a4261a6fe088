"""The canary: what is asked after a start and after each wake, read from the answer, and compared. Pure."""

from __future__ import annotations

import math
from typing import Any

from subcortex.engines.protocol import Canary

TOKENS = 8
#: Short enough for a context of 64 tokens on a tokenizer of bytes, and for less than one block of a prefix
#: cache on any other: an answer must be computed, not remembered.
PROMPT = "The quick brown fox jumps over the"
#: How far the log-probability of one token may lie from what it was. A wake restores weights bit for bit and
#: the same kernels run, so as a rule nothing moves. What may: sums taken in another order (split-K, an
#: all-reduce over ranks), worth a step or two of a bf16 logit; between 16 and 32 a step is 0.125.
LOGPROB_TOLERANCE = 0.25
#: How far the best token may lead its runner-up for either to be said: each may move by one such step.
TIE_TOLERANCE = 0.25
#: The best of n tokens has a probability of 1/n at least, and no vocabulary has more than e^17 (24 million).
_LEAST_LOGPROB = -17.0
_ROUNDING = 1e-3


class MalformedCanary(ValueError):
    """An answer that has not the shape of a completion with log-probabilities."""


def request(model: str) -> dict[str, Any]:
    """Return the body for ``/v1/completions``; what one backend alone knows, the other passes over."""
    return {
        "model": model,
        "prompt": PROMPT,
        "max_tokens": TOKENS,
        "temperature": 0,
        "seed": 1,
        "logprobs": 2,
        # Some models end at once, which would tell nothing.
        "ignore_eos": True,
        # vLLM: two tokens may look alike as text, part of a character for one.
        "return_tokens_as_token_ids": True,
        # llama.cpp: a remembered prompt is computed in other batches than a new one.
        "cache_prompt": False,
    }


def read(body: Any) -> Canary | None:
    """Return the canary in an answer of vLLM's or llama.cpp's shape; None if it has no log-probabilities.

    Log-probabilities that came as null (JSON has no NaN) are NaN: see ``implausible``.

    Raises:
        MalformedCanary: The answer is no completion.
    """
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise MalformedCanary("it has no choices")
    told = choices[0].get("logprobs")
    if told is None:
        return None
    if not isinstance(told, dict):
        raise MalformedCanary("its logprobs are no object")
    return _of_content(told["content"]) if "content" in told else _of_columns(told)


def implausible(canary: Canary) -> str | None:
    """Return in words why no sound model can have said this; None if one can."""
    if not canary.tokens:
        return "it says nothing"
    for place, logprob in enumerate(canary.logprobs, start=1):
        if not math.isfinite(logprob):
            return f"the log-probability of token {place} is no number"
        if not _LEAST_LOGPROB <= logprob <= _ROUNDING:
            return f"the log-probability of token {place} is {logprob:.2f}, impossible for the likeliest"
    return None


def differs(before: Canary, after: Canary) -> str | None:
    """Return in words how two canaries of one model differ; None if they are equal as far as arithmetic goes.

    Where the two best tokens were as good as equal the other may be said; what follows it is another text,
    and is not compared.
    """
    for canary, whose in ((after, ""), (before, "what it said before is nothing to go by: ")):
        if words := implausible(canary):
            return whose + words
    for place, (was, now) in enumerate(zip(before.tokens, after.tokens, strict=False)):
        logprob_was, logprob_now = before.logprobs[place], after.logprobs[place]
        if was != now:
            return _other_token(before, place, now, logprob_now)
        if abs(logprob_now - logprob_was) > LOGPROB_TOLERANCE:
            return (
                f"token {place + 1} of {len(before.tokens)} has the log-probability {logprob_now:.3f} "
                f"where it had {logprob_was:.3f}"
            )
    if len(before.tokens) != len(after.tokens):
        return f"it says {len(after.tokens)} tokens where it said {len(before.tokens)}"
    return None


def _other_token(before: Canary, place: int, now: str, logprob_now: float) -> str | None:
    best = before.logprobs[place]
    second = before.runners_up[place] if place < len(before.runners_up) else None
    tied = second is not None and best - second <= TIE_TOLERANCE
    if second is not None and tied and abs(logprob_now - second) <= LOGPROB_TOLERANCE:
        return None
    lead = "" if second is None else f", {best - second:.2f} ahead of the next"
    return (
        f"token {place + 1} of {len(before.tokens)} is {now!r} at {logprob_now:.2f} where it was "
        f"{before.tokens[place]!r} at {best:.2f}{lead}"
    )


def _of_columns(told: dict[str, Any]) -> Canary:
    """Read vLLM's shape: one list a property."""
    tokens, logprobs = _list(told, "tokens"), _list(told, "token_logprobs")
    best = told.get("top_logprobs")
    best = [None] * len(tokens) if best is None else _list(told, "top_logprobs")
    if not len(tokens) == len(logprobs) == len(best):
        raise MalformedCanary("its lists of tokens and log-probabilities differ in length")
    seconds = []
    for row in best:
        if row is not None and not isinstance(row, dict):
            raise MalformedCanary("the best tokens at one place are no object")
        seconds.append(_second(list(row.values())) if row else None)
    return Canary(
        tuple(_text(token) for token in tokens), tuple(_number(value) for value in logprobs), tuple(seconds)
    )


def _of_content(rows: Any) -> Canary:
    """Read llama.cpp's shape: one object a token."""
    if not isinstance(rows, list):
        raise MalformedCanary("its logprobs are no list")
    tokens, logprobs, seconds = [], [], []
    for row in rows:
        if not isinstance(row, dict) or "logprob" not in row:
            raise MalformedCanary("one of its tokens has no log-probability")
        number = row.get("id")
        known = isinstance(number, int) and not isinstance(number, bool)
        tokens.append(f"token_id:{number}" if known else _text(row.get("token")))
        logprobs.append(_number(row["logprob"]))
        best = row.get("top_logprobs") or []
        if not isinstance(best, list) or not all(isinstance(other, dict) for other in best):
            raise MalformedCanary("the best tokens at one place are no list")
        seconds.append(_second([other.get("logprob") for other in best]))
    return Canary(tuple(tokens), tuple(logprobs), tuple(seconds))


def _list(told: dict[str, Any], key: str) -> list[Any]:
    value = told.get(key)
    if not isinstance(value, list):
        raise MalformedCanary(f"its {key} are no list")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise MalformedCanary("one of its tokens is no text")
    return value


def _number(value: Any) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise MalformedCanary("one of its log-probabilities is no number")
    return float(value)


def _second(values: list[Any]) -> float | None:
    numbers = [_number(value) for value in values]
    if len(numbers) < 2 or any(map(math.isnan, numbers)):
        return None
    return sorted(numbers, reverse=True)[1]
