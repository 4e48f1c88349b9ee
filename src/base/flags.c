#include "base/flags.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* The name is in the list; *alone: it stands without a value. */
static bool listed(const char *list, const char *name, size_t n, bool *alone)
{
	for (const char *p = list; p && *p;) {
		size_t len = strcspn(p, " !");

		*alone = p[len] == '!';
		if (len == n && !memcmp(p, name, n))
			return true;
		p += len + *alone;
		p += strspn(p, " ");
	}
	return false;
}

static const struct option *own_flag(const struct option *own, const char *name, size_t n)
{
	for (; own && own->name; own++)
		if (strlen(own->name) == n && !memcmp(own->name, name, n))
			return own;
	return NULL;
}

int upstream_flags_sift(const struct upstream_flags *f, const struct option *own, int *argc, char **argv)
{
	int kept = 0;

	for (int i = 0; i < *argc; i++) {
		const char *name = argv[i] + 2;
		size_t n = strncmp(argv[i], "--", 2) ? 0 : strcspn(name, "=");
		const struct option *mine = n ? own_flag(own, name, n) : NULL;
		bool alone;

		if (n && !mine && listed(f->not_built, name, n, &alone)) {
			fprintf(stderr, "%s: --%.*s is a flag of Kubernetes that is not built here\n", f->component, (int)n, name);
			return 2;
		}
		if (n && !mine && listed(f->no_effect, name, n, &alone)) {
			fprintf(stderr, "%s: warning: --%.*s has no effect here\n", f->component, (int)n, name);
			i += !alone && !name[n] && i + 1 < *argc;
			continue;
		}
		argv[kept++] = argv[i];
		if (!i)
			continue;
		if (!strcmp(argv[i], "--")) { /* what follows are no flags */
			while (++i < *argc)
				argv[kept++] = argv[i];
		} else if (mine && mine->has_arg == required_argument && !name[n] && i + 1 < *argc) {
			argv[kept++] = argv[++i]; /* a value may look like a flag */
		}
	}
	argv[kept] = NULL;
	*argc = kept;
	return 0;
}
