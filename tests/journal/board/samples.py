"""Notes of the shapes that agents write, with facts and figures of our own wording."""

from __future__ import annotations

SESSION = """# Session: LEARNING
**Date:** 2026-03-04 10:00
**Drive:** LEARNING (121%)
**Topic:** two cards, one model

## What I Already Know

**Sharing tensors:**
- Every card works on each layer
- What we want: 70B Q4 (~35-40GB) on 2x 24GB, which fits

**On the pair of RTX 3090s:**
- They don't have NVLink, or so the note says: 3090s don't have NVLink
- PCIe 4.0 x16 carries ~32GB/s each direction

## What I Need to Learn

1. **The slower road:** By how much is PCIe slower than NVLink for TP?
2. **Beyond weights:** What VRAM overhead does TP add
   on each card?
   - a thing to measure with two boots
3. **Side by side:** Can a 70B (TP=2) and a 7B (TP=1) be served simultaneously?
4. **Quantised and split:** What goes wrong with Q4 across GPUs?

## Plans

```bash
# the large one
vllm serve meta-llama/Llama-3.1-70B-Instruct-AWQ --tensor-parallel-size 2 --port 8000
```

**Open question:** Does an idle model keep its VRAM reserved?

## Depth

**Moderate** — read, not tried.
"""

TABLE = """# Which model

**Machine**: RTX 3060 Ti (8GB) + GTX 1060 (3GB) = 11GB VRAM, 16GB RAM

`llama-server --ctx-size 8192`

| Model | File (Q4_K_M) | MATH-500 | For |
|---|---:|---|---|
| **DeepSeek-R1-Distill-Qwen-14B** | ~9GB | **93.9%** | thinking |
| Llama 3.1 8B | ~7GB | ~70% | talk |

### On one card (RTX 3060 Ti 8GB alone):
- ✅ Llama 3.1 8B Q6_K (~7GB): fits
- ❌ Qwen 2.5 32B Q4_K_M (~20GB): OOM

## Checklist
- [ ] Test 1: load the 14B (9GB) on both
- [ ] Measure 20 tokens/s or more
"""

COLLECTIVES = """Sums:

```
GPU 0: [1, 2, 3, 4]
GPU 1: [5, 6, 7, 8]

After all_reduce(sum):
All GPUs: [6, 8, 10, 12]
```

And the parts:

```
GPU 0: [1, 2, 3, 4]
GPU 1: [5, 6, 7, 8]

After reduce_scatter(sum):
GPU 0: [6, 8]
GPU 1: [10, 13]
```
"""
