"""Grand Challenge's input and output contract."""
