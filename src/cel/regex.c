/*
 * Regular expressions: the syntax of RE2 (Go's regexp/syntax) on PCRE2. A pattern is read and written anew: what RE2 does not have is
 * refused, what PCRE2 means differently is spelled out. Matching has limits; where backtracking reaches them, PCRE2's other
 * algorithm, which does not backtrack, decides whether there is a match.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <ctype.h>
#include <pcre2.h>
#include <stdio.h>
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
	uint16_t times[NESTING_MAX + 2]; /* by depth: how often the most repeated part stands there when repetitions are written out */
	uint16_t last;                   /* the same of what stands before p->i */
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

/*
 * A class by its name, as PCRE2 has it, into out: a category, one of Unicode's names for categories, or a script. Case, spaces, hyphens and
 * underscores make no difference (Go's canonicalName).
 */
static bool class_name(struct str given, bool negated, char out[64])
{
	static const struct {
		const char *name, *category;
	} categories[] = {
		{"casedletter", "L&"}, {"closepunctuation", "Pe"}, {"combiningmark", "M"}, {"connectorpunctuation", "Pc"}, {"control", "Cc"},
		{"currencysymbol", "Sc"}, {"dashpunctuation", "Pd"}, {"decimalnumber", "Nd"}, {"enclosingmark", "Me"}, {"finalpunctuation", "Pf"},
		{"format", "Cf"}, {"initialpunctuation", "Pi"}, {"letter", "L"}, {"letternumber", "Nl"}, {"lineseparator", "Zl"},
		{"lowercaseletter", "Ll"}, {"mark", "M"}, {"mathsymbol", "Sm"}, {"modifierletter", "Lm"}, {"modifiersymbol", "Sk"},
		{"nonspacingmark", "Mn"}, {"number", "N"}, {"openpunctuation", "Ps"}, {"other", "C"}, {"otherletter", "Lo"}, {"othernumber", "No"},
		{"otherpunctuation", "Po"}, {"othersymbol", "So"}, {"paragraphseparator", "Zp"}, {"privateuse", "Co"}, {"punctuation", "P"},
		{"separator", "Z"}, {"spaceseparator", "Zs"}, {"spacingmark", "Mc"}, {"surrogate", "Cs"}, {"symbol", "S"}, {"titlecaseletter", "Lt"},
		{"unassigned", "Cn"}, {"uppercaseletter", "Lu"}, {"cntrl", "Cc"}, {"digit", "Nd"}, {"punct", "P"}, {"any", "Any"}, {"lc", "L&"},
	};
	/* scripts whose names are as short as the abbreviations that PCRE2 knows, and RE2 does not */
	static const char *const short_scripts[] = {"ahom", "cham", "kawi", "lisu", "miao", "modi", "newa", "thai", "toto"};
	static const char subs[] = "cc cf cn co cs ll lm lo lt lu mc me mn nd nl no pc pd pe pf pi po ps sc sk sm so zl zp zs ";
	char name[48];
	size_t n = 0;
	bool known = true;

	for (size_t k = 0; k < given.n; k++) {
		char c = given.p[k];

		if (c == ' ' || c == '_' || c == '-')
			continue;
		if (!isalnum((unsigned char)c) || n == sizeof name - 1)
			return false;
		name[n++] = (char)tolower((unsigned char)c);
	}
	name[n] = 0;
	if (!strcmp(name, "assigned")) {
		snprintf(out, 64, "\\%c{Cn}", negated ? 'p' : 'P');
		return true;
	}
	if (!strcmp(name, "ascii")) {
		snprintf(out, 64, "%s", negated ? "\\x{80}-\\x{10ffff}" : "\\x{0}-\\x{7f}");
		return true;
	}
	for (size_t k = 0; k < sizeof categories / sizeof *categories; k++)
		if (!strcmp(name, categories[k].name)) {
			snprintf(out, 64, "\\%c{%s}", negated ? 'P' : 'p', categories[k].category);
			return true;
		}
	if ((n == 1 && strchr("clmnpsz", name[0])) || (n == 2 && strstr(subs, (char[]){name[0], name[1], ' ', 0}))) {
		name[0] = (char)toupper((unsigned char)name[0]);
		snprintf(out, 64, "\\%c{%s}", negated ? 'P' : 'p', name);
		return true;
	}
	if (n == 4) {
		known = false;
		for (size_t k = 0; k < sizeof short_scripts / sizeof *short_scripts; k++)
			known |= !strcmp(name, short_scripts[k]);
	}
	if (!known || !n || !strcmp(name, "unknown"))
		return false;
	snprintf(out, 64, "\\%c{sc:%s}", negated ? 'P' : 'p', name); /* PCRE2 knows whether there is such a script */
	return true;
}

/* \pN, \p{Greek}, \p{^Greek}: p->i stands behind the p. */
static bool unicode_class(struct reader *p, bool negated, bool alone)
{
	struct str name;
	char as[64];

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
	if (!class_name(name, negated, as))
		return bad(p, "invalid character class range");
	buf_printf(p->out, alone && !strchr("pP", as[1]) ? "[%s]" : "%s", as);
	return true;
}

/* [:alpha:] as ranges, of ASCII; the other side of them with ^. */
static const char *posix_class(struct str name)
{
	static const struct {
		const char *name, *in, *out;
	} classes[] = {
		{"alnum", "0-9A-Za-z", "\\x{0}-/:-@\\[-`\\{-\\x{10ffff}"},
		{"alpha", "A-Za-z", "\\x{0}-@\\[-`\\{-\\x{10ffff}"},
		{"ascii", "\\x{0}-\\x{7f}", "\\x{80}-\\x{10ffff}"},
		{"blank", "\\t ", "\\x{0}-\\x{8}\\x{a}-\\x{1f}!-\\x{10ffff}"},
		{"cntrl", "\\x{0}-\\x{1f}\\x{7f}", " -~\\x{80}-\\x{10ffff}"},
		{"digit", "0-9", "\\x{0}-/:-\\x{10ffff}"},
		{"graph", "!-~", "\\x{0}- \\x{7f}-\\x{10ffff}"},
		{"lower", "a-z", "\\x{0}-`\\{-\\x{10ffff}"},
		{"print", " -~", "\\x{0}-\\x{1f}\\x{7f}-\\x{10ffff}"},
		{"punct", "!-/:-@\\[-`\\{-~", "\\x{0}- 0-9A-Za-z\\x{7f}-\\x{10ffff}"},
		{"space", "\\t-\\r ", "\\x{0}-\\x{8}\\x{e}-\\x{1f}!-\\x{10ffff}"},
		{"upper", "A-Z", "\\x{0}-@\\[-\\x{10ffff}"},
		{"word", "0-9A-Za-z_", "\\x{0}-/:-@\\[-\\^`\\{-\\x{10ffff}"},
		{"xdigit", "0-9A-Fa-f", "\\x{0}-/:-@G-`g-\\x{10ffff}"},
	};
	bool out = name.n && name.p[0] == '^';

	name = str_sub(name, out, name.n);
	for (size_t k = 0; k < sizeof classes / sizeof *classes; k++)
		if (str_eqz(name, classes[k].name))
			return out ? classes[k].out : classes[k].in;
	return NULL;
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

			while (p->i + 1 < p->s.n && !(p->s.p[p->i] == ':' && p->s.p[p->i + 1] == ']' && p->i > start + 1))
				p->i++;
			if (p->i + 1 >= p->s.n) {
				p->i = start;
			} else {
				set = posix_class(str_sub(p->s, start + 2, p->i));
				if (!set)
					return bad(p, "invalid character class range");
				p->i += 2;
				buf_puts(p->out, set);
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
				if (!unicode_class(p, c == 'P', false))
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

/* A number of a repetition: -1: none; more than is allowed is REPEAT_MAX + 1. */
static int count(struct reader *p, size_t *k)
{
	size_t start = *k;
	int v = 0;

	for (; *k < p->s.n && isdigit((unsigned char)p->s.p[*k]); ++*k) {
		v = v * 10 + (p->s.p[*k] - '0');
		if (v > REPEAT_MAX)
			v = REPEAT_MAX + 1;
	}
	return *k == start || (*k - start > 1 && p->s.p[start] == '0') ? -1 : v;
}

/* {n}, {n,}, {n,m}: 1 copied; 0: it is no repetition, a literal brace; -1: too big */
static int repeat(struct reader *p)
{
	size_t k = p->i + 1;
	int lo = count(p, &k), hi = lo, most;

	if (lo < 0)
		return 0;
	if (k < p->s.n && p->s.p[k] == ',') {
		k++;
		if (k < p->s.n && p->s.p[k] == '}')
			hi = -1;
		else if ((hi = count(p, &k)) < 0)
			return 0;
	}
	if (k >= p->s.n || p->s.p[k] != '}')
		return 0;
	most = hi < 0 ? lo : hi;
	if (most > REPEAT_MAX || most < lo || most * p->last > REPEAT_MAX)
		return -1;
	p->last = (uint16_t)(most ? most * p->last : 1);
	buf_str(p->out, str_sub(p->s, p->i, k + 1));
	p->i = k + 1;
	return 1;
}

static bool group(struct reader *p)
{
	size_t start = p->i;
	bool minus = false, some = false;

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
	for (; peek(p) > 0 && strchr("imsU-", peek(p)); p->i++) {
		if (peek(p) == '-' && minus)
			break;
		some = peek(p) != '-';
		minus |= !some;
	}
	if ((peek(p) != ')' && peek(p) != ':') || (minus && !some))
		return bad(p, "invalid or unsupported Perl syntax");
	p->i++;
	buf_str(p->out, str_sub(p->s, start, p->i));
	if (p->s.p[p->i - 1] == ':')
		p->depth++;
	return true;
}

/* An assertion: for PCRE2, repeated ones need brackets. */
static void assertion(struct reader *p, const char *as)
{
	buf_printf(p->out, peek(p) >= 0 && strchr("*+?{", peek(p)) ? "(?:%s)" : "%s", as);
}

static bool translate(struct reader *p)
{
	bool repeatable = false, repeated = false;

	p->times[0] = 1;

	while (p->i < p->s.n) {
		int c = peek(p), rc;
		uint32_t v;

		switch (c) {
		case '(':
			if (!group(p))
				return false;
			if (p->depth > NESTING_MAX)
				return bad(p, "expression nests too deeply");
			if (p->s.p[p->i - 1] != ')')
				p->times[p->depth] = 1;
			repeatable = repeated = false;
			continue;
		case ')':
			if (!p->depth--)
				return bad(p, "unexpected )");
			p->i++;
			buf_putc(p->out, ')');
			p->last = p->times[p->depth + 1];
			if (p->last > p->times[p->depth])
				p->times[p->depth] = p->last;
			repeatable = true;
			repeated = false;
			continue;
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
			if (p->last > p->times[p->depth])
				p->times[p->depth] = p->last;
			continue;
		case '[':
			if (!class(p))
				return false;
			break;
		case '.':
			p->i++;
			buf_putc(p->out, '.');
			break;
		case '^':
		case '$':
			p->i++;
			assertion(p, (char[]){(char)c, 0});
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
				if (!unicode_class(p, e == 'P', true))
					return false;
			} else if (e == 'A' || e == 'z' || e == 'b' || e == 'B') {
				p->i++;
				assertion(p, (char[]){'\\', (char)e, 0});
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
		p->last = 1;
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
