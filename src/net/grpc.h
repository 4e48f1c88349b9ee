/*
 * net/grpc.h: gRPC over HTTP/2 (unary and server-streaming), client and server,
 * for CRI and device plugins. It carries message bytes; encoding and decoding
 * them is the caller's (schema/). It never compresses.
 */
#ifndef SKIFF_NET_GRPC_H
#define SKIFF_NET_GRPC_H

#include "net/http.h"

#define GRPC_MESSAGE_MAX (16u << 20) /* bytes of one message, either way */

enum grpc_code {
	GRPC_OK = 0,
	GRPC_CANCELLED = 1,
	GRPC_UNKNOWN = 2,
	GRPC_INVALID_ARGUMENT = 3,
	GRPC_DEADLINE_EXCEEDED = 4,
	GRPC_NOT_FOUND = 5,
	GRPC_ALREADY_EXISTS = 6,
	GRPC_PERMISSION_DENIED = 7,
	GRPC_RESOURCE_EXHAUSTED = 8,
	GRPC_FAILED_PRECONDITION = 9,
	GRPC_ABORTED = 10,
	GRPC_OUT_OF_RANGE = 11,
	GRPC_UNIMPLEMENTED = 12,
	GRPC_INTERNAL = 13,
	GRPC_UNAVAILABLE = 14,
	GRPC_DATA_LOSS = 15,
	GRPC_UNAUTHENTICATED = 16,
};

/*
 * Errors and codes. An error that a handler returns is sent with the code that grpc_error_code gives it; an error that
 * grpc_call returns has its code by the same function: error_status 404 <-> NOT_FOUND, 409 <-> ALREADY_EXISTS, 400 <->
 * INVALID_ARGUMENT, 403, 401, 412 <-> FAILED_PRECONDITION, 429 <-> RESOURCE_EXHAUSTED, 501 <-> UNIMPLEMENTED,
 * 503 <-> UNAVAILABLE, 504 or sys ETIMEDOUT <-> DEADLINE_EXCEEDED, 499 or sys ECANCELED <-> CANCELLED, other: UNKNOWN.
 */
#define GRPC_CODES 17
const char *grpc_code_name(enum grpc_code code); /* as Go writes it: "OK", "DeadlineExceeded" */
struct error *grpc_error(enum grpc_code code, const char *fmt, ...) __attribute__((format(printf, 2, 3), warn_unused_result));
enum grpc_code grpc_error_code(const struct error *e); /* GRPC_OK for NULL */

/* ---- server ---- */

struct grpc_stream; /* the answers of a server-streaming call */
/* Sends one message; suspends while the client's window is closed. */
struct error *grpc_send(struct grpc_stream *s, struct str message);

/* Unary: *resp is in the call's arena (or lives until the handler has returned). Runs on a fiber of its own, under the client's deadline. */
typedef struct error *grpc_unary(struct arena *a, struct str req, struct str *resp, void *ctx);
/* Server-streaming: any number of grpc_send, then the return value is the status. */
typedef struct error *grpc_streaming(struct arena *a, struct str req, struct grpc_stream *s, void *ctx);

struct grpc_method {
	const char *path;          /* "/runtime.v1.RuntimeService/Version" */
	grpc_unary *unary;         /* one of the two */
	grpc_streaming *streaming;
};
struct grpc_server_opts {
	const struct grpc_method *methods; /* must outlive the server; anything else answers UNIMPLEMENTED */
	size_t n_methods;
	void *ctx;                         /* given to every handler */
	struct tls_server *tls;            /* NULL: clear text */
};
struct grpc_server;
/* Serves l (taken over) on fibers of this loop. */
struct error *grpc_server_start(struct listener *l, const struct grpc_server_opts *o, struct grpc_server **out);
/* Lets running calls end for grace_ms, then cancels them; frees. */
void grpc_server_stop(struct grpc_server *s, int64_t grace_ms);

/* ---- client ---- */

struct grpc_client; /* one HTTP/2 connection, opened when first needed, reopened when it breaks */
/* `target`: "unix:///path" or "http://host:port" (clear text). */
struct error *grpc_client_new(const char *target, struct grpc_client **out);
struct grpc_client_opts {
	const char *target;                 /* as above, or "https://host:port" with tls */
	struct tls_client *tls;             /* for https; must outlive the client */
	const struct http_header *metadata; /* sent with every call; must outlive the client; at most 4 */
	size_t n_metadata;
};
struct error *grpc_client_open(const struct grpc_client_opts *o, struct grpc_client **out);
void grpc_client_free(struct grpc_client *c);
/* The fiber's deadline is sent as grpc-timeout. *resp is in a. */
struct error *grpc_call(struct grpc_client *c, struct arena *a, const char *path, struct str req, struct str *resp);
/* Server-streaming: on_message is called for each message (bytes valid during the call); its error ends the call and is returned. */
struct error *grpc_call_stream(struct grpc_client *c, const char *path, struct str req,
			       struct error *(*on_message)(void *ctx, struct str message), void *ctx);

/* What this thread's clients have done with a method. */
#define GRPC_METHODS_MAX 64 /* of others nothing is counted */
struct grpc_counts {
	const char *path;
	bool stream;
	uint64_t started, sent, received; /* calls begun; messages */
	uint64_t ended[GRPC_CODES];       /* calls, by how */
};
/* *n of them, which stay. */
const struct grpc_counts *grpc_client_counts(size_t *n);

#endif
