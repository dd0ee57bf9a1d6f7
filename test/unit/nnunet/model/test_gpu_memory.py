"""The estimate of GPU memory, for PANTHER's networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gc_panther.nnunet.model import gpu_memory
from gc_panther.nnunet.model.gpu_memory import (
    NetworkSize,
    compared,
    estimate,
    main,
    network_size,
    windows_that_fit,
)

GIB = 2**30
ROOT = Path(__file__).parents[4]
RESENC_M = NetworkSize(
    patch=(48, 160, 224),
    features=(32, 64, 128, 256, 320, 320),
    strides=((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2)),
    parameters=102_000_000,
)
RESENC_L = replace(
    RESENC_M,
    patch=(80, 192, 256),
    strides=((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2)),
    parameters=141_000_000,
)


def test_the_estimate_is_near_what_was_measured() -> None:
    """10.59 GiB on an H100, eight windows at once (docs/performance.md)."""
    assert estimate(RESENC_M, 8) / GIB == pytest.approx(10.59, rel=0.05)


def test_the_maps_of_a_network_of_two_stages_by_hand() -> None:
    network = NetworkSize((4, 8, 8), (2, 3), ((1, 1, 1), (2, 2, 2)), parameters=1000)
    full, low = 2 * 2 * 256, 2 * 3 * 32
    maps = full + low + 4 * full + low
    assert estimate(network, 1) == pytest.approx(
        gpu_memory.FIXED + 2000 + gpu_memory.OVERHEAD * maps, abs=1
    )
    more = estimate(network, 8) - estimate(network, 1)
    assert more == pytest.approx(7 * gpu_memory.OVERHEAD * maps, abs=1)


def test_resenc_m_fits_both_gpus_with_all_mirrored_copies() -> None:
    lines = list(compared("task1", RESENC_M, 8))
    assert [line.rpartition("; ")[2] for line in lines] == [
        "T4 has 14.75 GiB: it fits",
        "A10G has 22.5 GiB: it fits",
    ]
    assert lines[0].startswith("task1: about 10.8 GiB with 8 windows at once; ")


def test_resenc_l_fits_with_fewer_windows_at_once() -> None:
    for line in compared("task1", RESENC_L, 8):
        assert line.endswith("only 4 at once fit, which takes longer")


def test_too_much_is_a_clear_line() -> None:
    huge = replace(RESENC_L, patch=(160, 512, 512))
    t4, a10g = compared("task1", huge, 8)
    least = estimate(huge, 1) / GIB
    assert 22.5 < least < 100
    assert t4.endswith(f"T4 has 14.75 GiB: too much, one window alone takes {least:.1f} GiB")
    assert "A10G has 22.5 GiB: too much" in a10g


def test_one_value_of_the_plans_is_for_every_stage() -> None:
    assert gpu_memory._per_stage(4, 3) == gpu_memory._per_stage([4], 3) == [4, 4, 4]
    assert gpu_memory._per_stage([4, 8, 8], 3) == [4, 8, 8]


@pytest.mark.parametrize(("memory", "windows"), [(1.0, 0), (2.5, 1), (6.0, 4), (11.0, 8)])
def test_windows_are_halved_as_inference_halves_them(memory: float, windows: int) -> None:
    assert windows_that_fit(RESENC_M, memory * GIB, 8) == windows


def test_the_size_of_a_model_is_read_from_its_folder() -> None:
    size = network_size(ROOT / "resources" / "task1")
    assert size.patch == (32, 80, 96)
    assert size.features == [8, 16, 32, 64, 64]
    assert size.strides == [[1, 1, 1], *[[2, 2, 2]] * 4]
    # A pack's file is little more than the parameters in single precision.
    file = ROOT / "resources" / "task1" / "fold_0.safetensors"
    assert size.parameters * 4 == pytest.approx(file.stat().st_size, rel=0.02)


def test_the_command_says_a_line_for_each_gpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(ROOT / "resources" / "task1")]) == 0
    assert capsys.readouterr().out.count("it fits\n") == 2
    assert main([str(tmp_path / "nothing")]) == 1
    assert capsys.readouterr().err.startswith("error: there is no such model folder")
