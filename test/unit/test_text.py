from gc_panther.text import alternatives, count


def test_a_number_comes_with_the_right_form_of_its_noun():
    assert count(1, "voxel") == "1 voxel"
    assert count(0, "voxel") == "0 voxels"
    assert count(2, "pass") == "2 passes"
    assert count(2, "patch") == "2 patches"
    assert count(2, "epoch") == "2 epochs"
    assert count(1, "mirrored copy", "mirrored copies") == "1 mirrored copy"
    assert count(3, "mirrored copy", "mirrored copies") == "3 mirrored copies"


def test_alternatives_are_joined_as_in_a_sentence():
    assert alternatives(["a"]) == "a"
    assert alternatives(["a", "b"]) == "a or b"
    assert alternatives(["a", "b", "c"]) == "a, b or c"
