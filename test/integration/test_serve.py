"""``gc-panther serve`` over real HTTP: health, cases one after the other, failures, and its end."""

from __future__ import annotations

import errno
import http.client
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bundled import small_input
from signals import deliver

from gc_panther import files, plugins
from gc_panther.commands import serve
from gc_panther.commands.serve import InvokeServer
from gc_panther.errors import ProcessingError, UserError
from gc_panther.imaging.images import read_image
from gc_panther.options import RunOptions
from gc_panther.session import Choices, Session
from gc_panther.settings import read_settings

MASKS = "images/toy-mask"
#: Seconds that only a test which has failed waits.
PATIENCE = 300
Request = Callable[..., tuple[int, dict[str, Any]]]


def request(port: int, method: str, path: str, **options: Any) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, path, **options)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def files_in(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.fixture
def served(toy_plugin: Any, toy_input: Path, tmp_path: Path) -> Iterator[SimpleNamespace]:
    """The toy task behind a running server; ``gate`` holds its predictor up."""
    manager = plugins.create_plugin_manager([toy_plugin.hooks])
    task, output = plugins.find_task(manager, "toy"), tmp_path / "output"
    gate = threading.Event()
    gate.set()
    change = toy_plugin.change

    def held(mask: np.ndarray) -> np.ndarray:
        assert gate.wait(PATIENCE)
        return np.asarray(change(mask))

    toy_plugin.change = held

    with (
        InvokeServer(port=0) as server,
        Session(task, manager, read_settings({}), Choices(RunOptions(device="cpu"))) as session,
    ):
        process = partial(serve.serve_case, session, manager, toy_input, output)
        cases = threading.Thread(target=server.run, args=(process,))
        yield SimpleNamespace(
            server=server,
            start=cases.start,
            port=server.port,
            input=toy_input,
            output=output,
            gate=gate,
            plugin=toy_plugin,
            session=session,
        )
        gate.set()
        server.stop()
        if cases.ident is not None:
            cases.join(PATIENCE)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "this did not happen"
        time.sleep(0.02)


def test_healthy_only_when_the_networks_are_there(served: SimpleNamespace) -> None:
    assert request(served.port, "GET", "/health")[0] == 503
    assert request(served.port, "POST", "/invoke")[0] == 503
    served.start()
    wait_until(lambda: served.server.idle)
    assert request(served.port, "GET", "/health") == (200, {"healthy": True, "idle": True})


def test_each_call_segments_what_lies_in_the_input(
    served: SimpleNamespace, write_volume: Any, capfd: Any
) -> None:
    served.start()
    wait_until(lambda: served.server.idle)
    for seed in (1, 2):
        array = np.random.default_rng(seed).integers(0, 500, (5, 6, 7)).astype(np.int16)
        write_volume(served.input / "images/toy-folder/0f0e.mha", array)
        shutil.rmtree(served.output, ignore_errors=True)
        status, answer = request(served.port, "POST", "/invoke")
        assert (status, answer["case"]) == (201, "patient one")
        assert files_in(served.output) == [f"{MASKS}/0f0e.mha", "results.json"]
        mask = read_image(served.output / MASKS / "0f0e.mha").array_zyx
        assert np.array_equal(mask, (array > 250).astype(np.uint8))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("break_it", "status", "said"),
    [
        (lambda s: (s.input / "inputs.json").write_text("{"), 400, "not valid JSON"),
        (lambda s: (s.input / "images/toy-folder/0f0e.mha").unlink(), 400, "exactly one image"),
        (lambda s: s.plugin.problems.append("too dark"), 400, "too dark"),
        (lambda s: setattr(s.plugin, "change", _failing), 500, "the work failed"),
        (lambda s: setattr(s.plugin, "change", lambda mask: mask + 7), 500, "allowed are"),
        (lambda s: setattr(s.plugin, "change", lambda mask: 1 / 0), 500, "internal error"),
    ],
)
def test_a_failure_is_reported_and_the_next_case_is_served(
    break_it: Callable[[Any], None], status: int, said: str, served: SimpleNamespace, capfd: Any
) -> None:
    served.start()
    wait_until(lambda: served.server.idle)
    before = shutil.copytree(served.input, served.input.parent / "before")
    change = served.plugin.change
    break_it(served)
    code, answer = request(served.port, "POST", "/invoke")
    assert code == status
    assert said in answer["error"]
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert files_in(served.output) == []
    served.plugin.change = change
    served.plugin.problems.clear()
    shutil.copytree(before, served.input, dirs_exist_ok=True)
    assert request(served.port, "POST", "/invoke")[0] == 201


def _failing(mask: np.ndarray) -> np.ndarray:
    raise ProcessingError("the work failed")


def test_one_case_at_a_time_and_health_answers_beside_it(served: SimpleNamespace) -> None:
    served.start()
    wait_until(lambda: served.server.idle)
    served.gate.clear()
    answers: list[int] = []
    first = threading.Thread(
        target=lambda: answers.append(request(served.port, "POST", "/invoke")[0])
    )
    first.start()
    wait_until(lambda: not served.server.idle)
    assert request(served.port, "GET", "/health") == (200, {"healthy": True, "idle": False})
    code, answer = request(served.port, "POST", "/invoke")
    assert (code, answer["error"]) == (409, "another case is being segmented")
    served.gate.set()
    first.join(PATIENCE)
    assert answers == [201]


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("GET", "/", {}, 404),
        ("GET", "/invoke", {}, 405),
        ("POST", "/health", {}, 405),
        ("GET", "/../etc/passwd", {}, 404),
        ("POST", "/invoke", {"headers": {"Content-Length": "-1"}}, 411),
        ("POST", "/invoke", {"headers": {"Transfer-Encoding": "chunked"}}, 411),
        ("POST", "/invoke", {"headers": {"Content-Length": str(10**12)}}, 413),
        ("POST", "/invoke", {"headers": {"Content-Length": "²"}}, 411),
        ("POST", "/invoke", {"headers": {"Content-Length": "+1"}}, 411),
        ("POST", "/invoke", {"headers": {"Content-Length": "9" * 5000}}, 413),
        ("POST", "/invoke", {"headers": {"Content-Length": "0" * 5000}}, 413),
    ],
)
def test_other_requests_are_refused(
    method: str,
    path: str,
    options: dict[str, Any],
    status: int,
    served: SimpleNamespace,
    capfd: Any,
) -> None:
    served.start()
    wait_until(lambda: served.server.idle)
    assert request(served.port, method, path, **options)[0] == status
    assert request(served.port, "GET", "/health")[0] == 200
    assert capfd.readouterr().err == ""
    assert served.plugin.runs == []


def reset(client: socket.socket) -> None:
    """Close a connection so that the other side gets an error at its next write."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def test_a_client_that_leaves_is_one_line_of_the_log(
    served: SimpleNamespace, capfd: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "gc_panther.commands.serve")
    served.start()
    wait_until(lambda: served.server.idle)
    served.gate.clear()
    client = socket.create_connection(("127.0.0.1", served.port), timeout=10)
    client.sendall(b"POST /invoke HTTP/1.1\r\nHost: here\r\n\r\n")
    wait_until(lambda: not served.server.idle)
    reset(client)
    served.gate.set()

    def said() -> list[str]:
        return [record.getMessage() for record in caplog.records if "client" in record.msg]

    wait_until(lambda: bool(said()))
    assert said() in (
        ["a client left before its answer (ConnectionResetError)"],
        ["a client left before its answer (BrokenPipeError)"],
    )
    assert capfd.readouterr().err == ""
    assert files_in(served.output) == [f"{MASKS}/0f0e.mha", "results.json"]
    assert request(served.port, "POST", "/invoke")[0] == 201


def test_a_body_that_ends_early_is_no_request(
    served: SimpleNamespace, capfd: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "gc_panther.commands.serve")
    served.start()
    wait_until(lambda: served.server.idle)
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as client:
        client.sendall(b"POST /invoke HTTP/1.1\r\nHost: here\r\nContent-Length: 9\r\n\r\n123")
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b""
    wait_until(lambda: any("client left" in record.msg for record in caplog.records))
    assert capfd.readouterr().err == ""
    assert served.plugin.runs == []


@pytest.mark.parametrize("name", ["0f0e", "another"])
def test_a_failing_case_leaves_nothing_of_the_earlier_one(
    name: str, served: SimpleNamespace
) -> None:
    served.start()
    wait_until(lambda: served.server.idle)
    assert request(served.port, "POST", "/invoke")[0] == 201
    image = served.input / "images/toy-folder/0f0e.mha"
    image.rename(image.with_name(f"{name}.mha"))
    (served.input / "inputs.json").write_text("{")
    assert request(served.port, "POST", "/invoke")[0] == 400
    assert files_in(served.output) == []


def test_a_case_replaces_the_earlier_one_of_another_name(served: SimpleNamespace) -> None:
    served.start()
    wait_until(lambda: served.server.idle)
    assert request(served.port, "POST", "/invoke")[0] == 201
    image = served.input / "images/toy-folder/0f0e.mha"
    image.rename(image.with_name("1a1b.mha"))
    assert request(served.port, "POST", "/invoke")[0] == 201
    assert files_in(served.output) == [f"{MASKS}/1a1b.mha", "results.json"]


@pytest.mark.parametrize("at", ["the check", "the writing"])
def test_an_output_that_cannot_be_written_is_one_clear_line(
    at: str, served: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """Permission bits do not bind root, who runs the tests: the system's answer is made up."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    if at == "the check":
        monkeypatch.setattr(files.tempfile, "TemporaryFile", refuse)
    else:
        monkeypatch.setattr(files, "_staged", refuse)
    served.start()
    wait_until(lambda: served.server.idle)
    status, answer = request(served.port, "POST", "/invoke")
    assert status == 500
    (line,) = capfd.readouterr().err.splitlines()
    assert line == f"error: {answer['error']}"
    assert "cannot be written (Read-only file system)" in line
    assert str(served.output) in line


def test_plugins_are_notified_when_the_networks_cannot_be_loaded(
    toy_plugin: Any, toy_command_line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise ProcessingError("no network today")

    (task,) = toy_plugin.hooks.gc_panther_tasks()
    monkeypatch.setattr(type(task), "load", fail)
    assert toy_command_line(["serve", "--task", "toy", "--port", "0", "--device", "cpu"]) == 1
    assert toy_plugin.calls == [("error", "toy", "no network today")]


def test_a_failed_self_test_leaves_no_temporary_files(
    toy_plugin: Any, toy_command_line: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GC_PANTHER_SCRATCH", str(tmp_path))

    def fail(mask: np.ndarray) -> np.ndarray:
        (scratch,) = tmp_path.iterdir()
        (scratch / "part").touch()
        raise ProcessingError("no answer today")

    toy_plugin.change = fail
    assert toy_command_line(["serve", "--task", "toy", "--port", "0", "--device", "cpu"]) == 1
    assert toy_plugin.calls[-1] == ("error", "toy", "no answer today")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGTERM, 0, ""), (signal.SIGINT, 130, "error: interrupted\n")],
)
def test_a_signal_ends_a_server_that_waits(
    number: int,
    code: int,
    said: str,
    toy_command_line: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: Any,
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    ready = InvokeServer.run

    def run(server: InvokeServer, process: Any) -> None:
        deliver(number)
        ready(server, process)

    monkeypatch.setattr(InvokeServer, "run", run)
    try:
        command = ["serve", "--task", "toy", "--port", "0", "--device", "cpu"]
        assert toy_command_line(command) == code
    finally:
        signal.signal(signal.SIGINT, before)
    assert capfd.readouterr().err == said


def test_a_signal_ends_a_server_that_works_and_nothing_is_left(
    toy_plugin: Any, toy_command_line: Any, toy_input: Path, tmp_path: Path, capfd: Any
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    answers: list[Any] = []
    cases = 0

    def change(mask: np.ndarray) -> np.ndarray:
        nonlocal cases
        cases += 1
        if cases == 1:
            # The self-test. Its server is healthy once this has returned.
            client.start()
        else:
            deliver(signal.SIGTERM)
        return mask

    def invoke() -> None:
        wait_until(lambda: request(port, "GET", "/health")[0] == 200)
        answers.append(request(port, "POST", "/invoke"))

    client = threading.Thread(target=invoke)
    toy_plugin.change = change
    command = ["serve", "--task", "toy", "--port", str(port), "--device", "cpu"]
    command += ["--input", str(toy_input), "--output", str(tmp_path / "output")]
    assert toy_command_line(command) == 143
    client.join(30)
    assert answers == [(503, {"error": "the server stops"})]
    assert capfd.readouterr().err == "error: terminated by the platform or a person\n"
    assert files_in(tmp_path / "output") == []


def test_what_is_not_http_does_no_harm(served: SimpleNamespace) -> None:
    served.start()
    wait_until(lambda: served.server.idle)
    for words in (b"\x00\xff\x00\r\n\r\n", b"GET " + b"x" * 70_000 + b"\r\n\r\n", b"POST /invoke"):
        with socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE) as client:
            client.sendall(words)
    assert request(served.port, "GET", "/health")[0] == 200


def test_a_port_in_use_is_one_clear_error(served: SimpleNamespace) -> None:
    with pytest.raises(UserError, match=f"port {served.port} .* is unavailable"):
        InvokeServer(port=served.port)


def test_memory_does_not_grow(
    served: SimpleNamespace, write_volume: Any, resident: Callable[[], int]
) -> None:
    """What the first cases leave behind (caches) is not counted. `benchmarks/soak.py` has 200."""
    # Of one value: noise would spend most of its time on being compressed.
    array = np.full((80, 128, 128), 400, np.int16)
    write_volume(served.input / "images/toy-folder/0f0e.mha", array)
    served.start()
    wait_until(lambda: served.server.idle)

    sizes = []
    for number in range(24):
        assert request(served.port, "POST", "/invoke")[0] == 201
        if number in (3, 23):
            sizes.append(resident())
    # One image kept per case would be 20 × 2.6 MB.
    assert sizes[1] - sizes[0] < 30e6


def test_the_memory_of_each_case_is_given_back(
    served: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Semaphore(0)
    monkeypatch.setattr(serve, "release_memory", released.release)
    served.start()
    wait_until(lambda: served.server.idle)
    served.plugin.change = lambda mask: mask.astype(np.float32)
    for status in (500, 201):
        assert request(served.port, "POST", "/invoke")[0] == status
        assert released.acquire(timeout=PATIENCE)
        served.plugin.change = lambda mask: mask


def test_the_self_test_runs_the_networks_and_finds_what_is_no_mask(
    served: SimpleNamespace,
) -> None:
    served.session.self_test()
    assert len(served.plugin.runs) == 1
    # Plugins are not notified of a request without a case.
    assert served.plugin.calls == []
    served.plugin.change = lambda mask: mask.astype(np.float32)
    with pytest.raises(ProcessingError, match="instead of uint8"):
        served.session.self_test()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Callable[[], tuple[subprocess.Popen[str], int]]]:
    """`gc-panther serve` for task 1, one fold, as a process of its own."""
    started: list[subprocess.Popen[str]] = []
    small_input("task1", tmp_path / "input")

    def start() -> tuple[subprocess.Popen[str], int]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = int(free.getsockname()[1])
        command = [sys.executable, "-c", "from gc_panther.cli import main; main()", "serve"]
        command += ["--task", "task1", "--device", "cpu", "--port", str(port)]
        command += ["--folds", "0", "--input", str(tmp_path / "input")]
        command += ["--output", str(tmp_path / "output")]
        server = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(server)

        def healthy() -> bool:
            try:
                return request(port, "GET", "/health")[0] == 200
            except OSError:
                assert server.poll() is None
                return False

        wait_until(healthy)
        return server, port

    yield start
    for server in started:
        server.kill()
        server.communicate()


@pytest.mark.slow
def test_the_real_task_gives_the_same_mask_each_time_and_leaves_without_a_word(
    process: Any, tmp_path: Path
) -> None:
    server, port = process()
    masks = []
    for _ in range(2):
        assert request(port, "POST", "/invoke")[0] == 201
        (file,) = (tmp_path / "output" / "images").rglob("*.mha")
        masks.append(read_image(file).array_zyx)
        shutil.rmtree(tmp_path / "output")
    assert masks[0].any()
    assert np.array_equal(*masks)
    server.send_signal(signal.SIGTERM)
    assert server.communicate(timeout=PATIENCE)[1] == ""
    assert server.returncode == 0
