/* Trees from and to typed objects: the only part of jv that needs the codecs. */
#include <assert.h>

#include "schema/jv.h"

void jv_from_object(struct arena *a, const struct schema_type *t, const void *obj, struct jv *out)
{
	buf_cleanup struct buf b = {0};

	json_encode(&b, t, obj);
	/* The tree points into the text, so that goes into the arena. */
	struct error *e = jv_parse(a, arena_str(a, buf_view(&b)), NULL, out);

	assert(!e); /* our own encoder's text */
	error_free(e);
}

struct error *jv_to_object(struct arena *a, const struct schema_type *t, const struct jv *v, struct decode_report *report,
			   void *out)
{
	buf_cleanup struct buf b = {0};

	jv_encode_sorted(&b, v); /* members that stay raw JSON are maps to upstream */
	return json_decode(a, t, arena_str(a, buf_view(&b)), report, out);
}
