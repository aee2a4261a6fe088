"""Fetching from the hub, over a real server on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from subcortex.errors import ConfigError
from subcortex.models import hub
from subcortex.models._http import Deadline
from subcortex.models.hub import Fetched, Hub
from subcortex.models.read import read_shape

_CONFIG = (Path(__file__).parents[2] / "bench/shapes/llama-3.1-8b/config.json").read_bytes()
_BESIDE = json.dumps(
    {
        "producer": {"name": "modelopt", "version": "0.23.0"},
        "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]},
    }
).encode()
_INDEX = b'{"metadata": {"total_size": 16060522496}, "weight_map": {}}'


class _Server(ThreadingHTTPServer):
    """Serves one model, and misbehaves by name."""

    daemon_threads = True
    asked: list[tuple[str, str | None]]
    elsewhere: str
    stop: threading.Event
    left: threading.Event


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        owner, _, file = self.path[1:].partition("/")
        status = {"gated": 401, "closed": 403, "busy": 429}.get(owner)
        if status:
            return self._answer(status, b"{}")
        if owner == "moved":
            return self._moved(f"/real/{file}")
        if owner == "stray":
            return self._moved(f"{self.server.elsewhere}/real/{file}")
        if owner == "local":
            return self._moved("file:///etc/passwd")
        if owner == "loop":
            return self._moved(self.path)
        if owner == "endless":
            return self._endless()
        if owner == "slow":
            return self._slow()
        if owner.startswith("drip"):
            return self._drip(owner)
        if owner == "tell":
            return self._tell()
        if owner == "short":
            return self._answer(200, b"{", length=1000)
        if file.endswith("resolve/main/config.json") and owner == "real":
            return self._answer(200, _CONFIG)
        if owner == "modelopt":
            return self._modelopt(file)
        if file.endswith("index.json") and owner == "real":
            return self._answer(200, _INDEX)
        return self._answer(404, b"")

    def _modelopt(self, file: str) -> None:
        """An old checkpoint, plain by its config.json; ``busy`` does not give the file beside it."""
        if file.endswith("resolve/main/config.json"):
            return self._answer(200, _CONFIG)
        if file.endswith("hf_quant_config.json"):
            return self._answer(503, b"") if file.startswith("busy") else self._answer(200, _BESIDE)
        return self._answer(404, b"")

    def _answer(self, status: int, text: bytes, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text) if length is None else length))
        self.end_headers()
        self.wfile.write(text)

    def _moved(self, to: str) -> None:
        self.send_response(307)
        self.send_header("Location", to)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):
            while not self.server.stop.is_set():
                self.wfile.write(b" " * 65536)

    def _slow(self) -> None:
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):
            while not self.server.stop.wait(0.05):
                self.wfile.write(b" ")
                self.wfile.flush()

    def _drip(self, owner: str) -> None:
        """Send a good answer a byte at a time, each long before a wait for one would end: 4 s of header."""
        status, padding = "HTTP/1.1 200 OK\r\n", f"X-Padding: {'a' * 200}\r\n"
        text = {"drip-status": f"{status[:-2]}{'.' * 200}\r\n", "drip-header": status + padding}[owner]
        text += f"Content-Length: {len(_CONFIG)}\r\n\r\n"
        try:
            for byte in text.encode():
                if self.server.stop.wait(0.02):
                    return
                self.wfile.write(bytes((byte,)))
            self.wfile.write(_CONFIG)
        except OSError:
            self.server.left.set()

    def _tell(self) -> None:
        """Send the token back where errors quote the server."""
        said = (self.headers.get("Authorization") or "").removeprefix("Bearer ").upper()
        self.wfile.write(f"{said} is what I was given\r\n\r\n".encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def _serving(elsewhere: str = "") -> Iterator[_Server]:
    server = _Server(("127.0.0.1", 0), _Handler)
    server.asked, server.elsewhere, server.stop = [], elsewhere, threading.Event()
    server.left = threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.stop.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def _no_token(monkeypatch, tmp_path):
    for variable in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for variable in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def server():
    with _serving() as one:
        yield one


def _hub(server: _Server, timeout_s: float = 20.0) -> Hub:
    return Hub(f"http://127.0.0.1:{server.server_address[1]}", timeout_s)


def test_fetches_the_config_and_the_size_of_the_weights(server):
    assert hub.fetch("real/model", _hub(server)) == Fetched(_CONFIG, 16060522496)
    assert [path for path, _ in server.asked] == [
        "/real/model/resolve/main/config.json",
        "/real/model/resolve/main/model.safetensors.index.json",
    ]


def test_a_redirect_within_the_hub_is_followed(server):
    assert _hub(server).config("moved/model") == _CONFIG


def test_the_token_goes_to_the_hub_and_to_no_other_host(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with _serving(elsewhere=f"http://127.0.0.1:{server.server_address[1]}") as first:
        with pytest.raises(ConfigError, match="another host") as refused:
            _hub(first).config("stray/model")
        assert first.asked[0][1] == "Bearer hf_secret"
    assert server.asked == []
    assert "hf_secret" not in str(refused.value)


@pytest.mark.parametrize("token", ["hf_se cret", "hf_secret\r\nX: y", "hf_sécret"])
def test_a_token_that_is_none_is_not_sent_and_not_shown(server, monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ConfigError, match="HF_TOKEN") as refused:
        _hub(server).config("real/model")
    assert token not in str(refused.value)
    assert server.asked == []


@pytest.mark.parametrize(
    ("name", "said", "hint"),
    [
        ("gated/model", "HTTP 401", "HF_TOKEN"),
        ("closed/model", "HTTP 403", "HF_TOKEN"),
        ("absent/model", "HTTP 404", "name"),
        ("busy/model", "HTTP 429", "later"),
        ("local/model", "could not be fetched|HTTP 307", ""),
        ("loop/model", "HTTP 307|could not be fetched", ""),
        ("endless/model", "larger than 1 MiB", ""),
        ("short/model", "could not be fetched", "network"),
    ],
)
def test_what_goes_wrong_is_said(server, name, said, hint):
    with pytest.raises(ConfigError, match=said) as refused:
        _hub(server).config(name)
    assert name.split("/")[0] in refused.value.message
    assert hint in (refused.value.hint or "")


def test_a_sender_that_never_ends_is_given_up(server):
    with pytest.raises(ConfigError, match="too long"):
        _hub(server, timeout_s=0.3).config("slow/model")


@pytest.mark.parametrize("what", ["drip-status", "drip-header"])
def test_a_sender_whose_header_drips_is_given_up(server, what):
    with pytest.raises(ConfigError, match="too long"):
        _hub(server, timeout_s=0.3).config(f"{what}/model")
    assert server.left.wait(10), "the connection was left open"


def test_a_deadline_that_is_over_sends_nothing(server):
    with pytest.raises(ConfigError, match="too long"):
        _hub(server, timeout_s=0.0).config("real/model")
    assert server.asked == []


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
@pytest.mark.parametrize("value", ["1", "on", "Yes", "TRUE"])
def test_no_request_leaves_where_a_variable_forbids_it(server, monkeypatch, variable, value):
    monkeypatch.setenv("HF_ENDPOINT", _hub(server).endpoint)
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=f"{variable} is set") as refused:
        read_shape("real/model", offline=False)
    assert variable in (refused.value.hint or "")
    assert refused.value.details["variable"] == variable
    assert Hub().stored_bytes("real/model") is None
    assert server.asked == []
    monkeypatch.setenv(variable, "0")
    assert read_shape("real/model", offline=False).source == "hub"


def test_what_was_fetched_before_is_still_there_where_a_variable_forbids_the_network(server, monkeypatch):
    hub.remember("real/model", Fetched(_CONFIG, 7))
    (kept,) = Path(os.environ["XDG_CACHE_HOME"]).rglob("config.json")
    os.utime(kept, (1e9, 1e9))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hub.fetch("real/model", _hub(server)) == Fetched(_CONFIG, 7)
    assert server.asked == []


@pytest.mark.parametrize("end", ["", "/", "/mirror"])
def test_another_hub_is_asked_where_the_environment_names_one(server, monkeypatch, end):
    monkeypatch.setenv("HF_ENDPOINT", _hub(server).endpoint + end)
    with contextlib.suppress(ConfigError):
        Hub().config("real/model")
    assert server.asked[0][0] == f"{end.rstrip('/')}/real/model/resolve/main/config.json"


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://user:pa55word@hub.example",
        "http://hub.example/pa55word",
        "https://hub.example?pa55word",
        "https://hub.example#pa55word",
        "https://hub.example:pa55word",
        "https://[pa55word",
        "https://hub.example/\tpa55word",
        "pa55word",
    ],
)
def test_an_address_that_is_none_is_refused_and_not_shown(server, monkeypatch, endpoint):
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(ConfigError, match="the hub's address") as refused:
        Hub().config("real/model")
    assert "HF_ENDPOINT" in (refused.value.hint or "")
    assert "pa55word" not in f"{refused.value} {refused.value.details}"


def test_a_token_that_the_server_sends_back_is_not_shown(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(ConfigError, match="is what I was given") as refused:
        _hub(server).config("tell/model")
    assert server.asked[0][1] == "Bearer hf_secret"
    assert "hf_secret" not in str(refused.value).lower()


def test_this_machine_is_not_asked_through_a_proxy(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with _serving() as proxy:
        monkeypatch.setenv("http_proxy", _hub(proxy).endpoint)
        assert _hub(server).config("real/model") == _CONFIG
        assert proxy.asked == []


@pytest.mark.parametrize(
    "endpoint", ["http://example.com", "ftp://127.0.0.1", "file:///etc", "huggingface.co"]
)
def test_only_https_leaves_this_machine(endpoint):
    with pytest.raises(ConfigError, match="HTTPS"):
        Hub(endpoint).config("real/model")


def test_no_one_listening_is_an_error_that_says_what_to_do():
    with _serving() as gone:
        closed = _hub(gone)
    with pytest.raises(ConfigError, match="could not be fetched") as refused:
        closed.config("real/model")
    assert "give its folder" in (refused.value.hint or "")


def test_a_model_read_over_the_network_is_remembered(server, monkeypatch):
    monkeypatch.setattr(hub, "ENDPOINT", _hub(server).endpoint)
    with pytest.raises(ConfigError, match="not in the local hub cache"):
        read_shape("real/model")
    shape = read_shape("real/model", offline=False)
    assert (shape.source, shape.parameters, shape.file_bytes) == ("hub", 8_030_261_248, 16060522496)
    # config.json, hf_quant_config.json (which it does not have) and the index.
    assert len(server.asked) == 3
    assert read_shape("real/model") == shape
    assert read_shape("real/model", offline=False) == shape
    assert len(server.asked) == 3


def test_what_was_fetched_is_private_and_outlives_the_hub(server):
    hub.remember("real/model", Fetched(_CONFIG, None))
    (kept,) = Path(os.environ["XDG_CACHE_HOME"]).rglob("config.json")
    assert kept.stat().st_mode & 0o077 == 0
    os.utime(kept, (1e9, 1e9))
    assert hub.fetch("real/model", _hub(server)) == Fetched(_CONFIG, 16060522496)
    assert hub.fetch("real/model", Hub("http://127.0.0.1:1")) == Fetched(_CONFIG, None)
    kept.chmod(0o666)
    assert hub.remembered("real/model") is None


def test_a_config_that_is_none_is_not_remembered(server, monkeypatch):
    monkeypatch.setattr(Hub, "config", lambda self, name: json.dumps([1]).encode())
    with pytest.raises(ConfigError, match="holds a list"):
        read_shape("real/model", offline=False)
    assert hub.remembered("real/model") is None


def test_what_modelopt_wrote_beside_a_config_is_fetched_and_remembered(server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", _hub(server).endpoint)
    shape = read_shape("modelopt/model", offline=False)
    assert shape.quantisation is not None
    assert (shape.quantisation.method, shape.quantisation.bits, shape.quantisation.kv_bits) == ("fp8", 8, 8)
    plain = read_shape("real/model", offline=False)
    assert plain.quantisation is None
    assert shape.weights_bytes < 0.6 * plain.weights_bytes
    asked = len(server.asked)
    assert read_shape("modelopt/model") == shape
    assert len(server.asked) == asked
    hub.remember("modelopt/model", Fetched(_CONFIG, None))
    assert read_shape("modelopt/model").quantisation is None


def test_a_config_that_says_how_it_is_quantised_is_all_that_is_asked_for(server):
    fetched = hub.fetch("modelopt/model", _hub(server), lacks=lambda text: b"quantization_config" in text)
    assert fetched.quantisation is None
    assert not [path for path, _ in server.asked if "quant" in path]


def test_a_quantisation_that_may_be_there_and_is_not_given_is_not_taken_for_none(server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", _hub(server).endpoint)
    with pytest.raises(ConfigError, match="HTTP 503 for hf_quant_config.json"):
        read_shape("modelopt/busy", offline=False)


def test_what_others_may_have_written_beside_a_remembered_config_is_not_read(server):
    hub.remember("modelopt/model", Fetched(_CONFIG, None, _BESIDE))
    (kept,) = Path(os.environ["XDG_CACHE_HOME"]).rglob("hf_quant_config.json")
    assert hub.remembered("modelopt/model") == Fetched(_CONFIG, None, _BESIDE)
    kept.chmod(0o666)
    assert hub.remembered("modelopt/model") == Fetched(_CONFIG, None)


def test_both_files_have_the_time_of_one(server):
    deadline = Deadline.after(-1.0)
    with pytest.raises(ConfigError, match="too long"):
        _hub(server).quantisation("modelopt/model", deadline)
    assert server.asked == []
