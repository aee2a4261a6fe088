"""Safetensors: the testbed's models, folders of shards, every dtype, and files that lie."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subcortex.errors import ConfigError
from subcortex.models import _child, _safetensors_child, safetensors
from subcortex.models.gguf import read_gguf
from subcortex.models.safetensors import DTYPE_BITS, read_folder, read_safetensors
from subcortex.models.stored import StoredTensor
from testbed.export import read_bf16
from tests.conftest import MODELS
from tests.models.crafted import SMALL as SMALL_GGUF
from tests.models.crafted import peaks, safetensors_bytes, sparse

HEADER: dict[str, Any] = {
    "__metadata__": {"format": "pt"},
    "a": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]},
    "b": {"dtype": "F8_E4M3", "shape": [5], "data_offsets": [12, 17]},
    "c": {"dtype": "F32", "shape": [], "data_offsets": [17, 21]},
}
SMALL = safetensors_bytes(HEADER, 21)
TENSORS = (
    StoredTensor("a", (2, 3), "BF16", 12),
    StoredTensor("b", (5,), "F8_E4M3", 5),
    StoredTensor("c", (), "F32", 4),
)


def _one(name: str, size: int = 4) -> bytes:
    return safetensors_bytes({name: {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}, size)


@pytest.mark.parametrize("tier", ["fast", "deep"])
def test_the_testbed(tier):
    folder = MODELS / tier
    found = read_safetensors(folder)
    assert found == read_safetensors(folder / "model.safetensors")
    assert {each.name: (each.shape, each.bytes) for each in found} == {
        name: (bits.shape, bits.nbytes) for name, bits in read_bf16(folder / "model.safetensors").items()
    }
    gguf = read_gguf(folder / f"{tier}.gguf").stored()
    assert sorted(each.shape for each in found) == sorted(each.shape for each in gguf)
    assert sum(each.elements for each in found) == sum(each.elements for each in gguf)


def test_one_file(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(SMALL)
    assert read_safetensors(tmp_path / "x.safetensors") == TENSORS
    assert read_safetensors(str(tmp_path)) == TENSORS


@pytest.mark.parametrize("dtype", DTYPE_BITS)
def test_every_dtype(tmp_path, dtype):
    size = 8 * 3 * DTYPE_BITS[dtype] // 8
    header = {"t": {"dtype": dtype, "shape": [8, 3], "data_offsets": [0, size]}}
    (tmp_path / "x.safetensors").write_bytes(safetensors_bytes(header, size))
    assert read_safetensors(tmp_path) == (StoredTensor("t", (8, 3), dtype, size),)


def _shards(folder: Path, weight_map: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )
    return folder


def test_a_folder_of_shards(tmp_path):
    _shards(tmp_path, {"a": "m-1.safetensors", "b": "m-2.safetensors"})
    (tmp_path / "m-1.safetensors").write_bytes(_one("a"))
    (tmp_path / "m-2.safetensors").write_bytes(_one("b", 9))
    (tmp_path / "consolidated.safetensors").write_bytes(_one("other"))
    assert read_safetensors(tmp_path) == (StoredTensor("a", (4,), "U8", 4), StoredTensor("b", (9,), "U8", 9))
    (tmp_path / "m-2.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"1 of the 2 shards of .* are missing: m-2.safetensors"):
        read_safetensors(tmp_path)


def test_shards_without_an_index(tmp_path):
    for number in (1, 2):
        (tmp_path / f"m-0000{number}-of-00002.safetensors").write_bytes(_one(f"t{number}"))
    (tmp_path / "consolidated.safetensors").write_bytes(_one("other"))
    assert [each.name for each in read_safetensors(tmp_path)] == ["t1", "t2"]
    (tmp_path / "m-00002-of-00002.safetensors").unlink()
    with pytest.raises(ConfigError, match="missing: m-00002-of-00002.safetensors"):
        read_safetensors(tmp_path)
    (tmp_path / "m-00001-of-00002.safetensors").unlink()
    assert [each.name for each in read_safetensors(tmp_path)] == ["other"]


BESIDE = (
    "adapter_model.safetensors",
    "adapters.safetensors",
    "lora_adapter.safetensors",
    "optimizer.safetensors",
    "training_args.safetensors",
)


def test_what_lies_beside_a_model_is_not_counted(tmp_path):
    for name in BESIDE:
        (tmp_path / name).write_bytes(_one(name))
    assert read_folder(tmp_path) is None
    with pytest.raises(ConfigError, match="holds no safetensors files of a model"):
        read_safetensors(tmp_path)
    (tmp_path / "mine.safetensors").write_bytes(_one("a"))
    assert read_folder(tmp_path) == (StoredTensor("a", (4,), "U8", 4),)
    # Asked for by name, it is read.
    assert [each.name for each in read_safetensors(tmp_path / BESIDE[0])] == [BESIDE[0]]


def test_an_index_of_which_nothing_is_there_is_no_model_yet(tmp_path):
    _shards(tmp_path, {"a": "m-1.safetensors", "b": "m-2.safetensors"})
    assert read_folder(tmp_path) is None
    (tmp_path / "consolidated.safetensors").write_bytes(_one("whole"))
    assert [each.name for each in read_safetensors(tmp_path)] == ["whole"]
    (tmp_path / "m-2.safetensors").write_bytes(_one("b"))
    with pytest.raises(ConfigError, match="1 of the 2 shards of .* are missing: m-1.safetensors"):
        read_folder(tmp_path)


def test_an_index_of_200_000_files_is_refused_by_its_reader(tmp_path):
    _shards(tmp_path, {f"t{n:x}": f"s{n:x}.safetensors" for n in range(200_000)})
    with pytest.raises(ConfigError, match="names more than 500 files"):
        read_safetensors(tmp_path)


def test_as_many_files_as_are_opened_are_read_of_an_index(tmp_path):
    for count, message in ((_child.PARTS, None), (_child.PARTS + 1, "names more than 500 files")):
        index = _shards(tmp_path, {f"t{n}": f"s{n}.safetensors" for n in range(count)})
        with _child.opened([index / "model.safetensors.index.json"]) as (file,):
            said = json.loads(_safetensors_child.answer([f"i{file.descriptor}"]))
        assert said.get("refused", "").endswith("500 files") is (message is not None)
    assert _safetensors_child.FILES == _child.PARTS


def test_a_shard_with_less_than_the_index_says(tmp_path):
    _shards(tmp_path, {"a": "m.safetensors", "b": "m.safetensors"})
    (tmp_path / "m.safetensors").write_bytes(_one("a"))
    with pytest.raises(ConfigError, match="holds 1 tensors, and the index says 2"):
        read_safetensors(tmp_path)


def test_a_tensor_in_two_shards(tmp_path):
    (tmp_path / "1.safetensors").write_bytes(_one("a"))
    (tmp_path / "2.safetensors").write_bytes(_one("a"))
    assert read_safetensors(tmp_path) == (StoredTensor("a", (4,), "U8", 4),)
    (tmp_path / "2.safetensors").write_bytes(_one("a", 5))
    with pytest.raises(ConfigError, match="another 'a'"):
        read_safetensors(tmp_path)


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "a/../../x", "a\\..\\x", "x\0y"])
def test_an_index_that_leads_out_of_its_folder(tmp_path, name):
    (tmp_path / "x.safetensors").write_bytes(SMALL)
    folder = _shards(tmp_path / "model", {"a": name})
    with pytest.raises(ConfigError, match="outside its folder"):
        read_safetensors(folder)


def test_links_out_of_the_folder_are_followed_in_the_hubs_cache_alone(tmp_path):
    folder = tmp_path / "models--x" / "snapshots" / "0123"
    blobs = tmp_path / "models--x" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "hash").write_bytes(_one("a"))
    _shards(folder, {"a": "m.safetensors"})
    (folder / "m.safetensors").symlink_to("../../blobs/hash")
    assert read_safetensors(folder) == (StoredTensor("a", (4,), "U8", 4),)
    (tmp_path / "other").write_bytes(_one("a"))
    (folder / "m.safetensors").unlink()
    (folder / "m.safetensors").symlink_to(tmp_path / "other")
    with pytest.raises(ConfigError, match="a link out of its folder"):
        read_safetensors(folder)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("", "is empty"),
        ("[]", "no JSON object"),
        ("{", "no JSON"),
        ("{}", "no weight_map"),
        ('{"weight_map": {}}', "names no file"),
        ('{"weight_map": {"a": 1}}', "no sound file name"),
        ('{"weight_map": {"a": ""}}', "no sound file name"),
        ('{"weight_map": {"a": "x", "a": "y"}}', "something twice"),
        ("[" * 100_000, "nested too deep"),
        ('{"weight_map":' * 100_000, "nested too deep"),
        ("\ufeff{}", "no JSON"),
        ("1" * 5000, "no JSON"),
    ],
)
def test_an_index_that_is_none(tmp_path, index, message):
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ConfigError, match=message):
        read_safetensors(tmp_path)


def _lie(**changes: Any) -> bytes:
    entry = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]} | changes
    return safetensors_bytes({"t": entry}, 4)


LIES = {
    "length of 2^63": (struct.pack("<Q", 2**63) + b"{}", "should take 9223372036854775808 bytes"),
    "length beyond the file": (struct.pack("<Q", 3) + b"{}", "should take 3 bytes"),
    "4 bytes": (b"\0" * 4, "too few"),
    "no JSON": (safetensors_bytes(b"\0" * 16), "no JSON"),
    "not UTF-8": (safetensors_bytes(b'{"\xff": 1}'), "no JSON"),
    "a list": (safetensors_bytes([]), "no JSON object"),
    "100,000 deep": (safetensors_bytes(b"[" * 100_000), "nested too deep"),
    "100,000 objects deep": (safetensors_bytes(b'{"a":' * 100_000), "nested too deep"),
    "a name twice": (safetensors_bytes(b'{"a":1,"a":2}'), "something twice"),
    "an empty name": (safetensors_bytes({"": {}}), "0 characters"),
    "a name of 600": (safetensors_bytes({"x" * 600: {}}), "600 characters"),
    "no entry": (safetensors_bytes({"t": 1}), "not told by"),
    "half an entry": (safetensors_bytes({"t": {"dtype": "U8"}}), "not told by"),
    "unknown dtype": (_lie(dtype="Q9"), "dtype 'Q9'"),
    "a dtype that is no text": (_lie(dtype=["U8"]), "no sound dtype"),
    "negative shape": (_lie(shape=[-1, -4]), "no sound shape"),
    "a shape of floats": (_lie(shape=[4.0]), "no sound shape"),
    "a shape of true": (_lie(shape=[True, 4]), "no sound shape"),
    "2^62 squared": (_lie(shape=[2**62, 2**62]), "takes 4 bytes"),
    "more than the data": (_lie(shape=[5], data_offsets=[0, 5]), "end at byte"),
    "offsets backwards": (_lie(data_offsets=[4, 0]), "takes -4 bytes"),
    "three offsets": (_lie(data_offsets=[0, 1, 2]), "no sound data_offsets"),
    "a hole before": (_lie(shape=[3], data_offsets=[1, 4]), "the one before it ends at 0"),
    "bytes left over": (_lie(shape=[3], data_offsets=[0, 3]), "the file at"),
    "over one another": (
        safetensors_bytes(
            {n: {"dtype": "U8", "shape": [4], "data_offsets": [o, o + 4]} for n, o in (("a", 0), ("b", 2))}, 6
        ),
        "begins at 2, the one before it ends at 4",
    ),
    "half a byte": (
        safetensors_bytes({"t": {"dtype": "F4", "shape": [3], "data_offsets": [0, 1]}}, 1),
        "takes 1.5",
    ),
    "a GGUF file": (SMALL_GGUF, "a GGUF file"),
    "an HTML page": (b"<!DOCTYPE html>" + bytes(50), "HTML page"),
    "nothing": (b"", "is empty"),
}


@pytest.mark.parametrize("name", LIES)
def test_lies_are_refused_with_their_figure(tmp_path, name):
    data, message = LIES[name]
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        read_safetensors(path)
    assert message in str(caught.value)
    assert caught.value.details["file"] == str(path)
    assert len(str(caught.value)) < 1000


def test_what_is_no_model(tmp_path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    for path, message in (
        (tmp_path / "pipe.safetensors", "is a pipe"),
        ("/dev/zero", "is a device"),
        (tmp_path / "missing", "there is no file"),
        (tmp_path / ("n" * 300), "cannot be opened"),
        (f"{tmp_path}/zero\0byte", "cannot be opened"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_safetensors(path)
    (tmp_path / "pipe.safetensors").unlink()
    with pytest.raises(ConfigError, match="holds no safetensors files"):
        read_safetensors(tmp_path)


def _read_here(path: Path) -> tuple[StoredTensor, ...] | str:
    """What `read_safetensors` does with one file, without its process."""
    try:
        with _child.opened([path]) as files:
            answer = _safetensors_child.answer([str(files[0].descriptor)])
            (found,) = safetensors._parse_headers(answer.encode(), files)
            return tuple(found)
    except _child.ChildRefused as refused:
        return refused.why
    except ConfigError as error:
        return error.message


def test_cut_short_at_every_byte(tmp_path):
    path = tmp_path / "x.safetensors"
    for length in range(len(SMALL)):
        path.write_bytes(SMALL[:length])
        assert isinstance(_read_here(path), str), f"{length} of {len(SMALL)} bytes passed"
    path.write_bytes(SMALL)
    assert _read_here(path) == TENSORS


@settings(max_examples=300, deadline=None)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, len(SMALL) - 1), st.binary(min_size=1, max_size=5)), min_size=1, max_size=6
    )
)
def test_any_damage_ends_in_tensors_or_a_reason(tmp_path_factory, changes):
    data = bytearray(SMALL)
    for at, new in changes:
        data[at : at + len(new)] = new
    path = tmp_path_factory.mktemp("damaged") / "x.safetensors"
    path.write_bytes(bytes(data))
    found = _read_here(path)
    assert found
    if not isinstance(found, str):
        assert sum(each.bytes for each in found) <= len(data)


_MIB = 2**20
DEAR = {
    "a header of 99 MB": struct.pack("<Q", 99 * 10**6),
    "millions of lists": safetensors_bytes(b"[" + b"[]," * (5 * _MIB) + b"0]"),
    "millions of objects": safetensors_bytes(b'{"a":[' + b"{}," * (5 * _MIB) + b"0]}"),
    "millions of numbers": safetensors_bytes(b'{"a":[' + b"12345," * (2 * _MIB) + b"0]}"),
    "one long text": safetensors_bytes(b'{"a":"' + "ü".encode() * (7 * _MIB) + b'"}'),
}


@pytest.mark.parametrize("name", DEAR)
def test_nothing_makes_reader_or_parent_take_200_mb(tmp_path, name):
    path = sparse(tmp_path / "x.safetensors", DEAR[name], 10**10)
    child_mib, parent_mib, said = peaks("read_safetensors", path)
    assert child_mib < 190
    assert parent_mib < 190
    assert said.startswith(str(path))
