"""Conversations to packed rows of tokens, made by worker processes ahead of the training loop.

Needs numpy and tokenizers. Seeded: worker i of n makes the same rows in the same order every time.
"""

import multiprocessing as mp
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from testbed import dialogue
from testbed.tokenizer import END, render, token_id

ROW_TOKENS = 1024
_OPEN_ROWS = 32
_AT_ONCE = 512


@dataclass(slots=True)
class _Row:
    tokens: list[int] = field(default_factory=list)
    documents: list[int] = field(default_factory=list)
    scored: list[bool] = field(default_factory=list)
    count: int = 0


Rows = tuple[NDArray[np.int16], NDArray[np.uint8], NDArray[np.bool_]]


def encoded(tokenizer: Tokenizer, examples: list[dialogue.Example]) -> Iterator[tuple[list[int], list[bool]]]:
    """Token ids of each conversation, and which of them count in the loss (the reply and its end)."""
    end = token_id(tokenizer, END)
    prompts = tokenizer.encode_batch([render(e.turns) for e in examples])
    replies = tokenizer.encode_batch([e.reply for e in examples])
    for example, prompt, reply in zip(examples, prompts, replies, strict=True):
        begin, stop = example.given
        scored = [not begin <= start < stop for start, _ in reply.offsets]
        yield prompt.ids + reply.ids + [end], [False] * len(prompt.ids) + scored + [True]


def packed(tokenizer: Tokenizer, tier: dialogue.Tier, rows: int, seed: int) -> Iterator[Rows]:
    """Endless batches: tokens, number of the conversation (0 is padding), scored; each (rows, 1024)."""
    rng = random.Random(seed)
    open_rows: list[_Row] = []
    full: list[_Row] = []
    while True:
        for ids, scored in encoded(tokenizer, [dialogue.example(rng, tier) for _ in range(_AT_ONCE)]):
            if len(ids) > ROW_TOKENS:
                continue
            row = next((r for r in open_rows if len(r.tokens) + len(ids) <= ROW_TOKENS), None)
            if row is None:
                if len(open_rows) == _OPEN_ROWS:
                    fullest = max(open_rows, key=lambda r: len(r.tokens))
                    open_rows.remove(fullest)
                    full.append(fullest)
                row = _Row()
                open_rows.append(row)
            row.count += 1
            row.tokens += ids
            row.documents += [row.count] * len(ids)
            row.scored += scored
        while len(full) >= rows:
            yield _arrays(full[:rows])
            del full[:rows]


def _arrays(chosen: list[_Row]) -> Rows:
    shape = (len(chosen), ROW_TOKENS)
    tokens, documents = np.zeros(shape, np.int16), np.zeros(shape, np.uint8)
    scored = np.zeros(shape, np.bool_)
    for i, row in enumerate(chosen):
        size = len(row.tokens)
        tokens[i, :size], documents[i, :size], scored[i, :size] = row.tokens, row.documents, row.scored
    return tokens, documents, scored


def _work(queue: "mp.Queue[Rows]", path: str, tier: dialogue.Tier, rows: int, seed: int) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    for batch in packed(Tokenizer.from_file(path), tier, rows, seed):
        queue.put(batch)


def ahead(tokenizer_file: Path, tier: dialogue.Tier, rows: int, seed: int, workers: int) -> Iterator[Rows]:
    """The same as `packed`, from `workers` processes in turn; they end with this process."""
    context = mp.get_context("spawn")
    queues: list[Any] = [context.Queue(maxsize=8) for _ in range(workers)]
    for i, queue in enumerate(queues):
        arguments = (queue, str(tokenizer_file), tier, rows, seed * 1000 + i)
        context.Process(target=_work, args=arguments, daemon=True).start()
    while True:
        for queue in queues:
            yield queue.get()
