"""A laboratory for tests: real engines, real probes; raw data goes into lists."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from subcortex.config import Config, parse
from subcortex.experiments.laboratory.lab import Lab, laboratory
from subcortex.experiments.laboratory.record import Reading
from subcortex.experiments.scene import Scene
from subcortex.hardware import detect

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "testbed" / "models"
#: The interpreter of the environment with torch and vLLM for the CPU (``make setup``).
VLLM_PYTHON = ROOT / ".venv-vllm" / "bin" / "python"


@dataclass
class MemoryKeep:
    """What a run would have put into the database."""

    kept: list[Reading] = field(default_factory=list)
    commands: list[tuple[list[str], str | None]] = field(default_factory=list)
    boots: list[dict[str, Any]] = field(default_factory=list)
    said: list[tuple[str, float | None]] = field(default_factory=list)

    def reading(self, reading: Reading) -> None:
        self.kept.append(reading)

    def command(self, words: Sequence[str], version: str | None) -> None:
        self.commands.append((list(words), version))

    def boot(self, facts: Mapping[str, Any]) -> None:
        self.boots.append(dict(facts))

    def progress(self, text: str, share: float | None) -> None:
        self.said.append((text, share))


def config_for(folder: Path, *tiers: dict[str, Any]) -> Config:
    """Return a configuration of tiers on the testbed; both tiny GGUF models on llama.cpp by default."""
    found = list(tiers) or [
        {"name": name, "engine": "llama.cpp", "model": str(MODELS / name / f"{name}.gguf"), "threads": 1}
        | {"context_tokens": 1024}
        for name in ("fast", "deep")
    ]
    return parse(
        {
            "daemon": {"runtime_dir": str(folder / "run")},
            "journal": {"database": str(folder / "journal.db"), "sessions_dir": str(folder / "sessions")},
            "tiers": found,
        }
    )


def scene_for(config: Config, **changes: Any) -> Scene:
    """Return the scene of this very machine, with the interpreter that has torch."""
    return Scene(config, detect(), python=VLLM_PYTHON, **changes)


@asynccontextmanager
async def lab_for(
    scene: Scene, *, seconds: float = 600.0, earlier: Sequence[Reading] = ()
) -> AsyncIterator[tuple[Lab, MemoryKeep]]:
    """Open a laboratory and what it keeps."""
    keep = MemoryKeep()
    async with laboratory(scene, keep, seconds=seconds, earlier=earlier) as lab:
        yield lab, keep
