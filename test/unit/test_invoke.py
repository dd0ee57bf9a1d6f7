"""scripts/invoke.py, which asks a container as the platform does, against a server of this test."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "invoke.py"


@pytest.fixture
def server() -> Iterator[SimpleNamespace]:
    """Answers with the given status; a case takes until ``released`` is set."""
    server = SimpleNamespace(health=200, invoke=201, released=threading.Event(), port=0)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(server.health)

        def do_POST(self) -> None:
            server.released.wait()
            self.answer(server.invoke)

        def answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *values: Any) -> None:
            """Say nothing."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    server.port = listening.server_address[1]
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    yield server
    server.released.set()
    listening.shutdown()
    listening.server_close()
    thread.join()


@pytest.fixture
def ask(server: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run the script with options; its exit status."""
    spec = importlib.util.spec_from_file_location("invoke", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "PORT", server.port)

    def run(*options: str) -> int:
        monkeypatch.setattr("sys.argv", ["invoke.py", *options])
        return int(script.main())

    return run


def test_a_case_that_is_done(server: SimpleNamespace, ask: Callable[..., int]) -> None:
    server.released.set()
    assert ask() == 0
    server.invoke = 500
    assert ask() == 1


def test_a_case_beyond_the_limit_of_a_job(ask: Callable[..., int], capsys: Any) -> None:
    assert ask("--job-limit", "0.2") == 1
    assert capsys.readouterr().err.startswith(
        "error: not done within 0.2 s, the limit for start-up"
    )


@pytest.mark.parametrize(
    "options", [("--health-timeout", "0.2"), ("--job-limit", "0.2")], ids=lambda o: o[0]
)
def test_a_server_that_does_not_become_healthy(
    options: tuple[str, ...], server: SimpleNamespace, ask: Callable[..., int], capsys: Any
) -> None:
    """The start counts against the limit of the job, too."""
    server.health = 503
    assert ask(*options) == 1
    assert capsys.readouterr().err == "error: not healthy within 0.2 s\n"
