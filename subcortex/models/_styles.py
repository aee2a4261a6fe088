"""How families of plain transformers differ from Llama: a table of facts. Pure.

The facts are those of vLLM 0.26 ``model_executor/models`` and the defaults of its configuration classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from subcortex.models._blocks import FLOAT32, PLAIN

#: A bias is there, is not, or a key of the config says.
Bias = bool | str


@dataclass(frozen=True, slots=True)
class Style:
    """How a family differs from Llama.

    Args:
        norms: Norms a layer, as wide as the model.
        norm_bias: They have biases, as the last one has.
        final_norm: There is a last norm with weights.
        bias, out_bias, mlp_bias: Of the attention's first and last projections, and the feed-forward part.
        qk_norm: See `GroupedQuery.qk_norm`; a key of the config may ask for it.
        gated: The feed-forward part has a gate.
        tied: The head is the embedding unless the config says.
        window: Windowed layers where the config does not list them: ``all``, or a pattern.
        pattern: Every so many layers one sees everything.
        head_dim: Default elements a head; 0: width over heads.
        partial: Share of them that is rotated; 0 without rotary embedding.
        table: vLLM keeps a rotary table; not where it runs the model of transformers.
        positions: Learned positions, and how many more of them than the context.
        head_bias: The head has a bias.
        module: What the layer calls its mixture.
        router_bytes: Of one of its router's weights.
        correction: Its router has a bias that balances the load.
    """

    norms: int = 2
    norm_bias: bool = False
    final_norm: bool = True
    bias: Bias = "attention_bias"
    out_bias: Bias = "attention_bias"
    mlp_bias: Bias = "mlp_bias"
    qk_norm: Literal["", "head", "full", "shared"] = ""
    qk_norm_key: str = ""
    gated: bool = True
    tied: bool = False
    window: Literal["all", "even", "last"] = "all"
    pattern: int = 0
    window_default: int = 0
    head_dim: int = 0
    kv_heads: int = 0
    partial: float = 1.0
    table: bool = True
    positions: int | None = None
    head_bias: bool = False
    module: str = "mlp"
    router_bytes: int = PLAIN
    correction: bool = False
    path: str = "model.layers"


LLAMA = Style()
_BIASED = Style(norm_bias=True, gated=False, tied=True, partial=0, bias=True, out_bias=True, mlp_bias=True)
_QWEN = Style(bias=True, out_bias=False)
_QWEN3 = Style(out_bias=False, qk_norm="head")
_GLM = Style(out_bias=False, mlp_bias=False, partial=0.5)
_GLM4 = Style(norms=4, out_bias=False, mlp_bias=False, partial=0.5)
_GEMMA = Style(tied=True, head_dim=256)
_OLMO2 = Style(qk_norm="full", table=False)
_COHERE = Style(norms=1, tied=True, qk_norm="full", qk_norm_key="use_qk_norm")

STYLES: dict[str, Style] = {
    "llama": LLAMA,
    "mistral": Style(window_default=4096, kv_heads=8),
    "ministral": Style(window="all"),
    "mixtral": Style(kv_heads=8, module="block_sparse_moe"),
    "qwen2": _QWEN,
    "qwen2_moe": Style(bias="qkv_bias", out_bias=False),
    "qwen3": _QWEN3,
    "qwen3_moe": _QWEN3,
    # Language models inside multimodal configs, by the names that those give them.
    **dict.fromkeys(("qwen2_vl", "qwen2_vl_text", "qwen2_5_vl", "qwen2_5_vl_text"), _QWEN),
    "qwen2_5_omni_text": _QWEN,
    **dict.fromkeys(("qwen3_vl_text", "qwen3_vl_moe_text", "qwen3_omni_moe_text"), _QWEN3),
    "qwen": Style(bias=True, out_bias=False, mlp_bias=False, path="transformer.h"),
    "gemma": _GEMMA,
    "gemma2": Style(norms=4, tied=True, head_dim=256, window="even", pattern=2, window_default=4096),
    "gemma3_text": Style(
        norms=4, qk_norm="head", tied=True, head_dim=256, window="last", pattern=6, window_default=4096
    ),
    "phi": replace(_BIASED, norms=1, tied=False, partial=0.5, head_bias=True),
    **dict.fromkeys(("phi3", "phi3_v"), Style(bias=False, out_bias=False)),
    "phimoe": Style(norm_bias=True, module="block_sparse_moe"),
    "gpt_oss": Style(window="even", pattern=2, window_default=128, head_dim=64),
    "glm": _GLM,
    "glm4": _GLM4,
    "glm4v_text": _GLM4,
    "deepseek": Style(mlp_bias=False),
    "dbrx": Style(bias=False, out_bias=False, module="ffn", path="transformer.blocks"),
    "phi3small": Style(norm_bias=True, bias=True, out_bias=True, mlp_bias=True, tied=True),
    "glm4_moe": Style(
        out_bias=False,
        mlp_bias=False,
        partial=0.5,
        qk_norm="head",
        qk_norm_key="use_qk_norm",
        router_bytes=FLOAT32,
        correction=True,
    ),
    "chatglm": Style(
        bias="add_qkv_bias", out_bias="add_bias_linear", mlp_bias="add_bias_linear", partial=0.5
    ),
    "cohere": _COHERE,
    "cohere2": Style(
        norms=1, tied=True, qk_norm="full", qk_norm_key="use_qk_norm", window="last", pattern=4
    ),
    "olmo": Style(norms=0, final_norm=False, table=False),
    "olmo2": _OLMO2,
    "olmo3": Style(qk_norm="full", window="last", pattern=4, window_default=4096),
    "olmoe": Style(qk_norm="full"),
    "starcoder2": Style(
        norm_bias=True, bias="use_bias", out_bias="use_bias", mlp_bias="use_bias", gated=False, tied=True,
        table=False,
    ),
    "granite": LLAMA,
    "granitemoe": Style(module="block_sparse_moe"),
    "stablelm": Style(norm_bias=True, bias="use_qkv_bias", out_bias=False, mlp_bias=False, partial=0.25),
    "nemotron": Style(norm_bias=True, gated=False, partial=0.5),
    "arcee": Style(gated=False),
    "apertus": Style(gated=False, qk_norm="head"),
    "smollm3": Style(tied=True),
    "seed_oss": Style(bias=True, out_bias=False),
    "exaone4": Style(qk_norm="head", window="last", pattern=4, window_default=4096),
    "exaone": Style(bias=False, out_bias=False),
    "hunyuan_v1_dense": Style(qk_norm="head", qk_norm_key="use_qk_norm"),
    "ernie4_5": Style(bias="use_bias", out_bias="use_bias", mlp_bias="use_bias", tied=True),
    "ernie4_5_moe": Style(
        bias="use_bias", out_bias=False, mlp_bias="use_bias", tied=True, router_bytes=FLOAT32, correction=True
    ),
    "internlm2": Style(bias=False, out_bias=False, mlp_bias=False),
    "internlm3": Style(bias="qkv_bias", out_bias="bias", mlp_bias="bias"),
    "minimax_m2": Style(
        out_bias=False, qk_norm="shared", router_bytes=FLOAT32, correction=True, module="block_sparse_moe"
    ),
    "minicpm": LLAMA,
    "bailing_moe": Style(bias="use_qkv_bias", out_bias="use_bias", qk_norm="head", qk_norm_key="use_qk_norm"),
    "gpt2": replace(_BIASED, positions=0, path="transformer.h"),
    "gpt_bigcode": replace(_BIASED, positions=0, path="transformer.h"),
    "opt": Style(
        norm_bias=True, gated=False, tied=True, partial=0, positions=2, path="model.decoder.layers",
        bias="enable_bias", out_bias="enable_bias", mlp_bias="enable_bias",
    ),
    "gpt_neox": Style(norm_bias=True, gated=False, partial=0.25, mlp_bias=True, path="gpt_neox.layers"),
    "gptj": Style(
        norms=1, norm_bias=True, gated=False, bias=False, out_bias=False, mlp_bias=True, head_bias=True,
        path="transformer.h",
    ),
    "codegen": Style(
        norms=1, norm_bias=True, gated=False, bias=False, out_bias=False, mlp_bias=True, head_bias=True,
        path="transformer.h",
    ),
    # MPT without biases, as all of them are; positions by slopes.
    "mpt": Style(gated=False, tied=True, partial=0, path="transformer.blocks"),
    "bloom": replace(_BIASED, path="transformer.h"),
    "falcon": Style(
        norm_bias=True, gated=False, tied=True, bias="bias", out_bias="bias", mlp_bias="bias",
        path="transformer.h",
    ),
}  # fmt: skip
#: Biases that are there unless the config says otherwise.
BIAS_DEFAULTS = {
    ("qwen2_moe", "qkv_bias"),
    ("starcoder2", "use_bias"),
    ("opt", "enable_bias"),
    ("gpt_neox", "attention_bias"),
    ("gpt_oss", "attention_bias"),
    ("glm", "attention_bias"),
    ("glm4", "attention_bias"),
    ("glm4v_text", "attention_bias"),
    ("internlm3", "qkv_bias"),
}
