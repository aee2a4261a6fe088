"""What a running server is asked besides thoughts: its canary and its counters."""

from __future__ import annotations

from collections.abc import Callable, Collection

import aiohttp

from subcortex.engines import _metrics, canary
from subcortex.engines.protocol import Canary
from subcortex.engines.wire import Wire
from subcortex.errors import EngineFailed

_COUNTERS_LIMIT_S = 5.0
#: Answers of a server that has no such route, or does not do this with this model.
_NOT_HERE = frozenset({400, 404, 405, 422, 501})


async def ask_canary(
    wire: Wire, url: str, *, model: str, limit_s: float, log_tail: Callable[[], str]
) -> Canary | None:
    """Return what the server says to the fixed prompt; None if it tells no log-probabilities.

    Raises:
        EngineFailed: No answer within the limit, an error, or an answer of another shape.
    """

    def failed(words: str) -> EngineFailed:
        return EngineFailed(f"{model} {words}", log_tail=log_tail())

    try:
        status, body = await wire.post(url, canary.request(model), timeout_s=limit_s)
    except TimeoutError:
        raise failed(f"did not answer its canary within {limit_s:g} s") from None
    except (OSError, aiohttp.ClientError) as error:
        raise failed(f"cannot be asked its canary: {error or type(error).__name__}") from error
    if status in _NOT_HERE:
        return None
    if status != 200:
        raise failed(f"answered its canary with HTTP {status}: {str(body)[:500]}")
    try:
        return canary.read(body)
    except canary.MalformedCanary as error:
        raise failed(f"answered its canary with no completion: {error}") from error


async def ask_counters(wire: Wire, url: str, names: Collection[str]) -> dict[str, float] | None:
    """Return those of the named counters that the server keeps; None if it keeps none of them.

    Raises:
        EngineFailed: It cannot be asked, or does not answer within 5 s; transient.
    """
    try:
        status, text = await wire.get(url, timeout_s=_COUNTERS_LIMIT_S)
    except TimeoutError:
        raise EngineFailed(
            f"its counters did not come within {_COUNTERS_LIMIT_S:g} s", transient=True, timed_out=True
        ) from None
    except (OSError, aiohttp.ClientError) as error:
        words = str(error) or type(error).__name__
        raise EngineFailed(f"its counters cannot be asked for: {words}", transient=True) from error
    if status in _NOT_HERE or (status == 200 and not isinstance(text, str)):
        return None
    if status != 200:
        raise EngineFailed(f"its counters were refused with HTTP {status}", transient=True)
    return _metrics.figures(text, names) or None
