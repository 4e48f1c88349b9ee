/* apiserver/pipeline.h: the HTTP handler: one call a request, ctx is the server. */
#ifndef SKIFF_APISERVER_PIPELINE_H
#define SKIFF_APISERVER_PIPELINE_H
#include "net/http.h"
void pipeline_handle(struct http_exchange *x, void *ctx);
#endif
