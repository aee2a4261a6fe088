"""The configuration: one TOML file, overridden by ``SUBCORTEX_…`` variables, held to a schema.

Search order: the path given, ``$SUBCORTEX_CONFIG``, ``./config.toml`` when it has a ``[subcortex]``
table, and ``config.toml`` in the user's config folder. Relative paths are relative to the file.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from subcortex import paths
from subcortex.errors import ConfigError
from subcortex.types import Durability

ENV_PREFIX = "SUBCORTEX_"
#: Variables with our prefix that are not config keys.
_RESERVED = {"SUBCORTEX_CONFIG"}
_NAME = r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$"


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class FileSection(_Table):
    """``[subcortex]``: marks the file as ours and says which form it has."""

    version: Literal[1] = 1


class DaemonSection(_Table):
    """``[daemon]``: the process that owns the engines."""

    autostart: bool = Field(default=True, description="think() starts the daemon when none is up")
    idle_stop_s: float = Field(
        default=1800.0, ge=0, description="stop after this many idle seconds; 0 means never"
    )
    runtime_dir: Path | None = Field(default=None, description="folder of the socket and the lock")
    tcp: str | None = Field(default=None, description="also listen here, loopback only, e.g. 127.0.0.1:8741")
    max_waiting: int = Field(default=256, ge=1, description="thoughts that may wait a tier before Overloaded")
    max_prompt_mib: float = Field(default=4.0, gt=0, description="largest request body, MiB")
    start_timeout_s: float = Field(
        default=30.0, gt=0, description="how long think() waits for the socket to answer"
    )


class JournalSection(_Table):
    """``[journal]``: what is written down, and how safely."""

    database: Path | None = Field(default=None, description="SQLite file; default in the state folder")
    sessions_dir: Path = Field(default=Path("sessions"), description="folder of the sessions as markdown")
    record: Literal["full", "redacted", "none"] = Field(
        "full", description="texts of thoughts: whole, with patterns masked, or held back"
    )
    redact: list[str] = Field(default_factory=list, description="regular expressions masked when redacted")
    durability: Durability = Field(
        "process", description="survive a killed process (fast), or a power cut (an fsync a thought)"
    )


class DrivesSection(_Table):
    """``[drives]``: where the drives are defined, and whose state is followed."""

    dir: Path = Field(default=Path("drives"), description="folder of one TOML file a drive")
    emergence: str = Field(
        default="auto",
        min_length=1,
        description='follow an Emergence state: "auto" where there is one, "off", or its folder',
    )
    emergence_command: str = Field(
        default="emergence", min_length=1, description="Emergence's program, by name or path"
    )


class RoutingSection(_Table):
    """``[routing]``: how readily a thought goes deep."""

    deep_bias: float = Field(default=0.0, ge=-1.0, le=1.0, description="added to every thought's score")
    patience: float = Field(
        0.5, ge=0.0, le=1.0, description="0: never wait for a better tier; 1: waiting is free"
    )


class FleetSection(_Table):
    """``[fleet]``: how tiers share the GPUs."""

    max_wait_s: float = Field(
        default=120.0, gt=0, description="no thought waits longer for another tier to make room"
    )
    gpu_limit_gib: float | None = Field(
        default=None, gt=0, description="most that all tiers together may take of each GPU; none: all of it"
    )
    host_limit_gib: float | None = Field(
        default=None, gt=0, description="most host memory that all tiers together may take; none: all of it"
    )
    yield_over_gib: float = Field(
        default=2.0, gt=0, description="make way for another program that takes this much of a GPU"
    )
    yield_back_s: float = Field(
        default=30.0, ge=0, description="come back once a GPU has been left alone this long"
    )
    look_every_s: float = Field(
        default=10.0, gt=0, description="seconds between looks at a running engine and at the GPUs"
    )
    adopt_s: float = Field(
        default=60.0, ge=0, description="how long engines outlive a killed daemon, for the next to adopt them"
    )


class AgentSection(_Table):
    """``[agent]``: when sessions are held of themselves (`subcortex agent`)."""

    quiet_hours: list[str] = Field(
        default_factory=list, description='no session is held in these: "22:00-07:30", local time'
    )
    idle_s: float = Field(
        default=60.0, ge=0, description="the machine is idle once no thought has come for this long"
    )
    tick_s: float = Field(default=60.0, ge=1, description="seconds between ticks of `subcortex agent run`")
    thought_s: float = Field(default=900.0, gt=0, description="seconds a thought of a session may take")
    max_tokens: int = Field(default=1024, gt=0, description="tokens that one thought of a session may have")


class _TierBase(_Table):
    name: str = Field(pattern=_NAME, description="what think(tier=…) calls it")
    model: str = Field(min_length=1, description="a file, a folder or a hub name")
    start: Literal["eager", "lazy"] = Field(
        default="eager", description="with the daemon, or at the first thought"
    )
    start_timeout_s: float = Field(
        default=600.0, gt=0, description="seconds from start to ready before giving up"
    )
    max_restarts: int = Field(
        default=5, ge=0, description="restarts within ten minutes before the tier is failed"
    )
    max_concurrent: int = Field(default=32, ge=1, description="thoughts at work in the engine at once")
    nominal_ttft_s: float | None = Field(
        default=None, gt=0, description="expected seconds to the first token"
    )
    nominal_tpot_s: float | None = Field(default=None, gt=0, description="expected seconds a token after it")
    nominal_load_s: float | None = Field(
        default=None, gt=0, description="expected seconds from stopped to ready"
    )


class _LocalTier(_TierBase):
    context_tokens: int | None = Field(default=None, ge=64, description="context length a request may use")
    gpus: list[int] | None = Field(default=None, description="GPU indices the engine may see; none: all")
    env: dict[str, str] = Field(default_factory=dict, description="environment of the engine")
    flags: list[str] = Field(default_factory=list, description="passed to the engine as they are")


class LlamaCppTier(_LocalTier):
    """A tier on llama.cpp: embedded (xllamacpp) or a ``llama-server`` binary."""

    engine: Literal["llama.cpp"] = "llama.cpp"
    executable: Path | None = Field(default=None, description="a llama-server binary; none: the embedded one")
    parallel: int = Field(default=4, ge=1, description="slots that share the context")
    threads: int | None = Field(default=None, ge=1, description="CPU threads; none: the engine's choice")
    gpu_layers: int | None = Field(
        default=None, ge=0, description="layers on GPUs; none: the engine's choice"
    )
    split_mode: Literal["none", "layer", "row", "tensor"] | None = None
    tensor_split: list[float] | None = Field(default=None, description="share of each GPU, e.g. [8, 3]")


class VllmTier(_LocalTier):
    """A tier on vLLM, in an environment of its own."""

    engine: Literal["vllm"] = "vllm"
    python: Path | None = Field(default=None, description="interpreter of the environment that has vLLM")
    executable: Path | None = Field(default=None, description="the vllm command, if not the interpreter")
    tensor_parallel_size: int = Field(default=1, ge=1)
    pipeline_parallel_size: int = Field(default=1, ge=1)
    gpu_memory_utilization: float | None = Field(default=None, gt=0, le=1)
    trust_remote_code: bool = Field(default=False, description="run code that comes with this model")
    sleep_mode: bool | None = Field(
        default=None,
        description="put the model to sleep instead of stopping it; none: if flags say --enable-sleep-mode",
    )

    @model_validator(mode="after")
    def _one_launcher(self) -> VllmTier:
        if self.python and self.executable:
            raise ValueError("give python or executable, not both")
        return self


class RemoteTier(_TierBase):
    """A tier behind any OpenAI-compatible URL."""

    engine: Literal["remote"] = "remote"
    url: str = Field(pattern=r"^https?://", description="base URL, ending in /v1 as a rule")
    api_key_env: str | None = Field(
        default=None, pattern=r"^[A-Z_][A-Z0-9_]*$", description="variable with the key"
    )
    request_timeout_s: float = Field(default=600.0, gt=0)


Tier = Annotated[LlamaCppTier | VllmTier | RemoteTier, Field(discriminator="engine")]


class Config(_Table):
    """The whole configuration. ``tiers`` run from least to most capable."""

    subcortex: FileSection = Field(default_factory=FileSection)
    daemon: DaemonSection = Field(default_factory=DaemonSection)
    journal: JournalSection = Field(default_factory=JournalSection)
    drives: DrivesSection = Field(default_factory=DrivesSection)
    routing: RoutingSection = Field(default_factory=RoutingSection)
    fleet: FleetSection = Field(default_factory=FleetSection)
    agent: AgentSection = Field(default_factory=AgentSection)
    tiers: list[Tier] = Field(min_length=1)
    source: Path | None = Field(
        default=None, exclude=True, description="set by load(); not a key of the file"
    )

    @field_validator("tiers")
    @classmethod
    def _names_differ(cls, tiers: list[Tier]) -> list[Tier]:
        names = [tier.name for tier in tiers]
        twice = sorted({name for name in names if names.count(name) > 1})
        taken = sorted({"auto", "daemon"}.intersection(names))
        if taken:
            raise ValueError(f"no tier may be named {taken[0]!r}: that word means something else here")
        if twice:
            raise ValueError(f"two tiers are named {', '.join(twice)}; give each a name of its own")
        return tiers

    def tier(self, name: str) -> LlamaCppTier | VllmTier | RemoteTier:
        """Return the tier of that name; KeyError if there is none."""
        for tier in self.tiers:
            if tier.name == name:
                return tier
        raise KeyError(name)

    @property
    def base_dir(self) -> Path:
        """Folder that relative paths start from: the config file's, or the current one."""
        return self.source.parent if self.source else Path.cwd()

    def resolve(self, path: Path | str) -> Path:
        """Return ``path`` absolute, ``~`` expanded, relative ones from the config's folder."""
        expanded = Path(path).expanduser()
        return expanded if expanded.is_absolute() else (self.base_dir / expanded)

    @property
    def runtime_dir(self) -> Path:
        """Folder of the socket and the lock."""
        return self.resolve(self.daemon.runtime_dir) if self.daemon.runtime_dir else paths.runtime_home()

    @property
    def socket_path(self) -> Path:
        """The daemon's Unix socket."""
        return self.runtime_dir / "subcortex.sock"

    @property
    def database_path(self) -> Path:
        """The journal's SQLite file."""
        if self.journal.database:
            return self.resolve(self.journal.database)
        return paths.state_home() / "journal.db"

    @property
    def log_dir(self) -> Path:
        """Folder of the daemon's and the engines' logs, beside the database."""
        return self.database_path.parent / "logs"

    @property
    def drives_dir(self) -> Path:
        """Folder of the drives: the config's, or the ones that come with the package."""
        found = self.resolve(self.drives.dir)
        if found.is_dir():
            return found
        packaged = Path(__file__).parent / "_data" / "drives"
        return packaged if packaged.is_dir() else Path(__file__).parent.parent / "drives"


def find(path: Path | str | None = None, environ: Mapping[str, str] | None = None) -> Path:
    """Return the config file that applies.

    Raises:
        ConfigError: There is none, or the one named is not there.
    """
    environ = os.environ if environ is None else environ
    named = path or environ.get("SUBCORTEX_CONFIG")
    if named:
        file = Path(named).expanduser().absolute()
        if not file.is_file():
            raise ConfigError(
                f"there is no config file {file}",
                hint="Run `subcortex init` to write one, or name another.",
                file=str(file),
            )
        return file
    here, home = Path.cwd() / "config.toml", paths.config_home() / "config.toml"
    if here.is_file() and _is_ours(here):
        return here
    if home.is_file():
        return home
    raise ConfigError(
        f"no config.toml: neither {here} (with a [subcortex] table) nor {home} exists",
        hint="Run `subcortex init` to write one that fits this machine.",
        file=str(home),
    )


def _is_ours(file: Path) -> bool:
    # A config names commands to run, so a stranger's file in the current folder is not taken.
    if file.stat().st_uid not in (os.getuid(), 0):
        return False
    if not os.access(file, os.R_OK):
        return False
    try:
        return "subcortex" in tomllib.loads(file.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        return "[subcortex]" in file.read_text("utf-8", errors="replace")


def load(path: Path | str | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """Find, read, override and validate the configuration.

    Raises:
        ConfigError: Naming the file, the key and what to write instead.
    """
    environ = os.environ if environ is None else environ
    file = find(path, environ)
    try:
        data = tomllib.loads(file.read_text("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file} is not TOML: {error}", hint="Mend that line.", file=str(file)) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{file} is not UTF-8: byte {error.start}", hint="Save it as UTF-8.", file=str(file)
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be read: {error.strerror}", hint="Mind its owner and mode.", file=str(file)
        ) from None
    return parse(data, file, environ)


def parse(data: dict[str, Any], file: Path | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """Validate a config given as plain data; ``file`` names it in errors and anchors its paths."""
    origin = str(file) if file else "the configuration"
    data = _with_overrides(data, environ or {})
    if "source" in data:
        raise ConfigError(f"{origin}: unknown key source", hint="Remove it.", file=origin, key="source")
    try:
        return Config.model_validate({**data, "source": file})
    except ValidationError as error:
        raise _explained(error, data, origin) from None


def _with_overrides(data: dict[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """Lay ``SUBCORTEX_A__B=value`` over ``data``; a tier is named by its name or its place."""
    result: dict[str, Any] = _copied(data)
    for variable, text in sorted(environ.items()):
        if not variable.startswith(ENV_PREFIX) or variable in _RESERVED or "__" not in variable:
            continue
        *parents, last = variable[len(ENV_PREFIX) :].split("__")
        parents = [part.lower() for part in parents]
        # A tier's env names variables, whose case matters; keys are all lower case.
        last = last if parents[-1:] == ["env"] else last.lower()
        node: Any = result
        for part in parents:
            node = _descend(node, part, variable)
        if not isinstance(node, dict):
            raise ConfigError(f"{variable} does not name a key", hint="Name a table and a key in it.")
        node[last] = _toml_value(text)
    return result


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _descend(node: Any, part: str, variable: str) -> Any:
    if isinstance(node, dict):
        return node.setdefault(part, {})
    if isinstance(node, list):
        for i, item in enumerate(node):
            if part == str(i) or (isinstance(item, dict) and str(item.get("name", "")).lower() == part):
                return item
    raise ConfigError(
        f"{variable}: there is no {part!r} to override", hint="Check the name against the config file."
    )


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _explained(error: ValidationError, data: dict[str, Any], origin: str) -> ConfigError:
    problems = [_problem(item, data) for item in error.errors()]
    lines = [f"{key}: {what}" for key, what, _ in problems]
    hints = [hint for _, _, hint in problems if hint]
    return ConfigError(
        f"{origin}: " + ("; ".join(lines)),
        hint=" ".join(dict.fromkeys(hints)) or "See the commented config.toml.",
        file=origin,
        key=problems[0][0],
        problems=[{"key": key, "problem": what, "hint": hint} for key, what, hint in problems],
    )


def _problem(item: Any, data: dict[str, Any]) -> tuple[str, str, str | None]:
    """Return key, what is wrong and what to write instead, for one of pydantic's errors."""
    location = [part for part in item["loc"] if part not in _ENGINES]
    key = _dotted(location, data)
    if item["type"] == "extra_forbidden":
        known = _keys_at(location[:-1], data)
        near = difflib.get_close_matches(str(location[-1]), known, n=1)
        return (
            key,
            "unknown key",
            f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(known)}.",
        )
    if item["type"] == "union_tag_invalid":
        return (
            f"{key}.engine",
            f"no engine {item['input'].get('engine')!r}",
            f"One of: {', '.join(_ENGINES)}.",
        )
    if item["type"] == "union_tag_not_found":
        return f"{key}.engine", "missing", f"One of: {', '.join(_ENGINES)}."
    if item["type"] == "missing":
        return key, "missing", f"Add {location[-1]!r}."
    message = str(item["msg"]).removeprefix("Value error, ")
    return key, f"{message} (it is {item['input']!r})" if location else message, None


_ENGINES: dict[str, type[BaseModel]] = {"llama.cpp": LlamaCppTier, "vllm": VllmTier, "remote": RemoteTier}


def _dotted(location: list[Any], data: dict[str, Any]) -> str:
    parts: list[str] = []
    node: Any = data
    for part in location:
        node = (
            node[part]
            if isinstance(node, list) and isinstance(part, int) and part < len(node)
            else (node.get(part) if isinstance(node, dict) else None)
        )
        named = isinstance(part, int) and isinstance(node, dict) and node.get("name")
        parts.append(f"[{node['name']}]" if named and isinstance(node, dict) else str(part))
    return ".".join(parts).replace(".[", "[") or "the file"


def _keys_at(location: list[Any], data: dict[str, Any]) -> list[str]:
    if not location:
        return [name for name in Config.model_fields if name != "source"]
    if location[0] == "tiers":
        tier = data["tiers"][location[1]] if len(location) > 1 else {}
        model = _ENGINES.get(tier.get("engine", ""), LlamaCppTier)
        return sorted(model.model_fields)
    field = Config.model_fields.get(str(location[0]))
    section = field.annotation if field else None
    return (
        sorted(section.model_fields) if isinstance(section, type) and issubclass(section, BaseModel) else []
    )


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the config file, for editors and for ``docs/config.schema.json``."""
    schema = Config.model_json_schema()
    schema["properties"].pop("source", None)
    schema["title"] = "subcortex config.toml"
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return schema
