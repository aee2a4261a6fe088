"""Files that lie: each is refused with a typed error, whatever it says, in little memory."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subcortex.errors import ConfigError
from subcortex.models import _child, _gguf_child, gguf
from subcortex.models.gguf import GgufFile, read_gguf
from tests.models.crafted import (
    ARRAY,
    KEYS,
    SMALL,
    STRING,
    TENSORS,
    UINT32,
    UINT64,
    array,
    gguf_bytes,
    peaks,
    scalar,
    sparse,
    tensor,
    text,
)

GB = 10**9


def _read_here(path) -> GgufFile | str:
    """What `read_gguf` does, without its process: the file, or why it is refused."""
    try:
        with _child.opened([path]) as files:
            answer = _gguf_child.answer([files[0].descriptor])
            return gguf._parse(answer.encode(), files)
    except _child.ChildRefused as refused:
        return refused.why
    except ConfigError as error:
        return error.message


def test_reading_here_is_reading_there(tmp_path):
    (tmp_path / "m.gguf").write_bytes(SMALL)
    assert _read_here(tmp_path / "m.gguf") == read_gguf(tmp_path / "m.gguf")


def test_cut_short_at_every_byte(tmp_path):
    path = tmp_path / "m.gguf"
    whole = len(SMALL)
    for length in range(whole):
        path.write_bytes(SMALL[:length])
        assert isinstance(_read_here(path), str), f"{length} of {whole} bytes passed"


@settings(max_examples=300, deadline=None)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, len(SMALL) - 1), st.binary(min_size=1, max_size=9)), min_size=1, max_size=6
    ),
    length=st.integers(0, len(SMALL) + 64),
)
def test_any_damage_ends_in_a_file_or_a_reason(tmp_path_factory, changes, length):
    data = bytearray(SMALL)
    for at, new in changes:
        data[at : at + len(new)] = new
    path = tmp_path_factory.mktemp("damaged") / "m.gguf"
    path.write_bytes(bytes(data[:length]).ljust(1, b"?"))
    found = _read_here(path)
    if isinstance(found, GgufFile):
        assert all(0 <= each.offset <= each.offset + each.bytes <= found.file_bytes for each in found.tensors)
    else:
        assert found


@settings(max_examples=200, deadline=None)
@given(junk=st.binary(min_size=1, max_size=400), told=st.booleans())
def test_noise_is_refused_or_harmless(tmp_path_factory, junk, told):
    path = tmp_path_factory.mktemp("noise") / "m.gguf"
    path.write_bytes(b"GGUF\x03\0\0\0" + junk if told else junk)
    assert isinstance(_read_here(path), GgufFile | str)


def _with_value(value: bytes, key: str | bytes = "x") -> bytes:
    return gguf_bytes([(key, value)], [])


def _with_tensor(*args, **kwargs) -> bytes:
    return gguf_bytes(KEYS, [tensor(*args, **kwargs)], data=1024)


NESTED = struct.pack("<I", ARRAY) + struct.pack("<IQ", ARRAY, 1) * 100_000
LIES = {
    "string of 2^63 bytes": (_with_value(struct.pack("<IQ", STRING, 2**63)), "9223372036854775808 bytes"),
    "string of 2^64-1 bytes": (_with_value(struct.pack("<IQ", STRING, 2**64 - 1)), "the file ends at"),
    "key of 2^63 bytes": (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**63) + bytes(9), "the file ends at"),
    "empty key": (_with_value(scalar(UINT32, 1), ""), "has 0 bytes"),
    "array of 2^60 strings": (_with_value(array(STRING, [], count=2**60)), "the file ends at"),
    "array of 2^60 numbers": (_with_value(array(UINT64, [], count=2**60)), "the file ends at"),
    "strings that lie": (
        _with_value(array(STRING, [], count=2) + struct.pack("<QQ", 2**62, 0)),
        "the file ends at",
    ),
    "nested 100,000 deep": (_with_value(NESTED), "array of arrays"),
    "unknown value type": (_with_value(struct.pack("<IQ", 13, 0)), "unknown type 13"),
    "array of unknown type": (_with_value(array(99, [])), "unknown type 99"),
    "2^40 tensors": (gguf_bytes(KEYS, TENSORS, tensor_count=2**40), "1099511627776 tensors"),
    "2^40 keys": (gguf_bytes(KEYS, TENSORS, key_count=2**40), "1099511627776 keys"),
    "one tensor too many": (gguf_bytes(KEYS, TENSORS, tensor_count=4), "tensor"),
    "1000 dimensions": (_with_tensor("t", [1] * 1000, 0, 0), "1000 dimensions"),
    "2^32-1 dimensions": (_with_tensor("t", [], 0, 0, dimensions=2**32 - 1), "4294967295 dimensions"),
    "sizes that overflow": (_with_tensor("t", [2**32, 2**31, 2, 2], 0, 0), "no sizes"),
    "a size of 0": (_with_tensor("t", [0, 2**63], 0, 0), "no sizes"),
    "a negative size": (_with_tensor("t", [2**64 - 1], 0, 0), "no sizes"),
    "bytes beyond the file": (_with_tensor("t", [2**40], 0, 0), "but the file at"),
    "offset outside": (_with_tensor("t", [32], 0, 2**62), "but the file at"),
    "negative offset": (_with_tensor("t", [32], 0, 2**64 - 32), "but the file at"),
    "offset not aligned": (_with_tensor("t", [32], 0, 3), "no multiple of 32"),
    "half a block": (_with_tensor("t", [33], 8, 0), "not a multiple of Q8_0's 32"),
    "unknown ggml type": (_with_tensor("t", [32], 77, 0), "ggml type 77"),
    "removed ggml type": (_with_tensor("t", [32], 4, 0), "ggml type 4"),
    "name of 300 bytes": (_with_tensor("t" * 300, [32], 0, 0), "300 bytes"),
    "overlapping tensors": (
        gguf_bytes(KEYS, [tensor("a", [64], 0, 0), tensor("b", [64], 0, 32)], data=1024),
        "lie over one another",
    ),
    "tensor twice": (gguf_bytes([], [tensor("a", [8], 0, 0)] * 2, data=1024), "'a' stands in it twice"),
    "key twice": (gguf_bytes([KEYS[0], KEYS[0]], []), "'general.architecture' stands in it twice"),
    "key not UTF-8": (_with_value(scalar(UINT32, 1), b"\xff\xfe"), "not UTF-8"),
    "tensor name not UTF-8": (_with_tensor(b"\xed\xa0\x80", [32], 0, 0), "not UTF-8"),
    "alignment 0": (gguf_bytes([("general.alignment", scalar(UINT32, 0))], []), "alignment is 0"),
    "alignment 48": (gguf_bytes([("general.alignment", scalar(UINT32, 48))], []), "alignment is 48"),
    "alignment 2^31": (gguf_bytes([("general.alignment", scalar(UINT32, 2**31))], []), "alignment is"),
    "alignment a text": (gguf_bytes([("general.alignment", scalar(STRING, "32"))], []), "alignment is"),
    "alignment an array": (gguf_bytes([("general.alignment", array(UINT32, [32]))], []), "alignment is"),
    "alignment too long": (
        gguf_bytes([("general.alignment", array(UINT32, [32] * 1025))], []),
        "alignment is",
    ),
    "version 1": (gguf_bytes(KEYS, TENSORS, data=260, version=1), "version 1"),
    "version 99": (gguf_bytes(KEYS, TENSORS, data=260, version=99), "version 99"),
    "version 0": (gguf_bytes(KEYS, TENSORS, data=260, version=0), "version 0"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "a safetensors file": (struct.pack("<Q", 2) + b"{}" + bytes(32), "safetensors"),
    "a zip archive": (b"PK\x03\x04" + bytes(64), "zip archive"),
    "a pickle": (b"\x80\x02}q\x00." + bytes(64), "pickle"),
    "an HTML page": (b"<!DOCTYPE html><html></html>" + bytes(64), "HTML page"),
    "a Git LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "is a Git LFS pointer, not the file itself\nFetch the file",
    ),
    "a GGML file": (b"lmgg" + bytes(64), "GGML"),
    "one byte": (b"G", "the file ends at 1"),
    "nothing": (b"", "is empty"),
}


@pytest.mark.parametrize("name", LIES)
def test_lies_are_refused_with_their_figure(tmp_path, name):
    data, message = LIES[name]
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        read_gguf(path)
    assert message in str(caught.value)
    assert str(path) in caught.value.message
    assert caught.value.details["file"] == str(path)
    assert len(str(caught.value)) < 1000


def test_version_2_is_read_as_llama_cpp_reads_it(tmp_path):
    (tmp_path / "m.gguf").write_bytes(gguf_bytes(KEYS, TENSORS, data=260, version=2))
    assert read_gguf(tmp_path / "m.gguf").version == 2


_COUNTS = struct.pack("<IQQ", 3, 0, 1)
_STRINGS = b"GGUF" + _COUNTS + text("x") + struct.pack("<II", ARRAY, STRING)
#: The dearest that a file can ask for: sparse, of 10 GB.
DEAR = {
    "a billion empty strings": _STRINGS + struct.pack("<Q", 10**9),
    "as many strings as are read, beyond the most bytes": _STRINGS + struct.pack("<QQ", 4_000_000, 2**26),
    "as many empty strings as are read": _STRINGS + struct.pack("<Q", 4_000_000),
    "a text of 9 GB": b"GGUF" + _COUNTS + text("x") + struct.pack("<IQ", STRING, 9 * GB),
    "numbers of 9 GB": b"GGUF" + _COUNTS + text("x") + struct.pack("<IIQ", ARRAY, UINT64, GB),
    "a list of tensors of 10 GB": b"GGUF" + struct.pack("<IQQ", 3, 400_000_000, 0),
    "most keys, most numbers": b"GGUF"
    + struct.pack("<IQQ", 3, 0, 10_000)
    + b"".join(text(f"{n:05}") + array(UINT64, [2**64 - 1 - n] * 1024) for n in range(1200)),
    "most names": b"GGUF"
    + struct.pack("<IQQ", 3, 20_000, 0)
    + b"".join(tensor(f"{n:0>255}", [1, 1, 1, 2**62], 0, 2**63 + n) for n in range(20_000)),
    "texts that grow when told": b"GGUF"
    + struct.pack("<IQQ", 3, 0, 120)
    + b"".join(text(f"{n:05}") + scalar(STRING, "\x01" * 65_000) for n in range(120)),
}


@pytest.mark.parametrize("name", DEAR)
def test_nothing_makes_reader_or_parent_take_200_mb(tmp_path, name):
    path = sparse(tmp_path / "m.gguf", DEAR[name], 10 * GB)
    child_mib, parent_mib, said = peaks("read_gguf", path)
    assert child_mib < 190
    assert parent_mib < 190
    assert said.startswith(("read", str(path)))


def test_the_reader_gives_up_its_rights():
    asked = (
        "import _gguf_child as c, resource as r; c._give_up_rights(); print([r.getrlimit(k)[1] for k in %s])"
    )
    limits = (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE)
    done = subprocess.run(
        [sys.executable, "-c", asked % (tuple(map(int, limits)),)],
        cwd=_gguf_child.__file__.rsplit("/", 1)[0],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"[{_gguf_child.MEMORY_BYTES}, {_gguf_child.CPU_S}, 0, 0]\n"


def test_what_is_no_file_is_named(tmp_path):
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "loop.gguf").symlink_to("loop.gguf")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(str(tmp_path / "socket.gguf"))
    for path, message in (
        (tmp_path, "is a folder"),
        (tmp_path / "pipe.gguf", "is a pipe"),
        (tmp_path / "socket.gguf", "is a socket"),
        ("/dev/zero", "is a device"),
        (tmp_path / "missing.gguf", "there is no file"),
        (tmp_path / "loop.gguf", "cannot be opened"),
        (f"{tmp_path}/zero\0byte.gguf", "cannot be opened"),
        (tmp_path / ("n" * 300), "cannot be opened"),
        (tmp_path / ("n" * 300 + "-00001-of-00002.gguf"), "cannot be opened"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_gguf(path)


def test_no_permission(tmp_path, monkeypatch):
    (tmp_path / "m.gguf").write_bytes(SMALL)

    def denied(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)  # root may read everything, so a mode would not stop it
    with pytest.raises(ConfigError, match="cannot be opened: Permission denied"):
        read_gguf(tmp_path / "m.gguf")


def _during(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    real = _child._run

    def run(*args: Any) -> bytes:
        answer = real(*args)
        act()
        return answer

    monkeypatch.setattr(_child, "_run", run)


@pytest.mark.parametrize("how", ["grows", "replaced", "gone"])
def test_a_file_that_changes_while_it_is_read(tmp_path, monkeypatch, how):
    path = tmp_path / "m.gguf"
    path.write_bytes(SMALL)

    def act():
        if how == "grows":
            path.write_bytes(SMALL + b"more")
        elif how == "gone":
            path.unlink()
        else:
            (tmp_path / "new").write_bytes(SMALL)
            (tmp_path / "new").replace(path)

    _during(monkeypatch, act)
    with pytest.raises(ConfigError, match="changed while it was read"):
        read_gguf(path)


def test_a_file_rewritten_to_look_unchanged_is_read_again(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(SMALL)
    before = path.stat()
    assert read_gguf(path).architecture == "llama"
    with path.open("r+b") as file:
        file.write(SMALL.replace(b"llama", b"qwen2"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    now = path.stat()
    same = ("st_dev", "st_ino", "st_size", "st_mtime_ns")
    assert [getattr(now, mark) for mark in same] == [getattr(before, mark) for mark in same]
    assert read_gguf(path).architecture == "qwen2"


def test_a_reader_gets_nothing_of_the_users_environment(tmp_path, monkeypatch):
    (tmp_path / "m.gguf").write_bytes(SMALL)
    (tmp_path / "child.py").write_text(
        "import json, os, sys\n"
        "said = [sorted(os.environ), sys.flags.isolated, sys.flags.no_site, os.getcwd()]\n"
        "print(json.dumps({'refused': repr(said), 'part': 0}))\n"
    )
    monkeypatch.setattr(gguf, "_SCRIPT", tmp_path / "child.py")
    for name in ("LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH", "PYTHONSTARTUP", "HF_TOKEN"):
        monkeypatch.setenv(name, "")
    with pytest.raises(ConfigError, match=r"used: \[\[('LC_CTYPE')?\], 1, 1, '/'\]"):
        read_gguf(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("while True: pass", "more than 1 s"),
        ("import sys\nwhile True: sys.stdout.write('x' * 65536)", "bytes"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("raise SystemExit(3)", "exit code 3"),
        ("print('{\"headers\": [1]}')", "makes no sense"),
        ('print(\'{"refused": "why", "part": 7}\')', "used: why"),
        ("print('{\"headers\": []}')", "left parts of it out"),
        ("print('[' * 100000)", "makes no sense"),
        ("", "makes no sense"),
    ],
)
def test_a_reader_that_was_taken_over_is_not_believed(tmp_path, monkeypatch, script, message):
    (tmp_path / "m.gguf").write_bytes(SMALL)
    (tmp_path / "child.py").write_text(script)
    monkeypatch.setattr(gguf, "_SCRIPT", tmp_path / "child.py")
    monkeypatch.setattr(_child, "WALL_S", 1.0)
    with pytest.raises(ConfigError, match=message):
        read_gguf(tmp_path / "m.gguf")
