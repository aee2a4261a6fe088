"""``plan``: what fits on which GPU, with which flags, and how sure that is; nothing is started."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from subcortex.cli import _output
from subcortex.cli._hardware_options import Machine, hardware_options
from subcortex.cli._options import common_options, load_config
from subcortex.errors import ConfigError, DaemonUnreachable, DoesNotFit, InvalidRequest

if TYPE_CHECKING:
    from subcortex.config import Config
    from subcortex.hardware import Hardware
    from subcortex.models.shape import ModelShape
    from subcortex.vram.learning.calibration import Calibration
    from subcortex.vram.plan import TierAsk
    from subcortex.vram.plan.real import Estimates

Engine = Literal["vllm", "llama.cpp"]

_DEFAULT_CONTEXT_TOKENS = 8192


@click.command("plan")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--engine", type=click.Choice(["vllm", "llama.cpp"]), help="Run MODEL on it.")
@click.option(
    "--context", "context_tokens", type=click.IntRange(min=64), metavar="TOKENS", help="Longest request."
)
@click.option(
    "--concurrency", type=click.IntRange(min=1), default=4, show_default=True, help="Requests at once."
)
@click.option(
    "--tp", type=click.IntRange(min=1), metavar="N", help="Tensor-parallel size; free if not given."
)
@click.option("--pp", type=click.IntRange(min=1), metavar="N", help="Pipeline-parallel size.")
@click.option(
    "--quantisation", "--quantization", metavar="METHOD", help="As if quantised so: awq, fp8, Q4_K_M."
)
@click.option(
    "--probability",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="Of everything fitting, on all devices at once.",
)
@click.option("--together", is_flag=True, help="All tiers awake at once; none asleep or stopped.")
@click.option(
    "--calibration",
    "show_calibration",
    is_flag=True,
    help="Show what past starts taught, and how good it was.",
)
@click.option("--compare", is_flag=True, help="Set TP, PP and copies of one model side by side.")
@click.option(
    "--prefill",
    "prefill_tokens",
    type=click.IntRange(min=1),
    default=1024,
    show_default=True,
    metavar="TOKENS",
    help="With --compare: length of the prompt whose traffic is shown.",
)
@hardware_options
@common_options
def plan_command(
    config_file: Path | None,
    as_json: bool,
    models: tuple[str, ...],
    machine: Machine,
    engine: Engine | None,
    context_tokens: int | None,
    concurrency: int,
    tp: int | None,
    pp: int | None,
    quantisation: str | None,
    probability: float,
    together: bool,
    show_calibration: bool,
    compare: bool,
    prefill_tokens: int,
) -> int:
    """Say what fits where, with which flags, and how sure that is. Nothing is started.

    Without MODEL the tiers of the configuration are planned together. MODEL is a folder with a config.json,
    a GGUF file, or a name on the hub. Exit code 5 where nothing fits; what would is then listed.
    """
    from subcortex.vram.plan.real import Estimates

    if show_calibration:
        return _calibration(config_file, as_json=as_json)
    hardware = machine.to_plan_on()
    own_mib: dict[int, float] = {}
    if models:
        asks = [
            _asked(name, i, hardware, engine, context_tokens, concurrency, tp, pp, quantisation)
            for i, name in enumerate(models)
        ]
        asks = _named(asks)
    else:
        _refuse_model_options(engine=engine, context=context_tokens, tp=tp, pp=pp, quantisation=quantisation)
        config = load_config(config_file)
        asks = _configured(config, hardware)
        own_mib = _own_mib(config) if machine.here else {}
    if machine.here:
        hardware = _measured(hardware, config_file)
    estimates = Estimates(hardware, _learned(config_file, needed=not models))
    if compare:
        return _compare(asks, hardware, estimates, probability, own_mib, prefill_tokens, as_json=as_json)
    return _plan(asks, hardware, estimates, probability, own_mib, swapping=not together, as_json=as_json)


def _plan(
    asks: Sequence[TierAsk],
    hardware: Hardware,
    estimates: Estimates,
    probability: float,
    own_mib: Mapping[int, float],
    *,
    swapping: bool,
    as_json: bool,
) -> int:
    from subcortex.cli import _plan_view
    from subcortex.vram.plan import Fit, alternatives, find, refusal, shortfalls, unloaded, written

    found = find(asks, hardware, estimates, probability=probability, swapping=swapping, own_mib=own_mib)
    columns = _output.terminal_columns()
    if isinstance(found, Fit):
        plan = written(found)
        if as_json:
            _output.print_json(plan.to_json())
        else:
            coloured = _output.coloured(sys.stdout)
            _plan_view.show(_plan_view.plan_lines(plan, columns, coloured=coloured))
        return 0
    others = alternatives(asks, hardware, estimates, found, estimates, swapping=swapping, own_mib=own_mib)
    error = refusal(found, others)
    if as_json:
        raise error
    _output.note(
        _output.style("error: ", sys.stderr, fg="red", bold=True) + _output.inert_line(error.message)
    )
    if not others or unloaded(found):
        _output.note(_output.inert_line(str(error.hint)))
    refused = [f"{name}: {why}" for name, why in (found.refused or {}).items()]
    _plan_view.show(_plan_view.refusal_lines(shortfalls(found), others, refused, columns))
    _plan_view.show(_plan_view.note_lines([(ask.name, ask.shape.notes) for ask in found.asks], columns))
    return DoesNotFit.exit_code


def _compare(
    asks: Sequence[TierAsk],
    hardware: Hardware,
    estimates: Estimates,
    probability: float,
    own_mib: Mapping[int, float],
    prefill_tokens: int,
    *,
    as_json: bool,
) -> int:
    from subcortex.cli import _plan_view
    from subcortex.vram.plan.compare import options
    from subcortex.vram.plan.seat import Book

    if len(asks) != 1:
        raise click.UsageError("--compare takes one MODEL, or a configuration with one tier")
    if not hardware.gpus:
        raise InvalidRequest(
            "there is no GPU to compare layouts on", hint='Name some: --gpus "2x RTX 3090".', param="gpus"
        )
    book = Book(hardware, estimates, probability, own_mib)
    found = options(
        asks[0], book, estimates.link_between, estimates.bandwidth_gb_per_s, prefill_tokens=prefill_tokens
    )
    if as_json:
        _output.print_json({"model": asks[0].model, "layouts": [option.to_json() for option in found]})
    else:
        _plan_view.show(_plan_view.compare_lines(found, _output.terminal_columns()))
    return 0 if any(option.fits for option in found) else DoesNotFit.exit_code


def _measured(hardware: Hardware, config_file: Path | None) -> Hardware:
    """Return the machine with what experiments measured between its GPUs, where a configuration knows."""
    from subcortex.mind.experimenting.measured import measured_hardware

    try:
        return measured_hardware(load_config(config_file), hardware)
    except ConfigError:
        return hardware


def _learned(config_file: Path | None, *, needed: bool) -> Calibration | None:
    """Return what the journal's starts teach; None where no configuration says where it is."""
    from subcortex.mind.foresight import learned, recorded

    try:
        return learned(recorded(load_config(config_file)))
    except ConfigError:
        if needed or config_file is not None:
            raise
        return None


def _calibration(config_file: Path | None, *, as_json: bool) -> int:
    from subcortex.cli import _calibration_view
    from subcortex.mind.foresight import recorded
    from subcortex.vram.learning.boots import boot_from

    starts = [boot for boot in map(boot_from, recorded(load_config(config_file))) if boot is not None]
    if as_json:
        _output.print_json(_calibration_view.as_json(starts))
    else:
        for line in _calibration_view.lines(starts):
            _output.say(line)
    return 0


def _refuse_model_options(**given: object) -> None:
    """Say that an option is about MODEL; the configuration says all of this itself."""
    wrong = [name for name, value in given.items() if value is not None]
    if wrong:
        raise click.UsageError(
            f"--{wrong[0]} goes with a MODEL; tiers of the configuration say it themselves"
        )


def _own_mib(config: Config) -> dict[int, float]:
    """Return what the daemon's engines hold now, by GPU; it is planned anew. Nothing without a daemon."""
    from subcortex.client import Client
    from subcortex.vram.plan.budget import HOST

    try:
        devices = Client(config).status().ledger.devices
    except DaemonUnreachable:
        return {}
    return {
        HOST if device.gpu_index is None else device.gpu_index: sum(
            tier.taken_mib or 0.0 for tier in device.tiers
        )
        for device in devices
    }


def _configured(config: Config, hardware: Hardware) -> list[TierAsk]:
    from subcortex.config import RemoteTier
    from subcortex.mind.foresight import last_version, recorded
    from subcortex.vram.plan.from_config import ask_from

    asks, past = [], recorded(config)
    for rank, tier in enumerate(config.tiers):
        if isinstance(tier, RemoteTier):
            continue
        there = {gpu.index for gpu in hardware.gpus}
        if missing := sorted(set(tier.gpus or ()) - there):
            has = f"has {', '.join(map(str, sorted(there)))}" if there else "has none"
            raise ConfigError(
                f"tier {tier.name!r} is to run on GPU {missing[0]}, and the machine {has}",
                hint="Mend gpus of the tier, or name the machine with --hardware or --gpus.",
                key="gpus",
            )
        path = config.resolve(tier.model)
        # Starts are remembered by the model's name in the configuration.
        try:
            shape = replace(_shape(str(path) if path.exists() else tier.model), name=tier.model)
        except ConfigError as error:
            raise ConfigError(
                f"tier {tier.name!r}: {error.message}", hint=error.hint, **{**error.details, "key": "model"}
            ) from None
        ask = ask_from(tier, shape, rank)
        asks.append(replace(ask, setup=replace(ask.setup, version=last_version(past, tier.name))))
    if not asks:
        raise ConfigError(
            "every tier is remote: there is nothing to plan here", hint="Name a MODEL.", key="tiers"
        )
    return asks


def _shape(name: str) -> ModelShape:
    """Return a model's shape: from what lies here, from the catalogue, or from the hub."""
    from subcortex.cli._models import model_at
    from subcortex.models import catalogue
    from subcortex.models.read import read_shape
    from subcortex.vram.plan.forms import catalogued

    short = Path(name.rstrip("/")).name
    try:
        return read_shape(name, name=short)
    except ConfigError:
        if not Path(name).expanduser().exists() and (planned := model_at(name)) is not None:
            # What `init` chose and nobody has fetched yet.
            return planned.shape
        known = catalogue.named(name)
        if known is not None:
            return catalogued(known)
        if name.count("/") != 1 or Path(name).expanduser().exists():
            raise
    return read_shape(name, offline=False, name=short)


def _asked(
    name: str,
    rank: int,
    hardware: Hardware,
    engine: Engine | None,
    context_tokens: int | None,
    concurrency: int,
    tp: int | None,
    pp: int | None,
    quantisation: str | None,
) -> TierAsk:
    from subcortex.vram.plan import USUAL, Free, TierAsk
    from subcortex.vram.plan.forms import in_form, source
    from subcortex.vram.setup import LlamaCppSetup, VllmSetup

    shape = _shape(name)
    engine = _engine(name, shape, hardware, engine, quantisation)
    had = source(shape, name, engine, quantisation, on_gpus=bool(hardware.gpus))
    if quantisation:
        shape = in_form(shape, quantisation, had)
    context = context_tokens or min(
        _DEFAULT_CONTEXT_TOKENS, shape.max_context_tokens or _DEFAULT_CONTEXT_TOKENS
    )
    if engine == "llama.cpp":
        if tp or pp:
            raise click.UsageError("--tp and --pp are vLLM's; llama.cpp splits by layers, as memory allows")
        slots = LlamaCppSetup(context_tokens=context)
        ask = TierAsk(name, shape, slots, context, concurrency, rank)
        return replace(ask, model=had.model, model_note=had.note)
    setup = VllmSetup(context_tokens=context, tensor_parallel_size=tp or 1, pipeline_parallel_size=pp or 1)
    free = USUAL - {Free.TENSOR_PARALLEL} if tp or pp else USUAL
    ask = TierAsk(name, shape, setup, context, concurrency, rank, free=free, flags=had.flags)
    return replace(ask, model=had.model, model_note=had.note, sleepable=bool(hardware.gpus))


def _engine(
    name: str, shape: ModelShape, hardware: Hardware, engine: Engine | None, quantisation: str | None
) -> Engine:
    """Return the engine that a model is to run on: the one asked for, or the one that suits it."""
    from subcortex.models.mixtures import MIXTURES
    from subcortex.vram.plan.forms import PLAIN_METHODS
    from subcortex.vram.vllm.legality import runs_on

    if quantisation in MIXTURES:
        suits: Engine = "llama.cpp"
    elif quantisation is not None and quantisation not in PLAIN_METHODS:
        suits = "vllm"
    elif shape.source == "gguf" and engine == "vllm" and quantisation is None:
        raise InvalidRequest(
            f"{name} is a GGUF file, which vLLM does not serve",
            hint="Leave --engine out, or give the folder of the model itself.",
            param="engine",
        )
    else:
        served = shape.source != "gguf" and any(map(runs_on, hardware.gpus))
        return engine or ("vllm" if served else "llama.cpp")
    if engine not in (None, suits):
        raise InvalidRequest(
            f"{engine} has no weights stored as {quantisation}",
            hint=f"Leave --engine out: {suits} has them.",
            param="quantization",
        )
    return suits


def _named(asks: Sequence[TierAsk]) -> list[TierAsk]:
    """Give each model a short name of its own: its file's or folder's, numbered where two are alike."""
    short = [Path(ask.name.rstrip("/")).name.removesuffix(".gguf") for ask in asks]
    named = []
    for i, (ask, name) in enumerate(zip(asks, short, strict=True)):
        number = f" {short[: i + 1].count(name)}" if short.count(name) > 1 else ""
        named.append(replace(ask, name=f"{name}{number}"))
    return named
