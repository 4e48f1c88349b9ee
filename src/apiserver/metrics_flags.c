/* The flags about metrics: which are not shown, and whose labels take few values. */
#include <ctype.h>
#include "apiserver/config_file.h"
#include "apiserver/csv.h"
#include "apiserver/metrics.h"
#include "schema/jv.h"

/* A metric's name or, without colons, a label's. */
static bool is_name(struct str s, bool colons)
{
	for (size_t i = 0; i < s.n; i++)
		if (!(isalpha((unsigned char)s.p[i]) || s.p[i] == '_' || (colons && s.p[i] == ':') || (i && isdigit((unsigned char)s.p[i]))))
			return false;
	return s.n > 0;
}

static struct error *allow(struct str key, struct str values)
{
	struct str label = key, name = str_cut(&label, ',');

	if (!is_name(name, true) || !is_name(label, false))
		return error_new("must have keys with format `metricName,labelName`, not \"%.*s\"", STR_ARG(key));
	metrics_allow(name, label, values);
	return NULL;
}

/* "METRIC,LABEL=VALUE,...": one, or several in quotes with commas between. */
static struct error *allow_by_flag(struct arena *a, struct str text)
{
	csv_fields pairs = {0};
	int line = 1;
	ptrdiff_t eq = str_index(text, '=');

	if (eq >= 0 && str_index(str_sub(text, (size_t)eq + 1, text.n), '=') < 0) {
		while (text.n && text.p[0] == '"')
			text = str_sub(text, 1, text.n);
		while (text.n && text.p[text.n - 1] == '"')
			text.n--;
		*(struct str *)arena_push(a, &pairs) = text;
	} else {
		TRY(csv_record(a, &text, &pairs, &line));
	}
	for (uint32_t i = 0; i < pairs.n; i++) {
		struct str values = pairs.v[i], key = str_cut(&values, '=');

		if (!values.p)
			return error_new("%.*s must be formatted as key=value", STR_ARG(key));
		TRY(allow(key, values));
	}
	return NULL;
}

static struct error *allow_by_file(struct arena *a, const char *path)
{
	struct buf json buf_cleanup = {0};
	struct str text;
	struct jv map;

	TRY(config_file_read(a, path, &text));
	TRY(yaml_to_json(text, NULL, &json));
	TRY(jv_parse(a, buf_view(&json), NULL, &map));
	if (map.kind != JV_OBJECT && map.kind != JV_NULL)
		return error_new("%s: no map", path);
	for (uint32_t i = 0; map.kind == JV_OBJECT && i < map.n; i++) {
		if (map.members[i].value.kind != JV_STRING)
			return error_new("%s: the value of %.*s is no string", path, STR_ARG(map.members[i].key));
		TRY(allow(map.members[i].key, jv_str(&map.members[i].value)));
	}
	return NULL;
}

struct error *metrics_configure(const struct options *o)
{
	struct arena a arena_cleanup = {0};

	if (o->show_hidden_metrics && *o->show_hidden_metrics && strcmp(o->show_hidden_metrics, "1.35"))
		return error_new("--show-hidden-metrics-for-version: must be omitted or have the value '1.35'; only the previous minor version is allowed");
	for (struct str rest = str_from(o->disabled_metrics); rest.n;) {
		struct str name = str_cut(&rest, ',');

		if (!is_name(name, true))
			return error_new("--disabled-metrics: must be fully qualified metric names, not \"%.*s\"", STR_ARG(name));
		metrics_switch_off(name);
	}
	/* what the flag says comes last */
	if (o->metric_labels_file && *o->metric_labels_file)
		TRY(error_wrap(allow_by_file(&a, o->metric_labels_file), "--allow-metric-labels-manifest"));
	for (struct str rest = str_from(o->metric_labels); rest.n;)
		TRY(error_wrap(allow_by_flag(&a, str_cut(&rest, '\n')), "--allow-metric-labels"));
	return NULL;
}
