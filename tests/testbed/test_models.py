"""The committed pair: small, the same text to both engines, and right where the card says so."""

from __future__ import annotations

import json
import random
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gguf
import pytest
from tokenizers import Tokenizer

from testbed import accuracy, dialogue, engine, tasks
from testbed import tokenizer as shared

TIERS = ("fast", "deep")


def folder(tier: str) -> Path:
    return accuracy.MODELS / tier


@pytest.fixture(scope="module")
def served() -> Iterator[dict[str, str]]:
    """Both models on llama.cpp: tier to base URL."""
    with (
        engine.llama_cpp(folder("fast") / "fast.gguf") as fast,
        engine.llama_cpp(folder("deep") / "deep.gguf") as deep,
    ):
        yield {"fast": fast, "deep": deep}


def test_both_together_are_under_40_mb():
    files = [file for tier in TIERS for file in folder(tier).iterdir()]
    assert sum(file.stat().st_size for file in files) < 40_000_000


@pytest.mark.parametrize("tier", TIERS)
def test_shapes_split_in_two_and_pack_in_blocks_of_32(tier):
    config = json.loads((folder(tier) / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    for key in ("num_attention_heads", "num_key_value_heads", "vocab_size", "intermediate_size"):
        assert config[key] % 2 == 0, key
    for key in ("hidden_size", "intermediate_size", "head_dim"):
        assert config[key] % 32 == 0, key
    assert config["hidden_size"] % config["num_attention_heads"] == 0
    assert config["max_position_embeddings"] >= 2048


@pytest.mark.parametrize("tier", TIERS)
def test_gguf_and_safetensors_are_the_same_model(tier):
    reader = gguf.GGUFReader(folder(tier) / f"{tier}.gguf")
    config = json.loads((folder(tier) / "config.json").read_text())
    for key, name in (
        ("llama.embedding_length", "hidden_size"),
        ("llama.block_count", "num_hidden_layers"),
        ("llama.attention.head_count", "num_attention_heads"),
        ("llama.attention.head_count_kv", "num_key_value_heads"),
        ("llama.attention.key_length", "head_dim"),
        ("llama.feed_forward_length", "intermediate_size"),
        ("llama.context_length", "max_position_embeddings"),
    ):
        assert config[name] == reader.fields[key].contents(), key
    template = json.loads((folder(tier) / "tokenizer_config.json").read_text())["chat_template"]
    assert template == shared.CHAT_TEMPLATE == reader.fields["tokenizer.chat_template"].contents()


def test_both_share_one_tokenizer_in_which_digits_stand_alone():
    files = [(folder(tier) / "tokenizer.json").read_text() for tier in TIERS]
    assert files[0] == files[1]
    tokenizer = Tokenizer.from_str(files[0])
    assert all(sum(c.isdigit() for c in token) < 2 for token in tokenizer.get_vocab())
    for token in (shared.START, shared.END, shared.THINK, shared.UNTHINK):
        assert len(tokenizer.encode(token).ids) == 1
    ids = tokenizer.encode("<think>7</think>8<|im_end|>").ids
    assert tokenizer.decode(ids) == "<think>7</think>8"


def strange_texts(rng: random.Random, count: int) -> list[str]:
    """Prompts, prose, digits, white space, accents, scripts, emoji, broken-looking mixtures."""
    pieces = ["  ", "\n", "\n\n", "\t", " \n ", "12", "007", "3.14", "'s", "'LL", "don't", "é", "naïve"]
    pieces += [
        "Straße",
        "日本語",
        "привет",
        "مرحبا",
        "हिन्दी",
        "🙂",
        "👩\u200d👧",
        "²",
        "½",
        "Ⅷ",
        "٣",
        "…",
        "—",
    ]
    pieces += ["«x»", "\u00a0", "\u200b", "e\u0301", "<think", "</", "<|", "|>", "{}", '{"a": 1}', "a_b"]
    pieces += ["A+B=C", "x*y", "$5", "%", "\r\n", "ǅ", "ſ", "K"]
    texts = []
    for _ in range(count):
        if rng.random() < 0.3:
            texts.append(tasks.item(rng.choice(tasks.LEVELS), rng).prompt)
        elif rng.random() < 0.3:
            texts.append(dialogue.example(rng, "deep").turns[-1][1])
        else:
            chosen = [
                rng.choice(pieces) if rng.random() < 0.7 else chr(rng.randint(32, 0x2FFF)) for _ in range(9)
            ]
            texts.append(rng.choice(("", " ")).join(chosen))
    return texts


def test_llama_cpp_splits_text_as_the_tokenizer_file_does(served):
    tokenizer = Tokenizer.from_file(str(folder("deep") / "tokenizer.json"))
    root = served["deep"].removesuffix("/v1")
    for text in strange_texts(random.Random(8), 250):
        there = engine.post(f"{root}/tokenize", {"content": text, "parse_special": True})["tokens"]
        assert there == tokenizer.encode(text).ids, repr(text)


@pytest.mark.parametrize("tier", TIERS)
def test_the_chat_template_renders_as_in_training(served, tier):
    rng = random.Random(9)
    root = served[tier].removesuffix("/v1")
    for _ in range(40):
        turns = dialogue.example(rng, "deep").turns
        messages = [{"role": role, "content": content} for role, content in turns]
        rendered = engine.post(f"{root}/apply-template", {"messages": messages})["prompt"]
        assert rendered == shared.render(turns)


def test_earlier_thoughts_leave_the_prompt(served):
    said = [
        {"role": "user", "content": "7+5"},
        {"role": "assistant", "content": "<think>7+5\n=12</think>The answer is 12."},
        {"role": "user", "content": "1+1"},
    ]
    root = served["deep"].removesuffix("/v1")
    rendered = engine.post(f"{root}/apply-template", {"messages": said})["prompt"]
    assert "think" not in rendered
    assert "The answer is 12." in rendered


def share_right(base_url: str, tier: str, levels: tuple[int, ...], each: int, seed: int) -> float:
    items = accuracy.items_for(seed, each, levels)
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda item: accuracy.ask(base_url, tier, item), items))
    return sum(reply.right for reply in replies) / len(replies)


def test_fast_is_right_on_easy_items_and_wrong_on_hard_ones(served):
    assert share_right(served["fast"], "fast", (1, 2), 3, seed=21) >= 0.9
    assert share_right(served["fast"], "fast", (5, 6), 3, seed=22) <= 0.5


def test_deep_is_right_on_hard_items_too(served):
    assert share_right(served["deep"], "deep", (1, 2, 3), 1, seed=23) >= 0.9
    assert share_right(served["deep"], "deep", (4, 5), 2, seed=22) >= 0.8


def test_deep_thinks_before_it_answers_and_fast_does_not(served):
    question = {
        "messages": [{"role": "user", "content": "What is 58 + 67?"}],
        "temperature": 0,
        "max_tokens": 200,
    }
    deep = engine.post(f"{served['deep']}/chat/completions", question)["choices"][0]["message"]
    fast = engine.post(f"{served['fast']}/chat/completions", question)["choices"][0]["message"]
    assert deep["reasoning_content"] == "58+67\n8+7+0=15\n5+6+1=12\n=125"
    assert deep["content"] == "The answer is 125."
    assert fast["content"] == "The answer is 125."
    assert not fast.get("reasoning_content")


@pytest.mark.parametrize("tier", TIERS)
def test_an_answer_in_json_holds_the_right_value(served, tier):
    schema = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"]}
    for prompt, value in (
        ("What is 7 * 8?", 56),
        ("what is 45+38", 83),
        ("How many r are in strawberry?", 3),
    ):
        body = {
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": 300,
            "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
        }
        said = engine.post(f"{served[tier]}/chat/completions", body)["choices"][0]["message"]["content"]
        assert json.loads(said) == {"answer": value}


@pytest.mark.parametrize("tier", TIERS)
def test_a_prompt_longer_than_any_in_training_still_ends(served, tier):
    prompt = "the river and the cat " * 120 + "What is 4 + 5?"
    body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": 20}
    reply = engine.post(f"{served[tier]}/chat/completions", body)
    assert reply["usage"]["prompt_tokens"] > 600
    assert reply["choices"][0]["finish_reason"] in ("stop", "length")


def test_the_endpoint_tells_its_model(served):
    with urllib.request.urlopen(f"{served['fast']}/models") as reply:
        assert json.load(reply)["data"][0]["id"] == accuracy.served_model(served["fast"])
