"""What init chooses for a machine, and what it writes: each choice is one that the planner accepts."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subcortex import config, paths
from subcortex.cli import _models
from subcortex.cli._starter import choose
from subcortex.cli.init import planned
from subcortex.errors import DoesNotFit
from subcortex.hardware import Gpu, Hardware
from subcortex.hardware.standin import parse_machine
from subcortex.vram.plan import Fit, Plan, find, written
from subcortex.vram.plan.from_config import ask_from
from subcortex.vram.plan.real import Estimates
from subcortex.vram.plan.seat import Mode
from tests.cli.helpers import invoke, run


def machine(cards: str, *, host_gib: float = 64, cores: int = 16) -> Hardware:
    gpus, links = parse_machine(cards) if cards else ((), ())
    mib = host_gib * 1024
    return Hardware(
        gpus=gpus,
        links=links,
        host_memory_total_mib=mib,
        host_memory_available_mib=mib,
        cores=cores,
        assumed=True,
    )


def tiers(hardware: Hardware) -> tuple[dict[str, Any], dict[str, Any]]:
    fast, deep = choose(hardware).tiers
    return fast.keys, deep.keys


def model_of(keys: dict[str, Any]) -> _models.Model:
    found = _models.model_at(keys["model"])
    assert found is not None
    return found


def flag(keys: dict[str, Any], name: str) -> str:
    return str(keys["flags"][keys["flags"].index(name) + 1])


def plan_of(text: str, hardware: Hardware) -> Plan:
    """Return what `subcortex plan` says of a file; its models are not here, so their shapes are init's."""
    asks = []
    for rank, tier in enumerate(config.parse(tomllib.loads(text), None, {}).tiers):
        assert isinstance(tier, config.LlamaCppTier | config.VllmTier)
        model = _models.model_at(tier.model)
        assert model is not None
        asks.append(ask_from(tier, model.shape, rank))
    found = find(asks, hardware, Estimates(hardware), probability=0.95)
    assert isinstance(found, Fit)
    return written(found)


def text_for(hardware: Hardware) -> str:
    return planned(hardware, paths.config_home() / "config.toml", offline=False)[1]


def said(text: str) -> str:
    """Return the comments of a file as one line."""
    return " ".join(text.replace("#", "").split())


def test_two_24_gb_cards_run_the_70b_in_4_bits_over_both_and_the_8b_beside_it():
    fast, deep = tiers(machine("2x RTX 3090"))

    assert model_of(deep) is _models.LLAMA_70B_AWQ
    assert (deep["engine"], deep["tensor_parallel_size"], deep["gpus"]) == ("vllm", 2, [0, 1])
    # 19 GiB of weights a card leave no room for 8B: it is on the CPU, and takes no context on a card.
    assert model_of(fast) is _models.LLAMA_8B
    assert (fast["engine"], fast["gpus"], fast["gpu_layers"]) == ("llama.cpp", [], 0)


def test_the_70b_on_two_24_gb_cards_by_hand():
    """40.6 GB of 4-bit weights and 160 KiB of KV a token and card; CUDA graphs would be 0.6 GiB too many."""
    _, deep = tiers(machine("2x RTX 3090"))

    assert _models.LLAMA_70B_AWQ.shape.weights_bytes == pytest.approx(40.6e9, rel=0.002)
    assert deep["context_tokens"] == 8192
    assert int(flag(deep, "--kv-cache-memory-bytes")) >= 8192 * 160 * 1024
    assert "--enforce-eager" in deep["flags"]
    # vLLM wants its share free at the start, though the pool is pinned: less than the context leaves.
    assert deep["gpu_memory_utilization"] <= (24576 - 317 - 460) / (24576 - 317)


def test_a_host_too_small_for_the_8b_makes_the_two_take_turns():
    hardware = machine("2x RTX 3090", host_gib=10)
    fast, deep = tiers(hardware)
    text = text_for(hardware)

    assert (model_of(fast), model_of(deep)) == (_models.LLAMA_8B_AWQ, _models.LLAMA_70B_AWQ)
    assert ("start" in fast, deep["start"]) == (False, "lazy")
    assert [tier.mode for tier in plan_of(text, hardware).tiers] == [Mode.AWAKE, Mode.STOPPED]
    assert "the two take turns: to start deep on GPU 0, 1: stop fast" in said(text)


def test_8_and_3_gb_cards_share_a_model_that_neither_holds():
    hardware = machine("RTX 3060 Ti + GTX 1060")
    fast, deep = tiers(hardware)

    assert (model_of(fast), model_of(deep)) == (_models.LLAMA_8B, _models.QWEN_14B_Q3)
    assert (deep["engine"], deep["split_mode"], deep["gpus"]) == ("llama.cpp", "layer", [0, 1])
    assert sum(deep["tensor_split"]) == deep["gpu_layers"] == 49
    assert all(deep["tensor_split"])
    alone = ask_from(config.LlamaCppTier(**{**deep, "gpus": [0], "tensor_split": None}), model_of(deep).shape)
    assert not isinstance(find([alone], hardware, Estimates(hardware)), Fit)
    assert fast["gpus"] == []


@pytest.mark.parametrize(
    ("cards", "fast", "deep"),
    [
        ("RTX 4060", _models.LLAMA_1B, _models.LLAMA_8B),
        ("12GiB", _models.LLAMA_1B, _models.QWEN_14B),
        ("16GiB", _models.LLAMA_8B, _models.QWEN_14B),
        ("RTX 4090", _models.LLAMA_3B, _models.QWEN_32B),
        ("A100 80GB", _models.LLAMA_8B_BF16, _models.LLAMA_70B_AWQ),
        ("2x H200", _models.LLAMA_8B_BF16, _models.LLAMA_70B_BF16),
        ("GTX 1060", _models.LLAMA_1B, _models.LLAMA_8B),
    ],
)
def test_one_card_and_servers(cards, fast, deep):
    found = tiers(machine(cards))

    assert tuple(model_of(keys).title for keys in found) == (fast.title, deep.title)


def test_a_small_card_is_for_the_quick_model():
    fast, deep = tiers(machine("GTX 1060"))

    assert (fast["gpus"], deep["gpus"], deep["gpu_layers"]) == ([0], [], 0)
    assert "executable" not in deep


@pytest.mark.parametrize(
    ("cards", "fast", "deep"),
    [("2x A100 80GB", [1], [0]), ("4x H100", [3], [0, 1]), ("2x H200", [0], [0, 1])],
)
def test_the_fast_tier_has_a_card_of_its_own_where_the_deep_one_can_spare_it(cards, fast, deep):
    found = tiers(machine(cards))

    assert tuple(keys["gpus"] for keys in found) == (fast, deep)


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


def test_where_nothing_fits_the_shortage_is_named():
    with pytest.raises(DoesNotFit, match="GiB short on host memory") as caught:
        choose(machine("", host_gib=3, cores=2))

    assert "--offline" in str(caught.value.hint)


def test_memory_that_others_use_is_not_planned():
    gpu = Gpu(index=0, name="RTX 4090", memory_total_mib=24564, memory_used_mib=16000)
    taken = machine("").model_copy(update={"gpus": (gpu,)})

    assert model_of(tiers(taken)[1]).shape.weights_bytes < 8e9


@pytest.mark.parametrize(
    ("cards", "host_gib", "cores"),
    [
        ("2x RTX 3090", 64, 16),
        ("RTX 3060 Ti + GTX 1060", 64, 16),
        ("RTX 3060 Ti + GTX 1060", 6, 4),
        ("RTX 4090", 64, 16),
        ("2x24GiB", 64, 16),
        ("2x24GiB", 10, 16),
        ("4x H100", 64, 16),
        ("H200", 64, 16),
        ("2x H200", 64, 16),
        ("GTX 1060", 64, 16),
        ("8x24GiB", 64, 16),
        ("3x RTX 3090", 64, 16),
        ("2x RTX A6000", 64, 16),
        ("16x 4GiB", 64, 16),
        ("", 4, 2),
        ("", 8, 4),
        ("", 16, 8),
        ("", 64, 16),
    ],
)
def test_the_file_for_a_machine_is_one_that_the_planner_accepts_as_written(cards, host_gib, cores):
    hardware = machine(cards, host_gib=host_gib, cores=cores)
    starter, text = planned(hardware, paths.config_home() / "config.toml", offline=False)

    plan = plan_of(text, hardware)
    assert plan.probability >= 0.95
    assert [tier.mode is Mode.AWAKE for tier in plan.tiers] == ["start" not in t.keys for t in starter.tiers]
    # What is written is all there is to say: planned anew, nothing is left to choose.
    for tier, chosen in zip(plan.tiers, starter.tiers, strict=True):
        assert {key: chosen.keys.get(key) for key in tier.launch.keys} == dict(tier.launch.keys)


_cards = st.lists(st.tuples(st.integers(2, 192), st.floats(0, 0.9)), max_size=4)


@settings(max_examples=40, deadline=None)
@given(_cards, st.floats(4, 512), st.integers(1, 128))
def test_whatever_is_chosen_fits_and_is_a_valid_config(cards, host_gib, cores):
    gpus = tuple(
        Gpu(index=i, name=f"{gib} GiB", memory_total_mib=gib * 1024, memory_used_mib=gib * 1024 * used)
        for i, (gib, used) in enumerate(cards)
    )
    hardware = machine("", host_gib=host_gib, cores=cores).model_copy(update={"gpus": gpus})
    text = text_for(hardware)

    loaded = config.parse(tomllib.loads(text), None, {})
    assert [tier.name for tier in loaded.tiers] == ["fast", "deep"]
    assert plan_of(text, hardware).probability >= 0.95


#: Sizes of the published files; those of the hub's pages.
_PUBLISHED = {
    _models.QWEN_32B: 19.85e9,
    _models.QWEN_14B: 8.99e9,
    _models.QWEN_14B_Q3: 7.34e9,
    _models.LLAMA_8B: 4.92e9,
    _models.LLAMA_3B: 2.02e9,
    _models.LLAMA_1B: 0.81e9,
}


@pytest.mark.parametrize("model", _PUBLISHED, ids=lambda model: model.title)
def test_models_are_as_large_as_their_published_files(model):
    # A file also holds the vocabulary, some MB.
    assert model.shape.weights_bytes == pytest.approx(_PUBLISHED[model], rel=0.015)


def test_init_writes_a_checked_file_with_the_commands_to_fetch_the_models(tmp_path):
    out = tmp_path / "new" / "config.toml"

    snapshot = tmp_path / "machine.json"
    snapshot.write_text(machine("2x24GiB").model_dump_json())

    done = run("init", "--hardware", snapshot, "--out", out)
    check = run("config", "check", "--config", out)

    assert (done.returncode, check.returncode) == (0, 0)
    text = out.read_text()
    command = "hf download hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4 --local-dir ~/models/"
    assert f"#   {command}" in text
    assert command in done.stdout
    assert "the fast tier runs on the CPU" in said(text)
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


def test_what_init_wrote_can_be_planned_before_anything_is_fetched(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    cards = "2x RTX 3090"
    assert invoke("init", "--gpus", cards, "--out", file).exit_code == 0
    done = invoke("plan", "--config", file, "--gpus", cards, "--json")
    assert done.exit_code == 0, done.stderr
    assert {tier["name"] for tier in json.loads(done.stdout)["tiers"]} == {"fast", "deep"}


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_where_a_variable_forbids_the_network_it_is_not_even_looked_for(variable, tmp_path, monkeypatch):
    def connect(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.create_connection", connect)
    monkeypatch.setenv(variable, "1")

    done = invoke("init", "--json", "--out", tmp_path / "config.toml")

    assert done.exit_code == 0, done.output
    assert all("testbed" in tier["model"] for tier in json.loads(done.stdout)["tiers"])
