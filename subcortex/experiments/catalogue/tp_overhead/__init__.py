"""What splitting a model over two GPUs adds to the memory that it takes."""
