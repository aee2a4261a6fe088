"""Arithmetic in a process of its own, beside what the loop does."""

from __future__ import annotations

import os

import psutil
import pytest

from subcortex.experiments.laboratory.aside import aside
from subcortex.experiments.saturation import Limits, Measure, Measured, next_step


async def test_what_is_reckoned_aside_is_what_would_be_here():
    seen = (Measured(1, 20.0, 50.0), Measured(2, 20.0, 95.0))
    async with aside(next_step) as reckoned:
        assert await reckoned(seen, Limits(64), seed=3) == next_step(seen, Limits(64), seed=3)
        assert isinstance(await reckoned(()), Measure)


async def test_it_is_one_process_besides_this_one_and_ends_with_its_use():
    async with aside(os.getpid) as reckoned:
        first, second = await reckoned(), await reckoned()
        assert first == second != os.getpid()
        process = psutil.Process(first)
        assert process.ppid() == os.getpid()
    process.wait(20)
    assert not process.is_running()


async def test_an_error_there_is_raised_here():
    async with aside(int) as reckoned:
        with pytest.raises(ValueError, match="invalid literal"):
            await reckoned("none")
        assert await reckoned("7") == 7
