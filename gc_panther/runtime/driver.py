"""The version of NVIDIA's driver, found without torch, and the driver that a CUDA version needs."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

#: What the kernel module says about itself, in containers as well.
_MODULE = Path("/proc/driver/nvidia/version")
_VERSION = re.compile(r"(?<![\w.])\d{3,}\.\d+(?:\.\d+)?(?![\w.])")

#: The oldest driver by CUDA's major version (NVIDIA, CUDA Compatibility, minor version
#: compatibility): 11.1 to 11.8, 12.x and 13.x.
_OLDEST = {11: 450, 12: 525, 13: 580}


def driver_version() -> str | None:
    """Such as ``570.133.20``; None where there is no driver.

    WSL has ``nvidia-smi`` but no kernel module.
    """
    try:
        found = _VERSION.search(_MODULE.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        found = None
    return found[0] if found else _nvidia_smi()


def _nvidia_smi() -> str | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = _VERSION.search(done.stdout) if done.returncode == 0 else None
    return found[0] if found else None


def too_old(driver: str, cuda: str) -> str:
    """Say which driver a CUDA version needs; empty where the driver is new enough or unknown.

    Args:
        driver: as :func:`driver_version` gives it.
        cuda: torch's CUDA version, such as ``12.6``.
    """
    major = cuda.partition(".")[0]
    oldest = _OLDEST.get(int(major)) if major.isdigit() else None
    if oldest is None or int(driver.partition(".")[0]) >= oldest:
        return ""
    return f"CUDA {cuda} needs driver {oldest} or newer"
