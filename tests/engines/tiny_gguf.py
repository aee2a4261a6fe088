"""Write a random 64-wide Llama as GGUF, by hand: any text goes in, noise comes out, in milliseconds.

The format is written out here so that the tests need neither numpy nor the gguf package.
"""

from __future__ import annotations

import array
import io
import random
import struct
from pathlib import Path

_U32, _I32, _F32, _BOOL, _STR, _ARR = 4, 5, 6, 7, 8, 9
_UNKNOWN, _CONTROL, _BYTE = 2, 3, 6
_ALIGNMENT = 32

CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def write(
    path: Path, *, width: int = 64, layers: int = 2, heads: int = 2, context: int = 32768, seed: int = 0
) -> Path:
    """Write the model to ``path`` and return it; about 0.5 MB at the default shape."""
    ffn, control = width * 2, ["<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>"]
    tokens = ["<unk>", *control, *(f"<0x{i:02X}>" for i in range(256))]
    kinds = [_UNKNOWN, *[_CONTROL] * len(control), *[_BYTE] * 256]
    vocab = len(tokens)
    keys: list[tuple[str, int, object]] = [
        ("general.architecture", _STR, "llama"),
        ("general.name", _STR, "tiny"),
        ("llama.context_length", _U32, context),
        ("llama.embedding_length", _U32, width),
        ("llama.block_count", _U32, layers),
        ("llama.feed_forward_length", _U32, ffn),
        ("llama.attention.head_count", _U32, heads),
        ("llama.attention.head_count_kv", _U32, heads),
        ("llama.attention.layer_norm_rms_epsilon", _F32, 1e-5),
        ("llama.rope.dimension_count", _U32, width // heads),
        ("llama.vocab_size", _U32, vocab),
        ("general.file_type", _U32, 0),
        ("tokenizer.ggml.model", _STR, "llama"),
        ("tokenizer.ggml.tokens", _ARR, (_STR, tokens)),
        ("tokenizer.ggml.scores", _ARR, (_F32, [0.0] * vocab)),
        ("tokenizer.ggml.token_type", _ARR, (_I32, kinds)),
        ("tokenizer.ggml.add_space_prefix", _BOOL, False),
        ("tokenizer.ggml.bos_token_id", _U32, 1),
        ("tokenizer.ggml.eos_token_id", _U32, 2),
        ("tokenizer.chat_template", _STR, CHAT_TEMPLATE),
    ]
    square, up, down = (width, width), (width, ffn), (ffn, width)
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (width, vocab), "output_norm": (width,)}
    shapes["output"] = (width, vocab)
    for layer in range(layers):
        block = f"blk.{layer}."
        for name in ("attn_norm", "ffn_norm"):
            shapes[block + name] = (width,)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            shapes[block + name] = square
        shapes |= {block + "ffn_gate": up, block + "ffn_up": up, block + "ffn_down": down}
    rng = random.Random(seed)
    head, data = io.BytesIO(), io.BytesIO()
    head.write(b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(keys)))
    for name, kind, value in keys:
        head.write(_text(name) + struct.pack("<I", kind) + _value(kind, value))
    for name, shape in shapes.items():
        head.write(_text(f"{name}.weight") + struct.pack("<I", len(shape)))
        head.write(struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", 0, data.tell()))
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        flat = [1.0] * count if "norm" in name else [rng.gauss(0.0, 0.1) for _ in range(count)]
        if name == "output":
            _forbid(flat, width, range(1 + len(control)))
        data.write(array.array("f", flat).tobytes())
        data.write(b"\0" * (-data.tell() % _ALIGNMENT))
    head.write(b"\0" * (-head.tell() % _ALIGNMENT))
    path.write_bytes(head.getvalue() + data.getvalue())
    return path


def _forbid(flat: list[float], width: int, tokens: range) -> None:
    # A zero row has logit 0 and random ones reach well above it: greedy answers never end by themselves.
    for token in tokens:
        flat[token * width : (token + 1) * width] = [0.0] * width


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(kind: int, value: object) -> bytes:
    if kind == _STR:
        return _text(str(value))
    if kind == _ARR:
        assert isinstance(value, tuple)
        of, items = value
        return struct.pack("<IQ", of, len(items)) + b"".join(_value(of, item) for item in items)
    return struct.pack({_U32: "<I", _F32: "<f", _BOOL: "<?", _I32: "<i"}[kind], value)
