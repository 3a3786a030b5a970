/* SPDX-License-Identifier: Apache-2.0 */
/* The memory that the translator writes code into and runs it from, seen while a guest runs. */
#include "engine/dbt/engine_dbt.h"
#include "vmm/boot.h"
#include "vmm/vm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#define RAM (2ull << 20)
#define CODE 0x10000ull
#define PORT 0x42u
#define TIMES 50u

/* Changes an instruction of its own, runs it, tells the host, and so on. */
static const uint8_t code[] = {
	0x31, 0xc9,	/* xor ecx, ecx */
	0xff, 0xc1,	/* again: inc ecx */
	0x89, 0x0d, 0x01, 0x00, 0x00, 0x00,	/* mov [rip + 1], ecx: the operand of the next one */
	0xb8, 0x00, 0x00, 0x00, 0x00,	/* mov eax, 0 */
	0xe7, PORT,	/* out PORT, eax */
	0xeb, 0xef,	/* jmp again */
};

struct looker {
	struct vm *vm;
	unsigned looks, bad, writable, executable;	/* the last two: mappings of the code cache */
	uint64_t told;
};

/* Reads this process's own mappings. */
static void look(struct looker *l)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char line[512], perms[8];

	assert_non_null(f);
	l->writable = l->executable = 0;
	while (fgets(line, sizeof(line), f)) {
		assert_int_equal(sscanf(line, "%*s %7s", perms), 1);
		l->bad += perms[1] == 'w' && perms[2] == 'x';
		if (strstr(line, "memfd:roux-code")) {
			l->writable += perms[1] == 'w';
			l->executable += perms[2] == 'x';
		}
	}
	(void)fclose(f);
	l->looks++;
}

static uint64_t port_read(void *dev, uint64_t off, unsigned size)
{
	return 0;
}

static void port_write(void *dev, uint64_t off, unsigned size, uint64_t value)
{
	struct looker *l = dev;

	l->told = value;
	look(l);
	if (l->looks == TIMES)
		l->vm->engine->vcpu_kick(&l->vm->vcpu[0]);
}

static void test_code_is_writable_in_one_mapping_and_executable_in_another(void **state)
{
	static const struct bus_ops ops = { port_read, port_write };
	struct looker l = { 0 };
	struct vcpu_state start;
	struct mem *mem;

	assert_int_equal(mem_create(RAM, &mem, NULL), 0);
	if (vm_create(&dbt_engine, mem, 1, &l.vm, NULL) < 0) {
		mem_destroy(mem);
		skip();
	}
	assert_int_equal(bus_add(&l.vm->pio, &(struct bus_range){ PORT, 4, &ops, &l, "looks" }, NULL), 0);
	assert_int_equal(boot_tables(mem, NULL), 0);
	assert_int_equal(mem_write(mem, CODE, code, sizeof(code)), 0);
	boot_long_mode_state(0, CODE, 0, &start);
	assert_int_equal(l.vm->engine->set_state(&l.vm->vcpu[0], &start, NULL), 0);
	assert_int_equal(l.vm->engine->vcpu_run(&l.vm->vcpu[0], NULL), VCPU_EXIT_KICKED);
	assert_int_equal(l.told, TIMES);
	assert_int_equal(l.bad, 0);
	assert_int_equal(l.writable, 1);
	assert_int_equal(l.executable, 1);
	vm_destroy(l.vm);
	mem_destroy(mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_code_is_writable_in_one_mapping_and_executable_in_another),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
