"""What quantised weights take in vLLM's memory: scales and zero points included, exceptions left out. Pure.

The methods and their files are many, the arithmetic is not: so many bits a weight, so many bytes a group of
weights, a channel, a block or a tensor. The rules are those of vLLM 0.26 ``layers/quantization``, after its
kernels have rearranged what was loaded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil
from typing import Literal

from subcortex.models._blocks import PLAIN, Cost
from subcortex.models._config import Config
from subcortex.models._requantise import requantised
from subcortex.models._skipped import Skipped
from subcortex.models.shape import Quantisation

__all__ = ["Method", "method_of", "requantised"]

Kind = Literal["plain", "group", "channel", "block", "tensor", "mxfp4"]
#: MXFP4 kernels take experts whose width, on a rank, is a multiple of this (vLLM ``mxfp4`` round-up).
_MXFP4_WIDTH = 64
_MXFP4_GROUP = 32
_BNB4_GROUP = 64


@dataclass(frozen=True, slots=True)
class Method:
    """A way of storing linear layers.

    Args:
        quantisation: It as the shape has it; None for plain weights.
        kind: What shares a scale.
        bits: Bits a weight.
        group: Weights along the input that share a scale; 0 for all of them.
        scale: Bytes of a scale.
        zero: Bytes of a group's zero point.
        expert_zero: The same where experts' kernels keep it otherwise.
        index: Bytes that every input takes (GPTQ's group index).
        block: Rows and columns of a block.
        skipped: Modules that stay plain.
        notes: What is not certain about it.
    """

    quantisation: Quantisation | None = None
    kind: Kind = "plain"
    bits: float = 16
    group: int = 0
    scale: float = PLAIN
    zero: float = 0.0
    expert_zero: float = 0.0
    index: float = 0.0
    block: tuple[int, int] = (128, 128)
    skipped: Skipped = field(default_factory=Skipped)
    notes: tuple[str, ...] = ()

    @property
    def absorbs(self) -> bool:
        """MLA keeps plain copies of its up-projections beside quantised ones."""
        return self.kind not in ("plain", "mxfp4")

    def cost(
        self,
        path: str,
        inputs: int,
        outputs: int,
        *,
        row: bool = False,
        parts: int = 1,
        follows: bool = False,
    ) -> Cost:
        """Return what a linear layer takes; see `Pricing`."""
        expert = ".experts." in path
        if self.kind == "plain" or self.skipped.has(path) or (self.kind == "mxfp4" and not expert):
            return Cost(PLAIN * inputs * outputs)
        weights = inputs * outputs * self.bits / 8
        match self.kind:
            case "mxfp4":
                return _mxfp4(inputs, outputs, row=row, parts=parts)
            case "block":
                rows, columns = self.block
                blocks = parts * ceil(outputs / parts / rows) * ceil(inputs / columns)
                return Cost(weights + blocks * self.scale)
            case "channel":
                scales = self.scale * outputs
                return Cost(weights, scales) if row else Cost(weights + scales)
            case "tensor":
                return Cost(weights, 0 if follows else self.scale)
        return self._grouped(weights, inputs, outputs, row=row, expert=expert, follows=follows)

    def _grouped(
        self, weights: float, inputs: int, outputs: int, *, row: bool, expert: bool, follows: bool
    ) -> Cost:
        groups = ceil(inputs / self.group) if self.group else 1
        zero = self.expert_zero if expert else self.zero
        index = 0.0 if follows else self.index * inputs
        scales, zeros = groups * outputs * self.scale, groups * outputs * zero
        if self.quantisation and self.quantisation.act_order and row:
            # Any input may belong to any group: every rank needs all scales, and a sorted index beside the
            # index. Zero points go once the layer is rearranged.
            return Cost(weights + 2 * index, scales)
        if not row:
            return Cost(weights + scales + zeros, index)
        return (
            Cost(weights + index, scales + zeros) if groups == 1 else Cost(weights + scales + zeros + index)
        )


def _mxfp4(inputs: int, outputs: int, *, row: bool, parts: int) -> Cost:
    """Return an expert's layer in MXFP4: 4 bits, and a byte for 32 of them; the width padded a rank."""
    units = ceil((inputs if row else outputs / parts) / _MXFP4_WIDTH)
    width = units * _MXFP4_WIDTH
    elements = width * outputs if row else inputs * parts * width
    return Cost(elements / 2 + elements / _MXFP4_GROUP, units=units)


def method_of(config: Config) -> Method:
    """Return how a config.json's ``quantization_config`` stores linear layers; plain without one.

    A method that is not known counts as plain unless it says its bits, with a note.

    Raises:
        ConfigError: A value in it cannot be.
    """
    found = config.inside("quantization_config") or config.inside("compression_config")
    if found is None:
        return Method()
    name = found.text("quant_method").lower()
    if not name and ("quant_algo" in found or found.inside("quantization")):
        name = "modelopt"
    match name:
        case "awq" | "awq_marlin":
            return _awq(found)
        case "gptq" | "gptq_marlin" | "auto-round" | "autoround":
            return _gptq(found)
        case "fp8" | "fbgemm_fp8":
            return _fp8(found, name)
        case "compressed-tensors" | "compressed_tensors":
            return _compressed(found)
        case "modelopt" | "modelopt_fp4":
            return _modelopt(found)
        case "mxfp4":
            quantisation = Quantisation("mxfp4", 4.25, _MXFP4_GROUP)
            note = "Experts in MXFP4 are counted as on Hopper; kernels of other cards pad them by up to 14 %."
            skipped = _skipped(found, "modules_to_not_convert")
            return Method(quantisation, "mxfp4", 4, skipped=skipped, notes=(note,))
        case "bitsandbytes":
            return _bitsandbytes(found)
    return _unknown(found, name)


def _skipped(config: Config, *keys: str, inside: bool = False) -> Skipped:
    entries: list[str] = []
    for key in keys:
        entries += config.items(key, str) or []
    return Skipped.of(entries, inside=inside)


def _awq(config: Config) -> Method:
    bits = config.integer("bits", "w_bit", default=4, most=16)
    group = max(0, config.integer("group_size", "q_group_size", default=128, least=-1))
    zeros = config.flag("zero_point", default=True)
    # Machete (Hopper) unpacks zero points to 16 bits; Marlin, on other cards and for experts, does not.
    return Method(
        Quantisation("awq", bits, group),
        "group",
        bits,
        group,
        zero=PLAIN * zeros,
        expert_zero=bits / 8 * zeros,
        skipped=_skipped(config, "modules_to_not_convert", inside=True),
    )


def _gptq(config: Config) -> Method:
    bits = config.integer("bits", default=4, most=16)
    group = max(0, config.integer("group_size", default=128, least=-1))
    act_order = config.flag("desc_act")
    quantisation = Quantisation("gptq", bits, group, act_order=act_order)
    return Method(
        quantisation,
        "group",
        bits,
        group,
        zero=bits / 8,
        expert_zero=bits / 8,
        index=4.0,
        skipped=_skipped(config, "modules_to_not_convert", inside=True),
    )


def _fp8(config: Config, name: str) -> Method:
    skipped = _skipped(config, "modules_to_not_convert", "ignored_layers", "ignore")
    block = config.items("weight_block_size", int)
    if name == "fbgemm_fp8":
        return Method(Quantisation("fp8", 8), "channel", 8, scale=4, skipped=skipped)
    if block is None:
        return Method(Quantisation("fp8", 8), "tensor", 8, scale=8, skipped=skipped)
    if len(block) != 2 or not all(1 <= size <= 2**16 for size in block):
        raise config.wrong("weight_block_size", block, "two whole numbers of 1 to 65536")
    shape = (block[0], block[1])
    return Method(Quantisation("fp8", 8, block=shape), "block", 8, scale=4, block=shape, skipped=skipped)


def _compressed(config: Config) -> Method:
    """Return a compressed-tensors scheme: that of its first group of layers."""
    groups = config.inside("config_groups")
    if groups is None or not groups.values:
        return _unknown(config, "compressed-tensors")
    key = next(iter(groups.values))
    weights = (groups.inside(str(key)) or groups).inside("weights")
    if weights is None:
        return _unknown(config, "compressed-tensors")
    bits = weights.integer("num_bits", default=8, most=16)
    strategy = weights.text("strategy") or "group"
    group = weights.integer("group_size", default=0, least=-1)
    kv = config.inside("kv_cache_scheme")
    kv_bits = kv.integer("num_bits", default=8, most=16) if kv else 0
    notes = ("Only its first group of quantised layers is counted.",) if len(groups.values) > 1 else ()
    skipped = _skipped(config, "ignore")
    floating = weights.text("type") == "float"
    if strategy == "block":
        block = weights.items("block_structure", int) or [128, 128]
        if len(block) != 2 or not all(1 <= size <= 2**16 for size in block):
            raise weights.wrong("block_structure", block, "two whole numbers of 1 to 65536")
        shape = (block[0], block[1])
        quantisation = Quantisation("compressed-tensors", bits, block=shape, kv_bits=kv_bits)
        return Method(quantisation, "block", bits, scale=4, block=shape, skipped=skipped, notes=notes)
    if strategy == "tensor":
        quantisation = Quantisation("compressed-tensors", bits, kv_bits=kv_bits)
        return Method(quantisation, "tensor", bits, scale=8, skipped=skipped, notes=notes)
    if bits == 8 and strategy == "channel":
        quantisation = Quantisation("compressed-tensors", bits, kv_bits=kv_bits)
        return Method(quantisation, "channel", bits, scale=4, skipped=skipped, notes=notes)
    group = 0 if strategy == "channel" else max(0, group)
    act_order = bool(weights.get("actorder")) and weights.get("actorder") not in ("static", "weight")
    quantisation = Quantisation("compressed-tensors", bits, group, act_order=act_order, kv_bits=kv_bits)
    zero = 0.0 if floating or weights.flag("symmetric", default=True) else bits / 8
    # NVFP4 and MXFP4 have scales of one byte.
    scale = 1 if floating and bits == 4 else PLAIN
    return Method(
        quantisation,
        "group",
        bits,
        group,
        scale=scale,
        zero=zero,
        expert_zero=zero,
        index=4.0 if act_order else 0.0,
        skipped=skipped,
        notes=notes,
    )


def _modelopt(config: Config) -> Method:
    inner = config.inside("quantization") or config
    algorithm = inner.text("quant_algo").upper()
    kv = config.inside("kv_cache_scheme")
    kv_bits = 8.0 if "FP8" in inner.text("kv_cache_quant_algo").upper() else 0.0
    if kv is not None:
        kv_bits = kv.integer("num_bits", default=8, most=16)
    skipped = _skipped(inner, "exclude_modules", "ignore")
    if "FP4" in algorithm:
        group = inner.integer("group_size", default=16)
        quantisation = Quantisation("nvfp4", 4, group, kv_bits=kv_bits)
        return Method(quantisation, "group", 4, group, scale=1, skipped=skipped)
    quantisation = Quantisation("fp8", 8, kv_bits=kv_bits)
    return Method(quantisation, "tensor", 8, scale=8, skipped=skipped)


def _bitsandbytes(config: Config) -> Method:
    skipped = _skipped(config, "llm_int8_skip_modules", inside=True)
    if config.flag("load_in_8bit", "_load_in_8bit"):
        return Method(Quantisation("bitsandbytes", 8), "channel", 8, scale=4, skipped=skipped)
    quantisation = Quantisation("bitsandbytes", 4, _BNB4_GROUP)
    return Method(quantisation, "group", 4, _BNB4_GROUP, scale=4, skipped=skipped)


def _unknown(config: Config, name: str) -> Method:
    label = name or "unnamed"
    if "bits" not in config and "w_bit" not in config:
        note = f"Quantisation by {label} is not known here: weights are counted as 16 bits."
        return Method(Quantisation(label, 16), notes=(note,))
    bits = config.integer("bits", "w_bit", most=16)
    group = max(0, config.integer("group_size", default=128, least=-1))
    note = f"Quantisation by {label} is not known here: {bits} bits in groups of {group} are assumed."
    return Method(Quantisation(label, bits, group), "group", bits, group, zero=bits / 8, notes=(note,))
