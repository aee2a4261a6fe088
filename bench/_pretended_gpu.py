"""Make vLLM believe in cards that are not there: an H200 host, its kernels, and a world of ranks.

For `vllm_oracle.py`: vLLM's own Python then chooses backends, kernels and shapes as on a GPU host,
while every tensor lives on torch's meta device. Nothing here computes.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import re
import sys
import types
from typing import Any

CARD = "NVIDIA H200"
CARD_BYTES = 150_109_880_320  # what torch says of an H200: 139.80 GiB
CAPABILITY = (9, 0)
_COMPILED = re.compile(
    r"vllm\.(_\w*C\w*|vllm_flash_attn\._vllm_fa\d_C|_rs_\w+|cumem_allocator|third_party\.flashmla\..+)$"
)


class _Stub(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stand in for compiled extensions that this machine does not have."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if _COMPILED.match(fullname):
            return importlib.machinery.ModuleSpec(fullname, self)
        return None

    def create_module(self, spec: Any) -> types.ModuleType:
        return types.ModuleType(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        vars(module)["__getattr__"] = lambda name: _Nothing if not name.startswith("__") else _raise(name)


def _raise(name: str) -> None:
    raise AttributeError(name)


class _Nothing:
    """A stream or an event of a card that is not there."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        return None


def pretend_h200() -> None:
    """Make vLLM believe that it is a CUDA build on a host with eight H200 cards."""
    sys.meta_path.append(_Stub())
    torch: Any = importlib.import_module("torch")
    importlib.import_module("transformers.generation")  # reads torch.cuda's true classes at import
    platforms: Any = importlib.import_module("vllm.platforms")

    interface: Any = importlib.import_module("vllm.platforms.interface")
    properties = types.SimpleNamespace(
        name=CARD, major=9, minor=0, total_memory=CARD_BYTES, multi_processor_count=132, is_integrated=False
    )
    torch.version.cuda = "13.0"
    torch.cuda.get_device_properties = lambda *a, **k: properties
    torch.cuda.get_device_capability = lambda *a, **k: CAPABILITY
    torch.cuda.get_device_name = lambda *a, **k: CARD
    torch.cuda.is_available = lambda: True
    torch.cuda.device_count = lambda: 8
    torch.cuda.current_device = lambda: 0
    torch.cuda.Stream = torch.cuda.Event = _Nothing
    torch.accelerator.current_device_index = lambda: 0
    torch.accelerator.current_accelerator = lambda *a, **k: torch.device("cuda", 0)

    cuda: Any = importlib.import_module("vllm.platforms.cuda")

    class PretendedH200(cuda.CudaPlatformBase):  # type: ignore[misc]
        @classmethod
        def get_device_capability(cls, device_id: int = 0) -> Any:
            return interface.DeviceCapability(*CAPABILITY)

        @classmethod
        def get_device_name(cls, device_id: int = 0) -> str:
            return CARD

        @classmethod
        def get_device_total_memory(cls, device_id: int = 0) -> int:
            return CARD_BYTES

        @classmethod
        def device_count(cls) -> int:
            return 8

        @classmethod
        def num_compute_units(cls, device_id: int = 0) -> int:
            return 132

        @classmethod
        def is_fully_connected(cls, device_ids: list[int]) -> bool:
            return True

    platforms._current_platform = PretendedH200()
    triton_utils: Any = importlib.import_module("vllm.triton_utils.importing")
    triton_utils.HAS_TRITON = False
    package: Any = importlib.import_module("vllm.triton_utils")
    package.triton.Config = lambda kwargs=None, **rest: types.SimpleNamespace(
        **{"kwargs": kwargs or {}, "num_warps": 4, "num_stages": 2, "num_ctas": 1} | rest
    )
    package.HAS_TRITON = True  # the real one exists on a GPU host; here placeholders stand for its kernels
    stand_in_for_kernels()
    registry: Any = importlib.import_module("vllm.model_executor.models.registry")
    registry._run_in_subprocess = lambda function: function()  # a child would not be pretending


def stand_in_for_kernels() -> None:
    """Answer for the compiled kernels of an H200 build: what they support, and the shapes they return."""
    torch: Any = importlib.import_module("torch")

    ops: Any = importlib.import_module("vllm._custom_ops")

    def yes(*args: Any, **kwargs: Any) -> bool:
        return True

    def no(*args: Any, **kwargs: Any) -> bool:
        return False

    def gptq_repack(
        b_q_weight: Any, perm: Any = None, size_k: int = 0, size_n: int = 0, num_bits: int = 4, **kw: Any
    ) -> Any:
        return torch.empty((size_k // 16, size_n * num_bits // 2), dtype=torch.int32, device="meta")

    def awq_repack(b_q_weight: Any, size_k: int, size_n: int, num_bits: int, **kw: Any) -> Any:
        return gptq_repack(b_q_weight, None, size_k, size_n, num_bits)

    def same(weight: Any, *args: Any, **kwargs: Any) -> Any:
        return torch.empty_like(weight)

    class Kernel:
        """A compiled kernel that nobody calls: layers only keep it for their forward pass."""

        def __getattr__(self, name: str) -> Any:
            return Kernel() if not name.startswith("__") else object.__getattribute__(self, name)

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError("a compiled kernel was called on the meta device")

    space: Any = importlib.import_module("torch._ops")._OpNamespace
    true_getattr = space.__getattr__

    def getattr_or_kernel(self: Any, name: str) -> Any:
        try:
            return true_getattr(self, name)
        except AttributeError:
            if name.startswith("__") or not self.name.endswith(("_C", "_C_cache_ops", "_C_custom_ar")):
                raise
            return Kernel()

    space.__getattr__ = getattr_or_kernel
    for name in ("scaled_mm_supports_fp8", "scaled_mm_supports_block_fp8", "group_gemm_supported"):
        setattr(ops, f"cutlass_{name}", yes)
    ops.cutlass_scaled_mm_supports_fp4 = ops.mxfp4_experts_quant_supported = no
    ops.gptq_marlin_repack, ops.awq_marlin_repack = gptq_repack, awq_repack
    ops.machete_prepack_B = ops.cutlass_encode_and_reorder_int4b = same
    ops.gptq_shuffle = ops.permute_cols = same
    ops.scaled_fp8_quant = lambda x, scale=None, *a, **kw: (
        torch.empty_like(x, dtype=torch.float8_e4m3fn),
        scale,
    )
    ops.machete_supported_schedules = lambda *a, **kw: ["any"]


class Group:
    """One rank's view of a pretended process group: sizes and ranks, collectives that do nothing."""

    def __init__(self, name: str, size: int, rank: int) -> None:
        self.unique_name = name
        self.world_size = size
        self.rank = self.rank_in_group = self.local_rank = rank
        self.ranks = list(range(size))
        self.first_rank, self.last_rank = 0, size - 1
        self.is_first_rank, self.is_last_rank = rank == 0, rank == size - 1
        self.device_group = types.SimpleNamespace(size=lambda: size, rank=lambda: rank, group_name=name)
        self.cpu_group, self.device_communicator, self.mq_broadcaster = self.device_group, None, None
        self.use_device_communicator = False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda value=None, *args, **kwargs: value


def enter_world(tp: int, pp: int, tp_rank: int, pp_rank: int) -> None:
    """Set vLLM's process groups to a world of ``tp`` × ``pp`` ranks, seen by one of them."""
    state: Any = importlib.import_module("vllm.distributed.parallel_state")
    state._WORLD = Group("world", tp * pp, pp_rank * tp + tp_rank)
    state._TP = Group("tp", tp, tp_rank)
    state._PP = Group("pp", pp, pp_rank)
    state._EP = Group("ep", tp, tp_rank)
    for name in ("_DP", "_DCP", "_PCP", "_EPLB", "_INNER_DP_WORLD"):
        if hasattr(state, name):
            setattr(state, name, Group(name, 1, 0))


def on_meta() -> contextlib.AbstractContextManager[Any]:
    """Return a context in which every new tensor is made on the meta device, whoever asks for a GPU."""
    torch: Any = importlib.import_module("torch")
    mode: Any = importlib.import_module("torch.overrides").TorchFunctionMode

    def moved(value: Any) -> Any:
        named = isinstance(value, int | str | torch.device) and str(value).startswith(("cuda", "cpu", "0"))
        return torch.device("meta") if named else value

    answers: dict[str, Any] = {
        "item": lambda t: 1.0,
        "__bool__": lambda t: True,
        "tolist": lambda t: [1] * t.numel(),
    }
    answers["nonzero"] = lambda t: torch.empty((0, t.dim()), dtype=torch.int64)

    class Mode(mode):  # type: ignore[misc]
        def __torch_function__(self, func: Any, types_: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = {k: moved(v) if k == "device" else v for k, v in (kwargs or {}).items()}
            name = getattr(func, "__name__", "")
            if name in ("to", "cuda"):
                args = tuple(moved(a) for a in args)
            if args and isinstance(args[0], torch.Tensor) and args[0].is_meta:
                if name in answers:  # a value that only true weights have
                    return answers[name](args[0])
                if name in ("unique", "_unique_impl", "_return_output"):
                    return args[0].flatten()[:1]
            return func(*args, **kwargs)

    stack = contextlib.ExitStack()
    stack.enter_context(torch.device("meta"))
    stack.enter_context(Mode())
    return stack
