/*
 * Requests, counted by upstream's labels (k8s.io/apiserver endpoints/metrics). The series of a verb, resource,
 * subresource and scope are found by a number made of these and kept, so that a request makes no text.
 */
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>
#include "base/log.h"
#include "net/tls.h"
#include "apiserver/metrics.h"

enum verb { V_GET, V_LIST, V_WATCH, V_POST, V_PUT, V_PATCH, V_APPLY, V_DELETE, V_CONNECT, V_OTHER };
static const char *const verb_names[] = {"GET",   "LIST",  "WATCH",  "POST",    "PUT",
					 "PATCH", "APPLY", "DELETE", "CONNECT", "other"};
enum scope { S_NONE, S_CLUSTER, S_NAMESPACE, S_RESOURCE };
static const char *const scope_names[] = {"", "cluster", "namespace", "resource"};
enum dry { D_NO, D_ALL, D_INVALID };
static const char *const dry_names[] = {"", "All", "invalid"};

/* Paths that are counted, and under which labels (upstream's). */
struct path_metrics {
	const char *path, *component, *resource, *subresource;
	bool below; /* what is below it, too */
};
static const struct path_metrics counted_paths[] = {
	{"/healthz", "", "", "/healthz", false},         {"/livez", "", "", "/livez", false},
	{"/readyz", "", "", "/readyz", false},           {"/openapi/v3", "", "", "openapi/v3", false},
	{"/openapi/v3/", "", "", "openapi/v3/", true},   {"/flagz", "apiserver", "flagz", "", false},
	{"/statusz", "apiserver", "statusz", "", false},
};

struct kind_of_request {
	struct str component, group, version, resource, subresource;
	enum verb verb;
	enum scope scope;
	enum dry dry;
};
#define CODES 12 /* of one kind that are found at once */
struct request_series {
	struct kind_of_request kind; /* strings owned */
	struct metric *duration, *sli, *size, *open, *body, *self;
	struct {
		int code;
		struct metric *count;
	} codes[CODES];
};
#define TABLE_MIN 256
struct request_metrics {
	struct request_series **slots; /* open addressing */
	size_t cap, n;
};

static enum verb verb_of(const struct request *rq, enum scope scope)
{
	static const char *const connects[] = {"attach", "exec", "log", "portforward", "proxy"};
	const struct request_info *i = &rq->info;
	struct str m = rq->x->method;
	enum verb v = V_OTHER;

	if (str_eq_nocase(m, str_from("GET")) || str_eq_nocase(m, str_from("HEAD"))) {
		v = scope == S_CLUSTER || scope == S_NAMESPACE ? V_LIST : V_GET;
		if (str_eqz(i->verb, "watch") || (str_eq_nocase(m, str_from("GET")) && query_bool(&rq->q, "watch")))
			v = V_WATCH;
	} else if (str_eq_nocase(m, str_from("PATCH"))) {
		v = str_eqz(http_header_get(&rq->x->headers, "content-type"), "application/apply-patch+yaml") ? V_APPLY
													      : V_PATCH;
	} else {
		static const enum verb same[] = {V_POST, V_PUT, V_DELETE, V_CONNECT};

		for (size_t k = 0; k < sizeof same / sizeof *same; k++)
			if (str_eq_nocase(m, str_from(verb_names[same[k]])))
				v = same[k];
	}
	for (size_t k = 0; i->subresource.n && k < sizeof connects / sizeof *connects; k++)
		if (str_eqz(i->subresource, connects[k]))
			v = V_CONNECT;
	return v;
}

static enum dry dry_of(const struct query *q)
{
	enum dry d = D_NO;

	for (size_t i = 0; i < q->n && d != D_INVALID; i++)
		if (str_eqz(q->v[i].name, "dryRun"))
			d = str_eqz(q->v[i].value, "All") ? D_ALL : D_INVALID;
	return d;
}

static struct kind_of_request kind_of(const struct request *rq)
{
	const struct request_info *i = &rq->info;
	struct kind_of_request k = {.dry = dry_of(&rq->q)};

	if (rq->path_metrics) {
		k.component = str_from(rq->path_metrics->component);
		k.resource = str_from(rq->path_metrics->resource);
		k.subresource = str_from(rq->path_metrics->subresource);
	} else {
		k.component = STR("apiserver");
		k.group = i->group;
		k.version = i->version;
		k.resource = i->resource;
		k.subresource = i->subresource;
		k.scope = i->name.n || str_eqz(i->verb, "create") ? S_RESOURCE : i->ns.n ? S_NAMESPACE : S_CLUSTER;
	}
	k.verb = verb_of(rq, k.scope);
	return k;
}

static uint64_t hash_of(const struct kind_of_request *k)
{
	uint64_t h = (uint64_t)k->verb << 8 | (uint64_t)k->scope << 4 | k->dry;

	h = XXH3_64bits_withSeed(k->resource.p, k->resource.n, h);
	h = XXH3_64bits_withSeed(k->subresource.p, k->subresource.n, h);
	h = XXH3_64bits_withSeed(k->group.p, k->group.n, h);
	return XXH3_64bits_withSeed(k->version.p, k->version.n, h);
}

static bool same(const struct kind_of_request *a, const struct kind_of_request *b)
{
	return a->verb == b->verb && a->scope == b->scope && a->dry == b->dry && str_eq(a->resource, b->resource) &&
	       str_eq(a->subresource, b->subresource) && str_eq(a->group, b->group) && str_eq(a->version, b->version) &&
	       str_eq(a->component, b->component);
}

static size_t place(const struct request_metrics *t, const struct kind_of_request *k)
{
	size_t i = hash_of(k) & (t->cap - 1);

	while (t->slots[i] && !same(&t->slots[i]->kind, k))
		i = (i + 1) & (t->cap - 1);
	return i;
}

static void grow(struct request_metrics *t)
{
	struct request_metrics old = *t;

	t->cap = old.cap ? old.cap * 2 : TABLE_MIN;
	t->slots = xcalloc(t->cap, sizeof *t->slots);
	for (size_t i = 0; i < old.cap; i++)
		if (old.slots[i])
			t->slots[place(t, &old.slots[i]->kind)] = old.slots[i];
	free(old.slots);
}

/* Without a closing: more labels may follow. */
static void put_labels(struct buf *b, const struct kind_of_request *k, bool dry)
{
	buf_printf(b, "component=\"%.*s\",", STR_ARG(k->component));
	if (dry)
		buf_printf(b, "dry_run=\"%s\",", dry_names[k->dry]);
	buf_printf(b, "group=\"%.*s\",resource=\"%.*s\",scope=\"%s\",subresource=\"%.*s\",verb=\"%s\",version=\"%.*s\"",
		   STR_ARG(k->group), STR_ARG(k->resource), scope_names[k->scope], STR_ARG(k->subresource),
		   verb_names[k->verb], STR_ARG(k->version));
}

static struct metric *series_of(struct apiserver *s, enum metric_id id, const struct kind_of_request *k, bool dry)
{
	struct buf b buf_cleanup = {0};

	put_labels(&b, k, dry);
	return metric_series(id, buf_z(&b));
}

static struct request_series *find(struct apiserver *s, const struct kind_of_request *k)
{
	struct request_metrics *t = s->request_metrics;
	struct request_series *r;
	size_t i;

	if (!t)
		t = s->request_metrics = xcalloc(1, sizeof *t);
	if ((t->n + 1) * 2 > t->cap)
		grow(t);
	i = place(t, k);
	if (t->slots[i])
		return t->slots[i];
	r = xcalloc(1, sizeof *r);
	r->kind = *k;
	struct str *owned[] = {&r->kind.component, &r->kind.group, &r->kind.version, &r->kind.resource,
			       &r->kind.subresource};

	for (size_t j = 0; j < sizeof owned / sizeof *owned; j++)
		*owned[j] = str_from(str_dupz(*owned[j]));
	t->slots[i] = r;
	t->n++;
	return r;
}

static struct metric *count_of(struct apiserver *s, struct request_series *r, int code)
{
	struct buf b buf_cleanup = {0};
	struct metric *m;
	int i;

	for (i = 0; i < CODES && r->codes[i].code; i++)
		if (r->codes[i].code == code)
			return r->codes[i].count;
	buf_printf(&b, "code=\"%d\",", code);
	put_labels(&b, &r->kind, true);
	m = metric_series(METRIC_REQUESTS, buf_z(&b));
	if (i < CODES) {
		r->codes[i].code = code;
		r->codes[i].count = m;
	}
	return m;
}

void metrics_routed(struct request *rq)
{
	rq->routed = true;
}

/* No release is known yet that goes without one of them. */
static void count_deprecated(struct request *rq)
{
	struct buf b buf_cleanup = {0};

	buf_printf(&b, "group=\"%.*s\",removed_release=\"\",resource=\"%.*s\",subresource=\"%.*s\",version=\"%.*s\"",
		   STR_ARG(rq->info.group), STR_ARG(rq->info.resource), STR_ARG(rq->info.subresource),
		   STR_ARG(rq->info.version));
	metrics_set(METRIC_DEPRECATED, buf_z(&b), 1);
	request_annotate(rq, STR("k8s.io/deprecated"), STR("true"));
}

void metrics_routed_path(struct request *rq)
{
	struct str p = rq->info.path;

	for (size_t i = 0; i < sizeof counted_paths / sizeof *counted_paths; i++) {
		const struct path_metrics *c = &counted_paths[i];

		if (c->below ? !str_has_prefix(p, str_from(c->path)) : !str_eqz(p, c->path))
			continue;
		rq->routed = true;
		rq->path_metrics = c;
	}
}

void metrics_long_running(struct request *rq)
{
	struct kind_of_request k = kind_of(rq);
	struct request_series *r = find(rq->s, &k);

	if (!r->open)
		r->open = series_of(rq->s, METRIC_LONG_RUNNING, &k, false);
	metric_add(r->open, 1);
	rq->open = r->open;
}

void metrics_watch_list(struct request *rq)
{
	const struct request_info *i = &rq->info;
	bool one = i->name.n || selected_name(rq->a, query_get(&rq->q, "fieldSelector")).n;
	struct buf b buf_cleanup = {0};

	buf_printf(&b, "group=\"%.*s\",resource=\"%.*s\",scope=\"%s\",version=\"%.*s\"", STR_ARG(i->group),
		   STR_ARG(i->resource),
		   scope_names[one       ? S_RESOURCE
			       : i->ns.n ? S_NAMESPACE
					 : S_CLUSTER],
		   STR_ARG(i->version));
	metrics_observe(METRIC_WATCH_LIST, buf_z(&b), (double)(now_ns() - rq->start_ns) / 1e9);
}

void metrics_dropped(struct request *rq)
{
	const struct request_info *i = &rq->info;
	struct kind_of_request k;

	if (!i->resource_request || !resource_find(rq->s, i->group, i->version, i->resource))
		return; /* unknown names would make series without end */
	k = kind_of(rq);
	metric_add(count_of(rq->s, find(rq->s, &k), 429), 1);
	metrics_terminated(rq, 429);
}

void metrics_terminated(struct request *rq, int code)
{
	struct kind_of_request k = kind_of(rq);
	struct buf b buf_cleanup = {0};
	const struct request_info *i = &rq->info;

	if (i->resource_request ? !resource_find(rq->s, i->group, i->version, i->resource) : !rq->path_metrics)
		return; /* as above */
	buf_printf(&b, "code=\"%d\",", code);
	put_labels(&b, &k, false);
	metrics_count(METRIC_TERMINATIONS, buf_z(&b), 1);
}

/* Names that a client has chosen. */
static void escape(struct request *rq, struct kind_of_request *k)
{
	k->group = metric_label(rq->a, k->group);
	k->version = metric_label(rq->a, k->version);
	k->resource = metric_label(rq->a, k->resource);
	k->subresource = metric_label(rq->a, k->subresource);
}

void metrics_aborted(struct request *rq)
{
	struct kind_of_request k = kind_of(rq);
	struct buf b buf_cleanup = {0};

	if (!rq->routed && metric_count(METRIC_ABORTS) >= METRICS_UNPASSED_MAX)
		return;
	escape(rq, &k);
	buf_printf(&b, "group=\"%.*s\",resource=\"%.*s\",scope=\"%s\",subresource=\"%.*s\",verb=\"%s\",version=\"%.*s\"", STR_ARG(k.group),
		   STR_ARG(k.resource), scope_names[k.scope], STR_ARG(k.subresource), verb_names[k.verb], STR_ARG(k.version));
	metrics_count(METRIC_ABORTS, buf_z(&b), 1);
}

/* Whoever calls itself so, as upstream. */
static void count_self(struct request_series *r, const struct request *rq)
{
	struct buf b buf_cleanup = {0};

	if (!str_has_prefix(http_header_get(&rq->x->headers, "user-agent"), STR("kube-apiserver/")))
		return;
	if (!r->self) {
		buf_printf(&b, "group=\"%.*s\",resource=\"%.*s\",subresource=\"%.*s\",verb=\"%s\"", STR_ARG(r->kind.group), STR_ARG(r->kind.resource),
			   STR_ARG(r->kind.subresource), verb_names[r->kind.verb]);
		r->self = metric_series(METRIC_SELF_REQUESTS, buf_z(&b));
	}
	metric_add(r->self, 1);
}

void metrics_unpassed(struct request *rq, int code)
{
	struct kind_of_request k = kind_of(rq);
	const struct request_info *i = &rq->info;
	struct buf b buf_cleanup = {0};

	if (metric_count(METRIC_TERMINATIONS) >= METRICS_UNPASSED_MAX)
		return;
	k.component = STR("aggregator");
	if (!i->resource_request) {
		k.group = k.version = k.resource = STR_NULL;
		k.subresource = i->path;
		k.scope = S_NONE;
		k.verb = verb_of(rq, k.scope);
	}
	escape(rq, &k);
	buf_printf(&b, "code=\"%d\",", code);
	put_labels(&b, &k, false);
	metrics_count(METRIC_TERMINATIONS, buf_z(&b), 1);
}

static struct metric *body_of(struct request_series *r, const struct request *rq)
{
	const struct request_info *i = &rq->info;
	struct buf b buf_cleanup = {0};

	if (r->body)
		return r->body;
	buf_printf(&b, "group=\"%.*s\",resource=\"%.*s\",verb=\"%.*s\"", STR_ARG(i->group), STR_ARG(i->resource),
		   STR_ARG(i->verb));
	if (str_eqz(i->verb, "deletecollection")) {
		b.n -= sizeof "collection\"" - 1;
		buf_puts(&b, "_collection\"");
	}
	return r->body = metric_series(METRIC_BODY_SIZES, buf_z(&b));
}

/* A username that says something about what asks, and no more. */
static const char *name_of_user(struct str name)
{
	static const char *const known[] = {"admin", "client", "kube_proxy", "kubelet",
					    "system:serviceaccount:kube-system:default"};

	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (str_eqz(name, known[i]))
			return known[i];
	return str_index(name, '@') >= 0 ? "email_id" : "other";
}

/* Counts to one of a few series, each found once. */
static struct metric *kept(struct metric **at, enum metric_id id, const char *label, const char *value)
{
	char labels[100];

	if (!*at) {
		snprintf(labels, sizeof labels, "%s=\"%s\"", label, value);
		*at = metric_series(id, labels);
	}
	return *at;
}

void metrics_authenticated(struct request *rq, bool refused)
{
	static const char *const results[] = {"success", "failure", "error"};
	static struct metric *attempts[3], *times[3];
	int r = rq->user && !refused ? 0 : refused ? 2 : 1;
	int64_t spent = now_ns() - rq->start_ns;

	rq->spent_ns.authentication = spent;
	metrics_filter(rq, FILTER_AUTHENTICATION);
	metric_add(kept(&attempts[r], METRIC_AUTHN_ATTEMPTS, "result", results[r]), 1);
	metric_observe(kept(&times[r], METRIC_AUTHN_TIME, "result", results[r]),
		       (double)spent / 1e9);
	if (!r) {
		struct metric *m = NULL;

		metric_add(kept(&m, METRIC_USERS, "username", name_of_user(rq->user->name)), 1);
	}
}

void metrics_filter(struct request *rq, enum metrics_filter f)
{
	static const char *const names[FILTERS] = {"authentication", "audit", "constrainedimpersonation", "priorityandfairness", "authorization"};
	static struct metric *times[FILTERS];
	int64_t now = now_ns(), since = rq->filtered_ns ? rq->filtered_ns : rq->start_ns;

	rq->filtered_ns = now;
	metric_observe(kept(&times[f], METRIC_FILTER_TIME, "filter", names[f]), (double)(now - since) / 1e9);
}

/* As ?fieldValidation= says, if at all. */
static void observe_field_validation(const struct request *rq, double seconds)
{
	enum { NOTHING, INVALID = 4 };
	static const char *const values[] = {"", "Ignore", "Warn", "Strict", "invalid"};
	static struct metric *times[INVALID + 1];
	int given = NOTHING;

	for (size_t i = 0; i < rq->q.n; i++) {
		int v = INVALID;

		if (!str_eqz(rq->q.v[i].name, "fieldValidation"))
			continue;
		for (int k = NOTHING; k < INVALID && given == NOTHING; k++)
			v = str_eqz(rq->q.v[i].value, values[k]) ? k : v;
		given = v;
	}
	metric_observe(kept(&times[given], METRIC_FIELD_VALIDATION, "field_validation", values[given]), seconds);
}

void metrics_client_certificate(int64_t not_after)
{
	static struct metric *m;

	if (!m)
		m = metric_series(METRIC_CERT_EXPIRATION, "");
	metric_observe(m, (double)not_after - (double)wall_ns() / 1e9);
}

void metrics_authorized(enum metrics_authz r, int64_t since_ns)
{
	static const char *const results[] = {"no-opinion", "allowed", "denied", "error"};
	static struct metric *attempts[4], *times[4];

	metric_add(kept(&attempts[r], METRIC_AUTHZ_ATTEMPTS, "result", results[r]), 1);
	metric_observe(kept(&times[r], METRIC_AUTHZ_TIME, "result", results[r]), (double)(now_ns() - since_ns) / 1e9);
}

void metrics_certificates(struct request *rq, bool aggregated, struct str host, const struct error *e, unsigned faults)
{
	static const struct {
		unsigned fault;
		enum metric_id ids[2];
		const char *id, *why;
	} kinds[] = {
		{TLS_NO_NAMES, {METRIC_WEBHOOK_NO_SAN, METRIC_AGGREGATED_NO_SAN}, "missing-san",
		 "relies on a legacy Common Name field instead of the SAN extension for subject validation"},
		{TLS_WEAK_HASH, {METRIC_WEBHOOK_SHA1, METRIC_AGGREGATED_SHA1}, "insecure-sha1", "uses an insecure SHA-1 signature"},
	};
	ptrdiff_t port = str_rindex(host, ':');
	bool refused;

	if (e)
		faults = tls_faults(e, &refused);
	if (!faults)
		return;
	if (host.p[0] == '[')
		host = str_sub(host, 1, (size_t)str_index(host, ']'));
	else if (port >= 0)
		host.n = (size_t)port;
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		if (!(faults & kinds[i].fault))
			continue;
		metrics_count(kinds[i].ids[aggregated], "", 1);
		log_info("invalid certificate of %.*s: it %s", STR_ARG(host), kinds[i].why);
		if (rq)
			request_annotate(rq, arena_printf(rq->a, "%s.invalid-cert.kubernetes.io/%.*s", kinds[i].id, STR_ARG(host)),
					 str_from(kinds[i].why));
	}
}

struct watch_counts metrics_watch(const struct request *rq)
{
	struct buf b buf_cleanup = {0};

	buf_printf(&b, "group=\"%.*s\",resource=\"%.*s\",version=\"%.*s\"", STR_ARG(rq->info.group),
		   STR_ARG(rq->info.resource), STR_ARG(rq->info.version));
	return (struct watch_counts){metric_series(METRIC_WATCH_EVENTS, buf_z(&b)),
				     metric_series(METRIC_WATCH_SIZES, buf_z(&b))};
}

void metrics_request(struct request *rq)
{
	struct request_series *r;
	struct kind_of_request k;
	double seconds;

	if (rq->open)
		metric_add(rq->open, -1);
	if (!rq->routed)
		return;
	k = kind_of(rq);
	r = find(rq->s, &k);
	seconds = (double)(now_ns() - rq->start_ns) / 1e9;
	metric_add(count_of(rq->s, r, rq->status), 1);
	if (!r->duration) {
		r->duration = series_of(rq->s, METRIC_DURATION, &k, true);
		r->sli = series_of(rq->s, METRIC_SLI_DURATION, &k, false);
		r->size = series_of(rq->s, METRIC_SIZES, &k, false);
	}
	if (rq->deprecated)
		count_deprecated(rq);
	metric_observe(r->duration, seconds);
	observe_field_validation(rq, seconds);
	count_self(r, rq);
	if (k.dry == D_NO)
		metric_observe(r->sli, seconds - (double)rq->waited_ns / 1e9);
	if (k.verb == V_GET || k.verb == V_LIST)
		metric_observe(r->size, (double)rq->x->sent);
	if (rq->body_read && !rq->path_metrics)
		metric_observe(body_of(r, rq), (double)rq->body_bytes);
}
