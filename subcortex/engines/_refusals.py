"""Turn an engine's HTTP error into the typed error that says what to do about it. Pure."""

from __future__ import annotations

import re
from typing import Any

from subcortex.errors import (
    ConfigError,
    DoesNotFit,
    EngineFailed,
    InvalidRequest,
    Overloaded,
    SubcortexError,
)

_WORDS_CHARS = 2000
_CONTEXT = (
    re.compile(r"maximum context length is (?P<context>[\d,]+)"),
    re.compile(r"context length is (?:only )?(?P<context>[\d,]+)"),
    re.compile(r"context size \((?P<context>[\d,]+) tokens\)"),
    re.compile(r"context (?:window|length|size) of (?P<context>[\d,]+)"),
)
_PROMPT = (
    re.compile(r"\((?P<prompt>[\d,]+) in the messages"),
    re.compile(r"at least (?P<prompt>[\d,]+) input tokens"),
    re.compile(r"(?P<prompt>[\d,]+) (?:input|prompt) tokens"),
    re.compile(r"(?:resulted in|has|have|requested|passed|request \() ?(?P<prompt>[\d,]+) tokens"),
    re.compile(r"prompt \(length (?P<prompt>[\d,]+)\)"),
)
_CONTEXT_CODES = {"exceed_context_size_error", "context_length_exceeded"}


def refusal(
    status: int,
    body: Any,
    *,
    model: str,
    api_key_env: str | None = None,
    retry_after: str | None = None,
    log_tail: str = "",
) -> SubcortexError:
    """Return the error that ``status`` and ``body`` (parsed JSON, or text) stand for."""
    error = body.get("error", body) if isinstance(body, dict) else {}
    error = error if isinstance(error, dict) else {"message": str(error)}
    words = _words(error, body)
    if status in (400, 413, 422):
        return _context_error(error, words) or InvalidRequest(f"the engine refused the request: {words}")
    if status in (401, 403):
        where = f"Check the variable {api_key_env}." if api_key_env else "Set api_key_env in its tier."
        return ConfigError(
            f"the server refused the key (HTTP {status}): {words}", hint=where, key="api_key_env"
        )
    if status == 404:
        return ConfigError(
            f"the server does not have {model!r}, or no such route (HTTP 404): {words}",
            hint="Check model and url of its tier; the URL with /models lists what is served.",
            key="model",
        )
    if status in (429, 503):
        wait_s = _seconds(retry_after)
        return Overloaded(
            f"the engine is busy (HTTP {status}): {words}",
            hint=f"Come back in {wait_s:g} s.",
            retry_after_s=wait_s,
            transient=True,
        )
    if 400 <= status < 500:
        return InvalidRequest(f"the engine refused the request (HTTP {status}): {words}")
    gateway = status in (502, 504)
    return EngineFailed(f"the engine answered HTTP {status}: {words}", log_tail=log_tail, transient=gateway)


def _words(error: dict[str, Any], body: Any) -> str:
    words = error.get("message") or error.get("detail") or (body if isinstance(body, str) else "")
    return str(words).strip()[:_WORDS_CHARS] or "without a word why"


def _context_error(error: dict[str, Any], words: str) -> DoesNotFit | None:
    context = error.get("n_ctx") or _figure(_CONTEXT, words)
    named = error.get("type") in _CONTEXT_CODES or error.get("code") in _CONTEXT_CODES
    if not context and not named:
        return None
    prompt = error.get("n_prompt_tokens") or _figure(_PROMPT, words)
    if prompt and context:
        and_answer = "" if prompt >= context else " and the answer asked for do"
        does = "" if and_answer else " does"
        message = f"the prompt of {prompt} tokens{does}{and_answer} not fit the context of {context} tokens"
    else:
        message = f"the prompt does not fit the context: {words}"
    return DoesNotFit(
        message,
        hint="Shorten the prompt or lower max_tokens; or raise context_tokens of the tier.",
        prompt_tokens=prompt,
        context_tokens=context,
        engine_message=words,
    )


def _figure(patterns: tuple[re.Pattern[str], ...], words: str) -> int | None:
    for pattern in patterns:
        if found := pattern.search(words):
            return int(found[1].replace(",", ""))
    return None


def _seconds(retry_after: str | None) -> float:
    try:
        return max(0.0, float(retry_after)) if retry_after else 1.0
    except ValueError:
        return 1.0  # a date: rare, and not worth a parser
