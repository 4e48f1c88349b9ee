/* ValidatingAdmissionPolicy: judging a request. */
#include "apiserver/metrics.h"
#include "apiserver/config_file.h"
#include "apiserver/policy.h"
#include "schema/jv.h"

#define MESSAGE_MAX (5 * 1024)     /* bytes of what a messageExpression gives (upstream's) */
#define ANNOTATION_MAX (10 * 1024) /* bytes of an audit annotation's value */

struct denial {
	struct str policy, binding; /* binding empty: the policy itself is at fault */
	struct str message;
	const char *reason;
	int code;
	bool set;
};

struct run {
	struct admission *a;
	struct denial first;        /* the first is the one that is answered */
	/* audit annotations of one policy: key -> values */
	LIST(struct str_pair) annotations;
	int64_t took_ns; /* the expression that is judged now, for metrics */
};

static void deny(struct run *r, const struct policy *p, const struct policy_binding *b, struct str message, struct str reason)
{
	if (r->first.set)
		return;
	r->first = (struct denial){.policy = p->name, .binding = b ? b->name : STR_NULL, .message = message, .set = true};
	r->first.reason = "Invalid";
	r->first.code = 422;
	if (str_eqz(reason, "Forbidden")) {
		r->first.reason = "Forbidden";
		r->first.code = 403;
	} else if (str_eqz(reason, "Unauthorized")) {
		r->first.reason = "Unauthorized";
		r->first.code = 401;
	} else if (str_eqz(reason, "RequestEntityTooLarge")) {
		r->first.reason = "RequestEntityTooLarge";
		r->first.code = 413;
	}
}

/* A policy or binding that cannot be used as it is. Takes e. */
static void config_error(struct run *r, const struct policy *p, const struct policy_binding *b, struct error *e)
{
	if (p->fail)
		deny(r, p, b, arena_printf(r->a->rq->a, "failed to configure %s: %s", b ? "binding" : "policy", error_message(e)), STR_NULL);
	else
		log_v(2, "ValidatingAdmissionPolicy %.*s is ignored: %s", STR_ARG(p->name), error_message(e));
	error_free(e);
}

/* What came of a validation that did not hold or could not be told; those that hold are not counted, as upstream's. */
static void observe(struct run *r, const struct policy *p, const struct policy_binding *b, struct str message,
		    const char *action)
{
	struct arena *a = r->a->rq->a;
	const char *type = str_has_prefix(message, STR("compilation"))              ? "compile_error"
			   : str_has_prefix(message, STR(EVALUATION_OUT_OF_BUDGET)) ? "out_of_budget"
										    : "invalid_error";
	struct str labels =
		arena_printf(a, "enforcement_action=\"%s\",error_type=\"%s\",policy=\"%.*s\",policy_binding=\"%.*s\"",
			     action, type, STR_ARG(metric_label(a, p->name)), STR_ARG(metric_label(a, b->name)));

	metrics_count(METRIC_POLICY_CHECKS, labels.p, 1);
	metrics_observe(METRIC_POLICY_TIME, labels.p, (double)r->took_ns / 1e9);
}

static void audit_failure(struct run *r, const struct policy *p, const struct policy_binding *b, uint32_t index, struct str message)
{
	struct buf v buf_cleanup = {0};

	buf_puts(&v, "[{\"message\":");
	jv_encode_string(&v, message);
	buf_puts(&v, ",\"policy\":");
	jv_encode_string(&v, p->name);
	buf_puts(&v, ",\"binding\":");
	jv_encode_string(&v, b->name);
	buf_printf(&v, ",\"expressionIndex\":%u,\"validationActions\":[", index);
	for (uint32_t i = 0; i < b->n_actions; i++) {
		if (i)
			buf_putc(&v, ',');
		jv_encode_string(&v, b->actions[i]);
	}
	buf_puts(&v, "]}]");
	request_annotate(r->a->rq, STR("validation.policy.admission.k8s.io/validation_failure"), buf_view(&v));
}

/* A validation that does not hold, or could not be told: what the binding says is done. */
static void failed(struct run *r, const struct policy *p, const struct policy_binding *b, uint32_t index, struct str message, struct str reason)
{
	for (uint32_t i = 0; i < b->n_actions; i++) {
		if (str_eqz(b->actions[i], "Deny")) {
			deny(r, p, b, message, reason);
			observe(r, p, b, message, "deny");
		} else if (str_eqz(b->actions[i], "Audit")) {
			audit_failure(r, p, b, index, message);
			observe(r, p, b, message, "audit");
		} else if (str_eqz(b->actions[i], "Warn")) {
			observe(r, p, b, message, "warn");
			request_warn(r->a->rq, "Validation failed for ValidatingAdmissionPolicy '%.*s' with binding '%.*s': %.*s", STR_ARG(p->name),
				     STR_ARG(b->name), STR_ARG(message));
		}
	}
}

static void trouble(struct run *r, const struct policy *p, const struct policy_binding *b, uint32_t index, struct str message)
{
	if (p->fail)
		failed(r, p, b, index, message, STR_NULL);
	else
		observe(r, p, b, message, "allow");
}

static struct str message_of(struct evaluation *ev, const struct policy *p, uint32_t i, bool *out_of_budget, struct str *why)
{
	const struct admissionregistration_v1_validation *v = &p->validating->spec.validations.v[i];
	struct str text = STR_NULL;
	struct cel_value value;

	*out_of_budget = false;
	if (p->messages[i].source.n) {
		if (!evaluate(ev, &p->messages[i], &value, why)) {
			*out_of_budget = true;
			return STR_NULL;
		}
		if (why->p)
			log_v(2, "messageExpression of ValidatingAdmissionPolicy %.*s: %.*s", STR_ARG(p->name), STR_ARG(*why));
		else if (value.kind == CEL_STRING)
			text = str_trim(cel_str(value));
		if (text.n > MESSAGE_MAX || str_index(text, '\n') >= 0)
			text = STR_NULL;
	}
	if (!text.n)
		text = str_trim(v->message);
	if (!text.n)
		text = arena_printf(ev->arena, "failed expression: %.*s", STR_ARG(str_trim(v->expression)));
	return text;
}

static void annotate(struct run *r, struct str key, struct str value)
{
	for (uint32_t i = 0; i < r->annotations.n; i++)
		if (str_eq(r->annotations.v[i].key, key) && str_eq(r->annotations.v[i].value, value))
			return;
	*arena_push(r->a->rq->a, &r->annotations) = (struct str_pair){key, value};
}

static void audit_annotations(struct run *r, const struct policy *p, const struct policy_binding *b, struct expression_input *in)
{
	struct evaluation ev;

	evaluation_begin(&ev, in, &p->variables, CEL_CRD_BUDGET);
	for (uint32_t i = 0; i < p->validating->spec.audit_annotations.n; i++) {
		struct cel_value v;
		struct str e, text;
		int64_t since = now_ns();
		bool within = evaluate(&ev, &p->annotations[i], &v, &e);

		r->took_ns = now_ns() - since;
		if (!within) {
			trouble(r, p, b, 0, e);
			return;
		}
		if (e.p) {
			if (p->fail) {
				deny(r, p, b, e, STR_NULL);
				observe(r, p, b, e, "deny");
			}
			continue;
		}
		text = v.kind == CEL_STRING ? str_trim(cel_str(v)) : STR_NULL;
		if (text.n)
			annotate(r, p->validating->spec.audit_annotations.v[i].key, str_sub(text, 0, ANNOTATION_MAX));
	}
}

/* One policy, binding and parameter. */
static void judge(struct run *r, const struct policy *p, const struct policy_binding *b, struct expression_input *in)
{
	const uint32_t n = p->validating->spec.validations.n;
	struct evaluation ev, messages;
	struct str *errors = arena_array(r->a->rq->a, struct str, n), why;
	bool *bad = arena_array(r->a->rq->a, bool, n), any = false, spent = false;
	int64_t *took = arena_array(r->a->rq->a, int64_t, n);

	r->took_ns = 0;

	if (!match_conditions_counted(&p->conditions, &p->variables, in, "policy", "validate", p->name, &why)) {
		if (why.p)
			trouble(r, p, b, 0, why);
		return;
	}
	evaluation_begin(&ev, in, &p->variables, CEL_CRD_BUDGET);
	for (uint32_t i = 0; i < n; i++) {
		struct cel_value v;
		int64_t since = now_ns();
		bool within = evaluate(&ev, &p->validations[i], &v, &errors[i]);

		took[i] = r->took_ns = now_ns() - since;
		if (!within) {
			trouble(r, p, b, 0, errors[i]);
			return;
		}
		bad[i] = errors[i].p || v.kind != CEL_BOOL || !v.b;
		any |= bad[i];
	}
	/* messages are made when there is something to say */
	evaluation_begin(&messages, in, &p->variables, ev.budget);
	for (uint32_t i = 0; any && i < n; i++) {
		const struct admissionregistration_v1_validation *v = &p->validating->spec.validations.v[i];
		struct str text;

		if (!bad[i])
			continue;
		r->took_ns = took[i];
		if (errors[i].p) {
			trouble(r, p, b, i, errors[i]);
			continue;
		}
		text = spent ? STR_NULL : message_of(&messages, p, i, &spent, &why);
		if (spent)
			trouble(r, p, b, i, arena_printf(r->a->rq->a, "failed messageExpression: %.*s", STR_ARG(why)));
		else
			failed(r, p, b, i, text, v->reason ? *v->reason : STR_NULL);
	}
	audit_annotations(r, p, b, in);
}

static void publish(struct run *r, const struct policy *p)
{
	for (uint32_t i = 0; i < r->annotations.n; i++) {
		struct buf v buf_cleanup = {0};
		struct str key = r->annotations.v[i].key;

		if (!key.p)
			continue;
		for (uint32_t k = i; k < r->annotations.n; k++)
			if (str_eq(r->annotations.v[k].key, key)) {
				buf_printf(&v, "%s%.*s", v.n ? ", " : "", STR_ARG(r->annotations.v[k].value));
				if (k > i)
					r->annotations.v[k].key = STR_NULL;
			}
		request_annotate(r->a->rq, arena_printf(r->a->rq->a, "%.*s/%.*s", STR_ARG(p->name), STR_ARG(key)), buf_view(&v));
	}
	memset(&r->annotations, 0, sizeof r->annotations);
}

static struct error *run_hook(struct run *r, const struct policy_hook *h)
{
	struct admission *a = r->a;
	const struct policy *p = h->policy;
	const struct resource *as, *ignored;
	struct admit_version v;
	struct expression_input in;
	struct core_v1_namespace *ns;
	struct policy_params params;
	bool ready = false;
	struct error *e = p->match ? admit_match(a, p->match, &as) : error_new("policy contained no match constraints, a required field");

	if (e) {
		config_error(r, p, NULL, e);
		return NULL;
	}
	if (!as)
		return NULL;
	if (p->param_kind && !policy_kind(a->rq->s, p->param_kind->api_version, p->param_kind->kind)) {
		struct str group, version;

		api_version_split(p->param_kind->api_version, &group, &version);
		config_error(r, p, NULL, error_new("failed to find resource referenced by paramKind: '%.*s/%.*s, Kind=%.*s'", STR_ARG(group),
						   STR_ARG(version), STR_ARG(p->param_kind->kind)));
		return NULL;
	}
	for (uint32_t i = 0; i < h->n; i++) {
		const struct policy_binding *b = h->bindings[i];

		ignored = as;
		e = b->match ? admit_match(a, b->match, &ignored) : NULL;
		if (!e && !ignored)
			continue;
		if (!e)
			e = policy_params(a, p, b, &params);
		if (!e && !ready && params.n) {
			e = error_wrap(admit_version_of(a, as, &v), "failed to convert object version");
			if (!e) {
				TRY(policy_namespace(a, &ns));
				expression_input_init(&in, a, &v, ns);
				ready = true;
			}
		}
		if (e) {
			config_error(r, p, b, e);
			continue;
		}
		for (uint32_t k = 0; k < params.n; k++) {
			expression_input_params(&in, params.v[k]);
			judge(r, p, b, &in);
		}
	}
	publish(r, p);
	return NULL;
}

static struct error *validate(struct admission *a)
{
	struct run r = {.a = a};
	struct policy_hooks *h;
	struct error *e = NULL;
	struct str text;

	if (policy_exempt(a))
		return NULL;
	h = policy_hooks_get(a->rq->s, false);
	for (uint32_t i = 0; i < h->n && !e; i++)
		e = run_hook(&r, &h->v[i]);
	policy_hooks_put(h);
	TRY(e);
	if (!r.first.set)
		return NULL;
	text = r.first.binding.n ? arena_printf(a->rq->a, "ValidatingAdmissionPolicy '%.*s' with binding '%.*s' denied request: %.*s",
						STR_ARG(r.first.policy), STR_ARG(r.first.binding), STR_ARG(r.first.message)) :
				   arena_printf(a->rq->a, "ValidatingAdmissionPolicy '%.*s' denied request: %.*s", STR_ARG(r.first.policy),
						STR_ARG(r.first.message));
	e = admission_forbidden(a, "%.*s", STR_ARG(text));
	e->status = r.first.code;
	e->reason = r.first.reason;
	error_add_cause(e, "", "", "%.*s", STR_ARG(text));
	return e;
}

static struct error *configure(struct apiserver *s, struct str text)
{
	return policies_configure(s, text, CONFIG_V1("ValidatingAdmissionPolicyConfiguration"));
}

const struct admission_plugin admit_validating_policy = {
	.name = "ValidatingAdmissionPolicy", .ops = ADMIT_CREATE | ADMIT_UPDATE | ADMIT_DELETE | ADMIT_CONNECT, .configure = configure, .validate = validate,
};
