"""Train one of the two models on generated conversations, on one GPU or a CPU.

    python -m testbed.train deep --minutes 7 --tokenizer testbed/models/deep/tokenizer.json --out OUT

Needs torch, numpy, tokenizers and safetensors. Writes the weights in bf16 (in pieces under 12 MiB),
and train.json with the settings, the hardware, the loss and a first accuracy table.
"""

import argparse
import json
import random
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from testbed import tasks
from testbed.model import SHAPES, Llama
from testbed.packing import ROW_TOKENS, ahead
from testbed.tokenizer import END, render, token_id

_PIECE_BYTES = 12 * 2**20
_RATES = {"fast": 3e-3, "deep": 1.5e-3}


def learning_rate(progress: float, peak: float) -> float:
    """A short linear rise, a plateau, and from 30 % of the run on a linear fall to zero."""
    if progress < 0.02:
        return peak * max(progress, 1e-3) / 0.02
    return peak * min(1.0, max(0.0, (1.0 - progress) / 0.7))


def _groups(model: Llama) -> list[dict[str, Any]]:
    matrices = [w for n, w in model.named_parameters() if w.dim() == 2 and "embed" not in n]
    others = [w for n, w in model.named_parameters() if w.dim() != 2 or "embed" in n]
    return [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]


def _on_device(batch: Any, device: str) -> tuple[Tensor, Tensor, Tensor]:
    tokens, documents, scored = (torch.from_numpy(part) for part in batch)
    tokens = tokens.to(device, non_blocking=True).long()
    documents, scored = documents.to(device, non_blocking=True), scored.to(device, non_blocking=True)
    targets = torch.full_like(tokens, -100)
    targets[:, :-1] = torch.where(scored[:, 1:], tokens[:, 1:], -100)
    return tokens, documents, targets


@torch.no_grad()
def answers(
    model: Llama, tokenizer: Tokenizer, items: list[tasks.Item], device: str, limit: int = 480
) -> list[str]:
    """Greedy replies to items, all at once and without a cache: enough to see how training went."""
    end = token_id(tokenizer, END)
    turns = [(("system", i.system), ("user", i.prompt)) if i.system else (("user", i.prompt),) for i in items]
    prompts = [tokenizer.encode(render(t)).ids for t in turns]
    starts = torch.tensor([len(p) for p in prompts], device=device)
    room = torch.zeros(len(items), int(starts.max()) + limit, dtype=torch.long, device=device)
    for i, prompt in enumerate(prompts):
        room[i, : len(prompt)] = torch.tensor(prompt, device=device)
    lengths, rows = starts.clone(), torch.arange(len(items), device=device)
    done = torch.zeros(len(items), dtype=torch.bool, device=device)
    for step in range(limit):
        view = room[:, : int(lengths.max())]
        logits = model(view, torch.ones_like(view))
        chosen = logits[rows, lengths - 1].argmax(-1)
        done |= chosen == end
        room[rows, lengths] = torch.where(done, 0, chosen)
        lengths = torch.where(done, lengths, lengths + 1)
        if step % 16 == 0 and bool(done.all()):
            break
    return [
        tokenizer.decode(room[i, int(starts[i]) : int(lengths[i])].tolist(), skip_special_tokens=False)
        for i in range(len(items))
    ]


def accuracy(model: Llama, tokenizer: Tokenizer, device: str, each: int) -> dict[str, float]:
    """The share of held-out items answered rightly, by level and by level and kind."""
    rng = random.Random("first look")
    right: dict[str, list[bool]] = defaultdict(list)
    for level in tasks.LEVELS:
        items = [tasks.item(level, rng, kind) for kind in tasks.KINDS for _ in range(each)]
        for item, said in zip(items, answers(model, tokenizer, items, device), strict=True):
            correct = tasks.check(item, said)
            right[f"{level}"].append(correct)
            right[f"{level} {item.kind}"].append(correct)
            if not correct and len(right[f"{level} {item.kind}"]) < each // 4:
                print("wrong:", repr(item.prompt), "->", repr(said)[-160:], "not", item.answer, flush=True)
    return {key: round(sum(found) / len(found), 4) for key, found in sorted(right.items())}


def save(model: Llama, folder: Path) -> None:
    """Write the weights in bf16 under their Hugging Face names, in pieces weights-N.safetensors."""
    piece: dict[str, Tensor] = {}
    number = 1
    for name, weight in model.state_dict().items():
        piece[name] = weight.detach().to("cpu", torch.bfloat16).contiguous()
        if sum(w.numel() * 2 for w in piece.values()) > _PIECE_BYTES - 2**21:
            save_file(piece, folder / f"weights-{number}.safetensors")
            piece, number = {}, number + 1
    if piece:
        save_file(piece, folder / f"weights-{number}.safetensors")


def main() -> None:
    """Train, look once at the accuracy, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tier", choices=list(SHAPES))
    parser.add_argument("--minutes", type=float, default=7.0)
    parser.add_argument("--rows", type=int, default=64, help="rows of 1024 tokens a step")
    parser.add_argument("--workers", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, help="peak learning rate")
    parser.add_argument("--start", type=Path, help="folder of weights-*.safetensors to go on from")
    parser.add_argument("--items", type=int, default=32, help="items a level and kind in the first look")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("high")
    model = Llama(SHAPES[options.tier]).to(device)
    for file in sorted(options.start.glob("weights-*.safetensors")) if options.start else ():
        model.load_state_dict(load_file(file), strict=False)
    model.activations = torch.bfloat16
    peak = options.rate or _RATES[options.tier]
    optimiser = torch.optim.AdamW(_groups(model), lr=peak, betas=(0.9, 0.95), fused=device == "cuda")
    run = torch.compile(model) if device == "cuda" else model
    batches = ahead(options.tokenizer, options.tier, options.rows, options.seed, options.workers)
    step, begun, rate, losses = 0, time.monotonic(), 0.0, []
    while True:
        tokens, documents, targets = _on_device(next(batches), device)
        if step == 3:
            begun = time.monotonic()  # what compiling took is not training
        progress = (time.monotonic() - begun) / (options.minutes * 60) if step > 3 else 0.0
        if progress >= 1:
            break
        rate = learning_rate(progress, peak)
        for group in optimiser.param_groups:
            group["lr"] = rate
        with torch.autocast(device, torch.bfloat16):
            logits = run(tokens, documents)
        loss = functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=-100)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if step % 200 == 0:
            losses.append([step, round(loss.item(), 4)])
            print(
                f"step {step} loss {losses[-1][1]} rate {rate:.2e} {time.monotonic() - begun:.0f} s",
                flush=True,
            )
        step += 1
    seconds = time.monotonic() - begun
    save(model, options.out)
    with torch.autocast(device, torch.bfloat16):
        found = accuracy(model, Tokenizer.from_file(str(options.tokenizer)), device, options.items)
    report = {
        "tier": options.tier,
        "parameters": sum(w.numel() for w in model.parameters()),
        "seed": options.seed,
        "minutes": options.minutes,
        "rows": options.rows,
        "peak_rate": peak,
        "steps": step,
        "tokens": step * options.rows * ROW_TOKENS,
        "seconds": round(seconds, 1),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "continued": options.start is not None,
        "losses": losses,
        "first_look": found,
    }
    (options.out / "train.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({k: v for k, v in report.items() if k != "losses"}))


if __name__ == "__main__":
    main()
