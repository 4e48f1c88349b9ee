/* apiserver/rest_write_internal.h: what writes of objects (rest_write.c) and of scales (rest_scale.c) share. */
#ifndef SKIFF_APISERVER_REST_WRITE_INTERNAL_H
#define SKIFF_APISERVER_REST_WRITE_INTERNAL_H

#include "apiserver/server.h"
#include "schema/patch.h"

enum validation { VALIDATE_WARN, VALIDATE_STRICT, VALIDATE_IGNORE };

struct write_options {
	enum validation validation;
	bool force;
};

struct patch_ctx {
	enum patch_type type;
	struct str body;
	struct write_options o;
	struct jv config;        /* apply */
	struct decode_report duplicates;
	bool parsed, reported;
	bool same; /* the last apply changed nothing but managedFields */
};

/* The body as a struct of type t with kind and apiVersion checked; not defaulted. *untyped: one of these was not in it. */
struct error *typed_body(struct request *rq, const char *options, const struct schema_type *t, struct str kind,
			 struct str api_version, void **out, bool *untyped);
/* 400 when the name or namespace in a body are not the request's. */
struct error *check_body_name(struct request *rq, const struct meta_v1_object_meta *m, bool create);
/* `make` of struct update; ctx: the new object, a struct patch_ctx. */
struct error *make_put(void *ctx, struct request *rq, const void *old, void **out);
struct error *make_patch(void *ctx, struct request *rq, const void *old, void **out);
/* Content-Type, body and options of a patch. */
struct error *patch_body(struct request *rq, enum patch_type *type, struct str *body, struct write_options *o);
/* p->config of the body of an apply, which must be of version `want` and kind `want_kind`. */
struct error *parse_config(struct request *rq, struct patch_ctx *p, struct str want, struct str want_kind);

#endif
