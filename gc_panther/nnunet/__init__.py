"""The ensemble over nnU-Net model folders, in one process."""
