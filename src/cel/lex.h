/* cel/lex.h: tokens of an expression. */
#ifndef SKIFF_CEL_LEX_H
#define SKIFF_CEL_LEX_H

#include "cel/ast.h"

enum token {
	T_END,
	T_IDENT,
	T_ESC_IDENT, /* `...`: not enabled in Kubernetes */
	T_INT,
	T_UINT,
	T_FLOAT,
	T_STRING,
	T_BYTES,
	T_TRUE,
	T_FALSE,
	T_NULL,
	T_IN,
	T_EQ, /* == */
	T_NE,
	T_LT,
	T_LE,
	T_GE,
	T_GT,
	T_AND,
	T_OR,
	T_PUNCT, /* one of [ ] { } ( ) . , - ! ? : + * / % */
};

struct lexeme {
	uint8_t t; /* enum token */
	char c;    /* T_PUNCT */
	uint32_t pos; /* code points before it */
	struct str text;
};

/* All tokens of source, T_END last; NULL: issues say why. */
struct lexeme *cel_lex(struct arena *a, struct str source, struct cel_issues *issues);
/* The value of a string or bytes literal; NULL, or what is wrong with it. */
const char *cel_unquote(struct arena *a, struct str text, bool bytes, struct str *out);

#endif
