/* The registry of metrics and how it is written. */
#include <math.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "apiserver/discovery.h"
#include "apiserver/identity.h"
#include "apiserver/metrics.h"
#include "apiserver/metrics_summary.h"

enum { COUNTER = 0, GAUGE = 1, SUMMARY = 2, HISTOGRAM = 4 }; /* io.prometheus.client.MetricType */
enum level { NONE, ALPHA, BETA, STABLE, TIMING, SLI, ALPHA_SLI };
static const char *const type_names[] = {[COUNTER] = "counter", [GAUGE] = "gauge", [SUMMARY] = "summary", [HISTOGRAM] = "histogram"};
static const char *const level_names[] = {
	[ALPHA] = "ALPHA", [BETA] = "BETA", [STABLE] = "STABLE", [TIMING] = "ALPHA", [SLI] = "STABLE", [ALPHA_SLI] = "ALPHA"};
static const struct family {
	const char *name;
	int type;
	enum level level;
	const double *buckets;
	int n_buckets; /* < 0: exponential, buckets are the first and the factor */
	const char *help;
} families[] = {
#define METRIC(id, name, type, level, buckets, help) {name, type, level, buckets, help},
#include "apiserver/metrics_families.h"
#undef METRIC
};

struct metric {
	const struct family *family;
	char *labels;
	bool live;            /* since the last reset */
	unsigned unexpected;  /* so many of its labels stand for values that are not allowed */
	double value;         /* a histogram's and a summary's sum */
	uint64_t n, counts[]; /* each bucket's own, not cumulative; past the last: only in n. A summary's: struct summary */
};
/* The values that a label may take, as they stand in quotes. */
struct allowed {
	struct str label;
	struct map values;
};
static struct {
	struct map series[METRICS]; /* labels -> struct metric; several lead to one where values are not allowed */
	size_t n;
	struct {
		bool off;
		struct allowed *v;
		size_t n;
	} said[METRICS]; /* by flags */
	struct map off; /* every name that was switched off */
} registry;

static int bucket_count(const struct family *f)
{
	return abs(f->n_buckets);
}

static struct metric *new_metric(const struct family *f, const char *labels)
{
	size_t more = f->type == SUMMARY ? sizeof(struct summary) : (size_t)bucket_count(f) * sizeof(uint64_t);
	struct metric *m = xcalloc(1, sizeof *m + more);

	m->family = f;
	m->labels = xstrdup(labels);
	return m;
}

static struct summary *summary_of(const struct metric *m)
{
	return (struct summary *)(uintptr_t)m->counts;
}

void metrics_switch_off(struct str name)
{
	map_set(&registry.off, name, &registry);
	for (size_t i = 0; i < METRICS; i++)
		registry.said[i].off |= str_eqz(name, families[i].name);
}

void metrics_allow(struct str name, struct str label, struct str values)
{
	struct arena a arena_cleanup = {0};

	for (size_t i = 0; i < METRICS; i++) {
		struct allowed *x = NULL;

		if (!str_eqz(name, families[i].name))
			continue;
		for (size_t k = 0; k < registry.said[i].n && !x; k++)
			if (str_eq(registry.said[i].v[k].label, label))
				x = &registry.said[i].v[k];
		if (!x) {
			registry.said[i].v = xrealloc(registry.said[i].v, (registry.said[i].n + 1) * sizeof *x);
			x = &registry.said[i].v[registry.said[i].n++];
			*x = (struct allowed){.label = str_from(str_dupz(label))};
		}
		map_free(&x->values);
		for (struct str rest = values; rest.p;)
			map_set(&x->values, metric_label(&a, str_cut(&rest, ',')), x);
	}
}

/* The label at *p, which goes on behind it. */
static void next_label(const char **p, struct str *name, struct str *value)
{
	const char *q = strchr(*p, '=');

	*name = str_of(*p, (size_t)(q - *p));
	*p = q + 2;
	for (q = *p; *q != '"'; q++)
		q += *q == '\\';
	*value = str_of(*p, (size_t)(q - *p));
	*p = q + 1 + (q[1] == ',');
}

/* The labels with `unexpected` for values that are not allowed, and how many these are. */
static unsigned constrain(enum metric_id id, const char *labels, struct buf *out)
{
	unsigned n = 0;

	while (*labels) {
		struct str name, value;

		next_label(&labels, &name, &value);
		for (size_t i = 0; i < registry.said[id].n; i++) {
			const struct allowed *x = &registry.said[id].v[i];

			if (str_eq(x->label, name) && !map_has(&x->values, value)) {
				value = STR("unexpected");
				n++;
			}
		}
		buf_printf(out, "%s%.*s=\"%.*s\"", out->n ? "," : "", STR_ARG(name), STR_ARG(value));
	}
	return n;
}

static struct metric *series(enum metric_id id, const char *labels, bool constrained)
{
	static struct metric *too_many[METRICS];
	struct buf few buf_cleanup = {0};
	struct metric *m;
	unsigned n;

	m = map_get(&registry.series[id], str_from(labels));
	if (m)
		return m;
	if (registry.n >= METRIC_SERIES_MAX) {
		if (!too_many[id])
			too_many[id] = new_metric(&families[id], "");
		return too_many[id];
	}
	n = constrained ? 0 : constrain(id, labels, &few);
	if (n) {
		m = series(id, buf_z(&few), true);
		m->unexpected = n;
	} else {
		m = new_metric(&families[id], labels);
	}
	map_set(&registry.series[id], str_from(labels), m);
	registry.n++;
	return m;
}

struct metric *metric_series(enum metric_id id, const char *labels)
{
	return series(id, labels, false);
}

size_t metric_count(enum metric_id id)
{
	return registry.series[id].n;
}

static void used(struct metric *m)
{
	m->live = true;
	if (m->unexpected)
		metrics_count(METRIC_UNEXPECTED, "", m->unexpected);
}

void metric_add(struct metric *m, double n)
{
	m->value += n;
	used(m);
}

void metric_touch(struct metric *m)
{
	m->live = true;
}

void metric_set(struct metric *m, double value)
{
	m->value = value;
	used(m);
}

/* Upper bounds of a histogram, one after the other. */
struct bounds {
	const struct family *f;
	int i;
	double last;
};

static double next_bound(struct bounds *b)
{
	if (b->f->n_buckets > 0)
		return b->f->buckets[b->i++];
	b->last = b->i++ ? b->last * b->f->buckets[1] : b->f->buckets[0];
	return b->last;
}

static void observe(struct metric *m, double value, uint64_t times)
{
	struct bounds b = {.f = m->family};

	used(m);
	m->n += times;
	m->value += value * (double)times;
	for (int i = 0; i < bucket_count(m->family); i++)
		if (value <= next_bound(&b)) {
			m->counts[i] += times;
			return;
		}
}

void metric_observe(struct metric *m, double value)
{
	observe(m, value, 1);
	if (m->family->type == SUMMARY)
		summary_observe(summary_of(m), value, now_ms());
}

void metric_level_add(struct metric_level *l, double n, int64_t now)
{
	if (l->since_ns && now > l->since_ns)
		observe(l->m, l->value / l->limit, (uint64_t)(now - l->since_ns));
	l->since_ns = now;
	l->value += n;
}

void metrics_count(enum metric_id id, const char *labels, int64_t n)
{
	metric_add(metric_series(id, labels), (double)n);
}

void metrics_set(enum metric_id id, const char *labels, double value)
{
	metric_set(metric_series(id, labels), value);
}

void metrics_observe(enum metric_id id, const char *labels, double value)
{
	metric_observe(metric_series(id, labels), value);
}

void metrics_forget(enum metric_id id)
{
	metrics_forget_with(id, "");
}

void metrics_forget_with(enum metric_id id, const char *label)
{
	size_t it = 0;
	struct str key;
	void *v;

	while (map_next(&registry.series[id], &it, &key, &v)) {
		struct metric *m = v;

		if (!str_contains(key, str_from(label)))
			continue;
		m->live = false;
		m->value = 0;
		m->n = 0;
		if (m->family->type == SUMMARY)
			summary_clear(summary_of(m));
		memset(m->counts, 0, (size_t)bucket_count(m->family) * sizeof *m->counts);
	}
}

void metrics_reloaded(enum metric_id count, enum metric_id when, bool ok)
{
	char labels[200];

	snprintf(labels, sizeof labels, "apiserver_id_hash=\"%s\",status=\"%s\"", metrics_server_hash(),
		 ok ? "success" : "failure");
	metrics_count(count, labels, 1);
	metrics_set(when, labels, (double)wall_ns() / 1e9);
}

void metrics_in_use(enum metric_id id, const char *hash)
{
	char labels[200];

	metrics_forget(id);
	snprintf(labels, sizeof labels, "apiserver_id_hash=\"%s\",hash=\"%s\"", metrics_server_hash(), hash);
	metrics_set(id, labels, 1);
}

struct str metric_label(struct arena *a, struct str value)
{
	struct buf b buf_cleanup = {0};

	for (size_t i = 0; i < value.n; i++) {
		if (value.p[i] == '\n')
			buf_puts(&b, "\\n");
		else if (value.p[i] == '"' || value.p[i] == '\\')
			buf_printf(&b, "\\%c", value.p[i]);
		else
			buf_putc(&b, value.p[i]);
	}
	return arena_str(a, buf_view(&b));
}

void metrics_hash(struct str s, char out[METRICS_HASH])
{
	unsigned char md[SHA256_DIGEST_LENGTH];

	*out = 0;
	if (!s.n)
		return;
	SHA256((const unsigned char *)s.p, s.n, md);
	strcpy(out, "sha256:");
	for (size_t i = 0; i < sizeof md; i++)
		sprintf(out + 7 + 2 * i, "%02x", md[i]);
}

const char *metrics_server_hash(void)
{
	static char hash[METRICS_HASH];

	if (!*hash)
		metrics_hash(str_from(identity_name()), hash);
	return hash;
}

/* ---- text (Prometheus' exposition format 0.0.4) ---- */

/* The shortest digits that are read as the same number, as Go writes them. */
static void put_number(struct buf *b, double v)
{
	char digits[32];
	int exponent;

	if (isnan(v) || isinf(v)) {
		buf_puts(b, isnan(v) ? "NaN" : v > 0 ? "+Inf" : "-Inf");
		return;
	}
	for (int p = 0; p < 17; p++) {
		snprintf(digits, sizeof digits, "%.*e", p, v);
		if (strtod(digits, NULL) == v)
			break;
	}
	exponent = atoi(strchr(digits, 'e') + 1);
	if (exponent < -4 || exponent >= 6) {
		buf_puts(b, digits);
		return;
	}
	int shown = (int)strcspn(digits, "e") - (*digits == '-'); /* with the point when there is more than one digit */
	int behind = (shown > 1 ? shown - 2 : 0) - exponent;

	buf_printf(b, "%.*f", behind > 0 ? behind : 0, v);
}

static void put_line(struct buf *b, const struct metric *m, const char *suffix, const char *le)
{
	buf_printf(b, "%s%s", m->family->name, suffix);
	if (*m->labels || le)
		buf_printf(b, "{%s%s", m->labels, *m->labels && le ? "," : "");
	if (le)
		buf_printf(b, "le=\"%s\"", le);
	if (*m->labels || le)
		buf_putc(b, '}');
	buf_putc(b, ' ');
}

static void put_totals(struct buf *b, const struct metric *m)
{
	put_line(b, m, "_sum", NULL);
	put_number(b, m->value);
	buf_putc(b, '\n');
	put_line(b, m, "_count", NULL);
	buf_u64(b, m->n);
	buf_putc(b, '\n');
}

static void text_histogram(struct buf *b, const struct metric *m)
{
	struct bounds bounds = {.f = m->family};
	uint64_t n = 0;

	for (int i = 0; i <= bucket_count(m->family); i++) {
		struct buf le buf_cleanup = {0};
		bool last = i == bucket_count(m->family);

		put_number(&le, last ? INFINITY : next_bound(&bounds));
		n = last ? m->n : n + m->counts[i];
		put_line(b, m, "_bucket", buf_z(&le));
		buf_u64(b, n);
		buf_putc(b, '\n');
	}
	put_totals(b, m);
}

/* Upstream's. */
static const double quantiles[] = {0.5, 0.9, 0.99};

static void text_summary(struct buf *b, const struct metric *m)
{
	for (size_t i = 0; i < sizeof quantiles / sizeof *quantiles; i++) {
		buf_printf(b, "%s{%s%squantile=\"%g\"} ", m->family->name, m->labels, *m->labels ? "," : "", quantiles[i]);
		put_number(b, summary_quantile(summary_of(m), quantiles[i], now_ms()));
		buf_putc(b, '\n');
	}
	put_totals(b, m);
}

static void put_help(struct buf *b, const struct family *f)
{
	if (f->level != NONE)
		buf_printf(b, "%s[%s] ", f->level == TIMING ? "EXPERIMENTAL: " : "", level_names[f->level]);
	buf_puts(b, f->help);
}

static void text_family(struct buf *b, const struct family *f, const struct metric *const *v, size_t n)
{
	buf_printf(b, "# HELP %s ", f->name);
	put_help(b, f);
	buf_printf(b, "\n# TYPE %s %s\n", f->name, type_names[f->type]);
	for (size_t i = 0; i < n; i++) {
		if (f->type == HISTOGRAM || f->type == SUMMARY) {
			(f->type == HISTOGRAM ? text_histogram : text_summary)(b, v[i]);
			continue;
		}
		put_line(b, v[i], "", NULL);
		put_number(b, v[i]->value);
		buf_putc(b, '\n');
	}
}

/* ---- protobuf (io.prometheus.client.MetricFamily, each behind its length) ---- */

static void put_double(struct buf *b, unsigned field, double v)
{
	pb_put_varint(b, field << 3 | 1);
	buf_append(b, &v, sizeof v); /* little-endian, as everything that Skiff runs on */
}

static void put_varint(struct buf *b, unsigned field, uint64_t v)
{
	pb_put_varint(b, field << 3);
	pb_put_varint(b, v);
}

static void put_labels(struct buf *b, const char *p)
{
	while (*p) {
		struct buf pair buf_cleanup = {0}, value buf_cleanup = {0};
		struct str name, text;

		next_label(&p, &name, &text);
		pb_put_bytes(&pair, 1, name);
		for (size_t i = 0; i < text.n; i++) {
			bool escaped = text.p[i] == '\\';

			i += escaped;
			buf_putc(&value, escaped && text.p[i] == 'n' ? '\n' : text.p[i]);
		}
		pb_put_bytes(&pair, 2, buf_view(&value));
		pb_put_bytes(b, 1, buf_view(&pair));
	}
}

static void pb_histogram(struct buf *b, const struct metric *m)
{
	struct bounds bounds = {.f = m->family};
	uint64_t n = 0;

	put_varint(b, 1, m->n);
	put_double(b, 2, m->value);
	for (int i = 0; i < bucket_count(m->family); i++) {
		struct buf bucket buf_cleanup = {0};

		put_varint(&bucket, 1, n += m->counts[i]);
		put_double(&bucket, 2, next_bound(&bounds));
		pb_put_bytes(b, 3, buf_view(&bucket));
	}
}

static void pb_summary(struct buf *b, const struct metric *m)
{
	put_varint(b, 1, m->n);
	put_double(b, 2, m->value);
	for (size_t i = 0; i < sizeof quantiles / sizeof *quantiles; i++) {
		struct buf one buf_cleanup = {0};

		put_double(&one, 1, quantiles[i]);
		put_double(&one, 2, summary_quantile(summary_of(m), quantiles[i], now_ms()));
		pb_put_bytes(b, 3, buf_view(&one));
	}
}

static void pb_family(struct buf *b, const struct family *f, const struct metric *const *v, size_t n)
{
	static const unsigned fields[] = {[COUNTER] = 3, [GAUGE] = 2, [SUMMARY] = 4, [HISTOGRAM] = 7}; /* of message Metric */
	struct buf out buf_cleanup = {0}, help buf_cleanup = {0};

	put_help(&help, f);
	pb_put_bytes(&out, 1, str_from(f->name));
	pb_put_bytes(&out, 2, buf_view(&help));
	put_varint(&out, 3, (uint64_t)f->type);
	for (size_t i = 0; i < n; i++) {
		struct buf metric buf_cleanup = {0}, value buf_cleanup = {0};

		put_labels(&metric, v[i]->labels);
		if (f->type == HISTOGRAM)
			pb_histogram(&value, v[i]);
		else if (f->type == SUMMARY)
			pb_summary(&value, v[i]);
		else
			put_double(&value, 1, v[i]->value);
		pb_put_bytes(&metric, fields[f->type], buf_view(&value));
		pb_put_bytes(&out, 4, buf_view(&metric));
	}
	pb_put_varint(b, out.n);
	buf_str(b, buf_view(&out));
}

/* ---- the two paths ---- */

static int by_labels(const void *a, const void *b)
{
	return strcmp((*(const struct metric *const *)a)->labels, (*(const struct metric *const *)b)->labels);
}

static bool shown_at(const struct family *f, bool slis)
{
	return (f->level >= SLI) == slis;
}

static void put_families(struct request *rq, struct buf *b, bool slis, bool protobuf)
{
	for (size_t i = 0; i < METRICS; i++) {
		const struct map *map = &registry.series[i];
		const struct metric **v = arena_array(rq->a, const struct metric *, map->n);
		size_t it = 0, n = 0;
		struct str key;
		void *m;

		if (!shown_at(&families[i], slis) || registry.said[i].off)
			continue;
		while (map_next(map, &it, &key, &m))
			if (((struct metric *)m)->live && str_eqz(key, ((struct metric *)m)->labels))
				v[n++] = m;
		if (!n)
			continue;
		qsort(v, n, sizeof *v, by_labels);
		(protobuf ? pb_family : text_family)(b, &families[i], v, n);
	}
}

/* As Prometheus' client for Go chooses: what it does not know is answered in text. */
static bool wants_protobuf(struct request *rq, const char **escaping)
{
	static const char *const schemes[] = {"allow-utf-8", "underscores", "dots", "values"};
	struct accept_clause *v;
	size_t n = accept_parse(rq->a, http_header_get(&rq->x->headers, "accept"), &v);

	*escaping = "underscores";
	for (size_t i = 0; i < n; i++) {
		struct str e = query_get(&v[i].params, "escaping"), version = query_get(&v[i].params, "version");

		for (size_t k = 0; k < sizeof schemes / sizeof *schemes; k++)
			if (str_eqz(e, schemes[k]))
				*escaping = schemes[k];
		if (str_eqz(v[i].type, "application/vnd.google.protobuf") &&
		    str_eqz(query_get(&v[i].params, "proto"), "io.prometheus.client.MetricFamily") &&
		    str_eqz(query_get(&v[i].params, "encoding"), "delimited"))
			return true;
		if (str_eqz(v[i].type, "text/plain") && (!version.n || str_eqz(version, "0.0.4")))
			return false;
	}
	return false;
}

static void reset(bool slis)
{
	for (size_t i = 0; i < METRICS; i++)
		if (shown_at(&families[i], slis))
			metrics_forget((enum metric_id)i);
}

/* Families by level; nothing here is hidden. */
static void count_families(void)
{
	int n[ALPHA_SLI + 1] = {0};

	for (size_t i = 0; i < METRICS; i++)
		n[families[i].level] += !registry.said[i].off;
	n[STABLE] += n[SLI];
	n[ALPHA] += n[ALPHA_SLI] + n[TIMING];
	n[STABLE]--; /* apiserver_storage_objects */
	metrics_set(METRIC_REGISTERED, "deprecated_version=\"1.34.0\",stability_level=\"STABLE\"", 1);
	for (int l = ALPHA; l <= STABLE; l++) {
		char labels[80];

		snprintf(labels, sizeof labels, "deprecated_version=\"\",stability_level=\"%s\"", level_names[l]);
		metrics_set(METRIC_REGISTERED, labels, n[l]);
	}
	metrics_set(METRIC_DISABLED, "", (double)registry.off.n);
	metrics_set(METRIC_HIDDEN, "", 0);
}

struct error *serve_metrics(struct request *rq, bool slis)
{
	struct buf b buf_cleanup = {0};
	const char *escaping;
	bool protobuf = wants_protobuf(rq, &escaping);

	if (str_eqz(rq->x->method, "DELETE") && rq->s->o.profiling) {
		reset(slis);
		return respond_bytes(rq, 200, STR("text/plain; charset=utf-8"), STR("metrics reset\n"));
	}
	metrics_set(METRIC_SLI_STARTED, "", (double)(rq->s->started_wall_ns / 10000000) / 100);
	if (!slis) {
		count_families();
		metrics_collect(rq->s);
	}
	put_families(rq, &b, slis, protobuf);
	http_set_header(rq->x, "process-start-time-unix",
			arena_printf(rq->a, "%lld", (long long)(rq->s->started_wall_ns / 1000000000)));
	return respond_bytes(rq, 200,
			     arena_printf(rq->a, "%s; escaping=%s",
					  protobuf ? "application/vnd.google.protobuf; "
						     "proto=io.prometheus.client.MetricFamily; encoding=delimited"
						   : "text/plain; version=0.0.4; charset=utf-8",
					  escaping),
			     buf_view(&b));
}
