import adaptive
import numpy as np
from adaptive import Pair, report


def pair(name, passes, agreement, dice, fallback=""):
    return Pair(name, passes, agreement, dice, fallback)


def test_the_report_counts_passes_and_lost_tumours():
    pairs = [
        pair("a", (320, 80), 1.0, (0.8, 0.8)),
        pair("b", (320, 400), 0.9, (0.5, 0.0), "uncertain"),
    ]
    text = report("task1", pairs, 7)
    assert "| passes per case | 320 | 240 (1/1.33) |" in text
    assert "| mean Dice against the phantom | 0.650 | 0.400 |" in text
    assert "| Dice against exact, mean | 1 | 0.9500 |" in text
    assert "| Dice against exact, worst case | 1 | 0.9000 |" in text
    assert "| masks with Dice below 0.99 against exact | 0 | 1 |" in text
    assert "| tumours lost | – | 1 |" in text
    assert "| cases left to the exact mode | – | 1 |" in text


def test_dice_of_masks():
    a = np.array([True, True, False, False])
    assert adaptive.dice(a, a) == 1.0
    assert adaptive.dice(a, ~a) == 0.0
    assert adaptive.dice(a, np.array([True, False, False, False])) == 2 / 3
    assert adaptive.dice(a & ~a, a & ~a) == 1.0
