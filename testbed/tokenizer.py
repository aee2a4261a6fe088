"""The tokenizer that both models share: byte-level BPE, each digit a token of its own.

Needs the `tokenizers` package. The splitting pattern is the one that llama.cpp knows as
`qwen2`, so that a GGUF file splits text as the Hugging Face file does.

    python -m testbed.tokenizer OUT_FOLDER
"""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from testbed import dialogue

VOCABULARY = 640
CONTEXT_TOKENS = 4096
PAD, START, END, THINK, UNTHINK = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"
PRE_TOKENIZER = "qwen2"
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] in ['system', 'user', 'assistant'] and message['content'] is string -%}"
    "{%- set content = message['content'] -%}"
    "{%- if message['role'] == 'assistant' and '</think>' in content -%}"
    "{%- set content = content.split('</think>')[-1].lstrip('\\n') -%}"
    "{%- endif -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + content + '<|im_end|>\\n' -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)


def render(turns: tuple[dialogue.Turn, ...]) -> str:
    """The prompt text of a conversation, up to where the assistant speaks: the chat template in Python."""
    said = "".join(f"{START}{role}\n{content}{END}\n" for role, content in turns)
    return f"{said}{START}assistant\n"


def _corpus(rng: random.Random, examples: int) -> Iterator[str]:
    for _ in range(examples):
        made = dialogue.example(rng, "deep")
        yield " ".join(content for _, content in made.turns)
        yield made.reply.replace(THINK, "").replace(UNTHINK, "")
        yield "system user assistant " + " ".join(rng.sample("abcdefghijklmnopqrstuvwxyz", 26))


def build(seed: int = 0, examples: int = 20_000) -> Tokenizer:
    """Train the tokenizer on generated conversations; the same seed gives the same tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    specials = [AddedToken(text, special=True, normalized=False) for text in (PAD, START, END)]
    specials += [AddedToken(text, special=False, normalized=False) for text in (THINK, UNTHINK)]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=specials,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(random.Random(seed), examples), trainer)
    return _spoken_thoughts(tokenizer)


def _spoken_thoughts(tokenizer: Tokenizer) -> Tokenizer:
    """The trainer marks all it adds as special; decoders drop those, and thoughts would run into answers."""
    plan = json.loads(tokenizer.to_str())
    for entry in plan["added_tokens"]:
        entry["special"] = entry["content"] not in (THINK, UNTHINK)
    return Tokenizer.from_str(json.dumps(plan))


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of a token that must be there.

    Raises:
        ValueError: if it is not.
    """
    found = tokenizer.token_to_id(token)
    if found is None:
        raise ValueError(f"the tokenizer has no token {token!r}")
    return found


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json, chat template included."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": PAD,
        "bos_token": None,
        "add_bos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT_TOKENS,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


if __name__ == "__main__":
    save(build(), Path(sys.argv[1]))
