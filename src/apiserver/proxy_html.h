/*
 * apiserver/proxy_html.h: links of a proxied text/html page: absolute paths of
 * the backend get the proxy's own path in front, so that a browser stays in it.
 * It looks at tags and attributes only; text, comments and scripts pass as they are.
 */
#ifndef SKIFF_APISERVER_PROXY_HTML_H
#define SKIFF_APISERVER_PROXY_HTML_H

#include "base/buf.h"

/*
 * `html` into *out, with `prefix` ("/api/v1/namespaces/x/pods/y/proxy") before the paths of links to the same host: paths from the
 * root, and URLs of `host` or `client_host` ("name:port"), which lose scheme and host. Relative links and other hosts' stay.
 */
void proxy_html_rewrite(struct str html, struct str prefix, struct str host, struct str client_host, struct buf *out);
/* The same for one URL, e.g. of a Location header. */
void proxy_url_rewrite(struct str url, struct str prefix, struct str host, struct str client_host, struct buf *out);

#endif
