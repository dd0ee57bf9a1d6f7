"""The PANTHER challenge: its data, metrics, phantoms and the rule that no mask is empty."""
