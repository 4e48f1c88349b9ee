/*
 * Custom objects between versions: only apiVersion differs, or a webhook is asked (apiextensions.k8s.io ConversionReview), once for
 * all objects of a list. Upstream: apiextensions-apiserver/pkg/apiserver/conversion.
 */
#include "apiserver/metrics.h"
#include "apiserver/crd_internal.h"
#include "schema/jv.h"

#define WEBHOOK_TIMEOUT_S 30
#define REVIEW_BYTES_MAX (4 << 20) /* of objects in one review; more are asked for in several */

bool custom_asks_webhook(const struct resource *res)
{
	const struct apiextensions_v1_custom_resource_conversion *cv = res->crd ? res->crd->obj->spec.conversion : NULL;

	return cv && str_eqz(cv->strategy, "Webhook") && cv->webhook && cv->webhook->client_config;
}

/* One conversion on its way. */
struct review {
	struct arena *a;
	const struct resource *res;
	struct str api_version;  /* desired */
	struct str version;      /* of the review: v1 or v1beta1 */
	struct str from, kind;   /* for messages */
	bool list;
	char uid[37];
};

static struct error *failed(const struct review *r, const char *verb, const char *what)
{
	return error_status(500, "", "conversion webhook for %.*s, Kind=%.*s%s %s: %s", STR_ARG(r->from),
			    STR_ARG(r->kind), r->list ? "List" : "", verb, what);
}

/* The first of the definition's versions that is known here. */
static struct error *review_version(const struct apiextensions_v1_webhook_conversion *w, struct str *out)
{
	for (uint32_t i = 0; i < w->conversion_review_versions.n; i++) {
		*out = w->conversion_review_versions.v[i];
		if (str_eqz(*out, "v1") || str_eqz(*out, "v1beta1"))
			return NULL;
	}
	return error_status(500, "", "no supported conversion review versions");
}

static struct error *ask(struct review *r, struct str objects, struct jv *doc)
{
	struct crd *c = r->res->crd;
	const struct apiextensions_v1_webhook_client_config *from = c->obj->spec.conversion->webhook->client_config;
	struct admissionregistration_v1_webhook_client_config cc = {.url = from->url, .ca_bundle = from->ca_bundle};
	struct admissionregistration_v1_service_reference ref;
	struct buf b buf_cleanup = {0};
	struct str answer;
	struct error *e, *w;

	if (from->service) {
		ref = (struct admissionregistration_v1_service_reference){.namespace = from->service->namespace, .name = from->service->name,
									  .path = from->service->path, .port = from->service->port};
		cc.service = &ref;
	}
	buf_printf(&b, "{\"kind\":\"ConversionReview\",\"apiVersion\":\"apiextensions.k8s.io/%.*s\",\"request\":{\"uid\":\"%s\","
		       "\"desiredAPIVersion\":\"%.*s\",\"objects\":[", STR_ARG(r->version), r->uid, STR_ARG(r->api_version));
	buf_str(&b, objects);
	buf_puts(&b, "]},\"response\":{\"uid\":\"\",\"convertedObjects\":null,\"result\":{\"metadata\":{}}}}"); /* as
														   upstream
														   sends
														   it */
	e = webhook_post(c->s, NULL, r->a, &c->conn, &cc, WEBHOOK_TIMEOUT_S, buf_view(&b), &answer);
	if (!e)
		e = jv_parse(r->a, answer, NULL, doc);
	if (!e)
		return NULL;
	w = failed(r, "failed", error_message(e));
	error_free(e);
	return w;
}

/* The converted objects of an answer that is one; v1beta1's names neither itself nor the request. */
static struct error *converted(const struct review *r, const struct jv *doc, size_t n, const struct jv **out)
{
	const struct jv *response = jv_get(doc, STR("response")), *list;
	struct str status = jv_str(jv_at(doc, "response", "result", "status", NULL)), m = jv_str(jv_at(doc, "response", "result", "message", NULL));
	const char *wrong = NULL;

	if (str_eqz(r->version, "v1") && (!str_eqz(jv_str(jv_get(doc, STR("kind"))), "ConversionReview") ||
					  !str_eqz(jv_str(jv_get(doc, STR("apiVersion"))), "apiextensions.k8s.io/v1")))
		wrong = "expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview";
	else if (!jv_is(response, JV_OBJECT))
		wrong = "no response provided";
	else if (str_eqz(r->version, "v1") && !str_eqz(jv_str(jv_get(response, STR("uid"))), r->uid))
		wrong = arena_printf(r->a, "expected response.uid=\"%s\"", r->uid).p;
	else if (!str_eqz(status, "Success"))
		wrong = m.n ? arena_strz(r->a, m) : arena_printf(r->a, "response.result.status was '%.*s', not 'Success'", STR_ARG(status)).p;
	if (wrong)
		return failed(r, "failed", wrong);
	list = jv_get(response, STR("convertedObjects"));
	*out = list;
	if ((jv_is(list, JV_ARRAY) ? list->n : 0) != n)
		return failed(r, "failed", arena_printf(r->a, "it returned %u objects, expected %zu", jv_is(list, JV_ARRAY) ? list->n : 0, n).p);
	return NULL;
}

static const char *not_strings(struct arena *a, const struct jv *metadata, const char *field)
{
	const struct jv *m = jv_get(metadata, str_from(field));

	if (m && m->kind != JV_NULL && m->kind != JV_OBJECT)
		return arena_printf(a, "invalid metadata.%s in converted object", field).p;
	for (uint32_t i = 0; m && m->kind == JV_OBJECT && i < m->n; i++)
		if (m->members[i].value.kind != JV_STRING)
			return arena_printf(a, "metadata.%s[%.*s] must be a string", field, STR_ARG(m->members[i].key)).p;
	return NULL;
}

/* Of metadata a webhook may change labels and annotations only. */
static struct error *take(const struct review *r, const struct jv *tree, size_t i, void **obj)
{
	const struct schema_type *t = r->res->st->type;
	const struct custom_head *h = *obj;
	const struct jv *metadata = jv_get(tree, STR("metadata"));
	struct custom_head *out = arena_alloc(r->a, t->size);
	const char *wrong = NULL;
	struct error *e;

	if (!jv_is(tree, JV_OBJECT))
		wrong = "not an object";
	else if (!str_eq(jv_str(jv_get(tree, STR("apiVersion"))), r->api_version))
		wrong = arena_printf(r->a, "invalid groupVersion (expected %.*s, received %.*s)", STR_ARG(r->api_version),
				     STR_ARG(jv_str(jv_get(tree, STR("apiVersion"))))).p;
	else if (!str_eq(jv_str(jv_get(tree, STR("kind"))), h->kind))
		wrong = arena_printf(r->a, "invalid kind (expected %.*s, received %.*s)", STR_ARG(h->kind),
				     STR_ARG(jv_str(jv_get(tree, STR("kind"))))).p;
	else if (!jv_is(metadata, JV_OBJECT))
		wrong = "missing metadata in converted object";
	else if (!str_eq(jv_str(jv_get(metadata, STR("name"))), h->metadata.name))
		wrong = "must have the same name";
	else if (!str_eq(jv_str(jv_get(metadata, STR("namespace"))), h->metadata.namespace))
		wrong = "must have the same namespace";
	else if (!str_eq(jv_str(jv_get(metadata, STR("uid"))), h->metadata.uid))
		wrong = "must have the same UID";
	else
		wrong = not_strings(r->a, metadata, "labels");
	if (!wrong)
		wrong = not_strings(r->a, metadata, "annotations");
	if (!wrong) {
		e = jv_to_object(r->a, t, tree, NULL, out);
		if (!e) {
			struct meta_v1_object_meta keep = h->metadata;

			memcpy(&keep.labels, &out->metadata.labels, sizeof keep.labels);
			memcpy(&keep.annotations, &out->metadata.annotations, sizeof keep.annotations);
			out->metadata = keep;
			*obj = out;
			return NULL;
		}
		wrong = arena_strz(r->a, str_from(error_message(e)));
		error_free(e);
	}
	return failed(r, "returned invalid converted object", arena_printf(r->a, "at index %zu: %s", i, wrong).p);
}

/* failure: of what kind; NULL: none. */
static void observe(const struct review *r, int64_t ns, const char *failure)
{
	const char *labels = arena_printf(r->a, "failure_type=\"%s\",result=\"%s\"", failure ? failure : "", failure ? "failure" : "success").p;
	struct str from = r->from, to = r->api_version;

	str_cut(&from, '/');
	str_cut(&to, '/');
	metrics_count(METRIC_CONVERSIONS, labels, 1);
	metrics_observe(METRIC_CONVERSION_TIME, labels, (double)ns / 1e9);
	metrics_observe(METRIC_CRD_CONVERSION_TIME,
			arena_printf(r->a, "crd_name=\"%.*s\",from_version=\"%.*s\",succeeded=\"%s\",to_version=\"%.*s\"",
				     STR_ARG(r->res->crd->obj->metadata.name), STR_ARG(from), failure ? "false" : "true", STR_ARG(to)).p,
			(double)ns / 1e9);
}

/* Those of objs[0..n) that are in another version, as many as go into one review; *done: how far it came. */
static struct error *convert_some(struct review *r, void **objs, size_t n, size_t *done)
{
	struct buf b buf_cleanup = {0};
	LIST(uint32_t) which = {0};
	const struct jv *list = NULL;
	int64_t since = now_ns();
	const char *what;
	struct error *e;
	struct jv doc;
	size_t i;

	for (i = 0; i < n && b.n < REVIEW_BYTES_MAX; i++) {
		struct custom_head *h = objs[i];
		struct str rv = h->metadata.resource_version;

		if (str_eq(h->api_version, r->api_version))
			continue;
		if (b.n)
			buf_putc(&b, ',');
		h->metadata.resource_version = STR_NULL; /* nothing that is stored has one */
		json_encode(&b, r->res->st->type, objs[i]);
		h->metadata.resource_version = rv;
		*arena_push(r->a, &which) = (uint32_t)i;
	}
	*done = i;
	if (!which.n)
		return NULL;
	r->from = ((const struct custom_head *)objs[which.v[0]])->api_version;
	r->kind = ((const struct custom_head *)objs[which.v[0]])->kind;
	random_uuid(r->uid);
	e = ask(r, buf_view(&b), &doc);
	what = "conversion_webhook_call_failure";
	if (!e) {
		e = converted(r, &doc, which.n, &list);
		what = list ? "conversion_webhook_partial_response_failure" : "conversion_webhook_malformed_response_failure";
	}
	for (uint32_t k = 0; k < which.n && !e; k++) {
		e = take(r, &list->items[k], k, &objs[which.v[k]]);
		what = "conversion_webhook_invalid_converted_object_failure";
	}
	observe(r, now_ns() - since, e ? what : NULL);
	return e;
}

/* One of a version that the definition has no more cannot be read; *same: nothing is to be done. */
static struct error *check_versions(const struct resource *res, void **objs, size_t n, struct str to, bool *same)
{
	*same = true;
	for (size_t i = 0; i < n; i++) {
		const struct custom_head *h = objs[i];

		if (!crd_version_of(res, h->api_version))
			return error_status(500, "",
					    "the object is of a version that its definition does not have: %.*s",
					    STR_ARG(h->api_version));
		*same &= str_eq(h->api_version, to);
	}
	return NULL;
}

static struct error *ask_webhook(struct arena *a, const struct resource *res, void **objs, size_t n,
				 struct str api_version)
{
	struct review r = {.a = a, .res = res, .api_version = api_version, .list = n > 1};

	TRY(review_version(res->crd->obj->spec.conversion->webhook, &r.version));
	for (size_t at = 0, done; at < n; at += done)
		TRY(convert_some(&r, objs + at, n - at, &done));
	return NULL;
}

/* What comes out of a conversion is pruned by the schema of its version, whoever made it. */
struct error *custom_convert_all(struct arena *a, const struct resource *res, void **objs, size_t n,
				 struct str api_version)
{
	const struct resource *to = crd_version_of(res, api_version);
	bool *changed = arena_array(a, bool, n + 1), same;

	TRY(check_versions(res, objs, n, api_version, &same));
	if (same)
		return NULL;
	for (size_t i = 0; i < n; i++)
		changed[i] = !str_eq(((struct custom_head *)objs[i])->api_version, api_version);
	if (custom_asks_webhook(res))
		TRY(ask_webhook(a, res, objs, n, api_version));
	for (size_t i = 0; i < n; i++) {
		((struct custom_head *)objs[i])->api_version = api_version;
		if (changed[i] && to)
			TRY(custom_prune(a, to, objs[i], NULL));
	}
	return NULL;
}

struct error *custom_convert(struct arena *a, const struct resource *res, void **obj, struct str api_version)
{
	return custom_convert_all(a, res, obj, 1, api_version);
}

struct error *custom_convert_tree(void *ctx, struct arena *a, const struct jv *obj, struct str api_version, struct jv *out, struct shape *shape)
{
	const struct resource *res = ctx, *to = crd_version_of(res, api_version);
	const struct schema_type *t = res->st->type;

	if (!to)
		return error_status(500, "", "request to convert CR to an invalid group/version: %.*s", STR_ARG(api_version));
	*shape = custom_shape(to);
	if (custom_asks_webhook(res)) {
		void *o = arena_alloc(a, t->size);

		TRY(jv_to_object(a, t, obj, NULL, o));
		TRY(ask_webhook(a, res, &o, 1, api_version));
		jv_from_object(a, t, o, out);
		return NULL;
	}
	*out = jv_object();
	for (uint32_t i = 0; i < obj->n; i++)
		jv_set(a, out, obj->members[i].key, obj->members[i].value);
	jv_set(a, out, STR("apiVersion"), jv_string(api_version));
	return NULL;
}
