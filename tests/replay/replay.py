#!/usr/bin/env python3
"""The differential test: the same requests to two API servers, the answers normalised and compared.

    replay.py check SERVER [SCENARIO...]            against the recorded answers (answers/), with the known differences (known.txt)
    replay.py compare SERVER SERVER [SCENARIO...]   two servers side by side
    replay.py record SERVER [SCENARIO...]           writes answers/ (from upstream's server)
    replay.py list                                  scenarios and their steps

SERVER is described in servers.py, scenarios in scenario.py. Options: -v shows known differences too, --full keeps OpenAPI documents
whole in compare, --answers DIR other than answers/, --prune takes out of known.txt what is as upstream's now, --step TEXT shows the answers of the steps whose label has TEXT.
"""
import argparse, http.client, json, os, re, socket, sys, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import extension, kinds, normalise, scenario, servers, wire

HERE = os.path.dirname(os.path.abspath(__file__))
EVENT_WAIT = 4.0
RAW_WAIT = 3.0
UNTIL_WAIT = 4.0         # of a server that is tested
UNTIL_WAIT_RECORD = 20.0 # of one that is slow to start with


class Headers(dict):
    """A header may stand more than once: a list of values."""

    def items(self):
        for k, v in super().items():
            for x in v if isinstance(v, list) else [v]:
                yield k, x


class Runner:
    """One scenario on one server."""

    def __init__(self, server, full=False):
        self.server, self.full = server, full
        self.conns = {}
        self.patience = UNTIL_WAIT_RECORD if server.kind == "upstream" else UNTIL_WAIT

    def conn(self, cert):
        if cert not in self.conns:
            self.conns[cert] = self.server.connect(cert)
        return self.conns[cert]

    def subst(self, text, own=False):
        """Variables put in; own: only those that the scenario itself gives a value, not what a server answered."""
        def one(m):
            name = m.group(1) or m.group(2)
            if name not in self.vars or (own and name in self.captured):
                return m.group(0)
            return str(self.vars[name])
        return re.sub(r"\$(?:(\w+)|\{(\w+)\})", one, text)

    def send(self, method, path, data, headers, cert):
        for attempt in (0, 1):
            c = self.conn(cert)
            try:
                c.request(method, path, data, headers)
                r = c.getresponse()
                self.audit_id = r.headers["Audit-Id"]
                return r.status, r.headers, r.read()
            except (http.client.HTTPException, ConnectionError, socket.timeout) as e:
                c.close()
                del self.conns[cert]
                if attempt or isinstance(e, socket.timeout):
                    raise

    def request_of(self, s):
        """method, path, body, headers, certificate of a step; variables put in."""
        local = self.vars
        self.vars = dict(local, **{k: self.subst(v) for k, v in s.vars.items()})
        try:
            path = self.subst(s.path)
            headers = Headers()
            accept = s.opts.get("accept")
            if accept is not None:
                accept = self.subst(accept)
                headers["Accept"] = scenario.ACCEPTS.get(accept, accept)
            data = None
            ctype = s.opts.get("type")
            if ctype is not None:
                ctype = self.subst(ctype)
                headers["Content-Type"] = scenario.TYPES.get(ctype, ctype)
            if s.raw is not None:
                data = self.subst(s.raw).encode()
            elif s.body is not None:
                if "loose" in s.opts:
                    data = self.subst(s.body).encode()
                else:
                    v = scenario.relaxed(self.subst(s.body)) if isinstance(s.body, str) else json.loads(self.subst(json.dumps(s.body)))
                    if "base" in s.opts and "$edit" in v:
                        v = kinds.edit(self.base(s.opts["base"]), *v["$edit"])
                    elif "base" in s.opts:
                        v = scenario.merge(self.base(s.opts["base"]), v)
                    data = b"\xd9\xd9\xf7" + wire.to_cbor(v) if ctype in ("cbor", "applycbor") else json.dumps(v).encode()
            if data is not None:
                headers.setdefault("Content-Type", "application/json")
            self.own(s)
            for k, v in s.headers:
                headers[k] = self.subst(v)
            cred = self.subst(s.opts.get("cred", "admin"))
            cert = cred if cred in servers.CERTS else None
            if cert is None and cred != "none":
                headers["Authorization"] = "Bearer " + cred
            if "as" in s.opts:
                headers["Impersonate-User"] = self.subst(s.opts["as"])
            if s.groups:
                headers["Impersonate-Group"] = [self.subst(g) for g in s.groups]
            return path, data, headers, cert
        finally:
            self.vars = local

    def own(self, s):
        """What the scenario itself sends is its own wherever it comes back."""
        both, self.vars = self.vars, dict(self.vars, **s.vars)
        try:
            self.own_text(s)
        finally:
            self.vars = both

    def own_text(self, s):
        self.state.send(self.subst(self.subst(s.path, True), True))
        text = s.raw or s.body
        if text is None:
            return
        if isinstance(text, str):
            text = self.subst(self.subst(text, True), True)
            self.state.send(text)
            try:
                self.remember(scenario.relaxed(text))
            except ValueError:
                pass  # a body that is malformed on purpose
        else:
            text = self.subst(json.dumps(text), True)
            self.state.send(text)
            self.remember(json.loads(text))

    def base(self, name):
        """A captured object, to be sent again with changes."""
        try:
            return json.loads(self.vars[name])
        except (KeyError, ValueError):
            return {}

    def remember(self, v):
        if isinstance(v, dict):
            for k, x in v.items():
                self.remember(x)
        elif isinstance(v, list):
            for x in v:
                self.remember(x)
        else:
            self.state.sent_values.add(v)
            self.state.sent_values.add(str(v))
            if isinstance(v, str):
                self.state.sent_texts.add(v)

    def capture(self, s, data):
        for name, path in s.captures:
            try:
                v = json.loads(data)
                for p in [] if path == "." else re.findall(r'"[^"]*"|[^.\[\]]+', path):
                    p = p.strip('"')
                    v = v[int(p)] if isinstance(v, list) else v[p]
                self.captured.add(name)
                self.vars[name] = v if isinstance(v, str) else json.dumps(v)
            except (ValueError, KeyError, IndexError, TypeError):
                self.vars[name] = "not-captured"

    def open_watch(self, s):
        path, data, headers, cert = self.request_of(s)
        c = self.server.connect(cert, EVENT_WAIT)
        c.request("GET", path, None, headers)
        r = c.getresponse()
        out = {"code": r.status}
        if r.status != 200:
            out = normalise.answer(r.status, r.headers, r.read(), self.state)
        else:
            h = normalise.headers(r.headers, self.state)
            if h:
                out["head"] = h
        self.watches[s.opts.get("name", "w")] = (c, r)
        return out

    def events(self, s):
        name = s.path
        if name not in self.watches:
            return {"code": 0, "body": "no watch"}
        c, r = self.watches[name]
        out = []
        n = int(s.opts.get("n", "1"))
        last = s.opts.get("until")
        while len(out) < n or last:
            try:
                l = r.readline()
            except (socket.timeout, OSError):
                out.append("<no more>")
                # a response that timed out cannot be read on
                del self.watches[name]
                c.close()
                break
            if not l:
                out.append("<end>")
                break
            e = json.loads(l)
            if e.get("type") == "BOOKMARK" and "k8s.io/initial-events-end" not in str(e):
                continue
            if not out and s.captures:
                self.capture(s, l)
            if e.get("type") == "BOOKMARK":
                e["object"]["metadata"]["resourceVersion"] = "0"
            out.append(normalise.walk(e, self.state))
            if last == e.get("type"):
                break
        return {"code": 200, "body": out}

    def until(self, s):
        end = time.time() + self.patience
        want = s.opts.get("is")
        code = None
        while time.time() < end:
            path, data, headers, cert = self.request_of(s)
            code, h, got = self.send("GET", path, None, headers, cert)
            if "code" in s.opts:
                if str(code) == s.opts["code"]:
                    return {"code": 200}
            elif "has" in s.opts or "lacks" in s.opts:
                if ("has" in s.opts) == (self.subst(s.opts.get("has") or s.opts["lacks"]).encode() in got):
                    return {"code": 200}
            else:
                try:
                    v = json.loads(got)
                    for p in re.findall(r'"[^"]*"|[^.]+', s.opts["field"]):
                        p = p.strip('"')
                        if "=" in p:
                            k, _, x = p.partition("=")
                            v = [i for i in v if str(i.get(k)) == x][0]
                        else:
                            v = v[int(p)] if isinstance(v, list) else v[p]
                    if want is None or str(v) == self.subst(want):
                        self.capture(s, got)
                        return {"code": 200}
                except (ValueError, KeyError, IndexError, TypeError):
                    pass
            time.sleep(0.02)
        return {"code": code, "body": "never"}

    def step(self, s):
        if s.method == "WATCH":
            return self.open_watch(s)
        if s.method == "EVENTS":
            return self.events(s)
        if s.method == "UNTIL":
            return self.until(s)
        if s.method == "ANSWER":
            return self.set_answer(s)
        if s.method == "SEEN":
            return self.seen(s)
        if s.method == "MINT":
            return self.mint(s)
        if s.method == "RAW":
            return self.raw(s)
        if s.method == "SWITCH":
            return self.switch(s)
        path, data, headers, cert = self.request_of(s)
        method = s.method
        if method == "BREW":
            method, data = data.decode(), None
            del headers["Content-Type"]
        end = time.time() + self.patience
        try:
            code, h, got = self.send(method, path, data, headers, cert)
            while "await" in s.opts and str(code) != s.opts["await"] and time.time() < end:
                time.sleep(0.02)
                code, h, got = self.send(method, path, data, headers, cert)
        except (OSError, http.client.HTTPException) as e:
            return {"code": 0, "body": type(e).__name__}
        self.capture(s, got)
        mode = s.opts.get("mode")
        if mode == "code":
            return {"code": code}
        if "only" in s.opts and got[:1] == b"{":
            got = json.dumps(json.loads(got).get(s.opts["only"])).encode()
        out = normalise.answer(code, h, got, self.state, mode, self.full, self.subst(s.opts.get("about", "")))
        if "audit" in s.opts:
            out["audit"] = self.audit()
        return out

    def switch(self, s):
        """SWITCH: an upgrade of the connection; headers as they stand, then what comes back for the body."""
        path, data, headers, cert = self.request_of(s)
        head = {"Host": "replay", "Connection": "Upgrade", "Upgrade": s.opts.get("protocol", "websocket"), **headers}
        head.pop("Content-Type", None)
        c = self.server.connect(cert, EVENT_WAIT)
        c.connect()
        c.sock.sendall(("GET %s HTTP/1.1\r\n%s\r\n" % (path, "".join("%s: %s\r\n" % kv for kv in Headers(head).items()))).encode())
        r = c.response_class(c.sock, method="GET")
        try:
            r.begin()
            out = normalise.answer(r.status, r.headers, b"" if r.status == 101 else r.read(), self.state, s.opts.get("mode"))
            if r.status == 101:
                out["upgrade"] = r.headers["Upgrade"]
                c.sock.sendall(data)
                got = b""
                while len(got) < len(data):
                    more = r.fp.read1(4096) if hasattr(r.fp, "read1") else c.sock.recv(4096)
                    if not more:
                        break
                    got += more
                out["body"] = got.decode("latin-1")
            return out
        except (OSError, http.client.HTTPException) as e:
            return {"code": 0, "body": type(e).__name__}
        finally:
            c.close()

    def raw(self, s):
        """RAW: bytes as they are, and the answers that come back."""
        local = self.vars
        self.vars = dict(local, **{k: self.subst(v) for k, v in s.vars.items()})
        data = scenario.unescape(self.subst(s.raw).replace("\n", ""))
        self.vars = local
        cred = s.opts.get("cred", "admin")
        c = self.server.connect(None if cred == "none" else cred, RAW_WAIT)
        out = []
        try:
            c.connect()
            c.sock.sendall(data)
            head = data.startswith(b"HEAD ")
            for _ in range(int(s.opts.get("n", "1"))):
                r = http.client.HTTPResponse(c.sock, method="HEAD" if head else None)
                r.begin()
                a = normalise.answer(r.status, r.headers, r.read(), self.state, s.opts.get("mode"))
                a["closes"] = r.will_close
                out.append(a)
                if r.will_close:
                    break
        except (OSError, http.client.HTTPException) as e:
            out.append(type(e).__name__)
        c.close()
        return {"code": out[0]["code"] if isinstance(out[0], dict) else 0, "body": out}

    def mint(self, s):
        claims = scenario.relaxed(self.subst(s.body))
        now = int(time.time())

        def times(v):
            if isinstance(v, dict):
                return {k: times(x) for k, x in v.items()}
            m = re.fullmatch(r"now([+-]\d+)?", v) if isinstance(v, str) else None
            return now + int(m.group(1) or 0) if m else v
        head = {"alg": s.opts.get("alg", "RS256")}
        if "kid" in s.opts:
            head["kid"] = self.subst(s.opts["kid"])
        if "head" in s.opts:
            head.update(scenario.relaxed(s.opts["head"]))
        self.captured.add(s.path)
        self.vars[s.path] = self.server.sign(head, times(claims), s.opts.get("key", "sa.key"))
        return {"code": 200}

    def set_answer(self, s):
        """ANSWER: what the extension answers from now on."""
        self.vars.update(s.vars)
        path = self.subst(s.path)
        text = s.raw if s.raw is not None else s.body
        self.own_text(s)
        body = self.subst(text) if s.raw is not None else scenario.relaxed(self.subst(text))
        self.ext.set(path, int(self.subst(s.opts.get("code", "200"))), s.opts.get("type", "application/json"), body, float(s.opts.get("wait", "0")),
                     [(k, self.subst(v)) for k, v in s.headers])
        return {"code": 200}

    def seen(self, s):
        """SEEN: what came to the extension since it was asked last, in the order of paths where several were asked at once."""
        if "own" in s.opts:
            out = self.ext.take_own(s.opts["own"], self.patience)
            key = lambda r: json.dumps([r["path"], r["headers"]], sort_keys=True)
        else:
            out = self.ext.take_seen()
            key = lambda r: (r["path"], r["query"])
        if s.opts.get("mode") == "code":
            return {"code": 200}
        return {"code": 200, "body": [normalise.walk(r, self.state) for r in sorted(out, key=key) if r["path"].startswith(s.path)]}

    def audit(self):
        """What the audit log says of the last request, but why it was allowed; sentences that the server made are none of it."""
        end = time.time() + self.patience
        while time.time() < end:
            for e in self.server.audited():
                if e["auditID"] == self.audit_id:
                    notes = {k: v for k, v in e.get("annotations", {}).items() if not k.startswith(("authorization.k8s.io/", "apiserver.latency.k8s.io/"))}
                    return {k: self.note(v) for k, v in notes.items()}
            time.sleep(0.02)
        return "never"

    def note(self, text):
        if text[:2] in ('[{', '{"'):
            return normalise.walk(json.loads(text), self.state)
        return "<said>" if " " in text and text not in self.state.sent else normalise.walk(text, self.state)

    def must(self, method, path, obj):
        code, h, got = self.send(method, path, json.dumps(obj).encode(), {"Content-Type": "application/json"}, "admin")
        if code not in (200, 201, 409):
            raise SystemExit("replay: %s %s: %d %s" % (method, path, code, got[:300]))

    def run(self, sc):
        """The normalised answers, one a step."""
        ns = "replay-" + re.sub(r"[^a-z0-9]", "-", sc.name)
        self.vars = {"ns": ns, "node": servers.NODE}
        self.state = normalise.State()
        self.watches = {}
        self.captured = set()
        self.state.send(ns)
        self.ext = None
        if "extension" in sc.flags:
            self.ext = extension.Extension(ns)
            self.vars.update(ext="127.0.0.1:%d" % self.ext.port, extport=self.ext.port, extca=self.ext.ca)
            self.state.own(self.ext.port, self.ext.ca)
        if "no-namespace" not in sc.flags:
            self.must("POST", "/api/v1/namespaces", {"metadata": {"name": ns}})
            self.must("POST", "/api/v1/namespaces/%s/serviceaccounts" % ns, {"metadata": {"name": "default"}})
        out = []
        for i, s in enumerate(sc.steps, 1):
            self.state.step = i
            out.append(self.step(s))
        for c, r in self.watches.values():
            c.close()
        if self.ext:
            self.ext.close()
        return out

    def close(self):
        for c in self.conns.values():
            c.close()


def scenarios(names):
    all = scenario.load_dir(os.path.join(HERE, "scenarios")) + kinds.load(os.path.join(HERE, "kinds"))
    if not names:
        return all
    out = [s for s in all if any(s.name == n or re.fullmatch(n.replace("*", ".*"), s.name) for n in names)]
    if not out:
        raise SystemExit("replay: no scenario of that name")
    return out


def canon(a):
    """As it would be after a round trip through the file."""
    return json.loads(json.dumps(a))


def write_answers(dir, sc, answers):
    """One line a step; a body that was answered before is written as the label of the step that had it."""
    bodies = {}
    with open(os.path.join(dir, sc.name + ".jsonl"), "w") as f:
        for s, a in zip(sc.steps, answers):
            text = json.dumps(a.get("body"), sort_keys=True)
            if text in bodies:
                a = {k: v for k, v in a.items() if k != "body"}
                a["same"] = bodies[text]
            elif len(text) > 60:
                bodies[text] = s.label
            f.write(json.dumps([s.label, a], sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n")


def read_answers(dir, sc):
    path = os.path.join(dir, sc.name + ".jsonl")
    if not os.path.exists(path):
        raise SystemExit("replay: %s was never recorded" % sc.name)
    out = {}
    with open(path) as f:
        for l in f:
            label, a = json.loads(l)
            if "same" in a:
                a["body"] = out[a.pop("same")]["body"]
            out[label] = a
    return out


def read_known(path):
    """{(scenario, label): reason}; lines "scenario: label: reason", * for any in a scenario's name or at the end of a label."""
    out = {}
    if os.path.exists(path):
        with open(path) as f:
            for no, l in enumerate(f, 1):
                if l.strip() and not l.startswith("#"):
                    parts = [p.strip() for p in l.split(" :: ")]
                    if len(parts) != 3 or not parts[2]:
                        raise SystemExit("%s:%d: wants: scenario :: step :: reason" % (path, no))
                    out[parts[0], parts[1]] = parts[2]
    return out


def write_known(path, known):
    with open(path) as f:
        head = [l for l in f if l.startswith("#")]
    with open(path, "w") as f:
        f.writelines(head)
        for (sc, label), why in sorted(known.items()):
            f.write("%s :: %s :: %s\n" % (sc, label, why))


def report(sc, s, lines):
    print("DIFFERS %s :: %s" % (sc.name, s.label))
    for l in lines:
        print("    " + l)


def cmd_check(opts):
    known = read_known(os.path.join(HERE, "known.txt"))
    server = servers.Pair(opts.servers[0])
    steps = same = expected = bad = 0
    found = {}
    began = time.time()
    try:
        for sc in opts.scenarios:
            want = read_answers(opts.answers, sc)
            r = Runner(server.of(sc))
            got = r.run(sc)
            r.close()
            for s, g in zip(sc.steps, got):
                steps += 1
                if s.label not in want:
                    bad += 1
                    print("FAILED %s :: %s: no recorded answer" % (sc.name, s.label))
                    continue
                g = canon(g)
                lines = normalise.diff(want[s.label], g)
                key = (sc.name, s.label)
                if lines:
                    found[key] = lines[0]
                if opts.step and opts.step in s.label:
                    print("%s :: %s\n%s" % (sc.name, s.label, json.dumps(g, indent=1, sort_keys=True)))
                if not lines:
                    if key in known and not known[key].startswith("either way: "):
                        bad += 1
                        print("FAILED %s :: %s: a known difference is gone; take it out of known.txt" % key)
                    else:
                        same += 1
                elif key in known:
                    expected += 1
                    if opts.verbose:
                        print("KNOWN (%s)" % known[key])
                        report(sc, s, lines)
                else:
                    bad += 1
                    report(sc, s, lines)
        if not opts.names:
            have = {(sc.name, s.label) for sc in opts.scenarios for s in sc.steps}
            for key in sorted(set(known) - have):
                bad += 1
                print("FAILED %s :: %s: in known.txt, but there is no such step" % key)
    finally:
        if bad and opts.log:
            print(server.log_tail())
        server.close()
    if opts.learn or opts.prune:
        ran = {(sc.name, s.label) for sc in opts.scenarios for s in sc.steps}
        keep = {k: v for k, v in known.items() if k in found or (opts.names and k not in ran)}
        if opts.learn:
            for k, l in found.items():
                keep.setdefault(k, "open: " + l.split(": ", 1)[0])
        write_known(os.path.join(HERE, "known.txt"), keep)
    print("replay: %d steps in %.1f s: %d as upstream, %d known differences, %d others" % (steps, time.time() - began, same, expected, bad))
    print("%d passed, %d failed" % (same + expected, bad))
    return 1 if bad else 0


def cmd_compare(opts):
    a, b = servers.Pair(opts.servers[0]), servers.Pair(opts.servers[1])
    differ = steps = 0
    try:
        for sc in opts.scenarios:
            ra, rb = Runner(a.of(sc), opts.full), Runner(b.of(sc), opts.full)
            ga, gb = ra.run(sc), rb.run(sc)
            for s, x, y in zip(sc.steps, ga, gb):
                steps += 1
                if opts.step and opts.step in s.label:
                    print("%s :: %s\nfirst: %s\nsecond: %s" % (sc.name, s.label, json.dumps(x, indent=1, sort_keys=True),
                                                               json.dumps(y, indent=1, sort_keys=True)))
                lines = normalise.diff(canon(normalise.without_fork(x)), canon(y))
                if lines:
                    differ += 1
                    report(sc, s, lines)
            ra.close()
            rb.close()
    finally:
        a.close()
        b.close()
    print("replay: %d steps, %d differ" % (steps, differ))
    return 1 if differ else 0


def cmd_record(opts):
    os.makedirs(opts.answers, exist_ok=True)
    server = servers.Pair(opts.servers[0])
    try:
        for sc in opts.scenarios:
            r = Runner(server.of(sc), opts.full)
            write_answers(opts.answers, sc, [normalise.without_fork(a) for a in r.run(sc)])
            r.close()
            print("recorded %s: %d steps" % (sc.name, len(sc.steps)), flush=True)
    finally:
        server.close()
    return 0


def main():
    p = argparse.ArgumentParser(usage=__doc__)
    p.add_argument("command", choices=["check", "compare", "record", "list"])
    p.add_argument("rest", nargs="*")
    p.add_argument("-v", "--verbose", action="store_true")
    p.add_argument("--full", action="store_true")
    p.add_argument("--learn", action="store_true", help="check: writes what differs into known.txt, to be given reasons by hand")
    p.add_argument("--prune", action="store_true", help="check: takes out of known.txt what is as upstream now")
    p.add_argument("--log", action="store_true")
    p.add_argument("--answers", default=os.path.join(HERE, "answers"))
    p.add_argument("--step")
    opts = p.parse_intermixed_args()
    n = {"check": 1, "compare": 2, "record": 1, "list": 0}[opts.command]
    opts.servers, opts.names = opts.rest[:n], opts.rest[n:]
    if len(opts.servers) != n:
        p.error("a server is missing")
    opts.scenarios = scenarios(opts.names)
    if opts.command == "list":
        for sc in opts.scenarios:
            print("%-24s %d steps" % (sc.name, len(sc.steps)))
        print("%d steps" % sum(len(sc.steps) for sc in opts.scenarios))
        return 0
    return {"check": cmd_check, "compare": cmd_compare, "record": cmd_record}[opts.command](opts)


if __name__ == "__main__":
    sys.exit(main())
