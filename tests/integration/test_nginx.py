"""Behind nginx with deploy/nginx.conf as it is shipped, but for what it says to change."""
import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request

import pytest

from certificates import Authority
from harness import ROOT, SLOW, Server, free_port, wait_until
from rawhttp import Reader, create, read_event, request

NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
pytestmark = pytest.mark.skipif(not NGINX, reason="nginx is not installed: see tools/setup")


class Nginx:
    """An unprivileged nginx in a folder of its own; looks like a Server to devices."""

    def __init__(self, server):
        self.folder = tempfile.mkdtemp(prefix="godwit-nginx-")
        self.port = free_port()
        self.server = server
        authority = Authority(self.folder)
        self.ca_file, self.trust = authority.file, authority.trust
        certificate, key = authority.issue("nginx")
        self.user = pwd.getpwnam("nobody") if os.getuid() == 0 else None
        self.write_config(certificate, key)
        self.process = subprocess.Popen(
            [NGINX, "-p", self.folder, "-c", "nginx.conf", "-e", "error.log", "-g", "daemon off;"],
            stdin=subprocess.DEVNULL, user=self.user and self.user.pw_uid,
            group=self.user and self.user.pw_gid, extra_groups=[] if self.user else None)
        wait_until(self.listens, what="nginx")

    def write_config(self, certificate, key):
        with open(os.path.join(ROOT, "deploy", "nginx.conf")) as stream:
            site = stream.read()
        changes = [("127.0.0.1:8787;  ", f"127.0.0.1:{self.server.port};  "), ("listen [::]:443 ssl http2;", ""),
                   ("listen 443 ssl", f"listen 127.0.0.1:{self.port} ssl"), ("sync.example.com", "localhost"),
                   ("/etc/ssl/sync/fullchain.pem", certificate), ("/etc/ssl/sync/privkey.pem", key)]
        for old, new in changes:
            assert site.count(old) == 1, old
            site = site.replace(old, new)
        with open(os.path.join(self.folder, "site.conf"), "w") as stream:
            stream.write(site)
        paths = "".join(f"{kind}_temp_path {self.folder}/{kind};\n"
                        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        with open(os.path.join(self.folder, "nginx.conf"), "w") as stream:
            stream.write(f"pid {self.folder}/pid;\nworker_processes 1;\nevents {{ worker_connections 1024; }}\n"
                         f"http {{\naccess_log off;\n{paths}include site.conf;\n}}\n")
        if self.user:
            for name in (".", *os.listdir(self.folder)):
                os.chown(os.path.join(self.folder, name), self.user.pw_uid, self.user.pw_gid)

    def listens(self):
        assert self.process.poll() is None, open(os.path.join(self.folder, "error.log")).read()
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    @property
    def url(self):
        return f"https://127.0.0.1:{self.port}"

    def connect(self, source="127.0.0.1"):
        s = socket.create_connection(("127.0.0.1", self.port), 20 * SLOW, source_address=(source, 0))
        return self.trust.wrap_socket(s, server_hostname="127.0.0.1")

    def token(self, **options):
        return self.server.token(**options)

    request, get, post, push = Server.request, Server.get, Server.post, Server.push

    def close(self):
        self.process.terminate()
        self.process.wait(10 * SLOW)
        shutil.rmtree(self.folder)


@pytest.fixture
def site(world):
    server = world.server(config="[server]\nunlimited = none\ntrusted_proxies = 127.0.0.1\naddress_rate = 50\n")
    return world.add(Nginx(server))


def test_devices_sync_through_it(world, site):
    devices = [world.device(name, site.server, url=site.url) for name in ("a", "b")]
    for device in devices:
        device.run("SELECT godwit_init(?)", json.dumps({"caFile": site.ca_file}))
    for i in range(50):
        devices[0].run("INSERT INTO pins(id, title) VALUES (?, ?)", f"p{i}", "x" * 50000)
    devices[0].sync()
    devices[1].sync()
    assert devices[1].one("SELECT count(*) FROM pins") == 50
    assert len(site.server.rows("pins")) == 50


def test_events_and_long_polls_come_at_once(site):
    ask = urllib.request.Request(site.url + "/v1/sync/events?scope=field",
                                 headers={"Authorization": "Bearer " + site.token()})
    with urllib.request.urlopen(ask, timeout=20 * SLOW, context=site.trust) as lines:
        assert lines.status == 200
        head = read_event(lines)["head"]
        for i in range(5):
            start = time.monotonic()
            assert site.push([create(i)]).status == 200
            head += 1
            assert read_event(lines)["head"] == head
            assert time.monotonic() - start < 2 * SLOW
    cursor = site.get("/v1/sync/changes?scope=field").json["cursor"]
    answers = []
    poll = threading.Thread(target=lambda: answers.append(
        site.get(f"/v1/sync/changes?scope=field&cursor={cursor}&wait=20").json))
    poll.start()
    wait_until(lambda: "godwit_parked_requests 1" in site.server.get("/metrics").body.decode(), what="parked")
    site.push([create(100)])
    poll.join(5 * SLOW)
    assert [c["entityId"] for commit in answers[0]["commits"] for c in commit["changes"]] == ["p100"]


def test_bounds(site):
    operations = [create(i, title="x" * 900000) for i in range(15)]
    assert site.push(operations).status == 200
    for size in ((16 << 20) + 1, 40 << 20):
        with site.connect() as s:
            s.sendall(f"POST /v1/sync HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode())
            assert Reader(s).answer()[0] == 413
    for path, status in (("/healthz", 200), ("/readyz", 200), ("/metrics", 200), ("/", 404), ("/secret", 404)):
        assert site.get(path, token="").status == status, path
    with site.connect("127.0.0.2") as s:
        s.sendall(request("/metrics"))
        assert Reader(s).answer()[0] == 403
    with site.connect() as s:  # the largest token is let through, and judged by the server
        s.sendall(request("/v1/sync/changes", "x" * 8000))
        assert Reader(s).answer()[0] == 401


def test_clients_are_told_apart(site):
    def statuses(source, header):
        with site.connect(source) as s:
            reader, found = Reader(s), []
            for i in range(700):
                s.sendall(request("/v1/meta", headers=[header.format(i % 250)]))
                found.append(reader.answer()[0])
            return found

    loud = statuses("127.0.0.2", "X-Forwarded-For: 9.9.9.{}")
    assert loud[:400] == [200] * 400 and 429 in loud
    assert statuses("127.0.0.2", "Forwarded: for=9.9.9.{}").count(429) > 200
    with site.connect("127.0.0.3") as s:
        s.sendall(request("/v1/meta"))
        assert Reader(s).answer()[0] == 200
    text = site.server.get("/metrics", token="").body.decode()
    assert int(re.search(r'godwit_limited_total{by="address",reason="rate"} (\d+)', text)[1]) > 200
