"""What GPUs say to each other: bytes and seconds a token and a prefill, by model, layout and link. Pure.

Tensor parallelism, as in Megatron-LM (Shoeybi et al. 2019, section 3) and in vLLM's ``RowParallelLinear`` and
``VocabParallelEmbedding``: an all-reduce of H · b bytes a token after each attention and each feed-forward
part, one after the embedding; the logits are gathered once a sequence (``LogitsProcessor``), V · b bytes. MoE
and MLA change nothing in that count: experts and heads are summed in the same all-reduce. A ring all-reduce
has each rank send 2 (tp - 1) / tp of the message, an all-gather (tp - 1) / tp (NCCL tests, PERFORMANCE.md).

Pipeline parallelism: each of the pp - 1 borders is crossed once a token, by the residual stream (H · b); vLLM
sends hidden states and residual apart, so two of them.

How long one takes: a latency and the bytes over the link's bandwidth. Latencies are assumed until an
experiment has measured them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Protocol

from subcortex.models.shape import ModelShape

#: Tensors that vLLM sends over a border between stages (``IntermediateTensors``: hidden_states, residual).
VLLM_BORDER_TENSORS = 2
#: An all-reduce of a few KiB between GPUs that reach each other's memory (vLLM's custom all-reduce). Assumed.
PEER_LATENCY_S, PEER_LATENCY_SIGMA_S = 15e-6, 5e-6
#: The same by way of host memory, where they do not (NCCL's SHM transport). Assumed.
HOST_LATENCY_S, HOST_LATENCY_SIGMA_S = 30e-6, 10e-6
#: And where nobody knows which of the two it is.
UNKNOWN_LATENCY_S, UNKNOWN_LATENCY_SIGMA_S = 22e-6, 11e-6
#: Share of a nominal bandwidth that transfers reach, and its σ; a measured one is taken as it is. Assumed.
NOMINAL_SHARE, NOMINAL_SHARE_SIGMA = 0.8, 0.1
#: What a measured bandwidth or latency is trusted to, as a share of it. Assumed.
MEASURED_SIGMA = 0.05


class Link(Protocol):
    """The slowest link between the GPUs of an engine; see ``hardware.links.Link``."""

    @property
    def kind(self) -> str:
        """Its code, e.g. ``PHB`` or ``NV4``."""
        ...

    @property
    def words(self) -> str:
        """What its figure comes from, e.g. ``PCIe 4 x16``."""
        ...

    @property
    def gb_per_s(self) -> float:
        """Bytes a second in one direction, in units of 1e9."""
        ...

    @property
    def measured(self) -> bool:
        """An experiment measured it; otherwise it is what the maker says."""
        ...

    @property
    def peer(self) -> bool | None:
        """The GPUs reach each other's memory; None if unknown."""
        ...

    @property
    def latency_s(self) -> float | None:
        """Of one small message, where an experiment measured it."""
        ...


@dataclass(frozen=True, slots=True)
class Span:
    """Seconds that are not known exactly: mean and standard deviation."""

    mean_s: float
    sigma_s: float = 0.0

    def __add__(self, other: Span) -> Span:
        return Span(self.mean_s + other.mean_s, sqrt(self.sigma_s**2 + other.sigma_s**2))

    def times(self, factor: float) -> Span:
        """Return it as often; what is wrong with one is wrong with all."""
        return Span(self.mean_s * factor, self.sigma_s * factor)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What the busiest rank sends for one step.

    Args:
        messages: Collectives and sends, one after the other.
        message_bytes: What the largest of them carries, before the ring's factor.
        sent_bytes: By the rank, over its link, all together.
    """

    messages: int
    message_bytes: float
    sent_bytes: float


def all_reduces(shape: ModelShape) -> int:
    """Return the all-reduces of one forward pass: one a part of each layer, and one for the embedding."""
    parts = sum(bool(layer.attention) + bool(layer.intermediate or layer.experts) for layer in shape.layers)
    return parts + 1


def tensor_traffic(shape: ModelShape, tp: int, tokens: int = 1, sequences: int = 1) -> Traffic:
    """Return what each rank sends for a step of ``tokens`` tokens under tensor parallelism.

    Args:
        tokens: 1 for decoding one sequence, the prompt's length for a prefill.
        sequences: Whose logits are wanted, one row each.
    """
    if tp < 2:
        return Traffic(0, 0.0, 0.0)
    message = tokens * shape.hidden * shape.dtype_bytes
    reduced = all_reduces(shape) * message * 2 * (tp - 1) / tp
    gathered = sequences * shape.vocabulary * shape.dtype_bytes * (tp - 1) / tp
    return Traffic(all_reduces(shape) + 1, message, reduced + gathered)


def pipeline_traffic(
    shape: ModelShape, pp: int, tokens: int = 1, tp: int = 1, tensors: int = VLLM_BORDER_TENSORS
) -> Traffic:
    """Return what crosses all borders between stages for a step, by the busiest rank of each stage.

    With tensor parallelism inside the stages each rank sends its share, and the receivers gather the rest
    (vLLM ``send_tensor_dict``); that gathering is counted.
    """
    if pp < 2:
        return Traffic(0, 0.0, 0.0)
    message = tokens * shape.hidden * shape.dtype_bytes * tensors
    gathered = message * (tp - 1) / tp
    messages = (pp - 1) * (1 if tp == 1 else 2) * tensors
    return Traffic(messages, message / tensors, (pp - 1) * (message / tp + gathered))


def latency(link: Link | None) -> Span:
    """Return how long the smallest message takes: as measured, else as assumed of its kind."""
    if link is not None and link.latency_s is not None:
        return Span(link.latency_s, MEASURED_SIGMA * link.latency_s)
    if link is None or link.peer is None:
        return Span(UNKNOWN_LATENCY_S, UNKNOWN_LATENCY_SIGMA_S)
    if link.peer:
        return Span(PEER_LATENCY_S, PEER_LATENCY_SIGMA_S)
    return Span(HOST_LATENCY_S, HOST_LATENCY_SIGMA_S)


def duration(traffic: Traffic, link: Link, message_latency: Span | None = None) -> Span:
    """Return how long a step's traffic takes over a link.

    Args:
        traffic: What is sent, one message after the other.
        link: The slowest link between the ranks.
        message_latency: Of one message, where it was measured.
    """
    if not traffic.messages:
        return Span(0.0)
    share, sigma = (1.0, MEASURED_SIGMA) if link.measured else (NOMINAL_SHARE, NOMINAL_SHARE_SIGMA)
    transfer = traffic.sent_bytes / (link.gb_per_s * 1e9 * share)
    waiting = (message_latency or latency(link)).times(traffic.messages)
    return waiting + Span(transfer, transfer * sigma / share)


def layer_seconds(shape: ModelShape, tp: int, link: Link, tokens: int = 1) -> Span:
    """Return what tensor parallelism adds to one layer for a step of ``tokens`` tokens: two all-reduces.

    This is what claims such as "PCIe costs 20 to 40 ms a layer" are held against.
    """
    if tp < 2:
        return Span(0.0)
    message = tokens * shape.hidden * shape.dtype_bytes
    return duration(Traffic(2, message, 2 * message * 2 * (tp - 1) / tp), link)


def link_name(link: Link) -> str:
    """Return what a link is, for people: ``PCIe 4 x16 (PHB), nominal`` or ``NV4, measured``."""
    return f"{link.kind}, measured" if link.measured else f"{link.words or link.kind} ({link.kind}), nominal"


def words(span: Span, link: Link) -> str:
    """Return what a link makes of a token, for people."""
    return f"{link_name(link)} {link.gb_per_s:.4g} GB/s: +{milliseconds(span)} a token"


def milliseconds(span: Span) -> str:
    """Return a span with its σ, for people: ``1.4 ± 0.5 ms``."""
    mean, sigma = span.mean_s * 1e3, span.sigma_s * 1e3
    return f"{mean:.2g} ± {sigma:.1g} ms" if sigma else f"{mean:.2g} ms"
