"""Where batching saturates: how many requests at once a model's throughput grows with."""
