#!/usr/bin/env python3
"""The scheduler as a cluster sees it: a real API server, controller manager and scheduler; nodes are objects only.

Usage: scheduler_test.py PATH-OF-kube-apiserver PATH-OF-kube-controller-manager PATH-OF-kube-scheduler [NAME...]; see controller_test.py.
"""
import json, os, socket, ssl, subprocess, sys, tempfile, urllib.error, urllib.request

SCHEDULER = os.path.abspath(sys.argv.pop(3))

import controller_test
import resources_test
from apiserver_test import check, end, equal, until
from controller_test import Space
from resources_test import bound, budget, budget_status, claim, pod, storage_class, volume

CONFIG = {"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration", "leaderElection": {"leaderElect": False},
          "podInitialBackoffSeconds": 1, "podMaxBackoffSeconds": 2,
          "profiles": [
              {"schedulerName": "default-scheduler"},
              {"schedulerName": "packing", "pluginConfig": [{"name": "NodeResourcesFit", "args": {
                  "scoringStrategy": {"type": "MostAllocated", "resources": [{"name": "cpu", "weight": 1}]}}}],
               "plugins": {"score": {"disabled": [{"name": "*"}], "enabled": [{"name": "NodeResourcesFit", "weight": 5}]}}},
              {"schedulerName": "blind", "plugins": {"multiPoint": {"disabled": [{"name": "TaintToleration"}]}}}]}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Scheduler:
    """Started with the first test, ended with the manager's directory."""
    one = None

    def __init__(self, server):
        d = server.dir
        self.port = free_port()
        server.cert("scheduler", "/CN=system:kube-scheduler", "extendedKeyUsage=clientAuth")
        with open(os.path.join(d, "kubeconfig")) as f:
            kubeconfig = json.load(f)
        kubeconfig["users"][0]["user"] = {"client-certificate": os.path.join(d, "scheduler.crt"), "client-key": os.path.join(d, "scheduler.key")}
        with open(os.path.join(d, "scheduler.kubeconfig"), "w") as f:
            json.dump(kubeconfig, f)
        with open(os.path.join(d, "scheduler.yaml"), "w") as f:
            json.dump(CONFIG, f)
        self.path = os.path.join(d, "scheduler.log")
        self.log = open(self.path, "w")
        self.proc = subprocess.Popen([SCHEDULER, "--kubeconfig", "scheduler.kubeconfig", "--config", "scheduler.yaml", "--bind-address", "127.0.0.1",
                                      "--secure-port", str(self.port)], cwd=d, stdout=self.log, stderr=self.log)

    @classmethod
    def get(cls, a):
        if not cls.one:
            cls.one = Scheduler(a.s)
        if cls.one.proc.poll() is not None:
            raise Exception("the scheduler ended with %d: %s" % (cls.one.proc.returncode, open(cls.one.path).read()[-2000:]))
        return cls.one

    @classmethod
    def stop(cls):
        if cls.one:
            end("the scheduler", cls.one.proc, cls.one.path)
            cls.one.log.close()

    def fetch(self, path, token=None):
        ctx = ssl.create_default_context()
        ctx.check_hostname, ctx.verify_mode = False, ssl.CERT_NONE
        r = urllib.request.Request("https://127.0.0.1:%d%s" % (self.port, path), headers={"Authorization": "Bearer " + token} if token else {})
        try:
            with urllib.request.urlopen(r, context=ctx, timeout=5) as x:
                return x.status, x.read().decode()
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode()
        except OSError as e:
            return 0, str(e)


def node(a, name, cpu="4", labels=None, taints=None, pods="110"):
    n = {"metadata": {"name": name, "labels": dict(labels or {}, **{"kubernetes.io/hostname": name})}, "spec": {"taints": taints or []}}
    st, got = a.post("/api/v1/nodes", n)
    check("create node " + name, st == 201, got)
    status = {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": pods}, "capacity": {"cpu": cpu, "memory": "8Gi", "pods": pods},
              "conditions": [{"type": "Ready", "status": "True", "reason": "x", "lastHeartbeatTime": "2100-01-01T00:00:00Z"}]}
    st, got = a.patch("/api/v1/nodes/%s/status" % name, {"status": status})
    check("status of node " + name, st == 200, got)
    # the API server taints new nodes until they are ready; the node controller sees that they are
    until("node %s is ready" % name, lambda: len(a.get("/api/v1/nodes/" + name)[1]["spec"].get("taints", [])) == len(taints or []))


def without_nodes(a):
    for n in a.get("/api/v1/nodes")[1]["items"]:
        a.delete("/api/v1/nodes/" + n["metadata"]["name"])
    until("no nodes", lambda: not a.get("/api/v1/nodes")[1]["items"])


def wants(name, cpu, labels=None, **spec):
    return pod(name, labels, containers=[{"name": "c", "image": "x", "resources": {"requests": {"cpu": cpu}}}], **spec)


def placed(s, name):
    return until("%s is placed" % name, lambda: (s.get("pods", name) or {"spec": {}})["spec"].get("nodeName"))


def unschedulable(s, name, text=""):
    def why():
        for c in s.get("pods", name)["status"].get("conditions", []):
            if c["type"] == "PodScheduled" and c["status"] == "False" and text in c.get("message", ""):
                return c
    return until("%s does not fit: %s" % (name, text), why)


def fresh(a, name, *nodes):
    Scheduler.get(a)
    without_nodes(a)
    for p in a.get("/api/v1/pods")[1]["items"]: # of nodes that will have the same names
        a.delete("/api/v1/namespaces/%s/pods/%s" % (p["metadata"]["namespace"], p["metadata"]["name"]), {"gracePeriodSeconds": 0})
    s = Space(a, name)
    for n in nodes:
        node(a, n)
    return s


def test_serving(m, a):
    s = Scheduler.get(a)
    until("it answers", lambda: s.fetch("/healthz")[0] == 200)
    equal("health", [s.fetch(p) for p in ("/healthz", "/livez", "/readyz")], [(200, "ok")] * 3)
    equal("metrics are not for everybody", s.fetch("/metrics")[0], 401)
    equal("nor for any token", s.fetch("/metrics", "alicetoken")[0], 403)
    a.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", {
        "metadata": {"name": "see"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:monitoring"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "alice"}]})
    st, text = until("for whom the server lets", lambda: (lambda r: r if r[0] == 200 else None)(s.fetch("/metrics", "alicetoken")))
    for name in ("scheduler_pending_pods{", "scheduler_schedule_attempts_total{", "scheduler_scheduling_attempt_duration_seconds_bucket{"):
        check(name, name in text, text[:300])


def test_config(m, a):
    def run(config):
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as f:
            json.dump(dict(CONFIG, **config), f)
            f.flush()
            r = subprocess.run([SCHEDULER, "--config", f.name, "--master", "http://127.0.0.1:1", "--secure-port", "0"], capture_output=True,
                               text=True, timeout=10)
            return r.returncode, r.stderr
    for what, config, say in (
            ("an unknown field", {"nonsense": 1}, "nonsense"),
            ("extenders", {"extenders": [{"urlPrefix": "http://x"}]}, "extenders"),
            ("an unknown plugin", {"profiles": [{"plugins": {"filter": {"enabled": [{"name": "Mine"}]}}}]}, "Mine"),
            ("two profiles of one name", {"profiles": [{"schedulerName": "x"}, {"schedulerName": "x"}]}, "Duplicate value"),
            ("a wrong argument", {"profiles": [{"pluginConfig": [{"name": "InterPodAffinity", "args": {"hardPodAffinityWeight": 200}}]}]}, "0-100"),
            ("an argument of another kind", {"profiles": [{"pluginConfig": [{"name": "InterPodAffinity", "args": {"kind": "X"}}]}]}, "InterPodAffinityArgs"),
            ("no binder", {"profiles": [{"plugins": {"bind": {"disabled": [{"name": "*"}]}}}]}, "DefaultBinder")):
        code, err = run(config)
        check(what, code == 1 and say in err, (code, err[-300:]))


def test_profiles(m, a):
    s = fresh(a, "profiles", "n1", "n2")
    s.make("pods", wants("first", "1", nodeName="n1"))
    until("it is known", lambda: s.get("pods", "first"))
    s.make("pods", wants("packed", "1", schedulerName="packing"))
    equal("packed beside the other", placed(s, "packed"), "n1")
    s.make("pods", wants("spread", "1"))
    equal("spread away from them", placed(s, "spread"), "n2")
    node(a, "n3", "32", taints=[{"key": "k", "value": "v", "effect": "NoSchedule"}])
    s.make("pods", wants("big", "10"))
    unschedulable(s, "big", "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient cpu")
    s.make("pods", wants("blind", "10", schedulerName="blind"))
    equal("one who sees no taints", placed(s, "blind"), "n3")
    s.make("pods", wants("nobody", "1", schedulerName="nobody"))
    # what makes room is an event: the timer is of five minutes
    a.patch("/api/v1/nodes/n3", {"spec": {"taints": None}})
    equal("the taint goes", placed(s, "big"), "n3")
    check("another's pod is left alone", "nodeName" not in s.get("pods", "nobody")["spec"])


def test_gates(m, a):
    s = fresh(a, "gates", "n1")
    s.make("pods", wants("gated", "1", schedulingGates=[{"name": "example.com/wait"}]))
    until("it waits", lambda: [c for c in s.get("pods", "gated")["status"].get("conditions", []) if c["reason"] == "SchedulingGated"])
    s.patch("pods", "gated", {"spec": {"schedulingGates": None}})
    equal("the gate opens", placed(s, "gated"), "n1")


def test_default_spread(m, a):
    """Pods of one Service go apart even when another node is emptier."""
    s = fresh(a, "spread")
    for i in range(4):
        node(a, "z%d" % i, labels={"topology.kubernetes.io/zone": "zone-%d" % (i % 2)})
    s.make("services", {"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}})
    for i in range(4):
        s.make("pods", pod("web-%d" % i, {"app": "web"}))
        placed(s, "web-%d" % i)
    equal("one a node", len({placed(s, "web-%d" % i) for i in range(4)}), 4)


def test_preemption(m, a):
    s = fresh(a, "preemption", "n1", "n2")
    for name, value in (("low", 1), ("high", 1000)):
        a.post("/apis/scheduling.k8s.io/v1/priorityclasses", {"metadata": {"name": name}, "value": value})
    a.post("/apis/scheduling.k8s.io/v1/priorityclasses", {"metadata": {"name": "polite"}, "value": 1000, "preemptionPolicy": "Never"})
    for i, app in ((1, "guarded"), (2, "free")):
        s.make("pods", wants("low-%d" % i, "3", {"app": app}, priorityClassName="low", nodeName="n%d" % i))
        s.say("low-%d" % i, "Running")
    budget(a, s.ns, "b", "guarded", minAvailable=1)
    budget_status(a, s.ns, "b", currentHealthy=1, disruptionsAllowed=0)
    s.make("pods", wants("polite", "3", priorityClassName="polite"))
    unschedulable(s, "polite", "preemptionPolicy=Never")
    s.delete("pods", "polite")
    s.make("pods", wants("high", "3", priorityClassName="high"))
    until("the unguarded one goes", lambda: (s.get("pods", "low-2") or {"metadata": {"deletionTimestamp": 1}})["metadata"].get("deletionTimestamp"))
    gone = s.get("pods", "low-2")
    if gone:
        equal("it knows why", [c["reason"] for c in gone["status"]["conditions"] if c["type"] == "DisruptionTarget"], ["PreemptionByScheduler"])
        equal("nominated", s.get("pods", "high")["status"].get("nominatedNodeName"), "n2")
        s.make("pods", wants("thief", "2", priorityClassName="low"))
        s.delete("pods", "low-2", gracePeriodSeconds=0)
    equal("the room is kept", placed(s, "high"), "n2")
    check("the guarded one stays", s.get("pods", "low-1") and not s.get("pods", "low-1")["metadata"].get("deletionTimestamp"))
    until("it says so", lambda: s.events("Preempted"))


def test_volumes_wait(m, a):
    """WaitForFirstConsumer: the node decides which volume, the volume's node decides the node."""
    s = fresh(a, "late", "n1", "n2")
    storage_class(a, "local", provisioner="kubernetes.io/no-provisioner", volumeBindingMode="WaitForFirstConsumer")
    on = lambda n: {"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [n]}]}]}}
    volume(a, "on-n2", cls="local", nodeAffinity=on("n2"), hostPath=None, local={"path": "/x"})
    resources_test.phase(a, "on-n2", "Available")
    claim(s, "data", cls="local")
    mount = lambda c: [{"name": "v", "persistentVolumeClaim": {"claimName": c}}]
    s.make("pods", pod("p", volumes=mount("data")))
    equal("where its volume is", placed(s, "p"), "n2")
    bound(a, s, "data", "on-n2")
    claim(s, "more", cls="local")
    s.make("pods", pod("q", volumes=mount("more")))
    unschedulable(s, "q", "didn't find available persistent volumes to bind")
    volume(a, "on-n1", cls="local", nodeAffinity=on("n1"), hostPath=None, local={"path": "/y"})
    equal("a volume comes", placed(s, "q"), "n1")
    s.make("pods", pod("r", volumes=mount("none")))
    unschedulable(s, "r", 'persistentvolumeclaim "none" not found')
    storage_class(a, "made", provisioner="example.com/disk", volumeBindingMode="WaitForFirstConsumer")
    claim(s, "new", cls="made")
    s.make("pods", pod("t", volumes=mount("new"), nodeSelector={"kubernetes.io/hostname": "n2"}))
    until("the node is told to the provisioner", lambda: s.get("persistentvolumeclaims", "new")["metadata"].get("annotations", {}).get(
        "volume.kubernetes.io/selected-node") == "n2")
    check("and waited for", "nodeName" not in s.get("pods", "t")["spec"])
    uid = s.get("persistentvolumeclaims", "new")["metadata"]["uid"]
    volume(a, "provisioned", cls="made", nodeAffinity=on("n2"), claimRef={"kind": "PersistentVolumeClaim", "namespace": s.ns, "name": "new", "uid": uid})
    equal("made", placed(s, "t"), "n2")


def test_volumes_once(m, a):
    s = fresh(a, "once", "n1", "n2")
    volume(a, "once", modes=("ReadWriteOncePod",), cls="once")
    claim(s, "c", modes=("ReadWriteOncePod",), cls="once")
    bound(a, s, "c", "once")
    mount = [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]
    s.make("pods", pod("one", volumes=mount))
    placed(s, "one")
    s.make("pods", pod("two", volumes=mount))
    unschedulable(s, "two", "ReadWriteOncePod access mode")
    s.delete("pods", "one", gracePeriodSeconds=0)
    placed(s, "two")


if __name__ == "__main__":
    controller_test.main(globals(), Scheduler.stop)
