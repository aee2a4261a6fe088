"""A stand-in for a vLLM server with sleep mode, for where no GPU is; ``VllmEngine`` starts it as its vLLM.

It takes vLLM's command line, serves vLLM's routes on ``--uds``, and means by them what vLLM means: the level
of a sleep is a query parameter, no request is answered while it sleeps (vLLM would keep it waiting), and
after level 2 it says garbage until ``reload_weights``. Its answers depend on the prompt alone, so canaries
agree for as long as nothing is corrupt. Of several ranks each is a process that only outlives the server.

``install(folder, **switches)`` writes a program to set as a tier's ``executable``, and
``switch(program, **switches)`` adds switches while it runs. Each wake is sound or corrupt as switched then.

==================  ==================================================================================
``corrupt_wake``    after a wake it says other tokens, and is well otherwise
``nan_wake``        after a wake its log-probabilities are null
``hang_sleep``      ``/sleep`` never answers
``hang_wake``       ``/wake_up`` never answers
``ignore_sleep``    ``/sleep`` answers 200 and nothing happens
``refuse_wake``     ``/wake_up`` answers 200 and it sleeps on
``oom_wake``        ``/wake_up`` answers 500 with CUDA's words in its body (``"log"``: in the log alone)
``fail_reload``     ``reload_weights`` answers 500
``keep_prefixes``   ``/reset_prefix_cache`` says that it failed
``stuck``           no token moves any more, and ``/health`` says 200
``no_metrics``      there is no ``/metrics``
``hang_metrics``    ``/metrics`` never answers
``no_logprobs``     completions come without log-probabilities
``no_completions``  ``/v1/completions`` answers 404
``ignore_sigterm``  SIGTERM does nothing
``die``             the next request, whatever it is, ends the process
``token_s``         seconds a token (0.001); ``prompt_token_s`` of a prompt (0)
``slow_s``          seconds before a route's work, e.g. ``{"/sleep": 0.2, "start": 1.0}``
``hold_mib``        host memory held while awake, as a GPU's memory would be
``free_gib``        free of a GPU of ``total_gib`` (80): the start fails as vLLM's does where it is too little
``kv_tokens``       tokens that the KV pool could hold: a longer context fails the start
``most_batched``    a start with more ``--max-num-batched-tokens`` (8192) runs out of memory
==================  ==================================================================================
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import mmap
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from aiohttp import web

SWITCHES, CONTROL = "SLEEPY_SWITCHES", "SLEEPY_CONTROL"
USUAL_UTILISATION, USUAL_BATCHED, USUAL_CONTEXT = 0.92, 8192, 32768
_VOCABULARY = 32_000
_MIB = 1024 * 1024


def install(folder: Path, **switches: Any) -> Path:
    """Write a program that runs this server with the switches given; return it.

    Its control file lies beside it, as ``control.json``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "vllm"
    program.write_text(
        f"#!/bin/sh\n{SWITCHES}='{json.dumps(switches)}' {CONTROL}='{folder / 'control.json'}'\n"
        f"export {SWITCHES} {CONTROL}\nexec '{sys.executable}' '{Path(__file__).absolute()}' \"$@\"\n"
    )
    program.chmod(0o755)
    return program


def switch(program: Path, **switches: Any) -> None:
    """Have a running server go by other switches, those of its start aside."""
    file = program.with_name("control.json")
    scratch = file.with_suffix(".new")
    scratch.write_text(json.dumps(switches))
    scratch.replace(file)


def switches() -> dict[str, Any]:
    """Return what is switched on now."""
    found: dict[str, Any] = json.loads(os.environ.get(SWITCHES) or "{}")
    with contextlib.suppress(OSError, ValueError):
        found |= json.loads(Path(os.environ.get(CONTROL, "")).read_text())
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="vllm")
    parser.add_argument("serve")
    parser.add_argument("model")
    for name in ("--served-model-name", "--uds"):
        parser.add_argument(name, required=True)
    parser.add_argument("--tensor-parallel-size", type=int, default=1)
    parser.add_argument("--pipeline-parallel-size", type=int, default=1)
    parser.add_argument("--max-model-len", type=int, default=USUAL_CONTEXT)
    parser.add_argument("--gpu-memory-utilization", type=float, default=USUAL_UTILISATION)
    parser.add_argument("--max-num-batched-tokens", type=int, default=USUAL_BATCHED)
    parser.add_argument("--max-num-seqs", type=int, default=256)
    parser.add_argument("--kv-cache-memory-bytes", type=int)
    parser.add_argument("--load-format", default="auto")
    for name in ("enable-sleep-mode", "disable-uvicorn-access-log", "enforce-eager", "trust-remote-code"):
        parser.add_argument(f"--{name}", action=argparse.BooleanOptionalAction)
    # vLLM's own parser takes underscores for dashes.
    words = [re.sub(r"^--[^=]+", lambda flag: flag[0].replace("_", "-"), word) for word in sys.argv[1:]]
    return parser.parse_args(words)


class _Hold:
    """Host memory that can be given back."""

    def __init__(self) -> None:
        self._pages: mmap.mmap | None = None

    def take(self, mib: int) -> None:
        self.give()
        if mib:
            self._pages = mmap.mmap(-1, mib * _MIB)
            for page in range(0, mib * _MIB, mmap.PAGESIZE):
                self._pages[page] = 1

    def give(self) -> None:
        if self._pages is not None:
            self._pages.close()
            self._pages = None


class Server:
    """The state of the model, and a handler a route."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        #: ``there``, on the ``host``, ``dropped``, or ``blank``: mapped again and not read.
        self.weights = "there"
        self.kv = True
        self.salt = ""
        self.null = False
        self.steps = self.prompt_tokens = self.generated = 0
        self.running = 0
        self.used = 0.0
        self.hold = _Hold()
        self.hold.take(int(switches().get("hold_mib", 0)))

    @property
    def sleeps(self) -> bool:
        return self.weights in ("host", "dropped") or not self.kv

    async def sleep(self, request: Any) -> Any:
        on = switches()
        if on.get("hang_sleep"):
            await asyncio.Event().wait()
        level = int(request.query.get("level", "1"))
        if not on.get("ignore_sleep"):
            self.weights, self.kv = ("host" if level == 1 else "dropped"), False
            self.hold.give()
        return web.Response(status=200)

    async def wake_up(self, request: Any) -> Any:
        on = switches()
        print(f"INFO wake up the engine with tags: {request.query.getall('tags', None)}", flush=True)
        if on.get("hang_wake"):
            await asyncio.Event().wait()
        if where := on.get("oom_wake"):
            words = "CUDA Error: out of memory at csrc/cumem_allocator.cpp:63"
            print(f"(Worker_TP0 pid=1) RuntimeError: {words}", flush=True)
            said = (
                "EngineCore encountered an issue."
                if where == "log"
                else f"Worker failed with error '{words}'"
            )
            return web.json_response({"error": {"message": said, "code": 500}}, status=500)
        if on.get("refuse_wake"):
            return web.Response(status=200)
        tags = request.query.getall("tags", ["weights", "kv_cache"])
        if "weights" in tags:
            self.weights = {"host": "there", "dropped": "blank"}.get(self.weights, self.weights)
            self.hold.take(int(on.get("hold_mib", 0)))
        self.kv = self.kv or "kv_cache" in tags
        self.salt = "corrupt" if on.get("corrupt_wake") else ""
        self.null = bool(on.get("nan_wake"))
        return web.json_response({"status": "sleeping" if self.sleeps else "awake"})

    async def rpc(self, request: Any) -> Any:
        method = (await request.json())["method"]
        if (
            method != "reload_weights"
            or self.weights not in ("blank", "there")
            or switches().get("fail_reload")
        ):
            message = f"Call to collective_rpc method failed: {method} while weights are {self.weights}"
            return web.json_response({"error": {"message": message, "code": 500}}, status=500)
        self.weights = "there"
        return web.json_response({"results": [None]})

    async def is_sleeping(self, request: Any) -> Any:
        return web.json_response({"is_sleeping": self.sleeps})

    async def reset(self, request: Any) -> Any:
        return web.json_response({"success": not switches().get("keep_prefixes")})

    async def health(self, request: Any) -> Any:
        return web.Response(status=200)

    async def version(self, request: Any) -> Any:
        return web.json_response({"version": "0.0.sleepy"})

    async def models(self, request: Any) -> Any:
        return web.json_response({"data": [{"id": self.args.served_model_name}]})

    async def metrics(self, request: Any) -> Any:
        on = switches()
        if on.get("no_metrics"):
            return web.json_response({"detail": "Not Found"}, status=404)
        if on.get("hang_metrics"):
            await asyncio.Event().wait()
        rows = {
            "vllm:num_requests_running": self.running,
            "vllm:kv_cache_usage_perc": self.used,
            "vllm:prompt_tokens_total": self.prompt_tokens,
            "vllm:generation_tokens_total": self.generated,
            "vllm:iteration_tokens_total_count": self.steps,
        }
        labels = '{engine="0",model_name="' + self.args.served_model_name + '"}'
        lines = [f"# TYPE {name} counter\n{name}{labels} {float(value)}" for name, value in rows.items()]
        return web.Response(text="\n".join(lines) + "\n")

    def refused(self) -> Any:
        message = "the engine sleeps and takes no request"
        return web.json_response({"error": {"message": message, "code": 500}}, status=500)

    def said(self, prompt: str, place: int) -> tuple[int, float, int, float]:
        """Return the token at one place of the answer, its log-probability, and those of the next best."""
        told = (
            f"{self.args.model} {self.salt}{'' if self.weights == 'there' else self.weights} {prompt} {place}"
        )
        raw = hashlib.sha256(told.encode()).digest()
        token, second = (int.from_bytes(raw[at : at + 4], "big") % _VOCABULARY for at in (0, 4))
        best = -raw[8] / 512
        return token, best, second, best - 1 - raw[9] / 64

    async def answers(self, prompt: str, count: int) -> Any:
        """Yield the tokens of an answer as they come, and count them."""
        self.running += 1
        try:
            for piece in range(0, len(prompt), 512):
                await self.turn(switches().get("prompt_token_s", 0) * len(prompt[piece : piece + 512]))
                self.used += 0.001
            self.prompt_tokens += len(prompt)
            for place in range(count):
                await self.turn(switches().get("token_s", 0.001))
                self.steps, self.generated = self.steps + 1, self.generated + 1
                yield self.said(prompt, place)
        finally:
            self.running -= 1
            self.used = 0.0

    async def turn(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        while switches().get("stuck"):
            await asyncio.sleep(0.02)

    async def completions(self, request: Any) -> Any:
        on, body = switches(), await request.json()
        if on.get("no_completions"):
            return web.json_response({"detail": "Not Found"}, status=404)
        if self.sleeps:
            return self.refused()
        said = [row async for row in self.answers(str(body["prompt"]), int(body.get("max_tokens", 16)))]
        logprobs = {
            "tokens": [f"token_id:{token}" for token, *_ in said],
            "token_logprobs": [None if self.null else best for _, best, *_ in said],
            "top_logprobs": [
                {f"token_id:{token}": best, f"token_id:{second}": behind}
                for token, best, second, behind in said
            ],
        }
        told = logprobs if body.get("logprobs") is not None and not on.get("no_logprobs") else None
        text = "".join(f" {token}" for token, *_ in said)
        return web.json_response(
            {"choices": [{"index": 0, "text": text, "logprobs": told, "finish_reason": "length"}]}
        )

    async def chat(self, request: Any) -> Any:
        body = await request.json()
        if self.sleeps:
            return self.refused()
        prompt = json.dumps(body["messages"])
        count = int(body.get("max_tokens") or 16)
        usage = {
            "prompt_tokens": len(prompt),
            "completion_tokens": count,
            "total_tokens": len(prompt) + count,
        }
        if not body.get("stream"):
            text = "".join([f" {token}" async for token, *_ in self.answers(prompt, count)])
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "finish_reason": "length"}
            return web.json_response({"choices": [choice], "usage": usage})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        async for token, *_ in self.answers(prompt, count):
            await response.write(_event({"delta": {"content": f" {token}"}}))
        await response.write(_event({"delta": {}, "finish_reason": "length"}))
        await response.write(_event(None, usage=usage) + b"data: [DONE]\n\n")
        return response

    async def serve(self) -> None:
        @web.middleware
        async def watched(request: web.Request, handler: Any) -> web.StreamResponse:
            on = switches()
            if on.get("die"):
                os._exit(3)
            if wait_s := on.get("slow_s", {}).get(request.path):
                await asyncio.sleep(wait_s)
            answer: web.StreamResponse = await handler(request)
            return answer

        app = web.Application(middlewares=[watched])
        app.router.add_get("/health", self.health)
        app.router.add_get("/version", self.version)
        app.router.add_get("/metrics", self.metrics)
        app.router.add_get("/v1/models", self.models)
        app.router.add_post("/v1/completions", self.completions)
        app.router.add_post("/v1/chat/completions", self.chat)
        if self.args.enable_sleep_mode and os.environ.get("VLLM_SERVER_DEV_MODE") == "1":
            app.router.add_get("/is_sleeping", self.is_sleeping)
            app.router.add_post("/sleep", self.sleep)
            app.router.add_post("/wake_up", self.wake_up)
            app.router.add_post("/collective_rpc", self.rpc)
            app.router.add_post("/reset_prefix_cache", self.reset)
        runner = web.AppRunner(app, handler_cancellation=True)
        await runner.setup()
        ended = asyncio.Event()

        def asked_to_end() -> None:
            if not switches().get("ignore_sigterm"):
                ended.set()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked_to_end)
        await asyncio.sleep(switches().get("slow_s", {}).get("start", 0))
        print("INFO Starting vLLM server", flush=True)
        await web.UnixSite(runner, self.args.uds).start()
        await ended.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(runner.cleanup(), 1.0)


def _event(choice: dict[str, Any] | None, **more: Any) -> bytes:
    body = {"choices": [] if choice is None else [{"index": 0, **choice}], **more}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def _check_room(args: argparse.Namespace) -> None:
    """Fail as vLLM does where the switches leave no room, in its words."""
    on = switches()
    total, share = on.get("total_gib", 80.0), args.gpu_memory_utilization
    free, wanted = on.get("free_gib", total), round(total * share, 2)
    if free < wanted:
        sys.exit(
            f"(EngineCore pid=1) ValueError: Free memory on device cuda:0 ({free:.2f}/{total:.2f} GiB) on "
            f"startup is less than desired GPU memory utilization ({share}, {wanted} GiB)."
        )
    print("INFO Initializing a V1 LLM engine (v0.0.sleepy) with config: tensor_parallel_size=1, ", end="")
    print(f"max_seq_len={args.max_model_len}, device_config=cuda, enable_chunked_prefill=True,", flush=True)
    print(f"INFO Chunked prefill is enabled with max_num_batched_tokens={args.max_num_batched_tokens}.")
    print("INFO Model loading took 15.00 GiB memory and 3.1 seconds", flush=True)
    if args.max_num_batched_tokens > on.get("most_batched", args.max_num_batched_tokens):
        sys.exit(
            "(EngineCore pid=1) torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 3.00 GiB. "
            "GPU 0 has a total capacity of 80.00 GiB of which 1.50 GiB is free."
        )
    kv_tokens = on.get("kv_tokens", args.max_model_len)
    print(f"INFO Available KV cache memory: {kv_tokens / 8192:.2f} GiB", flush=True)
    if args.max_model_len > kv_tokens:
        sys.exit(
            f"ValueError: To serve one request with the models's max seq len ({args.max_model_len}), "
            f"({args.max_model_len / 8192:.2f} GiB KV cache is needed, which is larger than the available KV "
            f"cache memory ({kv_tokens / 8192:.2f} GiB). Based on the available memory, the estimated "
            f"maximum model length is {kv_tokens}."
        )
    print(f"INFO GPU KV cache size: {kv_tokens:,} tokens", flush=True)


def _main() -> None:
    args = _arguments()
    _check_room(args)
    for _ in range(args.tensor_parallel_size if args.tensor_parallel_size > 1 else 0):
        subprocess.Popen([sys.executable, "-S", "-c", "import signal; signal.pause()"])
    asyncio.run(Server(args).serve())


if __name__ == "__main__":
    _main()
