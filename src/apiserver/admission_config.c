#include "apiserver/admission_config.h"
#include "apiserver/server.h"
#include "schema/jv.h"

struct plugin_text {
	struct str name, text, path; /* a path without a text: of a file that nobody has read */
};
static struct { /* one server a process */
	LIST(struct plugin_text) plugins;
} all;

/* Relative paths are relative to the file's directory. */
static struct error *read_plugin_file(struct apiserver *s, struct str path, struct str *text)
{
	struct str file = str_from(s->o.admission_config);
	ptrdiff_t slash = str_rindex(file, '/');
	const char *full = path.p[0] == '/' || slash < 0 ? arena_strz(&s->arena, path) :
			   arena_printf(&s->arena, "%.*s/%.*s", (int)slash, file.p, STR_ARG(path)).p;

	return config_file_read(&s->arena, full, text);
}

/* From before AdmissionConfiguration: the file is what the two plugins have that still read such, of no kind that is known here. */
static bool is_legacy(struct arena *a, struct str text)
{
	struct buf json buf_cleanup = {0};
	struct jv doc;
	struct error *e = yaml_to_json(text, NULL, &json);

	if (!e)
		e = jv_parse(a, buf_view(&json), NULL, &doc);
	struct str version = e ? STR_NULL : jv_str(jv_get(&doc, STR("apiVersion")));
	bool known = !e && str_eqz(jv_str(jv_get(&doc, STR("kind"))), "AdmissionConfiguration") &&
		     (str_eqz(version, "apiserver.config.k8s.io/v1") || str_eqz(version, "apiserver.k8s.io/v1alpha1"));
	bool legacy = !e && !known && (jv_get(&doc, STR("podNodeSelectorPluginConfig")) || jv_get(&doc, STR("imagePolicy")));

	error_free(e); /* said again by who decodes the file */
	return legacy;
}

struct error *admission_config_init(struct apiserver *s)
{
	struct apiserverconfig_v1_admission_configuration *c = arena_new(&s->arena, struct apiserverconfig_v1_admission_configuration);
	struct str text;

	if (!s->o.admission_config)
		return NULL;
	TRY(error_wrap(config_file_read(&s->arena, s->o.admission_config, &text), "--admission-control-config-file"));
	if (is_legacy(&s->arena, text)) {
		*arena_push(&s->arena, &all.plugins) = (struct plugin_text){.name = STR("PodNodeSelector"), .text = text};
		*arena_push(&s->arena, &all.plugins) = (struct plugin_text){.name = STR("ImagePolicyWebhook"), .text = text};
		return NULL;
	}
	TRY(error_wrap(config_decode(&s->arena, &apiserverconfig_v1_admission_configuration_type,
			       CONFIG_V1("AdmissionConfiguration") "|AdmissionConfiguration of apiserver.k8s.io/v1alpha1", text, c),
		       "--admission-control-config-file %s", s->o.admission_config));
	for (uint32_t i = 0; i < c->plugins.n; i++) {
		const struct apiserverconfig_v1_admission_plugin_configuration *p = &c->plugins.v[i];
		struct plugin_text *t = arena_push(&s->arena, &all.plugins);

		t->name = p->name;
		t->text = p->configuration;
		t->path = p->path;
	}
	return NULL;
}

struct error *admission_config_of(struct apiserver *s, struct str plugin, struct str *text)
{
	*text = STR_NULL;
	for (uint32_t i = 0; i < all.plugins.n; i++) {
		const struct plugin_text *t = &all.plugins.v[i];

		if (!str_eq(t->name, plugin))
			continue;
		*text = t->text;
		return t->text.n || !t->path.n ? NULL : read_plugin_file(s, t->path, text);
	}
	return NULL;
}
