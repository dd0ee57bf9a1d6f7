"""nnU-Net's model folders and weights packs."""
