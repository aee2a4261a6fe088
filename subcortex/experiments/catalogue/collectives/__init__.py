"""What all-reduce and its kin cost by size: over NCCL between GPUs, over gloo between processes on a CPU."""
