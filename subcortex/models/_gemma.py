"""Gemma 3n and 4: embeddings a layer, caches that layers share, heads of two sizes. Pure.

The facts are those of vLLM 0.26 ``gemma3n.py`` and ``gemma4.py``, and of transformers' configuration classes.
"""

from __future__ import annotations

from subcortex.models._beside import Borrowing, Linear, Table
from subcortex.models._blocks import FLOAT32, Block, Dense, GroupedQuery, Mixture, Norms
from subcortex.models._config import MOST_EXPERTS, MOST_ROWS, Config
from subcortex.models._plan import Blocks, Plan, hidden_of, layers_of, vocabulary_of
from subcortex.models._rotary import context_of, tables_by_kind, tables_of

_FULL, _SLIDING = "full_attention", "sliding_attention"


def _types(config: Config, count: int, every: int) -> list[str]:
    found = config.items("layer_types", str)
    if found is None:
        # The last layer sees everything in any case.
        found = [_SLIDING if (index + 1) % every else _FULL for index in range(count - 1)] + [_FULL]
    unknown = sorted(set(found[:count]) - {_FULL, _SLIDING})
    if len(found) < count or unknown:
        wanted = f"{_FULL} or {_SLIDING} for each of its {count} layers"
        raise config.wrong("layer_types", unknown[0] if unknown else found, wanted)
    return found[:count]


def _borrowers(config: Config, types: list[str], default: int) -> int:
    """Return the first layer that reads an earlier one's keys and values, as those after it do."""
    count = len(types)
    shared = config.integer("num_kv_shared_layers", default=min(default, count - 1), least=0, most=count)
    first = count - shared
    lenders, readers = set(types[:first]), set(types[first:])
    if shared and (not first or readers - lenders):
        raise config.wrong("num_kv_shared_layers", shared, "less, so that a layer of each kind has a cache")
    return first


def _beside(config: Config, hidden: int, count: int, width: int) -> list[Block]:
    """Return the embeddings of all layers together, their projection and its norm."""
    if not width:
        return []
    rows = config.integer("vocab_size_per_layer_input", default=262144, most=MOST_ROWS)
    return [
        Table("embed_tokens_per_layer", rows, count * width),
        Linear("per_layer_model_projection", hidden, count * width, whole=False),
        Norms(width, name="per_layer_projection_norm"),
    ]


def _per_layer(hidden: int, width: int) -> list[Block]:
    if not width:
        return []
    return [Linear("per_layer_input_gate", hidden, width), Linear("per_layer_projection", width, hidden)]


def _attention(config: Config, kv_heads: int, size: int, window: int) -> GroupedQuery:
    heads = config.integer("num_attention_heads", default=8, most=2**16)
    if heads % kv_heads:
        raise config.wrong("num_key_value_heads", kv_heads, f"a divisor of its {heads} query heads")
    bias = config.flag("attention_bias")
    return GroupedQuery(heads, kv_heads, size, size, window, bias=bias, out_bias=bias, qk_norm="head")


def gemma3n(config: Config, kind: str) -> Plan:
    """Return the plan of Gemma 3n: four streams, low-rank paths, caches that layers share."""
    hidden, count = hidden_of(config), layers_of(config)
    types = _types(config, count, 5)
    first = _borrowers(config, types, 15)
    size = config.integer("head_dim", default=256)
    kv_heads = config.integer("num_key_value_heads", default=2, most=2**16)
    window = config.integer("sliding_window", default=512, most=2**40)
    made = {
        _FULL: _attention(config, kv_heads, size, 0),
        _SLIDING: _attention(config, kv_heads, size, window),
    }
    width = config.integer("hidden_size_per_layer_input", default=256, least=0)
    streams = config.integer("altup_num_inputs", default=4, most=64)
    rank = config.integer("laurel_rank", default=64)
    altup = hidden * (streams + 1) + streams * streams + streams**3
    beside_attention: list[Block] = [
        Linear("laurel.linear_left", hidden, rank, whole=False),
        Linear("laurel.linear_right", rank, hidden, whole=False),
        *_per_layer(hidden, width),
        # Of the layer, its low-rank path, and what comes of its own embedding.
        Norms(hidden * (6 if width else 5)),
        Norms(altup, name="altup"),
        Norms(hidden, FLOAT32, name="altup.correct_output_scale"),
    ]
    layers: list[Blocks] = []
    for index, (name, wide) in enumerate(zip(types, _widths(config, count), strict=True)):
        attention: Block = made[name] if index < first else Borrowing(made[name])
        layers.append((attention, Dense(wide), *beside_attention))
    streams_of = [
        Linear(f"altup_{which}.{one}", hidden, hidden, whole=False)
        for which in ("projections", "unembed_projections")
        for one in range(streams - 1)
    ]
    return Plan(
        hidden=hidden,
        vocabulary=vocabulary_of(config),
        layers=tuple(layers),
        tied=config.flag("tie_word_embeddings", default=True),
        tables=tables_of(config, size),
        norm=hidden,
        beside=(*_beside(config, hidden, count, width), *streams_of),
        context=context_of(config),
    )


def _widths(config: Config, count: int) -> list[int]:
    """Return the feed-forward width of each layer: one number, or a list of them."""
    if not isinstance(config.get("intermediate_size"), list):
        return [config.integer("intermediate_size", default=16384)] * count
    listed = config.items("intermediate_size", int) or []
    if len(listed) < count:
        raise config.wrong("intermediate_size", listed, f"as long as there are layers, {count}")
    # As single figures, so that each is held to their bounds.
    return [
        config.with_values({"intermediate_size": one}).integer("intermediate_size") for one in listed[:count]
    ]


def gemma4(config: Config, kind: str) -> Plan:
    """Return the plan of Gemma 4: wide heads where all is seen, experts beside a dense part."""
    hidden, count = hidden_of(config), layers_of(config)
    types = _types(config, count, 6)
    first = _borrowers(config, types, 0)
    size = config.integer("head_dim", default=256)
    wide = config.integer("global_head_dim", default=512)
    kv_heads = config.integer("num_key_value_heads", default=4, most=2**16)
    global_heads = kv_heads
    if config.flag("attention_k_eq_v"):
        # vLLM holds the values' projection too, a copy of the keys'.
        global_heads = config.integer("num_global_key_value_heads", default=kv_heads, most=2**16)
    window = config.integer("sliding_window", default=512, most=2**40)
    made = {
        _FULL: _attention(config, global_heads, wide, 0),
        _SLIDING: _attention(config, kv_heads, size, window),
    }
    width = config.integer("hidden_size_per_layer_input", default=256, least=0)
    inner = config.integer("intermediate_size")
    feed: list[Block] = []
    norms = 5 if width else 4
    if config.flag("enable_moe_block", "use_second_mlp_block"):
        experts = config.integer("num_experts", most=MOST_EXPERTS)
        top_k = config.integer("top_k_experts", most=experts)
        each = config.integer("moe_intermediate_size", "expert_intermediate_size")
        feed = [Mixture(experts, top_k, each, module="moe"), Norms(hidden + experts, name="router.scales")]
        norms += 3
    times = 2 if config.flag("use_double_wide_mlp") else 1
    layers: list[Blocks] = []
    for index, name in enumerate(types):
        own = index < first
        attention: Block = made[name] if own else Borrowing(made[name])
        dense = Dense(inner if own else times * inner)
        layers.append((attention, dense, *feed, *_per_layer(hidden, width), Norms(norms * hidden)))
    return Plan(
        hidden=hidden,
        vocabulary=vocabulary_of(config),
        layers=tuple(layers),
        tied=config.flag("tie_word_embeddings", default=True),
        tables=tables_by_kind(config, {name: made[name].key_dim for name in sorted(set(types))}),
        norm=hidden,
        beside=tuple(_beside(config, hidden, count, width)),
        context=context_of(config),
    )
