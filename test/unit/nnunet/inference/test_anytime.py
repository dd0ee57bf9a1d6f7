"""How a time limit's consequences are worded; what it computes is in ``test_ensemble.py``."""

import pytest

from gc_panther.nnunet.inference.anytime import FoldsInTime

MIRRORING = [(), (0,), (1,), (0, 1)]


@pytest.mark.parametrize(
    ("copies", "said"),
    [
        ({0: 4, 1: 4, 2: 4}, None),
        ({0: 1}, "the time limit left out folds 1, 2; all mirrored copies of fold 0"),
        ({0: 1, 1: 1}, "the time limit left out fold 2; all mirrored copies of folds 0, 1"),
        (
            {0: 4, 1: 4, 2: 2},
            "the time limit left out 2 of 3 mirrored copies of fold 2",
        ),
    ],
)
def test_the_folds_and_mirrored_copies_that_were_left_out_are_named(copies, said):
    reached = FoldsInTime([0, 1, 2], MIRRORING, 0.0, lambda *_: None, lambda _: None)
    reached.logits, reached.copies = dict.fromkeys(copies), copies
    assert reached.facts("tiny").get("dropped") == (said and f"tiny: {said}")
