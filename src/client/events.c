#include "client/events.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/map.h"
#include "client/internal.h"

#define QUEUE_MAX 1000
#define CACHE_MAX 4096               /* keys remembered; then everything is forgotten and learnt anew */
#define SIMILAR_MAX 10               /* different messages of a group in SIMILAR_MS before they are combined */
#define SIMILAR_MS (600 * 1000)
#define SPAM_BURST 25
#define SPAM_REFILL_MS (300 * 1000)  /* one event an object and source after the burst */
#define MESSAGE_MAX 1024             /* bytes, the API's limit */
#define COMBINED "(combined from similar events): "

struct pending {
	struct pending *next;
	struct arena a;
	struct core_v1_object_reference ref;
	struct str type, reason, message;
	int64_t at; /* s since 1970 */
};

struct seen { /* an event that may come again */
	char *ns, *name;
	int32_t count;
	int64_t first;
};
struct group { /* events that differ in their message only */
	uint64_t messages[SIMILAR_MAX];
	int n;
	int64_t last_ms;
};
struct bucket {
	double tokens;
	int64_t last_ms;
};

struct event_recorder {
	struct client *client;
	char *component, *host;
	struct pending *head, **tail;
	size_t queued;
	struct waitq q;
	struct fiber *fiber;
	struct map seen, groups, buckets;
	size_t dropped;
};

static struct api_time time_of(int64_t s)
{
	return (struct api_time){.s = s, .set = true};
}

static void seen_free(void *p)
{
	struct seen *s = p;

	free(s->ns);
	free(s->name);
	free(s);
}

static bool spam(struct event_recorder *r, const struct pending *p)
{
	arena_cleanup struct arena a = {0};
	struct str key = arena_printf(&a, "%.*s/%.*s/%.*s/%.*s", STR_ARG(p->ref.kind), STR_ARG(p->ref.namespace),
				      STR_ARG(p->ref.name), STR_ARG(p->ref.uid));
	struct bucket *b = map_get(&r->buckets, key);
	int64_t now = now_ms();

	if (!b) {
		if (r->buckets.n >= CACHE_MAX)
			map_free_values(&r->buckets, free);
		b = xcalloc(1, sizeof(*b));
		b->tokens = SPAM_BURST;
		b->last_ms = now;
		map_set(&r->buckets, key, b);
	}
	b->tokens += (double)(now - b->last_ms) / SPAM_REFILL_MS;
	if (b->tokens > SPAM_BURST)
		b->tokens = SPAM_BURST;
	b->last_ms = now;
	if (b->tokens < 1)
		return true;
	b->tokens -= 1;
	return false;
}

/* The key under which equal events are counted; changes *message when similar ones are combined. */
static struct str correlate(struct event_recorder *r, struct arena *a, const struct pending *p, struct str *message)
{
	struct str key = arena_printf(a, "%.*s|%.*s|%.*s|%.*s|%.*s|%.*s|%.*s|%.*s", STR_ARG(p->ref.kind), STR_ARG(p->ref.namespace),
				      STR_ARG(p->ref.name), STR_ARG(p->ref.uid), STR_ARG(p->ref.api_version),
				      STR_ARG(p->ref.field_path), STR_ARG(p->type), STR_ARG(p->reason));
	struct group *g = map_get(&r->groups, key);
	int64_t now = now_ms();
	uint64_t h = str_hash(p->message);

	if (!g) {
		if (r->groups.n >= CACHE_MAX)
			map_free_values(&r->groups, free);
		g = xcalloc(1, sizeof(*g));
		map_set(&r->groups, key, g);
	} else if (now - g->last_ms > SIMILAR_MS) {
		g->n = 0;
	}
	g->last_ms = now;
	bool known = false;

	for (int i = 0; i < g->n; i++)
		known |= g->messages[i] == h;
	if (!known && g->n < SIMILAR_MAX)
		g->messages[g->n++] = h;
	else if (!known) {
		*message = arena_printf(a, COMBINED "%.*s", STR_ARG(p->message));
		return key; /* without the message */
	}
	*message = p->message;
	return arena_printf(a, "%.*s|%.*s", STR_ARG(key), STR_ARG(p->message));
}

static struct error *count_again(struct event_recorder *r, struct arena *a, const struct seen *s, const struct pending *p,
				 struct str message)
{
	struct buf buf_cleanup b = {0};

	buf_printf(&b, "{\"count\":%d,\"lastTimestamp\":\"%.*s\",\"message\":", s->count + 1,
		   STR_ARG(time_format(a, time_of(p->at), false)));
	jv_encode_string(&b, message);
	buf_putc(&b, '}');
	return client_patch(r->client, a, &core_v1_events_resource, str_from(s->ns), str_from(s->name), NULL, PATCH_STRATEGIC,
			    buf_view(&b), NULL, false, NULL);
}

static struct error *send_event(struct event_recorder *r, const struct pending *p)
{
	arena_cleanup struct arena a = {0};
	struct str message, key;

	if (spam(r, p))
		return NULL;
	key = correlate(r, &a, p, &message);
	if (message.n > MESSAGE_MAX)
		message.n = MESSAGE_MAX;
	struct seen *s = map_get(&r->seen, key);

	if (s) {
		struct error *e = count_again(r, &a, s, p, message);

		if (!e) {
			s->count++;
			return NULL;
		}
		if (!error_is(e, 404, NULL))
			return e;
		error_free(e); /* expired meanwhile: a new one */
		map_del(&r->seen, key);
		seen_free(s);
	}
	struct core_v1_event ev = {
		.involved_object = p->ref,
		.reason = p->reason,
		.message = message,
		.source = {.component = str_from(r->component), .host = str_from(r->host)},
		.first_timestamp = time_of(p->at),
		.last_timestamp = time_of(p->at),
		.count = 1,
		.type = p->type,
		.reporting_component = str_from(r->component),
		.reporting_instance = str_from(r->host),
	};
	struct str ns = str_empty(p->ref.namespace) ? STR("default") : p->ref.namespace;

	ev.metadata.name = arena_printf(&a, "%.*s.%016llx", STR_ARG(p->ref.name), (unsigned long long)wall_ns());
	ev.metadata.namespace = ns;
	TRY(client_create(r->client, &a, &core_v1_events_resource, ns, &ev, NULL));
	if (r->seen.n >= CACHE_MAX)
		map_free_values(&r->seen, seen_free);
	s = xcalloc(1, sizeof(*s));
	s->ns = str_dupz(ns);
	s->name = str_dupz(ev.metadata.name);
	s->count = 1;
	s->first = p->at;
	map_set(&r->seen, key, s);
	return NULL;
}

static void pending_free(struct pending *p)
{
	arena_free(&p->a);
	free(p);
}

static void run(void *arg)
{
	struct event_recorder *r = arg;

	while (!fiber_cancelled()) {
		struct pending *p = r->head;

		if (!p) {
			struct error *e = waitq_wait(&r->q);

			error_free(e);
			continue;
		}
		r->head = p->next;
		if (!r->head)
			r->tail = &r->head;
		r->queued--;
		struct error *e = NULL;

		for (int tries = 0; tries < 12; tries++) {
			error_clear(&e);
			e = send_event(r, p);
			/* The server said no (a namespace that goes, say): not worth another try. */
			if (!e || (e->status >= 400 && e->status < 500 && e->status != 429) || fiber_cancelled())
				break;
			struct error *w = fiber_sleep(500 << (tries > 4 ? 4 : tries));

			if (w) {
				error_free(w);
				break;
			}
		}
		if (e)
			log_v(1, "event %.*s of %.*s %.*s/%.*s is lost: %s", STR_ARG(p->reason), STR_ARG(p->ref.kind),
			      STR_ARG(p->ref.namespace), STR_ARG(p->ref.name), error_message(e));
		error_free(e);
		pending_free(p);
	}
}

struct event_recorder *event_recorder_new(struct client *c, const char *component, const char *host)
{
	struct event_recorder *r = xcalloc(1, sizeof(*r));

	r->client = c;
	r->component = xstrdup(component);
	r->host = xstrdup(host ? host : "");
	r->tail = &r->head;
	r->fiber = fiber_start("events", run, r);
	return r;
}

void event_recorder_free(struct event_recorder *r)
{
	if (!r)
		return;
	fiber_stop(r->fiber);
	while (r->head) {
		struct pending *p = r->head;

		r->head = p->next;
		pending_free(p);
	}
	map_free_values(&r->seen, seen_free);
	map_free_values(&r->groups, free);
	map_free_values(&r->buckets, free);
	free(r->component);
	free(r->host);
	free(r);
}

void event_record(struct event_recorder *r, const struct core_v1_object_reference *ref, const char *type, const char *reason,
		  const char *fmt, ...)
{
	if (!r)
		return;
	if (r->queued == QUEUE_MAX) {
		if (!r->dropped++)
			log_warn("more than %d events wait to be sent: dropping", QUEUE_MAX);
		return;
	}
	r->dropped = 0;
	struct pending *p = xcalloc(1, sizeof(*p));
	va_list ap;

	p->ref = (struct core_v1_object_reference){
		.kind = arena_str(&p->a, ref->kind),
		.namespace = arena_str(&p->a, ref->namespace),
		.name = arena_str(&p->a, ref->name),
		.uid = arena_str(&p->a, ref->uid),
		.api_version = arena_str(&p->a, ref->api_version),
		.resource_version = arena_str(&p->a, ref->resource_version),
		.field_path = arena_str(&p->a, ref->field_path),
	};
	p->type = arena_str(&p->a, str_from(type));
	p->reason = arena_str(&p->a, str_from(reason));
	va_start(ap, fmt);
	p->message = arena_vprintf(&p->a, fmt, ap);
	va_end(ap);
	p->at = wall_ns() / 1000000000;
	log_v(2, "event %s %s for %.*s %.*s/%.*s: %.*s", type, reason, STR_ARG(ref->kind), STR_ARG(ref->namespace),
	      STR_ARG(ref->name), STR_ARG(p->message));
	*r->tail = p;
	r->tail = &p->next;
	r->queued++;
	waitq_wake_one(&r->q);
}

struct core_v1_object_reference object_reference(const struct api_resource *r, const void *obj)
{
	const struct meta_v1_object_meta *m = object_meta(r->type, (void *)(uintptr_t)obj);
	static char versions[16][64]; /* "group/version" of the few groups events are about, made once */
	struct core_v1_object_reference ref = {
		.kind = r->kind, .namespace = m->namespace, .name = m->name, .uid = m->uid,
		.resource_version = m->resource_version, .api_version = r->version,
	};

	if (str_empty(r->group))
		return ref;
	for (int i = 0; i < 16; i++) {
		struct str s = str_from(versions[i]);

		if (!s.n) {
			snprintf(versions[i], sizeof(versions[i]), "%.*s/%.*s", STR_ARG(r->group), STR_ARG(r->version));
			s = str_from(versions[i]);
		}
		if (s.n == r->group.n + 1 + r->version.n && str_has_prefix(s, r->group) && str_has_suffix(s, r->version)) {
			ref.api_version = s;
			return ref;
		}
	}
	const struct str *meta = obj;

	ref.api_version = meta[1]; /* every top object begins with kind, apiVersion */
	return ref;
}
