"""Cards in MIG mode: what is seen of them, and that nothing is planned on them."""

from __future__ import annotations

import pynvml
import pytest

from subcortex.errors import InvalidRequest
from subcortex.hardware import (
    Gpu,
    Hardware,
    MigInstance,
    detect,
    load_snapshot,
    parse_gpus,
    refuse_mig,
    save_snapshot,
)
from tests.hardware import nvml as fake

INSTANCES = (
    MigInstance(uuid="MIG-0", name="NVIDIA H200 MIG 1g", memory_total_mib=16384),
    MigInstance(uuid="MIG-2", name="NVIDIA H200 MIG 4g", memory_total_mib=71424),
)


def test_the_instances_of_a_card_in_mig_mode_are_read_and_of_no_other(tmp_path):
    found = detect(fake.split())

    # The second card gets the mode with the next reset only.
    assert [gpu.mig for gpu in found.gpus] == [INSTANCES, None]
    assert [gpu.unread for gpu in found.gpus] == [(), ()]
    save_snapshot(found, tmp_path / "machine.json")
    assert load_snapshot(tmp_path / "machine.json") == found


def test_a_card_whose_whole_is_told_to_the_administrator_alone_is_still_seen():
    found = detect(fake.split(told=False))

    assert (found.gpus[0].memory_total_mib, found.gpus[0].mig) == (143771, INSTANCES)
    assert found.gpus[0].unread == ("memory_total_mib", "memory_used_mib")
    unheard_of = fake.split(told=False)
    unheard_of.cards[0].answers["Name"] = "NVIDIA Mystery"
    assert detect(unheard_of).gpus[0].memory_total_mib == 16384 + 71424


@pytest.mark.parametrize(
    "function", ["nvmlDeviceGetMaxMigDeviceCount", "nvmlDeviceGetMigDeviceHandleByIndex"]
)
def test_instances_that_are_not_told_leave_a_card_that_is_refused(function):
    machine = fake.split()
    machine.failing = {function: pynvml.NVML_ERROR_UNKNOWN}
    found = detect(machine)

    assert found.gpus[0].mig == ()
    with pytest.raises(InvalidRequest, match="with no instance"):
        refuse_mig(found)


def test_an_instance_that_tells_nonsense_is_still_one():
    machine = fake.split()
    instance = machine.cards[0].instances[2]
    assert instance is not None
    instance.answers.update(UUID=5, Name=[], MemoryInfo=(-1, 0, None))

    assert detect(machine).gpus[0].mig == (INSTANCES[0], MigInstance())


def test_a_machine_without_mig_is_planned_on():
    refuse_mig(detect(fake.two_h200()))
    refuse_mig(detect(fake.bare()))


def test_the_refusal_says_what_is_there_and_a_way_that_works():
    with pytest.raises(InvalidRequest) as refused:
        refuse_mig(detect(fake.split()))

    assert refused.value.message.startswith(
        "GPU 0 (NVIDIA H200) is in MIG mode with instances of 16384, 71424 MiB, "
    )
    assert refused.value.message.endswith("(1 of 2)")
    assert refused.value.hint is not None
    assert "`nvidia-smi -i 0 -mig 0`" in refused.value.hint
    assert '--gpus "69.75GiB"' in refused.value.hint
    assert 'env = { CUDA_VISIBLE_DEVICES = "MIG-2" }' in refused.value.hint


@pytest.mark.parametrize("size_mib", [9856.0, 11264.0, 71424.0, 4864.3])
def test_the_stand_in_that_is_named_is_no_larger_than_the_instance(size_mib):
    gpu = Gpu(index=0, name="x", memory_total_mib=80000, mig=(MigInstance(memory_total_mib=size_mib),))
    with pytest.raises(InvalidRequest) as refused:
        refuse_mig(Hardware(gpus=(gpu,), host_memory_total_mib=1, host_memory_available_mib=1, cores=1))

    stand_in = parse_gpus((refused.value.hint or "").split('"')[1])[0].memory_total_mib
    assert size_mib - 11 < stand_in <= size_mib
