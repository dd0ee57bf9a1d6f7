"""The engine that runs a task, and the doors that lead to it."""
