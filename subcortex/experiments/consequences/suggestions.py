"""What measured answers would change in the configuration. Pure.

An answer speaks of the tier that it names. Its ``details`` are read by these names:

===================================  =====================================================================
``knee``, ``knee_low``, ``knee_high``  requests at once from which on throughput grows no more
``better``                           of an answer that is ``different``: keys of the tier's table that make
                                     it better than it is configured, e.g. ``{"threads": 2}``
``better_flags``                     of the same: flags of the engine that do
``kv_tokens``                        tokens that the KV pool holds
``ttft_s``, ``tpot_s``, ``load_s``       seconds, of one request alone; without ``…_low`` and ``…_high``, its
                                     interval's ends, it does not count
===================================  =====================================================================

An answer whose own ``quantity`` is ``ttft`` or ``tpot``, with ``concurrency`` 1 in its details, or
``start_time``, ``restart_time`` or ``wake_time`` without an ``arm`` there, counts as well, with its interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, isfinite
from typing import Any

from subcortex.config import Config, LlamaCppTier, RemoteTier, Tier, VllmTier
from subcortex.engines._flags import last_named, last_value
from subcortex.experiments.experiment import Answer

_SEQUENCES, _SLEEP = "--max-num-seqs", "--enable-sleep-mode"
#: A nominal figure this near the measured one is left alone.
_NEAR = 0.10
#: An interval that reaches farther than this factor from its value says too little to be written down.
_LOOSE = 2.0
#: A context is worth a restart from this factor on; it is given in steps of so many tokens.
_LONGER, _STEP_TOKENS = 1.25, 1024
#: Of a KV pool, the share that requests of full length may take.
_POOL_SHARE = 0.95
_SECONDS = {"s": 1.0, "ms": 1e-3, "min": 60.0}
#: Key of a tier → quantities of answers that replace it. A usual start finds its caches warm.
_NOMINAL = {
    "nominal_ttft_s": ("ttft",),
    "nominal_tpot_s": ("tpot",),
    "nominal_load_s": ("restart_time", "start_time"),
}
_IN_DETAILS = {"ttft_s": "nominal_ttft_s", "tpot_s": "nominal_tpot_s", "load_s": "nominal_load_s"}


@dataclass(frozen=True, slots=True)
class Finding:
    """An answer that counts today.

    Args:
        answer: As it was found.
        run_id: The run that found it; None for what an engine said when it started as configured.
        fact_ids: What it became in the journal.
    """

    answer: Answer
    run_id: str | None
    fact_ids: tuple[str, ...] = ()

    @property
    def run_ids(self) -> tuple[str, ...]:
        """The run, if there is one, as a suggestion has it."""
        return () if self.run_id is None else (self.run_id,)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One key of one tier that should be otherwise.

    Args:
        tier: Whose table.
        key: In it.
        old: As configured; None where the key is not there.
        new: What to write.
        reason: One sentence with the figures.
        run_ids, fact_ids: What it rests on.
    """

    tier: str
    key: str
    old: Any
    new: Any
    reason: str
    run_ids: tuple[str, ...] = ()
    fact_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Seconds:
    value: float
    low: float
    high: float
    finding: Finding

    @property
    def tight(self) -> bool:
        """Whether the interval holds the value well enough to be written down."""
        return self.value <= _LOOSE * self.low and self.high <= _LOOSE * self.value


@dataclass(slots=True)
class _Draft:
    """The suggestions for one tier; the first on a key stands."""

    tier: Tier
    found: dict[str, Suggestion] = field(default_factory=dict)

    def add(self, key: str, new: Any, reason: str, finding: Finding) -> None:
        old = self.now(key)
        if key in self.found or old == new:
            return
        self.found[key] = Suggestion(self.tier.name, key, old, new, reason, finding.run_ids, finding.fact_ids)

    def add_flags(self, flags: list[str], reason: str, finding: Finding) -> None:
        """Flags are one key: what several findings say of them comes together."""
        before = self.found.pop("flags", None)
        if before is None:
            self.add("flags", flags, reason, finding)
            return
        reason = f"{before.reason} {reason}"
        runs = tuple(dict.fromkeys((*before.run_ids, *finding.run_ids)))
        facts = tuple(dict.fromkeys((*before.fact_ids, *finding.fact_ids)))
        self.found["flags"] = Suggestion(self.tier.name, "flags", before.old, flags, reason, runs, facts)

    def now(self, key: str) -> Any:
        return getattr(self.tier, key) if key in self.tier.model_fields_set else None

    @property
    def flags(self) -> list[str]:
        """The flags as they would be."""
        if "flags" in self.found:
            return list(self.found["flags"].new)
        return [] if isinstance(self.tier, RemoteTier) else list(self.tier.flags)


def suggestions(
    config: Config, findings: Sequence[Finding], *, longest_tokens: Mapping[str, int] | None = None
) -> list[Suggestion]:
    """Return what to change in the configuration, by tier in its order.

    Only what intervals tell apart from what is configured is suggested, and nothing that a person has
    forbidden (``sleep_mode = false``).

    Args:
        config: As it is.
        findings: Answers that count, the newest first; where several speak of a key, the first does.
        longest_tokens: Of tiers whose model is known, the longest context that it was trained for.
    """
    found: list[Suggestion] = []
    for tier in config.tiers:
        own = [one for one in findings if one.answer.tier == tier.name]
        draft = _Draft(tier)
        for one in own:
            _at_the_knee(draft, one)
            _better(draft, one)
        _sleep(draft, own)
        _nominal(draft, own)
        _context(draft, own, (longest_tokens or {}).get(tier.name))
        found += draft.found.values()
    return found


def _at_the_knee(draft: _Draft, finding: Finding) -> None:
    details = finding.answer.details
    knee, low, high = (_number(details.get(name)) for name in ("knee", "knee_low", "knee_high"))
    if knee is None or low is None or high is None or isinstance(draft.tier, RemoteTier):
        return
    most, new = draft.tier.max_concurrent, max(1, ceil(knee))
    why = f"throughput grows no more from {knee:.3g} requests at once on ({low:.3g} to {high:.3g})"
    if most > high:
        draft.add("max_concurrent", new, f"{why}; {most} only wait longer.", finding)
    elif most < low:
        draft.add("max_concurrent", new, f"{why}; {most} leave some of it unused.", finding)
    if not isinstance(draft.tier, VllmTier):
        return
    given = last_value(draft.flags, _SEQUENCES)
    if given is not None and given.isdecimal():
        if not low <= int(given) <= high:
            draft.add_flags(_with_value(draft.flags, _SEQUENCES, str(new)), f"{_SEQUENCES}: {why}.", finding)
    elif "max_concurrent" in draft.found and given is None:
        reason = f"{_SEQUENCES}: as many as are let in, so that memory is set aside for no more."
        draft.add_flags([*draft.flags, _SEQUENCES, str(new)], reason, finding)


def _better(draft: _Draft, finding: Finding) -> None:
    answer = finding.answer
    if answer.outcome != "different":
        return
    keys = answer.details.get("better")
    for key, value in keys.items() if isinstance(keys, Mapping) else ():
        # Flags would replace a person's; they have a name of their own.
        if key in type(draft.tier).model_fields and key not in ("name", "engine", "model", "flags"):
            draft.add(str(key), value, _sentence(answer.statement), finding)
    flags = answer.details.get("better_flags")
    if isinstance(flags, Sequence) and not isinstance(flags, str) and not isinstance(draft.tier, RemoteTier):
        missing = [str(one) for one in flags]
        if missing and last_named(draft.flags, missing[0]) is None:
            draft.add_flags([*draft.flags, *missing], _sentence(answer.statement), finding)


def _sleep(draft: _Draft, findings: Sequence[Finding]) -> None:
    tier = draft.tier
    if not isinstance(tier, VllmTier) or tier.sleep_mode is not None:
        return
    if last_named(tier.flags, _SLEEP, "--no-enable-sleep-mode") is not None:
        return
    wake = _seconds(findings, "wake_time")
    start = _seconds(findings, "restart_time") or _seconds(findings, "start_time")
    if wake is not None and start is not None and wake.high < start.low:
        reason = (
            f"It wakes in {wake.value:.3g} s ({wake.low:.3g} to {wake.high:.3g}), and starts again in "
            f"{start.value:.3g} s ({start.low:.3g} to {start.high:.3g})."
        )
        draft.add("sleep_mode", True, reason, wake.finding)


def _nominal(draft: _Draft, findings: Sequence[Finding]) -> None:
    measured: dict[str, _Seconds] = {}
    for key, quantities in _NOMINAL.items():
        if found := next(filter(None, (_seconds(findings, one, tight=True) for one in quantities)), None):
            measured[key] = found
    for name, key in _IN_DETAILS.items():
        if key not in measured and (found := _in_details(findings, name)):
            measured[key] = found
    for key, found in measured.items():
        old, new = draft.now(key), float(f"{found.value:.3g}")
        if new <= 0:
            continue
        between = f"measured {found.value:.3g} s ({found.low:.3g} to {found.high:.3g})"
        if old is None:
            draft.add(key, new, f"Nothing is said, and {between}.", found.finding)
        elif not found.low <= old <= found.high and abs(old - found.value) > _NEAR * found.value:
            draft.add(key, new, f"{old:.3g} s are expected, and {between}.", found.finding)


def _context(draft: _Draft, findings: Sequence[Finding], longest: int | None) -> None:
    tier = draft.tier
    if isinstance(tier, RemoteTier | LlamaCppTier) or tier.context_tokens is None or longest is None:
        return
    for finding in findings:
        pool = _number(finding.answer.details.get("kv_tokens"))
        if pool is None:
            continue
        changed = draft.found.get("max_concurrent")
        at_once = changed.new if changed else tier.max_concurrent
        room = int(pool * _POOL_SHARE / at_once) // _STEP_TOKENS * _STEP_TOKENS
        new = min(longest, room)
        if new >= tier.context_tokens * _LONGER:
            reason = (
                f"The KV pool holds {pool:.0f} tokens: {at_once} requests at once may have {new} each; "
                f"the model was made for {longest}."
            )
            draft.add("context_tokens", new, reason, finding)
        return


def _seconds(findings: Sequence[Finding], quantity: str, *, tight: bool = False) -> _Seconds | None:
    """Return the newest answer about a time of one request alone; with ``tight``, of those held well."""
    for one in findings:
        answer = one.answer
        if answer.quantity != quantity or not _as_configured(answer):
            continue
        factor = _SECONDS.get(answer.unit or "")
        figures = [_number(figure) for figure in (answer.value, answer.low, answer.high)]
        if factor is not None and None not in figures and answer.outcome != "inconclusive":
            value, low, high = (figure * factor for figure in figures if figure is not None)
            found = _Seconds(value, low, high, one)
            if found.tight or not tight:
                return found
    return None


def _as_configured(answer: Answer) -> bool:
    """Return whether a time is the tier's own: not of an arm that it is not, nor under load."""
    if answer.quantity in ("ttft", "tpot"):
        return answer.details.get("concurrency") == 1
    return "arm" not in answer.details


def _in_details(findings: Sequence[Finding], name: str) -> _Seconds | None:
    for one in findings:
        details = one.answer.details
        value, low, high = (_number(details.get(key)) for key in (name, f"{name}_low", f"{name}_high"))
        if value is not None and low is not None and high is not None:
            found = _Seconds(value, low, high, one)
            if found.tight:
                return found
    return None


def _with_value(flags: Sequence[str], name: str, value: str) -> list[str]:
    """Return flags in which a value is given to one that is there, in whichever way it was."""
    found = list(flags)
    for place in range(len(found) - 1, -1, -1):
        word, equals, _ = found[place].partition("=")
        if last_named([word], name) is None:
            continue
        if equals:
            found[place] = f"{word}={value}"
        elif place + 1 < len(found):
            found[place + 1] = value
        return found
    return [*found, name, value]


def _number(value: Any) -> float | None:
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if numeric and isfinite(value) else None


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."
