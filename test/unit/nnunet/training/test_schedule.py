from types import SimpleNamespace

import pytest
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform

from gc_panther.nnunet.training.recipe import Schedule
from gc_panther.nnunet.training.schedule import MIRROR_AXES, apply_schedule, cheap_transforms


def trainer():
    """What of nnU-Net's trainer a schedule touches."""

    def geometry():
        stub.inference_allowed_mirroring_axes = MIRROR_AXES
        return (-0.5, 0.5), False, [40, 40, 40], MIRROR_AXES

    stub = SimpleNamespace(
        configuration_manager=SimpleNamespace(patch_size=[32, 32, 32]),
        configure_rotation_dummyDA_mirroring_and_inital_patch_size=geometry,
    )
    return stub


def mirrored(transforms):
    return [t for t in transforms.transforms if isinstance(t, MirrorTransform)]


@pytest.mark.parametrize("augmentation", ["none", "light", "full"])
@pytest.mark.parametrize("mirror", [True, False])
def test_inference_mirrors_as_training_does(augmentation, mirror):
    stub = trainer()
    schedule = Schedule(epochs=3, learning_rate=0.1, augmentation=augmentation, mirror=mirror)
    apply_schedule(stub, schedule)
    rotation, _, patch, axes = stub.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    assert axes == stub.inference_allowed_mirroring_axes == (MIRROR_AXES if mirror else None)
    assert stub.num_epochs == 3
    if augmentation == "full":
        assert (rotation, patch) == ((-0.5, 0.5), [40, 40, 40])
        return
    assert (rotation, patch) == ((0.0, 0.0), [32, 32, 32])
    steps = mirrored(stub.get_training_transforms(patch, rotation, None, axes))
    assert [step.allowed_axes for step in steps] == ([MIRROR_AXES] if mirror else [])


def test_only_light_augmentation_changes_intensities():
    light, none = (cheap_transforms(None, intensities=value) for value in (True, False))
    assert len(light.transforms) == len(none.transforms) + 4
    assert len(mirrored(light)) == len(mirrored(none)) == 1
