#!/usr/bin/env python3
"""The controllers as a cluster sees them: a real API server and a real controller manager, no kubelet: the tests say how pods do.

Usage: controller_test.py PATH-OF-kube-apiserver PATH-OF-kube-controller-manager [NAME...]
Names are those of the test functions without "test_". Prints one line a failed check and "N passed, N failed".
"""
import json, os, shutil, subprocess, sys, tempfile, time, traceback

import apiserver_test
from apiserver_test import Client, Server, check, equal

MANAGER = os.path.abspath(sys.argv[2])
PATIENCE = 20  # seconds until a condition counts as not met


class Manager:
    def __init__(self, server):
        self.s, self.proc = server, None

    def start(self, *more):
        d = self.s.dir
        with open(os.path.join(d, "kubeconfig"), "w") as f:
            json.dump({"apiVersion": "v1", "kind": "Config", "current-context": "c",
                       "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:%d" % self.s.port,
                                                              "certificate-authority": os.path.join(d, "ca.crt")}}],
                       "users": [{"name": "u", "user": {"client-certificate": os.path.join(d, "admin.crt"),
                                                        "client-key": os.path.join(d, "admin.key")}}],
                       "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]}, f)
        self.log = open(os.path.join(d, "manager.log"), "a")
        self.proc = subprocess.Popen(
            [MANAGER, "--kubeconfig", "kubeconfig", "--leader-elect=false", "--service-account-private-key-file", "sa.key",
             "--root-ca-file", "ca.crt"] + list(more), cwd=d, stdout=self.log, stderr=self.log)

    def stop(self, sig=9):
        self.proc.send_signal(sig)
        self.proc.wait(30)
        self.proc = None
        self.log.close()


def until(what, fn, patience=PATIENCE):
    """Waits until fn() is true; one check. Returns what fn returned."""
    end = time.time() + patience
    r = None
    while time.time() < end:
        r = fn()
        if r:
            check(what, True)
            return r
        time.sleep(0.02)
    check(what, False, "did not happen within %d s; last seen: %r" % (patience, r))
    raise Missed(what)


class Missed(Exception):
    """A condition that the rest of a test needs did not come."""


class Space:
    """A namespace of a test, and the words the tests speak."""
    def __init__(self, a, name):
        self.a, self.ns = a, name
        status, obj = a.post("/api/v1/namespaces", {"metadata": {"name": name}})
        assert status == 201, obj
        until("service account in " + name, lambda: a.get("/api/v1/namespaces/%s/serviceaccounts/default" % name)[0] == 200)

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
        return self.patch("pods", name, {"status": st}, sub="status", type="strategic")

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


# ---- the program ----

def test_flags(m, a):
    def run(*argv):
        return subprocess.run([MANAGER] + list(argv), capture_output=True, text=True, timeout=20)
    r = run("--controllers=*,-nonsense", "--master=http://127.0.0.1:1")
    equal("an unknown controller", r.returncode, 2)
    check("it is named, with those that exist", "nonsense" in r.stderr and "daemonset-controller" in r.stderr, r.stderr)


def main(tests=None):
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
        if m.proc:
            m.stop(15)
        if s.proc and s.proc.poll() is None:
            s.stop()
        if apiserver_test.failed:
            print(open(os.path.join(dir, "manager.log")).read()[-4000:])
        shutil.rmtree(dir, ignore_errors=True)
    print("%d passed, %d failed" % (apiserver_test.passed, apiserver_test.failed))
    sys.exit(1 if apiserver_test.failed else 0)


if __name__ == "__main__":
    main()
