"""vLLM's memory beside weights and KV: what one rank takes at its peak, MiB. Pure.

The terms follow vLLM 0.26's own steps (``v1/worker``); their constants were fitted to boots on H200 whose raw
figures are in ``docs/evidence/vram-h200``. T: tokens in one step, S: requests in one step, H: width, V:
vocabulary, I: feed-forward width of a rank, E: its embedding's bytes, b: bytes of an activation.

Two runners exist. V2 serves dense models and a few mixtures; V1 the rest. They sample differently, and V1
takes an estimate of the CUDA graphs off the KV pool in advance.
"""

from __future__ import annotations

from dataclasses import dataclass

from subcortex.models.shape import LatentAttention, Layer, ModelShape, Recurrence
from subcortex.vram.amount import Amount
from subcortex.vram.setup import VllmSetup

_MIB = 2**20
#: Mixtures that the V2 runner takes by default; dense models it takes anyway (``config/vllm.py``).
_V2_MIXTURES = frozenset(
    {
        "DeepseekV2ForCausalLM",
        "GraniteMoeForCausalLM",
        "InklingForCausalLM",
        "InklingForConditionalGeneration",
        "LongcatFlashNgramForCausalLM",
        "Qwen2MoeForCausalLM",
    }
)
#: CUDA graphs are captured up to this many tokens (``config/compilation.py``).
_LARGEST_GRAPH_TOKENS = 512
#: FlashAttention's buffer for split decoding inside graphs: this many partial outputs a head, float32.
_DECODE_SPLITS = 32
#: Bytes a logit at the sampler's peak in V1: bf16 logits, float32 logits, probabilities and noise.
_V1_SAMPLER_BYTES = 14
#: Rows of V1's top-k scratch, one a streaming multiprocessor of the card it was measured on.
_V1_SCRATCH_ROWS = 132
_KNOWN_CARD = "H200"
_LARGE_TABLE_MIB = 128.0


@dataclass(frozen=True, slots=True)
class Rank:
    """What the overheads need to know of one rank of a model.

    Args:
        layers: Layers of its pipeline stage.
        first: It holds the embedding.
        last: It holds the head, and samples.
        card: Name of its GPU.
    """

    layers: int
    first: bool
    last: bool
    card: str


def uses_v2_runner(shape: ModelShape) -> bool:
    """Return whether vLLM 0.26 runs the model with its V2 runner."""
    recurrent = any(isinstance(kept, Recurrence) for kept in shape.attentions)
    return not recurrent and (not shape.is_moe or shape.architecture in _V2_MIXTURES)


def activations(shape: ModelShape, setup: VllmSetup, rank: Rank) -> Amount:
    """Return the peak that vLLM's profiling run finds ("peak activation"), MiB.

    The largest of three moments:

    * compiling: the compiler times kernels on a copy of the embedding: E + T·H·b (twice at TP=1);
    * one forward step: gate, up and their product, 3·T·I·b, with four hidden states, 4·T·H·b (without a gate
      2·T·I·b and one), on top of the experts' workspace, which stays once it is there;
    * sampling S tokens, on top of that workspace too: V1 14 bytes a logit; V2 one bf16 copy of the logits,
      and with TP two and the rank's share.
    """
    tp, step_bytes = setup.tensor_parallel_size, shape.dtype_bytes
    tokens = setup.max_batched_tokens or 0
    requests = min(setup.max_sequences or 0, tokens)
    hidden = tokens * shape.hidden * step_bytes
    embedding = shape.vocabulary * shape.hidden * step_bytes / tp
    compiling = 0.0
    if not setup.eager and rank.first:
        compiling = embedding + (2 * hidden if tp == 1 else hidden + 40 * _MIB)
    forward = max(
        (_step(layer, tokens, hidden, setup, step_bytes) for layer in set(shape.layers)), default=0.0
    )
    logits = requests * shape.vocabulary
    sampled = 2 * requests * shape.hidden * step_bytes
    if uses_v2_runner(shape):
        copies = 1.0 if tp == 1 else 2 + 1 / tp
        sampling = logits * step_bytes * copies + hidden + sampled + 20 * _MIB
    else:
        scratch = _V1_SCRATCH_ROWS * shape.vocabulary * 4 + 36 * _MIB
        sampling = logits * _V1_SAMPLER_BYTES + scratch + hidden + sampled
    widest = max(forward, sampling) if rank.last else forward
    peak = max(compiling, experts_workspace(shape, setup) + widest) / _MIB
    return Amount(peak, 40 + (0.02 if _KNOWN_CARD in rank.card else 0.1) * peak)


def _step(layer: Layer, tokens: int, hidden: float, setup: VllmSetup, step_bytes: float) -> float:
    """Return the bytes alive at the widest point of a layer's dense or shared feed-forward part."""
    shared = layer.experts.shared_intermediate if layer.experts else 0
    width = max(layer.intermediate, shared) / setup.tensor_parallel_size
    rows, states = (3, 4) if layer.gated else (2, 1)
    return rows * tokens * width * step_bytes + states * hidden


def experts_workspace(shape: ModelShape, setup: VllmSetup) -> float:
    """Return the bytes of the mixture's workspace: T · top_k rows twice, each as wide as it gets.

    Two buffers, max(2I, H) and max(I, H) wide, for experts that run unquantised or in FP8; quantised ones
    run in kernels that take ordinary tensors.
    """
    if shape.quantisation is not None and shape.quantisation.bits < 8:
        return 0.0
    widest = 0.0
    for layer in shape.layers:
        if layer.experts is None:
            continue
        width = layer.experts.intermediate / (1 if setup.expert_parallel else setup.tensor_parallel_size)
        rows = (setup.max_batched_tokens or 0) * layer.experts.top_k
        workspace = rows * (max(2 * width, shape.hidden) + max(width, shape.hidden)) * shape.dtype_bytes
        widest = max(widest, workspace)
    return widest


def graphs(shape: ModelShape, setup: VllmSetup, rank: Rank) -> Amount:
    """Return what captured CUDA graphs take of a rank, MiB: a linear fit, and the split-decoding buffer.

    The buffer is 32 · heads · tokens · head size · 4 bytes. The rest grows with layers and width and shrinks
    where requests are fewer than the largest graph; the fit is good to 120 MiB.
    """
    if setup.eager:
        return Amount()
    largest = _LARGEST_GRAPH_TOKENS * (2 if shape.architecture.startswith("GptOss") else 1)
    captured = min(largest, setup.max_sequences or largest)
    share = min(1.0, captured / _LARGEST_GRAPH_TOKENS)
    rest_gib = 0.149 + 0.521 * rank.layers / 64 + 0.23 * shape.hidden / 4096
    if not uses_v2_runner(shape):
        rest_gib -= 0.079
    if any(isinstance(kept, LatentAttention) for kept in shape.attentions):
        rest_gib += 0.19
    rest = max(0.1, rest_gib) * (0.27 + 0.73 * share) * 1024
    mean = rest + _decode_buffer(shape, setup, captured) / _MIB
    return Amount(mean, 130.0 if _KNOWN_CARD in rank.card else 60 + 0.2 * mean)


def _decode_buffer(shape: ModelShape, setup: VllmSetup, captured_tokens: int) -> float:
    """Return the bytes of FlashAttention's partial outputs; those of MLA are as wide as the latent."""
    widest = 0.0
    for kept in shape.attentions:
        if isinstance(kept, Recurrence):
            continue
        width = kept.kv_lora_rank if isinstance(kept, LatentAttention) else kept.value_dim
        widest = max(widest, kept.heads / setup.tensor_parallel_size * width)
    return _DECODE_SPLITS * widest * captured_tokens * 4


def graphs_set_aside(shape: ModelShape, graphs_taken: Amount) -> Amount:
    """Return what vLLM takes off the KV pool for graphs before it captures them, MiB: V1 alone, about 5/6."""
    return Amount() if uses_v2_runner(shape) else graphs_taken.times(0.83)


def non_torch(setup: VllmSetup) -> Amount:
    """Return what grows outside torch while profiling ("non-torch memory"), MiB: kernels and handles."""
    return Amount(215.0, 25.0) if setup.gpus == 1 else Amount(65.0, 45.0)


def released_in_loading(shape: ModelShape, setup: VllmSetup) -> Amount:
    """Return what vLLM's "non-torch memory" is short of under sleep mode, MiB, and its pool too large by.

    What loading takes and gives back is then released behind torch's back, which still counts it
    (``device_allocator/cumem.py``): quantised weights before they are repacked (0.27 to 0.33 of all in three
    boots), the float32 steps of a large rotary table (six times the table; small ones are reused), and the
    head that is then tied to the embedding: of Gemma's classes always, of Qwen's never, of others at times.
    """
    if not setup.sleep_mode:
        return Amount()
    tp = setup.tensor_parallel_size
    released = Amount()
    if shape.quantisation is not None:
        released += Amount(0.3 * shape.weights_bytes / tp / _MIB, 0.1 * shape.weights_bytes / tp / _MIB)
    table = max((t.bytes for t in shape.tensors if "rotary" in t.name), default=0.0) / _MIB
    if table > _LARGE_TABLE_MIB:
        released += Amount(6 * table, 0.3 * table)
    if shape.tied:
        head = shape.vocabulary * shape.hidden * shape.dtype_bytes / tp / _MIB
        if shape.architecture.startswith("Gemma"):
            released += Amount(head, head / 8)
        elif not shape.architecture.startswith("Qwen"):
            released += Amount(head / 2, head / 2)
    return released


def context(rank: Rank) -> Amount:
    """Return the CUDA context of a process before vLLM's first reading, MiB; smaller on smaller cards."""
    return Amount(522.0, 10.0) if _KNOWN_CARD in rank.card else Amount(400.0, 110.0)


def communication(shape: ModelShape, setup: VllmSetup, rank: Rank) -> Amount:
    """Return NCCL's and the custom all-reduce's share before vLLM's first reading, MiB.

    A second group of ranks, for experts, takes half as much again.
    """
    if setup.gpus == 1:
        return Amount()
    groups = 1.5 if shape.is_moe and setup.tensor_parallel_size > 1 else 1.0
    known = _KNOWN_CARD in rank.card and setup.gpus == 2
    return Amount(970.0 * groups, 25.0 if known else 300.0 * groups)


def cached(shape: ModelShape, setup: VllmSetup, rank: Rank, peak: Amount) -> Amount:
    """Return what torch keeps after warm-up beyond the profiled peak, MiB.

    After capture, sampling is warmed up with top-k and top-p, which sorts: 10.5 to 20 bytes a logit by runner
    and TP. A pinned pool has to leave room for it, and vLLM's own sizing does not.
    """
    tp = setup.tensor_parallel_size
    logits = (setup.max_sequences or 0) * shape.vocabulary / _MIB if rank.last else 0.0
    per_logit = (10.5 if tp == 1 else 14.5) if uses_v2_runner(shape) else (18.0 if tp == 1 else 20.0)
    resident = experts_workspace(shape, setup) / _MIB + logits * per_logit + 100
    return Amount(max(0.0, resident - peak.mean_mib), 60 + 0.2 * logits * 5)
