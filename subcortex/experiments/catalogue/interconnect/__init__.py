"""How much tensor parallelism owes to the direct path between GPUs."""
