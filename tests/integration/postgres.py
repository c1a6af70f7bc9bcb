"""A PostgreSQL of the tests' own: one cluster per module, a database per test, ended with the module; and
psql as the program of somebody who has never heard of Godwit."""
import glob
import os
import select
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest

import harness


class Cluster:
    def __init__(self, durable=False):
        """durable: for tests in which PostgreSQL itself is killed."""
        command = [os.path.join(harness.ROOT, "tools", "with-postgres"), *(["--durable"] if durable else []),
                   "sh", "-c", 'echo "$GODWIT_POSTGRES"; cat']
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip()
        self.folder = self.url.rsplit("host=", 1)[-1]
        self.count = 0
        if not self.url:
            code = self.process.wait()
            assert code == 77, f"with-postgres ended with {code}"
            pytest.skip("PostgreSQL is not installed")

    def database(self, tables="", track=()):
        """A new database with schema godwit, these tables, and those of them tracked."""
        self.count += 1
        self.sql(f"CREATE DATABASE t{self.count}")
        url = self.url.replace("@/postgres?", f"@/t{self.count}?")
        self.sql(harness.cli("pg", "install").out, url)
        self.sql(tables, url)
        if track:
            self.sql(harness.cli("pg", "track", *track).out, url)
        return url

    def sql(self, text, url=None):
        """Runs statements as a superuser; the rows of the last one as lists of texts."""
        done = subprocess.run(["psql", "-XqAt", "-F", "\t", "-v", "ON_ERROR_STOP=1", url or self.url], input=text,
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return [line.split("\t") for line in done.stdout.splitlines()]

    def fresh(self):
        """A new database in which nothing is installed."""
        self.count += 1
        self.sql(f"CREATE DATABASE t{self.count}")
        return Database(self, f"t{self.count}")

    @property
    def data(self):
        return os.path.join(self.folder, "data")

    def program(self, name, *arguments):
        """A program of PostgreSQL's, as the cluster's user."""
        command = [sorted(glob.glob("/usr/lib/postgresql/*/bin/" + name))[-1], *arguments]
        if os.getuid() == 0:
            owner = os.stat(self.folder)
            command = ["setpriv", f"--reuid={owner.st_uid}", f"--regid={owner.st_gid}", "--clear-groups",
                       *command]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       cwd=self.folder)

    def control(self, *arguments):
        self.program("pg_ctl", "-D", self.data, "-w", "-l", os.path.join(self.folder, "log.server"), *arguments)

    def crash(self):
        """Ends it at once, without a checkpoint."""
        self.control("stop", "-m", "immediate")

    def start(self):
        """With the options it had."""
        with open(os.path.join(self.data, "postmaster.opts")) as stream:
            options = stream.read().split(" ", 1)[1].strip()
        self.control("start", "-o", options)

    def each(self, number):
        """A signal for all its processes."""
        with open(os.path.join(self.data, "postmaster.pid")) as stream:
            first = int(stream.readline())
        for pid in [first, *harness.children(first)]:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def freeze(self):
        self.each(signal.SIGSTOP)

    def thaw(self):
        self.each(signal.SIGCONT)

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(30)


class Standby(Cluster):
    """A copy of a cluster that streams from it."""

    def __init__(self, primary):  # no call of the other's: it starts a program
        self.folder = os.path.join(primary.folder, "standby")
        self.url = f"postgresql://postgres@/postgres?host={self.folder}"
        os.mkdir(self.folder, 0o711)
        owner = os.stat(primary.folder)
        if os.getuid() == 0:
            os.chown(self.folder, owner.st_uid, owner.st_gid)
        self.program("pg_basebackup", "-D", self.data, "-R", "-c", "fast", "--no-sync", "-d",
                     f"host={primary.folder} user=postgres")
        self.control("start", "-o", f"-c listen_addresses='' -c unix_socket_directories='{self.folder}'"
                     " -c unix_socket_permissions=0777 -c max_connections=200 -c shared_buffers=64MB")

    def wait_for(self, primary):
        """Until it has all that the primary has."""
        harness.wait_until(lambda: primary.sql("SELECT count(*) FROM pg_stat_replication WHERE replay_lsn ="
                                               " pg_current_wal_lsn()") == [["1"]], 30, what="the standby")

    def cut_off(self, primary):
        """It gets nothing more, and nobody notices."""
        self.sql("ALTER SYSTEM SET primary_conninfo = ''; SELECT pg_reload_conf();")
        harness.wait_until(lambda: primary.sql("SELECT count(*) FROM pg_stat_replication") == [["0"]], 30,
                           what="replication ends")

    def promote(self):
        self.control("promote")

    def close(self):
        self.crash()
        shutil.rmtree(self.folder)


def psql(url, sql, check=True):
    done = subprocess.run(["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", url, "-f", "-"], input=sql,
                          capture_output=True, text=True)
    if check and done.returncode != 0:
        raise harness.Failure(done.stderr)
    return done.stdout.rstrip("\n") if check else done


class Session:
    """One connection that stays open, for transactions that take their time."""

    def __init__(self, url):
        self.process = subprocess.Popen(["psql", "-XAtq", "-d", url], stdin=subprocess.PIPE, bufsize=0,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def run(self, sql, timeout=10):
        """What it printed; None when it is not done in time."""
        self.process.stdin.write(sql.encode() + b"\n\\echo --done--\n")
        return self.wait(timeout)

    def wait(self, timeout=10):
        text = b""
        while not text.endswith(b"--done--\n"):
            if not select.select([self.process.stdout], [], [], timeout * harness.SLOW)[0]:
                return None
            part = os.read(self.process.stdout.fileno(), 65536)
            if not part:
                raise harness.Failure(text.decode())
            text += part
        return text[:-len(b"--done--\n")].decode().rstrip("\n")

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)


class Database:
    def __init__(self, cluster, name):
        self.cluster = cluster
        self.name = name
        self.url = cluster.url.replace("@/postgres?", f"@/{name}?")
        self.sessions = []

    def run(self, sql):
        return psql(self.url, sql)

    def rows(self, sql):
        text = self.run(sql)
        return [line.split("|") for line in text.split("\n")] if text else []

    def session(self):
        self.sessions.append(Session(self.url))
        return self.sessions[-1]

    def track(self, *tables, **options):
        """As its owner would: the output of the command line through psql."""
        flags = [text for name, value in options.items() for text in ("--" + name.replace("_", "-"), value)]
        self.run(harness.cli("pg", "install").out)
        sql = harness.cli("pg", "track", *tables, *flags, "--db", self.url)
        assert sql.code == 0, sql
        return self.run(sql.out)

    def server(self, world, **options):
        env = dict(options.pop("env", {}), GODWIT_DB=options.pop("url", self.url))
        return world.server(schema=None, env=env, **options)

    def drained(self):
        harness.wait_until(lambda: self.run("SELECT count(*) FROM godwit.outbox WHERE NOT waiting") == "0",
                           what="the outbox is taken over")

    def close(self):
        for session in self.sessions:
            session.close()


class Proxy:
    """Between a server and PostgreSQL, on a socket of its own: counts what waits for an answer, cuts the
    connection around a COMMIT, or lets nobody in."""

    def __init__(self, folder, database):
        self.target = os.path.join(database.cluster.folder, ".s.PGSQL.5432")
        self.folder = folder
        self.url = database.url.replace(f"host={database.cluster.folder}", f"host={folder}")
        self.waits = []  # of each transaction with a commit of Godwit's: how often it waited for an answer
        self.cut = None  # "before" or "after" the next COMMIT
        self.cuts = 0
        self.closed = False  # nobody gets in
        self.attempts = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(os.path.join(folder, ".s.PGSQL.5432"))
        self.listener.listen(64)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.attempts.append(time.monotonic())
            if self.closed:
                client.close()
                continue
            server = socket.socket(socket.AF_UNIX)
            server.connect(self.target)
            pair = {"client": client, "server": server, "mute": False, "waits": 0, "commits": False, "ends": False}
            threading.Thread(target=self.forward, args=(pair,), daemon=True).start()
            threading.Thread(target=self.back, args=(pair,), daemon=True).start()

    def forward(self, pair):
        """Messages of the client: the first has no type."""
        stream, first = pair["client"].makefile("rb"), True
        try:
            while True:
                kind = b"" if first else stream.read(1)
                size = stream.read(4)
                if len(size) < 4:
                    break
                body = stream.read(int.from_bytes(size, "big") - 4)
                first = False
                query = body.split(b"\0")[1] if kind == b"P" else b""
                self.count(pair, kind, query)
                if query == b"COMMIT" and self.cut:
                    self.cuts += 1
                    if self.cut == "before":
                        self.cut = None
                        break
                    pair["mute"] = True
                    self.cut = None
                pair["server"].sendall(kind + size + body)
        except OSError:
            pass
        self.end(pair)

    def count(self, pair, kind, query):
        if query.startswith(b"BEGIN"):
            pair.update(waits=0, commits=False, ends=False)
        pair["commits"] |= query.startswith(b"INSERT INTO godwit.commit(")
        pair["ends"] |= query == b"COMMIT"
        pair["waits"] += kind == b"S"
        if kind == b"S" and pair["commits"] and pair["ends"]:
            self.waits.append(pair["waits"])
            pair["commits"] = False

    def back(self, pair):
        try:
            while True:
                data = pair["server"].recv(65536)
                if not data or pair["mute"]:
                    break  # what it would have said is lost
                pair["client"].sendall(data)
        except OSError:
            pass
        self.end(pair)

    @staticmethod
    def end(pair):
        for end in (pair["client"], pair["server"]):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.listener.close()


class Pooler:
    """pgbouncer in transaction mode, with fewer connections than it is asked for."""

    def __init__(self, folder, database):
        owner = os.stat(os.path.join(database.cluster.folder, "data"))
        os.chown(folder, owner.st_uid, owner.st_gid)
        os.chmod(folder, 0o755)
        settings = os.path.join(folder, "pgbouncer.ini")
        with open(os.path.join(folder, "users"), "w") as stream:
            stream.write('"postgres" ""\n')
        with open(settings, "w") as stream:
            stream.write(f"[databases]\n* = host={database.cluster.folder} port=5432\n[pgbouncer]\n"
                         f"listen_addr =\nunix_socket_dir = {folder}\nunix_socket_mode = 0777\nlisten_port = 5432\n"
                         f"auth_type = trust\nauth_file = {folder}/users\npool_mode = transaction\n"
                         "default_pool_size = 2\nmax_client_conn = 100\nserver_lifetime = 1\n")
        command = ["pgbouncer", "-q", settings]
        if os.getuid() == 0:
            command = ["setpriv", f"--reuid={owner.st_uid}", f"--regid={owner.st_gid}", "--clear-groups", *command]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        self.url = database.url.replace(f"host={database.cluster.folder}", f"host={folder}")
        harness.wait_until(lambda: os.path.exists(os.path.join(folder, ".s.PGSQL.5432")), what="pgbouncer is up")

    def close(self):
        self.process.terminate()
        self.process.wait(10)
