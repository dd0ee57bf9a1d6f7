"""What is known of pairs of torch and cuDNN."""

import pytest

from gc_panther.nnunet.cudnn import convolution_faults, cudnn_release


@pytest.mark.parametrize(
    ("torch", "cudnn", "half", "tf32"),
    [
        ("2.7.1+cu126", 90501, "right", False),  # what platform images have
        ("2.7.1", 90701, "right", False),
        ("2.7.1", 90800, "wrong", False),
        ("2.8.0+cu128", 91002, "wrong", True),  # the default wheel
        ("2.8.0", 91001, "wrong", False),
        ("2.8.0", 91400, "wrong", True),
        ("2.8.0", 91500, "right", True),
        ("2.8.0", 91600, "right", False),
        ("2.9.0", 91002, "slow", True),
        ("2.10.0+cu128", 91002, "slow", True),  # 2.10 is newer than 2.9
        ("2.9.1", 90800, "slow", False),
        ("2.13.0+cu130", 91900, "right", False),
        ("2.13.0", None, "right", False),
        ("2.3.1", 8907, "right", False),
        ("3.0.0", 91300, "slow", True),
        ("a fork", 91002, "wrong", True),  # whose guard nobody knows
    ],
)
def test_pairs_of_versions(torch, cudnn, half, tf32):
    faults = convolution_faults(torch, cudnn)
    assert (faults.half, faults.tf32) == (half, tf32)
    assert bool(faults.reason) is (half != "right")


def test_the_reason_names_both_versions():
    assert "torch 2.8.0+cu128 with cuDNN 9.10.2" in convolution_faults("2.8.0+cu128", 91002).reason


@pytest.mark.parametrize(
    ("number", "release"), [(8907, (8, 9, 7)), (90501, (9, 5, 1)), (91002, (9, 10, 2))]
)
def test_how_cudnn_numbers_its_releases(number, release):
    assert cudnn_release(number) == release
