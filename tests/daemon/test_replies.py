"""What becomes of errors on their way out of the daemon."""

from __future__ import annotations

import asyncio
import json

from aiohttp import ClientConnectionResetError, web
from aiohttp.test_utils import make_mocked_request
from structlog.testing import capture_logs

from subcortex.daemon.replies import errors_as_json


async def passed_on(error: Exception) -> web.StreamResponse:
    async def handler(request: web.Request) -> web.StreamResponse:
        raise error

    return await errors_as_json(make_mocked_request("POST", "/v1/think"), handler)


async def test_a_caller_that_went_away_is_no_error_of_ours():
    with capture_logs() as logs:
        response = await passed_on(ClientConnectionResetError("Cannot write to closing transport"))
    assert (response.status, logs) == (499, [])


async def test_neither_for_the_server(caplog, tmp_path):
    gone = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 65536)
        finally:
            gone.set()

    app = web.Application(middlewares=[errors_as_json])
    app.add_routes([web.get("/", endless)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "s")).start()
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await reader.read(1)
    writer.transport.abort()
    async with asyncio.timeout(10):
        await gone.wait()
    await runner.cleanup()
    assert caplog.text == ""


async def test_what_nobody_foresaw_is_logged_and_told_without_its_traceback():
    with capture_logs() as logs:
        response = await passed_on(ZeroDivisionError("secret"))
    assert isinstance(response, web.Response)
    assert response.status == 500
    assert json.loads(response.text or "")["error"]["message"] == "internal error: ZeroDivisionError"
    assert [(log["event"], log["log_level"]) for log in logs] == [("request failed", "error")]
