"""What to write to run a plan: arguments, environment, and keys of config.toml. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import floor

from subcortex.vram.amount import Amount
from subcortex.vram.driver import offered_mib
from subcortex.vram.footprint import Component
from subcortex.vram.plan._given import FP8_CACHES, LLAMACPP_NAMES, VLLM_NAMES, Given, groups, without
from subcortex.vram.plan.fit import Fit
from subcortex.vram.plan.seat import Mode, Seat
from subcortex.vram.plan.states import State, load_of
from subcortex.vram.setup import LlamaCppSetup, Setup, VllmSetup
from subcortex.vram.vllm.kv import layout

#: vLLM refuses to start unless this share of the card is free (``CacheConfig.gpu_memory_utilization``'s
#: default, 0.26; 0.9 before), even where the pool is pinned.
VLLM_DEFAULT_UTILIZATION = 0.92
#: What its reading and ours may differ by.
_UTILIZATION_MARGIN = 0.01

Value = str | int | float | list[int] | list[float] | list[str]


#: Flags that a plan sets, in place of a person's.
_VLLM_SETS = frozenset(
    (
        *("--max-model-len", "--tensor-parallel-size", "--pipeline-parallel-size"),
        *("--gpu-memory-utilization", "--kv-cache-memory-bytes"),
        *("--max-num-batched-tokens", "--max-num-seqs", "--enforce-eager", "--enable-sleep-mode"),
        *("--enable-expert-parallel", "--disable-custom-all-reduce"),
    )
)
_LLAMACPP_SETS = frozenset(
    (
        *("--ctx-size", "--parallel", "--n-gpu-layers", "--split-mode", "--tensor-split", "--main-gpu"),
        *("--cache-type-k", "--cache-type-v", "--batch-size", "--ubatch-size", "--flash-attn"),
        "--kv-unified",
    )
)
_CACHE_TYPE = "--kv-cache-dtype"
#: vLLM's own ``--max-num-seqs``, on small cards and on large ones.
_DEFAULT_SEQUENCES = (256, 1024)


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start one tier.

    Args:
        arguments: For the engine's server, the model aside.
        environment: Variables to set.
        keys: Of the tier's table in config.toml.
    """

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    keys: Mapping[str, Value] = field(default_factory=dict)

    @property
    def toml(self) -> str:
        """The keys as TOML lines."""
        return "\n".join(f"{name} = {_toml(value)}" for name, value in self.keys.items())


def _toml(value: Value) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        text = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text) + '"'
    return f"{value:g}" if isinstance(value, float) else str(value)


def launch(fit: Fit, place: int) -> Launch:
    """Return how to start the tier at that place of the plan."""
    seat = fit.seats[place]
    setup = fit.book.at(seat, fit.requests[place])
    if isinstance(setup, LlamaCppSetup):
        return _llamacpp(seat, setup, bool(fit.book.gpus))
    asked = fit.asked[place].setup
    sleeps = any(state[place] is Mode.ASLEEP for state in (fit.home, *fit.swaps.values()))
    sleeps = sleeps or (isinstance(asked, VllmSetup) and asked.sleep_mode)
    return _vllm(seat, setup, _utilization(fit, place), sleeps=sleeps)


def _environment(gpus: Sequence[int]) -> dict[str, str]:
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus))}


def _vllm(seat: Seat, setup: VllmSetup, utilization: float | None, *, sleeps: bool) -> Launch:
    keys: dict[str, Value] = {"context_tokens": seat.ask.context_tokens}
    arguments = ["--max-model-len", str(seat.ask.context_tokens)]
    flags: list[str] = []
    environment: dict[str, str] = {}
    if seat.gpus:
        environment = _environment(seat.gpus)
        keys = {"gpus": list(seat.gpus), **keys}
    keys["tensor_parallel_size"] = setup.tensor_parallel_size
    arguments += ["--tensor-parallel-size", str(setup.tensor_parallel_size)]
    if setup.pipeline_parallel_size > 1:
        keys["pipeline_parallel_size"] = setup.pipeline_parallel_size
        arguments += ["--pipeline-parallel-size", str(setup.pipeline_parallel_size)]
    if utilization is not None:
        keys["gpu_memory_utilization"] = utilization
        arguments += ["--gpu-memory-utilization", f"{utilization:g}"]
    if setup.kv_pool_bytes is not None:
        flags += ["--kv-cache-memory-bytes", str(setup.kv_pool_bytes)]
    for flag, value in (
        ("--max-num-batched-tokens", setup.max_batched_tokens),
        ("--max-num-seqs", _most_sequences(seat, setup)),
    ):
        if value is not None:
            flags += [flag, str(value)]
    for flag, wanted in (
        ("--enforce-eager", setup.eager),
        ("--enable-sleep-mode", sleeps and bool(seat.gpus)),
        ("--enable-expert-parallel", setup.expert_parallel),
        ("--disable-custom-all-reduce", not setup.custom_all_reduce),
    ):
        if wanted:
            flags.append(flag)
    ours, own = _VLLM_SETS, seat.ask.flags
    if (
        setup.kv_bytes_per_element == 1
        and Given(seat.ask.name, own, VLLM_NAMES).text(_CACHE_TYPE) not in FP8_CACHES
    ):
        flags += [_CACHE_TYPE, "fp8"]
        ours = ours | {_CACHE_TYPE}
    flags += without(own, VLLM_NAMES, ours)
    if flags:
        keys["flags"] = flags
    return Launch(tuple(arguments + flags), environment, keys)


def _most_sequences(seat: Seat, setup: VllmSetup) -> int | None:
    """Return what to set ``--max-num-seqs`` to: as asked, but no more than recurrent layers have states for.

    Left out, it is 256 on small cards and 1024 on large ones.
    """
    if setup.kv_pool_bytes is None or setup.eager or not seat.gpus:
        return setup.max_sequences
    limits = [layout(seat.ask.shape, setup, stage=stage) for stage in range(setup.pipeline_parallel_size)]
    states = [most for one in limits if (most := one.max_sequences(setup.kv_pool_bytes)) is not None]
    if setup.max_sequences is not None:
        return min([setup.max_sequences, *states])
    if not states or min(states) >= _DEFAULT_SEQUENCES[1]:
        return None
    return min(*states, _DEFAULT_SEQUENCES[0])


def _llamacpp(seat: Seat, setup: LlamaCppSetup, gpus_here: bool) -> Launch:
    keys: dict[str, Value] = {"context_tokens": seat.ask.context_tokens, "parallel": setup.parallel}
    whole = setup.context_tokens or seat.ask.context_tokens
    arguments = ["--ctx-size", str(whole), "--parallel", str(setup.parallel)]
    flags: list[str] = []
    environment: dict[str, str] = {}
    layers = setup.gpu_layers or 0
    if gpus_here:
        keys = {"gpus": list(seat.gpus), **keys, "gpu_layers": layers}
        environment = _environment(seat.gpus)
        arguments += ["--n-gpu-layers", str(layers)]
    if len(seat.gpus) > 1:
        keys["split_mode"] = setup.split_mode
        arguments += ["--split-mode", setup.split_mode]
        if setup.tensor_split:
            keys["tensor_split"] = [_plain(share) for share in setup.tensor_split]
            arguments += ["--tensor-split", ",".join(f"{share:g}" for share in setup.tensor_split)]
        flags += ["--main-gpu", str(setup.main_gpu)]
    for flag, value, usual in (
        ("--cache-type-k", setup.kv_type_k, "f16"),
        ("--cache-type-v", setup.kv_type_v, "f16"),
        ("--batch-size", str(setup.batch_tokens), "2048"),
        ("--ubatch-size", str(setup.micro_batch_tokens), "512"),
    ):
        if value != usual:
            flags += [flag, value]
    if setup.flash_attention is not None:
        flags += ["--flash-attn", "on" if setup.flash_attention else "off"]
    own = without(seat.ask.flags, LLAMACPP_NAMES, _LLAMACPP_SETS)
    if not any(name == "--cache-ram" for name, _ in groups(own, LLAMACPP_NAMES)):
        # As our engine sets it, by a variable: older builds, which keep no prompts, would refuse the flag.
        environment["LLAMA_ARG_CACHE_RAM"] = f"{setup.prompt_cache_mib:.0f}"
    flags += own
    in_file = list(flags)
    if setup.kv_unified:
        # One cache for all slots: a length a slot would make the engine set aside one for each.
        arguments.append("--kv-unified")
        del keys["context_tokens"]
        if whole != seat.ask.shape.max_context_tokens:
            in_file += ["--ctx-size", str(whole)]
    if in_file:
        keys["flags"] = in_file
    return Launch(tuple(arguments + flags), environment, keys)


def _plain(share: float) -> float:
    return int(share) if float(share).is_integer() else share


def _utilization(fit: Fit, place: int) -> float | None:
    """Return the share that vLLM is to find free; None where its default passes, or a person chose one.

    It reads what is free after its CUDA context and its communicators are up. It may start in any state that
    it is awake in, with all the others there already: after a crash, it does.
    """
    seat = fit.seats[place]
    if isinstance(seat.setup, VllmSetup) and seat.setup.gpu_memory_utilization is not None:
        return seat.setup.gpu_memory_utilization
    states: list[State] = [state for state in (fit.home, *fit.swaps.values()) if state[place] is Mode.AWAKE]
    least = min((_free_share(fit, place, state) for state in states), default=1.0)
    if least >= VLLM_DEFAULT_UTILIZATION + _UTILIZATION_MARGIN:
        return None
    return max(0.01, floor((least - _UTILIZATION_MARGIN) * 100) / 100)


def _free_share(fit: Fit, place: int, state: State) -> float:
    seat, book = fit.seats[place], fit.book
    others = [mode if i != place else Mode.STOPPED for i, mode in enumerate(state)]
    load = load_of(book, fit.seats, tuple(others), fit.requests)
    made = book.footprint(seat, fit.requests[place])
    shares = []
    for gpu, need in zip(seat.gpus, made.devices, strict=True):
        limit = book.limits[gpu]
        before = need.of(Component.CONTEXT) + need.of(Component.COMMUNICATION)
        mean, variance = load.get(gpu, (0.0, 0.0))
        taken = (Amount(mean, variance**0.5) + before).at(max(0.5, book.probability))
        offered = offered_mib(book.gpus[gpu])
        shares.append((limit.total_mib - limit.used_mib - taken) / offered)
    return min(shares, default=1.0)


def setup_words(setup: Setup, gpus: Sequence[int]) -> str:
    """Return how an engine is spread, in a few words: ``TP 2``, ``PP 2``, ``layers 5:3``, ``CPU``."""
    if not gpus:
        return "CPU"
    if isinstance(setup, VllmSetup):
        words = [f"TP {setup.tensor_parallel_size}"] if setup.tensor_parallel_size > 1 else []
        if setup.pipeline_parallel_size > 1:
            words.append(f"PP {setup.pipeline_parallel_size}")
        return " × ".join(words) or "1 GPU"
    if len(gpus) == 1:
        return "1 GPU"
    shares = ":".join(f"{share:g}" for share in setup.tensor_split or ())
    return f"{setup.split_mode} {shares}".strip()
