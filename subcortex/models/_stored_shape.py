"""A config's shape with the bytes that safetensors headers tell: each stored tensor where vLLM puts it. Pure.

Where the headers hold just the weights that the config promises, in 16 bits or more, the config's tensors are
exact already. Otherwise each stored tensor is placed by its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import prod

from subcortex.models._vision import TOWER
from subcortex.models.safetensors import DTYPE_BITS
from subcortex.models.shape import (
    Doubt,
    FullAttention,
    LatentAttention,
    ModelShape,
    Part,
    SlidingAttention,
    Split,
    Tensor,
    doubt_of,
    total_bytes,
)
from subcortex.models.stored import StoredTensor

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks?|layer)\.(\d{1,6})\.(.+)$")
_EXPERT = re.compile(r"\bexperts\.\d{1,6}\.")
_TOWER = re.compile(r"vision|visual|audio|image|multi_modal|mm_projector|embed_vision|^merger")
#: Not weights: masks, frequencies and statistics that loaders pass over.
_PASSED_OVER = re.compile(
    r"rotary_emb\.inv_freq$|\.masked_bias$|\.attn\.bias$|\.attention\.bias$|weight_shape$|\.quant_state\."
)
_SCALE = re.compile(r"(?:scales?|scale_inv|scale_2|qzeros|zero_point|g_idx|absmax|quant_map|_scales|SCB)$")
_FLOAT32 = re.compile(r"A_log$|e_score_correction_bias$|expert_bias$")
_EMBEDDING = re.compile(r"(?:embed_tokens|wte|word_embeddings|embed_in|tok_embeddings|embeddings)\.weight$")
_WHOLE = re.compile(
    r"norm|ln_\d|ln_f|ln_attn|ln_mlp|_a_proj|kv_a_proj_with_mqa|shared_expert_gate|router"
    r"|(?:^|\.)gate\.|position"
)
_ROW = re.compile(
    r"(?:^|\.)(?:o_proj|out_proj|down_proj|dense|c_proj|fc2|w2|wo|dense_4h_to_h|output_linear|x_proj)(?:\.|$|_)"
)
_KV = re.compile(r"(?:^|\.)(?:k_proj|v_proj|wk|wv)(?:\.|$)")
_FUSED = re.compile(r"(?:^|\.)(?:qkv_proj|Wqkv|wqkv|query_key_value|c_attn|qkv)(?:\.|$)")
_FEW_BITS = ("I32", "U32", "U8", "I8", "F4")
_WIDE = ("F32", "F64")
#: Of the bytes that the config promises; fewer are not the whole model.
_LEAST_SHARE = 0.9


def with_stored(shape: ModelShape, stored: Iterable[StoredTensor]) -> ModelShape:
    """Return the shape with the bytes of stored tensors.

    Where they are clearly not the whole model (a download in part, other weights than the config's), the
    config's shape stays, with a note.

    Args:
        shape: What the config says.
        stored: All tensors of the checkpoint.
    """
    told = tuple(stored)
    kept = [one for one in told if not _PASSED_OVER.search(one.name) and not _beyond(one.name, shape)]
    kept = [one for one in kept if not (shape.tied and one.name.endswith("lm_head.weight"))]
    file_bytes = sum(one.bytes for one in told)
    tower = sum(one.elements for one in kept if _is_tower(one.name))
    wide = all(DTYPE_BITS.get(one.dtype, 0) >= 16 and one.dtype not in _FEW_BITS for one in kept)
    elements = sum(one.elements for one in kept)
    expected = sum(t.elements * t.count for t in shape.tensors if not t.name.startswith(TOWER))
    if wide and elements - tower == expected and shape.quantisation is None:
        tensors = _with_tower(shape.tensors, tower)
    elif note := _in_part(kept, shape):
        return replace(shape, notes=(*shape.notes, note))
    else:
        tensors = (*_placed(kept, shape), *(t for t in shape.tensors if not t.elements and _own(t)))
    return replace(
        shape,
        tensors=tensors,
        source="safetensors",
        file_bytes=file_bytes,
        exact=True,
        notes=tuple(
            note for note in shape.notes if not doubt_of(note) & (Doubt.ESTIMATED | Doubt.UNFAMILIAR)
        ),
    )


def _in_part(kept: Iterable[StoredTensor], shape: ModelShape) -> str | None:
    """Return what to say if these tensors are not the whole model, None if they are."""
    model = [one for one in kept if not _is_tower(one.name)]
    if Doubt.UNFAMILIAR in shape.doubts:
        # What the config promises is a guess; that each layer is there is not.
        there = {int(found[1]) for one in model if (found := _LAYER.search(one.name))}
        missing = set(range(len(shape.layers))) - there
        if not there or not missing:
            return None
        return (
            f"Its safetensors hold {len(there)} of {len(shape.layers)} layers: the config's figures are used."
        )
    held = sum(_held(one, shape) for one in model)
    promised = total_bytes(
        t for t in shape.tensors if not t.name.startswith(TOWER) and (t.elements or not _own(t))
    )
    if held >= _LEAST_SHARE * promised:
        return None
    return (
        f"Its safetensors hold {held / 2**20:.0f} of the {promised / 2**20:.0f} MiB that the config promises:"
        " the config's figures are used."
    )


def _own(tensor: Tensor) -> bool:
    """Tell whether the engine makes the tensor itself: rotary tables and copies, not scales."""
    return tensor.name.startswith("rotary") or tensor.name.endswith("absorbed")


def _beyond(name: str, shape: ModelShape) -> bool:
    """Tell whether a tensor belongs to a layer after the last: multi-token prediction."""
    found = _LAYER.search(name)
    return bool(found) and not _is_tower(name) and int(found[1]) >= len(shape.layers) if found else False


def _is_tower(name: str) -> bool:
    return bool(_TOWER.search(name))


def _with_tower(tensors: tuple[Tensor, ...], elements: int) -> tuple[Tensor, ...]:
    """Return them with what is stored of towers, shared out as it was estimated."""
    estimated = max(1, sum(tensor.elements for tensor in tensors if tensor.name.startswith(TOWER)))
    found = []
    for tensor in tensors:
        share = tensor.elements * elements // estimated
        found.append(
            replace(tensor, elements=share, bytes=2.0 * share) if tensor.name.startswith(TOWER) else tensor
        )
    return tuple(found)


@dataclass(slots=True)
class _Sum:
    elements: int = 0
    bytes: float = 0.0
    count: int = 0


def _placed(stored: Iterable[StoredTensor], shape: ModelShape) -> Iterator[Tensor]:
    """Yield stored tensors as the engine holds them, a layer's experts together."""
    experts: dict[tuple[int, str], _Sum] = {}
    for one in stored:
        found = None if _is_tower(one.name) else _LAYER.search(one.name)
        if found and _EXPERT.search(one.name):
            name = _EXPERT.sub("experts.", found[2])
            kept = experts.setdefault((int(found[1]), name), _Sum())
            kept.elements += _weights(one, shape)
            kept.bytes += _held(one, shape)
            kept.count += 1
        elif found:
            yield from _in_layer(one, int(found[1]), found[2], shape)
        else:
            yield _outside(one, shape)
    units = _units(shape)
    for (layer, name), kept in experts.items():
        split = Split.WHOLE if _whole(name, (1,), shape) else Split.SHARDED
        yield Tensor(
            name,
            kept.elements // kept.count,
            kept.bytes / kept.count,
            split,
            layer=layer,
            count=kept.count,
            expert=True,
            units=units if split is Split.SHARDED else 0,
        )


def _in_layer(one: StoredTensor, layer: int, name: str, shape: ModelShape) -> Iterator[Tensor]:
    elements, held = _weights(one, shape), _held(one, shape)
    if "experts" in name and len(one.shape) > 1 and one.shape[0] > 1 and "shared" not in name:
        # Experts stacked in one tensor.
        count = one.shape[0]
        split = Split.WHOLE if name.endswith("bias") and _ROW.search(name) else Split.SHARDED
        units = _units(shape) if split is Split.SHARDED else 0
        yield Tensor(
            name, elements // count, held / count, split, layer=layer, count=count, expert=True, units=units
        )
        return
    if _whole(name, one.shape, shape):
        yield Tensor(name, elements, held, Split.WHOLE, layer=layer)
        return
    heads = _heads(shape, layer)
    if _KV.search(name) and heads:
        yield Tensor(name, elements, held, Split.KV_HEADS, layer=layer, heads=heads[1])
    elif _FUSED.search(name) and heads:
        share = 2 * heads[1] / (heads[0] + 2 * heads[1])
        keys = round(elements * share)
        yield Tensor(name, elements - keys, held * (1 - share), Split.SHARDED, layer=layer)
        yield Tensor(f"{name}.kv", keys, held * share, Split.KV_HEADS, layer=layer, heads=heads[1])
    else:
        yield Tensor(name, elements, held, Split.SHARDED, layer=layer)


def _outside(one: StoredTensor, shape: ModelShape) -> Tensor:
    elements, held, rows = _weights(one, shape), _held(one, shape), one.shape[0] if one.shape else 1
    if _is_tower(one.name):
        return Tensor(one.name, elements, held, Split.SHARDED, Part.EMBEDDING)
    if _EMBEDDING.search(one.name):
        return Tensor(one.name, elements, held, Split.VOCABULARY, Part.EMBEDDING, rows=rows)
    if "lm_head" in one.name or "embed_out" in one.name or one.name.startswith("output."):
        return Tensor(one.name, elements, held, Split.VOCABULARY, Part.HEAD, rows=rows)
    part = Part.EMBEDDING if "embed" in one.name or "wpe" in one.name else Part.FINAL
    return Tensor(one.name, elements, held, Split.WHOLE, part)


def _whole(name: str, sizes: tuple[int, ...], shape: ModelShape) -> bool:
    """Tell whether every rank has all of a tensor."""
    if _WHOLE.search(name):
        return True
    row = bool(_ROW.search(name))
    if name.endswith("g_idx"):
        return not row
    if not row:
        return False
    act_order = shape.quantisation is not None and shape.quantisation.act_order
    # A row-parallel layer's bias, a scale an output, and all scales under activation order.
    a_channel = len(sizes) == 1 or (len(sizes) == 2 and sizes[1] == 1)
    return name.endswith("bias") or bool(_SCALE.search(name) and (act_order or a_channel))


def _heads(shape: ModelShape, layer: int) -> tuple[int, int] | None:
    """Return a layer's query and key/value heads; None without either."""
    if layer >= len(shape.layers):
        return None
    for kept in shape.layers[layer].attention:
        if isinstance(kept, FullAttention | SlidingAttention):
            return kept.heads, kept.kv_heads
        if isinstance(kept, LatentAttention):
            return None
    return None


def _units(shape: ModelShape) -> int:
    return next((tensor.units for tensor in shape.tensors if tensor.expert and tensor.units), 0)


def _weights(one: StoredTensor, shape: ModelShape) -> int:
    """Return how many weights a stored tensor holds; scales and the like hold none."""
    if _SCALE.search(one.name):
        return 0
    if one.dtype in _FEW_BITS and shape.quantisation is not None:
        bits = 4 if shape.quantisation.bits == 4.25 else shape.quantisation.bits
        return int(8 * one.bytes / max(1, bits))
    return prod(one.shape)


def _held(one: StoredTensor, shape: ModelShape) -> float:
    """Return the bytes that the engine holds: float32 weights become 16 bits, AWQ zeros are unpacked."""
    method = shape.quantisation
    if method is not None and method.method == "awq" and one.name.endswith("qzeros"):
        return one.bytes * (1.0 if ".experts." in one.name else 16 / method.bits)
    if one.dtype in _WIDE and not _SCALE.search(one.name) and not _FLOAT32.search(one.name):
        return one.elements * shape.dtype_bytes
    return float(one.bytes)
