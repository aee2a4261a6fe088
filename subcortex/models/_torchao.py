"""torchao: a named class with its settings for all linear layers, or one by module. Pure."""

from __future__ import annotations

from subcortex.models._blocks import PLAIN
from subcortex.models._config import Config
from subcortex.models._modules import Modules
from subcortex.models._patterns import Budget
from subcortex.models._scheme import Method, Rule, Scheme
from subcortex.models._settings import entries_of, group_of, in_order, plain, refused, skipped
from subcortex.models.shape import Quantisation

_NOTE = "torchao's weights need its package beside vLLM, and are counted to some per cent."
_BY_MODULE = ("ModuleFqnToConfig", "FqnToConfig")
_REST = "_default"


def torchao(config: Config, budget: Budget) -> Method:
    """Return what torchao's config means; experts stay plain in vLLM."""
    kinds = config.inside("quant_type")
    default = kinds.inside("default") if kinds and len(kinds.values) == 1 else None
    if default is None:
        return plain("torchao", refused("torchao's config without a single default in quant_type"))
    rules = list(skipped(config, budget, "modules_to_not_convert"))
    if default.text("_type") in _BY_MODULE:
        named, rest = _by_module(default, budget)
        rules += named
    else:
        rest = _scheme(default)
        if rest is None:
            return plain("torchao")
    shown = rest or next((rule.scheme for rule in rules if rule.scheme), None)
    quantisation = Quantisation("torchao", shown.bits if shown else 16, shown.group if shown else 0)
    return Method(quantisation, rest, tuple(rules), notes=(_NOTE,))


def _by_module(config: Config, budget: Budget) -> tuple[list[Rule], Scheme | None]:
    """Return the rules of single modules, full names before patterns, and what the rest has."""
    data = config.inside("_data") or config
    modules = data.inside("module_fqn_to_config") or data.inside("fqn_to_config")
    read = {name: _scheme(inner) if inner else None for name, inner in entries_of(modules, budget)}
    rest = read.pop(_REST, None)
    patterns = [(name.removeprefix("re:"), read[name]) for name in read if name.startswith("re:")]
    names = [(name, scheme) for name, scheme in read.items() if not name.startswith("re:")]
    named = in_order(names, budget, Modules.add_name)
    return [*named, *in_order(patterns, budget, _add_whole)], rest


def _add_whole(modules: Modules, pattern: str) -> None:
    modules.add_pattern(pattern, "whole")


def _scheme(config: Config) -> Scheme | None:
    """Return how a class of torchao's keeps weights; None if it is not known."""
    data = config.inside("_data") or config
    match config.text("_type"):
        case "Int4WeightOnlyConfig":
            # A 16-bit scale and a 16-bit zero point a group.
            group = group_of(data, "group_size")
            return Scheme("group", 4, group, zero=PLAIN, experts=False)
        case "Int8WeightOnlyConfig" | "Int8DynamicActivationInt8WeightConfig":
            return Scheme("channel", 8, scale=PLAIN, experts=False)
        case "Float8WeightOnlyConfig":
            return Scheme("channel", 8, scale=4, experts=False)
        case "Float8DynamicActivationFloat8WeightConfig":
            rows = "PerRow" in str(data.get("granularity"))[:500]
            return Scheme("channel" if rows else "tensor", 8, scale=4, experts=False)
    return None
