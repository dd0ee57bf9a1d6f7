"""What the SBOM lists besides the Python packages that cyclonedx-py finds."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import sbom

DIGEST = "0123456789abcdef" * 4
DEBIAN = ["libc6\t2.36-9+deb12u10\tamd64", "tzdata\t2025b-0+deb12u1\tall"]


@pytest.mark.parametrize("prefix", ["sha256:", ""])
def test_the_image_and_its_debian_packages_are_listed(prefix: str) -> None:
    document = {"metadata": {"tools": []}, "components": [{"name": "numpy"}]}
    found: Any = sbom.completed(document, "gc-panther-task1", prefix + DIGEST, DEBIAN)
    image = found["metadata"]["component"]
    assert (image["type"], image["name"]) == ("container", "gc-panther-task1")
    assert image["version"] == f"sha256:{DIGEST}"
    assert image["hashes"] == [{"alg": "SHA-256", "content": DIGEST}]
    assert [component["name"] for component in found["components"]] == ["numpy", "libc6", "tzdata"]
    assert found["components"][1]["purl"] == "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64"
    references = [component.get("bom-ref") for component in found["components"][1:]]
    assert len(set(references)) == 2


def test_our_own_distributions_are_packed_from_their_folder_on_the_path(tmp_path: Path) -> None:
    for folder, name in (("venv", "numpy-2.0"), ("opt", "gc_panther-0.1.0")):
        metadata = tmp_path / folder / f"{name}.dist-info" / "METADATA"
        metadata.parent.mkdir(parents=True)
        metadata.write_text("Name: x\nVersion: 1\n")
    paths = [str(tmp_path / "venv"), str(tmp_path / "opt")]
    script = f"import sys; sys.path[:] = ['', *{paths!r}]; {sbom.PACK}"
    # What the script imports is loaded before its path is changed.
    command = [sys.executable, "-c", f"import tarfile, pathlib; {script}"]
    packed = subprocess.run(command, capture_output=True, check=True, cwd=tmp_path).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        names = [member.name for member in archive]
    assert names == ["numpy-2.0.dist-info/METADATA", "gc_panther-0.1.0.dist-info/METADATA"]


ENGINE_STAND_IN = r"""#!/bin/sh
case "$1" in
    image) echo sha256:%s ;;
    run) printf 'libc6\t2.36-9\tamd64\n' ;;
esac
"""


def test_the_document_of_cyclonedx_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in {
        "engine": ENGINE_STAND_IN % DIGEST,
        "cyclonedx-py": '#!/bin/sh\nprintf \'{"components": [{"name": "numpy"}]}\' > "$4"\n',
    }.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(sbom, "ENGINE", str(tmp_path / "engine"))
    file = tmp_path / "sbom.cdx.json"
    assert sbom.write_sbom(tmp_path, tmp_path, "gc-panther-task1", file) == 2
    found = json.loads(file.read_text())
    assert [component["name"] for component in found["components"]] == ["numpy", "libc6"]
    assert found["metadata"]["component"]["version"] == f"sha256:{DIGEST}"
