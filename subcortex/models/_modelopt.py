"""NVIDIA's ModelOpt: FP8, NVFP4 and MXFP8, one for all layers or by layer. Pure.

Newer files keep it in config.json, flat; older ones under ``quantization``, or in a file of its own
(``hf_quant_config.json``).
"""

from __future__ import annotations

from dataclasses import replace

from subcortex.models._config import Config
from subcortex.models._modules import Modules
from subcortex.models._patterns import Budget
from subcortex.models._scheme import FP8_BLOCK, FP8_CHANNEL, FP8_TENSOR, MXFP8, NVFP4, Method, Rule, Scheme
from subcortex.models._settings import MOST_NOTES, entries_of, plain, refused, skipped
from subcortex.models.shape import Quantisation

_SCHEMES = {
    "FP8": FP8_TENSOR,
    "FP8_PER_CHANNEL_PER_TOKEN": FP8_CHANNEL,
    "FP8_PB_WO": FP8_BLOCK,
    "NVFP4": NVFP4,
    "W4A16_NVFP4": NVFP4,
    "MXFP8": MXFP8,
}
#: What vLLM takes of a file that names its maker and no ``quant_method``.
_OF_OLD_FILES = frozenset(("FP8", "FP8_PER_CHANNEL_PER_TOKEN", "FP8_PB_WO", "NVFP4"))
#: What single layers may have.
_OF_LAYERS = frozenset(("FP8", "NVFP4", "W4A16_NVFP4", "MXFP8"))
_NAMES = {"group": "nvfp4", "tensor": "fp8", "channel": "fp8", "block": "fp8"}
#: AWQ's layout as ModelOpt writes it: whole numbers of 4 bits, a 16-bit scale for 128.
_AWQ = Scheme("group", 4, 128)
_KV_BITS = {"FP8": 8.0, "NVFP4": 4 + 8 / 16}


def modelopt(config: Config, budget: Budget) -> Method:
    """Return what ModelOpt's config means."""
    inner = config.inside("quantization") or config
    algorithm = inner.text("quant_algo").upper()
    if not algorithm and config.text("quant_method").lower() == "mxfp8":
        algorithm = "MXFP8"
    rules = skipped(inner, budget, "exclude_modules", "ignore", "ignored_layers", inside=True)
    kv_bits = _kv_bits(config, inner)
    notes = _old_file(config, algorithm)
    if algorithm == "MIXED_PRECISION":
        return _mixed(config, inner, budget, rules, kv_bits, notes)
    scheme = _SCHEMES.get(algorithm)
    if scheme is not None:
        if scheme is NVFP4:
            scheme = replace(scheme, group=inner.integer("group_size", default=16))
        return Method(_quantisation(scheme, kv_bits), scheme, rules, notes=notes)
    if not algorithm:
        return _null(config, kv_bits)
    why = (refused(f"ModelOpt's {algorithm}"),)
    if algorithm in ("W4A16_AWQ", "W4A8_AWQ"):
        scheme = replace(_AWQ, group=inner.integer("group_size", default=128))
        return Method(Quantisation("awq", 4, scheme.group, kv_bits=kv_bits), scheme, rules, notes=why)
    return plain("modelopt", *why)


def _null(config: Config, kv_bits: float) -> Method:
    """Return plain weights: only the cache is quantised, or nothing."""
    if config.text("quant_method"):
        return Method(notes=(refused("ModelOpt's config without a quant_algo"),))
    quantisation = Quantisation("modelopt", 16, kv_bits=kv_bits) if kv_bits else None
    return Method(quantisation)


def _quantisation(scheme: Scheme, kv_bits: float) -> Quantisation:
    name = "mxfp8" if scheme is MXFP8 else _NAMES[scheme.kind]
    block = scheme.block if scheme.kind == "block" else None
    return Quantisation(name, scheme.bits, scheme.group, block, kv_bits=kv_bits)


def _old_file(config: Config, algorithm: str) -> tuple[str, ...]:
    producer = config.inside("producer")
    if config.text("quant_method") or producer is None or producer.text("name") != "modelopt":
        return ()
    if not algorithm or algorithm in _OF_OLD_FILES:
        return ()
    return (refused(f"ModelOpt's {algorithm} of a file that names no quant_method"),)


def _kv_bits(config: Config, inner: Config) -> float:
    """Return the bits of a cached number that vLLM takes from the file; 0 if it does not say."""
    scheme = inner.get("kv_cache_scheme") or config.get("kv_cache_scheme")
    if isinstance(scheme, str):
        return _KV_BITS.get(scheme.upper(), 0.0)
    found = inner.inside("kv_cache_scheme") or config.inside("kv_cache_scheme")
    if found is not None and found.values:
        bits = found.integer("num_bits", default=8, most=16)
        if found.text("type", "float") != "float" or (bits == 8 and found.flag("dynamic")):
            return 0.0
        return {8: 8.0, 4: _KV_BITS["NVFP4"]}.get(bits, 0.0)
    algorithm = inner.text("kv_cache_quant_algo") or config.text("kv_cache_quant_algo")
    return _KV_BITS.get(algorithm.upper(), 0.0)


def _mixed(
    config: Config,
    inner: Config,
    budget: Budget,
    rules: tuple[Rule, ...],
    kv_bits: float,
    notes: tuple[str, ...],
) -> Method:
    """Return a scheme for each layer that is listed; the rest is plain."""
    layers = inner.inside("quantized_layers")
    if layers is None or not layers.values:
        return plain("modelopt", refused("ModelOpt's MIXED_PRECISION without quantized_layers"))
    groups: dict[str, Modules] = {}
    sizes: dict[str, int] = {}
    other: dict[str, str] = {}
    for name, layer in entries_of(layers, budget):
        algorithm = layer.text("quant_algo").upper() if layer else ""
        if algorithm not in _OF_LAYERS:
            other[algorithm] = f"Layers in ModelOpt's {algorithm[:80] or 'nothing'} stay plain in vLLM."
            algorithm = ""
        if algorithm not in groups:
            groups[algorithm] = Modules(budget)
        groups[algorithm].add_name(name)
        if layer and "group_size" in layer:
            sizes.setdefault(algorithm, layer.integer("group_size"))
    notes += tuple(other.values())[:MOST_NOTES]
    found: list[Rule] = []
    for algorithm, modules in groups.items():
        scheme = _SCHEMES.get(algorithm)
        if scheme is NVFP4:
            scheme = replace(scheme, group=sizes.get(algorithm, 16))
        found.append(Rule(modules, scheme))
    widest = max((rule.scheme for rule in found if rule.scheme), key=lambda each: each.bits, default=None)
    if widest is None:
        return plain("modelopt", *notes)
    method = replace(_quantisation(widest, kv_bits), bits=min(r.scheme.bits for r in found if r.scheme))
    return Method(method, None, (*rules, *found), notes=notes)
