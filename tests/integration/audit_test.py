#!/usr/bin/env python3
"""The audit log: what the policy chooses, at every level and stage, in the file and at the webhook.

Usage: audit_test.py PATH-OF-kube-apiserver. Prints one line a failed check and "N passed, N failed".
"""
import gzip, json, os, re, sys, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from access_test import refuses
from apiserver_test import Client, Server, check, equal, suite, until, write
from web import Web

NS = "/api/v1/namespaces/default"
POLICY = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  resources: [{group: "", resources: [endpoints]}]
- level: None
  users: [bob]
- level: Metadata
  resources: [{group: "", resources: [secrets]}]
- level: RequestResponse
  omitManagedFields: true
  resources: [{group: "", resources: [configmaps], resourceNames: [whole, second]}]
- level: Request
  verbs: [create, patch]
  resources: [{group: "", resources: [configmaps]}]
- level: RequestResponse
  verbs: [create]
  resources: [{group: "", resources: [configmaps, "serviceaccounts/token"]}]
- level: Metadata
  userGroups: [dev]
  nonResourceURLs: ["/version*"]
- level: Metadata
  verbs: [watch, delete]
  namespaces: [default]
- level: Request
  resources: [{group: "*", resources: [pods, "pods/log"]}]
- level: Metadata
  nonResourceURLs: ["/nothing"]
- level: None
"""


class Hook:
    """Takes batches of events."""

    def __init__(self):
        self.batches, self.fail = [], 0
        self.web = Web(self.take)

    def take(self, rq):
        if self.fail:
            self.fail -= 1
            return 500, None
        self.batches.append(json.loads(rq.body))

    def kubeconfig(self):
        return self.web.kubeconfig("/audit")

    def events(self):
        return [e for b in self.batches for e in b["items"]]


def lines(s, name="audit.log"):
    return [json.loads(x) for x in open(os.path.join(s.dir, name)).read().splitlines()]


def find(s, **want):
    """The events that have all of `want` ("a__b" is a.b)."""
    def value(e, path):
        for p in path.split("__"):
            e = e.get(p) if isinstance(e, dict) else None
        return e
    return [e for e in lines(s) if all(value(e, k) == v for k, v in want.items())]


def one(s, what, **want):
    until("event: " + what, lambda: find(s, **want))
    found = find(s, **want)
    equal("events: " + what, len(found), 1)
    return found[0] if found else {}


def cm(name, **data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def test_policies(s):
    """What is no policy stops the server, and says where."""
    for text, words in (("rules: []", "are not audit.k8s.io/v1"), ("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: []", "no rules"),
                        (POLICY.replace("level: Request\n", "level: All\n"), "rules[4]: level: \"All\""),
                        (POLICY.replace("omitStages: [RequestReceived]", "omitStages: [Begin]"), "omitStages[0]: \"Begin\""),
                        (POLICY.replace("  users: [bob]", "  user: [bob]"), "rules[1]: rule: unknown field \"user\""),
                        (POLICY.replace('"/version*"', '"/a*b"'), "rules[6]: nonResourceURLs[0]: \"/a*b\""),
                        (POLICY.replace("  namespaces: [default]", "  nonResourceURLs: [/x]\n  namespaces: [default]"), "rules[7]: ")):
        write(s, "policy.yaml", text)
        refuses(s, "policy: " + words, ["--audit-policy-file", "policy.yaml", "--audit-log-path", "audit.log"], words)
    write(s, "policy.yaml", POLICY)


def test_levels(s, a, alice, bob):
    a.post(NS + "/secrets", {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "hidden"}})
    e = one(s, "a secret", objectRef__resource="secrets")
    check("no bodies at Metadata", "requestObject" not in e and "responseObject" not in e and "hidden" not in json.dumps(e), e)
    equal("who", (e["user"]["username"], "system:masters" in e["user"]["groups"]), ("admin", True))
    equal("where from", e["sourceIPs"], ["127.0.0.1"])
    equal("what", (e["kind"], e["stage"], e["verb"], e["requestURI"], e["responseStatus"]["code"]),
          ("Event", "ResponseComplete", "create", NS + "/secrets", 201))
    equal("which", e["objectRef"]["name"], "s")
    equal("why", e["annotations"]["authorization.k8s.io/decision"], "allow")

    a.post(NS + "/configmaps", cm("mine", a="1"))
    e = one(s, "Request", level="Request", verb="create")
    equal("its body", (e["requestObject"]["data"], "responseObject" in e), ({"a": "1"}, False))
    a.call("PATCH", NS + "/configmaps/mine", "data:\n  b: '2'\n", ctype="application/apply-patch+yaml", headers={})
    a.call("PATCH", NS + "/configmaps/mine?fieldManager=m&force=true", "apiVersion: v1\nkind: ConfigMap\ndata:\n  b: '2'\n", ctype="application/apply-patch+yaml")
    e = one(s, "a patch in YAML", verb="patch", responseStatus__code=200)
    equal("its body as JSON", e["requestObject"]["data"], {"b": "2"})
    check("a patch that failed", find(s, verb="patch", responseStatus__status="Failure"), lines(s)[-3:])

    a.post(NS + "/configmaps", cm("whole", a="1"))
    a.get(NS + "/configmaps/whole")
    e = one(s, "RequestResponse", level="RequestResponse", verb="get", objectRef__name="whole")
    equal("the answer", (e["responseObject"]["data"], "managedFields" in e["responseObject"]["metadata"]), ({"a": "1"}, False))
    a.raw("GET", NS + "/configmaps/whole", headers={"Accept": "application/vnd.kubernetes.protobuf"})
    until("an answer in protobuf, as JSON", lambda: len(find(s, verb="get", objectRef__name="whole", responseObject__kind="ConfigMap")) == 2)
    a.get(NS + "/configmaps/second")
    e = one(s, "not found", objectRef__name="second")
    equal("its reason", (e["responseStatus"]["reason"], e["responseStatus"]["code"], e["responseObject"]["kind"]), ("NotFound", 404, "Status"))

    a.post(NS + "/serviceaccounts", {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "sa"}})
    a.post(NS + "/serviceaccounts/sa/token", {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}})
    e = one(s, "a subresource", objectRef__subresource="token")
    equal("its answer", e["responseObject"]["kind"], "TokenRequest")
    a.raw("POST", NS + "/serviceaccounts/sa/token?dryRun=All", json.dumps({"spec": {}}),
          {"Content-Type": "application/json", "Accept": "application/vnd.kubernetes.protobuf"})
    e = one(s, "of a protobuf answer", objectRef__subresource="token", requestURI=NS + "/serviceaccounts/sa/token?dryRun=All")
    equal("its kind", e["responseObject"]["kind"], "TokenRequest")

    alice.get("/version")
    a.get("/version")
    bob.post(NS + "/configmaps", cm("bobs"))
    a.get(NS + "/endpoints")
    a.get("/apis")
    e = one(s, "a path", requestURI="/version")
    equal("of the group only", e["user"]["username"], "alice")
    equal("a token that is none", Client(s, token="nobody").get("/version")[0], 401)
    check("None", not find(s, user__username="bob") and not find(s, objectRef__resource="endpoints") and not find(s, requestURI="/apis"), "")
    check("stages that are left out", not find(s, stage="RequestReceived"), "")


def test_stages(s, a):
    a.raw("GET", NS + "/pods?watch=1&timeoutSeconds=1", headers={"Impersonate-User": "watcher", "Impersonate-Group": "system:masters"})
    until("both stages of a watch", lambda: len(find(s, verb="watch", objectRef__resource="pods")) == 2)
    equal("in order", [e["stage"] for e in find(s, verb="watch", objectRef__resource="pods")], ["ResponseStarted", "ResponseComplete"])
    took = {k.partition("/")[2]: v for k, v in find(s, verb="watch", objectRef__resource="pods")[1]["annotations"].items() if "latency" in k}
    check("what took long says what it spent its time with", {"total", "authentication", "authorization", "impersonation"} <= set(took) and
          all(re.fullmatch(r"([0-9.]+(s|ms|µs|ns))+", v) for v in took.values()) and 1 <= float(took["total"].rstrip("s")) < 10, took)
    ids = {e["auditID"] for e in find(s, verb="watch", objectRef__resource="pods")}
    equal("of one request", len(ids), 1)
    headers = {"Impersonate-User": "carol", "Impersonate-Group": "g", "Audit-ID": "from-the-client", "X-Forwarded-For": "198.51.100.7, 198.51.100.8"}
    a.raw("DELETE", NS + "/configmaps/mine", headers=headers)
    e = one(s, "impersonated", verb="delete")
    equal("both users", (e["user"]["username"], e["impersonatedUser"]["username"]), ("admin", "carol"))
    equal("forbidden", (e["responseStatus"]["code"], e["annotations"]["authorization.k8s.io/decision"]), (403, "forbid"))
    equal("the client's id and addresses", (e["auditID"], e["sourceIPs"]), ("from-the-client", ["198.51.100.7", "198.51.100.8", "127.0.0.1"]))


def test_shapes(s, a):
    """What upstream's events say, and when."""
    a.post("/api/v1/namespaces/default/pods", {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "shaped"}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
    e = one(s, "a create", verb="create", objectRef__resource="pods", objectRef__name="shaped", stage="ResponseComplete")
    equal("the object as it was read", (e["requestObject"]["kind"], e["requestObject"]["spec"]["restartPolicy"], "uid" in e["objectRef"]), ("Pod", "Always", False))
    a.raw("POST", "/api/v1/namespaces/default/pods", "{", {"Content-Type": "application/json", "User-Agent": "broken"})
    check("no object that could not be read", "requestObject" not in one(s, "a broken body", userAgent="broken", stage="ResponseComplete"), "")
    a.raw("DELETE", "/api/v1/namespaces/default/pods/shaped?gracePeriodSeconds=0", None, {"User-Agent": "b" * 1030, "X-Forwarded-For": "junk, 198.51.100.9"})
    e = until("its end", lambda: find(s, verb="delete", objectRef__name="shaped", stage="ResponseComplete"))[0]
    equal("a long agent", (len(e["userAgent"]), e["userAgent"][-12:]), (1024 + 12, "...TRUNCATED"))
    equal("addresses only", e["sourceIPs"], ["198.51.100.9", "127.0.0.1"])
    Client(s, token="nobody").raw("GET", "/api/v1/namespaces/default/pods", None, {"User-Agent": "unknown"})
    e = one(s, "one who is not known", userAgent="unknown")
    equal("one event of him", (e["stage"], e["responseStatus"]["reason"]), ("ResponseStarted", "Unauthorized"))
    a.get("/api/v1/namespaces/default/pods/none/log")
    until("its last event", lambda: find(s, objectRef__name="none", objectRef__subresource="log", stage="ResponseComplete"))
    found = find(s, objectRef__name="none", objectRef__subresource="log")
    equal("a stream that fails", [(e["stage"], e["responseStatus"].get("details", {}).get("name")) for e in found if e["stage"] != "RequestReceived"],
          [("ResponseStarted", "none"), ("ResponseComplete", "none")])
    a.raw("GET", "/nothing", None, {"User-Agent": "lost"})
    equal("an answer that is no Status", one(s, "what is not there", userAgent="lost", stage="ResponseComplete")["responseStatus"], {"metadata": {}, "code": 404})


def test_webhook(s, a, hook):
    until("the webhook has what the file has", lambda: {e["auditID"] for e in hook.events()} == {e["auditID"] for e in lines(s)})
    equal("as lists", {(b["kind"], b["apiVersion"]) for b in hook.batches}, {("EventList", "audit.k8s.io/v1")})
    check("in batches", len(hook.batches) < len(hook.events()), [len(b["items"]) for b in hook.batches])
    hook.fail = 2
    a.post(NS + "/configmaps", cm("again"))
    until("tried again after errors", lambda: any(e.get("requestObject", {}).get("metadata", {}).get("name") == "again" for e in hook.events()))


def test_turning_over(s, a):
    for i in range(120):
        a.call("PUT", NS + "/configmaps/whole", cm("whole", a=str(i) + "x" * 9000))
    until("turned over", lambda: any(n.startswith("audit-") for n in os.listdir(s.dir)))
    for i in range(120):
        a.call("PUT", NS + "/configmaps/whole", cm("whole", a=str(i) + "x" * 9000))
    until("one old file is kept", lambda: len([n for n in os.listdir(s.dir) if n.startswith("audit-")]) == 1)
    old = [n for n in os.listdir(s.dir) if n.startswith("audit-")][0]
    check("whole lines, at most 1 MiB", len(lines(s, old)) > 10 and os.path.getsize(os.path.join(s.dir, old)) <= 1 << 20, os.path.getsize(os.path.join(s.dir, old)))


# ---- backends told otherwise ----

ALL = """
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- level: None
  users: ["system:apiserver"]
- level: RequestResponse
  verbs: [create, get, update]
- level: None
"""


class Told:
    """Another server of the directory, with backends told `more`; the log is empty."""

    def __init__(self, s, *more):
        self.s = Server(s.dir, "-told")
        self.s.store = ["--data-dir", "told"]
        self.s.more = ["--audit-policy-file", "all.yaml"] + list(more)

    def __enter__(self):
        self.s.sh("rm", "-rf", "told", "told.log")
        self.s.start()
        return self.s, Client(self.s, cert="admin")

    def __exit__(self, *error):
        if self.s.proc:
            self.s.stop()


LOG = ("--audit-log-path", "told.log")


def test_format(s):
    write(s, "all.yaml", ALL)
    with Told(s, *LOG, "--audit-log-format=legacy") as (t, a):
        a.raw("GET", NS + "/configmaps/none?x=1", headers={"Impersonate-User": "carol", "User-Agent": "ua"})
        t.stop()
        text = open(os.path.join(s.dir, "told.log")).read().splitlines()
        who = 'ip="127.0.0.1" method="get" user="admin" groups="\\"system:masters\\",\\"system:authenticated\\"" '
        what = ' user-agent="ua" namespace="default" uri="%s/configmaps/none?x=1" response=' % NS
        check("lines of text", len(text) == 2 and all(re.match(r'\d{4}-\d\d-\d\dT[\d:.]+Z AUDIT: id="[0-9a-f-]{36}" stage="', x) for x in text), text)
        equal("what they say", [x[x.index("stage="):] for x in text],
              ['stage="RequestReceived" ' + who + 'as="<self>" asgroups="<lookup>"' + what + '"<deferred>"',
               'stage="ResponseComplete" ' + who + 'as="carol" asgroups="\\"system:authenticated\\""' + what + '"403"'])


def test_modes(s, hook):
    with Told(s, *LOG) as (t, a):
        a.get(NS + "/configmaps/none")
        equal("written before it is answered", len([e for e in lines(s, "told.log") if e["stage"] == "RequestReceived"]), 1)
    with Told(s, *LOG, "--audit-log-mode=batch", "--audit-log-batch-max-size=1000", "--audit-log-batch-max-wait=1h") as (t, a):
        a.get(NS + "/configmaps/none")
        equal("a batch waits", lines(s, "told.log"), [])
        t.stop()
        equal("and is written at the end", len(lines(s, "told.log")), 2)
    strict = ("--audit-webhook-config-file=hook.kubeconfig", "--audit-webhook-mode=blocking-strict", "--audit-webhook-initial-backoff=1ms")
    hook.batches.clear()
    with Told(s, *strict) as (t, a):
        equal("made", a.post(NS + "/configmaps", cm("strict"))[0], 201)
        equal("the hook has seen it", {e["stage"] for e in hook.events() if e.get("verb") == "create"} >= {"RequestReceived"}, True)
        hook.fail = 10 ** 6
        st, o = a.post(NS + "/configmaps", cm("lost"))
        equal("nothing without its event", (st, o["reason"]), (500, "InternalError"))
        hook.fail = 0
        equal("it was not made", a.get(NS + "/configmaps/lost")[0], 404)
    hook.fail = 10 ** 6
    with Told(s, strict[0], "--audit-webhook-mode=blocking", strict[2]) as (t, a):
        equal("made all the same", a.post(NS + "/configmaps", cm("x"))[0], 201)
    hook.fail = 0


def test_batches(s, hook):
    hook.batches.clear()
    begun = time.monotonic()
    with Told(s, "--audit-webhook-config-file=hook.kubeconfig", "--audit-webhook-batch-max-size=2", "--audit-webhook-batch-max-wait=100ms",
              "--audit-webhook-batch-throttle-qps=2", "--audit-webhook-batch-throttle-burst=1") as (t, a):
        for i in range(4):
            a.get(NS + "/configmaps/none")
        until("all came", lambda: len(hook.events()) == 8)
        equal("in twos", {len(b["items"]) for b in hook.batches}, {2})
        check("two batches a second", time.monotonic() - begun > 1.4, time.monotonic() - begun)
    hook.batches.clear()
    with Told(s, "--audit-webhook-config-file=hook.kubeconfig", "--audit-webhook-batch-max-wait=1h", "--audit-webhook-batch-buffer-size=3") as (t, a):
        for i in range(4):
            a.get(NS + "/configmaps/none")
        said = a.raw("GET", "/metrics")[2].decode()
        lost = re.search(r'^apiserver_audit_error_total\{plugin="webhook"\} (\d+)', said, re.M)
        equal("lost ones are counted, that of this question, too", lost and int(lost[1]), 6)
        t.stop()


def test_sizes(s):
    with Told(s, *LOG, "--audit-log-truncate-enabled", "--audit-log-truncate-max-event-size=1500", "--audit-log-truncate-max-batch-size=1500") as (t, a):
        a.post(NS + "/configmaps", cm("long", a="x" * 3000))
        a.get(NS + "/configmaps/" + "n" * 3000)
        t.stop()
        made = [e for e in lines(s, "told.log") if e["verb"] == "create" and e["stage"] == "ResponseComplete"]
        equal("without its bodies", [("requestObject" in e, "responseObject" in e, e["annotations"].get("audit.k8s.io/truncated")) for e in made], [(False, False, "true")])
        equal("too long even so", [e for e in lines(s, "told.log") if e["verb"] == "get"], [])
    with Told(s, *LOG, "--audit-log-maxsize=1", "--audit-log-compress") as (t, a):
        a.post(NS + "/configmaps", cm("whole"))
        for i in range(60):
            a.call("PUT", NS + "/configmaps/whole", cm("whole", a=str(i) + "x" * 9000))

        def packed():
            return [n for n in os.listdir(s.dir) if n.startswith("told-") and n.endswith(".log.gz")]
        until("turned over and compressed", packed)
        with gzip.open(os.path.join(s.dir, packed()[0]), "rt") as f:
            check("whole lines", len([json.loads(x) for x in f]) > 10)
        until("only so", lambda: not [n for n in os.listdir(s.dir) if n.startswith("told-2") and n.endswith(".log")])


def test_refused(s):
    hook = ["--audit-webhook-config-file=hook.kubeconfig"]
    for flags, words in (([*LOG, "--audit-log-mode=odd"], "invalid audit log mode odd"), ([*LOG, "--audit-log-format=odd"], "invalid audit log format odd"),
                         ([*LOG, "--audit-log-version=audit.k8s.io/v1beta1"], "invalid group version"), ([*LOG, "--audit-log-maxage=-1"], "--audit-log-maxage"),
                         ([*LOG, "--audit-log-truncate-max-event-size=0"], "max event size 0"), ([*LOG, "--audit-log-truncate-max-batch-size=5"], "max batch size 5"),
                         (hook + ["--audit-webhook-mode=odd"], "invalid audit webhook mode odd"), (hook + ["--audit-webhook-batch-max-size=0"], "max batch size 0"),
                         (hook + ["--audit-webhook-batch-buffer-size=0"], "buffer size 0"), (hook + ["--audit-webhook-batch-throttle-qps=0"], "throttle QPS 0"),
                         (hook + ["--audit-webhook-batch-throttle-burst=0"], "throttle burst 0")):
        t = Server(s.dir, "-told")
        t.store, t.more = ["--data-dir", "told"], flags
        try:
            t.start()
            t.stop()
            check("refused: " + words, False, "it started")
        except SystemExit as e:
            check("refused: " + words, words in str(e) and t.refused == 1, e)


def prepare(s):
    test_policies(s)
    hook = Hook()
    write(s, "hook.kubeconfig", hook.kubeconfig())
    s.more = ["--audit-policy-file", "policy.yaml", "--audit-log-path", "audit.log", "--audit-log-maxsize", "1", "--audit-log-maxbackup", "1",
              "--audit-webhook-config-file", "hook.kubeconfig", "--audit-webhook-batch-max-wait", "200ms",
              "--audit-webhook-initial-backoff", "10ms"]
    s.start()
    return {"a": Client(s, cert="admin"), "alice": Client(s, token="alicetoken"), "bob": Client(s, token="bobtoken"), "hook": hook}


if __name__ == "__main__":
    suite("audit", prepare, (test_levels, test_stages, test_shapes, test_webhook, test_turning_over, test_format, test_modes, test_batches, test_sizes, test_refused))
