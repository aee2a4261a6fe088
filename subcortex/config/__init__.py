"""The configuration: one TOML file, overridden by ``SUBCORTEX_…`` variables, held to a schema."""

from subcortex.config.reading import ENV_PREFIX, find, json_schema, load, parse
from subcortex.config.tables import (
    AgentSection,
    Config,
    DaemonSection,
    DrivesSection,
    ExperimentsSection,
    FleetSection,
    JournalSection,
    LlamaCppTier,
    RemoteTier,
    RoutingSection,
    Tier,
    VllmTier,
)

__all__ = [
    "ENV_PREFIX",
    "AgentSection",
    "Config",
    "DaemonSection",
    "DrivesSection",
    "ExperimentsSection",
    "FleetSection",
    "JournalSection",
    "LlamaCppTier",
    "RemoteTier",
    "RoutingSection",
    "Tier",
    "VllmTier",
    "find",
    "json_schema",
    "load",
    "parse",
]
