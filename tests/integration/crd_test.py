#!/usr/bin/env python3
"""CustomResourceDefinitions that come, change and go under requests and watches, and conversion webhooks.

Usage: crd_test.py PATH-OF-kube-apiserver [TEST...]. Prints one line a failed check and "N passed, N failed".
CRD_ROUNDS in the environment: how often test_lifetimes makes and removes a definition (40; each has three states).
"""
import json, os, re, socket, sys, threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from apiserver_test import CM, Client, check, cm, equal, series, suite, until
from web import Web

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
ROUNDS = int(os.environ.get("CRD_ROUNDS", "40"))
LEAK_MAX = 3000  # bytes a state of a definition may leave behind: noise of the allocator; what was kept once was 16 KB


class Watch(threading.Thread):
    """Reads a watch until the server ends it."""

    def __init__(self, a, path):
        super().__init__(daemon=True)
        self.events, self.ended = [], False
        self.c = a.open(timeout=3600)
        self.c.request("GET", path + ("&" if "?" in path else "?") + "watch=true")
        self.sock = self.c.sock
        self.r = self.c.getresponse()
        self.start()

    def close(self):
        self.sock.shutdown(socket.SHUT_RDWR)

    def run(self):
        try:
            for line in self.r:
                self.events.append(json.loads(line))
        except (OSError, AttributeError, ValueError):
            return  # closed by the test
        self.ended = True

    def types(self):
        return [e["type"] for e in self.events]


def definition(plural, n, group="lives.example.com"):
    kind = plural.capitalize()
    props = {"n": {"type": "integer", "minimum": 0, "default": n, "x-kubernetes-validations": [{"rule": "self >= 0 && self < %d" % (1000 + n)}]},
             "s": {"type": "string", "pattern": "^[a-z]{1,%d}$" % (1 + n % 100)},
             "list": {"type": "array", "maxItems": 20, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {
                 "type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "v%d" % n: {"type": "string"}}}}}
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": props}, "status": {"type": "object"}}}
    return {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": plural + "." + group},
            "spec": {"group": group, "scope": "Namespaced", "names": {"plural": plural, "kind": kind, "shortNames": [plural[:2]]},
                     "versions": [{"name": "v1", "served": True, "storage": True, "subresources": {"status": {}}, "schema": {"openAPIV3Schema": schema},
                                   "selectableFields": [{"jsonPath": ".spec.s"}],
                                   "additionalPrinterColumns": [{"name": "N", "type": "integer", "jsonPath": ".spec.n"}]}]}}


def states(a):
    m = re.search(r"CustomResourceDefinitions: (\d+) replaced, (\d+) freed", a.raw("GET", "/debug/memory")[2].decode())
    return int(m.group(1)), int(m.group(2))


def held(s, a):
    """Bytes of the server's own memory, without the events that its caches keep for a while (and the store's pages)."""
    with open("/proc/%d/status" % s.proc.pid) as f:
        anon = int(re.search(r"RssAnon:\s+(\d+)", f.read()).group(1)) * 1024
    rows = [l.split() for l in a.raw("GET", "/debug/memory")[2].decode().splitlines()[1:]]
    return anon - sum(int(r[5]) for r in rows if len(r) == 6 and r[5].isdigit())


def life(a, plural, i):
    """One definition: made, used, changed twice under a watch, removed with its objects."""
    group = "lives.example.com"
    base = "/apis/%s/v1/namespaces/default/%s" % (group, plural)
    crd = definition(plural, i)
    at = CRDS + "/" + crd["metadata"]["name"]
    st, o = a.define(crd)
    if st != 201:
        return check("made", False, (st, o))
    thing = lambda name: {"apiVersion": group + "/v1", "kind": plural.capitalize(), "metadata": {"name": name}, "spec": {"s": "a", "list": [{"k": "x"}]}}
    made = [a.post(base, thing(n))[0] for n in ("a", "b")]
    refused = a.post(base, dict(thing("c"), spec={"n": 5000 + i}))[0]
    w = Watch(a, base)
    ok = until("the watch begins", lambda: w.types() == ["ADDED", "ADDED"])
    new = dict(definition(plural, i + 1), metadata=o["metadata"])
    new["metadata"].pop("resourceVersion", None)
    new["metadata"]["resourceVersion"] = a.get(at)[1]["metadata"]["resourceVersion"]
    put = a.put(at, new)[0]
    ok &= until("a change ends it", lambda: w.ended)
    w2 = Watch(a, base + "?fieldSelector=spec.s%3Da")
    patched = a.patch(base + "/a", {"spec": {"n": 7}})[0]
    rows = a.get(base, headers={"Accept": "application/json;as=Table;g=meta.k8s.io;v=v1"})[1].get("rows", [])
    a.get("/openapi/v3/apis/%s/v1" % group)
    patched2 = a.patch(at, {"spec": {"names": {"categories": ["all"]}}})[0]
    got = (made, refused, put, patched, len(rows), patched2, a.delete(at)[0])
    want = ([201, 201], 422, 200, 200, 2, 200, 200)
    if got != want:
        check("round %d" % i, False, (got, want))
        ok = False
    ok &= until("gone", lambda: a.get(at)[0] == 404)
    ok &= until("its last watch ends", lambda: w2.ended)
    return ok


def test_lifetimes(s, a):
    """What is made of a definition is freed, whoever watches what else meanwhile."""
    stays = definition("stays", 1, "stays.example.com")
    equal("one that stays", a.define(stays)[0], 201)
    home = "/apis/stays.example.com/v1/namespaces/default/stays"
    mine = {"apiVersion": "stays.example.com/v1", "kind": "Stays", "metadata": {"name": "one"}, "spec": {"s": "a"}}
    equal("its object", a.post(home, mine)[0], 201)
    others = [Watch(a, home), Watch(a, CM), Watch(a, CRDS)]
    half, ok = None, True
    for i in range(ROUNDS):
        if i == ROUNDS // 2:
            half = (held(s, a), states(a)[0])
        ok = life(a, ("ants", "bees", "cats")[i % 3], i)
        if not ok:
            break
    check("%d definitions lived" % ROUNDS, ok)
    until("every state is freed", lambda: len(set(states(a))) == 1)
    replaced, freed = states(a)
    check("states", replaced >= 3 * ROUNDS, replaced)
    grown = held(s, a) - half[0]
    print("crd: %d states; %d bytes more in the last %d of them" % (replaced, grown, replaced - half[1]))
    if ROUNDS >= 500 and not os.environ.get("ASAN_OPTIONS"):
        check("memory is flat", grown / (replaced - half[1]) < LEAK_MAX, grown)
    a.patch(home + "/one", {"spec": {"n": 3}})
    until("the watch of the other one goes on", lambda: others[0].types() == ["ADDED", "MODIFIED"])
    a.post(CM, cm("seen-by-watch"))
    until("and that of configmaps", lambda: any(e["object"]["metadata"]["name"] == "seen-by-watch" for e in others[1].events))
    check("no other watch ended", not any(w.ended for w in others))
    a.delete(CM + "/seen-by-watch")
    a.delete(CRDS + "/stays.stays.example.com")
    until("all ended", lambda: others[0].ended and others[0].types()[-1] == "DELETED")
    for w in others:
        w.close()


# ---- conversion ----

class Converter:
    """v1 has spec.n, v2 has spec.num."""
    reviews = []
    spoil = None  # changes the response


def convert(rq):
    review = json.loads(rq.body)
    rq = review["request"]
    Converter.reviews.append(review)
    out = []
    for o in rq["objects"]:
        n = o["spec"].get("n", o["spec"].get("num"))
        out.append(dict(o, apiVersion=rq["desiredAPIVersion"], spec={"num" if rq["desiredAPIVersion"].endswith("v2") else "n": n}))
        out[-1]["metadata"] = dict(o["metadata"], labels={"converted": "yes"})
    a = {"uid": rq["uid"], "result": {"status": "Success"}, "convertedObjects": out}
    if Converter.spoil:
        a = Converter.spoil(a)
    return {"kind": "ConversionReview", "apiVersion": review["apiVersion"], "response": a}


def reviews():
    r, Converter.reviews = Converter.reviews, []
    return [len(x["request"]["objects"]) for x in r]


def test_conversion(s, a):
    """One review for all objects of a list, of a watch's beginning, of a selection."""
    web = Web(convert, s, "converter")
    client = {"url": web.url + "/convert", "caBundle": web.ca}
    version = lambda name, field: {"name": name, "served": True, "storage": name == "v1", "selectableFields": [{"jsonPath": ".spec." + field}],
                                   "additionalPrinterColumns": [{"name": "N", "type": "integer", "jsonPath": ".spec." + field}],
                                   "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                                       "spec": {"type": "object", "properties": {field: {"type": "integer"}}}}}}}
    crd = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "cvs.c.example.com"},
           "spec": {"group": "c.example.com", "scope": "Namespaced", "names": {"plural": "cvs", "kind": "Cv"},
                    "versions": [version("v1", "n"), version("v2", "num")],
                    "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": client}}}}
    equal("definition", a.define(crd)[0], 201)
    v1, v2 = ("/apis/c.example.com/%s/namespaces/default/cvs" % v for v in ("v1", "v2"))
    for i in range(10):
        a.post(v1, {"apiVersion": "c.example.com/v1", "kind": "Cv", "metadata": {"name": "o%d" % i}, "spec": {"n": i}})
    reviews()
    st, l = a.get(v2)
    equal("list", (st, [o["spec"] for o in l["items"]], reviews()), (200, [{"num": i} for i in range(10)], [10]))
    equal("of metadata, labels", (l["items"][0]["metadata"].get("labels"), l["items"][0]["apiVersion"]), ({"converted": "yes"}, "c.example.com/v2"))
    a.get(v1)
    equal("as stored: not asked", reviews(), [])
    st, t = a.get(v2, headers={"Accept": "application/json;as=Table;g=meta.k8s.io;v=v1"})
    equal("table", ([r["cells"] for r in t["rows"]][:2], reviews()), ([["o0", 0], ["o1", 1]], [10]))
    st, t = a.get(v2, headers={"Accept": "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"})
    equal("metadata", (t["items"][3]["metadata"]["labels"], reviews()), ({"converted": "yes"}, [10]))
    st, l = a.get(v2 + "?limit=4")
    equal("a page", (len(l["items"]), reviews()), (4, [4]))
    st, l = a.get(v2 + "?fieldSelector=spec.num%3D3")
    equal("a selection", ([o["metadata"]["name"] for o in l["items"]], reviews()), (["o3"], [10, 1]))
    w = Watch(a, v2 + "?timeoutSeconds=60")
    until("the watch begins", lambda: len(w.events) == 10)
    equal("a watch's beginning", ([e["object"]["spec"] for e in w.events], reviews()), ([{"num": i} for i in range(10)], [10]))
    a.patch(v1 + "/o1", {"spec": {"n": 11}})
    until("and goes on", lambda: len(w.events) == 11 and w.events[10]["object"]["spec"] == {"num": 11})
    w.close()
    reviews()

    def spoilt(what, change, words):
        Converter.spoil = change
        st, e = a.get(v2)
        check(what, (st, e.get("reason")) == (500, None) and words in e["message"], (st, e.get("message")))
        Converter.spoil = None
    spoilt("refused", lambda r: dict(r, result={"status": "Failure", "message": "no way"}), "no way")
    spoilt("too few", lambda r: dict(r, convertedObjects=r["convertedObjects"][:3]), "expected 10")
    spoilt("another's answer", lambda r: dict(r, uid="x"), "response.uid")
    spoilt("another version", lambda r: dict(r, convertedObjects=[dict(o, apiVersion="c.example.com/v1") for o in r["convertedObjects"]]), "groupVersion")
    spoilt("another name", lambda r: dict(r, convertedObjects=[dict(o, metadata=dict(o["metadata"], name="z")) for o in r["convertedObjects"]]), "same name")
    spoilt("a label that is none", lambda r: dict(r, convertedObjects=[dict(o, metadata=dict(o["metadata"], labels={"a": 1})) for o in r["convertedObjects"]]),
           "must be a string")
    reviews()
    what = "conversion_webhook_%s_failure"
    failures = {l["failure_type"]: v for l, v in series(a, "apiserver_conversion_webhook_request_total")}
    equal("counted", ({k: v for k, v in failures.items() if k}, failures[""] > 5),
          ({what % "malformed_response": 2, what % "partial_response": 1, what % "invalid_converted_object": 3}, True))
    equal("and timed", {(l["from_version"], l["to_version"], l["succeeded"]): v for l, v in series(a, "apiserver_crd_conversion_webhook_duration_seconds_count")
                        if l["crd_name"] == "cvs.c.example.com" and l["succeeded"] == "false"}, {("v1", "v2", "false"): 6})
    a.delete(CRDS + "/cvs.c.example.com")
    until("gone", lambda: a.get(CRDS + "/cvs.c.example.com")[0] == 404)
    equal("removed as stored: not asked", reviews(), [])
    web.close()


# ---- names ----

def test_names(a):
    """Names of a group are given once; who waits gets them when they are free."""
    d = lambda plural, kind, **names: {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": plural + ".n.example.com"},
                                       "spec": {"group": "n.example.com", "scope": "Cluster", "names": dict({"plural": plural, "kind": kind}, **names),
                                                "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}]}}
    conditions = lambda plural: {c["type"]: (c["status"], c["reason"]) for c in a.get(CRDS + "/%s.n.example.com" % plural)[1]["status"]["conditions"] or []}
    equal("the first", a.define(d("firsts", "First", shortNames=["f"]))[0], 201)
    equal("the second", a.post(CRDS, d("seconds", "First", shortNames=["f"]))[0], 201)
    until("is refused its kind", lambda: conditions("seconds").get("NamesAccepted") == ("False", "ListKindConflict"))
    equal("and not established", conditions("seconds").get("Established"), ("False", "NotAccepted"))
    equal("nor served", a.get("/apis/n.example.com/v1/seconds")[0], 404)
    a.delete(CRDS + "/firsts.n.example.com")
    until("has it when the first goes", lambda: conditions("seconds").get("Established") == ("True", "InitialNamesAccepted"))
    equal("and is served", a.get("/apis/n.example.com/v1/seconds")[0], 200)
    a.delete(CRDS + "/seconds.n.example.com")
    until("gone", lambda: a.get(CRDS + "/seconds.n.example.com")[0] == 404)


def test_own_versions(a):
    """Group-versions of the server's own stay what they are, whatever definitions say; other versions of such groups are shown, not served."""
    d = definition("bars", 1, "apiextensions.k8s.io")
    d["metadata"]["annotations"] = {"api-approved.kubernetes.io": "unapproved, testing only"}
    d["spec"]["versions"].append(dict(d["spec"]["versions"][0], name="vfake", storage=False))
    equal("made", a.define(d)[0], 201)
    versions = lambda: [v["version"] for v in a.get("/apis/apiextensions.k8s.io")[1]["versions"]]
    until("shown in its own version", lambda: versions() == ["vfake", "v1"])
    equal("served nowhere", [a.raw("GET", "/apis/apiextensions.k8s.io/" + p)[0] for p in ("v1/bars", "vfake/bars", "vfake")], [404] * 3)
    equal("nor told in the server's", {r["name"] for r in a.get("/apis/apiextensions.k8s.io/v1")[1]["resources"]},
          {"customresourcedefinitions", "customresourcedefinitions/status"})
    own = definition("networkpolicies", 1, "networking.k8s.io")
    own["metadata"]["annotations"] = d["metadata"]["annotations"]
    equal("of a resource of the server's", a.post(CRDS, own)[0], 201)
    policies = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"
    until("established", lambda: any(c["type"] == "Established" and c["status"] == "True" for c in
                                     a.get(CRDS + "/networkpolicies.networking.k8s.io")[1]["status"]["conditions"] or []))
    equal("which stays", a.post(policies, {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p"}, "spec": {"podSelector": {}}})[0], 201)
    equal("and is written", a.delete(policies + "/p")[0], 200)
    for name in ("bars.apiextensions.k8s.io", "networkpolicies.networking.k8s.io"):
        a.delete(CRDS + "/" + name)
        until("gone", lambda: a.get(CRDS + "/" + name)[0] == 404)


def prepare(s):
    s.start()
    return {"a": Client(s, cert="admin")}


if __name__ == "__main__":
    suite("crd", prepare, (test_names, test_own_versions, test_conversion, test_lifetimes))
