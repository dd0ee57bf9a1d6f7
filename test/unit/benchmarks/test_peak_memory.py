import subprocess
import sys

from peak_memory import PeakMemory

#: Prints a line and goes on to the end of its standard input.
WAIT = "import sys; print('ready', flush=True); sys.stdin.read()"


def start(code):
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    return process


def test_memory_of_children_of_children_counts():
    grandchild = f"x = b'1' * 80_000_000; {WAIT}"
    memory = PeakMemory()
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
    with start(child):
        memory.start()
        assert memory.stop() > 80_000_000


def test_what_ran_before_is_not_counted():
    with start(WAIT):
        memory = PeakMemory()
        memory.start()
        assert memory.stop() == 0
