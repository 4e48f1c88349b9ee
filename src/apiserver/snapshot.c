#include "apiserver/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "apiserver/server.h"
#include "base/log.h"

#define CHUNK (256 << 10)

struct piece {
	int fd, err;
	char *p;
	ssize_t n;
};

static void read_off_loop(void *arg)
{
	struct piece *c = arg;

	do
		c->n = read(c->fd, c->p, CHUNK);
	while (c->n < 0 && errno == EINTR);
	c->err = errno;
}

static struct error *send_file(struct request *rq, int fd)
{
	struct piece c = {.fd = fd, .p = xmalloc(CHUNK), .n = 1};

	rq->status = 200;
	http_set_header(rq->x, "content-type", STR("application/octet-stream"));
	http_set_header(rq->x, "audit-id", rq->audit_id);
	struct error *e = http_start(rq->x, 200);

	while (!e && c.n > 0) {
		loop_offload(read_off_loop, &c);
		if (c.n < 0)
			e = error_sys(c.err, "reading the snapshot");
		else if (c.n > 0)
			e = http_write(rq->x, str_of(c.p, (size_t)c.n));
	}
	free(c.p);
	return e ? e : http_end(rq->x);
}

struct error *serve_snapshot(struct request *rq)
{
	struct apiserver *s = rq->s;

	if (!str_eqz(rq->x->method, "GET"))
		return error_status(405, "MethodNotAllowed", "the server does not allow this method on the requested resource");
	if (s->snapshotting)
		return error_status(429, "TooManyRequests", "another snapshot is being made; try again when it is done");
	struct str path = arena_printf(rq->a, "%s/snapshot", s->o.data_dir ? s->o.data_dir : ".");

	s->snapshotting = true;
	struct error *e = store_snapshot_save(s->store, path.p);
	int fd = e ? -1 : open(path.p, O_RDONLY | O_CLOEXEC);

	if (!e && fd < 0)
		e = error_sys(errno, "%.*s", STR_ARG(path));
	if (!e)
		unlink(path.p);
	s->snapshotting = false;
	if (!e)
		e = send_file(rq, fd);
	if (fd >= 0)
		close(fd);
	return e;
}

struct error *snapshot_info(const char *file, struct snapshot_info *out)
{
	struct store_snapshot_status st;

	TRY(store_snapshot_status(file, &st));
	*out = (struct snapshot_info){.revision = st.revision, .keys = st.keys, .bytes = st.bytes, .hash = st.hash};
	return NULL;
}

struct error *snapshot_restore(const char *file, const char *dir, unsigned uid)
{
	static const char *const names[] = {"", "/data.mdb", "/lock"};

	TRY(store_restore(file, dir));
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		char *p = xasprintf("%s%s", dir, names[i]);
		struct error *e = chown(p, uid, uid) ? error_sys(errno, "chown %s", p) : NULL;

		free(p);
		TRY(e);
	}
	return NULL;
}
