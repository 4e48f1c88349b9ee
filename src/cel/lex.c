/* Tokens: the lexer rules of cel-go's CEL.g4, literals as its unescape.go reads them. */
#include "cel/lex.h"

static bool letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool hex(char c)
{
	return digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static int hex_value(char c)
{
	return digit(c) ? c - '0' : (c | 32) - 'a' + 10;
}

/* Behind the literal that starts at i (its quote), or 0: it does not end, or has an escape there is not. */
static size_t scan_string(struct str s, size_t i, bool raw)
{
	char q = s.p[i];
	bool three = i + 2 < s.n && s.p[i + 1] == q && s.p[i + 2] == q;

	i += three ? 3 : 1;
	while (i < s.n) {
		char c = s.p[i];

		if (c == q && !three)
			return i + 1;
		if (c == q && i + 2 < s.n && s.p[i + 1] == q && s.p[i + 2] == q)
			return i + 3;
		if (!three && (c == '\n' || c == '\r'))
			return 0;
		if (c == '\\' && !raw) {
			size_t want = 0;

			if (++i >= s.n)
				return 0;
			c = s.p[i];
			if (strchr("abfnrtv\"'\\?`", c) && c)
				;
			else if (c == 'x' || c == 'X')
				want = 2;
			else if (c == 'u')
				want = 4;
			else if (c == 'U')
				want = 8;
			else if (c >= '0' && c <= '3' && i + 2 < s.n && s.p[i + 1] >= '0' && s.p[i + 1] <= '7' && s.p[i + 2] >= '0' &&
				 s.p[i + 2] <= '7')
				i += 2;
			else
				return 0;
			for (; want; want--)
				if (++i >= s.n || !hex(s.p[i]))
					return 0;
		}
		i++;
	}
	return 0;
}

static size_t put_utf8(char *p, uint32_t r)
{
	if (r < 0x80) {
		p[0] = (char)r;
		return 1;
	}
	if (r < 0x800) {
		p[0] = (char)(0xc0 | r >> 6);
		p[1] = (char)(0x80 | (r & 63));
		return 2;
	}
	if (r < 0x10000) {
		p[0] = (char)(0xe0 | r >> 12);
		p[1] = (char)(0x80 | (r >> 6 & 63));
		p[2] = (char)(0x80 | (r & 63));
		return 3;
	}
	p[0] = (char)(0xf0 | r >> 18);
	p[1] = (char)(0x80 | (r >> 12 & 63));
	p[2] = (char)(0x80 | (r >> 6 & 63));
	p[3] = (char)(0x80 | (r & 63));
	return 4;
}

const char *cel_unquote(struct arena *a, struct str text, bool bytes, struct str *out)
{
	bool raw = false;
	char *p;
	size_t n = 0, cut;

	if (bytes)
		text = str_sub(text, 1, text.n);
	if (text.p[0] == 'r' || text.p[0] == 'R') {
		raw = true;
		text = str_sub(text, 1, text.n);
	}
	cut = text.n >= 6 && text.p[1] == text.p[0] && text.p[2] == text.p[0] ? 3 : 1;
	text = str_sub(text, cut, text.n - cut);
	/* Line ends are one character, as in Go's newline normalizer. */
	if (str_index(text, '\r') < 0 && (raw || str_index(text, '\\') < 0)) {
		*out = arena_str(a, text);
		return NULL;
	}
	p = arena_bytes(a, text.n + 4);
	for (size_t i = 0; i < text.n;) {
		char c = text.p[i++];
		uint32_t v = 0;
		size_t want = 0;

		if (c == '\r') {
			if (i < text.n && text.p[i] == '\n')
				i++;
			p[n++] = '\n';
			continue;
		}
		if (c != '\\' || raw) {
			p[n++] = c;
			continue;
		}
		c = text.p[i++];
		switch (c) {
		case 'a': p[n++] = '\a'; continue;
		case 'b': p[n++] = '\b'; continue;
		case 'f': p[n++] = '\f'; continue;
		case 'n': p[n++] = '\n'; continue;
		case 'r': p[n++] = '\r'; continue;
		case 't': p[n++] = '\t'; continue;
		case 'v': p[n++] = '\v'; continue;
		case 'x':
		case 'X': want = 2; break;
		case 'u': want = 4; break;
		case 'U': want = 8; break;
		case '0':
		case '1':
		case '2':
		case '3':
			v = (uint32_t)((c - '0') * 64 + (text.p[i] - '0') * 8 + (text.p[i + 1] - '0'));
			i += 2;
			break;
		default: p[n++] = c; continue;
		}
		if (want > 2 && bytes)
			return "unable to unescape string";
		for (size_t k = 0; k < want; k++)
			v = v << 4 | (uint32_t)hex_value(text.p[i++]);
		if (bytes) {
			p[n++] = (char)v;
		} else {
			if (v > 0x10ffff || (v >= 0xd800 && v < 0xe000))
				return "invalid unicode code point";
			n += put_utf8(p + n, v);
		}
	}
	*out = str_of(p, n);
	return NULL;
}

static size_t scan_number(struct str s, size_t i, uint8_t *t)
{
	size_t start = i;

	if (s.p[i] == '0' && i + 2 < s.n && s.p[i + 1] == 'x' && hex(s.p[i + 2])) {
		for (i += 2; i < s.n && hex(s.p[i]); i++)
			;
		*t = T_INT;
	} else {
		*t = T_INT;
		while (i < s.n && digit(s.p[i]))
			i++;
		if (i + 1 < s.n && s.p[i] == '.' && digit(s.p[i + 1])) {
			*t = T_FLOAT;
			for (i++; i < s.n && digit(s.p[i]); i++)
				;
		}
		if (i < s.n && (s.p[i] | 32) == 'e') {
			size_t k = i + 1;

			if (k < s.n && (s.p[k] == '+' || s.p[k] == '-'))
				k++;
			if (k < s.n && digit(s.p[k])) {
				*t = T_FLOAT;
				for (i = k; i < s.n && digit(s.p[i]); i++)
					;
			}
		}
	}
	if (*t == T_INT && i < s.n && (s.p[i] | 32) == 'u' && i > start) {
		*t = T_UINT;
		i++;
	}
	return i;
}

static uint8_t word(struct str s)
{
	if (str_eqz(s, "true"))
		return T_TRUE;
	if (str_eqz(s, "false"))
		return T_FALSE;
	if (str_eqz(s, "null"))
		return T_NULL;
	if (str_eqz(s, "in"))
		return T_IN;
	return T_IDENT;
}

static bool is(struct str s, size_t i, const char *two)
{
	return i + 1 < s.n && s.p[i] == two[0] && s.p[i + 1] == two[1];
}

struct lexeme *cel_lex(struct arena *a, struct str s, struct cel_issues *issues)
{
	LIST(struct lexeme) out = {0};
	size_t i = 0, counted = 0;
	uint32_t pos = 0;

	for (;;) {
		struct lexeme *x;
		size_t start, end = 0;
		uint8_t t = T_PUNCT;
		char c;

		for (;;) {
			while (i < s.n && (s.p[i] == ' ' || s.p[i] == '\t' || s.p[i] == '\n' || s.p[i] == '\r' || s.p[i] == '\f'))
				i++;
			if (!is(s, i, "//"))
				break;
			while (i < s.n && s.p[i] != '\n')
				i++;
		}
		for (; counted < i; counted++)
			pos += ((unsigned char)s.p[counted] & 0xc0) != 0x80;
		if (i >= s.n) {
			x = arena_push(a, &out);
			x->t = T_END;
			x->pos = pos;
			return out.v;
		}
		start = i;
		c = s.p[i];
		if (c == '"' || c == '\'') {
			t = T_STRING;
			end = scan_string(s, i, false);
		} else if (letter(c)) {
			bool b = (c | 32) == 'b', r = (c | 32) == 'r';
			size_t k = i + 1;

			if (b && k < s.n && (s.p[k] | 32) == 'r') {
				r = true;
				k++;
			}
			if ((b || r) && k < s.n && (s.p[k] == '"' || s.p[k] == '\'')) {
				t = b ? T_BYTES : T_STRING;
				end = scan_string(s, k, r);
			} else {
				for (end = i + 1; end < s.n && (letter(s.p[end]) || digit(s.p[end])); end++)
					;
				t = word(str_sub(s, i, end));
			}
		} else if (digit(c) || (c == '.' && i + 1 < s.n && digit(s.p[i + 1]))) {
			if (c == '.') { /* .5 */
				size_t k = i + 1;

				while (k < s.n && digit(s.p[k]))
					k++;
				t = T_FLOAT;
				end = k;
				if (k < s.n && (s.p[k] | 32) == 'e') {
					k++;
					if (k < s.n && (s.p[k] == '+' || s.p[k] == '-'))
						k++;
					if (k < s.n && digit(s.p[k])) {
						while (k < s.n && digit(s.p[k]))
							k++;
						end = k;
					}
				}
			} else {
				end = scan_number(s, i, &t);
			}
		} else if (c == '`') {
			for (end = i + 1; end < s.n && (letter(s.p[end]) || digit(s.p[end]) || strchr(".-/ ", s.p[end])); end++)
				;
			t = T_ESC_IDENT;
			end = end < s.n && s.p[end] == '`' && end > i + 1 ? end + 1 : 0;
		} else {
			static const struct {
				char text[3];
				uint8_t t;
			} twos[] = {{"==", T_EQ}, {"!=", T_NE}, {"<=", T_LE}, {">=", T_GE}, {"&&", T_AND}, {"||", T_OR}};

			for (size_t k = 0; k < 6; k++)
				if (is(s, i, twos[k].text)) {
					t = twos[k].t;
					end = i + 2;
				}
			if (!end && (c == '<' || c == '>')) {
				t = c == '<' ? T_LT : T_GT;
				end = i + 1;
			}
			if (!end && c && strchr("[]{}().,-!?:+*/%", c))
				end = i + 1;
		}
		if (!end) {
			size_t stop = i + 1;

			while (stop < s.n && ((unsigned char)s.p[stop] & 0xc0) == 0x80)
				stop++;
			if (c == '"' || c == '\'')
				stop = s.n;
			cel_issue(a, issues, s, pos, "Syntax error: token recognition error at: '%.*s'", STR_ARG(str_sub(s, i, stop)));
			return NULL;
		}
		x = arena_push(a, &out);
		x->t = t;
		x->c = t == T_PUNCT ? c : 0;
		x->pos = pos;
		x->text = str_sub(s, start, end);
		i = end;
	}
}
