import os
import subprocess
import sys
import threading

import pytest

from gc_panther.processes import Children


def run(children, *command):
    lines = []
    return children.run(command, os.environ, lines.append), lines


def test_lines_the_reason_and_the_code_of_a_process_are_known():
    with Children() as children:
        ending, lines = run(children, "sh", "-c", "echo one; echo 'error: no disk' >&2; exit 3")
    assert sorted(lines) == ["error: no disk", "one"]
    assert (ending.code, ending.reason, ending.killed_by) == (3, "no disk", "")


def test_the_signal_that_killed_a_process_is_named():
    with Children() as children:
        ending, _ = run(children, "sh", "-c", "kill -9 $$")
    assert ending.killed_by == "SIGKILL"


def test_what_a_process_started_ends_with_it(wait_for_end):
    with Children() as children:
        # The second one keeps the pipe open, and would for a long time.
        ending, lines = run(children, "sh", "-c", "sleep 1000 & echo $!")
    assert ending.code == 0
    wait_for_end([int(lines[0])])


def test_what_runs_ends_with_the_block(wait_for_end):
    children, pids, endings = Children(), [], []
    started = threading.Event()

    def emit(line):
        pids.append(int(line))
        started.set()

    def work():
        command = ("sh", "-c", "echo $$; sleep 1000 & wait")
        endings.append(children.run(command, os.environ, emit))

    thread = threading.Thread(target=work)
    with children:
        thread.start()
        assert started.wait(60)
    thread.join()
    wait_for_end(pids)
    assert endings[0].killed_by == "SIGKILL"
    assert run(children, "true")[0].killed_by == "SIGKILL"


CHILD = """
import os, subprocess, time
from gc_panther.processes import end_with_stdin
end_with_stdin()
other = subprocess.Popen(["sleep", "1000"])
print(os.getpid(), other.pid, flush=True)
time.sleep(1000)
"""
STARTER = f"""
import os, sys
from functools import partial
from gc_panther.processes import Children
with Children() as children:
    children.run([sys.executable, "-c", {CHILD!r}], os.environ, partial(print, flush=True))
"""
POOL = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from gc_panther.processes import end_with_parent

if __name__ == "__main__":
    spawn = get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=end_with_parent) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 1000).result()
"""


@pytest.mark.parametrize("script", [STARTER, POOL])
def test_processes_end_when_their_starter_is_killed(tmp_path, script, wait_for_end):
    file = tmp_path / "script.py"
    file.write_text(script)
    with subprocess.Popen(
        [sys.executable, str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as starter:
        pids = [int(pid) for pid in starter.stdout.readline().split()]
        starter.kill()
    assert pids
    wait_for_end(pids)
