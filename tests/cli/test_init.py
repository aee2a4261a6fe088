"""What init chooses for a machine, and what it writes."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subcortex import config, paths
from subcortex.cli import _models
from subcortex.cli._starter import choose
from subcortex.cli.init import planned
from subcortex.hardware import Gpu, Hardware, parse_gpus
from subcortex.vram import llamacpp_need, usable_mib, vllm_need
from tests.cli.helpers import invoke, run


def machine(cards: str, *, host_gib: float = 64, cores: int = 16) -> Hardware:
    gpus = parse_gpus(cards) if cards else ()
    mib = host_gib * 1024
    return Hardware(
        gpus=gpus, host_memory_total_mib=mib, host_memory_available_mib=mib, cores=cores, assumed=True
    )


def tiers(hardware: Hardware) -> tuple[dict[str, Any], dict[str, Any]]:
    fast, deep = choose(hardware).tiers
    return fast.keys, deep.keys


def model_of(keys: dict[str, Any]) -> _models.Model:
    return next(model for model in _models.ALL if model.place("~/models") == keys["model"])


def test_two_24_gb_cards_run_the_70b_in_4_bits_over_both_and_the_8b_beside_it():
    fast, deep = tiers(machine("2x RTX 3090"))

    assert model_of(deep) is _models.LLAMA_70B_AWQ
    assert (deep["engine"], deep["tensor_parallel_size"], deep["gpus"]) == ("vllm", 2, [0, 1])
    # 18.5 GiB of weights a card leave no room for 8B: it is on the CPU, and takes no context on a card.
    assert model_of(fast) is _models.LLAMA_8B
    assert (fast["engine"], fast["gpus"], fast["gpu_layers"]) == ("llama.cpp", [], 0)


def test_the_70b_on_two_24_gb_cards_by_hand():
    """37.1 GiB of 4-bit weights, 160 KiB of KV a token and card: 8192 tokens fit, an 8B beside them not."""
    need = vllm_need(_models.LLAMA_70B_AWQ.shape, kv_tokens=8192, tensor_parallel_size=2, small_batches=True)
    card = usable_mib(24 * 1024)

    assert need.weights_mib == pytest.approx(37.1 * 1024 / 2, rel=0.005)
    assert need.kv_mib == 8192 * 160 / 1024
    assert 0 < card - need.total_mib < 1024
    assert vllm_need(_models.LLAMA_8B_AWQ.shape, kv_tokens=1024, small_batches=True).total_mib > 1024


def test_vllms_share_of_two_24_gb_cards_leaves_what_lies_beside_it():
    _, deep = tiers(machine("2x RTX 3090"))
    share = deep["gpu_memory_utilization"]

    # Inside the share: weights, activations, graphs and at least one whole context of KV.
    assert share * 24 >= 18.55 + 0.24 + 0.6 + 0.6 + 8192 * 160 / 2**20
    # Beside it: the context and the communication buffers, and the card's own reserve.
    assert share * 24 + 0.45 + 1.17 <= 24 * 0.97


def test_8_and_3_gb_cards_share_a_model_that_neither_holds():
    fast, deep = tiers(machine("RTX 3060 Ti + GTX 1060"))

    assert (deep["engine"], deep["split_mode"], deep["tensor_split"]) == ("llama.cpp", "layer", [8, 3])
    alone = llamacpp_need(model_of(deep).shape, kv_tokens=deep["context_tokens"])
    assert alone.total_mib > usable_mib(8 * 1024)
    assert fast["gpus"] == [0]


@pytest.mark.parametrize(
    ("cards", "fast", "deep"),
    [
        ("RTX 4060", _models.LLAMA_1B, _models.LLAMA_8B),
        ("12GiB", _models.LLAMA_1B, _models.QWEN_14B),
        ("16GiB", _models.LLAMA_3B, _models.QWEN_14B),
        ("RTX 4090", _models.LLAMA_1B, _models.QWEN_32B),
        ("A100 80GB", _models.LLAMA_8B_BF16, _models.LLAMA_70B_AWQ),
        ("2x H200", _models.LLAMA_8B_BF16, _models.LLAMA_70B_BF16),
    ],
)
def test_one_card_and_servers(cards, fast, deep):
    found = tiers(machine(cards))

    assert tuple(model_of(keys).title for keys in found) == (fast.title, deep.title)


def test_two_80_gb_cards_put_the_fast_tier_on_the_card_that_is_free():
    fast, deep = tiers(machine("2x A100 80GB"))

    assert (fast["gpus"], deep["gpus"]) == ([1], [0])


def test_pascal_cards_get_no_vllm_however_large():
    assert {keys["engine"] for keys in tiers(machine("4x P40"))} == {"llama.cpp"}


@pytest.mark.parametrize(
    ("host_gib", "cores", "deep"),
    [(64, 16, _models.LLAMA_8B), (16, 4, _models.LLAMA_3B), (4, 2, _models.LLAMA_1B)],
)
def test_without_a_gpu_the_cpu_gets_small_models(host_gib, cores, deep):
    found = tiers(machine("", host_gib=host_gib, cores=cores))

    assert model_of(found[1]) is deep
    assert {keys["engine"] for keys in found} == {"llama.cpp"}
    assert not any("executable" in keys or "gpus" in keys for keys in found)


def test_memory_that_others_use_is_not_planned():
    gpu = Gpu(index=0, name="RTX 4090", memory_total_mib=24564, memory_used_mib=16000)
    taken = machine("").model_copy(update={"gpus": (gpu,)})

    assert model_of(tiers(taken)[1]).shape.weights_mib < 8 * 1024


_cards = st.lists(st.tuples(st.integers(2, 192), st.floats(0, 0.9)), max_size=8)


@settings(max_examples=150, deadline=None)
@given(_cards, st.floats(4, 512), st.integers(1, 128))
def test_whatever_is_chosen_fits_and_is_a_valid_config(cards, host_gib, cores):
    gpus = tuple(
        Gpu(index=i, name=f"{gib} GiB", memory_total_mib=gib * 1024, memory_used_mib=gib * 1024 * used)
        for i, (gib, used) in enumerate(cards)
    )
    hardware = machine("", host_gib=host_gib, cores=cores).model_copy(update={"gpus": gpus})
    starter, text = planned(hardware, paths.config_home() / "config.toml", offline=False)

    loaded = config.parse(tomllib.loads(text), None, {})
    assert [tier.name for tier in loaded.tiers] == ["fast", "deep"]
    taken = {gpu.index: 0.0 for gpu in gpus}
    for keys in (tier.keys for tier in starter.tiers):
        for index in keys.get("gpus", []):
            taken[index] += _least_mib(keys, index, gpus)
    for gpu in gpus:
        assert taken[gpu.index] <= usable_mib(gpu.memory_total_mib, gpu.memory_used_mib) + 1


def _least_mib(keys: dict[str, Any], index: int, gpus: tuple[Gpu, ...]) -> float:
    """What a tier needs of a card at least: weights and one context of KV, told from the file alone."""
    shape = model_of(keys).shape
    if keys["engine"] == "vllm":
        size = keys["tensor_parallel_size"]
        return vllm_need(shape, kv_tokens=8192, tensor_parallel_size=size, small_batches=True).total_mib
    split = keys.get("tensor_split")
    share = split[keys["gpus"].index(index)] / sum(split) if split else 1.0
    tokens = keys["context_tokens"] * keys["parallel"]
    # A split is written in whole GiB, so it may be off by half of one in all of them.
    slack = 1.0 if not split else 0.9
    return llamacpp_need(shape, kv_tokens=tokens, share=share).total_mib * slack


def test_init_writes_a_checked_file_with_the_commands_to_fetch_the_models(tmp_path):
    out = tmp_path / "new" / "config.toml"

    done = run("init", "--gpus", "2x24GiB", "--out", out)
    check = run("config", "check", "--config", out)

    assert (done.returncode, check.returncode) == (0, 0)
    text = out.read_text()
    command = "hf download hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4 --local-dir ~/models/"
    assert f"#   {command}" in text
    assert command in done.stdout
    assert "runs on the CPU" in " ".join(text.replace("#", "").split())
    assert [file.name for file in out.parent.iterdir()] == ["config.toml"]


def test_init_never_overwrites_unless_forced(tmp_path):
    out = tmp_path / "config.toml"
    out.write_text("mine")

    refused = run("init", "--offline", "--out", out)
    kept = out.read_text()
    forced = run("init", "--offline", "--force", "--out", out)

    assert (refused.returncode, kept) == (3, "mine")
    assert "--force" in refused.stderr
    assert forced.returncode == 0
    assert out.read_text() != "mine"


def test_offline_init_serves_the_testbed_from_anywhere(tmp_path):
    out = tmp_path / "config.toml"

    report = json.loads(run("init", "--offline", "--json", "--out", out).stdout)

    loaded = config.load(out, {})
    assert all(loaded.resolve(tier.model).is_file() for tier in loaded.tiers)
    assert report["downloads"] == []
    assert report["hardware"]["cores"] >= 1


def test_init_for_a_snapshot(tmp_path):
    snapshot = tmp_path / "machine.json"
    snapshot.write_text(machine("2x H200").model_dump_json())

    report = json.loads(run("init", "--hardware", snapshot, "--json", "--out", tmp_path / "c.toml").stdout)

    assert report["tiers"][1]["tensor_parallel_size"] == 2


@pytest.mark.parametrize("cards", ["RTX 3091", "0x24GiB", "", "2x"])
def test_cards_that_are_none_are_4(tmp_path, cards):
    done = run("init", "--gpus", f" {cards}", "--out", tmp_path / "c.toml")

    assert done.returncode == 4
    assert not (tmp_path / "c.toml").exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")

    done = invoke("init", "--offline", "--out", tmp_path / "file" / "config.toml")

    assert done.exit_code == 3
    assert str(tmp_path / "file") in done.stderr
