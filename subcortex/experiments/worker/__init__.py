"""The process that runs experiments: one after the other, each sample in the journal as it comes. Effects."""
