"""What to run next: the drop in entropy × what the answer is worth, for a GPU-minute. Pure."""

from subcortex.experiments.choice.ordering import Choice, order
from subcortex.experiments.choice.priors import (
    Belief,
    Surprise,
    believed,
    bits_expected,
    guessed,
    learned,
    surprise,
)
from subcortex.experiments.choice.scores import (
    NOISES,
    Question,
    Score,
    score,
    score_together,
    worth_across,
)

__all__ = [
    "NOISES",
    "Belief",
    "Choice",
    "Question",
    "Score",
    "Surprise",
    "believed",
    "bits_expected",
    "guessed",
    "learned",
    "order",
    "score",
    "score_together",
    "surprise",
    "worth_across",
]
