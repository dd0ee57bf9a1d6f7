"""Images on their grids: reading and writing, orientation, resampling, regions of interest."""
