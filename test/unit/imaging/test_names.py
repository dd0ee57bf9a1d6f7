from pathlib import Path

import pytest

from gc_panther.imaging.names import channel_file, image_ending, without_channel, without_ending


@pytest.mark.parametrize(
    ("name", "ending", "bare"),
    [
        ("10000_0001_0000.mha", ".mha", "10000_0001_0000"),
        ("scan.nii.gz", ".nii.gz", "scan"),
        ("SCAN.NII.GZ", ".nii.gz", "SCAN"),
        ("a.b.MHA", ".mha", "a.b"),
        ("scan.mha.gz", ".gz", "scan"),
        ("scan", "", "scan"),
        (".mha", "", ".mha"),
        (".nii.gz", ".nii.gz", ".nii"),
    ],
)
def test_the_parts_of_a_name(name, ending, bare):
    assert image_ending(Path("folder.d") / name) == ending
    assert without_ending(name) == bare


def test_nnunets_channel():
    assert channel_file("10303") == "10303_0000.mha"
    assert without_channel("10303_0000") == without_channel("10303") == "10303"
    assert without_channel("_0000") == "_0000"
