#include "runtime/runtime.h"
#include "runtime/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define CLEANUP_WAIT_MS 15000

static const char help[] =
	"Usage: skiff runtime [flags]\n"
	"\n"
	"The container runtime: a CRI v1 server (RuntimeService and ImageService) over crun and conmon.\n"
	"SIGTERM and SIGINT end it; containers go on and are found again at the next start.\n"
	"\n"
	"      --listen ADDR           unix socket to serve CRI on (default unix:///run/skiff/runtime.sock)\n"
	"      --root DIR              images, container layers and state (default /var/lib/skiff/runtime)\n"
	"      --image-root DIR        --root whose images are used, to share them between nodes of one machine (default: --root)\n"
	"      --state-dir DIR         what lasts until the next boot (default /run/skiff/runtime)\n"
	"      --cgroup-root PATH      parent cgroup of pods whose kubelet names none (default /skiff)\n"
	"      --pod-cidr CIDR[,CIDR]  addresses of this node's pods; usually told by the kubelet\n"
	"      --cluster-cidr CIDR[,CIDR]  addresses of all pods: traffic to them is not masqueraded (default: the pod CIDR)\n"
	"      --service-cidr CIDR[,CIDR]  addresses of Services: routed, for the machine itself, where nothing else routes them\n"
	"      --bridge NAME           bridge of the built-in network (default skiff0)\n"
	"      --cni-conf-dir DIR      CNI configurations; the first is used instead of the bridge (default /etc/cni/net.d)\n"
	"      --cni-bin-dir DIR[:DIR] CNI plugins (default /opt/cni/bin:/usr/lib/cni)\n"
	"      --crun PATH             OCI runtime (default crun, found in PATH)\n"
	"      --conmon PATH           container monitor (default conmon, found in PATH)\n"
	"      --max-layer-bytes N     largest image layer, unpacked (default 64 GiB)\n"
	"  -v, --v N                   log verbosity (klog's numbers, default 0)\n"
	"  -h, --help                  this text\n"
	"      --version               print the version\n";

enum { O_LISTEN = 256, O_ROOT, O_IMAGE_ROOT, O_STATE, O_CGROUP, O_POD_CIDR, O_CLUSTER_CIDR, O_SERVICE_CIDR, O_BRIDGE, O_CNI_CONF, O_CNI_BIN, O_CRUN, O_CONMON, O_MAX_LAYER, O_VERSION };

static const struct option options[] = {
	{"listen", required_argument, NULL, O_LISTEN},
	{"root", required_argument, NULL, O_ROOT},
	{"image-root", required_argument, NULL, O_IMAGE_ROOT},
	{"state-dir", required_argument, NULL, O_STATE},
	{"cgroup-root", required_argument, NULL, O_CGROUP},
	{"pod-cidr", required_argument, NULL, O_POD_CIDR},
	{"cluster-cidr", required_argument, NULL, O_CLUSTER_CIDR},
	{"service-cidr", required_argument, NULL, O_SERVICE_CIDR},
	{"bridge", required_argument, NULL, O_BRIDGE},
	{"cni-conf-dir", required_argument, NULL, O_CNI_CONF},
	{"cni-bin-dir", required_argument, NULL, O_CNI_BIN},
	{"crun", required_argument, NULL, O_CRUN},
	{"conmon", required_argument, NULL, O_CONMON},
	{"max-layer-bytes", required_argument, NULL, O_MAX_LAYER},
	{"v", required_argument, NULL, 'v'},
	{"help", no_argument, NULL, 'h'},
	{"version", no_argument, NULL, O_VERSION},
	{NULL, 0, NULL, 0},
};

static void defaults(struct rt_opts *o)
{
	*o = (struct rt_opts){
		.listen = "unix:///run/skiff/runtime.sock",
		.root = "/var/lib/skiff/runtime",
		.state_dir = "/run/skiff/runtime",
		.cgroup_root = "/skiff",
		.cni_conf_dir = "/etc/cni/net.d",
		.cni_bin_dir = "/opt/cni/bin:/usr/lib/cni",
		.cluster_cidr = "",
		.service_cidr = "",
		.bridge = "skiff0",
		.crun = "crun",
		.conmon = "conmon",
		.stream_addr = "127.0.0.1:0",
	};
}

/* An absolute path of a program: conmon starts crun itself and looks in no PATH. */
static char *find_program(const char *name)
{
	static const char *const dirs[] = {"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"};
	if (strchr(name, '/'))
		return access(name, X_OK) == 0 ? xstrdup(name) : NULL;
	for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
		char *p = sys_path(dirs[i], name);
		if (access(p, X_OK) == 0)
			return p;
		free(p);
	}
	return NULL;
}

static bool yes_file(const char *path)
{
	buf_cleanup struct buf b = {0};
	struct error *e = sys_read_file(AT_FDCWD, path, 64, &b);
	bool yes = !e && b.n && (b.p[0] == 'Y' || b.p[0] == '1');
	error_free(e);
	return yes;
}

/* Whether overlayfs works on the file system that containers' layers stand on. */
static struct error *probe_overlay(void *arg)
{
	struct rt *rt = arg;
	static const char *const dirs[] = {"lower", "upper", "work", "merged"};
	str_cleanup char *base = sys_path(rt->o.root, "overlay-probe");
	TRY(sys_remove_tree(base));
	for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
		str_cleanup char *d = sys_path(base, dirs[i]);
		TRY(sys_mkdirs(d, 0700));
	}
	str_cleanup char *opts = xasprintf("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", base, base, base);
	str_cleanup char *merged = sys_path(base, "merged");
	rt->overlay = mount("overlay", merged, "overlay", 0, opts) == 0;
	int sys = errno;
	if (rt->overlay) {
		/* A whiteout is what some file systems (overlayfs over overlayfs) can't hold. */
		str_cleanup char *f = sys_path(base, "merged/f");
		fd_cleanup int fd = open(f, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
		rt->overlay = fd >= 0;
		umount2(merged, MNT_DETACH);
	}
	if (!rt->overlay)
		log_warn("overlayfs does not work on %s (%s): every container gets a whole copy of its image, which is slow and takes "
			 "space; use a root directory on ext4 or xfs", rt->o.root, strerror(sys));
	return sys_remove_tree(base);
}

static struct error *gc(void *arg)
{
	struct rt *rt = arg;
	return image_gc(rt->images);
}

/* A runtime that was ended may still have a child at work: cleaning up waits for it. */
static struct error *take_lock(const char *state_dir, int fd, int64_t wait_ms)
{
	int64_t until = now_ms() + wait_ms;
	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK)
			return error_sys(errno, "lock %s", state_dir);
		if (now_ms() >= until)
			return error_new("a container runtime with the state directory %s runs already", state_dir);
		TRY(fiber_sleep(50));
	}
	return NULL;
}

static struct error *open_runtime(struct rt *rt, int *lock, int64_t wait_ms)
{
	static const char *const roots[] = {"sandboxes", "containers"}, *const states[] = {"p", "c", "s", "exits", "crun"};
	buf_cleanup struct buf b = {0};
	if (geteuid() != 0)
		return error_new("the container runtime must run as root");
	if (!(rt->o.crun = rt->crun_path = find_program(rt->o.crun)))
		return error_new("crun is missing (Debian: apt-get install crun)");
	if (!(rt->o.conmon = rt->conmon_path = find_program(rt->o.conmon)))
		return error_new("conmon is missing (Debian: apt-get install conmon)");
	if (rt->o.root[0] != '/' || rt->o.state_dir[0] != '/')
		return error_new("--root and --state-dir must be absolute paths");
	for (size_t i = 0; i < sizeof(roots) / sizeof(roots[0]); i++) {
		str_cleanup char *p = sys_path(rt->o.root, roots[i]);
		TRY(sys_mkdirs(p, 0711));
	}
	for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
		str_cleanup char *p = sys_path(rt->o.state_dir, states[i]);
		TRY(sys_mkdirs(p, 0711));
	}
	str_cleanup char *lock_path = sys_path(rt->o.state_dir, "lock");
	*lock = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (*lock < 0)
		return error_sys(errno, "open %s", lock_path);
	TRY(take_lock(rt->o.state_dir, *lock, wait_ms));
	TRY(sys_read_file(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 64, &b));
	snprintf(rt->boot_id, sizeof(rt->boot_id), "%.*s", STR_ARG(str_trim(buf_view(&b))));
	rt_cgroup_detect(rt);
	rt->seccomp = access("/proc/sys/kernel/seccomp/actions_avail", F_OK) == 0;
	rt->apparmor = yes_file("/sys/module/apparmor/parameters/enabled");
	str_cleanup char *images = sys_path(rt->o.image_root ? rt->o.image_root : rt->o.root, "images");
	TRY(image_store_open(images, rt->o.max_layer_bytes, &rt->images));
	TRY(sys_offload(probe_overlay, rt));
	return NULL;
}

static struct error *start_network(struct rt *rt)
{
	buf_cleanup struct buf b = {0};
	str_cleanup char *saved = sys_path(rt->o.root, "pod-cidr");
	str_cleanup char *cni = rt_cni_config(rt);
	if (cni) {
		log_info("pod network: CNI, %s", cni);
		return NULL;
	}
	if (rt->o.pod_cidr)
		return rt_network_configure(rt, str_from(rt->o.pod_cidr));
	struct error *e = sys_read_file(AT_FDCWD, saved, 256, &b);
	if (error_is_sys(e, ENOENT)) {
		error_free(e);
		return NULL; /* the kubelet will tell */
	}
	return e ? e : rt_network_configure(rt, str_trim(buf_view(&b)));
}

struct run {
	struct rt rt;
	struct error *e;
	bool cleanup;
};

static struct error *serve(struct rt *rt)
{
	const char *addr = rt->o.listen;
	str_cleanup char *path = xstrdup(!strncmp(addr, "unix://", 7) ? addr + 7 : !strncmp(addr, "unix:", 5) ? addr + 5 : addr);
	str_cleanup char *listen = xasprintf("unix:%s", path);
	str_cleanup char *dir = xstrdup(path);
	char *slash = strrchr(dir, '/');
	struct listener *l;
	struct grpc_server *server;
	if (path[0] != '/' || !slash)
		return error_new("--listen must be unix:///absolute/path");
	*slash = 0;
	if (*dir)
		TRY(sys_mkdirs(dir, 0755));
	struct error *e = start_network(rt);
	if (e) { /* pods of the host's network still run; Status says what is wrong */
		rt->network_error = xstrdup(e->message);
		log_and_free(e, "pod network");
	}
	TRY(rt_load(rt));
	if (rt->network_up) /* now that the leases are known */
		for (struct rt_sandbox *s = rt->sandbox_list; s; s = s->next) {
			s->ip_index = s->rec.veth.n && s->rec.ips.n ? rt_ip_index(rt, s->rec.ips.v[0]) : 0;
			if (s->ip_index)
				rt_ip_mark(rt, s->ip_index);
		}
	log_and_free(sys_offload(gc, rt), "image garbage");
	TRY(rt_stream_start(rt));
	TRY(listener_open(listen, 0600, &l));
	struct grpc_server_opts o = {.methods = rt_methods, .n_methods = rt_n_methods, .ctx = rt};
	TRY(grpc_server_start(l, &o, &server));
	log_info("serving CRI v1 on unix://%s (cgroups %s, %s)", path,
		 rt->cgroups == RT_CGROUP_V2 ? "v2" : rt->cgroups == RT_CGROUP_V1 ? "v1" : "v1 beside v2",
		 rt->overlay ? "overlayfs" : "copied roots");
	static const int signals[] = {SIGTERM, SIGINT};
	int sig;
	e = signal_wait(signals, 2, &sig);
	grpc_server_stop(server, 1000);
	unlink(path);
	return e;
}

static struct error *sweep_network(void *arg)
{
	struct rt *rt = arg;
	struct error *e = rt_veth_delete(rt, rt->o.bridge);
	struct error *e2 = rt_nft_run("add table ip skiff-runtime\ndelete table ip skiff-runtime\n"
				      "add table ip skiff-hostports\ndelete table ip skiff-hostports\n"
				      "add table ip6 skiff-runtime\ndelete table ip6 skiff-runtime\n"
				      "add table ip6 skiff-hostports\ndelete table ip6 skiff-hostports\n");
	if (!e)
		return e2;
	log_and_free(e2, "nftables");
	return e;
}

static struct error *clean(struct rt *rt)
{
	struct error *first = NULL;
	TRY(rt_load(rt));
	while (rt->sandbox_list) {
		sandbox_cleanup struct rt_sandbox *s = rt->sandbox_list;
		s->refs++;
		struct error *e = rt_remove_sandbox(rt, s);
		if (e && !s->removed)
			rt_sandbox_forget(rt, s); /* or it would be found again and again */
		if (first)
			log_and_free(e, "pod sandbox %s", s->id);
		else
			first = e;
	}
	struct error *e = sys_offload(sweep_network, rt);
	rt_cgroup_remove(rt, rt->o.cgroup_root);
	if (first)
		log_and_free(e, "network");
	else
		first = e;
	log_and_free(sys_offload(gc, rt), "image garbage");
	if (!first)
		first = sys_remove_tree(rt->o.state_dir);
	return first;
}

static void run(void *arg)
{
	struct run *r = arg;
	fd_cleanup int lock = -1;
	r->e = open_runtime(&r->rt, &lock, r->cleanup ? CLEANUP_WAIT_MS : 0);
	if (!r->e)
		r->e = r->cleanup ? clean(&r->rt) : serve(&r->rt);
}

static int run_all(struct run *r)
{
	struct error *e = loop_run(run, r);
	image_store_close(r->rt.images);
	map_free(&r->rt.sandboxes);
	map_free(&r->rt.containers);
	map_free(&r->rt.stream_tokens);
	free(r->rt.crun_path);
	free(r->rt.conmon_path);
	free(r->rt.network_error);
	free(r->rt.ip_used);
	if (e) {
		error_clear(&r->e);
		r->e = e;
	}
	if (!r->e)
		return 0;
	log_and_free(r->e, r->cleanup ? "clean up after the container runtime" : "container runtime");
	return 1;
}

int skiff_runtime_cleanup(const char *root, const char *state_dir, const char *bridge, const char *cgroup_root)
{
	struct run *r = xcalloc(1, sizeof(*r));
	defaults(&r->rt.o);
	r->rt.o.root = root ? root : r->rt.o.root;
	r->rt.o.state_dir = state_dir ? state_dir : r->rt.o.state_dir;
	r->rt.o.bridge = bridge ? bridge : r->rt.o.bridge;
	r->rt.o.cgroup_root = cgroup_root ? cgroup_root : r->rt.o.cgroup_root;
	r->cleanup = true;
	int code = run_all(r);
	free(r);
	return code;
}

int skiff_runtime_main(int argc, char **argv)
{
	struct run *r = xcalloc(1, sizeof(*r));
	struct rt_opts *o = &r->rt.o;
	int verbosity = 0, c;
	defaults(o);
	optind = 0;
	while ((c = getopt_long(argc, argv, "hv:", options, NULL)) != -1) {
		switch (c) {
		case O_LISTEN: o->listen = optarg; break;
		case O_ROOT: o->root = optarg; break;
		case O_IMAGE_ROOT: o->image_root = optarg; break;
		case O_STATE: o->state_dir = optarg; break;
		case O_CGROUP: o->cgroup_root = optarg; break;
		case O_POD_CIDR: o->pod_cidr = optarg; break;
		case O_CLUSTER_CIDR: o->cluster_cidr = optarg; break;
		case O_SERVICE_CIDR: o->service_cidr = optarg; break;
		case O_BRIDGE: o->bridge = optarg; break;
		case O_CNI_CONF: o->cni_conf_dir = optarg; break;
		case O_CNI_BIN: o->cni_bin_dir = optarg; break;
		case O_CRUN: o->crun = optarg; break;
		case O_CONMON: o->conmon = optarg; break;
		case O_MAX_LAYER:
			if (!str_to_u64(str_from(optarg), &o->max_layer_bytes)) {
				fprintf(stderr, "skiff runtime: --max-layer-bytes must be a number\n");
				free(r);
				return 2;
			}
			break;
		case 'v': verbosity = atoi(optarg); break;
		case 'h':
			fputs(help, stdout);
			free(r);
			return 0;
		case O_VERSION:
			printf("skiff runtime %s (CRI %s)\n", RT_VERSION, RT_API_VERSION);
			free(r);
			return 0;
		default:
			fprintf(stderr, "Try 'skiff runtime --help'.\n");
			free(r);
			return 2;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "skiff runtime: unexpected argument \"%s\"; try 'skiff runtime --help'\n", argv[optind]);
		free(r);
		return 2;
	}
	if (strlen(o->bridge) > 15 || !*o->bridge) {
		fprintf(stderr, "skiff runtime: --bridge must have 1 to 15 characters\n");
		free(r);
		return 2;
	}
	log_init("runtime", verbosity);
	int code = run_all(r);
	free(r);
	return code;
}
