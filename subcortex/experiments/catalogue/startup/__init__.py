"""Whether a tier can start at all: its engine, its model's files, its memory, its tokenizer."""
