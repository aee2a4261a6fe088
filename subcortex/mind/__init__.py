"""The think pipeline: route, make room, generate, record."""
