#!/usr/bin/env python3
"""Who may do what: authentication and authorization of a real server with other flags than apiserver_test.py has.

Usage: access_test.py PATH-OF-kube-apiserver. Prints one line a failed check and "N passed, N failed".
"""
import base64, json, os, shutil, sys, tempfile, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import apiserver_test as t
from apiserver_test import Client, Server, check, equal

REVIEW = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


def write(s, name, text):
    """Into the server's directory at once, as editors and kubelets do it."""
    path = os.path.join(s.dir, name)
    with open(path + ".new", "w") as f:
        f.write(text if isinstance(text, str) else json.dumps(text))
    os.rename(path + ".new", path)
    return path


def whoami(c, **k):
    st, r = c.post(REVIEW, {"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"}, **k)
    return r["status"]["userInfo"] if st == 201 else st


def until(what, fn, seconds=20):
    end = time.time() + seconds
    while time.time() < end:
        if fn():
            return check(what, True)
        time.sleep(0.05)
    check(what, False, "it did not come within %d s" % seconds)


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
        check(what, words in said, said[-600:])
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


def main():
    dir = tempfile.mkdtemp(prefix="skiff-access-")
    s = Server(dir)
    try:
        s.pki()
        for test in (test_static_tokens, test_bootstrap, test_anonymous):
            try:
                test(s)
            except Exception:
                import traceback
                check("exception in %s" % test.__name__, False, traceback.format_exc()[-1500:])
                if s.proc and s.proc.poll() is None:
                    s.stop()
    finally:
        if s.proc and s.proc.poll() is None:
            s.stop()
        if t.failed:
            print(open(os.path.join(dir, "log")).read()[-2000:])
        shutil.rmtree(dir, ignore_errors=True)
    print("%d passed, %d failed" % (t.passed, t.failed))
    sys.exit(1 if t.failed else 0)


if __name__ == "__main__":
    main()
