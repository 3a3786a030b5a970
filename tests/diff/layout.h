/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses shared by C and by the assembly of the native and guest sides. */
#ifndef TESTS_DIFF_LAYOUT_H
#define TESTS_DIFF_LAYOUT_H

/*
 * Guest kernel: these pages are mapped for the supervisor only.  The text is
 * kernel.S, copied; everything else is filled in by guest.c.
 */
#define KERNEL_VA 0xffffffff80000000
#define KERNEL_PA 0x100000
#define K_TEXT 0x0000
#define K_IDT 0x1000
#define K_GDT 0x2000
#define K_TSS 0x2100
#define K_STACK_TOP 0x4000
#define K_SAVE 0x4000	/* struct guest_save */
#define K_SAVE_XSAVE 0x5000
#define K_JOB 0x6000	/* struct guest_job */
#define K_JOB_XSAVE 0x7000
#define K_PAGES 8

/* Where kernel.S puts the stub of vector v: K_STUBS + 16 * v. */
#define K_STUBS 0x200
#define VECTORS 32

/* struct guest_save */
#define SAVE_GPR 0
#define SAVE_CR2 128
#define SAVE_FS 136
#define SAVE_GS 144

/* struct guest_job */
#define JOB_GPR 0
#define JOB_FRAME 128	/* RIP, CS, RFLAGS, RSP, SS */
#define JOB_FS 168
#define JOB_GS 176
#define JOB_DATA_SEL 184
#define JOB_FLUSH 188	/* reload CR3 first */
#define JOB_SINGLE 192	/* #DB goes straight back */

#define DONE_PORT 0xf4

/* The selectors of Linux, so that programs see the same ones on both sides. */
#define SEL_KERNEL_CODE 0x10
#define SEL_KERNEL_DATA 0x18
#define SEL_USER_CODE32 0x23
#define SEL_USER_DATA 0x2b
#define SEL_USER_CODE64 0x33
#define SEL_TSS 0x40

/* struct native_job */
#define NJOB_GPR 0
#define NJOB_FRAME 128
#define NJOB_FS 168
#define NJOB_GS 176
#define NJOB_DATA_SEL 184
#define NJOB_XCR0 192
#define NJOB_XSAVE 200	/* address */
#define NJOB_HOST_RSP 208

#endif /* TESTS_DIFF_LAYOUT_H */
