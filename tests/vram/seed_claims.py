"""The claims of the seed notes, line by line."""

from __future__ import annotations

from functools import partial
from math import inf

from subcortex.vram.footprint import Component
from subcortex.vram.setup import VllmSetup
from tests.vram import seed_figures as we
from tests.vram.seed_figures import ALL_LAYERS, ROWS
from tests.vram.seeds import Claim, Figure, Fits

_LLAMA, _R1, _QWEN_32B = "llama-3.1-8b", "r1-distill-qwen-14b", "qwen2.5-32b"
#: Qwen2.5 7B and R1-Distill-Qwen-7B are of one shape, and so are the two of 14B.
_QWEN_7B = "qwen2.5-7b"
_FIRST, _SECOND, _BOTH = (0,), (1,), (0, 1)
_TP2 = VllmSetup(tensor_parallel_size=2)
_TP4, _NVLINK, _PCIE = VllmSetup(tensor_parallel_size=4), ("A100 40GB", "NV12"), ("A100 40GB", "PHB")
_ON_80GB = ("llama-2-70b", "4x A100 80GB", _TP4)
_Q3 = "qwen3-1.7b"
#: Their prefill: 8 prompts of 512 tokens.
_PREFILL, _PROMPTS = 8 * 512, 8

_KV_FORGOTTEN = (
    "The file alone is less than both cards; KV, buffers and a CUDA context on each card come on top."
)
_ROWS_SPARE_NOTHING = "8:3 is the cards' memory, not what driver, context and buffers leave of it."

_SEED_003 = (
    Claim(
        "003", 3, "8GB + 3GB = 11GB VRAM total", Figure(11, "GiB", we.usable_gib), "roughly",
        "The driver keeps a share of each card, and a plan a margin.",
    ),
    Claim("003", 49, "14B Q4_K_M (~9GB)", Figure(9, "GB", lambda: we.file_gb(_R1, "Q4_K_M")), "right"),
    Claim(
        "003", 51, "should fit across 11GB total VRAM (row, 8,3)",
        Fits(True, lambda: we.served((_R1, "Q4_K_M", ROWS, _BOTH))), "wrong",
        f"{_KV_FORGOTTEN} {_ROWS_SPARE_NOTHING}",
    ),
    Claim(
        "003", 84, "GPU 0: Llama 3.1 8B (~7GB)",
        Fits(True, lambda: we.served((_LLAMA, "Q6_K", ALL_LAYERS, _FIRST))), "right",
    ),
    Claim(
        "003", 85, "Qwen 2.5 7B (~5GB)", Figure(5, "GB", lambda: we.file_gb(_QWEN_7B, "Q4_K_M")), "roughly",
        "As Q4_K_M, the only mixture near that figure.",
    ),
    Claim(
        "003", 85, "Won't fit, 3GB only",
        Fits(False, lambda: we.served((_QWEN_7B, "Q4_K_M", ALL_LAYERS, _SECOND))), "right",
    ),
    Claim(
        "003", 97, "Llama 3.1 8B Q6_K (~7GB)", Figure(7, "GB", lambda: we.file_gb(_LLAMA, "Q6_K")), "roughly",
        "The file is smaller; what it takes of the card is larger, see the next line.",
    ),
    Claim(
        "003", 97, "fits in GPU 0 alone (8,192 tokens)",
        Fits(True, lambda: we.served((_LLAMA, "Q6_K", ALL_LAYERS, _FIRST))), "right",
    ),
    Claim(
        "003", 107, "Tier 1 on 8080 and Tier 2 Q4_K_M split on 8081",
        Fits(True, lambda: we.served((_LLAMA, "Q6_K", ALL_LAYERS, _FIRST), (_R1, "Q4_K_M", ROWS, _BOTH))),
        "wrong", "Each was weighed alone; the first leaves next to nothing of GPU 0 for the second.",
    ),
    Claim(
        "003", 117, "Or try Q5_K_M (~10.5GB)", Figure(10.5, "GB", lambda: we.file_gb(_R1, "Q5_K_M")), "right",
    ),
    Claim(
        "003", 156, "8B Q6_K (~7GB) - Fits perfectly",
        Fits(True, lambda: we.served((_LLAMA, "Q6_K", ALL_LAYERS, _FIRST))), "right",
        "Just: see the next line.",
    ),
    Claim(
        "003", 156, "the same, with a display on that card",
        Fits(True, lambda: we.served((_LLAMA, "Q6_K", ALL_LAYERS, _FIRST), display=True)), "wrong",
        "Perfectly it is not: windows on the screen take what was left.",
    ),
    Claim(
        "003", 157, "14B Q4_K_M (~9GB) - OOM",
        Fits(False, lambda: we.served((_R1, "Q4_K_M", ALL_LAYERS, _FIRST))), "right",
    ),
    Claim(
        "003", 158, "32B Q4_K_M (~20GB)", Figure(20, "GB", lambda: we.file_gb(_QWEN_32B, "Q4_K_M")), "right",
    ),
    Claim(
        "003", 158, "32B Q4_K_M - OOM",
        Fits(False, lambda: we.served((_QWEN_32B, "Q4_K_M", ALL_LAYERS, _FIRST))), "right",
    ),
    Claim(
        "003", 162, "14B Q4_K_M (~9GB) - Should fit split", Fits(True, lambda: we.best_split(_R1, "Q4_K_M")),
        "wrong", f"{_KV_FORGOTTEN} No division of the layers helps.",
    ),
    Claim(
        "003", 162, "the same, with a q8_0 cache", Fits(True, lambda: we.best_split(_R1, "Q4_K_M", "q8_0")),
        "roughly", "The nearest that comes into reach; a shorter context does the rest.",
    ),
    Claim(
        "003", 163, "14B Q5_K_M (~10.5GB) - Should fit split",
        Fits(True, lambda: we.best_split(_R1, "Q5_K_M")), "wrong",
        "Its weights alone are nearly all that both cards have to give.",
    ),
    Claim(
        "003", 164, "32B Q4_K_M - Still too large even with RAM offload",
        Fits(False, lambda: we.offloaded(_QWEN_32B, "Q4_K_M")), "wrong",
        "Slow, but it runs: 16 GB hold the rest once the layers are shared out by hand. Line 206 says so.",
    ),
    Claim(
        "003", 167, "Qwen 2.5 14B Q6_K (~10GB …)", Figure(10, "GB", lambda: we.file_gb(_R1, "Q6_K")), "wrong",
        "That is the size of Q5_K_M.",
    ),
    Claim(
        "003", 167, "… with partial offload", Fits(True, lambda: we.offloaded(_R1, "Q6_K")), "right",
    ),
    Claim("003", 168, "7B Q6_K (~6GB)", Figure(6, "GB", lambda: we.file_gb(_QWEN_7B, "Q6_K")), "right"),
    Claim(
        "003", 168, "fits in GPU 0",
        Fits(True, lambda: we.served((_QWEN_7B, "Q6_K", ALL_LAYERS, _FIRST))), "right",
    ),
    Claim(
        "003", 192, "Tier 1 8B Q6_K with Tier 2 14B Q5_K_M",
        Fits(True, lambda: we.served((_LLAMA, "Q6_K", ALL_LAYERS, _FIRST), (_R1, "Q5_K_M", ROWS, _BOTH))),
        "wrong", "Neither together nor the second one alone.",
    ),
    Claim(
        "003", 206, "32B Q4_K_M - CPU/RAM offload", Fits(True, lambda: we.offloaded(_QWEN_32B, "Q4_K_M")),
        "right", "With both cards to itself, against line 164.",
    ),
    Claim(
        "003", 230, "R1-Distill-7B, Size (Q4_K_M) ~6GB",
        Figure(6, "GB", lambda: we.file_gb(_QWEN_7B, "Q4_K_M")),
        "wrong", "The size of Q6_K in the column of Q4_K_M.",
    ),
    Claim(
        "003", 231, "Llama 3.1 8B, Size (Q4_K_M) ~7GB", Figure(7, "GB", lambda: we.file_gb(_LLAMA, "Q4_K_M")),
        "wrong", "The size of Q6_K in the column of Q4_K_M.",
    ),
    Claim(
        "003", 232, "Qwen 2.5 7B, Size (Q4_K_M) ~5.5GB",
        Figure(5.5, "GB", lambda: we.file_gb(_QWEN_7B, "Q4_K_M")), "roughly",
        "One shape with the 7B two lines above, which has another figure.",
    ),
)  # fmt: skip

_SEED_001 = (
    Claim(
        "001", 51, "Parameters: 70 billion",
        Figure(70, "billion", lambda: we.shape("llama-2-70b").parameters / 1e9),
        "right",
    ),
    Claim(
        "001", 52, "70B × 2 bytes = 140 GB",
        Figure(140, "GB", lambda: we.weights_gb("llama-2-70b")), "right",
    ),
    Claim(
        "001", 53, "KV cache (1024 tokens): ~40 GB",
        Figure(40, "GB", lambda: we.kv_gb("llama-2-70b", 1024)), "wrong",
        "8 KV heads, not 64; and even the hidden size in their place gives a small part of that.",
    ),
    Claim(
        "001", 54, "Total: ~180 GB",
        Figure(180, "GB", lambda: we.weights_gb("llama-2-70b") + we.kv_gb("llama-2-70b", 1024)),
        "wrong", "The KV of line 53.",
    ),
    *(
        Claim(
            "001", line, f"{card}: ✗ Can't fit",
            Fits(False, partial(we.vllm_room, "llama-2-70b", card, VllmSetup(context_tokens=1024))),
            "right",
        )
        for line, card in ((57, "A100 40GB"), (58, "A100 80GB"), (59, "H100 80GB"))
    ),
    Claim(
        "001", 70, "4× A100 40GB … can serve Llama-2 70B",
        Fits(True, lambda: we.vllm_room("llama-2-70b", "4x A100 40GB", _TP4)), "right",
        "By their own lines 52 and 53 it would not: 180 of 160 GB.",
    ),
    Claim(
        "001", 178, "8 GPUs for 70B: Stage 0 (Layers 0-15)",
        Figure(16, "layers a stage", lambda: len(we.shape("llama-2-70b").layers) / 2), "wrong",
        "A 70B has 80 layers; these are the stages of a 7B.",
    ),
    Claim(
        "001", 377, "bytes_per_token … 2 all-reduces, counted twice (7B, a token)",
        Figure(
            2 * 4096 * 2 * 32 * 2 / we.MIB, "MiB",
            lambda: we.messages_gb("llama-2-7b", 1) * we.GB / we.MIB,
        ),
        "wrong", "The two all-reduces of a layer are in `bytes_per_token` and again in the product.",
    ),
    Claim(
        "001", 381, "total_bytes for model_size_b=70, 4 GPUs, 8 × 512 tokens",
        Figure(
            2 * 4096 * 2 * _PREFILL * 32 * 2 / we.GB, "GB",
            lambda: we.sent_gb("llama-2-70b", 4, _PREFILL, _PROMPTS),
        ),
        "wrong", "It looks at neither the model's size nor the number of GPUs: a 7B, and no ring's factor.",
    ),
    Claim(
        "001", 399, "nvlink_bw = 600", Figure(600, "GB/s", lambda: we.nvlink_gb_per_s("A100 40GB")), "wrong",
        "Both directions together; what a rank sends goes one way, as in their own 32 GB/s of PCIe.",
    ),
    Claim(
        "001", 400, "pcie_bw = 32 (PCIe 4.0 x16)",
        Figure(32, "GB/s", lambda: we.link(*_PCIE).gb_per_s), "right",
    ),
    Claim(
        "001", 551, "Embedding (duplicated) on each of 4, GB",
        Figure(we.embedding_gb("llama-2-70b", 1), "GB", lambda: we.embedding_gb("llama-2-70b", 4)), "wrong",
        "vLLM shares the rows of the vocabulary out.",
    ),
    Claim(
        "001", 594, "NVLink: 1-2ms per layer, a prefill of 8 × 512",
        Figure(1, "ms", lambda: we.layer_ms("llama-2-70b", 4, _PREFILL, we.link(*_NVLINK)), 2), "roughly",
        "For a prefill alone; a decoded token: see the next line.",
    ),
    Claim(
        "001", 594, "NVLink: 1-2ms per layer, a decoded token",
        Figure(1, "ms", lambda: we.layer_ms("llama-2-70b", 4, 1, we.link(*_NVLINK)), 2), "wrong",
        "A token's messages are some KiB: latency, not bandwidth.",
    ),
    Claim(
        "001", 598, "PCIe: 20-40ms per layer, a prefill of 8 × 512",
        Figure(20, "ms", lambda: we.layer_ms("llama-2-70b", 4, _PREFILL, we.link(*_PCIE)), 40), "wrong",
        "Their own bandwidth gives a fraction of that.",
    ),
    Claim(
        "001", 598, "PCIe: 20-40ms per layer, a decoded token",
        Figure(20, "ms", lambda: we.layer_ms("llama-2-70b", 4, 1, we.link(*_PCIE)), 40), "wrong",
        "A prefill's figure at most, held against every token.",
    ),
    Claim(
        "001", 599, "PCIe: TP not practical (traffic ≥ reading the weights)",
        Figure(100, "% of it", lambda: we.token_over_reading("llama-2-70b", 4, *_PCIE), inf), "wrong",
        "A decoded token waits for the weights to be read; PCIe adds to that and does not rule it.",
    ),
    Claim(
        "001", 650, "35GB memory a GPU (Llama-2 13B, TP 4)",
        Figure(
            35, "GiB",
            lambda: we.vllm_device_gib(
                "llama-2-13b", "4x A100 40GB", VllmSetup(tensor_parallel_size=4, context_tokens=2048)
            ),
        ),
        "roughly", "Not because the model needs it: vLLM fills 0.9 of the card, whatever the model.",
    ),
    Claim(
        "001", 738, "140 GB / 4 = 35 GB",
        Figure(35, "GB", lambda: we.weights_gb("llama-2-70b", 4)), "right",
    ),
    Claim(
        "001", 740, "activations (~5 GB)",
        Figure(5, "GB", lambda: we.vllm_part_gib(Component.ACTIVATIONS, *_ON_80GB) * we.GIB / we.GB),
        "wrong", "At vLLM's default batch on that card.",
    ),
    Claim(
        "001", 741, "Total per GPU: ~50-60 GB, one request of 4,096",
        Figure(50, "GB", lambda: we.vllm_least_gib(*_ON_80GB) * we.GIB / we.GB, 60), "wrong",
        "Weights and overheads; KV is small, so the rest is a choice.",
    ),
    Claim(
        "001", 741, "Total per GPU: ~50-60 GB, as vLLM starts",
        Figure(50, "GB", lambda: we.vllm_device_gib(*_ON_80GB) * we.GIB / we.GB, 60), "wrong",
        "The pool takes what is left of 0.9 of the card.",
    ),
    Claim(
        "001", 743, "Fits on A100 80GB ✓", Fits(True, lambda: we.vllm_room(*_ON_80GB)), "right",
    ),
)  # fmt: skip

_GIB_NOT_GB = "GB written as GiB: bytes over 10^9 with the unit of 2^30."
_SEED_002 = (
    *(
        Claim(
            "002", line, words,
            Figure(theirs, "GiB", partial(we.parameters_gib, _Q3, size)),
            "roughly", _GIB_NOT_GB,
        )
        for line, words, theirs, size in (
            (7, "fp32: 6.8GiB", 6.8, 4),
            (8, "fp16/bp16: 3.4GiB", 3.4, 2),
            (9, "int8: 1.7GiB", 1.7, 1),
        )
    ),
    Claim(
        "002", 12, "activation: mainly kv cache (share beside the weights, their 8 × 2048)",
        Figure(50, "%", lambda: we.kv_share(_Q3, "RTX 3090", 2048, 8), 100), "right",
        "KV is no activation: those, graphs and the context come on top.",
    ),
    Claim(
        "002", 21, "0.4375MiB per token",
        Figure(0.4375, "MiB", lambda: we.kv_gib(_Q3, 2048) * 1024 / 2048), "wrong",
        "Twice from H = 2048 in place of 8 KV heads × 128, twice from fp32 in place of the model's bf16.",
    ),
    Claim(
        "002", 26, "7GiB for 2048 context length, 8 concurrent",
        Figure(7, "GiB", lambda: we.kv_gib(_Q3, 2048, 8)), "wrong", "The figure of line 21.",
    ),
    Claim(
        "002", 30, "multi-gpu: model … memory is same (TP 2)",
        Figure(we.weights_gb(_Q3), "GB", lambda: we.weights_gb(_Q3, 2)), "wrong",
        "Tensor parallelism divides the weights, as their own line 39 says; copies (DP) do not.",
    ),
    Claim(
        "002", 30, "multi-gpu: … activation memory is same (TP 2)",
        Figure(
            we.vllm_part_gib(Component.ACTIVATIONS, _Q3, "RTX 3090", VllmSetup()), "GiB",
            lambda: we.vllm_part_gib(Component.ACTIVATIONS, _Q3, "2x RTX 3090", _TP2),
        ),
        "wrong", "It shrinks, though not to a half: what is as wide as the model stays whole.",
    ),
    Claim(
        "002", 39, "reduce per-GPU memory (param …), half at TP 2",
        Figure(we.weights_gb(_Q3) / 2, "GB", lambda: we.weights_gb(_Q3, 2)), "right",
    ),
)  # fmt: skip

_EXTRA = (
    Claim(
        "000", 13, "70B Q4 (~35-40GB)",
        Figure(35, "GB", lambda: we.weights_gb("llama-3.1-70b-awq"), 40), "right",
        "As four-bit AWQ; as Q4_K_M it is larger.",
    ),
    Claim(
        "000", 13, "across 2x 24GB = fits (4,096 tokens, eager)",
        Fits(
            True,
            lambda: we.vllm_room(
                "llama-3.1-70b-awq", "2x RTX 3090",
                VllmSetup(tensor_parallel_size=2, context_tokens=4096, eager=True),
            ),
        ),
        "right", "With a short context and no graphs.",
    ),
    Claim(
        "000", 22, "3090s don't have it (NVLink)",
        Figure(0, "GB/s", lambda: we.nvlink_gb_per_s("RTX 3090")), "wrong",
        "They have a connector for a bridge over two cards.",
    ),
    Claim(
        "000", 23, "PCIe 4.0 x16 = ~32GB/s",
        Figure(32, "GB/s", lambda: we.link("RTX 3090", "PHB").gb_per_s), "right",
    ),
    Claim(
        "000", 37, "vllm serve … --tensor-parallel-size 2 (as it stands)",
        Fits(True, lambda: we.vllm_room("llama-3.1-70b-awq", "2x RTX 3090", _TP2)),
        "wrong", "Without `--max-model-len` vLLM wants room for the model's whole context, and refuses.",
    ),
    Claim(
        "004", 97, "gpu_memory_utilization: … reserved fo KV Cache (0.9 of a 24 GB card)",
        Figure(
            24 * 0.9, "GiB",
            lambda: we.vllm_part_gib(
                Component.KV, "llama-3.1-8b", "RTX 3090", VllmSetup(context_tokens=8192)
            ),
        ),
        "wrong", "It is the share for everything; KV gets what weights and the rest leave of it.",
    ),
    Claim(
        "004", 151, "70B … cache can be larger than model weights (131,072 tokens, four bits)",
        Figure(1, "× the weights", lambda: we.kv_over_weights("llama-3.1-70b-awq", 131072), inf), "right",
        "Of one request, with weights of four bits; in bf16 it takes several such requests.",
    ),
    Claim(
        "004", 195, "2 × layers × kv_heads × dhead × precision (Llama 3.1 8B)",
        Figure(
            2 * 32 * 8 * 128 * 2 / we.MIB, "MiB a token",
            lambda: we.kv_gib("llama-3.1-8b", 8192) * 1024 / 8192,
        ),
        "right", "The formula that 001 and 002 miss.",
    ),
    Claim(
        "004", 202, "memory footprint drops by 4x to 8x (8 of 32 heads)",
        Figure(
            4, "x",
            lambda: we.kv_gib("llama-2-7b", 4096) / we.kv_gib("llama-3.1-8b", 4096), 8,
        ),
        "right", "Llama-2 7B against Llama 3.1 8B, both of 32 layers.",
    ),
)  # fmt: skip

CLAIMS: tuple[Claim, ...] = (*_SEED_003, *_SEED_001, *_SEED_002, *_EXTRA)
