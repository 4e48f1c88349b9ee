#!/usr/bin/env python3
"""Who may do what: authentication and authorization of a real server with other flags than apiserver_test.py has.

Usage: access_test.py PATH-OF-kube-apiserver [TEST...]. Prints one line a failed check and "N passed, N failed".
"""
import base64, hashlib, json, os, re, subprocess, sys, threading, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import apiserver_test as t
from apiserver_test import Client, check, equal, suite, until, write
from web import Web

REVIEW = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


def whoami(c, **k):
    st, r = c.post(REVIEW, {"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"}, **k)
    return r["status"]["userInfo"] if st == 201 else st


def refuses(s, what, more, words):
    """The server does not start with these flags and says why."""
    s.more, old = more, s.more
    before = os.path.getsize(os.path.join(s.dir, "log")) if os.path.exists(os.path.join(s.dir, "log")) else 0
    try:
        s.start()
        check(what, False, "it started")
        s.stop()
    except SystemExit:
        with open(os.path.join(s.dir, "log")) as f:
            f.seek(before)
            said = f.read()
        check(what, words in said and s.refused == 1, (s.refused, said[-600:]))
    s.more = old


def b64(text):
    return base64.b64encode(text.encode()).decode()


def test_static_tokens(s):
    write(s, "tokens.csv", 'tok1,u1,id1,"g1,g2"\r\n\n#c,hash,h\n"tok,2","us""er",,g3\n,empty,1\ntok1,again,2\n')
    s.more = []
    s.start()
    u = whoami(Client(s, token="tok1"))
    equal("of two lines with a token the last counts", (u["username"], u["groups"]), ("again", ["system:authenticated"]))
    u = whoami(Client(s, token="tok,2"))
    equal("quoted fields", (u["username"], u.get("uid"), u["groups"]), ('us"er', None, ["g3", "system:authenticated"]))
    equal("# is no comment", whoami(Client(s, token="#c"))["username"], "hash")
    equal("no empty token", Client(s, headers={"Authorization": "Bearer "}).get("/api/v1/nodes")[0], 403)
    s.stop()
    write(s, "tokens.csv", "tok,user\n")
    refuses(s, "two columns", [], "must have at least 3 columns (token, user name, user uid), found 2")
    write(s, "tokens.csv", 'tok,us"er,1\n')
    refuses(s, "bare quote", [], 'bare " in non-quoted-field')
    write(s, "tokens.csv", 'alicetoken,alice,1,"dev"\nbobtoken,bob,2\n')


def test_bootstrap(s):
    s.more = ["--enable-bootstrap-token-auth"]
    s.start()
    a = Client(s, cert="admin")
    secrets = "/api/v1/namespaces/kube-system/secrets"
    n = 0

    def token(typ="bootstrap.kubernetes.io/token", **data):
        nonlocal n
        n += 1
        tid = "abc%03d" % n
        d = {"token-id": tid, "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true"}
        d.update({k.replace("_", "-"): v for k, v in data.items()})
        a.post(secrets, {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "bootstrap-token-" + tid}, "type": typ,
                         "stringData": {k: v for k, v in d.items() if v is not None}})
        return whoami(Client(s, token=tid + ".0123456789abcdef"))

    u = token()
    equal("bootstrap token", (u["username"], u["groups"]),
          ("system:bootstrap:abc001", ["system:bootstrappers", "system:authenticated"]))
    u = token(auth_extra_groups="system:bootstrappers:z,system:bootstrappers:a")
    equal("its groups", u["groups"], ["system:bootstrappers", "system:bootstrappers:a", "system:bootstrappers:z", "system:authenticated"])
    equal("other groups", token(auth_extra_groups="system:masters"), 401)
    equal("no spaces", token(auth_extra_groups="system:bootstrappers:a, system:bootstrappers:b"), 401)
    equal("ends with a letter", token(auth_extra_groups="system:bootstrappers:a-"), 401)
    equal("not for authentication", token(usage_bootstrap_authentication="false"), 401)
    equal("expired", token(expiration="2020-01-01T00:00:00Z"), 401)
    equal("not expired", token(expiration="2099-01-01T00:00:00Z")["username"], "system:bootstrap:abc008")
    equal("not a time", token(expiration="soon"), 401)
    equal("another type", token(typ="Opaque"), 401)
    equal("another id", token(token_id="abc999"), 401)
    equal("another secret", token(token_secret="0123456789abcdeX"), 401)
    equal("not of the form", whoami(Client(s, token="abc001.0123456789ABCDEF")), 401)
    s.stop()


def authn_config(**k):
    return dict({"kind": "AuthenticationConfiguration", "apiVersion": "apiserver.config.k8s.io/v1"}, **k)


def test_anonymous(s):
    cfg = write(s, "authn.yaml", authn_config(anonymous={"enabled": True, "conditions": [{"path": "/livez"}, {"path": "/readyz"}]}))
    s.more = ["--authentication-config", cfg]
    s.start()
    anon = Client(s)
    equal("anonymous where it may be", (anon.raw("GET", "/livez")[0], anon.raw("GET", "/readyz?verbose")[0]), (200, 200))
    equal("and nowhere else", (anon.raw("GET", "/healthz")[0], anon.raw("GET", "/livez/ping")[0], anon.get("/api/v1/nodes")[0]), (401, 401, 401))
    equal("others as before", whoami(Client(s, token="alicetoken"))["username"], "alice")
    s.stop()
    refuses(s, "flag beside the file", s.more + ["--anonymous-auth=true"], "--anonymous-auth flag cannot be set")
    write(s, "authn.yaml", authn_config(anonymous={"enabled": False}))
    s.start()
    equal("nobody anonymous", (anon.raw("GET", "/livez")[0], anon.get("/api/v1/nodes")[0]), (401, 401))
    s.stop()
    write(s, "authn.yaml", authn_config(anonymous={"enabled": False, "conditions": [{"path": "/livez"}]}))
    refuses(s, "conditions of nobody", s.more, "enabled should be set to true when conditions are defined")
    write(s, "authn.yaml", authn_config(anonymus={}))
    refuses(s, "unknown field", s.more, 'unknown field "anonymus"')
    write(s, "authn.yaml", {"kind": "X", "apiVersion": "apiserver.config.k8s.io/v1"})
    refuses(s, "another kind", s.more, "expected AuthenticationConfiguration")
    refuses(s, "no file", ["--authentication-config", os.path.join(s.dir, "none")], "No such file")


class Issuer:
    """An OpenID provider: discovery, keys, distributed claims; it counts what it is asked."""

    def __init__(self, s):
        self.s, self.keys, self.asked, self.claims, self.lost = s, [], [], {}, False
        self.url = Web(self.answer, s, "idp").url

    def answer(self, rq):
        self.asked.append(rq.path)
        body = None
        if rq.path.endswith("/.well-known/openid-configuration"):
            name = rq.path[:-len("/.well-known/openid-configuration")]
            body = {"issuer": self.url + name, "jwks_uri": self.url + "/keys"}
        elif rq.path == "/elsewhere":
            body = {"issuer": self.url + "/moved", "jwks_uri": self.url + "/keys"}
        elif rq.path == "/keys":
            body = {"keys": self.keys}
        elif rq.path.startswith("/claims/") and rq.headers.get("Authorization") == "Bearer sesame":
            body = self.claims[rq.path]
        return (404, {}) if body is None or self.lost else body

    def openssl(self, *argv, **k):
        return subprocess.run(("openssl",) + argv, cwd=self.s.dir, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **k).stdout

    def key(self, kid, kind="RSA", publish=True):
        if kind == "RSA":
            self.openssl("genrsa", "-out", kid + ".pem", "2048")
            n = self.openssl("rsa", "-in", kid + ".pem", "-noout", "-modulus").decode().strip().split("=")[1]
            jwk = {"kty": "RSA", "kid": kid, "use": "sig", "n": url64(bytes.fromhex(n)), "e": "AQAB"}
        else:
            group, size = {"P-256": ("prime256v1", 32), "P-384": ("secp384r1", 48), "P-521": ("secp521r1", 66)}[kind]
            self.openssl("ecparam", "-genkey", "-name", group, "-noout", "-out", kid + ".pem")
            der = self.openssl("ec", "-in", kid + ".pem", "-pubout", "-outform", "DER")
            jwk = {"kty": "EC", "crv": kind, "kid": kid, "x": url64(der[-2 * size:-size]), "y": url64(der[-size:])}
        if publish:
            self.keys = self.keys + [jwk]
        return jwk

    def token(self, kid, alg="RS256", header=None, **claims):
        c = {"iss": self.url, "aud": "skiff", "sub": "carol", "exp": int(time.time()) + 600}
        c.update(claims)
        h = {"alg": alg, "kid": kid}
        h.update(header or {})
        part = url64(json.dumps(h).encode()) + "." + url64(json.dumps({k: v for k, v in c.items() if v is not None}).encode())
        argv = ["dgst", "-sha" + alg[2:], "-sign", kid + ".pem"]
        if alg[0] == "P":
            argv += ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"]
        sig = self.openssl(*argv, input=part.encode())
        if alg[0] == "E":
            size = {"256": 32, "384": 48, "512": 66}[alg[2:]]
            at = 2 if sig[1] < 128 else 3
            raw = b""
            for _ in range(2):
                n = sig[at + 1]
                raw += int.from_bytes(sig[at + 2:at + 2 + n], "big").to_bytes(size, "big")
                at += 2 + n
            sig = raw
        return part + "." + url64(sig)


def url64(b):
    return base64.urlsafe_b64encode(b).decode().rstrip("=")


def review(a, token, audiences=None):
    spec = {"token": token}
    if audiences:
        spec["audiences"] = audiences
    return a.post("/apis/authentication.k8s.io/v1/tokenreviews", {"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1",
                                                                   "spec": spec})[1]["status"]


def test_oidc_flags(s, idp):
    ca = os.path.join(s.dir, "ca.crt")
    base = ["--oidc-issuer-url", idp.url, "--oidc-client-id", "skiff", "--oidc-ca-file", ca]
    idp.key("k1")
    idp.key("e1", "P-256")
    s.more = base + ["--oidc-groups-claim", "groups", "--oidc-groups-prefix", "oidc:", "--oidc-required-claim", "hd=example.com",
                     "--oidc-required-claim", "tier=gold"]
    s.start()
    a = Client(s, cert="admin")
    good = dict(hd="example.com", tier="gold")

    def who(**k):
        return whoami(Client(s, token=idp.token("k1", **dict(good, **k))))

    until("the provider is found", lambda: who() != 401)
    u = who(groups=["a", "b"], jti="j1")
    equal("claims to a user", (u["username"], u["groups"], u["extra"]),
          (idp.url + "#carol", ["oidc:a", "oidc:b", "system:authenticated"], {"authentication.kubernetes.io/credential-id": ["JTI=j1"]}))
    equal("one group", who(groups="a")["groups"], ["oidc:a", "system:authenticated"])
    equal("several audiences of the token", who(aud=["x", "skiff"])["username"], idp.url + "#carol")
    for what, k, words in (("expired", dict(exp=1), "oidc: verify token: oidc: token is expired"),
                           ("no end", dict(exp=None), "oidc: verify token: oidc: token is expired"),
                           ("not yet", dict(nbf=int(time.time()) + 3600), "before the nbf (not before) time"),
                           ("another audience", dict(aud="other"), 'oidc: verify token: oidc: expected audience "skiff" got ["other"]'),
                           ("no audience", dict(aud=None), 'oidc: verify token: oidc: expected audience "skiff" got []'),
                           ("sub is no string", dict(sub=5), 'oidc: parse username claims "sub": json: cannot unmarshal number into Go value of '
                                                             'type string'),
                           ("no sub", dict(sub=None), 'oidc: parse username claims "sub": claim not present'),
                           ("required claim missing", dict(tier=None), "oidc: required claim tier not present in ID token"),
                           ("required claim differs", dict(tier="tin"), "oidc: required claim tier value does not match. Got = tin, want = gold"),
                           ("groups are none", dict(groups={"a": 1}), 'oidc: parse groups claim "groups"')):
        tok = idp.token("k1", **dict(good, **k))
        equal(what, whoami(Client(s, token=tok)), 401)
        r = review(a, tok)
        check(what + ": why", not r.get("authenticated") and words in r.get("error", ""), r)
    r = review(a, idp.token("e1", alg="ES256", **good))
    check("algorithms of the flags", 'signed with unsupported algorithm, expected ["RS256"] got "ES256"' in r.get("error", ""), r)
    tok = idp.token("k1", **good)
    h, b, sig = tok.split(".")
    other = url64(json.dumps({"iss": idp.url, "aud": "skiff", "sub": "root", "exp": int(time.time()) + 600}).encode())
    r = review(a, ".".join((h, other, sig)))
    check("another's signature", "failed to verify id token signature" in r.get("error", ""), r)
    for what, bad in (("none", {"alg": "none"}), ("HS256", {"alg": "HS256"}), ("critical", {"crit": ["x"], "x": 1})):
        equal("header " + what, whoami(Client(s, token=idp.token("k1", header=bad, **good))), 401)
    equal("another issuer is not asked", review(a, idp.token("k1", iss="https://other.example.com", **good))["error"], "invalid bearer token")
    r = review(a, tok, ["https://kubernetes.default.svc.cluster.local", "x"])
    equal("audiences of the review", (r["authenticated"], r["audiences"]), (True, ["https://kubernetes.default.svc.cluster.local"]))
    equal("none of them", review(a, tok, ["x"]).get("authenticated"), None)
    # keys come and go; what is unknown makes it look, not too often
    idp.key("k2")
    equal("a new key", whoami(Client(s, token=idp.token("k2", **good)))["username"], idp.url + "#carol")
    idp.keys = [k for k in idp.keys if k["kid"] != "k1"]
    n = len([p for p in idp.asked if p == "/keys"])
    t0 = time.time()
    threads = [threading.Thread(target=lambda: whoami(Client(s, token=idp.token("k2", header={"kid": "zz"}, **good)))) for i in range(12)]
    [x.start() for x in threads]
    [x.join() for x in threads]
    n = len([p for p in idp.asked if p == "/keys"]) - n
    check("not a fetch a request", 1 <= n <= 2 + (time.time() - t0), n)
    equal("a key that is gone", whoami(Client(s, token=idp.token("k1", sub="dave", **good))), 401)
    s.stop()
    s.more = base + ["--oidc-username-claim", "email", "--oidc-signing-algs", "RS256,ES256"]
    s.start()
    idp.key("k1")

    def mail(**k):
        return whoami(Client(s, token=idp.token("e1", alg="ES256", **k)))

    until("found again", lambda: mail(email="c@example.com") != 401)
    equal("mail has no prefix", mail(email="c@example.com", email_verified=True)["username"], "c@example.com")
    equal("mail not verified", mail(email="c@example.com", email_verified=False), 401)
    equal("verified how", mail(email="c@example.com", email_verified="yes"), 401)
    s.stop()
    refuses(s, "client id is needed", ["--oidc-issuer-url", idp.url], "oidc-issuer-url and oidc-client-id must be specified together")
    refuses(s, "known algorithms", base + ["--oidc-signing-algs", "HS256"], 'oidc: unsupported signing alg: "HS256"')
    refuses(s, "https", ["--oidc-issuer-url", "http://x", "--oidc-client-id", "x"], "URL scheme must be https")


def issuer(idp, path="", **k):
    ca = open(os.path.join(idp.s.dir, "ca.crt")).read()
    return {"issuer": dict({"url": idp.url + path, "audiences": ["skiff"], "certificateAuthority": ca}, **k.pop("issuer", {})),
            "claimMappings": {"username": {"claim": "sub", "prefix": ""}}, **k}


def test_oidc_config(s, idp):
    idp.key("k1")
    idp.key("e1", "P-256")
    idp.key("e2", "P-384")
    idp.key("e3", "P-521")
    one = issuer(idp, issuer={"audiences": ["skiff", "other"], "audienceMatchPolicy": "MatchAny"},
                 claimValidationRules=[{"claim": "hd", "requiredValue": "x"}])
    one["claimMappings"] = {"username": {"claim": "sub", "prefix": "one:"}, "groups": {"claim": "roles", "prefix": ""}, "uid": {"claim": "oid"}}
    two = issuer(idp, "/moved", issuer={"discoveryURL": idp.url + "/elsewhere"})
    cfg = write(s, "authn.yaml", authn_config(jwt=[one, two]))
    s.more = ["--authentication-config", cfg]
    s.start()
    a = Client(s, cert="admin")

    def who(kid="k1", **k):
        return whoami(Client(s, token=idp.token(kid, **k)))

    until("the providers are found", lambda: who(hd="x", oid="1") != 401 and who(iss=idp.url + "/moved") != 401)
    keys = "apiserver_authentication_jwt_authenticator_jwks_fetch_last_"

    def told(name):
        """Series of a metric of the issuers: their labels but the server's, and the value."""
        return [(dict(x for x in re.findall(r'(\w+)="([^"]*)"', l) if x[0] != "apiserver_id_hash"), float(l.rpartition(" ")[2]))
                for l in a.raw("GET", "/metrics")[2].decode().split("\n") if l.startswith(name + "{")]

    def digested(text):
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    both = sorted((digested(idp.url), digested(idp.url + "/moved")))
    equal("keys that were fetched", sorted((x["jwt_issuer_hash"], x["hash"], v) for x, v in told(keys + "key_set_info")),
          [(x, digested(json.dumps({"keys": idp.keys})), 1.0) for x in both])
    times = told(keys + "timestamp_seconds")
    equal("and when", (sorted(x["jwt_issuer_hash"] for x, _ in times), {x["result"] for x, _ in times}), (both, {"success"}))
    check("is now", all(abs(v - time.time()) < 600 for _, v in times), times)
    u = who(hd="x", oid="o1", roles=["r"], aud="other")
    equal("mapped", (u["username"], u["uid"], u["groups"]), ("one:carol", "o1", ["r", "system:authenticated"]))
    equal("two: another discovery", who(iss=idp.url + "/moved")["username"], "carol")
    equal("uid is needed", who(hd="x"), 401)
    check("audiences", "expected audience in [" in review(a, idp.token("k1", hd="x", oid="1", aud="z"))["error"])
    for kid, alg in (("k1", "RS384"), ("k1", "RS512"), ("k1", "PS256"), ("k1", "PS384"), ("k1", "PS512"), ("e1", "ES256"), ("e2", "ES384"),
                     ("e3", "ES512")):
        equal(alg, who(kid, alg=alg, hd="x", oid="1").get("username"), "one:carol")
    equal("a key of another kind", who("e1", alg="ES256", header={"alg": "ES384"}, hd="x", oid="1"), 401)
    # the groups claim is elsewhere
    far = {"_claim_names": {"roles": "src"}, "_claim_sources": {"src": {"endpoint": idp.url + "/claims/carol", "access_token": "sesame"}}}
    idp.claims["/claims/carol"] = idp.token("k1", roles=["far"])
    equal("distributed claim", who(hd="x", oid="2", **far)["groups"], ["far", "system:authenticated"])
    idp.claims["/claims/carol"] = idp.token("k1", other=1)
    check("it is not there", "did not contain claim: roles" in review(a, idp.token("k1", hd="x", oid="3", **far))["error"])
    # reload
    write(s, "authn.yaml", authn_config(jwt=[dict(two, claimMappings={"username": {"claim": "sub", "prefix": "new:"}})]))
    until("reloaded", lambda: who(iss=idp.url + "/moved") == 401 or who(iss=idp.url + "/moved")["username"] == "new:carol")
    equal("the first is gone", who(hd="x", oid="1"), 401)
    until("and what was told of it", lambda: [x["jwt_issuer_hash"] for n in ("key_set_info", "timestamp_seconds") for x, _ in told(keys + n)] ==
          [digested(idp.url + "/moved")] * 2)
    counts = {(x["jwt_issuer_hash"], x["result"]): v for x, v in told("apiserver_authentication_jwt_authenticator_latency_seconds_count")}
    check("tokens judged", counts[digested(idp.url), "success"] > 1 and counts[digested(idp.url), "failure"] >= 1, counts)
    with open(os.path.join(s.dir, "authn.yaml"), "rb") as f:
        digest = hashlib.sha256(f.read()).hexdigest()
    equal("which one is in use", re.findall(r'authentication_config_controller_last_config_info\{.*hash="sha256:(.*)"\} (\d)',
                                            a.raw("GET", "/metrics")[2].decode()), [(digest, "1")])
    write(s, "authn.yaml", "nonsense: [")
    log = os.path.join(s.dir, "log")
    until("a bad file is told", lambda: "reloading authentication config" in open(log).read().rsplit("reloaded authentication config", 1)[1])
    equal("and the one before stays", who(iss=idp.url + "/moved")["username"], "new:carol")
    write(s, "authn.yaml", authn_config(jwt=[two], anonymous={"enabled": False}))
    until("anonymous may not change", lambda: "changed from initial configuration file" in open(log).read())
    write(s, "authn.yaml", authn_config(jwt=[]))
    until("none is left", lambda: who(iss=idp.url + "/moved") == 401)
    s.stop()
    for what, words, bad in (
            ("same issuer", 'jwt[1].issuer.url: Duplicate value', [one, one]),
            ("service accounts' issuer", "URL must not overlap with disallowed issuers",
             [dict(two, issuer=dict(two["issuer"], url="https://kubernetes.default.svc.cluster.local"))]),
            ("audiences", "jwt[0].issuer.audiences: Required value: at least one jwt[0].issuer.audiences is required",
             [dict(two, issuer=dict(two["issuer"], audiences=[]))]),
            ("match policy", "audienceMatchPolicy must be MatchAny for multiple audiences",
             [dict(two, issuer=dict(two["issuer"], audiences=["a", "b"]))]),
            ("CA", "jwt[0].issuer.certificateAuthority: Invalid value", [dict(two, issuer=dict(two["issuer"], certificateAuthority="x"))]),
            ("discovery", "discoveryURL must be different from URL", [dict(two, issuer=dict(two["issuer"], discoveryURL=two["issuer"]["url"] + "/"))]),
            ("query", "URL must not contain a query", [dict(two, issuer=dict(two["issuer"], url=two["issuer"]["url"] + "?a=b"))]),
            ("prefix", "prefix is required when claim is set", [dict(two, claimMappings={"username": {"claim": "sub"}})]),
            ("username", "claim or expression is required", [dict(two, claimMappings={})]),
            ("rule", "claimValidationRules[0]: Required value: claim or expression is required", [dict(two, claimValidationRules=[{}])])):
        write(s, "authn.yaml", authn_config(jwt=bad))
        refuses(s, what, s.more, words)
    write(s, "authn.yaml", authn_config(jwt=[two]))
    refuses(s, "file and flags", s.more + ["--oidc-issuer-url", "x"], "authentication-config file and oidc-* flags are mutually exclusive")


def test_oidc_expressions(s, idp):
    idp.key("k1")

    def auth(**k):
        c = issuer(idp)
        c["claimMappings"] = {"username": {"expression": "'cel:' + claims.sub"}}
        for x in ("username", "groups", "uid"):
            if x in k:
                c["claimMappings"][x] = {"expression": k.pop(x)}
        if "extra" in k:
            c["claimMappings"]["extra"] = [{"key": a, "valueExpression": b} for a, b in k.pop("extra")]
        c.update(k)
        return c

    cfg = write(s, "authn.yaml", authn_config(jwt=[auth(
        username="claims.user.name + '@' + claims.realm", groups="claims.roles.map(r, 'role:' + r) + (has(claims.admin) && claims.admin ? ['adm'] : [])",
        uid="string(claims.oid)", extra=[("example.com/tenant", "claims.tenant"), ("example.com/none", "''"), ("example.com/list", "claims.roles"),
                                         ("example.com/dot", "claims.user.first__dot__name"), ("example.com/opt", "claims.?nick.orValue('')")],
        claimValidationRules=[{"expression": "claims.exp - claims.iat <= 3600.0", "message": "lives too long"},
                              {"expression": "claims.hd in ['a', 'b']"}],
        userValidationRules=[{"expression": "!user.username.startsWith('system:')", "message": "reserved"},
                             {"expression": "user.groups.all(g, g != 'role:root') && user.uid != '' && 'example.com/tenant' in user.extra"}])]))
    s.more = ["--authentication-config", cfg]
    s.start()
    a = Client(s, cert="admin")
    now = int(time.time())
    good = dict(user={"name": "n", "first.name": "F"}, realm="r", roles=["x", ""], oid="o7", tenant="t", hd="a", iat=now, exp=now + 600)

    def who(**k):
        return whoami(Client(s, token=idp.token("k1", **dict(good, **k))))

    def why(**k):
        r = review(a, idp.token("k1", **dict(good, **k)))
        return r.get("error", r)

    until("the provider is found", lambda: who() != 401)
    u = who(admin=True)
    equal("by expressions", (u["username"], u["uid"], u["groups"], u["extra"]),
          ("n@r", "o7", ["role:x", "role:", "adm", "system:authenticated"],
           {"example.com/tenant": ["t"], "example.com/list": ["x"], "example.com/dot": ["F"]}))
    equal("optional", who(nick="nn")["extra"]["example.com/opt"], ["nn"])
    for what, k, words in (("claim rule", dict(exp=now + 7200), "validation expression 'claims.exp - claims.iat <= 3600.0' failed: lives too long"),
                           ("other claim rule", dict(hd="z"), "failed: "),
                           ("a claim that is not there", dict(realm=None), "oidc: error evaluating username claim expression: expression 'claims.user.name "
                            "+ '@' + claims.realm' resulted in error: no such key: realm"),
                           ("not a string", dict(user={"name": 1}), "oidc: error evaluating username claim expression"),
                           ("user rule", dict(user={"name": "system:x", "first.name": "F"}), "failed: reserved"),
                           ("other user rule", dict(roles=["root"]), "oidc: error evaluating user info validation rule"),
                           ("extra", dict(tenant=5), "expression must return a string or a list of strings")):
        w = why(**k)
        check("expression: " + what, isinstance(w, str) and words in w, w)
    s.stop()
    for what, words, bad in (
            ("syntax", "claimMappings.username.expression: Invalid value", auth(username="claims.")),
            ("unknown", "undeclared reference to 'user'", auth(username="user.username")),
            ("rule's type", "must evaluate to bool", auth(claimValidationRules=[{"expression": "'x'"}])),
            ("user rule", "undefined field 'name'", auth(userValidationRules=[{"expression": "user.name == 'x'"}])),
            ("mail", "claims.email_verified must be used", auth(username="claims.email")),
            ("extra key", "must be a domain-prefixed path", auth(extra=[("x", "'y'")])),
            ("reserved key", "are reserved for Kubernetes use", auth(extra=[("a.k8s.io/x", "'y'")])),
            ("upper case", "must be lowercase", auth(extra=[("a.example.com/X", "'y'")])),
            ("same key", "claimMappings.extra[1].key: Duplicate value", auth(extra=[("a.example.com/x", "'y'"), ("a.example.com/x", "'z'")])),
            ("prefix", "may not be specified when expression is set", dict(auth(), claimMappings={"username": {"expression": "'x'", "prefix": ""}})),
            ("both", "claim and expression can't both be set", dict(auth(), claimMappings={"username": {"expression": "'x'", "claim": "sub"}}))):
        write(s, "authn.yaml", authn_config(jwt=[bad]))
        refuses(s, "expressions: " + what, s.more, words)
    write(s, "authn.yaml", authn_config(jwt=[auth(username="claims.email", claimValidationRules=[{"expression": "claims.?email_verified.orValue(true)"}])]))
    refuses(s, "dyn is no bool", s.more, "must evaluate to bool")
    write(s, "authn.yaml", authn_config(jwt=[auth(username="claims.email", claimValidationRules=[{"expression": "claims.?email_verified.orValue(true) == true"}])]))
    s.start()
    s.stop()


class Hook:
    """Answers TokenReviews and SubjectAccessReviews with what the test says."""

    def __init__(self, s):
        self.seen, self.answer, self.fail, self.moved = [], lambda spec: {}, 0, []
        self.web = Web(self.review, s, "reviews", names="IP:127.0.0.1,DNS:localhost")

    def review(self, rq):
        if self.moved:
            status, where = self.moved.pop()
            return status, None, {"Location": where}
        review = json.loads(rq.body or '{"spec":{"token":"none"}}')
        self.seen.append(dict(review, path=rq.path, auth=rq.headers.get("Authorization")))
        status = self.answer(review["spec"])
        if self.fail:
            self.fail -= 1
            return 500, {"kind": "Status", "message": "out of order"}
        return dict(review, status=status)

    def kubeconfig(self, s, name, path="", user=None):
        return write(s, name, self.web.kubeconfig(path, user or {"token": "hooktoken"}))


def test_token_webhook(s, hook):
    s.more = ["--authentication-token-webhook-config-file", hook.kubeconfig(s, "tokens.kubeconfig", "/authenticate?x=y"),
              "--authentication-token-webhook-version", "v1", "--authentication-token-webhook-cache-ttl", "1h"]
    mine = "https://kubernetes.default.svc.cluster.local"

    def answer(spec):
        if spec["token"] == "good":
            return {"authenticated": True, "user": {"username": "eve", "uid": "7", "groups": ["g"], "extra": {"k": ["v"]}}}
        if spec["token"] == "elsewhere":
            return {"authenticated": True, "audiences": ["x"], "user": {"username": "eve"}}
        if spec["token"] == "broken":
            return {"authenticated": False, "error": "no idea"}
        return {"authenticated": False}

    hook.answer = answer
    s.start()
    a = Client(s, cert="admin")
    u = whoami(Client(s, token="good"))
    equal("user of the webhook", (u["username"], u["uid"], u["groups"], u["extra"]), ("eve", "7", ["g", "system:authenticated"], {"k": ["v"]}))
    q = hook.seen[0]
    equal("what it was asked", (q["path"], q["auth"], q["kind"], q["apiVersion"], q["spec"]),
          ("/authenticate?x=y", "Bearer hooktoken", "TokenReview", "authentication.k8s.io/v1", {"token": "good", "audiences": [mine]}))
    equal("unknown", whoami(Client(s, token="bad")), 401)
    equal("static tokens go first", (whoami(Client(s, token="alicetoken"))["username"], len(hook.seen)), ("alice", 2))
    equal("for another", whoami(Client(s, token="elsewhere")), 401)
    equal("its error", review(a, "broken").get("error"), "no idea")
    n = len(hook.seen)
    equal("answers are kept", (review(a, "good")["user"]["username"], review(a, "bad").get("authenticated"), len(hook.seen)), ("eve", None, n))
    equal("errors are not", (review(a, "broken").get("error"), len(hook.seen)), ("no idea", n + 1))
    r = review(a, "good", ["x", "y"])
    equal("audiences of the review are asked", (r.get("authenticated"), hook.seen[-1]["spec"]["audiences"]), (None, ["x", "y"]))
    r = review(a, "elsewhere", ["x", "y"])
    equal("and answered", (r.get("authenticated"), r.get("audiences")), (True, ["x"]))
    hook.fail = 1
    equal("one failure is tried again", whoami(Client(s, token="good2")), 401)
    equal("twice", [q["spec"]["token"] for q in hook.seen[-2:]], ["good2", "good2"])
    hook.moved = [(308, "https://localhost:%d/there" % hook.web.port), (307, "elsewhere")]
    equal("sent elsewhere twice", whoami(Client(s, token="moved")), 401)
    equal("with all that it was asked", [hook.seen[-1][k] for k in ("path", "auth", "spec")],
          ["/there", "Bearer hooktoken", {"token": "moved", "audiences": [mine]}])
    hook.moved = [(302, "/there")]
    equal("or with nothing", (whoami(Client(s, token="moved2")), hook.seen[-1]["spec"]["token"]), (401, "none"))
    hook.moved = [(307, "/")] * 10
    equal("not for ever", (whoami(Client(s, token="moved3")), len(hook.moved)), (401, 0))
    s.stop()
    s.more = s.more[:2] + ["--authentication-token-webhook-cache-ttl", "0s"]
    hook.kubeconfig(s, "tokens.kubeconfig", "/v1beta1", {"username": "u", "password": "p"})
    s.start()
    equal("the older version", (review(a, "good")["user"]["username"], hook.seen[-1]["apiVersion"], hook.seen[-1]["auth"]),
          ("eve", "authentication.k8s.io/v1beta1", "Basic dTpw"))
    n = len(hook.seen)
    equal("valid tokens are kept all the same", (review(a, "good")["user"]["username"], len(hook.seen)), ("eve", n))
    equal("nothing else", (review(a, "bad").get("authenticated"), review(a, "bad").get("authenticated"), len(hook.seen)), (None, None, n + 2))
    s.stop()
    refuses(s, "exec plugins", ["--authentication-token-webhook-config-file", hook.kubeconfig(s, "x.kubeconfig", user={"exec": {"command": "x"}})],
            "not built here")
    refuses(s, "version", s.more[:2] + ["--authentication-token-webhook-version", "v2"], 'unsupported authentication webhook version "v2"')


def sar(a, user="frank", **attrs):
    spec = {"user": user, "groups": ["system:authenticated"]}
    spec.update({"nonResourceAttributes": attrs} if "path" in attrs else {"resourceAttributes": attrs})
    st, r = a.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", {"kind": "SubjectAccessReview",
                                                                           "apiVersion": "authorization.k8s.io/v1", "spec": spec})
    return r["status"] if st == 201 else (st, r["message"])


def test_authz_webhook(s, hook):
    kube = hook.kubeconfig(s, "authz.kubeconfig", "/authorize")

    def answer(spec):
        r = spec.get("resourceAttributes") or {}
        if r.get("verb") == "deny":
            return {"allowed": False, "denied": True, "reason": "never"}
        if r.get("verb") == "both":
            return {"allowed": True, "denied": True}
        return {"allowed": r.get("resource") == "pods" or spec.get("nonResourceAttributes", {}).get("path") == "/x", "reason": "because"}

    hook.answer, hook.seen = answer, []
    s.more = ["--authorization-mode", "Webhook,RBAC", "--authorization-webhook-config-file", kube, "--authorization-webhook-version", "v1"]
    s.start()
    a = Client(s, cert="admin")
    alice = Client(s, token="alicetoken")
    equal("allowed by the webhook", alice.get(t.PODS)[0], 200)
    equal("what it was asked", hook.seen[-1]["spec"], {
        "resourceAttributes": {"namespace": "default", "verb": "list", "version": "v1", "resource": "pods"}, "user": "alice",
        "groups": ["dev", "system:authenticated"], "uid": "1"})
    st, e = alice.get(t.CM)
    check("not allowed, with its reason", st == 403 and e["message"].endswith('in the namespace "default": because'), e)
    n = len(hook.seen)
    equal("answers are kept", (alice.get(t.PODS)[0], alice.get(t.CM)[0], len(hook.seen)), (200, 403, n))
    equal("RBAC is asked after it", whoami(alice)["username"], "alice")
    equal("system:masters never", (a.get("/api/v1/nodes")[0], [q for q in hook.seen if q["spec"].get("user") == "admin"]), (200, []))
    alice.get(t.PODS + "?fieldSelector=spec.nodeName%3Dn1&labelSelector=a+in+(b,c),!d")
    equal("selectors", {k: v for k, v in hook.seen[-1]["spec"]["resourceAttributes"].items() if "Sel" in k}, {
        "fieldSelector": {"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["n1"]}]},
        "labelSelector": {"requirements": [{"key": "a", "operator": "In", "values": ["b", "c"]}, {"key": "d", "operator": "DoesNotExist"}]}})
    alice.delete(t.PODS + "?labelSelector=x%3Dy")
    r = hook.seen[-1]["spec"]["resourceAttributes"]
    equal("of deletecollection", (r["verb"], r["labelSelector"]["requirements"][0]["key"]), ("deletecollection", "x"))
    equal("denied", sar(a, verb="deny", resource="pods"), {"allowed": False, "denied": True, "reason": "never"})
    equal("both", sar(a, verb="both", resource="pods").get("evaluationError"), "webhook subject access review returned both allow and deny response")
    equal("paths", (sar(a, verb="get", path="/x")["allowed"], sar(a, verb="get", path="/y")["allowed"]), (True, False))
    st, r = alice.post("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", {
        "kind": "SelfSubjectRulesReview", "apiVersion": "authorization.k8s.io/v1", "spec": {"namespace": "default"}})
    equal("rules are not complete", (r["status"]["incomplete"], r["status"]["evaluationError"]),
          (True, "webhook authorizer does not support user rule resolution"))
    # selectors of reviews
    s1 = {"fieldSelector": {"requirements": [{"key": "a", "operator": "In", "values": ["b"]}, {"key": "c", "operator": "New"}]}}
    r = sar(a, verb="list", resource="pods", **s1)
    equal("unknown operators are ignored", r["evaluationError"], "spec.resourceAttributes.fieldSelector partially ignored due to parse error")
    equal("the rest is asked", hook.seen[-1]["spec"]["resourceAttributes"]["fieldSelector"]["requirements"], s1["fieldSelector"]["requirements"][:1])
    r = sar(a, verb="list", resource="pods", labelSelector={"rawSelector": "a in ("})
    equal("broken text", r["evaluationError"], "spec.resourceAttributes.labelSelector ignored due to parse error")
    r = sar(a, verb="list", resource="pods", labelSelector={"rawSelector": "a=b"})
    equal("text", hook.seen[-1]["spec"]["resourceAttributes"]["labelSelector"],
          {"requirements": [{"key": "a", "operator": "In", "values": ["b"]}]})
    st, e = sar(a, verb="list", resource="pods", labelSelector={})
    check("empty selector", st == 422 and "when spec.resourceAttributes.labelSelector is specified, requirements or rawSelector is required" in e, e)
    st, e = sar(a, verb="list", resource="pods", fieldSelector={"rawSelector": "a=b", "requirements": [{"key": "", "operator": "In"}]})
    check("both forms", st == 422 and "may not specified at the same time" in e and "requirements[0].values: Required value" in e and
          "requirements[0].key: Required value" in e, e)
    # a webhook that does not answer has no opinion
    hook.fail = 9
    st, e = alice.get("/apis/apps/v1/deployments")
    check("out of order", st == 500 and "out of order" in e["message"], e)
    equal("five times", hook.fail, 4)
    hook.fail = 0
    s.stop()
    s.more = ["--authorization-mode", "Webhook", "--authorization-webhook-config-file", kube, "--authorization-webhook-cache-authorized-ttl", "0"]
    s.more[-1] = "0s"
    s.start()
    n = len(hook.seen)
    equal("the older version", (alice.get(t.PODS)[0], hook.seen[-1]["apiVersion"], hook.seen[-1]["spec"]["group"]),
          (200, "authorization.k8s.io/v1beta1", ["dev", "system:authenticated"]))
    equal("nothing kept", (alice.get(t.PODS)[0], len(hook.seen)), (200, n + 2))
    s.stop()
    refuses(s, "twice", ["--authorization-mode", "RBAC,RBAC"], "has mode specified more than once")
    refuses(s, "ABAC", ["--authorization-mode", "ABAC"], "ABAC's authorization policy file not passed")
    refuses(s, "its file without it", ["--authorization-policy-file", kube], "without mode ABAC")
    refuses(s, "a space", ["--authorization-mode", "Node, RBAC"], 'authorization-mode " RBAC" is not a valid mode')
    refuses(s, "unknown mode", ["--authorization-mode", "X"], 'authorization-mode "X" is not a valid mode')
    refuses(s, "no file", ["--authorization-mode", "Webhook"], "authorization config file not passed")
    refuses(s, "file without mode", ["--authorization-webhook-config-file", kube], "without mode Webhook")
    s.more = ["--authorization-mode", "AlwaysAllow"]
    s.start()
    equal("AlwaysAllow", (alice.get("/api/v1/nodes")[0], Client(s).get("/api/v1/nodes")[0]), (200, 401))
    s.stop()
    s.more = ["--authorization-mode", "AlwaysDeny"]
    s.start()
    st, e = alice.get("/api/v1/nodes")
    check("AlwaysDeny", st == 403 and e["message"].endswith("Everything is forbidden."), e)
    equal("but system:masters", a.get("/api/v1/nodes")[0], 200)
    s.stop()


def authz_config(*authorizers):
    return {"kind": "AuthorizationConfiguration", "apiVersion": "apiserver.config.k8s.io/v1", "authorizers": list(authorizers)}


def test_authz_config(s, hook):
    kube = hook.kubeconfig(s, "authz.kubeconfig", "/first")
    kube2 = hook.kubeconfig(s, "authz2.kubeconfig", "/second")
    hook.answer, hook.seen = lambda spec: {"allowed": spec["user"] == "bob"}, []
    node, rbac = {"type": "Node", "name": "node"}, {"type": "RBAC", "name": "rbac"}

    def webhook(name, file, **k):
        return {"type": "Webhook", "name": name, "webhook": dict({
            "timeout": "3s", "subjectAccessReviewVersion": "v1", "failurePolicy": "NoOpinion",
            "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": file}}, **k)}

    cfg = write(s, "authz.yaml", authz_config(webhook("one", kube), node, rbac, webhook("two", kube2, failurePolicy="Deny")))
    s.more = ["--authorization-config", cfg]
    s.start()
    alice, bob = Client(s, token="alicetoken"), Client(s, token="bobtoken")
    equal("first allows", (bob.get("/api/v1/nodes")[0], [q["path"] for q in hook.seen]), (200, ["/first"]))
    equal("none allows", (alice.get("/api/v1/nodes")[0], [q["path"] for q in hook.seen[1:]]), (403, ["/first", "/second"]))
    hook.fail = 10
    st, e = alice.get("/api/v1/pods")
    check("both fail: refused", st == 500 and "out of order" in e["message"], e)
    hook.fail = 0

    def counted(name):
        return {tuple(re.findall('(?:name|decision|result)="(.*?)"', l)): float(l.split()[-1])
                for l in Client(s, cert="admin").raw("GET", "/metrics")[2].decode().split("\n") if l.startswith("apiserver_authorization_" + name + "{")}
    n = counted("webhook_evaluations_total")
    check("asked is counted", n[("one", "success")] == 2 and n[("two", "success")] == 1 and n[("one", "error")] == n[("two", "error")] == 1, n)
    n = counted("decisions_total")
    check("and decided", n[("allowed", "one")] == 1 and n[("denied", "two")] == 1 and counted("webhook_evaluations_fail_open_total") == {("one", "error"): 1}, n)
    # conditions
    conds = [{"expression": "has(request.resourceAttributes) && request.resourceAttributes.namespace != 'kube-system'"},
             {"expression": "!('system:nodes' in request.groups) && request.resourceAttributes.verb in ['get', 'list']"}]
    c = dict(matchConditionSubjectAccessReviewVersion="v1")
    write(s, "authz.yaml", authz_config(node, rbac, webhook("cond", kube, matchConditions=conds, **c)))
    kubes = "/api/v1/namespaces/%s/secrets"
    until("conditions hold", lambda: bob.get(kubes % "default")[0] == 200 and bob.get(kubes % "kube-system")[0] == 403)
    hook.seen.clear()
    equal("do not hold", (bob.get("/api/v1/namespaces/kube-system/pods")[0], bob.raw("GET", "/nothing")[0],
                          bob.delete("/api/v1/namespaces/default/pods/x")[0], hook.seen), (403, 403, 403, []))
    check("kept away is counted", counted("match_condition_exclusions_total")[("cond",)] >= 4, counted("match_condition_exclusions_total"))
    for policy in ("NoOpinion", "Deny"):
        write(s, "authz.yaml", authz_config(node, rbac, webhook("cond", kube, failurePolicy=policy, matchConditions=[
            {"expression": "request.extra['x'][0] == 'y'"}], **c)))
        until("conditions that fail: %s" % policy, lambda: bob.get(kubes % policy.lower())[0] == 500)
    # reload
    write(s, "authz.yaml", authz_config(node, rbac, webhook("three", kube2)))
    until("reloaded", lambda: hook.seen.clear() or bob.get("/api/v1/services")[0] == 200 and [q["path"] for q in hook.seen] == ["/second"])
    log = os.path.join(s.dir, "log")
    for what, bad, words in (
            ("what was there stays", authz_config(rbac), "missing required types: [Node]"),
            ("timeout", authz_config(webhook("w", kube, timeout="0s")), "authorizers[0].timeout: Required value"),
            ("long timeout", authz_config(webhook("w", kube, timeout="31s")), "must be > 0s and <= 30s"),
            ("policy", authz_config(webhook("w", kube, failurePolicy="X")), "authorizers[0].failurePolicy: Unsupported value"),
            ("version", authz_config(webhook("w", kube, subjectAccessReviewVersion="v3")), "authorizers[0].subjectAccessReviewVersion: Unsupported"),
            ("relative", authz_config(webhook("w", "x")), "must be an absolute path"),
            ("nowhere", authz_config(webhook("w", "/nowhere/at/all")), "error loading file"),
            ("type", authz_config({"type": "X", "name": "x"}), "authorizers[0].type: Unsupported value"),
            ("name", authz_config({"type": "RBAC", "name": "x"}), "expected name"),
            ("twice", authz_config(rbac, rbac), "authorizers[1].type: Duplicate value"),
            ("same name", authz_config(webhook("w", kube), webhook("w", kube)), "authorizers[1].name: Duplicate value"),
            ("webhook of RBAC", authz_config(dict(rbac, webhook=webhook("w", kube)["webhook"])), "may only be specified when type=Webhook"),
            ("no webhook", authz_config({"type": "Webhook", "name": "w"}), "required when type=Webhook"),
            ("conditions' version", authz_config(webhook("w", kube, matchConditions=[{"expression": "true"}])),
             "required if match conditions are specified"),
            ("condition", authz_config(webhook("w", kube, matchConditions=[{"expression": "request.bogus == ''"}], **c)), "undefined field 'bogus'"),
            ("condition's type", authz_config(webhook("w", kube, matchConditions=[{"expression": "request.user"}], **c)), "must evaluate to bool but got string"),
            ("same conditions", authz_config(webhook("w", kube, matchConditions=conds + conds, **c)), "matchConditions[2].expression: Duplicate value"),
            ("none", authz_config(), "at least one authorization mode must be defined"),
            ("ABAC", authz_config({"type": "ABAC", "name": "abac"}), "only --authorization-mode has this authorizer")):
        at = os.path.getsize(log)
        write(s, "authz.yaml", bad)
        until("bad file: " + what, lambda: words in open(log).read()[at:])
    equal("the last good one holds", bob.get("/api/v1/secrets")[0], 200)
    at = os.path.getsize(log)
    os.unlink(cfg)
    until("no file", lambda: "reading" in open(log).read()[at:])
    for i in range(5):  # the log is in the same directory: a change of it is none of the file
        write(s, "unrelated", str(i))
        equal("served", bob.get("/api/v1/secrets")[0], 200)
    equal("said once", open(log).read()[at:].count("reading"), 1)
    write(s, "authz.yaml", authz_config(node, rbac))
    until("the file is back", lambda: bob.get("/api/v1/secrets")[0] == 403)
    write(s, "authz.yaml", authz_config({"type": "ABAC", "name": "abac"}))
    s.stop()
    refuses(s, "bad at the start", s.more, "only --authorization-mode has this authorizer")
    refuses(s, "file and flags", s.more + ["--authorization-mode", "RBAC"], "can not be specified when")


# ---- who may what: every resource and verb of discovery, asked for as people who may nothing, something, and all ----

RBAC = "/apis/rbac.authorization.k8s.io/v1/"
BODY = {"create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE", "deletecollection": "DELETE"}
# What a node may do with things that no pod of its own uses: the Node authorizer's answers, and ClusterRole system:node for the rest.
NODE_MAY = {
    ("authentication.k8s.io", "tokenreviews"): "create", ("authorization.k8s.io", "subjectaccessreviews"): "create",
    ("authorization.k8s.io", "localsubjectaccessreviews"): "create", ("", "services"): "get list watch",
    ("", "nodes"): "create update patch", ("", "nodes/status"): "update patch", ("", "events"): "create update patch",
    ("events.k8s.io", "events"): "create update patch", ("", "pods"): "create delete", ("", "pods/status"): "update patch",
    ("", "pods/eviction"): "create", ("", "endpoints"): "get", ("certificates.k8s.io", "certificatesigningrequests"): "create get list watch",
    ("storage.k8s.io", "csidrivers"): "get list watch", ("storage.k8s.io", "csinodes"): "create", ("node.k8s.io", "runtimeclasses"): "get list watch",
    ("resource.k8s.io", "resourceslices"): "create"}


class Rules:
    """RBAC as its documents say, over the objects as they are stored."""

    def __init__(self, a):
        get = lambda p: a.get(RBAC + p)[1]["items"]
        self.roles = {(r["metadata"].get("namespace"), r["metadata"]["name"]): r.get("rules") or [] for r in get("clusterroles") + get("roles")}
        self.bindings = get("clusterrolebindings") + get("rolebindings")

    @staticmethod
    def subject(s, name, groups):
        if s["kind"] == "User":
            return s["name"] == name
        if s["kind"] == "Group":
            return s["name"] in groups
        return name == "system:serviceaccount:%s:%s" % (s.get("namespace"), s["name"])

    @staticmethod
    def rule(r, verb, group, resource, name):
        has = lambda l, v: v in r.get(l, []) or "*" in r.get(l, [])
        sub = resource.partition("/")[2]
        res = r.get("resources", [])
        names = r.get("resourceNames")
        return has("verbs", verb) and has("apiGroups", group) and (resource in res or "*" in res or (sub and "*/" + sub in res)) and (
            not names or name in names)

    def may(self, user, groups, verb, group, resource, ns, name):
        for b in self.bindings:
            where = b["metadata"].get("namespace")
            if where and where != ns:
                continue
            if not any(self.subject(s, user, groups) for s in b.get("subjects") or []):
                continue
            ref = b["roleRef"]
            rules = self.roles.get((None if ref["kind"] == "ClusterRole" else where, ref["name"]), [])
            if any(self.rule(r, verb, group, resource, name) for r in rules):
                return True
        return False


def forms(r, base, ns):
    """For each verb of a resource of discovery a request that does nothing, even where it is allowed: (verb, method, path, body, ctype)."""
    coll = base + ("namespaces/%s/" % ns if ns else "") + r["resource"]
    todo = [(v, "", r["resource"]) for v in r["verbs"]] + [(v, s["subresource"], r["resource"] + "/" + s["subresource"])
                                                           for s in r.get("subresources", []) for v in s["verbs"]]
    for verb, sub, full in todo:
        one = coll + "/no-such-thing" + ("/" + sub if sub else "")
        named = verb in ("get", "update", "patch", "delete") or sub
        path = one if named else coll
        if verb == "list":
            path += "?limit=1"
        elif verb == "watch":
            path += "?watch=true&resourceVersion=nonsense"
        elif verb == "deletecollection":
            path += "?labelSelector=no%3Dsuch&dryRun=All"
        elif verb != "get":
            path += "?dryRun=All"
        body = {"create": "{}", "update": "{}", "patch": "{}"}.get(verb)
        ctype = "application/merge-patch+json" if verb == "patch" else "application/json"
        yield verb, full, BODY.get(verb, "GET"), path, body, ctype, "no-such-thing" if named else ""


def test_matrix(s):
    write(s, "tokens.csv", 'alicetoken,alice,1,"dev"\nbobtoken,bob,2\nreadertoken,reader,3\n')
    s.more = []
    s.start()
    a = Client(s, cert="admin")
    a.post("/api/v1/namespaces/default/serviceaccounts", {"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": "default"}})
    a.post(RBAC + "namespaces/default/rolebindings", {
        "kind": "RoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "reader"}]})
    a.post(RBAC + "namespaces/default/roles", {
        "kind": "Role", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "odd"}, "rules": [
            {"verbs": ["get", "delete"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["no-such-thing"]},
            {"verbs": ["*"], "apiGroups": ["apps"], "resources": ["*/scale"]}]})
    a.post(RBAC + "namespaces/default/rolebindings", {
        "kind": "RoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "odd"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "odd"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "bob"}]})
    rbac = Rules(a)
    auth = ["system:authenticated"]
    who = {"anonymous": (Client(s), "system:anonymous", ["system:unauthenticated"]), "authenticated": (Client(s, token="bobtoken"), "bob", auth),
           "namespaced reader": (Client(s, token="readertoken"), "reader", auth),
           "node": (Client(s, cert="node"), "system:node:n1", ["system:nodes"] + auth), "admin": (a, "admin", ["system:masters"] + auth)}
    accept = {"Accept": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"}
    wrong, n = [], 0
    for g in a.get("/api", headers=accept)[1]["items"] + a.get("/apis", headers=accept)[1]["items"]:
        group = g["metadata"].get("name", "")
        for v in g["versions"]:
            base = "/apis/%s/%s/" % (group, v["version"]) if group else "/api/v1/"
            for r in v["resources"]:
                for ns in (("default", "kube-system") if r["scope"] == "Namespaced" else ("",)):
                    for verb, full, method, path, body, ctype, name in forms(r, base, ns):
                        for kind, (c, user, groups) in who.items():
                            want = "system:masters" in groups or rbac.may(user, groups, verb, group, full, ns, name)
                            if kind == "node":
                                want = want or verb in NODE_MAY.get((group, full), "").split()
                            st, h, data = c.raw(method, path, body, {"Content-Type": ctype} if body else None)
                            refused = st == 403 and b"cannot %s resource" % verb.encode() in data
                            n += 1
                            if refused == want or st == 401:
                                wrong.append((kind, verb, group, full, ns, st, want))
    check("authorization matrix of %d requests" % n, not wrong and n > 3000, (len(wrong), wrong[:12]))
    paths = {"/healthz": True, "/livez": True, "/readyz": True, "/version": True, "/metrics": False, "/api": "auth", "/apis": "auth", "/openapi/v2": "auth",
             "/openapi/v3": "auth", "/openid/v1/jwks": False, "/logs": False, "/configz": False}
    for p, want in paths.items():
        for kind, (c, user, groups) in who.items():
            ok = want is True or "system:masters" in groups or (want == "auth" and "system:authenticated" in groups)
            st = c.raw("GET", p)[0]
            check("%s for %s" % (p, kind), (st != 403) == ok, st)
    s.stop()


def test_node(s):
    """What a node may because of the pods it runs."""
    s.more = []
    s.start()
    a, node = Client(s, cert="admin"), Client(s, cert="node")
    ns = "/api/v1/namespaces/default/"
    a.post(ns + "serviceaccounts", {"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": "default"}})
    a.post(ns + "serviceaccounts", {"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": "other"}})
    for x in ("vol", "env", "from", "pull", "pvsecret", "free", "mirror", "projected"):
        a.post(ns + "secrets", {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": x}, "stringData": {"a": "b"}})
        a.post(ns + "configmaps", t.cm(x))
    claim = {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}
    a.post(ns + "persistentvolumeclaims", dict(claim, metadata={"name": "c"}, spec=dict(claim["spec"], volumeName="pv", storageClassName="")))
    a.post(ns + "persistentvolumeclaims", dict(claim, metadata={"name": "liar"}, spec=dict(claim["spec"], volumeName="foreign", storageClassName="")))
    for name, ref in (("pv", "c"), ("foreign", "elsewhere")):
        a.post("/api/v1/persistentvolumes", {"kind": "PersistentVolume", "apiVersion": "v1", "metadata": {"name": name}, "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "claimRef": {"namespace": "default", "name": ref},
            "csi": {"driver": "d.example.com", "volumeHandle": "h", "nodePublishSecretRef": {"name": "pvsecret", "namespace": "default"},
                    "controllerPublishSecretRef": {"name": "free", "namespace": "default"}}}})
    spec = dict(nodeName="n1", imagePullSecrets=[{"name": "pull"}], volumes=[
        {"name": "v", "secret": {"secretName": "vol"}}, {"name": "c", "persistentVolumeClaim": {"claimName": "c"}},
        {"name": "l", "persistentVolumeClaim": {"claimName": "liar"}},
        {"name": "p", "projected": {"sources": [{"secret": {"name": "projected"}}, {"configMap": {"name": "projected"}}]}}],
        containers=[{"name": "c", "image": "x", "envFrom": [{"secretRef": {"name": "from"}}, {"configMapRef": {"name": "from"}}], "env": [
            {"name": "E", "valueFrom": {"secretKeyRef": {"name": "env", "key": "a"}}}, {"name": "F", "valueFrom": {"configMapKeyRef": {"name": "env", "key": "a"}}}]}])
    st, e = a.post(t.PODS, t.pod("mine", **spec))
    equal("a pod of the node", st, 201)
    a.post(t.PODS, t.pod("theirs", nodeName="n2"))
    m = t.pod("mir", nodeName="n1")
    m["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
    m["spec"]["volumes"] = [{"name": "v", "configMap": {"name": "mirror"}}]
    a.post(t.PODS, m)
    for path, want in (
            ("secrets/vol", 200), ("secrets/env", 200), ("secrets/from", 200), ("secrets/pull", 200), ("secrets/projected", 200), ("secrets/pvsecret", 200),
            ("secrets/free", 403), ("configmaps/mirror", 403), ("configmaps/env", 200), ("configmaps/from", 200), ("configmaps/projected", 200),
            ("configmaps/free", 403), ("persistentvolumeclaims/c", 200), ("persistentvolumeclaims/none", 403), ("serviceaccounts/default", 200),
            ("serviceaccounts/other", 403), ("pods/mine", 200), ("pods/theirs", 403), ("secrets", 403), ("pods", 403),
            ("secrets?fieldSelector=metadata.name%3Dvol", 200), ("secrets?fieldSelector=metadata.name%3Dfree", 403),
            ("pods?fieldSelector=spec.nodeName%3Dn1", 200), ("pods?fieldSelector=spec.nodeName%3Dn2", 403),
            ("pods?fieldSelector=spec.nodeName%21%3Dn1", 403)):
        equal("node: " + path, node.get(ns + path)[0], want)
    for path, want in (("/api/v1/persistentvolumes/pv", 200), ("/api/v1/persistentvolumes/foreign", 403), ("/api/v1/nodes/n2", 403),
                       ("/api/v1/nodes", 403), ("/api/v1/nodes/n1", 404), ("/api/v1/nodes?fieldSelector=metadata.name%3Dn1", 200),
                       ("/apis/resource.k8s.io/v1/resourceslices", 403), ("/apis/resource.k8s.io/v1/resourceslices?fieldSelector=spec.nodeName%3Dn1", 200),
                       ("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1", 404),
                       ("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n2", 403)):
        equal("node: " + path, node.get(path)[0], want)
    req = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {"boundObjectRef": {
        "kind": "Pod", "apiVersion": "v1", "name": "mine", "uid": a.get(t.PODS + "/mine")[1]["metadata"]["uid"]}}}
    equal("token of its pod", node.post(ns + "serviceaccounts/default/token", req)[0], 201)
    st, e = node.post(ns + "serviceaccounts/other/token", req)
    check("of another account", st == 403 and e["message"].endswith("no relationship found between node 'n1' and this object"), e)
    st, e = node.get(ns + "pods")
    check("reason", e["message"].endswith("can only list/watch pods with spec.nodeName field selector"), e)
    restricted(s, a, node, ns)
    s.stop()


def restricted(s, a, node, ns):
    """What admission leaves of that."""
    def refused(what, answer, want):
        st, e = answer
        check("NodeRestriction: " + what, st == 403 and e["message"].endswith(" is forbidden: " + want), (st, e))

    token = lambda **ref: {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": dict(
        {"boundObjectRef": ref} if ref else {}, **{"audiences": ref.pop("audiences")} if "audiences" in ref else {})}
    sa = ns + "serviceaccounts/default/token"
    uid = a.get(t.PODS + "/mine")[1]["metadata"]["uid"]
    mine = {"kind": "Pod", "apiVersion": "v1", "name": "mine", "uid": uid}
    refused("token of no pod", node.post(sa, token()), "node requested token not bound to a pod")
    refused("token of a node", node.post(sa, token(kind="Node", apiVersion="v1", name="n1")), "node requested token not bound to a pod")
    refused("token without uid", node.post(sa, token(kind="Pod", apiVersion="v1", name="mine")), "node requested token with a pod binding without a uid")
    refused("token of an old pod", node.post(sa, token(**dict(mine, uid="u"))), "the UID in the bound object reference (u) does not match the UID in "
            "record. The object might have been deleted and then recreated")
    theirs = a.get(t.PODS + "/theirs")[1]["metadata"]["uid"]
    refused("token of another node's pod", node.post(sa, token(**dict(mine, name="theirs", uid=theirs))),
            "node requested token bound to a pod scheduled on a different node")
    equal("token of no such pod", node.post(sa, token(**dict(mine, name="none")))[0], 404)
    refused("audiences", node.post(sa, token(audiences=["a", "b"], **mine)), "node may only request 0 or 1 audiences")
    # two of its volumes' claims are bound to CSI volumes of a driver that is not there
    st, e = node.post(sa, token(audiences=["vault"], **mine))
    check("audience", st == 403 and 'error validating audience "vault": csidriver.storage.k8s.io "d.example.com" not found' in e["message"], e)
    a.post("/apis/storage.k8s.io/v1/csidrivers", {"kind": "CSIDriver", "apiVersion": "storage.k8s.io/v1", "metadata": {"name": "d.example.com"},
                                                  "spec": {"tokenRequests": [{"audience": "csi"}]}})
    refused("audience of no volume", node.post(sa, token(audiences=["vault"], **mine)),
            'audience "vault" not found in pod spec volume, system:node:n1 is not authorized to request tokens for this audience')
    equal("audience of a driver", node.post(sa, token(audiences=["csi"], **mine))[0], 201)
    rbac = "/apis/rbac.authorization.k8s.io/v1/"
    a.post(rbac + "clusterroles", {"kind": "ClusterRole", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "vault"}, "rules": [
        {"apiGroups": [""], "resources": ["vault"], "resourceNames": ["default"], "verbs": ["request-serviceaccounts-token-audience"]}]})
    a.post(rbac + "clusterrolebindings", {"kind": "ClusterRoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "vault"},
                                          "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "vault"},
                                          "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "system:nodes"}]})
    equal("audience that a role gives", node.post(sa, token(audiences=["vault"], **mine))[0], 201)
    # nodes
    n1 = lambda **labels: {"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n1", "labels": labels}}
    st, e = node.post("/api/v1/nodes", n1(**{"x.node-restriction.kubernetes.io/a": "1", "b.k8s.io/x": "1", "kubernetes.io/os": "linux", "own": "1"}))
    refused("labels", (st, e), 'node "n1" is not allowed to set the following labels: b.k8s.io/x, x.node-restriction.kubernetes.io/a')
    st, n = node.post("/api/v1/nodes", n1(**{"kubernetes.io/os": "linux", "x.kubelet.kubernetes.io/a": "1", "own": "1"}))
    equal("registers", st, 201)
    refused("another node", node.post("/api/v1/nodes", {"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n2"}}),
            'node "n1" is not allowed to modify node "n2"')
    path = "/api/v1/nodes/n1"
    for what, patch, want in (
            ("taints", {"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}, 'node "n1" is not allowed to modify taints'),
            ("owners", {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "x", "uid": "u"}]}},
             'node "n1" is not allowed to modify ownerReferences'),
            ("label", {"metadata": {"labels": {"z.kubernetes.io/x": "1"}}}, "is not allowed to modify labels: z.kubernetes.io/x")):
        refused(what, node.patch(path, patch), want)
    a.patch(path, {"metadata": {"labels": {"node-role.kubernetes.io/x": ""}}})
    refused("labels taken away", node.patch(path, {"metadata": {"labels": {"node-role.kubernetes.io/x": None}}}),
            "is not allowed to modify labels: node-role.kubernetes.io/x")
    equal("its own", node.patch(path, {"metadata": {"labels": {"own": "2", "node.kubernetes.io/y": "1"}}})[0], 200)
    equal("status", node.patch(path + "/status", {"status": {"phase": "Running"}})[0], 200)
    # mirror pods
    owner = {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": n["metadata"]["uid"], "controller": True}

    def mirror(owners=(owner,), **spec):
        p = t.pod("mir2", **dict({"nodeName": "n1"}, **spec))
        p["metadata"].update(annotations={"kubernetes.io/config.mirror": "x"}, ownerReferences=list(owners))
        return node.post(t.PODS + "?dryRun=All", p)

    equal("mirror pod", mirror()[0], 201)
    only = 'node "n1" can only create pods with '
    refused("no mirror", node.post(t.PODS, t.pod("plain", nodeName="n1")),
            'pod does not have "kubernetes.io/config.mirror" annotation, node "n1" can only create mirror pods')
    for what, answer, want in (
            ("elsewhere", mirror(nodeName="n2"), only + "spec.nodeName set to itself"),
            ("no owner", mirror([]), only + "an owner reference set to itself"),
            ("two owners", mirror([owner, dict(owner, uid="x", controller=False)]), only + "a single owner reference set to itself"),
            ("no controller", mirror([dict(owner, controller=False)]), only + "a controller owner reference set to itself"),
            ("blocking", mirror([dict(owner, blockOwnerDeletion=True)]), 'node "n1" must not set blockOwnerDeletion on an owner reference'),
            ("uid", mirror([dict(owner, uid="u")]), "node n1 UID mismatch: expected u got " + n["metadata"]["uid"]),
            ("secret", mirror(imagePullSecrets=[{"name": "x"}]), "a mirror pod may not reference secrets"),
            ("configmap", mirror(volumes=[{"name": "v", "configMap": {"name": "x"}}]), 'node "n1" can not create pods that reference configmaps'),
            ("claim", mirror(volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "x"}}]),
             'node "n1" can not create pods that reference persistentvolumeclaims'),
            ("token", mirror(volumes=[{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]),
             "a mirror pod may not use ServiceAccountToken volume projections")):
        refused("mirror: " + what, answer, want)
    # its pods
    refused("labels by status", node.patch(t.PODS + "/mine/status", {"metadata": {"labels": {"a": "b"}}}), 'node "n1" cannot update labels through pod status')
    refused("claims by status", node.patch(t.PODS + "/mine/status", {"status": {"resourceClaimStatuses": [{"name": "x"}]}}),
            'node "n1" cannot update resource claim statues')
    equal("status of its pod", node.patch(t.PODS + "/mine/status", {"status": {"message": "x"}})[0], 200)
    refused("another's pod", node.delete(t.PODS + "/theirs"), 'node "n1" can only delete pods with spec.nodeName set to itself')
    evict = lambda name: node.post(t.PODS + "/%s/eviction" % name, {"kind": "Eviction", "apiVersion": "policy/v1", "metadata": {"name": name}})
    refused("another's eviction", evict("theirs"), "node n1 can only evict pods with spec.nodeName set to itself")
    equal("eviction", evict("mir")[0], 201)
    refused("claims", node.patch(ns + "persistentvolumeclaims/c/status", {"metadata": {"labels": {"a": "b"}}}),
            'node "n1" is not allowed to update fields other than status.quantity and status.conditions')
    equal("status of a claim", node.patch(ns + "persistentvolumeclaims/c/status", {"status": {"capacity": {"storage": "2Gi"}}})[0], 200)
    csr = lambda cn, signer: node.post("/apis/certificates.k8s.io/v1/certificatesigningrequests", {
        "kind": "CertificateSigningRequest", "apiVersion": "certificates.k8s.io/v1", "metadata": {"generateName": "c"},
        "spec": {"request": base64.b64encode(request_pem(s, cn)).decode(), "signerName": signer,
                 "usages": ["digital signature", "server auth" if "serving" in signer else "client auth"]}})
    refused("another's certificate", csr("system:node:n2", "kubernetes.io/kubelet-serving"), "can only create a node CSR with CN=system:node:n1")
    equal("its certificate", csr("system:node:n1", "kubernetes.io/kubelet-serving")[0], 201)
    equal("of another signer", csr("system:node:n2", "example.com/x")[0], 201)


def request_pem(s, cn):
    key, out = os.path.join(s.dir, "csr.key"), os.path.join(s.dir, "csr.pem")
    subprocess.run(["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", out,
                    "-subj", "/O=system:nodes/CN=" + cn], check=True, capture_output=True)
    with open(out, "rb") as f:
        return f.read()


def test_impersonate(s):
    write(s, "audit.yaml", "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]")
    s.more = ["--audit-log-path", "audit.log", "--audit-policy-file", "audit.yaml"]
    s.start()
    a = Client(s, cert="admin")
    n = 0

    def role(subject, *rules, ns=None):
        nonlocal n
        n += 1
        kind = "Role" if ns else "ClusterRole"
        base = RBAC + ("namespaces/%s/" % ns if ns else "") + kind.lower()
        a.post(base + "s", {"kind": kind, "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "r%d" % n}, "rules": [
            {"verbs": v.split(","), "apiGroups": [g], "resources": [r], **({"resourceNames": names} if names else {})} for v, g, r, *names in rules]})
        a.post(base + "bindings", {"kind": kind + "Binding", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "r%d" % n},
                                   "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": "r%d" % n}, "subjects": [
                                       {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": subject}]})

    def act(token, path=None, **h):
        c = Client(s, token=token, headers={"Impersonate-" + k.replace("_", "-"): v for k, v in h.items()})
        return c.get(path)[0] if path else whoami(c)

    st, e = Client(s, token="alicetoken", headers={"Impersonate-User": "bob"}).get(t.CM)
    equal("not without a right", (st, e["message"]), (403, 'configmaps is forbidden: User "alice" cannot impersonate-on:user-info:list resource "configmaps" '
                                                           'in API group "" in the namespace "default"'))
    st, e = Client(s, token="alicetoken", headers={"Impersonate-Group": "g"}).get(t.CM)
    equal("a user is needed", (st, e["message"]), (400, 'requested &user.DefaultInfo{Name:"", UID:"", Groups:[]string{"g"}, '
                                                        'Extra:map[string][]string(nil)} without impersonating a user name'))
    # the older mode
    role("alice", ("impersonate", "", "users", "carol"), ("impersonate", "", "groups", "g1", "g2"), ("impersonate", "authentication.k8s.io", "uids", "u1"),
         ("impersonate", "authentication.k8s.io", "userextras/scopes", "view"), ("impersonate", "", "serviceaccounts", "sa"))
    u = act("alicetoken", User="carol", Group="g1", Uid="u1", Extra_Scopes="view")
    equal("everything of a user", (u["username"], u["groups"], u["uid"], u["extra"]), ("carol", ["g1", "system:authenticated"], "u1", {"scopes": ["view"]}))
    for what, h in (("user", dict(User="dave")), ("group", dict(User="carol", Group="g9")), ("uid", dict(User="carol", Uid="u2")),
                    ("extra", dict(User="carol", Extra_Scopes="edit")), ("extra key", dict(User="carol", Extra_Other="view")),
                    ("masters", dict(User="carol", Group="system:masters"))):
        equal("another " + what, act("alicetoken", **h), 403)
    # the mode that worked last is the one whose refusal is told
    st, e = Client(s, token="alicetoken", headers={"Impersonate-User": "<dave>"}).get(t.CM)
    equal("refusal of that mode", (st, e["message"], e["details"]), (403, 'users "<dave>" is forbidden: User "alice" cannot impersonate resource "users" '
                                                                          'in API group "" at the cluster scope', {"name": "<dave>", "kind": "users"}))
    st, e = Client(s, token="alicetoken", headers={"Impersonate-User": "carol", "Impersonate-Group": "a&b"}).get("/x<y>")
    equal("no HTML", e["message"], 'groups "a&b" is forbidden: User "alice" cannot impersonate resource "groups" in API group "" at the cluster scope')
    u = act("alicetoken", User="system:serviceaccount:default:sa")
    equal("a service account", (u["username"], u["groups"]), ("system:serviceaccount:default:sa", [
        "system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]))
    equal("another", act("alicetoken", User="system:serviceaccount:default:sb"), 403)
    a.post(RBAC + "clusterrolebindings", {"kind": "ClusterRoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "anyone"},
                                          "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:basic-user"},
                                          "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "system:unauthenticated"}]})
    u = whoami(Client(s, cert="admin", headers={"Impersonate-User": "system:anonymous"}))
    equal("anonymous", u["groups"], ["system:unauthenticated"])
    u = whoami(Client(s, cert="admin", headers={"Impersonate-User": "x", "Impersonate-Group": "system:unauthenticated"}))
    equal("not authenticated then", u["groups"], ["system:unauthenticated"])
    u = whoami(Client(s, cert="admin", headers={"Impersonate-User": "x", "Impersonate-Extra-example.com%2fkey": "v"}))
    equal("escaped keys", u["extra"], {"example.com/key": ["v"]})
    a.delete(RBAC + "clusterrolebindings/anyone")
    # constrained: to be somebody, and only for this
    role("bob", ("impersonate:user-info", "authentication.k8s.io", "users", "erin"), ("impersonate:user-info", "authentication.k8s.io", "groups", "team"))
    role("bob", ("impersonate-on:user-info:list", "", "configmaps"), ns="default")
    role("erin", ("list,get", "", "configmaps"))
    equal("this request", act("bobtoken", t.CM, User="erin"), 200)
    equal("with a group", act("bobtoken", t.CM, User="erin", Group="team"), 200)
    equal("no other request", act("bobtoken", t.CM + "/x", User="erin"), 403)
    equal("nowhere else", act("bobtoken", "/api/v1/namespaces/kube-system/configmaps", User="erin"), 403)
    equal("nobody else", act("bobtoken", t.CM, User="frank"), 403)
    st, e = Client(s, token="bobtoken", headers={"Impersonate-User": "erin", "Impersonate-Group": "system:masters"}).get(t.CM)
    check("never masters", st == 403 and "impersonating the system:masters group is not allowed" in e["message"], e)
    role("bob", ("impersonate:serviceaccount", "authentication.k8s.io", "serviceaccounts", "sc"), ns="default")
    role("bob", ("impersonate-on:serviceaccount:list", "", "configmaps"), ("impersonate-on:arbitrary-node:list", "", "pods"),
         ("impersonate:arbitrary-node", "authentication.k8s.io", "nodes", "n7"))
    equal("constrained service account", act("bobtoken", t.CM, User="system:serviceaccount:default:sc"), 403)
    role("system:serviceaccount:default:sc", ("list", "", "configmaps"))
    equal("with its own rights", act("bobtoken", t.CM, User="system:serviceaccount:default:sc"), 200)
    equal("a node", act("bobtoken", t.PODS + "?fieldSelector=spec.nodeName%3Dn7", User="system:node:n7"), 200)
    equal("another node", act("bobtoken", t.PODS + "?fieldSelector=spec.nodeName%3Dn8", User="system:node:n8"), 403)
    # a pod's service account as the node that the pod runs on
    ns = "/api/v1/namespaces/default/"
    for x in ("default", "agent"):
        a.post(ns + "serviceaccounts", {"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": x}})
    a.post("/api/v1/nodes", {"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n1"}})
    st, p = a.post(t.PODS, t.pod("agent", nodeName="n1", serviceAccountName="agent"))
    st, r = a.post(ns + "serviceaccounts/agent/token", {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {"boundObjectRef": {
        "kind": "Pod", "apiVersion": "v1", "name": "agent", "uid": p["metadata"]["uid"]}}})
    role("system:serviceaccount:default:agent", ("impersonate:associated-node", "authentication.k8s.io", "nodes", "*"),
         ("impersonate-on:associated-node:list", "", "pods"))
    role("system:serviceaccount:default:agent", ("impersonate:associated-node", "authentication.k8s.io", "nodes"))
    tok = r["status"]["token"]
    equal("its own node", act(tok, t.PODS + "?fieldSelector=spec.nodeName%3Dn1", User="system:node:n1"), 200)
    equal("no other node", act(tok, t.PODS + "?fieldSelector=spec.nodeName%3Dn2", User="system:node:n2"), 403)
    until("audited", lambda: any(json.loads(l).get("authenticationMetadata") == {"impersonationConstraint": "impersonate:associated-node"}
                                 for l in open(os.path.join(s.dir, "audit.log"))))
    s.stop()


def test_front_proxy(s):
    s.sh("openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", "front.key")
    s.sh("openssl", "req", "-x509", "-new", "-key", "front.key", "-subj", "/CN=front-ca", "-days", "2", "-out", "front.crt")
    for name, cn in (("proxy", "front"), ("stranger", "stranger")):
        s.sh("openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", name + ".key")
        s.sh("openssl", "req", "-new", "-key", name + ".key", "-subj", "/CN=" + cn, "-out", name + ".csr")
        with open(os.path.join(s.dir, "client.ext"), "w") as f:
            f.write("extendedKeyUsage=clientAuth")
        s.sh("openssl", "x509", "-req", "-in", name + ".csr", "-CA", "front.crt", "-CAkey", "front.key", "-CAcreateserial", "-days", "2",
             "-extfile", "client.ext", "-out", name + ".crt")
    refuses(s, "any of the clients", ["--requestheader-client-ca-file", "ca.crt"], "overlapping certificates")
    refuses(s, "no name", ["--requestheader-client-ca-file", "front.crt", "--requestheader-username-headers", "X-Remote-User,"], "empty value in")
    s.more = ["--requestheader-client-ca-file", "front.crt", "--requestheader-allowed-names", "front,other",
              "--requestheader-username-headers", "X-Remote-User", "--requestheader-group-headers", "X-Remote-Group",
              "--requestheader-uid-headers", "X-Remote-Uid", "--requestheader-extra-headers-prefix", "X-Remote-Extra-"]
    s.start()
    h = {"X-Remote-User": "zoe", "X-Remote-Group": "g", "X-Remote-Uid": "u", "X-Remote-Extra-Example.com%2fScope": "s"}
    u = whoami(Client(s, cert="proxy", headers=h))
    equal("the proxy's word", (u["username"], u["groups"], u["uid"], u["extra"]), ("zoe", ["g", "system:authenticated"], "u", {"example.com/scope": ["s"]}))
    equal("another name", whoami(Client(s, cert="stranger", headers=h)), 401)
    equal("without a user", whoami(Client(s, cert="proxy")), 401)
    equal("headers of a client", whoami(Client(s, token="alicetoken", headers=h))["username"], "alice")
    equal("of a client with a certificate", whoami(Client(s, cert="admin", headers=h))["username"], "admin")
    equal("of nobody", whoami(Client(s, headers=h)), 403)
    trusted_told(s)
    s.stop()


def trusted_told(s):
    """kube-system/extension-apiserver-authentication: what was trusted and what is, also after the files have changed."""
    a, path = Client(s, cert="admin"), "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"

    def told(key):
        st, c = a.get(path)
        return re.findall("-----BEGIN.*?-----END[^\n]*\n", c["data"][key], re.S) if st == 200 else None

    def text(name):
        with open(os.path.join(s.dir, name)) as f:
            return f.read()
    old = text("ca.crt")
    equal("at first", (told("client-ca-file"), told("requestheader-client-ca-file")), ([old], [text("front.crt")]))
    s.sh("openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", "more.key")
    s.sh("openssl", "req", "-x509", "-new", "-key", "more.key", "-subj", "/CN=more", "-days", "2", "-out", "more.crt")
    with open(os.path.join(s.dir, "ca.crt"), "w") as f:
        f.write(text("more.crt") + old)
    until("another CA", lambda: told("client-ca-file") == [old, text("more.crt")])
    with open(os.path.join(s.dir, "ca.crt"), "w") as f:
        f.write(old)
    a.patch(path, {"data": {"requestheader-allowed-names": '["others"]', "x": "y"}})
    until("names of others stay", lambda: json.loads(a.get(path)[1]["data"]["requestheader-allowed-names"]) == ["others", "front", "other"])
    check("what is none of it goes", "x" not in a.get(path)[1]["data"])
    equal("a CA stays", told("client-ca-file"), [old, text("more.crt")])
    a.delete(path)
    until("made again", lambda: told("client-ca-file") == [old])


def test_flags(s):
    """What flags of authentication may not say."""
    for what, flags, words in (
            ("two same issuers", ["--service-account-issuer", "https://a", "--service-account-issuer", "https://a"], "already specified"),
            ("no URL", ["--service-account-issuer", "http://x:y:z"], "not a valid URL"),
            ("an empty one", ["--service-account-issuer", ""], "should not be an empty string"),
            ("too short", ["--service-account-max-token-expiration", "30m"], "between 1 hour and 2^32 seconds"),
            ("plain http", ["--service-account-jwks-uri", "http://x"], "requires https scheme"),
            ("not the usual header", ["--requestheader-uid-headers", "X-Uid"], "X-Remote-Uid")):
        refuses(s, what, flags, words)
    # tokens of every issuer are good, the first one's are made, and all are audiences
    s.more = ["--service-account-issuer", "https://one", "--service-account-issuer", "https://two"]
    s.start()
    a = Client(s, cert="admin")
    a.post("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
    st, r = a.post("/api/v1/namespaces/default/serviceaccounts/default/token", {})
    equal("made by the first, for both", (st, r["spec"]["audiences"]), (201, ["https://one", "https://two"]))
    equal("and taken", whoami(Client(s, token=r["status"]["token"]))["username"], "system:serviceaccount:default:default")
    s.stop()
    s.more = ["--service-account-issuer", "https://three,four", "--service-account-issuer", "https://one"]
    s.start()
    equal("taken by the next server", whoami(Client(s, token=r["status"]["token"]))["username"], "system:serviceaccount:default:default")
    st, r = a.post("/api/v1/namespaces/default/serviceaccounts/default/token", {})
    equal("a comma is part of an issuer", (st, r["spec"]["audiences"]), (201, ["https://three,four", "https://one"]))
    s.stop()
    # keys: what is none is passed over, but a file has one at least; a key twice is told of twice
    for name, curve in (("p521", "secp521r1"), ("k1", "secp256k1")):
        s.sh("openssl", "ecparam", "-genkey", "-name", curve, "-noout", "-out", name + ".key")
        s.sh("openssl", "ec", "-in", name + ".key", "-pubout", "-out", name + ".pub")
    s.sh("openssl", "pkcs8", "-topk8", "-nocrypt", "-in", "p521.key", "-out", "p521.pk8")
    s.sh("openssl", "ec", "-in", "p521.key", "-aes128", "-passout", "pass:x", "-out", "locked.key")
    write(s, "junk.pem", "nothing\n")
    for f in ("junk.pem", "k1.pub", "p521.pk8", "locked.key"):
        refuses(s, f, ["--service-account-key-file", f], "holds no RSA or EC key")
    refuses(s, "a locked key", ["--service-account-signing-key-file", "locked.key"], "holds no RSA or EC private key")
    write(s, "mixed,more.pem", open(os.path.join(s.dir, "k1.pub")).read() + open(os.path.join(s.dir, "p521.pub")).read() * 2)
    s.more = ["--service-account-key-file", "mixed,more.pem"]
    s.start()
    a = Client(s, cert="admin")
    equal("two are told of", [k["alg"] for k in a.get("/openid/v1/jwks")[1]["keys"]][-2:], ["ES512", "ES512"])
    equal("their algorithm too", "ES512" in a.get("/.well-known/openid-configuration")[1]["id_token_signing_alg_values_supported"], True)
    s.stop()


def test_policy_repaired(s):
    """At a start the default roles and bindings get what they lack; what they have beyond, and what opted out, stays."""
    s.more = []
    s.start()
    a, rbac, auto = Client(s, cert="admin"), "/apis/rbac.authorization.k8s.io/v1/", "rbac.authorization.kubernetes.io/autoupdate"
    patch = lambda path, v: equal("patch " + path, a.patch(rbac + path, v)[0], 200)
    extra = {"apiGroups": ["x"], "resources": ["y"], "verbs": ["get"]}
    patch("clusterroles/system:basic-user", {"rules": [extra]})
    patch("clusterroles/system:discovery", {"rules": [], "metadata": {"annotations": {auto: "false"}}})
    patch("clusterroles/system:kube-dns", {"metadata": {"labels": None, "annotations": None}})
    patch("clusterroles/view", {"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}})
    patch("clusterroles/cluster-admin", {"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}})
    patch("clusterrolebindings/system:basic-user", {"subjects": [{"kind": "User", "name": "x"}]})
    equal("deleted", a.delete(rbac + "clusterrolebindings/system:kube-dns")[0], 200)
    equal("bound to another", a.post(rbac + "clusterrolebindings", {"metadata": {"name": "system:kube-dns"}, "roleRef": {
        "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}})[0], 201)
    s.stop()
    s.start()
    a = Client(s, cert="admin")
    get = lambda path: a.get(rbac + path)[1]
    equal("single rights that it lacked", [(r["resources"], r["verbs"]) for r in get("clusterroles/system:basic-user")["rules"]],
          [(["y"], ["get"]), (["selfsubjectaccessreviews"], ["create"]), (["selfsubjectrulesreviews"], ["create"]),
           (["selfsubjectreviews"], ["create"])])
    equal("opted out", get("clusterroles/system:discovery").get("rules") or [], [])
    m = get("clusterroles/system:kube-dns")["metadata"]
    equal("labels and annotations", (m["labels"], m["annotations"]), ({"kubernetes.io/bootstrapping": "rbac-defaults"}, {auto: "true"}))
    equal("what it collects", [x["matchLabels"] for x in get("clusterroles/view")["aggregationRule"]["clusterRoleSelectors"]],
          [{"a": "b"}, {"rbac.authorization.k8s.io/aggregate-to-view": "true"}])
    equal("nothing to collect", get("clusterroles/cluster-admin").get("aggregationRule"), None)
    equal("subjects", [x["name"] for x in get("clusterrolebindings/system:basic-user")["subjects"]], ["x", "system:authenticated"])
    equal("the role it binds", get("clusterrolebindings/system:kube-dns")["roleRef"]["name"], "system:kube-dns")
    # for the next start to mend
    patch("clusterroles/system:discovery", {"metadata": {"annotations": {auto: "true"}}})
    patch("clusterroles/view", {"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}}]}})
    s.stop()


def prepare(s):
    return {"idp": Issuer(s), "hook": Hook(s)}


def test_abac(s):
    v1 = {"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy"}
    line = lambda **k: json.dumps(dict(v1, spec=k)) + "\n"
    write(s, "abac.jsonl", "# comments and empty lines\n\n" +
          line(user="alice", namespace="default", resource="configmaps", apiGroup="", readonly=True) +
          line(group="system:authenticated", nonResourcePath="/version*") +
          line(user="bob", namespace="*", resource="*", apiGroup="apps") +
          json.dumps({"user": "bob", "resource": "secrets", "namespace": "old", "readonly": True}) + "\n")
    s.more = ["--authorization-mode", "ABAC", "--authorization-policy-file", "abac.jsonl"]
    s.start()
    alice, bob = Client(s, token="alicetoken"), Client(s, token="bobtoken")
    maps = "/api/v1/namespaces/%s/configmaps"
    equal("reads", (alice.get(maps % "default")[0], alice.get(maps % "kube-system")[0], bob.get(maps % "default")[0]), (200, 403, 403))
    st, e = alice.post(maps % "default", {"metadata": {"name": "x"}})
    check("and does not write", st == 403 and "No policy matched." in e["message"], e)
    equal("a group of another API", (bob.get("/apis/apps/v1/deployments")[0], alice.get("/apis/apps/v1/deployments")[0]), (200, 403))
    equal("paths", (alice.raw("GET", "/version")[0], alice.raw("GET", "/version/x")[0], alice.raw("GET", "/healthz")[0]), (200, 404, 403))
    equal("a line without version", (bob.get("/api/v1/namespaces/old/secrets")[0], bob.get("/api/v1/namespaces/default/secrets")[0]), (200, 403))
    self_rules = {"kind": "SelfSubjectRulesReview", "apiVersion": "authorization.k8s.io/v1", "spec": {"namespace": "default"}}
    admin = Client(s, cert="admin")
    st, r = admin.post("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", self_rules)
    equal("rules", [x for x in r["status"]["nonResourceRules"]] if st == 201 else st, [])
    s.stop()
    write(s, "abac.jsonl", line(user="alice") + "{\n")
    refuses(s, "not JSON", s.more, "abac.jsonl: line 2")


def stop(have):
    """Each test starts the server itself; one that failed may have left it running."""
    if have["s"].proc and have["s"].proc.poll() is None:
        have["s"].stop()


if __name__ == "__main__":
    suite("access", prepare, (test_static_tokens, test_flags, test_policy_repaired, test_bootstrap, test_anonymous, test_oidc_flags, test_oidc_config, test_oidc_expressions,
                              test_token_webhook, test_authz_webhook, test_authz_config, test_abac, test_node, test_impersonate, test_front_proxy,
                              test_matrix), stop)
