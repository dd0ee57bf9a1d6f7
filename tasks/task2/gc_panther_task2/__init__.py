"""PANTHER task 2: pancreatic tumours on T2-weighted MR-Linac images, a gc_panther plugin."""
