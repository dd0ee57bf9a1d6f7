"""PANTHER task 1: pancreatic tumours on contrast-enhanced T1-weighted MRI, a gc_panther plugin."""
