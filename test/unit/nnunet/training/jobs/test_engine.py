import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gc_panther.errors import DeviceError, UserError
from gc_panther.nnunet.training.jobs.engine import LocalEngine, Process
from gc_panther.nnunet.training.workspace import make_engine
from gc_panther.settings import visible_gpus

#: What a process of these tests does, by its first argument.
MODULE = """
import os, sys, time
from pathlib import Path
from gc_panther.processes import end_with_stdin

what, folder = sys.argv[1], Path(sys.argv[2])
assert sys.argv[3:] == ["--child"]
end_with_stdin()
if what == "fail":
    sys.exit("error: the case is empty")
if what == "crash":
    sys.exit(7)
if what == "die":
    os.kill(os.getpid(), 9)
if what == "sleep":
    print(os.getpid(), flush=True)
    time.sleep(1000)
if what == "talk":
    print("a line\\n" * 1000, end="")
    sys.exit()
gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "none")
# Fails where another process has the GPU at the moment.
os.close(os.open(folder / f"busy-{gpu}", os.O_CREAT | os.O_EXCL))
(folder / what).write_text(gpu)
time.sleep(0.05)
os.remove(folder / f"busy-{gpu}")
"""


@pytest.fixture
def process(tmp_path):
    (tmp_path / "a_job.py").write_text(MODULE)

    def make(what, gpu=False):
        environment = {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[5]}"}
        arguments = (what, str(tmp_path))
        return Process(f"job {what}", "a_job", arguments, environment, gpu, log="job.log")

    return make


def test_a_failure_stops_none_of_the_others_and_says_what_it_was(process, tmp_path):
    processes = [process(what) for what in ("fail", "one", "crash", "die", "two")]
    failures = LocalEngine(jobs=1).run(processes)
    assert (tmp_path / "one").is_file()
    assert (tmp_path / "two").is_file()
    first, second, third = map(str, failures)
    assert first.startswith("job fail: the case is empty")
    assert second.startswith("job crash failed: job.log")
    assert third.startswith("job die was killed (SIGKILL)")
    assert all("run the same command again" in str(failure) for failure in failures)


def test_lines_of_processes_that_run_beside_each_other_stay_whole(process, capfd):
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        LocalEngine(jobs=4).run([process("talk") for _ in range(4)])
    finally:
        sys.setswitchinterval(interval)
    assert capfd.readouterr().out.splitlines() == ["a line"] * 4000


def test_the_cores_are_shared_out(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 12)
    assert LocalEngine(jobs=5).threads(9) == 2
    assert LocalEngine(jobs=20).threads(20) == 1
    # A process that is alone has them all.
    assert LocalEngine(jobs=5).threads(1) == 12


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-1a")


@pytest.mark.usefixtures("two_gpus")
def test_every_gpu_has_one_process_at_a_time(process, tmp_path):
    names = [f"fold {number}" for number in range(5)]
    assert LocalEngine(jobs=1, device="cuda").run([process(name, gpu=True) for name in names]) == []
    assert {(tmp_path / name).read_text() for name in names} == {"3", "GPU-1a"}


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_that_was_asked_for_is_the_only_one_used(process, tmp_path):
    assert LocalEngine(device="cuda:1").run([process("one", gpu=True)]) == []
    assert (tmp_path / "one").read_text() == "GPU-1a"
    with pytest.raises(DeviceError, match="sees no GPU for cuda:2"):
        LocalEngine(device="cuda:2").run([])


def test_gpus_are_called_as_the_environment_calls_them():
    assert visible_gpus(2, {}) == ("0", "1")
    assert visible_gpus(1, {"CUDA_VISIBLE_DEVICES": "2, 5"}) == ("2",)
    assert visible_gpus(0, {"CUDA_VISIBLE_DEVICES": ""}) == ()


STOPPED = """
import signal, sys
# Whoever started the tests in the background had SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
from gc_panther.nnunet.training.jobs.engine import LocalEngine, Process
environment = {"PYTHONPATH": sys.argv[1]}
LocalEngine(jobs=2).run([Process("job", "a_job", ("sleep", "."), environment)] * 3)
"""


@pytest.mark.usefixtures("process")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_processes_end_with_the_run_that_is_stopped(tmp_path, number, wait_for_end):
    path = f"{tmp_path}:{Path(__file__).parents[5]}"
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED, path],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as run:
        lines = [run.stdout.readline() for _ in range(2)]
        run.send_signal(number)
    assert run.returncode != 0
    pids = [int(line) for line in lines]
    wait_for_end(pids)


def test_an_unknown_engine_is_refused(tmp_path):
    with pytest.raises(UserError, match="Known: local, ray"):
        make_engine("dask", tmp_path, 1, "cpu")


def test_without_ray_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'gc-panther\[ray\]'"):
        make_engine("ray", tmp_path, 1, "cpu").run([])
