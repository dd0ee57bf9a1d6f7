from types import SimpleNamespace

import pytest
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import (
    NonDetMultiThreadedAugmenter,
)
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

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


class Trainer:
    """What of nnU-Net's trainer growing patches touch."""

    def __init__(self, epoch):
        self.current_epoch = epoch
        # nnU-Net takes plans without an architecture for those of an old version.
        plans = {"patch_size": [8, 16, 24], "batch_size": 2, "architecture": {}}
        self.own = ConfigurationManager(plans)
        self.configuration_manager = self.own
        self.dataloader_train = self.dataloader_val = None
        self.begun = []

    def get_dataloaders(self):
        assert self.configuration_manager.batch_size == 2
        return (self.configuration_manager.patch_size,) * 2

    def on_epoch_start(self):
        self.begun.append((self.current_epoch, self.dataloader_train))

    def train(self, last):
        self.dataloader_train, self.dataloader_val = self.get_dataloaders()
        while self.current_epoch < last:
            self.on_epoch_start()
            self.current_epoch += 1
        return self.begun


GROWING = Schedule(epochs=4, learning_rate=0.1, small_patches={"epochs": 2, "patch_zyx": (8, 8, 8)})


@pytest.mark.parametrize("begin", [0, 1, 2, 3])
@pytest.mark.parametrize("times", [1, 2])
def test_patches_grow_to_the_plans_own(begin, times):
    small, own = [8, 8, 8], [8, 16, 24]
    stub = Trainer(begin)
    for _ in range(times):
        apply_schedule(stub, GROWING)
    assert stub.train(4) == [(n, small if n < 2 else own) for n in range(begin, 4)]
    # Checkpoints and inference see the plans' patch throughout.
    assert stub.configuration_manager is stub.own


class Processes(NonDetMultiThreadedAugmenter):
    """An augmenter without processes, which counts how often they are ended."""

    def __init__(self):
        self.ended = 0

    def _finish(self, *_, **__):
        self.ended += 1


def test_the_processes_of_small_batches_end_when_patches_grow():
    stub = Trainer(1)
    apply_schedule(stub, GROWING)
    loaders = stub.dataloader_train, stub.dataloader_val = Processes(), Processes()
    stub.on_epoch_start()
    assert [loader.ended for loader in loaders] == [0, 0]
    stub.current_epoch = 2
    stub.on_epoch_start()
    assert [loader.ended for loader in loaders] == [1, 1]
    assert stub.begun == [(1, loaders[0]), (2, [8, 16, 24])]


def test_only_light_augmentation_changes_intensities():
    light, none = (cheap_transforms(None, intensities=value) for value in (True, False))
    assert len(light.transforms) == len(none.transforms) + 4
    assert len(mirrored(light)) == len(mirrored(none)) == 1
