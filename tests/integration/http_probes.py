"""Requests that two readers could understand differently, or that are none at all. Each is sent by
test_http_server.py with a second request hidden behind it, and must be refused."""

POST = b"POST /v1/sync HTTP/1.1\r\nHost: a\r\n"
GET = b"GET /healthz HTTP/1.1\r\n"
HOST = b"Host: a\r\n"
LAST = b"0\r\n\r\n"
END = b"\r\n"

LENGTHS = {
    "length and chunked": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST,
    "chunked and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + LAST,
    "length 0 and chunked": POST + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST,
    "chunked and a bad length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: x\r\n\r\n" + LAST,
    "two lengths": POST + b"Content-Length: 0\r\nContent-Length: 40\r\n\r\n",
    "two lengths, letters": POST + b"content-length: 0\r\nCONTENT-LENGTH: 40\r\n\r\n",
    "two lengths apart": POST + b"Content-Length: 0\r\nX: y\r\nContent-Length: 40\r\n\r\n",
    "equal lengths": POST + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "empty length and a length": POST + b"Content-Length:\r\nContent-Length: 40\r\n\r\n",
}
for value in ("0, 0", "0,40", "40,", ",40", "0;40", "0 40", "+0", "-0", "-1", "+40", "0x0", "0x28", "0b1",
              "4e1", "0.0", "40.", "00", "040", "", " ", "1_0", "\"0\"", "'0'", "0\t0", "\x0b0", "\xa00",
              "\xb2", "18446744073709551616", "99999999999999999999", "9223372036854775808", "x"):
    LENGTHS[f"length {value!r}"] = POST + b"Content-Length: " + value.encode("latin-1") + b"\r\n\r\n"

CODINGS = {
    "coding sent twice": POST + b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST,
    "chunked sent twice": POST + b"Transfer-Encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n" + LAST,
    "coding, then identity": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n"
    + LAST,
    "coding in 1.0": b"POST /v1/sync HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST,
    "coding and length in 1.0": b"POST /v1/sync HTTP/1.0\r\nTransfer-Encoding: chunked\r\n"
    b"Content-Length: 5\r\n\r\n" + LAST,
}
for value in ("chunked, chunked", "identity", "\x0bchunked", "chunked, identity", "identity, chunked",
              "gzip, chunked", "chunked,", ",chunked", "chunked;q=1", "\"chunked\"", "xchunked", "chunkedx",
              "chunk", "chunked\x0c", "chunked\xa0", "", "deflate", "cow"):
    CODINGS[f"coding {value!r}"] = (POST + b"Transfer-Encoding: " + value.encode("latin-1")
                                    + b"\r\n\r\n" + LAST)

LINES = {
    "bare LF everywhere": b"GET /healthz HTTP/1.1\nHost: a\n\n",
    "bare LF after the request line": b"GET /healthz HTTP/1.1\n" + HOST + END,
    "bare LF after a header": GET + b"Host: a\n\r\n",
    "bare LF for the empty line": GET + HOST + b"\n",
    "bare LF inside a header": GET + HOST + b"X: a\nContent-Length: 40\r\n\r\n",
    "LF first": b"\nGET /healthz HTTP/1.1\r\n" + HOST + END,
    "bare CR": GET + b"Host: a\rX: b\r\n\r\n",
    "bare CR in the request line": b"GET /healthz\r HTTP/1.1\r\n" + HOST + END,
    "bare CR before CRLF": GET + b"Host: a\r\r\n\r\n",
    "bare CR for the empty line": GET + HOST + b"\rX: y\r\n\r\n",
    "CR hides a length": POST + b"X: y\rContent-Length: 40\r\n\r\n",
    "empty lines first": b"\r\n\r\n" + GET + HOST + END,
    "folded length": POST + b"Content-Length:\r\n 0\r\n\r\n",
    "folded coding": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + LAST,
    "coding in a fold": POST + b"X: y\r\n Transfer-Encoding: chunked\r\n\r\n" + LAST,
    "folded header": GET + HOST + b"X: a\r\n b\r\n\r\n",
    "folded header, tab": GET + HOST + b"X: a\r\n\tb\r\n\r\n",
    "fold before the first header": GET + b" X: y\r\n" + HOST + END,
    "line of blanks": GET + HOST + b" \r\n\r\n",
    "blank before a colon": GET + HOST + b"X : b\r\n\r\n",
    "tab before a colon": GET + HOST + b"X\t: b\r\n\r\n",
    "length name with a blank": POST + b"Content-Length : 0\r\n\r\n",
    "length name with a tab": POST + b"Content-Length\t: 0\r\n\r\n",
    "coding name with a blank": POST + b"Transfer-Encoding : chunked\r\n\r\n" + LAST,
    "host name with a blank": GET + b"Host : a\r\n\r\n",
    "no colon": GET + HOST + b"X\r\n\r\n",
    "no name": GET + HOST + b": y\r\n\r\n",
    "name of two words": GET + HOST + b"X Y: z\r\n\r\n",
    "name with a bracket": GET + HOST + b"X(Y: z\r\n\r\n",
    "name that is not ASCII": GET + HOST + b"X\xc3\xa9: z\r\n\r\n",
    "DEL in a value": GET + HOST + b"X: \x7f\r\n\r\n",
    "escape in a value": GET + HOST + b"X: \x1b[2J\r\n\r\n",
    "NUL": GET + HOST + b"X: \0\r\n\r\n",
    "NUL in a name": GET + HOST + b"X\0: y\r\n\r\n",
    "NUL in the method": b"GET\0 /healthz HTTP/1.1\r\n" + HOST + END,
    "NUL in the target": b"GET /healthz\0 HTTP/1.1\r\n" + HOST + END,
    "NUL in the length": POST + b"Content-Length: 0\0\r\n\r\n",
    "NUL first": b"\0" + GET + HOST + END,
    "two tokens": GET + HOST + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n",
    "two content types": POST + b"Content-Type: a/b\r\nContent-Type: c/d\r\nContent-Length: 0\r\n\r\n",
    "two content encodings": POST + b"Content-Encoding: gzip\r\nContent-Encoding: gzip\r\n"
    b"Content-Length: 0\r\n\r\n",
    "two keys": POST + b"Idempotency-Key: a\r\nIdempotency-Key: b\r\nContent-Length: 0\r\n\r\n",
}

FIRST = {
    "no host": GET + END,
    "two hosts": GET + b"Host: a\r\nHost: b\r\n\r\n",
    "equal hosts": GET + b"Host: a\r\nhost: a\r\n\r\n",
    "target names another host": b"GET http://b/healthz HTTP/1.1\r\n" + HOST + END,
    "target names a host, no header": b"GET http://a/healthz HTTP/1.1\r\n\r\n",
    "target of https": b"GET https://a/healthz HTTP/1.1\r\n" + HOST + END,
    "target without a path": b"GET http://a HTTP/1.1\r\n" + HOST + END,
    "target of a proxy": b"CONNECT a:443 HTTP/1.1\r\n" + HOST + END,
    "target asterisk": b"OPTIONS * HTTP/1.1\r\n" + HOST + END,
    "target without a slash": b"GET healthz HTTP/1.1\r\n" + HOST + END,
    "target with a fragment": b"GET /healthz#x HTTP/1.1\r\n" + HOST + END,
    "target that is not ASCII": b"GET /\xc3\xa9 HTTP/1.1\r\n" + HOST + END,
    "target with a tab": b"GET /healthz\tx HTTP/1.1\r\n" + HOST + END,
    "target with a backslash": b"GET /\\healthz HTTP/1.1\r\n" + HOST + END,
    "method with a colon": b"GET: /healthz HTTP/1.1\r\n" + HOST + END,
    "long method": b"G" * 40 + b" /healthz HTTP/1.1\r\n" + HOST + END,
    "double blank": b"GET  /healthz HTTP/1.1\r\n" + HOST + END,
    "blank first": b" GET /healthz HTTP/1.1\r\n" + HOST + END,
    "tab for a blank": b"GET\t/healthz\tHTTP/1.1\r\n" + HOST + END,
    "blank after the version": b"GET /healthz HTTP/1.1 \r\n" + HOST + END,
    "no version": b"GET /healthz\r\n\r\n",
    "no version, a blank": b"GET /healthz \r\n\r\n",
    "preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "hello of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a PROXY line": b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + GET + HOST + END,
    "expectation": POST + b"Content-Length: 0\r\nExpect: the-unexpected\r\n\r\n",
    "two expectations": POST + b"Content-Length: 0\r\nExpect: 100-continue\r\nExpect: 100-continue\r\n\r\n",
    "long target": b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n" + HOST + END,
    "endless target": b"GET /" + b"x" * 100000,
    "long head": GET + HOST + b"X: " + b"x" * 17000 + b"\r\n\r\n",
    "long name": GET + HOST + b"X" * 17000 + b": y\r\n\r\n",
    "endless head": GET + HOST + b"X: y\r\n" * 20000,
    "many headers": GET + HOST + b"X: y\r\n" * 100 + END,
    "body of a route without one": GET + HOST + b"Content-Length: 3\r\n\r\nabc",
    "chunks for a route without a body": GET + HOST + b"Transfer-Encoding: chunked\r\n\r\n" + LAST,
    "body without a token": POST + b"Content-Length: 1000000\r\n\r\n",
}
for value in ("HTTP/2.0", "HTTP/0.9", "HTTP/1.2", "HTTP/3", "HTTP/x.y", "http/1.1", "HTTP/1.10", "HTTP/01.1",
              "HTTP/1", "HTTP/1.", "HTTP/1,1", "HTTP /1.1", "HTTP/ 1.1", "HTTP/-1.1", "HTTP/1.1x", "HTTPS/1.1",
              "ICY"):
    FIRST[f"version {value!r}"] = f"GET /healthz {value}\r\n".encode() + HOST + END
for value in ("", "a/healthz", "a, b", "a b", "b@a", "a?b", "a#b", "a\\b", "a\t", "\xe9", "a" * 300, "a%00"):
    if value != "a\t":  # blanks around a value are none of it
        FIRST[f"host {value[:10]!r}"] = GET + b"Host: " + value.encode("latin-1") + b"\r\n\r\n"

PROBES = LENGTHS | CODINGS | LINES | FIRST

CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
CHUNKS = {
    "huge": b"FFFFFFFF\r\n{ }",
    "LF": b"3\n{ }\n0\n\n",
    "LF after the size": b"3\n{ }\r\n0\r\n\r\n",
    "LF after the data": b"3\r\n{ }\n0\r\n\r\n",
    "LF after the last": b"3\r\n{ }\r\n0\n\r\n",
    "LF at the end": b"3\r\n{ }\r\n0\r\n\n",
    "CR after the size": b"3\r{ }\r\n0\r\n\r\n",
    "CR after the data": b"3\r\n{ }\r0\r\n\r\n",
    "longer than its size": b"3\r\n{  }\r\n0\r\n\r\n",
    "no end of the data": b"3\r\n{ }0\r\n\r\n",
    "trailer": b"3\r\n{ }\r\n0\r\nContent-Length: 5\r\n\r\n",
    "coding as a trailer": b"3\r\n{ }\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "no size": b"\r\n{ }\r\n0\r\n\r\n",
    "extension of the last": b"3\r\n{ }\r\n0;a=b\r\n\r\n",
    "fold": b"3\r\n { }\r\n0\r\n\r\n",
}
for value in (b"3;a=b", b"3;", b"3;a=\"\r\n\"", b"3 ;a", b";3", b"+3", b"-3", b"0x3", b"3 ", b" 3", b"\t3",
              b"3\t", b"3h", b"g", b"3_0", b"3,3", b"3.0", b"\"3\"", b"\0", b"3\0", b"10000000000000003",
              b"000000003", b"-0"):
    CHUNKS[f"size {value.decode()!r}"] = value + b"\r\n{ }\r\n0\r\n\r\n"
