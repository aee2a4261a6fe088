"""Flags that a person gives an engine, read as the engine reads them: the last of a kind counts. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from math import isfinite

from subcortex.errors import ConfigError

#: Short and older spellings → the one looked for.
VLLM_NAMES: Mapping[str, str] = {
    "-tp": "--tensor-parallel-size",
    "-pp": "--pipeline-parallel-size",
    "-ep": "--enable-expert-parallel",
    "-q": "--quantization",
    "--kv-cache-memory": "--kv-cache-memory-bytes",
    "--device-memory-utilization": "--gpu-memory-utilization",
}
#: llama-server's, and the attributes that the embedded one is set by.
LLAMACPP_NAMES: Mapping[str, str] = {
    "-c": "--ctx-size",
    "--n-ctx": "--ctx-size",
    "-np": "--parallel",
    "--n-parallel": "--parallel",
    "-ngl": "--n-gpu-layers",
    "--gpu-layers": "--n-gpu-layers",
    "-sm": "--split-mode",
    "-ts": "--tensor-split",
    "-mg": "--main-gpu",
    "-ctk": "--cache-type-k",
    "-ctv": "--cache-type-v",
    "-b": "--batch-size",
    "--n-batch": "--batch-size",
    "-ub": "--ubatch-size",
    "--n-ubatch": "--ubatch-size",
    "-fa": "--flash-attn",
    "--flash-attn-type": "--flash-attn",
    "-kvu": "--kv-unified",
    "-no-kvu": "--no-kv-unified",
    "-cram": "--cache-ram",
    "--cache-ram-mib": "--cache-ram",
    "--use-mmap": "--mmap",
}
#: What vLLM calls a cache of 8 bits.
FP8_CACHES = ("fp8", "fp8_e4m3", "fp8_e5m2", "fp8_inc")
_DECIMAL = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"(\d+)(\.\d+)?([kKmMgGtT])")
#: A dash before a digit is a sign.
_NEGATIVE = re.compile(r"-[\d.]")
_ON, _OFF = ("on", "enabled", "true", "1"), ("off", "disabled", "false", "0")


def groups(words: Sequence[str], names: Mapping[str, str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each flag by the name it is looked for, with its own words as written; words before any as ""."""
    name, own = "", list[str]()
    for word in words:
        if word.startswith("-") and not _NEGATIVE.match(word):
            if own:
                yield name, tuple(own)
            spelt = word.partition("=")[0]
            # Both engines read underscores as dashes.
            spelt = spelt.replace("_", "-") if spelt.startswith("--") else spelt
            name, own = names.get(spelt, spelt), []
        own.append(word)
    if own:
        yield name, tuple(own)


def without(words: Sequence[str], names: Mapping[str, str], others: Collection[str]) -> tuple[str, ...]:
    """Return flags without some and their opposites, each with its value."""
    gone = {*others, *(f"--no-{name[2:]}" for name in others)}
    return tuple(word for name, own in groups(words, names) if name not in gone for word in own)


class Given:
    """The flags of a tier.

    Every reader returns None for a flag that was not given.

    Raises:
        ConfigError: From every reader: the flag has no value, or one that the engine would refuse.
    """

    def __init__(self, tier: str, words: Sequence[str], names: Mapping[str, str]) -> None:
        self._tier = tier
        self._values: dict[str, str | None] = {}
        for name, own in groups(words, names):
            _, equals, value = own[0].partition("=")
            # The last one counts, among a switch and its opposite too.
            self._values.pop(name, None)
            self._values[name] = value if equals else own[1] if len(own) > 1 else None

    def has(self, name: str) -> bool:
        """Return whether it was given, with a value or without."""
        return name in self._values

    def switch(self, name: str, *, otherwise: bool = False) -> bool:
        """Return whether a switch is on: the last of ``--name`` and ``--no-name``."""
        order = list(self._values)
        opposite = f"--no-{name[2:]}"
        if opposite in order and (name not in order or order.index(opposite) > order.index(name)):
            return False
        if name not in order:
            return otherwise
        return self._values[name] not in _OFF

    def text(self, name: str, known: Sequence[str] | None = None) -> str | None:
        """Return a word, one of those known if they are given."""
        if name not in self._values:
            return None
        value = self._values[name]
        if value is None:
            raise ConfigError(
                f"tier {self._tier!r}: {name} has no value", hint="Mend it in the tier's flags.", key="flags"
            )
        if known is not None and value not in known:
            raise self.wrong(name, f"one of {', '.join(known)}")
        return value

    def whole(self, name: str, *, least: int) -> int | None:
        """Return a whole number."""
        text = self.text(name)
        try:
            number = None if text is None else int(text)
        except ValueError:
            raise self.wrong(name, "a whole number") from None
        return self._at_least(name, number, least)

    def size(self, name: str, *, least: int) -> int | None:
        """Return a number as vLLM writes large ones: ``16k`` (thousands), ``2G`` (of 1024), ``1.5g``."""
        text = self.text(name)
        found = _SIZE.fullmatch(text.strip()) if text else None
        if found is None:
            return self.whole(name, least=least)
        digits, fraction, unit = found.groups()
        if unit in _BINARY:
            if fraction:
                raise self.wrong(name, f"a whole number of {unit}; fractions go with {unit.lower()}")
            return self._at_least(name, int(digits) * _BINARY[unit], least)
        return self._at_least(name, int(float(digits + (fraction or "")) * _DECIMAL[unit]), least)

    def share(self, name: str) -> float | None:
        """Return a share of a card: above 0, at most 1."""
        text = self.text(name)
        if text is None:
            return None
        found = self._numbers(name, [text], "a share above 0 and at most 1, e.g. 0.9")[0]
        if not 0 < found <= 1:
            raise self.wrong(name, "a share above 0 and at most 1, e.g. 0.9")
        return found

    def shares(self, name: str) -> tuple[float, ...] | None:
        """Return numbers with commas or strokes between, whatever they are."""
        text = self.text(name)
        return None if text is None else self._numbers(name, re.split("[,/]", text), "shares, e.g. 8,3")

    def on_or_off(self, name: str) -> bool | None:
        """Return llama.cpp's on, off, or None for auto and for not given; without a value it is on."""
        if not self.has(name):
            return None
        value = self._values[name]
        if value is None or value in _ON:
            return True
        if value in _OFF:
            return False
        if value in ("auto", "-1"):
            return None
        raise self.wrong(name, "on, off or auto")

    def wrong(self, name: str, wanted: str) -> ConfigError:
        """Return the error that a value is not what is wanted."""
        return ConfigError(
            f"tier {self._tier!r}: {name} is {self._values[name]!r}, which is not {wanted}",
            hint="Mend it in the tier's flags.",
            key="flags",
        )

    def _at_least(self, name: str, number: int | None, least: int) -> int | None:
        if number is not None and number < least:
            raise self.wrong(name, f"{least} or more")
        return number

    def _numbers(self, name: str, texts: Sequence[str], wanted: str) -> tuple[float, ...]:
        try:
            found = tuple(map(float, texts))
        except ValueError:
            raise self.wrong(name, wanted) from None
        if not all(map(isfinite, found)):
            raise self.wrong(name, wanted)
        return found
