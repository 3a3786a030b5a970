/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/gdb.h"
#include "machine/gdb_regs.h"
#include "vmm/guest_mem.h"
#include "vmm/vcpu_state.h"
#include "vmm/walk.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define THREADS 2u
#define BASE 0x400000u	/* of the memory below */

static struct vcpu_state states[THREADS];
static uint8_t memory[4096];
static char sent[65536];	/* everything since the last take() */
static size_t nsent;
static char calls[512];	/* what the target was asked, in words */
static struct gdb *gdb;

__attribute__((format(printf, 1, 2)))
static void note(const char *fmt, ...)
{
	size_t at = strlen(calls);
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(calls + at, sizeof(calls) - at, fmt, ap);
	va_end(ap);
}

static struct vcpu_state *get_state(void *ctx, unsigned thread, bool change)
{
	return &states[thread];
}

static int read_memory(void *ctx, unsigned thread, uint64_t va, void *buf, size_t len)
{
	if (va < BASE || va - BASE > sizeof(memory) || len > sizeof(memory) - (va - BASE))
		return -EFAULT;
	memcpy(buf, memory + (va - BASE), len);
	return 0;
}

static int write_memory(void *ctx, unsigned thread, uint64_t va, const void *buf, size_t len)
{
	if (va < BASE || va - BASE > sizeof(memory) || len > sizeof(memory) - (va - BASE))
		return -EFAULT;
	memcpy(memory + (va - BASE), buf, len);
	return 0;
}

static int point(void *ctx, unsigned thread, enum gdb_point kind, uint64_t va, uint64_t len, bool set)
{
	note("%s %d 0x%llx %llu;", set ? "set" : "clear", (int)kind, (unsigned long long)va, (unsigned long long)len);
	return len > 8 ? -EINVAL : 0;
}

static void resume(void *ctx, const enum gdb_action *action)
{
	note("resume %d %d;", (int)action[0], (int)action[1]);
}

static void interrupt(void *ctx)
{
	note("interrupt;");
}

static void detach(void *ctx, bool kill)
{
	note(kill ? "kill;" : "detach;");
}

static void keep(void *ctx, const void *data, size_t len)
{
	assert_true(nsent + len < sizeof(sent));
	memcpy(sent + nsent, data, len);
	nsent += len;
	sent[nsent] = '\0';
}

static const struct gdb_target target = {
	.nthreads = THREADS, .state = get_state, .read = read_memory, .write = write_memory, .point = point,
	.resume = resume, .interrupt = interrupt, .detach = detach, .send = keep,
};

static int setup(void **state)
{
	struct gdb_stop stop = { .signal = 5 };

	memset(states, 0, sizeof(states));
	memset(memory, 0, sizeof(memory));
	nsent = 0;
	sent[0] = calls[0] = '\0';
	gdb = gdb_create(&target, &stop);
	return !gdb;
}

static int teardown(void **state)
{
	gdb_destroy(gdb);
	return 0;
}

static bool input(const char *text)
{
	nsent = 0;
	sent[0] = '\0';
	return gdb_input(gdb, (const uint8_t *)text, strlen(text));
}

/* Sends a packet and returns the reply without its frame; "" as well when there is none. */
static const char *ask(const char *packet)
{
	static char reply[65536];
	char framed[8192];
	uint8_t sum = 0;
	char *hash;

	for (const char *p = packet; *p; p++)
		sum += (uint8_t)*p;
	(void)snprintf(framed, sizeof(framed), "$%s#%02x", packet, sum);
	(void)input(framed);
	assert_int_equal(sent[0], '+');
	(void)snprintf(reply, sizeof(reply), "%s", nsent > 1 ? sent + 2 : "");
	hash = strrchr(reply, '#');
	if (hash)
		*hash = '\0';
	return reply;
}

static void test_a_packet_with_a_wrong_sum_is_asked_for_again(void **state)
{
	assert_true(input("$?#00"));
	assert_string_equal(sent, "-");
	assert_true(input("$?#3f"));
	assert_string_equal(sent, "+$T05thread:1;#d7");
	assert_true(input("-"));
	assert_string_equal(sent, "$T05thread:1;#d7");
}

static void test_packets_arrive_in_any_pieces(void **state)
{
	const char *text = "noise$?#3f";

	for (size_t i = 0; text[i]; i++)
		assert_true(gdb_input(gdb, (const uint8_t *)text + i, 1));
	assert_string_equal(sent, "+$T05thread:1;#d7");
}

static void test_without_acknowledgements_there_are_none(void **state)
{
	assert_string_equal(ask("QStartNoAckMode"), "OK");
	assert_true(input("$?#3f"));
	assert_string_equal(sent, "$T05thread:1;#d7");
}

static void test_a_packet_longer_than_promised_is_refused(void **state)
{
	static char text[GDB_PACKET_MAX + 100];

	memset(text, 'A', sizeof(text) - 1);
	text[0] = '$';
	memcpy(text + sizeof(text) - 5, "#00", 4);
	assert_true(input(text));
	assert_string_equal(sent, "-");
	assert_string_equal(ask("qC"), "QC1");
}

static void test_unknown_packets_get_the_empty_reply(void **state)
{
	assert_string_equal(ask("vMustReplyEmpty"), "");
	assert_string_equal(ask("qSymbol::"), "");
	assert_string_equal(ask("!"), "");
	assert_string_equal(ask("Z7,0,0"), "");
}

static void test_registers_are_read_and_written(void **state)
{
	char all[4096];

	states[0].gpr[RAX] = 0x1122334455667788;
	states[0].gpr[RBX] = 2;
	states[0].rip = 0xffffffff81000000;
	states[0].seg[SEG_CS].sel = 0x10;
	states[0].seg[SEG_CS].attr = 0xa09b;
	assert_string_equal(ask("p0"), "8877665544332211");
	assert_string_equal(ask("p1"), "0200000000000000");
	assert_string_equal(ask("p10"), "00000081ffffffff");
	assert_string_equal(ask("p12"), "10000000");
	assert_string_equal(ask("P10=efbeadde00000000"), "OK");
	assert_true(states[0].rip == 0xdeadbeef);
	assert_string_equal(ask("P12=33000000"), "OK");
	assert_int_equal(states[0].seg[SEG_CS].sel, 0x10);
	(void)snprintf(all, sizeof(all), "G%s", ask("g"));
	states[0].gpr[RBX] = 77;
	assert_string_equal(ask(all), "OK");
	assert_true(states[0].gpr[RBX] == 2);
	all[strlen(all) - 2] = '\0';
	assert_string_equal(ask(all), "E16");
	assert_string_equal(ask("P10=12"), "E16");
	assert_string_equal(ask("pffff"), "E16");
}

static void test_all_registers_written_back_are_the_same(void **state)
{
	struct vcpu_state before, after;
	uint8_t buf[GDB_REG_MAX];

	memset(&before, 0x5a, sizeof(before));
	before.xcr0 = 7;
	after = before;
	for (unsigned i = 0; i < gdb_regs_count(); i++) {
		gdb_reg_read(&before, i, buf);
		gdb_reg_write(&after, i, buf);
	}
	before.xsave[512] |= 7;
	after.xsave[512] |= 7;
	assert_memory_equal(&before, &after, sizeof(before));
}

static void test_tags_tell_empty_zero_and_special_registers(void **state)
{
	struct vcpu_state s = { .xcr0 = 3 };
	unsigned ftag = 24 + 8 + 2;
	uint8_t buf[GDB_REG_MAX];

	s.xsave[4] = 0x07;	/* physical registers 0 to 2 are in use; the top is 0 */
	s.xsave[32 + 7] = 0x80, s.xsave[32 + 8] = 0xff, s.xsave[32 + 9] = 0x3f;	/* ST(0) = 1.0 */
	s.xsave[64 + 8] = 0xff, s.xsave[64 + 9] = 0x7f;	/* ST(2): exponent of all ones; ST(1) = 0 */
	gdb_reg_read(&s, ftag, buf);
	assert_int_equal(buf[0] | buf[1] << 8, 0xffe4);
	gdb_reg_write(&s, ftag, (const uint8_t[GDB_REG_MAX]){ 0xfc, 0xff });
	assert_int_equal(s.xsave[4], 1);
}

static void test_the_description_comes_in_pieces(void **state)
{
	char *xml = gdb_regs_xml(), ask_for[64], got[65536] = "";
	const char *piece;

	assert_non_null(xml);
	do {
		(void)snprintf(ask_for, sizeof(ask_for), "qXfer:features:read:target.xml:%zx,3e8", strlen(got));
		piece = ask(ask_for);
		assert_true(piece[0] == 'm' || piece[0] == 'l');
		(void)strcat(got, piece + 1);
	} while (piece[0] == 'm');
	assert_string_equal(got, xml);
	assert_non_null(strstr(xml, "<reg name=\"rip\" bitsize=\"64\" type=\"code_ptr\" regnum=\"16\"/>"));
	assert_string_equal(ask("qXfer:features:read:target.xml:fffff,10"), "E16");
	free(xml);
}

static void test_memory_is_read_and_written(void **state)
{
	assert_string_equal(ask("M400010,4:deadbeef"), "OK");
	assert_string_equal(ask("m40000f,6"), "00deadbeef00");
	assert_true(input("$X400020,3:}\x03" "a}\x04#79"));	/* "#", "a", "$", escaped where they must be */
	assert_memory_equal(memory + 0x20, "#a$", 3);
	assert_string_equal(ask("m0,4"), "E0e");
	assert_string_equal(ask("m400ff0,20"), "00000000000000000000000000000000");	/* up to the end of its page */
	assert_string_equal(ask("M400010,4:dead"), "E16");
	assert_string_equal(ask("M400010,1:zz"), "E16");
	assert_string_equal(ask("mfffffffffffffffff,1"), "E16");
	assert_string_equal(ask("m400000"), "E16");
}

static void test_points_are_set_and_removed(void **state)
{
	assert_string_equal(ask("Z0,401000,1"), "OK");
	assert_string_equal(ask("z2,401008,8"), "OK");
	assert_string_equal(ask("Z4,401008,100"), "E16");
	assert_string_equal(calls, "set 0 0x401000 1;clear 2 0x401008 8;set 4 0x401008 256;");
	assert_string_equal(ask("Z0,401000"), "E16");
}

static void test_running_answers_when_it_stops(void **state)
{
	const struct gdb_stop stop = { .thread = 1, .signal = 5, .why = GDB_WHY_POINT, .point = GDB_WATCH_WRITE,
				       .addr = 0x1234 };

	assert_string_equal(ask("vCont;s:2;c"), "");
	assert_string_equal(calls, "resume 1 2;");
	assert_string_equal(ask("g"), "");	/* not now */
	gdb_stopped(gdb, &stop);
	assert_string_equal(sent, "+$T05thread:2;watch:1234;#2e");
	assert_string_equal(ask("qC"), "QC2");
}

static void test_a_thread_that_is_not_named_stays(void **state)
{
	assert_string_equal(ask("vCont;s:1"), "");
	assert_string_equal(calls, "resume 2 0;");
}

static void test_old_packets_resume_too(void **state)
{
	const struct gdb_stop stop = { .signal = 5 };

	(void)ask("c");
	gdb_stopped(gdb, &stop);
	(void)ask("s401000");
	gdb_stopped(gdb, &stop);
	assert_true(states[0].rip == 0x401000);
	assert_string_equal(ask("Hc2"), "OK");
	(void)ask("S05");
	assert_string_equal(calls, "resume 1 1;resume 2 1;resume 0 2;");
}

static void test_nothing_to_do_is_an_error(void **state)
{
	assert_string_equal(ask("vCont;t"), "E16");
	assert_string_equal(ask("vCont"), "E16");
	assert_string_equal(ask("vCont;c:3"), "E16");
	assert_string_equal(calls, "");
}

static void test_interrupt_counts_only_while_running(void **state)
{
	assert_true(input("\x03"));
	assert_string_equal(calls, "");
	(void)ask("c");
	assert_true(input("\x03"));
	assert_string_equal(calls, "resume 1 1;interrupt;");
}

static void test_reasons_that_gdb_does_not_know_are_left_out(void **state)
{
	const struct gdb_stop stop = { .signal = 5, .why = GDB_WHY_POINT, .point = GDB_HARDWARE };

	(void)ask("c");
	nsent = 0;
	gdb_stopped(gdb, &stop);
	assert_string_equal(sent, "$T05thread:1;#d7");
	(void)ask("qSupported:swbreak+;hwbreak+");
	assert_string_equal(ask("?"), "T05thread:1;hwbreak:;");
}

static void test_detaching_and_killing_end_the_conversation(void **state)
{
	assert_false(input("$D#44"));
	assert_string_equal(sent, "+$OK#9a");
	assert_string_equal(calls, "detach;");
	assert_false(input("$?#3f"));
	assert_string_equal(sent, "");
	(void)teardown(NULL);
	(void)setup(NULL);
	assert_false(input("$k#6b"));
	assert_string_equal(calls, "kill;");
}

static void test_the_end_of_the_machine_is_told(void **state)
{
	(void)ask("c");
	nsent = 0;
	gdb_exited(gdb);
	assert_string_equal(sent, "$W00#b7");
}

static void test_threads_are_the_processors(void **state)
{
	assert_string_equal(ask("qfThreadInfo"), "m1,2");
	assert_string_equal(ask("qsThreadInfo"), "l");
	assert_string_equal(ask("T2"), "OK");
	assert_string_equal(ask("T3"), "E03");
	states[1].gpr[RAX] = 5;
	assert_string_equal(ask("Hg2"), "OK");
	assert_string_equal(ask("p0"), "0500000000000000");
	assert_string_equal(ask("Hg7"), "E16");
}

/* ---------------------------------------------------------------- page tables */

static void put(uint8_t *ram, gpa_t at, uint64_t v)
{
	memcpy(ram + at, &v, 8);
}

static void test_page_tables_are_walked(void **state)
{
	struct vcpu_state s = { .cr0 = 1u << 31, .cr3 = 0x1000, .cr4 = 1 << 5, .efer = 1 << 10 };
	uint8_t *ram = calloc(1, 0x10000);
	struct mem mem;
	gpa_t gpa;

	mem_init_borrowed(&mem, ram, 0, 0x10000);
	put(ram, 0x1000 + 511 * 8, 0x2003);
	put(ram, 0x2000 + 510 * 8, 0x3003);
	put(ram, 0x3000 + 8 * 8, 0x4003);
	put(ram, 0x3000 + 9 * 8, 0x8000000000200083);	/* 2 MiB, not executable */
	put(ram, 0x4000 + 5 * 8, 0x7003);
	put(ram, 0x4000 + 6 * 8, 0x7002);	/* not present */
	put(ram, 0x2000 + 511 * 8, 0xfffffff003);	/* a table outside memory */
	assert_int_equal(walk_linear(&mem, &s, 0xffffffff81005123, &gpa), 0);
	assert_true(gpa == 0x7123);
	assert_int_equal(walk_linear(&mem, &s, 0xffffffff81234567, &gpa), 0);
	assert_true(gpa == 0x234567);
	assert_int_equal(walk_linear(&mem, &s, 0xffffffff81006000, &gpa), -EFAULT);
	assert_int_equal(walk_linear(&mem, &s, 0xffffffffc0000000, &gpa), -EFAULT);
	assert_int_equal(walk_linear(&mem, &s, 0x800000000000, &gpa), -EFAULT);
	assert_int_equal(walk_linear(&mem, &s, 0, &gpa), -EFAULT);
	s.cr0 = 1;
	assert_int_equal(walk_linear(&mem, &s, 0x1234, &gpa), 0);
	assert_true(gpa == 0x1234);
	free(ram);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_a_packet_with_a_wrong_sum_is_asked_for_again),
		TEST(test_packets_arrive_in_any_pieces),
		TEST(test_without_acknowledgements_there_are_none),
		TEST(test_a_packet_longer_than_promised_is_refused),
		TEST(test_unknown_packets_get_the_empty_reply),
		TEST(test_registers_are_read_and_written),
		TEST(test_all_registers_written_back_are_the_same),
		TEST(test_tags_tell_empty_zero_and_special_registers),
		TEST(test_the_description_comes_in_pieces),
		TEST(test_memory_is_read_and_written),
		TEST(test_points_are_set_and_removed),
		TEST(test_running_answers_when_it_stops),
		TEST(test_a_thread_that_is_not_named_stays),
		TEST(test_old_packets_resume_too),
		TEST(test_nothing_to_do_is_an_error),
		TEST(test_interrupt_counts_only_while_running),
		TEST(test_reasons_that_gdb_does_not_know_are_left_out),
		TEST(test_detaching_and_killing_end_the_conversation),
		TEST(test_the_end_of_the_machine_is_told),
		TEST(test_threads_are_the_processors),
		TEST(test_page_tables_are_walked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
