"""Fixtures that several test modules share."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# No test asserts a wall time: the first example of a test pays for imports.
hypothesis.settings.register_profile("gc_panther", deadline=None)
hypothesis.settings.load_profile("gc_panther")

#: Seconds that only a test which has failed waits.
PATIENCE = 300
THREE_LABELS = {"background": 0, "tumour": 1, "pancreas": 2}


def plans_of(
    spacing_zyx: tuple[float, float, float] = (4.0, 2.0, 2.0),
    patch_zyx: tuple[int, int, int] = (16, 32, 32),
) -> dict[str, Any]:
    """nnU-Net plans, as its planner writes them, for a ResidualEncoderUNet of two stages."""
    resampling = {"order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(patch_zyx),
        "median_image_size_in_voxels": [2 * size for size in patch_zyx],
        "spacing": list(spacing_zyx),
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, **resampling},
        "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, **resampling},
        "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, **resampling},
        "batch_dice": False,
        "architecture": {
            "network_class_name": (
                "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
            ),
            "arch_kwargs": {
                "n_stages": 2,
                "features_per_stage": [4, 8],
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": [[3, 3, 3], [3, 3, 3]],
                "strides": [[1, 1, 1], [2, 2, 2]],
                "n_blocks_per_stage": [1, 1],
                "n_conv_per_stage_decoder": [1],
                "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    return {
        "dataset_name": "Dataset001_Tiny",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": list(spacing_zyx),
        "original_median_shape_after_transp": [2 * size for size in patch_zyx],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {
                "max": 900.0,
                "mean": 300.0,
                "median": 280.0,
                "min": 10.0,
                "percentile_00_5": 20.0,
                "percentile_99_5": 800.0,
                "std": 120.0,
            }
        },
    }


@pytest.fixture(scope="session")
def tiny_plans() -> Callable[..., dict[str, Any]]:
    """Make the plans of a tiny network: ``tiny_plans(spacing_zyx=…, patch_zyx=…)``."""
    return plans_of


@pytest.fixture
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make nnU-Net model folders of tiny networks with random weights, the same ones each time.

    ``tiny_model_folder(folds=…, labels=…, spacing_zyx=…, patch_zyx=…, trainer_name=…)`` writes
    ``plans.json``, ``dataset.json`` and ``fold_k/checkpoint_final.pth``, and returns the folder,
    a new one at each call.
    """

    def make(
        folds: tuple[int, ...] = (0, 1, 2),
        labels: dict[str, int] | None = None,
        spacing_zyx: tuple[float, float, float] = (4.0, 2.0, 2.0),
        patch_zyx: tuple[int, int, int] = (16, 32, 32),
        trainer_name: str = "nnUNetTrainer_Student",
    ) -> Path:
        import torch
        from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

        folder = tmp_path_factory.mktemp("model")
        labels = THREE_LABELS if labels is None else labels
        plans = plans_of(spacing_zyx, patch_zyx)
        dataset = {
            "channel_names": {"0": "MR"},
            "labels": labels,
            "numTraining": 2,
            "file_ending": ".mha",
        }
        (folder / "plans.json").write_text(json.dumps(plans), encoding="utf-8")
        (folder / "dataset.json").write_text(json.dumps(dataset), encoding="utf-8")
        architecture = plans["configurations"]["3d_fullres"]["architecture"]
        for fold in folds:
            with torch.random.fork_rng(devices=()):
                torch.manual_seed(1000 + fold)
                network = get_network_from_plans(
                    architecture["network_class_name"],
                    architecture["arch_kwargs"],
                    architecture["_kw_requires_import"],
                    1,
                    len(labels),
                    deep_supervision=True,
                )
            checkpoint = {
                "network_weights": network.state_dict(),
                "trainer_name": trainer_name,
                "init_args": {
                    "plans": plans,
                    "configuration": "3d_fullres",
                    "fold": fold,
                    "dataset_json": dataset,
                },
                "inference_allowed_mirroring_axes": (0, 1, 2),
            }
            path = folder / f"fold_{fold}" / "checkpoint_final.pth"
            path.parent.mkdir()
            torch.save(checkpoint, path)
        return folder

    return make


@pytest.fixture
def wait_for_end() -> Callable[[Iterable[int]], None]:
    """Wait until processes have ended; fail if one stays."""

    def is_alive(pid: int) -> bool:
        try:
            # After the name, which is in brackets; Z is a dead one that nobody has asked for.
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    def wait(pids: Iterable[int]) -> None:
        deadline = time.monotonic() + PATIENCE
        for pid in pids:
            while is_alive(pid):
                assert time.monotonic() < deadline, f"process {pid} is still there"
                time.sleep(0.02)

    if not Path("/proc/self/stat").exists():
        pytest.skip("processes are looked up in Linux's /proc")
    return wait


@pytest.fixture
def resident() -> Callable[[], int]:
    """Measures this process's memory, bytes."""
    return lambda: int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def write_volume() -> Callable[..., Path]:
    """Write a small volume of noise; keyword arguments replace its array or its geometry."""
    import numpy as np

    from gc_panther.case import Geometry, Volume
    from gc_panther.imaging.images import write_image

    def write(path: Path, array_zyx: Any = None, **geometry: Any) -> Path:
        if array_zyx is None:
            array_zyx = np.random.default_rng(0).integers(0, 500, (5, 6, 7)).astype(np.int16)
        z, y, x = array_zyx.shape
        grid = Geometry((x, y, z), **{"spacing_xyz": (1.5, 1.25, 3.0), **geometry})
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(Volume(array_zyx, grid), path)
        return path

    return write


@pytest.fixture
def toy_plugin() -> Any:
    """A plugin whose task marks voxels above 250; it notes which hooks were called."""
    import types

    import numpy as np

    from gc_panther.case import Result, Volume
    from gc_panther.hookspecs import hookimpl
    from gc_panther.nnunet.options import NnUNetOptions
    from gc_panther.task import Interface, Socket, Task

    plugin = types.SimpleNamespace(
        calls=[],
        problems=[],
        case_warnings=[],
        warnings=(),
        runs=[],
        change=lambda mask: mask,
        report_extra={},
    )
    image = Socket("toy-mri", "images/toy-folder")
    output = Socket("toy-mask", "images/toy-mask")

    class ToyPredictor:
        def predict(self, case: Any, run: Any) -> Result:
            plugin.runs.append(run)
            volume = case[image]
            mask = Volume(plugin.change((volume.array_zyx > 250).astype(np.uint8)), volume.geometry)
            return Result({output: mask}, {"toy": 1}, ("a note",), plugin.warnings)

    class ToyTask(Task):
        name = "toy"
        title = "Toy"
        interfaces = (Interface((image,), (output,)),)
        models = ()
        Options = NnUNetOptions

        def load(self, runtime: Any) -> ToyPredictor:
            plugin.runtime = runtime
            return ToyPredictor()

    class Hooks:
        @hookimpl
        def gc_panther_tasks(self) -> Any:
            return [ToyTask()]

        @hookimpl
        def gc_panther_check_case(self, task: Any, case: Any) -> Any:
            plugin.calls.append(("check", task.name, case.name))
            return plugin.problems

        @hookimpl
        def gc_panther_warn_case(self, task: Any, case: Any) -> Any:
            return plugin.case_warnings

        @hookimpl
        def gc_panther_before_case(self, task: Any, case: Any) -> None:
            plugin.calls.append(("before", task.name, case.name))

        @hookimpl
        def gc_panther_after_case(self, task: Any, case: Any, report: Any) -> None:
            plugin.calls.append(("after", task.name, case.name))
            report.update(plugin.report_extra)

        @hookimpl
        def gc_panther_on_error(self, task: Any, error: Any) -> None:
            plugin.calls.append(("error", task.name, str(error)))

        @hookimpl
        def gc_panther_commands(self, app: Any) -> None:
            app.command("toy-command")(lambda: print("toy says hello"))

    plugin.hooks = Hooks()
    return plugin


@pytest.fixture
def toy_command_line(toy_plugin: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`gc-panther` in this process with the toy plugin installed: returns the exit code."""
    from gc_panther import cli, plugins

    create = plugins.create_plugin_manager
    monkeypatch.setattr(
        plugins, "create_plugin_manager", lambda **options: create([toy_plugin.hooks], **options)
    )
    return cli.invoke


@pytest.fixture
def toy_input(tmp_path: Path, write_volume: Callable[..., Path]) -> Path:
    """An input folder of the toy task in the platform's format."""
    folder = tmp_path / "input"
    write_volume(folder / "images/toy-folder/0f0e.mha")
    socket = {"slug": "toy-mri", "kind": "Image", "relative_path": "images/toy-folder"}
    entry = {"socket": socket, "image": {"pk": "0f0e", "name": "patient one.nii.gz"}, "pk": 1}
    (folder / "inputs.json").write_text(json.dumps([entry]))
    return folder


def pytest_configure() -> None:
    """Let warnings count in commands, too, and SIGINT do what it does in a terminal."""
    # A command hides them, unless Python was started with an option for them.
    sys.warnoptions.append("default")
    # A shell's background jobs have it ignored.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
