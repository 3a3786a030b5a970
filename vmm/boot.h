/* SPDX-License-Identifier: Apache-2.0 */
/*
 * First contents of guest memory and of the processors, for a direct start in
 * 64-bit mode (Linux 64-bit boot protocol; roux's own kernels use the same).
 *
 *   0x00001000  GDT                      \
 *   0x00002000  page tables, 4 GiB        > reserved: processors that start later
 *               mapped one to one        /  use them again
 *   0x00010000  zero page (boot_params), RSI points here
 *   0x00020000  command line
 *   0x000e0000  ACPI tables, MP table (BOOT_TABLES)
 *   0x00100000  kernel, at its link address
 *   ...         initramfs, as high as it can be below 2 GiB
 *   0xd0000000  devices
 *
 * Source: Documentation/x86/boot.rst of Linux, "64-bit Boot Protocol".
 */
#ifndef VMM_BOOT_H
#define VMM_BOOT_H

#include "vmm/guest_mem.h"

#include <stddef.h>
#include <stdint.h>

struct err;
struct kernel;
struct vcpu_state;

#define BOOT_GDT 0x1000ull
#define BOOT_PAGE_TABLES 0x2000ull
#define BOOT_LOW_RESERVED_END 0x10000ull
#define BOOT_PARAMS 0x10000ull
#define BOOT_CMDLINE 0x20000ull
#define BOOT_CMDLINE_MAX 2047	/* bytes that Linux keeps, without the NUL */
#define BOOT_LOW_RAM_END 0x9fc00ull	/* where the BIOS data area of a PC would begin */
#define BOOT_TABLES 0xe0000ull	/* ACPI and MP tables, to ... */
#define BOOT_TABLES_END 0x100000ull	/* ... here */

#define BOOT_DEVICES 0xd0000000ull	/* device windows, in the gap below 4 GiB, to ... */
#define BOOT_DEVICES_END 0xe0000000ull

struct boot_blob {
	const void *data;	/* borrowed */
	size_t size;	/* bytes */
};

struct boot_spec {
	const struct kernel *kernel;
	const char *cmdline;	/* NULL: empty */
	const struct boot_blob *initrd;	/* parts, put together at multiples of 4 bytes */
	unsigned ninitrd;
	gpa_t rsdp;	/* ACPI root pointer, 0: none */
};

/*
 * Loads kernel, initramfs, command line and parameters into @mem and fills the
 * state in which vCPU 0 starts.  Returns 0, -ENOEXEC for a bad kernel, -E2BIG for
 * a command line that the guest would cut, -ENOMEM when memory is too small.
 */
int boot_load(struct mem *mem, const struct boot_spec *spec, struct vcpu_state *ret_state,
	      struct err *err);

/* The first part of that alone: GDT and page tables.  0 or -ENOMEM. */
int boot_tables(struct mem *mem, struct err *err);

/* Power-up state of processor @index: real mode, waiting unless it is processor 0. */
void boot_reset_state(unsigned index, struct vcpu_state *ret_state);

/*
 * Running state of processor @index at @rip in 64-bit mode, on the tables that
 * boot_tables() made, with RSI = @rsi.  Interrupts are off.
 */
void boot_long_mode_state(unsigned index, gpa_t rip, uint64_t rsi, struct vcpu_state *ret_state);

#endif /* VMM_BOOT_H */
