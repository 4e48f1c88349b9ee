#!/usr/bin/env python3
"""Admission policies of a real server: what they may be, whom they hold for, what they answer and change.

Usage: policy_test.py PATH-OF-kube-apiserver [TEST...]. Prints one line a failed check and "N passed, N failed".
"""
import json, os, sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from apiserver_test import CM, PODS, DEPLOY, Client, causes, check, cm, deployment, equal, pod, suite, until, write

REG = "/apis/admissionregistration.k8s.io/v1/"
API = "admissionregistration.k8s.io/v1"
VAP, VAPB, MAP, MAPB = (REG + n for n in ("validatingadmissionpolicies", "validatingadmissionpolicybindings", "mutatingadmissionpolicies",
                                          "mutatingadmissionpolicybindings"))
CONFIGMAPS = {"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}
made = []


def rules(*r, **k):
    return dict({"resourceRules": list(r or [CONFIGMAPS])}, **k)


def ops(*operations, group="", version="v1", resources=("configmaps",), **k):
    return dict({"operations": list(operations), "apiGroups": [group], "apiVersions": [version], "resources": list(resources)}, **k)


def vap(name, *validations, **spec):
    s = {"matchConstraints": rules(), "validations": [v if isinstance(v, dict) else {"expression": v} for v in validations]}
    s.update(spec)
    return {"kind": "ValidatingAdmissionPolicy", "apiVersion": API, "metadata": {"name": name}, "spec": s}


def vapb(name, policy, actions=("Deny",), **spec):
    return {"kind": "ValidatingAdmissionPolicyBinding", "apiVersion": API, "metadata": {"name": name},
            "spec": dict({"policyName": policy, "validationActions": list(actions)}, **spec)}


def mutation(expression, kind=None):
    kind = kind or ("JSONPatch" if expression.lstrip().startswith("[") else "ApplyConfiguration")
    return {"patchType": kind, "jsonPatch" if kind == "JSONPatch" else "applyConfiguration": {"expression": expression}}


def map_(name, *mutations, **spec):
    s = {"matchConstraints": rules(), "reinvocationPolicy": "Never", "mutations": [m if isinstance(m, dict) else mutation(m) for m in mutations]}
    s.update(spec)
    return {"kind": "MutatingAdmissionPolicy", "apiVersion": API, "metadata": {"name": name}, "spec": s}


def mapb(name, policy, **spec):
    return {"kind": "MutatingAdmissionPolicyBinding", "apiVersion": API, "metadata": {"name": name}, "spec": dict({"policyName": policy}, **spec)}


def make(a, o):
    path = {"ValidatingAdmissionPolicy": VAP, "ValidatingAdmissionPolicyBinding": VAPB, "MutatingAdmissionPolicy": MAP,
            "MutatingAdmissionPolicyBinding": MAPB}[o["kind"]]
    st, r = a.post(path, o)
    if st != 201:
        check("make %s %s" % (o["kind"], o["metadata"]["name"]), False, r)
    made.append(path + "/" + o["metadata"]["name"])
    return r


def enforce(a, policy, **spec):
    """The policy and a binding of the same name."""
    make(a, policy)
    kind = vapb if policy["kind"].startswith("Val") else mapb
    return make(a, kind(policy["metadata"]["name"], policy["metadata"]["name"], **spec))


def clean(a):
    while made:
        a.delete(made.pop())


n = 0


def fresh(prefix="p"):
    global n
    n += 1
    return "%s%d" % (prefix, n)


def denied(what, answer, words, code=422, reason="Invalid"):
    st, e = answer
    check(what, st == code and e.get("reason") == reason and words in e.get("message", ""), (st, e))


def tried(a, *validations, obj=None, path=CM, **spec):
    """The answer to a create under a policy of these validations alone."""
    name = fresh()
    k = {x: spec.pop(x) for x in ("actions", "paramRef", "matchResources") if x in spec}
    enforce(a, vap(name, *validations, **spec), **k)
    r = a.post(path, obj or cm(fresh("o")))
    clean(a)
    return r


def test_rules(a):
    """What policies and bindings may be."""
    def bad(what, o, *want, words=""):
        path = {"V": VAP, "M": MAP}[o["kind"][0]] if not o["kind"].endswith("Binding") else {"V": VAPB, "M": MAPB}[o["kind"][0]]
        st, e = a.post(path, o)
        got = causes(e) if st == 422 else (st, e)
        check(what, st == 422 and all(w in got for w in want) and words in e["message"], (got, e))

    st, o = a.post(VAP, vap("ok", "true"))
    equal("defaults", (st, o["spec"]["failurePolicy"], o["spec"]["matchConstraints"]["matchPolicy"], o["spec"]["matchConstraints"]["namespaceSelector"],
                       o["spec"]["matchConstraints"]["objectSelector"], o["metadata"]["generation"]), (201, "Fail", "Equivalent", {}, {}, 1))
    a.delete(VAP + "/ok")
    bad("nothing to check", vap("b"), ("FieldValueRequired", "spec.validations"), ("FieldValueRequired", "spec.auditAnnotations"))
    bad("no constraints", vap("b", "true", matchConstraints=None), ("FieldValueRequired", "spec.matchConstraints"))
    bad("no rules", vap("b", "true", matchConstraints={}), ("FieldValueRequired", "spec.matchConstraints.resourceRules"))
    bad("syntax", vap("b", "object.x ="), ("FieldValueInvalid", "spec.validations[0].expression"), words="compilation failed: ERROR: <input>:1:")
    bad("types", vap("b", "1 + 'a' == 2"), ("FieldValueInvalid", "spec.validations[0].expression"), words="found no matching overload")
    bad("unknown variable", vap("b", "params.x"), words="undeclared reference to 'params'")
    bad("no variables without any", vap("b", "variables.x"), words="undeclared reference to 'variables'")
    bad("not a boolean", vap("b", "'x'"), words="must evaluate to bool but got string")
    bad("not surely a boolean", vap("b", "object.data"), words="must evaluate to bool but got dyn")
    bad("messageExpression", vap("b", {"expression": "true", "messageExpression": "1"}), ("FieldValueInvalid", "spec.validations[0].messageExpression"),
        words="must evaluate to string but got int")
    bad("no authorizer in messages", vap("b", {"expression": "true", "messageExpression": "authorizer.path('/x').check('get').reason()"}),
        words="undeclared reference to 'authorizer'")
    bad("message", vap("b", {"expression": "true", "message": "a\nb"}), ("FieldValueInvalid", "spec.validations[0].message"))
    bad("blank", vap("b", {"expression": "  ", "message": " ", "messageExpression": " "}), ("FieldValueRequired", "spec.validations[0].expression"),
        ("FieldValueInvalid", "spec.validations[0].message"), ("FieldValueInvalid", "spec.validations[0].messageExpression"))
    bad("reason", vap("b", {"expression": "true", "reason": "NotFound"}), ("FieldValueNotSupported", "spec.validations[0].reason"))
    bad("failurePolicy", vap("b", "true", failurePolicy="X"), ("FieldValueNotSupported", "spec.failurePolicy"))
    bad("annotations", vap("b", auditAnnotations=[{"key": "k", "valueExpression": "1"}, {"key": "k", "valueExpression": "'x'"},
                                                   {"key": "-", "valueExpression": ""}]),
        ("FieldValueInvalid", "spec.auditAnnotations[0].valueExpression"), ("FieldValueDuplicate", "spec.auditAnnotations[1].key"),
        ("FieldValueInvalid", "spec.auditAnnotations[2].key"), ("FieldValueRequired", "spec.auditAnnotations[2].valueExpression"),
        words="must evaluate to one of [string null_type] but got int")
    bad("conditions", vap("b", "true", matchConditions=[{"name": "a", "expression": "x"}, {"name": "a", "expression": "true"},
                                                         {"name": "", "expression": ""}]),
        ("FieldValueInvalid", "spec.matchConditions[0].expression"), ("FieldValueDuplicate", "spec.matchConditions[1].name"),
        ("FieldValueRequired", "spec.matchConditions[2].name"), ("FieldValueRequired", "spec.matchConditions[2].expression"))
    bad("variables", vap("b", "variables.a", variables=[{"name": "a", "expression": "variables.b"}, {"name": "b-c", "expression": "true"},
                                                         {"name": "in", "expression": " "}]),
        ("FieldValueInvalid", "spec.variables[0].expression"), ("FieldValueInvalid", "spec.variables[1].name"),
        ("FieldValueInvalid", "spec.variables[2].name"), ("FieldValueRequired", "spec.variables[2].expression"), words="undefined field 'b'")
    bad("paramKind", vap("b", "params == null", paramKind={"apiVersion": "a/b/c", "kind": "-x"}), ("FieldValueInvalid", "spec.paramKind.apiVersion"),
        ("FieldValueInvalid", "spec.paramKind.kind"))
    bad("resource rules", vap("b", "true", matchConstraints=rules(
        {"operations": ["*", "CREATE"], "apiGroups": ["*", "a"], "apiVersions": ["*", ""], "resources": ["*", "x", "a/*", "a/b", "*/*"],
         "resourceNames": ["a", "a", "b/c"], "scope": "X"}, {"operations": ["X"]})),
        ("FieldValueInvalid", "spec.matchConstraints.resourceRules[0].operations"), ("FieldValueInvalid", "spec.matchConstraints.resourceRules[0].apiGroups"),
        ("FieldValueInvalid", "spec.matchConstraints.resourceRules[0].apiVersions"),
        ("FieldValueRequired", "spec.matchConstraints.resourceRules[0].apiVersions[1]"),
        ("FieldValueInvalid", "spec.matchConstraints.resourceRules[0].resources"), ("FieldValueInvalid", "spec.matchConstraints.resourceRules[0].resources[3]"),
        ("FieldValueDuplicate", "spec.matchConstraints.resourceRules[0].resourceNames[1]"),
        ("FieldValueInvalid", "spec.matchConstraints.resourceRules[0].resourceNames[2]"),
        ("FieldValueNotSupported", "spec.matchConstraints.resourceRules[0].scope"),
        ("FieldValueNotSupported", "spec.matchConstraints.resourceRules[1].operations[0]"),
        ("FieldValueRequired", "spec.matchConstraints.resourceRules[1].resources"))
    bad("selector", vap("b", "true", matchConstraints=rules(namespaceSelector={"matchLabels": {"-": "x"}})),
        ("FieldValueInvalid", "spec.matchConstraints.namespaceSelector.matchLabels"))
    bad("binding", vapb("b", "-", ["Deny", "Warn", "Deny", "X"], paramRef={}, matchResources={"matchPolicy": "X"}),
        ("FieldValueInvalid", "spec.policyName"), ("FieldValueRequired", "spec.paramRef"),
        ("FieldValueRequired", "spec.paramRef.parameterNotFoundAction"), ("FieldValueNotSupported", "spec.matchResources.matchPolicy"),
        ("FieldValueDuplicate", "spec.validationActions[2]"), ("FieldValueNotSupported", "spec.validationActions[3]"),
        ("FieldValueInvalid", "spec.validationActions"))
    bad("no action", vapb("b", "p", []), ("FieldValueRequired", "spec.validationActions"))
    bad("name and selector", vapb("b", "p", paramRef={"name": "x", "selector": {}, "parameterNotFoundAction": "X"}),
        ("FieldValueForbidden", "spec.paramRef.name"), ("FieldValueForbidden", "spec.paramRef.selector"),
        ("FieldValueNotSupported", "spec.paramRef.parameterNotFoundAction"))
    bad("no mutations", map_("b"), ("FieldValueRequired", "spec.mutations"))
    bad("mutating DELETE", map_("b", "Object{}", matchConstraints=rules(ops("DELETE"))),
        ("FieldValueNotSupported", "spec.matchConstraints.resourceRules.operations"))
    bad("reinvocation", map_("b", "Object{}", reinvocationPolicy=""), ("FieldValueRequired", "spec.reinvocationPolicy"))
    bad("patch types", map_("b", {"patchType": "X"}, {"patchType": "JSONPatch"}, {"patchType": "ApplyConfiguration", "jsonPatch": {"expression": "[]"}}),
        ("FieldValueNotSupported", "spec.mutations[0].patchType"), ("FieldValueRequired", "spec.mutations[1].jsonPatch"),
        ("FieldValueRequired", "spec.mutations[2].applyConfiguration"), ("FieldValueInvalid", "spec.mutations[2].jsonPatch"))
    bad("patch expressions", map_("b", mutation("'x'", "JSONPatch"), mutation("[]", "ApplyConfiguration")),
        words="must evaluate to list(JSONPatch) but got string")
    # updates
    make(a, vap("upd", "true"))
    st, o = a.get(VAP + "/upd")
    o["spec"]["validations"][0]["expression"] = "false"
    st, r = a.put(VAP + "/upd", o)
    equal("update", (st, r["metadata"]["generation"]), (200, 2))
    o["metadata"].pop("resourceVersion")
    equal("needs a version", a.put(VAP + "/upd", o)[0], 422)
    r["spec"]["validations"][0]["expression"] = "false &&"
    equal("checked too", a.put(VAP + "/upd", r)[0], 422)
    clean(a)


def test_validate(a):
    name = fresh()
    enforce(a, vap(name, {"expression": "object.data.size() <= 2", "message": "at most two"},
                   {"expression": "!object.data.exists(k, k == 'bad')", "reason": "Forbidden"},
                   {"expression": "object.metadata.name != 'long'", "reason": "RequestEntityTooLarge", "messageExpression":
                    "object.metadata.name + ' of ' + string(object.data.size())"}))
    st, held = a.post(CM, cm(fresh("o"), a="1"))
    equal("holds", st, 201)
    held["metadata"]["name"] = "again"
    st, e = a.post(CM, held)
    equal("what has a version is no new object", (st, e["message"]), (500, "resourceVersion should not be set on objects to be created"))
    held["data"].update(b="2", c="3")
    st, e = a.post(CM, held)
    check("which only the store says", st == 422 and e["message"].endswith("at most two"), e)
    held["metadata"]["resourceVersion"], held["data"] = "old", {"a": "1"}
    equal("nothing that is no version counts", a.post(CM, held)[0], 201)
    st, e = a.post(CM, cm("three", a="1", b="2", c="3"))
    equal("denied", (st, e["reason"], e["message"], e["details"]), (
        422, "Invalid", "configmaps \"three\" is forbidden: ValidatingAdmissionPolicy '%s' with binding '%s' denied request: at most two" % (name, name),
        {"name": "three", "kind": "configmaps", "causes": [
            {"message": "ValidatingAdmissionPolicy '%s' with binding '%s' denied request: at most two" % (name, name)}]}))
    denied("its reason", a.post(CM, cm("x", bad="1")), "failed expression: !object.data.exists(k, k == 'bad')", 403, "Forbidden")
    denied("its message", a.post(CM, cm("long", a="1")), "denied request: long of 1", 413, "RequestEntityTooLarge")
    equal("a dry run too", a.post(CM + "?dryRun=All", cm("x", bad="1"))[0], 403)
    equal("other resources", a.post("/api/v1/namespaces/default/secrets", {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": fresh("s")},
                                                                           "stringData": {"bad": "1"}})[0], 201)
    make(a, vapb("other", name, ["Warn"]))
    a.delete(VAPB + "/" + name)
    st, h, b = a.raw("POST", CM, json.dumps(cm(fresh("o"), bad="1")), {"Content-Type": "application/json"})
    equal("warned", (st, h.get("Warning")), (201, '299 - "Validation failed for ValidatingAdmissionPolicy \'%s\' with binding \'other\': failed '
                                                  'expression: !object.data.exists(k, k == \'bad\')"' % name))
    a.delete(VAP + "/" + name)
    st, h, b = a.raw("POST", CM, json.dumps(cm(fresh("o"), bad="1")), {"Content-Type": "application/json"})
    equal("a binding without its policy", (st, h.get("Warning")), (201, None))
    clean(a)
    # errors and failurePolicy
    denied("an error denies", tried(a, "object.data.missing == 'x'", obj=cm("x", a="1")),
           "expression 'object.data.missing == 'x'' resulted in error: no such key: missing")
    equal("unless ignored", tried(a, "object.data.missing == 'x'", obj=cm(fresh("o"), a="1"), failurePolicy="Ignore")[0], 201)
    denied("false denies even so", tried(a, "false", failurePolicy="Ignore"), "failed expression: false")
    st, e = tried(a, "object.data.missing == 'x'", obj=cm(fresh("o"), a="1"), actions=["Warn"])
    equal("an error with Warn", st, 201)
    denied("all of several", tried(a, "true", "1 == 2", "false"), "failed expression: 1 == 2")
    denied("message falls back", tried(a, {"expression": "false", "messageExpression": "string(object.x.y)", "message": " plain "}), "denied request: plain")
    denied("a message of lines", tried(a, {"expression": "false", "messageExpression": "'a\\nb'"}), "failed expression: false")
    denied("too long", tried(a, {"expression": "false", "messageExpression": "string(object.data.a)", "message": "short"}, obj=cm("x", a="y" * 6000)),
           "denied request: short")
    # budgets
    big = {"l%d" % i: "x" for i in range(400)}
    denied("cost of one", tried(a, "object.data.all(a, object.data.all(b, object.data.all(c, a + b + c != 'zzz')))", obj=cm("x", **big)),
           "resulted in error: operation cancelled: actual cost limit exceeded")
    many = ["object.data.all(a, object.data.all(b, a + b != 'z%d'))" % i for i in range(25)]
    denied("cost of all", tried(a, *many, obj=cm("x", **big)),
           "validation failed due to running out of cost budget, no further validation rules will be run")


def test_request(a, s):
    """What expressions see."""
    for e in ("request.operation == 'CREATE'", "request.name.startsWith('o')", "request.namespace == 'default'", "request.kind.kind == 'ConfigMap'",
              "request.kind.group == '' && request.kind.version == 'v1'", "request.resource.resource == 'configmaps'",
              "request.requestKind == request.kind || true", "request.requestResource.resource == 'configmaps'", "!has(request.subResource)",
              "request.userInfo.username == 'admin'", "'system:masters' in request.userInfo.groups", "request.dryRun == false",
              "has(request.options) && request.options.kind == 'CreateOptions'", "oldObject == null", "object.kind == 'ConfigMap'",
              "object.apiVersion == 'v1'", "object.metadata.namespace == 'default'", "has(object.metadata.uid) || true",
              "namespaceObject.metadata.name == 'default'", "namespaceObject.metadata.labels['kubernetes.io/metadata.name'] == 'default'",
              "namespaceObject.status.phase == 'Active'", "'kubernetes' in namespaceObject.spec.finalizers",
              "authorizer.group('').resource('pods').namespace('x').check('get').allowed()",
              "authorizer.requestResource.check('create').allowed()", "authorizer.path('/healthz').check('get').allowed()",
              "!authorizer.serviceAccount('default', 'nobody').group('').resource('pods').check('get').allowed()"):
        st, r = tried(a, e, obj=cm(fresh("o"), a="1"))
        check(e, st == 201, r)
    alice = Client(s, token="alicetoken")
    a.post("/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", {
        "kind": "RoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "dev"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "dev"}]})
    name = fresh()
    enforce(a, vap(name, {"expression": "authorizer.group('').resource('nodes').check('list').allowed()", "message": "may not list nodes"}))
    equal("who may", a.post(CM, cm(fresh("o")))[0], 201)
    denied("who may not", alice.post(CM, cm(fresh("o"))), "may not list nodes")
    clean(a)
    # update, delete, connect, subresources
    o = cm("seen", a="1")
    a.post(CM, o)
    enforce(a, vap("upd", {"expression": "object.data.a == oldObject.data.a || request.dryRun", "message": "a stays"},
                   matchConstraints=rules(ops("UPDATE"))))
    denied("update", a.patch(CM + "/seen", {"data": {"a": "2"}}), "a stays")
    equal("another field", a.patch(CM + "/seen", {"data": {"b": "2"}})[0], 200)
    clean(a)
    enforce(a, vap("del", {"expression": "object == null && oldObject.data.a != '1' && request.options.kind == 'DeleteOptions'", "message": "kept"},
                   matchConstraints=rules(ops("DELETE"))))
    denied("delete", a.delete(CM + "/seen"), "kept")
    denied("deletecollection", a.delete(CM + "?fieldSelector=metadata.name%3Dseen"), "kept")
    clean(a)
    equal("and without it", a.delete(CM + "/seen")[0], 200)
    a.post("/api/v1/namespaces/default/serviceaccounts", {"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": "default"}})
    a.post(PODS, pod("conn", nodeName="n1"))
    enforce(a, vap("con", {"expression": "object.kind == 'PodExecOptions' && object.command[0] != 'rm'", "message": "no rm"},
                   matchConstraints=rules(ops("CONNECT", resources=["pods/exec"]))))
    denied("connect", a.post(PODS + "/conn/exec?command=rm&stdout=true", None), "no rm")
    clean(a)
    a.post(DEPLOY, deployment("sub"))
    enforce(a, vap("status", {"expression": "object.status.replicas < 5", "message": "few"},
                   matchConstraints=rules(ops("UPDATE", group="apps", resources=["deployments/status"]))))
    denied("status", a.patch(DEPLOY + "/sub/status", {"status": {"replicas": 7}}), "few")
    equal("not the main resource", a.patch(DEPLOY + "/sub", {"spec": {"replicas": 2}})[0], 200)
    clean(a)
    enforce(a, vap("scale", {"expression": "object.spec.replicas < 5", "message": "few"},
                   matchConstraints=rules(ops("UPDATE", group="apps", resources=["deployments/scale"]))))
    denied("scale", a.patch(DEPLOY + "/sub/scale", {"spec": {"replicas": 7}}), "few")
    clean(a)


def test_match(a):
    a.post("/api/v1/namespaces", {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "env", "labels": {"env": "prod"}}})
    env = "/api/v1/namespaces/env/configmaps"

    def at(what, where, want, obj=None, **constraints):
        m = {"resourceRules": [CONFIGMAPS]}
        m.update(constraints)
        equal(what, tried(a, "false", path=where, obj=obj or cm(fresh("o")), matchConstraints=m)[0], want)

    prod = {"matchLabels": {"env": "prod"}}
    at("namespaceSelector", env, 422, namespaceSelector=prod)
    at("another namespace", CM, 201, namespaceSelector=prod)
    lab = cm(fresh("o"))
    lab["metadata"]["labels"] = {"a": "b"}
    at("objectSelector", CM, 422, obj=lab, objectSelector={"matchLabels": {"a": "b"}})
    at("without the label", CM, 201, objectSelector={"matchLabels": {"a": "b"}})
    at("excluded", CM, 201, excludeResourceRules=[CONFIGMAPS])
    at("excluded by name", CM, 201, obj=cm("spared"), excludeResourceRules=[dict(CONFIGMAPS, resourceNames=["spared"])])
    at("name", CM, 422, obj=cm("named"), resourceRules=[dict(CONFIGMAPS, resourceNames=["named"])])
    at("another name", CM, 201, resourceRules=[dict(CONFIGMAPS, resourceNames=["named"])])
    at("operation", CM, 201, resourceRules=[ops("UPDATE")])
    at("group", CM, 201, resourceRules=[ops("*", group="apps")])
    at("stars", CM, 422, resourceRules=[ops("*", group="*", version="*", resources=["*"])])
    at("stars with subresources", CM, 422, resourceRules=[ops("*", group="*", version="*", resources=["*/*"])])
    at("scope Namespaced", CM, 422, resourceRules=[ops("*", scope="Namespaced")])
    at("scope Cluster", CM, 201, resourceRules=[ops("*", scope="Cluster")])
    ns = {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": fresh("ns"), "labels": {"env": "prod"}}}
    nss = "/api/v1/namespaces"
    at("a namespace is of the cluster", nss, 422, obj=ns, resourceRules=[ops("CREATE", resources=["namespaces"], scope="Cluster")],
       namespaceSelector=prod)
    at("and not in one", nss, 201, obj=ns, resourceRules=[ops("CREATE", resources=["namespaces"], scope="Namespaced")])
    node = {"kind": "Node", "apiVersion": "v1", "metadata": {"name": fresh("node")}}
    at("what has no namespace", "/api/v1/nodes", 422, obj=node, resourceRules=[ops("CREATE", resources=["nodes"])], namespaceSelector=prod)
    # bindings narrow
    for what, want, m in (("binding's selector", 201, {"namespaceSelector": prod}), ("binding's rules", 201, {"resourceRules": [ops("UPDATE")]}),
                          ("binding that matches", 422, {"resourceRules": [CONFIGMAPS]}),
                          ("binding that excludes", 201, {"excludeResourceRules": [CONFIGMAPS]})):
        equal(what, tried(a, "false", matchResources=m)[0], want)
    # the same objects under other versions
    hpa = {"kind": "HorizontalPodAutoscaler", "apiVersion": "autoscaling/v1", "metadata": {"name": fresh("h")},
           "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50, "scaleTargetRef": {"kind": "Deployment", "apiVersion": "apps/v1", "name": "x"}}}
    v1 = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers"
    r2 = ops("CREATE", group="autoscaling", version="v2", resources=["horizontalpodautoscalers"])
    denied("equivalent", tried(a, {"expression": "object.apiVersion == 'autoscaling/v2' && object.spec.metrics[0].resource.target.averageUtilization == 51",
                                   "messageExpression": "request.kind.version + ' ' + request.requestKind.version + ' ' + object.apiVersion"},
                               obj=hpa, path=v1, matchConstraints=rules(r2)), "denied request: v2 v1 autoscaling/v2")
    equal("exact", tried(a, "false", obj=hpa, path=v1, matchConstraints=rules(r2, matchPolicy="Exact"))[0], 201)
    # conditions
    for what, want, conds in (("condition holds", 422, ["true"]), ("does not", 201, ["true", "false"]), ("of the object", 201, ["has(object.data)"]),
                              ("error", 422, ["object.x == 1"]), ("error and false", 201, ["object.x == 1", "false"]),
                              ("variables", 201, ["request.userInfo.username != 'admin'"])):
        equal("conditions: " + what, tried(a, "false", matchConditions=[{"name": "c%d" % i, "expression": c} for i, c in enumerate(conds)])[0], want)
    denied("its words", tried(a, "true", matchConditions=[{"name": "c", "expression": "object.x == 1"}]),
           "expression 'object.x == 1' resulted in error: no such key: x")
    equal("error ignored", tried(a, "false", failurePolicy="Ignore", matchConditions=[{"name": "c", "expression": "object.x == 1"}])[0], 201)
    # never these
    enforce(a, vap("all", "false", matchConstraints=rules(ops("*", group="*", version="*", resources=["*/*"]))))
    equal("policies do not lock themselves", a.post(VAP, vap("free", "true"))[0], 201)
    st, r = a.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {
        "kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "spec": {"resourceAttributes": {"verb": "get", "resource": "x"}}})
    equal("nor reviews", st, 201)
    a.delete(VAP + "/free")
    clean(a)


def test_variables(a):
    v = [{"name": "a", "expression": "has(object.data) ? object.data : {}"}, {"name": "n", "expression": "variables.a.size()"},
         {"name": "bad", "expression": "object.nothing.here"}, {"name": "twice", "expression": "variables.n * 2"}]
    equal("composed", tried(a, "variables.twice == 4 && variables.n == 2", obj=cm(fresh("o"), x="1", y="2"), variables=v)[0], 201)
    denied("in messages", tried(a, {"expression": "variables.n == 0", "messageExpression": "'n is ' + string(variables.twice)"},
                                obj=cm("x", x="1"), variables=v), "n is 2")
    equal("one that fails and is not read", tried(a, "variables.n < 9 || variables.bad == 1", variables=v)[0], 201)
    denied("and when it is", tried(a, "variables.bad == 1", variables=v),
           "resulted in error: composited variable \"bad\" fails to evaluate: no such key: nothing")
    equal("chain of 40", tried(a, "variables.v40 == 40", variables=[{"name": "v0", "expression": "0"}] + [
        {"name": "v%d" % (i + 1), "expression": "variables.v%d + 1" % i} for i in range(40)])[0], 201)
    equal("in conditions", tried(a, "false", variables=v, matchConditions=[])[0], 422)
    equal("declared types", tried(a, "variables.l.all(x, x.startsWith('a')) && variables.m['k'] == 1",
                                  variables=[{"name": "l", "expression": "['a', 'ab']"}, {"name": "m", "expression": "{'k': 1}"}])[0], 201)


def crd(group, plural, kind, scope="Namespaced", versions=("v1",)):
    return {"kind": "CustomResourceDefinition", "apiVersion": "apiextensions.k8s.io/v1", "metadata": {"name": plural + "." + group},
            "spec": {"group": group, "scope": scope, "names": {"plural": plural, "kind": kind},
                     "versions": [{"name": v, "served": True, "storage": i == 0, "schema": {"openAPIV3Schema": {
                         "type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {
                             "spec": {"type": "object", "properties": {"max": {"type": "integer"}, "names": {
                                 "type": "array", "items": {"type": "string"}}}}}}}} for i, v in enumerate(versions)]}}


def test_params(a):
    kind = {"apiVersion": "v1", "kind": "ConfigMap"}
    rule = {"expression": "object.data.size() <= int(params.data.max)", "messageExpression": "'at most ' + params.data.max"}
    secrets = rules(ops("CREATE", resources=["secrets"]))
    path = "/api/v1/namespaces/default/secrets"

    def secret(**data):
        return {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": fresh("s")}, "stringData": data}

    def go(ref, want, words="", obj=None, **spec):
        k = {"paramRef": ref} if ref is not None else {}
        r = tried(a, rule, obj=obj or secret(a="1", b="2"), path=path, paramKind=kind, matchConstraints=secrets, **k, **spec)
        check("params %s" % (ref,), r[0] == want and words in r[1].get("message", ""), r)

    p = cm("limit", max="1")
    p["metadata"]["labels"] = {"limit": "yes"}
    a.post(CM, p)
    go({"name": "limit", "namespace": "default", "parameterNotFoundAction": "Deny"}, 422, "at most 1")
    go({"name": "limit", "parameterNotFoundAction": "Deny"}, 422, "at most 1")
    go({"name": "none", "parameterNotFoundAction": "Deny"}, 422, "failed to configure binding: no params found for policy binding with `Deny` "
                                                              "parameterNotFoundAction")
    go({"name": "none", "parameterNotFoundAction": "Allow"}, 201)
    go({"name": "none", "parameterNotFoundAction": "Deny"}, 201, failurePolicy="Ignore")
    go({"selector": {"matchLabels": {"limit": "yes"}}, "parameterNotFoundAction": "Deny"}, 422, "at most 1")
    go({"selector": {"matchLabels": {"limit": "no"}}, "parameterNotFoundAction": "Allow"}, 201)
    q = cm("limit2", max="5")
    q["metadata"]["labels"] = {"limit": "yes"}
    a.post(CM, q)
    go({"selector": {"matchLabels": {"limit": "yes"}}, "parameterNotFoundAction": "Deny"}, 422, "at most 1")
    a.patch(CM + "/limit", {"data": {"max": "2"}})
    go({"selector": {"matchLabels": {"limit": "yes"}}, "parameterNotFoundAction": "Deny"}, 201)
    go(None, 422, "resulted in error")
    equal("params may be null", tried(a, "params == null", paramKind=kind)[0], 201)
    equal("they have their kind", tried(a, "params.kind == 'ConfigMap' && params.apiVersion == 'v1' && params.metadata.name == 'limit'", paramKind=kind,
                                        paramRef={"name": "limit", "parameterNotFoundAction": "Deny"})[0], 201)
    node = {"kind": "Node", "apiVersion": "v1", "metadata": {"name": fresh("node")}}
    denied("no namespace to look in", tried(a, "true", obj=node, path="/api/v1/nodes", paramKind=kind, matchConstraints=rules(
        ops("CREATE", resources=["nodes"])), paramRef={"name": "limit", "parameterNotFoundAction": "Deny"}),
           "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources")
    denied("a kind that is not there", tried(a, "true", paramKind={"apiVersion": "no.example.com/v1", "kind": "Nothing"}),
           "failed to configure policy: failed to find resource referenced by paramKind: 'no.example.com/v1, Kind=Nothing'")
    # custom resources
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    a.define(crd("p.example.com", "limits", "Limit", "Cluster", ("v1", "v2")))
    a.post("/apis/p.example.com/v1/limits", {"kind": "Limit", "apiVersion": "p.example.com/v1", "metadata": {"name": "one"},
                                             "spec": {"max": 1, "names": ["a", "b"]}})
    for v in ("v1", "v2"):
        k = {"apiVersion": "p.example.com/" + v, "kind": "Limit"}
        ref = {"name": "one", "parameterNotFoundAction": "Deny"}
        equal("custom parameter %s" % v, tried(a, "object.data.size() == params.spec.max && params.apiVersion == 'p.example.com/%s' && "
                                               "'b' in params.spec.names" % v, obj=cm(fresh("o"), a="1"), paramKind=k, paramRef=ref)[0], 201)
    denied("no namespace of it", tried(a, "true", paramKind=k, paramRef=dict(ref, namespace="default")),
           "paramRef.namespace must not be provided for a cluster-scoped `paramKind`")
    # policies over custom resources, in any version
    it = {"kind": "Limit", "apiVersion": "p.example.com/v2", "metadata": {"name": fresh("l")}, "spec": {"max": 9}}
    rule = ops("CREATE", group="p.example.com", version="v1", resources=["limits"])
    denied("custom resource, equivalent", tried(a, {"expression": "object.spec.max < 5", "messageExpression": "string(object.apiVersion)"}, obj=it,
                                                path="/apis/p.example.com/v2/limits", matchConstraints=rules(rule)), "denied request: p.example.com/v1")
    a.delete(crds + "/limits.p.example.com")
    a.delete(CM + "/limit")
    a.delete(CM + "/limit2")


def test_who(a, s):
    """Who may make policies with parameters."""
    alice = Client(s, token="alicetoken")
    role = "/apis/rbac.authorization.k8s.io/v1/clusterrole"
    a.post(role + "s", {"kind": "ClusterRole", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "policies"}, "rules": [
        {"verbs": ["*"], "apiGroups": ["admissionregistration.k8s.io"], "resources": ["*"]}]})
    a.post(role + "bindings", {"kind": "ClusterRoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "policies"},
                               "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "policies"},
                               "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "alice"}]})
    kind = {"apiVersion": "v1", "kind": "Secret"}
    st, e = alice.post(VAP, vap("sec", "true", paramKind=kind))
    equal("paramKind", (st, causes(e)), (422, [("FieldValueForbidden", "spec.paramKind")]))
    check("its words", 'must have "get" permission on all objects of the referenced paramKind (kind=Secret, apiVersion=v1)' in e["message"], e)
    make(a, vap("sec", "true", paramKind=kind))
    ref = {"name": "x", "namespace": "kube-system", "parameterNotFoundAction": "Deny"}
    st, e = alice.post(VAPB, vapb("sec", "sec", paramRef=ref))
    check("paramRef", st == 422 and 'does not have "get" permission on the object referenced by paramRef' in e["message"], e)
    st, e = alice.post(VAPB, vapb("sec", "none", paramRef=ref))
    check("of no policy", st == 422 and "unable to get policy none to determine minimum required permissions" in e["message"], e)
    equal("without parameters", alice.post(VAP, vap("free", "true"))[0], 201)
    a.delete(VAP + "/free")
    clean(a)


def audit_lines(s):
    return [json.loads(l) for l in open(os.path.join(s.dir, "audit.log"))]


def test_audit(a, s):
    enforce(a, vap("aud", "object.data.a == '1'", auditAnnotations=[
        {"key": "who", "valueExpression": "'by ' + request.userInfo.username"}, {"key": "none", "valueExpression": "null"},
        {"key": "empty", "valueExpression": "' '"}]), actions=["Audit"])
    equal("Audit lets through", a.post(CM, cm("audited", a="2"))[0], 201)
    notes = until("an event", lambda: [e for e in audit_lines(s) if e["verb"] == "create" and e.get("annotations", {}).get("aud/who")])[-1]["annotations"]
    equal("annotations", {k: v for k, v in notes.items() if k.startswith("aud/") or k.startswith("auth")},
          {"aud/who": "by admin", "authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""})
    equal("failure", json.loads(notes.get("validation.policy.admission.k8s.io/validation_failure", "null")), [
        {"message": "failed expression: object.data.a == '1'", "policy": "aud", "binding": "aud", "expressionIndex": 0, "validationActions": ["Audit"]}])
    clean(a)
    denied("an annotation that fails", tried(a, "true", auditAnnotations=[{"key": "k", "valueExpression": "string(object.x)"}]), "no such key: x")
    equal("ignored", tried(a, "true", auditAnnotations=[{"key": "k", "valueExpression": "string(object.x)"}], failurePolicy="Ignore")[0], 201)


def changed(a, *mutations, obj=None, path=CM, **spec):
    """What a create comes to under a mutating policy."""
    name = fresh("m")
    k = {x: spec.pop(x) for x in ("paramRef", "matchResources") if x in spec}
    enforce(a, map_(name, *mutations, **spec), **k)
    r = a.post(path, obj or cm(fresh("o")))
    clean(a)
    return r


def test_mutate(a):
    st, o = changed(a, "Object{metadata: Object.metadata{labels: Object.metadata.labels{made: 'yes'}}}", obj=cm(fresh("o"), a="1"))
    check("ApplyConfiguration", st == 201 and o["metadata"].get("labels") == {"made": "yes"} and o["data"] == {"a": "1"}, (st, o))
    st, o = changed(a, "Object{metadata: Object.metadata{labels: {'x.example.com/y': object.metadata.name}}}", obj=cm("named", a="1"))
    check("from the object", st == 201 and o["metadata"].get("labels") == {"x.example.com/y": "named"}, (st, o))
    a.delete(CM + "/named")
    st, o = changed(a, "[JSONPatch{op: 'add', path: '/data', value: {'a': 'b'}}, JSONPatch{op: 'copy', from: '/data/a', path: '/data/c'}]")
    check("JSONPatch", st == 201 and o["data"] == {"a": "b", "c": "b"}, (st, o))
    st, o = changed(a, "[JSONPatch{op: 'add', path: '/metadata/annotations', value: {}}, JSONPatch{op: 'add', path: "
                    "'/metadata/annotations/' + jsonpatch.escapeKey('a.example.com/b'), value: 'c'}]")
    check("escapeKey", st == 201 and o["metadata"].get("annotations") == {"a.example.com/b": "c"}, (st, o))
    st, o = changed(a, "[JSONPatch{op: 'test', path: '/data/a', value: 'x'}, JSONPatch{op: 'remove', path: '/data/a'}]", obj=cm(fresh("o"), a="1"))
    check("a test that fails changes nothing", st == 201 and o["data"] == {"a": "1"}, (st, o))
    st, o = changed(a, "[JSONPatch{op: 'add', path: '/data/b', value: '2'}]", "[JSONPatch{op: 'add', path: '/data/c', value: object.data.b + '3'}]",
                    obj=cm(fresh("o"), a="1"))
    check("one after the other", st == 201 and o["data"] == {"a": "1", "b": "2", "c": "23"}, (st, o))
    pods = rules(ops("CREATE", resources=["pods"]))
    st, o = changed(a, "Object{spec: Object.spec{initContainers: [Object.spec.initContainers{name: 'mesh', image: 'mesh:1', restartPolicy: 'Always'}]}}",
                    obj=pod(fresh("p")), path=PODS, matchConstraints=pods)
    check("a sidecar", st == 201 and [c["name"] for c in o["spec"].get("initContainers", [])] == ["mesh"] and
          o["spec"]["initContainers"][0]["terminationMessagePath"] == "/dev/termination-log", (st, o))
    st, o = changed(a, "Object{spec: Object.spec{containers: object.spec.containers.map(c, Object.spec.containers{name: c.name, image: 'r/' + c.image})}}",
                    obj=pod(fresh("p")), path=PODS, matchConstraints=pods)
    check("lists by key", st == 201 and [(c["name"], c["image"]) for c in o["spec"]["containers"]] == [("c", "r/busybox")], (st, o))
    denied("atomic lists", changed(a, "Object{spec: Object.spec{containers: [Object.spec.containers{name: 'c', args: ['x']}]}}", obj=pod("x"), path=PODS,
                                   matchConstraints=pods),
           "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.containers[0].args", 403)
    denied("unknown fields", changed(a, "Object{spec: Object.spec{bogus: 1}}", obj=pod("x"), path=PODS, matchConstraints=pods), ".spec.bogus", 403)
    denied("type names", changed(a, "Object{spec: Object.wrong{hostNetwork: true}}", obj=pod("x"), path=PODS, matchConstraints=pods),
           'type mismatch: unexpected type name "Object.wrong", expected "Object.spec", which matches field name path from root Object type', 403)
    name = fresh("m")
    enforce(a, map_(name, "[JSONPatch{op: 'remove', path: '/data/none'}]"))
    st, e = a.post(CM, cm("x", a="1"))
    equal("a patch that does not fit", (st, e["reason"], e["message"].startswith("policy '%s' with binding '%s' denied request: JSON Patch: " % (name, name))),
          (403, "Invalid", True))
    clean(a)
    denied("an error", changed(a, "[JSONPatch{op: 'add', path: '/data/b', value: object.x}]", obj=cm("x", a="1")), "no such key: x", 403)
    equal("ignored", changed(a, "[JSONPatch{op: 'add', path: '/data/b', value: object.x}]", failurePolicy="Ignore")[0], 201)
    st, o = changed(a, "[JSONPatch{op: 'add', path: '/data/b', value: '2'}]", obj=cm(fresh("o"), a="1"),
                    matchConditions=[{"name": "c", "expression": "object.data.a != '1'"}])
    check("conditions", st == 201 and o["data"] == {"a": "1"}, (st, o))
    st, o = changed(a, "[JSONPatch{op: 'add', path: '/data/b', value: variables.v + params.data.p}]", obj=cm(fresh("o"), a="1"),
                    variables=[{"name": "v", "expression": "object.data.a + namespaceObject.metadata.name"}], paramKind={"apiVersion": "v1", "kind": "ConfigMap"},
                    paramRef={"name": "par", "parameterNotFoundAction": "Allow"})
    check("no parameter: left alone", st == 201 and o["data"] == {"a": "1"}, (st, o))
    a.post(CM, cm("par", p="!"))
    st, o = changed(a, "[JSONPatch{op: 'add', path: '/data/b', value: variables.v + params.data.p}]", obj=cm(fresh("o"), a="1"),
                    variables=[{"name": "v", "expression": "object.data.a + namespaceObject.metadata.name"}], paramKind={"apiVersion": "v1", "kind": "ConfigMap"},
                    paramRef={"name": "par", "parameterNotFoundAction": "Allow"})
    check("variables and parameters", st == 201 and o["data"] == {"a": "1", "b": "1default!"}, (st, o))
    # updates; what is invalid after it is refused
    a.post(CM, cm("upd", a="1"))
    enforce(a, map_("upd", "[JSONPatch{op: 'replace', path: '/data/a', value: oldObject.data.a}]", matchConstraints=rules(ops("UPDATE"))))
    st, o = a.patch(CM + "/upd", {"data": {"a": "2", "b": "3"}})
    equal("update", (st, o.get("data")), (200, {"a": "1", "b": "3"}))
    clean(a)
    st, e = changed(a, "Object{spec: Object.spec{restartPolicy: 'Sometimes'}}", obj=pod("x"), path=PODS, matchConstraints=pods)
    equal("validated after it", (st, causes(e)), (422, [("FieldValueNotSupported", "spec.restartPolicy")]))
    # a validating policy sees what came out
    enforce(a, map_("add", "[JSONPatch{op: 'add', path: '/data/b', value: '2'}]"))
    enforce(a, vap("see", "object.data.b == '2'"))
    equal("judged after it", a.post(CM, cm(fresh("o"), a="1"))[0], 201)
    clean(a)
    # in the version that matched: of a built-in kind upstream has no way back to the request's
    hpa = {"kind": "HorizontalPodAutoscaler", "apiVersion": "autoscaling/v1", "metadata": {"name": fresh("h")},
           "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "apiVersion": "apps/v1", "name": "x"}}}
    st, o = changed(a, "Object{spec: Object.spec{maxReplicas: 7}}", obj=hpa, path="/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers",
                    matchConstraints=rules(ops("CREATE", group="autoscaling", version="v2", resources=["horizontalpodautoscalers"])))
    equal("equivalent", (st, o.get("reason")), (403, "Invalid"))
    # custom resources
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    a.define(crd("m.example.com", "things", "Thing"))
    things = "/apis/m.example.com/v1/namespaces/default/things"
    thing = {"kind": "Thing", "apiVersion": "m.example.com/v1", "metadata": {"name": "a"}, "spec": {"max": 1}}
    r = rules(ops("CREATE", group="m.example.com", resources=["things"]))
    st, o = changed(a, "Object{spec: Object.spec{max: object.spec.max + 1}}", "[JSONPatch{op: 'add', path: '/spec/names', value: ['n']}]", obj=thing,
                    path=things, matchConstraints=r)
    equal("custom resource", (st, o.get("spec")), (201, {"max": 2, "names": ["n"]}))
    a.delete(crds + "/things.m.example.com")


def test_reinvoke(a, s):
    add = "[JSONPatch{op: 'add', path: '/data/%s', value: '%s'}]"
    # a runs before b; b's change makes a run again when it asks for it
    for policy, want in (("Never", {"x": "1", "b": "1"}), ("IfNeeded", {"x": "1", "b": "1", "a": "saw b"})):
        enforce(a, map_("a", add % ("a", "saw b"), reinvocationPolicy=policy, matchConditions=[{"name": "c", "expression": "'b' in object.data"}]))
        enforce(a, map_("b", add % ("b", "1")))
        st, o = a.post(CM, cm(fresh("o"), x="1"))
        equal("reinvocation %s" % policy, (st, o.get("data")), (201, {"x": "1", "b": "1"}))
        clean(a)
    for policy, want in (("Never", "x"), ("IfNeeded", "xx")):
        enforce(a, map_("a", "[JSONPatch{op: 'add', path: '/data/a', value: ('a' in object.data ? object.data.a : '') + 'x'}]", reinvocationPolicy=policy))
        enforce(a, map_("b", add % ("b", "1")))
        st, o = a.post(CM, cm(fresh("o"), x="1"))
        equal("run again: %s" % policy, (st, o.get("data", {}).get("a")), (201, want))
        clean(a)


def prepare(s):
    write(s, "audit.yaml", "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]")
    s.more = ["--audit-log-path", "audit.log", "--audit-policy-file", "audit.yaml"]
    s.start()
    return {"a": Client(s, cert="admin")}


if __name__ == "__main__":
    suite("policy", prepare, (test_rules, test_validate, test_request, test_match, test_variables, test_params, test_who, test_audit, test_mutate,
                              test_reinvoke), lambda have: clean(have["a"]))
