"""Patterns of modules from a stranger's file, matched in bounded time. Pure.

Regular expressions of Python can take exponential time, so they are not run: what checkpoints really use of
them (characters, classes, groups, alternatives, repetitions, anchors, and a refusal at the start) is turned
into an automaton, which looks at each character of a name once. What lies outside is not understood, and said
to be so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NoReturn

from subcortex.models._config import Config
from subcortex.models._pattern_syntax import (
    AFTER,
    ANY,
    END,
    Choice,
    Node,
    NotUnderstood,
    Parser,
    Repeated,
    Sequence,
    Set,
    unwild,
)

_MOST_LENGTH = 500
_MOST_POSITIONS = 600
#: The states of an automaton that are no set of positions: all is lost; it matched, whatever follows.
DEAD, MATCHED = 0, -1
#: A step over a known transition is 1; all that one file may ask for takes some tenths of a second.
MOST_STEPS = 1_000_000
_PARSE_STEPS, _CALL_STEPS = 20, 12

States = tuple[int, ...]
Mode = Literal["start", "whole", "anywhere"]


class Budget:
    """How much work the lists of one file may cause.

    Args:
        config: The file, for the error.
        key: The key that they stand under.
        steps: In all.
    """

    def __init__(self, config: Config, key: str = "quantization_config", steps: int = MOST_STEPS) -> None:
        self._config, self._key = config, key
        self._steps = self._left = steps

    def spend(self, steps: int) -> None:
        """Take some of it.

        Raises:
            ConfigError: Nothing is left.
        """
        self._left -= steps
        if self._left < 0:
            self.exhaust()

    def exhaust(self) -> NoReturn:
        """Refuse the lists: they are longer than any real one.

        Raises:
            ConfigError: Always.
        """
        wanted = f"lists of modules that are searched in {self._steps} steps"
        raise self._config.wrong(self._key, self._config.get(self._key), wanted)


class _Automaton:
    """The positions of a pattern, and which may follow which.

    Transitions are worked out when first asked for. A state is the set of positions that the last character
    may have been at, as bits.
    """

    def __init__(self, node: Node, budget: Budget) -> None:
        self._sets: list[Set] = []
        self._follow: list[int] = []
        self._left = 4 * _MOST_POSITIONS
        self._budget = budget
        empty, self._first, self._last = self._build(node)
        self.start = MATCHED if empty else -2
        self._moves: dict[int, dict[str, int]] = {}
        self._fitting: dict[str, int] = {}

    def move(self, state: int, character: str) -> int:
        """Return the state after one more character."""
        if state in (DEAD, MATCHED):
            return state
        known = self._moves.setdefault(state, {})
        found = known.get(character)
        if found is None:
            found = known[character] = self._worked_out(state, character)
        return found

    def _worked_out(self, state: int, character: str) -> int:
        fitting = self._fitting.get(character)
        if fitting is None:
            self._budget.spend(5 * len(self._sets))
            fitting = sum(1 << at for at, each in enumerate(self._sets) if each.has(character))
            self._fitting[character] = fitting
        reached = self._first if state == self.start else self._after(state)
        reached &= fitting
        return MATCHED if reached & self._last else reached

    def _after(self, state: int) -> int:
        self._budget.spend(10 + 2 * state.bit_count())
        found = 0
        for at in _bits(state):
            found |= self._follow[at]
        return found

    def _build(self, node: Node) -> tuple[bool, int, int]:
        """Add a part's positions; return whether it may be empty, its first and its last ones."""
        self._left -= 1
        if self._left < 0 or len(self._sets) >= _MOST_POSITIONS:
            raise NotUnderstood
        match node:
            case Set():
                self._sets.append(node)
                self._follow.append(0)
                bit = 1 << (len(self._sets) - 1)
                return False, bit, bit
            case Sequence(parts):
                return self._joined(self._build(part) for part in parts)
            case Choice(parts):
                built = [self._build(part) for part in parts]
                first = last = 0
                for each in built:
                    first, last = first | each[1], last | each[2]
                return any(each[0] for each in built), first, last
        return self._joined(self._times(node))

    def _times(self, node: Repeated) -> Iterator[tuple[bool, int, int]]:
        for _ in range(node.least):
            yield self._build(node.part)
        if node.most is None:
            _, first, last = self._build(node.part)
            self._link(last, first)
            yield True, first, last
            return
        for _ in range(node.most - node.least):
            _, first, last = self._build(node.part)
            yield True, first, last

    def _joined(self, parts: Iterator[tuple[bool, int, int]]) -> tuple[bool, int, int]:
        empty, first, last = True, 0, 0
        for each in parts:
            self._link(last, each[1])
            first |= each[1] if empty else 0
            last = each[2] | (last if each[0] else 0)
            empty &= each[0]
        return empty, first, last

    def _link(self, last: int, first: int) -> None:
        self._budget.spend(last.bit_count())
        for at in _bits(last):
            self._follow[at] |= first


def _bits(of: int) -> Iterator[int]:
    while of:
        low = of & -of
        yield low.bit_length() - 1
        of ^= low


class Pattern:
    """A pattern that names are held against, a piece at a time.

    Args:
        text: A regular expression, or a name with wildcards.
        budget: What reading it and holding names against it may cost.
        mode: Where it has to match; for a regular expression.
        wildcards: ``text`` is a name with ``*``, ``?`` and ``[…]``, and means what lies under it too.

    Raises:
        NotUnderstood: It uses what is not supported, or is too long.
        ConfigError: The budget is spent.
    """

    def __init__(self, text: str, budget: Budget, mode: Mode = "start", *, wildcards: bool = False) -> None:
        if len(text) > _MOST_LENGTH:
            raise NotUnderstood
        budget.spend(_PARSE_STEPS * len(text))
        self._budget = budget
        parser = Parser(unwild(text) if wildcards else text)
        refused = list(parser.refusals())
        node = parser.rest()
        if refused and isinstance(node, Choice):
            raise NotUnderstood
        if wildcards:
            node = Sequence((node, Choice((Set(frozenset(".")), AFTER))))
        elif mode == "whole":
            node = Sequence((node, AFTER))
        elif mode == "anywhere" and refused:
            raise NotUnderstood
        elif mode == "anywhere" and not text.startswith("^"):
            node = Sequence((Repeated(ANY, 0, None), node))
        self._automata = tuple(_Automaton(each, budget) for each in (node, *refused))
        self.start: States = tuple(each.start for each in self._automata)

    def after(self, states: States, text: str) -> States:
        """Return the states after some more characters of a name."""
        self._budget.spend((_CALL_STEPS + len(text)) * len(states))
        found = []
        for automaton, state in zip(self._automata, states, strict=True):
            for character in text:
                if state in (DEAD, MATCHED):
                    break
                state = automaton.move(state, character)
            found.append(state)
        return tuple(found)

    def ends(self, states: States) -> bool:
        """Tell whether a name that ends here matches."""
        # An anchor may stand before the end that a whole match asks for, or twice.
        matched, *refused = self.after(states, 3 * END)
        return matched == MATCHED and MATCHED not in refused

    def matches(self, name: str) -> bool:
        """Tell whether a name matches."""
        return self.ends(self.after(self.start, name))
