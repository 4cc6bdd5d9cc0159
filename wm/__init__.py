"""Latent world models for robot planning: learn from logs, plan to a goal picture."""

__version__ = "0.1.0"
