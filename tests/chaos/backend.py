"""What the devices of chaos sync with: one server with SQLite, or several over one PostgreSQL.

    One      a server on a disk of its own, which can be filled up
    Several  PostgreSQL in a network namespace of its own, and nodes in theirs: what goes from one to the other
             passes the router, which can drop it. Devices know one address; the router gives each connection
             to the next node, whether that is well or not.

A backend says which faults it can have (`faults`: kind and weight) and which of them each run has one of."""
import glob
import json
import os
import signal
import sqlite3
import subprocess
import time
import urllib.request

from parts import GODWIT, Disk, Failure, Process, run

PORT = 8787
SCHEMA = """
CREATE TABLE events (id TEXT PRIMARY KEY, device INTEGER, n INTEGER, seen TEXT, cell INTEGER);
CREATE TABLE parts (id TEXT PRIMARY KEY, event_id TEXT REFERENCES events(id) ON DELETE CASCADE, device INTEGER);
CREATE TABLE heads (id TEXT PRIMARY KEY, n INTEGER);
CREATE TABLE cells (id TEXT PRIMARY KEY, v TEXT);
CREATE TABLE tally (id TEXT PRIMARY KEY, n INTEGER);
"""
TABLES = ("events", "parts", "heads", "cells", "tally")
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
    set apart { type ifname . ifname; }
    chain way {
        type filter hook forward priority 0;
        iifname . oifname @apart drop
        iifname @from drop
        oifname @to drop
        iifname @refused meta l4proto tcp reject with tcp reset
        iifname @lossy numgen random mod 100 < 30 drop
        oifname @lossy numgen random mod 100 < 30 drop
    }
}
"""
NETWORK = ("from", "to", "both", "refused", "lossy")
DEVICES = [("kill app", 3), ("kill watch", 3), ("stop app", 1), ("stop watch", 2)]
FULL, CLOCK = ("full disk", 2), ("clock", 2)


class Backend:
    def __init__(self, folder):
        self.folder = folder
        for name, text in (("schema.sql", SCHEMA), ("godwit.conf", CONFIG), ("secret", os.urandom(24).hex())):
            with open(os.path.join(folder, name), "w") as stream:
                os.fchmod(stream.fileno(), 0o600)
                stream.write(text)
        self.env = {"GODWIT_JWT_SECRET_FILE": os.path.join(folder, "secret")}

    def serve(self, name, namespace, address, data, *options):
        command = [GODWIT, "serve", "--listen", f"{address}:{PORT}", "--data", data, "--config",
                   os.path.join(self.folder, "godwit.conf"), "--log", "warn", *options]
        return Process(name, namespace, command, os.path.join(self.folder, f"{name}.log"), self.env)

    def token(self):
        return run(GODWIT, "token", "--data", self.data, "--sub", "ana", "--scope", "team", "--ttl", "86400",
                   env=dict(os.environ, **self.env))

    def ensure(self):
        for process in self.processes:
            process.ensure()

    def wait_ready(self, timeout=15):
        end = time.monotonic() + timeout
        for server, address in zip(self.servers, self.addresses):
            while not ready(address):
                if time.monotonic() > end:
                    raise Failure(f"{server.name} is not ready:\n" + server.log()[-2000:])
                self.ensure()
                time.sleep(0.02)

    def close(self):
        for process in self.processes:
            process.end()


def ready(address):
    try:
        with urllib.request.urlopen(f"http://{address}:{PORT}/readyz", timeout=1) as answer:
            return answer.status == 200
    except OSError:
        return False


class One(Backend):
    networks = [("server", "vs", 0)]  # namespace, interface, number of the network
    faults = [("from", 3), ("to", 3), ("both", 4), ("refused", 2), ("lossy", 2), *DEVICES, ("kill server", 2),
              ("stop server", 1), FULL, ("full server disk", 1), CLOCK]
    always = NETWORK
    ledger, commits = "godwit_op", "godwit_commit"
    url = f"http://198.18.0.2:{PORT}"
    addresses = ["198.18.0.2"]
    rules = RULES

    def __init__(self, folder):
        super().__init__(folder)
        self.disk = Disk(os.path.join(folder, "server"))
        self.disks = [self.disk]
        self.data = os.path.join(self.disk.path, "data")
        self.server = self.serve("server", "server", self.addresses[0], self.data, "--schema",
                                 os.path.join(folder, "schema.sql"))
        self.servers = self.processes = [self.server]
        self.db = None

    def start(self):
        self.server.spawn()
        self.wait_ready()

    def met(self, kind, _generator):
        """Which of its parts a fault of this kind meets."""
        return [self.server] if "server" in kind else []

    def to_kill(self, _generator):
        return self.server

    def store(self, sql):
        if self.db is None:
            self.db = sqlite3.connect(f"file:{self.data}/store.db?mode=ro", uri=True, timeout=10)
        return self.db.execute(sql).fetchall()

    def close(self):
        super().close()
        if self.db:
            self.db.close()


class Postgres(Process):
    """The postmaster; its children are all other processes of its user, in the namespace of processes that
    chaos has to itself."""

    def __init__(self, folder, namespace, address):
        self.folder = folder
        self.disk = Disk(os.path.join(folder, "postgres"), "512m")
        self.data = os.path.join(self.disk.path, "data")
        self.programs = os.path.dirname(sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))[-1])
        self.user = os.stat("/var/lib/postgresql").st_uid
        self.as_user = ["setpriv", f"--reuid={self.user}", "--regid=65534", "--clear-groups"]
        os.chown(self.disk.path, self.user, -1)
        options = (f"listen_addresses={address}", f"unix_socket_directories={self.disk.path}", "max_connections=100",
                   "shared_buffers=32MB", "jit=off", "min_wal_size=32MB", "max_wal_size=128MB")
        super().__init__("postgres", namespace, [
            *self.as_user, os.path.join(self.programs, "postgres"), "-D", self.data,
            *(word for option in options for word in ("-c", option))], os.path.join(folder, "postgres.log"))

    def make(self):
        """A cluster that takes whoever comes; it says what it acknowledges only after it is on disk."""
        run(*self.as_user, os.path.join(self.programs, "initdb"), "-D", self.data, "-U", "postgres", "-A", "trust",
            "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "--wal-segsize=2", cwd=self.disk.path)
        with open(os.path.join(self.data, "pg_hba.conf"), "a") as stream:
            stream.write("host all all 198.18.0.0/16 trust\n")
        self.spawn()

    def answers(self):
        command = ["psql", "-XqAt", "-d", self.local, "-c", "SELECT 1"]
        return subprocess.run(command, capture_output=True).returncode == 0

    @property
    def local(self):
        return f"postgresql://postgres@/postgres?host={self.disk.path}"

    def family(self):
        """All its processes; those whose postmaster was killed end when they notice, and are ours then."""
        found = []
        for path in glob.glob("/proc/[0-9]*"):
            pid = int(path[6:])
            try:
                if os.stat(path).st_uid == self.user and not self.is_buried(pid):
                    found.append(pid)
            except OSError:
                pass  # ended meanwhile
        return found

    def is_buried(self, pid):
        if pid == self.process.pid:
            return not self.alive()
        try:
            return os.waitpid(pid, os.WNOHANG) != (0, 0)
        except ChildProcessError:
            return False  # the postmaster's

    def each(self, number):
        for pid in self.family():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def send(self, number):
        self.each(number)

    def crash(self):
        """All processes at once, as when the machine goes."""
        self.each(signal.SIGSTOP)  # so that nobody does anything in between
        self.each(signal.SIGKILL)
        self.kill()

    def ensure(self):
        self.each(signal.SIGCONT)
        if not self.alive() and not self.family():  # nobody is left who might still write
            self.spawn()

    def end(self):
        self.each(signal.SIGCONT)
        if self.alive():
            self.process.send_signal(signal.SIGINT)  # without waiting for clients
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.crash()


class Several(Backend):
    faults = [("from", 2), ("to", 2), ("both", 2), ("refused", 1), ("lossy", 1), *DEVICES, FULL, CLOCK,
              ("kill node", 4), ("stop node", 3), ("node apart", 3), ("node deaf", 3), ("node mute", 2),
              ("kill postgres", 4), ("crash postgres", 2), ("stop postgres", 2)]
    always = ("kill node", "stop node", "node apart", "node deaf", "kill postgres", "crash postgres", "stop postgres")
    ledger, commits = "godwit.op", "godwit.commit"
    url = f"http://198.18.100.1:{PORT}"  # nobody's: the router gives it to a node

    def __init__(self, folder, count=3):
        super().__init__(folder)
        self.networks = [("db", "vd", 120)] + [(f"node{i}", f"vn{i}", 101 + i) for i in range(count)]
        self.addresses = [f"198.18.{101 + i}.2" for i in range(count)]
        nodes = ", ".join(f"{i} : {address}" for i, address in enumerate(self.addresses))
        self.rules = RULES[:-2] + f"""    chain spread {{
        type nat hook prerouting priority -100;
        ip daddr 198.18.100.1 tcp dport {PORT} dnat ip to numgen inc mod {count} map {{ {nodes} }}
    }}
}}
"""
        self.postgres = Postgres(folder, "db", "198.18.120.2")
        self.disks = [self.postgres.disk]
        self.data = os.path.join(folder, "data0")
        db = "postgresql://postgres@198.18.120.2/postgres"
        self.servers = [self.serve(f"node{i}", f"node{i}", address, os.path.join(folder, f"data{i}"), "--db", db)
                        for i, address in enumerate(self.addresses)]
        self.processes = [self.postgres, *self.servers]

    def start(self):
        self.postgres.make()
        end = time.monotonic() + 30
        while not self.postgres.answers():
            if time.monotonic() > end:
                raise Failure("PostgreSQL does not start:\n" + self.postgres.log()[-2000:])
            time.sleep(0.05)
        self.psql(run(GODWIT, "pg", "install") + SCHEMA.replace("INTEGER", "bigint"))
        self.psql(run(GODWIT, "pg", "track", *TABLES, "--scope", "team"))
        for server in self.servers:
            server.spawn()
        self.wait_ready(30)

    def met(self, kind, generator):
        if "postgres" in kind:
            return [self.postgres]
        return generator.sample(self.servers, generator.randint(1, len(self.servers))) if "node" in kind else []

    def to_kill(self, generator):
        return generator.choice(self.processes)

    def interface(self, node):
        return {namespace: interface for namespace, interface, _ in self.networks}[node.namespace]

    def psql(self, sql):
        return run("psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", self.postgres.local, input=sql)

    def store(self, sql):
        lines = self.psql(f"SELECT row_to_json(t) FROM ({sql}) t").splitlines()
        return [json.loads(line, object_pairs_hook=lambda pairs: tuple(value for _, value in pairs)) for line in lines]
