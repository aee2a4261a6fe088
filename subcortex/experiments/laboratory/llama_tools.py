"""llama.cpp's own tools, as experiments call them. Effects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from subcortex.errors import EngineFailed
from subcortex.experiments.laboratory.children import Output
from subcortex.experiments.laboratory.lab import Lab
from subcortex.experiments.laboratory.llama_output import (
    BATCHED_BENCH,
    BENCH,
    PERPLEXITY,
    BatchedBench,
    Bench,
    DeviceMemory,
    Divergence,
    parse_batched_bench,
    parse_bench,
    parse_divergence,
    parse_load_s,
    parse_memory,
    strange,
)

T = TypeVar("T")
_TRIES = 3


async def bench(
    lab: Lab,
    model: Path,
    *arguments: str,
    prompt_tokens: int,
    generated_tokens: int,
    repetitions: int,
    limit_s: float,
    env: Mapping[str, str] | None = None,
) -> tuple[Bench, Bench]:
    """Return llama-bench's prompt test and generation test of a model, after its own warm-up.

    Raises:
        EngineFailed: It refused, was not done in time, or printed something else.
    """
    words = ["-m", str(model), "-p", str(prompt_tokens), "-n", str(generated_tokens), "-r", str(repetitions)]
    # Talkative, since it says nothing of why it would not load otherwise.
    words += ["-v", "-o", "jsonl", *arguments]
    found = parse_bench(await lab.tool(BENCH, *words, limit_s=limit_s, env=env))
    asked = [(prompt_tokens, 0), (0, generated_tokens)]
    told = [(one.prompt_tokens, one.generated_tokens) for one in found]
    if told != asked:
        raise strange(BENCH, f"has the tests {told}, asked for {asked}", "")
    if any(len(one.tokens_per_s) != repetitions for one in found):
        raise strange(BENCH, f"has not the {repetitions} repetitions asked for", "")
    return found[0], found[1]


async def batched_bench(
    lab: Lab,
    model: Path,
    *arguments: str,
    prompt_tokens: int,
    generated_tokens: int,
    sequences: Sequence[int],
    limit_s: float,
    env: Mapping[str, str] | None = None,
) -> tuple[BatchedBench, ...]:
    """Return llama-batched-bench's lines, one for each number of sequences at once.

    Raises:
        EngineFailed: As ``bench``.
    """
    most = max(sequences) * (prompt_tokens + generated_tokens)
    words = ["-m", str(model), "-c", str(most), "-npp", str(prompt_tokens), "-ntg", str(generated_tokens)]
    words += ["-npl", ",".join(map(str, sequences)), "--output-format", "jsonl", *arguments]

    def parsed(said: Output) -> tuple[BatchedBench, ...]:
        found = parse_batched_bench(said.stdout)
        told = [one.sequences for one in found]
        if told != list(sequences):
            raise strange(BATCHED_BENCH, f"has {told} sequences at once, asked for {list(sequences)}", "")
        return found

    return await _parsed(lab, BATCHED_BENCH, words, parsed, limit_s=limit_s, env=env)


#: At this verbosity its log tells load time and memory. It shall change no setting to make them fit.
_TALK = ("-lv", "4", "-fit", "off")


@dataclass(frozen=True, slots=True)
class Compared:
    """One run of llama-perplexity against a base: divergence, seconds to load, memory by device."""

    divergence: Divergence
    load_s: float
    memory: tuple[DeviceMemory, ...]


async def save_base(
    lab: Lab,
    model: Path,
    text: Path,
    base: Path,
    *arguments: str,
    context_tokens: int,
    chunks: int,
    limit_s: float,
    env: Mapping[str, str] | None = None,
) -> None:
    """Have llama-perplexity store a model's next-token distributions over a text in ``base``.

    The file takes 2 bytes a token of the vocabulary for every second token of the text.

    Raises:
        EngineFailed: It failed, or the text is too short (twice ``context_tokens`` is needed).
    """
    words = ["-m", str(model), "-f", str(text), "--kl-divergence-base", str(base)]
    words += ["-c", str(context_tokens), "-b", str(context_tokens), "--chunks", str(chunks), *_TALK]
    said = await lab.tool_with_log(PERPLEXITY, *words, *arguments, limit_s=limit_s, env=env)
    # It ends with 0 where the text was too short, and leaves a header.
    if await asyncio.to_thread(_size, base) < context_tokens * chunks:
        raise EngineFailed(
            f"{PERPLEXITY} stored no distributions over {chunks} × {context_tokens} tokens",
            hint="The end of what it said is below.",
            log_tail="\n".join(said.log.splitlines()[-30:]),
        )


async def compare(
    lab: Lab,
    model: Path,
    base: Path,
    *arguments: str,
    context_tokens: int,
    limit_s: float,
    env: Mapping[str, str] | None = None,
) -> Compared:
    """Return how a model, run with other arguments, differs from what ``save_base`` stored.

    Raises:
        EngineFailed: It failed or printed something else.
    """
    words = ["-m", str(model), "--kl-divergence-base", str(base), "--kl-divergence"]
    words += ["-c", str(context_tokens), "-b", str(context_tokens), *_TALK]

    def parsed(said: Output) -> Compared:
        return Compared(parse_divergence(said.stdout), parse_load_s(said.log), parse_memory(said.log))

    return await _parsed(lab, PERPLEXITY, [*words, *arguments], parsed, limit_s=limit_s, env=env)


async def _parsed(
    lab: Lab,
    tool: str,
    words: Sequence[str],
    parsed: Callable[[Output], T],
    *,
    limit_s: float,
    env: Mapping[str, str] | None,
) -> T:
    """Return a tool's output as parsed; where that fails the tool is run again.

    These print through a thread of their own and end without waiting for it (llama.cpp issue 22142), so on a
    busy machine the last lines are lost now and then.
    """
    for attempt in range(_TRIES):
        said = await lab.tool_with_log(tool, *words, limit_s=limit_s, env=env)
        try:
            return parsed(said)
        except EngineFailed:
            if attempt == _TRIES - 1:
                raise
    raise AssertionError("the last try returns or raises")


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0
