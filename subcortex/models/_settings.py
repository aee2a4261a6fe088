"""What the readers of quantisations share. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from subcortex.models._config import Config
from subcortex.models._modules import Modules
from subcortex.models._patterns import Budget
from subcortex.models._scheme import Method, Rule, Scheme
from subcortex.models.shape import Doubt, Note, Quantisation

VLLM = "vLLM 0.26"
#: What reading one entry of an object costs of the budget.
_ENTRY_STEPS = 50
#: Of one kind; a file may be wrong in as many places as it has lines.
MOST_NOTES = 4
#: Characters of what a file calls something.
_MOST_NAMED = 120


def refused(what: str, why: str = "") -> Note:
    """Return the note for what vLLM does not load."""
    words = f"{VLLM} does not load {what[:_MOST_NAMED]}{f': {why}' if why else ''}."
    return Note(words, Doubt.FORM | Doubt.NOT_LOADED)


def unfamiliar(name: str, counted: str) -> Note:
    """Return the note for a form that is not known here, and how it is counted."""
    words = f"Quantisation by {name} is not known here: {counted}."
    return Note(words, Doubt.FORM | Doubt.UNFAMILIAR)


def plain(name: str, *notes: str) -> Method:
    """Return a method whose sizes are not known, counted as 16 bits."""
    name = name[:_MOST_NAMED]
    note = unfamiliar(name, "weights are counted as 16 bits")
    return Method(Quantisation(name, 16), notes=(note, *notes))


def skipped(config: Config, budget: Budget, *keys: str, inside: bool = False) -> tuple[Rule, ...]:
    """Return the rule for modules that stay plain.

    Args:
        config: The quantisation.
        budget: What its lists may cost.
        keys: Of the lists; those that are there count together.
        inside: A name counts wherever it stands in a module's.

    Raises:
        ConfigError: One is no list of texts.
    """
    entries: list[str] = []
    for key in keys:
        entries += config.items(key, str) or []
    return (Rule(Modules.of(entries, budget, inside=inside)),) if entries else ()


def entries_of(config: Config | None, budget: Budget) -> Iterator[tuple[str, Config | None]]:
    """Yield the keys of an object with what stands under them, None where that is null.

    Raises:
        ConfigError: Something else than objects stands under them, or they are too many.
    """
    for key in config.values if config else ():
        budget.spend(_ENTRY_STEPS)
        yield key, config.inside(key) if config else None


def in_order(
    entries: Iterable[tuple[str, Scheme | None]], budget: Budget, add: Callable[[Modules, str], None]
) -> list[Rule]:
    """Return rules of which the first that matches holds.

    Args:
        entries: Names or patterns of modules, and how those are stored.
        budget: What looking them up may cost.
        add: Adds one to a list of modules.
    """
    found: list[Rule] = []
    for entry, scheme in entries:
        if not found or found[-1].scheme != scheme:
            found.append(Rule(Modules(budget), scheme))
        add(found[-1].modules, entry)
    return found


def block_of(config: Config, key: str) -> tuple[int, int] | None:
    """Return the rows and columns of a block with one scale; None if it is missing.

    Raises:
        ConfigError: It is no pair of numbers.
    """
    block = config.items(key, int)
    if block is None:
        return None
    if len(block) != 2 or not all(1 <= size <= 2**16 for size in block):
        raise config.wrong(key, block, "two whole numbers of 1 to 65536")
    return block[0], block[1]


def group_of(config: Config, *keys: str, default: int = 128) -> int:
    """Return how many weights along the input share a scale; 0 for all (-1 in a file)."""
    return max(0, config.integer(*keys, default=default, least=-1))
