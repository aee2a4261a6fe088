"""Write folders that vLLM boots with ``--load-format dummy``: real shapes, random weights, noise for words.

    python bench/dummy_models.py DIR [NAME ...]

Memory, boot and speed are those of the real model. Needs the `tokenizers` package (any vLLM environment has
it). Shapes are those of the models' own config.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def llama(
    hidden: int, ffn: int, heads: int, layers: int, *, kv_heads: int = 8, vocab: int = 128256
) -> dict[str, Any]:
    """Return the config.json of a Llama of that shape."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "bfloat16",
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "num_hidden_layers": layers,
        "vocab_size": vocab,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }


SHAPES = {
    "llama-3.1-8b": llama(4096, 14336, 32, 32),
    "llama-3.1-70b": llama(8192, 28672, 64, 80),
    "llama-tiny": llama(128, 256, 4, 2, kv_heads=2, vocab=1024),
}
_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_SPECIAL = ["<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>"]


def write_tokenizer(folder: Path, size: int) -> None:
    """Write a byte-level tokenizer of ``size`` tokens without merges.

    Any text goes in, one token a byte; and whatever the random weights choose comes out as a word, so that
    each token shows in the stream when it is made.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*_SPECIAL, *alphabet]
    tokens += [f"Ġw{number}" for number in range(len(tokens), size)]
    vocab = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in _SPECIAL])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "chat_template": _TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")


def main(root: str, *names: str) -> None:
    for name in names or SHAPES:
        folder = Path(root, name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(SHAPES[name], indent=1) + "\n")
        write_tokenizer(folder, SHAPES[name]["vocab_size"])


if __name__ == "__main__":
    main(*sys.argv[1:])
