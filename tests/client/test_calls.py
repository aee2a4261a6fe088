"""What a call's options become in the request that crosses the socket."""

from __future__ import annotations

import json
import math

import pytest

from subcortex import Client, InvalidRequest
from subcortex.client.calls import _request
from subcortex.client.sending import encoded, with_less_time
from subcortex.daemon.openai_routes import think_request
from subcortex.types import ThinkRequest

ASK = [{"role": "user", "content": "hi"}]


def asked(client: Client, **options) -> ThinkRequest:
    return _request("hi", {"client": client, **options})[1]


def test_a_wait_crosses_the_socket_under_its_name(config):
    request = asked(Client(config), wait_s=90.0, deadline=120.0)
    sent = json.loads(encoded(request))
    assert (sent["wait_s"], sent["deadline_s"]) == (90.0, 120.0)
    assert "wait_s" not in json.loads(encoded(asked(Client(config))))


def test_openais_shape_carries_a_wait_beside_the_other_fields():
    body = {"messages": ASK, "subcortex": {"wait_s": 30, "deadline_s": 60}}
    assert think_request(body).wait_s == 30.0
    with pytest.raises(InvalidRequest, match="wait_s"):
        think_request({"messages": ASK, "subcortex": {"wait_s": -1}})
    with pytest.raises(InvalidRequest) as caught:
        think_request({"messages": ASK, "subcortex": {"wait": 30}})
    assert "wait_s" in (caught.value.hint or "")


@pytest.mark.parametrize("wait_s", [-0.5, math.inf, math.nan, "soon"])
def test_a_wait_that_is_none_is_refused_by_name(config, wait_s):
    with pytest.raises(InvalidRequest) as caught:
        asked(Client(config), wait_s=wait_s)
    assert caught.value.details["param"] == "wait_s"


@pytest.mark.parametrize(("spent_s", "left_s"), [(4.0, 6.0), (10.0, 0.0), (25.0, 0.0)])
def test_starting_a_daemon_is_part_of_the_wait(spent_s, left_s):
    request = ThinkRequest(messages=ASK, wait_s=10.0)
    assert with_less_time(request, spent_s).wait_s == left_s
    assert with_less_time(request, spent_s).deadline_s is None
    unhurried = ThinkRequest(messages=ASK)
    assert with_less_time(unhurried, spent_s) is unhurried
