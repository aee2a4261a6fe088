"""compressed-tensors: groups of layers, each with a scheme and with targets that name its modules. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from subcortex.models._config import Config
from subcortex.models._modules import Modules
from subcortex.models._patterns import Budget
from subcortex.models._scheme import MXFP4, MXFP8, NVFP4, Method, Scheme
from subcortex.models._settings import MOST_NOTES, block_of, entries_of, in_order, plain, refused, skipped
from subcortex.models.shape import Quantisation

#: Whole numbers that are packed: bits that kernels take.
_PACKED_BITS = range(2, 9)
_ZERO_POINT_BITS = (4, 8)


@dataclass(frozen=True, slots=True)
class _Group:
    """A scheme, and what vLLM says to it."""

    scheme: Scheme
    act_order: bool = False
    notes: tuple[str, ...] = ()


def compressed_tensors(config: Config, budget: Budget) -> Method:
    """Return what its groups mean: names and patterns first, in their order, then classes of modules."""
    groups = entries_of(config.inside("config_groups"), budget)
    read = [group for _, group in groups if group and "weights" in group and not _is_of_cache(group)]
    if not read:
        return plain("compressed-tensors")
    named: list[tuple[str, Scheme | None]] = []
    default: _Group | None = None
    notes = list(_sparse(config))
    made = [_made(group, config) for group in read]
    for group, one in zip(read, made, strict=True):
        names, linear, other = _targets(group)
        named += [(name, one.scheme) for name in names]
        notes += [f"Its layers for {each} are not understood, and counted as plain." for each in other]
        notes += one.notes
        if linear and default is None:
            default = one
    first = (default or made[0]).scheme
    kv = config.inside("kv_cache_scheme")
    quantisation = Quantisation(
        "compressed-tensors",
        first.bits,
        first.group,
        first.block if first.kind == "block" else None,
        act_order=first.act_order,
        kv_bits=kv.integer("num_bits", default=8, most=16) if kv else 0,
    )
    rules = (*skipped(config, budget, "ignore"), *in_order(named, budget, Modules.add_entry))
    shown = tuple(dict.fromkeys(notes))[:MOST_NOTES]
    return Method(quantisation, default.scheme if default else None, rules, notes=shown)


def _is_of_cache(group: Config) -> bool:
    """Tell whether a group is for attention alone: that is the cache's, vLLM leaves it out."""
    targets = group.items("targets", str) or []
    return len(targets) == 1 and targets[0].endswith("Attention")


def _targets(group: Config) -> tuple[list[str], bool, list[str]]:
    """Return names and patterns, whether all linear layers are meant, and what is not understood."""
    targets = group.items("targets", str)
    if targets is None:
        return [], True, []
    names = [each for each in targets if each.startswith("re:") or "." in each]
    classes = [each for each in targets if each not in names]
    linear = [each for each in classes if "linear" in each.lower()]
    return names, bool(linear), [each[:80] for each in classes if each not in linear]


def _made(group: Config, config: Config) -> _Group:
    weights = group.inside("weights")
    assert weights is not None
    bits = weights.integer("num_bits", default=8, most=16)
    size = max(0, weights.integer("group_size", default=0, least=-1))
    floating = weights.text("type", "int") == "float"
    form = group.text("format") or config.text("format")
    strategy = weights.text("strategy") or ("group" if size else "tensor")
    symmetric = weights.flag("symmetric", default=True)
    if strategy == "tensor_group" or (floating and strategy == "group"):
        return _micro(bits, size, strategy, symmetric=symmetric)
    if strategy == "block":
        block = block_of(weights, "block_structure") or (128, 128)
        return _Group(Scheme("block", bits, scale=4, block=block))
    if strategy == "tensor":
        return _Group(Scheme("tensor", bits, scale=8))
    packed = form == "pack-quantized" or bits != 8
    if strategy == "channel" and not packed:
        return _Group(Scheme("channel", bits, scale=4))
    return _packed(weights, bits, size if strategy == "group" else 0, symmetric=symmetric)


def _micro(bits: int, size: int, strategy: str, *, symmetric: bool) -> _Group:
    """Return a scheme of small floats in groups: NVFP4, MXFP4 and MXFP8 have scales of a byte."""
    known = {(4, 16, "tensor_group"): NVFP4, (4, 32, "group"): MXFP4, (8, 32, "group"): MXFP8}
    found = known.get((bits, size, strategy)) if symmetric else None
    if found is not None:
        return _Group(found)
    scheme = Scheme("group", bits, size, scale=1)
    return _Group(scheme, notes=(refused(f"floats of {bits} bits in groups of {size}"),))


def _packed(weights: Config, bits: int, group: int, *, symmetric: bool) -> _Group:
    order = weights.get("actorder")
    act_order = bool(order) and order not in ("static", "weight")
    zero = 0.0 if symmetric else bits / 8
    scheme = Scheme("group", bits, group, zero=zero, expert_zero=zero)
    if act_order:
        scheme = replace(scheme, act_order=True, index=4.0)
    taken = bits in _PACKED_BITS if symmetric else bits in _ZERO_POINT_BITS
    what = f"whole numbers of {bits} bits{'' if symmetric else ' with zero points'}"
    return _Group(scheme, act_order, () if taken else (refused(what),))


def _sparse(config: Config) -> tuple[str, ...]:
    found = config.inside("sparsity_config")
    return (refused("sparse checkpoints any more"),) if found and found.items("targets") else ()
