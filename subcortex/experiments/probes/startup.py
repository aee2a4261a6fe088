"""Checks, in an engine's own interpreter, what the engine needs before it starts. JSON lines.

By hand: ``~/vllm/bin/python startup.py --package vllm --tokenizer ~/models/llama``. A line a check: ``check``
(``engine``, ``cuda``, ``tokenizer``), ``ok``, ``words``, and what was found. It exits with 0 if it could
check, whatever it found.
"""

import argparse
import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

#: Letters, figures, accents, another script and an emoji: what a wrong vocabulary gets wrong first.
TEXTS = (
    "Does 2 + 2 make 4?",
    "The cortex thinks; the subcortex decides what to think about.",
    "Größe: 3,5 km² – naïve café",
    "大脑皮层下的结构",
    "def f(x):\n    return x ** 2\n",
)
_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Have the kernel end this process once whoever started it is gone."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def forget_own_folder() -> None:
    """Let no file beside this one stand in for a module that an engine imports."""
    here = Path(__file__).resolve().parent
    sys.path[:] = [place for place in sys.path if Path(place or ".").resolve() != here]


def answers() -> Callable[[dict[str, Any]], None]:
    """Return what writes a line of JSON to stdout; whatever libraries print there goes to stderr."""
    stdout = os.dup(1)
    os.set_inheritable(stdout, False)
    os.dup2(2, 1)
    return lambda facts: _write(stdout, json.dumps(facts).encode() + b"\n")


def _write(stream: int, text: bytes) -> None:
    while text:
        text = text[os.write(stream, text) :]


def engine(package: str) -> dict[str, Any]:
    """Import the engine; tell its version and how long that took."""
    began_s = time.monotonic()
    try:
        module = import_module(package)
    except Exception as error:
        return {"ok": False, "words": f"{package} does not import: {type(error).__name__}: {error}"[:1000]}
    seconds = time.monotonic() - began_s
    version = getattr(module, "__version__", None)
    if not version:
        with suppress(metadata.PackageNotFoundError):
            version = metadata.version(package)
    words = f"{package} {version} imports in {seconds:.2g} s"
    return {"ok": True, "words": words, "version": version, "seconds": seconds}


def cuda() -> dict[str, Any]:
    """Have every GPU that torch sees add two numbers."""
    try:
        torch = import_module("torch")
        built = torch.version.cuda
        if built is None:
            return {"ok": True, "words": f"torch {torch.__version__} is built for the CPU", "cuda": None}
        count = torch.cuda.device_count()
        if count == 0 or not torch.cuda.is_available():
            return {"ok": False, "words": f"torch for CUDA {built} sees no GPU", "cuda": built}
        for index in range(count):
            found = (torch.ones(2, device=torch.device("cuda", index)) + 1).sum().item()
            if found != 4.0:
                return {"ok": False, "words": f"GPU {index} says that 2 + 2 is {found}", "cuda": built}
    except Exception as error:
        return {"ok": False, "words": f"CUDA does not work: {type(error).__name__}: {error}"[:1000]}
    return {"ok": True, "words": f"{count} GPUs reckon with CUDA {built}", "cuda": built, "gpus": count}


def tokenizer(folder: str) -> dict[str, Any]:
    """Encode texts and decode them again; nothing is downloaded, and no code of the model's is run."""
    try:
        transformers = import_module("transformers")
        made = transformers.AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
        tokens, changed = 0, []
        for text in TEXTS:
            found = made(text, add_special_tokens=False)["input_ids"]
            tokens += len(found)
            # Cleaning up is a matter of taste, which would hide what is lost.
            back = made.decode(found, clean_up_tokenization_spaces=False)
            if back.strip() != text.strip():
                changed.append(f"{text!r} came back as {back!r}")
        facts = {"vocabulary": len(made), "tokens": tokens, "template": bool(made.chat_template)}
    except Exception as error:
        return {"ok": False, "words": f"the tokenizer does not load: {type(error).__name__}: {error}"[:1000]}
    if changed:
        return {"ok": False, "words": f"the tokenizer changes what it is given: {changed[0]}"[:1000], **facts}
    words = f"{len(TEXTS)} texts are the same after {tokens} tokens of {facts['vocabulary']}"
    return {"ok": True, "words": words, **facts}


def main() -> int:
    """Check what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--package", required=True, help="the engine's, to be imported")
    parser.add_argument("--cuda", action="store_true", help="try the GPUs too")
    parser.add_argument("--tokenizer", help="folder of a model")
    args = parser.parse_args()
    end_with_parent()
    forget_own_folder()
    answer = answers()
    if args.cuda:
        answer({"check": "cuda", **cuda()})
    if args.tokenizer:
        answer({"check": "tokenizer", **tokenizer(args.tokenizer)})
    answer({"check": "engine", **engine(args.package)})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
