"""PANTHER's metrics, their tables, and the command that computes them."""
