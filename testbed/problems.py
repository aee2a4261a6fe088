"""What a problem is and how it is solved, apart from how it is asked. Standard library only."""

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

GIB_PER_GB = Decimal("0.9313")
GB_PER_GIB = Decimal("1.0737")


@dataclass(frozen=True, slots=True)
class Item:
    """One question. `answer` is a plain value: a number, a comma-separated list, "yes" or "no".

    `kind` names the problem (sum, difference, product, compare, range, sort, letters, units,
    weights, fit, kv) and `operands` are its terms as text; `system` is a short system message or None.
    """

    prompt: str
    answer: str
    level: int
    kind: str
    operands: tuple[str, ...]
    system: str | None = None


def solve(kind: str, operands: tuple[str, ...]) -> str:
    """The answer to a problem, from its kind and operands alone."""
    if kind == "sum":
        return str(sum(int(n) for n in operands))
    if kind == "difference":
        return str(int(operands[0]) - int(operands[1]))
    if kind == "product":
        return str(int(operands[0]) * int(operands[1]))
    if kind == "compare":
        return (max if operands[0] == "largest" else min)(operands[1:], key=Decimal)
    if kind == "range":
        return str(max(map(int, operands)) - min(map(int, operands)))
    if kind == "sort":
        return ", ".join(sorted(operands[1:], key=int, reverse=operands[0] == "descending"))
    if kind == "letters":
        return str(operands[1].lower().count(operands[0].lower()))
    if kind == "units":
        return plain(_convert(Decimal(operands[0]), operands[1], operands[2]))
    if kind == "weights":
        return plain(weights_gb(operands[0], operands[1]))
    if kind == "fit":
        return "yes" if weights_gb(operands[0], operands[1]) <= int(operands[2]) else "no"
    if kind == "kv":
        layers, heads, size, bits, tokens, sequences = (int(n) for n in operands[:6])
        held = Decimal(2 * layers * heads * size * bits * tokens * sequences) / 8
        return plain(held / _BYTES_PER[operands[6]])
    raise ValueError(f"no problem of kind {kind!r}")


def weights_gb(billions: str, bits: str) -> Decimal:
    """What the weights of a model of `billions` parameters take at `bits` each, in GB."""
    return Decimal(billions) * int(bits) / 8


_BYTES_PER = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
BITS = {"bits": 1, "bytes": 8, "KB": 8 * 10**3, "MB": 8 * 10**6, "GB": 8 * 10**9, "TB": 8 * 10**12}
BITS |= {"KiB": 8 << 10, "MiB": 8 << 20, "GiB": 8 << 30, "TiB": 8 << 40}


def plain(value: Decimal) -> str:
    """A number without an exponent or trailing zeros."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _convert(amount: Decimal, source: str, target: str) -> Decimal:
    exact = amount * BITS[source] / BITS[target]
    if {source, target} == {"GB", "GiB"}:
        return exact.quantize(Decimal("0.1"), ROUND_HALF_UP)
    return exact
