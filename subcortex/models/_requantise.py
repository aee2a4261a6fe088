"""The same model stored otherwise: in FP8, AWQ, GPTQ, 16 bits or a mixture of llama.cpp. Pure.

Good to about a per cent: which layers a maker leaves plain is his choice, and a shape keeps no row lengths.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from subcortex.errors import InvalidRequest
from subcortex.models._vision import TOWER
from subcortex.models.gguf_types import BY_NAME
from subcortex.models.mixtures import MIXTURES, mixture_types
from subcortex.models.shape import (
    Doubt,
    LatentAttention,
    Layer,
    ModelShape,
    Part,
    Quantisation,
    Recurrence,
    Split,
    Tensor,
    doubt_of,
)
from subcortex.models.stored import StoredTensor

#: What no maker quantises, whatever its size, and what is no matrix.
_PLAIN_NAME = re.compile(
    r"norm|router|gate_inp|conv|bias|sinks|adapters|linear$|shared_expert_gate|absorbed|rotary|ssm_a$|ssm_d$"
)
#: A smaller tensor is no matrix of a layer.
_LEAST_ELEMENTS = 2**15
_EXTRA_FORMS = ("bf16", "fp16", "none")
#: Names that are GGUF's already.
_GGUF_OWN = re.compile(r"blk\.\d+\.|token_embd|output|rope_freqs")


@dataclass(frozen=True, slots=True)
class _Form:
    quantisation: Quantisation
    bytes_per_weight: float


#: Methods of vLLM: weights, and scales and zero points of a group of 128.
_FORMS = {
    "fp8": _Form(Quantisation("fp8", 8, block=(128, 128)), 1 + 4 / 128**2),
    "awq": _Form(Quantisation("awq", 4, 128), 0.5 + (2 + 2) / 128),
    "gptq": _Form(Quantisation("gptq", 4, 128), 0.5 + (2 + 0.5) / 128),
    "int8": _Form(Quantisation("compressed-tensors", 8), 1 + 4 / 4096),
    "w4a16": _Form(Quantisation("compressed-tensors", 4, 128), 0.5 + 2 / 128),
    "nvfp4": _Form(Quantisation("nvfp4", 4, 16), 0.5 + 1 / 16),
}
#: A tensor of a config's shape → GGUF's names for its parts, equal in size.
_GGUF_NAMES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("shared_experts.gate_proj", ("ffn_gate_shexp", "ffn_up_shexp")),
    ("shared_experts.down_proj", ("ffn_down_shexp",)),
    ("experts", ("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")),
    ("kv_b_proj", ("attn_kv_b",)),
    ("kv_a_proj_with_mqa", ("attn_kv_a_mqa",)),
    ("q_a_proj", ("attn_q_a",)),
    ("q_b_proj", ("attn_q_b",)),
    ("q_proj", ("attn_q",)),
    ("k_proj", ("attn_k", "attn_v")),
    ("o_proj", ("attn_output",)),
    ("gate_proj", ("ffn_gate", "ffn_up")),
    ("up_proj", ("ffn_up",)),
    ("down_proj", ("ffn_down",)),
    ("in_proj", ("ssm_in",)),
    ("out_proj", ("ssm_out",)),
)


def requantised(shape: ModelShape, method: str) -> ModelShape:
    """Return a model as it would be in another form.

    Args:
        shape: The model, in any form.
        method: For vLLM ``bf16`` (plain weights), ``fp8``, ``awq``, ``gptq``, ``int8``, ``w4a16`` or
            ``nvfp4``; for llama.cpp a mixture as llama-quantize spells it, e.g. ``Q4_K_M``.

    Raises:
        InvalidRequest: No such method is known.
    """
    if method in MIXTURES:
        return _mixed(shape, method)
    if method in _EXTRA_FORMS:
        return _written(shape, _stored(shape, None), None)
    form = _FORMS.get(method)
    if form is None:
        raise InvalidRequest(
            f"no way of storing weights is called {method!r}",
            hint=f"Known: {', '.join((*_EXTRA_FORMS, *_FORMS, *MIXTURES))}.",
            param="quantization",
        )
    return _written(shape, _stored(shape, form.bytes_per_weight), form.quantisation)


def is_matrix(tensor: Tensor) -> bool:
    """Tell whether quantisers touch a tensor: a matrix inside a layer, routers and convolutions apart."""
    inside = tensor.part is Part.LAYER and tensor.elements >= _LEAST_ELEMENTS
    return inside and not _PLAIN_NAME.search(tensor.name)


def _written(shape: ModelShape, tensors: Iterable[Tensor], quantisation: Quantisation | None) -> ModelShape:
    return replace(
        shape,
        tensors=tuple(tensors),
        quantisation=quantisation,
        source="written",
        file_bytes=None,
        exact=False,
        notes=tuple(note for note in shape.notes if Doubt.FORM not in doubt_of(note)),
    )


def _stored(shape: ModelShape, bytes_per_weight: float | None) -> Iterator[Tensor]:
    """Yield the tensors with matrices of layers in so many bytes a weight, the rest in 16 bits."""
    plain = shape.dtype_bytes
    latent = any(isinstance(kept, LatentAttention) for kept in shape.attentions)
    for tensor in shape.tensors:
        if is_matrix(tensor):
            yield replace(tensor, bytes=tensor.elements * (bytes_per_weight or plain), units=0)
            if latent and bytes_per_weight and tensor.name.endswith("kv_b_proj"):
                copy = Tensor("self_attn.absorbed", 0, plain * tensor.elements, Split.SHARDED)
                yield replace(copy, layer=tensor.layer)
        elif tensor.elements:
            # A router in float32 stays so; what was stored in fewer bits becomes plain.
            yield replace(tensor, bytes=max(plain * tensor.elements, tensor.bytes))
        elif not _of_old_form(tensor):
            yield tensor


def _of_old_form(tensor: Tensor) -> bool:
    """Tell whether a tensor without weights belongs to the form that is given up: scales, copies."""
    return tensor.layer is not None


def _mixed(shape: ModelShape, name: str) -> ModelShape:
    """Return the model as llama-quantize would write it."""
    held = [tensor for tensor in shape.tensors if tensor.elements and not tensor.name.startswith(TOWER)]
    stored = [(index, one) for index, tensor in enumerate(held) for one in _as_gguf(tensor, shape)]
    types = mixture_types(name, [one for _, one in stored])
    sizes = [0.0] * len(held)
    for index, one in stored:
        kind = BY_NAME[types[one.name]]
        sizes[index] += one.elements * kind.bits_per_weight / 8
    tensors = (
        replace(tensor, bytes=sizes[index] / tensor.count, split=Split.WHOLE, units=0)
        for index, tensor in enumerate(held)
    )
    mixed = _written(shape, tensors, None)
    bits = 8 * mixed.weights_bytes / max(1, mixed.parameters)
    return replace(mixed, quantisation=Quantisation("gguf", round(bits, 3)))


def _as_gguf(tensor: Tensor, shape: ModelShape) -> Iterator[StoredTensor]:
    """Yield a tensor's parts under GGUF's names, with the rows that decide what types they can take."""
    elements = tensor.elements * tensor.count
    where = "" if tensor.layer is None else f"blk.{tensor.layer}."
    if _GGUF_OWN.match(tensor.name):
        names: tuple[str, ...] = (tensor.name.removesuffix(".weight"),)
        where = ""
    else:
        names = _gguf_names(tensor, shape)
    share = elements // len(names)
    layer = None if tensor.layer is None else shape.layers[tensor.layer]
    for name in names:
        row = _row(name, shape, layer)
        rows, biases = divmod(share, row)
        if biases and biases <= rows and is_matrix(tensor):
            # Biases are counted with their matrix, one a row.
            yield StoredTensor(f"{where}{name}.bias", (biases,), "F32", 4 * biases)
        elif biases:
            rows, row = share, 1
        count = layer.experts.count if layer and layer.experts and "_exps" in name else 1
        sizes = (count, rows // count, row) if count > 1 and rows % count == 0 else (rows, row)
        yield StoredTensor(f"{where}{name}.weight", sizes, "F16", 2 * rows * row)


def _gguf_names(tensor: Tensor, shape: ModelShape) -> tuple[str, ...]:
    if tensor.split is Split.VOCABULARY and tensor.elements >= _LEAST_ELEMENTS:
        return ("token_embd",) if tensor.part is Part.EMBEDDING else ("output",)
    if not is_matrix(tensor):
        return (f"{tensor.name}_norm",)
    found = next((parts for end, parts in _GGUF_NAMES if tensor.name.endswith(end)), (tensor.name,))
    gated = all(layer.gated for layer in shape.layers if layer.experts)
    return found if gated or not tensor.name.endswith(".experts") else found[1:]


def _row(name: str, shape: ModelShape, layer: Layer | None) -> int:
    """Return the length of a tensor's rows: its inputs."""
    if layer is None:
        return shape.hidden
    experts = layer.experts
    if "ffn_down_exps" in name and experts:
        return experts.intermediate
    if "ffn_down_shexp" in name and experts:
        return experts.shared_intermediate or shape.hidden
    if "ffn_down" in name:
        return layer.intermediate or shape.hidden
    for kept in layer.attention:
        if isinstance(kept, LatentAttention):
            rows = {"attn_kv_b": kept.kv_lora_rank, "attn_q_b": kept.q_lora_rank or shape.hidden}
            rows["attn_output"] = kept.heads * kept.value_dim
            return next((row for part, row in rows.items() if part in name), shape.hidden)
        if "attn_output" in name and not isinstance(kept, Recurrence):
            return kept.heads * kept.value_dim
    return shape.hidden
