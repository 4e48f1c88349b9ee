/*
 * ConfigMap kube-system/extension-apiserver-authentication: what API servers behind this one need to know of whom it trusts. As
 * upstream's, it holds what it held (other servers have written that, or this one before its files changed) and what this server trusts
 * now; certificates that have expired go.
 */
#include <openssl/err.h>
#include <openssl/pem.h>

#include "apiserver/background.h"
#include "apiserver/bootstrap.h"
#include "apiserver/config_file.h"
#include "schema/jv.h"

#define NS "kube-system"
#define NAME "extension-apiserver-authentication"
#define GRACE_S (5 * 60) /* a certificate stays that long after its end */
#define RETRY_MS 1000

struct trust_info {
	struct apiserver *s;
	struct waitq changed;
	bool dirty;
};

static bool add_certificates(STACK_OF(X509) * all, struct str pem)
{
	BIO *bio = pem.n ? BIO_new_mem_buf(pem.p, (int)pem.n) : NULL;
	time_t limit = (time_t)(wall_ns() / 1000000000) - GRACE_S;
	bool any = false;

	for (X509 *x; bio && (x = PEM_read_bio_X509(bio, NULL, NULL, NULL)); any = true) {
		bool drop = X509_cmp_time(X509_get0_notAfter(x), &limit) < 0;

		for (int i = 0; i < sk_X509_num(all) && !drop; i++)
			drop = !X509_cmp(sk_X509_value(all, i), x);
		if (drop || !sk_X509_push(all, x))
			X509_free(x);
	}
	BIO_free(bio);
	ERR_clear_error();
	return any;
}

/* Both bundles as one PEM text; empty when nothing is in them that holds still. */
static struct error *combine_bundles(struct arena *a, const char *what, struct str was, struct str now, struct str *out)
{
	STACK_OF(X509) *all = sk_X509_new_null();
	BIO *bio = BIO_new(BIO_s_mem());
	struct error *e = NULL;
	char *p;
	long n;

	if (was.n && !add_certificates(all, was))
		e = error_new("ConfigMap " NS "/" NAME ": no certificates in %s", what);
	add_certificates(all, now);
	for (int i = 0; i < sk_X509_num(all); i++)
		PEM_write_bio_X509(bio, sk_X509_value(all, i));
	n = BIO_get_mem_data(bio, &p);
	*out = arena_str(a, str_of(p, (size_t)n));
	BIO_free(bio);
	sk_X509_pop_free(all, X509_free);
	return e;
}

static void push_once(struct arena *a, struct jv *list, struct str s)
{
	for (uint32_t i = 0; i < list->n; i++)
		if (str_eq(jv_str(&list->items[i]), s))
			return;
	jv_push(a, list, jv_string(s));
}

/* `was` is a JSON list of strings or empty, csv a flag's value; the result is a JSON list, "" for an empty one where that is left out. */
static struct error *combine_lists(struct arena *a, struct str was, const char *csv, bool leave_out, struct str *out)
{
	struct jv list = jv_array(), old = jv_array();
	struct buf b buf_cleanup = {0};

	if (was.n)
		TRY(jv_parse(a, was, NULL, &old));
	for (uint32_t i = 0; jv_is(&old, JV_ARRAY) && i < old.n; i++)
		push_once(a, &list, jv_str(&old.items[i]));
	for (struct str rest = str_from(csv ? csv : ""); rest.n;) {
		struct str one = str_trim(str_cut(&rest, ','));

		if (one.n)
			push_once(a, &list, one);
	}
	*out = STR_NULL;
	if (leave_out && !list.n)
		return NULL;
	jv_encode(&b, &list);
	*out = arena_str(a, buf_view(&b));
	return NULL;
}

static struct error *file_text(struct arena *a, const char *path, struct str *out)
{
	*out = STR_NULL;
	return path ? config_file_read(a, path, out) : NULL;
}

static struct error *fill(struct apiserver *s, struct arena *a, const struct core_v1_config_map *was, struct core_v1_config_map *c)
{
	const struct {
		const char *key, *csv;
		bool leave_out;
	} lists[] = {
		{"requestheader-allowed-names", s->o.requestheader_allowed_names, false},
		{"requestheader-extra-headers-prefix", s->o.requestheader_extra_prefixes, false},
		{"requestheader-group-headers", s->o.requestheader_group_headers, false},
		{"requestheader-uid-headers", s->o.requestheader_uid_headers, true},
		{"requestheader-username-headers", s->o.requestheader_username_headers, false},
	};
	struct str file, bundle, text;
	struct str had_client = was ? str_map_get(API_MAP(&was->data), STR("client-ca-file")) : STR_NULL;
	struct str had_front = was ? str_map_get(API_MAP(&was->data), STR("requestheader-client-ca-file")) : STR_NULL;

	memset(&c->data, 0, sizeof c->data);
	TRY(file_text(a, s->o.client_ca_file, &file));
	TRY(combine_bundles(a, "client-ca-file", had_client, file, &bundle));
	if (bundle.n)
		str_map_set(a, API_MAP(&c->data), STR("client-ca-file"), bundle);
	TRY(file_text(a, s->o.requestheader_client_ca_file, &file));
	TRY(combine_bundles(a, "requestheader-client-ca-file", had_front, file, &bundle));
	if (!bundle.n)
		return NULL;
	str_map_set(a, API_MAP(&c->data), STR("requestheader-client-ca-file"), bundle);
	for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
		struct str key = str_from(lists[i].key);

		TRY(combine_lists(a, was ? str_map_get(API_MAP(&was->data), key) : STR_NULL, s->o.requestheader_client_ca_file ? lists[i].csv : NULL,
				  lists[i].leave_out, &text));
		if (text.p)
			str_map_set(a, API_MAP(&c->data), key, text);
	}
	return NULL;
}

static struct error *make(void *ctx, struct request *rq, const void *old, void **out)
{
	struct core_v1_config_map *c = arena_new(rq->a, struct core_v1_config_map);

	object_copy(rq->a, &core_v1_config_map_type, old, c);
	TRY(fill(ctx, rq->a, old, c));
	*out = c;
	return NULL;
}

struct error *trust_info_write(struct apiserver *s)
{
	struct arena a arena_cleanup = {0};
	struct core_v1_config_map *c = arena_new(&a, struct core_v1_config_map), *now;
	struct update u = {.make = make, .ctx = s, .flags = UPDATE_UNCONDITIONAL};
	struct request rq;
	struct write_result r;
	bool existed;

	now = registry_peek(s, &a, storage_find(s, STR(""), STR("configmaps")), STR(NS), STR(NAME));
	c->metadata.name = STR(NAME);
	c->metadata.namespace = STR(NS);
	TRY(fill(s, &a, now, c));
	if (now && object_field_equal(&core_v1_config_map_type, now, c, "data"))
		return NULL;
	TRY(bootstrap_ensure(s, &a, "", "configmaps", STR(NS), c, &existed));
	if (!existed)
		return NULL;
	request_internal(&rq, s, &a, resource_any(s, STR(""), STR("configmaps")), STR(NS));
	rq.nosync = true;
	TRY(registry_update(&rq, STR(NS), STR(NAME), &u, &r));
	cache_entry_unref(r.entry);
	return NULL;
}

/* ---- what changes later ---- */

static void touch(struct trust_info *t)
{
	t->dirty = true;
	waitq_wake_all(&t->changed);
}

static bool file_changed(void *ctx, struct str text)
{
	(void)text;
	touch(ctx);
	return true;
}

static void write_fiber(void *arg)
{
	struct trust_info *t = arg;
	struct error *e = NULL;

	while (!e) {
		while (!e && !t->dirty)
			e = waitq_wait(&t->changed);
		if (e)
			break;
		t->dirty = false;
		e = trust_info_write(t->s);
		if (e && !error_is_sys(e, ECANCELED)) {
			log_and_free(e, "writing ConfigMap " NS "/" NAME);
			t->dirty = true;
			e = fiber_sleep(RETRY_MS);
		}
	}
	error_free(e);
}

/* Whatever others make of it. */
static void watch_fiber(void *arg)
{
	struct trust_info *t = arg;
	struct cache_watch_opts o = {.ns = STR(NS), .initial = true, .mode = CACHE_ANY};
	struct error *e = field_selector_parse(&t->s->arena, STR("metadata.name=" NAME), &o.filter.fields);

	while (!e) {
		struct cache_watch *w = NULL;
		struct cache_event ev;

		e = cache_watch_open(storage_find(t->s, STR(""), STR("configmaps"))->cache, &o, &w);
		while (!e && !(e = cache_watch_next(w, &ev)))
			touch(t);
		cache_watch_close(w);
		if (!error_is_sys(e, ECANCELED)) {
			error_free(e);
			e = fiber_sleep(RETRY_MS);
		}
	}
	error_free(e);
}

void trust_info_start(struct apiserver *s)
{
	struct trust_info *t = arena_new(&s->arena, struct trust_info);

	t->s = s;
	background_start(s, "trust-info", write_fiber, t);
	background_start(s, "trust-info-watch", watch_fiber, t);
	if (s->o.client_ca_file)
		config_file_follow(s->o.client_ca_file, STR_NULL, file_changed, t);
	if (s->o.requestheader_client_ca_file)
		config_file_follow(s->o.requestheader_client_ca_file, STR_NULL, file_changed, t);
}
