"""Ask vLLM's own Python code what a model weighs and how it lays out its KV cache; no GPU, no weights.

    .venv-vllm/bin/python bench/vllm_oracle.py --models bench/shapes [NAME ...] --tp 1 --tp 2 --out FILE
        [--sources DIR] [--pp 2] [--max-model-len 8192] [--kv-cache-dtype fp8] [--brief]

Each model is built by vLLM's own class on torch's meta device, as one rank of a pretended world of H200 cards
(`subclasses of vLLM's own CUDA platform`, stand-ins for compiled extensions): parameters and buffers have
shapes and dtypes but no memory. Then vLLM's own code groups the layers and divides a given KV budget.
``--sources`` puts a folder that holds another version's ``vllm`` package first (its Python alone is enough).
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import logging
import os
import re
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from _pretended_gpu import CARD, enter_world, on_meta, pretend_h200

GIB = 1 << 30
_UNSAID = {
    "indexes_kv_by_block_stride",
    "compress_ratio",
    "cache_dtype_str",
    "mamba_cache_mode",
    "mamba_type",
}
BUDGETS_GIB = (4, 20, 64)
LENGTHS = (8192, 32768)
USUAL = {
    "dtype": "bfloat16",
    "block_size": 16,
    "kv_cache_dtype": "auto",
    "enable_prefix_caching": True,
    "mamba_cache_mode": "none",
    "max_num_batched_tokens": 8192,
    "max_num_seqs": 1024,
    "max_concurrent_batches": 2,
    "max_in_flight_tokens": 16384,
    "hybrid_manager": True,
}


def kind_of(name: str) -> str:
    """Strip layer and expert numbers from a tensor's name."""
    return re.sub(r"(?<=\.)\d+(?=\.)", "*", name)


def tensors_of(model: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield ``(class, name, tensor)`` for each parameter, buffer and stray tensor, each storage once.

    A view (W_UV of unquantised MLA, a tied head) has its storage counted where it is first met.
    """
    torch: Any = importlib.import_module("torch")

    seen: dict[int, Any] = {}
    for module_name, module in model.named_modules():
        strays = {k: v for k, v in vars(module).items() if isinstance(v, torch.Tensor)}
        pools = (("parameter", module._parameters), ("buffer", module._buffers), ("stray", strays))
        for label, pool in pools:
            for name, tensor in pool.items():
                if tensor is None or tensor.untyped_storage()._cdata in seen:
                    continue
                seen[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
                yield label, f"{module_name}.{name}".lstrip("."), tensor


def weigh(model: Any) -> dict[str, Any]:
    """Return bytes by class and kind of tensor, and by dtype; the allocator's 512-byte rounding apart."""
    kinds: dict[str, Counter[str]] = {}
    dtypes: Counter[str] = Counter()
    rounding = 0
    for label, name, tensor in tensors_of(model):
        size = tensor.untyped_storage().nbytes()
        kinds.setdefault(label, Counter())[kind_of(name)] += size
        if label == "parameter":
            dtypes[str(tensor.dtype).removeprefix("torch.")] += size
        rounding += -size % 512
    totals = {
        f"{label}_bytes": sum(kinds.get(label, Counter()).values()) for label in ("parameter", "buffer")
    }
    return {
        **totals,
        "rounding_to_512_bytes": rounding,
        "bytes_by_dtype": dict(dtypes),
        "kinds": {label: {k: v for k, v in counter.items() if v} for label, counter in kinds.items()},
    }


def grouped_small(kinds: dict[str, dict[str, int]]) -> dict[str, Any]:
    """Return ``kinds`` without stray tensors, small buffers (scales, one number a layer) summed."""
    buffers = kinds.get("buffer", {})
    large = {name: size for name, size in buffers.items() if size >= 1 << 16}
    rest = sum(buffers.values()) - sum(large.values())
    return {"parameter": kinds.get("parameter", {}), "buffer": {**large, "small": rest}}


def changes(loaded: dict[str, Any], settled: dict[str, Any]) -> dict[str, Any]:
    """Return the totals after processing, and by kind of tensor what differs from before."""
    result = {k: v for k, v in settled.items() if k.endswith("_bytes") and k != "rounding_to_512_bytes"}
    before = {n: b for kinds in loaded["kinds"].values() for n, b in kinds.items()}
    after = {n: b for kinds in settled["kinds"].values() for n, b in kinds.items()}
    moved = {n: after.get(n, 0) - before.get(n, 0) for n in before | after}
    changed = {n: by for n, by in moved.items() if abs(by) >= 1 << 12}
    return result if result | {"changed": changed} == result else result | {"changed": changed}


def plain(value: Any) -> Any:
    """Return ``value`` as JSON can say it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        said = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.name not in _UNSAID}
        if said.get("head_size_v") == said.get("head_size"):
            said.pop("head_size_v", None)
        fields = {k: plain(v) for k, v in said.items()}
        return {"class": type(value).__name__} | {
            k: v for k, v in fields.items() if v not in (None, False, "0")
        }
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, int | float | str | bool) or value is None:
        return value if type(value) in (int, float, str, bool, type(None)) else str(value)
    return str(value).removeprefix("torch.")


def spec_of(spec: Any) -> dict[str, Any]:
    """Return a layer's KV cache spec as JSON can say it; a group of unlike layers is named by its pages."""
    if hasattr(spec, "kv_cache_specs"):
        pages = Counter(s.page_size_bytes for s in spec.kv_cache_specs.values())
        return {
            "class": type(spec).__name__,
            "block_size": spec.block_size,
            "page_size_bytes": spec.page_size_bytes,
            "layers_by_page_bytes": {str(k): v for k, v in pages.items()},
        }
    return {**plain(spec), "page_size_bytes": spec.page_size_bytes}


def divide(config: Any, specs: Sequence[dict[str, Any]], budget: int, length: int) -> dict[str, Any]:
    """Return what vLLM makes of ``budget`` bytes a rank for the KV cache, at ``length`` tokens a request."""
    utils = importlib.import_module("vllm.v1.core.kv_cache_utils")
    config.model_config.max_model_len = config.scheduler_config.max_model_len = length
    try:
        configs = utils.get_kv_cache_configs(config, [dict(s) for s in specs], [budget] * len(specs))
    except ValueError as error:
        if "needed" not in str(error) and "No available" not in str(error):
            raise
        longest = re.search(r"maximum model length is (\d+)", str(error))
        return {"longest": int(longest[1]) if longest else 0}
    first = configs[0]
    tokens, concurrency = (0, 0.0)
    if first.kv_cache_groups:
        tokens, concurrency = utils.get_kv_cache_capacity(config, first)
    need = [utils._max_memory_usage_bytes_from_groups(config, c.kv_cache_groups) for c in configs]
    return {
        "num_blocks": first.num_blocks,
        "tokens": tokens,
        "concurrency": round(concurrency, 4),
        "request_bytes": need if len(need) > 1 else need[0],
    }


def pools(config: Any, specs: Sequence[dict[str, Any]], lengths: Sequence[int]) -> dict[str, Any]:
    """Return by request length: bytes of one request, and by budget in GiB what it comes to.

    A budget's entry is ``[blocks, tokens, concurrency]``, or ``{"longest": tokens}`` where vLLM refuses.
    """
    result: dict[str, Any] = {}
    for length in lengths:
        made = {f"{gib}": divide(config, specs, gib * GIB, length) for gib in BUDGETS_GIB}
        entry: dict[str, Any] = {"request_bytes": divide(config, specs, 1 << 50, length)["request_bytes"]}
        for gib, said in made.items():
            short = (
                [said[key] for key in ("num_blocks", "tokens", "concurrency")] if "tokens" in said else said
            )
            entry[gib] = short
        result[f"{length}"] = entry
    return result


def grouping(config: Any, specs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return vLLM's KV cache groups, like ones together: spec, and layers of each (by stage)."""
    utils = importlib.import_module("vllm.v1.core.kv_cache_utils")
    merged = {name: spec for rank in specs for name, spec in rank.items()}
    groups = utils.get_kv_cache_groups(config, dict(merged))
    alike: dict[str, list[Any]] = {}
    for group in groups:
        layers = [sum(name in rank for name in group.layer_names) for rank in specs]
        spec = json.dumps(spec_of(group.kv_cache_spec), sort_keys=True)
        alike.setdefault(spec, []).append(layers if len(specs) > 1 else layers[0])
    return [{"layers_of_each": layers, "spec": json.loads(spec)} for spec, layers in alike.items()]


class Oracle:
    """Builds one model folder in one pretended world after another."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder = folder
        self.options = options

    def config(self, tp: int, pp: int) -> Any:
        """Return vLLM's own configuration, as ``vllm serve`` would make it on the pretended host."""
        args = importlib.import_module("vllm.engine.arg_utils")
        usage = importlib.import_module("vllm.usage.usage_lib").UsageContext
        engine = args.EngineArgs(
            model=str(self.folder),
            skip_tokenizer_init=True,
            load_format="dummy",
            dtype=self.options.dtype,
            kv_cache_dtype=self.options.kv_cache_dtype,
            tensor_parallel_size=tp,
            pipeline_parallel_size=pp,
            max_model_len=min(self.options.max_model_len, own_length(self.folder)),
            distributed_executor_backend="mp" if tp * pp > 1 else "uni",
            disable_custom_all_reduce=True,
            **(
                {}
                if self.options.prefix_caching is None
                else {"enable_prefix_caching": self.options.prefix_caching}
            ),
        )
        return engine.create_engine_config(usage_context=usage.OPENAI_API_SERVER)

    def build(self, config: Any) -> Any:
        """Return the model on the meta device, as this rank would have it before weights are loaded."""
        torch: Any = importlib.import_module("torch")

        loader = importlib.import_module("vllm.model_executor.model_loader.utils")
        rope = importlib.import_module("vllm.model_executor.layers.rotary_embedding")
        getattr(rope, "_ROPE_DICT", {}).clear()
        before = torch.get_default_dtype()
        torch.set_default_dtype(config.model_config.dtype)
        try:
            with on_meta():
                return loader.initialize_model(vllm_config=config)
        finally:
            torch.set_default_dtype(before)

    def settle(self, model: Any, config: Any) -> str | None:
        """Run vLLM's processing after loading on the meta device; return why it could not, or None."""
        torch: Any = importlib.import_module("torch")

        loader = importlib.import_module("vllm.model_executor.model_loader.utils")
        current = importlib.import_module("vllm.config")
        before = torch.get_default_dtype()
        torch.set_default_dtype(config.model_config.dtype)
        try:
            with on_meta(), current.set_current_vllm_config(config):
                loader.process_weights_after_loading(model, config.model_config, torch.device("meta"))
        except Exception as error:
            if self.options.trace:
                traceback.print_exc()
            return f"{type(error).__name__}: {str(error)[:160]}"
        finally:
            torch.set_default_dtype(before)
        return None

    def specs(self, config: Any) -> dict[str, Any]:
        """Return the KV cache spec of each layer of this rank, block sizes settled as the executor does."""
        platforms = importlib.import_module("vllm.platforms")
        platforms.current_platform.update_block_size_for_backend(config)
        runner = importlib.import_module("vllm.v1.worker.gpu.attn_utils")
        found: dict[str, Any] = runner.get_kv_cache_spec(config)
        backends: Any = importlib.import_module("vllm.v1.attention.backends.utils")
        if hasattr(backends, "resolve_kv_cache_layout") and found:  # newer vLLM: the engine core chooses once
            supported = layouts_of(config)
            backends.resolve_kv_cache_layout(config, [supported], list(found.values()))
        return found

    def ask(self, tp: int, pp: int) -> dict[str, Any]:
        """Return all that is recorded of one model in one world: a ``stages`` entry a pipeline stage."""
        stages, specs, config = [], [], None
        for pp_rank in range(pp):
            weighed = []
            for tp_rank in sorted({0, tp - 1}):
                enter_world(tp, pp, tp_rank, pp_rank)
                config = self.config(tp, pp)
                model = self.build(config)
                found = self.specs(config)
                stage = weigh(model)
                failed = self.settle(model, config)
                settled = weigh(model)
                if failed:
                    stage["settled"] = {"failed": failed}
                elif settled != stage:
                    stage["settled"] = changes(stage, settled)
                if self.options.brief or tp >= self.options.brief_from or pp > 1:
                    for key in ("kinds", "bytes_by_dtype"):
                        stage.pop(key)
                else:
                    stage["kinds"] = grouped_small(stage["kinds"])
                weighed.append(stage)
            stages.append(weighed[0] | ({"last_tp_rank": weighed[-1]} if weighed[0] != weighed[-1] else {}))
            specs.append(found)
        assert config is not None
        return {"stages": stages, **self.layout(config, specs)}

    def unusual(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Return the settings that are not those of most models (`USUAL`)."""
        return {key: value for key, value in settings.items() if value != USUAL.get(key)}

    def layout(self, config: Any, specs: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the cache settings, the layers' specs, the groups, and what budgets come to."""
        cache, scheduler = config.cache_config, config.scheduler_config
        layers = Counter(json.dumps(spec_of(s), sort_keys=True) for rank in specs for s in rank.values())
        result: dict[str, Any] = {
            "settings": self.unusual(
                {
                    "dtype": plain(config.model_config.dtype),
                    "block_size": cache.block_size,
                    "kv_cache_dtype": cache.cache_dtype,
                    "enable_prefix_caching": cache.enable_prefix_caching,
                    "mamba_cache_mode": getattr(cache, "mamba_cache_mode", None),
                    "mamba_block_size": cache.mamba_block_size,
                    "mamba_page_size_padded": cache.mamba_page_size_padded,
                    "max_num_batched_tokens": scheduler.max_num_batched_tokens,
                    "max_num_seqs": scheduler.max_num_seqs,
                    "max_concurrent_batches": config.max_concurrent_batches,
                    "max_in_flight_tokens": getattr(config, "max_in_flight_tokens", None),
                    "hybrid_manager": not scheduler.disable_hybrid_kv_cache_manager,
                    "quantization": config.model_config.quantization,
                    "backends": backends_of(config),
                }
            ),
            "layers": [{"count": n, **json.loads(text)} for text, n in layers.items()],
        }
        try:
            result["groups"] = grouping(config, specs)
        except Exception as error:
            return result | {"groups_refused": f"{type(error).__name__}: {error}"}
        grouped = {json.dumps(g["spec"], sort_keys=True) for g in result["groups"]}
        if grouped == set(layers):
            del result["layers"]  # the groups say the same
        lengths = sorted({min(length, own_length(self.folder)) for length in LENGTHS})
        return result | {"pools": pools(config, specs, lengths)}


def backends_of(config: Any) -> dict[str, int]:
    """Return how many layers use which attention backend."""
    layers = config.compilation_config.static_forward_context.values()
    found = [layer.get_attn_backend() for layer in layers if hasattr(layer, "get_attn_backend")]
    return dict(Counter(backend.get_name() for backend in found))


def layouts_of(config: Any) -> list[str]:
    """Return the cache layouts that every backend of the model supports (newer vLLM)."""
    base: Any = importlib.import_module("vllm.v1.worker.worker_base")
    backends = base.get_current_attn_backends(config)
    return [layout.name for layout in base.get_supported_kv_cache_layouts(backends)]


def own_length(folder: Path) -> int:
    """Return the longest request the model's config allows."""
    config = json.loads((folder / "config.json").read_text())
    return int(config.get("model_max_length") or config.get("max_position_embeddings") or 1 << 20)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*")
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--tp", type=int, action="append")
    parser.add_argument("--pp", type=int, action="append")
    parser.add_argument("--max-model-len", type=int, default=8192)
    parser.add_argument("--kv-cache-dtype", default="auto")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--prefix-caching", action=argparse.BooleanOptionalAction, default=None)
    parser.add_argument("--sources", type=Path)
    parser.add_argument("--brief", action="store_true", help="leave out bytes by kind of tensor")
    parser.add_argument("--brief-from", type=int, default=4, help="leave them out at this TP and above")
    parser.add_argument("--trace", action="store_true", help="print a traceback of each refusal")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.sources:
        sys.path.insert(0, str(options.sources.resolve()))
    os.environ.setdefault("VLLM_CACHE_ROOT", tempfile.mkdtemp(prefix="vllm-oracle-"))
    os.environ.update(HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1", VLLM_LOGGING_LEVEL="ERROR")
    pretend_h200()
    logging.disable(logging.WARNING if not options.trace else logging.INFO)
    vllm = importlib.import_module("vllm")

    folders = [options.models / n for n in options.names] or sorted(options.models.iterdir())
    models = {
        folder.name: {
            f"tp{tp}pp{pp}": answer(Oracle(folder, options), tp, pp, options)
            for pp in options.pp or [1]
            for tp in options.tp or [1]
        }
        for folder in folders
        if (folder / "config.json").is_file()
    }
    about = {
        key: getattr(options, key) for key in ("dtype", "kv_cache_dtype", "prefix_caching", "max_model_len")
    }
    lines = [
        f"{json.dumps(name)}: {json.dumps(worlds, separators=(',', ':'))}" for name, worlds in models.items()
    ]
    head = json.dumps({"vllm": vllm.__version__, "card": CARD, "asked": about, "usual_settings": USUAL})[:-1]
    text = head + ', "models": {\n' + ",\n".join(lines) + "\n}}\n"
    if options.out:
        options.out.write_text(text)
    else:
        print(text)


def answer(oracle: Oracle, tp: int, pp: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return what is recorded of one model in one world, or vLLM's refusal in its own words."""
    try:
        said = oracle.ask(tp, pp)
    except Exception as error:
        if options.trace:
            traceback.print_exc()
        words = re.sub(r"\s*\[type=.*", "", str(error), flags=re.DOTALL)
        if not words:  # an assertion without words: say which
            frame = traceback.extract_tb(error.__traceback__)[-1]
            words = f"{type(error).__name__}: {frame.line} ({Path(frame.filename).name}, {frame.name})"
        said = {"refused": re.sub(r"^.*Value error, ", "", words, flags=re.DOTALL)}
    stage = said.get("stages", [{}])[0]
    total = sum(stage.get(f"{k}_bytes", 0) for k in ("parameter", "buffer"))
    failed = stage.get("settled", {}).get("failed", "")
    print(
        f"{oracle.folder.name} tp{tp} pp{pp} {total / GIB:.3f} GiB {failed}{said.get('refused', '')}",
        file=sys.stderr,
    )
    return said


if __name__ == "__main__":
    main()
