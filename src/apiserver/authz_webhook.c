/* The webhook authorizer: SubjectAccessReviews (authorization.k8s.io) asked of a server that a kubeconfig names. */
#include <openssl/sha.h>
#include <stdlib.h>
#include "apiserver/authz_internal.h"
#include "apiserver/expressions.h"
#include "apiserver/metrics.h"
#include "apiserver/outbound.h"
#include "schema/jv.h"

#define CACHE_MAX 8192        /* answers; then all are forgotten */
#define CACHED_ATTRS_MAX 10000 /* bytes of attributes that the asker chooses: more is asked again each time (upstream's) */

struct answer {
	int64_t until;
	bool allowed, denied;
	char *reason;
};

struct authz_webhook {
	struct arena arena;
	struct str name;
	const char *labels; /* of metrics */
	struct outbound *out;
	bool v1beta1;
	int64_t timeout_ms, allowed_ttl_ms, refused_ttl_ms; /* a TTL of 0: not kept */
	enum authz on_error;
	struct cel_program **conditions; /* all must hold for the webhook to be asked */
	struct str *sources;
	uint32_t n_conditions;
	struct map answers; /* SHA-256 of the spec -> struct answer * */
};

static void answer_free(void *v)
{
	struct answer *n = v;

	free(n->reason);
	free(n);
}

void authz_webhook_free(struct authz_webhook *w)
{
	if (!w)
		return;
	map_free_values(&w->answers, answer_free);
	for (uint32_t i = 0; i < w->n_conditions; i++)
		cel_program_free(w->conditions[i]);
	outbound_free(w->out);
	arena_free(&w->arena);
	free(w);
}

/* ---- match conditions: SubjectAccessReviewSpec as `request` (upstream's authorization/cel) ---- */

#define FIELD(n, t) {STR_INIT(n), STR_INIT(n), t}
#define OBJECT(var, title, ...)                                                                                                       \
	static const struct cel_field var##_fields[] = {__VA_ARGS__};                                                                  \
	static const struct cel_type var = {.kind = CEL_OBJECT, .name = STR_INIT(title), .fields = var##_fields,                       \
					    .n_fields = sizeof var##_fields / sizeof *var##_fields, .max_size = CEL_NO_MAX_SIZE}

static const struct cel_type map_lists = {.kind = CEL_MAP, .key = &cel_type_string, .elem = &cel_type_list_string, .max_size = CEL_NO_MAX_SIZE};
OBJECT(requirement, "kubernetes.SelectorRequirement", FIELD("key", &cel_type_string), FIELD("operator", &cel_type_string),
       FIELD("values", &cel_type_list_string));
static const struct cel_type requirements = {.kind = CEL_LIST, .elem = &requirement, .max_size = CEL_NO_MAX_SIZE};
OBJECT(field_selector, "kubernetes.FieldSelectorAttributes", FIELD("rawSelector", &cel_type_string), FIELD("requirements", &requirements));
OBJECT(label_selector, "kubernetes.LabelSelectorAttributes", FIELD("rawSelector", &cel_type_string), FIELD("requirements", &requirements));
OBJECT(resource_attributes, "kubernetes.ResourceAttributes", FIELD("namespace", &cel_type_string), FIELD("verb", &cel_type_string),
       FIELD("group", &cel_type_string), FIELD("version", &cel_type_string), FIELD("resource", &cel_type_string),
       FIELD("subresource", &cel_type_string), FIELD("name", &cel_type_string), FIELD("fieldSelector", &field_selector),
       FIELD("labelSelector", &label_selector));
OBJECT(non_resource_attributes, "kubernetes.NonResourceAttributes", FIELD("path", &cel_type_string), FIELD("verb", &cel_type_string));
OBJECT(review_spec, "kubernetes.SubjectAccessReviewSpec", FIELD("resourceAttributes", &resource_attributes),
       FIELD("nonResourceAttributes", &non_resource_attributes), FIELD("user", &cel_type_string), FIELD("groups", &cel_type_list_string),
       FIELD("extra", &map_lists), FIELD("uid", &cel_type_string));

bool authz_condition_compile(struct arena *a, struct str source, struct cel_program **out, struct str *error)
{
	static const struct cel_type *const is_bool[] = {&cel_type_bool};
	static const struct cel_var var = {STR_INIT("request"), &review_spec};
	const struct cel_env env = {.vars = &var, .n_vars = 1};

	return program_compile(a, &env, source, is_bool, 1, true, out, error);
}

/* Every text of the attributes is there, also an empty one. */
static struct jv spec_tree(struct arena *a, const struct authorization_v1_subject_access_review_spec *spec)
{
	struct jv out, *r, *n;
	static const char *const texts[] = {"namespace", "verb", "group", "version", "resource", "subresource", "name"};

	jv_from_object(a, &authorization_v1_subject_access_review_spec_type, spec, &out);
	if (!jv_get(&out, STR("user")))
		jv_set(a, &out, STR("user"), jv_string(STR("")));
	if (!jv_get(&out, STR("uid")))
		jv_set(a, &out, STR("uid"), jv_string(STR("")));
	if (!jv_get(&out, STR("groups")))
		jv_set(a, &out, STR("groups"), jv_array());
	jv_sub(a, &out, STR("extra"));
	r = jv_get(&out, STR("resourceAttributes"));
	for (size_t i = 0; r && i < sizeof texts / sizeof *texts; i++)
		if (!jv_get(r, str_from(texts[i])))
			jv_set(a, r, str_from(texts[i]), jv_string(STR("")));
	n = jv_get(&out, STR("nonResourceAttributes"));
	for (size_t i = 0; n && i < 2; i++)
		if (!jv_get(n, i ? STR("verb") : STR("path")))
			jv_set(a, n, i ? STR("verb") : STR("path"), jv_string(STR("")));
	return out;
}

/* One that is false skips the webhook, whatever the others come to. */
static bool conditions_hold(struct authz_webhook *w, struct arena *a, const struct authorization_v1_subject_access_review_spec *spec, struct str *trouble)
{
	struct buf errors buf_cleanup = {0};
	struct jv tree = spec_tree(a, spec);
	struct cel_value v = cel_from_jv(a, &tree, NULL);
	int64_t since = now_ns();
	bool excluded = false;
	uint32_t n = 0;

	for (uint32_t i = 0; i < w->n_conditions && !excluded; i++) {
		struct cel_value r = cel_eval(w->conditions[i], &v, a, CEL_PER_CALL_LIMIT, NULL);

		if (r.kind == CEL_ERROR)
			buf_printf(&errors, "%scel evaluation error: expression '%.*s' resulted in error: %.*s", n++ ? ", " : "",
				   STR_ARG(w->sources[i]), STR_ARG(cel_error_text(r)));
		else
			excluded = r.kind != CEL_BOOL || !r.b;
	}
	metrics_observe(METRIC_AUTHZ_MATCH_TIME, w->labels, (double)(now_ns() - since) / 1e9);
	if (n)
		metrics_count(METRIC_AUTHZ_MATCH_ERRORS, w->labels, 1);
	if (excluded)
		metrics_count(METRIC_AUTHZ_MATCH_EXCLUSIONS, w->labels, 1);
	else if (n)
		*trouble = arena_printf(a, n > 1 ? "[%.*s]" : "%.*s", STR_ARG(buf_view(&errors)));
	return n == 0 && !excluded;
}

struct error *authz_webhook_new(struct str name, const struct apiserverconfig_v1_webhook_configuration *c, const char *path,
				struct authz_webhook **out)
{
	struct authz_webhook *w = xcalloc(1, sizeof *w);
	struct error *e = outbound_from_kubeconfig(path, &w->out);

	if (e) {
		free(w);
		return e;
	}
	w->name = arena_str(&w->arena, name);
	w->labels = arena_printf(&w->arena, "name=\"%.*s\",type=\"Webhook\"", STR_ARG(name)).p;
	w->v1beta1 = str_eqz(c->subject_access_review_version, "v1beta1");
	w->timeout_ms = c->timeout / 1000000;
	w->allowed_ttl_ms = !c->cache_authorized_requests || *c->cache_authorized_requests ? c->authorized_ttl / 1000000 : 0;
	w->refused_ttl_ms = !c->cache_unauthorized_requests || *c->cache_unauthorized_requests ? c->unauthorized_ttl / 1000000 : 0;
	w->on_error = str_eqz(c->failure_policy, "Deny") ? AUTHZ_DENY : AUTHZ_NO_OPINION;
	w->conditions = arena_array(&w->arena, struct cel_program *, c->match_conditions.n);
	w->sources = arena_array(&w->arena, struct str, c->match_conditions.n);
	for (uint32_t i = 0; i < c->match_conditions.n; i++) {
		struct str error;

		w->sources[i] = arena_str(&w->arena, c->match_conditions.v[i].expression);
		if (!authz_condition_compile(&w->arena, w->sources[i], &w->conditions[i], &error)) {
			e = error_new("match condition: %.*s", STR_ARG(error));
			authz_webhook_free(w);
			return e;
		}
		w->n_conditions++;
	}
	*out = w;
	return NULL;
}

static void spec_of(struct arena *a, const struct authz_attrs *at, struct authorization_v1_subject_access_review_spec *spec)
{
	spec->user = at->user->name;
	spec->uid = at->user->uid;
	spec->groups.v = (struct str *)(uintptr_t)at->user->groups;
	spec->groups.n = (uint32_t)at->user->n_groups;
	for (size_t i = 0; i < at->user->n_extra; i++)
		*(struct strings_pair *)(void *)arena_push(a, &spec->extra) = at->user->extra[i];
	if (at->resource_request) {
		struct authorization_v1_resource_attributes *r = spec->resource_attributes =
			arena_new(a, struct authorization_v1_resource_attributes);

		r->namespace = at->ns;
		r->verb = at->verb;
		r->group = at->group;
		r->version = at->version;
		r->resource = at->resource;
		r->subresource = at->subresource;
		r->name = at->name;
		if (at->n_fields) {
			r->field_selector = arena_new(a, struct authorization_v1_field_selector_attributes);
			r->field_selector->requirements.v = (struct meta_v1_field_selector_requirement *)(uintptr_t)at->fields;
			r->field_selector->requirements.n = at->n_fields;
		}
		if (at->n_labels) {
			r->label_selector = arena_new(a, struct authorization_v1_label_selector_attributes);
			r->label_selector->requirements.v = (struct meta_v1_label_selector_requirement *)(uintptr_t)at->labels;
			r->label_selector->requirements.n = at->n_labels;
		}
	} else {
		spec->non_resource_attributes = arena_new(a, struct authorization_v1_non_resource_attributes);
		spec->non_resource_attributes->path = at->path;
		spec->non_resource_attributes->verb = at->verb;
	}
}

/* v1beta1 has the same fields, but `group` for `groups`. */
static struct error *ask(struct authz_webhook *w, struct request *rq, struct arena *a, struct authorization_v1_subject_access_review_spec *spec,
			 struct authorization_v1_subject_access_review_status *out)
{
	struct authorization_v1_subject_access_review r = {.kind = STR("SubjectAccessReview")},
						      *ans = arena_new(a, struct authorization_v1_subject_access_review);
	struct buf b buf_cleanup = {0};
	struct str body;

	r.api_version = w->v1beta1 ? STR("authorization.k8s.io/v1beta1") : STR("authorization.k8s.io/v1");
	r.spec = *spec;
	if (w->v1beta1) {
		struct jv doc;
		struct jv *s, *groups;

		jv_from_object(a, &authorization_v1_subject_access_review_type, &r, &doc);
		s = jv_get(&doc, STR("spec"));
		groups = jv_get(s, STR("groups"));
		if (groups) {
			jv_set(a, s, STR("group"), *groups);
			jv_del(s, STR("groups"));
		}
		jv_encode(&b, &doc);
	} else {
		json_encode(&b, &authorization_v1_subject_access_review_type, &r);
	}
	TRY(outbound_post(w->out, rq, a, buf_view(&b), w->timeout_ms, OUTBOUND_FIRST_MS, &body));
	TRY(json_decode(a, &authorization_v1_subject_access_review_type, body, NULL, ans));
	*out = ans->status;
	return NULL;
}

static void keep(struct authz_webhook *w, struct str key, const struct authorization_v1_subject_access_review_status *st)
{
	int64_t ttl = st->allowed ? w->allowed_ttl_ms : w->refused_ttl_ms;
	struct answer *n, *old;

	if (ttl <= 0)
		return;
	if (w->answers.n >= CACHE_MAX)
		map_free_values(&w->answers, answer_free);
	n = xcalloc(1, sizeof *n);
	*n = (struct answer){.until = now_ms() + ttl, .allowed = st->allowed, .denied = st->denied, .reason = str_dupz(st->reason)};
	old = map_set(&w->answers, key, n);
	if (old)
		answer_free(old);
}

/* Counts how a question went, and gives the labels that say so. */
static const char *asked(const struct authz_webhook *w, struct arena *a, const struct error *e, int64_t since)
{
	const char *how = !e ? "success" : error_is_sys(e, ECANCELED) ? "canceled" : error_is_sys(e, ETIMEDOUT) ? "timeout" : "error";
	const char *labels = arena_printf(a, "name=\"%.*s\",result=\"%s\"", STR_ARG(w->name), how).p;

	metrics_count(METRIC_AUTHZ_WEBHOOK_EVALUATIONS, labels, 1);
	metrics_observe(METRIC_AUTHZ_WEBHOOK_TIME, labels, (double)(now_ns() - since) / 1e9);
	return labels;
}

enum authz authz_webhook_ask(struct authz_webhook *w, struct arena *a, const struct authz_attrs *at, struct str *reason, struct str *trouble)
{
	struct authorization_v1_subject_access_review_spec spec = {0};
	struct authorization_v1_subject_access_review_status st = {0};
	struct buf b buf_cleanup = {0};
	unsigned char sum[SHA256_DIGEST_LENGTH];
	struct str key = str_of((const char *)sum, sizeof sum);
	struct answer *known;
	const char *result;
	struct error *e;
	int64_t since;

	spec_of(a, at, &spec);
	if (w->n_conditions && !conditions_hold(w, a, &spec, trouble))
		return trouble->p ? w->on_error : AUTHZ_NO_OPINION;
	json_encode(&b, &authorization_v1_subject_access_review_spec_type, &spec);
	SHA256((const unsigned char *)b.p, b.n, sum);
	known = map_get(&w->answers, key);
	if (known && known->until > now_ms()) {
		st.allowed = known->allowed;
		st.denied = known->denied;
		st.reason = arena_str(a, str_from(known->reason));
	} else {
		since = now_ns();
		e = ask(w, at->rq, a, &spec, &st);
		result = asked(w, a, e, since);
		if (e) {
			if (w->on_error == AUTHZ_NO_OPINION && !error_is_sys(e, ECANCELED))
				metrics_count(METRIC_AUTHZ_FAIL_OPEN, result, 1);
			log_error("webhook authorizer %.*s: %s", STR_ARG(w->name), error_message(e));
			*trouble = arena_str(a, str_from(error_message(e)));
			error_free(e);
			return w->on_error;
		}
		if (at->ns.n + at->verb.n + at->group.n + at->version.n + at->resource.n + at->subresource.n + at->name.n + at->path.n <
		    CACHED_ATTRS_MAX)
			keep(w, key, &st);
	}
	*reason = st.reason;
	if (st.denied && st.allowed)
		*trouble = STR("webhook subject access review returned both allow and deny response");
	return st.denied ? AUTHZ_DENY : st.allowed ? AUTHZ_ALLOW : AUTHZ_NO_OPINION;
}
