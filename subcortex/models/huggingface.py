"""From a config.json to a model's shape: the tensors as vLLM holds them, synthesised. Pure.

Bytes are those of vLLM 0.26 after loading; ``tests/vram/oracle`` holds what its own classes say. Small
buffers (16 bytes a layer) are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from subcortex.errors import ConfigError
from subcortex.models import _delta_nets, _families, _gemma, _hybrids, _nested
from subcortex.models._beside import Kept
from subcortex.models._blocks import PLAIN, Block, Dense, GroupedQuery, Latent, Mixture, Place
from subcortex.models._config import Config
from subcortex.models._plan import Blocks, Plan
from subcortex.models._recurrent import Recurrent
from subcortex.models._styles import STYLES
from subcortex.models._unfamiliar import refuse
from subcortex.models._vision import Towers, towers
from subcortex.models._wrappers import Wrapped, unwrapped
from subcortex.models.quantisation import Method, method_of
from subcortex.models.shape import Doubt, Layer, ModelShape, Note, Part, Split, Tensor, doubt_of

Maker = Callable[[Config, str], Plan]
_Keeps = GroupedQuery | Kept | Latent | Recurrent

#: Families that are no plain transformers, by ``model_type``.
_MAKERS: dict[str, Maker] = {
    **dict.fromkeys(_families.LATENT_KINDS, _families.latent),
    **dict.fromkeys(("deepseek", "deepseek_v2", "deepseek_vl_v2"), _nested.deepseek),
    **dict.fromkeys(("llama4", "llama4_text"), _families.llama4),
    "dbrx": _nested.dbrx,
    "longcat_flash": _nested.longcat_flash,
    "longcat_flash_ngram": _nested.longcat_flash,
    "phi3small": _nested.phi3small,
    "qwen": _nested.qwen1,
    **dict.fromkeys(("gemma3n", "gemma3n_text"), _gemma.gemma3n),
    **dict.fromkeys(("gemma4", "gemma4_text"), _gemma.gemma4),
    "mamba": _hybrids.mamba,
    "falcon_mamba": _hybrids.mamba,
    "mamba2": _hybrids.mamba2,
    "jamba": _hybrids.jamba,
    "bamba": _hybrids.bamba,
    "falcon_h1": _hybrids.falcon_h1,
    "granitemoehybrid": _hybrids.granite_hybrid,
    "nemotron_h": _hybrids.nemotron_h,
    "lfm2": _hybrids.lfm2,
    "lfm2_moe": _hybrids.lfm2,
    "zamba2": _hybrids.zamba2,
    "kimi_linear": _delta_nets.kimi_linear,
    **dict.fromkeys(("minimax", "minimax_text_01", "minimax_m1"), _delta_nets.minimax),
    "olmo_hybrid": _delta_nets.olmo_hybrid,
    "qwen3_next": _delta_nets.qwen3_next,
    **dict.fromkeys(("qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text"), _delta_nets.qwen3_next),
}


def from_config(config: Mapping[str, Any], name: str, *, file: str = "") -> ModelShape:
    """Return the shape of a model from its config.json.

    Args:
        config: The parsed file.
        name: What to call the model.
        file: Where it came from, for errors.

    Raises:
        ConfigError: A figure is missing, or cannot be a model's; names the file and the key.
    """
    if not isinstance(config, Mapping):
        raise ConfigError(
            f"the config of {file or name} is a {type(config).__name__}, not an object",
            hint="Give a model's config.json.",
            file=file or name,
        )
    whole = Config(config, name, file=file)
    wrapped = unwrapped(whole)
    method = method_of(whole)
    if method.quantisation is None and wrapped.text is not whole:
        method = method_of(wrapped.text)
    return _shape(wrapped, plan_of(whole, wrapped.text), method, name)


def plan_of(whole: Config, text: Config) -> Plan:
    """Return the parts of a model.

    Args:
        whole: The file.
        text: The language model's object in it, or the same.
    """
    kind = text.text("model_type") or whole.text("model_type")
    refuse(text, kind)
    maker = _MAKERS.get(kind)
    if maker is None and "kv_lora_rank" in text and kind not in STYLES:
        maker = _families.latent
    tied = text if "tie_word_embeddings" in text or text is whole else whole
    if tied is not text and "tie_word_embeddings" in whole:
        text = text.with_values({"tie_word_embeddings": whole.get("tie_word_embeddings")})
    return (maker or _families.plain)(text, kind)


def _shape(wrapped: Wrapped, plan: Plan, method: Method, name: str) -> ModelShape:
    whole, text = wrapped.around[0], wrapped.text
    architectures = whole.items("architectures", str) or text.items("architectures", str) or [""]
    before = towers(wrapped.around, plan.hidden)
    of_form = [Note(note, doubt_of(note) | Doubt.FORM) for note in method.notes]
    notes = (*wrapped.notes, *plan.notes, *of_form)
    if method.unread:
        words = f"Patterns of modules in its quantisation that are not understood: {method.unread}"
        notes += (Note(words, Doubt.FORM),)
    if before.unread:
        notes += (f"Its {before.unread[0]} says too little to count it: its weights are a lower bound.",)
    if before.parts():
        words = "Its vision or audio tower is estimated from its config to some ten per cent."
        notes += (Note(words, Doubt.ESTIMATED),)
    return ModelShape(
        name=name,
        architecture=architectures[0] or text.text("model_type"),
        source="config.json",
        hidden=plan.hidden,
        vocabulary=plan.vocabulary,
        layers=_layers(plan),
        tensors=(*_beside(plan, before), *_of_layers(plan, method)),
        tied=plan.tied,
        max_context_tokens=plan.context,
        rope_dim=plan.tables[0][1] if plan.tables else plan.rotated,
        dtype_bytes=float(PLAIN),
        quantisation=method.quantisation,
        notes=notes,
    )


def _layers(plan: Plan) -> tuple[Layer, ...]:
    made: dict[Blocks, Layer] = {}
    for blocks in plan.layers:
        if blocks not in made:
            made[blocks] = _layer(blocks)
    return tuple(made[blocks] for blocks in plan.layers)


def _layer(blocks: Iterable[Block]) -> Layer:
    kept = tuple(block.kept() for block in blocks if isinstance(block, _Keeps))
    dense = next((block for block in blocks if isinstance(block, Dense)), None)
    mixture = next((block for block in blocks if isinstance(block, Mixture)), None)
    return Layer(
        kept,
        dense.width if dense else 0,
        mixture.kept() if mixture else None,
        gated=(dense or mixture).gated if dense or mixture else True,  # type: ignore[union-attr]
    )


def _of_layers(plan: Plan, method: Method) -> Iterator[Tensor]:
    """Yield the tensors of all layers; alike ones are worked out once."""
    marks = method.marks(plan.path, len(plan.layers))
    made: dict[Any, list[Tensor]] = {}
    for index, blocks in enumerate(plan.layers):
        key = (blocks, marks[index])
        if key not in made:
            at = Place(plan.hidden, f"{plan.path}.{index}", method)
            made[key] = [tensor for block in blocks for tensor in block.tensors(at)]
        for t in made[key]:
            yield Tensor(
                t.name,
                t.elements,
                t.bytes,
                t.split,
                t.part,
                index,
                t.rows,
                t.count,
                t.expert,
                t.heads,
                t.units,
            )


def _beside(plan: Plan, before: Towers) -> Iterator[Tensor]:
    """Yield what stands outside layers."""
    rows, width = plan.vocabulary, plan.embedding_width or plan.hidden
    table = rows * width
    yield Tensor("embed_tokens", table, PLAIN * table, Split.VOCABULARY, Part.EMBEDDING, rows=rows)
    at = Place(plan.hidden, plan.path, Method())
    for block in plan.beside:
        for t in block.tensors(at):
            yield replace(t, part=Part.EMBEDDING)
    for name, weights, split in before.parts():
        yield Tensor(name, weights, PLAIN * weights, split, Part.EMBEDDING)
    if not plan.tied:
        yield Tensor("lm_head", table, PLAIN * table, Split.VOCABULARY, Part.HEAD, rows=rows)
    if plan.head_bias:
        yield Tensor("lm_head.bias", rows, PLAIN * rows, Split.VOCABULARY, Part.HEAD, rows=rows)
    if plan.norm:
        yield Tensor("norm", plan.norm, PLAIN * plan.norm, Split.WHOLE, Part.FINAL)
    for block in plan.everywhere:
        yield from block.tensors(at)
    for number, (positions, size) in enumerate(plan.tables):
        # Not of the checkpoint: counted in bytes, not among the weights.
        name = f"rotary.cos_sin.{number}" if number else "rotary.cos_sin"
        yield Tensor(name, 0, plan.table_bytes * positions * size, Split.WHOLE)
