#!/usr/bin/env python3
"""API priority and fairness: requests held up by a slow webhook fill the seats of their priority level.

Usage: flow_test.py PATH-OF-kube-apiserver. Prints one line a failed check and "N passed, N failed".
"""
import json, os, re, socket, ssl, sys, threading

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
                       "resourceRules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "watch"], "namespaces": ["*"]}]}]}})[0], 201)
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


def put_exempt(a, **exempt):
    """What an exempt level lends of what would be its own."""
    st, o = a.get(FLOW + "prioritylevelconfigurations/exempt")
    o["spec"]["exempt"] = exempt
    equal("update of exempt", a.call("PUT", FLOW + "prioritylevelconfigurations/exempt", o)[0], 200)
    in_force(a)


def test_exempt(s, a, gate):
    put_level(a, {"type": "Reject"})
    put_exempt(a, nominalConcurrencyShares=54, lendablePercent=50)
    # of 300 shares 54 are its own: ceil(20*54/300) seats, of which it lends half; what is left to others are parts of the same 300
    equal("seats", {n: l for n, l in limits(a).items() if n in ("exempt", "workload-low", "narrow")},
          {"exempt": (4, 2, 24), "workload-low": (7, 1, 27), "narrow": (1, 1, 1)})
    put_exempt(a, nominalConcurrencyShares=0, lendablePercent=0)
    equal("seats as before", limits(a)["exempt"], (0, 0, 20))


class Watch(threading.Thread):
    """A watch that is read to its end."""

    def __init__(self, s, query="", client=None, path=CM):
        super().__init__(daemon=True)
        self.conn = (client or Client(s, token="alicetoken")).open()
        self.status, self.headers, self.events, self.query, self.path = None, None, [], query, path
        self.token = {} if client else {"Authorization": "Bearer alicetoken"}
        self.start()

    def run(self):
        try:
            self.conn.request("GET", "%s?watch=1&timeoutSeconds=60&%s" % (self.path, self.query), headers=self.token)
            self.r = self.conn.getresponse()
            self.headers, self.status = self.r.headers, self.r.status
            for line in self.r:
                self.events.append(json.loads(line))
        except (OSError, ValueError, AttributeError):
            pass

    def end(self):
        try:
            self.conn.sock.shutdown(socket.SHUT_RDWR)
        except (OSError, AttributeError):
            pass
        self.join(20)


def narrow(a):
    return [r for r in dump(a, "dump_requests?includeRequestDetails=1") if r["PriorityLevelName"] == "narrow"]


def sample(a, name):
    """A series of /metrics, summed up; 0: there is none."""
    return sum(float(l.rsplit(" ", 1)[1]) for l in a.raw("GET", "/metrics")[2].decode().splitlines() if l.startswith(name))


def test_watch(s, a, gate):
    """A watch takes a seat until it has begun."""
    put_level(a, {"type": "Reject"})
    w = Watch(s)
    until("a watch begins", lambda: w.status)
    until("its seat is free again", lambda: not narrow(a))
    gate.open.clear()
    first = Call(s, "alice", "w-")
    until("somebody takes it", lambda: gate.inside == 1)
    late = Watch(s)
    until("a watch that finds none is refused", lambda: late.status)
    equal("as everything is", (late.status, late.headers["Content-Type"]), (429, "text/plain; charset=utf-8"))
    put_level(a, {"type": "Queue", "queuing": {"queues": 4, "handSize": 2, "queueLengthLimit": 3}})
    late = Watch(s)
    until("or waits", lambda: [r for r in narrow(a) if r["Verb"] == "watch" and r["RequestIndexInQueue"] == "0"])
    equal("before it is answered", late.status, None)
    gate.open.set()
    first.join(20)
    until("until there is one", lambda: late.status == 200 and w.events)
    until("which it gives back", lambda: not narrow(a))
    check("counted as a watch", sample(a, 'apiserver_flowcontrol_request_execution_seconds_count{flow_schema="narrow",priority_level="narrow",type="watch"}') >= 2)
    for x in (w, late):
        x.end()


def test_slow_watch(s, a, gate):
    """One who does not read what there is holds his seat."""
    big = "x" * 900000
    for i in range(24):
        equal("a large object", a.post(CM, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "big-%d" % i}, "data": {"v": big}})[0], 201)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    sock.connect(("127.0.0.1", s.port))
    c = ssl.create_default_context(cafile=os.path.join(s.dir, "ca.crt")).wrap_socket(sock, server_hostname="127.0.0.1")
    c.sendall(b"GET %s?watch=1&timeoutSeconds=120 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer alicetoken\r\n\r\n" % CM.encode())
    until("it has its seat", lambda: [r for r in narrow(a) if r["Verb"] == "watch" and r["RequestIndexInQueue"] == "-1"])
    second = Watch(s, "resourceVersion=%s" % a.get(CM + "?limit=1")[1]["metadata"]["resourceVersion"])
    until("the next one waits", lambda: [r for r in narrow(a) if r["RequestIndexInQueue"] == "0"])
    n = 0
    while n < 24 * len(big):
        n += len(c.recv(1 << 20))
    until("until it has read", lambda: second.status == 200)
    until("nobody needs a seat to go on", lambda: not narrow(a))
    c.close()
    second.end()
    # a list of 21 MB: what is sent from the cache is never all at once there
    seats = 'apiserver_flowcontrol_work_estimated_seats_sum{flow_schema="exempt"'
    before = sample(a, seats)
    a.get(CM)
    equal("seats of a large list", sample(a, seats) - before, 10 + 1)
    for i in range(24):
        a.delete(CM + "/big-%d" % i)


def final(a, gate, s):
    """What a create of a ConfigMap holds when it has been answered: seats, and for how long."""
    gate.open.clear()
    call = Call(s, "alice", "f-")
    until("one is inside", lambda: gate.inside == 1)
    row = next(r for r in narrow(a) if r["Verb"] == "create")
    gate.open.set()
    call.join(20)
    equal("it goes through", call.status, 201)
    until("nothing is left of it", lambda: sample(a, 'apiserver_flowcontrol_current_executing_seats{flow_schema="narrow"') == 0)
    return row["InitialSeats"], row["FinalSeats"], row["AdditionalLatency"]


def test_watched(s, a, gate):
    """A write costs the more the more watches it concerns."""
    equal("of nobody's concern", final(a, gate, s), ("1", "0", "0s"))
    count = 'apiserver_flowcontrol_watch_count_samples_sum{flow_schema="narrow"'
    before = sample(a, count)
    all_, ns = "/api/v1/configmaps", CM
    watches = [Watch(s, "", a, p) for p in [all_] * 8 + [ns] * 13 + ["/api/v1/namespaces/kube-system/configmaps"] * 5]
    watches += [Watch(s, "fieldSelector=metadata.name%3Dx", a) for _ in range(3)]
    until("they begin", lambda: all(w.status for w in watches))
    # 21 of 29: a level of one seat works on three seats' work for three times as long
    equal("of many", final(a, gate, s), ("1", "1", "15ms"))
    equal("as many as concern it", sample(a, count) - before, 21)
    for w in watches:
        w.end()
    until("and of none, when they have gone", lambda: final(a, gate, s) == ("1", "0", "0s"))
    # pods of a node are its own watch's alone
    pods = 'apiserver_flowcontrol_watch_count_samples_sum{flow_schema="exempt"'
    watches = [Watch(s, q, a, "/api/v1/pods") for q in ("", "fieldSelector=spec.nodeName%3Da", "fieldSelector=spec.nodeName%3D")]
    until("they begin", lambda: all(w.status for w in watches))
    before = sample(a, pods)
    a.delete("/api/v1/namespaces/default/pods/none")
    equal("two of three", sample(a, pods) - before, 2)
    for w in watches:
        w.end()


def test_patience(s, a, gate):
    """A quarter of its time a request waits, and no more."""
    gate.open.clear()
    first = Call(s, "alice", "p-")
    until("somebody has the seat", lambda: gate.inside == 1)
    before = {r["PriorityLevelName"]: r for r in dump(a, "dump_priority_levels")}["narrow"]
    alice = Client(s, token="alicetoken")
    st, h, _ = alice.raw("POST", CM + "?timeout=2s", json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late"}}),
                         {"Content-Type": "application/json"})
    equal("in vain", st, 429)
    after = {r["PriorityLevelName"]: r for r in dump(a, "dump_priority_levels")}["narrow"]
    equal("counted", {k: int(after[k]) - int(before[k]) for k in ("RejectedRequests", "TimedoutRequests", "CancelledRequests", "DispatchedRequests")},
          {"RejectedRequests": 1, "TimedoutRequests": 0, "CancelledRequests": 1, "DispatchedRequests": 0})
    gate.open.set()
    first.join(20)
    gate.open.clear()


def test_aggregated(s, a, gate):
    """When a watch has begun is for the server to know that has it: here it goes on without a seat."""
    go, name, things = threading.Event(), "v1.agg.example.com", "/apis/agg.example.com/v1/things"

    def answer(rq):
        if rq.path.startswith(things):
            go.wait(60)
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "agg.example.com/v1", "resources": []}

    web = Web(answer, s, "agg", names="DNS:agg.default.svc")
    a.post("/api/v1/namespaces/default/services", {"metadata": {"name": "agg"}, "spec": {"type": "ExternalName", "externalName": "localhost"}})
    equal("APIService", a.post("/apis/apiregistration.k8s.io/v1/apiservices", {"metadata": {"name": name}, "spec": {
        "group": "agg.example.com", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 100, "caBundle": web.ca,
        "service": {"namespace": "default", "name": "agg", "port": web.port}}})[0], 201)
    until("available", lambda: [c for c in a.get("/apis/apiregistration.k8s.io/v1/apiservices/" + name)[1].get("status", {}).get("conditions", [])
                                if c["status"] == "True"])
    begun = 'apiserver_flowcontrol_request_execution_seconds_count{flow_schema="exempt",priority_level="exempt",type="watch"}'
    before = sample(a, begun)
    calls = [threading.Thread(target=Client(s, cert="admin").get, args=(things + q,), daemon=True) for q in ("?watch=1", "")]
    for c in calls:
        c.start()
    until("both are there", lambda: [r for r in dump(a, "dump_requests?includeRequestDetails=1") if r["APIPath"] == things and r["Verb"] == "list"] and
          sample(a, begun) == before + 1)
    equal("one has a seat", [r["Verb"] for r in dump(a, "dump_requests?includeRequestDetails=1") if r["APIPath"] == things], ["list"])
    check("while both last", all(c.is_alive() for c in calls))
    go.set()
    for c in calls:
        c.join(20)
    a.delete("/apis/apiregistration.k8s.io/v1/apiservices/" + name)
    web.close()


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


def test_quiescing(s, a, gate):
    """A level that is deleted keeps its seats until its last request has ended."""
    put_level(a, {"type": "Reject"})
    seats = limits(a)["narrow"]
    gate.open.clear()
    last = Call(s, "alice", "l-")
    until("one is inside", lambda: gate.inside == 1)
    a.delete(FLOW + "prioritylevelconfigurations/narrow")
    in_force(a)
    row = {r["PriorityLevelName"]: r for r in dump(a, "dump_priority_levels")}["narrow"]
    equal("it goes on", (row["IsQuiescing"], row["ExecutingRequests"], limits(a)["narrow"]), ("true", "1", seats))
    gate.open.set()
    last.join(20)
    equal("to its end", last.status, 201)
    until("then it is gone", lambda: "narrow" not in limits(a))
    check("altogether", "narrow" not in {r["PriorityLevelName"] for r in dump(a, "dump_priority_levels")})


def prepare(s):
    s.more = ["--max-requests-inflight", "10", "--max-mutating-requests-inflight", "10"]
    gate = Gate(s)
    s.start()
    a = Client(s, cert="admin")
    setup(s, a, gate)
    return {"a": a, "gate": gate}


if __name__ == "__main__":
    suite("flow", prepare, (test_reject, test_queue, test_limits, test_exempt, test_watch, test_slow_watch, test_watched, test_patience,
                             test_aggregated, test_fight, test_quiescing))
