"""Which tier a thought deserves: pure functions from a prompt and a snapshot to a decision."""
