"""Whether the most and the least capable tier can serve at once, and what each loses by it."""
