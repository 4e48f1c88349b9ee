#!/usr/bin/env python3
"""API priority and fairness: requests held up by a slow webhook fill the seats of their priority level.

Usage: flow_test.py PATH-OF-kube-apiserver. Prints one line a failed check and "N passed, N failed".
"""
import http.server, json, os, ssl, sys, threading, time, base64

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from access_test import until
from apiserver_test import Client, check, equal, suite

CM = "/api/v1/namespaces/default/configmaps"
FLOW = "/apis/flowcontrol.apiserver.k8s.io/v1/"


class Gate:
    """An admission webhook that lets requests through when told."""

    def __init__(self, s):
        s.cert("gate", "/CN=gate", "subjectAltName=IP:127.0.0.1")
        self.open, self.inside, lock = threading.Event(), 0, threading.Lock()
        this = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *a):
                pass

            def do_POST(self):
                review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    this.inside += 1
                this.open.wait(20)
                with lock:
                    this.inside -= 1
                data = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
                                   "response": {"uid": review["request"]["uid"], "allowed": True}}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ctx.load_cert_chain(os.path.join(s.dir, "gate.crt"), os.path.join(s.dir, "gate.key"))
        self.server.socket = ctx.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.ca = base64.b64encode(open(os.path.join(s.dir, "ca.crt"), "rb").read()).decode()

    def config(self):
        return {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": {"name": "gate"}, "webhooks": [{
            "name": "gate.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None", "timeoutSeconds": 30,
            "clientConfig": {"url": "https://127.0.0.1:%d/" % self.server.server_port, "caBundle": self.ca},
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


def put_level(a, response):
    st, o = a.get(FLOW + "prioritylevelconfigurations/narrow")
    new = level(response)
    if st == 200:
        new["metadata"]["resourceVersion"] = o["metadata"]["resourceVersion"]
        equal("update of the level", a.call("PUT", FLOW + "prioritylevelconfigurations/narrow", new)[0], 200)
    else:
        equal("the level", a.post(FLOW + "prioritylevelconfigurations", new)[0], 201)
    time.sleep(0.25)  # levels are looked at ten times a second


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
    time.sleep(0.25)
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
    equal("others are not held up", a.get("/api/v1/namespaces/default")[0], 200)
    gate.open.set()
    first.join(20)
    equal("the first goes through", first.status, 201)
    gate.open.clear()


def test_queue(s, a, gate):
    put_level(a, {"type": "Queue", "queuing": {"queues": 4, "handSize": 2, "queueLengthLimit": 3}})
    calls = [Call(s, "alice", "q-")]
    until("one is inside", lambda: gate.inside == 1)
    calls += [Call(s, "alice", "q-") for _ in range(8)]  # two queues of three
    until("two are too many", lambda: sum(c.status == 429 for c in calls) == 2)
    time.sleep(0.2)
    equal("the rest wait outside", (gate.inside, sum(c.status is None for c in calls)), (1, 7))
    gate.open.set()
    for c in calls:
        c.join(20)
    equal("and go through", sorted(c.status for c in calls), [201] * 7 + [429] * 2)
    st, _, text = a.raw("GET", "/metrics")
    check("counted", b'apiserver_flowcontrol_rejected_requests_total{flow_schema="narrow",priority_level="narrow",reason="queue-full"} 2' in text and
          b'reason="concurrency-limit"} 1' in text, [l for l in text.splitlines() if b"flowcontrol" in l])


def prepare(s):
    s.more = ["--max-requests-inflight", "10", "--max-mutating-requests-inflight", "10"]
    gate = Gate(s)
    s.start()
    a = Client(s, cert="admin")
    setup(s, a, gate)
    return {"a": a, "gate": gate}


if __name__ == "__main__":
    suite("flow", prepare, (test_reject, test_queue))
