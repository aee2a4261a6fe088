"""What llama-quantize makes of a model: which type each tensor gets, and so the size of a file not yet made.

The rules are those of llama.cpp's ``src/llama-quant.cpp`` (2025 and 2026; Falcon's own are left out), told
here as facts: ``Q4_K_M`` is no type but a mixture, whose output, half of ``attn_v`` and half of ``ffn_down``
are Q6_K. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from subcortex.errors import InvalidRequest
from subcortex.models.gguf_types import BY_NAME
from subcortex.models.stored import StoredTensor

#: Mixture → average bits per weight, where only the number of weights is known. Measured on Llama 3.1 8B
#: (8.03e9 weights): the table in llama.cpp's ``tools/quantize/README.md``, except those marked †, which are
#: bartowski's published files of Meta-Llama-3.1-8B-Instruct (bytes × 8 / weights).
MIXTURES: dict[str, float] = {
    "IQ1_S": 2.0042,
    "IQ1_M": 2.1460,
    "IQ2_XXS": 2.3824,
    "IQ2_XS": 2.5882,
    "IQ2_S": 2.7403,
    "IQ2_M": 2.9294,
    "IQ3_XXS": 3.2548,
    "IQ3_XS": 3.4977,
    "IQ3_S": 3.6606,
    "IQ3_M": 3.7628,
    "IQ4_XS": 4.4597,
    "IQ4_NL": 4.6818,
    "Q2_K_S": 2.9697,
    "Q2_K": 3.1593,
    "Q3_K_S": 3.6429,
    "Q3_K_M": 4.00,  # †
    "Q3_K_L": 4.2979,
    "Q4_0": 4.65,  # †
    "Q4_K_S": 4.6672,
    "Q4_K_M": 4.8944,
    "Q5_0": 5.58,  # Q5_K_S's size within 0.2 %: 5.5 bits, and Q6_K for the output
    "Q5_K_S": 5.5704,
    "Q5_K_M": 5.7036,
    "Q6_K": 6.5633,
    "Q8_0": 8.5008,
    "F16": 16.0005,
    "BF16": 16.0005,
    "F32": 32.0,
}

#: Mixture → the type of every tensor for which no rule says otherwise.
_BASE = {
    **{name: name for name in ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q6_K", "Q1_0")},
    **{
        name: name for name in ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS")
    },
    **{name: name for name in ("TQ1_0", "TQ2_0", "Q2_K")},
    "Q2_K_S": "Q2_K",
    "Q3_K_S": "Q3_K",
    "Q3_K_M": "Q3_K",
    "Q3_K_L": "Q3_K",
    "Q4_K_S": "Q4_K",
    "Q4_K_M": "Q4_K",
    "Q5_K_S": "Q5_K",
    "Q5_K_M": "Q5_K",
    "IQ2_S": "IQ2_XS",
    "IQ2_M": "IQ2_S",
    "IQ3_XS": "IQ3_S",
    "IQ3_M": "IQ3_S",
    "MXFP4_MOE": "MXFP4",
}
#: What a tensor gets instead whose rows are no multiple of 256.
_FALLBACK = {
    **dict.fromkeys(("Q2_K", "Q3_K", "TQ1_0", "TQ2_0"), "Q4_0"),
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"),
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}
_NEVER = re.compile(
    r"_norm\.weight$|ffn_gate_inp\.weight$|altup|laurel|per_layer_model_proj|^position_embd|^token_types"
    r"|ssm_conv1d|shortconv\.conv|time_mix_(?:first|w[012]|v[012]|a[012]|g[12]|decay_w[12]|lerp_fused)\.weight"
    r"|attn_rel_b\.weight"
)
_LAYER = re.compile(r"^blk\.(\d+)\.")
_LOW = {"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M"}
_LOW_S = {"IQ2_S", "IQ2_M"}
_FFN = ("ffn_down", "ffn_up", "ffn_gate")


@dataclass(frozen=True, slots=True)
class _Model:
    """What the rules ask of a model."""

    layers: int
    attention_layers: int
    gqa: float
    experts: int
    tied: bool
    importance_matrix: bool

    @property
    def eight_experts(self) -> bool:
        return self.experts == 8

    @property
    def seventy_billion(self) -> bool:
        return self.layers == 80 and self.gqa > 1 and not self.experts


def mixture_types(
    name: str, tensors: Iterable[StoredTensor], *, importance_matrix: bool = True
) -> dict[str, str]:
    """Return the ggml type that llama-quantize gives each tensor.

    Args:
        name: The mixture as llama-quantize spells it, e.g. ``Q4_K_M``.
        tensors: All tensors of the model under GGUF's names; their present dtypes do not matter.
        importance_matrix: Made with one, as most published files are; moves a few ``ffn_down`` of the
            ``Q4_0``, ``Q5_0``, ``IQ3_XXS``, ``IQ4_NL`` and ``IQ4_XS`` mixtures.

    Raises:
        InvalidRequest: No such mixture is known.
    """
    if name not in _BASE:
        raise InvalidRequest(
            f"no mixture of llama.cpp is called {name!r}",
            hint=f"Known: {', '.join(sorted(_BASE))}.",
            param="quantization",
        )
    ordered = sorted(tensors, key=lambda tensor: (_layer(tensor.name), tensor.name))
    model = _facts(ordered, importance_matrix=importance_matrix)
    seen = {"attn_v": 0, "ffn_down": 0}
    types: dict[str, str] = {}
    for tensor in ordered:
        if not _may_shrink(tensor):
            types[tensor.name] = "F32"
            continue
        role = _role(tensor.name)
        chosen = _choose(name, role, tensor, model, seen)
        if role in seen:
            seen[role] += 1
        types[tensor.name] = _fitting(chosen, tensor.shape[-1])
    return types


def mixture_bytes(name: str, tensors: Sequence[StoredTensor], *, importance_matrix: bool = True) -> int:
    """Return the bytes of all tensors of a model as llama-quantize would write them.

    The file is a little larger: the vocabulary and the metadata, some 8 MB at 128,000 tokens.

    Args:
        name: The mixture, see `mixture_types`.
        tensors: All tensors of the model under GGUF's names.
        importance_matrix: See `mixture_types`.

    Raises:
        InvalidRequest: No such mixture is known.
    """
    types = mixture_types(name, tensors, importance_matrix=importance_matrix)
    return sum(BY_NAME[types[tensor.name]].tensor_bytes(tensor.shape) for tensor in tensors)


def _layer(name: str) -> int:
    found = _LAYER.match(name)
    return int(found[1]) if found else -1


def _facts(tensors: Sequence[StoredTensor], *, importance_matrix: bool) -> _Model:
    rows = {tensor.name: tensor.shape[0] for tensor in tensors if tensor.shape}
    queries = next((count for name, count in rows.items() if name.endswith("attn_q.weight")), 1)
    keys = next((count for name, count in rows.items() if name.endswith("attn_k.weight")), queries)
    return _Model(
        layers=1 + max((_layer(name) for name in rows), default=-1),
        attention_layers=sum(_role(name) in ("attn_v", "attn_qkv") for name in rows),
        gqa=queries / max(keys, 1),
        experts=next((count for name, count in rows.items() if "_exps.weight" in name), 0),
        tied="output.weight" not in rows,
        importance_matrix=importance_matrix,
    )


def _may_shrink(tensor: StoredTensor) -> bool:
    """Return whether llama-quantize touches it; the others are small and F32 since the conversion."""
    dimensions = len([size for size in tensor.shape if size > 1])
    return tensor.name.endswith("weight") and dimensions > 1 and not _NEVER.search(tensor.name)


def _role(name: str) -> str:
    if name in ("output.weight", "token_embd.weight"):
        return name.removesuffix(".weight")
    if name == "per_layer_token_embd.weight":
        return "token_embd"
    if "attn_v.weight" in name or "attn_kv_b.weight" in name:
        return "attn_v"
    for role in ("attn_qkv", "attn_k", "attn_q", "attn_output"):
        if f"{role}.weight" in name:
            return role
    return next((role for role in _FFN if role in name), "other")


def _fitting(chosen: str, row: int) -> str:
    if row % BY_NAME[chosen].block_elements == 0:
        return chosen
    other = _FALLBACK.get(chosen, "F16")
    return other if row % BY_NAME[other].block_elements == 0 else "F16"


def _more_bits(index: int, count: int) -> bool:
    """Return whether a layer is of those that get more: the first and last eighth, and each third between."""
    return index < count // 8 or index >= 7 * count // 8 or (index - count // 8) % 3 == 2


def _choose(name: str, role: str, tensor: StoredTensor, model: _Model, seen: dict[str, int]) -> str:
    base = _BASE[name]
    if base in ("F32", "F16", "BF16"):
        return base
    if role == "output" or (model.tied and role == "token_embd"):
        return _output(name, base, tensor.shape[-1])
    if name == "MXFP4_MOE":
        return "MXFP4" if len(tensor.shape) > 2 else "Q8_0"
    if role == "token_embd":
        return _embedding(name, base)
    if name in _LOW:
        return _low(name, role, model, seen) or base
    layer = _layer(tensor.name)
    if role == "attn_v":
        return _attention_value(name, base, model, seen["attn_v"])
    if role == "ffn_down":
        return _down(name, layer, model) or base
    if role == "attn_output":
        return _attention_output(name, model) or base
    if role == "attn_k" and model.eight_experts:
        return "Q8_0"
    if role in ("attn_k", "attn_q"):
        return {"IQ3_XS": "IQ3_XXS", "IQ3_XXS": "IQ2_S"}.get(name, base)
    if role == "attn_qkv":
        named = {"Q4_K_M": "Q5_K", "Q5_K_M": "Q6_K"}
        return named.get(name, "Q4_K" if name in ("Q3_K_M", "Q3_K_L", "IQ3_M") else base)
    middle = model.layers // 8 <= layer < 7 * model.layers // 8
    if role in ("ffn_gate", "ffn_up") and name == "IQ3_XS" and middle:
        return "IQ3_XXS"
    return base


def _output(name: str, base: str, row: int) -> str:
    if name == "MXFP4_MOE" or base == "Q8_0" or row % BY_NAME[base].block_elements:
        return "Q8_0"
    return "Q5_K" if name in _LOW or name == "IQ3_XXS" else "Q6_K"


def _embedding(name: str, base: str) -> str:
    if name in ("IQ2_XXS", "IQ2_XS", "IQ1_S", "IQ1_M"):
        return "Q2_K"
    if name in ("IQ2_S", "IQ2_M", "IQ3_XXS"):
        return "IQ3_S"
    return "Q4_K" if name in ("TQ1_0", "TQ2_0") else base


def _low(name: str, role: str, model: _Model, seen: dict[str, int]) -> str | None:
    """Return the exceptions of the mixtures under three bits."""
    better = "IQ3_S" if name in _LOW_S else "Q2_K"
    if role == "attn_v":
        return "Q4_K" if model.gqa >= 4 or model.experts >= 4 else better
    if role == "attn_k" and model.eight_experts:
        return "Q4_K"
    if role == "ffn_down" and seen["ffn_down"] < model.layers // 8:
        return better
    if role == "attn_output":
        if model.eight_experts:
            return "Q5_K"
        return {"IQ1_S": "IQ2_XXS", "IQ1_M": "IQ2_XXS", "IQ2_S": "IQ3_S", "IQ2_M": "IQ3_S"}.get(name)
    return None


def _attention_value(name: str, base: str, model: _Model, index: int) -> str:
    grouped = model.gqa >= 4
    chosen = base
    if name == "Q2_K":
        chosen = "Q4_K" if grouped else "Q3_K"
    elif name == "IQ3_XXS":
        chosen = "Q4_K" if grouped else "IQ3_XXS" if model.importance_matrix else "IQ3_S"
    elif name in ("Q2_K_S", "IQ3_XS", "IQ3_S"):
        chosen = "Q4_K" if grouped else base
    elif name == "IQ3_M":
        chosen = "Q4_K"
    elif name == "Q3_K_M":
        chosen = "Q5_K" if index < 2 else "Q4_K"
    elif name == "Q3_K_L" or (name in ("IQ4_NL", "IQ4_XS") and grouped):
        chosen = "Q5_K"
    elif name in ("Q4_K_M", "Q5_K_M") and _more_bits(index, model.attention_layers):
        chosen = "Q6_K"
    elif name == "Q4_K_S" and index < 4:
        chosen = "Q5_K"
    if model.seventy_billion and chosen in ("Q3_K", "Q4_K"):
        chosen = "Q5_K"
    return "Q8_0" if model.eight_experts else chosen


def _down(name: str, layer: int, model: _Model) -> str | None:
    first = layer < model.layers // 8
    more = _more_bits(layer, model.layers)
    if name == "Q3_K_M":
        return "Q5_K" if layer < model.layers // 16 else "Q4_K"
    if name == "IQ3_XXS" and not model.importance_matrix:
        return "Q4_K" if first else "Q3_K"
    if name == "IQ3_M":
        return "Q4_K" if first or (model.eight_experts and more) else None
    if name in ("Q4_K_M", "Q5_K_M"):
        return "Q6_K" if more else None
    if name in ("Q4_0", "Q5_0") and model.importance_matrix and first:
        return "Q4_1" if name == "Q4_0" else "Q5_1"
    if name in ("IQ4_NL", "IQ4_XS") and not model.importance_matrix and first:
        return "Q5_K"
    if name in ("Q2_K_S", "Q4_K_S") and first:
        return "Q4_K" if name == "Q2_K_S" else "Q5_K"
    return {"Q2_K": "Q3_K", "Q3_K_L": "Q5_K"}.get(name)


def _attention_output(name: str, model: _Model) -> str | None:
    if model.eight_experts:
        raised = ("Q2_K", "IQ3_XS", "IQ3_XXS", "Q3_K_S", "Q3_K_M", "IQ4_NL", "Q4_K_S", "Q4_K_M", "IQ3_S")
        return "Q5_K" if name in (*raised, "IQ3_M", "IQ4_XS") else None
    return {"Q2_K": "Q3_K", "IQ3_XXS": "IQ3_S", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K", "IQ3_M": "Q4_K"}.get(name)
