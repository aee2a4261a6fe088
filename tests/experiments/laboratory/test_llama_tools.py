"""Tools of llama.cpp that misbehave: what becomes of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from subcortex.errors import EngineFailed
from subcortex.experiments.laboratory.llama_output import BATCHED_BENCH, BENCH, PERPLEXITY
from subcortex.experiments.laboratory.llama_tools import batched_bench, bench, save_base
from tests.experiments.harness import config_for, lab_for, scene_for

RECORDED = Path(__file__).parent / "recorded"
MODEL = Path("model.gguf")


def tool(folder: Path, name: str, script: str) -> dict[str, Path]:
    file = folder / name
    file.write_text(f"#!{sys.executable}\nimport os, sys\n{script}\n")
    file.chmod(0o755)
    return {name: file}


def cut_first(folder: Path, cuts: int) -> dict[str, Path]:
    """Return a tool whose first outputs lack their last line, as was seen on a busy machine."""
    script = f"""
count = {str(folder / "count")!r}
done = os.path.getsize(count) if os.path.exists(count) else 0
open(count, "a").write("x")
name = "llama-batched-bench-cut.jsonl" if done < {cuts} else "llama-batched-bench.jsonl"
print(open(os.path.join({str(RECORDED)!r}, name)).read())"""
    return tool(folder, BATCHED_BENCH, script)


async def batches(folder: Path, cuts: int) -> tuple[list[int], int]:
    scene = scene_for(config_for(folder), tools=cut_first(folder, cuts))
    async with lab_for(scene) as (lab, keep):
        found = await batched_bench(
            lab, MODEL, prompt_tokens=32, generated_tokens=16, sequences=(1, 2, 4), limit_s=30.0
        )
        return [one.sequences for one in found], len(keep.commands)


async def test_output_that_lost_its_end_is_asked_for_again(tmp_path):
    assert await batches(tmp_path, cuts=2) == ([1, 2, 4], 3)


async def test_three_times_is_enough(tmp_path):
    with pytest.raises(EngineFailed, match=r"\[1, 2\]"):
        await batches(tmp_path, cuts=3)


async def test_a_bench_that_did_something_else_is_no_answer(tmp_path):
    # The recording is of two numbers of threads.
    script = f"print(open({str(RECORDED / 'llama-bench.jsonl')!r}).read())"
    scene = scene_for(config_for(tmp_path), tools=tool(tmp_path, BENCH, script))
    async with lab_for(scene) as (lab, _):
        with pytest.raises(EngineFailed, match="asked for"):
            await bench(lab, MODEL, prompt_tokens=64, generated_tokens=16, repetitions=3, limit_s=30.0)


async def test_a_text_too_short_is_an_error_though_the_tool_ends_well(tmp_path):
    script = """
open(sys.argv[sys.argv.index("--kl-divergence-base") + 1], "wb").write(b"_logits_")
sys.stderr.write("perplexity: you need at least 512 tokens to evaluate perplexity\\n")"""
    scene = scene_for(config_for(tmp_path), tools=tool(tmp_path, PERPLEXITY, script))
    base = tmp_path / "base"
    async with lab_for(scene) as (lab, _):
        with pytest.raises(EngineFailed, match="stored no distributions") as caught:
            await save_base(lab, MODEL, MODEL, base, context_tokens=256, chunks=4, limit_s=30.0)
    assert "512 tokens" in caught.value.details["log_tail"]


async def test_a_tool_that_hangs_is_over_at_its_limit(tmp_path):
    script = "import time\nsys.stderr.write('loading\\n'); sys.stderr.flush()\ntime.sleep(600)"
    scene = scene_for(config_for(tmp_path), tools=tool(tmp_path, BENCH, script))
    async with lab_for(scene) as (lab, _):
        with pytest.raises(EngineFailed, match="was not done within"):
            await bench(lab, MODEL, prompt_tokens=64, generated_tokens=16, repetitions=3, limit_s=0.5)
