/*
 * ImagePolicyWebhook (upstream's plugin/pkg/admission/imagepolicy): off unless named. Images of pods are judged by a webhook that a kubeconfig
 * names, asked by ImageReviews (imagepolicy.k8s.io/v1alpha1); answers are remembered.
 */
#include <stdlib.h>
#include "apiserver/admission.h"
#include "apiserver/outbound.h"
#include "apiserver/server.h"

#define REMEMBERED_MAX 1024 /* answers; then all are forgotten */
#define TIMEOUT_MS 30000    /* of one call, as upstream's client has it */
#define AUDIT_PREFIX "imagepolicywebhook.image-policy.k8s.io/"
#define ANNOTATION ".image-policy.k8s.io/" /* what is in a pod's annotations that the webhook is told */

typedef struct imagepolicy_v1alpha1_image_review image_review;
typedef struct imagepolicy_v1alpha1_image_review_status review_status;

struct remembered { /* an answer */
	struct arena arena;
	int64_t until_ms;
	review_status status;
};

static struct { /* one server a process */
	struct outbound *out;
	int64_t allow_ms, deny_ms, pause_ms;
	bool default_allow;
	struct map answers; /* spec as JSON -> struct remembered * */
} policy;

/* ---- configuration ---- */

/* In units of unit_ns; 0 means the default, -1 none. */
static struct error *duration(const char *what, int64_t n, int64_t unit_ns, int64_t min_ns, int64_t max_ns, int64_t otherwise_ms, int64_t *ms)
{
	if (n == 0 || n == -1) {
		*ms = n ? 0 : otherwise_ms;
		return NULL;
	}
	if (n < 0 || n > max_ns / unit_ns || n * unit_ns < min_ns)
		return error_new("%s: valid are %lld to %lld, 0 for the default and -1 for none, not %lld", what, (long long)(min_ns / unit_ns),
				 (long long)(max_ns / unit_ns), (long long)n);
	*ms = n * unit_ns / 1000000;
	return NULL;
}

static struct error *configure(struct apiserver *s, struct str text)
{
	const int64_t ms = 1000000, second = 1000 * ms, minute = 60 * second;
	struct arena a arena_cleanup = {0};
	struct imagepolicy_v1alpha1_admission_config c = {0};
	struct imagepolicy_v1alpha1_webhook_config *w = &c.image_policy;
	struct buf json buf_cleanup = {0};

	if (!text.n)
		return error_new("no config specified");
	TRY(yaml_to_json(text, NULL, &json));
	TRY(json_decode(&a, &imagepolicy_v1alpha1_admission_config_type, buf_view(&json), NULL, &c));
	TRY(duration("retryBackoff", w->retry_backoff, ms, 1, 5 * minute, 500, &policy.pause_ms));
	TRY(duration("allowTTL", w->allow_ttl, second, second, 30 * minute, 300 * 1000, &policy.allow_ms));
	TRY(duration("denyTTL", w->deny_ttl, second, second, 30 * minute, 30 * 1000, &policy.deny_ms));
	policy.default_allow = w->default_allow;
	return error_wrap(outbound_from_kubeconfig(arena_strz(&a, w->kube_config_file), &policy.out), "kubeConfigFile");
}

/* ---- answers ---- */

static void forget(void *v)
{
	struct remembered *r = v;

	arena_free(&r->arena);
	free(r);
}

/* In a: others may take what is remembered while the request goes on. */
static bool recall(struct arena *a, struct str key, review_status *out)
{
	struct remembered *r = map_get(&policy.answers, key);

	if (!r || r->until_ms <= now_ms())
		return false;
	object_copy(a, &imagepolicy_v1alpha1_image_review_status_type, &r->status, out);
	return true;
}

static void remember(struct str key, const review_status *st)
{
	int64_t ms = st->allowed ? policy.allow_ms : policy.deny_ms;
	struct remembered *r, *old;

	if (ms <= 0)
		return;
	if (policy.answers.n >= REMEMBERED_MAX)
		map_free_values(&policy.answers, forget);
	r = xcalloc(1, sizeof *r);
	r->until_ms = now_ms() + ms;
	object_copy(&r->arena, &imagepolicy_v1alpha1_image_review_status_type, st, &r->status);
	old = map_set(&policy.answers, key, r);
	if (old)
		forget(old);
}

/* ---- questions ---- */

static struct error *ask(struct request *rq, image_review *r)
{
	struct arena *a = rq->a;
	image_review *answer = arena_new(a, image_review);
	struct buf b buf_cleanup = {0};
	struct str body;

	json_encode(&b, &imagepolicy_v1alpha1_image_review_type, r);
	TRY(outbound_post(policy.out, rq, a, buf_view(&b), TIMEOUT_MS, policy.pause_ms, &body));
	TRY(json_decode(a, &imagepolicy_v1alpha1_image_review_type, body, NULL, answer));
	r->status = answer->status;
	return NULL;
}

static void add_image(struct arena *a, image_review *r, struct str image)
{
	arena_push(a, &r->spec.containers)->image = image;
}

static image_review *review_of(const struct admission *a, struct core_v1_pod *pod)
{
	image_review *r = arena_new(a->rq->a, image_review);

	r->kind = STR("ImageReview");
	r->api_version = STR("imagepolicy.k8s.io/v1alpha1");
	r->spec.namespace = a->ns;
	for (uint32_t i = 0; a->subresource.n && i < pod->spec.ephemeral_containers.n; i++)
		add_image(a->rq->a, r, pod->spec.ephemeral_containers.v[i].ephemeral_container_common.image);
	for (uint32_t i = 0; !a->subresource.n && i < pod->spec.containers.n; i++)
		add_image(a->rq->a, r, pod->spec.containers.v[i].image);
	for (uint32_t i = 0; !a->subresource.n && i < pod->spec.init_containers.n; i++)
		add_image(a->rq->a, r, pod->spec.init_containers.v[i].image);
	for (uint32_t i = 0; i < pod->metadata.annotations.n; i++)
		if (str_contains(pod->metadata.annotations.v[i].key, STR(ANNOTATION)))
			*arena_push(a->rq->a, &r->spec.annotations) = pod->metadata.annotations.v[i];
	return r;
}

static struct error *unanswered(struct admission *a, struct error *e)
{
	struct error *told = NULL;

	if (error_is_sys(e, ECANCELED) || (error_is_sys(e, ETIMEDOUT) && deadline_left() == 0))
		return e;
	if (policy.default_allow)
		request_annotate(a->rq, STR(AUDIT_PREFIX "failed-open"), STR("true"));
	else
		told = admission_forbidden(a, "%s", error_message(e));
	log_v(2, "image policy webhook: %s", error_message(e));
	error_free(e);
	return told;
}

static struct error *judge_images(struct admission *a)
{
	struct arena *ar = a->rq->a;
	struct buf spec buf_cleanup = {0};
	image_review *r;

	if (!admission_is(a, "", "pods", "") && !admission_is(a, "", "pods", "ephemeralcontainers"))
		return NULL;
	r = review_of(a, a->obj);
	json_encode(&spec, &imagepolicy_v1alpha1_image_review_spec_type, &r->spec);
	if (!recall(ar, buf_view(&spec), &r->status)) {
		struct error *e = ask(a->rq, r);

		if (e)
			return unanswered(a, e);
		remember(buf_view(&spec), &r->status);
	}
	for (uint32_t i = 0; i < r->status.audit_annotations.n; i++)
		request_annotate(a->rq, arena_printf(ar, AUDIT_PREFIX "%.*s", STR_ARG(r->status.audit_annotations.v[i].key)),
				 r->status.audit_annotations.v[i].value);
	if (r->status.allowed)
		return NULL;
	if (r->status.reason.n)
		return admission_forbidden(a, "image policy webhook backend denied one or more images: %.*s", STR_ARG(r->status.reason));
	return admission_forbidden(a, "one or more images rejected by webhook backend");
}

const struct admission_plugin admit_images = {
	.name = "ImagePolicyWebhook", .ops = ADMIT_CREATE | ADMIT_UPDATE, .off_by_default = true, .configure = configure, .validate = judge_images,
};
