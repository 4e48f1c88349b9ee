#!/usr/bin/env python3
"""The controllers as a cluster sees them: a real API server and a real controller manager, no kubelet: the tests say how pods do.

Usage: controller_test.py PATH-OF-kube-apiserver PATH-OF-kube-controller-manager [NAME...]
Names are those of the test functions without "test_". Prints one line a failed check and "N passed, N failed".
"""
import base64, calendar, json, os, shutil, subprocess, sys, tempfile, threading, time, traceback

import apiserver_test
from apiserver_test import PATIENCE, Client, Missed, Server, check, end, equal, until

MANAGER = os.path.abspath(sys.argv[2])


class Manager:
    more = []  # flags of a whole file of tests

    def __init__(self, server):
        self.s, self.proc = server, None

    def start(self, *more):
        d = self.s.dir
        with open(os.path.join(d, "kubeconfig"), "w") as f:
            json.dump({"apiVersion": "v1", "kind": "Config", "current-context": "c",
                       "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:%d" % self.s.port,
                                                              "certificate-authority": os.path.join(d, "ca.crt")}}],
                       "users": [{"name": "u", "user": {"client-certificate": os.path.join(d, "manager.crt"),
                                                        "client-key": os.path.join(d, "manager.key")}}],
                       "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]}, f)
        self.log = open(os.path.join(d, "manager.log"), "a")
        self.begin = self.log.tell()
        # nodes of the tests have nobody who goes on speaking for them
        self.proc = subprocess.Popen(
            [MANAGER, "--kubeconfig", "kubeconfig", "--leader-elect=false", "--secure-port=0", "--use-service-account-credentials=true",
             "--service-account-private-key-file", "sa.key",
             "--root-ca-file", "ca.crt",
             "--node-monitor-grace-period", "1h"] + self.more + list(more), cwd=d, stdout=self.log, stderr=self.log)

    def stop(self, sig=9):
        proc, self.proc = self.proc, None
        if sig == 15:  # which ends it at once, before it has got as far
            until("the manager runs", lambda: proc.poll() is not None or "controllers started" in self.said())
        end("the manager", proc, os.path.join(self.s.dir, "manager.log"), sig)
        self.log.close()

    def said(self):
        """Its log since it was started."""
        with open(os.path.join(self.s.dir, "manager.log")) as f:
            f.seek(self.begin)
            return f.read()


class Space:
    """A namespace of a test, and the words the tests speak."""
    def __init__(self, a, name):
        self.a, self.ns = a, name
        status, obj = a.post("/api/v1/namespaces", {"metadata": {"name": name}})
        assert status == 201, obj
        until("service account in " + name, lambda: a.get("/api/v1/namespaces/%s/serviceaccounts/default" % name)[0] == 200)

    @staticmethod
    def of(a, name):
        """A namespace that is there."""
        s = Space.__new__(Space)
        s.a, s.ns = a, name
        return s

    def path(self, kind, name="", sub=""):
        group = {"deployments": "apps", "replicasets": "apps", "statefulsets": "apps", "daemonsets": "apps", "controllerrevisions": "apps",
                 "jobs": "batch", "cronjobs": "batch"}.get(kind)
        p = ("/apis/%s/v1" % group if group else "/api/v1") + "/namespaces/%s/%s" % (self.ns, kind)
        return p + ("/" + name if name else "") + ("/" + sub if sub else "")

    def make(self, kind, obj):
        status, got = self.a.post(self.path(kind), obj)
        check("create %s %s" % (kind, obj["metadata"].get("name")), status == 201, got)
        if status != 201:
            raise Missed("create")
        return got

    def get(self, kind, name):
        status, got = self.a.get(self.path(kind, name))
        return got if status == 200 else None

    def list(self, kind, selector=""):
        return self.a.get(self.path(kind) + ("?labelSelector=" + selector if selector else ""))[1]["items"]

    def patch(self, kind, name, obj, sub="", type="merge"):
        status, got = self.a.patch(self.path(kind, name, sub), obj, kind=type)
        check("patch %s %s" % (kind, name), status == 200, got)
        return got

    def delete(self, kind, name, **options):
        status, got = self.a.delete(self.path(kind, name), dict(options, kind="DeleteOptions", apiVersion="v1") if options else None)
        check("delete %s %s" % (kind, name), status in (200, 202), got)

    def pods(self, selector="", live=True):
        v = [p for p in self.list("pods", selector) if not live or not p["metadata"].get("deletionTimestamp")]
        return sorted(v, key=lambda p: p["metadata"]["name"])

    def names(self, selector=""):
        return [p["metadata"]["name"] for p in self.pods(selector)]

    def events(self, reason, kind=None):
        return [e for e in self.list("events") if e["reason"] == reason and (not kind or e["involvedObject"]["kind"] == kind)]

    # ---- what a kubelet would say ----

    def say(self, pod, phase, ready=None, **more):
        name = pod if isinstance(pod, str) else pod["metadata"]["name"]
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        ready = phase == "Running" if ready is None else ready
        st = dict(more, phase=phase)
        st["conditions"] = [{"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": now}] + more.get("conditions", [])
        status, got = self.a.patch(self.path("pods", name, "status"), {"status": st}, kind="strategic")
        check("pod %s is %s" % (name, phase), status in (200, 404), got)  # 404: a controller was faster

    def run(self, *pods):
        for p in pods:
            self.say(p, "Running")

    def run_all(self, selector=""):
        for p in self.pods(selector):
            if p["status"].get("phase") == "Pending":
                self.say(p, "Running")


def template(labels=None, image="a", **spec):
    return {"metadata": {"labels": labels or {"app": "x"}}, "spec": dict({"containers": [{"name": "c", "image": image}]}, **spec)}


# ---- garbage collector ----

def test_gc_restart(m, a):
    s = Space(a, "gc-restart")
    s.make("jobs", {"metadata": {"name": "j"}, "spec": {"parallelism": 3, "completions": 3, "template": template(restartPolicy="Never")}})
    s.make("replicasets", {"metadata": {"name": "r"}, "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "r"}},
                                                               "template": template({"app": "r"})}})
    until("pods of both", lambda: len(s.names()) == 6)
    m.stop()
    s.delete("jobs", "j", propagationPolicy="Background")
    s.delete("replicasets", "r", propagationPolicy="Background")
    until("the owners are gone", lambda: not s.get("jobs", "j") and not s.get("replicasets", "r"))
    equal("their pods are there", len(s.names()), 6)
    m.start()
    until("the pods go too", lambda: not s.names())


def test_gc_namespaces(m, a):
    """An owner of another namespace is none; those of the owner's own namespace are safe from the mistake."""
    s, t = Space(a, "gc-here"), Space(a, "gc-there")
    uid = s.make("configmaps", {"metadata": {"name": "owner"}})["metadata"]["uid"]
    ref = [{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}]
    t.make("configmaps", {"metadata": {"name": "stranger", "ownerReferences": ref}})
    s.make("configmaps", {"metadata": {"name": "child", "ownerReferences": ref}})
    until("the stranger goes", lambda: not t.get("configmaps", "stranger"))
    until("an event says why", lambda: t.events("OwnerRefInvalidNamespace"))
    m.stop()
    m.start()
    s.make("configmaps", {"metadata": {"name": "child2", "ownerReferences": ref}})
    t.make("configmaps", {"metadata": {"name": "stranger", "ownerReferences": ref}})
    until("the stranger goes again", lambda: not t.get("configmaps", "stranger"))
    check("the children stay", s.get("configmaps", "child") and s.get("configmaps", "child2"))


def test_gc_propagation(m, a):
    s = Space(a, "gc-propagation")

    def owned(name, *owners, block=True, **meta):
        return s.make("configmaps", {"metadata": dict({"name": name, "ownerReferences": [
            {"apiVersion": "v1", "kind": "ConfigMap", "name": o["metadata"]["name"], "uid": o["metadata"]["uid"], "blockOwnerDeletion": block}
            for o in owners]}, **meta)})

    def there(*names):
        return [n for n in names if s.get("configmaps", n)]

    # foreground: the owner waits for those that block it, and only for them
    top = owned("top")
    mid = owned("mid", top, finalizers=["example.com/hold"])
    owned("leaf", mid)
    owned("free", top, block=False, finalizers=["example.com/hold"])
    s.delete("configmaps", "top", propagationPolicy="Foreground")
    until("leaves first", lambda: there("top", "mid", "leaf", "free") == ["top", "mid", "free"])
    check("the top waits", s.get("configmaps", "top")["metadata"]["finalizers"] == ["foregroundDeletion"], s.get("configmaps", "top"))
    until("all are going", lambda: s.get("configmaps", "mid")["metadata"].get("deletionTimestamp") and
          s.get("configmaps", "free")["metadata"].get("deletionTimestamp"))
    s.patch("configmaps", "mid", {"metadata": {"finalizers": None}})
    until("the top goes without the one that does not block", lambda: there("top", "mid", "free") == ["free"])
    s.patch("configmaps", "free", {"metadata": {"finalizers": None}})
    # orphans: the reference goes, they stay; of two owners only the lost one
    x, y = owned("x"), owned("y")
    owned("xy", x, y)
    owned("only", x)
    s.delete("configmaps", "x", propagationPolicy="Orphan")
    until("the owner goes", lambda: not there("x"))
    equal("references", [[o["name"] for o in s.get("configmaps", n)["metadata"].get("ownerReferences", [])] for n in ("xy", "only")], [["y"], []])
    # a valid owner keeps what another takes leave of
    z = owned("z")
    owned("yz", y, z)
    s.delete("configmaps", "z", propagationPolicy="Foreground")
    until("the one owner goes", lambda: not there("z"))
    until("the other is left", lambda: [o["name"] for o in s.get("configmaps", "yz")["metadata"]["ownerReferences"]] == ["y"])
    s.delete("configmaps", "y", propagationPolicy="Background")
    until("and takes it along", lambda: not there("y", "xy", "yz"))
    # a circle does not wait for itself
    c1 = owned("c1")
    c2 = owned("c2", c1)
    c3 = owned("c3", c2)
    s.patch("configmaps", "c1", {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "c3",
                                                                   "uid": c3["metadata"]["uid"], "blockOwnerDeletion": True}]}})
    s.delete("configmaps", "c1", propagationPolicy="Foreground")
    until("the circle is gone", lambda: not there("c1", "c2", "c3"))
    equal("the orphan is there", there("only"), ["only"])


def test_gc_crd(m, a):
    """Dependents of a kind that is served only later."""
    s = Space(a, "gc-crd")
    ref = [{"apiVersion": "late.example.com/v1", "kind": "Late", "name": "no", "uid": "11111111-1111-1111-1111-111111111111"}]
    s.make("configmaps", {"metadata": {"name": "child", "ownerReferences": ref}})
    a.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
           {"metadata": {"name": "lates.late.example.com"},
            "spec": {"group": "late.example.com", "scope": "Namespaced", "names": {"plural": "lates", "kind": "Late"},
                     "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}]}})
    until("the dependent goes", lambda: not s.get("configmaps", "child"))


# ---- ReplicaSet, ReplicationController ----

def rs(name, replicas, **spec):
    return {"metadata": {"name": name}, "spec": dict({"replicas": replicas, "selector": {"matchLabels": {"app": name}},
                                                      "template": template({"app": name})}, **spec)}


def status(s, kind, name, *keys):
    st = (s.get(kind, name) or {"status": {}})["status"]
    return [st.get(k, 0) for k in keys]


def test_replicaset(m, a):
    s = Space(a, "rs")
    s.make("replicasets", rs("r", 4, minReadySeconds=1))
    until("pods", lambda: len(s.pods()) == 4)
    until("status", lambda: status(s, "replicasets", "r", "replicas", "fullyLabeledReplicas", "observedGeneration") == [4, 4, 1])
    s.run_all()
    until("ready", lambda: status(s, "replicasets", "r", "readyReplicas") == [4])
    until("available by time alone", lambda: status(s, "replicasets", "r", "availableReplicas", "terminatingReplicas") == [4, 0])
    # which go first: the cheap one, those that are not ready
    n = s.names()
    s.patch("pods", n[1], {"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-5"}}})
    s.say(n[2], "Running", ready=False)
    until("seen", lambda: status(s, "replicasets", "r", "readyReplicas") == [3])
    s.patch("replicasets", "r", {"spec": {"replicas": 2}})
    until("two are left", lambda: s.names() == [n[0], n[3]])
    # one that is being deleted is terminating, and replaced
    a.post(s.path("pods", n[0], "binding"), {"metadata": {"name": n[0]}, "target": {"kind": "Node", "name": "no"}})
    s.delete("pods", n[0])
    until("replaced", lambda: len(s.pods()) == 2)
    until("terminating", lambda: status(s, "replicasets", "r", "replicas", "terminatingReplicas") == [2, 1])
    a.delete(s.path("pods", n[0]) + "?gracePeriodSeconds=0")
    until("gone", lambda: status(s, "replicasets", "r", "terminatingReplicas") == [0])
    # orphans are adopted, the first owner's pods are released
    s.patch("pods", n[3], {"metadata": {"labels": {"app": "other"}}})
    until("released", lambda: not s.get("pods", n[3])["metadata"].get("ownerReferences"))
    until("replaced", lambda: len(s.pods("app=r")) == 2)
    s.make("replicasets", rs("other", 1))
    until("adopted", lambda: [o["name"] for o in s.get("pods", n[3])["metadata"].get("ownerReferences", [])] == ["other"])
    equal("nothing new", len(s.pods("app=other")), 1)
    s.delete("replicasets", "other", propagationPolicy="Foreground")
    until("foreground deletion", lambda: not s.get("replicasets", "other") and not s.pods("app=other"))


def test_replicationcontroller(m, a):
    s = Space(a, "rc")
    a.post("/api/v1/namespaces/rc/resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "2"}}})
    until("the quota counts", lambda: (s.get("resourcequotas", "q") or {"status": {}})["status"].get("hard"))
    s.make("replicationcontrollers", {"metadata": {"name": "c"}, "spec": {"replicas": 3, "selector": {"app": "c"}, "template": template({"app": "c"})}})
    until("a failure shows", lambda: [(c["type"], c["reason"]) for c in s.get("replicationcontrollers", "c")["status"].get("conditions", [])]
          == [("ReplicaFailure", "FailedCreate")])
    equal("two pods", len(s.pods()), 2)
    s.patch("replicationcontrollers", "c", {"spec": {"replicas": 2}})
    until("no failure any more", lambda: not s.get("replicationcontrollers", "c")["status"].get("conditions"))
    s.run_all()
    until("ready", lambda: status(s, "replicationcontrollers", "c", "replicas", "readyReplicas", "availableReplicas") == [2, 2, 2])


# ---- Deployment ----

def deploy(name, replicas, **spec):
    return {"metadata": {"name": name, "annotations": {"note": "1"}}, "spec": dict(
        {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template({"app": name}, image=spec.pop("image", "a"))}, **spec)}


def image(s, kind, name, image):
    s.patch(kind, name, {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}}, type="strategic")


def sets(s):
    """Image -> replica set."""
    return {r["spec"]["template"]["spec"]["containers"][0]["image"]: r for r in s.list("replicasets")}


def sizes(s):
    return {k: r["spec"]["replicas"] for k, r in sets(s).items()}


def annotation(obj, name):
    return obj["metadata"].get("annotations", {}).get("deployment.kubernetes.io/" + name)


def progress(s, name):
    return [(c["status"], c["reason"]) for c in s.get("deployments", name)["status"].get("conditions", []) if c["type"] == "Progressing"]


def test_deployment(m, a):
    s = Space(a, "deploy")
    s.make("deployments", deploy("d", 4, strategy={"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}, revisionHistoryLimit=2))
    until("pods", lambda: len(s.pods()) == 4)
    r = sets(s)["a"]
    hash = r["metadata"]["labels"]["pod-template-hash"]
    equal("the set", (r["metadata"]["name"], r["spec"]["selector"]["matchLabels"]["pod-template-hash"], r["metadata"]["annotations"]["note"],
                      annotation(r, "revision"), annotation(r, "desired-replicas"), annotation(r, "max-replicas")),
          ("d-" + hash, hash, "1", "1", "4", "5"))
    s.run_all()
    until("available", lambda: status(s, "deployments", "d", "availableReplicas", "updatedReplicas", "unavailableReplicas",
                                      "terminatingReplicas") == [4, 4, 0, 0])
    until("complete", lambda: progress(s, "d") == [("True", "NewReplicaSetAvailable")])
    equal("its revision", annotation(s.get("deployments", "d"), "revision"), "1")
    image(s, "deployments", "d", "b")
    until("one more, one less", lambda: sizes(s) == {"a": 3, "b": 2})
    until("counted", lambda: status(s, "deployments", "d", "updatedReplicas", "replicas") == [2, 5])
    equal("no further", sizes(s), {"a": 3, "b": 2})
    # scaled in the middle: in proportion
    s.patch("deployments", "d", {"spec": {"replicas": 8}})
    until("in proportion", lambda: sum(sizes(s).values()) == 9)
    equal("the larger gets more", sizes(s), {"a": 5, "b": 4})
    until("rolled out", lambda: not s.run_all() and sizes(s) == {"a": 0, "b": 8} and progress(s, "d") == [("True", "NewReplicaSetAvailable")])
    # back to the first: a new revision of the old set
    s.patch("deployments", "d", {"spec": {"replicas": 2}})
    until("down", lambda: sizes(s) == {"a": 0, "b": 2})
    image(s, "deployments", "d", "a")
    until("back", lambda: not s.run_all() and sizes(s) == {"a": 2, "b": 0})
    r = sets(s)["a"]
    equal("revision and history", (annotation(r, "revision"), annotation(r, "revision-history")), ("3", "1"))
    # revisions beyond the limit go
    for i in "xyz":
        image(s, "deployments", "d", i)
        until("rolled out " + i, lambda: not s.run_all() and sizes(s).get(i) == 2 and status(s, "deployments", "d", "updatedReplicas",
              "availableReplicas", "replicas") == [2, 2, 2])
    until("two old ones are kept", lambda: sorted(sizes(s)) == ["x", "y", "z"])


def test_deployment_recreate(m, a):
    s = Space(a, "recreate")
    s.make("deployments", deploy("d", 2, strategy={"type": "Recreate"}))
    until("pods", lambda: len(s.pods()) == 2)
    s.run_all()
    # held as by a kubelet
    old = s.names()
    for n in old:
        a.post(s.path("pods", n, "binding"), {"metadata": {"name": n}, "target": {"kind": "Node", "name": "no"}})
    image(s, "deployments", "d", "b")
    until("the old ones are going", lambda: not s.pods())
    until("seen", lambda: status(s, "deployments", "d", "observedGeneration") == [2])
    check("no new set meanwhile", "b" not in sets(s), sizes(s))
    for n in old:
        a.delete(s.path("pods", n) + "?gracePeriodSeconds=0")
    until("then the new ones", lambda: len(s.pods()) == 2 and sizes(s) == {"a": 0, "b": 2})


def test_deployment_conditions(m, a):
    s = Space(a, "deploy-cond")
    s.make("deployments", deploy("d", 1, progressDeadlineSeconds=2, minReadySeconds=1))
    until("a pod", lambda: s.pods())
    until("not available", lambda: [(c["status"], c["reason"]) for c in s.get("deployments", "d")["status"].get("conditions", [])
                                    if c["type"] == "Available"] == [("False", "MinimumReplicasUnavailable")])
    until("stuck", lambda: progress(s, "d") == [("False", "ProgressDeadlineExceeded")])
    s.run_all()
    until("and on", lambda: progress(s, "d") == [("True", "NewReplicaSetAvailable")])
    s.patch("deployments", "d", {"spec": {"paused": True}})
    until("paused", lambda: progress(s, "d") == [("Unknown", "DeploymentPaused")])
    image(s, "deployments", "d", "b")
    until("seen", lambda: status(s, "deployments", "d", "observedGeneration") == [3])
    equal("nothing happens", sizes(s), {"a": 1})
    s.patch("deployments", "d", {"spec": {"replicas": 2}})
    until("but it scales", lambda: sizes(s) == {"a": 2})
    s.patch("deployments", "d", {"spec": {"paused": False}})
    until("on", lambda: "b" in sizes(s))
    # a set with the name of the next: the count of collisions makes another
    s.make("deployments", deploy("e", 0))
    name = until("its set", lambda: [r for r in s.list("replicasets") if r["metadata"]["name"].startswith("e-")])[0]["metadata"]["name"]
    s.delete("deployments", "e", propagationPolicy="Background")
    until("gone", lambda: not s.get("replicasets", name))
    s.make("replicasets", dict(rs("x", 0), metadata={"name": name}))
    s.make("deployments", deploy("e", 0))
    until("collided", lambda: status(s, "deployments", "e", "collisionCount") == [1])
    until("and made", lambda: len([r for r in s.list("replicasets") if r["metadata"]["name"].startswith("e-")]) == 2)


# ---- DaemonSet ----

def node(a, name):
    """A node that is ready; comes without taints once its condition is seen."""
    a.post("/api/v1/nodes", {"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "pool": "daemons"}}})
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    a.patch("/api/v1/nodes/%s/status" % name, {"status": {"conditions": [
        {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now, "lastTransitionTime": now}]}}, kind="strategic")
    until("node %s has no taints" % name, lambda: not a.get("/api/v1/nodes/" + name)[1]["spec"].get("taints"))


def where(p):
    t = p["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    return t[0]["matchFields"][0]["values"][0]


def ds(name, **spec):
    return {"metadata": {"name": name}, "spec": dict({"selector": {"matchLabels": {"app": name}}, "template": template(
        {"app": name}, image="a", nodeSelector={"pool": "daemons"})}, **spec)}


def daemons(s, **match):
    """Node -> images of the pods there."""
    r = {}
    for p in s.pods():
        r.setdefault(where(p), []).append(p["spec"]["containers"][0]["image"])
    return {k: sorted(v) for k, v in r.items()}


def test_daemonset(m, a):
    s = Space(a, "ds")
    for n in ("n1", "n2", "n3"):
        node(a, n)
    s.make("daemonsets", ds("d"))
    until("one a node", lambda: daemons(s) == {"n1": ["a"], "n2": ["a"], "n3": ["a"]})
    p = s.pods()[0]
    equal("its generation", (p["metadata"]["labels"]["pod-template-generation"],
                             s.get("daemonsets", "d")["metadata"]["annotations"]["deprecated.daemonset.template.generation"]), ("1", "1"))
    check("tolerations", {"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"} in p["spec"]["tolerations"], p)
    s.run_all()
    keys = ("desiredNumberScheduled", "currentNumberScheduled", "numberReady", "numberAvailable", "updatedNumberScheduled",
            "numberUnavailable", "numberMisscheduled")
    until("status", lambda: status(s, "daemonsets", "d", *keys) == [3, 3, 3, 3, 3, 0, 0])
    # a rolling update: one at a time
    image(s, "daemonsets", "d", "b")
    until("one", lambda: sorted(sum(daemons(s).values(), [])) == ["a", "a", "b"])
    until("counted", lambda: status(s, "daemonsets", "d", "updatedNumberScheduled", "numberAvailable") == [1, 2])
    equal("still one", sorted(sum(daemons(s).values(), [])), ["a", "a", "b"])
    until("all", lambda: not s.run_all() and daemons(s) == {"n1": ["b"], "n2": ["b"], "n3": ["b"]})
    until("ready", lambda: not s.run_all() and status(s, "daemonsets", "d", *keys) == [3, 3, 3, 3, 3, 0, 0])
    equal("two revisions", sorted(r["revision"] for r in s.list("controllerrevisions")), [1, 2])
    equal("the generation", s.get("daemonsets", "d")["metadata"]["annotations"]["deprecated.daemonset.template.generation"], "2")
    # a rollback that touches what is new only
    kept = {where(p): p["metadata"]["uid"] for p in s.pods()}
    image(s, "daemonsets", "d", "c")
    until("one is new", lambda: sorted(sum(daemons(s).values(), [])) == ["b", "b", "c"])
    image(s, "daemonsets", "d", "b")
    until("back", lambda: not s.run_all() and daemons(s) == {"n1": ["b"], "n2": ["b"], "n3": ["b"]})
    equal("the others stayed", len([1 for p in s.pods() if kept[where(p)] == p["metadata"]["uid"]]), 2)
    equal("revisions", sorted(r["revision"] for r in s.list("controllerrevisions")), [1, 3, 4])
    # a failed pod is replaced, once in a while
    s.run_all()
    f = s.pods()[0]
    s.say(f, "Failed")
    until("replaced", lambda: where(f) in daemons(s) and f["metadata"]["name"] not in s.names())
    until("told", lambda: s.events("FailedDaemonPod"))
    # nodes come, change and go
    s.run_all()
    a.patch("/api/v1/nodes/n3", {"metadata": {"labels": {"pool": None}}})
    until("not there any more", lambda: sorted(daemons(s)) == ["n1", "n2"])
    a.patch("/api/v1/nodes/n3", {"metadata": {"labels": {"pool": "daemons"}}, "spec": {"taints": [{"key": "x", "effect": "NoSchedule"}]}})
    until("misscheduled none", lambda: status(s, "daemonsets", "d", "desiredNumberScheduled", "numberMisscheduled") == [2, 0])
    a.patch("/api/v1/nodes/n3", {"spec": {"taints": None}})
    until("there again", lambda: sorted(daemons(s)) == ["n1", "n2", "n3"])
    a.patch("/api/v1/nodes/n3", {"spec": {"taints": [{"key": "x", "effect": "NoSchedule"}]}})
    until("stays, misscheduled", lambda: status(s, "daemonsets", "d", "desiredNumberScheduled", "numberMisscheduled") == [2, 1])
    a.patch("/api/v1/nodes/n3", {"spec": {"taints": [{"key": "x", "effect": "NoExecute"}]}})
    until("goes", lambda: sorted(daemons(s)) == ["n1", "n2"])
    a.patch("/api/v1/nodes/n3", {"spec": {"taints": None}})
    s.delete("daemonsets", "d", propagationPolicy="Background")
    until("all gone", lambda: not s.pods() and not s.list("controllerrevisions"))


def test_daemonset_surge(m, a):
    s = Space(a, "ds-surge")
    for n in ("n1", "n2", "n3"):
        if a.get("/api/v1/nodes/" + n)[0] != 200:
            node(a, n)
    s.make("daemonsets", ds("d", updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}))
    until("one a node", lambda: len(daemons(s)) == 3)
    s.run_all()
    until("ready", lambda: status(s, "daemonsets", "d", "numberAvailable") == [3])
    image(s, "daemonsets", "d", "b")
    until("one more", lambda: sorted(sum(daemons(s).values(), [])) == ["a", "a", "a", "b"])
    equal("beside the old one", sorted(daemons(s).values()), [["a"], ["a"], ["a", "b"]])
    until("all", lambda: not s.run_all() and daemons(s) == {"n1": ["b"], "n2": ["b"], "n3": ["b"]})
    # OnDelete
    s.patch("daemonsets", "d", {"spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": None}}})
    image(s, "daemonsets", "d", "c")
    until("seen", lambda: status(s, "daemonsets", "d", "observedGeneration", "updatedNumberScheduled") == [4, 0])
    s.delete("pods", [p for p in s.pods() if where(p) == "n2"][0]["metadata"]["name"])
    until("by hand only", lambda: daemons(s) == {"n1": ["b"], "n2": ["c"], "n3": ["b"]})
    for n in ("n1", "n2", "n3"):
        a.delete("/api/v1/nodes/" + n)


# ---- StatefulSet ----

def sts(name, replicas, **spec):
    t = template({"app": name}, image=spec.pop("image", "a"))
    return {"metadata": {"name": name}, "spec": dict({"replicas": replicas, "serviceName": name, "selector": {"matchLabels": {"app": name}},
                                                      "template": t}, **spec)}


def revision(pod):
    return pod["metadata"]["labels"]["controller-revision-hash"]


def test_statefulset_order(m, a):
    s = Space(a, "sts-order")
    s.make("statefulsets", sts("web", 3))
    p = until("the first pod, alone", lambda: s.pods())[0]
    equal("its name", p["metadata"]["name"], "web-0")
    equal("its host name", (p["spec"]["hostname"], p["spec"]["subdomain"], p["metadata"]["generateName"]), ("web-0", "web", "web-"))
    equal("its labels", [p["metadata"]["labels"][k] for k in ("statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index")],
          ["web-0", "0"])
    s.say("web-0", "Running", ready=False)
    until("counted", lambda: s.get("statefulsets", "web")["status"].get("replicas") == 1)
    equal("no second before the first is ready", s.names(), ["web-0"])
    s.run("web-0")
    until("the second", lambda: s.names() == ["web-0", "web-1"])
    s.run("web-1")
    until("the third", lambda: s.names() == ["web-0", "web-1", "web-2"])
    s.run("web-2")
    st = until("status", lambda: s.get("statefulsets", "web")["status"].get("availableReplicas") == 3 and s.get("statefulsets", "web"))["status"]
    equal("status's counts", [st[k] for k in ("replicas", "readyReplicas", "currentReplicas", "updatedReplicas", "collisionCount")],
          [3, 3, 3, 3, 0])
    equal("one revision", st["currentRevision"], st["updateRevision"])
    equal("of that name", [r["metadata"]["name"] for r in s.list("controllerrevisions")], [st["currentRevision"]])
    equal("which pods carry", {revision(p) for p in s.pods()}, {st["currentRevision"]})
    # down: from the highest, one at a time, not while one is not ready
    s.say("web-0", "Running", ready=False)
    s.patch("statefulsets", "web", {"spec": {"replicas": 1}})
    until("seen", lambda: s.get("statefulsets", "web")["status"].get("observedGeneration") == 2)
    equal("it waits", s.names(), ["web-0", "web-1", "web-2"])
    s.run("web-0")
    until("down", lambda: s.names() == ["web-0"])
    until("highest first", lambda: [e["message"].split()[2] for e in sorted(s.events("SuccessfulDelete"),
                                    key=lambda e: int(e["metadata"]["resourceVersion"]))] == ["web-2", "web-1"])
    # an ended pod comes again
    uid = s.get("pods", "web-0")["metadata"]["uid"]
    s.say("web-0", "Failed")
    until("a failed pod is replaced", lambda: (s.get("pods", "web-0") or {"metadata": {"uid": uid}})["metadata"]["uid"] != uid)
    s.delete("statefulsets", "web", propagationPolicy="Orphan")
    until("orphaned", lambda: not s.get("statefulsets", "web"))
    equal("the pod stays", [p["metadata"].get("ownerReferences") for p in s.pods()], [None])
    s.make("statefulsets", sts("web", 1))
    until("and is adopted", lambda: s.pods()[0]["metadata"].get("ownerReferences"))


def test_statefulset_update(m, a):
    s = Space(a, "sts-update")
    s.make("statefulsets", sts("w", 3, podManagementPolicy="Parallel"))
    until("all at once", lambda: s.names() == ["w-0", "w-1", "w-2"])
    s.run_all()
    until("ready", lambda: s.get("statefulsets", "w")["status"].get("readyReplicas") == 3)
    one = s.get("statefulsets", "w")["status"]["currentRevision"]
    s.patch("statefulsets", "w", {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 2}}}})
    s.patch("statefulsets", "w", {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "b"}]}}}}, type="strategic")
    until("only the one above the partition", lambda: [revision(p) == one for p in s.pods()] == [True, True, False])
    s.run_all()
    st = until("noted", lambda: status(s, "statefulsets", "w", "readyReplicas", "updatedReplicas") == [3, 1] and s.get("statefulsets", "w"))["status"]
    two = st["updateRevision"]
    equal("canary", (st["currentRevision"], st["currentReplicas"], st["updatedReplicas"], two != one), (one, 2, 1, True))
    # below the partition the old one comes again, above it the new one
    s.delete("pods", "w-0")
    s.delete("pods", "w-2")
    until("both again", lambda: len(s.pods()) == 3)
    equal("each of its revision", [revision(p) for p in s.pods()], [one, one, two])
    s.run_all()
    until("ready again", lambda: s.get("statefulsets", "w")["status"].get("readyReplicas") == 3)
    s.patch("statefulsets", "w", {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}})
    until("the second", lambda: [revision(p) for p in s.pods()] == [one, two, two])
    until("counted", lambda: s.get("statefulsets", "w")["status"].get("updatedReplicas") == 2)
    equal("one at a time", [revision(p) for p in s.pods()], [one, two, two])
    s.run_all()
    until("the last", lambda: [revision(p) for p in s.pods()] == [two, two, two])
    s.run_all()
    until("done", lambda: s.get("statefulsets", "w")["status"].get("currentRevision") == two)
    # back: the same revision, made the newest
    s.patch("statefulsets", "w", {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "a"}]}}}}, type="strategic")
    for i in (2, 1, 0):
        until("w-%d is back" % i, lambda: [revision(p) for p in s.pods()][i:] == [one] * (3 - i))
        s.run_all()
    until("done again", lambda: s.get("statefulsets", "w")["status"].get("currentRevision") == one)
    equal("revisions", sorted((r["revision"], r["metadata"]["name"] == one) for r in s.list("controllerrevisions")), [(2, False), (3, True)])
    # history and OnDelete
    s.patch("statefulsets", "w", {"spec": {"revisionHistoryLimit": 0, "updateStrategy": {"type": "OnDelete", "rollingUpdate": None}}})
    until("history is cut", lambda: [r["metadata"]["name"] for r in s.list("controllerrevisions")] == [one])
    s.patch("statefulsets", "w", {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "z"}]}}}}, type="strategic")
    three = until("a new revision", lambda: s.get("statefulsets", "w")["status"]["updateRevision"] != one and s.get("statefulsets", "w"))
    three = three["status"]["updateRevision"]
    equal("nothing is replaced", [revision(p) for p in s.pods()], [one] * 3)
    s.delete("pods", "w-1")
    until("but by hand", lambda: [revision(p) for p in s.pods()] == [one, three, one])


def test_statefulset_claims(m, a):
    s = Space(a, "sts-claims")
    claim = {"metadata": {"name": "data", "labels": {"of": "me"}}, "spec": {"accessModes": ["ReadWriteOnce"],
                                                                            "resources": {"requests": {"storage": "1Gi"}}}}
    s.make("statefulsets", sts("db", 2, podManagementPolicy="Parallel", ordinals={"start": 5}, volumeClaimTemplates=[claim],
                               persistentVolumeClaimRetentionPolicy={"whenScaled": "Delete", "whenDeleted": "Retain"}))
    until("pods from the first ordinal on", lambda: s.names() == ["db-5", "db-6"])
    equal("their volumes", [[v["persistentVolumeClaim"]["claimName"] for v in p["spec"]["volumes"] if v["name"] == "data"] for p in s.pods()],
          [["data-db-5"], ["data-db-6"]])
    c = s.get("persistentvolumeclaims", "data-db-5")
    equal("the claim's labels", c["metadata"]["labels"], {"of": "me", "app": "db"})
    check("no owner yet", not c["metadata"].get("ownerReferences"), c["metadata"])
    s.run_all()
    # a finalizer holds the claim, as where it is in use
    s.patch("persistentvolumeclaims", "data-db-6", {"metadata": {"finalizers": ["example.com/hold"]}})
    uid = s.get("pods", "db-6")["metadata"]["uid"]
    s.patch("pods", "db-6", {"metadata": {"finalizers": ["example.com/hold"]}})
    s.patch("statefulsets", "db", {"spec": {"replicas": 1}})
    until("the pod goes", lambda: s.names() == ["db-5"])
    until("its claim is its own", lambda: [o["uid"] for o in s.get("persistentvolumeclaims", "data-db-6")["metadata"].get("ownerReferences", [])]
          == [uid])
    s.patch("pods", "db-6", {"metadata": {"finalizers": None}})
    until("and goes with it", lambda: s.get("persistentvolumeclaims", "data-db-6")["metadata"].get("deletionTimestamp"))
    s.patch("statefulsets", "db", {"spec": {"replicas": 2}})
    until("seen", lambda: s.get("statefulsets", "db")["status"].get("observedGeneration", 0) >= 3)
    equal("no new pod on an old claim", s.names(), ["db-5"])
    s.patch("persistentvolumeclaims", "data-db-6", {"metadata": {"finalizers": None}})
    until("a new pod with a new claim", lambda: s.names() == ["db-5", "db-6"])
    s.run_all()
    s.patch("statefulsets", "db", {"spec": {"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Retain", "whenDeleted": "Delete"}}})
    set_uid = s.get("statefulsets", "db")["metadata"]["uid"]
    until("the set owns them", lambda: all([o["uid"] for o in c["metadata"].get("ownerReferences", [])] == [set_uid]
                                           for c in s.list("persistentvolumeclaims")))
    s.patch("statefulsets", "db", {"spec": {"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Retain", "whenDeleted": "Retain"}}})
    until("nobody owns them", lambda: all(not c["metadata"].get("ownerReferences") for c in s.list("persistentvolumeclaims")))
    s.patch("statefulsets", "db", {"spec": {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete"}}})
    until("the set owns them again", lambda: all(c["metadata"].get("ownerReferences") for c in s.list("persistentvolumeclaims")))
    s.delete("statefulsets", "db")
    until("all gone", lambda: not s.names() and not s.list("persistentvolumeclaims"))


def test_statefulset_min_ready(m, a):
    s = Space(a, "sts-min-ready")
    s.make("statefulsets", sts("w", 2, minReadySeconds=2))
    until("the first", lambda: s.names() == ["w-0"])
    s.run("w-0")
    until("by time alone", lambda: s.names() == ["w-0", "w-1"])
    ready = [c["lastTransitionTime"] for c in s.get("pods", "w-0")["status"]["conditions"] if c["type"] == "Ready"][0]
    seconds = lambda t: calendar.timegm(time.strptime(t, "%Y-%m-%dT%H:%M:%SZ"))
    check("but not before it", seconds(s.get("pods", "w-1")["metadata"]["creationTimestamp"]) - seconds(ready) >= 2, (s.get("pods", "w-1"), ready))
    until("available", lambda: status(s, "statefulsets", "w", "availableReplicas", "readyReplicas") == [1, 1])


# ---- Job ----

def job(name, **spec):
    t = template(restartPolicy=spec.pop("restartPolicy", "Never"))
    return {"metadata": {"name": name}, "spec": dict({"template": t}, **spec)}


def conditions(obj):
    return [c["type"] for c in obj["status"].get("conditions", []) if c["status"] == "True"]


def reason(obj, type):
    return [c.get("reason") for c in obj["status"].get("conditions", []) if c["type"] == type and c["status"] == "True"]


def ended(s, name, type, patience=PATIENCE):
    return until("%s is %s" % (name, type), lambda: type in conditions(s.get("jobs", name)) and s.get("jobs", name), patience)


def pending(s):
    return [p for p in s.pods() if p["status"]["phase"] == "Pending"]


def index(p):
    return int(p["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"])


def exits(code):
    return {"containerStatuses": [{"name": "c", "image": "a", "imageID": "", "ready": False, "restartCount": 0,
                                   "state": {"terminated": {"exitCode": code, "finishedAt": utc(60)}}}]}


def test_job(m, a):
    s = Space(a, "job")
    s.make("jobs", job("j", completions=3, parallelism=2))
    until("two at once", lambda: len(s.pods()) == 2)
    p = s.pods()[0]
    equal("a pod's finalizer", p["metadata"]["finalizers"], ["batch.kubernetes.io/job-tracking"])
    s.run_all()
    st = until("ready", lambda: s.get("jobs", "j")["status"].get("ready") == 2 and s.get("jobs", "j"))["status"]
    equal("status", (st["active"], st["terminating"], st["uncountedTerminatedPods"], "startTime" in st), (2, 0, {}, True))
    s.say(s.pods()[0], "Succeeded")
    until("a third", lambda: len(pending(s)) == 1)
    until("counted", lambda: s.get("jobs", "j")["status"].get("succeeded") == 1)
    for p in s.pods():
        s.say(p, "Succeeded")
    j = ended(s, "j", "Complete")
    equal("conditions", conditions(j), ["SuccessCriteriaMet", "Complete"])
    equal("counts", [j["status"].get(k) for k in ("succeeded", "failed", "active", "ready", "terminating", "uncountedTerminatedPods")],
          [3, None, None, 0, 0, {}])
    check("when", j["status"].get("completionTime"))
    until("no finalizers are left", lambda: all(not p["metadata"].get("finalizers") for p in s.pods()))
    equal("three pods were enough", len(s.pods()), 3)
    # too many failures; nobody waits: the next try would be 10 s later
    s.make("jobs", job("bad", backoffLimit=1, parallelism=2, completions=2))
    until("pods", lambda: len(pending(s)) == 2)
    for p in pending(s):
        s.say(p, "Failed")
    j = ended(s, "bad", "Failed")
    equal("why", (conditions(j), reason(j, "Failed"), j["status"]["failed"]), (["FailureTarget", "Failed"], ["BackoffLimitExceeded"], 2))
    s.make("jobs", job("late", activeDeadlineSeconds=1))
    j = ended(s, "late", "Failed")
    equal("why", reason(j, "Failed"), ["DeadlineExceeded"])
    s.make("jobs", job("ours", managedBy="example.com/me"))
    s.make("jobs", job("after"))
    until("a later one is seen", lambda: s.get("jobs", "after")["status"])
    equal("another's job", s.get("jobs", "ours")["status"], {})


def test_job_suspend(m, a):
    s = Space(a, "job-suspend")
    s.make("jobs", job("j", parallelism=2, completions=4, suspend=True))
    j = ended(s, "j", "Suspended")
    equal("nothing runs", (s.pods(), "startTime" in j["status"]), ([], False))
    s.patch("jobs", "j", {"spec": {"suspend": False}})
    until("it runs", lambda: len(s.pods()) == 2 and s.get("jobs", "j")["status"].get("startTime"))
    s.run_all()
    s.patch("jobs", "j", {"spec": {"suspend": True}})
    until("it stops", lambda: not s.pods() and not s.get("jobs", "j")["status"].get("active"))
    j = ended(s, "j", "Suspended")
    equal("nothing failed", (j["status"].get("failed"), "startTime" in j["status"]), (None, False))
    s.patch("jobs", "j", {"spec": {"suspend": False, "parallelism": 3}})
    until("three", lambda: len(s.pods()) == 3)
    s.patch("jobs", "j", {"spec": {"parallelism": 1}})
    until("one", lambda: len(s.pods()) == 1)
    until("told", lambda: s.get("jobs", "j")["status"].get("active") == 1)
    equal("still nothing failed", s.get("jobs", "j")["status"].get("failed"), None)
    until("events", lambda: s.events("Suspended") and s.events("Resumed"))


def test_job_failure_policy(m, a):
    s = Space(a, "job-policy")
    rules = [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
             {"action": "FailJob", "onExitCodes": {"containerName": "c", "operator": "In", "values": [42]}}]
    s.make("jobs", job("j", backoffLimit=0, podFailurePolicy={"rules": rules}))
    until("a pod", lambda: pending(s))
    s.say(pending(s)[0], "Failed", conditions=[{"type": "DisruptionTarget", "status": "True"}], **exits(1))
    p = until("another, at once", lambda: pending(s))[0]
    equal("nothing counted", s.get("jobs", "j")["status"].get("failed"), None)
    s.say(p, "Failed", **exits(42))
    j = ended(s, "j", "Failed")
    equal("why", reason(j, "Failed"), ["PodFailurePolicy"])
    equal("what", [c["message"] for c in j["status"]["conditions"] if c["type"] == "Failed"],
          ["Container c for pod job-policy/%s failed with exit code 42 matching FailJob rule at index 1" % p["metadata"]["name"]])


def test_job_indexes(m, a):
    s = Space(a, "job-indexes")
    s.make("jobs", job("j", completions=4, parallelism=4, completionMode="Indexed", backoffLimitPerIndex=1))
    until("all indexes", lambda: sorted(index(p) for p in s.pods()) == [0, 1, 2, 3])
    p = [p for p in s.pods() if index(p) == 2][0]
    equal("its words", (p["spec"]["hostname"], p["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"],
                        p["metadata"]["annotations"]["batch.kubernetes.io/job-index-failure-count"], p["metadata"]["generateName"]),
          ("j-2", "2", "0", "j-2-"))
    equal("its environment", [e["valueFrom"]["fieldRef"]["fieldPath"] for e in p["spec"]["containers"][0]["env"]],
          ["metadata.labels['batch.kubernetes.io/job-completion-index']"])
    s.say(p, "Failed", **exits(1))  # it ended a minute ago: no wait
    p2 = until("again", lambda: [q for q in pending(s) if index(q) == 2])[0]
    equal("it knows", p2["metadata"]["annotations"]["batch.kubernetes.io/job-index-failure-count"], "1")
    until("the first is released", lambda: not s.get("pods", p["metadata"]["name"])["metadata"].get("finalizers"))
    for q in pending(s):
        s.say(q, "Failed" if index(q) == 2 else "Succeeded", **exits(1 if index(q) == 2 else 0))
    j = ended(s, "j", "Failed")
    equal("indexes", (j["status"]["completedIndexes"], j["status"]["failedIndexes"], j["status"]["failed"], j["status"]["succeeded"]),
          ("0,1,3", "2", 2, 3))
    equal("why", reason(j, "Failed"), ["FailedIndexes"])
    # too many failed indexes
    s.make("jobs", job("m", completions=5, parallelism=3, completionMode="Indexed", backoffLimitPerIndex=0, maxFailedIndexes=1))
    until("pods", lambda: len(pending(s)) == 3)
    for q in pending(s)[:2]:
        s.say(q, "Failed", **exits(1))
    j = ended(s, "m", "Failed")
    equal("why", reason(j, "Failed"), ["MaxFailedIndexesExceeded"])
    equal("nothing runs", pending(s), [])
    # FailIndex
    rules = [{"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [42]}}]
    s.make("jobs", job("f", completions=2, parallelism=2, completionMode="Indexed", backoffLimitPerIndex=5, podFailurePolicy={"rules": rules}))
    until("pods", lambda: len(pending(s)) == 2)
    for q in pending(s):
        s.say(q, "Succeeded" if index(q) else "Failed", **exits(0 if index(q) else 42))
    j = ended(s, "f", "Failed")
    equal("indexes", (j["status"]["completedIndexes"], j["status"]["failedIndexes"]), ("1", "0"))


def test_job_success_policy(m, a):
    s = Space(a, "job-success")
    s.make("jobs", job("j", completions=5, parallelism=5, completionMode="Indexed",
                       successPolicy={"rules": [{"succeededIndexes": "1-3", "succeededCount": 2}]}))
    until("pods", lambda: len(pending(s)) == 5)
    s.run_all()
    for p in s.pods():
        if index(p) in (1, 3):
            s.say(p, "Succeeded")
    j = ended(s, "j", "Complete")
    equal("why", (reason(j, "SuccessCriteriaMet"), reason(j, "Complete")), (["SuccessPolicy"], ["SuccessPolicy"]))
    equal("indexes", (j["status"]["completedIndexes"], j["status"]["succeeded"]), ("1,3", 2))
    equal("the rest is gone", sorted(index(p) for p in s.pods()), [1, 3])


def test_job_elastic(m, a):
    s = Space(a, "job-elastic")
    s.make("jobs", job("j", completions=4, parallelism=4, completionMode="Indexed"))
    until("pods", lambda: len(pending(s)) == 4)
    s.run_all()
    s.patch("jobs", "j", {"spec": {"completions": 2, "parallelism": 2}})
    until("two indexes", lambda: sorted(index(p) for p in s.pods()) == [0, 1])
    s.patch("jobs", "j", {"spec": {"completions": 3, "parallelism": 3}})
    until("three", lambda: sorted(index(p) for p in s.pods()) == [0, 1, 2])
    for p in s.pods():
        s.say(p, "Succeeded")
    equal("indexes", ended(s, "j", "Complete")["status"]["completedIndexes"], "0-2")


def test_job_replacement(m, a):
    s = Space(a, "job-replace")
    s.make("jobs", job("j", podReplacementPolicy="Failed"))
    s.make("jobs", job("k"))
    until("pods", lambda: len(pending(s)) == 2)
    for p in s.pods():
        a.post(s.path("pods", p["metadata"]["name"], "binding"), {"metadata": {"name": p["metadata"]["name"]},
                                                                  "target": {"kind": "Node", "name": "n"}})
        s.say(p, "Running")
    old = {p["metadata"]["labels"]["job-name"]: p["metadata"]["name"] for p in s.pods()}
    for p in s.pods():
        s.delete("pods", p["metadata"]["name"])
    until("k counts it as failed", lambda: s.get("jobs", "k")["status"].get("failed") == 1)
    until("j waits", lambda: s.get("jobs", "j")["status"].get("terminating") == 1)
    s.say(old["j"], "Failed", **exits(1))
    until("until it has failed", lambda: [p["metadata"]["labels"]["job-name"] for p in s.pods()
                                          if p["metadata"]["name"] not in old.values()] == ["j"])


def test_job_adoption(m, a):
    s = Space(a, "job-adopt")
    s.make("jobs", job("j", parallelism=2))
    until("pods", lambda: len(pending(s)) == 2)
    p = s.pods()[0]["metadata"]["name"]
    s.patch("pods", p, {"metadata": {"ownerReferences": None}})
    until("adopted again", lambda: s.get("pods", p)["metadata"].get("ownerReferences"))
    equal("with its finalizer", s.get("pods", p)["metadata"].get("finalizers"), ["batch.kubernetes.io/job-tracking"])
    s.patch("pods", p, {"metadata": {"labels": {k: None for k in s.get("pods", p)["metadata"]["labels"]}}})
    until("released", lambda: not s.get("pods", p)["metadata"].get("ownerReferences"))
    equal("without finalizer", s.get("pods", p)["metadata"].get("finalizers"), None)
    until("replaced", lambda: len(s.pods()) == 3)
    m.stop()
    s.delete("jobs", "j", propagationPolicy="Orphan")
    m.start()
    until("orphans", lambda: not s.get("jobs", "j"))
    until("can be deleted", lambda: not [p for p in s.pods() if p["metadata"].get("finalizers")])
    equal("and are there", len(s.pods()), 3)


def quiet(a):
    text = a.raw("GET", "/metrics")[2].decode()
    return [float(l.split()[-1]) for l in text.splitlines()
            if l.startswith("apiserver_current_inflight_requests") and 'request_kind="mutating"' in l] == [0.0]


def test_job_kills(m, a):
    """The manager is killed again and again: every pod is counted once, no index is run twice."""
    s = Space(a, "job-kills")
    s.make("jobs", job("j", completions=40, parallelism=6))
    s.make("jobs", job("i", completions=40, parallelism=6, completionMode="Indexed"))
    s.make("replicasets", rs("r", 60))
    stop = threading.Event()

    def kubelet():
        b = Client(a.s, cert="admin")
        while not stop.is_set():
            for p in Space.of(b, s.ns).list("pods", "batch.kubernetes.io/job-name"):
                if p["status"].get("phase") == "Pending":
                    b.patch(s.path("pods", p["metadata"]["name"], "status"), {"status": {"phase": "Succeeded"}})

    t = threading.Thread(target=kubelet)
    t.start()
    try:
        for wait in (0.02, 0.05, 0.1, 0.03, 0.2, 0.08, 0.15):
            time.sleep(wait)
            m.stop()
            # what it had sent is still carried out: the next one must not look before (a lease keeps them apart otherwise)
            until("nothing is under way", lambda: quiet(a))
            m.start()
        for name in ("j", "i"):
            ended(s, name, "Complete")
    finally:
        stop.set()
        t.join()
    for name in ("j", "i"):
        pods = s.pods("batch.kubernetes.io/job-name=" + name)
        equal(name + ": pods", (len(pods), {p["status"]["phase"] for p in pods}), (40, {"Succeeded"}))
        equal(name + ": counted", status(s, "jobs", name, "succeeded", "failed"), [40, 0])
    equal("each index once", sorted(index(p) for p in s.pods("batch.kubernetes.io/job-name=i")), list(range(40)))
    until("the replica set is whole", lambda: status(s, "replicasets", "r", "replicas") == [60])
    equal("and no more", len(s.pods("app=r")), 60)


# ---- CronJob, TTL ----

def utc(back):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - back))


def cron(name, schedule, **spec):
    return {"metadata": {"name": name}, "spec": dict({"schedule": schedule, "jobTemplate": {
        "metadata": {"labels": {"l": "1"}, "annotations": {"n": "2"}}, "spec": {"template": template(restartPolicy="Never")}}}, **spec)}


def daily(back):
    """A schedule that came `back` minutes ago, and that minute since 1970."""
    t = int(time.time()) // 60 - back
    return time.strftime("%M %H * * *", time.gmtime(t * 60)), t


def test_cronjob(m, a):
    s = Space(a, "cron")
    when, minute = daily(9)
    s.make("cronjobs", cron("c", when, timeZone="Etc/UTC", suspend=True, concurrencyPolicy="Forbid"))
    s.patch("cronjobs", "c", {"status": {"lastScheduleTime": utc(3600)}}, sub="status")
    # one that is not, told of the same a moment later
    s.make("cronjobs", cron("after", when, timeZone="Etc/UTC", suspend=True))
    s.patch("cronjobs", "after", {"status": {"lastScheduleTime": utc(3600)}}, sub="status")
    s.patch("cronjobs", "after", {"spec": {"suspend": False}})
    until("another has its job", lambda: s.get("jobs", "after-%d" % minute))
    equal("suspended", [x["metadata"]["name"] for x in s.list("jobs")], ["after-%d" % minute])
    s.delete("cronjobs", "after", propagationPolicy="Background")
    until("the other is gone", lambda: not s.list("jobs") and not s.pods())
    s.patch("cronjobs", "c", {"spec": {"suspend": False}})
    j = until("a job", lambda: s.list("jobs"))[0]["metadata"]
    equal("its name", j["name"], "c-%d" % minute)
    equal("its labels and owner", (j["labels"]["l"], j["annotations"]["n"], j["ownerReferences"][0]["kind"]), ("1", "2", "CronJob"))
    equal("its time", j["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"],
          time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(minute * 60)))
    st = until("status", lambda: s.get("cronjobs", "c")["status"].get("active") and s.get("cronjobs", "c")["status"])
    equal("active", [(r["kind"], r["name"]) for r in st["active"]], [("Job", j["name"])])
    equal("last time", st["lastScheduleTime"], time.strftime("%Y-%m-%dT%H:%M:00Z", time.gmtime(minute * 60)))
    # a second time while the first job runs
    when, minute2 = daily(5)
    s.patch("cronjobs", "c", {"spec": {"schedule": when}})
    s.patch("cronjobs", "c", {"status": {"lastScheduleTime": utc(3000)}}, sub="status")
    until("forbidden", lambda: s.events("JobAlreadyActive"))
    equal("one job", len(s.list("jobs")), 1)
    s.patch("cronjobs", "c", {"spec": {"concurrencyPolicy": "Replace"}})
    until("replaced", lambda: [x["metadata"]["name"] for x in s.list("jobs")] == ["c-%d" % minute2])
    until("one active", lambda: [r["name"] for r in s.get("cronjobs", "c")["status"].get("active", [])] == ["c-%d" % minute2])
    # it ends
    until("its pod", lambda: s.pods())
    for p in s.pods():
        s.say(p, "Succeeded")
    st = until("seen", lambda: not s.get("cronjobs", "c")["status"].get("active") and s.get("cronjobs", "c")["status"])
    check("last success", st.get("lastSuccessfulTime"), st)
    until("told", lambda: s.events("SawCompletedJob"))
    # the next one, and then only one is kept
    when, minute3 = daily(3)
    s.patch("cronjobs", "c", {"spec": {"schedule": when, "successfulJobsHistoryLimit": 1}})
    s.patch("cronjobs", "c", {"status": {"lastScheduleTime": utc(3000)}}, sub="status")
    until("the third", lambda: s.get("jobs", "c-%d" % minute3))
    equal("the second is kept", bool(s.get("jobs", "c-%d" % minute2)), True)
    until("its pod", lambda: [p for p in s.pods() if p["status"]["phase"] == "Pending"])
    for p in s.pods():
        if p["status"]["phase"] == "Pending":
            s.say(p, "Succeeded")
    until("history is cut", lambda: [x["metadata"]["name"] for x in s.list("jobs")] == ["c-%d" % minute3])
    s.delete("jobs", "c-%d" % minute3, propagationPolicy="Background")


def test_cronjob_missed(m, a):
    s = Space(a, "cron-missed")
    s.make("cronjobs", cron("many", "* * * * *", suspend=True))
    s.patch("cronjobs", "many", {"status": {"lastScheduleTime": utc(86400)}}, sub="status")
    s.patch("cronjobs", "many", {"spec": {"suspend": False}})
    began = time.time()
    jobs = lambda name: [x for x in s.list("jobs") if x["metadata"]["name"].startswith(name)]
    until("a job for all", lambda: jobs("many-"))
    until("and a word", lambda: s.events("TooManyMissedTimes"))
    check("one, and one a minute", len(jobs("many-")) <= 2 + (time.time() - began) / 60, jobs("many-"))
    # too late
    when, minute = daily(10)
    s.make("cronjobs", cron("late", when, suspend=True, startingDeadlineSeconds=60, timeZone="UTC"))
    s.patch("cronjobs", "late", {"status": {"lastScheduleTime": utc(3600)}}, sub="status")
    s.patch("cronjobs", "late", {"spec": {"suspend": False}})
    s.make("cronjobs", cron("never", "0 0 31 2 *"))
    until("what never comes is told", lambda: s.events("InvalidSchedule"))
    equal("nothing too late", jobs("late-"), [])
    status, got = a.post(s.path("cronjobs"), cron("bad", "61 * * * *"))
    equal("a bad schedule", (status, got.get("reason")), (422, "Invalid"))
    status, got = a.post(s.path("cronjobs"), cron("bad", "1 * * * *", timeZone="Mars/Base"))
    equal("a bad zone", (status, got.get("reason")), (422, "Invalid"))
    s.make("cronjobs", cron("zone", "1 * * * *", timeZone="Europe/Berlin"))


def test_policy_status(m, a):
    """Types of expressions: of built-in kinds, of custom ones, of variables and parameters."""
    base = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"

    def checked(name, *validations, rules=(("apps", "v1", "deployments"),), **spec):
        st, o = a.post(base, {"kind": "ValidatingAdmissionPolicy", "apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": name}, "spec": dict({
            "matchConstraints": {"resourceRules": [{"operations": ["*"], "apiGroups": [g], "apiVersions": [v], "resources": [r]} for g, v, r in rules]},
            "validations": [{"expression": v} if isinstance(v, str) else {"expression": v[0], "messageExpression": v[1]} for v in validations]}, **spec)})
        equal("policy " + name, st, 201)
        until("%s is checked" % name, lambda: "typeChecking" in a.get(base + "/" + name)[1].get("status", {}))
        s = a.get(base + "/" + name)[1]["status"]
        equal("generation of " + name, s["observedGeneration"], 1)
        return [(w["fieldRef"], w["warning"]) for w in s["typeChecking"].get("expressionWarnings", [])]

    def warned(what, got, *want):
        check(what, len(got) == len(want) and all(f == g[0] and text in g[1] for g, (f, text) in zip(got, want)), got)

    equal("right types", checked("fine", ("object.spec.replicas > 1", "'got ' + string(object.spec.replicas)"),
                                 "object.metadata.labels['a'] == oldObject.metadata.name && request.userInfo.groups.all(g, g != '')",
                                 "namespaceObject.metadata.name == 'x' && authorizer.path('/x').check('get').allowed()",
                                 "object.spec.template.spec.containers.all(c, c.image.startsWith('a') && (!has(c.resources) || c.ports.size() > 0))"), [])
    warned("confused", checked("confused", ("object.spec.replicas > '1'", "'got ' + object.spec.replicas")),
           ("spec.validations[0].expression", "apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, string)'"),
           ("spec.validations[0].messageExpression", "found no matching overload for '_+_' applied to '(string, int)'"))
    warned("undefined", checked("undefined", "object.spec.none == 1", "true"), ("spec.validations[0].expression", "undefined field 'none'"))
    warned("of one kind of two", checked("two", "object.spec.replicas > 1", rules=(("apps", "v1", "deployments"), ("", "v1", "pods"))),
           ("spec.validations[0].expression", "/v1, Kind=Pod: ERROR: <input>:1:12: undefined field 'replicas'"))
    equal("wildcards are not checked", checked("wild", "object.none == 1", rules=(("*", "v1", "pods"), ("", "*", "pods"), ("", "v1", "*"), ("", "v1", "pods/log"))), [])
    equal("nor what is not served", checked("unknown", "object.none == 1", rules=(("none.example.com", "v1", "nones"),)), [])
    warned("variables", checked("vars", "variables.n > '1'", "variables.n > 1", variables=[{"name": "n", "expression": "object.spec.replicas"}]),
           ("spec.validations[0].expression", "'_>_' applied to '(int, string)'"))
    warned("params", checked("params", "params.data.x > 1", "params.data.x > 'a'", "params.none == 1", paramKind={"apiVersion": "v1", "kind": "ConfigMap"}),
           ("spec.validations[0].expression", "'_>_' applied to '(string, int)'"), ("spec.validations[2].expression", "undefined field 'none'"))
    # custom kinds
    a.define({
        "kind": "CustomResourceDefinition", "apiVersion": "apiextensions.k8s.io/v1", "metadata": {"name": "crontabs.types.example.com"},
        "spec": {"group": "types.example.com", "scope": "Namespaced", "names": {"plural": "crontabs", "kind": "CronTab"}, "versions": [
            {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {
                "type": "object", "properties": {"replicas": {"type": "integer"}, "any": {"x-kubernetes-int-or-string": True}, "since": {
                    "type": "string", "format": "date-time"}, "tags": {"type": "object", "additionalProperties": {"type": "string"}}, "list": {
                        "type": "array", "items": {"type": "object", "properties": {"x-y": {"type": "boolean"}}}}}}}}}}]}})
    rule = (("types.example.com", "v1", "crontabs"),)
    warned("custom", checked("custom", "object.spec.replicas > '1'", "object.spec.maxRetries < 10", "object.spec.tags['a'] == 1", "object.spec.list[0].x__dash__y == 1",
                             "object.spec.any == 1 || object.spec.since > timestamp('2020-01-01T00:00:00Z') || object.metadata.labels['a'] == object.kind", rules=rule),
           ("spec.validations[0].expression", "types.example.com/v1, Kind=CronTab: ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, string)'"),
           ("spec.validations[1].expression", "undefined field 'maxRetries'"), ("spec.validations[2].expression", "'_==_' applied to '(string, int)'"),
           ("spec.validations[3].expression", "'_==_' applied to '(bool, int)'"))
    # checked again when the spec changes
    a.patch(base + "/undefined", {"spec": {"validations": [{"expression": "object.spec.replicas == 1"}]}})
    until("again", lambda: a.get(base + "/undefined")[1]["status"] == {"observedGeneration": 2, "typeChecking": {}})
    for p in a.get(base)[1]["items"]:
        a.delete(base + "/" + p["metadata"]["name"])
    a.delete("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/crontabs.types.example.com")


def test_ttl(m, a):
    s = Space(a, "ttl")
    s.make("jobs", {"metadata": {"name": "j"}, "spec": {"ttlSecondsAfterFinished": 1, "template": template(restartPolicy="Never")}})
    until("its pod", lambda: s.pods())
    s.say(s.pods()[0], "Succeeded")
    until("and gone with its pod", lambda: not s.get("jobs", "j") and not s.list("pods"))


# ---- the program ----

def test_disruption(m, a):
    """The taint that evicts: not when no node is ready, one node at a time of a zone, none of a small zone that is mostly silent."""
    nodes = "/api/v1/nodes"
    for n in a.get(nodes)[1]["items"]:
        a.delete(nodes + "/" + n["metadata"]["name"])
    m.stop(15)
    m.start("--node-monitor-period=100ms", "--node-eviction-rate=0.2")

    def say(name, ready):
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        equal("%s says %s" % (name, ready), a.patch(nodes + "/" + name + "/status", {"status": {"conditions": [
            {"type": "Ready", "status": ready, "lastHeartbeatTime": now, "lastTransitionTime": now}]}}, kind="strategic")[0], 200)

    def taints(name, effect="NoExecute"):
        return [t for t in a.get(nodes + "/" + name)[1]["spec"].get("taints", []) if t["effect"] == effect]

    def evicted():
        return [n["metadata"]["name"] for n in a.get(nodes)[1]["items"] if taints(n["metadata"]["name"])]
    for i in range(4):
        a.post(nodes, {"metadata": {"name": "d%d" % i}})
        say("d%d" % i, "False")
    until("all are tainted against new pods", lambda: all(taints("d%d" % i, "NoSchedule") for i in range(4)))
    until("the manager says so", lambda: "no node is ready" in m.said())
    equal("nobody is evicted when no node is ready", evicted(), [])
    say("d0", "True")
    say("d1", "True")
    until("two of four are silent: one is evicted", lambda: len(evicted()) == 1)
    until("and the other in its turn", lambda: evicted() == ["d2", "d3"])
    say("d1", "False")
    say("d0", "False")
    until("nobody is evicted again", lambda: not evicted())
    say("d0", "True")
    until("d0 is taken back", lambda: not taints("d0", "NoSchedule"))
    until("nodes are ready again", lambda: m.said().count("nodes are ready again") == 2)
    equal("three of four are silent in a small zone: nobody is evicted", evicted(), [])
    for i in range(4):
        a.delete(nodes + "/d%d" % i)


def test_signing(m, a):
    """Requests are signed by an authority that is as bare as can be: X.509 version 1, without extensions."""
    def ssl(*argv):
        subprocess.run(("openssl",) + argv, cwd=m.s.dir, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "old-ca.key", "-out", "old-ca.csr", "-subj", "/CN=old")
    ssl("x509", "-req", "-in", "old-ca.csr", "-signkey", "old-ca.key", "-out", "old-ca.crt", "-days", "2")
    ssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "user.key", "-out", "user.csr", "-subj", "/CN=someone")
    m.stop(15)
    m.start("--cluster-signing-cert-file", "old-ca.crt", "--cluster-signing-key-file", "old-ca.key")
    path = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
    request = base64.b64encode(open(os.path.join(m.s.dir, "user.csr"), "rb").read()).decode()
    status, csr = a.post(path, {"metadata": {"name": "someone"}, "spec": {
        "request": request, "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]}})
    equal("a request", status, 201)
    csr["status"]["conditions"] = [{"type": "Approved", "status": "True", "reason": "Test"}]
    equal("approval", a.put(path + "/someone/approval", csr)[0], 200)
    until("someone's certificate", lambda: a.get(path + "/someone")[1]["status"].get("certificate") or
          any(c["type"] == "Failed" for c in a.get(path + "/someone")[1]["status"]["conditions"]))
    got = a.get(path + "/someone")[1]["status"]
    equal("conditions", [c["type"] for c in got["conditions"]], ["Approved"])
    with open(os.path.join(m.s.dir, "user.crt"), "wb") as f:
        f.write(base64.b64decode(got["certificate"]))
    ssl("verify", "-CAfile", "old-ca.crt", "-purpose", "sslclient", "user.crt")
    a.delete(path + "/someone")


def test_flags(m, a):
    def run(*argv):
        return subprocess.run([MANAGER] + list(argv), capture_output=True, text=True, timeout=20)
    r = run("--controllers=*,-nonsense", "--master=http://127.0.0.1:1")
    equal("an unknown controller", r.returncode, 2)
    check("it is named, with those that exist", "nonsense" in r.stderr and "daemonset-controller" in r.stderr, r.stderr)


def main(tests=None, last=lambda: None):
    """last: called before the servers stop."""
    dir = tempfile.mkdtemp(prefix="skiff-controllers-")
    s = Server(dir)
    m = Manager(s)
    only = sys.argv[3:]
    try:
        s.pki()
        s.start()
        a = Client(s, cert="admin")
        m.start()
        for name, fn in list((tests or globals()).items()):
            if not name.startswith("test_") or (only and name[5:] not in only):
                continue
            began = time.time()
            try:
                fn(m, a)
            except Missed:
                pass
            except Exception:
                check(name, False, traceback.format_exc()[-1500:])
                if not m.proc:
                    m.start()
            if m.proc.poll() is not None:
                check("%s: the manager lives" % name, False, m.proc.returncode)
                m.start()
            print("%-32s %5.1f s" % (name, time.time() - began), flush=True)
    finally:
        last()
        if m.proc:
            m.stop(15)
        if s.proc:
            s.stop()
        log = open(os.path.join(dir, "manager.log")).read()
        check("no sanitizer's report", "runtime error:" not in log and "AddressSanitizer" not in log, log[-2000:])
        if apiserver_test.failed:
            print(log[-4000:])
        shutil.rmtree(dir, ignore_errors=True)
    print("%d passed, %d failed" % (apiserver_test.passed, apiserver_test.failed))
    sys.exit(1 if apiserver_test.failed else 0)


if __name__ == "__main__":
    main()
