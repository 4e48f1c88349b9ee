#!/usr/bin/env python3
"""What --admission-control-config-file tells admission plugins, the plugins that are off unless named, Pod Security Standards by version.

Usage: admission_test.py PATH-OF-kube-apiserver [TEST...]. Prints one line a failed check and "N passed, N failed".
"""
import copy, json, os, ssl, sys, threading, http.server, base64

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from apiserver_test import CM, PODS, Client, causes, check, cm, equal, suite, write
from access_test import refuses, until
from web import Web

NS = "/api/v1/namespaces"
PSS = "pod-security.kubernetes.io/"


def config(s, **plugins):
    return write(s, "admission.yaml", {"kind": "AdmissionConfiguration", "apiVersion": "apiserver.config.k8s.io/v1", "plugins": [
        {"name": n, "path": c} if isinstance(c, str) else {"name": n, "configuration": c} for n, c in plugins.items()]})


def start(s, *flags, **plugins):
    s.more = ["--admission-control-config-file", config(s, **plugins)] + list(flags)
    s.start()


def security(**k):
    return dict({"kind": "PodSecurityConfiguration", "apiVersion": "pod-security.admission.config.k8s.io/v1"}, **k)


def namespace(name, **labels):
    return {"metadata": {"name": name, "labels": {PSS + k.replace("_", "-"): v for k, v in labels.items()}}}


def pod(name, **spec):
    c = dict({"name": "c", "image": "i"}, **spec.pop("c", {}))
    return {"metadata": {"name": name, "annotations": spec.pop("notes", {})}, "spec": dict({"containers": [c]}, **spec)}


GOOD = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def warned(a, method, path, obj):
    """(status, Warning headers, answer)"""
    st, h, body = a.raw(method, path, json.dumps(obj), {"Content-Type": "application/json"})
    return st, [w.split('"', 1)[1].rsplit('"', 1)[0].replace('\\"', '"') for w in h.get_all("Warning") or []], json.loads(body)


def test_configuration(s, a):
    start(s, PodSecurity=security(defaults={"enforce": "baseline", "audit": "restricted", "warn": "restricted", "warn-version": "v1.22"},
                                  exemptions={"usernames": ["alice"], "namespaces": ["free"], "runtimeClasses": ["kata"]}))
    a.post(NS, namespace("plain"))
    pods = NS + "/plain/pods"
    a.post(NS + "/plain/serviceaccounts", {"metadata": {"name": "default"}})
    equal("by the defaults", a.post(pods, pod("x", hostNetwork=True))[0], 403)
    st, w, _ = warned(a, "POST", pods, pod("ok"))
    equal("what is warned of", st, 201)
    check("by the default's version", len(w) == 1 and 'PodSecurity "restricted:v1.22"' in w[0] and "seccompProfile" in w[0], w)
    a.post(NS, namespace("mine", enforce="privileged", warn="privileged"))
    a.post(NS + "/mine/serviceaccounts", {"metadata": {"name": "default"}})
    equal("labels go first", a.post(NS + "/mine/pods", pod("x", hostNetwork=True))[0], 201)
    a.post("/apis/node.k8s.io/v1/runtimeclasses", {"metadata": {"name": "kata"}, "handler": "kata"})
    equal("a runtime class exempts", a.post(pods, pod("kata", hostNetwork=True, runtimeClassName="kata"))[0], 201)
    st, w, _ = warned(a, "POST", NS, namespace("free", enforce="restricted", audit="baseline", warn="restricted", warn_version="v1.30"))
    equal("a namespace that is exempt", (st, len(w)), (201, 1))
    check("is told so", 'namespace "free" is exempt' in w[0] and "enforce=restricted:latest, audit=baseline:latest, warn=restricted:v1.30" in w[0], w)
    a.post(NS + "/free/serviceaccounts", {"metadata": {"name": "default"}})
    equal("and judges nothing", warned(a, "POST", NS + "/free/pods", pod("x", hostNetwork=True))[:2], (201, []))
    alice = Client(s, token="alicetoken")
    a.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", {
        "metadata": {"name": "alice"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "alice"}]})
    equal("a user that is exempt", alice.post(pods, pod("alices", hostNetwork=True))[0], 201)
    s.stop()
    for what, c, words in (("level", {"defaults": {"enforce": "strict"}}, 'defaults.enforce: Invalid value: "strict"'),
                           ("version", {"defaults": {"warn-version": "1.2"}}, 'defaults.warn-version: Invalid value: "1.2"'),
                           ("namespace", {"exemptions": {"namespaces": ["A"]}}, "exemptions.namespaces[0]: Invalid value"),
                           ("twice", {"exemptions": {"usernames": ["a", "a"]}}, "exemptions.usernames[1]: Duplicate value"),
                           ("field", {"exemption": {}}, 'unknown field "exemption"')):
        s.more = []
        refuses(s, what, ["--admission-control-config-file", config(s, PodSecurity=security(**c))], words)
    refuses(s, "kind", ["--admission-control-config-file", config(s, PodSecurity=security(kind="Policy"))], "expected PodSecurityConfiguration")
    refuses(s, "file", ["--admission-control-config-file", config(s, PodSecurity="none.yaml")], "none.yaml")
    write(s, "pss.yaml", security(defaults={"enforce": "restricted"}))
    start(s, PodSecurity="pss.yaml")
    equal("from a file beside", a.post(pods, pod("y"))[0], 403)
    s.stop()


def test_versions(s, a):
    s.more = []
    s.start()
    caps = lambda *add: {"securityContext": dict(GOOD, capabilities={"drop": ["ALL"], "add": list(add)})}
    sysctl = lambda n: {"securityContext": {"sysctls": [{"name": n, "value": "1"}]}}
    probe = {"c": {"livenessProbe": {"httpGet": {"host": "10.0.0.1", "port": 80}}}}
    for i, (what, level, spec, since, refused) in enumerate((
            # (what, level, pod, the version from which it is refused (or allowed), whether it is then refused)
            ("probe host", "baseline", probe, 34, True),
            ("hook host", "baseline", {"c": {"lifecycle": {"preStop": {"httpGet": {"host": "h", "port": 1}}}}}, 34, True),
            ("ports sysctl", "baseline", sysctl("net.ipv4.ip_local_reserved_ports"), 27, False),
            ("keepalive sysctl", "baseline", sysctl("net.ipv4.tcp_fin_timeout"), 29, False),
            ("rmem sysctl", "baseline", sysctl("net.ipv4.tcp_rmem"), 32, False),
            ("SELinux type", "baseline", {"securityContext": {"seLinuxOptions": {"type": "container_engine_t"}}}, 31, False),
            ("seccomp field", "baseline", {"securityContext": {"seccompProfile": {"type": "Unconfined"}}}, 19, True),
            ("escalation", "restricted", {"c": {"securityContext": dict(GOOD, allowPrivilegeEscalation=True)}}, 8, True),
            ("capabilities", "restricted", {"c": caps("CHOWN")}, 22, True),
            ("root", "restricted", {"c": {"securityContext": dict(GOOD, runAsUser=0)}}, 23, True),
            ("no seccomp", "restricted", {"c": {"securityContext": dict(GOOD, seccompProfile=None)}}, 19, True),
            ("windows", "restricted", {"os": {"name": "windows"}, "securityContext": {"runAsNonRoot": True}}, 25, False),
            ("user namespace", "restricted", {"hostUsers": False, "c": {"securityContext": dict(GOOD, runAsNonRoot=None)}}, 35, False))):
        for version, no in (("v1.%d" % (since - 1), not refused), ("v1.%d" % since, refused), ("v1.99", refused), ("latest", refused)):
            ns = "v%d-%s" % (i, version.replace(".", "-"))
            a.post(NS, namespace(ns, enforce=level, enforce_version=version))
            a.post(NS + "/%s/serviceaccounts" % ns, {"metadata": {"name": "default"}})
            equal("%s in %s" % (what, version), a.post(NS + "/%s/pods?dryRun=All" % ns, pod("p", **copy.deepcopy(spec)))[0], 403 if no else 201)
    a.post(NS, namespace("old", enforce="baseline", enforce_version="v1.18"))
    a.post(NS + "/old/serviceaccounts", {"metadata": {"name": "default"}})
    seccomp = "seccomp.security.alpha.kubernetes.io/pod"
    st, o = a.post(NS + "/old/pods?dryRun=All", pod("p", notes={seccomp: "unconfined"}))
    check("seccomp annotations before v1.19", st == 403 and "forbidden annotation" in o["message"], o)
    apparmor = {"container.apparmor.security.beta.kubernetes.io/c": "unconfined"}
    st, o = a.post(NS + "/old/pods?dryRun=All", pod("p", notes=apparmor))
    check("AppArmor annotations", st == 403 and "forbidden AppArmor profile" in o["message"], o)
    # what controllers make is warned of and logged, not refused
    a.post(NS, namespace("warns", enforce="restricted"))
    t = {"metadata": {"name": "t"}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}
    st, w, _ = warned(a, "POST", NS + "/warns/podtemplates", t)
    check("templates are warned of", st == 201 and len(w) == 1 and "would violate PodSecurity" in w[0], (st, w))
    s.stop()


def test_existing_pods(s, a):
    s.more = []
    s.start()
    a.post(NS, namespace("busy"))
    a.post(NS + "/busy/serviceaccounts", {"metadata": {"name": "default"}})
    owner = [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "u", "controller": True}]
    for name, p in (("b", pod("b", hostNetwork=True)), ("a", pod("a", hostNetwork=True)), ("c", pod("c", hostPID=True)), ("d", pod("d"))):
        p["metadata"]["ownerReferences"] = owner if name in "ab" else []
        equal("pod " + name, a.post(NS + "/busy/pods", p)[0], 201)
    o = a.get(NS + "/busy")[1]

    def label(**k):
        o["metadata"]["labels"] = dict({"kubernetes.io/metadata.name": "busy"}, **namespace("busy", **k)["metadata"]["labels"])
        o["metadata"].pop("resourceVersion", None)
        return warned(a, "PUT", NS + "/busy", o)[:2]

    host = "host namespaces"
    equal("pods that violate the new level", label(enforce="baseline"),
          (200, ['existing pods in namespace "busy" violate the new PodSecurity enforce level "baseline:latest"', "a (and 2 other pods): " + host]))
    equal("the same again", label(enforce="baseline"), (200, []))
    equal("less strict", label(enforce="privileged"), (200, []))
    st, w = label(enforce="restricted", enforce_version="v1.10")
    check("with all reasons", st == 200 and any(x.startswith("a (and 2 other pods): host namespaces, allowPrivilegeEscalation != false, runAsNonRoot != true")
                                                for x in w) and any(x.startswith("d: allowPrivilegeEscalation") for x in w), w)
    equal("another version", label(enforce="baseline", enforce_version="v1.10")[0], 200)
    # an update of a pod counts when it brings other images
    p = a.get(NS + "/busy/pods/a")[1]
    p["metadata"]["labels"] = {"x": "y"}
    equal("a label of a pod", a.put(NS + "/busy/pods/a", p)[0], 200)
    p = a.get(NS + "/busy/pods/a")[1]
    p["spec"]["containers"][0]["image"] = "other"
    equal("an image of a pod", a.put(NS + "/busy/pods/a", p)[0], 403)
    s.stop()


def test_optional(s, a):
    for flag, words in ((["--enable-admission-plugins=Nonsense"], 'admission plugin "Nonsense" is unknown'),
                        (["--disable-admission-plugins=Nonsense"], 'admission plugin "Nonsense" is unknown'),
                        (["--enable-admission-plugins=EventRateLimit"], "EventRateLimit is not built"),
                        (["--enable-admission-plugins=AlwaysPullImages", "--disable-admission-plugins=AlwaysPullImages"], "is in --enable")):
        s.more = []
        refuses(s, flag[0], flag, words)
    start(s, "--enable-admission-plugins=AlwaysPullImages,NamespaceAutoProvision,LimitPodHardAntiAffinityTopology,PodNodeSelector,"
             "ExtendedResourceToleration,DenyServiceExternalIPs,OwnerReferencesPermissionEnforcement,PodGroupProtection",
          "--default-not-ready-toleration-seconds=7", "--disable-admission-plugins=ServiceAccount",
          PodNodeSelector={"podNodeSelectorPluginConfig": {"clusterDefaultNodeSelector": "zone=a", "walled": "zone=a,disk=ssd"}})
    equal("the namespace comes by itself", a.post(NS + "/fresh/configmaps", cm("x"))[0], 201)
    equal("and is there", a.get(NS + "/fresh")[0], 200)
    st, p = a.post(NS + "/fresh/pods", pod("p", c={"imagePullPolicy": "Never", "resources": {
        "requests": {"example.com/gpu": "1"}, "limits": {"example.com/gpu": "1"}}}, volumes=[{"name": "v", "image": {"reference": "r", "pullPolicy": "Never"}}]))
    equal("a pod", st, 201)
    equal("pulls always", (p["spec"]["containers"][0]["imagePullPolicy"], p["spec"]["volumes"][0]["image"]["pullPolicy"]), ("Always", "Always"))
    equal("where the cluster says", p["spec"]["nodeSelector"], {"zone": "a"})
    equal("tolerates nodes of its device, and the others seven seconds", sorted((t["key"], t["operator"], t["effect"], t.get("tolerationSeconds"))
                                                                               for t in p["spec"]["tolerations"]),
          [("example.com/gpu", "Exists", "NoSchedule", None), ("node.kubernetes.io/not-ready", "Exists", "NoExecute", 7),
           ("node.kubernetes.io/unreachable", "Exists", "NoExecute", 300)])
    equal("another node selector", a.post(NS + "/fresh/pods", pod("q", nodeSelector={"zone": "b"}))[0], 403)
    equal("outside of the wall", a.post(NS + "/walled/pods", pod("q", nodeSelector={"arch": "x"}))[0], 403)
    equal("within", a.post(NS + "/walled/pods", pod("q", nodeSelector={"disk": "ssd"}))[0], 201)
    term = {"labelSelector": {}, "topologyKey": "zone"}
    anti = lambda t: {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [t]}}}
    equal("anti-affinity of zones", a.post(NS + "/fresh/pods", pod("r", **anti(term)))[0], 403)
    equal("of hosts", a.post(NS + "/fresh/pods", pod("r", **anti(dict(term, topologyKey="kubernetes.io/hostname"))))[0], 201)
    svc = lambda n, ips: {"metadata": {"name": n}, "spec": {"ports": [{"port": 80}], "externalIPs": ips}}
    equal("external addresses", a.post(NS + "/fresh/services", svc("s", ["1.2.3.4"]))[0], 403)
    equal("none", a.post(NS + "/fresh/services", svc("s", []))[0], 201)
    bob = Client(s, token="bobtoken")
    rbac = "/apis/rbac.authorization.k8s.io/v1/"
    a.post(rbac + "clusterroles", {"metadata": {"name": "maps"}, "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "update", "get"]}]})
    a.post(rbac + "clusterrolebindings", {"metadata": {"name": "maps"}, "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "bob"}],
                                          "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "maps"}})
    own = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "u"}
    owned = lambda n, **k: {"metadata": {"name": n, "ownerReferences": [dict(own, **k)]}}
    equal("owners of a new object", bob.post(NS + "/fresh/configmaps", owned("o"))[0], 201)
    equal("that it would block", bob.post(NS + "/fresh/configmaps", owned("p", blockOwnerDeletion=True))[0], 403)
    equal("of a kind that is not known", bob.post(NS + "/fresh/configmaps", owned("p", kind="Gone", blockOwnerDeletion=True))[0], 403)
    equal("changed by who cannot delete", bob.put(NS + "/fresh/configmaps/o", cm("o"))[0], 403)
    a.post(rbac + "clusterroles", {"metadata": {"name": "final"}, "rules": [{"apiGroups": [""], "resources": ["configmaps/finalizers"], "verbs": ["update"]}]})
    a.post(rbac + "clusterrolebindings", {"metadata": {"name": "final"}, "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "bob"}],
                                          "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "final"}})
    equal("with leave", bob.post(NS + "/fresh/configmaps", owned("p", blockOwnerDeletion=True))[0], 201)
    s.stop()
    # a file from before AdmissionConfiguration is the plugin's own
    with open(os.path.join(s.dir, "legacy.yaml"), "w") as f:
        f.write("kind: Any\npodNodeSelectorPluginConfig: {clusterDefaultNodeSelector: zone=z}\n")
    s.more = ["--enable-admission-plugins=PodNodeSelector", "--disable-admission-plugins=ServiceAccount", "--admission-control-config-file=legacy.yaml"]
    s.start()
    equal("as the old file says", a.post(NS + "/fresh/pods?dryRun=All", pod("z"))[1]["spec"]["nodeSelector"], {"zone": "z"})
    s.stop()
    s.more = ["--enable-admission-plugins=AlwaysDeny"]
    s.start()
    equal("nothing", (a.post(CM, cm("denied"))[0], a.get(CM)[0]), (403, 200))
    s.stop()


def test_quota(s, a):
    start(s, ResourceQuota={"kind": "ResourceQuotaConfiguration", "apiVersion": "apiserver.config.k8s.io/v1", "limitedResources": [
        {"resource": "persistentvolumeclaims", "matchContains": [".storageclass.storage.k8s.io/requests.storage"]},
        {"resource": "pods", "matchScopes": [{"scopeName": "PriorityClass", "operator": "In", "values": ["important"]}]}]})
    a.post(NS, namespace("lim"))
    a.post(NS + "/lim/serviceaccounts", {"metadata": {"name": "default"}})
    pvc = {"metadata": {"name": "p"}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "gold", "resources": {"requests": {"storage": "1Gi"}}}}
    st, o = a.post(NS + "/lim/persistentvolumeclaims", pvc)
    check("no quota covers it", st == 403 and "insufficient quota to consume: gold.storageclass.storage.k8s.io/requests.storage" in o["message"], o)
    pvc["spec"].pop("storageClassName")
    equal("without a class", a.post(NS + "/lim/persistentvolumeclaims", pvc)[0], 201)
    a.post("/apis/scheduling.k8s.io/v1/priorityclasses", {"metadata": {"name": "important"}, "value": 5})
    st, o = a.post(NS + "/lim/pods", pod("p", priorityClassName="important"))
    check("no quota has the scope", st == 500 and "insufficient quota to match these scopes" in o["message"], o)
    equal("another pod", a.post(NS + "/lim/pods", pod("p"))[0], 201)
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "5"}, "scopeSelector": {"matchExpressions": [
        {"scopeName": "PriorityClass", "operator": "In", "values": ["important"]}]}}}
    st, q = a.post(NS + "/lim/resourcequotas", quota)
    q["status"] = {"hard": {"pods": "5"}, "used": {"pods": "0"}}
    equal("its status", a.put(NS + "/lim/resourcequotas/q/status", q)[0], 200)
    equal("covered", a.post(NS + "/lim/pods", pod("important", priorityClassName="important"))[0], 201)
    s.stop()
    s.more = []
    refuses(s, "no resource", ["--admission-control-config-file", config(s, ResourceQuota={
        "kind": "ResourceQuotaConfiguration", "apiVersion": "apiserver.config.k8s.io/v1", "limitedResources": [{}]})], "limitedResources[0].resource: Required value")


class Hook(http.server.BaseHTTPRequestHandler):
    seen = []

    def log_message(self, *a):
        pass

    def do_POST(self):
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        cert = self.connection.getpeercert()
        who = dict(x[0] for x in cert["subject"])["commonName"] if cert else None
        Hook.seen.append((self.headers.get("Authorization"), who))
        body = json.dumps({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": {"uid": review["request"]["uid"], "allowed": True}})
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())


def test_webhook_users(s, a):
    s.cert("hook", "/CN=hook", "subjectAltName=IP:127.0.0.1")
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ctx.load_cert_chain(os.path.join(s.dir, "hook.crt"), os.path.join(s.dir, "hook.key"))
    ctx.load_verify_locations(os.path.join(s.dir, "ca.crt"))
    ctx.verify_mode = ssl.CERT_OPTIONAL
    httpd.socket = ctx.wrap_socket(httpd.socket, server_side=True)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    port = httpd.server_address[1]
    ca = base64.b64encode(open(os.path.join(s.dir, "ca.crt"), "rb").read()).decode()
    file = write(s, "hooks.kubeconfig", {"kind": "Config", "apiVersion": "v1", "users": [
        {"name": "127.0.0.1:%d" % port, "user": {"token": "to-the-hook"}},
        {"name": "*", "user": {"client-certificate": "admin.crt", "client-key": "admin.key"}}]})
    other = write(s, "other.kubeconfig", {"kind": "Config", "apiVersion": "v1", "users": [
        {"name": "*", "user": {"client-certificate": "admin.crt", "client-key": "admin.key"}}]})
    conf = lambda f: {"kind": "WebhookAdmissionConfiguration", "apiVersion": "apiserver.config.k8s.io/v1", "kubeConfigFile": f}
    start(s, MutatingAdmissionWebhook=conf(file), ValidatingAdmissionWebhook=conf(other))
    for kind, plural in (("Mutating", "mutating"), ("Validating", "validating")):
        st, o = a.post("/apis/admissionregistration.k8s.io/v1/%swebhookconfigurations" % plural, {
            "kind": kind + "WebhookConfiguration", "apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": "h"}, "webhooks": [{
                "name": "h.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "clientConfig": {"url": "https://127.0.0.1:%d/" % port, "caBundle": ca},
                "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]}]})
        equal("configuration", st, 201)
    equal("asked", a.post(CM, cm("hooked"))[0], 201)
    equal("as who the files say", Hook.seen, [("Bearer to-the-hook", None), (None, "admin")])
    s.stop()
    httpd.shutdown()
    s.more = []
    refuses(s, "a relative path", ["--admission-control-config-file", config(s, MutatingAdmissionWebhook=conf("x"))], "must be an absolute file path")
    exec_ = write(s, "exec.kubeconfig", {"kind": "Config", "apiVersion": "v1", "users": [{"name": "*", "user": {"exec": {"command": "x"}}}]})
    refuses(s, "exec plugins", ["--admission-control-config-file", config(s, MutatingAdmissionWebhook=conf(exec_))], "exec plugin")


def test_images(s, a):
    """Images of pods are judged by a webhook, whose answers are remembered."""
    asked, answers = [], {}

    def judge(rq):
        review = json.loads(rq.body)
        asked.append(review)
        images = [c["image"] for c in review["spec"]["containers"]]
        return next((answers[i] for i in images if i in answers), {"apiVersion": "imagepolicy.k8s.io/v1alpha1", "kind": "ImageReview", "status": {"allowed": True}})

    def status(**k):
        return {"apiVersion": "imagepolicy.k8s.io/v1alpha1", "kind": "ImageReview", "status": k}

    def images():
        n, asked[:] = list(asked), []
        return [[c["image"] for c in r["spec"]["containers"]] for r in n]

    def make(name, image, **spec):
        st, o = a.post(NS + "/default/pods", pod(name, c={"image": image}, **spec))
        return st, o.get("message", "")

    web = Web(judge, s, "images")
    kubeconfig = write(s, "images.kubeconfig", web.kubeconfig("/review"))
    policy = lambda **k: {"imagePolicy": dict({"kubeConfigFile": kubeconfig, "retryBackoff": 1}, **k)}
    audit = write(s, "images-audit.yaml", "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Metadata\n  verbs: [create]\n")
    log = ("--audit-log-path", "images.log", "--audit-policy-file", audit)

    def notes(name):
        with open(os.path.join(s.dir, "images.log")) as f:
            for l in f:
                e = json.loads(l)
                if e["stage"] == "ResponseComplete" and e["objectRef"].get("name") == name:
                    return {k.split("/")[1]: v for k, v in e["annotations"].items() if k.startswith("imagepolicywebhook.image-policy.k8s.io/")}

    on = "--enable-admission-plugins=ImagePolicyWebhook"
    s.more = []
    refuses(s, "without a configuration", [on], "no config specified")
    for k, bad in (("allowTTL", 1801), ("denyTTL", -2), ("retryBackoff", 300001)):
        refuses(s, "%s %d" % (k, bad), [on, "--admission-control-config-file", config(s, ImagePolicyWebhook=policy(**{k: bad}))], k)
    refuses(s, "no kubeconfig", [on, "--admission-control-config-file", config(s, ImagePolicyWebhook={"imagePolicy": {}})], "kubeConfigFile")
    start(s, on, *log, ImagePolicyWebhook=policy(denyTTL=-1))
    a.post(NS + "/default/serviceaccounts", {"metadata": {"name": "default"}})
    equal("allowed", make("one", "a", initContainers=[{"name": "i", "image": "b"}], notes={"x.image-policy.k8s.io/t": "1", "image-policy.k8s.io/t": "2", "y": "3"}),
          (201, ""))
    equal("what was asked", asked, [{"kind": "ImageReview", "apiVersion": "imagepolicy.k8s.io/v1alpha1", "metadata": {}, "spec": {
        "containers": [{"image": "a"}, {"image": "b"}], "annotations": {"x.image-policy.k8s.io/t": "1"}, "namespace": "default"}, "status": {"allowed": False}}])
    images()
    equal("others", (make("two", "a"), make("three", "a")), ((201, ""), (201, "")))
    equal("the same is asked once", images(), [["a"]])
    equal("nothing but pods", (a.post(NS + "/default/serviceaccounts", {"metadata": {"name": "images"}})[0], images()), (201, []))
    answers["bad"] = status(allowed=False, reason="it is bad", auditAnnotations={"judged": "by hand"})
    for i in range(2):
        st, why = make("bad", "bad")
        check("refused", st == 403 and why.endswith("image policy webhook backend denied one or more images: it is bad"), (st, why))
    equal("and asked anew", images(), [["bad"], ["bad"]])
    equal("the audit is told", until("an event", lambda: notes("bad")), {"judged": "by hand"})
    answers["worse"] = status(allowed=False)
    check("without a reason", make("worse", "worse")[1].endswith("one or more images rejected by webhook backend"))
    p = a.get(NS + "/default/pods/one")[1]
    p["spec"]["ephemeralContainers"] = [{"name": "e", "image": "bad", "terminationMessagePolicy": "File"}]
    images()
    equal("ephemeral ones", a.put(NS + "/default/pods/one/ephemeralcontainers", p)[0], 403)
    equal("alone", images(), [["bad"]])
    p = a.get(NS + "/default/pods/one")[1]
    p["spec"]["containers"][0]["image"] = "bad"
    equal("an update", a.put(NS + "/default/pods/one", p)[0], 403)
    equal("has them all", images(), [["bad", "b"]])
    answers["broken"] = (500, {"message": "out of order"})
    st, why = make("broken", "broken")
    check("who does not answer allows nothing", st == 403 and "out of order" in why, (st, why))
    equal("asked five times", images(), [["broken"]] * 5)
    s.stop()
    # the file as it was before there was an AdmissionConfiguration
    s.more = [on, "--admission-control-config-file", write(s, "legacy.yaml", policy(defaultAllow=True, denyTTL=1))] + list(log)
    s.start()
    answers["none"] = (404, {"message": "nobody"})
    equal("unless it may", make("open", "none"), (201, ""))
    equal("asked once", images(), [["none"]])
    equal("which the audit is told", until("an event", lambda: notes("open")), {"failed-open": "true"})
    until("a refusal is remembered", lambda: [make("bad", "bad")[0] for i in range(2)] == [403, 403] and len(images()) < 2)
    until("not for long", lambda: make("bad", "bad")[0] == 403 and images() == [["bad"]])
    s.stop()
    web.close()


if __name__ == "__main__":
    suite("admission", lambda s: {"a": Client(s, cert="admin")},
          (test_configuration, test_versions, test_existing_pods, test_optional, test_quota, test_webhook_users, test_images))
