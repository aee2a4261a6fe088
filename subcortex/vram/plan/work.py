"""How much a plan may do before it settles for what it has found; counted, never timed. Pure.

A limit in seconds would give other plans on a busy machine. What takes the time is counted instead: places
tried, looks at what a seat takes, estimates and splits made, each at about what it costs beside the others.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Machines of more GPUs have more sets of them than can be tried.
MANY_GPUS = 8
#: Of a whole plan, on up to so many GPUs, where hardly any gets there, and on more: about a second. All that
#: is planned instead of one that does not fit may take so many times as much.
_MOST_WORK, _MOST_OF_MANY, _INSTEAD = 600_000, 60_000, 3
#: Of a place; of a look at what a seat takes of one GPU; of an estimate of one stage; and of a split of
#: llama.cpp's layers made anew, for each pair of GPUs.
PLACE, LOOK, ESTIMATE, SPLIT = 1, 1, 60, 100
#: On many GPUs a search has this part of what is left, so that none takes the room of those after it.
_PART = 3
#: Of that each number of seats has at least one part in so many.
_PARTS = 8
#: And one of many plans that are made one after the other this part.
_MANY = 8


@dataclass(slots=True)
class Work:
    """What a plan has done, and may do.

    Args:
        most: It ends where so much is done.
        many: It is shared out, among searches and in each among numbers of seats.
        done: So much is.
        cut_short: A search ended before it had tried every place.
    """

    most: int
    many: bool = False
    done: int = 0
    cut_short: bool = False

    @classmethod
    def on(cls, gpus: int) -> Work:
        """Return what a plan may do on a machine of so many GPUs."""
        many = gpus > MANY_GPUS
        return cls(_MOST_OF_MANY if many else _MOST_WORK, many)

    @classmethod
    def instead(cls, gpus: int) -> Work:
        """Return what all plans together may do that are made where one does not fit."""
        one = cls.on(gpus)
        return cls(_INSTEAD * one.most, one.many)

    def did(self, work: int) -> None:
        """Note that so much was done."""
        self.done += work

    @property
    def left(self) -> int:
        """What may still be done."""
        return max(0, self.most - self.done)

    def end_of_search(self) -> int:
        """Return what ``done`` may come to by the search that begins now."""
        return self.done + self.left // (_PART if self.many else 1)

    def end_of_part(self, last: int, more: int) -> int:
        """Return what ``done`` may come to by a part that begins now, of a search that goes on to ``last``.

        Args:
            last: As `end_of_search` said.
            more: Parts that are still to come.
        """
        left = max(0, last - self.done)
        return self.done + left // (min(_PARTS, more + 1) if self.many else 1)

    def part(self) -> Work:
        """Return what one of many plans may do of what is left."""
        return Work(self.left // (_MANY if self.many else 1), self.many)
