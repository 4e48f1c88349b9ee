/*
 * Regular expressions: the syntax of RE2 (Go's regexp/syntax) on PCRE2. A pattern is read and written anew: what RE2 does not have is
 * refused, what PCRE2 means differently is spelled out. Matching has limits; where backtracking reaches them, PCRE2's other
 * algorithm, which does not backtrack, decides whether there is a match.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <ctype.h>
#include <pcre2.h>
#include <stdlib.h>
#include "base/buf.h"
#include "base/log.h"
#include "cel/internal.h"

#define REPEAT_MAX 1000
#define MATCH_LIMIT 500000
#define HEAP_LIMIT_KIB 4096
#define DFA_WORKSPACE 20000
#define NESTING_MAX 200

struct cel_regex {
	pcre2_code *code;
};

struct reader {
	struct str s;
	size_t i;
	struct buf *out;
	const char *why;
	int depth;
};

static bool bad(struct reader *p, const char *why)
{
	p->why = why;
	return false;
}

static int peek(const struct reader *p)
{
	return p->i < p->s.n ? (unsigned char)p->s.p[p->i] : -1;
}

static bool is_octal(int c)
{
	return c >= '0' && c <= '7';
}

static void put_code(struct buf *b, uint32_t c)
{
	buf_printf(b, "\\x{%x}", c);
}

/* A character behind a backslash that stands for one character: true, its code. p->i stands behind the backslash. */
static bool escaped_char(struct reader *p, uint32_t *out)
{
	int c = peek(p);
	uint32_t v = 0;

	if (c < 0)
		return bad(p, "trailing backslash at end of expression: ``");
	p->i++;
	switch (c) {
	case 'a': *out = 7; return true;
	case 'f': *out = 12; return true;
	case 'n': *out = 10; return true;
	case 'r': *out = 13; return true;
	case 't': *out = 9; return true;
	case 'v': *out = 11; return true;
	case 'x':
		if (peek(p) == '{') {
			size_t n = 0;

			for (p->i++; peek(p) >= 0 && isxdigit(peek(p)); p->i++, n++) {
				v = v * 16 + (uint32_t)(isdigit(peek(p)) ? peek(p) - '0' : (peek(p) | 32) - 'a' + 10);
				if (v > 0x10ffff)
					return bad(p, "invalid escape sequence");
			}
			if (!n || peek(p) != '}')
				return bad(p, "invalid escape sequence");
			p->i++;
			*out = v;
			return true;
		}
		for (int k = 0; k < 2; k++, p->i++) {
			if (peek(p) < 0 || !isxdigit(peek(p)))
				return bad(p, "invalid escape sequence");
			v = v * 16 + (uint32_t)(isdigit(peek(p)) ? peek(p) - '0' : (peek(p) | 32) - 'a' + 10);
		}
		*out = v;
		return true;
	default:
		break;
	}
	if (is_octal(c)) {
		if (c != '0' && !is_octal(peek(p)))
			return bad(p, "invalid escape sequence"); /* a back reference */
		v = (uint32_t)(c - '0');
		for (int k = 0; k < 2 && is_octal(peek(p)); k++, p->i++)
			v = v * 8 + (uint32_t)(peek(p) - '0');
		*out = v;
		return true;
	}
	if (c < 0x80 && !isalnum(c)) {
		*out = (uint32_t)c;
		return true;
	}
	return bad(p, "invalid escape sequence");
}

/* \d and friends, as ranges (RE2's are ASCII; \s has no vertical tab). */
static const char *perl_class(int c)
{
	switch (c) {
	case 'd': return "0-9";
	case 'D': return "\\x{0}-/:-\\x{10ffff}";
	case 's': return "\\t\\n\\f\\r ";
	case 'S': return "\\x{0}-\\x{8}\\x{b}\\x{e}-\\x{1f}!-\\x{10ffff}";
	case 'w': return "0-9A-Za-z_";
	case 'W': return "\\x{0}-/:-@\\[-\\^`\\{-\\x{10ffff}";
	default: return NULL;
	}
}

/* \pN, \p{Greek}, \p{^Greek}: p->i stands behind the p. */
static bool unicode_class(struct reader *p, bool negated)
{
	struct str name;

	if (peek(p) == '{') {
		size_t start = ++p->i;

		while (peek(p) >= 0 && peek(p) != '}')
			p->i++;
		if (peek(p) < 0)
			return bad(p, "invalid character class range");
		name = str_sub(p->s, start, p->i);
		p->i++;
		if (name.n && name.p[0] == '^') {
			negated = !negated;
			name = str_sub(name, 1, name.n);
		}
	} else {
		if (peek(p) < 0)
			return bad(p, "invalid character class range");
		name = str_sub(p->s, p->i, p->i + 1);
		p->i++;
	}
	if (!name.n)
		return bad(p, "invalid character class range");
	for (size_t k = 0; k < name.n; k++)
		if (!isalnum((unsigned char)name.p[k]) && name.p[k] != '_')
			return bad(p, "invalid character class range");
	buf_printf(p->out, "\\%c{%.*s}", negated ? 'P' : 'p', STR_ARG(name));
	return true;
}

static bool one_char(struct reader *p, uint32_t *out)
{
	unsigned char c = (unsigned char)p->s.p[p->i];
	unsigned n = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;

	if (p->i + n > p->s.n)
		return bad(p, "invalid UTF-8");
	*out = n == 1 ? c : c & (0x7fu >> n);
	for (unsigned k = 1; k < n; k++)
		*out = *out << 6 | ((unsigned char)p->s.p[p->i + k] & 0x3f);
	p->i += n;
	return true;
}

static bool class(struct reader *p)
{
	bool first = true;

	p->i++;
	buf_putc(p->out, '[');
	if (peek(p) == '^') {
		p->i++;
		buf_putc(p->out, '^');
	}
	while (peek(p) != ']' || first) {
		uint32_t lo, hi;
		const char *set;

		if (peek(p) < 0)
			return bad(p, "missing closing ]");
		first = false;
		if (peek(p) == '[' && p->i + 1 < p->s.n && p->s.p[p->i + 1] == ':') {
			size_t start = p->i;
			static const char *const names[] = {"alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print",
							    "punct", "space", "upper", "word", "xdigit"};
			bool known = false;
			struct str n;

			while (p->i + 1 < p->s.n && !(p->s.p[p->i] == ':' && p->s.p[p->i + 1] == ']' && p->i > start + 1))
				p->i++;
			if (p->i + 1 >= p->s.n) {
				p->i = start;
			} else {
				n = str_sub(p->s, start + 2, p->i);
				if (n.n && n.p[0] == '^')
					n = str_sub(n, 1, n.n);
				for (size_t k = 0; k < sizeof names / sizeof *names; k++)
					known |= str_eqz(n, names[k]);
				if (!known)
					return bad(p, "invalid character class range");
				p->i += 2;
				buf_str(p->out, str_sub(p->s, start, p->i));
				continue;
			}
		}
		if (peek(p) == '\\') {
			int c = p->i + 1 < p->s.n ? p->s.p[p->i + 1] : -1;

			set = perl_class(c);
			if (set) {
				p->i += 2;
				buf_puts(p->out, set);
				continue;
			}
			if (c == 'p' || c == 'P') {
				p->i += 2;
				if (!unicode_class(p, c == 'P'))
					return false;
				continue;
			}
			p->i++;
			if (!escaped_char(p, &lo))
				return false;
		} else if (!one_char(p, &lo)) {
			return false;
		}
		hi = lo;
		if (peek(p) == '-' && p->i + 1 < p->s.n && p->s.p[p->i + 1] != ']') {
			p->i++;
			if (peek(p) == '\\') {
				p->i++;
				if (!escaped_char(p, &hi))
					return false;
			} else if (!one_char(p, &hi)) {
				return false;
			}
			if (hi < lo)
				return bad(p, "invalid character class range");
		}
		put_code(p->out, lo);
		if (hi != lo) {
			buf_putc(p->out, '-');
			put_code(p->out, hi);
		}
	}
	p->i++;
	buf_putc(p->out, ']');
	return true;
}

/* {n}, {n,}, {n,m}: 1 copied; 0: it is no repetition, a literal brace; -1: too big */
static int repeat(struct reader *p)
{
	size_t k = p->i + 1, start = k;
	long lo, hi;

	while (k < p->s.n && isdigit((unsigned char)p->s.p[k]))
		k++;
	if (k == start || k - start > 5 || (k - start > 1 && p->s.p[start] == '0'))
		return 0;
	lo = hi = strtol(p->s.p + start, NULL, 10);
	if (k < p->s.n && p->s.p[k] == ',') {
		size_t second = ++k;

		while (k < p->s.n && isdigit((unsigned char)p->s.p[k]))
			k++;
		if (k - second > 5)
			return -1;
		hi = k == second ? lo : strtol(p->s.p + second, NULL, 10);
	}
	if (k >= p->s.n || p->s.p[k] != '}')
		return 0;
	if (lo > REPEAT_MAX || hi > REPEAT_MAX || hi < lo)
		return -1;
	buf_str(p->out, str_sub(p->s, p->i, k + 1));
	p->i = k + 1;
	return 1;
}

static bool group(struct reader *p)
{
	static const char flags[] = "imsU";
	size_t start = p->i;

	p->i++;
	if (peek(p) != '?') {
		buf_putc(p->out, '(');
		p->depth++;
		return true;
	}
	p->i++;
	if ((peek(p) == 'P' && p->i + 1 < p->s.n && p->s.p[p->i + 1] == '<') || peek(p) == '<') {
		size_t name;

		p->i += peek(p) == 'P' ? 2 : 1;
		name = p->i;
		while (peek(p) == '_' || (peek(p) >= 0 && isalnum(peek(p))))
			p->i++;
		if (p->i == name || peek(p) != '>')
			return bad(p, "invalid named capture");
		p->i++;
		/* names are of no use here, and PCRE2's limits on them are others */
		buf_putc(p->out, '(');
		p->depth++;
		return true;
	}
	while (peek(p) >= 0 && (strchr(flags, peek(p)) || peek(p) == '-'))
		p->i++;
	if (peek(p) != ')' && peek(p) != ':')
		return bad(p, "invalid or unsupported Perl syntax");
	p->i++;
	buf_str(p->out, str_sub(p->s, start, p->i));
	if (p->s.p[p->i - 1] == ':')
		p->depth++;
	return true;
}

static bool translate(struct reader *p)
{
	bool repeatable = false, repeated = false;

	while (p->i < p->s.n) {
		int c = peek(p), rc;
		uint32_t v;

		switch (c) {
		case '(':
			if (!group(p))
				return false;
			if (p->depth > NESTING_MAX)
				return bad(p, "expression nests too deeply");
			repeatable = repeated = false;
			continue;
		case ')':
			if (!p->depth--)
				return bad(p, "unexpected )");
			p->i++;
			buf_putc(p->out, ')');
			break;
		case '|':
			p->i++;
			buf_putc(p->out, '|');
			repeatable = repeated = false;
			continue;
		case '*':
		case '+':
		case '?':
		case '{':
			rc = 1;
			if (c == '{') {
				rc = repeat(p);
				if (rc < 0)
					return bad(p, "invalid repeat count");
				if (!rc) {
					p->i++;
					buf_puts(p->out, "\\{");
					break;
				}
			} else {
				p->i++;
				buf_putc(p->out, (char)c);
			}
			if (repeated)
				return bad(p, "invalid nested repetition operator");
			if (!repeatable)
				return bad(p, "missing argument to repetition operator");
			if (peek(p) == '?') {
				p->i++;
				buf_putc(p->out, '?');
			}
			repeated = true;
			continue;
		case '[':
			if (!class(p))
				return false;
			break;
		case '.':
		case '^':
		case '$':
			p->i++;
			buf_putc(p->out, (char)c);
			break;
		case '\\': {
			int e = p->i + 1 < p->s.n ? (unsigned char)p->s.p[p->i + 1] : -1;
			const char *set = perl_class(e);

			p->i++;
			if (set) {
				p->i++;
				buf_printf(p->out, "[%s]", set);
			} else if (e == 'p' || e == 'P') {
				p->i++;
				if (!unicode_class(p, e == 'P'))
					return false;
			} else if (e == 'A' || e == 'z' || e == 'b' || e == 'B') {
				p->i++;
				buf_printf(p->out, "\\%c", e);
			} else if (e == 'Q') {
				for (p->i++; p->i < p->s.n && !(peek(p) == '\\' && p->i + 1 < p->s.n && p->s.p[p->i + 1] == 'E');) {
					if (!one_char(p, &v))
						return false;
					put_code(p->out, v);
				}
				if (p->i < p->s.n)
					p->i += 2;
			} else {
				if (!escaped_char(p, &v))
					return false;
				put_code(p->out, v);
			}
			break;
		}
		default:
			if (!one_char(p, &v))
				return false;
			if (v < 0x80 && (isalnum((int)v) || v == '_'))
				buf_putc(p->out, (char)v);
			else
				put_code(p->out, v);
		}
		repeatable = true;
		repeated = false;
	}
	return p->depth ? bad(p, "missing closing )") : true;
}

const struct cel_regex *cel_regex_new(struct str pattern, const char **why)
{
	struct buf b buf_cleanup = {0};
	struct reader p = {.s = pattern, .out = &b};
	struct cel_regex *re;
	pcre2_compile_context *cc;
	pcre2_code *code;
	PCRE2_SIZE off;
	int err;

	if (!translate(&p)) {
		*why = p.why;
		return NULL;
	}
	cc = pcre2_compile_context_create(NULL);
	if (!cc)
		die_oom();
	pcre2_set_newline(cc, PCRE2_NEWLINE_LF);
	code = pcre2_compile((PCRE2_SPTR)(b.n ? b.p : ""), b.n, PCRE2_UTF | PCRE2_DOLLAR_ENDONLY, &err, &off, cc);
	pcre2_compile_context_free(cc);
	if (!code) {
		*why = "invalid or too large regular expression";
		return NULL;
	}
	re = xcalloc(1, sizeof *re);
	re->code = code;
	return re;
}

void cel_regex_free(const struct cel_regex *re)
{
	if (!re)
		return;
	pcre2_code_free(re->code);
	free((void *)re);
}

static int match(const struct cel_regex *re, struct str s, size_t from, pcre2_match_data *md, bool dfa)
{
	pcre2_match_context *mc = pcre2_match_context_create(NULL);
	PCRE2_SPTR text = (PCRE2_SPTR)(s.n ? s.p : "");
	int rc, *work;

	if (!mc)
		die_oom();
	pcre2_set_match_limit(mc, MATCH_LIMIT);
	pcre2_set_heap_limit(mc, HEAP_LIMIT_KIB);
	if (dfa) {
		work = xcalloc(DFA_WORKSPACE, sizeof *work);
		rc = pcre2_dfa_match(re->code, text, s.n, from, PCRE2_DFA_SHORTEST, md, mc, work, DFA_WORKSPACE);
		free(work);
	} else {
		rc = pcre2_match(re->code, text, s.n, from, 0, md, mc);
	}
	pcre2_match_context_free(mc);
	return rc;
}

/* Why there is no answer. A string may be no UTF-8 where it was unescaped from a URL. */
static const char *reason(int rc)
{
	return rc <= PCRE2_ERROR_UTF8_ERR1 && rc >= PCRE2_ERROR_UTF8_ERR21 ? "the string is not valid UTF-8" :
									       "the regular expression takes too much effort";
}

bool cel_regex_find(const struct cel_regex *re, struct str s, size_t from, size_t *start, size_t *end, const char **why)
{
	pcre2_match_data *md = pcre2_match_data_create(1, NULL);
	int rc;

	if (!md)
		die_oom();
	*why = NULL;
	rc = match(re, s, from, md, false);
	if (rc >= 0) {
		PCRE2_SIZE *v = pcre2_get_ovector_pointer(md);

		*start = v[0];
		*end = v[1];
	} else if (rc != PCRE2_ERROR_NOMATCH) {
		*why = reason(rc);
	}
	pcre2_match_data_free(md);
	return rc >= 0;
}

bool cel_regex_matches(const struct cel_regex *re, struct str s, const char **why)
{
	pcre2_match_data *md = pcre2_match_data_create(1, NULL);
	int rc;

	if (!md)
		die_oom();
	*why = NULL;
	rc = match(re, s, 0, md, false);
	if (rc < 0 && rc != PCRE2_ERROR_NOMATCH)
		rc = match(re, s, 0, md, true);
	if (rc < 0 && rc != PCRE2_ERROR_NOMATCH)
		*why = reason(rc);
	pcre2_match_data_free(md);
	return rc >= 0;
}
