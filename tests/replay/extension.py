"""What stands beside an API server in a scenario with "#! extension": webhooks and an aggregated API server, on one port.

The scenario says what is answered at a path (ANSWER path, a body) and asks what came there (SEEN). Of reviews the body is their
response, its uid put in and the review around it; {"convert": {...}} converts the objects of a ConversionReview, with a merge patch over
each; text lines are sent as they are. A path without an answer tells what was asked of it.
"""
import base64, copy, http.server, json, os, shutil, ssl, subprocess, tempfile, threading, time
from scenario import merge

# headers of what came in that are told: who the server says is asking, and what is asked for
TOLD = ("x-remote-user", "x-remote-group", "x-remote-uid", "accept", "content-type", "upgrade")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *a):
        pass

    def answer(self):
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path, _, query = self.path.partition("?")
        code, ctype, out = self.server.owner.answer(self.command, path, query, self.headers, data)
        try:
            self.send_response(code)
            self.send_header("Content-Type", ctype)
            self.send_header("Content-Length", str(len(out)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(out)
        except OSError:
            self.close_connection = True  # a caller that waited no longer

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = answer


class Extension:
    """Started; ends at close()."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="replay-ext-")
        cert, key = os.path.join(self.dir, "crt"), os.path.join(self.dir, "key")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key,
                        "-out", cert, "-days", "2", "-subj", "/CN=extension", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"],
                       check=True, stderr=subprocess.DEVNULL)
        self.httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.httpd.owner = self
        ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ctx.load_cert_chain(cert, key)
        self.httpd.socket = ctx.wrap_socket(self.httpd.socket, server_side=True)
        self.port = self.httpd.server_address[1]
        self.ca = base64.b64encode(open(cert, "rb").read()).decode()
        self.answers, self.seen, self.lock = {}, [], threading.Lock()
        threading.Thread(target=self.httpd.serve_forever, daemon=True).start()

    def close(self):
        self.httpd.shutdown()
        self.httpd.server_close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def set(self, path, code, ctype, body, wait=0.0):
        with self.lock:
            self.answers[path] = (code, ctype, body, wait)

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
        with self.lock:
            if "system:kube-aggregator" != headers.get("x-remote-user") and "system:aggregator" != headers.get("x-remote-user"):
                self.seen.append(told)
            known = self.answers.get(path)
        if known is None:
            return 200 if method != "GET" or not path.startswith("/openapi") else 404, "application/json", json.dumps(told).encode()
        code, ctype, out, wait = known
        time.sleep(wait)
        if isinstance(out, str):
            return code, ctype, out.encode()
        if isinstance(body, dict) and isinstance(body.get("request"), dict) and code == 200:
            out = self.review(body, copy.deepcopy(out))
        return code, ctype, json.dumps(out).encode()

    def review(self, review, out):
        request = review["request"]
        if "convert" in out:
            objects = [merge(dict(o, apiVersion=request["desiredAPIVersion"]), out["convert"]) for o in request["objects"]]
            out = {"convertedObjects": objects, "result": {"status": "Success"}}
        if isinstance(out.get("patch"), list):
            out["patch"] = base64.b64encode(json.dumps(out["patch"]).encode()).decode()
        out.setdefault("uid", request["uid"])
        return {"kind": review["kind"], "apiVersion": out.pop("apiVersion", review["apiVersion"]), "response": out}
