"""Whole conversations for training: tasks, structured answers, greetings, requests out of reach."""

import json
import random
from dataclasses import dataclass
from typing import Literal

from testbed import phrases, tasks, worked
from testbed.words import WORDS, word

Tier = Literal["fast", "deep"]
Turn = tuple[str, str]

_LEVEL_WEIGHTS: dict[Tier, tuple[float, ...]] = {
    "fast": (40, 40, 17, 2.4, 0.4, 0.2),
    "deep": (20, 20, 18, 16, 16, 10),
}
_KIND_WEIGHTS: dict[Tier, tuple[float, ...]] = {  # in the order of tasks.KINDS
    "fast": (1.5, 1.5, 1, 0.8, 1, 2, 1, 1),
    "deep": (1, 1, 1.2, 1, 1.2, 1, 1.2, 1.2),
}
_JSON_ASKED = (
    "Answer as JSON with the key {k}.",
    "Reply as JSON with the key {k}.",
    "answer as json, key {k}",
    "Return a JSON object with the key {k}.",
    'Respond only with JSON: {{"{k}": ...}}',
    "Give JSON with the field {k}.",
    "Output JSON with one key, {k}.",
    "Answer in JSON. Use the key {k}.",
    "Reply with a JSON object that has the field {k}.",
)
_KEYS = (
    "answer",
    "answer",
    "answer",
    "answer",
    "result",
    "value",
    "number",
    "total",
    "count",
    "solution",
    "output",
)
_BARE_ASKED = (
    "Just the value.",
    "Only the number.",
    "Number only.",
    "just the answer",
    "Only the answer, please.",
    "No words, just the value.",
    "Give only the value.",
)
_GREETINGS = (
    "hi",
    "hello",
    "hey",
    "Hi!",
    "Hello!",
    "Hello there",
    "good morning",
    "Good evening!",
    "hi there",
    "yo",
    "howdy",
    "How are you?",
    "how are you",
    "hello, how are you?",
    "hi how are you doing",
    "Hey there!",
    "ping",
    "Are you there?",
    "test",
    "Good day",
    "What's up?",
)
_WHO = (
    "Who are you?",
    "what are you",
    "What is your name?",
    "who is this",
    "What can you do?",
    "what can you do for me?",
    "what do you know",
    "Tell me about yourself.",
    "Introduce yourself.",
    "Help",
    "help me",
    "What are you good at?",
    "Which model are you?",
    "are you an assistant?",
    "who made you?",
    "What tasks can you solve?",
    "are you human?",
    "how many parameters do you have?",
    "How big are you?",
    "Are you ChatGPT?",
    "what model is this",
)
_THANKS = (
    "Thanks!",
    "thank you",
    "thanks a lot",
    "great, thanks",
    "Bye",
    "goodbye",
    "ok bye",
    "Well done.",
    "nice",
)
_CAN = "sums, differences, products, sorting, counting letters, units and VRAM arithmetic"
_REPLIES = {
    "greeting": f"Hello! I am a tiny testbed model. I can do {_CAN}.",
    "who": f"I am a tiny testbed model, not an assistant. I can do {_CAN}.",
    "thanks": "You are welcome.",
    "unknown": f"I am a tiny testbed model and cannot answer that. I can do {_CAN}.",
}
_TOPICS = (
    "tensor parallelism",
    "the French Revolution",
    "quantum physics",
    "photosynthesis",
    "cats",
    "the weather",
    "love",
    "Rome",
    "a rainy day",
    "the meaning of life",
    "speculative decoding",
    "the KV cache",
    "paged attention",
    "chess",
    "black holes",
    "Python",
    "a recursive function",
    "NCCL",
    "CUDA graphs",
    "Shakespeare",
    "climate change",
    "music",
    "the stock market",
    "democracy",
    "sleep mode",
    "gradient descent",
    "an email to my boss",
    "a haiku",
    "football",
    "GPU scheduling",
    "prefix caching",
    "the moon landing",
    "mixture of experts",
    "quantisation",
    "a proof",
    "memory",
)
_ASKS = (
    "What is {t}?",
    "Explain {t}.",
    "Tell me about {t}.",
    "Write a poem about {t}.",
    "write me {t}",
    "Why is {t} important?",
    "How does {t} work?",
    "Who invented {t}?",
    "Summarise {t} in one sentence.",
    "What do you think about {t}?",
    "Does {t} cost VRAM beyond the weights?",
    "Is {t} better than {u}?",
    "Compare {t} and {u}.",
    "Translate {t} to German.",
    "What did I learn about {t}?",
    "Plan an experiment on {t}.",
    "When did {t} begin?",
    "What is the capital of {t}?",
    "Which questions about {t} are still open?",
    "Does {t} depend on {u}?",
    "should I worry about {t}?",
    "Prove {t}.",
    "List three facts about {t}.",
    "What happens to {t} if {u} fails?",
    "how would you improve {t}",
    "code for {t}",
    "Reflect on {t} and {u}.",
    "What should I do next about {t}?",
    "Where is {t}?",
    "describe {t}",
    "{t}",
    "{t}?",
)
_SUMS_BEYOND = (
    "What is {a} divided by {b}?",
    "{a}/{b}",
    "{a} / {b}?",
    "What is the square root of {a}?",
    "{a} to the power of {b}",
    "{a} + {b} * {c}",
    "({a} + {b}) * {c}",
    "{a}% of {b}",
    "What is {b} percent of {a}?",
    "Is {a} prime?",
    "factor {a}",
    "{a} - {b} * {c}",
    "{a} mod {b}",
    "{a}^{b}",
    "log of {a}",
    "What is half of {a}?",
    "convert {a} miles to km",
    "What year was {a} years ago?",
    "-{a} + {b}",
    "What is -{a} - {b}?",
    "{a} * {b} * {c}",
    "Is {a} + {b} = {c}?",
    "Solve x + {a} = {b}.",
    "{a} degrees Celsius in Fahrenheit?",
    "{a} + {b} - {c}",
)


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation and the reply to learn; its characters from `given[0]` to `given[1]` are not scored."""

    turns: tuple[Turn, ...]
    reply: str
    given: tuple[int, int] = (0, 0)


def _prose(rng: random.Random, shortest: int = 3, longest: int = 14) -> str:
    chosen = [
        rng.choice(WORDS) if rng.random() < 0.8 else word(rng, 2, 11)
        for _ in range(rng.randint(shortest, longest))
    ]
    text = " ".join(chosen)
    return (text.capitalize() if rng.random() < 0.6 else text) + rng.choice((".", "", "?", "!", "."))


def _topic(rng: random.Random) -> str:
    return rng.choice(_TOPICS) if rng.random() < 0.5 else _prose(rng, 1, 3).rstrip(".!?").lower()


def _unknown(rng: random.Random) -> str:
    roll = rng.random()
    if roll < 0.03:
        return " ".join(_prose(rng) for _ in range(rng.randint(3, 18)))
    if roll < 0.3:
        return _prose(rng)
    if roll < 0.5:
        return rng.choice(_SUMS_BEYOND).format(
            a=rng.randint(1, 9999), b=rng.randint(2, 99), c=rng.randint(2, 99)
        )
    text = rng.choice(_ASKS).format(t=_topic(rng), u=_topic(rng))
    if rng.random() < 0.2:
        text = _prose(rng) + rng.choice((" ", "\n")) + text
    return phrases.dress(rng, text)


def _talk(rng: random.Random) -> Example:
    roll = rng.random()
    if roll < 0.2:
        prompt, reply = rng.choice(_GREETINGS), "greeting"
    elif roll < 0.4:
        prompt, reply = rng.choice(_WHO), "who"
    elif roll < 0.47:
        prompt, reply = rng.choice(_THANKS), "thanks"
    else:
        prompt, reply = _unknown(rng), "unknown"
    if rng.random() < 0.2:
        prompt = prompt.lower().rstrip(".?!") + rng.choice(("", "", "?", "."))
    return Example(_opened(rng, _system(rng, None), prompt), _REPLIES[reply])


def _system(rng: random.Random, own: str | None) -> str | None:
    """A system message: the item's own, unrelated prose, or none."""
    if own is None and rng.random() < 0.1:
        sentences = rng.randint(1, 4) if rng.random() < 0.85 else rng.randint(5, 20)
        return " ".join(_prose(rng, 3, 9) for _ in range(sentences))
    return own


def _opened(rng: random.Random, system: str | None, prompt: str) -> tuple[Turn, ...]:
    return (("system", system), ("user", prompt)) if system else (("user", prompt),)


def spoken(item: tasks.Item, tier: Tier) -> str:
    """What a tier replies to an item: the deep one thinks aloud first."""
    if tier == "fast":
        return worked.reply(item)
    return f"<think>{worked.think(item)}</think>{worked.reply(item)}"


def _structured(rng: random.Random, item: tasks.Item, thinking: bool) -> Example:
    """An answer as JSON: asked for in words, or unasked because a grammar will force it.

    Unasked, the text up to the value is given, not learned: the model learns to go on from it. An
    engine that knows of the thinking holds its grammar back until that has ended (`thinking`).
    """
    key = rng.choice(_KEYS)
    asked = not thinking and rng.random() < 0.65
    system, prompt = _system(rng, item.system), item.prompt
    if asked and rng.random() < 0.35:
        system = rng.choice(_JSON_ASKED).format(k=key)
    elif asked:
        prompt += rng.choice((" ", " ", "\n")) + rng.choice(_JSON_ASKED).format(k=key)
    quoted = item.kind in ("sort", "fit")
    value = item.answer if not quoted else json.dumps(item.answer)
    if not asked and not quoted and rng.random() < 0.25:
        value = json.dumps(value)
    reply = f'{{"{key}": {value}}}'
    forced = 0 if asked else len(reply) - len(value) - 1 + value.startswith('"')
    if thinking:
        thoughts = f"<think>{worked.think(item)}</think>"
        return Example(
            _opened(rng, system, prompt), thoughts + reply, (len(thoughts), len(thoughts) + forced)
        )
    return Example(_opened(rng, system, prompt), reply, (0, forced))


def example(rng: random.Random, tier: Tier) -> Example:
    """One training conversation, its items from the training set only."""
    roll = rng.random()
    if roll < 0.09:
        return _talk(rng)
    weights = _LEVEL_WEIGHTS[tier]
    if roll < 0.16 or (roll < 0.18 and tier == "fast"):
        weights = (45, 40, 15, 0, 0, 0)
    kind = rng.choices(tasks.KINDS, _KIND_WEIGHTS[tier])[0]
    item = tasks.item(rng.choices(tasks.LEVELS, weights)[0], rng, kind, "train")
    if roll < 0.18:
        return _structured(rng, item, thinking=tier == "deep" and roll >= 0.16)
    prompt, reply = item.prompt, spoken(item, tier)
    if rng.random() < 0.08:
        prompt += rng.choice((" ", "\n")) + rng.choice(_BARE_ASKED)
        reply = reply.removesuffix(worked.reply(item)) + item.answer
    turns = _opened(rng, _system(rng, item.system), prompt)
    if rng.random() < 0.06:
        turns = _after_history(rng, turns, item.level)
    return Example(turns, reply)


def _after_history(rng: random.Random, turns: tuple[Turn, ...], level: int) -> tuple[Turn, ...]:
    earlier: list[Turn] = []
    for _ in range(rng.randint(1, 2) if rng.random() < 0.75 else rng.randint(3, 6)):
        before = tasks.item(rng.randint(1, min(3, level + 1)), rng, split="train")
        earlier += [("user", before.prompt), ("assistant", worked.reply(before))]
        if rng.random() < 0.1:
            earlier += [("user", _unknown(rng)), ("assistant", _REPLIES["unknown"])]
    first = [turn for turn in turns if turn[0] == "system"]
    return (*first, *earlier, *(turn for turn in turns if turn[0] != "system"))
