/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ring 3, for guests that run code there.  Needs a processor that runs user code properly; emulating hosts' KVM cannot.
 */
#ifndef TESTS_GUEST_RING3_H
#define TESTS_GUEST_RING3_H

#include "guest.h"

#define LSTAR 0xc0000082u
#define SFMASK 0xc0000084u
#define USER_CODE 0x2b

/* Where the stack of run_user() is, to return with; what the last system call or leave_user() came with. */
extern volatile uint64_t back_rsp, seen_rcx, seen_r11, seen_cs;

/* Opens memory but for the 2 MiB at 20 MiB to user code, turns SYSCALL on, and has it lead to syscall_entry(). */
void ring3_begin(void);
/* Runs @code in ring 3 until it makes a system call, but number 77, or what leave_user() is the handler of. */
void run_user(void (*code)(void));
/* Comes back from 77 with 78 in EAX, and to run_user()'s caller from others. */
void syscall_entry(void);
/* A handler that goes on at run_user()'s caller.  `trap` says what happened. */
void leave_user(struct trap_frame *f);

#endif /* TESTS_GUEST_RING3_H */
