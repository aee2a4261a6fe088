"""AMD's Quark: a scheme for all layers, others by name, and a list of plain ones. Pure."""

from __future__ import annotations

from dataclasses import replace

from subcortex.models._config import Config
from subcortex.models._modules import Modules
from subcortex.models._patterns import Budget
from subcortex.models._scheme import FP8_CHANNEL, FP8_TENSOR, MXFP4, NVFP4, Method, Scheme
from subcortex.models._settings import MOST_NOTES, entries_of, group_of, in_order, refused, skipped
from subcortex.models.shape import Quantisation

_BITS = {"fp4": 4, "int4": 4, "uint4": 4, "fp6_e3m2": 6, "fp6_e2m3": 6, "int8": 8, "uint8": 8, "fp8_e4m3": 8}
_MICRO = ("fp4", "fp6_e3m2", "fp6_e2m3")


def quark(config: Config, budget: Budget) -> Method:
    """Return what Quark's config means."""
    scheme, note = _scheme(config.inside("global_quant_config"))
    notes = [note] if note else []
    if config.inside("export") is None:
        notes.append(refused("Quark's config without an export key"))
    rules = list(skipped(config, budget, "exclude"))
    layers = []
    for name, settings in entries_of(config.inside("layer_quant_config"), budget):
        each, note = _scheme(settings)
        layers.append((name, each))
        notes += [note] if note else []
    rules += in_order(layers, budget, Modules.add_wildcards)
    kv_bits = 8.0 if _cache(config) else 0.0
    shown = scheme or next((rule.scheme for rule in rules if rule.scheme), None)
    quantisation = Quantisation(
        "quark", shown.bits if shown else 16, shown.group if shown else 0, kv_bits=kv_bits
    )
    return Method(quantisation, scheme, tuple(rules), notes=tuple(dict.fromkeys(notes))[:MOST_NOTES])


def _scheme(config: Config | None) -> tuple[Scheme | None, str]:
    """Return the scheme of weights, None for plain ones, and a note where vLLM refuses it."""
    if config is None or "weight" not in config:
        return None, ""
    stages = config.get("weight")
    if isinstance(stages, list):
        return _in_two_stages(config, stages)
    weight = config.inside("weight")
    assert weight is not None
    kind, scope = weight.text("dtype"), weight.text("qscheme")
    bits = _BITS.get(kind)
    if bits is None:
        return None, refused(f"Quark's {kind or 'unnamed numbers'}")
    if scope == "per_group":
        group = group_of(weight, "group_size", default=32)
        micro = kind in _MICRO and group == 32 and weight.text("scale_format") == "e8m0"
        if micro:
            return replace(MXFP4, bits=bits), ""
        return Scheme("group", bits, group, zero=bits / 8), refused(f"Quark's {kind} in groups of {group}")
    inputs = config.get("input_tensors")
    note = "" if bits == 8 and inputs else refused(f"Quark's {kind} {scope} without quantised inputs")
    scheme = FP8_CHANNEL if scope == "per_channel" else FP8_TENSOR
    return replace(scheme, bits=bits), note


def _in_two_stages(config: Config, stages: list[object]) -> tuple[Scheme | None, str]:
    """Return NVFP4, whose scales are scaled again, or 4 bits under a tensor of FP8."""
    kinds = [stage.get("dtype") if isinstance(stage, dict) else None for stage in stages]
    if kinds == ["fp4", "fp8_e4m3"]:
        return NVFP4, ""
    if kinds == ["fp8_e4m3", "int4"]:
        return Scheme("channel", 4, scale=4), ""
    return None, refused("Quark's weights in these stages")


def _cache(config: Config) -> bool:
    export = config.inside("export")
    return bool(export and export.items("kv_cache_group"))
