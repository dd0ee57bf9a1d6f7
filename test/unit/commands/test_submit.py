"""`gc-panther submit` with the platform's client library, and a stand-in for the platform.

The stand-in answers the REST calls that gcapi makes for a job, in this process: nothing here shows
that the platform itself would answer so.
"""

from __future__ import annotations

import logging

import httpx
import numpy as np
import pytest
from platform_stand_in import HOST, TOKEN, Platform, socket

from gc_panther import cli
from gc_panther.case import Geometry, Volume
from gc_panther.commands import submit
from gc_panther.imaging.images import read_image, write_image

pytest.importorskip("gcapi", reason="needs gc-panther[submit]")

GEOMETRY = Geometry((6, 5, 4), (1.0, 1.5, 3.0), (10.0, -20.0, 5.0))


@pytest.fixture
def mask():
    return Volume((np.arange(120).reshape(4, 5, 6) % 7 == 0).astype(np.uint8), GEOMETRY)


@pytest.fixture
def platform(tmp_path, mask, monkeypatch):
    write_image(
        Volume(np.arange(120, dtype=np.int16).reshape(4, 5, 6), GEOMETRY), tmp_path / "image.mha"
    )
    (tmp_path / "there").mkdir()
    write_image(mask, tmp_path / "there" / "mask.mha")
    platform = Platform(tmp_path / "there" / "mask.mha")
    monkeypatch.setattr(
        httpx.HTTPTransport, "handle_request", lambda *arguments: platform.handle(*arguments)
    )
    monkeypatch.setenv(submit.TOKEN_VARIABLE, TOKEN)
    monkeypatch.setattr(submit, "INTERVAL_S", 0.0)
    return platform


@pytest.fixture
def command(platform, tmp_path, capfd, caplog):
    """Run the command; give its exit code and the last line of stderr."""
    caplog.set_level(logging.DEBUG)

    def run(*options):
        arguments = ["submit", "my-algorithm", str(tmp_path / "image.mha"), "-o"]
        arguments += [str(tmp_path / "mask.nii.gz"), "--url", f"{HOST}/api/v1/", *options]
        code = cli.invoke(arguments)
        said = capfd.readouterr()
        assert TOKEN not in said.out + said.err + caplog.text
        return code, said.err.strip()

    return run


def test_an_image_is_uploaded_segmented_and_its_mask_fetched(
    platform, command, mask, tmp_path, caplog
):
    assert command() == (0, "")
    assert platform.uploaded == (tmp_path / "image.mha").read_bytes()
    ((started),) = platform.started
    (given,) = started["inputs"]
    assert given["interface"] == "abdominal-t1-mri"
    assert given["user_uploads"] == [f"{HOST}/api/v1/uploads/up/"]
    fetched = read_image(tmp_path / "mask.nii.gz")
    assert np.array_equal(fetched.array_zyx, mask.array_zyx)
    assert fetched.geometry.matches(GEOMETRY, tolerance=1e-4)
    for said in ("job-1: Queued", "job-1: Executing", "job-1: Succeeded"):
        assert said in caplog.text


def test_a_job_that_was_started_earlier_is_waited_for(platform, command):
    assert command("--job", "job-1") == (0, "")
    assert platform.started == []
    assert platform.uploaded == b""


@pytest.mark.parametrize(
    ("part", "answer", "code", "said"),
    [
        ("algorithms/", 401, 2, "refuses the token (401)"),
        ("algorithms/", 403, 2, "refuses the token (403)"),
        ("algorithms/", 500, 1, "answered 500"),
        ("jobs/job-1", 404, 2, "no such algorithm or job"),
        ("algorithms/", httpx.ConnectError("no route"), 1, "cannot be reached (ConnectError)"),
        ("s3/", httpx.ReadTimeout("slow"), 1, "cannot be reached (ReadTimeout)"),
        ("gcapi/", httpx.ConnectError("no route"), 1, "cannot be reached (ConnectError)"),
    ],
)
def test_what_the_platform_refuses_is_one_line(
    platform, command, tmp_path, part, answer, code, said
):
    platform.fail_with = {part: answer}
    status, line = command()
    assert (status, said in line) == (code, True), line
    assert len(line.splitlines()) == 1
    assert not (tmp_path / "mask.nii.gz").exists()


@pytest.mark.parametrize("state", ["Failed", "Cancelled"])
def test_a_failed_job_is_reported_with_its_page(platform, command, tmp_path, state):
    platform.states = [state]
    status, line = command()
    assert status == 1
    assert f"the job ended as '{state}': {HOST}/jobs/1/" in line
    assert not (tmp_path / "mask.nii.gz").exists()


def test_a_job_that_takes_too_long_can_be_waited_for_later(platform, command):
    platform.states = ["Executing"]
    status, line = command("--timeout", "0")
    assert status == 1
    assert "has not ended after 0 s" in line
    assert "--job job-1" in line


def test_an_algorithm_of_other_inputs_is_not_started(platform, command):
    platform.inputs = [socket("a"), socket("b")]
    status, line = command()
    assert status == 2
    assert "something else than one image (a + b)" in line
    assert platform.uploaded == b""


@pytest.mark.parametrize("results", [0, 2])
def test_other_results_than_one_image_are_refused(platform, command, results):
    platform.results = results
    status, line = command()
    assert status == 1
    assert f"{results} result images" in line


def test_a_mask_of_another_image_is_refused(platform, command, mask, tmp_path):
    other = Geometry(GEOMETRY.size_xyz, GEOMETRY.spacing_xyz, (0.0, 0.0, 0.0))
    write_image(Volume(mask.array_zyx, other), platform.mask)
    status, line = command("--job", "job-1")
    assert status == 1
    assert "does not lie on the image's grid" in line
    assert not (tmp_path / "mask.nii.gz").exists()


def test_an_outdated_client_is_reported(platform, command):
    platform.newest = "99.0"
    status, line = command()
    assert status == 2
    assert "newer client library" in line


def test_an_answer_that_gcapi_does_not_understand_is_one_line(platform, command, monkeypatch):
    monkeypatch.setattr(platform, "job", lambda state: {**Platform.job(platform, state), "pk": []})
    status, line = command()
    assert status == 1
    assert "answers otherwise than gcapi expects" in line


def test_without_a_token_nothing_is_asked(platform, command, monkeypatch):
    monkeypatch.delenv(submit.TOKEN_VARIABLE)
    status, line = command()
    assert status == 2
    assert submit.TOKEN_VARIABLE in line
    assert platform.seen == []


def test_a_damaged_image_is_not_uploaded(platform, command, tmp_path):
    (tmp_path / "image.mha").write_bytes(b"nothing")
    assert command()[0] == 2
    assert platform.seen == []
