"""Chaos with real processes, by tools/chaos: a sample here, the long runs with GODWIT_SOAK."""
import os
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SOAK = bool(os.environ.get("GODWIT_SOAK"))


def chaos(*arguments):
    command = [sys.executable, os.path.join(ROOT, "tools", "chaos"), *arguments]
    if SOAK and os.environ.get("GODWIT_CHAOS_STATE"):
        command += ["--state", os.environ["GODWIT_CHAOS_STATE"]]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip(done.stdout.strip())
    print(done.stdout + done.stderr)
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]


def test_partitions_and_their_healing():
    chaos("--seed", "1", *(["--runs", "1000"] if SOAK else ["--runs", "3", "--devices", "6"]))


def test_kills_in_a_row():
    chaos("--seed", "1", *(["--kills", "2000"] if SOAK else ["--kills", "50", "--devices", "6"]))
