#include "client/informer.h"

#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/map.h"
#include "client/internal.h"

#define MAX_HANDLERS 32
#define PAGE 500                     /* objects a page of the list */
#define EVENT_MAX (64u << 20)        /* bytes of one watch event */
#define BACKOFF_FIRST_MS 200
#define BACKOFF_MAX_MS 30000

struct entry {
	struct cached_object *o;
	uint32_t generation; /* of the list that saw it last */
};

struct owned { /* objects of one controller owner, in no order */
	struct cached_object **v;
	size_t n, cap;
};

struct informer {
	struct client *client;
	struct api_resource resource; /* with the partial type when metadata_only */
	char *ns, *labels, *fields;
	struct entry *v;              /* sorted by namespace, name */
	size_t n, cap;
	struct map owners;            /* uid -> struct owned */
	struct {
		informer_handler *h;
		void *ctx;
	} handlers[MAX_HANDLERS];
	int n_handlers;
	char *resource_version;
	uint32_t generation;
	bool synced;
	struct waitq sync_waiters;
	struct fiber *fiber;
};

/* ---- cached objects ---- */

struct cached_object *cached_ref(struct cached_object *o)
{
	o->refs++;
	return o;
}

void cached_unref(struct cached_object *o)
{
	if (!o || --o->refs)
		return;
	block_unref(o->json);
	free(o);
}

/*
 * Where "managedFields" with its comma lies in the text, given its value: a cache has no use for it and it is
 * often half of an object. An update without it leaves the server's as they are.
 */
static struct str managed_fields_span(struct str text, struct str value)
{
	static const char name[] = "\"managedFields\"";
	const size_t n = sizeof(name) - 1;
	const char *p = value.p, *end = value.p + value.n, *limit = text.p + text.n;

	if (!value.n || p < text.p || end > limit)
		return STR_NULL;
	while (p > text.p && (p[-1] == ' ' || p[-1] == '\n' || p[-1] == ':'))
		p--;
	if ((size_t)(p - text.p) < n + 1 || memcmp(p - n, name, n) != 0)
		return STR_NULL;
	p -= n;
	if (p[-1] == ',')
		p--;
	else if (end < limit && *end == ',')
		end++;
	else if (p[-1] != '{')
		return STR_NULL;
	return str_of(p, (size_t)(end - p));
}

struct index_builder {
	struct str text, cut;   /* the source and what was left out of it */
	struct block *block;
	char *tail;             /* where strings that are not in the text are copied to */
	size_t outside;
};

static bool inside(const struct index_builder *b, struct str s)
{
	return s.p >= b->text.p && s.p + s.n <= b->text.p + b->text.n;
}

static void measure(struct index_builder *b, struct str s)
{
	if (s.n && !inside(b, s))
		b->outside += s.n;
}

/* The string's place in the published block. */
static struct str keep(struct index_builder *b, struct str s)
{
	if (!s.n)
		return STR_NULL;
	if (inside(b, s)) {
		size_t at = (size_t)(s.p - b->text.p);

		if (b->cut.n && s.p >= b->cut.p)
			at -= b->cut.n;
		return str_of(b->block->bytes + at, s.n);
	}
	memcpy(b->tail, s.p, s.n);
	s.p = b->tail;
	b->tail += s.n;
	return s;
}

static struct error *cached_new(struct str text, struct cached_object **out)
{
	arena_cleanup struct arena a = {0};
	struct clientcmd_v1_cached_object co = {0};
	struct clientcmd_v1_cached_meta *m = &co.metadata;

	TRY(json_decode(&a, &clientcmd_v1_cached_object_type, text, NULL, &co));
	if (str_empty(m->name))
		return error_new("an object without a name");
	struct index_builder b = {.text = text, .cut = managed_fields_span(text, m->managed_fields)};
	const struct meta_v1_owner_reference *owner = NULL;

	for (uint32_t i = 0; i < m->owner_references.n; i++)
		if (m->owner_references.v[i].controller && *m->owner_references.v[i].controller)
			owner = &m->owner_references.v[i];
	measure(&b, m->namespace);
	measure(&b, m->name);
	measure(&b, m->uid);
	measure(&b, m->resource_version);
	if (owner) {
		measure(&b, owner->kind);
		measure(&b, owner->name);
		measure(&b, owner->uid);
	}
	for (uint32_t i = 0; i < m->labels.n; i++) {
		measure(&b, m->labels.v[i].key);
		measure(&b, m->labels.v[i].value);
	}
	if (b.cut.n) {
		size_t head = (size_t)(b.cut.p - text.p);

		b.block = block_new(str_of(NULL, text.n - b.cut.n));
		memcpy(b.block->bytes, text.p, head);
		memcpy(b.block->bytes + head, text.p + head + b.cut.n, text.n - head - b.cut.n);
	} else {
		b.block = block_new(text);
	}
	struct cached_object *o = xcalloc(1, sizeof(*o) + m->labels.n * sizeof(struct str_pair) + b.outside);

	o->refs = 1;
	o->json = b.block;
	o->labels.v = m->labels.n ? (struct str_pair *)(void *)(o + 1) : NULL;
	o->labels.n = o->labels.cap = m->labels.n;
	b.tail = (char *)(o + 1) + m->labels.n * sizeof(struct str_pair);
	o->ns = keep(&b, m->namespace);
	o->name = keep(&b, m->name);
	o->uid = keep(&b, m->uid);
	o->resource_version = keep(&b, m->resource_version);
	if (owner) {
		o->controller_kind = keep(&b, owner->kind);
		o->controller_name = keep(&b, owner->name);
		o->controller_uid = keep(&b, owner->uid);
	}
	for (uint32_t i = 0; i < m->labels.n; i++) {
		o->labels.v[i].key = keep(&b, m->labels.v[i].key);
		o->labels.v[i].value = keep(&b, m->labels.v[i].value);
	}
	o->deleting = m->deletion_timestamp != NULL;
	*out = o;
	return NULL;
}

/* ---- the store ---- */

/* First entry not below (ns, name). */
static size_t lower_bound(const struct informer *i, struct str ns, struct str name, bool *equal)
{
	size_t lo = 0, hi = i->n;

	*equal = false;
	/* Lists and bursts come in order: the end is tried first. */
	if (hi) {
		const struct cached_object *last = i->v[hi - 1].o;
		int c = str_cmp(last->ns, ns);

		if (!c)
			c = str_cmp(last->name, name);
		if (c < 0)
			return hi;
	}
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		const struct cached_object *o = i->v[mid].o;
		int c = str_cmp(o->ns, ns);

		if (!c)
			c = str_cmp(o->name, name);
		if (!c) {
			*equal = true;
			return mid;
		}
		if (c < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static void owner_add(struct informer *i, struct cached_object *o)
{
	if (str_empty(o->controller_uid))
		return;
	struct owned *w = map_get(&i->owners, o->controller_uid);

	if (!w) {
		w = xcalloc(1, sizeof(*w));
		map_set(&i->owners, o->controller_uid, w);
	}
	if (w->n == w->cap) {
		w->cap = w->cap ? w->cap * 2 : 2;
		w->v = xrealloc(w->v, w->cap * sizeof(*w->v));
	}
	w->v[w->n++] = o;
}

static void owner_del(struct informer *i, struct cached_object *o)
{
	struct owned *w = str_empty(o->controller_uid) ? NULL : map_get(&i->owners, o->controller_uid);

	if (!w)
		return;
	for (size_t k = 0; k < w->n; k++)
		if (w->v[k] == o) {
			w->v[k] = w->v[--w->n];
			break;
		}
	if (!w->n) {
		map_del(&i->owners, o->controller_uid);
		free(w->v);
		free(w);
	}
}

static void tell(struct informer *i, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	for (int k = 0; k < i->n_handlers; k++)
		i->handlers[k].h(i->handlers[k].ctx, ev, old, new_);
}

/* Takes the reference over. */
static void put(struct informer *i, struct cached_object *o)
{
	bool equal;
	size_t at = lower_bound(i, o->ns, o->name, &equal);

	if (equal) {
		struct cached_object *old = i->v[at].o;

		i->v[at].generation = i->generation;
		if (str_eq(old->resource_version, o->resource_version) && str_eq(old->uid, o->uid)) {
			cached_unref(o); /* a list after a lost connection: nothing new */
			return;
		}
		owner_del(i, old);
		i->v[at].o = o;
		owner_add(i, o);
		if (str_eq(old->uid, o->uid)) {
			tell(i, INFORMER_UPDATED, old, o);
		} else { /* deleted and made again while we did not look */
			tell(i, INFORMER_DELETED, old, NULL);
			tell(i, INFORMER_ADDED, NULL, o);
		}
		cached_unref(old);
		return;
	}
	if (i->n == i->cap) {
		i->cap = i->cap ? i->cap * 2 : 16;
		i->v = xrealloc(i->v, i->cap * sizeof(*i->v));
	}
	memmove(&i->v[at + 1], &i->v[at], (i->n - at) * sizeof(*i->v));
	i->v[at] = (struct entry){o, i->generation};
	i->n++;
	owner_add(i, o);
	tell(i, INFORMER_ADDED, NULL, o);
}

static void del_at(struct informer *i, size_t at, const struct cached_object *last)
{
	struct cached_object *old = i->v[at].o;

	owner_del(i, old);
	memmove(&i->v[at], &i->v[at + 1], (i->n - at - 1) * sizeof(*i->v));
	i->n--;
	tell(i, INFORMER_DELETED, last ? last : old, NULL);
	cached_unref(old);
}

static void set_version(struct informer *i, struct str rv)
{
	if (str_empty(rv))
		return;
	free(i->resource_version);
	i->resource_version = str_dupz(rv);
}

/* ---- list ---- */

static struct str base_query(struct informer *i, struct arena *a, bool watch, struct str more)
{
	struct buf buf_cleanup b = {0};

	buf_str(&b, client_path(a, &i->resource, str_from(i->ns), STR_NULL, NULL));
	if (watch)
		client_query_add(&b, "watch", STR("1"));
	if (i->labels[0])
		client_query_add(&b, "labelSelector", str_from(i->labels));
	if (i->fields[0])
		client_query_add(&b, "fieldSelector", str_from(i->fields));
	if (watch) {
		client_query_add(&b, "allowWatchBookmarks", STR("true"));
		client_query_add(&b, "resourceVersion", str_from(i->resource_version));
		client_query_add(&b, "timeoutSeconds", more);
	} else {
		client_query_add(&b, "limit", arena_printf(a, "%d", PAGE));
		if (!str_empty(more))
			client_query_add(&b, "continue", more);
	}
	return arena_str(a, buf_view(&b));
}

static bool partial_type(const struct informer *i)
{
	return i->resource.type == &meta_v1_partial_object_metadata_type;
}

static struct error *list_all(struct informer *i)
{
	arena_cleanup struct arena a = {0};
	struct str version = STR_NULL, next = STR_NULL;
	char *token = NULL;
	struct error *e = NULL;

	i->generation++;
	do {
		struct str body;
		struct clientcmd_v1_raw_list page = {0};

		e = client_do(i->client, &a, &(struct client_request){
			.method = "GET", .target = base_query(i, &a, false, next),
			.accept = partial_type(i) ? ACCEPT_PARTIAL_LIST : NULL}, &body);
		if (!e)
			e = json_decode(&a, &clientcmd_v1_raw_list_type, body, NULL, &page);
		for (uint32_t k = 0; !e && k < page.items.n; k++) {
			struct cached_object *o;

			e = cached_new(page.items.v[k], &o);
			if (!e)
				put(i, o);
		}
		if (!e) {
			free(token);
			token = str_dupz(page.metadata.continue_);
			next = str_from(token);
			if (str_empty(next))
				version = page.metadata.resource_version;
		}
		if (!e && !str_empty(next))
			arena_reset(&a);
	} while (!e && !str_empty(next));
	if (!e && str_empty(version))
		e = error_new("the list has no resourceVersion");
	if (!e)
		set_version(i, version);
	free(token);
	if (e)
		return e;
	for (size_t k = i->n; k > 0; k--)
		if (i->v[k - 1].generation != i->generation)
			del_at(i, k - 1, NULL);
	return NULL;
}

/* ---- watch ---- */

static struct error *apply_event(struct informer *i, struct str line)
{
	arena_cleanup struct arena a = {0};
	struct clientcmd_v1_raw_event ev = {0};

	TRY(json_decode(&a, &clientcmd_v1_raw_event_type, line, NULL, &ev));
	if (str_eqz(ev.type, "ERROR")) {
		struct meta_v1_status st = {0};

		TRY(json_decode(&a, &meta_v1_status_type, ev.object, NULL, &st));
		return client_status_error(&st, 500);
	}
	if (str_eqz(ev.type, "BOOKMARK")) {
		struct clientcmd_v1_cached_object co = {0};

		TRY(json_decode(&a, &clientcmd_v1_cached_object_type, ev.object, NULL, &co));
		set_version(i, co.metadata.resource_version);
		return NULL;
	}
	struct cached_object *o;

	TRY(cached_new(ev.object, &o));
	set_version(i, o->resource_version);
	if (str_eqz(ev.type, "DELETED")) {
		bool equal;
		size_t at = lower_bound(i, o->ns, o->name, &equal);

		if (equal)
			del_at(i, at, o);
		cached_unref(o);
		return NULL;
	}
	if (!str_eqz(ev.type, "ADDED") && !str_eqz(ev.type, "MODIFIED")) {
		cached_unref(o);
		return error_new("unknown watch event type \"%.*s\"", STR_ARG(ev.type));
	}
	put(i, o);
	return NULL;
}

static struct error *read_events(struct informer *i, struct http_response *r)
{
	struct buf buf_cleanup b = {0};
	size_t scanned = 0;

	for (;;) {
		size_t got;

		buf_reserve(&b, b.n < 16384 ? 16384 : b.n); /* amortised for large events */
		TRY(http_response_read(r, b.p + b.n, b.cap - b.n, &got));
		if (!got)
			return NULL; /* the server's timeout */
		b.n += got;
		size_t start = 0;

		for (;;) {
			const char *nl = memchr(b.p + scanned, '\n', b.n - scanned);

			if (!nl)
				break;
			struct str line = str_of(b.p + start, (size_t)(nl - (b.p + start)));

			if (line.n)
				TRY(apply_event(i, line));
			start = scanned = (size_t)(nl - b.p) + 1;
		}
		memmove(b.p, b.p + start, b.n - start);
		b.n -= start;
		scanned = b.n;
		if (b.n > EVENT_MAX)
			return error_new("a watch event of more than %u bytes", EVENT_MAX);
		if (!b.n && b.cap > (1u << 20))
			buf_free(&b);
	}
}

static struct error *watch_once(struct informer *i)
{
	arena_cleanup struct arena a = {0};
	struct http_response r;
	int64_t seconds = 300 + (int64_t)(random_u64() % 300);
	/* A half-open connection must not keep us blind: the server ends the watch itself before this. */
	int64_t deadline = deadline_push((seconds + 20) * 1000);
	struct error *e = client_stream(i->client, &a, "GET", base_query(i, &a, true, arena_printf(&a, "%lld", (long long)seconds)),
					partial_type(i) ? ACCEPT_PARTIAL : NULL, &r);

	if (!e) {
		e = read_events(i, &r);
		http_response_close(&r);
	}
	deadline_pop(deadline);
	return e;
}

static void run(void *arg)
{
	struct informer *i = arg;
	int64_t backoff = 0;
	bool need_list = true;

	while (!fiber_cancelled()) {
		int64_t began = now_ms();
		struct error *e = NULL;
		const char *what = need_list ? "list" : "watch";

		if (need_list) {
			e = list_all(i);
			if (!e) {
				need_list = false;
				backoff = 0;
				if (!i->synced) {
					i->synced = true;
					waitq_wake_all(&i->sync_waiters);
				}
				continue;
			}
			/* A continue token expired between pages: begin again. */
		} else {
			e = watch_once(i);
			if (error_is(e, 410, NULL) || error_is(e, 504, NULL)) {
				need_list = true;
				log_v(2, "informer of %.*s: %s; listing again", STR_ARG(i->resource.plural), error_message(e));
				error_clear(&e);
			}
			if (now_ms() - began >= 1000)
				backoff = 0;
			if (!e && now_ms() - began >= 1000)
				continue;
		}
		if (fiber_cancelled()) {
			error_free(e);
			break;
		}
		backoff = backoff ? backoff * 2 : BACKOFF_FIRST_MS;
		if (backoff > BACKOFF_MAX_MS)
			backoff = BACKOFF_MAX_MS;
		int64_t ms = backoff / 2 + (int64_t)(random_u64() % (uint64_t)backoff);

		if (e)
			log_v(backoff > BACKOFF_FIRST_MS ? 0 : 2, "informer of %.*s: %s: %s; again in %lld ms",
			      STR_ARG(i->resource.plural), what, error_message(e), (long long)ms);
		error_free(e);
		e = fiber_sleep(ms);
		if (e) {
			error_free(e);
			break;
		}
	}
	waitq_wake_all(&i->sync_waiters);
}

/* ---- the public side ---- */

static char *strz(struct str s)
{
	return str_dupz(s);
}

struct informer *informer_new(struct client *c, const struct informer_opts *o)
{
	struct informer *i = xcalloc(1, sizeof(*i));

	i->client = c;
	i->resource = *o->resource;
	if (o->metadata_only) {
		i->resource.type = &meta_v1_partial_object_metadata_type;
		i->resource.list_type = &meta_v1_partial_object_metadata_list_type;
	}
	i->ns = strz(o->ns);
	i->labels = strz(o->label_selector);
	i->fields = strz(o->field_selector);
	return i;
}

void informer_on_event(struct informer *i, informer_handler *h, void *ctx)
{
	if (i->n_handlers == MAX_HANDLERS) {
		log_error("informer of %.*s: more than %d handlers", STR_ARG(i->resource.plural), MAX_HANDLERS);
		abort();
	}
	i->handlers[i->n_handlers].h = h;
	i->handlers[i->n_handlers++].ctx = ctx;
	for (size_t k = 0; k < i->n; k++)
		h(ctx, INFORMER_ADDED, NULL, i->v[k].o);
}

void informer_start(struct informer *i)
{
	if (!i->fiber)
		i->fiber = fiber_start("informer", run, i);
}

struct error *informer_wait_synced(struct informer *i)
{
	while (!i->synced)
		TRY(waitq_wait(&i->sync_waiters));
	return NULL;
}

bool informer_synced(const struct informer *i)
{
	return i->synced;
}

void informer_stop(struct informer *i)
{
	if (!i)
		return;
	fiber_stop(i->fiber);
	for (size_t k = 0; k < i->n; k++) {
		owner_del(i, i->v[k].o);
		cached_unref(i->v[k].o);
	}
	map_free(&i->owners);
	free(i->v);
	free(i->ns);
	free(i->labels);
	free(i->fields);
	free(i->resource_version);
	free(i);
}

const struct cached_object *informer_peek(struct informer *i, struct str ns, struct str name)
{
	bool equal;
	size_t at = lower_bound(i, ns, name, &equal);

	return equal ? i->v[at].o : NULL;
}

void *cached_decode(struct informer *i, struct arena *a, const struct cached_object *o)
{
	const struct schema_type *t = i->resource.type;
	void *obj = arena_alloc(a, t->size);
	struct error *e = json_decode(a, t, arena_str(a, block_str(o->json)), NULL, obj);

	if (e) {
		log_and_free(e, "%.*s %.*s/%.*s cannot be read", STR_ARG(i->resource.kind), STR_ARG(o->ns), STR_ARG(o->name));
		return NULL;
	}
	if (!partial_type(i)) { /* items of lists carry none */
		struct str *meta = obj;

		if (str_empty(meta[0]))
			meta[0] = i->resource.kind;
		if (str_empty(meta[1]))
			meta[1] = str_empty(i->resource.group) ? i->resource.version :
				  arena_printf(a, "%.*s/%.*s", STR_ARG(i->resource.group), STR_ARG(i->resource.version));
	}
	return obj;
}

void *informer_get(struct informer *i, struct arena *a, struct str ns, struct str name)
{
	const struct cached_object *o = informer_peek(i, ns, name);

	return o ? cached_decode(i, a, o) : NULL;
}

void informer_each(struct informer *i, struct str ns, const struct selector *s,
		   bool (*each)(void *ctx, const struct cached_object *o), void *ctx)
{
	bool equal;
	size_t k = str_empty(ns) ? 0 : lower_bound(i, ns, STR_NULL, &equal);

	for (; k < i->n; k++) {
		const struct cached_object *o = i->v[k].o;

		if (!str_empty(ns) && !str_eq(o->ns, ns))
			break;
		if (s && !selector_matches(s, &o->labels))
			continue;
		if (!each(ctx, o))
			break;
	}
}

void informer_each_owned(struct informer *i, struct str owner_uid,
			 bool (*each)(void *ctx, const struct cached_object *o), void *ctx)
{
	const struct owned *w = map_get(&i->owners, owner_uid);

	for (size_t k = 0; w && k < w->n; k++)
		if (!each(ctx, w->v[k]))
			break;
}

struct collect {
	struct informer *i;
	struct arena *a;
	LIST(void *) list;
};

static bool collect_one(void *ctx, const struct cached_object *o)
{
	struct collect *c = ctx;
	void *obj = cached_decode(c->i, c->a, o);

	if (obj)
		*arena_push(c->a, &c->list) = obj;
	return true;
}

size_t informer_list(struct informer *i, struct arena *a, struct str ns, const struct selector *s, void ***objs)
{
	struct collect c = {.i = i, .a = a};

	informer_each(i, ns, s, collect_one, &c);
	*objs = c.list.v;
	return c.list.n;
}

size_t informer_list_owned(struct informer *i, struct arena *a, struct str owner_uid, void ***objs)
{
	struct collect c = {.i = i, .a = a};

	informer_each_owned(i, owner_uid, collect_one, &c);
	*objs = c.list.v;
	return c.list.n;
}

size_t informer_count(const struct informer *i)
{
	return i->n;
}
