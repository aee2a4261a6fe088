"""What quantised weights take in vLLM's memory: scales and zero points included, exceptions left out. Pure.

The rules are those of vLLM 0.26 ``layers/quantization``. What it refuses to load is counted all the same
where its size is known, with a note that says so: plans may ask for the model in another form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from subcortex.models._blocks import PLAIN
from subcortex.models._compressed import compressed_tensors
from subcortex.models._config import Config
from subcortex.models._gptq import auto_round, awq, gptq
from subcortex.models._modelopt import modelopt
from subcortex.models._patterns import Budget
from subcortex.models._quark import quark
from subcortex.models._requantise import requantised
from subcortex.models._scheme import FP8_CHANNEL, FP8_TENSOR, MXFP4_GROUP, Method, Scheme
from subcortex.models._settings import block_of, plain, refused, skipped, unfamiliar
from subcortex.models._torchao import torchao
from subcortex.models.shape import Quantisation

__all__ = ["Method", "lacks_quantisation", "method_of", "requantised", "with_hf_quant_config"]

Reader = Callable[[Config, Budget], Method]
_BNB4_GROUP = 64
_MOST_NAME = 60
#: The keys that bitsandbytes had before methods were named.
_OLD_BITSANDBYTES = ("load_in_4bit", "load_in_8bit")


def method_of(config: Config) -> Method:
    """Return how a config.json's ``quantization_config`` stores linear layers; plain without one.

    A method that is not known counts as plain unless it says its bits, with a note.

    Raises:
        ConfigError: A value in it cannot be, or its lists of modules take too long to search.
    """
    key = "quantization_config" if "quantization_config" in config else "compression_config"
    found = config.inside(key)
    if found is None:
        return Method()
    budget = Budget(config, key)
    name = found.text("quant_method").lower().replace("compressed_tensors", "compressed-tensors")
    if not name and ("quant_algo" in found or found.inside("quantization")):
        name = "modelopt"
    if not name:
        return _unnamed(found)
    reader = _READERS.get(name)
    return reader(found, budget) if reader else _unknown(found, name[:_MOST_NAME])


def lacks_quantisation(config: Mapping[str, Any]) -> bool:
    """Tell whether vLLM looks for more in the ``hf_quant_config.json`` that ModelOpt wrote until 2025.

    It does where config.json says nothing, or that layers differ and not how.
    """
    own = config.get("quantization_config")
    if not isinstance(own, Mapping):
        return own is None
    return str(own.get("quant_algo")).upper() == "MIXED_PRECISION" and "quantized_layers" not in own


def with_hf_quant_config(config: Mapping[str, Any], beside: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config.json that `lacks_quantisation` with what its ``hf_quant_config.json`` says.

    Args:
        config: The parsed config.json.
        beside: The parsed file beside it.
    """
    own = config.get("quantization_config")
    named = {"quant_method": own.get("quant_method")} if isinstance(own, Mapping) else {}
    return {**config, "quantization_config": {**beside, **named}}


def _unnamed(config: Config) -> Method:
    """Return plain weights: vLLM goes by ``quant_method`` alone."""
    if any(key in config for key in _OLD_BITSANDBYTES):
        note = (
            "Its quantization_config is an old one of bitsandbytes, without a quant_method: vLLM takes the "
            "weights as plain, and refuses a file that holds quantised ones."
        )
        return Method(notes=(note,))
    return Method(notes=("Its quantization_config names no quant_method: vLLM takes the weights as plain.",))


def _fp8(config: Config, budget: Budget) -> Method:
    rules = skipped(config, budget, "modules_to_not_convert", "ignored_layers", "ignore")
    block = block_of(config, "weight_block_size")
    if block is None:
        return Method(Quantisation("fp8", 8), FP8_TENSOR, rules)
    return Method(Quantisation("fp8", 8, block=block), Scheme("block", 8, scale=4, block=block), rules)


def _fbgemm(config: Config, budget: Budget) -> Method:
    note = "vLLM 0.26 calls fbgemm_fp8 outdated: it refuses it without --allow-deprecated-quantization."
    scheme = Scheme("channel", 8, scale=4, experts=False)
    return Method(
        Quantisation("fp8", 8), scheme, skipped(config, budget, "modules_to_not_convert"), notes=(note,)
    )


def _fp_quant(config: Config, budget: Budget) -> Method:
    note = "vLLM 0.26 calls fp_quant outdated: it refuses it without --allow-deprecated-quantization."
    group = 16 if config.text("forward_dtype") == "nvfp4" else 32
    rules = skipped(config, budget, "modules_to_not_convert", inside=True)
    scheme = Scheme("group", 4, group, scale=1, experts=False)
    return Method(Quantisation("fp_quant", 4, group), scheme, rules, notes=(note,))


def _mxfp4(config: Config, budget: Budget) -> Method:
    note = "Experts in MXFP4 are counted as on Hopper; kernels of other cards pad them by up to 14 %."
    scheme = Scheme("mxfp4", 4, linears=False)
    rules = skipped(config, budget, "modules_to_not_convert")
    return Method(Quantisation("mxfp4", 4.25, MXFP4_GROUP), scheme, rules, notes=(note,))


def _experts_int8(config: Config, budget: Budget) -> Method:
    return Method(Quantisation("experts_int8", 8), Scheme("channel", 8, scale=4, linears=False))


def _bitsandbytes(config: Config, budget: Budget) -> Method:
    rules = skipped(config, budget, "llm_int8_skip_modules")
    if config.flag("load_in_8bit", "_load_in_8bit"):
        return Method(Quantisation("bitsandbytes", 8), FP8_CHANNEL, rules)
    notes: tuple[str, ...] = ()
    storage = config.text("bnb_4bit_quant_storage", "uint8")
    if storage != "uint8":
        notes = (refused(f"bitsandbytes weights kept as {storage}"),)
    # Scales that are quantised themselves (double quantisation) are unpacked to float32 as they are loaded.
    scheme = Scheme("group", 4, _BNB4_GROUP, scale=4)
    return Method(Quantisation("bitsandbytes", 4, _BNB4_GROUP), scheme, rules, notes=notes)


def _exl2(config: Config, budget: Budget) -> Method:
    bits = config.number("bits", default=16, least=1, most=16)
    return Method(Quantisation("exl2", bits), Scheme("group", bits, scale=0), notes=(refused("exl2"),))


def _unknown(config: Config, name: str) -> Method:
    if "bits" not in config and "w_bit" not in config:
        return plain(name, refused(name))
    bits = config.number("bits", "w_bit", default=16, least=1, most=16)
    group = max(0, config.integer("group_size", default=128, least=-1))
    note = unfamiliar(name, f"{bits:g} bits in groups of {group} are assumed")
    scheme = Scheme("group", bits, group, scale=PLAIN, zero=bits / 8)
    return Method(Quantisation(name, bits, group), scheme, notes=(note, refused(name)))


_READERS: dict[str, Reader] = {
    **dict.fromkeys(("awq", "awq_marlin", "auto_awq"), awq),
    **dict.fromkeys(("gptq", "gptq_marlin", "auto_gptq"), gptq),
    **dict.fromkeys(("auto-round", "autoround", "inc"), auto_round),
    **dict.fromkeys(("modelopt", "modelopt_fp4", "modelopt_mxfp8", "modelopt_mixed", "mxfp8"), modelopt),
    **dict.fromkeys(("mxfp4", "gpt_oss_mxfp4"), _mxfp4),
    "compressed-tensors": compressed_tensors,
    "fp8": _fp8,
    "fbgemm_fp8": _fbgemm,
    "fp_quant": _fp_quant,
    "experts_int8": _experts_int8,
    "bitsandbytes": _bitsandbytes,
    "quark": quark,
    "torchao": torchao,
    "exl2": _exl2,
    "exl3": _exl2,
}
