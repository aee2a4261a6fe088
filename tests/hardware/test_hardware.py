"""This machine, machines by name, and snapshots."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.errors import InvalidRequest
from subcortex.hardware import (
    CARDS,
    Hardware,
    detect,
    load_snapshot,
    matrix,
    parse_gpus,
    save_snapshot,
    with_gpus,
)
from tests.hardware import nvml as fake


def test_this_machine_has_memory_and_cores():
    found = detect()

    assert 0 < found.host_memory_available_mib <= found.host_memory_total_mib
    assert found.cores == len(os.sched_getaffinity(0))
    assert not found.assumed
    assert found.host is not None
    assert found.host.kernel == os.uname().release
    assert found.taken_at is not None
    assert abs(datetime.now(UTC) - found.taken_at) < timedelta(minutes=10)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2x24GiB", [(24576, None)] * 2),
        ("2 x 24 GB", [(24576, None)] * 2),
        ("RTX 3060 Ti + GTX 1060", [(8192, (8, 6)), (3072, (6, 1))]),
        ("NVIDIA GeForce RTX 3060 Ti, gtx1060 6GB", [(8192, (8, 6)), (6144, (6, 1))]),
        ("2x RTX 3090", [(24576, (8, 6))] * 2),
        ("RTX 4090", [(24564, (8, 9))]),
        ("RTX 4090 24GB", [(24564, (8, 9))]),  # the size it is sold with
        ("RTX 2080 Ti 22GB", [(22528, (7, 5))]),  # another one
        ("4×A6000", [(49140, (8, 6))] * 4),
        ("8x H100 + 10.5G", [(81559, (9, 0))] * 8 + [(10752, None)]),
        ("A100 80GB", [(81920, (8, 0))]),
        ("2x H200", [(143771, (9, 0))] * 2),
    ],
)
def test_cards_as_a_person_writes_them(text, expected):
    found = parse_gpus(text)

    assert [(gpu.memory_total_mib, gpu.compute_capability) for gpu in found] == expected
    assert [gpu.index for gpu in found] == list(range(len(expected)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "+",
        "RTX 3090 +",
        "0x24GiB",
        "65x24GiB",
        "2x0GiB",
        "potato",
        "x24GiB2",
        "9" * 5000,
        "9" * 400 + "G",
        "٢x24GiB",
        "2x２４GiB",
        "RTX 3090²",
    ],
)
def test_what_is_no_card_is_refused_with_an_example(text):
    with pytest.raises(InvalidRequest, match="2x24GiB"):
        parse_gpus(text)


@pytest.mark.parametrize(
    ("text", "figure"),
    [
        ("65x24GiB", "65 cards; at most 64"),
        ("999999x24GiB", "999999 cards; at most 64"),
        ("60x24GiB + 5x RTX 3090", "65 cards; at most 64"),
        ("24GiB + 0x24GiB", "a group of 0 cards"),
        ("24GiB" + " " * 996, "1001 characters; at most 1000"),
        ("x" * 10**6, "1000000 characters; at most 1000"),
        ("2x２４GiB", "the digit '２'"),
    ],
)
def test_too_much_is_refused_with_the_figure_and_in_few_words(text, figure):
    with pytest.raises(InvalidRequest) as refused:
        parse_gpus(text)

    assert figure in refused.value.message
    assert len(refused.value.message) < 300


def test_as_many_cards_and_letters_as_are_allowed():
    assert len(parse_gpus("32x24GiB + 32x RTX 3090")) == 64
    assert len(parse_gpus("24GiB" + " " * 995)) == 1


def test_the_nearest_card_is_named():
    with pytest.raises(InvalidRequest, match="did you mean 'RTX 3090'"):
        parse_gpus("RTX 3091")


@given(st.text(max_size=60))
def test_any_text_is_cards_or_refused(text):
    with contextlib.suppress(InvalidRequest):
        assert parse_gpus(text)


@pytest.mark.parametrize("name", CARDS)
def test_every_card_of_the_table_can_be_named(name):
    assert parse_gpus(f"2x {name}")[1].memory_total_mib == CARDS[name].reported_mib


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2x RTX 3090", [["X", "PHB"], ["PHB", "X"]]),
        ("2x RTX 3090 NVLink", [["X", "NV4"], ["NV4", "X"]]),
        ("2x A6000 with nvlink", [["X", "NV4"], ["NV4", "X"]]),
        ("2x H200 NVLink", [["X", "NV18"], ["NV18", "X"]]),
        ("2x A100 80GB NVLink", [["X", "NV12"], ["NV12", "X"]]),
        ("3x V100 NVLink", [["X", "NV3", "NV3"], ["NV3", "X", "NV3"], ["NV3", "NV3", "X"]]),
        ("3x RTX 3090 NVLink", [["X", "NV4", "PHB"], ["NV4", "X", "PHB"], ["PHB", "PHB", "X"]]),
        ("RTX 4090", [["X"]]),
    ],
)
def test_links_are_what_was_written_and_else_over_the_host(text, expected):
    assert matrix(with_gpus(text)) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("2x RTX 4090 NVLink", "has none"),
        ("2x24GiB NVLink", "name the card"),
        ("RTX 3090 NVLink", "at least two"),
        ("NVLink", "no card"),
    ],
)
def test_nvlink_where_there_is_none(text, why):
    with pytest.raises(InvalidRequest, match=why):
        parse_gpus(text)


def test_stand_ins_keep_the_host():
    here, there = detect(), with_gpus("2x24GiB")

    assert there.assumed
    assert len(there.gpus) == 2
    assert there.host_memory_total_mib == here.host_memory_total_mib


@pytest.mark.parametrize("machine", [fake.two_h200(), fake.household(), fake.bridged(), fake.bare()])
def test_a_snapshot_comes_back_as_it_was_and_is_private(tmp_path, machine):
    file = tmp_path / "machine.json"
    found = detect(machine)

    save_snapshot(found, file)

    assert load_snapshot(file) == found
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_a_snapshot_takes_the_place_of_an_older_one_whole(tmp_path):
    file = tmp_path / "machine.json"
    file.write_text("x" * 100_000)
    file.chmod(0o644)

    save_snapshot(with_gpus("2x RTX 3090 NVLink"), file)

    assert matrix(load_snapshot(file)) == [["X", "NV4"], ["NV4", "X"]]
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_snapshot_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    (tmp_path / "machine.json").mkdir()

    with pytest.raises(InvalidRequest, match=r"cannot write .*machine\.json"):
        save_snapshot(detect(fake.bare()), tmp_path / "machine.json")

    assert [file.name for file in tmp_path.iterdir()] == ["machine.json"]


OLD: dict[str, Any] = {
    "gpus": [
        {
            "index": 0,
            "name": "RTX 3090",
            "uuid": None,
            "memory_total_mib": 24576.0,
            "memory_used_mib": 0.0,
            "compute_capability": [8, 6],
        }
    ],
    "driver_version": None,
    "cuda_version": None,
    "host_memory_total_mib": 64000.0,
    "host_memory_available_mib": 60000.0,
    "cores": 16,
    "assumed": True,
    "problem": None,
}


@pytest.mark.parametrize("content", [OLD, {"ok": True, "checks": [], "hardware": OLD}])
def test_old_snapshots_and_what_doctor_prints_still_load(tmp_path, content):
    file = tmp_path / "machine.json"
    file.write_text(json.dumps(content))

    found = load_snapshot(file)

    assert (found.gpus[0].name, found.cores, found.links, found.taken_at) == ("RTX 3090", 16, (), None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"cores": 0}',
        '{"gpus": [{}]}',
        "\x00",
        "[" * 100_000,
        json.dumps({**OLD, "unheard_of": 1}),
        json.dumps({**OLD, "cores": float("inf")}),
        json.dumps({**OLD, "host_memory_total_mib": float("nan")}),
        json.dumps({**OLD, "gpus": OLD["gpus"] * 2}),
        json.dumps({**OLD, "links": [{"a": 0, "b": 1, "code": "PHB"}]}),
        json.dumps({**OLD, "links": [{"a": 1, "b": 0, "code": "PHB"}]}),
        json.dumps({**OLD, "links": [{"a": 0, "b": 1, "code": "WIFI"}]}),
        json.dumps({**OLD, "taken_at": "2026-11-21T10:00:00"}),
    ],
)
def test_a_file_that_is_no_snapshot_is_refused_by_name(tmp_path, text):
    file = tmp_path / "machine.json"
    file.write_text(text)

    with pytest.raises(InvalidRequest, match=r"machine\.json"):
        load_snapshot(file)


def _machine(gpus: int, links: int = 0, **more: Any) -> dict[str, Any]:
    pairs = [{"a": a, "b": b, "code": "PHB"} for b in range(gpus) for a in range(b)]
    return {
        **OLD,
        "gpus": [{**OLD["gpus"][0], "index": index} for index in range(gpus)],
        "links": pairs[:links] if links <= len(pairs) else pairs * 2,
        **more,
    }


def test_a_snapshot_of_as_many_gpus_as_are_planned_with(tmp_path):
    file = tmp_path / "machine.json"
    file.write_text(json.dumps(_machine(64, links=2016)))

    assert len(load_snapshot(file).links) == 2016


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (_machine(2000), "gpus has 2000 entries, and at most 64"),
        (_machine(65), "gpus has 65 entries, and at most 64"),
        (_machine(64, links=5000), "links has 4032 entries, and at most 2016"),
        (_machine(2, links=3), "2 links between GPUs 0 and 1"),
        (
            _machine(1, host={"numa_nodes": [{"index": 0, "cores": "0"}] * 1025}),
            "host.numa_nodes has 1025 entries, and at most 1024",
        ),
        (
            _machine(1, interpreters=[{"python": "p", "architectures": ["sm_90"] * 1025}]),
            "interpreters.0.architectures has 1025 entries",
        ),
        (
            _machine(1, interpreters=[{"python": "p", "tiers": ["t"] * 1025}]),
            "interpreters.0.tiers has 1025 entries",
        ),
        (
            _machine(1, interpreters=[{"python": "p", "devices": [{"index": 0, "name": "n"}] * 65}]),
            "interpreters.0.devices has 65 entries, and at most 64",
        ),
        (_machine(1, interpreters=[{"python": "p"}] * 1025), "interpreters has 1025 entries"),
        (
            {**OLD, "gpus": [{**OLD["gpus"][0], "processes": [{"pid": 1}] * 1025}]},
            "gpus.0.processes has 1025 entries, and at most 1024",
        ),
        ({**OLD, "gpus": [{**OLD["gpus"][0], "mig": [{}] * 65}]}, "gpus.0.mig has 65 entries"),
        ({**OLD, "gpus": [{**OLD["gpus"][0], "unread": ["x"] * 1025}]}, "gpus.0.unread has 1025 entries"),
    ],
)
def test_a_snapshot_of_more_than_any_machine_has_is_refused_with_the_figure(tmp_path, content, why):
    file = tmp_path / "machine.json"
    file.write_text(json.dumps(content))

    with pytest.raises(InvalidRequest) as refused:
        load_snapshot(file)

    assert why in refused.value.message
    assert len(refused.value.message) < 400


def _unbounded(schema: Any, where: str = "") -> list[str]:
    """Return where a JSON schema has a list without a bound."""
    if isinstance(schema, list):
        return [place for item in schema for place in _unbounded(item, where)]
    if not isinstance(schema, dict):
        return []
    here = [where] if schema.get("type") == "array" and "maxItems" not in schema else []
    return here + [place for key, item in schema.items() for place in _unbounded(item, f"{where}.{key}")]


def test_every_list_of_a_snapshot_has_a_bound():
    assert _unbounded({"type": "array"}, "x") == ["x"]
    assert _unbounded(Hardware.model_json_schema()) == []


@pytest.mark.parametrize(
    "reading",
    [
        {"index": 10**30},
        {"pcie_width": 10**400},
        {"pcie_width": -1},
        {"nvlink_version": "new"},
        {"nvlink_version": "4.0\n"},
        {"memory_total_mib": 1e300},
        {"compute_capability": [-1, 0]},
        {"power_draw_w": -1.0},
    ],
)
def test_readings_that_no_card_has_are_refused(tmp_path, reading):
    file = tmp_path / "machine.json"
    file.write_text(json.dumps({**OLD, "gpus": [{**OLD["gpus"][0], **reading}]}))

    with pytest.raises(InvalidRequest, match=f"gpus.0.{next(iter(reading))}"):
        load_snapshot(file)


def test_a_snapshot_of_a_newer_subcortex_is_told_apart_from_a_broken_one(tmp_path):
    file = tmp_path / "machine.json"
    file.write_text(json.dumps({**OLD, "schema_version": 9, "unheard_of": 1}))

    with pytest.raises(InvalidRequest, match="schema 9"):
        load_snapshot(file)


def test_a_snapshot_that_is_not_there(tmp_path):
    with pytest.raises(InvalidRequest, match="No such file"):
        load_snapshot(tmp_path / "none.json")


def test_a_file_without_end_is_refused(tmp_path):
    with pytest.raises(InvalidRequest, match="no regular file"):
        load_snapshot(Path("/dev/zero"))
    huge = tmp_path / "huge.json"
    with huge.open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(InvalidRequest, match="more than"):
        load_snapshot(huge)


def test_a_bare_host_needs_three_libraries_to_print_a_snapshot(tmp_path):
    script = (
        "import runpy, sys; runpy.run_module('subcortex.hardware', run_name='__main__'); "
        "print(*{name.partition('.')[0] for name, module in sys.modules.items() "
        "if 'site-packages' in str(getattr(module, '__file__', ''))}, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    file = tmp_path / "machine.json"
    file.write_text(done.stdout)

    assert load_snapshot(file).cores == len(os.sched_getaffinity(0))
    pydantics_own = {"pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"}
    assert {name for name in done.stderr.split() if name[0] != "_"} - pydantics_own == {
        "pydantic",
        "psutil",
        "pynvml",
    }


def test_unknown_readings_survive_the_trip():
    found = detect(fake.bare())

    assert Hardware.model_validate_json(found.model_dump_json()).gpus[0].power_draw_w is None
