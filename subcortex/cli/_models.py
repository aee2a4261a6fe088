"""The models that ``init`` may choose: where they are, how large, and of which shape."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from subcortex.vram import Shape, weights_mib

_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Model:
    """A model on the hub.

    Args:
        title: What a person calls it.
        repo: Hub name.
        file: The GGUF in it; None for a folder that vLLM loads.
        shape: Its memory.
        min_capability: Least compute capability of a GPU that vLLM can run it on.
    """

    title: str
    repo: str
    file: str | None
    shape: Shape
    min_capability: tuple[int, int] = (7, 5)

    def place(self, folder: str) -> str:
        """Return where the model is put below ``folder``."""
        return f"{folder}/{self.file or self.repo.split('/')[-1]}"

    def download(self, folder: str) -> str:
        """Return the command that fetches it; the gated ones want `hf auth login` first."""
        if self.file:
            return f"hf download {self.repo} {self.file} --local-dir {folder}"
        return f"hf download {self.repo} --local-dir {self.place(folder)}"


def _gguf(title: str, repo: str, file: str, size_bytes: float, layers: int, heads: int, dim: int) -> Model:
    return Model(title, repo, file, Shape(size_bytes / _MIB, layers, heads, dim))


# Shapes are those of each model's config.json; GGUF sizes those of the files on the hub.
LLAMA_70B_BF16 = Model(
    "Llama 3.1 70B in bf16",
    "meta-llama/Llama-3.1-70B-Instruct",
    None,
    Shape(weights_mib(70.55e9, 16), 80, 8, 128),
    (8, 0),
)
#: 4-bit linears with scales and zeros a group of 128 (4.16 bits), embeddings and head in 16 bits.
LLAMA_70B_AWQ = Model(
    "Llama 3.1 70B in 4 bits (AWQ)",
    "hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4",
    None,
    Shape(weights_mib(68.45e9, 4.16) + weights_mib(2.10e9, 16), 80, 8, 128),
)
LLAMA_8B_BF16 = Model(
    "Llama 3.1 8B in bf16",
    "meta-llama/Llama-3.1-8B-Instruct",
    None,
    Shape(weights_mib(8.03e9, 16), 32, 8, 128),
    (8, 0),
)
LLAMA_8B_AWQ = Model(
    "Llama 3.1 8B in 4 bits (AWQ)",
    "hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4",
    None,
    Shape(weights_mib(6.98e9, 4.16) + weights_mib(1.05e9, 16), 32, 8, 128),
)
LLAMA_8B = _gguf(
    "Llama 3.1 8B, Q4_K_M",
    "bartowski/Meta-Llama-3.1-8B-Instruct-GGUF",
    "Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf",
    4.92e9,
    32,
    8,
    128,
)
QWEN_32B = _gguf(
    "Qwen 2.5 32B, Q4_K_M",
    "bartowski/Qwen2.5-32B-Instruct-GGUF",
    "Qwen2.5-32B-Instruct-Q4_K_M.gguf",
    19.85e9,
    64,
    8,
    128,
)
QWEN_14B = _gguf(
    "Qwen 2.5 14B, Q4_K_M",
    "bartowski/Qwen2.5-14B-Instruct-GGUF",
    "Qwen2.5-14B-Instruct-Q4_K_M.gguf",
    8.99e9,
    48,
    8,
    128,
)
#: 14B in fewer bits: what an 8 GB and a 3 GB card hold together, and neither alone.
QWEN_14B_Q3 = _gguf(
    "Qwen 2.5 14B, Q3_K_M",
    "bartowski/Qwen2.5-14B-Instruct-GGUF",
    "Qwen2.5-14B-Instruct-Q3_K_M.gguf",
    7.34e9,
    48,
    8,
    128,
)
LLAMA_3B = _gguf(
    "Llama 3.2 3B, Q4_K_M",
    "bartowski/Llama-3.2-3B-Instruct-GGUF",
    "Llama-3.2-3B-Instruct-Q4_K_M.gguf",
    2.02e9,
    28,
    8,
    128,
)
LLAMA_1B = _gguf(
    "Llama 3.2 1B, Q4_K_M",
    "bartowski/Llama-3.2-1B-Instruct-GGUF",
    "Llama-3.2-1B-Instruct-Q4_K_M.gguf",
    0.81e9,
    16,
    8,
    64,
)
QWEN_HALF_B = _gguf(
    "Qwen 2.5 0.5B, Q8_0",
    "Qwen/Qwen2.5-0.5B-Instruct-GGUF",
    "qwen2.5-0.5b-instruct-q8_0.gguf",
    0.68e9,
    24,
    2,
    64,
)

#: From most to least capable.
GGUF_LADDER = (QWEN_32B, QWEN_14B, QWEN_14B_Q3, LLAMA_8B, LLAMA_3B, LLAMA_1B, QWEN_HALF_B)

#: Every model that init may name.
ALL = (LLAMA_70B_BF16, LLAMA_70B_AWQ, LLAMA_8B_BF16, LLAMA_8B_AWQ, *GGUF_LADDER)


def download_command(path: Path) -> str:
    """Return the command that fetches what should be at ``path``; a template where we do not know it."""
    for model in ALL:
        if Path(model.place("x")).name == path.name:
            return model.download(str(path.parent))
    if path.suffix == ".gguf":
        return f"hf download REPOSITORY {path.name} --local-dir {path.parent}"
    return f"hf download REPOSITORY --local-dir {path}"
