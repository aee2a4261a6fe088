"""Engines at work: one owner starts, watches, restarts and stops them."""
