"""What this machine would find out next, for which questions, why, and at what cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from subcortex.config import Config
from subcortex.experiments import catalogue
from subcortex.experiments.choice import Question, Score, order
from subcortex.experiments.experiment import Experiment, Inquiry
from subcortex.experiments.forms import digest_of
from subcortex.experiments.scene import Scene
from subcortex.experiments.statistics import Interval
from subcortex.journal.diary import Diary, board_queries, experiments
from subcortex.journal.diary import session_queries as queries
from subcortex.journal.diary.board_records import GapRecord
from subcortex.journal.diary.experiment_records import RunRecord, RunState
from subcortex.mind.experimenting.following import OF_FINDING_OUT
from subcortex.mind.experimenting.matching import gaps_for
from subcortex.mind.experimenting.writeup import figure, measure
from subcortex.mind.keeping import DriveKeeper

#: What a question of the machine's own is worth beside one that somebody asked.
STANDING_WORTH = 0.25
#: Runs that came to nothing for the same certificate before a question is let be.
_MOST_FAILURES = 2
#: An answer that left its question open, for want of time or of samples.
_OPEN = "inconclusive"
WAITING: tuple[RunState, ...] = ("queued", "running", "yielded")
#: What has to run before and never will.
_NEVER = "never"


@dataclass(frozen=True, slots=True)
class Asking:
    """What an open question brings with it: the drive that raised it, and how that presses.

    Args:
        drive: Its name; None where there is none that wants to find out.
        pressure: As a share of its threshold.
    """

    drive: str | None = None
    pressure: float = 0.0


@dataclass(frozen=True, slots=True)
class Proposal:
    """One run that could be next.

    Args:
        experiment: Whose it is.
        inquiry: What it would find out.
        digest: What the memo goes by.
        gaps: Open questions that it may answer, the most pressing first; none: the machine's own question.
        drive: Of the first of them, or the more pressed of those that want to find out.
        score: What its answer brings; None where it is remembered.
        a_minute: Value for a GPU-minute, with what it opens.
        opens: The experiment that it has to run before, where it is run for that one's sake.
        remembered: The run that answered it already, on this very machine; it costs nothing.
        expects: The prior's interval that holds nine of ten, in the inquiry's unit.
        why: In a sentence.
    """

    experiment: Experiment
    inquiry: Inquiry
    digest: str
    gaps: tuple[GapRecord, ...]
    drive: str | None
    score: Score | None
    a_minute: float
    opens: str | None
    remembered: str | None
    expects: Interval
    why: str

    @property
    def gpu_minutes(self) -> float:
        """What it is expected to cost; 0 where it is remembered."""
        return 0.0 if self.remembered else self.inquiry.gpu_minutes


@dataclass(frozen=True, slots=True)
class Board:
    """What choosing looks at, apart from the machine.

    Args:
        gaps: Open questions.
        asking: Gap id → its drive; ``default`` for those that no drive raised.
        default: The more pressed of the drives that want to find out.
        memo: Digest → the run that answered it; an answer that was inconclusive once is not one yet.
        under_way: Digests of runs that wait or run.
        failures: Digest → how often a run of it came to nothing, or to nothing conclusive.
        wrong: Digests whose last answer was that something is not as it must be, or could not be told as
            often as it is tried: what comes after is forbidden.
    """

    gaps: Sequence[GapRecord] = ()
    asking: Mapping[str, Asking] = field(default_factory=dict)
    default: Asking = field(default_factory=Asking)
    memo: Mapping[str, str] = field(default_factory=dict)
    under_way: frozenset[str] = frozenset()
    failures: Mapping[str, int] = field(default_factory=dict)
    wrong: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Candidate:
    name: str
    experiment: Experiment
    inquiry: Inquiry
    digest: str
    gaps: tuple[GapRecord, ...]


def choose(
    config: Config,
    diary: Diary,
    scene: Scene,
    *,
    keeper: DriveKeeper | None = None,
    among: Sequence[Experiment] | None = None,
) -> list[Proposal]:
    """Return what could be run now, the next one first.

    What is under way is left out, and what came to nothing twice; what is remembered comes first, where it
    answers an open question.

    Args:
        config: Whose drives press.
        diary: The journal's database.
        scene: This machine.
        keeper: The drives, if they are at hand.
        among: Experiments, if not the whole catalogue.

    Raises:
        EmergenceFailed: The drives' state that is followed cannot be read.
        JournalError: The database cannot be read.
    """
    board = seen(diary, keeper or DriveKeeper(config, diary))
    return proposals(scene, catalogue.CATALOGUE if among is None else among, board)


def seen(diary: Diary, keeper: DriveKeeper) -> Board:
    """Return the board as choosing looks at it."""
    levels = {level.drive: level.percent / 100.0 for level in keeper.levels()}
    own = [Asking(name, levels[name]) for name in OF_FINDING_OUT if name in levels]
    default = max(own, key=lambda one: one.pressure, default=Asking())
    gaps = board_queries.gaps(diary, state="open")
    asking = {}
    raised_in = {gap.session_id for gap in gaps if gap.session_id}
    drives = {}
    for session_id in raised_in:
        with diary.reading() as conn:
            held = queries.whole(conn, session_id).drives
        drives[session_id] = next((one.name for one in held if one.name in levels), None)
    for gap in gaps:
        name = drives.get(gap.session_id or "")
        asking[gap.id] = Asking(name, levels[name]) if name else default
    failed: tuple[RunState, ...] = ("failed",)
    under_way = experiments.runs(diary, states=WAITING)
    over = [run for run in experiments.runs(diary, states=("measured", "settled")) if run.expired_at is None]
    vain = [*experiments.runs(diary, states=failed), *(run for run in over if _came_to(run) == _OPEN)]
    failures = Counter(run.digest for run in vain)
    last = {run.digest: _came_to(run) for run in over}
    open_still = {digest for digest, outcome in last.items() if outcome == _OPEN}
    again = {digest for digest in open_still if failures[digest] < _MOST_FAILURES}
    return Board(
        gaps,
        asking,
        default,
        {digest: run_id for digest, run_id in experiments.remembered(diary).items() if digest not in again},
        frozenset(run.digest for run in under_way),
        failures,
        frozenset(digest for digest, outcome in last.items() if outcome == "failed") | (open_still - again),
    )


def _came_to(run: RunRecord) -> str | None:
    answers = (run.report or {}).get("answers") or [{}]
    outcome = answers[0].get("outcome")
    return None if outcome is None else str(outcome)


def proposals(scene: Scene, among: Iterable[Experiment], board: Board) -> list[Proposal]:
    """Return what could be run on a machine, the next one first. Pure but for what experiments look at."""
    applicable = [one for one in among if one.why_not(scene) is None]
    here = [
        _Candidate(f"{one.name}/{digest}", one, inquiry, digest, gaps_for(inquiry, one, board.gaps))
        for one in applicable
        for inquiry in one.inquiries(scene)
        if (digest := digest_of(inquiry, one.method))
    ]
    free = [
        one
        for one in here
        if one.digest not in board.under_way
        and board.failures.get(one.digest, 0) < _MOST_FAILURES
        # What is known and asked by nobody is no news.
        and (one.gaps or one.digest not in board.memo)
    ]
    wanted = {one.name: one for one in free}
    needs = {one.name: _needs(one, here, board) for one in free}
    questions = [question for one in free for question in _questions(one, needs[one.name], board)]
    chosen = []
    for choice in order(questions, board.memo.keys()):
        one = wanted[choice.experiment]
        opens = wanted[choice.opens].experiment.name if choice.opens else None
        chosen.append(_proposal(one, choice.score, choice.a_minute, opens, board))
    return chosen


def _needs(one: _Candidate, here: Sequence[_Candidate], board: Board) -> frozenset[str]:
    """Return what has to run before; what cannot run here forbids nothing, what went wrong does."""
    before = [other for other in here if other.experiment.name in one.inquiry.after]
    return frozenset(
        _NEVER if other.digest in board.wrong else other.name
        for other in before
        if other.digest in board.wrong or other.digest not in board.memo
    )


def _questions(one: _Candidate, needs: frozenset[str], board: Board) -> list[Question]:
    inquiry = one.inquiry
    asked = [(gap.id, inquiry.worth, board.asking.get(gap.id, board.default).pressure) for gap in one.gaps]
    standing = [(one.name, STANDING_WORTH * inquiry.worth, board.default.pressure)]
    return [
        Question(
            id=name,
            experiment=one.name,
            quantity=f"{inquiry.quantity} of {inquiry.about}",
            prior=inquiry.prior,
            noise=inquiry.noise,
            worth=worth,
            gpu_minutes=inquiry.gpu_minutes,
            pressure=pressure,
            needs=needs,
            provenance=one.digest,
        )
        for name, worth, pressure in asked or standing
    ]


def _proposal(
    one: _Candidate, score: Score | None, a_minute: float, opens: str | None, board: Board
) -> Proposal:
    def pressing(gap: GapRecord) -> tuple[float, int]:
        return -board.asking.get(gap.id, board.default).pressure, gap.seq

    gaps = tuple(sorted(one.gaps, key=pressing))
    asking = board.asking.get(gaps[0].id, board.default) if gaps else board.default
    return Proposal(
        experiment=one.experiment,
        inquiry=one.inquiry,
        digest=one.digest,
        gaps=gaps,
        drive=asking.drive,
        score=score,
        a_minute=a_minute,
        opens=opens,
        remembered=board.memo[one.digest] if score is None else None,
        expects=one.inquiry.expected(),
        why=_why(one, score, a_minute, opens, asking, len(gaps)),
    )


def _why(
    one: _Candidate, score: Score | None, a_minute: float, opens: str | None, asking: Asking, gaps: int
) -> str:
    inquiry = one.inquiry
    if score is None:
        return f"It is known for this very machine, and {_asked(gaps)}."
    ends = inquiry.expected()
    minutes = "GPU-minutes" if inquiry.needs.gpus else "minutes"
    words = (
        f"{_asked(gaps)[0].upper()}{_asked(gaps)[1:]}; "
        f"{figure(ends.low)} to {measure(ends.high, inquiry.unit)} is believed, and an answer is worth "
        f"{figure(score.bits)} bits × {figure(score.worth)} for {figure(score.gpu_minutes)} {minutes}"
    )
    if asking.drive and asking.pressure:
        words += f", with {asking.drive} at {figure(100 * asking.pressure)} %"
    if opens:
        words += f"; {opens} has to wait for it"
    return f"{words}: {figure(a_minute)} a minute."


def _asked(gaps: int) -> str:
    if not gaps:
        return "the machine asks it of itself"
    return f"{gaps} open question{' of the board asks' if gaps == 1 else 's of the board ask'} it"
