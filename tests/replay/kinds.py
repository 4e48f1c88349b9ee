"""The life of an object of each kind, made from a few lines a kind (kinds/*.txt).

    KIND group resource Kind namespaced|cluster
    object {...}                  the smallest valid object, named $n
    change {...}                  a merge patch that is allowed
    bad path = value | ...        one create each, with that field changed ("~" takes it out); as a dry run
    keep path = value | ...       one update each that changes what may not change (or may: upstream decides); as a dry run
    status {...}                  a merge patch on the status subresource
    settle path is value          a field that the server fills in later is waited for after the create
    scale n                       it has a scale subresource
    skip word...                  of the steps' names: kinds that cannot do them
"""
import copy, json, os, re
from scenario import GROUPS, Relaxed, Scenario, Step, merge, relaxed


def split_edits(text):
    """path = value | path = value"""
    out = []
    while text.strip():
        path, _, rest = text.partition("=")
        r = Relaxed(rest)
        r.space()
        if rest.strip().startswith("~"):
            cut = rest.find("|")
            out.append((path.strip(), None, True))
            text = "" if cut < 0 else rest[cut + 1:]
            continue
        if rest[r.i:r.i + 1] in ("{", "[", '"'):
            v = r.value()
            tail = rest[r.i:]
        else:
            word, bar, tail = rest.partition(" | ")
            v = relaxed(word.strip()) if word.strip() else ""
            tail = "| " + tail if bar else ""
        out.append((path.strip(), v, False))
        tail = tail.strip()
        if tail and not tail.startswith("|"):
            raise SystemExit("kinds: %r after %r" % (tail, path))
        text = tail[1:]
    return out


def parts(path):
    return [int(p) if p.isdigit() else p.strip('"') for p in re.findall(r'"[^"]*"|[^.]+', path)]


def edit(obj, path, value, gone):
    obj = copy.deepcopy(obj)
    at = obj
    ps = parts(path)
    for p, nxt in zip(ps, ps[1:]):
        if isinstance(at, list):
            while len(at) <= p:
                at.append({})
            at = at[p]
        else:
            at = at.setdefault(p, [] if isinstance(nxt, int) else {})
    last = ps[-1]
    if gone:
        if isinstance(at, list):
            del at[last]
        else:
            at.pop(last, None)
    elif isinstance(at, list):
        while len(at) <= last:
            at.append(None)
        at[last] = value
    else:
        at[last] = value
    return obj


class Kind:
    def __init__(self, words, where):
        self.group, self.resource, self.kind, self.scope = words
        self.object, self.change, self.status, self.scale, self.settle = None, None, None, None, None
        self.bad, self.keep, self.skip = [], [], set()
        self.where = where


def read(path):
    out, k = [], None
    with open(path) as f:
        text = f.read()
    # a line that starts with space goes on the one before
    text = re.sub(r"\n[ \t]+", " ", text)
    for l in text.split("\n"):
        word, _, rest = l.partition(" ")
        if not word or word.startswith("#"):
            continue
        if word == "KIND":
            k = Kind(rest.split(), path)
            out.append(k)
        elif word in ("object", "change", "status"):
            setattr(k, word, relaxed(rest.strip()))
        elif word in ("bad", "keep"):
            getattr(k, word).extend(split_edits(rest))
        elif word == "settle":
            k.settle = rest.split(" is ")
        elif word == "scale":
            k.scale = int(rest)
        elif word == "skip":
            k.skip.update(rest.split())
        else:
            raise SystemExit("%s: what is %r?" % (path, word))
    return out


LEAVES = 16


def leaves(v, path=""):
    """Paths of an object's values: lists by their first element, maps by every member."""
    if isinstance(v, dict) and (v or not path):
        for k, x in v.items():
            yield from leaves(x, "%s.%s" % (path, '"%s"' % k if re.search(r"[^A-Za-z]", k) else k) if path else k)
    elif isinstance(v, list) and v and isinstance(v[0], dict):
        yield from leaves(v[0], path + ".0")
    else:
        yield path, v


def other(v):
    """Another value of the kind."""
    if isinstance(v, bool):
        return not v
    if isinstance(v, (int, float)):
        return v + 1
    if isinstance(v, str):
        return v + "-x"
    return v + v[-1:] if v else [{}] if isinstance(v, list) else {"x": "y"}


def scenario_of(k):
    gv = "v1" if k.group == "core" else GROUPS.get(k.group, k.group)
    base = ("/api/v1" if gv == "v1" else "/apis/" + gv) + ("/namespaces/$ns" if k.scope == "namespaced" else "") + "/" + k.resource
    obj = dict({"apiVersion": gv, "kind": k.kind}, **k.object)
    name = obj["metadata"].setdefault("name", "r1" if k.scope == "namespaced" else "replay-r1")
    obj["metadata"].setdefault("labels", {})["replay"] = "x"
    one = base + "/" + name
    every = base + "?labelSelector=replay%3Dx"
    dry = "dryRun=All"
    steps = []

    def add(label, method, path, body=None, caps=(), **opts):
        if label.split()[0] in k.skip:
            return
        s = Step(method, path)
        s.label, s.body, s.opts = label, body, opts
        s.captures = list(caps)
        steps.append(s)

    bad_obj = edit(obj, "metadata.name", name + "-bad", False)
    for p, v, gone in [("metadata.name", "Not_A-Name", False), ("metadata.labels", {"a b": "c"}, False), ("kind", "Wrong", False)] + k.bad:
        e = edit(obj if p.startswith("metadata.name") else bad_obj, p, v, gone)
        add("bad %s=%s" % (p, "~" if gone else json.dumps(v)), "POST", base + "?" + dry, e)
    add("unknown", "POST", base + "?%s&fieldValidation=Strict" % dry, edit(bad_obj, "replayUnknown", 1, False))
    add("unknown-warn", "POST", base + "?%s&fieldValidation=Warn" % dry, edit(bad_obj, "replayUnknown", 1, False))
    add("dry-create", "POST", base + "?" + dry, obj)
    add("absent", "GET", one)
    add("watch", "WATCH", every + "&watch=true", name="w")
    add("create", "POST", base, obj, [("obj", "."), ("uid", "metadata.uid")])
    if k.settle:
        add("settle", "UNTIL", one, field=k.settle[0].strip(), **{"is": k.settle[1].strip()}, caps=[("obj", ".")])
    add("again", "POST", base, obj)
    add("get", "GET", one)
    add("get-table", "GET", one, accept="table")
    add("get-pom", "GET", one, accept="pom")
    add("get-pb", "GET", one, accept="pb")
    add("get-yaml", "GET", one, accept="yaml")
    add("list", "GET", every)
    add("list-table", "GET", every, accept="table")
    add("list-pom", "GET", every, accept="pomlist")
    add("conflict", "PUT", one, {"metadata": {"resourceVersion": "1"}}, base="obj")
    add("put-other-name", "PUT", one, {"metadata": {"name": name + "x"}}, base="obj")
    add("put-other-uid", "PUT", one, {"metadata": {"uid": "00000000-0000-0000-0000-000000000000"}}, base="obj")
    add("put-same", "PUT", one, {}, base="obj")
    if k.change is not None:
        add("put-change", "PUT", one, k.change, [("obj", ".")], base="obj")
        add("merge-same", "PATCH", one, k.change, type="merge")
    add("strategic", "PATCH", one, {"metadata": {"annotations": {"a": "b"}}}, type="strategic")
    add("json-patch", "PATCH", one, [{"op": "test", "path": "/metadata/labels/replay", "value": "x"},
                                      {"op": "add", "path": "/metadata/annotations/c", "value": "d"}], type="json")
    add("json-patch-fails", "PATCH", one, [{"op": "test", "path": "/metadata/labels/replay", "value": "y"}], type="json")
    add("apply", "PATCH", one + "?fieldManager=replay", {"apiVersion": gv, "kind": k.kind, "metadata": {"annotations": {"a": "b"}}}, type="apply")
    add("apply-conflict", "PATCH", one + "?fieldManager=other", {"apiVersion": gv, "kind": k.kind, "metadata": {"annotations": {"a": "z"}}},
        type="apply")
    for p, v, gone in k.keep:
        # the object as it is by now, with one field changed
        add("get-for-keep", "GET", one, None, [("obj", ".")], mode="code")
        s = Step("PUT", one + "?" + dry)
        s.label, s.body, s.opts = "keep %s=%s" % (p, "~" if gone else json.dumps(v)), {"$edit": [p, v, gone]}, {"base": "obj"}
        steps.append(s)
    # each value of the object changed and taken out, and applied by somebody else, who takes it by force
    full = merge(obj, k.change or {})
    body = {f: v for f, v in full.items() if f not in ("apiVersion", "kind", "metadata", "status")}
    for p, v in list(leaves(body))[:LEAVES] if "apply" not in k.skip else []:
        add("get-for-leaf", "GET", one, None, [("obj", ".")], mode="code")
        for label, x, gone in (("leaf", other(v), False), ("drop", None, True)):
            s = Step("PUT", one + "?" + dry)
            s.label, s.body, s.opts = "%s %s" % (label, p), {"$edit": [p, x, gone]}, {"base": "obj"}
            steps.append(s)
        top = parts(p)[0]
        for label, q, x in (("share", "", v), ("claim", "", other(v)), ("take", "&force=true", other(v))):
            config = edit({"apiVersion": gv, "kind": k.kind, "metadata": {"name": name}, top: body[top]}, p, x, False)
            add("%s %s" % (label, p), "PATCH", one + "?fieldManager=leaf&dryRun=All" + q, config, type="apply")
    if k.status is not None:
        st = one + "/status"
        add("status-get", "GET", st)
        add("status-patch", "PATCH", st, dict(k.status, metadata={"annotations": {"ignored": "yes"}}), type="merge")
        add("status-get-obj", "GET", one, None, [("obj", ".")], mode="code")
        add("status-put", "PUT", st, dict(k.status, metadata={"labels": {"ignored": "yes"}}), base="obj")
        add("status-by-main", "PATCH", one, {"status": None}, type="merge")
        add("status-apply", "PATCH", st + "?fieldManager=replay-status", dict({"apiVersion": gv, "kind": k.kind}, **k.status), type="apply")
        add("status-table", "GET", one, accept="table")
    if k.scale is not None:
        sc = one + "/scale"
        add("scale-get", "GET", sc)
        add("scale-patch", "PATCH", sc, {"spec": {"replicas": k.scale}}, type="merge")
        add("scale-bad", "PATCH", sc, {"spec": {"replicas": -1}}, type="merge")
        add("scale-obj", "GET", one)
    add("delete-precondition", "DELETE", one, {"preconditions": {"uid": "00000000-0000-0000-0000-000000000000"}})
    add("delete-dry", "DELETE", one + "?" + dry)
    add("delete", "DELETE", one)
    add("gone", "GET", one)
    add("events", "EVENTS", "w", until="DELETED")
    add("deletecollection", "DELETE", every)
    return Scenario("kind-" + ("" if k.group == "core" else k.group + "-") + k.resource, steps, set() if k.scope == "namespaced" else {"no-namespace"})


def load(dir):
    out = []
    for f in sorted(os.listdir(dir)) if os.path.isdir(dir) else []:
        if f.endswith(".txt"):
            out += [scenario_of(k) for k in read(os.path.join(dir, f))]
    return out
