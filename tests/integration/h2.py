"""
HTTP/2 by hand, for tests: frames as they are (hyperframe and h2 would not send what is wrong), and a server beside a cluster.
"""
import base64, os, socket, ssl, struct, threading

from web import Web

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 1
END_HEADERS = 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_CONCURRENT_STREAMS = 3
REFUSED_STREAM = 7


def frame(type, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes((type, flags)) + struct.pack(">I", stream) + payload


def settings(**values):
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", int(k[1:]), v) for k, v in values.items()))


def goaway(last, code=0):
    return frame(GOAWAY, 0, 0, struct.pack(">II", last, code))


def reset(stream, code):
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def integer(n, bits, first=0):
    """HPACK's."""
    if n < (1 << bits) - 1:
        return bytes((first | n,))
    out, n = bytearray((first | (1 << bits) - 1,)), n - (1 << bits) + 1
    while n >= 128:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes(out) + bytes((n,))


def fields(*pairs):
    """A block of literals that are not indexed."""
    out = b""
    for pair in pairs:
        out += b"\0" + b"".join(integer(len(t), 7) + t for t in (x if isinstance(x, bytes) else x.encode() for x in pair))
    return out


def read_frame(f):
    """(type, flags, stream, payload); None at the end."""
    head = f.read(9)
    if len(head) < 9:
        return None
    n = int.from_bytes(head[:3], "big")
    payload = f.read(n)
    return (head[3], head[4], int.from_bytes(head[5:], "big") & 0x7fffffff, payload) if len(payload) == n else None


class H2Web:
    """
    A webhook's server that speaks HTTP/2 where it is wanted, else HTTP/1.1, and does to its connections what a test asks for.

    answer(body) gives what to answer, a JSON text. .protocols has the protocol of each connection. Requests are answered when
    `hold` of them wait. The next `refuse` streams are refused. For the next `goaway` the connection says GOAWAY: behind the answer, or
    `early`, before it looks at them. max_streams: what it allows at a time.
    """

    def __init__(self, answer, s, name, names="IP:127.0.0.1", max_streams=100):
        self.answer, self.max_streams = answer, max_streams
        self.protocols, self.conns = [], []
        self.hold, self.refuse, self.goaway, self.early = 1, 0, 0, False
        self.lock, self.waiting = threading.Lock(), []
        s.cert(name, "/CN=" + name, "subjectAltName=" + names)
        self.ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ctx.load_cert_chain(os.path.join(s.dir, name + ".crt"), os.path.join(s.dir, name + ".key"))
        self.ctx.set_alpn_protocols(["h2", "http/1.1"])
        self.ca = base64.b64encode(open(os.path.join(s.dir, "ca.crt"), "rb").read()).decode()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.url, self.tls = "https://127.0.0.1:%d" % self.port, True
        threading.Thread(target=self.accept, daemon=True).start()

    kubeconfig = Web.kubeconfig

    def accept(self):
        while True:
            try:
                c, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(c,), daemon=True).start()

    def serve(self, c):
        try:
            with self.ctx.wrap_socket(c, server_side=True) as t:
                self.protocols.append(t.selected_alpn_protocol())
                self.conns.append(t)
                f = t.makefile("rb")
                (self.h2 if self.protocols[-1] == "h2" else self.h1)(t, f)
        except OSError:
            pass  # closed by the other side, or by cut()

    def ready(self, done):
        """done() is called when as many as are to be held wait."""
        with self.lock:
            self.waiting.append(done)
            if len(self.waiting) < self.hold:
                return
            now, self.waiting = self.waiting, []
        for d in now:
            d()

    def h1(self, t, f):
        while f.readline():
            n = 0
            for line in iter(f.readline, b"\r\n"):
                if line.lower().startswith(b"content-length:"):
                    n = int(line.split(b":")[1])
            body, told = f.read(n), threading.Event()
            self.ready(told.set)
            told.wait(20)
            text = self.answer(body).encode()
            t.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(text) + text)

    def h2(self, t, f):
        bodies, lock = {}, threading.Lock()

        def send(*frames):
            with lock:
                t.sendall(b"".join(frames))

        def respond(stream):
            text = self.answer(bodies.pop(stream)).encode()
            more = []
            if self.goaway:
                self.goaway -= 1
                more = [goaway(stream)]
            send(frame(HEADERS, END_HEADERS, stream, b"\x88" + fields(("content-type", "application/json"))), frame(DATA, END_STREAM, stream, text), *more)

        f.read(len(PREFACE))
        send(settings(_3=self.max_streams))
        while True:
            got = read_frame(f)
            if not got:
                return
            type, flags, stream, payload = got
            if type == SETTINGS and not flags & ACK:
                send(frame(SETTINGS, ACK))
            elif type == PING and not flags & ACK:
                send(frame(PING, ACK, 0, payload))
            elif type == HEADERS:
                if self.refuse or len(bodies) >= self.max_streams:
                    self.refuse -= self.refuse > 0
                    send(reset(stream, REFUSED_STREAM))
                elif self.goaway and self.early:
                    self.goaway -= 1
                    send(goaway(stream - 2 if stream > 1 else 0))
                    return
                else:
                    bodies[stream] = b""
                    if flags & END_STREAM:
                        self.ready(lambda stream=stream: respond(stream))
            elif type == DATA and stream in bodies:
                bodies[stream] += payload
                for i in (0, stream):
                    if payload:
                        send(frame(WINDOW_UPDATE, 0, i, struct.pack(">I", len(payload))))
                if flags & END_STREAM:
                    self.ready(lambda stream=stream: respond(stream))

    def cut(self):
        """Ends all connections without a word."""
        conns, self.conns = self.conns, []
        for t in conns:
            try:
                t.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.socket.close()
        self.cut()


# ---- a client ----

DIGITS = {format(i, "05b"): str(i) for i in range(3)}
DIGITS.update({format(0x19 + i - 3, "06b"): str(i) for i in range(3, 10)})


def status(block):
    """Of a head whose first field it is, from a server that was told to keep no table."""
    while block[0] & 0xe0 == 0x20:
        block = block[1:]
    if block[0] & 0x80:
        return (200, 204, 206, 304, 400, 404, 500)[block[0] - 0x88]
    text = block[2:2 + (block[1] & 127)]
    if not block[1] & 128:
        return int(text)
    bits, out = "".join(format(b, "08b") for b in text), ""
    while len(out) < 3:
        n = 5 if bits[:5] in DIGITS else 6
        out, bits = out + DIGITS[bits[:n]], bits[n:]
    return int(out)


class Peer:
    """A connection to a server, as the administrator."""

    def __init__(self, s, cert="admin", hello=True):
        ctx = ssl.create_default_context(cafile=os.path.join(s.dir, "ca.crt"))
        ctx.load_cert_chain(os.path.join(s.dir, cert + ".crt"), os.path.join(s.dir, cert + ".key"))
        ctx.set_alpn_protocols(["h2"])
        self.t = ctx.wrap_socket(socket.create_connection(("127.0.0.1", s.port), timeout=20), server_hostname="127.0.0.1")
        self.f = self.t.makefile("rb")
        if hello:
            self.send(PREFACE + settings(_1=0))

    def send(self, *frames):
        try:
            self.t.sendall(b"".join(frames))
        except OSError:
            pass  # the server said no before the end

    def frame(self):
        """The next that is not about the connection's own business; None at its end. Settings are acknowledged."""
        while True:
            try:
                got = read_frame(self.f)
            except OSError:
                return None
            if got and got[0] == SETTINGS and not got[1] & ACK:
                self.send(frame(SETTINGS, ACK))
            elif not got or got[0] not in (SETTINGS, WINDOW_UPDATE, PING):
                return got

    def outcome(self, stream=1):
        """What becomes of a stream: statuses, "reset N"; or of the connection: "goaway N", "end"."""
        out = []
        while True:
            got = self.frame()
            if not got:
                return out + ["end"]
            type, flags, id, payload = got
            if type == GOAWAY:
                return out + ["goaway %d" % int.from_bytes(payload[4:8], "big")]
            if id == stream and type == RST_STREAM:
                return out + ["reset %d" % int.from_bytes(payload, "big")]
            if id == stream and type == HEADERS:
                out.append(status(payload))
            if id == stream and out and out[-1] >= 200 and flags & END_STREAM:
                return out

    def close(self):
        self.f.close()
        self.t.close()
