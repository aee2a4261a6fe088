"""What starts teach: what was foretold of each and what came, and how that moves the next estimate."""
