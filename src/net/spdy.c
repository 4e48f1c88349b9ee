#include "net/spdy.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <zlib.h>

#include "net/internal.h"

/* draft-mbelshe-httpbis-spdy-00 and its revision 3.1 */
enum {
	SYN_STREAM = 1, SYN_REPLY = 2, RST_STREAM = 3, SETTINGS = 4, PING = 6, GOAWAY = 7, HEADERS = 8, WINDOW_UPDATE = 9,
};
enum { FLAG_FIN = 1, FLAG_UNIDIRECTIONAL = 2 };
enum { RST_PROTOCOL_ERROR = 1, RST_REFUSED_STREAM = 3, RST_CANCEL = 5 };
#define SETTING_INITIAL_WINDOW 7

#define IN_CAP 16384
#define DATA_MAX 32768u           /* of a data frame we send */
#define WINDOW 65536              /* of each stream, for peers that know flow control */
#define QUEUE_MAX (256u << 10)    /* unread bytes of a stream whose peer does not: then the whole connection waits */
#define HEADERS_BYTES_MAX (64u << 10)
#define PAIRS_MAX 256u
#define STREAMS_MAX 4096u
#define BUCKETS 64u

struct st {
	struct spdy_stream pub; /* first */
	struct spdy *c;
	struct st *next;        /* bucket */
	struct st *accept_next;
	struct bytes_queue in;
	bool replied, fin_in, fin_out, reset, refused;
	int64_t window;         /* bytes we may still send, where it counts */
	size_t unacked;         /* consumed, not yet told */
	struct waitq wq;
	struct arena arena;
};

struct spdy {
	struct stream *s;
	struct stream *bottom;
	struct fiber *reader;
	bool server, ended, hung_up, goaway;
	char *why;              /* of a disorderly end */
	struct waitq ends;
	struct st *streams[BUCKETS];
	unsigned n_streams;
	struct st *accept_head, **accept_tail;
	struct waitq accept_q;
	uint32_t next_id, last_in, next_ping, ponged;
	struct waitq ping_q;
	struct fiber_mutex wlock;
	z_stream deflate, inflate;
	bool peer_windows;      /* the peer has sent SETTINGS: it knows flow control */
	int64_t peer_window;
	char in[IN_CAP];
	size_t in_off, in_n;
};

/* ---- the header dictionary: words with their lengths, then text ---- */

static const char *const dict_words[] = {
	"options", "head", "post", "put", "delete", "trace", "accept", "accept-charset", "accept-encoding",
	"accept-language", "accept-ranges", "age", "allow", "authorization", "cache-control", "connection",
	"content-base", "content-encoding", "content-language", "content-length", "content-location", "content-md5",
	"content-range", "content-type", "date", "etag", "expect", "expires", "from", "host", "if-match",
	"if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "last-modified", "location",
	"max-forwards", "pragma", "proxy-authenticate", "proxy-authorization", "range", "referer", "retry-after",
	"server", "te", "trailer", "transfer-encoding", "upgrade", "user-agent", "vary", "via", "warning",
	"www-authenticate", "method", "get", "status", "200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie",
	"keep-alive", "origin",
};
static const char dict_text[] =
	"100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
	"203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized"
	"403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
	"Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
	"chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,"
	"text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";
#define DICT_ADLER 0xe3c6a7c2ul

static void put32(unsigned char *p, uint32_t v)
{
	p[0] = (unsigned char)(v >> 24);
	p[1] = (unsigned char)(v >> 16);
	p[2] = (unsigned char)(v >> 8);
	p[3] = (unsigned char)v;
}

static uint32_t get32(const void *q)
{
	const unsigned char *p = q;

	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static struct str dictionary(void)
{
	static _Thread_local unsigned char dict[1600];
	static _Thread_local size_t n;

	if (!n) {
		for (size_t i = 0; i < sizeof dict_words / sizeof *dict_words; i++) {
			size_t k = strlen(dict_words[i]);

			put32(dict + n, (uint32_t)k);
			memcpy(dict + n + 4, dict_words[i], k);
			n += k + 4;
		}
		memcpy(dict + n, dict_text, sizeof dict_text - 1);
		n += sizeof dict_text - 1;
		assert(adler32(adler32(0, NULL, 0), dict, (uInt)n) == DICT_ADLER);
	}
	return str_of((char *)dict, n);
}

/* ---- writing ---- */

static void end_conn(struct spdy *c, const char *why);

static struct error *write_locked(struct spdy *c, struct iovec *v, int n)
{
	struct error *e = c->ended ? error_sys(EPIPE, "SPDY connection has ended") : stream_writev(c->s, v, n);

	/* Half a frame may be out: nothing can follow it. */
	if (e)
		end_conn(c, e->message);
	return e;
}

static struct error *write_frame(struct spdy *c, const unsigned char *head, size_t head_n, struct str data)
{
	struct iovec v[2] = {{(void *)(uintptr_t)head, head_n}, {(void *)(uintptr_t)data.p, data.n}};

	TRY(fiber_mutex_lock(&c->wlock));
	struct error *e = write_locked(c, v, data.n ? 2 : 1);

	fiber_mutex_unlock(&c->wlock);
	return e;
}

static void control_head(unsigned char *p, int type, int flags, uint32_t length)
{
	put32(p, 0x80030000u | (uint32_t)type);
	put32(p + 4, (uint32_t)flags << 24 | length);
}

static struct error *write_control(struct spdy *c, int type, uint32_t a, uint32_t b, int words)
{
	unsigned char f[16];

	control_head(f, type, 0, (uint32_t)words * 4);
	put32(f + 8, a);
	put32(f + 12, b);
	return write_frame(c, f, 8 + (size_t)words * 4, STR_NULL);
}

static struct error *write_settings(struct spdy *c)
{
	unsigned char f[20];

	control_head(f, SETTINGS, 0, 12);
	put32(f + 8, 1);
	put32(f + 12, SETTING_INITIAL_WINDOW);
	put32(f + 16, WINDOW);
	return write_frame(c, f, sizeof f, STR_NULL);
}

static void put_pair(struct buf *b, struct str s)
{
	unsigned char n[4];

	put32(n, (uint32_t)s.n);
	buf_append(b, n, 4);
	buf_str(b, s);
}

/* SYN_STREAM and SYN_REPLY. The compressor's state follows the order of the frames: both under the lock. */
static struct error *write_headers(struct spdy *c, int type, uint32_t id, const struct http_header *h, size_t n)
{
	buf_cleanup struct buf plain = {0}, out = {0};
	unsigned char head[18] = {0}, count[4];
	size_t fixed = type == SYN_STREAM ? 10 : 4;

	put32(count, (uint32_t)n);
	buf_append(&plain, count, 4);
	for (size_t i = 0; i < n; i++) {
		put_pair(&plain, h[i].name);
		put_pair(&plain, h[i].value);
	}
	TRY(fiber_mutex_lock(&c->wlock));
	buf_reserve(&out, deflateBound(&c->deflate, plain.n) + 64);
	c->deflate.next_in = (Bytef *)plain.p;
	c->deflate.avail_in = (uInt)plain.n;
	c->deflate.next_out = (Bytef *)out.p;
	c->deflate.avail_out = (uInt)out.cap;
	int r = deflate(&c->deflate, Z_SYNC_FLUSH);

	assert(r == Z_OK && c->deflate.avail_out);
	out.n = out.cap - c->deflate.avail_out;
	control_head(head, type, 0, (uint32_t)(fixed + out.n));
	put32(head + 8, id);
	struct iovec v[2] = {{head, 8 + fixed}, {out.p, out.n}};
	struct error *e = write_locked(c, v, 2);

	fiber_mutex_unlock(&c->wlock);
	return e;
}

/* ---- streams ---- */

static struct st *find(struct spdy *c, uint32_t id)
{
	struct st *t = c->streams[id / 2 % BUCKETS];

	while (t && t->pub.id != id)
		t = t->next;
	return t;
}

static void st_free(struct st *t)
{
	struct spdy *c = t->c;

	for (struct st **l = &c->streams[t->pub.id / 2 % BUCKETS]; *l; l = &(*l)->next)
		if (*l == t) {
			*l = t->next;
			break;
		}
	for (struct st **l = &c->accept_head; *l; l = &(*l)->accept_next)
		if (*l == t) {
			*l = t->accept_next;
			if (c->accept_tail == &t->accept_next)
				c->accept_tail = l;
			break;
		}
	c->n_streams--;
	buf_free(&t->in.b);
	arena_free(&t->arena);
	free(t);
}

static struct error *st_read(struct stream *s, void *p, size_t n, size_t *got)
{
	struct st *t = (struct st *)s;

	TRY(bq_get(&t->in, p, n, got));
	if (!*got) {
		if (t->fin_in)
			return NULL;
		return error_sys(ECONNRESET, t->c->ended ? "SPDY connection ended" : "SPDY stream reset by peer");
	}
	if (t->c->peer_windows && !t->fin_in) {
		t->unacked += *got;
		if (t->unacked >= WINDOW / 2) {
			uint32_t k = (uint32_t)t->unacked;

			t->unacked = 0;
			/* A failure ends the connection and shows with the next read. */
			error_free(write_control(t->c, WINDOW_UPDATE, t->pub.id, k, 2));
		}
	}
	return NULL;
}

static struct error *st_writable(struct st *t)
{
	if (t->fin_out)
		return error_sys(EPIPE, "SPDY stream was shut down");
	if (t->reset || t->c->ended)
		return error_sys(EPIPE, t->c->ended ? "SPDY connection ended" : "SPDY stream reset by peer");
	return NULL;
}

static struct error *st_writev(struct stream *s, struct iovec *iov, int n)
{
	struct st *t = (struct st *)s;

	for (int i = 0; i < n; i++) {
		const char *p = iov[i].iov_base;

		for (size_t left = iov[i].iov_len; left;) {
			size_t k = left < DATA_MAX ? left : DATA_MAX;
			unsigned char head[8];

			TRY(st_writable(t));
			if (t->c->peer_windows) {
				if (t->window <= 0) {
					TRY(waitq_wait(&t->wq));
					continue;
				}
				if ((int64_t)k > t->window)
					k = (size_t)t->window;
			}
			t->window -= (int64_t)k;
			put32(head, t->pub.id);
			put32(head + 4, (uint32_t)k);
			TRY(write_frame(t->c, head, 8, str_of(p, k)));
			p += k;
			left -= k;
		}
	}
	return NULL;
}

static struct error *st_shutdown(struct stream *s)
{
	struct st *t = (struct st *)s;
	unsigned char head[8];

	if (t->fin_out || t->reset || t->c->ended)
		return NULL;
	put32(head, t->pub.id);
	put32(head + 4, (uint32_t)FLAG_FIN << 24);
	TRY(write_frame(t->c, head, 8, STR_NULL));
	t->fin_out = true;
	return NULL;
}

static void st_close(struct stream *s)
{
	struct st *t = (struct st *)s;
	struct spdy *c = t->c;

	/* The reader may wait for room in this stream's queue. */
	bq_end(&t->in);
	if (!(t->fin_in && t->fin_out) && !t->reset && !c->ended) {
		/* A peer that reads nothing must not keep us. */
		fiber_shield_begin();
		int64_t d = deadline_push(1000);

		error_free(write_control(c, RST_STREAM, t->pub.id, RST_CANCEL, 2));
		deadline_pop(d);
		fiber_shield_end();
	}
	st_free(t);
}

static const struct stream_ops st_ops = {st_read, st_writev, st_shutdown, st_close};

static struct st *st_new(struct spdy *c, uint32_t id)
{
	struct st *t = xcalloc(1, sizeof *t);
	struct st **bucket = &c->streams[id / 2 % BUCKETS];

	t->pub.s.ops = &st_ops;
	t->pub.id = id;
	t->pub.impl = t;
	t->c = c;
	t->window = c->peer_window;
	t->next = *bucket;
	*bucket = t;
	c->n_streams++;
	return t;
}

static void end_conn(struct spdy *c, const char *why)
{
	if (c->ended)
		return;
	c->ended = true;
	if (why)
		c->why = xstrdup(why);
	for (unsigned i = 0; i < BUCKETS; i++)
		for (struct st *t = c->streams[i]; t; t = t->next) {
			bq_end(&t->in);
			waitq_wake_all(&t->wq);
		}
	waitq_wake_all(&c->accept_q);
	waitq_wake_all(&c->ping_q);
	waitq_wake_all(&c->ends);
	if (c->reader)
		fiber_cancel(c->reader);
}

/* ---- reading ---- */

static struct error *more(struct spdy *c)
{
	if (c->in_off == c->in_n) {
		c->in_off = c->in_n = 0;
		TRY(stream_read(c->s, c->in, IN_CAP, &c->in_n));
		if (!c->in_n)
			return error_sys(EPIPE, "SPDY connection closed by peer");
	}
	return NULL;
}

static struct error *take(struct spdy *c, void *p, size_t n)
{
	for (size_t have = 0; have < n;) {
		TRY(more(c));
		size_t k = c->in_n - c->in_off < n - have ? c->in_n - c->in_off : n - have;

		memcpy((char *)p + have, c->in + c->in_off, k);
		c->in_off += k;
		have += k;
	}
	return NULL;
}

static struct error *violation(const char *what)
{
	return error_sys(EPROTO, "SPDY: %s", what);
}

/* Decompresses a header block of n bytes into pairs in the arena; NULL arena: only to keep the decompressor in step. */
static struct error *read_pairs(struct spdy *c, struct str block, struct arena *a, struct http_headers *out)
{
	buf_cleanup struct buf plain = {0};
	struct str d = dictionary();

	c->inflate.next_in = (Bytef *)(uintptr_t)block.p;
	c->inflate.avail_in = (uInt)block.n;
	while (c->inflate.avail_in) {
		buf_reserve(&plain, 1024);
		size_t room = plain.cap - plain.n;

		c->inflate.next_out = (Bytef *)plain.p + plain.n;
		c->inflate.avail_out = (uInt)room;
		int r = inflate(&c->inflate, Z_SYNC_FLUSH);

		plain.n += room - c->inflate.avail_out;
		if (r == Z_NEED_DICT)
			r = inflateSetDictionary(&c->inflate, (const Bytef *)d.p, (uInt)d.n);
		if ((r != Z_OK && r != Z_BUF_ERROR) || plain.n > HEADERS_BYTES_MAX)
			return violation("header block");
		if (r == Z_BUF_ERROR && c->inflate.avail_out)
			break;
	}
	if (plain.n < 4)
		return violation("header block");
	const char *p = plain.p, *end = p + plain.n;
	uint32_t n = get32(p);

	if (n > PAIRS_MAX)
		return violation("header block");
	out->v = arena_array(a, struct http_header, n);
	p += 4;
	for (out->n = 0; out->n < n; out->n++) {
		struct str s[2];

		for (int i = 0; i < 2; i++) {
			if (end - p < 4 || (size_t)(end - p) - 4 < get32(p))
				return violation("header block");
			s[i] = str_of(p + 4, get32(p));
			p += 4 + s[i].n;
		}
		char *name = arena_strz(a, s[0]);

		for (char *q = name; q < name + s[0].n; q++)
			if (*q >= 'A' && *q <= 'Z')
				*q = (char)(*q + 32);
		out->v[out->n] = (struct http_header){str_of(name, s[0].n), arena_str(a, s[1])};
	}
	return NULL;
}

static struct error *on_syn_stream(struct spdy *c, int flags, struct str f)
{
	if (f.n < 10)
		return violation("SYN_STREAM");
	uint32_t id = get32(f.p) & 0x7fffffff;
	struct http_headers h = {0};

	if (id % 2 != (c->server ? 1 : 0) || id <= c->last_in)
		return violation("stream number");
	c->last_in = id;
	if (c->n_streams >= STREAMS_MAX || c->goaway) {
		struct arena a = {0};
		struct error *e = read_pairs(c, str_sub(f, 10, f.n), &a, &h);

		arena_free(&a);
		return e ? e : write_control(c, RST_STREAM, id, RST_REFUSED_STREAM, 2);
	}
	struct st *t = st_new(c, id);
	struct error *e = read_pairs(c, str_sub(f, 10, f.n), &t->arena, &t->pub.headers);

	if (!e)
		e = write_headers(c, SYN_REPLY, id, NULL, 0);
	if (e) {
		st_free(t);
		return e;
	}
	t->replied = true;
	if (flags & FLAG_FIN) {
		t->fin_in = true;
		bq_end(&t->in);
	}
	if (flags & FLAG_UNIDIRECTIONAL)
		t->fin_out = true;
	*c->accept_tail = t;
	c->accept_tail = &t->accept_next;
	waitq_wake_all(&c->accept_q);
	return NULL;
}

static struct error *on_reply(struct spdy *c, int type, int flags, struct str f)
{
	if (f.n < 4)
		return violation("SYN_REPLY");
	struct st *t = find(c, get32(f.p) & 0x7fffffff);
	struct arena dropped = {0};
	struct http_headers h = {0};
	bool keep = t && type == SYN_REPLY && !t->replied;
	struct error *e = read_pairs(c, str_sub(f, 4, f.n), keep ? &t->arena : &dropped, &h);

	arena_free(&dropped);
	TRY(e);
	if (keep) {
		t->pub.headers = h;
		t->replied = true;
		waitq_wake_all(&t->wq);
	}
	if (t && (flags & FLAG_FIN)) {
		t->fin_in = true;
		bq_end(&t->in);
	}
	return NULL;
}

static void st_reset(struct st *t)
{
	t->reset = true;
	bq_end(&t->in);
	waitq_wake_all(&t->wq);
}

static struct error *on_settings(struct spdy *c, struct str f)
{
	if (f.n < 4 || (f.n - 4) / 8 < get32(f.p))
		return violation("SETTINGS");
	for (uint32_t i = 0; i < get32(f.p); i++) {
		uint32_t id = get32(f.p + 4 + 8 * i) & 0xffffff, v = get32(f.p + 8 + 8 * i);

		if (id != SETTING_INITIAL_WINDOW || v > INT32_MAX)
			continue;
		for (unsigned b = 0; b < BUCKETS; b++)
			for (struct st *t = c->streams[b]; t; t = t->next) {
				t->window += (int64_t)v - c->peer_window;
				waitq_wake_all(&t->wq);
			}
		c->peer_window = v;
		if (!c->peer_windows) {
			c->peer_windows = true;
			/* Said only to those who began it: other implementations know nothing of windows. */
			if (c->server)
				TRY(write_settings(c));
		}
	}
	return NULL;
}

static struct error *on_control(struct spdy *c, int type, int flags, struct str f)
{
	struct st *t;

	switch (type) {
	case SYN_STREAM:
		return on_syn_stream(c, flags, f);
	case SYN_REPLY:
	case HEADERS:
		return on_reply(c, type, flags, f);
	case RST_STREAM:
		if (f.n < 8)
			return violation("RST_STREAM");
		t = find(c, get32(f.p) & 0x7fffffff);
		if (t)
			st_reset(t);
		return NULL;
	case SETTINGS:
		return on_settings(c, f);
	case PING:
		if (f.n < 4)
			return violation("PING");
		if (get32(f.p) % 2 == (c->server ? 1 : 0))
			return write_control(c, PING, get32(f.p), 0, 1);
		c->ponged = get32(f.p);
		waitq_wake_all(&c->ping_q);
		return NULL;
	case GOAWAY:
		/* The streams that are open go on; there will be no new ones. */
		c->goaway = true;
		waitq_wake_all(&c->accept_q);
		return NULL;
	case WINDOW_UPDATE:
		if (f.n < 8)
			return violation("WINDOW_UPDATE");
		t = find(c, get32(f.p) & 0x7fffffff);
		if (t) {
			t->window += get32(f.p + 4) & 0x7fffffff;
			if (t->window > INT32_MAX)
				return violation("WINDOW_UPDATE");
			waitq_wake_all(&t->wq);
		}
		return NULL;
	default:
		return NULL; /* unknown ones are to be ignored */
	}
}

/* n bytes of data for stream id, from the buffer and the connection straight into the stream's queue. */
static struct error *on_data(struct spdy *c, uint32_t id, int flags, size_t n)
{
	struct st *t;

	while (n) {
		TRY(more(c));
		size_t k = c->in_n - c->in_off < n ? c->in_n - c->in_off : n;

		/* Looked up each time: it may be closed while we wait. */
		t = find(c, id);
		if (t && !t->fin_in && !t->in.ended) {
			if (bq_len(&t->in) >= QUEUE_MAX) {
				if (c->hung_up)
					return error_sys(EPIPE, "SPDY connection closed by peer");
				TRY(waitq_wait(&t->in.writable));
				continue;
			}
			if (c->peer_windows && bq_len(&t->in) + t->unacked + k > 2 * WINDOW)
				return violation("flow control");
			TRY(bq_put(&t->in, c->in + c->in_off, k, SIZE_MAX));
		}
		c->in_off += k;
		n -= k;
	}
	t = find(c, id);
	if (t && (flags & FLAG_FIN)) {
		t->fin_in = true;
		bq_end(&t->in);
	}
	return NULL;
}

static struct error *read_frame(struct spdy *c)
{
	unsigned char head[8];

	TRY(take(c, head, 8));
	uint32_t word = get32(head), n = get32(head + 4) & 0xffffff;
	int flags = head[4];

	if (!(word & 0x80000000u))
		return on_data(c, word, flags, n);
	if ((word >> 16 & 0x7fff) != 3)
		return violation("version");
	if (n > HEADERS_BYTES_MAX)
		return violation("frame too large");
	char *f = xmalloc(n + 1);
	struct error *e = take(c, f, n);

	if (!e)
		e = on_control(c, (int)(word & 0xffff), flags, str_of(f, n));
	free(f);
	return e;
}

static void reader(void *arg)
{
	struct spdy *c = arg;
	struct error *e = NULL;

	while (!e && !c->ended)
		e = read_frame(c);
	end_conn(c, error_is_sys(e, EPIPE) && c->in_off == c->in_n ? NULL : error_message(e));
	error_free(e);
}

static void hung_up(void *arg)
{
	struct spdy *c = arg;

	c->hung_up = true;
	waitq_wake_all(&c->ends);
	/* Where the reader waits for room in a queue, it must look again. */
	for (unsigned i = 0; i < BUCKETS; i++)
		for (struct st *t = c->streams[i]; t; t = t->next)
			waitq_wake_all(&t->in.writable);
}

/* ---- the connection ---- */

struct error *spdy_new(struct stream *s, bool server, struct spdy **out)
{
	struct spdy *c = xcalloc(1, sizeof *c);
	struct str d = dictionary();

	*out = NULL;
	c->s = s;
	c->server = server;
	c->next_id = c->next_ping = server ? 2 : 1;
	c->accept_tail = &c->accept_head;
	c->peer_window = WINDOW;
	/* A small window is plenty for headers of 50 bytes, and a tenth of the memory. */
	if (deflateInit2(&c->deflate, Z_BEST_SPEED, Z_DEFLATED, 11, 2, Z_DEFAULT_STRATEGY) != Z_OK ||
	    deflateSetDictionary(&c->deflate, (const Bytef *)d.p, (uInt)d.n) != Z_OK || inflateInit(&c->inflate) != Z_OK)
		die_oom();
	c->bottom = net_bottom(s);
	stream_on_hangup(c->bottom, hung_up, c);
	c->reader = fiber_start("spdy", reader, c);
	if (!server) {
		struct error *e = write_settings(c);

		if (e) {
			spdy_free(c);
			return e;
		}
	}
	*out = c;
	return NULL;
}

void spdy_free(struct spdy *c)
{
	if (!c)
		return;
	end_conn(c, NULL);
	fiber_shield_begin();
	fiber_stop(c->reader);
	fiber_shield_end();
	c->reader = NULL;
	stream_on_hangup(c->bottom, NULL, NULL);
	for (unsigned i = 0; i < BUCKETS; i++)
		while (c->streams[i])
			st_free(c->streams[i]);
	deflateEnd(&c->deflate);
	inflateEnd(&c->inflate);
	stream_close(c->s);
	free(c->why);
	free(c);
}

struct error *spdy_wait_end(struct spdy *c)
{
	while (!c->ended && !c->hung_up)
		TRY(waitq_wait(&c->ends));
	return c->why ? error_sys(ECONNRESET, "SPDY connection: %s", c->why) : NULL;
}

bool spdy_ended(const struct spdy *c)
{
	return c->ended || c->hung_up;
}

struct error *spdy_accept(struct spdy *c, struct spdy_stream **out)
{
	*out = NULL;
	while (!c->accept_head) {
		if (c->ended || c->goaway)
			return error_sys(EPIPE, "SPDY connection has ended");
		TRY(waitq_wait(&c->accept_q));
	}
	struct st *t = c->accept_head;

	c->accept_head = t->accept_next;
	if (!c->accept_head)
		c->accept_tail = &c->accept_head;
	t->accept_next = NULL;
	*out = &t->pub;
	return NULL;
}

struct error *spdy_open(struct spdy *c, const struct http_header *headers, size_t n_headers, struct spdy_stream **out)
{
	*out = NULL;
	if (c->ended || c->goaway)
		return error_sys(EPIPE, "SPDY connection has ended");
	if (c->n_streams >= STREAMS_MAX)
		return error_sys(EMFILE, "SPDY: %u streams are open", STREAMS_MAX);
	struct st *t = st_new(c, c->next_id);

	c->next_id += 2;
	struct error *e = write_headers(c, SYN_STREAM, t->pub.id, headers, n_headers);

	while (!e && !t->replied) {
		if (t->reset || c->ended)
			e = error_sys(ECONNREFUSED, "SPDY stream refused");
		else
			e = waitq_wait(&t->wq);
	}
	if (e) {
		st_close(&t->pub.s);
		return e;
	}
	*out = &t->pub;
	return NULL;
}

struct error *spdy_ping(struct spdy *c)
{
	uint32_t id = c->next_ping;

	c->next_ping += 2;
	TRY(write_control(c, PING, id, 0, 1));
	while (c->ponged < id) {
		if (c->ended)
			return error_sys(EPIPE, "SPDY connection has ended");
		TRY(waitq_wait(&c->ping_q));
	}
	return NULL;
}
