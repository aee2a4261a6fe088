"""llama.cpp: its own server, embedded through xllamacpp or as a ``llama-server`` binary."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any, ClassVar

from subcortex.config import Config, LlamaCppTier
from subcortex.engines import _llamacpp_log, _llamacpp_memory, _shrink
from subcortex.engines._local import LocalEngine
from subcortex.engines.wire import Wire
from subcortex.errors import ConfigError, EngineFailed, SubcortexError
from subcortex.types import BootFigures

_CHILD = Path(__file__).with_name("_llamacpp_child.py")
_MAGIC = b"GGUF"
_VERBOSITY = re.compile(r"-v$|-lv|--(?:log-)?verbos")
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
#: llama.cpp would keep up to 8 GiB of old prompts in host memory. A binary is told by the variable: builds
#: that keep none pass it over, where they would refuse the flag.
_PROMPT_CACHE_MIB, _PROMPT_CACHE_VARIABLE = 512, "LLAMA_ARG_CACHE_RAM"
#: A stream holds one of the server's threads until it ends; these answer health and refusals meanwhile.
_SPARE_HTTP_THREADS = 4


class LlamaCppEngine(LocalEngine):
    """One GGUF model on llama.cpp.

    With ``context_tokens`` every slot has that much of its own (``parallel`` times it is allocated).
    Without, all slots share one KV cache of the model's trained length.
    """

    kind = "llama.cpp"
    # Its HTTP server closes the connection after a stream without having said so.
    reuse_streams: ClassVar[bool] = False
    last_boot_line: ClassVar[str] = "model loaded"
    counters: ClassVar[frozenset[str]] = frozenset(
        {"llamacpp:n_decode_total", "llamacpp:prompt_tokens_total", "llamacpp:tokens_predicted_total"}
    )
    _tier: LlamaCppTier

    def __init__(self, tier: LlamaCppTier, config: Config) -> None:
        super().__init__(tier, config)
        self._file = config.resolve(tier.model)
        self._program: str | None = None
        self._lowered = _shrink.Lowered()

    def shrink(self) -> str | None:
        """Have starts ask for less; see ``Engine.shrink``."""
        found = _shrink.for_llamacpp(self._tier, self._failure_once(), self.boot_figures(), self._lowered)
        if found is None:
            return None
        self._lowered, words = found
        return words

    @property
    def _computes_here(self) -> bool:
        # A step takes up to 2048 tokens of a prompt, which is minutes on a CPU and no more than seconds on
        # a GPU. What hangs on a GPU spins, so there the time spent says nothing.
        figures = self.boot_figures()
        if figures is not None:
            return not figures.devices
        return self._program is None or self._tier.gpu_layers == 0

    async def _check(self) -> None:
        check_model(self._file, tier=self._tier.name)
        if self._tier.executable is None:
            if importlib.util.find_spec("xllamacpp") is None:
                raise ConfigError(
                    f"tier {self._tier.name!r}: xllamacpp is not installed here",
                    hint="pip install xllamacpp, or point executable at a llama-server binary.",
                    key="executable",
                )
            return
        named = self._tier.executable
        found = shutil.which(str(named if named.parent == Path() else self._config.resolve(named)))
        if found is None:
            raise ConfigError(
                f"tier {self._tier.name!r}: {named} is not there or cannot be run",
                hint="Set executable to a llama-server binary, or leave it out for the embedded one.",
                key="executable",
            )
        self._program = found

    def _command(self, socket: Path) -> list[str]:
        if self._program is None:
            # -P: the folder of the script is no place to import from.
            return [sys.executable, "-P", str(_CHILD), json.dumps(self._embedded(socket))]
        return [self._program, *self._arguments(socket), *self._tier.flags]

    def _embedded(self, socket: Path) -> dict[str, Any]:
        tier = self._tier
        values: dict[str, Any] = {
            "model.path": str(self._file),
            "model_alias": tier.name,
            "n_parallel": tier.parallel,
            "n_ctx": self._all_tokens,
            "kv_unified": tier.context_tokens is None,
            "n_threads_http": self._http_threads,
            "cache_ram_mib": _PROMPT_CACHE_MIB,
            "endpoint_metrics": True,
            "ui": False,
        }
        if not any(_VERBOSITY.match(flag) for flag in tier.flags):
            values["verbosity"] = _llamacpp_memory.BUFFERS_VERBOSITY
        if tier.threads is not None:
            values |= {"cpuparams.n_threads": tier.threads, "cpuparams_batch.n_threads": tier.threads}
        for name, value in (
            ("n_gpu_layers", tier.gpu_layers),
            ("split_mode", tier.split_mode),
            ("tensor_split", tier.tensor_split),
        ):
            if value is not None:
                values[name] = value
        quieter = _llamacpp_memory.USUAL_VERBOSITY if "verbosity" in values else None
        return {"socket": str(socket), "set": values, "flags": tier.flags, "verbosity_once_up": quieter}

    @property
    def _all_tokens(self) -> int:
        if self._tier.context_tokens is None:
            return self._lowered.context_tokens or 0
        return self._tier.context_tokens * self._tier.parallel

    def _arguments(self, socket: Path) -> list[str]:
        tier = self._tier
        arguments = ["--model", str(self._file), "--alias", tier.name, "--host", str(socket)]
        arguments += ["--parallel", str(tier.parallel), "--threads-http", str(self._http_threads)]
        arguments += ["--jinja", "--metrics"]
        arguments += ["--ctx-size", str(self._all_tokens)]
        if tier.context_tokens is None:
            arguments += ["--kv-unified"]
        for flag, value in (
            ("--threads", tier.threads),
            ("--n-gpu-layers", tier.gpu_layers),
            ("--split-mode", tier.split_mode),
        ):
            if value is not None:
                arguments += [flag, str(value)]
        if tier.tensor_split:
            arguments += ["--tensor-split", ",".join(f"{share:g}" for share in tier.tensor_split)]
        return arguments

    def _env(self) -> dict[str, str]:
        env = super()._env()
        if self._program is not None:
            env[_PROMPT_CACHE_VARIABLE] = self._tier.env.get(_PROMPT_CACHE_VARIABLE, str(_PROMPT_CACHE_MIB))
        return env

    @property
    def _http_threads(self) -> int:
        return max(self._tier.max_concurrent, self._tier.parallel) + _SPARE_HTTP_THREADS

    async def _asked_version(self, wire: Wire) -> str | None:
        if self._program is None:
            return f"xllamacpp {importlib.metadata.version('xllamacpp')}"
        status, props = await wire.get("http://engine/props")
        build = props.get("build_info") if status == 200 and isinstance(props, dict) else None
        return f"llama.cpp {build}" if build else "llama.cpp"

    def _progress(self, line: str) -> str | None:
        return _llamacpp_log.progress(line)

    def _says_memory(self, line: str) -> bool:
        return _llamacpp_memory.of_interest(line)

    def _read_boot(self, lines: list[str]) -> BootFigures | None:
        found = _llamacpp_memory.read_boot(lines)
        return found and found.model_copy(update={"version": self._version})

    def _diagnosis(self, log: str) -> SubcortexError | None:
        return _llamacpp_log.diagnosis(log, tier=self._tier.name, model=self.model)


def check_model(file: Path, *, tier: str) -> None:
    """Check that a GGUF file, with all of its parts, is there.

    Raises:
        ConfigError: It is missing, unreadable, incomplete or of another format.
        EngineFailed: It cannot be read now.
    """
    if not file.is_file():
        raise ConfigError(
            f"tier {tier!r}: there is no model file {file}",
            hint="Set model to a .gguf file; `subcortex doctor` lists what is missing.",
            key="model",
            file=str(file),
        )
    try:
        with file.open("rb") as stream:
            magic = stream.read(len(_MAGIC))
    except PermissionError as error:
        raise ConfigError(
            f"tier {tier!r}: cannot read {file}: {error.strerror}", hint="Check its permissions.", key="model"
        ) from error
    except OSError as error:
        # A daemon out of files, a network disk that is away: neither lasts as a wrong setting does.
        raise EngineFailed(
            f"tier {tier!r}: cannot read {file}: {error.strerror}", hint="It is tried again.", transient=True
        ) from error
    if magic != _MAGIC:
        raise ConfigError(
            f"tier {tier!r}: {file} is not a GGUF file (it begins with {magic!r})",
            hint="llama.cpp takes GGUF; safetensors are for vLLM. A git-lfs pointer needs `git lfs pull`.",
            key="model",
            file=str(file),
        )
    if part := _PART.search(file.name):
        count, stem = int(part[2]), file.name[: part.start()]
        names = [f"{stem}-{number:05d}-of-{count:05d}.gguf" for number in range(1, count + 1)]
        missing = [name for name in names if not os.path.isfile(file.with_name(name))]  # noqa: PTH113
        if missing:
            raise ConfigError(
                f"tier {tier!r}: {len(missing)} of {count} parts are missing: {', '.join(missing[:4])}",
                hint=f"Put them beside {file}.",
                key="model",
                file=str(file),
            )
