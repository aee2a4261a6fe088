"""GGUF headers of small hybrids: attention beside recurrent layers, as each family names its tensors.

Over a hole like `synthetic.py`'s; llama.cpp loads every one of them. Sizes are ggml's, a row's length first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

HIDDEN, WIDE, VOCABULARY, HEADS, HEAD, KV_HEADS = 256, 512, 1024, 4, 64, 2
INNER, STATE, GROUPS, KERNEL, STATE_HEADS, RANK = 512, 64, 2, 4, 8, 16
#: Of the latent attentions: compressed, rotary and value elements.
LATENT, ROPE, VALUE = 128, 32, 32
#: Which of the four layers keep tokens, in the families that mix whole layers.
ATTENTION = (3,)

Sizes = dict[str, tuple[int, ...]]

_QUERIES, _KEYS = HEADS * HEAD, KV_HEADS * HEAD
_PLAIN: Sizes = {
    "attn_q.weight": (HIDDEN, _QUERIES),
    "attn_k.weight": (HIDDEN, _KEYS),
    "attn_v.weight": (HIDDEN, _KEYS),
    "attn_output.weight": (_QUERIES, HIDDEN),
}
_FUSED: Sizes = {
    "attn_qkv.weight": (HIDDEN, _QUERIES + 2 * _KEYS),
    "attn_output.weight": (_QUERIES, HIDDEN),
}
_NORMS: Sizes = {"attn_q_norm.weight": (HEAD,), "attn_k_norm.weight": (HEAD,)}
_FEED: Sizes = {
    "ffn_norm.weight": (HIDDEN,),
    "ffn_gate.weight": (HIDDEN, WIDE),
    "ffn_up.weight": (HIDDEN, WIDE),
    "ffn_down.weight": (WIDE, HIDDEN),
}
_MIXED = INNER + 2 * GROUPS * STATE
_MAMBA: Sizes = {
    "ssm_in.weight": (HIDDEN, 2 * INNER),
    "ssm_conv1d.weight": (KERNEL, INNER),
    "ssm_conv1d.bias": (INNER,),
    "ssm_x.weight": (INNER, RANK + 2 * STATE),
    "ssm_dt_norm.weight": (RANK,),
    "ssm_dt.weight": (RANK, INNER),
    "ssm_dt.bias": (INNER,),
    "ssm_b_norm.weight": (STATE,),
    "ssm_c_norm.weight": (STATE,),
    "ssm_a": (STATE, INNER),
    "ssm_d": (INNER,),
    "ssm_out.weight": (INNER, HIDDEN),
}
#: Some converters leave ".weight" off.
_BARE_FEED: Sizes = {name.replace("norm.weight", "norm"): sizes for name, sizes in _FEED.items()}
_MAMBA2: Sizes = {
    "ssm_in.weight": (HIDDEN, INNER + _MIXED + STATE_HEADS),
    "ssm_conv1d.weight": (KERNEL, _MIXED),
    "ssm_conv1d.bias": (_MIXED,),
    "ssm_dt.bias": (STATE_HEADS,),
    "ssm_a": (1, STATE_HEADS),
    "ssm_d": (1, STATE_HEADS),
    "ssm_norm.weight": (INNER // GROUPS, GROUPS),
    "ssm_out.weight": (INNER, HIDDEN),
}
_DELTA: Sizes = {
    "attn_qkv.weight": (HIDDEN, _MIXED),
    "attn_gate.weight": (HIDDEN, INNER),
    "ssm_conv1d.weight": (KERNEL, _MIXED),
    "ssm_dt.bias": (STATE_HEADS,),
    "ssm_a": (STATE_HEADS,),
    "ssm_norm.weight": (STATE,),
    "ssm_out.weight": (INNER, HIDDEN),
}
_GATED: Sizes = _PLAIN | _NORMS | {"attn_q.weight": (HIDDEN, 2 * _QUERIES)}
_UNNORMED: Sizes = {name: sizes for name, sizes in _FEED.items() if "norm" not in name}
_AFTER: Sizes = {"post_attention_norm.weight": (HIDDEN,)}
_EXPERTS: Sizes = {
    "ffn_gate_inp.weight": (HIDDEN, 4),
    "ffn_gate_exps.weight": (HIDDEN, WIDE, 4),
    "ffn_up_exps.weight": (HIDDEN, WIDE, 4),
    "ffn_down_exps.weight": (WIDE, HIDDEN, 4),
    "ffn_gate_inp_shexp.weight": (HIDDEN,),
    "ffn_gate_shexp.weight": (HIDDEN, WIDE),
    "ffn_up_shexp.weight": (HIDDEN, WIDE),
    "ffn_down_shexp.weight": (WIDE, HIDDEN),
}
_PLAMO_MAMBA: Sizes = {
    "ssm_in.weight": (HIDDEN, 2 * INNER),
    "ssm_conv1d.weight": (KERNEL, INNER),
    "ssm_x.weight": (INNER, 2 * STATE + max(64, HIDDEN // 16)),
    "ssm_dt.weight": (max(64, HIDDEN // 16), STATE_HEADS),
    "ssm_dt.bias": (STATE_HEADS,),
    "ssm_a": (STATE_HEADS,),
    "ssm_d": (STATE_HEADS,),
    "ssm_out.weight": (INNER, HIDDEN),
    "ssm_dt_norm": (max(64, HIDDEN // 16),),
    "ssm_b_norm": (STATE,),
    "ssm_c_norm": (STATE,),
}
_CONVOLUTION: Sizes = {
    "shortconv.conv.weight": (3, HIDDEN),
    "shortconv.in_proj.weight": (HIDDEN, 3 * HIDDEN),
    "shortconv.out_proj.weight": (HIDDEN, HIDDEN),
}
_KIMI_DELTA: Sizes = {
    "attn_q.weight": (HIDDEN, _QUERIES),
    "attn_k.weight": (HIDDEN, _QUERIES),
    "attn_v.weight": (HIDDEN, _QUERIES),
    "attn_output.weight": (_QUERIES, HIDDEN),
    **{f"ssm_conv1d_{part}.weight": (KERNEL, 1, _QUERIES) for part in "qkv"},
    "ssm_f_a.weight": (HIDDEN, HEAD),
    "ssm_f_b.weight": (HEAD, _QUERIES),
    "ssm_beta.weight": (HIDDEN, HEADS),
    "ssm_a": (1, HEADS),
    "ssm_dt.bias": (_QUERIES,),
    "ssm_g_a.weight": (HIDDEN, HEAD),
    "ssm_g_b.weight": (HEAD, _QUERIES),
    "ssm_norm.weight": (HEAD,),
}
_LATENT: Sizes = {
    "attn_kv_a_mqa.weight": (HIDDEN, LATENT + ROPE),
    "attn_kv_a_norm.weight": (LATENT,),
    "attn_output.weight": (HEADS * VALUE, HIDDEN),
}
_ABSORBED: Sizes = _LATENT | {
    "attn_k_b.weight": (HEAD - ROPE, LATENT, HEADS),
    "attn_v_b.weight": (LATENT, VALUE, HEADS),
}
_COMPRESSED: Sizes = {
    "attn_q_a.weight": (HIDDEN, RANK),
    "attn_q_a_norm.weight": (RANK,),
    "attn_q_b.weight": (RANK, _QUERIES),
}
_WHOLE: Sizes = _LATENT | {"attn_kv_b.weight": (LATENT, HEADS * (HEAD - ROPE + VALUE))}
_RWKV: Sizes = {
    "attn_norm.bias": (HIDDEN,),
    "attn_norm_2.weight": (HIDDEN,),
    "attn_norm_2.bias": (HIDDEN,),
    **{f"time_mix_{part}0.weight": (HIDDEN,) for part in "wav"},
    **{f"time_mix_{part}1.weight": (HIDDEN, RANK) for part in "wavg"},
    **{f"time_mix_{part}2.weight": (RANK, HIDDEN) for part in "wavg"},
    "time_mix_lerp_fused.weight": (HIDDEN, 1, 1, 6),
    **{f"time_mix_{part}.weight": (HIDDEN,) for part in ("k_k", "k_a", "r_k", "ln")},
    "time_mix_ln.bias": (HIDDEN,),
    **{f"time_mix_{part}.weight": (HIDDEN, HIDDEN) for part in ("key", "value", "receptance", "output")},
    "channel_mix_lerp_k.weight": (HIDDEN, 1, 1),
    "channel_mix_key.weight": (HIDDEN, WIDE),
    "channel_mix_value.weight": (WIDE, HIDDEN),
}

_SSM = {"conv_kernel": KERNEL, "inner_size": INNER, "state_size": STATE, "time_step_rank": STATE_HEADS}
_KEYS_SSM: dict[str, Any] = {f"ssm.{name}": value for name, value in _SSM.items()}
_GROUPED = _KEYS_SSM | {"ssm.group_count": GROUPS}
_BY_LAYER = {"attention.head_count_kv": [KV_HEADS if index in ATTENTION else 0 for index in range(4)]}
_WIDTHS = {"attention.key_length": HEAD, "attention.value_length": HEAD, "rope.dimension_count": HEAD}
_MIXTURE = {"expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": WIDE}
_MLA = {
    "attention.head_count_kv": 1,
    "attention.kv_lora_rank": LATENT,
    "attention.key_length": LATENT + ROPE,
    "attention.value_length": LATENT,
    "attention.key_length_mla": HEAD,
    "attention.value_length_mla": VALUE,
    "rope.dimension_count": ROPE,
}
_MHA = {
    "attention.head_count_kv": HEADS,
    "attention.kv_lora_rank": LATENT,
    "attention.key_length": HEAD,
    "attention.value_length": VALUE,
    "rope.dimension_count": ROPE,
}
_DEEPSEEK = {
    "leading_dense_block_count": 4, "expert_shared_count": 1, "expert_weights_scale": 1.0,
    "expert_gating_func": 1, "attention.q_lora_rank": RANK,
}  # fmt: skip

#: Name → architecture, metadata, tensors of a layer that keeps tokens and of one that does not (None: there
#: is only one kind of layer).
HYBRIDS: dict[str, tuple[str, dict[str, Any], Sizes, Sizes | None]] = {
    "jamba": (
        "jamba",
        _KEYS_SSM | {"ssm.time_step_rank": RANK} | _BY_LAYER,
        _PLAIN | _FEED,
        _MAMBA | _FEED,
    ),
    "falcon-h1": ("falcon-h1", _GROUPED | _WIDTHS, _PLAIN | _MAMBA2 | _BARE_FEED, None),
    "falcon-h1, fused": ("falcon-h1", _GROUPED | _WIDTHS, _FUSED | _MAMBA2 | _BARE_FEED, None),
    "granite": ("granitehybrid", _GROUPED | _BY_LAYER | _WIDTHS, _PLAIN | _FEED, _MAMBA2 | _FEED),
    "nemotron-h": (
        "nemotron_h",
        _GROUPED | _BY_LAYER | _WIDTHS | {"feed_forward_length": [0, WIDE, 0, 0]},
        _PLAIN,
        _MAMBA2,
    ),
    "plamo2": (
        "plamo2",
        _KEYS_SSM | {"ssm.group_count": 0} | _BY_LAYER | _WIDTHS | {"attention.head_count": [0, 0, 0, HEADS]},
        _FUSED | {"attn_q_norm.weight": (HEAD, HEADS), "attn_k_norm.weight": (HEAD, KV_HEADS)},
        _PLAMO_MAMBA,
    ),
    "qwen3next": (
        "qwen3next",
        _GROUPED | _WIDTHS | _MIXTURE | {"expert_shared_feed_forward_length": WIDE},
        _GATED | _AFTER | _EXPERTS,
        _DELTA | {"ssm_ba.weight": (HIDDEN, 2 * STATE_HEADS)} | _AFTER | _EXPERTS,
    ),
    "qwen35": (
        "qwen35",
        _GROUPED | _WIDTHS | {"rope.dimension_sections": [11, 11, 10, 0]},
        _GATED | _AFTER | _UNNORMED,
        _DELTA
        | {f"ssm_{part}.weight": (HIDDEN, STATE_HEADS) for part in ("beta", "alpha")}
        | _AFTER
        | _UNNORMED,
    ),
    "lfm2": (
        "lfm2",
        {"shortconv.l_cache": 3} | _BY_LAYER,
        _PLAIN | _NORMS | _FEED,
        _CONVOLUTION | _FEED,
    ),
    "kimi": (
        "kimi-linear",
        {"ssm.conv_kernel": KERNEL, "kda.head_dim": HEAD} | _MIXTURE | _DEEPSEEK | _MLA
        | {"attention.head_count_kv": [1 if index in ATTENTION else 0 for index in range(4)]},
        _ABSORBED | {"attn_q.weight": (HIDDEN, _QUERIES)} | _FEED,
        _KIMI_DELTA | _FEED,
    ),
    "mamba": ("mamba2", _GROUPED | {"attention.head_count": 0}, _MAMBA2, None),
    "rwkv7": (
        "rwkv7",
        {
            "attention.head_count": 0, "wkv.head_size": HEAD,
            **{f"attention.{part}_lora_rank": RANK
               for part in ("decay", "iclr", "value_residual_mix", "gate")},
        },
        _RWKV,
        None,
    ),
    "deepseek2": ("deepseek2", _MIXTURE | _DEEPSEEK | _MLA, _ABSORBED | _COMPRESSED | _FEED, None),
    "deepseek2 of old": ("deepseek2", _MIXTURE | _DEEPSEEK | _MHA, _WHOLE | _COMPRESSED | _FEED, None),
}  # fmt: skip


def write_hybrid(path: Path, name: str) -> Path:
    """Write the header of one of `HYBRIDS`, four layers of 256 elements."""
    architecture, keys, keeping, other = HYBRIDS[name]
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in (_common() | keys).items():
        _add(writer, f"{architecture}.{key}", value)
    writer.add_tokenizer_model("none")
    tensors: Sizes = {
        "token_embd.weight": (HIDDEN, VOCABULARY),
        "output.weight": (HIDDEN, VOCABULARY),
        "token_embd_norm.weight" if architecture == "lfm2" else "output_norm.weight": (HIDDEN,),
    }
    if architecture == "rwkv7":
        tensors |= {f"token_embd_norm.{part}": (HIDDEN,) for part in ("weight", "bias")}
        tensors["output_norm.bias"] = (HIDDEN,)
    for layer in range(4):
        block = keeping if other is None or layer in ATTENTION else other
        if architecture == "nemotron_h" and layer == 1:
            block = {"ffn_up.weight": (HIDDEN, WIDE), "ffn_down.weight": (WIDE, HIDDEN)}
        if architecture == "plamo2":
            block |= {"post_attention_norm": (HIDDEN,), "post_ffw_norm": (HIDDEN,)}
            block |= {"ffn_norm.weight": (HIDDEN,), "ffn_up.weight": (HIDDEN, 2 * WIDE)}
            block |= {"ffn_down.weight": (WIDE, HIDDEN)}
        block = {"attn_norm.weight": (HIDDEN,)} | block
        tensors |= {f"blk.{layer}.{part}": sizes for part, sizes in block.items()}
    end = 0
    for tensor, sizes in tensors.items():
        size = 4 * int(np.prod(sizes))
        writer.add_tensor_info(tensor, sizes[::-1], np.dtype(np.float32), size)
        end += -(-size // 32) * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    start = -(-path.stat().st_size // 32) * 32
    with path.open("r+b") as file:
        file.truncate(start + end)
    return path


def _common() -> dict[str, Any]:
    return {
        "context_length": 4096,
        "embedding_length": HIDDEN,
        "block_count": 4,
        "feed_forward_length": WIDE,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "attention.layer_norm_epsilon": 1e-6,
        "rope.freq_base": 1e4,
        "vocab_size": VOCABULARY,
    }


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_uint32(key, value)
