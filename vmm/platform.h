/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The few ports every PC kernel touches, and the ports of roux's test guests.
 *
 *   0x70-0x71  CMOS clock, read-only            0x80   POST code, ignored
 *   0x60-0x64  keyboard controller: reset only  0xe9   debug text
 *   0xcf9      reset control                    0xf4   debug exit
 *   0x600      ACPI sleep control and status    0x602  ACPI reset
 *
 * plus, in guest-physical memory, the mailbox by which an operating system
 * starts further processors (ACPI 6.4, 5.2.12.19): its page is not RAM, so the
 * OS's command write calls roux, which starts the processor in 64-bit mode.
 */
#ifndef VMM_PLATFORM_H
#define VMM_PLATFORM_H

#include "vmm/boot.h"

#include <stddef.h>
#include <stdint.h>

struct blob;
struct blob_reader;
struct err;
struct platform;
struct vm;

#define PLATFORM_SLEEP_PORT 0x600u	/* +0 control, +1 status */
#define PLATFORM_RESET_PORT 0x602u
#define PLATFORM_RESET_VALUE 0x0fu
#define PLATFORM_SLEEP_TYPE_S5 5u
#define PLATFORM_DEBUG_TEXT_PORT 0xe9u
#define PLATFORM_DEBUG_EXIT_PORT 0xf4u
#define PLATFORM_MAILBOX (BOOT_DEVICES_END - 0x1000)	/* one page */

/* For test guests; a machine for users has neither port. */
struct platform_debug {
	void (*text)(void *ctx, uint8_t byte);	/* port 0xe9 */
	/* Port 0xf4, 1 to 4 bytes wide; the machine powers off. */
	void (*exit)(void *ctx, uint32_t status);
	void *ctx;	/* borrowed */
};

/*
 * Puts all of it on the buses of @vm (borrowed).  @debug NULL leaves out the last
 * two ports.  0, -ENOMEM, or as bus_add().
 */
int platform_create(struct vm *vm, const struct platform_debug *debug,
		    struct platform **ret_platform, struct err *err);
/* Appends what a guest has set to @out, and takes it over, before vCPUs run: 0 or -EINVAL. */
void platform_save(struct platform *platform, struct blob *out);
int platform_restore(struct platform *platform, struct blob_reader *in);
void platform_destroy(struct platform *platform);	/* after the VM's threads; NULL is fine */

#endif /* VMM_PLATFORM_H */
