/* /healthz, /livez, /readyz and their single checks, in upstream's text. */
#include "apiserver/discovery.h"
#include "apiserver/encrypt.h"
#include "apiserver/metrics.h"

struct check {
	const char *name;
	bool (*check)(struct apiserver *s);
	unsigned in;
	/* Of a store: the store, how long it may take to answer, and whose `exclude` is its, too. */
	struct store *store;
	int64_t ms;
	const char *group;
};

static bool check_ok(struct apiserver *s) { (void)s; return true; }
static bool store_answers(struct store *s, int64_t ms)
{
	int64_t rev;
	int64_t d = deadline_push(ms);
	struct error *e = store_current(s, &rev);

	deadline_pop(d);
	log_and_free(e, "health check: store");
	return e == NULL;
}
/* What upstream does in a hook after it began to listen is done here before the server says that it is ready. */
static bool check_started(struct apiserver *s) { return s->ready; }
static bool check_shutdown(struct apiserver *s) { return !s->stopping; }
static bool check_rbac(struct apiserver *s) { return s->bootstrapped[HOOK_RBAC]; }
static bool check_priority(struct apiserver *s) { return s->bootstrapped[HOOK_PRIORITY]; }
static bool check_consumed(struct apiserver *s)
{
	return s->bootstrapped[HOOK_FLOW];
}
static bool check_limited(struct apiserver *s)
{
	return s->ready;
}
static bool check_flow(struct apiserver *s) { return s->bootstrapped[HOOK_FLOW]; }
static bool check_namespaces(struct apiserver *s) { return s->bootstrapped[HOOK_NAMESPACES]; }
static bool check_service(struct apiserver *s) { return s->bootstrapped[HOOK_SERVICE]; }
static bool check_tokens(struct apiserver *s) { return s->bootstrapped[HOOK_TOKENS]; }
static bool check_identity(struct apiserver *s) { return s->bootstrapped[HOOK_IDENTITY]; }
static bool check_crds(struct apiserver *s) { return s->bootstrapped[HOOK_CRDS]; }
static bool check_apiservices(struct apiserver *s) { return s->bootstrapped[HOOK_APISERVICES]; }
static bool check_kms(struct apiserver *s)
{
	struct error *e = encryption_check(s);
	bool well = !e;

	error_free(e);
	return well;
}

#define HOOK "poststarthook/"
#define LIVE 2u
#define READY 4u
#define ALL 7u /* healthz 1, livez 2, readyz 4 */
#define STORE_CHECK "etcd"
#define STORE_READY "etcd-readiness"
static const struct check own[] = {
	{"ping", check_ok, ALL},
	{"log", check_ok, ALL},
	{"loopback-serving-certificate", check_ok, ALL & ~READY}, /* upstream's own client's: there is none here that could run out */
	{"kms-providers", check_kms, ALL & ~LIVE}, /* another start of the server mends no plugin */
	{STORE_CHECK, NULL, ALL},
	{STORE_READY, NULL, READY},
	{"informer-sync", check_started, READY},
	{HOOK "start-apiserver-admission-initializer", check_started, ALL},
	{HOOK "generic-apiserver-start-informers", check_started, ALL},
	{HOOK "priority-and-fairness-config-consumer", check_consumed, ALL},
	{HOOK "priority-and-fairness-filter", check_consumed, ALL},
	{HOOK "max-in-flight-filter", check_limited, ALL},
	{HOOK "storage-object-count-tracker-hook", check_started, ALL},
	{HOOK "start-apiextensions-informers", check_crds, ALL},
	{HOOK "start-apiextensions-controllers", check_crds, ALL},
	{HOOK "crd-informer-synced", check_crds, ALL},
	{HOOK "start-system-namespaces-controller", check_namespaces, ALL},
	{HOOK "peer-endpoint-reconciler-controller", check_identity, ALL},
	{HOOK "start-cluster-authentication-info-controller", check_tokens, ALL},
	{HOOK "start-kube-apiserver-identity-lease-controller", check_identity, ALL},
	{HOOK "start-kube-apiserver-identity-lease-garbage-collector", check_identity, ALL},
	{HOOK "storage-readiness", check_started, ALL},
	{HOOK "start-legacy-token-tracking-controller", check_tokens, ALL},
	{HOOK "start-service-ip-repair-controllers", check_service, ALL},
	{HOOK "rbac/bootstrap-roles", check_rbac, ALL},
	{HOOK "scheduling/bootstrap-system-priority-classes", check_priority, ALL},
	{HOOK "priority-and-fairness-config-producer", check_flow, ALL},
	{HOOK "bootstrap-controller", check_service, ALL},
	{HOOK "start-kubernetes-service-cidr-controller", check_service, ALL},
	{HOOK "start-kube-aggregator-informers", check_apiservices, ALL},
	{HOOK "apiservice-status-local-available-controller", check_apiservices, ALL},
	{HOOK "apiservice-status-remote-available-controller", check_apiservices, ALL},
	{HOOK "apiservice-registration-controller", check_apiservices, ALL},
	{HOOK "apiservice-wait-for-first-sync", check_apiservices, ALL},
	{HOOK "apiservice-discovery-controller", check_apiservices, ALL},
	{HOOK "kube-apiserver-autoregistration", check_apiservices, ALL},
	{"autoregister-completion", check_apiservices, ALL},
	{HOOK "apiservice-openapi-controller", check_apiservices, ALL},
	{HOOK "apiservice-openapiv3-controller", check_apiservices, ALL},
	{"shutdown", check_shutdown, READY},
};
#define N_OWN (sizeof own / sizeof *own)
#define N_KINDS 3
static const char *const kinds[N_KINDS] = {"healthz", "livez", "readyz"};

/* Its own, and behind the check of the store those of the stores beside it. */
static struct check checks[N_OWN + 2 * STORES_MAX];
static size_t n_checks;

void health_init(struct apiserver *s)
{
	for (size_t i = 0; i < N_OWN; i++) {
		bool ready = !strcmp(own[i].name, STORE_READY);
		struct check c = own[i];

		if (!c.check) {
			c.store = s->store;
			c.ms = ready ? s->o.etcd_readycheck_ms : s->o.etcd_healthcheck_ms;
			c.group = c.name;
		}
		checks[n_checks++] = c;
		for (size_t k = 0; c.store && k < s->n_other_stores; k++) {
			c.name = xasprintf(ready ? "etcd-override-readiness-%zu" : "etcd-override-%zu", k);
			c.store = s->other_stores[k];
			checks[n_checks++] = c;
		}
	}
}

static bool applies(const struct apiserver *s, const struct check *c, unsigned bit)
{
	return (c->in & bit) && (c->check != check_kms || encryption_has_check() || s->o.encryption_config_reload) &&
	       (c->check != check_consumed || s->o.priority_and_fairness) &&
	       (c->check != check_limited || !s->o.priority_and_fairness);
}

/* What a start takes may take --livez-grace-period before /livez minds. */
static bool passes(struct apiserver *s, const struct check *c, unsigned bit)
{
	return (c->store ? store_answers(c->store, c->ms) : c->check(s)) || (bit == LIVE && str_has_prefix(str_from(c->name), STR(HOOK)) &&
			       wall_ns() - s->started_wall_ns < s->o.livez_grace_ms * 1000000);
}

bool health_path_at(const struct apiserver *s, size_t i, struct buf *out)
{
	size_t n = n_checks, kind = i / (n + 1), at = i % (n + 1);

	if (kind >= N_KINDS)
		return false;
	if (!at)
		buf_printf(out, "/%s", kinds[kind]);
	else if (applies(s, &checks[at - 1], 1u << kind))
		buf_printf(out, "/%s/%s", kinds[kind], checks[at - 1].name);
	return true;
}

/* How the checks of a whole came out; single ones do not count, as upstream's. */
static void count(struct apiserver *s, size_t kind, size_t check, bool good)
{
	char labels[200];

	snprintf(labels, sizeof labels, "name=\"%s\",type=\"%s\"", checks[check].name, kinds[kind]);
	metrics_set(METRIC_HEALTH, labels, good);
	snprintf(labels, sizeof labels, "name=\"%s\",status=\"%s\",type=\"%s\"", checks[check].name,
		 good ? "success" : "error", kinds[kind]);
	metrics_count(METRIC_HEALTH_TOTAL, labels, 1);
}

static struct error *say(struct request *rq, int status, struct str text, bool sniff)
{
	rq->status = status;
	respond_headers(rq);
	http_set_header(rq->x, "content-type", STR("text/plain; charset=utf-8"));
	if (!sniff)
		http_set_header(rq->x, "x-content-type-options", STR("nosniff"));
	return http_respond(rq->x, status, text);
}

static struct error *one_check(struct request *rq, const struct check *c, unsigned bit)
{
	if (c->check == check_kms) { /* who asks for it alone is told what it is */
		struct error *e = encryption_check(rq->s);
		bool well = !e;
		struct str text = well ? STR("ok") : arena_printf(rq->a, "internal server error: %s\n", error_message(e));

		error_free(e);
		return say(rq, well ? 200 : 500, text, well);
	}
	if (passes(rq->s, c, bit))
		return say(rq, 200, STR("ok"), true);
	return say(rq, 500, arena_printf(rq->a, "internal server error: %s failed\n", c->name), false);
}

static void warn_unknown(struct request *rq, unsigned bit, struct buf *b)
{
	bool first = true;

	for (size_t i = 0; i < rq->q.n; i++) {
		bool known = false;

		if (!str_eqz(rq->q.v[i].name, "exclude"))
			continue;
		for (size_t k = 0; k < n_checks; k++)
			known |= applies(rq->s, &checks[k], bit) && str_eqz(rq->q.v[i].value, checks[k].name);
		if (known)
			continue;
		buf_puts(b, first ? "warn: some health checks cannot be excluded: no matches for " : ",");
		first = false;
		buf_printf(b, "\"%.*s\"", STR_ARG(rq->q.v[i].value));
	}
	if (!first)
		buf_putc(b, '\n');
}

static bool names(const struct check *c, struct str s)
{
	return str_eqz(s, c->name) || (c->group && str_eqz(s, c->group));
}

static bool excluded(struct request *rq, const struct check *c)
{
	for (size_t i = 0; i < rq->q.n; i++)
		if (str_eqz(rq->q.v[i].name, "exclude") && names(c, rq->q.v[i].value))
			return true;
	return false;
}

static struct error *all_checks(struct request *rq, size_t kind)
{
	struct buf b buf_cleanup = {0};
	unsigned bit = 1u << kind;
	bool ok = true;

	for (size_t i = 0; i < n_checks; i++) {
		bool good;

		if (!applies(rq->s, &checks[i], bit))
			continue;
		if (excluded(rq, &checks[i])) {
			buf_printf(&b, "[+]%s excluded: ok\n", checks[i].name);
			continue;
		}
		good = passes(rq->s, &checks[i], bit);
		ok &= good;
		count(rq->s, kind, i, good);
		buf_printf(&b, good ? "[+]%s ok\n" : "[-]%s failed: reason withheld\n", checks[i].name);
	}
	warn_unknown(rq, bit, &b);
	if (ok && !query_has(&rq->q, "verbose"))
		return say(rq, 200, STR("ok"), false);
	buf_printf(&b, "%s check %s\n", kinds[kind], ok ? "passed" : "failed");
	return say(rq, ok ? 200 : 500, buf_view(&b), false);
}

struct error *serve_health(struct request *rq, bool *handled)
{
	struct str p = rq->info.path;

	*handled = false;
	for (size_t k = 0; k < N_KINDS; k++) {
		struct str rest = str_sub(p, strlen(kinds[k]) + 1, p.n);

		if (!str_eqz(str_sub(p, 1, strlen(kinds[k]) + 1), kinds[k]))
			continue;
		if (!rest.n) {
			*handled = true;
			return all_checks(rq, k);
		}
		for (size_t i = 0; rest.p[0] == '/' && i < n_checks; i++)
			if (applies(rq->s, &checks[i], 1u << k) && str_eqz(str_sub(rest, 1, rest.n), checks[i].name)) {
				*handled = true;
				return one_check(rq, &checks[i], 1u << k);
			}
	}
	return NULL;
}
