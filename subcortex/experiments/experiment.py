"""What an experiment is: what it can find out here, what it needs and costs, and how it runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from subcortex.experiments.choice import Belief
from subcortex.experiments.laboratory.lab import Lab
from subcortex.experiments.needs import Needs as Needs
from subcortex.experiments.scene import Scene
from subcortex.experiments.statistics import Interval

#: ``measured``: a figure. ``different`` and ``alike``: two arms, whose intervals tell. ``inconclusive``:
#: theirs do not, and ``n_needed`` says what would. ``passed`` and ``failed``: a check, a boot.
Outcome = Literal["measured", "different", "alike", "inconclusive", "passed", "failed"]


@dataclass(frozen=True, slots=True)
class Inquiry:
    """One thing that an experiment would find out here.

    Args:
        experiment: Its name in the catalogue.
        subject: What it is asked of: a tier's name, or ``machine``.
        question: In words, as it would stand on the board.
        quantity: What is asked, as the board's figures name it (``journal.board.quantities``).
        about: Of what, as the board's figures name it: a model, a card, a link.
        unit: Of the answer.
        prior: What is believed now: the planner's interval, or a wide guess.
        noise: Standard deviation expected of the result, on the prior's scale (``choice.NOISES``).
        worth: How far plans or routes would move across the prior (``choice.worth_across``), or a nominal 1.
        minutes: Expected to take here.
        needs: What must be free.
        after: Experiments that must have run before; what they found wrong forbids it.
        depends_on: What the answer would depend on: its birth certificate, whose digest the memo goes by.
    """

    experiment: str
    subject: str
    question: str
    quantity: str
    about: str
    unit: str
    prior: Belief
    noise: float
    worth: float
    minutes: float
    needs: Needs = field(default_factory=Needs)
    after: frozenset[str] = frozenset()
    depends_on: Mapping[str, Any] = field(default_factory=dict)

    @property
    def gpu_minutes(self) -> float:
        """What it costs: minutes times GPUs; on a machine without, the minutes."""
        return self.minutes * max(1, self.needs.gpus)

    def expected(self, level: float = 0.9) -> Interval:
        """Return the interval in which the answer is believed to lie; of a share nothing above the whole."""
        found = self.prior.interval(level)
        return replace(found, high=min(found.high, 100.0)) if self.unit == "%" else found


@dataclass(frozen=True, slots=True)
class Answer:
    """One figure or verdict that an experiment found; each becomes a fact.

    Args:
        quantity, about, unit: As in ``Inquiry``.
        outcome: What kind of answer it is.
        statement: A sentence with the figures in it, as a session says it.
        value, low, high: The median and the ends of its interval, in ``unit``; None for a check.
        n: Samples (of a comparison: blocks) behind it.
        level: What the interval covers.
        series: Metric of the raw samples it was reckoned from.
        n_needed: Of an inconclusive one: blocks that would settle it; None if none within reason would.
        tier: The tier it holds for, where routes or plans follow it.
        gap_kind: Which kind of question on the board it answers, where the experiment answers several.
        details: Further figures by name, for whoever draws conclusions (``knee``, ``ttft_s``, …).
    """

    quantity: str
    about: str
    unit: str | None
    outcome: Outcome
    statement: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    level: float = 0.90
    series: str | None = None
    n_needed: int | None = None
    tier: str | None = None
    gap_kind: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart: a label, and its points (x, y) or (x, y, low, high)."""

    label: str
    points: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """What a session shows of the samples. ``marks`` are values of x worth a line of their own, with labels.

    Bars have x = 0, 1, … and their labels in ``categories``.
    """

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    kind: Literal["lines", "bars"] = "lines"
    log_x: bool = False
    log_y: bool = False
    marks: tuple[tuple[float, str], ...] = ()
    categories: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """What a run came to.

    Args:
        answers: The first is the one that was asked for.
        noticed: Sentences on what stood out, figures included; failures and refusals too.
        gaps: New questions, each one sentence with a question mark.
        charts: For the terminal and a picture.
    """

    answers: tuple[Answer, ...]
    noticed: tuple[str, ...] = ()
    gaps: tuple[str, ...] = ()
    charts: tuple[Chart, ...] = ()


class Experiment(ABC):
    """One row of the catalogue. It holds no state: what a run has found out is in its ``Lab``.

    Attributes:
        number: Its row in the catalogue, 0 to 12.
        name: What ``subcortex experiments run`` calls it.
        question: What it answers, in one line.
        kinds: Kinds of gaps on the board (``journal.board.kinds``) that it answers.
        method: Goes up when the way of measuring changes, so that older answers expire.
    """

    number: ClassVar[int]
    name: ClassVar[str]
    question: ClassVar[str]
    kinds: ClassVar[frozenset[str]]
    method: ClassVar[int] = 1

    @abstractmethod
    def why_not(self, scene: Scene) -> str | None:
        """Return why it is not applicable here, in words; None if it is."""

    @abstractmethod
    def inquiries(self, scene: Scene) -> Sequence[Inquiry]:
        """Return what it would find out here, one a subject; none where ``why_not`` says something."""

    @abstractmethod
    async def run(self, lab: Lab, inquiry: Inquiry) -> Report:
        """Find it out. Cancelled at any await when somebody needs the machine.

        What was sampled in an earlier life of the run is in the lab (``lab.samples``); it is not done again.
        With such samples and no time left nothing is started, and what they come to is told.

        Raises:
            SubcortexError: It could not be found out; a failed boot of one arm is an answer, not an error.
        """
