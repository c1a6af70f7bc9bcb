"""Power cuts on a real file system: ext4 on a loop device is shut down (EXT4_IOC_SHUTDOWN without flushing
its journal: what was not synced never reaches the disk) under an application that writes, a device that
syncs and a server. After each cut: no committed transaction is lost or half, none had effect twice.

Needs root, loop devices and ext4 with that call; where there is none of it the test is skipped."""
import fcntl
import os
import random
import shutil
import struct
import subprocess
import tempfile
import time

import pytest

from harness import BUILD, SCHEMA, SLOW, World, assert_converged, settle, wait_until

EXT4_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = struct.pack("I", 2)
CUTS = 100 if os.environ.get("GODWIT_SOAK") else 4
WRITER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "writer.py")
SHARED = SCHEMA + "CREATE TABLE shared (id INTEGER PRIMARY KEY, a INTEGER, b INTEGER);"


class LoopMount:
    def __init__(self, folder):
        self.image, self.path = os.path.join(folder, "disk"), os.path.join(folder, "mnt")
        os.mkdir(self.path)
        with open(self.image, "wb") as stream:
            stream.truncate(256 << 20)
        self.mounted = False
        self.must("mkfs.ext4", "-q", "-F", self.image)
        self.mount()

    @staticmethod
    def must(*command):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise OSError(f"{command[0]}: {done.stderr.strip()}")

    def mount(self):
        self.must("mount", "-o", "loop,noatime", self.image, self.path)
        self.mounted = True

    def umount(self):
        if self.mounted:
            self.must("umount", self.path)
            self.mounted = False

    def cut(self):
        handle = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, EXT4_IOC_SHUTDOWN, NO_LOG_FLUSH)
        finally:
            os.close(handle)


@pytest.fixture
def disk():
    if os.geteuid() != 0 or not shutil.which("mkfs.ext4"):
        pytest.skip("needs root and mkfs.ext4")
    folder = tempfile.mkdtemp(prefix="godwit-power-")
    mount = None
    try:
        try:
            mount = LoopMount(folder)
            mount.cut()
            mount.umount()
            mount.mount()
        except OSError as error:
            pytest.skip(f"no ext4 that can be shut down: {error}")
        yield mount
    finally:
        if mount:
            mount.umount()
        shutil.rmtree(folder)


def acknowledged(side):
    with open(side) as stream:
        return len(stream.readlines())


def check(devices, sides):
    for device in devices:
        assert device.one("PRAGMA integrity_check") == "ok"
        there = device.one("SELECT count(*) FROM pins WHERE id LIKE ?", device.name + "-%")
        forms = device.one("SELECT count(*) FROM forms WHERE id LIKE ?", device.name + "-f%")
        captured = device.one("SELECT count(DISTINCT entity_id) FROM sync_queue WHERE entity_type = 'pins' AND"
                              " operation = 'create' AND entity_id LIKE ?", device.name + "-%")
        counted = device.one(f"SELECT {device.name} FROM shared WHERE id = 1") or 0
        assert there >= acknowledged(sides[device.name]), "a committed transaction is gone"
        assert there == forms == captured == counted, "a transaction is half"
        device.disconnect()


def run_until_cut(seed, devices, sides):
    """Applications write and devices sync, both for a while after every application has committed something."""
    before = {name: acknowledged(side) for name, side in sides.items()}
    running = [subprocess.Popen(["/usr/bin/python3", WRITER, os.path.join(BUILD, "godwit"), device.path, device.name,
                                 sides[device.name], "0.002"]) for device in devices]
    wait_until(lambda: all(acknowledged(sides[n]) > before[n] for n in before), timeout=20 * SLOW, what="commits")
    end = time.monotonic() + seed.uniform(0.05, 0.4) * SLOW
    while time.monotonic() < end:
        syncs = [device.spawn_sync() for device in devices]
        time.sleep(seed.uniform(0, 0.1) * SLOW)
        for sync in syncs:
            sync.kill()
            sync.communicate()
    return running


def test_power_cuts_on_ext4(disk, tmp_path):
    seed = random.Random(7)
    world = World(disk.path)
    try:
        server = world.server(schema=SHARED)
        devices = [world.device(name, server, schema=SHARED) for name in "ab"]
        sides = {device.name: str(tmp_path / device.name) for device in devices}
        for device in devices:
            device.track("shared", ids="app")
            open(sides[device.name], "w").close()
        devices[0].run("INSERT INTO shared(id) VALUES (1)")
        settle(*devices, rounds=2)
        for device in devices:
            device.disconnect()
        os.sync()
        for _ in range(CUTS):
            running = run_until_cut(seed, devices, sides)
            disk.cut()
            for process in running:
                process.kill()
                process.wait()
            server.kill()
            disk.umount()
            disk.mount()
            server.start()
            check(devices, sides)
        settle(*devices)
        assert_converged(server, devices, tables=("pins", "forms", "shared"))
        ledger = server.query("SELECT count(*), count(DISTINCT lineage || '/' || lsn) FROM godwit_op")[0]
        assert ledger[0] == ledger[1]
    finally:
        server.kill()
        world.close()
