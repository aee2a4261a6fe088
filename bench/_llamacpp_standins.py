"""GPUs that are not there, for llama.cpp to plan with: devices registered with ggml that compute nothing.

They say yes to every operation, are asynchronous and have events, align and pad buffers as ggml-cuda does,
and ask for work on weights in host memory from 32 rows of a batch on, as it does. The structs are ggml's own
(``ggml-backend-impl.h``), laid out as in the release that `_llamacpp_oracle.LAYOUT` names.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_POINTER = ctypes.c_void_p
_GPU_TYPE, _MATRIX_ROW_PADDING, _CUDA_ALIGNMENT, _OFFLOAD_BATCH = 1, 512, 128, 32


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int32),
        ("buffer", _POINTER),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int32),
    ]


class _DeviceProps(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("description", ctypes.c_char_p),
        ("memory_free", ctypes.c_size_t),
        ("memory_total", ctypes.c_size_t),
        ("type", ctypes.c_int32),
        ("device_id", ctypes.c_char_p),
        ("caps", ctypes.c_bool * 5),
    ]


class Library:
    """llama.cpp's C functions as found in xllamacpp's extension module."""

    def __init__(self) -> None:
        from xllamacpp import xllamacpp

        self.path = xllamacpp.__file__
        self._library = ctypes.CDLL(self.path)

    def function(self, name: str, result: Any, *arguments: Any) -> Any:
        """Return the C function ``name`` with its types set."""
        found = getattr(self._library, name)
        found.restype, found.argtypes = result, list(arguments)
        return found


@dataclass(slots=True)
class StandIns:
    """The devices registered with ggml, and all that must outlive them."""

    library: Library
    free_mib: list[float]
    alive: list[Any] = field(default_factory=list)

    def register(self) -> None:
        """Make ``len(free_mib)`` GPUs known to ggml."""
        registry = (ctypes.c_uint64 * 6)()
        devices = [self._device(index, ctypes.addressof(registry)) for index in range(len(self.free_mib))]
        registry[0] = _registry_version(self.library)
        registry[1] = self._callback(ctypes.c_char_p, lambda _: b"CUDA", _POINTER)
        registry[2] = self._callback(ctypes.c_size_t, lambda _: len(devices), _POINTER)
        registry[3] = self._callback(_POINTER, lambda _, index: devices[index], _POINTER, ctypes.c_size_t)
        registry[4] = self._callback(_POINTER, lambda _, __: None, _POINTER, ctypes.c_char_p)
        self.alive.append(registry)
        self.library.function("ggml_backend_register", None, _POINTER)(ctypes.addressof(registry))

    def _callback(self, result: Any, call: Callable[..., Any], *arguments: Any) -> int:
        made = ctypes.CFUNCTYPE(result, *arguments)(call)
        self.alive.append(made)
        address = ctypes.cast(made, _POINTER).value
        assert address is not None
        return address

    def _device(self, index: int, registry: int) -> int:
        name = f"CUDA{index}".encode()
        device = (ctypes.c_uint64 * 17)()
        address = ctypes.addressof(device)
        own = self._buffer_type(name, address, host=False)
        pinned = self._buffer_type(b"CUDA_Host", address, host=True)
        op_desc = self.library.function("ggml_op_desc", ctypes.c_char_p, _POINTER)

        def memory(_: int, free: int, total: int) -> None:
            ctypes.c_size_t.from_address(free).value = int(self.free_mib[index] * 2**20)
            ctypes.c_size_t.from_address(total).value = int(self.free_mib[index] * 2**20)

        def properties(_: int, at: int) -> None:
            props = _DeviceProps.from_address(at)
            props.name, props.description, props.type = name, b"stand-in", _GPU_TYPE
            props.memory_free = props.memory_total = int(self.free_mib[index] * 2**20)
            # async, host buffer, buffer from host memory, events, mmap: as ggml-cuda says of itself.
            for place, able in enumerate((True, True, False, True, True)):
                props.caps[place] = able

        def wants(_: int, tensor: int) -> bool:
            # ggml-cuda takes over an operation on weights in host memory from 32 rows of a batch on.
            asked, op = _Tensor.from_address(tensor), op_desc(tensor).decode()
            rows = asked.ne[1] * asked.ne[2] * asked.ne[3]
            batch = {"GET_ROWS": 0, "MUL_MAT": asked.ne[1], "MUL_MAT_ID": asked.ne[2], "ROPE": asked.ne[2]}
            return bool(batch.get(op, rows) >= _OFFLOAD_BATCH)

        values: list[int] = [
            self._callback(ctypes.c_char_p, lambda _: name, _POINTER),
            self._callback(ctypes.c_char_p, lambda _: b"stand-in", _POINTER),
            self._callback(None, memory, _POINTER, _POINTER, _POINTER),
            self._callback(ctypes.c_int, lambda _: _GPU_TYPE, _POINTER),
            self._callback(None, properties, _POINTER, _POINTER),
            self._callback(_POINTER, lambda at, _: self._backend(name, at), _POINTER, ctypes.c_char_p),
            self._callback(_POINTER, lambda _: own, _POINTER),
            self._callback(_POINTER, lambda _: pinned, _POINTER),
            0,
            self._callback(ctypes.c_bool, lambda _, __: True, _POINTER, _POINTER),
            self._callback(ctypes.c_bool, lambda _, kind: kind == own, _POINTER, _POINTER),
            self._callback(ctypes.c_bool, wants, _POINTER, _POINTER),
            self._callback(_POINTER, self._event, _POINTER),
            self._callback(None, lambda _, __: None, _POINTER, _POINTER),
            self._callback(None, lambda _, __: None, _POINTER, _POINTER),
            registry,
        ]
        for place, value in enumerate(values):
            device[place] = value
        self.alive.append(device)
        return address

    def _event(self, device: int) -> int:
        event = (ctypes.c_uint64 * 2)(device, 0)
        self.alive.append(event)
        return ctypes.addressof(event)

    def _buffer_type(self, name: bytes, device: int, *, host: bool) -> int:
        size_of = self.library.function("ggml_nbytes", ctypes.c_size_t, _POINTER)
        row_size = self.library.function("ggml_row_size", ctypes.c_size_t, ctypes.c_int, ctypes.c_int64)
        quantised = self.library.function("ggml_is_quantized", ctypes.c_bool, ctypes.c_int)
        plain = self.library.function("ggml_backend_cpu_buffer_type", _POINTER)()
        allocate = self.library.function(
            "ggml_backend_buft_alloc_buffer", _POINTER, _POINTER, ctypes.c_size_t
        )
        kind = (ctypes.c_uint64 * 10)()
        address = ctypes.addressof(kind)

        def make(_: int, size: int) -> int | None:
            buffer = allocate(plain, size)
            if buffer:
                ctypes.c_uint64.from_address(buffer + 11 * 8).value = address
            return int(buffer) if buffer else None

        def padded(_: int, tensor: int) -> int:
            size, asked = size_of(tensor), _Tensor.from_address(tensor)
            odd = asked.ne[0] % _MATRIX_ROW_PADDING
            if odd and not host and quantised(asked.type):
                size += row_size(asked.type, _MATRIX_ROW_PADDING - odd)
            return int(size)

        alignment = 32 if host else _CUDA_ALIGNMENT
        values: list[int] = [
            self._callback(ctypes.c_char_p, lambda _: name, _POINTER),
            self._callback(_POINTER, make, _POINTER, ctypes.c_size_t),
            0,
            self._callback(ctypes.c_size_t, lambda _: alignment, _POINTER),
            0,
            self._callback(ctypes.c_size_t, padded, _POINTER, _POINTER),
            0,
            self._callback(ctypes.c_bool, lambda _: host, _POINTER),
            device,
        ]
        for place, value in enumerate(values):
            kind[place] = value
        self.alive.append(kind)
        return address

    def _backend(self, name: bytes, device: int) -> int:
        backend = (ctypes.c_uint64 * 19)()
        guid = ctypes.create_string_buffer(name.ljust(16, b"-"), 16)
        self.alive += [backend, guid]
        backend[0] = ctypes.addressof(guid)
        backend[1] = self._callback(ctypes.c_char_p, lambda _: name, _POINTER)
        backend[2] = self._callback(None, lambda _: None, _POINTER)
        backend[8] = self._callback(None, lambda _: None, _POINTER)
        backend[13] = self._callback(ctypes.c_int, lambda _, __: 0, _POINTER, _POINTER)
        backend[14] = self._callback(None, lambda _, __: None, _POINTER, _POINTER)
        backend[15] = self._callback(None, lambda _, __: None, _POINTER, _POINTER)
        backend[17] = device
        return ctypes.addressof(backend)


def _registry_version(library: Library) -> int:
    registry = library.function("ggml_backend_cpu_reg", _POINTER)()
    return ctypes.c_int32.from_address(registry).value
