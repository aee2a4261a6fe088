"""Which modules a checkpoint's lists mean, and the patterns in them."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.errors import ConfigError
from subcortex.models._config import Config
from subcortex.models._modules import Modules
from subcortex.models._pattern_syntax import NotUnderstood
from subcortex.models._patterns import Budget, Mode, Pattern
from tests.models.test_huggingface import shape_of


def _budget(steps: int = 10**6) -> Budget:
    return Budget(Config({}, "m"), steps=steps)


@pytest.mark.parametrize(
    ("entry", "path", "meant"),
    [
        ("re:.*mlp.gate$", "model.layers.0.mlp.gate", True),
        ("re:.*mlp.gate$", "model.layers.0.mlp.gate_proj", False),
        ("re:model\\.layers\\.1\\..*", "model.layers.1.mlp.up_proj", True),
        ("re:model\\.layers\\.1\\..*", "model.layers.10.mlp.up_proj", False),
        ("re:^(?!.*experts).*", "model.layers.1.mlp.up_proj", True),
        ("re:^(?!.*experts).*", "model.layers.1.mlp.experts.up_proj", False),
        ("re:.*mlp\\.experts\\.[0-9]+\\.down_proj$", "model.layers.1.mlp.experts.down_proj", True),
        ("re:.*experts$", "model.layers.1.mlp.experts.down_proj", True),
        ("re:.*\\.qkv_proj$", "model.layers.1.self_attn.k_proj", True),
        ("re:.*shared_expert\\..*", "model.layers.1.mlp.shared_experts.up_proj", True),
        ("model.layers.*.self_attn", "model.layers.3.self_attn.q_proj", True),
        ("model.layers.*.self_attn", "model.layers.3.self_attn_norm", False),
        ("model.layers.3.self_attn*", "model.layers.3.self_attn.q_proj", True),
        ("model.layers.3.self_attn*", "model.layers.33.self_attn.q_proj", False),
        ("model.layers.1", "model.layers.1.mlp.up_proj", True),
        ("model.layers.1", "model.layers.10.mlp.up_proj", False),
        ("model.layers", "model.layers.10.mlp.up_proj", True),
        ("model.layers.1.mlp.experts.7.up_proj", "model.layers.1.mlp.experts.gate_proj", True),
        ("model.layers.1.mlp.shared_expert.up_proj", "model.layers.1.mlp.shared_experts.up_proj", True),
        ("model.layers.1.self_attn.qkv_proj", "model.layers.1.self_attn.k_proj", True),
        ("model.layers.1.mlp.gate_up_proj", "model.layers.1.mlp.gate_proj", True),
        ("visual.layers.1.mlp.up_proj", "model.layers.1.mlp.up_proj", False),
        ("mlp", "model.layers.1.mlp.up_proj", True),
        ("lm_head", "lm_head", True),
    ],
)
def test_entries_mean_what_they_say(entry: str, path: str, meant: bool) -> None:
    assert Modules.of([entry], _budget()).has(path) is meant


@pytest.mark.parametrize(
    "entry",
    [
        "language_model.model.layers.4.mlp.down_proj",
        "model.language_model.layers.4.mlp.down_proj",
        "model.language_model.model.layers.4.mlp.down_proj",
        "thinker.model.layers.4.mlp.down_proj",
        "language_model.model.layers.4.mlp*",
        "model.language_model.layers.*.mlp.down_proj",
        "re:language_model\\.model\\.layers\\.4\\..*",
        "re:model\\.language_model\\.layers\\.\\d+\\.mlp",
        "re:.*language_model.*down_proj$",
        "language_model",
        "model.language_model",
    ],
)
def test_the_names_of_multimodal_checkpoints_are_those_of_the_language_model(entry: str) -> None:
    other = entry.replace("language_model", "vision_tower").replace("thinker", "audio")

    assert Modules.of([entry], _budget()).has("model.layers.4.mlp.down_proj")
    assert not Modules.of([other], _budget()).has("model.layers.4.mlp.down_proj")


def test_all_but_the_language_model_leaves_it_quantised() -> None:
    assert not Modules.of(["re:^(?!.*language_model).*"], _budget()).has("model.layers.4.mlp.down_proj")


@pytest.mark.parametrize(
    ("entry", "path", "meant"),
    [
        ("self_attn", "model.layers.7.self_attn.q_proj", True),
        ("layers.7.self", "model.layers.7.self_attn.q_proj", True),
        (".7.self", "model.layers.7.self_attn.q_proj", True),
        ("layers.7.self", "model.layers.17.self_attn.q_proj", False),
        ("model.language_model.layers.7.", "model.layers.7.self_attn.q_proj", True),
        ("layers.1", "model.layers.17.self_attn.q_proj", True),
        (".self_attn", "model.layers.7.self_attn.q_proj", True),
        ("w1", "model.layers.7.block.w1", True),
        ("visual", "model.layers.7.block.w1", False),
    ],
)
def test_texts_may_stand_anywhere_in_a_name(entry: str, path: str, meant: bool) -> None:
    assert Modules.of([entry], _budget(), inside=True).has(path) is meant


def test_layers_that_no_entry_tells_apart_are_alike() -> None:
    modules = Modules.of(["re:.*gate$", "model.layers.3.mlp", "visual.layers.4.mlp"], _budget())
    marks = [modules.mark(f"model.layers.{layer}.") for layer in range(8)]

    assert [layer for layer, mark in enumerate(marks) if mark != marks[0]] == [3]


PIECES = st.sampled_from(
    (
        *"ab.",
        "\\.",
        ".*",
        ".+",
        "a?",
        "b*",
        "[ab]",
        "[^a]",
        "\\d+",
        "[0-9]",
        "(a|b)",
        "(?:ab|a)*",
        "a{2}",
        "b{1,2}",
    )
)


@given(
    pieces=st.lists(PIECES, max_size=6),
    ends=st.sampled_from(("", "$")),
    refused=st.sampled_from(("", "^", "(?!a)", "^(?!.*b$)")),
    name=st.text("ab.0", max_size=8),
    mode=st.sampled_from(("start", "whole", "anywhere")),
)
def test_a_pattern_matches_what_it_matches_in_python(
    pieces: list[str], ends: str, refused: str, name: str, mode: Mode
) -> None:
    text = f"{refused}{''.join(pieces)}{ends}"
    if mode == "anywhere" and "(?!" in text:
        with pytest.raises(NotUnderstood):
            Pattern(text, _budget(), mode)
        return
    how = {"start": re.match, "whole": re.fullmatch, "anywhere": re.search}[mode]

    assert Pattern(text, _budget(), mode).matches(name) is bool(how(text, name))


@given(st.text(string.printable + "é", max_size=12))
def test_any_text_is_read_as_python_does_or_not_at_all(text: str) -> None:
    try:
        pattern = Pattern(text, _budget())
    except NotUnderstood:
        return
    compiled = re.compile(text)

    for name in ("", "a", "model.layers.0.mlp", text):
        assert "\n" in name or pattern.matches(name) is bool(compiled.match(name))


@pytest.mark.parametrize(
    "text",
    [
        *(
            "(",
            "a)",
            "a**",
            "a*+",
            "[a",
            "\\b",
            "(a)\\1",
            "a(?=b)",
            "a(?!b)",
            "(?<!a)b",
            "(?i)a",
            "a^b",
            "$?",
            "a\\Z{1}",
            "a{65}",
        ),
        *("[\x01-\uffff]", "a" * 501, "(a{50}){50}", "(" * 40 + ")" * 40),
    ],
)
def test_what_is_not_understood_is_not_applied(text: str) -> None:
    modules = Modules.of([f"re:{text}"], _budget())

    assert modules.unread == [f"re:{text}"[:80]]
    assert not modules.has("a")


def test_what_is_not_understood_is_noted() -> None:
    shape = shape_of(
        "llama-3.1-8b", quantization_config={"quant_method": "fp8", "modules_to_not_convert": ["re:a(?=b)"]}
    )

    assert "not understood: re:a(?=b)" in shape.notes[-1]


@pytest.mark.parametrize("text", ["(a+)+$", "(.*)*x", ".?" * 40 + "x", "(a|a)*b", "(.*a){8}"])
def test_what_takes_python_forever_takes_few_steps(text: str) -> None:
    budget = _budget(20_000)

    assert not Pattern(text, budget).matches("a" * 7 + "!" * 60)


def test_work_beyond_the_budget_is_refused() -> None:
    config = Config({"quantization_config": {}}, "m", file="some/config.json")
    budget = Budget(config, steps=20_000)
    modules = Modules.of([f"re:.*a.*b.*c{number}" for number in range(4)], budget)

    with pytest.raises(ConfigError, match=r"quantization_config of some/config.json .* 20000 steps"):
        [modules.has(f"model.layers.{layer}.mlp.up_proj") for layer in range(2048)]
