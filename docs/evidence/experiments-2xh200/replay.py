"""From raw data to sessions, without the machine: what the page and the sessions say is reckoned from this alone.

    replay.py export JOURNAL            write runs/ from a journal that a machine brought home
    replay.py page                      write what was found into README.md, between its marks
    replay.py sessions OUT [SEEDS…]     reckon every report anew and write the sessions that follow, into OUT;
                                        SEEDS are sessions whose questions and claims are on the board before

A report is made as a resumed run makes it: from the samples that are kept, with no time left to take others.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from subcortex.config import Config, load, parse
from subcortex.experiments import catalogue, forms
from subcortex.experiments.experiment import Report
from subcortex.experiments.scene import Scene
from subcortex.experiments.laboratory.lab import Lab
from subcortex.experiments.laboratory.record import Reading
from subcortex.experiments.worker.running import provenance_of
from subcortex.hardware import load_snapshot
from subcortex.journal.diary import Diary, experiments
from subcortex.mind.experimenting import writeup

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
RUNS = HERE / "runs"
BEGIN, END = "<!-- found -->", "<!-- /found -->"
TOOLS = {name: Path(name) for name in ("llama-bench", "llama-perplexity", "llama-server")}
#: Of a run's record, what is raw; the rest follows from it.
_ASKED = ("experiment", "subject", "inquiry", "asked_by", "seconds", "digest")
#: Where things lay on that machine tells nobody anything.
_HOME, _ELSEWHERE = "root", "root|opt|usr/local"
_PLACES = re.compile(
    rf"/{_HOME}/(?:g|src)/|/{'tmp'}/(?:subcortex-split-[^/]+/|(?=vllm-cold-))|/(?:{_ELSEWHERE})/(?:[\w.-]+/)*(?=[\w.-])"
)
_TIMES = ("started_at", "ended_at", "heard_at")


class At:
    """A clock that stands where it is put."""

    def __init__(self) -> None:
        self.at = datetime.now(UTC)

    def now(self) -> datetime:
        return self.at

    def monotonic_s(self) -> float:
        return self.at.timestamp()


class Nobody:
    """Engines and raw data of a replay: nothing is started, nothing new is measured."""

    def lent(self, *_: Any) -> Any:
        raise AssertionError("a replay starts no engine")

    async def cool(self) -> None:
        pass

    def reading(self, reading: Reading) -> None:
        raise AssertionError(f"a replay measures nothing: {reading.metric}")

    def command(self, words: Sequence[str], version: str | None) -> None:
        raise AssertionError(f"a replay runs nothing: {words}")

    def boot(self, facts: Mapping[str, Any]) -> None:
        raise AssertionError("a replay starts no engine")

    def progress(self, text: str, share: float | None) -> None:
        pass


def export(journal: Path) -> None:
    """Write what a journal has of runs that took samples, a file each."""
    RUNS.mkdir(exist_ok=True)
    with Diary.open(journal) as diary:
        for run in experiments.runs(diary, limit=1000):
            readings = experiments.readings(diary, run.id)
            if not readings:
                continue
            record = {name: getattr(run, name) for name in ("id", *_ASKED, "state")}
            record |= {name: value.isoformat() for name in _TIMES if (value := getattr(run, name))}
            record["method"] = method_of(run)
            raw = {
                "run": record,
                "commands": [asdict(one) for one in experiments.commands(diary, run.id)],
                "boots": [one.facts for one in experiments.boots(diary, run.id)],
                "readings": [asdict(one) for one in readings],
            }
            lines = json.dumps(raw, ensure_ascii=False).replace('{"metric"', '\n{"metric"')
            lines = _PLACES.sub("", lines)
            (RUNS / f"{run.experiment}-{run.subject}.json").write_text(lines + "\n", "utf-8")


def method_of(run: experiments.Run) -> int:
    """Return the way of measuring that a run was begun with, which its digest tells from all before and since."""
    inquiry, now = forms.inquiry_from_json(run.inquiry), catalogue.find(run.experiment).method
    return next(one for one in range(1, now + 1) if forms.digest_of(inquiry, one) == run.digest)


def runs() -> list[dict[str, Any]]:
    """Return all runs, in the order they were begun."""
    found = [json.loads(file.read_text("utf-8")) for file in sorted(RUNS.glob("*.json"))]
    return sorted(found, key=lambda raw: str(raw["run"]["started_at"]))


def scene() -> Scene:
    """Return the machine that all of it was measured on."""
    config = parse(tomllib.loads(_config_text()), HERE / "config.toml")
    return Scene(config, load_snapshot(HERE / "hardware.json"), Path("python3"), TOOLS)


def _config_text() -> str:
    """Return the configuration, with the shapes of the models where this repository has them."""
    return (HERE / "config.toml").read_text("utf-8").replace('"models/', f'"{ROOT / "bench" / "shapes"}/')


def readings_of(raw: Mapping[str, Any]) -> list[Reading]:
    """Return a run's samples as a laboratory has them."""
    return [Reading(**{name: one[name] for name in one if name != "life"}) for one in raw["readings"]]


def report_of(raw: Mapping[str, Any]) -> Report:
    """Return what a run's samples come to."""
    nobody: Any = Nobody()
    lab = Lab(scene(), nobody, nobody, seconds=0.0, earlier=readings_of(raw))
    inquiry = forms.inquiry_from_json(raw["run"]["inquiry"])
    return asyncio.run(catalogue.find(raw["run"]["experiment"]).run(lab, inquiry))


def sessions(config: Config, seeds: Sequence[Path] = ()) -> list[Path]:
    """Have everything follow from the runs, in a journal of its own; return the sessions' files."""
    from subcortex.mind.experimenting.following import follow

    clock = At()
    assert config.source is not None
    if seeds:
        imported = ["sessions", "import", *map(str, seeds), "--config", str(config.source)]
        subprocess.run([sys.executable, "-m", "subcortex.cli", *imported], check=True)
    with Diary.open(config.database_path, clock=clock) as diary:
        for raw in runs():
            record = raw["run"]
            inquiry = forms.inquiry_from_json(record["inquiry"])
            clock.at = datetime.fromisoformat(record["started_at"])
            run = experiments.enqueue(diary, **{name: record[name] for name in _ASKED})
            with diary.transaction() as conn:
                conn.execute("UPDATE experiment_runs SET id = ? WHERE id = ?", (record["id"], run.id))
            run = experiments.begin(diary, record["id"])
            experiments.keep_readings(diary, run.id, readings_of(raw))
            for one in raw["commands"]:
                experiments.keep_command(diary, run.id, one["words"], one["version"])
            for facts in raw["boots"]:
                experiments.keep_boot(diary, run.id, facts)
            clock.at = datetime.fromisoformat(record.get("ended_at") or record["heard_at"])
            experiment = catalogue.find(record["experiment"])
            found = forms.report_to_json(report_of(raw))
            # The way of measuring that it was measured by, which may have changed since.
            provenance = provenance_of(experiment, inquiry, run.id) | {"method": record.get("method", 1)}
            experiments.measured(diary, run.id, found, provenance)
            follow(diary, config, run.id, predict=lambda _: None, look=lambda: scene().hardware)
    return sorted(config.resolve(config.journal.sessions_dir).glob("*.md"))


def configured(folder: Path) -> Config:
    """Return this evidence's configuration, with all that it writes in a folder."""
    file = folder / "config.toml"
    file.write_text(f'{_config_text()}\n[drives]\ndir = "{ROOT / "drives"}"\n', "utf-8")
    return load(file, {})


def found() -> str:
    """Return what every run came to, as the page has it."""
    parts = []
    for raw in runs():
        inquiry, report = forms.inquiry_from_json(raw["run"]["inquiry"]), report_of(raw)
        lines = [writeup.sentence(one) for one in report.answers] + list(report.noticed)
        told = "\n".join(f"- {line}" for line in lines)
        parts.append(f"### {inquiry.question}\n`{inquiry.experiment}` of `{inquiry.subject}`\n\n{told}\n")
    return "\n".join(parts)


def page(text: str) -> str:
    """Return the page with what was found between its marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{found()}{END}{after}"


def run() -> None:
    what, *rest = sys.argv[1:]
    if what == "page":
        readme = HERE / "README.md"
        readme.write_text(page(readme.read_text("utf-8")), "utf-8")
        return
    if what == "export":
        export(Path(rest[0]))
        return
    with tempfile.TemporaryDirectory() as folder:
        out = Path(rest[0])
        out.mkdir(parents=True, exist_ok=True)
        for file in sessions(configured(Path(folder)), [Path(seed) for seed in rest[1:]]):
            (out / file.name).write_bytes(file.read_bytes())
            print(out / file.name)


if __name__ == "__main__":
    run()
