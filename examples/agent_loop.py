"""An agent that thinks in both tiers and reads its own record back."""

from __future__ import annotations

from subcortex import Client, Reader, think

SESSION = "agent-loop"
AGENDA = [
    ("MAINTENANCE", "What is 7 + 5?"),
    ("CURIOSITY", "How many times does the letter e appear in the word remembered?"),
    ("LEARNING", "What is 4812 + 7399? Think it through and check each step."),
]


def main() -> None:
    client = Client()
    for drive, question in AGENDA:
        thought = think(question, drive=drive, session=SESSION, temperature=0.0, client=client)
        print(f"[{drive} → {thought.tier}] {question}\n    {thought}   ({thought.route.reasons[-1]})")

    # The record outlives the process: what did I think, where, and how long did it take?
    memories = Reader.open(client.config.database_path).thoughts(session=SESSION)
    print(f"\nI remember {len(memories)} thoughts:")
    for memory in reversed(memories):
        print(f"    {memory.tier:5} {memory.timing.total_s:6.2f} s  {memory.text}")


if __name__ == "__main__":
    main()
