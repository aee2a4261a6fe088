"""What boots at two sizes of tensor parallelism took, component by component. Pure.

Everything is summed over the ranks of a boot. What the cards hold beyond weights and the pool for keys and
values (``rest``) is the driver's word; activations, graphs and what is outside torch are the engine's. They
do not add up to it: a peak is no more held once it is over, and torch keeps what it has had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from subcortex.types import BootFigures

#: In the order of charts. ``rest`` holds all those between itself and the pool.
COMPONENTS = ("weights", "kv pool", "rest", "before", "activations", "graphs", "outside torch")
WORDS = {
    "weights": "weights",
    "kv pool": "the KV pool",
    "rest": "all else",
    "before": "context and communication",
    "activations": "peak activations",
    "graphs": "CUDA graphs",
    "outside torch": "outside torch",
}


def of_cards(
    figures: BootFigures | None, taken_mib: Sequence[float], free_before_mib: Sequence[float]
) -> dict[str, float]:
    """Return what one boot took of its cards by component, MiB; what nobody said is left out.

    Args:
        figures: The engine's own words.
        taken_mib: Of each card, as the driver counts, since before the boot.
        free_before_mib: Of each card before the boot, as the driver counts.
    """
    devices = figures.devices if figures else []
    found: dict[str, float] = {}
    parts: dict[str, list[float | None]] = {
        "weights": [one.components.get("weights") for one in devices],
        "activations": [one.components.get("activations") for one in devices],
        "graphs": [one.components.get("graphs") for one in devices],
        "outside torch": [one.other_mib for one in devices],
        "kv pool": [one.kv_pool_mib for one in devices],
        "before": [
            None if one.free_at_start_mib is None else max(0.0, free - one.free_at_start_mib)
            for one, free in zip(devices, free_before_mib, strict=False)
        ],
    }
    for name, amounts in parts.items():
        said = [amount for amount in amounts if amount is not None]
        if said:
            # vLLM says some of it for its first rank alone; the others hold as much.
            found[name] = sum(said) * len(devices) / len(said)
    if taken_mib:
        found["taken"] = sum(taken_mib)
        if "weights" in found and "kv pool" in found:
            found["rest"] = found["taken"] - found["weights"] - found["kv pool"]
    return found


def of_host(figures: BootFigures | None, processes_mib: float, weights_mib: float) -> dict[str, float]:
    """Return what one boot took of the host by component, MiB.

    Args:
        figures: The engine's own words.
        processes_mib: Its processes together, as the kernel counts.
        weights_mib: All ranks' weights as counted from the model's files; the CPU build says nothing of them.
    """
    found = {"weights": weights_mib, "taken": processes_mib}
    pool = figures.host.kv_pool_mib if figures and figures.host else None
    if pool is not None:
        found["kv pool"] = pool
        found["rest"] = processes_mib - weights_mib - pool
    return found


def differences(one: Mapping[str, float], two: Mapping[str, float]) -> dict[str, float]:
    """Return by how much each component is more at two than at one, where both are known; MiB."""
    return {name: two[name] - one[name] for name in (*COMPONENTS, "taken") if name in one and name in two}
