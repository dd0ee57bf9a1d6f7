"""A digital abdominal MR phantom: synthetic images with PANTHER's geometry, names and labels.

Everything it writes is synthetic. It is meant for tests, demonstrations and for training the
demonstration weights; it says nothing about how a method does on patients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gc_panther.panther.phantom.dataset import make_dataset
    from gc_panther.panther.phantom.generate import Phantom, generate_phantom

__all__ = ["Phantom", "generate_phantom", "make_dataset"]


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that `gc-panther phantom --help` needs no scipy.
    if name in ("Phantom", "generate_phantom"):
        from gc_panther.panther.phantom import generate

        return getattr(generate, name)
    if name == "make_dataset":
        from gc_panther.panther.phantom.dataset import make_dataset

        return make_dataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
