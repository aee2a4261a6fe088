"""Families of models, with what of each ``config.json`` decides memory: what smaller relatives a model has.

Figures are those of the models' public config.json and model cards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from subcortex.models.shape import ModelShape


@dataclass(frozen=True, slots=True)
class Kind:
    """What the models of one architecture have in common.

    Args:
        architecture: As config.json says; ``gguf`` is what a GGUF header says.
        sliding_window: Tokens that windowed layers see; 0 without.
        window_pattern: Of so many layers, all but the last are windowed.
    """

    architecture: str
    model_type: str
    gguf: str
    sliding_window: int = 0
    window_pattern: int = 0


_LLAMA = Kind("LlamaForCausalLM", "llama", "llama")
_MISTRAL = Kind("MistralForCausalLM", "mistral", "llama")
_QWEN2 = Kind("Qwen2ForCausalLM", "qwen2", "qwen2")
_QWEN3 = Kind("Qwen3ForCausalLM", "qwen3", "qwen3")
_QWEN3_MOE = Kind("Qwen3MoeForCausalLM", "qwen3_moe", "qwen3moe")
_GEMMA3 = Kind("Gemma3ForCausalLM", "gemma3_text", "gemma3", 1024, 6)
_GEMMA3_1B = Kind("Gemma3ForCausalLM", "gemma3_text", "gemma3", 512, 6)


@dataclass(frozen=True, slots=True)
class Relative:
    """One model of a family.

    Args:
        name: On the hub.
        billions: Parameters, in units of 1e9.
        experts: Of a mixture: how many, how many a token goes through, width of one; None if dense.
    """

    name: str
    billions: float
    kind: Kind
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool
    context_tokens: int
    experts: tuple[int, int, int] | None = None

    def config(self) -> dict[str, Any]:
        """Return it as a config.json has it, as far as memory goes."""
        values: dict[str, Any] = {
            "architectures": [self.kind.architecture],
            "model_type": self.kind.model_type,
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.intermediate,
            "vocab_size": self.vocabulary,
            "tie_word_embeddings": self.tied,
            "max_position_embeddings": self.context_tokens,
            "torch_dtype": "bfloat16",
        }
        if self.kind.window_pattern:
            values["sliding_window"] = self.kind.sliding_window
            values["sliding_window_pattern"] = self.kind.window_pattern
        if self.experts:
            count, top_k, width = self.experts
            values |= {"num_experts": count, "num_experts_per_tok": top_k, "moe_intermediate_size": width}
            values |= {"decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True}
        return values


_128K = 131072
_L3, _Q25, _Q3, _G3 = 128256, 152064, 151936, 262208

#: Family → its models, the largest first.
FAMILIES: dict[str, tuple[Relative, ...]] = {
    "Llama 3": (
        Relative(
            "meta-llama/Llama-3.1-405B-Instruct",
            405.9,
            _LLAMA,
            16384,
            126,
            128,
            8,
            128,
            53248,
            _L3,
            False,
            _128K,
        ),
        Relative(
            "meta-llama/Llama-3.3-70B-Instruct", 70.55, _LLAMA, 8192, 80, 64, 8, 128, 28672, _L3, False, _128K
        ),
        Relative(
            "meta-llama/Llama-3.1-70B-Instruct", 70.55, _LLAMA, 8192, 80, 64, 8, 128, 28672, _L3, False, _128K
        ),
        Relative(
            "meta-llama/Llama-3.1-8B-Instruct", 8.03, _LLAMA, 4096, 32, 32, 8, 128, 14336, _L3, False, _128K
        ),
        Relative(
            "meta-llama/Llama-3.2-3B-Instruct", 3.21, _LLAMA, 3072, 28, 24, 8, 128, 8192, _L3, True, _128K
        ),
        Relative(
            "meta-llama/Llama-3.2-1B-Instruct", 1.24, _LLAMA, 2048, 16, 32, 8, 64, 8192, _L3, True, _128K
        ),
    ),
    "Qwen2.5": (
        Relative("Qwen/Qwen2.5-72B-Instruct", 72.7, _QWEN2, 8192, 80, 64, 8, 128, 29568, _Q25, False, 32768),
        Relative("Qwen/Qwen2.5-32B-Instruct", 32.8, _QWEN2, 5120, 64, 40, 8, 128, 27648, _Q25, False, 32768),
        Relative("Qwen/Qwen2.5-14B-Instruct", 14.8, _QWEN2, 5120, 48, 40, 8, 128, 13824, _Q25, False, 32768),
        Relative("Qwen/Qwen2.5-7B-Instruct", 7.62, _QWEN2, 3584, 28, 28, 4, 128, 18944, _Q25, False, 32768),
        Relative("Qwen/Qwen2.5-3B-Instruct", 3.09, _QWEN2, 2048, 36, 16, 2, 128, 11008, _Q3, True, 32768),
        Relative("Qwen/Qwen2.5-1.5B-Instruct", 1.54, _QWEN2, 1536, 28, 12, 2, 128, 8960, _Q3, True, 32768),
        Relative("Qwen/Qwen2.5-0.5B-Instruct", 0.494, _QWEN2, 896, 24, 14, 2, 64, 4864, _Q3, True, 32768),
    ),
    "Qwen3": (
        Relative(
            "Qwen/Qwen3-235B-A22B",
            235.1,
            _QWEN3_MOE,
            4096,
            94,
            64,
            4,
            128,
            12288,
            _Q3,
            False,
            40960,
            (128, 8, 1536),
        ),
        Relative("Qwen/Qwen3-32B", 32.8, _QWEN3, 5120, 64, 64, 8, 128, 25600, _Q3, False, 40960),
        Relative(
            "Qwen/Qwen3-30B-A3B",
            30.5,
            _QWEN3_MOE,
            2048,
            48,
            32,
            4,
            128,
            6144,
            _Q3,
            False,
            40960,
            (128, 8, 768),
        ),
        Relative("Qwen/Qwen3-14B", 14.8, _QWEN3, 5120, 40, 40, 8, 128, 17408, _Q3, False, 40960),
        Relative("Qwen/Qwen3-8B", 8.19, _QWEN3, 4096, 36, 32, 8, 128, 12288, _Q3, False, 40960),
        Relative("Qwen/Qwen3-4B", 4.02, _QWEN3, 2560, 36, 32, 8, 128, 9728, _Q3, True, 40960),
        Relative("Qwen/Qwen3-1.7B", 1.72, _QWEN3, 2048, 28, 16, 8, 128, 6144, _Q3, True, 40960),
        Relative("Qwen/Qwen3-0.6B", 0.596, _QWEN3, 1024, 28, 16, 8, 128, 3072, _Q3, True, 40960),
    ),
    "Gemma 3": (
        Relative("google/gemma-3-27b-it", 27.0, _GEMMA3, 5376, 62, 32, 16, 128, 21504, _G3, True, _128K),
        Relative("google/gemma-3-12b-it", 11.8, _GEMMA3, 3840, 48, 16, 8, 256, 15360, _G3, True, _128K),
        Relative("google/gemma-3-4b-it", 3.88, _GEMMA3, 2560, 34, 8, 4, 256, 10240, _G3, True, _128K),
        Relative("google/gemma-3-1b-it", 1.0, _GEMMA3_1B, 1152, 26, 4, 1, 256, 6912, 262144, True, 32768),
    ),
    "Mistral": (
        Relative(
            "mistralai/Mistral-Large-Instruct-2407",
            122.6,
            _MISTRAL,
            12288,
            88,
            96,
            8,
            128,
            28672,
            32768,
            False,
            _128K,
        ),
        Relative(
            "mistralai/Mistral-Small-24B-Instruct-2501",
            23.57,
            _MISTRAL,
            5120,
            40,
            32,
            8,
            128,
            32768,
            131072,
            False,
            32768,
        ),
        Relative(
            "mistralai/Mistral-Nemo-Instruct-2407",
            12.25,
            _MISTRAL,
            5120,
            40,
            32,
            8,
            128,
            14336,
            131072,
            False,
            _128K,
        ),
        Relative(
            "mistralai/Mistral-7B-Instruct-v0.3",
            7.25,
            _MISTRAL,
            4096,
            32,
            32,
            8,
            128,
            14336,
            32768,
            False,
            32768,
        ),
    ),
    "DeepSeek R1 distilled": (
        Relative(
            "deepseek-ai/DeepSeek-R1-Distill-Llama-70B",
            70.55,
            _LLAMA,
            8192,
            80,
            64,
            8,
            128,
            28672,
            _L3,
            False,
            _128K,
        ),
        Relative(
            "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B",
            32.8,
            _QWEN2,
            5120,
            64,
            40,
            8,
            128,
            27648,
            _Q25,
            False,
            _128K,
        ),
        Relative(
            "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B",
            14.8,
            _QWEN2,
            5120,
            48,
            40,
            8,
            128,
            13824,
            _Q25,
            False,
            _128K,
        ),
        Relative(
            "deepseek-ai/DeepSeek-R1-Distill-Llama-8B",
            8.03,
            _LLAMA,
            4096,
            32,
            32,
            8,
            128,
            14336,
            _L3,
            False,
            _128K,
        ),
        Relative(
            "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
            7.62,
            _QWEN2,
            3584,
            28,
            28,
            4,
            128,
            18944,
            _Q25,
            False,
            _128K,
        ),
        Relative(
            "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
            1.78,
            _QWEN2,
            1536,
            28,
            12,
            2,
            128,
            8960,
            _Q3,
            False,
            _128K,
        ),
    ),
}


def family_of(shape: ModelShape) -> str | None:
    """Return the family of a model: by name where that says it, else by what no other family has."""
    name = shape.name.lower()
    if "r1" in name and "distill" in name:
        return "DeepSeek R1 distilled"
    for family, relatives in FAMILIES.items():
        if any(_same(shape, relative) for relative in relatives):
            return family
    return None


def named(name: str) -> Relative | None:
    """Return the model of that name, with or without its owner, in any case; None if it is not listed."""
    wanted = name.lower()
    everyone = (relative for relatives in FAMILIES.values() for relative in relatives)
    return next(
        (one for one in everyone if wanted in (one.name.lower(), one.name.lower().split("/")[1])), None
    )


def smaller(shape: ModelShape) -> tuple[Relative, ...]:
    """Return the smaller models of a model's family, the largest first; none if the family is unknown."""
    family = family_of(shape)
    # A quantised model's own size again is no smaller model; what counts is parameters.
    least = shape.parameters * 0.9
    return tuple(one for one in FAMILIES.get(family or "", ()) if one.billions * 1e9 < least)


def _same(shape: ModelShape, relative: Relative) -> bool:
    known = (relative.kind.architecture, relative.kind.gguf)
    facts = (shape.hidden, len(shape.layers), shape.heads)
    return shape.architecture in known and facts == (relative.hidden, relative.layers, relative.heads)
