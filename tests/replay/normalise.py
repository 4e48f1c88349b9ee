"""What of an answer is compared: everything but wording, clocks and random choices.

A value that the server chose (uid, resourceVersion, generated name, allocated address) becomes a placeholder named by the step in which
it was first seen, so that "the same as before" and "another one" stay visible. What the client sent itself is never replaced.
"""
import base64, hashlib, json, re, time, calendar
import wire

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TIME = re.compile(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)(\.\d+)?(Z| \+0000 UTC)")
FINGERPRINT = re.compile(r"X509SHA256=[0-9a-f]{64}")
ACCESS = re.compile(r"kube-api-access-[a-z0-9]{5}")
AGE = re.compile(r"^(\d+[smhdy])+( ago)?$")
JWT = re.compile(r"^[\w-]+\.[\w-]+\.[\w-]+$")
# what nearly every answer says is left out where it is said
USUAL = {"cache-control": "no-cache, private", "audit-id": True, "x-kubernetes-pf-flowschema-uid": True,
         "x-kubernetes-pf-prioritylevel-uid": True, "content-type": "application/json"}
HEADERS = ("content-type", "content-encoding", "location", "allow", "www-authenticate", "cache-control", "vary", "x-content-type-options",
           "access-control-allow-origin", "deprecation", "etag")
PRESENT = ("audit-id", "retry-after", "x-kubernetes-pf-flowschema-uid", "x-kubernetes-pf-prioritylevel-uid")


class State:
    """Of one scenario on one server."""

    def __init__(self):
        self.seen = {}
        self.count = {}
        self.sent = ""
        self.sent_values = set()  # numbers as text too
        self.sent_texts = set()
        self.step = 0
        self.ext_port = None

    def send(self, text):
        self.sent += text + "\n"

    def place(self, kind, value):
        key = (kind, value)
        if key not in self.seen:
            n = self.count.get((kind, self.step), 0)
            self.count[kind, self.step] = n + 1
            self.seen[key] = "<%s@%d%s>" % (kind, self.step, ".%d" % n if n else "")
        return self.seen[key]

    def own(self, port, ca):
        """Of the extension, which has another port and another certificate each time."""
        self.ext_port = port
        self.seen["name", "127.0.0.1:%d" % port] = "<ext>"
        self.seen["name", "localhost:%d" % port] = "<ext>"
        self.seen["name", ca] = "<extca>"

    def name(self, value, placeholder):
        """A generated name: replaced wherever it stands from now on."""
        self.seen["name", value] = placeholder


def near_now(text):
    try:
        return abs(calendar.timegm(time.strptime(text.replace(" ", "T"), "%Y-%m-%dT%H:%M:%S")) - time.time()) < 3 * 366 * 86400
    except ValueError:
        return False


def string(s, st):
    if len(s) >= 20 and s[0] == "2" and TIME.fullmatch(s) and s not in st.sent:
        return "<microtime>" if "." in s else "<time>"
    if len(s) >= 36:
        s = UUID.sub(lambda m: m.group(0) if m.group(0) in st.sent else st.place("uid", m.group(0)), s)
        s = TIME.sub(lambda m: "<time>" if near_now(m.group(1)) and m.group(0) not in st.sent else m.group(0), s)
    if "X509SHA256=" in s:
        s = FINGERPRINT.sub("X509SHA256=<fingerprint>", s)
    if "kube-api-access-" in s:
        s = ACCESS.sub("kube-api-access-<gen>", s)
    for (kind, value), p in st.seen.items():
        if kind == "ip" and value in s:
            s = re.sub(r"\b%s\b" % re.escape(value), p, s)
        if kind == "name" and value in s:
            s = s.replace(value, p)
    return s


def jwt(token):
    def part(p):
        return json.loads(base64.urlsafe_b64decode(p + "=" * (-len(p) % 4)))
    head, claims, _ = token.split(".")
    head, claims = part(head), part(claims)
    if "kid" in head:
        head["kid"] = "<kid>"
    life = claims.get("exp", 0) - claims.get("iat", 0)
    for k in ("iat", "nbf", "exp"):
        if k in claims:
            claims[k] = "<seconds>"
    if "warnafter" in claims.get("kubernetes.io", {}):
        claims["kubernetes.io"]["warnafter"] = "<seconds>"
    return {"head": head, "claims": claims, "life": life}


def walk(v, st, path=()):
    if isinstance(v, str):
        return string(v, st)
    if isinstance(v, list):
        return [walk(x, st, path + (i,)) for i, x in enumerate(v)]
    if not isinstance(v, dict):
        return "<extport>" if type(v) is int and v == st.ext_port else v
    out = {}
    status = v.get("kind") == "Status" and v.get("apiVersion") == "v1"
    is_list = isinstance(v.get("kind"), str) and v["kind"].endswith("List") or v.get("kind") in ("Table",)
    name = v.get("name")
    if isinstance(name, str) and len(name) > 5 and name not in st.sent:
        base = name[:-5]
        if base in st.sent_values or isinstance(v.get("generateName"), str) and v["generateName"].startswith(base):
            st.name(name, "%s<gen@%d>" % (base, st.step))
    for k, x in sorted(v.items()):
        if k in ("message", "description") and isinstance(x, str) and (status or "causes" in path or x not in st.sent or not x):
            # an absent sentence is a difference of structure, another sentence is none
            if not x and k == "message":
                out[k] = ""
            continue
        if k == "resourceVersion" and isinstance(x, str) and x not in ("", "0"):
            if path and path[-1] == "metadata" and st.in_list:
                out[k] = "<listrv>"
            elif x in st.sent_texts:  # and no number that a revision happens to be
                out[k] = x
            else:
                out[k] = st.place("rv", x)
            continue
        if k == "continue" and isinstance(x, str) and x:
            out[k] = "<continue>"
            continue
        if k in ("clusterIP", "nodePort", "healthCheckNodePort") and isinstance(x, (str, int)) and x not in ("", "None", 0) and \
                str(x) not in st.sent_values:
            out[k] = st.place("ip" if k == "clusterIP" else "port", x)
            continue
        if k == "clusterIPs" and isinstance(x, list):
            out[k] = [i if i in ("", "None") or i in st.sent_values else st.place("ip", i) for i in x]
            continue
        if k == "token" and isinstance(x, str) and x not in st.sent and JWT.match(x):
            try:
                out[k] = walk(jwt(x), st)
                continue
            except ValueError:
                pass
        if k in ("error", "evaluationError") and isinstance(x, str) and x:
            out[k] = "<said>"
            continue
        if k == "reason" and isinstance(x, str) and " " in x and x not in st.sent:
            # a sentence; and which of several bindings allowed something is nobody's promise either
            out[k] = "<said>"
            continue
        if k == "kubernetes.io/legacy-token-last-used" and x not in st.sent:
            out[k] = "<date>"
            continue
        if k == "serverAddress":
            out[k] = "<address>"
            continue
        if k in ("resourceRules", "nonResourceRules") and "incomplete" in v and isinstance(x, list):
            # the order in which an authorizer's rules are found is nobody's promise
            out[k] = sorted((walk(i, st) for i in x), key=lambda i: json.dumps(i, sort_keys=True))
            continue
        if k == "cells" and isinstance(x, list):
            out[k] = [cell(c, st) for c in x]
            continue
        old = st.in_list
        st.in_list = is_list and k == "metadata"
        y = walk(x, st, path + (k,))
        st.in_list = old
        if k == "managedFields" and isinstance(y, list) and all(isinstance(i, dict) for i in y):
            y.sort(key=lambda m: (m.get("operation", ""), m.get("manager", ""), m.get("subresource", ""), m.get("apiVersion", "")))
        out[string(k, st) if len(k) > 20 or st.count else k] = y
    return out


State.in_list = False


def cell(c, st):
    if isinstance(c, str):
        if AGE.match(c):
            return "<age>"
        for (kind, value), p in st.seen.items():
            if kind in ("ip", "port"):
                c = re.sub(r"\b%s\b" % re.escape(str(value)), p, c)
    return walk(c, st)


def digest(v):
    return hashlib.sha256(json.dumps(v, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:10]


def strip(v):
    """Without sentences."""
    if isinstance(v, dict):
        return {k: strip(x) for k, x in v.items() if not (k == "description" and isinstance(x, str))}
    return [strip(x) for x in v] if isinstance(v, list) else v


def inline(v, params):
    """References to shared parameters (which are named by a hash of their sentences) become what they refer to."""
    if isinstance(v, dict):
        r = v.get("$ref", "")
        if isinstance(r, str) and r.startswith("#/parameters/"):
            return params.get(r[len("#/parameters/"):], v)
        return {k: inline(x, params) for k, x in v.items()}
    return [inline(x, params) for x in v] if isinstance(v, list) else v


def openapi(doc, full):
    """OpenAPI documents are large: per path and per schema a digest (or, for reading a difference, the thing itself)."""
    out = {}
    if "swagger" in doc:
        doc = dict(doc, paths=inline(doc["paths"], doc.get("parameters", {})))
        doc.pop("parameters", None)
        for ops in doc["paths"].values():
            for o in ops.values():
                params = o if isinstance(o, list) else o.get("parameters", []) if isinstance(o, dict) else []
                params.sort(key=lambda p: (p.get("in", ""), p.get("name", "")))
    size = (lambda x: x) if full else digest
    for k, v in strip(doc).items():
        if k in ("definitions", "securityDefinitions"):
            out.update({"%s %s" % (k, n): size(s) for n, s in v.items()})
        elif k == "components":
            for c, m in v.items():
                out.update({"%s %s" % (c, n): size(s) for n, s in m.items()})
        elif k == "paths":
            if all(isinstance(p, dict) and "serverRelativeURL" in p for p in v.values()):
                out["roots"] = sorted(v)
            else:
                for p, ops in v.items():
                    out.update({"%s %s" % (m, p): size(o) for m, o in ops.items()})
        elif k == "info":
            out[k] = {x: y for x, y in v.items() if x != "version"}
        else:
            out[k] = v
    return out


def about(v, text):
    """Of a discovery document the groups whose name has a text, of an OpenAPI document (made shorter) what has it in its name."""
    for k in ("items", "groups"):
        if isinstance(v.get(k), list):
            return dict(v, **{k: [g for g in v[k] if text in g.get("name", g.get("metadata", {}).get("name", ""))]})
    if "roots" in v:
        return [p for p in v["roots"] if text in p]
    return {k: x for k, x in v.items() if text in k}


def groups(v):
    """The names of a discovery document's groups and versions, as they are ordered."""
    return ["%s: %s" % (g.get("name", g.get("metadata", {}).get("name", "")), " ".join(x["version"] for x in g["versions"]))
            for g in v.get("items", v.get("groups", []))]


def exact(text, st):
    """The text itself, with its order, spaces and escapes: only what the server chose is replaced, and sentences."""
    text = re.sub(r'("(?:message|description)": ?)"(?:[^"\\]|\\.)*"', r'\1"<said>"', text)
    text = re.sub(r'("?resourceVersion"?: ?)"\d+"', r'\1"<rv>"', text)
    text = re.sub(r'("?continue"?: ?)"\w+={0,2}"', r'\1"<continue>"', text)
    text = re.sub(r'(\[|,|: |- )"?\d+m?s"?(?=[],\n])', r'\1"<age>"', text)
    return string(text, st)


def body(ctype, data, st, mode=None, full=False, only=""):
    base = ctype.split(";")[0].strip()
    if not data:
        return None
    if mode == "exact":
        return exact(data.decode("utf-8", "replace"), st)
    try:
        if base.endswith("json") or (base == "text/plain" and data[:1] == b"{"):
            text = data.decode()
            if mode == "stream":
                return [walk(json.loads(l), st) for l in text.splitlines() if l]
            v = json.loads(text)
            if mode == "openapi":
                v = openapi(v, full)
            if only and isinstance(v, dict):
                v = about(v, only)
            if mode == "openapi":
                return v
            if mode == "groups":
                return groups(v)
            if mode == "keys":
                return sorted(v)
            return walk(v, st)
        if base.endswith("protobuf"):
            return walk_pb(wire.pb_envelope(data), st)
        if base.endswith("cbor"):
            return walk(wire.cbor(data), st)
    except (ValueError, IndexError, KeyError) as e:
        return {"unreadable": repr(e)[:200], "bytes": data[:80].hex()}
    text = data.decode("utf-8", "replace")
    if base == "application/yaml":
        return [re.sub(r'(resourceVersion: )"\d+"', r"\1<rv>", string_line(l, st)) for l in without_sentences(text.splitlines())]
    if mode == "text":
        return string(text, st)
    if base == "text/plain":
        return "<text>" if mode != "lines" else sorted(l.split()[0] for l in text.splitlines() if l)
    return {"bytes": len(data)}


def without_sentences(lines):
    """YAML without messages and descriptions, which may go over several lines."""
    deeper = None
    for l in lines:
        indent = len(l) - len(l.lstrip(" "))
        if deeper is not None and (indent > deeper or not l.strip()):
            continue
        deeper = None
        m = re.match(r"(\s*(?:- )?)(message|description):", l)
        if not m:
            yield l
            continue
        deeper = len(m.group(1))
        if "- " in m.group(1):
            yield m.group(1).rstrip()


def string_line(l, st):
    for (kind, value), p in st.seen.items():
        if kind == "ip" and value in l:
            l = re.sub(r"\b%s\b" % re.escape(value), p, l)
    l = ACCESS.sub("kube-api-access-<gen>", l)
    l = UUID.sub(lambda m: m.group(0) if m.group(0) in st.sent else st.place("uid", m.group(0)), l)
    l = TIME.sub(lambda m: m.group(0) if m.group(0) in st.sent else "<time>", l)
    return re.sub(r"^(\s*- )\d+[smhd]$", r"\1<age>", l)  # a table's cell


def walk_pb(v, st):
    if isinstance(v, str):
        if re.fullmatch(r"\d{1,9}", v) and v not in st.sent_values and v != "0":
            return "<digits>"
        if v.count(" ") > 3 and v not in st.sent:
            return "<said>"
        return string(v, st)
    if isinstance(v, int) and abs(v - time.time()) < 10 * 365 * 86400:
        return "<seconds>"
    if isinstance(v, list):
        return [walk_pb(x, st) for x in v]
    if isinstance(v, dict):
        return {k: walk_pb(x, st) for k, x in v.items()}
    return v


def headers(h, st):
    out = {}
    for k in HEADERS:
        v = h.get(k)
        if v is not None:
            out[k] = True if k == "etag" else string(v, st)
    for k in PRESENT:
        if h.get(k) is not None:
            out[k] = True
    n = len(h.get_all("warning") or [])
    if n:
        out["warning"] = n
    for k, v in USUAL.items():
        if out.get(k) == v:
            del out[k]
        elif k not in out:
            out[k] = None
    return out


def answer(status, h, data, st, mode=None, full=False, only=""):
    out = {"code": status}
    hs = headers(h, st)
    if hs:
        out["head"] = hs
    b = body(h.get("content-type") or "", data, st, mode, full, only)
    if len(data) > 60000 and not full and mode is None and not only:
        b = {"digest": digest(b)}
    if b is not None:
        out["body"] = b
    return out


FORK = "openshift-service-ca.crt"


def without_fork(v):
    """The upstream server that answers were recorded from carried patches of a distribution of which two show: a projected source more
    in pods, and a rule more in everyone's rights."""
    if isinstance(v, dict):
        return {k: without_fork(x) for k, x in v.items()}
    if isinstance(v, list):
        v = [x for x in v if x != {"nonResourceURLs": ["/.well-known", "/.well-known/*"], "verbs": ["get"]}]
        return [without_fork(x) for x in v if not (isinstance(x, dict) and FORK in json.dumps(x) and len(json.dumps(x)) < 200)]
    return v


def diff(want, got, path="", out=None, limit=40):
    """Differences as lines "path: want -> got"."""
    out = [] if out is None else out
    if len(out) >= limit:
        return out
    if isinstance(want, dict) and isinstance(got, dict):
        for k in sorted(set(want) | set(got), key=str):
            if k not in want:
                out.append("%s.%s: only here: %s" % (path, k, short(got[k])))
            elif k not in got:
                out.append("%s.%s: missing here: %s" % (path, k, short(want[k])))
            else:
                diff(want[k], got[k], "%s.%s" % (path, k), out, limit)
    elif isinstance(want, list) and isinstance(got, list):
        if len(want) != len(got):
            out.append("%s: %d elements, upstream has %d" % (path, len(got), len(want)))
        for i, (a, b) in enumerate(zip(want, got)):
            diff(a, b, "%s[%d]" % (path, i), out, limit)
        for i in range(len(want), len(got)):
            out.append("%s[%d]: only here: %s" % (path, i, short(got[i])))
        for i in range(len(got), len(want)):
            out.append("%s[%d]: missing here: %s" % (path, i, short(want[i])))
    elif want != got or type(want) is not type(got):
        out.append("%s: %s, upstream %s" % (path, short(got), short(want)))
    return out


def short(v):
    s = json.dumps(v, sort_keys=True)
    return s if len(s) < 300 else s[:300] + "..."
