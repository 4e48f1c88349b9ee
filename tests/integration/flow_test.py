#!/usr/bin/env python3
"""API priority and fairness: requests held up by a slow webhook fill the seats of their priority level.

Usage: flow_test.py PATH-OF-kube-apiserver. Prints one line a failed check and "N passed, N failed".
"""
import json, os, re, sys, threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from apiserver_test import Client, check, equal, suite, until
from web import Web

CM = "/api/v1/namespaces/default/configmaps"
FLOW = "/apis/flowcontrol.apiserver.k8s.io/v1/"


class Gate:
    """An admission webhook that lets requests through when told."""

    def __init__(self, s):
        self.open, self.inside, self.most, self.lock = threading.Event(), 0, 0, threading.Lock()
        self.web = Web(self.answer, s, "gate")

    def answer(self, rq):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.open.wait(20)
        with self.lock:
            self.inside -= 1
        return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
                "response": {"uid": json.loads(rq.body)["request"]["uid"], "allowed": True}}

    def config(self):
        return {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": {"name": "gate"}, "webhooks": [{
            "name": "gate.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None", "timeoutSeconds": 30,
            "clientConfig": {"url": self.web.url, "caBundle": self.web.ca},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]}]}


class Call(threading.Thread):
    def __init__(self, s, user, name):
        super().__init__(daemon=True)
        self.client, self.name_, self.status, self.headers = Client(s, token=user + "token"), name, None, None
        self.start()

    def run(self):
        body = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": self.name_}})
        self.status, self.headers, _ = self.client.raw("POST", CM, body, {"Content-Type": "application/json"})


def level(response):
    return {"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration", "metadata": {"name": "narrow"}, "spec": {
        "type": "Limited", "limited": {"nominalConcurrencyShares": 1, "lendablePercent": 0, "borrowingLimitPercent": 0, "limitResponse": response}}}


def in_force(a):
    """Waits until what was written so far counts: the condition of a flow schema is written by who takes all of it up."""
    st, o = a.post(FLOW + "flowschemas", {
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"generateName": "mark-"}, "spec": {
            "matchingPrecedence": 9999, "priorityLevelConfiguration": {"name": "narrow"}, "rules": []}})
    equal("a mark", st, 201)
    mark = FLOW + "flowschemas/" + o["metadata"]["name"]
    until("it is seen", lambda: a.get(mark)[1].get("status", {}).get("conditions"))
    a.delete(mark)


def put_level(a, response):
    st, o = a.get(FLOW + "prioritylevelconfigurations/narrow")
    new = level(response)
    if st == 200:
        new["metadata"]["resourceVersion"] = o["metadata"]["resourceVersion"]
        equal("update of the level", a.call("PUT", FLOW + "prioritylevelconfigurations/narrow", new)[0], 200)
    else:
        equal("the level", a.post(FLOW + "prioritylevelconfigurations", new)[0], 201)
    in_force(a)


def setup(s, a, gate):
    a.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "all"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": n} for n in ("alice", "bob")]})
    equal("the gate", a.post("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", gate.config())[0], 201)
    put_level(a, {"type": "Reject"})
    equal("the schema", a.post(FLOW + "flowschemas", {
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": "narrow"}, "spec": {
            "matchingPrecedence": 100, "priorityLevelConfiguration": {"name": "narrow"}, "distinguisherMethod": {"type": "ByUser"},
            "rules": [{"subjects": [{"kind": "User", "user": {"name": n}} for n in ("alice", "bob")],
                       "resourceRules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"], "namespaces": ["*"]}]}]}})[0], 201)
    in_force(a)
    uid = a.get(FLOW + "prioritylevelconfigurations/narrow")[1]["metadata"]["uid"]
    gate.open.set()
    c = Call(s, "alice", "warm-")
    c.join(20)
    equal("classified", (c.status, c.headers["X-Kubernetes-PF-PriorityLevel-UID"]), (201, uid))
    gate.open.clear()


def test_reject(s, a, gate):
    first = Call(s, "alice", "r-")
    until("the first is inside", lambda: gate.inside == 1)
    second = Call(s, "bob", "r-")
    second.join(20)
    equal("the second is refused", (second.status, second.headers["Retry-After"]), (429, "1"))
    equal("in plain text", second.headers["Content-Type"], "text/plain; charset=utf-8")
    equal("others are not held up", a.get("/api/v1/namespaces/default")[0], 200)
    gate.open.set()
    first.join(20)
    equal("the first goes through", first.status, 201)
    gate.open.clear()


def dump(a, page):
    """The rows of one of the debugging pages, by their columns."""
    head, *rows = a.raw("GET", "/debug/api_priority_and_fairness/" + page)[2].decode().splitlines()
    return [dict(zip(re.split(", *", head), re.split(", *", r))) for r in rows]


def test_queue(s, a, gate):
    put_level(a, {"type": "Queue", "queuing": {"queues": 4, "handSize": 2, "queueLengthLimit": 3}})
    calls = [Call(s, "alice", "q-")]
    until("one is inside", lambda: gate.inside == 1)
    calls += [Call(s, "alice", "q-") for _ in range(8)]  # two queues of three
    until("two are too many", lambda: sum(c.status == 429 for c in calls) == 2)
    equal("the rest wait outside", (gate.inside, sum(c.status is None for c in calls)), (1, 7))
    shown = {r["PriorityLevelName"]: r for r in dump(a, "dump_priority_levels")}["narrow"]
    equal("what the level does", {k: shown[k] for k in ("IsIdle", "IsQuiescing", "WaitingRequests", "ExecutingRequests", "ActiveQueues")},
          {"IsIdle": "false", "IsQuiescing": "false", "WaitingRequests": "6", "ExecutingRequests": "1", "ActiveQueues": "2"})
    equal("what its queues hold", sorted(r["PendingRequests"] for r in dump(a, "dump_queues") if r["PriorityLevelName"] == "narrow"), ["0", "0", "3", "3"])
    rows = [r for r in dump(a, "dump_requests?includeRequestDetails=1") if r["PriorityLevelName"] == "narrow"]
    equal("their places", sorted((r["RequestIndexInQueue"], r["StartTime"] == "0001-01-01T00:00:00Z") for r in rows),
          sorted([("-1", False)] + [(str(i), True) for i in (0, 1, 2)] * 2))
    equal("who they are", {(r["FlowSchemaName"], r["UserName"], r["Verb"], r["Resource"]) for r in rows}, {("narrow", "alice", "create", "configmaps")})
    gate.open.set()
    for c in calls:
        c.join(20)
    equal("and go through", sorted(c.status for c in calls), [201] * 7 + [429] * 2)
    equal("never two at once", gate.most, 1)
    st, _, text = a.raw("GET", "/metrics")
    check("counted", b'apiserver_flowcontrol_rejected_requests_total{flow_schema="narrow",priority_level="narrow",reason="queue-full"} 2' in text and
          b'reason="concurrency-limit"} 1' in text, [l for l in text.splitlines() if b"flowcontrol" in l])


def limits(a):
    """Seats by level: what is its own, what it keeps, what it may have at most."""
    seats = {}
    for line in a.raw("GET", "/metrics")[2].decode().splitlines():
        m = re.match(r'apiserver_flowcontrol_(nominal|lower|upper)_limit_seats\{priority_level="([^"]*)"\} (\d+)$', line)
        if m:
            seats.setdefault(m[2], {})[m[1]] = int(m[3])
    return {n: (s["nominal"], s["lower"], s["upper"]) for n, s in seats.items()}


def test_limits(s, a, gate):
    # 245 shares are upstream's own levels', 1 is the narrow one's: of 20 seats catch-all with 5 shares has ceil(100/246)
    equal("seats", {n: l for n, l in limits(a).items() if n in ("narrow", "catch-all", "exempt")},
          {"narrow": (1, 1, 1), "catch-all": (1, 1, 21), "exempt": (0, 0, 20)})
    st, o = a.get(FLOW + "prioritylevelconfigurations/narrow")
    o["spec"]["limited"].update(nominalConcurrencyShares=246, lendablePercent=25, borrowingLimitPercent=35)
    equal("update of the level", a.call("PUT", FLOW + "prioritylevelconfigurations/narrow", o)[0], 200)
    in_force(a)  # 11 seats of 20: 2.75 of them are lent, 3.85 are borrowed
    equal("seats of a wider one", limits(a)["narrow"], (11, 8, 15))


def test_fight(s, a, gate):
    """A condition that somebody else writes otherwise is put right six times a minute and no more."""
    rival = FLOW + "flowschemas/contested/status?fieldManager=rival"
    wrong = {"status": {"conditions": [{"type": "Dangling", "status": "True", "reason": "NotFound", "message": "gone", "lastTransitionTime": "2020-01-01T00:00:00Z"}]}}

    def condition():
        return (a.get(FLOW + "flowschemas/contested")[1].get("status", {}).get("conditions") or [{}])[0].get("status")

    def oppose():
        equal("the rival writes", a.call("PATCH", rival, wrong, ctype="application/merge-patch+json")[0], 200)

    equal("a schema", a.post(FLOW + "flowschemas", {
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": "contested"}, "spec": {
            "matchingPrecedence": 9998, "priorityLevelConfiguration": {"name": "narrow"}, "rules": []}})[0], 201)
    until("judged", lambda: condition() == "False")
    for _ in range(5):
        oppose()
        until("put right", lambda: condition() == "False")
    fields = a.get(FLOW + "flowschemas/contested")[1]["metadata"]["managedFields"]
    check("by force: what it changed is no longer the rival's",
          all("f:reason" not in json.dumps(m["fieldsV1"]) for m in fields if m["manager"] == "rival"), fields)
    oppose()
    in_force(a)
    equal("left as it is", condition(), "True")
    a.delete(FLOW + "flowschemas/contested")


def prepare(s):
    s.more = ["--max-requests-inflight", "10", "--max-mutating-requests-inflight", "10"]
    gate = Gate(s)
    s.start()
    a = Client(s, cert="admin")
    setup(s, a, gate)
    return {"a": a, "gate": gate}


if __name__ == "__main__":
    suite("flow", prepare, (test_reject, test_queue, test_limits, test_fight))
