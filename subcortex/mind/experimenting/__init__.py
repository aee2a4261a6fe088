"""The daemon's side of experiments: what to run, its queue, giving way, and what follows from an answer."""
