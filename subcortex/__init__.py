"""The inference subcortex of autonomous agents."""
