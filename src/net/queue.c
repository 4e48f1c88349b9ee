/* Small things that several protocols of this room share. */
#include <errno.h>

#include "net/internal.h"

struct stream *net_bottom(struct stream *s)
{
	for (struct stream *u = s; u;) {
		s = u;
		u = h1_unbuffer_under(s);
		if (!u)
			u = ws_stream_under(s);
		if (!u && stream_is_tls(s))
			u = tls_stream_raw(s);
	}
	return s;
}

struct error *bq_put(struct bytes_queue *q, const char *p, size_t n, size_t max)
{
	while (n) {
		if (q->ended)
			return error_sys(EPIPE, "stream has ended");
		if (bq_len(q) >= max) {
			TRY(waitq_wait(&q->writable));
			continue;
		}
		size_t k = max - bq_len(q) < n ? max - bq_len(q) : n;

		if (q->off && q->off >= q->b.n / 2) {
			memmove(q->b.p, q->b.p + q->off, q->b.n - q->off);
			q->b.n -= q->off;
			q->off = 0;
		}
		buf_append(&q->b, p, k);
		p += k;
		n -= k;
		waitq_wake_all(&q->readable);
	}
	return NULL;
}

struct error *bq_get(struct bytes_queue *q, void *p, size_t n, size_t *got)
{
	*got = 0;
	while (!bq_len(q)) {
		if (q->ended)
			return NULL;
		TRY(waitq_wait(&q->readable));
	}
	*got = bq_len(q) < n ? bq_len(q) : n;
	memcpy(p, q->b.p + q->off, *got);
	q->off += *got;
	if (!bq_len(q)) {
		q->off = q->b.n = 0;
		/* Idle streams hold nothing. */
		if (q->b.cap > 4096)
			buf_free(&q->b);
	}
	waitq_wake_all(&q->writable);
	return NULL;
}

void bq_end(struct bytes_queue *q)
{
	q->ended = true;
	waitq_wake_all(&q->readable);
	waitq_wake_all(&q->writable);
}
