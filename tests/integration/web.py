"""Small web servers that tests put beside a cluster: webhooks, an OpenID provider, a metrics server."""
import base64, http.server, json, os, ssl, threading


class Web:
    """
    Answers on a free port of its own, on threads of its own, until close().

    answer(rq) is asked for each request: rq has .command, .path, .headers and .body (bytes). It gives what to answer: an object for JSON, str
    or bytes as they are, None for nothing; or a pair of a status and one of these, with a dict of headers behind it if there are more;
    the statuses in its "interim" are said before.
    With a test's server `s` it speaks TLS, with a certificate NAME for `names`; what it calls itself and whom to trust are .url, .port, .ca.
    """

    def __init__(self, answer, s=None, name="web", names="IP:127.0.0.1", host="127.0.0.1"):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *a):
                pass

            def respond(self):
                self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                r = answer(self)
                code, body, more = (r + ({},))[:3] if isinstance(r, tuple) else (200, r, {})
                if not isinstance(body, (str, bytes, type(None))):
                    body = json.dumps(body)
                data = body.encode() if isinstance(body, str) else body or b""
                try:
                    for status in more.pop("interim", ()):
                        self.send_response_only(status)
                        self.end_headers()
                    self.send_response(code)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(data)))
                    for k, v in more.items():
                        self.send_header(k, v)
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    self.close_connection = True  # a caller that waited no longer

            do_GET = do_POST = respond

        self.httpd = http.server.ThreadingHTTPServer((host, 0), Handler)
        self.port, self.tls, self.ca = self.httpd.server_address[1], s is not None, None
        if s:
            s.cert(name, "/CN=" + name, "subjectAltName=" + names)
            ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            ctx.load_cert_chain(os.path.join(s.dir, name + ".crt"), os.path.join(s.dir, name + ".key"))
            self.httpd.socket = ctx.wrap_socket(self.httpd.socket, server_side=True)
            self.ca = base64.b64encode(open(os.path.join(s.dir, "ca.crt"), "rb").read()).decode()
        self.url = "%s://127.0.0.1:%d" % ("https" if s else "http", self.port)
        threading.Thread(target=self.httpd.serve_forever, daemon=True).start()

    def kubeconfig(self, path="", user=None):
        """How a server is told of it, beside its ca.crt."""
        cluster = dict({"server": self.url + path}, **({"certificate-authority": "ca.crt"} if self.tls else {}))
        return {"apiVersion": "v1", "kind": "Config", "current-context": "c", "clusters": [{"name": "w", "cluster": cluster}],
                "users": [{"name": "u", "user": user or {}}], "contexts": [{"name": "c", "context": {"cluster": "w", "user": "u"}}]}

    def close(self):
        self.httpd.shutdown()
        self.httpd.server_close()
