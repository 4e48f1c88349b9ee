/* RBAC over indexes that follow the watch caches of roles and bindings. */
#include "apiserver/authz.h"
#include "apiserver/cache_follow.h"

/*
 * Each of the four resources has a watch that is drained by whoever asks for a
 * decision, so an index is never older than the cache it follows. Decisions are
 * remembered until any of the four changes.
 */

struct role {
	struct arena arena;
	const struct rbac_v1_policy_rule *rules;
	uint32_t n;
};
struct subject_list {
	LIST(struct binding *) list; /* malloc'ed */
};
struct binding {
	struct arena arena;
	struct str name, ns;         /* ns empty: cluster-wide */
	struct str role_key;         /* in roles: "ns/name" or "name" for a ClusterRole */
	struct rbac_v1_role_ref ref;
	struct str *subjects;        /* keys in by_subject */
	struct str *shown;           /* for reasons: `User "x"` */
	uint32_t n;
	uint64_t gathered;           /* the number of the gathering that has seen it: one may hold by several subjects */
};
enum { W_ROLES, W_CLUSTERROLES, W_BINDINGS, W_CLUSTERBINDINGS, W_N };

struct decision {
	bool allow;
	char *reason;
};
struct rbac_follow {
	struct rbac *r;
	int w;
	struct cache_follower follower;
};
struct rbac {
	struct rbac_follow follow[W_N];
	struct map roles;            /* key -> struct role */
	struct map bindings;         /* key -> struct binding */
	struct map by_subject;       /* "u:name\0ns" -> struct subject_list */
	struct map decisions;
	uint64_t epoch, gatherings;
};
#define DECISIONS_MAX 20000

static void decision_free(void *v)
{
	struct decision *d = v;

	free(d->reason);
	free(d);
}

static void role_free(struct role *r)
{
	if (!r)
		return;
	arena_free(&r->arena);
	free(r);
}

static struct str subject_key(struct arena *a, const struct rbac_v1_subject *s, struct str ns)
{
	char c = 0;

	if (str_eqz(s->kind, "ServiceAccount"))
		return arena_printf(a, "u:system:serviceaccount:%.*s:%.*s%c%.*s", STR_ARG(s->namespace), STR_ARG(s->name), c, STR_ARG(ns));
	return arena_printf(a, "%c:%.*s%c%.*s", str_eqz(s->kind, "Group") ? 'g' : 'u', STR_ARG(s->name), c, STR_ARG(ns));
}

static void subject_remove(struct rbac *r, struct str key, struct binding *b)
{
	struct subject_list *l = map_get(&r->by_subject, key);

	if (!l)
		return;
	for (uint32_t i = 0; i < l->list.n; i++)
		if (l->list.v[i] == b) {
			l->list.v[i] = l->list.v[--l->list.n];
			break;
		}
	if (!l->list.n) {
		map_del(&r->by_subject, key);
		free(l->list.v);
		free(l);
	}
}

static void subject_add(struct rbac *r, struct str key, struct binding *b)
{
	struct subject_list *l = map_get(&r->by_subject, key);

	if (!l) {
		l = xcalloc(1, sizeof *l);
		map_set(&r->by_subject, key, l);
	}
	if (l->list.n == l->list.cap) {
		l->list.cap = l->list.cap ? l->list.cap * 2 : 4;
		l->list.v = xrealloc(l->list.v, l->list.cap * sizeof *l->list.v);
	}
	l->list.v[l->list.n++] = b;
}

static void binding_free(struct rbac *r, struct binding *b)
{
	if (!b)
		return;
	for (uint32_t i = 0; i < b->n; i++)
		subject_remove(r, b->subjects[i], b);
	arena_free(&b->arena);
	free(b);
}

/* Index key of an object: bindings and roles of namespaces have a slash, cluster ones none. */
static void apply(void *ctx, struct str key, const struct cache_entry *e)
{
	const struct rbac_follow *f = ctx;
	struct rbac *r = f->r;
	int w = f->w;

	if (w == W_ROLES || w == W_CLUSTERROLES) {
		struct role *n = NULL;

		if (e) {
			struct error *err;

			n = xcalloc(1, sizeof *n);
			if (w == W_ROLES) {
				struct rbac_v1_role *o = arena_new(&n->arena, struct rbac_v1_role);

				err = cache_entry_decode(&n->arena, &rbac_v1_role_type, e, true, o);
				n->rules = o->rules.v;
				n->n = o->rules.n;
			} else {
				struct rbac_v1_cluster_role *o = arena_new(&n->arena, struct rbac_v1_cluster_role);

				err = cache_entry_decode(&n->arena, &rbac_v1_cluster_role_type, e, true, o);
				n->rules = o->rules.v;
				n->n = o->rules.n;
			}
			if (err) {
				log_and_free(err, "role %.*s", STR_ARG(key));
				n->n = 0;
			}
		}
		role_free(n ? map_set(&r->roles, key, n) : map_del(&r->roles, key));
	} else {
		struct binding *b = NULL;

		binding_free(r, map_del(&r->bindings, key));
		if (e) {
			struct rbac_v1_role_binding *o;
			struct error *err;

			b = xcalloc(1, sizeof *b);
			/* RoleBinding and ClusterRoleBinding have the same fields */
			o = arena_new(&b->arena, struct rbac_v1_role_binding);
			err = cache_entry_decode(&b->arena, &rbac_v1_role_binding_type, e, true, o);
			if (err) {
				log_and_free(err, "role binding %.*s", STR_ARG(key));
				arena_free(&b->arena);
				free(b);
				return;
			}
			b->name = o->metadata.name;
			b->ns = w == W_BINDINGS ? o->metadata.namespace : STR_NULL;
			b->ref = o->role_ref;
			b->role_key = str_eqz(o->role_ref.kind, "ClusterRole") ?
					      o->role_ref.name :
					      arena_printf(&b->arena, "%.*s/%.*s", STR_ARG(b->ns), STR_ARG(o->role_ref.name));
			b->n = o->subjects.n;
			b->subjects = arena_array(&b->arena, struct str, b->n);
			b->shown = arena_array(&b->arena, struct str, b->n);
			for (uint32_t i = 0; i < b->n; i++) {
				struct rbac_v1_subject *s = &o->subjects.v[i];

				if (str_eqz(s->kind, "ServiceAccount") && !s->namespace.n)
					s->namespace = b->ns;
				b->subjects[i] = subject_key(&b->arena, s, b->ns);
				b->shown[i] = str_eqz(s->kind, "ServiceAccount") ?
						      arena_printf(&b->arena, "ServiceAccount \"%.*s/%.*s\"", STR_ARG(s->name),
								   STR_ARG(s->namespace)) :
						      arena_printf(&b->arena, "%.*s \"%.*s\"", STR_ARG(s->kind), STR_ARG(s->name));
				subject_add(r, b->subjects[i], b);
			}
			map_set(&r->bindings, key, b);
		}
	}
	r->epoch++;
}

static void sync(struct rbac *r)
{
	uint64_t before = r->epoch;

	for (int w = 0; w < W_N; w++)
		cache_follow(&r->follow[w].follower);
	if (r->epoch != before)
		map_free_values(&r->decisions, decision_free);
}

struct error *rbac_init(struct apiserver *s)
{
	static const char *const plurals[W_N] = {"roles", "clusterroles", "rolebindings", "clusterrolebindings"};
	struct rbac *r = xcalloc(1, sizeof *r);

	for (int w = 0; w < W_N; w++) {
		struct storage *st = storage_find(s, STR("rbac.authorization.k8s.io"), str_from(plurals[w]));

		r->follow[w] = (struct rbac_follow){
			.r = r, .w = w, .follower = {.cache = st->cache, .what = plurals[w], .apply = apply, .ctx = &r->follow[w]}};
	}
	s->rbac = r;
	sync(r);
	return NULL;
}

/* ---- rules ---- */

static bool has(const struct str *v, uint32_t n, struct str want)
{
	for (uint32_t i = 0; i < n; i++)
		if (str_eq(v[i], want))
			return true;
	return false;
}

static bool star_or(const struct str *v, uint32_t n, struct str want)
{
	for (uint32_t i = 0; i < n; i++)
		if (str_eqz(v[i], "*") || str_eq(v[i], want))
			return true;
	return false;
}

static bool resource_matches(const struct rbac_v1_policy_rule *p, struct str resource, struct str sub)
{
	for (uint32_t i = 0; i < p->resources.n; i++) {
		struct str r = p->resources.v[i];

		if (str_eqz(r, "*"))
			return true;
		if (!sub.n) {
			if (str_eq(r, resource))
				return true;
			continue;
		}
		if (r.n == resource.n + 1 + sub.n && !memcmp(r.p, resource.p, resource.n) && r.p[resource.n] == '/' &&
		    !memcmp(r.p + resource.n + 1, sub.p, sub.n))
			return true;
		if (r.n == 2 + sub.n && r.p[0] == '*' && r.p[1] == '/' && !memcmp(r.p + 2, sub.p, sub.n))
			return true;
	}
	return false;
}

static bool url_matches(const struct str *v, uint32_t n, struct str path)
{
	for (uint32_t i = 0; i < n; i++) {
		if (str_eqz(v[i], "*") || str_eq(v[i], path))
			return true;
		if (v[i].n && v[i].p[v[i].n - 1] == '*' && str_has_prefix(path, str_sub(v[i], 0, v[i].n - 1)))
			return true;
	}
	return false;
}

static bool rule_allows(const struct rbac_v1_policy_rule *p, const struct authz_attrs *at)
{
	if (!star_or(p->verbs.v, p->verbs.n, at->verb))
		return false;
	if (!at->resource_request)
		return url_matches(p->non_resource_urls.v, p->non_resource_urls.n, at->path);
	return star_or(p->api_groups.v, p->api_groups.n, at->group) && resource_matches(p, at->resource, at->subresource) &&
	       (!p->resource_names.n || has(p->resource_names.v, p->resource_names.n, at->name));
}

/* Calls fn for each binding that holds for the user in ns (empty: cluster-wide only), until it returns true. */
static bool each_binding(struct rbac *r, const struct user *u, struct str ns, bool (*fn)(void *ctx, struct binding *b, struct str subject),
			 void *ctx)
{
	char key[1024];

	for (int pass = 0; pass < (ns.n ? 2 : 1); pass++) {
		struct str in = pass ? ns : STR_NULL;

		for (size_t g = 0; g <= u->n_groups; g++) {
			struct str name = g ? u->groups[g - 1] : u->name;
			struct subject_list *l;
			size_t n = 0;

			if (name.n + in.n + 3 > sizeof key)
				continue;
			key[n++] = g ? 'g' : 'u';
			key[n++] = ':';
			memcpy(key + n, name.p ? name.p : "", name.n);
			n += name.n;
			key[n++] = 0;
			memcpy(key + n, in.p ? in.p : "", in.n);
			n += in.n;
			l = map_get(&r->by_subject, str_of(key, n));
			for (uint32_t i = 0; l && i < l->list.n; i++)
				if (fn(ctx, l->list.v[i], str_of(key, n)))
					return true;
		}
	}
	return false;
}

/* as: the resource it is told as; n == 0: by its kind */
static void name_role(struct arena *a, const struct binding *b, struct str as, struct authz_untold *out)
{
	struct str what = as.n ? as : str_eqz(b->ref.kind, "ClusterRole") ? STR("clusterrole") : STR("role");
	struct str text = arena_printf(a, "%.*s.rbac.authorization.k8s.io \"%.*s\" not found", STR_ARG(what), STR_ARG(b->ref.name));

	authz_untold_add(a, out, text);
}

struct decide {
	struct rbac *r;
	const struct authz_attrs *at;
	struct arena *a;
	struct str reason;
	struct authz_untold missing; /* roles that are bound and are not there */
};

static bool decide_binding(void *ctx, struct binding *b, struct str subject)
{
	struct decide *d = ctx;
	struct role *role = map_get(&d->r->roles, b->role_key);

	if (!role)
		name_role(d->a, b, STR_NULL, &d->missing);
	for (uint32_t i = 0; role && i < role->n; i++)
		if (rule_allows(&role->rules[i], d->at)) {
			struct str shown = STR_NULL;

			for (uint32_t k = 0; k < b->n; k++)
				if (str_eq(b->subjects[k], subject))
					shown = b->shown[k];
			d->reason = b->ns.n ? arena_printf(d->a, "RBAC: allowed by RoleBinding \"%.*s/%.*s\" of %.*s \"%.*s\" to %.*s",
							   STR_ARG(b->name), STR_ARG(b->ns), STR_ARG(b->ref.kind), STR_ARG(b->ref.name),
							   STR_ARG(shown)) :
					      arena_printf(d->a, "RBAC: allowed by ClusterRoleBinding \"%.*s\" of %.*s \"%.*s\" to %.*s",
							   STR_ARG(b->name), STR_ARG(b->ref.kind), STR_ARG(b->ref.name), STR_ARG(shown));
			return true;
		}
	return false;
}

/* What has the separator in it has no key: paths, and verbs of reviews, are anything, and one question must not look like another. */
static size_t put(char *p, size_t n, size_t cap, struct str s)
{
	if (n + s.n + 1 > cap || (s.n && memchr(s.p, '\1', s.n)))
		return cap + 1;
	memcpy(p + n, s.p ? s.p : "", s.n);
	p[n + s.n] = '\1';
	return n + s.n + 1;
}

enum authz rbac_authorize(struct apiserver *s, struct arena *a, const struct authz_attrs *at, struct str *reason)
{
	struct rbac *r = s->rbac;
	char key[2048];
	size_t n = 0;
	struct decision *known;
	struct decide d = {.r = r, .at = at, .a = a};
	bool allow;

	/* how many groups there are, so that none passes for what stands behind them; more than the key holds have no key */
	const char groups[] = {(char)(2 + at->user->n_groups % 64), (char)(2 + at->user->n_groups / 64 % 64)};

	sync(r);
	n = put(key, n, sizeof key, at->user->name);
	if (n <= sizeof key)
		n = put(key, n, sizeof key, str_of(groups, sizeof groups));
	for (size_t i = 0; i < at->user->n_groups && n <= sizeof key; i++)
		n = put(key, n, sizeof key, at->user->groups[i]);
	if (n <= sizeof key)
		n = put(key, n, sizeof key, at->resource_request ? STR("|") : STR("|/"));
	if (n <= sizeof key)
		n = put(key, n, sizeof key, at->verb);
	if (at->resource_request) {
		const struct str parts[] = {at->ns, at->group, at->resource, at->subresource, at->name};

		for (size_t i = 0; i < 5 && n <= sizeof key; i++)
			n = put(key, n, sizeof key, parts[i]);
	} else if (n <= sizeof key) {
		n = put(key, n, sizeof key, at->path);
	}
	if (n <= sizeof key) {
		known = map_get(&r->decisions, str_of(key, n));
		if (known) {
			if (reason)
				*reason = str_from(known->reason); /* lives until the next change: answered before any wait */
			return known->allow ? AUTHZ_ALLOW : AUTHZ_NO_OPINION;
		}
	}
	allow = each_binding(r, at->user, at->resource_request ? at->ns : STR_NULL, decide_binding, &d);
	if (!allow && d.missing.n)
		d.reason = arena_printf(a, "RBAC: %.*s", STR_ARG(authz_untold_text(a, &d.missing)));
	if (reason)
		*reason = d.reason;
	if (n <= sizeof key) {
		if (r->decisions.n >= DECISIONS_MAX)
			map_free_values(&r->decisions, decision_free);
		known = xcalloc(1, sizeof *known);
		known->allow = allow;
		known->reason = d.reason.n ? str_dupz(d.reason) : NULL;
		map_set(&r->decisions, str_of(key, n), known);
	}
	return allow ? AUTHZ_ALLOW : AUTHZ_NO_OPINION;
}

struct gather {
	struct rbac *r;
	struct arena *a;
	struct rbac_v1_policy_rule_list *out;
	struct str as;               /* see name_role */
	struct authz_untold *missing;
};

static bool gather_binding(void *ctx, struct binding *b, struct str subject)
{
	struct gather *g = ctx;
	struct role *role = map_get(&g->r->roles, b->role_key);

	(void)subject;
	if (b->gathered == g->r->gatherings)
		return false;
	b->gathered = g->r->gatherings;
	if (!role)
		name_role(g->a, b, g->as, g->missing);
	for (uint32_t i = 0; role && i < role->n; i++) {
		struct rbac_v1_policy_rule *p = arena_push(g->a, g->out);

		object_copy(g->a, &rbac_v1_policy_rule_type, &role->rules[i], p);
	}
	return false;
}

static void rules_for(struct rbac *r, struct arena *a, const struct user *u, struct str ns, struct rbac_v1_policy_rule_list *out, struct str as,
		      struct authz_untold *missing)
{
	struct gather g = {.r = r, .a = a, .out = out, .as = as, .missing = missing};

	sync(r);
	r->gatherings++;
	each_binding(r, u, ns, gather_binding, &g);
}

void rbac_rules_for(struct apiserver *s, struct arena *a, const struct user *u, struct str ns, struct rbac_v1_policy_rule_list *out,
		    struct authz_untold *missing)
{
	rules_for(s->rbac, a, u, ns, out, STR_NULL, missing);
}

/* ---- escalation ---- */

static bool covers_each(const struct str *owner, uint32_t n_owner, const struct str *want, uint32_t n_want)
{
	if (star_or(owner, n_owner, STR("*")))
		return true;
	for (uint32_t i = 0; i < n_want; i++)
		if (!has(owner, n_owner, want[i]))
			return false;
	return true;
}

bool rbac_rule_covers(const struct rbac_v1_policy_rule *o, const struct rbac_v1_policy_rule *w)
{
	bool urls = true;

	if (!covers_each(o->verbs.v, o->verbs.n, w->verbs.v, w->verbs.n) ||
	    !covers_each(o->api_groups.v, o->api_groups.n, w->api_groups.v, w->api_groups.n))
		return false;
	for (uint32_t i = 0; i < w->resources.n; i++) {
		struct str r = w->resources.v[i];
		ptrdiff_t slash = str_index(r, '/');
		bool ok = star_or(o->resources.v, o->resources.n, r);

		if (!ok && slash >= 0)
			for (uint32_t k = 0; k < o->resources.n; k++) {
				struct str x = o->resources.v[k];

				ok |= x.n > 2 && x.p[0] == '*' && x.p[1] == '/' &&
				      str_eq(str_sub(x, 2, x.n), str_sub(r, (size_t)slash + 1, r.n));
			}
		if (!ok)
			return false;
	}
	if (o->resource_names.n) {
		if (!w->resource_names.n && w->resources.n)
			return false;
		for (uint32_t i = 0; i < w->resource_names.n; i++)
			if (!has(o->resource_names.v, o->resource_names.n, w->resource_names.v[i]))
				return false;
	}
	for (uint32_t i = 0; i < w->non_resource_urls.n; i++)
		urls &= url_matches(o->non_resource_urls.v, o->non_resource_urls.n, w->non_resource_urls.v[i]);
	return urls;
}

static bool covered(const struct rbac_v1_policy_rule *own, uint32_t n, const struct rbac_v1_policy_rule *one)
{
	for (uint32_t i = 0; i < n; i++)
		if (rbac_rule_covers(&own[i], one))
			return true;
	return false;
}

#define ONE(list, at) {.v = &(list).v[at], .n = 1}

void rbac_uncovered(struct arena *a, const struct rbac_v1_policy_rule *own, uint32_t n_own, const struct rbac_v1_policy_rule *rules, uint32_t n,
		    struct rbac_v1_policy_rule_list *out)
{
	for (uint32_t i = 0; i < n; i++) {
		const struct rbac_v1_policy_rule *r = &rules[i];
		uint32_t names = r->resource_names.n ? r->resource_names.n : 1;

		if (covered(own, n_own, r))
			continue;
		fiber_yield();
		for (uint32_t g = 0; g < r->api_groups.n; g++)
			for (uint32_t k = 0; k < r->resources.n; k++)
				for (uint32_t v = 0; v < r->verbs.n; v++)
					for (uint32_t m = 0; m < names; m++) {
						struct rbac_v1_policy_rule one = {.verbs = ONE(r->verbs, v), .api_groups = ONE(r->api_groups, g),
										  .resources = ONE(r->resources, k)};

						if (r->resource_names.n) {
							one.resource_names.v = &r->resource_names.v[m];
							one.resource_names.n = 1;
						}
						if (!covered(own, n_own, &one))
							*arena_push(a, out) = one;
					}
		for (uint32_t k = 0; k < r->non_resource_urls.n; k++)
			for (uint32_t v = 0; v < r->verbs.n; v++) {
				struct rbac_v1_policy_rule one = {.verbs = ONE(r->verbs, v), .non_resource_urls = ONE(r->non_resource_urls, k)};

				if (!covered(own, n_own, &one))
					*arena_push(a, out) = one;
			}
	}
}

#define MISSING_TOLD 4000 /* bytes of an answer */
#define MISSING_LOOKED_AT 2000 /* of the lacking rights */
#define SINGLES_MAX 100000 /* a body of 3 MB can name 10^10 */

static double singles(const struct rbac_v1_policy_rule *r)
{
	return (double)r->verbs.n * ((double)r->api_groups.n * r->resources.n * (r->resource_names.n ? r->resource_names.n : 1) +
				     r->non_resource_urls.n);
}

static bool same_but_verb(const struct rbac_v1_policy_rule *x, const struct rbac_v1_policy_rule *y)
{
	return x->api_groups.n && y->api_groups.n && str_eq(x->api_groups.v[0], y->api_groups.v[0]) &&
	       str_eq(x->resources.v[0], y->resources.v[0]) && x->resource_names.n == y->resource_names.n &&
	       (!x->resource_names.n || str_eq(x->resource_names.v[0], y->resource_names.v[0]));
}

/* Single rights as upstream tells them: the verbs of one thing together. `told` marks those that have been. */
static struct str tell(struct arena *a, const struct rbac_v1_policy_rule *v, uint32_t n, uint32_t at, bool *told)
{
	const struct rbac_v1_policy_rule *one = &v[at];
	struct buf b buf_cleanup = {0};

	if (one->non_resource_urls.n) {
		buf_printf(&b, "{NonResourceURLs:[\"%.*s\"], Verbs:[\"%.*s\"]}", STR_ARG(one->non_resource_urls.v[0]), STR_ARG(one->verbs.v[0]));
		return arena_str(a, buf_view(&b));
	}
	buf_printf(&b, "{APIGroups:[\"%.*s\"], Resources:[\"%.*s\"], ", STR_ARG(one->api_groups.v[0]), STR_ARG(one->resources.v[0]));
	if (one->resource_names.n)
		buf_printf(&b, "ResourceNames:[\"%.*s\"], ", STR_ARG(one->resource_names.v[0]));
	buf_printf(&b, "Verbs:[\"%.*s\"", STR_ARG(one->verbs.v[0]));
	for (uint32_t i = at + 1; i < n; i++)
		if (!told[i] && same_but_verb(one, &v[i])) {
			told[i] = true;
			buf_printf(&b, " \"%.*s\"", STR_ARG(v[i].verbs.v[0]));
		}
	buf_puts(&b, "]}");
	return arena_str(a, buf_view(&b));
}

static int text_cmp(const void *x, const void *y)
{
	return str_cmp(*(const struct str *)x, *(const struct str *)y);
}

static struct error *confirm(struct request *rq, struct str ns, struct str name, const struct rbac_v1_policy_rule *rules, uint32_t n)
{
	struct rbac_v1_policy_rule_list own = {0}, lacking = {0};
	struct authz_untold unknown = {0};
	struct buf missing buf_cleanup = {0}, groups buf_cleanup = {0};
	struct str *texts;
	uint32_t n_texts = 0;
	double single = 0;
	bool *told;

	/* upstream looks the roles up as the request's own resource */
	rules_for(rq->s->rbac, rq->a, rq->user, ns, &own, rq->res->api->plural, &unknown);
	for (uint32_t i = 0; i < n; i++)
		if (!covered(own.v, own.n, &rules[i]))
			single += singles(&rules[i]);
	if (single > SINGLES_MAX)
		return err_bad_request("the rules amount to more than %d single rights", SINGLES_MAX);
	rbac_uncovered(rq->a, own.v, own.n, rules, n, &lacking);
	if (!lacking.n)
		return NULL;
	if (lacking.n > MISSING_LOOKED_AT)
		lacking.n = MISSING_LOOKED_AT;
	texts = arena_array(rq->a, struct str, lacking.n);
	told = arena_array(rq->a, bool, lacking.n);
	for (uint32_t i = 0; i < lacking.n; i++)
		if (!told[i])
			texts[n_texts++] = tell(rq->a, lacking.v, lacking.n, i, told);
	qsort(texts, n_texts, sizeof *texts, text_cmp);
	for (uint32_t i = 0; i < n_texts && missing.n < MISSING_TOLD; i++)
		if (!i || !str_eq(texts[i], texts[i - 1]))
			buf_printf(&missing, "\n%.*s", STR_ARG(texts[i]));
	if (unknown.n)
		buf_printf(&missing, "; resolution errors: [%.*s]", STR_ARG(authz_untold_text(rq->a, &unknown)));
	for (size_t i = 0; i < rq->user->n_groups; i++)
		buf_printf(&groups, "%s\"%.*s\"", i ? " " : "", STR_ARG(rq->user->groups[i]));
	return err_forbidden(rq->res->api->group, rq->res->api->plural, name,
			     "user \"%.*s\" (groups=[%.*s]) is attempting to grant RBAC permissions not currently held:%.*s",
			     STR_ARG(rq->user->name), STR_ARG(buf_view(&groups)), STR_ARG(buf_view(&missing)));
}

static bool may(struct request *rq, const char *verb, struct str group, const char *resource, struct str ns, struct str name)
{
	struct authz_attrs at = {.user = rq->user, .verb = str_from(verb), .resource_request = true, .ns = ns,
				 .group = group, .version = STR("*"), .resource = str_from(resource), .name = name};

	return authorize(rq->s, rq->a, &at, NULL) == AUTHZ_ALLOW;
}

/* Everything, as an aggregated role may come to hold it. */
static struct error *confirm_all(struct request *rq, struct str name)
{
	struct rbac_v1_policy_rule all[2] = {0};
	struct str star[1] = {STR("*")};
	struct error *e;

	all[0].verbs.v = all[0].api_groups.v = all[0].resources.v = star;
	all[0].verbs.n = all[0].api_groups.n = all[0].resources.n = 1;
	all[1].verbs.v = all[1].non_resource_urls.v = star;
	all[1].verbs.n = all[1].non_resource_urls.n = 1;
	e = confirm(rq, STR_NULL, name, all, 2);
	if (!e)
		return NULL;
	error_free(e);
	return err_forbidden(rq->res->api->group, rq->res->api->plural, name, "to use an aggregationRule takes the rights of cluster-admin");
}

struct error *rbac_check_role(struct request *rq, struct str ns, struct str name, const struct rbac_v1_policy_rule *rules, uint32_t n, bool all)
{
	char plural[64];

	if (rq->internal || user_in_group(rq->user, "system:masters"))
		return NULL;
	snprintf(plural, sizeof plural, "%.*s", STR_ARG(rq->res->api->plural));
	/* by the name in the request's path: a role that is posted has none yet */
	if (may(rq, "escalate", STR("rbac.authorization.k8s.io"), plural, ns, rq->info.name))
		return NULL;
	TRY(confirm(rq, ns, name, rules, n));
	return all ? confirm_all(rq, name) : NULL;
}

struct error *rbac_check_binding(struct request *rq, struct str ns, struct str name, const struct rbac_v1_role_ref *ref)
{
	bool cluster = str_eqz(ref->kind, "ClusterRole");
	struct rbac_v1_policy_rule_list rules = {0};
	struct str key;
	struct role *role;

	if (rq->internal || user_in_group(rq->user, "system:masters"))
		return NULL;
	if (!cluster && !str_eqz(ref->kind, "Role"))
		return error_status(500, "", "a reference to a role of unknown kind \"%.*s\"", STR_ARG(ref->kind));
	if (may(rq, "bind", ref->api_group, cluster ? "clusterroles" : "roles", ns, ref->name))
		return NULL;
	if (!cluster && !ns.n)
		return err_bad_request("Namespace parameter required.");
	TRY(registry_check_name(rq->a, ref->name));
	sync(rq->s->rbac);
	key = cluster ? ref->name : arena_printf(rq->a, "%.*s/%.*s", STR_ARG(ns), STR_ARG(ref->name));
	role = map_get(&rq->s->rbac->roles, key);
	if (!role)
		return err_not_found(rq->res->api->group, rq->res->api->plural, ref->name);
	/* a copy: the role may change while this waits its turn */
	for (uint32_t i = 0; i < role->n; i++)
		object_copy(rq->a, &rbac_v1_policy_rule_type, &role->rules[i], arena_push(rq->a, &rules));
	return confirm(rq, ns, name, rules.v, rules.n);
}
