/* Schemas of custom resources as trees: some ten times their bytes, most of them of definitions that nobody writes objects of. */
#include <stdlib.h>
#include "apiserver/crd_internal.h"
#include "base/log.h"

/* Bytes of our own making: what cannot be read is a fault of the program. */
static struct apiextensions_v1_json_schema_props *decode(struct arena *a, struct str bytes)
{
	struct apiextensions_v1_json_schema_props *p = arena_new(a, struct apiextensions_v1_json_schema_props);
	struct error *e = pb_decode(a, &apiextensions_v1_json_schema_props_type, bytes, p);

	if (e) {
		log_error("schema of a custom resource: %s", error_message(e));
		abort();
	}
	return p;
}

static void unlink_tree(struct crds *cs, struct crd_tree *t)
{
	*(t->prev ? &t->prev->next : &cs->newest) = t->next;
	*(t->next ? &t->next->prev : &cs->oldest) = t->prev;
	t->prev = t->next = NULL;
}

static void link_newest(struct crds *cs, struct crd_tree *t)
{
	t->next = cs->newest;
	*(t->next ? &t->next->prev : &cs->oldest) = t;
	cs->newest = t;
}

static void tree_free(void *p)
{
	struct crd_tree *t = p;

	crd_rules_free(t->rules);
	arena_free(&t->arena);
	free(t);
}

struct crd_tree *crd_tree_at(const struct resource *res, int64_t now)
{
	struct crd_version *v = (struct crd_version *)(uintptr_t)res->crd_version;
	struct apiserver *s = res->crd->s;
	struct crds *cs = s->crds;
	struct crd_tree *t = v->tree;

	if (!v->schema->p)
		return NULL;
	if (t) {
		unlink_tree(cs, t);
	} else {
		t = v->tree = xcalloc(1, sizeof *t);
		t->of = v;
		t->schema = decode(&t->arena, *v->schema);
	}
	link_newest(cs, t);
	t->used_ns = now;
	while (cs->oldest->used_ns < now - CRD_TREE_UNUSED_NS) { /* requests that run may still look at it */
		struct crd_tree *old = cs->oldest;

		unlink_tree(cs, old);
		old->of->tree = NULL;
		grace_retire(s->grace, tree_free, old);
	}
	return t;
}

struct crd_tree *crd_tree(const struct resource *res)
{
	return crd_tree_at(res, now_ns());
}

void crd_tree_drop(struct crds *cs, struct crd_version *v)
{
	if (!v->tree)
		return;
	unlink_tree(cs, v->tree);
	tree_free(v->tree);
	v->tree = NULL;
}

const struct apiextensions_v1_json_schema_props *crd_schema(const struct resource *res)
{
	const struct crd_tree *t = crd_tree(res);

	return t ? t->schema : NULL;
}

struct str crd_schema_bytes(const struct resource *res)
{
	return *res->crd_version->schema;
}
