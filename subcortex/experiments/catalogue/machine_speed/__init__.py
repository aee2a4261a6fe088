"""How fast this machine is: matrix products, memory, and the ways between host and GPUs."""
