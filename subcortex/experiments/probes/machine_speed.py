"""Measures matrix products, memory, and the ways between host and GPUs. JSON lines.

By hand: ``~/vllm/bin/python machine_speed.py --device cuda``, or ``--device cpu --scale small``.
Needs torch alone.

Data are random: products of zeros draw less power and run faster. Each sample is the mean of as many runs as
fill some milliseconds, timed by the device's own events where one device works, else by the host's clock with
all devices waited for. A line a sample: ``metric``, ``value``, ``unit``, ``block``, and

- ``gemm`` (TFLOP/s, 2n³ a product of two n × n matrices): ``dtype``, ``n``, ``device``;
- ``memory copy`` (GB/s of one device's memory, bytes read and bytes written both counted) and ``memory read``
  (GB/s of a sum over all): ``bytes``, ``device``;
- ``host to device``, ``device to host`` (GB/s): ``pinned``, ``bytes``, ``device``;
- ``peer`` (GB/s of one direction): ``pair`` (``0-1``: from GPU 0 to GPU 1), ``peer_access``, ``bytes``;
  ``peer both ways`` (GB/s of both directions together): ``pair``.

GB are 10^9 bytes. A line ``device`` says what was measured, a line ``note`` what could not be.
"""

import argparse
import ctypes
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
#: A sample takes at least this long, so that starting and stopping the clock does not count.
_SAMPLE_S = {"cuda": 0.02, "cpu": 0.05}
_CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")
_WHAT = ("gemm", "memory", "host", "peer")
#: Matrix sizes by scale and dtype.
_GEMM: dict[tuple[str, str], dict[str, tuple[int, ...]]] = {
    ("cuda", "full"): {
        "float32": (2048, 8192),
        "float16": (2048, 4096, 8192, 16384),
        "bfloat16": (1024, 2048, 4096, 8192, 16384),
        "float8": (2048, 4096, 8192, 16384),
    },
    ("cuda", "small"): {"float32": (1024,), "bfloat16": (1024, 2048)},
    ("cpu", "full"): {"float32": (512, 1024, 2048), "bfloat16": (512, 1024, 2048)},
    ("cpu", "small"): {"float32": (256, 512, 1024), "bfloat16": (256,)},
}
_COPY_BYTES = {
    ("cuda", "full"): 2**31,
    ("cuda", "small"): 2**28,
    ("cpu", "full"): 2**29,
    ("cpu", "small"): 2**27,
}
_TRANSFER_BYTES = {"full": 2**28, "small": 2**26}

Answer = Callable[[dict[str, Any]], None]
Timed = Callable[[Callable[[], Any], int], float]


def end_with_parent() -> None:
    """Have the kernel end this process once whoever started it is gone."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def forget_own_folder() -> None:
    """Let no file beside this one stand in for a module that torch imports."""
    here = Path(__file__).resolve().parent
    sys.path[:] = [place for place in sys.path if Path(place or ".").resolve() != here]


def answers() -> Answer:
    """Return what writes a line of JSON to stdout; whatever libraries print there goes to stderr."""
    stdout = os.dup(1)
    os.set_inheritable(stdout, False)
    os.dup2(2, 1)
    return lambda facts: _write(stdout, json.dumps(facts).encode() + b"\n")


def _write(stream: int, text: bytes) -> None:
    while text:
        text = text[os.write(stream, text) :]


class Bench:
    """Times work and tells the samples.

    Args:
        torch: The module.
        args: Of the command line.
        answer: Where samples go.
    """

    def __init__(self, torch: Any, args: argparse.Namespace, answer: Answer) -> None:
        self.torch, self.args, self.answer = torch, args, answer
        self.kind: str = args.device
        self.devices = (
            [torch.device("cuda", index) for index in range(min(args.gpus, torch.cuda.device_count()))]
            if self.kind == "cuda"
            else [torch.device("cpu")]
        )

    def by_events(self, device: Any) -> Timed:
        """Return what times work on one device: seconds of so many runs."""
        torch = self.torch
        if self.kind == "cpu":
            return self.by_host_clock()

        def timed(work: Callable[[], Any], runs: int) -> float:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(runs):
                work()
            end.record()
            end.synchronize()
            return float(start.elapsed_time(end)) / 1e3

        return timed

    def by_host_clock(self) -> Timed:
        """Return what times work on several devices, all of them waited for."""

        def timed(work: Callable[[], Any], runs: int) -> float:
            self.wait()
            began_s = time.perf_counter()
            for _ in range(runs):
                work()
            self.wait()
            return time.perf_counter() - began_s

        return timed

    def wait(self) -> None:
        """Wait for all devices."""
        for device in self.devices:
            if device.type == "cuda":
                self.torch.cuda.synchronize(device)

    def tell(
        self, metric: str, unit: str, amount: float, work: Callable[[], Any], timed: Timed, **facts: Any
    ) -> None:
        """Warm up, then tell the samples, each a rate: ``amount`` is FLOP or bytes of one run."""
        scale = 1e12 if unit == "TFLOP/s" else 1e9
        timed(work, 1)
        once_s = max(min(timed(work, 1) for _ in range(3)), 1e-7)
        runs = max(1, min(1000, round(_SAMPLE_S[self.kind] / once_s)))
        timed(work, runs)
        for block in range(self.args.repeats):
            rate = amount * runs / timed(work, runs) / scale
            self.answer(
                {"metric": metric, "value": rate, "unit": unit, "block": block, "runs": runs, **facts}
            )

    def note(self, text: str) -> None:
        """Tell what could not be measured."""
        self.answer({"note": text[:500]})


# Matrix products.


def gemm(bench: Bench, device: Any) -> None:
    """Time products of square matrices."""
    sizes = _GEMM[bench.kind, bench.args.scale]
    if device.index:
        # One size tells whether the others are as fast as the first.
        sizes = {"bfloat16": sizes["bfloat16"][-2:-1]}
    for dtype, lengths in sizes.items():
        try:
            for length in lengths:
                _product(bench, device, dtype, length)
        except Exception as error:
            bench.note(f"no products in {dtype}: {type(error).__name__}: {error}")


def _product(bench: Bench, device: Any, dtype: str, length: int) -> None:
    torch = bench.torch
    random = torch.Generator(device=device).manual_seed(length)
    made = torch.bfloat16 if dtype == "float8" else getattr(torch, dtype)
    a, b = (torch.randn(length, length, device=device, generator=random).to(made) for _ in range(2))
    if dtype == "float8":
        work = _scaled(torch, a, b, device)
    else:
        out = torch.empty(length, length, dtype=made, device=device)

        def work() -> Any:
            return torch.matmul(a, b, out=out)

    # Consumed: a product that nobody looks at might as well not have been made.
    trace = float(work().diagonal().float().sum().item())
    if trace != trace or trace == 0.0:
        raise ArithmeticError(f"the trace of a product is {trace}")
    flop = 2.0 * length**3
    facts = {"dtype": dtype, "n": length, "device": device.index or 0, "trace": trace}
    bench.tell("gemm", "TFLOP/s", flop, work, bench.by_events(device), **facts)


def _scaled(torch: Any, a: Any, b: Any, device: Any) -> Callable[[], Any]:
    """Return a product in 8-bit floats, which summing in bfloat16 makes of use to engines."""
    one = torch.ones((), dtype=torch.float32, device=device)
    left = a.to(torch.float8_e4m3fn)
    # Its second factor is taken column by column.
    right = b.to(torch.float8_e4m3fn).t().contiguous().t()
    return lambda: torch._scaled_mm(left, right, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)


# One device's memory.


def memory(bench: Bench, device: Any) -> None:
    """Time a copy within memory and a sum over it, of sizes that no cache holds."""
    torch = bench.torch
    size = _COPY_BYTES[bench.kind, bench.args.scale]
    if bench.kind == "cpu":
        size = max(size, min(4 * cache_bytes(), 2**30))
    else:
        size = min(size, int(torch.cuda.mem_get_info(device)[0]) // 4 // 4096 * 4096)
    source = torch.rand(size // 4, device=device)
    target = torch.empty_like(source)
    timed = bench.by_events(device)
    facts = {"bytes": size, "device": device.index or 0}
    bench.tell("memory copy", "GB/s", 2.0 * size, lambda: target.copy_(source), timed, **facts)
    if not torch.equal(target[-1024:], source[-1024:]):
        raise ArithmeticError("a copy within memory came out wrong")
    total = torch.zeros((), device=device)

    def read() -> Any:
        return torch.sum(source, dim=0, out=total)

    bench.tell("memory read", "GB/s", float(size), read, timed, **facts)
    mean = float(total.item()) / (size // 4)
    if not 0.4 < mean < 0.6:
        bench.note(f"the mean of random numbers in [0, 1) read from memory is {mean:g}")


def cache_bytes() -> int:
    """Return the size of the host's last cache; 0 where the kernel does not tell."""
    with suppress(OSError):
        found = re.fullmatch(r"(\d+)([KMG]?)", _CACHE.read_text().strip())
        if found:
            return int(found[1]) * {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}[found[2]]
    return 0


# Host and device.


def host(bench: Bench, device: Any) -> None:
    """Time transfers between host and one GPU, from pinned and from pageable memory."""
    torch = bench.torch
    size = _TRANSFER_BYTES[bench.args.scale]
    there = torch.randint(0, 256, (size,), dtype=torch.uint8, device=device)
    timed = bench.by_host_clock()
    for pinned in (True, False):
        here = torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
        here.copy_(there)
        facts = {"pinned": pinned, "bytes": size, "device": device.index or 0}

        def up(here: Any = here) -> Any:
            return there.copy_(here, non_blocking=True)

        def down(here: Any = here) -> Any:
            return here.copy_(there, non_blocking=True)

        bench.tell("host to device", "GB/s", float(size), up, timed, **facts)
        bench.tell("device to host", "GB/s", float(size), down, timed, **facts)
        bench.wait()
        if not torch.equal(here, there.cpu()):
            bench.note(f"what came back from GPU {device.index} is not what was sent")


# Between devices.


def peers(bench: Bench) -> None:
    """Time copies between every two GPUs, one way and both ways at once."""
    torch = bench.torch
    size = _TRANSFER_BYTES[bench.args.scale]
    timed = bench.by_host_clock()
    for a, b in permutations(range(len(bench.devices)), 2):
        source = torch.randint(0, 256, (size,), dtype=torch.uint8, device=bench.devices[a])
        target = torch.zeros(size, dtype=torch.uint8, device=bench.devices[b])
        facts = {"pair": f"{a}-{b}", "bytes": size}
        facts["peer_access"] = bool(torch.cuda.can_device_access_peer(a, b))

        def work(source: Any = source, target: Any = target) -> Any:
            return target.copy_(source, non_blocking=True)

        bench.tell("peer", "GB/s", float(size), work, timed, **facts)
        if not torch.equal(target.cpu(), source.cpu()):
            bench.note(f"what GPU {b} has is not what GPU {a} sent")
    for a, b in combinations(range(len(bench.devices)), 2):
        both = BothWays(bench, a, b, size)
        bench.tell("peer both ways", "GB/s", 2.0 * size, both, timed, pair=f"{a}-{b}", bytes=size)


class BothWays:
    """A copy each way at once: each on streams of its own, or torch would have one wait for the other."""

    def __init__(self, bench: Bench, a: int, b: int, size: int) -> None:
        torch = self._torch = bench.torch
        devices = (bench.devices[a], bench.devices[b])
        self._ways = []
        for source, target in (devices, devices[::-1]):
            given = torch.randint(0, 256, (size,), dtype=torch.uint8, device=source)
            got = torch.zeros(size, dtype=torch.uint8, device=target)
            streams = (torch.cuda.Stream(device=source), torch.cuda.Stream(device=target))
            self._ways.append((given, got, streams))
        bench.wait()

    def __call__(self) -> None:
        """Put a copy each way in line."""
        for given, got, (first, second) in self._ways:
            with self._torch.cuda.stream(first), self._torch.cuda.stream(second):
                got.copy_(given, non_blocking=True)


def _devices(bench: Bench) -> Iterator[dict[str, Any]]:
    torch = bench.torch
    facts = {"torch": str(torch.__version__), "cuda": torch.version.cuda, "threads": torch.get_num_threads()}
    for number, device in enumerate(bench.devices):
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        uuid = str(getattr(torch.cuda.get_device_properties(device), "uuid", "")) if name != "cpu" else ""
        yield {"device": number, "name": name, "uuid": uuid, **facts}


def main() -> int:
    """Measure what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--scale", choices=("small", "full"), default="full")
    parser.add_argument("--gpus", type=int, default=64, help="how many, from the first on")
    parser.add_argument("--repeats", type=int, default=7, help="samples of each")
    parser.add_argument("--what", default=",".join(_WHAT), help=f"of {','.join(_WHAT)}")
    parser.add_argument("--threads", type=int, help="of the CPU; none: as many cores as this may use")
    args = parser.parse_args()
    what = args.what.split(",")
    if unknown := {*what} - {*_WHAT}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    end_with_parent()
    forget_own_folder()
    answer = answers()
    torch = import_module("torch")
    torch.set_num_threads(args.threads or len(os.sched_getaffinity(0)))
    bench = Bench(torch, args, answer)
    for facts in _devices(bench):
        answer(facts)
    works = {"gemm": gemm, "memory": memory, "host": host}
    for device in bench.devices:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        for name in what:
            if name in works and (name != "host" or device.type == "cuda"):
                works[name](bench, device)
                if device.type == "cuda":
                    torch.cuda.empty_cache()
    if "peer" in what and len(bench.devices) > 1:
        peers(bench)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
