"""Routes about experiments: asking for runs, watching them, giving them up. Names go in, never paths."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import cache
from typing import Annotated, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from subcortex.daemon.keys import MIND
from subcortex.daemon.replies import read_json, validated
from subcortex.daemon.telling import told
from subcortex.errors import InvalidRequest
from subcortex.experiments.minutes import checked_minutes
from subcortex.journal.diary.experiment_records import RunRecord
from subcortex.mind.experimenting.supervisor import Experimenting

_Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
_Id = Annotated[str, Field(pattern=r"^[0-9a-f]+$", max_length=64)]


class ExperimentRequest(BaseModel):
    """What ``subcortex experiments run`` asks.

    Args:
        names: Of experiments, done in this order; ``next``: the one that is worth most.
        subject: Only of this tier, or of ``machine``; None: of all that they can be asked of.
        minutes: What each may take, a day at most; None: as long as such a one does.
        again: Measure anew what is known for this very machine.
        asked_by: ``agent``: a tick, for a drive. It asks for ``next`` alone, its run counts for the day's
            minutes, waits until the machine is idle, and has no tier leave its place.
        gap: With ``agent``: only what may answer this question of the board.
        drive: With ``agent``: whom the answer satisfies.
    """

    model_config = ConfigDict(extra="forbid")

    names: Literal["next"] | Annotated[list[_Name], Field(min_length=1, max_length=32)]
    subject: str | None = Field(default=None, min_length=1, max_length=200)
    minutes: float | None = None
    again: bool = False
    asked_by: Literal["person", "agent"] = "person"
    gap: _Id | None = None
    drive: str | None = Field(default=None, min_length=1, max_length=64)


async def _ask(request: web.Request) -> web.Response:
    asked = validated(ExperimentRequest, await read_json(request))
    checked_minutes(asked.minutes)
    if asked.names == "next" and asked.subject is not None:
        raise InvalidRequest("next has no subject: it is whatever is worth most", param="subject")
    if asked.asked_by == "person" and (asked.gap or asked.drive):
        raise InvalidRequest("gap and drive go with asked_by agent", param="asked_by")
    if asked.asked_by == "agent" and (asked.names != "next" or asked.minutes or asked.again):
        raise InvalidRequest("an agent asks for next, without minutes or again", param="names")
    experimenting = request.app[MIND].experimenting
    if asked.asked_by == "agent":
        run = await experimenting.ask_for("agent", gap_id=asked.gap, drive=asked.drive)
        runs = [run] if run is not None else []
    else:
        names = None if asked.names == "next" else list(dict.fromkeys(asked.names))
        runs = await experimenting.ask(names, subject=asked.subject, minutes=asked.minutes, again=asked.again)
    return _reply({"runs": [_plain(run) for run in runs]})


async def _open(request: web.Request) -> web.Response:
    """List the runs that are not over, and why those wait that do."""
    experimenting = request.app[MIND].experimenting
    runs = await experimenting.runs()
    waits = {run.id: experimenting.waits[run.id] for run in runs if run.id in experimenting.waits}
    return _reply({"runs": [_plain(run) for run in runs], "waits": waits})


async def _cancel(request: web.Request) -> web.Response:
    run = await request.app[MIND].experimenting.cancel(request.match_info["id"])
    return _reply({"run": _plain(run)})


async def _events(request: web.Request) -> web.StreamResponse:
    # Who asks for a run that is not there hears it as an error, not as a stream.
    run = await request.app[MIND].experimenting.run(request.match_info["id"])
    return await told(request, _lines(request.app[MIND].experimenting, run))


async def _lines(experimenting: Experimenting, run: RunRecord) -> AsyncGenerator[bytes, None]:
    """Yield how a run stands and what becomes of it until it is over, and how it ended."""
    async with aclosing(experimenting.watch(run.id)) as changes:
        async for run in changes:
            waits = experimenting.waits.get(run.id)
            yield json.dumps({"run": _plain(run), "waits": waits}).encode()
    yield json.dumps({"end": run.state}).encode()


ROUTES = [
    web.post("/v1/experiments", _ask),
    web.get("/v1/experiments", _open),
    web.get("/v1/experiments/{id}/events", _events),
    web.delete("/v1/experiments/{id}", _cancel),
]


def _reply(value: dict[str, object]) -> web.Response:
    return web.Response(body=json.dumps(value).encode(), content_type="application/json")


def _plain(run: RunRecord) -> object:
    return _runs().dump_python(run, mode="json")


@cache
def _runs() -> TypeAdapter[RunRecord]:
    return TypeAdapter(RunRecord)
