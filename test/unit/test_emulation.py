"""The checks of the platform emulation, on reports of containers that break one rule each.

test/container shows that the real shim runs our images.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import emulate
import numpy as np
import platform_checks
import pytest
import SimpleITK as sitk
from platform_checks import (
    RUNTIME,
    Check,
    check_case,
    check_gpu,
    check_image,
    check_start,
    check_time,
    default_instance,
    memory_limits,
)

FOLDER = "images/mask"
KEY = "ab" * 32


def failed(checks: Any) -> dict[str, Check]:
    return {check.name: check for check in checks if not check.passed}


def inspected(**changes: Any) -> dict[str, Any]:
    configuration = {"Labels": {"org.grand-challenge.api-method": "invoke"}, "User": "10001:10001"}
    image = {"Os": "linux", "Architecture": "amd64", "Size": 2e9, "Config": configuration}
    for key, value in changes.items():
        (configuration if key in ("Labels", "User") else image)[key] = value
    return image


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"User": ""}, "user"),
        ({"User": "root"}, "user"),
        ({"User": "0"}, "user"),
        ({"User": "0:10001"}, "user"),
        ({"Labels": {"org.grand-challenge.api-method": "http"}}, "interface"),
        ({"Architecture": "arm64"}, "architecture"),
        ({"Size": 11e9}, "size"),
    ],
)
def test_images_that_the_platform_does_not_start(changes: dict[str, Any], name: str) -> None:
    (check,) = failed(check_image(inspected(**changes))).values()
    assert check.name == name
    assert check.fix


@pytest.mark.parametrize("changes", [{}, {"Labels": None}, {"User": "panther"}])
def test_images_that_it_starts(changes: dict[str, Any]) -> None:
    assert failed(check_image(inspected(**changes))) == {}


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """What a flawless case leaves in S3."""
    place = tmp_path / "s3" / "first"
    (place / FOLDER).mkdir(parents=True)
    (place / ".sagemaker_shim").mkdir()
    mask = sitk.GetImageFromArray(np.eye(6, 5, dtype=np.uint8)[None].repeat(4, 0))
    sitk.WriteImage(mask, str(place / FOLDER / "any.mha"), useCompression=True)
    (place / "results.json").write_text('[{"volume": null}]')
    change_result(tmp_path)
    return tmp_path


def change_result(report: Path, **changes: Any) -> None:
    result = {
        "return_code": 0,
        "user_safe_error_message": "",
        "user_process_last_stderr_lines": [],
        "exec_duration": None,
        "invoke_duration": "PT12S",
    }
    file = report / "s3" / "first" / ".sagemaker_shim" / "inference_result.json"
    file.write_text(json.dumps({**result, **changes}))


def checked(report: Path) -> dict[str, Check]:
    return failed(check_case(report, "first", FOLDER, (0, 1), (5, 6, 4)))


def write_mask(array: np.ndarray) -> Callable[[Path], None]:
    def write(report: Path) -> None:
        image = sitk.GetImageFromArray(array)
        sitk.WriteImage(image, str(report / "s3" / "first" / FOLDER / "any.mha"))

    return write


def test_a_flawless_case_passes(report: Path) -> None:
    assert checked(report) == {}


@pytest.mark.parametrize(
    ("break_it", "name", "found"),
    [
        (lambda r: write_mask(np.zeros((4, 6, 5), np.float32))(r), "first: type", "float"),
        (lambda r: write_mask(np.zeros((4, 6, 5), np.int16))(r), "first: type", "16-bit"),
        (lambda r: write_mask(np.full((4, 6, 5), 2, np.uint8))(r), "first: labels", "2"),
        (lambda r: write_mask(np.zeros((4, 6, 6), np.uint8))(r), "first: grid", "6×6×4"),
        (
            lambda r: (r / "s3/first" / FOLDER / "two.mha").write_bytes(b""),
            "first: images",
            "any.mha, two.mha",
        ),
        (lambda r: (r / "s3/first" / FOLDER / "any.mha").unlink(), "first: images", "none"),
        (
            lambda r: (r / "s3/first" / FOLDER / "any.mha").write_bytes(b"no image"),
            "first: mask",
            "cannot be read",
        ),
        (
            lambda r: (r / "s3/first/results.json").write_text("[NaN]"),
            "first: results.json",
            "NaN",
        ),
        (lambda r: (r / "s3/first/results.json").write_text("["), "first: results.json", ""),
        (
            lambda r: change_result(r, user_process_last_stderr_lines=["Warning: slow\n", "\n"]),
            "first: stderr",
            "Warning: slow",
        ),
        (
            lambda r: change_result(
                r, return_code=1, user_process_last_stderr_lines=["error: no image"]
            ),
            "first: run",
            "error: no image",
        ),
        (
            lambda r: change_result(
                r, return_code=1, user_safe_error_message="Invoke time limit exceeded"
            ),
            "first: run",
            "time limit",
        ),
    ],
)
def test_each_fault_fails_its_own_check(
    break_it: Callable[[Path], None], name: str, found: str, report: Path
) -> None:
    break_it(report)
    checks = checked(report)
    assert set(checks) == {name}
    assert found in checks[name].found
    assert checks[name].fix


def test_more_labels_than_the_platform_counts(report: Path) -> None:
    write_mask(np.arange(120, dtype=np.uint8).reshape(4, 6, 5))(report)
    checks = failed(check_case(report, "first", FOLDER, range(256), (5, 6, 4)))
    assert set(checks) == {"first: labels"}


def start(report: Path, **changes: Any) -> dict[str, str]:
    """Write what the shim says of the start, signed; return the signatures."""
    result = {"return_code": 0, "user_safe_error_message": "", "sagemaker_shim_version": "0"}
    file = report / "s3" / RUNTIME
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({**result, **changes}))
    signature = hmac.new(bytes.fromhex(KEY), file.read_bytes(), hashlib.sha256).hexdigest()
    return {RUNTIME: signature}


def test_the_start_and_who_says_so(tmp_path: Path) -> None:
    facts = {"signatures": start(tmp_path), "shim_status": 0}
    assert failed(check_start(tmp_path, facts, KEY)) == {}
    assert set(failed(check_start(tmp_path, facts, "cd" * 32))) == {"signature"}
    assert set(failed(check_start(tmp_path, {**facts, "signatures": {}}, KEY))) == {"signature"}


def test_a_server_that_does_not_become_healthy(tmp_path: Path) -> None:
    message = "didn't pass the health check"
    facts = {"signatures": start(tmp_path, return_code=1, user_safe_error_message=message)}
    checks = failed(check_start(tmp_path, {**facts, "shim_status": 0}, KEY))
    assert checks["start"].found == message


def test_a_shim_that_said_nothing(tmp_path: Path) -> None:
    checks = failed(check_start(tmp_path, {"signatures": {}, "shim_status": 137}, KEY))
    assert "137" in checks["start"].found
    assert "was not run" in checked(tmp_path)["first: run"].found


def test_limits_are_those_of_the_instance() -> None:
    assert memory_limits("g4dn.xlarge") == {"memory_gb": 16, "data_mb": 15360, "shm_mb": 8192}
    assert memory_limits("m7i.large")["data_mb"] == 7168


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"log": "12:00 segmented\\n", "internal": false}', "12:00 segmented"),
        ('{"log": "return_code=0", "internal": true}', ""),
        ("127.0.0.1 - - GET /", ""),
        ("[]", ""),
    ],
)
def test_only_the_algorithm_s_words_are_shown(line: str, said: str) -> None:
    assert emulate.said_by_the_algorithm(line) == said


def test_the_table_says_what_to_do_where_something_failed(capsys: Any) -> None:
    good = Check("user", True, "10001", "unneeded advice")
    assert platform_checks.report_checks([good]) is True
    assert platform_checks.report_checks([good, Check("size", False, "12 GB", "slim it")]) is False
    shown = capsys.readouterr().out
    assert "slim it" in shown
    assert "unneeded advice" not in shown


@pytest.mark.parametrize(
    ("cuda", "instance", "required", "found"),
    [
        ("", "g4dn.xlarge", False, "torch without CUDA"),
        ("13.0", "g5.xlarge", False, "CUDA 13.0"),
        ("12.6", "r7i.large", True, "r7i.large has none"),
    ],
)
def test_builds_that_do_not_fit_the_instance(
    cuda: str, instance: str, required: bool, found: str
) -> None:
    check = check_gpu(cuda, instance, required=required, tried=True)
    assert not check.passed
    assert found in check.found
    assert "./do_build.sh" in check.fix


def test_builds_that_fit_the_instance() -> None:
    tried = check_gpu("12.6", "g4dn.xlarge", required=True, tried=True)
    untried = check_gpu("12.6", "g4dn.xlarge", required=True, tried=False)
    assert (tried.passed, tried.found) == (True, "CUDA 12.6")
    assert (untried.passed, untried.found) == (True, "CUDA 12.6, not tried on a GPU")
    # Without CUDA, or with one that the platform's driver may not run, a CPU instance is right.
    for cuda in ("", "13.0"):
        assert check_gpu(cuda, default_instance(cuda), required=False, tried=False).passed


def test_the_default_instance_follows_the_build() -> None:
    found = {cuda: default_instance(cuda) for cuda in ("", "11.8", "12.6", "13.0")}
    cpu, gpu = "r7i.large", "g4dn.xlarge"
    assert found == {"": cpu, "11.8": gpu, "12.6": gpu, "13.0": cpu}


def test_start_up_and_case_count_together(report: Path) -> None:
    """The case took 12 s of the 20 s that the shim ran: 8 s were start-up and self-test."""
    (found,) = check_time(report, ["first"], 20.0, limit=20)
    assert found.passed
    assert found.found == "start-up and self-test 8 s, case 12 s, of 20 s"
    assert set(failed(check_time(report, ["first"], 20.0, limit=19))) == {"time"}


@pytest.mark.parametrize("change", [{"return_code": 1}, {"invoke_duration": None}])
def test_a_case_that_failed_has_no_time(report: Path, change: dict[str, Any]) -> None:
    change_result(report, **change)
    assert list(check_time(report, ["first"], 20.0, limit=1)) == []
    assert list(check_time(report, ["second"], 20.0, limit=1)) == []
    assert list(check_time(report, ["first"], None, limit=1)) == []


ENGINE_STAND_IN = """#!/bin/sh
case "$1 $2" in
    "image inspect") echo '[{"Config": {"Env": ["GC_PANTHER_REQUIRE_GPU=1"]}}]' ;;
    run*) printf '/opt/venv/bin/python3\n12.6\n' ;;
esac
"""


def test_the_image_says_which_cuda_its_torch_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = tmp_path / "engine"
    stand_in.write_text(ENGINE_STAND_IN)
    stand_in.chmod(0o755)
    monkeypatch.setattr(emulate, "ENGINE", str(stand_in))
    image = emulate.inspect("gc-panther-task1")
    assert image is not None
    assert (image.python, image.cuda) == ("/opt/venv/bin/python3", "12.6")
    assert (image.api, image.requires_gpu) == ("exec", True)
    assert emulate.gpu_options() == []
