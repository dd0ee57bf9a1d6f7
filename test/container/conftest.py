import subprocess
from collections.abc import Callable

import pytest
from emulate import ENGINE


def asked_for(config: pytest.Config) -> bool:
    """Whether these tests were named, so that not to run them would be a failure."""
    named = any("test/container" in str(word) for word in config.invocation_params.args)
    return named or config.getoption("markexpr", "") == "container"


@pytest.fixture
def unavailable(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Skip a test for a reason, or fail it where it was asked for by name."""
    return pytest.fail if asked_for(request.config) else pytest.skip


@pytest.fixture
def built_image(unavailable: Callable[[str], None]) -> Callable[[str], str]:
    """A task's image by name; without an engine or an image there is nothing to test."""

    def image_of(task: str) -> str:
        def answers(*arguments: str) -> bool:
            command = [ENGINE, *arguments]
            done = subprocess.run(command, capture_output=True, timeout=60, check=False)
            return done.returncode == 0

        try:
            engine = answers("info")
        except (OSError, subprocess.TimeoutExpired):
            engine = False
        if not engine:
            unavailable(f"no container engine ({ENGINE}) answers")
        image = f"gc-panther-{task}"
        if not answers("image", "inspect", image):
            unavailable(f"{image} is not built (test/container/build.sh)")
        return image

    return image_of
