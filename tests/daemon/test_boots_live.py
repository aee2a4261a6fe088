"""Starts of real engines end on record, with what they took."""

from __future__ import annotations

from subcortex import Client, Reader
from subcortex.journal import BootRecord
from subcortex.types import TierState
from subcortex.vram.footprint import Component
from subcortex.vram.learning.boots import boot_from
from tests.conftest import stop, until, wait_for


def boots_of(client: Client) -> dict[str, BootRecord]:
    """Return the newest start of each tier, once all that began have ended."""
    with Reader.open(client.config.database_path) as reader:
        wait_for(lambda: all(boot.outcome is not None for boot in reader.boots()))
        return {boot.tier: boot for boot in reversed(reader.boots())}


def test_llamacpp_boots_are_kept_with_their_buffers_and_what_the_kernel_counts(running: Client):
    status = running.status()
    found = boots_of(running)
    assert {*found} == {"fast", "deep"}
    for tier in status.tiers:
        boot = found[tier.name]
        assert (boot.engine, boot.outcome, boot.error) == ("llama.cpp", "ready", None)
        assert boot.engine_version == tier.engine_version
        assert boot.setup is not None
        # Four slots of 1024 tokens share one cache.
        assert (boot.setup["context_tokens"], boot.setup["parallel"]) == (4096, 4)
        assert boot.measured is not None
        host = boot.measured.host
        assert host is not None
        assert host.kv_pool_mib is not None
        assert host.taken_mib is not None
        # Four slots of 1024 tokens.
        assert boot.measured.kv_tokens == 4096
        parts = sum(host.components.values()) + host.kv_pool_mib
        assert 0 < parts < host.taken_mib < 600
    fast, deep = (found[name].measured for name in ("fast", "deep"))
    assert fast is not None
    assert deep is not None
    assert fast.host is not None
    assert deep.host is not None
    # 8 layers of keys and values, 2 heads of 64 elements of 2 bytes each: 2 KiB a token.
    assert deep.host.kv_pool_mib == 4096 * 8 * 2 * 64 * 2 / 2**20
    assert fast.host.components["mapped"] < deep.host.components["mapped"] < 10


def test_every_boot_was_foretold_and_the_difference_is_on_record(running: Client):
    found = boots_of(running)
    for boot in found.values():
        assert boot.predicted is not None
        assert boot.architecture == "llama"
        assert boot.residuals is not None
        by_name = {residual["component"]: residual for residual in boot.residuals}
        # Counted from the header: to the page; estimated: within a few MiB on models of a few MiB.
        assert abs(by_name["kv"]["residual_mib"]) < 0.1
        assert abs(by_name["activations"]["residual_mib"]) < 5
        learned = boot_from(boot)
        assert learned is not None
        assert learned.raw.host.of(Component.KV).mean_mib > 0


def test_the_status_says_who_holds_the_memory(running: Client):
    status = running.status()
    host = status.ledger.devices[-1]
    assert host.gpu_index is None
    assert [share.tier for share in host.tiers] == ["fast", "deep"]
    assert [share.taken_mib for share in host.tiers] == [tier.memory_mib for tier in status.tiers]
    assert all(share.taken_mib and share.taken_mib > 20 for share in host.tiers)
    assert host.used_mib + host.free_mib == host.total_mib
    assert host.plannable_mib <= host.free_mib


def test_a_boot_that_fails_is_kept_too(started):
    client = started(deep="flags = ['--no-such-flag', '1']\nmax_restarts = 0")
    until(client, lambda s: s.tiers[1].state is TierState.FAILED)
    found = boots_of(client)
    assert found["fast"].outcome == "ready"
    assert found["deep"].outcome == "failed"
    assert found["deep"].measured is None
    assert found["deep"].error is not None
    assert found["deep"].error.code == "config_error"
    stop(client)
