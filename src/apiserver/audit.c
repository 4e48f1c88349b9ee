/* Audit events of requests: decided by the policy, made at each stage, handed to the backends. */
#include <arpa/inet.h>
#include <netinet/in.h>

#include "apiserver/audit.h"
#include "apiserver/custom.h"
#include "apiserver/config_file.h"
#include "apiserver/metrics.h"
#include "schema/defaults.h"
#include "schema/jv.h"

#define AGENT_MAX 1024 /* bytes of a user agent */

struct audit {
	struct audit_policy *policy;
	struct audit_sink *log, *webhook;
};

static const char *const level_names[] = {"None", "Metadata", "Request", "RequestResponse"};
static const char *const stage_names[] = {"RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"};

struct error *audit_init(struct apiserver *s)
{
	struct audit *a;
	struct str text;

	if (!s->o.audit_log_path && !s->o.audit_webhook_config_file)
		return NULL;
	if (!s->o.audit_policy_file) {
		log_warn("audit: there is no --audit-policy-file, so nothing is logged");
		return NULL;
	}
	a = xcalloc(1, sizeof *a);
	TRY(error_wrap(config_file_read(&s->arena, s->o.audit_policy_file, &text), "--audit-policy-file"));
	TRY(error_wrap(audit_policy_parse(&s->arena, text, &a->policy), "audit policy %s", s->o.audit_policy_file));
	TRY(audit_sinks_start(s, &a->log, &a->webhook));
	s->audit = a;
	return NULL;
}

static void decide(struct request *rq)
{
	char labels[40];

	rq->audit = audit_policy_decide(rq->s->audit->policy, rq);
	snprintf(labels, sizeof labels, "level=\"%s\"", level_names[rq->audit.level]);
	metrics_count(METRIC_AUDIT_LEVELS, labels, 1);
}

void audit_request_body(struct request *rq, struct str body)
{
	if (rq->audit.level >= AUDIT_METADATA)
		rq->audit_body = body;
}

void audit_request_object(struct request *rq, const struct schema_type *t, const void *obj)
{
	struct buf b buf_cleanup = {0};
	void *full;

	if (rq->audit.level < AUDIT_METADATA)
		return;
	if (t->metadata >= 0) {
		const struct meta_v1_object_meta *m = object_meta(t, (void *)(uintptr_t)obj);

		rq->audit_ref.ns = m->namespace;
		rq->audit_ref.name = m->name;
		rq->audit_ref.uid = m->uid;
		rq->audit_ref.resource_version = m->resource_version;
	}
	if (rq->audit.level < AUDIT_REQUEST)
		return;
	full = arena_alloc(rq->a, t->size);
	object_copy(rq->a, t, obj, full);
	if (!rq->res->crd)
		object_default(rq->a, t, full);
	if (rq->res->crd)
		custom_encode(rq->a, &b, t, full);
	else
		json_encode(&b, t, full);
	rq->audit_object = arena_str(rq->a, buf_view(&b));
}

void audit_answer_status(struct request *rq, const struct meta_v1_status *st)
{
	struct meta_v1_status *copy;

	if (rq->audit.level < AUDIT_METADATA && rq->audit_begun)
		return;
	copy = arena_new(rq->a, struct meta_v1_status);
	object_copy(rq->a, &meta_v1_status_type, st, copy);
	copy->kind = copy->api_version = STR_NULL;
	copy->metadata = (struct meta_v1_list_meta){0};
	rq->audit_status = copy;
}

void audit_answer_piece(struct request *rq, struct str content_type, struct str piece)
{
	if (rq->audit.level < AUDIT_RESPONSE || rq->audit_answer_cut)
		return;
	if (rq->audit_answer.n + piece.n > AUDIT_BODY_MAX) {
		rq->audit_answer_cut = true;
		buf_free(&rq->audit_answer);
		return;
	}
	rq->audit_answer_type = arena_str(rq->a, content_type);
	buf_str(&rq->audit_answer, piece);
}

/* ---- bodies ---- */

static void without_managed_fields(struct jv *o)
{
	struct jv *meta = jv_get(o, STR("metadata")), *items = jv_get(o, STR("items"));

	if (jv_is(meta, JV_OBJECT))
		jv_del(meta, STR("managedFields"));
	for (uint32_t i = 0; jv_is(items, JV_ARRAY) && i < items->n; i++)
		without_managed_fields(&items->items[i]);
}

static const struct schema_type *type_of(struct request *rq, const struct pb_envelope *env)
{
	struct str group, version, kind = env->kind;
	bool list = str_has_suffix(kind, STR("List"));

	if (str_eqz(env->kind, "Status"))
		return &meta_v1_status_type;
	if (str_eqz(env->kind, "DeleteOptions"))
		return &meta_v1_delete_options_type;
	api_version_split(env->api_version, &group, &version);
	struct resource *r = resource_for_kind(rq->s, group, version, list ? str_sub(kind, 0, kind.n - 4) : kind);

	/* else what subresources take and give: TokenRequest, Scale */
	return !r ? schema_type_for_kind(group, version, kind) : list ? r->api->list_type : r->api->type;
}

/* Any of the formats as JSON; false: it cannot be told, or is no object. */
static bool to_json(struct request *rq, struct str type, struct str body, struct buf *json)
{
	struct error *e = NULL;

	type = str_trim(str_cut(&type, ';'));
	if (pb_is_envelope(body)) {
		struct pb_envelope env;

		e = pb_envelope_decode(body, &env);
		if (!e) {
			const struct schema_type *t = type_of(rq, &env);

			e = t ? pb_to_json(json, t, env.raw, env.api_version, env.kind, NULL) : error_new("no such type");
		}
	} else if (str_contains(type, STR("yaml"))) {
		e = yaml_to_json(body, NULL, json);
	} else if (str_contains(type, STR("cbor"))) {
		e = cbor_to_json(body, NULL, json);
	} else if (str_contains(type, STR("json")) || !type.n) {
		buf_str(json, body);
	} else {
		return false;
	}
	bool ok = !e;

	error_free(e);
	return ok && json->n;
}

static void put_body(struct buf *b, struct request *rq, const char *name, struct str type, struct str body)
{
	struct buf json buf_cleanup = {0};
	struct jv v;

	if (!body.n || !to_json(rq, type, body, &json))
		return;
	/* Parsed: an event is valid JSON whatever came. */
	struct error *e = jv_parse(rq->a, arena_str(rq->a, buf_view(&json)), NULL, &v);

	if (!e) {
		if (rq->audit.omit_managed_fields)
			without_managed_fields(&v);
		if (str_eqz(rq->info.verb, "deletecollection") &&
		    str_eqz(jv_str(jv_get(&v, STR("kind"))), "DeleteOptions"))
			jv_set(rq->a, &v, STR("apiVersion"),
			       jv_string(STR("meta.k8s.io/__internal"))); /* as upstream has them there */
		buf_printf(b, ",\"%s\":", name);
		jv_encode(b, &v);
	}
	error_free(e);
}

/* ---- the event ---- */

static void put(struct buf *b, const char *name, struct str value)
{
	if (!value.n)
		return;
	if (b->n && b->p[b->n - 1] != '{')
		buf_putc(b, ',');
	buf_printf(b, "\"%s\":", name);
	jv_encode_string(b, value);
}

static void put_user(struct buf *b, const char *name, const struct user *u)
{
	buf_printf(b, ",\"%s\":{", name);
	if (u) {
		put(b, "username", u->name);
		put(b, "uid", u->uid);
		for (size_t i = 0; i < u->n_groups; i++) {
			buf_puts(b, i ? "," : ",\"groups\":[");
			jv_encode_string(b, u->groups[i]);
		}
		if (u->n_groups)
			buf_putc(b, ']');
		for (size_t i = 0; i < u->n_extra; i++) {
			buf_puts(b, i ? "," : ",\"extra\":{");
			jv_encode_string(b, u->extra[i].key);
			buf_puts(b, ":[");
			for (uint32_t k = 0; k < u->extra[i].value.n; k++) {
				if (k)
					buf_putc(b, ',');
				jv_encode_string(b, u->extra[i].value.v[k]);
			}
			buf_putc(b, ']');
		}
		if (u->n_extra)
			buf_putc(b, '}');
	}
	buf_putc(b, '}');
}

static bool is_ip(struct str s)
{
	char text[INET6_ADDRSTRLEN];
	struct in6_addr to;

	if (!s.n || s.n >= sizeof text)
		return false;
	memcpy(text, s.p, s.n);
	text[s.n] = 0;
	return inet_pton(AF_INET, text, &to) == 1 || inet_pton(AF_INET6, text, &to) == 1;
}

/* X-Forwarded-For, X-Real-Ip, then the connection's peer, each once (upstream's SourceIPs). */
static size_t source_ips(struct request *rq, struct str seen[16])
{
	struct str rest = http_header_get(&rq->x->headers, "x-forwarded-for"),
		   real = http_header_get(&rq->x->headers, "x-real-ip");
	char text[INET6_ADDRSTRLEN] = "";
	const struct sockaddr_storage *r = &rq->x->remote;
	size_t n = 0;

	while (rest.p && n < 14) {
		struct str ip = str_trim(str_cut(&rest, ','));

		if (is_ip(ip))
			seen[n++] = ip;
	}
	real = str_trim(real);
	if (is_ip(real) && !(n && str_eq(seen[0], real)))
		seen[n++] = real;
	if (r->ss_family == AF_INET)
		inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)r)->sin_addr, text, sizeof text);
	else if (r->ss_family == AF_INET6)
		inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)(const void *)r)->sin6_addr, text, sizeof text);
	if (*text && !(n && str_eqz(seen[n - 1], text)))
		seen[n++] = arena_str(rq->a, str_from(text));
	return n;
}

static void put_source_ips(struct buf *b, struct request *rq)
{
	struct str seen[16];
	size_t n = source_ips(rq, seen);

	for (size_t i = 0; i < n; i++) {
		buf_puts(b, i ? "," : ",\"sourceIPs\":[");
		jv_encode_string(b, seen[i]);
	}
	if (n)
		buf_putc(b, ']');
}

static void put_object_ref(struct buf *b, struct request *rq)
{
	const struct request_info *i = &rq->info;

	if (!i->resource_request)
		return;
	buf_puts(b, ",\"objectRef\":{");
	put(b, "resource", i->resource);
	put(b, "namespace", i->ns.n ? i->ns : rq->audit_ref.ns);
	put(b, "name", i->name.n ? i->name : rq->audit_ref.name);
	put(b, "uid", rq->audit_ref.uid);
	put(b, "apiGroup", i->group);
	put(b, "apiVersion", i->version);
	put(b, "resourceVersion", rq->audit_ref.resource_version);
	put(b, "subresource", i->subresource);
	buf_putc(b, '}');
}

/* Of an answer that is a Status, all it says; of any other the code. */
static void put_status(struct buf *b, struct request *rq)
{
	struct meta_v1_status st = {0};

	if (rq->audit_status)
		st = *rq->audit_status;
	st.code = rq->status;
	buf_puts(b, ",\"responseStatus\":");
	json_encode(b, &meta_v1_status_type, &st);
}

/* What was to be created or put in place as it was read, patches and options as they came. */
static void put_request(struct buf *b, struct request *rq)
{
	struct str v = rq->info.verb;

	if (rq->audit_object.n)
		put_body(b, rq, "requestObject", STR("application/json"), rq->audit_object);
	else if (!str_eqz(v, "create") && !str_eqz(v, "update"))
		put_body(b, rq, "requestObject", http_header_get(&rq->x->headers, "content-type"), rq->audit_body);
}

static int pair_cmp(const void *x, const void *y)
{
	return str_cmp(((const struct str_pair *)x)->key, ((const struct str_pair *)y)->key);
}

static struct str request_uri(struct request *rq)
{
	return rq->x->query.n ? arena_printf(rq->a, "%.*s?%.*s", STR_ARG(rq->x->path), STR_ARG(rq->x->query))
			      : rq->x->path;
}

static void put_annotations(struct buf *b, struct request *rq, bool cut)
{
	if (cut)
		request_annotate(rq, STR("audit.k8s.io/truncated"), STR("true"));
	if (!rq->annotations.n)
		return;
	qsort(rq->annotations.v, rq->annotations.n, sizeof *rq->annotations.v, pair_cmp);
	for (uint32_t i = 0; i < rq->annotations.n; i++) {
		buf_puts(b, i ? "," : ",\"annotations\":{");
		jv_encode_string(b, rq->annotations.v[i].key);
		buf_putc(b, ':');
		jv_encode_string(b, rq->annotations.v[i].value);
	}
	buf_putc(b, '}');
}

/* The event as JSON; without bodies it says that it was cut. */
static void put_event(struct buf *b, struct request *rq, enum audit_stage stage, struct api_time start,
		      struct api_time now, bool bodies)
{
	struct str agent = http_header_get(&rq->x->headers, "user-agent");

	buf_printf(b, "{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"level\":\"%s\"",
		   level_names[rq->audit.level]);
	put(b, "auditID", rq->audit_id);
	buf_printf(b, ",\"stage\":\"%s\",\"requestURI\":", stage_names[stage]);
	jv_encode_string(b, request_uri(rq));
	buf_puts(b, ",\"verb\":");
	jv_encode_string(b, rq->info.verb);
	put_user(b, "user", rq->real_user ? rq->real_user : rq->user);
	if (rq->real_user && rq->user != rq->real_user)
		put_user(b, "impersonatedUser", rq->user);
	if (rq->impersonation.n) {
		buf_puts(b, ",\"authenticationMetadata\":{");
		put(b, "impersonationConstraint", rq->impersonation);
		buf_putc(b, '}');
	}
	put_source_ips(b, rq);
	put(b, "userAgent",
	    agent.n <= AGENT_MAX ? agent : arena_printf(rq->a, "%.*s...TRUNCATED", AGENT_MAX, agent.p));
	put_object_ref(b, rq);
	if (stage != AUDIT_RECEIVED)
		put_status(b, rq);
	if (bodies && stage == AUDIT_COMPLETE && rq->audit.level >= AUDIT_REQUEST)
		put_request(b, rq);
	/* of what streams only an error, which is at once all of it */
	if (bodies && rq->audit.level == AUDIT_RESPONSE && (rq->long_running ? rq->status >= 400 : stage == AUDIT_COMPLETE))
		put_body(b, rq, "responseObject", rq->audit_answer_type, buf_view(&rq->audit_answer));
	put(b, "requestReceivedTimestamp", time_format(rq->a, start, true));
	put(b, "stageTimestamp", time_format(rq->a, now, true));
	if (stage != AUDIT_RECEIVED || !bodies)
		put_annotations(b, rq, !bodies);
	buf_putc(b, '}');
}

static void put_quoted(struct buf *b, const char *name, struct str value, const char *none)
{
	buf_printf(b, " %s=", name);
	buf_quote(b, value.n ? value : str_from(none));
}

static struct str quoted_groups(struct request *rq, const struct user *u, const char *none)
{
	struct buf b buf_cleanup = {0};

	for (size_t i = 0; u && i < u->n_groups; i++) {
		if (i)
			buf_putc(&b, ',');
		buf_quote(&b, u->groups[i]);
	}
	return b.n ? arena_str(rq->a, buf_view(&b)) : str_from(none);
}

/* Upstream's line of text. */
static void put_legacy(struct buf *b, struct request *rq, enum audit_stage stage, struct api_time start)
{
	const struct user *u = rq->real_user ? rq->real_user : rq->user,
			  *as = rq->real_user && rq->user != rq->real_user ? rq->user : NULL;
	struct str ips[16];
	size_t n = source_ips(rq, ips);

	buf_printf(b, "%.*s AUDIT:", STR_ARG(time_format(rq->a, start, true)));
	put_quoted(b, "id", rq->audit_id, "");
	put_quoted(b, "stage", str_from(stage_names[stage]), "");
	put_quoted(b, "ip", n ? ips[0] : STR_NULL, "<unknown>");
	put_quoted(b, "method", rq->info.verb, "");
	put_quoted(b, "user", u ? u->name : STR_NULL, "<none>");
	put_quoted(b, "groups", u && u->name.n ? quoted_groups(rq, u, "<none>") : STR_NULL, "<none>");
	put_quoted(b, "as", as ? as->name : STR_NULL, as ? "" : "<self>");
	put_quoted(b, "asgroups", as ? quoted_groups(rq, as, "<lookup>") : STR_NULL, "<lookup>");
	put_quoted(b, "user-agent", http_header_get(&rq->x->headers, "user-agent"), "");
	put_quoted(b, "namespace", rq->info.resource_request ? rq->info.ns : STR_NULL, "<none>");
	put_quoted(b, "uri", request_uri(rq), "");
	buf_puts(b, " response=\"");
	if (stage == AUDIT_RECEIVED)
		buf_puts(b, "<deferred>\"");
	else
		buf_printf(b, "%d\"", rq->status);
}

/* Within the backend's size: as it is, or without bodies; false: too large all the same. */
static bool fit(const struct audit_backend *o, struct buf *b, struct request *rq, enum audit_stage stage,
		struct api_time start, struct api_time now)
{
	if (!o->truncate || (int64_t)b->n <= o->truncate_event)
		return true;
	if (rq->audit.level >= AUDIT_REQUEST) {
		b->n = 0;
		put_event(b, rq, stage, start, now, false);
	}
	if ((int64_t)b->n <= o->truncate_event)
		return true;
	log_warn("audit: event %.*s is too large even without bodies", STR_ARG(rq->audit_id));
	metrics_count(METRIC_AUDIT_ERRORS, "plugin=\"truncate\"", 1);
	return false;
}

static bool emit_to(struct audit_sink *k, const struct audit_backend *o, bool legacy, const struct buf *event,
		    struct request *rq, enum audit_stage stage, struct api_time start, struct api_time now)
{
	struct buf b buf_cleanup = {0};

	if (!k)
		return true;
	buf_str(&b, buf_view(event));
	if (!fit(o, &b, rq, stage, start, now))
		return true;
	if (legacy) {
		b.n = 0;
		put_legacy(&b, rq, stage, start);
	}
	return audit_sink_put(k, buf_view(&b));
}

/* False: it had to be written and was not. */
static bool emit(struct request *rq, enum audit_stage stage)
{
	struct audit *a = rq->s->audit;
	struct buf b buf_cleanup = {0};
	struct api_time now = time_now_micro(), start = now;
	int64_t ns = now.s * 1000000000 + now.ns - (now_ns() - rq->start_ns);
	const struct options *o = &rq->s->o;
	bool ok;

	if (rq->audit.level == AUDIT_NONE || rq->audit.omit_stages >> stage & 1)
		return true;
	metrics_count(METRIC_AUDIT_EVENTS, "", 1);
	start.s = ns / 1000000000;
	start.ns = (int32_t)(ns % 1000000000);
	put_event(&b, rq, stage, start, now, true);
	ok = emit_to(a->log, &o->audit_log, !strcmp(o->audit_log_format, "legacy"), &b, rq, stage, start, now);
	return emit_to(a->webhook, &o->audit_webhook, false, &b, rq, stage, start, now) && ok;
}

struct error *audit_begin(struct request *rq)
{
	if (!rq->s->audit || rq->audit_begun)
		return NULL;
	rq->audit_begun = true;
	decide(rq);
	if (emit(rq, AUDIT_RECEIVED))
		return NULL;
	metrics_count(METRIC_AUDIT_REJECTED, "", 1);
	return error_status(500, "InternalError", "failed to store audit event");
}

void audit_started(struct request *rq)
{
	if (!rq->s->audit || rq->audit_streams)
		return;
	rq->audit_streams = true;
	emit(rq, AUDIT_STARTED);
}

#define SLOW_NS 500000000 /* from then on it is told what a request spent its time with */

/* As Go writes a duration: "1m2.5s", "503.2ms", "12.034\302\265s". */
static struct str duration_text(struct arena *a, int64_t ns)
{
	const char *unit = ns < 1000 ? "ns" : ns < 1000000 ? "\302\265s" : ns < 1000000000 ? "ms" : "s";
	int64_t one = ns < 1000 ? 1 : ns < 1000000 ? 1000 : ns < 1000000000 ? 1000000 : 1000000000;
	int64_t s = ns / 1000000000, whole = one == 1000000000 ? s % 60 : ns / one, rest = ns % one;
	struct buf b buf_cleanup = {0};
	int digits = one == 1000 ? 3 : one == 1000000 ? 6 : 9;

	if (s >= 3600)
		buf_printf(&b, "%lldh", (long long)(s / 3600));
	if (s >= 60)
		buf_printf(&b, "%lldm", (long long)(s / 60 % 60));
	buf_printf(&b, "%lld", (long long)whole);
	if (rest) {
		buf_printf(&b, ".%0*lld", digits, (long long)rest);
		while (b.p[b.n - 1] == '0')
			b.n--;
	}
	buf_puts(&b, unit);
	return arena_str(a, buf_view(&b));
}

static void annotate_spent(struct request *rq, const char *what, int64_t ns)
{
	if (ns > 0)
		request_annotate(rq, arena_printf(rq->a, "apiserver.latency.k8s.io/%s", what), duration_text(rq->a, ns));
}

static void annotate_slow(struct request *rq)
{
	int64_t total = now_ns() - rq->start_ns;

	if (total <= SLOW_NS)
		return;
	annotate_spent(rq, "authentication", rq->spent_ns.authentication);
	annotate_spent(rq, "authorization", rq->spent_ns.authorization);
	annotate_spent(rq, "impersonation", rq->spent_ns.impersonation);
	annotate_spent(rq, "apf-queue-wait", rq->spent_ns.queue);
	annotate_spent(rq, "mutating-webhook", rq->spent_ns.mutating);
	annotate_spent(rq, "validating-webhook", rq->spent_ns.validating);
	annotate_spent(rq, "etcd", rq->spent_ns.store);
	annotate_spent(rq, "total", total);
}

void audit_answered(struct request *rq)
{
	if (!rq->s->audit || !rq->audit_begun || rq->audit_complete || rq->long_running)
		return;
	rq->audit_complete = true;
	annotate_slow(rq);
	emit(rq, AUDIT_COMPLETE);
}

void audit_end(struct request *rq)
{
	if (!rq->s->audit)
		return;
	if (rq->audit_complete) {
		buf_free(&rq->audit_answer);
		return;
	}
	if (rq->audit_begun) {
		if (rq->long_running)
			audit_started(rq);
		annotate_slow(rq);
		emit(rq, AUDIT_COMPLETE);
	} else {
		/* it failed before its user was known: that is all there is to say */
		rq->audit_begun = true;
		decide(rq);
		emit(rq, AUDIT_STARTED);
	}
	buf_free(&rq->audit_answer);
}

#define FLUSH_MS 1000

void audit_flush(struct apiserver *s)
{
	if (s->audit && s->audit->log)
		audit_sink_flush(s->audit->log, FLUSH_MS);
	if (s->audit && s->audit->webhook)
		audit_sink_flush(s->audit->webhook, FLUSH_MS);
}
