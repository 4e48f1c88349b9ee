"""Servers that a replay talks to: Skiff's, upstream's (with an etcd), or one that already runs.

A server is named on the command line as
    skiff:KUBE_APISERVER            Skiff's API server, started on a free port with an empty store
    upstream:KUBE_APISERVER,ETCD    upstream's, with an etcd of its own
    at:https://HOST:PORT,DIR        one that runs already; DIR has ca.crt, admin.crt, admin.key
All get the same flags, tokens and certificates, so that what differs is the server.
"""
import base64, json, os, shutil, signal, socket, ssl, subprocess, tempfile, time, http.client

TOKENS = """alice-token,alice,uid-alice,"dev,ops"
bob-token,bob,uid-bob
carol-token,carol,uid-carol,"replay-readers"
"""
NODE = "replay-node"
UID = "1.3.6.1.4.1.57683.2"  # in a subject: the user's uid
PEOPLE = {
    "many": "/O=b/O=a/O=b/OU=x/CN=first/CN=last",
    "numbered": "/CN=numbered/%s=u1" % UID,
    "twice": "/CN=twice/%s=u1/%s=u2" % (UID, UID),
    "nameless": "/O=a",
    "serving": "/CN=serving",
    "account": "/O=system:serviceaccounts/CN=system:serviceaccount:a:b",
    "anon": "/CN=system:anonymous",
    "grouped": "/O=system:authenticated/O=system:unauthenticated/CN=grouped",
}
# what is audited: requests of some namespaces; the others cost nothing
AUDITED = "replay-annotations, replay-reinvoked, replay-charged"
AUDIT = """apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Request, namespaces: [%s]}
- {level: None}
""" % AUDITED
ADMISSION = """apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: PodSecurity
  configuration:
    apiVersion: pod-security.admission.config.k8s.io/v1
    kind: PodSecurityConfiguration
    defaults: {warn-version: v1.20}
    exemptions:
      usernames: [spared]
      namespaces: [replay-spared]
      runtimeClasses: [spared]
- name: ResourceQuota
  configuration:
    apiVersion: apiserver.config.k8s.io/v1
    kind: ResourceQuotaConfiguration
    limitedResources:
    - resource: pods
      matchContains: [replay.example.com/limited]
      matchScopes: [{scopeName: PriorityClass, operator: In, values: [replay-limited]}]
    - {resource: configmaps, matchContains: [replay.example.com/none]}
"""
CERTS = ("admin", "node", "front", "back", "stranger") + tuple(PEOPLE)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A started server; ends with its processes and files at close()."""

    def __init__(self, spec, dir=None, dual_stack=False):
        self.kind, _, rest = spec.partition(":")
        self.ranges = "10.96.0.0/12,fd00:10:96::/112" if dual_stack else "10.96.0.0/12"
        self.procs = []
        self.own_dir = dir is None
        self.dir = dir or tempfile.mkdtemp(prefix="replay-")
        self.host = "127.0.0.1"
        try:
            if self.kind == "at":
                url, _, self.dir = rest.partition(",")
                self.own_dir = False
                self.host, _, port = url[len("https://"):].partition(":")
                self.port = int(port)
            elif self.kind == "skiff":
                self.pki()
                self.start_skiff(os.path.abspath(rest))
            elif self.kind == "upstream":
                exe, _, etcd = rest.partition(",")
                self.pki()
                self.start_upstream(os.path.abspath(exe), os.path.abspath(etcd))
            else:
                raise SystemExit("replay: unknown server %r" % spec)
            self.wait_ready()
        except BaseException:
            self.close()
            raise

    def sh(self, *argv):
        r = subprocess.run(argv, cwd=self.dir, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if r.returncode:
            raise SystemExit("replay: %s: %s" % (" ".join(argv), r.stdout.decode()))

    def cert(self, name, subj, ext, ca="ca"):
        with open(os.path.join(self.dir, name + ".ext"), "w") as f:
            f.write(ext)
        self.sh("openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", name + ".key")
        self.sh("openssl", "req", "-new", "-key", name + ".key", "-subj", subj, "-out", name + ".csr")
        self.sh("openssl", "x509", "-req", "-in", name + ".csr", "-CA", ca + ".crt", "-CAkey", ca + ".key", "-CAcreateserial", "-days", "2",
                "-extfile", name + ".ext", "-out", name + ".crt")

    def pki(self):
        self.sh("openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", "ca.key")
        self.sh("openssl", "req", "-x509", "-new", "-key", "ca.key", "-subj", "/CN=ca", "-days", "2", "-out", "ca.crt")
        self.cert("server", "/CN=kube-apiserver", "subjectAltName=IP:127.0.0.1")
        self.cert("admin", "/O=system:masters/CN=admin", "extendedKeyUsage=clientAuth")
        self.cert("node", "/O=system:nodes/CN=system:node:" + NODE, "extendedKeyUsage=clientAuth")
        for name, subj in PEOPLE.items():
            self.cert(name, subj, "extendedKeyUsage=" + ("serverAuth" if name == "serving" else "clientAuth"))
        for ca in ("front-ca", "other-ca"):
            self.sh("openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", ca + ".key")
            self.sh("openssl", "req", "-x509", "-new", "-key", ca + ".key", "-subj", "/CN=" + ca, "-days", "2", "-out", ca + ".crt")
        self.cert("front", "/CN=front", "extendedKeyUsage=clientAuth", "front-ca")
        self.cert("back", "/CN=back", "extendedKeyUsage=clientAuth", "front-ca")
        self.cert("stranger", "/CN=stranger", "extendedKeyUsage=clientAuth", "other-ca")
        self.sh("openssl", "genrsa", "-out", "sa.key", "2048")
        self.sh("openssl", "rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub")
        with open(os.path.join(self.dir, "tokens.csv"), "w") as f:
            f.write(TOKENS)
        for name, text in (("audit.yaml", AUDIT), ("admission.yaml", ADMISSION)):
            with open(os.path.join(self.dir, name), "w") as f:
                f.write(text)

    def flags(self):
        return ["--bind-address=127.0.0.1", "--tls-cert-file=server.crt", "--tls-private-key-file=server.key", "--client-ca-file=ca.crt",
                "--service-account-issuer=https://kubernetes.default.svc.cluster.local", "--service-account-key-file=sa.pub",
                "--service-account-signing-key-file=sa.key", "--token-auth-file=tokens.csv", "--service-cluster-ip-range=" + self.ranges,
                "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--enable-bootstrap-token-auth=true",
                "--allow-privileged=true", "--audit-policy-file=audit.yaml", "--audit-log-path=audit.log",
                "--admission-control-config-file=admission.yaml",
                "--requestheader-client-ca-file=front-ca.crt", "--requestheader-allowed-names=front",
                "--requestheader-username-headers=X-Remote-User,X-Other-User", "--requestheader-uid-headers=X-Remote-Uid",
                "--requestheader-group-headers=X-Remote-Group,X-Other-Group",
                "--requestheader-extra-headers-prefix=X-Remote-Extra-,X-Other-"]

    def sign(self, head, claims, key):
        """A JWT (RFC 7519) signed by one of the directory's keys, as `alg` in its head says; "none" has no signature."""
        def part(b):
            return base64.urlsafe_b64encode(b).rstrip(b"=")
        text = b".".join(part(json.dumps(v, separators=(",", ":")).encode()) for v in (head, claims))
        alg = head["alg"]
        if alg == "none":
            return (text + b".").decode()
        argv = ["openssl", "dgst", "-sha" + (alg[2:] if alg[2:] in ("256", "384", "512") else "256"), "-sign", key]
        if alg[:2] == "PS":
            argv += ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"]
        sig = subprocess.run(argv, cwd=self.dir, input=text, stdout=subprocess.PIPE, check=True).stdout
        return (text + b"." + part(sig)).decode()

    def spawn(self, argv):
        log = open(os.path.join(self.dir, os.path.basename(argv[0]) + ".log"), "ab")
        p = subprocess.Popen(argv, cwd=self.dir, stdout=log, stderr=log)
        log.close()
        self.procs.append(p)

    def start_skiff(self, exe):
        port = os.path.join(self.dir, "port")
        self.spawn([exe, "--data-dir=data", "--secure-port=0", "--port-file=port"] + self.flags())
        end = time.time() + 30
        while not os.path.exists(port):
            if self.procs[-1].poll() is not None or time.time() > end:
                raise SystemExit("replay: the server did not start; see its log:\n" + self.log_tail())
            time.sleep(0.02)
        self.port = int(open(port).read())

    def start_upstream(self, exe, etcd):
        client, peer = free_port(), free_port()
        url = "http://127.0.0.1:%d" % client
        self.spawn([etcd, "--data-dir=etcd", "--listen-client-urls=" + url, "--advertise-client-urls=" + url,
                    "--listen-peer-urls=http://127.0.0.1:%d" % peer, "--unsafe-no-fsync"])
        self.port = free_port()
        self.spawn([exe, "--etcd-servers=" + url, "--secure-port=%d" % self.port] + self.flags())

    def log_tail(self):
        out = ""
        for f in sorted(os.listdir(self.dir)):
            if f.endswith(".log"):
                with open(os.path.join(self.dir, f), errors="replace") as fd:
                    out += "--- %s\n%s\n" % (f, fd.read()[-3000:])
        return out

    def wait_ready(self):
        """Ready is /readyz answering 200 to the admin and the namespace "default" being there."""
        end = time.time() + 120
        while time.time() < end:
            for p in self.procs:
                if p.poll() is not None:
                    raise SystemExit("replay: a server ended:\n" + self.log_tail())
            try:
                if all(self.status(p) == 200 for p in ("/readyz", "/api/v1/namespaces/default", "/api/v1/namespaces/default/services/kubernetes")):
                    return
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.1)
        raise SystemExit("replay: the server did not become ready:\n" + self.log_tail())

    def status(self, path):
        c = self.connect("admin")
        try:
            c.request("GET", path)
            return c.getresponse().status
        finally:
            c.close()

    def audited(self):
        """The newest events of the audit log; a line that is not whole yet is none."""
        with open(os.path.join(self.dir, "audit.log"), "rb") as f:
            f.seek(max(0, f.seek(0, os.SEEK_END) - (1 << 20)))
            lines = f.read().split(b"\n")
        return [json.loads(l) for l in lines[:-1] if l[:1] == b"{" and l[-1:] == b"}"]

    def connect(self, cert=None, timeout=30):
        """A new connection; cert: the base name of a client certificate, or None."""
        ctx = ssl.create_default_context(cafile=os.path.join(self.dir, "ca.crt"))
        if cert:
            ctx.load_cert_chain(os.path.join(self.dir, cert + ".crt"), os.path.join(self.dir, cert + ".key"))
        return http.client.HTTPSConnection(self.host, self.port, context=ctx, timeout=timeout)

    def close(self):
        for p in reversed(self.procs):
            if p.poll() is None:
                p.send_signal(signal.SIGTERM)
                try:
                    p.wait(20)
                except subprocess.TimeoutExpired:
                    p.kill()
                    p.wait()
        self.procs = []
        if self.own_dir:
            shutil.rmtree(self.dir, ignore_errors=True)


class Pair:
    """The servers of one name: scenarios with "#! dual-stack" get one with a range of addresses of each family. Started when first wanted."""

    def __init__(self, spec):
        self.spec, self.started = spec, {}

    def of(self, sc):
        dual = "dual-stack" in sc.flags
        if dual not in self.started:
            self.started[dual] = Server(self.spec, dual_stack=dual)
        return self.started[dual]

    def log_tail(self):
        return "".join(s.log_tail() for s in self.started.values())

    def close(self):
        for s in self.started.values():
            s.close()
