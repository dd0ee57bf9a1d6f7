"""What a user may choose about inference in PANTHER's tasks."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gc_panther.nnunet.options import NnUNetOptions
from gc_panther.options import Option


class PantherOptions(NnUNetOptions):
    """nnU-Net's options and PANTHER's rule for an empty mask."""

    never_empty: Annotated[
        bool,
        Field(
            description="Where nothing is found, mark the most probable place, or leave the mask "
            "empty."
        ),
        Option(
            flag="--never-empty/--keep-empty",
            variable="GC_PANTHER_KEEP_EMPTY",
            inverted=True,
            platform_default=True,
        ),
    ] = False
