"""Inference with nnU-Net's networks."""
