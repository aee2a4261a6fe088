"""Quantisations that lie or cost: each is a shape or a typed error, in few steps and little memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.errors import ConfigError
from subcortex.models import _patterns
from subcortex.models._config import Config
from subcortex.models.huggingface import from_config
from subcortex.models.quantisation import _READERS, method_of
from subcortex.models.read import MOST_CONFIG_BYTES, read_shape
from tests.models.test_huggingface import config_of

_LAYERS = 2048


def _fp8(entries: Iterable[str]) -> dict[str, Any]:
    return {"quant_method": "fp8", "modules_to_not_convert": list(entries)}


def _awq(entries: Iterable[str]) -> dict[str, Any]:
    return {"quant_method": "awq", "modules_to_not_convert": list(entries)}


def _by_name(name: str, settings: Any, count: int) -> dict[str, Any]:
    return {name.format(number): settings for number in range(count)}


def _mixed(layers: dict[str, Any]) -> dict[str, Any]:
    return {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": layers}


_ONE = {"num_bits": 8, "strategy": "tensor", "type": "float"}
#: The dearest that a file of 1 MiB can ask for, and whether it is answered.
DEAR: dict[str, tuple[dict[str, Any], bool]] = {
    "a pattern 50,000 times": (_fp8(["re:.*a.*b.*c7"] * 50_000), True),
    "40,000 patterns": (_fp8(f"re:.*a.*b.*c{number}" for number in range(40_000)), False),
    "32 patterns on 2048 layers": (_fp8(f"re:.*a.*b.*c{number}" for number in range(32)), False),
    "1024 patterns": (_fp8(f"re:.*{number}" for number in range(1024)), False),
    "patterns that tell all layers apart": (
        _fp8(f"re:.*{a}.*{b}.*q" for a in range(10) for b in range(10)),
        False,
    ),
    "patterns that take Python forever": (
        _fp8(["re:(a+)+$", "re:(.*)*x", "re:((a|m)*)*$", f"re:{'(.*)*' * 20}x", f"re:{'(.|a)*' * 30}"]),
        True,
    ),
    "repetitions of repetitions": (_fp8(f"re:({'a?' * 120})*{number}" for number in range(300)), False),
    "copies of copies": (_fp8(["re:(((a{60}){60}){60}){60}", f"re:{'(' * 200}{')' * 200}"]), True),
    "classes of everything": (_fp8(f"re:{'[^x]*' * 90}{number}" for number in range(300)), False),
    "wildcards": (_fp8(f"*{number}*" for number in range(60_000)), False),
    "names of every layer": (_fp8(f"layers.{number % _LAYERS}.{number}" for number in range(50_000)), True),
    "names of one layer": (_awq(f"layers.7.{number}" for number in range(55_000)), True),
    "texts of any layer": (_awq(f"x{number}" for number in range(60_000)), False),
    "rules by turns": (
        {"quant_method": "gptq", "dynamic": {f"{'+-'[n % 2]}:.*{n}": {"bits": 8} for n in range(20_000)}},
        False,
    ),
    "a rule for every name": (
        {"quant_method": "auto-round", "bits": 4} | {"extra_config": _by_name("a.{}.b", {"bits": 8}, 10_000)},
        True,
    ),
    "layers of their own": (_mixed(_by_name("layers.{}.mlp", {"quant_algo": "FP8"}, 16_000)), True),
    "algorithms of their own": (
        _mixed({f"a.{number}.b": {"quant_algo": f"A{number}"} for number in range(16_000)}),
        True,
    ),
    "groups of their own": (
        {"quant_method": "compressed-tensors"}
        | {"config_groups": {f"{n}": {"targets": [f"re:.*{n}"], "weights": _ONE} for n in range(8_000)}},
        False,
    ),
    "classes of their own": (
        {"quant_method": "torchao", "quant_type": {"default": {"_type": "FqnToConfig", "_data": {}}}}
        | {"modules_to_not_convert": [f"re:(a|b)*{number}" for number in range(9_000)]},
        False,
    ),
}


@pytest.mark.parametrize("name", DEAR)
def test_the_dearest_lists_are_answered_or_refused_within_their_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    quantisation, answered = DEAR[name]
    path = tmp_path / "config.json"
    config = config_of("llama-3.1-8b") | {"num_hidden_layers": _LAYERS, "quantization_config": quantisation}
    path.write_text(json.dumps(config))
    worked = 0
    move = _patterns._Automaton._worked_out

    def counted(self: Any, state: int, character: str) -> int:
        nonlocal worked
        worked += 1
        return move(self, state, character)

    monkeypatch.setattr(_patterns._Automaton, "_worked_out", counted)
    if answered:
        assert len(read_shape(path).layers) == _LAYERS
    else:
        with pytest.raises(ConfigError, match="quantization_config of .* in 1000000 steps"):
            read_shape(path)
    assert path.stat().st_size < MOST_CONFIG_BYTES
    assert worked < _patterns.MOST_STEPS / 10


@pytest.mark.parametrize(
    "entries",
    [
        [f"re:.*layers\\.{layer}\\.self_attn.*" for layer in range(61)],
        [f"re:^(?!.*experts).*{name}.*" for name in "abcdefghijklmnopqrstuvwxyz012345"],
        [
            f"model.layers.{layer}.{part}*"
            for layer in range(61)
            for part in ("self_attn", "mlp.gate", "norm")
        ],
        [f"model.layers.{layer}.mlp.{part}_proj" for layer in range(61) for part in ("up", "gate", "down")],
    ],
)
def test_lists_longer_than_real_ones_are_answered(entries: list[str]) -> None:
    config = config_of("deepseek-v3")
    shape = from_config(config | {"quantization_config": _fp8(entries)}, "m")

    assert shape.weights_bytes > from_config(config, "m").weights_bytes


def test_the_dearest_lists_take_no_200_mb(tmp_path: Path) -> None:
    dear = ("1024 patterns", "repetitions of repetitions", "names of every layer", "texts of any layer")
    for name in dear:
        config = config_of("llama-3.1-8b") | {"num_hidden_layers": _LAYERS}
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(config | {"quantization_config": DEAR[name][0]}))
    script = (
        "import contextlib, pathlib, re, sys\n"
        "from subcortex.errors import ConfigError\n"
        "from subcortex.models.read import read_shape\n"
        "for path in pathlib.Path(sys.argv[1]).iterdir():\n"
        "    with contextlib.suppress(ConfigError):\n"
        "        read_shape(path)\n"
        # The peak that getrusage tells begins with that of whoever started the process.
        "status = pathlib.Path('/proc/self/status').read_text()\n"
        "print(re.search('VmHWM:\\s+(\\d+)', status)[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )

    assert int(done.stdout) / 1024 < 190


_TEXTS = st.sampled_from(
    ("Linear", "re:.*", "re:(", "*", "a.1.b", "", "\0", "float", "4", "fp8_e4m3", "per_group")
)
_INNER = st.sampled_from(
    ("weights", "weight", "targets", "default", "_type", "_data", "bits", "quant_algo", "a.1.b", "-:.*")
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 40) | st.floats() | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_INNER, inner, max_size=3),
    max_leaves=8,
)
_KEYS = (
    *("bits", "w_bit", "group_size", "sym", "desc_act", "dynamic", "lm_head", "zero_point", "export"),
    *("modules_to_not_convert", "ignore", "exclude", "extra_config", "block_name_to_quantize", "data_type"),
    *("config_groups", "format", "kv_cache_scheme", "sparsity_config", "quantization", "quant_algo"),
    *("quantized_layers", "quant_type", "global_quant_config", "layer_quant_config", "producer"),
    *("weight_block_size", "forward_dtype", "packing_format", "bnb_4bit_quant_storage", "load_in_8bit"),
    "modules_in_block_to_quantize",
)


@given(
    method=st.sampled_from(("", "hqq", *_READERS)),
    said=st.dictionaries(st.sampled_from(_KEYS), _VALUES, max_size=5),
)
def test_whatever_is_said_is_a_method_or_a_config_error(method: str, said: dict[str, Any]) -> None:
    config = {"quantization_config": {"quant_method": method, **said}}
    modules = ("mlp.up_proj", "mlp.experts.up_proj")
    try:
        read = method_of(Config(config, "m"))
        costs = [read.cost(f"model.layers.0.{name}", 4096, 1024) for name in modules]
    except ConfigError:
        return
    assert all(0 <= cost.sharded + cost.whole <= 5 * 4096 * 1024 for cost in costs)
    assert all(len(note) < 300 for note in read.notes)


def test_long_names_in_notes_are_cut() -> None:
    quantisation = {"quant_method": "x" * 900}
    shape = from_config(config_of("llama-3.1-8b") | {"quantization_config": quantisation}, "m")

    assert all(len(note) < 300 for note in shape.notes)
