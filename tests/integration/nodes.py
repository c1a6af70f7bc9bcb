"""Several servers over one PostgreSQL: starting them, a balancer in front, a load that notes what was
acknowledged, and the comparison of that with the feed."""
import os
import random
import socket
import threading
import time
import urllib.error

import harness
from stream import Stream

PINS = "CREATE TABLE pins (id text PRIMARY KEY, title text, note text, lat double precision);"
DEVICE = "CREATE TABLE pins (id TEXT PRIMARY KEY, title TEXT, note TEXT, lat REAL);"


def start(world, url, count=3, config=None):
    """Servers that take each other's tokens."""
    nodes = [world.server(schema=None, config=config, env={"GODWIT_DB": url})]
    env = {"GODWIT_DB": url, "GODWIT_JWT_SECRET_FILE": os.path.join(nodes[0].data, "secret")}
    nodes += [world.server(schema=None, config=config, env=env, start=False) for _ in range(count - 1)]
    for node in nodes[1:]:
        node.token = nodes[0].token  # one secret: a token is good everywhere
        node.spawn()
    for node in nodes[1:]:
        node.wait_ready()
    return nodes


def metric(node, name):
    lines = node.get("/metrics").body.decode().splitlines()
    return int([line for line in lines if line.startswith(name + " ")][0].split()[-1])


class Balancer:
    """Passes each connection on to the next server that takes it, as balancers of TCP do."""

    def __init__(self, nodes):
        self.ports = [node.port for node in nodes]
        self.turn = 0
        self.open = True
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def accept(self):
        while self.open:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def dial(self):
        for _ in range(200):
            self.turn += 1
            try:
                return socket.create_connection(("127.0.0.1", self.ports[self.turn % len(self.ports)]))
            except OSError:
                time.sleep(0.02)
        raise OSError("no server")

    def serve(self, client):
        try:
            with client, self.dial() as server:
                back = threading.Thread(target=self.pipe, args=(server, client), daemon=True)
                back.start()
                self.pipe(client, server)
                back.join()
        except OSError:
            pass

    @staticmethod
    def pipe(source, target):
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            for end in (source, target):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def close(self):
        self.open = False
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()


class Load:
    """Devices that write without a pause, each to a server of its own choice, and send an operation again,
    elsewhere, until it is acknowledged."""

    def __init__(self, nodes, writers=3, seed=1, scope="field"):
        self.nodes = nodes
        self.scope = scope
        self.acked = []  # entities
        self.strange = []  # answers nobody may get
        self.again = 0
        self.stopping = False
        self.random = random.Random(seed)
        self.threads = []
        for number in range(writers):
            stream = Stream(nodes[number % len(nodes)], device=f"{seed:016x}{number:016x}", scope=scope)
            self.threads.append(threading.Thread(target=self.write, args=(stream, number)))

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_error):
        self.stop()

    def stop(self):
        self.stopping = True
        for thread in self.threads:
            thread.join(60 * harness.SLOW)
            assert not thread.is_alive(), "a write was never acknowledged"

    def write(self, stream, number):
        count = 0
        while not self.stopping:
            count += 1
            entity = f"p{number}-{count}"
            operation = stream.create(entity, count, title=f"t{count}")
            while not self.once(stream, operation):
                self.again += 1
                time.sleep(0.05)
            self.acked.append(entity)

    def once(self, stream, operation):
        stream.server = self.random.choice(self.nodes)
        try:
            answer = stream.push([operation])
        except (OSError, urllib.error.URLError, ValueError):  # refused, cut off, half an answer
            return False
        except Exception as error:  # http.client's: the answer broke off
            if type(error).__module__ != "http.client":
                self.strange.append(repr(error))
            return False
        if answer.status == 200:
            outcome = answer.json["results"][0]
            if outcome["outcome"] != "applied":
                self.strange.append(answer)
            return True
        if answer.status not in (503, 502):
            self.strange.append(answer)
            return answer.status not in (429,)
        return False

    def wait_for(self, more, timeout=60):
        goal = len(self.acked) + more
        harness.wait_until(lambda: len(self.acked) >= goal or self.strange, timeout, what=f"{more} more writes")
        assert not self.strange, self.strange[0]


def check_feed(nodes, acked, scope="field"):
    """Each server tells the same: commits without a gap, every acknowledged row once, nothing doubled."""
    feeds = [node.pull(scope=scope, token=node.token(scope=scope))[0] for node in nodes]
    for feed in feeds[1:]:
        assert feed == feeds[0]
    sequence = [commit["seq"] for commit in feeds[0]]
    assert sequence == list(range(1, len(sequence) + 1))
    written = [change["entityId"] for commit in feeds[0] for change in commit["changes"]]
    assert len(written) == len(set(written)), "an operation was applied twice"
    lost = set(acked) - set(written)
    assert not lost, f"acknowledged and lost: {sorted(lost)[:10]}"
    return written
