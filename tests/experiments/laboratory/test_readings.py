"""What is kept beside a sample, read from made-up cards."""

from pathlib import Path
from typing import Any

import pynvml
import pytest

from subcortex.experiments.laboratory.readings import Sensors, reasons_in_words
from subcortex.experiments.laboratory.record import Reading, as_sample
from subcortex.hardware import Hardware, detect, parse_gpus
from tests.hardware import nvml as made_up


def sensors_on(*cards: made_up.Card) -> tuple[Sensors, made_up.Nvml]:
    nvml = made_up.Nvml(list(cards))
    return Sensors(detect(nvml), nvml=nvml), nvml


def card(reasons: int, **more: Any) -> made_up.Card:
    return made_up.h200(0, CurrentClocksEventReasons=reasons, **more)


def test_a_reading_has_each_gpus_clock_heat_power_and_memory() -> None:
    sensors, _ = sensors_on(made_up.h200(0), made_up.h200(1, Temperature=70, PowerUsage=699_000))
    first, second = sensors.read().gpus
    assert first == {
        "gpu": 0,
        "sm_clock_mhz": 345,
        "temperature_c": 31,
        "power_draw_w": 76.543,
        "memory_used_mib": 629,
    }
    assert (second["gpu"], second["temperature_c"], second["power_draw_w"]) == (1, 70, 699.0)
    assert sensors.memory_used_mib() == {0: 629, 1: 629}


@pytest.mark.parametrize(
    ("bits", "why"),
    [
        (0x8, "GPU 0: hardware slowdown"),
        (0x20, "GPU 0: heat (software)"),
        (0x40 | 0x8, "GPU 0: hardware slowdown, heat (hardware)"),
        (0x80, "GPU 0: power brake"),
        (0x4, ""),
        (0x1, ""),
        (0x2 | 0x100, ""),
        (0x4 | 0x20, "GPU 0: heat (software)"),
        (0, ""),
    ],
)
def test_heat_and_a_failing_supply_spoil_a_sample_and_a_power_limit_does_not(bits: int, why: str) -> None:
    sensors, _ = sensors_on(card(bits))
    seen = sensors.read()
    assert seen.throttled_for == why
    assert seen.gpus[0].get("power_capped", False) is bool(bits & 0x4)
    assert seen.gpus[0].get("clock_reasons", []) == reasons_in_words(bits)
    sample = as_sample(Reading("gemm", 1.0, "TFLOP/s", readings=seen.as_facts()))
    assert (sample.throttled, sample.why) == (bool(why), why)


def test_older_bindings_tell_the_reasons_under_their_old_name() -> None:
    sensors, _ = sensors_on(made_up.h200(0, CurrentClocksThrottleReasons=0x80))
    assert sensors.read().throttled_for == "GPU 0: power brake"


def test_a_card_that_falls_off_the_bus_leaves_only_its_number() -> None:
    broken = {
        name: made_up.lost()
        for name in ("ClockInfo", "Temperature", "PowerUsage", "CurrentClocksEventReasons")
    }
    sensors, nvml = sensors_on(made_up.h200(0))
    nvml.cards[0].answers.update(broken, MemoryInfo=made_up.lost())
    assert sensors.read().gpus == ({"gpu": 0},)
    assert sensors.memory_used_mib() == {}


def test_nvml_is_opened_once_and_let_go() -> None:
    sensors, nvml = sensors_on(made_up.h200(0))
    assert nvml.open == 0
    sensors.read()
    sensors.memory_used_mib()
    assert nvml.open == 1
    sensors.close()
    assert nvml.open == 0


def test_a_driver_that_does_not_start_reads_as_no_gpu() -> None:
    nvml = made_up.Nvml([made_up.h200(0)])
    hardware = detect(nvml)
    nvml.failing["nvmlInit"] = pynvml.NVML_ERROR_DRIVER_NOT_LOADED
    sensors = Sensors(hardware, nvml=nvml)
    assert sensors.read().gpus == ()


def test_cards_of_a_stand_in_are_not_asked(bare: Hardware) -> None:
    assumed = bare.model_copy(update={"gpus": parse_gpus("2x RTX 3090"), "assumed": True})
    nvml = made_up.Nvml([made_up.h200(0)])
    assert Sensors(assumed, nvml=nvml).read().gpus == ()
    assert nvml.open == 0


def test_the_hosts_clock_is_the_mean_of_its_cores(tmp_path: Path, bare: Hardware) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("model name\t: X\ncpu MHz\t\t: 3000.000\n\ncpu MHz\t\t: 1500.500\n")
    assert Sensors(bare, cpuinfo=file).read().as_facts() == {"cpu_mhz": 2250.2}
    assert Sensors(bare, cpuinfo=tmp_path / "none").read().as_facts() == {}


@pytest.fixture
def bare() -> Hardware:
    return Hardware(host_memory_total_mib=1024, host_memory_available_mib=512, cores=2)
