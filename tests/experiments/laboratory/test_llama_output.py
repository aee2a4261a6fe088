"""What llama.cpp's tools really printed, and what they might print one day."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.errors import EngineFailed
from subcortex.experiments.laboratory.llama_output import (
    DeviceMemory,
    parse_batched_bench,
    parse_bench,
    parse_divergence,
    parse_load_s,
    parse_memory,
)

RECORDED = Path(__file__).parent / "recorded"
#: In the form of a run on two cards.
TWO_CARDS = """\
0.03.1 I common_memory_breakdown_print: | memory breakdown [MiB] | total    free     self   model   context   compute    unaccounted |
0.03.2 I common_memory_breakdown_print: |   - CUDA0 (H200)       | 143771 = 136700 + (6481 =  6000 +     400 +      80) +         590 |
0.03.2 I common_memory_breakdown_print: |   - CUDA1 (H200)       | 143771 = 140800 + (2481 =  2300 +     100 +      80) +         490 |
0.03.3 I common_memory_breakdown_print: |   - Host               |                     560 =   531 +       0 +      29                |
"""  # noqa: E501


def recorded(name: str) -> str:
    return (RECORDED / name).read_text()


def test_each_repetition_of_llama_bench_is_kept_as_it_was():
    rows = [json.loads(line) for line in recorded("llama-bench.jsonl").splitlines()]
    found = parse_bench(recorded("llama-bench.jsonl"))
    assert [(one.threads, one.prompt_tokens, one.generated_tokens) for one in found] == [
        (1, 64, 0), (1, 0, 16), (2, 64, 0), (2, 0, 16),
    ]  # fmt: skip
    assert [list(one.tokens_per_s) for one in found] == [row["samples_ts"] for row in rows]
    assert found[0].seconds == pytest.approx([ns / 1e9 for ns in rows[0]["samples_ns"]])
    assert (found[0].model_bytes, found[0].parameters) == (1836288, 1722432)
    assert (found[0].backends, found[0].build) == ("CPU", "b0 (unknown)")


def test_a_json_array_says_the_same_as_lines():
    found = parse_bench(recorded("llama-bench.json"))
    assert len(found) == 2
    assert (found[0].split_mode, found[0].tensor_split) == ("layer", "8.00/3.00")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"samples_ts": None}, "samples_ts"),
        ({"samples_ts": []}, "samples"),
        ({"samples_ts": [1.0, 1.0, -1.0]}, "samples"),
        ({"samples_ts": [1.0, 1.0, float("inf")]}, "samples"),
        ({"samples_ts": [9.0, 9.0, 9.0]}, "tokens/s"),
        ({"avg_ts": "fast"}, "avg_ts"),
        ({"avg_ts": float("nan")}, "avg_ts"),
        ({"n_threads": 1.5}, "n_threads"),
        ({"n_threads": True}, "n_threads"),
        ({"model_size": -1}, "model_size"),
        ({"ubatch_policy": "new"}, "ubatch_policy"),
        ({"split_mode": ...}, "split_mode"),
    ],
)
def test_a_field_that_is_changed_missing_or_unknown_is_an_error_that_names_it(change, said):
    row = json.loads(recorded("llama-bench.jsonl").splitlines()[0]) | change
    row = {name: value for name, value in row.items() if value is not ...}
    with pytest.raises(EngineFailed, match=said):
        parse_bench(json.dumps(row))


def test_older_settings_of_llama_bench_are_no_strangers():
    row = json.loads(recorded("llama-bench.jsonl").splitlines()[0])
    del row["load_mode"], row["fit_target"]
    assert parse_bench(json.dumps(row | {"use_mmap": True}))[0].prompt_tokens == 64


@pytest.mark.parametrize("text", ["", "\n", "[]", "[1]", "{", "[[", "| model | size |", "[" * 100_000])
def test_what_is_no_table_of_figures_is_an_error(text):
    with pytest.raises(EngineFailed):
        parse_bench(text)
    with pytest.raises(EngineFailed):
        parse_batched_bench(text)


def test_a_batch_is_read_with_its_sizes():
    found = parse_batched_bench(recorded("llama-batched-bench.jsonl"))
    assert [one.sequences for one in found] == [1, 2, 4]
    row = json.loads(recorded("llama-batched-bench.jsonl").splitlines()[2])
    assert found[2].generated_tokens_per_s == row["speed_tg"]
    assert found[2].prompt_tokens_per_s == row["speed_pp"]
    assert (found[2].prompt_tokens, found[2].generated_tokens, found[2].threads) == (32, 16, 1)


def test_a_batch_with_a_field_more_is_refused():
    row = json.loads(recorded("llama-batched-bench.jsonl").splitlines()[0])
    with pytest.raises(EngineFailed, match="speed_x"):
        parse_batched_bench(json.dumps(row | {"speed_x": 1}))


def test_the_divergence_is_the_summary_not_a_chunk():
    text = recorded("llama-perplexity.txt")
    found = parse_divergence(text)
    assert (found.mean_nats, found.mean_error_nats, found.largest_nats) == (1e-6, 1e-6, 3.9e-5)
    assert (found.same_top, found.same_top_error) == (1.0, 0.0)
    other = parse_divergence(
        text.replace("Mean    KLD:   0.000001 ±   0.000001", "Mean    KLD:  -0.000002 ±   1.500000").replace(
            "Same top p: 100.000 ± 0.000 %", "Same top p: 98.437 ± 0.777 %"
        )
    )
    assert (other.mean_nats, other.mean_error_nats) == (-2e-6, 1.5)
    assert (other.same_top, other.same_top_error) == pytest.approx((0.98437, 0.00777))


@pytest.mark.parametrize("lost", ["Mean    KLD", "Median  KLD", "Maximum KLD", "Same top p:"])
def test_a_divergence_whose_line_is_lost_or_no_number_or_there_twice_is_an_error(lost):
    lines = recorded("llama-perplexity.txt").splitlines()
    (line,) = [one for one in lines if one.startswith(lost)]
    for changed in ([], [line.replace("0", "n")], [line, line]):
        with pytest.raises(EngineFailed, match=lost.split()[0]):
            parse_divergence("\n".join([one for one in lines if one != line] + changed))


def test_output_that_was_cut_short_has_no_divergence():
    # The tool ends with 0 also where it could not read its base.
    with pytest.raises(EngineFailed, match="Mean KLD"):
        parse_divergence(recorded("llama-perplexity.txt")[:900])


def test_load_time_and_memory_are_in_the_log():
    log = recorded("llama-perplexity.log")
    assert parse_load_s(log) == pytest.approx(0.85909)
    assert parse_memory(log) == (DeviceMemory("Host", 1.0, 0.0, 0.0),)


def test_memory_is_told_card_by_card_and_a_rehearsal_does_not_count():
    found = parse_memory(recorded("llama-perplexity.log") + TWO_CARDS)
    assert [(one.device, one.total_mib) for one in found] == [("CUDA0", 6480), ("CUDA1", 2480), ("Host", 560)]
    assert (found[1].model_mib, found[1].context_mib, found[1].compute_mib) == (2300, 100, 80)


def test_memory_that_does_not_add_up_is_an_error():
    with pytest.raises(EngineFailed, match="6481"):
        parse_memory(TWO_CARDS.replace("6000", "5000"))


def test_a_log_without_either_is_an_error():
    for parse in (parse_load_s, parse_memory):
        with pytest.raises(EngineFailed):
            parse(recorded("llama-bench-refused.log"))


@given(st.text())
def test_whatever_is_printed_is_read_or_refused(text):
    for parse in (parse_bench, parse_batched_bench, parse_divergence, parse_load_s, parse_memory):
        with pytest.raises(EngineFailed):
            parse(text)
