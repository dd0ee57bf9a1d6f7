import errno
import os
import subprocess
import sys
import threading

import pytest

from gc_panther.errors import UserError
from gc_panther.nnunet.training.jobs.lock import locked

HOLDER = """
import sys, time
from pathlib import Path
from gc_panther.nnunet.training.jobs.lock import locked
with locked(Path(sys.argv[1]), "a training"):
    print("held", flush=True)
    time.sleep(1000)
"""


def test_a_lock_is_refused_in_one_line_and_ends_with_its_process(tmp_path):
    path = tmp_path / "work" / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError) as caught, locked(path, "a training"):
            pass
        holder.kill()
    assert f"a training is already running here (process {holder.pid} on " in str(caught.value)
    assert str(path.parent) in str(caught.value)
    # The file of the killed one is still there.
    assert path.read_text()
    with locked(path, "a training"):
        pass


def test_a_lock_holds_in_one_process_and_can_be_waited_for(tmp_path):
    path, held, let_go = tmp_path / "lock", threading.Event(), threading.Event()

    def hold():
        with locked(path, "a training"):
            held.set()
            let_go.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    with pytest.raises(UserError, match="already"), locked(path, "a training"):
        pass
    let_go.set()
    with locked(path, "a training", wait=60):
        pass
    thread.join()


def test_a_file_that_names_no_holder_is_no_obstacle(tmp_path):
    path = tmp_path / "lock"
    path.write_text("not JSON")
    with locked(path, "a training"):
        with pytest.raises(UserError, match="process"), locked(path, "a training"):
            pass
        path.write_text("")
        with pytest.raises(UserError, match="process unknown"), locked(path, "a training"):
            pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch, number):
    """No substitute that a killed process would leave behind."""

    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    with (
        pytest.raises(UserError, match=rf"the lock cannot be taken \({os.strerror(number)}\)"),
        locked(tmp_path / "work" / "lock", "a training"),
    ):
        pytest.fail("the block was entered")
