/*
 * The etcd v3 engine: the same keys in an etcd (3.4 or newer) that may have other users.
 *
 * One watch of the whole key space feeds the hub: since every revision of an
 * etcd changes some key, having seen revision R there means having seen
 * everything up to R, for every watch of this process, without asking for
 * progress. The watch resumes where it ended; only when etcd has compacted
 * past that point do all watches answer 410.
 *
 * Reads are linearizable (a quorum confirms them). A call goes to one endpoint
 * until it fails; then to the next. Writes are sent again only when they
 * cannot have been done.
 *
 * Every five minutes history is compacted, by upstream's protocol over the
 * key "compact_rev_key", so that many API servers on one etcd, upstream's
 * among them, do it once.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "net/grpc.h"
#include "schema/codec.h"
#include "store/internal.h"

#define ENDPOINTS_MAX 16
#define CALL_MS 10000         /* one attempt; etcd itself gives up after about 7 s without a quorum */
#define READ_TRY_MS 15000     /* all attempts */
#define WRITE_TRY_MS 10000
#define OPEN_MS 15000
#define RETRY_MS 100
#define PAGE_BYTES (4u << 20) /* aimed at, of one range answer; gRPC's limit is GRPC_MESSAGE_MAX */
#define PAGE_MAX 1000
#define HISTORY_MAX WATCH_QUEUE_MAX
#define SEEN_MS 3000

enum { COMPARE_EQUAL = 0, TARGET_VERSION = 0, TARGET_MOD = 2, EVENT_DELETE = 1 };

struct pending { /* a put on its way: its event takes its cookie */
	struct pending *next;
	struct str key, value;
	struct block *cookie;
};

struct etcd {
	struct store s;
	size_t n;                 /* endpoints */
	char *urls[ENDPOINTS_MAX];
	struct grpc_client *clients[ENDPOINTS_MAX], *watchers[ENDPOINTS_MAX]; /* a connection of its own for the watch */
	struct tls_client *tls;
	size_t at;                /* endpoint in use */
	struct pending *pending;
	struct fiber *watcher, *compactor;
	bool closing, connected, kicking;
	int64_t known;            /* newest revision an answer has shown; hub.rev follows it */
	/* the running round of store_current, shared by who came before it began */
	bool asking;
	uint64_t asked, answered;
	int64_t answer;
	struct waitq ask;
	uint64_t asked_in_vain;   /* rounds that failed */
	struct error *vain;       /* how the last of them did */
	int64_t compacted;
};

static const struct http_header require_leader = {STR_INIT("hasleader"), STR_INIT("true")};

static struct etcd *of(struct store *s)
{
	return (struct etcd *)s;
}

/* ---- calls ---- */

static bool says(const struct error *e, const char *text)
{
	return e && strstr(e->message, text);
}

/* Whether a call that failed so cannot have had an effect. */
static bool not_done(const struct error *e)
{
	return e->sys == ECONNREFUSED || e->sys == ENOENT || e->sys == EHOSTUNREACH || e->sys == ENETUNREACH || says(e, "no leader") ||
	       says(e, "not capable") || says(e, "too many requests");
}

/* Whether another endpoint, or the same later, may answer better. */
static bool transient(const struct error *e)
{
	return e->status == 503 || e->status == 504 || e->sys == ETIMEDOUT || e->sys == ECONNREFUSED || e->sys == ECONNRESET ||
	       e->sys == EPIPE || says(e, "no leader") || says(e, "leader changed") || says(e, "timed out") ||
	       says(e, "etcdserver: server stopped") || says(e, "too many requests");
}

/* etcd's words in the API server's vocabulary. */
static struct error *translate(struct error *e, bool write)
{
	if (!e)
		return NULL;
	if (says(e, "has been compacted")) {
		error_free(e);
		return error_status(410, "Expired", "the resourceVersion is too old: etcd has compacted it");
	}
	if (says(e, "future revision")) {
		e->status = 504;
		e->reason = "Timeout";
	} else if (says(e, "database space exceeded")) {
		e->status = 507;
		e->reason = "InsufficientStorage";
	} else if (says(e, "request is too large") || says(e, "trying to send message larger")) {
		e->status = 413;
		e->reason = "RequestEntityTooLarge";
	} else if (says(e, "lease not found")) {
		e->status = 404;
		e->reason = "NotFound";
	} else if (says(e, "no leader")) {
		e->status = 503;
		e->reason = "ServiceUnavailable";
	} else if (transient(e)) {
		bool maybe = write && !not_done(e);
		e->status = maybe ? 504 : 503;
		e->reason = maybe ? "Timeout" : "ServiceUnavailable";
		if (maybe)
			return error_wrap(e, "etcd did not confirm the write, which may or may not have been done");
	} else if (e->status < 400 || e->status == 412) {
		e->status = 500;
		e->reason = "InternalError";
	}
	return error_wrap(e, "etcd");
}

static void encode(struct buf *b, const struct schema_type *t, const void *obj)
{
	b->n = 0;
	pb_encode(b, t, obj);
}

/* A unary call with failover, for at most `ms`. */
static struct error *call(struct etcd *et, struct arena *a, const char *path, const struct schema_type *req_t, const void *req,
			  const struct schema_type *resp_t, void *resp, bool write, int64_t ms)
{
	struct buf b = {0};
	struct str out;
	int64_t until = now_ms() + ms;
	struct error *e;
	encode(&b, req_t, req);
	for (size_t tries = 0;; tries++) {
		size_t at = et->at;
		int64_t left = until - now_ms();
		int64_t d = deadline_push(left < CALL_MS ? left > 0 ? left : 1 : CALL_MS);
		e = grpc_call(et->clients[at], a, path, buf_view(&b), &out);
		deadline_pop(d);
		if (!e)
			break;
		/* The caller's own end comes first. */
		struct error *mine = fiber_check();
		if (mine) {
			error_free(e);
			e = mine;
			break;
		}
		if (!transient(e) || (write && !not_done(e)) || now_ms() >= until)
			break;
		log_v(2, "store: etcd %s: %s", et->urls[at], e->message);
		if (et->at == at)
			et->at = (at + 1) % et->n;
		if (tries + 1 >= et->n && (mine = fiber_sleep(RETRY_MS))) {
			error_free(e);
			e = mine;
			break;
		}
		error_free(e);
	}
	buf_free(&b);
	if (e && error_is_sys(e, ECANCELED) && !e->status)
		return e;
	if (e && transient(e) && !says(e, "etcdserver:"))
		e = error_wrap(e, "no server of %zu answers", et->n);
	if (e)
		return translate(e, write);
	return error_wrap(pb_decode(a, resp_t, out, resp), "etcd: %s", path);
}

static void saw(struct etcd *et, int64_t rev)
{
	if (rev > et->known)
		et->known = rev;
}

static struct error *range_call(struct etcd *et, struct arena *a, const struct etcd_v3_range_request *r,
				struct etcd_v3_range_response *out)
{
	TRY(call(et, a, "/etcdserverpb.KV/Range", &etcd_v3_range_request_type, r, &etcd_v3_range_response_type, out, false,
		 READ_TRY_MS));
	if (!out->header)
		return error_new("etcd: an answer without a header");
	saw(et, out->header->revision);
	return NULL;
}

static void kv_of(const struct etcd_v3_key_value *k, struct store_kv *out)
{
	*out = (struct store_kv){.key = str_of(str_dupz(k->key), k->key.n), .value = block_new(k->value),
				 .create_rev = k->create_revision, .mod_rev = k->mod_revision, .version = k->version,
				 .lease = k->lease};
}

/* ---- reads ---- */

static struct error *ask(struct etcd *et, int64_t *rev)
{
	struct arena a = {0};
	struct etcd_v3_range_response r = {0};
	struct etcd_v3_range_request q = {.key = STR("\x01"), .count_only = true};
	struct error *e = range_call(et, &a, &q, &r);
	if (!e)
		*rev = r.header->revision;
	arena_free(&a);
	return e;
}

/* Whether it is the caller that is cut off, not etcd that fails. */
static bool cut_off(void)
{
	struct error *e = fiber_check();
	error_free(e);
	return e != NULL;
}

static struct error *et_current(struct store *s, int64_t *rev)
{
	struct etcd *et = of(s);
	uint64_t mine = et->asked + 1; /* only a round that begins after us can speak for us */
	while (et->answered < mine) {
		if (et->asking) {
			uint64_t failed = et->asked_in_vain;
			TRY(waitq_wait(&et->ask));
			/* One try without an answer is enough for all: one after the other they would wait for minutes. */
			if (et->asked_in_vain != failed)
				return error_status(et->vain->status, et->vain->reason, "%s", et->vain->message);
			continue;
		}
		int64_t r;
		uint64_t round = ++et->asked;
		et->asking = true;
		struct error *e = ask(et, &r);
		et->asking = false;
		if (!e) {
			et->answered = round;
			et->answer = r;
		} else if (!cut_off()) {
			et->asked_in_vain++;
			error_free(et->vain);
			et->vain = error_status(e->status, e->reason, "%s", e->message);
		}
		waitq_wake_all(&et->ask);
		TRY(e); /* of a caller who had to stop: the others ask for themselves */
	}
	*rev = et->answer;
	return NULL;
}

static struct error *et_get(struct store *s, struct str key, int64_t rev, bool *found, struct store_kv *out)
{
	struct arena a = {0};
	struct etcd_v3_range_response r = {0};
	struct etcd_v3_range_request q = {.key = key, .revision = rev};
	struct error *e = range_call(of(s), &a, &q, &r);
	if (!e && r.kvs.n) {
		*found = true;
		kv_of(&r.kvs.v[0], out);
	}
	arena_free(&a);
	return e;
}

static struct error *et_range(struct store *s, struct str start, struct str end, int64_t *rev, size_t limit,
			      bool (*each)(void *ctx, struct store_kv *kv), void *ctx, struct store_view **view)
{
	struct etcd *et = of(s);
	struct arena a = {0};
	struct buf from = {0};
	size_t page = 100, done = 0;
	struct error *e = NULL;
	buf_str(&from, start.n ? start : str_of("", 1));
	for (bool more = true; more && !e;) {
		struct etcd_v3_range_response r = {0};
		size_t want = limit && limit - done < page ? limit - done : page;
		struct etcd_v3_range_request q = {.key = buf_view(&from), .range_end = end.n ? end : str_of("", 1), .revision = *rev,
						  .limit = (int64_t)want};
		arena_reset(&a);
		e = range_call(et, &a, &q, &r);
		if (e && want > 1 && (says(e, "message of") || says(e, "larger than") || says(e, "too large"))) {
			/* Objects larger than expected: fewer at a time. */
			error_clear(&e);
			page = want / 4 > 0 ? want / 4 : 1;
			continue;
		}
		if (e)
			break;
		if (!*rev)
			*rev = r.header->revision;
		size_t bytes = 1;
		for (size_t i = 0; i < r.kvs.n && more; i++) {
			const struct etcd_v3_key_value *k = &r.kvs.v[i];
			struct store_kv kv = {.key = k->key, .value = block_new(k->value), .create_rev = k->create_revision,
					      .mod_rev = k->mod_revision, .version = k->version, .lease = k->lease};
			bytes += k->key.n + k->value.n;
			more = each(ctx, &kv) && ++done != limit;
			block_unref(kv.value);
		}
		more = more && r.more && r.kvs.n;
		if (more) {
			from.n = 0;
			buf_str(&from, r.kvs.v[r.kvs.n - 1].key);
			buf_putc(&from, 0);
			page = PAGE_BYTES / (bytes / r.kvs.n + 1);
			page = page < 1 ? 1 : page > PAGE_MAX ? PAGE_MAX : page;
		}
	}
	buf_free(&from);
	arena_free(&a);
	return e;
}

static struct error *et_count(struct store *s, struct str start, struct str end, size_t *n)
{
	struct arena a = {0};
	struct etcd_v3_range_response r = {0};
	struct etcd_v3_range_request q = {.key = start.n ? start : str_of("", 1), .range_end = end.n ? end : str_of("", 1),
					  .count_only = true};
	struct error *e = range_call(of(s), &a, &q, &r);
	if (!e)
		*n = (size_t)r.count;
	arena_free(&a);
	return e;
}

/* ---- writes ---- */

/*
 * If the key's mod_revision is `expect` (any: no condition) do `op`, else get the key. With no_key_ok false the key must be there.
 */
static struct error *txn(struct etcd *et, struct arena *a, struct str key, int64_t expect, struct etcd_v3_request_op *op,
			 struct etcd_v3_txn_response *r)
{
	struct etcd_v3_range_request get = {.key = key};
	struct etcd_v3_request_op get_op = {.request_range = &get};
	struct etcd_v3_compare c = {.result = COMPARE_EQUAL, .target = TARGET_MOD, .key = key, .mod_revision = &expect};
	struct etcd_v3_txn_request q = {0};
	if (expect != STORE_ANY) {
		q.compare.v = &c;
		q.compare.n = 1;
	}
	q.success.v = op;
	q.success.n = 1;
	q.failure.v = &get_op;
	q.failure.n = 1;
	TRY(call(et, a, "/etcdserverpb.KV/Txn", &etcd_v3_txn_request_type, &q, &etcd_v3_txn_response_type, r, true, WRITE_TRY_MS));
	if (!r->header || r->responses.n != 1)
		return error_new("etcd: an answer of the wrong shape");
	saw(et, r->header->revision);
	return NULL;
}

static void take_now(const struct etcd_v3_txn_response *r, struct store_kv *now)
{
	const struct etcd_v3_range_response *g = r->responses.v[0].response_range;
	if (now && g && g->kvs.n)
		kv_of(&g->kvs.v[0], now);
}

/* Events of our own writes are announced before the writer goes on, as the embedded engine does. */
static void wait_own(struct etcd *et, int64_t rev)
{
	fiber_shield_begin();
	struct error *e = store_wait_seen(&et->s, rev, SEEN_MS);
	fiber_shield_end();
	if (e)
		log_v(2, "store: etcd: the watch is late: %s", e->message);
	error_free(e);
}

static struct error *et_put(struct store *s, struct str key, struct str value, int64_t expect, int64_t lease, unsigned flags,
			    struct block *cookie, bool *ok, int64_t *rev, struct store_kv *now)
{
	struct etcd *et = of(s);
	struct arena a = {0};
	struct etcd_v3_txn_response r = {0};
	struct etcd_v3_put_request put = {.key = key, .value = value.p ? value : STR(""), .lease = lease};
	struct etcd_v3_request_op op = {.request_put = &put};
	struct pending p = {.next = et->pending, .key = key, .value = value, .cookie = cookie};
	if (cookie)
		et->pending = &p;
	struct error *e = txn(et, &a, key, expect, &op, &r);
	if (!e && r.succeeded) {
		*ok = true;
		*rev = r.header->revision;
		wait_own(et, *rev);
	} else if (!e) {
		take_now(&r, now);
	}
	for (struct pending **q = &et->pending; *q; q = &(*q)->next)
		if (*q == &p) {
			*q = p.next;
			break;
		}
	arena_free(&a);
	return e;
}

static struct error *et_delete(struct store *s, struct str key, int64_t expect, bool *ok, int64_t *rev, struct store_kv *now)
{
	struct etcd *et = of(s);
	struct arena a = {0};
	struct etcd_v3_txn_response r = {0};
	struct etcd_v3_delete_range_request del = {.key = key};
	struct etcd_v3_request_op op = {.request_delete_range = &del};
	struct error *e = NULL;
	/* expect 0 can only be met by nothing, which cannot be deleted. */
	if (expect == 0) {
		bool found;
		struct store_kv kv;
		e = et_get(s, key, 0, &found, &kv);
		if (!e && found && now)
			*now = kv;
		else if (!e)
			store_kv_free(&kv);
		return e;
	}
	e = txn(et, &a, key, expect, &op, &r);
	if (!e && r.succeeded) {
		const struct etcd_v3_delete_range_response *d = r.responses.v[0].response_delete_range;
		if (d && d->deleted) {
			*ok = true;
			*rev = r.header->revision;
			wait_own(et, *rev);
		}
	} else if (!e) {
		take_now(&r, now);
	}
	arena_free(&a);
	return e;
}

/* ---- leases ---- */

static struct error *et_grant(struct store *s, int64_t ttl_ms, int64_t *id)
{
	struct arena a = {0};
	struct etcd_v3_lease_grant_request q = {.ttl = (ttl_ms + 999) / 1000};
	struct etcd_v3_lease_grant_response r = {0};
	struct error *e = call(of(s), &a, "/etcdserverpb.Lease/LeaseGrant", &etcd_v3_lease_grant_request_type, &q,
			       &etcd_v3_lease_grant_response_type, &r, true, WRITE_TRY_MS);
	if (!e && r.error.n)
		e = error_new("etcd: %.*s", STR_ARG(r.error));
	if (!e)
		*id = r.id;
	arena_free(&a);
	return e;
}

static struct error *et_keepalive(struct store *s, int64_t id)
{
	struct arena a = {0};
	struct etcd_v3_lease_keep_alive_request q = {.id = id};
	struct etcd_v3_lease_keep_alive_response r = {0};
	/* A stream both ways in etcd's API; one request, then its end, gets one answer. */
	struct error *e = call(of(s), &a, "/etcdserverpb.Lease/LeaseKeepAlive", &etcd_v3_lease_keep_alive_request_type, &q,
			       &etcd_v3_lease_keep_alive_response_type, &r, false, WRITE_TRY_MS);
	if (!e && r.ttl <= 0)
		e = error_status(404, "NotFound", "etcd: there is no lease %lld", (long long)id);
	arena_free(&a);
	return e;
}

static struct error *et_revoke(struct store *s, int64_t id)
{
	struct arena a = {0};
	struct etcd_v3_lease_revoke_request q = {.id = id};
	struct etcd_v3_put_response r = {0}; /* the same shape: a header */
	struct error *e = call(of(s), &a, "/etcdserverpb.Lease/LeaseRevoke", &etcd_v3_lease_revoke_request_type, &q,
			       &etcd_v3_put_response_type, &r, true, WRITE_TRY_MS);
	int64_t rev = r.header ? r.header->revision : 0;
	arena_free(&a);
	if (!e && rev)
		wait_own(of(s), rev);
	return e;
}

/* ---- watching ---- */

static struct hub_event *event_of(struct etcd *et, const struct etcd_v3_event *v)
{
	struct store_event e = {.is_delete = v->type == EVENT_DELETE};
	const struct etcd_v3_key_value *k = v->kv;
	e.kv = (struct store_kv){.key = str_of(str_dupz(k->key), k->key.n), .create_rev = k->create_revision,
				 .mod_rev = k->mod_revision, .version = k->version, .lease = k->lease};
	if (!e.is_delete) {
		e.kv.value = block_new(k->value);
		for (struct pending *p = et->pending; p; p = p->next)
			if (str_eq(p->key, k->key) && str_eq(p->value, k->value)) {
				e.cookie = block_ref(p->cookie);
				break;
			}
	}
	return hub_event_new(e);
}

struct watching { /* one watch stream */
	struct etcd *et;
	int64_t from;
	int64_t compacted;   /* etcd ended it: history begins here */
	/* for history: only events of a range up to `last`, into `list` */
	struct store_watch *w;
	int64_t last;
	struct hub_event **list;
	size_t n, cap;
	bool done;
	struct arena a;
};

static struct error *on_response(void *ctx, struct str message)
{
	struct watching *x = ctx;
	struct etcd *et = x->et;
	struct etcd_v3_watch_response r = {0};
	arena_reset(&x->a);
	TRY(pb_decode(&x->a, &etcd_v3_watch_response_type, message, &r));
	if (et->closing)
		return error_sys(ECANCELED, "the store is closing");
	if (r.compact_revision) {
		x->compacted = r.compact_revision;
		return error_status(410, "Expired", "etcd has compacted revision %lld", (long long)r.compact_revision);
	}
	if (r.canceled)
		return error_status(503, "ServiceUnavailable", "etcd ended the watch: %.*s", STR_ARG(r.cancel_reason));
	if (!x->w && r.created) {
		if (!et->connected)
			log_info("store: watching etcd at %s from revision %lld", et->urls[et->at], (long long)x->from);
		et->connected = true;
	}
	if (!r.events.n)
		return NULL;
	struct hub_event **list = xmalloc(r.events.n * sizeof(*list));
	size_t n = 0;
	int64_t rev = 0;
	for (size_t i = 0; i < r.events.n; i++) {
		const struct etcd_v3_event *v = &r.events.v[i];
		if (!v->kv)
			continue;
		rev = v->kv->mod_revision;
		if (x->w ? rev <= x->last && rev >= x->from && in_range(v->kv->key, x->w->start, x->w->end) : rev > et->s.hub.rev)
			list[n++] = event_of(et, v);
	}
	if (x->w) {
		for (size_t i = 0; i < n; i++) {
			if (x->n == HISTORY_MAX) {
				hub_event_unref(list[i]);
				continue;
			}
			if (x->n == x->cap) {
				x->cap = x->cap ? x->cap * 2 : 64;
				x->list = xrealloc(x->list, x->cap * sizeof(*x->list));
			}
			x->list[x->n++] = list[i];
		}
		free(list);
		if (rev >= x->last && !r.fragment) {
			x->done = true;
			return error_sys(ECANCELED, "history is complete");
		}
		return NULL;
	}
	/* A revision may go on in the next fragment: it is complete only then. */
	hub_publish(&et->s.hub, list, n, r.fragment ? rev - 1 : rev);
	free(list);
	return NULL;
}

static struct error *watch_stream(struct etcd *et, struct watching *x)
{
	struct etcd_v3_watch_create_request c = {.key = str_of("", 1), .range_end = str_of("", 1), .start_revision = x->from,
						 .fragment = true};
	struct etcd_v3_watch_request q = {.create_request = &c};
	struct buf b = {0};
	encode(&b, &etcd_v3_watch_request_type, &q);
	struct error *e = grpc_call_stream((x->w ? et->clients : et->watchers)[et->at], "/etcdserverpb.Watch/Watch", buf_view(&b),
					   on_response, x);
	buf_free(&b);
	arena_free(&x->a);
	return e;
}

static void watch_loop(void *arg)
{
	struct etcd *et = arg;
	int64_t wait = RETRY_MS;
	while (!et->closing) {
		struct watching x = {.et = et, .from = et->s.hub.rev + 1};
		int64_t began = now_ms();
		struct error *e = watch_stream(et, &x);
		if (et->closing || fiber_cancelled()) {
			error_free(e);
			return;
		}
		if (x.compacted) {
			/* We were away too long: what happened in between is unknown. */
			int64_t rev;
			log_warn("store: etcd compacted revision %lld before it was seen; all watches begin again", (long long)x.from);
			error_free(e);
			et->compacted = x.compacted;
			e = ask(et, &rev);
			if (!e) {
				if (rev > et->s.hub.rev)
					et->s.hub.rev = rev;
				hub_expire(&et->s.hub);
				continue;
			}
		}
		if (et->connected)
			log_warn("store: the watch of etcd at %s ended: %s", et->urls[et->at], e ? e->message : "no reason given");
		et->connected = false;
		error_free(e);
		et->at = (et->at + 1) % et->n;
		wait = now_ms() - began > 10000 ? RETRY_MS : wait < 2000 ? wait * 2 : 2000;
		if ((e = fiber_sleep(wait))) {
			error_free(e);
			return;
		}
	}
}

/* The watch does not show what etcd has: its connection may be dead without saying so. */
static void et_late(struct store *s, int64_t rev)
{
	struct etcd *et = of(s);
	if (et->kicking || et->closing || et->s.hub.rev >= (rev < et->known ? rev : et->known))
		return;
	log_warn("store: the watch of etcd at %s has fallen silent: opening another", et->urls[et->at]);
	et->kicking = true;
	fiber_stop(et->watcher);
	et->at = (et->at + 1) % et->n;
	et->connected = false;
	et->watcher = fiber_start("etcd-watch", watch_loop, et);
	et->kicking = false;
}

static struct error *et_watch_check(struct store *s, int64_t from)
{
	struct etcd *et = of(s);
	return from < et->compacted ? store_expired(from, et->compacted) : NULL;
}

/* Reads (from, last] of the watch's range from etcd before its live events: in store_watch_open, which may suspend. */
static struct error *et_catch_up(struct store *s, struct store_watch *w, int64_t from, int64_t last)
{
	struct etcd *et = of(s);
	int64_t until = now_ms() + READ_TRY_MS;
	for (;;) {
		struct watching x = {.et = et, .from = from + 1, .w = w, .last = last};
		int64_t d = deadline_push(CALL_MS);
		struct error *e = watch_stream(et, &x);
		deadline_pop(d);
		if (x.done && x.n < HISTORY_MAX) {
			error_free(e);
			e = NULL;
			/* In front of what has come live meanwhile. */
			hub_prepend(w, x.list, x.n);
		} else {
			for (size_t i = 0; i < x.n; i++)
				hub_event_unref(x.list[i]);
			if (x.done) {
				error_free(e);
				e = error_status(410, "Expired", "more than %d events since revision %lld; list again", HISTORY_MAX, (long long)from);
			}
		}
		free(x.list);
		if (!e || error_is(e, 410, NULL) || now_ms() >= until)
			return e;
		struct error *mine = fiber_check();
		if (mine) {
			error_free(e);
			return mine;
		}
		et->at = (et->at + 1) % et->n;
		error_free(e);
		TRY(fiber_sleep(RETRY_MS));
	}
}

static struct error *et_history(struct store *s, struct store_watch *w, struct store_event *e, bool *got)
{
	return NULL; /* et_catch_up has queued it */
}

/* ---- compaction ---- */

static struct error *et_compact(struct store *s, int64_t rev)
{
	struct arena a = {0};
	struct etcd_v3_compaction_request q = {.revision = rev};
	struct etcd_v3_put_response r = {0};
	struct error *e = call(of(s), &a, "/etcdserverpb.KV/Compact", &etcd_v3_compaction_request_type, &q, &etcd_v3_put_response_type, &r,
			       false, READ_TRY_MS);
	arena_free(&a);
	if (error_is(e, 410, NULL)) /* somebody was quicker */
		error_clear(&e);
	if (!e && rev > of(s)->compacted)
		of(s)->compacted = rev;
	return e;
}

/*
 * One step of upstream's protocol: whoever finds the key's version at `*turn` compacts at *rev, the revision of its last step, and
 * leaves the new one; the others learn the turn and the revision.
 */
static struct error *compact_step(struct etcd *et, int64_t *turn, int64_t *rev)
{
	struct arena a = {0};
	struct etcd_v3_txn_response r = {0};
	struct str key = STR("compact_rev_key");
	struct etcd_v3_compare c = {.result = COMPARE_EQUAL, .target = TARGET_VERSION, .key = key, .version = turn};
	struct etcd_v3_put_request put = {.key = key, .value = arena_printf(&a, "%lld", (long long)*rev)};
	struct etcd_v3_range_request get = {.key = key};
	struct etcd_v3_request_op put_op = {.request_put = &put}, get_op = {.request_range = &get};
	struct etcd_v3_txn_request q = {0};
	q.compare.v = &c;
	q.success.v = &put_op;
	q.failure.v = &get_op;
	q.compare.n = q.success.n = q.failure.n = 1;
	struct error *e = call(et, &a, "/etcdserverpb.KV/Txn", &etcd_v3_txn_request_type, &q, &etcd_v3_txn_response_type, &r, true,
			       WRITE_TRY_MS);
	if (!e && (!r.header || r.responses.n != 1))
		e = error_new("etcd: an answer of the wrong shape");
	if (!e && !r.succeeded) {
		const struct etcd_v3_range_response *g = r.responses.v[0].response_range;
		*turn = g && g->kvs.n ? g->kvs.v[0].version : 0;
		*rev = r.header->revision;
	} else if (!e) {
		int64_t at = *rev;
		++*turn;
		*rev = r.header->revision;
		if (at) /* not in the first step of a new etcd */
			e = et_compact(&et->s, at);
	}
	arena_free(&a);
	return e;
}

static void compact_loop(void *arg)
{
	struct etcd *et = arg;
	int64_t turn = 0, rev = 0;
	for (;;) {
		struct error *e = fiber_sleep(et->s.history_ms);
		if (e || et->closing) {
			error_free(e);
			return;
		}
		e = compact_step(et, &turn, &rev);
		if (e && !fiber_cancelled())
			log_and_free(e, "store: compacting etcd");
		else
			error_free(e);
	}
}

/* ---- the rest ---- */

static struct error *et_save(struct store *s, const char *path)
{
	return error_status(501, "NotImplemented", "the store is an etcd: save it with `etcdctl snapshot save %s`", path);
}

static void et_stats(struct store *s, struct store_stats *out)
{
	struct etcd *et = of(s);
	struct arena a = {0};
	struct etcd_v3_lease_keep_alive_request none = {0};
	struct etcd_v3_status_response r = {0};
	size_t keys = 0;
	struct error *e = call(et, &a, "/etcdserverpb.Maintenance/Status", &etcd_v3_lease_keep_alive_request_type, &none,
			       &etcd_v3_status_response_type, &r, false, 2000);
	if (!e) {
		out->bytes_used = r.db_size_in_use;
		out->bytes_map = r.db_size;
		e = et_count(s, STR_NULL, STR_NULL, &keys);
	}
	if (e)
		log_v(2, "store: etcd's figures: %s", e->message);
	error_free(e);
	out->keys = (int64_t)keys;
	out->compacted = et->compacted;
	arena_free(&a);
}

static void et_free(struct etcd *et)
{
	for (size_t i = 0; i < et->n; i++) {
		grpc_client_free(et->clients[i]);
		grpc_client_free(et->watchers[i]);
		free(et->urls[i]);
	}
	tls_client_free(et->tls);
	error_free(et->vain);
	free(et);
}

static void et_close(struct store *s)
{
	struct etcd *et = of(s);
	et->closing = true;
	fiber_stop(et->compactor);
	fiber_stop(et->watcher);
	et_free(et);
}

static const struct store_ops etcd_ops = {
	.close = et_close, .current = et_current, .get = et_get, .range = et_range, .count = et_count, .put = et_put,
	.del = et_delete, .watch_check = et_watch_check, .history = et_history, .catch_up = et_catch_up, .grant = et_grant,
	.keepalive = et_keepalive, .revoke = et_revoke, .compact = et_compact, .save = et_save, .stats = et_stats, .late = et_late,
};

static struct error *endpoints(struct etcd *et, const struct store_opts *o)
{
	struct str rest = str_from(o->etcd_servers);
	bool tls = false;
	while (rest.p) {
		struct str u = str_trim(str_cut(&rest, ','));
		if (!u.n)
			continue;
		if (et->n == ENDPOINTS_MAX)
			return error_new("more than %d etcd servers", ENDPOINTS_MAX);
		while (str_has_suffix(u, STR("/")))
			u.n--;
		if (!str_has_prefix(u, STR("http://")) && !str_has_prefix(u, STR("https://")) && !str_has_prefix(u, STR("unix://")))
			return error_new("etcd server \"%.*s\": give http://HOST:PORT, https://HOST:PORT or unix:///PATH", STR_ARG(u));
		tls |= str_has_prefix(u, STR("https://"));
		et->urls[et->n++] = str_dupz(u);
	}
	if (!et->n)
		return error_new("no etcd servers are given");
	if (tls)
		TRY(tls_client_new(&(struct tls_client_opts){.ca_file = o->etcd_ca, .cert_file = o->etcd_cert, .key_file = o->etcd_key,
							     .http2 = true}, &et->tls));
	for (size_t i = 0; i < et->n; i++) {
		struct grpc_client_opts g = {.target = et->urls[i], .metadata = &require_leader, .n_metadata = 1,
					     .tls = strncmp(et->urls[i], "https:", 6) ? NULL : et->tls};
		TRY(grpc_client_open(&g, &et->clients[i]));
		TRY(grpc_client_open(&g, &et->watchers[i]));
	}
	return NULL;
}

struct error *etcd_open(const struct store_opts *o, struct store **out)
{
	struct etcd *et = xcalloc(1, sizeof(*et));
	et->s.ops = &etcd_ops;
	et->s.history_ms = o->history_ms > 0 ? o->history_ms : HISTORY_MS;
	struct error *e = endpoints(et, o);
	if (!e) {
		int64_t d = deadline_push(OPEN_MS);
		e = ask(et, &et->s.hub.rev);
		deadline_pop(d);
	}
	if (e) {
		et_free(et);
		return error_wrap(e, "opening the store on etcd (%s)", o->etcd_servers);
	}
	et->watcher = fiber_start("etcd-watch", watch_loop, et);
	et->compactor = fiber_start("etcd-compact", compact_loop, et);
	*out = &et->s;
	return NULL;
}
