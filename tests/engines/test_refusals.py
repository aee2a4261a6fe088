"""Every HTTP error becomes the typed error that says what to do."""

from __future__ import annotations

from typing import Any

import pytest

from subcortex.engines._refusals import refusal
from subcortex.errors import ConfigError, DoesNotFit, EngineFailed, InvalidRequest, Overloaded


def answered(status: int, body: Any, **more: Any) -> Any:
    return refusal(status, body, model="m", **more)


@pytest.mark.parametrize(
    ("error", "prompt", "context"),
    [
        # llama.cpp
        (
            {
                "message": "request (8029 tokens) exceeds the available context size (1024 tokens), "
                "try increasing it",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 8029,
                "n_ctx": 1024,
            },
            8029,
            1024,
        ),
        # vLLM 0.32, prompt alone too long
        (
            {
                "message": "This model's maximum context length is 512 tokens. However, your prompt contains "
                "at least 513 input tokens, which exceeds this limit even without any output tokens."
            },
            513,
            512,
        ),
        # vLLM 0.26
        (
            {
                "message": "'max_tokens' or 'max_completion_tokens' is too large: 500. This model's maximum "
                "context length is 512 tokens and your request has 422 input tokens (500 > 512 - 422)."
            },
            422,
            512,
        ),
        # OpenAI
        (
            {
                "message": "This model's maximum context length is 16,385 tokens. However, you requested "
                "20,000 tokens (19,000 in the messages, 1,000 in the completion).",
                "code": "context_length_exceeded",
            },
            19000,
            16385,
        ),
    ],
)
def test_a_prompt_too_long_says_both_figures(error: dict[str, Any], prompt: int, context: int) -> None:
    found = answered(400, {"error": error})
    assert isinstance(found, DoesNotFit)
    assert (found.details["prompt_tokens"], found.details["context_tokens"]) == (prompt, context)
    assert str(prompt) in found.message
    assert str(context) in found.message
    assert ("and the answer asked for" in found.message) == (prompt < context)


def test_a_context_error_without_figures_keeps_the_words() -> None:
    found = answered(400, {"error": {"message": "too long, friend", "code": "context_length_exceeded"}})
    assert isinstance(found, DoesNotFit)
    assert "too long, friend" in found.message


@pytest.mark.parametrize("status", [400, 405, 413, 415, 422])
def test_a_refused_request_says_what_the_engine_said(status: int) -> None:
    found = answered(status, {"error": {"message": "temperature must be non-negative"}})
    assert type(found) is InvalidRequest
    assert "temperature must be non-negative" in found.message


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_names_its_variable_and_never_the_key(status: int) -> None:
    found = answered(status, {"error": {"message": "bad key"}}, api_key_env="FAR_AWAY_KEY")
    assert isinstance(found, ConfigError)
    assert "FAR_AWAY_KEY" in str(found)


def test_a_key_that_is_missing_says_how_to_give_one() -> None:
    assert "api_key_env" in str(answered(401, "no"))


def test_an_unknown_model_is_named() -> None:
    found = answered(404, {"error": {"message": "The model `m` does not exist."}})
    assert isinstance(found, ConfigError)
    assert "'m'" in found.message


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), (None, 1.0), ("Wed, 21 Oct 2026 07:28:00 GMT", 1.0)]
)
@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_engine_says_when_to_come_back(status: int, header: str | None, seconds: float) -> None:
    found = answered(status, "slow down", retry_after=header)
    assert isinstance(found, Overloaded)
    assert found.details["retry_after_s"] == seconds


@pytest.mark.parametrize(
    "body", ["<html>boom</html>", {"error": {"message": "boom"}}, {"error": "boom"}, {"detail": "boom"}]
)
def test_an_error_of_the_engine_carries_its_log(body: Any) -> None:
    found = answered(500, body, log_tail="CUDA error: unspecified launch failure")
    assert isinstance(found, EngineFailed)
    assert "boom" in found.message
    assert "unspecified launch failure" in str(found)


def test_a_page_of_html_is_cut_short() -> None:
    assert len(answered(500, "x" * 100_000).message) < 3000
