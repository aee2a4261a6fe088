"""Which of the questions that a machine can answer about itself a question is, where it can be told. Pure.

The kinds are the rows of the catalogue of experiments; an experiment looks for gaps of its own.
"""

from __future__ import annotations

import re

#: Kind → words that all must be there, each a choice. The first kind that has them all counts.
_KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("peer_trust", (r"peer|p2p|dma", r"trust|corrupt|intact|lose|iommu|correct")),
    (
        "quantisation_tp",
        (
            r"quanti[sz]|\bq[2-8](?:_|\b)|awq|gptq|\bint[48]\b|\bfp8\b",
            r"\btp\b|tensor|across (?:gpu|card)|split|gpus\b",
        ),
    ),
    (
        "split_answers",
        (r"split|tp\b|parallel|shard", r"quality|answers?\b|outputs?\b|accura|same result|different tokens"),
    ),
    ("tp_overhead", (r"\btp\b|tensor[ -]parallel", r"overhead|extra|beyond|add", r"v?ram|memory|mib|gib")),
    (
        "joint_serving",
        (
            r"simultan|at once|side by side|at the same time|both|together|alongside|concurrently|co-?locat",
            r"serve|run|host|load|models?",
        ),
    ),
    (
        "idle_memory",
        (
            r"idle|active|asleep|sleep|unused|loaded models|inactive|swapped|unload",
            r"v?ram|memory|reserve|allocat|keep|hold",
        ),
    ),
    (
        "swap_cost",
        (r"swap|switch|sleep|wake|restart|cold start", r"how (?:long|fast|quick|much)|seconds|cost|time"),
    ),
    (
        "load_time",
        (
            r"load|boot|start",
            r"how (?:long|fast|quick)|how much (?:quicker|faster|slower)|time|seconds|page cache|mmap",
        ),
    ),
    (
        "saturation",
        (r"batch|concurren|requests", r"saturat|knee|limit|maxim|optimal|how many|compute-bound|throughput"),
    ),
    (
        "collectives",
        (
            r"all-?reduce|all-?gather|reduce-?scatter|broadcast|collective|nccl",
            r"fast|bandwidth|latency|how|cost",
        ),
    ),
    (
        "interconnect",
        (
            r"pcie|nvlink|interconnect|peer path",
            r"slow|fast|speed|bandwidth|impact|performance|versus|\bvs\b|cost|help",
        ),
    ),
    (
        "split_modes",
        (r"split[- ]mode|tensor[- ]split|\brows?\b.{0,40}\blayers?\b|unequal|uneven|mixed gpus",),
    ),
    ("machine_speed", (r"tflop|gemm|memory bandwidth|how fast is", r"")),
    ("startup", (r"start[- ]?up|import|tokeni[sz]er|cuda version", r"check|compatible|works?|pass")),
)  # fmt: skip
_COMPILED = tuple((kind, tuple(re.compile(one, re.IGNORECASE) for one in words)) for kind, words in _KINDS)
#: All kinds that there are.
KINDS: tuple[str, ...] = tuple(kind for kind, _ in _KINDS)


def question_kind(question: str, topic: str = "") -> str | None:
    """Return the kind of a question; None where its words do not tell."""
    text = f"{topic} {question}"[:1000]
    return next((kind for kind, words in _COMPILED if all(one.search(text) for one in words)), None)
