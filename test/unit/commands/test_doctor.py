"""doctor's checks, one at a time."""

import http.server
import socket
import sys
import threading
import urllib.request

import pytest

from gc_panther.commands import doctor
from gc_panther.errors import DeviceError
from gc_panther.findings import Finding
from gc_panther.hardware import Device
from gc_panther.hookspecs import hookimpl
from gc_panther.options import RunOptions
from gc_panther.plugins import create_plugin_manager
from gc_panther.runtime.weights import model_digest
from gc_panther.settings import read_settings
from gc_panther.task import Interface, ModelRequirement, Socket, Task

CPU = RunOptions(device="cpu")


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
    assert "is unavailable" in found.found


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


class Reaching(Task):
    """A task that fetches something when its networks are loaded, or does not load at all."""

    name = "reaching"
    title = "Reaching"
    models = ()
    interfaces = (Interface((Socket("a", "images/a"),), (Socket("b", "images/b"),)),)

    def load(self, runtime):
        return socket.create_connection(("192.0.2.1", 80), timeout=1)


def test_a_task_that_needs_the_network_fails_its_trial(toy_manager):
    found = doctor._trial(Reaching(), toy_manager, read_settings({}), CPU)
    assert found.verdict == "fail"
    assert "192.0.2.1" in found.found


def test_a_task_that_works_passes_its_trial(toy_manager, toy_plugin):
    (task,) = toy_plugin.hooks.gc_panther_tasks()
    found = doctor._trial(task, toy_manager, read_settings({}), CPU)
    assert (found.verdict, found.fix) == ("ok", "")


class Failing(Reaching):
    """A task whose self-test raises what it likes."""

    name = "failing"

    def load(self, runtime):
        raise LookupError("no such organ")


def test_a_task_that_raises_is_a_row_and_the_others_go_on(toy_manager, toy_plugin, monkeypatch):
    toy = toy_plugin.hooks.gc_panther_tasks()
    monkeypatch.setattr(doctor, "_scratch", lambda settings: 1 / 0)
    findings = doctor.examine([Failing(), *toy], toy_manager, read_settings({}), CPU)
    rows = {finding.check: finding for finding in findings}
    failing, scratch = rows["offline trial failing"], rows["scratch"]
    assert (failing.verdict, failing.found) == ("fail", "LookupError: no such organ")
    assert failing.fix
    assert (scratch.verdict, scratch.found) == ("fail", "ZeroDivisionError: division by zero")
    assert rows["offline trial toy"].verdict == "ok"


def test_a_plugin_that_cannot_list_its_tasks_is_a_row(toy_manager):
    class Broken:
        @hookimpl
        def gc_panther_tasks(self):
            raise LookupError("no list")

    toy_manager.register(Broken())
    rows = {f.check: f for f in doctor.examine_installed(toy_manager, read_settings({}), CPU)}
    assert (rows["tasks"].verdict, rows["tasks"].found) == ("fail", "LookupError: no list")
    assert rows["scratch"].verdict == "ok"


def test_a_task_without_its_package_says_which(toy_manager, monkeypatch):
    class Dependent(Reaching):
        def load(self, runtime):
            from mrsegmentator import config

            return config

    # As Python treats a module that must not be imported.
    monkeypatch.setitem(sys.modules, "mrsegmentator", None)
    found = doctor._trial(Dependent(), toy_manager, read_settings({}), CPU)
    assert found.verdict == "fail"
    assert found.found == "the Python package 'mrsegmentator' is not installed"
    assert "requirements" in found.fix


def test_the_cpu_of_a_machine_with_a_driver_is_a_warning(toy_manager, toy_plugin, monkeypatch):
    said = "No GPU is used: CUDA 13.0 needs driver 580 or newer"
    device = Device("cpu", "CPU, 2 threads", warnings=(said,))
    monkeypatch.setattr(doctor, "device_for", lambda *_, **__: device)
    tasks = toy_plugin.hooks.gc_panther_tasks()
    rows, chosen = doctor._devices(tasks, toy_manager, RunOptions())
    assert [(row.verdict, row.found) for row in rows] == [("ok", "CPU, 2 threads"), ("warn", said)]
    assert chosen == {"toy": device}


def test_tasks_with_different_devices_have_a_row_each(toy_manager, monkeypatch):
    def one(task, *_, **__):
        if task.name == "failing":
            raise DeviceError("no abacus", fix="Buy one")
        return Device("cpu", "CPU, 2 threads")

    monkeypatch.setattr(doctor, "device_for", one)
    rows, chosen = doctor._devices([Failing(), Reaching()], toy_manager, RunOptions())
    assert rows == [
        Finding("device failing", "fail", "no abacus", "Buy one"),
        Finding("device reaching", "ok", "CPU, 2 threads"),
    ]
    assert list(chosen) == ["reaching"]


def test_without_tasks_there_is_a_device_still(toy_manager):
    rows, chosen = doctor._devices([], toy_manager, CPU)
    assert [(row.check, row.verdict) for row in rows] == [("device", "ok")]
    assert chosen == {}


def test_what_plugins_find_is_shown_before_the_trial_and_can_prevent_it(toy_manager, toy_plugin):
    seen = []

    class Examines:
        @hookimpl
        def gc_panther_doctor(self, task, models, device):
            seen.append((task.name, models, device.name))
            return [Finding("beads", "fail", "missing", "Look for them")]

    toy_manager.register(Examines())
    tasks = toy_plugin.hooks.gc_panther_tasks()
    findings = doctor.examine(tasks, toy_manager, read_settings({}), CPU)
    assert seen == [("toy", {}, "cpu")]
    assert findings[-1] == Finding("beads", "fail", "missing", "Look for them")


class OtherModel(Task):
    """A task whose one model is not nnU-Net's."""

    name = "other"
    title = "Other"
    interfaces = ()
    models = (ModelRequirement("net", (), "Get it at home"),)

    def load(self, runtime):
        raise AssertionError("weights rows load nothing")


def test_a_model_of_another_library_is_a_row(tmp_path):
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "weights.onnx").write_bytes(b"weights")
    options = RunOptions(model_dir=tmp_path)
    (found,), folders = doctor._weights(OtherModel(), read_settings({}), options)
    assert found.verdict == "ok"
    assert folders == {"net": tmp_path / "net"}
    assert found.found == f"{tmp_path / 'net'}, SHA-256 {model_digest(tmp_path / 'net')[:16]}"

    (tmp_path / "net" / "model.json").write_text('{"kind": "demonstration"}')
    (found,), _ = doctor._weights(OtherModel(), read_settings({}), options)
    assert (found.verdict, found.fix) == ("warn", "Get it at home")
    assert "demonstration weights, trained on synthetic images, not for patients" in found.found

    (tmp_path / "net" / "model.json").write_text("{")
    (found,), folders = doctor._weights(OtherModel(), read_settings({}), options)
    assert (found.verdict, folders) == ("fail", {})


def test_in_a_container_user_size_and_interface_are_checked(toy_manager, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_image_size", lambda root: Finding("image size", "ok", ""))
    environment = {"GC_PANTHER_SCRATCH": str(tmp_path)}
    inside = {**environment, "GC_PANTHER_TASK": "toy", "GC_PANTHER_API": "exec"}
    checks = [
        {finding.check for finding in doctor.examine([], toy_manager, read_settings(settings), CPU)}
        for settings in (environment, inside)
    ]
    assert checks[1] - checks[0] == {"user", "image size", "interface"}
