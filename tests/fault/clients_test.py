#!/usr/bin/env python3
"""Clients that are many, slow, dead or mean, against a real API server: others are served, memory stays bounded.

Usage: clients_test.py PATH-OF-kube-apiserver [TEST...]. Prints one line a failed check and "N passed, N failed".
With SKIFF_FAULTS=heavy in the environment: a million streams, and slow watchers until they are given up. SKIFF_CONNECTIONS: how many idle ones.
"""
import json, os, re, resource, socket, ssl, struct, sys, threading, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))
from apiserver_test import CM, EXE, Client, check, cm, equal, suite, until

HEAVY = os.environ.get("SKIFF_FAULTS") == "heavy"
SANITIZED = any(w in open(EXE, "rb").read() for w in (b"__asan_init", b"__tsan_init"))  # memory is not what it is without
CONNECTIONS = int(os.environ.get("SKIFF_CONNECTIONS", 500 if SANITIZED else 10000 if HEAVY else 2000))
STREAMS = 1000000 if HEAVY else 5000 if SANITIZED else 20000
MIB = 1 << 20


def memory(s):
    """Proportional set size of the server, bytes."""
    with open("/proc/%d/smaps_rollup" % s.proc.pid) as f:
        return int(re.search(r"^Pss: +(\d+) kB", f.read(), re.M).group(1)) * 1024


def bounded(what, grown, limit):
    print("# %s: %.1f MiB more, at most %.1f" % (what, grown / MIB, limit / MIB), flush=True)
    if not SANITIZED:
        check("memory: " + what, grown <= limit, "%.1f MiB" % (grown / MIB))


def metric(a, name):
    """The sum of a metric over its labels."""
    return sum(float(l.split()[-1]) for l in a.raw("GET", "/metrics")[2].decode().splitlines() if re.match(re.escape(name) + r"[{ ]", l))


def watchers(a):
    """Those of ConfigMaps."""
    return sum(int(l.split()[2]) for l in a.raw("GET", "/debug/memory")[2].decode().splitlines() if l.startswith("/configmaps "))


def descriptors(s):
    return len(os.listdir("/proc/%d/fd" % s.proc.pid))


class Pulse(threading.Thread):
    """A well-behaved client beside the others: how long its calls took at most."""

    def __init__(self, s):
        super().__init__(daemon=True)
        self.c, self.stop, self.worst, self.bad, self.calls = Client(s, cert="admin"), threading.Event(), 0, [], 0

    def run(self):
        while True:  # once at least, however soon the others are done
            t = time.monotonic()
            st = self.c.get("/api/v1/namespaces/default")[0]
            self.worst, self.calls = max(self.worst, time.monotonic() - t), self.calls + 1
            if st != 200:
                self.bad.append(st)
            if self.stop.wait(0.02):
                return

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *a):
        self.stop.set()
        self.join()
        print("# others meanwhile: %d calls, at most %.0f ms" % (self.calls, self.worst * 1000), flush=True)
        equal("others are served", (self.bad, self.calls > 0), ([], True))


# ---- many ----

def context(s):
    ctx = ssl.create_default_context(cafile=os.path.join(s.dir, "ca.crt"))
    ctx.load_cert_chain(os.path.join(s.dir, "admin.crt"), os.path.join(s.dir, "admin.key"))
    return ctx


def ask_to_watch(ctx, s, field, session=None, buffer=None):
    raw = socket.socket()
    if buffer:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    raw.settimeout(60)
    raw.connect(("127.0.0.1", s.port))
    c = ctx.wrap_socket(raw, server_hostname="127.0.0.1", session=session)
    c.sendall(("GET %s?watch=true&fieldSelector=metadata.name%%3D%s HTTP/1.1\r\nHost: x\r\n\r\n" % (CM, field)).encode())
    return c


def test_idle_connections(s, a):
    """As many as there are descriptors for, whatever the soft limit the server was started with: watches that hear nothing."""
    limits = open("/proc/%d/limits" % s.proc.pid).read()
    soft, hard = re.search(r"Max open files +(\d+) +(\d+)", limits).groups()
    equal("it took all descriptors it may have", soft, hard)
    many = min(CONNECTIONS, int(hard) - 200) // 4 * 4
    conns, lock, failed, ctx = [], threading.Lock(), [], context(s)
    before, fds, base = memory(s), descriptors(s), watchers(a)

    def opener(n):
        session = None
        for _ in range(n):
            try:
                c = ask_to_watch(ctx, s, "never", session)
                if not c.recv(4096).startswith(b"HTTP/1.1 200"):
                    failed.append("no answer")
                session = session or c.session
            except OSError as e:
                failed.append(e)
                return
            with lock:
                conns.append(c)

    began = time.monotonic()
    with Pulse(s):
        threads = [threading.Thread(target=opener, args=(many // 4,)) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    equal("all are served", (len(conns), failed[:3]), (many, []))
    equal("and stay", watchers(a) - base, many)  # a connection each: HTTP/1.1
    grown = memory(s) - before
    print("# %d idle TLS connections in %.1f s: %.1f KiB each" % (many, time.monotonic() - began, grown / 1024 / many), flush=True)
    bounded("idle connections", grown, many * 64 * 1024)
    # and they are alive: one event reaches each
    equal("an event", a.post(CM, cm("never"))[0], 201)
    equal("reaches all", sum(b'"ADDED"' in c.recv(65536) for c in conns), many)
    a.delete(CM + "/never")
    for c in conns:
        c.close()
    until("their descriptors come back", lambda: descriptors(s) <= fds + 10)


# ---- slow and dead ----

def test_slow_watchers(s, a):
    updates, size, many = 200, 100000, 100
    watching = lambda: watchers(a)
    base = watching()
    a.post(CM, cm("slow", v="0"))
    seen, fds = [], descriptors(s)

    def reader():
        conn = Client(s, cert="admin").open(60)
        conn.request("GET", CM + "?watch=true&fieldSelector=metadata.name%3Dslow")
        r = conn.getresponse()
        while len(seen) <= updates:
            seen.append(json.loads(r.readline())["object"]["data"]["n"] if seen else r.readline() and "0")
        conn.close()

    t = threading.Thread(target=reader, daemon=True)
    t.start()
    until("a good watcher", lambda: seen)
    ctx = context(s)
    slow = [ask_to_watch(ctx, s, "slow", buffer=4096) for _ in range(many)]  # and then they read nothing
    until("all watch", lambda: watching() - base == many + 1)
    before = memory(s)
    with Pulse(s):
        for i in range(updates):
            equal("update", a.patch(CM + "/slow", {"data": {"n": str(i), "v": chr(97 + i % 26) * size}})[0], 200)
        t.join(60)
    equal("the good one saw each", seen[1:], [str(i) for i in range(updates)])
    # what all may still read is held once, not for each of them; each has a piece in hand
    bounded("%d watchers that do not read, %d MB each behind" % (many, updates * size // 1000000), memory(s) - before,
            3 * updates * size + many * 400 * 1024)
    # half of them vanish
    for c in slow[:many // 2]:
        c.close()
    until("those that vanished are forgotten", lambda: watching() - base == many - many // 2, 30)
    if HEAVY:
        until("the others are given up", lambda: watching() - base == 0, 300)
    for c in slow[many // 2:]:
        c.close()
    until("all are gone", lambda: (watching() - base, descriptors(s) <= fds + 4) == (0, True), 30)
    a.delete(CM + "/slow")


# ---- mean ----

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1


class H2:
    """HTTP/2 by hand, as no client library would let us speak it."""

    def __init__(self, s, cert="admin"):
        ctx = ssl.create_default_context(cafile=os.path.join(s.dir, "ca.crt"))
        ctx.load_cert_chain(os.path.join(s.dir, cert + ".crt"), os.path.join(s.dir, cert + ".key"))
        ctx.set_alpn_protocols(["h2"])
        self.c = ctx.wrap_socket(socket.create_connection(("127.0.0.1", s.port), 30), server_hostname="127.0.0.1")
        self.c.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + self.frame(SETTINGS, 0, 0) +
                       self.frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", (1 << 31) - 70000)))
        self.buf, self.next = b"", 1

    @staticmethod
    def frame(kind, flags, stream, body=b""):
        return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body

    def get(self, path):
        """Bytes of a request of the next stream; its fields are static entries of HPACK and literals."""
        p = path.encode()
        head = b"\x82\x87\x41\x01a\x04" + bytes([len(p)]) + p
        self.next += 2
        return self.frame(HEADERS, END_STREAM | END_HEADERS, self.next - 2, head)

    def reset(self, stream):
        return self.frame(RST_STREAM, 0, stream, struct.pack(">I", 8))

    def frames(self):
        """Those of the next read; None at the end of the connection."""
        try:
            data = self.c.recv(65536)
        except OSError:
            data = b""
        if not data:
            return None
        self.buf += data
        out, at = [], 0
        while len(self.buf) - at >= 9:
            n = int.from_bytes(self.buf[at:at + 3], "big")
            if len(self.buf) - at < 9 + n:
                break
            kind, flags, stream = struct.unpack(">BBI", self.buf[at + 3:at + 9])
            out.append((kind, flags, stream, self.buf[at + 9:at + 9 + n]))
            at += 9 + n
        self.buf = self.buf[at:]
        return out


def attack(s, one, streams):
    """Connects again and again until so many streams were opened; one(h) gives the bytes of a stream. How many connections, how many were told."""
    opened = conns = calm = 0
    while opened < streams:
        h = H2(s)
        conns += 1
        h.c.settimeout(60)
        try:
            for _ in range(min(50, (streams - opened) // 100)):
                opened += 100
                h.c.sendall(b"".join(one(h) for _ in range(100)))
        except OSError:
            pass  # it does not take more
        told = False
        while (f := h.frames()) is not None and not told:
            told = any(k == GOAWAY and b[4:8] == struct.pack(">I", 11) for k, _, _, b in f)  # ENHANCE_YOUR_CALM
        calm += told
        h.c.close()
    return conns, calm


def rapid(h):
    return h.get(CM) + h.reset(h.next - 2)


def test_rapid_reset(s, a):
    """CVE-2023-44487: streams opened and reset at once. Each connection is ended, long before all of it was worked on."""
    handled, fds = metric(a, "apiserver_request_total"), descriptors(s)
    attack(s, rapid, 5000)  # what the first such connection costs is not what the next ones add
    before = memory(s)
    with Pulse(s):
        conns, calm = attack(s, rapid, STREAMS)
    done = metric(a, "apiserver_request_total") - handled
    print("# %d streams over %d connections, %d of them told to calm down, %d requests counted" % (STREAMS, conns, calm, done), flush=True)
    check("they are told", calm > conns // 2, (calm, conns))  # the word may be lost to the reset that unread bytes cause
    check("few of them were worked on", done < STREAMS * 0.6, done)
    bounded("rapid reset", memory(s) - before, 8 * MIB)
    until("nothing is left of them", lambda: descriptors(s) <= fds + 4)


def test_streams(s, a):
    """A client that opens one stream after the other, on one connection, as many at once as it may."""
    h = H2(s)
    done, flying, grown = 0, 0, None
    with Pulse(s):
        while done < STREAMS:
            if flying < 100:
                h.c.sendall(b"".join(h.get("/livez") for _ in range(200 - flying)))
                flying = 200
            f = h.frames()
            if f is None or any(k == GOAWAY for k, _, _, _ in f):
                check("it is served to the end", False, (done, f))
                break
            n = sum(k in (DATA, HEADERS) and flags & END_STREAM for k, flags, _, _ in f)
            bad = [x for x in f if x[0] == RST_STREAM]
            check("no stream is reset", True) if not bad else check("no stream is reset", False, bad[:2])
            done, flying = done + n, flying - n
            if grown is None and done > 1000:
                grown = memory(s)
    equal("each was answered", done >= STREAMS, True)
    bounded("%d streams on a connection" % done, memory(s) - (grown or 0), 4 * MIB)
    h.c.close()


def test_too_many_streams(s, a):
    """Streams that stay: watches beyond what a connection may have are refused, the others run; who goes on like that is cut off."""
    base, before = watchers(a), memory(s)
    watching = lambda: watchers(a) - base
    h, many, refused = H2(s), 900, 0
    h.c.settimeout(60)
    with Pulse(s):
        for _ in range(many // 50):
            h.c.sendall(b"".join(h.get(CM + "?watch=true") for _ in range(50)))
        while refused < many - 250:
            f = h.frames()
            if f is None:
                break
            refused += sum(k == RST_STREAM and b == struct.pack(">I", 7) for k, _, _, b in f)
        equal("the rest is refused", refused, many - 250)
        until("as many as allowed run", lambda: watching() == 250)
        bounded("streams that stay", memory(s) - before, 32 * MIB)
        try:
            for _ in range(60):
                h.c.sendall(b"".join(h.get(CM + "?watch=true") for _ in range(50)))
            while h.frames() is not None:
                pass
        except OSError:
            pass
        until("those that run go with their connection", lambda: watching() == 0)
    h.c.close()


def prepare(s):
    # as a login shell would have it, and no more than a test needs
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    s.start()
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return {"a": Client(s, cert="admin")}


if __name__ == "__main__":
    suite("clients", prepare, (test_slow_watchers, test_rapid_reset, test_streams, test_too_many_streams, test_idle_connections))
