"""A stand-in for the platform: answers the REST calls that gcapi makes for a job, in this process.

As a program it is `gc-panther` that talks to the stand-in, whose algorithm finds the mask FILE:

    python platform_stand_in.py FILE submit my-algorithm image.mha -o mask.mha
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import httpx

HOST = "https://platform.test"
TOKEN = "0123456789abcdef-a-secret"  # noqa: S105


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


def main() -> None:
    """Run gc-panther with the stand-in."""
    from gc_panther import cli
    from gc_panther.commands import submit

    platform = Platform(Path(sys.argv[1]))
    httpx.HTTPTransport.handle_request = lambda *arguments: platform.handle(*arguments)
    submit.PLATFORM = f"{HOST}/api/v1/"
    submit.INTERVAL_S = 0.0
    os.environ[submit.TOKEN_VARIABLE] = TOKEN
    sys.argv[1:2] = []
    cli.main()


if __name__ == "__main__":
    main()
