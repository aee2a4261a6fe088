"""An experiment for tests, its inquiry and report, and runs put into the journal as a worker would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from subcortex.experiments.choice import believed
from subcortex.experiments.experiment import Answer, Experiment, Inquiry, Needs, Report
from subcortex.experiments.forms import digest_of, inquiry_to_json, report_to_json
from subcortex.experiments.laboratory.lab import Lab
from subcortex.experiments.laboratory.record import Reading
from subcortex.experiments.scene import Scene
from subcortex.experiments.statistics import Interval
from subcortex.journal.diary import Diary, experiments
from subcortex.journal.diary.experiment_records import RunRecord

CERTIFICATE = {"driver": "580.1", "gpus": [{"index": 0, "uuid": "GPU-a"}, {"index": 1, "uuid": "GPU-b"}]}
CLOCKS = {"gpus": [{"sm_clock_mhz": 1410, "temperature_c": 41.0}], "cpu_mhz": 2000.0}


class Links(Experiment):
    """How fast one GPU reads the other's memory; in tests it is never run."""

    number: ClassVar[int] = 1
    name: ClassVar[str] = "links"
    question: ClassVar[str] = "How fast do GPUs copy to each other?"
    kinds: ClassVar[frozenset[str]] = frozenset({"interconnect"})

    def __init__(self, *found: Inquiry, why_not: str | None = None) -> None:
        self.found, self.why = found, why_not

    def why_not(self, scene: Scene) -> str | None:
        return self.why

    def inquiries(self, scene: Scene) -> Sequence[Inquiry]:
        return self.found

    async def run(self, lab: Lab, inquiry: Inquiry) -> Report:
        raise NotImplementedError


class Named(Links):
    """The same by another name and of other kinds."""

    def __init__(self, name: str, *found: Inquiry, kinds: Sequence[str] = (), why_not: str | None = None):
        super().__init__(*found, why_not=why_not)
        self.name = name  # type: ignore[misc]
        self.kinds = frozenset(kinds)  # type: ignore[misc]


def inquiry(**changes: Any) -> Inquiry:
    given: dict[str, Any] = {
        "experiment": "links",
        "subject": "machine",
        "question": "How many GB/s does a copy over PCIe 4.0 x16 reach in one direction?",
        "quantity": "bandwidth",
        "about": "PCIe 4.0 x16",
        "unit": "GB/s",
        "prior": believed(Interval(10.0, 32.0, 0.9)),
        "noise": 0.01,
        "worth": 0.5,
        "minutes": 2.0,
        "needs": Needs(gpus=2),
        "depends_on": CERTIFICATE,
    }
    return Inquiry(**{**given, **changes})


def answer(**changes: Any) -> Answer:
    given: dict[str, Any] = {
        "quantity": "bandwidth",
        "about": "PCIe 4.0 x16",
        "unit": "GB/s",
        "outcome": "measured",
        "statement": "A copy over PCIe 4.0 x16 reaches 25.13 GB/s in one direction.",
        "value": 25.13,
        "low": 25.02,
        "high": 25.31,
        "n": 4,
        "series": "copy",
    }
    return Answer(**{**given, **changes})


REPORT = Report(
    (answer(),),
    noticed=("The copies from GPU 1 to GPU 0 took 1.7 % longer.",),
    gaps=("Why does a copy reach 79.75 % of what PCIe 4.0 x16 promises?",),
)


def measured(
    diary: Diary,
    asked: Inquiry | None = None,
    report: Report = REPORT,
    *,
    gap_id: str | None = None,
    drive: str | None = None,
    provenance: Mapping[str, Any] = CERTIFICATE,
) -> RunRecord:
    """Put a run into the journal that has come to its report."""
    asked = asked or inquiry()
    run = experiments.enqueue(
        diary,
        experiment=asked.experiment,
        subject=asked.subject,
        inquiry=inquiry_to_json(asked),
        asked_by="person",
        seconds=60.0,
        digest=digest_of(asked, 1),
        gap_id=gap_id,
        drive=drive,
    )
    experiments.begin(diary, run.id)
    experiments.keep_command(diary, run.id, ["python", "copies.py", "--mib", "256"], "2.11.0")
    samples = [
        Reading("copy", value, "GB/s", arm, block, 0.1 * at, readings=CLOCKS)
        for at, (value, arm, block) in enumerate(
            [(25.02, "forth", 0), (25.31, "back", 0), (25.2, "back", 1), (25.06, "forth", 1)]
        )
    ]
    experiments.keep_readings(diary, run.id, samples)
    return experiments.measured(diary, run.id, report_to_json(report), provenance)
