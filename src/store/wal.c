/*
 * The write-ahead log, DIR/data.wal: what was committed since the data file was last written. A commit is one frame, appended and
 * synced: as long as the data file holds, it takes the same few pages. A checkpoint puts what the frames hold into the data file,
 * whose state record names the log's new id: that voids all frames, and the next one overwrites the first.
 *
 * The file has its full size from the beginning, written with zeros: so that no commit needs room on the disk, nor a change of the
 * file's metadata. Its first page is struct wal_head; each frame begins on a page of its own, so that no write touches another
 * frame's page: a torn one can only be the last, which nobody was told of.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/log.h"
#include "store/embedded.h"

#define WAL_PAGE 4096
#define WAL_VERSION 1

struct wal_head {
	uint64_t sum; /* over all that follows */
	char magic[8];
	uint32_t bom, version;
	uint64_t cluster, bytes;
};
struct frame_head {
	uint64_t sum; /* over all that follows, to the frame's end */
	uint64_t wal; /* the log's id when it was written */
	uint64_t bytes; /* with this head */
};
struct item_head { /* of a record in a frame; the record stands as in the log's table */
	int64_t rev;
	uint64_t bytes;
};
static const char magic[8] = "SkiffWAL";

#define DAMAGED "the write-ahead log is damaged (%s): nothing was changed; restore a snapshot, or a new store can be made of data.mdb, " \
		"without the newest writes, with 'skiff snapshot restore'"

static uint64_t sum_of(const void *p, size_t n)
{
	return XXH3_64bits((const char *)p + sizeof(uint64_t), n - sizeof(uint64_t));
}

/* ---- frames ---- */

void frame_begin(struct frame *f, const struct wal *w, size_t bytes)
{
	size_t n = sizeof(struct frame_head) + bytes;
	*f = (struct frame){.n = sizeof(struct frame_head)};
	f->logged = w->fd >= 0 && n <= w->bytes - w->at;
	f->p = f->logged ? w->mem + w->at : xmalloc(n);
}

void frame_end(struct frame *f)
{
	if (!f->logged)
		free(f->p);
	*f = (struct frame){0};
}

size_t frame_item(size_t record)
{
	return sizeof(struct item_head) + record;
}

char *frame_add(struct frame *f, int64_t rev, size_t bytes)
{
	struct item_head h = {rev, bytes};
	memcpy(f->p + f->n, &h, sizeof(h));
	char *p = f->p + f->n + sizeof(h);
	f->n += frame_item(bytes);
	return p;
}

/* ---- the file ---- */

static struct error *write_new(int fd, uint64_t cluster)
{
	struct wal_head h = {.bom = STORE_BOM, .version = WAL_VERSION, .cluster = cluster, .bytes = WAL_BYTES};
	memcpy(h.magic, magic, sizeof(magic));
	h.sum = sum_of(&h, sizeof(h));
	char *zeros = xcalloc(1, 1 << 20);
	struct error *e = NULL;
	memcpy(zeros, &h, sizeof(h));
	for (off_t at = 0; at < WAL_BYTES && !e;) {
		ssize_t n = pwrite(fd, zeros, WAL_BYTES - at < 1 << 20 ? (size_t)(WAL_BYTES - at) : 1 << 20, at);
		if (n < 0 && errno != EINTR)
			e = error_sys(errno, "writing");
		if (n > 0 && !at)
			memset(zeros, 0, sizeof(h));
		at += n > 0 ? n : 0;
	}
	free(zeros);
	if (!e && fsync(fd))
		e = error_sys(errno, "writing");
	return e;
}

struct error *wal_create(const char *path, uint64_t cluster)
{
	char *tmp = xasprintf("%s.new", path);
	int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	struct error *e = fd < 0 ? error_sys(errno, "%s", tmp) : write_new(fd, cluster);
	if (fd >= 0 && close(fd) && !e)
		e = error_sys(errno, "writing");
	if (!e)
		e = lmdbfile_publish(tmp, path);
	if (e)
		unlink(tmp);
	free(tmp);
	return error_wrap(e, "%s", path);
}

/* Reads up to n bytes; *got says how many there were. */
static struct error *read_at(int fd, char *p, size_t n, off_t at, size_t *got)
{
	for (*got = 0; *got < n;) {
		ssize_t r = pread(fd, p + *got, n - *got, at + (off_t)*got);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return error_sys(errno, "reading");
		if (!r)
			break;
		*got += (size_t)r;
	}
	return NULL;
}

struct error *wal_open(const char *path, uint64_t cluster, struct wal *w)
{
	struct wal_head h;
	struct stat st;
	size_t got;
	int fd = open(path, O_RDWR | O_DSYNC | O_CLOEXEC);
	if (fd < 0)
		return error_sys(errno, "%s", path);
	struct error *e = fstat(fd, &st) ? error_sys(errno, "reading") : read_at(fd, (char *)&h, sizeof(h), 0, &got);
	if (e)
		;
	else if (got != sizeof(h) || h.sum != sum_of(&h, sizeof(h)) || memcmp(h.magic, magic, sizeof(magic)) || h.bom != STORE_BOM)
		e = error_new(DAMAGED, "its first page");
	else if (h.version != WAL_VERSION)
		e = error_new("the write-ahead log has version %u, this program knows %d: use the version of Skiff that wrote it",
			      h.version, WAL_VERSION);
	else if (h.cluster != cluster)
		e = error_new(DAMAGED, "it belongs to another data.mdb");
	else if (h.bytes < 4 * WAL_PAGE || h.bytes > (1u << 30) || h.bytes % WAL_PAGE || (uint64_t)st.st_size < h.bytes)
		e = error_new(DAMAGED, "its end is missing");
	*w = (struct wal){.fd = fd, .at = WAL_PAGE};
	if (!e) {
		w->mem = mmap(NULL, h.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		w->bytes = h.bytes;
		if (w->mem == MAP_FAILED) {
			e = error_sys(errno, "memory for the write-ahead log");
			w->mem = NULL;
		}
	}
	if (e)
		wal_close(w);
	return error_wrap(e, "%s", path);
}

/* A whole frame of log `id` at p? Its size, else 0. */
static size_t frame_at(const char *p, size_t room, uint64_t id)
{
	struct frame_head h;
	if (room < sizeof(h))
		return 0;
	memcpy(&h, p, sizeof(h));
	return h.wal == id && h.bytes >= sizeof(h) && h.bytes <= room && h.sum == sum_of(p, h.bytes) ? h.bytes : 0;
}

static size_t pages_of(size_t bytes)
{
	return (bytes + WAL_PAGE - 1) / WAL_PAGE * WAL_PAGE;
}

static struct error *read_frame(char *p, size_t n, int64_t *last, struct tail *t)
{
	for (size_t at = sizeof(struct frame_head); at < n;) {
		struct item_head h;
		struct log_rec r;
		struct str key, value;
		if (n - at < sizeof(h))
			return error_new(DAMAGED, "a record without an end");
		memcpy(&h, p + at, sizeof(h));
		at += sizeof(h);
		if (h.bytes > n - at || h.rev <= *last)
			return error_new(DAMAGED, "a record out of place");
		MDB_val v = {h.bytes, p + at};
		TRY(log_parse(&v, h.rev, &r, &key, &value));
		if (!key.n || key.n > STORE_KEY_MAX || r.prev >= h.rev)
			return error_new(DAMAGED, "a record that makes no sense");
		tail_add(t, h.rev, v);
		*last = h.rev;
		at += h.bytes;
	}
	return NULL;
}

static struct error *read_frames(struct wal *w, uint64_t id, int64_t last, struct tail *t)
{
	char *p = w->mem;
	size_t n;
	for (; (n = frame_at(p + w->at, w->bytes - w->at, id)); w->at += pages_of(n))
		TRY(read_frame(p + w->at, n, &last, t));
	/* Each frame is written when the one before it is on disk: behind one that was not written whole, there is none. */
	for (uint64_t at = w->at + WAL_PAGE; at < w->bytes; at += WAL_PAGE)
		if (frame_at(p + at, w->bytes - at, id))
			return error_new(DAMAGED, "a frame in its middle");
	return NULL;
}

struct error *wal_read(struct wal *w, uint64_t id, int64_t last, struct tail *t)
{
	size_t got;
	struct error *e = read_at(w->fd, w->mem, w->bytes, 0, &got);
	if (!e && got != w->bytes)
		e = error_new(DAMAGED, "its end is missing");
	if (!e)
		e = read_frames(w, id, last, t);
	if (!e)
		wal_trim(w);
	return error_wrap(e, "data.wal");
}

int wal_write(const struct wal *w, uint64_t id, struct frame *f)
{
	struct frame_head h = {.wal = id, .bytes = f->n};
	memcpy(f->p, &h, sizeof(h));
	h.sum = sum_of(f->p, f->n);
	memcpy(f->p, &h, sizeof(h));
	for (size_t done = 0; done < f->n;) {
		ssize_t n = pwrite(w->fd, f->p + done, f->n - done, (off_t)(w->at + done));
		if (n < 0 && errno != EINTR)
			return errno;
		if (n > 0)
			done += (size_t)n;
	}
	return 0;
}

void wal_wrote(struct wal *w, const struct frame *f)
{
	w->at += pages_of(f->n);
}

void wal_void(struct wal *w)
{
	w->at = WAL_PAGE;
}

void wal_trim(struct wal *w)
{
	if (w->mem)
		madvise(w->mem + w->at, w->bytes - w->at, MADV_DONTNEED); /* advice: a failure costs memory only */
}

void wal_close(struct wal *w)
{
	if (w->fd >= 0)
		close(w->fd);
	if (w->mem)
		munmap(w->mem, w->bytes);
	*w = (struct wal){.fd = -1};
}
