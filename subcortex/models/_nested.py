"""Families whose configs name things in their own way, or nest them: as plain transformers' figures. Pure.

The facts are those of vLLM 0.26, of older ones for Qwen 1 (0.23) and Phi-3 small (0.9), and of the
models' own configuration classes.
"""

from __future__ import annotations

from dataclasses import replace

from subcortex.models._blocks import FLOAT32, Dense, Latent, Mixture, Norms
from subcortex.models._config import MOST_EXPERTS, MOST_LAYERS, Config
from subcortex.models._families import latent, plain
from subcortex.models._plan import Blocks, Plan, hidden_of, vocabulary_of
from subcortex.models._rotary import context_of, tables_of


def dbrx(config: Config, kind: str) -> Plan:
    """Return the plan of DBRX, which nests the figures of its attention and its experts."""
    attention, feed = config.inside("attn_config"), config.inside("ffn_config")
    if attention is None or feed is None:
        raise config.missing(["attn_config" if attention is None else "ffn_config"])
    experts = feed.integer("moe_num_experts", most=MOST_EXPERTS)
    figures = {
        "num_key_value_heads": attention.integer("kv_n_heads", most=2**16),
        "intermediate_size": feed.integer("ffn_hidden_size"),
        "num_experts": experts,
        "num_experts_per_tok": feed.integer("moe_top_k", most=experts),
    }
    return plain(config.with_values(figures), kind)


def qwen1(config: Config, kind: str) -> Plan:
    """Return the plan of the first Qwen, whose ``intermediate_size`` is gate and up-projection."""
    figures = {
        "intermediate_size": max(1, config.integer("intermediate_size") // 2),
        "num_key_value_heads": None,
        "head_dim": config.get("kv_channels"),
    }
    return plain(config.with_values(figures), kind)


def phi3small(config: Config, kind: str) -> Plan:
    """Return the plan of Phi-3 small; its sparse attention saves time, not memory."""
    width = config.integer("ff_intermediate_size", "intermediate_size")
    return plain(config.with_values({"intermediate_size": width}), kind)


def deepseek(config: Config, kind: str) -> Plan:
    """Return the plan of a DeepSeek: with latent attention or without (V1, DeepSeek-OCR)."""
    if config.flag("use_mla", default=True) and "kv_lora_rank" in config:
        return latent(config, kind)
    # As vLLM's is_deepseek_mla decides; what it says of compressed heads is zero then.
    return plain(config, "deepseek")


def longcat_flash(config: Config, kind: str) -> Plan:
    """Return the plan of LongCat-Flash: each layer has two latent attentions, two dense parts and experts."""
    hidden = hidden_of(config)
    count = config.integer("num_layers", "num_hidden_layers", most=MOST_LAYERS)
    attention = Latent(
        config.integer("num_attention_heads", most=2**16),
        config.integer("kv_lora_rank", default=512),
        config.integer("q_lora_rank", default=1536, least=0),
        config.integer("qk_rope_head_dim", default=64),
        config.integer("qk_nope_head_dim", default=128),
        config.integer("v_head_dim", default=128),
        bias=config.flag("attention_bias"),
    )
    dense = Dense(config.integer("ffn_hidden_size", "intermediate_size"), module="mlps")
    experts = config.integer("n_routed_experts", "num_experts", most=MOST_EXPERTS)
    mixture = Mixture(
        experts,
        config.integer("moe_topk", "num_experts_per_tok", most=experts),
        config.integer("expert_ffn_hidden_size", "moe_intermediate_size"),
        router_bytes=FLOAT32,
        correction=True,
        idle=config.integer("zero_expert_num", default=0, least=0, most=MOST_EXPERTS),
    )
    layer: Blocks = (attention, attention, dense, dense, mixture, Norms(4 * hidden))
    notes: tuple[str, ...] = ()
    if kind != "longcat_flash":
        notes = (f"Of {kind} only what LongCat-Flash has is counted: its weights are a lower bound.",)
    plan = Plan(
        hidden=hidden,
        vocabulary=vocabulary_of(config),
        layers=(layer,) * count,
        tied=config.flag("tie_word_embeddings"),
        norm=hidden,
        context=context_of(config),
        notes=notes,
    )
    return replace(plan, tables=tables_of(config, attention.rope_dim))
