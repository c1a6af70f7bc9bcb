"""A daemon that takes its keys from an identity provider: a JSON Web Key Set over HTTP or from a file, with keys
made and tokens signed by the openssl program."""
import base64
import http.server
import json
import os
import subprocess
import threading
import time

import pytest

from harness import cli, wait_until


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Key:
    """An RSA key in a file."""

    def __init__(self, folder, kid):
        self.kid = kid
        self.path = folder / f"{kid}.pem"
        subprocess.run(["openssl", "genrsa", "-out", self.path, "2048"], check=True, capture_output=True)
        done = subprocess.run(["openssl", "rsa", "-in", self.path, "-noout", "-modulus"], check=True,
                              capture_output=True)
        self.modulus = bytes.fromhex(done.stdout.decode().strip().split("=")[1])

    def jwk(self):
        return {"kty": "RSA", "kid": self.kid, "use": "sig", "n": base64url(self.modulus), "e": "AQAB"}

    def token(self, kid=None, **claims):
        claims = {"sub": "ana", "scopes": ["field"], "exp": int(time.time()) + 600, **claims}
        head = {"alg": "RS256", "kid": kid or self.kid}
        text = ".".join(base64url(json.dumps(part).encode()) for part in (head, claims)).encode()
        done = subprocess.run(["openssl", "dgst", "-sha256", "-sign", self.path], input=text, check=True,
                              capture_output=True)
        return text.decode() + "." + base64url(done.stdout)


class Issuer:
    def __init__(self):
        self.keys, self.fetches = [], 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.fetches += 1
                body = json.dumps({"keys": [k.jwk() for k in outer.keys]}).encode()
                self.send_response(200 if outer.keys else 500)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/keys"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def issuer():
    i = Issuer()
    yield i
    i.close()


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    return [Key(folder, "one"), Key(folder, "two")]


def status(server, token):
    return server.get("/v1/sync/changes?scope=field", token=token).status


def test_tokens_of_an_issuer(world, issuer, keys):
    one, two = keys
    issuer.keys = [one]
    server = world.server(config=f"[server]\njwks = {issuer.url}\njwks_refresh = 10s\n"
                                 "jwt_issuer = https://id.example\n")
    good = one.token(iss="https://id.example")
    assert status(server, good) == 200
    assert status(server, one.token(iss="https://other.example")) == 401
    assert status(server, one.token()) == 401
    assert status(server, two.token(kid="one", iss="https://id.example")) == 401
    assert status(server, good[:-3] + "AAA") == 401

    # the issuer takes a new key into use: its first token makes the server look, and is answered 'try again'
    issuer.keys = [two]
    fresh = two.token(iss="https://id.example")
    wait_until(lambda: status(server, fresh) == 200, timeout=10, every=0.2, what="the new key is known")
    assert status(server, good) == 401
    # names that nobody has make no storm of fetches
    before = issuer.fetches
    for n in range(50):
        assert status(server, two.token(kid=f"made-up-{n}", iss="https://id.example")) in (401, 503)
    assert issuer.fetches - before <= 5

    # the issuer is down: what was known stays known
    issuer.keys = []
    time.sleep(1.1)
    assert status(server, fresh) == 200
    assert "PRIVATE" not in server.log() and fresh not in server.log()


def test_an_issuer_that_comes_later(world, issuer, keys):
    server = world.server(config=f"[server]\njwks = {issuer.url}\njwks_refresh = 1s\n")
    token = keys[0].token()
    assert status(server, token) in (401, 503)
    assert "keys_not_read" in server.log()
    issuer.keys = [keys[0]]
    wait_until(lambda: status(server, token) == 200, timeout=10, every=0.1, what="keys are known")


def test_a_file_of_keys(world, keys, tmp_path):
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [keys[0].jwk()]}))
    server = world.server(config=f"[server]\njwks = {path}\n")
    assert status(server, keys[0].token()) == 200
    assert not os.path.exists(os.path.join(server.data, "secret"))  # nobody could sign with one


@pytest.mark.parametrize("text, says", [
    ("{", "list \"keys\""),
    ('{"keys":[{"kty":"oct","k":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"}]}', "is a secret"),
    ('{"keys":[]}', "no key for"),
])
def test_a_bad_file_stops_the_start(tmp_path, text, says):
    path = tmp_path / "keys.json"
    path.write_text(text)
    config = tmp_path / "godwit.ini"
    config.write_text(f"[server]\nlisten = 127.0.0.1:0\ndata = {tmp_path}/data\njwks = {path}\n")
    done = cli("serve", "--config", config)
    assert done.code != 0 and says in done.err


def test_keys_do_not_come_in_the_clear(tmp_path):
    config = tmp_path / "godwit.ini"
    config.write_text("[server]\njwks = http://id.example/keys\n")
    done = cli("serve", "--config", config, "--check-config")
    assert done.code != 0 and "https" in done.err
