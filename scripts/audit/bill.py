"""What an image is made of, and what is known to be wrong with it.

    python3 scripts/audit/bill.py gc-panther-task2 out/bill/task2 [--strict]

Writes ``sbom.cdx.json`` (CycloneDX, by cyclonedx-py) and ``audit.json`` (by pip-audit, which asks
for the known vulnerabilities of every package over the network; without it that is said, and
nothing is claimed). With ``--strict`` a known vulnerability, or no answer, is exit status 1.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCK = Path(__file__).with_name("requirements.lock")
#: Packs what the image's Python knows of its packages, and none of their code.
PACK = (
    "import sys, tarfile, pathlib, sysconfig; site = pathlib.Path(sysconfig.get_path('purelib'));"
    "out = tarfile.open(fileobj=sys.stdout.buffer, mode='w|');"
    "[out.add(f, f'{d.name}/{f.name}') for d in sorted(site.glob('*.dist-info'))"
    " for f in (d / 'METADATA',)]; out.close()"
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


def copy_metadata(image: str, folder: Path) -> list[str]:
    """Put the metadata of the image's packages into an empty environment; ``name==version``."""
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder)
    (site,) = folder.glob("lib/python3*/site-packages")
    command = ["docker", "run", "--rm", "--network", "none", "--entrypoint", "python3", image]
    packed = subprocess.run([*command, "-c", PACK], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        for member in archive:
            content = archive.extractfile(member)
            target = site / Path(member.name).parent.name / "METADATA"
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(content.read() if content else b"")
    pins = []
    for metadata in sorted(site.glob("*.dist-info/METADATA")):
        # Older packages' metadata holds what is no UTF-8.
        lines = metadata.read_text(errors="replace").splitlines()
        found = dict(
            line.split(": ", 1) for line in lines if line.startswith(("Name: ", "Version: "))
        )
        pins.append(f"{found['Name']}=={found['Version']}")
    return pins


def write_bill(bin_folder: Path, environment: Path, file: Path) -> int:
    """Write the CycloneDX document; how many packages it lists."""
    command = [bin_folder / "cyclonedx-py", "environment", "--output-reproducible"]
    command += ["--output-file", file, environment / "bin" / "python"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return len(json.loads(file.read_text())["components"])


def audit(bin_folder: Path, pins: list[str], file: Path) -> tuple[list[tuple[str, ...]], str]:
    """Known vulnerabilities as (package, id, fixed in), and why there may be more, or empty."""
    wanted = file.with_name("packages.txt")
    # A build's local version (2.13.0+cpu) is no release that anyone lists.
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
    count = write_bill(bin_folder, environment, arguments.out / "sbom.cdx.json")
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
