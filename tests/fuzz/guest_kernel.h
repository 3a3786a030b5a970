/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses shared by fuzz_guest.c and the kernel that it runs, guest_kernel.S.
 * Both vCPUs share everything but their TSS and stacks.
 */
#ifndef TESTS_FUZZ_GUEST_KERNEL_H
#define TESTS_FUZZ_GUEST_KERNEL_H

/* Mapped for the supervisor at KERNEL_VA + offset. */
#define KERNEL_VA 0xffffffff80000000
#define KERNEL_PA 0x100000
#define K_TEXT 0x0000
#define K_STUBS 0x0400	/* of vector v at K_STUBS + 16 * v */
#define K_IDT 0x2000
#define K_GDT 0x3000
#define K_LDT 0x3200
#define K_TSS 0x3400	/* of vCPU i at K_TSS + i * K_TSS_STEP */
#define K_TSS_STEP 0x100
#define K_STATE 0x4000	/* what follows; read-only bytes end here */
#define K_COUNT 0x4000	/* events so far, 4 bytes */
#define K_RESUME 0x4100	/* EVENTS_MAX times 2 bytes: where in the code to go on */
#define K_LOG 0x4400	/* EVENTS_MAX struct guest_event */
#define K_STACKS 0x6000	/* of vCPU i, up to K_STACKS + (i + 1) * K_STACK_STEP */
#define K_STACK_STEP 0x1000
#define K_PAGES 8

#define EVENTS_MAX 64	/* exceptions, interrupts and system calls until the run ends */
#define EVENT_BYTES 64

/* The code under test; mapped at the same physical address, so that it survives the end of paging. */
#define CODE_VA 0x140000
#define CODE_AREA 0x2000	/* bytes */

#define DONE_PORT 0x42	/* a write ends the run */

#define SEL_KERNEL_CODE 0x10
#define SEL_KERNEL_DATA 0x18
#define SEL_USER_CODE32 0x23
#define SEL_USER_DATA 0x2b
#define SEL_USER_CODE64 0x33
#define SEL_KERNEL_CODE32 0x38
#define SEL_LDT 0x40
#define SEL_TSS 0x50	/* + 16 * vCPU */

#endif /* TESTS_FUZZ_GUEST_KERNEL_H */
