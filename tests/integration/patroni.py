"""PostgreSQL nodes that Patroni manages, with an etcd to agree in: under a temporary folder, by an unprivileged
user, on loopback. What ends badly here takes its processes along: Patroni ends with this process, and its
PostgreSQL with Patroni."""
import glob
import json
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import urllib.request

import pytest

import harness
import postgres

PROGRAMS = ("patroni", "patronictl", "etcd")
TTL_S = 20  # the least Patroni takes: how long a leader that says nothing stays the leader


def send(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


class Node:
    def __init__(self, group, number):
        self.group, self.name = group, f"n{number}"
        self.folder = os.path.join(group.folder, self.name)
        self.data = os.path.join(self.folder, "data")
        self.port, self.rest = harness.free_port(), harness.free_port()
        self.config = os.path.join(self.folder, "patroni.json")
        self.log = os.path.join(self.folder, "log")
        self.process = None
        os.mkdir(self.folder, 0o700)
        os.chown(self.folder, group.user, -1)

    def configure(self, synchronous):
        everybody = ["local all all trust", "host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust"]
        who = {"username": "postgres", "password": "postgres"}
        config = {
            "scope": "chaos", "name": self.name,
            "restapi": {"listen": f"127.0.0.1:{self.rest}", "connect_address": f"127.0.0.1:{self.rest}"},
            "etcd3": {"hosts": self.group.etcd_hosts},
            "bootstrap": {
                "dcs": {"ttl": TTL_S, "loop_wait": 2, "retry_timeout": 3, "maximum_lag_on_failover": 1 << 24,
                        "primary_start_timeout": 0, "synchronous_mode": synchronous,
                        "postgresql": {"use_pg_rewind": True, "use_slots": True,
                                       "parameters": {"wal_keep_size": "256MB", "max_connections": 100,
                                                      "wal_log_hints": "on"}}},
                "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}, "no-sync", {"auth-host": "trust"},
                           {"auth-local": "trust"}]},
            "postgresql": {
                "listen": f"127.0.0.1:{self.port}", "connect_address": f"127.0.0.1:{self.port}",
                "data_dir": self.data, "bin_dir": self.group.programs, "pg_hba": everybody,
                "pgpass": os.path.join(self.folder, "pgpass"),
                "authentication": {"superuser": who, "replication": who, "rewind": who},
                "parameters": {"unix_socket_directories": self.folder, "shared_buffers": "32MB", "jit": "off"}}}
        with open(self.config, "w") as stream:
            json.dump(config, stream)

    def spawn(self):
        self.process = self.group.spawn([shutil.which("patroni"), self.config], self.log)

    def family(self):
        """PostgreSQL's processes: the postmaster and its children."""
        try:
            with open(os.path.join(self.data, "postmaster.pid")) as stream:
                first = int(stream.readline())
            with open(f"/proc/{first}/cmdline") as stream:
                if self.data not in stream.read():
                    return []
        except (OSError, ValueError):
            return []
        return [first, *harness.children(first)]

    def receiver(self):
        """The process that gets what the leader has written."""
        return [pid for pid in self.family() if "walreceiver" in command(pid)]

    def kill_postgres(self):
        pids = self.family()
        send(pids, signal.SIGSTOP)  # all at once
        send(self.family(), signal.SIGKILL)

    def kill_all(self):
        self.process.kill()
        self.process.wait()
        self.kill_postgres()

    def freeze(self):
        send([self.process.pid, *self.family()], signal.SIGSTOP)

    def thaw(self):
        send([*self.family(), self.process.pid], signal.SIGCONT)

    def sql(self, text, database="app"):
        url = f"postgresql://postgres@127.0.0.1:{self.port}/{database}"
        return [line.split("|") for line in postgres.psql(url, text).splitlines()]

    def close(self):
        if self.process:
            self.thaw()
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.kill_postgres()


def command(pid):
    try:
        with open(f"/proc/{pid}/cmdline") as stream:
            return stream.read()
    except OSError:
        return ""


class Group:
    """`count` nodes, one of which leads."""

    def __init__(self, count, synchronous):
        missing = [name for name in PROGRAMS if not shutil.which(name)]
        self.programs = os.path.dirname(sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb") or [""])[-1])
        if missing or not self.programs:
            pytest.skip(f"not installed: {', '.join(missing) or 'PostgreSQL'} (tools/setup patroni etcd-server etcd-client)")
        self.synchronous = synchronous
        self.user = pwd.getpwnam("postgres").pw_uid if os.getuid() == 0 else os.getuid()
        self.folder = tempfile.mkdtemp(prefix="patroni-", dir="/tmp")  # a socket's path must be short
        os.chmod(self.folder, 0o711)
        self.etcds, self.nodes = [], []
        self.start_etcd(3)
        self.nodes = [Node(self, i) for i in range(count)]
        for node in self.nodes:
            node.configure(synchronous)
        self.nodes[0].spawn()
        harness.wait_until(self.leader, 90, every=0.2, what="a leader")
        for node in self.nodes[1:]:
            node.spawn()
        self.wait_whole()

    def spawn(self, words, log):
        if os.getuid() == 0:
            group = str(pwd.getpwuid(self.user).pw_gid)
            words = ["setpriv", f"--reuid={self.user}", f"--regid={group}", "--clear-groups", "--pdeathsig", "TERM", *words]
        with open(log, "ab") as stream:
            return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, cwd=self.folder)

    def start_etcd(self, count):
        ports = [(harness.free_port(), harness.free_port()) for _ in range(count)]
        self.etcd_hosts = [f"127.0.0.1:{client}" for client, _ in ports]
        members = ",".join(f"e{i}=http://127.0.0.1:{peer}" for i, (_, peer) in enumerate(ports))
        for i, (client, peer) in enumerate(ports):
            data = os.path.join(self.folder, f"etcd{i}")
            os.mkdir(data, 0o700)
            os.chown(data, self.user, -1)
            self.etcds.append(self.spawn(
                [shutil.which("etcd"), "--name", f"e{i}", "--data-dir", data, "--listen-client-urls",
                 f"http://127.0.0.1:{client}", "--advertise-client-urls", f"http://127.0.0.1:{client}",
                 "--listen-peer-urls", f"http://127.0.0.1:{peer}", "--initial-advertise-peer-urls",
                 f"http://127.0.0.1:{peer}", "--initial-cluster", members], os.path.join(self.folder, f"etcd{i}.log")))

    def url(self, database):
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"postgresql://postgres@{hosts}/{database}?target_session_attrs=read-write"

    def members(self):
        """As the first that answers has it from etcd: {name: member}."""
        for node in self.nodes:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{node.rest}/cluster", timeout=2) as answer:
                    return {member["name"]: member for member in json.load(answer)["members"]}
            except (OSError, ValueError):
                pass
        return {}

    def leader(self):
        """The node that leads and says so itself."""
        for node in self.nodes:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{node.rest}/primary", timeout=1) as answer:
                    if answer.status == 200:
                        return node
            except OSError:
                pass
        return None

    def is_whole(self):
        """One leads, all others follow it on its timeline; one of them in step, where that is asked for."""
        members = self.members()
        roles = [member["role"] for member in members.values()]
        following = all(m["state"] in ("running", "streaming") and m.get("lag", 0) == 0 or m["role"] == "leader"
                        for m in members.values())
        return (len(members) == len(self.nodes) and roles.count("leader") == 1 and following
                and len({m.get("timeline") for m in members.values()}) == 1 and self.leader() is not None
                and (not self.synchronous or "sync_standby" in roles))

    def timeline(self):
        """Of the leader; each that is promoted begins a new one."""
        return max((m.get("timeline", 0) for m in self.members().values() if m["role"] == "leader"), default=0)

    def wait_whole(self, beyond=0):
        """All follow one leader, of a timeline later than that."""
        try:
            harness.wait_until(lambda: self.timeline() > beyond and self.is_whole(), 120, every=0.3,
                               what="all nodes follow one leader")
        except harness.Failure as error:
            logs = "".join(f"\n---- {node.name}\n" + tail(node.log) for node in self.nodes)
            raise harness.Failure(f"{error}: {self.members()}{logs}")

    def switchover(self, leader, candidate):
        done = subprocess.run(["patronictl", "-c", leader.config, "switchover", "--leader", leader.name, "--candidate",
                               candidate.name, "--force", "chaos"], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr

    def close(self):
        for node in self.nodes:
            node.close()
        for etcd in self.etcds:
            etcd.terminate()
            etcd.wait(30)
        shutil.rmtree(self.folder)


def tail(path):
    with open(path, errors="replace") as stream:
        return "".join(line for line in stream if "no action" not in line and "Lock owner" not in line)[-6000:]
