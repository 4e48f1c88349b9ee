/* CNI 1.0: network plugins run one after the other, each with the result of the one before. */
#include "runtime/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define CNI_OUTPUT_MAX (1u << 20)
#define CNI_TIMEOUT_MS 60000
#define CNI_MAX_PLUGINS 16

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

char *rt_cni_config(struct rt *rt)
{
	DIR *d = rt->o.cni_conf_dir && *rt->o.cni_conf_dir ? opendir(rt->o.cni_conf_dir) : NULL;
	char *names[256], *found = NULL;
	size_t n = 0;
	struct dirent *de;
	if (!d)
		return NULL;
	while (n < 256 && (de = readdir(d))) {
		struct str s = str_from(de->d_name);
		if (str_has_suffix(s, STR(".conflist")) || str_has_suffix(s, STR(".conf")) || str_has_suffix(s, STR(".json")))
			names[n++] = xstrdup(de->d_name);
	}
	closedir(d);
	qsort(names, n, sizeof(names[0]), by_name);
	if (n)
		found = sys_path(rt->o.cni_conf_dir, names[0]);
	for (size_t i = 0; i < n; i++)
		free(names[i]);
	return found;
}

struct plugin {
	struct str raw;  /* its JSON object */
	struct oci_v1_cni_plugin head;
};
struct network {
	struct oci_v1_cni_list list;
	bool single;
	LIST(struct plugin) plugins;
};

static struct error *load(struct arena *a, struct str text, struct network *out)
{
	TRY(error_wrap(json_decode(a, &oci_v1_cni_list_type, text, NULL, &out->list), "the CNI configuration is not valid"));
	out->single = out->list.type.n > 0 && !out->list.plugins.n;
	uint32_t n = out->single ? 1 : out->list.plugins.n;
	if (!n || n > CNI_MAX_PLUGINS)
		return error_new("the CNI configuration must name 1 to %d plugins", CNI_MAX_PLUGINS);
	for (uint32_t i = 0; i < n; i++) {
		struct plugin *p = arena_push(a, &out->plugins);
		p->raw = str_trim(out->single ? text : out->list.plugins.v[i]);
		TRY(error_wrap(json_decode(a, &oci_v1_cni_plugin_type, p->raw, NULL, &p->head), "CNI plugin %u", i + 1));
		if (!p->head.type.n || str_index(p->head.type, '/') >= 0)
			return error_new("CNI plugin %u has no valid type", i + 1);
	}
	return NULL;
}

static void json_string(struct buf *b, struct str s)
{
	buf_putc(b, '"');
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];
		if (c == '"' || c == '\\')
			buf_printf(b, "\\%c", c);
		else if (c < ' ')
			buf_printf(b, "\\u%04x", c);
		else
			buf_putc(b, (char)c);
	}
	buf_putc(b, '"');
}

/* The plugin's own JSON with the runtime's members before it. */
static void stdin_of(const struct network *net, const struct plugin *p, const struct rt_sandbox *s, struct str prev, struct buf *b)
{
	static const char *const protos[] = {"tcp", "udp", "sctp"};
	buf_putc(b, '{');
	if (!net->single) {
		buf_puts(b, "\"cniVersion\":");
		json_string(b, net->list.cni_version.n ? net->list.cni_version : STR("0.2.0"));
		buf_puts(b, ",\"name\":");
		json_string(b, net->list.name);
		buf_putc(b, ',');
	}
	if (prev.n) {
		buf_puts(b, "\"prevResult\":");
		buf_str(b, prev);
		buf_putc(b, ',');
	}
	const struct cri_v1_pod_sandbox_config *c = s->rec.config;
	if (p->head.capabilities && p->head.capabilities->port_mappings && c) {
		buf_puts(b, "\"runtimeConfig\":{\"portMappings\":[");
		bool first = true;
		for (uint32_t i = 0; i < c->port_mappings.n; i++) {
			const struct cri_v1_port_mapping *m = &c->port_mappings.v[i];
			if (m->host_port <= 0 || m->protocol < 0 || m->protocol > 2)
				continue;
			buf_printf(b, "%s{\"hostPort\":%d,\"containerPort\":%d,\"protocol\":\"%s\",\"hostIP\":", first ? "" : ",",
				   m->host_port, m->container_port, protos[m->protocol]);
			json_string(b, m->host_ip);
			buf_putc(b, '}');
			first = false;
		}
		buf_puts(b, "]},");
	}
	struct str rest = str_trim(str_sub(p->raw, 1, p->raw.n));
	if (rest.n && rest.p[0] == '}' && b->p[b->n - 1] == ',')
		b->n--;
	buf_str(b, rest);
}

struct feed {
	int fd;
	struct str data;
};

static void feed_stdin(void *arg)
{
	struct feed *f = arg;
	struct stream *s = fd_stream(f->fd);
	log_and_free(stream_write(s, f->data.p, f->data.n), "feed a CNI plugin");
	stream_close(s);
}

static struct error *run(struct rt *rt, const char *command, const struct plugin *p, struct rt_sandbox *s, const char *netns, struct str in,
			 struct buf *out)
{
	arena_cleanup struct arena a = {0};
	const struct cri_v1_pod_sandbox_metadata *m = s->rec.config ? s->rec.config->metadata : NULL;
	static const struct cri_v1_pod_sandbox_metadata none;
	m = m ? m : &none;
	const char *path = getenv("PATH");
	char *exe = NULL;
	for (struct str dirs = str_from(rt->o.cni_bin_dir); dirs.p && !exe;) {
		struct str dir = str_cut(&dirs, ':');
		char *try = arena_strz(&a, arena_printf(&a, "%.*s/%.*s", STR_ARG(dir), STR_ARG(p->head.type)));
		if (access(try, X_OK) == 0)
			exe = try;
	}
	if (!exe)
		return error_new("CNI plugin %.*s is not in %s", STR_ARG(p->head.type), rt->o.cni_bin_dir);
	const char *env[] = {
		arena_strz(&a, arena_printf(&a, "CNI_COMMAND=%s", command)),
		arena_strz(&a, arena_printf(&a, "CNI_CONTAINERID=%s", s->id)),
		arena_strz(&a, arena_printf(&a, "CNI_NETNS=%s", netns)),
		"CNI_IFNAME=eth0",
		arena_strz(&a, arena_printf(&a, "CNI_PATH=%s", rt->o.cni_bin_dir)),
		arena_strz(&a, arena_printf(&a,
					    "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=%.*s;K8S_POD_NAME=%.*s;K8S_POD_INFRA_CONTAINER_ID=%s;"
					    "K8S_POD_UID=%.*s",
					    STR_ARG(m->namespace), STR_ARG(m->name), s->id, STR_ARG(m->uid))),
		arena_strz(&a, arena_printf(&a, "PATH=%s", path ? path : "/usr/sbin:/usr/bin:/sbin:/bin")),
		NULL,
	};
	const char *argv[] = {exe, NULL};
	int ip[2] = {-1, -1}, op[2] = {-1, -1};
	if (pipe2(ip, O_CLOEXEC) < 0 || pipe2(op, O_CLOEXEC) < 0) {
		int sys = errno;
		sys_close(&ip[0]);
		sys_close(&ip[1]);
		return error_sys(sys, "make a pipe");
	}
	struct proc_opts o = {.argv = argv, .env = env, .stdin_fd = ip[0], .stdout_fd = op[1], .stderr_fd = -1, .die_with_parent = true};
	struct proc *proc;
	struct error *e = proc_spawn(&o, &proc);
	sys_close(&ip[0]);
	sys_close(&op[1]);
	if (e) {
		sys_close(&ip[1]);
		sys_close(&op[0]);
		return e;
	}
	struct feed f = {ip[1], in};
	struct fiber *feeder = fiber_start("cni-stdin", feed_stdin, &f);
	struct stream *so = fd_stream(op[0]);
	int64_t token = deadline_push(CNI_TIMEOUT_MS);
	out->limit = CNI_OUTPUT_MAX;
	for (;;) {
		char chunk[4096];
		size_t got;
		if ((e = stream_read(so, chunk, sizeof(chunk), &got)) || !got)
			break;
		buf_append(out, chunk, got);
	}
	deadline_pop(token);
	if (e)
		log_and_free(proc_kill(proc, SIGKILL), "kill CNI plugin %.*s", STR_ARG(p->head.type));
	int status = 0;
	fiber_shield_begin();
	struct error *w = proc_wait(proc, &status);
	fiber_shield_end();
	fiber_stop(feeder);
	stream_close(so);
	if (e || w) {
		if (e && w)
			error_clear(&w);
		return error_wrap(e ? e : w, "CNI plugin %.*s %s", STR_ARG(p->head.type), command);
	}
	if (out->overflow)
		return error_new("CNI plugin %.*s answered more than %u bytes", STR_ARG(p->head.type), CNI_OUTPUT_MAX);
	if (!WIFEXITED(status) || WEXITSTATUS(status)) {
		struct oci_v1_cni_result r = {0};
		struct error *bad = json_decode(&a, &oci_v1_cni_result_type, arena_str(&a, buf_view(out)), NULL, &r);
		bool said = !bad && r.msg.n;
		error_free(bad);
		return error_new("CNI plugin %.*s %s failed: %.*s %.*s", STR_ARG(p->head.type), command, STR_ARG(said ? r.msg : STR("no reason given")),
				 STR_ARG(said ? r.details : STR_NULL));
	}
	return NULL;
}

struct error *rt_cni_add(struct rt *rt, struct arena *a, struct rt_sandbox *s, const char *netns, struct strings *ips)
{
	str_cleanup char *path = rt_cni_config(rt);
	buf_cleanup struct buf text = {0};
	struct network net = {0};
	if (!path)
		return error_new("no CNI configuration in %s", rt->o.cni_conf_dir);
	TRY(sys_read_file(AT_FDCWD, path, 1 << 20, &text));
	s->rec.cni = arena_str(&s->arena, buf_view(&text)); /* DEL uses what ADD used */
	TRY(error_wrap(load(a, s->rec.cni, &net), "%s", path));
	struct str prev = STR_NULL;
	for (uint32_t i = 0; i < net.plugins.n; i++) {
		buf_cleanup struct buf in = {0}, out = {0};
		stdin_of(&net, &net.plugins.v[i], s, prev, &in);
		TRY(run(rt, "ADD", &net.plugins.v[i], s, netns, buf_view(&in), &out));
		if (str_trim(buf_view(&out)).n)
			prev = arena_str(a, str_trim(buf_view(&out)));
	}
	struct oci_v1_cni_result r = {0};
	TRY(error_wrap(json_decode(a, &oci_v1_cni_result_type, prev, NULL, &r), "the CNI plugins' result is not valid"));
	for (uint32_t i = 0; i < r.ips.n; i++) {
		struct str addr = r.ips.v[i].address;
		*arena_push(&s->arena, ips) = arena_str(&s->arena, str_cut(&addr, '/'));
	}
	if (!ips->n)
		return error_new("the CNI plugins gave the pod no address");
	return NULL;
}

struct error *rt_cni_del(struct rt *rt, struct rt_sandbox *s, const char *netns)
{
	arena_cleanup struct arena a = {0};
	struct network net = {0};
	struct error *first = NULL;
	TRY(load(&a, s->rec.cni, &net));
	for (uint32_t i = net.plugins.n; i-- > 0;) {
		buf_cleanup struct buf in = {0}, out = {0};
		stdin_of(&net, &net.plugins.v[i], s, STR_NULL, &in);
		struct error *e = run(rt, "DEL", &net.plugins.v[i], s, netns, buf_view(&in), &out);
		if (first)
			log_and_free(e, "CNI");
		else
			first = e;
	}
	return first;
}
