"""What stands beside an API server in a scenario with "#! extension": webhooks and an aggregated API server, on one port.

The scenario says what is answered at a path (ANSWER path, a body) and asks what came there (SEEN). Of reviews the body is their
response, its uid put in and the review around it; {"convert": {...}} converts the objects of a ConversionReview, with a merge patch over
each; text lines are sent as they are. A path without an answer tells what was asked of it; one whose answer is 101 takes up the protocol that
is asked for, and sends back in capitals what comes. Who shows the tag of an answer (Etag) is told that it has not changed.
"""
import base64, copy, http.server, json, os, shutil, ssl, subprocess, tempfile, threading, time
from scenario import merge

# headers of what came in that are told: who the server says is asking, and what is asked for
TOLD = ("x-remote-user", "x-remote-group", "x-remote-uid", "accept", "content-type", "upgrade")
# of what is passed on to an aggregated server, too: who was before it, and what a client has put there
PASSED = ("x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-uri", "authorization", "impersonate-user", "te", "x-other-user",
          "x-other-group", "x-kept", "x-dropped", "user-agent", "cookie", "sec-websocket-protocol", "x-stream-protocol-version", "content-length")
OWN = ("system:kube-aggregator", "system:aggregator")  # who servers are when they ask for themselves


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *a):
        pass

    def answer(self):
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path, _, query = self.path.partition("?")
        code, ctype, more, out = self.server.owner.answer(self.command, path, query, self.headers, data)
        try:
            if code == 101:
                return self.switch(more)
            self.send_response(code)
            if ctype:
                self.send_header("Content-Type", ctype)
            for k, v in more:
                self.send_header(k, v)
            if code not in (204, 304):
                self.send_header("Content-Length", str(len(out)))
            self.end_headers()
            if self.command != "HEAD" and code not in (204, 304):
                self.wfile.write(out)
        except OSError:
            self.close_connection = True  # a caller that waited no longer

    def switch(self, more):
        self.send_response(101)
        for k, v in [("Connection", "Upgrade"), ("Upgrade", self.headers["Upgrade"])] + more:
            self.send_header(k, v)
        self.end_headers()
        self.wfile.flush()
        self.close_connection = True
        while True:
            got = self.connection.recv(4096)
            if not got:
                return
            self.connection.sendall(got.upper())

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = answer


class Extension:
    """Started; ends at close()."""

    def __init__(self, ns):
        self.dir = tempfile.mkdtemp(prefix="replay-ext-")
        cert, key = os.path.join(self.dir, "crt"), os.path.join(self.dir, "key")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key,
                        "-out", cert, "-days", "2", "-subj", "/CN=extension", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:extension.%s.svc" % ns],
                       check=True, stderr=subprocess.DEVNULL)
        self.httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.httpd.owner = self
        ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ctx.load_cert_chain(cert, key)
        self.httpd.socket = ctx.wrap_socket(self.httpd.socket, server_side=True)
        self.port = self.httpd.server_address[1]
        self.ca = base64.b64encode(open(cert, "rb").read()).decode()
        self.answers, self.seen, self.own, self.lock = {}, [], [], threading.Lock()
        threading.Thread(target=self.httpd.serve_forever, daemon=True).start()

    def close(self):
        self.httpd.shutdown()
        self.httpd.server_close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def set(self, path, code, ctype, body, wait=0.0, more=()):
        with self.lock:
            self.answers[path] = (code, ctype, body, wait, list(more))

    def take_own(self, last, patience):
        """What servers asked for themselves since the last call, each once, and at least until `last` was asked for."""
        end = time.time() + patience
        while time.time() < end and not any(r["path"] == last for r in self.own):
            time.sleep(0.02)
        with self.lock:
            out, self.own = self.own, []
        return [r for i, r in enumerate(out) if r not in out[:i]]

    def take_seen(self):
        """Requests since the last call, but the checks that servers make of themselves."""
        with self.lock:
            out, self.seen = self.seen, []
        return out

    def answer(self, method, path, query, headers, data):
        try:
            body = json.loads(data) if data else None
        except ValueError:
            body = data.decode("latin-1")
        told = {"method": method, "path": path, "query": query, "body": body,
                "headers": {h: headers.get_all(h) if h == "x-remote-group" else headers[h] for h in TOLD if headers[h] is not None}}
        if "referer" in headers:  # sent here by another answer
            told["headers"].update({h: headers[h].replace(str(self.port), "PORT") for h in ("referer", "host")})
        if "x-forwarded-for" in headers:
            told["headers"].update({h: headers[h] for h in PASSED if headers[h] is not None})
            for h in headers:
                if h.lower().startswith("x-remote-extra-"):
                    told["headers"][h.lower()] = sorted(headers.get_all(h))
        with self.lock:
            if headers.get("x-remote-user") in OWN:
                self.own.append({"method": method, "path": path, "headers": told["headers"]})
            else:
                self.seen.append(told)
            known = self.answers.get(path)
        if known is None:
            return 200 if method != "GET" or not path.startswith("/openapi") else 404, "application/json", [], json.dumps(told).encode()
        code, ctype, out, wait, more = known
        time.sleep(wait)
        if any(k.lower() == "etag" and v == headers["if-none-match"] for k, v in more):
            return 304, "", more, b""
        if isinstance(out, str):
            return code, ctype, more, out.encode()
        if isinstance(body, dict) and isinstance(body.get("request"), dict) and code == 200:
            out = self.review(body, copy.deepcopy(out))
        return code, ctype, more, json.dumps(out).encode()

    def review(self, review, out):
        request = review["request"]
        if "convert" in out:
            objects = [merge(dict(o, apiVersion=request["desiredAPIVersion"]), out["convert"]) for o in request["objects"]]
            out = {"convertedObjects": objects, "result": {"status": "Success"}}
        if isinstance(out.get("patch"), list):
            out["patch"] = base64.b64encode(json.dumps(out["patch"]).encode()).decode()
        out.setdefault("uid", request["uid"])
        return {"kind": review["kind"], "apiVersion": out.pop("apiVersion", review["apiVersion"]), "response": out}
