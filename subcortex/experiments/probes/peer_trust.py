"""Copies between every two GPUs, both ways, and compares what arrived with what was sent. JSON lines.

By hand: ``~/vllm/bin/python peer_trust.py --device cuda``; on a CPU (``--device cpu``) it copies between
buffers of the host, which shows that the script works and nothing else. Needs torch alone.

A translating IOMMU loses copies between GPUs while CUDA reports success. So the destination is filled with a
sentinel first, and both ends are read back over the host, by another path than the copy took. A line a copy:
``metric`` (``intact``), ``value`` and ``unit`` (% of the bytes), ``pair`` (``0-1``: from GPU 0 to GPU 1),
``bytes``, ``intact_bytes``, ``untouched_bytes`` (still the sentinel), ``peer_access`` (what CUDA says).
"""

import argparse
import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from itertools import permutations
from pathlib import Path
from typing import Any

#: Small ones, and some beyond the 64 MiB that staging buffers and apertures often hold; none whole pages.
SMALL = (4 * 1024, 2**20 + 12)
FULL = (4 * 1024, 2**20 + 12, 64 * 2**20, 96 * 2**20 + 4, 256 * 2**20)
_SENTINEL = 0xA5
_SHIFTS = 2**16
_PIECE = 2**23
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


class Copies:
    """Copies between devices.

    Args:
        torch: The module.
        most: Bytes of the largest copy.
        lose_after: Copy no more than the first so many bytes, to see that this is found out; None for all.
    """

    def __init__(self, torch: Any, most: int, lose_after: int | None) -> None:
        self._torch, self._lose_after = torch, lose_after
        random = torch.Generator().manual_seed(1)
        # Drawn once, and taken from another place for each copy.
        self._bytes = torch.randint(0, 256, (most + _SHIFTS,), dtype=torch.uint8, generator=random)
        # By chance one byte in 256 is the sentinel; without any, what is untouched is told for sure.
        self._bytes[self._bytes == _SENTINEL] = 0
        # Buffers that stay: fresh pages cost a host more than comparing them.
        self._back = torch.empty(most, dtype=torch.uint8)
        self._alike = torch.empty(_PIECE, dtype=torch.bool)

    def try_once(self, source: Any, target: Any, size: int, number: int) -> dict[str, Any]:
        """Copy so many bytes and compare; what the source itself gives back wrong is ``unreadable``."""
        torch = self._torch
        shift = number * 4099 % _SHIFTS
        sent = self._bytes[shift : shift + size]
        there = sent.to(source, copy=True)
        arrived = torch.full((size,), _SENTINEL, dtype=torch.uint8, device=target)
        self._wait(source, target)
        unreadable = size - self._same(self._read(there), sent)
        length = size if self._lose_after is None else min(size, self._lose_after)
        arrived[:length].copy_(there[:length])
        self._wait(source, target)
        got = self._read(arrived)
        intact = self._same(got, sent)
        return {
            "metric": "intact",
            "value": 100.0 * intact / size,
            "unit": "%",
            "bytes": size,
            "intact_bytes": intact,
            "untouched_bytes": self._same(got, _SENTINEL),
            "unreadable_bytes": unreadable,
        }

    def _read(self, there: Any) -> Any:
        return self._back[: there.numel()].copy_(there)

    def _same(self, one: Any, other: Any) -> int:
        """Return how many elements are those of another tensor, or are one value."""
        found = 0
        for start in range(0, one.numel(), _PIECE):
            piece = one[start : start + _PIECE]
            against = other if isinstance(other, int) else other[start : start + _PIECE]
            alike = self._alike[: piece.numel()]
            self._torch.eq(piece, against, out=alike)
            found += int(self._torch.count_nonzero(alike).item())
        return found

    def _wait(self, *devices: Any) -> None:
        for device in devices:
            if device.type == "cuda":
                self._torch.cuda.synchronize(device)


def pairs(torch: Any, device: str, count: int | None) -> Iterator[tuple[int, int, Any, Any, bool | None]]:
    """Yield every ordered pair: numbers, devices, and whether CUDA says that one reaches the other."""
    if device == "cpu":
        host = torch.device("cpu")
        for a, b in permutations(range(count or 2), 2):
            yield a, b, host, host, None
        return
    found = torch.cuda.device_count()
    for a, b in permutations(range(min(found, count or found)), 2):
        reaches = bool(torch.cuda.can_device_access_peer(a, b))
        yield a, b, torch.device("cuda", a), torch.device("cuda", b), reaches


def main() -> int:
    """Try every pair with every size; return the exit code, 0 also where bytes were lost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--scale", choices=("small", "full"), default="full")
    parser.add_argument("--gpus", type=int, help="how many, from the first on; all if not given")
    parser.add_argument("--repeats", type=int, default=3, help="copies of each size, each of new bytes")
    parser.add_argument("--lose-after", type=int, help="pretend that copies lose what is after so many bytes")
    args = parser.parse_args()
    end_with_parent()
    forget_own_folder()
    answer = answers()
    torch = import_module("torch")
    sizes = SMALL if args.scale == "small" else FULL
    copies = Copies(torch, max(sizes), args.lose_after)
    number = 0
    for repeat in range(args.repeats):
        for a, b, source, target, reaches in pairs(torch, args.device, args.gpus):
            for size in sizes:
                number += 1
                found = copies.try_once(source, target, size, number)
                answer({**found, "pair": f"{a}-{b}", "peer_access": reaches, "block": repeat})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
