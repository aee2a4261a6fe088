"""What was measured on a machine that is no more counts for nothing; what holds is remembered."""

from __future__ import annotations

from dataclasses import replace

import pytest

from subcortex.config import Config
from subcortex.experiments.scene import Scene
from subcortex.hardware import Hardware
from subcortex.journal.diary import board_queries, experiments
from subcortex.mind.experimenting.choosing import choose
from subcortex.mind.experimenting.expiring import expire_changed, recall
from subcortex.mind.experimenting.following import follow
from tests.mind.agent.helpers import imported
from tests.mind.experimenting.helpers import CERTIFICATE, Links, inquiry, measured


@pytest.fixture
def scene(config: Config) -> Scene:
    return Scene(config, Hardware(host_memory_total_mib=1024, host_memory_available_mib=1024, cores=2))


class Better(Links):
    method = 2


@pytest.mark.parametrize(
    ("now", "why"),
    [
        (Links(inquiry(depends_on={**CERTIFICATE, "driver": "590.2"})), "changed: driver: 580.1, now 590.2"),
        (Links(inquiry(depends_on={"driver": "580.1"})), "changed: gpus: "),
        (
            Links(inquiry(depends_on={**CERTIFICATE, "engine": {"version": "0.27"}})),
            "changed: engine: nothing, now {'version': '0.27'}",
        ),
        (Better(inquiry()), "changed: the way of measuring"),
        (Links(why_not="there is one GPU"), "not applicable here any more: there is one GPU"),
    ],
)
def test_a_fact_expires_with_its_machine_and_what_it_decided(config, diary, scene, now, why):
    followed = follow(diary, config, measured(diary).id, experiment=Links())
    [expired] = expire_changed(diary, scene, among=[now])
    assert expired.id == followed.facts[0].id
    assert (expired.expired_why or "").startswith(why)
    assert board_queries.measured_facts(diary) == []
    assert experiments.remembered(diary) == {}
    assert expire_changed(diary, scene, among=[now]) == []


def test_what_holds_stays_and_so_does_a_tier_that_is_gone(config, diary, scene):
    follow(diary, config, measured(diary).id, experiment=Links())
    assert expire_changed(diary, scene, among=[Links(inquiry())]) == []
    # Other beliefs and costs are no other machine.
    assert expire_changed(diary, scene, among=[Links(inquiry(worth=9.0, minutes=9.0))]) == []
    assert expire_changed(diary, scene, among=[Links(inquiry(subject="another"))]) == []
    assert expire_changed(diary, scene, among=[]) == []
    assert len(board_queries.measured_facts(diary)) == 1


def test_what_cannot_be_asked_now_is_no_other_machine(config, diary, scene):
    known = inquiry(depends_on={**CERTIFICATE, "engine": {"name": "vllm", "version": "0.26"}})
    follow(diary, config, measured(diary, known).id, experiment=Links())
    silent = replace(scene, hardware=scene.hardware.model_copy(update={"problem": "no answer in 10 s"}))
    assert expire_changed(diary, silent, among=[Links(why_not="there are no GPUs")]) == []
    for untold in (
        {**CERTIFICATE, "engine": {"name": "vllm", "version": None}},
        {**CERTIFICATE, "driver": None, "engine": {"name": "vllm"}},
    ):
        assert expire_changed(diary, scene, among=[Links(inquiry(depends_on=untold))]) == []
    other = {**CERTIFICATE, "driver": "590.2", "engine": {"name": "vllm", "version": None}}
    assert len(expire_changed(diary, scene, among=[Links(inquiry(depends_on=other))])) == 1


def test_a_new_question_that_is_answered_already_costs_nothing(config, diary, scene):
    followed = follow(diary, config, measured(diary).id, experiment=Links())
    imported(diary)
    [gap] = [one for one in board_queries.gaps(diary, state="open") if one.kind == "interconnect"]
    proposals = choose(config, diary, scene, among=[Links(inquiry())])
    [answered] = recall(diary, proposals)
    assert (answered.id, answered.fact_id) == (gap.id, followed.facts[0].id)
    assert "25.13 GB/s" in (answered.answer or "")
    assert recall(diary, proposals) == []
    assert choose(config, diary, scene, among=[Links(inquiry())]) == []
