/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel around the code of fuzz_guest.c, copied to KERNEL_VA: logs each
 * event, steps over the instruction and goes on, until there were EVENTS_MAX.
 * It relies on no register, and on nothing in memory that the code cannot reach
 * when it runs in ring 3.
 */
#include "tests/fuzz/guest_kernel.h"

#define K(off) (KERNEL_VA + (off))

	.section .rodata
	.globl fuzz_kernel_begin, fuzz_kernel_end, fuzz_kernel_syscall, fuzz_kernel_syscall32, fuzz_kernel_done
	.balign 16
fuzz_kernel_begin:
common:	/* vector and error code are on the stack; behind them RIP, CS, RFLAGS, RSP, SS */
	pushq	%rax
	pushq	%rcx
	pushq	%rdx
	pushq	%rbx
	cld
	movl	$1, %ebx
	lock xaddl %ebx, K(K_COUNT)
	cmpl	$EVENTS_MAX, %ebx
	jae	fuzz_kernel_done
	movl	%ebx, %ecx
	shll	$6, %ecx
	leaq	K(K_LOG)(%rcx), %rcx
	movq	32(%rsp), %rax
	movq	%rax, (%rcx)
	movq	40(%rsp), %rax
	movq	%rax, 8(%rcx)
	movq	48(%rsp), %rax
	movq	%rax, 16(%rcx)
	movq	56(%rsp), %rax
	movq	%rax, 24(%rcx)
	movq	64(%rsp), %rax
	movq	%rax, 32(%rcx)
	movq	72(%rsp), %rax
	movq	%rax, 40(%rcx)
	movq	%cr2, %rax
	movq	%rax, 56(%rcx)
	movq	80(%rsp), %rax
	movq	%rax, 48(%rcx)	/* SS, last: there is all of it */

	movl	32(%rsp), %eax
	movq	48(%rsp), %rdx
	cmpl	$7, %eax	/* #NM: the FPU from now on; with CR0.EM, again and again */
	jne	1f
	clts
	jmp	3f
1:	cmpl	$32, %eax	/* traps have RIP behind the instruction */
	jae	2f
	cmpl	$1, %eax
	je	2f
	cmpl	$3, %eax
	je	2f
	cmpl	$4, %eax
	je	2f
	incq	%rdx
2:	leaq	-CODE_VA(%rdx), %rcx
	cmpq	$CODE_AREA, %rcx
	jb	3f
	movzwl	K(K_RESUME)(,%rbx,2), %edx
	addl	$CODE_VA, %edx
3:	movq	%rdx, 48(%rsp)
	popq	%rbx
	popq	%rdx
	popq	%rcx
	popq	%rax
	addq	$16, %rsp
	iretq

fuzz_kernel_done:	/* the host does not let us go on */
	outb	%al, $DONE_PORT
	jmp	fuzz_kernel_done

fuzz_kernel_syscall:
	lock incl K(K_COUNT)
	cmpl	$EVENTS_MAX, K(K_COUNT)
	jae	fuzz_kernel_done
	sysretq

fuzz_kernel_syscall32:
	lock incl K(K_COUNT)
	cmpl	$EVENTS_MAX, K(K_COUNT)
	jae	fuzz_kernel_done
	sysretl

	.org	fuzz_kernel_begin + K_STUBS
	vector = 0
	.rept	256
	.org	fuzz_kernel_begin + K_STUBS + 16 * vector
	.if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17)
	pushq	$0
	.endif
	pushq	$vector
	jmp	common
	vector = vector + 1
	.endr
fuzz_kernel_end:
	.section .note.GNU-stack, "", @progbits
