"""The invoke door over real HTTP: health, cases one after the other, failures, and its end."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bundled import small_input

from gc_panther import plugins
from gc_panther.errors import ProcessingError, UserError
from gc_panther.harness import serve
from gc_panther.harness.engine import Choices, Engine, told_to_plugins
from gc_panther.harness.run import PlatformCase
from gc_panther.harness.serve import InvokeServer
from gc_panther.imaging.images import read_image
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
    """The toy task behind a running server; ``gate`` holds its segmenter up."""
    manager = plugins.create_plugin_manager([toy_plugin.hooks])
    task, output = plugins.find_task(manager, "toy"), tmp_path / "output"
    gate = threading.Event()
    gate.set()
    change = toy_plugin.change

    def held(mask: np.ndarray) -> np.ndarray:
        assert gate.wait(PATIENCE)
        return np.asarray(change(mask))

    toy_plugin.change = held

    def process(engine: Engine) -> dict[str, Any]:
        with told_to_plugins(manager, task):
            return {"case": PlatformCase(task, toy_input, output).process(engine)["case"]}

    with (
        InvokeServer(process, port=0) as server,
        Engine(task, manager, read_settings({}), Choices(device="cpu")) as engine,
    ):
        cases = threading.Thread(target=server.run, args=(engine,))
        yield SimpleNamespace(
            server=server,
            start=cases.start,
            port=server.port,
            input=toy_input,
            output=output,
            gate=gate,
            plugin=toy_plugin,
            engine=engine,
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
        assert request(served.port, "POST", "/invoke") == (201, {"case": "patient one"})
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
def test_a_failure_is_told_and_the_next_case_is_served(
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
    ],
)
def test_other_requests_are_refused(
    method: str, path: str, options: dict[str, Any], status: int, served: SimpleNamespace
) -> None:
    served.start()
    wait_until(lambda: served.server.idle)
    assert request(served.port, method, path, **options)[0] == status
    assert request(served.port, "GET", "/health")[0] == 200


def test_what_is_not_http_does_no_harm(served: SimpleNamespace) -> None:
    served.start()
    wait_until(lambda: served.server.idle)
    for words in (b"\x00\xff\x00\r\n\r\n", b"GET " + b"x" * 70_000 + b"\r\n\r\n", b"POST /invoke"):
        with socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE) as client:
            client.sendall(words)
    assert request(served.port, "GET", "/health")[0] == 200


def test_a_port_in_use_is_one_clear_error(served: SimpleNamespace) -> None:
    with pytest.raises(UserError, match=f"port {served.port} .* cannot be had"):
        InvokeServer(lambda engine: {}, port=served.port)


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
    served.engine.self_test()
    assert len(served.plugin.runs) == 1
    # Plugins are not told of a case that is none.
    assert served.plugin.calls == []
    served.plugin.change = lambda mask: mask.astype(np.float32)
    with pytest.raises(ProcessingError, match="instead of uint8"):
        served.engine.self_test()


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
def test_a_busy_server_gives_up_and_leaves_nothing(process: Any, tmp_path: Path) -> None:
    server, port = process()
    answers: list[Any] = []

    def invoke() -> None:
        try:
            answers.append(request(port, "POST", "/invoke")[0])
        except (OSError, http.client.HTTPException) as error:
            answers.append(error)

    client = threading.Thread(target=invoke)
    client.start()
    wait_until(lambda: request(port, "GET", "/health")[1].get("idle") is False)
    server.send_signal(signal.SIGTERM)
    _, stderr = server.communicate(timeout=PATIENCE)
    client.join(PATIENCE)
    assert server.returncode == 128 + signal.SIGTERM
    assert stderr.strip().splitlines()[-1].startswith("error: terminated")
    assert answers != [201]
    assert files_in(tmp_path / "output") == []


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
