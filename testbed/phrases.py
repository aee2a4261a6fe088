"""How a person might put each kind of task: wordings, preambles, short system messages."""

import random

SUM = (
    "What is {s}?",
    "what's {s}?",
    "whats {s}",
    "{s}",
    "{s}=",
    "{s} = ?",
    "Calculate {s}.",
    "compute {s}",
    "How much is {s}?",
    "Add {l}.",
    "Add up {l}.",
    "What is the sum of {l}?",
    "sum of {l}?",
    "Sum {l}.",
    "Tell me {s}.",
    "What do you get when you add {l}?",
    "What does {s} make?",
    "Work out {s}.",
    "Could you add {l}?",
    "What is {l} added together?",
    "{s} equals?",
    "How much does {s} come to?",
    "Please compute {s}.",
    "Find the sum of {l}.",
    "I need {s}.",
    "solve {s}",
    "Can you add {l} for me?",
    "give me the total of {l}",
    "Total of {l}?",
    "What is the total of {l}?",
)
DIFFERENCE = (
    "What is {s}?",
    "what's {s}?",
    "whats {s}",
    "{s}",
    "{s}=",
    "{s} = ?",
    "Calculate {s}.",
    "compute {s}",
    "How much is {s}?",
    "Subtract {b} from {a}.",
    "Take {b} away from {a}.",
    "What is {a} less {b}?",
    "What is the difference {s}?",
    "{a} take away {b}?",
    "Tell me {s}.",
    "Work out {s}.",
    "{s} equals?",
    "If I have {a} and give away {b}, how many are left?",
    "What remains of {a} after taking {b}?",
    "Please compute {s}.",
    "What do you get when you subtract {b} from {a}?",
    "I need {s}.",
    "solve {s}",
)
PRODUCT = (
    "What is {s}?",
    "what's {s}?",
    "whats {s}",
    "{s}",
    "{s}=",
    "{s} = ?",
    "Calculate {s}.",
    "compute {s}",
    "How much is {s}?",
    "Multiply {a} by {b}.",
    "Multiply {a} and {b}.",
    "What is the product of {a} and {b}?",
    "product of {a} and {b}",
    "Tell me {s}.",
    "Work out {s}.",
    "{a} multiplied by {b}?",
    "{s} equals?",
    "What do you get when you multiply {a} by {b}?",
    "Please compute {s}.",
    "How much does {s} come to?",
    "There are {a} boxes with {b} pens each. How many pens?",
    "I need {s}.",
    "solve {s}",
)
COMPARE = (
    "Which is {w}, {o}?",
    "Which is {w}: {o}?",
    "which number is {w}, {o}?",
    "Which of {l} is {w}?",
    "What is the {e} of {l}?",
    "Find the {e} of {l}.",
    "Which one is the {e}: {l}?",
    "Pick the {e} number: {l}.",
    "{e} of {l}?",
    "What's the {e} number in {l}?",
    "Of {l}, which is the {e}?",
    "Tell me the {e} of {l}.",
    "which is {w} {o}",
    "Name the {e}: {l}.",
    "Is {o} {w}?",
    "What number is the {e} among {l}?",
)
RANGE = (
    "What is the largest minus the smallest of {l}?",
    "Subtract the smallest from the largest: {l}.",
    "What is the difference between the largest and the smallest of {l}?",
    "How far apart are the extremes of {l}?",
    "What is the range of {l}?",
    "range of {l}",
    "Find the spread between the biggest and smallest of {l}.",
)
SORT = (
    "Sort {l}{d}.",
    "Sort these numbers{d}: {l}.",
    "Order {l}{d}.",
    "Put {l} in order{d}.",
    "sort{d}: {l}",
    "Arrange {l}{d}.",
    "Can you sort {l}{d}?",
    "List {l}{d}.",
    "Please put these in order{d}: {l}.",
    "What is {l} sorted{d}?",
    "sort the list {l}{d}",
)
ASCENDING = (
    "",
    "",
    " in ascending order",
    " from smallest to largest",
    " from low to high",
    ", smallest first",
    " ascending",
    " in increasing order",
)
DESCENDING = (
    " in descending order",
    " from largest to smallest",
    " from high to low",
    ", largest first",
    " descending",
    " in decreasing order",
)
LETTERS = (
    "How many {c} are in {w}?",
    "How many times does {c} appear in {w}?",
    "How many {c}'s are in {w}?",
    "how many {c} in {w}",
    "How often does the letter {c} occur in {w}?",
    "Count the letter {c} in {w}.",
    "Count the {c}s in {w}.",
    "How many letters {c} does {w} have?",
    "How many {c}s are there in {w}?",
    "In {w}, how many times is the letter {c} used?",
    "What is the number of {c}s in {w}?",
    "{c}s in {w}?",
    "How many of the letter {c} are in {w}?",
    "tell me how many {c} there are in {w}",
)
UNITS = (
    "How many {t} are in {n} {f}?",
    "How many {t} is {n} {f}?",
    "Convert {n} {f} to {t}.",
    "{n} {f} in {t}?",
    "What is {n} {f} in {t}?",
    "{n} {f} to {t}",
    "Express {n} {f} in {t}.",
    "how many {t} in {n} {f}",
    "I have {n} {f}; how many {t} is that?",
    "{n} {f} = ? {t}",
    "How much is {n} {f} in {t}?",
    "Turn {n} {f} into {t}.",
    "{n} {f} are how many {t}?",
)
WEIGHTS = (
    "How much memory do the weights of {p} at {b} take?",
    "weights of {p} at {b}?",
    "Weights of {p} at {b}",
    "How many GB are the weights of a {p} model at {b}?",
    "What do {p} parameters at {b} need in GB?",
    "How big is a {p} model at {b}?",
    "Size in GB of {p} at {b}?",
    "How much VRAM for the weights of {p} in {b}?",
    "{p} model, {b}: how many GB of weights?",
    "how many gb for {p} at {b}",
    "vram for {p} weights at {b}",
    "How many GB does a {p} model take at {b}?",
    "What is the weight size of {p} at {b}?",
    "How much memory does a {p} model need at {b}?",
    "{p} model at {b} how many GB?",
    "{p} at {b}?",
    "{p} {b} size in GB",
    "how many GB for a {p} model at {b}",
    "{p} in {b}, how much VRAM?",
    "What do the weights of {p} weigh at {b}?",
)
FIT = (
    "Do the weights of a {p} model at {b} fit in {g} GB?",
    "Does {p} at {b} fit in {g} GB?",
    "Will a {p} model at {b} fit on a {g} GB card?",
    "Can a {g} GB card hold the weights of {p} at {b}?",
    "does a {p} model fit in {g} GB at {b}",
    "Is {g} GB enough for the weights of {p} at {b}?",
    "I have {g} GB of VRAM. Do the weights of {p} at {b} fit?",
    "will {p} at {b} fit in {g}gb",
)
KV_TOKEN = (
    "How many {u} of KV cache does a token take with {m}?",
    "KV cache per token in {u} for {m}?",
    "What is the KV cache a token in {u}: {m}?",
    "kv per token, {m}, in {u}",
    "A model has {m}. How many {u} of KV cache does one token need?",
    "With {m}, what does the KV cache of one token take in {u}?",
)
KV_MANY = (
    "How many {u} of KV cache do {t} take with {m}?",
    "KV cache in {u} for {t}, {m}?",
    "What is the KV cache of {t} in {u}: {m}?",
    "kv cache of {t}, {m}, in {u}",
    "A model has {m}. How many {u} of KV cache do {t} need?",
    "With {m}, how large is the KV cache of {t} in {u}?",
)
SYSTEM = (
    "You are a helpful assistant.",
    "Answer briefly.",
    "Be concise.",
    "You are a careful calculator.",
    "You answer questions about numbers.",
    "You are the subcortex of an agent. Answer the thought.",
    "Answer the question. No chatter.",
    "You are a fast local model.",
    "You are a deep local model.",
    "Think first, then answer.",
    "Be precise.",
    "You help an agent with its arithmetic.",
    "Drive: LEARNING.",
    "Drive: CURIOSITY. Answer the thought that follows.",
    "Drive: SAFETY.",
    "You are an AI assistant.",
)
BEFORE = (
    "Hi, ",
    "Hello! ",
    "Please: ",
    "Quick question: ",
    "Hey, ",
    "Could you help me? ",
    "Good morning. ",
    "I was wondering: ",
    "One more: ",
    "Please tell me: ",
    "Question: ",
    "ok, ",
    "So, ",
    "Dear model, ",
    "Q: ",
)
AFTER = (
    " Thanks!",
    " Thank you.",
    " Please.",
    " thanks",
    " please",
    " I need it quickly.",
    " Think carefully.",
)


def _other_case(rng: random.Random, text: str) -> str:
    roll = rng.random()
    if roll < 0.25:
        return text.lower()
    if roll < 0.28:
        return text.upper()
    if roll < 0.40:
        return text[:1].upper() + text[1:]
    return text


def dress(rng: random.Random, text: str, keep_case: bool = False) -> str:
    """`text` as different people would type it: other capitals, punctuation, spaces, politeness.

    `keep_case` holds the capitals, for prompts in which GB and Gb would not mean the same.
    """
    if not keep_case:
        text = _other_case(rng, text)
    if rng.random() < 0.3 and text[-1] in ".?":
        text = text[:-1]
    elif rng.random() < 0.04 and text[-1] == "?":
        text = text[:-1] + rng.choice((" ?", "??", "?!", "."))
    if rng.random() < 0.15:
        text = rng.choice(BEFORE) + text
    if rng.random() < 0.08:
        text += (
            rng.choice(AFTER)
            if text[-1] in ".?!"
            else rng.choice((" thanks", " please", ", please", ", thanks!"))
        )
    roll = rng.random()
    if roll < 0.03:
        return text.replace(" ", "  ")
    if roll < 0.06:
        return rng.choice((" ", "\n", "  ")) + text + rng.choice((" ", "\n", "  "))
    return text


def listing(rng: random.Random, numbers: tuple[str, ...]) -> str:
    """Numbers one after the other: with commas, blanks, or a last "and"."""
    if len(numbers) == 2:
        return rng.choice((" and ", " and ", ", ")).join(numbers)
    roll = rng.random()
    if roll < 0.4:
        return ", ".join(numbers)
    if roll < 0.65:
        return ", ".join(numbers[:-1]) + rng.choice((" and ", ", and ")) + numbers[-1]
    if roll < 0.75:
        return ",".join(numbers)
    if roll < 0.85:
        return "[" + ", ".join(numbers) + "]"
    return " ".join(numbers)


def joined(rng: random.Random, numbers: tuple[str, ...], signs: tuple[str, ...]) -> str:
    """Numbers with one operator between them, a sign or a word, tight or spaced."""
    sign = rng.choice(signs)
    if (sign.isalpha() and len(sign) > 1) or " " in sign or rng.random() < 0.55:
        sign = f" {sign} "
    return sign.join(numbers)
