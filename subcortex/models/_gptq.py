"""GPTQ, AWQ and AutoRound: whole numbers of few bits in groups, and their exceptions by module. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from subcortex.models._blocks import PLAIN
from subcortex.models._config import Config
from subcortex.models._modules import Modules
from subcortex.models._patterns import Budget
from subcortex.models._scheme import Method, Rule, Scheme
from subcortex.models._settings import entries_of, group_of, in_order, refused, skipped
from subcortex.models.shape import Quantisation

#: Keys with a character of these are patterns to AutoRound.
_PATTERN = re.compile(r"[*+?^$()\[\]{}|\\]")
_GPTQ_BITS, _AUTO_ROUND_BITS = (4, 8), (2, 3, 4, 8)
_PLAIN_BITS = 16


def awq(config: Config, budget: Budget) -> Method:
    """Return what AWQ's config means."""
    bits = config.integer("bits", "w_bit", default=4, most=16)
    group = group_of(config, "group_size", "q_group_size")
    zeros = config.flag("zero_point", default=True)
    # Machete (Hopper) unpacks zero points to 16 bits; Marlin, on other cards and for experts, does not.
    scheme = Scheme("group", bits, group, zero=PLAIN * zeros, expert_zero=bits / 8 * zeros)
    rules = skipped(config, budget, "modules_to_not_convert", inside=True)
    notes = () if bits == 4 else (refused(f"AWQ of {bits} bits", "it takes 4"),)
    return Method(Quantisation("awq", bits, group), scheme, rules, notes=(*notes, *_head(config)))


def gptq(config: Config, budget: Budget) -> Method:
    """Return what GPTQ's config means, with the overrides by module of GPTQModel."""
    scheme = _gptq_scheme(config)
    rules = [*skipped(config, budget, "modules_to_not_convert", inside=True)]
    rules += _dynamic(config, budget, scheme)
    names = _quantised(config)
    only = Modules.of(names, budget, inside=True) if names else None
    method = Quantisation("gptq", scheme.bits, scheme.group, act_order=scheme.act_order)
    notes = [*_not_loaded(config, rules, scheme), *_head(config)]
    return Method(method, scheme, tuple(rules), only, tuple(notes))


def _gptq_scheme(config: Config, base: Scheme | None = None) -> Scheme:
    bits = config.integer("bits", default=int(base.bits) if base else 4, most=16)
    group = group_of(config, "group_size", default=(base.group or -1) if base else 128)
    act_order = config.flag("desc_act", default=base.act_order if base else False)
    # With one group a channel the order is of no account, and vLLM drops it.
    return Scheme(
        "group",
        bits,
        group,
        zero=bits / 8,
        expert_zero=bits / 8,
        index=4.0,
        act_order=act_order and bool(group),
    )


def _dynamic(config: Config, budget: Budget, base: Scheme) -> list[Rule]:
    """Return the rules of ``dynamic``, of which the first that matches holds; ``-:`` is for plain modules."""

    def read() -> Iterator[tuple[str, Scheme | None]]:
        for pattern, settings in entries_of(config.inside("dynamic"), budget):
            scheme = _gptq_scheme(settings, base) if settings else base
            yield pattern.removeprefix("-:").removeprefix("+:"), None if pattern.startswith("-:") else scheme

    return in_order(read(), budget, Modules.add_pattern)


def _quantised(config: Config) -> list[str]:
    """Return the modules that are quantised, of a list of names or of lists of names."""
    found: list[str] = []
    for each in config.items("modules_in_block_to_quantize", (str, list)) or []:
        inner = [each] if isinstance(each, str) else each
        if not all(isinstance(name, str) for name in inner):
            raise config.wrong("modules_in_block_to_quantize", each, "names of modules")
        found += inner
    return found


def _not_loaded(config: Config, rules: list[Rule], scheme: Scheme) -> Iterator[str]:
    schemes = {scheme, *(rule.scheme for rule in rules if rule.scheme)}
    bits = sorted({int(each.bits) for each in schemes if each.bits not in _GPTQ_BITS})
    if bits:
        yield refused(f"GPTQ of {' or '.join(map(str, bits))} bits", "it takes 4 and 8")
    if not config.flag("sym", default=True):
        yield refused("GPTQ that is not symmetric")


def _head(config: Config) -> tuple[str, ...]:
    """Return the note for a quantised head: it is counted with the vocabulary, plain."""
    return ("Its head is quantised, and counted as 16 bits.",) if config.flag("lm_head") else ()


def auto_round(config: Config, budget: Budget) -> Method:
    """Return what AutoRound's config means: GPTQ's or AWQ's layout, with other bits for single modules."""
    scheme = replace(_gptq_scheme(config), act_order=False)
    if "awq" in config.text("packing_format"):
        scheme = replace(scheme, index=0.0)
    rules, names = _single(config, budget, scheme)
    blocks = _blocks(config)
    only = Modules.of([*blocks, *names], budget) if blocks else None
    notes = []
    data = config.text("data_type", "int")
    if data != "int":
        notes.append(refused(f"AutoRound of {data}", "it takes whole numbers"))
    if scheme.bits not in _AUTO_ROUND_BITS:
        notes.append(refused(f"AutoRound of {int(scheme.bits)} bits", "it takes 2, 3, 4 and 8"))
    method = Quantisation("gptq", scheme.bits, scheme.group)
    return Method(method, scheme, tuple(rules), only, tuple(notes))


def _blocks(config: Config) -> list[str]:
    for key in ("block_name_to_quantize", "to_quant_block_names"):
        if isinstance(config.get(key), str):
            return [name for name in str(config.get(key)).split(",") if name]
        found = config.items(key, str)
        if found:
            return found
    return []


def _single(config: Config, budget: Budget, base: Scheme) -> tuple[list[Rule], list[str]]:
    """Return the rules of ``extra_config``, full names before patterns, and those names."""
    named: dict[Scheme | None, Modules] = {}
    names: list[str] = []
    patterns: list[tuple[str, Scheme | None]] = []
    for key, settings in entries_of(config.inside("extra_config"), budget):
        if settings is None:
            continue
        bits = settings.integer("bits", default=int(base.bits), most=32)
        group = group_of(settings, "group_size", default=base.group or -1)
        scheme = replace(base, bits=bits, group=group, zero=bits / 8, expert_zero=bits / 8)
        stored = None if bits >= _PLAIN_BITS else scheme
        if _PATTERN.search(key):
            patterns.append((key, stored))
        else:
            if stored not in named:
                named[stored] = Modules(budget)
            named[stored].add_name(key)
            names.append(key)
    rules = [Rule(modules, scheme) for scheme, modules in named.items()]
    return [*rules, *in_order(patterns, budget, _add_anywhere)], names


def _add_anywhere(modules: Modules, pattern: str) -> None:
    modules.add_pattern(pattern, "anywhere")
