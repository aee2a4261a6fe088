"""How near the planner comes to what vLLM measured of itself at boot.

    python bench/plan_accuracy.py TRUTH.json --models DIR --json

TRUTH.json: boots in the form of docs/evidence/vram-h200/truth.json; DIR: one folder a model with its
config.json. The estimate sees the model's config, the card, the parallel sizes, the flags and the
utilisation; never a measured figure. The figures at the top are the worst boot's, those beside them named
``_mean`` the mean over boots.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from _bench import arguments, finish, machine, spread

from subcortex.hardware import Gpu
from subcortex.models.read import read_shape
from subcortex.vram import vllm
from subcortex.vram.amount import Amount, total
from subcortex.vram.driver import offered_mib
from subcortex.vram.setup import VllmSetup

_GIB = 2**30
_MIB_A_GIB = 1024
#: A figure in the log is rounded to this, GiB.
_ROUNDING_GIB = 0.01
_FLAGS = {"--max-num-batched-tokens": "max_batched_tokens", "--max-num-seqs": "max_sequences"}


def setup_of(boot: dict[str, Any], context_tokens: int) -> VllmSetup:
    """Return how the boot was run, as far as its row says."""
    flags = list(boot.get("flags", []))
    sizes: dict[str, Any] = {_FLAGS[name]: int(value) for name, value in pairwise(flags) if name in _FLAGS}
    return VllmSetup(
        tensor_parallel_size=boot.get("tp", 1),
        pipeline_parallel_size=boot.get("pp", 1),
        context_tokens=boot.get("max_model_len", context_tokens),
        gpu_memory_utilization=boot.get("gpu_memory_utilization"),
        eager="--enforce-eager" in flags,
        sleep_mode=boot.get("sleep_mode", "sleep_level_1" in boot),
        version="0.26.0",
        **sizes,
    )


def compared(boot: dict[str, Any], models: Path, card: Gpu, context_tokens: int) -> dict[str, Any]:
    """Return one boot's errors, and which of its components lie in their 90 % interval."""
    shape = read_shape(models / boot["model"])
    setup = setup_of(boot, context_tokens)
    gpus = [card.model_copy(update={"index": index}) for index in range(setup.gpus)]
    ranks = vllm.estimate(shape, setup, gpus)
    first, least = ranks[0], min(ranks, key=lambda rank: rank.pool.mean_mib)
    row: dict[str, Any] = {"model": boot["model"], "tp": setup.tensor_parallel_size}
    if setup.pipeline_parallel_size > 1:
        row["pp"] = setup.pipeline_parallel_size
    row["weights_error_pct"] = _off_pct(first.weights.mean_mib / _MIB_A_GIB, boot["weights_gib"])
    if boot.get("kv_tokens") and boot.get("available_kv_gib"):
        pool_bytes = int(boot["available_kv_gib"] * _GIB)
        measured = pool_bytes / boot["kv_tokens"]
        tokens = vllm.pool_tokens(shape, setup, gpus, pool_bytes)
        row["kv_bytes_per_token_error_pct"] = _off_pct(pool_bytes / tokens, measured)
        predicted = vllm.kv_tokens(shape, setup, gpus)
        row["kv_tokens"], row["kv_tokens_predicted"] = boot["kv_tokens"], predicted
        row["kv_tokens_error_pct"] = _off_pct(predicted, boot["kv_tokens"])
    logged = {
        "peak_activation": (boot.get("peak_activation_gib"), first.peak_activation),
        "cuda_graph": (boot.get("cuda_graph_gib"), first.graphs),
        "non_torch": (boot.get("non_torch_gib"), first.logged_non_torch),
        "context": (_gone_before(boot, card), first.before),
    }
    known = {name: pair for name, pair in logged.items() if pair[0] is not None}
    measured_mib = sum(float(gib or 0) for gib, _ in known.values()) * _MIB_A_GIB
    expected = total(pair[1] for pair in known.values())
    row["non_kv_error_mib"] = round(abs(expected.mean_mib - measured_mib), 1)
    row["components"] = {
        name: {
            "measured_mib": round(gib * _MIB_A_GIB, 1),
            "mean_mib": round(amount.mean_mib, 1),
            "sigma_mib": round(amount.sigma_mib, 1),
            "inside_90": _inside(amount, gib),
        }
        for name, (gib, amount) in (
            {"weights": (boot["weights_gib"], first.weights)}
            | known
            | ({"kv_pool": (boot["available_kv_gib"], least.pool)} if boot.get("available_kv_gib") else {})
        ).items()
    }
    if boot.get("used_mib"):
        row["device_error_mib"] = round(_device_error(ranks, boot["used_mib"]), 1)
    return row


def _gone_before(boot: dict[str, Any], card: Gpu) -> float | None:
    """Return what was gone of the card before vLLM's first reading, GiB; None where the row does not say."""
    free = boot.get("free_at_start_gib")
    return None if free is None else offered_mib(card) / _MIB_A_GIB - float(free)


def _device_error(ranks: Iterable[vllm.RankEstimate], used_mib: list[float]) -> float:
    """Return how far the whole of a card is off what nvidia-smi showed, MiB, on the worst card."""
    whole = [
        total(
            (
                rank.weights,
                rank.pool,
                rank.peak_activation,
                rank.non_torch,
                rank.graphs,
                rank.before,
                rank.cached,
            )
        )
        for rank in ranks
    ]
    return max(abs(amount.mean_mib - used) for amount, used in zip(whole, used_mib, strict=False))


def _inside(amount: Amount, measured_gib: float) -> bool:
    low, high = amount.interval(0.9)
    half = _ROUNDING_GIB * _MIB_A_GIB / 2
    return low - half <= measured_gib * _MIB_A_GIB <= high + half


def _off_pct(predicted: float, measured: float) -> float:
    return round(abs(predicted / measured - 1) * 100, 3)


def main() -> None:
    """Compare every boot of the file and print one JSON object last."""
    parser = arguments("Compare the planner's estimates with measured boots.")
    parser.add_argument("truth", type=Path, help="measured boots")
    parser.add_argument("--models", type=Path, required=True, help="one folder a model with its config.json")
    parser.add_argument("--gpu", default="NVIDIA H200", help="the card they were measured on")
    parser.add_argument("--gpu-mib", type=float, default=143771, help="its memory as NVML says")
    parser.add_argument("--context", type=int, default=8192, help="--max-model-len of the boots")
    args = parser.parse_args()
    card = Gpu(index=0, name=args.gpu, memory_total_mib=args.gpu_mib)
    boots = json.loads(args.truth.read_text("utf-8"))["boots"]
    rows = [compared(boot, args.models, card, args.context) for boot in boots]
    result: dict[str, Any] = {"n": len(rows)}
    keys = (
        "weights_error_pct",
        "kv_bytes_per_token_error_pct",
        "non_kv_error_mib",
        "kv_tokens_error_pct",
        "device_error_mib",
    )
    for key in keys:
        values = [row[key] for row in rows if key in row]
        if not values:
            continue
        result[key], result[f"{key}_mean"] = max(values), round(fmean(values), 3)
        result[f"{key}_spread"] = spread(values)
    inside = [part["inside_90"] for row in rows for part in row["components"].values()]
    result["coverage_90"], result["coverage_n"] = round(sum(inside) / len(inside), 3), len(inside)
    finish(result | {"boots": rows, "machine": machine()}, args.json)


if __name__ == "__main__":
    main()
