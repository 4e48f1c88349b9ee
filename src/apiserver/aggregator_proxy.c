/* Requests to aggregated servers: the clients', passed on with who they are, and this server's own. */
#include "apiserver/aggregator.h"
#include "apiserver/connect.h"
#include "apiserver/flow.h"
#include "apiserver/forward.h"
#include "apiserver/metrics.h"
#include "apiserver/outbound.h"

/* ---- the way there ---- */

static struct error *client_of(struct apiserver *s, struct arena *a, struct remote *r, struct http_client **out,
			       struct str *host)
{
	const struct apiregistration_v1_service_reference *ref = r->spec->service;
	struct http_client_opts o = {.tls = r->tls, .connect_timeout_ms = 5000};
	struct str base;

	if (r->error.n)
		return error_new("%.*s", STR_ARG(r->error));
	TRY(connect_service(s, a, ref->namespace, ref->name, ref->port ? *ref->port : 443, &base));
	*host = str_sub(base, 8, base.n);
	o.base = base.p;
	return clients_get(&r->clients, REMOTE_CLIENTS_MAX, &o, out);
}

struct error *remote_get(struct apiserver *s, struct arena *a, struct remote *r, const struct remote_ask *ask,
			 struct remote_told *out)
{
	struct http_client *c;
	struct http_response resp;
	struct http_header h[4];
	struct str host;
	size_t n = 0;
	struct error *e;

	*out = (struct remote_told){0};
	h[n++] = (struct http_header){STR("x-remote-user"), ask->user};
	if (ask->group.n)
		h[n++] = (struct http_header){STR("x-remote-group"), ask->group};
	if (ask->accept.n)
		h[n++] = (struct http_header){STR("accept"), ask->accept};
	if (ask->etag.n)
		h[n++] = (struct http_header){STR("if-none-match"), ask->etag};
	TRY(client_of(s, a, r, &c, &host));
	r->refs++;
	e = http_do(c, a, "GET", ask->target, h, n, STR_NULL, &resp);
	metrics_certificates(NULL, true, host, e, resp.faults);
	if (!e) {
		out->status = resp.status;
		out->type = http_header_get(&resp.headers, "content-type");
		out->etag = http_header_get(&resp.headers, "etag");
		e = http_response_all(&resp, a, ask->limit, &out->body);
		http_response_close(&resp);
	}
	remote_unref(r);
	return e;
}

/* ---- requests of clients ---- */

/* Letters, digits and what is in `keep` stay as they are; everything else is written as %XX. */
static void put_escaped(struct buf *b, struct str s, const char *keep)
{
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];

		if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c && strchr(keep, c)))
			buf_putc(b, (char)c);
		else
			buf_printf(b, "%%%02X", c);
	}
}

/* As Go's url.Values writes the halves of a parameter. */
static void put_query(struct buf *b, struct str s)
{
	bool more = true;

	while (more) {
		struct str word = str_cut(&s, ' ');

		put_escaped(b, word, "-_.~");
		more = s.p != NULL;
		if (more)
			buf_putc(b, '+');
	}
}

struct placed {
	const struct query_param *p;
	size_t at;
};

static int by_name(const void *x, const void *y)
{
	const struct placed *a = x, *b = y;
	int r = str_cmp(a->p->name, b->p->name);

	return r ? r : a->at < b->at ? -1 : 1;
}

static struct str target_of(struct request *rq)
{
	struct placed *v = arena_array(rq->a, struct placed, rq->q.n + 1);
	struct buf b buf_cleanup = {0};

	put_escaped(&b, rq->info.path, "-_.~$&+,/:;=@"); /* as Go's url.URL writes a path that it decoded */
	for (size_t i = 0; i < rq->q.n; i++)
		v[i] = (struct placed){&rq->q.v[i], i};
	qsort(v, rq->q.n, sizeof *v, by_name);
	for (size_t i = 0; i < rq->q.n; i++) {
		buf_putc(&b, i ? '&' : '?');
		put_query(&b, v[i].p->name);
		buf_putc(&b, '=');
		put_query(&b, v[i].p->value);
	}
	return arena_str(rq->a, buf_view(&b));
}

/* The key of an extra as upstream's transport escapes it to be part of a header's name. */
static struct str extra_name(struct arena *a, struct str key)
{
	struct buf b buf_cleanup = {0};

	buf_puts(&b, "x-remote-extra-");
	put_escaped(&b, key, "!#$&'*+-.^_`|~");
	return arena_str(a, buf_view(&b));
}

struct header_list {
	LIST(struct http_header) list;
};

static void who(struct request *rq, struct header_list *h)
{
	const struct user *u = rq->user;

	*arena_push(rq->a, &h->list) = (struct http_header){STR("x-remote-user"), u->name};
	if (u->uid.n)
		*arena_push(rq->a, &h->list) = (struct http_header){STR("x-remote-uid"), u->uid};
	for (size_t i = 0; i < u->n_groups; i++)
		*arena_push(rq->a, &h->list) = (struct http_header){STR("x-remote-group"), u->groups[i]};
	for (size_t i = 0; i < u->n_extra; i++)
		for (uint32_t k = 0; k < u->extra[i].value.n; k++)
			*arena_push(rq->a, &h->list) =
				(struct http_header){extra_name(rq->a, u->extra[i].key), u->extra[i].value.v[k]};
}

/* Discovery is cheap, and who asks for it waits: it gets less time than other requests. */
static bool asks_for_discovery(const struct request *rq)
{
	struct str rest = rq->info.path;
	int n = 0;

	while (rest.n && rest.p[0] == '/')
		rest = str_sub(rest, 1, rest.n);
	while (rest.n && rest.p[rest.n - 1] == '/')
		rest.n--;
	while (rest.p && ++n)
		str_cut(&rest, '/');
	return !rq->info.resource_request && n == 3;
}

static struct error *unpassed(struct request *rq, int code, struct str why)
{
	metrics_unpassed(rq, code);
	return respond_text(rq, code, why);
}

static struct error *pass_on(struct request *rq, struct api_service *v)
{
	struct remote *r = v->remote;
	struct forward f = {.aggregated = true};
	struct header_list h = {0};
	bool hurry = asks_for_discovery(rq);
	int64_t t = 0;
	struct error *e;
	struct str text;

	if (!v->available)
		return unpassed(rq, 503, STR("service unavailable"));
	if (r->error.n)
		return unpassed(rq, 500, r->error);
	e = client_of(rq->s, rq->a, r, &f.client, &f.host);
	if (e) {
		log_and_free(e, "APIService %.*s", STR_ARG(v->name));
		return unpassed(rq, 503, STR("service unavailable"));
	}
	flow_begun(rq); /* when it has begun is for the other to know */
	who(rq, &h);
	f.more = h.list.v;
	f.n_more = h.list.n;
	f.target = target_of(rq);
	if (hurry)
		t = deadline_push(DISCOVERY_TIMEOUT_MS);
	r->refs++;
	e = forward_request(rq, &f);
	remote_unref(r);
	if (hurry)
		deadline_pop(t);
	if (!e || http_started(rq->x) || error_is_sys(e, ECANCELED) ||
	    (error_is_sys(e, ETIMEDOUT) && deadline_left() == 0))
		return e;
	text = arena_str(rq->a, str_from(error_message(e)));
	error_free(e);
	return unpassed(rq, 503, text);
}

/* The name of the APIService that a path belongs to: "v1.GROUP", for /api "v1."; false: of none. */
static bool service_name(struct arena *a, struct str path, struct str *name)
{
	struct str rest, group, version;

	if (str_eqz(path, "/api") || str_has_prefix(path, STR("/api/"))) {
		*name = STR("v1.");
		return true;
	}
	if (!str_has_prefix(path, STR("/apis/")))
		return false;
	rest = str_sub(path, 6, path.n);
	group = str_cut(&rest, '/');
	if (!rest.p)
		return false;
	version = str_cut(&rest, '/');
	*name = arena_printf(a, "%.*s.%.*s", STR_ARG(version), STR_ARG(group));
	return group.n && version.n;
}

struct error *aggregate(struct request *rq, bool *handled)
{
	struct aggregator *g = rq->s->aggregator;
	struct api_service *v;
	struct str name;

	*handled = false;
	if (!g)
		return NULL;
	aggregator_sync(rq->s);
	if (!g->remotes || !service_name(rq->a, rq->info.path, &name))
		return NULL;
	v = map_get(&g->by_name, name);
	if (!v || !v->remote)
		return NULL;
	*handled = true;
	return pass_on(rq, v);
}

struct error *aggregate_document(struct request *rq, struct str path, bool *handled)
{
	struct aggregator *g = rq->s->aggregator;

	*handled = false;
	for (size_t k = 0; g && k < g->n; k++)
		for (uint32_t i = 0; i < g->list[k]->documents.n; i++)
			if (str_eq(g->list[k]->documents.v[i].key, path)) {
				*handled = true;
				return pass_on(rq, g->list[k]);
			}
	return NULL;
}
