/*
 * schema/openapi.h: OpenAPI v3 (one document a group-version) and v2 documents
 * made from the tables, as JSON; and both as gnostic's protobuf. Custom resources
 * take part through struct openapi_crd. Documents are made on demand; the
 * caller keeps and hashes them.
 */
#ifndef SKIFF_SCHEMA_OPENAPI_H
#define SKIFF_SCHEMA_OPENAPI_H

#include "schema/jv.h"

struct openapi_crd { /* one served version of a CustomResourceDefinition */
	struct str group, version, plural, singular, kind, list_kind;
	bool namespaced, has_status, has_scale;
	struct str schema; /* JSONSchemaProps as protobuf; p NULL: none that is structural */
	const struct apiextensions_v1_selectable_field *selectable;
	uint32_t n_selectable;
	bool preserve_unknown;      /* spec.preserveUnknownFields */
};

struct openapi_served {                              /* what the documents are of */
	const struct api_resource *const *resources; /* built-in ones, in the order of the tables */
	size_t n_resources;
	const struct openapi_crd *crds;
	size_t n_crds;
};

/* /openapi/v3/api/v1, /openapi/v3/apis/GROUP/VERSION; false when the group-version has no built-in resource and no CRD. */
bool openapi_v3(struct buf *b, struct str group, struct str version, const struct openapi_served *s);
/* /openapi/v3/{api,apis,apis/GROUP,version}: discovery documents ("api", "apis", "apis/apps", "version"); false: unknown. */
bool openapi_v3_discovery(struct buf *b, struct str path, const struct openapi_served *s);
/* /openapi/v2: everything in one document. */
void openapi_v2(struct buf *b, const struct openapi_served *s);
/* The same as application/com.github.proto-openapi.spec.v2@v1.0+protobuf, from its JSON. */
struct error *openapi_v2_to_proto(struct str json, struct buf *b);
/* One document of v3 as application/com.github.proto-openapi.spec.v3.v1.0+protobuf, from its JSON. */
struct error *openapi_v3_to_proto(struct str json, struct buf *b);

#endif
