"""Families with recurrent layers, alone or beside attention. Pure.

The facts are those of vLLM 0.26 ``model_executor/models`` and its configuration classes' defaults.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil

from subcortex.models._beside import Kept
from subcortex.models._blocks import Block, Dense, GroupedQuery, Mixture, Norms
from subcortex.models._config import MOST_EXPERTS, MOST_LAYERS, Config
from subcortex.models._families import mixture_of, round_up, sparse_layers
from subcortex.models._plan import Blocks, Plan, hidden_of, layers_of, vocabulary_of
from subcortex.models._recurrent import Mamba1, Mamba2, ShortConv
from subcortex.models._rotary import context_of, tables_of
from subcortex.models._styles import Style
from subcortex.models.shape import Split

ATTENTION = ("attention", "full_attention", "hybrid")
_MIXERS = ("mamba", "mamba2", "linear_attention", "conv")
_STYLE = Style()
#: Nemotron-H's newer names for its layers, as letters of its pattern.
_LETTERS = {
    "linear_attention": "M",
    "mamba": "M",
    "full_attention": "*",
    "attention": "*",
    "mlp": "-",
    "moe": "E",
}


def attention_of(config: Config, *, module: str = "self_attn") -> GroupedQuery:
    hidden = hidden_of(config)
    heads = config.integer("num_attention_heads", most=2**16)
    kv_heads = config.integer("num_key_value_heads", default=heads, most=2**16)
    if heads % kv_heads:
        raise config.wrong("num_key_value_heads", kv_heads, f"a divisor of its {heads} query heads")
    size = config.integer("head_dim", "attention_head_dim", default=max(1, hidden // heads))
    bias = config.flag("attention_bias")
    return GroupedQuery(heads, kv_heads, size, size, bias=bias, out_bias=bias, module=module)


def plan_of(config: Config, layers: list[Blocks], *, tied: bool = False, rotary: bool = True) -> Plan:
    hidden = hidden_of(config)
    attention = next((b for layer in layers for b in layer if isinstance(b, GroupedQuery)), None)
    tables = tables_of(config, attention.key_dim) if attention and rotary else ()
    return Plan(
        hidden=hidden,
        vocabulary=vocabulary_of(config),
        layers=tuple(layers),
        tied=config.flag("tie_word_embeddings", default=tied),
        tables=tables,
        norm=hidden,
        context=context_of(config),
    )


def _mamba2(config: Config) -> Mamba2:
    """Return Mamba 2 under the keys of Bamba and its relatives."""
    hidden = hidden_of(config)
    heads = config.integer("mamba_n_heads", "n_mamba_heads", default=128, most=2**16)
    inner = config.integer("mamba_d_ssm", default=config.integer("mamba_expand", default=2, most=64) * hidden)
    said = config.get("mamba_d_head")
    size = inner // heads if said in (None, "auto") else config.integer("mamba_d_head")
    return Mamba2(
        heads,
        max(1, size),
        config.integer("mamba_d_state", default=256),
        config.integer("mamba_n_groups", "mamba_ngroups", default=1, most=2**16),
        config.integer("mamba_d_conv", default=4, most=64),
        bias=config.flag("mamba_proj_bias"),
        conv_bias=config.flag("mamba_conv_bias", default=True),
    )


def types_of(config: Config, count: int) -> list[str] | None:
    found = config.items("layer_types", str) or config.items("layers_block_type", str)
    if found is not None and len(found) < count:
        raise config.wrong("layer_types", found, f"as long as there are layers, {count}")
    # A kind that is neither would silently be counted as a state.
    unknown = sorted(set((found or [])[:count]) - {*ATTENTION, *_MIXERS})
    if unknown:
        raise config.wrong("layer_types", unknown[0], f"one of {', '.join((*ATTENTION, *_MIXERS))}")
    return found


def mamba(config: Config, kind: str) -> Plan:
    """Return the plan of Mamba 1 (Falcon Mamba too): one norm and one mixer a layer."""
    hidden = hidden_of(config)
    inner = config.integer("intermediate_size", default=2 * hidden)
    rank = config.get("time_step_rank")
    mixer = Mamba1(
        inner,
        config.integer("state_size", default=16),
        config.integer("conv_kernel", default=4, most=64),
        ceil(hidden / 16) if rank in (None, "auto") else config.integer("time_step_rank"),
        bias=config.flag("use_bias"),
        conv_bias=config.flag("use_conv_bias", default=True),
        module="mixer",
    )
    layers: list[Blocks] = [(mixer, Norms(hidden))] * layers_of(config)
    return replace(plan_of(config, layers, tied=kind == "mamba"), path="backbone.layers")


def mamba2(config: Config, kind: str) -> Plan:
    """Return the plan of Mamba 2: one norm and one mixer a layer."""
    hidden = hidden_of(config)
    mixer = Mamba2(
        config.integer("num_heads", default=128, most=2**16),
        config.integer("head_dim", default=64),
        config.integer("state_size", default=128),
        config.integer("n_groups", default=8, most=2**16),
        config.integer("conv_kernel", default=4, most=64),
        bias=config.flag("use_bias"),
        conv_bias=config.flag("use_conv_bias", default=True),
        module="mixer",
    )
    layers: list[Blocks] = [(mixer, Norms(hidden))] * layers_of(config)
    return replace(plan_of(config, layers), path="backbone.layers")


def jamba(config: Config, kind: str) -> Plan:
    """Return the plan of Jamba: attention now and then, experts in every other layer; no positions."""
    hidden, count = hidden_of(config), layers_of(config)
    rank = config.get("mamba_dt_rank")
    mixer = Mamba1(
        config.integer("mamba_expand", default=2, most=64) * hidden,
        config.integer("mamba_d_state", default=16),
        config.integer("mamba_d_conv", default=4, most=64),
        ceil(hidden / 16) if rank in (None, "auto") else config.integer("mamba_dt_rank"),
        bias=config.flag("mamba_proj_bias"),
        conv_bias=config.flag("mamba_conv_bias", default=True),
        norms=True,
    )
    attention = attention_of(config)
    width = config.integer("intermediate_size")
    experts = config.integer("num_experts", default=16, least=0, most=MOST_EXPERTS)
    dense: Block = Dense(width, module="feed_forward")
    mixture: Block = dense
    if experts > 1:
        top_k = config.integer("num_experts_per_tok", default=2, most=experts)
        mixture = Mixture(experts, top_k, width, module="feed_forward")
    every, first = _period(config, "expert_layer_period", "expert_layer_offset", 2, 1)
    attends, at = _period(config, "attn_layer_period", "attn_layer_offset", 8, 4)
    layers: list[Blocks] = [
        (
            attention if index % attends == at else mixer,
            mixture if index % every == first else dense,
            Norms(2 * hidden),
        )
        for index in range(count)
    ]
    return plan_of(config, layers, rotary=False)


def _period(config: Config, period: str, offset: str, every: int, first: int) -> tuple[int, int]:
    return (
        config.integer(period, default=every, most=MOST_LAYERS),
        config.integer(offset, default=first, least=0, most=MOST_LAYERS),
    )


def bamba(config: Config, kind: str) -> Plan:
    """Return the plan of Bamba: Mamba 2, attention in the layers that it names."""
    hidden, count = hidden_of(config), layers_of(config)
    mixer, attention = _mamba2(config), attention_of(config)
    attends = set(config.items("attn_layer_indices", int) or [])
    types = types_of(config, count)
    if types is not None:
        attends = {index for index, name in enumerate(types) if name in ATTENTION}
    feed = Dense(config.integer("intermediate_size"), bias=config.flag("mlp_bias"), module="feed_forward")
    layers: list[Blocks] = [
        (attention if index in attends else mixer, feed, Norms(2 * hidden)) for index in range(count)
    ]
    plan = plan_of(config, layers)
    rotated = config.integer("attn_rotary_emb", default=attention.key_dim)
    return replace(plan, tables=tuple((rows, min(width, rotated)) for rows, width in plan.tables))


def falcon_h1(config: Config, kind: str) -> Plan:
    """Return the plan of Falcon-H1: attention and Mamba 2 side by side in each layer."""
    hidden = hidden_of(config)
    mixer = replace(_mamba2(config), norm=config.flag("mamba_rms_norm"), scaled=True)
    feed = Dense(config.integer("intermediate_size"), bias=config.flag("mlp_bias"), module="feed_forward")
    layers: list[Blocks] = [(attention_of(config), mixer, feed, Norms(2 * hidden))] * layers_of(config)
    return plan_of(config, layers)


def granite_hybrid(config: Config, kind: str) -> Plan:
    """Return the plan of Granite 4: Mamba 2 or attention, experts beside a shared part, or that alone."""
    hidden, count = hidden_of(config), layers_of(config)
    mixer, attention = _mamba2(config), attention_of(config)
    types = types_of(config, count) or ["mamba"] * count
    shared = config.integer("shared_intermediate_size", default=0, least=0)
    experts = config.integer("num_local_experts", default=0, least=0, most=MOST_EXPERTS)
    feed: Block
    if experts:
        top_k = config.integer("num_experts_per_tok", default=2, most=experts)
        width = config.integer("intermediate_size")
        feed = Mixture(experts, top_k, width, shared=shared, module="block_sparse_moe")
    else:
        feed = Dense(shared or config.integer("intermediate_size"), module="shared_mlp")
    layers: list[Blocks] = [
        (attention if name in ATTENTION else mixer, feed, Norms(2 * hidden)) for name in types[:count]
    ]
    # Without positions unless it says rope (``granitemoehybrid.py``).
    return plan_of(config, layers, rotary=config.text("position_embedding_type") == "rope")


def nemotron_h(config: Config, kind: str) -> Plan:
    """Return the plan of Nemotron-H: each layer is one part, by the letters of its pattern."""
    hidden = hidden_of(config)
    types = config.items("layers_block_type", str) or []
    letters = config.text("hybrid_override_pattern") or "".join(_LETTERS.get(name, "?") for name in types)
    count = layers_of(config) if "num_hidden_layers" in config else max(1, len(letters))
    if len(letters) < count or set(letters) - set("M-*E"):
        raise config.wrong("hybrid_override_pattern", letters, f"a letter M, *, - or E a layer, {count}")
    float32 = config.text("mamba_ssm_cache_dtype", "float32") == "float32"
    mixer = Mamba2(
        config.integer("mamba_num_heads", default=128, most=2**16),
        config.integer("mamba_head_dim", default=64),
        config.integer("ssm_state_size", default=128),
        config.integer("n_groups", default=8, most=2**16),
        config.integer("conv_kernel", default=4, most=64),
        bias=config.flag("use_bias", "mamba_proj_bias"),
        conv_bias=config.flag("use_conv_bias", default=True),
        state_bytes=4 if float32 else 2,
        module="mixer",
    )
    parts: dict[str, Block] = {"M": mixer}
    if "*" in letters:
        parts["*"] = attention_of(config, module="mixer")
    if "-" in letters:
        width = config.integer("intermediate_size")
        parts["-"] = Dense(width, gated=False, bias=config.flag("mlp_bias"), module="mixer")
    if "E" in letters:
        experts = config.integer("n_routed_experts", most=MOST_EXPERTS)
        shared = config.integer("moe_shared_expert_intermediate_size", default=0, least=0)
        shared *= config.integer("n_shared_experts", default=1, least=0, most=1024)
        top_k = config.integer("num_experts_per_tok", default=1, most=experts)
        width = config.integer("moe_intermediate_size")
        parts["E"] = Mixture(
            experts, top_k, width, shared=shared, gated=False, correction=True, module="mixer"
        )
    layers: list[Blocks] = [(parts[letter], Norms(hidden)) for letter in letters[:count]]
    # Attention has no positions here.
    notes = ("Its experts work in a narrower space, which is not counted.",) * ("moe_latent_size" in config)
    return replace(plan_of(config, layers, rotary=False), notes=notes)


def lfm2(config: Config, kind: str) -> Plan:
    """Return the plan of LFM2: short convolutions, attention in the layers that it names."""
    hidden, count = hidden_of(config), layers_of(config)
    conv = ShortConv(
        config.integer("conv_dim", default=hidden),
        config.integer("conv_L_cache", default=3, most=1024),
        config.flag("conv_bias"),
    )
    attention = replace(attention_of(config), qk_norm="head")
    types = types_of(config, count)
    listed = config.items("full_attn_idxs", int)
    if types is not None:
        attends = {index for index, name in enumerate(types) if name in ATTENTION}
    else:
        attends = set(range(count)) if listed is None else set(listed)
    width = config.integer("block_ff_dim", "intermediate_size", default=4 * hidden)
    if kind == "lfm2" and config.flag("block_auto_adjust_ff_dim", default=True):
        width = int(2 * width / 3)
        width = int(config.number("block_ffn_dim_multiplier", default=1.0, most=64) * width)
        width = round_up(width, config.integer("block_multiple_of", default=256))
    dense = Dense(width, module="feed_forward")
    experts = config.integer("num_experts", default=0, least=0, most=MOST_EXPERTS)
    mixture = None
    if experts:
        style = replace(
            _STYLE, module="feed_forward", correction=config.flag("use_expert_bias", default=True)
        )
        mixture = mixture_of(config, style, kind, experts)
    layers: list[Blocks] = []
    for index, sparse in enumerate(sparse_layers(config, count)):
        feed: Block = mixture if mixture and sparse else dense
        layers.append((attention if index in attends else conv, feed, Norms(2 * hidden)))
    return plan_of(config, layers, tied=True)


def zamba2(config: Config, kind: str) -> Plan:
    """Return the plan of Zamba 2: Mamba 2, and before some layers a transformer that they share."""
    hidden, count = hidden_of(config), layers_of(config)
    heads = config.integer("n_mamba_heads", default=64, most=2**16)
    inner = config.integer("mamba_expand", default=2, most=64) * hidden
    mixer = Mamba2(
        heads,
        config.integer("mamba_headdim", default=max(1, inner // heads)),
        config.integer("mamba_d_state", default=64),
        config.integer("mamba_ngroups", default=1, most=2**16),
        config.integer("mamba_d_conv", default=4, most=64),
        conv_bias=config.flag("use_conv_bias", default=True),
    )
    query_heads = config.integer("num_attention_heads", most=2**16)
    size = config.integer("attention_head_dim", default=max(1, 2 * hidden // query_heads))
    # Its input is the hidden state beside the embedding.
    attention = GroupedQuery(
        query_heads,
        config.integer("num_key_value_heads", default=query_heads, most=2**16),
        size,
        size,
        inputs=2 * hidden,
        module="shared_transformer.self_attn",
    )
    width = config.integer("intermediate_size", default=4 * hidden)
    shared: Blocks = (attention, Dense(width, module="shared_transformer.feed_forward"), Norms(3 * hidden))
    blocks = config.integer("num_mem_blocks", default=1, most=64)
    types = types_of(config, count)
    named = config.items("hybrid_layer_ids", int) or []
    hybrids = {i for i, name in enumerate(types) if name == "hybrid"} if types else set(named)
    rank = config.integer("adapter_rank", default=128)
    adapters = hidden * rank + rank * 2 * width if config.flag("use_shared_mlp_adapter", default=True) else 0
    if config.flag("use_shared_attention_adapter"):
        adapters += 3 * (2 * hidden * rank + rank * query_heads * size)
    own = (
        Norms(hidden * hidden, name="linear"),
        Norms(adapters, split=Split.SHARDED, name="adapters"),
    )
    layers: list[Blocks] = []
    for index in range(count):
        if index in hybrids:
            layers.append((Kept(attention), mixer, *own, Norms(hidden)))
        else:
            layers.append((mixer, Norms(hidden)))
    rotated = config.flag("use_mem_rope", default=True)
    plan = plan_of(config, layers, tied=True)
    tables = tables_of(config, size) if rotated else ()
    return replace(plan, everywhere=shared * blocks, tables=tables)
