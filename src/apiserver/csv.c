/* Comma-separated values as Go's encoding/csv reads them. */
#include "apiserver/csv.h"
#include "base/buf.h"

static struct error *csv_quoted(struct arena *a, struct str *rest, struct str *field, int *line)
{
	struct buf b buf_cleanup = {0};
	size_t i = 1;

	for (;; i++) {
		if (i >= rest->n)
			return error_new("line %d: extraneous or missing \" in quoted-field", *line);
		if (rest->p[i] == '"') {
			if (i + 1 >= rest->n || rest->p[i + 1] != '"')
				break;
			i++;
		}
		if (rest->p[i] == '\r' && i + 1 < rest->n && rest->p[i + 1] == '\n')
			continue;
		if (rest->p[i] == '\n')
			++*line;
		buf_putc(&b, rest->p[i]);
	}
	i++;
	if (i < rest->n && rest->p[i] == '\r' && i + 1 < rest->n && rest->p[i + 1] == '\n')
		i++;
	if (i < rest->n && rest->p[i] != ',' && rest->p[i] != '\n')
		return error_new("line %d: extraneous or missing \" in quoted-field", *line);
	*rest = str_sub(*rest, i, rest->n);
	*field = arena_str(a, buf_view(&b));
	return NULL;
}

struct error *csv_record(struct arena *a, struct str *rest, csv_fields *fields, int *line)
{
	memset(fields, 0, sizeof *fields);
	for (;;) {
		if (str_has_prefix(*rest, STR("\r\n")))
			*rest = str_sub(*rest, 2, rest->n);
		else if (rest->n && rest->p[0] == '\n')
			*rest = str_sub(*rest, 1, rest->n);
		else
			break;
		++*line;
	}
	while (rest->n || fields->n) {
		struct str *f = arena_push(a, fields);

		if (rest->n && rest->p[0] == '"') {
			TRY(csv_quoted(a, rest, f, line));
		} else {
			size_t i = 0;

			while (i < rest->n && rest->p[i] != ',' && rest->p[i] != '\n') {
				if (rest->p[i] == '"')
					return error_new("line %d: bare \" in non-quoted-field", *line);
				i++;
			}
			*f = arena_str(a, str_sub(*rest, 0, i && i < rest->n && rest->p[i] == '\n' && rest->p[i - 1] == '\r' ? i - 1 : i));
			*rest = str_sub(*rest, i, rest->n);
		}
		if (!rest->n)
			return NULL;
		if (rest->p[0] == '\n') {
			*rest = str_sub(*rest, 1, rest->n);
			++*line;
			return NULL;
		}
		*rest = str_sub(*rest, 1, rest->n);
	}
	return NULL;
}
