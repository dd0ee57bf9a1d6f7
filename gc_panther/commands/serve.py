"""``gc-panther serve``: an HTTP server that loads the networks once, for case after case.

The platform asks ``GET /health`` until it gets 200, then sends ``POST /invoke`` for each case: the
input is in ``/input`` by then, 201 means that the output is in ``/output``, and anything else is
a failure.

The standard library's server is enough for two paths and one client, and nothing more has to be
audited. Requests are answered in threads, so that ``/health`` answers while a case is being
segmented; cases are segmented in the main thread, one at a time, where a signal reaches them.
"""

from __future__ import annotations

import json
import logging
import queue
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pluggy

from gc_panther import interruption
from gc_panther.commands.flow import process
from gc_panther.console import say
from gc_panther.errors import InputError, UserError, describe, error_line
from gc_panther.memory import release_memory, settle_memory
from gc_panther.platform.inputs import read_case
from gc_panther.platform.outputs import (
    platform_outputs,
    remove_earlier_mask,
    remove_earlier_results,
)
from gc_panther.session import Choices, Session, check_sockets, errors_notified
from gc_panther.settings import Settings
from gc_panther.task import Task

logger = logging.getLogger(__name__)

#: The platform's port.
PORT = 4743
#: Longest silence of a client inside a request, seconds.
CLIENT_TIMEOUT_S = 10
#: The platform sends an empty body; a longer body is refused, bytes.
MAX_BODY = 1 << 16
#: Seconds between two checks for a signal while the server is idle.
POLL_S = 0.2

_NUMBER = re.compile("[0-9]+")

#: Segments the case in the input folder; returns JSON-compatible facts.
ProcessCase = Callable[[], dict[str, Any]]


def serve(
    task: Task,
    manager: pluggy.PluginManager,
    settings: Settings,
    choices: Choices,
    *,
    input_path: Path,
    output_path: Path,
    host: str,
    port: int,
) -> None:
    """Load the networks, test them, and segment cases until a signal ends the process.

    Args:
        task: the task.
        manager: the plugins.
        settings: the environment.
        choices: device, weights and inference options; a time limit is that of each case.
        input_path: the platform's ``/input``; a symlink may lead elsewhere for each case.
        output_path: the platform's ``/output``.
        host: address to listen on.
        port: to listen on.

    Returns at SIGTERM while the server is idle: that is how the platform ends it.

    Raises:
        GCPantherError: the port is unavailable, or the networks cannot be loaded or fail the test.
        Interrupted: a signal came during loading or while a case was being segmented.
    """
    check_sockets(task, manager)
    with InvokeServer(host=host, port=port) as server, ExitStack() as stack:
        with errors_notified(manager, task):
            session = stack.enter_context(Session(task, manager, settings, choices))
            session.self_test()
        server.run(partial(serve_case, session, manager, input_path, output_path))


def serve_case(
    session: Session, manager: pluggy.PluginManager, input_path: Path, output_path: Path
) -> dict[str, Any]:
    """Segment the case in the input folder.

    Returns:
        Its name, and the seconds that it took.

    Raises:
        GCPantherError: the case failed; the output folder holds no results then.
    """
    with errors_notified(manager, session.task):
        # Whatever comes of this case: the earlier one's results are not its own.
        remove_earlier_results(output_path, session.task)
        case = read_case(input_path, session.task)
    with errors_notified(manager, session.task, case):
        outputs = platform_outputs(session.task, case, output_path)
        remove_earlier_mask(outputs.mask)
        report = process(session, case, outputs)
    return {"case": report["case"], "seconds": report["seconds"]["total"]}


@dataclass
class _Invocation:
    """One request to segment, on its way from its thread to the main thread and back."""

    done: threading.Event = field(default_factory=threading.Event)
    status: int = HTTPStatus.SERVICE_UNAVAILABLE
    answer: dict[str, Any] = field(default_factory=lambda: {"error": "the server stops"})


class InvokeServer:
    """Answers the platform's two requests. Use it as a context manager: it owns a port.

    Args:
        host: address to listen on.
        port: to listen on; 0 takes a free one.

    Raises:
        UserError: the port is unavailable.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int = PORT) -> None:
        self._waiting: queue.Queue[_Invocation | None] = queue.Queue()
        self._busy = threading.Lock()
        self._ready = False
        self._current: _Invocation | None = None
        try:
            self._server = _Server((host, port), _handler_of(self))
        except OSError as error:
            raise UserError(
                f"port {port} on {host} is unavailable ({error.strerror})",
                fix="Stop the other server, or choose another --port",
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    @property
    def idle(self) -> bool:
        """Whether it is ready and no case is being segmented."""
        return self._ready and self._current is None

    def __enter__(self) -> InvokeServer:
        """Answer requests from now on; not healthy until :meth:`run`."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Answer a client that still waits, and release the port."""
        if self._current is not None:
            self._current.done.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def run(self, process: ProcessCase) -> None:
        """Be healthy, and segment cases until :meth:`stop` or, when idle, until SIGTERM.

        Args:
            process: segments the case in the input folder.

        Raises:
            Interrupted: a signal came while a case was being segmented, or SIGINT came.
        """
        settle_memory()
        self._ready = True
        logger.info("ready: listening on port %d", self.port)
        while (invocation := self._next()) is not None:
            self._current = invocation
            invocation.status, invocation.answer = self._answer_of(process)
            self._current = None
            invocation.done.set()
            release_memory()

    def _next(self) -> _Invocation | None:
        """The next request; None where there is to be none."""
        while True:
            try:
                return self._waiting.get(timeout=POLL_S)
            except queue.Empty:
                try:
                    interruption.check()
                except interruption.Interrupted as stop:
                    if stop.number == signal.SIGTERM:
                        return None
                    raise

    def stop(self) -> None:
        """Let :meth:`run` return after the case it is at."""
        self._waiting.put(None)

    def health(self) -> tuple[int, dict[str, Any]]:
        """Answer ``GET /health``."""
        if self._ready:
            return HTTPStatus.OK, {"healthy": True, "idle": self.idle}
        return HTTPStatus.SERVICE_UNAVAILABLE, {"healthy": False}

    def invoke(self) -> tuple[int, dict[str, Any]]:
        """Answer ``POST /invoke``, when the case is done."""
        if not self._ready:
            return HTTPStatus.SERVICE_UNAVAILABLE, {"error": "the networks are being loaded"}
        if not self._busy.acquire(blocking=False):
            return HTTPStatus.CONFLICT, {"error": "another case is being segmented"}
        try:
            invocation = _Invocation()
            self._waiting.put(invocation)
            invocation.done.wait()
            return invocation.status, invocation.answer
        finally:
            self._busy.release()

    def _answer_of(self, process: ProcessCase) -> tuple[int, dict[str, Any]]:
        try:
            return HTTPStatus.CREATED, process()
        except Exception as error:  # noqa: BLE001 - one case's failure is not the next one's
            message, _ = describe(error)
            if "internal error" in message:
                say(traceback.format_exc())
            print(error_line(message), file=sys.stderr, flush=True)
            blamed = isinstance(error, InputError)
            status = HTTPStatus.BAD_REQUEST if blamed else HTTPStatus.INTERNAL_SERVER_ERROR
            return status, {"error": message}


class _Server(ThreadingHTTPServer):
    """A server that logs one line when a client disconnects."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if isinstance(error, (ConnectionError, TimeoutError)):
            logger.info("a client left before its answer (%s)", type(error).__name__)
        else:
            logger.error("a request failed", exc_info=error)


def _handler_of(server: InvokeServer) -> type[BaseHTTPRequestHandler]:
    """The standard library wants a class; this one answers for a server."""
    routes = {("GET", "/health"): server.health, ("POST", "/invoke"): server.invoke}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = CLIENT_TIMEOUT_S

        def do_GET(self) -> None:
            self._route()

        def do_POST(self) -> None:
            self._route()

        def log_message(self, format: str, *values: Any) -> None:
            logger.debug(format, *values)

        def _route(self) -> None:
            length, *others = self.headers.get_all("Content-Length", ["0"])
            if "Transfer-Encoding" in self.headers or others or not _NUMBER.fullmatch(length):
                return self._answer(HTTPStatus.LENGTH_REQUIRED, {"error": "send an empty body"})
            # Compared as text first: Python refuses to read a number of thousands of digits.
            if len(length) > len(str(MAX_BODY)) or int(length) > MAX_BODY:
                return self._answer(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": "send an empty body"}
                )
            if len(self.rfile.read(int(length))) < int(length):
                raise ConnectionAbortedError("the body ends early")
            path = self.path.partition("?")[0]
            if (self.command, path) in routes:
                return self._answer(*routes[self.command, path]())
            known = any(path == route for _, route in routes)
            status = HTTPStatus.METHOD_NOT_ALLOWED if known else HTTPStatus.NOT_FOUND
            return self._answer(status, {"error": "GET /health and POST /invoke are answered"})

        def _answer(self, status: int, document: dict[str, Any]) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            if status >= HTTPStatus.BAD_REQUEST:
                # What the client still sends must not be taken for its next request.
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)

    return Handler
