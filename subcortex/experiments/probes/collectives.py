"""Times collective operations between processes: one a GPU over NCCL, or several on a CPU over gloo.

By hand: ``~/vllm/bin/python collectives.py --device cpu --sizes 16384,1048576 --blocks 2``.
Needs torch alone.

Every arm has ranks of its own, which differ in their environment; all are started at once, and the arms take
turns (A B B A in each block). A line of JSON a sample: ``metric`` (the operation), ``value``, ``unit`` (µs a
call, of the slowest rank), ``arm``, ``block``, ``bytes``, ``ranks``, ``how`` (``eager``: called one by one
from Python; ``graph``: replayed from a CUDA graph, as engines do). Sizes are those of nccl-tests: of the
whole vector, which an all-gather gathers and a reduce-scatter scatters. Other lines are ``check`` (results
compared with what must come out), ``block_done`` and ``problem`` (an arm that broke; the others go on).
"""

import argparse
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

OPERATIONS = ("all_reduce", "all_gather", "reduce_scatter", "broadcast")
#: What an arm adds to its ranks' environment.
ARMS = {"as_found": {}, "no_peer": {"NCCL_P2P_DISABLE": "1"}}
_ELEMENT_BYTES = 4
#: Values stay small whole numbers, so that their sums are exact.
_PATTERN = 13
_GRAPH_MOST_BYTES = 2**20
_RENAMED = (
    ("_gather", "all_gather_single", "all_gather_into_tensor"),
    ("_scatter", "reduce_scatter_single", "reduce_scatter_tensor"),
)
_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Have the kernel end this process once whoever started it is gone."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def forget_own_folder() -> None:
    """Let no file beside this one stand in for a module that torch imports."""
    here = Path(__file__).resolve().parent
    sys.path[:] = [place for place in sys.path if Path(place or ".").resolve() != here]


def answers() -> Callable[[dict[str, Any]], None]:
    """Return what writes a line of JSON to stdout; whatever libraries print there goes to stderr."""
    stdout = os.dup(1)
    os.set_inheritable(stdout, False)
    os.dup2(2, 1)
    return lambda facts: _write(stdout, json.dumps(facts).encode() + b"\n")


def _write(stream: int, text: bytes) -> None:
    while text:
        text = text[os.write(stream, text) :]


# One rank.


class Operation:
    """One collective on buffers of one size.

    Args:
        count: Elements of the whole vector, a multiple of the number of ranks.
    """

    _gather: Callable[[Any, Any], Any]
    _scatter: Callable[[Any, Any], Any]

    def __init__(self, name: str, count: int, rank: int, ranks: int, device: Any) -> None:
        self._torch, self._dist = import_module("torch"), import_module("torch.distributed")
        self._name, self._count, self._rank, self._ranks, self._device = name, count, rank, ranks, device
        # Renamed in torch 2.13.
        for ours, new, old in _RENAMED:
            setattr(self, ours, getattr(self._dist, new, None) or getattr(self._dist, old))
        part = count // ranks
        self._given = self._pattern(rank, part if name == "all_gather" else count)
        if name in ("all_gather", "reduce_scatter"):
            length = count if name == "all_gather" else part
            self._got = self._torch.full((length,), -1.0, dtype=self._torch.float32, device=device)
        else:
            self._got = self._given

    def _pattern(self, rank: int, length: int, start: int = 0) -> Any:
        counted = self._torch.arange(start, start + length, dtype=self._torch.int32, device=self._device)
        return (counted % _PATTERN + rank).to(self._torch.float32)

    def call(self) -> None:
        """Do it once; on a GPU, put it in line."""
        if self._name == "all_reduce":
            self._dist.all_reduce(self._given)
        elif self._name == "all_gather":
            self._gather(self._got, self._given)
        elif self._name == "reduce_scatter":
            self._scatter(self._got, self._given)
        else:
            self._dist.broadcast(self._given, src=0)

    def wrong(self) -> int:
        """Return how many elements are not what must come out of the first call."""
        torch, part = self._torch, self._count // self._ranks
        if self._name == "all_gather":
            expected = torch.cat([self._pattern(rank, part) for rank in range(self._ranks)])
        elif self._name == "broadcast":
            expected = self._pattern(0, self._count)
        else:
            start, length = (self._rank * part, part) if self._name == "reduce_scatter" else (0, self._count)
            every = sum(range(self._ranks))
            expected = self._pattern(0, length, start) * self._ranks + every
        return int((self._got != expected).sum().item())


def rank_main(args: argparse.Namespace) -> None:
    """Join the others, then do what each line on stdin says, until there is none."""
    answer = answers()
    torch, dist = import_module("torch"), import_module("torch.distributed")
    cuda = args.device == "cuda"
    device = torch.device("cuda", args.rank) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(1)
    dist.init_process_group(
        "nccl" if cuda else "gloo",
        init_method=f"file://{args.meet}",
        rank=args.rank,
        world_size=args.ranks,
        timeout=timedelta(seconds=args.limit_s),
    )
    answer({"ready": True})
    # An iterator over stdin would read ahead.
    while line := sys.stdin.readline():
        order = json.loads(line)
        try:
            answer(_done(torch, order, args, device))
        except Exception as error:
            answer({"problem": f"{type(error).__name__}: {error}"[:1000]})
    dist.destroy_process_group()


def _done(torch: Any, order: dict[str, Any], args: argparse.Namespace, device: Any) -> dict[str, Any]:
    count = order["bytes"] // _ELEMENT_BYTES // args.ranks * args.ranks
    operation = Operation(order["op"], count, args.rank, args.ranks, device)
    operation.call()
    found: dict[str, Any] = {"elements": count}
    if order["check"]:
        found["wrong"] = operation.wrong()
    timed = _timed_on_gpu if device.type == "cuda" else _timed_on_host
    if order["how"] == "graph":
        timed = _timed_in_graph
    found["times_us"] = timed(torch, operation.call, order["iterations"], order["repeats"])
    return found


def _timed_on_host(torch: Any, call: Callable[[], None], iterations: int, repeats: int) -> list[float]:
    times = []
    for _ in range(repeats):
        # One that does not count brings the ranks together.
        call()
        began_s = time.perf_counter()
        for _ in range(iterations):
            call()
        times.append((time.perf_counter() - began_s) * 1e6 / iterations)
    return times


def _timed_on_gpu(torch: Any, call: Callable[[], None], iterations: int, repeats: int) -> list[float]:
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        call()
        start.record()
        for _ in range(iterations):
            call()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) * 1e3 / iterations)
    return times


def _timed_in_graph(torch: Any, call: Callable[[], None], iterations: int, repeats: int) -> list[float]:
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(iterations):
            call()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        graph.replay()
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) * 1e3 / iterations)
    del graph
    torch.cuda.synchronize()
    return times


# The parent of all ranks.


class Broken(Exception):
    """An arm whose ranks cannot go on."""


class World:
    """The ranks of one arm."""

    def __init__(self, arm: str, args: argparse.Namespace, folder: str) -> None:
        self.arm = arm
        env = {**os.environ, **ARMS[arm]}
        # The ranks are on one machine, whose own name need not lead anywhere.
        env.setdefault("GLOO_SOCKET_IFNAME", "lo")
        self._ranks = [
            subprocess.Popen(
                [
                    *(sys.executable, str(Path(__file__).resolve()), "--rank", str(rank)),
                    *("--meet", str(Path(folder) / arm), "--device", args.device),
                    *("--ranks", str(args.ranks), "--limit-s", str(args.limit_s)),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=env,
            )
            for rank in range(args.ranks)
        ]

    def ready(self) -> None:
        """Wait until all ranks have met.

        Raises:
            Broken: One has ended.
        """
        self._read()

    def ask(self, **order: Any) -> list[dict[str, Any]]:
        """Have all ranks do something; return their answers.

        Raises:
            Broken: One has ended, or could not.
        """
        line = json.dumps(order).encode() + b"\n"
        for rank in self._ranks:
            assert rank.stdin is not None
            try:
                rank.stdin.write(line)
                rank.stdin.flush()
            except BrokenPipeError:
                raise Broken("a rank has ended") from None
        return self._read()

    def _read(self) -> list[dict[str, Any]]:
        found = []
        for number, rank in enumerate(self._ranks):
            assert rank.stdout is not None
            line = rank.stdout.readline()
            if not line:
                raise Broken(f"rank {number} ended with code {rank.wait()}")
            found.append(json.loads(line))
        for one in found:
            if "problem" in one:
                raise Broken(one["problem"])
        return found

    def end(self, *, at_once: bool = False) -> None:
        """Let the ranks go, or kill them."""
        for rank in self._ranks:
            if at_once:
                rank.kill()
            with suppress(OSError):
                assert rank.stdin is not None
                rank.stdin.close()
        for rank in self._ranks:
            try:
                rank.wait(timeout=20)
            except subprocess.TimeoutExpired:
                rank.kill()
                rank.wait()


def iterations_for(size: int, device: str) -> int:
    """Return how many calls one sample is the mean of: more where one is short."""
    if device == "cuda":
        return max(5, min(50, 2**25 // size))
    return max(1, min(20, 2**20 // size))


def parent_main(args: argparse.Namespace) -> int:
    """Start every arm's ranks and have them take turns; return the exit code."""
    answer = answers()
    began_s = time.monotonic()
    worlds: list[World] = []
    done = 0
    with tempfile.TemporaryDirectory() as folder:
        try:
            worlds += [World(arm, args, folder) for arm in args.arms]
            worlds = [one for one in list(worlds) if _went(one, answer, one.ready)]
            longest_s = 0.0
            for how, block in _blocks(args):
                block_s = time.monotonic()
                if not worlds or block_s - began_s + longest_s > args.seconds:
                    break
                worlds = _block(worlds, how, block, args, answer)
                longest_s = max(longest_s, time.monotonic() - block_s)
                done += bool(worlds)
                answer({"block_done": block, "how": how, "arms": [one.arm for one in worlds]})
            for one in worlds:
                one.end()
        finally:
            for one in worlds:
                one.end(at_once=True)
    return 0 if done else 1


def _blocks(args: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """Yield what to measure, graphs last: a process that fails to capture one may be of no more use."""
    for how in ("eager", "graph") if args.device == "cuda" and args.graphs else ("eager",):
        for block in range(args.first_block, args.first_block + args.blocks):
            yield how, block


def _block(
    worlds: list[World],
    how: str,
    block: int,
    args: argparse.Namespace,
    answer: Callable[[dict[str, Any]], None],
) -> list[World]:
    """Measure one block; return the arms that are still there."""
    forwards = worlds if block % 2 == 0 else worlds[::-1]
    # A B B A; a single arm has nobody to take turns with.
    visits = forwards + forwards[::-1] if len(worlds) > 1 else forwards
    broken: list[World] = []
    checked: set[str] = set()
    for world in visits:
        if world in broken:
            continue
        check = how == "eager" and block == args.first_block and world.arm not in checked
        checked.add(world.arm)
        visit = partial(_visit, world, how, block, check, args, answer)
        if not _went(world, answer, visit):
            broken.append(world)
    return [world for world in worlds if world not in broken]


def _visit(
    world: World,
    how: str,
    block: int,
    check: bool,
    args: argparse.Namespace,
    answer: Callable[[dict[str, Any]], None],
) -> None:
    for operation, size in _measurements(how, args):
        found = world.ask(
            op=operation,
            bytes=size,
            how=how,
            iterations=iterations_for(size, args.device),
            repeats=args.repeats,
            check=check,
        )
        facts = {"arm": world.arm, "block": block, "bytes": size, "ranks": args.ranks, "how": how}
        wrong = [one["wrong"] for one in found if "wrong" in one]
        if wrong:
            answer({"check": operation, "wrong": sum(wrong), "elements": found[0]["elements"], **facts})
        for times in zip(*(one["times_us"] for one in found), strict=True):
            answer({"metric": operation, "value": max(times), "unit": "µs", **facts})


def _measurements(how: str, args: argparse.Namespace) -> Iterator[tuple[str, int]]:
    for operation in args.operations:
        for size in args.sizes:
            # A graph takes away what calling costs, which only short ones notice.
            if how == "eager" or (operation == "all_reduce" and size <= _GRAPH_MOST_BYTES):
                yield operation, size


def _went(world: World, answer: Callable[[dict[str, Any]], None], what: Callable[[], None]) -> bool:
    """Do something with an arm; one that breaks is ended, and said to have."""
    try:
        what()
    except Broken as error:
        answer({"problem": str(error), "arm": world.arm})
        world.end(at_once=True)
        return False
    return True


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = ",".join(str(16 * 1024 * 4**power) for power in range(7))
    split: Callable[[str], list[str]] = lambda text: text.split(",")  # noqa: E731
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--ranks", type=int, default=2, help="processes; on GPUs one each")
    parser.add_argument("--arms", type=split, default=["as_found"], help=f"of {','.join(ARMS)}")
    parser.add_argument("--operations", type=split, default=list(OPERATIONS))
    parser.add_argument("--sizes", type=lambda text: [int(one) for one in text.split(",")], default=sizes)
    parser.add_argument("--first-block", type=int, default=0)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=1, help="samples of each kind a visit")
    parser.add_argument("--seconds", type=float, default=600.0, help="begin no block that would end later")
    parser.add_argument("--no-graphs", dest="graphs", action="store_false", help="no CUDA graphs")
    parser.add_argument("--limit-s", type=float, default=120.0, help="longest wait of one rank for another")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--meet", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.ranks < 2:
        parser.error("a collective needs two ranks")
    if unknown := {*args.arms} - {*ARMS} or {*args.operations} - {*OPERATIONS}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    if any(size < _ELEMENT_BYTES * args.ranks for size in args.sizes):
        parser.error(f"a size below {_ELEMENT_BYTES * args.ranks} bytes")
    return args


def main() -> int:
    """Run as one rank, or as the parent of all; return the exit code."""
    end_with_parent()
    forget_own_folder()
    args = _arguments()
    if args.rank is None:
        return parent_main(args)
    rank_main(args)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
