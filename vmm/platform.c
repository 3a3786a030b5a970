/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/platform.h"

#include "base/checked.h"
#include "os/blob.h"
#include "os/err.h"
#include "vmm/vm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ACPI 6.4, table 5.46: the mailbox the OS writes. */
enum { MAILBOX_COMMAND = 0, MAILBOX_APIC_ID = 4, MAILBOX_VECTOR = 8, MAILBOX_SIZE = 16 };
enum { MAILBOX_COMMAND_WAKEUP = 1 };

enum { SLEEP_ENABLE = 1 << 5, SLEEP_TYPE_SHIFT = 2 };	/* ACPI 6.4, 4.8.3.7 */

struct platform {
	struct vm *vm;	/* borrowed */
	struct platform_debug debug;
	_Atomic uint8_t cmos_index;
	pthread_mutex_t lock;	/* guards the mailbox */
	uint8_t mailbox[MAILBOX_SIZE];
};

static uint64_t read_zero(void *dev, uint64_t off, unsigned size)
{
	return 0;
}

static void write_nothing(void *dev, uint64_t off, unsigned size, uint64_t value)
{
}

/* --- CMOS clock, MC146818: register A, B, C, D and the time in BCD, 24 hours, UTC --- */

static uint8_t bcd(int v)
{
	return (uint8_t)(v / 10 << 4 | v % 10);
}

static uint8_t cmos_register(uint8_t index)
{
	time_t now = time(NULL);
	struct tm tm;

	(void)gmtime_r(&now, &tm);
	switch (index) {
	case 0x00: return bcd(tm.tm_sec);
	case 0x02: return bcd(tm.tm_min);
	case 0x04: return bcd(tm.tm_hour);
	case 0x06: return bcd(tm.tm_wday + 1);
	case 0x07: return bcd(tm.tm_mday);
	case 0x08: return bcd(tm.tm_mon + 1);
	case 0x09: return bcd(tm.tm_year % 100);
	case 0x32: return bcd(19 + tm.tm_year / 100);	/* century */
	case 0x0a: return 0x26;	/* 32 kHz time base, no update in progress */
	case 0x0b: return 0x02;	/* 24 hours, BCD, no interrupts */
	case 0x0d: return 0x80;	/* battery good */
	default: return 0;
	}
}

static uint64_t cmos_read(void *dev, uint64_t off, unsigned size)
{
	struct platform *p = dev;

	return off == 1 ? cmos_register(atomic_load(&p->cmos_index)) : 0xff;
}

static void cmos_write(void *dev, uint64_t off, unsigned size, uint64_t value)
{
	struct platform *p = dev;

	if (off == 0)	/* bit 7 is the NMI mask */
		atomic_store(&p->cmos_index, (uint8_t)(value & 0x7f));
}

/* --- Reset and power --- */

static void keyboard_write(void *dev, uint64_t off, unsigned size, uint64_t value)
{
	struct platform *p = dev;

	if (off == 4 && (value & 0xff) == 0xfe)	/* pulse the reset line */
		vm_request(p->vm, VM_REQUEST_RESET);
}

static void reset_control_write(void *dev, uint64_t off, unsigned size, uint64_t value)
{
	struct platform *p = dev;

	if (value & 4)	/* reset CPU */
		vm_request(p->vm, VM_REQUEST_RESET);
}

static void power_write(void *dev, uint64_t off, unsigned size, uint64_t value)
{
	struct platform *p = dev;

	if (off == PLATFORM_RESET_PORT - PLATFORM_SLEEP_PORT && value == PLATFORM_RESET_VALUE)
		vm_request(p->vm, VM_REQUEST_RESET);
	if (off == 0 && (value & SLEEP_ENABLE) &&
	    (value >> SLEEP_TYPE_SHIFT & 7) == PLATFORM_SLEEP_TYPE_S5)
		vm_request(p->vm, VM_REQUEST_POWEROFF);
}

/* --- Ports of test guests --- */

static uint64_t debug_text_read(void *dev, uint64_t off, unsigned size)
{
	return PLATFORM_DEBUG_TEXT_PORT;	/* how Bochs says that the port is there */
}

static void debug_text_write(void *dev, uint64_t off, unsigned size, uint64_t value)
{
	struct platform *p = dev;

	p->debug.text(p->debug.ctx, (uint8_t)value);
}

static void debug_exit_write(void *dev, uint64_t off, unsigned size, uint64_t value)
{
	struct platform *p = dev;

	p->debug.exit(p->debug.ctx, (uint32_t)value);
	vm_request(p->vm, VM_REQUEST_POWEROFF);
}

/* --- Processor start-up --- */

/* Starts the processor the mailbox names.  The OS sees command 0 at once: the mailbox
 * may be written again, whether or not the processor has begun. */
static void mailbox_wake(struct platform *p)
{
	struct vcpu_state *state;
	uint32_t apic_id;
	uint64_t vector;

	memcpy(&apic_id, p->mailbox + MAILBOX_APIC_ID, sizeof(apic_id));
	memcpy(&vector, p->mailbox + MAILBOX_VECTOR, sizeof(vector));
	if (apic_id == 0 || apic_id >= p->vm->nvcpus)
		return;
	state = malloc(sizeof(*state));
	if (!state)
		return;
	boot_long_mode_state(apic_id, vector, 0, state);
	(void)vm_start_vcpu(p->vm, apic_id, state);
	free(state);
}

static uint64_t mailbox_read(void *dev, uint64_t off, unsigned size)
{
	struct platform *p = dev;
	uint64_t value = 0;

	pthread_mutex_lock(&p->lock);
	if (range_ok(off, size, sizeof(p->mailbox)))
		memcpy(&value, p->mailbox + off, size);
	pthread_mutex_unlock(&p->lock);
	return value;
}

static void mailbox_write(void *dev, uint64_t off, unsigned size, uint64_t value)
{
	struct platform *p = dev;

	if (!range_ok(off, size, sizeof(p->mailbox)))
		return;
	pthread_mutex_lock(&p->lock);
	memcpy(p->mailbox + off, &value, size);
	if (off == MAILBOX_COMMAND && (value & 0xffff) == MAILBOX_COMMAND_WAKEUP)
		mailbox_wake(p);
	memset(p->mailbox + MAILBOX_COMMAND, 0, 2);
	pthread_mutex_unlock(&p->lock);
}

static const struct bus_ops cmos_ops = { cmos_read, cmos_write };
static const struct bus_ops keyboard_ops = { read_zero, keyboard_write };
static const struct bus_ops reset_control_ops = { read_zero, reset_control_write };
static const struct bus_ops power_ops = { read_zero, power_write };
static const struct bus_ops ignored_ops = { read_zero, write_nothing };
static const struct bus_ops debug_text_ops = { debug_text_read, debug_text_write };
static const struct bus_ops debug_exit_ops = { read_zero, debug_exit_write };
static const struct bus_ops mailbox_ops = { mailbox_read, mailbox_write };

static int add_ports(struct platform *p, bool debug, struct err *err)
{
	const struct bus_range ports[] = {
		{ 0x60, 5, &keyboard_ops, p, "keyboard controller" },
		{ 0x70, 2, &cmos_ops, p, "CMOS clock" },
		{ 0x80, 1, &ignored_ops, p, "POST code" },
		{ 0xcf9, 1, &reset_control_ops, p, "reset control" },
		{ PLATFORM_SLEEP_PORT, 4, &power_ops, p, "power control" },
		{ PLATFORM_DEBUG_TEXT_PORT, 1, &debug_text_ops, p, "debug text" },
		{ PLATFORM_DEBUG_EXIT_PORT, 4, &debug_exit_ops, p, "debug exit" },
	};
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(ports) - (debug ? 0 : 2) && r == 0; i++)
		r = bus_add(&p->vm->pio, &ports[i], err);
	if (r == 0)
		r = bus_add(&p->vm->mmio, &(struct bus_range){ PLATFORM_MAILBOX, 0x1000,
							      &mailbox_ops, p, "wake-up mailbox" },
			    err);
	return r;
}

int platform_create(struct vm *vm, const struct platform_debug *debug,
		    struct platform **ret_platform, struct err *err)
{
	struct platform *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return err_set(err, -ENOMEM, "out of host memory");
	p->vm = vm;
	if (debug)
		p->debug = *debug;
	pthread_mutex_init(&p->lock, NULL);
	r = add_ports(p, debug != NULL, err);
	if (r < 0) {
		platform_destroy(p);
		return r;
	}
	*ret_platform = p;
	return 0;
}

void platform_destroy(struct platform *platform)
{
	if (!platform)
		return;
	pthread_mutex_destroy(&platform->lock);
	free(platform);
}

void platform_save(struct platform *p, struct blob *out)
{
	uint8_t index = atomic_load(&p->cmos_index);

	(void)pthread_mutex_lock(&p->lock);
	blob_put(out, &index, 1);
	blob_put(out, p->mailbox, sizeof(p->mailbox));
	(void)pthread_mutex_unlock(&p->lock);
}

int platform_restore(struct platform *p, struct blob_reader *in)
{
	const uint8_t *index = blob_take(in, 1), *mailbox = blob_take(in, sizeof(p->mailbox));

	if (!mailbox)
		return -EINVAL;
	atomic_store(&p->cmos_index, *index & 0x7f);
	(void)pthread_mutex_lock(&p->lock);
	memcpy(p->mailbox, mailbox, sizeof(p->mailbox));
	(void)pthread_mutex_unlock(&p->lock);
	return 0;
}
