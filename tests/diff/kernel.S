/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel of the guest side, copied to KERNEL_VA: starts jobs at CPL 3 and
 * saves the whole state at the exception that ends them.  The host is told
 * through DONE_PORT and puts the next job in place before it goes on.
 */
#include "tests/diff/layout.h"

#define K(off) (KERNEL_VA + (off))
#define SAVE(off) K(K_SAVE + (off))
#define JOB(off) K(K_JOB + (off))

	.section .rodata
	.globl kernel_begin, kernel_end
	.balign 16
kernel_begin:
start:
	movw	$DONE_PORT, %dx
	outb	%al, %dx
	cmpl	$0, JOB(JOB_FLUSH)
	je	1f
	movq	%cr3, %rax
	movq	%rax, %cr3
1:	movl	JOB(JOB_DATA_SEL), %eax
	movl	%eax, %ds
	movl	%eax, %es
	movq	JOB(JOB_FS), %rax
	wrfsbase %rax
	movq	JOB(JOB_GS), %rax
	wrgsbase %rax
	xorl	%ecx, %ecx
	xgetbv
	xrstor64 K(K_JOB_XSAVE)
	movq	JOB(JOB_GPR + 8), %rcx
	movq	JOB(JOB_GPR + 16), %rdx
	movq	JOB(JOB_GPR + 24), %rbx
	movq	JOB(JOB_GPR + 40), %rbp
	movq	JOB(JOB_GPR + 48), %rsi
	movq	JOB(JOB_GPR + 56), %rdi
	movq	JOB(JOB_GPR + 64), %r8
	movq	JOB(JOB_GPR + 72), %r9
	movq	JOB(JOB_GPR + 80), %r10
	movq	JOB(JOB_GPR + 88), %r11
	movq	JOB(JOB_GPR + 96), %r12
	movq	JOB(JOB_GPR + 104), %r13
	movq	JOB(JOB_GPR + 112), %r14
	movq	JOB(JOB_GPR + 120), %r15
	movq	$JOB(JOB_FRAME), %rsp
	movq	JOB(JOB_GPR), %rax
	iretq

common:	/* vector and error code are on the stack */
	movq	%rax, SAVE(SAVE_GPR)
	movq	%rcx, SAVE(SAVE_GPR + 8)
	movq	%rdx, SAVE(SAVE_GPR + 16)
	movq	%rbx, SAVE(SAVE_GPR + 24)
	movq	%rbp, SAVE(SAVE_GPR + 40)
	movq	%rsi, SAVE(SAVE_GPR + 48)
	movq	%rdi, SAVE(SAVE_GPR + 56)
	movq	%r8, SAVE(SAVE_GPR + 64)
	movq	%r9, SAVE(SAVE_GPR + 72)
	movq	%r10, SAVE(SAVE_GPR + 80)
	movq	%r11, SAVE(SAVE_GPR + 88)
	movq	%r12, SAVE(SAVE_GPR + 96)
	movq	%r13, SAVE(SAVE_GPR + 104)
	movq	%r14, SAVE(SAVE_GPR + 112)
	movq	%r15, SAVE(SAVE_GPR + 120)
	movq	%cr2, %rax
	movq	%rax, SAVE(SAVE_CR2)
	rdfsbase %rax
	movq	%rax, SAVE(SAVE_FS)
	rdgsbase %rax
	movq	%rax, SAVE(SAVE_GS)
	xorl	%ecx, %ecx
	xgetbv
	xsave64	K(K_SAVE_XSAVE)
	jmp	start

step:
	cmpl	$0, JOB(JOB_SINGLE)
	je	1f
	addq	$16, %rsp
	iretq
1:	jmp	common

	.org	kernel_begin + K_STUBS
	vector = 0
	.rept	VECTORS
	.org	kernel_begin + K_STUBS + 16 * vector
	.if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17)
	pushq	$0
	.endif
	pushq	$vector
	.if vector == 1
	jmp	step
	.else
	jmp	common
	.endif
	vector = vector + 1
	.endr
kernel_end:
	.section .note.GNU-stack, "", @progbits
