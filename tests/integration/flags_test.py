#!/usr/bin/env python3
"""Upstream's flags with upstream's meaning: what is served, to whom, with which certificate; and what is refused before anything starts.

Usage: flags_test.py PATH-OF-kube-apiserver [TEST...]. Prints one line a failed check and "N passed, N failed".
"""
import base64, hashlib, http.server, json, os, re, signal, socket, ssl, stat, subprocess, sys, threading, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from access_test import refuses
from apiserver_test import EXE, CM, PODS, DEPLOY, Client, Server, check, cm, deployment, equal, pod, series, suite, until, write


class With:
    """The server with other flags, from an empty store unless kept."""

    def __init__(self, s, *more, keep=False):
        self.s, self.more, self.keep = s, list(more), keep

    def __enter__(self):
        if not self.keep:
            self.s.sh("rm", "-rf", "data")
        self.old, self.s.more = self.s.more, self.more
        self.s.start()
        a = Client(self.s, cert="admin")
        if not self.keep:
            a.post("/api/v1/namespaces/default/serviceaccounts", {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}})
        return a

    def __exit__(self, *error):
        self.s.stop()
        self.s.more = self.old


# ---- what pods may be ----

def test_privileged(s):
    p = pod("p", initContainers=[{"name": "i", "image": "x", "securityContext": {"privileged": True}}])
    p["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    d = deployment("d")
    d["spec"]["template"]["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    host = {"hostProcess": True, "runAsUserName": "NT AUTHORITY\\SYSTEM"}
    w = pod("w", hostNetwork=True, os={"name": "windows"}, securityContext={"windowsOptions": host})
    with With(s) as a:
        st, o = a.post(PODS, p)
        equal("privileged pod", (st, [(c["reason"], c["field"]) for c in o["details"]["causes"]]),
              (422, [("FieldValueForbidden", "spec.containers[0].securityContext.privileged"),
                     ("FieldValueForbidden", "spec.initContainers[0].securityContext.privileged")]))
        st, o = a.post(DEPLOY, d)
        equal("privileged template", (st, [(c["reason"], c["field"]) for c in o["details"]["causes"]]),
              (422, [("FieldValueForbidden", "spec.template.spec.containers[0].securityContext.privileged")]))
        st, o = a.post(PODS, w)
        equal("processes of the host", (st, [(c["reason"], c["field"]) for c in o["details"]["causes"]]), (422, [("FieldValueForbidden", "spec")]))
        d["spec"]["template"]["spec"]["containers"][0]["securityContext"] = {"privileged": False}
        equal("said no", a.post(DEPLOY, d)[0], 201)
    d["spec"]["template"]["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    d["metadata"]["name"] = "e"
    with With(s, "--allow-privileged") as a:
        equal("allowed", [a.post(*x)[0] for x in ((PODS, p), (DEPLOY, d), (PODS, w))], [201, 201, 201])


# ---- what is served ----

def versions(a):
    return {v["groupVersion"] for g in a.get("/apis")[1]["groups"] for v in g["versions"]}


def test_runtime_config(s):
    with With(s, "--runtime-config=autoscaling/v1=false,storage.k8s.io/v1=0,apps/v1/daemonsets=false") as a:
        v = versions(a)
        check("versions", "autoscaling/v2" in v and "autoscaling/v1" not in v and "storage.k8s.io/v1" not in v and "apps/v1" in v, v)
        names = {r["name"] for r in a.get("/apis/apps/v1")[1]["resources"]}
        check("resources", "deployments" in names and not any(n.startswith("daemonsets") for n in names), names)
        got = {p: a.raw("GET", p)[::2] for p in ("/apis/autoscaling/v1", "/apis/storage.k8s.io/v1", "/apis/storage.k8s.io", "/apis/storage.k8s.io/v1/storageclasses",
                                                 "/apis/apps/v1/daemonsets")}
        equal("paths", {p: g[0] for p, g in got.items()}, {p: 404 for p in got})
        equal("no group at all", got["/apis/storage.k8s.io/v1"][1], b"404 page not found\n")
        docs = a.get("/openapi/v3")[1]["paths"]
        check("documents", "apis/autoscaling/v2" in docs and "apis/autoscaling/v1" not in docs and "apis/storage.k8s.io" not in docs, docs.keys())
        equal("a document of nothing", a.raw("GET", "/openapi/v3/apis/storage.k8s.io/v1")[0], 404)
        paths = a.get("/openapi/v2")[1]["paths"]
        check("the old document", "/apis/apps/v1/deployments" in paths and "/apis/apps/v1/daemonsets" not in paths and "/apis/storage.k8s.io/" not in paths)
        have = {o["metadata"]["name"] for o in a.get("/apis/apiregistration.k8s.io/v1/apiservices")[1]["items"]}
        check("APIServices", "v2.autoscaling" in have and "v1.autoscaling" not in have and "v1.storage.k8s.io" not in have, have)
        equal("a pod all the same", a.post(PODS, pod("p"))[0], 201)
    with With(s, "--runtime-config=api/all=true,apps/v1=false", "--runtime-config=apps/v1/deployments", keep=True) as a:
        equal("a resource of a version that is not", [r["name"] for r in a.get("/apis/apps/v1")[1]["resources"]],
              ["deployments", "deployments/scale", "deployments/status"])
        have = {o["metadata"]["name"] for o in a.get("/apis/apiregistration.k8s.io/v1/apiservices")[1]["items"]}
        check("all others again", "v1.autoscaling" in have and "v1.storage.k8s.io" in have, have)
    with With(s, "--runtime-config=autoscaling/v1=false", keep=True) as a:
        have = {o["metadata"]["name"] for o in a.get("/apis/apiregistration.k8s.io/v1/apiservices")[1]["items"]}
        check("an APIService goes", "v1.autoscaling" not in have and "v1.apps" in have, have)


def test_runtime_config_refused(s):
    for text, words in (("api/all=false", "invalid runtime-config with only api/all=false"), ("api/all=yes,apps/v1=true", "invalid value api/all=yes"),
                        ("nope=true", "runtime-config invalid key nope"), ("nope.io/v1=true", "unknown api groups nope.io/v1"),
                        ("apps/v9=true", "group version apps/v9 that has not been registered"), ("apps/v1=maybe", "invalid value of apps/v1: maybe"),
                        ("apps/v1/Deployments=true", "invalid key apps/v1/Deployments"), ("resource.k8s.io/v1beta1=true", "not built here"),
                        ("api/ga=false", "conflicts with --enable-priority-and-fairness"),
                        ("flowcontrol.apiserver.k8s.io/v1=false", "conflicts with --enable-priority-and-fairness")):
        refuses(s, "--runtime-config=" + text, ["--runtime-config=" + text], words)


# ---- certificates and TLS ----

def run(s, *argv):
    r = subprocess.run([EXE, "--data-dir=none", "--secure-port=0", *argv], cwd=s.dir, timeout=20, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return r.returncode, r.stdout


class Bare:
    """A server that gets no certificate."""

    def __init__(self, s, *more):
        self.s, self.more = s, more

    def __enter__(self):
        port = os.path.join(self.s.dir, "bare-port")
        if os.path.exists(port):
            os.unlink(port)
        self.log = open(os.path.join(self.s.dir, "bare-log"), "a")
        self.proc = subprocess.Popen([EXE, "--data-dir=bare", "--secure-port=0", "--port-file=bare-port", "--client-ca-file=ca.crt",
                                      "--service-cluster-ip-range=10.0.0.0/24", *self.more], cwd=self.s.dir, stdout=self.log, stderr=self.log)
        while not os.path.exists(port):
            if self.proc.poll() is not None:
                raise SystemExit(open(self.log.name).read()[-2000:])
        return int(open(port).read())

    def __exit__(self, *error):
        self.proc.terminate()
        equal("it ends", self.proc.wait(60), 0)
        self.log.close()


def shown(port, name=None, **limits):
    """The certificate (PEM) a client sees, what was agreed on; or the error."""
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ctx.check_hostname, ctx.verify_mode = False, ssl.CERT_NONE
    ctx.set_alpn_protocols(["h2", "http/1.1"])
    for k, v in limits.items():
        if callable(getattr(ctx, k)):
            getattr(ctx, k)(v)
        else:
            setattr(ctx, k, v)
    try:
        with socket.create_connection(("127.0.0.1", port), 20) as raw, ctx.wrap_socket(raw, server_hostname=name) as c:
            return ssl.DER_cert_to_PEM_cert(c.getpeercert(True)), c.version(), c.selected_alpn_protocol(), c.cipher()[0]
    except (ssl.SSLError, ConnectionError) as e:
        return e


def text_of(s, pem):
    return subprocess.run(["openssl", "x509", "-noout", "-text"], input=pem, stdout=subprocess.PIPE, text=True).stdout


def test_cert_dir(s):
    s.sh("rm", "-rf", "certs", "bare")
    with Bare(s, "--cert-dir=certs/deep", "--bind-address=127.0.0.1", "--advertise-address=192.0.2.7") as port:
        first = shown(port)[0]
        text = text_of(s, first)
        names = text[text.index("Alternative Name"):].split("\n")[1].strip().split(", ")
        equal("names", set(names), {"DNS:kubernetes.default.svc", "DNS:kubernetes.default", "DNS:kubernetes", "IP Address:10.0.0.1",
                                    "IP Address:127.0.0.1", "IP Address:192.0.2.7"})
        check("of RSA", "rsaEncryption" in text and "2048 bit" in text, text)
    modes = [stat.S_IMODE(os.stat(os.path.join(s.dir, "certs/deep", f)).st_mode) for f in ("", "apiserver.crt", "apiserver.key")]
    equal("files", modes, [0o755, 0o644, 0o600])
    with Bare(s, "--cert-dir=certs/deep", "--bind-address=0.0.0.0", "--tls-cipher-suites=TLS_RSA_WITH_AES_256_CBC_SHA,TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256") as port:
        equal("used again, and where the client must have such a key", shown(port, maximum_version=ssl.TLSVersion.TLSv1_2, set_ciphers="AES256-SHA")[0], first)
    os.unlink(os.path.join(s.dir, "certs/deep/apiserver.key"))
    code, said = run(s, "--cert-dir=certs/deep", "--service-cluster-ip-range=10.0.0.0/24")
    check("half a pair", code == 1 and "certs/deep/apiserver.key" in said, said)
    os.unlink(os.path.join(s.dir, "certs/deep/apiserver.crt"))
    with Bare(s, "--cert-dir=certs/deep") as port:
        text = text_of(s, shown(port)[0])
        check("bound to all", "DNS:localhost" in text and shown(port)[0] != first, text)
    code, said = run(s, "--tls-cert-file=server.crt")
    check("a certificate without its key", code == 1 and "--tls-private-key-file" in said, said)


def test_tls_limits(s):
    v = ssl.TLSVersion
    with With(s, "--tls-min-version=VersionTLS13"):
        equal("1.3", shown(s.port)[1], "TLSv1.3")
        check("nothing before", isinstance(shown(s.port, maximum_version=v.TLSv1_2), Exception))
    with With(s, "--tls-min-version=VersionTLS10"):
        equal("1.0", shown(s.port, minimum_version=v.TLSv1, maximum_version=v.TLSv1, set_ciphers="DEFAULT:@SECLEVEL=0")[1], "TLSv1")
    with With(s, "--tls-cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "--tls-curve-preferences=24"):
        equal("suites, in Go's order", shown(s.port, maximum_version=v.TLSv1_2)[3], "ECDHE-ECDSA-AES128-GCM-SHA256")
        check("no other suite", isinstance(shown(s.port, maximum_version=v.TLSv1_2, set_ciphers="ECDHE-ECDSA-CHACHA20-POLY1305"), Exception))
        check("no other group", isinstance(shown(s.port, set_ecdh_curve="prime256v1"), Exception))
        equal("the group", shown(s.port, set_ecdh_curve="secp384r1")[1], "TLSv1.3")
    with With(s, "--disable-http2-serving", "--tls-cipher-suites=TLS_RSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA"):
        equal("without HTTP/2", shown(s.port, maximum_version=v.TLSv1_2, set_ciphers="ALL")[1:], ("TLSv1.2", "http/1.1", "ECDHE-ECDSA-AES128-SHA"))
    with With(s):
        equal("by default", shown(s.port)[1:3], ("TLSv1.3", "h2"))
        check("no suite that Go has not", isinstance(shown(s.port, maximum_version=v.TLSv1_2, set_ciphers="ECDHE-ECDSA-AES128-SHA256"), Exception))
    for flag, words in (("--tls-min-version=1.2", "unknown tls version"), ("--tls-cipher-suites=RC4", "Cipher suite RC4 not supported"),
                        ("--tls-cipher-suites=TLS_RSA_WITH_AES_128_GCM_SHA256", "HTTP/2 needs one of"), ("--tls-curve-preferences=23,23", "duplicate"),
                        ("--tls-curve-preferences=99", "is not supported"), ("--tls-curve-preferences=0", "out of range"),
                        ("--tls-sni-cert-key=a.crt", "--tls-sni-cert-key"), ("--tls-sni-cert-key=a.crt,a.key:", "--tls-sni-cert-key"),
                        ("--tls-sni-cert-key=none.crt,none.key", "none.crt"), ("--goaway-chance=0.5", "--goaway-chance"),
                        ("--http2-max-streams-per-connection=-1", "http2-max-streams-per-connection")):
        refuses(s, flag, [flag], words)


def test_sni(s):
    for name, ext in (("one", "subjectAltName=DNS:one.example,DNS:*.many.example,IP:127.0.0.1"), ("two", "subjectAltName=DNS:one.example,DNS:two.example"),
                      ("three", "subjectAltName=DNS:three.example")):
        s.cert(name, "/CN=" + name, ext)
    pem = {n: ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(open(os.path.join(s.dir, n + ".crt")).read())) for n in ("one", "two", "three", "server")}

    def which(name):
        got = shown(s.port, name)
        return [n for n, p in pem.items() if p == got[0]] if isinstance(got, tuple) else got
    with With(s, "--tls-sni-cert-key=one.crt,one.key", "--tls-sni-cert-key", "two.crt, two.key", "--tls-sni-cert-key=three.crt,three.key:given.example,*.given.example"):
        for name, want in (("one.example", "one"), ("two.example", "two"), ("a.many.example", "one"), ("a.b.many.example", "server"), ("GIVEN.example", "three"),
                           ("x.given.example", "three"), ("other.example", "server"), ("three.example", "three"), (None, "one")):
            equal("asked for %s" % name, which(name), [want])
        s.cert("two", "/CN=two", "subjectAltName=DNS:new.example")
        pem["two"] = ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(open(os.path.join(s.dir, "two.crt")).read()))
        until("a new file is read", lambda: which("new.example") == ["two"])
        # another type of key than the server's own
        s.sh("openssl", "genrsa", "-out", "two.key", "2048")
        s.sh("openssl", "req", "-x509", "-new", "-key", "two.key", "-subj", "/CN=two", "-addext", "subjectAltName=DNS:rsa.example", "-days", "2", "-out", "two.crt")
        pem["two"] = ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(open(os.path.join(s.dir, "two.crt")).read()))
        until("RSA beside EC", lambda: which("rsa.example") == ["two"])


# ---- HTTP/2 ----

def frame(kind, flags, stream, body=b""):
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


class H2:
    """As much of HTTP/2 as a GET of /livez takes."""

    def __init__(self, s):
        ctx = ssl.create_default_context(cafile=os.path.join(s.dir, "ca.crt"))
        ctx.set_alpn_protocols(["h2"])
        self.c = ctx.wrap_socket(socket.create_connection(("127.0.0.1", s.port), 20), server_hostname="127.0.0.1")
        self.c.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0))
        self.f = self.c.makefile("rb")

    def next(self):
        head = self.f.read(9)
        if len(head) < 9:
            return None
        return head[3], head[4], int.from_bytes(head[5:], "big"), self.f.read(int.from_bytes(head[:3], "big"))

    def get(self, stream, more=b""):
        self.c.sendall(frame(1, 5, stream, b"\x82\x87\x04\x06/livez\x01\x01a" + more))


def test_http2(s):
    with With(s, "--http2-max-streams-per-connection=7"):
        c = H2(s)
        kind, _, _, body = c.next()
        settings = {int.from_bytes(body[i:i + 2], "big"): int.from_bytes(body[i + 2:i + 6], "big") for i in range(0, len(body), 6)}
        equal("streams", (kind, settings.get(3)), (4, 7))
    with With(s, "--goaway-chance=0.02"):
        answers, away, c, stream = 0, 0, H2(s), 1
        while not away and answers < 5000:
            c.get(stream)
            done = False
            while not done:
                f = c.next()
                if f is None:
                    break
                away += f[0] == 7
                done = f[0] in (0, 1) and f[1] & 1 and f[2] == stream
            answers += done
            stream += 2
        check("sent away in time, with an answer", away == 1 and answers == (stream - 1) // 2, (away, answers, stream))
    with With(s):
        c = H2(s)
        seen = []
        for stream in range(1, 801, 2):
            c.get(stream)
            while not seen or not (seen[-1][1] & 1 and seen[-1][2] == stream):
                seen.append(c.next())
        check("nobody is sent away", not any(f[0] == 7 for f in seen), len(seen))
        c.get(801, b"\x0f\x08\x07Bearer ")
        while seen[-1][2] != 801:
            seen.append(c.next())
        equal("a blank behind a value: an answer, no reset", seen[-1][0], 1)


# ---- the store, the Service, tokens, limits ----

def test_prefix(s):
    with With(s, "--etcd-prefix=/a//b/") as a:
        equal("made", (a.post(CM, cm("c"))[0], a.get("/api/v1/namespaces/default/services/kubernetes")[0]), (201, 200))
    with With(s, keep=True) as a:
        equal("another prefix, other objects", a.get(CM + "/c")[0], 404)
    with With(s, "--etcd-prefix=a/b", keep=True) as a:
        equal("the same prefix", a.get(CM + "/c")[0], 200)


LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
SERVERS = LEASES + "?labelSelector=apiserver.kubernetes.io/identity%3Dkube-apiserver"


def micro(t):
    return time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(t))


def test_identity(s):
    """A Lease says which server this is; a server that starts again has the name it had; Leases of servers that are gone go."""
    def lease(name, renewed, label="kube-apiserver", **more):
        return {"kind": "Lease", "apiVersion": "coordination.k8s.io/v1", "metadata": {"name": name, "labels": {"apiserver.kubernetes.io/identity": label}},
                "spec": dict({"holderIdentity": name, "leaseDurationSeconds": 3600, "renewTime": micro(renewed)}, **more)}

    host = socket.gethostname()
    parts = b"".join(len(x).to_bytes(2, "big") + x for x in (host.encode(), b"kube-apiserver"))
    name = "apiserver-" + base64.b32encode(hashlib.sha256(parts).digest()[:16]).decode().lower().rstrip("=")
    now = time.time()
    with With(s, "--advertise-address=10.0.0.1") as a:
        one, = a.get(SERVERS)[1]["items"]
        m = one["metadata"]
        equal("its name", m["name"], name)
        equal("labels", m["labels"], {"apiserver.kubernetes.io/identity": "kube-apiserver", "kubernetes.io/hostname": host})
        equal("where its peers reach it", m["annotations"], {"kubernetes.io/peer-advertise-address": "10.0.0.1:%d" % s.port})
        holder = one["spec"]["holderIdentity"]
        equal("spec", (one["spec"]["leaseDurationSeconds"], holder.rpartition("_")[0]), (3600, name))
        until("it is renewed", lambda: a.get(LEASES + "/" + name)[1]["spec"]["renewTime"] > one["spec"]["renewTime"], 15)
        equal("nothing else of it changed", a.get(LEASES + "/" + name)[1]["metadata"]["uid"], m["uid"])
        for l in (lease("late", now - 7200), lease("never", now, renewTime=None), lease("endless", now - 7200, leaseDurationSeconds=None),
                  lease("in-time", now - 120), lease("other", now - 7200, "another")):
            equal("a Lease of another", a.post(LEASES, l)[0], 201)
        equal("taken away", a.delete(LEASES + "/" + name)[0], 200)
        until("it comes again", lambda: a.get(LEASES + "/" + name)[0] == 200, 15)
        equal("of the same holder", a.get(LEASES + "/" + name)[1]["spec"]["holderIdentity"], holder)
        before = a.get(LEASES + "/" + name)[1]["metadata"]["uid"]
        s.stop(signal.SIGKILL)
        s.start()
        a = Client(s, cert="admin")
        after = a.get(LEASES + "/" + name)[1]
        check("another life, another Lease", after["metadata"]["uid"] != before and after["spec"]["holderIdentity"] != holder, after)
        until("those of servers that are gone go", lambda: sorted(l["metadata"]["name"] for l in a.get(LEASES)[1]["items"]) ==
              sorted([name, "in-time", "other"]))
    with With(s, "--peer-advertise-ip=fd00::1", "--peer-advertise-port=443", keep=True) as a:
        equal("told", a.get(LEASES + "/" + name)[1]["metadata"]["annotations"], {"kubernetes.io/peer-advertise-address": "[fd00::1]:443"})
    with With(s, "--runtime-config=coordination.k8s.io/v1=false") as a:
        equal("an API that is not served", a.get(LEASES)[0], 404)


def test_service(s):
    at = "/api/v1/namespaces/default/services/kubernetes"
    with With(s, "--kubernetes-service-node-port=30443", "--endpoint-reconciler-type=none") as a:
        spec = a.get(at)[1]["spec"]
        equal("node port", (spec["type"], spec["ports"][0]["nodePort"]), ("NodePort", 30443))
        equal("no endpoints", a.get("/api/v1/namespaces/default/endpoints/kubernetes")[0], 404)
    with With(s, "--endpoint-reconciler-type=master-count", "--apiserver-count=1") as a:
        equal("as ever", (a.get(at)[1]["spec"]["type"], a.get("/api/v1/namespaces/default/endpoints/kubernetes")[0]), ("ClusterIP", 200))
    for flag, words in (("--kubernetes-service-node-port=80", "doesn't contain 80"), ("--kubernetes-service-node-port=-1", "between 0 and 65535"),
                        ("--endpoint-reconciler-type=odd", "endpoint reconciler"), ("--apiserver-count=0", "--apiserver-count"),
                        ("--storage-media-type=text/plain", "--storage-media-type"), ("--etcd-servers-overrides=events#http://x", "--etcd-servers-overrides"),
                        ("--etcd-servers-overrides=/events#http://x;", "--etcd-servers-overrides"), ("--watch-cache-sizes=pods", "--watch-cache-sizes"),
                        ("--watch-cache-sizes=pods#-1", "--watch-cache-sizes"), ("--watch-cache-sizes=pods#x", "--watch-cache-sizes"),
                        ("--emulated-version=kube=1.35", "only 1.36 is"), ("--emulated-version=other=1.36", "component not registered"),
                        ("--min-compatibility-version=1.34", "only 1.35 is"), ("--livez-grace-period=-1s", "--livez-grace-period"), ("--advertise-address=me", "--advertise-address"),
                        ("--max-requests-inflight=-1", "--max-requests-inflight"), ("--event-ttl=long", "--event-ttl"), ("--watch-cache=yes", "--watch-cache"), ("--profiling=", "--profiling"),
                        ("--version=v1.37.0", "--version"), ("--version=v1.36", "--version"), ("--version=v1.36.0-", "--version"),
                        ("--version=v1.36.0_a", "--version"), ("--version=v1.36.0-a+", "--version"), ("--version=maybe", "--version")):
        refuses(s, flag, [flag], words)


def test_version(s):
    code, said = run(s, "--version")
    built = said.split()[-1]
    equal("printed", (code, said, built.split("+")[0]), (0, "Kubernetes " + built + "\n", "v1.36.0"))
    code, said = run(s, "--version=raw")
    check("all of it", code == 0 and said.startswith('version.Info{Major:"1", ') and 'GitVersion:"%s"' % built in said, said)
    equal("a value after a space is an argument", run(s, "--version", "raw")[0], 1)
    for flag, version in ((("--version=F",), built), (("--version=v1.36.0",), "v1.36.0"), (("--version=v1.36.0-a.1+b",), "v1.36.0-a.1+b")):
        with With(s, *flag) as a:
            equal("reported", a.get("/version")[1]["gitVersion"], version)
            check("running", ('version_info{binary="%s",' % version[1:]) in a.raw("GET", "/metrics")[2].decode(), flag)
            check("build", ('git_version="%s"' % built) in a.raw("GET", "/metrics")[2].decode(), flag)
            check("status", ("Binary version: %s\n" % version[1:]) in a.raw("GET", "/statusz")[2].decode(), flag)


def test_stored_as(s):
    """Objects are read whatever they were stored as, and stored anew as the flag says."""
    with With(s, "--storage-media-type=application/json") as a:
        st, o = a.post(CM, cm("c", a="1: <&>\u20ac"))
        equal("made", (st, a.post(CM + "?dryRun=All", cm("d", a="b"))[1]["data"]), (201, {"a": "b"}))
    for form in ("vnd.kubernetes.protobuf", "yaml", "json", ""):
        with With(s, "--storage-media-type=" + ("application/" + form if form else ""), keep=True) as a:
            equal("read as it was", a.get(CM + "/c")[1], o)
            st, o = a.patch(CM + "/c", {"data": {form or "none": "true"}})
            equal("changed", (st, o["data"][form or "none"], a.get("/api/v1/namespaces/default/services/kubernetes")[0]), (200, "true", 200))
            st, svc = a.post("/api/v1/namespaces/default/services", {"metadata": {"generateName": "s"}, "spec": {"type": "NodePort", "ports": [{"port": 1}]}})
            equal("node ports", (st, svc["spec"]["ports"][0]["nodePort"] >= 30000), (201, True))


def test_events_end(s):
    """Events live as long as the flag says; leases that are shared give at most a twentieth more."""
    events = "/api/v1/namespaces/default/events"
    with With(s, "--event-ttl=2s") as a:
        ref = {"involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}}
        began = time.time()
        equal("made", [a.post(events, dict(ref, metadata={"name": "e%d" % i}))[0] for i in range(3)], [201] * 3)
        until("gone", lambda: not [e for e in a.get(events)[1]["items"] if e["metadata"]["name"] in ("e0", "e1", "e2")], 20)
        check("in time", 1.5 < time.time() - began < 10, time.time() - began)
        equal("leases", len(re.findall(r"etcd_lease_object_counts_count (\d+)", a.raw("GET", "/metrics")[2].decode())), 1)


def test_watch_cache(s):
    """Without upstream's watch cache a list of any version has pages."""
    def pages(a, what):
        return len(a.get("/api/v1/namespaces/default/%s?limit=2&resourceVersion=0" % what)[1]["items"])
    with With(s) as a:
        for n in ("a", "b", "c"):
            equal("made", (a.post(CM, cm(n))[0], a.post("/api/v1/namespaces/default/secrets", {"metadata": {"name": n}})[0]), (201, 201))
        equal("as ever", (pages(a, "configmaps"), pages(a, "secrets")), (3, 3))
    for flags, want in ((["--watch-cache=false"], (2, 2)), (["--watch-cache-sizes=secrets#0,configmaps#5"], (3, 2)),
                        (["--watch-cache-sizes=secrets.apps#0"], (3, 3)), (["--watch-cache-sizes=secrets#0", "--watch-cache-sizes=configmaps#0"], (2, 2))):
        with With(s, *flags, keep=True) as a:
            equal(" ".join(flags), (pages(a, "configmaps"), pages(a, "secrets")), want)


def test_kubelet_certificate(s):
    """A kubelet whose certificate is not of the CA is believed only by who asks for that."""
    class Kubelet(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.path)))
            self.end_headers()
            self.wfile.write(self.path.encode())

        def log_message(self, *a):
            pass

    s.sh("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "odd.key", "-out", "odd.crt", "-subj", "/CN=odd",
         "-addext", "subjectAltName=IP:127.0.0.1")
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ctx.load_cert_chain(os.path.join(s.dir, "odd.crt"), os.path.join(s.dir, "odd.key"))
    kubelet = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Kubelet)
    kubelet.socket = ctx.wrap_socket(kubelet.socket, server_side=True)
    threading.Thread(target=kubelet.serve_forever, daemon=True).start()
    try:
        with With(s, "--kubelet-certificate-authority=ca.crt") as a:
            node = {"metadata": {"name": "n"}, "status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                                                          "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet.server_address[1]}}}}
            p = pod("p")
            p["spec"]["nodeName"] = "n"
            equal("made", (a.post("/api/v1/nodes", node)[0], a.post(PODS, p)[0]), (201, 201))
            st, _, said = a.raw("GET", PODS + "/p/log")
            check("verified", st == 500 and b"certificate" in said, said)
            equal("not to who does not mind", a.raw("GET", PODS + "/p/log?insecureSkipTLSVerifyBackend=true")[0::2],
                  (200, b"/containerLogs/default/p/" + p["spec"]["containers"][0]["name"].encode()))
            equal("and to nobody else", a.raw("GET", PODS + "/p/log?insecureSkipTLSVerifyBackend=false")[0], 500)
            told = a.raw("GET", "/metrics")[2].decode()
            equal("counted", [l for l in told.splitlines() if l.startswith("kube_apiserver_pod_logs_")],
                  ["kube_apiserver_pod_logs_backend_tls_failure_total 2", 'kube_apiserver_pod_logs_insecure_backend_total{usage="enforce_tls"} 2',
                   'kube_apiserver_pod_logs_insecure_backend_total{usage="skip_tls_allowed"} 1'])
    finally:
        kubelet.shutdown()
        kubelet.server_close()


def legacy_token(s, name, uid, secret):
    def part(b):
        return base64.urlsafe_b64encode(b).rstrip(b"=")
    claims = {"iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:default:" + name, "kubernetes.io/serviceaccount/namespace": "default",
              "kubernetes.io/serviceaccount/service-account.name": name, "kubernetes.io/serviceaccount/service-account.uid": uid,
              "kubernetes.io/serviceaccount/secret.name": secret}
    text = part(b'{"alg":"RS256"}') + b"." + part(json.dumps(claims).encode())
    sig = subprocess.run(["openssl", "dgst", "-sha256", "-sign", "sa.key"], cwd=s.dir, input=text, stdout=subprocess.PIPE, check=True).stdout
    return (text + b"." + part(sig)).decode()


def test_lookup(s):
    token = legacy_token(s, "nobody", "u", "none")
    ask = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    with With(s):
        equal("a token of no Secret", Client(s, token=token).post(ask, review)[0], 401)
    with With(s, "--service-account-lookup=false"):
        st, o = Client(s, token=token).post(ask, review)
        equal("nobody looks", (st, o["status"]["userInfo"]["username"]), (201, "system:serviceaccount:default:nobody"))


def begin_create(a, name):
    """A create whose body is still on its way; end_create sends the rest."""
    body = json.dumps(cm(name)).encode()
    c = a.open()
    c.putrequest("POST", CM)
    c.putheader("Content-Type", "application/json")
    c.putheader("Content-Length", str(len(body)))
    c.endheaders(body[:5])
    return c, body[5:]


def end_create(begun):
    begun[0].send(begun[1])
    return begun[0].getresponse().status


def test_inflight(s):
    with With(s, "--enable-priority-and-fairness=false", "--max-mutating-requests-inflight=1", "--runtime-config=flowcontrol.apiserver.k8s.io/v1=false") as a:
        alice = Client(s, token="alicetoken")
        equal("no schemas", a.raw("GET", CM)[1]["x-kubernetes-pf-flowschema-uid"], None)
        ready = a.raw("GET", "/readyz?verbose")[2].decode()
        check("its check", "max-in-flight-filter ok" in ready and "priority-and-fairness-filter" not in ready, ready)
        equal("nothing to be looked at", a.raw("GET", "/debug/api_priority_and_fairness/dump_queues")[0], 404)
        begun = begin_create(a, "held")
        until("one at once", lambda: alice.post(CM, cm("x"))[0] == 429)
        st, h, _ = alice.raw("POST", CM, json.dumps(cm("x")), {"Content-Type": "application/json"})
        equal("later", (st, h["retry-after"], h["content-type"]), (429, "1", "text/plain; charset=utf-8"))
        equal("reading is another number", alice.get(CM)[0], 403)
        equal("masters", a.post(CM, cm("y"))[0], 201)
        equal("it ends", end_create(begun), 201)
        until("room again", lambda: alice.post(CM, cm("x"))[0] == 403)


def test_garbage_collector(s):
    how = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground"}
    for flag, want in (("true", ["foregroundDeletion"]), ("false", None)):
        with With(s, "--enable-garbage-collector=" + flag) as a:
            a.post(CM, cm("c"))
            a.delete(CM + "/c", how)
            st, o = a.get(CM + "/c")
            equal("with it: " + flag, o["metadata"].get("finalizers") if st == 200 else None, want)


# ---- metrics ----

def test_metrics(s):
    write(s, "allowed.yaml", '"apiserver_request_total,code": "404"\n"apiserver_request_total,verb": "LIST,GET"\n')
    seconds = "apiserver_request_duration_seconds_count"
    with With(s, "--allow-metric-labels-manifest=allowed.yaml", '--allow-metric-labels="apiserver_request_total,code=200,201","etcd_requests_total,operation=list"',
              "--allow-metric-labels=apiserver_request_duration_seconds,verb=LIST", "--disabled-metrics=apiserver_response_sizes,none_of_that_name") as a:
        for path in (CM, CM + "/absent", CM + "/absent", "/api/v1/configmaps"):
            a.raw("GET", path)
        a.post(CM, cm("c"))
        of = [x for x in series(a, "apiserver_request_total") if x[0]["resource"] == "configmaps"]
        equal("what the flag and the file allow", sorted((x["code"], x["verb"], x["scope"], v) for x, v in of),
              [("200", "LIST", "cluster", 1), ("200", "LIST", "namespace", 1), ("201", "unexpected", "resource", 1), ("unexpected", "GET", "resource", 2)])
        equal("a histogram", sorted((x["verb"], x["scope"], v) for x, v in series(a, seconds) if x["resource"] == "configmaps"),
              [("LIST", "cluster", 1), ("LIST", "namespace", 1), ("unexpected", "resource", 3)])
        equal("kept pointers", {x["operation"] for x, _ in series(a, "etcd_requests_total")}, {"list", "unexpected"})
        n = series(a, "cardinality_enforcement_unexpected_categorizations_total")[0][1]
        a.raw("GET", CM + "/absent")
        check("they are counted", series(a, "cardinality_enforcement_unexpected_categorizations_total")[0][1] >= n + 2)
        equal("switched off", (series(a, "apiserver_response_sizes_count"), series(a, "disabled_metrics_total")), ([], [({}, 2.0)]))
    for what, more, words in (("no pair", "--allow-metric-labels=x", "must be formatted as key=value"),
                              ("no label", "--allow-metric-labels=x=y", "metricName,labelName"),
                              ("no such file", "--allow-metric-labels-manifest=absent.yaml", "--allow-metric-labels-manifest"),
                              ("no name", "--disabled-metrics=a-b", "fully qualified metric names"),
                              ("another release", "--show-hidden-metrics-for-version=1.34", "only the previous minor version is allowed")):
        refuses(s, what, [more], words)
    write(s, "allowed.yaml", "a: [b]\n")
    refuses(s, "a file of something else", ["--allow-metric-labels-manifest=allowed.yaml"], "is no string")


# ---- the port, the end ----

def test_sharing(s):
    other = Server(s.dir, "2")
    other.store = ["--data-dir", "data2"]
    with With(s, "--permit-port-sharing"):
        other.more = ["--secure-port=%d" % s.port]
        refuses_port = False
        try:
            other.start()
            other.stop()
        except SystemExit:
            refuses_port = True
        check("the port is taken", refuses_port)
        other.more = ["--secure-port=%d" % s.port, "--permit-port-sharing"]
        other.start()
        equal("two on a port", other.port, s.port)
        other.stop()


def test_retry_after(s):
    with With(s, "--shutdown-send-retry-after", "--shutdown-delay-duration=1ms") as a:
        equal("before", a.get(CM)[0], 200)
        begun = begin_create(a, "held")
        until("it is there", lambda: b'apiserver_current_inflight_requests{request_kind="mutating"} 1' in a.raw("GET", "/metrics")[2])
        s.proc.send_signal(signal.SIGTERM)
        b = Client(s, cert="admin")
        until("sent away", lambda: b.raw("GET", CM)[0] == 429)
        st, h, _ = b.raw("GET", CM)
        equal("told when", (st, h["retry-after"], h["connection"]), (429, "5", "close"))
        st, _, said = b.raw("GET", "/readyz")
        check("its health is told", st == 500 and b"[-]shutdown" in said, said)
        equal("what runs may end", end_create(begun), 201)
        equal("then it ends", s.proc.wait(60), 0)
        s.log.close()
        s.start()


if __name__ == "__main__":
    suite("flags", lambda s: {}, (test_privileged, test_runtime_config, test_runtime_config_refused, test_cert_dir, test_tls_limits, test_sni, test_http2,
                              test_prefix, test_kubelet_certificate, test_version, test_stored_as, test_events_end, test_watch_cache, test_identity, test_service, test_lookup,
                              test_inflight, test_garbage_collector, test_metrics, test_sharing, test_retry_after))
