"""What honest GGUF files hold, held against gguf-py's own reader."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from subcortex.errors import ConfigError
from subcortex.models import _child, _header_cache
from subcortex.models.gguf import Counted, read_gguf
from subcortex.models.stored import StoredTensor
from tests.conftest import MODELS
from tests.models.crafted import INT32, KEYS, SMALL, STRING, TENSORS, UINT16, gguf_bytes, scalar, tensor
from tests.models.synthetic import SHAPES, write_gguf_header


@pytest.mark.parametrize("tier", ["fast", "deep"])
def test_the_testbed_is_read_as_gguf_py_reads_it(tier):
    path = MODELS / tier / f"{tier}.gguf"
    found, theirs = read_gguf(path), gguf.GGUFReader(path)
    assert [(t.name, t.ne, t.type.id, t.offset, t.bytes) for t in found.tensors] == [
        (t.name, tuple(t.shape.tolist()), int(t.tensor_type), int(t.data_offset), int(t.n_bytes))
        for t in theirs.tensors
    ]
    assert found.file_bytes == path.stat().st_size
    for key, value in found.metadata.items():
        field = theirs.fields[key].contents()
        if isinstance(value, Counted):
            assert value.length == len(field)
        else:
            assert value == (tuple(field) if isinstance(field, list) else field)
    assert {key for key in theirs.fields if not key.startswith("GGUF.")} == set(found.metadata)
    assert (found.architecture, found.file_type, found.get("block_count")) == (
        "llama",
        "Q8_0",
        theirs.fields["llama.block_count"].contents(),
    )


def test_shapes_are_row_major_once_stored():
    stored = {each.name: each for each in read_gguf(MODELS / "fast" / "fast.gguf").stored()}
    config = json.loads((MODELS / "fast" / "config.json").read_text())
    wide, hidden = config["intermediate_size"], config["hidden_size"]
    assert stored["blk.0.ffn_up.weight"] == StoredTensor(
        "blk.0.ffn_up.weight", (wide, hidden), "Q8_0", wide * hidden * 34 // 32
    )


@pytest.mark.parametrize("name", SHAPES)
def test_files_of_real_shapes(tmp_path, name):
    path = write_gguf_header(tmp_path / "model.gguf", name)
    found, theirs = read_gguf(path), gguf.GGUFReader(path)
    assert {t.name: (t.offset, t.bytes) for t in found.tensors} == {
        t.name: (int(t.data_offset), int(t.n_bytes)) for t in theirs.tensors
    }
    assert found.tensor_bytes <= found.file_bytes
    assert found.file_type == "Q4_K_M"


def test_every_kind_of_value(tmp_path):
    (tmp_path / "m.gguf").write_bytes(SMALL)
    found = read_gguf(str(tmp_path / "m.gguf"))
    assert dict(found.metadata) == {
        "general.architecture": "llama",
        "llama.block_count": 1,
        "llama.rope.freq_base": 10000.0,
        "llama.use_parallel_residual": True,
        "llama.attention.head_count_kv": (2, 0, 2),
        "tokenizer.ggml.tokens": Counted("string[]", 3),
    }
    assert [(t.name, t.ne, t.bytes) for t in found.tensors] == [
        ("token_embd.weight", (32, 3), 102),
        ("output_norm.weight", (32,), 128),
        ("blk.0.scale", (), 4),
    ]


def test_all_value_types_as_gguf_py_writes_them(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    values: dict[str, int | float | bool | str] = {}
    for kind, value in [("int8", -1), ("uint8", 255), ("int16", -2), ("uint16", 65535), ("int32", -3)]:
        getattr(writer, f"add_{kind}")(f"x.{kind}", value)
        values[f"x.{kind}"] = value
    writer.add_int64("x.int64", -(2**63))
    writer.add_uint64("x.uint64", 2**64 - 1)
    writer.add_float64("x.float64", 0.1)
    writer.add_float64("x.infinite", float("inf"))
    writer.add_string("x.string", 'a "quoted"\nline, ü')
    writer.add_string("x.long", "x" * 65537)
    writer.add_array("x.floats", [0.5] * 2000)
    writer.add_array("x.texts", ["a", "b"])
    writer.add_tensor("t", np.zeros((2, 3), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = read_gguf(tmp_path / "m.gguf")
    assert dict(found.metadata) == values | {
        "general.architecture": "llama",
        "x.int64": -(2**63),
        "x.uint64": 2**64 - 1,
        "x.float64": 0.1,
        "x.infinite": float("inf"),
        "x.string": 'a "quoted"\nline, ü',
        "x.long": Counted("string", 65537),
        "x.floats": Counted("float32[]", 2000),
        "x.texts": Counted("string[]", 2),
    }
    assert [(t.ne, t.type.name, t.bytes) for t in found.tensors] == [((3, 2), "F16", 12)]


def test_another_alignment_moves_the_data(tmp_path):
    keys = [*KEYS, ("general.alignment", scalar(4, 4096))]
    (tmp_path / "m.gguf").write_bytes(gguf_bytes(keys, TENSORS[:1], data=102, alignment=4096))
    assert read_gguf(tmp_path / "m.gguf").tensors[0].offset == 4096


def _split(folder: Path, counts: Sequence[int], numbers: Sequence[int] = (0, 1), total: int = 3) -> Path:
    for index, (count, number) in enumerate(zip(counts, numbers, strict=False)):
        keys = [
            ("split.count", scalar(UINT16, count)),
            ("split.no", scalar(UINT16, number)),
            ("split.tensors.count", scalar(INT32, total)),
            *(KEYS if index == 0 else ()),
        ]
        tensors = [tensor(f"blk.{index}.{n}", [32], 0, 128 * n) for n in range(2 - index)]
        path = folder / f"big-{index + 1:05d}-of-{len(counts):05d}.gguf"
        path.write_bytes(gguf_bytes(keys, tensors, data=128 * len(tensors)))
    return folder / f"big-00001-of-{len(counts):05d}.gguf"


def test_all_parts_of_a_split_model_are_one(tmp_path):
    first = _split(tmp_path, counts=(2, 2))
    found = read_gguf(first)
    assert [(t.name, t.part) for t in found.tensors] == [("blk.0.0", 0), ("blk.0.1", 0), ("blk.1.0", 1)]
    assert found.parts == 2
    assert found.file_bytes == sum(path.stat().st_size for path in tmp_path.glob("*.gguf"))
    assert found.get("block_count") == 1
    assert read_gguf(tmp_path / "big-00002-of-00002.gguf").tensors == found.tensors


def test_a_split_by_gguf_py_is_read(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama", split_max_tensors=1)
    for name in "abc":
        writer.add_tensor(name, np.ones(8, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = read_gguf(tmp_path / "m-00002-of-00003.gguf")
    assert [(t.name, t.part, t.bytes) for t in found.tensors] == [("a", 0, 32), ("b", 1, 32), ("c", 2, 32)]


def test_missing_parts_are_named(tmp_path):
    first = _split(tmp_path, counts=(2, 2))
    (tmp_path / "big-00002-of-00002.gguf").unlink()
    with pytest.raises(ConfigError, match="1 of them are missing: big-00002-of-00002.gguf") as caught:
        read_gguf(first)
    assert caught.value.details["file"] == str(first)
    with pytest.raises(ConfigError, match="there is no file"):
        read_gguf(tmp_path / "other-00001-of-00002.gguf")


@pytest.mark.parametrize(
    ("counts", "numbers", "total", "message"),
    [
        ((3, 3), (0, 1), 3, "one of 3 parts, not of 2"),
        ((2, 2), (1, 0), 3, "part 1, not 0"),
        ((2, 2), (0, 1), 4, "should hold 4 tensors, and hold 3"),
        ((7,), (0,), 2, "one of 7 parts, not of 1"),
    ],
)
def test_parts_that_do_not_belong_together(tmp_path, counts, numbers, total, message):
    with pytest.raises(ConfigError, match=message):
        read_gguf(_split(tmp_path, counts, numbers, total))


def test_a_name_that_cannot_be_a_part(tmp_path):
    with pytest.raises(ConfigError, match="part 3 of 2"):
        read_gguf(tmp_path / "m-00003-of-00002.gguf")
    with pytest.raises(ConfigError, match="500 are read at most"):
        read_gguf(tmp_path / "m-00001-of-99999.gguf")


def _count_runs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    runs: list[Any] = []
    real = _child._run

    def run(*args: Any) -> bytes:
        runs.append(args)
        return real(*args)

    monkeypatch.setattr(_child, "_run", run)
    return runs


def test_a_header_is_remembered_until_the_file_changes(tmp_path, monkeypatch):
    runs = _count_runs(monkeypatch)
    path = tmp_path / "m.gguf"
    path.write_bytes(SMALL)
    first = read_gguf(path)
    assert (read_gguf(path), len(runs)) == (first, 1)
    (kept,) = _header_cache.folder().iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert json.loads(kept.read_bytes())["schema"] == _header_cache.SCHEMA
    os.utime(path, ns=(1, 1))
    assert (read_gguf(path), len(runs)) == (first, 2)
    path.write_bytes(gguf_bytes(KEYS, TENSORS[:1], data=102))
    assert (len(read_gguf(path).tensors), len(runs)) == (1, 3)


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"\xff" * 100,
        SMALL,
        None,
        "schema",
        "answer",
        "lie",
    ],
)
def test_a_damaged_memory_is_passed_over_and_mended(tmp_path, monkeypatch, damage):
    runs = _count_runs(monkeypatch)
    path = tmp_path / "m.gguf"
    path.write_bytes(SMALL)
    first = read_gguf(path)
    (kept,) = _header_cache.folder().iterdir()
    sound = kept.read_bytes()
    if damage == "schema":
        kept.write_bytes(sound.replace(b'"schema":1', b'"schema":0'))
    elif damage == "answer":
        kept.write_bytes(sound.replace(b'"headers"', b'"herders"'))
    elif damage == "lie":
        kept.write_bytes(sound.replace(b"[32,3],8,0]", b"[32,999],8,0]"))
    elif damage is None:
        kept.chmod(0o666)
    else:
        kept.write_bytes(damage)
    assert (read_gguf(path), len(runs)) == (first, 2)
    assert [entry.read_bytes() for entry in _header_cache.folder().iterdir()] == [sound]
    assert (read_gguf(path), len(runs)) == (first, 2)


@pytest.mark.parametrize("bound", ["MOST_FILES", "MOST_TOTAL_BYTES"])
def test_only_so_many_headers_are_remembered(monkeypatch, bound):
    keys = [[[str(number), 0]] for number in range(5)]
    _header_cache.put(keys[0], b"{}")
    (first,) = _header_cache.folder().iterdir()
    monkeypatch.setattr(_header_cache, bound, 3 if bound == "MOST_FILES" else 3 * first.stat().st_size)
    for number, key in enumerate(keys):
        _header_cache.put(key, b"{}")
        os.utime(_header_cache._path(key), ns=(number, number))
    assert [_header_cache.get(key) for key in keys] == [None, None, b"{}", b"{}", b"{}"]


def test_a_cache_folder_that_cannot_be_made_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "taken"))
    (tmp_path / "m.gguf").write_bytes(SMALL)
    assert len(read_gguf(tmp_path / "m.gguf").tensors) == 3


def test_a_text_that_is_not_utf8_is_kept_as_far_as_it_goes(tmp_path):
    data = gguf_bytes([("general.name", scalar(STRING, b"caf\xe9"))], [])
    (tmp_path / "m.gguf").write_bytes(data)
    assert read_gguf(tmp_path / "m.gguf").metadata["general.name"] == "caf�"
