"""Figures of models: sizes of weights, a cached token, parameters, layers, heads. Pure."""

from __future__ import annotations

from collections.abc import Callable

from subcortex.experiments.arithmetic import known
from subcortex.experiments.arithmetic.settlement import Settlement, number, verdict_of
from subcortex.journal.board.claims import Claim
from subcortex.journal.board.figures import Figure, figures_in
from subcortex.journal.board.quantities import quantity_of
from subcortex.journal.board.subjects import names_in
from subcortex.journal.board.units import UNITS
from subcortex.models.shape import FullAttention, ModelShape
from subcortex.vram.communication import all_reduces

#: Bytes of a cached element, by the form that a note speaks of; models of 16 bits keep two.
_KV_BYTES = 2.0


def settle_model(claim: Claim) -> Settlement | None:
    """Return what a model's shape says to a claim's figures; one that is refuted decides."""
    found = [settled for figure in claim.figures if (settled := _figure(claim, figure))]
    return next((one for one in found if one.verdict == "refuted"), found[-1] if found else None)


def _figure(claim: Claim, figure: Figure) -> Settlement | None:
    rule = _RULES.get(figure.quantity or "")
    if rule is None or figure.times > 1:
        return None
    return rule(claim, figure)


def _model(claim: Claim, figure: Figure) -> str | None:
    """Return the model that a figure is of: its subject says it, if not by a form alone."""
    words = (figure.subject or "").split(" ")
    return words[0] if words[0] and known.relative_of(words[0]) else claim.model


def _settled(
    claim: Claim, figure: Figure, rule: str, reckoned: list[tuple[float, str]], unit: str, subject: str
) -> Settlement:
    """Return whether any value that answers to what is written lies within it."""
    factor = UNITS[unit].factor if unit in UNITS else 1.0
    held = any(figure.meets(value / factor, unit) for value, _ in reckoned)
    values = [value / factor for value, _ in reckoned]
    words = "; ".join(words for _, words in reckoned)
    quantity = figure.quantity or rule
    shown = " or ".join(f"{number(value)} {unit}" for value in values)
    return Settlement(
        verdict_of(held), rule, quantity, subject, f"{quantity} of {subject}: {shown}",
        f"{words}; written: {figure.written}", values[0], unit, min(values), max(values),
    )  # fmt: skip


def _weights(claim: Claim, figure: Figure) -> Settlement | None:
    unit = UNITS.get(figure.unit or "")
    model = _model(claim, figure)
    subject = figure.subject or ""
    form = subject.split(" ", 1)[1] if " " in subject else claim.form
    if model is None or form is None or unit is None or unit.dimension != "memory" or unit.name == "B":
        return None
    shape = known.shape_of(model)
    if shape is None:
        return None
    if form in known.PLAIN_BYTES:
        each = known.PLAIN_BYTES[form]
        value = shape.parameters * each
        words = f"{number(shape.parameters / 1e9)}e9 parameters × {each:g} B ({form})"
        reckoned = [(value, f"{words} = {_memory(value, unit.name)}")]
    else:
        shapes = [(one, known.in_form(model, one)) for one in known.forms_of(form)]
        reckoned = [
            (
                made.weights_bytes,
                f"{model} as {one}: {_bits(made)} = {_memory(made.weights_bytes, unit.name)}",
            )
            for one, made in shapes
            if made
        ]
    return _settled(claim, figure, "weights", reckoned, unit.name, f"{model} {form}") if reckoned else None


def _bits(shape: ModelShape) -> str:
    bits = 8 * shape.weights_bytes / max(1, shape.parameters)
    return f"{number(shape.parameters / 1e9)}e9 parameters × {bits:.2f} bits"


def _memory(value: float, unit: str) -> str:
    """Return bytes in a unit, and in the other kind of it beside, as notes mix them up."""
    other = {"GB": "GiB", "GiB": "GB", "MB": "MiB", "MiB": "MB", "KB": "KiB", "KiB": "KB"}.get(unit)
    first = f"{number(value / UNITS[unit].factor)} {unit}"
    return f"{first} ({number(value / UNITS[other].factor)} {other})" if other else first


def kv_bytes_per_token(shape: ModelShape, bytes_each: float = _KV_BYTES) -> tuple[float, str] | None:
    """Return the bytes that one token keeps in the cache, and how; None unless every layer is alike.

    Args:
        shape: The model.
        bytes_each: Of a cached element.
    """
    kept = set(shape.attentions)
    if len(kept) != 1 or len(shape.attentions) != len(shape.layers):
        return None
    attention = kept.pop()
    if not isinstance(attention, FullAttention) or attention.key_dim != attention.value_dim:
        return None
    layers, heads, width = len(shape.layers), attention.kv_heads, attention.key_dim
    value = 2 * layers * heads * width * bytes_each
    return value, f"2 (K and V) × {layers} layers × {heads} KV heads × {width} × {bytes_each:g} bytes"


def _kv_choices(claim: Claim, model: str) -> list[tuple[float, str]]:
    """Return a token's bytes at 16 bits, and at 32 where the note speaks of them."""
    shape = known.shape_of(model)
    each = [_KV_BYTES]
    if any("fp32" in text.lower() for text in (claim.statement, *claim.before, *claim.leads)):
        each.append(4.0)
    return [found for one in each if shape and (found := kv_bytes_per_token(shape, one))]


def _kv_token(claim: Claim, figure: Figure) -> Settlement | None:
    model, unit = _model(claim, figure), UNITS[figure.unit or "B"]
    found = _kv_choices(claim, model) if model and unit.dimension == "memory" else []
    reckoned = [
        (value, f"{words} = {number(value)} B = {_memory(value, unit.name)} a token")
        for value, words in found
    ]
    return _settled(claim, figure, "kv", reckoned, unit.name, model) if reckoned and model else None


def _kv_cache(claim: Claim, figure: Figure) -> Settlement | None:
    model, unit = _model(claim, figure), UNITS[figure.unit or "B"]
    tokens, requests = _tokens(claim), _requests(claim)
    if model is None or tokens is None or unit.dimension != "memory":
        return None
    times = f" × {tokens:,} tokens" + (f" × {requests} requests" if requests > 1 else "")
    reckoned = [
        (value * tokens * requests, f"{words}{times} = {_memory(value * tokens * requests, unit.name)}")
        for value, words in _kv_choices(claim, model)
    ]
    return _settled(claim, figure, "kv", reckoned, unit.name, model) if reckoned else None


def _tokens(claim: Claim) -> int | None:
    """Return the tokens that a line itself names: what stands elsewhere may be meant for something else."""
    found = [figure for figure in claim.figures if figure.unit == "tokens" and figure.value >= 1]
    return int(found[0].value) if found else None


def _requests(claim: Claim) -> int:
    found = [figure for figure in claim.figures if figure.unit == "requests"]
    return int(found[0].value) if found else 1


def _total(claim: Claim, figure: Figure) -> Settlement | None:
    """Settle "Total" under lines that name weights and a cache of so many tokens."""
    model, unit = claim.model, UNITS[figure.unit or "B"]
    shape = known.shape_of(model) if model else None
    if (
        shape is None
        or model is None
        or unit.dimension != "memory"
        or not claim.statement.lower().startswith("total")
    ):
        return None
    if len(claim.figures) > 1 or "per gpu" in claim.statement.lower():
        return None
    form, tokens = _parts(claim)
    made = known.in_form(model, form) if form in known.PLAIN_BYTES else None
    kept = kv_bytes_per_token(shape)
    if made is None or tokens is None or kept is None:
        return None
    weights, cache = made.weights_bytes, kept[0] * tokens
    words = f"weights {number(weights / 1e9)} GB ({form}) + KV {number(cache / 1e9)} GB"
    words += f" ({tokens:,} tokens × {number(kept[0])} B)"
    reckoned = [(weights + cache, f"{words} = {_memory(weights + cache, unit.name)}")]
    return _settled(claim, figure, "total", reckoned, unit.name, model)


def _parts(claim: Claim) -> tuple[str, int | None]:
    """Return the form of the weights and the cached tokens that the lines before a total name."""
    form, tokens = "", None
    for text in claim.before:
        named = [name.name for name in names_in(text) if name.kind == "form"]
        form = named[0] if named else form
        figures = figures_in(text)
        if any(quantity_of(one, text) == "kv_cache" for one in figures):
            tokens = next((int(one.value) for one in figures if one.unit == "tokens"), tokens)
    return form, tokens


def _parameters(claim: Claim, figure: Figure) -> Settlement | None:
    shape = known.shape_of(_model(claim, figure) or "")
    if shape is None or figure.unit is None:
        return None
    name = _model(claim, figure) or ""
    words = f"the tensors of {name} hold {number(shape.parameters / 1e9)}e9 weights"
    return _settled(claim, figure, "shape", [(shape.parameters, words)], figure.unit, name)


def _of_shape(
    read: Callable[[ModelShape], float | None], what: str
) -> Callable[[Claim, Figure], Settlement | None]:
    def settle(claim: Claim, figure: Figure) -> Settlement | None:
        name = _model(claim, figure) or ""
        shape = known.shape_of(name)
        value = None if shape is None else read(shape)
        if value is None:
            return None
        words = f"{name}'s config.json: {number(value)} {what}"
        return _settled(claim, figure, "shape", [(value, words)], figure.unit or "", name)

    return settle


def _kv_heads(shape: ModelShape) -> float | None:
    found = {kept.kv_heads for kept in shape.attentions if isinstance(kept, FullAttention)}
    return float(found.pop()) if len(found) == 1 else None


def _bytes_each(claim: Claim, figure: Figure) -> Settlement | None:
    """Settle what a weight takes: the name of the form says it."""
    before = claim.statement[: figure.at]
    named = [name.name for name in names_in(before) if name.kind == "form"]
    form = named[-1] if named else claim.form
    if form not in known.PLAIN_BYTES:
        return None
    each = known.PLAIN_BYTES[form]
    words = f"{form} has {each * 8:g} bits = {each:g} bytes a parameter"
    held = abs(figure.value - each) < 1e-9
    working = f"{words}; written: {figure.written}"
    return Settlement(
        verdict_of(held), "form", "bytes_per_parameter", form, words, working, each, figure.unit
    )


def _all_reduces(claim: Claim, figure: Figure) -> Settlement | None:
    """Settle how often a layer is summed over the ranks: as often in every dense transformer."""
    if "layer" not in claim.statement.lower():
        return None
    shape = known.shape_of("llama-2-7b")
    assert shape is not None
    each = (all_reduces(shape) - 1) / len(shape.layers)
    words = f"tensor parallelism sums after attention and after the feed-forward part: {each:g} a layer"
    return Settlement(
        verdict_of(figure.value == each), "collective", "all_reduces_per_layer", "tensor parallelism", words,
        f"{words}; written: {figure.written}", each, figure.unit,
    )  # fmt: skip


_RULES: dict[str, Callable[[Claim, Figure], Settlement | None]] = {
    "weights_size": _weights,
    "kv_per_token": _kv_token,
    "kv_cache": _kv_cache,
    "memory_total": _total,
    "parameters": _parameters,
    "layers": _of_shape(lambda shape: float(len(shape.layers)), "layers"),
    "hidden_size": _of_shape(lambda shape: float(shape.hidden), "wide"),
    "kv_heads": _of_shape(_kv_heads, "KV heads"),
    "heads": _of_shape(lambda shape: float(shape.heads), "heads"),
    "bytes_per_parameter": _bytes_each,
    "all_reduces_per_layer": _all_reduces,
}
