"""A steady load of thoughts of all kinds, and what became of each."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from subcortex import Client, Thought, stream, think
from subcortex.config import load
from subcortex.errors import SubcortexError
from testbed import tasks

#: Past its deadline the daemon says so at once, and a client that hears nothing gives up 2 s later; the rest
#: is for two cores that are shared with what is killed and started on them.
DEADLINE_MARGIN_S = 6.0
#: What a program that is killed in the middle of its thought runs.
_VICTIM = """
import sys
from subcortex import Client, stream
from subcortex.config import load
for piece in stream(sys.argv[2], tier=sys.argv[3], max_tokens=200, client=Client(load(sys.argv[1], {}))):
    print("piece", flush=True)
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one thought.

    Args:
        kind: How it was asked.
        id, text: Of the answer, if there is one.
        code: Of the typed error, or what else was raised; None with an answer or if we went away ourselves.
        bound_s: Within which there had to be either.
    """

    kind: str
    took_s: float
    bound_s: float
    id: str | None = None
    text: str | None = None
    code: str | None = None
    words: str | None = None
    typed: bool = True
    degraded: bool = False

    @property
    def lost(self) -> bool:
        """Whether nobody said what became of it, or too late."""
        return not self.typed or self.took_s > self.bound_s


class Load:
    """Threads that think until told to stop.

    Args:
        file: The configuration.
        tiers: Returns the names of those that may be asked for by name now.
        bound_s: Longest that a thought without a deadline may take.
    """

    def __init__(
        self, file: str, tiers: Callable[[], list[str]], bound_s: float, seed: str, threads: int
    ) -> None:
        self.outcomes: list[Outcome] = []
        self.client = Client(load(file, {}))
        self._tiers = tiers
        self._bound_s = bound_s
        self._over = threading.Event()
        self._under_way: dict[int, tuple[float, float, str]] = {}
        self._threads = [
            threading.Thread(target=self._run, args=(number, random.Random(f"{seed}/{number}")), daemon=True)
            for number in range(threads)
        ]

    def start(self) -> None:
        """Begin to think."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> list[str]:
        """Ask for no more, wait for what is under way, and return what never came back."""
        self._over.set()
        for number, thread in enumerate(self._threads):
            while thread.is_alive():
                began_s, bound_s, _ = self._under_way.get(number, (time.monotonic(), 1.0, ""))
                left_s = began_s + bound_s + 1.0 - time.monotonic()
                if left_s <= 0:
                    break
                thread.join(min(left_s, 0.5))
        return [
            f"{kind}: no word within {bound_s:.0f} s"
            for number, (_, bound_s, kind) in self._under_way.items()
            if self._threads[number].is_alive()
        ]

    def _run(self, number: int, rng: random.Random) -> None:
        while not self._over.is_set():
            self._once(number, rng)
            self._over.wait(rng.uniform(0.05, 0.3))

    def _once(self, number: int, rng: random.Random) -> None:
        kind = rng.choice(("plain", "plain", "tier", "tier", "deadline", "wait", "stream", "away"))
        prompt = tasks.item(rng.randint(1, 4), rng).prompt
        tier = rng.choice(self._tiers()) if kind != "plain" and rng.random() < 0.7 else None
        deadline_s = rng.uniform(1.0, 8.0) if kind == "deadline" else None
        wait_s = rng.uniform(0.5, 4.0) if kind == "wait" else None
        bound_s = self._bound_s if deadline_s is None else deadline_s + DEADLINE_MARGIN_S
        began_s = time.monotonic()
        self._under_way[number] = began_s, bound_s, kind

        def over(**facts: object) -> None:
            took_s = time.monotonic() - began_s
            self.outcomes.append(Outcome(kind, took_s, bound_s, **facts))  # type: ignore[arg-type]

        try:
            if kind in ("stream", "away"):
                thought = self._streamed(prompt, tier, kind, rng)
            else:
                thought = think(
                    prompt, tier=tier, deadline=deadline_s, wait_s=wait_s, max_tokens=64, client=self.client
                )
        except SubcortexError as error:
            over(code=error.code, words=error.message, typed=type(error) is not SubcortexError)
        except Exception as error:
            over(code=type(error).__name__, words=str(error), typed=False)
        else:
            if thought is None:
                over()
            else:
                over(id=thought.id, text=thought.text, degraded=thought.route.degraded)
        finally:
            self._under_way.pop(number, None)

    def _streamed(self, prompt: str, tier: str | None, kind: str, rng: random.Random) -> Thought | None:
        """Return the thought at the end of a stream, None if we went away before."""
        left = rng.randint(1, 4) if kind == "away" else None
        pieces = stream(prompt, tier=tier, max_tokens=64, client=self.client)
        for piece in pieces:
            if isinstance(piece, Thought):
                return piece
            if left is not None:
                left -= 1
                if not left:
                    pieces.close()  # type: ignore[attr-defined]
                    return None
        raise RuntimeError("a stream ended without a thought")


def kill_a_client(file: str, prompt: str, tier: str, limit_s: float) -> bool:
    """Start a program that streams a thought and kill it in the middle; False if it never came so far."""
    program = subprocess.Popen(
        [sys.executable, "-c", _VICTIM, file, prompt, tier], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    timer = threading.Timer(limit_s, program.kill)
    timer.start()
    assert program.stdout is not None
    said = program.stdout.readline()
    timer.cancel()
    program.kill()
    program.wait()
    program.stdout.close()
    return bool(said)
