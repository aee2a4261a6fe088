"""What single readings of a driver mean. Pure; whatever makes no sense raises one of ``NONSENSE``."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import ValidationError

from subcortex.hardware.model import Gpu

#: What a reading of an unexpected kind raises while it is taken apart.
NONSENSE = (AttributeError, TypeError, ValueError, LookupError, ArithmeticError)

_T = TypeVar("_T")
_MIB = 2**20
#: More than any GPU has, less than what a driver answers for "unknown".
_MOST_MIB = 2**40
_MOST_CUDA = 1_000_000
# NVML's own numbers, which never change.
_NVLINK_VERSIONS = {1: "1.0", 2: "2.0", 3: "2.2", 4: "3.0", 5: "3.1", 6: "4.0", 7: "5.0", 8: "6.0"}
_TOPOLOGY = {0: "PIX", 10: "PIX", 20: "PXB", 30: "PHB", 40: "NODE", 50: "SYS"}
_PEER = {0: "OK", 1: "CNS", 2: "GNS", 3: "TNS", 4: "DR", 5: "NS", 6: "U"}
_VALUE_MEMBERS = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 5: "siVal", 6: "usVal"}
_BUS_ID = re.compile(r"[0-9A-F]{4,8}:[0-9A-F]{2}:[0-9A-F]{2}\.[0-9A-F]")
#: Without these there is nothing to plan with.
_NEEDED = {"index", "name", "memory_total_mib", "memory_used_mib"}


class Sheet:
    """The readings of one GPU, field by field, and which of them make no sense."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self.unread: set[str] = set()

    def put(self, field: str, make: Callable[[], Any]) -> Any:
        """Note a field, None and marked if what it is made of makes no sense; return it."""
        try:
            self.facts[field] = make()
        except NONSENSE:
            self.facts[field] = None
            self.unread.add(field)
        return self.facts[field]

    def gpu(self) -> Gpu:
        """Return the GPU, without what no card can have.

        Raises:
            ValueError: That is its memory, so that nothing is left to plan with.
        """
        facts = self.facts
        wrong: set[str] = set()
        try:
            Gpu(**facts)
        except ValidationError as error:
            wrong = {str(one["loc"][0]) for one in error.errors(include_input=False)}
        if missing := sorted(wrong & _NEEDED):
            raise ValueError(", ".join(missing))
        kept = {field: fact for field, fact in facts.items() if field not in wrong}
        return Gpu(**kept, unread=tuple(sorted(self.unread | wrong)))


def text(value: Any) -> str | None:
    """Return a name that can be stored as UTF-8, None for an empty one."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if value is not None and not isinstance(value, str):
        raise TypeError("no text")
    return value.encode("utf-8", "replace").decode() if value else None


def whole(value: Any) -> int | None:
    """Return a whole number."""
    if value is None:
        return None
    if not isinstance(value, int | float):
        raise TypeError("no number")
    return int(value)


def watts(milliwatts: Any) -> float | None:
    """Return milliwatts as watts."""
    found = whole(milliwatts)
    return None if found is None else found / 1000


def mib(count: Any) -> float | None:
    """Return bytes as MiB."""
    if count is None:
        return None
    found = float(count) / _MIB
    if not 0 <= found <= _MOST_MIB:
        raise ValueError("no size")
    return found


def flag(value: Any) -> bool | None:
    """Return NVML's 0 or 1 as a truth value."""
    if value is not None and value not in (0, 1):
        raise ValueError("neither 0 nor 1")
    return None if value is None else bool(value)


def version(pair: Any) -> tuple[int | None, int | None] | None:
    """Return major and minor of a compute capability."""
    return None if pair is None else (whole(pair[0]), whole(pair[1]))


def bus_id(pci: Any) -> str | None:
    """Return a PCI bus id; a link that leads nowhere has an empty one."""
    found = None if pci is None else text(pci.busId)
    if found is None or not found.strip("0:."):
        return None
    if not _BUS_ID.fullmatch(found.upper()):
        raise ValueError("no bus id")
    return found.upper()


def cuda(number: Any) -> tuple[int, int] | None:
    """Return major and minor of NVML's number of a CUDA version, e.g. 12080."""
    found = whole(number)
    if not found:
        return None
    if not 0 < found < _MOST_CUDA:
        raise ValueError("no version of CUDA")
    return found // 1000, found % 1000 // 10


def nvlink_version(number: Any) -> str | None:
    """Return a version of NVLink as people write it."""
    # 0 is NVML's word for a link of no version.
    return _NVLINK_VERSIONS[number] if number else None


def mb_per_s(values: Any) -> float | None:
    """Return the first of NVML's field values, 10^6 bytes/s."""
    if not values or values[0].nvmlReturn != 0:
        return None
    found = float(getattr(values[0].value, _VALUE_MEMBERS[values[0].valueType]))
    return found if found else None


def topology(level: Any) -> str | None:
    """Return the code of NVML's level between two GPUs."""
    return None if level is None else _TOPOLOGY[level]


def peer(status: Any) -> str | None:
    """Return the word for a status of peer access."""
    return None if status is None else _PEER[status]


def or_none(convert: Callable[[Any], _T | None], value: Any) -> _T | None:
    """Return a reading whose absence says enough: None where it makes no sense."""
    try:
        return convert(value)
    except NONSENSE:
        return None


def attached(name: str, mode: bool | None, active: bool | None) -> bool | None:
    """Return whether a monitor is plugged in.

    Drivers say so of data-centre cards too, which have no socket for one, or have it switched off.
    """
    made_for_it = any(word in name.upper() for word in ("GEFORCE", "RTX", "GTX", "QUADRO", "TITAN"))
    return mode if made_for_it or active or not mode else False
