"""TLS in the daemon: curl, the client and bare sockets; certificates that change; slow and many
handshakes."""
import json
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time

import pytest

from certificates import Authority, openssl
from harness import SLOW, wait_until
from rawhttp import OK, OK_CLOSE, Reader, connect, create, read_all, read_event, read_head, request
from test_serve import serve


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


def start(world, authority, more=""):
    certificate, key = authority.issue("server")
    return world.server(config=f"[server]\ntls_cert = {certificate}\ntls_key = {key}\n{more}",
                        trust=authority.trust)


@pytest.fixture
def secure(world, authority):
    return start(world, authority)


def wrap(server, timeout=10, context=None):
    context = context or server.trust
    return context.wrap_socket(connect(server, timeout), server_hostname="127.0.0.1")


def metric(server, name):
    text = server.get("/metrics", token="").body.decode()
    return int(re.search(rf"^{re.escape(name)} (\d+)", text, re.M)[1])


def test_a_device_syncs(world, secure, authority):
    assert secure.url.startswith("https://")
    writer = world.device("a", secure, tables=None)
    writer.init(ca_file=authority.file)
    writer.track("pins")
    writer.run("INSERT INTO pins(id, title) VALUES ('p1', ?)", "x" * 300000)
    writer.sync()
    reader = world.device("b", secure)
    reader.run("SELECT godwit_init(?)", json.dumps({"caFile": authority.file}))
    reader.sync()
    assert reader.one("SELECT length(title) FROM pins") == 300000
    # by whom the certificate was issued matters
    writer.init(ca_file="")
    writer.run("INSERT INTO pins(id, title) VALUES ('p2', 'x')")
    done = writer.sync_cli()
    assert done.code != 0 and "certificate" in (done.out + done.err).lower(), done
    assert writer.pending() == 1


def test_curl(secure, authority):
    def curl(*arguments):
        return subprocess.run(["curl", "-sS", "--cacert", authority.file, *arguments, secure.url + "/healthz"],
                              capture_output=True, text=True, timeout=20)

    assert curl("--tlsv1.3").stdout == "ok\n"
    assert curl("--tls-max", "1.2").stdout == "ok\n"
    assert curl("--http2").stdout == "ok\n"
    assert curl("--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0").returncode == 35
    assert curl("--tls-max", "1.2", "--ciphers", "AES128-SHA").returncode == 35  # no forward secrecy
    assert curl("--tls-max", "1.2", "--ciphers", "ECDHE-ECDSA-AES128-SHA").returncode == 35
    done = subprocess.run(["curl", "-sS", secure.url + "/healthz"], capture_output=True, timeout=20)
    assert done.returncode == 60  # nobody knows this authority


def test_as_without(secure):
    """Pipelining, one byte at a time, large bodies both ways, half-closed, long polls, streams."""
    token = secure.token()
    with wrap(secure) as s:
        s.sendall(OK * 200 + OK_CLOSE)
        reader = Reader(s)
        assert all(reader.answer()[0] == 200 for _ in range(201)) and reader.answer() is None
    with wrap(secure) as s:
        for byte in OK_CLOSE:
            s.sendall(bytes([byte]))
        assert Reader(s).answer()[0] == 200
    operations = [create(i, title="x" * 100000) for i in range(60)]
    assert secure.push(operations).status == 200
    with wrap(secure, timeout=30) as s:
        s.sendall(request("/v1/sync/snapshot?scope=field&limit=5000", token))
        assert len(Reader(s).answer()[2]) > 1000000
    _, page = secure.pull()
    with wrap(secure, timeout=30) as s:
        s.sendall(request(f"/v1/sync/changes?scope=field&cursor={page['cursor']}&wait=20", token))
        wait_until(lambda: metric(secure, "godwit_parked_requests") == 1, what="parked")
        secure.push([create(1000)])
        assert b"p1000" in Reader(s).answer()[2]
    with wrap(secure, timeout=30) as s:
        lines = s.makefile("rb")
        s.sendall(request("/v1/sync/events?scope=field", token))
        assert read_head(lines)[0] == 200
        head = read_event(lines)["head"]
        secure.push([create(1001)])
        assert read_event(lines)["head"] == head + 1


def test_answers_end_with_a_goodbye(secure):
    """Else whoever reads could not tell the end from a cut."""
    with wrap(secure) as s:
        s.suppress_ragged_eofs = False
        s.sendall(OK_CLOSE)
        assert read_all(s).startswith(b"HTTP/1.1 200 OK")


def test_what_is_no_tls_is_dropped(secure):
    for data in (OK, b"\x16\x03\x01\x00\x05hello", b"\0" * 100, b"\x16\x03\x03\x40\x00" + b"x" * 20000):
        with connect(secure) as s:
            s.sendall(data)
            assert not read_all(s).startswith(b"HTTP/1.1 200")
    context = ssl.create_default_context(cafile=None)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with pytest.raises(ssl.SSLError):
        wrap(secure, context=context)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with wrap(secure, context=context) as s:
        assert s.selected_alpn_protocol() == "http/1.1"
    assert metric(secure, 'godwit_tls_handshakes_total{result="failed"}') >= 4
    assert secure.get("/healthz").status == 200


def number_of(server):
    with wrap(server) as s:
        return s.getpeercert()["serialNumber"]


def test_a_new_certificate_without_a_restart(world, tmp_path):
    authority = Authority(tmp_path / "ca")
    server = start(world, authority)
    certificate, key = authority.issue("next", days=20)
    before, end = number_of(server), metric(server, "godwit_tls_certificate_end_seconds")
    with wrap(server) as s:
        for made, used in ((certificate, "server.pem"), (key, "server.key")):
            shutil.copy(made, tmp_path / "ca" / used)
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: number_of(server) != before, what="the new one")
        s.sendall(OK)  # a connection goes on with what it has
        assert Reader(s).answer()[0] == 200
    assert 9 * 86400 < metric(server, "godwit_tls_certificate_end_seconds") - end < 11 * 86400
    now = number_of(server)
    (tmp_path / "ca" / "server.pem").write_text("nonsense")
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "certificate=kept" in server.log(), what="the refusal")
    assert number_of(server) == now


def test_mistakes_are_explained(tmp_path, authority):
    certificate, key = authority.issue("one")
    _, other = authority.issue("two")
    locked = str(tmp_path / "locked.key")
    openssl(tmp_path, "ec", "-in", key, "-aes256", "-passout", "pass:x", "-out", locked)
    open_to_all = shutil.copy(key, tmp_path / "open.key")
    open_to_all.chmod(0o644)
    for cert, secret, message in [(certificate, other, "key"), (certificate, locked, "passphrase"),
                                  (certificate, open_to_all, "chmod 600"), (key, key, "certificates"),
                                  (certificate, "/nonexistent", "can't be read"),
                                  (certificate, None, "tls_key")]:
        config = tmp_path / "godwit.ini"
        config.write_text(f"[server]\ntls_cert = {cert}\n" + (f"tls_key = {secret}\n" if secret else ""))
        for check in ([], ["--check-config"]):
            code, out, err = serve("--listen", "127.0.0.1:0", "--data", tmp_path / "data", "--config", config, *check)
            assert code == 1 and out == "" and message in err, (cert, secret, err)


def test_slow_handshakes_delay_nobody_and_end(world, authority):
    server = start(world, authority)
    hello = bytes.fromhex("16030100c8010000c40303")
    peers = []
    for i in range(800):
        s = socket.create_connection(("127.0.0.1", server.port))
        s.sendall(hello[:i % len(hello)])
        peers.append(s)
    try:
        began, times = time.monotonic(), []
        token = server.token()
        with wrap(server) as s:
            reader = Reader(s)
            for _ in range(200):
                start_s = time.monotonic()
                s.sendall(request("/v1/sync/changes?scope=field", token))
                assert reader.answer()[0] == 200
                times.append(time.monotonic() - start_s)
        assert sorted(times)[int(len(times) * 0.99)] < 0.1 * SLOW, sorted(times)[-10:]
        wait_until(lambda: metric(server, "godwit_connections") < 10, timeout=20, every=0.3, what="all gone")
        assert time.monotonic() - began < 20 * SLOW
    finally:
        for s in peers:
            s.close()


def test_a_flood_of_handshakes_is_bounded(world, authority):
    server = start(world, authority, "unlimited = none\naddress_rate = 10\n")
    done = refused = 0
    for _ in range(40):
        try:
            s = socket.create_connection(("127.0.0.1", server.port), timeout=10, source_address=("127.0.0.2", 0))
            with server.trust.wrap_socket(s, server_hostname="127.0.0.1"):
                done += 1
        except OSError:
            refused += 1
    assert done <= 15 and refused >= 25, (done, refused)
    with wrap(server) as s:  # another address
        s.sendall(OK)
        assert Reader(s).answer()[0] == 200
