/* skiff token create|list: bootstrap tokens (Secrets of type bootstrap.kubernetes.io/token in kube-system). */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>

#include "cmd/join.h"
#include "cmd/up.h"
#include "loop/io.h"

#define TOKEN_TYPE "bootstrap.kubernetes.io/token"
#define TTL_DEFAULT "24h"

static const char usage[] =
	"usage: skiff token create [--ttl DURATION] [--data-dir DIR]   a token, and the command that joins a machine with it\n"
	"       skiff token list [--data-dir DIR]                      those that there are\n\n"
	"  --ttl DURATION   how long it may be used, e.g. 30m (default " TTL_DEFAULT "; 0: until it is deleted)\n"
	"  --data-dir DIR   the cluster's data directory (default " SKIFF_DATA_DIR ")\n"
	"A token is a Secret: 'kubectl -n kube-system delete secret bootstrap-token-ID' revokes it.\n";

struct command {
	struct cluster c;
	int64_t ttl_ns;
	struct error *(*run)(struct command *k, struct client *client);
	struct error *error;
};

/* n characters of [a-z0-9], each as likely as any. */
static const char *random_text(struct arena *a, int n)
{
	char *p = arena_alloc(a, (size_t)n + 1);

	for (int i = 0; i < n;) {
		uint8_t b;

		random_bytes(&b, 1);
		if (b < 252)
			p[i++] = "abcdefghijklmnopqrstuvwxyz0123456789"[b % 36];
	}
	p[n] = 0;
	return p;
}

static void put(struct arena *a, struct core_v1_secret *s, const char *key, struct str value)
{
	str_map_set(a, (struct str_map *)(void *)&s->data, str_from(key), value);
}

static struct error *create(struct command *k, struct client *client)
{
	struct arena *a = k->c.a;
	const char *id = random_text(a, 6), *secret = random_text(a, 16), *hash;
	struct core_v1_secret s = {.type = STR(TOKEN_TYPE)};
	buf_cleanup struct buf ca = {0};

	TRY(file_read(data_path(&k->c, "pki/ca.crt"), &ca));
	TRY(join_ca_hash(a, buf_view(&ca), &hash));
	s.metadata.name = arena_printf(a, "bootstrap-token-%s", id);
	put(a, &s, "token-id", str_from(id));
	put(a, &s, "token-secret", str_from(secret));
	put(a, &s, "usage-bootstrap-authentication", STR("true"));
	put(a, &s, "usage-bootstrap-signing", STR("true"));
	put(a, &s, "auth-extra-groups", STR(NODE_BOOTSTRAP_GROUP));
	if (k->ttl_ns) {
		const struct api_time end = {.s = (wall_ns() + k->ttl_ns) / 1000000000, .set = true};

		put(a, &s, "expiration", time_format(a, end, false));
	}
	TRY(client_create(client, a, &core_v1_secrets_resource, STR("kube-system"), &s, NULL));
	printf("skiff agent --server https://%s:%d --token %s.%s --ca-cert-hash %s\n", k->c.node_ip, k->c.api_port, id, secret, hash);
	return NULL;
}

static struct error *list(struct command *k, struct client *client)
{
	struct core_v1_secret_list *secrets;
	const struct list_opts o = {.field_selector = STR("type=" TOKEN_TYPE)};

	TRY(client_list(client, k->c.a, &core_v1_secrets_resource, STR("kube-system"), &o, (void **)&secrets));
	printf("%-8s %-22s %s\n", "ID", "EXPIRES", "GROUPS");
	for (uint32_t i = 0; i < secrets->items.n; i++) {
		const struct str_map *data = API_MAP(&secrets->items.v[i].data);
		struct str id = str_map_get(data, STR("token-id")), end = str_map_get(data, STR("expiration"));
		struct str groups = str_map_get(data, STR("auth-extra-groups"));

		printf("%-8.*s %-22.*s %.*s\n", STR_ARG(id), end.n ? (int)end.n : 5, end.n ? end.p : "never", STR_ARG(groups));
	}
	return NULL;
}

static void run(void *arg)
{
	struct command *k = arg;
	struct client_config cfg;
	struct client *client = NULL;

	k->error = cluster_init(&k->c);
	if (!k->error)
		k->error = client_config_load(k->c.a, data_path(&k->c, "admin.kubeconfig"), NULL, &cfg);
	if (!k->error)
		k->error = client_new(&cfg, &client);
	if (!k->error)
		k->error = k->run(k, client);
	client_free(client);
}

int token_main(int argc, char **argv)
{
	static const struct option options[] = {
		{"data-dir", required_argument, NULL, 'd'}, {"ttl", required_argument, NULL, 't'}, {"help", no_argument, NULL, 'h'}, {0},
	};
	arena_cleanup struct arena a = {0};
	struct command k = {.c = {.a = &a, .nodes = -1}};

	duration_parse(STR(TTL_DEFAULT), &k.ttl_ns);
	for (int o; (o = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
		switch (o) {
		case 'd': k.c.data_dir = optarg; break;
		case 't':
			if (!duration_parse(str_from(optarg), &k.ttl_ns) || k.ttl_ns < 0) {
				fprintf(stderr, "skiff: --ttl: \"%s\" is not a duration such as 30m or 24h\n", optarg);
				return 2;
			}
			break;
		case 'h': fputs(usage, stdout); return 0;
		default: fputs(usage, stderr); return 2;
		}
	}
	if (optind + 1 == argc && strcmp(argv[optind], "create") == 0)
		k.run = create;
	else if (optind + 1 == argc && strcmp(argv[optind], "list") == 0)
		k.run = list;
	if (!k.run) {
		fputs(usage, stderr);
		return 2;
	}
	struct error *e = loop_run(run, &k);

	if (!e)
		e = k.error;
	if (e)
		fprintf(stderr, "skiff: %s\n", error_message(e));
	error_free(e);
	return e ? 1 : 0;
}
