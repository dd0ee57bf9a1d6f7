"""Writes an image's SBOM, and an audit of its Python packages.

    python3 scripts/audit/sbom.py gc-panther-task2 out/sbom/task2 [--strict]

Writes ``sbom.cdx.json`` (CycloneDX: the Python packages by cyclonedx-py, our own distributions
among them, the Debian packages, and the image with its digest) and ``audit.json`` (by pip-audit,
which asks for the known vulnerabilities of every package over the network; where that fails, the
program says so and claims nothing). With ``--strict`` a known vulnerability, or no answer, is exit
status 1.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import urllib.parse
import venv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LOCK = Path(__file__).with_name("requirements.lock")
#: docker, or podman, which takes the same commands.
ENGINE = os.environ.get("CONTAINER_ENGINE") or "docker"
#: Packs what the image's Python knows of its packages, and none of their code. Our own
#: distributions lie in a folder of their own on its path.
PACK = (
    "import sys, tarfile, pathlib;"
    "out = tarfile.open(fileobj=sys.stdout.buffer, mode='w|');"
    "[out.add(d / 'METADATA', f'{d.name}/METADATA') for p in sys.path if p"
    " for d in sorted(pathlib.Path(p).glob('*.dist-info'))]; out.close()"
)
#: Prints name, version and architecture of each Debian package; nothing on other systems.
DEBIAN = (
    "command -v dpkg-query > /dev/null || exit 0; "
    "dpkg-query -W -f '${Package}\\t${Version}\\t${Architecture}\\n'"
)
#: Not from a registry, so nobody keeps a list of their faults.
OWN = "gc-panther"


def tools() -> Path:
    """A virtual environment with cyclonedx-py and pip-audit, made when first needed."""
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    folder = ROOT / "out" / "audit" / f"tools-{digest}"
    if not (folder / "ready").is_file():
        print("==> Installing cyclonedx-py and pip-audit, once", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        command = [folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*command, "--no-deps", "--require-hashes", "-r", LOCK], check=True)
        (folder / "ready").touch()
    return folder / "bin"


def in_image(image: str, program: str, script: str) -> bytes:
    """What a script prints in the image, without network."""
    command = [ENGINE, "run", "--rm", "--network", "none", "--entrypoint", program, image]
    return subprocess.run([*command, "-c", script], check=True, capture_output=True).stdout


def copy_metadata(image: str, folder: Path) -> list[str]:
    """Put the metadata of the image's packages into an empty environment; ``name==version``."""
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder)
    (site,) = folder.glob("lib/python3*/site-packages")
    packed = in_image(image, "python3", PACK)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        for member in archive:
            content = archive.extractfile(member)
            target = site / Path(member.name).parent.name / "METADATA"
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(content.read() if content else b"")
    pins = []
    for metadata in sorted(site.glob("*.dist-info/METADATA")):
        # Older packages' metadata is not always valid UTF-8.
        lines = metadata.read_text(errors="replace").splitlines()
        found = dict(
            line.split(": ", 1) for line in lines if line.startswith(("Name: ", "Version: "))
        )
        pins.append(f"{found['Name']}=={found['Version']}")
    return pins


def write_sbom(bin_folder: Path, environment: Path, image: str, file: Path) -> int:
    """Write the CycloneDX document; return how many packages it lists."""
    command = [bin_folder / "cyclonedx-py", "environment", "--output-reproducible"]
    command += ["--output-file", file, environment / "bin" / "python"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    identity = [ENGINE, "image", "inspect", "-f", "{{.Id}}", image]
    digest = subprocess.run(identity, check=True, capture_output=True, text=True).stdout.strip()
    debian = in_image(image, "sh", DEBIAN).decode().splitlines()
    document = completed(json.loads(file.read_text()), image, digest, debian)
    file.write_text(json.dumps(document, indent=2) + "\n")
    return len(document["components"])


def completed(
    document: dict[str, Any], image: str, digest: str, debian: Iterable[str]
) -> dict[str, Any]:
    """A CycloneDX document with the image it is about, and the image's Debian packages.

    Args:
        document: what cyclonedx-py wrote of the Python packages.
        image: its name.
        digest: ``sha256:…``, the engine's identity of the image; Podman leaves out the prefix.
        debian: name, version and architecture of each package, with tabs between.
    """
    sha256 = digest.removeprefix("sha256:")
    container = {
        "type": "container",
        "bom-ref": f"image:{image}",
        "name": image,
        "version": f"sha256:{sha256}",
        "hashes": [{"alg": "SHA-256", "content": sha256}],
    }
    components = [*document.get("components", [])]
    for line in debian:
        name, version, architecture = line.split("\t")
        # A purl's version keeps none of the characters that separate its parts.
        purl = f"pkg:deb/debian/{name}@{urllib.parse.quote(version, safe='')}?arch={architecture}"
        components.append(
            {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
        )
    metadata = {**document.get("metadata", {}), "component": container}
    return {**document, "metadata": metadata, "components": components}


def audit(bin_folder: Path, pins: list[str], file: Path) -> tuple[list[tuple[str, ...]], str]:
    """Known vulnerabilities as (package, id, fixed in), and why there may be more, or empty."""
    wanted = file.with_name("packages.txt")
    # No vulnerability database lists a build's local version (2.13.0+cpu).
    listed = [pin.partition("+")[0] for pin in pins if not pin.startswith(OWN)]
    wanted.write_text("\n".join(listed) + "\n")
    command = [bin_folder / "pip-audit", "--requirement", wanted, "--no-deps", "--disable-pip"]
    command += ["--progress-spinner", "off", "--format", "json", "--output", file]
    file.unlink(missing_ok=True)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if not file.is_file():
        last = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        return [], last
    packages = json.loads(file.read_text())["dependencies"]
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    found = [
        (f"{package['name']} {package['version']}", fault["id"], ", ".join(fault["fix_versions"]))
        for package in packages
        for fault in package.get("vulns", [])
    ]
    if skipped:
        return (
            found,
            f"no answer about {len(skipped)} of {len(packages)} packages ({skipped[0]}, …)",
        )
    return found, ""


def main() -> int:
    """Write both files and say what is in them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("image")
    parser.add_argument("out", type=Path)
    parser.add_argument("--strict", action="store_true")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    bin_folder, environment = tools(), arguments.out / "environment"
    pins = copy_metadata(arguments.image, environment)
    count = write_sbom(bin_folder, environment, arguments.image, arguments.out / "sbom.cdx.json")
    shutil.rmtree(environment)
    print(f"==> {count} packages: {arguments.out / 'sbom.cdx.json'}")
    found, incomplete = audit(bin_folder, pins, arguments.out / "audit.json")
    for package, fault, fixed in found:
        print(f"    {package}: {fault}, {f'fixed in {fixed}' if fixed else 'no fix yet'}")
    if incomplete:
        print(f"==> Not audited for known vulnerabilities: {incomplete}")
    else:
        print(f"==> {len(found)} known vulnerabilities: {arguments.out / 'audit.json'}")
    return 1 if arguments.strict and (found or incomplete) else 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except subprocess.CalledProcessError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
