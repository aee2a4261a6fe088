"""Which modules the entries of a checkpoint's lists mean: names, wildcards and patterns. Pure.

Lists come from a stranger's file and modules are many, so names are looked up by their layer, patterns keep
their state after it, and all of it draws on one budget.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from subcortex.models._pattern_syntax import NotUnderstood
from subcortex.models._patterns import DEAD, Budget, Mode, Pattern, States

_REGEX = "re:"
#: More are no list of modules: the longest known have some hundred.
_MOST_PATTERNS = 1024
_LIST_STEPS = 100
#: A module inside a layer: what is before, the layer's number with its dots, what is behind.
_IN_LAYER = re.compile(r"((?:.*?\.)??\d+\.)(.*)", re.DOTALL)
#: Multimodal checkpoints keep the language model under another name.
_OUTER = re.compile(
    r"(?:thinker\.)?(?:(?:model\.language_model\.model|language_model\.model|model\.language_model)"
    r"(?=\.|$)|language_model\.(?=\w)|(?<=thinker\.)(?=model\.))"
)
_LANGUAGE_MODEL = frozenset(("language_model", "model.language_model", "language_model.model", "thinker"))
_ALIASES = (("model.", "model.language_model."), ("", "language_model."))
#: What engines and some checkpoints fuse, by the names that are counted here.
_FUSED = {
    "qkv_proj": ("q_proj", "k_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
    "fused_qkv_a_proj": ("q_a_proj", "kv_a_proj_with_mqa"),
}
_SHARED = re.compile(r"\bshared_expert(?=\.|$)")

Mark = tuple[bool, frozenset[str], frozenset[str], tuple[tuple[int, tuple[States, ...]], ...]]


class Modules:
    """A list of modules, as a config gives it.

    Args:
        budget: What looking them up may cost.
    """

    def __init__(self, budget: Budget) -> None:
        budget.spend(_LIST_STEPS)
        self._budget = budget
        #: Entries that are not understood, and not applied.
        self.unread: list[str] = []
        self._everything = False
        self._parts: set[str] = set()
        self._outer: set[str] = set()
        self._tails: dict[str, set[str]] = {}
        self._begins: dict[str, set[str]] = {}
        self._within: list[str] = []
        self._patterns: list[tuple[Pattern, bool]] = []
        self._before: dict[tuple[int, str], States] = {}
        self._marks: dict[str, int] = {}
        self._numbers: dict[Mark, int] = {}
        self._by_number: list[Mark] = []
        self._known: dict[tuple[int, str], bool] = {}
        self._ended: dict[tuple[int, States, str], bool] = {}
        self._within_known: dict[str, bool] = {}

    @staticmethod
    def of(entries: Iterable[str], budget: Budget, *, inside: bool = False) -> Modules:
        """Return what a list of names, ``re:`` patterns and names with wildcards means.

        Args:
            entries: The list.
            budget: What looking them up may cost.
            inside: A name counts wherever it stands in a module's (AWQ, GPTQ, ModelOpt).

        Raises:
            ConfigError: The list takes too long to read.
        """
        found = Modules(budget)
        for entry in dict.fromkeys(entries):
            found.add_entry(entry, inside=inside)
        return found

    def __bool__(self) -> bool:
        return bool(
            self._everything
            or self._parts
            or self._outer
            or self._tails
            or self._begins
            or self._within
            or self._patterns
        )

    def add_entry(self, entry: str, *, inside: bool = False) -> None:
        """Add a name, a ``re:`` pattern or a name with wildcards; see `of`."""
        if entry.startswith(_REGEX):
            self.add_pattern(entry.removeprefix(_REGEX))
        elif "*" in entry or "?" in entry:
            self.add_wildcards(entry)
        elif inside:
            self.add_text(entry)
        else:
            self.add_name(entry)

    def add_name(self, name: str) -> None:
        """Add a module by its full name, with what lies under it, or by one component such as ``lm_head``."""
        self._budget.spend(4)
        if name in _LANGUAGE_MODEL:
            self._everything = True
        elif "." not in name:
            self._parts.add(name)
        else:
            for each in _spellings(_plain(name)):
                self._add_plain(each)

    def _add_plain(self, name: str) -> None:
        found = _IN_LAYER.fullmatch(f"{name}.")
        if not found:
            self._outer.add(f"{name}.")
            return
        tail = found[2].removesuffix(".")
        self._tails.setdefault(found[1], set()).add(tail)

    def add_text(self, text: str) -> None:
        """Add a text that may stand anywhere in a name."""
        self._budget.spend(4)
        if text in _LANGUAGE_MODEL:
            self._everything = True
        elif text:
            text = _plain(text)
            found = _IN_LAYER.fullmatch(text)
            if found:
                self._begins.setdefault(found[1], set()).add(found[2])
            else:
                self._within.append(text)

    def add_wildcards(self, name: str) -> None:
        """Add modules by a name with ``*``, ``?`` or ``[…]``, with what lies under them."""
        name = _plain(name)
        found = _IN_LAYER.fullmatch(name.removesuffix("*"))
        if found and not re.search(r"[*?\[]", name[:-1]):
            self._budget.spend(4)
            self._begins.setdefault(found[1], set()).add(found[2])
        else:
            self._add(name, name, "start", wildcards=True)

    def add_pattern(self, text: str, mode: Mode = "start") -> None:
        """Add modules by a regular expression."""
        self._add(text, f"{_REGEX}{text}", mode, wildcards=False)

    def _add(self, text: str, entry: str, mode: Mode, *, wildcards: bool) -> None:
        self._budget.spend(len(text))
        if len(self._patterns) >= _MOST_PATTERNS:
            self._budget.exhaust()
        try:
            pattern = Pattern(text, self._budget, mode, wildcards=wildcards)
        except NotUnderstood:
            self.unread.append(entry[:80])
        else:
            self._patterns.append((pattern, "language_model" in text))

    def has(self, path: str) -> bool:
        """Tell whether the module at ``path`` is meant.

        Raises:
            ConfigError: The budget is spent.
        """
        found = _IN_LAYER.fullmatch(path)
        head, tail = (found[1], found[2]) if found else ("", path)
        return self.tail(self.mark(head), tail)

    def tail(self, mark: int, tail: str) -> bool:
        """Tell whether a module is meant, by its layer's mark and its name there."""
        known = self._known.get((mark, tail))
        if known is None:
            known = self._known[mark, tail] = self._found(mark, tail)
        return known

    def mark(self, head: str) -> int:
        """Return a number that is equal for layers that the entries do not tell apart.

        Args:
            head: The name of the layer with the last dot.

        Raises:
            ConfigError: The budget is spent.
        """
        number = self._marks.get(head)
        if number is None:
            mark = self._mark(head)
            self._budget.spend(30 + len(mark[3]))
            number = self._marks[head] = self._numbers.setdefault(mark, len(self._numbers))
        return number

    def _mark(self, head: str) -> Mark:
        pieces = head.split(".")
        covered = self._everything or not self._parts.isdisjoint(pieces)
        covered = covered or any(f"{'.'.join(pieces[:end])}." in self._outer for end in range(1, len(pieces)))
        self._budget.spend(len(self._within) // 2)
        covered = covered or (bool(head) and any(text in head for text in self._within))
        tails, begins = self._tails.get(head, ()), self._ends_of(head)
        if covered or "" in tails or "" in begins:
            return True, frozenset(), frozenset(), ()
        return False, frozenset(tails), begins, tuple(self._states(head))

    def _ends_of(self, head: str) -> frozenset[str]:
        """Return what texts ask of the rest of a name: those that stand inside it and end in its layer."""
        pieces = head.split(".")
        found: set[str] = set()
        for start in range(len(pieces) - 1):
            end = ".".join(pieces[start:])
            found |= self._begins.get(end, set())
            found |= self._begins.get(f".{end}", set()) if start else set()
        return frozenset(found)

    def _states(self, head: str) -> Iterable[tuple[int, tuple[States, ...]]]:
        """Yield the patterns that can still match, by their number, with their states after ``head``."""
        for number, (pattern, aliased) in enumerate(self._patterns):
            heads = _aliases(head) if aliased else (head,)
            states = tuple(self._after(number, pattern, each) for each in heads)
            if any(each[0] != DEAD for each in states):
                yield number, states

    def _after(self, number: int, pattern: Pattern, head: str) -> States:
        """Return a pattern's states after a layer's name; what comes before the number is looked at once."""
        cut = head.rstrip(".0123456789")
        before = self._before.get((number, cut))
        if before is None:
            before = self._before[number, cut] = pattern.after(pattern.start, cut)
        return pattern.after(before, head[len(cut) :])

    def _found(self, number: int, tail: str) -> bool:
        self._budget.spend(10)
        mark = self._mark_of(number)
        covered, tails, begins, states = mark
        if covered or self._in_texts(tail):
            return True
        pieces = tail.split(".")
        if not self._parts.isdisjoint(pieces):
            return True
        if any(".".join(pieces[:end]) in tails for end in range(1, len(pieces) + 1)):
            return True
        self._budget.spend(len(begins) // 2)
        if begins and tail.startswith(tuple(begins)):
            return True
        names = _spelled(tail)
        return any(
            self._ends(index, each, name) for index, found in states for each in found for name in names
        )

    def _ends(self, index: int, states: States, tail: str) -> bool:
        """Tell whether a pattern matches from a state on; layers mostly leave it in the same one."""
        self._budget.spend(2)
        key = (index, states, tail)
        known = self._ended.get(key)
        if known is None:
            pattern = self._patterns[index][0]
            known = self._ended[key] = pattern.ends(pattern.after(states, tail))
        return known

    def _mark_of(self, number: int) -> Mark:
        if len(self._by_number) < len(self._numbers):
            self._by_number = list(self._numbers)
        return self._by_number[number]

    def _in_texts(self, tail: str) -> bool:
        known = self._within_known.get(tail)
        if known is None:
            self._budget.spend(len(self._within) // 2)
            name = f".{tail}"
            known = self._within_known[tail] = any(text in name for text in self._within)
        return known


def _plain(name: str) -> str:
    """Return a name as a model of text alone has it."""
    found = _OUTER.match(name)
    if not found:
        return name
    rest = name[found.end() :]
    return f"model{rest}" if rest.startswith(".") else rest


def _aliases(head: str) -> tuple[str, ...]:
    """Return a layer's name as multimodal checkpoints and engines may have it."""
    return tuple(new + head.removeprefix(old) for old, new in _ALIASES)


def _spellings(name: str) -> list[str]:
    """Return the modules counted here that an entry's name means.

    One expert stands for all of its layer: they are held together. A fused module stands for its parts.
    """
    name = _SHARED.sub("shared_experts", name)
    before, found, _ = name.partition(".experts.")
    if found:
        return [f"{before}.experts"]
    outer, _, last = name.rpartition(".")
    return [f"{outer}.{each}" for each in _FUSED.get(last, (last,))]


@lru_cache(maxsize=1024)
def _spelled(tail: str) -> tuple[str, ...]:
    """Return a module's name and what checkpoints may call it instead, for patterns."""
    found = [tail]
    if ".experts." in tail:
        before, _, after = tail.partition(".experts.")
        found += [f"{before}.experts.0.{after}", f"{before}.experts"]
    if "shared_experts" in tail:
        found.append(tail.replace("shared_experts", "shared_expert"))
    outer, dot, last = tail.rpartition(".")
    found += [f"{outer}{dot}{fused}" for fused, parts in _FUSED.items() if last in parts]
    return tuple(found)
