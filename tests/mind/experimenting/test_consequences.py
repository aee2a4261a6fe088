"""An experiment changes what a route expects and what a plan counts on."""

from __future__ import annotations

from subcortex.config import Config
from subcortex.experiments.experiment import Report
from subcortex.fleet import SwapBook
from subcortex.hardware import Gpu, Hardware, link_between
from subcortex.journal.diary import Diary
from subcortex.mind.costs import cost_book, learn_costs, remember_swaps
from subcortex.mind.deciding import explain
from subcortex.mind.experimenting.following import follow
from subcortex.mind.experimenting.measured import measured_hardware
from subcortex.types import Rest, ThinkRequest
from tests.mind.experimenting.helpers import Links, answer, inquiry, measured

ASKED = ThinkRequest(messages=[{"role": "user", "content": "Prove it."}], max_tokens=100)


def of_tier(quantity: str, value: float, unit: str, **details: float) -> Report:
    found = answer(
        quantity=quantity,
        about="deep",
        unit=unit,
        value=value,
        low=None,
        high=None,
        tier="deep",
        details=details,
    )
    return Report((found,))


def run(config: Config, diary: Diary, report: Report, subject: str = "deep") -> None:
    asked = inquiry(subject=subject, depends_on={"subject": subject, "n": len(report.answers)})
    follow(diary, config, measured(diary, asked, report, provenance={}).id, experiment=Links())


def test_a_route_expects_what_was_measured(config, diary):
    [before] = explain(config, ASKED).alternatives
    assert cost_book(config).cost("deep").n == 0
    run(config, diary, of_tier("tpot", 250.0, "ms", ttft_s=1.5, restart_s=40.0))
    cost = cost_book(config).cost("deep")
    assert (cost.ttft_s, cost.tpot_s, cost.load_s, cost.n) == (1.5, 0.25, 40.0, 4)
    [after] = explain(config, ASKED).alternatives
    # 40 s to start, 1.5 s to the first token, 99 more of a quarter of a second.
    assert (after.wait_s, after.ttft_s, after.total_s) == (40.0, 41.5, 40.0 + 1.5 + 99 * 0.25)
    assert before.total_s < 0.6 * after.total_s


def test_a_daemon_that_is_up_learns_at_once_and_its_thoughts_outvote_it(config, diary):
    book = cost_book(config)
    for _ in range(5):
        book.observe("deep", ttft_s=0.3, tpot_s=0.03)
    asked = measured(diary, inquiry(), of_tier("tpot", 250.0, "ms", cold_start_s=90.0), provenance={})
    followed = follow(diary, config, asked.id, experiment=Links())
    learn_costs(book, config, followed.facts)
    cost = book.cost("deep")
    assert (cost.tpot_s, cost.load_s, cost.n) == (0.03, 90.0, 5)


def test_the_fleet_reckons_with_measured_swaps(config, diary):
    details = {"sleep_1_first_s": 30.0, "sleep_1_s": 2.0, "wake_1_s": 1.5, "stop_s": 8.0}
    run(config, diary, of_tier("restart_time", 70.0, "s", **details))
    book = SwapBook()
    remember_swaps(book, config)
    fresh, slept = book.swaps("deep", slept=()), book.swaps("deep", slept={Rest.SLEEP_1})
    assert (fresh.leave_s[Rest.SLEEP_1], slept.leave_s[Rest.SLEEP_1]) == (30.0, 2.0)
    assert (slept.back_s[Rest.SLEEP_1], slept.back_s[Rest.STOP]) == (1.5, 70.0)
    assert slept.leave_s[Rest.STOP] == 8.0


def test_a_plan_sees_the_measured_link(config, diary):
    gpus = tuple(
        Gpu(index=at, name="RTX 3090", uuid=f"GPU-{name}", memory_total_mib=24576)
        for at, name in enumerate("ab")
    )
    seen = Hardware(gpus=gpus, host_memory_total_mib=1024, host_memory_available_mib=1024, cores=2)
    pairs = [{"a": 0, "b": 1, "gb_per_s": 11.0}, {"a": 1, "b": 0, "gb_per_s": 12.0}]
    details = {"pairs": pairs, "all_reduce": {"gpus": [0, 1], "latency_s": 6e-5}}
    assert not link_between(measured_hardware(config, seen), 0, 1).measured
    asked = measured(diary, report=Report((answer(details=details),)))
    follow(diary, config, asked.id, experiment=Links())
    link = link_between(measured_hardware(config, seen), 0, 1)
    assert (link.measured, link.gb_per_s, link.latency_s) == (True, 11.0, 6e-5)
