"""The weights of vision and audio towers, estimated from their configs. Pure.

A tower is a stack of plain transformer layers, 4·H² + 2·H·I or 3·H·I weights each, and what joins it to the
language model. Good to some ten per cent: families differ in adapters and positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from subcortex.models._config import MOST_LAYERS, Config
from subcortex.models.shape import Split

#: How the names of their tensors begin.
TOWER = "vision_tower"
_TOWERS = ("vision_config", "vit_config", "audio_config")
#: Families whose feed-forward parts have gates, by the tower's or the wrapper's ``model_type``.
_GATED = ("pixtral", "qwen2_5_vl", "qwen2_5_omni_vision", "glm4v", "gemma4_vision")
#: Vision towers that vLLM does not divide; audio towers it never does.
_WHOLE = ("gemma3n_vision", "gemma4_vision")
#: Conformers: two feed-forward parts of 4·H a layer, five projections and a gated convolution.
_CONFORMERS = ("gemma4_audio", "gemma3n_audio")
_CONFORMER_SQUARES = 24
#: Towers that are no transformers, whole.
_FIXED = {"mobilenetv5_300m_enc": 294_000_000}
#: Defaults of transformers' classes, which files leave out: width, inner width, layers, edge of a patch.
_DEFAULTS = {
    "clip_vision_model": (768, 3072, 12, 32),
    "pixtral": (1024, 4096, 24, 16),
    "siglip_vision_model": (768, 3072, 12, 16),
    "siglip2_vision_model": (768, 3072, 12, 16),
}
_WIDTHS = ("embed_dim", "hidden_size", "width", "d_model", "vt_hidden_size")
#: Wrappers that join with two plain layers, the second as wide as the language model.
_PROJECTED = ("llava", "vipllava", "mistral3")


@dataclass(frozen=True, slots=True)
class Towers:
    """What stands before a language model.

    Args:
        divided: Weights that tensor parallelism divides.
        whole: Weights that every rank has: towers that vLLM runs as transformers has them.
        unread: Keys of towers whose config says too little.
    """

    divided: int = 0
    whole: int = 0
    unread: tuple[str, ...] = ()

    def parts(self) -> tuple[tuple[str, int, Split], ...]:
        """Return name, weights and split of each."""
        found = ((TOWER, self.divided, Split.SHARDED), (f"{TOWER}.whole", self.whole, Split.WHOLE))
        return tuple(one for one in found if one[1])


def towers(configs: Iterable[Config], hidden: int) -> Towers:
    """Return the towers that a file names.

    Args:
        configs: The file, and the objects on the way to its language model.
        hidden: The language model's width.
    """
    divided = whole = 0
    unread = []
    for config in configs:
        outer = config.text("model_type")
        for key in _TOWERS:
            found = config.inside(key)
            if found is None:
                continue
            one = _weights(found, outer)
            if not one:
                unread.append(key)
            elif key != "audio_config" and outer.startswith(_PROJECTED):
                one += hidden * (_figures(found)[0] + hidden)
            if key == "audio_config" or found.text("model_type").startswith(_WHOLE):
                whole += one
            else:
                divided += one
    return Towers(divided, whole, tuple(unread))


def _figures(config: Config) -> tuple[int, int, int, int]:
    """Return width, inner width, layers and patch; 0 for what is not said."""
    width, inner, layers, patch = _DEFAULTS.get(config.text("model_type"), (0, 0, 0, 14))
    width = config.integer(*_WIDTHS, default=width, least=0)
    layers = config.integer(
        "num_hidden_layers",
        "depth",
        "layers",
        "encoder_layers",
        "vt_num_hidden_layers",
        "conf_num_hidden_layers",
        default=layers,
        least=0,
        most=MOST_LAYERS,
    )
    if "mlp_ratio" in config and "intermediate_size" not in config:
        inner = int(width * config.number("mlp_ratio", default=4.0, most=64))
    else:
        keys = ("intermediate_size", "encoder_ffn_dim", "vt_intermediate_size")
        inner = config.integer(*keys, default=inner or 4 * width, least=0)
    if not isinstance(config.get("patch_size"), list):
        patch = config.integer("patch_size", default=patch, most=1024)
    return width, inner, layers, patch


def _weights(config: Config, outer: str) -> int:
    several = config.get("width")
    if isinstance(several, Mapping):
        # DeepSeek-VL2's relatives name several towers under it.
        inside = config.inside("width") or config
        found = (inside.inside(key) for key, one in several.items() if isinstance(one, Mapping))
        return sum(_weights(one, "") for one in found if one is not None)
    fixed = _FIXED.get(config.text("architecture"))
    if fixed is not None:
        return fixed
    kind = config.text("model_type")
    width, inner, layers, patch = _figures(config)
    if kind.startswith(_CONFORMERS):
        return layers * _CONFORMER_SQUARES * width * width
    gated = (kind or outer).startswith(_GATED) or outer.startswith(_GATED)
    each = 4 * width * width + (3 if gated else 2) * width * inner
    if not layers * width:
        return 0
    frames = config.integer("temporal_patch_size", default=1, most=64)
    positions = 2 * width * config.integer("position_embedding_size", default=0, least=0)
    return layers * each + 3 * frames * patch * patch * width + positions + _mergers(config, width)


def _mergers(config: Config, width: int) -> int:
    """Return the weights of what joins neighbouring patches, as Qwen's towers do."""
    if "spatial_merge_size" not in config:
        return 0
    joined = width * config.integer("spatial_merge_size", most=64) ** 2
    default = config.integer("hidden_size", default=width)
    outputs = config.integer("out_hidden_size", default=default)
    depths = len(config.items("deepstack_visual_indexes", int) or [])
    return (1 + depths) * joined * (joined + outputs)
