/* SPDX-License-Identifier: Apache-2.0 */
/* Guests that bring the CPUID that they have seen. */
#include "engine/dbt/engine_dbt.h"
#include "os/err.h"
#include "vmm/cpuid.h"
#include "vmm/vm.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#define KHZ 2000000u

static struct cpuid_table host, guest;
static char missing[160];

static int setup(void **state)
{
	cpuid_fill_from_host(&host, 2, KHZ);
	guest = host;
	return 0;
}

static uint32_t *reg(struct cpuid_table *t, uint32_t leaf, uint32_t subleaf, enum cpuid_reg r)
{
	struct cpuid_entry *e = cpuid_find(t, leaf, subleaf);

	assert_non_null(e);
	return &e->reg[r];
}

static void test_what_the_host_has_is_offered(void **state)
{
	assert_true(cpuid_offers(&host, &guest, missing, sizeof(missing)));
	assert_string_equal(missing, "");
}

static void test_a_guest_may_have_seen_less(void **state)
{
	cpuid_clear(&guest, 7, 0, CPUID_EBX, ~0u);
	cpuid_clear(&guest, 1, 0, CPUID_ECX, 1u << 23);
	cpuid_clear_xstate(&guest, ~3ull);
	assert_true(cpuid_offers(&host, &guest, missing, sizeof(missing)));
}

static void test_what_is_missing_has_names(void **state)
{
	cpuid_clear(&host, 7, 0, CPUID_EBX, 1u << 8);
	*reg(&guest, 7, 0, CPUID_EBX) |= 1u << 8;
	*reg(&guest, 7, 0, CPUID_EDX) |= 1u << 14;
	cpuid_clear(&host, 7, 0, CPUID_EDX, 1u << 14);
	assert_false(cpuid_offers(&host, &guest, missing, sizeof(missing)));
	assert_string_equal(missing, "bmi2, serialize");
	assert_false(cpuid_offers(&host, &guest, missing, 8));	/* as much as there is room for */
	assert_int_equal(strlen(missing), 7);
}

static void test_another_maker_and_wider_addresses_are_told(void **state)
{
	*reg(&guest, 0, 0, CPUID_EBX) ^= 1;
	*reg(&guest, 0x80000008, 0, CPUID_EAX) += 1;
	assert_false(cpuid_offers(&host, &guest, missing, sizeof(missing)));
	assert_string_equal(missing, "a processor of the same maker, physical addresses as wide");
}

static void test_what_is_only_told_may_differ(void **state)
{
	*reg(&guest, 0x80000002, 0, CPUID_EAX) ^= 0x20202020;	/* the name */
	*reg(&guest, 1, 0, CPUID_EAX) ^= 1;	/* the stepping */
	*reg(&guest, 0x15, 0, CPUID_EBX) += 12;	/* the rate */
	assert_true(cpuid_offers(&host, &guest, missing, sizeof(missing)));
	cpuid_take(&host, &guest);
	assert_int_equal(*reg(&host, 1, 0, CPUID_EAX), *reg(&guest, 1, 0, CPUID_EAX));
	assert_int_equal(*reg(&host, 0x15, 0, CPUID_EBX) + 12, *reg(&guest, 0x15, 0, CPUID_EBX));
	assert_true(cpuid_same(&host, &guest));
	*reg(&guest, 1, 0, CPUID_EAX) ^= 1;
	assert_false(cpuid_same(&host, &guest));
}

/* Lengths are added up from the table: none may be in it that nobody has looked at. */
static void test_a_table_that_lies_about_vector_state_is_none(void **state)
{
	struct cpuid_entry *e = &guest.entry[guest.nentries];
	const uint32_t size = cpuid_xsave_size(&guest, ~0ull);
	const uint32_t subleafs[] = { 2, 9, 31, 32, 66, ~0u };

	for (size_t i = 0; i < sizeof(subleafs) / sizeof(*subleafs); i++) {
		*e = (struct cpuid_entry){ .leaf = 0xd, .subleaf = subleafs[i], .has_subleafs = true, .reg = { 1u << 30, 1u << 30 } };
		guest.nentries++;
		assert_false(cpuid_offers(&host, &guest, missing, sizeof(missing)));
		guest.nentries--;
	}
	e = cpuid_find(&guest, 0xd, 2);
	if (e) {
		e->reg[CPUID_EAX] += 64;
		assert_false(cpuid_offers(&host, &guest, missing, sizeof(missing)));
		assert_string_equal(missing, "vector state of the same layout");
	}
	guest = host;
	cpuid_find(&guest, 0xd, 0)->has_subleafs = false;
	assert_false(cpuid_offers(&host, &guest, missing, sizeof(missing)));
	guest = host;
	guest.nentries = CPUID_ENTRIES_MAX + 1;
	assert_false(cpuid_offers(&host, &guest, missing, sizeof(missing)));
	assert_int_equal(cpuid_xsave_size(&host, ~0ull), size);
}

static void test_a_vm_says_what_its_guest_has_seen_or_why_not(void **state)
{
	struct err err = { 0 };
	struct mem *mem;
	struct vm *vm;

	assert_int_equal(mem_create(2u << 20, &mem, NULL), 0);
	assert_int_equal(vm_create(&dbt_engine, mem, 2, &vm, NULL), 0);
	guest = vm->cpuid;
	vm_destroy(vm);
	cpuid_clear(&guest, 7, 0, CPUID_EDX, 1u << 14);
	assert_int_equal(vm_create_as(&dbt_engine, mem, 2, &guest, &vm, &err), 0);
	assert_true(cpuid_same(&vm->cpuid, &guest));
	vm_destroy(vm);
	*reg(&guest, 7, 0, CPUID_EBX) |= 1u << 4;	/* HLE, which no engine has */
	assert_int_equal(vm_create_as(&dbt_engine, mem, 2, &guest, &vm, &err), -ENOTSUP);
	assert_non_null(strstr(err.msg, "engine dbt does not have here: bit 4 of leaf 0x7"));
	mem_destroy(mem);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup(f, setup)
	const struct CMUnitTest tests[] = {
		T(test_what_the_host_has_is_offered),
		T(test_a_guest_may_have_seen_less),
		T(test_what_is_missing_has_names),
		T(test_another_maker_and_wider_addresses_are_told),
		T(test_what_is_only_told_may_differ),
		T(test_a_table_that_lies_about_vector_state_is_none),
		T(test_a_vm_says_what_its_guest_has_seen_or_why_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
