"""How close the estimate of llama.cpp's memory comes to what llama.cpp says itself.

    .venv/bin/python bench/llamacpp_accuracy.py [--json] [--executable PATH_TO_llama-fit-params] [--quick]
        [--record FILE] [--gpus N]

Three comparisons, in MiB: (1) models of the testbed and one of a real 1B shape, really loaded by our own
child process; their logs, against the estimate and against the oracle. (2) Headers of real models, in many
setups, without a GPU and with one, two and three stand-ins for GPUs; llama.cpp's own reserve, against the
estimate. The closed forms of the compute buffers were read off the models in ``DERIVED``; ``held_out`` are
models and random shapes that were not looked at. (3) With ``--executable``, a real ``llama-fit-params`` (a
CUDA build, say, on a host with ``--gpus`` GPUs) is asked instead of the oracle, in whole MiB.

On a machine without CUDA, the CUDA context and CUDA's pool of temporaries are formula only: nothing here says
anything of them.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import _bench
from _llamacpp_oracle import Question, question_json

_ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(_ROOT))  # for the writer of headers, which the tests share

from subcortex.engines._llamacpp_memory import read_boot  # noqa: E402
from subcortex.hardware import Gpu  # noqa: E402
from subcortex.models.shape import ModelShape  # noqa: E402
from subcortex.vram.footprint import Component  # noqa: E402
from subcortex.vram.llamacpp import HOST, footprint, placement  # noqa: E402
from subcortex.vram.llamacpp.buffers import output_bytes, run_of  # noqa: E402
from subcortex.vram.llamacpp.devices import compute_bytes, kept_bytes, summed, weights_bytes  # noqa: E402
from subcortex.vram.setup import LlamaCppSetup  # noqa: E402
from tests.models.synthetic import Shape  # noqa: E402
from tests.vram.llamacpp_cases import MODELS, header, model_shape  # noqa: E402

_MIB = 2**20
KINDS = ("model", "context", "compute")
#: What the closed forms were read off.
DERIVED = (
    ("llama-3.1-8b", "Q4_K_M"),
    ("qwen2.5-7b", "Q4_K_M"),
    ("r1-distill-qwen-14b", "Q4_K_M"),
    ("gemma-3-12b", "Q4_K_M"),
    ("qwen3-30b-a3b", "Q4_K_M"),
    ("deepseek-v2-lite", "Q4_K_M"),
)
HELD_OUT = (
    ("llama-3.1-8b", "Q6_K"),
    ("r1-distill-qwen-14b", "Q5_K_M"),
    ("qwen2.5-32b", "Q4_K_M"),
    ("mistral-7b", "Q4_K_M"),
    ("llama-3.1-70b", "Q4_K_M"),
    ("llama-3.2-1b", "Q8_0"),
    ("qwen3-8b", "Q8_0"),
    ("qwen2.5-0.5b", "Q4_K_M"),
    ("gemma-3-4b", "Q4_K_M"),
    ("mixtral-8x7b", "Q4_K_M"),
)
GPU_SETS: tuple[tuple[float, ...], ...] = (
    (),
    (500_000.0,),
    (160_000.0, 80_000.0),
    (80_000.0, 160_000.0, 120_000.0),
)


@dataclass(frozen=True, slots=True)
class Case:
    """One question: a model, the GPUs, and the setup."""

    model: str
    quantization: str
    gpus: tuple[float, ...]
    setup: LlamaCppSetup

    @property
    def shape(self) -> ModelShape:
        return model_shape(self.model, self.quantization)

    def question(self, folder: Path) -> Question:
        setup = self.setup
        return Question(
            file=str(header(folder, self.model, self.quantization)),
            gpus=self.gpus,
            context_tokens=setup.context_tokens or 0,
            parallel=setup.parallel,
            batch_tokens=setup.batch_tokens,
            micro_batch_tokens=setup.micro_batch_tokens,
            gpu_layers=-1 if setup.gpu_layers is None else setup.gpu_layers,
            split_mode=setup.split_mode,
            tensor_split=setup.tensor_split or (),
            kv_type_k=setup.kv_type_k,
            kv_type_v=setup.kv_type_v,
            flash_attention=setup.flash_attention,
            kv_unified=bool(setup.kv_unified),
        )


def grid(models: Sequence[tuple[str, str]], gpus: tuple[float, ...], quick: bool) -> Iterator[Case]:
    contexts, micro = ((2048, 32768), (512,)) if quick else ((2048, 8192, 32768), (128, 512, 2048))
    slots = ((1, False), (4, False)) if quick else ((1, False), (3, False), (4, True))
    layers: tuple[int | None, ...] = (999, 10) if gpus else (0,)
    for (model, quantization), context, ubatch, flash, (parallel, unified), kv, loaded in itertools.product(
        models, contexts, micro, (True, False), slots, ("f16", "q8_0"), layers
    ):
        # A quantised V needs flash attention; a partial load in one KV type and batch size is enough.
        if (kv != "f16" and not flash) or (loaded == 10 and (kv, ubatch) != ("f16", 512)):
            continue
        setup = LlamaCppSetup(
            context_tokens=context,
            parallel=parallel,
            micro_batch_tokens=ubatch,
            gpu_layers=loaded,
            tensor_split=(3.0, 1.0) if len(gpus) == 2 and parallel == 4 else None,
            kv_type_k=kv,
            kv_type_v=kv,
            flash_attention=flash,
            kv_unified=unified,
        )
        yield Case(model, quantization, gpus, setup)


def invented(count: int) -> list[tuple[str, str]]:
    """Add shapes that nobody trained to ``MODELS``: none of the closed forms has seen them."""
    chance = random.Random(7)
    names = []
    for index in range(count):
        heads, kv_heads = chance.choice(((16, 4), (24, 8), (32, 8), (40, 8), (48, 8), (64, 4)))
        size, hidden = chance.choice((64, 128)), 256 * chance.randint(6, 26)
        shape = Shape(
            layers=chance.randint(3, 12),
            hidden=hidden,
            intermediate=256 * (hidden * chance.randint(20, 45) // 2560),
            heads=heads,
            kv_heads=kv_heads,
            head_dim=size,
            vocab=chance.choice((32000, 128256, 151936)),
            tied=chance.random() < 0.3,
            context=131072,
        )
        architecture = chance.choice(("llama", "qwen3", "gemma3", "qwen3moe"))
        if architecture == "gemma3":
            shape = replace(shape, sliding_window=chance.choice((512, 1024, 4096)), tied=True)
        if architecture == "qwen3moe":
            wide = 256 * chance.randint(2, 8)
            shape = replace(
                shape, experts=16, experts_used=chance.choice((2, 4, 8)), expert_intermediate=wide
            )
        MODELS[f"invented-{index}"] = (architecture, shape)
        names.append((f"invented-{index}", "Q4_K_M"))
    return names


def estimated(case: Case) -> list[dict[str, float]]:
    """Return the estimate of each GPU and, last, of the host; MiB."""
    shape, setup = case.shape, case.setup
    gpus = [Gpu(index=index, name="stand-in", memory_total_mib=mib) for index, mib in enumerate(case.gpus)]
    placed, model, run = placement(shape, setup, gpus), summed(shape), run_of(shape, setup)
    found = (
        weights_bytes(model, setup, placed),
        kept_bytes(shape, setup, run, placed),
        compute_bytes(model, setup, run, placed),
    )
    return [
        {kind: part[device] / _MIB for kind, part in zip(KINDS, found, strict=True)}
        for device in (*range(placed.gpus), HOST)
    ]


def sigmas(case: Case) -> list[float]:
    """Return σ of each compute buffer, in the order of `estimated`."""
    gpus = [Gpu(index=index, name="stand-in", memory_total_mib=mib) for index, mib in enumerate(case.gpus)]
    found = footprint(case.shape, case.setup, gpus)
    return [need.of(Component.ACTIVATIONS).sigma_mib for need in (*found.devices, found.host)]


def ask_oracle(questions: Sequence[Question]) -> list[dict[str, Any]]:
    """Ask them in processes of their own, one for each number of GPUs."""
    answers: dict[int, dict[str, Any]] = {}
    for count in sorted({len(question.gpus) for question in questions}):
        chosen = [index for index, question in enumerate(questions) if len(question.gpus) == count]
        child = subprocess.run(
            [sys.executable, str(_ROOT / "bench/_llamacpp_oracle.py")],
            input="".join(question_json(questions[index]) + "\n" for index in chosen),
            capture_output=True,
            text=True,
        )
        if child.returncode:
            sys.exit(f"the oracle ended with {child.returncode}: {child.stderr[-2000:]}")
        lines = child.stdout.splitlines()
        answers.update({index: json.loads(line) for index, line in zip(chosen, lines, strict=True)})
    return [answers[index] for index in range(len(questions))]


def ask_executable(program: str, questions: Sequence[Question]) -> list[dict[str, Any]]:
    """Ask a ``llama-fit-params``, which prints a line a device: name, and model, context, compute in MiB."""
    row = re.compile(r"^(CUDA\d+|ROCm\d+|Host) +(\d+) +(\d+) +(\d+) *$", re.MULTILINE)
    answers = []
    for asked in questions:
        command = [program, "-m", asked.file, "-c", str(asked.context_tokens), "-np", str(asked.parallel)]
        command += ["-b", str(asked.batch_tokens), "-ub", str(asked.micro_batch_tokens)]
        command += ["-ngl", str(asked.gpu_layers), "-sm", asked.split_mode]
        command += ["-ctk", asked.kv_type_k, "-ctv", asked.kv_type_v]
        command += ["-fa", "off" if asked.flash_attention is False else "on"]
        command += ["--fit", "off", "--fit-print", "on"]
        if asked.tensor_split:
            command += ["-ts", ",".join(f"{share:g}" for share in asked.tensor_split)]
        if asked.kv_unified:
            command.append("--kv-unified")
        ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
        found = {
            name: dict(zip(KINDS, (int(size) * _MIB for size in sizes), strict=True))
            for name, *sizes in row.findall(ran.stdout)
        }
        answers.append({"error": None if found else ran.stderr[-500:], "buffers": found})
    return answers


def said(answer: dict[str, Any], gpus: int) -> list[dict[str, float]]:
    """Return llama.cpp's MiB of each GPU and, last, of the host."""
    found = [dict.fromkeys(KINDS, 0.0) for _ in range(gpus + 1)]
    for name, sizes in answer["buffers"].items():
        device = re.fullmatch(r"(?:CUDA|ROCm)(\d+)", name)
        for kind in KINDS:
            found[int(device[1]) if device else gpus][kind] += sizes[kind] / _MIB
    return found


def compare(cases: Sequence[Case], answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the errors: of weights and KV in percent, of compute buffers in MiB and in σ."""
    errors: dict[str, list[float]] = {kind: [] for kind in KINDS}
    shares: dict[str, list[float]] = {kind: [] for kind in KINDS}
    inside: list[float] = []
    refused, worst = 0, (0.0, "")
    for case, answer in zip(cases, answers, strict=True):
        if answer["error"]:
            refused += 1
            continue
        rows = zip(estimated(case), said(answer, len(case.gpus)), sigmas(case), strict=True)
        for device, (mine, theirs, sigma) in enumerate(rows):
            for kind in KINDS:
                if not (mine[kind] or theirs[kind]):
                    continue
                error = mine[kind] - theirs[kind]
                errors[kind].append(abs(error))
                shares[kind].append(100 * abs(error) / max(theirs[kind], 1.0))
            if theirs["compute"]:
                error = mine["compute"] - theirs["compute"]
                inside.append(error >= -1.645 * sigma)
                if abs(error) > worst[0]:
                    worst = abs(error), f"{case.model} on {device} of {len(case.gpus)}: {case.setup}"
    return {
        "n": len(cases),
        "refused": refused,
        "buffers": len(inside),
        "weights_error_pct": _spread(shares["model"]),
        "kv_error_pct": _spread(shares["context"]),
        "compute_error_mib": _spread(errors["compute"]),
        "compute_error_pct": _spread(shares["compute"]),
        "compute_below_p95_share": round(sum(inside) / max(1, len(inside)), 4),
        "compute_worst": worst[1],
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    at = _bench.percentile
    return {"p50": round(at(values, 0.5), 3), "p95": round(at(values, 0.95), 3), "max": round(max(values), 3)}


def load(file: Path, context: int, parallel: int, *flags: str) -> str:
    """Load a file in our own child process as the daemon does, and return its log."""
    with tempfile.TemporaryDirectory() as folder:
        values = {"model.path": str(file), "n_ctx": context, "n_parallel": parallel, "verbosity": 4}
        values |= {"kv_unified": False, "n_threads_http": 2, "cpuparams.n_threads": 1, "ui": False}
        asked = {"socket": f"{folder}/s.sock", "set": values, "flags": list(flags)}
        log = Path(folder) / "log"
        script = _ROOT / "subcortex/engines/_llamacpp_child.py"
        with log.open("wb") as out:
            child = subprocess.Popen(
                [sys.executable, "-P", str(script), json.dumps(asked)], stdout=out, stderr=subprocess.STDOUT
            )
        while child.poll() is None and "model loaded" not in log.read_text(errors="replace"):
            time.sleep(0.05)
        child.send_signal(signal.SIGTERM)
        child.wait()
        return log.read_text(errors="replace")


def loaded(folder: Path) -> list[dict[str, Any]]:
    """Return what real loads logged, beside the oracle's answer and the estimate; MiB."""
    real = "llama-3.2-1b"
    files: list[tuple[str, Path, int, int, tuple[str, ...]]] = [
        (name, _ROOT / f"testbed/models/{name}/{name}.gguf", context, parallel, ())
        for name, (context, parallel) in itertools.product(("fast", "deep"), ((1024, 1), (4096, 4)))
    ]
    # Weights of nothing but zeros; without a warm-up they are not even read twice.
    files.append((real, header(folder, real, "Q8_0"), 4096, 2, ("--no-warmup",)))
    found = []
    for name, file, context, parallel, flags in files:
        boot = read_boot(load(file, context, parallel, *flags).splitlines())
        question = Question(str(file), context_tokens=context, parallel=parallel)
        answer = ask_oracle([question])[0]
        if boot is None or boot.host is None or answer["error"]:
            sys.exit(f"{name} was not loaded: {answer['error']}")
        parts = boot.host.components
        logged = {
            "model": parts.get("mapped", 0.0) + parts.get("weights", 0.0),
            "context": boot.host.kv_pool_mib or 0.0,
            "compute": parts.get("activations", 0.0),
        }
        # llama.cpp's own fitting leaves the output buffer out: a row of logits a slot.
        row = {"model": name, "context_tokens": context, "parallel": parallel, "log": logged}
        oracle = said(answer, 0)[0]
        row["oracle_less_log"] = {kind: round(oracle[kind] - logged[kind], 2) for kind in KINDS}
        if name == real:
            setup = LlamaCppSetup(context_tokens=context, parallel=parallel, kv_unified=False)
            case = Case(real, "Q8_0", (), setup)
            mine = estimated(case)[0]
            mine["compute"] += output_bytes(case.shape, run_of(case.shape, setup)) / _MIB
            row["estimate_less_log"] = {kind: round(mine[kind] - logged[kind], 2) for kind in KINDS}
        found.append(row)
    return found


def record(path: Path, cases: Sequence[Case], answers: Sequence[dict[str, Any]]) -> None:
    """Write every few of the answers, for the tests to hold the estimate against."""
    usual = asdict(LlamaCppSetup())
    kept = [
        {
            "model": case.model,
            "quantization": case.quantization,
            "gpus": case.gpus,
            "setup": {name: value for name, value in asdict(case.setup).items() if value != usual[name]},
            "said": [
                {kind: round(mib, 3) for kind, mib in row.items()} for row in said(answer, len(case.gpus))
            ],
        }
        for case, answer in zip(cases, answers, strict=True)
        if not answer["error"]
    ]
    release = _bench.machine()["versions"].get("xllamacpp")
    chosen = random.Random(1).sample(kept, min(160, len(kept)))
    lines = ",\n".join(json.dumps(row) for row in chosen)
    path.write_text(f'{{"xllamacpp": "{release}", "cases": [\n{lines}\n]}}\n')


def main() -> None:
    parser = _bench.arguments(__doc__ or "")
    parser.add_argument("--executable", help="a llama-fit-params to ask instead of the oracle")
    parser.add_argument("--gpus", type=int, default=0, help="GPUs that the executable sees")
    parser.add_argument("--quick", action="store_true", help="fewer setups")
    parser.add_argument("--record", type=Path, help="write a sample of llama.cpp's answers to this file")
    given = parser.parse_args()
    result: dict[str, Any] = {"machine": _bench.machine(), "asked": given.executable or "xllamacpp, no_alloc"}
    sets = GPU_SETS if not given.executable else ((24_000.0,) * given.gpus,)
    ask: Callable[[Sequence[Question]], list[dict[str, Any]]] = ask_oracle
    if given.executable:
        ask = lambda questions: ask_executable(given.executable, questions)  # noqa: E731
    groups = {"derived": list(DERIVED), "held_out": list(HELD_OUT), "invented": invented(24)}
    every: list[tuple[Case, dict[str, Any]]] = []
    with tempfile.TemporaryDirectory() as folder:
        if not given.executable:
            result["loads"] = loaded(Path(folder))
        for group, models in groups.items():
            for gpus in sets:
                cases = list(grid(models, gpus, given.quick))
                answers = ask([case.question(Path(folder)) for case in cases])
                every += zip(cases, answers, strict=True)
                for part, keep in (("", True), ("_partial", False)):
                    chosen = [
                        (case, answer)
                        for case, answer in zip(cases, answers, strict=True)
                        if (case.setup.gpu_layers != 10) is keep
                    ]
                    if chosen:
                        result[f"{group}_{len(gpus)}gpu{part}"] = compare(*zip(*chosen, strict=True))
    cases, answers = [case for case, _ in every], [answer for _, answer in every]
    whole = [index for index, case in enumerate(cases) if case.setup.gpu_layers != 10]
    result |= compare([cases[index] for index in whole], [answers[index] for index in whole])
    if given.record:
        record(given.record, *zip(*((c, a) for c, a in every if "invented" not in c.model), strict=True))
    _bench.finish(result, given.json)


if __name__ == "__main__":
    main()
