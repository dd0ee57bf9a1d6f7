"""Everything here needs a GPU that torch can use."""

import pytest
import torch


@pytest.fixture(autouse=True)
def gpu():
    """The device, with all its memory free."""
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    yield "cuda:0"
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()
