"""Engines whose daemon was killed: the next one has them, or nobody has and nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.config import parse
from subcortex.engines import _processes, _remains, create, reap_leftovers
from subcortex.engines._local import LocalEngine
from tests.conftest import gone, wait_for
from tests.engines.keeping import Daemon, family, left, write_config


@pytest.fixture
def place(folder: Path) -> Iterator[Path]:
    """A folder for one daemon after the other; what names it is killed in the end."""
    yield folder
    for pid in left(folder):
        os.kill(pid, signal.SIGKILL)


def engine_folder(place: Path) -> Path:
    return place / "run" / "engines" / "fast"


def keeper_of(place: Path) -> int:
    record = _remains.read(engine_folder(place))
    assert record is not None
    assert record.keeper is not None
    return record.keeper.pid


def kill_keeper(place: Path) -> None:
    keeper = keeper_of(place)
    os.kill(keeper, signal.SIGKILL)
    wait_for(lambda: gone(keeper))


def nothing_is_left(place: Path) -> bool:
    return left(place) == [] and list(engine_folder(place).iterdir()) == []


def test_the_next_daemon_has_the_same_engine_and_the_one_after_too(place: Path) -> None:
    config = write_config(place)
    first = Daemon(config)
    assert not first.adopted
    workers, shared = family(place)
    keeper = keeper_of(place)
    first.kill()
    second = Daemon(config)
    second.kill()
    third = Daemon(config)
    for daemon in (second, third):
        assert daemon.adopted
        assert (daemon.pid, daemon.version) == (first.pid, "llama.cpp b7")
    assert keeper_of(place) == keeper
    # What it printed to each of its owners is there, in its order and once; each one asked for its health.
    expected = ["family", *["asked"] * 4]
    wait_for(lambda: [line.split()[0] for line in third.told("tail").splitlines()] == expected)
    assert not any(map(gone, [first.pid, *workers]))
    third.told("stop")
    assert all(map(gone, [first.pid, keeper, *workers]))
    assert not shared.exists()
    third.kill()
    assert nothing_is_left(place)


def test_an_adopted_engine_that_dies_is_told_of_with_the_reason(place: Path) -> None:
    config = write_config(place)
    first = Daemon(config)
    first.kill()
    second = Daemon(config)
    assert second.adopted
    os.kill(second.pid, signal.SIGKILL)
    assert second.told("exited").startswith("was killed by SIGKILL")
    workers, _ = family(place)
    assert not any(map(gone, workers)), "workers outlive the main process"
    second.told("stop")
    second.kill()
    assert nothing_is_left(place)


@pytest.mark.parametrize("adopt_s", [0.0, 0.3])
def test_without_a_next_daemon_all_of_it_goes(place: Path, adopt_s: float) -> None:
    first = Daemon(write_config(place, adopt_s=adopt_s, tier='env = { STUBBORN = "1" }'))
    workers, shared = family(place)
    assert shared.exists()
    first.kill()
    wait_for(lambda: nothing_is_left(place))
    assert all(map(gone, [first.pid, *workers]))
    assert not shared.exists()


def test_an_engine_that_stands_still_goes_too(place: Path) -> None:
    first = Daemon(write_config(place, adopt_s=0.3))
    os.kill(first.pid, signal.SIGSTOP)
    first.kill()
    wait_for(lambda: nothing_is_left(place))


def test_stopping_an_engine_that_stands_still_ends_it(place: Path) -> None:
    only = Daemon(write_config(place, tier='env = { STUBBORN = "1" }'))
    os.kill(only.pid, signal.SIGSTOP)
    only.told("stop")
    only.kill()
    assert nothing_is_left(place)


def test_an_engine_that_dies_without_an_owner_takes_its_workers_along(place: Path) -> None:
    first = Daemon(write_config(place, adopt_s=600))
    first.kill()
    os.kill(first.pid, signal.SIGKILL)
    wait_for(lambda: nothing_is_left(place))


def test_a_command_that_has_changed_is_not_what_runs(place: Path) -> None:
    first = Daemon(write_config(place))
    workers, _ = family(place)
    first.kill()
    second = Daemon(write_config(place, tier="threads = 1"))
    assert not second.adopted
    assert second.pid != first.pid
    assert all(map(gone, [first.pid, *workers]))
    second.told("stop")
    second.kill()
    assert nothing_is_left(place)


def test_a_killed_keeper_ends_the_engine_and_the_daemon_hears_of_it(place: Path) -> None:
    only = Daemon(write_config(place))
    kill_keeper(place)
    assert only.told("exited") in ("lost its keeper", "ended")
    wait_for(lambda: gone(only.pid))
    only.told("stop")
    only.kill()
    assert nothing_is_left(place)


def test_when_keeper_and_daemon_are_killed_the_next_one_clears_up(place: Path) -> None:
    config = write_config(place, tier='env = { STUBBORN = "1" }')
    first = Daemon(config)
    kill_keeper(place)
    first.kill()
    assert not gone(first.pid)
    workers, shared = family(place)
    second = Daemon(config)
    assert not second.adopted
    assert all(map(gone, [first.pid, *workers]))
    assert not shared.exists()
    second.told("stop")
    second.kill()
    assert nothing_is_left(place)


def test_a_keeper_that_stands_still_holds_no_stop_up(place: Path) -> None:
    only = Daemon(write_config(place))
    os.kill(keeper_of(place), signal.SIGSTOP)
    only.told("stop")
    only.kill()
    assert nothing_is_left(place)


def test_a_vllm_that_sleeps_is_not_adopted(place: Path) -> None:
    tier = "sleep_mode = true\n"
    awake = write_config(place, engine="vllm", tier=tier)
    first = Daemon(awake)
    first.kill()
    second = Daemon(awake)
    assert second.adopted
    second.told("stop")
    second.kill()
    asleep = write_config(place, engine="vllm", tier=tier + 'env = { SLEEPS = "1" }')
    third = Daemon(asleep)
    third.kill()
    fourth = Daemon(asleep)
    assert not fourth.adopted
    assert gone(third.pid)
    fourth.told("stop")
    fourth.kill()
    assert nothing_is_left(place)


def test_an_engine_that_was_not_ready_is_not_adopted(place: Path) -> None:
    config = write_config(place)
    first = Daemon(config)
    record = _remains.read(engine_folder(place))
    assert record is not None
    _remains.write(engine_folder(place), record._replace(ready=False))
    first.kill()
    second = Daemon(config)
    assert not second.adopted
    assert gone(first.pid)
    second.told("stop")
    second.kill()
    assert nothing_is_left(place)


def test_a_path_too_long_for_sockets_is_no_hindrance(place: Path) -> None:
    deep = place / ("d" * 100)
    deep.mkdir()
    config = write_config(deep, adopt_s=60.0)
    first = Daemon(config)
    record = _remains.read(engine_folder(deep))
    assert record is not None
    assert len(record.socket) < 50
    first.kill()
    second = Daemon(config)
    assert (second.adopted, second.pid) == (True, first.pid)
    second.kill()
    # Another configuration does not know the socket's place; the record does.
    reap_leftovers(deep / "run")
    assert nothing_is_left(deep)
    assert not Path(record.socket).parent.exists()


def test_a_daemon_leaves_to_its_tiers_what_they_may_adopt_and_ends_the_rest(place: Path) -> None:
    first = Daemon(write_config(place))
    first.kill()
    assert reap_leftovers(place / "run", keep=["fast", "deep"]) == []
    assert not gone(first.pid)
    os.kill(keeper_of(place), signal.SIGSTOP)
    (done,) = reap_leftovers(place / "run", keep=["deep"])
    # Itself, its two workers, and what Python has beside shared memory.
    assert done == f"fast: ended 4 processes of a former daemon (engine {first.pid})"
    assert nothing_is_left(place)


def test_what_cannot_be_adopted_is_ended_though_its_tier_is_there(place: Path) -> None:
    first = Daemon(write_config(place))
    kill_keeper(place)
    first.kill()
    (done,) = reap_leftovers(place / "run", keep=["fast"])
    assert done.startswith("fast: ended ")
    assert nothing_is_left(place)


def test_output_without_an_owner_is_bounded_and_never_blocks(place: Path) -> None:
    config = write_config(place)
    first = Daemon(config)
    first.kill()
    log = place / "logs" / "fast.log"
    before = log.stat().st_size
    with Path(f"/proc/{first.pid}/fd/1").open("wb") as output:
        output.write(b"x" * 4_000_000)  # returns only if somebody reads
    second = Daemon(config)
    assert second.adopted
    assert before + 900_000 < log.stat().st_size < before + 1_100_000
    second.told("stop")
    second.kill()


def test_a_keeper_weighs_little_more_than_an_interpreter(place: Path) -> None:
    only = Daemon(write_config(place))
    code = "import time; print('up', flush=True); time.sleep(600)"
    bare = subprocess.Popen([sys.executable, "-I", "-S", "-c", code], stdout=subprocess.PIPE)
    assert bare.stdout is not None
    bare.stdout.readline()
    more = psutil.Process(keeper_of(place)).memory_info().rss - psutil.Process(bare.pid).memory_info().rss
    bare.kill()
    bare.communicate()
    assert more < 2.5 * 2**20
    only.told("stop")
    only.kill()


def digest(**tier: object) -> str:
    config = parse({"tiers": [{"name": "fast", "engine": "llama.cpp", "model": "/m.gguf", **tier}]})
    engine = create(config.tiers[0], config=config)
    assert isinstance(engine, LocalEngine)
    return engine._digest(Path("/run/engine.sock"))


def test_the_digest_is_of_what_the_config_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = digest(env={"A": "1", "B": "2"}, gpus=[0])
    monkeypatch.setenv("INHERITED", "yes")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert digest(env={"B": "2", "A": "1"}, gpus=[0]) == asked
    others = [
        digest(env={"A": "1"}, gpus=[0]),
        digest(env={"A": "1", "B": "2"}, gpus=[1]),
        digest(env={"A": "1", "B": "2"}),
        digest(env={"A": "1", "B": "2"}, gpus=[0], parallel=5),
    ]
    assert len({asked, *others}) == 5


identities = st.none() | st.builds(_processes.Identity, st.integers(1, 2**22), st.integers(0, 2**60))
records = st.builds(
    _remains.Record,
    st.text(min_size=1),
    identities,
    identities,
    st.text(),
    st.text(),
    st.none() | st.text(),
    st.booleans(),
    st.lists(st.text()).map(tuple),
)


@given(records)
def test_a_record_is_read_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, record) -> None:
    folder = tmp_path_factory.getbasetemp()
    _remains.write(folder, record)
    assert _remains.read(folder) == record


json_values: Callable[[st.SearchStrategy[object]], st.SearchStrategy[object]] = lambda inner: (  # noqa: E731
    st.lists(inner) | st.dictionaries(st.sampled_from(_remains.Record._fields), inner)
)
anything = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), json_values)


@given(st.binary() | anything.map(lambda value: json.dumps(value).encode()))
def test_no_record_is_more_than_unreadable(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / _remains.FILE).write_bytes(raw)
    with pytest.raises(ValueError):
        _remains.read(folder)
    assert not _remains.adoptable(folder)


def test_a_socket_on_record_costs_no_folder_of_others(tmp_path: Path) -> None:
    precious = tmp_path / "subcortex-precious"
    precious.mkdir()
    (precious / "engine.sock").write_text("not a socket")
    _remains.remove(tmp_path / "run", _remains.Record("m", socket=str(precious / "engine.sock")))
    assert (precious / "engine.sock").exists()
