"""PANTHER's training data: layout, checks, import."""
