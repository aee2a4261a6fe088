"""The shape of a model in GGUF: exact bytes by tensor, and layers as llama.cpp reads them."""

from __future__ import annotations

import re
from pathlib import Path

from subcortex.errors import ConfigError
from subcortex.models.gguf import GgufFile, read_gguf
from subcortex.models.shape import (
    Attention,
    Experts,
    FullAttention,
    LatentAttention,
    Layer,
    ModelShape,
    Part,
    Quantisation,
    Recurrence,
    SlidingAttention,
    Split,
    Tensor,
)
from subcortex.models.stored import StoredTensor

#: Of so many layers all but the last are windowed: llama.cpp knows it by architecture (``llama-model.cpp``).
_WINDOW_PATTERNS = {
    "gemma2": 2,
    "gemma3": 6,
    "gemma3n": 5,
    "cohere2": 4,
    "gpt-oss": 2,
    "olmo2": 4,
    "exaone4": 4,
    "smallthinker": 4,
    "llama4": 4,
}
_MOST_LAYERS, _MOST_SIZE = 4096, 2**31
_BLOCK = re.compile(r"^blk\.(\d+)\.(.+?)(?:\.weight|\.bias)?$")
_KEEPS_A_STATE = ("ssm_", "shortconv", "time_mix")


def shape_of_gguf(path: Path, name: str | None = None) -> ModelShape:
    """Read a GGUF file's header as a shape.

    Args:
        path: The file, or the first of its parts.
        name: What the model is called here; the file's own name if None.

    Raises:
        ConfigError: The file is no GGUF, is broken, or does not say what its layers are.
    """
    return from_gguf(read_gguf(path), name or path.name)


def from_gguf(file: GgufFile, name: str) -> ModelShape:
    """Return the shape of a header that has been read.

    Raises:
        ConfigError: A key that decides memory is missing or makes no sense.
    """
    reader = _Keys(file)
    stored = file.stored()
    count = reader.size("block_count", most=_MOST_LAYERS)
    parts: dict[int, set[str]] = {}
    for tensor in stored:
        if found := _BLOCK.match(tensor.name):
            parts.setdefault(int(found[1]), set()).add(found[2])
    embedding = next((tensor for tensor in stored if tensor.name == "token_embd.weight"), None)
    head = any(tensor.name == "output.weight" for tensor in stored)
    hidden = reader.size("embedding_length")
    layers = tuple(_layer(reader, index, hidden, parts.get(index, set())) for index in range(count))
    return ModelShape(
        name=name,
        architecture=file.architecture or "unknown",
        source="gguf",
        hidden=hidden,
        vocabulary=embedding.shape[0] if embedding and len(embedding.shape) == 2 else 0,
        layers=layers,
        tensors=tuple(_tensor(tensor) for tensor in stored),
        tied=embedding is not None and not head,
        max_context_tokens=reader.size("context_length", 0),
        rope_dim=reader.size("rope.dimension_count", 0),
        quantisation=_quantisation(file),
        file_bytes=file.file_bytes,
        exact=True,
    )


def _layer(reader: _Keys, index: int, hidden: int, names: set[str]) -> Layer:
    kept: list[Attention] = []
    if not names or _keeps_tokens(names):
        kept.append(_attention(reader, index, hidden))
    if any(name.startswith(_KEEPS_A_STATE) for name in names):
        kept.append(_recurrence(reader, index, hidden, names))
    experts = None
    if any(name.startswith("ffn_") and name.endswith("_exps") for name in names):
        wide = reader.size("expert_feed_forward_length", 0) or reader.at("feed_forward_length", index, 1)
        shared = reader.size("expert_shared_feed_forward_length", 0)
        shared = shared or reader.size("expert_shared_count", 0) * wide
        experts = Experts(reader.size("expert_count"), reader.size("expert_used_count"), wide, shared)
    dense = 0 if experts else reader.at("feed_forward_length", index, 0)
    return Layer(tuple(kept), dense, experts, gated=experts is not None or not names or "ffn_gate" in names)


def _keeps_tokens(names: set[str]) -> bool:
    """Tell whether a layer with these tensors keeps keys and values of every token.

    Linear attention projects by tensors of the same names: a gated delta net by ``attn_qkv``, without an
    ``attn_output`` of its own (Qwen3-Next), Kimi's by ``attn_k`` with a convolution for each of the three.
    """
    if "ssm_conv1d_q" in names:
        return False
    if any(name.startswith("attn_k") and not name.endswith("norm") for name in names):
        return True
    recurrent = any(name.startswith(_KEEPS_A_STATE) for name in names)
    return "attn_qkv" in names and ("attn_output" in names or not recurrent)


def _attention(reader: _Keys, index: int, hidden: int) -> Attention:
    heads = reader.at("attention.head_count", index)
    kv_heads = reader.at("attention.head_count_kv", index, heads) or heads
    rank = reader.size("attention.kv_lora_rank", 0)
    each = hidden // heads if heads else 0
    whole, latent_value = (reader.size(f"attention.{part}_length_mla", 0) for part in ("key", "value"))
    # Files of before these keys, and families that llama.cpp does not compress, keep whole heads.
    if rank and whole and latent_value:
        rope = reader.size("rope.dimension_count")
        queries = reader.size("attention.q_lora_rank", 0) or None
        return LatentAttention(heads, rank, rope, max(0, whole - rope), latent_value, queries)
    key = reader.size("attention.key_length", each)
    value = reader.size("attention.value_length", each)
    window = reader.size("attention.sliding_window", 0)
    if window and reader.windowed(index):
        return SlidingAttention(heads, kv_heads, key, value, window)
    return FullAttention(heads, kv_heads, key, value)


def _recurrence(reader: _Keys, index: int, hidden: int, names: set[str]) -> Recurrence:
    """Return the state of a sequence as llama.cpp keeps it, in float32 (``llama-hparams.cpp``)."""
    if any(name.startswith("time_mix") for name in names):
        shifted = reader.size("token_shift_count", 2) * hidden
        return Recurrence(hidden * reader.size("wkv.head_size"), shifted, 4, 4, "rwkv")
    if any(name.startswith("shortconv") for name in names):
        kernel = reader.size("shortconv.l_cache")
        return Recurrence(0, max(0, kernel - 1) * hidden, 4, 4, "short_conv")
    taps = max(0, reader.size("ssm.conv_kernel") - 1)
    if "ssm_conv1d_q" in names:
        size, heads = reader.size("kda.head_dim"), reader.at("attention.head_count", index)
        return Recurrence(heads * size * size, 3 * taps * heads * size, 4, 4, "kimi_delta")
    inner, state = reader.size("ssm.inner_size"), reader.size("ssm.state_size")
    groups = reader.size("ssm.group_count", 0)
    family = "mamba2" if groups else "mamba"
    if names & {"ssm_ba", "ssm_beta", "ssm_alpha"}:
        family = "gated_delta_net"
    return Recurrence(state * inner, taps * (inner + 2 * groups * state), 4, 4, family)


def _tensor(stored: StoredTensor) -> Tensor:
    found = _BLOCK.match(stored.name)
    part = Part.LAYER if found else _part_outside(stored.name)
    split = Split.SHARDED
    if len(stored.shape) < 2 or "norm" in stored.name or "gate_inp" in stored.name:
        split = Split.WHOLE
    elif part in (Part.EMBEDDING, Part.HEAD):
        split = Split.VOCABULARY
    return Tensor(
        stored.name,
        stored.elements,
        stored.bytes,
        split,
        part,
        layer=int(found[1]) if found else None,
        rows=stored.shape[0] if split is Split.VOCABULARY else 0,
        expert="_exps" in stored.name,
    )


def _part_outside(name: str) -> Part:
    if name.startswith("token_embd"):
        return Part.EMBEDDING
    return Part.HEAD if name.startswith("output.") else Part.FINAL


def _quantisation(file: GgufFile) -> Quantisation | None:
    """Return the mixture by the header's own word; None for plain 16 and 32 bit files."""
    if file.file_type in (None, "F32", "F16", "BF16"):
        return None
    elements = sum(tensor.elements for tensor in file.stored())
    return Quantisation("gguf", round(file.tensor_bytes * 8 / max(1, elements), 2))


class _Keys:
    """The architecture's own keys of a header, checked as they are asked for."""

    def __init__(self, file: GgufFile) -> None:
        self._file = file

    def size(self, key: str, default: int | None = None, *, most: int = _MOST_SIZE) -> int:
        """Return one figure; the largest where the file has one a layer."""
        found = self._file.get(key)
        if isinstance(found, tuple | list):
            found = max((value for value in found if isinstance(value, int | float)), default=None)
        return self._checked(key, found, default, most)

    def at(self, key: str, index: int, default: int | None = None) -> int:
        """Return a layer's figure, where the file may have one for all or one a layer."""
        found = self._file.get(key)
        if isinstance(found, tuple | list):
            found = found[index] if index < len(found) else None
        return self._checked(key, found, default, _MOST_SIZE)

    def windowed(self, index: int) -> bool:
        """Return whether a layer of a model with a window has it."""
        pattern = self._file.get("attention.sliding_window_pattern")
        if isinstance(pattern, tuple | list):
            return index < len(pattern) and bool(pattern[index])
        known = _WINDOW_PATTERNS.get(self._file.architecture or "")
        every = pattern if isinstance(pattern, int) and not isinstance(pattern, bool) else known
        return bool(every) and (index + 1) % int(every or 1) != 0

    def _checked(self, key: str, found: object, default: int | None, most: int) -> int:
        if found is None and default is not None:
            return default
        if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found <= most:
            architecture = self._file.architecture or "the architecture"
            said = "is not there" if found is None else f"is {found!r}"
            raise ConfigError(
                f"{self._file.paths[0]}: {architecture}.{key} {said}, so its layers are unknown",
                hint="The file may be broken or of a kind that is too new; fetch it again.",
                file=str(self._file.paths[0]),
                key=key,
            )
        return found
