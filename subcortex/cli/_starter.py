"""Which tiers a machine starts with: what the planner accepted, as keys of config.toml with its figures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from subcortex.cli._ladder import Choice
    from subcortex.cli._models import Model
    from subcortex.hardware import Hardware
    from subcortex.vram.plan.result import DevicePlan, Plan, Share
    from subcortex.vram.plan.result import TierPlan as Planned

#: Where the models and vLLM's environment are put.
VLLM_PYTHON = "~/.venvs/vllm/bin/python"
MODELS_FOLDER = "~/models"


@dataclass(frozen=True, slots=True)
class TierPlan:
    """One tier to write: its keys, why, and what to fetch for it.

    Args:
        keys: Keys of the ``[[tiers]]`` table, in the order to write them.
        why: Comment lines above it: what it is and the arithmetic.
        download: Command that fetches the model; None if it is there.
    """

    keys: dict[str, Any]
    why: list[str] = field(default_factory=list)
    download: str | None = None


@dataclass(frozen=True, slots=True)
class Starter:
    """Tiers from least to most capable, and what to say about all of them together."""

    tiers: list[TierPlan]
    notes: list[str] = field(default_factory=list)


def testbed(folder: str) -> Starter:
    """Return the pair that comes with the source: no network, no GPU, and no general knowledge either."""
    common = {"engine": "llama.cpp", "context_tokens": 1024, "parallel": 4}
    fast = {"name": "fast", "model": f"{folder}/fast/fast.gguf", **common, "threads": 1}
    deep = {"name": "deep", "model": f"{folder}/deep/deep.gguf", **common, "threads": 2}
    note = "The project's own tiny models: they count, compare and convert units, and nothing else."
    return Starter(
        [
            TierPlan(fast, ["1.7 million parameters; answers at once."]),
            TierPlan(deep, ["9 million parameters; thinks aloud before it answers."]),
        ],
        [note],
    )


def choose(hardware: Hardware, llama_server: str = "llama-server") -> Starter:
    """Return the most capable pair of tiers that the planner accepts: on large cards vLLM, else llama.cpp.

    Args:
        hardware: The machine.
        llama_server: Path of a llama-server built for CUDA, written where GPUs are used.

    Raises:
        DoesNotFit: Not even the smallest pair fits.
    """
    # Here, because the testbed needs no planner.
    from subcortex.cli._ladder import chosen

    choice = chosen(hardware)
    fast, deep = choice.plan.tiers
    tiers = [
        _tier(planned, model, choice.plan, llama_server)
        for planned, model in ((fast, choice.fast), (deep, choice.deep))
    ]
    return Starter(tiers, list(_notes(choice, hardware)))


def _tier(planned: Planned, model: Model, plan: Plan, llama_server: str) -> TierPlan:
    keys: dict[str, Any] = {
        "name": planned.name,
        "engine": planned.engine,
        "model": model.place(MODELS_FOLDER),
    }
    if planned.mode.value != "awake":
        # The daemon starts with those that are awake; this one waits for the first thought that wants it.
        keys["start"] = "lazy"
    if planned.engine == "vllm":
        keys["python"] = VLLM_PYTHON
    elif planned.gpus:
        keys["executable"] = llama_server
    keys |= planned.launch.keys
    return TierPlan(keys, [model.title, *_arithmetic(planned, plan)], model.download(MODELS_FOLDER))


def _arithmetic(planned: Planned, plan: Plan) -> Iterator[str]:
    """Yield what a tier takes of each device: a sum while it is awake at rest, else what it wakes into."""
    for device in plan.devices:
        share = next((share for share in device.shares if share.tier == planned.name), None)
        # Of what every engine takes of the host nobody wants to read.
        if share is not None and share.mode.value == "awake" and (device.device >= 0 or not planned.gpus):
            yield f"{_where(device)}: {_sum(share)} GiB of {_gib(device.total_mib)}."
    for swap in plan.swaps:
        if swap.tier == planned.name:
            needs = ", ".join(f"GPU {gpu} {_gib(swap.need_mib[gpu])} GiB" for gpu in swap.gpus)
            yield f"While it is awake, at probability {plan.asked_probability:g}: {needs}."


def _where(device: DevicePlan) -> str:
    return f"GPU {device.device}" if device.device >= 0 else "Host memory"


def _sum(share: Share) -> str:
    mib = {name: amount.mean_mib for name, amount in share.components.items()}
    weights, kv = mib.get("weights", 0.0), mib.get("kv", 0.0)
    rest = share.total.mean_mib - weights - kv
    return (
        f"weights {_gib(weights)} + KV {_gib(kv)} + overhead {_gib(rest)} = {_gib(share.total.mean_mib)} "
        f"(± {share.total.sigma_mib / 1024:.2f})"
    )


def _gib(mib: float) -> str:
    return f"{mib / 1024:.1f}"


def _notes(choice: Choice, hardware: Hardware) -> Iterator[str]:
    plan = choice.plan
    for device in plan.devices:
        if device.device >= 0:
            planned, total = _gib(device.need_mib), _gib(device.total_mib)
            spare = _gib(max(device.left_mib, 0.0))
            name = f"GPU {device.device}, {device.name}"
            yield f"{name}: {planned} of {total} GiB planned, {spare} GiB to spare."
    unseen = len(hardware.gpus) - sum(device.device >= 0 for device in plan.devices)
    if unseen:
        yield f"{unseen} more GPUs are left alone."
    # Rounded down, as a doubt should not be rounded away.
    yield f"All of it fits with probability {int(min(plan.probability, 0.999) * 1000) / 1000:.3f} or more."
    yield from _company(choice, hardware)
    for tier in plan.tiers:
        yield from (f"{tier.name}: {note}" for note in tier.notes)


def _company(choice: Choice, hardware: Hardware) -> Iterator[str]:
    """Yield why the tiers are where they are, where that is not as one would want it."""
    plan, short = choice.plan, choice.short
    fast, deep = plan.tiers
    if short:
        yield f"The deep model leaves no room on the GPUs even for a smaller one: {short}."
    if plan.swaps:
        yield f"So the two take turns: {'; '.join(map(str, plan.swaps))}."
        yield "The daemon does not do that by itself yet; with more host memory both would stay awake."
    elif deep.gpus and not fast.gpus:
        yield "So the fast tier runs on the CPU, and both stay awake."
    if fast.gpus and not deep.gpus:
        yield "No better model fits on the GPU beside a fast one: the deep tier runs on the CPU."
    if not fast.gpus and not deep.gpus:
        reason = "No pair of models fits on the GPU" if hardware.gpus else "No GPU"
        yield f"{reason}: small models on {hardware.cores} cores."
