"""Which quantisations can be split by tensor parallelism, and what one that is booted gives."""
