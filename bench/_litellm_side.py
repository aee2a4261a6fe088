"""LiteLLM's Router against the openai client under it, at one engine's socket; run in LiteLLM's environment.

python _litellm_side.py SOCKET CALLS
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from importlib import metadata
from typing import Any


def main(socket: str, calls: int) -> None:
    import httpx
    import litellm
    import openai

    sdk: Any = openai.OpenAI  # this file runs beside LiteLLM, on the SDK that it pins

    litellm.client_session = httpx.Client(transport=httpx.HTTPTransport(uds=socket), timeout=None)
    direct = sdk(
        base_url="http://engine/v1",
        api_key="none",
        http_client=httpx.Client(transport=httpx.HTTPTransport(uds=socket), timeout=None),
        max_retries=0,
    )
    router = litellm.Router(
        model_list=[
            {
                "model_name": "fast",
                "litellm_params": {
                    "model": "openai/fast",
                    "api_base": "http://engine/v1",
                    "api_key": "none",
                },
            }
        ],
        num_retries=0,
    )
    messages = [{"role": "user", "content": "What is 7 + 5?"}]
    same: dict[str, Any] = {"model": "fast", "messages": messages, "max_tokens": 1, "temperature": 0.0}
    taken: tuple[list[float], list[float]] = ([], [])
    for place in range(-20, calls):
        for which in (0, 1) if place % 2 == 0 else (1, 0):
            began = time.perf_counter()
            if which:
                router.completion(**same)
            else:
                direct.chat.completions.create(**same)
            if place >= 0:
                taken[which].append((time.perf_counter() - began) * 1e3)
    one, two = (statistics.median(values) for values in taken)
    print(
        json.dumps(
            {
                "added_ms_p50": round(two - one, 3),
                "direct_ms_p50": round(one, 3),
                "router_ms_p50": round(two, 3),
                "n": calls,
                "versions": {name: metadata.version(name) for name in ("litellm", "openai")},
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
