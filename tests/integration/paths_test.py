#!/usr/bin/env python3
"""What is served beside resources (OpenAPI, health, zpages, /debug), and watches over WebSockets.

Usage: paths_test.py PATH-OF-kube-apiserver. Prints one line a failed check and "N passed, N failed".
"""
import base64, gzip, json, os, re, socket, struct, subprocess, sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from access_test import until
from apiserver_test import CM, EXE, Client, check, cm, equal, suite

V3_PROTO = "application/com.github.proto-openapi.spec.v3%sv1.0+protobuf"


# ---- gnostic's openapi.v3 messages, read back into the JSON they were made of ----

def fields(data):
    i, out = 0, []

    def varint():
        nonlocal i
        v = shift = 0
        while True:
            c = data[i]
            i += 1
            v |= (c & 127) << shift
            shift += 7
            if c < 128:
                return v
    while i < len(data):
        tag = varint()
        if tag & 7 == 2:
            n = varint()
            v = data[i:i + n]
            i += n
        elif tag & 7 == 1:
            v = struct.unpack("<d", data[i:i + 8])[0]
            i += 8
        else:
            v = varint()
        out.append((tag >> 3, v))
    return out


def text(v):
    return v.decode()


def plain(word):
    """A scalar of YAML; empty lists and maps as well."""
    if word[:1] == "'":
        return word[1:-1].replace("''", "'")
    try:
        return json.loads(word)
    except ValueError:
        return word


def block(lines):
    """YAML in lines, as far as documents of the server have it: lists, maps and scalars of one line."""
    key = re.compile(r"""("[^"]*"|'[^']*'|[^\s'"\[{-][^:]*):(?: (.*))?$""")
    out, item = None, []

    def end():
        if isinstance(out, list) and item:
            out.append(block(item))
        elif isinstance(out, dict) and len(item) > 1:
            out[item[0]] = block([l[2:] for l in item[1:]] if item[1][:2] == "  " else item[1:])
    for l in lines:
        m = key.match(l) if l[:1] not in "- " else None
        if l[:2] == "- " and not isinstance(out, dict):
            end()
            out, item = out or [], [l[2:]]
        elif m and not isinstance(out, list):
            end()
            out, item = out or {}, [plain(m[1])]
            if m[2] is not None:
                out[item[0]] = plain(m[2])
        elif out is None:
            return plain(l)
        else:
            item.append(l[2:] if isinstance(out, list) else l)
    end()
    return out


def yaml(v):
    return block(text(dict(fields(v))[2]).rstrip("\n").split("\n"))


def named(sub, at=1):
    return lambda v: {text(dict(fields(pair))[1]): sub(dict(fields(pair)).get(2, b"")) for n, pair in fields(v) if n == at}


def strings(v):
    return [text(x) for _, x in fields(v)]


def either(sub):
    def f(v):
        (n, x), = fields(v)
        return sub(x) if n == 1 else message({1: ("$ref", text, 0)})(x)
    return f


def additional(v):
    (n, x), = fields(v)
    return schema(x) if n == 1 else bool(x)


def scalar(v):
    got = fields(v)
    if not got:
        return {}  # an object: protobuf has no place for it
    (n, x), = got
    return (int(x) if x == int(x) else x) if n == 1 else bool(x) if n == 2 else text(x)


def message(members, extension=0):
    """members: field number -> (name, how, several)."""
    def f(v):
        out = {}
        for n, x in fields(v):
            if n == extension:
                pair = dict(fields(x))
                out[text(pair[1])] = yaml(pair[2])
                continue
            name, how, several = members[n]
            if several:
                out.setdefault(name, []).append(how(x))
            else:
                out[name] = how(x)
        return out
    return f


def number(v):
    return int(v) if v == int(v) else v


def schema(v):
    return either(message(SCHEMA, 36))(v)


SCHEMA = {1: ("nullable", bool, 0), 3: ("readOnly", bool, 0), 9: ("title", text, 0), 10: ("multipleOf", number, 0), 11: ("maximum", number, 0),
          12: ("exclusiveMaximum", bool, 0), 13: ("minimum", number, 0), 14: ("exclusiveMinimum", bool, 0), 15: ("maxLength", int, 0),
          16: ("minLength", int, 0), 17: ("pattern", text, 0), 18: ("maxItems", int, 0), 19: ("minItems", int, 0), 20: ("uniqueItems", bool, 0),
          21: ("maxProperties", int, 0), 22: ("minProperties", int, 0), 23: ("required", text, 1), 24: ("enum", yaml, 1), 25: ("type", text, 0),
          26: ("allOf", schema, 1), 27: ("oneOf", schema, 1), 28: ("anyOf", schema, 1), 29: ("not", lambda v: message(SCHEMA, 36)(v), 0),
          30: ("items", lambda v: schema(fields(v)[0][1]), 0), 31: ("properties", lambda v: named(schema)(v), 0),
          32: ("additionalProperties", additional, 0), 33: ("default", scalar, 0), 34: ("description", text, 0), 35: ("format", text, 0)}
MEDIA = message({1: ("schema", schema, 0)})
PARAMETER = either(message({1: ("name", text, 0), 2: ("in", text, 0), 3: ("description", text, 0), 4: ("required", bool, 0), 10: ("schema", schema, 0)}))
RESPONSE = either(message({1: ("description", text, 0), 3: ("content", named(MEDIA), 0)}))
BODY = either(message({1: ("description", text, 0), 2: ("content", named(MEDIA), 0), 3: ("required", bool, 0)}))
OPERATION = message({1: ("tags", text, 1), 3: ("description", text, 0), 5: ("operationId", text, 0), 6: ("parameters", PARAMETER, 1),
                     7: ("requestBody", BODY, 0), 8: ("responses", named(RESPONSE, 2), 0), 10: ("deprecated", bool, 0)}, 13)
PATH = message({4: ("get", OPERATION, 0), 5: ("put", OPERATION, 0), 6: ("post", OPERATION, 0), 7: ("delete", OPERATION, 0), 8: ("options", OPERATION, 0),
                9: ("head", OPERATION, 0), 10: ("patch", OPERATION, 0), 13: ("parameters", PARAMETER, 1)})
SCHEME = either(message({1: ("type", text, 0), 2: ("description", text, 0), 3: ("name", text, 0), 4: ("in", text, 0)}))
DOCUMENT = message({1: ("openapi", text, 0), 2: ("info", message({1: ("title", text, 0), 2: ("description", text, 0), 6: ("version", text, 0)}), 0),
                    4: ("paths", named(PATH), 0), 5: ("components", message({1: ("schemas", named(schema), 0), 7: ("securitySchemes", named(SCHEME), 0)}), 0),
                    6: ("security", named(strings), 1)})


def proto_json(v, where=""):
    """What is left of a document in protobuf: empty strings, false, zero and empty lists are not there; defaults are scalars."""
    if isinstance(v, list):
        return [proto_json(x) for x in v]
    if not isinstance(v, dict):
        return v
    out = {}
    for k, x in v.items():
        plain = where in ("properties", "schemas", "paths", "responses", "content")
        if not plain and k.startswith("x-"):
            out[k] = x
        elif not plain and k == "default":
            out[k] = x if isinstance(x, (str, int, float)) else {}
        elif not plain and (x is False and k != "additionalProperties" or x == "" or x == [] or x == 0 and not isinstance(x, bool)):
            pass
        else:
            out[k] = proto_json(x, "" if plain else k)
    return out


CRD = {"kind": "CustomResourceDefinition", "apiVersion": "apiextensions.k8s.io/v1", "metadata": {"name": "widgets.example.com"},
       "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
                "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "default": {"size": 1}, "required": ["size"], "properties": {
                        "size": {"type": "integer", "default": 0, "minimum": 0, "maximum": 9}, "on": {"type": "boolean", "default": False},
                        "port": {"x-kubernetes-int-or-string": True}, "name": {"type": "string", "default": "x", "enum": ["x", "y"], "pattern": "^.$"},
                        "map": {"type": "object", "additionalProperties": {"type": "number", "not": {"minimum": 1.5}}},
                        "rest": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}}}}}}]}}


def test_openapi_v3(a):
    st, o = a.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", CRD)
    equal("a CRD", st, 201) if st == 201 else check("a CRD", False, o.get("message"))
    until("its document", lambda: "apis/example.com/v1" in a.get("/openapi/v3")[1]["paths"])
    for gv, entry in a.get("/openapi/v3")[1]["paths"].items():
        path = entry["serverRelativeURL"]
        st, h, doc = a.raw("GET", path, headers={"Accept": "application/json"})
        equal(gv + ": kept for ever by its hash", (st, h["cache-control"], h["content-type"]), (200, "public, immutable", "application/json"))
        check(gv + ": says until when", "GMT" in h["expires"])
        for dot in (".", "@"):
            ps, ph, data = a.raw("GET", path, headers={"Accept": V3_PROTO % dot})
            equal(gv + ": protobuf", (ps, ph["content-type"], ph["etag"], ph["vary"]), (200, V3_PROTO % ".", h["etag"], "Accept"))
        got, want = DOCUMENT(data), proto_json(json.loads(doc))
        for part in sorted(set(got) | set(want)):
            same = got.get(part) == want.get(part)
            check("%s: %s are the JSON's" % (gv, part), same, "" if same else difference(got.get(part), want.get(part), part))
        equal(gv + ": unchanged", a.raw("GET", "/openapi/v3/" + gv, headers={"If-None-Match": 'W/"x", ' + h["etag"]})[0], 304)
        st, h, _ = a.raw("GET", "/openapi/v3/%s?hash=00" % gv)
        equal(gv + ": another hash", (st, h["location"]), (301, path))
        equal(gv + ": without a hash", a.raw("GET", "/openapi/v3/" + gv)[1]["cache-control"], "no-cache, private")
    equal("what there is not", a.raw("GET", path, headers={"Accept": "application/yaml"})[::2], (406, b""))
    equal("nor here", a.raw("GET", "/openapi/v3/apis/nothing/v1")[::2], (404, b""))
    st, h, data = a.raw("GET", "/openapi/v3/api/v1", headers={"Accept": V3_PROTO % ".", "Accept-Encoding": "gzip"})
    equal("never compressed, as upstream's", (st, h["content-encoding"], DOCUMENT(data)["openapi"]), (200, None, "3.0.0"))
    st, h, data = a.raw("GET", "/openapi/v2", headers={"Accept-Encoding": "gzip"})
    equal("but the second version", (st, h["content-encoding"], json.loads(gzip.decompress(data))["swagger"]), (200, "gzip", "2.0"))
    etag, modified = h["etag"], h["last-modified"]
    for name, headers, want in (
            ("one that is here", {"If-None-Match": etag}, 304), ("a weak one", {"If-None-Match": '"x", W/' + etag}, 304), ("another", {"If-None-Match": '"x"'}, 200),
            ("any", {"If-None-Match": "*"}, 304), ("its time", {"If-Modified-Since": modified}, 304),
            ("a tag counts more", {"If-None-Match": '"x"', "If-Modified-Since": modified}, 200), ("no date", {"If-Modified-Since": "yesterday"}, 200),
            ("only this", {"If-Match": etag}, 200), ("weak is not this", {"If-Match": "W/" + etag}, 412), ("only another", {"If-Match": '"x"'}, 412),
            ("since long", {"If-Unmodified-Since": "Fri, 01 Jan 1999 00:00:00 GMT"}, 412), ("a part", {"Range": "bytes=0-9"}, 206),
            ("of another", {"Range": "bytes=0-9", "If-Range": '"x"'}, 200), ("of this", {"Range": "bytes=0-9", "If-Range": etag}, 206),
            ("beyond", {"Range": "bytes=99999999-"}, 416), ("no range", {"Range": "lines=1-2"}, 416), ("nor this", {"Range": "bytes=5-1"}, 416)):
        equal("if it is " + name, a.raw("GET", "/openapi/v2", headers=headers)[0], want)
    for asked, part in (("0-9", slice(0, 10)), ("-9", slice(-9, None)), ("%d-" % 5, slice(5, None))):
        st, h, whole = a.raw("GET", "/openapi/v3/version")
        st, h, data = a.raw("GET", "/openapi/v3/version", headers={"Range": "bytes=" + asked})
        start = part.indices(len(whole))[0]
        equal("bytes " + asked, (st, data, h["content-range"]), (206, whole[part], "bytes %d-%d/%d" % (start, start + len(data) - 1, len(whole))))


def difference(a, b, at):
    if isinstance(a, dict) and isinstance(b, dict):
        for k in sorted(set(a) | set(b)):
            if a.get(k) != b.get(k):
                return difference(a.get(k), b.get(k), at + "." + k)
    return "%s: %.200r, want %.200r" % (at, a, b)


def test_health(a):
    names = [re.match(r"\[\+\](\S+) ok", l).group(1) for l in a.raw("GET", "/livez?verbose")[2].decode().splitlines()[:-1]]
    check("checks of the server's parts", len(names) > 20 and "poststarthook/rbac/bootstrap-roles" in names, names)
    for n in names:
        equal(n, a.raw("GET", "/livez/" + n)[::2], (200, b"ok"))
    text = a.raw("GET", "/livez?verbose&exclude=etcd&exclude=nothing")[2].decode()
    check("one left out", "[+]etcd excluded: ok\n" in text and 'no matches for "nothing"\n' in text, text)
    equal("no such check", a.raw("GET", "/livez/nothing")[::2], (404, b"404 page not found\n"))
    check("readiness has its own", "[+]shutdown ok" in a.raw("GET", "/readyz?verbose")[2].decode() and "shutdown" not in names)
    slis = a.raw("GET", "/metrics/slis")[2].decode()
    check("counted", 'kubernetes_healthcheck{name="etcd",type="livez"} 1\n' in slis and
          re.search(r'kubernetes_healthchecks_total{name="ping",status="success",type="livez"} \d', slis), slis)
    root = a.get("/")[1]["paths"]
    equal("all of them are listed", [p for p in root if p.startswith("/livez/")], sorted("/livez/" + n for n in names))


def test_zpages(a):
    st, h, data = a.raw("GET", "/statusz")
    equal("statusz", (st, h["content-type"]), (200, "text/plain; charset=utf-8"))
    check("its text", b"apiserver statusz" in data and b"\nUp: 0 hr 0" in data and b"/healthz /livez /metrics" in data, data)
    accept = "application/json;v=v1beta1;g=config.k8s.io;as=Statusz"
    st, d = a.get("/statusz", headers={"Accept": accept})
    equal("as an object", (d["kind"], d["apiVersion"], d["metadata"], d["emulationVersion"]), ("Statusz", "config.k8s.io/v1beta1", {"name": "apiserver"}, "1.36"))
    check("its paths", "/readyz" in d["paths"] and "/apis" not in d["paths"], d["paths"])
    equal("as anything else", a.raw("GET", "/statusz", headers={"Accept": "application/json"})[0], 406)
    st, d = a.get("/flagz", headers={"Accept": accept.replace("Statusz", "Flagz")})
    equal("flagz", (d["flags"]["bind-address"], d["flags"]["event-ttl"], d["flags"]["anonymous-auth"]), ("127.0.0.1", "1h0m0s", "true"))
    check("its text", b"\nbind-address=127.0.0.1\n" in a.raw("GET", "/flagz")[2])
    st, h, _ = a.raw("GET", "/flagz", headers={"Accept": accept.replace("Statusz", "Flagz").replace("v1beta1", "v1alpha1")})
    check("the older version is warned of", "deprecated" in (h["warning"] or ""))


def test_debug(a):
    equal("verbosity", a.raw("PUT", "/debug/flags/v", "3")[::2], (200, b"successfully set klog.logging.verbosity to 3"))
    equal("no number", a.raw("PUT", "/debug/flags/v", "x")[0], 400)
    a.raw("PUT", "/debug/flags/v", "0")
    check("what there is", b"/debug/fibers" in a.raw("GET", "/debug/pprof/")[2])
    check("counted so far", b"apiserver_request_total{" in a.raw("GET", "/metrics")[2])
    equal("forgotten", a.raw("DELETE", "/metrics")[::2], (200, b"metrics reset\n"))
    check("all", b'verb="PUT"' not in a.raw("GET", "/metrics")[2])


# ---- watches over WebSockets ----

class Socket:
    """A client of RFC 6455; what it sends is masked with zeros."""

    def __init__(self, a, path, headers=None):
        self.s = a.ctx.wrap_socket(socket.create_connection(("127.0.0.1", a.s.port), 20), server_hostname="127.0.0.1")
        h = {"Host": "x", "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
             "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode()}
        h.update(headers or {})
        self.s.sendall(("GET %s HTTP/1.1\r\n%s\r\n\r\n" % (path, "\r\n".join("%s: %s" % x for x in h.items()))).encode())
        self.f = self.s.makefile("rb")
        self.status = int(self.f.readline().split()[1])
        self.headers = {}
        for line in iter(self.f.readline, b"\r\n"):
            k, v = line.decode().split(":", 1)
            self.headers[k.lower()] = v.strip()

    def read(self):
        """(opcode, bytes); (None, b"") at the end."""
        head = self.f.read(2)
        if len(head) < 2:
            return None, b""
        n = head[1] & 127
        n = struct.unpack(">H", self.f.read(2))[0] if n == 126 else struct.unpack(">Q", self.f.read(8))[0] if n == 127 else n
        return head[0] & 15, self.f.read(n)

    def send(self, op, data=b""):
        self.s.sendall(bytes([128 | op, 128 | len(data)]) + bytes(4) + data)

    def event(self):
        op, data = self.read()
        return json.loads(data) if op == 1 else (op, data)


def watchers(a):
    got = re.search(rb"^/configmaps \d+ (\d+) ", a.raw("GET", "/debug/memory")[2], re.M)
    return int(got.group(1))


def test_watch_socket(a):
    before = watchers(a)
    a.post(CM, cm("w1", a="1"))
    rv = a.get(CM)[1]["metadata"]["resourceVersion"]
    w = Socket(a, CM + "?watch=1&fieldSelector=metadata.name%3Dw1")
    equal("switched", (w.status, w.headers.get("upgrade")), (101, "websocket"))
    e = w.event()
    equal("what is there", (e["type"], e["object"]["metadata"]["name"]), ("ADDED", "w1"))
    w.send(1, b"this is dropped")
    w.send(9, b"ping")
    equal("a ping is answered", w.read(), (10, b"ping"))
    a.put(CM + "/w1", cm("w1", a="2"))
    e = w.event()
    equal("a change", (e["type"], e["object"]["data"]), ("MODIFIED", {"a": "2"}))
    equal("one watcher", watchers(a), before + 1)
    w.send(8, struct.pack(">H", 1000))
    equal("the client's end is answered", w.read()[0], 8)
    until("and ends the watch", lambda: watchers(a) == before)

    w = Socket(a, CM + "?watch=1&timeoutSeconds=1&resourceVersion=" + rv, {"Accept": "application/vnd.kubernetes.protobuf"})
    op, data = w.read()
    event = dict(fields(data))
    equal("protobuf is binary, without a length before it", (op, event[1]), (2, b"MODIFIED"))
    check("an object in it", dict(fields(event[2]))[1].startswith(b"k8s\0"))
    op, data = w.read()
    equal("the timeout closes it", (op, data[:2]), (8, struct.pack(">H", 1000)))

    w = Socket(a, CM + "?watch=1", {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"})
    equal("tables", w.event()["object"]["kind"], "Table")
    w.s.close()
    w.f.close()
    w = Socket(a, CM + "?watch=1&resourceVersion=1", {"Sec-WebSocket-Protocol": "mine"})
    equal("a subprotocol", w.headers.get("sec-websocket-protocol"), "mine")
    w.s.close()
    w.f.close()
    until("lost connections end their watches", lambda: watchers(a) == before)
    equal("a choice of them", Socket(a, CM + "?watch=1", {"Sec-WebSocket-Protocol": "mine, yours"}).status, 400)
    equal("not allowed", Socket(Client(a.s), CM + "?watch=1").status, 403)


def test_watch_socket_token(a):
    bearer = "base64url.bearer.authorization.k8s.io." + base64.urlsafe_b64encode(b"alicetoken").decode().rstrip("=")
    a.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", {"metadata": {"name": "alice"}, "roleRef": {
        "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}, "subjects": [{"kind": "User", "name": "alice",
                                                                                                       "apiGroup": "rbac.authorization.k8s.io"}]})
    w = Socket(Client(a.s), CM + "?watch=1", {"Sec-WebSocket-Protocol": bearer + ", mine"})
    equal("a browser's way to log in", (w.status, w.headers.get("sec-websocket-protocol")), (101, "mine"))
    equal("sees what alice may see", w.event()["type"], "ADDED")


# ---- browsers, time-outs and the end ----

def test_origins(a):
    anon = Client(a.s)
    for origin, ok in (("http://example.com", True), ("https://example.com", True), ("http://example.com.evil", False), ("https://ok.here", True),
                       ("null", False)):
        st, h, _ = a.raw("GET", "/api/v1/namespaces/default", headers={"Origin": origin})
        equal("asked from " + origin, (st, h["access-control-allow-origin"], h["access-control-allow-credentials"]),
              (200, origin if ok else None, "true" if ok else None))
        st, h, data = anon.raw("OPTIONS", "/api/v1/namespaces/default", headers={"Origin": origin, "Access-Control-Request-Method": "PUT"})
        equal("the question before, from " + origin, (st, h["access-control-allow-methods"]), (204, "POST, GET, OPTIONS, PUT, DELETE, PATCH") if ok else (403, None))
        equal("by TLS only", h["strict-transport-security"], "max-age=100; includeSubDomains")
    for bad in ("--cors-allowed-origins=example.com", "--cors-allowed-origins=//(example", "--cors-allowed-origins=", "--strict-transport-security-directives=odd"):
        r = subprocess.run([EXE, "--data-dir=none", "--secure-port=0", "--tls-cert-file=server.crt", "--tls-private-key-file=server.key", bad], cwd=a.s.dir, timeout=20, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        check(bad + " is refused", r.returncode and bad[:bad.index("=")] in r.stdout, r.stdout)


def test_time_out(a):
    c = a.open()
    c.putrequest("POST", CM + "?timeout=200ms")
    c.putheader("Content-Type", "application/json")
    c.putheader("Content-Length", "1000")
    c.endheaders(b"{")
    r = c.getresponse()
    equal("who takes too long", (r.status, r.headers["content-type"], json.loads(r.read())["reason"], r.headers["x-kubernetes-pf-flowschema-uid"]),
          (504, "text/plain; charset=utf-8", "Timeout", None))
    c.close()


def test_end(s, a):
    c = a.open()
    c.request("GET", CM + "?watch=1")
    r = c.getresponse()
    s.stop()
    check("a watch ends whole when the server does", r.read().endswith(b"\n"))


def test_flags():
    def run(*argv):
        r = subprocess.run([EXE, *argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return r.returncode, r.stdout

    code, said = run("--egress-selector-config-file=x")
    equal("upstream's flag that is not built", (code, "--egress-selector-config-file is a flag of Kubernetes that is not built here" in said), (2, True))
    code, said = run("--send-retry-after-while-not-ready-once", "--default-watch-cache-size", "5", "--nothing")
    check("without effect", code and "--default-watch-cache-size has no effect here" in said and "--send-retry-after-while-not-ready-once has no effect" in said, said)
    check("unknown", "unrecognized option '--nothing'" in said and "unexpected argument" not in said, said)


def test_words(a):
    """Messages that clients show or read have upstream's form."""
    cms = "/api/v1/namespaces/default/configmaps"
    at = cms + "/worded?fieldValidation=Strict"

    def said(method, path, body=b"", **h):
        e = json.loads(a.raw(method, path, body, {k.replace("_", "-"): v for k, v in h.items()})[2])
        return e["message"], [c["message"] for c in e.get("details", {}).get("causes", [])]

    equal("an object", a.post(cms, {"metadata": {"name": "worded"}, "data": {"k": "v"}})[0], 201)
    for body, words in ((b"", "unexpected end of JSON input (<empty>)"), (b'{"metadata', 'unexpected end of JSON input ({"metadata)'), (b"x" * 40, "(" + "78" * 30 + " ...)"),
                        (b'{"metadata":{}} y', "invalid character 'y' after top-level value ({\"metadata\":{}} y)"),
                        (b'{"apiVersion":"a/b/c","kind":"C"}', "unexpected GroupVersion string: a/b/c ({\"apiVersion\":\"a/b/c\",\"kind\":\" ...)")):
        m = said("POST", cms, body)[0]
        check("what nobody can name is shown: " + words, m.startswith("the object provided is unrecognized (must be of type ConfigMap): ") and m.endswith(words), m)
    equal("another kind", said("POST", cms, b'{"apiVersion":"apps/v1","kind":"Deployment"}')[0],
          'Deployment in version "v1" cannot be handled as a ConfigMap: converting (v1.Deployment) to (core.ConfigMap): unknown conversion')
    equal("levels", said("POST", cms + "?fieldValidation=Odd", b"{}")[1], ['Unsupported value: "Odd": supported values: "", "Ignore", "Strict", "Warn"'])
    equal("dry runs", said("POST", cms + "?dryRun=Odd&dryRun=All", b"{}")[1], ['Unsupported value: ["Odd","All"]: supported values: "All"'])
    equal("managers", said("POST", cms + "?fieldManager=ab%07", b"{}")[1], ['Invalid value: "ab\\a": invalid character U+0007 (at position 2)'])
    equal("keys of YAML", said("PATCH", at + "&fieldManager=m", b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: worded}\ndata:\n  a: x\n  a: z\n", content_type="application/apply-patch+yaml")[0],
          'error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  line 6: key "a" already set in map')
    m, causes = said("PATCH", at, b'{"odd":1}', content_type="application/merge-patch+json")
    check("a patched object", causes[0].startswith('Invalid value: "{\\"') and '\\"apiVersion\\":\\"v1\\",' in causes[0] and m == ' "" is invalid: patch: ' + causes[0] and
          m.endswith('strict decoding error: unknown field "odd"'), m)
    equal("columns", said("GET", cms + "?includeObject=odd", accept="application/json;as=Table;v=v1;g=meta.k8s.io")[0],
          "Unable to convert to Table as requested: includeObject: Invalid value: \"odd\": must be 'Metadata', 'Object', 'None', or empty")
    types = "application/json, application/yaml, application/vnd.kubernetes.protobuf, application/cbor"  # the servers of tests speak it
    equal("types of a watch", said("GET", cms + "?watch=true", accept="application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io")[0],
          "only the following media types are accepted: " + types)
    text = a.raw("GET", cms + "?watch=true", None, {"accept": "application/yaml"})[2].decode()
    check("types of its stream", ": application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch" in text.replace("\n  ", " "), text)
    equal("types the router knows", said("GET", cms + "/worded", accept="text/html")[0], "406: Not Acceptable\n\nAvailable representations: " + types)
    equal("versions", (said("GET", cms + "?resourceVersion=x")[0], said("GET", cms + "/worded?resourceVersion=x")[0]),
          ('resourceVersion: Invalid value: "x": strconv.ParseUint: parsing "x": invalid syntax',) * 2)


def prepare(s):
    s.store += ["--cors-allowed-origins=//example\\.com$,^https://ok\\..*", "--strict-transport-security-directives=max-age=100,includeSubDomains"]
    s.start()
    return {"a": Client(s, cert="admin")}


if __name__ == "__main__":
    suite("paths", prepare, (test_flags, test_words, test_openapi_v3, test_health, test_zpages, test_debug, test_watch_socket, test_watch_socket_token,
                             test_origins, test_time_out, test_end))
