"""What `think()` adds to a direct call with the openai client at the same running engine.

    python bench/think_overhead.py --json

A daemon with one llama.cpp tier is started; its engine's own socket is then called directly with the
openai client, and through `think()`, in turn (ABBA), with the same prompts. One-token calls give
``added_ms_p50`` and ``added_ms_p99``: the difference of the medians, and of the 99th percentiles. A streaming
load at concurrency 32 gives ``throughput_ratio``: tokens a second through `astream` over those through
`AsyncOpenAI` with its own retries (the engine closes a connection now and then), the median of rounds in
turn. LiteLLM's Router is measured the same way against the client under it, in an environment of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from _bench import arguments, finish, machine, percentile, spread

from subcortex import Client, Thought, astream, think
from subcortex import config as configuration
from subcortex.types import TierState

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from testbed import tasks  # noqa: E402

_CONCURRENCY = 32
_CONFIG = """
[subcortex]
version = 1
[[tiers]]
name = "fast"
engine = "llama.cpp"
model = "{model}"
context_tokens = 512
parallel = {parallel}
max_concurrent = {parallel}
threads = 1
flags = ["--no-cache-prompt"]
"""


def calls_in_turn(
    direct: Callable[[str], object], ours: Callable[[str], object], prompts: list[str]
) -> tuple[list[float], list[float]]:
    """Time both on every prompt, ABBA, and return their milliseconds."""
    taken: tuple[list[float], list[float]] = ([], [])
    for place, prompt in enumerate(prompts):
        order = (0, 1) if place % 2 == 0 else (1, 0)
        for which in order:
            began = time.perf_counter()
            (direct, ours)[which](prompt)
            taken[which].append((time.perf_counter() - began) * 1e3)
    return taken


def added(direct: list[float], ours: list[float]) -> dict[str, float]:
    """Return the medians' difference and that of the 99th percentiles, in milliseconds."""
    return {
        "p50": round(statistics.median(ours) - statistics.median(direct), 3),
        "p99": round(percentile(ours, 0.99) - percentile(direct, 0.99), 3),
    }


async def load(call: Callable[[str], Awaitable[int]], prompts: list[str]) -> float:
    """Return tokens a second of all prompts at the concurrency."""
    gate = asyncio.Semaphore(_CONCURRENCY)

    async def gated(prompt: str) -> int:
        async with gate:
            return await call(prompt)

    began = time.perf_counter()
    tokens = sum(await asyncio.gather(*(gated(prompt) for prompt in prompts)))
    return tokens / (time.perf_counter() - began)


async def streaming(socket: Path, client: Client, prompts: list[str], rounds: int) -> dict[str, Any]:
    """Stream the prompts both ways in turn and return tokens a second of each round."""
    import httpx2
    from openai import AsyncOpenAI

    transport = httpx2.AsyncHTTPTransport(uds=str(socket))
    http = httpx2.AsyncClient(transport=transport, timeout=None)
    sdk = AsyncOpenAI(base_url="http://engine/v1", api_key="none", http_client=http)

    async def direct(prompt: str) -> int:
        tokens = 0
        stream = await sdk.chat.completions.create(
            model="fast",
            messages=[{"role": "user", "content": prompt}],
            max_tokens=64,
            temperature=0.0,
            stream=True,
            stream_options={"include_usage": True},
        )
        async for chunk in stream:
            if chunk.usage:
                tokens = chunk.usage.completion_tokens
        return tokens

    async def ours(prompt: str) -> int:
        tokens = 0
        async for piece in astream(prompt, tier="fast", max_tokens=64, temperature=0.0, client=client):
            if isinstance(piece, Thought):
                tokens = piece.usage.completion_tokens
        return tokens

    speeds: dict[str, list[float]] = {"direct": [], "think": []}
    await load(direct, prompts[:64])
    await load(ours, prompts[:64])
    for number in range(rounds):
        pair = [("direct", direct), ("think", ours)]
        for name, call in pair if number % 2 == 0 else reversed(pair):
            speeds[name].append(await load(call, prompts))
    await sdk.close()
    return {
        "ratio": statistics.median(
            ours / direct for ours, direct in zip(speeds["think"], speeds["direct"], strict=True)
        ),
        "tokens_per_s": {name: spread(values, 0) for name, values in speeds.items()},
    }


def litellm(socket: Path, calls: int) -> dict[str, Any]:
    """Measure LiteLLM's Router at the same engine, in an environment made for it."""
    with tempfile.TemporaryDirectory(prefix="litellm-") as folder:
        python = Path(os.environ.get("LITELLM_PYTHON") or Path(folder, "bin", "python"))
        if not python.exists():
            venv.create(folder, with_pip=True)
            subprocess.run([python, "-m", "pip", "install", "-q", "litellm"], check=True, capture_output=True)
        side = Path(__file__).with_name("_litellm_side.py")
        ran = subprocess.run([python, side, socket, str(calls)], check=True, capture_output=True, text=True)
    return dict(json.loads(ran.stdout.splitlines()[-1]))


def until_ready(client: Client) -> None:
    """Wait for the engine; raise what stopped it."""
    while True:
        (tier,) = client.status().tiers
        if tier.state is TierState.READY:
            return
        if tier.state is TierState.FAILED:
            raise RuntimeError(tier.error)
        time.sleep(0.05)


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--requests", type=int, default=256, help="requests a round of the streaming load")
    parser.add_argument("--model", type=Path, default=ROOT / "testbed/models/fast/fast.gguf")
    parser.add_argument("--no-litellm", action="store_true")
    given = parser.parse_args()
    rng = random.Random(0)
    prompts = [tasks.item(rng.randint(1, 3), rng).prompt for _ in range(max(given.calls, given.requests))]

    with tempfile.TemporaryDirectory(prefix="sub-") as folder:
        file = Path(folder) / "config.toml"
        file.write_text(_CONFIG.format(model=given.model.absolute(), parallel=_CONCURRENCY))
        places = {
            "SUBCORTEX_DAEMON__RUNTIME_DIR": folder,
            "SUBCORTEX_JOURNAL__DATABASE": f"{folder}/journal.db",
        }
        os.environ.update(places)
        client = Client(configuration.load(file))
        client.start_daemon()
        try:
            until_ready(client)
            socket = next(Path(folder, "engines").rglob("*.sock"))
            result = measure(given, client, socket, prompts)
            if not given.no_litellm:
                side = litellm(socket, given.calls)
                result["litellm_added_ms_p50"] = side["added_ms_p50"]
                result["litellm_over_ours"] = (
                    round(side["added_ms_p50"] / result["added_ms_p50"], 1)
                    if result["added_ms_p50"] > 0
                    else "ours adds nothing"
                )
                result["litellm"] = side
        finally:
            client.stop()
    finish(result | {"machine": machine()}, given.json)


def measure(given: Any, client: Client, socket: Path, prompts: list[str]) -> dict[str, Any]:
    """Return the figures of `think()` against the openai client."""
    import httpx2
    from openai import OpenAI

    transport = httpx2.HTTPTransport(uds=str(socket))
    sdk = OpenAI(
        base_url="http://engine/v1",
        api_key="none",
        http_client=httpx2.Client(transport=transport, timeout=None),
        max_retries=0,
    )

    def direct(prompt: str) -> object:
        return sdk.chat.completions.create(
            model="fast", messages=[{"role": "user", "content": prompt}], max_tokens=1, temperature=0.0
        )

    def ours(prompt: str) -> object:
        return think(prompt, max_tokens=1, temperature=0.0, client=client)

    calls_in_turn(direct, ours, prompts[:30])
    one, two = calls_in_turn(direct, ours, prompts[: given.calls])
    difference = added(one, two)
    streamed = asyncio.run(streaming(socket, client, prompts[: given.requests], given.rounds))
    return {
        "added_ms_p50": difference["p50"],
        "added_ms_p99": difference["p99"],
        "throughput_ratio": round(streamed["ratio"], 3),
        "direct_ms": spread(one),
        "think_ms": spread(two),
        "tokens_per_s": streamed["tokens_per_s"],
    }


if __name__ == "__main__":
    main()
