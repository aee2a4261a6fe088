"""The main job on a machine without a GPU: thoughts of several drives through two tiny models.

    python examples/demo.py                 a dozen thoughts, with right or wrong
    python examples/demo.py "your thought"  that one

Starts a daemon of its own on the testbed's models, in a folder that is gone afterwards.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from testbed import tasks  # noqa: E402

#: Drive and level of each thought; the items are drawn with a fixed seed.
_PLAN = [
    ("MAINTENANCE", 1),
    ("SOCIAL", 1),
    ("CURIOSITY", 2),
    ("MAINTENANCE", 2),
    ("LEARNING", 3),
    ("CURIOSITY", 3),
    ("PLAY", 4),
    ("LEARNING", 4),
    ("LEARNING", 5),
    ("CREATIVE", 5),
    ("LEARNING", 6),
    ("MAINTENANCE", 6),
]


def main(own: str) -> int:
    with tempfile.TemporaryDirectory(prefix="subcortex-demo-") as folder:
        os.environ["SUBCORTEX_CONFIG"] = str(ROOT / "config.toml")
        os.environ["SUBCORTEX_DAEMON__RUNTIME_DIR"] = folder
        os.environ["SUBCORTEX_JOURNAL__DATABASE"] = f"{folder}/journal.db"
        from rich.console import Console

        from subcortex import Client, SubcortexError

        console = Console(width=None if sys.stdout.isatty() else 170)
        client = Client()
        try:
            client.start_daemon()
            return _one(console, own, client) if own.strip() else _dozen(console, client)
        except SubcortexError as error:
            console.print(str(error), markup=False, style="red")
            return error.exit_code
        finally:
            client.stop()


def _one(console, prompt, client) -> int:  # type: ignore[no-untyped-def]
    from subcortex import think

    thought = think(prompt, client=client)
    if thought.reasoning:
        console.print(thought.reasoning, markup=False, style="dim")
    console.print(thought.text, markup=False)
    why = "; ".join(thought.route.reasons)
    console.print(f"{thought.tier}: {why} ({thought.timing.total_s:.2f} s)", markup=False, style="cyan")
    return 0


def _dozen(console, client) -> int:  # type: ignore[no-untyped-def]
    from rich.table import Table

    from subcortex import think

    rng = random.Random(7)
    table = Table(title="A dozen thoughts, two tiny models")
    for name in ("prompt", "drive", "complexity", "tier", "why", "answer", "right", "TTFT", "total"):
        right_aligned = name in ("complexity", "TTFT", "total")
        table.add_column(name, justify="right" if right_aligned else "left", overflow="fold")
    right = 0
    for drive, level in _PLAN:
        item = tasks.item(level, rng)
        thought = think(item.prompt, drive=drive, temperature=0.0, max_tokens=600, client=client)
        good = tasks.check(item, thought.text)
        right += good
        table.add_row(
            item.prompt,
            drive,
            f"{thought.route.complexity:.2f}",
            thought.tier,
            thought.route.reasons[-1] if thought.route.reasons else "",
            thought.text.strip(),
            "yes" if good else f"no, {item.answer}",
            f"{1000 * (thought.timing.ttft_s or 0):.0f} ms",
            f"{thought.timing.total_s:.2f} s",
        )
    console.print(table)
    console.print(
        f"{right} of {len(_PLAN)} right. Ask your own: make demo ARGS='what is 7 + 5'", markup=False
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(" ".join(sys.argv[1:])))
