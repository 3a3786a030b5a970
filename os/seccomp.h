/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System call filters (seccomp(2), mode 2) for x86-64: lists of what is allowed
 * become a classic BPF program that the kernel runs before each system call.
 *
 * What no rule allows raises SIGSYS (SECCOMP_RET_TRAP) and is not performed, so
 * that the process can still say which call it was (os/jail.h).  System calls of
 * other ABIs (32-bit, x32) kill the process at once.
 *
 * Conditions look at the low 32 bits of an argument.  That is all the kernel
 * itself uses of the ones that matter here: commands, flags, families, signals.
 */
#ifndef OS_SECCOMP_H
#define OS_SECCOMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SECCOMP_CONDS_MAX 2
#define SECCOMP_PROGRAM_MAX 1024	/* instructions; the kernel takes 4096 */

struct seccomp_cond {
	uint8_t arg;	/* 0..5 */
	uint32_t mask, value;	/* holds when (low word of the argument & mask) == value; mask 0: no condition */
};

/* Allows system call @nr when all conditions hold.  Of several rules for one call, any will do. */
struct seccomp_rule {
	uint16_t nr;
	uint16_t error;	/* 0: allowed; else it fails with this errno, and nothing happens */
	struct seccomp_cond cond[SECCOMP_CONDS_MAX];
};

struct seccomp_list {
	const struct seccomp_rule *rule;
	size_t n;
};

/* What the run time of address and thread sanitizers needs in a program built with them; empty in others. */
extern const struct seccomp_list seccomp_sanitizers;

/* The number that no filter lets live: to end a process as the filter itself would. */
#define SECCOMP_NR_FATAL 0x40000000L

/*
 * Puts the calling thread, and threads it makes from now on, under the rules of
 * @lists (@nlists of them, taken together).  It cannot be undone; a second filter
 * only takes more away.  The thread must have set no_new_privs or have
 * CAP_SYS_ADMIN.  Returns 0, -E2BIG for too many rules, or a negative errno of
 * seccomp(2).
 */
int seccomp_enter(const struct seccomp_list *lists, size_t nlists);

/* Name of system call @nr, or "unknown".  Static. */
const char *seccomp_name(long nr);

#endif /* OS_SECCOMP_H */
