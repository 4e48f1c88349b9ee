#!/usr/bin/env python3
"""/metrics: names, types and labels as upstream's stable-metrics-list.yaml has them, and what is counted.

Usage: metrics_test.py PATH-OF-kube-apiserver. Prints one line a failed check and "N passed, N failed".
"""
import base64, http.client, http.server, json, os, re, ssl, sys, threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from access_test import until
from apiserver_test import CM, Client, check, cm, equal, suite
from paths_test import fields

# name: type, labels
STABLE = {
    "apiserver_admission_controller_admission_duration_seconds": ("histogram", "name operation rejected type"),
    "apiserver_admission_step_admission_duration_seconds": ("histogram", "operation rejected type"),
    "apiserver_current_inflight_requests": ("gauge", "request_kind"),
    "apiserver_longrunning_requests": ("gauge", "component group resource scope subresource verb version"),
    "apiserver_request_duration_seconds": ("histogram", "component dry_run group resource scope subresource verb version"),
    "apiserver_request_total": ("counter", "code component dry_run group resource scope subresource verb version"),
    "apiserver_requested_deprecated_apis": ("gauge", "group removed_release resource subresource version"),
    "apiserver_response_sizes": ("histogram", "component group resource scope subresource verb version"),
    "apiserver_storage_objects": ("gauge", "resource"),
    "apiserver_storage_size_bytes": ("gauge", "storage_cluster_id"),
}
BETA = {
    "apiserver_cel_compilation_duration_seconds": ("histogram", ""),
    "apiserver_cel_evaluation_duration_seconds": ("histogram", ""),
    "apiserver_flowcontrol_current_executing_requests": ("gauge", "flow_schema priority_level"),
    "apiserver_flowcontrol_current_executing_seats": ("gauge", "flow_schema priority_level"),
    "apiserver_flowcontrol_current_inqueue_requests": ("gauge", "flow_schema priority_level"),
    "apiserver_flowcontrol_dispatched_requests_total": ("counter", "flow_schema priority_level"),
    "apiserver_flowcontrol_nominal_limit_seats": ("gauge", "priority_level"),
    "apiserver_flowcontrol_request_wait_duration_seconds": ("histogram", "execute flow_schema priority_level"),
    "apiserver_storage_events_received_total": ("counter", "group resource"),
    "apiserver_validating_admission_policy_check_total": ("counter", "enforcement_action error_type policy policy_binding"),
    "apiserver_validating_admission_policy_check_duration_seconds": ("histogram", "enforcement_action error_type policy policy_binding"),
    "apiserver_watch_list_duration_seconds": ("histogram", "group resource scope version"),
    "kubernetes_build_info": ("gauge", "build_date compiler git_commit git_tree_state git_version go_version major minor platform"),
    "kubernetes_feature_enabled": ("gauge", "name stage"),
    "registered_metrics_total": ("counter", "deprecated_version stability_level"),
}
ALPHA = {
    "apiserver_audit_requests_rejected_total": ("counter", ""),
    "apiserver_cache_list_fetched_objects_total": ("counter", "group index resource"),
    "apiserver_cache_list_returned_objects_total": ("counter", "group resource"),
    "apiserver_cache_list_total": ("counter", "group index resource"),
    "apiserver_client_certificate_expiration_seconds": ("histogram", ""),
    "apiserver_flowcontrol_demand_seats": ("histogram", "priority_level"),
    "apiserver_flowcontrol_priority_level_request_utilization": ("histogram", "phase priority_level"),
    "apiserver_flowcontrol_priority_level_seat_utilization": ("histogram", "phase priority_level"),
    "apiserver_flowcontrol_read_vs_write_current_requests": ("histogram", "phase request_kind"),
    "apiserver_mutating_admission_policy_check_duration_seconds": ("histogram", "error_type policy policy_binding"),
    "apiserver_mutating_admission_policy_check_total": ("counter", "error_type policy policy_binding"),
    "apiserver_storage_list_evaluated_objects_total": ("counter", "group resource"),
    "apiserver_storage_list_total": ("counter", "group resource"),
    "apiserver_tls_handshake_errors_total": ("counter", ""),
    "apiserver_watch_cache_consistent_read_total": ("counter", "fallback group resource success"),
    "apiserver_watch_cache_events_dispatched_total": ("counter", "group resource"),
    "apiserver_watch_cache_initializations_total": ("counter", "group resource"),
    "cardinality_enforcement_unexpected_categorizations_total": ("counter", ""),
    "etcd_request_duration_seconds": ("histogram", "group operation resource"),
    "etcd_requests_total": ("counter", "group operation resource"),
    "kube_apiserver_clusterip_allocator_allocated_ips": ("gauge", "cidr"),
    "kube_apiserver_clusterip_allocator_allocation_duration_seconds": ("histogram", "cidr"),
    "kube_apiserver_clusterip_allocator_allocation_total": ("counter", "cidr scope"),
    "kube_apiserver_clusterip_allocator_available_ips": ("gauge", "cidr"),
    "kube_apiserver_nodeport_allocator_allocation_errors_total": ("counter", "scope"),
    "kube_apiserver_nodeport_allocator_allocation_total": ("counter", "scope"),
    "kube_apiserver_nodeport_allocator_available_ports": ("gauge", ""),
    "serviceaccount_invalid_legacy_auto_token_uses_total": ("counter", ""),
    "apiextensions_apiserver_validation_ratcheting_seconds": ("histogram", ""),
    "apiserver_admission_step_admission_duration_seconds_summary": ("summary", "operation rejected type"),
    "apiserver_flowcontrol_current_limit_seats": ("gauge", "priority_level"),
    "apiserver_flowcontrol_current_r": ("gauge", "priority_level"),
    "apiserver_flowcontrol_demand_seats_average": ("gauge", "priority_level"),
    "apiserver_flowcontrol_demand_seats_high_watermark": ("gauge", "priority_level"),
    "apiserver_flowcontrol_demand_seats_smoothed": ("gauge", "priority_level"),
    "apiserver_flowcontrol_demand_seats_stdev": ("gauge", "priority_level"),
    "apiserver_flowcontrol_dispatch_r": ("gauge", "priority_level"),
    "apiserver_flowcontrol_latest_s": ("gauge", "priority_level"),
    "apiserver_flowcontrol_next_discounted_s_bounds": ("gauge", "bound priority_level"),
    "apiserver_flowcontrol_next_s_bounds": ("gauge", "bound priority_level"),
    "apiserver_flowcontrol_request_queue_length_after_enqueue": ("histogram", "flow_schema priority_level"),
    "apiserver_flowcontrol_seat_fair_frac": ("gauge", ""),
    "apiserver_flowcontrol_target_seats": ("gauge", "priority_level"),
    "apiserver_flowcontrol_watch_count_samples": ("histogram", "flow_schema priority_level"),
    "apiserver_init_events_total": ("counter", "group resource"),
    "apiserver_kube_aggregator_x509_insecure_sha1_total": ("counter", ""),
    "apiserver_kube_aggregator_x509_missing_san_total": ("counter", ""),
    "apiserver_nodeport_repair_reconcile_errors_total": ("counter", ""),
    "apiserver_request_filter_duration_seconds": ("histogram", "filter"),
    "apiserver_request_timestamp_comparison_time": ("histogram", "code_path"),
    "apiserver_storage_data_key_generation_duration_seconds": ("histogram", ""),
    "apiserver_watch_cache_read_wait_seconds": ("histogram", "group resource"),
    "apiserver_webhooks_x509_insecure_sha1_total": ("counter", ""),
    "apiserver_webhooks_x509_missing_san_total": ("counter", ""),
    "authentication_token_cache_active_fetch_count": ("gauge", "status"),
    "authentication_token_cache_fetch_total": ("counter", "status"),
    "authentication_token_cache_request_duration_seconds": ("histogram", "status"),
    "authentication_token_cache_request_total": ("counter", "status"),
    "field_validation_request_duration_seconds": ("histogram", "field_validation"),
    "kube_apiserver_pod_logs_backend_tls_failure_total": ("counter", ""),
    "pod_security_evaluations_total": ("counter", "decision mode policy_level policy_version request_operation resource subresource"),
    "watch_cache_capacity": ("gauge", "group resource"),
}
# alpha, and called an experiment: upstream's timing histograms
TIMING = {n: ALPHA.pop(n) for n in ("apiserver_flowcontrol_demand_seats", "apiserver_flowcontrol_priority_level_request_utilization",
                                    "apiserver_flowcontrol_priority_level_seat_utilization", "apiserver_flowcontrol_read_vs_write_current_requests")}


class Metrics:
    """One reading: families[name] = type, help; series["name{labels}"] = value."""

    def __init__(self, a):
        st, h, data = a.raw("GET", "/metrics")
        self.families, self.series, self.order = {}, {}, []
        for l in data.decode().splitlines():
            m = re.match(r"# (HELP|TYPE) (\S+) (.*)", l)
            if m and m[1] == "HELP":
                self.order.append(m[2])
                self.families[m[2]] = [None, m[3]]
            elif m:
                self.families[m[2]][0] = m[3]
            else:
                k, _, v = l.rpartition(" ")
                name, _, labels = k.rstrip("}").partition("{")
                self.series[self.key(name, re.findall(r'\w+="(?:[^"\\]|\\.)*"', labels))] = float(v)

    def key(self, name, labels):
        return name + "{" + ",".join(sorted(labels)) + "}"

    def labels(self, name):
        """The names of a family's labels, of all its series."""
        out = set()
        for k in self.series:
            if k.startswith((name + "{", name + "_bucket{")):
                out.add(" ".join(x for x in re.findall(r'(\w+)="(?:[^"\\]|\\.)*"', k) if x not in ("le", "quantile")))
        return out

    def get(self, metric, **labels):
        return self.series.get(self.key(metric, ('%s="%s"' % i for i in labels.items())))


def requests(a, verb, scope, code=200, dry_run="", resource="configmaps", **more):
    return Metrics(a).get("apiserver_request_total", **{"code": code, "component": "apiserver", "dry_run": dry_run, "group": "", "resource": resource,
                                                        "scope": scope, "subresource": "", "verb": verb, "version": "v1", **more}) or 0


def test_requests(a):
    a.post(CM, cm("a"))
    for verb, scope, method, path, body, headers, more in (
            ("GET", "resource", "GET", CM + "/a", None, None, {}),
            ("GET", "resource", "GET", CM + "/absent", None, None, {"code": 404}),
            ("LIST", "namespace", "GET", CM, None, None, {}),
            ("LIST", "cluster", "GET", "/api/v1/configmaps", None, None, {}),
            ("WATCH", "namespace", "GET", CM + "?watch=1&timeoutSeconds=1", None, None, {}),
            ("POST", "resource", "POST", CM + "?dryRun=All", '{"metadata":{"name":"b"}}', None, {"code": 201, "dry_run": "All"}),
            ("POST", "resource", "POST", CM + "?dryRun=odd", '{"metadata":{"name":"b"}}', None, {"code": 422, "dry_run": "invalid"}),
            ("PATCH", "resource", "PATCH", CM + "/a", "{}", {"Content-Type": "application/merge-patch+json"}, {}),
            ("APPLY", "resource", "PATCH", CM + "/a?fieldManager=m", '{"apiVersion":"v1","kind":"ConfigMap"}',
             {"Content-Type": "application/apply-patch+yaml"}, {}),
            ("DELETE", "namespace", "DELETE", CM + "?labelSelector=none", None, None, {}),
            ("CONNECT", "resource", "GET", CM.replace("configmaps", "pods") + "/none/log", None, None,
             {"code": 404, "resource": "pods", "subresource": "log"})):
        before = requests(a, verb, scope, **more)
        st = a.raw(method, path, body, headers)[0]
        equal("%s %s is answered" % (method, path), st, more.get("code", 200))
        equal("%s %s is counted" % (method, path), requests(a, verb, scope, **more) - before, 1)
    equal("nothing of that name", a.raw("GET", "/api/v1/nothings")[0], 404)
    equal("no series of what is not there", [k for k in Metrics(a).series if "nothings" in k], [])
    one = {"component": "apiserver", "group": "", "resource": "configmaps", "scope": "resource", "subresource": "", "verb": "GET", "version": "v1"}
    m = Metrics(a)
    n = m.get("apiserver_response_sizes_count", **one)
    size = m.get("apiserver_response_sizes_sum", **one)
    got = a.raw("GET", CM + "/a")[2]
    m = Metrics(a)
    equal("bytes of an answer", (m.get("apiserver_response_sizes_count", **one) - n, m.get("apiserver_response_sizes_sum", **one) - size), (1, len(got)))
    bounds = [m.get("apiserver_request_duration_seconds_bucket", dry_run="", le=b, **one) for b in ("0.005", "1", "60", "+Inf")]
    check("buckets only grow", None not in bounds and bounds == sorted(bounds), bounds)
    equal("the last has all", bounds[-1], m.get("apiserver_request_duration_seconds_count", dry_run="", **one))


def test_long_running(a):
    labels = {"component": "apiserver", "group": "", "resource": "configmaps", "scope": "namespace", "subresource": "", "verb": "WATCH", "version": "v1"}
    w = a.open()
    w.request("GET", CM + "?watch=1", headers={})
    equal("watch", w.getresponse().status, 200)
    until("the watch is open", lambda: Metrics(a).get("apiserver_longrunning_requests", **labels) == 1)
    w.close()
    until("and closed", lambda: Metrics(a).get("apiserver_longrunning_requests", **labels) == 0)


class Change:
    """How much series have grown since."""

    def __init__(self, a):
        self.a, self.m = a, Metrics(a)

    def __call__(self, metric, **labels):
        return (Metrics(self.a).get(metric, **labels) or 0) - (self.m.get(metric, **labels) or 0)


def test_steps(a):
    """The steps of requests, of whom they came, and what they compared."""
    grown = Change(a)
    a.raw("GET", CM, headers={"User-Agent": "kube-apiserver/v1.36.0"})
    a.raw("GET", CM, headers={"User-Agent": "kube-apiserver"})
    equal("of who calls itself so", grown("apiserver_selfrequest_total", group="", resource="configmaps", subresource="", verb="LIST"), 1)
    for f in ("authentication", "audit", "constrainedimpersonation", "priorityandfairness", "authorization"):
        grown = Change(a)
        a.raw("GET", CM)
        equal(f, grown("apiserver_request_filter_duration_seconds_count", filter=f), 2)  # and the reading itself
    client = Client(a.s, token="alicetoken")
    grown = Change(a)
    equal("forbidden", client.get(CM)[0], 403)
    equal("not let through", (grown("apiserver_request_filter_duration_seconds_count", filter="priorityandfairness"),
                              grown("apiserver_request_filter_duration_seconds_count", filter="authorization")), (2, 2))
    grown = Change(a)
    a.post(CM, cm("steps", x="1"))
    equal("made and changed", (a.put(CM + "/steps", cm("steps", x="2"))[0], a.put(CM + "/steps", cm("steps", x="2"))[0]), (200, 200))
    check("compared", sum(grown("apiserver_request_timestamp_comparison_time_count", code_path=p) for p in
                          ("unequal_objects_fast", "unequal_objects_slow", "equal_objects")) == 2)
    grown = Change(a)
    for v in ("Strict", "odd"):
        a.raw("POST", CM + "?dryRun=All&fieldValidation=" + v, json.dumps(cm("steps2")))
    equal("field validation", [grown("field_validation_request_duration_seconds_count", field_validation=v) for v in ("Strict", "invalid", "Warn")], [1, 1, 0])
    of = {"operation": "CREATE", "rejected": "false", "type": "admit"}
    m, name = Metrics(a), "apiserver_admission_step_admission_duration_seconds"
    equal("a summary of the same", (m.get(name + "_summary_count", **of), m.get(name + "_summary_sum", **of)),
          (m.get(name + "_count", **of), m.get(name + "_sum", **of)))
    q = [m.get(name + "_summary", quantile=x, **of) for x in ("0.5", "0.9", "0.99")]
    check("quantiles grow", 0 < q[0] <= q[1] <= q[2] < 60, q)


def test_tokens(a):
    c = "authentication_token_cache_"
    sa, _ = a.post("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "counted"}})
    token = a.post("/api/v1/namespaces/default/serviceaccounts/counted/token", {"spec": {}})[1]["status"]["token"]
    grown = Change(a)
    for i in range(3):
        Client(a.s, token=token).get("/version")
    equal("once and then from memory", [grown(c + "request_total", status=s) for s in ("miss", "hit")] + [grown(c + "fetch_total", status="ok")], [1, 2, 1])
    equal("refused", (Client(a.s, token="none")).get("/version")[0], 401)
    equal("which is no failure", (grown(c + "request_total", status="miss"), grown(c + "fetch_total", status="ok")), (2, 2))
    equal("a broken one", Client(a.s, token=token[:-4] + "AAAA").get("/version")[0], 401)
    equal("is", grown(c + "fetch_total", status="error"), 1)
    m = Metrics(a)
    equal("none now", [m.get(c + "active_fetch_count", status=s) for s in ("blocked", "in_flight")], [0, 0])


def test_impersonation(a):
    grown = Change(a)
    n = lambda what, mode, decision: grown("apiserver_impersonation_%s_total" % what, mode=mode, decision=decision)
    equal("as somebody", a.raw("GET", CM, headers={"Impersonate-User": "bob"})[0], 403)
    equal("who is no system's", (n("attempts", "user-info", "allowed"), n("authorization_attempts", "user-info", "allowed")), (1, 2))
    equal("as an administrator", a.raw("GET", CM, headers={"Impersonate-User": "x", "Impersonate-Group": "system:masters"})[0], 200)
    equal("the older way", (n("attempts", "legacy", "allowed"), n("authorization_attempts", "legacy", "allowed")), (1, 2))
    equal("who may not", Client(a.s, token="alicetoken").raw("GET", CM, headers={"Impersonate-User": "bob"})[0], 403)
    equal("not at all", (n("attempts", "", "denied"), n("authorization_attempts", "legacy", "denied"), n("authorization_attempts", "user-info", "denied")), (1, 1, 1))
    equal("timed", grown("apiserver_impersonation_attempts_duration_seconds_count", mode="", decision="denied"), 1)


def test_definitions(a):
    crds, ws = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "/apis/counted.io/v1/ws"
    props = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": props}}
    equal("defined", a.post(crds, {"metadata": {"name": "ws.counted.io"}, "spec": {"group": "counted.io", "scope": "Cluster", "versions": [version],
                                                                                  "names": {"plural": "ws", "kind": "W"}}})[0], 201)
    until("served", lambda: a.get(ws)[0] == 200)
    count = lambda reason: (Metrics(a).get("apiextensions_openapi_v2_regeneration_count", crd="ws.counted.io", reason=reason),
                            Metrics(a).get("apiextensions_openapi_v3_regeneration_count", crd="ws.counted.io", group="counted.io", reason=reason, version="v1"))
    equal("added", count("add"), (1, 1))
    before = count("update")[0] or 0
    a.raw("PATCH", crds + "/ws.counted.io", '{"spec":{"names":{"shortNames":["cw"]}}}', {"Content-Type": "application/merge-patch+json"})
    until("changed", lambda: (a.get(ws) and count("update")[0] or 0) > before)
    grown = Change(a)
    o = {"apiVersion": "counted.io/v1", "kind": "W", "metadata": {"name": "w"}, "spec": {"a": [1, {"b": 2}]}}
    equal("made", a.post(ws, o)[0], 201)
    equal("nothing to compare with", grown("apiextensions_apiserver_validation_ratcheting_seconds_count"), 0)
    a.raw("PATCH", ws + "/w", '{"spec":{"c":1}}', {"Content-Type": "application/merge-patch+json"})
    equal("compared", grown("apiextensions_apiserver_validation_ratcheting_seconds_count"), 1)
    a.delete(crds + "/ws.counted.io")
    until("gone", lambda: a.get(ws)[0] == 404)
    equal("removed", count("remove"), (1, 1))


def test_watches(a):
    of = {"group": "", "resource": "configmaps"}
    grown = Change(a)
    n = len(a.get(CM)[1]["items"])
    for q in ("resourceVersion=0", "resourceVersion=%s" % a.get(CM)[1]["metadata"]["resourceVersion"]):
        a.raw("GET", CM + "?watch=1&timeoutSeconds=1&" + q)
    equal("what watches began with", grown("apiserver_init_events_total", **of), n)
    equal("the lists waited", grown("apiserver_watch_cache_read_wait_seconds_count", **of), 2)
    check("room for changes", Metrics(a).get("watch_cache_capacity", **of) >= 1)
    big = Metrics(a).get("watch_cache_capacity", **of)
    for i in range(int(big) + 1):
        a.post(CM, cm("watched%d" % i))
    m = Metrics(a)
    check("more room", m.get("watch_cache_capacity", **of) > big and m.get("watch_cache_capacity_increase_total", **of) >= 1)
    a.raw("DELETE", CM + "?fieldSelector=metadata.name!=none")


def test_repair(a):
    """An address of a Service that nobody has taken is taken, and counted."""
    services = "/api/v1/namespaces/default/services"
    ip = a.post(services, {"metadata": {"name": "mended"}, "spec": {"ports": [{"port": 80}]}})[1]["spec"]["clusterIP"]
    grown = Change(a)
    a.delete("/apis/networking.k8s.io/v1/ipaddresses/" + ip)
    a.raw("PATCH", services + "/mended", '{"metadata":{"labels":{"a":"b"}}}', {"Content-Type": "application/merge-patch+json"})
    until("mended", lambda: a.get("/apis/networking.k8s.io/v1/ipaddresses/" + ip)[0] == 200)
    equal("counted", grown("apiserver_clusterip_repair_ip_errors_total", type="repair"), 1)
    a.delete(services + "/mended")


def test_aborted(a):
    """An answer that breaks off: a kubelet's, passed on."""
    class Short(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"not a hundred")
            self.close_connection = True

        def log_message(self, *a):
            pass

    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ctx.load_cert_chain(os.path.join(a.s.dir, "server.crt"), os.path.join(a.s.dir, "server.key"))
    kubelet = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Short)
    kubelet.socket = ctx.wrap_socket(kubelet.socket, server_side=True)
    threading.Thread(target=kubelet.serve_forever, daemon=True).start()
    try:
        node = {"metadata": {"name": "short"}, "status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                                                          "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet.server_address[1]}}}}
        equal("made", a.post("/api/v1/nodes", node)[0], 201)
        grown = Change(a)
        c = a.open()
        c.request("GET", "/api/v1/nodes/short/proxy/x")
        r = c.getresponse()
        try:
            check("cut", False, (r.status, r.read()))
        except http.client.IncompleteRead as e:
            equal("cut", (r.status, e.partial), (200, b"not a hundred"))
        c.close()
        equal("counted", grown("apiserver_request_aborts_total", group="", resource="nodes", scope="resource", subresource="proxy", verb="CONNECT", version="v1"), 1)
        a.delete("/api/v1/nodes/short")
    finally:
        kubelet.shutdown()
        kubelet.server_close()


def test_refused(a):
    """Webhooks whose certificates are of a kind that Go refuses."""
    class Never(http.server.BaseHTTPRequestHandler):
        def log_message(self, *a):
            pass

    s, hooks, servers = a.s, "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", []
    s.sh("openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", "poor.key")
    s.sh("openssl", "req", "-new", "-key", "poor.key", "-subj", "/CN=localhost", "-out", "poor.csr")
    with open(os.path.join(s.dir, "poor.ext"), "w") as f:
        f.write("subjectAltName=DNS:localhost")
    sign = ("openssl", "x509", "-req", "-in", "poor.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2")
    s.sh(*sign, "-out", "nameless.crt")
    s.sh(*sign, "-sha1", "-extfile", "poor.ext", "-out", "sha1.crt")
    s.sh(*sign, "-extfile", "poor.ext", "-out", "good.crt")
    ca = base64.b64encode(open(os.path.join(s.dir, "ca.crt"), "rb").read()).decode()
    try:
        for cert, want in (("nameless", (1, 0)), ("sha1", (0, 1)), ("good", (0, 0))):
            ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            ctx.set_ciphers("DEFAULT:@SECLEVEL=0")
            ctx.load_cert_chain(os.path.join(s.dir, cert + ".crt"), os.path.join(s.dir, "poor.key"))
            web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Never)
            web.socket = ctx.wrap_socket(web.socket, server_side=True)
            threading.Thread(target=web.serve_forever, daemon=True).start()
            servers.append(web)
            equal("registered", a.post(hooks, {"metadata": {"name": cert}, "webhooks": [{
                "name": cert + ".example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Ignore",
                "clientConfig": {"url": "https://localhost:%d/" % web.server_address[1], "caBundle": ca},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]}]})[0], 201)
            grown = Change(a)
            asked = lambda: grown("apiserver_admission_webhook_fail_open_count", name=cert + ".example.com", type="validating")
            until(cert + ": asked in vain", lambda: a.post(CM + "?dryRun=All", cm("refused"))[0] == 201 and asked())
            n = asked()
            equal(cert, (grown("apiserver_webhooks_x509_missing_san_total"), grown("apiserver_webhooks_x509_insecure_sha1_total")),
                  (want[0] * n, want[1] * n))
            a.delete(hooks + "/" + cert)
    finally:
        for web in servers:
            web.shutdown()
            web.server_close()


def test_unreachable(a):
    aps = "/apis/apiregistration.k8s.io/v1/apiservices"
    equal("registered", a.post(aps, {"metadata": {"name": "v1.nowhere.io"}, "spec": {
        "group": "nowhere.io", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 100, "insecureSkipTLSVerify": True,
        "service": {"namespace": "default", "name": "nothing", "port": 443}}})[0], 201)
    until("not there", lambda: a.get("/apis/nowhere.io/v1/things")[0] == 503)
    of = {"code": 503, "component": "aggregator", "group": "nowhere.io", "scope": "cluster", "subresource": "", "verb": "LIST", "version": "v1"}
    grown = Change(a)
    equal("again", (a.get("/apis/nowhere.io/v1/things")[0], a.get('/apis/nowhere.io/v1/t"s')[0]), (503, 503))
    equal("not passed on", (grown("apiserver_request_terminations_total", resource="things", **of),
                            grown("apiserver_request_terminations_total", resource='t\\"s', **of)), (1, 1))
    a.delete(aps + "/v1.nowhere.io")


def test_certificates(a):
    """Signing requests with a duration: those that got a certificate, and those that got one of about that duration."""
    path, subject = "/apis/certificates.k8s.io/v1/certificatesigningrequests", "/O=dev/CN=someone"
    a.s.cert("issued", subject, "extendedKeyUsage=clientAuth")  # of two days

    def pem(name):
        with open(os.path.join(a.s.dir, name), "rb") as f:
            return base64.b64encode(f.read()).decode()

    days = 24 * 3600
    for i, (signer, seconds) in enumerate((("kubernetes.io/kube-apiserver-client", 2 * days), ("kubernetes.io/kube-apiserver-client", int(2.1 * days)),
                                           ("kubernetes.io/kube-apiserver-client", 2 * days - 600), ("kubernetes.io/kube-apiserver-client", days),
                                           ("kubernetes.io/kube-apiserver-client", None), ("example.com/s", 2 * days), ("example.com/t", 3 * days))):
        one = "%s/r%d" % (path, i)
        spec = {"request": pem("issued.csr"), "signerName": signer, "usages": ["client auth"]}
        if seconds:
            spec["expirationSeconds"] = seconds
        equal("asked", a.post(path, {"metadata": {"name": "r%d" % i}, "spec": spec})[0], 201)
        for sub, status in (("approval", {"conditions": [{"type": "Approved", "status": "True"}]}), ("status?dryRun=All", {"certificate": pem("issued.crt")}),
                            ("status", {"certificate": pem("issued.crt")})):
            equal(sub, a.raw("PATCH", one + "/" + sub, json.dumps({"status": status}), {"Content-Type": "application/merge-patch+json"})[0], 200)
    m = Metrics(a)
    for name, want in (("requested", (4, 2)), ("honored", (3, 1))):
        equal(name, tuple(m.get("apiserver_certificates_registry_csr_%s_duration_total" % name, signerName=x)
                          for x in ("kubernetes.io/kube-apiserver-client", "other")), want)


def test_families(a):
    a.get("/api/v1/namespaces/default/endpoints")
    a.raw("GET", CM + "?watch=1&timeoutSeconds=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true")
    admission = "/apis/admissionregistration.k8s.io/v1/"
    a.post(admission + "validatingadmissionpolicies", {"metadata": {"name": "p"}, "spec": {
        "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]},
        "validations": [{"expression": "object.metadata.name != 'forbidden'"}]}})
    a.post(admission + "validatingadmissionpolicybindings", {"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny", "Audit"]}})
    a.post(admission + "mutatingadmissionpolicies", {"metadata": {"name": "p"}, "spec": {
        "failurePolicy": "Fail", "reinvocationPolicy": "Never",
        "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]},
        "matchConditions": [{"name": "c", "expression": "object.metadata.name.startsWith('mutated')"}],
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'add', path: '/data/from', value: object.data.x}]"}}]}})
    a.post(admission + "mutatingadmissionpolicybindings", {"metadata": {"name": "b"}, "spec": {"policyName": "p"}})
    until("the mutation works", lambda: a.post(CM + "?dryRun=All", cm("mutated", x="1"))[1].get("data") == {"x": "1", "from": "1"})
    equal("it fails", a.post(CM + "?dryRun=All", cm("mutated"))[0], 403)
    service = {"metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": [{"port": 1, "nodePort": 30001}, {"port": 2, "name": "b"}]}}
    service["spec"]["ports"][0]["name"] = "a"
    equal("a node port", (a.post("/api/v1/namespaces/default/services", service)[0],
                          a.post("/api/v1/namespaces/default/services", dict(service, metadata={"name": "t"}))[0]), (201, 422))
    until("the policy works", lambda: a.post(CM + "?dryRun=All", cm("forbidden"))[0] == 422)
    bob = Client(a.s, token="alicetoken")
    bob.get("/api/v1/namespaces/default/pods")
    m = Metrics(a)
    equal("families in order", m.order, sorted(m.order))
    for level, families in (("[STABLE] ", STABLE), ("[BETA] ", BETA), ("[ALPHA] ", ALPHA), ("EXPERIMENTAL: [ALPHA] ", TIMING)):
        for name, (kind, labels) in families.items():
            f = m.families.get(name, [None, ""])
            equal(name, (f[0], f[1].startswith(level), m.labels(name)), (kind, True, {labels}))
    n = m.get("apiserver_mutating_admission_policy_check_total", error_type="no_error", policy="p", policy_binding="b")
    equal("a policy that did not mutate", (n, m.get("apiserver_mutating_admission_policy_check_total", error_type="invalid_error", policy="p", policy_binding="b")), (1, 1))
    left = {"kind": "policy", "name": "p", "operation": "CREATE", "type": "validate"}
    check("nor was asked to", m.get("apiserver_admission_match_condition_exclusions_total", **left) and
          m.get("apiserver_admission_match_condition_evaluation_seconds_count", **left))
    equal("node ports", [m.get("kube_apiserver_nodeport_allocator_allocation%s_total" % e, scope=x) for e, x in
                         (("", "static"), ("", "dynamic"), ("_errors", "static"))], [1, 1, 1])
    feature = lambda n, s: m.get("kubernetes_feature_enabled", name=n, stage=s)
    equal("features", (feature("WatchList", "BETA"), feature("SizeBasedListCostEstimate", "BETA"), feature("CBORServingAndStorage", "ALPHA"),
                       feature("KMSv1", "DEPRECATED")), (1, 1, 1, 0))
    check("bytes of the network", m.get("process_network_receive_bytes_total") > 0 and m.get("process_network_transmit_bytes_total") > 0)
    for action in ("deny", "audit"):
        check("a policy that refused: " + action, m.get("apiserver_validating_admission_policy_check_total", enforcement_action=action,
                                                       error_type="invalid_error", policy="p", policy_binding="b"))
    check("a step that refused", m.get("apiserver_admission_step_admission_duration_seconds_count", operation="CREATE", rejected="true", type="validate"))
    equal("Endpoints", m.get("apiserver_requested_deprecated_apis", group="", removed_release="", resource="endpoints", subresource="", version="v1"), 1)
    check("what is exempt is let through", m.get("apiserver_flowcontrol_dispatched_requests_total", flow_schema="exempt", priority_level="exempt") > 1)
    equal("the one that asks", m.get("apiserver_flowcontrol_current_executing_requests", flow_schema="exempt", priority_level="exempt"), 1)
    for k, v in m.series.items():
        if ("current_" in k and "read_vs_write" not in k and "current_limit" not in k) or "longrunning" in k:
            check("nothing is counted twice or forgotten", 0 <= v <= 2, (k, v))
    equal("addresses", m.get("kube_apiserver_clusterip_allocator_allocated_ips", cidr="10.0.0.0/24") +
          m.get("kube_apiserver_clusterip_allocator_available_ips", cidr="10.0.0.0/24"), 254)
    use = "apiserver_flowcontrol_priority_level_seat_utilization_"
    ns = m.get(use + "count", phase="executing", priority_level="workload-low")
    check("observed each nanosecond", 1e9 < ns < 600e9, ns)
    check("seats are used for a part of it", 0 < m.get(use + "sum", phase="executing", priority_level="global-default") < ns / 100)
    equal("calls to the store", m.get("etcd_requests_total", group="", operation="create", resource="namespaces"), 4)
    check("how long certificates are good", m.get("apiserver_client_certificate_expiration_seconds_bucket", le="172800") is not None and
          0 < m.get("apiserver_client_certificate_expiration_seconds_sum") / m.get("apiserver_client_certificate_expiration_seconds_count") <= 172800)
    check("others wait", any("flow_schema" in k and v for k, v in m.series.items() if k.startswith("apiserver_flowcontrol_request_wait_duration_seconds_count")))


def test_protobuf(a):
    accept = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
    st, h, data = a.raw("GET", "/metrics", headers={"Accept": accept + ",text/plain;q=0.5"})
    equal("type", h["content-type"].replace(" ", ""), accept + ";escaping=underscores")
    families = {}
    while data:
        n, i, shift = 0, 0, 0
        while True:
            n |= (data[i] & 127) << shift
            shift += 7
            i += 1
            if data[i - 1] < 128:
                break
        f = fields(data[i:i + n])
        families[next(v for t, v in f if t == 1).decode()] = f
        data = data[i + n:]
    text = Metrics(a)
    f = families["apiserver_admission_step_admission_duration_seconds_summary"]
    summary = fields(next(v for t, v in fields(next(v for t, v in f if t == 4)) if t == 4))
    equal("a summary", (dict(f)[3], len([1 for t, v in summary if t == 3]), dict(summary)[1] > 0), (2, 3, True))
    equal("the same families", sorted(families), sorted(text.families))
    f = dict(families["apiserver_storage_size_bytes"])
    label, gauge = (fields(v) for t, v in fields(f[4]))
    equal("a gauge", (f[3], label, dict(gauge)[1]), (1, [(1, b"storage_cluster_id"), (2, b"embedded")], text.get("apiserver_storage_size_bytes",
                                                                                                  storage_cluster_id="embedded")))
    f = families["apiserver_request_duration_seconds"]
    histogram = fields(next(v for t, v in fields(next(v for t, v in f if t == 4)) if t == 7))
    equal("a histogram", (dict(f)[3], len([1 for t, v in histogram if t == 3])), (4, 23))
    for accept, escaping in (("text/plain", "underscores"), ("application/openmetrics-text", "underscores"), ("text/plain;escaping=dots", "dots")):
        equal(accept, a.raw("GET", "/metrics", headers={"Accept": accept})[1]["content-type"], "text/plain; version=0.0.4; charset=utf-8; escaping=" + escaping)
    check("when the server began", int(a.raw("GET", "/metrics/slis")[1]["process-start-time-unix"]) == int(text.get("process_start_time_seconds")))


def prepare(s):
    s.start()
    return {"a": Client(s, cert="admin")}


if __name__ == "__main__":
    suite("metrics", prepare, (test_requests, test_long_running, test_steps, test_tokens, test_impersonation, test_definitions, test_watches, test_repair, test_aborted, test_refused,
                              test_unreachable, test_certificates, test_families, test_protobuf))
