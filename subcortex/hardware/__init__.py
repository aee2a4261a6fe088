"""What this machine has: GPUs by NVML, host memory, cores."""
