"""Lets an algorithm on the platform itself segment a local image.

All REST calls are those of gcapi, the platform's own client. It takes the token from the
environment (``GRAND_CHALLENGE_AUTHORIZATION``), from which no log or error line ever repeats it.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gc_panther.case import Volume
from gc_panther.commands.predict import check_targets
from gc_panther.errors import OutputError, ProcessingError, UserError
from gc_panther.imaging.images import read_image, write_image

logger = logging.getLogger(__name__)

#: From which gcapi takes the token.
TOKEN_VARIABLE = "GRAND_CHALLENGE_AUTHORIZATION"  # noqa: S105 - a name, not a token
PLATFORM = "https://grand-challenge.org/api/v1/"
#: Seconds between two questions for a job's state.
INTERVAL_S = 15.0
#: The platform's last states of a job; every other one is on the way to one of them.
SUCCEEDED, ENDED = "Succeeded", ("Succeeded", "Failed", "Cancelled")


@dataclass(frozen=True)
class Submission:
    """What is sent where.

    Attributes:
        algorithm: its slug, the last part of its page's address.
        image: file to segment.
        mask: where the result goes; an existing file is replaced.
        job: a job that was started earlier for this image, to wait for instead of a new one.
        timeout_s: how long to wait for its end, seconds.
        url: of the platform's REST interface.
    """

    algorithm: str
    image: Path
    mask: Path
    job: str = ""
    timeout_s: float = 3600.0
    url: str = PLATFORM


def submit(submission: Submission, sleep: Callable[[float], None] = time.sleep) -> Path:
    """Upload an image, let the algorithm segment it, and fetch the mask.

    Args:
        submission: what and where.
        sleep: waits; tests pass another.

    Returns:
        The mask's file.

    Raises:
        UserError: gcapi or the token is missing, the platform refuses it, or the algorithm does
            not exist or takes something else than one image.
        OutputError: the job's result is not one mask on the image's grid.
        ProcessingError: the platform cannot be reached, or the job failed or takes too long.
    """
    check_targets(submission.image, submission.mask)
    image = read_image(submission.image)
    client = _client(submission.url)
    with client, _platform_errors(submission):
        pk = submission.job or _start(client, submission)
        job = _wait(client, pk, submission, sleep)
        mask = _download(client, job, image, submission)
    write_image(mask, submission.mask)
    return submission.mask


def _client(url: str) -> Any:
    try:
        import gcapi
    except ImportError as error:
        raise UserError(
            "the platform's client library is not installed",
            fix="Run pip install 'gc-panther[submit]'",
        ) from error
    if not os.environ.get(TOKEN_VARIABLE, "").strip():
        raise UserError(
            f"there is no token in {TOKEN_VARIABLE}",
            fix="Make one on the platform (your profile, API tokens) and export it",
        )
    # What it logs of requests are addresses and bodies, which hold upload keys.
    for name in ("httpx", "httpcore", "gcapi"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with _platform_errors(None):
        return gcapi.Client(base_url=url)


def _start(client: Any, submission: Submission) -> str:
    """Upload the image and start the job; its primary key."""
    import gcapi

    algorithm = client.algorithms.detail(slug=submission.algorithm)
    inputs = [interface.inputs for interface in algorithm.interfaces]
    socket = next((given[0] for given in inputs if len(given) == 1 and _is_image(given[0])), None)
    if socket is None:
        known = " or ".join(" + ".join(socket.slug for socket in given) for given in inputs)
        raise UserError(
            f"the algorithm takes something else than one image ({known or 'nothing'})",
            where=submission.algorithm,
            fix="Start it on its page",
        )
    size = submission.image.stat().st_size / 1e6
    logger.info("uploading %s (%.1f MB) to %s", submission.image, size, algorithm.url)
    given = gcapi.SocketValueSpec(socket_slug=socket.slug, file=submission.image)
    started = client.start_algorithm_job(algorithm_slug=submission.algorithm, inputs=[given])
    logger.info("job %s", started.pk)
    return str(started.pk)


def _wait(client: Any, pk: str, submission: Submission, sleep: Callable[[float], None]) -> Any:
    """The job at its end; each change of its state is logged."""
    later = f"Wait for it with --job {pk}"
    deadline = time.monotonic() + submission.timeout_s
    state = ""
    try:
        while True:
            job = client.algorithm_jobs.detail(pk=pk)
            if job.status != state:
                state = job.status
                logger.info("job %s: %s", pk, state)
            if state in ENDED:
                break
            if time.monotonic() >= deadline:
                raise ProcessingError(
                    f"the job has not ended after {submission.timeout_s:.0f} s (it is {state!r})",
                    where=job.url,
                    fix=later,
                )
            sleep(INTERVAL_S)
    except KeyboardInterrupt:
        raise ProcessingError("interrupted; the job goes on", where=pk, fix=later) from None
    if state != SUCCEEDED:
        raise ProcessingError(
            f"the job ended as {state!r}", where=job.url, fix="Its page there shows the reason"
        )
    return job


def _download(client: Any, job: Any, image: Volume, submission: Submission) -> Volume:
    """The job's only image, checked against the one that was sent."""
    images = [value.image for value in job.outputs if _is_image(value.interface) and value.image]
    if len(images) != 1:
        raise OutputError(f"the job has {len(images)} result images, not one", where=job.url)
    with tempfile.TemporaryDirectory() as folder:
        files = client.images.download(url=images[0], output_directory=folder)
        if len(files) != 1:
            raise OutputError(f"the result has {len(files)} files, not one", where=job.url)
        mask = read_image(files[0])
    if not mask.geometry.matches(image.geometry, tolerance=1e-4):
        raise OutputError(
            "the result does not lie on the image's grid",
            where=job.url,
            fix=f"Is {submission.image} the image that the job was started with?",
        )
    return Volume(mask.array_zyx, image.geometry)


def _is_image(socket: Any) -> bool:
    return str(socket.super_kind).casefold() == "image"


@contextmanager
def _platform_errors(submission: Submission | None) -> Iterator[None]:
    """Say in one line what the platform answered."""
    import gcapi.check_version
    import gcapi.exceptions
    import httpx
    import pydantic

    try:
        yield
    except gcapi.exceptions.ObjectNotFound as error:
        missing = (submission.job or submission.algorithm) if submission else ""
        raise UserError(
            "the platform knows no such algorithm or job, or the token may not see it",
            where=missing,
            fix="Take the last part of the algorithm's address; check the token's owner",
        ) from error
    except gcapi.check_version.UnsupportedVersionError as error:
        raise UserError(
            "the platform requires a newer client library", fix="Run pip install --upgrade gcapi"
        ) from error
    except httpx.HTTPStatusError as error:
        code = error.response.status_code
        if code in (401, 403):
            raise UserError(
                f"the platform refuses the token ({code})",
                where=TOKEN_VARIABLE,
                fix="Make a new one on the platform, with the right to use the algorithm",
            ) from error
        raise ProcessingError(
            f"the platform answered {code} {error.response.reason_phrase}",
            where=error.request.url.path,
            fix="Try again later",
        ) from error
    except httpx.TransportError as error:
        raise ProcessingError(
            f"the platform cannot be reached ({type(error).__name__})",
            fix="Check the network, or --url",
        ) from error
    except pydantic.ValidationError as error:
        raise ProcessingError(
            f"the platform answers otherwise than gcapi expects ({error.title})",
            fix="Run pip install --upgrade gcapi",
        ) from error
    except RuntimeError as error:
        # gcapi's own refusals: of the address and of the token's form.
        raise UserError(f"gcapi: {error}", fix="Check --url and the token") from error
