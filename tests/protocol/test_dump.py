"""Tests of the parser for the dumps of faulthandler."""

import faulthandler
import tempfile
import threading
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from rt.protocol.dump import DumpReader, Frame

DUMP = """Timeout (0:00:00.750000)!
Thread 0x00007fca741a56c0 (most recent call first):
  File "/home/team/helper.py", line 2 in spin
  File "/usr/lib/python3.11/threading.py", line 982 in run
  ...

Thread 0x00007fca74c04b80 [main] (most recent call first):
  File "/home/te"am/code.py", line ??? in <lambda>
"""
THREADS = [
    [
        Frame("/home/team/helper.py", 2, "spin"),
        Frame("/usr/lib/python3.11/threading.py", 982, "run"),
    ],
    [Frame('/home/te"am/code.py', 0, "<lambda>")],
]


def test_dump_is_parsed_by_thread_and_frame() -> None:
    reader = DumpReader()
    assert not reader.feed("hello")
    for line in DUMP.splitlines():
        assert reader.feed(line)
    assert not reader.feed("hello")
    assert reader.active
    assert reader.finish() == THREADS
    assert not reader.active
    assert not reader.feed('  File "/home/team/helper.py", line 2 in spin')


def test_second_dump_replaces_the_first() -> None:
    reader = DumpReader()
    for line in 2 * DUMP.splitlines():
        assert reader.feed(line)
    assert reader.finish() == THREADS


def test_endless_dump_is_bounded() -> None:
    reader = DumpReader()
    reader.feed("Timeout (0:00:01)!")
    reader.feed("Thread 0x0 (most recent call first):")
    for _ in range(100_000):
        reader.feed('  File "/a", line 1 in b')
    (frames,) = reader.finish()
    assert len(frames) < 10_000


@given(st.lists(st.sampled_from(DUMP.splitlines()) | st.text(max_size=30), max_size=40))
def test_no_lines_raise_an_error(lines: list[str]) -> None:
    reader = DumpReader()
    for line in lines:
        reader.feed(line)
    reader.finish()


def test_real_dump_names_the_waiting_function() -> None:
    started, done = threading.Event(), threading.Event()

    def wait_here(wait: Callable[[], object]) -> None:
        started.set()
        wait()

    thread = threading.Thread(target=wait_here, args=(done.wait,))
    thread.start()
    assert started.wait(30)
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        text = file.read()
    done.set()
    thread.join()
    reader = DumpReader()
    assert reader.feed("Timeout (0:00:01)!")
    for line in text.splitlines():
        assert reader.feed(line)
    names = [{frame.func for frame in frames} for frames in reader.finish()]
    assert any("wait_here" in each for each in names)
    assert any("test_real_dump_names_the_waiting_function" in each for each in names)
