"""Training on PANTHER's data and on phantoms: recipes, scores, reports."""
