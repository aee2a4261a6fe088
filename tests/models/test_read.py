"""Shapes from folders, files and the hub's local cache."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from subcortex.errors import ConfigError
from subcortex.models import hub
from subcortex.models.read import read_shape
from subcortex.vram.setup import VllmSetup
from subcortex.vram.vllm.weights import rank_bytes
from tests.models.test_huggingface import config_of, shape_of

_SHAPES = Path(__file__).parents[2] / "bench" / "shapes"
(GGUF,) = (Path(__file__).parents[2] / "testbed" / "models").glob("**/*fast*.gguf")
_TINY = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "vocab_size": 320,
    "max_position_embeddings": 256,
    "torch_dtype": "bfloat16",
}
_BITS = {"F32": 32, "BF16": 16, "F16": 16, "I32": 32, "F8_E4M3": 8}


def write_safetensors(path: Path, tensors: dict[str, tuple[str, tuple[int, ...]]]) -> int:
    """Write a file of zeros with those tensors; return the bytes of its data."""
    header, end = {}, 0
    for name, (dtype, shape) in tensors.items():
        size = _BITS[dtype] // 8
        for dimension in shape:
            size *= dimension
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return end


def llama_tensors(dtype: str = "BF16") -> dict[str, tuple[str, tuple[int, ...]]]:
    found: dict[str, tuple[str, tuple[int, ...]]] = {
        "model.embed_tokens.weight": (dtype, (320, 64)),
        "lm_head.weight": (dtype, (320, 64)),
        "model.norm.weight": (dtype, (64,)),
    }
    for layer in range(2):
        at = f"model.layers.{layer}"
        for name, shape in (
            ("self_attn.q_proj", (64, 64)),
            ("self_attn.k_proj", (32, 64)),
            ("self_attn.v_proj", (32, 64)),
            ("self_attn.o_proj", (64, 64)),
            ("mlp.gate_proj", (128, 64)),
            ("mlp.up_proj", (128, 64)),
            ("mlp.down_proj", (64, 128)),
        ):
            found[f"{at}.{name}.weight"] = (dtype, shape)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            found[f"{at}.{norm}.weight"] = (dtype, (64,))
    return found


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(_TINY))
    return path


def test_a_folder_and_its_config_are_the_same_model():
    expected = shape_of("llama-3.1-8b")
    for source in (_SHAPES / "llama-3.1-8b", str(_SHAPES / "llama-3.1-8b" / "config.json")):
        read = read_shape(source, name="llama-3.1-8b")
        assert read == expected
    assert read_shape(_SHAPES / "llama-3.1-8b").name == str(_SHAPES / "llama-3.1-8b")


def test_headers_that_hold_what_the_config_promises_make_it_exact(folder):
    promised = read_shape(folder)
    stored = write_safetensors(folder / "model.safetensors", llama_tensors())
    read = read_shape(folder)
    assert (read.exact, read.source, read.file_bytes) == (True, "safetensors", stored)
    assert read.tensors == promised.tensors


def test_float32_weights_are_held_in_16_bits(folder):
    promised = read_shape(folder)
    stored = write_safetensors(folder / "model.safetensors", llama_tensors("F32"))
    read = read_shape(folder)
    assert read.file_bytes == stored
    assert read.weights_bytes == promised.weights_bytes


def test_an_unknown_family_is_placed_by_the_names_of_its_tensors(folder):
    tensors = llama_tensors() | {
        "model.layers.0.self_attn.extra_proj.weight": ("BF16", (64, 64)),
        "model.layers.1.mlp.extra_norm.weight": ("BF16", (64,)),
        "model.layers.7.self_attn.q_proj.weight": ("BF16", (64, 64)),
        "model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", (8,)),
    }
    write_safetensors(folder / "model.safetensors", tensors)
    plain = read_shape(folder / "config.json")
    read = read_shape(folder)
    assert read.parameters == plain.parameters + 64 * 64 + 64
    one, two = rank_bytes(read, VllmSetup()), rank_bytes(read, VllmSetup(tensor_parallel_size=2))
    base = rank_bytes(plain, VllmSetup(tensor_parallel_size=2))
    assert one == rank_bytes(plain, VllmSetup()) + 2 * (64 * 64 + 64)
    assert two == base + 64 * 64 + 2 * 64
    # Key/value heads are repeated once there are more ranks than heads.
    four = VllmSetup(tensor_parallel_size=4)
    assert rank_bytes(read, four) == rank_bytes(plain, four) + 64 * 64 / 2 + 2 * 64


def test_quantised_headers_count_as_stored_but_for_unpacked_zero_points(folder):
    quantised = {"quant_method": "awq", "bits": 4, "group_size": 32}
    (folder / "config.json").write_text(json.dumps(_TINY | {"quantization_config": quantised}))
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, (dtype, shape) in llama_tensors("F16").items():
        if "proj" not in name:
            tensors[name] = (dtype, shape)
            continue
        outputs, inputs = shape
        at = name.removesuffix("weight")
        tensors[f"{at}qweight"] = ("I32", (inputs, outputs // 8))
        tensors[f"{at}qzeros"] = ("I32", (inputs // 32, outputs // 8))
        tensors[f"{at}scales"] = ("F16", (inputs // 32, outputs))
    write_safetensors(folder / "model.safetensors", tensors)
    promised, read = read_shape(folder / "config.json"), read_shape(folder)
    assert read.exact
    assert read.parameters == promised.parameters
    assert read.weights_bytes == promised.weights_bytes
    two = VllmSetup(tensor_parallel_size=2)
    assert rank_bytes(read, two) == rank_bytes(promised, two)


def test_experts_of_a_layer_stand_together(folder):
    config = _TINY | {"model_type": "odd_moe", "num_experts": 4, "num_experts_per_tok": 2}
    (folder / "config.json").write_text(json.dumps(config | {"moe_intermediate_size": 32}))
    tensors = {name: one for name, one in llama_tensors().items() if "mlp" not in name}
    for layer in range(2):
        at = f"model.layers.{layer}.mlp"
        tensors[f"{at}.gate.weight"] = ("BF16", (4, 64))
        tensors[f"{at}.gate.odd"] = ("BF16", (4,))
        for expert in range(4):
            for name, shape in (("gate_proj", (32, 64)), ("up_proj", (32, 64)), ("down_proj", (64, 32))):
                tensors[f"{at}.experts.{expert}.{name}.weight"] = ("BF16", shape)
    write_safetensors(folder / "model.safetensors", tensors)
    read = read_shape(folder)
    experts = [tensor for tensor in read.tensors if tensor.expert]
    assert {tensor.count for tensor in experts} == {4}
    assert sum(tensor.bytes * tensor.count for tensor in experts) == 2 * 4 * 3 * 32 * 64 * 2
    assert read.active_bytes_per_token < read.weights_bytes


@pytest.mark.parametrize("dtype", ["BF16", "F32"])
def test_weights_that_are_there_in_part_leave_the_configs_figures(folder, dtype):
    promised = read_shape(folder)
    tensors = llama_tensors(dtype)
    del tensors["lm_head.weight"]  # 41 KB of 230
    write_safetensors(folder / "model.safetensors", tensors)
    read = read_shape(folder)
    assert (read.exact, read.source, read.tensors) == (False, "config.json", promised.tensors)
    assert "that the config promises" in read.notes[-1]


def test_a_little_less_than_promised_is_still_the_model(folder):
    promised = read_shape(folder)
    tensors = llama_tensors()
    del tensors["model.layers.1.self_attn.k_proj.weight"]
    write_safetensors(folder / "model.safetensors", tensors)
    read = read_shape(folder)
    assert read.exact
    assert read.weights_bytes == promised.weights_bytes - 2 * 32 * 64


def test_an_unknown_family_is_whole_once_every_layer_is_there(folder):
    (folder / "config.json").write_text(json.dumps(_TINY | {"model_type": "odd", "intermediate_size": 4096}))
    guessed = read_shape(folder)
    write_safetensors(folder / "model.safetensors", llama_tensors())
    whole = read_shape(folder)
    assert whole.exact
    assert whole.parameters < guessed.parameters / 2
    first = {name: one for name, one in llama_tensors().items() if "layers.1" not in name}
    write_safetensors(folder / "model.safetensors", first)
    part = read_shape(folder)
    assert (part.exact, part.tensors) == (False, guessed.tensors)
    assert "1 of 2 layers" in part.notes[-1]


def test_an_adapter_beside_a_config_is_not_its_weights(folder):
    promised = read_shape(folder)
    write_safetensors(folder / "adapter_model.safetensors", {"lora_A.weight": ("BF16", (8, 64))})
    assert read_shape(folder) == promised
    (folder / "config.json").rename(folder / "adapter_config.json")
    with pytest.raises(ConfigError, match="holds an adapter, not a model"):
        read_shape(folder)


def test_an_index_without_its_files_is_planned_from_the_config(folder):
    promised = read_shape(folder)
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    read = read_shape(folder)
    assert (read.exact, read.tensors, read.layers) == (False, promised.tensors, promised.layers)
    assert "None of the files that its index names" in read.notes[-1]


def test_a_gguf_beside_a_config_is_what_is_meant(folder, tmp_path):
    shutil.copy(GGUF, folder / "model-Q8_0.gguf")
    for other in ("mmproj-model.gguf", "imatrix.gguf"):
        (folder / other).write_bytes(b"GGUF")
    read = read_shape(folder)
    assert (read.source, read.exact) == ("gguf", True)
    assert read.layers == read_shape(GGUF).layers
    shutil.copy(GGUF, folder / "model-Q4_0.gguf")
    with pytest.raises(ConfigError, match=r"has 2 models: model-Q4_0\.gguf, model-Q8_0\.gguf") as refused:
        read_shape(folder)
    assert refused.value.hint == "Name one of the files."
    write_safetensors(folder / "model.safetensors", llama_tensors())
    assert read_shape(folder).source == "safetensors"


def test_what_is_no_gguf_model_leaves_the_config(folder):
    (folder / "mmproj-model.gguf").write_bytes(b"GGUF")
    assert read_shape(folder).source == "config.json"


def test_the_parts_of_a_split_gguf_are_one_model(folder):
    for part in (2, 3):
        (folder / f"m-{part:05d}-of-00003.gguf").write_bytes(b"GGUF")
    with pytest.raises(ConfigError, match=r"1 of them are missing: m-00001-of-00003\.gguf"):
        read_shape(folder)


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "model.safetensors.index.json", "m.gguf"]
)
def test_a_git_lfs_pointer_is_called_by_its_name(folder, name):
    (folder / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7\n")
    with pytest.raises(ConfigError) as refused:
        read_shape(folder)
    assert refused.value.message == f"{folder / name} is a Git LFS pointer, not the file itself"
    assert "git lfs pull" in (refused.value.hint or "")


@pytest.mark.parametrize("name", ["ówner/model", "owner/modél", "owner/model\u0661", "owner/model\n"])
def test_a_name_of_the_hub_is_ascii(name, monkeypatch):
    monkeypatch.setattr(hub, "fetch", lambda name: pytest.fail("it was asked for"))
    with pytest.raises(ConfigError, match="there is no model"):
        read_shape(name, offline=False)


def test_a_damaged_header_is_an_error_in_a_folder_of_ones_own(folder):
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(ConfigError, match=r"model\.safetensors"):
        read_shape(folder)


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    home = tmp_path / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(home))
    snapshots = home / "models--owner--model" / "snapshots"
    for commit in ("0" * 40, "1" * 40):
        (snapshots / commit).mkdir(parents=True)
        shutil.copy(_SHAPES / "llama-3.2-1b" / "config.json", snapshots / commit)
    (snapshots / ("1" * 40) / "config.json").write_text(json.dumps(config_of("llama-3.2-3b")))
    return home


def test_a_name_is_looked_for_in_the_local_hub_cache(hub_cache):
    (hub_cache / "models--owner--model" / "refs").mkdir()
    (hub_cache / "models--owner--model" / "refs" / "main").write_text("1" * 40)
    assert read_shape("owner/model").hidden == 3072
    (hub_cache / "models--owner--model" / "refs" / "main").write_text("../../../../etc")
    os.utime(hub_cache / "models--owner--model" / "snapshots" / ("0" * 40) / "config.json", (2e9, 2e9))
    assert read_shape("owner/model").hidden == 2048


def test_weights_that_are_there_in_part_do_not_count(hub_cache):
    snapshot = hub_cache / "models--owner--model" / "snapshots" / ("0" * 40)
    os.utime(snapshot / "config.json", (2e9, 2e9))
    (snapshot / "model-00001-of-00002.safetensors").symlink_to("../../blobs/gone")
    read = read_shape("owner/model")
    assert (read.source, read.exact) == ("config.json", False)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("owner/nothing", "not in the local hub cache"),
        ("/no/such/folder", "there is no model"),
        ("a b/../c", "there is no model"),
        ("x" * 5000, "there is no model"),
        ("nul\0l", "there is no model"),
    ],
)
def test_what_is_not_there_is_said(source, said, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match=said) as refused:
        read_shape(source)
    assert refused.value.hint


def test_an_empty_folder_is_no_model(tmp_path):
    with pytest.raises(ConfigError, match="neither a config.json nor"):
        read_shape(tmp_path)


_BAD_FILES = {
    "no JSON": b"{",
    "a list": b"[1, 2]",
    "a number": b"7",
    "not a number": b'{"hidden_size": NaN}',
    "deep": b"[" * 10_000 + b"]" * 10_000,
    "deep objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "no text": b"\xff\xfe\x00\x01",
    "long number": b'{"hidden_size": ' + b"9" * 100_000 + b"}",
    "empty": b"",
}


@pytest.mark.parametrize("kind", sorted(_BAD_FILES))
def test_a_file_that_is_no_config_is_named(tmp_path, kind):
    path = tmp_path / "config.json"
    path.write_bytes(_BAD_FILES[kind])
    for source in (path, tmp_path):
        with pytest.raises(ConfigError) as refused:
            read_shape(source)
        assert str(path) in refused.value.message


def test_a_huge_file_is_not_read(tmp_path):
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(200 * 2**20)
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        read_shape(path)


def test_a_pipe_is_no_config(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(ConfigError):
        read_shape(tmp_path / "config.json")
    with pytest.raises(ConfigError):
        read_shape(tmp_path)
