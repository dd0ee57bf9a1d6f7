"""What doctor looks at, one check at a time."""

import http.server
import socket
import threading
import urllib.request

import pytest

from gc_panther.harness import doctor
from gc_panther.plugins import create_plugin_manager
from gc_panther.settings import read_settings
from gc_panther.task import Interface, Socket


@pytest.fixture
def toy_manager(toy_plugin):
    return create_plugin_manager([toy_plugin.hooks])


def test_root_is_refused_and_others_are_not():
    assert doctor._user(0).verdict == "fail"
    assert doctor._user(10001).verdict == "ok"


def test_the_image_is_as_large_as_its_files(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(bytes(1_000_000))
    (tmp_path / "link").symlink_to("/")
    found = doctor._image_size(tmp_path)
    assert found.verdict == "ok"
    assert found.found.startswith("0.0 GB")
    monkeypatch.setattr(doctor, "LARGEST_IMAGE_GB", 0.0005)
    assert doctor._image_size(tmp_path).verdict == "fail"


def test_an_exec_container_has_no_port_to_look_at():
    (found,) = doctor._interface("exec", 1)
    assert (found.verdict, found.found) == ("ok", "exec: one case per start")
    assert doctor._interface("") == []


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_an_invoke_container_needs_its_port():
    port = free_port()
    (found,) = doctor._interface("invoke", port)
    assert found.verdict == "ok"
    assert "is free" in found.found
    # Bound, and answering nobody.
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        (found,) = doctor._interface("invoke", port)
    assert found.verdict == "fail"
    assert "cannot be had" in found.found


@pytest.mark.parametrize(("status", "verdict"), [(200, "ok"), (503, "warn")])
def test_an_invoke_container_that_serves_already_is_asked(status, verdict):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (found,) = doctor._interface("invoke", server.server_address[1])
        server.shutdown()
    assert found.verdict == verdict


def test_no_network_is_reached_and_afterwards_it_is_again():
    with doctor._no_network():
        with pytest.raises(OSError, match="while no network may be used"):
            urllib.request.urlopen("http://example.org")
        with socket.socket() as client, pytest.raises(OSError, match="no network"):
            client.connect(("127.0.0.1", 9))
    assert socket.getaddrinfo("127.0.0.1", 80)


class Reaching:
    """A task that fetches something when its networks are loaded, or does not load at all."""

    name = "reaching"
    models = ()
    interfaces = (Interface((Socket("a", "images/a"),), (Socket("b", "images/b"),)),)

    def load(self, runtime):
        return socket.create_connection(("192.0.2.1", 80), timeout=1)


def test_a_task_that_needs_the_network_fails_its_trial(toy_manager):
    found = doctor._trial(Reaching(), toy_manager, read_settings({}), "cpu")
    assert found.verdict == "fail"
    assert "192.0.2.1" in found.found


def test_a_task_that_works_passes_its_trial(toy_manager, toy_plugin):
    (task,) = toy_plugin.hooks.gc_panther_tasks()
    found = doctor._trial(task, toy_manager, read_settings({}), "cpu")
    assert (found.verdict, found.fix) == ("ok", "")


def test_in_a_container_user_size_and_interface_are_looked_at(toy_manager, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_image_size", lambda root: doctor.Finding("image size", "ok", ""))
    environment = {"GC_PANTHER_SCRATCH": str(tmp_path)}
    inside = {**environment, "GC_PANTHER_TASK": "toy", "GC_PANTHER_API": "exec"}
    checks = [
        {
            finding.check
            for finding in doctor.examine([], toy_manager, read_settings(settings), "cpu")
        }
        for settings in (environment, inside)
    ]
    assert checks[1] - checks[0] == {"user", "image size", "interface"}
