/* AuthenticationConfiguration (KEP-3331): from --authentication-config, or made of the older flags. */
#include "apiserver/authn_internal.h"
#include "apiserver/config_file.h"

static void anonymous_validate(struct field_errors *e, const struct apiserverconfig_v1_authentication_configuration *c)
{
	if (c->anonymous && !c->anonymous->enabled && c->anonymous->conditions.n)
		field_invalid_raw(e, FIELD_CHILD(FIELD_ROOT("anonymous"), "conditions"), STR("[]"),
				  "enabled should be set to true when conditions are defined");
}

static struct error *anonymous_init(struct apiserver *s, const struct apiserverconfig_v1_authentication_configuration *c)
{
	struct authn *n = s->authn;

	n->anonymous = s->o.anonymous_auth;
	if (!c->anonymous)
		return NULL;
	if (s->o.anonymous_auth_set)
		return error_new("anonymous: Forbidden: --anonymous-auth flag cannot be set when anonymous field is configured in "
				 "authentication configuration file");
	n->anonymous = c->anonymous->enabled;
	n->n_anonymous_paths = c->anonymous->conditions.n;
	if (n->n_anonymous_paths) {
		struct str *paths = arena_array(&s->arena, struct str, n->n_anonymous_paths);

		for (uint32_t i = 0; i < n->n_anonymous_paths; i++)
			paths[i] = c->anonymous->conditions.v[i].path;
		n->anonymous_paths = paths;
	}
	return NULL;
}

struct error *authn_config_init(struct apiserver *s)
{
	struct apiserverconfig_v1_authentication_configuration *c =
		arena_new(&s->arena, struct apiserverconfig_v1_authentication_configuration);
	struct field_errors fe = {.arena = &s->arena};
	struct str text;

	if (s->o.authentication_config) {
		TRY(error_wrap(config_file_read(&s->arena, s->o.authentication_config, &text), "authentication config"));
		TRY(error_wrap(config_decode(&s->arena, &apiserverconfig_v1_authentication_configuration_type, "AuthenticationConfiguration",
					     text, c), "authentication config %s", s->o.authentication_config));
	}
	anonymous_validate(&fe, c);
	TRY(error_wrap(config_errors(&fe), "invalid authentication configuration"));
	if (c->jwt.n)
		return error_new("invalid authentication configuration: jwt: authenticators are not built");
	return anonymous_init(s, c);
}
