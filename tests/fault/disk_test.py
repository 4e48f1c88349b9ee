#!/usr/bin/env python3
"""Faults of the disk below the API server: one that is full, pages that were torn.

Usage: disk_test.py PATH-OF-kube-apiserver [TEST...]. Prints one line a failed check and "N passed, N failed".
Runs itself in a mount namespace, for a small file system of its own.
"""
import hashlib, http.client, json, os, shutil, subprocess, sys, threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))
from apiserver_test import CM, Client, check, cm, equal, suite, until

SIZE = 24 << 20
BIG = "v" * 100000


def own_mounts():
    """Runs this program again where it may mount; without the right to, says so."""
    if os.environ.get("SKIFF_OWN_MOUNTS"):
        return
    unshare = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    if subprocess.run(unshare + ["true"], stderr=subprocess.DEVNULL).returncode:
        print("# no mount namespace here: the disk was not tried\n0 passed, 0 failed")
        sys.exit(77)
    os.environ["SKIFF_OWN_MOUNTS"] = "1"
    os.execvp("unshare", unshare + [sys.executable] + sys.argv)


class Disk:
    """A small file system at a path of the server's directory."""

    def __init__(self, s, name):
        self.path = os.path.join(s.dir, name)
        os.mkdir(self.path)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=%d,mode=700" % SIZE, "tmpfs", self.path], check=True)

    def fill(self):
        """Somebody else's file takes all there is."""
        with open(os.path.join(self.path, "filler"), "ab", buffering=0) as f:
            for n in (1 << 20, 4096):
                try:
                    while f.write(bytes(n)) == n:
                        pass
                except OSError as e:
                    check("the disk is full", e.errno == 28, e)

    def free(self):
        os.unlink(os.path.join(self.path, "filler"))

    def close(self):
        subprocess.run(["umount", self.path], check=True)


def refused(what, st, e):
    check(what, st == 507 and e.get("kind") == "Status" and e.get("reason") == "InsufficientStorage" and "space" in e.get("message", ""), (st, e))


def write_until_full(a, prefix):
    """Returns the names of what was acknowledged; what was there is used up by them."""
    names = []
    for i in range(SIZE // len(BIG) + 1):
        st, e = a.post(CM, cm("%s%d" % (prefix, i), v=BIG))
        if st != 201:
            refused("refused for want of room", st, e)
            return names
        names.append("%s%d" % (prefix, i))
    check("the disk becomes full", False)
    return names


class Watch(threading.Thread):
    """What happens to ConfigMaps, until the connection ends."""

    def __init__(self, c, rv):
        super().__init__(daemon=True)
        self.seen, self.conn = [], c.open(60)
        self.conn.request("GET", CM + "?watch=true&resourceVersion=" + rv)
        self.r = self.conn.getresponse()
        self.start()

    def run(self):
        try:
            for line in iter(self.r.readline, b""):
                e = json.loads(line)
                self.seen.append((e["type"], e["object"]["metadata"]["name"]))
        except (OSError, http.client.HTTPException):
            pass  # the server ended, as it was told

    def stop(self):
        self.join(30)
        self.conn.close()


def names_of(a):
    st, l = a.get(CM)
    return sorted(o["metadata"]["name"] for o in l["items"]) if st == 200 else st


def test_full(s):
    """Clients are told, reads and watches go on, deletes work, and so do writes as soon as there is room; over a kill too."""
    disk = Disk(s, "disk")
    s.store = ["--data-dir", "disk/data"]
    s.start()
    a = Client(s, cert="admin")
    a.post(CM, cm("small", a="b"))
    w = Watch(a, a.get(CM)[1]["metadata"]["resourceVersion"])
    uid = a.get("/api/v1/namespaces/default")[1]["metadata"]["uid"]
    disk.fill()
    names = acked = write_until_full(a, "a")
    st, e = a.patch(CM + "/small", {"data": {"v": BIG}})
    refused("nor updates", st, e)
    st, e = a.patch(CM + "/applied?fieldManager=me", cm("applied", v=BIG), "apply")
    refused("nor applies", st, e)
    equal("what was refused is not there", [a.get(CM + "/" + n)[0] for n in ("applied", "a%d" % len(names))], [404, 404])
    equal("nor half of it", a.get(CM + "/small")[1]["data"], {"a": "b"})
    equal("reads go on", names_of(a), sorted(names + ["small"]))
    equal("at an older revision too", len(a.get(CM + "?limit=1")[1]["items"]), 1)
    equal("it lives", [a.raw("GET", p)[0] for p in ("/livez", "/readyz")], [200, 200])
    equal("a new token needs no room", a.post("/api/v1/namespaces/default/serviceaccounts/default/token", {
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}})[0] in (201, 404), True)
    # deletes make the room that the next writes use
    for n in names[:len(names) // 2]:
        equal("delete of " + n, a.delete(CM + "/" + n)[0], 200)
    names = names[len(names) // 2:]
    # kill -9 and a start on the full disk: all that was acknowledged is there
    s.stop(9)
    w.stop()
    equal("the watch saw each", [n for t, n in w.seen if t == "ADDED"], acked)
    s.start()
    a = Client(s, cert="admin")
    equal("after kill -9 and on a full disk", names_of(a), sorted(names + ["small"]))
    equal("the namespace is the one it was", a.get("/api/v1/namespaces/default")[1]["metadata"].get("uid"), uid)
    w = Watch(a, a.get(CM)[1]["metadata"]["resourceVersion"])
    more = write_until_full(a, "b")
    disk.free()
    until("it goes on by itself when there is room", lambda: a.post(CM, cm("again", v=BIG))[0] == 201, 5)
    until("the watch saw all of it", lambda: [n for t, n in w.seen] == more + ["again"])
    s.stop()
    w.stop()
    s.start()
    equal("after the next start", names_of(Client(s, cert="admin")), sorted(names + more + ["small", "again"]))
    s.stop()
    # a first start without room: refused with a reason, and well once there is some
    shutil.rmtree(os.path.join(disk.path, "data"))
    disk.fill()
    try:
        s.start()
        check("a first start on a full disk", False, "it started")
        s.stop()
    except SystemExit as e:
        check("a first start on a full disk", s.refused == 1 and "space" in str(e), e)
    disk.free()
    s.start()
    equal("and then", Client(s, cert="admin").post(CM, cm("first"))[0], 201)
    s.stop()
    disk.close()


def digest(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def test_torn_pages(s):
    """Halves of the last pages lost: the server starts with all that was acknowledged, or it does not start and says why."""
    s.store = ["--data-dir", "data"]
    s.start()
    a = Client(s, cert="admin")
    want = {}
    for i in range(40):
        o = cm("t%d" % i, v=str(i) * (10 + i * 500))
        equal("write", a.post(CM, o)[0], 201)
        want[o["metadata"]["name"]] = o["data"]
    s.stop(9)
    names = ("data.mdb", "data.wal")
    paths = {n: os.path.join(s.dir, "data", n) for n in names}
    whole = {n: open(p, "rb").read() for n, p in paths.items()}
    counts = {"fine": 0, "refused": 0}

    def tried(what, name, content):
        for n in names:
            with open(paths[n], "wb") as f:
                f.write(content if n == name else whole[n])
        before = [digest(paths[n]) for n in names]
        try:
            s.start()
        except SystemExit as e:
            counts["refused"] += 1
            said = [l for l in str(e).splitlines() if " ERROR " in l][-1]
            check("%s: said" % what, s.refused == 1 and ("damaged" in said or "truncated" in said) and "restore a snapshot" in said, e)
            if "nothing was changed" in said:
                equal("%s: nothing is changed" % what, [digest(paths[n]) for n in names], before)
            return
        counts["fine"] += 1
        st, l = Client(s, cert="admin").get(CM)
        equal("%s: all is there" % what, {o["metadata"]["name"]: o["data"] for o in l["items"]} if st == 200 else (st, l), want)
        s.stop()

    def halves(name, pages):
        for p in pages:
            for half in (0, 2048):
                at = p * 4096 + half
                tried("%s, page %d, half at %d" % (name, p, half), name, whole[name][:at] + bytes(2048) + whole[name][at + 2048:])

    pages = len(whole["data.mdb"]) // 4096
    halves("data.mdb", range(pages - 4, pages))
    tried("the last page cut", "data.mdb", whole["data.mdb"][:-2048])
    # the log: all but its last frame, which cannot be told from one that was never acknowledged; t39 takes five pages or more
    used = max(i for i in range(len(whole["data.wal"]) // 4096) if any(whole["data.wal"][i * 4096:i * 4096 + 4096]))
    before = counts["refused"]
    halves("data.wal", range(used - 16, used - 10))
    check("some of it mattered", counts["refused"] > before + 5, counts)
    halves("data.wal", range(used + 1, used + 3))
    tried("the log cut", "data.wal", whole["data.wal"][:-2048])
    tried("a torn page behind the end", "data.mdb", whole["data.mdb"] + b"torn" * 700)
    tried("whole", None, None)
    equal("more starts", counts["fine"] >= 6, True)


if __name__ == "__main__":
    own_mounts()
    suite("disk", lambda s: {}, (test_full, test_torn_pages))
