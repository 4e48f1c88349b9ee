#!/usr/bin/env python3
"""Requests over HTTP/2 that are not as they should be: what becomes of them is what Go's server makes of them.

Usage: h2_test.py PATH-OF-kube-apiserver [TEST...]. Prints one line a failed check and "N passed, N failed".
"""
import os, sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from apiserver_test import equal, suite
from h2 import *

ALL = END_STREAM | END_HEADERS
REVIEW = {"method": "POST", "path": "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"}
BODY = b'{"spec":{"nonResourceAttributes":{"path":"/","verb":"get"}}}'
JSON = ("content-type", "application/json")
MALFORMED, OK = ["reset 1"], [200]


def block(*more, method="GET", path="/version", scheme="https", authority="a", order="msap", before=()):
    """A request's fields: the pseudo ones in that order."""
    p = {"m": (":method", method), "s": (":scheme", scheme), "a": (":authority", authority), "p": (":path", path)}
    return fields(*before, *[p[k] for k in order], *more)


def asked(s, *frames, hello=True):
    c = Peer(s, hello=hello)
    c.send(*frames)
    try:
        return c.outcome()
    finally:
        c.close()


def told(s, *more, **k):
    """What becomes of a request without a body."""
    return asked(s, frame(HEADERS, ALL, 1, block(*more, **k)))


def sent(s, *more, data=(BODY,), behind=b"", **k):
    """With a body."""
    pieces = [frame(DATA, END_STREAM if i == len(data) - 1 and not behind else 0, 1, d) for i, d in enumerate(data)]
    return asked(s, frame(HEADERS, END_HEADERS, 1, block(JSON, *more, **dict(REVIEW, **k))), *pieces, behind)


def test_pseudo(s):
    equal("a good one", told(s), OK)
    equal("in another order", told(s, order="pasm"), OK)
    for k in "msp":
        equal("without " + k, told(s, order="msap".replace(k, "")), MALFORMED)
    for k in "msap":
        equal("twice " + k, told(s, order="msap" + k), MALFORMED)
    for what, want, k in (
            ("no authority", OK, {"order": "msp"}), ("an empty one", OK, {"authority": ""}), ("no method", MALFORMED, {"method": ""}),
            ("no path", MALFORMED, {"path": ""}), ("no scheme", MALFORMED, {"scheme": ""}), ("http", OK, {"scheme": "http"}),
            ("ftp", MALFORMED, {"scheme": "ftp"}), ("HTTPS", MALFORMED, {"scheme": "HTTPS"}), ("unknown", MALFORMED, {"before": ((":x", "y"),)}),
            ("a status", MALFORMED, {"before": ((":status", "200"),)}), ("a protocol", MALFORMED, {"before": ((":protocol", "x"),)}),
            ("an empty one", OK, {"before": ((":protocol", ""),)}), ("behind others", MALFORMED, {"before": (("x", "y"),)})):
        equal(what, told(s, **k), want)
    for authority in ("a b", "a/b", "\u00e9", 'a"b', "[::1]:443", " a", "a#b"):
        equal("authority " + authority, told(s, authority=authority), OK)
        equal("host " + authority, told(s, ("host", authority), order="msp"), OK)
    equal("a user", told(s, authority="u@a"), MALFORMED)
    equal("a user in host", told(s, ("host", "u@a"), order="msp"), MALFORMED)
    equal("which does not count", told(s, ("host", "u@a"), ("host", "c")), OK)
    for path, want in (("*", [404]), ("version", MALFORMED), ("//version", [404]), ("/%zz", MALFORMED), ("/%4", MALFORMED), ("/a b", [404]), ("/a\tb", MALFORMED),
                       ("/version?%zz", OK), ("/version?a b", OK), ("http://a/version", MALFORMED), ("/%76ersion", OK)):
        equal("path " + path, told(s, path=path), want)
    for method, want in (("get", [405]), ("G T", [405]), (" GET", [405]), ("G\x00", MALFORMED), ("\u00e9", [405])):
        equal("method " + method, told(s, method=method), want)
    equal("OPTIONS *", told(s, method="OPTIONS", path="*"), OK)
    for what, pairs in (("a path", ((":authority", "a"), (":path", "/"))), ("no authority", ())):
        equal("CONNECT with " + what, asked(s, frame(HEADERS, ALL, 1, fields((":method", "CONNECT"), *pairs))), MALFORMED)


def test_fields(s):
    for name in ("X", "x y", "", "x:", "x\x00", "\u00e9", "x("):
        equal("name %r" % name, told(s, (name, "1")), MALFORMED)
    for value, want in (("\x00", MALFORMED), ("a\nb", MALFORMED), ("\r", MALFORMED), ("\x7f", MALFORMED), ("a\tb", OK), (b"\xff", OK), (" a ", OK), ("", OK)):
        equal("value %r" % value, told(s, ("x", value)), want)
    for name in ("connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"):
        for value in ("", "x"):
            equal("%s: %s" % (name, value), told(s, (name, value)), [400])
    for values, want in ((("trailers",), OK), (("",), OK), (("Trailers",), [400]), (("gzip",), [400]), (("trailers, gzip",), [400]), (("trailers", "trailers"), [400])):
        equal("te: %s" % (values,), told(s, *[("te", v) for v in values]), want)
    equal("refused with a body", sent(s, ("upgrade", "x")), [400])
    c = Peer(s)
    c.send(frame(HEADERS, ALL, 1, block(("X", "y"))), frame(HEADERS, ALL, 3, block()))
    equal("others of the connection live", (c.outcome(1), c.outcome(3)), (MALFORMED, OK))
    c.close()


def test_bodies(s):
    n = len(BODY)
    for values, want in (((), [201]), ((n,), [201]), ((n, 3), [201]), ((n + 1,), [500]), ((n - 1,), MALFORMED), ((3, n), MALFORMED), ((0,), MALFORMED),
                         (("",), MALFORMED), (("+%d" % n,), MALFORMED), ((" %d" % n,), MALFORMED), (("x",), MALFORMED), (("0%d" % n,), [201])):
        equal("content-length %s" % (values,), sent(s, *[("content-length", str(v)) for v in values]), want)
        equal("content-length %s of nothing" % (values,), told(s, *[("content-length", str(v)) for v in values]), OK)
    equal("in pieces", sent(s, data=(BODY[:5], b"", BODY[5:], b"")), [201])
    equal("one piece too much", sent(s, ("content-length", str(n)), data=(BODY, b" ")), MALFORMED)
    equal("100 when it is read", sent(s, ("expect", "100-Continue")), [100, 201])
    equal("not when there is none", told(s, ("expect", "100-continue")), OK)
    equal("another expectation", told(s, ("expect", "x")), OK)
    for what, behind, flags, more, want in (
            ("trailers", fields(("x", "y")), ALL, (), [201]), ("none", b"", ALL, (), [201]), ("a path", fields((":path", "/")), ALL, (), MALFORMED),
            ("upper case", fields(("X", "y")), ALL, (), MALFORMED), ("a bad value", fields(("x", "\n")), ALL, (), MALFORMED),
            ("not the end", fields(("x", "y")), END_HEADERS, (), MALFORMED), ("a field of connections", fields(("connection", "y")), ALL, (), [201]),
            ("what is no trailer", fields(("content-type", "y")), ALL, (), [201]),
            ("where trailers are announced", fields(("content-type", "y")), ALL, (("trailer", "x"),), MALFORMED),
            ("a condition", fields(("if-match", "y")), ALL, (("trailer", "content-length, x"),), MALFORMED),
            ("announced are none", fields(("content-type", "y")), ALL, (("trailer", "content-length"),), [201]),
            ("too short", fields(("x", "y")), ALL, (("content-length", str(n + 1)),), [500])):
        equal("trailers: " + what, sent(s, *more, behind=frame(HEADERS, flags, 1, behind)), want)
    c = Peer(s)
    got = read_frame(c.f)
    equal("frames may be", [int.from_bytes(got[3][i + 2:i + 6], "big") for i in range(0, len(got[3]), 6) if got[3][i:i + 2] == b"\0\5"], [256 << 10])
    c.send(frame(SETTINGS, ACK), frame(HEADERS, END_HEADERS, 1, block(JSON, **REVIEW)), frame(DATA, END_STREAM, 1, BODY + b" " * (200 << 10)))
    equal("a frame of 200 KiB", c.outcome(), [201])
    c.close()


def split(block, n=16384):
    """A request whose fields take several frames."""
    parts = [block[i:i + n] for i in range(0, len(block), n)]
    return b"".join(frame(CONTINUATION if i else HEADERS, (0 if i else END_STREAM) | (END_HEADERS if i == len(parts) - 1 else 0), 1, p) for i, p in enumerate(parts))


def test_large(s):
    field = ("x", "a" * 16000)
    for what, frames, want in (
            ("200 KiB", split(block(*[field] * 12)), OK), ("a MiB", split(block(*[field] * 65)), OK), ("some more", split(block(*[field] * 66)), [431]),
            ("too much for an answer", split(block(*[field] * 130)), ["goaway 1"]), ("many small ones", split(block(*[("a", "b")] * 20000)), OK),
            ("in pieces of a byte", split(block(), 1), OK),
            ("small as sent", frame(HEADERS, ALL, 1, block() + b"\x40\x01x" + integer(4000, 7) + b"a" * 4000 + b"\xbe" * 3000), [431]),
            ("more behind one that is none", frame(HEADERS, END_STREAM, 1, block(("X", "y"))) + frame(CONTINUATION, END_HEADERS, 1, fields(("a", "b"))), ["goaway 1"]),
            ("one that is none, last", frame(HEADERS, END_STREAM, 1, block()) + frame(CONTINUATION, END_HEADERS, 1, fields(("X", "b"))), MALFORMED)):
        equal(what, asked(s, frames), want)


def test_goaway(s):
    c = Peer(s)
    c.send(frame(HEADERS, END_HEADERS, 1, block(JSON, **REVIEW)), goaway(0), frame(HEADERS, ALL, 3, block()), frame(DATA, END_STREAM, 1, BODY))
    equal("said in return", c.outcome(), ["goaway 0"])
    equal("what has begun ends", c.outcome(), [201])
    equal("and nothing else is begun", c.outcome(3), ["end"])
    c.close()


def prepare(s):
    s.start()
    return {}


if __name__ == "__main__":
    suite("h2", prepare, (test_pseudo, test_fields, test_bodies, test_large, test_goaway))
