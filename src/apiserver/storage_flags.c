#include "apiserver/storage_flags.h"

#include <errno.h>
#include <stdlib.h>

/* ---- servers of their own: GROUP/RESOURCE#URL;URL,... ---- */

static bool servers_parse(struct str servers)
{
	while (servers.p)
		if (!str_cut(&servers, ';').n)
			return false;
	return true;
}

/* False: malformed. */
static bool override_parse(struct str text, struct store_override *o)
{
	struct str servers = text, place = str_cut(&servers, '#');

	o->servers = servers;
	o->plural = place;
	o->group = str_cut(&o->plural, '/');
	return servers.p && str_index(servers, '#') < 0 && o->plural.p && str_index(o->plural, '/') < 0 && servers_parse(servers);
}

static int order(const void *a, const void *b)
{
	return str_cmp(*(const struct str *)a, *(const struct str *)b);
}

/* The same servers in another order are the same store. */
static struct str servers_sorted(struct arena *a, struct str servers)
{
	LIST(struct str) l = {0};
	struct buf b buf_cleanup = {0};

	while (servers.p)
		*arena_push(a, &l) = str_cut(&servers, ';');
	qsort(l.v, l.n, sizeof *l.v, order);
	for (uint32_t i = 0; i < l.n; i++)
		buf_printf(&b, "%s%.*s", i ? "," : "", STR_ARG(l.v[i]));
	return arena_str(a, buf_view(&b));
}

static struct error *store_open_at(struct apiserver *s, const char *servers, struct store **out)
{
	struct store_opts so = {.dir = servers ? NULL : s->o.data_dir, .etcd_servers = servers, .etcd_ca = s->o.etcd_ca,
				.etcd_cert = s->o.etcd_cert, .etcd_key = s->o.etcd_key, .history_ms = s->o.compaction_interval_ms};

	return error_wrap(store_open(&so, out), "opening the store");
}

static struct error *open_override(struct apiserver *s, struct store_override *o)
{
	struct str servers = servers_sorted(&s->arena, o->servers);

	for (size_t i = 0; i < s->n_overrides; i++)
		if (s->overrides[i].store && str_eq(servers, servers_sorted(&s->arena, s->overrides[i].servers))) {
			o->store = s->overrides[i].store;
			return NULL;
		}
	if (s->n_other_stores == STORES_MAX)
		return error_new("--etcd-servers-overrides names more than %d sets of servers", STORES_MAX);
	TRY(store_open_at(s, arena_strz(&s->arena, servers), &o->store));
	s->other_stores[s->n_other_stores++] = o->store;
	return NULL;
}

struct error *stores_open(struct apiserver *s)
{
	struct str rest = str_from(s->o.etcd_overrides ? s->o.etcd_overrides : ""), count = rest;
	size_t n = 0;

	TRY(store_open_at(s, s->o.etcd_servers, &s->store));
	while (count.n) {
		str_cut(&count, ',');
		n++;
	}
	s->overrides = arena_array(&s->arena, struct store_override, n + 1);
	while (rest.n) {
		struct store_override *o = &s->overrides[s->n_overrides];

		override_parse(str_cut(&rest, ','), o); /* looked at by storage_flags_check */
		TRY(open_override(s, o));
		s->n_overrides++;
	}
	return NULL;
}

void stores_close(struct apiserver *s)
{
	for (size_t i = 0; i < s->n_other_stores; i++)
		store_close(s->other_stores[i]);
	store_close(s->store);
}

struct store *store_of(const struct apiserver *s, struct str group, struct str plural)
{
	struct store *whole_group = NULL, *exact = NULL;

	for (size_t i = 0; i < s->n_overrides; i++) {
		const struct store_override *o = &s->overrides[i];

		if (!str_eq(o->group, group))
			continue;
		if (str_eq(o->plural, plural))
			exact = o->store;
		else if (str_eqz(o->plural, "*"))
			whole_group = o->store;
	}
	return exact ? exact : whole_group ? whole_group : s->store;
}

/* ---- the form ---- */

static const struct {
	const char *type;
	enum media_type media;
} forms[] = {
	{"", MEDIA_JSON}, {"application/json", MEDIA_JSON}, {"application/vnd.kubernetes.protobuf", MEDIA_PROTOBUF}, {"application/yaml", MEDIA_YAML},
};

enum media_type storage_media(const struct apiserver *s, struct str group)
{
	/* upstream's servers of these two do not ask the flag; definitions have a form of their own */
	if (str_eqz(group, "apiregistration.k8s.io"))
		return MEDIA_JSON;
	if (str_eqz(group, "apiextensions.k8s.io"))
		return MEDIA_PROTOBUF;
	for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
		if (!strcmp(s->o.storage_media_type, forms[i].type))
			return forms[i].media;
	return MEDIA_PROTOBUF;
}

/* ---- watch caches: RESOURCE[.GROUP]#SIZE,... ---- */

static bool size_parse(struct str text, struct str *resource, struct str *group, int64_t *size)
{
	struct str number = text;

	*group = str_cut(&number, '#');
	*resource = str_cut(group, '.');
	return number.p && str_index(number, '#') < 0 && str_to_i64(number, size);
}

bool storage_cached(const struct options *o, struct str group, struct str plural)
{
	struct str rest = str_from(o->watch_cache_sizes ? o->watch_cache_sizes : "");
	bool cached = o->watch_cache && !str_eqz(plural, "events"); /* of events upstream keeps none */

	while (rest.n) {
		struct str resource, in;
		int64_t size;

		if (size_parse(str_cut(&rest, ','), &resource, &in, &size) && str_eq(resource, plural) && str_eq(in, group) && !size)
			cached = false;
	}
	return cached;
}

struct error *storage_flags_check(const struct options *o)
{
	struct str overrides = str_from(o->etcd_overrides ? o->etcd_overrides : ""), sizes = str_from(o->watch_cache_sizes ? o->watch_cache_sizes : "");
	bool known = false;

	while (overrides.n) {
		struct store_override one;

		if (!override_parse(str_cut(&overrides, ','), &one))
			return error_new("--etcd-servers-overrides invalid, must be of format: group/resource#servers, where servers are URLs, "
					 "semicolon separated");
	}
	while (sizes.n) {
		struct str text = str_cut(&sizes, ','), resource, group;
		int64_t size;

		if (!size_parse(text, &resource, &group, &size))
			return error_new("--watch-cache-sizes: %.*s is not of the form resource[.group]#size", STR_ARG(text));
		if (size < 0)
			return error_new("--watch-cache-sizes: the size in %.*s is negative", STR_ARG(text));
	}
	for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
		known |= !strcmp(o->storage_media_type, forms[i].type);
	if (!known)
		return error_new("--storage-media-type \"%s\" invalid, allowed values: application/json, application/vnd.kubernetes.protobuf, "
				 "application/yaml", o->storage_media_type);
	return NULL;
}
