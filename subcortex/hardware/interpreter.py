"""Asking an engine's own interpreter what it has of torch and CUDA, in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from subcortex.hardware.child import ask, last_object
from subcortex.hardware.model import Interpreter

#: The script, which can be run by hand with any interpreter.
PROBE = Path(__file__).with_name("_torch_probe.py")
#: Importing torch from a cold disk takes a minute on small machines.
TIME_LIMIT_S = 120.0


def ask_interpreter(
    python: str,
    *,
    tiers: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    time_limit_s: float = TIME_LIMIT_S,
) -> Interpreter:
    """Return what an interpreter says of torch, CUDA, NCCL and vLLM. Never raises; see ``problem``.

    The interpreter runs in a process group of its own, of which nothing is left when this returns. It is
    killed at the end of the time or of what an answer may weigh; once it has ended nobody it leaves behind is
    waited for.

    Args:
        python: Path or name of the interpreter.
        tiers: To note in the answer.
        env: All variables that the engine is started with, those of this process if not given. Secrets among
            them are left out.
        time_limit_s: How long it may take, torch's import included.
    """
    asked = Interpreter(python=python, tiers=tuple(tiers))
    answer = ask([python, str(PROBE)], env=os.environ if env is None else env, time_limit_s=time_limit_s)
    if answer.problem:
        return _failed(asked, answer.problem)
    facts = last_object(answer.stdout)
    if facts is None:
        return _failed(asked, "answered with something else than the probe's JSON")
    try:
        return Interpreter.model_validate({**facts, "python": python, "tiers": tuple(tiers)})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return _failed(asked, f"answered with something else than the probe's JSON: {where}: {first['msg']}")


def _failed(asked: Interpreter, problem: str) -> Interpreter:
    return asked.model_copy(update={"problem": problem})
