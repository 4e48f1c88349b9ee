/*
 * apiserver/convert.h: between versions of the few built-in kinds that are
 * served in more than one. From and to are zeroed structs of the named types;
 * what they point to is shared.
 */
#ifndef SKIFF_APISERVER_CONVERT_H
#define SKIFF_APISERVER_CONVERT_H

#include "base/arena.h"

struct apiserver;
struct meta_v1_object_meta;
struct resource;
void convert_events_to_core(struct arena *a, const void *from, void *to);
void convert_core_to_events(struct arena *a, const void *from, void *to);
extern const struct str events_field_names[][2];
extern const size_t events_n_field_names;
/* Without the annotations that only v1 has. */
void hpa_internal_meta(struct arena *a, struct meta_v1_object_meta *m);
void convert_hpa_v1_to_v2(struct arena *a, const void *from, void *to);
void convert_hpa_v2_to_v1(struct arena *a, const void *from, void *to);

/* crd.c */
struct str;
struct resource *crd_resource_any(struct apiserver *s, struct str group, struct str plural);
struct resource *crd_resource_for_kind(struct apiserver *s, struct str group, struct str version, struct str kind);

#endif
