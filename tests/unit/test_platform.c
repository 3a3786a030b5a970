/* SPDX-License-Identifier: Apache-2.0 */
/* Serial port, platform ports, ACPI tables and the KVM clock, on a machine whose engine
 * only takes notes. */
#include "os/blob.h"
#include "os/err.h"
#include "vmm/acpi.h"
#include "vmm/generation.h"
#include "vmm/boot.h"
#include "vmm/kvmclock.h"
#include "vmm/mptable.h"
#include "vmm/platform.h"
#include "vmm/serial.h"
#include "vmm/tsc.h"
#include "vmm/vm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include <time.h>
#include <unistd.h>

static unsigned line_gsi, kicks;
static bool line_level;

static int ok_vm(struct vm *vm, struct err *err)
{
	return 0;
}

static void no_vm(struct vm *vm)
{
}

static int ok_vcpu(struct vcpu *vcpu, struct err *err)
{
	return vcpu->index == 3 ? err_set(err, -ENOSPC, "no fourth vCPU") : 0;
}

static void no_vcpu(struct vcpu *vcpu)
{
}

static void note_kick(struct vcpu *vcpu)
{
	kicks++;
}

static void note_irq(struct vm *vm, unsigned gsi, bool level)
{
	line_gsi = gsi;
	line_level = level;
}

static const struct engine_ops notes = { .name = "notes", .vm_create = ok_vm, .vm_destroy = no_vm,
					 .vcpu_create = ok_vcpu, .vcpu_destroy = no_vcpu,
					 .vcpu_kick = note_kick, .irq_set = note_irq };

static struct mem *mem;
static struct vm *vm;

static int setup(void **state)
{
	kicks = line_gsi = 0;
	line_level = false;
	return mem_create(4 << 20, &mem, NULL) || vm_create(&notes, mem, 2, &vm, NULL);
}

static int teardown(void **state)
{
	vm_destroy(vm);
	mem_destroy(mem);
	return 0;
}

static void out(uint16_t port, uint64_t value)
{
	assert_true(bus_write(&vm->pio, port, 1, value));
}

static uint64_t in(uint16_t port)
{
	uint64_t v;

	assert_true(bus_read(&vm->pio, port, 1, &v));
	return v;
}

static void collect(void *ctx, const uint8_t *data, size_t len)
{
	(void)strncat(ctx, (const char *)data, len);
}

static void test_serial_output_and_input(void **state)
{
	char got[16] = "";
	struct serial *s;

	assert_int_equal(serial_create(vm, 0x3f8, 4, collect, got, &s, NULL), 0);
	out(0x3f8, 'h');
	out(0x3f8, 'i');
	assert_string_equal(got, "hi");
	assert_int_equal(in(0x3fd), 0x60);
	assert_int_equal(serial_input(s, (const uint8_t *)"ab", 2), 2);
	assert_int_equal(in(0x3fd), 0x61);
	assert_int_equal(in(0x3f8), 'a');
	assert_int_equal(in(0x3f8), 'b');
	assert_int_equal(in(0x3fd), 0x60);
	serial_destroy(s);
}

static void test_serial_interrupts_follow_their_causes(void **state)
{
	static uint8_t lots[2 * SERIAL_QUEUE];
	struct serial *s;

	assert_int_equal(serial_create(vm, 0x3f8, 4, NULL, NULL, &s, NULL), 0);
	out(0x3fc, 8);	/* OUT2 */
	out(0x3f9, 1);
	assert_false(line_level);
	assert_int_equal(serial_input(s, (const uint8_t *)"x", 1), 1);
	assert_true(line_level);
	assert_int_equal(line_gsi, 4);
	assert_int_equal(in(0x3fa) & 0xf, 4);
	(void)in(0x3f8);
	assert_false(line_level);
	out(0x3f9, 3);	/* transmitter empty: reported at once, until seen */
	assert_true(line_level);
	assert_int_equal(in(0x3fa) & 0xf, 2);
	assert_false(line_level);
	assert_int_equal(in(0x3fa) & 0xf, 1);
	out(0x3f8, 'y');
	assert_true(line_level);
	assert_int_equal(serial_input(s, lots, sizeof(lots)), SERIAL_QUEUE);
	out(0x3fa, 3);	/* clear the receiver */
	assert_int_equal(in(0x3fd) & 1, 0);
	serial_destroy(s);
}

static void test_serial_loop_back_finds_a_16550a(void **state)
{
	struct serial *s;

	assert_int_equal(serial_create(vm, 0x3f8, 4, NULL, NULL, &s, NULL), 0);
	out(0x3fc, 0x1a);	/* loop, OUT2, RTS: DCD and CTS come back */
	assert_int_equal(in(0x3fe) & 0xf0, 0x90);
	out(0x3fa, 1);
	assert_int_equal(in(0x3fa) >> 6, 3);	/* FIFOs work */
	out(0x3ff, 0x5a);
	assert_int_equal(in(0x3ff), 0x5a);
	out(0x3fb, 0x80);
	out(0x3f8, 12);
	assert_int_equal(in(0x3f8), 12);
	serial_destroy(s);
}

static struct platform *make_platform(void)
{
	struct platform *p;

	assert_int_equal(platform_create(vm, NULL, &p, NULL), 0);
	return p;
}

static void test_reset_and_power_ports_make_requests(void **state)
{
	static const struct {
		uint16_t port;
		uint8_t value;
		enum vm_request want;
	} t[] = {
		{ 0x64, 0xfe, VM_REQUEST_RESET }, { 0x64, 0xd1, VM_REQUEST_NONE },
		{ 0xcf9, 6, VM_REQUEST_RESET }, { 0xcf9, 2, VM_REQUEST_NONE },
		{ 0x602, 0x0f, VM_REQUEST_RESET }, { 0x600, 5 << 2 | 1 << 5, VM_REQUEST_POWEROFF },
		{ 0x600, 5 << 2, VM_REQUEST_NONE }, { 0x80, 0xff, VM_REQUEST_NONE },
	};
	struct platform *p = make_platform();

	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		atomic_store(&vm->request, VM_REQUEST_NONE);
		kicks = 0;
		out(t[i].port, t[i].value);
		assert_int_equal(atomic_load(&vm->request), t[i].want);
		assert_int_equal(kicks, t[i].want == VM_REQUEST_NONE ? 0 : 2);
	}
	assert_false(bus_write(&vm->pio, PLATFORM_DEBUG_EXIT_PORT, 1, 0));
	platform_destroy(p);
}

static void test_cmos_tells_the_time(void **state)
{
	struct platform *p = make_platform();
	time_t now = time(NULL);
	struct tm tm;

	(void)gmtime_r(&now, &tm);
	out(0x70, 0x32);
	assert_int_equal(in(0x71), 0x20);
	out(0x70, 0x09 | 0x80);
	assert_int_equal(in(0x71), tm.tm_year % 100 / 10 * 16 + tm.tm_year % 10);
	platform_destroy(p);
}

static void test_the_mailbox_starts_a_processor(void **state)
{
	struct platform *p = make_platform();
	const struct vcpu_state *start;
	uint64_t v;

	assert_true(bus_write(&vm->mmio, PLATFORM_MAILBOX + 4, 4, 1));
	assert_true(bus_write(&vm->mmio, PLATFORM_MAILBOX + 8, 8, 0x9a000));
	assert_null(atomic_load(&vm->vcpu[1].start));
	assert_true(bus_write(&vm->mmio, PLATFORM_MAILBOX, 2, 1));
	start = atomic_load(&vm->vcpu[1].start);
	assert_non_null(start);
	assert_int_equal(start->rip, 0x9a000);
	assert_int_equal(start->cr3, BOOT_PAGE_TABLES);
	assert_int_equal(kicks, 1);
	assert_true(bus_read(&vm->mmio, PLATFORM_MAILBOX, 2, &v));
	assert_int_equal(v, 0);
	assert_true(bus_write(&vm->mmio, PLATFORM_MAILBOX + 4, 4, 77));	/* no such processor */
	assert_true(bus_write(&vm->mmio, PLATFORM_MAILBOX, 2, 1));
	assert_true(bus_write(&vm->mmio, PLATFORM_MAILBOX + 4088, 8, 1));
	assert_int_equal(kicks, 1);
	platform_destroy(p);
}

static void test_vm_create_unwinds(void **state)
{
	struct err err = { 0 };
	struct vm *none;

	assert_int_equal(vm_create(&notes, mem, 4, &none, &err), -ENOSPC);
	assert_string_equal(err.msg, "no fourth vCPU");
	assert_int_equal(vm_create(&notes, mem, 9, &none, &err), -EINVAL);
	assert_int_equal(vm_create(&notes, mem, 0, &none, &err), -EINVAL);
}

static uint8_t sum(const void *p, size_t len)
{
	const uint8_t *b = p;
	uint8_t s = 0;

	while (len-- > 0)
		s = (uint8_t)(s + *b++);
	return s;
}

static void build_tables(gpa_t *rsdp)
{
	static const struct acpi_device devices[] = { { 0xd0000000, 0x1000, 5, true },
						      { 0xd0001000, 0x1000, 23, false } };

	assert_int_equal(acpi_build(mem, &(struct acpi_spec){ .nvcpus = 2, .com1 = true, .generation = true, .device = devices,
								       .ndevices = 2 }, rsdp, NULL), 0);
}

static void test_acpi_checksums_and_links(void **state)
{
	const uint8_t *p;
	uint64_t xsdt;
	uint32_t len;
	gpa_t rsdp;

	build_tables(&rsdp);
	p = mem_at(mem, rsdp, 36);
	assert_memory_equal(p, "RSD PTR ", 8);
	assert_int_equal(sum(p, 20), 0);
	assert_int_equal(sum(p, 36), 0);
	memcpy(&xsdt, p + 24, 8);
	p = mem_at(mem, xsdt, 36 + 16);
	assert_memory_equal(p, "XSDT", 4);
	for (int i = 0; i < 2; i++) {
		uint64_t at;
		const uint8_t *t;

		memcpy(&at, p + 36 + 8 * i, 8);
		t = mem_at(mem, at, 36);
		memcpy(&len, t + 4, 4);
		assert_int_equal(sum(t, len), 0);
		assert_memory_equal(t, i == 0 ? "FACP" : "APIC", 4);
	}
	assert_memory_equal(mem_at(mem, MPTABLE_BASE, 4), "_MP_", 4);
	assert_int_equal(sum(mem_at(mem, MPTABLE_BASE, 16), 16), 0);
}

static void dump(gpa_t at, const char *name)
{
	const uint8_t *t = mem_at(mem, at, 36);
	uint32_t len;
	FILE *f = fopen(name, "w");

	memcpy(&len, t + 4, 4);
	assert_non_null(f);
	assert_int_equal(fwrite(mem_at(mem, at, len), 1, len, f), len);
	assert_int_equal(fclose(f), 0);
}

/* An independent reader of AML agrees, where it is installed. */
static void test_iasl_reads_the_tables(void **state)
{
	char dir[] = "/tmp/roux-acpi-XXXXXX", command[512];
	gpa_t rsdp;

	if (system("command -v iasl >/dev/null") != 0)
		skip();
	build_tables(&rsdp);
	assert_non_null(mkdtemp(dir));
	assert_int_equal(chdir(dir), 0);
	dump(rsdp + 0x1000, "dsdt");
	dump(rsdp + 0x200, "facp");
	dump(rsdp + 0x400, "apic");
	(void)snprintf(command, sizeof(command),
		       "(iasl -d dsdt facp apic && grep -q LNRO0005 dsdt.dsl && grep -q PNP0501 dsdt.dsl && "
		       "grep -q 0x00000017 dsdt.dsl && grep -q 'Notify (VGEN, 0x80)' dsdt.dsl && ! grep -il 'error\\|invalid' dsdt.dsl facp.dsl apic.dsl && "
		       "iasl dsdt.dsl) >log 2>&1; r=$?; [ $r = 0 ] || cat log; cd /; rm -rf %s; exit $r", dir);
	assert_int_equal(system(command), 0);
	assert_int_equal(chdir("/"), 0);
}

static void test_the_generation_id_is_another_each_time(void **state)
{
	uint8_t before[16], after[16];

	assert_int_equal(generation_draw(mem), 0);
	assert_int_equal(mem_read(mem, GENERATION_AT, before, sizeof(before)), 0);
	assert_int_equal(generation_draw(mem), 0);
	assert_int_equal(mem_read(mem, GENERATION_AT, after, sizeof(after)), 0);
	assert_memory_not_equal(before, after, sizeof(before));
}

static void test_the_clock_page_turns_ticks_into_nanoseconds(void **state)
{
	static const uint32_t rates[] = { 1000, 999999, 1000000, 2596114, 5000000 };

	for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
		struct kvmclock c;
		uint64_t hour = rates[i] * 1000ull * 3600;
		double error;

		kvmclock_init(&c, mem, rates[i], 500, 7000);
		assert_int_equal(kvmclock_ns(&c, 500), 7000);
		error = ((double)kvmclock_ns(&c, 500 + hour) - 7000) / 3600e9 - 1;
		assert_true(error < 1e-6 && error > -1e-6);
	}
}

static void test_clock_pages_outside_memory_fault(void **state)
{
	struct kvmclock c;
	uint32_t *page = mem_at(mem, 0x3000, 32);

	kvmclock_init(&c, mem, 2000000, 0, 0);
	assert_int_equal(kvmclock_write_system_time(&c, 0x3001), 0);
	assert_int_equal(page[0], 2);
	assert_int_equal(kvmclock_write_system_time(&c, 0x3001), 0);
	assert_int_equal(page[0], 4);
	assert_int_equal(kvmclock_write_system_time(&c, 0x3000), 0);	/* disabled */
	assert_int_equal(page[0], 4);
	assert_int_equal(kvmclock_write_system_time(&c, (4 << 20) - 16 + 1), -1);
	assert_int_equal(kvmclock_write_wall_clock(&c, 0x3040, 0), 0);
	assert_in_range(page[0x11], time(NULL) - 5, time(NULL) + 5);
	assert_int_equal(kvmclock_write_wall_clock(&c, UINT64_MAX - 3, 0), -1);
	assert_int_equal(kvmclock_write_wall_clock(&c, 0, 0), 0);
	assert_int_equal(*(const uint32_t *)mem_at(mem, 0, 4), 0);
}

static void test_cpuid_is_filtered_and_consistent(void **state)
{
	const struct cpuid_dynamic d = { .apic_id = 1, .osxsave = true, .xcr0 = 3 };
	const struct cpuid_table *t = &vm->cpuid;
	uint32_t r[4];

	cpuid_query(t, &d, 1, 0, r);
	assert_int_equal(r[CPUID_EBX] >> 24, 1);
	assert_int_equal(r[CPUID_ECX] >> 27 & 1, 1);	/* OSXSAVE follows CR4 */
	assert_int_equal(r[CPUID_ECX] >> 3 & 1, 0);	/* MONITOR */
	assert_int_equal(r[CPUID_EDX] & (1 << 7 | 1 << 12 | 1 << 14), 0);	/* MCE MTRR MCA */
	cpuid_query(t, &d, 7, 0, r);
	assert_int_equal(r[CPUID_EBX] & (1 << 7 | 1 << 20 | 1 << 11), 0);	/* SMEP SMAP RTM */
	assert_int_equal(r[CPUID_ECX] & (1 << 2 | 1 << 3 | 1 << 16), 0);	/* UMIP PKU LA57 */
	cpuid_query(t, &d, 0xd, 0, r);
	assert_int_equal(r[CPUID_EBX], 576);
	assert_true(r[CPUID_ECX] <= VCPU_XSAVE_MAX);
	assert_int_equal(r[CPUID_ECX], cpuid_xsave_size(t, cpuid_xcr0_mask(t)));
	cpuid_query(t, &d, 0xb, 1, r);
	assert_int_equal(r[CPUID_EBX], 2);
	assert_int_equal(r[CPUID_EDX], 1);
	cpuid_query(t, &d, 0x15, 0, r);
	assert_int_equal((uint64_t)r[CPUID_ECX] * r[CPUID_EBX] / r[CPUID_EAX] / 1000, vm->tsc_khz);
	cpuid_query(t, &d, 0x12345, 0, r);
	assert_int_equal(r[0] | r[1] | r[2] | r[3], 0);
}

static void test_taking_avx_away_takes_all_that_needs_it(void **state)
{
	const struct cpuid_dynamic d = { .xcr0 = 7 };
	uint32_t r[4];

	cpuid_clear_xstate(&vm->cpuid, 4);
	assert_int_equal(cpuid_xcr0_mask(&vm->cpuid) & ~3ull, 0);
	cpuid_query(&vm->cpuid, &d, 1, 0, r);
	assert_int_equal(r[CPUID_ECX] & (1 << 28 | 1 << 12 | 1 << 29), 0);
	cpuid_query(&vm->cpuid, &d, 7, 0, r);
	assert_int_equal(r[CPUID_EBX] & (1 << 5 | 1 << 16), 0);
	assert_int_equal(cpuid_xsave_size(&vm->cpuid, 7), 576);
}

static void test_tsc_rate_is_the_same_every_time(void **state)
{
	assert_true(host_tsc_khz() > 100000);
	assert_int_equal(host_tsc_khz(), host_tsc_khz());
}

static void make_serial(uint16_t port, struct serial **ret_serial)
{
	assert_int_equal(serial_create(vm, port, 4, NULL, NULL, ret_serial, NULL), 0);
}

static void test_a_saved_serial_port_goes_on_in_another(void **state)
{
	struct serial *from, *to;
	struct blob saved = { 0 };
	struct blob_reader reader;
	uint8_t many[SERIAL_QUEUE];

	make_serial(0x3f8, &from);
	make_serial(0x2f8, &to);
	memset(many, 'x', sizeof(many));
	assert_int_equal(serial_input(from, many, sizeof(many)), sizeof(many));
	for (unsigned i = 0; i < 100; i++)	/* the queue wraps */
		(void)in(0x3f8);
	assert_int_equal(serial_input(from, (const uint8_t *)"last", 4), 4);
	out(0x3fb, 0x80);
	out(0x3f8, 3);	/* divisor */
	out(0x3fb, 0x1b);
	out(0x3fc, 8);	/* OUT2 */
	out(0x3f9, 1);	/* wants to hear of input */
	out(0x3ff, 0x77);
	assert_true(line_level);
	serial_save(from, &saved);
	assert_false(saved.failed);

	(void)serial_input(to, (const uint8_t *)"not these", 9);
	reader = (struct blob_reader){ .at = saved.bytes, .left = saved.len };
	assert_int_equal(serial_restore(to, &reader), 0);
	assert_int_equal(reader.left, 0);
	assert_int_equal(in(0x2ff), 0x77);
	assert_int_equal(in(0x2fb), 0x1b);
	assert_int_equal(in(0x2fc), 8);
	assert_int_equal(in(0x2f9), 1);
	for (unsigned i = 100; i < SERIAL_QUEUE; i++)
		assert_int_equal(in(0x2f8), 'x');
	assert_true(line_level);	/* as long as there is input */
	assert_int_equal(in(0x2f8), 'l');
	assert_int_equal(in(0x2f8), 'a');
	assert_int_equal(in(0x2f8), 's');
	assert_int_equal(in(0x2f8), 't');
	assert_false(line_level);
	out(0x2fb, 0x80);
	assert_int_equal(in(0x2f8), 3);
	serial_destroy(from);
	serial_destroy(to);
	blob_finish(&saved);
}

/* No prefix of @saved is taken. */
static void expect_no_prefix(const struct blob *saved, int (*restore)(void *dev, struct blob_reader *reader), void *dev)
{
	for (size_t len = 0; len < saved->len; len++) {
		struct blob_reader reader = { .at = saved->bytes, .left = len };

		assert_int_equal(restore(dev, &reader), -EINVAL);
	}
}

static int restore_serial(void *dev, struct blob_reader *reader)
{
	return serial_restore(dev, reader);
}

static int restore_platform(void *dev, struct blob_reader *reader)
{
	return platform_restore(dev, reader);
}

static void test_garbage_is_no_state_of_a_serial_port(void **state)
{
	uint8_t bytes[12 + SERIAL_QUEUE + 1];
	struct blob_reader reader = { .at = bytes, .left = sizeof(bytes) };
	const uint32_t too_many = SERIAL_QUEUE + 1;
	struct blob saved = { 0 };
	struct serial *s;

	make_serial(0x3f8, &s);
	out(0x3ff, 0x42);
	(void)serial_input(s, (const uint8_t *)"abc", 3);
	serial_save(s, &saved);
	expect_no_prefix(&saved, restore_serial, s);
	memset(bytes, 0xff, sizeof(bytes));
	assert_int_equal(serial_restore(s, &reader), -EINVAL);
	memcpy(bytes + 8, &too_many, 4);
	reader = (struct blob_reader){ .at = bytes, .left = sizeof(bytes) };
	assert_int_equal(serial_restore(s, &reader), -EINVAL);
	assert_int_equal(in(0x3ff), 0x42);	/* nothing of it was taken */
	assert_int_equal(in(0x3f8), 'a');

	/* Bits that the port does not have do not come into it by this way. */
	bytes[8] = bytes[9] = bytes[10] = bytes[11] = 0;
	reader = (struct blob_reader){ .at = bytes, .left = 12 };
	bytes[1] = 0;
	assert_int_equal(serial_restore(s, &reader), 0);
	assert_int_equal(in(0x3f9), 0x0f);
	assert_int_equal(in(0x3fc), 0x1f);
	serial_destroy(s);
	blob_finish(&saved);
}

static void test_a_saved_platform_goes_on_in_another(void **state)
{
	struct platform *from, *to;
	struct blob saved = { 0 };
	struct blob_reader reader;
	struct vm *other;
	uint64_t v;

	assert_int_equal(platform_create(vm, NULL, &from, NULL), 0);
	assert_int_equal(vm_create(&notes, mem, 2, &other, NULL), 0);
	assert_int_equal(platform_create(other, NULL, &to, NULL), 0);
	out(0x70, 0x8d);	/* register D: battery good */
	assert_true(bus_write(&vm->mmio, PLATFORM_MAILBOX + 8, 8, 0x123456789abc));
	assert_true(bus_write(&vm->mmio, PLATFORM_MAILBOX + 4, 4, 1));
	platform_save(from, &saved);
	assert_false(saved.failed);
	expect_no_prefix(&saved, restore_platform, to);
	reader = (struct blob_reader){ .at = saved.bytes, .left = saved.len };
	assert_int_equal(platform_restore(to, &reader), 0);
	assert_int_equal(reader.left, 0);
	assert_true(bus_read(&other->pio, 0x71, 1, &v));
	assert_int_equal(v, 0x80);
	assert_true(bus_read(&other->mmio, PLATFORM_MAILBOX + 8, 8, &v));
	assert_int_equal(v, 0x123456789abc);
	assert_true(bus_read(&other->mmio, PLATFORM_MAILBOX + 4, 4, &v));
	assert_int_equal(v, 1);
	assert_null(atomic_load(&other->vcpu[1].start));	/* nothing starts by it */
	vm_destroy(other);
	platform_destroy(from);
	platform_destroy(to);
	blob_finish(&saved);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_serial_output_and_input),
		T(test_serial_interrupts_follow_their_causes),
		T(test_serial_loop_back_finds_a_16550a),
		T(test_reset_and_power_ports_make_requests),
		T(test_cmos_tells_the_time),
		T(test_the_mailbox_starts_a_processor),
		T(test_a_saved_serial_port_goes_on_in_another),
		T(test_garbage_is_no_state_of_a_serial_port),
		T(test_a_saved_platform_goes_on_in_another),
		T(test_vm_create_unwinds),
		T(test_acpi_checksums_and_links),
		T(test_iasl_reads_the_tables),
		T(test_the_generation_id_is_another_each_time),
		T(test_the_clock_page_turns_ticks_into_nanoseconds),
		T(test_clock_pages_outside_memory_fault),
		T(test_cpuid_is_filtered_and_consistent),
		T(test_taking_avx_away_takes_all_that_needs_it),
		T(test_tsc_rate_is_the_same_every_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
