/*
 * base/flags.h: flags that upstream's component has and the one here has not: what changes nothing here is taken with a warning,
 * what asks for something that is not built is refused by name. No real flag of upstream's is an unknown one.
 */
#ifndef SKIFF_BASE_FLAGS_H
#define SKIFF_BASE_FLAGS_H

#include <getopt.h>

struct upstream_flags {
	const char *component;  /* "kube-scheduler" */
	const char *no_effect;  /* names between spaces; "!" behind one that stands without a value */
	const char *not_built;
};

/* The flags of serving, authentication, logging and metrics that upstream's components share. Literals, to be joined. */
#define UPSTREAM_LOG_FLAGS                                                                                                              \
	"log-flush-frequency log-json-info-buffer-size log-json-split-stream! log-text-info-buffer-size log-text-split-stream! "        \
	"logging-format vmodule "
#define UPSTREAM_SERVING_FLAGS                                                                                                          \
	"allow-metric-labels allow-metric-labels-manifest authentication-skip-lookup! authentication-token-webhook-cache-ttl "          \
	"authentication-tolerate-lookup-failure! authorization-always-allow-paths authorization-webhook-cache-authorized-ttl "          \
	"authorization-webhook-cache-unauthorized-ttl cert-dir contention-profiling! disable-http2-serving! disabled-metrics "          \
	"feature-gates http2-max-streams-per-connection kube-api-content-type permit-address-sharing! permit-port-sharing! "            \
	"requestheader-allowed-names requestheader-extra-headers-prefix requestheader-group-headers requestheader-uid-headers "         \
	"requestheader-username-headers show-hidden-metrics-for-version tls-cipher-suites tls-curve-preferences tls-min-version "

/*
 * Before getopt_long: takes flags without effect (and their values) out of argv, names them on stderr. Own flags (ended by a zeroed
 * one) come first, whatever the lists say. 0, or the exit status when one is not built.
 */
int upstream_flags_sift(const struct upstream_flags *f, const struct option *own, int *argc, char **argv);

#endif
