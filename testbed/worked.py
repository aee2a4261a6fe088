"""Worked steps and final sentences: what the deep model learns to think, and what both say.

Each step is something a small model can do at a glance (one column, one digit, one comparison),
and each line of a calculation has the same length, so that what it needs lies at a fixed distance.
"""

from decimal import ROUND_HALF_UP, Decimal

from testbed.problems import GB_PER_GIB, GIB_PER_GB, Item


def columns(numbers: list[int]) -> list[str]:
    """Column addition from the right: digits, plus carry, equals a two-digit sum."""
    width = max(len(str(n)) for n in numbers)
    padded = [str(n).zfill(width) for n in numbers]
    lines, carry = ["+".join(padded)], 0
    for place in range(width - 1, -1, -1):
        total = sum(int(n[place]) for n in padded) + carry
        lines.append("+".join(n[place] for n in padded) + f"+{carry}={total:02d}")
        carry = total // 10
    return [*lines, f"={sum(numbers)}"]


def borrowing(a: int, b: int) -> list[str]:
    """Column subtraction a − b from the right; a leading 1 says that ten was borrowed."""
    if a < b:
        return [f"{a}<{b}", *borrowing(b, a), f"=-{b - a}"]
    width = len(str(a))
    top, bottom = str(a), str(b).zfill(width)
    lines, borrow = [f"{top}-{bottom}"], 0
    for place in range(width - 1, -1, -1):
        left = int(top[place]) - int(bottom[place]) - borrow
        lines.append(f"{int(left < 0)}{top[place]}-{bottom[place]}-{borrow}={left % 10}")
        borrow = int(left < 0)
    return [*lines, f"={a - b}"]


def _times_digit(a: int, digit: int) -> list[str]:
    lines, carry = [], 0
    for figure in reversed(str(a)):
        total = int(figure) * digit + carry
        lines.append(f"{figure}*{digit}+{carry}={total:02d}")
        carry = total // 10
    return lines


def partials(a: int, b: int) -> list[str]:
    """Long multiplication: one partial product a digit of the shorter number, then their sum."""
    if len(str(a)) < len(str(b)):
        a, b = b, a
    lines, parts = [f"{a}*{b}"], []
    for place, figure in enumerate(reversed(str(b))):
        digit, zeros = int(figure), "0" * place
        if len(str(b)) > 1:
            lines.append(f"*{digit}{zeros}")
        if digit and a:
            lines += _times_digit(a, digit)
            parts.append(a * digit * 10**place)
        lines.append(f"={a * digit * 10**place}")
    return lines + columns(parts) if len(parts) > 1 else lines


def _divide(a: int, by: int) -> list[str]:
    lines, rest = [f"{a}/{by}"], 0
    for figure in str(a):
        now = rest * 10 + int(figure)
        rest = now % by
        lines.append(f"{now:02d}/{by}={now // by} r{rest}")
    return [*lines, f"={a // by}"]


def _running(numbers: tuple[str, ...], largest: bool) -> list[str]:
    lines, best = [], numbers[0]
    for number in numbers[1:]:
        lines.append(f"{best}{'<' if Decimal(best) < Decimal(number) else '>'}{number}")
        best = (max if largest else min)(best, number, key=Decimal)
    return [*lines, f"={best}"]


def _compare(operands: tuple[str, ...]) -> list[str]:
    numbers = operands[1:]
    if any("." in n for n in numbers):
        places = max(len(n.split(".")[1]) for n in numbers)
        padded = tuple(f"{Decimal(n):.{places}f}" for n in numbers)
        best = (max if operands[0] == "largest" else min)(numbers, key=Decimal)
        return [*_running(padded, operands[0] == "largest"), f"={best}"]
    return _running(numbers, operands[0] == "largest")


def _passes(operands: tuple[str, ...]) -> list[str]:
    left, lines = list(operands[1:]), []
    while left:
        pick = (max if operands[0] == "descending" else min)(left, key=int)
        left.remove(pick)
        lines.append(f"{pick}|" + " ".join(left) if left else pick)
    return lines


def _spelled(letter: str, text: str) -> list[str]:
    seen, marks = 0, []
    for character in text.lower().replace(" ", ""):
        seen += character == letter
        marks.append(f"{character}{seen}")
    return [" ".join(marks), f"={seen}"]


def _shifted(amount: str, factor: str) -> list[str]:
    """Decimal multiplication: without the points, then with them."""
    places = sum(len(n.split(".")[1]) for n in (amount, factor) if "." in n)
    lines = [f"{amount}*{factor}", *partials(int(amount.replace(".", "")), int(factor.replace(".", "")))]
    if places:
        exact = Decimal(amount) * Decimal(factor)
        lines.append(f"={exact:.{places}f}")
        if lines[-1].endswith("0"):
            lines.append(f"={exact:.{places}f}".rstrip("0").rstrip("."))
    return lines


def _units(operands: tuple[str, ...]) -> list[str]:
    amount, source, target = operands
    pair = {source, target}
    if pair == {"GB", "GiB"}:
        factor = GIB_PER_GB if source == "GB" else GB_PER_GIB
        exact = int(amount) * factor
        rounded = f"{exact.quantize(Decimal('0.1'), ROUND_HALF_UP)}"
        lines = [
            f"{amount}*{factor}",
            *partials(int(str(factor).replace(".", "")), int(amount)),
            f"={exact}",
            f"={rounded}",
        ]
        return [*lines, f"={rounded[:-2]}"] if rounded.endswith(".0") else lines
    if pair == {"bits", "bytes"}:
        return partials(int(amount), 8) if source == "bytes" else _divide(int(amount), 8)
    sizes = (
        ("bytes", "KB", "MB", "GB", "TB")
        if not any("i" in unit and unit != "bits" for unit in pair)
        else ("bytes", "KiB", "MiB", "GiB", "TiB")
    )
    steps = sizes.index(source) - sizes.index(target)
    base = 1000 if "KB" in sizes else 1024
    if steps < 0:
        return [f"{amount}/{base}", f"={int(amount) // base}"]
    factor_whole = base**steps
    if base == 1000:
        return [f"{amount}*{factor_whole}", f"={int(amount) * factor_whole}"]
    powers = [f"{'*'.join(['1024'] * steps)}={factor_whole}"] if steps > 1 else []
    return powers + partials(factor_whole, int(amount))


def _weights(billions: str, bits: str) -> list[str]:
    size = {"4": "0.5", "8": "1", "16": "2", "32": "4"}[bits]
    head = f"{bits} bits={size} bytes"
    return [head, *_shifted(billions, size)] if size != "1" else [head, f"={billions}"]


def _fit(operands: tuple[str, ...]) -> list[str]:
    billions, bits, card = operands
    lines = _weights(billions, bits)
    needed = lines[-1].lstrip("=")
    sign = (Decimal(needed) > int(card)) - (Decimal(needed) < int(card))
    return [*lines, f"{needed}{'<=>'[sign + 1]}{card}", "=yes" if sign <= 0 else "=no"]


def _kv(operands: tuple[str, ...]) -> list[str]:
    layers, heads, size, bits, tokens, sequences = (int(n) for n in operands[:6])
    a_layer = 2 * size * heads * bits // 8
    lines = [
        f"2*{size}={2 * size}",
        f"{2 * size}*{heads}={2 * size * heads}",
        f"{2 * size * heads}*{bits // 8}={a_layer}",
    ]
    if operands[6] == "bytes":
        return lines + partials(a_layer, layers)
    lines += [f"{a_layer}/1024={a_layer // 1024}", *partials(a_layer // 1024, layers)]
    total = a_layer // 1024 * layers
    if operands[6] == "MiB":
        lines += [f"{tokens}/1024={tokens // 1024}", *partials(total, tokens // 1024)]
        total *= tokens // 1024
    return lines + partials(total, sequences) if sequences > 1 else lines


def think(item: Item) -> str:
    """The worked steps that lead to `item.answer`, one a line."""
    ops = item.operands
    lines: list[str]
    match item.kind:
        case "sum":
            lines = columns([int(n) for n in ops])
        case "difference":
            lines = borrowing(int(ops[0]), int(ops[1]))
        case "product":
            lines = partials(int(ops[0]), int(ops[1]))
        case "compare":
            lines = _compare(ops)
        case "range":
            high, low = _running(ops, True), _running(ops, False)
            lines = [*high, *low, *borrowing(int(high[-1][1:]), int(low[-1][1:]))]
        case "sort":
            lines = _passes(ops)
        case "letters":
            lines = _spelled(ops[0], ops[1])
        case "units":
            lines = _units(ops)
        case "weights":
            lines = _weights(ops[0], ops[1])
        case "fit":
            lines = _fit(ops)
        case _:
            lines = _kv(ops)
    return "\n".join(lines)


def reply(item: Item) -> str:
    """The final sentence, with the answer in it."""
    match item.kind:
        case "sort":
            return item.answer
        case "compare":
            return f"The {item.operands[0]} is {item.answer}."
        case "letters":
            return f"It occurs {item.answer} time{'' if item.answer == '1' else 's'}."
        case "units":
            return f"That is {item.answer} {item.operands[2]}."
        case "weights":
            return f"The weights take {item.answer} GB."
        case "fit":
            return "Yes, they fit." if item.answer == "yes" else "No, they do not fit."
        case "kv":
            return f"The KV cache takes {item.answer} {item.operands[6]}."
        case _:
            return f"The answer is {item.answer}."
