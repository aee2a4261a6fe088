"""Plans by example: what is written to start them, what takes turns, what else would fit."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from subcortex.errors import DoesNotFit, InvalidRequest
from subcortex.hardware import Hardware
from subcortex.vram.plan import Fit, Free, NoFit, Plan, TierAsk, alternatives, find, plan, shortfalls, written
from subcortex.vram.plan.compare import STEP, Option, options
from subcortex.vram.plan.real import Estimates
from subcortex.vram.plan.seat import Book, Mode
from subcortex.vram.setup import LlamaCppSetup, VllmSetup
from tests.vram.plan.test_communication import Wire
from tests.vram.plan.toys import Refused, Simple, ask, kv_bytes, machine, toy


def planned(asks: list[TierAsk], hardware: Hardware, **how) -> Plan:
    return plan(asks, hardware, Simple(), Simple(), **how)


def refused(asks: list[TierAsk], hardware: Hardware, **how) -> DoesNotFit:
    with pytest.raises(DoesNotFit) as caught:
        planned(asks, hardware, **how)
    return caught.value


def seconds(option: Option) -> float:
    assert option.decode is not None
    return option.decode.mean_s


def test_one_tier_goes_where_it_fits_with_room_for_what_was_wanted():
    found = planned([ask("t", 10, concurrency=3)], machine(8, 24))
    tier = found.tiers[0]
    assert tier.gpus == (1,)
    assert tier.requests == 3
    assert tier.kv_tokens == 3 * 8192
    pool = 3 * 8192 * kv_bytes(ask("t", 10).shape, 1)
    assert tier.launch.arguments == (
        *("--max-model-len", "8192", "--tensor-parallel-size", "1"),
        *("--kv-cache-memory-bytes", str(pool)),
    )
    assert tier.launch.environment == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "1"}


def test_keys_for_the_configuration_are_toml():
    tier = planned([ask("t", 10)], machine(24)).tiers[0]
    assert tier.launch.toml.splitlines() == [
        "gpus = [0]",
        "context_tokens = 8192",
        "tensor_parallel_size = 1",
        'flags = ["--kv-cache-memory-bytes", "268435456"]',
    ]


def test_utilisation_is_written_only_where_vllm_s_own_check_would_fail():
    alone = planned([ask("t", 10)], machine(24)).tiers[0].launch.arguments
    assert "--gpu-memory-utilization" not in alone
    pair = planned([ask("a", 7, rank=0), ask("b", 8, rank=1)], machine(24))
    shares = [
        float(tier.launch.arguments[tier.launch.arguments.index("--gpu-memory-utilization") + 1])
        for tier in pair.tiers
    ]
    # Each finds free what the other leaves: 24 less about 9, and less about 10.
    assert shares == [pytest.approx(0.53, abs=0.03), pytest.approx(0.58, abs=0.03)]


def test_the_largest_starts_first_and_one_at_a_time():
    found = planned([ask("small", 3, rank=0), ask("large", 12, rank=1)], machine(24))
    assert [start.tier for start in found.starts] == ["large", "small"]


def test_what_starts_with_the_daemon_starts_before_what_waits_for_a_thought():
    tiers = [ask("small", 3, rank=0), ask("large", 12, rank=1, start="lazy"), ask("middle", 4, rank=2)]
    found = planned(tiers, machine(24))
    assert [start.tier for start in found.starts] == ["middle", "small", "large"]
    assert [("lazy" in start.why) for start in found.starts] == [False, False, True]


def test_a_lazy_sleeper_is_not_started_before_the_daemon_s_own():
    tiers = [ask("fast", 18, rank=0), ask("deep", 40, rank=1, start="lazy")]
    found = planned(tiers, machine(24, 24))
    assert [(start.tier, start.then_sleep) for start in found.starts] == [("fast", False), ("deep", True)]
    assert found.starts[0].why.startswith("the largest first")
    assert "at the first thought" in found.starts[1].why


def test_llama_cpp_is_split_over_cards_by_what_they_have_left():
    found = planned([ask("t", 6.8, engine="llama.cpp", concurrency=2)], machine(8, 3))
    arguments = found.tiers[0].launch.arguments
    assert arguments[:4] == ("--ctx-size", "16384", "--parallel", "2")
    assert arguments[4:9] == ("--n-gpu-layers", "9", "--split-mode", "layer", "--tensor-split")
    large, small = map(float, arguments[9].split(","))
    assert large > 3 * small
    assert arguments[10:] == ("--main-gpu", "0")


def test_old_prompts_are_bounded_by_what_the_engine_is_told():
    # tests/engines/test_llamacpp.py sees the engine set the same variable to the same figure.
    tier = ask("t", 6, engine="llama.cpp")
    launch = planned([tier], machine(8)).tiers[0].launch
    assert launch.environment["LLAMA_ARG_CACHE_RAM"] == "512"
    assert not any("cache-ram" in word for word in launch.arguments)
    setup = LlamaCppSetup(context_tokens=8192, prompt_cache_mib=2048)
    own = replace(tier, setup=setup, flags=("-cram", "2048"))
    launch = planned([own], machine(8)).tiers[0].launch
    assert "LLAMA_ARG_CACHE_RAM" not in launch.environment
    assert launch.arguments[-2:] == ("-cram", "2048")


def test_old_prompts_are_part_of_what_the_host_needs():
    def host(mib: float) -> float:
        setup = LlamaCppSetup(context_tokens=8192, prompt_cache_mib=mib)
        return Estimates(machine(24)).footprint(toy(5), setup, machine(24).gpus).host.total.mean_mib

    # On average the cache is half full.
    assert host(2048) - host(512) == pytest.approx((2048 - 512) / 2)


def test_tiers_that_do_not_fit_together_take_turns():
    asks = [ask("fast", 18, rank=0), ask("deep", 40, rank=1)]
    found = planned(asks, machine(24, 24))
    assert [tier.mode for tier in found.tiers] == [Mode.AWAKE, Mode.ASLEEP]
    (swap,) = found.swaps
    assert (swap.tier, swap.asleep, swap.gpus) == ("deep", ("fast",), (0, 1))
    assert swap.moved_mib == pytest.approx(40 * 1024)
    # The sleeper is started while its room is still empty.
    assert [(start.tier, start.then_sleep) for start in found.starts] == [("deep", True), ("fast", False)]
    assert all("--enable-sleep-mode" in tier.launch.arguments for tier in found.tiers)
    # What sleeps is in host memory, and counted there.
    assert found.devices[-1].need_mib > 40 * 1024


def test_who_cannot_sleep_is_stopped():
    asks = [ask("fast", 18, rank=0, engine="llama.cpp"), ask("deep", 40, rank=1, engine="llama.cpp")]
    found = planned(asks, machine(24, 24))
    assert [tier.mode for tier in found.tiers] == [Mode.AWAKE, Mode.STOPPED]
    assert str(found.swaps[0]) == ("to start deep on GPU 0, 1: stop fast; 40.0 GiB of weights come from disk")


def test_host_memory_for_sleepers_is_a_limit_too():
    asks = [ask("fast", 18, rank=0), ask("deep", 40, rank=1)]
    found = planned(asks, machine(24, 24, host_gib=32))
    # 40 GiB of weights have no room in 32 GiB, so the deep one is stopped instead.
    assert [tier.mode for tier in found.tiers] == [Mode.AWAKE, Mode.STOPPED]


def test_together_means_all_awake_or_a_refusal_that_offers_turns():
    asks = [ask("fast", 18, rank=0), ask("deep", 40, rank=1)]
    error = refused(asks, machine(24, 24), swapping=False)
    assert "together, though each alone does" in error.message
    # Turns keep quality and context, so they come first.
    assert error.details["alternatives"][0]["kind"] == "swap"


def test_a_refusal_says_which_component_is_how_many_gib_short_on_which_gpu():
    found = find([ask("t", 30)], machine(24), Simple())
    assert isinstance(found, NoFit)
    (short,) = shortfalls(found)
    assert (short.device, short.component.value, short.tier) == (0, "weights", "t")
    # 30 of weights, 1 of overhead, 0.25 of KV, and σ of 183 MiB 1.95 times (each of GPU and host must fit
    # with √0.95), less a budget of 23.57.
    assert short.short_mib / 1024 == pytest.approx(8.03, abs=0.01)
    error = refused([ask("t", 30)], machine(24))
    assert error.exit_code == 5
    assert "8.03 GiB short on GPU 0 (24 GiB card): t needs 30.00 GiB for weights" in error.message
    json.dumps(error.to_wire())


def test_alternatives_keep_quality_first_then_context_then_speed():
    found = find([ask("t", 23, context_tokens=131072)], machine(24, 24), Simple())
    assert isinstance(found, Fit)
    pinned = replace(ask("t", 21, context_tokens=131072), free=frozenset({Free.POOL}))
    no_fit = find([pinned], machine(24, 24), Simple())
    assert isinstance(no_fit, NoFit)
    others = alternatives([pinned], machine(24, 24), Simple(), no_fit, Simple())
    assert [other.kind for other in others] == ["layout", "context", "quantisation", "smaller"]
    assert others[0].words == "place t on GPU 0, 1 as TP 2"
    assert others[0].loss == (0.0, 0.0, 0.0)
    assert others[1].plan.tiers[0].context_tokens < 131072


def test_layers_on_the_host_are_offered_for_llama_cpp():
    error = refused([ask("t", 30, engine="llama.cpp")], machine(24))
    first = error.details["alternatives"][0]
    assert first["kind"] == "offload"
    assert first["words"].startswith("keep 5 of 9 layers of t on GPUs")


def test_a_pinned_pool_that_holds_no_request_is_refused_with_the_pool_to_blame():
    tier = ask("t", 5)
    tight = replace(tier, setup=VllmSetup(kv_pool_bytes=2**20), free=frozenset())
    found = find([tight], machine(24), Simple())
    assert isinstance(found, NoFit)
    assert [short.component.value for short in shortfalls(found)] == ["kv"]
    others = alternatives([tight], machine(24), Simple(), found, Simple())
    assert others[0].kind == "pool"


def test_what_an_engine_refuses_is_said_and_mended():
    odd = replace(ask("t", 5), setup=VllmSetup(tensor_parallel_size=3), free=frozenset({Free.POOL}))
    error = refused([odd], machine(24, 24, 24))
    assert error.details["refused"] == {"t": Refused("32 heads do not divide by 3").what}
    assert error.details["alternatives"][0]["kind"] == "layout"


def test_own_memory_is_not_counted_as_somebody_else_s():
    hardware = machine(24, used_mib=20 * 1024)
    tiers = [ask("t", 10)]
    assert isinstance(find(tiers, hardware, Simple()), NoFit)
    assert isinstance(find(tiers, hardware, Simple(), own_mib={0: 19 * 1024.0}), Fit)


def test_nothing_to_plan_and_names_twice_are_said():
    with pytest.raises(InvalidRequest, match="nothing to plan"):
        find([], machine(24), Simple())
    with pytest.raises(InvalidRequest, match="one name"):
        find([ask("t", 1), ask("t", 2)], machine(24), Simple())


def test_a_plan_is_json_all_through():
    found = planned([ask("fast", 18, rank=0), ask("deep", 40, rank=1)], machine(24, 24))
    told = json.loads(json.dumps(found.to_json()))
    seat = told["devices"][0]["shares"][0]
    assert seat["components"]["weights"].keys() == {"mean_mib", "sigma_mib", "at_probability_mib"}
    assert told["devices"][2]["device"] is None
    assert [tier["mode"] for tier in told["tiers"]] == ["awake", "asleep"]


def test_layouts_are_compared_over_all_cards():
    book = Book(machine(24, 24), Simple(), 0.95)
    found = {option.name: option for option in options(ask("t", 20), book, lambda _: Wire(), lambda _: 936.0)}
    # One card of the two says what the second is worth.
    assert list(found) == ["TP 2", "PP 2", "DP 2", "GPU 0"]
    assert found["GPU 0"].kv_tokens * 2 == found["DP 2"].kv_tokens
    assert found["TP 2"].gpus[0].weights_mib == pytest.approx(10 * 1024)
    # Two stages one after the other read as much as one card would; two ranks read half each.
    step = STEP.mean_s
    both, half = seconds(found["PP 2"]) - step, seconds(found["TP 2"]) - step
    assert both / half == pytest.approx(2, rel=0.05)
    assert found["DP 2"].token.messages == 0
    # A copy a card leaves less for the cache than one model on both.
    assert 0 < found["DP 2"].kv_tokens < found["TP 2"].kv_tokens
    assert found["TP 2"].link_words.startswith("PCIe 4 x16 (PHB), nominal 31.5 GB/s: +0.28 ± 0.09 ms")


def test_a_slow_card_rules_the_speed_of_its_ranks():
    book = Book(machine(24, 24), Simple(), 0.95)

    def speed(slow: float) -> float:
        found = options(ask("t", 20), book, lambda _: Wire(), lambda gpu: slow if gpu.index else 936.0)
        return seconds(found[0]) - STEP.mean_s

    assert speed(468.0) == pytest.approx(2 * speed(936.0), rel=0.05)


def test_llama_cpp_compares_layers_rows_and_copies():
    book = Book(machine(24, 24), Simple(), 0.95)
    found = options(ask("t", 20, engine="llama.cpp"), book, lambda _: Wire(), lambda _: None)
    assert [option.name for option in found] == ["layer", "row", "DP 2", "GPU 0"]
    assert all(option.decode is None for option in found)


def compared(tier: TierAsk, hardware: Hardware, **how) -> dict[str, Option]:
    book = Book(hardware, Simple(), 0.95, **how)
    return {option.name: option for option in options(tier, book, lambda _: Wire(), lambda _: 936.0)}


def test_of_unequal_cards_the_larger_are_compared_by_themselves_too():
    found = compared(ask("t", 14), machine(8, 24, 24))
    assert [name for name in found if " on " in name] == ["TP 2 on 1,2", "PP 2 on 1,2", "DP 2 on 1,2"]
    assert [name for name in found if name.startswith("GPU")] == ["GPU 1", "GPU 0"]
    assert [figures.gpu for figures in found["TP 2 on 1,2"].gpus] == [1, 2]
    # The small card is in the way of all three together, and too small alone.
    assert not found["DP 3"].fits
    assert not found["GPU 0"].fits
    assert found["GPU 1"].fits
    assert found["TP 2 on 1,2"].kv_tokens > found["PP 3"].kv_tokens


def test_one_card_alone_has_no_parts():
    assert list(compared(ask("t", 14), machine(24))) == ["1 GPU"]


def test_what_our_own_engines_hold_is_room_in_a_comparison():
    crowded = machine(24, used_mib=20 * 1024)
    assert not compared(ask("t", 10), crowded)["1 GPU"].fits
    found = compared(ask("t", 10), crowded, own_mib={0: 19 * 1024.0})["1 GPU"]
    assert found.fits
    assert found.gpus[0].budget_mib == 24 * 1024 - 1024 - 128


def test_a_ready_setup_of_llama_cpp_keeps_its_slots():
    tier = replace(
        ask("t", 5, engine="llama.cpp"),
        setup=LlamaCppSetup(context_tokens=32768, parallel=4),
        free=frozenset({Free.SPLIT}),
        concurrency=4,
    )
    found = find([tier], machine(24), Simple())
    assert isinstance(found, Fit)
    assert written(found).tiers[0].launch.arguments[:4] == ("--ctx-size", "32768", "--parallel", "4")
