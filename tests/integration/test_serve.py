"""How `godwit serve` starts and stops, what it says, and its tokens."""
import os
import signal
import subprocess
import threading
import time

import pytest

from harness import SERVER_BUILD, SLOW, cli, wait_until
from rawhttp import OK, Reader, connect, create, events, read_event, read_head


# ---- starting and stopping ----

def test_graceful_stop(server):
    _, page = server.pull()
    answers = []

    def poll():
        answers.append(server.get(f"/v1/sync/changes?scope=field&cursor={page['cursor']}&wait=20"))

    poller = threading.Thread(target=poll)
    poller.start()
    wait_until(lambda: "godwit_parked_requests 1" in server.get("/metrics").body.decode(),
               what="parked")
    idle = connect(server)
    idle.sendall(OK)
    assert Reader(idle).answer()[0] == 200
    stream, lines = events(server)
    read_head(lines)
    half = connect(server)
    half.sendall(b"GET /readyz HTTP/1.1\r\n")
    time.sleep(0.2)
    start = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    poller.join(10 * SLOW)
    assert answers and answers[0].status == 200 and answers[0].json["commits"] == []
    assert idle.recv(10) == b""
    assert read_event(lines) is not None and read_event(lines) is None
    half.sendall(b"Host: a\r\n\r\n")  # begun before the signal: answered, and says what is happening
    assert Reader(half).answer()[0] == 503
    assert server.process.wait(10 * SLOW) == 0
    assert time.monotonic() - start < 8 * SLOW
    with pytest.raises(OSError):
        connect(server)
    for s in (idle, stream, half):
        s.close()
    assert "event=stopped" in server.log()


def test_stop_under_load_loses_no_answer(server):
    """Every push that was answered is in the store; the others can be sent again."""
    token, answered = server.token(), []

    def push(worker):
        i = 0
        while True:
            number = worker * 10000 + i
            try:
                if server.push([create(number)], token=token).status == 200:
                    answered.append(number)
            except OSError:
                return
            i += 1

    threads = [threading.Thread(target=push, args=(w,)) for w in range(8)]
    for t in threads:
        t.start()
    wait_until(lambda: len(answered) > 100, timeout=30, what="some pushes")
    assert server.stop() == 0
    for t in threads:
        t.join()
    assert {f"p{n}" for n in answered} <= {row[0] for row in server.rows("pins")}


def test_second_signal_ends_at_once(server):
    half = connect(server)
    half.sendall(b"GET /readyz HTTP/1.1\r\n")
    time.sleep(0.2)
    server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "event=stopping" in server.log(), what="stopping")
    assert server.process.poll() is None
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(3 * SLOW) == -signal.SIGTERM
    half.close()


def serve(*arguments, timeout=10, **options):
    done = subprocess.run([os.path.join(SERVER_BUILD, "godwit"), "serve", *map(str, arguments)],
                          capture_output=True, text=True, timeout=timeout * SLOW, **options)
    return done.returncode, done.stdout, done.stderr


def test_first_line_is_the_address(tmp_path):
    process = subprocess.Popen([os.path.join(SERVER_BUILD, "godwit"), "serve", "--listen",
                                "127.0.0.1:0", "--data", str(tmp_path / "data")],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        line = process.stdout.readline()
        assert line.startswith("listening on http://127.0.0.1:")
        port = int(line.rsplit(":", 1)[1])
        assert port > 0
        assert "godwit token --data" in process.stdout.readline()
        assert os.stat(tmp_path / "data").st_mode & 0o777 == 0o700
        assert os.stat(tmp_path / "data" / "secret").st_mode & 0o777 == 0o600
        with open(tmp_path / "data" / "secret") as secret:
            assert len(secret.read().strip()) == 64
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(10 * SLOW) == 0
        process.stdout.close()


def test_one_folder_one_server(server, tmp_path):
    code, out, err = serve("--listen", "127.0.0.1:0", "--data", server.data)
    assert code == 1 and out == "" and "another server" in err and str(server.process.pid) in err


def test_port_in_use(server, tmp_path):
    code, _, err = serve("--listen", f"127.0.0.1:{server.port}", "--data", tmp_path / "other")
    assert code == 1 and "in use" in err and "--listen" in err


@pytest.mark.parametrize("arguments,message", [
    (["--schema", "/nonexistent/schema.sql"], "schema"),
    (["--config", "/nonexistent/godwit.ini"], "configuration"),
    (["--data", "/proc/godwit"], "--data"),
    (["--listen", "0.0.0.0:0"], "jwt_secret_file"),
    (["--listen", "203.0.113.7:0", "--dev"], "not an address of this machine"),
    (["--threads", "0"], "threads"),
    (["--listen", "nonsense"], "listen"),
], ids=["schema", "config", "data", "open to others", "address", "threads", "listen"])
def test_mistakes_are_explained(tmp_path, arguments, message):
    if "--data" not in arguments:
        arguments = [*arguments, "--data", str(tmp_path / "data")]
    code, out, err = serve(*arguments)
    assert code == 1 and out == "" and message in err, err


def test_folder_that_cannot_be_written(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):
        pytest.skip("this user may write everywhere")
    code, _, err = serve("--listen", "127.0.0.1:0", "--data", folder)
    assert code == 1 and "can't be written" in err


def test_wrong_usage(tmp_path):
    for arguments in (["--nonsense"], ["extra"], ["--listen"]):
        code, out, err = serve(*arguments)
        assert code == 2 and out == "" and err, arguments
    code, out, _ = serve("--help")
    assert code == 0 and "Examples:" in out


def test_check_config(tmp_path):
    good = tmp_path / "good.ini"
    good.write_text("[server]\nlisten = 127.0.0.1:0\nthreads = 2\n[table pins]\npolicy.title = manual\n")
    schema = tmp_path / "schema.sql"
    schema.write_text("CREATE TABLE pins(id TEXT PRIMARY KEY, title TEXT);")
    code, out, _ = serve("--config", good, "--schema", schema, "--check-config", "--data", tmp_path / "data")
    assert code == 0 and "good" in out and not (tmp_path / "data").exists()
    code, _, err = serve("--config", good, "--check-config", "--data", tmp_path / "data")
    assert code == 1 and "pins" in err  # a section about a table that nothing makes
    bad = tmp_path / "bad.ini"
    bad.write_text("[server]\nlisten = 127.0.0.1:0\nlisen = 1\n")
    code, _, err = serve("--config", bad, "--check-config")
    assert code == 1 and "bad.ini:3" in err and "lisen" in err


def test_secret_that_others_can_read(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("x" * 64)
    secret.chmod(0o644)
    code, _, err = serve("--listen", "127.0.0.1:0", "--data", tmp_path / "data",
                         env=dict(os.environ, GODWIT_JWT_SECRET_FILE=str(secret)))
    assert code == 1 and "chmod 600" in err


def test_token_settings(world, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef" * 4)
    secret.chmod(0o600)
    config = (f"[server]\njwt_secret_file = {secret}\njwt_issuer = me\njwt_audience = sync\n"
              "scopes_claim = app.scopes\n")
    server = world.server(config=config)

    def token(*arguments):
        done = cli("token", "--data", server.data, "--sub", "u", "--scope", "s", *arguments)
        assert done.code == 0 and done.out.count("\n") == 1, done
        return done.out.strip()

    good = token("--config", server.config)
    assert server.get("/v1/sync/changes?scope=s", token=good).status == 200
    env = {"GODWIT_JWT_SECRET_FILE": str(secret)}
    done = cli("token", "--data", server.data, "--sub", "u", "--scope", "s", env=env)
    answer = server.get("/v1/sync/changes?scope=s", token=done.out.strip())
    assert answer.status == 401 and "issuer" in answer.json["detail"]


def test_token_verb(server):
    done = cli("token", "--data", server.data, "--sub", "u", "--scope", "a", "--scope=b",
               "--read-scope", "field", "--ttl", "60")
    assert done.code == 0 and done.err == "" and done.out.count("\n") == 1
    token = done.out.strip()
    assert server.get("/v1/sync/changes?scope=b", token=token).status == 200
    assert server.get("/v1/sync/changes?scope=field", token=token).status == 200
    assert server.get("/v1/sync/changes?scope=c", token=token).status == 403
    assert server.push([create(1)], scope="field", token=token).status == 403
    assert cli("token", "--data", server.data).code == 2
    assert cli("token", "--data", server.data, "--sub", "u", "--ttl", "0").code == 2
    assert cli("token", "--data", server.data, "--sub", "u", "--scope").code == 2
    assert cli("token", "--data", server.data + "x", "--sub", "u").code == 1
