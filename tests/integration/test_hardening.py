"""What the daemon gives up: privileges, files, system calls; and the systemd unit that takes the rest."""
import ctypes
import os
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile

import pytest

from certificates import Authority
from harness import ROOT, SCHEMA, SERVER_BUILD, SLOW, Server, settle, wait_until
from postgres import Cluster
from rawhttp import create
from test_hooks import CONFIG, library
from test_serve import serve

LANDLOCK = ctypes.CDLL(None, use_errno=True).syscall(444, None, 0, 1) > 0
needs_landlock = pytest.mark.skipif(not LANDLOCK or SLOW > 1,
                                    reason="no landlock in this kernel, or a sanitizer, which traces")
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")


def status_of(server, name):
    """A line of /proc/PID/status, of each thread."""
    found, folder = set(), f"/proc/{server.process.pid}/task"
    for thread in os.listdir(folder):
        with open(f"{folder}/{thread}/status") as stream:
            found.add(re.search(rf"^{name}:\s*(.*)$", stream.read(), re.M)[1])
    return found


@needs_landlock
def test_a_hardened_server_works(world):
    server = world.server(config="[server]\nharden = yes\n")
    assert status_of(server, "Seccomp") == {"2"} and status_of(server, "NoNewPrivs") == {"1"}
    devices = [world.device(name, server) for name in "ab"]
    for i in range(300):
        devices[0].run("INSERT INTO pins(id, title) VALUES (?, ?)", f"p{i}", "x" * 10000)
    settle(*devices)
    assert devices[1].one("SELECT count(*) FROM pins") == 300
    server.restart()
    settle(*devices)
    assert "event=hardened" in server.log()


@needs_landlock
def test_with_postgres(world):
    """Sockets are no files of the kind that is closed."""
    cluster = Cluster()
    try:
        tables = SCHEMA.replace("REAL", "double precision")
        server = world.server(schema=None, config="[server]\nharden = yes\n",
                              db=cluster.database(tables, ("pins", "forms")))
        devices = [world.device(name, server) for name in "ab"]
        devices[0].run("INSERT INTO pins(id, title) VALUES ('p1', 'x')")
        settle(*devices)
        assert devices[1].one("SELECT title FROM pins") == "x"
        assert status_of(server, "Seccomp") == {"2"}
        server.restart()
        settle(*devices)
        assert server.stop() == 0
    finally:
        cluster.close()


def reason(server, title):
    answer = server.push([create(random.randrange(10**9), title=title)])
    return answer.json["results"][0]["error"]["detail"]


@needs_landlock
def test_no_other_file_can_be_opened(world, tmp_path):
    """Asked of a hook, which runs under the same rules; without them it can."""
    outside = tmp_path / "outside"
    outside.write_text("not the server's")
    for harden, file, call in (("no", "done", "done"), ("yes", "Permission denied", "Operation not permitted")):
        config = CONFIG.format(library=library(world, "unruly"), timeout=2000).replace(
            "[server]\n", f"[server]\nharden = {harden}\n")
        server = world.server(config=config)
        assert file in reason(server, f"open {outside}")
        assert call in reason(server, "persona")
        assert server.push([create(1, title="good")]).json["results"][0]["status"] == "success"


@needs_landlock
def test_the_server_itself_opens_no_other_file(world, tmp_path):
    """A certificate that is replaced by a link to somewhere else."""
    authority = Authority(tmp_path / "ca")
    elsewhere = Authority(tmp_path / "elsewhere")
    certificate, key = authority.issue("server")
    next_certificate, next_key = elsewhere.issue("next")
    server = world.server(config=f"[server]\nharden = yes\ntls_cert = {certificate}\ntls_key = {key}\n",
                          trust=authority.trust)
    shutil.copy(authority.issue("third")[0], certificate)
    shutil.copy(authority.issue("third")[1], key)  # another pair by now: does not fit
    pair = authority.issue("fourth")
    os.replace(pair[0], certificate)
    os.replace(pair[1], key)
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "certificate=read" in server.log(), what="the new pair")
    for path, other in ((certificate, next_certificate), (key, next_key)):
        os.unlink(path)
        os.symlink(other, path)
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "certificate=kept" in server.log(), what="the refusal")
    assert server.get("/healthz").status == 200


@pytest.fixture
def nobodys():
    """A folder that is nobody's."""
    folder, user = tempfile.mkdtemp(prefix="godwit-nobody-"), pwd.getpwnam("nobody")
    os.chown(folder, user.pw_uid, user.pw_gid)
    yield folder
    shutil.rmtree(folder)


def privileged_port():
    for _ in range(100):
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", random.randrange(600, 1000)))
                return s.getsockname()[1]
            except OSError:
                pass
    raise AssertionError("no port")


@needs_root
@pytest.mark.parametrize("harden", ["no", pytest.param("yes", marks=needs_landlock)])
def test_privileges_are_dropped(world, nobodys, harden):
    """A port and a key for which root is needed, then nobody."""
    authority = Authority(os.path.join(nobodys, "ca"))
    certificate, key = authority.issue("server")
    server = Server(nobodys, config=f"[server]\nuser = nobody\nharden = {harden}\ntls_cert = {certificate}\n"
                    f"tls_key = {key}\n", trust=authority.trust)
    server.port = privileged_port()
    world.add(server).start()
    user = pwd.getpwnam("nobody")
    assert status_of(server, "Uid") == {"\t".join([str(user.pw_uid)] * 4)}
    assert status_of(server, "Gid") == {"\t".join([str(user.pw_gid)] * 4)}
    assert status_of(server, "CapEff") == {"0" * 16} and status_of(server, "CapPrm") == {"0" * 16}
    assert os.stat(server.store).st_uid == user.pw_uid
    assert server.push([create(1)]).status == 200
    # a second start over the same folder
    assert server.stop() == 0
    server.start()
    assert server.rows("pins")


def without_landlock():
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    rules = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(0x7fff0000)))
    library.seccomp_rule_add(rules, ctypes.c_uint32(0x00050000 | 38), ctypes.c_int(444), ctypes.c_uint(0))
    library.seccomp_load(rules)


def test_what_cannot_be_given_up_is_refused(tmp_path):
    def start(*arguments, **options):
        code, out, err = serve("--listen", "127.0.0.1:0", "--data", tmp_path / "data", *arguments, **options)
        assert code == 1 and out == "", (code, out)
        return err

    hardened = dict(os.environ, GODWIT_HARDEN="yes")
    for check in ([], ["--check-config"]):
        assert "no 'no-such-user'" in start("--user", "no-such-user", *check)
        assert "gives up nothing" in start("--user", "root", *check)
        err = start(*check, env=hardened, preexec_fn=without_landlock)
        assert "landlock" in err and "harden = no" in err
        if os.getuid() == 0 and os.access(SERVER_BUILD, os.X_OK):
            err = start("--user", "daemon", *check, user="nobody")
            assert "only root" in err
    assert "harden" in start(env=dict(os.environ, GODWIT_HARDEN="perhaps"))


def test_the_systemd_unit(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed (package systemd)")
    unit = os.path.join(ROOT, "deploy", "godwit.service")
    done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager", unit],
                          capture_output=True, text=True, timeout=60)
    score = re.search(r"Overall exposure level for godwit.service: ([\d.]+)", done.stdout)
    assert score, done
    assert float(score[1]) <= 1.5
    assert "ignoring" not in done.stderr, done.stderr
