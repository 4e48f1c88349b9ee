/* apiserver/cors.h: browsers' pages of other origins (upstream's filters cors.go and hsts.go). */
#ifndef SKIFF_APISERVER_CORS_H
#define SKIFF_APISERVER_CORS_H

#include "apiserver/server.h"

/* From the flags; an error says which value is none. */
struct error *cors_init(struct apiserver *s);
/* Every answer has it, whoever asked. */
void hsts_header(struct request *rq);
/* Headers for an origin that is allowed; *handled: it was the question before the request (204). Before anybody is
 * asked who he is. */
struct error *cors_answer(struct request *rq, bool *handled);

#endif
