"""The machine and the installation: device, weights, and what is there."""
