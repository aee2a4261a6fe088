"""The models that ``init`` may choose: where they are on the hub, and their shapes from the catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from subcortex.models.shape import ModelShape


@dataclass(frozen=True, slots=True)
class Model:
    """A model on the hub.

    Args:
        title: What a person calls it.
        repo: Hub name.
        relative: What the catalogue calls it.
        form: How it is stored: ``awq``, or a mixture of llama.cpp; None as it was published.
        file: The GGUF in it; None for a folder that vLLM loads.
        min_capability: Least compute capability of a GPU that computes in its type, beyond what vLLM asks.
    """

    title: str
    repo: str
    relative: str
    form: str | None = None
    file: str | None = None
    min_capability: tuple[int, int] = (0, 0)

    @property
    def engine(self) -> str:
        """``llama.cpp`` for a GGUF, else ``vllm``."""
        return "llama.cpp" if self.file else "vllm"

    @property
    def shape(self) -> ModelShape:
        """Its shape in its form, by arithmetic on its config; about a per cent off what headers would say."""
        return _shape(self.relative, self.form)

    def place(self, folder: str) -> str:
        """Return where the model is put below ``folder``."""
        return f"{folder}/{self.file or self.repo.split('/')[-1]}"

    def download(self, folder: str) -> str:
        """Return the command that fetches it; the gated ones want `hf auth login` first."""
        if self.file:
            return f"hf download {self.repo} {self.file} --local-dir {folder}"
        return f"hf download {self.repo} --local-dir {self.place(folder)}"


@cache
def _shape(relative: str, form: str | None) -> ModelShape:
    # Here, because `doctor` wants the names alone.
    from subcortex.models import catalogue
    from subcortex.models.quantisation import requantised
    from subcortex.vram.plan.forms import catalogued

    known = catalogue.named(relative)
    assert known is not None, f"{relative} is not in the catalogue"
    shape = catalogued(known)
    return shape if form is None else requantised(shape, form)


LLAMA_70B_BF16 = Model(
    "Llama 3.1 70B in bf16",
    "meta-llama/Llama-3.1-70B-Instruct",
    "meta-llama/Llama-3.1-70B-Instruct",
    min_capability=(8, 0),
)
LLAMA_70B_AWQ = Model(
    "Llama 3.1 70B in 4 bits (AWQ)",
    "hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4",
    "meta-llama/Llama-3.1-70B-Instruct",
    "awq",
)
LLAMA_8B_BF16 = Model(
    "Llama 3.1 8B in bf16",
    "meta-llama/Llama-3.1-8B-Instruct",
    "meta-llama/Llama-3.1-8B-Instruct",
    min_capability=(8, 0),
)
LLAMA_8B_AWQ = Model(
    "Llama 3.1 8B in 4 bits (AWQ)",
    "hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4",
    "meta-llama/Llama-3.1-8B-Instruct",
    "awq",
)
QWEN_32B = Model(
    "Qwen 2.5 32B, Q4_K_M",
    "bartowski/Qwen2.5-32B-Instruct-GGUF",
    "Qwen/Qwen2.5-32B-Instruct",
    "Q4_K_M",
    "Qwen2.5-32B-Instruct-Q4_K_M.gguf",
)
QWEN_14B = Model(
    "Qwen 2.5 14B, Q4_K_M",
    "bartowski/Qwen2.5-14B-Instruct-GGUF",
    "Qwen/Qwen2.5-14B-Instruct",
    "Q4_K_M",
    "Qwen2.5-14B-Instruct-Q4_K_M.gguf",
)
#: 14B in fewer bits: what an 8 GB and a 3 GB card hold together, and neither alone.
QWEN_14B_Q3 = Model(
    "Qwen 2.5 14B, Q3_K_M",
    "bartowski/Qwen2.5-14B-Instruct-GGUF",
    "Qwen/Qwen2.5-14B-Instruct",
    "Q3_K_M",
    "Qwen2.5-14B-Instruct-Q3_K_M.gguf",
)
LLAMA_8B = Model(
    "Llama 3.1 8B, Q4_K_M",
    "bartowski/Meta-Llama-3.1-8B-Instruct-GGUF",
    "meta-llama/Llama-3.1-8B-Instruct",
    "Q4_K_M",
    "Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf",
)
LLAMA_3B = Model(
    "Llama 3.2 3B, Q4_K_M",
    "bartowski/Llama-3.2-3B-Instruct-GGUF",
    "meta-llama/Llama-3.2-3B-Instruct",
    "Q4_K_M",
    "Llama-3.2-3B-Instruct-Q4_K_M.gguf",
)
LLAMA_1B = Model(
    "Llama 3.2 1B, Q4_K_M",
    "bartowski/Llama-3.2-1B-Instruct-GGUF",
    "meta-llama/Llama-3.2-1B-Instruct",
    "Q4_K_M",
    "Llama-3.2-1B-Instruct-Q4_K_M.gguf",
)
QWEN_HALF_B = Model(
    "Qwen 2.5 0.5B, Q8_0",
    "Qwen/Qwen2.5-0.5B-Instruct-GGUF",
    "Qwen/Qwen2.5-0.5B-Instruct",
    "Q8_0",
    "qwen2.5-0.5b-instruct-q8_0.gguf",
)

#: From most to least capable.
GGUF_LADDER = (QWEN_32B, QWEN_14B, QWEN_14B_Q3, LLAMA_8B, LLAMA_3B, LLAMA_1B, QWEN_HALF_B)

#: Every model that init may name.
ALL = (LLAMA_70B_BF16, LLAMA_70B_AWQ, LLAMA_8B_BF16, LLAMA_8B_AWQ, *GGUF_LADDER)


def model_at(place: str | Path) -> Model | None:
    """Return the model that init would have put at a path; None for a path of somebody else's."""
    name = Path(place).name
    return next((model for model in ALL if Path(model.place("x")).name == name), None)


def download_command(path: Path) -> str:
    """Return the command that fetches what should be at ``path``; a template where we do not know it."""
    known = model_at(path)
    if known is not None:
        return known.download(str(path.parent))
    if path.suffix == ".gguf":
        return f"hf download REPOSITORY {path.name} --local-dir {path.parent}"
    return f"hf download REPOSITORY --local-dir {path}"
