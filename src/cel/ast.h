/* cel/ast.h: expressions: what the parser makes, the checker annotates and the evaluator walks. */
#ifndef SKIFF_CEL_AST_H
#define SKIFF_CEL_AST_H

#include "cel/internal.h"

enum node_kind {
	NODE_CONST,
	NODE_IDENT,
	NODE_SELECT, /* args[0].name; test: has() */
	NODE_CALL,   /* of a global function; with member: args[0] is the receiver */
	NODE_LIST,
	NODE_MAP,    /* args: key, value, key, value... */
	NODE_STRUCT, /* name{names[i]: args[i]} */
	NODE_FOLD,   /* a comprehension */
};

enum op { /* calls the evaluator knows itself */
	OP_NONE,
	OP_AND,
	OP_OR,
	OP_COND,
	OP_EQ,
	OP_NE,
	OP_INDEX,
	OP_OPT_INDEX,
	OP_OPT_SELECT,
	OP_OR_OPTIONAL,
	OP_OR_VALUE,
	OP_NOT_STRICTLY_FALSE,
	OP_IN_SET, /* in, over a list of constants */
	OP_CALL,
};

struct node;
struct fold {
	struct str iter, iter2, accu; /* iter2 may be empty */
	struct node *range, *init, *cond, *step, *result;
	uint32_t slot; /* accu; iter is the next, iter2 the one behind */
	bool bind;     /* not a loop: a variable */
};

struct node {
	uint8_t kind;
	bool member;   /* NODE_CALL */
	bool test;     /* NODE_SELECT */
	bool folded;   /* constant computed when compiled: reading it costs nothing */
	bool local;    /* NODE_IDENT: slot is of a comprehension's variable, not the environment's */
	uint8_t op;    /* enum op, NODE_CALL */
	uint32_t count; /* of nodes, itself among them */
	uint16_t height;
	uint16_t n_ov;
	uint32_t pos;  /* code points before its token */
	uint32_t slot; /* NODE_IDENT */
	uint32_t n;    /* args */
	struct str name;
	struct node **args;
	uint8_t *opts;      /* NODE_LIST, NODE_STRUCT by element, NODE_MAP by entry: with `?`; NULL: none */
	struct str *names;  /* NODE_STRUCT */
	uint32_t *positions;/* NODE_STRUCT, NODE_MAP: of the entries */
	struct cel_value value;
	struct fold *fold;
	const struct cel_type *type;
	const struct overload **ov; /* NODE_CALL: what it may be */
	void *cache;                /* compiled pattern of a constant; NODE_STRUCT: its struct cel_message, or NULL */
	/* static cost: */
	const struct cel_type *path; /* type reached below the root of sizes */
	bool has_path, has_size, has_entry;
	struct cel_cost size, entry_key, entry_value; /* as min, max */
	uint8_t entry_kind;
};

/* Positions of a source. */
struct source {
	struct str text;
	uint32_t n; /* code points */
};

#define ACCU_NAME "@result"

/* One issue at code point `pos` (UINT32_MAX: nowhere). */
void cel_issue(struct arena *a, struct cel_issues *issues, struct str source, uint32_t pos, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));

/* parse.c. NULL: issues say why. Nodes and strings are of `a`; source must live as long. */
struct node *cel_parse(struct arena *a, struct str source, struct cel_issues *issues);

/* For macros: makers of nodes at the position of `at`. */
struct parser;
struct node *node_new(struct arena *a, enum node_kind kind, uint32_t pos);
struct node *node_ident(struct arena *a, uint32_t pos, struct str name);
struct node *node_const(struct arena *a, uint32_t pos, struct cel_value v);
struct node *node_call(struct arena *a, uint32_t pos, struct str name, struct node **args, uint32_t n, bool member);
struct node *node_list(struct arena *a, uint32_t pos, struct node **args, uint32_t n);
void node_measure(struct node *x);
struct node *node_copy(struct arena *a, const struct node *x);
/*
 * macros.c: expands a call that is a macro. False: it is none. True: *out is the expansion, or NULL with *why (and *at, the position
 * of the error).
 */
bool cel_expand(struct arena *a, uint32_t pos, struct str name, struct node *target, struct node **args, uint32_t n, struct node **out,
		const char **why, uint32_t *at);

#endif
