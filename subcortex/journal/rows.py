"""Between records and rows: pure translation, the policy on texts included."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from subcortex.journal.recorder import Recorder
from subcortex.journal.records import Failure, ThoughtEnd, ThoughtRecord, ThoughtStart
from subcortex.types import Route, ThoughtStatus, Timing, ToolCall, Usage

_SURROGATE = re.compile("[\ud800-\udfff]")

_START_COLUMNS = (
    "id, run_id, status, created_at, drive, session, tier, model, engine, engine_version, score,"
    " complexity, route, params, recorded, prompt_chars, prompt, messages, replaced_characters"
)
INSERT_START = f"INSERT INTO thoughts ({_START_COLUMNS}) VALUES ({', '.join('?' * 19)})"  # noqa: S608

#: For the end of a thought whose start is not in the file (any more).
RESTORE_START = f"{INSERT_START} ON CONFLICT (id) DO NOTHING"

# A thought wrongly taken for interrupted still gets its end; one that has ended keeps the first.
UPDATE_END = """
UPDATE thoughts SET status = ?, ended_at = ?, tier = ?, model = ?, engine = ?,
    engine_version = coalesce(?, engine_version), score = ?, complexity = ?, route = ?,
    answer = ?, answer_chars = ?, reasoning = ?, reasoning_chars = ?, tool_calls = ?,
    finish_reason = ?, prompt_tokens = ?, completion_tokens = ?, queued_s = ?, load_s = ?,
    ttft_s = ?, tpot_s = ?, total_s = ?, error_code = ?, error_message = ?,
    replaced_characters = replaced_characters + ?
WHERE id = ? AND status IN ('running', 'interrupted')"""

CANCEL_START = "UPDATE thoughts SET status = 'cancelled', ended_at = ? WHERE id = ? AND status = 'running'"

#: What comes after the thought has ended is not kept.
UPSERT_SAID = """
INSERT INTO said (thought_id, at, answer, reasoning, answer_chars, reasoning_chars)
SELECT id, ?, ?, ?, ?, ? FROM thoughts WHERE id = ? AND status = 'running'
ON CONFLICT (thought_id) DO UPDATE SET at = excluded.at, answer = excluded.answer,
    reasoning = excluded.reasoning, answer_chars = excluded.answer_chars,
    reasoning_chars = excluded.reasoning_chars"""

DELETE_SAID = "DELETE FROM said WHERE thought_id = ?"
INSERT_EVENT = "INSERT INTO events (at, run_id, tier, kind, detail) VALUES (?, ?, ?, ?, ?)"
INSERT_RUN = """
INSERT INTO daemon_runs (id, started_at, pid, process_started_s, version) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING"""
STOP_RUN = "UPDATE daemon_runs SET stopped_at = ? WHERE id = ?"

RUNS_WITH_RUNNING = """
SELECT DISTINCT r.id, r.pid, r.process_started_s, r.stopped_at
FROM thoughts t JOIN daemon_runs r ON r.id = t.run_id WHERE t.status = 'running'"""

#: What had been said becomes the answer of a thought whose daemon is gone.
INTERRUPT = """
UPDATE thoughts SET status = 'interrupted', error_code = 'interrupted',
    error_message = 'the daemon ended before the thought did',
    ended_at = (SELECT at FROM said WHERE thought_id = thoughts.id),
    answer = (SELECT answer FROM said WHERE thought_id = thoughts.id),
    reasoning = (SELECT reasoning FROM said WHERE thought_id = thoughts.id),
    answer_chars = coalesce((SELECT answer_chars FROM said WHERE thought_id = thoughts.id), 0),
    reasoning_chars = coalesce((SELECT reasoning_chars FROM said WHERE thought_id = thoughts.id), 0)
WHERE run_id = ? AND status = 'running'"""
CLEAR_SAID = "DELETE FROM said WHERE thought_id IN (SELECT id FROM thoughts WHERE status <> 'running')"

#: Every column a ThoughtRecord needs; a running thought's texts are those saved so far.
SELECT_RECORD = """
SELECT t.*, s.answer AS said_answer, s.reasoning AS said_reasoning,
    s.answer_chars AS said_answer_chars, s.reasoning_chars AS said_reasoning_chars
FROM thoughts t LEFT JOIN said s ON s.thought_id = t.id"""


@dataclass(slots=True)
class _Mender:
    """Makes texts storable as UTF-8 and counts what it replaced on the way."""

    replaced: int = 0

    def text(self, text: str | None) -> str | None:
        if text is None or text.isascii():
            return text
        mended, replaced = _SURROGATE.subn("\ufffd", text)
        self.replaced += replaced
        return mended

    def json(self, value: Any) -> str:
        mended = self.text(json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str))
        assert mended is not None
        return mended


def storable(text: str) -> str:
    """Return ``text`` as the database holds it: lone surrogates, which UTF-8 cannot hold, replaced."""
    return _SURROGATE.sub("\ufffd", text)


def timestamp(at: datetime) -> str:
    """Return UTC ISO-8601 with microseconds and ``Z``: fixed width, so it sorts as text."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def start_row(start: ThoughtStart, run_id: str, recorder: Recorder) -> tuple[Any, ...]:
    """Return the parameters of ``INSERT_START``."""
    mend = _Mender()
    prompt = mend.text(recorder.text(start.prompt_text))
    replaced_in_prompt, mend.replaced = mend.replaced, 0
    messages = recorder.data(list(start.messages))
    stored_messages = None if messages is None else mend.json(messages)
    # The prompt stands in the messages too: what was replaced in it counts once.
    replaced = max(replaced_in_prompt, mend.replaced)
    return (
        mend.text(start.id),
        run_id,
        ThoughtStatus.RUNNING.value,
        timestamp(start.created_at),
        mend.text(start.drive),
        mend.text(start.session),
        mend.text(start.tier),
        mend.text(start.model),
        mend.text(start.engine),
        mend.text(start.engine_version),
        start.route.score,
        start.route.complexity,
        mend.json(_route(start.route, recorder)),
        mend.json(recorder.settings(dict(start.params))),
        recorder.policy,
        len(start.prompt_text),
        prompt,
        stored_messages,
        replaced,
    )


def end_row(end: ThoughtEnd, at: datetime, recorder: Recorder) -> tuple[Any, ...]:
    """Return the parameters of ``UPDATE_END``."""
    mend = _Mender()
    calls = [call.model_dump() for call in end.tool_calls]
    recorded_calls = recorder.data(calls) if calls else None
    error_code, error_message = end.error or (None, None)
    timing = end.timing
    texts = (
        mend.text(recorder.text(end.text)),
        len(end.text),
        mend.text(recorder.text(end.reasoning)),
        len(end.reasoning or ""),
        None if recorded_calls is None else mend.json(recorded_calls),
    )
    return (
        ThoughtStatus(end.status).value,
        timestamp(at),
        mend.text(end.tier),
        mend.text(end.model),
        mend.text(end.engine),
        mend.text(end.engine_version),
        end.route.score,
        end.route.complexity,
        mend.json(_route(end.route, recorder)),
        *texts,
        mend.text(end.finish_reason),
        end.usage.prompt_tokens,
        end.usage.completion_tokens,
        timing.queued_s,
        timing.load_s,
        timing.ttft_s,
        timing.tpot_s,
        timing.total_s,
        error_code,
        mend.text(recorder.text(error_message)),
        mend.replaced,
        mend.text(end.id),
    )


def said_row(thought_id: str, text: str, reasoning: str, at: datetime, recorder: Recorder) -> tuple[Any, ...]:
    """Return the parameters of ``UPSERT_SAID``."""
    mend = _Mender()
    return (
        timestamp(at),
        mend.text(recorder.unfinished(text)),
        mend.text(recorder.unfinished(reasoning)) if reasoning else None,
        len(text),
        len(reasoning),
        mend.text(thought_id),
    )


def event_row(
    run_id: str, tier: str | None, kind: str, detail: Mapping[str, Any], at: datetime, recorder: Recorder
) -> tuple[Any, ...]:
    """Return the parameters of ``INSERT_EVENT``; an engine's words may quote a prompt, so policy holds."""
    mend = _Mender()
    shown = recorder.settings(dict(detail))
    if "model" in detail:
        shown["model"] = detail["model"]
    return (timestamp(at), run_id, mend.text(tier), mend.text(kind), mend.json(shown))


def record_of(row: Mapping[str, Any]) -> ThoughtRecord:
    """Return the record of one row of ``SELECT_RECORD``."""
    running = row["status"] == ThoughtStatus.RUNNING and row["said_answer_chars"] is not None
    said = "said_" if running else ""
    return ThoughtRecord(
        id=row["id"],
        run_id=row["run_id"],
        status=ThoughtStatus(row["status"]),
        created_at=datetime.fromisoformat(row["created_at"]),
        ended_at=datetime.fromisoformat(row["ended_at"]) if row["ended_at"] else None,
        drive=row["drive"],
        session=row["session"],
        tier=row["tier"],
        model=row["model"],
        engine=row["engine"],
        engine_version=row["engine_version"],
        route=Route.model_validate_json(row["route"]),
        params=json.loads(row["params"]),
        prompt=row["prompt"],
        prompt_chars=row["prompt_chars"],
        messages=json.loads(row["messages"]) if row["messages"] is not None else None,
        text=row[f"{said}answer"],
        text_chars=row[f"{said}answer_chars"],
        reasoning=row[f"{said}reasoning"],
        reasoning_chars=row[f"{said}reasoning_chars"],
        tool_calls=[ToolCall.model_validate(call) for call in json.loads(row["tool_calls"] or "[]")],
        finish_reason=row["finish_reason"],
        usage=Usage(prompt_tokens=row["prompt_tokens"] or 0, completion_tokens=row["completion_tokens"] or 0),
        timing=Timing(
            queued_s=row["queued_s"] or 0.0,
            load_s=row["load_s"] or 0.0,
            ttft_s=row["ttft_s"],
            tpot_s=row["tpot_s"],
            total_s=row["total_s"] or 0.0,
        ),
        error=_failure(row),
        recorded=row["recorded"],
        replaced_characters=row["replaced_characters"],
    )


def _failure(row: Mapping[str, Any]) -> Failure | None:
    if row["error_code"] is None:
        return None
    return Failure(row["error_code"], row["error_message"] or "")


def _route(route: Route, recorder: Recorder) -> dict[str, Any]:
    shown = route.model_dump(mode="json")
    if recorder.policy == "redacted":
        return dict(recorder.data(shown))
    if recorder.policy == "none" and route.degraded:
        # The reasons of a decision quote figures only, but an engine's refusal may quote the prompt.
        return {**shown, "reasons": [], "degraded_reason": None}
    return shown
