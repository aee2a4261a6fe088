"""Items of each kind and level, drawn at random. Standard library only; `testbed.tasks` is the way in."""

import random
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal

from testbed import phrases
from testbed.problems import BITS, GB_PER_GIB, GIB_PER_GB, Item, plain, solve, weights_gb
from testbed.words import word


def _number(rng: random.Random, digits: int) -> int:
    return rng.randint(10 ** (digits - 1) if digits > 1 else 0, 10**digits - 1)


def _comma(rng: random.Random, number: str) -> str:
    """Now and then, a long number with thousands separators."""
    return f"{int(number):,}" if len(number) > 3 and rng.random() < 0.1 else number


_SMALL = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
_SPOKEN = (*_SMALL.split(), "sixteen", "seventeen", "eighteen", "nineteen", "twenty")


def _shown(rng: random.Random, numbers: tuple[str, ...]) -> tuple[str, ...]:
    """The numbers as typed: now and then with thousands separators, or small ones in words."""
    if max(map(int, numbers)) <= 20 and rng.random() < 0.12:
        return tuple(_SPOKEN[int(n)] for n in numbers)
    return tuple(_comma(rng, n) for n in numbers)


def _finish(
    rng: random.Random, level: int, kind: str, text: str, operands: tuple[str, ...], keep_case: bool = False
) -> Item:
    system = rng.choice(phrases.SYSTEM) if rng.random() < 0.25 else None
    return Item(phrases.dress(rng, text, keep_case), solve(kind, operands), level, kind, operands, system)


def _sum(level: int, rng: random.Random) -> Item:
    digits, terms = {1: (2, 2), 2: (3, 2), 3: (4, 2), 4: (6, 2), 5: (8, 2), 6: (12, 2)}[level]
    if level >= 2 and rng.random() < 0.3:
        digits, terms = {
            2: (1, 3),
            3: (2, rng.randint(3, 4)),
            4: (3, 4),
            5: (4, 4),
            6: (5, rng.randint(5, 6)),
        }[level]
    if terms == 2:
        longest = rng.randint(max(1, digits - 1) if level < 6 else 9, digits)
        shortest = 1 if rng.random() < 0.2 else max(1, longest - 3)
        numbers = [_number(rng, longest), _number(rng, rng.randint(shortest, longest))]
        rng.shuffle(numbers)
    else:
        numbers = [_number(rng, rng.randint(max(1, digits - 1), digits)) for _ in range(terms)]
    operands = tuple(map(str, numbers))
    shown = _shown(rng, operands)
    signs = ("+", "+", "+", "plus", "and") if shown[0][0].isdigit() else ("plus", "plus", "+", "and")
    listed = phrases.listing(rng, shown) if not any("," in n for n in shown) else " and ".join(shown)
    text = rng.choice(phrases.SUM).format(s=phrases.joined(rng, shown, signs), l=listed)
    return _finish(rng, level, "sum", text, operands)


def _difference(level: int, rng: random.Random) -> Item:
    digits = {1: 2, 2: 3, 3: 4, 4: 6, 5: 8, 6: 12}[level]
    longest = rng.randint(max(1, digits - 1) if level < 6 else 9, digits)
    shortest = 1 if rng.random() < 0.2 else max(1, longest - 2)
    pair = [_number(rng, longest), _number(rng, rng.randint(shortest, longest))]
    if rng.random() < 0.1:
        pair[1] = abs(pair[0] + rng.randint(-9, 9))
    pair.sort(reverse=True)
    if rng.random() < 0.15:
        pair.reverse()
    operands = (str(pair[0]), str(pair[1]))
    a, b = _shown(rng, operands)
    signs = phrases.joined(rng, (a, b), ("-", "-", "-", "minus") if a[0].isdigit() else ("minus",))
    text = rng.choice(phrases.DIFFERENCE).format(a=a, b=b, s=signs)
    return _finish(rng, level, "difference", text, operands)


def _product(level: int, rng: random.Random) -> Item:
    lengths = {1: ((1, 1),), 2: ((2, 1), (2, 1), (1, 1)), 3: ((3, 1), (2, 2)), 4: ((3, 2), (4, 1))}
    lengths |= {5: ((4, 2), (4, 2), (5, 2), (7, 1)), 6: ((3, 3), (4, 3), (4, 4), (6, 3))}
    a, b = (_number(rng, n) for n in rng.choice(lengths[level]))
    if level == 1 and rng.random() < 0.4:
        a, b = rng.randint(0, 12), rng.randint(0, 12)
    if rng.random() < 0.5:
        a, b = b, a
    operands = (str(a), str(b))
    first, second = _shown(rng, operands)
    signs = ("x", "*", "*", "×", "times", "times") if first[0].isdigit() else ("times",)
    text = rng.choice(phrases.PRODUCT).format(
        a=first, b=second, s=phrases.joined(rng, (first, second), signs)
    )
    return _finish(rng, level, "product", text, operands)


def _near(rng: random.Random, count: int, shortest: int, longest: int) -> tuple[str, ...]:
    """Distinct numbers, some of them sharing their first digits."""
    found: list[int] = []
    while len(found) < count:
        number = _number(rng, rng.randint(shortest, longest))
        if found and rng.random() < 0.3:
            digits = list(str(rng.choice(found)))
            digits[rng.randrange(len(digits) // 2, len(digits))] = str(rng.randint(0, 9))
            number = int("".join(digits))
        if number not in found:
            found.append(number)
    return tuple(map(str, found))


def _compare(level: int, rng: random.Random) -> Item:
    if level >= 5:
        numbers: tuple[str, ...]
        numbers = _near(rng, rng.randint(5, 6), 3, 4) if level == 5 else _near(rng, rng.randint(8, 9), 4, 5)
        text = rng.choice(phrases.RANGE).format(l=phrases.listing(rng, numbers))
        return _finish(rng, level, "range", text, numbers)
    if level == 3 and rng.random() < 0.4:
        whole = rng.randint(0, 99)
        pair = [f"{whole}.{rng.randint(1, 9)}", f"{whole}.{rng.randint(1, 99):02d}"]
        if rng.random() < 0.3:
            pair = [f"{_number(rng, 2)}.{rng.randint(1, 9)}", f"{_number(rng, 2)}.{rng.randint(1, 99):02d}"]
        if len({Decimal(n) for n in pair}) < 2:
            pair = ["9.9", "9.11"]
        rng.shuffle(pair)
        numbers = tuple(pair)
    else:
        shape = {
            1: (2, 1, 2),
            2: (rng.randint(2, 3), 2, 3),
            3: (rng.randint(2, 5), 3, 5),
            4: (rng.randint(6, 8), 5, 6),
        }
        numbers = _near(rng, *shape[level])
    end = rng.choice(("largest", "smallest"))
    word_for = rng.choice(("larger", "bigger", "greater", "the largest", "higher", "more"))
    name = rng.choice(("largest", "biggest", "greatest", "highest", "maximum"))
    if end == "smallest":
        word_for = rng.choice(("smaller", "less", "lower", "the smallest"))
        name = rng.choice(("smallest", "lowest", "least", "minimum"))
    if len(numbers) > 2:
        word_for = f"the {name}"
    either = ", ".join(numbers[:-1]) + " or " + numbers[-1]
    text = rng.choice(phrases.COMPARE).format(w=word_for, e=name, o=either, l=phrases.listing(rng, numbers))
    return _finish(rng, level, "compare", text, (end, *numbers))


def _sort(level: int, rng: random.Random) -> Item:
    count, shortest, longest = {
        1: (3, 1, 2),
        2: (rng.randint(3, 4), 1, 2),
        3: (rng.randint(4, 5), 1, 3),
        4: (rng.randint(6, 7), 1, 3),
        5: (8, rng.randint(2, 4), 4),
        6: (rng.randint(9, 11), rng.randint(2, 4), 4),
    }[level]
    shortest = max(shortest, 2) if level >= 4 and rng.random() < 0.8 else shortest
    numbers = _near(rng, count, shortest, longest)
    way = "descending" if rng.random() < 0.35 else "ascending"
    ending = rng.choice(phrases.DESCENDING if way == "descending" else phrases.ASCENDING)
    text = rng.choice(phrases.SORT).format(l=phrases.listing(rng, numbers), d=ending)
    return _finish(rng, level, "sort", text, (way, *numbers))


def _letters(level: int, rng: random.Random) -> Item:
    shortest, longest, count = {
        1: (3, 5, 1),
        2: (6, 8, 1),
        3: (9, 12, 1),
        4: (6, 9, 2),
        5: (4, 8, 4),
        6: (4, 9, 7),
    }[level]
    text = " ".join(word(rng, shortest, longest) for _ in range(count))
    present = sorted(set(text.replace(" ", "")))
    often = [c for c in present if text.count(c) > 1]
    letter = rng.choice(often if often and rng.random() < 0.5 else present)
    if rng.random() < 0.1:
        letter = rng.choice("abcdefghijklmnopqrstuvwxyz")
    quote = rng.choice(("", "", '"', "'")) if count == 1 else rng.choice(('"', '"', "'"))
    mark = rng.choice(("", "", '"', "'"))
    shown = text.capitalize() if rng.random() < 0.15 else text
    if count == 1 and rng.random() < 0.2:
        shown = "the word " + quote + shown + quote
    elif count > 1 and rng.random() < 0.4:
        shown = rng.choice(("the phrase ", "the text ", "the words ")) + quote + shown + quote
    else:
        shown = quote + shown + quote
    asked = rng.choice(phrases.LETTERS).format(c=mark + letter + mark, w=shown)
    return _finish(rng, level, "letters", asked, (letter, text))


def _units(level: int, rng: random.Random) -> Item:
    amount, source, target = rng.choice(_CONVERSIONS[level])(rng)
    operands = (str(amount), source, target)
    if level >= 4 and {source, target} == {"GB", "GiB"}:
        factor = GIB_PER_GB if source == "GB" else GB_PER_GIB
        rounded = (amount * factor).quantize(Decimal("0.1"), ROUND_HALF_UP)
        if plain(rounded) != solve("units", operands):
            return _units(level, rng)
    spelled: dict[str, tuple[str, ...]] = {
        "GB": ("GB", "GB", "gigabytes"),
        "GiB": ("GiB", "GiB", "gibibytes"),
        "MB": ("MB", "MB", "megabytes"),
    }
    spelled |= {"MiB": ("MiB", "MiB", "mebibytes"), "TB": ("TB", "terabytes"), "KiB": ("KiB", "kibibytes")}
    names = [rng.choice(spelled.get(unit, (unit,))) for unit in (source, target)]
    if amount == 1 and names[0].endswith("s"):
        names[0] = names[0][:-1]
    text = rng.choice(phrases.UNITS).format(n=amount, f=names[0], t=names[1])
    if rng.random() < 0.1 and amount != 1:
        text = text.replace(f"{amount} {source}", f"{amount}{source}")
    return _finish(rng, level, "units", text, operands, keep_case=rng.random() < 0.5)


_Conversion = Callable[[random.Random], tuple[int, str, str]]
_BINARY = (("KiB", "bytes"), ("MiB", "KiB"), ("GiB", "MiB"), ("TiB", "GiB"))
_METRIC = (("KB", "bytes"), ("MB", "KB"), ("GB", "MB"), ("TB", "GB"))


def _up(low: int, high: int, pairs: tuple[tuple[str, str], ...]) -> _Conversion:
    return lambda rng: (rng.randint(low, high), *rng.choice(pairs))


def _down(low: int, high: int, pairs: tuple[tuple[str, str], ...]) -> _Conversion:
    def make(rng: random.Random) -> tuple[int, str, str]:
        large, small = rng.choice(pairs)
        return rng.randint(low, high) * BITS[large] // BITS[small], small, large

    return make


_EIGHT = (("bytes", "bits"),)
_CONVERSIONS: dict[int, tuple[_Conversion, ...]] = {
    1: (_up(1, 12, _EIGHT), _down(1, 12, _EIGHT), _up(1, 4, _BINARY), _up(1, 20, _METRIC)),
    2: (
        _up(1, 64, _EIGHT),
        _down(1, 32, _EIGHT),
        _up(1, 16, _BINARY),
        _up(1, 200, _METRIC),
        _down(1, 16, _BINARY),
    ),
    3: (_up(50, 2000, _EIGHT), _down(30, 1200, _EIGHT), _up(10, 128, _BINARY), _down(20, 900, _METRIC)),
    4: (_up(2, 99, (("GB", "GiB"), ("GiB", "GB"))), _up(17, 99, _BINARY), _down(1000, 99999, _EIGHT)),
    5: (
        _up(100, 999, (("GB", "GiB"), ("GiB", "GB"))),
        _up(2, 9, (("GiB", "bytes"),)),
        _up(100, 999, _BINARY),
    ),
    6: (_up(11, 99, (("GiB", "bytes"),)), _up(100, 999, (("MiB", "bytes"),)), _up(11, 99, (("GiB", "KiB"),))),
}


def _vram(level: int, rng: random.Random) -> Item:
    if level >= 4:
        return _kv(level, rng)
    if level == 1:
        billions, bits = str(rng.randint(1, 20)), rng.choice(("8", "16", "16"))
    elif level == 2:
        billions, bits = str(rng.randint(1, 99)), rng.choice(("4", "8", "16", "16"))
    elif rng.random() < 0.5:
        billions, bits = f"{rng.randint(0, 99)}.{rng.randint(1, 9)}", rng.choice(("4", "8", "16", "16", "32"))
    else:
        billions, bits = str(rng.randint(50, 999)), rng.choice(("4", "8", "16", "16", "32"))
    many = rng.choice(
        (f"{billions}B", f"{billions}B", f"{billions}b", f"{billions} billion", f"{billions} B")
    )
    width = rng.choice((f"{bits} bits", f"{bits} bits", f"{bits} bit", f"{bits}-bit", f"{bits}bit"))
    if rng.random() < 0.2:
        many = f"{rng.choice(_NAMES)}{billions}{rng.choice('BBb')}"
    if bits == "16" and rng.random() < 0.35:
        width = rng.choice(("bf16", "fp16", "BF16", "FP16"))
    if level == 3 and rng.random() < 0.4:
        around = weights_gb(billions, bits)
        card = max(1, int(around * Decimal(rng.choice(("0.5", "0.7", "0.9", "1.1", "1.3", "1.8")))))
        card = rng.choice((card, rng.choice((8, 12, 16, 24, 32, 40, 48, 80, 96, 141, 160, 192))))
        text = rng.choice(phrases.FIT).format(p=many, b=width, g=card)
        return _finish(rng, level, "fit", text, (billions, bits, str(card)))
    text = rng.choice(phrases.WEIGHTS).format(p=many, b=width)
    return _finish(rng, level, "weights", text, (billions, bits))


_NAMES = (
    "Llama-3.1-",
    "Llama-3-",
    "llama ",
    "Llama 3 ",
    "Llama 3.1 ",
    "llama-2-",
    "Qwen2.5-",
    "Qwen3-",
    "qwen ",
    "Mistral-",
    "mistral ",
    "Gemma-2-",
    "gemma 3 ",
    "Phi-",
    "Yi-",
    "Falcon-",
    "Mixtral-",
    "deepseek ",
    "DeepSeek-V2-",
    "OLMo-2-",
)


def _kv(level: int, rng: random.Random) -> Item:
    while True:
        layers = rng.choice(
            (16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 40, 42, 46, 48, 56, 60, 62, 64, 72, 80, 88, 94, 96)
        )
        heads, size, bits = rng.choice((2, 4, 8, 16)), rng.choice((64, 96, 128, 256)), rng.choice((8, 16, 16))
        if 2 * heads * size * bits // 8 % 1024 == 0:
            break
    model = [f"{layers} layers", f"{heads} {rng.choice(('kv heads', 'KV heads'))}"]
    model += [f"{rng.choice(('head size', 'head dim'))} {size}", f"{bits} bits"]
    shown = rng.choice(
        (
            ", ".join(model),
            ", ".join(model[:3]) + " and " + model[3],
            ", ".join(model[:3]) + f" at {model[3]}",
        )
    )
    tokens, sequences = 1, 1
    if level == 4 or (level == 5 and rng.random() < 0.3):
        unit = "KiB" if level == 4 else "bytes"
        text = rng.choice(phrases.KV_TOKEN).format(u=unit, m=shown)
    else:
        unit, tokens = "MiB", 1024 * rng.choice((1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 32, 48, 64, 96, 128))
        stretch = f"{tokens} tokens"
        if level == 6:
            sequences = rng.randint(2, 32)
            stretch = f"{sequences} sequences of {tokens} tokens"
        text = rng.choice(phrases.KV_MANY).format(u=unit, m=shown, t=stretch)
    operands = (*(str(n) for n in (layers, heads, size, bits, tokens, sequences)), unit)
    return _finish(rng, level, "kv", text, operands)


MAKERS: dict[str, Callable[[int, random.Random], Item]] = {
    "sum": _sum,
    "difference": _difference,
    "product": _product,
    "compare": _compare,
    "sort": _sort,
    "letters": _letters,
    "units": _units,
    "vram": _vram,
}
