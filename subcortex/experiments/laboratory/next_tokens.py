"""What a model would say next: the likeliest tokens of one place, and how far two of them lie apart. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, isfinite, log
from typing import Any

from subcortex.errors import EngineFailed

#: As many as vLLM gives without being told otherwise.
TOP = 20
#: Probabilities are told as 32-bit floats: below this much of the whole nothing can be said of the rest.
_LEAST_REST = 1e-7
_MOST_PROBABILITY = 1.001
#: A probability of zero comes as the lowest number there is.
_NOTHING = -700.0


def request(model: str, prompt: str, salt: str) -> dict[str, Any]:
    """Return the body for ``/v1/completions``; what one backend alone knows, the other passes over.

    Args:
        model: The name in requests.
        prompt: Whose next token is asked for.
        salt: Differs from request to request, so that none is answered from another's cache.
    """
    return {
        "model": model,
        "prompt": prompt,
        "max_tokens": 1,
        "temperature": 0,
        "seed": 1,
        "logprobs": TOP,
        # vLLM: two tokens may look alike as text, part of a character for one.
        "return_tokens_as_token_ids": True,
        "cache_salt": salt,
        # llama.cpp: a remembered prompt is computed in other batches than a new one.
        "cache_prompt": False,
    }


def read(body: Any) -> dict[str, float]:
    """Return the log-probabilities of the likeliest next tokens, by token, of vLLM's or llama.cpp's answer.

    Raises:
        EngineFailed: The answer is no completion with log-probabilities, or they are no probabilities.
    """
    try:
        told = body["choices"][0]["logprobs"]
        if "content" in told:
            found = {str(one["id"]): _number(one["logprob"]) for one in told["content"][0]["top_logprobs"]}
        else:
            found = {str(token): _number(one) for token, one in told["top_logprobs"][0].items()}
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise EngineFailed(
            f"the engine's answer has no log-probabilities of the next token: {error!r:.100}",
            hint="The comparison needs `logprobs` of /v1/completions.",
        ) from None
    whole = sum(map(exp, found.values()))
    if not found or whole > _MOST_PROBABILITY:
        raise EngineFailed(f"the probabilities of {len(found)} next tokens add up to {whole:.4f}")
    return found


def best(tokens: Mapping[str, float]) -> str:
    """Return the likeliest token; of several equal ones always the same."""
    return min(tokens, key=lambda token: (-tokens[token], token))


def divergence(p: Mapping[str, float], q: Mapping[str, float]) -> float:
    """Return D(P‖Q) = Σ p·ln(p/q) in nats, with all tokens that are not known of both lumped into one.

    Lumping can only lower it (the log-sum inequality: Cover and Thomas, Elements of Information Theory,
    2nd edition, theorem 2.7.1), so it is a lower bound, and exact where the lumped tokens' probabilities are
    in proportion to each other.

    Args:
        p, q: Log-probabilities by token, e.g. of the twenty likeliest.
    """
    shared = p.keys() & q.keys()
    total = sum(exp(p[one]) * (p[one] - q[one]) for one in shared if p[one] > _NOTHING)
    rest_p = 1 - sum(exp(p[one]) for one in shared)
    rest_q = 1 - sum(exp(q[one]) for one in shared)
    if rest_p > _LEAST_REST:
        total += rest_p * log(rest_p / max(rest_q, _LEAST_REST))
    return max(0.0, total)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or value > 0.001:
        raise ValueError(f"{value!r} is no log-probability")
    return max(float(value), _NOTHING)
