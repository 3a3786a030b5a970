/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest of the probe: does, once each, what every operating system does, and
 * writes a stage number to PROBE_PORT before each step (enum stage in probe.c).
 *
 * Raw bytes for guest address BASE, entered in 64-bit mode on the tables of
 * boot_load(): position matters only for the addresses put into descriptors,
 * which are written relative to `probe_guest`.
 */
#define PROBE_PORT 0x500
#define BASE 0x100000
#define AT(label) (BASE + (label) - probe_guest)
#define STACK (BASE + 0x8000)
#define USER_STACK (BASE + 0x9000)
#define IDT (BASE + 0x4000)
#define USER_TABLES (BASE + 0xa000)

#define SEL_CODE 0x08
#define SEL_DATA 0x10
#define SEL_USER_DATA 0x1b
#define SEL_USER_CODE 0x23
#define SEL_TSS 0x28

#define APIC 0xfee00000
#define TIMER_VECTOR 0x40

	.macro stage n
	mov	$\n, %al
	mov	$PROBE_PORT, %dx
	out	%al, %dx
	.endm

	/* gate vector, handler: 64-bit interrupt gate for rings 0 to 3 */
	.macro gate vector, handler
	mov	$AT(\handler), %eax
	mov	$(IDT + 16 * \vector), %edi
	call	set_gate
	.endm

	.section .rodata
	.globl	probe_guest, probe_guest_end
	.hidden	probe_guest, probe_guest_end
	.code64
probe_guest:
	stage	1
	mov	$STACK, %esp
	lgdt	gdt_pointer(%rip)
	mov	$SEL_DATA, %eax
	mov	%eax, %ss
	mov	%eax, %ds
	mov	%eax, %es
	pushq	$SEL_CODE
	pushq	$AT(new_cs)
	lretq
new_cs:
	/* TSS: RSP0 at offset 4; its descriptor's base is BASE + (tss - probe_guest). */
	movq	$STACK, tss+4(%rip)
	mov	$SEL_TSS, %eax
	ltr	%ax
	gate	3, on_breakpoint
	gate	0x80, on_int80
	gate	TIMER_VECTOR, on_timer
	lidt	idt_pointer(%rip)

	stage	2		/* SSE and XSAVE */
	mov	%cr0, %rax
	and	$~0xc, %eax	/* EM, TS off */
	or	$2, %eax	/* MP */
	mov	%rax, %cr0
	mov	%cr4, %rax
	or	$0x40600, %eax	/* OSFXSR, OSXMMEXCPT, OSXSAVE */
	mov	%rax, %cr4
	xor	%ecx, %ecx
	xor	%edx, %edx
	mov	$3, %eax
	xsetbv
	mov	$0x1234567, %ebx
	movd	%ebx, %xmm1
	mov	$(BASE + 0x5000), %edi
	mov	$3, %eax
	xor	%edx, %edx
	xsave	(%rdi)
	pxor	%xmm1, %xmm1
	xrstor	(%rdi)
	movd	%xmm1, %ecx
	cmp	%ebx, %ecx
	jne	wrong

	stage	3		/* cmpxchg16b */
	mov	$(BASE + 0x6000), %edi
	xor	%eax, %eax
	xor	%edx, %edx
	mov	$7, %ebx
	xor	%ecx, %ecx
	lock cmpxchg16b (%rdi)
	jnz	wrong
	cmpl	$7, (%rdi)
	jne	wrong

	stage	4		/* int3 through the IDT */
	xor	%r8d, %r8d
	int3
	cmp	$3, %r8d
	jne	wrong

	stage	5		/* to ring 3, back by SYSCALL */
	mov	$USER_TABLES, %edi	/* same map, user-accessible: one 1:1 2-MiB page */
	movl	$(USER_TABLES + 0x1007), (%rdi)
	movl	$(USER_TABLES + 0x2007), 0x1000(%rdi)
	movl	$0x87, 0x2000(%rdi)
	movl	$0xfee0009b, 0x2ff8(%rdi)	/* last 2 MiB of this GiB: the APIC */
	mov	%rdi, %cr3
	mov	$0xc0000080, %ecx	/* EFER.SCE */
	rdmsr
	or	$1, %eax
	wrmsr
	mov	$0xc0000081, %ecx	/* STAR */
	xor	%eax, %eax
	mov	$((SEL_CODE) | (SEL_USER_DATA - 8) << 16), %edx
	wrmsr
	mov	$0xc0000082, %ecx	/* LSTAR */
	mov	$AT(on_syscall), %eax
	xor	%edx, %edx
	wrmsr
	pushq	$SEL_USER_DATA
	pushq	$USER_STACK
	pushq	$2
	pushq	$SEL_USER_CODE
	pushq	$AT(user)
	iretq
on_syscall:
	mov	$STACK, %esp
	stage	6		/* ring 3 again, back by a software interrupt */
	pushq	$SEL_USER_DATA
	pushq	$USER_STACK
	pushq	$2
	pushq	$SEL_USER_CODE
	pushq	$AT(user_int)
	iretq
on_int80:
	mov	$STACK, %esp
	stage	7		/* APIC timer */
	mov	$0x3fe00000, %ebx	/* where USER_TABLES maps the APIC */
	movl	$0x1ff, 0xf0(%rbx)
	movl	$TIMER_VECTOR, 0x320(%rbx)
	movl	$0xb, 0x3e0(%rbx)
	xor	%r8d, %r8d
	movl	$100000, 0x380(%rbx)
	sti
	hlt
	cli
	cmp	$TIMER_VECTOR, %r8d
	jne	wrong
	stage	8		/* all done */
wrong:
	stage	255
	cli
	hlt

user:
	syscall
user_int:
	int	$0x80

on_breakpoint:
	mov	$3, %r8d
	iretq
on_timer:
	mov	$TIMER_VECTOR, %r8d
	iretq

set_gate:	/* %edi: gate, %eax: handler */
	mov	%ax, (%rdi)
	movw	$SEL_CODE, 2(%rdi)
	movw	$0xee00, 4(%rdi)
	shr	$16, %eax
	mov	%ax, 6(%rdi)
	movq	$0, 8(%rdi)
	ret

	.balign	8
gdt:
	.quad	0
	.quad	0x00af9b000000ffff	/* SEL_CODE */
	.quad	0x00cf93000000ffff	/* SEL_DATA */
	.quad	0x00cff3000000ffff	/* SEL_USER_DATA */
	.quad	0x00affb000000ffff	/* SEL_USER_CODE */
	.word	0x67, (tss - probe_guest)	/* SEL_TSS; BASE is 0x10 << 16 */
	.byte	BASE >> 16, 0x89, 0, 0
	.quad	0
gdt_pointer:
	.word	gdt_pointer - gdt - 1
	.quad	AT(gdt)
idt_pointer:
	.word	256 * 16 - 1
	.quad	IDT
	.balign	8
tss:
	.fill	104, 1, 0
probe_guest_end:

	.section .note.GNU-stack, "", @progbits
