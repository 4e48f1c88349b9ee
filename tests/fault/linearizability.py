#!/usr/bin/env python3
"""kill -9 of the API server under load, again and again, and a checker of the history that clients saw.

usage: linearizability.py KUBE_APISERVER [--runs N] [--seed S]

Clients create, update (with the resourceVersion they read), delete and get a few ConfigMaps, watchers follow them across
restarts from where they were. What must hold over the whole history:

  - no acknowledged write is lost, none is done twice, none that was refused is ever seen;
  - every watcher sees the same events, each once, in order, each key's as a sequence ADDED MODIFIED* DELETED; it misses none
    but those between a restart and its next list (a new server forgets, as upstream's, and says 410);
  - resourceVersions grow in real time: a write that begins after another was acknowledged has the larger one;
  - a get sees at least what was acknowledged or read before it began, and nothing from the future;
  - an update replaces exactly the version it names.

A write whose answer was cut off may have happened or not: the watchers tell, and then they all must agree.
"""
import argparse, bisect, http.client, json, os, random, shutil, ssl, sys, threading, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "replay"))
import servers

KEYS = 5
WRITERS = 5
WATCHERS = 2
PATH = "/api/v1/namespaces/default/configmaps"
LABEL = "skiff-linearizability"


class Op:
    """One call: when it began and ended (one clock), and what came of it."""
    __slots__ = ("id", "kind", "key", "expect", "start", "end", "result", "rv", "uid", "value")

    def __init__(self, id, kind, key, expect=None):
        self.id, self.kind, self.key, self.expect = id, kind, key, expect
        self.start, self.end, self.result, self.rv, self.uid, self.value = time.monotonic(), None, "unknown", None, None, None


class Target(servers.Server):
    """A server that is killed and started again on the same data."""

    def kill(self):
        p = self.procs.pop()
        p.kill()
        p.wait()
        os.unlink(os.path.join(self.dir, "port"))

    def restart(self):
        self.start_skiff(self.exe)
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                if self.status("/readyz") == 200:
                    return
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.01)
        raise SystemExit("the server did not come back:\n" + self.log_tail())


class World:
    def __init__(self, target, seed):
        self.target, self.random = target, random.Random(seed)
        self.lock = threading.Lock()
        self.ops, self.up, self.done = [], threading.Event(), False
        self.generation = 0
        self.context = ssl.create_default_context(cafile=os.path.join(target.dir, "ca.crt"))
        self.context.load_cert_chain(os.path.join(target.dir, "admin.crt"), os.path.join(target.dir, "admin.key"))

    def connect(self, timeout):
        return http.client.HTTPSConnection("127.0.0.1", self.target.port, context=self.context, timeout=timeout)

    def begin(self, kind, key, expect=None):
        with self.lock:
            op = Op(len(self.ops), kind, key, expect)
            self.ops.append(op)
        return op


class Writer(threading.Thread):
    """Calls while the server is up; a connection that breaks leaves its call's outcome unknown."""

    def __init__(self, world, n):
        super().__init__(daemon=True)
        self.world, self.rng, self.seen, self.conn, self.stop = world, random.Random(world.random.random()), {}, None, False

    def call(self, op, method, path, body=None):
        if not self.conn:
            self.conn = self.world.connect(10)
        self.conn.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"})
        r = self.conn.getresponse()
        data = r.read()
        op.end = time.monotonic()
        return r.status, json.loads(data)

    def step(self):
        key = "lin-%d" % self.rng.randrange(KEYS)
        kind = self.rng.choices(("create", "update", "delete", "get"), (3, 6, 2, 3))[0]
        known = self.seen.get(key)
        if kind == "update" and not known:
            kind = "get"
        op = self.world.begin(kind, key, known if kind == "update" else None)
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": key, "labels": {LABEL: ""}}, "data": {"v": str(op.id)}}
        if kind == "create":
            status, o = self.call(op, "POST", PATH, body)
        elif kind == "update":
            body["metadata"]["resourceVersion"] = known
            status, o = self.call(op, "PUT", PATH + "/" + key, body)
        elif kind == "delete":
            status, o = self.call(op, "DELETE", PATH + "/" + key)
        else:
            status, o = self.call(op, "GET", PATH + "/" + key)
        if status in (200, 201) and kind != "delete":
            op.rv, op.value, op.uid = int(o["metadata"]["resourceVersion"]), o["data"]["v"], o["metadata"]["uid"]
            self.seen[key] = o["metadata"]["resourceVersion"]
            op.result = "ok"
        elif status == 200:
            op.uid, op.result = o["details"]["uid"], "ok"
            self.seen.pop(key, None)
        elif status in (404, 409):
            op.result = o["reason"]
            self.seen.pop(key, None)
        elif status in (429, 500, 503, 504):
            op.result = "unknown"  # a server that is going down may say so after the write
        else:
            op.result = "unexpected %d %s" % (status, o)

    def run(self):
        while not self.stop:
            if not self.world.up.wait(0.1):
                continue
            try:
                self.step()
            except (OSError, http.client.HTTPException, ValueError):
                if self.conn:
                    self.conn.close()
                self.conn = None


class Segment:
    """What a watcher saw without a gap: a list at `first`, then events up to `last`."""

    def __init__(self, rv, items):
        self.first, self.last, self.items, self.events = rv, rv, items, []


class Watcher(threading.Thread):
    """Lists and watches as an informer does: goes on from where it was, lists again when that is forgotten (410)."""

    def __init__(self, world):
        super().__init__(daemon=True)
        self.world, self.segments = world, []

    def list(self):
        ops = [self.world.begin("get", "lin-%d" % i) for i in range(KEYS)]  # a list is a get of every key at once
        conn = self.world.connect(10)
        try:
            conn.request("GET", "%s?labelSelector=%s" % (PATH, LABEL))
            r = conn.getresponse()
            o = json.loads(r.read())
        finally:
            conn.close()
        if r.status != 200:
            return False
        end, items = time.monotonic(), {}
        for i in o["items"]:
            m = i["metadata"]
            if i["data"]["v"] != "mark":
                items[m["name"]] = (int(m["resourceVersion"]), i["data"]["v"], m["uid"])
        for op in ops:
            op.end, op.result = end, "NotFound"
            if op.key in items:
                op.result = "ok"
                op.rv, op.value, op.uid = items[op.key]
        self.segments.append(Segment(int(o["metadata"]["resourceVersion"]), items))
        return True

    def follow(self, seg):
        """False: the server has forgotten where we are."""
        conn = self.world.connect(2)
        try:
            conn.request("GET", "%s?watch=1&labelSelector=%s&resourceVersion=%d&allowWatchBookmarks=true" % (PATH, LABEL, seg.last))
            r = conn.getresponse()
            if r.status != 200:
                return r.status != 410
            while True:
                line = r.readline()
                if not line.endswith(b"\n"):
                    return True  # cut off: what follows comes again
                e = json.loads(line)
                if e["type"] == "ERROR":
                    return e["object"].get("code") != 410
                seg.last = int(e["object"]["metadata"]["resourceVersion"])
                if e["type"] != "BOOKMARK" and e["object"]["data"]["v"] != "mark":
                    m = e["object"]["metadata"]
                    seg.events.append((seg.last, e["type"], m["name"], e["object"]["data"]["v"], m["uid"]))
        finally:
            conn.close()

    def run(self):
        again = True
        while not self.world.done:
            if not self.world.up.wait(0.1):
                continue
            try:
                if again and not self.list():
                    continue
                again = False
                again = not self.follow(self.segments[-1])
            except (OSError, http.client.HTTPException, ValueError):
                time.sleep(0.005)


# ---- the checker ----

def check_segments(watchers, bad):
    """Each segment is a sequence without contradictions, and all tell the same; returns rv -> event."""
    seen = {}
    for n, w in enumerate(watchers):
        for seg in w.segments:
            state, last = dict(seg.items), seg.first
            for rv, type, key, value, uid in seg.events:
                alive = state.get(key)
                if rv <= last:
                    bad("watcher %d: %d came after %d" % (n, rv, last))
                if (type == "ADDED") == (alive is not None):
                    bad("watcher %d: %s of %s at %d, which was %s" % (n, type, key, rv, alive))
                if alive and uid != alive[2]:
                    bad("watcher %d: %s of %s at %d has another uid" % (n, type, key, rv))
                if type == "DELETED" and alive and value != alive[1]:
                    bad("watcher %d: DELETED of %s at %d with contents of %s, not %s" % (n, key, rv, value, alive[1]))
                state[key], last = None if type == "DELETED" else (rv, value, uid), rv
                if seen.setdefault(rv, (type, key, value, uid)) != (type, key, value, uid):
                    bad("at %d one watcher saw %s, another %s" % (rv, seen[rv], (type, key, value, uid)))
    for n, w in enumerate(watchers):
        for a, b in ((x.first, x) for x in w.segments):
            have = {e[0] for e in b.events}
            missed = [rv for rv in seen if a < rv <= b.last and rv not in have]
            if missed:
                bad("watcher %d did not see %s" % (n, [(rv, seen[rv]) for rv in missed[:3]]))
    return seen


def check_writes(ops, watchers, seen, bad):
    """Acknowledged writes are in every watch that spans them; refused ones are nowhere; updates replace what they named."""
    by_id = {str(op.id): op for op in ops if op.kind in ("create", "update")}
    versions = {}  # key -> revisions known to have been written
    for rv, (type, key, value, uid) in seen.items():
        versions.setdefault(key, set()).add(rv)
        if type != "DELETED":
            op = by_id.get(value)
            if not op or op.result not in ("ok", "unknown"):
                bad("%s of %s at %d: %s" % (type, key, rv, "nobody wrote it" if not op else op.kind + " was answered " + op.result))
            elif op.result == "unknown" and op.rv is None:
                op.rv = rv
            elif op.rv != rv:
                bad("the write %s of %s is there at %s and %d" % (value, key, op.rv, rv))
        else:
            for op in ops:
                if op.kind == "delete" and op.uid == uid:
                    op.rv = rv
    for op in by_id.values():
        if op.result == "ok":
            versions.setdefault(op.key, set()).add(op.rv)
            for n, w in enumerate(watchers):
                for seg in w.segments:
                    if seg.first < op.rv <= seg.last and op.rv not in seen:
                        bad("lost: %s of %s acknowledged at %d is not in watch %d" % (op.kind, op.key, op.rv, n))
    order = {k: sorted(v) for k, v in versions.items()}
    for op in by_id.values():
        if op.kind == "update" and op.rv:
            i = bisect.bisect_left(order[op.key], op.rv)
            if i and order[op.key][i - 1] > int(op.expect):
                bad("update of %s named %s and replaced %d" % (op.key, op.expect, order[op.key][i - 1]))


def latest(done):
    """For calls in the order of their ends: the largest revision known after each."""
    best = []
    for o in done:
        best.append(max(o.rv, best[-1]) if best else o.rv)
    return [o.end for o in done], best


def check_real_time(ops, bad):
    """Writes: their resourceVersions are in the order of real time."""
    ends, best = latest(sorted((op for op in ops if op.kind != "get" and op.result == "ok" and op.rv), key=lambda o: o.end))
    for op in ops:
        if op.kind == "get" or op.result != "ok" or not op.rv:
            continue
        i = bisect.bisect_left(ends, op.start)
        if i and best[i - 1] >= op.rv:
            bad("%s of %s got %d, though %d was acknowledged before it began" % (op.kind, op.key, op.rv, best[i - 1]))


def check_reads(ops, bad):
    """Gets and lists see what was acknowledged or read before they began, nothing deleted by then, nothing from the future."""
    by_id = {str(op.id): op for op in ops}
    for key in ("lin-%d" % i for i in range(KEYS)):
        mine = [o for o in ops if o.key == key]
        ends, best = latest(sorted((o for o in mine if o.result == "ok" and o.rv and o.kind != "delete"), key=lambda o: o.end))
        deletes = [o for o in mine if o.kind == "delete" and o.result in ("ok", "unknown")]
        gone = {o.uid: o.end for o in deletes if o.result == "ok"}
        for op in (o for o in mine if o.kind == "get"):
            i = bisect.bisect_left(ends, op.start)
            least = best[i - 1] if i else 0
            if op.result == "ok":
                writer = by_id.get(op.value)
                if not writer or writer.key != key or writer.start > op.end or writer.result not in ("ok", "unknown"):
                    bad("get of %s gave %s at %d, which was not written then" % (key, op.value, op.rv))
                elif writer.rv not in (None, op.rv):
                    bad("get of %s gave %s at %d, which was written at %d" % (key, op.value, op.rv, writer.rv))
                if op.rv < least:
                    bad("get of %s gave %d, though %d was known before it began" % (key, op.rv, least))
                if gone.get(op.uid, op.start) < op.start:
                    bad("get of %s gave an object (uid %s) whose delete was acknowledged" % (key, op.uid))
            elif op.result == "NotFound" and least:
                if not any(d.start < op.end and (d.rv is None or d.rv > least) for d in deletes):
                    bad("lost: get of %s found nothing, though %d was known and nobody deleted it" % (key, least))


def catch_up(world, watchers):
    """One write more: when all have seen it, they have seen what was before. Returns what did not happen."""
    conn = world.connect(10)
    mark = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "lin-mark-", "labels": {LABEL: ""}}, "data": {"v": "mark"}}
    conn.request("POST", PATH, json.dumps(mark), {"Content-Type": "application/json"})
    last = int(json.loads(conn.getresponse().read())["metadata"]["resourceVersion"])
    conn.close()
    end = time.monotonic() + 30
    while time.monotonic() < end and any(w.segments[-1].last < last for w in watchers):
        time.sleep(0.01)
    return ["watcher %d has not seen %d within 30 s" % (i, last) for i, w in enumerate(watchers) if w.segments[-1].last < last]


def final_list(world):
    """As any other list; in the history as the last."""
    w = Watcher(world)
    if not w.list():
        raise SystemExit("the last list failed")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("exe")
    p.add_argument("--runs", type=int, default=25)
    p.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    o = p.parse_args()
    print("# seed %d, %d runs" % (o.seed, o.runs), flush=True)
    target = Target("skiff:" + o.exe)
    target.exe = os.path.abspath(o.exe)
    problems = []
    keep = False
    try:
        world = World(target, o.seed)
        writers = [Writer(world, i) for i in range(WRITERS)]
        watchers = [Watcher(world) for _ in range(WATCHERS)]
        world.up.set()
        for t in writers + watchers:
            t.start()
        for n in range(o.runs):
            time.sleep(world.random.uniform(0.01, 0.12))  # the moment of the kill is the test
            world.up.clear()
            target.kill()
            target.restart()
            world.up.set()
            if (n + 1) % 100 == 0:
                print("# %d runs, %d calls" % (n + 1, len(world.ops)), flush=True)
        world.up.wait()
        for t in writers:
            t.stop = True
        for t in writers:
            t.join(20)
        problems += catch_up(world, watchers)
        final_list(world)
        world.done = True
        for t in watchers:
            t.join(20)
        ops = world.ops
        seen = check_segments(watchers, problems.append)
        check_writes(ops, watchers, seen, problems.append)
        check_real_time(ops, problems.append)
        check_reads(ops, problems.append)
        counts = {}
        for op in ops:
            if op.result.startswith("unexpected"):
                problems.append("%s of %s: %s" % (op.kind, op.key, op.result))
            what = op.result if op.result in ("ok", "unknown") else "refused"
            counts[what] = counts.get(what, 0) + 1
        print("# %d calls: %s; %d events" % (len(ops), counts, len(seen)))
        if counts.get("ok", 0) < 5 * o.runs or len(seen) < o.runs:
            problems.append("too little happened for the test to mean anything")
        keep = bool(problems)
    finally:
        dir = target.dir
        if keep:
            shutil.copytree(dir, dir + "-kept")
            print("# the server's directory is kept: %s-kept" % dir)
        target.close()
    for text in problems[:40]:
        print("FAILED " + text)
    print("%d passed, %d failed" % (0 if problems else 1, len(problems)))
    sys.exit(1 if problems else 0)


main()
