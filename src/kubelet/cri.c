/* kubelet/cri.c: calls to the container runtime. */
#include "kubelet/internal.h"

#define CRI_DEADLINE_MS 120000

struct error *cri_call(struct kubelet *k, struct arena *a, const char *path, const struct schema_type *req_type, const void *req,
		       const struct schema_type *resp_type, void *resp)
{
	buf_cleanup struct buf b = {0};
	struct str answer = STR_NULL;
	struct error *e;
	int64_t token = deadline_push(CRI_DEADLINE_MS);

	pb_encode(&b, req_type, req);
	k->n_cri_calls++;
	e = grpc_call(k->cri, a, path, buf_view(&b), &answer);
	deadline_pop(token);
	if (e) {
		k->n_cri_errors++;
		return e;
	}
	e = pb_decode(a, resp_type, answer, resp);
	return error_wrap(e, "answer of %s", path);
}

struct error *cri_exec(struct kubelet *k, struct arena *a, struct str id, const struct strings *cmd, int64_t timeout_s,
		       struct cri_v1_exec_sync_response *out)
{
	struct cri_v1_exec_sync_request req = {.container_id = id, .timeout = timeout_s};

	req.cmd.v = cmd->v;
	req.cmd.n = cmd->n;
	return CRI_CALL(k, a, RUNTIME, ExecSync, exec_sync, &req, out);
}
