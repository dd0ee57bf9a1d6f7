"""What the training of both tasks shares."""
