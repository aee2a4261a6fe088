"""What other tools say a model needs; run in an environment of theirs, without a network.

python _memory_rivals.py < QUESTION, one JSON object: {"context": tokens, "models": {name: folder with its
config.json}, "files": {name: GGUF}, "gpus": numbers of cards that the GGUFs are shared over}. One JSON object
comes back, bytes throughout. Tools that ask the hub are run through their own entry points, with a folder in
the hub's place: what a checkpoint of the model would have in its safetensors header is written there first.
"""

from __future__ import annotations

import json
import struct
import sys
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from importlib import import_module, metadata
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

_PLENTY_BYTES = 500 * 2**30
_Header = dict[str, dict[str, Any]]


def accelerate_bytes(folder: Path) -> float:
    """Return the total that ``accelerate estimate-memory`` prints for the dtype nearest to the weights."""
    estimate = import_module("accelerate.commands.estimate")
    quantised = json.loads((folder / "config.json").read_text()).get("quantization_config") or {}
    dtype = {"fp8": "int8", "awq": "int4", "gptq": "int4", "mxfp4": "int4"}.get(
        str(quantised.get("quant_method")), "float16"
    )
    asked = Namespace(
        model_name=str(folder), library_name="transformers", dtypes=[dtype], trust_remote_code=False
    )
    on_hub = Namespace(config={}, library_name="transformers")
    with mock.patch.object(estimate, "verify_on_hub", return_value=on_hub):
        [[_, _, total, _]] = estimate.gather_data(asked)
    return float(total)


def header_of(folder: Path) -> _Header:
    """Return the safetensors header of a checkpoint of the model, read off transformers' own module."""
    transformers = import_module("transformers")
    config = transformers.AutoConfig.from_pretrained(folder)
    quantised = getattr(config, "quantization_config", None) or {}
    if quantised:
        del config.quantization_config
    with import_module("accelerate").init_empty_weights():
        model = transformers.AutoModelForCausalLM.from_config(config)
    header: _Header = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        header.update(_stored(name, list(tensor.shape), dict(quantised)))
    return header


def _stored(name: str, shape: list[int], quantised: dict[str, Any]) -> _Header:
    """Return what a checkpoint stores for one weight: itself, or its packed form, scales and zero points."""
    method = quantised.get("quant_method")
    linear = name.endswith("proj.weight")
    if method == "awq" and linear:
        rows, columns = shape
        group = quantised["group_size"]
        stem = name.removesuffix("weight")
        return {
            f"{stem}qweight": {"dtype": "I32", "shape": [columns, rows // 8]},
            f"{stem}qzeros": {"dtype": "I32", "shape": [columns // group, rows // 8]},
            f"{stem}scales": {"dtype": "F16", "shape": [columns // group, rows]},
        }
    if method == "fp8" and linear:
        block = quantised["weight_block_size"]
        scales = [-(-size // each) for size, each in zip(shape, block, strict=True)]
        return {
            name: {"dtype": "F8_E4M3", "shape": shape},
            f"{name}_scale_inv": {"dtype": "F32", "shape": scales},
        }
    if method == "mxfp4" and ".experts." in name and len(shape) == 3:
        experts, columns, rows = shape
        return {
            f"{name}_blocks": {"dtype": "U8", "shape": [experts, rows, columns // 32, 16]},
            f"{name}_scales": {"dtype": "U8", "shape": [experts, rows, columns // 32]},
        }
    return {name: {"dtype": "BF16", "shape": shape}}


def hf_mem_bytes(name: str, context: int, gguf_file: str | None = None) -> dict[str, Any]:
    """Return hf-mem's weights and KV of one request; ``auto`` cache type, bf16 where it refuses that."""
    run = import_module("hf_mem").run
    asked: dict[str, Any] = {"experimental": True, "max_model_len": context, "gguf_file": gguf_file}
    refused = None
    try:
        result = run(name, **asked)
    except RuntimeError as error:
        refused = str(error)[:120]
        result = run(name, kv_cache_dtype="bfloat16", **asked)
    return {"weights": result.memory, "kv": result.kv_cache, "refused_auto": refused}


def stand_in_for_hub(hub: Path) -> None:
    """Have every client of httpx2 find a folder in the hub's place: one folder in it a model."""
    httpx2 = import_module("httpx2")
    real = httpx2.AsyncClient

    def answer(request: Any) -> Any:
        path = request.url.path.strip("/")
        if path.startswith("api/models/"):
            name = path.removeprefix("api/models/").split("/tree/")[0]
            files = [{"path": file.name, "type": "file"} for file in (hub / name).iterdir()]
            return httpx2.Response(200, json=files)
        name, file_name = path.split("/resolve/main/")
        asked = request.headers.get("range")
        with (hub / name / file_name).open("rb") as file:
            if not asked:
                return httpx2.Response(200, content=file.read())
            first, last = map(int, asked.removeprefix("bytes=").split("-"))
            file.seek(first)
            return httpx2.Response(206, content=file.read(last - first + 1))

    def client(**values: Any) -> Any:
        return real(**{**values, "http2": False, "transport": httpx2.MockTransport(answer)})

    mock.patch.object(httpx2, "AsyncClient", client).start()


def xllamacpp_bytes(file: Path, context: int, cards: Sequence[int]) -> dict[str, float]:
    """Return what ``xllamacpp.memory`` wants of all GPUs together, every layer on them, by number of cards.

    Once as it comes, with 512 MiB set aside of each card, and once without.
    """
    memory = import_module("xllamacpp.memory")
    reader_of, kinds = memory._import_gguf()
    reader = reader_of(str(file), "r")
    laid_out = memory.dump_metadata_json(reader, str(file))
    found = {}
    # It would read the file anew for every question, and lay the tensors out once a metadata field.
    with (
        mock.patch.object(memory, "_import_gguf", return_value=(lambda *_: reader, kinds)),
        mock.patch.object(memory, "dump_metadata_json", return_value=laid_out),
    ):
        for count, as_is in product(cards, (True, False)):
            card = {"name": "CUDA", "memory_free": _PLENTY_BYTES} | ({} if as_is else {"memory_min": 0})
            said = memory.estimate_gpu_layers([card] * count, str(file), [], context, 512, 1, "f16")
            found[f"xllamacpp_{count}" + ("" if as_is else "_without_least")] = float(said.vram_size)
    return found


def main() -> None:
    asked = json.load(sys.stdin)
    context = asked["context"]
    found: dict[str, dict[str, Any]] = {"models": {}, "files": {}}
    with tempfile.TemporaryDirectory(prefix="hub-") as place:
        hub = Path(place)
        stand_in_for_hub(hub)
        for name, source in asked["models"].items():
            folder = hub / name
            folder.mkdir(parents=True)
            (folder / "config.json").write_text(Path(source, "config.json").read_text())
            row: dict[str, Any] = {"accelerate": accelerate_bytes(folder)}
            text = json.dumps(header_of(folder)).encode()
            (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
            row["hf_mem"] = hf_mem_bytes(name, context)
            found["models"][name] = row
        for name, source in asked["files"].items():
            folder = hub / "gguf" / name
            folder.mkdir(parents=True)
            (folder / "model.gguf").symlink_to(source)
            row = {"hf_mem": hf_mem_bytes(f"gguf/{name}", context, "model.gguf")}
            row |= xllamacpp_bytes(Path(source), context, asked["gpus"])
            found["files"][name] = row
    names = ("accelerate", "hf-mem", "transformers", "xllamacpp")
    found["versions"] = {name: metadata.version(name) for name in names}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
