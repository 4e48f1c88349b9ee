/*
 * What a request over HTTP/2 may say. nghttp2 frames and unpacks fields here and judges none of them: this file does, as Go's server
 * (golang.org/x/net/http2), which resets streams for less than RFC 9113 wants and answers 400 where a connection's fields are sent.
 */
#include "net/h2_internal.h"

enum { METHOD, PATH, SCHEME, AUTHORITY, PROTOCOL };

static const char *const pseudo_names[H2_PSEUDO] = {":method", ":path", ":scheme", ":authority", ":protocol"};

/* Go's allowance for a client that counts fields without what they take beside their letters. */
static size_t fields_max(const struct h2 *c)
{
	return c->conn->srv->o.max_header_bytes + 320;
}

uint32_t h2_header_list_max(const struct h2 *c)
{
	return (uint32_t)fields_max(c);
}

/* nghttp2 has a frame's head. */
int h2_on_begin_frame(nghttp2_session *ng, const nghttp2_frame_hd *hd, void *user)
{
	struct h2 *c = user;
	struct h2_block *b = &c->block;

	if (hd->type == NGHTTP2_HEADERS)
		*b = (struct h2_block){.left = fields_max(c)};
	if (hd->type != NGHTTP2_CONTINUATION)
		return 0;
	/* Fields of which nothing will be kept are not unpacked without end. */
	if (b->bad || hd->length > 2 * b->left) {
		c->kill = NGHTTP2_PROTOCOL_ERROR;
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	}
	return h2_churn(c, COST_PING) ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
}

static bool name_ok(struct str n)
{
	for (size_t i = 0; i < n.n; i++)
		if (n.p[i] >= 'A' && n.p[i] <= 'Z')
			return false;
	return http_is_token(n);
}

/* What says how a message is framed, routed or understood does not come behind it. */
static bool trailer_ok(struct str n)
{
	static const char *const not[] = {"authorization", "cache-control", "connection", "content-encoding", "content-length", "content-range",
					  "content-type", "expect", "host", "keep-alive", "max-forwards", "pragma", "proxy-authenticate",
					  "proxy-authorization", "proxy-connection", "range", "realm", "te", "trailer", "transfer-encoding",
					  "www-authenticate"};

	for (size_t i = 0; i < sizeof not / sizeof *not; i++)
		if (str_eqz(n, not[i]))
			return false;
	return !str_has_prefix(n, STR("if-"));
}

static void pseudo_field(struct h2_block *b, struct h2s *s, struct str name, struct str value)
{
	for (int i = 0; i < H2_PSEUDO; i++)
		if (str_eqz(name, pseudo_names[i])) {
			b->wrong |= b->seen >> i & 1;
			b->seen |= 1u << i;
			b->pseudo[i] = arena_str(&s->x.arena, value);
			return;
		}
	b->wrong = true;
}

int h2_on_header_server(nghttp2_session *ng, const nghttp2_frame *f, const uint8_t *name, size_t nn, const uint8_t *value, size_t nv,
			uint8_t flags, void *user)
{
	struct h2s *s = nghttp2_session_get_stream_user_data(ng, f->hd.stream_id);
	struct str n = str_of((const char *)name, nn), v = str_of((const char *)value, nv);
	bool pseudo = nn && name[0] == ':';
	struct h2 *c = user;
	struct h2_block *b = &c->block;

	if (!s || f->hd.type != NGHTTP2_HEADERS || b->bad || b->large)
		return 0;
	b->regular |= !pseudo;
	b->bad = !http_value_ok(v) || (pseudo ? b->regular : !name_ok(n));
	if (b->bad)
		return 0;
	b->large = nn + nv + 32 > b->left;
	if (b->large) {
		b->left = 0;
		return 0;
	}
	b->left -= nn + nv + 32;
	if (f->headers.cat != NGHTTP2_HCAT_REQUEST) {
		/* Trailers of requests are of no use to anyone. */
		b->wrong |= pseudo || (s->trailers_announced && !trailer_ok(n));
	} else if (pseudo) {
		pseudo_field(b, s, n, v);
	} else {
		struct http_header *h = arena_push(&s->x.arena, &s->x.in);

		h->name = arena_str(&s->x.arena, n);
		h->value = arena_str(&s->x.arena, v);
	}
	return 0;
}

/* ---- the whole of it ---- */

/* An element of a list between commas. */
static bool lists(struct str list, struct str word)
{
	while (list.p && list.n)
		if (str_eq_nocase(str_trim(str_cut(&list, ',')), word))
			return true;
	return false;
}

/* Trailers that may be. */
static bool announces(struct str list)
{
	do {
		struct str name = str_trim(str_cut(&list, ','));

		if (!str_eq_nocase(name, STR("transfer-encoding")) && !str_eq_nocase(name, STR("trailer")) &&
		    !str_eq_nocase(name, STR("content-length")))
			return true;
	} while (list.p);
	return false;
}

static bool path_ok(struct str p)
{
	for (size_t i = 0; i < p.n; i++)
		if ((unsigned char)p.p[i] < ' ')
			return false;
	return p.n && (p.p[0] == '/' || str_eqz(p, "*")) && http_escapes_ok(p);
}

static bool wellformed(const struct h2_block *b, struct str host)
{
	const struct str *p = b->pseudo;
	bool web = str_eqz(p[SCHEME], "https") || str_eqz(p[SCHEME], "http");

	if (b->bad || b->wrong || p[PROTOCOL].n || (web && str_index(host, '@') >= 0))
		return false;
	if (str_eqz(p[METHOD], "CONNECT"))
		return !p[PATH].n && !p[SCHEME].n && p[AUTHORITY].n;
	return p[METHOD].n && web && path_ok(p[PATH]);
}

/* A field of a connection, which has no place in HTTP/2: the first in this order. */
static const char *refusal(const struct http_headers *h)
{
	static const char *const not[] = {"Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Upgrade", "TE"};
	size_t first = sizeof not / sizeof *not, tes = 0, k;

	for (size_t i = 0; i < h->n; i++) {
		struct str name = h->v[i].name, value = h->v[i].value;

		switch (name.n) {
		case 10:
			k = str_eqz(name, "connection") ? 0 : str_eqz(name, "keep-alive") ? 1 : first;
			break;
		case 16:
			k = str_eqz(name, "proxy-connection") ? 2 : first;
			break;
		case 17:
			k = str_eqz(name, "transfer-encoding") ? 3 : first;
			break;
		case 7:
			k = str_eqz(name, "upgrade") ? 4 : first;
			break;
		case 2:
			k = str_eqz(name, "te") && (tes++ || (value.n && !str_eqz(value, "trailers"))) ? 5 : first;
			break;
		default:
			continue;
		}
		first = k < first ? k : first;
	}
	return first < sizeof not / sizeof *not ? not[first] : NULL;
}

/* What is announced of the body counts where there is one; the first number does, and none where it is no number. */
static void body_announced(struct h2s *s)
{
	struct http_exchange *x = &s->x.x;
	bool given = false;

	for (size_t i = 0; i < x->headers.n; i++) {
		const struct http_header *h = &x->headers.v[i];

		if (str_eqz(h->name, "expect"))
			s->must_continue |= lists(h->value, STR("100-continue"));
		else if (str_eqz(h->name, "trailer"))
			s->trailers_announced |= announces(h->value);
		else if (str_eqz(h->name, "content-length") && !given) {
			given = true;
			if (!h->value.n || h->value.p[0] < '0' || h->value.p[0] > '9' || !str_to_i64(h->value, &x->content_length))
				x->content_length = 0;
		}
	}
}

bool h2_request_judge(struct h2s *s, bool ended)
{
	struct h2_block *b = &s->c->block;
	struct http_exchange *x = &s->x.x;

	x->headers = (struct http_headers){s->x.in.v, s->x.in.n};
	x->method = b->pseudo[METHOD];
	x->host = b->pseudo[AUTHORITY].n ? b->pseudo[AUTHORITY] : http_header_get(&x->headers, "host");
	if (!wellformed(b, x->host))
		return false;
	http_set_target(x, b->pseudo[PATH]);
	s->in_ended = ended;
	if (ended)
		x->content_length = 0;
	else
		body_announced(s);
	s->large = b->large;
	s->refused = b->large ? NULL : refusal(&x->headers);
	return true;
}

void h2_request_refuse(struct h2s *s)
{
	struct http_exchange *x = &s->x.x;
	struct str why = !s->refused ? STR("") : str_eqz(str_from(s->refused), "TE")
		? STR("request header \"TE\" may only be \"trailers\" in HTTP/2\n")
		: arena_printf(x->arena, "request header \"%s\" is not valid in HTTP/2\n", s->refused);

	if (why.n) {
		http_set_header(x, "content-type", STR("text/plain; charset=utf-8"));
		http_set_header(x, "x-content-type-options", STR("nosniff"));
	}
	error_free(http_respond(x, s->large ? 431 : 400, why));
}

bool h2_trailers_ok(const struct h2 *c, bool ended)
{
	return ended && !c->block.bad && !c->block.wrong;
}
