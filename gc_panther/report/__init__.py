"""What a run says about itself, and how its result looks."""
