"""What answers would change in the configuration: only what intervals tell apart, and why."""

from __future__ import annotations

from typing import Any

import pytest

from subcortex.config import Config, parse
from subcortex.experiments.consequences.suggestions import Finding, Suggestion, suggestions
from subcortex.experiments.experiment import Answer

VLLM = {"name": "fast", "engine": "vllm", "model": "llama", "max_concurrent": 64, "context_tokens": 8192}
LLAMA = {"name": "fast", "engine": "llama.cpp", "model": "x.gguf", "threads": 4}


def config_of(tier: dict[str, Any], **more: Any) -> Config:
    return parse({"tiers": [{**tier, **more}]})


def answer(quantity: str = "speed", **more: Any) -> Answer:
    given = {
        "about": "llama",
        "unit": "tok/s",
        "outcome": "measured",
        "statement": "It is so.",
        "tier": "fast",
    }
    return Answer(quantity, **{**given, **more})


def found_in(config: Config, *answers: Answer, **options: Any) -> dict[str, Suggestion]:
    findings = [Finding(one, f"run{place}", (f"fact{place}",)) for place, one in enumerate(answers)]
    return {one.key: one for one in suggestions(config, findings, **options)}


def knee(at: float, low: float, high: float) -> Answer:
    return answer(details={"knee": at, "knee_low": low, "knee_high": high})


@pytest.mark.parametrize(("most", "new"), [(64, 31), (37, 31), (36, None), (24, None), (23, 31), (8, 31)])
def test_the_batch_limit_goes_to_the_knee_where_it_is_surely_elsewhere(most, new):
    found = found_in(config_of(VLLM, max_concurrent=most), knee(30.2, 24, 36))
    if new is None:
        assert found == {}
        return
    limit = found["max_concurrent"]
    assert (limit.tier, limit.old, limit.new) == ("fast", most, new)
    assert "30.2" in limit.reason
    assert "(24 to 36)" in limit.reason
    assert (limit.run_ids, limit.fact_ids) == (("run0",), ("fact0",))
    assert found["flags"].new == ["--max-num-seqs", "31"]


@pytest.mark.parametrize(
    ("flags", "new"),
    [
        (["--max-num-seqs", "256", "--x"], ["--max-num-seqs", "30", "--x"]),
        (["--max_num_seqs=256"], ["--max_num_seqs=30"]),
        (["--max-num-seqs", "8", "--max-num-seqs", "9"], ["--max-num-seqs", "8", "--max-num-seqs", "30"]),
        (["--max-num-seqs", "32"], None),
    ],
)
def test_the_engines_own_limit_follows(flags, new):
    found = found_in(config_of(VLLM, flags=flags, max_concurrent=30), knee(30, 24, 36))
    assert (found["flags"].new if "flags" in found else None) == new
    assert "max_concurrent" not in found


def test_slots_of_llamacpp_have_no_such_flag_and_remote_tiers_no_limit():
    assert set(found_in(config_of(LLAMA), knee(4, 3, 5))) == {"max_concurrent"}
    remote = {"name": "fast", "engine": "remote", "model": "x", "url": "http://h/v1"}
    assert found_in(config_of(remote), knee(4, 3, 5)) == {}


def test_better_settings_are_taken_from_arms_that_differ_and_no_others():
    better = {"better": {"threads": 2, "split_mode": "layer", "model": "other", "nonsense": 1}}
    won = answer(outcome="different", statement="Two threads give 41 tok/s, four 33", details=better)
    found = found_in(config_of(LLAMA), won)
    assert {key: (one.old, one.new) for key, one in found.items()} == {
        "threads": (4, 2),
        "split_mode": (None, "layer"),
    }
    assert found["threads"].reason == "Two threads give 41 tok/s, four 33."
    for outcome in ("inconclusive", "alike", "measured"):
        assert found_in(config_of(LLAMA), answer(outcome=outcome, details=better)) == {}
    assert found_in(config_of(LLAMA, threads=2, split_mode="layer"), won) == {}


def test_a_flag_is_added_only_when_it_was_measured_to_be_better():
    flag = {"better_flags": ["--disable-custom-all-reduce"]}
    assert found_in(config_of(VLLM), answer(outcome="alike", details=flag)) == {}
    found = found_in(config_of(VLLM, flags=["--x"]), answer(outcome="different", details=flag))
    assert found["flags"].new == ["--x", "--disable-custom-all-reduce"]
    again = config_of(VLLM, flags=["--disable-custom-all-reduce"])
    assert found_in(again, answer(outcome="different", details=flag)) == {}


def test_flags_of_several_findings_come_together():
    flag = answer(outcome="different", statement="Faster", details={"better_flags": ["--async"]})
    found = found_in(config_of(VLLM, flags=["--x"]), flag, knee(30, 24, 36))
    assert found["flags"].old == ["--x"]
    assert found["flags"].new == ["--x", "--async", "--max-num-seqs", "30"]
    assert found["flags"].run_ids == ("run0", "run1")


def _time(quantity: str, value: float, spread: float = 0.1, **more: Any) -> Answer:
    low, high = value * (1 - spread), value * (1 + spread)
    if quantity in ("ttft", "tpot"):
        more = {"details": {"concurrency": 1}, **more}
    return answer(quantity, unit="s", value=value, low=low, high=high, **more)


def test_sleep_where_waking_beats_starting_again():
    found = found_in(config_of(VLLM), _time("wake_time", 2.0), _time("restart_time", 60.0))
    assert found["sleep_mode"].new is True
    assert "2 s (1.8 to 2.2)" in found["sleep_mode"].reason
    assert "60 s (54 to 66)" in found["sleep_mode"].reason
    alike = (_time("wake_time", 50.0, 0.2), _time("restart_time", 60.0, 0.2))
    assert "sleep_mode" not in found_in(config_of(VLLM), *alike)
    assert "sleep_mode" not in found_in(config_of(VLLM), _time("wake_time", 2.0))


@pytest.mark.parametrize(
    "said", [{"sleep_mode": False}, {"sleep_mode": True}, {"flags": ["--enable-sleep-mode"]}]
)
def test_what_a_person_said_of_sleep_stays(said):
    found = found_in(config_of(VLLM, **said), _time("wake_time", 2.0), _time("restart_time", 60.0))
    assert "sleep_mode" not in found


def test_nominal_figures_are_replaced_by_measured_ones():
    given = config_of(LLAMA, nominal_ttft_s=0.2, nominal_tpot_s=0.021, nominal_load_s=60.0)
    ttft = answer("ttft", unit="ms", value=51.26, low=50.0, high=53.0, details={"concurrency": 1})
    found = found_in(given, ttft, _time("tpot", 0.02), _time("start_time", 9.0), _time("restart_time", 1.234))
    assert {key: (one.old, one.new) for key, one in found.items()} == {
        "nominal_ttft_s": (0.2, 0.0513),
        "nominal_load_s": (60.0, 1.23),
    }
    assert "0.0513 s (0.05 to 0.053)" in found["nominal_ttft_s"].reason


def test_nominal_figures_are_of_one_request_alone_and_conclusive():
    loaded = _time("tpot", 0.5, details={"concurrency": 16})
    unsure = _time("ttft", 0.5, outcome="inconclusive")
    other = _time("tpot", 0.5, details={"form": "fp8"})
    cold = _time("restart_time", 60.0, details={"arm": "cold"})
    assert found_in(config_of(LLAMA), loaded, unsure, other, cold) == {}
    details = answer(details={"ttft_s": 0.1, "ttft_s_low": 0.09, "ttft_s_high": 0.11, "load_s": 2.0})
    found = found_in(config_of(LLAMA, nominal_ttft_s=0.105), details)
    assert found == {}
    assert found_in(config_of(LLAMA), details)["nominal_ttft_s"].new == 0.1


def test_a_figure_that_is_hardly_known_is_not_written_down():
    loose = answer("tpot", unit="s", value=0.019, low=0.0, high=0.057, details={"concurrency": 1})
    assert found_in(config_of(LLAMA), loose) == {}
    known = found_in(config_of(LLAMA), loose, _time("tpot", 0.0009, 0.45))
    assert known["nominal_tpot_s"].new == 0.0009
    wakes = answer("wake_time", unit="s", value=2.0, low=0.5, high=9.0)
    assert "sleep_mode" in found_in(config_of(VLLM), wakes, _time("restart_time", 60.0))


def test_the_newest_finding_counts():
    found = found_in(config_of(LLAMA), _time("ttft", 0.1), _time("ttft", 0.9))
    assert found["nominal_ttft_s"].new == 0.1
    assert found["nominal_ttft_s"].run_ids == ("run0",)


@pytest.mark.parametrize(
    ("pool", "longest", "new"),
    [(2_000_000, 131_072, 28_672), (2_000_000, 16_384, 16_384), (600_000, 131_072, None), (2e6, None, None)],
)
def test_a_longer_context_that_the_pool_holds_for_all_at_once(pool, longest, new):
    longest_tokens = {} if longest is None else {"fast": longest}
    found = found_in(config_of(VLLM), answer(details={"kv_tokens": pool}), longest_tokens=longest_tokens)
    assert (found["context_tokens"].new if found else None) == new
    if new is not None:
        assert new * 64 <= pool


def test_the_context_reckons_with_the_batch_limit_that_goes_with_it():
    both = (knee(30, 24, 36), answer(details={"kv_tokens": 2_000_000}))
    found = found_in(config_of(VLLM), *both, longest_tokens={"fast": 131_072})
    assert found["context_tokens"].new == 62_464


def test_what_is_said_of_another_tier_changes_nothing():
    other = answer(tier="deep", details={"knee": 1, "knee_low": 1, "knee_high": 1, "kv_tokens": 1e9})
    none = answer(tier=None, outcome="different", details={"better": {"threads": 2}})
    assert found_in(config_of(LLAMA), other, none, longest_tokens={"fast": 10**6}) == {}


@pytest.mark.parametrize("wrong", [None, "30", float("nan"), True, [30]])
def test_details_that_are_no_numbers_are_passed_over(wrong):
    details = {"knee": wrong, "knee_low": wrong, "knee_high": wrong, "kv_tokens": wrong, "ttft_s": wrong}
    details |= {"better": wrong, "better_flags": wrong}
    found = found_in(config_of(VLLM), answer(outcome="different", details=details))
    assert set(found) <= {"flags"} if isinstance(wrong, list) else found == {}
