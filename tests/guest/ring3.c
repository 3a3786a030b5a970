/* SPDX-License-Identifier: Apache-2.0 */
#include "ring3.h"

#define EFER 0xc0000080u
#define STAR 0xc0000081u
#define USER_DATA 0x23

volatile uint64_t back_rsp, seen_rcx, seen_r11, seen_cs;

void run_user(void (*code)(void))
{
	static uint8_t stack[4096] __attribute__((aligned(16)));

	asm volatile("push %%rbp\n\tpush %%rbx\n\tlea 1f(%%rip), %%rax\n\tpush %%rax\n\t"
		     "mov %%rsp, %0\n\t"
		     "pushq %2\n\tpushq %3\n\tpushq $0x202\n\tpushq %4\n\tpushq %5\n\tiretq\n"
		     "1:\tpop %%rbx\n\tpop %%rbp"
		     : "=m"(back_rsp)
		     : "m"(back_rsp), "i"(USER_DATA), "r"(stack + sizeof(stack)), "i"(USER_CODE),
		       "r"(code)
		     : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
		       "r14", "r15", "memory", "cc");
}

asm(".pushsection .text\n"
    ".globl syscall_entry\nsyscall_entry:\n\t"
    "mov %rcx, seen_rcx\n\tmov %r11, seen_r11\n\t"
    "cmp $77, %eax\n\tje 1f\n\t"
    "mov back_rsp, %rsp\n\tcli\n\tret\n"
    "1:\tmov $78, %eax\n\tsysretq\n"
    ".popsection");

void leave_user(struct trap_frame *f)
{
	seen_cs = f->cs;
	trap.vector = (unsigned)f->vector;
	trap.error = f->error;
	asm volatile("mov %%cr2, %0" : "=r"(trap.cr2));
	f->cs = 0x10;
	f->ss = 0x18;
	f->rflags = 2;
	f->rsp = back_rsp + 8;
	f->rip = *(volatile uint64_t *)back_rsp;
}

static void open_to_user(void)
{
	/* Every 2-MiB page becomes user-accessible but the one at 20 MiB. */
	*pte_of(0, 4) |= PTE_U;
	*pte_of(0, 3) |= PTE_U;
	for (uint64_t va = 0; va < 64ull << 20; va += 2ull << 20)
		if (va != 20ull << 20)
			*pte_of(va, 2) |= PTE_U;
	write_cr3(read_cr3());
}

void ring3_begin(void)
{
	open_to_user();
	wrmsr(EFER, rdmsr(EFER) | 1);
	wrmsr(STAR, 0x10ull << 32 | (uint64_t)(0x18 | 3) << 48);
	wrmsr(LSTAR, (uint64_t)syscall_entry);
	wrmsr(SFMASK, 0x200);
}
