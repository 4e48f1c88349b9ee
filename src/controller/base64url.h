/* controller/base64url.h: base64 with the URL-safe alphabet and no padding (RFC 4648, 5), as JWS uses it. */
#ifndef SKIFF_CONTROLLER_BASE64URL_H
#define SKIFF_CONTROLLER_BASE64URL_H

#include "base/buf.h"

static inline void base64url(struct buf *b, struct str s)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	const unsigned char *p = (const unsigned char *)s.p;

	for (size_t i = 0; i < s.n; i += 3) {
		unsigned v = (unsigned)p[i] << 16 | (i + 1 < s.n ? (unsigned)p[i + 1] << 8 : 0) | (i + 2 < s.n ? p[i + 2] : 0);

		buf_putc(b, digits[v >> 18 & 63]);
		buf_putc(b, digits[v >> 12 & 63]);
		if (i + 1 < s.n)
			buf_putc(b, digits[v >> 6 & 63]);
		if (i + 2 < s.n)
			buf_putc(b, digits[v & 63]);
	}
}

#endif
