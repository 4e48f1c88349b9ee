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
	struct str seen;  /* what fn has taken */
	struct str tried; /* what it has not, or why nothing can be read */
	bool (*fn)(void *ctx, struct str text);
	void *ctx;
};

/* Waits for a change of the directory, at most a minute (*late); true: the watch is of no more use. */
static bool wait_change(struct fs_watch *w, bool *late)
{
	int64_t d = deadline_push(LOOK_AGAIN_MS);
	struct error *e = w ? fs_watch_wait(w) : fiber_sleep(LOOK_AGAIN_MS);
	bool broken;

	deadline_pop(d);
	*late = error_is_sys(e, ETIMEDOUT) || !w;
	broken = e && !error_is_sys(e, ETIMEDOUT);
	error_free(e);
	return broken;
}

static void keep(struct str *kept, struct str text)
{
	free((char *)(uintptr_t)kept->p);
	*kept = text.p ? str_of(str_dupz(text), text.n) : STR_NULL;
}

/* What was of no use is not tried again at any change of the directory: that may be the log, in which fn has said so. */
static void look(struct follower *f, bool late)
{
	arena_cleanup struct arena a = {0};
	struct str text;
	struct error *e = config_file_read(&a, f->path, &text);

	if (e)
		text = arena_str(&a, str_from(error_message(e)));
	if (!e && str_eq(text, f->seen)) {
		keep(&f->tried, STR_NULL);
	} else if (late || !str_eq(text, f->tried)) {
		keep(&f->tried, text);
		if (e)
			log_error("reading %s again: %s", f->path, error_message(e));
		else if (f->fn(f->ctx, text))
			keep(&f->seen, text);
	}
	error_free(e);
}

static void follow(void *arg)
{
	struct follower *f = arg;
	const char *slash = strrchr(f->path, '/');
	char *dir = slash ? str_dupz(str_of(f->path, slash == f->path ? 1 : (size_t)(slash - f->path))) : xstrdup(".");
	struct fs_watch *w = NULL;
	bool late = false;

	while (!fiber_cancelled()) {
		if (!w)
			log_and_free(fs_watch_open(dir, &w), "watching %s", dir);
		/* looked at before each wait: a change between two is not missed */
		look(f, late);
		if (wait_change(w, &late) && w) {
			fs_watch_close(w);
			w = NULL;
		}
	}
	fs_watch_close(w);
	free(dir);
	keep(&f->seen, STR_NULL);
	keep(&f->tried, STR_NULL);
	free(f);
}

void config_file_follow(const char *path, struct str text, bool (*fn)(void *ctx, struct str text), void *ctx)
{
	struct follower *f = xcalloc(1, sizeof *f);

	*f = (struct follower){.path = path, .seen = str_of(str_dupz(text), text.n), .fn = fn, .ctx = ctx};
	fiber_spawn("config-file", follow, f);
}
