#include "dns/forward.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/map.h"
#include "loop/io.h"

#define HEADER 12
#define MESSAGE_MAX 65535

struct cached {
	int64_t until_ms;
	size_t n;
	char bytes[];
};

struct forwarder {
	char *servers[FORWARD_SERVERS_MAX]; /* "IP:PORT" */
	size_t n_servers;
	bool fixed;
	char *self;
	struct timespec mtime;
	struct map cache;                   /* question section -> struct cached */
	size_t busy;
	size_t first;                       /* server that answered last */
};

static void add_server(struct forwarder *f, struct str ip)
{
	if (f->n_servers == FORWARD_SERVERS_MAX || !ip.n)
		return;
	bool v6 = str_index(ip, ':') != str_rindex(ip, ':');
	char *addr = v6 ? xasprintf("[%.*s]:53", STR_ARG(ip)) : str_index(ip, ':') >= 0 ? str_dupz(ip) : xasprintf("%.*s:53", STR_ARG(ip));

	if (f->self && strcmp(addr, f->self) == 0)
		free(addr);
	else
		f->servers[f->n_servers++] = addr;
}

static void drop_servers(struct forwarder *f)
{
	while (f->n_servers)
		free(f->servers[--f->n_servers]);
	f->first = 0;
}

static void read_resolv_conf(struct forwarder *f)
{
	static const char path[] = "/etc/resolv.conf";
	buf_cleanup struct buf b = {0};
	struct stat st;

	if (f->fixed || stat(path, &st) < 0 ||
	    (st.st_mtim.tv_sec == f->mtime.tv_sec && st.st_mtim.tv_nsec == f->mtime.tv_nsec))
		return;
	struct error *e = file_read(path, &b);

	if (e) {
		log_and_free(e, "reading %s", path);
		return;
	}
	f->mtime = st.st_mtim;
	drop_servers(f);
	for (struct str rest = buf_view(&b); rest.p;) {
		struct str line = str_trim(str_cut(&rest, '\n'));

		if (str_has_prefix(line, STR("nameserver ")) || str_has_prefix(line, STR("nameserver\t")))
			add_server(f, str_trim(str_sub(line, 11, line.n)));
	}
}

struct forwarder *forwarder_new(const char *servers, const char *self)
{
	struct forwarder *f = xcalloc(1, sizeof *f);

	f->self = self ? xstrdup(self) : NULL;
	f->fixed = servers != NULL;
	for (struct str rest = str_from(servers); rest.p;)
		add_server(f, str_trim(str_cut(&rest, ',')));
	read_resolv_conf(f);
	return f;
}

void forwarder_free(struct forwarder *f)
{
	drop_servers(f);
	map_free_values(&f->cache, free);
	free(f->self);
	free(f);
}

/* End of the first question, 0 when there is not exactly one well-formed. */
static size_t question_end(struct str m)
{
	const unsigned char *p = (const unsigned char *)m.p;
	size_t i = HEADER;

	if (m.n < HEADER || p[4] != 0 || p[5] != 1)
		return 0;
	while (i < m.n && p[i]) {
		if (p[i] > 63)
			return 0; /* questions are never compressed */
		i += p[i] + 1u;
	}
	return i + 5 <= m.n ? i + 5 : 0;
}

/* Skips a possibly compressed name; 0 when malformed. */
static size_t skip_name(struct str m, size_t i)
{
	const unsigned char *p = (const unsigned char *)m.p;

	while (i < m.n) {
		if (p[i] == 0)
			return i + 1;
		if (p[i] >= 0xc0)
			return i + 2 <= m.n ? i + 2 : 0;
		if (p[i] > 63)
			return 0;
		i += p[i] + 1u;
	}
	return 0;
}

/* The smallest TTL of answers and authorities, capped; 0: not to be cached. */
static uint32_t ttl_of(struct str m, size_t i)
{
	const unsigned char *p = (const unsigned char *)m.p;
	unsigned count = (unsigned)(p[6] << 8 | p[7]) + (unsigned)(p[8] << 8 | p[9]);
	uint32_t ttl = count ? FORWARD_CACHE_TTL_MAX_S : 0;

	for (; count; count--) {
		i = skip_name(m, i);
		if (!i || i + 10 > m.n)
			return 0;
		uint32_t t = (uint32_t)p[i + 4] << 24 | (uint32_t)p[i + 5] << 16 | (uint32_t)p[i + 6] << 8 | p[i + 7];

		ttl = t < ttl ? t : ttl;
		i += 10 + (size_t)(p[i + 8] << 8 | p[i + 9]);
	}
	return ttl;
}

/* Is `m` the answer to `q`? Names compare without case: servers may not keep it. */
static bool is_answer(struct str q, size_t q_end, struct str m)
{
	return m.n >= q_end && memcmp(m.p, q.p, 2) == 0 && (m.p[2] & 0x80) && question_end(m) == q_end &&
	       str_eq_nocase(str_sub(q, HEADER, q_end), str_sub(m, HEADER, q_end));
}

static struct error *ask_udp(const char *server, struct str q, size_t q_end, char *buf, size_t *n)
{
	struct sockaddr_storage to = {0}, from;
	socklen_t len, from_len = sizeof from;
	int fd;
	bool v6 = server[0] == '[';

	/* A socket of its own a question: a random source port is half of what keeps forged answers out. */
	TRY(udp_open(v6 ? "[::]:0" : "0.0.0.0:0", &fd));
	struct str rest = str_from(server), host, port;
	ptrdiff_t colon = str_rindex(rest, ':');
	uint64_t number = 0;
	char text[64];

	host = str_sub(rest, v6 ? 1 : 0, (size_t)colon - (v6 ? 1 : 0));
	port = str_sub(rest, (size_t)colon + 1, rest.n);
	snprintf(text, sizeof text, "%.*s", STR_ARG(host));
	if (!str_to_u64(port, &number) || number > 65535) {
		udp_close(fd);
		return error_new("\"%s\" is not an address of a DNS server", server);
	}
	if (v6) {
		struct sockaddr_in6 *s = (struct sockaddr_in6 *)&to;

		s->sin6_family = AF_INET6;
		s->sin6_port = htons((uint16_t)number);
		len = inet_pton(AF_INET6, text, &s->sin6_addr) == 1 ? sizeof *s : 0;
	} else {
		struct sockaddr_in *s = (struct sockaddr_in *)&to;

		s->sin_family = AF_INET;
		s->sin_port = htons((uint16_t)number);
		len = inet_pton(AF_INET, text, &s->sin_addr) == 1 ? sizeof *s : 0;
	}
	struct error *e = len ? NULL : error_new("\"%s\" is not an address of a DNS server", server);

	if (!e && connect(fd, (struct sockaddr *)&to, len) < 0)
		e = error_sys(errno, "connect %s", server);
	if (!e && send(fd, q.p, q.n, MSG_NOSIGNAL) < 0)
		e = error_sys(errno, "send to %s", server);
	while (!e && !(e = udp_recv(fd, buf, MESSAGE_MAX, n, &from, &from_len)))
		if (is_answer(q, q_end, str_of(buf, *n)))
			break; /* anything else is not for us: wait on */
	udp_close(fd);
	return e;
}

static struct error *ask_tcp(const char *server, struct str q, size_t q_end, char *buf, size_t *n)
{
	struct stream *s;
	unsigned char head[2] = {(unsigned char)(q.n >> 8), (unsigned char)q.n};
	struct iovec iov[2] = {{head, 2}, {(void *)q.p, q.n}};

	TRY(stream_connect(server, &s));
	struct error *e = stream_writev(s, iov, 2);

	if (!e)
		e = stream_read_full(s, head, 2);
	if (!e) {
		*n = (size_t)(head[0] << 8 | head[1]);
		e = stream_read_full(s, buf, *n);
	}
	stream_close(s);
	if (!e && !is_answer(q, q_end, str_of(buf, *n)))
		e = error_new("%s gave an answer to something else", server);
	return e;
}

static struct error *ask(const char *server, struct str q, size_t q_end, char *buf, size_t *n)
{
	int64_t deadline = deadline_push(FORWARD_TIMEOUT_MS);
	struct error *e = ask_udp(server, q, q_end, buf, n);

	if (!e && (buf[2] & 0x02)) /* TC */
		e = ask_tcp(server, q, q_end, buf, n);
	deadline_pop(deadline);
	return error_wrap(e, "DNS server %s", server);
}

static bool from_cache(struct forwarder *f, struct arena *a, struct str key, struct str query, struct str *answer)
{
	struct cached *c = map_get(&f->cache, key);

	if (!c || c->until_ms <= now_ms())
		return false;
	char *p = arena_bytes(a, c->n);

	memcpy(p, c->bytes, c->n);
	memcpy(p, query.p, 2);
	*answer = str_of(p, c->n);
	return true;
}

static void to_cache(struct forwarder *f, struct str key, struct str m, size_t q_end)
{
	unsigned rcode = (unsigned char)m.p[3] & 15u;
	uint32_t ttl = rcode == 0 || rcode == 3 ? ttl_of(m, q_end) : 0;

	if (!ttl || (m.p[2] & 0x02))
		return;
	if (f->cache.n >= FORWARD_CACHE_MAX)
		map_free_values(&f->cache, free); /* rare, and filled again within seconds */
	struct cached *c = xmalloc(sizeof *c + m.n);

	*c = (struct cached){.until_ms = now_ms() + ttl * 1000LL, .n = m.n};
	memcpy(c->bytes, m.p, m.n);
	free(map_set(&f->cache, key, c));
}

static struct error *ask_all(struct forwarder *f, struct arena *a, struct str query, size_t q_end, struct str *answer)
{
	char *q = arena_strz(a, query), *buf = arena_bytes(a, MESSAGE_MAX);
	uint16_t id = (uint16_t)random_u64();
	struct error *e = NULL;
	size_t n = 0;

	read_resolv_conf(f);
	if (!f->n_servers)
		return error_new("no DNS server is known: /etc/resolv.conf names none");
	memcpy(q, &id, 2);
	for (size_t i = 0; i < f->n_servers; i++) {
		size_t k = (f->first + i) % f->n_servers;

		error_free(e);
		e = ask(f->servers[k], str_of(q, query.n), q_end, buf, &n);
		if (!e) {
			f->first = k;
			memcpy(buf, query.p, 2);
			*answer = str_of(buf, n);
			return NULL;
		}
		if (fiber_cancelled())
			break;
	}
	return e;
}

struct error *forward(struct forwarder *f, struct arena *a, struct str query, struct str *answer)
{
	size_t q_end = question_end(query);

	if (!q_end)
		return error_new("a message without exactly one question");
	/* The DNSSEC and recursion bits and the buffer size change the answer: the key is all but the id. */
	struct str key = str_sub(query, 2, query.n);

	if (from_cache(f, a, key, query, answer))
		return NULL;
	if (f->busy >= FORWARD_BUSY_MAX)
		return error_new("%d questions are under way", FORWARD_BUSY_MAX);
	f->busy++;
	struct error *e = ask_all(f, a, query, q_end, answer);

	f->busy--;
	if (!e)
		to_cache(f, key, *answer, q_end);
	return e;
}
