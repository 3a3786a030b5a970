/* SPDX-License-Identifier: Apache-2.0 */
/*
 * void native_enter(struct native_job *job): takes on the whole state of the
 * job.  The signal that ends the job comes back to native_leave with RSP as
 * job->host_rsp says.
 */
#include "tests/diff/layout.h"

	.text
	.globl	native_enter, native_leave
	.type	native_enter, @function
native_enter:
	pushq	%rbx
	pushq	%rbp
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	movq	%rsp, NJOB_HOST_RSP(%rdi)
	movl	NJOB_DATA_SEL(%rdi), %eax
	movl	%eax, %ds
	movl	%eax, %es
	movq	NJOB_XSAVE(%rdi), %rcx
	movl	NJOB_XCR0(%rdi), %eax
	movl	NJOB_XCR0+4(%rdi), %edx
	xrstor64 (%rcx)
	movq	NJOB_FS(%rdi), %rax
	wrfsbase %rax
	movq	NJOB_GS(%rdi), %rax
	wrgsbase %rax
	movq	NJOB_GPR(%rdi), %rax
	movq	NJOB_GPR+8(%rdi), %rcx
	movq	NJOB_GPR+16(%rdi), %rdx
	movq	NJOB_GPR+24(%rdi), %rbx
	movq	NJOB_GPR+40(%rdi), %rbp
	movq	NJOB_GPR+48(%rdi), %rsi
	movq	NJOB_GPR+64(%rdi), %r8
	movq	NJOB_GPR+72(%rdi), %r9
	movq	NJOB_GPR+80(%rdi), %r10
	movq	NJOB_GPR+88(%rdi), %r11
	movq	NJOB_GPR+96(%rdi), %r12
	movq	NJOB_GPR+104(%rdi), %r13
	movq	NJOB_GPR+112(%rdi), %r14
	movq	NJOB_GPR+120(%rdi), %r15
	leaq	NJOB_FRAME(%rdi), %rsp
	movq	NJOB_GPR+56(%rdi), %rdi
	iretq

	.type	native_leave, @function
native_leave:
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbp
	popq	%rbx
	ret
	.section .note.GNU-stack, "", @progbits
