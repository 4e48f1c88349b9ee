/*
 * schema/selector.h: label and field selectors (KEP-less; API concepts "Labels and Selectors").
 */
#ifndef SKIFF_SCHEMA_SELECTOR_H
#define SKIFF_SCHEMA_SELECTOR_H

#include "base/error.h"
#include "schema/api.h"

struct selector; /* immutable, in an arena; NULL selects everything */

/* "a=b,c in (d,e),!f"; "" gives NULL (everything). 400 with upstream's message. */
struct error *label_selector_parse(struct arena *a, struct str text, const struct selector **out);
/* From metav1.LabelSelector: NULL pointer selects nothing, an empty one everything. */
struct error *label_selector_from(struct arena *a, const struct meta_v1_label_selector *s, const struct selector **out);
/* From a plain map (Service.spec.selector): all pairs must match. */
const struct selector *label_selector_from_map(struct arena *a, const struct str_map *m);
bool selector_matches(const struct selector *s, const struct str_map *labels);
/* A selector that matches nothing / tells so. */
bool selector_is_nothing(const struct selector *s);
/* Its requirements as metav1 has them (Gt and Lt, which it has not, are left out): In, NotIn, Exists, DoesNotExist; none for NULL. */
struct label_requirements {
	struct meta_v1_label_selector_requirement *v;
	uint32_t n, cap;
};
void label_selector_requirements(struct arena *a, const struct selector *s, struct label_requirements *out);
/* Canonical text, sorted by key. */
struct str selector_format(struct arena *a, const struct selector *s);

/* Field selectors: "metadata.name=x,status.phase!=Running": same engine over (field path, value) pairs. */
struct error *field_selector_parse(struct arena *a, struct str text, const struct selector **out);
/* The same with the keys in pairs[][0] called pairs[][1]; a key that is in no pair is a 400. */
struct error *field_selector_rename(struct arena *a, const struct selector *s, const struct str (*pairs)[2], size_t n,
				    const struct selector **out);
/* Requirement i: key, value, negated; false behind the last. */
bool field_selector_get(const struct selector *s, size_t i, struct str *key, struct str *value, bool *negated);

#endif
