"""Which measured answers count today: those of the latest run of each question, of the models as they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from subcortex.config import Config, VllmTier
from subcortex.engines._flags import last_named
from subcortex.errors import JournalError
from subcortex.experiments.consequences.suggestions import Finding
from subcortex.experiments.experiment import Answer
from subcortex.experiments.forms import report_from_json
from subcortex.journal import BootRecord
from subcortex.journal.diary import Diary, board_queries, experiments
from subcortex.journal.diary.board_records import FactRecord
from subcortex.journal.diary.experiment_records import RunRecord

#: Settings that an answer about a tier outlives: they say how much is asked of it, not how it works.
_OUTLIVED = {"max_concurrent", "parallel", "sleep_mode", "context_tokens", "flags"}
_ASIDE = ("--max-num-seqs", "--enable-sleep-mode")


def standing(diary: Diary, config: Config) -> list[Finding]:
    """Return the answers that count for a configuration, the newest first.

    Left out are runs that are expired or that measured another model or other settings of a tier than the
    configuration has, and answers whose fact has expired.

    Raises:
        JournalError: The database cannot be read.
    """
    found: list[Finding] = []
    seen: set[tuple[str, str]] = set()
    for run in reversed(experiments.runs(diary, states=("measured", "settled"))):
        if run.expired_at is not None or run.report is None or not _same(run, config):
            continue
        if (run.experiment, run.subject) in seen:
            continue
        seen.add((run.experiment, run.subject))
        found += _answers(diary, run)
    return found


def pools(starts: Iterable[BootRecord], config: Config) -> list[Finding]:
    """Return what the last start of each tier, as it is configured now, said of its KV pool. Pure.

    Args:
        starts: On record, newest first.
        config: Whose tiers.
    """
    found: dict[str, Finding] = {}
    tiers = {tier.name: tier for tier in config.tiers if isinstance(tier, VllmTier)}
    for start in starts:
        tier, figures = tiers.get(start.tier), start.measured
        if tier is None or tier.name in found or start.outcome != "ready" or figures is None:
            continue
        same = (start.model, start.tensor_parallel_size) == (tier.model, tier.tensor_parallel_size)
        if not same or figures.kv_tokens is None or figures.context_tokens != tier.context_tokens:
            continue
        answer = Answer(
            quantity="kv_cache",
            about=tier.model,
            unit="tokens",
            outcome="measured",
            statement=f"the KV pool of {tier.name} holds {figures.kv_tokens} tokens",
            value=float(figures.kv_tokens),
            tier=tier.name,
            details={"kv_tokens": figures.kv_tokens},
        )
        found[tier.name] = Finding(answer, None)
    return list(found.values())


def _answers(diary: Diary, run: RunRecord) -> list[Finding]:
    try:
        report = report_from_json(run.report or {})
    except JournalError:
        # Of another version: its session still tells it, and the question may be asked again.
        return []
    facts = board_queries.facts_of(diary, run.session_id) if run.session_id else []
    found = []
    for answer in report.answers:
        own = [one for one in facts if _is_of(one, run, answer.quantity, answer.statement)]
        if not own or any(one.expired_at is None for one in own):
            ids = tuple(one.id for one in own if one.expired_at is None)
            found.append(Finding(answer, run.id, ids))
    return found


def _is_of(fact: FactRecord, run: RunRecord, quantity: str, statement: str) -> bool:
    return (fact.provenance.get("run"), fact.quantity, fact.statement) == (run.id, quantity, statement)


def _same(run: RunRecord, config: Config) -> bool:
    """Return whether a tier is still what was measured; a run of no tier is about the machine."""
    tier = next((one for one in config.tiers if one.name == run.subject), None)
    depends: Mapping[str, Any] = run.inquiry.get("depends_on") or {}
    if tier is None or not depends:
        return True
    model = depends.get("model")
    here = (str(config.resolve(tier.model)), tier.model)
    if isinstance(model, Mapping) and model.get("path", model.get("name", tier.model)) not in here:
        return False
    was = depends.get("settings")
    if not isinstance(was, Mapping):
        return True
    now = tier.model_dump(mode="json", exclude_none=True)
    kept = [name for name in was if name not in _OUTLIVED]
    if any(now.get(name) != was[name] for name in kept):
        return False
    return _flags(was.get("flags") or []) == _flags(now.get("flags") or [])


def _flags(flags: list[str]) -> list[str]:
    """Return flags without those that are suggested here."""
    found, skip = [], False
    for flag in flags:
        if skip and not flag.startswith("--"):
            skip = False
            continue
        skip = False
        if last_named([flag], *_ASIDE) is not None:
            skip = "=" not in flag
            continue
        found.append(flag)
    return found
