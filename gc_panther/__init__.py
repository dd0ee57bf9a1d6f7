"""gc_panther: Grand Challenge algorithm containers with plug-in segmentation tasks."""

__version__ = "0.1.0"
