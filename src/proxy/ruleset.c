#include "proxy/ruleset.h"

#include <stdlib.h>

#include "base/log.h"

void ruleset_free(struct ruleset *r)
{
	map_free_values(&r->chains, free);
	map_free_values(&r->sets, free);
	map_free_values(&r->elements, free);
}

void ruleset_chain(struct ruleset *r, struct str name, struct str rules)
{
	free(map_set(&r->chains, name, str_dupz(rules)));
}

void ruleset_set(struct ruleset *r, struct str name, struct str body)
{
	free(map_set(&r->sets, name, str_dupz(body)));
}

void ruleset_element(struct ruleset *r, const char *map, struct str key, struct str value)
{
	char *k = xasprintf("%s %.*s", map, STR_ARG(key));

	free(map_set(&r->elements, str_from(k), str_dupz(value)));
	free(k);
}

static void element(struct buf *out, const char *verb, struct str key, const char *value)
{
	struct str rest = key, map = str_cut(&rest, ' ');

	buf_printf(out, "%s element " PROXY_TABLE " %.*s { %.*s%s%s }\n", verb, STR_ARG(map), STR_ARG(rest), *value ? " : " : "", value);
}

static void rules(struct buf *out, struct str chain, const char *text)
{
	for (struct str rest = str_from(text); rest.p;) {
		struct str line = str_cut(&rest, '\n');

		if (line.n)
			buf_printf(out, "add rule " PROXY_TABLE " %.*s %.*s\n", STR_ARG(chain), STR_ARG(line));
	}
}

void ruleset_diff(const struct ruleset *from, const struct ruleset *to, struct buf *out)
{
	struct str key;
	void *v;

	/* What is named first. A set's declaration never changes under its name (the name holds what it depends on). */
	for (size_t it = 0; map_next(&to->sets, &it, &key, &v);)
		if (!map_has(&from->sets, key))
			buf_printf(out, "add set " PROXY_TABLE " %.*s { %s }\n", STR_ARG(key), (char *)v);
	for (size_t it = 0; map_next(&to->chains, &it, &key, &v);)
		if (!map_has(&from->chains, key))
			buf_printf(out, "add chain " PROXY_TABLE " %.*s\n", STR_ARG(key));
	/* Elements that go or change: a map element cannot be overwritten. */
	for (size_t it = 0; map_next(&from->elements, &it, &key, &v);) {
		const char *now = map_get(&to->elements, key);

		if (!now || strcmp(now, v) != 0)
			element(out, "delete", key, v);
	}
	for (size_t it = 0; map_next(&to->chains, &it, &key, &v);) {
		const char *was = map_get(&from->chains, key);

		if (was && strcmp(was, v) == 0)
			continue;
		if (was)
			buf_printf(out, "flush chain " PROXY_TABLE " %.*s\n", STR_ARG(key));
		rules(out, key, v);
	}
	for (size_t it = 0; map_next(&to->elements, &it, &key, &v);) {
		const char *was = map_get(&from->elements, key);

		if (!was || strcmp(was, v) != 0)
			element(out, "add", key, v);
	}
	/* Chains that go may name each other: all are emptied before one is deleted. */
	for (size_t it = 0; map_next(&from->chains, &it, &key, &v);)
		if (!map_has(&to->chains, key))
			buf_printf(out, "flush chain " PROXY_TABLE " %.*s\n", STR_ARG(key));
	for (size_t it = 0; map_next(&from->chains, &it, &key, &v);)
		if (!map_has(&to->chains, key))
			buf_printf(out, "delete chain " PROXY_TABLE " %.*s\n", STR_ARG(key));
	for (size_t it = 0; map_next(&from->sets, &it, &key, &v);)
		if (!map_has(&to->sets, key))
			buf_printf(out, "delete set " PROXY_TABLE " %.*s\n", STR_ARG(key));
}

void ruleset_base(struct buf *out, const char *cluster_cidr)
{
	buf_puts(out, "add table " PROXY_TABLE "\ndelete table " PROXY_TABLE "\ntable " PROXY_TABLE " {\n"
		"  map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }\n"
		"  map service-nodeports { type inet_proto . inet_service : verdict; }\n"
		"  map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; }\n"
		"  map no-endpoint-nodeports { type inet_proto . inet_service : verdict; }\n"
		"  set hairpin { type ipv4_addr . ipv4_addr; }\n"
		"  set cluster-ips { type ipv4_addr; }\n"
		"  chain reject-chain { reject; }\n"
		"  chain mark-for-masquerade { meta mark set meta mark or 0x4000; }\n"
		"  chain services {\n"
		"    ip daddr . meta l4proto . th dport vmap @service-ips\n"
		"    ip daddr != 127.0.0.0/8 fib daddr type local meta l4proto . th dport vmap @service-nodeports\n"
		"  }\n"
		"  chain prerouting { type nat hook prerouting priority dstnat; policy accept; jump services; }\n"
		"  chain output { type nat hook output priority -100; policy accept; jump services; }\n"
		"  chain postrouting { type nat hook postrouting priority srcnat; policy accept;\n"
		"    meta mark and 0x4000 != 0 meta mark set meta mark xor 0x4000 masquerade fully-random\n"
		"    ct status dnat ip saddr . ip daddr @hairpin masquerade fully-random\n"
		"  }\n"
		"  chain no-endpoints {\n"
		"    ip daddr . meta l4proto . th dport vmap @no-endpoint-services\n"
		"    fib daddr type local meta l4proto . th dport vmap @no-endpoint-nodeports\n"
		"  }\n"
		/* Before DNAT a known ClusterIP on a port that no Service has would be routed out of the cluster. */
		"  chain cluster-ips-check { ip daddr @cluster-ips reject; }\n"
		"  chain filter-input { type filter hook input priority -110; policy accept; ct state new jump no-endpoints; }\n"
		"  chain filter-forward { type filter hook forward priority -110; policy accept;\n"
		"    ct state new jump no-endpoints\n    ct state new jump cluster-ips-check\n  }\n"
		"  chain filter-output { type filter hook output priority -90; policy accept;\n"
		"    ct state new jump no-endpoints\n    ct state new jump cluster-ips-check\n  }\n"
		"}\n");
	if (cluster_cidr)
		buf_printf(out, "add set " PROXY_TABLE " pod-cidr { type ipv4_addr; flags interval; elements = { %s }; }\n", cluster_cidr);
	if (cluster_cidr)
		buf_printf(out, "add chain " PROXY_TABLE " from-outside\n"
			   "add rule " PROXY_TABLE " from-outside ip saddr != %s jump mark-for-masquerade\n", cluster_cidr);
}
