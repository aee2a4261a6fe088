"""Plans of plain transformers, latent attention and Llama 4, from a config's keys. Pure.

How families differ is in ``_styles.py``; those with recurrent layers are in ``_hybrids.py``.
"""

from __future__ import annotations

from math import ceil

from subcortex.models._blocks import FLOAT32, PLAIN, Block, Dense, GroupedQuery, Latent, Mixture, Norms
from subcortex.models._config import MOST_EXPERTS, Config
from subcortex.models._plan import Plan, hidden_of, layers_of, vocabulary_of
from subcortex.models._rotary import context_of, positions_of, tables_of
from subcortex.models._styles import BIAS_DEFAULTS, LLAMA, STYLES, Bias, Style
from subcortex.models._unfamiliar import doubts

#: Families with latent attention, by ``model_type``.
LATENT_KINDS = (
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_v32",
    "glm4_moe_lite",
    "kimi_k2",
    "minicpm3",
    "pangu_ultra_moe",
)


def plain(config: Config, kind: str) -> Plan:
    """Return the plan of a plain transformer.

    Args:
        config: The text model's.
        kind: Its ``model_type``; one without a style counts as a Llama, with a note.
    """
    style = STYLES.get(kind, LLAMA)
    notes = tuple(doubts(config, kind, familiar=kind in STYLES))
    hidden, count = hidden_of(config), layers_of(config)
    attentions = _attentions(config, style, kind, count)
    feeds = _feeds(config, style, kind, count)
    norm = Norms(_norms(config, style, kind) * hidden * (2 if style.norm_bias else 1))
    shared = tuple(((attention, feed, norm)) for attention, feed in zip(attentions, feeds, strict=True))
    head_dim = attentions[0].key_dim
    positions = positions_of(config)
    beside: list[Block] = []
    if style.positions is not None:
        width = positions + style.positions
        beside.append(Norms(width * hidden, name="embed_positions"))
    embedding = config.integer("word_embed_proj_dim", default=hidden)
    if embedding != hidden:
        beside.append(Norms(2 * embedding * hidden, name="projections"))
    if kind == "bloom":
        beside.append(Norms(2 * hidden, name="word_embeddings_layernorm"))
    norms = (2 if style.norm_bias else 1) * hidden if style.final_norm else 0
    tables: tuple[tuple[int, int], ...] = ()
    if style.partial and not config.flag("alibi"):
        tables = tables_of(config, head_dim, partial=style.partial)
        if kind in ("cohere", "cohere2"):
            longest = config.integer("model_max_length", default=positions, most=2**40)
            tables = ((longest, head_dim),)
        elif kind in ("gptj", "codegen"):
            tables = ((positions, config.integer("rotary_dim", default=head_dim)),)
    return Plan(
        hidden=hidden,
        vocabulary=vocabulary_of(config),
        layers=shared,
        tied=config.flag("tie_word_embeddings", default=style.tied),
        tables=tables if style.table else (),
        rotated=tables[0][1] if tables else 0,
        # gpt-oss asks for float32.
        table_bytes=FLOAT32 if kind == "gpt_oss" else PLAIN,
        norm=norms,
        beside=tuple(beside),
        embedding_width=embedding,
        head_bias=style.head_bias or config.flag("lm_head_bias"),
        path=style.path,
        context=context_of(config, scaled=kind.startswith("gemma3")),
        notes=notes,
    )


def _norms(config: Config, style: Style, kind: str) -> int:
    if kind == "falcon":
        new = config.flag("new_decoder_architecture")
        return 2 if new or not config.flag("parallel_attn", default=True) else 1
    return style.norms


def _bias(config: Config, bias: Bias, kind: str) -> bool:
    if isinstance(bias, bool):
        return bias
    return config.flag(bias, default=(kind, bias) in BIAS_DEFAULTS)


def _attentions(config: Config, style: Style, kind: str, count: int) -> list[GroupedQuery]:
    hidden = hidden_of(config)
    heads = config.integer("num_attention_heads", "n_head", "n_heads", most=2**16)
    kv_heads = _kv_heads(config, style, kind, heads)
    if heads % kv_heads:
        raise config.wrong("num_key_value_heads", kv_heads, f"a divisor of its {heads} query heads")
    if not style.head_dim and not hidden // heads and "head_dim" not in config:
        raise config.wrong("num_attention_heads", heads, f"at most its width, {hidden}")
    size = config.integer(
        "head_dim",
        "kv_channels",
        "head_size",
        "attention_head_dim",
        default=style.head_dim or hidden // heads,
    )
    bias = _bias(config, style.bias, kind)
    out_bias = _bias(config, style.out_bias, kind)
    if kind == "llama" and config.flag("bias"):
        bias = out_bias = True
    qk_norm = style.qk_norm
    if style.qk_norm_key and not config.flag(style.qk_norm_key):
        qk_norm = ""
    made: dict[int, GroupedQuery] = {}
    for window in (windows := windows_of(config, style, kind, count)):
        if window not in made:
            made[window] = GroupedQuery(
                heads,
                kv_heads,
                size,
                config.integer("v_head_dim", default=size) if kind not in STYLES else size,
                window,
                bias=bias,
                out_bias=out_bias,
                qk_norm=qk_norm,
                sinks=kind == "gpt_oss",
            )
    return [made[window] for window in windows]


def _kv_heads(config: Config, style: Style, kind: str, heads: int) -> int:
    if kind == "falcon" and not config.flag("new_decoder_architecture"):
        return 1 if config.flag("multi_query", default=True) else heads
    default = min(style.kv_heads or heads, heads)
    if kind == "gpt_bigcode" and config.flag("multi_query", default=True):
        default = 1
    keys = ("num_key_value_heads", "multi_query_group_num", "num_kv_heads")
    return config.integer(*keys, default=default, most=2**16)


def windows_of(config: Config, style: Style, kind: str, count: int) -> list[int]:
    """Return each layer's window, 0 for full attention, with vLLM's precedence.

    A window counts only where ``use_sliding_window`` does not say no. Layers are windowed as ``layer_types``
    says, else by the family's pattern, else all of them.
    """
    key = "sliding_window"
    default = style.window_default if key not in config.values else 0
    window = config.integer(key, "sliding_window_size", default=default, least=0, most=2**40)
    switch = "use_sliding_window" in config.values
    if not window or (switch and not config.flag("use_sliding_window")):
        return [0] * count
    if kind.startswith("qwen") and not switch:
        return [0] * count
    types = config.items("layer_types", str)
    if types is not None:
        if len(types) < count:
            raise config.wrong("layer_types", types, f"as long as there are layers, {count}")
        return [window if name == "sliding_attention" else 0 for name in types[:count]]
    if kind.startswith(("qwen", "smollm3")):
        first = config.integer("max_window_layers", default=count, least=0, most=2**20)
        return [window if index >= first else 0 for index in range(count)]
    pattern = (
        config.integer(
            "sliding_window_pattern", "_sliding_window_pattern", default=style.pattern, least=0, most=2**20
        )
        if not isinstance(config.get("sliding_window_pattern"), str)
        else 0
    )
    if isinstance(config.get("sliding_window_pattern"), str):
        letters = config.text("sliding_window_pattern")
        return (
            [window if letters[i % len(letters)] == "L" else 0 for i in range(count)]
            if letters
            else [0] * count
        )
    if style.window == "even":
        return [0 if index % 2 else window for index in range(count)]
    if style.window == "last" and pattern:
        return [window if (index + 1) % pattern else 0 for index in range(count)]
    return [window] * count


def _feeds(config: Config, style: Style, kind: str, count: int) -> list[Block]:
    dense = _dense(config, style, kind)
    experts = config.integer(
        "num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts",
        default=0, least=0, most=MOST_EXPERTS,
    )  # fmt: skip
    if not experts:
        if dense is None:
            raise config.missing(["intermediate_size"])
        return [dense] * count
    mixture = mixture_of(config, style, kind, experts)
    sparse = sparse_layers(config, count)
    if dense is None and not all(sparse):
        raise config.missing(["intermediate_size"])
    return [mixture if there or dense is None else dense for there in sparse]


def _dense(config: Config, style: Style, kind: str) -> Dense | None:
    keys = ("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner", "inner_size")
    hidden = hidden_of(config)
    quadruple = ("gpt2", "gptj", "codegen", "bloom", "falcon", "gpt_bigcode", "gpt_neox")
    width = 4 * hidden if kind in quadruple else 0
    if kind == "mpt":
        width = int(config.number("expansion_ratio", default=4, most=1024) * hidden)
    width = config.integer(*keys, default=width or 0, least=0)
    gated = style.gated
    if kind not in STYLES and config.text("hidden_act") in ("relu", "relu2", "gelu_new"):
        gated = False
    return Dense(width, gated, _bias(config, style.mlp_bias, kind)) if width else None


def mixture_of(config: Config, style: Style, kind: str, experts: int) -> Mixture:
    """Return the mixture of a config with so many experts."""
    width = config.integer("moe_intermediate_size", "expert_dim", "intermediate_size")
    top_k = config.integer(
        "num_experts_per_tok", "num_experts_per_token", "experts_per_token", "moe_k", "moe_topk", "top_k",
        default=1, most=MOST_EXPERTS,
    )  # fmt: skip
    if top_k > experts:
        raise config.wrong("num_experts_per_tok", top_k, f"at most its {experts} experts")
    shared = config.integer("shared_expert_intermediate_size", default=0, least=0)
    shared = shared or width * config.integer(
        "n_shared_experts", "num_shared_experts", "moe_num_shared_experts", default=0, least=0, most=1024
    )
    return Mixture(
        experts,
        top_k,
        width,
        shared,
        shared_gate=kind in ("qwen2_moe", "qwen3_next") and bool(shared),
        bias=kind == "gpt_oss",
        router_bytes=style.router_bytes,
        correction=style.correction or config.text("topk_method") == "noaux_tc",
        module=style.module,
    )


def sparse_layers(config: Config, count: int) -> list[bool]:
    """Return which layers have experts, by the keys that families use for it."""
    types = config.items("mlp_layer_types", str)
    if types is not None:
        return [name == "sparse" for name in types[:count]] + [True] * (count - len(types))
    first = config.integer(
        "first_k_dense_replace", "moe_layer_start_index", "num_dense_layers", default=0, least=0, most=2**20
    )
    frequency = config.get("moe_layer_freq")
    if isinstance(frequency, list):
        listed = config.items("moe_layer_freq", int) or []
        return [index < len(listed) and bool(listed[index]) for index in range(count)]
    every = config.integer("moe_layer_freq", "moe_layer_interval", default=1, most=2**20)
    step = config.integer("decoder_sparse_step", default=1, least=0, most=2**20)
    dense = set(config.items("mlp_only_layers", int) or [])
    return [
        index >= first and index % every == 0 and step > 0 and (index + 1) % step == 0 and index not in dense
        for index in range(count)
    ]


def latent(config: Config, kind: str) -> Plan:
    """Return the plan of a model with multi-head latent attention (DeepSeek V2 and V3, MiniCPM3)."""
    style = Style(norms=2, tied=kind == "minicpm3", mlp_bias=False)
    hidden, count = hidden_of(config), layers_of(config)
    heads = config.integer("num_attention_heads", most=2**16)
    attention = Latent(
        heads,
        config.integer("kv_lora_rank"),
        config.integer("q_lora_rank", default=0, least=0),
        config.integer("qk_rope_head_dim", default=64),
        config.integer("qk_nope_head_dim", default=128),
        config.integer("v_head_dim", default=hidden // heads if kind == "minicpm3" else 128),
        absorbed=kind != "minicpm3",
        bias=config.flag("attention_bias"),
    )
    feeds = _feeds(config, style, kind, count)
    norms = Norms(2 * hidden)
    notes = tuple(doubts(config, kind, familiar=kind in LATENT_KINDS, like="DeepSeek's latent attention"))
    if config.integer("index_topk", default=0, least=0):
        notes += ("Its index over tokens is not counted: weights and cache are lower bounds.",)
    if config.integer("num_nextn_predict_layers", default=0, least=0, most=64):
        notes += ("Its layers for multi-token prediction are not loaded unless asked for, and not counted.",)
    return Plan(
        hidden=hidden,
        vocabulary=vocabulary_of(config),
        layers=tuple((attention, feed, norms) for feed in feeds),
        tied=config.flag("tie_word_embeddings", default=style.tied),
        tables=tables_of(config, attention.rope_dim),
        norm=hidden,
        context=context_of(config),
        notes=notes,
    )


def llama4(config: Config, kind: str) -> Plan:
    """Return the plan of Llama 4: chunked attention, experts beside one that all tokens share."""
    hidden, count = hidden_of(config), layers_of(config)
    heads = config.integer("num_attention_heads", most=2**16)
    kv_heads = config.integer("num_key_value_heads", default=heads, most=2**16)
    size = config.integer("head_dim", default=max(1, hidden // heads))
    chunk = config.integer("attention_chunk_size", default=0, least=0, most=2**40)
    rotated = config.items("no_rope_layers", int) or [int((index + 1) % 4 != 0) for index in range(count)]
    bias = config.flag("attention_bias")
    width = config.integer("intermediate_size")
    experts = config.integer("num_local_experts", default=0, least=0, most=MOST_EXPERTS)
    top_k = config.integer("num_experts_per_tok", default=1, most=max(1, experts))
    step = config.integer("interleave_moe_layer_step", default=1, most=2**20)
    listed = config.items("moe_layers", int)
    layers = []
    for index in range(count):
        windowed = index < len(rotated) and bool(rotated[index])
        attention = GroupedQuery(
            heads, kv_heads, size, size, chunk if windowed else 0, bool(chunk), bias, bias
        )
        sparse = index in listed if listed is not None else (index + 1) % step == 0
        feed: Block
        if sparse and experts:
            feed = Mixture(experts, top_k, width, shared=width, module="feed_forward")
        else:
            feed = Dense(config.integer("intermediate_size_mlp", default=width), module="feed_forward")
        layers.append((attention, feed, Norms(2 * hidden)))
    return Plan(
        hidden=hidden,
        vocabulary=vocabulary_of(config),
        layers=tuple(layers),
        tied=config.flag("tie_word_embeddings"),
        tables=tables_of(config, size),
        norm=hidden,
        context=context_of(config),
    )


def round_up(value: float, multiple: int) -> int:
    """Return the next multiple of ``multiple``."""
    return ceil(value / multiple) * multiple
