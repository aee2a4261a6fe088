"""The planner learns from engines that an experiment started."""

from __future__ import annotations

from collections.abc import Mapping

from subcortex.config import Config
from subcortex.experiments.forms import digest_of, inquiry_to_json, report_to_json
from subcortex.journal import Journal
from subcortex.journal.diary import Diary, experiments
from subcortex.mind.experimenting.following import follow
from subcortex.mind.foresight import Foresight, recorded
from subcortex.vram.footprint import Component
from tests.mind.experimenting.helpers import REPORT, Links, inquiry
from tests.mind.test_foresight import MACHINE, rows, tier_of


def started(diary: Diary, *boots: Mapping[str, object]) -> str:
    """Put a run into the journal that started engines; return its id."""
    asked = inquiry()
    run = experiments.enqueue(
        diary,
        experiment="links",
        subject="deep",
        inquiry=inquiry_to_json(asked),
        asked_by="schedule",
        seconds=60.0,
        digest=digest_of(asked, 1),
    )
    experiments.begin(diary, run.id)
    for facts in boots:
        experiments.keep_boot(diary, run.id, facts)
    experiments.measured(diary, run.id, report_to_json(REPORT), {})
    return run.id


def foretold(config: Config) -> Foresight:
    return Foresight(config, lambda: MACHINE, lambda: recorded(config))


async def test_a_model_that_an_experiment_booted_is_foretold_as_it_was_measured(config, diary):
    journal = Journal.open(config.database_path)
    await journal.aclose()
    row, figures = next((row, found) for row, found in rows() if row["model"] == "phi-4")
    tier = tier_of(row)
    settings = {"engine": "vllm", **tier.model_dump(mode="json", exclude_defaults=True)}
    boot = {
        "tier": "deep",
        "settings": settings,
        "boot_s": 61.0,
        "version": None,
        "figures": figures.model_dump(mode="json", exclude_defaults=True),
    }
    failed = {"tier": "deep", "settings": settings, "error": {"message": "out of memory"}, "figures": None}
    run_id = started(diary, boot, failed, boot, boot)
    before = foretold(config)(tier)
    followed = follow(
        diary, config, run_id, experiment=Links(), predict=foretold(config), look=lambda: MACHINE
    )
    after = foretold(config)(tier)

    assert before is not None
    assert after is not None
    measured_mib = row["cuda_graph_gib"] * 1024
    graphs = [told.footprint.devices[0].of(Component.GRAPHS) for told in (before, after)]
    assert abs(graphs[1].mean_mib - measured_mib) < 15 < abs(graphs[0].mean_mib - measured_mib)
    assert "deep did not start: out of memory" in followed.session.text
    assert [boot.tier for boot in recorded(config)] == ["lab-deep"] * 3
    follow(diary, config, run_id, experiment=Links(), predict=foretold(config), look=lambda: MACHINE)
    assert len(recorded(config)) == 3


def test_where_no_daemon_ever_ran_nothing_is_kept_and_nothing_breaks(config, diary):
    run_id = started(diary, {"tier": "deep", "settings": {"name": "deep"}, "figures": {"engine": "vllm"}})
    assert follow(diary, config, run_id, experiment=Links()).run.state == "settled"
    assert recorded(config) == []
