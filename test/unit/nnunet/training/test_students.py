import numpy as np

from gc_panther.case import Geometry, Volume
from gc_panther.imaging.images import write_image
from gc_panther.nnunet.training.students import pseudo_labels


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.full((2, 3, 4), value, np.uint8)
    write_image(Volume(array, Geometry((4, 3, 2), (1.0, 1.0, 1.0))), path)


def test_label_maps_of_pure_background_are_dropped_and_counted(tmp_path):
    images = {name: tmp_path / f"{name}_0000.mha" for name in ("a", "b", "c")}
    for name, value in (("a", 0), ("b", 2), ("c", 1)):
        write(tmp_path / f"{name}.mha", value)
    found = pseudo_labels(images, tmp_path)
    assert [case.name for case in found.cases] == ["b", "c"]
    assert found.cases[0].image == images["b"]
    assert found.dropped == ("a",)
    assert str(found) == "2 pseudo-labelled cases, 1 dropped as pure background"
    assert not pseudo_labels({"a": images["a"]}, tmp_path).cases
