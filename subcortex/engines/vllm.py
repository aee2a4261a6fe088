"""vLLM, in an environment of its own: its OpenAI server on a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, ClassVar

from subcortex.config import Config, VllmTier
from subcortex.engines import _shrink, _vllm_log, _vllm_memory, _vllm_sleep
from subcortex.engines._flags import last_value
from subcortex.engines._local import LocalEngine
from subcortex.engines.wire import Wire
from subcortex.errors import ConfigError, EngineFailed, SubcortexError
from subcortex.types import BootFigures, Rest

_MODULE = "vllm.entrypoints.openai.api_server"
_PROBE = "import importlib.util, sys; sys.exit(0 if importlib.util.find_spec('vllm') else 3)"
_NO_VLLM_EXIT = 3
_PROBE_LIMIT_S = 60.0
_KEPT_BYTES = 4096
_LOG_LINES = 400
_HOW_TO_GET = (
    "Make it an environment (`python3 -m venv ~/vllm && ~/vllm/bin/pip install vllm`) and set "
    'python = "~/vllm/bin/python" in the tier.'
)


class VllmEngine(LocalEngine):
    """One model on vLLM, over one or more GPUs."""

    kind = "vllm"
    reuse_streams: ClassVar[bool] = True
    last_boot_line: ClassVar[str] = "Starting vLLM"
    # Steps alone do not do: a long prompt takes many that answer nothing, and only the cache fills meanwhile.
    counters: ClassVar[frozenset[str]] = frozenset(
        {
            "vllm:iteration_tokens_total_count",
            "vllm:prompt_tokens_total",
            "vllm:generation_tokens_total",
            "vllm:kv_cache_usage_perc",
        }
    )
    _tier: VllmTier

    def __init__(self, tier: VllmTier, config: Config) -> None:
        super().__init__(tier, config)
        self._launcher: list[str] = []
        self._lowered = _shrink.Lowered()
        self._rest: Rest | None = None

    @property
    def rests(self) -> frozenset[Rest]:
        """Stop, and both levels of sleep where sleep mode is on."""
        if not _vllm_sleep.enabled(self._tier):
            return frozenset({Rest.STOP})
        if last_value(self._tier.flags, "--load-format") == "dummy":
            # Weights that were made up cannot be read again.
            return frozenset({Rest.STOP, Rest.SLEEP_1})
        return frozenset(Rest)

    async def sleep(self, rest: Rest) -> None:
        """Put the model to sleep; see ``Engine.sleep``."""
        if rest is Rest.STOP or rest not in self.rests:
            raise EngineFailed(f"vllm serving {self.model} knows no {rest}")
        self._rest = rest
        await self._sleeper().sleep(rest)

    async def wake(self) -> None:
        """Wake the model; see ``Engine.wake``."""
        await self._sleeper().wake(self._rest)
        self._rest = None

    async def _awake(self) -> bool:
        return not _vllm_sleep.enabled(self._tier) or await self._sleeper().awake()

    def _sleeper(self) -> _vllm_sleep.Sleeper:
        return _vllm_sleep.Sleeper(
            self._connected(),
            model=self.model,
            limit_s=self._tier.start_timeout_s,
            log=lambda: self.log_tail(_LOG_LINES),
        )

    def shrink(self) -> str | None:
        """Have starts ask for less; see ``Engine.shrink``."""
        found = _shrink.for_vllm(self._tier, self._failure_once(), self.boot_figures(), self._lowered)
        if found is None:
            return None
        self._lowered, words = found
        return words

    async def _check(self) -> None:
        self._rest = None
        self._served_model()
        self._launcher = await self._found_launcher()

    async def _found_launcher(self) -> list[str]:
        tier = self._tier
        if tier.executable is not None:
            return [self._program(tier.executable, "executable"), "serve"]
        if tier.python is not None:
            python = self._program(tier.python, "python")
            await self._check_interpreter(python)
            return [python, "-m", _MODULE]
        if importlib.util.find_spec("vllm") is not None:
            return [sys.executable, "-m", _MODULE]
        if found := shutil.which("vllm"):
            return [found, "serve"]
        raise ConfigError(
            f"tier {tier.name!r}: vLLM is neither beside subcortex nor on the PATH",
            hint=_HOW_TO_GET,
            key="python",
        )

    def _program(self, named: Path, key: str) -> str:
        # Never resolved: an environment's interpreter is a link that must be called by its own name.
        path = str(named) if named.parent == Path() else str(self._config.resolve(named))
        found = shutil.which(path)
        if found is None:
            raise ConfigError(
                f"tier {self._tier.name!r}: {named} is not there or cannot be run", hint=_HOW_TO_GET, key=key
            )
        return found

    async def _check_interpreter(self, python: str) -> None:
        # A file, not a pipe: one that the probe leaves behind could hold a pipe open for good.
        with tempfile.TemporaryFile() as stderr:
            code = await self._probe(python, stderr)
            stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - _KEPT_BYTES))
            said = stderr.read(_KEPT_BYTES)
        if code == _NO_VLLM_EXIT:
            raise ConfigError(
                f"tier {self._tier.name!r}: {python} has no vLLM", hint=_HOW_TO_GET, key="python"
            )
        if code != 0:
            words = said.decode("utf-8", errors="replace").strip()[-500:]
            raise ConfigError(
                f"tier {self._tier.name!r}: {python} does not work: {words}", hint=_HOW_TO_GET, key="python"
            )

    async def _probe(self, python: str, stderr: IO[bytes]) -> int:
        """Return how the interpreter ended that was asked for vLLM; nothing of its group is left."""
        probe = self._asking(python, stderr)
        loop, ended, end = asyncio.get_running_loop(), asyncio.Event(), os.pidfd_open(probe.pid)
        loop.add_reader(end, ended.set)
        try:
            async with asyncio.timeout(_PROBE_LIMIT_S):
                await ended.wait()
        except TimeoutError:
            raise ConfigError(
                f"tier {self._tier.name!r}: {python} does not answer", hint=_HOW_TO_GET, key="python"
            ) from None
        finally:
            loop.remove_reader(end)
            os.close(end)
            # Not waited for before: while the leader is a zombie, its group's number is nobody else's.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(probe.pid, signal.SIGKILL)
            code = probe.wait()
        return code

    def _asking(self, python: str, stderr: IO[bytes]) -> subprocess.Popen[bytes]:
        # Not isolated (-I): the server will not be either, and both must see the same packages.
        return subprocess.Popen(
            [python, "-c", _PROBE],
            env=self._env(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            process_group=0,
        )

    def _served_model(self) -> str:
        """Return the folder, file or hub name to serve."""
        named = self.model
        path = self._config.resolve(named)
        if path.exists():
            if path.is_dir() and not (path / "config.json").is_file():
                raise ConfigError(
                    f"tier {self._tier.name!r}: {path} has no config.json, so it is no model folder",
                    hint="Set model to a folder of a Hugging Face model, or to its name on the hub.",
                    key="model",
                )
            return str(path)
        if named.startswith(("/", ".", "~")) or named.count("/") > 1:
            raise ConfigError(
                f"tier {self._tier.name!r}: there is no model folder {path}",
                hint="Set model to a folder that exists, or to a name on the hub (owner/name).",
                key="model",
                file=str(path),
            )
        return named

    def _command(self, socket: Path) -> list[str]:
        tier = self._tier
        command = [*self._launcher, "--model", self._served_model()]
        if self._launcher[-1] == "serve":
            command = [*self._launcher, self._served_model()]
        command += ["--served-model-name", tier.name, "--uds", str(socket)]
        command += ["--tensor-parallel-size", str(tier.tensor_parallel_size)]
        # Our own record says who asked what; a line a request would only cost.
        command += ["--disable-uvicorn-access-log"]
        if tier.pipeline_parallel_size > 1:
            command += ["--pipeline-parallel-size", str(tier.pipeline_parallel_size)]
        lowered = self._lowered
        for flag, value in (
            ("--max-model-len", tier.context_tokens or lowered.context_tokens),
            ("--gpu-memory-utilization", tier.gpu_memory_utilization or lowered.gpu_memory_utilization),
            ("--max-num-batched-tokens", lowered.max_batched_tokens),
            ("--max-num-seqs", lowered.max_sequences),
        ):
            if value is not None:
                command += [flag, str(value)]
        if _vllm_sleep.flag_missing(tier):
            command += [_vllm_sleep.FLAG]
        if tier.trust_remote_code:
            command += ["--trust-remote-code"]
        return command + tier.flags

    def _env(self) -> dict[str, str]:
        env = super()._env()
        program = self._tier.python or self._tier.executable
        if program is not None and program.parent != Path():
            # Kernels are built while it starts; the tools for that are in its own environment.
            folder = str(self._config.resolve(program).parent)
            env["PATH"] = os.pathsep.join([folder, env.get("PATH", os.defpath)])
        if _vllm_sleep.enabled(self._tier):
            env[_vllm_sleep.DEV_MODE] = "1"
        return env

    async def _asked_version(self, wire: Wire) -> str | None:
        status, body = await wire.get("http://engine/version")
        version = body.get("version") if status == 200 and isinstance(body, dict) else None
        return f"vllm {version}" if version else "vllm"

    def _progress(self, line: str) -> str | None:
        return _vllm_log.progress(line)

    def _says_memory(self, line: str) -> bool:
        return _vllm_memory.of_interest(line)

    def _read_boot(self, lines: list[str]) -> BootFigures | None:
        return _vllm_memory.read_boot(lines)

    def _diagnosis(self, log: str) -> SubcortexError | None:
        return _vllm_log.diagnosis(log, tier=self._tier.name, model=self.model)
