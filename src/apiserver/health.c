/* /healthz, /livez, /readyz and their single checks, in upstream's text. */
#include "apiserver/discovery.h"

static bool check_ok(struct apiserver *s) { (void)s; return true; }
static bool check_etcd(struct apiserver *s)
{
	int64_t rev;
	int64_t d = deadline_push(2000);
	struct error *e = store_current(s->store, &rev);

	deadline_pop(d);
	log_and_free(e, "health check: store");
	return e == NULL;
}
static bool check_informers(struct apiserver *s) { return s->ready; }
static bool check_shutdown(struct apiserver *s) { return !s->stopping; }
static bool check_rbac(struct apiserver *s) { return s->bootstrapped[0]; }
static bool check_priority(struct apiserver *s) { return s->bootstrapped[1]; }
static bool check_fc(struct apiserver *s) { return s->bootstrapped[2]; }
static bool check_namespaces(struct apiserver *s) { return s->bootstrapped[3]; }
static bool check_crds(struct apiserver *s) { return s->bootstrapped[4]; }
static bool check_apiservices(struct apiserver *s) { return s->bootstrapped[5]; }

static const struct {
	const char *name;
	bool (*check)(struct apiserver *s);
	unsigned in; /* 1 healthz, 2 livez, 4 readyz */
} checks[] = {
	{"ping", check_ok, 7},
	{"log", check_ok, 7},
	{"etcd", check_etcd, 7},
	{"etcd-readiness", check_etcd, 4},
	{"informer-sync", check_informers, 4},
	{"poststarthook/start-apiextensions-controllers", check_crds, 7},
	{"poststarthook/crd-informer-synced", check_crds, 7},
	{"poststarthook/start-service-ip-repair-controllers", check_namespaces, 7},
	{"poststarthook/rbac/bootstrap-roles", check_rbac, 7},
	{"poststarthook/scheduling/bootstrap-system-priority-classes", check_priority, 7},
	{"poststarthook/priority-and-fairness-config-producer", check_fc, 7},
	{"poststarthook/start-system-namespaces-controller", check_namespaces, 7},
	{"poststarthook/bootstrap-controller", check_namespaces, 7},
	{"poststarthook/apiservice-registration-controller", check_apiservices, 7},
	{"shutdown", check_shutdown, 4},
};

static bool excluded(struct request *rq, const char *name)
{
	for (size_t i = 0; i < rq->q.n; i++)
		if (str_eqz(rq->q.v[i].name, "exclude") && str_eqz(rq->q.v[i].value, name))
			return true;
	return false;
}

struct error *serve_health(struct request *rq, const char *kind)
{
	unsigned bit = !strcmp(kind, "healthz") ? 1 : !strcmp(kind, "livez") ? 2 : 4;
	struct str p = rq->info.path, one;
	struct buf b buf_cleanup = {0};
	bool ok = true, found = false;
	int status;

	while (p.n > 1 && p.p[p.n - 1] == '/')
		p.n--;
	one = str_sub(p, strlen(kind) + 1, p.n);
	if (one.n && one.p[0] != '/')
		return err_unknown_path();
	if (one.n)
		one = str_sub(one, 1, one.n);
	for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
		bool good;

		if (!(checks[i].in & bit) || (one.n && !str_eqz(one, checks[i].name)))
			continue;
		found = true;
		if (!one.n && excluded(rq, checks[i].name)) {
			buf_printf(&b, "[+]%s excluded: ok\n", checks[i].name);
			continue;
		}
		good = checks[i].check(rq->s);
		ok &= good;
		buf_printf(&b, good ? "[+]%s ok\n" : "[-]%s failed: reason withheld\n", checks[i].name);
	}
	if (one.n && !found)
		return err_unknown_path();
	status = ok ? 200 : 500;
	if (ok && (one.n || !query_has(&rq->q, "verbose"))) {
		b.n = 0;
		buf_puts(&b, "ok");
	} else {
		buf_printf(&b, "%s check %s\n", kind, ok ? "passed" : "failed");
	}
	rq->status = status;
	respond_headers(rq);
	http_set_header(rq->x, "content-type", STR("text/plain; charset=utf-8"));
	if (!one.n)
		http_set_header(rq->x, "x-content-type-options", STR("nosniff"));
	return http_respond(rq->x, status, buf_view(&b));
}
