/* The walk of defaulting: static values from the tables, functions where a value depends on others. */
#include "schema/defaults.h"

#include "schema/quantity.h"

/* Deeper than any table nests objects except CRD schemas, which have no defaults. */
#define DEPTH_MAX 64

static void fill_value(const struct schema_field_info *info, uint8_t kind, void *value)
{
	switch ((enum field_kind)kind) {
	case FIELD_STRING:
		*(struct str *)value = info->fill_str;
		break;
	case FIELD_BOOL:
		*(bool *)value = info->fill_int != 0;
		break;
	case FIELD_INT32:
	case FIELD_UINT32:
		*(int32_t *)value = (int32_t)info->fill_int;
		break;
	case FIELD_INT64:
	case FIELD_UINT64:
		*(int64_t *)value = info->fill_int;
		break;
	case FIELD_INTSTR:
		*(struct int_or_string *)value =
			(struct int_or_string){info->fill == SCHEMA_FILL_STR, (int32_t)info->fill_int, info->fill_str};
		break;
	default:
		break; /* the generator allows no others */
	}
}

static bool is_zero(uint8_t kind, const void *value)
{
	switch ((enum field_kind)kind) {
	case FIELD_STRING:
		return str_empty(*(const struct str *)value);
	case FIELD_BOOL:
		return !*(const bool *)value;
	case FIELD_INT32:
	case FIELD_UINT32:
		return !*(const int32_t *)value;
	case FIELD_INT64:
	case FIELD_UINT64:
		return !*(const int64_t *)value;
	case FIELD_INTSTR: {
		const struct int_or_string *v = value;

		return v->is_str ? str_empty(v->s) : !v->i;
	}
	default:
		return false;
	}
}

static void fill(struct arena *a, const struct schema_field *f, char *at)
{
	if (f->card == CARD_ONE) {
		if (is_zero(f->kind, at))
			fill_value(f->info, f->kind, at);
		return;
	}
	void **p = (void **)(void *)at;

	if (*p)
		return;
	*p = arena_alloc(a, f->elem_size);
	if (f->info->fill != SCHEMA_FILL_EMPTY)
		fill_value(f->info, f->kind, *p);
}

/* Resource amounts are kept in whole thousandths: finer ones are rounded up. */
static bool finer_than_milli(struct str q)
{
	ptrdiff_t e;
	int64_t exponent;

	if (!q.n)
		return false;
	if (q.p[q.n - 1] == 'n' || q.p[q.n - 1] == 'u')
		return true;
	e = str_index(q, 'e');
	if (e < 0)
		e = str_index(q, 'E');
	return e >= 0 && str_to_i64(str_sub(q, (size_t)e + 1, q.n), &exponent) && exponent < -3;
}

static void round_amounts(struct arena *a, struct str_map *m)
{
	for (uint32_t i = 0; i < m->n; i++)
		if (finer_than_milli(m->v[i].value))
			m->v[i].value = quantity_round_milli(a, m->v[i].value);
}

struct any_list {
	char *v;
	uint32_t n, cap;
};

static void walk(struct arena *a, const struct schema_type *t, char *obj, int depth)
{
	if (!t->has_defaults || depth > DEPTH_MAX)
		return;
	for (uint16_t i = 0; i < t->n_fields; i++)
		if (t->fields[i].info->fill)
			fill(a, &t->fields[i], obj + t->fields[i].offset);
	if (t->defaults)
		t->defaults(a, obj);
	for (uint16_t i = 0; i < t->n_fields; i++) {
		const struct schema_field *f = &t->fields[i];
		char *at = obj + f->offset;

		if (f->kind == FIELD_QUANTITY && f->card == CARD_MAP && !t->group.n) /* core's ResourceList */
			round_amounts(a, (struct str_map *)(void *)at);
		if (f->kind != FIELD_MESSAGE || !f->type->has_defaults)
			continue;
		struct any_list *list = (struct any_list *)(void *)at;

		switch ((enum field_card)f->card) {
		case CARD_ONE:
			walk(a, f->type, at, depth + 1);
			break;
		case CARD_PTR:
			if (*(char **)(void *)at)
				walk(a, f->type, *(char **)(void *)at, depth + 1);
			break;
		case CARD_LIST:
		case CARD_MAP:
			for (uint32_t k = 0; k < list->n; k++)
				walk(a, f->type, list->v + (size_t)k * f->elem_size + f->value_offset, depth + 1);
			break;
		}
	}
}

void object_default(struct arena *a, const struct schema_type *t, void *obj)
{
	walk(a, t, obj, 0);
}
