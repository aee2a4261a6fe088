"""Rotary tables and the context they are for, as vLLM makes them (``layers/rotary_embedding``). Pure.

vLLM keeps one table of cosines and sines a kind of rotary embedding, whole on every rank, for as many
positions as the model was made for: 10 MiB for most models, 2.5 GiB for Llama 4 Scout.
"""

from __future__ import annotations

from collections.abc import Mapping

from subcortex.models._config import MOST_TOKENS, Config

#: Where configs say the longest context; vLLM takes the smallest of them.
_LENGTHS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
    "n_ctx",
)
_FULL, _SLIDING = "full_attention", "sliding_attention"


def scaling_of(config: Config) -> Config | None:
    """Return how positions are scaled, under its old or new name; for full attention where that differs."""
    found = config.inside("rope_parameters") or config.inside("rope_scaling")
    if found is not None and _FULL in found:
        return found.inside(_FULL)
    return found


def positions_of(config: Config, default: int = 2048) -> int:
    """Return the positions that the config names, before scaling."""
    return config.integer("max_position_embeddings", *_LENGTHS[1:], default=default, most=MOST_TOKENS)


def context_of(config: Config, *, scaled: bool = False) -> int:
    """Return the longest context, as ``_get_and_verify_max_len`` of vLLM derives it.

    Args:
        config: The text model's.
        scaled: The positions it names are scaled already (Gemma 3).
    """
    named = [config.integer(key, most=MOST_TOKENS) for key in _LENGTHS if key in config]
    longest = min(named, default=2048)
    scaling = scaling_of(config)
    if scaling is None or scaled:
        return longest
    kind = scaling.text("rope_type") or scaling.text("type") or "default"
    if kind in ("default", "llama3", "mrope", "longrope", "su"):
        return longest
    factor = scaling.number("factor", default=1.0, most=2**20)
    if kind in ("yarn", "deepseek_yarn"):
        longest = scaling.integer("original_max_position_embeddings", default=longest, most=MOST_TOKENS)
    return int(longest * factor)


def tables_of(config: Config, head_dim: int, *, partial: float = 1.0) -> tuple[tuple[int, int], ...]:
    """Return the tables' rows and elements of a row: one, or two where windowed layers have their own.

    Args:
        config: The text model's.
        head_dim: Elements a head, or those of them that can be rotated.
        partial: Share of them that is, unless the config says.
    """
    parameters = config.inside("rope_parameters")
    partial = config.number("partial_rotary_factor", "rotary_pct", default=partial, most=1.0)
    if parameters is not None and _FULL in parameters and _SLIDING in parameters:
        kinds = [parameters.inside(_FULL), parameters.inside(_SLIDING)]
    else:
        kinds = [parameters or config.inside("rope_scaling")]
    # A base for windows alone makes a second table (Gemma 3).
    local = "rope_local_base_freq" in config and len(kinds) == 1
    positions = positions_of(config)
    found = [_table(config, scaling, positions, head_dim, partial) for scaling in kinds]
    if local:
        found.append((positions, int(head_dim * partial)))
    return tuple(dict.fromkeys(found)) if not local and _alike(kinds) else tuple(found)


def tables_by_kind(config: Config, sizes: Mapping[str, int]) -> tuple[tuple[int, int], ...]:
    """Return a table for each kind of layer, where their heads are of unlike sizes (Gemma 4).

    Args:
        config: The text model's.
        sizes: Kind of layer → elements a head.
    """
    parameters = config.inside("rope_parameters")
    positions = positions_of(config)
    found = []
    for kind, size in sizes.items():
        scaling = parameters.inside(kind) if parameters is not None and kind in parameters else parameters
        found.append(_table(config, scaling, positions, size, 1.0))
    return tuple(found)


def _alike(kinds: list[Config | None]) -> bool:
    return len({repr(sorted(kind.values.items())) if kind else "" for kind in kinds}) == 1


def _table(
    config: Config, scaling: Config | None, positions: int, head_dim: int, partial: float
) -> tuple[int, int]:
    if scaling is None:
        return positions, int(head_dim * partial)
    partial = scaling.number("partial_rotary_factor", default=partial, most=1.0)
    kind = scaling.text("rope_type") or scaling.text("type") or "default"
    # Its share of a head stands still instead of being left out (vLLM ``gemma4_rope.py``).
    width = head_dim if kind == "proportional" else int(head_dim * partial)
    factor = scaling.number("factor", default=1.0, most=2**20)
    original = scaling.integer(
        "original_max_position_embeddings",
        default=config.integer("original_max_position_embeddings", default=positions, most=MOST_TOKENS),
        most=MOST_TOKENS,
    )
    if scaling.items("mrope_section") is not None:
        # Long videos count more positions than tokens.
        return 4 * positions, width
    if kind in ("longrope", "su"):
        return original + positions, width
    if kind in ("yarn", "deepseek_yarn"):
        return int(original * factor), width
    if kind == "linear":
        return int(positions * factor), width
    return positions, width
