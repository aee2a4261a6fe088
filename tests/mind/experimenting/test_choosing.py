"""What is run next: asked before unasked, pressed before at ease, cheap before dear, nothing twice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from subcortex.config import Config
from subcortex.experiments.choice import believed
from subcortex.experiments.experiment import Experiment, Needs, Report
from subcortex.experiments.forms import digest_of
from subcortex.experiments.scene import Scene
from subcortex.experiments.statistics import Interval
from subcortex.hardware import Hardware
from subcortex.journal.diary import Diary, board_queries, experiments
from subcortex.journal.diary.experiment_records import RunRecord
from subcortex.mind.experimenting.choosing import choose
from subcortex.mind.experimenting.following import follow
from subcortex.mind.keeping import DriveKeeper
from tests.mind.agent.helpers import grown, imported
from tests.mind.experimenting.helpers import REPORT, Links, Named, answer, inquiry, measured

NOTES = """# Session: CARE
**Date:** 2026-02-22 15:08
**Drive:** CARE (90%)

## Open Questions

- How long does it take to load a model?
"""


@pytest.fixture
def scene(config: Config) -> Scene:
    return Scene(config, Hardware(host_memory_total_mib=1024, host_memory_available_mib=1024, cores=2))


def loading(**changes: Any) -> Named:
    given = {"experiment": "load", "quantity": "load_time", "about": "fast", "unit": "s", **changes}
    return Named("load", inquiry(**given), kinds=["load_time"])


def waiting(diary: Diary, name: str, digest: str) -> RunRecord:
    return experiments.enqueue(
        diary, experiment=name, subject="machine", inquiry={}, asked_by="person", seconds=1, digest=digest
    )


def names(config: Config, diary: Diary, scene: Scene, *among: Experiment) -> list[str]:
    return [one.experiment.name for one in choose(config, diary, scene, among=among)]


def test_a_question_of_the_board_goes_before_the_machines_own(config, diary, scene):
    both = (loading(minutes=1.0), Links(inquiry()))
    assert names(config, diary, scene, *both) == ["load", "links"]
    imported(diary)
    first, second = choose(config, diary, scene, among=both)
    assert (first.experiment.name, second.experiment.name) == ("links", "load")
    [gap] = board_queries.gaps(diary)
    assert (first.gaps, second.gaps) == ((gap,), ())
    # The one that nobody asked is worth a quarter, and takes half as long.
    assert first.a_minute == pytest.approx(2 * second.a_minute)
    assert first.gpu_minutes == 4.0
    assert first.expects.low == pytest.approx(10.0)
    assert first.expects.high == pytest.approx(32.0)
    assert "1 open question of the board asks it; 10 to 32 GB/s is believed" in first.why
    assert second.why.startswith("The machine asks it of itself; ")


def test_the_pressure_of_the_drive_that_asked_counts(config, diary, scene, clock):
    imported(diary)
    imported(diary, NOTES)
    grown(config, diary, clock, 2)
    both = (loading(minutes=2.5), Links(inquiry()))
    assert names(config, diary, scene, *both) == ["links", "load"]
    DriveKeeper(config, diary).bump("CARE", 7.0)
    first, second = choose(config, diary, scene, among=both)
    assert (first.experiment.name, first.drive, second.drive) == ("load", "CARE", "LEARNING")
    assert first.score is not None
    assert first.score.worth == pytest.approx(0.5 * 1.9)
    assert "with CARE at 90 %" in first.why


def test_what_costs_more_gpus_waits(config, diary, scene):
    dear = loading(needs=Needs(gpus=8))
    assert names(config, diary, scene, dear, Links(inquiry())) == ["links", "load"]


def test_what_is_under_way_or_failed_twice_is_left_out(config, diary, scene):
    digest = digest_of(inquiry(), 1)
    for runs in range(2):
        assert names(config, diary, scene, Links(inquiry())) == ["links"], runs
        run = waiting(diary, "links", digest)
        assert names(config, diary, scene, Links(inquiry())) == []
        experiments.failed(diary, run.id, {"message": "out of memory"})
    assert names(config, diary, scene, Links(inquiry())) == []
    # Another driver is another question.
    assert names(config, diary, scene, Links(inquiry(depends_on={"driver": "590"}))) == ["links"]


def test_what_is_known_is_only_told_to_who_asks(config, diary, scene):
    run = measured(diary)
    follow(diary, config, run.id, experiment=Links())
    assert names(config, diary, scene, Links(inquiry())) == []
    imported(diary)
    [told] = choose(config, diary, scene, among=[Links(inquiry())])
    assert (told.remembered, told.gpu_minutes, told.score) == (run.id, 0.0, None)
    assert "known for this very machine" in told.why


def test_peers_are_looked_at_first_and_forbid_what_follows(config, diary, scene):
    sound = inquiry(experiment="peers", quantity="intact", unit="", worth=0.01, minutes=0.2)
    gate, links = Named("peers", sound), Links(inquiry(after=frozenset({"peers"})))
    first, second = choose(config, diary, scene, among=[links, gate])
    assert (first.experiment.name, first.opens) == ("peers", "links")
    assert "links has to wait for it" in first.why
    assert second.experiment.name == "links"
    # Not applicable, it forbids nothing; wrong, it does.
    nowhere = Named("peers", why_not="there is one GPU")
    assert names(config, diary, scene, links, nowhere) == ["links"]
    bad = answer(outcome="failed", quantity="intact", value=None, low=None, high=None)
    measured(diary, sound, Report((bad,)))
    assert names(config, diary, scene, links, gate) == []
    # Somebody has mended it: the last look counts.
    measured(diary, sound, Report((replace(bad, outcome="passed"),)))
    assert names(config, diary, scene, links, gate) == ["links"]


def test_a_look_that_was_cut_off_is_taken_once_more_and_then_left_to_a_person(config, diary, scene):
    sound = inquiry(experiment="peers", quantity="intact", unit="", worth=0.01, minutes=0.2)
    gate, links = Named("peers", sound), Links(inquiry(after=frozenset({"peers"})))
    cut = answer(outcome="inconclusive", quantity="intact", value=None, low=None, high=None)
    measured(diary, sound, Report((cut,)))
    assert names(config, diary, scene, links, gate) == ["peers", "links"]
    measured(diary, sound, Report((cut,)))
    assert names(config, diary, scene, links, gate) == []
    measured(diary, sound, Report((replace(cut, outcome="passed"),)))
    assert names(config, diary, scene, links, gate) == ["links"]


def test_once_peers_are_sound_the_rest_is_free(config, diary, scene):
    sound = inquiry(experiment="peers", quantity="intact")
    links = Links(inquiry(after=frozenset({"peers"})))
    run = waiting(diary, "peers", digest_of(sound, 1))
    assert names(config, diary, scene, links, Named("peers", sound)) == []
    experiments.cancelled(diary, run.id)
    measured(diary, sound, replace(REPORT, answers=(answer(outcome="passed"),)))
    assert names(config, diary, scene, links, Named("peers", sound)) == ["links"]


def test_a_wide_prior_goes_before_a_narrow_one(config, diary, scene):
    narrow = Named("narrow", inquiry(experiment="narrow", prior=believed(Interval(24.0, 26.0, 0.9))))
    assert names(config, diary, scene, narrow, Links(inquiry())) == ["links", "narrow"]
