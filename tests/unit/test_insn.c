/* SPDX-License-Identifier: Apache-2.0 */
/* The decoder, one encoding of each kind; the differential tests see many more. */
#include "isa/insn.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

enum { AX, CX, DX, BX, SP, BP, SI, DI };

static size_t unhex(const char *hex, uint8_t *bytes)
{
	size_t n = 0;

	for (; hex[0] && hex[1]; hex += 2) {
		unsigned hi = (unsigned)(hex[0] <= '9' ? hex[0] - '0' : hex[0] - 'a' + 10);
		unsigned lo = (unsigned)(hex[1] <= '9' ? hex[1] - '0' : hex[1] - 'a' + 10);

		bytes[n++] = (uint8_t)(hi << 4 | lo);
	}
	return n;
}

static int decode(const char *hex, bool mode64, struct insn *in)
{
	uint8_t bytes[32];

	return insn_decode(bytes, unhex(hex, bytes), mode64, in);
}

static struct insn decoded(const char *hex, bool mode64)
{
	struct insn in;

	assert_int_equal(decode(hex, mode64, &in), 0);
	return in;
}

static void test_kinds_and_lengths(void **state)
{
	static const struct {
		const char *hex;
		bool mode64;
		uint8_t op, sys, len;
	} t[] = {
		{ "4889e5", true, INSN_COPY, 0, 3 },	/* mov rbp, rsp */
		{ "488d0510000000", true, INSN_LEA, 0, 7 },
		{ "90", true, INSN_NOP, 0, 1 },
		{ "f30f1efa", true, INSN_NOP, 0, 4 },	/* endbr64 */
		{ "0f0b", true, INSN_UD, 0, 2 },
		{ "0faee8", true, INSN_COPY, 0, 3 },	/* lfence */
		{ "0f0500", true, INSN_SYSTEM, SYS_SYSCALL, 2 },
		{ "48cf", true, INSN_SYSTEM, SYS_IRET, 2 },
		{ "0f22d8", true, INSN_SYSTEM, SYS_MOV_TO_CR, 3 },
		{ "8ed8", true, INSN_SYSTEM, SYS_MOV_TO_SEG, 2 },
		{ "7510", true, INSN_JCC, 0, 2 },
		{ "0f8410000000", true, INSN_JCC, 0, 6 },
		{ "ffe0", true, INSN_JMP_IND, 0, 2 },
		{ "ff5008", true, INSN_CALL_IND, 0, 3 },
		{ "ff2d00000000", true, INSN_SYSTEM, SYS_JMP_FAR, 6 },
		{ "c20800", true, INSN_RET, 0, 3 },
		{ "cb", true, INSN_SYSTEM, SYS_RET_FAR, 1 },
		{ "e310", true, INSN_JCXZ, 0, 2 },
		{ "0fa0", true, INSN_PUSH_SEG, 0, 2 },
		{ "f348a5", true, INSN_MOVS, 0, 3 },
		{ "f20f1000", true, INSN_COPY, 0, 4 },	/* movsd xmm0, [rax]: not the string one */
		{ "c4e2f9901488", true, INSN_GATHER, 0, 6 },
		{ "c4e2f9900c88", true, INSN_UD, 0, 1 },	/* destination and index the same */
		{ "0f01ca", true, INSN_UD, 0, 3 },	/* clac: not offered */
		{ "06", true, INSN_UD, 0, 1 },	/* push es */
		{ "06", false, INSN_PUSH_SEG, 0, 1 },
		{ "40", false, INSN_COPY, 0, 1 },	/* inc eax, where 64-bit code has REX */
		{ "37", false, INSN_SYSTEM, SYS_DECIMAL, 1 },
		{ "37", true, INSN_UD, 0, 1 },
		{ "48b81122334455667788", true, INSN_COPY, 0, 10 },
		{ "66b81122", true, INSN_COPY, 0, 4 },
		{ "678b4712", false, INSN_COPY, 0, 4 },
	};

	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		struct insn in = decoded(t[i].hex, t[i].mode64);

		assert_int_equal(in.op, t[i].op);
		assert_int_equal(in.sys, t[i].sys);
		if (in.op != INSN_UD)
			assert_int_equal(in.len, t[i].len);
	}
}

static void test_operands_of_memory(void **state)
{
	struct insn in = decoded("64488b849a78563412", true);	/* mov rax, fs:[rdx + rbx*4 + 0x12345678] */

	assert_true(in.mem);
	assert_int_equal(in.mem_rw, MEM_READ);
	assert_int_equal(in.mem_seg, 4);
	assert_int_equal(in.mem_base, DX);
	assert_int_equal(in.mem_index, BX);
	assert_int_equal(in.mem_scale, 2);
	assert_int_equal(in.mem_disp, 0x12345678);
	assert_int_equal(in.mem_size, 8);
	assert_int_equal(in.gpr_read, 1 << DX | 1 << BX);
	assert_int_equal(in.gpr_written, 1 << AX);
	assert_int_equal(decoded("65ac", true).mem_seg, 5);	/* lodsb */
	assert_int_equal(decoded("643eac", true).mem_seg, 4);
	assert_int_equal(decoded("643eac", false).mem_seg, INSN_REG_NONE);
	assert_int_equal(decoded("f364aa", true).mem_seg, INSN_REG_NONE);	/* rep stosb: to ES: always */
	assert_int_equal(decoded("64650f01fc", true).mem_seg, 5);	/* clzero */
	in = decoded("488305fcffffff01", true);	/* add qword [rip - 4], 1 */
	assert_int_equal(in.mem_base, INSN_REG_RIP);
	assert_int_equal(in.mem_disp, -4);
	assert_int_equal(in.mem_rw, MEM_READ | MEM_WRITE);
	assert_int_equal(in.imm, 1);
	in = decoded("8b042578563412", true);	/* no base at all */
	assert_int_equal(in.mem_base, INSN_REG_NONE);
	in = decoded("8b057856341a", false);	/* the same bytes in 32-bit code: an address, not relative */
	assert_int_equal(in.mem_base, INSN_REG_NONE);
	in = decoded("660ff7c1", true);	/* maskmovdqu */
	assert_true(in.mem_implicit);
	assert_int_equal(in.mem_base, DI);
	assert_int_equal(in.mem_masked, MASK_BYTES);
}

static void test_prefixes(void **state)
{
	struct insn in = decoded("f0480fb10e", true);	/* lock cmpxchg [rsi], rcx */

	assert_true(in.lock);
	assert_int_equal(in.rex, 0x48);
	assert_int_equal(in.map, 1);
	assert_int_equal(in.opcode, 0xb1);
	assert_true(in.gpr_read & 1 << AX);	/* implicit */
	in = decoded("486689c8", true);	/* a REX that is not the last prefix counts for nothing */
	assert_int_equal(in.rex, 0);
	assert_int_equal(in.opsize, 2);
	in = decoded("f3a4", true);
	assert_int_equal(in.rep, REP_REP);
	in = decoded("88e1", true);	/* mov cl, ah */
	assert_true(in.high_byte);
	assert_int_equal(in.gpr_read, 1 << AX | 1 << CX);	/* the rest of RCX stays */
}

static void test_flags(void **state)
{
	struct insn in = decoded("4801d8", true);	/* add */

	assert_int_equal(in.flags_killed, FLAGS_ARITH);
	assert_int_equal(in.flags_read, 0);
	in = decoded("4811d8", true);	/* adc */
	assert_int_equal(in.flags_read, FLAG_CF);
	in = decoded("48ffc0", true);	/* inc leaves CF */
	assert_int_equal(in.flags_killed, FLAGS_ARITH & ~FLAG_CF);
	in = decoded("48d3e0", true);	/* shl by CL, which may be 0 */
	assert_int_equal(in.flags_killed, 0);
	assert_int_equal(in.flags_written, FLAGS_ARITH);
	in = decoded("7610", true);	/* jbe */
	assert_int_equal(in.flags_read, FLAG_CF | FLAG_ZF);
	in = decoded("f3a6", true);	/* repe cmpsb, of nothing perhaps */
	assert_int_equal(in.flags_killed, 0);
}

static void test_privilege_and_vector_state(void **state)
{
	assert_true(decoded("f4", true).privileged);	/* hlt */
	assert_true(decoded("0f01f8", true).privileged);	/* swapgs */
	assert_false(decoded("0fa2", true).privileged);	/* cpuid */
	assert_true(decoded("c5f858c1", true).uses_fpu);
	assert_true(decoded("d9e8", true).uses_fpu);
	assert_true(decoded("0fae10", true).uses_fpu);	/* ldmxcsr */
	assert_false(decoded("4889e5", true).uses_fpu);
}

/* What may come before a page fault at an address. */
static void test_faults_of_wide_operands(void **state)
{
	static const struct {
		const char *hex;
		uint8_t careful;
	} t[] = {
		{ "488b01", 0 },		/* mov rax, [rcx] */
		{ "0f2801", 16 },		/* movaps xmm0, [rcx] */
		{ "660f1001", 0 },		/* movupd */
		{ "f20ff001", 0 },		/* lddqu */
		{ "660fd401", 16 },		/* paddq */
		{ "480fc709", 16 },		/* cmpxchg16b */
		{ "660f3a630100", 0 },		/* pcmpistri */
		{ "c5f82801", 16 },		/* vmovaps xmm0 */
		{ "c5fd6f01", 32 },		/* vmovdqa ymm0 */
		{ "c5fdd401", 0 },		/* vpaddq ymm0, ymm0 */
		{ "62f17c482801", 64 },		/* vmovaps zmm0 */
		{ "62f17c492801", CAREFUL_ALWAYS },	/* the same {k1} */
		{ "0fae01", CAREFUL_ALWAYS },	/* fxsave */
		{ "d901", CAREFUL_ALWAYS },	/* fld dword: an older x87 exception */
	};

	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++)
		assert_int_equal(decoded(t[i].hex, true).mem_careful, t[i].careful);
	assert_true(insn_fault_is_sure(0, 0x1001));
	assert_true(insn_fault_is_sure(32, 0x1020));
	assert_false(insn_fault_is_sure(32, 0x1010));
	assert_false(insn_fault_is_sure(CAREFUL_ALWAYS, 0x1000));
}

/* Bits without meaning in 32-bit code have one in 64-bit code, where the bytes will run. */
static void test_vex_of_32_bit_code_is_fit_for_64(void **state)
{
	struct insn in = decoded("c5f85801", false);	/* vaddps xmm0, xmm0, [ecx] */

	assert_int_equal(in.enc, ENC_VEX);
	assert_int_equal(in.bytes[1] & 0x80, 0x80);
	in = decoded("c4e1f96ec0", false);	/* vmovd with W, which 32-bit code ignores */
	assert_int_equal(in.bytes[2] & 0x80, 0);
	assert_int_equal(in.mode64, 0);
}

static void test_cut_and_overlong_instructions(void **state)
{
	static const char mov[] = "48b81122334455667788";
	uint8_t bytes[32];
	struct insn in;
	size_t len = unhex(mov, bytes);

	for (size_t n = 1; n < len; n++)
		assert_int_equal(insn_decode(bytes, n, true, &in), -ENODATA);
	assert_int_equal(insn_decode(bytes, len, true, &in), 0);
	assert_int_equal(insn_decode(bytes, 1, true, &in), -ENODATA);
	memset(bytes, 0x66, sizeof(bytes));
	assert_int_equal(insn_decode(bytes, 14, true, &in), -ENODATA);
	assert_int_equal(insn_decode(bytes, 15, true, &in), -E2BIG);
	assert_int_equal(insn_decode(bytes, sizeof(bytes), true, &in), -E2BIG);
	bytes[14] = 0x90;
	assert_int_equal(insn_decode(bytes, 15, true, &in), 0);	/* exactly as long as allowed */
	assert_int_equal(in.len, INSN_LEN_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kinds_and_lengths),
		cmocka_unit_test(test_operands_of_memory),
		cmocka_unit_test(test_prefixes),
		cmocka_unit_test(test_flags),
		cmocka_unit_test(test_privilege_and_vector_state),
		cmocka_unit_test(test_faults_of_wide_operands),
		cmocka_unit_test(test_vex_of_32_bit_code_is_fit_for_64),
		cmocka_unit_test(test_cut_and_overlong_instructions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
