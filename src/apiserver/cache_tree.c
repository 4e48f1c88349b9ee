#include <stdlib.h>

#include "apiserver/cache_internal.h"
#include "base/log.h"

/* ---- separators and nodes ---- */

static struct ckey *ckey_new(struct tkey k)
{
	struct ckey *c = xmalloc(sizeof(*c) + k.by.n + k.key.n);
	c->refs = 1;
	c->by_n = (uint32_t)k.by.n;
	c->key_n = (uint32_t)k.key.n;
	if (k.by.n)
		memcpy(c->bytes, k.by.p, k.by.n);
	memcpy(c->bytes + k.by.n, k.key.p, k.key.n);
	return c;
}

static struct ckey *ckey_ref(struct ckey *c)
{
	if (c)
		atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
	return c;
}

static void ckey_unref(struct ckey *c)
{
	if (c && atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) == 1)
		free(c);
}

static int tkey_cmp(struct tkey a, struct tkey b)
{
	int r = str_cmp(a.by, b.by);
	return r ? r : str_cmp(a.key, b.key);
}

static struct tkey ckey_key(const struct ckey *c)
{
	return (struct tkey){str_of(c->bytes, c->by_n), str_of(c->bytes + c->by_n, c->key_n)};
}

static struct tkey entry_tkey(int by, const struct cache_entry *e)
{
	struct tkey k = {STR_NULL, cache_entry_key(e)};
	if (by >= 0)
		k.by = entry_slice(e, e->slices[2 * e->n_labels + by]);
	return k;
}

static size_t node_size(bool leaf)
{
	return offsetof(struct tnode, e) + TREE_FAN * sizeof(void *) * (leaf ? 1 : 2);
}

static struct tnode *node_new(bool leaf)
{
	struct tnode *n = xmalloc(node_size(leaf));
	n->refs = 1;
	n->n = 0;
	n->leaf = leaf;
	n->count = 0;
	return n;
}

static struct tnode *node_ref(struct tnode *n)
{
	if (n)
		atomic_fetch_add_explicit(&n->refs, 1, memory_order_relaxed);
	return n;
}

static void node_unref(struct tnode *n)
{
	if (!n || atomic_fetch_sub_explicit(&n->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (int i = 0; i < n->n; i++) {
		if (n->leaf) {
			cache_entry_unref(n->e[i]);
		} else {
			node_unref(n->c[i]);
			if (i)
				ckey_unref(n->sep[i]);
		}
	}
	free(n);
}

/* The node itself when nobody else holds it, else a copy that shares the children. Consumes the reference. */
static struct tnode *node_own(struct tnode *n)
{
	if (atomic_load_explicit(&n->refs, memory_order_acquire) == 1)
		return n;
	struct tnode *m = node_new(n->leaf);
	m->n = n->n;
	m->count = n->count;
	for (int i = 0; i < n->n; i++) {
		if (n->leaf) {
			m->e[i] = cache_entry_ref(n->e[i]);
		} else {
			m->c[i] = node_ref(n->c[i]);
			m->sep[i] = i ? ckey_ref(n->sep[i]) : NULL;
		}
	}
	node_unref(n);
	return m;
}

/* First index whose entry is >= key; *equal: it is it. */
static int leaf_find(const struct tnode *n, int by, struct tkey key, bool *equal)
{
	int lo = 0, hi = n->n;
	*equal = false;
	/* A load comes in order. */
	if (hi && tkey_cmp(entry_tkey(by, n->e[hi - 1]), key) < 0)
		return hi;
	while (lo < hi) {
		int mid = (lo + hi) / 2;
		int r = tkey_cmp(entry_tkey(by, n->e[mid]), key);
		if (r < 0) {
			lo = mid + 1;
		} else {
			hi = mid;
			*equal |= r == 0;
		}
	}
	return lo;
}

/* The child that holds key. */
static int inner_find(const struct tnode *n, struct tkey key)
{
	int lo = 1, hi = n->n;
	if (hi > 1 && tkey_cmp(ckey_key(n->sep[hi - 1]), key) <= 0)
		return hi - 1;
	while (lo < hi) {
		int mid = (lo + hi) / 2;
		if (tkey_cmp(ckey_key(n->sep[mid]), key) <= 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo - 1;
}

/* ---- writing ---- */

static struct tnode *split(struct tnode *n, int by, int at, struct ckey **sep)
{
	struct tnode *right = node_new(n->leaf);
	right->n = (uint16_t)(n->n - at);
	if (n->leaf) {
		memcpy(right->e, n->e + at, right->n * sizeof(*n->e));
		right->count = right->n;
		*sep = ckey_new(entry_tkey(by, right->e[0]));
	} else {
		memcpy(right->c, n->c + at, right->n * sizeof(*n->c));
		memcpy(right->sep, n->sep + at, right->n * sizeof(*n->sep));
		*sep = right->sep[0];
		right->sep[0] = NULL;
		for (int i = 0; i < right->n; i++)
			right->count += right->c[i]->count;
	}
	n->n = (uint16_t)at;
	n->count -= right->count;
	return right;
}

/* *right: the new right half when the node was split, *sep its lower bound. */
static void insert(struct tnode **np, int by, struct tkey key, struct cache_entry *e, struct cache_entry **old, struct tnode **right,
		   struct ckey **sep)
{
	struct tnode *n = *np = node_own(*np);
	*right = NULL;
	if (n->leaf) {
		bool equal;
		int i = leaf_find(n, by, key, &equal);
		if (equal) {
			*old = n->e[i];
			n->e[i] = cache_entry_ref(e);
			return;
		}
		struct tnode *into = n;
		if (n->n == TREE_FAN) {
			/* Keys mostly come in order (a load): then the left node stays full. */
			*right = split(n, by, i == n->n ? TREE_FAN - 1 : TREE_FAN / 2, sep);
			if (i > n->n || (i == n->n && tkey_cmp(key, ckey_key(*sep)) > 0)) {
				i -= n->n;
				into = *right;
			}
		}
		memmove(into->e + i + 1, into->e + i, (size_t)(into->n - i) * sizeof(*into->e));
		into->e[i] = cache_entry_ref(e);
		into->n++;
		into->count++;
		return;
	}
	int i = inner_find(n, key);
	size_t before = n->c[i]->count;
	struct tnode *r;
	struct ckey *s;
	insert(&n->c[i], by, key, e, old, &r, &s);
	n->count += n->c[i]->count - before;
	if (!r)
		return;
	n->count += r->count;
	struct tnode *into = n;
	i++;
	if (n->n == TREE_FAN) {
		n->count -= r->count; /* not among the children yet */
		*right = split(n, by, i == n->n ? TREE_FAN - 1 : TREE_FAN / 2, sep);
		if (i > n->n) {
			i -= n->n;
			into = *right;
		}
		into->count += r->count;
	}
	memmove(into->c + i + 1, into->c + i, (size_t)(into->n - i) * sizeof(*into->c));
	memmove(into->sep + i + 1, into->sep + i, (size_t)(into->n - i) * sizeof(*into->sep));
	into->c[i] = r;
	into->sep[i] = s;
	into->n++;
}

struct cache_entry *tree_put(struct tree *t, struct cache_entry *e)
{
	struct cache_entry *old = NULL;
	struct tnode *right;
	struct ckey *sep;
	if (!t->root)
		t->root = node_new(true);
	insert(&t->root, t->by, entry_tkey(t->by, e), e, &old, &right, &sep);
	if (right) {
		struct tnode *root = node_new(false);
		root->n = 2;
		root->c[0] = t->root;
		root->c[1] = right;
		root->sep[0] = NULL;
		root->sep[1] = sep;
		root->count = t->root->count + right->count;
		t->root = root;
	}
	return old;
}

/* Joins child i + 1 into child i when both together are small. */
static void join(struct tnode *n, int i)
{
	if (i < 0 || i + 1 >= n->n)
		return;
	int na = n->c[i]->n, nb = n->c[i + 1]->n;
	if (na && nb && na + nb > TREE_FAN * 3 / 4)
		return;
	struct tnode *a = n->c[i] = node_own(n->c[i]), *b = n->c[i + 1] = node_own(n->c[i + 1]);
	if (a->leaf) {
		memcpy(a->e + a->n, b->e, b->n * sizeof(*b->e));
		ckey_unref(n->sep[i + 1]);
	} else {
		memcpy(a->c + a->n, b->c, b->n * sizeof(*b->c));
		memcpy(a->sep + a->n, b->sep, b->n * sizeof(*b->sep));
		a->sep[a->n] = n->sep[i + 1];
	}
	a->n = (uint16_t)(a->n + b->n);
	a->count += b->count;
	free(b); /* its references moved */
	memmove(n->c + i + 1, n->c + i + 2, (size_t)(n->n - i - 2) * sizeof(*n->c));
	memmove(n->sep + i + 1, n->sep + i + 2, (size_t)(n->n - i - 2) * sizeof(*n->sep));
	n->n--;
}

static struct cache_entry *delete_(struct tnode **np, int by, struct tkey key)
{
	struct tnode *n = *np = node_own(*np);
	n->count--;
	if (n->leaf) {
		bool equal;
		int i = leaf_find(n, by, key, &equal);
		struct cache_entry *e = n->e[i];
		memmove(n->e + i, n->e + i + 1, (size_t)(n->n - i - 1) * sizeof(*n->e));
		n->n--;
		return e;
	}
	int i = inner_find(n, key);
	struct cache_entry *e = delete_(&n->c[i], by, key);
	if (n->c[i]->n < TREE_FAN / 4) {
		/* An empty child is joined too, so it never stays unless it is the only one. */
		if (i + 1 < n->n)
			join(n, i);
		if (i > 0)
			join(n, i - 1);
	}
	return e;
}

struct cache_entry *tree_del(struct tree *t, struct tkey key)
{
	if (!tree_get(t, key))
		return NULL;
	struct cache_entry *e = delete_(&t->root, t->by, key);
	while (!t->root->leaf && t->root->n == 1) {
		struct tnode *down = node_ref(t->root->c[0]);
		node_unref(t->root);
		t->root = down;
	}
	if (!t->root->count) {
		node_unref(t->root);
		t->root = NULL;
	}
	return e;
}

/* ---- reading ---- */

struct tree tree_ref(const struct tree *t)
{
	return (struct tree){node_ref(t->root), t->by};
}

void tree_free(struct tree *t)
{
	node_unref(t->root);
	t->root = NULL;
}

struct cache_entry *tree_get(const struct tree *t, struct tkey key)
{
	const struct tnode *n = t->root;
	if (!n)
		return NULL;
	while (!n->leaf)
		n = n->c[inner_find(n, key)];
	bool equal;
	int i = leaf_find(n, t->by, key, &equal);
	return equal ? n->e[i] : NULL;
}

size_t tree_rank(const struct tree *t, struct tkey key)
{
	const struct tnode *n = t->root;
	size_t rank = 0;
	if (!n)
		return 0;
	while (!n->leaf) {
		int i = inner_find(n, key);
		for (int j = 0; j < i; j++)
			rank += n->c[j]->count;
		n = n->c[i];
	}
	bool equal;
	return rank + (size_t)leaf_find(n, t->by, key, &equal);
}

static size_t node_bytes(const struct tnode *n)
{
	size_t b = node_size(n->leaf);
	for (int i = 0; i < n->n && !n->leaf; i++)
		b += node_bytes(n->c[i]) + (i ? sizeof(struct ckey) + n->sep[i]->by_n + n->sep[i]->key_n : 0);
	return b;
}

size_t tree_bytes(const struct tree *t)
{
	return t->root ? node_bytes(t->root) : 0;
}

int tree_seek(const struct tree *t, struct tkey key, struct cache_iter *it)
{
	const struct tnode *n = t->root;
	it->depth = 0;
	while (n) {
		bool equal;
		uint32_t i = (uint32_t)(n->leaf ? leaf_find(n, t->by, key, &equal) : inner_find(n, key));
		if (it->depth == CACHE_DEPTH)
			abort(); /* 64^12 entries */
		it->path[it->depth].node = n;
		it->path[it->depth++].i = i;
		n = n->leaf ? NULL : n->c[i];
	}
	return it->depth;
}

const struct cache_entry *tree_next(struct cache_iter *it)
{
	while (it->depth) {
		const struct tnode *n = it->path[it->depth - 1].node;
		uint32_t i = it->path[it->depth - 1].i;
		if (n->leaf && i < n->n) {
			it->path[it->depth - 1].i++;
			/* The entries lie all over memory, and so do their bytes. */
			if (i + 8 < n->n) {
				__builtin_prefetch(n->e[i + 8]);
				__builtin_prefetch(n->e[i + 4]->body);
			}
			return n->e[i];
		}
		/* Up, one to the right, and down to the leftmost leaf. */
		it->depth--;
		while (it->depth && ++it->path[it->depth - 1].i >= ((const struct tnode *)it->path[it->depth - 1].node)->n)
			it->depth--;
		while (it->depth && !(n = it->path[it->depth - 1].node)->leaf) {
			it->path[it->depth].node = n->c[it->path[it->depth - 1].i];
			it->path[it->depth++].i = 0;
		}
	}
	return NULL;
}
