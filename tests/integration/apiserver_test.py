#!/usr/bin/env python3
"""The API server as a client sees it: a real server on a free port, real HTTPS.

Usage: apiserver_test.py PATH-OF-kube-apiserver. Prints one line a failed check and "N passed, N failed".
"""
import base64, hashlib, http.client, json, os, re, shutil, signal, socket, ssl, subprocess, sys, tempfile, threading, time

from web import Web

EXE = os.path.abspath(sys.argv[1])
passed = failed = 0


def check(what, ok, detail=""):
    global passed, failed
    if ok:
        passed += 1
    else:
        failed += 1
        print("FAILED %s: %s" % (what, str(detail)[:600]))


def equal(what, got, want):
    check(what, got == want, "got %r, want %r" % (got, want))


PATIENCE = 60  # seconds until a condition counts as not met: machines may be busy


class Missed(Exception):
    """A condition that the rest of a test needs did not come."""


def until(what, fn, patience=PATIENCE):
    """Waits until fn() is true; one check. Returns what fn returned."""
    end = time.monotonic() + patience
    while True:
        r = fn()
        if r:
            check(what, True)
            return r
        if time.monotonic() > end:
            break
        time.sleep(0.02)
    check(what, False, "did not happen within %d s; last seen: %r" % (patience, r))
    raise Missed(what)


def end(what, proc, log, sig=signal.SIGTERM):
    """Ends a process of the test. It must still run, and answer SIGTERM with status 0: not so if it leaks, in a build that looks for leaks."""
    alive = proc.poll() is None
    if alive:
        proc.send_signal(sig)
    try:
        proc.wait(60)
    except subprocess.TimeoutExpired:
        proc.kill()
        proc.wait()
    if not alive or proc.returncode != (0 if sig == signal.SIGTERM else -sig):
        with open(log, errors="replace") as f:
            print(f.read()[-6000:])
        check("%s ends well" % what, False, "%s with status %d" % ("ended" if alive else "it had ended", proc.returncode))


class Server:
    """A server in a directory; several share one, with certificates and all, when they have names."""
    more = []
    store = ["--data-dir", "data"]
    patience = 60  # seconds for a start

    def __init__(self, dir, name=""):
        self.dir, self.name = dir, name
        self.proc = None     # while it runs
        self.refused = None  # the status of one that did not start

    def sh(self, *argv):
        subprocess.run(argv, cwd=self.dir, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def cert(self, name, subj, ext):
        with open(os.path.join(self.dir, name + ".ext"), "w") as f:
            f.write(ext)
        self.sh("openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", name + ".key")
        self.sh("openssl", "req", "-new", "-key", name + ".key", "-subj", subj, "-out", name + ".csr")
        self.sh("openssl", "x509", "-req", "-in", name + ".csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
                "-extfile", name + ".ext", "-out", name + ".crt")

    def pki(self):
        self.sh("openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", "ca.key")
        self.sh("openssl", "req", "-x509", "-new", "-key", "ca.key", "-subj", "/CN=ca", "-days", "2", "-out", "ca.crt")
        self.cert("server", "/CN=kube-apiserver", "subjectAltName=IP:127.0.0.1")
        self.cert("admin", "/O=system:masters/CN=admin", "extendedKeyUsage=clientAuth")
        self.cert("manager", "/CN=system:kube-controller-manager", "extendedKeyUsage=clientAuth")
        self.cert("node", "/O=system:nodes/CN=system:node:n1", "extendedKeyUsage=clientAuth")
        self.sh("openssl", "genrsa", "-out", "sa.key", "2048")
        with open(os.path.join(self.dir, "tokens.csv"), "w") as f:
            f.write('alicetoken,alice,1,"dev"\nbobtoken,bob,2\n')

    def start(self):
        port = os.path.join(self.dir, "port" + self.name)
        if os.path.exists(port):
            os.unlink(port)
        self.log = open(self.log_path(), "a")
        self.proc = subprocess.Popen(
            [EXE] + self.store + ["--feature-gates=CBORServingAndStorage=true", "--bind-address", "127.0.0.1", "--secure-port", "0", "--port-file", port, "--tls-cert-file",
             "server.crt", "--tls-private-key-file", "server.key", "--client-ca-file", "ca.crt", "--service-account-signing-key-file",
             "sa.key", "--service-account-key-file", "sa.key", "--token-auth-file", "tokens.csv", "--service-cluster-ip-range",
             "10.0.0.0/24"] + self.more, cwd=self.dir, stdout=self.log, stderr=self.log)
        late = time.monotonic() + self.patience
        while not os.path.exists(port):
            if self.proc.poll() is not None or time.monotonic() > late:
                self.proc.kill()
                self.refused, self.proc = self.proc.wait(), None
                raise SystemExit("the server did not start:\n" + open(self.log_path()).read()[-3000:])
            time.sleep(0.02)
        self.port = int(open(port).read())

    def stop(self, sig=signal.SIGTERM):
        proc, self.proc = self.proc, None
        end("the API server", proc, self.log_path(), sig)
        self.log.close()

    def log_path(self):
        return os.path.join(self.dir, "log" + self.name)


class Client:
    def __init__(self, server, cert=None, token=None, headers=None, timeout=30):
        self.s, self.token, self.extra, self.timeout = server, token, headers or {}, timeout
        self.ctx = ssl.create_default_context(cafile=os.path.join(server.dir, "ca.crt"))
        if cert:
            self.ctx.load_cert_chain(os.path.join(server.dir, cert + ".crt"), os.path.join(server.dir, cert + ".key"))

    def open(self, timeout=None):
        return http.client.HTTPSConnection("127.0.0.1", self.s.port, context=self.ctx, timeout=timeout or self.timeout)

    conn = None

    def raw(self, method, path, body=None, headers=None):
        h = dict(self.extra)
        if self.token:
            h["Authorization"] = "Bearer " + self.token
        h.update(headers or {})
        if self.conn is None or self.conn.port != self.s.port:
            self.conn = self.open()
        try:
            self.conn.request(method, path, body, h)
            r = self.conn.getresponse()
        except (http.client.RemoteDisconnected, ConnectionError, BrokenPipeError):
            # the server was started again
            self.conn = self.open()
            self.conn.request(method, path, body, h)
            r = self.conn.getresponse()
        data = r.read()
        return r.status, r.headers, data

    def call(self, method, path, obj=None, headers=None, ctype="application/json"):
        h = dict(headers or {})
        body = None
        if obj is not None:
            body = obj if isinstance(obj, (str, bytes)) else json.dumps(obj)
            h.setdefault("Content-Type", ctype)
        status, rh, data = self.raw(method, path, body, h)
        try:
            return status, json.loads(data)
        except ValueError:
            return status, data

    def define(self, crd):
        """Creates a CustomResourceDefinition; answers when it is served (or refused)."""
        at = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        st, o = self.post(at, crd)
        end = time.time() + 10
        while st == 201 and time.time() < end:
            o = self.get(at + "/" + crd["metadata"]["name"])[1]
            if any(c["type"] == "Established" and c["status"] == "True" for c in o["status"].get("conditions") or []):
                break
            time.sleep(0.01)
        return st, o

    def get(self, path, **k):
        return self.call("GET", path, **k)

    def post(self, path, obj, **k):
        return self.call("POST", path, obj, **k)

    def put(self, path, obj, **k):
        return self.call("PUT", path, obj, **k)

    def delete(self, path, obj=None, **k):
        return self.call("DELETE", path, obj, **k)

    def patch(self, path, obj, kind="merge", **k):
        t = {"merge": "application/merge-patch+json", "strategic": "application/strategic-merge-patch+json",
             "json": "application/json-patch+json", "apply": "application/apply-patch+yaml"}[kind]
        return self.call("PATCH", path, obj, ctype=t, **k)


CM = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
DEPLOY = "/apis/apps/v1/namespaces/default/deployments"


def cm(name, **data):
    return {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": data}


def pod(name, **spec):
    s = {"containers": [{"name": "c", "image": "busybox"}]}
    s.update(spec)
    return {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name}, "spec": s}


def deployment(name, replicas=1):
    return {"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": name},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"a": name}},
                     "template": {"metadata": {"labels": {"a": name}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}}}


def test_discovery(a):
    for p in ("/healthz", "/livez", "/readyz"):
        equal(p, a.raw("GET", p)[::2], (200, b"ok"))
    check("readyz verbose", b"readyz check passed" in a.raw("GET", "/readyz?verbose")[2])
    equal("healthz/ping", a.raw("GET", "/healthz/ping")[2], b"ok")
    st, v = a.get("/version")
    equal("version", (st, v["major"], v["minor"]), (200, "1", "36"))
    st, d = a.get("/api/v1")
    names = {r["name"]: r for r in d["resources"]}
    check("pods/exec in discovery", "pods/exec" in names and names["pods"]["storageVersionHash"] == "xPOwRZ+Yhw8=",
          names.get("pods"))
    st, d = a.get("/apis", headers={"Accept": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"})
    equal("aggregated discovery", d["kind"], "APIGroupDiscoveryList")
    check("groups", len(d["items"]) >= 18, len(d["items"]))
    v2 = {"Accept": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"}
    st, h, doc = a.raw("GET", "/apis", headers=v2)
    equal("etag: of the document without kind and version, as upstream's", h["ETag"],
          '"%s"' % hashlib.sha512(b"{" + doc.strip()[doc.index(b'"metadata"'):]).hexdigest().upper())
    st2, _, body = a.raw("GET", "/apis", headers=dict(v2, **{"If-None-Match": h["ETag"]}))
    equal("etag of discovery", (st2, body), (304, b""))
    st, h2, text = a.raw("GET", "/apis", headers=dict(v2, **{"User-Agent": "curl/8"}))
    equal("indented for who reads it", (text[:10], json.loads(text), h2["ETag"]), (b'{\n  "kind"', json.loads(doc), h["ETag"]))
    nopeer = lambda: float(re.search(rb"\naggregator_discovery_nopeer_requests_total (\S+)", a.raw("GET", "/metrics")[2]).group(1))
    before = nopeer()
    equal("this server's alone", a.raw("GET", "/apis", headers={"Accept": v2["Accept"] + ";profile=nopeer"})[::2], (200, doc))
    equal("counted", nopeer(), before + 1)
    st, o = a.get("/openapi/v3")
    check("openapi v3", "apis/apps/v1" in o["paths"])
    st, doc = a.get(o["paths"]["api/v1"]["serverRelativeURL"])
    check("openapi v3 of core", "io.k8s.api.core.v1.Pod" in doc["components"]["schemas"])
    equal("unknown group", a.get("/apis/nosuch.io/v1")[0], 404)
    equal("unknown resource", a.get("/api/v1/nosuch")[0], 404)
    st, keys = a.get("/openid/v1/jwks")
    equal("jwks", (st, keys["keys"][0]["kty"]), (200, "RSA"))
    check("metrics", b"apiserver_request_total{" in a.raw("GET", "/metrics")[2])


def test_basics(a):
    st, o = a.post(CM, cm("one", a="b"))
    equal("create", st, 201)
    m = o["metadata"]
    check("create fills metadata", m["uid"] and m["resourceVersion"] and m["creationTimestamp"] and m["namespace"] == "default", m)
    equal("managedFields", [(f["operation"], f["fieldsV1"]) for f in m["managedFields"]], [("Update", {"f:data": {".": {}, "f:a": {}}})])
    st, e = a.post(CM, cm("one"))
    equal("exists", (st, e["reason"], e["message"]), (409, "AlreadyExists", 'configmaps "one" already exists'))
    st, g = a.get(CM + "/one")
    equal("get", (st, g), (200, o))
    st, e = a.get(CM + "/none")
    equal("not found", (st, e["reason"], e["details"], e["message"]),
          (404, "NotFound", {"name": "none", "kind": "configmaps"}, 'configmaps "none" not found'))
    g["data"]["a"] = "c"
    st, u = a.put(CM + "/one", g)
    equal("update", (st, u["data"]), (200, {"a": "c"}))
    st, e = a.put(CM + "/one", g)
    equal("stale update", (st, e["reason"]), (409, "Conflict"))
    st, same = a.put(CM + "/one", u)
    equal("a no-op keeps the version", same["metadata"]["resourceVersion"], u["metadata"]["resourceVersion"])
    st, e = a.put(CM + "/other", u)
    equal("name mismatch", st, 400)
    bad = cm("one")
    bad["metadata"]["uid"] = "x"
    equal("uid precondition", a.put(CM + "/one", bad)[0], 409)
    st, e = a.post(CM, cm("Bad_Name"))
    equal("invalid name", (st, e["reason"], e["details"]["causes"][0]["field"]), (422, "Invalid", "metadata.name"))
    st, e = a.post(CM, {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {}})
    equal("no name", (st, e["details"]["causes"][0]["reason"]), (422, "FieldValueRequired"))
    st, o = a.post(CM, {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"generateName": "gen-"}})
    check("generateName", st == 201 and o["metadata"]["name"].startswith("gen-") and len(o["metadata"]["name"]) == 9, o)
    st, o = a.post(CM + "?dryRun=All", cm("dry"))
    equal("dry run", (st, a.get(CM + "/dry")[0]), (201, 404))
    st, e = a.post(CM + "?dryRun=x", cm("dry"))
    equal("bad dryRun", st, 422)
    st, e = a.post("/api/v1/namespaces/none/configmaps", cm("x"))
    equal("no namespace", (st, e["message"]), (404, 'namespaces "none" not found'))
    st, d = a.delete(CM + "/one")
    equal("delete", (st, d["status"], d["details"]["name"]), (200, "Success", "one"))
    equal("gone", a.get(CM + "/one")[0], 404)
    equal("wrong method", a.call("PUT", CM)[0], 405)
    equal("malformed", a.post(CM, "{not json")[0], 400)
    equal("wrong kind", a.post(CM, pod("x"))[0], 400)
    equal("415", a.call("POST", CM, "x", ctype="text/csv")[0], 415)
    equal("406", a.get(CM, headers={"Accept": "text/csv"})[0], 406)
    st, h, _ = a.raw("POST", CM, json.dumps(dict(cm("w"), bogus=1)), {"Content-Type": "application/json"})
    check("unknown field warns", st == 201 and 'unknown field \\"bogus\\"' in h.get("Warning", ""), h.get("Warning"))
    st, e = a.post(CM + "?fieldValidation=Strict", dict(cm("w2"), bogus=1))
    check("strict", st == 400 and 'unknown field "bogus"' in e["message"], e)
    st, e = a.patch(CM + "/w?fieldValidation=Strict", {"%n%s%s": 1})
    check("a field's name is no format", st == 422 and 'unknown field "%n%s%s"' in e["message"], e)


def test_formats(a):
    a.post(CM, cm("fmt", a="b"))
    st, h, b = a.raw("GET", CM + "/fmt", headers={"Accept": "application/yaml"})
    check("yaml", st == 200 and b"kind: ConfigMap" in b, b)
    st, h, b = a.raw("GET", CM + "/fmt", headers={"Accept": "application/vnd.kubernetes.protobuf"})
    check("protobuf", st == 200 and b.startswith(b"k8s\0"), b)
    st, h, b = a.raw("GET", CM, headers={"Accept": "application/vnd.kubernetes.protobuf"})
    check("protobuf list", b.startswith(b"k8s\0") and b"ConfigMapList" in b)
    st, h, b = a.raw("GET", CM + "/fmt", headers={"Accept": "application/cbor"})
    check("cbor", b[:3] == b"\xd9\xd9\xf7", b[:8])
    st, t = a.get(CM + "/fmt", headers={"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"})
    equal("table", (t["kind"], t["columnDefinitions"][0]["name"], t["rows"][0]["cells"][0]), ("Table", "Name", "fmt"))
    st, t = a.get(CM, headers={"Accept": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"})
    check("partial", t["kind"] == "PartialObjectMetadataList" and "data" not in t["items"][0])
    st, h, b = a.raw("GET", CM + "/fmt?pretty=true")
    check("pretty", b.startswith(b'{\n  "kind": "ConfigMap"'), b[:40])
    body = "kind: ConfigMap\napiVersion: v1\nmetadata: {name: fromyaml}\ndata: {k: v}\n"
    equal("yaml body", a.call("POST", CM, body, ctype="application/yaml")[0], 201)


def test_patches(a):
    a.post(DEPLOY, deployment("p"))
    st, o = a.patch(DEPLOY + "/p", {"spec": {"replicas": 3}})
    equal("merge patch", (st, o["spec"]["replicas"], o["metadata"]["generation"]), (200, 3, 2))
    st, o = a.patch(DEPLOY + "/p", {"spec": {"template": {"spec": {"containers": [{"name": "d", "image": "y"}]}}}}, "strategic")
    equal("strategic merge by name", sorted(c["name"] for c in o["spec"]["template"]["spec"]["containers"]), ["c", "d"])
    st, o = a.patch(DEPLOY + "/p", [{"op": "replace", "path": "/spec/replicas", "value": 4}], "json")
    equal("json patch", (st, o["spec"]["replicas"]), (200, 4))
    st, o = a.patch(DEPLOY + "/p", [{"op": "test", "path": "/spec/replicas", "value": 5}], "json")
    equal("failed test", st, 422)
    st, o = a.patch(DEPLOY + "/p", {"metadata": {"resourceVersion": "1"}})
    equal("patch with a stale version", st, 409)
    st, o = a.patch(DEPLOY + "/p/status", {"status": {"replicas": 2}, "spec": {"replicas": 9}})
    equal("status changes status only", (st, o["status"]["replicas"], o["spec"]["replicas"]), (200, 2, 4))
    st, o = a.patch(DEPLOY + "/p", {"status": {"replicas": 7}})
    equal("main resource keeps status", o["status"]["replicas"], 2)
    st, s = a.get(DEPLOY + "/p/scale")
    equal("scale", (s["kind"], s["spec"]["replicas"], s["status"]["selector"]), ("Scale", 4, "a=p"))
    s["spec"]["replicas"] = 6
    st, s = a.put(DEPLOY + "/p/scale", s)
    equal("put scale", (st, s["spec"]["replicas"]), (200, 6))
    g = a.get(DEPLOY + "/p")[1]
    check("scale raises generation", g["metadata"]["generation"] == 5, g["metadata"]["generation"])
    # server-side apply
    conf = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "ssa"}, "data": {"a": "1"}}
    st, o = a.patch(CM + "/ssa?fieldManager=one", conf, "apply")
    equal("apply creates", (st, o["metadata"]["managedFields"][0]["manager"], o["metadata"]["managedFields"][0]["operation"]),
          (201, "one", "Apply"))
    conf["data"]["a"] = "2"
    st, e = a.patch(CM + "/ssa?fieldManager=two", conf, "apply")
    equal("apply conflict", (st, e["reason"], e["details"]["causes"][0]["reason"], e["details"]["causes"][0]["field"]),
          (409, "Conflict", "FieldManagerConflict", ".data.a"))
    st, o = a.patch(CM + "/ssa?fieldManager=two&force=true", conf, "apply")
    equal("forced", (st, o["data"]["a"]), (200, "2"))
    equal("apply without manager", a.patch(CM + "/ssa", conf, "apply")[0], 422)


def test_times(a):
    """A write that changes nothing does not come to be one by the times of managedFields."""
    sets = "/apis/apps/v1/namespaces/default/statefulsets"
    conf = dict(deployment("times"), kind="StatefulSet")
    conf["spec"].update({"serviceName": "x", "volumeClaimTemplates": [{"metadata": {"name": "v"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1024Mi"}}}}]})
    st, o = a.patch(sets + "/times?fieldManager=m", conf, "apply")
    equal("applied", st, 201)
    a.post(CM, cm("times", a="b"))
    _, c = a.put(CM + "/times", cm("times", a="c"))
    time.sleep(1.1)
    equal("applied again: an atomic list's defaults", a.patch(sets + "/times?fieldManager=m", conf, "apply"), (200, o))
    equal("put again", a.put(CM + "/times", cm("times", a="c")), (200, c))
    st, d = a.put(CM + "/times", cm("times", a="d"))
    check("a change has its time", d["metadata"]["managedFields"][0]["time"] > c["metadata"]["managedFields"][0]["time"], d)
    a.delete(sets + "/times")
    a.delete(CM + "/times")


def test_large(a):
    """What does not fit into the store with its managedFields is kept without."""
    big = {"k%05d" % i + "y" * 94: "A" for i in range(7500)}
    owners = lambda o: len(o["metadata"].get("managedFields", []))
    st, o = a.post(CM + "?dryRun=All", cm("large", **big))
    equal("a dry run fits", (st, owners(o)), (201, 1))
    st, o = a.post(CM, cm("large", **big))
    equal("create", (st, len(o.get("data", [])), owners(o)), (201, 7500, 0))
    st, e = a.patch(CM + "/large?fieldManager=m", dict(cm("large"), data={"a": "b"}), "apply")
    equal("apply is about them", (st, e.get("reason"), e["message"]), (500, None, "etcdserver: request is too large"))
    a.post(CM, cm("larger"))
    st, o = a.put(CM + "/larger", cm("larger", **big))
    equal("update", (st, len(o.get("data", [])), owners(o)), (200, 7500, 0))
    a.post(CM, cm("patched"))
    st, o = a.patch(CM + "/patched", {"data": big})
    equal("patch", (st, len(o.get("data", [])), owners(o)), (200, 7500, 0))
    st, e = a.post(PODS.replace("pods", "podtemplates"), {"metadata": {"name": "large"}, "template": pod("", containers=[
        {"name": "c", "image": "x", "env": [{"name": "E", "value": "x" * 1600000}]}])})
    equal("too large all the same", (st, e["message"]), (500, "etcdserver: request is too large"))
    for name in ("large", "larger", "patched"):
        a.delete(CM + "/" + name)


def read_events(c, path, n, out, headers=None):
    conn = c.open(20)
    conn.request("GET", path, headers=headers or {})
    r = conn.getresponse()
    for _ in range(n):
        line = r.readline()
        if not line:
            break
        out.append(json.loads(line))
    conn.close()


def test_contention(a):
    """Many writers of one object: a patch names no version, so none of them may be told of a conflict."""
    base = "/api/v1/namespaces/contention/configmaps"
    a.post("/api/v1/namespaces", {"metadata": {"name": "contention"}})
    a.post(base, {"metadata": {"name": "m"}})
    codes, start = [], threading.Barrier(16)

    def write(i):
        c = Client(a.s, cert="admin")
        start.wait()
        for k in range(6):
            codes.append(c.patch(base + "/m", {"data": {"k%d-%d" % (i, k): "v"}})[0])
            codes.append(c.call("PATCH", base + "/m?fieldManager=m%d" % i, {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a%d" % i: str(k)}},
                                ctype="application/apply-patch+yaml")[0])

    threads = [threading.Thread(target=write, args=(i,)) for i in range(16)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    equal("every patch and apply got through", sorted(set(codes)), [200])
    m = a.get(base + "/m")[1]
    equal("and nothing was lost", len(m["data"]), 16 * 6 + 16)
    equal("the last of each applier", {m["data"]["a%d" % i] for i in range(16)}, {"5"})
    equal("who has a field each", sum(f["operation"] == "Apply" for f in m["metadata"]["managedFields"]), 16)


def test_delete_race(a):
    """A pod that has no time left is deleted by whoever writes it next: the one who asked for its end is not told that it is gone."""
    base = "/api/v1/namespaces/delete-race/pods"
    a.post("/api/v1/namespaces", {"metadata": {"name": "delete-race"}})
    a.post(base.replace("pods", "serviceaccounts"), {"metadata": {"name": "default"}})
    codes, done = [], threading.Event()

    def write(i):
        c, n = Client(a.s, cert="admin"), 0
        while not done.is_set():
            n += 1
            c.patch(base + "/p/status", {"status": {"message": "%d-%d" % (i, n)}})

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for i in range(60):
        codes.append((a.post(base, {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "x"}]}})[0], "Pod"))
        st, o = a.delete(base + "/p", {"gracePeriodSeconds": 0})
        codes.append((st, o["kind"]))
    done.set()
    for t in threads:
        t.join()
    equal("every deletion got through", sorted(set(codes)), [(200, "Pod"), (201, "Pod")])


def test_lists(a):
    a.post("/api/v1/namespaces", {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "lists"}})
    base = "/api/v1/namespaces/lists/configmaps"
    for i in range(10):
        o = cm("c%d" % i)
        o["metadata"]["labels"] = {"odd": str(i % 2)}
        a.post(base, o)
    st, l = a.get(base + "?limit=4")
    equal("limit", (len(l["items"]), l["metadata"]["remainingItemCount"]), (4, 6))
    check("items carry no kind", "kind" not in l["items"][0])
    rv = l["metadata"]["resourceVersion"]
    names = [i["metadata"]["name"] for i in l["items"]]
    a.delete(base + "/c9")
    while l["metadata"].get("continue"):
        st, l = a.get(base + "?limit=4&continue=" + l["metadata"]["continue"])
        equal("continue keeps the version", l["metadata"]["resourceVersion"], rv)
        names += [i["metadata"]["name"] for i in l["items"]]
    equal("continue sees the first revision", names, ["c%d" % i for i in range(10)])
    equal("labelSelector", len(a.get(base + "?labelSelector=odd%3D1")[1]["items"]), 4)
    equal("fieldSelector", [i["metadata"]["name"] for i in a.get(base + "?fieldSelector=metadata.name%3Dc3")[1]["items"]], ["c3"])
    equal("by a name that is not there", a.get(base + "?fieldSelector=metadata.name%3Dc33")[1]["items"], [])
    equal("by name and label", a.get(base + "?fieldSelector=metadata.name%3Dc3&labelSelector=odd%3D0")[1]["items"], [])
    equal("all namespaces by name", len(a.get("/api/v1/configmaps?fieldSelector=metadata.name%3Dc3")[1]["items"]), 1)
    equal("cluster-scoped by name", [i["metadata"]["name"] for i in a.get("/api/v1/namespaces?fieldSelector=metadata.name%3Dlists")[1]["items"]],
          ["lists"])
    equal("unknown field", a.get(base + "?fieldSelector=spec.x%3D1")[0], 400)
    st, e = a.get(base + "?resourceVersionMatch=Exact")
    equal("match without version", st, 422)
    st, e = a.get(base + "?resourceVersion=999999999")
    equal("too large version", (st, e["details"]["causes"][0]["reason"]), (504, "ResourceVersionTooLarge"))
    # watch: from a version, with a selector that objects enter and leave
    rv = a.get(base)[1]["metadata"]["resourceVersion"]
    ev = []
    t = threading.Thread(target=read_events, args=(a, base + "?watch=true&labelSelector=odd%3D1&resourceVersion=" + rv, 3, ev))
    t.start()
    a.patch(base + "/c0", {"metadata": {"labels": {"odd": "1"}}})
    a.patch(base + "/c0", {"data": {"x": "y"}})
    a.patch(base + "/c0", {"metadata": {"labels": {"odd": "0"}}})
    t.join(20)
    equal("selector transitions", [e["type"] for e in ev], ["ADDED", "MODIFIED", "DELETED"])
    ev = []
    read_events(a, base + "?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true", 10, ev)
    equal("initial events", [e["type"] for e in ev], ["ADDED"] * 9 + ["BOOKMARK"])
    equal("end of initial events", ev[-1]["object"]["metadata"]["annotations"], {"k8s.io/initial-events-end": "true"})
    ev = []
    read_events(a, base + "?watch=true&resourceVersion=1", 1, ev)
    check("old version", ev and (ev[0]["type"] == "ERROR" and ev[0]["object"]["code"] == 410 or ev[0]["type"] == "ADDED"), ev)
    t0 = time.time()
    ev = []
    read_events(a, base + "?watch=true&timeoutSeconds=1&resourceVersion=" + a.get(base)[1]["metadata"]["resourceVersion"], 1, ev)
    check("timeoutSeconds", ev == [] and 0.5 < time.time() - t0 < 5, (ev, time.time() - t0))
    st, l = a.delete(base + "?labelSelector=odd%3D1")
    equal("deletecollection", (st, len(l["items"]), len(a.get(base)[1]["items"])), (200, 4, 5))


def test_deletion(a):
    o = cm("fin")
    o["metadata"]["finalizers"] = ["example.com/x"]
    a.post(CM, o)
    st, d = a.delete(CM + "/fin")
    check("a finalizer holds it", st == 200 and d["metadata"]["deletionTimestamp"], d)
    st, e = a.patch(CM + "/fin", {"metadata": {"finalizers": ["example.com/x", "example.com/y"]}})
    equal("no new finalizers", st, 422)
    st, d = a.patch(CM + "/fin", {"metadata": {"finalizers": None}})
    equal("without it, it goes", (st, a.get(CM + "/fin")[0]), (200, 404))
    a.post(CM, cm("fg"))
    st, d = a.delete(CM + "/fg", {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Foreground"})
    equal("foreground", d["metadata"]["finalizers"], ["foregroundDeletion"])
    equal("bad policy", a.delete(CM + "/fg?propagationPolicy=x")[0], 422)
    a.post(CM, cm("pre"))
    st, e = a.delete(CM + "/pre", {"preconditions": {"uid": "nope"}})
    equal("delete precondition", (st, e["reason"]), (409, "Conflict"))
    # pods end gracefully once they are on a node
    a.post("/api/v1/namespaces/default/serviceaccounts", {"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": "default"}})
    st, p = a.post(PODS, pod("g"))
    equal("pod", (st, p["status"]["phase"], p["status"]["qosClass"], p["spec"]["serviceAccountName"]), (201, "Pending", "BestEffort", "default"))
    check("token volume", any(v["name"].startswith("kube-api-access-") for v in p["spec"]["volumes"]))
    equal("tolerations", len(p["spec"]["tolerations"]), 2)
    st, b = a.post(PODS + "/g/binding", {"kind": "Binding", "apiVersion": "v1", "metadata": {"name": "g"}, "target": {"kind": "Node", "name": "n1"}})
    equal("binding", st, 201)
    equal("bound twice", a.post(PODS + "/g/binding", {"kind": "Binding", "apiVersion": "v1", "metadata": {"name": "g"},
                                                      "target": {"kind": "Node", "name": "n2"}})[0], 409)
    equal("nodeName field", len(a.get(PODS + "?fieldSelector=spec.nodeName%3Dn1")[1]["items"]), 1)
    st, d = a.delete(PODS + "/g")
    equal("graceful", (st, d["metadata"]["deletionGracePeriodSeconds"]), (200, 30))
    st, d = a.delete(PODS + "/g?gracePeriodSeconds=0")
    equal("forced", (st, a.get(PODS + "/g")[0]), (200, 404))
    # namespaces end when their finalizer goes
    ns = "/api/v1/namespaces/ends"
    a.post("/api/v1/namespaces", {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "ends"}})
    st, d = a.delete(ns)
    equal("terminating", (st, d["status"]["phase"]), (200, "Terminating"))
    st, e = a.post(ns + "/configmaps", cm("late"))
    equal("no new content", (st, e["details"]["causes"][0]["reason"]), (403, "NamespaceTerminating"))
    g = a.get(ns)[1]
    g["spec"]["finalizers"] = []
    st, d = a.put(ns + "/finalize", g)
    equal("finalized", (st, a.get(ns)[0]), (200, 404))
    equal("default stays", a.delete("/api/v1/namespaces/default")[0], 403)


def test_access(s, a):
    anon, alice, bob = Client(s), Client(s, token="alicetoken"), Client(s, token="bobtoken")
    st, e = anon.get(CM)
    equal("anonymous", (st, e["message"]), (403, 'configmaps is forbidden: User "system:anonymous" cannot list resource "configmaps" in API '
                                                 'group "" in the namespace "default"'))
    equal("anonymous health", anon.raw("GET", "/livez")[0], 200)
    equal("bad token", Client(s, token="nope").get(CM)[0], 401)
    equal("alice may not", alice.get(CM)[0], 403)
    rb = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings"
    a.post(rb, {"kind": "RoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "dev"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
                "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "dev"}]})
    equal("alice may now", alice.get(CM)[0], 200)
    equal("not elsewhere", alice.get("/api/v1/namespaces/kube-system/configmaps")[0], 403)
    equal("bob still may not", bob.get(CM)[0], 403)
    st, e = alice.post(rb, {"kind": "RoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "esc"},
                            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
                            "subjects": []})
    equal("no RBAC for edit", st, 403)
    a.post("/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles", {
        "kind": "Role", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "rbac"},
        "rules": [{"verbs": ["*"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"],
                   "resourceNames": []}]})
    a.post(rb, {"kind": "RoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "bobrbac"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "rbac"},
                "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "bob"}]})
    st, e = bob.post("/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles", {
        "kind": "Role", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "grab"},
        "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}]})
    check("'*' includes escalate", st == 201, (st, e))
    st, r = a.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", {
        "kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
        "spec": {"user": "x", "groups": ["dev"], "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default"}}})
    equal("SubjectAccessReview", (st, r["status"]["allowed"]), (201, True))
    st, r = alice.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {
        "kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
        "spec": {"resourceAttributes": {"verb": "get", "resource": "nodes"}}})
    equal("SelfSubjectAccessReview", (st, r["status"]["allowed"]), (201, False))
    imp = Client(s, cert="admin", headers={"Impersonate-User": "alice", "Impersonate-Group": "dev"})
    st, r = imp.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", {"kind": "SelfSubjectReview",
                                                                            "apiVersion": "authentication.k8s.io/v1"})
    equal("impersonation", r["status"]["userInfo"]["username"], "alice")
    equal("alice may not impersonate", Client(s, token="alicetoken", headers={"Impersonate-User": "bob"}).get(CM)[0], 403)
    # service account tokens
    st, t = a.post("/api/v1/namespaces/default/serviceaccounts/default/token",
                   {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {"expirationSeconds": 3600}})
    equal("TokenRequest", st, 201)
    tok = t["status"]["token"]
    claims = json.loads(base64.urlsafe_b64decode(tok.split(".")[1] + "=="))
    equal("claims", (claims["sub"], claims["kubernetes.io"]["serviceaccount"]["name"]), ("system:serviceaccount:default:default", "default"))
    sa = Client(s, token=tok)
    st, r = sa.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", {"kind": "SelfSubjectReview",
                                                                           "apiVersion": "authentication.k8s.io/v1"})
    equal("as the service account", (st, r["status"]["userInfo"]["username"]), (201, "system:serviceaccount:default:default"))
    st, r = a.post("/apis/authentication.k8s.io/v1/tokenreviews", {"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1",
                                                                    "spec": {"token": tok}})
    equal("TokenReview", r["status"]["authenticated"], True)
    equal("a forged one", Client(s, token=tok[:-6] + "AAAAAA").get(CM)[0], 401)
    # nodes
    node = Client(s, cert="node")
    st, n = node.post("/api/v1/nodes", {"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n1"}})
    equal("a node makes itself", (st, n["spec"]["taints"][0]["key"]), (201, "node.kubernetes.io/not-ready"))
    equal("and no other", node.post("/api/v1/nodes", {"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n2"}})[0], 403)
    a.post("/api/v1/namespaces/default/secrets", {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "used"}, "stringData": {"a": "b"}})
    equal("a secret nobody uses", node.get("/api/v1/namespaces/default/secrets/used")[0], 403)
    a.post(PODS, pod("u", nodeName="n1", volumes=[{"name": "v", "secret": {"secretName": "used"}}]))
    st, sec = node.get("/api/v1/namespaces/default/secrets/used")
    equal("a secret of its pod", (st, sec.get("data")), (200, {"a": "Yg=="}))


def test_services(a):
    base = "/api/v1/namespaces/default/services"
    st, k = a.get(base + "/kubernetes")
    equal("kubernetes service", k["spec"]["clusterIP"], "10.0.0.1")
    svc = {"kind": "Service", "apiVersion": "v1", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "type": "NodePort"}}
    st, s = a.post(base, svc)
    equal("service", st, 201)
    ip, port = s["spec"]["clusterIP"], s["spec"]["ports"][0]["nodePort"]
    check("addresses", ip.startswith("10.0.0.") and 30000 <= port <= 32767, s["spec"])
    equal("IPAddress", a.get("/apis/networking.k8s.io/v1/ipaddresses/" + ip)[0], 200)
    svc["metadata"]["name"] = "t"
    svc["spec"]["clusterIP"] = ip
    equal("address taken", a.post(base, svc)[0], 422)
    del svc["spec"]["clusterIP"]
    svc["spec"]["ports"][0]["nodePort"] = port
    equal("port taken", a.post(base, svc)[0], 422)
    st, e = a.patch(base + "/s", {"spec": {"clusterIP": "10.0.0.99"}})
    equal("address immutable", st, 422)
    st, o = a.patch(base + "/s", {"spec": {"type": "ClusterIP"}})
    check("to ClusterIP gives the port back", "nodePort" not in o["spec"]["ports"][0], o["spec"])
    equal("and it is free", a.post(base, svc)[0], 201)
    svc["metadata"] = {"name": "ends", "finalizers": ["x.y/z"]}
    del svc["spec"]["ports"][0]["nodePort"]
    st, o = a.post(base, svc)
    a.delete(base + "/ends")
    equal("ended by its status", (a.patch(base + "/ends/status", {"metadata": {"finalizers": None}})[0], a.get(base + "/ends")[0]), (200, 404))
    svc["metadata"] = {"name": "again"}
    svc["spec"].update({"clusterIP": o["spec"]["clusterIP"], "ports": o["spec"]["ports"]})
    equal("what it had is free", a.post(base, svc)[0], 201)
    a.delete(base + "/again")
    return ip, port


def test_service_cidrs(a):
    """Further ranges for Services: given out once a ServiceCIDR is ready, and no longer when it goes."""
    cidrs, svcs = "/apis/networking.k8s.io/v1/servicecidrs", "/api/v1/namespaces/default/services"
    svc = lambda name, **spec: {"kind": "Service", "apiVersion": "v1", "metadata": {"name": name}, "spec": dict(spec, ports=[{"port": 80}])}
    equal("range", a.post(cidrs, {"kind": "ServiceCIDR", "apiVersion": "networking.k8s.io/v1", "metadata": {"name": "more"},
                                  "spec": {"cidrs": ["203.0.113.0/28"]}})[0], 201)
    equal("fine until somebody says otherwise", a.post(svcs + "?dryRun=All", svc("far", clusterIP="203.0.113.5"))[0], 201)
    ready = lambda s: {"status": {"conditions": [{"type": "Ready", "status": s, "reason": "R", "message": "",
                                                  "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}
    equal("judged", a.patch(cidrs + "/more/status", ready("False"))[0], 200)
    equal("not ready", a.post(svcs, svc("far", clusterIP="203.0.113.5"))[0], 422)
    equal("made ready", a.patch(cidrs + "/more/status", ready("True"))[0], 200)
    st, o = a.post(svcs, svc("far", clusterIP="203.0.113.5"))
    equal("an address of it", (st, o.get("spec", {}).get("clusterIP")), (201, "203.0.113.5"))
    equal("taken", a.post(svcs, svc("far2", clusterIP="203.0.113.5"))[0], 422)
    equal("its object", a.get("/apis/networking.k8s.io/v1/ipaddresses/203.0.113.5")[0], 200)
    check("others are of the first range", a.post(svcs, svc("near"))[1]["spec"]["clusterIP"].startswith("10.0.0."))
    equal("outside", a.post(svcs, svc("far3", clusterIP="203.0.113.77"))[0], 422)
    for name in ("far", "near"):
        a.delete(svcs + "/" + name)
    equal("released", a.get("/apis/networking.k8s.io/v1/ipaddresses/203.0.113.5")[0], 404)
    a.patch(cidrs + "/kubernetes/status", ready("False"))
    equal("without the first range", (a.post(svcs, svc("far"))[1]["spec"]["clusterIP"][:10], a.post(svcs, svc("near", clusterIP="10.0.0.200"))[0]),
          ("203.0.113.", 422))
    a.patch(cidrs + "/kubernetes/status", ready("True"))
    check("with it again", a.post(svcs, svc("near"))[1]["spec"]["clusterIP"].startswith("10.0.0."))
    for name in ("far", "near"):
        a.delete(svcs + "/" + name)
    a.delete(cidrs + "/more")


def test_crd(a):
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    st, o = a.define({"kind": "CustomResourceDefinition", "apiVersion": "apiextensions.k8s.io/v1",
                      "metadata": {"name": "things.example.com"},
                      "spec": {"group": "example.com", "scope": "Namespaced",
                               "names": {"plural": "things", "kind": "Thing", "shortNames": ["th"]},
                               "versions": [{"name": "v1", "served": True, "storage": True, "subresources": {"status": {}},
                                             "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                                                 "spec": {"type": "object", "properties": {
                                                     "n": {"type": "integer", "minimum": 1}, "d": {"type": "string", "default": "x"}}},
                                                 "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}}}}]}})
    equal("crd", (st, [c["type"] for c in o["status"]["conditions"] if c["status"] == "True"]), (201, ["NamesAccepted", "Established"]))
    base = "/apis/example.com/v1/namespaces/default/things"
    thing = {"kind": "Thing", "apiVersion": "example.com/v1", "metadata": {"name": "a"}, "spec": {"n": 2, "gone": 1}, "status": {"x": 1}}
    st, t = a.post(base, thing)
    equal("custom resource", (st, t["spec"], t.get("status"), t["metadata"]["generation"]), (201, {"n": 2, "d": "x"}, None, 1))
    st, e = a.post(base, dict(thing, metadata={"name": "b"}, spec={"n": 0}))
    equal("schema", (st, e["details"]["causes"][0]["field"]), (422, "spec.n"))
    st, t = a.patch(base + "/a/status", {"status": {"ok": [1, None]}})
    equal("its status", (st, t["status"]), (200, {"ok": [1, None]}))
    st, d = a.get("/apis/example.com/v1")
    equal("discovery", sorted(r["name"] for r in d["resources"]), ["things", "things/status"])
    a.delete(crds + "/things.example.com")
    end = time.time() + 10
    while a.get(crds + "/things.example.com")[0] != 404 and time.time() < end:
        time.sleep(0.05)
    equal("crd gone", (a.get(crds + "/things.example.com")[0], a.get(base)[0]), (404, 404))


def version(name, props, fields=(), **more):
    return dict({"name": name, "served": True, "storage": name == "v1", "selectableFields": [{"jsonPath": f} for f in fields],
                 "schema": {"openAPIV3Schema": dict({"type": "object", "properties": props}, **more)}})


def test_crd_read(a):
    """What an object looks like depends on the definition as it is now."""
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    crd = {"kind": "CustomResourceDefinition", "apiVersion": "apiextensions.k8s.io/v1", "metadata": {"name": "rows.example.com"},
           "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "rows", "kind": "Row"},
                    "versions": [version("v1", {"a": {"type": "string"}, "b": {"type": "string"}}, [".a"]),
                                 # as upstream: fields of versions that differ take schemas that do
                                 version("v2", {"a": {"type": "string"}, "b": {"type": "string"}, "c": {"type": "string"}}, [".b"])]}}
    equal("crd", a.define(crd)[0], 201)
    v1, v2 = ("/apis/example.com/%s/namespaces/default/rows" % v for v in ("v1", "v2"))
    row = {"kind": "Row", "apiVersion": "example.com/v1"}
    for name, x, y in (("r1", "1", "1"), ("r2", "1", "2"), ("r3", "2", "2")):
        st, o = a.post(v1, dict(row, metadata={"name": name}, a=x, b=y, gone=[1]))
        equal("pruned", (st, o.get("gone")), (201, None))
    names = lambda r: (r[0], [o["metadata"]["name"] for o in r[1].get("items", [])])
    equal("field of v1", names(a.get(v1 + "?fieldSelector=a%3D1")), (200, ["r1", "r2"]))
    equal("field of v2", names(a.get(v2 + "?fieldSelector=b%3D2,metadata.name!%3Dr3")), (200, ["r2"]))
    equal("not of v2", a.get(v2 + "?fieldSelector=a%3D1")[0], 400)
    rv = a.get(v2)[1]["metadata"]["resourceVersion"]
    a.patch(v2 + "/r2", {"b": "9"})       # leaves the selection
    a.patch(v2 + "/r1", {"b": "2"})       # enters it
    a.patch(v2 + "/r3", {"a": "x"})       # stays
    a.delete(v2 + "/r3")
    st, _, data = a.raw("GET", v2 + "?watch=1&timeoutSeconds=1&fieldSelector=b%3D2&resourceVersion=" + rv)
    events = [json.loads(line) for line in data.splitlines()]
    equal("watch by field", [(e["type"], e["object"]["metadata"]["name"], e["object"]["b"]) for e in events],
          [("DELETED", "r2", "2"), ("ADDED", "r1", "2"), ("MODIFIED", "r3", "2"), ("DELETED", "r3", "2")])
    equal("its versions", len({e["object"]["metadata"]["resourceVersion"] for e in events}), 4)
    a.delete(v2 + "?fieldSelector=b%3D9")
    equal("delete by field", names(a.get(v1)), (200, ["r1"]))
    # a default that comes later is there at once, an unknown field of the root where it is preserved
    st, o = a.get(crds + "/rows.example.com")
    o["spec"]["versions"][0] = version("v1", {"a": {"type": "string"}, "c": {"type": "object", "default": {"d": 1}, "properties": {"d": {"type": "integer"}}}}, [".a"],
                                       **{"x-kubernetes-preserve-unknown-fields": True})
    equal("crd", a.put(crds + "/rows.example.com", o)[0], 200)
    v2doc, v3doc = a.get("/openapi/v2")[1]["definitions"], a.get("/openapi/v3/apis/example.com/v1")[1]["components"]["schemas"]
    equal("v2 of an open root has no properties", sorted(v2doc["com.example.v1.Row"]),
          ["type", "x-kubernetes-group-version-kind", "x-kubernetes-selectable-fields"])
    closed = v2doc["com.example.v2.Row"]["properties"]
    check("v2 of a closed one", closed["apiVersion"]["description"].startswith("APIVersion defines") and
          closed["metadata"]["description"].startswith("Standard object's metadata"), closed)
    check("v3 has", "c" in v3doc["com.example.v1.Row"]["properties"])
    equal("default on read", (a.get(v1 + "/r1")[1].get("c"), a.get(v1)[1]["items"][0].get("c")), ({"d": 1}, {"d": 1}))
    st, o = a.post(v1 + "?fieldValidation=Strict", dict(row, metadata={"name": "r4"}, free={"x": [None, 1.5]}, a="q"))
    equal("preserved", (st, o.get("free"), a.get(v1 + "/r4")[1].get("free")), (201, {"x": [None, 1.5]}, {"x": [None, 1.5]}))
    st, o = a.patch(v1 + "/r4", {"free": {"y": 2}, "other": "o"})
    equal("patched", (st, o["free"], o["other"]), (200, {"x": [None, 1.5], "y": 2}, "o"))
    equal("crd", a.delete(crds + "/rows.example.com")[0], 200)


def test_crd_rules(a):
    """x-kubernetes-validations: checked with the definition, evaluated with the object."""
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    rules = "x-kubernetes-validations"

    def crd(props, plural="ruled", **root):
        return {"kind": "CustomResourceDefinition", "apiVersion": "apiextensions.k8s.io/v1", "metadata": {"name": plural + ".example.com"},
                "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": plural, "kind": plural.capitalize()},
                         "versions": [dict(version("v1", props, **root), subresources={"status": {}})]}}

    def rule(text, **more):
        return dict({"rule": text}, **more)

    at = "spec.validation.openAPIV3Schema"
    string, integer = {"type": "string"}, {"type": "integer"}

    def refused(what, want, props, **root):
        st, e = a.post(crds, crd(props, **root))
        equal(what, (st, causes(e)), (422, [(r, at + f) for r, f in want]))

    spec = lambda props, *r, **more: {"spec": dict({"type": "object", "properties": props, rules: list(r)}, **more)}
    invalid, forbidden, required = "FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired"
    where = ".properties[spec].x-kubernetes-validations[0]"
    refused("unknown name", [(invalid, where + ".rule")], spec({"n": integer}, rule("self.m > 1")))
    refused("wrong types", [(invalid, where + ".rule")], spec({"n": integer}, rule("self.n == 'a'")))
    refused("syntax", [(invalid, where + ".rule")], spec({"n": integer}, rule("self.n >")))
    refused("not a bool", [(invalid, where + ".rule")], spec({"n": integer}, rule("self.n")))
    refused("constant", [(invalid, where + ".rule")], spec({"n": integer}, rule("int('x') == self.n")))
    refused("no rule", [(required, where + ".rule")], spec({"n": integer}, rule(" ")))
    refused("line break", [(required, where + ".message")], spec({"n": integer}, rule("self.n >\n 1")))
    refused("message", [(invalid, where + ".message")], spec({"n": integer}, rule("self.n > 1", message="a\nb")))
    refused("message expression", [(invalid, where + ".messageExpression")], spec({"n": integer}, rule("self.n > 1", messageExpression="self.n")))
    refused("reason", [("FieldValueNotSupported", where + ".reason")], spec({"n": integer}, rule("self.n > 1", reason="Odd")))
    refused("field path", [(invalid, where + ".fieldPath")], spec({"n": integer}, rule("self.n > 1", fieldPath=".m")))
    refused("optionalOldSelf", [(invalid, where + ".optionalOldSelf")], spec({"n": integer}, rule("self.n > 1", optionalOldSelf=True)))
    refused("old elements", [(invalid, ".properties[spec].properties[l].items.x-kubernetes-validations[0].rule")],
            spec({"l": {"type": "array", "maxItems": 3, "items": dict(integer, **{rules: [rule("self >= oldSelf")]})}}))
    names = {"type": "array", "items": string}
    refused("too expensive", [(forbidden, where + ".rule"), (forbidden, where + ".rule"), (forbidden, "")],
            spec({"l": names}, rule("self.l.all(x, self.l.all(y, x == y))")))
    each = ".properties[spec].properties[l].items.x-kubernetes-validations[0].rule"
    refused("per element", [(forbidden, each), (forbidden, each), (forbidden, "")],
            spec({"l": {"type": "array", "items": dict(string, **{rules: [rule("self.contains('abc')")]})}}))

    map_list = {"type": "array", "maxItems": 5, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "required": ["k"], "properties": {"k": dict(string, maxLength=10), "v": integer},
                          rules: [rule("self.v >= oldSelf.v", message="only up")]}}
    props = {"spec": {"type": "object", rules: [
        rule("self.min <= self.max", message="min above max", reason=forbidden, fieldPath=".min"),
        rule("!has(self.name) || self.name.startsWith('n')", messageExpression="'bad name ' + self.name"),
        rule("self.max != 77", reason=forbidden, message="%n%s%s is no format"),
        rule("self.port == 80 || self.port == 'http'"),
        rule("self.once == oldSelf.once", message="once is for ever"),
        rule("oldSelf.hasValue() || self.max < 100", optionalOldSelf=True, message="at most 99 at first"),
        rule("self.set.all(x, x in self.l)"),
        rule("!has(self.wait) || self.wait < duration('1h')"),
        rule("self.x__dash__y != 13"),
        rule("!has(self.big) || self.big.all(x, self.big.all(y, self.big.all(z, x + y + z >= 0)))")],
        "properties": {"min": integer, "max": integer, "name": dict(string, maxLength=20), "port": {"x-kubernetes-int-or-string": True},
                       "once": dict(string, maxLength=20), "set": {"type": "array", "maxItems": 5, "x-kubernetes-list-type": "set", "items": integer},
                       "l": {"type": "array", "maxItems": 5, "items": integer}, "wait": dict(string, format="duration"), "m": map_list,
                       "x-y": dict(integer, default=0), "big": {"type": "array", "maxItems": 90, "items": integer},
                       "n": dict(integer, nullable=True, **{rules: [rule("self > 0")]}),
                       "labels": {"type": "object", "maxProperties": 5, "additionalProperties": dict(string, maxLength=5, **{rules: [rule("self != 'no'")]})},
                       "tpl": {"type": "object", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True,
                               rules: [rule("self.kind == 'Pod' && self.metadata.name != ''")]}}},
        "status": {"type": "object", "properties": {"n": integer}, rules: [rule("self.n < 10", reason="FieldValueDuplicate")]}}
    root = {rules: [rule("self.metadata.name.size() < 10", message="name too long")]}
    st, o = a.define(crd(props, **root))
    equal("crd", (st, causes(o)), (201, []))
    base = "/apis/example.com/v1/namespaces/default/ruled"
    good = {"min": 1, "max": 2, "port": 80, "once": "a", "set": [1, 2], "l": [2, 1], "m": [{"k": "a", "v": 1}, {"k": "b", "v": 5}]}
    thing = lambda called="r", **more: {"kind": "Ruled", "apiVersion": "example.com/v1", "metadata": {"name": called}, "spec": dict(good, **more)}
    bad = lambda what, want, **more: equal(what, (lambda r: (r[0], causes(r[1])))(a.post(base, thing("bad", **more))), (422, want))
    bad("min", [(forbidden, "spec.min")], min=3)
    bad("at first", [(invalid, "spec")], max=100)
    bad("port", [(invalid, "spec")], port="x")
    bad("set", [(invalid, "spec")], set=[9])
    bad("duration", [(invalid, "spec")], wait="2h")
    bad("escaped", [(invalid, "spec")], **{"x-y": 13})
    bad("value", [(invalid, "spec.n")], n=0)
    bad("map value", [(invalid, "spec.labels[b]")], labels={"a": "yes", "b": "no"})
    bad("embedded", [(invalid, "spec.tpl")], tpl={"apiVersion": "v1", "kind": "Node", "metadata": {"name": "x"}, "spec": {"a": 1}})
    bad("shape first", [("FieldValueTypeInvalid", "spec.min"), (invalid, "<nil>")], min="x")
    bad("budget", [(invalid, "spec")], big=list(range(90)))
    st, e = a.post(base, thing("bad", name="x"))
    equal("message expression", (st, "bad name x" in e["message"]), (422, True))
    st, e = a.post(base, thing("bad", max=77))
    equal("a message is no format", (st, causes(e), "%n%s%s is no format" in e["message"]), (422, [(forbidden, "spec")], True))
    st, e = a.post(base, thing("a-name-too-long"))
    equal("root", (st, causes(e), "name too long" in e["message"]), (422, [(invalid, "<nil>")], True))
    st, o = a.post(base, thing(n=None, wait="5m", labels={"a": "b"}, tpl={"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}))
    equal("good", (st, causes(o)), (201, []))
    change = lambda patch, path=base + "/r": (lambda r: (r[0], causes(r[1])))(a.patch(path, patch))
    equal("transition", change({"spec": {"once": "b"}}), (422, [(invalid, "spec")]))
    equal("later", change({"spec": {"max": 100}})[0], 200)
    equal("elements by key", change({"spec": {"m": [{"k": "b", "v": 4}, {"k": "c", "v": 0}]}}), (422, [(invalid, "spec.m[0]")]))
    equal("elements by key", change({"spec": {"m": [{"k": "c", "v": 0}, {"k": "b", "v": 6}]}})[0], 200)
    equal("status", change({"status": {"n": 10}}, base + "/r/status"), (422, [("FieldValueDuplicate", "status")]))
    equal("status", change({"status": {"n": 9}}, base + "/r/status")[0], 200)
    # what did not change is not judged again (ratcheting)
    st, o = a.get(crds + "/ruled.example.com")
    o["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["l"][rules] = [rule("self.size() > 7")]
    o["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["max"][rules] = [rule("self == 100")]
    equal("stricter", a.put(crds + "/ruled.example.com", o)[0], 200)
    st, headers, _ = a.raw("PATCH", base + "/r", json.dumps({"spec": {"min": 2}}), {"content-type": "application/merge-patch+json"})
    equal("ratcheted", (st, "failed rule" in str(headers)), (200, True))
    equal("changed", change({"spec": {"l": [1, 2, 3]}}), (422, [(invalid, "spec.l")]))
    equal("crd", a.delete(crds + "/ruled.example.com")[0], 200)


def test_event_fields(a):
    ev = {"kind": "Event", "apiVersion": "v1", "metadata": {"name": "e1"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
          "reason": "R", "reportingComponent": "me", "reportingInstance": "i", "action": "A", "type": "Normal"}
    equal("event", a.post("/api/v1/namespaces/default/events", ev)[0], 201)
    base = "/apis/events.k8s.io/v1/namespaces/default/events?fieldSelector="
    n = lambda f: (lambda r: (r[0], len(r[1].get("items", []))))(a.get(base + f))
    equal("reportingController", (n("reportingController%3Dme"), n("reportingController%3Dyou")), ((200, 1), (200, 0)))
    equal("regarding", (n("regarding.kind%3DPod,regarding.name%3Dp"), n("involvedObject.name%3Dp")), ((200, 1), (400, 0)))


def causes(e):
    return [(c["reason"], c["field"]) for c in e.get("details", {}).get("causes", [])]


def test_admission(a):
    a.post("/api/v1/namespaces", {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "adm"}})
    ns = "/api/v1/namespaces/adm/"
    a.post(ns + "serviceaccounts", {"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": "default"}})
    a.post(ns + "limitranges", {"kind": "LimitRange", "apiVersion": "v1", "metadata": {"name": "l"}, "spec": {"limits": [
        {"type": "Container", "default": {"cpu": "200m"}, "defaultRequest": {"cpu": "100m"}, "max": {"cpu": "1"}}]}})
    st, p = a.post(ns + "pods", pod("l1"))
    equal("limit defaults", p["spec"]["containers"][0].get("resources"), {"limits": {"cpu": "200m"}, "requests": {"cpu": "100m"}})
    equal("qos follows", p["status"]["qosClass"], "Burstable")
    st, e = a.post(ns + "pods", pod("l2", containers=[{"name": "c", "image": "x", "resources": {"limits": {"cpu": "2"}}}]))
    equal("over the maximum", (st, e["message"]), (403, 'pods "l2" is forbidden: maximum cpu usage per Container is 1, but limit is 2'))
    a.post(ns + "resourcequotas", {"kind": "ResourceQuota", "apiVersion": "v1", "metadata": {"name": "q"},
                                   "spec": {"hard": {"pods": "2", "count/deployments.apps": "1"}}})
    # What a controller manager would say; until then a quota limits nothing.
    st, q = a.get(ns + "resourcequotas/q")
    q["status"] = {"hard": q["spec"]["hard"], "used": {"pods": "1"}}
    a.put(ns + "resourcequotas/q/status", q)
    d = "/apis/apps/v1/namespaces/adm/deployments"
    equal("nobody has counted", (a.post(d, deployment("a"))[1]["message"]),
          'deployments.apps "a" is forbidden: status unknown for quota: q, resources: count/deployments.apps')
    a.patch(ns + "resourcequotas/q/status", {"status": {"used": {"count/deployments.apps": "0"}}})
    equal("within the quota, dry", a.post(ns + "pods?dryRun=All", pod("l3"))[0], 201)
    equal("within the quota", a.post(ns + "pods", pod("l3"))[0], 201)
    st, e = a.post(ns + "pods", pod("l4"))
    equal("over the quota", (st, e["message"]),
          (403, 'pods "l4" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2'))
    equal("status of the quota", a.get(ns + "resourcequotas/q")[1]["status"],
          {"hard": {"count/deployments.apps": "1", "pods": "2"}, "used": {"count/deployments.apps": "0", "pods": "2"}})
    equal("object count", (a.post(d, deployment("a"))[0], a.post(d, deployment("b"))[0]), (201, 403))
    a.patch("/api/v1/namespaces/adm", {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}})
    a.delete(ns + "resourcequotas/q")
    st, e = a.post(ns + "pods", pod("s1"))
    check("restricted", st == 403 and 'violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container "c" must set '
          'securityContext.allowPrivilegeEscalation=false)' in e["message"], e)
    st, e = a.post(ns + "pods", pod("s2", containers=[{"name": "c", "image": "x", "securityContext": {
        "allowPrivilegeEscalation": False, "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}}]))
    equal("and within it", st, 201)
    for label, value, why in (("enforce", "odd", "must be one of privileged, baseline, restricted"), ("warn-version", "v1", 'must be "latest" or "v1.x"'),
                              ("audit-version", "v1.01", 'must be "latest" or "v1.x"')):
        key = "pod-security.kubernetes.io/" + label
        st, e = a.patch("/api/v1/namespaces/adm", {"metadata": {"labels": {key: value}}})
        equal("label " + label, (st, e["message"]), (422, 'Namespace "adm" is invalid: metadata.labels[%s]: Invalid value: "%s": %s' % (key, value, why)))
    a.patch("/api/v1/namespaces/adm", {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline",
                                                               "pod-security.kubernetes.io/enforce-version": "v1.24"}}})
    st, e = a.post(ns + "pods", pod("s3", hostNetwork=True))
    check("version of the label", st == 403 and 'violates PodSecurity "baseline:v1.24": host namespaces (hostNetwork=true)' in e["message"], e)
    for what, sc, psc, why in (
            ("AppArmor", {"appArmorProfile": {"type": "Unconfined"}}, {},
             'forbidden AppArmor profile (container "c" must not set AppArmor profile type to "Unconfined")'),
            ("AppArmor of the pod", {}, {"appArmorProfile": {"type": "Unconfined"}}, 'forbidden AppArmor profile (pod must not set AppArmor profile type to "Unconfined")'),
            ("SELinux", {"seLinuxOptions": {"type": "spc_t", "user": "u"}}, {"seLinuxOptions": {"role": "r"}},
             'seLinuxOptions (pod and container "c" set forbidden securityContext.seLinuxOptions: type "spc_t"; user may not be set; role may not be set)')):
        st, e = a.post(ns + "pods", pod("s4", containers=[{"name": "c", "image": "x", "securityContext": sc}], securityContext=psc))
        equal(what, (st, e["message"]), (403, 'pods "s4" is forbidden: violates PodSecurity "baseline:v1.24": ' + why))
    equal("allowed profiles", a.post(ns + "pods?dryRun=All", pod("s4", containers=[{"name": "c", "image": "x", "securityContext": {
        "appArmorProfile": {"type": "RuntimeDefault"}, "seLinuxOptions": {"type": "container_t", "level": "s0"}}}]))[0], 201)
    st, h, body = a.raw("POST", ns.replace("/api/v1/", "/apis/apps/v1/") + "deployments?dryRun=All", json.dumps(dict(deployment("c"), spec=dict(
        deployment("c")["spec"], template=dict(deployment("c")["spec"]["template"], spec=dict(deployment("c")["spec"]["template"]["spec"], hostPID=True))))),
        {"Content-Type": "application/json"})
    check("templates are warned of what pods are refused for", st == 201 and 'would violate PodSecurity \\"baseline:v1.24\\": host namespaces (hostPID=true)' in (
        h["Warning"] or ""), (st, h["Warning"], body[:500]))
    # priorities
    st, e = a.post(PODS, pod("prio", priorityClassName="none"))
    equal("unknown priority class", st, 403)
    st, p = a.post(PODS, pod("prio", priorityClassName="system-node-critical"))
    equal("priority", p["spec"].get("priority"), 2000001000)


def test_validation(a):
    st, e = a.post(PODS, pod("v", containers=[]))
    equal("containers", (st, causes(e)), (422, [("FieldValueRequired", "spec.containers")]))
    st, e = a.post(PODS, pod("v", containers=[{"name": "A", "image": "x"}, {"name": "b"}]))
    equal("names and images", (st, sorted(causes(e))), (422, [("FieldValueInvalid", "spec.containers[0].name"),
                                                              ("FieldValueRequired", "spec.containers[1].image")]))
    st, e = a.post(PODS, pod("v", containers=[{"name": "a", "image": "x", "volumeMounts": [{"name": "no", "mountPath": "/a"}]}]))
    equal("mounts", causes(e), [("FieldValueNotFound", "spec.containers[0].volumeMounts[0].name")])
    a.post(PODS, pod("im"))
    st, o = a.patch(PODS + "/im", {"spec": {"containers": [{"name": "c", "image": "y"}]}}, "strategic")
    equal("image may change", (st, o["spec"]["containers"][0]["image"]), (200, "y"))
    st, e = a.patch(PODS + "/im", {"spec": {"hostNetwork": True}})
    equal("the rest may not", (st, causes(e)), (422, [("FieldValueForbidden", "spec")]))
    d = deployment("val")
    d["spec"]["template"]["metadata"]["labels"] = {"x": "y"}
    st, e = a.post(DEPLOY, d)
    equal("selector must match", (st, causes(e)), (422, [("FieldValueInvalid", "spec.template.metadata.labels")]))
    a.post(DEPLOY, deployment("val"))
    st, e = a.patch(DEPLOY + "/val", {"spec": {"selector": {"matchLabels": {"b": "c"}}, "template": {"metadata": {"labels": {"b": "c"}}}}})
    equal("selector is immutable", (st, causes(e)), (422, [("FieldValueInvalid", "spec.selector")]))
    j = {"kind": "Job", "apiVersion": "batch/v1", "metadata": {"name": "j"},
         "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}}}}
    jobs = "/apis/batch/v1/namespaces/default/jobs"
    st, o = a.post(jobs, j)
    check("job selector", st == 201 and o["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"] == o["metadata"]["uid"], o)
    j["metadata"]["name"] = "j2"
    j["spec"]["template"]["spec"]["restartPolicy"] = "Always"
    st, e = a.post(jobs, j)
    equal("job restart policy", (st, causes(e)), (422, [("FieldValueRequired", "spec.template.spec.restartPolicy")]))
    equal("events are kept", a.post("/api/v1/namespaces/default/events", {
        "kind": "Event", "apiVersion": "v1", "metadata": {"name": "e"}, "involvedObject": {"namespace": "default", "kind": "Pod", "name": "im"},
        "reason": "R", "type": "Normal"})[0], 201)
    st, ev = a.get("/apis/events.k8s.io/v1/namespaces/default/events/e")
    equal("as events.k8s.io", (st, ev.get("regarding", {}).get("name")), (200, "im"))
    h = {"kind": "HorizontalPodAutoscaler", "apiVersion": "autoscaling/v1", "metadata": {"name": "h"},
         "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "val", "apiVersion": "apps/v1"}, "maxReplicas": 3,
                  "targetCPUUtilizationPercentage": 50}}
    equal("hpa v1", a.post("/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers", h)[0], 201)
    st, o = a.get("/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers/h")
    equal("hpa v2", o["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 50)
    # zone and region of the node
    a.post("/api/v1/nodes", {"kind": "Node", "apiVersion": "v1", "metadata": {"name": "nz", "labels": {"topology.kubernetes.io/zone": "z1"}}})
    a.post(PODS, pod("zoned"))
    a.post(PODS + "/zoned/binding", {"kind": "Binding", "apiVersion": "v1", "metadata": {"name": "zoned"}, "target": {"kind": "Node", "name": "nz"}})
    equal("labels by binding", a.get(PODS + "/zoned")[1]["metadata"].get("labels"), {"topology.kubernetes.io/zone": "z1"})
    st, o = a.post(PODS, pod("zoned2", nodeName="nz"))
    equal("labels at create", o["metadata"].get("labels"), {"topology.kubernetes.io/zone": "z1"})
    # eviction and its budget
    p = pod("ev", nodeName="n1")
    p["metadata"]["labels"] = {"ev": "yes"}
    a.post(PODS, p)
    a.patch(PODS + "/ev/status", {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}})
    a.post("/apis/policy/v1/namespaces/default/poddisruptionbudgets", {
        "kind": "PodDisruptionBudget", "apiVersion": "policy/v1", "metadata": {"name": "b"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"ev": "yes"}}}})
    evict = {"kind": "Eviction", "apiVersion": "policy/v1", "metadata": {"name": "ev"}}
    st, e = a.post(PODS + "/ev/eviction", evict)
    equal("budget", (st, e["reason"]), (429, "TooManyRequests"))
    a.delete("/apis/policy/v1/namespaces/default/poddisruptionbudgets/b")
    equal("eviction", a.post(PODS + "/ev/eviction", evict)[0], 201)


class Extension:
    """A webhook that sets data.hooked and refuses data.bad, and an aggregated API server."""

    def __init__(self):
        self.seen = []

    def convert(self, rq):
        out = []
        for o in rq["objects"]:
            if rq["desiredAPIVersion"].endswith("/v2"):
                o["spec"]["num"] = o["spec"].pop("n")
            else:
                o["spec"]["n"] = o["spec"].pop("num")
            out.append(dict(o, apiVersion=rq["desiredAPIVersion"]))
        return {"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1",
                "response": {"uid": rq["uid"], "result": {"status": "Success"}, "convertedObjects": out}}

    def review(self, path, rq):
        self.seen.append(rq)
        r = {"uid": rq["uid"], "allowed": True}
        data = (rq.get("object") or {}).get("data") or {}
        if path.startswith("/mutate"):
            r["patchType"] = "JSONPatch"
            r["patch"] = base64.b64encode(json.dumps([{"op": "add", "path": "/data/hooked", "value": "yes"}]).encode()).decode()
        elif "bad" in data or rq["operation"] == "CONNECT":
            r["allowed"] = False
            r["status"] = {"message": "bad data", "code": 422}
        return {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": r}

    def __call__(self, rq):
        if rq.command == "POST":
            request = json.loads(rq.body)["request"]
            self.by = rq.headers.get("X-Remote-User"), rq.headers.get_all("X-Remote-Group"), rq.headers.get("Authorization")
            return self.convert(request) if rq.path.startswith("/convert") else self.review(rq.path, request)
        if rq.path.startswith("/apis/agg.example.com/v1/namespaces"):
            return {"user": rq.headers.get("X-Remote-User"), "groups": rq.headers.get_all("X-Remote-Group"), "path": rq.path}
        if rq.path == "/openapi/v3":
            return {"paths": {"version": {"serverRelativeURL": "/openapi/v3/version?hash=REMOTE"},
                              "apis/agg.example.com/v1": {"serverRelativeURL": "/openapi/v3/apis/agg.example.com/v1?hash=A"}}}
        if rq.path.startswith("/openapi/v3/"):
            return {"openapi": "3.0.0", "of": rq.path, "for": rq.headers.get("X-Remote-User")}
        if rq.path.startswith("/apis/agg.example.com/v1"):
            return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "agg.example.com/v1", "resources": [
                {"name": "widgets", "singularName": "widget", "namespaced": True, "kind": "Widget", "verbs": ["get", "list"]}]}
        return 404, {"kind": "Status"}


def own_address():
    """An IPv4 address of this machine that an endpoint may have: loopback ones are not allowed there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as u:
        u.connect(("198.51.100.1", 9))  # nothing is sent: the route tells the address
        return u.getsockname()[0]


def test_extensions(s, a):
    ext = Extension()
    web = Web(ext, s, "ext", "DNS:ext.default.svc,IP:127.0.0.1", host="")
    port, ca = web.port, web.ca
    rules = [{"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "scope": "*"}]
    reg = "/apis/admissionregistration.k8s.io/v1/"
    hook = {"name": "h.example.com", "rules": rules, "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Fail",
            "objectSelector": {"matchLabels": {"hook": "me"}}}
    # the mutating one by Service, the validating one by URL
    a.post("/api/v1/namespaces/default/services", {"kind": "Service", "apiVersion": "v1", "metadata": {"name": "ext"},
                                                   "spec": {"ports": [{"name": "https", "port": 443}]}})
    a.post("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", {
        "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": "IPv4",
        "metadata": {"name": "ext", "labels": {"kubernetes.io/service-name": "ext"}},
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}], "endpoints": [{"addresses": [own_address()], "conditions": {"ready": True}}]})
    st, e = a.post(reg + "mutatingwebhookconfigurations", {
        "kind": "MutatingWebhookConfiguration", "apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": "m"},
        "webhooks": [dict(hook, clientConfig={"service": {"namespace": "default", "name": "ext", "path": "/mutate"}, "caBundle": ca})]})
    equal("mutating configuration", st, 201)
    st, e = a.post(reg + "validatingwebhookconfigurations", {
        "kind": "ValidatingWebhookConfiguration", "apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": "v"},
        "webhooks": [dict(hook, clientConfig={"url": "https://127.0.0.1:%d/validate" % port, "caBundle": ca})]})
    equal("validating configuration", st, 201)
    o = cm("hooked", a="b")
    st, r = a.post(CM, o)
    equal("objectSelector leaves others alone", (st, r["data"]), (201, {"a": "b"}))
    o = cm("hooked2", a="b")
    o["metadata"]["labels"] = {"hook": "me"}
    st, r = a.post(CM, o)
    equal("mutated", (st, r.get("data")), (201, {"a": "b", "hooked": "yes"}))
    equal("what it was told", (ext.seen[0]["operation"], ext.seen[0]["kind"]["kind"], ext.seen[0]["userInfo"]["username"]),
          ("CREATE", "ConfigMap", "admin"))
    st, e = a.patch(CM + "/hooked2", {"data": {"bad": "1"}})
    equal("denied", (st, e["message"]), (422, 'admission webhook "h.example.com" denied the request: bad data'))
    # a connect: the webhook is shown its options
    st, e = a.post(reg + "validatingwebhookconfigurations", {
        "kind": "ValidatingWebhookConfiguration", "apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": "c"},
        "webhooks": [dict(hook, objectSelector={}, clientConfig={"url": "https://127.0.0.1:%d/validate" % port, "caBundle": ca},
                          rules=[dict(rules[0], operations=["CONNECT"], resources=["pods/attach", "pods/exec"])])]})
    equal("connect configuration", st, 201)
    a.post(PODS, pod("connected", nodeName="nowhere"))
    ext.seen.clear()
    st, e = a.post(PODS + "/connected/exec?command=a&command=b%20c&stdin=true&container=c", None)
    equal("connect denied", (st, e.get("message")), (422, 'admission webhook "h.example.com" denied the request: bad data'))
    equal("its options", (ext.seen[0]["kind"], ext.seen[0]["subResource"], ext.seen[0]["object"]),
          ({"group": "", "version": "v1", "kind": "PodExecOptions"}, "exec",
           {"kind": "PodExecOptions", "apiVersion": "v1", "stdin": True, "container": "c", "command": ["a", "b c"]}))
    a.delete(reg + "validatingwebhookconfigurations/c")
    a.delete(PODS + "/connected?gracePeriodSeconds=0")
    # aggregation
    aps = "/apis/apiregistration.k8s.io/v1/apiservices"
    equal("local APIServices", a.get(aps + "/v1.apps")[1]["status"]["conditions"][0]["reason"], "Local")
    st, e = a.post(aps, {"kind": "APIService", "apiVersion": "apiregistration.k8s.io/v1", "metadata": {"name": "v1.agg.example.com"},
                         "spec": {"group": "agg.example.com", "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 10,
                                  "service": {"namespace": "default", "name": "ext"}, "caBundle": ca}})
    equal("APIService", st, 201)
    end = time.time() + 15
    while time.time() < end:
        c = a.get(aps + "/v1.agg.example.com")[1].get("status", {}).get("conditions", [{}])
        if c[0].get("status") == "True":
            break
        time.sleep(0.1)
    equal("available", c[0].get("reason"), "Passed")
    st, r = a.get("/apis/agg.example.com/v1/namespaces/x/widgets?a=b")
    equal("proxied with the user", (st, r.get("user"), "system:masters" in (r.get("groups") or []), r.get("path")),
          (200, "admin", True, "/apis/agg.example.com/v1/namespaces/x/widgets?a=b"))
    # a webhook that is an aggregated API is asked by this server itself
    st, e = a.post(reg + "validatingwebhookconfigurations", {
        "kind": "ValidatingWebhookConfiguration", "apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": "own"}, "webhooks": [{
            "name": "own.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 5,
            "objectSelector": {"matchLabels": {"own": "yes"}},
            "clientConfig": {"service": {"namespace": "default", "name": "kubernetes", "path": "/apis/agg.example.com/v1/reviews"}},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]}]})
    equal("own webhook", st, 201)
    st, e = a.post(CM, {"metadata": {"name": "own", "labels": {"own": "yes"}}, "data": {"bad": "1"}})
    equal("it refuses", (st, e.get("message")), (422, 'admission webhook "own.example.com" denied the request: bad data'))
    equal("it was asked by", ext.by, ("system:apiserver", ["system:authenticated", "system:masters"], None))
    a.delete(reg + "validatingwebhookconfigurations/own")
    st, d = a.get("/apis", headers={"Accept": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"})
    g = [i for i in d["items"] if i["metadata"].get("name") == "agg.example.com"]
    check("in discovery", g and g[0]["versions"][0]["resources"][0]["resource"] == "widgets", g)
    end = time.time() + 15
    while "apis/agg.example.com/v1" not in a.get("/openapi/v3")[1]["paths"] and time.time() < end:
        time.sleep(0.1)
    paths = a.get("/openapi/v3")[1]["paths"]
    where = "/openapi/v3/apis/agg.example.com/v1?hash=A"
    equal("its documents are listed, not what the server has itself",
          (paths["apis/agg.example.com/v1"]["serverRelativeURL"], "REMOTE" in paths["version"]["serverRelativeURL"]), (where, False))
    equal("and fetched there", a.get(where), (200, {"openapi": "3.0.0", "of": where, "for": "admin"}))
    equal("one that nobody lists", a.get("/openapi/v3/apis/agg.example.com/v2")[0], 404)
    # conversion
    def version(name, field, storage):
        return {"name": name, "served": True, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object", "properties": {
            "spec": {"type": "object", "properties": {field: {"type": "integer"}}}}}}}
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    crd = {"kind": "CustomResourceDefinition", "apiVersion": "apiextensions.k8s.io/v1", "metadata": {"name": "cvs.conv.example.com"},
           "spec": {"group": "conv.example.com", "scope": "Namespaced", "names": {"plural": "cvs", "kind": "Cv"},
                    "versions": [version("v1", "n", True), version("v2", "num", False)],
                    "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": {
                        "url": "https://127.0.0.1:%d/convert" % port, "caBundle": ca}}}}}
    st, o = a.define(crd)
    equal("crd with a conversion webhook", st, 201)
    v1, v2 = ("/apis/conv.example.com/%s/namespaces/default/cvs" % v for v in ("v1", "v2"))
    st, o = a.post(v1, {"kind": "Cv", "apiVersion": "conv.example.com/v1", "metadata": {"name": "a"}, "spec": {"n": 5}})
    equal("stored version", (st, o.get("spec")), (201, {"n": 5}))
    st, o = a.get(v2 + "/a")
    equal("read converted", (st, o.get("apiVersion"), o.get("spec")), (200, "conv.example.com/v2", {"num": 5}))
    equal("list converted", a.get(v2)[1]["items"][0]["spec"], {"num": 5})
    st, o = a.patch(v2 + "/a", {"spec": {"num": 6}})
    equal("patch of the other version", (st, o.get("spec"), a.get(v1 + "/a")[1]["spec"]), (200, {"num": 6}, {"n": 6}))
    st, o = a.post(v2, {"kind": "Cv", "apiVersion": "conv.example.com/v2", "metadata": {"name": "b"}, "spec": {"num": 7}})
    equal("create in the other version", (st, o.get("spec"), a.get(v1 + "/b")[1].get("spec")), (201, {"num": 7}, {"n": 7}))
    ev = []
    read_events(a, v2 + "?watch=true&resourceVersion=0", 2, ev)
    equal("watch converted", [e["object"]["spec"] for e in ev], [{"num": 6}, {"num": 7}])
    # the storage version moves on: what is stored in the old one still reads as asked for
    now = a.get(crds + "/cvs.conv.example.com")[1]
    now["spec"]["versions"][0]["storage"], now["spec"]["versions"][1]["storage"] = False, True
    st, o = a.put(crds + "/cvs.conv.example.com", now)
    equal("new storage version", (st, o["status"]["storedVersions"]), (200, ["v1", "v2"]))
    equal("old bytes, new version", a.get(v2 + "/a")[1].get("spec"), {"num": 6})
    equal("old bytes, old version", a.get(v1 + "/a")[1].get("spec"), {"n": 6})
    a.delete(crds + "/cvs.conv.example.com")
    end = time.time() + 10
    while a.get(crds + "/cvs.conv.example.com")[0] != 404 and time.time() < end:
        time.sleep(0.05)
    equal("gone with its objects", a.get(crds + "/cvs.conv.example.com")[0], 404)
    a.delete(reg + "mutatingwebhookconfigurations/m")
    a.delete(reg + "validatingwebhookconfigurations/v")
    web.close()


def test_restart(s, a, ip, port):
    a.post(CM, cm("kept", a="b"))
    before = a.get(CM + "/kept")[1]
    page = a.get(CM + "?limit=1")[1]
    a.post(CM, cm("younger"))
    a.post(CM, cm("kept-0"))
    exact = CM + "?resourceVersionMatch=Exact&resourceVersion=" + before["metadata"]["resourceVersion"]
    then = a.get(exact)[1]
    s.stop(9)
    s.start()
    equal("kept over kill -9", a.get(CM + "/kept")[1], before)
    equal("an exact list from before", a.get(exact), (200, then))
    names = [o["metadata"]["name"] for o in then["items"]]
    st, rest = a.get(CM + "?limit=100&continue=" + page["metadata"]["continue"])
    equal("the second page of a list from before", (st, [o["metadata"]["name"] for o in page["items"] + rest["items"]]), (200, names))
    equal("what was later is not in it", {"younger", "kept-0"} & set(names), set())
    equal("no revision is one from before all", a.get(CM + "?resourceVersionMatch=Exact&resourceVersion=1")[0] in (200, 410), True)
    svc = {"kind": "Service", "apiVersion": "v1", "metadata": {"name": "again"},
           "spec": {"ports": [{"port": 80, "nodePort": port}], "type": "NodePort"}}
    equal("node port still taken", a.post("/api/v1/namespaces/default/services", svc)[0], 422)
    svc["spec"] = {"ports": [{"port": 80}], "clusterIP": ip}
    equal("address still taken", a.post("/api/v1/namespaces/default/services", svc)[0], 422)
    # what a Service keeps and does not show, and one that would have two addresses when there comes to be a second range
    svcs = "/api/v1/namespaces/default/services"
    a.post(svcs, {"metadata": {"name": "keeps"}, "spec": {"type": "ExternalName", "externalName": "a.example.com", "internalTrafficPolicy": "Local"}})
    a.post(svcs, {"metadata": {"name": "prefers"}, "spec": {"ipFamilyPolicy": "PreferDualStack", "ports": [{"port": 80}]}})
    s.stop()
    s.more = ["--service-cluster-ip-range", "10.0.0.0/24,fd00::/112"]
    s.start()
    spec = a.get(svcs + "/keeps")[1]["spec"]
    equal("not shown by a later start either", "internalTrafficPolicy" in spec, False)
    spec = a.patch(svcs + "/keeps", {"spec": {"type": "ClusterIP", "ports": [{"port": 80}]}})[1]["spec"]
    equal("kept over a start", spec["internalTrafficPolicy"], "Local")
    spec = a.patch(svcs + "/prefers", {"metadata": {"labels": {"a": "b"}}})[1]["spec"]
    equal("one address as long as nobody wants another", (len(spec["clusterIPs"]), spec["ipFamilies"]), (1, ["IPv4"]))
    spec = a.patch(svcs + "/prefers", {"spec": {"ipFamilyPolicy": "RequireDualStack"}})[1]["spec"]
    equal("two when they are", (len(spec["clusterIPs"]), spec["ipFamilies"]), (2, ["IPv4", "IPv6"]))
    s.stop()
    # encryption at rest
    for i, provider in enumerate(("aescbc", "aesgcm", "secretbox")):
        with open(os.path.join(s.dir, "enc.yaml"), "w") as f:
            json.dump({"kind": "EncryptionConfiguration", "apiVersion": "apiserver.config.k8s.io/v1", "resources": [
                {"resources": ["secrets"], "providers": [
                    {provider: {"keys": [{"name": "k%d" % i, "secret": base64.b64encode(b"0123456789abcdef" * 2).decode()}]}},
                    {"aescbc": {"keys": [{"name": "k0", "secret": base64.b64encode(b"0123456789abcdef" * 2).decode()}]}},
                    {"identity": {}}]}]}, f)
        s.more = ["--encryption-provider-config", "enc.yaml"]
        s.start()
        secret = "/api/v1/namespaces/default/secrets"
        word = "very-secret-word-%d" % i
        st, o = a.post(secret, {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "enc%d" % i}, "stringData": {"a": word}})
        equal("encrypted secret", st, 201)
        equal("an old one in the clear", a.get(secret + "/used")[0], 200)
        s.stop()
        raw = b"".join(open(os.path.join(d, f), "rb").read() for d, _, fs in os.walk(os.path.join(s.dir, "data")) for f in fs)
        check("not on the disk in the clear", word.encode() not in raw and b"k8s:enc:%s:v1:k%d:" % (provider.encode(), i) in raw)
        s.start()
        equal("read again", base64.b64decode(a.get(secret + "/enc%d" % i)[1]["data"]["a"]).decode(), word)
        s.stop()
    s.start()
    equal("the first key still opens", a.get(secret + "/enc0")[0], 200)


def series(a, name):
    """Labels and value of what a metric shows."""
    return [(dict(re.findall(r'(\w+)="([^"]*)"', l)), float(l.rpartition(" ")[2]))
            for l in a.raw("GET", "/metrics")[2].decode().split("\n") if re.match(name + r"[{ ]", l)]


def write(s, name, text):
    """Into the server's directory at once, as editors and kubelets do it."""
    path = os.path.join(s.dir, name)
    with open(path + ".new", "w") as f:
        f.write(text if isinstance(text, str) else json.dumps(text))
    os.rename(path + ".new", path)
    return path


def suite(name, prepare, tests, after=lambda have: None):
    """A program of tests: prepare(server) gives what they take, by the names of their parameters; after(have) follows each.
    Arguments behind the first choose tests by name. Does not return."""
    dir = tempfile.mkdtemp(prefix="skiff-%s-" % name)
    s = Server(dir)
    try:
        s.pki()
        have = dict(prepare(s), s=s)
        for test in tests:
            if sys.argv[2:] and test.__name__ not in sys.argv[2:]:
                continue
            try:
                test(*(have[x] for x in test.__code__.co_varnames[:test.__code__.co_argcount]))
            except (Exception, SystemExit):
                import traceback
                check("exception in %s" % test.__name__, False, traceback.format_exc()[-1500:])
            after(have)
    finally:
        if s.proc:
            s.stop()
        if failed and os.path.exists(s.log_path()):
            print(open(s.log_path()).read()[-2000:])
        shutil.rmtree(dir, ignore_errors=True)
    print("%d passed, %d failed" % (passed, failed))
    sys.exit(1 if failed else 0)


def main():
    dir = tempfile.mkdtemp(prefix="skiff-apiserver-")
    s = Server(dir)
    try:
        s.pki()
        s.start()
        a = Client(s, cert="admin")
        tests = [lambda: test_discovery(a), lambda: test_basics(a), lambda: test_formats(a), lambda: test_patches(a),
                 lambda: test_times(a), lambda: test_large(a), lambda: test_contention(a), lambda: test_delete_race(a), lambda: test_lists(a), lambda: test_deletion(a), lambda: test_access(s, a), lambda: test_service_cidrs(a), lambda: test_crd(a), lambda: test_crd_read(a), lambda: test_crd_rules(a),
                 lambda: test_event_fields(a),
                 lambda: test_admission(a), lambda: test_validation(a),
                 lambda: test_extensions(s, a)]
        for t in tests:
            try:
                t()
            except Exception as e:
                import traceback
                check("exception", False, traceback.format_exc()[-1500:])
        try:
            ip, port = test_services(a)
            test_restart(s, a, ip, port)
        except Exception as e:
            import traceback
            check("exception", False, traceback.format_exc()[-1500:])
    finally:
        if s.proc:
            s.stop()
        if failed:
            print(open(os.path.join(dir, "log")).read()[-2000:])
        shutil.rmtree(dir, ignore_errors=True)
    print("%d passed, %d failed" % (passed, failed))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
