"""What a family makes of a config: the parts of each layer, and what stands beside the layers. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from subcortex.models._blocks import PLAIN, Block
from subcortex.models._config import MOST_LAYERS, MOST_ROWS, Config

Blocks = tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """A model, as its config says.

    Args:
        hidden: Width.
        vocabulary: Rows of the embedding.
        layers: The parts of each layer.
        tied: The head is the embedding.
        tables: Rotary tables: rows and elements of a row.
        table_bytes: Of an element of them.
        rotated: Elements of a head that are rotated, where no table says so.
        norm: Elements of the last norm.
        beside: What the first stage has beside the embedding (learned positions, further embeddings).
        everywhere: What all layers share.
        embedding_width: Width of the embedding, if not the model's.
        head_bias: The head has one.
        path: Where layers lie, for lists of modules.
        context: Tokens it was trained for.
        notes: What is not certain.
    """

    hidden: int
    vocabulary: int
    layers: tuple[Blocks, ...]
    tied: bool
    tables: tuple[tuple[int, int], ...] = ()
    table_bytes: int = PLAIN
    rotated: int = 0
    norm: int = 0
    beside: Blocks = ()
    everywhere: Blocks = ()
    embedding_width: int = 0
    head_bias: bool = False
    path: str = "model.layers"
    context: int = 0
    notes: tuple[str, ...] = ()


Family = Callable[[Config], Plan]


def layers_of(config: Config) -> int:
    """Return the number of layers."""
    return config.integer("num_hidden_layers", "n_layer", "num_layers", "n_layers", most=MOST_LAYERS)


def hidden_of(config: Config) -> int:
    """Return the model's width."""
    return config.integer("hidden_size", "n_embd", "d_model", "dim")


def vocabulary_of(config: Config) -> int:
    """Return the rows of the embedding."""
    return config.integer("vocab_size", "padded_vocab_size", most=MOST_ROWS)
