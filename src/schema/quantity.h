/*
 * schema/quantity.h: resource.Quantity: exact decimal numbers with SI and
 * binary suffixes. In structs a quantity is its canonical text.
 */
#ifndef SKIFF_SCHEMA_QUANTITY_H
#define SKIFF_SCHEMA_QUANTITY_H

#include "base/arena.h"
#include "base/error.h"

/*
 * The text upstream stores: canonical, but as written where ParseQuantity takes it for canonical ("1.500" and
 * "+5" stay). Texts over 1,000 characters, exponents beyond 1,000 and over 34
 * digits are refused (upstream has no limits).
 */
/* Canonical text of any valid quantity ("1000m" -> "1", "1.5Gi" -> "1536Mi"); error with upstream's message otherwise. */
struct error *quantity_canonical(struct arena *a, struct str text, struct str *out);
/* Rounded up to whole units (Quantity.Value()) / thousandths (MilliValue()); saturates at int64. Invalid or empty text gives 0. */
int64_t quantity_value(struct str q);
int64_t quantity_milli(struct str q);
/* Whether upstream finds MilliValue() % 1000 == 0: whole units, and where thousandths overflow int64, as its numbers wrap there. */
bool quantity_whole(struct str q);
/* Rounded up to whole thousandths, in its own format (RoundUp(Milli)); canonical text. */
struct str quantity_round_milli(struct arena *a, struct str q);
/* <0, 0, >0; by value. */
int quantity_cmp(struct str a, struct str b);
/* Sum and difference, in the format of the first; canonical text. */
struct str quantity_add(struct arena *a, struct str x, struct str y);
struct str quantity_sub(struct arena *a, struct str x, struct str y);
/* Canonical text of n units, SI (milli: n thousandths) or binary. */
struct str quantity_from(struct arena *a, int64_t n, bool binary);
struct str quantity_from_milli(struct arena *a, int64_t milli);

#endif
