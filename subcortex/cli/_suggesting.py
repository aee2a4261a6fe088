"""``config suggest``: what measured answers would change in the file, as a diff, and written on request."""

from __future__ import annotations

import contextlib
import difflib
import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from subcortex.cli import _output
from subcortex.errors import ConfigError, SubcortexError

if TYPE_CHECKING:
    from subcortex.config import Config
    from subcortex.experiments.consequences.suggestions import Suggestion

_NOTHING = "nothing that was measured speaks against the configuration"
_UNMEASURED = "nothing that counts today has been measured; `subcortex experiments next` offers what could be"


def suggest(config: Config, file: Path, *, apply: bool, as_json: bool) -> None:
    """Print what to change in ``file``, and change it if told to.

    Args:
        config: What is in force: says where the journal is.
        file: The configuration file. It is compared alone: a variable that overrides a key is no fault of it.
        apply: Write it; what was there is kept beside it as ``….bak``.
        as_json: Print one JSON value.

    Raises:
        ConfigError: The file cannot be read, changed or written.
    """
    # Paths in it start from where it was found; what is written is what a link leads to.
    findings, found = _found(config, file)
    file = file.resolve()
    before = _read(file)
    after = _edited(before, found)
    diff = _diff(before, after, file) if after is not None else []
    applied = apply and bool(found)
    if applied:
        if after is None:
            _edited(before, found, refuse=True)
        assert after is not None
        _replace(file, before, after)
    if as_json:
        _output.print_json(
            {"file": str(file), "suggestions": found, "diff": "".join(diff) or None, "applied": applied}
        )
        return
    if not found:
        _output.note(_NOTHING if findings else _UNMEASURED)
        return
    _say(found, diff, file, applied=applied)


def _found(config: Config, file: Path) -> tuple[int, list[Suggestion]]:
    """Return how many answers count today, and what they suggest."""
    from subcortex import config as configuration
    from subcortex.cli._board import diary_of
    from subcortex.experiments.consequences.suggestions import suggestions
    from subcortex.mind.experimenting.standing import pools, standing
    from subcortex.mind.foresight import recorded

    alone = configuration.load(file, {})
    with diary_of(config) as diary:
        findings = standing(diary, alone) if diary is not None else []
    findings += pools(recorded(config), alone)
    longest = _longest(alone) if findings else {}
    return len(findings), suggestions(alone, findings, longest_tokens=longest)


def _longest(config: Config) -> dict[str, int]:
    """Return the longest context of each vLLM tier whose model lies here."""
    from subcortex.config import VllmTier
    from subcortex.models.read import read_shape

    found = {}
    for tier in config.tiers:
        if not isinstance(tier, VllmTier) or tier.context_tokens is None:
            continue
        path = config.resolve(tier.model)
        with contextlib.suppress(SubcortexError):
            longest = read_shape(path).max_context_tokens if path.exists() else None
            if longest is not None:
                found[tier.name] = longest
    return found


def _edited(text: str, found: Sequence[Suggestion], *, refuse: bool = False) -> str | None:
    """Return the file's text as it would be; None, or the error, where it cannot be changed safely."""
    from subcortex.config.editing import Edit, edited

    try:
        return edited(text, [Edit(one.tier, one.key, one.new) for one in found])
    except ConfigError:
        if refuse:
            raise
        return None


def _diff(before: str, after: str, file: Path) -> list[str]:
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), str(file), f"{file} as suggested"
    )
    # A last line without an end would run into the next.
    return [line if line.endswith("\n") else f"{line}\n" for line in lines]


def _say(found: Sequence[Suggestion], diff: Sequence[str], file: Path, *, applied: bool) -> None:
    from subcortex.config.editing import toml

    for one in found:
        old = "(unset)" if one.old is None else toml(one.old)
        _output.say(_output.inert_line(f"# {one.tier}: {one.key} = {old} → {toml(one.new)}"))
        rests = ", ".join(
            [f"run {run[:16]}" for run in one.run_ids] + [f"fact {fact[:16]}" for fact in one.fact_ids]
        )
        _output.say(_output.inert_line(f"#   {one.reason}{f' ({rests})' if rests else ''}"))
    for line in diff:
        _output.say(_output.inert_line(line.rstrip("\r\n")))
    if not diff:
        _output.note(f"{file} is written in a way that cannot be changed safely; write the keys by hand")
    elif applied:
        _output.note(
            f"written; what was there is {file.name}.bak. A daemon takes it up when it is started again: "
            "`subcortex down`, then `subcortex up`"
        )
    else:
        _output.note("nothing is changed yet; --apply writes it")


def _read(file: Path) -> str:
    try:
        # Line ends stay as they are.
        with file.open(encoding="utf-8", newline="") as stream:
            return stream.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}", hint="Mind its owner and mode.") from None


def _replace(file: Path, before: str, after: str) -> None:
    """Write the file whole, with the mode that it has: whoever reads it sees the old text or the new."""
    under_way = file.with_name(f".{file.name}-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        mode = file.stat().st_mode & 0o7777
        shutil.copy2(file, file.with_name(f"{file.name}.bak"))
        number = os.open(under_way, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(number, "wb") as stream:
            stream.write(after.encode())
            stream.flush()
            os.fchmod(number, mode)
            os.fsync(number)
        if _read(file) != before:
            raise ConfigError(f"{file} was changed by somebody else meanwhile", hint="Ask again.")
        under_way.replace(file)
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be written: {error.strerror or error}",
            hint="Mind the owner and mode of its folder.",
            file=str(file),
        ) from error
    finally:
        under_way.unlink(missing_ok=True)
