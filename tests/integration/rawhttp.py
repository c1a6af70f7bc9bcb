"""HTTP by hand over raw sockets, for tests of what a well-behaved client never does."""
import json
import socket

from harness import SLOW

OK = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
OK_CLOSE = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def connect(server, timeout=10):
    s = socket.create_connection(("127.0.0.1", server.port), timeout=timeout * SLOW)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def read_all(s):
    data = b""
    while True:
        try:
            piece = s.recv(65536)
        except ConnectionResetError:
            return data
        if not piece:
            return data
        data += piece


def exchange(server, data):
    """Everything the server says until it closes."""
    with connect(server) as s:
        s.sendall(data)
        return read_all(s)


class Reader:
    """Answers of one connection, one by one."""

    def __init__(self, s):
        self.stream = s.makefile("rb")

    def answer(self, head_only=False):
        line = self.stream.readline()
        if not line:
            return None
        version, status = line.split(b" ")[:2]
        assert version == b"HTTP/1.1"
        headers = {}
        while True:
            header = self.stream.readline()
            if header == b"\r\n":
                break
            name, value = header.rstrip(b"\r\n").split(b": ", 1)
            headers[name.decode().lower()] = value.decode()
        length = 0 if head_only or status == b"304" else int(headers.get("content-length", "0"))
        return int(status), headers, self.stream.read(length)


def request(path, token=None, method="GET", body=None, headers=()):
    lines = [f"{method} {path} HTTP/1.1", "Host: a"]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    lines += headers
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + (body or b"")


def create(number, entity="pins", **payload):
    return {"id": f"op{number}", "operation": "create", "entityType": entity,
            "entityId": f"p{number}", "idempotencyKey": f"k{number}",
            "payload": payload or {"title": f"t{number}"}}


def events(server, scope="field", token=None):
    s = connect(server, timeout=20)
    s.sendall(request(f"/v1/sync/events?scope={scope}", token or server.token()))
    return s, s.makefile("rb")


def read_event(stream):
    lines = []
    while True:
        line = stream.readline()
        if not line:
            return None
        if line == b"\n":
            if lines[0].startswith(b":"):
                lines = []
                continue
            assert lines[0] == b"event: head\n" and lines[1].startswith(b"data: ")
            return json.loads(lines[1][6:])
        lines.append(line)


def read_head(stream):
    status = stream.readline()
    headers = b""
    while not headers.endswith(b"\r\n\r\n"):
        headers += stream.readline()
        if headers == b"\r\n":
            break
    return int(status.split(b" ")[1]), headers.decode().lower()
