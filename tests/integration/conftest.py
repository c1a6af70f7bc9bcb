"""Fixtures of the black-box tests. Everything runs on real processes and real sockets; every test has
a folder, a server and devices of its own, and all of it is gone when the test is over."""
import os
import sys

import pytest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import harness  # noqa: E402
import postgres  # noqa: E402


@pytest.fixture
def world(tmp_path):
    """A factory of servers, devices and proxies that end with the test."""
    w = harness.World(tmp_path)
    yield w
    w.close()


@pytest.fixture
def server(world):
    """A running server with the field-notes schema."""
    return world.server()


@pytest.fixture
def devices(world, server):
    """Three devices of one user, tables made and tracked, nothing synced yet."""
    return [world.device(name, server) for name in ("a", "b", "c")]


@pytest.fixture(scope="module")
def cluster():
    """A PostgreSQL of the module's own."""
    c = postgres.Cluster()
    yield c
    c.close()
