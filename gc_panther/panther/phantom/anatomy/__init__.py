"""One patient's abdomen as a list of structures, organ by organ."""
