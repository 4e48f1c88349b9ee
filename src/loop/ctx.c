/*
 * The context switch. Only what a C call must preserve is saved; signal masks
 * and floating-point control words are the thread's and never change here.
 */
#include "loop/internal.h"

#if defined(__x86_64__)

/* void ctx_switch(void **save_sp, void *to_sp) */
__asm__(".text\n"
	".globl ctx_switch\n"
	".hidden ctx_switch\n"
	".type ctx_switch,@function\n"
	".p2align 4\n"
	"ctx_switch:\n"
	"	pushq %rbp\n"
	"	pushq %rbx\n"
	"	pushq %r12\n"
	"	pushq %r13\n"
	"	pushq %r14\n"
	"	pushq %r15\n"
	"	movq %rsp, (%rdi)\n"
	"	movq %rsi, %rsp\n"
	"	popq %r15\n"
	"	popq %r14\n"
	"	popq %r13\n"
	"	popq %r12\n"
	"	popq %rbx\n"
	"	popq %rbp\n"
	"	ret\n"
	".size ctx_switch,.-ctx_switch\n"
	/* First switch into a fiber: r12 = entry, r13 = argument. Unwinders stop here. */
	".globl ctx_begin\n"
	".hidden ctx_begin\n"
	".type ctx_begin,@function\n"
	".p2align 4\n"
	"ctx_begin:\n"
	"	.cfi_startproc\n"
	"	.cfi_undefined rip\n"
	"	xorl %ebp, %ebp\n"
	"	movq %r13, %rdi\n"
	"	call *%r12\n"
	"	ud2\n"
	"	.cfi_endproc\n"
	".size ctx_begin,.-ctx_begin\n");

/* Hidden in C too: a reference through the GOT to what the assembler made local goes astray on aarch64. */
extern char ctx_begin[] __attribute__((visibility("hidden")));

void *ctx_make(void *stack_top, void (*entry)(void *), void *arg)
{
	void **sp = (void **)((uintptr_t)stack_top & ~(uintptr_t)15);

	*--sp = NULL; /* keeps the stack aligned as after a call */
	*--sp = NULL;
	*--sp = (void *)ctx_begin;
	*--sp = NULL;          /* rbp */
	*--sp = NULL;          /* rbx */
	*--sp = (void *)entry; /* r12 */
	*--sp = arg;           /* r13 */
	*--sp = NULL;          /* r14 */
	*--sp = NULL;          /* r15 */
	return sp;
}

#elif defined(__aarch64__)

__asm__(".text\n"
	".globl ctx_switch\n"
	".hidden ctx_switch\n"
	".type ctx_switch,%function\n"
	".p2align 4\n"
	"ctx_switch:\n"
	"	sub sp, sp, #176\n"
	"	stp x19, x20, [sp, #0]\n"
	"	stp x21, x22, [sp, #16]\n"
	"	stp x23, x24, [sp, #32]\n"
	"	stp x25, x26, [sp, #48]\n"
	"	stp x27, x28, [sp, #64]\n"
	"	stp x29, x30, [sp, #80]\n"
	"	stp d8, d9, [sp, #96]\n"
	"	stp d10, d11, [sp, #112]\n"
	"	stp d12, d13, [sp, #128]\n"
	"	stp d14, d15, [sp, #144]\n"
	"	mov x9, sp\n"
	"	str x9, [x0]\n"
	"	mov sp, x1\n"
	"	ldp x19, x20, [sp, #0]\n"
	"	ldp x21, x22, [sp, #16]\n"
	"	ldp x23, x24, [sp, #32]\n"
	"	ldp x25, x26, [sp, #48]\n"
	"	ldp x27, x28, [sp, #64]\n"
	"	ldp x29, x30, [sp, #80]\n"
	"	ldp d8, d9, [sp, #96]\n"
	"	ldp d10, d11, [sp, #112]\n"
	"	ldp d12, d13, [sp, #128]\n"
	"	ldp d14, d15, [sp, #144]\n"
	"	add sp, sp, #176\n"
	"	ret\n"
	".size ctx_switch,.-ctx_switch\n"
	".globl ctx_begin\n"
	".hidden ctx_begin\n"
	".type ctx_begin,%function\n"
	".p2align 4\n"
	"ctx_begin:\n"
	"	.cfi_startproc\n"
	"	.cfi_undefined x30\n"
	"	mov x29, xzr\n"
	"	mov x0, x20\n"
	"	blr x19\n"
	"	brk #1\n"
	"	.cfi_endproc\n"
	".size ctx_begin,.-ctx_begin\n");

/* Hidden in C too: a reference through the GOT to what the assembler made local goes astray on aarch64. */
extern char ctx_begin[] __attribute__((visibility("hidden")));

void *ctx_make(void *stack_top, void (*entry)(void *), void *arg)
{
	void **sp = (void **)((uintptr_t)stack_top & ~(uintptr_t)15) - 22;

	memset(sp, 0, 22 * sizeof *sp);
	sp[0] = (void *)entry;      /* x19 */
	sp[1] = arg;                /* x20 */
	sp[11] = (void *)ctx_begin; /* x30 */
	return sp;
}

#else
#error "write ctx_switch for this processor"
#endif
