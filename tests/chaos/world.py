"""Devices and a server as real processes on a network of their own, and the faults they get.

Everything is below namespaces that `enter` makes: mounts, processes, network. The kernel takes them apart
when the first process in them ends, which ends with the command, however that ends: nothing is left behind but
an empty folder, which `enter` removes where it can.

    client i (netns) -- v<i>  this process: a router with nftables  vs -- server (netns)

Each device and the server has its data on a tmpfs of its own, which can be filled up. Clocks of devices are
set by libfaketime."""
import ctypes
import glob
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("GODWIT_BUILD") or os.path.join(ROOT, "build")
GODWIT = os.path.join(BUILD, "godwit")
EXTENSION = os.path.join(BUILD, "godwit")
APP = os.path.join(BUILD, "tests", "chaos", "chaos-app")
PR_SET_PDEATHSIG = 1  # <sys/prctl.h>: the child ends with this process
INSIDE = "GODWIT_CHAOS_FOLDER"
PORT = 8787
CELLS = 8
DISK = "48m"

SCHEMA = """
CREATE TABLE events (id TEXT PRIMARY KEY, device INTEGER, n INTEGER, seen TEXT, cell INTEGER);
CREATE TABLE parts (id TEXT PRIMARY KEY, event_id TEXT REFERENCES events(id) ON DELETE CASCADE, device INTEGER);
CREATE TABLE heads (id TEXT PRIMARY KEY, n INTEGER);
CREATE TABLE cells (id TEXT PRIMARY KEY, v TEXT);
CREATE TABLE tally (id TEXT PRIMARY KEY, n INTEGER);
"""
TABLES = ("events", "parts", "heads", "cells", "tally")
OPERATIONS = 6  # of one event: itself, two parts, head, cell, tally
CONFIG = """[server]
janitor_every = 1s
keep_log_commits = 100000

[table tally]
policy.n = counter
"""
RULES = """table inet chaos {
    set from { type ifname; }
    set to { type ifname; }
    set refused { type ifname; }
    set lossy { type ifname; }
    chain way {
        type filter hook forward priority 0;
        iifname @from drop
        oifname @to drop
        iifname @refused meta l4proto tcp reject with tcp reset
        iifname @lossy numgen random mod 100 < 30 drop
        oifname @lossy numgen random mod 100 < 30 drop
    }
}
"""
FAKETIME = next(iter(glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")), None)


class Failure(AssertionError):
    pass


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        raise Failure(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


# ---- Namespaces ----

# names of network namespaces are files below /run
OWN_RUN = "mount -t tmpfs tmpfs /run && mkdir /run/netns"
UNSHARE = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc"]


def why_not():
    """A reason why this can't run here whatever is built, or None."""
    for tool in ("unshare", "ip", "nft", "nsenter"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed (tools/setup)"
    probe = "ip netns add chaos-probe && nft add table inet chaos && echo 1 >/proc/sys/net/ipv4/ip_forward"
    done = subprocess.run([*UNSHARE, "sh", "-c", f"{OWN_RUN} && {probe}"], capture_output=True, text=True)
    return f"no namespaces here: {done.stderr.strip()}" if done.returncode else None


def enter():
    """Runs this program again inside of new namespaces; returns its exit code, and inside None. There the
    folder named by INSIDE takes everything, and is gone with the namespaces."""
    if INSIDE in os.environ:
        run("sh", "-c", OWN_RUN)
        run("mount", "-t", "tmpfs", "tmpfs", os.environ[INSIDE])
        return None
    with tempfile.TemporaryDirectory(prefix="godwit-chaos-") as folder:
        child = subprocess.Popen([*UNSHARE, sys.executable, *sys.argv], env=dict(os.environ, **{INSIDE: folder}),
                                 preexec_fn=lambda: ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL))
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: child.kill())
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt:
                child.kill()  # and, with it, everything below


# ---- Parts ----

class Process:
    """A process in one of the network namespaces, started again after it was killed."""

    def __init__(self, name, namespace, command, log, env=None):
        self.name, self.namespace, self.command, self.log_path = name, namespace, command, log
        self.env = dict(os.environ, **(env or {}))
        self.process = None
        self.kills = 0
        self.odd_ends = []

    def spawn(self):
        with open(self.log_path, "ab") as log:
            # signals wait until the program is ready for them
            self.process = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{self.namespace}", *self.command], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, env=self.env,
                preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1}))

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def send(self, number):
        if self.alive():
            self.process.send_signal(number)

    def kill(self):
        if self.alive():
            self.process.kill()
            self.kills += 1
        self.process.wait()

    def ensure(self):
        """Running, whatever was before."""
        if not self.alive():
            if self.process and self.process.returncode != -signal.SIGKILL:
                self.odd_ends.append(self.process.returncode)
            self.spawn()
        self.send(signal.SIGCONT)

    def end(self):
        if self.alive():
            self.send(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def log(self):
        if not os.path.exists(self.log_path):
            return ""
        with open(self.log_path, errors="replace") as stream:
            return stream.read()


class Disk:
    def __init__(self, path):
        self.path = path
        self.filler = os.path.join(path, "filler")
        os.makedirs(path)
        run("mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", path)

    def fill(self):
        with open(self.filler, "wb", buffering=0) as stream:
            try:
                while True:
                    stream.write(b"\0" * 65536)
            except OSError:
                pass
            try:
                while True:
                    stream.write(b"\0" * 512)
            except OSError:
                pass

    def clear(self):
        if os.path.exists(self.filler):
            os.unlink(self.filler)


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
    """`count` devices and a server, set up and in agreement, nothing running but the server."""

    def __init__(self, folder, count, seed, random, pace_ms=250, skew=True):
        self.folder, self.count, self.seed, self.pace_ms = folder, count, seed, pace_ms
        self.switch = os.path.join(folder, "write")
        os.makedirs(folder)
        self.cuts = Counter()
        self.network(count)
        self.disk = Disk(os.path.join(folder, "server"))
        self.url = f"http://198.18.0.2:{PORT}"
        self.server = Process("server", "server", self.server_files(), os.path.join(folder, "server.log"),
                              {"GODWIT_JWT_SECRET_FILE": os.path.join(folder, "secret")})
        self.server.spawn()
        self.wait_ready()
        self.store_db = None
        self.devices = []
        for number in range(count):
            years = random.choice([None, None, 0, -25, 3, 40]) if skew else None
            self.devices.append(Device(self, number, number % 2 == 0, years))
        self.set_up()

    # ---- network ----

    def network(self, count):
        run("ip", "link", "set", "lo", "up")
        with open("/proc/sys/net/ipv4/ip_forward", "w") as stream:
            stream.write("1")
        names = [("server", "vs", 0)] + [(f"client{i}", f"v{i}", i + 1) for i in range(count)]
        for namespace, interface, net in names:
            run("ip", "netns", "add", namespace)
            run("ip", "link", "add", interface, "type", "veth", "peer", "name", "eth0", "netns", namespace)
            run("ip", "addr", "add", f"198.18.{net}.1/24", "dev", interface)
            run("ip", "link", "set", interface, "up")
            run("ip", "-n", namespace, "addr", "add", f"198.18.{net}.2/24", "dev", "eth0")
            run("ip", "-n", namespace, "link", "set", "eth0", "up")
            run("ip", "-n", namespace, "link", "set", "lo", "up")
            run("ip", "-n", namespace, "route", "add", "default", "via", f"198.18.{net}.1")
        run("nft", "-f", "-", input=RULES)

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

    # ---- server ----

    def server_files(self):
        schema, config = os.path.join(self.folder, "schema.sql"), os.path.join(self.folder, "godwit.conf")
        for path, text in ((schema, SCHEMA), (config, CONFIG), (os.path.join(self.folder, "secret"), os.urandom(24).hex())):
            with open(path, "w") as stream:
                os.fchmod(stream.fileno(), 0o600)
                stream.write(text)
        self.data = os.path.join(self.disk.path, "data")
        return [GODWIT, "serve", "--listen", f"198.18.0.2:{PORT}", "--data", self.data, "--schema", schema,
                "--config", config, "--log", "warn"]

    def wait_ready(self, timeout=15):
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            self.server.ensure()
            try:
                with urllib.request.urlopen(self.url + "/readyz", timeout=1) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                time.sleep(0.02)
        raise Failure("the server is not ready:\n" + self.server.log()[-2000:])

    def store(self, sql):
        if self.store_db is None:
            self.store_db = sqlite3.connect(f"file:{self.data}/store.db?mode=ro", uri=True, timeout=10)
        return self.store_db.execute(sql).fetchall()

    # ---- life ----

    def set_up(self):
        token = os.path.join(self.folder, "token")
        with open(token, "w") as stream:
            stream.write(run(GODWIT, "token", "--data", self.data, "--sub", "ana", "--scope", "team", "--ttl", "86400",
                             env=self.server.env))
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
        self.made_before = (self.store("SELECT count(*) FROM godwit_op")[0][0],
                            self.store("SELECT count(*) FROM godwit_commit")[0][0])

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
        for disk in [self.disk, *(d.disk for d in self.devices)]:
            disk.clear()
        self.server.ensure()
        for device in self.devices:
            for process in device.processes:
                process.ensure()
        self.wait_ready()

    def close(self):
        self.mend_all()
        for device in self.devices:
            for process in device.processes:
                process.end()
            if device.db:
                device.db.close()
        self.server.end()
        if self.store_db:
            self.store_db.close()
        for disk in [self.disk, *(d.disk for d in self.devices)]:
            run("umount", "-l", disk.path)
        for name in ["server", *(f"client{i}" for i in range(self.count))]:
            run("ip", "netns", "del", name)
        run("nft", "delete", "table", "inet", "chaos")
        shutil.rmtree(self.folder)
