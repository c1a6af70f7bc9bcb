"""Devices and what they sync with as real processes on a network of their own, and the faults they get.

    client i (netns) -- v<i>  this process: a router with nftables  vs -- server (netns)
                                                                    vn<i> -- node i, vd -- db, over PostgreSQL

Each device and the server has its data on a tmpfs of its own, which can be filled up. Clocks of devices are
set by libfaketime."""
import glob
import os
import shutil
import sqlite3
from collections import Counter

from backend import SCHEMA, TABLES, One
from parts import BUILD, GODWIT, Disk, Process, run

EXTENSION = os.path.join(BUILD, "godwit")
APP = os.path.join(BUILD, "tests", "chaos", "chaos-app")
CELLS = 8
OPERATIONS = 6  # of one event: itself, two parts, head, cell, tally
FAKETIME = next(iter(glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")), None)


class Device:
    def __init__(self, world, number, syncs_itself, years):
        self.number = number
        self.disk = Disk(os.path.join(world.folder, f"device{number}"))
        self.path = os.path.join(self.disk.path, "app.db")
        self.history = os.path.join(world.folder, f"history{number}")
        self.clock = os.path.join(world.folder, f"clock{number}")
        self.interface = f"v{number}"
        self.read_to = 0
        self.watch = None
        env = {}
        self.set_clock(years)
        if FAKETIME and years is not None:
            env = {"LD_PRELOAD": FAKETIME, "FAKETIME_TIMESTAMP_FILE": self.clock, "FAKETIME_NO_CACHE": "1",
                   "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1", "FAKETIME_DISABLE_SHM": "1"}
        log = os.path.join(world.folder, f"device{number}.log")
        namespace = f"client{number}"
        command = [APP, self.path, EXTENSION, self.history, world.switch, str(number), str(world.count),
                   str(world.seed * 100 + number), str(world.pace_ms), *(["start"] if syncs_itself else [])]
        self.app = Process(f"app {number}", namespace, command, log, env)
        if not syncs_itself:
            self.watch = Process(f"watch {number}", namespace, [GODWIT, "sync", self.path, "--watch"], log, env)
        self.skewed = bool(env)
        self.db = None

    def set_clock(self, years):
        with open(self.clock + ".new", "w") as stream:
            stream.write(f"{years or 0:+d}y\n")
        os.rename(self.clock + ".new", self.clock)

    @property
    def processes(self):
        return [self.app, self.watch] if self.watch else [self.app]

    @property
    def syncing(self):
        return self.watch or self.app

    def query(self, sql):
        if self.db is None:
            self.db = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=10)
        return self.db.execute(sql).fetchall()

    def pending(self):
        return self.query("SELECT queue_length - failed_operations FROM godwit_metrics")[0][0]

    def rows(self):
        return {table: self.query(f"SELECT * FROM {table} ORDER BY id") for table in TABLES}

    def has_read(self, mark):
        """Whether the history has a read beyond that place."""
        with open(self.history) as stream:
            stream.seek(mark)
            return "\nr" in "\n" + stream.read()

    def history_lines(self):
        """Whole lines written since the last call."""
        with open(self.history) as stream:
            stream.seek(self.read_to)
            text = stream.read()
        end = text.rfind("\n") + 1
        self.read_to += len(text[:end].encode())
        return text[:end].splitlines()


class World:
    """`count` devices and a backend, set up and in agreement, nothing running but the backend."""

    def __init__(self, folder, count, seed, random, backend=One, pace_ms=250):
        self.folder, self.count, self.seed, self.pace_ms = folder, count, seed, pace_ms
        self.switch = os.path.join(folder, "write")
        os.makedirs(folder)
        self.cuts = Counter()
        self.backend = backend(folder)
        self.store, self.url = self.backend.store, self.backend.url
        self.network(count)
        self.backend.start()
        self.devices = []
        for number in range(count):
            years = random.choice([None, None, 0, -25, 3, 40])
            self.devices.append(Device(self, number, number % 2 == 0, years))
        self.set_up()

    # ---- network ----

    def network(self, count):
        run("ip", "link", "set", "lo", "up")
        with open("/proc/sys/net/ipv4/ip_forward", "w") as stream:
            stream.write("1")
        names = self.backend.networks + [(f"client{i}", f"v{i}", i + 1) for i in range(count)]
        for namespace, interface, net in names:
            run("ip", "netns", "add", namespace)
            run("ip", "link", "add", interface, "type", "veth", "peer", "name", "eth0", "netns", namespace)
            run("ip", "addr", "add", f"198.18.{net}.1/24", "dev", interface)
            run("ip", "link", "set", interface, "up")
            run("ip", "-n", namespace, "addr", "add", f"198.18.{net}.2/24", "dev", "eth0")
            run("ip", "-n", namespace, "link", "set", "eth0", "up")
            run("ip", "-n", namespace, "link", "set", "lo", "up")
            run("ip", "-n", namespace, "route", "add", "default", "via", f"198.18.{net}.1")
        run("nft", "-f", "-", input=self.backend.rules)

    def cut(self, way, interfaces):
        self.cuts.update((way, i) for i in interfaces)
        self.rule("add", [(way, i) for i in interfaces if self.cuts[way, i] == 1])

    def mend(self, way, interfaces):
        """Faults may overlap: the last one to end opens the way."""
        self.cuts.subtract((way, i) for i in interfaces)
        self.rule("delete", [(way, i) for i in interfaces if self.cuts[way, i] == 0])

    def rule(self, verb, elements):
        run("nft", "-f", "-", input="".join(f"{verb} element inet chaos {way} {{ {i} }}\n" for way, i in elements))

    def mend_all(self):
        self.rule("delete", [element for element, count in self.cuts.items() if count > 0])
        self.cuts.clear()

    # ---- life ----

    def set_up(self):
        token = os.path.join(self.folder, "token")
        with open(token, "w") as stream:
            stream.write(self.backend.token())
        for device in self.devices:
            db = sqlite3.connect(device.path, isolation_level=None)
            db.executescript(SCHEMA + "CREATE INDEX events_n ON events (device, n);"
                             "CREATE INDEX parts_device ON parts (device);")
            if device.number == 0:
                db.execute("INSERT INTO tally VALUES ('t', 0)")
                db.executemany("INSERT INTO cells VALUES (?, '')", [(f"c{i}",) for i in range(CELLS)])
            db.close()
            run(GODWIT, "init", device.path, "--url", self.url, "--token-file", token, "--scope", "team")
            for table in TABLES:
                run(GODWIT, "track", device.path, table)
            run("nsenter", f"--net=/run/netns/{device.app.namespace}", GODWIT, "sync", device.path, "--quiet",
                env=device.app.env)
        self.made_before = (self.store(f"SELECT count(*) FROM {self.backend.ledger}")[0][0],
                            self.store(f"SELECT count(*) FROM {self.backend.commits}")[0][0])

    def start(self):
        for device in self.devices:
            for process in device.processes:
                process.spawn()

    def write(self, on):
        if on:
            with open(self.switch, "w"):
                pass
        elif os.path.exists(self.switch):
            os.unlink(self.switch)

    def heal(self):
        """No fault is left, everything runs."""
        self.mend_all()
        for disk in self.disks():
            disk.clear()
        self.backend.ensure()
        for device in self.devices:
            for process in device.processes:
                process.ensure()
        self.backend.wait_ready()

    def disks(self):
        return self.backend.disks + [d.disk for d in self.devices]

    def close(self):
        self.mend_all()
        for device in self.devices:
            for process in device.processes:
                process.end()
            if device.db:
                device.db.close()
        self.backend.close()
        for disk in self.disks():
            run("umount", "-l", disk.path)
        for name in [*(n for n, _, _ in self.backend.networks), *(f"client{i}" for i in range(self.count))]:
            run("ip", "netns", "del", name)
        run("nft", "delete", "table", "inet", "chaos")
        shutil.rmtree(self.folder)
