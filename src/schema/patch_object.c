/* Patches of typed objects: tree, patch, decode. */
#include <stdlib.h>

#include "schema/validate.h"
#include "schema/patch_internal.h"

struct error *object_not_of_type(struct arena *a, struct error *cause, struct str value)
{
	struct field_errors fe = {.arena = a};

	field_invalid(&fe, FIELD_ROOT("patch"), str_sub(value, 0, 4096), "%s", error_message(cause));
	error_free(cause);
	return field_errors_status(&fe, STR_NULL, STR_NULL, STR_NULL);
}

/* Two problems with paths: in the order in which the members of maps come. */
static int by_path(const void *x, const void *y)
{
	struct str p = *(const struct str *)x, q = *(const struct str *)y;
	size_t n = p.n < q.n ? p.n : q.n, i = 0, index = 0;

	for (; i < n && p.p[i] == q.p[i]; i++)
		index = p.p[i] == '[' ? i + 1 : p.p[i] >= '0' && p.p[i] <= '9' ? index : 0;
	if (i == n)
		return p.n < q.n ? -1 : p.n > q.n;
	if (index) { /* numbers */
		unsigned long long u = strtoull(p.p + index, NULL, 10), v = strtoull(q.p + index, NULL, 10);

		return u < v ? -1 : u > v;
	}
	bool ends = strchr(".[\"", p.p[i]), other = strchr(".[\"", q.p[i]); /* of two names the one that ends comes first */

	return ends != other ? (ends ? -1 : 1) : (unsigned char)p.p[i] - (unsigned char)q.p[i];
}

struct error *object_patch(struct arena *a, enum patch_type type, const struct schema_type *t, const void *obj,
			   struct str text, struct decode_report *report, void *out)
{
	struct jv doc;

	jv_from_object(a, t, obj, &doc);
	switch (type) {
	case PATCH_JSON:
		TRY(json_patch_reporting(a, &doc, text, report));
		break;
	case PATCH_MERGE:
		TRY(json_merge_patch(a, &doc, text, report));
		break;
	case PATCH_STRATEGIC:
		TRY(strategic_merge_patch(a, t, &doc, text, report));
		break;
	default:
		return error_status(415, "UnsupportedMediaType", "apply patches are not applied by object_patch");
	}
	buf_cleanup struct buf b = {0};

	if (type == PATCH_STRATEGIC)
		jv_encode_sorted(&b, &doc); /* raw JSON within the object comes out of upstream's maps */
	else
		jv_encode_floats(&b, &doc); /* which upstream's documents are decoded with, as they came */
	struct str json = arena_str(a, buf_view(&b));
	uint32_t known = report ? report->problems.n : 0;
	struct error *e = (type == PATCH_STRATEGIC ? json_decode_merged : json_decode)(a, t, json, report, out);

	if (report && type != PATCH_STRATEGIC) {
		report->value = json;
		if (report->problems.n > known)
			qsort(report->problems.v + known, report->problems.n - known, sizeof *report->problems.v, by_path);
	}
	return e ? object_not_of_type(a, e, json) : NULL;
}
