"""What a config says that its family's plan does not count: notes on how the figures are off. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from subcortex.errors import ConfigError
from subcortex.models._config import Config
from subcortex.models.shape import Doubt, Note

#: What plain transformers call their layers; the rest of transformers' names are hybrids'.
_KNOWN_TYPES = frozenset(("full_attention", "sliding_attention", "attention"))
#: Keys by which hybrids say which layers keep a state, or share another's cache.
_HYBRID_KEYS = (
    "attn_layer_indices",
    "attn_type_list",
    "block_types",
    "compress_ratios",
    "full_attn_idxs",
    "hybrid_override_pattern",
    "layer_group_size",
    "layers_block_type",
    "linear_attn_config",
    "linear_num_key_heads",
    "mamba_d_state",
    "num_kv_shared_layers",
    "ssm_state_size",
)
#: Families whose memory does not follow from what is known here, and why.
_REFUSED = {
    "deepseek_v4": "its layers keep caches compressed at rates of their own, beside an index and a window",
}


def refuse(config: Config, kind: str) -> None:
    """Raise where a wrong figure would be all that there is.

    Raises:
        ConfigError: Models of this ``model_type`` cannot be sized from their config.
    """
    why = _REFUSED.get(kind)
    if why is not None:
        raise ConfigError(
            f"models of type {kind} cannot be sized from their config: {why}",
            hint="Plan another model, or boot this one once and write down what it takes.",
            file=config.file,
            key="model_type",
        )


def doubts(config: Config, kind: str, *, familiar: bool, like: str = "a Llama") -> Iterator[str]:
    """Yield what to know of the figures of a plan in which every layer attends.

    Args:
        config: The text model's.
        kind: Its ``model_type``.
        familiar: The family is known.
        like: What it is counted as otherwise.

    Raises:
        ConfigError: A key is not what it should be.
    """
    if not familiar:
        label = kind or "unnamed"
        words = f"Models of type {label} are not known here: counted as {like} with the config's figures."
        yield Note(words, Doubt.UNFAMILIAR)
    types = sorted(set(config.items("layer_types", str) or ()) - _KNOWN_TYPES)
    if types:
        named = ", ".join(ascii(name[:40]) for name in types[:4])
        yield (
            f"Layers of type {named} are not known for this family: counted as full attention, so the cache "
            "of a long request is an upper bound and the weights are a guess."
        )
    said = [key for key in _HYBRID_KEYS if config.get(key)]
    if said and not familiar and not types:
        yield (
            f"It says {said[0]}, so some layers may keep a state or share a cache: all are counted as full "
            "attention, so the cache of a long request is an upper bound and the weights are a guess."
        )
