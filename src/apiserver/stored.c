#include "apiserver/stored.h"

#include "apiserver/custom.h"
#include "apiserver/encrypt.h"
#include "apiserver/strategy.h"

void stored_free(struct stored *s)
{
	buf_free(&s->bytes);
	buf_free(&s->plain);
}

static struct error *encode(struct request *rq, void *obj, struct stored *s)
{
	struct storage *st = rq->res->st;
	struct str *type_meta;
	struct meta_v1_object_meta *m;
	struct str rv;
	bool unlike = false;

	if (rq->res->crd) {
		void *copy = arena_alloc(rq->a, st->type->size);

		memcpy(copy, obj, st->type->size);
		((struct str *)copy)[0] = rq->res->api->kind;
		((struct str *)copy)[1] = rq->res->api_version;
		obj = copy;
		TRY(custom_to_storage(rq->a, rq->res, &obj, &unlike));
	}
	type_meta = obj;
	m = object_meta(st->type, obj);
	rv = m->resource_version;
	m->resource_version = STR_NULL;
	if (!rq->dry_run) /* which is answered with what was sent */
		m->self_link = STR_NULL;
	type_meta[0] = st->kind;
	type_meta[1] = st->api_version;
	if (unlike) {
		custom_encode_unlike(&s->bytes, st, obj);
	} else {
		type_meta[1] = st->stored_version;
		object_encode(&s->bytes, st->media, st->type, obj);
		type_meta[1] = st->api_version;
	}
	if (st->stored_form) {
		s->plain = s->bytes;
		s->bytes = (struct buf){0};
		st->stored_form(rq->a, obj, &s->bytes);
	}
	m->resource_version = rv;
	if (st->encryption) {
		struct buf open = s->bytes;
		struct error *e;

		s->bytes = (struct buf){0};
		e = encryption_seal(st->encryption, storage_key(rq->a, st, m->namespace, m->name), buf_view(&open), &s->bytes);
		if (st->stored_form)
			buf_free(&open);
		else
			s->plain = open;
		return e;
	}
	return NULL;
}

struct error *stored_encode(struct request *rq, void *obj, struct stored *s)
{
	const struct strategy *sg = rq->res->st->strategy;
	struct error *e;

	stored_free(s);
	if (s->bare)
		sg->unfill(obj);
	e = encode(rq, obj, s);
	if (s->bare)
		sg->shown(rq->a, obj);
	return e;
}

struct error *stored_read(struct request *rq, const struct stored *s, void **obj)
{
	struct storage *st = rq->res->st;
	struct str bytes = arena_str(rq->a, buf_view(s->plain.n ? &s->plain : &s->bytes));
	struct str rv = object_meta(st->type, *obj)->resource_version;
	void *o;

	if (rq->res->crd) {
		TRY(custom_as_stored(rq->a, rq->res, bytes, obj));
		object_meta(st->type, *obj)->resource_version = rv;
		return NULL;
	}
	o = arena_alloc(rq->a, st->type->size);
	TRY(object_decode(rq->a, st->media, st->type, bytes, NULL, o));
	((struct str *)o)[0] = st->kind;
	((struct str *)o)[1] = st->api_version;
	object_meta(st->type, o)->resource_version = rv;
	*obj = o;
	return NULL;
}

static struct error *put(struct request *rq, const struct stored *s, const struct stored_put *p, bool *ok, struct cache_entry **out)
{
	int64_t since = now_ns();
	struct error *e = cache_put(rq->res->st->cache, p->ns, p->name, p->expect, buf_view(&s->bytes), buf_view(&s->plain), p->lease, p->flags,
				    ok, out);

	rq->spent_ns.store += now_ns() - since;
	return e;
}

struct error *stored_put(struct request *rq, void *obj, struct stored *s, struct stored_put p, bool *ok, struct cache_entry **out)
{
	struct meta_v1_object_meta *m = object_meta(rq->res->st->type, obj);
	struct error *e = put(rq, s, &p, ok, out);

	if (error_is(e, 413, NULL) && !p.applied && m->managed_fields.n) {
		error_clear(&e);
		memset(&m->managed_fields, 0, sizeof m->managed_fields);
		e = stored_encode(rq, obj, s);
		if (!e)
			e = put(rq, s, &p, ok, out);
	}
	if (error_is(e, 413, NULL)) {
		error_free(e);
		return error_status(500, "", "etcdserver: request is too large");
	}
	return e;
}
