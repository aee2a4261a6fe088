"""Write a random 64-wide Llama as a folder for vLLM: a config and a byte tokenizer, no weights.

To be served with ``--load-format dummy``, which makes the weights up.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.engines.tiny_gguf import CHAT_TEMPLATE

#: As many as the tokenizer has: any other token would be silent.
VOCABULARY = 2 + 256
CONTEXT_TOKENS = 4096


def write(folder: Path) -> Path:
    """Write the model into ``folder`` and return it."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": CONTEXT_TOKENS,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "bos_token_id": None,
        # No end of its own, or noise would end at a random place.
        "eos_token_id": None,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
    }
    special = ["<s>", "</s>"]
    vocabulary = special + sorted(_byte_letters())
    tokenizer = {
        "version": "1.0",
        "added_tokens": [
            {
                "id": index,
                "content": text,
                "special": True,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
            }
            for index, text in enumerate(special)
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": False,
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        "model": {
            "type": "BPE",
            "vocab": {text: index for index, text in enumerate(vocabulary)},
            "merges": [],
        },
    }
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "model_max_length": CONTEXT_TOKENS,
        "chat_template": CHAT_TEMPLATE,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in (
        ("config.json", config),
        ("tokenizer.json", tokenizer),
        ("tokenizer_config.json", settings),
    ):
        (folder / name).write_text(json.dumps(value))
    return folder


def _byte_letters() -> list[str]:
    """Return the letter byte-level BPE has for each byte: itself if printable, else one from 256 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + place) for place in range(len(others))]
