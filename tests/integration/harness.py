"""Real servers, devices and a misbehaving network for the black-box tests.

Server   `godwit serve` on a free loopback port over a folder of its own: start, stop, kill, restart
Device   an application database: written through Python's sqlite3 (with the extension loaded, or
         without), synced by `godwit sync` as a process of its own or by SELECT godwit_sync()
Proxy    a TCP proxy that reads HTTP messages and drops, delays, truncates, repeats or swallows them

GODWIT_BUILD names the build directory; GODWIT_SERVER_BUILD and GODWIT_CLI_BUILD override it for the
daemon and for the command line (sanitizer builds)."""
import gzip
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("GODWIT_BUILD") or os.path.join(ROOT, "build")
SERVER_BUILD = os.environ.get("GODWIT_SERVER_BUILD") or BUILD
CLI_BUILD = os.environ.get("GODWIT_CLI_BUILD") or BUILD
# sanitizer builds are slower: every bound on time is multiplied
SLOW = 1 if SERVER_BUILD == BUILD == CLI_BUILD else 5

SCHEMA = """
CREATE TABLE pins (
  id TEXT PRIMARY KEY, title TEXT, note TEXT, lat REAL, lng REAL, status TEXT, updated_at TEXT);
CREATE TABLE forms (
  id TEXT PRIMARY KEY, pin_id TEXT REFERENCES pins(id) ON DELETE CASCADE, name TEXT, body TEXT);
"""


class Failure(AssertionError):
    pass


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_until(condition, timeout=10, every=0.01, what="condition"):
    end = time.monotonic() + timeout * SLOW
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(every)
    raise Failure(f"not within {timeout} s: {what}")


def children(pid):
    """Processes that it has started."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as stream:
                parent = int(stream.read().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue  # it has ended meanwhile
        found += [int(name)] if parent == pid else []
    return found


class World:
    def __init__(self, path):
        self.path = path
        self.parts = []
        self.count = 0

    def add(self, part):
        self.parts.append(part)
        return part

    def folder(self, name):
        self.count += 1
        path = os.path.join(str(self.path), f"{name}{self.count}")
        os.makedirs(path, exist_ok=True)
        return path

    def server(self, schema=SCHEMA, config=None, dev=False, start=True, **options):
        s = self.add(Server(self.folder("server"), schema, config, dev, **options))
        if start:
            s.start()
        return s

    def device(self, name, server, schema=SCHEMA, tables=("pins", "forms"), **options):
        path = os.path.join(str(self.path), f"{name}.db")
        d = self.add(Device(path, name, server, **options))
        if schema:
            d.script(schema)
        if tables:
            d.init()
            for table in tables:
                d.track(table)
            # as an application that starts again: its connection finds Godwit's tables in place
            d.disconnect()
        return d

    def proxy(self, server, behave=None):
        return self.add(Proxy(server, behave))

    def close(self):
        for part in reversed(self.parts):
            part.close()


class Answer:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def problem(self):
        """Type of a problem document: its last path segment."""
        assert self.headers.get("Content-Type", "").startswith("application/problem+json"), self
        document = self.json
        assert document["status"] == self.status, document
        assert document["title"] and document["type"], document
        return document["type"].rsplit("/", 1)[-1]

    def __repr__(self):
        return f"<{self.status} {self.body[:600]!r}>"


class Server:
    """One `godwit serve`."""

    def __init__(self, folder, schema=SCHEMA, config=None, dev=False, env=None, wrapper=(), db=None,
                 trust=None):
        self.folder = folder
        self.trust = trust  # of https: an ssl context; None = http
        self.db = db
        self.data = os.path.join(folder, "data")
        self.schema = None
        self.config = None
        self.dev = dev
        self.env = env or {}
        self.wrapper = list(wrapper)
        self.port = free_port()
        self.process = None
        self.log_path = os.path.join(folder, "server.log")
        self.tokens = {}
        if schema:
            self.schema = os.path.join(folder, "schema.sql")
            with open(self.schema, "w") as stream:
                stream.write(schema)
        if config:
            self.config = os.path.join(folder, "godwit.conf")
            with open(self.config, "w") as stream:
                stream.write(config)

    @property
    def url(self):
        return f"{'https' if self.trust else 'http'}://127.0.0.1:{self.port}"

    @property
    def store(self):
        return os.path.join(self.data, "store.db")

    def command(self):
        command = [*self.wrapper, os.path.join(SERVER_BUILD, "godwit"), "serve",
                   "--listen", f"127.0.0.1:{self.port}", "--data", self.data]
        if self.schema:
            command += ["--schema", self.schema]
        if self.config:
            command += ["--config", self.config]
        if self.dev:
            command += ["--dev"]
        if self.db:
            command += ["--db", self.db]
        return command

    def spawn(self):
        """Starts without waiting until it listens."""
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, env=dict(os.environ, **self.env))

    def start(self):
        self.spawn()
        self.wait_ready()
        return self

    def wait_ready(self):
        end = time.monotonic() + 10 * SLOW
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise Failure(f"the server ended with {self.process.returncode}:\n{self.log()}")
            try:
                with urllib.request.urlopen(self.url + "/readyz", timeout=2, context=self.trust) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                time.sleep(0.01)
        raise Failure(f"the server is not ready:\n{self.log()}")

    def log(self):
        if not os.path.exists(self.log_path):
            return ""
        with open(self.log_path, errors="replace") as stream:
            return stream.read()[-4000:]

    def kill(self):
        """As the kernel would on a bad day."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def stop(self, timeout=15):
        """Gracefully; returns the exit code."""
        if not self.process:
            return None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout * SLOW)
            except subprocess.TimeoutExpired:
                self.kill()
                raise Failure(f"the server did not stop within {timeout} s:\n{self.log()}")
        return self.process.returncode

    def restart(self):
        self.kill()
        self.start()

    def close(self):
        clean = self.process is None or self.process.poll() is not None
        code = self.stop()
        if not clean and code != 0:
            raise Failure(f"the server ended with {code}:\n{self.log()}")
        if "Sanitizer" in self.log():
            raise Failure(self.log())

    def token(self, sub="ana", scope="field", ttl=None):
        """Minted by the real binary; scope may be a list."""
        key = (sub, str(scope), ttl)
        if key not in self.tokens or ttl is not None:
            command = [os.path.join(CLI_BUILD, "godwit"), "token", "--data", self.data, "--sub", sub]
            for name in scope if isinstance(scope, (list, tuple)) else [scope]:
                command += ["--scope", name]
            if ttl is not None:
                command += ["--ttl", str(ttl)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                raise Failure(f"token: {done.returncode} {done.stderr}")
            lines = done.stdout.split("\n")
            assert len(lines) == 2 and lines[1] == "" and lines[0].count(".") == 2, done.stdout
            self.tokens[key] = lines[0]
        return self.tokens[key]

    def request(self, method, path, body=None, token=None, headers=None, raw=None, timeout=30):
        """One request; token None = the default one, "" = none. body: object -> JSON; raw: bytes."""
        send = dict(headers or {})
        if token is None:
            token = self.token()
        if token:
            send.setdefault("Authorization", "Bearer " + token)
        data = raw
        if body is not None:
            data = json.dumps(body).encode()
        if data is not None:
            send.setdefault("Content-Type", "application/json")
        request = urllib.request.Request(self.url + path, data=data, headers=send, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout * SLOW, context=self.trust) as answer:
                result = Answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            result = Answer(error.code, error.headers, error.read())
        if result.headers.get("Content-Encoding") == "gzip":
            result.body = gzip.decompress(result.body)
        return result

    def get(self, path, **options):
        return self.request("GET", path, **options)

    def post(self, path, body=None, **options):
        return self.request("POST", path, body=body, **options)

    def push(self, operations, device="tool-1", **fields):
        """The requirements' own body."""
        options = {k: fields.pop(k) for k in ("token", "headers", "timeout") if k in fields}
        body = dict({"operations": operations, "deviceId": device,
                     "timestamp": "2026-01-02T03:04:05.678Z"}, **fields)
        return self.post("/v1/sync/operations", body, **options)

    def pull(self, scope="field", **query):
        """All commits from the beginning (or after cursor=)."""
        commits, cursor = [], query.pop("cursor", None)
        token = query.pop("token", None)
        while True:
            parameters = dict(query, scope=scope)
            if cursor:
                parameters["cursor"] = cursor
            answer = self.get("/v1/sync/changes?" + urllib.parse.urlencode(parameters), token=token)
            assert answer.status == 200, answer
            page = answer.json
            commits += page["commits"]
            cursor = page["cursor"]
            if not page["more"]:
                return commits, page

    def query(self, sql, *values):
        """Reads the store as an operator with the sqlite3 shell would."""
        if not os.path.exists(self.store):
            return []
        connection = sqlite3.connect(f"file:{self.store}?mode=ro", uri=True, timeout=10)
        try:
            return connection.execute(sql, values).fetchall()
        finally:
            connection.close()

    def rows(self, table, key="id"):
        return self.query(f'SELECT * FROM "{table}" ORDER BY {key}')

    def state(self):
        """Everything a refused request must leave as it was: heads, ledger, all typed tables."""
        names = [n for (n,) in self.query("SELECT name FROM sqlite_schema WHERE type = 'table' "
                                          "AND name NOT LIKE 'sqlite_%' ORDER BY 1")]
        skip = {"godwit_meta"}
        image = {}
        for name in names:
            if name not in skip:
                image[name] = sorted(map(repr, self.query(f'SELECT * FROM "{name}"')))
        # that a device was seen is no change of content
        image.pop("godwit_device", None)
        return image


class Result:
    def __init__(self, done):
        self.code = done.returncode
        self.out = done.stdout
        self.err = done.stderr

    @property
    def json(self):
        return json.loads(self.out)

    def __repr__(self):
        return f"<exit {self.code} out={self.out!r} err={self.err!r}>"


def cli(*arguments, timeout=60, env=None, input=None):
    done = subprocess.run([os.path.join(CLI_BUILD, "godwit"), *map(str, arguments)], capture_output=True,
                          text=True, timeout=timeout * SLOW, env=dict(os.environ, **(env or {})),
                          input=input)
    if "Sanitizer" in done.stderr:
        raise Failure(done.stderr)
    return Result(done)


class Device:
    """One application database. `extension`: the application has loaded godwit.so."""

    def __init__(self, path, name, server, extension=True, scope="field", sub="ana", url=None):
        self.path = path
        self.name = name
        self.server = server
        self.scope = scope
        self.url = url or server.url
        self.token_file = path + ".token"
        self.extension = extension
        self._db = None
        self.sub = sub
        self.refresh_token()

    def refresh_token(self, **options):
        token = self.server.token(sub=self.sub, scope=self.scope, **options)
        with open(self.token_file, "w") as stream:
            stream.write(token + "\n")

    # ---- the application ----

    def connect(self, extension=None):
        db = sqlite3.connect(self.path, isolation_level=None, timeout=20, check_same_thread=False)
        if self.extension if extension is None else extension:
            db.enable_load_extension(True)
            db.load_extension(os.path.join(BUILD, "godwit"))
            db.enable_load_extension(False)
        db.execute("PRAGMA foreign_keys = ON")
        return db

    @property
    def db(self):
        if self._db is None:
            self._db = self.connect()
        return self._db

    def disconnect(self):
        if self._db is not None:
            self._db.close()
            self._db = None

    def run(self, sql, *values):
        return self.db.execute(sql, values).fetchall()

    def one(self, sql, *values):
        row = self.db.execute(sql, values).fetchone()
        return row[0] if row else None

    def script(self, sql):
        self.db.executescript(sql)

    def transaction(self, *statements):
        """Each statement: text, or (text, values..)."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            for statement in statements:
                if isinstance(statement, str):
                    self.db.execute(statement)
                else:
                    self.db.execute(statement[0], statement[1:])
            self.db.execute("COMMIT")
        except BaseException:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise

    def rows(self, table, key="id"):
        return self.run(f'SELECT * FROM "{table}" ORDER BY {key}')

    # ---- Godwit ----

    def init(self, **settings):
        arguments = ["init", self.path, "--url", self.url, "--token-file", self.token_file]
        if self.scope and isinstance(self.scope, str):
            arguments += ["--scope", self.scope]
        for name, value in settings.items():
            arguments += ["--" + name.replace("_", "-"), value]
        done = cli(*arguments)
        assert done.code == 0, done

    def track(self, table, **options):
        if options:
            self.run("SELECT godwit_track(?, ?)", table, json.dumps(options))
        else:
            done = cli("track", self.path, table)
            assert done.code == 0, done

    def sync_cli(self, *arguments, timeout=60):
        """`godwit sync` as a process of its own."""
        return cli("sync", self.path, *arguments, timeout=timeout)

    def sync(self):
        """Until nothing is pending; must succeed."""
        done = self.sync_cli()
        assert done.code == 0, done
        return done

    def sync_sql(self, timeout_ms=30000):
        """Inside the application's process."""
        return json.loads(self.one("SELECT godwit_sync(?)", timeout_ms))

    def spawn_sync(self):
        return subprocess.Popen([os.path.join(CLI_BUILD, "godwit"), "sync", self.path],
                                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE)

    def queue(self, where="1"):
        """The requirements' queue as dicts."""
        cursor = self.db.execute(f"SELECT * FROM sync_queue WHERE {where}")
        names = [d[0] for d in cursor.description]
        return [dict(zip(names, row)) for row in cursor.fetchall()]

    def pending(self):
        return self.one("SELECT count(*) FROM sync_queue WHERE status = 'pending'")

    def meta(self, key):
        return self.one("SELECT v FROM godwit_meta WHERE k = ?", key)

    def close(self):
        self.disconnect()


def settle(*devices, rounds=3):
    """Syncs all devices until each has everything (two rounds; a third for what settling queued)."""
    for _ in range(rounds):
        for device in devices:
            device.sync()


def assert_converged(server, devices, tables=("pins", "forms"), keys=None):
    """Every replica equals the server's typed tables, and nothing waits."""
    for table in tables:
        key = (keys or {}).get(table, "id")
        expected = server.rows(table, key)
        for device in devices:
            assert device.rows(table, key) == expected, f"{device.name}.{table} differs"
    for device in devices:
        assert device.pending() == 0, device.queue("status = 'pending'")


class Proxy:
    """Stands between clients and a server and understands just enough HTTP/1.1 to misbehave per
    message. behave(n, head, body) is called for the n-th request (from 0) and returns a word:

    pass | drop (close before the server sees it) | swallow (the server answers, the client sees a
    closed connection) | truncate (half of the answer) | garble (a proxy's HTML page with status 200)
    | twice (the request is sent two times, the second answer is passed on) | ("delay", s)
    or a callable(answer bytes) -> answer bytes."""

    def __init__(self, server, behave=None):
        self.server = server
        self.behave = behave or (lambda n, head, body: "pass")
        self.requests = []
        self.lock = threading.Lock()
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(64)
        self.port = self.listener.getsockname()[1]
        self.open = True
        threading.Thread(target=self.accept, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def close(self):
        self.open = False
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()

    def accept(self):
        while self.open:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    @staticmethod
    def read_message(stream, is_answer):
        """(head, body) as bytes exactly as read; None at the end of the connection."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = stream.readline(65536)
            if not line:
                return None
            head += line
        lower = head.lower()
        length = 0
        if b"transfer-encoding: chunked" in lower:
            body = b""
            while True:
                size_line = stream.readline()
                body += size_line
                size = int(size_line.split(b";")[0], 16)
                body += stream.read(size + 2)
                if size == 0:
                    return head, body
        for line in lower.split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        if is_answer and head.split(b" ")[1] in (b"204", b"304"):
            length = 0
        body = stream.read(length)
        return (head, body) if len(body) == length else None

    def exchange(self, head, body):
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=30) as upstream:
            upstream.sendall(head + body)
            with upstream.makefile("rb") as stream:
                return self.read_message(stream, True)

    def serve(self, client):
        try:
            with client, client.makefile("rb") as stream:
                while self.open:
                    message = self.read_message(stream, False)
                    if message is None or not self.one(client, *message):
                        return
        except (OSError, ValueError):
            return

    def one(self, client, head, body):
        """False: the connection is to be closed."""
        with self.lock:
            number = len(self.requests)
            self.requests.append(head.split(b" ", 2)[1].decode())
        action = self.behave(number, head, body)
        if isinstance(action, tuple):
            time.sleep(action[1])
            action = "pass"
        if action == "drop":
            return False
        answer = self.exchange(head, body)
        if action == "twice":
            answer = self.exchange(head, body)
        if answer is None or action == "swallow":
            return False
        raw = answer[0] + answer[1]
        if action == "truncate":
            client.sendall(raw[:len(answer[0]) + len(answer[1]) // 2])
            return False
        if action == "garble":
            page = b"<html>please log in to the hotel's network</html>"
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n"
                           % len(page) + page)
            return True
        client.sendall(action(raw) if callable(action) else raw)
        return True


def chaos(seed, share=0.3):
    """A behaviour that misbehaves at random, reproducibly."""
    generator = random.Random(seed)
    lock = threading.Lock()

    def behave(_number, _head, _body):
        with lock:
            if generator.random() > share:
                return "pass"
            return generator.choice(["drop", "swallow", "truncate", "twice", "garble", ("delay", 0.02)])

    return behave
