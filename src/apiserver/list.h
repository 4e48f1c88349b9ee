/*
 * apiserver/list.h: what lists, watches and deletions of collections share: options, the selection, the forms of an answer.
 * Never writes to the store; authorization has been asked before.
 */
#ifndef SKIFF_APISERVER_LIST_H
#define SKIFF_APISERVER_LIST_H

#include "apiserver/server.h"
#include "schema/table.h"

/* ---- options (meta/internalversion ListOptions) ---- */

struct list_options { /* strings live in the request's arena */
	enum cache_mode mode;
	int64_t rev, limit;      /* limit 0: none */
	struct str ns;           /* listed in; empty: in all */
	struct str after;        /* key to continue behind, relative to ns */
	bool one;                /* the object of the request's name, and no other */
	bool at_once;            /* the store itself is asked, which does not wait for a version */
	bool has_selector;
	struct cache_filter filter;
	const struct selector *post; /* see custom_selector */
};
/* 400 for what does not parse, then 422 for what does not go together, then 400 for selectors. */
struct error *list_options(struct request *rq, struct list_options *o);
/* 400 when a number or a selector of the query does not parse. */
struct error *list_decode_options(struct request *rq);
/* 422 for options that do not go together in a list: upstream's ValidateListOptions without a watch. */
struct error *list_validate_options(struct request *rq);
/* What was found wrong, as 422 of ListOptions; NULL when nothing was. */
struct error *list_options_invalid(struct field_errors *fe);
/* Upstream keeps no watch cache of it, which shows in pages, continue tokens and in what it says of wrong versions. */
bool list_uncached(const struct resource *res);
/* e, about a version that a read of res asked for, as upstream says it of res. */
struct error *list_version_error(const struct resource *res, struct error *e);
/* resourceVersion of a get, list or watch. */
struct error *list_rv_param(struct request *rq, enum cache_mode *mode, int64_t *rev);

/* ---- the selection ---- */

struct listing {
	struct cache_snap *snap;
	struct { /* borrowed from snap */
		const struct cache_entry **v;
		uint32_t n, cap;
	} found;
	void **made; /* the objects of found, where a webhook has converted them; else NULL */
	struct meta_v1_list_meta meta;
};
/* 410 Expired, 504 Timeout: see cache_snapshot. list_free in any case. */
struct error *list_select(struct request *rq, struct list_options *o, struct listing *l);
void list_free(struct listing *l);
/* The list in the form that was negotiated. */
struct error *list_respond(struct request *rq, const struct listing *l);

/* ---- objects of the cache, for answers ---- */

/* In the request's version, kind and apiVersion set; strings point into the entry. */
struct error *list_decode(struct arena *a, struct resource *res, const struct cache_entry *e, void **out);
/* The same of several at once: a webhook is asked once for all. */
/* The same for table_append. */
struct error *list_decode_printed(struct arena *a, struct resource *res, const struct cache_entry *e, void **out);
struct error *list_decode_all(struct arena *a, struct resource *res, const struct cache_entry *const *v, size_t n, void **out);

/* Entries that a selector selects which the cache cannot answer: looked at in the request's version, some at a time. */
struct post_iter;
struct post_iter *post_iter_new(struct resource *res, const struct selector *post, struct cache_iter *it); /* all borrowed */
struct error *post_next(struct post_iter *p, const struct cache_entry **out); /* *out NULL at the end */
void post_iter_free(struct post_iter *p);
enum table_object include_object(const struct request *rq);
void partial_of(struct request *rq, struct resource *res, void *obj, struct meta_v1_partial_object_metadata *p);

#endif
