"""The weights of vision and audio towers, estimated from their configs. Pure.

A tower is a stack of plain transformer layers, 4·H² + 2·H·I or 3·H·I weights each; what joins it to the
language model is small. Good to some ten per cent: families differ in adapters and positions.
"""

from __future__ import annotations

from subcortex.models._config import MOST_LAYERS, Config

_TOWERS = ("vision_config", "audio_config", "vit_config")
#: Families whose feed-forward parts have gates.
_GATED = ("pixtral", "qwen2_5_vl", "kimi", "llama4")


def tower(config: Config) -> int:
    """Return the weights of all towers that a config names; 0 for none."""
    return sum(_weights(found) for key in _TOWERS if (found := config.inside(key)) is not None)


def _weights(config: Config) -> int:
    hidden = config.integer(
        "embed_dim", "hidden_size", "width", "d_model", "vt_hidden_size", default=0, least=0
    )
    layers = config.integer(
        "num_hidden_layers",
        "depth",
        "layers",
        "encoder_layers",
        "vt_num_hidden_layers",
        default=0,
        least=0,
        most=MOST_LAYERS,
    )
    if "mlp_ratio" in config and "intermediate_size" not in config:
        width = int(hidden * config.number("mlp_ratio", default=4.0, most=64))
    else:
        width = config.integer(
            "intermediate_size", "encoder_ffn_dim", "vt_intermediate_size", default=4 * hidden, least=0
        )
    gated = config.text("model_type").startswith(_GATED)
    each = 4 * hidden * hidden + (3 if gated else 2) * hidden * width
    listed = isinstance(config.get("patch_size"), list)
    patch = 14 if listed else config.integer("patch_size", default=14, most=1024)
    return layers * each + 3 * patch * patch * hidden
