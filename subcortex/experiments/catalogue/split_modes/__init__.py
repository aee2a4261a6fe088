"""llama.cpp over unequal GPUs; on a machine without two, over threads."""
