"""What boots at one and two ranks come to, in words and figures. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from subcortex.config import VllmTier
from subcortex.experiments.catalogue.common.figures import written
from subcortex.experiments.catalogue.common.tiers import about
from subcortex.experiments.catalogue.tp_overhead.figures import COMPONENTS, WORDS, differences
from subcortex.experiments.experiment import Answer, Chart, Line, Report

__all__ = ["COMPONENTS", "report"]

#: The pool of the same tokens may come out larger by this share and count as not doubled.
_SAME = 1.05


def report(
    means: Mapping[str, Mapping[str, float]],
    boots: Mapping[str, int],
    tier: VllmTier,
    *,
    on_gpus: bool,
    block_tokens: Sequence[int] = (),
    noticed: Sequence[str] = (),
) -> Report:
    """Return the report.

    Args:
        means: MiB by component of the arms ``tp1`` and ``tp2``, summed over ranks; ``kv a token`` in KiB.
        boots: Of each arm.
        tier: As configured.
        on_gpus: The figures are the cards'; else the host's.
        block_tokens: Of a block of the KV pool, one a boot.
        noticed: What the run itself had to say.
    """
    one, two = means.get("tp1", {}), means.get("tp2", {})
    more = differences(one, two)
    n = min(boots.get("tp1", 0), boots.get("tp2", 0))
    details = {
        "tp1_mib": dict(one),
        "tp2_mib": dict(two),
        "more_mib": more,
        "boots": dict(boots),
    }
    if on_gpus and "rest" in more:
        details["rest_mib_a_gpu"] = {"tp1": one["rest"], "tp2": two["rest"] / 2}
    answers = [_overhead(one, two, boots, tier, details, n, on_gpus=on_gpus)]
    if "weights" in more and one["weights"]:
        answers.append(_weights(one, two, boots, tier, n))
    if on_gpus and block_tokens and len(set(block_tokens)) == 1:
        answers.append(_block(block_tokens))
    return Report(
        answers=tuple(answers),
        noticed=(*noticed, *_noticed(one, two, more, tier, on_gpus=on_gpus)),
        gaps=_gaps(more),
        charts=(_chart(one, two, tier),) if more else (),
    )


def _overhead(
    one: Mapping[str, float],
    two: Mapping[str, float],
    boots: Mapping[str, int],
    tier: VllmTier,
    details: Mapping[str, object],
    n: int,
    *,
    on_gpus: bool,
) -> Answer:
    said, more = _said(boots), differences(one, two)
    if "rest" not in more:
        why = "the engine's log or the driver did not say what it held"
        if not (one and two):
            why = "time was over before both had been measured"
        return Answer(
            quantity="overhead",
            about=about(tier),
            unit="MiB",
            outcome="inconclusive",
            statement=f"What TP=2 adds to the memory of {about(tier)} cannot be told: {why} ({said}).",
            n=n,
            tier=tier.name,
            gap_kind="tp_overhead",
            details=details,
        )
    value = more["rest"]
    held = f"{written(two['rest'])} MiB, {{}} {written(one['rest'])} MiB ({said})."
    if on_gpus:
        words = "both GPUs together hold " + held.format("one GPU alone")
        words += (
            " What is added holds the second GPU's own CUDA context, activations and graphs, if like the "
        )
        words += (
            f"first's {written(one['rest'])} MiB; beyond them TP=2 adds {written(value - one['rest'])} MiB."
        )
    else:
        words = "its processes hold " + held.format("those of one rank")
    parts = [
        f"{WORDS[name]} {_signed(more[name])} MiB"
        for name in ("before", "activations", "graphs", "outside torch")
        if name in more
    ]
    told = f" Of both ranks against one the engine's log tells: {', '.join(parts)}." if parts else ""
    return Answer(
        quantity="overhead",
        about=about(tier),
        unit="MiB",
        outcome="measured",
        statement=(
            f"Split over two ranks, {about(tier)} takes {written(value)} MiB more beyond weights and KV "
            f"pool: {words}{told}"
        ),
        value=value,
        n=n,
        series="mib rest",
        tier=tier.name,
        gap_kind="tp_overhead",
        details=details,
    )


def _weights(
    one: Mapping[str, float], two: Mapping[str, float], boots: Mapping[str, int], tier: VllmTier, n: int
) -> Answer:
    value = two["weights"] - one["weights"]
    return Answer(
        quantity="weights_held_twice",
        about=about(tier),
        unit="MiB",
        outcome="measured",
        statement=(
            f"Two ranks of {about(tier)} hold {written(two['weights'])} MiB of weights together, where one "
            f"holds {written(one['weights'])}: {written(value)} MiB ({value / one['weights']:.2%}) more "
            f"({_said(boots)})."
        ),
        value=value,
        n=n,
        series="mib weights",
        tier=tier.name,
        gap_kind="tp_overhead",
    )


def _block(tokens: Sequence[int]) -> Answer:
    """Return what a block of paged attention holds; on a CPU vLLM takes other ones."""
    return Answer(
        quantity="block_size",
        about="PagedAttention",
        unit="tokens",
        outcome="measured",
        statement=f"vLLM parts the KV pool into blocks of {tokens[0]} tokens, at one rank and at two.",
        value=float(tokens[0]),
        n=len(tokens),
        series="kv block",
        gap_kind="tp_overhead",
    )


def _noticed(
    one: Mapping[str, float],
    two: Mapping[str, float],
    more: Mapping[str, float],
    tier: VllmTier,
    *,
    on_gpus: bool,
) -> list[str]:
    words = []
    if one.get("kv a token") and two.get("kv a token"):
        ratio = two["kv a token"] / one["kv a token"]
        shared = "it is shared out, not doubled" if ratio < _SAME else "part of it is held on both"
        words.append(
            f"A token of {about(tier)} takes {written(one['kv a token'])} KiB of the pool on one rank and "
            f"{written(two['kv a token'])} KiB on two together: {shared}."
        )
    if on_gpus and "rest" in more and one.get("weights"):
        words.append(
            f"Beyond weights and pool TP=2 adds {more['rest'] / one['weights']:.1%} of what {about(tier)} "
            f"weighs; a GPU holds {written(two['rest'] / 2)} MiB there, where at TP=1 it holds "
            f"{written(one['rest'])}."
        )
    if on_gpus and "taken" not in more:
        words.append(
            "The driver did not tell what was in use of the cards; the figures are the engine's alone."
        )
    if not on_gpus:
        words.append(
            "On the CPU a rank is a process: what it adds is an interpreter with torch, where on a GPU it "
            "would be a context with its kernels and buffers for communication."
        )
    return words


def _gaps(more: Mapping[str, float]) -> tuple[str, ...]:
    known = [more[name] for name in ("before", "graphs", "outside torch") if name in more]
    left = more.get("rest", 0.0) - sum(known)
    if len(known) == 3 and left > 512:
        return (f"What are the {written(left)} MiB that TP=2 adds and that no line of vLLM's log names?",)
    return ()


def _chart(one: Mapping[str, float], two: Mapping[str, float], tier: VllmTier) -> Chart:
    # The pool is what was left over, and as large as all else together.
    names = [name for name in COMPONENTS if name != "kv pool" and (name in one or name in two)]
    return Chart(
        title=f"{about(tier)}: memory by component, all ranks together",
        x_label="",
        y_label="MiB",
        lines=tuple(
            Line(label, tuple((float(place), arm.get(name, 0.0)) for place, name in enumerate(names)))
            for label, arm in (("TP=1", one), ("TP=2", two))
        ),
        kind="bars",
        categories=tuple(WORDS[name] for name in names),
    )


def _said(boots: Mapping[str, int]) -> str:
    counts = [f"{boots.get(arm, 0)} at TP={arm[2:]}" for arm in ("tp1", "tp2")]
    return f"boots: {' and '.join(counts)}"


def _signed(value: float) -> str:
    return f"{'−' if value < 0 else '+'}{written(abs(value))}"
