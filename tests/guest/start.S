/* SPDX-License-Identifier: Apache-2.0 */
/* Entry of a test guest, entry of further processors, and the interrupt stubs. */

	.section .text.start, "ax"
	.globl	_start
_start:
	lea	boot_stack_end(%rip), %rsp
	call	load_segments
	call	guest_setup
	call	guest_main
	mov	%eax, %edi
	call	guest_exit

	/* Further processors: CPUID tells which one this is. */
	.globl	ap_entry
ap_entry:
	mov	$1, %eax
	cpuid
	shr	$24, %ebx
	mov	%ebx, %edi
	shl	$14, %ebx
	lea	ap_stacks(%rip), %rsp
	add	%rbx, %rsp
	push	%rdi
	push	%rdi
	call	load_segments
	pop	%rdi
	push	%rdi
	call	ap_setup
	pop	%rdi
	pop	%rdi
	call	guest_ap_main
1:	cli
	hlt
	jmp	1b

load_segments:
	lgdt	gdt_pointer(%rip)
	mov	$0x18, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	pop	%rax
	pushq	$0x10
	push	%rax
	lretq

	.section .text, "ax"
	/* One stub a vector, 16 bytes each; vectors 8, 10-14, 17, 21, 29, 30 push an error. */
	.balign	16
	.globl	trap_stubs
trap_stubs:
	.set	vector, 0
	.rept	256
	.balign	16
	.if	!(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30)
	pushq	$0
	.endif
	pushq	$vector
	jmp	trap_common
	.set	vector, vector + 1
	.endr

trap_common:
	push	%r15
	push	%r14
	push	%r13
	push	%r12
	push	%r11
	push	%r10
	push	%r9
	push	%r8
	push	%rdi
	push	%rsi
	push	%rbp
	push	%rbx
	push	%rdx
	push	%rcx
	push	%rax
	cld
	mov	%rsp, %rdi
	mov	%rsp, %rbp
	and	$-16, %rsp
	call	trap_handler
	mov	%rbp, %rsp
	pop	%rax
	pop	%rcx
	pop	%rdx
	pop	%rbx
	pop	%rbp
	pop	%rsi
	pop	%rdi
	pop	%r8
	pop	%r9
	pop	%r10
	pop	%r11
	pop	%r12
	pop	%r13
	pop	%r14
	pop	%r15
	add	$16, %rsp
	iretq

	.section .data
	.balign	8
	.globl	gdt
gdt:
	.quad	0, 0
	.quad	0x00af9b000000ffff	/* 0x10 code */
	.quad	0x00cf93000000ffff	/* 0x18 data */
	.quad	0x00cff3000000ffff	/* 0x20 user data */
	.quad	0x00affb000000ffff	/* 0x28 user code */
	.quad	0, 0			/* 0x30 TSS, filled by guest_setup() */
gdt_end:
gdt_pointer:
	.word	gdt_end - gdt - 1
	.quad	gdt

	.section .bss
	.balign	16
	.skip	65536
boot_stack_end:
	.balign	16
	.skip	16384
ap_stacks:
	.skip	16384 * 8

	.section .note.GNU-stack, "", @progbits
