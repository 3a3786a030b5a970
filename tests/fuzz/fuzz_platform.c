/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The devices every machine has, driven through the buses as guest code drives them:
 * serial port, CMOS, power and reset ports, wake-up mailbox, local APICs, IOAPIC and
 * the KVM clock.  The input is a list of commands of 16 bytes:
 *
 *   what vcpu place16 size 3 bytes spare value64
 */
#include "vmm/irqchip.h"
#include "vmm/kvmclock.h"
#include "vmm/platform.h"
#include "vmm/serial.h"
#include "vmm/vm.h"
#include "tests/fuzz/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CPUS 4u
#define RAM (2u << 20)	/* bytes */
#define COMMANDS_MAX 400u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

struct command {
	uint8_t what, vcpu;
	uint16_t place;
	uint8_t size, spare[3];
	uint64_t value;
};
_Static_assert(sizeof(struct command) == 16, "commands are read from bytes");

static struct irqchip *chip;
static struct serial *serial;
static struct kvmclock wall;
static uint64_t now;	/* TSC */

/* --- An engine that runs nothing, and the host of the interrupt controllers --- */

static int ok_vm(struct vm *vm, struct err *err)
{
	return 0;
}

static void no_vm(struct vm *vm)
{
}

static int ok_vcpu(struct vcpu *vcpu, struct err *err)
{
	return 0;
}

static void no_vcpu(struct vcpu *vcpu)
{
}

static void line(struct vm *vm, unsigned gsi, bool level)
{
	irqchip_line_set(chip, gsi, level);
}

static const struct engine_ops engine = { .name = "none", .vm_create = ok_vm, .vm_destroy = no_vm,
					  .vcpu_create = ok_vcpu, .vcpu_destroy = no_vcpu,
					  .vcpu_kick = no_vcpu, .irq_set = line };

static void kick(void *ctx, unsigned vcpu)
{
	want(vcpu < CPUS);
}

static void timer_set(void *ctx, unsigned vcpu, uint64_t tsc)
{
	want(vcpu < CPUS);
}

static uint64_t tsc(void *ctx, unsigned vcpu)
{
	return now;
}

static void init_sipi(void *ctx, unsigned vcpu, int vector)
{
	want(vcpu < CPUS && vector < 256);
	if (vector < 0)
		irqchip_reset_vcpu(chip, vcpu);
}

static const struct irqchip_ops ops = { kick, timer_set, tsc, init_sipi };

/* --- Commands --- */

static unsigned width(const struct command *c)
{
	return 1u << (c->size & 3);
}

/* Anywhere in a range, over its end too; now and then anywhere at all. */
static uint64_t address(const struct bus *bus, const struct command *c)
{
	const struct bus_range *r = &bus->range[c->place % bus->nranges];

	if (c->size & 0x80)
		return c->value >> 13;
	return r->base + (c->place >> 4) % (r->size < 64 ? r->size + 1 : 64);
}

static void access_bus(const struct bus *bus, const struct command *c)
{
	uint64_t v, addr = address(bus, c);

	if (c->size & 0x40) {
		(void)bus_read(bus, addr, width(c), &v);
		want(width(c) == 8 || !(v >> (8 * width(c))));
	} else {
		(void)bus_write(bus, addr, width(c), c->value);
	}
}

static void access_lapic(const struct command *c, unsigned vcpu)
{
	uint32_t off = c->size & 0x80 ? c->place : c->place % 64 * 16;

	if (c->size & 0x40)
		(void)irqchip_lapic_read(chip, vcpu, off);
	else
		irqchip_lapic_write(chip, vcpu, off, (uint32_t)c->value);
}

static void access_msr(const struct command *c, unsigned vcpu)
{
	static const uint32_t first[] = { 0x1b, 0x6e0 };
	uint32_t msr = c->place & 1 ? first[c->place >> 1 & 1] : 0x800 + (c->place >> 1 & 0xff);
	uint64_t v;

	want(irqchip_has_msr(msr));
	if (c->size & 0x40)
		(void)irqchip_msr_read(chip, vcpu, msr, &v);
	else
		(void)irqchip_msr_write(chip, vcpu, msr, c->value);
}

static void access_ioapic(const struct command *c)
{
	if (c->size & 0x40)
		(void)irqchip_ioapic_read(chip, c->place & 0x1f);
	else
		irqchip_ioapic_write(chip, c->place & 0x1f, (uint32_t)c->value);
}

/* What is promised as pending is delivered, and nothing else. */
static void take_interrupt(unsigned vcpu)
{
	bool pending = irqchip_pending(chip, vcpu), nmi = irqchip_nmi_pending(chip, vcpu);
	int vector = irqchip_take(chip, vcpu);

	want(pending == (vector >= 0) && vector < 256 && irqchip_cr8(chip, vcpu) < 16);
	want(irqchip_take_nmi(chip, vcpu) == nmi && !irqchip_nmi_pending(chip, vcpu));
}

/* A state file from anywhere; what was saved is saved again the same. */
static void restore(const struct command *c, unsigned vcpu)
{
	static uint8_t page[LAPIC_PAGE_SIZE];
	struct ioapic_state io;

	irqchip_save_lapic(chip, vcpu, page);
	irqchip_save_ioapic(chip, &io);
	if (c->size & 0x40) {
		memcpy(page + c->place % (sizeof(page) - sizeof(c->value)), &c->value, sizeof(c->value));
		io.redir[c->place % IOAPIC_PINS] = c->value;
		irqchip_restore_msrs(chip, vcpu, c->value, now + c->place);
	}
	irqchip_restore_lapic(chip, vcpu, page);
	irqchip_restore_ioapic(chip, &io);
}

static void command(struct vm *vm, const struct command *c)
{
	unsigned vcpu = c->vcpu % CPUS;

	switch (c->what % 12) {
	case 0:
	case 1:
		access_bus(&vm->pio, c);
		break;
	case 2:
		access_bus(&vm->mmio, c);
		break;
	case 3:
		access_lapic(c, vcpu);
		break;
	case 4:
		access_msr(c, vcpu);
		break;
	case 5:
		access_ioapic(c);
		break;
	case 6:
		irqchip_line_set(chip, c->place % 32, c->size & 1);
		break;
	case 7:
		irqchip_msi(chip, c->size & 0x80 ? c->value : 0xfee00000u | c->place << 2, (uint32_t)c->value);
		break;
	case 8:
		take_interrupt(vcpu);
		break;
	case 9:
		now += c->value >> (c->size & 63);
		irqchip_timer_expired(chip, vcpu);
		break;
	case 10:
		(void)serial_input(serial, (const uint8_t *)&c->value, sizeof(c->value));
		irqchip_set_cr8(chip, vcpu, (uint8_t)c->place);
		(void)kvmclock_write_system_time(&wall, c->size & 0x80 ? c->value : c->value % RAM);
		(void)kvmclock_write_wall_clock(&wall, c->size & 0x80 ? c->value : c->value % RAM, now);
		(void)kvmclock_ns(&wall, now);
		break;
	default:
		restore(c, vcpu);
		break;
	}
}

static void debug_text(void *ctx, uint8_t byte)
{
}

static void debug_exit(void *ctx, uint32_t status)
{
}

/* One machine serves all runs, as asking the host for its CPUID takes long; its buses start empty. */
static struct vm *machine(void)
{
	static struct vm *vm;
	struct mem *mem;

	if (!vm)
		want(mem_create(RAM, &mem, NULL) == 0 && vm_create(&engine, mem, CPUS, &vm, NULL) == 0);
	vm->mmio = vm->pio = (struct bus){ 0 };
	for (unsigned i = 0; i < CPUS; i++)
		free(atomic_exchange(&vm->vcpu[i].start, NULL));
	atomic_store(&vm->request, VM_REQUEST_NONE);
	return vm;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	const struct platform_debug debug = { debug_text, debug_exit, NULL };
	struct vm *vm = machine();
	struct platform *platform;
	struct command c;

	now = 1;
	want(irqchip_create(CPUS, 2000000, &ops, NULL, &chip, NULL) == 0);
	want(platform_create(vm, &debug, &platform, NULL) == 0);
	want(serial_create(vm, SERIAL_COM1_BASE, SERIAL_COM1_IRQ, NULL, NULL, &serial, NULL) == 0);
	kvmclock_init(&wall, vm->mem, 2000000, 0, 0);
	for (unsigned i = 0; len >= sizeof(c) && i < COMMANDS_MAX; i++) {
		memcpy(&c, data, sizeof(c));
		data += sizeof(c);
		len -= sizeof(c);
		command(vm, &c);
	}
	serial_destroy(serial);
	platform_destroy(platform);
	irqchip_destroy(chip);
	return 0;
}
