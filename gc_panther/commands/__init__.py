"""The core's commands."""
