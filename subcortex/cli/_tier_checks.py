"""What ``doctor`` looks at for each tier: its engine, its model, its tokenizer, its address and key."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from subcortex import engines
from subcortex.cli._checks import Check
from subcortex.cli._models import download_command
from subcortex.config import Config, LlamaCppTier, RemoteTier, VllmTier
from subcortex.hardware import Hardware
from subcortex.hardware.child import ask, last_object

#: vLLM's floor: older ones have known security faults.
OLDEST_VLLM = (0, 22)
_IMPORT_TIMEOUT_S = 60.0
_VLLM_TIMEOUT_S = 240.0
_REMOTE_TIMEOUT_S = 5.0
_LARGEST_ANSWER_BYTES = 2**20
_GGUF_MAGIC = b"GGUF"
_BUILD_LLAMA = (
    "Build it: git clone https://github.com/ggml-org/llama.cpp && cd llama.cpp && cmake -B build "
    "-DGGML_CUDA=ON && cmake --build build --config Release -t llama-server; "
    "or remove `executable` to run on the CPU."
)

_ASK_VLLM = """
import json, torch, vllm
print(json.dumps({"vllm": vllm.__version__, "torch": torch.__version__, "cuda": torch.version.cuda}))
"""
_ASK_TOKENIZER = """
import json, sys
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=False, local_files_only=True)
text = "Does 2 + 2 make 4? Ja, natürlich: 是的."
ids = tokenizer(text, add_special_tokens=False)["input_ids"]
print(json.dumps({"same": tokenizer.decode(ids) == text, "tokens": len(ids),
                  "vocabulary": len(tokenizer), "template": bool(tokenizer.chat_template)}))
"""


def tier_checks(tier: LlamaCppTier | VllmTier | RemoteTier, config: Config, hw: Hardware) -> Iterator[Check]:
    """Look at everything that a tier needs to start, the slow things last."""
    if isinstance(tier, RemoteTier):
        yield from _remote(tier)
        return
    if tier.gpus:
        yield _gpu_indices(tier, hw)
    if isinstance(tier, LlamaCppTier):
        yield _gguf(tier, config)
        yield _llama_server(tier, config) if tier.executable else _xllamacpp(tier, config)
        yield Check(f"tier {tier.name}: tokenizer", "skip", "part of the GGUF; the engine checks it at load")
    else:
        yield from _vllm(tier, config, hw)


def _gpu_indices(tier: LlamaCppTier | VllmTier, hardware: Hardware) -> Check:
    subject = f"tier {tier.name}: gpus"
    known = [gpu.index for gpu in hardware.gpus]
    missing = [index for index in tier.gpus or [] if index not in known]
    if missing:
        have = ", ".join(map(str, known)) or "none"
        return Check(
            subject, "fail", f"GPU {missing[0]} is not here (GPUs: {have})", "Correct the tier's gpus."
        )
    return Check(subject, "ok", f"GPUs {', '.join(map(str, tier.gpus or []))}")


def _gguf(tier: LlamaCppTier, config: Config) -> Check:
    subject, file = f"tier {tier.name}: model", config.resolve(tier.model)
    if not file.is_file():
        what = "is a folder, llama.cpp wants a GGUF file" if file.is_dir() else "is not there"
        return Check(subject, "fail", f"{file} {what}", download_command(file))
    try:
        with file.open("rb") as stream:
            magic = stream.read(4)
    except OSError as error:
        return Check(subject, "fail", f"cannot read {file}: {error.strerror}", f"chmod u+r {file}")
    if magic != _GGUF_MAGIC:
        pointer = magic == b"vers"
        found = "a Git LFS pointer" if pointer else f"starts with {magic!r}"
        return Check(
            subject, "fail", f"{file} is no GGUF file ({found})", f"Fetch it again: {download_command(file)}"
        )
    return Check(subject, "ok", f"{file}, {file.stat().st_size / 2**20:.0f} MiB")


def _xllamacpp(tier: LlamaCppTier, config: Config) -> Check:
    subject = f"tier {tier.name}: engine"
    script = "import xllamacpp; from importlib.metadata import version; print(version('xllamacpp'))"
    output, problem = _run([sys.executable, "-c", script], _IMPORT_TIMEOUT_S, tier, config)
    if problem:
        return Check(
            subject,
            "fail",
            f"xllamacpp does not import: {problem}",
            f"{sys.executable} -m pip install xllamacpp",
        )
    return Check(subject, "ok", f"xllamacpp {output.strip()}, embedded")


def _llama_server(tier: LlamaCppTier, config: Config) -> Check:
    subject, command = f"tier {tier.name}: engine", _command(str(tier.executable), config)
    if command is None:
        return Check(subject, "fail", f"{tier.executable} is not there or cannot be run", _BUILD_LLAMA)
    output, problem = _run([command, "--version"], _IMPORT_TIMEOUT_S, tier, config)
    if problem:
        return Check(subject, "fail", f"{command} --version: {problem}", _BUILD_LLAMA)
    version = next((line for line in output.splitlines() if "version" in line), "version unknown")
    return Check(subject, "ok", f"{command}, {version.strip()}")


def _command(name: str, config: Config) -> str | None:
    """Return the path of an executable given as a path or as a name on PATH."""
    if "/" not in name:
        return shutil.which(name)
    path = config.resolve(name)
    return str(path) if path.is_file() and os.access(path, os.X_OK) else None


def _vllm(tier: VllmTier, config: Config, hardware: Hardware) -> Iterator[Check]:
    yield (model := _model_folder(tier, config))
    subject = f"tier {tier.name}: engine"
    python = _interpreter(tier, config)
    if python is None:
        named = tier.python or tier.executable or "a `vllm` command"
        yield Check(subject, "fail", f"{named} is not there or cannot be run", _install_vllm(tier))
        return
    output, problem = _run([python, "-c", _ASK_VLLM], _VLLM_TIMEOUT_S, tier, config)
    facts = last_object(output)
    if problem or facts is None:
        yield Check(
            subject, "fail", f"{python} cannot import vllm: {problem or output[-200:]}", _install_vllm(tier)
        )
        return
    yield vllm_verdict(subject, facts, hardware, _install_vllm(tier), tier.gpus)
    folder = config.resolve(tier.model)
    if model.outcome == "ok" and folder.is_dir():
        yield _tokenizer(tier, config, python, folder)


def _interpreter(tier: VllmTier, config: Config) -> str | None:
    """Return the interpreter that runs vLLM, found as the engine finds it.

    The one named; that of the executable's first line; with neither named, ours if it has vLLM, or that
    of the ``vllm`` on PATH.
    """
    if tier.python:
        return _command(str(tier.python), config)
    if tier.executable is None and importlib.util.find_spec("vllm"):
        return sys.executable
    command = _command(str(tier.executable or "vllm"), config)
    if command is None:
        return None
    with Path(command).open("rb") as stream:
        first = stream.readline(512)
    if not first.startswith(b"#!"):
        return None
    words = first[2:].decode("utf-8", "replace").split()
    return _command(words[-1] if words and words[0].endswith("/env") else words[0], config) if words else None


def _install_vllm(tier: VllmTier) -> str:
    venv = tier.python.parent.parent if tier.python else Path("~/.venvs/vllm")
    return (
        f"python3 -m venv {venv} && {venv}/bin/pip install 'vllm>=0.22', and name {venv}/bin/python as python"
    )


def vllm_verdict(
    subject: str, facts: dict[str, Any], hardware: Hardware, install: str, gpus: list[int] | None = None
) -> Check:
    """Judge what vLLM's interpreter said: its version, and its CUDA against driver and cards.

    Args:
        subject: What the check is called.
        facts: What it said.
        hardware: The machine.
        install: How to get another one.
        gpus: Those of the tier; None for all.
    """
    found = f"vLLM {facts['vllm']}, torch {facts['torch']}"
    version = _version(str(facts["vllm"]))
    if version < OLDEST_VLLM:
        oldest = ".".join(map(str, OLDEST_VLLM))
        return Check(subject, "fail", f"{found}: older than {oldest}, which mends security faults", install)
    if not facts["cuda"]:
        if hardware.gpus:
            return Check(subject, "fail", f"{found}: built without CUDA, and this machine has GPUs", install)
        return Check(subject, "warn", f"{found}: built for the CPU", "Right for tests; slow for real models.")
    if not hardware.gpus:
        return Check(
            subject, "fail", f"{found} wants CUDA {facts['cuda']}, and no GPU answers", "Look at `gpus`."
        )
    driver = hardware.cuda_version
    wanted = _version(str(facts["cuda"]))
    if driver and wanted[0] > driver[0]:
        runs = ".".join(map(str, driver))
        return Check(
            subject,
            "fail",
            f"{found} was built for CUDA {facts['cuda']}; the driver {hardware.driver_version} runs {runs}",
            f"Update the NVIDIA driver, or install a vLLM built for CUDA {driver[0]}.",
        )
    return _too_old(subject, found, hardware, gpus) or Check(subject, "ok", f"{found}, CUDA {facts['cuda']}")


def _too_old(subject: str, found: str, hardware: Hardware, gpus: list[int] | None) -> Check | None:
    """Return that vLLM does not serve a card that the tier runs on, as the plan says too."""
    from subcortex.vram.vllm.legality import LEAST_CAPABILITY, runs_on

    mine = [gpu for gpu in hardware.gpus if gpus is None or gpu.index in gpus]
    old = [gpu for gpu in mine if not runs_on(gpu)]
    if not old:
        return None
    least = ".".join(map(str, LEAST_CAPABILITY))
    have = ", ".join(
        f"GPU {gpu.index} ({gpu.name}) has {'.'.join(map(str, gpu.compute_capability or ()))}" for gpu in old
    )
    # Without gpus of its own the tier may go to the others.
    return Check(
        subject,
        "warn" if gpus is None and len(old) < len(mine) else "fail",
        f"{found} wants compute capability {least}, and {have}",
        'Name the newer ones as the tier\'s gpus, or serve it from a GGUF with engine = "llama.cpp".',
    )


def _version(text: str) -> tuple[int, ...]:
    numbers = []
    for part in text.split(".")[:2]:
        digits = "".join(letter for letter in part if letter.isdigit())
        numbers.append(int(digits or 0))
    return tuple(numbers)


def _model_folder(tier: VllmTier, config: Config) -> Check:
    subject, folder = f"tier {tier.name}: model", config.resolve(tier.model)
    if not folder.exists() and _is_hub_name(tier.model):
        return _hub_model(subject, tier.model)
    if not folder.is_dir():
        what = "is a file, vLLM wants a folder" if folder.exists() else "is not there"
        return Check(subject, "fail", f"{folder} {what}", download_command(folder))
    dummy = any("dummy" in flag for flag in tier.flags)
    names = {file.name for file in folder.iterdir()}
    problem = _folder_problem(folder, names, weights=not dummy)
    if problem:
        return Check(subject, "fail", f"{folder} {problem}", f"Fetch it again: {download_command(folder)}")
    return Check(subject, "ok", f"{folder}" + (", with dummy weights" if dummy else ""))


def _folder_problem(folder: Path, names: set[str], *, weights: bool) -> str | None:
    try:
        json.loads((folder / "config.json").read_bytes())
    except FileNotFoundError:
        return "has no config.json"
    except (OSError, ValueError) as error:
        return f"has a config.json that cannot be read ({error})"
    if not names & {"tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json"}:
        return "has no tokenizer (tokenizer.json)"
    if not weights:
        return None
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            listed = set(json.loads(index.read_bytes())["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            return f"has an index that cannot be read ({index.name})"
        missing = sorted(listed - names)
        return f"lacks {len(missing)} of {len(listed)} weight files, first {missing[0]}" if missing else None
    return None if any(name.endswith((".safetensors", ".bin", ".pt")) for name in names) else "has no weights"


def _is_hub_name(model: str) -> bool:
    return model.count("/") == 1 and not model.startswith(("/", ".", "~"))


def _hub_model(subject: str, name: str) -> Check:
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    cached = home / "hub" / f"models--{name.replace('/', '--')}" / "snapshots"
    if cached.is_dir() and any(cached.iterdir()):
        return Check(subject, "ok", f"{name}, in the hub's cache")
    return Check(subject, "warn", f"{name} is neither a folder nor in the hub's cache", f"hf download {name}")


def _tokenizer(tier: VllmTier, config: Config, python: str, folder: Path) -> Check:
    subject = f"tier {tier.name}: tokenizer"
    output, problem = _run([python, "-c", _ASK_TOKENIZER, str(folder)], _VLLM_TIMEOUT_S, tier, config)
    facts = last_object(output)
    if problem or facts is None:
        return Check(subject, "fail", f"does not load: {problem or output[-200:]}", download_command(folder))
    found = f"{facts['vocabulary']} tokens, round trip of {facts['tokens']}"
    if not facts["same"]:
        return Check(
            subject, "warn", f"{found}: the text came back changed", "Fetch the tokenizer's files again."
        )
    if not facts["template"]:
        return Check(
            subject, "fail", f"{found}, but no chat template", 'Add flags = ["--chat-template", FILE].'
        )
    return Check(subject, "ok", found)


def _remote(tier: RemoteTier) -> Iterator[Check]:
    key = os.environ.get(tier.api_key_env) if tier.api_key_env else None
    if tier.api_key_env:
        subject = f"tier {tier.name}: key"
        if not key:
            yield Check(subject, "fail", f"{tier.api_key_env} is not set", f"export {tier.api_key_env}=…")
            return
        yield Check(subject, "ok", f"{tier.api_key_env} is set")
    yield _url(tier, key)


def _url(tier: RemoteTier, key: str | None) -> Check:
    import urllib.error
    import urllib.request

    subject, url = f"tier {tier.name}: url", f"{tier.url.rstrip('/')}/models"
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        # The scheme is http or https: the config's schema sees to it.
        request = urllib.request.Request(url, headers=headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=_REMOTE_TIMEOUT_S) as response:  # noqa: S310
            body = json.loads(response.read(_LARGEST_ANSWER_BYTES))
    except urllib.error.HTTPError as error:
        todo = f"Check the key in {tier.api_key_env}." if error.code in (401, 403) else "Check the URL."
        return Check(subject, "fail", f"{url} answered {error.code}", todo)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return Check(
            subject, "fail", f"{url} does not answer as it should: {reason}", "Check the URL and the server."
        )
    served = [str(entry.get("id")) for entry in body.get("data", [])] if isinstance(body, dict) else []
    if tier.model not in served:
        names = ", ".join(served[:10]) or "nothing"
        return Check(
            subject, "fail", f"{url} serves {names}, not {tier.model}", "Name one of those as model."
        )
    return Check(subject, "ok", f"{tier.url} serves {tier.model}")


def _run(
    command: list[str], timeout_s: float, tier: LlamaCppTier | VllmTier, config: Config
) -> tuple[str, str | None]:
    """Run a child as the tier's engine is run, secrets apart; return what it said, and what went wrong."""
    answer = ask(command, env=engines.environment(tier, config=config), time_limit_s=timeout_s)
    # llama-server prints its version on stderr.
    return answer.stdout or ("" if answer.problem else answer.stderr), answer.problem
