/* Configuration files: strict decoding, following changes. */
#include <errno.h>
#include <stdlib.h>
#include "apiserver/config_file.h"
#include "base/log.h"
#include "loop/fiber.h"
#include "loop/io.h"

#define LOOK_AGAIN_MS 60000 /* upstream's interval; also when nothing tells of a change */

struct error *config_file_read(struct arena *a, const char *path, struct str *text)
{
	struct buf b buf_cleanup = {.limit = CONFIG_FILE_MAX};

	TRY(file_read(path, &b));
	if (b.overflow)
		return error_new("%s is larger than %u bytes", path, CONFIG_FILE_MAX);
	*text = arena_str(a, buf_view(&b));
	return NULL;
}

struct error *config_decode(struct arena *a, const struct schema_type *t, const char *kinds, struct str text, void *out)
{
	struct buf json buf_cleanup = {0}, problems buf_cleanup = {0};
	struct decode_report report = {.arena = a};
	const struct str *tm = out; /* kind, apiVersion */
	struct str rest = str_from(kinds), called;
	bool known = false;

	if (!str_trim(text).n)
		return error_new("empty config data");
	TRY(yaml_to_json(text, &report, &json));
	/* decoded strings point into the text */
	TRY(json_decode(a, t, arena_str(a, buf_view(&json)), &report, out));
	if (!tm[0].n)
		return error_new("Object 'Kind' is missing");
	called = arena_printf(a, "%.*s of %.*s", STR_ARG(tm[0]), STR_ARG(tm[1]));
	while (rest.n)
		known |= str_eq(str_cut(&rest, '|'), called);
	rest = str_from(kinds);
	if (!known) {
		struct str first = str_cut(&rest, '|');

		return error_new("expected %.*s, got kind \"%.*s\", apiVersion \"%.*s\"", STR_ARG(first), STR_ARG(tm[0]),
				 STR_ARG(tm[1]));
	}
	for (uint32_t i = 0; i < report.problems.n; i++)
		buf_printf(&problems, "%s%.*s", i ? ", " : "", STR_ARG(report.problems.v[i]));
	if (report.problems.n)
		return error_new("strict decoding error: %s", buf_z(&problems));
	return NULL;
}

struct error *config_errors(const struct field_errors *e)
{
	struct buf b buf_cleanup = {0};

	if (!e->list.n)
		return NULL;
	if (e->list.n > 1)
		buf_putc(&b, '[');
	for (uint32_t i = 0; i < e->list.n; i++)
		buf_printf(&b, "%s%.*s: %.*s", i ? ", " : "", STR_ARG(e->list.v[i].field), STR_ARG(e->list.v[i].body));
	if (e->list.n > 1)
		buf_putc(&b, ']');
	return error_new("%s", buf_z(&b));
}

struct follower {
	const char *path;
	struct str seen;
	bool (*fn)(void *ctx, struct str text);
	void *ctx;
};

/* Waits for a change of the directory, at most a minute; true: the watch is of no more use. */
static bool wait_change(struct fs_watch *w)
{
	int64_t d = deadline_push(LOOK_AGAIN_MS);
	struct error *e = w ? fs_watch_wait(w) : fiber_sleep(LOOK_AGAIN_MS);
	bool broken;

	deadline_pop(d);
	broken = e && !error_is_sys(e, ETIMEDOUT);
	error_free(e);
	return broken;
}

static void follow(void *arg)
{
	struct follower *f = arg;
	const char *slash = strrchr(f->path, '/');
	char *dir = slash ? str_dupz(str_of(f->path, slash == f->path ? 1 : (size_t)(slash - f->path))) : xstrdup(".");
	struct fs_watch *w = NULL;

	while (!fiber_cancelled()) {
		arena_cleanup struct arena a = {0};
		struct str text;
		struct error *e;

		if (!w) {
			e = fs_watch_open(dir, &w);
			log_and_free(e, "watching %s", dir);
		}
		/* looked at before each wait: a change between two is not missed */
		e = config_file_read(&a, f->path, &text);
		if (e) {
			log_and_free(e, "reading %s again", f->path);
		} else if (!str_eq(text, f->seen) && f->fn(f->ctx, text)) {
			free((char *)(uintptr_t)f->seen.p);
			f->seen = str_of(str_dupz(text), text.n);
		}
		if (wait_change(w) && w) {
			fs_watch_close(w);
			w = NULL;
		}
	}
	fs_watch_close(w);
	free(dir);
	free((char *)(uintptr_t)f->seen.p);
	free(f);
}

void config_file_follow(const char *path, struct str text, bool (*fn)(void *ctx, struct str text), void *ctx)
{
	struct follower *f = xcalloc(1, sizeof *f);

	*f = (struct follower){.path = path, .seen = str_of(str_dupz(text), text.n), .fn = fn, .ctx = ctx};
	fiber_spawn("config-file", follow, f);
}
