"""What a figure is of, found by name: models, forms of weights, cards, links, programs. Pure.

A model's name is brought to one spelling (``Llama 3.1 8B`` and ``meta-llama/Llama-3.1-8B-Instruct`` are both
``llama-3.1-8b``), so that what is found out of one can decide what was said of it elsewhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Kind = Literal["model", "size", "form", "card", "link", "program"]

_FAMILIES = (
    "llama|qwen|qwq|deepseek|mistral|mixtral|ministral|codestral|gemma|phi|yi|falcon|command-r|granite|"
    "olmo|olmoe|starcoder|nemotron|nemo|gpt|smollm|internlm|glm|kimi|jamba|bamba|zamba|lfm|minicpm|"
    "tinyllama|vicuna|codellama|opt|pythia|bloom|moonlight|hermes|solar|aya|exaone|ernie|seed|dolphin"
)
#: A family, and within a few words of it a size: bounded, so that no line is read twice.
_MODEL = re.compile(
    rf"(?<![a-z0-9])(?:{_FAMILIES})(?:[-_ ]?(?>[a-z]{{1,12}}|[0-9.]{{1,6}})){{0,7}}?[-_ ]?"
    r"[0-9]{1,4}(?:\.[0-9]{1,3})?[bm](?![a-z0-9])(?:-a[0-9]{1,3}b(?![a-z0-9]))?",
    re.IGNORECASE,
)
_SIZE = re.compile(r"(?<![\w.\-])[0-9]{1,4}(?:\.[0-9]{1,3})?B(?![A-Za-z0-9])")
#: What makes of a bare size a number of parameters that is said, not a name.
_SAID = re.compile(r"[ \t]?(?:[×x*]|param|weights?\b)", re.IGNORECASE)
#: Words that no model has in its name: what stands between a family and a size is a sentence.
_SPOKEN = re.compile(
    r"[-_ ](?:for|at|on|in|with|of|and|or|is|to|the|a|an|needs|takes|as|from|like|than|vs|can|has|was|are|by)"
    r"[-_ ]",
    re.IGNORECASE,
)
_FORM = re.compile(
    r"(?<![A-Za-z0-9])(?:I?Q[1-8](?:_[0-9KA-Z]{1,3}){1,2}|I?Q[1-8](?!:)|"
    r"(?:fp|bf|b?fp|int|w)(?:32|16|8|4)(?:a(?:16|8))?|"
    r"AWQ|GPTQ|NVFP4|MXFP4)(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_CARD = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:RTX|GTX|Quadro RTX|TITAN)[ -]?(?:PRO )?[A-Z]?[0-9]{3,4}"
    r"(?:[ -](?:Ti|Super|Ada|D))?(?:[ -]Super)?s?|"
    r"(?:Tesla )?(?:A100|A10|A30|A40|A800|H100|H200|H20|H800|B100|B200|L4|L40S?|V100|P100|P40|T4|"
    r"GH200|GB200|MI[0-9]{3}X?)s?|[2-5]0[5-9]0(?:[ -]?Ti)?(?:[ -]Super)?s?)(?![A-Za-z0-9])"
    r"(?:[ -](?:PCIe|SXM[0-9]?|NVL))?(?:[ -][0-9]{1,3}[ ]?Gi?B(?![A-Za-z/]))?",
    re.IGNORECASE,
)
_LINK = re.compile(
    r"(?<![A-Za-z0-9])(?:PCI-?e(?:xpress)?[ ]?(?:gen[ ]?)?(?:[1-6](?:\.0)?(?![0-9A-Za-z.]))?"
    r"(?:[ ]?[x×](?:16|8|4|1)(?![0-9]))?"
    r"|NVLink(?:[ ]?[1-5](?:\.0)?(?![0-9A-Za-z.]))?|NVSwitch|InfiniBand|RoCE|Ethernet)(?![A-Za-z0-9_])",
    re.IGNORECASE,
)
_PROGRAM = re.compile(
    r"(?<![A-Za-z0-9])(?:vLLM|llama\.cpp|SGLang|TensorRT-LLM|PagedAttention|FlashAttention-?[23]?|"
    r"NCCL|Ollama|PyTorch|Transformers|ExLlama(?:V2)?|TGI)(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_PATTERNS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("model", _MODEL), ("card", _CARD), ("link", _LINK), ("program", _PROGRAM), ("form", _FORM),
    ("size", _SIZE),
)  # fmt: skip
#: A line without any of this has no name in it; most have none.
_WORTH = re.compile(
    r"[0-9]|nvlink|pci|nccl|vllm|llama|awq|gptq|sglang|tensorrt|attention|ollama|pytorch|infiniband|nvswitch|"
    r"roce|ethernet|transformers|exllama|tgi",
    re.IGNORECASE,
)
#: No line is looked at any further: names stand early, and hostile lines are long.
MOST_CHARACTERS = 4000

_TOKENS = re.compile(r"[0-9]+(?:\.[0-9]+)?b(?![a-z0-9])|[arv][0-9]+b?(?![a-z0-9])|[0-9]+(?:\.[0-9]+)?|[a-z]+")
_NOISE = frozenset(
    ("instruct", "chat", "it", "hf", "gguf", "gptq", "awq", "abliterated", "uncensored", "base", "preview",
     "meta", "ai", "and", "model", "bit", "bits")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Name:
    """A name in a line.

    Args:
        kind: What it names; ``size`` is a model known by its size alone (``70B``).
        text: As written.
        name: In the one spelling.
        at, end: Where it stands.
    """

    kind: Kind
    text: str
    name: str
    at: int
    end: int


def names_in(line: str) -> tuple[Name, ...]:
    """Return the names in a line, in order; of two that share characters the one of the earlier kind."""
    return _names_in(line[:MOST_CHARACTERS])


# Leads and headings are asked for at every line below them.
@lru_cache(maxsize=4096)
def _names_in(line: str) -> tuple[Name, ...]:
    if not _WORTH.search(line):
        return ()
    found: list[Name] = []
    taken: list[tuple[int, int]] = []
    for kind, pattern in _PATTERNS:
        for match in pattern.finditer(line):
            start, end = match.span()
            if any(start < other and at < end for at, other in taken):
                continue
            if kind == "model" and _SPOKEN.search(match[0]):
                continue
            if kind == "size" and _SAID.match(line, end):
                continue
            taken.append((start, end))
            found.append(Name(kind, match[0], one_spelling(kind, match[0]), start, end))
    return tuple(sorted(found, key=lambda name: name.at))


def one_spelling(kind: Kind, text: str) -> str:
    """Return a name in the one spelling of its kind."""
    if kind in ("model", "size"):
        return model_name(text)
    if kind == "card":
        return re.sub(r"[ -]+", " ", re.sub(r"(?<=[0-9])s(?![a-z])", "", text)).strip()
    if kind == "form":
        return text.upper().replace("BP16", "BF16").replace("BFP16", "BF16")
    if kind == "link":
        return _link_name(text)
    return text


def model_name(text: str) -> str:
    """Return a model's name in lower case, parted by hyphens, without owner and words like ``instruct``."""
    tokens = [one for one in _TOKENS.findall(text.rsplit("/", 1)[-1].lower()) if one not in _NOISE]
    return "-".join(tokens)


def _link_name(text: str) -> str:
    low = text.lower()
    if not low.startswith("pci"):
        return re.sub(r"\.0$", "", text)
    generation = re.search(r"([1-6])(?:\.0)?(?![0-9])", re.sub(r"[x×](?:16|8|4|1)$", "", low))
    lanes = re.search(r"[x×](16|8|4|1)$", low)
    return f"PCIe{f' {generation[1]}.0' if generation else ''}{f' x{lanes[1]}' if lanes else ''}"
