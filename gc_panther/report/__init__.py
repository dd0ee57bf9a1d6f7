"""The run report, and pictures of a mask over its image."""
