"""Families whose layers are mostly linear attention: delta nets, Kimi's, MiniMax-01's. Pure.

The facts are those of vLLM 0.26 ``model_executor/models`` and its configuration classes' defaults;
MiniMax-01's are of 0.23, the last that ran it.
"""

from __future__ import annotations

from dataclasses import replace

from subcortex.models._blocks import FLOAT32, PLAIN, Block, Dense, Latent, Mixture, Norms
from subcortex.models._config import MOST_EXPERTS, MOST_LAYERS, Config
from subcortex.models._families import mixture_of, sparse_layers
from subcortex.models._hybrids import ATTENTION, attention_of, plan_of, types_of
from subcortex.models._plan import Blocks, Plan, hidden_of, layers_of
from subcortex.models._recurrent import DeltaNet, KimiDelta, Lightning
from subcortex.models._rotary import positions_of, tables_of
from subcortex.models._styles import Style

_STYLE = Style()


def _delta_net(config: Config) -> DeltaNet:
    return DeltaNet(
        config.integer("linear_num_key_heads", default=16, most=2**16),
        config.integer("linear_num_value_heads", default=32, most=2**16),
        config.integer("linear_key_head_dim", default=128),
        config.integer("linear_value_head_dim", default=128),
        config.integer("linear_conv_kernel_dim", default=4, most=64),
        # Qwen3.5 asks for it, and vLLM goes by that.
        state_bytes=FLOAT32 if config.text("mamba_ssm_dtype") == "float32" else PLAIN,
    )


def _types(config: Config, count: int) -> list[str]:
    every = config.integer("full_attention_interval", default=4, most=MOST_LAYERS)
    return types_of(config, count) or [
        "linear_attention" if (index + 1) % every else "full_attention" for index in range(count)
    ]


def qwen3_next(config: Config, kind: str) -> Plan:
    """Return the plan of Qwen3-Next and Qwen3.5: three delta nets for each gated attention.

    Experts are everywhere in Qwen3-Next and in Qwen3.5's mixtures, nowhere in the others of Qwen3.5.
    """
    hidden, count = hidden_of(config), layers_of(config)
    mixer = _delta_net(config)
    gate = config.flag("attn_output_gate", default=True)
    attention = replace(attention_of(config), gate=gate, qk_norm="head")
    mixes = kind in ("qwen3_next", "qwen3_5_moe", "qwen3_5_moe_text")
    experts = config.integer("num_experts", default=0, least=0, most=MOST_EXPERTS) if mixes else 0
    width = config.integer("intermediate_size", default=0, least=0)
    dense = Dense(width) if width else None
    mixture = mixture_of(config, _STYLE, "qwen3_next", experts) if experts else None
    layers: list[Blocks] = []
    for name, sparse in zip(_types(config, count), sparse_layers(config, count), strict=False):
        feed: Block | None = mixture if mixture and sparse else dense
        if feed is None:
            raise config.missing(["intermediate_size"])
        layers.append((attention if name in ATTENTION else mixer, feed, Norms(2 * hidden)))
    plan = plan_of(config, layers)
    return replace(plan, tables=tables_of(config, attention.key_dim, partial=0.25))


def olmo_hybrid(config: Config, kind: str) -> Plan:
    """Return the plan of OLMo Hybrid: three delta nets for each plain attention."""
    hidden, count = hidden_of(config), layers_of(config)
    heads = config.integer("num_attention_heads", most=2**16)
    keys = config.integer("linear_num_key_heads", default=heads, most=2**16)
    key_dim = config.integer("linear_key_head_dim", default=max(1, int(0.75 * hidden / keys)))
    figures = {
        "linear_num_key_heads": keys,
        "linear_num_value_heads": config.integer("linear_num_value_heads", default=heads, most=2**16),
        "linear_key_head_dim": key_dim,
        "linear_value_head_dim": config.integer("linear_value_head_dim", default=2 * key_dim),
    }
    mixer = replace(_delta_net(config.with_values(figures)), decay_bytes=PLAIN)
    attention = replace(attention_of(config), qk_norm="full", bias=False, out_bias=False)
    dense = Dense(config.integer("intermediate_size"))
    layers: list[Blocks] = []
    for name in _types(config, count)[:count]:
        layers.append((attention if name in ATTENTION else mixer, dense, Norms(2 * hidden)))
    rotary = config.inside("rope_parameters")
    return plan_of(config, layers, rotary=rotary is not None and "rope_theta" in rotary)


def kimi_linear(config: Config, kind: str) -> Plan:
    """Return the plan of Kimi Linear: delta attention, latent attention without positions now and then."""
    hidden, count = hidden_of(config), layers_of(config)
    linear = config.inside("linear_attn_config")
    if linear is None:
        raise config.missing(["linear_attn_config"])
    mixer = KimiDelta(
        linear.integer("num_heads", most=2**16),
        linear.integer("head_dim"),
        linear.integer("short_conv_kernel_size", default=4, most=64),
    )
    attention = Latent(
        config.integer("num_attention_heads", most=2**16),
        config.integer("kv_lora_rank"),
        config.integer("q_lora_rank", default=0, least=0),
        config.integer("qk_rope_head_dim"),
        config.integer("qk_nope_head_dim"),
        config.integer("v_head_dim"),
    )
    # Counted from one.
    mixers = linear.items("kda_layers", int)
    if mixers is None:
        raise linear.missing(["kda_layers"])
    width = config.integer("intermediate_size")
    experts = config.integer("num_experts", default=0, least=0, most=MOST_EXPERTS)
    feeds: list[Block] = [Dense(width)] * count
    if experts:
        style = replace(_STYLE, correction=True, module="block_sparse_moe")
        mixture = replace(mixture_of(config, style, kind, experts), correction_bytes=PLAIN)
        feeds = [mixture if sparse else feeds[0] for sparse in sparse_layers(config, count)]
    listed = set(mixers)
    layers: list[Blocks] = [
        (mixer if index + 1 in listed else attention, feed, Norms(2 * hidden))
        for index, feed in enumerate(feeds)
    ]
    return plan_of(config, layers, rotary=False)


def minimax(config: Config, kind: str) -> Plan:
    """Return the plan of MiniMax-01 and M1: seven linear attentions for each full one, experts everywhere."""
    hidden, count = hidden_of(config), layers_of(config)
    listed = config.items("attn_type_list", int)
    types = types_of(config, count)
    if listed is not None:
        if len(listed) < count or set(listed[:count]) - {0, 1}:
            raise config.wrong("attn_type_list", listed, f"a 0 or a 1 for each of its {count} layers")
        attends = [bool(one) for one in listed[:count]]
    elif types is not None:
        attends = [name in ATTENTION for name in types[:count]]
    else:
        raise config.missing(["attn_type_list", "layer_types"])
    attention = attention_of(config)
    mixer = Lightning(attention.heads, attention.key_dim)
    experts = config.integer("num_local_experts", most=MOST_EXPERTS)
    top_k = config.integer("num_experts_per_tok", default=2, most=experts)
    feed = Mixture(
        experts,
        top_k,
        config.integer("intermediate_size"),
        shared=config.integer("shared_intermediate_size", default=0, least=0),
        router_bytes=FLOAT32,
        module="block_sparse_moe",
    )
    layers: list[Blocks] = [(attention if full else mixer, feed, Norms(2 * hidden)) for full in attends]
    rotated = config.integer("rotary_dim", default=attention.key_dim)
    return replace(plan_of(config, layers), tables=((positions_of(config), rotated),))
