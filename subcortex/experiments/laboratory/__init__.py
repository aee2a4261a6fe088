"""What experiments work with: engines kept warm, probes, load, and the machine's readings. Effects."""
