#!/usr/bin/env python3
"""Admission webhooks of a real server: what their configurations may be, whom they are asked about, what their answers do.

Usage: webhook_test.py PATH-OF-kube-apiserver [TEST...]. Prints one line a failed check and "N passed, N failed".
"""
import base64, http.client, json, os, socket, ssl, sys, threading, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from apiserver_test import CM, PODS, Client, causes, check, cm, equal, pod, series, suite, write
from h2 import DATA, END_HEADERS, END_STREAM, HEADERS, H2Web, Peer, fields, frame
from web import Web

REG = "/apis/admissionregistration.k8s.io/v1/"
API = "admissionregistration.k8s.io/v1"
KINDS = {"m": ("MutatingWebhookConfiguration", REG + "mutatingwebhookconfigurations"),
         "v": ("ValidatingWebhookConfiguration", REG + "validatingwebhookconfigurations")}
CONFIGMAPS = {"operations": ["CREATE", "UPDATE", "DELETE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}
made = []
n = 0


class Hook:
    """Answers by path: what `answers` has there, a function of the request or a response."""
    answers = {}
    seen = []
    paths = []


def answer(rq):
    review = json.loads(rq.body)
    Hook.seen.append(review)
    Hook.paths.append(rq.path)
    a = Hook.answers.get(rq.path.split("?")[0], {})
    if callable(a):
        a = a(review["request"])
    code, headers = a.pop("http", 200) if isinstance(a, dict) else 200, a.pop("headers", {}) if isinstance(a, dict) else {}
    if isinstance(a, dict) and code == 200:
        a = dict({"uid": review["request"]["uid"], "allowed": True}, **a)
        a = {"kind": "AdmissionReview", "apiVersion": a.pop("apiVersion", review["apiVersion"]), "response": a}
    return code, a, headers


def patch(*ops, **more):
    return dict({"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(list(ops)).encode()).decode()}, **more)


def add(key, value):
    return {"op": "add", "path": "/data/" + key, "value": value}


class World:
    def __init__(self, s, a):
        self.s, self.a = s, a
        web = Web(answer, s, "hook")
        self.url, self.ca = web.url, web.ca

    def hook(self, path, name="h.example.com", **more):
        return dict({"name": name, "rules": [CONFIGMAPS], "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 5,
                     "clientConfig": {"url": self.url + path, "caBundle": self.ca}}, **more)

    def config(self, kind, name, *hooks):
        return {"kind": KINDS[kind][0], "apiVersion": API, "metadata": {"name": name}, "webhooks": list(hooks)}

    def make(self, kind, *hooks, name="w"):
        """Registers them, as one configuration; what was seen is forgotten."""
        st, o = self.a.post(KINDS[kind][1], self.config(kind, name, *hooks))
        if st != 201:
            check("make configuration", False, o)
        made.append(KINDS[kind][1] + "/" + name)
        del Hook.seen[:], Hook.paths[:]

    def clean(self):
        while made:
            self.a.delete(made.pop())
        Hook.answers.clear()


def fresh(prefix="o"):
    global n
    n += 1
    return "%s%d" % (prefix, n)


def asked():
    """Paths that were asked, in order, since the last time."""
    p = [p.split("?")[0] for p in Hook.paths]
    del Hook.paths[:], Hook.seen[:]
    return p


def annotations(s, wanted, n):
    """Those of the audit log's events that are wanted, when there are n."""
    end, notes = time.time() + 10, {}
    while time.time() < end and len(notes) < n:
        for l in open(os.path.join(s.dir, "audit.log")):
            try:
                notes.update({k: v for k, v in json.loads(l).get("annotations", {}).items() if wanted(k)})
            except ValueError:
                pass  # being written
        time.sleep(0.02)
    return notes


def test_rules(a, w):
    def tried(kind="v", **hook):
        h = w.hook("/x")
        h.update(hook)
        st, e = a.post(KINDS[kind][1] + "?dryRun=All", w.config(kind, "bad", {k: v for k, v in h.items() if v is not None}))
        return [(c["field"].replace("webhooks[0].", ""), c["message"]) for c in e["details"]["causes"]] if st == 422 else st

    url = lambda u: {"clientConfig": {"url": u}}
    form = "; desired format: https://host[/path]"
    svc = lambda **k: {"clientConfig": {"service": dict({"namespace": "n", "name": "s"}, **k)}}
    rule = lambda **k: {"rules": [dict(CONFIGMAPS, **k)]}
    for kind in "mv":
        equal("good " + kind, tried(kind), 201)
    for what, hook, want in (
            ("no name", {"name": ""}, [("name", "Required value")]),
            ("two segments", {"name": "a.b"}, [("name", 'Invalid value: "a.b": should be a domain with at least three segments separated by dots')]),
            ("failurePolicy", {"failurePolicy": "x"}, [("failurePolicy", 'Unsupported value: "x": supported values: "Fail", "Ignore"')]),
            ("matchPolicy", {"matchPolicy": "x"}, [("matchPolicy", 'Unsupported value: "x": supported values: "Equivalent", "Exact"')]),
            ("sideEffects", {"sideEffects": "Some"}, [("sideEffects", 'Unsupported value: "Some": supported values: "None", "NoneOnDryRun"')]),
            ("no sideEffects", {"sideEffects": None}, [("sideEffects", "Required value: must specify one of None, NoneOnDryRun")]),
            ("timeout", {"timeoutSeconds": 31}, [("timeoutSeconds", "Invalid value: 31: the timeout value must be between 1 and 30 seconds")]),
            ("no versions", {"admissionReviewVersions": []}, [("admissionReviewVersions", "Required value: must specify one of v1, v1beta1")]),
            ("unknown version", {"admissionReviewVersions": ["v2"]},
             [("admissionReviewVersions", 'Invalid value: ["v2"]: must include at least one of v1, v1beta1')]),
            ("twice the version", {"admissionReviewVersions": ["v1", "v1"]}, [("admissionReviewVersions[1]", 'Invalid value: "v1": duplicate version')]),
            ("no client", {"clientConfig": {}}, [("clientConfig", "Required value: exactly one of url or service is required")]),
            ("http", url("http://h/p"), [("clientConfig.url", 'Invalid value: "http": \'https\' is the only allowed URL scheme' + form)]),
            ("no host", url("https:///p"), [("clientConfig.url", 'Invalid value: "": host must be specified' + form)]),
            ("user", url("https://u:p@h/"), [("clientConfig.url", 'Invalid value: "u:p": user information is not permitted in the URL')]),
            ("fragment and query", url("https://h/?q=1#f"), [
                ("clientConfig.url", 'Invalid value: "f": fragments are not permitted in the URL'),
                ("clientConfig.url", 'Invalid value: "q=1": query parameters are not permitted in the URL')]),
            ("service", svc(name="", namespace=""), [("clientConfig.service.name", "Required value"), ("clientConfig.service.namespace", "Required value")]),
            ("port", svc(port=0), [("clientConfig.service.port", "Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive")]),
            ("path", svc(path="x/"), [("clientConfig.service.path", 'Invalid value: "x/": must start with a \'/\''),
                                      ("clientConfig.service.path", 'Invalid value: "x/": segment[0] may not be empty')]),
            ("path segments", svc(path="/a//b"), [("clientConfig.service.path", 'Invalid value: "/a//b": segment[1] may not be empty')]),
            ("operations", rule(operations=[]), [("rules[0].operations", "Required value")]),
            ("operation", rule(operations=["GET"]),
             [("rules[0].operations[0]", 'Unsupported value: "GET": supported values: "*", "CONNECT", "CREATE", "DELETE", "UPDATE"')]),
            ("resources", rule(resources=["pods", "*"]), 201),
            ("all resources", rule(resources=["*", "pods"]),
             [("rules[0].resources", 'Invalid value: ["*","pods"]: if \'*\' is present, must not specify other resources without subresources')]),
            ("scope", rule(scope="x"), [("rules[0].scope", 'Unsupported value: "x": supported values: "*", "Cluster", "Namespaced"')]),
            ("condition without name", {"matchConditions": [{"name": "", "expression": "true"}]}, [("matchConditions[0].name", "Required value")]),
            ("condition without expression", {"matchConditions": [{"name": "a", "expression": ""}]},
             [("matchConditions[0].expression", "Required value")]),
            ("condition of a string", {"matchConditions": [{"name": "a", "expression": "'x'"}]},
             [("matchConditions[0].expression", "Invalid value: \"'x'\": must evaluate to bool but got string")])):
        equal(what, tried(**hook), want)
    r = tried(matchConditions=[{"name": "a", "expression": "object.x ="}])
    check("condition that does not compile", r[0][0] == "matchConditions[0].expression" and "compilation failed" in r[0][1], r)
    r = tried(matchConditions=[{"name": "a", "expression": "params.x == 1"}])
    check("conditions have no params", "undeclared reference to 'params'" in r[0][1], r)
    equal("reinvocationPolicy", tried("m", reinvocationPolicy="x"),
          [("reinvocationPolicy", 'Unsupported value: "x": supported values: "IfNeeded", "Never"')])
    st, e = a.post(KINDS["v"][1], w.config("v", "twice", w.hook("/x"), w.hook("/y")))
    equal("names twice", (st, causes(e)), (422, [("FieldValueDuplicate", "webhooks[1].name")]))
    st, o = a.post(KINDS["v"][1], w.config("v", "named", w.hook("/x", name="a.b.c", rules=[dict(CONFIGMAPS, apiGroups=["none.example.com"])])))
    equal("filled in", (st, [o["webhooks"][0][k] for k in ("failurePolicy", "matchPolicy", "namespaceSelector", "objectSelector")]),
          (201, ["Fail", "Equivalent", {}, {}]))
    o["webhooks"][0]["sideEffects"] = "Some"
    equal("updates too", a.put(KINDS["v"][1] + "/named", o)[0], 422)
    a.delete(KINDS["v"][1] + "/named")


def test_answers(a, w, s):
    w.make("v", w.hook("/v"))
    # what it is told
    a.post(CM, dict(cm("told", x="1"), metadata={"name": "told", "labels": {"l": "1"}}))
    rv = Hook.seen[0]
    rq = rv["request"]
    equal("review", (rv["kind"], rv["apiVersion"]), ("AdmissionReview", "admission.k8s.io/v1"))
    equal("request", {k: rq.get(k) for k in ("kind", "resource", "requestKind", "requestResource", "name", "namespace", "operation", "dryRun",
                                             "oldObject", "options")},
          {"kind": {"group": "", "version": "v1", "kind": "ConfigMap"}, "resource": {"group": "", "version": "v1", "resource": "configmaps"},
           "requestKind": {"group": "", "version": "v1", "kind": "ConfigMap"},
           "requestResource": {"group": "", "version": "v1", "resource": "configmaps"}, "name": "told", "namespace": "default",
           "operation": "CREATE", "dryRun": False, "oldObject": None, "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"}})
    equal("object", (rq["object"]["kind"], rq["object"]["apiVersion"], rq["object"]["data"], rq["userInfo"]["username"]),
          ("ConfigMap", "v1", {"x": "1"}, "admin"))
    equal("timeout", Hook.paths[0], "/v?timeout=5s")
    a.patch(CM + "/told?fieldManager=me", {"data": {"x": "2"}})
    rq = Hook.seen[-1]["request"]
    equal("patch", (rq["operation"], rq["object"]["data"], rq["oldObject"]["data"], rq["options"]),
          ("UPDATE", {"x": "2"}, {"x": "1"}, {"kind": "UpdateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "me"}))
    a.delete(CM + "/told")
    rq = Hook.seen[-1]["request"]
    equal("delete", (rq["operation"], rq.get("object"), rq["oldObject"]["data"], rq["options"]["kind"]), ("DELETE", None, {"x": "2"}, "DeleteOptions"))
    # denials
    said = 'admission webhook "h.example.com" denied the request'
    for what, r, want in (
            ("without explanation", {}, (400, said + " without explanation", None)),
            ("message", {"status": {"message": "no"}}, (400, said + ": no", None)),
            ("reason", {"status": {"reason": "Because", "code": 200}}, (400, said + ": Because", "Because")),
            ("code", {"status": {"message": "m", "code": 409, "reason": "Conflict"}}, (409, said + ": m", "Conflict"))):
        Hook.answers["/v"] = dict(r, allowed=False)
        st, e = a.post(CM, cm(fresh()))
        equal("denied " + what, (st, e["message"], e.get("reason") if want[2] != "Because" else want[2]), want)
    # failures
    fail = 'Internal error occurred: failed calling webhook "h.example.com": '
    for what, r, want in (
            ("uid", {"uid": "x"}, "received invalid webhook response: expected response.uid="),
            ("version", {"apiVersion": "v1"}, "received invalid webhook response: expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got "),
            ("a patch of a validating one", patch(add("x", "y")), "received invalid webhook response: validating webhook may not return response.patch"),
            ("404", {"http": 404}, "failed to call webhook: the server could not find the requested resource"),
            ("500", {"http": 500}, "failed to call webhook: an error on the server ("),
            ("a Status", {"http": 503, "kind": "Status", "message": "gone fishing"}, "failed to call webhook: gone fishing"),
            ("no JSON", b"x", "failed to call webhook: ")):
        Hook.answers["/v"] = (lambda r: lambda rq: dict(r) if isinstance(r, dict) else r)(r)
        st, e = a.post(CM, cm(fresh()))
        check("failed: " + what, st == 500 and e["message"].startswith(fail + want), (st, e))
    w.clean()
    w.make("v", w.hook("/v", failurePolicy="Ignore"))
    Hook.answers["/v"] = lambda rq: {"http": 500}
    name = fresh("ignored")
    equal("failures are ignored", a.post(CM, cm(name))[0], 201)
    Hook.answers["/v"] = {"allowed": False}
    equal("but not denials", a.post(CM, cm(fresh()))[0], 400)
    # warnings and audit annotations
    Hook.answers["/v"] = {"warnings": ["mind this"], "auditAnnotations": {"k": "v"}}
    noted = fresh("noted")
    st, h, _ = a.raw("POST", CM, json.dumps(cm(noted)), {"Content-Type": "application/json"})
    equal("warning", (st, h["Warning"]), (201, '299 - "mind this"'))
    w.clean()
    notes = annotations(s, lambda k: k.startswith("failed-open") or k == "h.example.com/k", 2)
    equal("audit annotations", notes, {"failed-open.validating.webhook.admission.k8s.io/round_0_index_0": "h.example.com", "h.example.com/k": "v"})
    # v1beta1
    w.make("v", w.hook("/v", admissionReviewVersions=["v9", "v1beta1", "v1"]))
    Hook.answers["/v"] = lambda rq: {"uid": ""}
    equal("v1beta1 needs no uid", (a.post(CM, cm(fresh()))[0], Hook.seen[0]["apiVersion"]), (201, "admission.k8s.io/v1beta1"))
    w.clean()
    # dry run
    w.make("v", w.hook("/v", sideEffects="NoneOnDryRun"))
    equal("dry run", (a.post(CM + "?dryRun=All", cm(fresh()))[0], Hook.seen[0]["request"]["dryRun"]), (201, True))
    w.clean()
    # timeouts
    w.make("v", w.hook("/slow", timeoutSeconds=1))
    Hook.answers["/slow"] = lambda rq: time.sleep(1.5) or {}
    st, e = a.post(CM, cm(fresh()))
    equal("timeout", (st, e["message"]), (500, fail + 'failed to call webhook: Post "%s/slow?timeout=1s": context deadline exceeded' % w.url))
    w.clean()


def test_together(a, w):
    """Those that judge are asked at once: each waits for the other."""
    both = threading.Barrier(3, timeout=5)
    w.make("v", *(w.hook("/w%d" % i, name="w%d.example.com" % i) for i in range(3)))
    for i in range(3):
        Hook.answers["/w%d" % i] = lambda rq: both.wait() and {} or {}
    equal("at once", a.post(CM, cm(fresh()))[0], 201)
    for i in range(3):
        Hook.answers["/w%d" % i] = {"allowed": i == 1, "status": {"message": "%d" % i}}
    st, e = a.post(CM, cm(fresh()))
    check("one denial is answered", st == 400 and e["message"] in ['admission webhook "w%d.example.com" denied the request: %d' % (i, i) for i in (0, 2)], e)
    w.clean()
    # a configuration that goes while it is asked
    for kind in "mv":
        came, go = threading.Event(), threading.Event()
        w.make(kind, w.hook("/wait", matchConditions=[{"name": "c", "expression": "object.data.x == '1'"}]), w.hook("/after", name="after.example.com"))
        Hook.answers["/wait"] = lambda rq: came.set() or go.wait(5) and {}
        answer = []
        other = Client(w.s, cert="admin")
        caller = threading.Thread(target=lambda: answer.append(other.post(CM, cm(fresh(), x="1"))[0]))
        caller.start()
        equal("asked " + kind, came.wait(5), True)
        w.a.delete(made[-1])
        equal("no longer asked " + kind, w.a.post(CM, cm(fresh(), x="1"))[0], 201)
        go.set()
        caller.join()
        equal("answered " + kind, (answer, sorted(set(asked()))), ([201], ["/after", "/wait"]))
        w.clean()


def test_match(a, w):
    def reached(hook, path=CM, obj=None, kind="v"):
        w.make(kind, w.hook("/m", **hook))
        st, o = a.post(path, obj or cm(fresh()))
        got = Hook.seen[:]
        w.clean()
        return (st, len(got)) if not got else (st, len(got), got[0]["request"])

    rule = lambda **k: {"rules": [dict({"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}, **k)]}
    equal("other resources", reached(rule(resources=["secrets"]))[1], 0)
    equal("everything", reached(rule())[1], 1)
    equal("scope", [reached(rule(scope=x))[1] for x in ("Cluster", "Namespaced", "*")], [0, 1, 1])
    equal("subresources only", reached(rule(resources=["*/status"]))[1], 0)
    equal("objectSelector", [reached({"objectSelector": {"matchLabels": {"a": v}}}, obj=dict(cm("x"), metadata={"name": fresh(), "labels": {"a": "1"}}))[1]
                             for v in "12"], [1, 0])
    equal("namespaceSelector", [reached({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": v}}})[1] for v in ("default", "x")], [1, 0])
    # conditions
    cond = lambda *x, **k: dict({"matchConditions": [{"name": "c%d" % i, "expression": e} for i, e in enumerate(x)]}, **k)
    for kind in "mv":
        equal("conditions " + kind, [reached(cond(*c), kind=kind)[1] for c in (
            ("true",), ("false",), ("true", "request.operation == 'CREATE'"), ("object.metadata.name == 'none'", "true"),
            ("authorizer.group('').resource('pods').check('get').allowed()",), ("oldObject == null",), ("request.userInfo.username == 'x'",))],
            [1, 0, 1, 0, 1, 1, 0])
        name = fresh()
        r = reached(cond("object.nope == 1"), obj=cm(name), kind=kind)
        equal("conditions that fail " + kind, r[:2], (403, 0))
        equal("conditions that fail, one is false", reached(cond("object.nope == 1", "false"), kind=kind)[:2], (201, 0))
        equal("conditions that fail are ignored " + kind, reached(cond("object.nope == 1", failurePolicy="Ignore"), kind=kind)[:2], (201, 0))
    w.make("v", w.hook("/m", **cond("object.nope == 1")))
    name = fresh()
    st, e = a.post(CM, cm(name))
    equal("forbidden", (st, e["message"]),
          (403, "configmaps \"%s\" is forbidden: expression 'object.nope == 1' resulted in error: no such key: nope" % name))
    w.clean()
    # equivalent versions
    hpa = {"kind": "HorizontalPodAutoscaler", "apiVersion": "autoscaling/v1", "metadata": {"name": "h"},
           "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"},
                    "targetCPUUtilizationPercentage": 50}}
    path = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers"
    v2 = {"rules": [{"operations": ["CREATE"], "apiGroups": ["autoscaling"], "apiVersions": ["v2"], "resources": ["horizontalpodautoscalers"]}]}
    equal("Exact", reached(dict(v2, matchPolicy="Exact"), path + "?dryRun=All", hpa)[:2], (201, 0))
    r = reached(dict(v2, matchPolicy="Equivalent", matchConditions=[{"name": "c", "expression": "object.spec.metrics[0].resource.name == 'cpu'"}]),
                path + "?dryRun=All", hpa)
    equal("Equivalent", r[:2], (201, 1))
    if len(r) > 2:
        rq = r[2]
        equal("as v2", (rq["kind"]["version"], rq["resource"]["version"], rq["requestKind"]["version"], rq["requestResource"]["version"],
                        rq["object"]["apiVersion"], rq["object"]["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"]),
              ("v2", "v2", "v1", "v1", "autoscaling/v2", 50))
    w.make("m", w.hook("/m", **dict(v2, matchPolicy="Equivalent")))
    Hook.answers["/m"] = patch({"op": "replace", "path": "/spec/metrics/0/resource/target/averageUtilization", "value": 60},
                               {"op": "add", "path": "/spec/minReplicas", "value": 2})
    st, o = a.post(path + "?dryRun=All", hpa)
    equal("changed as v2, answered as v1", (st, o.get("apiVersion"), o["spec"].get("targetCPUUtilizationPercentage"), o["spec"].get("minReplicas")),
          (201, "autoscaling/v1", 60, 2))
    w.clean()
    # its own kind of object is never shown
    w.make("v", w.hook("/m", rules=rule()["rules"]))
    equal("configurations are exempt", (a.post(KINDS["m"][1] + "?dryRun=All", w.config("m", "free"))[0], len(Hook.seen)), (201, 0))
    sar = {"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}}
    st, o = a.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", sar)
    equal("reviews are not", (st, [x["request"]["kind"]["kind"] for x in Hook.seen]), (201, ["SelfSubjectAccessReview"]))
    w.clean()
    w.make("v", w.hook("/m", rules=[{"operations": ["CREATE", "CONNECT"], "apiGroups": [""], "apiVersions": ["v1"],
                                     "resources": ["pods/eviction", "serviceaccounts/token"]}]))
    a.post(PODS, pod("ev"))
    a.post(PODS + "/ev/eviction", {"kind": "Eviction", "apiVersion": "policy/v1", "metadata": {"name": "ev"}})
    got = [x["request"] for x in Hook.seen]
    equal("subresources", [(r["subResource"], r["kind"]["kind"], r["object"]["kind"]) for r in got], [("eviction", "Eviction", "Eviction")])
    a.delete(PODS + "/ev?gracePeriodSeconds=0")
    w.clean()


def test_mutate(a, w, s):
    w.make("m", w.hook("/a", name="a.example.com"), w.hook("/b", name="b.example.com"))
    Hook.answers["/a"] = patch(add("a", "1"))
    Hook.answers["/b"] = lambda rq: patch(add("b", "after a" if "a" in rq["object"]["data"] else "before"))
    st, o = a.post(CM, cm(fresh(), x="1"))
    equal("one after another", (st, o.get("data"), asked()), (201, {"x": "1", "a": "1", "b": "after a"}, ["/a", "/b"]))
    notes = annotations(s, lambda k: ".webhook.admission.k8s.io/round_0_index_1" in k, 2)
    equal("patches in the audit log", {k: json.loads(v) for k, v in notes.items()}, {
        "mutation.webhook.admission.k8s.io/round_0_index_1": {"configuration": "w", "webhook": "b.example.com", "mutated": True},
        "patch.webhook.admission.k8s.io/round_0_index_1": {"configuration": "w", "webhook": "b.example.com", "patchType": "JSONPatch", "patch": [
            add("b", "after a")]}})
    for what, r, code, want in (
            ("patch without type", {"patch": patch(add("x", "1"))["patch"]}, 500, "webhook returned response.patch but not response.patchType"),
            ("type without patch", {"patchType": "JSONPatch"}, 500, "webhook returned response.patchType but not response.patch"),
            ("undecodable", {"patchType": "JSONPatch", "patch": base64.b64encode(b"{").decode()}, 500, "received undecodable patch in webhook response"),
            ("type", patch(add("x", "1"), patchType="Merge"), 500, 'unsupported patch type "Merge"'),
            ("does not apply", patch({"op": "remove", "path": "/nope/x"}), 500, "Internal error occurred: "),
            ("wrong type", patch({"op": "add", "path": "/data", "value": 1}), 500, "Internal error occurred: ")):
        Hook.answers["/a"] = (lambda r: lambda rq: dict(r))(r)
        st, e = a.post(CM, cm(fresh(), x="1"))
        check("patch: " + what, st == code and want in e["message"], (st, e))
    Hook.answers["/a"] = patch()
    equal("an empty patch", a.post(CM, cm(fresh(), x="1"))[1].get("data"), {"x": "1", "b": "before"})
    w.clean()
    w.make("m", w.hook("/a", rules=[dict(CONFIGMAPS, operations=["DELETE"])]))
    name = fresh()
    a.post(CM, cm(name))
    Hook.answers["/a"] = patch(add("x", "1"))
    st, e = a.delete(CM + "/" + name)
    equal("a delete has nothing to change", (st, e["message"]), (500, 'Internal error occurred: admission webhook "h.example.com" attempted to '
                                                                      "modify the object, which is not supported for this operation"))
    w.clean()
    # by name of the configuration
    w.make("m", w.hook("/z"), name="a")
    w.make("m", w.hook("/y"), name="b")
    a.post(CM, cm(fresh()))
    equal("in order of names", asked(), ["/z", "/y"])
    w.clean()


def test_counted(a, w):
    """What came of questions, in metrics."""
    def told(metric, name, of):
        return {tuple(l[k] for k in of): v for l, v in series(a, "apiserver_admission_" + metric) if l["name"] == name}

    w.make("v", w.hook("/v", name="judge.example.com"), name="counted")
    w.make("m", w.hook("/m", name="open.example.com", failurePolicy="Ignore", matchConditions=[{"name": "c", "expression": "request.operation != 'UPDATE'"}]),
           w.hook("/n", name="broken.example.com", matchConditions=[{"name": "c", "expression": "object.metadata.labels.x == 'y'"}]), name="counted")
    name = fresh("counted")
    for answer, http in (({}, 0), ({"allowed": False, "status": {"code": 409}}, 0), ({"allowed": False}, 0), ({}, 500), ({"uid": "x"}, 0)):
        Hook.answers["/v"] = (lambda r, h: lambda rq: dict(r, http=h) if h else dict(r))(answer, http)
        Hook.answers["/m"] = Hook.answers["/v"] if answer != {"allowed": False} else (lambda rq: dict(patch({"op": "remove", "path": "/none"})))
        a.post(CM, {"metadata": {"name": fresh("counted"), "labels": {"x": "y"}}})
    Hook.answers["/v"], Hook.answers["/m"] = {}, {}
    equal("without the label", a.post(CM, cm(name))[0], 403)
    a.post(CM, {"metadata": {"name": name, "labels": {"x": "z"}}})
    a.patch(CM + "/" + name, {"data": {"a": "b"}})
    of = ("code", "operation", "rejected", "type")
    equal("judged", told("webhook_request_total", name="judge.example.com", of=of),
          {("200", "CREATE", "false", "validating"): 2, ("500", "CREATE", "true", "validating"): 1, ("503", "CREATE", "true", "validating"): 1,
           ("200", "UPDATE", "false", "validating"): 1})
    equal("refused", told("webhook_rejection_count", name="judge.example.com", of=("error_type", "rejection_code")),
          {("calling_webhook_error", "500"): 1, ("calling_webhook_error", "503"): 1})
    equal("mutated", told("webhook_request_total", name="open.example.com", of=of),
          {("200", "CREATE", "false", "admit"): 3, ("409", "CREATE", "true", "admit"): 1, ("0", "CREATE", "true", "admit"): 1,
           ("500", "CREATE", "false", "admit"): 1, ("503", "CREATE", "false", "admit"): 1})
    equal("why not", told("webhook_rejection_count", name="open.example.com", of=("error_type", "rejection_code")),
          {("no_error", "409"): 1, ("apiserver_internal_error", "0"): 1})
    equal("ignored", told("webhook_fail_open_count", name="open.example.com", of=("type",)), {("admit",): 2})
    equal("timed", sum(told("webhook_admission_duration_seconds_count", name="open.example.com", of=("rejected",)).values()), 7)
    of = ("kind", "operation", "type")
    equal("excluded", (told("match_condition_exclusions_total", name="open.example.com", of=of), told("match_condition_exclusions_total", name="broken.example.com", of=of)),
          ({("webhook", "UPDATE", "admit"): 1}, {("webhook", "CREATE", "admit"): 1, ("webhook", "UPDATE", "admit"): 1}))
    equal("errors", told("match_condition_evaluation_errors_total", name="broken.example.com", of=of), {("webhook", "CREATE", "admit"): 1})
    check("conditions are timed", told("match_condition_evaluation_seconds_count", name="open.example.com", of=of)["webhook", "CREATE", "admit"] >= 6)
    w.clean()


def test_reinvoke(a, w):
    # a before b; b's change has a asked again when it wants that
    for policy, want in (("Never", ["/a", "/b"]), ("IfNeeded", ["/a", "/b", "/a"])):
        w.make("m", w.hook("/a", name="a.example.com", reinvocationPolicy=policy), w.hook("/b", name="b.example.com"))
        Hook.answers["/a"] = lambda rq: patch(add("a", "saw b" if "b" in rq["object"]["data"] else "1"))
        Hook.answers["/b"] = patch(add("b", "1"))
        st, o = a.post(CM, cm(fresh(), x="1"))
        equal("reinvocation " + policy, (asked(), o.get("data", {}).get("a")), (want, "saw b" if policy == "IfNeeded" else "1"))
        w.clean()
    # nobody changes anything: nobody is asked twice
    w.make("m", w.hook("/a", name="a.example.com", reinvocationPolicy="IfNeeded"), w.hook("/b", name="b.example.com", reinvocationPolicy="IfNeeded"))
    a.post(CM, cm(fresh(), x="1"))
    equal("no change, once", asked(), ["/a", "/b"])
    # the last one's own change does not ask it again
    Hook.answers["/b"] = patch(add("b", "1"))
    a.post(CM, cm(fresh(), x="1"))
    equal("others again", asked(), ["/a", "/b", "/a"])
    w.clean()
    # a policy's change alone
    mp = {"kind": "MutatingAdmissionPolicy", "apiVersion": API, "metadata": {"name": "p"}, "spec": {
        "matchConstraints": {"resourceRules": [dict(CONFIGMAPS, operations=["CREATE"])]}, "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'add', path: '/data/p', value: '1'}]"}}]}}
    a.post(REG + "mutatingadmissionpolicies", mp)
    a.post(REG + "mutatingadmissionpolicybindings", {"kind": "MutatingAdmissionPolicyBinding", "apiVersion": API, "metadata": {"name": "p"},
                                                     "spec": {"policyName": "p"}})
    made.extend([REG + "mutatingadmissionpolicies/p", REG + "mutatingadmissionpolicybindings/p"])
    w.make("m", w.hook("/a", name="a.example.com", reinvocationPolicy="Never"))
    Hook.answers["/a"] = lambda rq: patch(add("a", rq["object"]["data"].get("p", "none")))
    st, o = a.post(CM, cm(fresh(), x="1"))
    equal("policies come first, webhooks once", (o.get("data"), asked()), ({"x": "1", "p": "1", "a": "1"}, ["/a"]))
    w.clean()


def test_custom(a, w):
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    st, o = a.define({"kind": "CustomResourceDefinition", "apiVersion": "apiextensions.k8s.io/v1", "metadata": {"name": "ws.w.example.com"},
                      "spec": {"group": "w.example.com", "scope": "Namespaced", "names": {"plural": "ws", "kind": "W"},
                               "versions": [{"name": v, "served": True, "storage": v == "v1", "schema": {"openAPIV3Schema": {
                                   "type": "object", "properties": {"spec": {"type": "object", "properties": {
                                       "n": {"type": "integer"}, "d": {"type": "string", "default": "filled"}}}}}}} for v in ("v1", "v2")]}})
    equal("crd", st, 201)
    w.make("m", w.hook("/a", rules=[{"operations": ["CREATE"], "apiGroups": ["w.example.com"], "apiVersions": ["v2"], "resources": ["ws"]}]))
    Hook.answers["/a"] = patch({"op": "add", "path": "/spec/n", "value": 7}, {"op": "add", "path": "/spec/unknown", "value": 1})
    st, o = a.post("/apis/w.example.com/v1/namespaces/default/ws", {"kind": "W", "apiVersion": "w.example.com/v1", "metadata": {"name": "x"}, "spec": {}})
    rq = Hook.seen[0]["request"] if Hook.seen else {}
    equal("told as v2", rq.get("object", {}).get("apiVersion"), "w.example.com/v2")
    equal("changed, pruned, as v1", (st, o.get("apiVersion"), o.get("spec")), (201, "w.example.com/v1", {"n": 7, "d": "filled"}))
    w.clean()
    a.delete(crds + "/ws.w.example.com")


def together(a, n):
    """So many creates at once; their statuses and what was said of those that failed."""
    got = []

    def one():
        st, o = Client(a.s, cert="admin").post(CM, cm(fresh("t" + os.urandom(4).hex())))
        got.append(st if st == 201 else (st, o.get("message")))

    threads = [threading.Thread(target=one) for i in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return got


def allow(body):
    review = json.loads(body)
    return json.dumps({"kind": "AdmissionReview", "apiVersion": review["apiVersion"], "response": {"uid": review["request"]["uid"], "allowed": True}})


def test_connections(a, w):
    """Calls share an HTTP/2 connection where that is the way to one server; what servers do to connections is nothing to clients."""
    web = H2Web(allow, w.s, "h2hook")
    hook = w.hook("/h2", clientConfig={"url": web.url + "/h2", "caBundle": web.ca}, timeoutSeconds=20)
    w.make("v", hook)
    web.hold = 10
    for i in range(2):
        equal("ten at once", (together(a, 10), web.protocols), ([201] * 10, ["h2"]))
    web.hold, web.refuse = 1, 1
    equal("a stream refused", (together(a, 1), web.protocols), ([201], ["h2"]))
    web.goaway = 1
    equal("GOAWAY behind the answer", (together(a, 1), together(a, 1), web.protocols), ([201], [201], ["h2"] * 2))
    web.goaway, web.early = 1, True
    equal("GOAWAY before it is looked at", (together(a, 1), web.protocols), ([201], ["h2"] * 3))
    web.cut()
    equal("cut off while idle", (together(a, 1), web.protocols), ([201], ["h2"] * 4))
    w.clean()
    web.close()
    # as many connections as it takes
    web = H2Web(allow, w.s, "h2hook", names="DNS:localhost", max_streams=4)
    w.make("v", dict(hook, clientConfig={"url": web.url.replace("127.0.0.1", "LOCALHOST"), "caBundle": web.ca}))
    equal("the first tells how many streams there may be", together(a, 1), [201])
    web.hold = 10
    equal("four streams a connection", (together(a, 10), len(web.protocols) >= 3), ([201] * 10, True))
    w.clean()
    web.close()
    # Services may have many servers, so that each call at a time has a connection of its own
    web = H2Web(allow, w.s, "h1hook", names="DNS:h1.default.svc")
    services = "/api/v1/namespaces/default/services"
    equal("service", a.post(services, {"metadata": {"name": "h1"}, "spec": {"type": "ExternalName", "externalName": "localhost"}})[0], 201)
    w.make("v", dict(hook, clientConfig={"service": {"namespace": "default", "name": "h1", "port": web.port}, "caBundle": web.ca}))
    web.hold = 10
    for i in range(2):
        equal("ten connections", (together(a, 10), web.protocols), ([201] * 10, ["http/1.1"] * 10))
    web.cut()
    equal("ten others", (together(a, 10), web.protocols), ([201] * 10, ["http/1.1"] * 20))
    w.clean()
    web.close()
    a.delete(services + "/h1")


def test_kubeconfig(s, tokens):
    """Webhooks that a kubeconfig names are spoken to in HTTP/2, too."""
    users = [Client(s, token="h2-%d" % i) for i in range(5)]
    tokens.hold = 5
    threads = [threading.Thread(target=lambda c=c: seen.append(c.get("/version")[0])) for c in users]
    seen = []
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    equal("five tokens at once", (seen, set(tokens.protocols)), ([200] * 5, {"h2"}))
    tokens.hold = 1


def review_token(body):
    return json.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": {"authenticated": True, "user": {"username": "x"}}})


def test_aggregated(a, w):
    """Requests to an aggregated server go over HTTP/2; what switches protocols does not."""
    web = H2Web(lambda body: json.dumps({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "h2.example.com/v1", "resources": [],
                                         "length": len(body)}), w.s, "h2api", names="DNS:h2.default.svc")
    at, service, name = "/apis/apiregistration.k8s.io/v1/apiservices", "/api/v1/namespaces/default/services", "v1.h2.example.com"
    a.post(service, {"metadata": {"name": "h2"}, "spec": {"type": "ExternalName", "externalName": "localhost"}})
    st, o = a.post(at, {"metadata": {"name": name}, "spec": {
        "group": "h2.example.com", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 100, "caBundle": web.ca,
        "service": {"namespace": "default", "name": "h2", "port": web.port}}})
    equal("APIService", st, 201)
    end = time.time() + 20
    while time.time() < end and not [c for c in a.get(at + "/" + name)[1].get("status", {}).get("conditions", []) if c["status"] == "True"]:
        time.sleep(0.05)
    path, text = "/apis/h2.example.com/v1/things", "x" * 200000
    equal("a get", a.get(path)[1].get("groupVersion"), "h2.example.com/v1")
    equal("a body", a.post(path, text)[1].get("length"), len(text))
    equal("over HTTP/2", set(web.protocols), {"h2"})
    equal("but upgrades", (a.get(path, headers={"Connection": "Upgrade", "Upgrade": "x"})[0], web.protocols.count("http/1.1")), (503, 1))
    a.delete(at + "/" + name)
    a.delete(service + "/h2")
    web.close()


def test_later(a, w):
    """A webhook says when to ask again: in seconds, with 429 and 5xx, ten times."""
    w.make("v", w.hook("/later", timeoutSeconds=2))
    for status, header, times, want in ((503, "0", 3, 201), (429, "0", 3, 201), (500, "0", 10, 201), (503, "0", 11, 500), (503, "soon", 1, 500), (503, "9", 1, 500),
                                        (404, "0", 1, 500)):
        left = [times]

        def answer(rq):
            left[0] -= 1
            return {"http": status, "headers": {"Retry-After": header}, "message": "busy"} if left[0] >= 0 else {}
        Hook.answers["/later"] = answer
        equal("%d after %s, %d times" % (status, header, times), (a.post(CM, cm(fresh()))[0], len(asked())), (want, times + (want == 201)))
    w.clean()


def test_statuses(a, w):
    """Of answers, and of refusals: what is no status makes the server drop the connection, or reset the stream."""
    w.make("v", w.hook("/status"))
    for code, want in ((200, 201), (206, 201), (207, 500), (299, 500), (300, 500), (600, 500), (1000, 500), (99, 500)):
        Hook.answers["/status"] = lambda rq: {"uid": rq["uid"], "allowed": True} if code == 200 else {"http": code, **json.loads(allow(
            json.dumps({"apiVersion": API.replace("registration", ""), "request": rq})))}
        equal("answered %d" % code, a.post(CM, cm(fresh()))[0], want)
    Hook.answers["/status"] = lambda rq: {"headers": {"interim": (100, 103, 199)}}
    equal("others before", a.post(CM, cm(fresh()))[0], 201)
    for code, want in ((0, 400), (399, 400), (418, 418), (999, 999), (1000, None), (1 << 30, None)):
        Hook.answers["/status"] = lambda rq: {"allowed": False, "status": {"code": code}}
        c, body = a.open(), json.dumps(cm(fresh())).encode()
        try:
            c.request("POST", CM, body, {"Content-Type": "application/json"})
            got = c.getresponse().status
        except http.client.RemoteDisconnected:
            got = None
        equal("refused with %d" % code, got, want)
        c.close()
        p = Peer(a.s)
        p.send(frame(HEADERS, END_HEADERS, 1, fields((":method", "POST"), (":scheme", "https"), (":path", CM), ("content-type", "application/json"))),
               frame(DATA, END_STREAM, 1, body))
        equal("over HTTP/2", p.outcome(), [want] if want else ["reset 2"])
        p.close()
    w.clean()
    equal("the server is well", a.post(CM, cm(fresh()))[0], 201)


def test_certificates(s, a, w):
    """Servers whose certificates Go does not like, or would not if it looked, are told of in the audit log."""
    s.sh("openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", "poor.key")
    s.sh("openssl", "req", "-new", "-key", "poor.key", "-subj", "/CN=localhost", "-out", "poor.csr")
    write(s, "poor.ext", "subjectAltName=DNS:localhost")
    sign = ("openssl", "x509", "-req", "-in", "poor.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2")
    s.sh(*sign, "-out", "nameless.crt")
    s.sh(*sign, "-sha1", "-extfile", "poor.ext", "-out", "sha1.crt")
    aps, service = "/apis/apiregistration.k8s.io/v1/apiservices", "/api/v1/namespaces/default/services"
    a.post(service, {"metadata": {"name": "poor"}, "spec": {"type": "ExternalName", "externalName": "localhost"}})
    for cert, ids, why in (("nameless", ("missing-san",), "relies on a legacy Common Name field instead of the SAN extension for subject validation"),
                           ("sha1", ("insecure-sha1",), "uses an insecure SHA-1 signature")):
        web = Web(lambda rq: {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "poor.example.com/v1", "resources": []}, s, "poorweb")
        ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ctx.set_ciphers("DEFAULT:@SECLEVEL=0")
        ctx.load_cert_chain(os.path.join(s.dir, cert + ".crt"), os.path.join(s.dir, "poor.key"))
        web.httpd.socket = ctx.wrap_socket(socket.socket(fileno=web.httpd.socket.detach()), server_side=True)
        w.make("v", w.hook("/poor", failurePolicy="Ignore", clientConfig={"url": "https://localhost:%d/poor" % web.port, "caBundle": w.ca}))
        key = lambda host: ids[0] + ".invalid-cert.kubernetes.io/" + host
        equal("asked in vain: " + cert, a.post(CM, cm(fresh()))[0], 201)
        equal("told of: " + cert, annotations(s, lambda k: k == key("localhost"), 1), {key("localhost"): why})
        w.clean()
        st, o = a.post(aps, {"metadata": {"name": "v1.poor.example.com"}, "spec": {
            "group": "poor.example.com", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 100, "insecureSkipTLSVerify": True,
            "service": {"namespace": "default", "name": "poor", "port": web.port}}})
        equal("nobody looks: " + cert, st, 201)
        end = time.time() + 20
        while time.time() < end and a.post("/apis/poor.example.com/v1/things", {})[0] != 200:
            time.sleep(0.05)
        told = lambda: [l for l in open(os.path.join(s.dir, "audit.log")) if '"/apis/poor.example.com/v1/things"' in l and '"%s":"%s"' % (key("localhost"), why) in l]
        while time.time() < end and not told():
            time.sleep(0.05)
        check("but says what there was to see: " + cert, told())
        a.delete(aps + "/v1.poor.example.com")
        web.close()
    a.delete(service + "/poor")


def test_switched_off(s, tokens):
    """DISABLE_HTTP2 keeps the server's clients from it."""
    s.stop()
    os.environ["DISABLE_HTTP2"] = "1"
    try:
        s.start()
    finally:
        del os.environ["DISABLE_HTTP2"]
    n = len(tokens.protocols)
    equal("a token", Client(s, token="h1").get("/version")[0], 200)
    equal("in HTTP/1.1", tokens.protocols[n:], ["http/1.1"])


def prepare(s):
    write(s, "audit.yaml", "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Request\n  verbs: [create]\n")
    tokens = H2Web(review_token, s, "tokens")
    write(s, "tokens.json", json.dumps(tokens.kubeconfig()))
    s.more = ["--audit-log-path", "audit.log", "--audit-policy-file", "audit.yaml", "--authentication-token-webhook-config-file", "tokens.json",
              "--authentication-token-webhook-version", "v1"]
    s.start()
    a = Client(s, cert="admin")
    return {"a": a, "w": World(s, a), "tokens": tokens}


if __name__ == "__main__":
    suite("webhook", prepare, (test_rules, test_answers, test_together, test_match, test_mutate, test_counted, test_reinvoke, test_custom, test_connections,
                               test_kubeconfig, test_aggregated, test_later, test_statuses, test_certificates, test_switched_off), lambda have: have["w"].clean())
