#include "dns/dns.h"

#include <errno.h>
#include <getopt.h>
#include <ldns/ldns.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "base/map.h"
#include "client/informer.h"
#include "dns/forward.h"
#include "dns/records.h"

#define UDP_MAX 4096          /* what we offer and send at most */
#define UDP_PLAIN 512         /* without EDNS */
#define QUERIES_MAX 1000      /* under way; past it datagrams are dropped, as DNS clients expect */
#define TCP_CLIENTS_MAX 100
#define TCP_IDLE_MS 10000


struct dns {
	struct client *client;
	struct informer *services, *slices, *namespaces;
	struct map slices_of;     /* "ns/service" -> struct map * of slice names */
	struct map by_ip;         /* ip -> "ns/service[/endpoint]" (malloc'ed) */
	struct dns_view view;
	struct forwarder *forwarder;
	struct str domain;
	const char *kubeconfig, *listen, *upstream;
	int udp;
	size_t queries, tcp_clients;
	struct error *error;
};

/* ---- what the cluster has ---- */

static bool has_namespace(void *ctx, struct str ns)
{
	return informer_peek(((struct dns *)ctx)->namespaces, STR_NULL, ns) != NULL;
}

static struct core_v1_service *get_service(void *ctx, struct arena *a, struct str ns, struct str name)
{
	return informer_get(((struct dns *)ctx)->services, a, ns, name);
}

static size_t get_slices(void *ctx, struct arena *a, struct str ns, struct str name, struct discovery_v1_endpoint_slice ***out)
{
	struct dns *d = ctx;
	struct map *names = map_get(&d->slices_of, arena_printf(a, "%.*s/%.*s", STR_ARG(ns), STR_ARG(name)));
	struct str key;
	size_t n = 0;

	*out = arena_array(a, struct discovery_v1_endpoint_slice *, names ? names->n : 0);
	for (size_t it = 0; names && map_next(names, &it, &key, NULL);) {
		struct discovery_v1_endpoint_slice *s = informer_get(d->slices, a, ns, key);

		if (s)
			(*out)[n++] = s;
	}
	return n;
}

static bool get_by_ip(void *ctx, struct arena *a, struct str ip, struct str *ns, struct str *service, struct str *endpoint)
{
	const char *found = map_get(&((struct dns *)ctx)->by_ip, ip);

	if (!found)
		return false;
	struct str rest = arena_str(a, str_from(found));

	*ns = str_cut(&rest, '/');
	*service = str_cut(&rest, '/');
	*endpoint = rest;
	return true;
}

static void set_ip(struct dns *d, struct str ip, struct str ns, struct str service, struct str endpoint)
{
	free(map_set(&d->by_ip, ip, xasprintf("%.*s/%.*s%s%.*s", STR_ARG(ns), STR_ARG(service), endpoint.n ? "/" : "", STR_ARG(endpoint))));
}

static void service_ips(struct dns *d, const struct cached_object *o, bool add)
{
	arena_cleanup struct arena a = {0};
	struct core_v1_service *s = cached_decode(d->services, &a, o);

	for (uint32_t i = 0; i < s->spec.cluster_ips.n; i++) {
		if (str_eq(s->spec.cluster_ips.v[i], STR("None")))
			continue;
		if (add)
			set_ip(d, s->spec.cluster_ips.v[i], o->ns, o->name, STR_NULL);
		else
			free(map_del(&d->by_ip, s->spec.cluster_ips.v[i]));
	}
}

static void on_service(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	if (old)
		service_ips(ctx, old, false);
	if (new_)
		service_ips(ctx, new_, true);
}

static struct str service_of(const struct cached_object *o)
{
	return str_map_get(&o->labels, STR("kubernetes.io/service-name"));
}

/* Endpoints with a hostname answer reverse questions; others' pods may be in many Services. */
static void slice_ips(struct dns *d, struct arena *a, const struct cached_object *o, bool add)
{
	struct discovery_v1_endpoint_slice *s = cached_decode(d->slices, a, o);

	for (uint32_t i = 0; i < s->endpoints.n; i++) {
		const struct discovery_v1_endpoint *e = &s->endpoints.v[i];

		if (!e->hostname || !e->hostname->n || !e->addresses.n)
			continue;
		if (add)
			set_ip(d, e->addresses.v[0], o->ns, service_of(o), *e->hostname);
		else
			free(map_del(&d->by_ip, e->addresses.v[0]));
	}
}

static void index_slice(struct dns *d, const struct cached_object *o, bool add)
{
	arena_cleanup struct arena a = {0};

	if (!service_of(o).n)
		return;
	struct str key = arena_printf(&a, "%.*s/%.*s", STR_ARG(o->ns), STR_ARG(service_of(o)));
	struct map *names = map_get(&d->slices_of, key);

	slice_ips(d, &a, o, add);
	if (add) {
		if (!names)
			map_set(&d->slices_of, key, names = xcalloc(1, sizeof *names));
		map_set(names, o->name, d);
	} else if (names) {
		map_del(names, o->name);
		if (!names->n) {
			map_free(names);
			free(map_del(&d->slices_of, key));
		}
	}
}

static void on_slice(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	if (old)
		index_slice(ctx, old, false);
	if (new_)
		index_slice(ctx, new_, true);
}

/* ---- messages ---- */

static inline void free_packet(ldns_pkt **p)
{
	ldns_pkt_free(*p);
}
#define packet_cleanup __attribute__((cleanup(free_packet)))

static void push(ldns_pkt *p, ldns_pkt_section section, struct arena *a, struct str text)
{
	ldns_rr *rr = NULL;

	/* Names come from the API and are checked there; one that is not a DNS name after all is left out. */
	if (ldns_rr_new_frm_str(&rr, arena_strz(a, text), DNS_TTL, NULL, NULL) == LDNS_STATUS_OK)
		ldns_pkt_push_rr(p, section, rr);
	else
		log_v(2, "not a record: %.*s", STR_ARG(text));
}

/* The name asked for: lower case, no final dot. */
static struct str question_name(struct arena *a, const ldns_rr *q)
{
	char *text = ldns_rdf2str(ldns_rr_owner(q));
	struct str s = arena_str(a, str_from(text));
	char *p = (char *)s.p;

	free(text);
	for (size_t i = 0; i < s.n; i++)
		if (p[i] >= 'A' && p[i] <= 'Z')
			p[i] |= 0x20;
	return s.n > 1 && p[s.n - 1] == '.' ? str_sub(s, 0, s.n - 1) : s;
}

/* Appends what the forwarder says of `name`, for a Service of type ExternalName. */
static void append_external(struct dns *d, struct arena *a, ldns_pkt *reply, struct str name, ldns_rr_type type)
{
	ldns_rdf *owner = ldns_dname_new_frm_str(arena_strz(a, name));
	packet_cleanup ldns_pkt *q = owner ? ldns_pkt_query_new(owner, type, LDNS_RR_CLASS_IN, LDNS_RD) : NULL, *got = NULL;
	uint8_t *wire = NULL;
	size_t n = 0;
	struct str answer;

	if (!q || ldns_pkt2wire(&wire, q, &n) != LDNS_STATUS_OK)
		return;
	struct error *e = forward(d->forwarder, a, str_of((char *)wire, n), &answer);

	free(wire);
	if (!e && ldns_wire2pkt(&got, (const uint8_t *)answer.p, answer.n) == LDNS_STATUS_OK) {
		ldns_rr_list *list = ldns_pkt_answer(got);

		for (size_t i = 0; i < ldns_rr_list_rr_count(list); i++)
			ldns_pkt_push_rr(reply, LDNS_SECTION_ANSWER, ldns_rr_clone(ldns_rr_list_rr(list, i)));
	}
	log_and_free(e, "external name %.*s", STR_ARG(name));
}

static ldns_pkt *reply_to(const ldns_pkt *query)
{
	ldns_pkt *r = ldns_pkt_new();

	ldns_pkt_set_id(r, ldns_pkt_id(query));
	ldns_pkt_set_qr(r, true);
	ldns_pkt_set_rd(r, ldns_pkt_rd(query));
	ldns_pkt_set_ra(r, true);
	ldns_pkt_set_opcode(r, ldns_pkt_get_opcode(query));
	if (ldns_pkt_edns(query)) {
		ldns_pkt_set_edns_udp_size(r, UDP_MAX);
	}
	return r;
}

static struct str to_wire(struct arena *a, ldns_pkt *p)
{
	uint8_t *wire = NULL;
	size_t n = 0;

	if (ldns_pkt2wire(&wire, p, &n) != LDNS_STATUS_OK)
		return STR_NULL;
	struct str s = arena_str(a, str_of((char *)wire, n));

	free(wire);
	return s;
}

/* Only header, question and EDNS, with TC: the client asks again over TCP. */
static struct str truncated(struct arena *a, const ldns_pkt *query, ldns_pkt_rcode rcode)
{
	packet_cleanup ldns_pkt *r = reply_to(query);

	ldns_pkt_push_rr(r, LDNS_SECTION_QUESTION, ldns_rr_clone(ldns_rr_list_rr(ldns_pkt_question(query), 0)));
	ldns_pkt_set_aa(r, true);
	ldns_pkt_set_tc(r, true);
	ldns_pkt_set_rcode(r, rcode);
	return to_wire(a, r);
}

static struct str fail(struct arena *a, const ldns_pkt *query, ldns_pkt_rcode rcode)
{
	packet_cleanup ldns_pkt *r = reply_to(query);

	if (ldns_pkt_qdcount(query) == 1)
		ldns_pkt_push_rr(r, LDNS_SECTION_QUESTION, ldns_rr_clone(ldns_rr_list_rr(ldns_pkt_question(query), 0)));
	ldns_pkt_set_rcode(r, rcode);
	return to_wire(a, r);
}

static struct str answer_own(struct dns *d, struct arena *a, const ldns_pkt *query, struct str name, ldns_rr_type type, size_t limit)
{
	packet_cleanup ldns_pkt *r = reply_to(query);
	struct dns_answer ans;

	dns_resolve(&d->view, a, d->domain, name, (uint16_t)type, &ans);
	ldns_pkt_push_rr(r, LDNS_SECTION_QUESTION, ldns_rr_clone(ldns_rr_list_rr(ldns_pkt_question(query), 0)));
	ldns_pkt_set_aa(r, true);
	ldns_pkt_set_rcode(r, (uint8_t)ans.rcode);
	for (uint32_t i = 0; i < ans.answers.n; i++)
		push(r, LDNS_SECTION_ANSWER, a, ans.answers.v[i]);
	for (uint32_t i = 0; i < ans.additional.n; i++)
		push(r, LDNS_SECTION_ADDITIONAL, a, ans.additional.v[i]);
	if (ans.cname.n && type != LDNS_RR_TYPE_CNAME)
		append_external(d, a, r, ans.cname, type);
	/* The SOA tells resolvers how long "there is none" holds (RFC 2308). */
	if (!ans.answers.n)
		push(r, LDNS_SECTION_AUTHORITY, a, arena_printf(a, "%.*s. %d IN SOA ns.dns.%.*s. hostmaster.%.*s. 1 7200 1800 86400 %d",
								STR_ARG(d->domain), DNS_TTL, STR_ARG(d->domain), STR_ARG(d->domain), DNS_TTL));
	struct str wire = to_wire(a, r);

	return wire.n > limit ? truncated(a, query, (ldns_pkt_rcode)ans.rcode) : wire;
}

/* The answer to one message; empty: none is owed (not a query). */
static struct str handle(struct dns *d, struct arena *a, struct str message, bool tcp)
{
	packet_cleanup ldns_pkt *query = NULL;
	struct str answer;

	if (ldns_wire2pkt(&query, (const uint8_t *)message.p, message.n) != LDNS_STATUS_OK) {
		/* FORMERR needs no more than the id. */
		if (message.n < 12 || (message.p[2] & 0x80))
			return STR_NULL;
		char *p = arena_strz(a, str_sub(message, 0, 12));

		p[2] = (char)0x80;
		p[3] = DNS_FORMERR;
		memset(p + 4, 0, 8);
		return str_of(p, 12);
	}
	if (ldns_pkt_qr(query))
		return STR_NULL;
	if (ldns_pkt_get_opcode(query) != LDNS_PACKET_QUERY)
		return fail(a, query, LDNS_RCODE_NOTIMPL);
	if (ldns_pkt_qdcount(query) != 1)
		return fail(a, query, LDNS_RCODE_FORMERR);
	ldns_rr *q = ldns_rr_list_rr(ldns_pkt_question(query), 0);
	struct str name = question_name(a, q);
	size_t limit = tcp ? 65535 : ldns_pkt_edns(query) ? ldns_pkt_edns_udp_size(query) : UDP_PLAIN;

	if (!tcp)
		limit = limit < UDP_PLAIN ? UDP_PLAIN : limit > UDP_MAX ? UDP_MAX : limit;
	if (dns_ours(&d->view, a, d->domain, name))
		return answer_own(d, a, query, name, ldns_rr_get_type(q), limit);
	struct error *e = forward(d->forwarder, a, message, &answer);

	if (e) {
		log_v(2, "%.*s: %s", STR_ARG(name), error_message(e));
		error_free(e);
		return fail(a, query, LDNS_RCODE_SERVFAIL);
	}
	return answer.n > limit ? truncated(a, query, (ldns_pkt_rcode)(answer.p[3] & 15)) : answer;
}

/* ---- sockets ---- */

struct datagram {
	struct dns *d;
	struct sockaddr_storage from;
	socklen_t from_len;
	size_t n;
	char bytes[];
};

static void answer_datagram(void *arg)
{
	struct datagram *g = arg;
	struct dns *d = g->d;
	arena_cleanup struct arena a = {0};
	struct str answer = handle(d, &a, str_of(g->bytes, g->n), false);

	if (answer.n) {
		struct error *e = udp_send(d->udp, answer.p, answer.n, (struct sockaddr *)&g->from, g->from_len);

		log_and_free(e, "answering a datagram");
	}
	d->queries--;
	free(g);
}

static void serve_udp(void *arg)
{
	struct dns *d = arg;
	char buf[UDP_MAX];

	for (;;) {
		struct sockaddr_storage from;
		socklen_t len = sizeof from;
		size_t n;
		struct error *e = udp_recv(d->udp, buf, sizeof buf, &n, &from, &len);

		if (fiber_cancelled()) {
			error_free(e);
			return;
		}
		if (e) {
			log_and_free(e, "reading a datagram"); /* e.g. ECONNREFUSED of an earlier answer */
			continue;
		}
		if (d->queries >= QUERIES_MAX)
			continue;
		struct datagram *g = xmalloc(sizeof *g + n);

		*g = (struct datagram){d, from, len, n};
		memcpy(g->bytes, buf, n);
		d->queries++;
		fiber_spawn("dns-query", answer_datagram, g);
	}
}

struct tcp {
	struct dns *d;
	struct stream *s;
};

static struct error *tcp_query(struct tcp *t)
{
	arena_cleanup struct arena a = {0};
	unsigned char head[2];

	TRY(stream_read_full(t->s, head, 2));
	size_t n = (size_t)(head[0] << 8 | head[1]);
	char *m = arena_bytes(&a, n);

	TRY(stream_read_full(t->s, m, n));
	struct str answer = handle(t->d, &a, str_of(m, n), true);

	if (!answer.n)
		return error_new("not a query");
	head[0] = (unsigned char)(answer.n >> 8);
	head[1] = (unsigned char)answer.n;
	struct iovec iov[2] = {{head, 2}, {(void *)answer.p, answer.n}};

	return stream_writev(t->s, iov, 2);
}

static void serve_tcp_client(void *arg)
{
	struct tcp *t = arg;
	struct error *e = NULL;

	while (!e) {
		int64_t deadline = deadline_push(TCP_IDLE_MS);

		e = tcp_query(t);
		deadline_pop(deadline);
	}
	error_free(e); /* the end of a connection is no event */
	stream_close(t->s);
	t->d->tcp_clients--;
	free(t);
}

struct tcp_server {
	struct dns *d;
	struct listener *l;
};

static void serve_tcp(void *arg)
{
	struct tcp_server *srv = arg;

	for (;;) {
		struct stream *s;
		struct error *e = listener_accept(srv->l, &s, NULL);

		if (fiber_cancelled()) {
			error_free(e);
			return;
		}
		if (e) {
			log_and_free(e, "accepting a connection");
			error_free(fiber_sleep(100)); /* out of descriptors: do not spin */
			continue;
		}
		if (srv->d->tcp_clients >= TCP_CLIENTS_MAX) {
			stream_close(s);
			continue;
		}
		struct tcp *t = xmalloc(sizeof *t);

		*t = (struct tcp){srv->d, s};
		srv->d->tcp_clients++;
		fiber_spawn("dns-tcp", serve_tcp_client, t);
	}
}

/* ---- the component ---- */

static struct informer *watch(struct dns *d, const struct api_resource *r, bool metadata, informer_handler *h)
{
	struct informer_opts o = {.resource = r, .metadata_only = metadata};
	struct informer *i = informer_new(d->client, &o);

	if (h)
		informer_on_event(i, h, d);
	informer_start(i);
	return i;
}

static struct error *run(struct dns *d)
{
	static const int stop[] = {SIGTERM, SIGINT};
	arena_cleanup struct arena a = {0};
	struct client_config cfg = {0};
	static struct tcp_server tcp;
	int sig;

	TRY(d->kubeconfig ? client_config_load(&a, d->kubeconfig, NULL, &cfg) : client_config_in_cluster(&a, &cfg));
	TRY(client_new(&cfg, &d->client));
	/* Listening first: a taken port is said at once, and queries wait in the socket meanwhile. */
	TRY(udp_open(d->listen, &d->udp));
	TRY(listener_open(d->listen, 0, &tcp.l));
	d->forwarder = forwarder_new(d->upstream, d->listen);
	d->view = (struct dns_view){d, has_namespace, get_service, get_slices, get_by_ip};
	d->services = watch(d, &core_v1_services_resource, false, on_service);
	d->slices = watch(d, &discovery_v1_endpointslices_resource, false, on_slice);
	d->namespaces = watch(d, &core_v1_namespaces_resource, true, NULL);
	TRY(informer_wait_synced(d->services));
	TRY(informer_wait_synced(d->slices));
	TRY(informer_wait_synced(d->namespaces));
	log_info("answering for %.*s on %s", STR_ARG(d->domain), d->listen);
	tcp.d = d;
	fiber_spawn("dns-udp", serve_udp, d);
	fiber_spawn("dns-tcp-accept", serve_tcp, &tcp);
	TRY(signal_wait(stop, 2, &sig));
	log_info("signal %d: ending", sig);
	return NULL;
}

static void main_fiber(void *arg)
{
	struct dns *d = arg;

	d->error = run(d);
}

enum { OPT_KUBECONFIG = 256, OPT_LISTEN, OPT_DOMAIN, OPT_UPSTREAM, OPT_VERSION };

int cluster_dns_main(int argc, char **argv)
{
	static const struct option options[] = {
		{"kubeconfig", required_argument, NULL, OPT_KUBECONFIG},
		{"listen", required_argument, NULL, OPT_LISTEN},
		{"cluster-domain", required_argument, NULL, OPT_DOMAIN},
		{"forward", required_argument, NULL, OPT_UPSTREAM},
		{"v", required_argument, NULL, 'v'},
		{"version", no_argument, NULL, OPT_VERSION},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	static const char usage[] = "usage: cluster-dns [options]\nAnswers the names of Services and pods; forwards all others.\n\n"
		"  --kubeconfig FILE        how to reach the API server (default: the service account of the pod it runs in)\n"
		"  --listen IP:PORT         UDP and TCP (default 0.0.0.0:53)\n"
		"  --cluster-domain DOMAIN  (default cluster.local)\n"
		"  --forward IP[:PORT],...  servers for other names (default: those of /etc/resolv.conf)\n"
		"  --v N                    log more\n";
	struct dns d = {.listen = "0.0.0.0:53", .domain = STR("cluster.local")};

	for (int o; (o = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
		switch (o) {
		case OPT_KUBECONFIG: d.kubeconfig = optarg; break;
		case OPT_LISTEN: d.listen = optarg; break;
		case OPT_DOMAIN: d.domain = str_from(optarg); break;
		case OPT_UPSTREAM: d.upstream = optarg; break;
		case 'v': log_init("cluster-dns", atoi(optarg)); break;
		case OPT_VERSION: printf("Kubernetes v1.36.0+skiff\n"); return 0;
		case 'h': fputs(usage, stdout); return 0;
		default: fputs(usage, stderr); return 2;
		}
	}
	struct error *e = loop_run(main_fiber, &d);

	if (!e)
		e = d.error;
	if (e && !error_is_sys(e, ECANCELED)) {
		log_and_free(e, "cluster-dns");
		return 1;
	}
	error_free(e);
	return 0;
}
