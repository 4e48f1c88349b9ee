/* JSON patch (RFC 6902) and JSON merge patch (RFC 7386) on trees. */
#include "schema/patch.h"

#include <assert.h>
#include <stdio.h>

#include "schema/patch_internal.h"

/* All values one patch may copy, as JSON: upstream's JSONPatchMaxCopyBytes. */
#define COPY_MAX ((size_t)3 << 20)
#define PATH_MAX_TOKENS (JV_MAX_DEPTH + 1)

bool patch_type_parse(struct str s, enum patch_type *out)
{
	static const char *const names[] = {
		[PATCH_JSON] = "application/json-patch+json",
		[PATCH_MERGE] = "application/merge-patch+json",
		[PATCH_STRATEGIC] = "application/strategic-merge-patch+json",
		[PATCH_APPLY] = "application/apply-patch+yaml",
		[PATCH_APPLY_CBOR] = "application/apply-patch+cbor",
	};

	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		if (str_eqz(s, names[i])) {
			*out = (enum patch_type)i;
			return true;
		}
	}
	return false;
}

/* What can be parsed but not applied. */
struct error *patch_unprocessable(const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	return error_status(422, "Invalid", "the server rejected our request due to an error in our request: %s", text);
}

struct error *patch_broken(const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	return error_status(500, "", "%s", text);
}

static int depth_of(const struct jv *v)
{
	int deepest = 0;

	if (v->kind == JV_ARRAY) {
		for (uint32_t i = 0; i < v->n; i++) {
			int d = depth_of(&v->items[i]);

			deepest = d > deepest ? d : deepest;
		}
		return deepest + 1;
	}
	if (v->kind == JV_OBJECT) {
		for (uint32_t i = 0; i < v->n; i++) {
			int d = depth_of(&v->members[i].value);

			deepest = d > deepest ? d : deepest;
		}
		return deepest + 1;
	}
	return 0;
}

/* ---- pointers ---- */

struct place {
	struct jv *in;      /* container */
	struct str key;     /* last token, decoded */
	uint32_t tokens;    /* of the whole path */
};

static struct str decode_token(struct arena *a, struct str t)
{
	if (str_index(t, '~') < 0)
		return t;
	char *p = arena_bytes(a, t.n + 1);
	size_t n = 0;

	for (size_t i = 0; i < t.n; i++) {
		if (t.p[i] == '~' && i + 1 < t.n && (t.p[i + 1] == '0' || t.p[i + 1] == '1'))
			p[n++] = t.p[++i] == '0' ? '~' : '/';
		else
			p[n++] = t.p[i];
	}
	return str_of(p, n);
}

/* An array index; negative ones count from the end, as in upstream. `size` is what it must be below. */
static bool array_index(struct str token, uint32_t size, uint32_t *out, bool *number)
{
	int64_t i;

	if (token.n > 1 && token.p[0] == '+')
		token = str_sub(token, 1, token.n);
	*number = str_to_i64(token, &i);
	if (!*number)
		return false;
	if (i < 0)
		i += size;
	if (i < 0 || i >= size)
		return false;
	*out = (uint32_t)i;
	return true;
}

static struct jv *child_of(struct jv *in, struct str key)
{
	uint32_t i;
	bool number;

	if (in->kind == JV_OBJECT)
		return jv_get(in, key);
	return array_index(key, in->n, &i, &number) ? &in->items[i] : NULL;
}

static bool find_place(struct arena *a, struct jv *doc, struct str path, struct place *out)
{
	ptrdiff_t slash = str_index(path, '/');

	if (slash < 0) /* upstream's library does not look at what stands before the first */
		return false;
	struct str rest = str_sub(path, (size_t)slash + 1, path.n);
	struct jv *in = doc;

	out->tokens = 0;
	if (!rest.p)
		rest = STR("");
	for (;;) {
		struct str token = decode_token(a, str_cut(&rest, '/'));

		if (++out->tokens > PATH_MAX_TOKENS)
			return false;
		if (in->kind != JV_OBJECT && in->kind != JV_ARRAY)
			return false;
		if (!rest.p) {
			out->in = in;
			out->key = token;
			return true;
		}
		in = child_of(in, token);
		if (!in)
			return false;
	}
}

static struct error *bad_index(struct str key, bool number)
{
	if (!number)
		return patch_unprocessable("value was not a proper array index: '%.*s'", STR_ARG(key));
	return patch_unprocessable("Unable to access invalid index: %.*s: invalid index referenced", STR_ARG(key));
}

static struct error *place_get(struct place *p, struct jv **out)
{
	uint32_t i;
	bool number;

	if (p->in->kind == JV_OBJECT) {
		*out = jv_get(p->in, p->key);
		return NULL;
	}
	if (!array_index(p->key, p->in->n, &i, &number))
		return bad_index(p->key, number);
	*out = &p->in->items[i];
	return NULL;
}

static struct error *place_add(struct arena *a, struct place *p, struct jv v)
{
	uint32_t i;
	bool number;

	if ((int)p->tokens + depth_of(&v) > JV_MAX_DEPTH)
		return patch_unprocessable("the document would be nested over %d levels", JV_MAX_DEPTH);
	if (p->in->kind == JV_OBJECT) {
		jv_set(a, p->in, p->key, v);
		return NULL;
	}
	if (str_eqz(p->key, "-")) {
		jv_push(a, p->in, v);
		return NULL;
	}
	if (!array_index(p->key, p->in->n + 1, &i, &number))
		return bad_index(p->key, number);
	jv_insert(a, p->in, i, v);
	return NULL;
}

static struct error *place_remove(struct place *p, struct str path)
{
	uint32_t i;
	bool number;

	if (p->in->kind == JV_OBJECT) {
		if (!jv_del(p->in, p->key))
			return patch_unprocessable("error in remove for path: '%.*s': Unable to remove nonexistent key: "
						   "%.*s: missing value", STR_ARG(path), STR_ARG(p->key));
		return NULL;
	}
	if (!array_index(p->key, p->in->n, &i, &number))
		return bad_index(p->key, number);
	jv_remove(p->in, i);
	return NULL;
}

/* ---- operations ---- */

struct operation {
	struct str op, path, from;
	bool has_path, has_from;
	struct jv value; /* null when absent */
};

static struct error *missing(const char *op, const char *what, struct str path)
{
	return patch_unprocessable("%s operation does not apply: doc is missing %s: %.*s: missing value", op, what,
				   STR_ARG(path));
}

static bool present(const struct jv *v)
{
	return v && v->kind != JV_NULL;
}

/* As jv_equal, but 1 is not 1.0: upstream compares how scalars are written. */
static bool same(const struct jv *x, const struct jv *y)
{
	if (x->kind != y->kind || (x->kind >= JV_ARRAY && x->n != y->n))
		return false;
	for (uint32_t i = 0; x->kind == JV_ARRAY && i < x->n; i++)
		if (!same(&x->items[i], &y->items[i]))
			return false;
	for (uint32_t i = 0; x->kind == JV_OBJECT && i < x->n; i++) {
		const struct jv *other = jv_get(y, x->members[i].key);

		if (!other || !same(&x->members[i].value, other))
			return false;
	}
	return x->kind >= JV_ARRAY || jv_equal(x, y);
}

static struct error *run_test(struct arena *a, struct jv *doc, const struct operation *o)
{
	struct place p;
	struct jv *v = doc;

	if (o->path.n) {
		if (!find_place(a, doc, o->path, &p))
			return missing("test", "path", o->path);
		TRY(place_get(&p, &v));
	}
	if (!present(v) ? !present(&o->value) : same(v, &o->value))
		return NULL;
	return patch_unprocessable("testing value %.*s failed: test failed", STR_ARG(o->path));
}

static struct error *run_replace(struct arena *a, struct jv *doc, const struct operation *o)
{
	struct place p;
	struct jv *v;

	if (!o->path.n) {
		if (o->value.kind != JV_OBJECT && o->value.kind != JV_ARRAY)
			return patch_unprocessable("replace operation value must be object or array");
		*doc = o->value;
		return NULL;
	}
	if (!find_place(a, doc, o->path, &p))
		return missing("replace", "path", o->path);
	struct error *e = place_get(&p, &v);

	if (e) {
		error_free(e);
		return missing("replace", "key", o->path);
	}
	/* a member that is not there is added: upstream's library asks only whether its parent is */
	if (!present(v))
		return place_add(a, &p, o->value);
	if ((int)p.tokens + depth_of(&o->value) > JV_MAX_DEPTH)
		return patch_unprocessable("the document would be nested over %d levels", JV_MAX_DEPTH);
	*v = o->value;
	return NULL;
}

static struct error *run_move(struct arena *a, struct jv *doc, const struct operation *o)
{
	struct place p;
	struct jv *v;

	if (!find_place(a, doc, o->from, &p))
		return missing("move", "from path", o->from);
	TRY(place_get(&p, &v));
	struct jv moved = v ? *v : JV_NULL_VALUE;

	TRY(place_remove(&p, o->from));
	if (!find_place(a, doc, o->path, &p))
		return missing("move", "destination path", o->path);
	return place_add(a, &p, moved);
}

static struct error *run_copy(struct arena *a, struct jv *doc, const struct operation *o, size_t *copied)
{
	struct place p;
	struct jv *v;

	if (!find_place(a, doc, o->from, &p))
		return missing("copy", "from path", o->from);
	TRY(place_get(&p, &v));
	buf_cleanup struct buf b = {.limit = COPY_MAX};

	if (v)
		jv_encode(&b, v);
	*copied += b.n;
	if (b.overflow || *copied > COPY_MAX)
		return patch_unprocessable("Unable to complete the copy, the accumulated size increase of copy is over the "
					   "limit %zu", COPY_MAX);
	struct jv copied_value = v ? jv_copy(a, v) : JV_NULL_VALUE;

	if (!find_place(a, doc, o->path, &p))
		return missing("copy", "destination path", o->path);
	return place_add(a, &p, copied_value);
}

static struct error *run(struct arena *a, struct jv *doc, const struct operation *o, size_t *copied)
{
	struct place p;

	if (!o->has_path)
		return patch_unprocessable("%.*s operation failed to decode path: missing value", STR_ARG(o->op));
	if (str_eqz(o->op, "add")) {
		if (!find_place(a, doc, o->path, &p))
			return missing("add", "path", o->path);
		return place_add(a, &p, o->value);
	}
	if (str_eqz(o->op, "remove")) {
		if (!find_place(a, doc, o->path, &p))
			return missing("remove", "path", o->path);
		return place_remove(&p, o->path);
	}
	if (str_eqz(o->op, "replace"))
		return run_replace(a, doc, o);
	if (str_eqz(o->op, "test"))
		return run_test(a, doc, o);
	if (str_eqz(o->op, "move") || str_eqz(o->op, "copy")) {
		if (!o->has_from)
			return patch_unprocessable("%.*s operation failed to decode from: missing value", STR_ARG(o->op));
		return str_eqz(o->op, "move") ? run_move(a, doc, o) : run_copy(a, doc, o, copied);
	}
	return patch_unprocessable("Unexpected kind: %.*s", STR_ARG(o->op));
}

/*
 * Null is as nothing. Without a report what is no string is found only when the operation runs: an unknown one then, or
 * one without path.
 */
static struct error *operation_parse(const struct jv *v, uint32_t i, struct decode_report *report, struct operation *o)
{
	*o = (struct operation){0};
	if (v->kind == JV_NULL)
		return NULL;
	if (v->kind != JV_OBJECT)
		return error_status(400, "BadRequest", "error decoding patch: operation %u is not an object", i);
	for (uint32_t m = 0; m < v->n; m++) {
		struct str key = v->members[m].key;
		const struct jv *value = &v->members[m].value;
		struct str *text = str_eqz(key, "op") ? &o->op : str_eqz(key, "path") ? &o->path
							       : str_eqz(key, "from") ? &o->from : NULL;

		if (str_eqz(key, "value")) {
			o->value = *value;
		} else if (text) {
			if (value->kind == JV_NULL || (value->kind != JV_STRING && !report))
				continue;
			if (value->kind != JV_STRING)
				return error_status(400, "BadRequest", "error decoding patch: \"%.*s\" of operation %u is not a "
						    "string", STR_ARG(key), i);
			*text = jv_str(value);
			o->has_path |= text == &o->path;
			o->has_from |= text == &o->from;
		} else if (report && report->problems.n < 1000) {
			*arena_push(report->arena, &report->problems) =
				arena_printf(report->arena, "json patch unknown field \"[%u].%.*s\"", i, STR_ARG(key));
		}
	}
	return NULL;
}

struct error *json_patch_reporting(struct arena *a, struct jv *doc, struct str text, struct decode_report *report)
{
	struct decode_report duplicates = {.arena = a};
	struct jv ops;
	size_t copied = 0;
	uint32_t seen = 0;

	TRY(jv_parse(a, text, report ? &duplicates : NULL, &ops));
	if (ops.kind == JV_NULL)
		return NULL; /* no operations, to Go's decoder */
	if (ops.kind != JV_ARRAY)
		return error_status(400, "BadRequest", "error decoding patch: a JSON patch is an array of operations");
	if (ops.n > JSON_PATCH_MAX_OPERATIONS)
		return error_status(413, "RequestEntityTooLarge",
				    "Request entity is too large: The allowed maximum operations in a JSON patch is %d, got %u",
				    JSON_PATCH_MAX_OPERATIONS, ops.n);
	struct operation *o = arena_array(a, struct operation, ops.n);

	for (uint32_t i = 0; i < ops.n; i++) {
		struct str of = arena_printf(a, "duplicate field \"[%u].", i);

		for (; seen < duplicates.problems.n && str_has_prefix(duplicates.problems.v[seen], of); seen++)
			*arena_push(report->arena, &report->problems) =
				arena_printf(report->arena, "json patch %.*s", STR_ARG(duplicates.problems.v[seen]));
		TRY(operation_parse(&ops.items[i], i, report, &o[i]));
	}
	for (uint32_t i = 0; i < ops.n; i++)
		TRY(run(a, doc, &o[i], &copied));
	return NULL;
}

struct error *json_patch(struct arena *a, struct jv *doc, struct str text)
{
	return json_patch_reporting(a, doc, text, NULL);
}

/* ---- merge patch ---- */

/* The patch's value where the document has none: without null members. */
static struct jv without_nulls(struct arena *a, const struct jv *v)
{
	struct jv out;

	switch ((enum jv_kind)v->kind) {
	case JV_OBJECT:
		out = jv_object();
		for (uint32_t i = 0; i < v->n; i++)
			if (v->members[i].value.kind != JV_NULL)
				jv_set(a, &out, v->members[i].key, without_nulls(a, &v->members[i].value));
		return out;
	case JV_ARRAY:
		out = jv_array();
		for (uint32_t i = 0; i < v->n; i++)
			jv_push(a, &out, without_nulls(a, &v->items[i]));
		return out;
	default:
		return *v;
	}
}

struct jv json_merge(struct arena *a, const struct jv *doc, const struct jv *patch)
{
	if (!doc || doc->kind != JV_OBJECT)
		return without_nulls(a, patch);
	if (patch->kind != JV_OBJECT)
		return *patch; /* a list in place of an object is taken as it is, with the nulls in it */
	struct jv out = jv_object();

	/* Members keep the document's order, new ones follow. */
	for (uint32_t i = 0; i < doc->n; i++) {
		const struct jv_member *m = &doc->members[i];
		const struct jv *p = jv_get(patch, m->key);

		if (!p)
			jv_set(a, &out, m->key, m->value);
		else if (p->kind != JV_NULL)
			jv_set(a, &out, m->key, json_merge(a, &m->value, p));
	}
	for (uint32_t i = 0; i < patch->n; i++) {
		const struct jv_member *m = &patch->members[i];

		if (m->value.kind != JV_NULL && !jv_get(doc, m->key))
			jv_set(a, &out, m->key, without_nulls(a, &m->value));
	}
	return out;
}

struct error *json_merge_patch(struct arena *a, struct jv *doc, struct str text, struct decode_report *report)
{
	struct jv patch;

	TRY(error_wrap(jv_parse(a, text, report, &patch), "error decoding patch"));
	if (patch.kind == JV_ARRAY && !report) {
		*doc = patch; /* RFC 7396: what is no object takes the place of all; upstream has it so where it does not look for an object */
		return NULL;
	}
	if (patch.kind != JV_OBJECT)
		return error_status(400, "BadRequest", "Invalid JSON Patch");
	*doc = json_merge(a, doc, &patch);
	return NULL;
}
