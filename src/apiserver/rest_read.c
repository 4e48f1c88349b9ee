/* get and watch: bytes of the watch cache, written out; other formats made from them. */
#include "apiserver/audit.h"
#include "apiserver/custom.h"
#include "apiserver/flow.h"
#include "apiserver/list.h"
#include "apiserver/metrics.h"
#include "apiserver/watch_socket.h"
#include "base/log.h"
#include "net/websocket.h"

/* ---- get ---- */

struct error *rest_get_options(struct request *rq, enum cache_mode *mode, int64_t *rev)
{
	if (query_bool(&rq->q, "export"))
		return err_bad_request("the export parameter, deprecated since v1.14, is no longer supported");
	TRY(registry_name(rq, rq->info.name));
	return list_rv_param(rq, mode, rev);
}

struct error *rest_get(struct request *rq)
{
	struct resource *res = rq->res;
	struct cache_entry *e;
	enum cache_mode mode;
	int64_t rev;
	struct error *err;
	bool done;
	void *obj;

	TRY(rest_get_options(rq, &mode, &rev));
	TRY(list_version_error(res, cache_get(res->st->cache, res->st->namespaced ? rq->info.ns : STR_NULL,
					      rq->info.name, mode, rev, &e)));
	if (!e)
		return err_not_found(res->api->group, res->api->plural, rq->info.name);
	done = false;
	err = mode == CACHE_CONSISTENT ? registry_readable(res->st, e) : NULL;
	if (!err)
		err = respond_entry(rq, 200, res, e, &done);
	if (err || done) {
		cache_entry_unref(e);
		return err;
	}
	obj = arena_alloc(rq->a, res->st->type->size);
	err = res->crd ? custom_read(rq->a, res, e, true, &obj) : cache_entry_decode(rq->a, res->st->type, e, true, obj);
	cache_entry_unref(e);
	return err ? err : respond_object(rq, 200, res, obj);
}

/* ---- watch ---- */

static struct iovec iov_of(struct str s)
{
	return (struct iovec){(void *)(uintptr_t)s.p, s.n};
}

enum form { FORM_PARTIAL_JSON, FORM_TABLE }; /* slots of cache_event.forms */

struct watcher {
	struct request *rq;
	struct resource *res;
	struct watch_socket *socket; /* NULL: the answer's body */
	bool begun;                 /* what there was at first is written */
	bool headers_sent;          /* Table: column definitions go with the first event only */
	struct buf out;             /* frames not from shared blocks */
	const struct selector *post; /* see custom_selector */
	struct watch_counts counts;
	struct map matched;         /* with post: key -> struct cache_entry * of what the client has seen */
};

/* What the client has before the watch starts. */
static struct error *post_begin(struct watcher *w, const struct cache_watch_opts *o)
{
	struct cache *c = w->res->st->cache;
	struct cache_snap *snap;
	struct cache_iter it;
	struct post_iter *posts;
	const struct cache_entry *en;
	struct error *e;

	if (!w->post || o->initial)
		return NULL;
	TRY(cache_snapshot(c, CACHE_EXACT, o->rev, &snap));
	cache_iter_init(&it, c, snap, o->ns, STR_NULL, &o->filter);
	posts = post_iter_new(w->res, w->post, &it);
	while (!(e = post_next(posts, &en)) && en)
		map_set(&w->matched, cache_entry_key(en), cache_entry_ref((struct cache_entry *)(uintptr_t)en));
	post_iter_free(posts);
	cache_snap_free(snap);
	return e;
}

/*
 * The event as this client's selector has it; *send false: it is none. *keep: a reference to let go of after sending. obj: the event's
 * object, or NULL; *changed: the event shows another.
 */
static struct error *post_event(struct watcher *w, struct cache_event *ev, void *obj, bool *send, bool *changed, struct cache_entry **keep)
{
	struct arena tmp arena_cleanup = {0};
	struct cache_entry *was;
	bool now = false;

	*send = true;
	*changed = false;
	*keep = NULL;
	if (!w->post || !ev->obj)
		return NULL;
	ev->forms = NULL;
	if (ev->type != CACHE_DELETED) {
		if (!obj)
			TRY(list_decode(&tmp, w->res, ev->obj, &obj));
		now = custom_fields_match(&tmp, w->res, obj, w->post);
	}
	was = map_del(&w->matched, cache_entry_key(ev->obj));
	if (now) {
		ev->type = was ? CACHE_MODIFIED : CACHE_ADDED;
		map_set(&w->matched, cache_entry_key(ev->obj), cache_entry_ref((struct cache_entry *)(uintptr_t)ev->obj));
		cache_entry_unref(was);
	} else if (was) {
		/* gone, or left the selection: as it was last */
		*changed = ev->type != CACHE_DELETED;
		if (*changed)
			ev->obj = was;
		ev->type = CACHE_DELETED;
		*keep = was;
	} else {
		*send = false;
	}
	return NULL;
}

static void entry_unref(void *entry)
{
	cache_entry_unref(entry);
}

static struct str type_name(enum cache_event_type t)
{
	switch (t) {
	case CACHE_ADDED:
		return STR("ADDED");
	case CACHE_MODIFIED:
		return STR("MODIFIED");
	case CACHE_DELETED:
		return STR("DELETED");
	default:
		return STR("BOOKMARK");
	}
}

/* One event around an object that is encoded already, in the stream's framing. */
static struct error *frame(struct watcher *w, struct str type, struct str object, struct buf *out)
{
	struct buf b buf_cleanup = {0}, c buf_cleanup = {0};

	switch (w->rq->out.media) {
	case MEDIA_PROTOBUF: {
		/* 4 bytes of length, then WatchEvent{1: type, 2: RawExtension{1: raw}} */
		pb_put_bytes(&c, 1, object);
		pb_put_bytes(&b, 1, type);
		pb_put_bytes(&b, 2, buf_view(&c));
		for (int i = 24; !w->socket && i >= 0; i -= 8) /* messages of WebSockets have a length themselves */
			buf_putc(out, (char)(b.n >> i));
		buf_str(out, buf_view(&b));
		return NULL;
	}
	case MEDIA_CBOR:
		buf_printf(&b, "{\"type\":\"%.*s\",\"object\":", STR_ARG(type));
		buf_str(&b, object);
		buf_putc(&b, '}');
		return json_to_cbor(buf_view(&b), out);
	default:
		buf_printf(out, "{\"type\":\"%.*s\",\"object\":", STR_ARG(type));
		buf_str(out, object);
		buf_puts(out, "}\n");
		return NULL;
	}
}

/* What upstream's conversion from its own types leaves in an object that has nothing. */
static void bookmark_rest(struct arena *a, const struct schema_type *t, void *obj)
{
	if (t == &apps_v1_deployment_type)
		((struct apps_v1_deployment *)obj)->spec.replicas = arena_new(a, int32_t);
	else if (t == &apps_v1_replica_set_type)
		((struct apps_v1_replica_set *)obj)->spec.replicas = arena_new(a, int32_t);
	else if (t == &apps_v1_stateful_set_type)
		((struct apps_v1_stateful_set *)obj)->spec.replicas = arena_new(a, int32_t);
	else if (t == &apps_v1_daemon_set_type)
		str_map_set(a, API_MAP(&object_meta(t, obj)->annotations), STR("deprecated.daemonset.template.generation"), STR("0"));
}

/* The object of an event (NULL: made here) in the form asked for. */
static struct error *event_object(struct watcher *w, struct arena *tmp, const struct cache_event *ev, void *obj, struct buf *b)
{
	struct request *rq = w->rq;
	struct resource *res = w->res;
	bool pb = rq->out.media == MEDIA_PROTOBUF;

	if (ev->type == CACHE_BOOKMARK) {
		obj = arena_alloc(tmp, res->api->type->size);
		struct meta_v1_object_meta *m = object_meta(res->api->type, obj);

		((struct str *)obj)[0] = res->api->kind;
		((struct str *)obj)[1] = res->api_version;
		m->resource_version = arena_printf(tmp, "%lld", (long long)ev->rev);
		if (ev->initial_end) {
			str_map_set(tmp, API_MAP(&m->annotations), STR("k8s.io/initial-events-end"), STR("true"));
			metrics_watch_list(rq);
		}
		bookmark_rest(tmp, res->api->type, obj);
	} else {
		if (!obj)
			TRY(list_decode(tmp, res, ev->obj, &obj));
		if (w->post && ev->type == CACHE_DELETED)
			object_meta(res->api->type, obj)->resource_version = arena_printf(tmp, "%lld", (long long)ev->rev);
	}
	if (rq->out.as == ANSWER_TABLE) {
		bool kept = ev->type == CACHE_BOOKMARK && ev->initial_end && include_object(rq) == TABLE_OBJECT_NONE; /* the mark is in it */
		struct table_options o = {.object = kept ? TABLE_OBJECT_METADATA : include_object(rq),
					  .v1beta1 = rq->out.table_v1beta1, .now = time_now_micro(), .api_version = res->api_version, .kind = res->api->kind,
					  .no_headers = w->headers_sent};
		struct meta_v1_list_meta lm = {.resource_version = object_meta(res->api->type, obj)->resource_version};
		void *row = obj;

		if (res->printed && ev->type == CACHE_BOOKMARK) {
			row = arena_alloc(tmp, res->st->type->size);
			*object_meta(res->st->type, row) = *object_meta(res->api->type, obj);
		} else if (res->printed) {
			TRY(list_decode_printed(tmp, res, ev->obj, &row));
		}
		w->headers_sent = true;
		table_for(rq, res, &o);
		table_begin(b, table_resource(res), &o, &lm);
		table_append(rq, b, res, &o, row, true);
		table_end(b, table_resource(res));
	} else if (rq->out.as == ANSWER_PARTIAL || rq->out.as == ANSWER_PARTIAL_LIST) {
		struct meta_v1_partial_object_metadata p;

		partial_of(rq, res, obj, &p);
		if (pb)
			pb_envelope_encode(b, p.api_version, p.kind, &meta_v1_partial_object_metadata_type, &p);
		else
			json_encode(b, &meta_v1_partial_object_metadata_type, &p);
	} else if (pb) {
		pb_envelope_encode(b, res->api_version, res->api->kind, res->api->type, obj);
	} else {
		json_encode(b, res->api->type, obj);
	}
	return NULL;
}

static int form_slot(const struct watcher *w)
{
	if (w->rq->out.as == ANSWER_TABLE || w->res->from_storage || (w->res->crd && !custom_is_storage_version(w->res)))
		return -1;
	if (w->rq->out.as == ANSWER_PARTIAL && w->rq->out.media == MEDIA_JSON && !w->rq->out.table_v1beta1)
		return FORM_PARTIAL_JSON;
	return -1;
}

/* 200, or 101 for a client that asks for a WebSocket. */
static struct error *watch_start(struct watcher *w)
{
	if (ws_requested(w->rq->x))
		return watch_socket_open(w->rq, &w->socket);
	return http_start(w->rq->x, 200);
}

static void count(struct watcher *w, size_t bytes)
{
	metric_add(w->counts.events, 1);
	metric_observe(w->counts.sizes, (double)bytes);
}

static struct error *watch_write(struct watcher *w)
{
	return w->socket ? watch_socket_send(w->socket, buf_view(&w->out)) : http_write(w->rq->x, buf_view(&w->out));
}

static struct error *watch_end(struct watcher *w)
{
	return w->socket ? NULL : http_end(w->rq->x);
}

static struct error *write_error_event(struct watcher *w, struct error *e)
{
	struct meta_v1_status st;
	struct buf b buf_cleanup = {0};
	struct error *err;

	status_from_error(w->rq->a, e, &st);
	error_free(e);
	object_encode(&b, w->rq->out.media == MEDIA_PROTOBUF ? MEDIA_PROTOBUF : MEDIA_JSON, &meta_v1_status_type, &st);
	w->out.n = 0;
	TRY(frame(w, STR("ERROR"), buf_view(&b), &w->out));
	err = watch_write(w);
	return err ? err : watch_end(w);
}

#define WATCH_BATCH 64

/* Events whose objects are written as they are, gathered for one write. */
struct gathered {
	struct iovec iov[WATCH_BATCH * 3];
	int n, k;
	struct block *held[WATCH_BATCH];
	struct buf heads;               /* protobuf: what stands before each object */
	size_t head_at[WATCH_BATCH];
};

/* One is kept for the next: watchers that wait need none. */
static __thread struct gathered *spare;

static struct gathered *gathered_take(void)
{
	struct gathered *g = spare;

	spare = NULL;
	return g ? g : xcalloc(1, sizeof *g);
}

static void gathered_give(struct gathered *g)
{
	if (!g)
		return;
	for (int i = 0; i < g->k; i++)
		block_unref(g->held[i]);
	buf_free(&g->heads);
	if (spare) {
		free(g);
		return;
	}
	g->n = g->k = 0;
	spare = g;
}

/*
 * 4 bytes of length, then WatchEvent{1: type, 2: RawExtension{1: raw}}, raw being an envelope: "k8s\0", type meta, the entry's
 * bytes, its end.
 */
static void pb_event_head(struct buf *b, struct watcher *w, struct str type, size_t body)
{
	struct str end = PB_ENVELOPE_END;
	struct buf raw buf_cleanup = {0}, ext buf_cleanup = {0}, all buf_cleanup = {0};

	pb_envelope_begin(&raw, w->res->api_version, w->res->api->kind);
	pb_put_varint(&ext, 1 << 3 | 2);
	pb_put_varint(&ext, raw.n + body + end.n);
	pb_put_bytes(&all, 1, type);
	pb_put_varint(&all, 2 << 3 | 2);
	pb_put_varint(&all, ext.n + raw.n + body + end.n);
	size_t n = all.n + ext.n + raw.n + body + end.n;

	for (int i = 24; i >= 0; i -= 8)
		buf_putc(b, (char)(n >> i));
	buf_str(b, buf_view(&all));
	buf_str(b, buf_view(&ext));
	buf_str(b, buf_view(&raw));
}

/* Adds ev; *taken false: it is not written as it is. */
static struct error *gather(struct gathered **gp, struct watcher *w, const struct cache_event *ev, bool *taken)
{
	struct negotiated *out = &w->rq->out;
	struct gathered *g;
	struct str tail, body;

	*taken = false;
	if (!ev->obj || out->as != ANSWER_OBJECT || !entry_fits(w->res, ev->obj))
		return NULL;
	if (out->media != MEDIA_JSON && !(out->media == MEDIA_PROTOBUF && ev->obj->pb))
		return NULL;
	g = *gp = *gp ? *gp : gathered_take();
	if (out->media == MEDIA_JSON) {
		TRY(cache_entry_json(w->res->st->cache, ev->obj, &g->held[g->k]));
		g->iov[g->n++] = iov_of(cache_event_head(ev->type));
		tail = CACHE_EVENT_TAIL;
	} else {
		g->held[g->k] = block_ref(ev->obj->body);
		g->head_at[g->k] = g->heads.n;
		pb_event_head(&g->heads, w, type_name(ev->type), ev->obj->body->n);
		g->iov[g->n++] = (struct iovec){NULL, g->heads.n - g->head_at[g->k]};
		tail = PB_ENVELOPE_END;
	}
	body = block_str(g->held[g->k++]);
	count(w, body.n);
	g->iov[g->n++] = iov_of(body);
	g->iov[g->n++] = iov_of(tail);
	*taken = true;
	return NULL;
}

static struct error *write_gathered(struct gathered *g, struct watcher *w)
{
	if (w->rq->out.media == MEDIA_PROTOBUF) /* now the heads stay where they are */
		for (int i = 0; i < g->k; i++)
			g->iov[3 * i].iov_base = g->heads.p + g->head_at[i];
	return http_writev(w->rq->x, g->iov, g->n);
}

/* What cache_watch_next ended with, to the client. */
static struct error *watch_ended(struct watcher *w, struct error *end)
{
	/* who is too slow, too, and when the cache reads again: that a version is too old is said to who asks for it anew */
	if (error_is_sys(end, ETIMEDOUT) || error_is(end, 410, NULL)) {
		error_free(end);
		return watch_end(w);
	}
	if (error_is_sys(end, ECANCELED)) {
		struct error *e;

		if (fiber_cancelled() && (!w->rq->s->stopping || http_peer_gone(w->rq->x)))
			return end;
		/* the server ends: the client learns that this was all, not that something broke */
		error_free(end);
		fiber_shield_begin();
		e = watch_end(w);
		fiber_shield_end();
		return e;
	}
	return write_error_event(w, end);
}

/* What there was is on its way: from here on the watch costs no more than the events that come. */
static void watch_begun(struct watcher *w, struct cache_watch *cw)
{
	if (w->begun || !cache_watch_begun(cw))
		return;
	w->begun = true;
	flow_begun(w->rq);
}

static struct error *watch_loop(struct watcher *w, struct cache_watch *cw)
{
	int slot = form_slot(w);
	struct arena tmp arena_cleanup = {0};

	for (;;) {
		struct cache_event ev;
		struct error *e = NULL, *end = NULL;
		struct gathered *g = NULL;
		bool taken;
		struct cache_entry *left = NULL;

		w->out.n = 0;
		watch_begun(w, cw);
		do {
			end = cache_watch_next(cw, &ev);
			if (end)
				break;
			if (w->rq->out.as == ANSWER_PARTIAL_LIST)
				return watch_end(w); /* no event is a list: upstream ends without a word */
			if (w->post) {
				bool send, changed;

				cache_entry_unref(left);
				left = NULL;
				e = post_event(w, &ev, NULL, &send, &changed, &left);
				if (e)
					break;
				if (!send)
					continue;
			}
			taken = false;
			if (!w->post && !w->socket)
				e = gather(&g, w, &ev, &taken);
			if (e || taken)
				continue;
			struct buf b buf_cleanup = {0};

			arena_reset(&tmp);
			if (slot >= 0 && ev.forms && ev.forms[slot]) {
				count(w, ev.forms[slot]->n);
				e = frame(w, type_name(ev.type), block_str(ev.forms[slot]), &w->out);
			} else {
				e = event_object(w, &tmp, &ev, NULL, &b);
				if (!e && slot >= 0 && ev.forms)
					ev.forms[slot] = block_new(buf_view(&b));
				count(w, b.n);
				if (!e)
					e = frame(w, type_name(ev.type), buf_view(&b), &w->out);
			}
			break; /* bookmarks and converted events keep their order: written before the next */
		} while (!e && (!g || g->k < WATCH_BATCH) && cache_watch_ready(cw));
		if (!e && g)
			e = write_gathered(g, w);
		gathered_give(g);
		if (!e && w->out.n)
			e = watch_write(w);
		cache_entry_unref(left);
		if (e) {
			error_free(end);
			return e;
		}
		if (end)
			return watch_ended(w, end);
	}
}

/* Events whose objects a webhook converts: gathered while there are more, so that it is asked once for all of them. */
struct converting {
	struct cache_event ev[WATCH_BATCH];
	struct cache_entry *held[WATCH_BATCH];
	const struct cache_entry *entries[WATCH_BATCH]; /* of those events that have one */
	void *objs[WATCH_BATCH];
	int n;
	size_t n_objs;
};

static struct error *converting_gather(struct converting *g, struct cache_watch *cw)
{
	struct error *e;

	do {
		struct cache_event *ev = &g->ev[g->n];

		e = cache_watch_next(cw, ev);
		if (e)
			return e;
		g->held[g->n] = ev->obj ? cache_entry_ref((struct cache_entry *)(uintptr_t)ev->obj) : NULL;
		ev->obj = g->held[g->n];
		ev->forms = NULL;
		if (ev->obj)
			g->entries[g->n_objs++] = ev->obj;
		g->n++;
	} while (g->n < WATCH_BATCH && cache_watch_ready(cw));
	return NULL;
}

static struct error *converting_frames(struct converting *g, struct watcher *w, struct arena *tmp)
{
	struct error *e = list_decode_all(tmp, w->res, g->entries, g->n_objs, g->objs);
	size_t at = 0;

	for (int i = 0; i < g->n && !e; i++) {
		struct buf b buf_cleanup = {0};
		struct cache_event *ev = &g->ev[i];
		void *obj = ev->obj ? g->objs[at++] : NULL;
		struct cache_entry *left;
		bool send, changed;

		e = post_event(w, ev, obj, &send, &changed, &left);
		if (!e && send)
			e = event_object(w, tmp, ev, changed ? NULL : obj, &b);
		if (!e && send) {
			count(w, b.n);
			e = frame(w, type_name(ev->type), buf_view(&b), &w->out);
		}
		cache_entry_unref(left);
	}
	return e;
}

static struct error *watch_converted(struct watcher *w, struct cache_watch *cw)
{
	struct arena tmp arena_cleanup = {0};
	struct converting *g = arena_new(w->rq->a, struct converting);

	for (;;) {
		struct error *end, *e;

		w->out.n = 0;
		g->n = 0;
		g->n_objs = 0;
		arena_reset(&tmp);
		watch_begun(w, cw);
		end = converting_gather(g, cw);
		e = converting_frames(g, w, &tmp);
		for (int i = 0; i < g->n; i++)
			cache_entry_unref(g->held[i]);
		if (!e && w->out.n)
			e = watch_write(w);
		if (e) {
			error_free(end);
			return e;
		}
		if (end)
			return watch_ended(w, end);
	}
}

/* A watch lasts: it holds on to its resource instead of to all that was there when it began. */
static struct error *watch_held(struct watcher *w, struct cache_watch *cw)
{
	struct crd *crd = w->res->crd;
	struct error *e;

	if (crd)
		crd_hold(crd);
	grace_leave(&w->rq->reading);
	e = crd && custom_asks_webhook(w->res) && !custom_is_storage_version(w->res) ? watch_converted(w, cw) : watch_loop(w, cw);
	grace_enter(w->rq->s->grace, &w->rq->reading);
	if (crd)
		crd_release(crd);
	return e;
}

/* Upstream's defaults of ListOptions and ValidateListOptions of a watch: what is sent before anything has changed. */
static struct error *initial_events(struct request *rq, struct str rv, bool *asked, bool *send)
{
	static const struct str known[] = {STR_INIT("NotOlderThan")};
	const struct field_path *at = FIELD_ROOT("resourceVersionMatch");
	struct str match = query_get(&rq->q, "resourceVersionMatch");
	struct field_errors fe = {.arena = rq->a};
	uint64_t n;
	bool any = !rv.n || (str_to_u64(rv, &n) && !n);

	if (!query_bool(&rq->q, "watch")) {
		/* a watch by its path alone is a list's options to upstream, and as it was before there was a choice */
		*asked = false;
		*send = any;
		return list_validate_options(rq);
	}
	*asked = query_has(&rq->q, "sendInitialEvents");
	*send = query_bool(&rq->q, "sendInitialEvents");
	if (!*asked && !match.n && (!rv.n || str_eqz(rv, "0"))) {
		*asked = *send = true; /* as it was before there was a choice */
		match = known[0];
	}
	if (*asked && !str_eq(match, known[0]))
		field_forbidden(&fe, at, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
	if (match.n && !*asked)
		field_forbidden(&fe, at, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided");
	if (match.n && !str_eq(match, known[0]))
		field_not_supported(&fe, at, match, known, 1);
	if (match.n && query_get(&rq->q, "continue").n)
		field_forbidden(&fe, at, "resourceVersionMatch is forbidden when continue is provided");
	*send |= !*asked && any; /* 00 is a version, and another text */
	return list_options_invalid(&fe);
}

static struct error *watch_options(struct request *rq, struct watcher *w, struct cache_watch_opts *o)
{
	struct str rv = query_get(&rq->q, "resourceVersion");
	int64_t timeout_s = 0, least = rq->s->o.min_request_timeout_s * 1000;
	struct error *e;
	bool asked;

	TRY(list_decode_options(rq));
	query_int(&rq->q, "timeoutSeconds", &timeout_s, &e);
	TRY(initial_events(rq, rv, &asked, &o->initial));
	TRY(request_selectors(rq, &o->filter, &w->post));
	TRY(list_rv_param(rq, &o->mode, &o->rev));
	o->ns = rq->res->st->namespaced ? rq->info.ns : STR_NULL;
	o->group = rq->x->connection;
	o->bookmarks = query_bool(&rq->q, "allowWatchBookmarks");
	o->initial_end = o->initial && o->bookmarks && asked;
	if (asked && !o->initial && o->mode != CACHE_AT_LEAST)
		o->rev = cache_rev(rq->res->st->cache); /* from now on, nothing first */
	o->timeout_ms = timeout_s ? timeout_s * 1000 : least + (int64_t)(random_u64() % (uint64_t)(least + 1));
	return NULL;
}

struct error *rest_watch(struct request *rq)
{
	struct cache_watch_opts o = {0};
	struct cache_watch *cw = NULL;
	struct watcher w = {.rq = rq, .res = rq->res, .counts = metrics_watch(rq)};
	struct error *e, *bad;

	TRY(watch_options(rq, &w, &o));
	if (!list_uncached(rq->res))
		TRY(cache_whole(rq->res->st->cache));
	bad = post_begin(&w, &o);
	if (!bad && list_uncached(rq->res) && !o.initial &&
	    ((o.rev && o.rev < cache_oldest_exact(rq->res->st->cache)) || o.rev == INT64_MAX))
		bad = err_expired("The resourceVersion for the provided watch is too old."); /* etcd's: behind the last
												there is none */
	if (!bad)
		bad = cache_watch_open(rq->res->st->cache, &o, &cw);
	e = respond_table_options(rq);
	if (!e && rq->out.no_stream)
		e = not_streamable(rq->s->o.cbor);
	if (e || error_is(bad, 429, NULL)) {
		cache_watch_close(cw);
		map_free_values(&w.matched, entry_unref);
		if (!e)
			return bad;
		error_free(bad);
		return e;
	}
	respond_headers(rq);
	http_set_header(rq->x, "content-type", rq->out.content_type);
	rq->status = 200;
	e = watch_start(&w);
	if (!e && bad) {
		/* what is wrong with the version (too old, or yet to come) is an event of the stream, as upstream sends it */
		e = write_error_event(&w, bad);
		bad = NULL;
	} else if (!e) {
		audit_started(rq);
		/* replaced meanwhile: ended at once, the next one sees what is current */
		e = rq->res->crd && !crd_current(rq->res) ? watch_end(&w) : watch_held(&w, cw);
	}
	error_free(bad);
	cache_watch_close(cw);
	watch_socket_close(w.socket);
	buf_free(&w.out);
	map_free_values(&w.matched, entry_unref);
	return e;
}
