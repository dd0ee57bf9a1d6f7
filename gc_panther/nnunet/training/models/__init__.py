"""Models in training: plans, starting weights, checkpoints, export."""
