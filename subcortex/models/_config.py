"""Typed reading of a config.json's keys: what is there is checked, what is missing is named. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from subcortex.errors import ConfigError

#: Larger figures are no model's, and would only cost time and memory here.
MOST_LAYERS = 2048
MOST_WIDTH = 2**24
MOST_ROWS = 2**27
MOST_TOKENS = 2**40
MOST_EXPERTS = 2**16


class Config:
    """The keys of a config.json, or of an object inside it.

    Args:
        values: The object.
        name: What the model is called in errors.
        where: Path of the object inside the file, e.g. ``text_config.``.
        file: The file it came from, for errors; empty if there is none.
    """

    def __init__(self, values: Mapping[str, Any], name: str, where: str = "", file: str = "") -> None:
        self.values = values
        self.name = name
        self._where = where
        self._file = file or name

    @property
    def file(self) -> str:
        """The file it came from, for errors."""
        return self._file

    def __contains__(self, key: str) -> bool:
        """Tell whether ``key`` has a value other than null."""
        return self.values.get(key) is not None

    def get(self, key: str) -> Any:
        """Return the raw value, None if it is missing or null."""
        return self.values.get(key)

    def integer(self, *keys: str, default: int | None = None, least: int = 1, most: int = MOST_WIDTH) -> int:
        """Return the first of ``keys`` that is there, as a whole number.

        Raises:
            ConfigError: It is no whole number within the bounds, or missing without a default.
        """
        for key in keys:
            value = self.values.get(key)
            if value is None:
                continue
            if isinstance(value, float) and value == value and value.is_integer() and abs(value) <= most:
                value = int(value)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise self.wrong(key, value, f"a whole number of {least} to {most}")
            return value
        if default is not None:
            return default
        raise self.missing(keys)

    def number(self, *keys: str, default: float, least: float = 0.0, most: float = 1e9) -> float:
        """Return the first of ``keys`` that is there, as a number; ``default`` if none is.

        Raises:
            ConfigError: It is no number within the bounds.
        """
        for key in keys:
            value = self.values.get(key)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
                raise self.wrong(key, value, f"a number of {least:g} to {most:g}")
            return float(value)
        return default

    def flag(self, *keys: str, default: bool = False) -> bool:
        """Return the first of ``keys`` that is there, as true or false.

        Raises:
            ConfigError: It is neither.
        """
        for key in keys:
            value = self.values.get(key)
            if value is None:
                continue
            if not isinstance(value, bool):
                raise self.wrong(key, value, "true or false")
            return value
        return default

    def text(self, key: str, default: str = "") -> str:
        """Return a text, ``default`` if it is missing.

        Raises:
            ConfigError: It is something else, or longer than 1000 characters.
        """
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, str) or len(value) > 1000:
            raise self.wrong(key, value, "a short text")
        return value

    def items(self, key: str, kind: type | tuple[type, ...] = object) -> list[Any] | None:
        """Return a list whose items are of ``kind``, None if it is missing.

        Raises:
            ConfigError: It is no list, holds something else, or more than 65,536 items.
        """
        value = self.values.get(key)
        if value is None:
            return None
        if (
            not isinstance(value, Sequence)
            or isinstance(value, str)
            or len(value) > MOST_EXPERTS
            or not all(isinstance(item, kind) for item in value)
        ):
            raise self.wrong(key, value, "a list of the right kind")
        return list(value)

    def inside(self, key: str) -> Config | None:
        """Return the object under ``key``, None if it is missing.

        Raises:
            ConfigError: It is something else.
        """
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self.wrong(key, value, "an object")
        return Config(value, self.name, f"{self._where}{key}.", self._file)

    def with_values(self, values: Mapping[str, Any]) -> Config:
        """Return the same with other keys beside or over these."""
        return Config({**self.values, **values}, self.name, self._where, self._file)

    def missing(self, keys: Sequence[str]) -> ConfigError:
        """Return the error for keys of which none is there."""
        named = " or ".join(f"{self._where}{key}" for key in keys)
        return ConfigError(
            f"the config of {self._file} has no {named}",
            hint="Is it a language model's config.json? Give a folder with its weights' headers instead.",
            file=self._file,
            key=f"{self._where}{keys[0]}",
        )

    def wrong(self, key: str, value: Any, wanted: str) -> ConfigError:
        """Return the error for a value that cannot be."""
        said = repr(value) if isinstance(value, bool | int | float | str | None) else type(value).__name__
        said = said if len(said) <= 60 else said[:57] + "…"
        return ConfigError(
            f"{self._where}{key} of {self._file} is {said}; it should be {wanted}",
            hint="Download the model's config.json again.",
            file=self._file,
            key=f"{self._where}{key}",
        )
