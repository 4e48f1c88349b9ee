#!/usr/bin/env python3
"""The controllers of quotas, budgets, volumes, scaling and tokens: a real API server and a real controller manager, no kubelet.

Usage: resources_test.py PATH-OF-kube-apiserver PATH-OF-kube-controller-manager [NAME...]; see controller_test.py.
"""
import base64, hashlib, hmac, json, ssl, threading, time, urllib.parse

import controller_test
from apiserver_test import Client, check, equal, own_address, until
from controller_test import Space, template
from web import Web


def pod(name, labels=None, **spec):
    return {"metadata": {"name": name, "labels": labels or {}}, "spec": dict({"containers": [{"name": "c", "image": "x"}]}, **spec)}


def sized(name, cpu, memory="1Mi", **spec):
    r = {"cpu": cpu, "memory": memory}
    return pod(name, containers=[{"name": "c", "image": "x", "resources": {"requests": r, "limits": r}}], **spec)


# ---- quotas ----

def quota(s, name, hard, **spec):
    s.make("resourcequotas", {"metadata": {"name": name}, "spec": dict(spec, hard=hard)})
    return until("quota %s counted" % name, lambda: used(s, name) if set(used(s, name)) == set(hard) else None)


def used(s, name):
    return s.get("resourcequotas", name)["status"].get("used", {})


def test_quota_counts(m, a):
    s = Space(a, "quota")
    s.make("configmaps", {"metadata": {"name": "one"}})
    equal("what is there is counted", quota(s, "q", {"pods": "3", "requests.cpu": "1", "cpu": "1", "limits.memory": "1Gi", "services": "2",
          "services.nodeports": "2", "services.loadbalancers": "0", "configmaps": "3", "count/configmaps": "3", "count/deployments.apps": "1",
          "persistentvolumeclaims": "1", "requests.storage": "10Gi", "gold.storageclass.storage.k8s.io/requests.storage": "5Gi"}),
          {"pods": "0", "requests.cpu": "0", "cpu": "0", "limits.memory": "0", "services": "0", "services.nodeports": "0",
           "services.loadbalancers": "0", "configmaps": "2", "count/configmaps": "2", "count/deployments.apps": "0",
           "persistentvolumeclaims": "0", "requests.storage": "0", "gold.storageclass.storage.k8s.io/requests.storage": "0"})
    equal("hard", s.get("resourcequotas", "q")["status"]["hard"], s.get("resourcequotas", "q")["spec"]["hard"])
    st, e = a.post(s.path("pods"), pod("no"))
    equal("what must be stated", (st, e["message"]),
          (403, 'pods "no" is forbidden: failed quota: q: must specify cpu for: c; limits.memory for: c; requests.cpu for: c'))
    s.make("pods", sized("p1", "600m", "100Mi"))
    equal("charged at once", [used(s, "q")[k] for k in ("pods", "requests.cpu", "cpu", "limits.memory")], ["1", "600m", "600m", "100Mi"])
    st, e = a.post(s.path("pods"), sized("p2", "500m"))
    equal("too much", (st, e["message"]), (403, 'pods "p2" is forbidden: exceeded quota: q, requested: cpu=500m,requests.cpu=500m, '
                                                'used: cpu=600m,requests.cpu=600m, limited: cpu=1,requests.cpu=1'))
    equal("a refused one costs nothing", used(s, "q")["requests.cpu"], "600m")
    s.make("services", {"metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": [{"port": 1, "name": "a"}, {"port": 2, "name": "b"}]}})
    equal("node ports", [used(s, "q")[k] for k in ("services", "services.nodeports")], ["1", "2"])
    st, e = a.patch(s.path("services", "s"), {"spec": {"type": "LoadBalancer"}})
    equal("a type is charged too", st, 403)
    s.make("persistentvolumeclaims", {"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "gold",
                                                                          "resources": {"requests": {"storage": "4Gi"}}}})
    equal("storage", [used(s, "q")[k] for k in ("persistentvolumeclaims", "requests.storage",
                                                "gold.storageclass.storage.k8s.io/requests.storage")], ["1", "4Gi", "4Gi"])
    # what goes is free again
    s.patch("services", "s", {"spec": {"type": "ClusterIP"}})
    until("node ports freed", lambda: used(s, "q")["services.nodeports"] == "0")
    s.say("p1", "Succeeded")
    until("an ended pod is free", lambda: used(s, "q")["pods"] == "0" and used(s, "q")["cpu"] == "0")
    s.delete("configmaps", "one")
    until("a deleted one is free", lambda: used(s, "q")["count/configmaps"] == "1" and used(s, "q")["configmaps"] == "1")
    s.patch("resourcequotas", "q", {"spec": {"hard": {"pods": "7", "services": None}}})
    until("hard follows", lambda: s.get("resourcequotas", "q")["status"]["hard"].get("pods") == "7" and "services" not in used(s, "q"))


def test_quota_scopes(m, a):
    s = Space(a, "quota-scopes")
    quota(s, "be", {"pods": "5"}, scopes=["BestEffort"])
    quota(s, "nbe", {"pods": "5"}, scopes=["NotBestEffort"])
    quota(s, "ends", {"pods": "5"}, scopes=["Terminating"])
    quota(s, "class", {"pods": "5"}, scopeSelector={"matchExpressions": [
        {"scopeName": "PriorityClass", "operator": "In", "values": ["system-cluster-critical"]}]})
    quota(s, "cross", {"pods": "0"}, scopes=["CrossNamespacePodAffinity"])
    names = ("be", "nbe", "ends", "class", "cross")
    s.make("pods", pod("a"))
    equal("best effort", [used(s, q)["pods"] for q in names], ["1", "0", "0", "0", "0"])
    s.make("pods", sized("b", "1m", activeDeadlineSeconds=600))
    equal("with a deadline", [used(s, q)["pods"] for q in names], ["1", "1", "1", "0", "0"])
    s.patch("pods", "a", {"spec": {"activeDeadlineSeconds": 60}})
    equal("a pod moves into a scope", [used(s, q)["pods"] for q in names], ["1", "1", "2", "0", "0"])
    s.make("pods", pod("c", priorityClassName="system-cluster-critical"))
    equal("by class", [used(s, q)["pods"] for q in names], ["2", "1", "2", "1", "0"])
    st, e = a.post(s.path("pods"), pod("d", affinity={"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "zone", "namespaceSelector": {}, "labelSelector": {}}]}}))
    equal("across namespaces", st, 403)
    s.delete("pods", "c", gracePeriodSeconds=0)
    until("freed in its scope", lambda: used(s, "class")["pods"] == "0" and used(s, "be")["pods"] == "1")


def test_quota_custom(m, a):
    crd = {"metadata": {"name": "gears.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
           "names": {"plural": "gears", "singular": "gear", "kind": "Gear", "listKind": "GearList"},
           "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}]}}
    st, e = a.define(crd)
    equal("definition", st, 201)
    path = "/apis/example.com/v1/namespaces/quota-crd/gears"
    s = Space(a, "quota-crd")
    until("served", lambda: a.get(path)[0] == 200)
    gear = lambda n: {"apiVersion": "example.com/v1", "kind": "Gear", "metadata": {"name": n}}
    equal("before the quota", a.post(path, gear("one"))[0], 201)
    quota(s, "q", {"count/gears.example.com": "2"})
    equal("counted", used(s, "q"), {"count/gears.example.com": "1"})
    equal("second, third", (a.post(path, gear("two"))[0], a.post(path, gear("three"))[0]), (201, 403))
    equal("deleted", a.delete(path + "/one")[0], 200)
    until("freed", lambda: used(s, "q") == {"count/gears.example.com": "1"})
    a.delete("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/gears.example.com")


def test_quota_race(m, a):
    """Many creates and deletes at once: never more pods than the quota says, none lost at the end."""
    s = Space(a, "quota-race")
    quota(s, "q", {"pods": "10"})
    most, done = [0], threading.Event()

    def watch():
        c = Client(a.s, cert="admin")
        while not done.is_set():
            most[0] = max(most[0], len(c.get(s.path("pods"))[1]["items"]))

    def work(i):
        c = Client(a.s, cert="admin")
        for k in range(12):
            name = "p-%d-%d" % (i, k)
            if c.post(s.path("pods"), pod(name))[0] == 201 and k % 2:
                c.delete(s.path("pods", name), {"gracePeriodSeconds": 0})
    w = threading.Thread(target=watch)
    w.start()
    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    done.set()
    w.join()
    check("never more than the quota", most[0] <= 10, most[0])
    until("the rest fits", lambda: used(s, "q")["pods"] == str(len(s.names())))
    while len(s.names()) < 10:
        if a.post(s.path("pods"), pod("rest-%d" % len(s.names())))[0] != 201:
            break
    equal("all places can be used", len(s.names()), 10)


# ---- budgets ----

PDBS = "/apis/policy/v1/namespaces/%s/poddisruptionbudgets"


def budget(a, ns, name, app, **spec):
    st, got = a.post(PDBS % ns, {"metadata": {"name": name}, "spec": dict(spec, selector={"matchLabels": {"app": app}})})
    check("create budget " + name, st == 201, got)


def budget_status(a, ns, name, **want):
    def same():
        got = a.get(PDBS % ns + "/" + name)[1]
        if got["status"].get("observedGeneration") != got["metadata"]["generation"]:
            return None
        return all(got["status"].get(k) == v for k, v in want.items()) and got["status"]
    return until("budget %s: %r" % (name, want), same)


def evict(a, ns, name, **options):
    return a.post("/api/v1/namespaces/%s/pods/%s/eviction" % (ns, name),
                  dict(options, apiVersion="policy/v1", kind="Eviction", metadata={"name": name, "namespace": ns}))


def test_budget(m, a):
    s = Space(a, "budget")
    budget(a, s.ns, "b", "web", maxUnavailable=1)
    st = budget_status(a, s.ns, "b", expectedPods=0, disruptionsAllowed=0)
    equal("nothing yet", [(c["type"], c["status"], c["reason"]) for c in st["conditions"]], [("DisruptionAllowed", "False", "InsufficientPods")])
    s.make("deployments", {"metadata": {"name": "web"}, "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}},
                                                                 "template": template({"app": "web"})}})
    until("pods", lambda: len(s.names("app=web")) == 3)
    budget_status(a, s.ns, "b", expectedPods=3, desiredHealthy=2, currentHealthy=0, disruptionsAllowed=0)
    s.run_all("app=web")
    st = budget_status(a, s.ns, "b", expectedPods=3, desiredHealthy=2, currentHealthy=3, disruptionsAllowed=1)
    equal("now one may go", [(c["status"], c["reason"]) for c in st["conditions"]], [("True", "SufficientPods")])
    names = s.names("app=web")
    st, e = evict(a, s.ns, names[0], deleteOptions={"dryRun": ["All"]})
    equal("a trial changes nothing", (st, a.get(PDBS % s.ns + "/b")[1]["status"]["disruptionsAllowed"]), (201, 1))
    equal("evict", evict(a, s.ns, names[0])[0], 201)
    gone = s.get("pods", names[0])
    check("it knows why", not gone or [c["reason"] for c in gone["status"]["conditions"] if c["type"] == "DisruptionTarget"]
          == ["EvictionByEvictionAPI"], gone)
    st, e = evict(a, s.ns, names[1])
    equal("no second", (st, e["reason"], [c["reason"] for c in e["details"]["causes"]]), (429, "TooManyRequests", ["DisruptionBudget"]))
    until("a new pod", lambda: len(s.names("app=web")) == 3)
    s.run_all("app=web")
    budget_status(a, s.ns, "b", currentHealthy=3, disruptionsAllowed=1, disruptedPods=None)
    a.patch(PDBS % s.ns + "/b", {"spec": {"maxUnavailable": "50%"}})
    budget_status(a, s.ns, "b", desiredHealthy=1, disruptionsAllowed=2)
    s.patch("deployments", "web", {"spec": {"replicas": 1}})
    budget_status(a, s.ns, "b", expectedPods=1, desiredHealthy=0, disruptionsAllowed=1)


def test_budget_unhealthy(m, a):
    s = Space(a, "budget-unhealthy")
    budget(a, s.ns, "b", "x", minAvailable=2)
    for n in ("one", "two"):
        s.make("pods", pod(n, {"app": "x"}))
    s.say("one", "Running")
    s.say("two", "Running", ready=False)
    budget_status(a, s.ns, "b", expectedPods=2, desiredHealthy=2, currentHealthy=1, disruptionsAllowed=0)
    equal("an unready pod is guarded", evict(a, s.ns, "two")[0], 429)
    a.patch(PDBS % s.ns + "/b", {"spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}})
    budget_status(a, s.ns, "b", expectedPods=2, disruptionsAllowed=0)
    equal("a ready one too", evict(a, s.ns, "one")[0], 429)
    equal("but not by this policy", evict(a, s.ns, "two")[0], 201)
    budget(a, s.ns, "alone", "alone", maxUnavailable="10%")
    s.make("pods", pod("alone", {"app": "alone"}))
    budget_status(a, s.ns, "alone", expectedPods=0, disruptionsAllowed=0)
    until("pods without a controller are named", lambda: s.events("UnmanagedPods"))
    budget(a, s.ns, "again", "alone", maxUnavailable=1)
    s.say("alone", "Running")
    st, e = evict(a, s.ns, "alone")
    equal("two budgets", (st, e["status"], e["code"], "more than one" in e["message"]), (201, "Failure", 500, True))  # as upstream answers


def test_budget_custom(m, a):
    """A custom resource with a scale is a controller like any other."""
    scale = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
    crd = {"metadata": {"name": "flocks.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
           "names": {"plural": "flocks", "singular": "flock", "kind": "Flock", "listKind": "FlockList"},
           "versions": [{"name": "v1", "served": True, "storage": True, "subresources": {"status": {}, "scale": scale},
                         "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}}]}}
    a.define(crd)
    path = "/apis/example.com/v1/namespaces/budget-crd/flocks"
    s = Space(a, "budget-crd")
    until("served", lambda: a.get(path)[0] == 200)
    st, f = a.post(path, {"apiVersion": "example.com/v1", "kind": "Flock", "metadata": {"name": "f"}, "spec": {"replicas": 4}})
    equal("flock", st, 201)
    p = pod("one", {"app": "f"})
    p["metadata"]["ownerReferences"] = [{"apiVersion": "example.com/v1", "kind": "Flock", "name": "f", "uid": f["metadata"]["uid"],
                                         "controller": True}]
    s.make("pods", p)
    s.say("one", "Running")
    budget(a, s.ns, "b", "f", maxUnavailable=3)
    budget_status(a, s.ns, "b", expectedPods=4, desiredHealthy=1, currentHealthy=1, disruptionsAllowed=0)
    a.delete("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/flocks.example.com")


# ---- volumes ----

PV = "/api/v1/persistentvolumes"


def volume(a, name, size="1Gi", modes=("ReadWriteOnce",), policy="Retain", cls="", labels=None, **spec):
    v = {"metadata": {"name": name, "labels": labels or {}},
         "spec": dict({"capacity": {"storage": size}, "accessModes": list(modes), "persistentVolumeReclaimPolicy": policy,
                       "storageClassName": cls, "hostPath": {"path": "/tmp/" + name}}, **spec)}
    st, got = a.post(PV, v)
    check("create volume " + name, st == 201, got)


def claim(s, name, size="1Gi", modes=("ReadWriteOnce",), cls="", **spec):
    s.make("persistentvolumeclaims", {"metadata": {"name": name}, "spec": dict({"accessModes": list(modes), "storageClassName": cls,
                                      "resources": {"requests": {"storage": size}}}, **spec)})


def bound(a, s, name, to):
    """Claim and volume are bound to one another, as both say."""
    def both():
        c, v = s.get("persistentvolumeclaims", name), a.get(PV + "/" + to)[1]
        return c["spec"].get("volumeName") == to and c["status"]["phase"] == "Bound" and v["status"].get("phase") == "Bound" and \
            v["spec"]["claimRef"]["uid"] == c["metadata"]["uid"] and c
    return until("claim %s has volume %s" % (name, to), both)


def phase(a, name, want):
    until("volume %s is %s" % (name, want), lambda: a.get(PV + "/" + name)[1].get("status", {}).get("phase") == want)


def storage_class(a, name, **more):
    st, got = a.post("/apis/storage.k8s.io/v1/storageclasses", dict(more, metadata={"name": name, "annotations": more.pop("annotations", {})}))
    check("create class " + name, st == 201, got)


def test_volumes_bind(m, a):
    s = Space(a, "volumes")
    volume(a, "big", "5Gi")
    volume(a, "small", "1Gi")
    volume(a, "shared", "1Gi", ("ReadWriteMany", "ReadWriteOnce"))
    volume(a, "gold", "1Gi", cls="gold", labels={"tier": "gold"})
    volume(a, "reserved", "1Gi", claimRef={"namespace": s.ns, "name": "mine"})
    for n in ("big", "small", "shared", "gold", "reserved"):
        phase(a, n, "Available")
    claim(s, "c1")
    c = bound(a, s, "c1", "small")
    equal("status of the claim", (c["status"]["capacity"], c["status"]["accessModes"]), ({"storage": "1Gi"}, ["ReadWriteOnce"]))
    equal("annotations", sorted(k for k in c["metadata"]["annotations"]), ["pv.kubernetes.io/bind-completed", "pv.kubernetes.io/bound-by-controller"])
    claim(s, "many", modes=("ReadWriteMany",))
    bound(a, s, "many", "shared")
    claim(s, "selects", cls="gold", selector={"matchLabels": {"tier": "silver"}})
    claim(s, "asks", cls="gold", selector={"matchLabels": {"tier": "gold"}})
    bound(a, s, "asks", "gold")
    claim(s, "mine")
    bound(a, s, "mine", "reserved")
    claim(s, "named", volumeName="big", size="2Gi")
    bound(a, s, "named", "big")
    claim(s, "wrong", volumeName="later", size="3Gi")
    volume(a, "later", "1Gi")
    until("a volume that is too small says so", lambda: s.events("VolumeMismatch"))
    claim(s, "late")
    claim(s, "none")
    bound(a, s, "late", "later")
    until("nothing for it", lambda: [e for e in s.events("FailedBinding") if e["involvedObject"]["name"] == "none"])
    equal("pending", s.get("persistentvolumeclaims", "selects")["status"]["phase"], "Pending")


def test_volumes_reclaim(m, a):
    s = Space(a, "reclaim")
    for name, policy in (("keep", "Retain"), ("del", "Delete"), ("cycle", "Recycle")):
        volume(a, name, policy=policy, cls=name)
        claim(s, name, cls=name)
        bound(a, s, name, name)
    ext = {"metadata": {"name": "ext", "annotations": {"pv.kubernetes.io/provisioned-by": "example.com/disk"}},
           "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Delete",
                    "storageClassName": "ext", "csi": {"driver": "example.com", "volumeHandle": "x"}}}
    equal("a provisioned volume", a.post(PV, ext)[0], 201)
    claim(s, "ext", cls="ext")
    bound(a, s, "ext", "ext")
    for name in ("keep", "del", "cycle", "ext"):
        s.delete("persistentvolumeclaims", name)
    phase(a, "keep", "Released")
    phase(a, "ext", "Released")
    phase(a, "del", "Failed")
    phase(a, "cycle", "Failed")
    events = lambda: {e["reason"] for e in a.get("/api/v1/namespaces/default/events")[1]["items"] if e["involvedObject"]["kind"] == "PersistentVolume"}
    until("events say why", lambda: {"VolumeFailedDelete", "VolumeFailedRecycle"} <= events())
    a.patch(PV + "/keep", {"spec": {"claimRef": None}})
    phase(a, "keep", "Available")
    claim(s, "lost", cls="keep")
    bound(a, s, "lost", "keep")
    a.delete(PV + "/keep")
    check("a bound volume stays", a.get(PV + "/keep")[1]["metadata"].get("deletionTimestamp"))
    a.patch(PV + "/keep", {"metadata": {"finalizers": None}})
    until("the claim lost it", lambda: s.get("persistentvolumeclaims", "lost")["status"]["phase"] == "Lost")


def test_volumes_classes(m, a):
    s = Space(a, "classes")
    storage_class(a, "outside", provisioner="example.com/disk")
    storage_class(a, "waits", provisioner="example.com/disk", volumeBindingMode="WaitForFirstConsumer")
    storage_class(a, "inside", provisioner="kubernetes.io/none")
    claim(s, "outside", cls="outside")
    until("asked for", lambda: s.get("persistentvolumeclaims", "outside")["metadata"].get("annotations", {}).get(
        "volume.kubernetes.io/storage-provisioner") == "example.com/disk")
    until("it says so", lambda: s.events("ExternalProvisioning"))
    claim(s, "waits", cls="waits")
    until("waits", lambda: s.events("WaitForFirstConsumer"))
    claim(s, "inside", cls="inside")
    claim(s, "unknown", cls="unknown")
    until("no such plugin, no such class", lambda: len(s.events("ProvisioningFailed")) == 2)
    # what the scheduler would do, then a provisioner
    s.patch("persistentvolumeclaims", "waits", {"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "n1"}}})
    until("asked for with a node", lambda: s.get("persistentvolumeclaims", "waits")["metadata"]["annotations"].get(
        "volume.kubernetes.io/storage-provisioner"))
    c = s.get("persistentvolumeclaims", "waits")
    volume(a, "made", cls="waits", policy="Delete", claimRef={"kind": "PersistentVolumeClaim", "namespace": s.ns, "name": "waits",
                                                              "uid": c["metadata"]["uid"]})
    bound(a, s, "waits", "made")
    # a default class that comes later
    s.make("persistentvolumeclaims", {"metadata": {"name": "plain"}, "spec": {"accessModes": ["ReadWriteOnce"],
                                                                              "resources": {"requests": {"storage": "1Gi"}}}})
    storage_class(a, "default", provisioner="example.com/disk", annotations={"storageclass.kubernetes.io/is-default-class": "true"})
    until("the default class", lambda: s.get("persistentvolumeclaims", "plain")["spec"].get("storageClassName") == "default")
    a.delete("/apis/storage.k8s.io/v1/storageclasses/default")


def test_volumes_protection(m, a):
    s = Space(a, "protection")
    volume(a, "guarded", cls="guarded")
    claim(s, "c", cls="guarded")
    bound(a, s, "c", "guarded")
    equal("finalizers", (s.get("persistentvolumeclaims", "c")["metadata"]["finalizers"], a.get(PV + "/guarded")[1]["metadata"]["finalizers"]),
          (["kubernetes.io/pvc-protection"], ["kubernetes.io/pv-protection"]))
    s.make("pods", pod("p", nodeName="n1", volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]))
    s.delete("persistentvolumeclaims", "c")
    a.delete(PV + "/guarded")
    check("in use", s.get("persistentvolumeclaims", "c")["metadata"].get("deletionTimestamp"))
    s.delete("pods", "p", gracePeriodSeconds=0)
    until("free: both go", lambda: s.get("persistentvolumeclaims", "c") is None and a.get(PV + "/guarded")[0] == 404)


def test_volumes_ephemeral(m, a):
    s = Space(a, "ephemeral")
    t = {"metadata": {"labels": {"a": "b"}}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "",
                                                       "resources": {"requests": {"storage": "1Gi"}}}}
    p = s.make("pods", pod("p", volumes=[{"name": "v", "ephemeral": {"volumeClaimTemplate": t}}]))
    c = until("the claim is made", lambda: s.get("persistentvolumeclaims", "p-v"))
    equal("its owner", [(o["kind"], o["uid"], o["controller"]) for o in c["metadata"]["ownerReferences"]], [("Pod", p["metadata"]["uid"], True)])
    equal("its labels", c["metadata"]["labels"], {"a": "b"})
    s.delete("pods", "p", gracePeriodSeconds=0)
    until("it goes with its pod", lambda: s.get("persistentvolumeclaims", "p-v") is None)
    claim(s, "q-v")
    s.make("pods", pod("q", volumes=[{"name": "v", "ephemeral": {"volumeClaimTemplate": t}}]))
    until("another's claim is not taken", lambda: [e for e in s.events("FailedBinding", "Pod") if "not owner" in e["message"]])


# ---- autoscaling ----

class Metrics:
    """A metrics server: what it answers is what the test put here."""
    usage = {}        # pod -> cpu
    queue = "0"       # of the external metric "queue"
    load = "0"        # of the pods metric "load"


def metrics(rq):
    path = urllib.parse.unquote(rq.path.split("?")[0])  # "*" comes escaped, as Go's proxy writes it
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    group = path.split("/")[2]
    version = {"metrics.k8s.io": "v1beta1", "custom.metrics.k8s.io": "v1beta2", "external.metrics.k8s.io": "v1beta1"}[group]
    if path == "/apis/%s/%s" % (group, version):
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "%s/%s" % (group, version), "resources": []}
    if path.startswith("/apis/metrics.k8s.io/"):
        return {"kind": "PodMetricsList", "apiVersion": "metrics.k8s.io/v1beta1", "items": [
            {"metadata": {"name": p}, "timestamp": now, "window": "15s", "containers": [{"name": "c", "usage": {"cpu": u, "memory": "1Mi"}}]}
            for p, u in Metrics.usage.items()]}
    if path.endswith("/queue"):
        return {"kind": "ExternalMetricValueList", "items": [{"metricName": "queue", "timestamp": now, "value": Metrics.queue}]}
    if "/pods/*/load" in path:
        return {"kind": "MetricValueList", "items": [{"describedObject": {"kind": "Pod", "name": p}, "timestamp": now, "value": Metrics.load}
                                                     for p in Metrics.usage]}
    return 404, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404, "message": "no " + path}


def metrics_server(a):
    web = Web(metrics, a.s, "metrics", "DNS:metrics.kube-system.svc,IP:127.0.0.1", host="")
    port, ca = web.port, web.ca
    a.post("/api/v1/namespaces/kube-system/services", {"metadata": {"name": "metrics"}, "spec": {"ports": [{"port": 443}]}})
    st, got = a.post("/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices", {
        "metadata": {"name": "metrics", "labels": {"kubernetes.io/service-name": "metrics"}}, "addressType": "IPv4",
        "ports": [{"name": "", "port": port}], "endpoints": [{"addresses": [own_address()], "conditions": {"ready": True}}]})
    check("endpoint slice", st == 201, got)
    a.post("/api/v1/namespaces/kube-system/endpoints", {"metadata": {"name": "metrics"}, "subsets": [
        {"addresses": [{"ip": own_address()}], "ports": [{"port": port}]}]})
    for group, version in (("metrics.k8s.io", "v1beta1"), ("custom.metrics.k8s.io", "v1beta2"), ("external.metrics.k8s.io", "v1beta1")):
        name = "%s.%s" % (version, group)
        st, got = a.post("/apis/apiregistration.k8s.io/v1/apiservices", {"metadata": {"name": name}, "spec": {
            "group": group, "version": version, "groupPriorityMinimum": 100, "versionPriority": 100, "caBundle": ca,
            "service": {"namespace": "kube-system", "name": "metrics"}}})
        check("APIService " + name, st == 201, got)
        until(name + " is available", lambda: [c for c in a.get("/apis/apiregistration.k8s.io/v1/apiservices/" + name)[1].get("status", {}).get(
            "conditions", []) if c["type"] == "Available" and c["status"] == "True"])
    return web


HPAS = "/apis/autoscaling/v2/namespaces/%s/horizontalpodautoscalers"


def autoscaler(a, ns, name, target, **spec):
    st, got = a.post(HPAS % ns, {"metadata": {"name": name}, "spec": dict(spec, scaleTargetRef={
        "apiVersion": "apps/v1", "kind": "Deployment", "name": target})})
    check("create autoscaler " + name, st == 201, got)


def hpa_condition(a, ns, name, type, status, reason):
    def there():
        got = a.get(HPAS % ns + "/" + name)[1].get("status", {})
        return [c for c in got.get("conditions", []) if (c["type"], c["status"], c["reason"]) == (type, status, reason)] and got
    return until("autoscaler %s: %s" % (name, reason), there)


def replicas(s, name):
    return s.get("deployments", name)["spec"]["replicas"]


def workload(s, name, n):
    s.make("deployments", {"metadata": {"name": name}, "spec": {"replicas": n, "selector": {"matchLabels": {"app": name}}, "template": template(
        {"app": name}, containers=[{"name": "c", "image": "x", "resources": {"requests": {"cpu": "100m"}}}])}})
    until("pods of " + name, lambda: len(s.names("app=" + name)) == n)
    old = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 3600))
    for p in s.pods("app=" + name):
        s.say(p, "Running", startTime=old)
    # the API server's EndpointSlice and Deployment controllers do not matter here: pods are ready when they say so
    return s.names("app=" + name)


def test_hpa(m, a):
    s = Space(a, "hpa")
    names = workload(s, "web", 2)
    cpu = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}
    autoscaler(a, s.ns, "early", "web", maxReplicas=5, metrics=[cpu])
    hpa_condition(a, s.ns, "early", "ScalingActive", "False", "FailedGetResourceMetric")
    equal("nothing is known, nothing changes", replicas(s, "web"), 2)
    a.delete(HPAS % s.ns + "/early")
    web = metrics_server(a)
    try:
        Metrics.usage = {n: "100m" for n in names}
        autoscaler(a, s.ns, "cpu", "web", minReplicas=1, maxReplicas=5, metrics=[cpu])
        st = hpa_condition(a, s.ns, "cpu", "AbleToScale", "True", "SucceededRescale")
        equal("twice the target: twice the pods", replicas(s, "web"), 4)
        equal("what it saw", st["currentMetrics"][0]["resource"]["current"], {"averageUtilization": 100, "averageValue": "100m"})
        until("it says so", lambda: [e for e in s.events("SuccessfulRescale") if "New size: 4" in e["message"]])
        a.delete(HPAS % s.ns + "/cpu")
        names = workload(s, "calm", 4)
        Metrics.usage = {n: "1m" for n in names}
        autoscaler(a, s.ns, "calm", "calm", maxReplicas=5, metrics=[cpu])
        hpa_condition(a, s.ns, "calm", "AbleToScale", "True", "ScaleDownStabilized")
        equal("not at once", replicas(s, "calm"), 4)
        autoscaler(a, s.ns, "fast", "calm", maxReplicas=5, metrics=[cpu], behavior={"scaleDown": {
            "stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}})
        a.delete(HPAS % s.ns + "/calm")
        hpa_condition(a, s.ns, "fast", "ScalingLimited", "True", "ScaleDownLimit")
        equal("one at a time", replicas(s, "calm"), 3)
        a.delete(HPAS % s.ns + "/fast")
        workload(s, "queue", 1)
        Metrics.queue = "35"
        autoscaler(a, s.ns, "queue", "queue", maxReplicas=10, metrics=[{"type": "External", "external": {
            "metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": "10"}}}])
        until("by an external metric", lambda: replicas(s, "queue") == 4)
        Metrics.usage = {n: "1m" for n in workload(s, "load", 1)}
        Metrics.load = "9"
        autoscaler(a, s.ns, "load", "load", maxReplicas=2, metrics=[{"type": "Pods", "pods": {
            "metric": {"name": "load"}, "target": {"type": "AverageValue", "averageValue": "3"}}}])
        hpa_condition(a, s.ns, "load", "ScalingLimited", "True", "TooManyReplicas")
        equal("by a metric of pods, within bounds", replicas(s, "load"), 2)
        autoscaler(a, s.ns, "none", "none", maxReplicas=2)
        hpa_condition(a, s.ns, "none", "AbleToScale", "False", "FailedGetScale")
    finally:
        web.close()
        for name in ("v1beta1.metrics.k8s.io", "v1beta2.custom.metrics.k8s.io", "v1beta1.external.metrics.k8s.io"):
            a.delete("/apis/apiregistration.k8s.io/v1/apiservices/" + name)


# ---- the manager's own port ----

def test_serving(m, a):
    import socket, subprocess, urllib.error, urllib.request
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    p = subprocess.Popen([controller_test.MANAGER, "--kubeconfig", "kubeconfig", "--leader-elect=false", "--controllers=ttl-controller",
                          "--bind-address=127.0.0.1", "--secure-port=%d" % port], cwd=a.s.dir, stderr=subprocess.DEVNULL)
    ctx = ssl.create_default_context()
    ctx.check_hostname, ctx.verify_mode = False, ssl.CERT_NONE

    def fetch(path, token=None):
        try:
            r = urllib.request.Request("https://127.0.0.1:%d%s" % (port, path), headers={"Authorization": "Bearer " + token} if token else {})
            with urllib.request.urlopen(r, context=ctx, timeout=5) as x:
                return x.status, x.read().decode()
        except urllib.error.HTTPError as e:
            return e.code, ""
        except OSError as e:
            return 0, str(e)
    try:
        until("it answers", lambda: fetch("/healthz") == (200, "ok"))
        equal("metrics are not for everybody", (fetch("/metrics")[0], fetch("/metrics", "bobtoken")[0]), (401, 403))
        a.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", {
            "metadata": {"name": "see"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:monitoring"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "alice"}]})
        until("but for some", lambda: 'workqueue_adds_total{name="ttlcontroller"}' in fetch("/metrics", "alicetoken")[1])
    finally:
        p.terminate()
        p.wait(20)


# ---- tokens, nodes, addresses ----

def test_account_tokens(m, a):
    s = Space(a, "tokens")
    sa = s.make("serviceaccounts", {"metadata": {"name": "robot"}})
    s.make("secrets", {"metadata": {"name": "t", "annotations": {"kubernetes.io/service-account.name": "robot"}},
                       "type": "kubernetes.io/service-account-token"})
    got = until("the token is made", lambda: (lambda x: x if x and x.get("data", {}).get("token") else None)(s.get("secrets", "t")))
    equal("whose it is", got["metadata"]["annotations"]["kubernetes.io/service-account.uid"], sa["metadata"]["uid"])
    check("with the CA", b"BEGIN CERTIFICATE" in base64.b64decode(got["data"]["ca.crt"]))
    equal("and the namespace", base64.b64decode(got["data"]["namespace"]), b"tokens")
    st, r = Client(a.s, token=base64.b64decode(got["data"]["token"]).decode()).post("/apis/authentication.k8s.io/v1/selfsubjectreviews", {})
    equal("the server knows it", (st, r.get("status", {}).get("userInfo", {}).get("username")), (201, "system:serviceaccount:tokens:robot"))
    s.delete("serviceaccounts", "robot")
    until("it goes with its account", lambda: s.get("secrets", "t") is None)
    st, got = a.post(s.path("secrets"), {"metadata": {"name": "u", "annotations": {"kubernetes.io/service-account.name": "nobody"}},
                                         "type": "kubernetes.io/service-account-token"})
    until("nor does one stay without", lambda: s.get("secrets", "u") is None)


def test_bootstrap_tokens(m, a):
    secrets = "/api/v1/namespaces/kube-system/secrets"

    def token(id, seconds):
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))
        st, got = a.post(secrets, {"metadata": {"name": "bootstrap-token-" + id}, "type": "bootstrap.kubernetes.io/token", "stringData": {
            "token-id": id, "token-secret": "0123456789abcdef", "expiration": when, "usage-bootstrap-signing": "true"}})
        check("token " + id, st == 201, got)
    a.post("/api/v1/namespaces", {"metadata": {"name": "kube-public"}})
    a.post("/api/v1/namespaces/kube-public/configmaps", {"metadata": {"name": "cluster-info"}, "data": {"kubeconfig": "hello"}})
    token("abcdef", 3600)
    info = lambda: a.get("/api/v1/namespaces/kube-public/configmaps/cluster-info")[1]["data"]
    jws = until("signed", lambda: info().get("jws-kubeconfig-abcdef"))
    head, _, sig = jws.split(".")
    b64 = lambda b: base64.urlsafe_b64encode(b).rstrip(b"=").decode()
    equal("header", json.loads(base64.urlsafe_b64decode(head + "==")), {"alg": "HS256", "kid": "abcdef"})
    equal("signature", sig, b64(hmac.new(b"0123456789abcdef", (head + "." + b64(b"hello")).encode(), hashlib.sha256).digest()))
    token("fedcba", 1)
    until("expired ones go", lambda: a.get(secrets + "/bootstrap-token-fedcba")[0] == 404)
    a.delete(secrets + "/bootstrap-token-abcdef")
    until("so do their signatures", lambda: "jws-kubeconfig-abcdef" not in info())


def test_node_ttl(m, a):
    a.post("/api/v1/nodes", {"metadata": {"name": "n1"}})
    until("annotated", lambda: a.get("/api/v1/nodes/n1")[1]["metadata"].get("annotations", {}).get("node.alpha.kubernetes.io/ttl") == "0")
    a.delete("/api/v1/nodes/n1")


def test_service_cidrs(m, a):
    path = "/apis/networking.k8s.io/v1/servicecidrs"
    st, got = a.post(path, {"metadata": {"name": "more"}, "spec": {"cidrs": ["10.77.0.0/24"]}})
    equal("range", st, 201)
    ready = lambda status, reason: lambda: [c for c in a.get(path + "/more")[1].get("status", {}).get("conditions", [])
                                            if (c["type"], c["status"], c["reason"]) == ("Ready", status, reason)]
    until("ready", ready("True", ""))
    equal("guarded", a.get(path + "/more")[1]["metadata"]["finalizers"], ["networking.k8s.io/service-cidr-finalizer"])
    st, got = a.post("/apis/networking.k8s.io/v1/ipaddresses", {"metadata": {"name": "10.77.0.5"}, "spec": {"parentRef": {
        "resource": "services", "namespace": "default", "name": "x"}}})
    equal("an address in it", st, 201)
    a.delete(path + "/more")
    until("it must wait", ready("False", "Terminating"))
    a.delete("/apis/networking.k8s.io/v1/ipaddresses/10.77.0.5")
    until("then it goes", lambda: a.get(path + "/more")[0] == 404)


if __name__ == "__main__":
    controller_test.Manager.more = ["--controllers=*,bootstrap-signer-controller,token-cleaner-controller",
                                    "--horizontal-pod-autoscaler-sync-period=500ms"]
    controller_test.main(globals())
