/* Reset fields: what nobody may own through a resource or subresource, because its strategy ignores it. */
#include "schema/managed_fields.h"

static const char *const status_only[] = {"status", NULL};
static const char *const spec_only[] = {"spec", NULL};
static const char *const spec_and_metadata[] = {"metadata", "spec", NULL};
static const char *const deployment_status[] = {"spec", "metadata.labels", NULL};
static const char *const pod_status[] = {"spec", "metadata.deletionTimestamp", "metadata.ownerReferences", NULL};
static const char *const spec_and_status[] = {"spec", "status", NULL};
static const char *const csr_status[] = {"spec", "status.conditions", NULL};
static const char *const csr_approval[] = {"spec", "status.certificate", NULL};

static const struct {
	const char *plural, *subresource;
	const char *const *reset;
} exceptions[] = {
	{"deployments", "status", deployment_status},
	{"pods", "status", pod_status},
	{"namespaces", "finalize", status_only},
	{"certificatesigningrequests", "", spec_and_status},
	{"certificatesigningrequests", "status", csr_status},
	{"certificatesigningrequests", "approval", csr_approval},
	{"validatingadmissionpolicies", "status", spec_and_metadata},
	{"flowschemas", "status", spec_and_metadata},
	{"prioritylevelconfigurations", "status", spec_and_metadata},
	{"servicecidrs", "status", spec_and_metadata},
	{"apiservices", "status", spec_and_metadata},
	{"resourceclaims", "status", spec_and_metadata},
	{"volumeattachments", "status", spec_and_metadata},
};

void managed_fields_reset_of(const struct api_resource *r, struct str subresource, struct managed_fields_request *req)
{
	req->reset = req->only = NULL;
	for (size_t i = 0; i < sizeof exceptions / sizeof *exceptions; i++) {
		if (!str_eqz(r->plural, exceptions[i].plural) || !str_eqz(subresource, exceptions[i].subresource))
			continue;
		req->reset = exceptions[i].reset;
		return;
	}
	if (str_eqz(subresource, "status")) {
		req->reset = spec_only;
		return;
	}
	for (uint8_t i = 0; i < r->n_subresources && !subresource.n; i++)
		if (str_eqz(r->subresources[i].name, "status"))
			req->reset = status_only;
}
