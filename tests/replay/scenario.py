r"""Scenarios: ordered steps, read from text.

A step is a block of lines, ended by an empty line:

    [EACH name = a | b | c]           the step once for each value ("" is the empty one)
    METHOD path [@option[=value]...]
    + Header: value
    {relaxed: json}                   the body; several lines may follow; or
    | raw line                        lines sent as they are
    > name json.path                  captured from the answer, for $name later

Paths: ~configmaps/a is /api/v1/namespaces/$ns/configmaps/a; ~apps/deployments/x in its group; ^nodes/n and ^rbac/clusterroles/x are
cluster-wide; everything else stands as it is written. $ns is the scenario's own namespace (made before it, unless the file says
"#! no-namespace"). "#! dual-stack": the server has addresses of both families for Services.

Methods beside HTTP's: WATCH path @name=w opens a watch in the background, EVENTS w @n=3 (or @until=DELETED) reads events of it, fewer if no more come,
UNTIL path @field=a."b.c" @is=value asks until a field has a value, @has=TEXT or @lacks=TEXT until the answer has a text or has it no more (nothing of
it is compared). In a scenario with "#! extension", ANSWER path @code=200 @type=T @wait=SECONDS and headers says what the extension (extension.py; at
https://$ext, port $extport, trusted by $extca, as extension.$ns.svc too) answers there, SEEN prefix gives what was asked of it, @own=PATH what servers
asked for themselves, until PATH was asked for. SWITCH path @protocol=P asks for another protocol, sends the body's text and gives what comes back.
BREW path takes its method from the body. RAW words sends raw lines as bytes on a connection of its own (HTTP/1), one behind the other, with
\r \n \t \xHH \\ and \{text*TIMES} in them, and reads @n=1 answers; what it says of a connection is whether the server closes it.
MINT name makes a token of the body's claims, signed with the server's own key for service accounts, as $name; "now+60" in claims is a time.
@alg=none|RS512|... (RS256), @kid=text, @key=FILE of the server's directory, @head={more: of the header}.

Options: @as=user @group=g (impersonation, may be repeated) @cred=none|TOKEN|a certificate of servers.py (admin, node, ...)  @type=merge|strategic|json|apply|yaml|pb|cbor
@base=name (the body is a JSON merge patch over
an object captured before) @accept=table|pom|pomlist|yaml|pb|cbor|MEDIA  @label=text  @mode=openapi|keys|text|lines|stream|code|groups (of discovery, in their order)|exact (bytes)  @only=status (of the body)
@about=TEXT (of discovery: groups whose name has it; of OpenAPI: what has it in its name)  @loose (body is not JSON: sent as
written) @await=403 (asked again until that is the code) @undo (made on every server even where it is not compared)
@audit (with what the audit log says of it: annotations; the log has the requests of some namespaces, servers.py).
"""
import json, os, re

GROUPS = {"apps": "apps/v1", "batch": "batch/v1", "autoscaling": "autoscaling/v2", "autoscaling1": "autoscaling/v1",
          "net": "networking.k8s.io/v1", "rbac": "rbac.authorization.k8s.io/v1", "policy": "policy/v1", "storage": "storage.k8s.io/v1",
          "authn": "authentication.k8s.io/v1", "authz": "authorization.k8s.io/v1", "crd": "apiextensions.k8s.io/v1",
          "admission": "admissionregistration.k8s.io/v1", "coordination": "coordination.k8s.io/v1", "discovery": "discovery.k8s.io/v1",
          "events": "events.k8s.io/v1", "flow": "flowcontrol.apiserver.k8s.io/v1", "node": "node.k8s.io/v1",
          "scheduling": "scheduling.k8s.io/v1", "certs": "certificates.k8s.io/v1", "apireg": "apiregistration.k8s.io/v1",
          "resource": "resource.k8s.io/v1", "ex": "example.com/v1", "ex2": "example.com/v2"}
TYPES = {"merge": "application/merge-patch+json", "strategic": "application/strategic-merge-patch+json", "json": "application/json-patch+json",
         "apply": "application/apply-patch+yaml", "applycbor": "application/apply-patch+cbor", "yaml": "application/yaml",
         "pb": "application/vnd.kubernetes.protobuf", "cbor": "application/cbor"}
ACCEPTS = {"json": "application/json", "table": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
           "tablestrict": "application/json;as=Table;v=v1;g=meta.k8s.io",
           "pom": "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
           "pomlist": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
           "yaml": "application/yaml", "pb": "application/vnd.kubernetes.protobuf", "cbor": "application/cbor",
           "pbtable": "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io",
           "pbpom": "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
           "v2": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "WATCH", "EVENTS", "UNTIL", "BREW", "RAW", "MINT", "ANSWER", "SEEN", "SWITCH")


def unescape(text):
    """Bytes of a RAW step."""
    text = re.sub(r"\\\{(.*?)\*(\d+)\}", lambda m: m.group(1) * int(m.group(2)), text)
    plain = {"r": b"\r", "n": b"\n", "t": b"\t", "\\": b"\\"}
    return b"".join(plain.get(p[1]) or bytes([int(p[2:], 16)]) if p[:1] == "\\" else p.encode()
                    for p in re.split(r"(\\[rnt\\]|\\x[0-9a-f]{2})", text))


class Step:
    __slots__ = ("method", "path", "opts", "groups", "headers", "body", "raw", "captures", "vars", "label", "line")

    def __init__(self, method, path, line=0):
        self.method, self.path, self.line = method, path, line
        self.opts, self.groups, self.headers, self.captures, self.vars = {}, [], [], [], {}
        self.body = self.raw = self.label = None


class Relaxed:
    """JSON with names and plain words unquoted, and commas optional at the end of a line."""

    def __init__(self, text):
        self.s, self.i = text, 0

    def space(self):
        while self.i < len(self.s) and self.s[self.i] in " \t\n\r":
            self.i += 1

    def value(self):
        self.space()
        c = self.s[self.i]
        if c == "{":
            return self.object()
        if c == "[":
            return self.array()
        if c == '"':
            v, self.i = json.decoder.scanstring(self.s, self.i + 1)
            return v
        m = re.compile(r"[^,}\]\n]+").match(self.s, self.i)
        self.i = m.end()
        word = m.group(0).strip()
        if word in ("true", "false", "null"):
            return {"true": True, "false": False, "null": None}[word]
        if re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", word):
            return json.loads(word)
        return word

    def object(self):
        out = {}
        self.i += 1
        while True:
            self.space()
            if self.s[self.i] == "}":
                self.i += 1
                return out
            if self.s[self.i] == '"':
                k, self.i = json.decoder.scanstring(self.s, self.i + 1)
                self.space()
            else:
                m = re.compile(r"[^:\s]+").match(self.s, self.i)
                k, self.i = m.group(0), m.end()
                self.space()
            if self.s[self.i] != ":":
                raise ValueError("no colon after %r in %r" % (k, self.s))
            self.i += 1
            out[k] = self.value()
            self.comma()

    def array(self):
        out = []
        self.i += 1
        while True:
            self.space()
            if self.s[self.i] == "]":
                self.i += 1
                return out
            out.append(self.value())
            self.comma()

    def comma(self):
        self.space()
        if self.s[self.i] == ",":
            self.i += 1


def relaxed(text):
    r = Relaxed(text)
    try:
        v = r.value()
    except (IndexError, AttributeError):
        raise ValueError("a body that does not end: %r" % text)
    r.space()
    if r.i != len(text):
        raise ValueError("more after the body: %r" % text[r.i:])
    return v


def merge(target, patch):
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    out = dict(target) if isinstance(target, dict) else {}
    for k, v in patch.items():
        if v is None:
            out.pop(k, None)
        else:
            out[k] = merge(out.get(k), v)
    return out


def path_of(p):
    if p[:1] not in "~^":
        return p
    ns = "/namespaces/$ns" if p[0] == "~" else ""
    head, slash, rest = p[1:].partition("/")
    if head in GROUPS and slash:
        return "/apis/%s%s/%s" % (GROUPS[head], ns, rest)
    return "/api/v1%s/%s" % (ns, p[1:])


def parse_block(lines, line_no, where):
    values = [{}]
    while lines[0].startswith("EACH "):
        name, _, vals = lines.pop(0)[5:].partition("=")
        vals = [v.strip() for v in vals.split(" | ")]
        values = [dict(d, **{name.strip(): "" if v == '""' else v}) for d in values for v in vals]
    words = lines[0].split()
    if words[0] not in METHODS:
        raise SystemExit("%s:%d: no such method: %s" % (where, line_no, words[0]))
    steps = []
    for vs in values:
        s = Step(words[0], path_of(words[1]), line_no)
        s.vars = vs
        for w in words[2:]:
            if not w.startswith("@"):
                raise SystemExit("%s:%d: what is %r?" % (where, line_no, w))
            k, _, v = w[1:].partition("=")
            if k == "group":
                s.groups.append(v)
            else:
                s.opts[k] = v
        text = []
        raw = []
        for l in lines[1:]:
            if l.startswith("+ "):
                k, _, v = l[2:].partition(":")
                s.headers.append((k.strip(), v.strip()))
            elif l.startswith("> "):
                name, path = l[2:].split()
                s.captures.append((name, path))
            elif l.startswith("|"):
                raw.append(l[2:])
            else:
                text.append(l)
        if raw:
            s.raw = "\n".join(raw)
        elif text:
            s.body = "\n".join(text)
        steps.append(s)
    return steps


def parse(text, where):
    steps, block, start = [], [], 0
    flags = set()
    for no, l in enumerate(text.split("\n") + [""], 1):
        if l.startswith("#!"):
            flags.add(l[2:].strip())
        elif l.startswith("#"):
            continue
        elif l.strip():
            if not block:
                start = no
            block.append(l)
        elif block:
            steps += parse_block(block, start, where)
            block = []
    return steps, flags


class Scenario:
    """name; steps with labels that stay when other steps are added; whether it wants a namespace."""

    def __init__(self, name, steps, flags=()):
        self.name, self.steps, self.flags = name, steps, set(flags)
        seen = {}
        for s in steps:
            if s.label is None:
                path = s.opts.get("label") or re.sub(r"^/apis?/([^/]*\.k8s\.io/|apps/|batch/|policy/|autoscaling/)?v\d\w*/(namespaces/\$ns/)?", "", s.path)
                s.label = "%s %s" % (s.method, path)
                if s.vars:
                    s.label += " " + ",".join("%s" % v for v in s.vars.values())
            n = seen[s.label] = seen.get(s.label, 0) + 1
            if n > 1:
                s.label += " #%d" % n


def load_dir(dir):
    out = []
    for f in sorted(os.listdir(dir)):
        if f.endswith(".txt"):
            with open(os.path.join(dir, f)) as fd:
                steps, flags = parse(fd.read(), f)
            out.append(Scenario(f[:-4], steps, flags))
    return out
