/*
 * apiserver/expressions.h: the CEL expressions of admission: policies and match
 * conditions. What they may name (object, oldObject, request, params,
 * namespaceObject, authorizer, variables), composed variables, cost budgets.
 * Upstream's admission/plugin/cel. Evaluation may wait: the authorizer may be a webhook.
 */
#ifndef SKIFF_APISERVER_EXPRESSIONS_H
#define SKIFF_APISERVER_EXPRESSIONS_H

#include "apiserver/admit_match.h"
#include "cel/admission.h"

struct expression {
	struct str source;
	unsigned have;
	bool variables;
	struct cel_program *program; /* NULL with error set */
	struct str error;            /* "compilation failed: ..." or a type that is not wanted; p == NULL: none */
};
/* Variables of a policy: each may use those before it. */
struct composition {
	struct str *names;
	struct expression *v;
	uint32_t n;
	const struct cel_type *type; /* of `variables` */
};
/* Of the composition c (NULL: there is no `variables`). returns: the types it may have; n 0: any. Memory in a, which must outlive it. */
void expression_compile(struct arena *a, struct str source, unsigned have, const struct composition *c, const struct cel_type *const *returns,
			size_t n, struct expression *out);
void expression_free(struct expression *e);
/* What is wrong with an expression as it was told (error), in a field. */
void expression_wrong(struct field_errors *e, const struct field_path *p, struct str source, struct str error);
/* Adds one more variable, compiled with those before. c is zeroed at first. */
const struct expression *composition_add(struct arena *a, struct composition *c, struct str name, struct str source, unsigned have);
void composition_free(struct composition *c);

/*
 * One program of any environment, with upstream's sentences: false with *error ("compilation failed: ..."; "must evaluate to bool but got
 * string", without `got` "must evaluate to bool"). The caller frees the program.
 */
bool program_compile(struct arena *a, const struct cel_env *env, struct str source, const struct cel_type *const *returns, size_t n, bool got,
		     struct cel_program **out, struct str *error);

/* The AdmissionRequest of a request as v->as, without uid and objects. */
void admission_request_fill(struct admission *a, const struct admit_version *v, struct admission_v1_admission_request *out);

/* What expressions see of one request in one version: made once, used by many evaluations. */
struct expression_input {
	struct admission *a;
	const struct admit_version *v;
	struct cel_value object, old_object, request;
	struct cel_value namespace_object; /* null for what has no namespace, and for match conditions */
	struct cel_value params;           /* null: none */
	struct cel_value authorizer, resource_check;
};
/* ns: the namespace, or NULL. as: the resource of the request's `kind` and `resource`. */
void expression_input_init(struct expression_input *in, struct admission *a, const struct admit_version *v, const struct core_v1_namespace *ns);
/* A parameter object (a tree of its JSON); NULL: null. */
void expression_input_params(struct expression_input *in, const struct jv *params);

/*
 * One evaluation after another with the same variables, each computed once when it is first read. budget: units left. Zeroed and
 * filled by evaluation_begin.
 */
struct evaluation {
	struct expression_input *in;
	const struct composition *c;
	struct arena *arena;
	int64_t budget;
	uint64_t variables_cost;
	struct lazy_variables *lazy;
};
void evaluation_begin(struct evaluation *ev, struct expression_input *in, const struct composition *c, int64_t budget);
/*
 * *error (p == NULL: none) is what upstream's EvaluationResult has. False: the budget is spent or the cost is not known; *error says
 * so, and nothing more may be evaluated.
 */
#define EVALUATION_OUT_OF_BUDGET                                                                                       \
	"validation failed due to running out of cost budget, no further validation rules will be run"
bool evaluate(struct evaluation *ev, const struct expression *e, struct cel_value *out, struct str *error);

/* ---- match conditions of policies and webhooks ---- */
struct match_conditions {
	struct str *names;
	struct expression *v;
	uint32_t n;
};
/* c: of a policy, or NULL. */
void match_conditions_compile(struct arena *a, const struct admissionregistration_v1_match_condition *v, uint32_t n, unsigned have,
			      const struct composition *c, struct match_conditions *out);
void match_conditions_free(struct match_conditions *m);
/* All hold; else false. *error (p != NULL): some could not be told and none is false; false is returned. */
bool match_conditions_hold(const struct match_conditions *m, const struct composition *c, struct expression_input *in, struct str *error);
/* The same, counted as the conditions of `name`, a "webhook" or "policy", in the step `type`. */
bool match_conditions_counted(const struct match_conditions *m, const struct composition *c, struct expression_input *in, const char *kind,
			      const char *type, struct str name, struct str *error);

/* ---- checks of objects at their creation ---- */
/* Compiles and throws away; a cause at p when it does not compile. What: "compilation failed: ...". */
void expression_validate(struct field_errors *fe, struct str source, unsigned have, const struct composition *c,
			 const struct cel_type *const *returns, size_t n, const struct field_path *p);
/* Rules of a list of match conditions (names, duplicates, at most 64). */
void match_conditions_validate(struct field_errors *fe, const struct admissionregistration_v1_match_condition *v, uint32_t n, bool params,
			       const struct field_path *p);

#endif
