"""Chaos with real processes, by tools/chaos: a sample here, the long runs with GODWIT_SOAK."""
import glob
import os
import subprocess
import sys
import tempfile
import time

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TOOL = os.path.join(ROOT, "tools", "chaos")
SOAK = bool(os.environ.get("GODWIT_SOAK"))


def chaos(*arguments):
    command = [sys.executable, TOOL, *arguments]
    if SOAK and os.environ.get("GODWIT_CHAOS_STATE"):
        command += ["--state", os.environ["GODWIT_CHAOS_STATE"]]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip(done.stdout.strip())
    print(done.stdout + done.stderr)
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]


def test_partitions_and_their_healing():
    chaos("--seed", "1", *(["--runs", "1000"] if SOAK else ["--runs", "3", "--devices", "6"]))


def test_several_servers_over_postgres():
    chaos("--seed", "1", "--db", "postgres", *(["--runs", "200"] if SOAK else ["--runs", "3", "--devices", "4"]))


def test_kills_in_a_row():
    chaos("--seed", "1", *(["--kills", "2000"] if SOAK else ["--kills", "50", "--devices", "6"]))


@pytest.mark.skipif(not SOAK, reason="GODWIT_SOAK is not set")
def test_kills_in_a_row_over_postgres():
    chaos("--seed", "1", "--db", "postgres", "--kills", "500")


def children_of(folder):
    """Processes whose command line names the folder."""
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as stream:
                found += [path] if folder.encode() in stream.read() else []
        except OSError:
            pass  # it has ended meanwhile
    return found


def wait_for(condition, what):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


@pytest.fixture
def folder():
    """One that PostgreSQL's user gets into, as pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as path:
        os.chmod(path, 0o711)
        yield path


@pytest.mark.parametrize("db", ["sqlite", "postgres"])
def test_nothing_is_left_when_it_is_killed(db, folder):
    if subprocess.run([TOOL, "--check", "--db", db], capture_output=True).returncode == 77:
        pytest.skip("not possible here")
    command = subprocess.Popen([TOOL, "--runs", "100", "--devices", "2", "--db", db], stdout=subprocess.DEVNULL,
                               env=dict(os.environ, TMPDIR=folder))
    try:
        wait_for(lambda: len(children_of(f"{folder}/")) > 2, "devices run")
    finally:
        command.kill()
        command.wait()
    wait_for(lambda: not children_of(f"{folder}/"), "all processes have ended")
    with open("/proc/mounts") as stream:
        assert folder not in stream.read()
    for left in os.listdir(folder):
        assert not os.listdir(os.path.join(folder, left))
