"""`gc-panther submit` with the platform's client library, and a stand-in for the platform.

The stand-in answers the REST calls that gcapi makes for a job, in this process: nothing here shows
that the platform itself would answer so.
"""

from __future__ import annotations

import json
import logging

import httpx
import numpy as np
import pytest

from gc_panther import cli
from gc_panther.case import Geometry, Volume
from gc_panther.harness import submit
from gc_panther.imaging.images import read_image, write_image

pytest.importorskip("gcapi", reason="needs gc-panther[submit]")

HOST = "https://platform.test"
TOKEN = "0123456789abcdef-a-secret"  # noqa: S105
GEOMETRY = Geometry((6, 5, 4), (1.0, 1.5, 3.0), (10.0, -20.0, 5.0))


def socket(slug, super_kind="Image"):
    return {
        "title": slug, "description": "", "slug": slug, "kind": "Image", "pk": 7,
        "default_value": None, "super_kind": super_kind, "relative_path": f"images/{slug}",
        "overlay_segments": [], "look_up_table": None,
    }  # fmt: skip


class Platform:
    """An algorithm that segments every uploaded image as the mask it is given."""

    def __init__(self, mask):
        self.mask = mask
        self.inputs = [socket("abdominal-t1-mri")]
        self.states = ["Queued", "Executing", "Succeeded"]
        self.uploaded, self.started, self.seen = b"", [], []
        self.fail_with, self.newest, self.results = {}, "0.1", 1

    def handle(self, _transport, request):
        path = request.url.path.removeprefix("/api/v1/")
        self.seen.append(f"{request.method} {path}")
        for part, code in self.fail_with.items():
            if part in path:
                if isinstance(code, Exception):
                    raise code
                return httpx.Response(code, json={"detail": "no"}, request=request)
        if path != "gcapi/" and not path.startswith(("s3/", "media/")):
            assert request.headers["Authorization"] == f"BEARER {TOKEN}"
        answer = self.answer(request, path)
        if isinstance(answer, httpx.Response):
            answer.request = request
            return answer
        return httpx.Response(200, json=answer, request=request)

    def answer(self, request, path):
        body = request.read()
        upload = {
            "pk": "up", "created": "now", "filename": "image.mha", "key": "key",
            "s3_upload_id": "s3", "status": "Completed", "api_url": f"{HOST}/api/v1/uploads/up/",
        }  # fmt: skip
        if path == "gcapi/":
            return {"latest_version": self.newest, "lowest_supported_version": self.newest}
        if path == "algorithms/":
            assert request.url.params["slug"] == "my-algorithm"
            return {"count": 1, "next": None, "previous": None, "results": [self.algorithm()]}
        if path.startswith("components/interfaces/"):
            return {"count": 1, "next": None, "previous": None, "results": self.inputs[:1]}
        if path == "uploads/":
            return upload
        if path.endswith("generate-presigned-urls/"):
            numbers = json.loads(body)["part_numbers"]
            return {**upload, "presigned_urls": {str(n): f"{HOST}/api/v1/s3/{n}" for n in numbers}}
        if path.startswith("s3/"):
            self.uploaded += body
            return httpx.Response(200, headers={"ETag": "tag"})
        if path.endswith("complete-multipart-upload/"):
            return upload
        if path == "algorithms/jobs/":
            self.started.append(json.loads(body))
            return {"pk": "job-1", "inputs": [], "status": "Queued"}
        if path == "algorithms/jobs/job-1/":
            state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            return self.job(state)
        if path == "cases/images/mask/":
            return self.image()
        if path == "media/mask.mha":
            return httpx.Response(200, content=self.mask.read_bytes())
        raise AssertionError(f"gcapi asked for {request.method} {path}")

    def algorithm(self):
        interface = {"inputs": self.inputs, "outputs": [socket("tumor")]}
        return {
            "api_url": f"{HOST}/api/v1/algorithms/1/", "url": f"{HOST}/algorithms/my-algorithm/",
            "description": "", "pk": "1", "title": "Mine", "logo": "", "slug": "my-algorithm",
            "average_duration": None, "interfaces": [interface],
        }  # fmt: skip

    def job(self, state):
        value = {"socket": socket("tumor"), "interface": socket("tumor"), "value": None,
                 "file": None, "image": f"{HOST}/api/v1/cases/images/mask/", "pk": 2}  # fmt: skip
        report = {**value, "interface": socket("results", "File"), "image": None}
        return {
            "pk": "job-1", "url": f"{HOST}/jobs/1/", "api_url": f"{HOST}/api/v1/jobs/1/",
            "algorithm_image": "", "inputs": [],
            "outputs": [report, *[value] * self.results] if state == "Succeeded" else [],
            "status": state, "hanging_protocol": None, "optional_hanging_protocols": [],
            "view_content": {}, "exec_duration": None, "invoke_duration": None, "algorithm": "1",
        }  # fmt: skip

    def image(self):
        from gcapi.models import HyperlinkedImage

        kinds = {name: str(f.type) for name, f in HyperlinkedImage.__dataclass_fields__.items()}
        empty = {"list": [], "str": "", "int": 0}
        fields = {
            name: None if "None" in kind else empty[kind.partition("[")[0]]
            for name, kind in kinds.items()
        }
        file = {"pk": "f", "image": None, "file": f"{HOST}/api/v1/media/mask.mha",
                "image_type": "MHD"}  # fmt: skip
        return {**fields, "pk": "mask", "name": "mask.mha", "files": [file]}


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
def test_a_job_that_fails_is_told_with_its_page(platform, command, tmp_path, state):
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


def test_an_outdated_client_is_told(platform, command):
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
