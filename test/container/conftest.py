import subprocess
from collections.abc import Callable

import pytest


@pytest.fixture
def built_image() -> Callable[[str], str]:
    """A task's image by name; where there is no engine or image, there is nothing to test."""

    def image_of(task: str) -> str:
        def answers(*arguments: str) -> bool:
            command = ["docker", *arguments]
            done = subprocess.run(command, capture_output=True, timeout=60, check=False)
            return done.returncode == 0

        try:
            engine = answers("info")
        except (OSError, subprocess.TimeoutExpired):
            engine = False
        if not engine:
            pytest.skip("no Docker engine answers")
        image = f"gc-panther-{task}"
        if not answers("image", "inspect", image):
            pytest.skip(f"{image} is not built (test/container/build.sh)")
        return image

    return image_of
