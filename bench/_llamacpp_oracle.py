"""Ask llama.cpp itself what it would allocate: its own library, a header alone, and GPUs that are not there.

xllamacpp's library has llama.cpp's C functions in it. With ``no_alloc`` it reads a GGUF header, places every
tensor, builds the graphs and lays out the buffers, and allocates nothing: what `llama-fit-params` does. GPUs
are stand-ins (`_llamacpp_standins.py`). So the split over devices, the KV and the layout of the compute
buffers are llama.cpp's own; what CUDA takes beside its buffers (context, kernels, temporary pools) does not
show.

Run as a script: one JSON object a line on stdin (fields of `Question`), one answer a line on stdout.
The struct layouts are of the release that `LAYOUT` names; another is refused, not guessed at.
"""

from __future__ import annotations

import ctypes
import json
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from _llamacpp_standins import Library, StandIns

#: The xllamacpp release whose structs are described here; ``check_layout`` looks at the bytes themselves.
LAYOUT = "2026.10.11549"
_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "bf16": 30}
_SPLIT_MODES = {"none": 0, "layer": 1, "row": 2, "tensor": 3}
_POINTER = ctypes.c_void_p


@dataclass(frozen=True, slots=True)
class Question:
    """What to ask: a file and the settings that decide its memory, in llama.cpp's terms.

    Args:
        file: A GGUF; a header over a hole is enough.
        gpus: Free MiB of each stand-in GPU; all questions of one process must name as many.
        outputs: ``n_outputs_max``; the server sets its slots.
    """

    file: str
    gpus: tuple[float, ...] = ()
    context_tokens: int = 4096
    parallel: int = 1
    batch_tokens: int = 2048
    micro_batch_tokens: int = 512
    gpu_layers: int = -1
    split_mode: str = "layer"
    tensor_split: tuple[float, ...] = ()
    main_gpu: int = 0
    kv_type_k: str = "f16"
    kv_type_v: str = "f16"
    flash_attention: bool | None = None
    kv_unified: bool = False
    outputs: int | None = None


class _ModelParams(ctypes.Structure):
    _fields_ = [
        ("devices", _POINTER),
        ("tensor_buft_overrides", _POINTER),
        ("n_gpu_layers", ctypes.c_int32),
        ("split_mode", ctypes.c_int32),
        ("load_mode", ctypes.c_int32),
        ("lazy_mode", ctypes.c_int32),
        ("main_gpu", ctypes.c_int32),
        ("tensor_split", _POINTER),
        ("progress_callback", _POINTER),
        ("progress_callback_user_data", _POINTER),
        ("kv_overrides", _POINTER),
        ("vocab_only", ctypes.c_bool),
        ("check_tensors", ctypes.c_bool),
        ("use_extra_bufts", ctypes.c_bool),
        ("no_host", ctypes.c_bool),
        ("no_alloc", ctypes.c_bool),
        ("load_mtp", ctypes.c_bool),
    ]


class _ContextParams(ctypes.Structure):
    _fields_ = [
        ("n_ctx", ctypes.c_uint32),
        ("n_batch", ctypes.c_uint32),
        ("n_ubatch", ctypes.c_uint32),
        ("n_seq_max", ctypes.c_uint32),
        ("n_rs_seq", ctypes.c_uint32),
        ("n_outputs_max", ctypes.c_uint32),
        ("n_outputs_max_per_seq", ctypes.c_uint32),
        ("n_threads", ctypes.c_int32),
        ("n_threads_batch", ctypes.c_int32),
        ("ctx_type", ctypes.c_int32),
        ("rope_scaling_type", ctypes.c_int32),
        ("pooling_type", ctypes.c_int32),
        ("attention_type", ctypes.c_int32),
        ("flash_attn_type", ctypes.c_int32),
        ("rope_and_yarn", ctypes.c_uint32 * 8),
        ("cb_eval", _POINTER),
        ("cb_eval_user_data", _POINTER),
        ("type_k", ctypes.c_int32),
        ("type_v", ctypes.c_int32),
        ("abort_callback", _POINTER),
        ("abort_callback_data", _POINTER),
        ("unnamed", ctypes.c_uint64),
        ("embeddings", ctypes.c_bool),
        ("offload_kqv", ctypes.c_bool),
        ("no_perf", ctypes.c_bool),
        ("op_offload", ctypes.c_bool),
        ("swa_full", ctypes.c_bool),
        ("kv_unified", ctypes.c_bool),
        ("samplers", _POINTER),
        ("n_samplers", ctypes.c_size_t),
        ("ctx_other", _POINTER),
    ]


def check_layout(library: Library) -> None:
    """Refuse a library whose structs are not those described above.

    Raises:
        SystemExit: The default parameters do not lie where they should.
    """
    model, context = _defaults(library)
    expected = (-1, 1, -1, 1, 0, True, False), (512, 2048, 512, 1, 1, -1, 1, 1, True, True, True, False)
    found = (
        (
            model.n_gpu_layers,
            model.split_mode,
            model.load_mode,
            model.lazy_mode,
            model.main_gpu,
            model.use_extra_bufts,
            model.no_alloc,
        ),
        (
            context.n_ctx,
            context.n_batch,
            context.n_ubatch,
            context.n_seq_max,
            context.n_outputs_max_per_seq,
            context.flash_attn_type,
            context.type_k,
            context.type_v,
            context.offload_kqv,
            context.op_offload,
            context.swa_full,
            context.kv_unified,
        ),
    )
    if found != expected:
        release = metadata.version("xllamacpp")
        sys.exit(f"xllamacpp {release} lays out its parameters otherwise than {LAYOUT}: {found}")


def _defaults(library: Library) -> tuple[_ModelParams, _ContextParams]:
    return (
        library.function("llama_model_default_params", _ModelParams)(),
        library.function("llama_context_default_params", _ContextParams)(),
    )


class Oracle:
    """llama.cpp with as many stand-in GPUs as asked for; one a process."""

    def __init__(self, gpus: int) -> None:
        self._library = Library()
        check_layout(self._library)
        self._log: list[str] = []
        kind = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, _POINTER)
        self._logger = kind(self._keep)
        self._library.function("llama_log_set", None, kind, _POINTER)(self._logger, None)
        self._library.function("llama_backend_init", None)()
        self._devices = StandIns(self._library, [0.0] * gpus)
        if gpus:
            self._devices.register()

    def _keep(self, level: int, text: bytes, _: int) -> None:
        # 1 is DEBUG: thousands of lines of the graph's inputs.
        if level != 1:
            self._log.append(text.decode(errors="replace"))

    def ask(self, question: Question) -> dict[str, Any]:
        """Return llama.cpp's memory by buffer type (bytes), and its log; ``error`` if it refuses."""
        self._log.clear()
        self._devices.free_mib[:] = question.gpus
        load = self._library.function("llama_model_load_from_file", _POINTER, ctypes.c_char_p, _ModelParams)
        model_params, context_params, _kept = self._params(question)
        model = load(question.file.encode(), model_params)
        if not model:
            return {"error": "no model", "log": "".join(self._log)}
        start = self._library.function("llama_init_from_model", _POINTER, _POINTER, _ContextParams)
        context = start(model, context_params)
        answer: dict[str, Any] = {"error": None if context else "no context"}
        if context:
            answer["buffers"] = self._breakdown(context)
            self._library.function("llama_free", None, _POINTER)(context)
        self._library.function("llama_model_free", None, _POINTER)(model)
        return answer | {"log": "".join(self._log)}

    def _params(self, question: Question) -> tuple[_ModelParams, _ContextParams, Any]:
        model, context = _defaults(self._library)
        model.n_gpu_layers, model.split_mode = question.gpu_layers, _SPLIT_MODES[question.split_mode]
        model.main_gpu, model.no_alloc, model.load_mode = question.main_gpu, True, 0
        shares = (ctypes.c_float * 128)(*question.tensor_split)
        model.tensor_split = ctypes.addressof(shares) if question.tensor_split else None
        context.n_ctx, context.n_seq_max = question.context_tokens, question.parallel
        context.n_batch, context.n_ubatch = question.batch_tokens, question.micro_batch_tokens
        context.n_outputs_max = question.outputs or question.parallel
        context.n_threads = context.n_threads_batch = 1
        wanted = question.flash_attention
        context.flash_attn_type = -1 if wanted is None else int(wanted)
        context.type_k, context.type_v = _TYPES[question.kv_type_k], _TYPES[question.kv_type_v]
        context.swa_full, context.kv_unified = False, question.kv_unified
        return model, context, shares

    def _breakdown(self, context: int) -> dict[str, dict[str, int]]:
        """Read the std::map<buffer type, {model, context, compute}> that llama.cpp fills, node by node."""
        tree = (ctypes.c_uint64 * 6)()
        name = self._library.function("ggml_backend_buft_name", ctypes.c_char_p, _POINTER)
        fill = self._library.function(
            "_Z26llama_get_memory_breakdownPK13llama_context", _POINTER, _POINTER, _POINTER
        )
        fill(ctypes.addressof(tree), context)
        found: dict[str, dict[str, int]] = {}
        nodes = [tree[2]]
        while nodes:
            node = nodes.pop()
            if not node:
                continue
            # A node: colour, parent, left, right; then the key and the three sizes.
            _, _, left, right, key, *sizes = (ctypes.c_uint64 * 8).from_address(node)
            found[name(key).decode()] = dict(zip(("model", "context", "compute"), sizes, strict=True))
            nodes += [left, right]
        return found


def question_of(text: str) -> Question:
    """Read a question from its JSON."""
    values = json.loads(text)
    for name in ("gpus", "tensor_split"):
        values[name] = tuple(values.get(name, ()))
    return Question(**values)


def question_json(question: Question) -> str:
    """Write a question as one line of JSON."""
    return json.dumps(asdict(question))


def _main() -> None:
    oracle: Oracle | None = None
    for line in sys.stdin:
        question = question_of(line)
        if not Path(question.file).is_file():
            sys.exit(f"no file {question.file}")
        oracle = oracle or Oracle(len(question.gpus))
        print(json.dumps(oracle.ask(question)), flush=True)


if __name__ == "__main__":
    _main()
