/* Which pages of other origins may ask (--cors-allowed-origins), and that browsers must use TLS
 * (--strict-transport-security-directives). */
#include "apiserver/cors.h"
#include "cel/cel.h"

struct cors {
	LIST(const struct cel_regex *) origins;
	struct str hsts; /* the header's value */
};

/* It says where the host begins and where it ends, or "example.com" would allow example.com.evil. */
static struct error *check_origin(struct str pattern)
{
	bool begin = str_contains(pattern, STR("^")) || str_contains(pattern, STR("//"));
	bool end = str_contains(pattern, STR("$")) || str_contains(pattern, STR(":"));

	if (!pattern.n)
		return error_new("--cors-allowed-origins has an empty value");
	if (!begin || !end)
		return error_new("--cors-allowed-origins: %.*s does not pin to the start and the end of the host",
				 STR_ARG(pattern));
	return NULL;
}

static struct error *read_origins(struct apiserver *s, struct str list)
{
	while (list.p) {
		struct str pattern = str_cut(&list, ',');
		const char *why = NULL;
		const struct cel_regex *re;

		TRY(check_origin(pattern));
		re = cel_regex_new(pattern, &why);
		if (!re)
			return error_new("--cors-allowed-origins: %.*s: %s", STR_ARG(pattern), why);
		*arena_push(&s->arena, &s->cors->origins) = re;
	}
	return NULL;
}

static struct error *read_hsts(struct apiserver *s, struct str list)
{
	struct buf b buf_cleanup = {0};

	while (list.p) {
		struct str one = str_cut(&list, ',');
		bool age = str_has_prefix(one, STR("max-age=")) && str_index(str_sub(one, 8, one.n), '=') < 0;

		if (!age && !str_eqz(one, "includeSubDomains") && !str_eqz(one, "preload"))
			return error_new("--strict-transport-security-directives has max-age=SECONDS, "
					 "includeSubDomains and preload, not \"%.*s\"",
					 STR_ARG(one));
		buf_printf(&b, "%s%.*s", b.n ? "; " : "", STR_ARG(one));
	}
	s->cors->hsts = arena_str(&s->arena, buf_view(&b));
	return NULL;
}

struct error *cors_init(struct apiserver *s)
{
	s->cors = arena_new(&s->arena, struct cors);
	if (s->o.cors_allowed_origins)
		TRY(read_origins(s, str_from(s->o.cors_allowed_origins)));
	if (s->o.hsts_directives)
		TRY(read_hsts(s, str_from(s->o.hsts_directives)));
	return NULL;
}

void hsts_header(struct request *rq)
{
	if (rq->s->cors->hsts.n)
		http_set_header(rq->x, "strict-transport-security", rq->s->cors->hsts);
}

static bool allowed(const struct cors *c, struct str origin)
{
	for (uint32_t i = 0; i < c->origins.n; i++) {
		const char *why = NULL;

		if (cel_regex_matches(c->origins.v[i], origin, &why) && !why)
			return true;
	}
	return false;
}

struct error *cors_answer(struct request *rq, bool *handled)
{
	struct str origin = http_header_get(&rq->x->headers, "origin");

	*handled = false;
	if (!origin.n || !allowed(rq->s->cors, origin))
		return NULL;
	http_set_header(rq->x, "access-control-allow-origin", origin);
	http_set_header(rq->x, "access-control-allow-methods", STR("POST, GET, OPTIONS, PUT, DELETE, PATCH"));
	http_set_header(rq->x, "access-control-allow-headers",
			STR("Content-Type, Content-Length, Accept-Encoding, X-CSRF-Token, Authorization, "
			    "X-Requested-With, If-Modified-Since"));
	http_set_header(rq->x, "access-control-expose-headers", STR("Date"));
	http_set_header(rq->x, "access-control-allow-credentials", STR("true"));
	if (!str_eqz(rq->x->method, "OPTIONS"))
		return NULL;
	*handled = true;
	rq->status = 204;
	respond_headers(rq);
	return http_respond(rq->x, 204, STR_NULL);
}
