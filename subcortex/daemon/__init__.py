"""The process that owns the machine: HTTP on a Unix socket over one mind."""
