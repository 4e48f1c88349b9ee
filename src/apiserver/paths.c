/* What is no resource: discovery, version, health, metrics, OpenAPI, OIDC documents, /debug; and / which lists them. */
#include "apiserver/authn.h"
#include "apiserver/discovery.h"
#include "apiserver/metrics.h"
#include "schema/jv.h"

/* ---- / ---- */

struct path_list {
	struct arena *a;
	LIST(struct str) paths;
};

static void add_path(void *ctx, struct str path)
{
	struct path_list *l = ctx;

	if (path.n)
		*arena_push(l->a, &l->paths) = path;
}

static int path_cmp(const void *x, const void *y)
{
	return str_cmp(*(const struct str *)x, *(const struct str *)y);
}

struct str *served_paths(struct request *rq, size_t *n)
{
	static const char *const fixed[] = {
		"/.well-known/openid-configuration",
		"/api",
		"/api/v1",
		"/apis",
		"/apis/",
		"/flagz",
		"/metrics",
		"/metrics/slis",
		"/openapi/v2",
		"/openapi/v3",
		"/openapi/v3/",
		"/openid/v1/jwks",
		"/statusz",
		"/version",
	};
	struct path_list l = {.a = rq->a};
	struct buf b buf_cleanup = {0};

	for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
		add_path(&l, str_from(fixed[i]));
	for (size_t i = 0; health_path_at(rq->s, i, &b); i++, b.n = 0)
		add_path(&l, arena_str(rq->a, buf_view(&b)));
	discovery_paths(rq, add_path, &l);
	qsort(l.paths.v, l.paths.n, sizeof *l.paths.v, path_cmp);
	*n = l.paths.n;
	return l.paths.v;
}

static struct error *root_paths(struct request *rq)
{
	struct buf b buf_cleanup = {0};
	size_t n;
	struct str *paths = served_paths(rq, &n);

	buf_puts(&b, "{\"paths\":[");
	for (size_t i = 0; i < n; i++) {
		if (i)
			buf_putc(&b, ',');
		jv_encode_string(&b, paths[i]);
	}
	buf_puts(&b, "]}");
	rq->out.pretty = true;
	return respond_json(rq, 200, buf_view(&b));
}

/* ---- others ---- */

/* Upstream's handler of it knows no other form. */
static struct error *version(struct request *rq)
{
	struct buf b buf_cleanup = {0};

	rq->out.pretty = true;
	buf_printf(&b,
		   "{\"major\":\"1\",\"minor\":\"36\",\"emulationMajor\":\"1\",\"emulationMinor\":\"36\","
		   "\"minCompatibilityMajor\":\"1\",\"minCompatibilityMinor\":\"35\",\"gitVersion\":\"%s\""
		   ",\"gitCommit\":\"\",\"gitTreeState\":\"clean\",\"buildDate\":\"" SKIFF_BUILD_DATE
		   "\",\"goVersion\":\"none\",\"compiler\":\"gcc\",\"platform\":\"" SKIFF_PLATFORM "\"}",
		   git_version(&rq->s->o));
	return respond_json(rq, 200, buf_view(&b));
}

struct error *respond_unknown(struct request *rq)
{
	return respond_text(rq, 404, STR("404 page not found"));
}

static struct str group_of(struct str p)
{
	struct str rest = str_sub(p, 6, p.n);

	return str_cut(&rest, '/');
}

/* Groups are the aggregator's, whose handlers do not look at the method. */
static bool any_method(struct str p)
{
	return str_eqz(p, "/apis") || (str_has_prefix(p, STR("/apis/")) && str_index(str_sub(p, 6, p.n), '/') < 0);
}

/* What upstream's router serves as it does resources. only: the one type there is, or NULL: as is asked for. */
static struct error *routed(struct request *rq, struct str p, const char *only)
{
	bool custom = str_has_prefix(p, STR("/apis/")) && !built_in_group(rq->s, group_of(p));
	bool groups = any_method(p) || str_eqz(p, "/api"); /* which have no CBOR */
	struct negotiation n = {.routed = !any_method(p) && !custom, .cbor = rq->s->o.cbor && !groups, .only = only};

	if (!str_eqz(rq->x->method, "GET") && !any_method(p))
		return err_method();
	return negotiate_answer(rq->a, &rq->x->headers, &rq->q, &n, &rq->out);
}

/* Aggregated discovery goes before everything else that a client would take. */
static bool wants_aggregated(struct request *rq, struct str p)
{
	struct negotiation n = {.answers = ANSWERS_DISCOVERY, .routed = true, .cbor = rq->s->o.cbor};
	struct error *e;
	bool yes;

	if (!str_eqz(p, "/apis") && !(str_eqz(p, "/api") && str_eqz(rq->x->method, "GET")))
		return false;
	e = negotiate_answer(rq->a, &rq->x->headers, &rq->q, &n, &rq->out);
	yes = !e;

	error_free(e);
	return yes;
}

static bool under(struct str p, const char *prefix)
{
	return str_has_prefix(p, str_from(prefix)) && (p.n == strlen(prefix) || p.p[strlen(prefix)] == '/');
}

/* The issuer's documents, which clients may keep for an hour. */
static struct error *openid(struct request *rq, bool *handled)
{
	struct str json, p = rq->info.path;
	const char *path = "/openid/v1/jwks";
	bool keys = under(p, path);

	if (!keys)
		path = "/.well-known/openid-configuration";
	*handled = under(p, path);
	if (!*handled)
		return NULL;
	if (p.n > strlen(path) + 1)
		return err_unknown_path();
	TRY(routed(rq, p, keys ? "application/jwk-set+json" : "application/json"));
	TRY(keys ? sa_jwks(rq->s, rq->a, &json) : sa_openid_configuration(rq->s, rq->a, &json));
	rq->cache_control = STR("public, max-age=3600");
	return respond_bytes(rq, 200, keys ? STR("application/jwk-set+json") : STR("application/json"), json);
}

/* Paths at which upstream has plain handlers: they answer every method as GET, unless they look at it themselves. */
static struct error *plain_handlers(struct request *rq, bool *handled)
{
	struct str p = rq->info.path;

	metrics_routed_path(rq);
	TRY(serve_health(rq, handled));
	if (*handled)
		return NULL;
	*handled = true;
	if (str_eqz(p, "/") || str_eqz(p, "/index.html"))
		return root_paths(rq);
	if (str_eqz(p, "/metrics"))
		return serve_metrics(rq, false);
	if (str_eqz(p, "/metrics/slis"))
		return serve_metrics(rq, true);
	if (str_eqz(p, "/statusz"))
		return serve_statusz(rq);
	if (str_eqz(p, "/flagz"))
		return serve_flagz(rq);
	if (str_has_prefix(p, STR("/openapi/")))
		return serve_openapi(rq);
	*handled = false;
	if (str_has_prefix(p, STR("/debug")))
		return serve_debug(rq, handled);
	return NULL;
}

static struct error *discovery(struct request *rq, struct str p)
{
	struct str rest, group;

	if (str_eqz(p, "/version"))
		return version(rq);
	if (str_eqz(p, "/api"))
		return discovery_versions(rq);
	if (str_eqz(p, "/apis"))
		return discovery_groups(rq);
	if (str_eqz(p, "/api/v1"))
		return discovery_resources(rq, STR(""), STR("v1"));
	rest = str_sub(p, 6, p.n);
	group = str_cut(&rest, '/');
	if (!rest.p)
		return discovery_group(rq, group);
	return discovery_resources(rq, group, rest);
}

/* What is not served is not there for any method. */
static bool version_known(struct request *rq, struct str p)
{
	struct str rest;

	if (str_has_prefix(p, STR("/api/")))
		return str_eqz(p, "/api/v1");
	if (!str_has_prefix(p, STR("/apis/")) || any_method(p))
		return true;
	rest = str_sub(p, 6, p.n);
	return str_cut(&rest, '/').n && discovery_knows(rq, group_of(p), rest);
}

struct error *serve_path(struct request *rq)
{
	struct str p = rq->info.path;
	bool handled = false;
	struct error *e;

	TRY(plain_handlers(rq, &handled));
	if (handled)
		return NULL;
	TRY(openid(rq, &handled));
	if (handled)
		return NULL;
	while (p.n > 1 && p.p[p.n - 1] == '/')
		p.n--;
	if (!under(p, "/api") && !under(p, "/apis") && !str_eqz(p, "/version"))
		return respond_unknown(rq);
	if (!version_known(rq, p))
		return str_has_prefix(p, STR("/api/")) || built_in_group(rq->s, group_of(p)) ? err_unknown_path()
											     : respond_unknown(rq);
	if (!wants_aggregated(rq, p)) {
		e = routed(rq, p, str_eqz(p, "/version") ? "application/json" : NULL);
		if (e && any_method(p) && !str_eqz(p, "/apis") && !discovery_has_group(rq, group_of(p))) { /* in any format */
			error_free(e);
			return respond_unknown(rq);
		}
		TRY(e);
	}
	return discovery(rq, p);
}
