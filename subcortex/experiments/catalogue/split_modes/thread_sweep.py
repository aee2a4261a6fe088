"""llama.cpp on a CPU: a sweep of threads, then of sequences at once. Effects."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from subcortex.config import LlamaCppTier
from subcortex.errors import EngineFailed
from subcortex.experiments.catalogue.common.fixed_text import long_text
from subcortex.experiments.catalogue.split_modes.thread_report import (
    BATCH,
    GENERATION,
    PROMPT,
    against,
    arm_of,
    batch_arm,
    best_threads,
    contenders,
)
from subcortex.experiments.laboratory.engines import Served
from subcortex.experiments.laboratory.lab import Lab
from subcortex.experiments.laboratory.llama_output import BATCHED_BENCH, BENCH
from subcortex.experiments.laboratory.llama_tools import batched_bench, bench
from subcortex.experiments.laboratory.streams import posted
from subcortex.experiments.statistics import abba

PROMPT_TOKENS, GENERATED_TOKENS = 64, 16
#: Samples of one visit to an arm; of two visits a block is made.
VISIT = 2
BLOCKS_LEAST, BLOCKS_MOST = 3, 6
SEQUENCES = (1, 2, 4)
_BATCH_BLOCKS = 3
_BATCH_PROMPT_TOKENS = 8
_BATCH_CONTEXT_TOKENS = 256
_TOOL_LIMIT_S, _ANSWER_LIMIT_S = 300.0, 120.0
#: A tool built with CUDA would count prompts on a GPU; here the CPU is asked about.
_NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}


async def sweep(lab: Lab, tier: LlamaCppTier, counts: list[int], now: int) -> None:
    """Sample generation and prompt speed with each number of threads, in blocks there and back.

    Numbers that are far behind after a block are left; it ends once the best and its rival are told apart.
    """
    visit_s = 0.0
    for block in range(BLOCKS_MOST):
        if lab.seconds_left <= 0 and lab.readings(GENERATION):
            return
        chosen = contenders(lab.readings(GENERATION), counts, now) if block else counts
        if block >= BLOCKS_LEAST and _settled(lab, chosen, now):
            return
        if block and lab.seconds_left < 2 * len(chosen) * visit_s:
            return
        visits = {arm_of(n): n for n in chosen}
        seen = dict.fromkeys(visits, 0)
        # Every other block begins at the other end.
        order = [arm for number, arm in abba(list(visits), block + 1) if number == block]
        for arm in order:
            seen[arm] += VISIT
            if lab.done(GENERATION, arm=arm, block=block) >= seen[arm]:
                continue
            lab.say(f"{arm}, block {block + 1}", block / BLOCKS_MOST)
            began_s = time.monotonic()
            await _visit(lab, tier, visits[arm], arm, block)
            visit_s = max(visit_s, time.monotonic() - began_s)


async def sweep_batches(lab: Lab, tier: LlamaCppTier, threads: int) -> None:
    """Sample how fast several sequences at once are, all together, with so many threads."""
    took_s = 0.0
    for block, turn in ((block, turn) for block in range(_BATCH_BLOCKS) for turn in (1, 2)):
        if all(lab.done(BATCH, arm=batch_arm(n), block=block) >= turn for n in SEQUENCES):
            continue
        if lab.seconds_left <= took_s:
            return
        began_s = time.monotonic()
        lab.say(f"{SEQUENCES[-1]} sequences at once, block {block + 1}")
        sizes = SEQUENCES if turn == 1 else SEQUENCES[::-1]
        if BATCHED_BENCH in lab.scene.tools:
            speeds = await _batches_by_tool(lab, tier, threads)
        else:
            speeds = await _batches_by_engine(lab, tier, threads, sizes)
        for n in sizes:
            lab.sample(BATCH, speeds[n], "tokens/s", arm=batch_arm(n), block=block, sequences=n)
        took_s = max(took_s, time.monotonic() - began_s)


def how(lab: Lab) -> str:
    """Return what measures here, in words."""
    return BENCH if BENCH in lab.scene.tools else "the engine's own timings"


def _settled(lab: Lab, counts: list[int], now: int) -> bool:
    readings = lab.readings(GENERATION)
    best, _ = best_threads(readings, counts)
    return all(against(readings, n, best).kind != "inconclusive" for n in counts if n != best)


async def _visit(lab: Lab, tier: LlamaCppTier, threads: int, arm: str, block: int) -> None:
    if BENCH in lab.scene.tools:
        prompt, generation = await bench(
            lab,
            _model(lab, tier),
            *("-t", str(threads), "-ngl", "0"),
            prompt_tokens=PROMPT_TOKENS,
            generated_tokens=GENERATED_TOKENS,
            repetitions=VISIT,
            limit_s=_TOOL_LIMIT_S,
            env=_NO_GPU,
        )
        pairs = list(zip(prompt.tokens_per_s, generation.tokens_per_s, strict=True))
    else:
        async with lab.engine(tier.model_copy(update={"threads": threads})) as served:
            if served.fresh:
                await _timed(served, PROMPT_TOKENS)
            pairs = [await _timed(served, PROMPT_TOKENS) for _ in range(VISIT)]
    for prompt_speed, speed in pairs:
        lab.sample(PROMPT, prompt_speed, "tokens/s", arm=arm, block=block, threads=threads)
        lab.sample(GENERATION, speed, "tokens/s", arm=arm, block=block, threads=threads)


async def _timed(served: Served, prompt_tokens: int) -> tuple[float, float]:
    """Return an engine's own prompt and generation speed over one answer, tokens/s."""
    answer = await posted(
        served.socket, "/completion", await _body(served, prompt_tokens), limit_s=_ANSWER_LIMIT_S
    )
    return speeds_of(answer)


def speeds_of(answer: Any) -> tuple[float, float]:
    """Return prompt and generation speed, tokens/s, from an answer of llama.cpp's ``/completion``.

    The first token comes with the prompt, so the time is that of the others.

    Raises:
        EngineFailed: It tells no timings, or of fewer tokens than were asked for.
    """
    try:
        told = answer["timings"]
        tokens, seconds = int(told["predicted_n"]), float(told["predicted_ms"]) / 1000
        prompt = int(told["prompt_n"]) / float(told["prompt_ms"]) * 1000
    except (LookupError, TypeError, ValueError, ZeroDivisionError) as error:
        raise EngineFailed(f"the engine's answer has no timings: {error!r:.100}") from None
    if tokens < GENERATED_TOKENS or seconds <= 0 or prompt <= 0:
        raise EngineFailed(
            f"the engine generated {tokens} tokens in {seconds:g} s, asked for {GENERATED_TOKENS}"
        )
    return prompt, (tokens - 1) / seconds


async def _batches_by_tool(lab: Lab, tier: LlamaCppTier, threads: int) -> dict[int, float]:
    found = await batched_bench(
        lab,
        _model(lab, tier),
        *("-t", str(threads), "-ngl", "0"),
        prompt_tokens=_BATCH_PROMPT_TOKENS,
        generated_tokens=GENERATED_TOKENS,
        sequences=SEQUENCES,
        limit_s=_TOOL_LIMIT_S,
        env=_NO_GPU,
    )
    return {one.sequences: one.generated_tokens_per_s for one in found}


async def _batches_by_engine(
    lab: Lab, tier: LlamaCppTier, threads: int, sizes: tuple[int, ...]
) -> dict[int, float]:
    """Return tokens a second of all answers together, from the first request to the last token."""
    most = max(sizes)
    wide = tier.model_copy(
        update={
            "threads": threads,
            "parallel": most,
            "max_concurrent": most,
            "context_tokens": _BATCH_CONTEXT_TOKENS,
        }
    )
    found = {}
    async with lab.engine(wide) as served:
        body = await _body(served, _BATCH_PROMPT_TOKENS)
        if served.fresh:
            await posted(served.socket, "/completion", body, limit_s=_ANSWER_LIMIT_S)
        for n in sizes:
            began_s = time.monotonic()
            await asyncio.gather(
                *(posted(served.socket, "/completion", body, limit_s=_ANSWER_LIMIT_S) for _ in range(n))
            )
            found[n] = n * GENERATED_TOKENS / (time.monotonic() - began_s)
    return found


async def _body(served: Served, prompt_tokens: int) -> dict[str, Any]:
    """Return a request for so many tokens after a prompt of so many, whatever the model would say."""
    text = long_text(8 * prompt_tokens)
    told = await posted(served.socket, "/tokenize", {"content": text}, limit_s=_ANSWER_LIMIT_S)
    ids = told.get("tokens") if isinstance(told, dict) else None
    if not isinstance(ids, list) or len(ids) < prompt_tokens:
        raise EngineFailed(f"the engine does not make {prompt_tokens} tokens of {len(text)} characters")
    return {
        "prompt": ids[:prompt_tokens],
        "n_predict": GENERATED_TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "cache_prompt": False,
    }


def _model(lab: Lab, tier: LlamaCppTier) -> Path:
    return lab.scene.config.resolve(tier.model)
