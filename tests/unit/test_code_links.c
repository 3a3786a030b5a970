/* SPDX-License-Identifier: Apache-2.0 */
/* Jumps between blocks of translated code, as they are linked and unlinked: see store_jump() in engine/dbt/block.c. */
#include "engine/dbt/block.h"
#include "os/err.h"
#include "vmm/guest_mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#define RAM (2ull << 20)
#define AT 0x100u	/* of the jump, in the code */
#define STUB 0x1000u
#define FILLER 0xccu	/* what is around it must stay */

static const uint8_t nothing[5] = { 0x0f, 0x1f, 0x44, 0x00, 0x00 };

struct state {
	struct mem *mem;
	struct code_cache *cc;
	struct block *from, *to;
	struct exit *x;
};

static int set_up(void **ctx)
{
	static struct state s;
	struct err err = { 0 };

	assert_int_equal(mem_create(RAM, &s.mem, &err), 0);
	assert_int_equal(code_cache_create(s.mem, &s.cc, &err), 0);
	s.from = &s.cc->blocks[0];
	s.to = &s.cc->blocks[1];
	s.x = &s.cc->exits[0];
	*ctx = &s;
	return 0;
}

static int tear_down(void **ctx)
{
	struct state *s = *ctx;

	code_cache_destroy(s->cc);
	mem_destroy(s->mem);
	return 0;
}

/* A jump of @op, 1 or 2 bytes, at place @at that leads to its stub. */
static void put_jump(struct state *s, size_t at, const uint8_t *op, size_t len)
{
	uint8_t *jump = s->cc->rw + at;
	int32_t rel = (int32_t)(s->cc->rw + STUB - (jump + len + 4));

	memset(s->cc->rw + AT - 16, FILLER, 48);
	memcpy(jump, op, len);
	memcpy(jump + len, &rel, sizeof(rel));
	*s->x = (struct exit){ .from = s->from, .patch = jump + len, .stub = s->cc->rw + STUB };
	memset(s->to, 0, sizeof(*s->to));
}

static void check_jump(const struct state *s, size_t at, const uint8_t *op, size_t len, size_t target)
{
	int32_t rel = (int32_t)(target - (at + len + 4));

	assert_memory_equal(s->cc->rx + at, op, len);
	assert_memory_equal(s->cc->rx + at + len, &rel, sizeof(rel));
}

static void check_around(const struct state *s, size_t at, size_t len)
{
	for (size_t i = AT - 16; i < AT + 32; i++)
		assert_true((i >= at && i < at + len) || s->cc->rx[i] == FILLER);
}

static void test_jump_to_what_follows_is_none(void **ctx)
{
	static const uint8_t jmp = 0xe9;
	struct state *s = *ctx;

	for (size_t at = AT; at <= AT + 3; at++) {	/* all places of 5 bytes in an aligned quadword */
		for (unsigned i = 0; i < 2; i++) {
			size_t target = at + 5 + 16 * i;

			put_jump(s, at, &jmp, 1);
			s->to->code = s->cc->rx + target;
			exit_link(s->cc, s->x, s->to);
			assert_ptr_equal(s->x->to, s->to);
			if (i == 0)
				assert_memory_equal(s->cc->rx + at, nothing, sizeof(nothing));
			else
				check_jump(s, at, &jmp, 1, target);
			check_around(s, at, 5);
			block_unlink_incoming(s->cc, s->to);
			assert_null(s->x->to);
			check_jump(s, at, &jmp, 1, STUB);
			check_around(s, at, 5);
		}
	}
}

static void test_conditional_jump_stays_one(void **ctx)
{
	static const uint8_t jle[2] = { 0x0f, 0x8e };
	struct state *s = *ctx;

	for (size_t at = AT; at <= AT + 6; at++) {	/* the opcode may lie in the quadword before */
		if ((at + 2) % 8 > 4)
			continue;
		put_jump(s, at, jle, 2);
		s->to->code = s->cc->rx + at + 6;
		exit_link(s->cc, s->x, s->to);
		check_jump(s, at, jle, 2, at + 6);
		check_around(s, at, 6);
		block_unlink_incoming(s->cc, s->to);
		check_jump(s, at, jle, 2, STUB);
		check_around(s, at, 6);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_jump_to_what_follows_is_none, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_conditional_jump_stays_one, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
