#include "apiserver/flow_work.h"

#include "schema/selector.h"

/* Upstream's numbers, with its feature SizeBasedListCostEstimate. */
#define BYTES_A_SEAT 100000
#define CACHED_BYTES_MAX 1000000 /* what is read from the cache is sent piece by piece */
#define OBJECT_BYTES_MAX 1500000 /* where no size is known */
#define LIST_SEATS_MAX 100
#define WRITE_SEATS_MAX 10
#define WATCHES_A_SEAT 10
#define EVENT_NS 5000000 /* that a seat is taken for the watches of one event */

static int64_t least(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

int list_seats(const struct list_work *w, int most)
{
	int64_t size = w->objects ? w->bytes / w->objects : 0, n = w->limit > 0 ? least(w->limit, w->objects) : w->objects, seats;

	if (size <= 0 && w->objects)
		size = OBJECT_BYTES_MAX;
	if (most <= 0 || most > LIST_SEATS_MAX)
		most = LIST_SEATS_MAX;
	if (w->one)
		n = 1;
	else if (!w->cached && w->selects && n < w->objects / 2)
		n = w->objects / 2;
	size *= n;
	if (w->cached)
		size = least(size, CACHED_BYTES_MAX);
	seats = (size + BYTES_A_SEAT - 1) / BYTES_A_SEAT;
	return seats < 1 ? 1 : (int)least(seats, most);
}

void write_seats(int64_t watches, int most, struct fair_request *out)
{
	int64_t seats = (watches + WATCHES_A_SEAT - 1) / WATCHES_A_SEAT;

	if (most <= 0 || most > WRITE_SEATS_MAX)
		most = WRITE_SEATS_MAX;
	*out = (struct fair_request){.initial = 1};
	if (watches < WATCHES_A_SEAT)
		return;
	out->final = (int)least(seats, most);
	out->linger_ns = seats * EVENT_NS / out->final; /* as much work with fewer seats takes longer */
}

/* Whether upstream would ask etcd for a list. */
static bool from_store(const struct query *q, int64_t limit)
{
	struct str match = query_get(q, "resourceVersionMatch"), rv = query_get(q, "resourceVersion");

	if (match.n)
		return !str_eqz(match, "NotOlderThan");
	return query_get(q, "continue").n || (limit > 0 && rv.n && !str_eqz(rv, "0"));
}

static int seats_of_list(const struct request *rq, int most)
{
	const struct query *q = &rq->q;
	const struct request_info *i = &rq->info;
	const struct resource *r = resource_find(rq->s, i->group, i->version, i->resource);
	bool watch = str_eqz(i->verb, "watch");
	struct list_work w = {.one = i->name.n > 0, .selects = query_get(q, "fieldSelector").n || query_get(q, "labelSelector").n};
	struct str rv = query_get(q, "resourceVersion");
	int64_t timeout;
	struct error *e;

	query_int(q, "limit", &w.limit, &e);
	if (!e)
		query_int(q, "timeoutSeconds", &timeout, &e);
	if (e) { /* it will be refused */
		error_free(e);
		return most > 0 ? (int)least(most, LIST_SEATS_MAX) : LIST_SEATS_MAX;
	}
	if (watch && !query_bool(q, "sendInitialEvents") && rv.n && !str_eqz(rv, "0"))
		return 1;
	if (!r || !r->st || !r->st->cache) /* another server's */
		return 1;
	w.objects = (int64_t)cache_count(r->st->cache);
	w.bytes = (int64_t)cache_bytes(r->st->cache);
	w.cached = watch || !from_store(q, w.limit);
	return list_seats(&w, most);
}

void request_seats(const struct request *rq, int most, struct fair_request *out, int64_t *watches)
{
	const struct request_info *i = &rq->info;
	struct str v = i->verb;

	*watches = -1;
	*out = (struct fair_request){.initial = 1};
	if (str_eqz(v, "list") || str_eqz(v, "watch")) {
		out->initial = seats_of_list(rq, most);
	} else if ((str_eqz(v, "create") || str_eqz(v, "update") || str_eqz(v, "patch") || str_eqz(v, "delete")) &&
		   !(str_eqz(i->resource, "serviceaccounts") && str_eqz(i->subresource, "token"))) { /* which nobody is told of */
		*watches = watches_of(i);
		write_seats(*watches, most, out);
	}
}

/* ---- watches ---- */

static struct map watching; /* key -> how many */

static struct str key_of(struct buf *b, const struct request_info *i, struct str ns, struct str name)
{
	const struct str parts[] = {i->group, i->resource, ns, name};

	b->n = 0;
	for (size_t k = 0; k < sizeof parts / sizeof *parts; k++) {
		buf_str(b, parts[k]);
		buf_putc(b, '\0');
	}
	return buf_view(b);
}

/* A watch of the pods of one node is told of these only, and counts as none. */
static bool of_one_node(const struct request *rq)
{
	const struct selector *s;
	struct str key, value;
	struct error *e;
	bool negated, node = false;

	if (!str_eqz(rq->info.resource, "pods"))
		return false;
	e = field_selector_parse(rq->a, query_get(&rq->q, "fieldSelector"), &s);
	if (e) {
		error_free(e);
		return false;
	}
	for (size_t k = 0; !node && field_selector_get(s, k, &key, &value, &negated); k++)
		node = str_eqz(key, "spec.nodeName") && !negated && value.n;
	return node;
}

void watches_count(const struct request *rq, int n)
{
	struct buf b buf_cleanup = {0};
	struct str key = key_of(&b, &rq->info, rq->info.ns, rq->info.name);
	intptr_t now;

	if (of_one_node(rq))
		return;
	now = (intptr_t)map_get(&watching, key) + n;
	if (now)
		map_set(&watching, key, (void *)now);
	else
		map_del(&watching, key);
}

int64_t watches_of(const struct request_info *i)
{
	struct buf b buf_cleanup = {0};
	intptr_t n;

	if (!watching.n)
		return 0;
	n = (intptr_t)map_get(&watching, key_of(&b, i, STR_NULL, STR_NULL));
	if (i->ns.n)
		n += (intptr_t)map_get(&watching, key_of(&b, i, i->ns, STR_NULL));
	if (i->name.n)
		n += (intptr_t)map_get(&watching, key_of(&b, i, i->ns, i->name));
	return n;
}
