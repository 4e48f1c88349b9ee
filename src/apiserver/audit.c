/* Audit: JSON lines to a file, written in order by one fiber; a full queue drops and counts. */
#include <fcntl.h>
#include <unistd.h>
#include "apiserver/audit.h"
#include "apiserver/metrics.h"
#include "schema/jv.h"

#define QUEUE_MAX (8u << 20) /* bytes waiting for the disk */

struct audit {
	int fd;
	struct buf queue;
	struct waitq more;
	struct jv policy;
	bool has_policy;
};

static void writer(void *arg)
{
	struct audit *a = arg;

	for (;;) {
		struct buf b = a->queue;
		size_t off = 0;

		if (!b.n) {
			struct error *e = waitq_wait(&a->more);

			if (e) {
				error_free(e);
				return;
			}
			continue;
		}
		memset(&a->queue, 0, sizeof a->queue);
		while (off < b.n) {
			ssize_t n = write(a->fd, b.p + off, b.n - off);

			if (n <= 0)
				break;
			off += (size_t)n;
		}
		buf_free(&b);
	}
}

struct error *audit_init(struct apiserver *s)
{
	struct audit *a;

	if (!s->o.audit_log_path)
		return NULL;
	a = xcalloc(1, sizeof *a);
	a->fd = !strcmp(s->o.audit_log_path, "-") ? 1 : open(s->o.audit_log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (a->fd < 0)
		return error_sys(errno, "audit log %s", s->o.audit_log_path);
	if (s->o.audit_policy_file) {
		struct buf b buf_cleanup = {0}, json buf_cleanup = {0};

		TRY(error_wrap(file_read(s->o.audit_policy_file, &b), "audit policy"));
		TRY(error_wrap(yaml_to_json(buf_view(&b), NULL, &json), "audit policy"));
		TRY(error_wrap(jv_parse(&s->arena, arena_str(&s->arena, buf_view(&json)), NULL, &a->policy), "audit policy"));
		a->has_policy = true;
		log_info("audit policy levels Request and RequestResponse are logged as Metadata");
	}
	s->audit = a;
	fiber_spawn("audit", writer, a);
	return NULL;
}

void audit_begin(struct request *rq)
{
	(void)rq;
}

static bool listed(const struct jv *list, struct str want)
{
	if (!jv_is(list, JV_ARRAY) || !list->n)
		return true;
	for (uint32_t i = 0; i < list->n; i++)
		if (str_eq(jv_str(&list->items[i]), want))
			return true;
	return false;
}

/* The first rule that fits says the level; none fits: not logged. */
static bool wanted(struct audit *a, const struct request *rq)
{
	const struct jv *rules = jv_get(&a->policy, STR("rules"));

	if (!a->has_policy)
		return true;
	for (uint32_t i = 0; jv_is(rules, JV_ARRAY) && i < rules->n; i++) {
		const struct jv *r = &rules->items[i], *res = jv_get(r, STR("resources")), *urls = jv_get(r, STR("nonResourceURLs"));
		const struct jv *groups = jv_get(r, STR("userGroups"));
		bool group_ok = !jv_is(groups, JV_ARRAY) || !groups->n;

		for (size_t g = 0; !group_ok && g < rq->user->n_groups; g++)
			group_ok = listed(groups, rq->user->groups[g]);
		if (!group_ok || !listed(jv_get(r, STR("users")), rq->user->name) || !listed(jv_get(r, STR("verbs")), rq->info.verb) ||
		    !listed(jv_get(r, STR("namespaces")), rq->info.ns))
			continue;
		if (rq->info.resource_request) {
			bool ok = !jv_is(res, JV_ARRAY) || !res->n;

			if (ok && jv_is(urls, JV_ARRAY) && urls->n)
				continue;
			for (uint32_t k = 0; !ok && k < res->n; k++)
				ok = str_eq(jv_str(jv_get(&res->items[k], STR("group"))), rq->info.group) &&
				     listed(jv_get(&res->items[k], STR("resources")), rq->info.resource);
			if (!ok)
				continue;
		} else {
			bool ok = !jv_is(res, JV_ARRAY) || !res->n;

			if (jv_is(urls, JV_ARRAY) && urls->n) {
				ok = false;
				for (uint32_t k = 0; !ok && k < urls->n; k++) {
					struct str u = jv_str(&urls->items[k]);

					ok = str_eq(u, rq->info.path) ||
					     (u.n && u.p[u.n - 1] == '*' && str_has_prefix(rq->info.path, str_sub(u, 0, u.n - 1)));
				}
			}
			if (!ok)
				continue;
		}
		return !str_eqz(jv_str(jv_get(r, STR("level"))), "None");
	}
	return false;
}

static int pair_cmp(const void *x, const void *y)
{
	return str_cmp(((const struct str_pair *)x)->key, ((const struct str_pair *)y)->key);
}

static void annotations(struct buf *b, struct request *rq)
{
	if (!rq->annotations.n)
		return;
	qsort(rq->annotations.v, rq->annotations.n, sizeof *rq->annotations.v, pair_cmp);
	for (uint32_t i = 0; i < rq->annotations.n; i++) {
		buf_puts(b, i ? "," : ",\"annotations\":{");
		jv_encode_string(b, rq->annotations.v[i].key);
		buf_putc(b, ':');
		jv_encode_string(b, rq->annotations.v[i].value);
	}
	buf_putc(b, '}');
}

void audit_end(struct request *rq)
{
	struct audit *a = rq->s->audit;
	struct buf *b;
	struct str now, start;
	struct api_time t = time_now_micro(), s0 = t;

	if (!a || !rq->user || !wanted(a, rq))
		return;
	if (a->queue.n > QUEUE_MAX) {
		metrics_count(rq->s, "apiserver_audit_error_total", "plugin=\"log\"", 1);
		return;
	}
	int64_t ns = t.s * 1000000000 + t.ns - (now_ns() - rq->start_ns);

	s0.s = ns / 1000000000;
	s0.ns = (int32_t)(ns % 1000000000);
	now = time_format(rq->a, t, true);
	start = time_format(rq->a, s0, true);
	b = &a->queue;
	buf_printf(b, "{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"level\":\"Metadata\",\"auditID\":\"%s\",\"stage\":"
		      "\"ResponseComplete\",\"requestURI\":", rq->audit_id);
	jv_encode_string(b, rq->x->query.n ? arena_printf(rq->a, "%.*s?%.*s", STR_ARG(rq->x->path), STR_ARG(rq->x->query)) : rq->x->path);
	buf_puts(b, ",\"verb\":");
	jv_encode_string(b, rq->info.verb);
	buf_puts(b, ",\"user\":{\"username\":");
	jv_encode_string(b, rq->real_user->name);
	buf_puts(b, ",\"groups\":[");
	for (size_t i = 0; i < rq->real_user->n_groups; i++) {
		if (i)
			buf_putc(b, ',');
		jv_encode_string(b, rq->real_user->groups[i]);
	}
	buf_puts(b, "]}");
	if (rq->user != rq->real_user) {
		buf_puts(b, ",\"impersonatedUser\":{\"username\":");
		jv_encode_string(b, rq->user->name);
		buf_putc(b, '}');
	}
	if (rq->impersonation.n) {
		buf_puts(b, ",\"authenticationMetadata\":{\"impersonationConstraint\":");
		jv_encode_string(b, rq->impersonation);
		buf_putc(b, '}');
	}
	buf_puts(b, ",\"userAgent\":");
	jv_encode_string(b, http_header_get(&rq->x->headers, "user-agent"));
	if (rq->info.resource_request) {
		buf_puts(b, ",\"objectRef\":{\"resource\":");
		jv_encode_string(b, rq->info.resource);
		if (rq->info.ns.n) {
			buf_puts(b, ",\"namespace\":");
			jv_encode_string(b, rq->info.ns);
		}
		if (rq->info.name.n) {
			buf_puts(b, ",\"name\":");
			jv_encode_string(b, rq->info.name);
		}
		if (rq->info.group.n) {
			buf_puts(b, ",\"apiGroup\":");
			jv_encode_string(b, rq->info.group);
		}
		buf_puts(b, ",\"apiVersion\":");
		jv_encode_string(b, rq->info.version);
		if (rq->info.subresource.n) {
			buf_puts(b, ",\"subresource\":");
			jv_encode_string(b, rq->info.subresource);
		}
		buf_putc(b, '}');
	}
	buf_printf(b, ",\"responseStatus\":{\"metadata\":{},\"code\":%d},\"requestReceivedTimestamp\":\"%.*s\",\"stageTimestamp\":\"%.*s\"",
		   rq->status, STR_ARG(start), STR_ARG(now));
	annotations(b, rq);
	buf_puts(b, "}\n");
	waitq_wake_one(&a->more);
}
