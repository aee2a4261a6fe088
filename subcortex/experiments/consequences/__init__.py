"""What follows from an answer: surprise, costs, links, changes of the configuration. Pure."""
