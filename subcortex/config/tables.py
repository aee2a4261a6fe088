"""What a configuration holds: a table a section, a table a tier, and where its paths lead."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from subcortex import paths
from subcortex.types import Durability

_PACKAGE = Path(__file__).parents[1]
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


class ExperimentsSection(_Table):
    """``[experiments]``: when the machine may try things out on itself, and with what."""

    windows: list[str] = Field(
        default_factory=list,
        description="when one may begin, as cron writes it: minute hour day month weekday",
    )
    minutes_a_day: float = Field(
        default=60.0,
        ge=0,
        allow_inf_nan=False,
        description="GPU-minutes that experiments in those windows may take a day",
    )
    python: Path | None = Field(
        default=None, description="interpreter that has torch; none: that of the first vLLM tier"
    )
    tools_dir: Path | None = Field(
        default=None, description="folder of llama-bench and its like; none: looked for on PATH"
    )


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
    experiments: ExperimentsSection = Field(default_factory=ExperimentsSection)
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
        packaged = _PACKAGE / "_data" / "drives"
        return packaged if packaged.is_dir() else _PACKAGE.parent / "drives"
