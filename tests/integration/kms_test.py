#!/usr/bin/env python3
"""Encryption at rest with keys of a KMS v2 plugin (tests/integration/kms_main.c), which comes, goes, rotates and lies.

Usage: kms_test.py PATH-OF-kube-apiserver PATH-OF-kms_main [TEST...]. Prints one line a failed check and "N passed, N failed".
"""
import atexit, base64, os, re, subprocess, sys, threading, time

PLUGIN = os.path.abspath(sys.argv.pop(2))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from apiserver_test import Client, check, equal, suite, write
from access_test import refuses, until

SECRETS = "/api/v1/namespaces/default/secrets"
KEY = base64.b64encode(b"0123456789abcdef" * 2).decode()


class Plugin:
    def __init__(self, s, name):
        self.s, self.name, self.proc = s, name, None
        self.control = os.path.join(s.dir, name + ".control")
        self.socket = os.path.join(s.dir, name + ".sock")
        self.set(key="k1")
        atexit.register(self.stop)

    def set(self, **k):
        write(self.s, self.name + ".control", "".join("%s=%s\n" % (n, v) for n, v in k.items()))

    def start(self):
        log = open(os.path.join(self.s.dir, self.name + ".log"), "a")
        self.proc = subprocess.Popen([PLUGIN, "unix:" + self.socket, self.control], stdout=log, stderr=log)
        log.close()
        until("the plugin listens", lambda: os.path.exists(self.socket))

    def stop(self):
        if self.proc:
            self.proc.kill()
            self.proc.wait()
            if os.path.exists(self.socket):
                os.unlink(self.socket)
        self.proc = None


def config(s, *providers, resources=("secrets",)):
    return write(s, "enc.yaml", {"kind": "EncryptionConfiguration", "apiVersion": "apiserver.config.k8s.io/v1",
                                 "resources": [{"resources": list(resources), "providers": list(providers)}]})


def kms(p, **k):
    return {"kms": dict({"apiVersion": "v2", "name": p.name, "endpoint": "unix://" + p.socket}, **k)}


def start(s, *providers, more=(), **k):
    s.more = ["--encryption-provider-config", config(s, *providers, **k)] + list(more)
    s.start()


def secret(name, word="hidden-word"):
    return {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": name}, "stringData": {"a": word}}


def word(a, name):
    st, o = a.get(SECRETS + "/" + name)
    return base64.b64decode(o["data"]["a"]).decode() if st == 200 else st


def well(a, where="/readyz"):
    return a.raw("GET", where + "/kms-providers")[0] == 200


def metric(a, pattern):
    """The sum of the series whose line begins so."""
    text = a.raw("GET", "/metrics")[2].decode()
    return sum(float(x.rsplit(" ", 1)[1]) for x in text.splitlines() if re.match(pattern, x))


def disk(s):
    return b"".join(open(os.path.join(d, f), "rb").read() for d, _, fs in os.walk(os.path.join(s.dir, "data")) for f in fs)


def test_comes_late(s, a, p):
    start(s, kms(p), {"identity": {}})
    equal("not well", (well(a), well(a, "/healthz"), a.raw("GET", "/readyz")[0]), (False, False, 500))
    equal("but alive", (a.raw("GET", "/livez")[0], a.raw("GET", "/livez/kms-providers")[0]), (200, 404))
    check("named", b"[-]kms-providers failed" in a.raw("GET", "/readyz?verbose")[2])
    equal("nothing is written in the clear", a.post(SECRETS, secret("no"))[0], 500)
    equal("other kinds are", a.post("/api/v1/namespaces/default/configmaps", {"metadata": {"name": "c"}})[0], 201)
    p.start()
    until("well when the plugin has come", lambda: well(a))
    equal("written", a.post(SECRETS, secret("s1"))[0], 201)
    s.stop()
    raw = disk(s)
    check("with upstream's prefix, not in the clear", b"k8s:enc:kms:v2:plug:" in raw and b"hidden-word" not in raw)
    s.start()
    equal("read again", word(a, "s1"), "hidden-word")
    calls = r'apiserver_envelope_encryption_kms_operations_latency_seconds_count\{grpc_status_code="OK",method_name="/v2.KeyManagementService/%s"'
    equal("one key, one call", metric(a, calls % "Decrypt"), 1)
    equal("a seed a start", metric(a, calls % "Encrypt"), 1)
    check("names of keys", metric(a, r'apiserver_envelope_encryption_key_id_hash_total\{.*transformation_type="from_storage"') >= 1)
    equal("keys held", metric(a, "apiserver_envelope_encryption_dek_source_cache_size"), 2)
    equal("transformations", metric(a, r'apiserver_storage_transformation_operations_total\{resource="secrets",status="OK",'
                                       r'transformation_type="from_storage",transformer_prefix="k8s:enc:kms:v2:plug:"'), 1)
    s.stop()


def test_away_at_start(s, a, p):
    p.stop()
    start(s, kms(p), {"identity": {}})
    equal("what cannot be read is not missing", (a.get(SECRETS + "/s1")[0], a.get(SECRETS)[0], a.get(SECRETS + "?watch=1")[0],
                                                 a.get(SECRETS + "?resourceVersion=0")[0]), (500, 429, 429, 429))
    equal("nor can it be changed", a.put(SECRETS + "/s1", secret("s1"))[0], 500)
    equal("the rest works", (a.get("/api/v1/namespaces/default/configmaps/c")[0], a.get("/api/v1/nodes")[0]), (200, 200))
    p.set(key="k1", fail="Decrypt")
    p.start()
    until("Status is well", lambda: well(a))
    equal("but nothing can be read", a.get(SECRETS + "/s1")[0], 500)
    p.set(key="k1")
    until("read when the key is there", lambda: word(a, "s1") == "hidden-word")
    until("and listed", lambda: len(a.get(SECRETS)[1].get("items", [])) == 1, 20)
    p.set(key="k1", fail="Status")
    ails = lambda: a.raw("GET", "/healthz/kms-providers")
    begin = b"internal server error: kms-provider-0: "
    until("what ails it is told", lambda: re.match(begin + b"rpc error: code = [A-Z][A-Za-z]+ desc = .*\n$", ails()[2]) and ails()[0] == 500)
    until("in more words to who has it asked", lambda: ails()[2].startswith(begin + b"failed to perform status section of the healthz check for KMS Provider "
                                                                    b"plug, error: rpc error: code = "), 30)
    p.set(key="k1")
    s.stop()


def test_rotates(s, a, p):
    start(s, kms(p), {"identity": {}})
    p.stop()
    equal("the seed outlives the plugin", a.post(SECRETS, secret("s2"))[0], 201)
    until("noticed", lambda: not well(a), 40)
    equal("and still seals", a.post(SECRETS, secret("s3"))[0], 201)
    equal("and opens", word(a, "s1"), "hidden-word")
    p.set(key="k2", annotation="version.kms.example.com")
    p.start()
    until("well again", lambda: well(a))
    o = a.get(SECRETS + "/s1")[1]
    o2 = a.put(SECRETS + "/s1", o)[1]
    check("another key: rewritten though nothing changed", o2["metadata"]["resourceVersion"] != o["metadata"]["resourceVersion"])
    equal("once", a.put(SECRETS + "/s1", o2)[1]["metadata"]["resourceVersion"], o2["metadata"]["resourceVersion"])
    o = a.get(SECRETS + "/s2")[1]
    o2 = a.patch(SECRETS + "/s2", {})[1]
    check("by an empty patch as well", o2["metadata"]["resourceVersion"] != o["metadata"]["resourceVersion"])
    s.stop()
    s.start()
    equal("all read, of two keys", [word(a, x) for x in ("s1", "s2", "s3")], ["hidden-word"] * 3)
    o = a.get(SECRETS + "/s1")[1]
    equal("fresh after a start: the key ID is the same", a.put(SECRETS + "/s1", o)[1]["metadata"]["resourceVersion"],
          o["metadata"]["resourceVersion"])
    o = a.get(SECRETS + "/s3")[1]
    check("stale after a start", a.put(SECRETS + "/s3", o)[1]["metadata"]["resourceVersion"] != o["metadata"]["resourceVersion"])
    s.stop()


def test_lies(s, a, p):
    for what, k in (("another key than Status says", {"key": "k2", "encrypt_key": "k9"}), ("not ok", {"key": "k2", "healthz": "bad"}),
                    ("version", {"key": "k2", "version": "v3"}), ("no key", {"key": ""}), ("a long key", {"key": "k" * 1025}),
                    ("annotation", {"key": "k2", "annotation": "nodomain"}), ("Encrypt fails", {"key": "k2", "fail": "Encrypt"}),
                    ("Status fails", {"key": "k2", "fail": "Status"}), ("slow", {"key": "k2", "delay_ms": "600"})):
        p.set(**k)
        start(s, kms(p, timeout="500ms"), {"identity": {}})
        check("not well: " + what, not well(a))
        # a plugin that says it is ill may still give keys
        equal("sealing: " + what, a.post(SECRETS, secret("s-" + what.replace(" ", "").lower()))[0], 201 if what in ("not ok", "version") else 500)
        s.stop()
    p.set(key="k2", wrong="1")
    start(s, kms(p), {"identity": {}})
    equal("values that another key sealed cannot be read", word(a, "s1"), 500)
    check("the log says so", "s1: it cannot be decrypted" in open(os.path.join(s.dir, "log")).read())
    s.stop()
    p.set(key="k2")
    start(s, kms(p), {"identity": {}})
    equal("all there", word(a, "s1"), "hidden-word")
    s.stop()


def test_everything(s, a, p):
    start(s, kms(p), {"identity": {}}, resources=["*.*"])
    ns = {"metadata": {"name": "sealed"}}
    equal("a namespace", a.post("/api/v1/namespaces", ns)[0], 201)
    s.stop()
    p.stop()
    seen = os.path.getsize(s.log_path())
    starting = threading.Thread(target=s.start)
    starting.start()
    until("it waits for what it needs itself", lambda: "ERROR kube-apiserver: waiting: " in open(s.log_path()).read()[seen:])
    check("and does not say that it serves", not os.path.exists(os.path.join(s.dir, "port")))
    p.start()
    starting.join()
    equal("read", a.get("/api/v1/namespaces/sealed")[0], 200)
    s.stop()


def test_reload(s, a, p):
    reload = ["--encryption-provider-config-automatic-reload"]
    start(s, kms(p), {"identity": {}}, resources=["*.*"], more=reload)
    total = r'apiserver_encryption_config_controller_automatic_reloads_total\{.*status="%s"'
    cbc = {"aescbc": {"keys": [{"name": "local", "secret": KEY}]}}
    config(s, cbc, kms(p), {"identity": {}}, resources=["*.*"])
    until("taken up", lambda: metric(a, total % "success") == 1)
    o = a.get(SECRETS + "/s1")[1]
    check("what sealed it before is stale", a.put(SECRETS + "/s1", o)[1]["metadata"]["resourceVersion"] != o["metadata"]["resourceVersion"])
    s.stop()
    check("with the local key", b"k8s:enc:aescbc:v1:local:" in disk(s))
    s.start()
    equal("read", (word(a, "s1"), word(a, "s2")), ("hidden-word", "hidden-word"))
    other = Plugin(s, "other")
    config(s, kms(other), cbc, kms(p), {"identity": {}}, resources=["*.*"])
    until("a plugin that is not there", lambda: metric(a, total % "failure") == 1, 30)
    equal("the one before stays", (well(a), a.post(SECRETS, secret("s4"))[0]), (True, 201))
    write(s, "enc.yaml", "kind: EncryptionConfiguration\napiVersion: apiserver.config.k8s.io/v1\nresources: []\n")
    until("a file that is wrong", lambda: metric(a, total % "failure") >= 2)
    equal("is not taken", word(a, "s4"), "hidden-word")
    other.start()
    config(s, kms(other), cbc, kms(p), {"identity": {}}, resources=["*.*"])
    until("another plugin", lambda: metric(a, total % "success") == 1)
    equal("seals", a.post(SECRETS, secret("s5"))[0], 201)
    info = re.findall(r'automatic_reload.*|.*last_config_info\{.*', a.raw("GET", "/metrics")[2].decode())
    equal("one configuration is in use", sum("last_config_info" in x for x in info), 1)
    s.stop()
    check("with its key", b"k8s:enc:kms:v2:other:" in disk(s))
    s.start()
    equal("read", [word(a, x) for x in ("s1", "s2", "s4", "s5")], ["hidden-word"] * 4)
    s.stop()
    other.stop()


def test_local_reload(s, a):
    """With keys of its own and reload, a plugin may come at any time: the check is there, and well."""
    start(s, {"aescbc": {"keys": [{"name": "local", "secret": KEY}]}}, {"identity": {}}, more=["--encryption-provider-config-automatic-reload"])
    equal("well", (well(a), well(a, "/healthz"), a.raw("GET", "/livez/kms-providers")[0]), (True, True, 404))
    equal("written", (a.post(SECRETS, secret("of-local"))[0], a.post(SECRETS, secret("of-local-too"))[0]), (201, 201))
    s.stop()
    start(s, {"identity": {}})
    st, e = a.get(SECRETS + "/of-local")
    check("what nobody can read is no absent object", st == 500 and e["reason"] == "InternalError", (st, e))
    equal("nor may it be written or taken away", (a.patch(SECRETS + "/of-local", {"data": {}})[0], a.delete(SECRETS + "/of-local")[0]), (500, 500))
    st, e = a.post(SECRETS, secret("of-local"))
    equal("it is there, whatever it is", (st, e["reason"]), (409, "AlreadyExists"))
    equal("a dry run does not look what it cannot read", a.post(SECRETS + "?dryRun=All", secret("of-local"))[0], 201)
    equal("an absent one is", a.get(SECRETS + "/of-nobody")[0], 404)
    st, e = a.get(SECRETS)
    check("a list that lacks it is none", (st, e["reason"]) == (429, "TooManyRequests") and e["details"]["retryAfterSeconds"] >= 1, (st, e))
    equal("of other namespaces, of a selection and a watch neither", [a.get(p)[0] for p in (
        "/api/v1/namespaces/kube-system/secrets", SECRETS + "?labelSelector=a", SECRETS + "?labelSelector=a&limit=1", SECRETS + "?watch=true")], [429] * 4)
    st, e = a.get(SECRETS + "?limit=1")
    equal("a page is read where the object is", (st, e["reason"]), (500, "InternalError"))
    equal("nor can all be taken away", a.delete(SECRETS + "?labelSelector=a")[0], 429)
    equal("others are written", (a.post(SECRETS, secret("of-all", "plain"))[0], word(a, "of-all"), a.delete(SECRETS + "/of-all")[0]), (201, "plain", 200))
    s.stop()
    start(s, {"aescbc": {"keys": [{"name": "local", "secret": KEY}]}}, {"identity": {}})
    equal("no plugin, no check", a.raw("GET", "/readyz/kms-providers")[0], 404)
    equal("all is there again", [(word(a, n), a.delete(SECRETS + "/" + n)[0]) for n in ("of-local", "of-local-too")], [("hidden-word", 200)] * 2)
    equal("and in lists", a.get(SECRETS)[0], 200)
    s.stop()


def test_definitions(s, a):
    """A definition that nobody can read has not gone: the APIService made for it stays until it does."""
    key, kinds = {"aescbc": {"keys": [{"name": "local", "secret": KEY}]}}, ("customresourcedefinitions.apiextensions.k8s.io",)
    crds, services = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "/apis/apiregistration.k8s.io/v1/apiservices/v1."

    def define(group):
        return a.post(crds, {"kind": "CustomResourceDefinition", "apiVersion": "apiextensions.k8s.io/v1", "metadata": {"name": "things." + group}, "spec": {
            "group": group, "scope": "Cluster", "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}]}})[0]

    start(s, key, {"identity": {}}, resources=kinds)
    equal("defined", (define("one.kms.test"), define("two.kms.test")), (201, 201))
    until("served", lambda: [a.get(services + g + ".kms.test")[0] for g in ("one", "two")] == [200, 200])
    equal("one goes", a.delete(crds + "/things.two.kms.test")[0], 200)
    until("gone with its definition", lambda: a.get(services + "two.kms.test")[0] == 404)
    s.stop()
    start(s, {"identity": {}}, resources=kinds)
    equal("none can be told from it", a.get(crds)[0], 429)
    equal("defined anew", define("three.kms.test"), 201)
    until("what is new is served", lambda: a.get(services + "three.kms.test")[0] == 200)
    equal("what cannot be read stays", a.get(services + "one.kms.test")[0], 200)
    equal("taken away", a.delete(crds + "/things.three.kms.test")[0], 200)
    s.stop()
    start(s, key, {"identity": {}}, resources=kinds)
    until("gone when all can be read", lambda: a.get(services + "three.kms.test")[0] == 404)
    equal("still there", (a.get(services + "one.kms.test")[0], a.get("/apis/one.kms.test/v1/things")[0]), (200, 200))
    equal("taken away, too", a.delete(crds + "/things.one.kms.test")[0], 200)
    until("gone", lambda: a.get(services + "one.kms.test")[0] == 404)
    s.stop()


def test_lost_key(s, a):
    """A key that goes while what it sealed stays: one object is asked of the store, which cannot tell; what is cached can be listed and changed."""
    def gcm(name, secret):
        return {"aesgcm": {"keys": [{"name": name, "secret": secret}]}}

    start(s, gcm("local", KEY), more=["--encryption-provider-config-automatic-reload"])
    for n in "abcdef":
        equal("written", a.post(SECRETS, secret(n))[0], 201)
    for i, other in enumerate((gcm("another", KEY), gcm("local", base64.b64encode(b"x" * 32).decode()))):
        config(s, other)
        until("the key is gone", lambda: a.get(SECRETS + "/a")[0] == 500)
        equal("old reads", (a.get(SECRETS + "/a?resourceVersion=0")[0], len(a.get(SECRETS)[1]["items"])), (200, 6))
        o = a.get(SECRETS + "/b?resourceVersion=0")[1]
        equal("no change, a bad one", (a.put(SECRETS + "/b", o)[0], a.put(SECRETS + "/b", dict(o, type="other"))[0]), (500, 500))
        equal("a change", (a.put(SECRETS + "/b", dict(o, stringData={"a": "word%d" % i}))[0], word(a, "b")), (200, "word%d" % i))
        equal("neither", (a.delete(SECRETS + "/a")[0], a.delete(SECRETS)[0]), (500, 500))
        equal("made again", (a.post(SECRETS, secret("a"))[1]["reason"], a.post(SECRETS, secret("g"))[0], a.delete(SECRETS + "/g")[0]), ("AlreadyExists", 201, 200))
        config(s, gcm("local", KEY), other)
        until("the key is back", lambda: word(a, "a") == "hidden-word")
    equal("all end", a.delete(SECRETS)[0], 200)
    s.stop()


def test_refused(s, p):
    def refused(what, words, *providers, resources=("secrets",), more=()):
        s.more = []
        refuses(s, what, ["--encryption-provider-config", config(s, *providers, resources=resources)] + list(more), words)

    cbc = {"aescbc": {"keys": [{"name": "local", "secret": KEY}]}}
    refused("v1", "KMS v1 is deprecated", kms(p, apiVersion="v1"))
    refused("v1 is the default", "KMS v1 is deprecated", {"kms": {"name": "x", "endpoint": "unix:///x"}})
    refused("v3", "resources[0].providers[0].kms.apiVersion: Invalid value", kms(p, apiVersion="v3"))
    refused("scheme", "kms.endpoint: Invalid value", kms(p, endpoint="tcp:///x"))
    refused("timeout", "kms.timeout: Invalid value", kms(p, timeout="-1s"))
    refused("cachesize", "kms.cachesize: Invalid value", kms(p, cachesize=1))
    refused("colon", "kms.name: Invalid value", kms(p, name="a:b"))
    refused("twice", "must be unique", kms(p), kms(p))
    refused("two in one", "one element has one provider", dict(kms(p), **cbc))
    refused("none", "does not contain any of the expected providers", {})
    refused("a field that is none", "strict decoding error", kms(p, cacheSize=1))
    refused("key length", "secret is not of the expected length, got 3", {"aesgcm": {"keys": [{"name": "x", "secret": "YWJj"}]}})
    refused("no keys", "aesgcm.keys: Required value", {"aesgcm": {"keys": []}})
    refused("capitals", "resources[0].resources[0]: Invalid value", cbc, resources=["Secrets"])
    refused("a star", "use '*.'", cbc, resources=["*"])
    refused("overlap", "covers another", cbc, resources=["secrets", "*."])
    refused("reload without a file", "needs --encryption-provider-config", cbc, more=["--encryption-provider-config", "",
            "--encryption-provider-config-automatic-reload"])


def prepare(s):
    s.more = []
    return {"a": Client(s, cert="admin"), "p": Plugin(s, "plug")}


if __name__ == "__main__":
    suite("kms", prepare, (test_local_reload, test_lost_key, test_definitions, test_comes_late, test_away_at_start, test_rotates, test_lies, test_everything, test_reload, test_refused))
