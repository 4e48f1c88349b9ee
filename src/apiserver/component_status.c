/*
 * ComponentStatuses: asked for at each request, kept nowhere. Upstream asks the controller manager and the scheduler at their
 * default ports of this machine, and the store.
 */
#include "apiserver/list.h"
#include "apiserver/outbound.h"

#define PROBE_TIMEOUT_MS 20000

static const struct component {
	const char *name;
	int port; /* 0: the store */
} components[] = {{"scheduler", 10259}, {"controller-manager", 10257}, {"etcd-0", 0}};

/* Success is 2xx and 3xx; what the component says is the message either way. */
static void ask(struct arena *a, int port, struct core_v1_component_condition *c)
{
	const struct tls_client_opts t = {.insecure_skip_verify = true};
	struct str url = arena_printf(a, "https://127.0.0.1:%d/healthz", port);
	struct outbound_answer ans;
	struct outbound *o = NULL;
	struct error *e = outbound_new(&t, &o);

	if (!e)
		e = outbound_get(o, a, url, STR_NULL, PROBE_TIMEOUT_MS, &ans);
	outbound_free(o);
	c->status = !e && ans.status >= 200 && ans.status < 400 ? STR("True") : STR("False");
	if (e)
		c->message = arena_str(a, str_from(error_message(e)));
	else if (str_eqz(c->status, "True"))
		c->message = ans.body;
	else
		c->message = arena_printf(a, "HTTP probe failed with statuscode: %d", ans.status);
	error_free(e);
}

static void find_out(struct request *rq, const struct component *what, struct core_v1_component_status *out)
{
	struct core_v1_component_condition *c = arena_push(rq->a, &out->conditions);
	struct error *e;
	int64_t rev;

	out->metadata.name = str_from(what->name);
	c->type = STR("Healthy");
	if (what->port) {
		ask(rq->a, what->port, c);
		return;
	}
	e = store_current(rq->s->store, &rev);
	c->status = e ? STR("False") : STR("True");
	if (e)
		c->error = arena_str(rq->a, str_from(error_message(e)));
	else
		c->message = STR("ok");
	error_free(e);
}

static struct error *table(struct request *rq, const struct core_v1_component_status *v, size_t n)
{
	struct table_options o = {.object = include_object(rq), .v1beta1 = rq->out.table_v1beta1, .now = time_now_micro(),
				  .api_version = rq->res->api_version, .kind = rq->res->api->kind};
	struct meta_v1_list_meta meta = {0};
	struct buf b buf_cleanup = {0};

	TRY(respond_table_options(rq));
	table_begin(&b, rq->res->api, &o, &meta);
	for (size_t i = 0; i < n; i++)
		table_append(rq, &b, rq->res, &o, &v[i], i == 0);
	table_end(&b, rq->res->api);
	return respond_json(rq, 200, buf_view(&b));
}

static struct error *partial_list(struct request *rq, const struct core_v1_component_status *v, size_t n)
{
	struct meta_v1_partial_object_metadata_list list = {.kind = STR("PartialObjectMetadataList"),
							    .api_version = rq->out.table_v1beta1 ? STR("meta.k8s.io/v1beta1") : STR("meta.k8s.io/v1")};

	for (size_t i = 0; i < n; i++) {
		struct meta_v1_partial_object_metadata *o = arena_push(rq->a, &list.items);

		o->metadata = v[i].metadata;
		if (rq->out.media == MEDIA_PROTOBUF)
			continue;
		o->kind = STR("PartialObjectMetadata");
		o->api_version = list.api_version;
	}
	rq->out.as = ANSWER_OBJECT;
	return respond_struct(rq, 200, &meta_v1_partial_object_metadata_list_type, &list);
}

static struct error *get(struct request *rq)
{
	struct core_v1_component_status one = {.kind = STR("ComponentStatus"), .api_version = STR("v1")};

	for (size_t i = 0; i < sizeof components / sizeof *components; i++) {
		if (!str_eqz(rq->info.name, components[i].name))
			continue;
		find_out(rq, &components[i], &one);
		return rq->out.as == ANSWER_TABLE ? table(rq, &one, 1) : respond_struct(rq, 200, &core_v1_component_status_type, &one);
	}
	return err_not_found(STR(""), STR("componentstatus"), rq->info.name);
}

/* Both of metadata's fields, and no others. */
static struct error *check_fields(const struct selector *fields)
{
	struct str key, value;
	bool negated;

	for (size_t i = 0; field_selector_get(fields, i, &key, &value, &negated); i++)
		if (!str_eqz(key, "metadata.name") && !str_eqz(key, "metadata.namespace"))
			return err_bad_request("\"%.*s\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
					       STR_ARG(key));
	return NULL;
}

static struct error *list(struct request *rq)
{
	struct core_v1_component_status_list out = {.kind = STR("ComponentStatusList"), .api_version = STR("v1")};
	const struct selector *labels = NULL, *fields = NULL;
	struct str_map none = {0};

	out.items.v = arena_array(rq->a, struct core_v1_component_status, 1); /* none is [] */
	out.items.cap = 1;
	TRY(list_decode_options(rq));
	TRY(label_selector_parse(rq->a, query_get(&rq->q, "labelSelector"), &labels));
	TRY(field_selector_parse(rq->a, query_get(&rq->q, "fieldSelector"), &fields));
	TRY(check_fields(fields));
	TRY(list_validate_options(rq));
	for (size_t i = 0; i < sizeof components / sizeof *components; i++) {
		struct str_map has = {0};

		str_map_set(rq->a, &has, STR("metadata.name"), str_from(components[i].name));
		str_map_set(rq->a, &has, STR("metadata.namespace"), STR(""));
		if (selector_matches(labels, &none) && selector_matches(fields, &has))
			find_out(rq, &components[i], arena_push(rq->a, &out.items));
	}
	switch (rq->out.as) {
	case ANSWER_TABLE:
		return table(rq, out.items.v, out.items.n);
	case ANSWER_PARTIAL_LIST:
		return partial_list(rq, out.items.v, out.items.n);
	case ANSWER_PARTIAL:
		return error_status(406, "NotAcceptable", "PartialObjectMetadata may not be requested for a list of objects");
	default:
		return respond_struct(rq, 200, &core_v1_component_status_list_type, &out);
	}
}

struct error *rest_component_status(struct request *rq)
{
	return str_eqz(rq->info.verb, "get") ? get(rq) : list(rq);
}
